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

pub mod end;

mod buffers;

pub mod net;

pub mod ring;

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use memchr::memchr;
use serde::Serialize;

use end::{EndOfData, find_end};
use ring::{Conn, Handler, Net, Next, Setup};

use crate::limits::{CONNECTIONS_MAX, FLOOR_BUFFER_OCTETS, FLOOR_BUFFERS, FLOOR_ENTRIES};

const SETUP: Setup = Setup {
    entries: FLOOR_ENTRIES,
    buffers: FLOOR_BUFFERS,
    buffer_octets: FLOOR_BUFFER_OCTETS,
    connections_max: CONNECTIONS_MAX,
};

const BANNER: &[u8] = b"220 floor ESMTP\r\n";
const EHLO: &[u8] = b"250-floor\r\n250-PIPELINING\r\n250-SIZE 1073741824\r\n250 8BITMIME\r\n";
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

    fn received(&mut self, net: &mut Net, conn: Conn, mut bytes: &[u8]) {
        let mut state = self.states[conn.index as usize];
        while !bytes.is_empty() {
            match state {
                State::Command(seen) => {
                    let first = if seen == 0 { bytes[0] } else { seen };
                    let Some(at) = memchr(b'\n', bytes) else {
                        state = State::Command(first);
                        break;
                    };
                    bytes = &bytes[at + 1..];
                    state = self.command(net, conn, first | 0x20);
                }
                State::Data(mut progress) => match find_end(&mut progress, bytes) {
                    Some(at) => {
                        self.counts.octets += at as u64;
                        self.counts.messages += 1;
                        net.out(conn).extend_from_slice(OK);
                        bytes = &bytes[at..];
                        state = State::Command(0);
                    }
                    None => {
                        self.counts.octets += bytes.len() as u64;
                        state = State::Data(progress);
                        break;
                    }
                },
                State::Quit => break,
            }
        }
        self.states[conn.index as usize] = state;
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

impl Floor {
    #[inline]
    fn command(&mut self, net: &mut Net, conn: Conn, first: u8) -> State {
        let (reply, state) = match first {
            b'm' | b'h' | b'n' | b'v' => (OK, State::Command(0)),
            b'r' => {
                self.counts.recipients += 1;
                (OK, State::Command(0))
            }
            b'd' => (DATA, State::Data(EndOfData::start())),
            b'e' => (EHLO, State::Command(0)),
            b'q' => {
                net.finish(conn);
                (BYE, State::Quit)
            }
            _ => (UNKNOWN, State::Command(0)),
        };
        net.out(conn).extend_from_slice(reply);
        state
    }
}
