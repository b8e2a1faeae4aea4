//! A session's place on the ladder: what lists say of its client, and what its refusal leads to.

use std::net::IpAddr;

use engine::{Conn, Core};
use hints::ban::Ban;
use hints::{Kind, Limit, Value, What, client_key};
use spool::id::MessageId;

use crate::config::Rung;
use crate::desk::{Desk, Letter};
use crate::dnsbl::{Finding, Judged};
use crate::events::Reason;
use crate::metrics::Counter;
use crate::post::{ToCore, ToHouse};
use crate::xdp::{self, OWN, RELAPSE_S, Standing};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    finding: Option<Finding>,
    /// What the list says of it in words.
    text: Option<Box<str>>,
    ban: Option<Ban>,
    /// DNS lists are being asked.
    open: bool,
    /// The client is never turned away.
    allowed: bool,
    /// Its refusal was counted.
    counted: bool,
}

impl Ladder {
    /// The client is here: what files and bans say, and DNS lists are asked.
    pub(super) fn look(
        &mut self,
        core: &mut Core<ToCore>,
        desk: &mut Desk,
        conn: Conn,
        client: IpAddr,
    ) {
        match desk.lists.judge(client, desk.wall_us / 1_000_000) {
            Judged::Allowed => {
                self.allowed = true;
                return;
            }
            Judged::Listed(finding) => self.finding = Some(finding),
            Judged::Unlisted => {}
        }
        let key = client_key(client);
        desk.fuse.saw(key.as_ref(), desk.now_us);
        let ban = desk.hints.ban(key.as_ref(), desk.wall_us);
        self.ban = ban.filter(|ban| ban.holds(desk.wall_us));
        let Desk { names, orders, .. } = desk;
        if let Some(names) = names.as_mut().filter(|_| !orders.zones.all().is_empty()) {
            self.open = names.ask_zones(core, conn, client, &orders.zones);
        }
    }

    /// The same for a session that is only played: nothing is asked, counted or remembered.
    pub(super) fn played(desk: &Desk, client: IpAddr, by_dns: Judged) -> Self {
        let mut ladder = Self::default();
        match desk.lists.judge(client, desk.wall_us / 1_000_000) {
            Judged::Allowed => {
                ladder.allowed = true;
                return ladder;
            }
            Judged::Listed(finding) => ladder.finding = Some(finding),
            Judged::Unlisted => {}
        }
        let ban = desk.hints.ban(client_key(client).as_ref(), desk.wall_us);
        ladder.ban = ban.filter(|ban| ban.holds(desk.wall_us));
        ladder.judged(by_dns, None);
        ladder
    }

    /// What the DNS lists say. A file's word counts beside theirs: who goes further is named.
    pub(super) fn judged(&mut self, judged: Judged, text: Option<Box<str>>) {
        self.open = false;
        match judged {
            Judged::Allowed => {
                self.allowed = true;
                self.finding = None;
            }
            Judged::Listed(finding) => {
                let height = |finding: &Finding| finding.ceiling.height();
                if self.finding.as_ref().is_none_or(|old| height(old) < height(&finding)) {
                    self.finding = Some(finding);
                    self.text = text;
                }
            }
            Judged::Unlisted => {}
        }
    }

    /// Whether recipients are refused, once that is known.
    pub(super) fn fact(&self, desk: &Desk) -> Option<bool> {
        if xdp::at_rcpt(desk.config().xdp.mode, self.finding) {
            return Some(true);
        }
        if self.open { None } else { Some(false) }
    }

    /// Whether it is listed and yet not refused, because nobody is.
    pub(super) fn is_passed(&self, desk: &Desk) -> bool {
        let listed = xdp::at_rcpt(Rung::Drop, self.finding);
        listed && !self.counted && !xdp::at_rcpt(desk.config().xdp.mode, self.finding)
    }

    /// Why the client is turned away in the greeting, if it is.
    pub(super) fn greeting(&self, desk: &Desk) -> Option<Reason> {
        if self.allowed {
            return None;
        }
        let ban = self.ban.map(|ban| Rung::at(u8::try_from(ban.rung).unwrap_or(0)));
        let mode = desk.config().xdp.mode;
        let unbanned = Standing { finding: self.finding, ban: None, busy: desk.busy };
        if xdp::in_greeting(mode, &unbanned) {
            return Some(Reason::Listed);
        }
        xdp::in_greeting(mode, &Standing { ban, ..unbanned }).then_some(Reason::Banned)
    }

    /// Who lists the client, and where to ask.
    pub(super) fn detail(&self, desk: &Desk, client: IpAddr) -> String {
        let listed = self.finding.map(|finding| finding.list);
        let banned = self.ban.map(|ban| u8::try_from(ban.list).unwrap_or(OWN));
        let name = desk.lists.name(listed.or(banned).unwrap_or(OWN));
        let config = desk.config();
        let text = self.text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
        match &config.xdp.contact {
            Some(contact) => format!("[{client}] by {name}{text}; see {}", contact.as_str()),
            None => format!("[{client}] by {name}{text}; ask postmaster@{}", config.node.hostname),
        }
    }

    /// The client was refused, or would have been: once too often, and it is banned.
    pub(super) fn refused(&mut self, desk: &mut Desk, client: IpAddr, session: MessageId) {
        let Some(finding) = self.finding.filter(|_| !std::mem::replace(&mut self.counted, true))
        else {
            return;
        };
        let config = &desk.orders.config.xdp;
        let (repeats, within_us) = (config.repeats, config.repeats_within_s.us());
        let key = [b"refused ", client_key(client).as_ref()].concat();
        let often = repeats == 1 || {
            let limit = Limit::new(repeats - 1, within_us);
            !desk.hints.rate(Kind::RateNamed, &key, limit, desk.wall_us).allowed
        };
        if often {
            put(desk, client, finding, session);
        }
    }

    /// The client did something wrong: too much of it, and it is banned.
    pub(super) fn offended(&self, desk: &mut Desk, client: IpAddr, session: MessageId) {
        let config = &desk.orders.config.xdp;
        let (most, ceiling) = (config.evidence, config.evidence_ceiling);
        let standing = desk.hints.standing(client_key(client).as_ref(), desk.wall_us);
        let score_milli = standing.map_or(0, |s| s.score_milli_at(desk.wall_us));
        if !self.allowed && u64::from(score_milli) >= u64::from(most) * 1000 {
            put(desk, client, Finding { list: OWN, ceiling, ttl_s: xdp::BAN_OWN_S }, session);
        }
    }
}

/// Bans a client, if it is not banned already; not one whose mail was taken lately, and none when
/// too large a part of all clients is banned.
fn put(desk: &mut Desk, client: IpAddr, finding: Finding, session: MessageId) {
    if finding.ceiling.height() < Rung::Answer.height() || desk.is_good(client) {
        return;
    }
    let key = client_key(client);
    let old = desk.hints.ban(key.as_ref(), desk.wall_us);
    let octets = session.to_bytes();
    let mut wide = [0; 16];
    wide[..octets.len()].copy_from_slice(&octets);
    let [a, b, c, d, ..] = desk.random.next_u64().to_le_bytes();
    let id = u32::from_le_bytes([a, b, c, d]);
    let session = u128::from_le_bytes(wide);
    let Some(ban) = xdp::ban(finding, old, id, session, desk.wall_us) else { return };
    if !desk.fuse.allows(desk.config().xdp.banned_percent_max) {
        return;
    }
    let life_us = ban.until_us.saturating_sub(desk.wall_us);
    let life_us = life_us.saturating_add(u64::from(RELAPSE_S) * 1_000_000);
    desk.hint(Kind::Ban, key.as_ref(), What::Put(Value::Ban(ban), life_us));
    desk.stream.metrics.add(Counter::Banned, 1);
    desk.outbox.push(Letter::House(ToHouse::Banned(client, ban)));
}
