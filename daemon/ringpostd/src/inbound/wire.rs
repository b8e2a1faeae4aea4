//! The connection under a session: clear, or TLS.

use std::net::IpAddr;

use engine::{Conn, Core};

use crate::desk::Desk;
use crate::post::ToCore;
use crate::tls::Session;

/// How octets go over the connection.
#[derive(Debug)]
pub(super) enum Wire {
    /// As they are.
    Clear,
    /// In records.
    Tls(Box<Session>),
}

impl Wire {
    /// From now on records. Without certificates STARTTLS is not offered, so this is not asked.
    pub(super) fn begin(&mut self, desk: &Desk, local: IpAddr) {
        if let Some(store) = desk.tls()
            && let Ok(session) = Session::server(store.for_local(local))
        {
            *self = Self::Tls(Box::new(session));
        }
    }

    /// Sends plaintext. What a broken connection does not take is told by the engine.
    pub(super) fn send(&mut self, core: &mut Core<ToCore>, conn: Conn, plain: &[u8]) {
        if plain.is_empty() {
            return;
        }
        match self {
            Self::Tls(session) if session.is_established() => {
                let mut sealed = Vec::with_capacity(plain.len() + 64);
                if session.send(plain, &mut sealed).is_ok() {
                    let _ = core.send(conn, &sealed);
                }
            }
            // A reply in the middle of a handshake would be taken for a record.
            Self::Tls(_) => {}
            Self::Clear => {
                let _ = core.send(conn, plain);
            }
        }
    }

    /// Says goodbye where the protocol has a word for it.
    pub(super) fn close(&mut self, core: &mut Core<ToCore>, conn: Conn) {
        if let Self::Tls(session) = self {
            let mut sealed = Vec::new();
            session.close(&mut sealed);
            if !sealed.is_empty() {
                let _ = core.send(conn, &sealed);
            }
        }
    }
}
