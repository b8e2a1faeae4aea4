//! The turns of rustls's unbuffered machine, alike for both sides.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};

use super::error::TlsError;

/// Both kinds of rustls connection, as far as they are alike.
pub(super) trait Unbuffered {
    type Data;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn has_queued(&self) -> bool;
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
    fn has_queued(&self) -> bool {
        self.wants_write()
    }
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
    fn has_queued(&self) -> bool {
        self.wants_write()
    }
}

#[derive(Debug, Default)]
pub(super) struct Driven {
    /// Octets of the input that are used up.
    pub(super) used: usize,
    pub(super) may_write: bool,
    pub(super) peer_closed: bool,
}

/// Runs rustls until it wants more input than there is.
pub(super) fn drive<C: Unbuffered>(
    connection: &mut C,
    bytes: &mut [u8],
    plaintext: &mut dyn FnMut(&[u8]),
    wire_out: &mut Vec<u8>,
) -> Result<Driven, rustls::Error> {
    let mut driven = Driven::default();
    loop {
        let status = connection.process(&mut bytes[driven.used..]);
        let mut discard = status.discard;
        let mut done = false;
        match status.state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    plaintext(record.payload);
                }
            }
            ConnectionState::EncodeTlsData(mut data) => encode(&mut data, wire_out),
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => driven.peer_closed = true,
            ConnectionState::WriteTraffic(_) => {
                driven.may_write = true;
                done = true;
            }
            // Early data is never offered; a state unknown to us waits for more input like the
            // rest.
            _ => done = true,
        }
        driven.used += discard;
        if done {
            return Ok(driven);
        }
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, wire_out: &mut Vec<u8>) {
    let start = wire_out.len();
    let needed = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        _ => return,
    };
    wire_out.resize(start + needed, 0);
    let written = data.encode(&mut wire_out[start..]).unwrap_or(0);
    wire_out.truncate(start + written);
}

/// Writes what is left after an error: the alert.
/// While something is queued rustls looks at nothing else, so no input is needed (nor wanted: it
/// may remember places in the input that it failed on).
pub(super) fn write_queued<C: Unbuffered>(connection: &mut C, wire_out: &mut Vec<u8>) {
    while connection.has_queued() {
        match connection.process(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, wire_out),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while traffic.next_record().is_some() {}
            }
            _ => return,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Write<'a> {
    Data(&'a [u8]),
    CloseNotify,
}

/// Seals at the end of `wire_out`, which is given `room` octets to begin with.
/// `held` is given along because rustls keeps places in it while a handshake message is incomplete.
pub(super) fn write<C: Unbuffered>(
    connection: &mut C,
    held: &mut [u8],
    what: Write<'_>,
    room: usize,
    wire_out: &mut Vec<u8>,
) -> Result<(), TlsError> {
    let mut room = room;
    loop {
        let mut traffic = match connection.process(held).state.map_err(TlsError::Protocol)? {
            ConnectionState::WriteTraffic(traffic) => traffic,
            ConnectionState::EncodeTlsData(mut data) => {
                encode(&mut data, wire_out);
                continue;
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                continue;
            }
            _ => return Err(TlsError::NotReady),
        };
        let start = wire_out.len();
        wire_out.resize(start + room, 0);
        let result = match what {
            Write::Data(plaintext) => traffic.encrypt(plaintext, &mut wire_out[start..]),
            Write::CloseNotify => traffic.queue_close_notify(&mut wire_out[start..]),
        };
        match result {
            Ok(written) => {
                wire_out.truncate(start + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                wire_out.truncate(start);
                room = size.required_size;
            }
            Err(_) => {
                wire_out.truncate(start);
                return Err(TlsError::NotReady);
            }
        }
    }
}
