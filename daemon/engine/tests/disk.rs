//! Disk requests, datagrams and mail.

#![allow(clippy::unwrap_used, reason = "a test's way of failing")]

mod harness;

use engine::{Config, Core, DiskBuffer, DiskClass, DiskRefused, Event, File, MailboxSender, Udp};
use harness::{Play, Running, Task, start};
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, path::PathBuf};

type Done = (u64, Result<u32, Option<i32>>, Option<DiskBuffer>);

/// Keeps what is told of disks and datagrams.
#[derive(Default)]
struct Notes {
    done: Vec<Done>,
    datagrams: Vec<(Udp, Vec<u8>)>,
    failed: Vec<Option<i32>>,
    file: Option<File>,
    socket: Option<Udp>,
}

impl Play for Notes {
    fn event(&mut self, _core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::DiskDone { token, result, buffer } => {
                let result = result.map_err(|error| error.raw_os_error());
                self.done.push((token, result, buffer));
            }
            Event::Datagram { socket, bytes } => self.datagrams.push((socket, bytes.to_vec())),
            Event::DatagramFailed { error, .. } => self.failed.push(error.raw_os_error()),
            other => panic!("{other:?}"),
        }
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

fn with_file(name: &str, config: Config) -> Running<Notes> {
    let path = path(name);
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .unwrap();
    fs::remove_file(&path).unwrap();
    engine::storage::allocate(&file, 1 << 20).unwrap();
    let core = start(config, Notes::default);
    core.ask(|core, notes| notes.file = Some(core.open_file(file.into()).unwrap()));
    core
}

fn disks() -> Config {
    let disk_buffers =
        vec![DiskClass { bytes: 65_536, count: 2 }, DiskClass { bytes: 4096, count: 4 }];
    Config { disk_buffers, ..Config::default() }
}

#[test]
fn what_was_written_is_read_back() {
    let core = with_file("written", disks());
    core.ask(|core, notes| {
        assert!(core.notes().is_empty(), "{:?}", core.notes());
        let mut buffer = core.disk_buffer(60_000).unwrap();
        buffer.fill(7);
        core.disk_write(notes.file.unwrap(), 8192, buffer, 65_536, true, 1).unwrap();
    });
    core.until(|_, notes| notes.done.len() == 1);
    core.ask(|core, notes| {
        let (1, Ok(65_536), Some(_)) = notes.done.pop().unwrap() else { panic!("a whole write") };
        let buffer = core.disk_buffer(1).unwrap();
        assert_eq!(buffer.len(), 4096);
        core.disk_sync(notes.file.unwrap(), true, 2).unwrap();
        core.disk_read(notes.file.unwrap(), 4096 * 17, buffer, 4096, 3).unwrap();
        assert_eq!(core.disk_in_flight(), 2);
    });
    core.until(|_, notes| notes.done.len() == 2);
    core.ask(|core, notes| {
        notes.done.sort_by_key(|done| done.0);
        let (3, Ok(4096), Some(buffer)) = notes.done.pop().unwrap() else { panic!("a read") };
        assert!(buffer.iter().all(|byte| *byte == 7));
        let (2, Ok(0), None) = notes.done.pop().unwrap() else { panic!("a sync") };
        core.close_file(notes.file.unwrap());
        let refused = core.disk_read(notes.file.unwrap(), 0, buffer, 4096, 4);
        assert!(matches!(refused, Err(DiskRefused(_))), "the file is closed");
    });
}

#[test]
fn a_mirrored_buffer_comes_back_with_the_last_write() {
    let core = with_file("mirror", disks());
    core.ask(|core, notes| {
        let mut buffer = core.disk_buffer(4096).unwrap();
        buffer.fill(9);
        let bytes = buffer.freeze();
        core.disk_write(notes.file.unwrap(), 0, bytes.clone(), 4096, true, 1).unwrap();
        core.disk_write(notes.file.unwrap(), 4096, bytes, 4096, true, 2).unwrap();
    });
    core.until(|_, notes| notes.done.len() == 2);
    core.ask(|_, notes| {
        assert!(notes.done.iter().all(|done| done.1 == Ok(4096)));
        assert!(notes.done[0].2.is_none() && notes.done[1].2.is_some());
    });
}

#[test]
fn errors_and_bounds_give_the_buffer_back() {
    let core = with_file("bounds", Config { disk_ops_max: 2, ..disks() });
    core.ask(|core, notes| {
        let file = notes.file.unwrap();
        let long = core.disk_buffer(4096).unwrap();
        assert!(core.disk_write(file, 0, long, 4097, true, 9).is_err(), "beyond the buffer");
        // O_DIRECT at an odd offset: the kernel's error comes as an event.
        let odd = core.disk_buffer(4096).unwrap();
        core.disk_write(file, 13, odd, 4096, true, 1).unwrap();
        core.disk_sync(file, false, 2).unwrap();
        let full = core.disk_buffer(4096).unwrap();
        let Err(DiskRefused(back)) = core.disk_write(file, 0, full, 4096, true, 3) else {
            panic!("two are in flight")
        };
        assert_eq!(back.len(), 4096);
    });
    core.until(|_, notes| notes.done.len() == 2);
    core.ask(|core, notes| {
        notes.done.sort_by_key(|done| done.0);
        let (1, Err(Some(libc::EINVAL)), Some(_)) = &notes.done[0] else { panic!("an error") };
        notes.done.clear();
        let all: Vec<_> = std::iter::from_fn(|| core.disk_buffer(1)).collect();
        assert_eq!(all.len(), 6, "no buffer is lost");
    });
}

#[test]
fn datagrams_go_to_one_peer_and_an_error_is_not_the_end() {
    for multishot in [true, false] {
        let config = Config { receive_multishot: Some(multishot), ..Config::default() };
        let core = start(config, Notes::default);
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = server.local_addr().unwrap();
        let own = core.ask(move |core, notes| {
            let socket = core.udp_open(peer, None).unwrap();
            notes.socket = Some(socket);
            core.udp_send(socket, b"question");
            core.udp_local(socket).unwrap()
        });
        let mut buffer = [0; 100];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"question"[..], own));
        // From a stranger: the kernel drops it, the socket is connected.
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"forged", own).unwrap();
        server.send_to(b"", own).unwrap();
        server.send_to(b"answer", own).unwrap();
        core.until(|_, notes| notes.datagrams.len() == 2);
        core.ask(|_, notes| {
            let got: Vec<&[u8]> = notes.datagrams.iter().map(|(_, bytes)| &bytes[..]).collect();
            assert_eq!(got, [&b""[..], b"answer"]);
        });
        // More than the ring of buffers holds, in bursts.
        for burst in 0..20u8 {
            for _ in 0..150 {
                server.send_to(&[burst; 100], own).unwrap();
            }
            let expected = 2 + (usize::from(burst) + 1) * 150;
            core.until(move |_, notes| notes.datagrams.len() == expected);
        }
        drop(server);
        core.ask(|core, notes| core.udp_send(notes.socket.unwrap(), b"anyone?"));
        core.until(|core, notes| {
            notes.failed == [Some(libc::ECONNREFUSED)] || core.stats().datagrams_lost == 1
        });
        let server = UdpSocket::bind(peer).unwrap();
        core.ask(|core, notes| {
            core.udp_send(notes.socket.unwrap(), b"again");
            core.udp_send(notes.socket.unwrap(), b"again");
        });
        assert!(server.recv_from(&mut buffer).is_ok());
        core.ask(|core, notes| {
            core.udp_close(notes.socket.unwrap());
            core.udp_send(notes.socket.unwrap(), b"closed");
        });
    }
}

/// Passes a number on to the next core until it has gone round often enough.
struct Relay {
    next: Option<MailboxSender<Task<Self>>>,
    seen: Arc<AtomicU64>,
}

impl Play for Relay {
    fn event(&mut self, _core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        panic!("{event:?}");
    }
}

fn pass(core: &mut Core<Task<Relay>>, relay: &mut Relay, number: u64) {
    relay.seen.fetch_add(1, Ordering::Relaxed);
    if number > 0 {
        let next = relay.next.clone().unwrap();
        let task = Task(Box::new(move |core: &mut _, relay: &mut _| {
            pass(core, relay, number - 1);
        }));
        assert!(core.post(&next, task).is_ok(), "one message at a time");
    }
}

#[test]
fn mail_goes_round_between_cores_and_to_other_threads() {
    let seen = Arc::new(AtomicU64::new(0));
    let make = |seen: &Arc<AtomicU64>| {
        let seen = Arc::clone(seen);
        move || Relay { next: None, seen }
    };
    let (one, two) = (start(Config::default(), make(&seen)), start(Config::default(), make(&seen)));
    for (core, other) in [(&one, &two), (&two, &one)] {
        let sender = other.sender();
        core.ask(move |_, relay| relay.next = Some(sender));
    }
    one.ask(|core, relay| pass(core, relay, 20_000));
    let all = Arc::clone(&seen);
    one.until(move |_, _| all.load(Ordering::Relaxed) == 20_001);
    for core in [&one, &two] {
        core.ask(|_, relay| relay.next = None);
    }

    let (sender, receiver) = engine::mailbox::<u32>(8).unwrap();
    for number in 0..100 {
        let sender = sender.clone();
        one.ask(move |core, _| core.post(&sender, number).unwrap());
        let mut got = None;
        while got.is_none() {
            got = receiver.wait(Duration::from_secs(60));
        }
        assert_eq!(got, Some(number));
    }
    let full = one.ask(move |core, _| (0..9).map(|n| core.post(&sender, n)).collect::<Vec<_>>());
    assert_eq!(full.last(), Some(&Err(8)));
}
