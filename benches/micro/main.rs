//! Micro benchmarks of the hot parts by instruction count: `./x bench micro`.
//!
//! Each case runs under `valgrind --tool=callgrind` with two numbers of turns; the difference in
//! instructions over the difference in turns is the cost of one. It is the same on a busy machine,
//! and says nothing of caches or the kernel. With `--bless` the counts go to `micro/counts.json`;
//! without, they are compared with those, and a case more than 2 % away is named.
//!
//! *Failure*: without valgrind it says so and ends with 1. A cost that moved is no failure: it may
//! be meant.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::AtomicU64;

use hdrhistogram::Histogram;
use hints::offers::Offers as Learned;
use hints::{Hints, Kind, Limit, Seed, Setup, ShardSet, What};
use mxbench::floor::end::{EndOfData, find_end};
use mxbench::replies::Replies;
use mxbench::source::mail::Mail;
use mxbench::source::mail::Size;
use smtp::command::{Command as Verb, Offers};
use smtp::data::{BareNewline, Event, Flow, Framing, Scanner, Sink};
use spool::limits::BLOCK;
use spool::message::{Envelope, MailFrom, Recipient};
use spool::record::{RecordHeader, RecordKind};

/// A case by name; the function makes what it needs and then turns so many times.
type Case = (&'static str, fn(u64));

const CASES: &[Case] = &[
    ("command: EHLO", |turns| parse(b"EHLO mail.example.com", turns)),
    ("command: MAIL with SIZE and BODY", |turns| {
        parse(b"MAIL FROM:<somebody@mail.example.com> SIZE=4096 BODY=8BITMIME", turns);
    }),
    ("command: RCPT", |turns| parse(b"RCPT TO:<postmaster@example.org>", turns)),
    ("end of data: scanner, 4 KiB", |turns| scan(4096, turns)),
    ("end of data: scanner, 64 KiB", |turns| scan(65_536, turns)),
    ("end of data: the floor's search, 4 KiB", floor_search),
    ("spool: envelope", envelope),
    ("spool: record header of 4 KiB", record),
    ("spool: batch header", batch),
    ("hints: rate", rate),
    ("hints: get, hit", hit),
    ("hints: get, miss", miss),
    ("histogram: record", histogram),
    ("reply line", reply_line),
];

const TURNS: [u64; 2] = [200, 1200];
const MOVE_SHARE: f64 = 0.02;

fn parse(line: &[u8], turns: u64) {
    let offers = Offers::all(100 << 20);
    for _ in 0..turns {
        let parsed = Verb::parse(black_box(line), &offers, false);
        assert!(black_box(parsed).is_ok(), "a correct line");
    }
}

struct Count(u64);

impl Sink for Count {
    fn header(&mut self, octets: &[u8]) -> Flow {
        self.0 += octets.len() as u64;
        Flow::More
    }

    fn body(&mut self, octets: &[u8]) -> Flow {
        self.0 += octets.len() as u64;
        Flow::More
    }
}

fn content(octets: usize) -> Vec<u8> {
    Mail::new(Size::Fixed(octets), 1).template(0).content.clone()
}

fn scan(octets: usize, turns: u64) {
    let content = content(octets);
    for _ in 0..turns {
        let mut scanner = Scanner::new(Framing::Dots, BareNewline::Refuse);
        let (mut sink, mut at) = (Count(0), 0);
        loop {
            let (used, event) = scanner.feed(black_box(&content[at..]), &mut sink);
            at += used;
            match event {
                Event::End => break,
                Event::HeaderEnd => {}
                other => panic!("{other:?}: the content is whole"),
            }
        }
        black_box(sink.0);
    }
}

fn floor_search(turns: u64) {
    let content = content(4096);
    for _ in 0..turns {
        let mut progress = EndOfData::start();
        assert!(find_end(&mut progress, black_box(&content)).is_some(), "it has an end");
    }
}

fn envelope(turns: u64) {
    let envelope = Envelope {
        received_wall_us: 1_760_000_000_000_000,
        client: Some(([192, 0, 2, 1], 40_000).into()),
        local: Some(([192, 0, 2, 2], 25).into()),
        helo: b"mail.example.com"[..].into(),
        mail: MailFrom { address: b"a@example.com"[..].into(), ..MailFrom::default() },
        recipients: vec![Recipient {
            address: b"b@example.org"[..].into(),
            ..Recipient::default()
        }],
        ..Envelope::default()
    };
    let mut out = Vec::new();
    for _ in 0..turns {
        out.clear();
        black_box(&envelope).encode(&mut out);
        black_box(&out);
    }
}

fn record(turns: u64) {
    let body = content(4096);
    for _ in 0..turns {
        black_box(RecordHeader::of(RecordKind::Message, black_box(&body)).to_bytes());
    }
}

fn batch(turns: u64) {
    let mut out = vec![0; BLOCK];
    let header = batch_header();
    for _ in 0..turns {
        black_box(black_box(&header).encode(&mut out));
    }
}

fn batch_header() -> spool::batch::BatchHeader {
    let segment = spool::segment::SegmentRef(0);
    spool::batch::BatchHeader {
        log: 7,
        epoch: 1,
        segment,
        run: 1,
        core: 0,
        attempt: 0,
        seq: 1,
        durable_through: 0,
        bytes: u32::try_from(BLOCK).expect("a block is small"),
        records: 1,
        previous_crc: 0,
        previous_segment: segment,
        previous_block: 0,
        stale_segment: segment,
        previous_epoch: 0,
        stale_epoch: 0,
        ledger: spool::ledger::Ledger::default(),
        wall_us: 1_760_000_000_000_000,
        payload_crc: 0,
        block: 0,
    }
}

const NOW_US: u64 = 1_760_000_000_000_000;

fn words() -> Vec<AtomicU64> {
    (0..2 * 1024 * 1024).map(|_| AtomicU64::new(0)).collect()
}

fn with_hints(act: impl FnOnce(&Hints<'_>)) {
    let words = words();
    let setup = Setup { seed: Seed([1, 2]), node: 0, wall_us: NOW_US };
    act(&Hints::format(&words, setup).expect("16 MiB is enough"));
}

fn rate(turns: u64) {
    let limit = Limit::new(1_000_000, 60_000_000);
    with_hints(|hints| {
        for turn in 0..turns {
            black_box(hints.rate(Kind::RateConnect, &[4, 192, 0, 2, 1], limit, NOW_US + turn));
        }
    });
}

fn hit(turns: u64) {
    with_hints(|hints| {
        let writer = hints.claim(ShardSet::ALL).expect("nobody else");
        let what = What::Offered(Learned { extensions: 1, ..Learned::default() });
        let change = hints.change(Kind::Offers, b"192.0.2.1", what, NOW_US).expect("fits");
        writer.apply(&change);
        for _ in 0..turns {
            assert!(black_box(hints.offers(b"192.0.2.1", NOW_US)).is_some(), "just written");
        }
    });
}

fn miss(turns: u64) {
    with_hints(|hints| {
        for _ in 0..turns {
            assert!(black_box(hints.health(b"192.0.2.9", NOW_US)).is_none(), "never written");
        }
    });
}

fn histogram(turns: u64) {
    let mut histogram =
        Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).expect("1 .. an hour");
    for turn in 0..turns {
        histogram.saturating_record(black_box(10_000 + turn * 37));
    }
    black_box(histogram.len());
}

fn reply_line(turns: u64) {
    let mut replies = Replies::default();
    for _ in 0..turns {
        let mut bytes = black_box(&b"250 2.0.0 0123456789ABCDEFGHJK.1 kept\r\n"[..]);
        assert!(matches!(replies.next(&mut bytes), Some(Ok(_))), "a correct line");
    }
}

/// Instructions of this program with one case and so many turns.
fn instructions(case: &str, turns: u64) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(["--case", case, &turns.to_string()])
        .stdout(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("{case}: {text}"))
}

fn run(bless: bool, only: &[String]) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("micro/counts.json");
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let mut counts: BTreeMap<String, f64> = serde_json::from_str(&known).unwrap_or_default();
    println!("{:<44}{:>14}{:>12}", "instructions", "a turn", "since");
    for (name, _) in CASES {
        if !only.is_empty() && !only.iter().any(|part| name.contains(part)) {
            continue;
        }
        let few = instructions(name, TURNS[0])?;
        let many = instructions(name, TURNS[1])?;
        let each = many.saturating_sub(few) as f64 / (TURNS[1] - TURNS[0]) as f64;
        let before = counts.get(*name).copied();
        let change = before.map_or_else(
            || "         new".to_owned(),
            |before| {
                let change = each / before - 1.0;
                let mark = if change.abs() > MOVE_SHARE { " <-- moved" } else { "" };
                format!("{:>+10.1} %{mark}", change * 100.0)
            },
        );
        println!("{name:<44}{each:>14.1}{change}");
        if bless {
            counts.insert((*name).to_owned(), each);
        }
    }
    if bless {
        let text = serde_json::to_string_pretty(&counts).map_err(|error| error.to_string())?;
        std::fs::write(&path, text + "\n").map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [flag, name, turns] = &words[..]
        && flag == "--case"
    {
        let case = CASES.iter().find(|case| case.0 == name);
        return match (case, turns.parse()) {
            (Some((_, act)), Ok(turns)) => {
                act(turns);
                ExitCode::SUCCESS
            }
            _ => ExitCode::FAILURE,
        };
    }
    let (flags, only): (Vec<String>, Vec<String>) =
        words.into_iter().partition(|word| word.starts_with("--"));
    match run(flags.iter().any(|flag| flag == "--bless"), &only) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("micro: {error}");
            ExitCode::FAILURE
        }
    }
}
