//! One receiving session: octets to the machine, questions to facts, facts to `acl`, answers back.
//!
//! *Guarantees.* 250 is written only when the log says that the message is durable. A client that
//! goes away while its message is being written leaves the message in the log.
//! *Limits.* The machine's; one record of TLS plaintext while a question is open.
//! *Failure.* Every refusal is one [`Reason`], told to the stream with what was known.
//! *Not here.* Where accepted mail goes: this module and the relay meet in the log.

mod facts;
mod ladder;
mod host;
pub mod proxy;
pub mod rehearsal;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use engine::{Conn, Core};
use smtp::server::{Action, Answer, Closed, Server, Token};

use crate::config::ListenerTls;
use crate::desk::{Desk, Space};
use crate::dns::Reverse;
use crate::dnsbl::Judged;
use crate::events::{Client, Ending, Event, Phase, Reason};
use crate::post::ToCore;
use crate::standing::{Excess, Guest};
use crate::tls::SessionInfo;

use host::{Host, Talk};
use wire::Wire;

pub use facts::machines;

/// Octets of replies a client may leave unread before we stop reading from it.
const UNREAD_MAX: usize = 64 << 10;
/// While the daemon drains: who was not heard for so long is told to come back later ...
const DRAIN_SILENT_US: u64 = 300_000;
/// ... and so is everybody after this time.
const DRAIN_TALK_US: u64 = 1_200_000;

/// Lines of one piece that a traced session takes down: content is cut.
const TRACED_LINES_MAX: usize = 100;

/// One session.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    talk: Box<Talk>,
    machine: Server,
    wire: Wire,
    /// Plaintext the machine could not take yet (with TLS; without, the engine keeps it).
    rest: Vec<u8>,
    /// The PROXY header as far as it came; `None` behind it.
    proxy: Option<Vec<u8>>,
    timer_us: u64,
    closing: bool,
    /// When the client was heard last.
    heard_us: u64,
    /// Told that the daemon stops.
    leaving: bool,
    /// It was closing when it was looked at last.
    hurried: bool,
    eof: bool,
}

/// How a connection came in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The connection.
    pub conn: Conn,
    /// Place of its listener in the config.
    pub listener: usize,
    /// The other end.
    pub peer: SocketAddr,
    /// This end.
    pub local: SocketAddr,
}

impl Session {
    /// Takes a connection.
    pub fn start(core: &mut Core<ToCore>, desk: &mut Desk, arrival: Arrival) -> Self {
        let Arrival { conn, listener, peer, local } = arrival;
        let id = desk.ids.next_id();
        let orders = Arc::clone(&desk.orders);
        let listening = &orders.config.listeners[listener.min(orders.config.listeners.len() - 1)];
        let machine = Arc::clone(&desk.machines[listener.min(desk.machines.len() - 1)]);
        let talk = Talk::new(id, listener, plain(peer), plain(local), desk.now_us);
        let wants_proxy = listening.proxy == crate::config::Proxy::Require;
        let mut session = Self {
            conn,
            machine: Server::new(machine, talk.id_text()),
            talk: Box::new(talk),
            wire: Wire::Clear,
            rest: Vec::new(),
            proxy: None,
            timer_us: u64::MAX,
            closing: false,
            heard_us: desk.now_us,
            leaving: false,
            hurried: false,
            eof: false,
        };
        session.talk.entered = desk.enter_listener(listener);
        if !session.talk.entered {
            session.turn_away(core, desk, Reason::Busy);
            return session;
        }
        if wants_proxy {
            if !crate::config::any_contains(&listening.proxy_peers, plain(peer).ip()) {
                session.turn_away(core, desk, Reason::ProxyHeader);
                return session;
            }
            session.proxy = Some(Vec::new());
            session.timer_us = desk.now_us + orders.config.timeouts_in.proxy_s.us();
            core.set_conn_timer(conn, session.timer_us);
            return session;
        }
        session.greet(core, desk, listening.tls);
        session
    }

    /// Everything is known of the connection: let it in, or turn it away.
    fn greet(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, tls: ListenerTls) {
        let rules = Arc::clone(&desk.orders.rules);
        let stance = rules.stance(self.talk.remote.ip(), desk.wall_us / 1_000_000);
        if stance == Some(false) {
            return self.turn_away(core, desk, Reason::Blocked);
        }
        if !rules.accepting.takes_mail() {
            return self.turn_away(core, desk, Reason::Suspended);
        }
        if desk.space == Space::Out {
            return self.turn_away(core, desk, Reason::SpoolOut);
        }
        let arrived = if stance == Some(true) {
            Ok(desk.standing.exempt(self.talk.remote.ip()))
        } else {
            desk.standing.arrive(self.talk.remote.ip(), desk.wall_us)
        };
        match arrived {
            Ok(guest) => self.talk.guest = Some(guest),
            Err(excess) => {
                let reason = reason_of(excess);
                desk.tell(&Event::LimitHit { client: &self.talk.client(), reason });
                self.turn_away(core, desk, reason);
                return;
            }
        }
        self.talk.may_relay = desk.may_relay(self.talk.remote);
        if let Some(names) = &mut desk.names {
            names.ask(core, self.conn, self.talk.remote.ip());
        }
        self.talk.ladder.look(core, desk, self.conn, self.talk.remote.ip());
        desk.tell(&Event::Connected(&self.talk.client()));
        if tls == ListenerTls::Implicit {
            self.wire.begin(desk, self.talk.local.ip());
            return self.arm(core, desk);
        }
        self.with_machine(core, desk, |machine, host| machine.start(host.desk.now_us, host));
    }

    /// 421 before anything was said, in one line that names the reason and the id.
    fn turn_away(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, reason: Reason) {
        desk.tell(&Event::ConnectRefused { client: &self.talk.client(), reason });
        self.talk.refused = true;
        if reason != Reason::ProxyHeader {
            let mut out = Vec::with_capacity(96);
            let id = smtp::reply::Id::new(self.talk.id_text());
            smtp::reply::write_refusal(&mut out, &reason.refusal(), &id);
            let _ = core.send(self.conn, &out);
        }
        self.close(core, desk, Ending::Closed);
    }

    /// Octets came.
    pub fn received(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, bytes: &mut [u8]) {
        if self.closing {
            return;
        }
        self.heard_us = desk.now_us;
        if self.proxy.is_some() {
            return self.proxy_header(core, desk, bytes);
        }
        match &mut self.wire {
            Wire::Clear => self.plaintext(core, desk, bytes),
            Wire::Tls(_) => self.sealed(core, desk, bytes),
        }
    }

    fn proxy_header(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, bytes: &[u8]) {
        let Some(mut held) = self.proxy.take() else { return };
        held.extend_from_slice(bytes);
        match proxy::parse(&held) {
            Ok(proxy::Header::Partial) => self.proxy = Some(held),
            Ok(proxy::Header::Whole(octets, ends)) => {
                self.talk.proxy = Some(self.talk.remote);
                if let Some(ends) = ends {
                    self.talk.remote = ends.client;
                    self.talk.local = ends.local;
                }
                let listening = Arc::clone(&desk.orders);
                let listeners = &listening.config.listeners;
                let tls = listeners[self.talk.listener.min(listeners.len() - 1)].tls;
                self.greet(core, desk, tls);
                let rest = held.split_off(octets);
                if !rest.is_empty() && !self.closing {
                    let mut rest = rest;
                    self.received(core, desk, &mut rest);
                }
            }
            Err(_) => self.turn_away(core, desk, Reason::ProxyHeader),
        }
    }

    /// Plaintext from the client, not under TLS.
    fn plaintext(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, bytes: &[u8]) {
        let mut used = 0;
        self.trace(desk, true, bytes);
        self.with_machine(core, desk, |machine, host| {
            used = machine.receive(host.desk.now_us, bytes, host);
        });
        if used < bytes.len() && !self.closing {
            core.pause_with(self.conn, &bytes[used..]);
        }
    }

    /// Records from the client.
    fn sealed(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, bytes: &mut [u8]) {
        let Wire::Tls(tls) = &mut self.wire else { return };
        let mut wire_out = Vec::new();
        let mut plain = std::mem::take(&mut self.rest);
        let outcome = tls.receive(bytes, |piece| plain.extend_from_slice(piece), &mut wire_out);
        if !wire_out.is_empty() {
            let _ = core.send(self.conn, &wire_out);
        }
        match outcome {
            Ok(progress) => {
                if progress.established {
                    self.tls_started(core, desk);
                }
                if !plain.is_empty() {
                    self.offer(core, desk, plain);
                }
                if progress.closed && !self.closing {
                    self.end_of_input(core, desk);
                }
            }
            Err(error) => {
                let error = error.to_string();
                desk.tell(&Event::TlsFailed { client: &self.talk.client(), error: &error });
                self.broken(desk);
                self.close(core, desk, Ending::Closed);
            }
        }
    }

    fn tls_started(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        let Wire::Tls(tls) = &self.wire else { return };
        self.talk.tls = tls.info().map(Box::new);
        desk.tell(&Event::TlsStarted(&self.talk.client()));
        let took = desk.now_us.saturating_sub(self.talk.mark_us);
        desk.tell(&Event::Took(Phase::Handshake, took));
        if self.machine.action() == Action::StartTls {
            self.talk.helo = Box::default();
            self.machine.tls_started(desk.now_us);
            self.arm(core, desk);
        } else {
            // TLS from the first octet: the session begins now.
            self.with_machine(core, desk, |machine, host| machine.start(host.desk.now_us, host));
        }
    }

    /// Gives the machine plaintext; what it cannot take waits here.
    fn offer(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, mut plain: Vec<u8>) {
        let mut used = 0;
        self.trace(desk, true, &plain);
        self.with_machine(core, desk, |machine, host| {
            used = machine.receive(host.desk.now_us, &plain, host);
        });
        if used < plain.len() && !self.closing {
            plain.drain(..used);
            self.rest = plain;
            core.pause(self.conn);
        }
    }

    /// Runs the machine with everything it may ask for, then does what it wants done.
    fn with_machine(
        &mut self,
        core: &mut Core<ToCore>,
        desk: &mut Desk,
        run: impl FnOnce(&mut Server, &mut Host<'_>),
    ) {
        let out = std::mem::take(&mut desk.scratch);
        let mut host = Host { talk: &mut self.talk, desk, conn: self.conn, out };
        run(&mut self.machine, &mut host);
        let mut out = host.out;
        if !out.is_empty() {
            self.trace(desk, false, &out);
            self.wire.send(core, self.conn, &out);
            out.clear();
            if core.queued(self.conn) > UNREAD_MAX && !self.closing {
                core.pause(self.conn);
                core.want_drained(self.conn);
            }
        }
        desk.scratch = out;
        self.act(core, desk);
    }

    /// Lines of a session that somebody watches.
    fn trace(&self, desk: &mut Desk, heard: bool, octets: &[u8]) {
        if desk.traced.is_empty() {
            return;
        }
        let recipient = self.talk.traced.as_deref().filter(|to| desk.is_traced_to(to));
        if recipient.is_some() || desk.is_traced(self.talk.remote.ip(), self.talk.id_text()) {
            let (client, recipient) = (self.talk.client(), recipient.unwrap_or_default());
            for octets in octets.split_inclusive(|octet| *octet == b'\n').take(TRACED_LINES_MAX) {
                let octets = octets.trim_ascii_end();
                desk.tell(&Event::Line { client: &client, heard, recipient, octets });
            }
        }
    }

    fn act(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        match self.machine.action() {
            Action::None => self.arm(core, desk),
            Action::StartTls if matches!(self.wire, Wire::Clear) => {
                self.talk.mark_us = desk.now_us;
                self.wire.begin(desk, self.talk.local.ip());
                self.arm(core, desk);
            }
            Action::StartTls => self.arm(core, desk),
            Action::Close(why) => {
                let ending = match why {
                    Closed::Quit => Ending::Quit,
                    Closed::Peer => Ending::Lost,
                    _ => Ending::Closed,
                };
                self.close(core, desk, ending);
            }
        }
    }

    /// The connection's one timer: the machine's deadline, a decision that must come, a greeting.
    fn arm(&mut self, core: &mut Core<ToCore>, desk: &Desk) {
        if self.closing {
            return;
        }
        let machine = self.machine.deadline();
        let handshake = match &self.wire {
            Wire::Tls(tls) if !tls.is_established() => {
                let us = desk.config().timeouts_in.starttls_s.us();
                Some(self.talk.mark_us.saturating_add(us))
            }
            _ => None,
        };
        let due = [machine, handshake, self.talk.due_us()].into_iter().flatten().min();
        let due = due.unwrap_or(u64::MAX);
        // A timer that fires too early is looked at and set again: cheaper than moving it always.
        if due < self.timer_us {
            self.timer_us = due;
            core.set_conn_timer(self.conn, due);
        }
    }

    /// The timer fired.
    pub fn timer(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        self.timer_us = u64::MAX;
        if self.closing {
            return;
        }
        if self.proxy.is_some() {
            return self.turn_away(core, desk, Reason::ProxyHeader);
        }
        if let Wire::Tls(tls) = &self.wire
            && !tls.is_established()
        {
            let limit = desk.config().timeouts_in.starttls_s.us();
            if self.talk.mark_us.saturating_add(limit) <= desk.now_us {
                let error = "handshake not finished in time";
                desk.tell(&Event::TlsFailed { client: &self.talk.client(), error });
                self.broken(desk);
                return self.close(core, desk, Ending::Closed);
            }
        }
        if let Some((token, answer)) = self.talk.overdue(desk) {
            return self.answer(core, desk, token, answer);
        }
        self.with_machine(core, desk, |machine, host| machine.timeout(host.desk.now_us, host));
    }

    /// A decision that came later.
    pub fn answer(
        &mut self,
        core: &mut Core<ToCore>,
        desk: &mut Desk,
        token: Token,
        answer: Answer,
    ) {
        if self.closing {
            return;
        }
        self.with_machine(core, desk, |machine, host| {
            machine.answer(host.desk.now_us, token, answer, host);
        });
        self.go_on(core, desk);
    }

    /// Where mail for a domain goes was found out; asks `acl` again if that was missing.
    pub fn found(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, domain: &str) {
        if let Some((token, answer)) = self.talk.found(desk, domain) {
            self.answer(core, desk, token, answer);
        }
    }

    /// What the DNS lists say of the client.
    pub fn judged(
        &mut self,
        core: &mut Core<ToCore>,
        desk: &mut Desk,
        judged: Judged,
        text: Option<Box<str>>,
    ) {
        self.talk.ladder.judged(judged, text);
        if let Some((token, answer)) = self.talk.weigh_again(desk) {
            self.answer(core, desk, token, answer);
        }
    }

    /// The log takes more of the body.
    pub fn resume(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        self.with_machine(core, desk, |machine, host| machine.resume(host.desk.now_us, host));
        self.go_on(core, desk);
    }

    /// What was sent has left: read again.
    pub fn drained(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        self.go_on(core, desk);
    }

    fn go_on(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        if self.closing || !self.machine.wants_input() {
            return;
        }
        if core.queued(self.conn) > UNREAD_MAX {
            return core.want_drained(self.conn);
        }
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.offer(core, desk, rest);
            if !self.rest.is_empty() {
                return;
            }
        }
        if self.eof {
            self.end_of_input(core, desk);
        } else if core.is_paused(self.conn) {
            core.resume(self.conn);
        }
    }

    /// The client will send no more.
    pub fn end_of_input(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        if self.closing {
            return;
        }
        if !self.rest.is_empty() {
            self.eof = true;
            return;
        }
        self.with_machine(core, desk, |machine, host| machine.eof(host.desk.now_us, host));
        if self.proxy.is_some() || !self.talk.greeted {
            self.close(core, desk, Ending::Lost);
        }
    }

    /// The connection failed: nobody will read a reply.
    pub fn broken(&mut self, desk: &mut Desk) {
        let mut host = Host { talk: &mut self.talk, desk, conn: self.conn, out: Vec::new() };
        self.machine.broken(&mut host);
    }

    /// The daemon stops since `since_us`; called now and then. Who talks may end what he came
    /// for, for a while; whoever is silent hears 421 as soon as no message is under way.
    pub fn drain(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, since_us: u64) {
        let silent = desk.now_us >= self.heard_us.saturating_add(DRAIN_SILENT_US);
        let late = desk.now_us >= since_us.saturating_add(DRAIN_TALK_US);
        if !self.closing && !self.leaving && (silent || late) {
            self.leaving = true;
            self.with_machine(core, desk, |machine, host| {
                machine.shutdown(host.desk.now_us, host);
            });
        }
    }

    /// The daemon stops: called now and then, it ends a connection that was closing before.
    pub fn hurry(&mut self, core: &mut Core<ToCore>) {
        if std::mem::replace(&mut self.hurried, self.closing) {
            core.abort(self.conn);
        }
    }

    /// The daemon stops now: the connection is cut.
    pub fn cut(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        if !self.closing {
            self.closing = true;
            self.talk.ending = Ending::Closed;
            self.broken(desk);
        }
        core.abort(self.conn);
    }

    fn close(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, ending: Ending) {
        if self.closing {
            return;
        }
        self.closing = true;
        self.talk.ending = ending;
        self.broken(desk);
        self.wire.close(core, self.conn);
        core.clear_conn_timer(self.conn);
        // After QUIT nothing can follow; else the client's last words must not reset our reply.
        if ending == Ending::Quit {
            core.finish(self.conn);
        } else {
            core.close(self.conn);
        }
    }

    /// The connection is gone for good; its slot may be used again.
    pub fn closed(mut self, desk: &mut Desk) {
        self.broken(desk);
        if !self.talk.refused {
            let event = Event::SessionClosed {
                client: &self.talk.client(),
                ending: self.talk.ending,
                in_transaction: self.talk.in_transaction,
            };
            desk.tell(&event);
        }
        if let Some(guest) = self.talk.guest.take() {
            desk.standing.leave(guest);
        }
        if self.talk.entered {
            desk.leave_listener(self.talk.listener);
        }
    }

    /// Its connection.
    #[must_use]
    pub const fn conn(&self) -> Conn {
        self.conn
    }

    /// The client, for the note a panic leaves.
    #[must_use]
    pub fn guest(&self) -> Option<&Guest> {
        self.talk.guest.as_ref()
    }

    /// What the DNS says of the client's name.
    pub fn named(&mut self, conn: Conn, reverse: Reverse) {
        // The answer may be about the client that had this slot before.
        if conn == self.conn {
            self.talk.reverse = Some(reverse);
        }
    }

    /// The client's address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.talk.remote
    }

    /// The client as logs see it.
    #[must_use]
    pub fn client(&self) -> Client<'_> {
        self.talk.client()
    }

    /// What it is at: direction, peer, idle seconds, TLS, id, words.
    #[must_use]
    pub fn told(&self, now_us: u64) -> Vec<String> {
        let client = self.talk.client();
        let idle_s = now_us.saturating_sub(self.talk.mark_us) / 1_000_000;
        let helo = String::from_utf8_lossy(client.helo);
        let at = match (&self.proxy, self.closing, self.talk.greeted) {
            (Some(_), ..) => "waits for the PROXY header".to_owned(),
            (_, true, _) => "is being closed".to_owned(),
            (_, _, false) => "waits for the greeting".to_owned(),
            _ if self.talk.is_asking() => format!("HELO {helo}, waits for a look-up of ours"),
            _ => match self.talk.sender() {
                Some(sender) => {
                    format!("HELO {helo}, mail from <{}>", String::from_utf8_lossy(sender))
                }
                None => format!("HELO {helo}, between mails"),
            },
        };
        let tls = client.tls.map_or("-", |tls| tls.version).to_owned();
        let peer = client.remote.to_string();
        vec!["in".to_owned(), peer, idle_s.to_string(), tls, client.id.to_owned(), at]
    }

    /// TLS of the session.
    #[must_use]
    pub fn tls(&self) -> Option<&SessionInfo> {
        self.talk.tls.as_deref()
    }
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

const fn reason_of(excess: Excess) -> Reason {
    match excess {
        Excess::Connections => Reason::ClientConnections,
        Excess::ConnectionRate => Reason::ClientConnectionRate,
        Excess::MessageRate => Reason::ClientMessageRate,
        Excess::RecipientRate => Reason::ClientRecipientRate,
        Excess::Noted => Reason::ClientNoted,
    }
}
