//! The same SMTP machine on three runtimes, everything discarded: why the engine is our own.
//!
//!     runtimes own|tokio|tokio-uring PORT
//!
//! `benches/plans/runtimes.toml` compares them. All three use one thread, one listener, TCP_NODELAY
//! and 16 KiB of receive memory a read; what differs is who moves the octets.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use engine::{Config, Conn, Core, Event, Handler, Probe, mailbox};
use smtp::data::Flow;
use smtp::server::{Action, Answer, End, Host, Question, Server, Settings, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const RECEIVE_OCTETS: usize = 16_384;

/// Says yes to everything and keeps nothing but the replies.
#[derive(Default)]
struct Yes(Vec<u8>);

impl Host for Yes {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    fn ask(&mut self, _token: Token, _question: Question<'_>) -> Option<Answer> {
        Some(Answer::Accept)
    }

    fn header(&mut self, _octets: &[u8]) -> Flow {
        Flow::More
    }

    fn body(&mut self, _octets: &[u8]) -> Flow {
        Flow::More
    }

    fn done(&mut self, _end: End) {}
}

/// One session, whoever drives it.
struct Session {
    machine: Server,
    host: Yes,
    started: Instant,
}

impl Session {
    fn new(settings: &Arc<Settings>) -> Self {
        let machine = Server::new(Arc::clone(settings), "00000000000000000000");
        let mut session = Self { machine, host: Yes::default(), started: Instant::now() };
        session.machine.start(0, &mut session.host);
        session
    }

    /// Takes octets; true when the connection is to be closed behind the replies.
    fn receive(&mut self, octets: &[u8]) -> bool {
        let now_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let used = self.machine.receive(now_us, octets, &mut self.host);
        assert_eq!(used, octets.len(), "every answer comes at once");
        matches!(self.machine.action(), Action::Close(_))
    }

    fn replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.host.0)
    }
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings { mail_max: u32::MAX, ..Settings::new("runtimes.example") })
}

struct Own {
    settings: Arc<Settings>,
    sessions: Vec<Option<Session>>,
}

impl Own {
    fn say(&mut self, core: &mut Core<()>, conn: Conn, last: bool) {
        let Some(session) = &mut self.sessions[conn.index()] else { return };
        if core.send(conn, &session.host.0).is_err() {
            core.abort(conn);
        }
        session.host.0.clear();
        if last {
            core.finish(conn);
        }
    }
}

impl Handler<()> for Own {
    fn event(&mut self, core: &mut Core<()>, event: Event<'_, ()>) {
        match event {
            Event::Accepted { conn, .. } => {
                let index = conn.index();
                if index >= self.sessions.len() {
                    self.sessions.resize_with(index + 1, || None);
                }
                self.sessions[index] = Some(Session::new(&self.settings));
                self.say(core, conn, false);
            }
            Event::Received { conn, bytes } => {
                let session = self.sessions[conn.index()].as_mut();
                let last = session.is_some_and(|session| session.receive(bytes));
                self.say(core, conn, last);
            }
            Event::Eof { conn } => core.close(conn),
            Event::Closed { conn } => self.sessions[conn.index()] = None,
            _ => {}
        }
    }

    fn turn_end(&mut self, _core: &mut Core<()>) {}
}

fn own(address: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let (_sender, receiver) = mailbox(1)?;
    let mut core = Core::new(Config::default(), &Probe::detect()?, receiver)?;
    core.listen(address, 0)?;
    core.run(&mut Own { settings: settings(), sessions: Vec::new() })?;
    Ok(())
}

fn tokio_epoll(address: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::from_std(listener(address)?)?;
        let settings = settings();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(on_tokio(stream, Session::new(&settings)));
        }
    })
}

async fn on_tokio(mut stream: tokio::net::TcpStream, mut session: Session) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&session.replies()).await?;
    let mut buffer = vec![0; RECEIVE_OCTETS];
    loop {
        let octets = stream.read(&mut buffer).await?;
        if octets == 0 {
            return Ok(());
        }
        let last = session.receive(&buffer[..octets]);
        if !session.host.0.is_empty() {
            stream.write_all(&session.host.0).await?;
            session.host.0.clear();
        }
        if last {
            return Ok(());
        }
    }
}

fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = mxbench::system::listener(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn on_uring(address: SocketAddr) -> io::Result<()> {
    tokio_uring::start(async {
        let listener = tokio_uring::net::TcpListener::bind(address)?;
        let settings = settings();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio_uring::spawn(on_tokio_uring(stream, Session::new(&settings)));
        }
    })
}

async fn on_tokio_uring(
    stream: tokio_uring::net::TcpStream,
    mut session: Session,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(session.replies()).await.0?;
    let mut buffer = vec![0; RECEIVE_OCTETS];
    loop {
        let (octets, given) = stream.read(buffer).await;
        buffer = given;
        let octets = octets?;
        if octets == 0 {
            return Ok(());
        }
        let last = session.receive(&buffer[..octets]);
        if !session.host.0.is_empty() {
            let (result, mut replies) = stream.write_all(session.replies()).await;
            result?;
            replies.clear();
            session.host.0 = replies;
        }
        if last {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [runtime, port] = &words[..] else {
        eprintln!("runtimes own|tokio|tokio-uring PORT");
        return ExitCode::FAILURE;
    };
    let Ok(port) = port.parse() else { return ExitCode::FAILURE };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let result = match &runtime[..] {
        "own" => own(address),
        "tokio" => tokio_epoll(address).map_err(Into::into),
        "tokio-uring" => on_uring(address).map_err(Into::into),
        other => Err(format!("{other}: own, tokio or tokio-uring").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("runtimes: {error}");
            ExitCode::FAILURE
        }
    }
}
