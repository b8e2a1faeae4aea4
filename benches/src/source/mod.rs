//! The load generator: sessions of an SMTP client on one ring.
//!
//! *Guarantees*: every reply is checked; a message counts as acknowledged only by the 250 to its
//! own final dot; in open loop times run from the intended start, so a stall of the server is seen
//! by every message that was due in it.
//!
//! *Failure*: a connection that fails is counted and opened anew; the run ends early only after
//! `Options::failures_max` of them.
//!
//! *Not here*: several rings: one source uses one CPU.

pub mod mail;

pub mod options;

pub mod report;

mod tls;

mod wishes;

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
    CLIENT_ENTRIES, CONNECTIONS_MAX, OVERSIZED_OCTETS, RECONNECT_WAIT_MS, SOURCE_BUFFER_OCTETS,
    SOURCE_BUFFERS, SOURCE_PIECE_OCTETS, SOURCE_TICK_MS,
};
use crate::replies::Keyword;
use mail::Mail;
use options::{Options, Pace};
use report::{Phase, Record, Summary};
use session::{Session, Step};
use tls::Tls;
use wishes::{Dice, Wish};

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
    /// Not buffered: each line is there before the server can be gone.
    refusals: Option<File>,
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
    dice: Dice,
    tls: Option<Tls>,
    hello: Vec<u8>,
    mail_command: Vec<u8>,
    rcpt_commands: Vec<Vec<u8>>,
    unknown_commands: Vec<Vec<u8>>,
    oversized_command: Vec<u8>,
    scratch: Vec<u8>,
}

impl<'a> Source<'a> {
    fn new(options: Options, held: &'a mut dyn FnMut(u64)) -> io::Result<Self> {
        let acked = options.acked.as_ref().map(File::create).transpose()?.map(BufWriter::new);
        let refusals = options.refusals.as_ref().map(File::create).transpose()?;
        let mail_command = format!("MAIL FROM:<{}>\r\n", options.from).into_bytes();
        let rcpt_commands: Vec<Vec<u8>> = (0..options.recipients)
            .map(|at| options.to.replace('%', &at.to_string()))
            .map(|to| format!("RCPT TO:<{to}>\r\n").into_bytes())
            .collect();
        let unknown_commands = (0..options.recipients)
            .map(|at| options.refused.unknown_to.replace('%', &at.to_string()))
            .map(|to| format!("RCPT TO:<{to}>\r\n").into_bytes())
            .collect();
        let oversized_command =
            format!("MAIL FROM:<{}> SIZE={OVERSIZED_OCTETS}\r\n", options.from).into_bytes();
        let mail = match &options.eml {
            Some(folder) => Mail::of_folder(folder, options.seed)?,
            None => Mail::new(options.size, options.seed),
        };
        let tls =
            options.starttls.map(|tls| Tls::new("mx.example.org", tls.version)).transpose()?;
        let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let run = since_epoch.subsec_nanos() ^ std::process::id().rotate_left(16);
        Ok(Self {
            held,
            held_count: 0,
            started: Instant::now(),
            ended_at: None,
            sessions: Vec::new(),
            record: Record::new(),
            mail,
            dice: Dice::new(options.seed),
            tls,
            run,
            acked,
            refusals,
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
            unknown_commands,
            oversized_command,
            scratch: Vec::new(),
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
        let Session { slow, tls, .. } = &mut sessions[conn.index as usize];
        let out = slow.as_mut().unwrap_or_else(|| net.out(conn));
        match tls {
            Some(tls) => tls.say(bytes, out),
            None => out.extend_from_slice(bytes),
        }
    }

    /// Messages may still begin.
    fn more(&self, now: u64) -> bool {
        !self.stopping
            && match self.options.pace {
                Pace::Total(total) => self.begun < total,
                // On a machine that let us wait all that time: one message at least.
                Pace::For(duration) => u128::from(now) < duration.as_nanos() || self.begun == 0,
                Pace::Open { duration, .. } => {
                    u128::from(now) < duration.as_nanos() || !self.waiting.is_empty()
                }
                Pace::Idle(duration) => u128::from(now) < duration.as_nanos(),
            }
    }

    /// Opens one connection.
    fn open(&mut self, net: &mut Net, now: u64) {
        let listed = self.options.refused.listed;
        let listed = listed.filter(|_| self.dice.throw(self.options.refused.listed_share));
        let conn = match self.socket(listed) {
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
        self.sessions[index].listed = listed.is_some();
        self.live += 1;
        self.connecting += 1;
    }

    fn socket(&mut self, listed: Option<Ipv4Addr>) -> io::Result<OwnedFd> {
        let family =
            if self.options.target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        let own = listed.or_else(|| {
            (self.options.source_addresses > 1).then(|| {
                let number = self.next_address % self.options.source_addresses;
                self.next_address = self.next_address.wrapping_add(1);
                Ipv4Addr::from(u32::from(self.options.source_first).wrapping_add(number))
            })
        });
        if let (Some(address), true) = (own, self.options.target.is_ipv4()) {
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
        self.connecting -= u32::from(step.is_opening());
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
        session.wish = self.dice.wish(session.listed, &self.options.refused);
        let (pipelining, chunking, wish) = (session.pipelining, session.chunking, session.wish);
        let mail = match wish {
            Wish::Oversized => &self.oversized_command,
            _ => &self.mail_command,
        };
        // One piece, and so one TLS record.
        self.scratch.clear();
        self.scratch.extend_from_slice(mail);
        if pipelining {
            let unknown = wish == Wish::Unknown;
            let commands = if unknown { &self.unknown_commands } else { &self.rcpt_commands };
            self.scratch.extend(commands.iter().flatten());
            if !chunking {
                self.scratch.extend_from_slice(b"DATA\r\n");
            }
        }
        Self::send(&mut self.sessions, net, conn, &self.scratch);
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
        let wished = self.session(conn).wish != Wish::Taken || self.session(conn).listed;
        let expected = match step {
            Step::Banner | Step::StartTls => 220,
            Step::Data => 354,
            Step::Quit => 221,
            _ => 250,
        };
        let well = code == expected || (matches!(step, Step::Rcpt(_)) && code == 251);
        if !well && !wished {
            self.record.note(format!("{code} at {}", step.name()));
        }
        match step {
            Step::Banner | Step::Ehlo if !well && wished => {
                self.record.refused_as_wished += 1;
                self.connecting -= 1;
                self.quit(net, conn, now);
            }
            Step::Banner | Step::Ehlo | Step::StartTls | Step::Reset if !well => {
                self.drop_session(net, conn, now, &format!("refused with {code}"));
            }
            Step::Banner => {
                self.record.phase(Phase::Banner, now - since);
                let session = &mut self.sessions[conn.index as usize];
                session.step = Step::Ehlo;
                session.since = now;
                Self::send(&mut self.sessions, net, conn, &self.hello);
            }
            Step::Ehlo if self.wants_tls(conn) => {
                self.record.phase(Phase::Ehlo, now - since);
                let session = &mut self.sessions[conn.index as usize];
                session.step = Step::StartTls;
                session.since = now;
                Self::send(&mut self.sessions, net, conn, b"STARTTLS\r\n");
            }
            Step::StartTls => self.handshake(net, conn, now),
            Step::Ehlo => {
                self.record.phase(Phase::Ehlo, now - since);
                self.connecting -= 1;
                self.connected_ever += 1;
                self.next_message(net, conn, now);
            }
            Step::Reset => self.next_message(net, conn, now),
            Step::Mail | Step::Rcpt(_) => self.envelope_reply(net, conn, step, well, now),
            Step::Data => self.data_reply(net, conn, well, now),
            Step::Dot => self.dot_reply(net, conn, well, now),
            Step::Quit => {
                self.record.phase(Phase::Quit, now - since);
                self.session(conn).step = Step::End;
                self.session(conn).since = now;
            }
            Step::Closed | Step::Connect | Step::Handshake | Step::Rest | Step::End => {
                self.drop_session(net, conn, now, &format!("unasked reply {code}"));
            }
        }
    }

    fn wants_tls(&mut self, conn: Conn) -> bool {
        let share = self.options.starttls.map_or(0.0, |starttls| starttls.share);
        let session = &self.sessions[conn.index as usize];
        session.starttls && session.tls.is_none() && self.dice.throw(share)
    }

    /// The server is ready for TLS.
    fn handshake(&mut self, net: &mut Net, conn: Conn, now: u64) {
        let share = self.options.starttls.map_or(0.0, |starttls| starttls.resumed_share);
        let resume = self.dice.throw(share);
        let Some(tls) = &mut self.tls else { return };
        let client = tls.client(conn.index as usize, resume);
        let session = &mut self.sessions[conn.index as usize];
        let out = session.slow.as_mut().unwrap_or_else(|| net.out(conn));
        match client.and_then(|mut client| client.flush(out).map(|()| client)) {
            Ok(client) => {
                session.tls = Some(client);
                session.step = Step::Handshake;
                session.since = now;
            }
            Err(error) => self.drop_session(net, conn, now, &error.to_string()),
        }
    }

    /// Octets of the wire of a session with TLS.
    fn decrypt(&mut self, net: &mut Net, conn: Conn, bytes: &[u8]) {
        let now = self.now();
        let session = &mut self.sessions[conn.index as usize];
        let Some(tls) = &mut session.tls else { return };
        let out = session.slow.as_mut().unwrap_or_else(|| net.out(conn));
        let plain = match tls.hear(bytes, out) {
            Ok(plain) => plain,
            Err(error) => {
                self.drop_session(net, conn, now, &error.to_string());
                return;
            }
        };
        if session.step == Step::Handshake
            && let Some(resumed) = tls.resumed()
        {
            self.record.phase(Phase::Tls, now - session.since);
            self.record.tls[0] += 1;
            self.record.tls[1] += u64::from(resumed);
            // RFC 3207 4.2: what was learned before is forgotten.
            (session.pipelining, session.chunking) = (false, false);
            session.step = Step::Ehlo;
            session.since = now;
            Self::send(&mut self.sessions, net, conn, &self.hello);
        }
        self.replies(net, conn, &plain);
        if let Some(tls) = &mut self.sessions[conn.index as usize].tls {
            tls.keep(plain);
        }
    }

    fn envelope_reply(&mut self, net: &mut Net, conn: Conn, step: Step, well: bool, now: u64) {
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
        let bdat = session.chunking && left == 0;
        if session.pipelining && !bdat {
            return;
        }
        if session.refused || (left == 0 && session.accepted == 0) {
            self.reset(net, conn);
        } else if bdat {
            self.record.phase(Phase::Envelope, now - session.envelope_since);
            session.step = Step::Dot;
            self.content(net, conn, now);
        } else {
            let unknown = session.wish == Wish::Unknown;
            let commands = if unknown { &self.unknown_commands } else { &self.rcpt_commands };
            let command = if left > 0 { &commands[recipients - left][..] } else { b"DATA\r\n" };
            Self::send(&mut self.sessions, net, conn, command);
        }
    }

    /// A message was refused, as was wished or not.
    fn refused(&mut self, conn: Conn) {
        if self.session(conn).wish == Wish::Taken {
            self.record.refused += 1;
        } else {
            self.record.refused_as_wished += 1;
        }
    }

    fn reset(&mut self, net: &mut Net, conn: Conn) {
        self.refused(conn);
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
        let all = if session.chunking { template.chunk() } else { &template.content[..] };
        let from = session.given;
        let until = all.len().min(from + SOURCE_PIECE_OCTETS);
        session.given = until;
        session.since = now;
        if until < all.len() {
            net.want_drained(conn);
        }
        if session.chunking && from == 0 {
            self.scratch.clear();
            self.scratch.extend_from_slice(format!("BDAT {} LAST\r\n", all.len()).as_bytes());
            self.scratch.extend_from_slice(&all[..until]);
            Self::send(&mut self.sessions, net, conn, &self.scratch);
        } else {
            Self::send(&mut self.sessions, net, conn, &all[from..until]);
        }
    }

    fn dot_reply(&mut self, net: &mut Net, conn: Conn, well: bool, now: u64) {
        let session = &self.sessions[conn.index as usize];
        let template = self.mail.template(session.template);
        let octets = template.content.len() as u64 - 3;
        let all = if session.chunking { template.chunk().len() } else { template.content.len() };
        if well && !session.refused && session.given < all {
            self.drop_session(net, conn, now, "250 before the final dot");
            return;
        }
        if well && !session.refused {
            self.record.phase(Phase::Dot, now - session.since);
            self.record.phase(Phase::Message, now - session.message_since);
            self.record.acked += 1;
            self.record.last_acked_ns = now;
            self.record.octets += octets;
            self.record.taken_wrongly += u64::from(session.wish != Wish::Taken);
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
            self.refused(conn);
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
                    if line.code >= 400
                        && let Some(file) = &mut self.refusals
                        && let Err(error) = file.write_all(session.replies.refusal())
                    {
                        self.record.note(format!("list of refusals: {error}"));
                        self.stopping = true;
                    }
                    if session.step == Step::Ehlo {
                        let options = &self.options;
                        match line.keyword {
                            Keyword::Pipelining => session.pipelining = options.pipelining,
                            Keyword::Chunking => session.chunking = options.chunking,
                            Keyword::StartTls => session.starttls = options.starttls.is_some(),
                            Keyword::Other => {}
                        }
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
            let listed = session.listed;
            self.left(Step::Connect);
            if listed {
                self.record.refused_as_wished += 1;
                self.reconnect_at = now + RECONNECT_WAIT_MS * 1_000_000;
                return;
            }
            self.failed(now, format!("connect: {}", io::Error::from_raw_os_error(error)));
        }
    }

    fn received(&mut self, net: &mut Net, conn: Conn, bytes: &[u8]) {
        match self.session(conn).tls {
            Some(_) => self.decrypt(net, conn, bytes),
            None => self.replies(net, conn, bytes),
        }
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
        if self.session(conn).listed {
            self.record.refused_as_wished += u64::from(!matches!(step, Step::End | Step::Quit));
        } else if step != Step::End {
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
