//! The floor with STARTTLS: the same dialogue inside records.
//!
//! What rustls does is all that is added; the dialogue is the fixed loop's own.

use super::ring::{Conn, Handler, Net, Next};
use super::{BANNER, Counts, State, listen};
use crate::tls::{Acceptor, Session};

pub(super) struct Secure {
    states: Vec<State>,
    sessions: Vec<Option<Box<Session>>>,
    said: Vec<u8>,
    acceptor: Acceptor,
    pub(super) counts: Counts,
    stop: bool,
}

impl Secure {
    pub(super) fn new(acceptor: Acceptor) -> Self {
        Self {
            states: Vec::new(),
            sessions: Vec::new(),
            said: Vec::new(),
            acceptor,
            counts: Counts::default(),
            stop: false,
        }
    }

    fn broken(&mut self, net: &mut Net, conn: Conn) {
        self.counts.broken += 1;
        self.states[conn.index as usize] = State::Quit;
        net.finish(conn);
    }
}

impl Handler for Secure {
    fn accepted(&mut self, net: &mut Net, conn: Conn) {
        let index = conn.index as usize;
        if index >= self.states.len() {
            self.states.resize(index + 1, State::Quit);
            self.sessions.resize_with(index + 1, || None);
        }
        self.states[index] = State::Command(0);
        self.sessions[index] = None;
        self.counts.connections += 1;
        self.counts.open_most = self.counts.open_most.max(net.open());
        net.out(conn).extend_from_slice(BANNER);
    }

    fn received(&mut self, net: &mut Net, conn: Conn, bytes: &[u8]) {
        let index = conn.index as usize;
        let mut state = self.states[index];
        let counts = &mut self.counts;
        if let Some(session) = &mut self.sessions[index] {
            let said = &mut self.said;
            said.clear();
            let mut plain = |plain: &[u8]| {
                state =
                    listen::<false>(counts, state, plain, |reply| said.extend_from_slice(reply));
            };
            let mut done = session.hear(bytes, &mut plain, net.out(conn));
            if done.is_ok() && !self.said.is_empty() {
                done = session.say(&self.said, net.out(conn));
            }
            if done.is_ok() && matches!(state, State::Quit) {
                done = session.close(net.out(conn));
            }
            if done.is_err() {
                self.broken(net, conn);
                return;
            }
        } else {
            let out = net.out(conn);
            state = listen::<true>(counts, state, bytes, |reply| out.extend_from_slice(reply));
            if matches!(state, State::Handshake) {
                state = State::Command(0);
                match self.acceptor.session() {
                    Ok(session) => self.sessions[index] = Some(session),
                    Err(_) => {
                        self.broken(net, conn);
                        return;
                    }
                }
            }
        }
        if matches!(state, State::Quit) {
            net.finish(conn);
        }
        self.states[index] = state;
    }

    fn ended(&mut self, _net: &mut Net, conn: Conn, error: i32) {
        self.sessions[conn.index as usize] = None;
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
