//! A backend whose faults a test chooses: one thread a connection, plain blocking sockets.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};

use super::wire::Wire;

/// One message as the backend took it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) content: Vec<u8>,
    /// As they stood behind the paths of MAIL and RCPT.
    pub(crate) parameters: Vec<String>,
    pub(crate) over_tls: bool,
}

impl Mail {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

/// What the backend does instead of its duty. Changeable while it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    /// Words of the EHLO reply.
    pub(crate) offers: Vec<&'static str>,
    /// Reply to a command whose line starts so, so many times (0: always).
    pub(crate) replies: Vec<(&'static str, &'static str, u32)>,
    /// After the dot: close without a word, so many times.
    pub(crate) lose_dot: u32,
    /// Close when this command comes, so many times.
    pub(crate) close_at: Option<(&'static str, u32)>,
    /// Keep the message although its reply is lost.
    pub(crate) keep_lost: bool,
    /// What STARTTLS leads to.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Octets written behind the 220 to STARTTLS, in the clear.
    pub(crate) injected: &'static str,
    /// How long a message's last reply takes.
    pub(crate) dot_ms: u64,
    /// How long it reads nothing of a message.
    pub(crate) deaf_ms: u64,
}

#[derive(Debug, Default)]
struct State {
    manners: Manners,
    mails: Vec<Mail>,
    commands: Vec<String>,
}

/// A listening backend.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    open: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
}

/// How a dialogue ended.
enum End {
    /// By QUIT, which is still to be answered.
    Quit,
    /// Without a word.
    Cut,
}

impl Backend {
    pub(crate) fn start(manners: Manners) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), manners)
    }

    pub(crate) fn start_at(address: SocketAddr, manners: Manners) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let backend = Self {
            address: listener.local_addr().expect("bound"),
            state: Arc::new(Mutex::new(State { manners, ..State::default() })),
            open: Arc::default(),
            most: Arc::default(),
        };
        let for_thread = backend.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let backend = for_thread.clone();
                std::thread::spawn(move || backend.serve(stream));
            }
        });
        backend
    }

    /// An address on which nobody listens, and that nobody else gets: a socket of ours holds it
    /// until the test's process ends. Who binds with SO_REUSEADDR may listen there later.
    pub(crate) fn nowhere() -> SocketAddr {
        let none = SockFlag::SOCK_CLOEXEC;
        let held = socket(AddressFamily::Inet, SockType::Stream, none, None).expect("a socket");
        setsockopt(&held, sockopt::ReuseAddr, &true).expect("a TCP socket");
        let any = SockaddrIn::new(127, 0, 0, 1, 0);
        bind(held.as_raw_fd(), &any).expect("a free port");
        let name: SockaddrIn = getsockname(held.as_raw_fd()).expect("bound");
        std::mem::forget(held);
        SocketAddr::V4(name.into())
    }

    pub(crate) fn set(&self, manners: Manners) {
        self.state.lock().expect("no thread died").manners = manners;
    }

    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.state.lock().expect("no thread died").mails.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().expect("no thread died").mails.len()
    }

    pub(crate) fn commands(&self) -> Vec<String> {
        self.state.lock().expect("no thread died").commands.clone()
    }

    /// Waits until so many messages came.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Mail> {
        for round in 1_u32.. {
            let mails = self.mails();
            if mails.len() >= count {
                return mails;
            }
            if round.is_multiple_of(1000) {
                eprintln!("still waiting for {count} mails at the backend, {} came", mails.len());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        unreachable!("it waits")
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.commands().iter().filter(|line| *line == "CONNECT").count()
    }

    /// The most connections that were open at once.
    pub(crate) fn most_connections(&self) -> u32 {
        self.most.load(Ordering::SeqCst)
    }

    fn serve(&self, stream: TcpStream) {
        let now = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let mut wire = Wire::new(stream);
        let ended = self.dialogue(&mut wire);
        // Before the last reply and before the socket closes: the other end may open its next
        // connection right then.
        self.open.fetch_sub(1, Ordering::SeqCst);
        if let Ok(End::Quit) = ended {
            // The other end may be gone already.
            let _ = wire.write(b"221 bye\r\n");
        }
    }

    /// The reply that the manners want for this command, or that it is to be cut off.
    fn manner(&self, line: &str) -> Option<Result<&'static str, ()>> {
        let mut state = self.state.lock().expect("no thread died");
        state.commands.push(line.to_owned());
        let upper = line.to_ascii_uppercase();
        if let Some((word, times)) = &mut state.manners.close_at
            && upper.starts_with(*word)
            && *times > 0
        {
            *times -= 1;
            return Some(Err(()));
        }
        let hit =
            state.manners.replies.iter_mut().position(|(word, ..)| upper.starts_with(*word))?;
        let (_, reply, times) = &mut state.manners.replies[hit];
        let reply = *reply;
        if *times > 0 {
            *times -= 1;
            if *times == 0 {
                state.manners.replies.remove(hit);
            }
        }
        Some(Ok(reply))
    }

    fn ehlo(&self, secure: bool) -> String {
        let mut offers = self.state.lock().expect("no thread died").manners.offers.clone();
        offers.retain(|word| !secure || *word != "STARTTLS");
        let mut lines = vec!["backend.test"];
        lines.extend(offers);
        let last = lines.len() - 1;
        let line = |(n, text): (usize, &&str)| {
            format!("250{}{text}\r\n", if n == last { ' ' } else { '-' })
        };
        lines.iter().enumerate().map(line).collect()
    }

    fn dialogue(&self, wire: &mut Wire) -> std::io::Result<End> {
        match self.manner("CONNECT") {
            Some(Ok(reply)) => wire.write(format!("{reply}\r\n").as_bytes())?,
            Some(Err(())) => return Ok(End::Cut),
            None => wire.write(b"220 backend.test\r\n")?,
        }
        let mut mail = Mail::default();
        loop {
            let Some(line) = wire.line()? else { return Ok(End::Cut) };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let reply = match self.manner(&line) {
                Some(Err(())) => return Ok(End::Cut),
                Some(Ok(reply)) => format!("{reply}\r\n"),
                None if line.eq_ignore_ascii_case("QUIT") => return Ok(End::Quit),
                None => match self.command(wire, &line, &mut mail)? {
                    Some(reply) => reply,
                    None => return Ok(End::Cut),
                },
            };
            wire.write(reply.as_bytes())?;
        }
    }

    /// The reply to a command, its content taken; `None` ends the connection.
    fn command(
        &self,
        wire: &mut Wire,
        line: &str,
        mail: &mut Mail,
    ) -> std::io::Result<Option<String>> {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let reply = match verb.as_str() {
            "EHLO" => self.ehlo(wire.tls().is_some()),
            "STARTTLS" => {
                let (config, injected) = {
                    let state = self.state.lock().expect("no thread died");
                    (state.manners.tls.clone(), state.manners.injected)
                };
                let Some(config) = config else { return Ok(Some("502 no\r\n".to_owned())) };
                wire.write(format!("220 go\r\n{injected}").as_bytes())?;
                let tls = rustls::ServerConnection::new(config).expect("a config");
                wire.secure(tls.into())?;
                String::new()
            }
            "MAIL" => {
                let over_tls = wire.tls().is_some();
                *mail = Mail { from: path(line), over_tls, ..Mail::default() };
                mail.parameters.push(parameters(line));
                "250 ok\r\n".to_owned()
            }
            "RCPT" => {
                mail.to.push(path(line));
                mail.parameters.push(parameters(line));
                "250 ok\r\n".to_owned()
            }
            "RSET" => {
                *mail = Mail::default();
                "250 ok\r\n".to_owned()
            }
            "DATA" if mail.to.is_empty() => "554 no recipients\r\n".to_owned(),
            "DATA" => {
                wire.write(b"354 go\r\n")?;
                let deaf_ms = self.state.lock().expect("no thread died").manners.deaf_ms;
                std::thread::sleep(std::time::Duration::from_millis(deaf_ms));
                mail.content = read_dotted(wire)?;
                return Ok(self.finish(mail));
            }
            "BDAT" => {
                let size = line.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
                mail.content.extend(wire.exact(size)?);
                if line.to_ascii_uppercase().ends_with("LAST") {
                    return Ok(self.finish(mail));
                }
                "250 ok\r\n".to_owned()
            }
            _ => "250 ok\r\n".to_owned(),
        };
        Ok(Some(reply))
    }

    /// The end of a message: kept and confirmed, or the reply is lost.
    fn finish(&self, mail: &mut Mail) -> Option<String> {
        let mail = std::mem::take(mail);
        let wait_ms = self.state.lock().expect("no thread died").manners.dot_ms;
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
        if let Some(manner) = self.manner("DOT") {
            return manner.ok().map(|reply| format!("{reply}\r\n"));
        }
        let mut state = self.state.lock().expect("no thread died");
        if state.manners.lose_dot > 0 {
            state.manners.lose_dot -= 1;
            if state.manners.keep_lost {
                state.mails.push(mail);
            }
            return None;
        }
        state.mails.push(mail);
        Some("250 kept\r\n".to_owned())
    }
}

fn path(line: &str) -> String {
    let start = line.find('<').map_or(0, |n| n + 1);
    let end = line[start..].find('>').map_or(line.len(), |n| start + n);
    line[start..end].to_owned()
}

/// What stands behind the path.
fn parameters(line: &str) -> String {
    line.split_once('>').map_or("", |(_, rest)| rest.trim()).to_owned()
}

/// Content up to the lone dot, dots unstuffed.
fn read_dotted(wire: &mut Wire) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let Some(line) = wire.line()? else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        if line == b".\r\n" {
            return Ok(content);
        }
        content.extend(line.strip_prefix(b".").unwrap_or(&line));
    }
}
