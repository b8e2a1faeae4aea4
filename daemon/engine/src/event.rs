//! What a core tells its handler.

use crate::disk_buffer::DiskBuffer;
use crate::handle::{Conn, Udp};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// One thing that happened. Borrowed bytes are valid during the call only.
///
/// The life of an accepted connection: `Accepted`, any number of `Received`, `Drained` and
/// `ConnTimer`, at most one `Eof`, at most one `Broken`, `Closed`. Of one that was made:
/// `Connected` first, and after a failed one only `Closed`. After `close`, `finish` or `abort`
/// only `Closed` comes.
#[derive(Debug)]
pub enum Event<'a, M> {
    /// A connection came in, or was adopted.
    Accepted {
        /// The new connection.
        conn: Conn,
        /// The tag given to `listen` or `adopt`.
        listener: u32,
        /// The other end.
        peer: SocketAddr,
        /// This end.
        local: SocketAddr,
    },
    /// A connection came in and no slot is free. Post the descriptor to a core that has one
    /// (`Core::adopt`), or turn it away (`Core::refuse`).
    Overflow {
        /// The connected socket.
        fd: OwnedFd,
        /// The tag given to `listen`.
        listener: u32,
        /// The other end.
        peer: SocketAddr,
    },
    /// An attempt to connect ended. After an error, `Closed` follows by itself.
    Connected {
        /// The connection that `connect` returned.
        conn: Conn,
        /// `ETIMEDOUT` if its deadline passed.
        result: io::Result<()>,
    },
    /// Bytes came in. They may be changed in place (decryption); what the handler does not use
    /// up it keeps by itself, or gives back with `Core::pause_with`.
    Received {
        /// The connection.
        conn: Conn,
        /// At least one byte, at most one receive buffer.
        bytes: &'a mut [u8],
    },
    /// The peer will send no more. Sending is still possible; the handler must call `close`.
    Eof {
        /// The connection.
        conn: Conn,
    },
    /// The connection failed; output still queued is lost. `Closed` follows by itself.
    Broken {
        /// The connection.
        conn: Conn,
        /// What the kernel said; `ENOBUFS` if more bytes arrived for paused connections than
        /// the configuration lets the core hold.
        error: io::Error,
    },
    /// All bytes given to `send` were handed to the kernel's socket (asked for by
    /// `want_drained`).
    Drained {
        /// The connection.
        conn: Conn,
    },
    /// The last event of a connection: its slot is free from now on.
    Closed {
        /// The connection.
        conn: Conn,
    },
    /// The deadline given to `set_timer` passed.
    Timer {
        /// As given.
        token: u64,
    },
    /// The deadline given to `set_conn_timer` passed.
    ConnTimer {
        /// The connection.
        conn: Conn,
    },
    /// A disk request ended.
    DiskDone {
        /// As given.
        token: u64,
        /// Bytes read or written (may be fewer than asked for), or the error.
        result: io::Result<u32>,
        /// The buffer; `None` after a sync, or while clones of written bytes exist.
        buffer: Option<DiskBuffer>,
    },
    /// A datagram came in.
    Datagram {
        /// The socket.
        socket: Udp,
        /// Its bytes, perhaps none; cut off at `limits::DATAGRAM_BYTES_MAX`.
        bytes: &'a mut [u8],
    },
    /// The socket has an error (`ECONNREFUSED`: nobody listens there); it stays usable.
    DatagramFailed {
        /// The socket.
        socket: Udp,
        /// What the kernel said.
        error: io::Error,
    },
    /// A listener ended: by `close_listener`, or because accepting failed for good.
    ListenerClosed {
        /// The tag given to `listen`.
        listener: u32,
        /// Why, unless it was asked for.
        error: Option<io::Error>,
    },
    /// A message from another thread.
    Mail(M),
}
