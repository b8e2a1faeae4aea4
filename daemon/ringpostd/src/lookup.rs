//! What the DNS says of clients, asked over this core's own sockets: their names, and DNS lists.
//!
//! *Limits.* Those of `dns::Lookups`; a client whose question finds no room stays without a name,
//! and unlisted.
//! *Failure.* No answer in time leaves a name unknown and lists nobody. What does not fit into a
//! datagram is asked once more over TCP, by the house.
//! *Not here.* Exchangers and addresses of next hops: the house thread asks for those.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use engine::{Conn, Core, Udp};

use crate::config::ResolverConfig;
use crate::dns::{
    Failure, Finished, Kind, Lookups, LookupsConfig, Outcome, Question, Reverse, ReverseLookup,
    Step, Wire,
};
use crate::dnsbl::{self, Inquiry, Judged, State, Zones};
use crate::post::ToCore;

/// How long the house may take to ask over TCP.
const OVER_TCP_US: u64 = 15_000_000;
/// Questions that are being asked over TCP at once; an answer beyond them counts as none.
const OVER_TCP_MAX: usize = 64;
/// Questions of one core at once.
const IN_FLIGHT_MAX: usize = 4096;
/// The test points of RFC 5782 5: the first is listed, the second is not.
const POINTS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 1)];

/// Something that became known of a client.
#[derive(Debug)]
pub enum Known {
    /// Its name.
    Name(Reverse),
    /// What the DNS lists say together, and what the one that counts says in words.
    Judged(Judged, Option<Box<str>>),
}

/// What a question is for.
#[derive(Debug)]
enum Waiting {
    Name { conn: Conn, lookup: ReverseLookup },
    Zone { inquiry: u64, zone: usize },
    Text { inquiry: u64, list: u8 },
    Again { client: IpAddr, zones: Arc<Zones>, zone: usize },
    Point { zones: Arc<Zones>, zone: usize, point: usize },
}

/// The questions about one client.
#[derive(Debug)]
struct Open {
    conn: Conn,
    client: IpAddr,
    zones: Arc<Zones>,
    inquiry: Inquiry,
}

/// See the module. Without a resolver in the config nothing is asked.
#[derive(Debug)]
pub struct Names {
    machine: Lookups,
    resolver: SocketAddr,
    sockets: Vec<Option<Udp>>,
    waiting: HashMap<u64, Waiting>,
    inquiries: HashMap<u64, Open>,
    /// Questions to be asked over TCP.
    to_tcp: Vec<(u64, Question)>,
    /// Those that are, and until when they are waited for.
    over_tcp: Vec<(u64, u64)>,
    /// Clients that a list lists no more.
    unlisted: Vec<(IpAddr, u8)>,
    /// By zone: when its test points are due, and what is known of them.
    tests: Vec<(u64, [Option<Outcome>; 2])>,
    next: u64,
}

/// The machine's sockets in the engine.
struct Sockets<'a> {
    core: &'a mut Core<ToCore>,
    resolver: SocketAddr,
    open: &'a mut Vec<Option<Udp>>,
}

impl Wire for Sockets<'_> {
    fn open(&mut self, slot: u8) -> bool {
        let slot = usize::from(slot);
        if self.open.len() <= slot {
            self.open.resize(slot + 1, None);
        }
        self.open[slot] = self.core.udp_open(self.resolver, None).ok();
        self.open[slot].is_some()
    }

    fn send(&mut self, slot: u8, datagram: &[u8]) {
        if let Some(Some(socket)) = self.open.get(usize::from(slot)) {
            self.core.udp_send(*socket, datagram);
        }
    }

    fn close(&mut self, slot: u8) {
        if let Some(socket) = self.open.get_mut(usize::from(slot)).and_then(Option::take) {
            self.core.udp_close(socket);
        }
    }
}

impl Names {
    /// Asks the first resolver of the config; `random` must not be guessable.
    #[must_use]
    pub fn new(
        config: &ResolverConfig,
        random: impl FnMut() -> u64 + Send + 'static,
    ) -> Option<Self> {
        let resolver = *config.servers.first()?;
        let machine = Lookups::new(
            LookupsConfig {
                resolver,
                try_us: config.timeout_s.us(),
                tries: u8::try_from(config.attempts).unwrap_or(u8::MAX),
                in_flight_max: IN_FLIGHT_MAX,
            },
            Box::new(random),
        );
        Some(Self {
            machine,
            resolver,
            sockets: Vec::new(),
            waiting: HashMap::new(),
            inquiries: HashMap::new(),
            to_tcp: Vec::new(),
            over_tcp: Vec::new(),
            unlisted: Vec::new(),
            tests: Vec::new(),
            next: 0,
        })
    }

    /// Asks for the name of a client. Addresses of this machine have none worth asking for.
    pub fn ask(&mut self, core: &mut Core<ToCore>, conn: Conn, client: IpAddr) {
        if client.to_canonical().is_loopback() {
            return;
        }
        let (lookup, question) = ReverseLookup::new(client);
        let _ = self.put(core, question, Waiting::Name { conn, lookup });
    }

    /// Asks every zone that counts about a client, all at once. False: there is nothing to wait
    /// for.
    pub fn ask_zones(
        &mut self,
        core: &mut Core<ToCore>,
        conn: Conn,
        client: IpAddr,
        zones: &Arc<Zones>,
    ) -> bool {
        if client.to_canonical().is_loopback() {
            return false;
        }
        self.next += 1;
        let number = self.next;
        let mut open = 0;
        for (at, zone) in zones.all().iter().enumerate() {
            let name = dnsbl::name(client, zone.config.zone.as_str());
            let Ok(question) = Question::new(name.as_bytes(), Kind::A) else { continue };
            let waiting = Waiting::Zone { inquiry: number, zone: at };
            if zone.state() == State::Proven && self.put(core, question, waiting) {
                open += 1;
            }
        }
        if open > 0 {
            let (zones, inquiry) = (Arc::clone(zones), Inquiry::new(open));
            self.inquiries.insert(number, Open { conn, client, zones, inquiry });
        }
        open > 0
    }

    /// Asks the test points of zones that are due. One core does it for all.
    pub fn watch(&mut self, core: &mut Core<ToCore>, zones: &Arc<Zones>) {
        let now_us = core.now_us();
        self.tests.resize_with(zones.all().len(), Default::default);
        for (at, zone) in zones.all().iter().enumerate() {
            let proven = zone.state() == State::Proven;
            let again_us = if proven { dnsbl::TEST_US } else { dnsbl::TEST_SOON_US };
            let again_us = now_us.saturating_add(again_us);
            // Another config may have put another zone here: it is not to wait that long.
            if !zone.config.tested || self.tests[at].0.min(again_us) > now_us {
                self.tests[at].0 = self.tests[at].0.min(again_us);
                continue;
            }
            self.tests[at] = (again_us, [None, None]);
            for (point, address) in POINTS.into_iter().enumerate() {
                let name = dnsbl::name(address.into(), zone.config.zone.as_str());
                let Ok(question) = Question::new(name.as_bytes(), Kind::A) else { continue };
                let waiting = Waiting::Point { zones: Arc::clone(zones), zone: at, point };
                let _ = self.put(core, question, waiting);
            }
        }
    }

    /// Asks again about clients that are banned for what a zone said.
    pub fn recheck(
        &mut self,
        core: &mut Core<ToCore>,
        zones: &Arc<Zones>,
        clients: Vec<(IpAddr, u8)>,
    ) -> Vec<(Conn, Known)> {
        for (client, list) in clients {
            let at = zones.all().iter().position(|zone| zone.number == list);
            let Some((at, zone)) = at.map(|at| (at, &zones.all()[at])) else { continue };
            let name = dnsbl::name(client, zone.config.zone.as_str());
            if zone.state() == State::Proven
                && let Ok(question) = Question::new(name.as_bytes(), Kind::A)
            {
                let waiting = Waiting::Again { client, zones: Arc::clone(zones), zone: at };
                let _ = self.put(core, question, waiting);
            }
        }
        Vec::new()
    }

    /// Questions that the house is to ask over TCP.
    pub fn take_over_tcp(&mut self) -> Vec<(u64, Question)> {
        std::mem::take(&mut self.to_tcp)
    }

    /// Clients that a list (by number) lists no more.
    pub fn take_unlisted(&mut self) -> Vec<(IpAddr, u8)> {
        std::mem::take(&mut self.unlisted)
    }

    /// What came over TCP.
    pub fn over_tcp(
        &mut self,
        core: &mut Core<ToCore>,
        token: u64,
        outcome: Outcome,
    ) -> Vec<(Conn, Known)> {
        let Some(at) = self.over_tcp.iter().position(|(of, _)| *of == token) else {
            return Vec::new();
        };
        self.over_tcp.swap_remove(at);
        // Nothing goes there twice.
        let outcome = match outcome {
            Outcome::NeedsTcp(_) => Outcome::Failed(Failure::Malformed),
            outcome => outcome,
        };
        self.step(core, vec![Finished { token, outcome }])
    }

    fn put(&mut self, core: &mut Core<ToCore>, question: Question, waiting: Waiting) -> bool {
        self.next += 1;
        let now_us = core.now_us();
        let mut wire = Sockets { core, resolver: self.resolver, open: &mut self.sockets };
        let asked = self.machine.ask(now_us, question, self.next, &mut wire).is_ok();
        if asked {
            self.waiting.insert(self.next, waiting);
        }
        asked
    }

    /// A datagram came; what is known now.
    pub fn datagram(
        &mut self,
        core: &mut Core<ToCore>,
        socket: Udp,
        bytes: &[u8],
    ) -> Vec<(Conn, Known)> {
        let Some(slot) = self.slot(socket) else { return Vec::new() };
        let mut done = Vec::new();
        let now_us = core.now_us();
        let mut wire = Sockets { core, resolver: self.resolver, open: &mut self.sockets };
        self.machine.datagram(now_us, slot, bytes, &mut wire, &mut done);
        self.step(core, done)
    }

    /// Nobody listens at the resolver.
    pub fn unreachable(&mut self, core: &mut Core<ToCore>, socket: Udp) -> Vec<(Conn, Known)> {
        let Some(slot) = self.slot(socket) else { return Vec::new() };
        let mut done = Vec::new();
        let mut wire = Sockets { core, resolver: self.resolver, open: &mut self.sockets };
        self.machine.unreachable(slot, &mut wire, &mut done);
        self.step(core, done)
    }

    /// What ran out of time.
    pub fn expire(&mut self, core: &mut Core<ToCore>) -> Vec<(Conn, Known)> {
        let mut done = Vec::new();
        let now_us = core.now_us();
        let mut wire = Sockets { core, resolver: self.resolver, open: &mut self.sockets };
        self.machine.expire(now_us, &mut wire, &mut done);
        self.over_tcp.retain(|(token, until_us)| {
            let late = *until_us <= now_us;
            if late {
                let outcome = Outcome::Failed(Failure::Timeout);
                done.push(Finished { token: *token, outcome });
            }
            !late
        });
        self.step(core, done)
    }

    /// When [`Names::expire`] must be called.
    pub fn deadline(&mut self) -> Option<u64> {
        let over_tcp = self.over_tcp.iter().map(|(_, until_us)| *until_us).min();
        self.machine.next_deadline_us().into_iter().chain(over_tcp).min()
    }

    fn slot(&self, socket: Udp) -> Option<u8> {
        let at = self.sockets.iter().position(|open| *open == Some(socket))?;
        u8::try_from(at).ok()
    }

    fn step(&mut self, core: &mut Core<ToCore>, done: Vec<Finished>) -> Vec<(Conn, Known)> {
        let now_us = core.now_us();
        let mut known = Vec::new();
        for Finished { token, outcome } in done {
            let outcome = match outcome {
                Outcome::NeedsTcp(question) if self.over_tcp.len() < OVER_TCP_MAX => {
                    self.over_tcp.push((token, now_us.saturating_add(OVER_TCP_US)));
                    self.to_tcp.push((token, question));
                    continue;
                }
                outcome => outcome,
            };
            match self.waiting.remove(&token) {
                None => {}
                Some(Waiting::Name { conn, mut lookup }) => match lookup.answer(&outcome) {
                    Step::Done(reverse) => known.push((conn, Known::Name(reverse))),
                    Step::Ask(question) => {
                        if !self.put(core, question, Waiting::Name { conn, lookup }) {
                            known.push((conn, Known::Name(Reverse::Unknown(None))));
                        }
                    }
                },
                Some(Waiting::Zone { inquiry, zone }) => {
                    known.extend(self.zone(core, inquiry, zone, &outcome));
                }
                Some(Waiting::Text { inquiry, list }) => {
                    known.extend(self.text(inquiry, list, &outcome));
                }
                Some(Waiting::Again { client, zones, zone }) => {
                    self.again(client, &zones, zone, &outcome);
                }
                Some(Waiting::Point { zones, zone, point }) => {
                    self.point(&zones, zone, point, outcome, now_us);
                }
            }
        }
        known
    }

    /// A zone's answer about a client; the verdict, if it was the last.
    fn zone(
        &mut self,
        core: &mut Core<ToCore>,
        number: u64,
        zone: usize,
        outcome: &Outcome,
    ) -> Option<(Conn, Known)> {
        let open = self.inquiries.get(&number)?;
        let (client, zones) = (open.client, Arc::clone(&open.zones));
        let zone = zones.all().get(zone)?;
        let said = zone.take(outcome, core.now_us());
        let listed = matches!(said, dnsbl::Said::Listed { .. }) && !zone.config.allow;
        let texts = listed && zone.config.text && {
            let name = dnsbl::name(client, zone.config.zone.as_str());
            let waiting = Waiting::Text { inquiry: number, list: zone.number };
            let question = Question::new(name.as_bytes(), Kind::Txt);
            question.is_ok_and(|question| self.put(core, question, waiting))
        };
        let open = self.inquiries.get_mut(&number)?;
        if texts {
            open.inquiry.more();
        }
        let last = open.inquiry.take(zone, said);
        if last { self.judged(number) } else { None }
    }

    /// What a zone says in words; the verdict, if it was the last.
    fn text(&mut self, number: u64, list: u8, outcome: &Outcome) -> Option<(Conn, Known)> {
        let open = self.inquiries.get_mut(&number)?;
        let last = open.inquiry.take_text(list, dnsbl::text(outcome));
        if last { self.judged(number) } else { None }
    }

    fn judged(&mut self, number: u64) -> Option<(Conn, Known)> {
        let Open { conn, zones, mut inquiry, .. } = self.inquiries.remove(&number)?;
        let judged = inquiry.verdict(&zones);
        let text = match judged {
            Judged::Listed(finding) => inquiry.text_of(finding.list),
            Judged::Allowed | Judged::Unlisted => None,
        };
        Some((conn, Known::Judged(judged, text)))
    }

    /// A zone's answer about a client that is banned: only a plain "not listed" lifts a ban.
    fn again(&mut self, client: IpAddr, zones: &Zones, zone: usize, outcome: &Outcome) {
        let Some(zone) = zones.all().get(zone) else { return };
        if zone.state() == State::Proven && dnsbl::read(&zone.config, outcome) == dnsbl::Said::Not {
            self.unlisted.push((client, zone.number));
        }
    }

    fn point(&mut self, zones: &Zones, zone: usize, point: usize, outcome: Outcome, now_us: u64) {
        let Some((_, points)) = self.tests.get_mut(zone) else { return };
        points[point] = Some(outcome);
        if let ([Some(listed), Some(unlisted)], Some(zone)) = (&points, zones.all().get(zone)) {
            zone.tested(listed, unlisted, now_us);
        }
    }
}
