//! kill -9 while somebody else's client sends: Postfix's smtp-source, whose dialogue a proxy of
//! ours notes.
//!
//! *Guarantees*: a round counts only when the kill fell into the load: at least `ACKED_MIN`
//! messages had their 250, `SESSIONS_MIN` sessions were open, messages stood together in batches,
//! and the client had more to send. What arrives is compared octet by octet with what was sent.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use spool::batch::{BatchHeader, Records};
use spool::limits::{BLOCK, HEAD_BYTES};
use spool::record::RecordKind;

use super::kill::alarms;
use super::{long, random, seed};
use crate::daemon::client::id_of;
use crate::daemon::programs::{Daemon, Folder, Running, Setup, sink};
use crate::daemon::wire::Wire;
use crate::peers::{Tool, tool};

const ACKED_MIN: usize = 500;
const SESSIONS_MIN: usize = 32;
/// Sessions that smtp-source keeps open.
const SESSIONS: &str = "64";
/// More than any round lets through.
const MESSAGES: &str = "20000";
/// Rounds after which the queue is emptied and compared, so that the folder stays small.
const COMPARE_EVERY: usize = 10;
/// Content goes on its way in pieces, so that a kill can fall between two of them.
const PIECE: usize = 1500;

/// How long to look away between two looks at something that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What the daemon has said 250 to: by its id, the content as the client sent it.
type Acked = HashMap<String, Vec<u8>>;

/// What a proxy has seen so far.
#[derive(Default)]
struct Seen {
    acked: Mutex<Acked>,
    count: AtomicUsize,
    /// Sessions between greeting and end.
    open: AtomicUsize,
    /// The round is over: whoever listens at the daemon's port by now is somebody else.
    over: AtomicBool,
    servers: Mutex<Vec<TcpStream>>,
}

/// Stands between client and daemon, and notes which message got a 250.
struct Proxy {
    address: SocketAddr,
    seen: Arc<Seen>,
    listens: JoinHandle<()>,
}

impl Proxy {
    fn before(daemon: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Seen::default());
        let noted = Arc::clone(&seen);
        let listens = thread::spawn(move || {
            for client in listener.incoming() {
                if noted.over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(daemon) else { continue };
                let twin = server.try_clone().expect("one more descriptor");
                noted.servers.lock().expect("nobody panics inside").push(twin);
                let (client, seen) = (client.expect("a connection"), Arc::clone(&noted));
                noted.open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    // It ends where one of the two does.
                    let _ = dialogue(Wire::new(client), Wire::new(server), &seen);
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, seen, listens }
    }

    /// After daemon and client are gone: all that had its 250.
    fn end(self) -> Acked {
        self.seen.over.store(true, Ordering::SeqCst);
        // One more connection ends the listening.
        drop(TcpStream::connect(self.address));
        self.listens.join().expect("it does not panic");
        for server in self.seen.servers.lock().expect("nobody panics inside").drain(..) {
            // It may have ended long ago.
            let _ = server.shutdown(Shutdown::Both);
        }
        while self.seen.open.load(Ordering::SeqCst) > 0 {
            thread::sleep(LOOK_AGAIN);
        }
        std::mem::take(&mut self.seen.acked.lock().expect("nobody panics inside"))
    }
}

/// One reply, passed on; `None` at the end of the stream.
fn reply(server: &mut Wire, client: &mut Wire) -> std::io::Result<Option<String>> {
    let mut whole = Vec::new();
    while let Some(line) = server.line()? {
        let is_last = line.get(3) != Some(&b'-');
        whole.extend_from_slice(&line);
        if is_last && whole.ends_with(b"\r\n") {
            client.write(&whole)?;
            return Ok(Some(String::from_utf8(whole).expect("replies are ASCII")));
        }
    }
    Ok(None)
}

/// One session, word by word: smtp-source waits for each reply.
fn dialogue(mut client: Wire, mut server: Wire, seen: &Seen) -> std::io::Result<()> {
    while let Some(said) = reply(&mut server, &mut client)? {
        if !said.starts_with("354") {
            let Some(line) = client.line()? else { return Ok(()) };
            server.write(&line)?;
            continue;
        }
        let (mut content, mut sent) = (Vec::new(), 0);
        while !content.ends_with(b"\r\n.\r\n") {
            let Some(line) = client.line()? else { return Ok(()) };
            content.extend_from_slice(&line);
            if content.len() - sent >= PIECE {
                server.write(&content[sent..])?;
                sent = content.len();
            }
        }
        server.write(&content[sent..])?;
        content.truncate(content.len() - 3);
        // What smtp-source writes has no dots at the start of a line.
        assert!(!content.windows(3).any(|three| three == b"\r\n."), "stuffed");
        // The daemon's word counts from the moment it was said, wherever it went then.
        let Some(line) = server.line()? else { return Ok(()) };
        let said = String::from_utf8(line).expect("replies are ASCII");
        if !said.ends_with("\r\n") {
            return Ok(());
        }
        assert_eq!(said.as_bytes()[3], b' ', "one line: {said}");
        if said.starts_with("250") {
            let mut acked = seen.acked.lock().expect("nobody panics inside");
            acked.insert(id_of(&said).to_owned(), content);
            seen.count.fetch_add(1, Ordering::SeqCst);
        }
        client.write(said.as_bytes())?;
        let Some(line) = client.line()? else { return Ok(()) };
        server.write(&line)?;
    }
    Ok(())
}

/// Messages, and batches that hold some, of the last run in a spool's file.
fn batches(file: &Path) -> (usize, usize) {
    let octets = fs::read(file).expect("a spool");
    let head = usize::try_from(HEAD_BYTES).expect("small");
    let places = (head..octets.len()).step_by(BLOCK);
    let header = |at: usize| {
        BatchHeader::decode(&octets[at..at + BLOCK]).map(|(header, _)| (header.run, at, header))
    };
    let found: Vec<_> = places.filter_map(header).collect();
    let last = found.iter().map(|(run, ..)| *run).max().unwrap_or(0);
    let (mut messages, mut batches) = (0, 0);
    for (_, at, header) in found.iter().filter(|(run, ..)| *run == last) {
        let is_mail = |kind| RecordKind::of(kind) == Some(RecordKind::Message);
        let records = Records::new(&octets[*at..], header).flatten();
        let mail = records.filter(|record| is_mail(record.header.kind)).count();
        messages += mail;
        batches += usize::from(mail > 0);
    }
    (messages, batches)
}

/// What one round brought, and why it does not count if it does not.
struct Round {
    acked: Acked,
    flaw: Option<String>,
}

/// Load, kill, restart.
fn round(daemon: &mut Daemon, folder: &Folder, state: &mut u64) -> Round {
    let proxy = Proxy::before(daemon.address);
    // Every other time one message a session.
    let stay: &[&str] = if random(state).is_multiple_of(2) { &["-d"] } else { &[] };
    let said = folder.path("said");
    let mut source = Running(
        tool(Tool::SmtpSource, &folder.0)
            .args(stay)
            .args(["-m", MESSAGES, "-s", SESSIONS, "-l", "4000"])
            .args(["-f", "a@here.test", "-t", "b@example.org"])
            .arg(proxy.address.to_string())
            .stdout(File::create(&said).expect("a file of ours"))
            .stderr(File::create(&said).expect("a file of ours"))
            .spawn()
            .expect("a shell"),
    );
    let most = u64::try_from(4 * ACKED_MIN).expect("small");
    let at = ACKED_MIN + usize::try_from(random(state) % most).expect("small");
    let mut ended = false;
    while proxy.seen.count.load(Ordering::SeqCst) < at && !ended {
        ended = source.0.try_wait().expect("a child of ours").is_some();
        thread::sleep(LOOK_AGAIN);
    }
    // Between two looks.
    for _ in 0..random(state) % 1_000_000 {
        std::hint::spin_loop();
    }
    let open = proxy.seen.open.load(Ordering::SeqCst);
    daemon.kill();
    source.0.kill().expect("ours");
    source.0.wait().expect("it ends");
    let acked = proxy.end();
    let (messages, with_mail) = batches(&daemon.folder.path("spool/ringpost.spool"));
    let said = fs::read_to_string(&said).unwrap_or_default();
    let flaw = if ended || acked.len() < ACKED_MIN {
        Some(format!("{} acknowledged; smtp-source said {said:?}", acked.len()))
    } else if open < SESSIONS_MIN {
        Some(format!("{open} sessions"))
    } else if messages <= with_mail {
        Some(format!("{messages} messages in {with_mail} batches"))
    } else {
        None
    };
    println!(
        "{} acknowledged, {open} sessions, {messages} messages in {with_mail} batches",
        acked.len()
    );
    daemon.start_again();
    // What is to be relayed yet would fill the spool in the end, and be refused with 452.
    daemon.until_empty();
    Round { acked, flaw }
}

/// What stands behind our own header in each file of a Maildir, by our id. They are removed.
fn arrived(maildir: &Path) -> HashMap<String, Vec<Vec<u8>>> {
    let mut arrived: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for entry in fs::read_dir(maildir.join("new")).expect("a Maildir").flatten() {
        let octets = fs::read(entry.path()).expect("a mail");
        fs::remove_file(entry.path()).expect("ours");
        let from = octets.windows(8).position(|w| w == b"\r\nFrom: ").expect("smtp-source's") + 2;
        let (ours, content) = octets.split_at(from);
        let ours = String::from_utf8(ours.to_vec()).expect("ASCII");
        assert_eq!(ours.matches("Received: ").count(), 1, "{ours}");
        let (_, id) = ours.split_once("\tid ").expect("our Received line");
        let id = id.split_whitespace().next().expect("an id").to_owned();
        arrived.entry(id).or_default().push(content.to_vec());
    }
    arrived
}

/// Each one acknowledged has arrived as it was sent, once or more.
fn compare(acked: &Acked, arrived: &HashMap<String, Vec<Vec<u8>>>) {
    let lost: Vec<&String> = acked.keys().filter(|id| !arrived.contains_key(*id)).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acked.len());
    for (id, content) in acked {
        assert!(arrived[id].iter().all(|copy| copy == content), "{id} is not what was sent");
    }
}

#[test]
fn kills_under_smtp_source_lose_none() {
    let rounds = if long() { 200 } else { 20 };
    let mut state = seed();
    println!("RINGPOST_SEED={state}");
    let folder = Folder::new("source-sink");
    let maildir = folder.path("maildir");
    let (_sink, backend) = sink(&maildir, "127.0.0.1:0", &[]);
    let mut setup = Setup::new(backend);
    setup.retry = "first_s = 0.2\nfactor = 1.0\nmax_s = 0.2\nexpire_s = 3600\n".to_owned();
    let mut daemon = Daemon::start("source", setup);
    let (mut counted, mut flawed, mut total, mut all) = (0, 0, 0, Acked::new());
    while counted < rounds {
        let round = round(&mut daemon, &folder, &mut state);
        all.extend(round.acked);
        match round.flaw {
            None => counted += 1,
            Some(flaw) => {
                println!("does not count: {flaw}");
                flawed += 1;
                assert!(flawed <= rounds, "rounds do not count: {flaw}");
            }
        }
        if (counted + flawed) % COMPARE_EVERY == 0 || counted == rounds {
            compare(&all, &arrived(&maildir));
            total += all.len();
            all.clear();
        }
    }
    println!("{counted} kills counted ({flawed} not): {total} acknowledged, none lost or changed");
    assert!(total >= ACKED_MIN * rounds, "only {total} acknowledged");
    assert_eq!(alarms(&daemon), Vec::<String>::new());
    assert!(daemon.stop().success());
}
