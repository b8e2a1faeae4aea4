//! The load generator: sessions of an SMTP client on one ring.
//!
//! *Guarantees*: every reply is checked; a message counts as acknowledged only by the 250 to its
//! own final dot; in open loop times run from the intended start, so a stall of the server is seen
//! by every message that was due in it.
//!
//! *Failure*: a connection that fails is counted and opened anew; the run ends early only after
//! `Options::failures_max` of them.
//!
//! *Not here*: TLS. Its place is between `Source::send` and the ring on the way out, and between
//! the ring and `Source::replies` on the way in; nothing else sees octets of the wire.

pub mod mail;
pub mod options;
pub mod report;
mod session;

mod schedule;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use nix::time::{ClockId, clock_gettime};

use crate::floor::ring::{self, Conn, Handler, Net, Next, Setup};
use crate::limits::{
    CLIENT_ENTRIES, CONNECTIONS_MAX, RECONNECT_WAIT_MS, SOURCE_BUFFER_OCTETS, SOURCE_BUFFERS,
    SOURCE_PIECE_OCTETS, SOURCE_TICK_MS,
};
use mail::Mail;
use options::{Options, Pace};
use report::{Phase, Record, Summary};
use session::{Session, Step};

const SETUP: Setup = Setup {
    entries: CLIENT_ENTRIES,
    buffers: SOURCE_BUFFERS,
    buffer_octets: SOURCE_BUFFER_OCTETS,
    connections_max: CONNECTIONS_MAX,
};

const TICK_NS: u64 = SOURCE_TICK_MS * 1_000_000;

/// Runs a source until its end or until `stop` is readable; `held` is called once when all idle
/// sessions stand.
pub fn run(options: Options, stop: OwnedFd, held: &mut dyn FnMut(u64)) -> io::Result<Summary> {
    let mut source = Source::new(options, held)?;
    let cpu = process_cpu()?;
    source.started = Instant::now();
    ring::run(&SETUP, &mut source, |net, _| {
        net.watch(stop);
        Ok(())
    })?;
    let elapsed = source.ended_at.unwrap_or_else(|| source.started.elapsed());
    if let Some(file) = &mut source.acked {
        file.flush()?;
    }
    let mut summary = source.record.summary(elapsed, process_cpu()?.saturating_sub(cpu));
    summary.idle_open = source.held_count;
    Ok(summary)
}

fn process_cpu() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

struct Source<'a> {
    options: Options,
    held: &'a mut dyn FnMut(u64),
    held_count: u64,
    started: Instant,
    ended_at: Option<Duration>,
    sessions: Vec<Session>,
    record: Record,
    mail: Mail,
    run: u32,
    acked: Option<BufWriter<File>>,
    /// Messages begun, in closed loop, or due, in open loop.
    begun: u64,
    /// Open loop: intended starts of messages that wait for a session.
    waiting: VecDeque<u64>,
    resting: Vec<Conn>,
    /// Connections begun and not yet ended, and those of them that are not resting or at work.
    live: u32,
    connecting: u32,
    connected_ever: u64,
    stopping: bool,
    reconnect_at: u64,
    tick_at: u64,
    progress_at: u64,
    progress_acked: u64,
    next_address: u32,
    hello: Vec<u8>,
    mail_command: Vec<u8>,
    rcpt_commands: Vec<Vec<u8>>,
    envelope: Vec<u8>,
}

impl<'a> Source<'a> {
    fn new(options: Options, held: &'a mut dyn FnMut(u64)) -> io::Result<Self> {
        let acked = options.acked.as_ref().map(File::create).transpose()?.map(BufWriter::new);
        let mail_command = format!("MAIL FROM:<{}>\r\n", options.from).into_bytes();
        let rcpt_commands: Vec<Vec<u8>> = (0..options.recipients)
            .map(|at| options.to.replace('%', &at.to_string()))
            .map(|to| format!("RCPT TO:<{to}>\r\n").into_bytes())
            .collect();
        let mut envelope = mail_command.clone();
        envelope.extend(rcpt_commands.iter().flatten());
        envelope.extend_from_slice(b"DATA\r\n");
        let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let run = since_epoch.subsec_nanos() ^ std::process::id().rotate_left(16);
        Ok(Self {
            held,
            held_count: 0,
            started: Instant::now(),
            ended_at: None,
            sessions: Vec::new(),
            record: Record::new(),
            mail: Mail::new(options.size, options.seed),
            run,
            acked,
            begun: 0,
            waiting: VecDeque::new(),
            resting: Vec::new(),
            live: 0,
            connecting: 0,
            connected_ever: 0,
            stopping: false,
            reconnect_at: 0,
            tick_at: TICK_NS,
            progress_at: 1_000_000_000,
            progress_acked: 0,
            next_address: 0,
            hello: format!("EHLO {}\r\n", options.helo).into_bytes(),
            mail_command,
            rcpt_commands,
            envelope,
            options,
        })
    }

    /// Nanoseconds since the start of the run.
    #[inline]
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn session(&mut self, conn: Conn) -> &mut Session {
        &mut self.sessions[conn.index as usize]
    }

    /// All a session says leaves here.
    #[inline]
    fn send(sessions: &mut [Session], net: &mut Net, conn: Conn, bytes: &[u8]) {
        match &mut sessions[conn.index as usize].slow {
            Some(trickle) => trickle.extend_from_slice(bytes),
            None => net.out(conn).extend_from_slice(bytes),
        }
    }

    /// Messages may still begin.
    fn more(&self, now: u64) -> bool {
        !self.stopping
            && match self.options.pace {
                Pace::Total(total) => self.begun < total,
                Pace::For(duration) => u128::from(now) < duration.as_nanos(),
                Pace::Open { duration, .. } => {
                    u128::from(now) < duration.as_nanos() || !self.waiting.is_empty()
                }
                Pace::Idle(duration) => u128::from(now) < duration.as_nanos(),
            }
    }

    /// Opens one connection.
    fn open(&mut self, net: &mut Net, now: u64) {
        let conn = match self.socket() {
            Ok(socket) => net.connect(socket, self.options.target),
            Err(error) => {
                self.failed(now, format!("socket: {error}"));
                return;
            }
        };
        let Some(conn) = conn else {
            self.failed(now, "no free slot".to_owned());
            return;
        };
        let index = conn.index as usize;
        if index >= self.sessions.len() {
            self.sessions.resize_with(index + 1, Session::new);
        }
        let slow = self.options.slow.is_some_and(|(sessions, _)| conn.index < sessions);
        self.sessions[index].begin(now, slow);
        self.live += 1;
        self.connecting += 1;
    }

    fn socket(&mut self) -> io::Result<OwnedFd> {
        let family =
            if self.options.target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        if self.options.source_addresses > 1 && self.options.target.is_ipv4() {
            let number = self.next_address % self.options.source_addresses;
            self.next_address = self.next_address.wrapping_add(1);
            let address = Ipv4Addr::from(0x7f00_0101_u32 + number);
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            let address = SocketAddr::new(IpAddr::V4(address), 0);
            bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        }
        Ok(socket)
    }

    fn failed(&mut self, now: u64, what: String) {
        self.record.failures += 1;
        self.record.note(what);
        self.reconnect_at = now + RECONNECT_WAIT_MS * 1_000_000;
        if self.record.failures >= self.options.failures_max {
            self.stopping = true;
        }
    }

    /// Ends a session in mid-dialogue.
    fn drop_session(&mut self, net: &mut Net, conn: Conn, now: u64, why: &str) {
        let step = self.session(conn).step;
        if step == Step::Closed {
            return;
        }
        self.left(step);
        self.session(conn).step = Step::Closed;
        self.failed(now, format!("{why} at {}", step.name()));
        net.abort(conn);
    }

    /// A connection is over.
    fn left(&mut self, step: Step) {
        self.live -= 1;
        self.connecting -= u32::from(matches!(step, Step::Connect | Step::Banner | Step::Ehlo));
        self.record.unknown += u64::from(step.in_message());
    }

    /// Begins the next message on a session, rests, or says QUIT.
    fn next_message(&mut self, net: &mut Net, conn: Conn, now: u64) {
        let spent = self.session(conn).messages >= self.options.messages_per_connection;
        if let Pace::Idle(_) = self.options.pace
            && !self.stopping
        {
            self.session(conn).step = Step::Rest;
            return;
        }
        if spent || !self.more(now) {
            self.quit(net, conn, now);
            return;
        }
        let due = if let Pace::Open { .. } = self.options.pace {
            let Some(due) = self.waiting.pop_front() else {
                self.session(conn).step = Step::Rest;
                self.resting.push(conn);
                return;
            };
            due
        } else {
            self.begun += 1;
            now
        };
        let number = self.begun;
        if let Pace::Open { .. } = self.options.pace {
            self.begun += 1;
        }
        let template = self.mail.choose();
        let session = &mut self.sessions[conn.index as usize];
        session.messages += 1;
        session.number = number;
        session.template = template;
        session.message_since = due;
        session.envelope_since = now;
        session.since = now;
        session.given = 0;
        session.accepted = 0;
        session.refused = false;
        session.step = Step::Mail;
        let all = if session.pipelining { &self.envelope } else { &self.mail_command };
        Self::send(&mut self.sessions, net, conn, all);
    }

    fn quit(&mut self, net: &mut Net, conn: Conn, now: u64) {
        let session = self.session(conn);
        session.step = Step::Quit;
        session.since = now;
        Self::send(&mut self.sessions, net, conn, b"QUIT\r\n");
        if self.options.quit_fin {
            net.shutdown_write(conn);
        }
    }

    /// A whole reply has come.
    fn reply(&mut self, net: &mut Net, conn: Conn, code: u16, now: u64) {
        let step = self.session(conn).step;
        let since = self.session(conn).since;
        let expected = match step {
            Step::Banner => 220,
            Step::Data => 354,
            Step::Quit => 221,
            _ => 250,
        };
        let well = code == expected || (matches!(step, Step::Rcpt(_)) && code == 251);
        if !well {
            self.record.note(format!("{code} at {}", step.name()));
        }
        match step {
            Step::Banner | Step::Ehlo | Step::Reset if !well => {
                self.drop_session(net, conn, now, &format!("refused with {code}"));
            }
            Step::Banner => {
                self.record.phase(Phase::Banner, now - since);
                let session = &mut self.sessions[conn.index as usize];
                session.step = Step::Ehlo;
                session.since = now;
                Self::send(&mut self.sessions, net, conn, &self.hello);
            }
            Step::Ehlo => {
                self.record.phase(Phase::Ehlo, now - since);
                self.connecting -= 1;
                self.connected_ever += 1;
                self.next_message(net, conn, now);
            }
            Step::Reset => self.next_message(net, conn, now),
            Step::Mail | Step::Rcpt(_) => self.envelope_reply(net, conn, step, well),
            Step::Data => self.data_reply(net, conn, well, now),
            Step::Dot => self.dot_reply(net, conn, well, now),
            Step::Quit => {
                self.record.phase(Phase::Quit, now - since);
                self.session(conn).step = Step::End;
                self.session(conn).since = now;
            }
            Step::Closed | Step::Connect | Step::Rest | Step::End => {
                self.drop_session(net, conn, now, &format!("unasked reply {code}"));
            }
        }
    }

    fn envelope_reply(&mut self, net: &mut Net, conn: Conn, step: Step, well: bool) {
        let recipients = self.options.recipients;
        let session = &mut self.sessions[conn.index as usize];
        let left = match step {
            Step::Rcpt(left) => {
                session.accepted += usize::from(well);
                left - 1
            }
            _ => {
                session.refused = !well;
                recipients
            }
        };
        session.step = if left > 0 { Step::Rcpt(left) } else { Step::Data };
        if session.pipelining {
            return;
        }
        if session.refused || (left == 0 && session.accepted == 0) {
            self.reset(net, conn);
        } else {
            let command =
                if left > 0 { &self.rcpt_commands[recipients - left][..] } else { b"DATA\r\n" };
            Self::send(&mut self.sessions, net, conn, command);
        }
    }

    fn reset(&mut self, net: &mut Net, conn: Conn) {
        self.record.refused += 1;
        self.session(conn).step = Step::Reset;
        Self::send(&mut self.sessions, net, conn, b"RSET\r\n");
    }

    fn data_reply(&mut self, net: &mut Net, conn: Conn, well: bool, now: u64) {
        let session = &mut self.sessions[conn.index as usize];
        if !well {
            self.reset(net, conn);
            return;
        }
        self.record.phase(Phase::Envelope, now - session.envelope_since);
        session.step = Step::Dot;
        session.since = now;
        if session.refused || session.accepted == 0 {
            // RFC 2920 3.1: nobody accepted, yet the server wants data: send none.
            session.refused = true;
            Self::send(&mut self.sessions, net, conn, b".\r\n");
        } else {
            self.content(net, conn, now);
        }
    }

    /// Gives the ring the next piece of the content.
    fn content(&mut self, net: &mut Net, conn: Conn, now: u64) {
        let session = &mut self.sessions[conn.index as usize];
        let template = self.mail.template(session.template);
        if session.given < mail::ID_OCTETS * 4 {
            template.stamp(&mail::id(self.run, session.number));
        }
        let from = session.given;
        let until = template.content.len().min(from + SOURCE_PIECE_OCTETS);
        session.given = until;
        session.since = now;
        if until < template.content.len() {
            net.want_drained(conn);
        }
        Self::send(&mut self.sessions, net, conn, &template.content[from..until]);
    }

    fn dot_reply(&mut self, net: &mut Net, conn: Conn, well: bool, now: u64) {
        let session = &self.sessions[conn.index as usize];
        let content = &self.mail.template(session.template).content;
        if well && !session.refused && session.given < content.len() {
            self.drop_session(net, conn, now, "250 before the final dot");
            return;
        }
        if well && !session.refused {
            self.record.phase(Phase::Dot, now - session.since);
            self.record.phase(Phase::Message, now - session.message_since);
            self.record.acked += 1;
            self.record.last_acked_ns = now;
            self.record.octets += content.len() as u64 - 3;
            if let Some(file) = &mut self.acked {
                let written = file
                    .write_all(&mail::id(self.run, session.number))
                    .and_then(|()| file.write_all(b"\n"));
                if let Err(error) = written {
                    self.record.note(format!("list of acknowledged ids: {error}"));
                    self.stopping = true;
                }
            }
        } else {
            self.record.refused += 1;
        }
        self.next_message(net, conn, now);
    }

    /// Octets of the server's stream.
    fn replies(&mut self, net: &mut Net, conn: Conn, mut bytes: &[u8]) {
        let now = self.now();
        loop {
            let session = &mut self.sessions[conn.index as usize];
            if session.step == Step::Closed {
                return;
            }
            match session.replies.next(&mut bytes) {
                None => return,
                Some(Err(_)) => self.drop_session(net, conn, now, "no SMTP reply"),
                Some(Ok(line)) => {
                    if session.step == Step::Ehlo {
                        session.pipelining |= line.pipelining && self.options.pipelining;
                    }
                    if line.last {
                        self.reply(net, conn, line.code, now);
                    }
                }
            }
        }
    }

    fn report_held(&mut self) {
        if let Pace::Idle(_) = self.options.pace
            && self.held_count == 0
            && self.connecting == 0
            && (self.live == self.options.sessions || self.stopping)
        {
            self.held_count = u64::from(self.live);
            (self.held)(self.held_count);
        }
    }
}

impl Handler for Source<'_> {
    fn accepted(&mut self, _net: &mut Net, _conn: Conn) {}

    fn connected(&mut self, _net: &mut Net, conn: Conn, error: i32) {
        let now = self.now();
        let session = &mut self.sessions[conn.index as usize];
        if session.step != Step::Connect {
            return;
        }
        if error == 0 {
            self.record.phase(Phase::Connect, now - session.since);
            session.step = Step::Banner;
            session.since = now;
            self.record.connections += 1;
        } else {
            session.step = Step::Closed;
            self.left(Step::Connect);
            self.failed(now, format!("connect: {}", io::Error::from_raw_os_error(error)));
        }
    }

    fn received(&mut self, net: &mut Net, conn: Conn, bytes: &[u8]) {
        self.replies(net, conn, bytes);
    }

    fn drained(&mut self, net: &mut Net, conn: Conn) {
        let now = self.now();
        if self.session(conn).step == Step::Dot {
            self.content(net, conn, now);
        }
    }

    fn ended(&mut self, _net: &mut Net, conn: Conn, error: i32) {
        let now = self.now();
        let step = self.session(conn).step;
        if step == Step::Closed {
            return;
        }
        self.session(conn).step = Step::Closed;
        self.left(step);
        if step != Step::End {
            let what = if error == 0 {
                "closed by the server".to_owned()
            } else {
                io::Error::from_raw_os_error(error).to_string()
            };
            self.failed(now, format!("{what} at {}", step.name()));
        }
    }

    fn watched(&mut self, _net: &mut Net) {
        self.stopping = true;
        self.tick_at = 0;
    }

    fn turn(&mut self, net: &mut Net) -> Next {
        let now = self.now();
        let look_again = self.start_sessions(net, now);
        if now >= self.tick_at {
            self.tick(net, now);
        }
        self.report_held();
        if self.live == 0 && !self.more(now) {
            self.ended_at = Some(Duration::from_nanos(now));
            return Next::Stop;
        }
        let until = look_again.min(self.tick_at);
        Next::WaitFor(Duration::from_nanos(until.saturating_sub(now).max(1)))
    }
}
