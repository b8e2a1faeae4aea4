//! The admin tool's questions about the ladder: status, look-ups, bans by hand, what would happen.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use control::{
    Failure, FailureCode, List, ListedBy, Rehearse, Reply, Request, Text, XdpLine, XdpPage,
    XdpRequest,
};
use ebpf_common::count::COUNTERS;
use ebpf_common::entry::{Action, Listing};
use hints::ban::Ban;
use hints::{Kind, Value, What, client_key};
use spool::id::MessageId;

use crate::config::Rung;
use crate::dns::{self, Question};
use crate::dnsbl::{self, Finding, Inquiry, Judged, Said, State};
use crate::post::Orders;
use crate::rules::RULES_MAX;
use crate::xdp::{self, Lists, OPERATOR, RELAPSE_S, Standing};

use super::House;
use super::filter::{client_of, event_line};

/// How long a tail waits for the next event, and how often it looks.
const TAIL_LOOKS: u32 = 50;
const TAIL_LOOK: Duration = Duration::from_millis(200);
const SECOND_US: u64 = 1_000_000;

/// Lines in the making.
#[derive(Default)]
struct Lines(Vec<XdpLine>);

impl Lines {
    fn put(&mut self, name: &str, value: &str) {
        self.0.push(XdpLine { name: Text::cut(name), value: Text::cut(value) });
    }

    fn page(self) -> Reply {
        Reply::Xdp(XdpPage { lines: List::cut(self.0), next: None })
    }
}

fn refused(message: &str, advice: &str) -> Reply {
    Reply::Failure(Failure::new(FailureCode::Refused, message, advice))
}

/// A client is an IPv4 address or an IPv6 /64.
fn client(text: &str) -> Result<IpAddr, Reply> {
    let address = text.strip_suffix("/64").unwrap_or(text).parse::<IpAddr>();
    address.map(|address| address.to_canonical()).map_err(|_| {
        refused(&format!("{text:?} is no address"), "an IPv4 address, or any of an IPv6 /64")
    })
}

fn rung_of(ban: &Ban) -> Rung {
    Rung::at(u8::try_from(ban.rung).unwrap_or(0))
}

impl House {
    /// Answers one of them.
    pub(super) async fn ladder(self: &Rc<Self>, request: XdpRequest, wall_us: u64) -> Reply {
        match request {
            XdpRequest::Status => self.ladder_status(wall_us),
            XdpRequest::Top => self.ladder_top(),
            XdpRequest::Look { what } => self.look_up(&what, wall_us).await,
            XdpRequest::Add { address, rung, life_s } => {
                self.ban_by_hand(&address, &rung, life_s, wall_us)
            }
            XdpRequest::Remove { address } => self.lift(&address, wall_us),
            XdpRequest::Simulate { address } => self.simulate(&address, wall_us).await,
            XdpRequest::Tail { after } => self.tail(after).await,
            other => {
                let message = format!("{other:?} is not known to this version");
                Reply::Failure(Failure::new(FailureCode::Unknown, &message, ""))
            }
        }
    }

    fn ladder_status(&self, wall_us: u64) -> Reply {
        let orders = self.orders.borrow().clone();
        let lists = self.filter.lists.borrow().clone();
        let mut out = Lines::default();
        out.put("mode", orders.config.xdp.mode.as_str());
        let status = self.filter.status.borrow();
        match (status.as_ref(), self.filter.without.borrow().as_ref()) {
            (_, Some(without)) => out.put("filter", without),
            (Some(status), None) => {
                let on = status.attached.iter();
                let on = on.map(|(name, native)| {
                    format!("{name} ({})", if *native { "native" } else { "generic" })
                });
                let on = on.collect::<Vec<_>>().join(", ");
                out.put("filter", if on.is_empty() { "attached nowhere" } else { &on });
                status.notes.iter().for_each(|note| out.put("note", note));
            }
            (None, None) => out.put("filter", "none: [xdp] has no interfaces"),
        }
        for (_, list) in lists.all() {
            let config = list.config();
            let kind = if config.allow { "allowed" } else { config.ceiling.as_str() };
            let value = format!("{} networks, {kind}, {}", list.len(), config.file.display());
            out.put(config.name.as_str(), &value);
        }
        for zone in orders.zones.all() {
            let state = match zone.state() {
                State::Unproven => "its test points have not answered yet: counts for nothing",
                State::Proven => "counts",
                State::Failed => "cut off: its test points are wrong",
                State::TooMany => "cut off: it lists nearly everybody",
            };
            let kind = if zone.config.allow { "allowed" } else { zone.config.ceiling.as_str() };
            out.put(zone.config.zone.as_str(), &format!("{state}; {kind}"));
        }
        let bans = self.hints.records(0, wall_us).map(|(_, record)| record.value);
        let holds = |value: &Value| matches!(value, Value::Ban(ban) if ban.holds(wall_us));
        out.put("bans", &bans.filter(holds).count().to_string());
        if let Some(status) = status.as_ref() {
            out.put("generation", &status.generation.to_string());
            for ((_, word), count) in COUNTERS.iter().zip(&status.counters) {
                out.put(word, &count.to_string());
            }
        }
        out.page()
    }

    fn ladder_top(&self) -> Reply {
        let lists = self.filter.lists.borrow().clone();
        let status = self.filter.status.borrow();
        let Some(status) = status.as_ref() else {
            return refused("there is no XDP filter", "`ringpost metrics` counts what was refused");
        };
        let mut rows = status.reasons.clone();
        rows.sort_unstable_by_key(|(.., count)| std::cmp::Reverse(*count));
        let mut out = Lines::default();
        for (list, action, count) in rows {
            out.put(lists.name(list), &format!("{count} {}", action.name()));
        }
        out.page()
    }

    pub(super) async fn look_up(self: &Rc<Self>, what: &str, wall_us: u64) -> Reply {
        if let Ok(address) = client(what) {
            return self.look_at(address, wall_us).await;
        }
        let Ok(id) = u32::from_str_radix(what, 16) else {
            return refused(&format!("{what:?} is neither an address nor an id"), "");
        };
        for (_, record) in self.hints.records(0, wall_us).filter(|(_, r)| r.kind == Kind::Ban) {
            if let (Value::Ban(ban), Some(address)) = (record.value, client_of(record.key.octets()))
                && ban.id == id
            {
                return self.look_at(address, wall_us).await;
            }
        }
        let lists = self.filter.lists.borrow().clone();
        let [list, ..] = id.to_be_bytes();
        if list == OPERATOR && id < u32::try_from(RULES_MAX).unwrap_or(0) {
            let mut out = Lines::default();
            out.put("list", "standing orders: `ringpost rules` shows them");
            return out.page();
        }
        if lists.all().any(|(number, _)| number == list) {
            let mut out = Lines::default();
            out.put("list", lists.name(list));
            out.put("entry", &format!("number {} of its networks", id & 0x00ff_ffff));
            return out.page();
        }
        let message = format!("no ban and no list has the id {what}");
        Reply::Failure(Failure::new(FailureCode::NotFound, &message, "it may have lapsed"))
    }

    async fn look_at(self: &Rc<Self>, address: IpAddr, wall_us: u64) -> Reply {
        let found = self.ask_filter(address).await;
        let lists = self.filter.lists.borrow().clone();
        let mut out = Lines::default();
        out.put("address", &address.to_string());
        if lists.is_allowed(address) {
            out.put("allowed", "by the config");
        }
        for (_, list) in lists.all().filter(|(_, list)| list.contains(address)) {
            let config = list.config();
            let kind = if config.allow { "allowed" } else { config.ceiling.as_str() };
            let value = format!("{}: {kind}, {}", config.name.as_str(), config.file.display());
            out.put("list", &value);
        }
        if let Some(allow) = self.orders.borrow().rules.stance(address, wall_us / SECOND_US) {
            out.put("standing order", if allow { "allowed" } else { "blocked" });
        }
        if let Some(good) = self.hints.delivered(client_key(address).as_ref(), wall_us) {
            let ago_s = wall_us.saturating_sub(good.last_us) / SECOND_US;
            out.put("mail taken", &format!("{ago_s} s ago: not banned for [xdp] good_days"));
        }
        match self.hints.ban(client_key(address).as_ref(), wall_us) {
            Some(ban) => ban_lines(&ban, &lists, wall_us, &mut out),
            None => out.put("ban", "none"),
        }
        for (place, listing, hits, last_s) in found.iter().flat_map(|status| &status.found) {
            let ago = if *last_s == 0 { "never".to_owned() } else { ago(*last_s) };
            let hits = match (*place, *hits) {
                (2, 0) => "not heard of yet".to_owned(),
                (2, _) => "heard of".to_owned(),
                (_, hits) => format!("{hits} hits, last {ago}"),
            };
            let value = format!("{}, {hits}", in_filter(*place, listing, &lists));
            out.put("in the filter", &value);
        }
        out.page()
    }

    fn ban_by_hand(&self, address: &str, rung: &str, life_s: u32, wall_us: u64) -> Reply {
        let address = match client(address) {
            Ok(address) => address,
            Err(reply) => return reply,
        };
        let ceiling = match rung {
            "answer" => Rung::Answer,
            "drop" => Rung::Drop,
            _ => return refused(&format!("{rung:?} is no rung for a ban"), "answer or drop"),
        };
        let lists = self.filter.lists.borrow().clone();
        if lists.judge(address, wall_us / SECOND_US) == Judged::Allowed {
            return refused("this address is always allowed", "[xdp] allow, or an allow list");
        }
        let mut octets = [0; 4];
        if getrandom::fill(&mut octets).is_err() {
            return refused("no random numbers", "");
        }
        let finding = Finding { list: OPERATOR, ceiling, ttl_s: life_s };
        let id = u32::from_ne_bytes(octets);
        let Some(ban) = xdp::ban(finding, None, id, 0, wall_us) else {
            return refused("nothing to do", "");
        };
        if !self.put_ban(address, &ban, wall_us) {
            let busy = Failure::new(FailureCode::Busy, "its core is busy", "ask again");
            return Reply::Failure(busy);
        }
        let left_s = ban.until_us.saturating_sub(wall_us) / SECOND_US;
        let message = format!("{address} is banned for {left_s} s, id {id:08X}");
        Reply::Done { message: Text::cut(&message) }
    }

    fn put_ban(&self, address: IpAddr, ban: &Ban, wall_us: u64) -> bool {
        let life_us = ban.until_us.saturating_sub(wall_us) + u64::from(RELAPSE_S) * SECOND_US;
        let what = What::Put(Value::Ban(*ban), life_us);
        let put = self.tables.change(Kind::Ban, client_key(address).as_ref(), what, wall_us);
        if put {
            self.banned(address, ban);
        }
        put
    }

    fn lift(&self, address: &str, wall_us: u64) -> Reply {
        let address = match client(address) {
            Ok(address) => address,
            Err(reply) => return reply,
        };
        let key = client_key(address);
        let there = self.hints.ban(key.as_ref(), wall_us).is_some();
        let in_filter = self.unbanned(address);
        if !there && !in_filter {
            let message = format!("{address} is not banned");
            return Reply::Failure(Failure::new(FailureCode::NotFound, &message, ""));
        }
        if there && !self.tables.change(Kind::Ban, key.as_ref(), What::Remove, wall_us) {
            let busy = Failure::new(FailureCode::Busy, "its core is busy", "ask again");
            return Reply::Failure(busy);
        }
        Reply::Done { message: Text::cut(&format!("{address} is not banned any more")) }
    }

    /// The way a connection of this address would take now.
    async fn simulate(self: &Rc<Self>, address: &str, wall_us: u64) -> Reply {
        let address = match client(address) {
            Ok(address) => address,
            Err(reply) => return reply,
        };
        let found = self.ask_filter(address).await;
        let orders = self.orders.borrow().clone();
        let lists = self.filter.lists.borrow().clone();
        let mode = orders.config.xdp.mode;
        let mut out = Lines::default();
        out.put("mode", mode.as_str());
        let filter = found.map_or_else(
            || "there is none: passes".to_owned(),
            |status| in_force(&status.found, mode, &lists),
        );
        out.put("filter", &filter);
        let mut judged = lists.judge(address, wall_us / SECOND_US);
        if judged != Judged::Allowed {
            let by_dns = self.ask_lists(address, &orders, &mut out).await;
            judged = further(judged, by_dns);
        }
        let finding = match judged {
            Judged::Listed(finding) => Some(finding),
            Judged::Allowed | Judged::Unlisted => None,
        };
        let ban = self.hints.ban(client_key(address).as_ref(), wall_us);
        let ban = ban.filter(|ban| ban.holds(wall_us) && judged != Judged::Allowed);
        let standing = Standing { finding, ban: ban.as_ref().map(rung_of), busy: false };
        let stance = orders.rules.stance(address, wall_us / SECOND_US);
        let greeting = match (stance, xdp::in_greeting(mode, &standing)) {
            (Some(false), _) => "turned away: a standing order",
            (_, true) => "refused, 554",
            (_, false) => "greeted",
        };
        out.put("greeting", greeting);
        let by = finding.map(|finding| lists.name(finding.list).to_owned());
        let rcpt = match (by, xdp::at_rcpt(mode, finding)) {
            (Some(by), true) => format!("refused, 554 5.7.1, listed by {by}"),
            (Some(by), false) => format!("taken; noted that {by} lists it"),
            (None, _) if judged == Judged::Allowed => "taken: always allowed".to_owned(),
            (None, _) => "taken".to_owned(),
        };
        out.put("rcpt", &rcpt);
        out.page()
    }

    /// Plays a session, with what DNS lists say of its client.
    pub(super) async fn played(&self, mut session: Rehearse) -> Result<Reply, Failure> {
        // One that goes on has heard it.
        if session.play == 0
            && let Ok(address) = session.from.parse::<IpAddr>()
        {
            let orders = self.orders.borrow().clone();
            let mut lines = Lines::default();
            let judged = self.ask_lists(address.to_canonical(), &orders, &mut lines).await;
            let said = lines.0.iter().map(|line| format!("{} {}", &*line.name, &*line.value));
            session.by_dns = ListedBy {
                allowed: judged == Judged::Allowed,
                listed: match judged {
                    Judged::Listed(by) => Some((by.list, by.ceiling.height(), by.ttl_s)),
                    Judged::Allowed | Judged::Unlisted => None,
                },
                said: said.collect(),
            };
        }
        self.questions.ask_first(Request::Session(session)).await
    }

    /// What the DNS lists say now, one line each; not counted among their answers.
    async fn ask_lists(&self, address: IpAddr, orders: &Orders, out: &mut Lines) -> Judged {
        let zones = orders.zones.all();
        let mut inquiry = Inquiry::new(zones.len());
        for zone in zones {
            let name = dnsbl::name(address, zone.config.zone.as_str());
            let Ok(question) = Question::new(name.as_bytes(), dns::Kind::A) else { continue };
            let outcome = self.lookups.ask_dns(&question).await;
            let said = dnsbl::read(&zone.config, &outcome);
            let counts = zone.state() == State::Proven;
            let line = match said {
                Said::Listed { ceiling, ttl_s } => {
                    let kind = if zone.config.allow { "allowed" } else { ceiling.as_str() };
                    format!("lists it: {kind}, for {ttl_s} s")
                }
                Said::Not => "does not list it".to_owned(),
                Said::Trouble => format!("no answer that counts: {outcome:?}"),
            };
            let aside = if counts { "" } else { "; is cut off, so it does not count" };
            out.put(zone.config.zone.as_str(), &format!("{line}{aside}"));
            inquiry.take(zone, if counts { said } else { Said::Trouble });
        }
        inquiry.verdict(&orders.zones)
    }

    /// Puts the events behind a number; the number of the last.
    fn events_behind(&self, after: u64, lines: &mut Lines) -> u64 {
        let lists = self.filter.lists.borrow().clone();
        let most = control::limits::LADDER_LINES_MAX;
        let mut last = after;
        let events = self.filter.events.borrow();
        for (number, event) in events.iter().filter(|(n, _)| *n > after).take(most) {
            lines.put(&number.to_string(), &event_line(event, &lists));
            last = *number;
        }
        last
    }

    async fn tail(self: &Rc<Self>, after: u64) -> Reply {
        let mut lines = Lines::default();
        let mut next = after;
        for look in 0..TAIL_LOOKS {
            next = self.events_behind(next, &mut lines);
            if !lines.0.is_empty() || (look == 0 && after == 0) {
                break;
            }
            tokio::time::sleep(TAIL_LOOK).await;
        }
        Reply::Xdp(XdpPage { lines: List::cut(lines.0), next: Some(next) })
    }
}

/// Of what files and DNS lists say: allow wins, then who goes further; of equals the file.
const fn further(by_file: Judged, by_dns: Judged) -> Judged {
    match (&by_file, &by_dns) {
        (Judged::Allowed, _) | (_, Judged::Allowed) => Judged::Allowed,
        (Judged::Listed(a), Judged::Listed(b)) if a.ceiling.height() < b.ceiling.height() => by_dns,
        (Judged::Listed(_), _) => by_file,
        (Judged::Unlisted, _) => by_dns,
    }
}

fn ban_lines(ban: &Ban, lists: &Lists, wall_us: u64, out: &mut Lines) {
    let left_s = ban.until_us.saturating_sub(wall_us) / SECOND_US;
    let state = if ban.holds(wall_us) {
        format!("{}, for {left_s} s more", rung_of(ban).as_str())
    } else {
        "lapsed; the next one is longer".to_owned()
    };
    out.put("ban", &state);
    out.put("ban by", lists.name(u8::try_from(ban.list).unwrap_or(OPERATOR)));
    out.put("ban id", &format!("{:08X}", ban.id));
    out.put("ban number", &ban.times.to_string());
    let octets = ban.session.to_le_bytes();
    if ban.session != 0
        && let Some(octets) = octets.first_chunk::<12>()
    {
        out.put("session", &MessageId::from_bytes(*octets).to_string());
    }
}

fn ago(last_s: u32) -> String {
    format!("{} s ago", gate::monotonic_s().saturating_sub(last_s))
}

const PLACES: [&str; 5] = ["rate", "ban", "host", "network", "allowed network"];

fn in_filter(place: u8, listing: &Listing, lists: &Lists) -> String {
    let place = PLACES.get(usize::from(place)).copied().unwrap_or("?");
    let name = lists.name(listing.list);
    format!("{place} of {name}: {}, id {:08X}", listing.action.name(), listing.id)
}

/// What the filter does with what its tables say.
fn in_force(found: &[(u8, Listing, u32, u32)], mode: Rung, lists: &Lists) -> String {
    if found.iter().any(|(place, ..)| *place == 4) {
        return "passes: an allowed network".to_owned();
    }
    let now_s = gate::monotonic_s();
    let live = |l: &Listing| l.expires_s == 0 || l.expires_s > now_s;
    let first = found.iter().find(|(_, l, ..)| live(l) && l.action as u8 > Action::Count as u8);
    let any = first.or_else(|| found.iter().find(|(_, l, ..)| live(l)));
    let Some((place, listing, ..)) = any else { return "passes: not listed".to_owned() };
    let what = match (mode, listing.action) {
        (Rung::Count | Rung::Refuse, _) | (_, Action::Count) => "counted, passes",
        (_, Action::Pass) => "passes",
        (Rung::Answer, _) | (_, Action::Answer) => "answered with the 554",
        (Rung::Drop, Action::Drop) => "dropped",
    };
    format!("{what}: {}", in_filter(*place, listing, lists))
}
