//! How a client stands: inbound reports what it does and asks whether it may go on.
//!
//! *Guarantees.* A client is an IPv4 address or an IPv6 /64, however its connections are spread
//! over the cores: rates are words shared by all, open sessions are counted in one table.
//! *Limits.* Those of `[limits]`; networks of `exempt_networks` have none.
//! *Failure.* A client without a free cell in a table is let in: a full table refuses nobody.
//! *Not here.* Bans: they will be asked for in [`Standing::arrive`] as well.

use std::net::IpAddr;
use std::sync::Arc;

use hints::{AddressKey, Entered, Hints, Kind, Limit, SessionSlot, Sessions, client_key};

use crate::config::{LimitsConfig, Rate, any_contains};

/// Why a client may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// As many sessions as it may have are open.
    Connections,
    /// It connects too often.
    ConnectionRate,
    /// It sends too many messages.
    MessageRate,
    /// It names too many recipients.
    RecipientRate,
    /// Twice a core fell over in a session of this client (hints, kind `note`).
    Noted,
}

/// What a client of a played session is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Would {
    /// Connect.
    Connect,
    /// Send the so-manyth message of the session.
    Mail(u32),
    /// Name the so-manyth recipient of the session.
    Rcpt(u32),
}

/// A client that was let in. Given back with [`Standing::leave`].
#[derive(Debug)]
pub struct Guest {
    key: AddressKey,
    slot: Option<SessionSlot>,
    exempt: bool,
}

impl Guest {
    /// Whether no limit holds for it.
    #[must_use]
    pub const fn is_exempt(&self) -> bool {
        self.exempt
    }

    /// Its key in the hints.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.as_ref()
    }
}

/// The limits as the tables want them.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connections: Option<Limit>,
    messages: Option<Limit>,
    recipients: Option<Limit>,
}

/// What one core asks. Cheap to make anew when the config changes.
#[derive(Debug, Clone)]
pub struct Standing {
    hints: &'static Hints<'static>,
    sessions: Arc<Sessions>,
    config: Arc<LimitsConfig>,
    limits: Limits,
}

fn limit(rate: Rate) -> Option<Limit> {
    (!rate.is_off()).then(|| Limit::new(rate.count, rate.period_us))
}

impl Standing {
    /// The tables, and the limits of one config generation.
    #[must_use]
    pub fn new(
        hints: &'static Hints<'static>,
        sessions: Arc<Sessions>,
        config: Arc<LimitsConfig>,
    ) -> Self {
        let limits = Limits {
            connections: limit(config.connection_rate),
            messages: limit(config.message_rate),
            recipients: limit(config.recipient_rate),
        };
        Self { hints, sessions, config, limits }
    }

    /// The same tables under new limits.
    #[must_use]
    pub fn with(&self, config: Arc<LimitsConfig>) -> Self {
        Self::new(self.hints, Arc::clone(&self.sessions), config)
    }

    /// A client the operator lets in past all limits.
    #[must_use]
    pub fn exempt(&self, client: IpAddr) -> Guest {
        Guest { key: client_key(client), slot: None, exempt: true }
    }

    /// A client connected.
    ///
    /// # Errors
    /// [`Excess`]: it hears 421.
    pub fn arrive(&self, client: IpAddr, wall_us: u64) -> Result<Guest, Excess> {
        let key = client_key(client);
        if any_contains(&self.config.exempt_networks, client) {
            return Ok(Guest { key, slot: None, exempt: true });
        }
        if self.hints.note(&note_key(key.as_ref()), wall_us).is_some_and(|note| note.count >= 2) {
            return Err(Excess::Noted);
        }
        self.within(Kind::RateConnect, key.as_ref(), self.limits.connections, wall_us)
            .map_err(|()| Excess::ConnectionRate)?;
        match self.sessions.enter(key.as_ref(), self.config.connections_max) {
            Entered::Counted(slot) => Ok(Guest { key, slot: Some(slot), exempt: false }),
            Entered::Uncounted => Ok(Guest { key, slot: None, exempt: false }),
            Entered::Refused => Err(Excess::Connections),
        }
    }

    /// The session of this client is over.
    pub fn leave(&self, guest: Guest) {
        if let Some(slot) = guest.slot {
            self.sessions.leave(slot);
        }
    }

    /// One more message.
    ///
    /// # Errors
    /// [`Excess::MessageRate`]
    pub fn mail(&self, guest: &Guest, wall_us: u64) -> Result<(), Excess> {
        if guest.exempt {
            return Ok(());
        }
        self.within(Kind::RateMail, guest.key(), self.limits.messages, wall_us)
            .map_err(|()| Excess::MessageRate)
    }

    /// One more recipient.
    ///
    /// # Errors
    /// [`Excess::RecipientRate`]
    pub fn rcpt(&self, guest: &Guest, wall_us: u64) -> Result<(), Excess> {
        if guest.exempt {
            return Ok(());
        }
        self.within(Kind::RateRecipient, guest.key(), self.limits.recipients, wall_us)
            .map_err(|()| Excess::RecipientRate)
    }

    /// What the limits would say to this client, with so many messages and recipients of a played
    /// session before; nothing is counted. The verdict in words is of the limit that was asked.
    pub fn would(&self, what: Would, client: IpAddr, wall_us: u64) -> (Result<(), Excess>, String) {
        let key = client_key(client);
        let ask = |kind, limit: Option<Limit>, cost, excess, of: &str| {
            let Some(limit) = limit else { return (Ok(()), format!("{of}: no limit")) };
            let verdict = self.hints.rate_would(kind, key.as_ref(), limit, cost, wall_us);
            let (most, left) = (limit.count(), verdict.remaining);
            match verdict.allowed {
                true => (Ok(()), format!("{of}: {left} of {most} would be left")),
                false => {
                    let s = verdict.retry_after_us.div_ceil(1_000_000);
                    (Err(excess), format!("{of}: more than {most}, for {s} s"))
                }
            }
        };
        match what {
            Would::Connect => {
                let (limit, of) = (self.limits.connections, "connection rate");
                let (verdict, said) = ask(Kind::RateConnect, limit, 1, Excess::ConnectionRate, of);
                let (open, most) = (self.sessions.open(key.as_ref()), self.config.connections_max);
                let said = format!("{said}; sessions open: {open} of {most}");
                let room = if open < most { Ok(()) } else { Err(Excess::Connections) };
                (verdict.and(room), said)
            }
            Would::Mail(count) => {
                let (limit, of) = (self.limits.messages, "message rate");
                ask(Kind::RateMail, limit, count, Excess::MessageRate, of)
            }
            Would::Rcpt(count) => {
                let (limit, of) = (self.limits.recipients, "recipient rate");
                ask(Kind::RateRecipient, limit, count, Excess::RecipientRate, of)
            }
        }
    }

    fn within(&self, kind: Kind, key: &[u8], limit: Option<Limit>, now: u64) -> Result<(), ()> {
        match limit {
            Some(limit) if !self.hints.rate(kind, key, limit, now).allowed => Err(()),
            _ => Ok(()),
        }
    }
}

/// The key of a client's note: notes of clients and of messages lie in one table.
#[must_use]
pub fn note_key(client: &[u8]) -> Vec<u8> {
    [b"client ", client].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;
    use hints::{Seed, Setup};
    use std::sync::atomic::AtomicU64;

    fn standing(change: impl FnOnce(&mut LimitsConfig)) -> Standing {
        let words: Vec<AtomicU64> = (0..1 << 17).map(|_| AtomicU64::new(0)).collect();
        let setup = Setup { seed: Seed([1, 2]), node: 1, wall_us: 1 };
        let hints = Hints::format(Vec::leak(words), setup).unwrap();
        let sessions = Arc::new(Sessions::new(1000, Seed([1, 2])));
        let text = "[node]\nhostname=\"mx.example.org\"\n[spool]\nplaces=[\"./spool\"]\n\
                    [[listener]]\naddress=\"127.0.0.1\"\ntls=\"none\"\n\
                    [policy]\nrelay_domains=[\"example.org\"]\nany_recipient=true\n\
                    [[route]]\ndomains=[\"*\"]\nmx=true\n";
        let config = crate::config::Config::parse("t", text, &crate::config::Disk).unwrap().config;
        let mut limits = LimitsConfig::clone(&config.limits);
        change(&mut limits);
        Standing::new(Box::leak(Box::new(hints)), sessions, Arc::new(limits))
    }

    #[test]
    fn a_hundred_at_once_from_one_network_get_ten() {
        let standing = standing(|l| l.connections_max = 10);
        let arrive = |n: u16| {
            let client = format!("2001:db8::{n:x}").parse().unwrap();
            standing.arrive(client, 1_000_000)
        };
        let guests: Vec<Guest> = (0..100).filter_map(|n| arrive(n).ok()).collect();
        assert_eq!(guests.len(), 10);
        assert_eq!(arrive(7).unwrap_err(), Excess::Connections);
        for guest in guests {
            standing.leave(guest);
        }
        assert!(arrive(7).is_ok());
    }

    #[test]
    fn rates_hold_and_exempt_networks_have_none() {
        let rate = |count| Rate { count, period_us: 60_000_000 };
        let standing = standing(|l| {
            l.message_rate = rate(3);
            l.recipient_rate = rate(2);
            l.exempt_networks = vec![Network::parse("192.0.2.0/24").unwrap()];
        });
        let guest = standing.arrive("198.51.100.1".parse().unwrap(), 1_000_000).unwrap();
        let mails = (0..5).filter(|_| standing.mail(&guest, 1_000_000).is_ok()).count();
        let rcpts = (0..5).filter(|_| standing.rcpt(&guest, 1_000_000).is_ok()).count();
        assert_eq!((mails, rcpts), (3, 2));
        let client = "198.51.100.2".parse().unwrap();
        let would = |what| standing.would(what, client, 1_000_000).0;
        assert_eq!(would(Would::Mail(3)), Ok(()), "asked as often as you like");
        assert_eq!(
            (would(Would::Mail(3)), would(Would::Mail(4))),
            (Ok(()), Err(Excess::MessageRate))
        );
        let guest = standing.arrive(client, 1_000_000).unwrap();
        standing.mail(&guest, 1_000_000).unwrap();
        assert_eq!(
            (would(Would::Mail(2)), would(Would::Mail(3))),
            (Ok(()), Err(Excess::MessageRate))
        );
        assert_eq!(would(Would::Rcpt(3)), Err(Excess::RecipientRate));
        let free = standing.arrive("192.0.2.9".parse().unwrap(), 1_000_000).unwrap();
        assert!((0..50).all(|_| standing.mail(&free, 1_000_000).is_ok()));
    }
}
