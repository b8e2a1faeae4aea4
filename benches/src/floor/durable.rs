//! The floor of a durable server: the same dialogue, and no 250 to a dot before the content is on
//! stable storage, in one write for all that wait.
//!
//! *Guarantees*: a message is answered, and counts, only when the write that holds its content has
//! ended well.
//!
//! *Limits*: one write at a time; a message for which the block being filled has no room ends its
//! connection; a client that closes its side before its 250 hears none.
//!
//! *Failure*: a write that fails ends the run with its error.
//!
//! *Not here*: a header, a sum, a record of what was delivered, recovery: nobody reads what is
//! written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use memchr::memchr;

use super::end::find_end;
use super::ring::{Block, Conn, Handler, Net, Next};
use super::{BANNER, Counts, OK, State, command};
use crate::limits::{FLOOR_BLOCK_OCTETS, FLOOR_FILE_OCTETS};

#[derive(Debug)]
struct Session {
    state: State,
    /// Content that came without its end.
    content: Vec<u8>,
    /// A message waits for its write: what is answered behind it.
    held: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Durable {
    sessions: Vec<Session>,
    counts: Counts,
    stop: bool,
    failed: Option<io::Error>,
    filling: Block,
    /// Empty; none while it is being written.
    spare: Option<Block>,
    /// Whose content is in `filling`, and in the block under way.
    waiting: Vec<Conn>,
    flying: Vec<Conn>,
    offset: u64,
}

/// A zero-filled file without a name: its extents are written ones, and it ends with the process.
pub(super) fn file(folder: &Path) -> io::Result<File> {
    let told = |what: &str, error: io::Error| {
        io::Error::new(error.kind(), format!("--durable {}: {what}: {error}", folder.display()))
    };
    let path = folder.join(format!(".mxbench-floor-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&path);
    let made = made.map_err(|error| told("cannot make a file there", error))?;
    let much = format!("cannot fill {} MiB", FLOOR_FILE_OCTETS >> 20);
    let direct = fill(&made).map_err(|error| told(&much, error)).and_then(|()| {
        let open = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path);
        open.map_err(|error| told("no O_DIRECT there, choose a folder on a disk", error))
    });
    std::fs::remove_file(&path)?;
    direct
}

fn fill(file: &File) -> io::Result<()> {
    let zeros = vec![0; FLOOR_BLOCK_OCTETS];
    for at in (0..FLOOR_FILE_OCTETS).step_by(FLOOR_BLOCK_OCTETS) {
        file.write_all_at(&zeros, at as u64)?;
    }
    file.sync_all()
}

impl Durable {
    pub(super) fn new() -> Self {
        Self {
            sessions: Vec::new(),
            counts: Counts::default(),
            stop: false,
            failed: None,
            filling: Block::new(FLOOR_BLOCK_OCTETS),
            spare: Some(Block::new(FLOOR_BLOCK_OCTETS)),
            waiting: Vec::new(),
            flying: Vec::new(),
            offset: 0,
        }
    }

    pub(super) fn finish(self) -> io::Result<Counts> {
        self.failed.map_or(Ok(self.counts), Err)
    }

    fn reply(session: &mut Session, net: &mut Net, conn: Conn, said: &[u8]) {
        session.held.as_mut().unwrap_or_else(|| net.out(conn)).extend_from_slice(said);
    }

    /// The end of a content has come: its last piece. False when it does not fit.
    fn take(&mut self, conn: Conn, piece: &[u8]) -> bool {
        let session = &mut self.sessions[conn.index as usize];
        if self.filling.room() < session.content.len() + piece.len() {
            return false;
        }
        if !session.content.is_empty() {
            self.filling.put(&session.content);
            session.content.clear();
        }
        self.filling.put(piece);
        session.held.get_or_insert_default();
        self.waiting.push(conn);
        true
    }
}

impl Handler for Durable {
    fn accepted(&mut self, net: &mut Net, conn: Conn) {
        let index = conn.index as usize;
        if index >= self.sessions.len() {
            let new = || Session { state: State::Quit, content: Vec::new(), held: None };
            self.sessions.resize_with(index + 1, new);
        }
        let session = &mut self.sessions[index];
        session.state = State::Command(0);
        session.content.clear();
        session.held = None;
        self.counts.connections += 1;
        self.counts.open_most = self.counts.open_most.max(net.open());
        net.out(conn).extend_from_slice(BANNER);
    }

    fn received(&mut self, net: &mut Net, conn: Conn, mut bytes: &[u8]) {
        let index = conn.index as usize;
        while !bytes.is_empty() {
            let session = &mut self.sessions[index];
            match session.state {
                State::Command(seen) => {
                    let first = if seen == 0 { bytes[0] } else { seen };
                    let Some(at) = memchr(b'\n', bytes) else {
                        session.state = State::Command(first);
                        return;
                    };
                    bytes = &bytes[at + 1..];
                    let said;
                    (said, session.state) = command::<false>(&mut self.counts, first | 0x20);
                    Self::reply(session, net, conn, said);
                }
                State::Data(mut progress) => {
                    let end = find_end(&mut progress, bytes);
                    let piece = &bytes[..end.unwrap_or(bytes.len())];
                    self.counts.octets += piece.len() as u64;
                    if end.is_none() {
                        if session.content.len() + piece.len() > FLOOR_BLOCK_OCTETS {
                            self.counts.broken += 1;
                            net.abort(conn);
                            return;
                        }
                        session.content.extend_from_slice(piece);
                        session.state = State::Data(progress);
                        return;
                    }
                    bytes = &bytes[piece.len()..];
                    session.state = State::Command(0);
                    if !self.take(conn, piece) {
                        self.counts.broken += 1;
                        net.abort(conn);
                        return;
                    }
                }
                State::Quit | State::Handshake => break,
            }
        }
        let session = &self.sessions[index];
        if matches!(session.state, State::Quit) && session.held.is_none() {
            net.finish(conn);
        }
    }

    fn ended(&mut self, _net: &mut Net, _conn: Conn, error: i32) {
        self.counts.broken += u64::from(error != 0);
    }

    fn watched(&mut self, _net: &mut Net) {
        self.stop = true;
    }

    fn committed(&mut self, net: &mut Net, mut block: Block, written: io::Result<()>) {
        block.clear();
        self.spare = Some(block);
        if let Err(error) = written {
            self.failed = Some(error);
            self.stop = true;
            return;
        }
        for conn in self.flying.drain(..) {
            if !net.is_open(conn) {
                continue;
            }
            self.counts.messages += 1;
            let session = &mut self.sessions[conn.index as usize];
            let held = session.held.take().unwrap_or_default();
            let out = net.out(conn);
            out.extend_from_slice(OK);
            out.extend_from_slice(&held);
            if matches!(session.state, State::Quit) {
                net.finish(conn);
            }
        }
    }

    fn turn(&mut self, net: &mut Net) -> Next {
        if self.stop {
            self.counts.refused = net.refused();
            return Next::Stop;
        }
        if !self.waiting.is_empty()
            && let Some(spare) = self.spare.take()
        {
            let block = std::mem::replace(&mut self.filling, spare);
            if self.offset + FLOOR_BLOCK_OCTETS as u64 > FLOOR_FILE_OCTETS as u64 {
                self.offset = 0;
            }
            std::mem::swap(&mut self.waiting, &mut self.flying);
            self.offset += net.commit(block, self.offset);
        }
        Next::Wait
    }

    fn connected(&mut self, _net: &mut Net, _conn: Conn, _error: i32) {}

    fn drained(&mut self, _net: &mut Net, _conn: Conn) {}
}
