//! One core's questions to one resolver over UDP, as a machine over datagrams.
//!
//! *Guarantees.* Every question that was taken is finished exactly once. Towards a resolver that is
//! not on a loopback address the id, the letter case and the source port are random, ports are
//! renewed, and a run of answers to nothing makes the questions go to TCP. A wrong answer never
//! ends the waiting.
//!
//! *Limits.* `in_flight_max` questions, `tries` datagrams each; one socket towards a loopback
//! address, else [`POOL_SOCKETS`] and those that drain.
//!
//! *Not here.* The sockets: [`Wire`] opens, sends and closes them; they are connected to the
//! resolver, bound to a port of the kernel's choice.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;

use super::answer::{self, Failure, Outcome};
use super::limits::{
    IN_FLIGHT_MAX, POOL_SOCKETS, SLOTS_MAX, SOCKET_AGE_US_MAX, SOCKET_QUESTIONS_MAX,
    WRONG_QUESTIONS_MAX, WRONG_RUN_MAX,
};
use super::question::{HEADER_OCTETS, Question};

/// A socket's place; below [`SLOTS_MAX`].
pub type Slot = u8;

/// The sockets behind the machine.
pub trait Wire {
    /// Opens a socket connected to the resolver, from a port of the kernel's choice. False: it
    /// failed.
    fn open(&mut self, slot: Slot) -> bool;
    /// Sends one datagram. A failure need not be told: the try runs out.
    fn send(&mut self, slot: Slot, datagram: &[u8]);
    /// Closes it; nothing that still arrives on it may be given to the machine.
    fn close(&mut self, slot: Slot);
}

/// How to ask.
#[derive(Debug, Clone)]
pub struct LookupsConfig {
    /// The resolver.
    pub resolver: SocketAddr,
    /// How long to wait for the answer to one datagram, in microseconds.
    pub try_us: u64,
    /// Datagrams per question, at least one.
    pub tries: u8,
    /// Questions open at once; cut to [`IN_FLIGHT_MAX`].
    pub in_flight_max: usize,
}

/// Too many questions are open: local trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// A question that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// As given to [`Lookups::ask`].
    pub token: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Questions taken.
    pub questions: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Answers that ended a question.
    pub answers: u64,
    /// Datagrams that answered nothing that was open: late, broken or forged.
    pub wrong: u64,
    /// Tries that ran out.
    pub timeouts: u64,
    /// Questions that had to go to TCP.
    pub to_tcp: u64,
}

struct Pending {
    token: u64,
    question: Question,
    id: u16,
    mix: u64,
    slot: Slot,
    deadline_us: u64,
    tries_left: u8,
    edns: bool,
    wrong: u8,
}

#[derive(Debug, Default)]
struct Socket {
    open: bool,
    /// Takes no further questions; closes when the last one on it ends.
    draining: bool,
    opened_us: u64,
    questions: u32,
    pending: u32,
    wrong_run: u16,
}

/// The machine. `random` must not be guessable when the resolver is not on this machine.
pub struct Lookups {
    config: LookupsConfig,
    trusted: bool,
    random: Box<dyn FnMut() -> u64 + Send>,
    pending: HashMap<u16, Pending>,
    /// Deadlines as they were given, soonest first: every try waits equally long. Those whose
    /// question ended or moved on are passed over.
    deadlines: VecDeque<(u64, u16)>,
    sockets: [Socket; SLOTS_MAX],
    counters: Counters,
    scratch: Vec<u8>,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups")
            .field("config", &self.config)
            .field("pending", &self.pending.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Lookups {
    /// A machine without sockets yet.
    #[must_use]
    pub fn new(mut config: LookupsConfig, random: Box<dyn FnMut() -> u64 + Send>) -> Self {
        config.tries = config.tries.max(1);
        config.in_flight_max = config.in_flight_max.clamp(1, IN_FLIGHT_MAX);
        Self {
            trusted: config.resolver.ip().to_canonical().is_loopback(),
            config,
            random,
            pending: HashMap::new(),
            deadlines: VecDeque::new(),
            sockets: Default::default(),
            counters: Counters::default(),
            scratch: Vec::new(),
        }
    }

    /// Takes a question and sends it.
    ///
    /// # Errors
    /// [`Busy`]: nothing was sent, nothing will be finished.
    pub fn ask(
        &mut self,
        now_us: u64,
        question: Question,
        token: u64,
        wire: &mut dyn Wire,
    ) -> Result<(), Busy> {
        if self.pending.len() >= self.config.in_flight_max {
            return Err(Busy);
        }
        let slot = self.socket(now_us, wire).ok_or(Busy)?;
        self.counters.questions += 1;
        let pending = Pending {
            token,
            question,
            id: 0,
            mix: 0,
            slot,
            deadline_us: 0,
            tries_left: self.config.tries,
            edns: true,
            wrong: 0,
        };
        self.send(now_us, pending, slot, wire);
        Ok(())
    }

    /// Takes a datagram that arrived on a socket.
    pub fn datagram(
        &mut self,
        now_us: u64,
        slot: Slot,
        bytes: &[u8],
        wire: &mut dyn Wire,
        done: &mut Vec<Finished>,
    ) {
        let Some((id, flags)) = head(bytes) else {
            return self.wrong(slot, wire, done);
        };
        let mix = (!self.trusted).then_some(());
        let right = match self.pending.get_mut(&id).filter(|p| p.slot == slot) {
            None => false,
            Some(pending) => {
                let asked = pending.question.is_asked_by(bytes, mix.map(|()| pending.mix));
                pending.wrong = pending.wrong.saturating_add(u8::from(!asked));
                if !asked && pending.wrong < WRONG_QUESTIONS_MAX {
                    false
                } else if asked && flags & TRUNCATED == 0 {
                    true
                } else {
                    self.counters.wrong += u64::from(!asked);
                    return self.leave_to_tcp(id, wire, done);
                }
            }
        };
        if !right {
            return self.wrong(slot, wire, done);
        }
        if let Some(socket) = self.sockets.get_mut(usize::from(slot)) {
            socket.wrong_run = 0;
        }
        let Some(mut pending) = self.take(id, wire) else { return };
        let outcome = answer::read(&pending.question, bytes);
        // Some old resolvers refuse what they do not know (RFC 6891 7).
        let refuses_edns = matches!(outcome, Outcome::Failed(Failure::Server(1 | 4)));
        if refuses_edns && pending.edns {
            pending.edns = false;
            if let Some(slot) = self.socket(now_us, wire) {
                return self.send(now_us, pending, slot, wire);
            }
        }
        self.counters.answers += 1;
        done.push(Finished { token: pending.token, outcome });
    }

    /// The resolver's host said that nobody listens, or the socket broke. Believed from a loopback
    /// address only: elsewhere anybody can say so, and the tries go on.
    pub fn unreachable(&mut self, slot: Slot, wire: &mut dyn Wire, done: &mut Vec<Finished>) {
        if self.trusted {
            self.end_all(slot, wire, done, |_| Outcome::Failed(Failure::Unreachable));
        }
    }

    /// Ends or repeats the tries whose time is up.
    pub fn expire(&mut self, now_us: u64, wire: &mut dyn Wire, done: &mut Vec<Finished>) {
        while let Some(&(deadline_us, id)) = self.deadlines.front() {
            if deadline_us > now_us {
                return;
            }
            self.deadlines.pop_front();
            if self.pending.get(&id).is_none_or(|p| p.deadline_us != deadline_us) {
                continue;
            }
            let Some(pending) = self.take(id, wire) else { continue };
            self.counters.timeouts += 1;
            let again = (pending.tries_left > 0).then(|| self.socket(now_us, wire)).flatten();
            match again {
                Some(slot) => self.send(now_us, pending, slot, wire),
                None => done.push(Finished {
                    token: pending.token,
                    outcome: Outcome::Failed(Failure::Timeout),
                }),
            }
        }
    }

    /// When [`Self::expire`] has something to do; `None` while nothing is open.
    pub fn next_deadline_us(&mut self) -> Option<u64> {
        while let Some(&(deadline_us, id)) = self.deadlines.front() {
            if self.pending.get(&id).is_some_and(|p| p.deadline_us == deadline_us) {
                return Some(deadline_us);
            }
            self.deadlines.pop_front();
        }
        None
    }

    /// Questions that are open.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn send(&mut self, now_us: u64, mut pending: Pending, slot: Slot, wire: &mut dyn Wire) {
        // Towards this machine a late answer to an earlier try is as good as any: the id stays.
        if !self.trusted || pending.id == 0 || self.pending.contains_key(&pending.id) {
            pending.id = self.free_id();
        }
        pending.mix = if self.trusted { 0 } else { (self.random)() };
        pending.slot = slot;
        pending.deadline_us = now_us.saturating_add(self.config.try_us);
        pending.tries_left = pending.tries_left.saturating_sub(1);
        self.scratch.clear();
        pending.question.write(pending.id, pending.mix, pending.edns, &mut self.scratch);
        wire.send(slot, &self.scratch);
        self.counters.sent += 1;
        if let Some(socket) = self.sockets.get_mut(usize::from(slot)) {
            socket.questions += 1;
            socket.pending += 1;
        }
        self.deadlines.push_back((pending.deadline_us, pending.id));
        self.pending.insert(pending.id, pending);
    }

    fn free_id(&mut self) -> u16 {
        loop {
            let [low, high, ..] = (self.random)().to_le_bytes();
            let id = u16::from_le_bytes([low, high]);
            // 0 stands for "none yet"; at most a quarter of the others is taken.
            if id != 0 && !self.pending.contains_key(&id) {
                return id;
            }
        }
    }

    /// Takes a question off the table, and its socket away when it was the last to drain.
    fn take(&mut self, id: u16, wire: &mut dyn Wire) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        if let Some(socket) = self.sockets.get_mut(usize::from(pending.slot)) {
            socket.pending = socket.pending.saturating_sub(1);
            if socket.draining && socket.pending == 0 {
                *socket = Socket::default();
                wire.close(pending.slot);
            }
        }
        Some(pending)
    }

    /// A socket to ask on: the only one towards this machine, else one of the pool by chance.
    fn socket(&mut self, now_us: u64, wire: &mut dyn Wire) -> Option<Slot> {
        if !self.trusted {
            self.retire(now_us, wire);
        }
        let size = if self.trusted { 1 } else { POOL_SOCKETS };
        let wanted = (self.random)() % size as u64;
        let mut usable = slots()
            .filter(|s| self.sockets.get(usize::from(*s)).is_some_and(|s| s.open && !s.draining));
        if let Some(slot) = usable.clone().nth(usize::try_from(wanted).unwrap_or(0)) {
            return Some(slot);
        }
        let free =
            slots().find(|s| self.sockets.get(usize::from(*s)).is_some_and(|socket| !socket.open));
        match free {
            Some(slot) if usable.clone().count() < size && wire.open(slot) => {
                let socket = self.sockets.get_mut(usize::from(slot))?;
                *socket = Socket { open: true, opened_us: now_us, ..Socket::default() };
                Some(slot)
            }
            _ => usable.next(),
        }
    }

    /// Sends sockets that are old or worn into retirement.
    fn retire(&mut self, now_us: u64, wire: &mut dyn Wire) {
        for (slot, socket) in slots().zip(&mut self.sockets) {
            let worn = socket.questions >= SOCKET_QUESTIONS_MAX
                || now_us.saturating_sub(socket.opened_us) >= SOCKET_AGE_US_MAX;
            if socket.open && worn {
                socket.draining = true;
                if socket.pending == 0 {
                    *socket = Socket::default();
                    wire.close(slot);
                }
            }
        }
    }

    /// Counts an answer to nothing; too many in a row on a socket mean that somebody guesses.
    fn wrong(&mut self, slot: Slot, wire: &mut dyn Wire, done: &mut Vec<Finished>) {
        self.counters.wrong += 1;
        let Some(socket) = self.sockets.get_mut(usize::from(slot)) else { return };
        socket.wrong_run = socket.wrong_run.saturating_add(1);
        if self.trusted || socket.wrong_run < WRONG_RUN_MAX {
            return;
        }
        socket.wrong_run = 0;
        socket.draining = true;
        let count = done.len();
        self.end_all(slot, wire, done, Outcome::NeedsTcp);
        self.counters.to_tcp += (done.len() - count) as u64;
    }

    fn leave_to_tcp(&mut self, id: u16, wire: &mut dyn Wire, done: &mut Vec<Finished>) {
        let Some(pending) = self.take(id, wire) else { return };
        self.counters.to_tcp += 1;
        let outcome = Outcome::NeedsTcp(pending.question);
        done.push(Finished { token: pending.token, outcome });
    }

    fn end_all(
        &mut self,
        slot: Slot,
        wire: &mut dyn Wire,
        done: &mut Vec<Finished>,
        outcome: impl Fn(Question) -> Outcome,
    ) {
        let on_it = |pending: &&Pending| pending.slot == slot;
        let mut ids: Vec<u16> = self.pending.values().filter(on_it).map(|p| p.id).collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(pending) = self.take(id, wire) {
                let token = pending.token;
                done.push(Finished { token, outcome: outcome(pending.question) });
            }
        }
        // A socket that was to drain and had nothing open closes here.
        if let Some(socket) = self.sockets.get_mut(usize::from(slot))
            && socket.open
            && socket.draining
            && socket.pending == 0
        {
            *socket = Socket::default();
            wire.close(slot);
        }
    }
}

/// The TC bit in the flags.
const TRUNCATED: u16 = 0x0200;

/// Id and flags of something that can be an answer to a query: QR set, opcode 0.
fn head(bytes: &[u8]) -> Option<(u16, u16)> {
    let head = bytes.first_chunk::<HEADER_OCTETS>()?;
    let flags = u16::from_be_bytes([head[2], head[3]]);
    (flags & 0xf800 == 0x8000).then_some((u16::from_be_bytes([head[0], head[1]]), flags))
}

fn slots() -> impl Iterator<Item = Slot> + Clone {
    (0..).take(SLOTS_MAX)
}
