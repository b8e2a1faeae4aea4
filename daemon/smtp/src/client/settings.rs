//! What a caller may choose for its connections.

use super::limits;

/// Whether a connection is to be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsPolicy {
    /// In clear, whatever the server offers.
    Never,
    /// If the server offers it; a failed handshake ends the connection with
    /// [`super::Failure::clear_may_help`].
    May,
    /// Or no message at all.
    Must,
}

/// A message of 8-bit content and a server without 8BITMIME.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EightBit {
    /// [`super::Outcome::NeedsExtension`] for each recipient.
    Report,
    /// Send it as it is.
    Send,
}

/// The longest waits, in µs, each from the last command or the last reply on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is explained at its default in `limits`")]
pub struct Timeouts {
    pub connect_us: u64,
    pub greeting_us: u64,
    pub ehlo_us: u64,
    pub tls_us: u64,
    pub mail_us: u64,
    pub rcpt_us: u64,
    pub data_us: u64,
    pub block_us: u64,
    pub dot_us: u64,
    pub rset_us: u64,
    pub quit_us: u64,
    pub idle_us: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect_us: limits::CONNECT_US,
            greeting_us: limits::GREETING_US,
            ehlo_us: limits::EHLO_US,
            tls_us: limits::TLS_US,
            mail_us: limits::MAIL_US,
            rcpt_us: limits::RCPT_US,
            data_us: limits::DATA_US,
            block_us: limits::BLOCK_US,
            dot_us: limits::DOT_US,
            rset_us: limits::RSET_US,
            quit_us: limits::QUIT_US,
            idle_us: limits::IDLE_US,
        }
    }
}

/// Shared by all connections of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Our name in EHLO: a domain or an address literal. Anything but visible ASCII of at most
    /// [`limits::HELO_MAX`] octets is replaced by `localhost`.
    pub helo: Box<str>,
    /// The longest waits.
    pub timeouts: Timeouts,
    /// Messages over one connection, then QUIT.
    pub messages_max: u32,
    /// Recipients in one transaction; at most [`limits::RECIPIENTS_MAX`].
    pub recipients_max: usize,
    /// 8-bit content and no 8BITMIME.
    pub eight_bit: EightBit,
    /// Use PIPELINING where offered.
    pub pipelining: bool,
    /// Use BDAT where offered.
    pub chunking: bool,
}

impl Settings {
    /// Defaults, and this name in EHLO.
    #[must_use]
    pub fn new(helo: &str) -> Self {
        Self {
            helo: helo.into(),
            timeouts: Timeouts::default(),
            messages_max: limits::MESSAGES_MAX,
            recipients_max: 100,
            eight_bit: EightBit::Report,
            pipelining: true,
            chunking: true,
        }
    }

    /// The name to send.
    pub(super) fn helo(&self) -> &str {
        let fits = (1..=limits::HELO_MAX).contains(&self.helo.len())
            && self.helo.bytes().all(|c| c.is_ascii_graphic());
        if fits { &self.helo } else { "localhost" }
    }
}
