//! Connections over loopback: the ways bytes come and go, and the ways a connection ends.
//!
//! No verdict depends on time: a test that would fail by waiting for ever does just that.

#![allow(clippy::unwrap_used, reason = "a test's way of failing")]

mod harness;

use engine::{Config, Conn, Core, Event};
use harness::{Echo, Play, Task, start};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

/// A stream of bytes that shows loss and disorder.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn both_ways(test: impl Fn(Config)) {
    for multishot in [true, false] {
        test(Config { receive_multishot: Some(multishot), ..Config::default() });
    }
}

/// Writes all bytes from another thread while reading as many back.
fn exchange(client: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut back = vec![0; bytes.len()];
    thread::scope(|scope| {
        scope.spawn(|| (&*client).write_all(bytes).unwrap());
        (&*client).read_exact(&mut back).unwrap();
    });
    back
}

#[test]
fn bytes_come_back_and_the_slot_is_freed() {
    both_ways(|config| {
        let core = start(config, Echo::default);
        for round in 0..3 {
            let client = core.connect();
            let bytes = noise(300_000, round);
            assert!(exchange(&client, &bytes) == bytes);
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!((&client).read(&mut [0]).unwrap(), 0);
        }
        core.until(|core, echo| echo.closed == 3 && core.connections() == (0, 0));
    });
}

/// Says its piece and closes first, whatever comes.
struct Farewell {
    piece: usize,
    closed: bool,
}

impl Play for Farewell {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::Received { conn, .. } => {
                core.send(conn, &vec![b'x'; self.piece]).unwrap();
                core.close(conn);
                assert!(core.send(conn, b"too late").is_err());
            }
            Event::Accepted { .. } => {}
            Event::Closed { .. } => self.closed = true,
            other => panic!("after close only Closed comes: {other:?}"),
        }
    }
}

#[test]
fn a_close_sends_its_fin_while_a_receive_is_armed() {
    both_ways(|config| {
        let core = start(config, || Farewell { piece: 700_000, closed: false });
        let mut client = core.connect();
        client.write_all(b"quit").unwrap();
        let mut all = Vec::new();
        // Ends only if a FIN comes, although this side has not closed.
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 700_000);
        assert!(!core.ask(|_, server| server.closed), "it waits for our FIN");
        // Late bytes are swallowed, not answered with a reset.
        client.write_all(&noise(100_000, 1)).unwrap();
        drop(client);
        core.until(|core, server| server.closed && core.connections().0 == 0);
    });
}

#[test]
fn a_peer_that_never_ends_is_cut_after_the_linger_time() {
    both_ways(|config| {
        let config = Config { linger_us: 20_000, ..config };
        let core = start(config, || Farewell { piece: 4, closed: false });
        let mut client = core.connect();
        client.write_all(b"quit").unwrap();
        core.until(|core, server| server.closed && core.connections().0 == 0);
        // And one that does not even read what we have for it.
        let core = start(
            Config { linger_us: 20_000, out_bytes_max: 64 << 20, ..Config::default() },
            || Farewell { piece: 64 << 20, closed: false },
        );
        client = core.connect();
        client.write_all(b"quit").unwrap();
        core.until(|core, server| server.closed && core.connections().0 == 0);
    });
}

/// Says its piece and is done.
struct Brisk(bool);

impl Play for Brisk {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::Received { conn, .. } => {
                core.send(conn, &vec![b'x'; 700_000]).unwrap();
                core.finish(conn);
            }
            Event::Accepted { .. } => {}
            Event::Closed { .. } => self.0 = true,
            other => panic!("after finish only Closed comes: {other:?}"),
        }
    }
}

#[test]
fn finishing_sends_all_and_does_not_wait_for_the_peer() {
    both_ways(|config| {
        let core = start(config, || Brisk(false));
        let mut client = core.connect();
        client.write_all(b"quit").unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 700_000);
        core.until(|core, brisk| brisk.0 && core.connections().0 == 0);
        drop(client);
    });
}

/// Answers only when the peer has ended.
#[derive(Default)]
struct Patient(Vec<u8>);

impl Play for Patient {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::Received { bytes, .. } => self.0.extend_from_slice(bytes),
            Event::Eof { conn } => {
                core.send_with(conn, self.0.len() + 9, |out| {
                    out[..self.0.len()].copy_from_slice(&self.0);
                    self.0.len()
                })
                .unwrap();
                core.close(conn);
            }
            _ => {}
        }
    }
}

#[test]
fn a_half_closed_connection_still_gets_its_answer() {
    both_ways(|config| {
        let core = start(config, Patient::default);
        let mut client = core.connect();
        let bytes = noise(400_000, 5);
        client.write_all(&bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert!(back == bytes);
        core.until(|core, _| core.connections().0 == 0);
    });
}

fn reset(client: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = libc::socklen_t::try_from(size_of_val(&linger)).unwrap();
    let pointer = (&raw const linger).cast();
    #[expect(unsafe_code, reason = "SO_LINGER is not in std")]
    // SAFETY: the kernel reads one linger from a local.
    let code = unsafe {
        libc::setsockopt(client.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, pointer, size)
    };
    assert_eq!(code, 0);
    drop(client);
}

#[test]
fn a_reset_is_told_once_and_frees_the_slot() {
    both_ways(|config| {
        let core = start(config, Echo::default);
        let client = core.connect();
        core.until(|_, echo| echo.accepted == 1);
        reset(client);
        core.until(|core, echo| echo.closed == 1 && core.connections().0 == 0);
        assert_eq!(core.ask(|_, echo| (echo.broken, echo.ended)), (1, 0));
    });
}

/// Pauses at random, gives back parts, and resumes a little later.
struct Moody {
    state: u64,
    got: Vec<u8>,
    ended: bool,
    pauses: u32,
}

impl Play for Moody {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::Received { conn, bytes } => {
                assert!(!core.is_paused(conn), "nothing is told while paused");
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                let random = usize::try_from(self.state >> 40).unwrap();
                let used =
                    if random.is_multiple_of(3) { random % (bytes.len() + 1) } else { bytes.len() };
                self.got.extend_from_slice(&bytes[..used]);
                if used < bytes.len() || random.is_multiple_of(5) {
                    core.pause_with(conn, &bytes[used..]);
                    self.pauses += 1;
                    match random % 7 {
                        0 => core.resume(conn),
                        later => core.set_conn_timer(conn, core.now_us() + later as u64 * 300),
                    }
                }
            }
            Event::ConnTimer { conn } => core.resume(conn),
            Event::Eof { conn } => {
                self.ended = true;
                core.close(conn);
            }
            Event::Accepted { .. } | Event::Closed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn pausing_loses_and_swaps_no_byte() {
    both_ways(|config| {
        let config = Config { recv_buffers: 32, recv_buffer_bytes: 1024, ..config };
        let core = start(config, || Moody { state: 99, got: Vec::new(), ended: false, pauses: 0 });
        let bytes = noise(2_000_000, 7);
        let mut client = core.connect();
        client.write_all(&bytes).unwrap();
        drop(client);
        core.until(|_, moody| moody.ended);
        assert!(core.ask(move |_, moody| moody.got == bytes), "every byte, in order");
        assert!(core.ask(|_, moody| moody.pauses) > 50);
    });
}

/// Paused from the start.
#[derive(Default)]
struct Deaf {
    conn: Option<Conn>,
    got: usize,
    broken: Option<i32>,
}

impl Play for Deaf {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::Accepted { conn, .. } => {
                self.conn = Some(conn);
                core.pause(conn);
            }
            Event::Received { bytes, .. } => self.got += bytes.len(),
            Event::Broken { error, .. } => self.broken = error.raw_os_error(),
            _ => {}
        }
    }
}

#[test]
fn a_paused_connection_takes_nothing_from_its_peer() {
    both_ways(|config| {
        let core = start(config, Deaf::default);
        let mut client = core.connect();
        client.set_nonblocking(true).unwrap();
        let mut written = 0;
        // Until the kernel's own buffers are full: the core reads nothing.
        let mut full = 0;
        while full < 100 {
            match client.write(&[7; 65_536]) {
                Ok(length) => written += length,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    full += 1;
                    core.ask(|_, _| ());
                }
            }
        }
        assert_eq!(core.ask(|_, deaf| deaf.got), 0);
        core.ask(|core, deaf| core.resume(deaf.conn.unwrap()));
        core.until(move |_, deaf| deaf.got == written);
    });
}

#[test]
fn held_bytes_are_bounded() {
    for (held_bytes_max, breaks) in [(10_000, true), (1 << 20, false)] {
        let receive_multishot = Some(true);
        let core =
            start(Config { held_bytes_max, receive_multishot, ..Config::default() }, Deaf::default);
        let mut client = core.connect();
        core.until(|_, deaf| deaf.conn.is_some());
        core.ask(|core, deaf| core.resume(deaf.conn.unwrap()));
        client.write_all(&[1]).unwrap();
        core.until(|_, deaf| deaf.got == 1);
        // The receive is armed; it is paused while the core stands still and bytes come in, so
        // the kernel hands over many buffers before it hears of it.
        thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel::<()>();
            let (tell_in, told_in) = std::sync::mpsc::channel::<()>();
            let core = &core;
            scope.spawn(move || {
                core.ask(move |core, deaf| {
                    core.pause(deaf.conn.unwrap());
                    tell_in.send(()).unwrap();
                    told.recv().unwrap();
                });
            });
            told_in.recv().unwrap();
            client.write_all(&[2; 60_000]).unwrap();
            tell.send(()).unwrap();
        });
        if breaks {
            core.until(|_, deaf| deaf.broken == Some(libc::ENOBUFS));
        } else {
            core.ask(|core, deaf| core.resume(deaf.conn.unwrap()));
            core.until(|_, deaf| deaf.got == 60_001);
            assert_eq!(core.ask(|_, deaf| deaf.broken), None);
        }
    }
}

#[test]
fn too_few_receive_buffers_slow_down_and_lose_nothing() {
    both_ways(|config| {
        let config = Config { recv_buffers: 2, recv_buffer_bytes: 64, ..config };
        let core = start(config, Echo::default);
        thread::scope(|scope| {
            for seed in 0..40 {
                let client = core.connect();
                scope.spawn(move || {
                    let bytes = noise(20_000, seed);
                    assert!(exchange(&client, &bytes) == bytes);
                });
            }
        });
        core.until(|_, echo| echo.closed == 40);
        let stats = core.ask(|core, _| core.stats());
        assert!(stats.starved > 0, "the test starves: {stats:?}");
    });
}

#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    both_ways(|config| {
        // 16 completions fit.
        let config = Config { sq_entries: 2, ..config };
        let core = start(config, Echo::default);
        let clients: Vec<TcpStream> = (0..300).map(|_| core.connect()).collect();
        core.until(|_, echo| echo.accepted == 300);
        for round in 0..5u8 {
            // The core stands still while everybody writes, so that all completions come at once.
            thread::scope(|scope| {
                let (tell, told) = std::sync::mpsc::channel::<()>();
                let (tell_in, told_in) = std::sync::mpsc::channel::<()>();
                let core = &core;
                scope.spawn(move || {
                    core.ask(move |_, _| {
                        tell_in.send(()).unwrap();
                        told.recv().unwrap();
                    });
                });
                told_in.recv().unwrap();
                for mut client in &clients {
                    client.write_all(&[round; 100]).unwrap();
                }
                tell.send(()).unwrap();
            });
            for mut client in &clients {
                let mut back = [0; 100];
                client.read_exact(&mut back).unwrap();
                assert_eq!(back, [round; 100]);
            }
        }
        let stats = core.ask(|core, _| core.stats());
        assert!(stats.cq_overflows > 0, "the test overflows: {stats:?}");
    });
}

/// Swallows what the first connection sends, echoes for the others; notes the most bytes of a
/// turn.
#[derive(Default)]
struct Beside {
    flooder: Option<Conn>,
    turn: usize,
    turn_max: usize,
}

impl Play for Beside {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::Accepted { conn, .. } => _ = self.flooder.get_or_insert(conn),
            Event::Received { conn, bytes } if Some(conn) == self.flooder => {
                self.turn += bytes.len();
            }
            Event::Received { conn, bytes } => core.send(conn, bytes).unwrap(),
            Event::Eof { conn } => core.close(conn),
            _ => {}
        }
    }

    fn turn_end(&mut self, _core: &mut Core<Task<Self>>) {
        self.turn_max = self.turn_max.max(self.turn);
        self.turn = 0;
    }
}

#[test]
fn a_flooder_does_not_stop_its_neighbour() {
    both_ways(|config| {
        let config = Config { recv_buffers: 64, ..config };
        let bound = usize::from(config.recv_buffers) * config.recv_buffer_bytes as usize;
        let core = start(config, Beside::default);
        let flooder = core.connect();
        core.until(|_, beside| beside.flooder.is_some());
        let other = core.connect();
        thread::scope(|scope| {
            scope.spawn(|| while (&flooder).write_all(&[0; 1 << 20]).is_ok() {});
            for round in 0..2000 {
                let bytes = noise(60, round);
                assert!(exchange(&other, &bytes) == bytes);
            }
            flooder.shutdown(Shutdown::Both).unwrap();
        });
        let most = core.ask(|_, beside| beside.turn_max);
        assert!(most > 0 && most <= bound, "a turn is bounded by the buffers: {most}");
    });
}

/// Turns away what finds no slot, or passes it to another core.
#[derive(Default)]
struct Crowded {
    overflowed: Vec<OwnedFd>,
    refuse: bool,
}

impl Play for Crowded {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::Overflow { fd, listener: 1, .. } if self.refuse => {
                core.refuse(fd, b"421 too many\r\n");
            }
            Event::Overflow { fd, .. } => self.overflowed.push(fd),
            Event::Received { conn, bytes } => core.send(conn, bytes).unwrap(),
            Event::Eof { conn } => core.close(conn),
            _ => {}
        }
    }
}

#[test]
fn without_a_slot_a_connection_is_refused_or_handed_on() {
    let config = Config { connections_max: 2, outgoing_max: 1, ..Config::default() };
    let core = start(config, || Crowded { refuse: true, ..Crowded::default() });
    let inside = [core.connect(), core.connect()];
    core.until(|core, _| core.connections().0 == 2);
    for _ in 0..20 {
        let mut text = String::new();
        core.connect().read_to_string(&mut text).unwrap();
        assert_eq!(text, "421 too many\r\n");
    }
    assert_eq!(exchange(&inside[1], b"still served"), b"still served");

    // Another core takes over what this one cannot.
    let second = start(Config::default(), Echo::default);
    core.ask(|_, crowded| crowded.refuse = false);
    let moved = core.connect();
    core.until(|_, crowded| !crowded.overflowed.is_empty());
    let fd = core.ask(|_, crowded| crowded.overflowed.pop().unwrap());
    second.ask(move |core, _| core.adopt(fd, 1).map(drop).unwrap());
    assert_eq!(exchange(&moved, b"moved"), b"moved");
    assert_eq!(second.ask(|_, echo| echo.accepted), 1);
}

/// Connects, and keeps what becomes of it.
#[derive(Default)]
struct Caller {
    results: Vec<Option<i32>>,
    got: Vec<u8>,
    closed: u32,
}

impl Play for Caller {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::Connected { conn, result } => {
                self.results.push(result.as_ref().err().and_then(std::io::Error::raw_os_error));
                if result.is_ok() {
                    core.send(conn, b"hello").unwrap();
                    core.want_drained(conn);
                }
            }
            Event::Drained { conn } => core.shutdown_write(conn),
            Event::Received { bytes, .. } => self.got.extend_from_slice(bytes),
            Event::Eof { conn } => core.close(conn),
            Event::Closed { .. } => self.closed += 1,
            Event::Accepted { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn connections_are_made_even_when_the_house_is_full() {
    let config = Config { connections_max: 1, outgoing_max: 1, ..Config::default() };
    let server = start(Config::default(), Patient::default);
    let core = start(config, Caller::default);
    let _guest = core.connect();
    core.until(|core, _| core.connections().0 == 1);
    let peer = server.address;
    let bind = "127.0.0.9".parse().ok();
    core.ask(move |core, _| {
        let conn = core.connect(peer, bind, u64::MAX).unwrap();
        assert_eq!(core.peer(conn), Some(peer));
        let full = core.connect(peer, None, u64::MAX).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(libc::ENOBUFS));
    });
    core.until(|core, caller| caller.closed == 1 && core.connections().1 == 0);
    assert_eq!(
        core.ask(|_, caller| (caller.got.clone(), caller.results.clone())),
        (b"hello".to_vec(), vec![None])
    );
}

#[test]
fn a_connection_refused_or_too_slow_is_told_and_closed() {
    let core = start(Config::default(), Caller::default);
    let nobody: SocketAddr = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    core.ask(move |core, _| core.connect(nobody, None, u64::MAX).map(drop).unwrap());
    core.until(|_, caller| caller.closed == 1);
    assert_eq!(core.ask(|_, caller| caller.results.clone()), [Some(libc::ECONNREFUSED)]);

    // A listener whose queue is full drops SYNs.
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    #[expect(unsafe_code, reason = "std gives no say in the backlog")]
    // SAFETY: no memory is passed.
    let code = unsafe { libc::listen(full.as_raw_fd(), 0) };
    assert_eq!(code, 0);
    let peer = full.local_addr().unwrap();
    let _queued = TcpStream::connect(peer).unwrap();
    core.ask(move |core, _| {
        core.connect(peer, None, core.now_us() + 50_000).map(drop).unwrap();
    });
    core.until(|core, caller| caller.closed == 2 && core.connections().1 == 0);
    let results = core.ask(|_, caller| caller.results.clone());
    assert_eq!(results[1], Some(libc::ETIMEDOUT));

    // Aborted while it is being made: only Closed comes.
    core.ask(move |core, _| {
        let conn = core.connect(peer, None, u64::MAX).unwrap();
        core.abort(conn);
    });
    core.ask(move |core, _| core.connect(peer, None, u64::MAX).map(drop).unwrap());
    core.until(|_, caller| caller.closed == 3);
    assert_eq!(core.ask(|_, caller| caller.results.len()), 2);
    // The last one is still connecting when the core stops.
}

#[test]
fn a_closed_listener_lets_another_core_have_the_port() {
    let core = start(Config::default(), Echo::default);
    let address = core.address;
    let twin = start(Config::default(), Echo::default);
    twin.ask(move |core, _| core.listen(address, 1).map(drop).unwrap());
    for _ in 0..20 {
        let client = core.connect();
        assert_eq!(exchange(&client, b"x"), b"x");
    }
    let both = core.ask(|_, echo| echo.accepted) + twin.ask(|_, echo| echo.accepted);
    assert_eq!(both, 20);
    drop(core);
    for _ in 0..20 {
        let client = TcpStream::connect(address).unwrap();
        assert_eq!(exchange(&client, b"y"), b"y");
    }
}

/// Keeps the addresses of what comes in.
#[derive(Default)]
struct Names(Vec<(SocketAddr, SocketAddr)>);

impl Play for Names {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::Accepted { conn, peer, local, .. } => {
                assert_eq!(core.local(conn), Some(local));
                self.0.push((peer, local));
            }
            Event::Eof { conn } => core.close(conn),
            _ => {}
        }
    }
}

#[test]
fn both_ends_are_named_in_both_families() {
    let core = start(Config::default(), Names::default);
    for (bound, reached) in [("[::]:0", "::1"), ("0.0.0.0:0", "127.0.0.3"), ("[::1]:0", "::1")] {
        let bound: SocketAddr = bound.parse().unwrap();
        let port = core.ask(move |core, _| {
            let listener = core.listen(bound, 2).unwrap();
            core.listener_address(listener).unwrap().port()
        });
        let address = SocketAddr::new(reached.parse().unwrap(), port);
        let client = TcpStream::connect(address).unwrap();
        let own = client.local_addr().unwrap();
        core.until(|_, names| !names.0.is_empty());
        assert_eq!(core.ask(|_, names| names.0.pop()), Some((own, address)));
    }
}

/// Counts, and hears of listeners that end.
#[derive(Default)]
struct Gate {
    accepted: u32,
    ended: Vec<(u32, bool)>,
}

impl Play for Gate {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::Accepted { conn, .. } => {
                self.accepted += 1;
                core.send(conn, b"220\r\n").unwrap();
                core.finish(conn);
            }
            Event::ListenerClosed { listener, error } => {
                self.ended.push((listener, error.is_some()));
            }
            _ => {}
        }
    }
}

#[test]
fn a_paused_listener_keeps_its_queue_and_a_closed_one_is_told() {
    let core = start(Config::default(), Gate::default);
    let (listener, address) = core.ask(|core, _| {
        let listener = core.listen("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        (listener, core.listener_address(listener).unwrap())
    });
    let greeted = || {
        let mut text = String::new();
        TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(greeted(), "220\r\n");
    core.ask(move |core, _| core.pause_listener(listener));
    // The cancellation is submitted with the turn that paused, ahead of this answer's next.
    core.ask(|_, _| ());
    let mut waiting = TcpStream::connect(address).unwrap();
    core.ask(|_, _| ());
    assert_eq!(core.ask(|_, gate| gate.accepted), 1, "it waits in the kernel's queue");
    core.ask(move |core, _| core.resume_listener(listener));
    let mut text = String::new();
    waiting.read_to_string(&mut text).unwrap();
    assert_eq!(text, "220\r\n");
    core.ask(move |core, _| core.close_listener(listener));
    core.until(|_, gate| gate.ended == [(2, false)]);
    core.ask(move |core, _| {
        core.resume_listener(listener);
        assert_eq!(core.listener_address(listener), None);
    });
    assert!(TcpStream::connect(address).is_err());
}
