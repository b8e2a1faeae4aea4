//! Questions to the DNS: a machine for each core's own look-ups, a facade for the house's.
//!
//! *Guarantees.* An answer is taken only for a question that is open, on the socket it went out on,
//! with its id, name, type and class. What comes back for a name is safe to log.
//!
//! *Limits.* [`limits`]: records and aliases read, questions in flight, tries, sockets.
//!
//! *Failure.* A question always ends, at the latest when its tries are used up, as
//! [`Outcome::Failed`]: that is local trouble and leads to a 4xx, never to a 5xx.
//!
//! *Not here.* A cache (the resolver on this machine has one), validation of DNSSEC, sockets.

pub mod limits;

mod question;

mod answer;

mod lookups;
mod reverse;

mod outward;

pub use answer::{Answer, Data, Failure, Outcome};
pub use lookups::{Busy, Counters, Finished, Lookups, LookupsConfig, Slot, Wire};
pub use outward::{AddressAnswer, MxAnswer, MxHost, Outward, OutwardConfig};
pub use question::{BadName, Kind, Question};
pub use reverse::{Reverse, ReverseLookup, Step};

#[cfg(test)]
mod tests;
