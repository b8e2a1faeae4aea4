//! The DNS names of clients, asked over this core's own sockets.
//!
//! *Limits.* Those of `dns::Lookups`; a client whose question finds no room stays without a name.
//! *Failure.* No answer in time leaves the name unknown: nothing waits for it but the log.
//! *Not here.* Exchangers and addresses of next hops: the house thread asks for those.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use engine::{Conn, Core, Udp};

use crate::config::ResolverConfig;
use crate::dns::{Finished, Lookups, LookupsConfig, Reverse, ReverseLookup, Step, Wire};
use crate::post::ToCore;

/// Questions of one core at once.
const IN_FLIGHT_MAX: usize = 4096;

/// A client whose name is being found out.
#[derive(Debug)]
struct Client {
    conn: Conn,
    lookup: ReverseLookup,
}

/// See the module. Without a resolver in the config nothing is asked.
#[derive(Debug)]
pub struct Names {
    machine: Lookups,
    resolver: SocketAddr,
    sockets: Vec<Option<Udp>>,
    waiting: HashMap<u64, Client>,
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
        Some(Self { machine, resolver, sockets: Vec::new(), waiting: HashMap::new(), next: 0 })
    }

    /// Asks for the name of a client. Addresses of this machine have none worth asking for.
    pub fn ask(&mut self, core: &mut Core<ToCore>, conn: Conn, client: IpAddr) {
        if client.to_canonical().is_loopback() {
            return;
        }
        let (lookup, question) = ReverseLookup::new(client);
        self.next += 1;
        let now_us = core.now_us();
        let mut wire = Sockets { core, resolver: self.resolver, open: &mut self.sockets };
        if self.machine.ask(now_us, question, self.next, &mut wire).is_ok() {
            self.waiting.insert(self.next, Client { conn, lookup });
        }
    }

    /// A datagram came; names that are known now.
    pub fn datagram(
        &mut self,
        core: &mut Core<ToCore>,
        socket: Udp,
        bytes: &[u8],
    ) -> Vec<(Conn, Reverse)> {
        let Some(slot) = self.slot(socket) else { return Vec::new() };
        let mut done = Vec::new();
        let now_us = core.now_us();
        let mut wire = Sockets { core, resolver: self.resolver, open: &mut self.sockets };
        self.machine.datagram(now_us, slot, bytes, &mut wire, &mut done);
        self.step(core, done)
    }

    /// Nobody listens at the resolver.
    pub fn unreachable(&mut self, core: &mut Core<ToCore>, socket: Udp) -> Vec<(Conn, Reverse)> {
        let Some(slot) = self.slot(socket) else { return Vec::new() };
        let mut done = Vec::new();
        let mut wire = Sockets { core, resolver: self.resolver, open: &mut self.sockets };
        self.machine.unreachable(slot, &mut wire, &mut done);
        self.step(core, done)
    }

    /// What ran out of time.
    pub fn expire(&mut self, core: &mut Core<ToCore>) -> Vec<(Conn, Reverse)> {
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

    fn step(&mut self, core: &mut Core<ToCore>, done: Vec<Finished>) -> Vec<(Conn, Reverse)> {
        let mut named = Vec::new();
        for Finished { token, outcome } in done {
            let Some(mut client) = self.waiting.remove(&token) else { continue };
            match client.lookup.answer(&outcome) {
                Step::Done(reverse) => named.push((client.conn, reverse)),
                Step::Ask(question) => {
                    self.next += 1;
                    let now_us = core.now_us();
                    let mut wire =
                        Sockets { core, resolver: self.resolver, open: &mut self.sockets };
                    if self.machine.ask(now_us, question, self.next, &mut wire).is_ok() {
                        self.waiting.insert(self.next, client);
                    } else {
                        named.push((client.conn, Reverse::Unknown(None)));
                    }
                }
            }
        }
        named
    }
}
