//! What can only be tested from inside: completions that should not be there.

use super::*;
use crate::handle::{Op, Word};
use crate::mailbox::mailbox;
use std::io::Write;
use std::net::TcpStream;

/// Keeps what it is told.
#[derive(Default)]
struct Ears {
    accepted: Vec<Conn>,
    closed: Vec<Conn>,
    received: Vec<u8>,
    other: Vec<String>,
}

impl Handler<()> for Ears {
    fn event(&mut self, core: &mut Core<()>, event: Event<'_, ()>) {
        match event {
            Event::Accepted { conn, .. } => self.accepted.push(conn),
            Event::Closed { conn } => self.closed.push(conn),
            Event::Received { bytes, .. } => self.received.extend_from_slice(bytes),
            Event::Eof { conn } => core.close(conn),
            other => self.other.push(format!("{other:?}")),
        }
    }

    fn turn_end(&mut self, _core: &mut Core<()>) {}
}

fn core() -> Core<()> {
    let (_, mailbox) = mailbox(1).unwrap();
    Core::new(Config::default(), &Probe::detect().unwrap(), mailbox).unwrap()
}

#[test]
fn completions_of_an_earlier_use_of_the_slot_find_nothing() {
    let (mut core, mut ears) = (core(), Ears::default());
    let listener = core.listen("127.0.0.1:0".parse().unwrap(), 0).unwrap();
    let address = core.listener_address(listener).unwrap();
    drop(TcpStream::connect(address).unwrap());
    while ears.closed.is_empty() {
        core.turn(&mut ears).unwrap();
    }
    let mut second = TcpStream::connect(address).unwrap();
    while ears.accepted.len() < 2 {
        core.turn(&mut ears).unwrap();
    }
    let [old, new] = ears.accepted[..] else { panic!("two connections") };
    assert_eq!(old.index(), new.index(), "the slot is used again");
    assert_ne!(old, new);
    let ops = [Op::Receive, Op::Send, Op::Shutdown, Op::Close, Op::Connect, Op::Socket];
    for op in ops {
        for result in [0, 5, -libc::ECONNRESET, -libc::ENOBUFS] {
            let word = Word::unpack(Word::pack(op, old.key())).unwrap();
            core.dispatch(Completion { word, result, flags: 0 }, &mut ears);
        }
    }
    assert_eq!(core.stats().stale, 24);
    // Nor does the old handle reach the new connection.
    core.abort(old);
    core.close(old);
    core.pause(old);
    assert_eq!(core.send(old, b"x"), Err(SendRefused::Closed));
    second.write_all(b"still here").unwrap();
    while ears.received != b"still here" {
        core.turn(&mut ears).unwrap();
    }
    assert_eq!(ears.closed, [old]);
    assert!(ears.other.is_empty(), "{:?}", ears.other);
}

#[test]
fn the_ring_refuses_what_the_engine_does_not_use() {
    for (restrict, expected) in [(true, -libc::EACCES), (false, 0)] {
        let config = Config { restrict, ..Config::default() };
        let mut ring = Ring::new(&config).unwrap();
        ring.enable(restrict).unwrap();
        let word = Word::pack(Op::Wake, (0, 0));
        // SAFETY: names no memory and no descriptor.
        unsafe { ring.push(opcode::Nop::new().build().user_data(word)) };
        let mut done = Vec::new();
        while done.is_empty() {
            ring.enter(1_000_000).unwrap();
            ring.drain(&mut done);
        }
        assert_eq!(done[0].result, expected);
    }
}

#[test]
fn more_requests_than_the_queue_holds_are_not_lost() {
    let config = Config { restrict: false, sq_entries: 4, ..Config::default() };
    let mut ring = Ring::new(&config).unwrap();
    ring.enable(false).unwrap();
    let mut done = Vec::new();
    for index in 0..1000 {
        let word = Word::pack(Op::Wake, (index, 0));
        // SAFETY: names no memory and no descriptor.
        unsafe { ring.push(opcode::Nop::new().build().user_data(word)) };
    }
    while done.len() < 1000 {
        ring.enter(1_000_000).unwrap();
        ring.drain(&mut done);
    }
    let mut order: Vec<u32> = done.iter().map(|done| done.word.index).collect();
    order.sort_unstable();
    assert!(order.into_iter().eq(0..1000));
    assert_eq!(ring.overflow(), 0);
}

#[test]
fn timers_come_in_order_and_cancelled_ones_do_not() {
    struct Tokens(Vec<u64>);
    impl Handler<()> for Tokens {
        fn event(&mut self, core: &mut Core<()>, event: Event<'_, ()>) {
            let Event::Timer { token } = event else { panic!("{event:?}") };
            assert!(core.now_us() >= token, "not early");
            self.0.push(token);
        }
        fn turn_end(&mut self, _core: &mut Core<()>) {}
    }
    let mut core = core();
    let now = core.now_us();
    let deadlines = [now + 30_000, now + 3_000, now + 90_000];
    for deadline in deadlines {
        core.set_timer(deadline, deadline).unwrap();
    }
    let cancelled = core.set_timer(now + 20_000, 0).unwrap();
    assert!(core.cancel_timer(cancelled));
    assert!(!core.cancel_timer(cancelled));
    let mut tokens = Tokens(Vec::new());
    while tokens.0.len() < 3 {
        core.turn(&mut tokens).unwrap();
    }
    assert_eq!(tokens.0, [now + 3_000, now + 30_000, now + 90_000]);
    assert!(core.stats().turns < 100, "sleeps between: {}", core.stats().turns);
    assert!(core.heartbeat().last_turn_us() >= now + 90_000);
}

#[test]
fn timers_of_the_handler_leave_room_for_those_of_connections() {
    let (_, mailbox) = mailbox(1).unwrap();
    let config = Config { timers_max: 2, ..Config::default() };
    let mut core: Core<()> = Core::new(config, &Probe::detect().unwrap(), mailbox).unwrap();
    let now = core.now_us();
    let first = core.set_timer(now, 1).unwrap();
    core.set_timer(now, 2).unwrap();
    assert_eq!(core.set_timer(now, 3), None);
    assert!(core.cancel_timer(first));
    core.set_timer(now, 4).unwrap();
    let mut ears = Ears::default();
    while ears.other.len() < 2 {
        core.turn(&mut ears).unwrap();
    }
    assert!(core.set_timer(now, 5).is_some() && core.set_timer(now, 6).is_some());
}
