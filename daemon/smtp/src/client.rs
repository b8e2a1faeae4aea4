//! The sending side: one connection to a next hop, used for many messages.
//!
//! *Guarantees*: a recipient is [`Outcome::Delivered`] only after a 2yz that answers the final dot
//! or the last chunk, itself handed out before; each recipient of a transaction gets exactly one
//! [`Outcome`]; [`Event::Closed`] is the last event. Content leaves with CRLF line ends and stuffed
//! dots, whatever came in (binary content by BDAT excepted). Content is sent only after a
//! recipient was accepted, so a refused chunk never has a successor under way that a careless
//! server might take for commands.
//!
//! *Limits*: [`limits`]; every wait ends at [`Client::deadline`].
//!
//! *Failure*: a reply that is malformed, early or not foreseen by RFC 5321 ends the connection as
//! [`Class::Protocol`].
//!
//! *Not here*: TLS itself, DNS, the choice of hosts, retries, reports.
//!
//! The driver of a machine repeats: feed an input, send what [`Client::output`] lends and
//! [`Client::consume`] it, take events with [`Client::poll`], set a timer to
//! [`Client::deadline`].

mod content;
mod dialogue;
mod envelope;
pub mod limits;
mod machine;
mod offers;
mod outcome;
mod reply;
mod settings;
mod stuff;
#[cfg(test)]
mod tests;
mod transaction;

pub use envelope::{BadEnvelope, Envelope, Recipient};
pub use machine::{Client, SubmitError};
pub use offers::{Extension, Offers};
pub use outcome::{Class, Event, Failure, Outcome, Refusal, Stage};
pub use reply::{Malformed, Reply, clean};
pub use settings::{EightBit, Settings, Timeouts, TlsPolicy};
pub use stuff::{LineState, end, normalise, stuff};
