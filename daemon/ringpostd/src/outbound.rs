//! One connection to a next hop: the sending machine over the engine, clear or under TLS.
//!
//! *Guarantees.* The machine's output leaves in order; nothing is read as a reply that came before
//! TLS was agreed.
//! *Limits.* [`AHEAD_MAX`] octets in the engine's hands; then the machine waits.
//! *Not here.* What is sent, and what becomes of it (`relay`).

use std::io;
use std::net::SocketAddr;

use engine::{Conn, Core};
use smtp::client::{self, Client, TlsPolicy};

use crate::post::ToCore;
use crate::tls::{ClientTls, Session, SessionInfo};

/// Octets given to the engine and not yet sent.
const AHEAD_MAX: usize = 256 << 10;

/// A host that is, or was, connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Its name as the route or the DNS gave it.
    pub name: Box<str>,
    /// Its address and port.
    pub address: SocketAddr,
    /// Whether TLS is wanted with it.
    pub tls: TlsPolicy,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    conn: Conn,
    hop: Hop,
    machine: Client,
    tls: Option<Box<Session>>,
    info: Option<Box<SessionInfo>>,
    timer_us: u64,
    opened_us: u64,
    /// The relay's job under way.
    pub job: Option<usize>,
    closing: bool,
}

impl Link {
    /// A connection that is being opened.
    #[must_use]
    pub fn new(conn: Conn, hop: Hop, machine: Client, now_us: u64) -> Self {
        Self {
            conn,
            hop,
            machine,
            tls: None,
            info: None,
            timer_us: u64::MAX,
            opened_us: now_us,
            job: None,
            closing: false,
        }
    }

    /// Where it leads.
    #[must_use]
    pub const fn hop(&self) -> &Hop {
        &self.hop
    }

    /// The machine, for submitting and feeding.
    pub const fn machine(&mut self) -> &mut Client {
        &mut self.machine
    }

    /// What was agreed in the handshake.
    #[must_use]
    pub fn tls(&self) -> Option<&SessionInfo> {
        self.info.as_deref()
    }

    /// When it was opened.
    #[must_use]
    pub const fn opened_us(&self) -> u64 {
        self.opened_us
    }

    /// Whether a message may be given to it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.job.is_none() && self.machine.ready() && !self.closing
    }

    /// The attempt to connect ended.
    pub fn connected(&mut self, now_us: u64, result: &io::Result<()>) {
        match result {
            Ok(()) => self.machine.connected(now_us),
            Err(_) => {
                self.closing = true;
                self.machine.connect_failed(now_us);
            }
        }
    }

    /// Octets came.
    pub fn received(&mut self, core: &mut Core<ToCore>, now_us: u64, bytes: &mut [u8]) {
        let Some(tls) = &mut self.tls else { return self.machine.receive(now_us, bytes) };
        let mut plain = Vec::new();
        let mut out = Vec::new();
        let outcome = tls.receive(bytes, |piece| plain.extend_from_slice(piece), &mut out);
        if !out.is_empty() {
            let _ = core.send(self.conn, &out);
        }
        match outcome {
            Ok(progress) => {
                if progress.established {
                    self.info = tls.info().map(Box::new);
                    self.machine.tls_established(now_us);
                }
                if !plain.is_empty() {
                    self.machine.receive(now_us, &plain);
                }
                if progress.closed {
                    self.machine.eof(now_us);
                }
            }
            Err(_) if self.info.is_none() => self.machine.tls_failed(now_us, "handshake failed"),
            Err(_) => self.machine.eof(now_us),
        }
    }

    /// The server asked for TLS: the first flight goes out.
    fn begin_tls(&mut self, core: &mut Core<ToCore>, tls: &ClientTls, now_us: u64) {
        let mut out = Vec::new();
        let session = tls.session(&self.hop.name, self.hop.address.ip());
        let begun = session.and_then(|mut session| {
            session.receive(&mut [], |_| {}, &mut out)?;
            Ok(session)
        });
        match begun {
            Ok(session) => {
                self.tls = Some(Box::new(session));
                let _ = core.send(self.conn, &out);
            }
            Err(_) => self.machine.tls_failed(now_us, "no handshake could be made"),
        }
    }

    /// The next event of the machine; STARTTLS is dealt with here.
    pub fn next_event(
        &mut self,
        core: &mut Core<ToCore>,
        tls: &ClientTls,
        now_us: u64,
    ) -> Option<client::Event> {
        loop {
            match self.machine.poll()? {
                client::Event::StartTls { .. } => self.begin_tls(core, tls, now_us),
                event => return Some(event),
            }
        }
    }

    /// Sends what the machine has to say, as far as the engine takes it.
    pub fn pump(&mut self, core: &mut Core<ToCore>, now_us: u64) {
        while !self.closing {
            let output = self.machine.output();
            if output.is_empty() {
                break;
            }
            if core.queued(self.conn) >= AHEAD_MAX {
                core.want_drained(self.conn);
                break;
            }
            let taken = output.len().min(AHEAD_MAX);
            let sent = match &mut self.tls {
                None => core.send(self.conn, &output[..taken]).is_ok(),
                Some(tls) => {
                    let mut sealed = Vec::with_capacity(taken + 64);
                    tls.send(&output[..taken], &mut sealed).is_ok()
                        && core.send(self.conn, &sealed).is_ok()
                }
            };
            if !sent {
                self.machine.eof(now_us);
                break;
            }
            self.machine.consume(now_us, taken);
        }
        self.arm(core);
    }

    fn arm(&mut self, core: &mut Core<ToCore>) {
        let due = self.machine.deadline().unwrap_or(u64::MAX);
        if due < self.timer_us && !self.closing {
            self.timer_us = due;
            core.set_conn_timer(self.conn, due);
        }
    }

    /// The connection's timer fired, perhaps too early.
    pub fn timer(&mut self, core: &mut Core<ToCore>, now_us: u64) {
        self.timer_us = u64::MAX;
        self.machine.timer(now_us);
        self.arm(core);
    }

    /// The server will send no more, or the connection broke.
    pub fn ended(&mut self, now_us: u64) {
        self.machine.eof(now_us);
    }

    /// Closes the connection once what was queued is sent.
    pub fn close(&mut self, core: &mut Core<ToCore>) {
        if self.closing {
            return;
        }
        self.closing = true;
        if let Some(tls) = &mut self.tls {
            let mut out = Vec::new();
            tls.close(&mut out);
            if !out.is_empty() {
                let _ = core.send(self.conn, &out);
            }
        }
        core.clear_conn_timer(self.conn);
        core.finish(self.conn);
    }
}
