//! What all sessions of one core share: config, log, hints, events, ids, ways.
//!
//! *Guarantees.* Owned by one core's thread; nothing of it is shared but the hints' words.
//! *Limits.* Commits under way are bounded by the log's open transactions.
//! *Not here.* Sessions and connections: they are lent the desk.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use engine::{Conn, MailboxSender};
use hints::delivered::Delivered;
use hints::{Applied, Hints, Kind, Value, What, Writer, client_key};
use smtp::server;
use spool::id::{MessageId, TransactionId};
use spool::message::Envelope;

use crate::config::{Config, SpoolConfig, any_contains};
use crate::events::{Alarm, Event, Reader, Reason};
use crate::health::Door;
use crate::lookup::Names;
use crate::maillog::MailLog;
use crate::maillog::outlet::QueueSink;
use crate::metrics::CoreMetrics;
use crate::post::{Orders, ToCore, ToHouse};
use crate::recorder::{Recorder, Wanted};
use crate::standing::Standing;
use crate::tls::TlsStore;
use crate::ways::Ways;
use crate::xdp::{Fuse, Lists};

/// The log of a core over the engine's disk.
pub type Log = spool::log::Log<engine::DiskBuffer>;

/// A client's mail is noted at most so often.
const DELIVERED_EVERY_US: u64 = 3_600_000_000;
const DAY_US: u64 = 86_400_000_000;

/// Networks watched at once.
const TRACED_MAX: usize = 16;

/// Makes the ids of sessions (and of messages made here).
#[derive(Debug)]
pub struct Ids {
    node: u16,
    run: u32,
    core: u8,
    counter: u64,
}

impl Ids {
    /// `run` was raised durably, so no id comes twice.
    #[must_use]
    pub const fn new(node: u16, run: u32, core: u8) -> Self {
        Self { node, run, core, counter: 0 }
    }

    /// The next one.
    pub fn next_id(&mut self) -> MessageId {
        self.counter += 1;
        MessageId::new(self.node, self.run, self.core, self.counter)
    }
}

/// A message on its way into the log, kept from `commit` to the log's answer.
#[derive(Debug)]
pub struct Pending {
    /// Who waits for the answer, and under which token; nobody any more when the client has gone.
    pub waits: Option<(Conn, server::Token)>,
    /// Its envelope.
    pub envelope: Box<Envelope>,
    /// `Message-ID`, without brackets.
    pub message_id: Option<Box<[u8]>>,
    /// `Subject`.
    pub subject: Option<Box<[u8]>>,
    /// As the log line says it.
    pub protocol: &'static str,
    /// TLS version and cipher.
    pub tls: Option<(&'static str, &'static str)>,
    /// Octets of header and body.
    pub octets: u64,
    /// When the final dot came.
    pub dot_us: u64,
}

/// The one thread that counts and logs for this core.
#[derive(Debug)]
pub struct Stream {
    /// Counters and histograms.
    pub metrics: CoreMetrics,
    /// The main log and the reject log.
    pub maillog: MailLog<QueueSink>,
    /// What happened lately.
    pub recorder: Recorder,
}

/// See the module.
#[derive(Debug)]
pub struct Desk {
    /// This core's number, from 0.
    pub core: usize,
    /// Monotonic time of this turn.
    pub now_us: u64,
    /// Wall time of this turn.
    pub wall_us: u64,
    /// The same for the log's batches: while the clock is in doubt, what was trusted last.
    pub records_wall_us: u64,
    /// The same for the time of receipt: never before what was trusted last.
    pub receipt_wall_us: u64,
    /// The orders in force.
    pub orders: Arc<Orders>,
    /// The receiving machine's settings by listener.
    pub machines: Vec<Arc<server::Settings>>,
    /// The log.
    pub log: Log,
    /// Commits under way, by their token in the log.
    pub pending: HashMap<u64, Box<Pending>>,
    /// Clients' limits.
    pub standing: Standing,
    /// Hints, for reading.
    pub hints: &'static Hints<'static>,
    /// Hints, for writing the shards of this core.
    pub writer: Writer<'static>,
    /// Logs and counters.
    pub stream: Stream,
    /// Ids.
    pub ids: Ids,
    /// The names of clients; none without a resolver in the config.
    pub names: Option<Names>,
    /// Where mail goes.
    pub ways: Ways,
    /// The machine's health check.
    pub door: Door,
    /// The cores' mailboxes, this core's included.
    pub cores: Vec<MailboxSender<ToCore>>,
    /// The house's mailbox.
    pub house: MailboxSender<ToHouse>,
    /// What is to be posted at the end of the turn: it needs the core.
    pub outbox: Vec<Letter>,
    /// Random numbers; not for secrets.
    pub random: Random,
    /// Tokens for the log.
    pub token: u64,
    /// Transactions the log told to pause, with the session that writes them.
    pub paused: HashMap<u64, Conn>,
    /// How much room this core's log has.
    pub space: Space,
    /// Lists of addresses.
    pub lists: Arc<Lists>,
    /// The bound on bans.
    pub fuse: Arc<Fuse>,
    /// The node is nearly out of sessions: listed clients are not heard.
    pub busy: bool,
    /// Open sessions of each listener, on this core.
    pub listener_sessions: Vec<u32>,
    /// Networks whose sessions are watched, and until when.
    pub traced: Vec<(Wanted, u64)>,
    /// The log is closed: the core may stop.
    pub stopped: bool,
    /// Reply octets of the call under way; kept for its room.
    pub scratch: Vec<u8>,
}

/// How much room a log has, by the watermarks of the config.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Space {
    /// Mail is taken.
    #[default]
    Enough,
    /// New mail hears 452, until there is room above the highest mark.
    Short,
    /// New sessions hear 421, until there is room above the lower mark.
    Out,
}

impl Space {
    /// What follows from so many free segments of all.
    #[must_use]
    pub fn next(self, free: usize, all: usize, spool: &SpoolConfig) -> Self {
        let below = |percent: u32| {
            let percent = usize::try_from(percent).unwrap_or(0);
            free.saturating_mul(100) < all.saturating_mul(percent)
        };
        if below(spool.turn_away_below_percent) {
            Self::Out
        } else if below(spool.refuse_below_percent)
            || self != Self::Enough && below(spool.resume_above_percent)
        {
            Self::Short
        } else {
            Self::Enough
        }
    }

    /// What the operator reads.
    const fn text(self) -> &'static str {
        match self {
            Self::Enough => "the spool has room again",
            Self::Short => "the spool is nearly full: new mail hears 452",
            Self::Out => "the spool is nearly full: new sessions hear 421",
        }
    }
}

/// Something for another thread.
#[derive(Debug)]
pub enum Letter {
    /// To a core.
    Core(usize, ToCore),
    /// To the house.
    House(ToHouse),
}

/// xorshift64*: jitter and shuffles, seeded by the kernel.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Any seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

impl Desk {
    /// The config in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.orders.config
    }

    /// The certificates in force.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<TlsStore>> {
        self.orders.tls.as_ref()
    }

    /// Tells all readers of the stream.
    pub fn tell(&mut self, event: &Event<'_>) {
        self.stream.metrics.read(self.wall_us, event);
        self.stream.maillog.read(self.wall_us, event);
        self.stream.recorder.read(self.wall_us, event);
    }

    /// Watches some sessions for some seconds (0: no more); how many are watched.
    pub fn trace(&mut self, what: &str, seconds: u32) -> usize {
        let now_us = self.now_us;
        let Some(what) = Wanted::parse(what) else { return self.traced.len() };
        self.traced.retain(|(other, until_us)| *until_us > now_us && *other != what);
        if seconds > 0 && self.traced.len() < TRACED_MAX {
            self.traced.push((what, now_us.saturating_add(u64::from(seconds) * 1_000_000)));
        }
        self.traced.len()
    }

    /// Whether somebody watches the sessions of this client, or this one.
    #[must_use]
    pub fn is_traced(&self, client: IpAddr, id: &str) -> bool {
        let mut watched = self.traced.iter().filter(|(_, until_us)| *until_us > self.now_us);
        watched.any(|(what, _)| match what {
            Wanted::Network(network) => network.contains(client),
            Wanted::Id(_) => what.is_session(id),
            Wanted::Address(_) => false,
        })
    }

    /// Whether somebody watches the sessions that name this recipient.
    #[must_use]
    pub fn is_traced_to(&self, recipient: &[u8]) -> bool {
        let mut watched = self.traced.iter().filter(|(_, until_us)| *until_us > self.now_us);
        watched.any(|(what, _)| what.is_address(recipient))
    }

    /// A token for the log that no other has.
    pub fn next_token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }

    /// Whether this client may send to every domain that has a route.
    #[must_use]
    pub fn may_relay(&self, client: SocketAddr) -> bool {
        any_contains(&self.config().policy.relay_networks, client.ip())
    }

    /// Changes a hint, here or at the core that writes it. A full mailbox loses the change:
    /// hints may be lost.
    pub fn hint(&mut self, kind: Kind, key: &[u8], what: What) {
        let Some(change) = self.hints.change(kind, key, what, self.wall_us) else { return };
        if self.writer.apply(&change) == Applied::NotMine {
            let owner = hints::ShardSet::owner(change.shard(), self.cores.len());
            self.outbox.push(Letter::Core(owner, ToCore::Hint(change)));
        }
    }

    /// Mail of a client was taken: for some days it is heard, whatever lists it.
    pub fn delivered(&mut self, client: IpAddr) {
        let days = self.config().xdp.good_days;
        if days == 0 {
            return;
        }
        let (key, now_us) = (client_key(client), self.wall_us);
        let old = self.hints.delivered(key.as_ref(), now_us);
        if old.is_some_and(|old| old.last_us.saturating_add(DELIVERED_EVERY_US) > now_us) {
            return;
        }
        let first_us = old.map_or(now_us, |old| old.first_us);
        let value = Value::Delivered(Delivered { first_us, last_us: now_us });
        let life_us = u64::from(days) * DAY_US + DELIVERED_EVERY_US;
        self.hint(Kind::Delivered, key.as_ref(), What::Put(value, life_us));
    }

    /// A list lists a client no more: what it was banned for by that list ends now. How often it
    /// was banned stays known.
    pub fn lift(&mut self, client: IpAddr, list: u8) {
        let (key, now_us) = (client_key(client), self.wall_us);
        let ban = self.hints.ban(key.as_ref(), now_us);
        let Some(ban) = ban.filter(|ban| ban.holds(now_us) && ban.list == u32::from(list)) else {
            return;
        };
        let value = Value::Ban(hints::ban::Ban { until_us: now_us, ..ban });
        let life_us = u64::from(crate::xdp::RELAPSE_S) * 1_000_000;
        self.hint(Kind::Ban, key.as_ref(), What::Put(value, life_us));
        self.outbox.push(Letter::House(ToHouse::Lifted(client, list)));
    }

    /// Whether mail of a client was taken lately.
    #[must_use]
    pub fn is_good(&self, client: IpAddr) -> bool {
        let days_us = u64::from(self.config().xdp.good_days) * DAY_US;
        let delivered = self.hints.delivered(client_key(client).as_ref(), self.wall_us);
        delivered.is_some_and(|d| d.last_us.saturating_add(days_us) > self.wall_us)
    }

    /// Compares the free part of the log with the watermarks of the config.
    pub fn watch_space(&mut self, free: usize, all: usize) {
        let space = self.space.next(free, all, &self.orders.config.spool);
        if space != self.space {
            self.space = space;
            self.tell(&Event::Alarmed(Alarm::SpoolFull, space.text()));
        }
    }

    /// Whether a listener has a place for one more session on this core; it is taken then.
    pub fn enter_listener(&mut self, listener: usize) -> bool {
        let config = &self.orders.config;
        let most = config.listeners.get(listener).and_then(|l| l.sessions_max);
        let cores = u32::try_from(self.cores.len()).unwrap_or(1).max(1);
        if self.listener_sessions.len() <= listener {
            self.listener_sessions.resize(listener + 1, 0);
        }
        let open = &mut self.listener_sessions[listener];
        if most.is_some_and(|most| *open >= most.div_ceil(cores)) {
            return false;
        }
        *open += 1;
        true
    }

    /// A session of that listener is over.
    pub fn leave_listener(&mut self, listener: usize) {
        if let Some(open) = self.listener_sessions.get_mut(listener) {
            *open = open.saturating_sub(1);
        }
    }

    /// Takes a message out of those under way, with the session that waits for it.
    pub fn forget_waiting(&mut self, token: u64) {
        if let Some(pending) = self.pending.get_mut(&token) {
            pending.waits = None;
        }
    }
}

/// The reply for a transaction that the log does not open.
#[must_use]
pub const fn reason_of_refusal(refusal: spool::log::Refusal) -> Reason {
    match refusal {
        spool::log::Refusal::NoSpace => Reason::SpoolFull,
        spool::log::Refusal::TableFull => Reason::QueueFull,
        spool::log::Refusal::Busy => Reason::Busy,
        spool::log::Refusal::Failed => Reason::SpoolFailed,
        spool::log::Refusal::Closing => Reason::Shutdown,
    }
}

/// The reply for a transaction that cannot go on.
#[must_use]
pub const fn reason_of_error(error: spool::log::TransactionError) -> Reason {
    use spool::log::TransactionError as E;
    match error {
        E::NoSpace => Reason::SpoolFull,
        E::HeaderTooLarge => Reason::HeaderLarge,
        E::TooLarge => Reason::Size,
        E::EnvelopeTooLarge => Reason::Recipients,
        E::Failed | E::Unknown => Reason::SpoolFailed,
    }
}

/// Id text of a transaction, `<session>.<n>`.
#[must_use]
pub fn id_text(id: TransactionId) -> String {
    let mut text = String::with_capacity(ID_TEXT_MAX);
    text.push_str(str::from_utf8(&id.session.to_chars()).unwrap_or_default());
    text.push('.');
    let mut octets = text.into_bytes();
    smtp::reply::number(&mut octets, u64::from(id.n));
    String::from_utf8(octets).unwrap_or_default()
}

/// Octets of the longest id of a transaction: what formats it grows a text step by step.
const ID_TEXT_MAX: usize = spool::id::ID_CHARS + 1 + 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_id_is_its_own() {
        for (counter, n) in [(0, 0), (1, 7), (77_777, 10), (1 << 40, 999), (5, u32::MAX)] {
            let id = TransactionId { session: MessageId::new(3, 9, 1, counter), n };
            assert_eq!(id_text(id), id.to_string());
            assert!(id_text(id).len() <= ID_TEXT_MAX);
        }
    }

    #[test]
    fn mail_is_refused_sessions_are_turned_away_and_both_come_back() {
        let text = "[node]\nhostname=\"mx.example.org\"\n[policy]\npostmaster=\"p@example.org\"\n\
                    [[route]]\ndomains=[\"example.org\"]\nmx=true\n\
                    [[listener]]\naddress=\"127.0.0.1\"\ntls=\"none\"\n\
                    [spool]\nplaces=[\"/s\"]\nturn_away_below_percent=5\n\
                    refuse_below_percent=10\nresume_above_percent=20\n";
        let config = Config::parse("t", text, &crate::config::Disk).unwrap().config;
        let mut space = Space::default();
        let seen: Vec<Space> = [100, 10, 9, 15, 5, 4, 5, 19, 20, 4, 20]
            .map(|free| {
                space = space.next(free, 100, &config.spool);
                space
            })
            .into();
        let (enough, short, out) = (Space::Enough, Space::Short, Space::Out);
        let expected =
            [enough, enough, short, short, short, out, short, short, enough, out, enough];
        assert_eq!(seen, expected);
    }
}
