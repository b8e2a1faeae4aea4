//! Nanoseconds of a rate check and of a look-up, hit and miss: `cargo bench -p hints`.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use hints::offers::Offers;
use hints::{Hints, Kind, Limit, Seed, Sessions, Setup, ShardSet, What};

const NOW: u64 = 1_760_000_000_000_000;
const TURNS: u64 = 2_000_000;

fn measure(what: &str, mut turn: impl FnMut(u64)) {
    let mut best_ns = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for n in 0..TURNS {
            turn(n);
        }
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let each_ns = start.elapsed().as_nanos() as f64 / TURNS as f64;
        best_ns = best_ns.min(each_ns);
    }
    println!("{what:<44} {best_ns:7.1} ns");
}

fn key(n: u64, keys: u64) -> [u8; 5] {
    let b = (n.wrapping_mul(0x9e37_79b9) % keys).to_le_bytes();
    [4, b[0], b[1], b[2], b[3]]
}

fn main() {
    // 16 MiB, as the daemon's default.
    let words: Vec<AtomicU64> = (0..2 * 1024 * 1024).map(|_| AtomicU64::new(0)).collect();
    let setup = Setup { seed: Seed([1, 2]), node: 0, wall_us: NOW };
    let hints = Hints::format(&words, setup).expect("large enough");
    let limit = Limit::new(1_000_000, 60_000_000);
    for keys in [1, 1_000, 50_000] {
        measure(&format!("rate, {keys} keys"), |n| {
            black_box(hints.rate(Kind::RateConnect, &key(n, keys), limit, NOW + n));
        });
    }
    let refusing = Limit::new(1, 86_400_000_000);
    measure("rate, refused", |n| {
        black_box(hints.rate(Kind::RateMail, &key(n, 1_000), refusing, NOW));
    });
    let writer = hints.claim(ShardSet::ALL).expect("nobody else");
    for n in 0..10_000 {
        let what = What::Offered(Offers { extensions: n, ..Offers::default() });
        writer.apply(&hints.change(Kind::Offers, &key(n, 10_000), what, NOW).expect("fits"));
    }
    for keys in [1, 1_000, 10_000] {
        measure(&format!("get, hit, {keys} keys"), |n| {
            black_box(hints.offers(&key(n, keys), NOW));
        });
    }
    measure("get, miss", |n| {
        black_box(hints.health(&key(n, 10_000), NOW));
    });
    measure("change and apply, 1000 keys", |n| {
        let what = What::Offered(Offers { extensions: n, ..Offers::default() });
        let change = hints.change(Kind::Offers, &key(n, 1_000), what, NOW).expect("fits");
        black_box(writer.apply(&change));
    });
    let sessions = Sessions::new(10_000, Seed([1, 2]));
    measure("session enter and leave, 1000 keys", |n| {
        if let hints::Entered::Counted(slot) = sessions.enter(&key(n, 1_000), 10) {
            sessions.leave(slot);
        }
    });
    let start = Instant::now();
    drop(writer);
    let opened = Hints::open(&words, setup).expect("large enough");
    println!("open 16 MiB: {:.1} ms; {}", start.elapsed().as_secs_f64() * 1e3, opened.report);
}
