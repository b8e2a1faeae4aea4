//! What the DNS says of clients, asked over this core's own sockets: their names, and DNS lists.
//!
//! *Limits.* Those of `dns::Lookups`; a client whose question finds no room stays without a name,
//! and unlisted.
//! *Failure.* No answer in time leaves a name unknown and lists nobody.
//! *Not here.* Exchangers and addresses of next hops: the house thread asks for those.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use engine::{Conn, Core, Udp};

use crate::config::ResolverConfig;
use crate::dns::{
    Finished, Kind, Lookups, LookupsConfig, Outcome, Question, Reverse, ReverseLookup, Step, Wire,
};
use crate::dnsbl::{self, Inquiry, Judged, State, Zones};
use crate::post::ToCore;

/// Questions of one core at once.
const IN_FLIGHT_MAX: usize = 4096;
/// The test points of RFC 5782 5: the first is listed, the second is not.
const POINTS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 1)];

/// Something that became known of a client.
#[derive(Debug)]
pub enum Known {
    /// Its name.
    Name(Reverse),
    /// What the DNS lists say together.
    Judged(Judged),
}

/// What a question is for.
#[derive(Debug)]
enum Waiting {
    Name { conn: Conn, lookup: ReverseLookup },
    Zone { inquiry: u64, zone: usize },
    Point { zones: Arc<Zones>, zone: usize, point: usize },
}

/// The questions about one client.
#[derive(Debug)]
struct Open {
    conn: Conn,
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
            self.inquiries.insert(number, Open { conn, zones, inquiry });
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
        self.step(core, done)
    }

    /// When [`Names::expire`] must be called.
    pub fn deadline(&mut self) -> Option<u64> {
        self.machine.next_deadline_us()
    }

    fn slot(&self, socket: Udp) -> Option<u8> {
        let at = self.sockets.iter().position(|open| *open == Some(socket))?;
        u8::try_from(at).ok()
    }

    fn step(&mut self, core: &mut Core<ToCore>, done: Vec<Finished>) -> Vec<(Conn, Known)> {
        let now_us = core.now_us();
        let mut known = Vec::new();
        for Finished { token, outcome } in done {
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
                    known.extend(self.zone(inquiry, zone, &outcome, now_us));
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
        number: u64,
        zone: usize,
        outcome: &Outcome,
        now_us: u64,
    ) -> Option<(Conn, Known)> {
        let open = self.inquiries.get_mut(&number)?;
        let zone = open.zones.all().get(zone)?;
        let said = zone.take(outcome, now_us);
        if !open.inquiry.take(zone, said) {
            return None;
        }
        let Open { conn, zones, inquiry } = self.inquiries.remove(&number)?;
        Some((conn, Known::Judged(inquiry.verdict(&zones))))
    }

    fn point(&mut self, zones: &Zones, zone: usize, point: usize, outcome: Outcome, now_us: u64) {
        let Some((_, points)) = self.tests.get_mut(zone) else { return };
        points[point] = Some(outcome);
        if let ([Some(listed), Some(unlisted)], Some(zone)) = (&points, zones.all().get(zone)) {
            zone.tested(listed, unlisted, now_us);
        }
    }
}
