//! The tables against a model, against clocks, against a kill, and against flipped bits.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hints::health::{Class, Ended, Health, Rule};
use hints::limits::{FILE_WORDS_MIN, FUTURE_US_MAX};
use hints::offers::Offers;
use hints::retry::{Failed, Reply};
use hints::standing::{Offence, Offended, Standing};
use hints::{Applied, Hints, Kind, Limit, Opened, Seed, Setup, ShardSet, Start, Value, What};
use proptest::prelude::*;

const NOW: u64 = 1_760_000_000_000_000;
const DAY_US: u64 = 86_400_000_000;

fn words(n: usize) -> Vec<AtomicU64> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

fn setup(wall_us: u64) -> Setup {
    Setup { seed: Seed([0x0123, 0x4567]), node: 7, wall_us }
}

fn open(words: &[AtomicU64], wall_us: u64) -> Opened<'_> {
    Hints::open(words, setup(wall_us)).unwrap()
}

fn apply(hints: &Hints<'_>, kind: Kind, key: &[u8], what: What, now_us: u64) -> Applied {
    let writer = hints.claim(ShardSet::ALL).unwrap();
    writer.apply(&hints.change(kind, key, what, now_us).unwrap())
}

fn offers(n: u64) -> Offers {
    Offers { extensions: n, size_octets_max: n * 3, seen_us: NOW, ..Offers::default() }
}

#[test]
fn a_record_survives_a_restart_with_all_it_says() {
    let words = words(FILE_WORDS_MIN);
    let opened = open(&words, NOW);
    assert_eq!(opened.report.start, Start::Fresh("new file"));
    let reply = Reply::new(451, [4, 7, 1], b"come back later");
    let failed = What::Failed(Failed { next_us: NOW + 5, reply });
    assert_eq!(apply(&opened.hints, Kind::Retry, b"example.org", failed, NOW), Applied::Inserted);
    assert_eq!(apply(&opened.hints, Kind::Retry, b"example.org", failed, NOW), Applied::Changed);
    let long = [b'x'; 500];
    apply(&opened.hints, Kind::Offers, &long, What::Offered(offers(9)), NOW);
    opened.hints.rate(Kind::RateMail, b"k", Limit::new(2, DAY_US), NOW);

    let Opened { hints, report } = open(&words, NOW + 1);
    assert_eq!(
        report.to_string(),
        "hints: kept 2 records and 1 rates, 0 expired, 0 unreadable dropped"
    );
    let record = hints.get(Kind::Retry, b"example.org", NOW + 1).unwrap();
    assert_eq!(
        (record.key.octets(), record.origin, record.written_us),
        (&b"example.org"[..], 7, NOW)
    );
    let retry = hints.retry(b"example.org", NOW + 1).unwrap();
    assert_eq!((retry.tries, retry.next_us, retry.reply), (2, NOW + 5, reply));
    assert_eq!(hints.offers(&long, NOW + 1), Some(offers(9)));
    assert_eq!(hints.offers(&long[1..], NOW + 1), None);
    assert_eq!(hints.rate_by(Kind::RateMail, b"k", Limit::new(2, DAY_US), 0, NOW + 1).remaining, 1);
    assert_eq!(apply(&hints, Kind::Retry, b"example.org", What::Remove, NOW), Applied::Removed);
    assert_eq!(apply(&hints, Kind::Retry, b"example.org", What::Remove, NOW), Applied::Absent);
    assert_eq!(hints.retry(b"example.org", NOW + 1), None);
}

#[test]
fn a_shard_has_one_writer_and_a_change_finds_it() {
    let words = words(FILE_WORDS_MIN * 16);
    let hints = open(&words, NOW).hints;
    let first = hints.claim(ShardSet::of_core(0, 2)).unwrap();
    assert!(hints.claim(ShardSet::ALL).is_none());
    let second = hints.claim(ShardSet::of_core(1, 2)).unwrap();
    for n in 0..100u64 {
        let what = What::Offered(offers(n));
        let change = hints.change(Kind::Offers, &n.to_le_bytes(), what, NOW).unwrap();
        let owner = ShardSet::owner(change.shard(), 2);
        let (mine, other) = if owner == 0 { (&first, &second) } else { (&second, &first) };
        assert_eq!(other.apply(&change), Applied::NotMine);
        assert_eq!(mine.apply(&change), Applied::Inserted);
    }
    drop((first, second));
    assert!(hints.claim(ShardSet::ALL).is_some());
    assert!(hints.change(Kind::Retry, b"k", What::Offered(offers(1)), NOW).is_none());
    assert!(hints.change(Kind::RateMail, b"k", What::Remove, NOW).is_none());
}

#[test]
fn clocks_that_step_make_misses_and_nothing_worse() {
    let words = words(FILE_WORDS_MIN);
    let hints = open(&words, NOW).hints;
    let limit = Limit::new(3, 60_000_000);
    apply(&hints, Kind::Offers, b"k", What::Offered(offers(1)), NOW);
    for _ in 0..4 {
        hints.rate(Kind::RateMail, b"c", limit, NOW);
    }
    assert!(!hints.rate(Kind::RateMail, b"c", limit, NOW).allowed);
    // A small step back is nothing; beyond a day the record is from the future.
    assert!(hints.offers(b"k", NOW - FUTURE_US_MAX).is_some());
    assert!(!hints.rate(Kind::RateMail, b"c", limit, NOW - 1_000_000).allowed);
    for wall_us in [0, NOW - FUTURE_US_MAX - 1, 4_070_908_800_000_000, u64::MAX] {
        assert_eq!(hints.offers(b"k", wall_us), None);
    }
    // A limit used at 1970 must not be spent for ever, nor at 2099.
    for wall_us in [0, 4_070_908_800_000_000] {
        let granted = (0..9).filter(|_| hints.rate(Kind::RateMail, b"c", limit, wall_us).allowed);
        assert_eq!(granted.count(), 3);
    }
    assert!(hints.offers(b"k", NOW).is_some(), "back in time, it counts again");
    // In 1970 a record of today is taken over by the new one.
    assert_eq!(apply(&hints, Kind::Offers, b"k", What::Offered(offers(2)), 5), Applied::Changed);
    assert_eq!(hints.offers(b"k", 6), Some(offers(2)));
}

#[test]
fn a_rate_is_a_burst_and_then_its_pace() {
    let words = words(FILE_WORDS_MIN);
    let hints = open(&words, NOW).hints;
    let limit = Limit::new(10, 10_000_000);
    let mut granted = 0;
    // Asked a hundred times a second for 20 s: 10 at once, then one a second.
    for n in 0..2_000 {
        granted += u32::from(hints.rate(Kind::RateConnect, b"c", limit, NOW + n * 10_000).allowed);
    }
    assert_eq!(granted, 29);
    assert!(hints.rate(Kind::RateMail, b"c", limit, NOW).allowed, "another kind, another rate");
    let verdict = hints.rate(Kind::RateConnect, b"c", limit, NOW + 20_000_000 - 10_000);
    assert!(!verdict.allowed && verdict.retry_after_us <= 1_000_000);
    let later = NOW + 20_000_000 - 10_000 + verdict.retry_after_us;
    assert!(hints.rate(Kind::RateConnect, b"c", limit, later).allowed);
    assert!(hints.forget_rate(Kind::RateConnect, b"c"));
    assert!(!hints.forget_rate(Kind::RateConnect, b"c"));
    assert_eq!(hints.rate(Kind::RateConnect, b"c", limit, NOW).remaining, 9);
}

#[test]
fn full_buckets_give_up_the_oldest_and_count_it() {
    let words = words(FILE_WORDS_MIN);
    let hints = open(&words, NOW).hints;
    let mut evicted = 0;
    for n in 0..5_000u64 {
        let what = What::Offered(offers(n));
        let applied = apply(&hints, Kind::Offers, &n.to_le_bytes(), what, NOW + n);
        evicted += u64::from(applied == Applied::Evicted);
        assert_eq!(hints.offers(&n.to_le_bytes(), NOW + n), Some(offers(n)));
    }
    let now_us = NOW + 5_000;
    let left = (0..5_000u64).filter(|n| hints.offers(&n.to_le_bytes(), now_us).is_some()).count();
    assert_eq!(left as u64 + evicted, 5_000);
    assert_eq!(hints.counts().evicted_records, evicted);
    assert!(evicted > 4_000);
    // The last ones of all shards are among those left.
    assert!((4_980..5_000u64).all(|n| hints.offers(&n.to_le_bytes(), now_us).is_some()));
    let pages: Vec<_> = hints.records(0, now_us).map(|(_, record)| record).collect();
    assert_eq!(pages.len(), left);
    let (cursor, _) = hints.records(0, now_us).nth(9).unwrap();
    assert_eq!(hints.records(cursor, now_us).next().unwrap().1, pages[10]);
    let expired_us = now_us + 31 * DAY_US;
    assert_eq!(hints.records(0, expired_us).count(), 0);
    let writer = hints.claim(ShardSet::ALL).unwrap();
    assert_eq!(writer.tidy(expired_us) as usize, left);
}

#[test]
fn full_rate_buckets_keep_the_busiest() {
    let words = words(FILE_WORDS_MIN);
    let hints = open(&words, NOW).hints;
    let limit = Limit::new(10, 3_600_000_000);
    for _ in 0..11 {
        hints.rate(Kind::RateConnect, b"busy", limit, NOW);
    }
    for n in 0..50_000u32 {
        assert!(hints.rate(Kind::RateConnect, &n.to_le_bytes(), limit, NOW).allowed);
    }
    assert!(hints.counts().evicted_rates > 40_000);
    assert!(!hints.rate(Kind::RateConnect, b"busy", limit, NOW).allowed);
    let busy = hints.rates(0, NOW).find(|(_, rate)| {
        rate.name.as_ref().is_some_and(|(kind, key)| *kind == Kind::RateConnect && key == b"busy")
    });
    assert!(busy.unwrap().1.ahead_us > 3_599_000_000);
    assert!(hints.rates(0, NOW).all(|(_, rate)| rate.name.is_some()));
    let running = hints.rates(0, NOW).count();
    assert_eq!(hints.tidy_rates(NOW + 3_600_000_000 + 1_000_000) as usize, running);
    assert_eq!(hints.rates(0, NOW).count(), 0);
}

#[test]
fn notes_count_runs() {
    let words = words(FILE_WORDS_MIN);
    let hints = open(&words, NOW).hints;
    hints.put_note(b"message", 1, NOW);
    hints.put_note(b"message", 1, NOW + 1);
    assert_eq!(hints.note(b"message", NOW + 2).unwrap().count, 1);
    let hints = open(&words, NOW + 3).hints;
    hints.put_note(b"message", 2, NOW + 3);
    let note = hints.note(b"message", NOW + 4).unwrap();
    assert_eq!((note.count, note.first_us, note.last_us), (2, NOW, NOW + 3));
    assert!(hints.forget_note(b"message") && !hints.forget_note(b"message"));
    assert_eq!(hints.note(b"message", NOW + 5), None);
    for n in 0..10_000u32 {
        hints.put_note(&n.to_le_bytes(), 3, NOW + u64::from(n));
    }
    assert_eq!(hints.counts().notes_lost, 0);
    assert!(hints.note(&9_999u32.to_le_bytes(), NOW + 10_000).is_some());
}

#[test]
fn broken_headers_begin_afresh_with_a_reason() {
    let reasons = [
        (0, "not a hints file, or of the other byte order"),
        (1, "layout of another version"),
        (2, "file of another size"),
        (3, "header checksum is wrong"),
        (5, "header checksum is wrong"),
        (7, "header checksum is wrong"),
    ];
    for (at, reason) in reasons {
        let words = words(FILE_WORDS_MIN);
        apply(&open(&words, NOW).hints, Kind::Offers, b"k", What::Offered(offers(1)), NOW);
        words[at].fetch_xor(0x10, Relaxed);
        let opened = open(&words, NOW);
        assert_eq!(opened.report.start, Start::Fresh(reason));
        assert_eq!(opened.report.to_string(), format!("hints: fresh start ({reason})"));
        assert_eq!(opened.hints.offers(b"k", NOW), None);
        assert_eq!(open(&words, NOW).report.start, Start::Kept);
    }
    assert!(Hints::open(&words(FILE_WORDS_MIN - 1), setup(NOW)).is_err());
}

#[test]
fn a_writer_killed_in_mid_write_costs_one_record() {
    let words = words(FILE_WORDS_MIN);
    let hints = open(&words, NOW).hints;
    let before: Vec<u64> = words.iter().map(|word| word.load(Relaxed)).collect();
    apply(&hints, Kind::Offers, b"k", What::Offered(offers(1)), NOW);
    let sequence = (0..words.len()).find(|&at| words[at].load(Relaxed) != before[at]).unwrap();
    words[sequence].fetch_add(1, Relaxed);
    assert_eq!(hints.offers(b"k", NOW), None);
    assert_eq!(hints.counts().torn, 1);
    let opened = open(&words, NOW);
    assert_eq!((opened.report.records, opened.report.dropped), (0, 1));
    let applied = apply(&opened.hints, Kind::Offers, b"k", What::Offered(offers(2)), NOW);
    assert_eq!(applied, Applied::Inserted);
    assert_eq!(opened.hints.offers(b"k", NOW), Some(offers(2)));
}

#[test]
fn a_copy_leads_back() {
    let first = words(FILE_WORDS_MIN);
    let hints = open(&first, NOW).hints;
    apply(&hints, Kind::Offers, b"k", What::Offered(offers(1)), NOW);
    let copy = hints.snapshot();
    let second = words(FILE_WORDS_MIN);
    copy.restore(&second).unwrap();
    let opened = open(&second, NOW);
    assert_eq!((opened.report.start, opened.report.records), (Start::Kept, 1));
    assert_eq!(opened.hints.offers(b"k", NOW), Some(offers(1)));
    assert!(copy.restore(&words(5)).is_err());
}

#[derive(Clone, Debug)]
enum Op {
    Offered(u8, u64),
    Offended(u8, u32),
    Ended(u8, bool),
    Remove(u8),
    Later(u64),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (any::<u8>(), any::<u64>()).prop_map(|(k, n)| Op::Offered(k % 24, n)),
        3 => (any::<u8>(), 0..9_000u32).prop_map(|(k, n)| Op::Offended(k % 24, n)),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(k, fine)| Op::Ended(k % 24, fine)),
        2 => any::<u8>().prop_map(|k| Op::Remove(k % 24)),
        2 => (0..2 * DAY_US).prop_map(Op::Later),
        1 => Just(Op::Reopen),
    ]
}

/// The change that an operation makes.
fn change_of(op: &Op, now_us: u64) -> (Kind, u8, What) {
    match *op {
        Op::Offered(k, n) => {
            let offers = Offers { extensions: n, seen_us: now_us, ..Offers::default() };
            (Kind::Offers, k, What::Offered(offers))
        }
        Op::Offended(k, weight_milli) => {
            let offended = Offended { offence: Offence::Early, weight_milli };
            (Kind::Standing, k, What::Offended(offended))
        }
        Op::Ended(k, fine) => {
            let class = if fine { Class::Fine } else { Class::TimedOut };
            (Kind::Health, k, What::Ended(Ended { class, rule: RULE, jitter: 5 }))
        }
        Op::Remove(k) => (Kind::Offers, k, What::Remove),
        Op::Later(_) | Op::Reopen => unreachable!("they change no record"),
    }
}

/// What a map of values would say after a change, and for how many days.
fn value_after(old: Option<Value>, what: What, now_us: u64) -> Option<(Value, u64)> {
    match (what, old) {
        (What::Offered(offers), _) => Some((Value::Offers(offers), 30)),
        (What::Offended(offended), old) => {
            let old = if let Some(Value::Standing(old)) = old { Some(old) } else { None };
            Some((Value::Standing(Standing::after(old, &offended, now_us)), 1))
        }
        (What::Ended(ended), old) => {
            let old = if let Some(Value::Health(old)) = old { Some(old) } else { None };
            Some((Value::Health(Health::after(old, &ended, now_us)), 1))
        }
        _ => None,
    }
}

/// One key for each number, some of them too long to be kept whole and alike in what is kept.
fn key(number: u8) -> Vec<u8> {
    let mut key = vec![b'k'; if number.is_multiple_of(3) { 70 } else { 0 }];
    key.push(number);
    key
}

const RULE: Rule = Rule { failures_min: 1, pause_us_min: 1_000, pause_us_max: 64_000 };

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn records_are_as_a_map_says(ops in prop::collection::vec(op(), 1..200)) {
        // Large enough that no bucket of the few keys is ever full.
        let words = words(FILE_WORDS_MIN * 16);
        let mut hints = open(&words, NOW).hints;
        let mut model: HashMap<(Kind, u8), (Value, u64)> = HashMap::new();
        let mut now_us = NOW;
        for op in ops {
            let (kind, number, what) = match op {
                Op::Later(by_us) => {
                    now_us += by_us;
                    continue;
                }
                Op::Reopen => {
                    hints = open(&words, now_us).hints;
                    continue;
                }
                op => change_of(&op, now_us),
            };
            apply(&hints, kind, &key(number), what, now_us);
            let old = model.get(&(kind, number)).filter(|(_, until_us)| *until_us > now_us);
            match value_after(old.map(|(value, _)| *value), what, now_us) {
                Some((value, days)) => {
                    model.insert((kind, number), (value, now_us + days * DAY_US));
                }
                None => {
                    model.remove(&(kind, number));
                }
            }
        }
        let live = model.iter().filter(|(_, (_, until_us))| *until_us > now_us).count();
        prop_assert_eq!(hints.records(0, now_us).count(), live);
        for kind in [Kind::Offers, Kind::Standing, Kind::Health] {
            for number in 0..24 {
                let said = model.get(&(kind, number)).filter(|(_, until_us)| *until_us > now_us);
                let record = hints.get(kind, &key(number), now_us);
                prop_assert_eq!(record.map(|r| (r.value, r.expires_us)), said.copied());
            }
        }
        prop_assert_eq!(hints.counts().evicted_records, 0);
    }

    #[test]
    fn a_rate_is_as_a_bucket_of_tokens_says(
        count in 1..50u32,
        interval_ticks in 1..100_000u64,
        steps in prop::collection::vec((0..3_000_000u64, 0..5u32), 1..200),
    ) {
        let words = words(FILE_WORDS_MIN);
        let hints = open(&words, NOW).hints;
        let interval_us = interval_ticks * 16;
        let limit = Limit::new(count, interval_us * u64::from(count));
        // Tokens in microseconds of refill, full at first.
        let full_us = interval_us * u64::from(count);
        let (mut now_us, mut tokens_us) = (NOW, full_us);
        for (step_ticks, cost) in steps {
            now_us += step_ticks * 16;
            tokens_us = (tokens_us + step_ticks * 16).min(full_us);
            let verdict = hints.rate_by(Kind::RateMail, b"k", limit, cost, now_us);
            let price_us = interval_us * u64::from(cost);
            prop_assert_eq!(verdict.allowed, price_us <= tokens_us);
            if verdict.allowed {
                tokens_us -= price_us;
            } else if cost <= count {
                prop_assert_eq!(verdict.retry_after_us, price_us - tokens_us);
            }
            prop_assert_eq!(u64::from(verdict.remaining), tokens_us / interval_us);
        }
    }

    #[test]
    fn flipped_bits_are_misses(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..400),
        near in prop::collection::vec((0..1_000usize, 0..64usize, 0..64u32), 0..400),
        reopen in any::<bool>(),
    ) {
        let words = words(FILE_WORDS_MIN);
        let mut hints = open(&words, NOW).hints;
        let limit = Limit::new(3, 60_000_000);
        for n in 0..200u64 {
            apply(&hints, Kind::Offers, &n.to_le_bytes(), What::Offered(offers(n)), NOW);
            let reply = Reply::new(450, [4, 0, 0], b"x");
            let failed = What::Failed(Failed { next_us: n, reply });
            apply(&hints, Kind::Retry, &n.to_le_bytes(), failed, NOW);
            hints.rate(Kind::RateMail, &n.to_le_bytes(), limit, NOW);
            hints.put_note(&n.to_le_bytes(), 1, NOW);
        }
        for (at, xor) in flips {
            words[at.index(words.len())].fetch_xor(xor, Relaxed);
        }
        // Used words, a bit each: where it hurts most.
        let is_used = |at: &usize| words[*at].load(Relaxed) != 0;
        let used: Vec<usize> = (0..words.len()).filter(is_used).collect();
        for (at, offset, bit) in near {
            if let Some(&at) = used.get(at * 3 + offset) {
                words[at].fetch_xor(1 << bit, Relaxed);
            }
        }
        if reopen {
            hints = open(&words, NOW).hints;
        }
        for n in 0..200u64 {
            let key = n.to_le_bytes();
            prop_assert!(hints.offers(&key, NOW).is_none_or(|found| found == offers(n)));
            let retry = hints.retry(&key, NOW);
            prop_assert!(retry.is_none_or(|found| found.next_us == n && found.tries == 1));
            prop_assert!(hints.note(&key, NOW).is_none_or(|found| found.count == 1));
            let verdict = hints.rate(Kind::RateMail, &key, limit, NOW);
            prop_assert!(verdict.remaining <= 3);
        }
        for (_, record) in hints.records(0, NOW) {
            prop_assert_eq!(record.key.octets().len(), 8);
        }
        prop_assert!(hints.rates(0, NOW).count() <= words.len());
        // And it goes on working where it was broken.
        for n in 0..200u64 {
            let key = n.to_le_bytes();
            apply(&hints, Kind::Offers, &key, What::Offered(offers(n + 1)), NOW);
            prop_assert_eq!(hints.offers(&key, NOW), Some(offers(n + 1)));
        }
    }

    #[test]
    fn random_words_under_a_true_header_never_panic(
        random in prop::collection::vec(any::<u64>(), 512),
        now_us in any::<u64>(),
    ) {
        let words = words(FILE_WORDS_MIN);
        let _ = open(&words, NOW);
        for (at, word) in words.iter().enumerate().skip(8) {
            word.store(random[at % 512].rotate_left(u32::try_from(at / 512).unwrap()), Relaxed);
        }
        let hints = open(&words, now_us).hints;
        prop_assert_eq!(hints.records(0, now_us).count(), 0);
        hints.rates(0, now_us).for_each(drop);
        hints.tidy_rates(now_us);
        apply(&hints, Kind::Offers, b"k", What::Offered(offers(1)), now_us);
        hints.put_note(b"k", 1, now_us);
        hints.rate(Kind::RateMail, b"k", Limit::new(1, 1), now_us);
    }
}
