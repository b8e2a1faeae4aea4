//! The bytes of formats 1 and 2, against committed files; and what is not ours is refused.
//!
//! `RINGPOST_WRITE_FIXTURES=1` writes the files anew: only for a new version of the format.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

use std::path::PathBuf;

use spool::batch::{BatchHeader, Records, is_whole, payload_crc};
use spool::disk::Device;
use spool::edits::{Edit, Received};
use spool::id::{MessageId, TransactionId};
use spool::index::{IndexBatch, IndexChunk, IndexItem, IndexLines, IndexWalk, Summary, Trailer};
use spool::ledger::Ledger;
use spool::limits::{BATCH_HEADER, BLOCK, HEAD_BYTES, SUPERBLOCK_STRIDE};
use spool::message::{
    BodyType, Envelope, Facts, MailFrom, MessageHead, PtrVerdict, Recipient, Ret, ScanVerdict, Tls,
    flags, notify,
};
use spool::received;
use spool::record::{
    Change, ChunkHead, Defer, Done, RecipientResult, RecipientState, RecordKind, Redirect, Target,
    encode_record,
};
use spool::segment::{SegmentHeader, SegmentKind, SegmentRef};
use spool::set::{Geometry, Problem, Seeds, Set, format, read_superblock};
use spool::sim::SimDevice;
use spool::superblock::{Format, Generation, Superblock};

fn fixture(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    if std::env::var_os("RINGPOST_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let kept = std::fs::read(&path).unwrap();
    let at = kept.iter().zip(bytes).position(|(a, b)| a != b);
    assert!(kept == bytes, "{name} differs from byte {at:?}: a format must not change");
}

fn id(n: u64) -> TransactionId {
    TransactionId { session: MessageId::new(3, 9, 1, n), n: 2 }
}

fn ledger() -> Ledger {
    Ledger {
        accepted: 10,
        generated: 2,
        delivered: 4,
        handed_over: 1,
        bounced: 1,
        double_bounces: 1,
        removed: 1,
        held: 1,
        queued: 3,
    }
}

fn superblock(format: Format) -> Superblock {
    Superblock {
        format,
        sequence: 5,
        set: 0x1111_2222_3333_4444_5555_6666_7777_8888,
        log: 0x99,
        node: 3,
        member: 1,
        members: 2,
        copies: 2,
        segment_bytes: 16 << 20,
        segments: 8,
        run: 9,
        owner_pid: 4242,
        cores: 2,
        volatile: false,
        formatted_wall_us: 1_700_000_000_000_000,
        started_wall_us: 1_700_000_001_000_000,
        generation: Generation { number: 2, id: 7, parent: 6, in_step: 3 },
        ledger: ledger(),
    }
}

fn segment() -> SegmentHeader {
    SegmentHeader {
        log: 0x99,
        epoch: (9 << 24) + 4,
        segment: SegmentRef::new(1, 5),
        run: 9,
        core: 1,
        kind: SegmentKind::Cold(2),
        unfinished: false,
        first_batch: 77,
        durable_through: 75,
        opened_wall_us: 1_700_000_002_000_000,
    }
}

fn boxed(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

fn envelope() -> Envelope {
    Envelope {
        id: id(5),
        parent: Some(id(4)),
        received_wall_us: 1_700_000_003_000_000,
        client: Some("192.0.2.1:4711".parse().unwrap()),
        local: Some("[2001:db8::25]:25".parse().unwrap()),
        proxy: Some("198.51.100.7:1".parse().unwrap()),
        helo: boxed("mail.example.net"),
        ptr: PtrVerdict::Confirmed,
        ptr_name: boxed("mail.example.net"),
        tls: Some(Tls { version: 0x0304, cipher: 0x1301, peer_fingerprint: boxed("fingerprint") }),
        login: boxed("user"),
        listener: boxed("mx"),
        config_generation: 12,
        policy_group: boxed("default"),
        mail: MailFrom {
            address: boxed("from@example.net"),
            body: BodyType::EightBitMime,
            size: Some(0),
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: boxed("QQ314159"),
            requiretls: true,
            by: boxed("120;R"),
            mt_priority: Some(-3),
        },
        recipients: vec![
            Recipient {
                address: boxed("to@example.org"),
                routed: boxed("to@inside.example.org"),
                orcpt: boxed("rfc822;to@example.org"),
                notify: Some(notify::SUCCESS | notify::FAILURE),
                state: RecipientState::Pending,
                reply: boxed("451 4.7.1 later"),
                tries: 3,
                route: boxed("inside"),
                tier: 1,
                unknown: vec![(99, boxed("later"))],
            },
            Recipient {
                address: boxed("gone@example.org"),
                state: RecipientState::Delivered,
                ..Recipient::default()
            },
        ],
        flags: flags::QUARANTINED | flags::ARCHIVED,
        expiry_wall_us: 1_700_432_003_000_000,
        next_wall_us: 1_700_000_063_000_000,
        facts: Facts {
            eight_bit: true,
            nul: true,
            longest_line: 998,
            received_count: 4,
            digest: boxed("digest"),
        },
        scans: vec![ScanVerdict { scanner: boxed("av"), verdict: 1, detail: boxed("Eicar") }],
        edits: vec![
            Edit::AddTop(boxed("Received: x\r\n")),
            Edit::Remove { name: boxed("Bcc"), nth: 0 },
            Edit::Replace { name: boxed("Subject"), nth: 1, lines: boxed("Subject: y\r\n") },
        ],
        unknown: vec![(200, boxed("a field of version 2"))],
    }
}

fn changes() -> Vec<Change> {
    let target = Target { id: id(5), segment: SegmentRef::new(1, 4), epoch: 9 << 24 };
    let result = RecipientResult {
        recipient: 0,
        state: RecipientState::Failed,
        reply: boxed("550 no"),
        tries: 4,
        route: boxed("inside"),
        tier: 1,
    };
    vec![
        Change::Done(Done {
            target,
            all: Some(RecipientState::Failed),
            results: vec![result.clone()],
            replaced_by: Some(id(6)),
        }),
        Change::Defer(Defer {
            target,
            next_wall_us: 1_700_000_123_000_000,
            tries: 4,
            tier: 1,
            results: vec![result],
        }),
        Change::Move(target, 1),
        Change::Hold(target),
        Change::Release(target),
        Change::Redirect(Redirect { target, recipient: 1, address: boxed("new@example.org") }),
        Change::Cancel(target),
    ]
}

/// An envelope whose Received line is made from it.
fn received_envelope() -> Envelope {
    let by = boxed("mx.example.org");
    let line = Received { by, extended: false, tls: boxed("TLS1.4:NEW"), wall_s: Some(9) };
    let mut envelope = envelope();
    envelope.edits.push(Edit::Received(line));
    envelope
}

fn batch(format: Format) -> Vec<u8> {
    let mut encoded = Vec::new();
    match format {
        Format::V1 => envelope().encode(&mut encoded),
        Format::V2 => received::encode(&received_envelope(), format, &mut encoded),
    }
    let (header, body) = (b"Subject: x\r\n\r\n", b"last part of the body\r\n");
    let head = MessageHead {
        envelope: u32::try_from(encoded.len()).unwrap(),
        header: u32::try_from(header.len()).unwrap(),
        inline: u32::try_from(body.len()).unwrap(),
        chunks: 1,
        body: 1000,
        copy: 1,
    };
    let message = [&*head.stored(format), &encoded, header, body].concat();
    let chunk = ChunkHead { id: id(5), part: 0, copy: 1 };
    let chunk = [&chunk.to_bytes()[..], b"first part"].concat();
    let mut records = vec![
        encode_record(RecordKind::Chunk, &chunk),
        encode_record(RecordKind::Message, &message),
    ];
    records.extend(changes().iter().map(|c| encode_record(c.kind(), &c.encode())));
    if format == Format::V2 {
        let all = MessageHead { chunks: 0, body: u64::from(head.inline), copy: 0, ..head };
        let message = [&*all.stored(format), &encoded, header, body].concat();
        records.push(encode_record(RecordKind::Message, &message));
        records.push(encode_record(RecordKind::Dones, &DONES));
    }
    let mut out = vec![0; BATCH_HEADER];
    for record in &records {
        out.extend_from_slice(record);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    let mut header = BatchHeader {
        log: 0x99,
        epoch: (9 << 24) + 4,
        segment: SegmentRef::new(1, 5),
        run: 9,
        core: 1,
        attempt: 1,
        seq: 77,
        durable_through: 74,
        bytes: u32::try_from(out.len()).unwrap(),
        records: u32::try_from(records.len()).unwrap(),
        previous_crc: 0xabcd,
        previous_segment: SegmentRef::new(1, 4),
        previous_block: 12,
        stale_segment: SegmentRef::new(1, 3),
        previous_epoch: 9 << 24,
        stale_epoch: (9 << 24) - 1,
        ledger: ledger(),
        wall_us: 1_700_000_003_500_000,
        payload_crc: 0,
        block: 3,
    };
    header.payload_crc = payload_crc(&out, &header).unwrap();
    header.encode(&mut out);
    out
}

#[test]
fn superblocks() {
    for (name, format) in [("superblock-v1", Format::V1), ("superblock-v2", Format::V2)] {
        let block = superblock(format);
        fixture(name, &block.encode());
        assert_eq!(Superblock::decode(&block.encode()), Ok(block));
    }
}

#[test]
fn segment_header_v1() {
    let header = segment();
    fixture("segment-header-v1", &header.encode());
    assert_eq!(SegmentHeader::decode(&header.encode(), 0x99, header.segment), Ok(header));
}

#[test]
fn batch_v1() {
    let bytes = batch(Format::V1);
    fixture("batch-v1", &bytes);
    let (header, _) = BatchHeader::decode(&bytes).unwrap();
    assert!(is_whole(&bytes, &header));
    let records: Vec<_> = Records::new(&bytes, &header).map(Result::unwrap).collect();
    let parts = MessageHead::split(records[1].body).unwrap();
    assert_eq!(Envelope::decode(parts.envelope), Ok(envelope()));
    assert_eq!(
        (parts.header, parts.inline),
        (&b"Subject: x\r\n\r\n"[..], &b"last part of the body\r\n"[..])
    );
    let read: Vec<Change> = records[2..]
        .iter()
        .map(|r| Change::decode(r.header.kind, r.body).unwrap().unwrap())
        .collect();
    assert_eq!(read, changes());
    for at in (0..bytes.len()).step_by(7).filter(|at| *at < header.bytes as usize) {
        let mut spoiled = bytes.clone();
        spoiled[at] ^= 4;
        let end = records.last().map(|r| r.offset as usize + r.whole.len()).unwrap();
        let seen = BatchHeader::decode(&spoiled).is_none_or(|(h, _)| !is_whole(&spoiled, &h));
        // Padding is not summed.
        let padding = at >= end
            || records.iter().all(|r| {
                let start = r.offset as usize;
                at >= BATCH_HEADER && !(start..start + r.whole.len()).contains(&at)
            });
        let spare =
            records.iter().any(|r| (12..16).contains(&(at.wrapping_sub(r.offset as usize))));
        assert!(seen || padding || spare, "byte {at}");
    }
}

/// DONEs of five messages: one session, the next one, and one of another node.
const DONES: [u8; 44] = [
    2, 4, 4, 0, 0, 1, // segment 4 of column 1
    3, 4, 0, 0, 0, 9, // its epoch
    4, 1, 1, // delivered
    13, 27, // ways from one id to the next, the first from none
    21, 0, 3, 0, 0, 9, 1, 2, // 5 on, elsewhere: node 3, run 9, core 1; n 2
    0, 3, // the same session, n 3
    4, 1, // one on
    1, 0, 4, 0, 0, 8, 0, 0x80, 0x80, 0x80, 0x80, 8, // node 4, run 8, core 0; n 2^31
    0, 0x80, 1, // n 128
];

#[test]
fn batch_v2() {
    let bytes = batch(Format::V2);
    fixture("batch-v2", &bytes);
    let (header, _) = BatchHeader::decode(&bytes).unwrap();
    assert!(is_whole(&bytes, &header));
    let records: Vec<_> = Records::new(&bytes, &header).map(Result::unwrap).collect();
    for (n, (chunks, body, copy)) in [(1, (1, 1000, 1)), (9, (0, 23, 0))] {
        let parts = MessageHead::split(records[n].body).unwrap();
        let head = parts.head;
        assert_eq!((head.chunks, head.body, head.copy), (chunks, body, copy));
        assert_eq!(Envelope::decode(parts.envelope), Ok(received_envelope()));
        assert_eq!((parts.header.len(), parts.inline.len()), (14, 23));
    }
    let sent = received::apply(b"", &received_envelope());
    assert!(
        sent.ends_with(
            b"Received: from mail.example.net (mail.example.net [192.0.2.1])\r\n\
          \tby mx.example.org with UTF8SMTPS (TLS1.4:NEW)\r\n\
          \tid 00030000J08000000005.2; Thu, 01 Jan 1970 00:00:09 +0000\r\n\
          Received: x\r\n"
        ),
        "{}",
        sent.escape_ascii()
    );
    let dones = Change::decode_all(records[10].header.kind, records[10].body).unwrap();
    let ids: Vec<_> = dones.iter().map(|done| done.target().id).collect();
    let other = MessageId::new(4, 8, 0, 6);
    let at = |session, n| TransactionId { session, n };
    let near = [at(id(5).session, 2), at(id(5).session, 3), at(id(6).session, 1)];
    assert_eq!(ids[..3], near);
    assert_eq!(ids[3..], [at(other, 1 << 31), at(other, 128)]);
    for done in &dones {
        let Change::Done(done) = done else { panic!("{done:?}") };
        assert_eq!(done.all, Some(RecipientState::Delivered));
        assert_eq!((done.target.segment, done.target.epoch), (SegmentRef::new(1, 4), 9 << 24));
    }
    assert_eq!(Change::decode(records[10].header.kind, records[10].body), Ok(None));
}

fn trailer() -> Trailer {
    Trailer {
        log: 0x99,
        epoch: (9 << 24) + 4,
        segment: SegmentRef::new(1, 5),
        bytes: 0,
        used: 0,
        records_crc: 0,
        first_seq: 77,
        last_seq: 77,
        wall_us: 1_700_000_003_500_000,
        run: 9,
        core: 1,
        ledger: ledger(),
    }
}

#[test]
fn footer_v2() {
    let batch = IndexBatch {
        seq: 77,
        offset: 8192,
        stale_segment: SegmentRef::NONE,
        stale_epoch: 0,
        attempt: 0,
    };
    let head = MessageHead { body: 1000, header: 14, ..MessageHead::default() };
    let recipients = vec![Recipient::default()];
    let plain = |n, received_wall_us| Envelope {
        id: id(n),
        received_wall_us,
        recipients: recipients.clone(),
        ..Envelope::default()
    };
    let summary = |envelope: &Envelope, offset, length| {
        let all = Summary::of(envelope, &head);
        Summary { offset, length, ..all }
    };
    let wall_us = 1_700_000_003_000_000;
    let said = [
        summary(&plain(5, wall_us), 8192 + 256, 1301),
        summary(&plain(6, wall_us + 500), 8192 + 256 + 1304, 1290),
        summary(&envelope(), 8192 + 256 + 2600, 900),
        // Not where it would be, and behind a long line.
        summary(&plain(4, wall_us - 1), 16384, 1300),
    ];
    let mut records = Vec::new();
    let mut lines = IndexLines::new(&mut records, Format::V2, &batch);
    said.iter().for_each(|summary| lines.message(summary));
    lines.other(&encode_record(RecordKind::Dones, &DONES));
    lines.chunk(&IndexChunk { head: ChunkHead::BLANK, offset: 20000, length: 99 });
    let mut out = vec![0; 1 << 20];
    let n = trailer().encode(&records, &mut out);
    out.truncate(n);
    fixture("footer-v2", &out);
    let read = Trailer::decode(&out).unwrap();
    let items: Vec<_> = IndexWalk::new(read.records(&out).unwrap()).map(Result::unwrap).collect();
    let read: Vec<_> = items
        .iter()
        .filter_map(|item| match item {
            IndexItem::Message(summary) => Some(summary.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(read, said);
    assert!(matches!(items[0], IndexItem::Batch(b) if b == batch));
    let behind = (16384u32 + 1300).next_multiple_of(8);
    let dones = RecordKind::Dones as u8;
    let IndexItem::Other { offset, kind, .. } = items[5] else { panic!("{:?}", items[5]) };
    assert_eq!((offset, kind), (behind, dones));
    assert!(matches!(items[6], IndexItem::Chunk(chunk) if chunk.length == 99));
}

#[test]
fn footer_v1() {
    let head = MessageHead { chunks: 1, body: 1000, header: 14, copy: 1, ..MessageHead::default() };
    let mut summary = Summary::of(&envelope(), &head);
    (summary.offset, summary.length) = (8192 + 256, 900);
    let batch = IndexBatch {
        seq: 77,
        offset: 8192,
        stale_segment: SegmentRef::NONE,
        stale_epoch: 0,
        attempt: 0,
    };
    let mut records = batch.encode();
    records.extend_from_slice(&summary.encode());
    let trailer = trailer();
    let mut out = vec![0; 1 << 20];
    let n = trailer.encode(&records, &mut out);
    out.truncate(n);
    fixture("footer-v1", &out);
    let read = Trailer::decode(&out).unwrap();
    assert_eq!(read.records(&out), Some(&records[..]));
    assert_eq!((read.last_seq, read.ledger), (77, ledger()));
    assert_eq!(Summary::decode(&records[batch.encode().len() + 16..]), Ok(summary));
}

fn device(geometry: Geometry) -> SimDevice {
    let mut device = [SimDevice::new("log0", geometry.device_bytes())];
    format(&mut device, geometry, Seeds { set: 1, log: 9, generation: 3 }, 5, false).unwrap();
    let [device] = device;
    device
}

const STRIDE: usize = 256 << 10;
const _: () = assert!(STRIDE as u64 == SUPERBLOCK_STRIDE);

const GEOMETRY: Geometry =
    Geometry { node: 7, segment_bytes: 4 << 20, segments: 4, copies: 1, volatile: false };

#[test]
fn what_is_not_ours_is_refused_by_name_and_offset() {
    let refuse = |device: SimDevice, node: u16| {
        let before = device.medium().to_vec();
        let kept = device.clone();
        let error = Set::open(vec![device], node, false).unwrap_err();
        assert_eq!(kept.medium(), before);
        assert_eq!(error.device, "log0");
        assert!(error.to_string().contains("log0 at byte"));
        error.problem
    };
    let good = device(GEOMETRY);
    assert!(Set::open(vec![good.clone()], 7, false).is_ok());
    assert_eq!(refuse(good.clone(), 8), Problem::OtherNode { found: 7, expected: 8 });
    let blank = SimDevice::new("log0", GEOMETRY.device_bytes());
    assert_eq!(refuse(blank, 7), Problem::Blank);
    let mut alien = SimDevice::new("log0", GEOMETRY.device_bytes());
    alien.medium_mut().fill(0x55);
    assert_eq!(refuse(alien, 7), Problem::Alien);
    let mut newer = good.clone();
    for copy in 0..4usize {
        let at = copy * STRIDE;
        newer.medium_mut()[at + 8] = 3;
        let crc = crc32c::crc32c(&newer.medium()[at..at + 508]);
        newer.medium_mut()[at + 508..at + 512].copy_from_slice(&crc.to_le_bytes());
    }
    assert_eq!(refuse(newer, 7), Problem::Version(3));
    let mut short = SimDevice::new("log0", GEOMETRY.device_bytes() - 4096);
    let n = short.medium().len();
    short.medium_mut().copy_from_slice(&good.medium()[..n]);
    assert!(matches!(refuse(short, 7), Problem::Truncated { .. }));
    let mut rotten = good;
    for copy in 0..4usize {
        rotten.medium_mut()[copy * STRIDE + 30] ^= 1;
    }
    assert_eq!(refuse(rotten, 7), Problem::Damaged);
}

#[test]
fn one_good_copy_of_the_superblock_is_enough() {
    for good in 0..4usize {
        let mut device = device(GEOMETRY);
        for copy in (0..4usize).filter(|c| *c != good) {
            device.medium_mut()[copy * STRIDE + 30] ^= 1;
        }
        assert!(read_superblock(&mut device).is_ok());
    }
}

#[test]
fn a_used_device_is_not_formatted_over() {
    let mut devices = [SimDevice::new("log0", GEOMETRY.device_bytes())];
    devices[0].write(8192, &[1; 4096]).unwrap();
    let seeds = Seeds { set: 1, log: 9, generation: 3 };
    let error = format(&mut devices, GEOMETRY, seeds, 5, false).unwrap_err();
    assert_eq!((error.offset, error.problem), (8192, Problem::InUse));
}

#[test]
fn swapped_and_foreign_segments_are_refused() {
    for (log, number, expected) in
        [(9, 2, Problem::Swapped { found: SegmentRef::new(0, 2) }), (10, 1, Problem::OtherLog)]
    {
        let mut device = device(GEOMETRY);
        let header = SegmentHeader { log, segment: SegmentRef::new(0, number), ..segment() };
        let at = HEAD_BYTES + (4 << 20);
        device.write(at, &header.encode()).unwrap();
        let mut set = Set::open(vec![device], 7, false).unwrap();
        let error = spool::recovery::inspect(&mut set).unwrap_err();
        assert_eq!((error.device.as_str(), error.offset, error.problem), ("log0", at, expected));
    }
}

#[test]
fn noise_in_a_segment_panics_nobody() {
    let mut random = spool::sim::Random::new(4);
    for _ in 0..30 {
        let mut device = device(GEOMETRY);
        let header = SegmentHeader { log: 9, segment: SegmentRef::new(0, 1), ..segment() };
        let at = HEAD_BYTES + (4 << 20);
        device.write(at, &header.encode()).unwrap();
        let mut batch = batch(if random.one_in(2) { Format::V1 } else { Format::V2 });
        for _ in 0..random.below(4) {
            let n = usize::try_from(random.below(batch.len() as u64)).unwrap();
            batch[n] ^= 1 << random.below(8);
        }
        device.write(at + 4096, &batch).unwrap();
        let mut set = Set::open(vec![device], 7, false).unwrap();
        let _ = spool::recovery::inspect(&mut set);
    }
}
