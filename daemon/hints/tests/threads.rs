//! Several threads at once: limits are exact, readers never see half a record.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread;

use hints::limits::FILE_WORDS_MIN;
use hints::offers::Offers;
use hints::standing::{Offence, Offended};
use hints::{Entered, Hints, Kind, Limit, Seed, Sessions, Setup, ShardSet, What};

const NOW: u64 = 1_760_000_000_000_000;
const THREADS: usize = 8;

fn words() -> Vec<AtomicU64> {
    (0..FILE_WORDS_MIN).map(|_| AtomicU64::new(0)).collect()
}

fn format(words: &[AtomicU64]) -> Hints<'_> {
    Hints::format(words, Setup { seed: Seed([3, 4]), node: 1, wall_us: NOW }).unwrap()
}

/// Runs `each` on every thread, started together.
fn together(each: impl Fn(usize) + Sync) {
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for n in 0..THREADS {
            let (barrier, each) = (&barrier, &each);
            scope.spawn(move || {
                barrier.wait();
                each(n);
            });
        }
    });
}

#[test]
fn ten_of_a_hundred_at_once_are_granted() {
    let words = words();
    let hints = format(&words);
    let limit = Limit::new(10, 3_600_000_000);
    // Every round a new key, so that the insertion itself is raced for; in a quarter of the rounds
    // the place was another's, whose time has run out. The clocks of two cores differ a little.
    for round in 0..2_000u64 {
        let now_us = NOW + round * 1_000_000_000;
        let granted = AtomicU32::new(0);
        together(|n| {
            for _ in 0..13 {
                let skewed_us = now_us + (n as u64 % 2) * 5;
                let key = round.to_le_bytes();
                if hints.rate(Kind::RateConnect, &key, limit, skewed_us).allowed {
                    granted.fetch_add(1, Relaxed);
                }
            }
        });
        assert_eq!(granted.load(Relaxed), 10, "round {round}");
    }
}

#[test]
fn a_limit_holds_while_others_crowd_the_bucket() {
    let words = words();
    let hints = format(&words);
    let busy = Limit::new(1_000, 3_600_000_000);
    let small = Limit::new(10, 60_000_000);
    let granted = AtomicU32::new(0);
    together(|n| {
        for m in 0..20_000u64 {
            let other = [n as u64, m].map(u64::to_le_bytes);
            hints.rate(Kind::RateMail, other.as_flattened(), small, NOW);
            if hints.rate(Kind::RateConnect, b"busy", busy, NOW).allowed {
                granted.fetch_add(1, Relaxed);
            }
        }
    });
    // In its first instants, with one grant to its name, the busy one may itself be given up.
    let granted = granted.load(Relaxed);
    assert!((1_000..1_100).contains(&granted), "{granted}");
    assert!(hints.counts().evicted_rates > 100_000);
}

#[test]
fn ten_sessions_of_a_hundred_at_once_are_let_in() {
    let sessions = Sessions::new(1_000, Seed([5, 6]));
    for round in 0..1_000u64 {
        let key = (round % 50).to_le_bytes();
        let most = AtomicU32::new(0);
        let inside = AtomicU32::new(0);
        let granted = AtomicU32::new(0);
        let all_asked = Barrier::new(THREADS);
        together(|_| {
            let mut slots = Vec::new();
            for _ in 0..13 {
                match sessions.enter(&key, 10) {
                    Entered::Counted(slot) => {
                        granted.fetch_add(1, Relaxed);
                        most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                        slots.push(slot);
                    }
                    Entered::Refused => {}
                    Entered::Uncounted => panic!("there is room"),
                }
            }
            all_asked.wait();
            for slot in slots {
                inside.fetch_sub(1, Relaxed);
                sessions.leave(slot);
            }
            // Come and go: never more than ten inside.
            for _ in 0..50 {
                if let Entered::Counted(slot) = sessions.enter(&key, 10) {
                    most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                    inside.fetch_sub(1, Relaxed);
                    sessions.leave(slot);
                }
            }
        });
        assert_eq!(most.load(Relaxed), 10);
        assert!(granted.load(Relaxed) == 10, "{granted:?}");
        assert_eq!(sessions.open(&key), 0);
    }
}

#[test]
fn readers_never_see_half_a_record() {
    let words = words();
    let hints = format(&words);
    let done = AtomicBool::new(false);
    let seen = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let writer = hints.claim(ShardSet::ALL).unwrap();
            for n in 1..300_000u64 {
                let offers = Offers {
                    extensions: n,
                    size_octets_max: !n,
                    recipients_max: u32::try_from(n).unwrap(),
                    messages_max: 7,
                    seen_us: n.rotate_left(17),
                };
                let what = if n % 100 == 0 { What::Remove } else { What::Offered(offers) };
                writer.apply(&hints.change(Kind::Offers, b"one", what, NOW).unwrap());
            }
            done.store(true, Relaxed);
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let mut newest = 0;
                while !done.load(Relaxed) {
                    let Some(offers) = hints.offers(b"one", NOW) else { continue };
                    let n = offers.extensions;
                    assert_eq!(offers.size_octets_max, !n);
                    assert_eq!(u64::from(offers.recipients_max), n);
                    assert_eq!(offers.seen_us, n.rotate_left(17));
                    assert!(n >= newest, "time runs forward");
                    newest = n;
                    seen.fetch_add(1, Relaxed);
                }
            });
        }
    });
    assert!(seen.load(Relaxed) > 1_000);
    // The sequence alone must have kept torn copies out: the checksum never had to.
    assert_eq!(hints.counts().corrupt, 0);
}

#[test]
fn changes_of_all_cores_add_up_at_the_owner() {
    let words = words();
    let hints = format(&words);
    let (post, mailbox) = std::sync::mpsc::channel();
    together(|_| {
        let post = post.clone();
        for _ in 0..1_000 {
            let what = What::Offended(Offended { offence: Offence::Relay, weight_milli: 1 });
            post.send(hints.change(Kind::Standing, b"c", what, NOW).unwrap()).unwrap();
        }
    });
    drop(post);
    let writer = hints.claim(ShardSet::ALL).unwrap();
    for change in mailbox {
        writer.apply(&change);
    }
    let standing = hints.standing(b"c", NOW).unwrap();
    assert_eq!((standing.count(Offence::Relay), standing.score_milli), (8_000, 8_000));
}

#[test]
fn notes_of_dying_threads_are_one_event() {
    let words = words();
    let hints = format(&words);
    for run in 1..200 {
        let now_us = NOW + u64::from(run);
        together(|_| hints.put_note(b"poison", run, now_us));
        assert_eq!(hints.note(b"poison", now_us).unwrap().count, run);
    }
    assert_eq!(hints.counts().notes_lost, 0);
}
