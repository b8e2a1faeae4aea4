//! What the threads send each other: cores among themselves, cores and the house thread.
//!
//! *Limits.* Each mailbox holds [`MAIL_MAX`] messages; what a full one means stands where it is
//! posted.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use control::{Reply, Request};
use spool::file::FileDevice;
use spool::message::Envelope;

use crate::config::Config;
use crate::dns::{AddressAnswer, MxAnswer, Outcome, Question};
use crate::dnsbl::Zones;
use crate::rules::Rules;
use crate::tls::TlsStore;
use crate::xdp::Lists;

/// Messages that wait in one mailbox.
pub const MAIL_MAX: usize = 16_384;

/// One generation of everything the operator can change while the daemon runs.
#[derive(Debug)]
pub struct Orders {
    /// Counts the configs of this run, from 1.
    pub generation: u64,
    /// The config.
    pub config: Config,
    /// Certificates; none if no listener speaks TLS.
    pub tls: Option<Arc<TlsStore>>,
    /// DNS lists, with what is known of them.
    pub zones: Arc<Zones>,
    /// The operator's standing orders.
    pub rules: Arc<Rules>,
}

/// A device that takes the place of one that was put out.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Which.
    pub member: u16,
    /// Its column of the set.
    pub column: u8,
    /// The device.
    pub device: Arc<FileDevice>,
    /// It is the one that was put out.
    pub same: bool,
}

/// A message of a mirror's half that went on alone.
#[derive(Debug)]
pub struct Arriving {
    /// Its envelope, under the id it had there.
    pub envelope: Box<Envelope>,
    /// Its header section as received.
    pub header: Vec<u8>,
    /// Its whole body.
    pub body: Vec<u8>,
}

/// To a core.
#[derive(Debug)]
pub enum ToCore {
    /// From now on.
    Orders(Arc<Orders>),
    /// These lists from now on.
    Lists(Arc<Lists>),
    /// A connection another core has no slot for, and the tag of its listener.
    Adopt(OwnedFd, u32),
    /// A hint this core is the writer of.
    Hint(hints::Change),
    /// Where mail for a domain goes.
    Mx(Arc<str>, Arc<MxAnswer>),
    /// The addresses of a host.
    Addresses(Arc<str>, Arc<AddressAnswer>),
    /// What came over TCP of the question with this number.
    OverTcp(u64, Outcome),
    /// The DNS lists are to be asked again whether they list these, each by the list's number.
    Recheck(Vec<(std::net::IpAddr, u8)>),
    /// The admin tool asks, for that user; the number names the question.
    Asked(u64, u32, Arc<Request>),
    /// Keep that message under an id of this run; the number names the question.
    TakeIn(u64, Box<Arriving>),
    /// Stop accepting, finish what is under way, stop.
    Drain,
    /// The clock is vouched for, or not any more.
    ClockConfirmed(bool),
    /// That device of the spool takes no part any more.
    MemberOut(u16),
    /// That device of the spool is there, emptied, and is to be filled.
    MemberJoins(Joining),
    /// That device of the spool is filled, and counts.
    MemberIn(u16),
    /// The device that fails cannot be put out.
    MemberStays,
}

/// To the house thread.
#[derive(Debug)]
pub enum ToHouse {
    /// A core is made; whether its loop turns can be seen here.
    Beats(usize, engine::Heartbeat),
    /// A core turns its loop and listens on these addresses.
    Ready(usize, Vec<SocketAddr>),
    /// A core could not start.
    Failed(usize, String),
    /// A core wants to know where mail for a domain goes.
    Mx(usize, Arc<str>),
    /// A core wants to know the addresses of a host.
    Addresses(usize, Arc<str>),
    /// A core's part of an answer.
    Answered(u64, usize, Box<Reply>),
    /// A client was banned.
    Banned(std::net::IpAddr, hints::ban::Ban),
    /// The list with this number lists a banned client no more.
    Lifted(std::net::IpAddr, u8),
    /// A core's question whose answer did not fit into a datagram, with its number there.
    OverTcp(usize, u64, Question),
    /// Log lines wait in the core's queue.
    LinesWait(usize),
    /// A core's log wants that device of the spool put out.
    MemberFails(usize, u16),
    /// A core has copied all its log has to that device of the spool.
    MemberFilled(usize, u16),
    /// A core has stopped, all its mail in the log.
    Stopped(usize),
}
