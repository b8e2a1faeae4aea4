//! What a source is asked to do.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::mail::Size;

/// When messages start, and when the run ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Each session sends its next message when the last one is answered, until so many are sent.
    Total(u64),
    /// The same for so long.
    For(Duration),
    /// Messages start at fixed times, so many a second for so long, whatever the server does.
    Open {
        /// Messages a second.
        rate: f64,
        /// How long messages start.
        duration: Duration,
    },
    /// No messages: hold the sessions after EHLO until stopped or for so long.
    Idle(Duration),
}

/// STARTTLS.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Starttls {
    /// Share of the connections that use it, from 0 to 1.
    pub share: f64,
    /// Share of those that resume an earlier session.
    pub resumed_share: f64,
    /// One version only.
    pub version: Option<&'static rustls::SupportedProtocolVersion>,
}

/// Shares of what the server is to refuse, from 0 to 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Refused {
    /// Messages to a recipient that is not known.
    pub unknown_share: f64,
    /// That recipient; `%` stands for a number.
    pub unknown_to: String,
    /// Messages declared larger than anybody takes.
    pub oversized_share: f64,
    /// Connections from `listed`.
    pub listed_share: f64,
    /// A source address the server turns away.
    pub listed: Option<Ipv4Addr>,
}

/// A run of the source.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server.
    pub target: SocketAddr,
    /// Sessions at the same time; in open loop the most.
    pub sessions: u32,
    /// Messages on one connection before QUIT.
    pub messages_per_connection: u64,
    /// Pace and end.
    pub pace: Pace,
    /// Size of messages.
    pub size: Size,
    /// Recipients of a message.
    pub recipients: usize,
    /// Recipient addresses; `%` stands for the number of the recipient.
    pub to: String,
    /// Sender address.
    pub from: String,
    /// Name given in EHLO.
    pub helo: String,
    /// Use PIPELINING if announced.
    pub pipelining: bool,
    /// Send QUIT together with the end of our side.
    pub quit_fin: bool,
    /// Addresses to connect from, `source_first` and on; 1: the kernel's choice.
    pub source_addresses: u32,
    /// The first of them.
    pub source_first: Ipv4Addr,
    /// Send content with BDAT if announced.
    pub chunking: bool,
    /// Use STARTTLS if announced; a server that does not announce it gets plain text.
    pub starttls: Option<Starttls>,
    /// What is to be refused.
    pub refused: Refused,
    /// Messages of this folder (`.eml` files) instead of made ones.
    pub eml: Option<PathBuf>,
    /// Sessions that send slowly, and how many octets a second they send.
    pub slow: Option<(u32, u32)>,
    /// A reply that takes longer fails the connection.
    pub timeout: Duration,
    /// The run ends early after so many failed connections.
    pub failures_max: u64,
    /// Where the ids of acknowledged messages go, one a line.
    pub acked: Option<PathBuf>,
    /// Where the replies of 400 and above go, as they came.
    pub refusals: Option<PathBuf>,
    /// Seed of contents and sizes.
    pub seed: u64,
    /// A progress line each second on stderr.
    pub progress: bool,
}

impl Options {
    /// 64 sessions, 20 messages of 4 KiB on each connection, one recipient, for a second.
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            sessions: 64,
            messages_per_connection: 20,
            pace: Pace::For(Duration::from_secs(1)),
            size: Size::Fixed(4096),
            recipients: 1,
            to: "user%@example.org".to_owned(),
            from: "mxbench@example.com".to_owned(),
            helo: "mxbench.example.com".to_owned(),
            pipelining: true,
            quit_fin: false,
            source_addresses: 1,
            source_first: Ipv4Addr::new(127, 0, 1, 1),
            chunking: false,
            starttls: None,
            refused: Refused::default(),
            eml: None,
            slow: None,
            timeout: Duration::from_secs(60),
            failures_max: 1000,
            acked: None,
            refusals: None,
            seed: 1,
            progress: false,
        }
    }
}
