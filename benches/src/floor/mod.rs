//! The floor: the least any server on io_uring does for an SMTP dialogue.
//!
//! A fixed loop that parses nothing it need not: one look at the first octet of each command line,
//! one search for CRLF.CRLF, canned replies. What a real server costs above it is its own.
//!
//! *Limits*: `SETUP`.
//!
//! *Failure*: a client that breaks the grammar gets some reply or none; it serves correct clients.
//!
//! *Not here*: checks, logs, addresses, storage. Changed only by a page in `docs/decisions`.

mod durable;

pub mod end;

mod buffers;

pub mod net;

pub mod ring;

mod secure;

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;

use memchr::memchr;
use serde::Serialize;

use durable::Durable;
use end::{EndOfData, find_end};
use ring::{Conn, Handler, Net, Next, Setup};

use crate::limits::{CONNECTIONS_MAX, FLOOR_BUFFER_OCTETS, FLOOR_BUFFERS, FLOOR_ENTRIES};
use crate::tls::Acceptor;
use secure::Secure;

const SETUP: Setup = Setup {
    entries: FLOOR_ENTRIES,
    buffers: FLOOR_BUFFERS,
    buffer_octets: FLOOR_BUFFER_OCTETS,
    connections_max: CONNECTIONS_MAX,
};

const BANNER: &[u8] = b"220 floor ESMTP\r\n";
const EHLO: &[u8] = b"250-floor\r\n250-PIPELINING\r\n250-SIZE 1073741824\r\n250 8BITMIME\r\n";
const EHLO_STARTTLS: &[u8] =
    b"250-floor\r\n250-PIPELINING\r\n250-SIZE 1073741824\r\n250-STARTTLS\r\n250 8BITMIME\r\n";
const READY: &[u8] = b"220 2.0.0 go ahead\r\n";
const OK: &[u8] = b"250 2.0.0 OK\r\n";
const DATA: &[u8] = b"354 go on\r\n";
const BYE: &[u8] = b"221 2.0.0 bye\r\n";
const UNKNOWN: &[u8] = b"502 5.5.1 no\r\n";

/// What a floor run has served.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Messages answered 250.
    pub messages: u64,
    /// Octets received after DATA, dots and framing included.
    pub octets: u64,
    /// RCPT (and RSET) commands.
    pub recipients: u64,
    /// Connections that ended with an error.
    pub broken: u64,
    /// Connections closed at once: every slot taken.
    pub refused: u64,
    /// Connections open at the same time, at most.
    pub open_most: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between or inside command lines; the first octet of an unfinished line, else 0.
    Command(u8),
    Data(EndOfData),
    Quit,
    /// STARTTLS was said: what comes next are records.
    Handshake,
}

#[derive(Debug)]
struct Floor {
    states: Vec<State>,
    counts: Counts,
    stop: bool,
}

/// Serves until `stop` becomes readable.
pub fn serve(listener: TcpListener, stop: OwnedFd) -> io::Result<Counts> {
    let mut floor = Floor { states: Vec::new(), counts: Counts::default(), stop: false };
    ring::run(&SETUP, &mut floor, |net, _| {
        net.listen(listener);
        net.watch(stop);
        Ok(())
    })?;
    Ok(floor.counts)
}

/// The same dialogue with STARTTLS on offer, until `stop` becomes readable.
pub fn serve_tls(listener: TcpListener, stop: OwnedFd) -> io::Result<Counts> {
    let mut floor = Secure::new(Acceptor::new("floor.example")?);
    ring::run(&SETUP, &mut floor, |net, _| {
        net.listen(listener);
        net.watch(stop);
        Ok(())
    })?;
    Ok(floor.counts)
}

/// A file for `serve_durable`: zero-filled, without a name, on the device below the folder.
pub fn durable_file(folder: &Path) -> io::Result<File> {
    durable::file(folder)
}

/// The same dialogue with each content on stable storage before its 250, in a `durable_file`,
/// until `stop` becomes readable.
pub fn serve_durable(listener: TcpListener, stop: OwnedFd, file: File) -> io::Result<Counts> {
    let mut floor = Durable::new();
    ring::run(&SETUP, &mut floor, |net, _| {
        net.commit_to(file);
        net.listen(listener);
        net.watch(stop);
        Ok(())
    })?;
    floor.finish()
}

impl Handler for Floor {
    fn accepted(&mut self, net: &mut Net, conn: Conn) {
        let index = conn.index as usize;
        if index >= self.states.len() {
            self.states.resize(index + 1, State::Quit);
        }
        self.states[index] = State::Command(0);
        self.counts.connections += 1;
        self.counts.open_most = self.counts.open_most.max(net.open());
        net.out(conn).extend_from_slice(BANNER);
    }

    fn received(&mut self, net: &mut Net, conn: Conn, bytes: &[u8]) {
        let index = conn.index as usize;
        let reply = |reply: &[u8]| net.out(conn).extend_from_slice(reply);
        let state = listen::<false>(&mut self.counts, self.states[index], bytes, reply);
        if matches!(state, State::Quit) {
            net.finish(conn);
        }
        self.states[index] = state;
    }

    fn ended(&mut self, _net: &mut Net, _conn: Conn, error: i32) {
        self.counts.broken += u64::from(error != 0);
    }

    fn watched(&mut self, _net: &mut Net) {
        self.stop = true;
    }

    fn turn(&mut self, net: &mut Net) -> Next {
        if self.stop {
            self.counts.refused = net.refused();
            Next::Stop
        } else {
            Next::Wait
        }
    }

    fn connected(&mut self, _net: &mut Net, _conn: Conn, _error: i32) {}

    fn drained(&mut self, _net: &mut Net, _conn: Conn) {}
}

/// The loop's dialogue: octets of a client in, canned replies out; the state after them.
#[inline]
fn listen<const STARTTLS: bool>(
    counts: &mut Counts,
    mut state: State,
    mut bytes: &[u8],
    mut reply: impl FnMut(&[u8]),
) -> State {
    while !bytes.is_empty() {
        match state {
            State::Command(seen) => {
                let first = if seen == 0 { bytes[0] } else { seen };
                let Some(at) = memchr(b'\n', bytes) else {
                    return State::Command(first);
                };
                bytes = &bytes[at + 1..];
                let said;
                (said, state) = command::<STARTTLS>(counts, first | 0x20);
                reply(said);
            }
            State::Data(mut progress) => match find_end(&mut progress, bytes) {
                Some(at) => {
                    counts.octets += at as u64;
                    counts.messages += 1;
                    reply(OK);
                    bytes = &bytes[at..];
                    state = State::Command(0);
                }
                None => {
                    counts.octets += bytes.len() as u64;
                    return State::Data(progress);
                }
            },
            // What was sent along with STARTTLS must not count (RFC 3207 4.2).
            State::Quit | State::Handshake => return state,
        }
    }
    state
}

#[inline]
fn command<const STARTTLS: bool>(counts: &mut Counts, first: u8) -> (&'static [u8], State) {
    match first {
        b'm' | b'h' | b'n' | b'v' => (OK, State::Command(0)),
        b'r' => {
            counts.recipients += 1;
            (OK, State::Command(0))
        }
        b'd' => (DATA, State::Data(EndOfData::start())),
        b'e' if STARTTLS => (EHLO_STARTTLS, State::Command(0)),
        b'e' => (EHLO, State::Command(0)),
        b'q' => (BYE, State::Quit),
        b's' if STARTTLS => (READY, State::Handshake),
        _ => (UNKNOWN, State::Command(0)),
    }
}
