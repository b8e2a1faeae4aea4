//! The only code with `CAP_BPF`: loads, attaches, pins and swaps the XDP filter.
//!
//! `ringpostd gate` is a process of its own around [`serve`]; the mail process holds the other
//! end of a socket pair and, through descriptors it is given, writes bans ([`Bans`]) and says that
//! it accepts ([`Accepting`]). What the filter decides stands in `ebpf-common`.
//!
//! *Guarantees*: a swap of all lists is one store; until then the old lists are in force, and
//! memory of the old ones is given back only when no running program can see them. A filter that
//! cannot be attached in native mode is attached in generic mode, with a note. Attaching again,
//! and a new version of the program, replace the running one without a moment unprotected.
//!
//! *Failure*: [`Problem`] says which call failed on what; the lists in force stay in force.
//!
//! *Not here*: mail, network sockets, DNS, feeds, the ladder. Nothing here decides who is listed.

mod limits;
mod problem;
mod sys;
mod kernel;
mod map;
mod bans;
mod inner;
mod settings;
mod status;
mod object;
mod gate;
mod wire;
mod serve;

pub use ebpf_common::set::{Record, Set, SetError, TABLES, Table, header};

pub use crate::bans::{Accepting, Ban, Bans};
pub use crate::gate::{Attachment, Descriptors, Gate, Prober, Trial};
pub use crate::kernel::Way;
pub use crate::kernel::{Facts, confine, keep_low_ports, monotonic_s};
pub use crate::limits::*;
pub use crate::problem::Problem;
pub use crate::serve::{refuse, serve};
pub use crate::settings::{Rate, Settings};
pub use crate::status::Status;
pub use crate::wire::{Answer, Client, Request, pair};
