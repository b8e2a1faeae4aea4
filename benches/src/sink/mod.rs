//! The backend: takes mail and counts or keeps it, with faults on demand.
//!
//! *Guarantees*: a message answered 250 is counted and, with a folder, in it; one whose reply is
//! lost on purpose as well.
//!
//! *Failure*: a folder that cannot be written answers 451.
//!
//! *Not here*: speed beyond one core; TLS from the first octet (STARTTLS is there).

pub mod faults;

mod greylist;

pub mod ledger;

pub mod options;

pub mod session;

mod maildir;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::floor::ring::{self, Conn, Handler, Net, Next, Setup};
use crate::limits::{CLIENT_ENTRIES, CONNECTIONS_MAX, SINK_BUFFER_OCTETS, SINK_BUFFERS};
use crate::system;
use crate::tls::{self, Acceptor};
use faults::Faults;
use greylist::Greylist;
use ledger::{Account, Ledger, message_id, read_ids};
use maildir::Maildir;
use options::Options;
use session::{Message, Session, World};

const SETUP: Setup = Setup {
    entries: CLIENT_ENTRIES,
    buffers: SINK_BUFFERS,
    buffer_octets: SINK_BUFFER_OCTETS,
    connections_max: CONNECTIONS_MAX,
};

/// What a sink has taken.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open at the same time, at most.
    pub open_most: u32,
    /// Messages kept or counted.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Their octets.
    pub octets: u64,
    /// Ids lost, doubled and so on.
    pub account: Account,
}

/// Takes mail until `stop` becomes readable.
pub fn serve(options: &Options, listener: TcpListener, stop: OwnedFd) -> io::Result<Taken> {
    let maildir = options.maildir.as_deref().map(Maildir::open).transpose()?;
    let mut sink = Sink {
        options,
        faults: Faults::new(options.faults.clone(), options.seed),
        greylist: Greylist::new(options.greylist_ms),
        sessions: Vec::new(),
        acceptor: options.starttls.then(|| Acceptor::new(&options.name)).transpose()?,
        secure: Vec::new(),
        said: Vec::new(),
        timers: BinaryHeap::new(),
        store: Store {
            maildir,
            ledger: Ledger::default(),
            taken: Taken::default(),
            count: options.count.clone(),
        },
        started: Instant::now(),
        stalled: false,
        stop: false,
    };
    ring::run(&SETUP, &mut sink, |net, _| {
        net.listen(listener);
        net.watch(stop);
        Ok(())
    })?;
    let acked = options.check.as_deref().map(read_ids).transpose()?;
    let mut taken = sink.store.taken;
    taken.account = sink.store.ledger.account(acked.as_ref());
    Ok(taken)
}

struct Store {
    maildir: Option<Maildir>,
    ledger: Ledger,
    taken: Taken,
    count: Option<Arc<AtomicU64>>,
}

impl Store {
    fn keep(&mut self, message: &Message, verbose: bool) -> bool {
        if let Some(maildir) = &mut self.maildir
            && let Err(error) = maildir.keep(message)
        {
            eprintln!("mxbench sink: Maildir: {error}");
            return false;
        }
        self.taken.messages += 1;
        self.taken.recipients += message.recipients.len() as u64;
        self.taken.octets += message.content.len() as u64;
        let id = message_id(&message.content);
        if verbose {
            // A reader that has gone costs no mail.
            let _ = system::say(&format!(
                "message {}: from <{}> to {} recipients, {} octets, id {}",
                self.taken.messages,
                message.from.escape_ascii(),
                message.recipients.len(),
                message.content.len(),
                id.as_deref().unwrap_or("-"),
            ));
        }
        self.ledger.note(id, &message.recipients);
        if let Some(count) = &self.count {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        true
    }
}

struct Sink<'a> {
    options: &'a Options,
    faults: Faults,
    greylist: Greylist,
    sessions: Vec<Option<Session>>,
    acceptor: Option<Acceptor>,
    /// By slot: TLS of the sessions that have it.
    secure: Vec<Option<Box<tls::Session>>>,
    said: Vec<u8>,
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    store: Store,
    started: Instant,
    stalled: bool,
    stop: bool,
}

impl Sink<'_> {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Lets a session act, then sends what it said, arms its timer or closes.
    fn with(
        &mut self,
        net: &mut Net,
        conn: Conn,
        act: impl FnOnce(&mut Option<Session>, &mut World<'_>, &mut Vec<u8>),
    ) {
        let now_ms = self.now_ms();
        let index = conn.index as usize;
        let (store, verbose) = (&mut self.store, self.options.verbose);
        let mut keep = |message: Message| store.keep(&message, verbose);
        let mut world = World {
            options: self.options,
            faults: &mut self.faults,
            greylist: &mut self.greylist,
            now_ms,
            keep: &mut keep,
        };
        let slot = &mut self.sessions[index];
        let secure = &mut self.secure[index];
        let mut well = true;
        if let Some(tls) = secure {
            self.said.clear();
            act(slot, &mut world, &mut self.said);
            if !self.said.is_empty() {
                well = tls.say(&self.said, net.out(conn)).is_ok();
            }
        } else {
            act(slot, &mut world, net.out(conn));
        }
        let Some(session) = slot else { return };
        if let Some(acceptor) = &self.acceptor
            && session.begin_tls()
        {
            *secure = acceptor.session().ok();
            well = secure.is_some();
        }
        if !well {
            *slot = None;
            net.finish(conn);
        } else if let Some(due_ms) = session.due_ms() {
            self.timers.push(Reverse((due_ms, index)));
            net.pause(conn);
        } else if session.closed() {
            *slot = None;
            if let Some(mut tls) = secure.take() {
                // A session whose keys are used up cannot say goodbye: the FIN has to do.
                let _ = tls.close(net.out(conn));
            }
            net.finish(conn);
        } else {
            net.resume(conn);
        }
    }
}

impl Handler for Sink<'_> {
    fn accepted(&mut self, net: &mut Net, conn: Conn) {
        let index = conn.index as usize;
        if index >= self.sessions.len() {
            self.sessions.resize_with(index + 1, || None);
            self.secure.resize_with(index + 1, || None);
        }
        self.secure[index] = None;
        self.store.taken.connections += 1;
        self.store.taken.open_most = self.store.taken.open_most.max(net.open());
        self.with(net, conn, |slot, world, out| *slot = Some(Session::new(world, out)));
    }

    fn received(&mut self, net: &mut Net, conn: Conn, bytes: &[u8]) {
        let index = conn.index as usize;
        let mut plain = Vec::new();
        let mut bytes = bytes;
        if let Some(tls) = &mut self.secure[index] {
            let mut hear = |piece: &[u8]| plain.extend_from_slice(piece);
            if tls.hear(bytes, &mut hear, net.out(conn)).is_err() {
                (self.sessions[index], self.secure[index]) = (None, None);
                net.finish(conn);
                return;
            }
            bytes = &plain;
        }
        self.with(net, conn, |slot, world, out| {
            if let Some(session) = slot {
                session.received(world, out, bytes);
            }
        });
    }

    fn ended(&mut self, _net: &mut Net, conn: Conn, _error: i32) {
        let index = conn.index as usize;
        (self.sessions[index], self.secure[index]) = (None, None);
    }

    fn watched(&mut self, _net: &mut Net) {
        self.stop = true;
    }

    fn turn(&mut self, net: &mut Net) -> Next {
        if self.stop {
            return Next::Stop;
        }
        let now_ms = self.now_ms();
        if let Some((at_ms, for_ms)) = self.options.stall_ms
            && !self.stalled
        {
            if now_ms >= at_ms {
                self.stalled = true;
                std::thread::sleep(Duration::from_millis(for_ms));
            } else if self.timers.is_empty() {
                return Next::WaitFor(Duration::from_millis(at_ms - now_ms));
            }
        }
        while let Some(&Reverse((due_ms, index))) = self.timers.peek() {
            if due_ms > now_ms {
                return Next::WaitFor(Duration::from_millis(due_ms - now_ms));
            }
            self.timers.pop();
            let due = self.sessions[index].as_ref().and_then(Session::due_ms);
            if due.is_some_and(|due_ms| due_ms <= now_ms)
                && let Some(conn) = net.conn(index)
            {
                self.with(net, conn, |slot, world, out| {
                    if let Some(session) = slot {
                        session.go_on(world, out);
                    }
                });
            }
        }
        Next::Wait
    }

    fn connected(&mut self, _net: &mut Net, _conn: Conn, _error: i32) {}

    fn drained(&mut self, _net: &mut Net, _conn: Conn) {}
}
