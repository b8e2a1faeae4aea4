//! A message as the log keeps it: envelope, header section, body.
//!
//! *Guarantees*: every field of version 1 is here, filled or empty; a field whose number is
//! unknown is kept and written again, in the message and in each recipient.
//!
//! *Limits*: `ENVELOPE_BYTES_MAX`, `RECIPIENTS_MAX`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::bytes::{
    Malformed, Reader, index, len32, number, put_bytes, put_field, put_group, put_number, put_some,
    small,
};
use crate::edits::Edit;
use crate::id::TransactionId;
use crate::limits::{BATCH_BYTES_MAX, RECIPIENTS_MAX};
use crate::record::{RecipientState, read_id};
use crate::superblock::Format;

/// Fields of a later version, carried on verbatim: number and bytes.
pub type Unknown = Vec<(u32, Box<[u8]>)>;

/// What a PTR look-up of the client said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum PtrVerdict {
    /// Not asked.
    #[default]
    Unasked = 0,
    /// The name leads back to the address.
    Confirmed = 1,
    /// There is a name, but it does not lead back.
    Unconfirmed = 2,
    /// There is no name.
    None = 3,
    /// No answer in time.
    Temporary = 4,
}

/// TLS of the session.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// Protocol version as on the wire: 0x0303, 0x0304.
    pub version: u16,
    /// Cipher suite as on the wire.
    pub cipher: u16,
    /// SHA-256 of the client's certificate, or empty.
    pub peer_fingerprint: Box<[u8]>,
}

/// BODY= of MAIL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum BodyType {
    /// Not said.
    #[default]
    Unsaid = 0,
    /// 7BIT
    SevenBit = 1,
    /// 8BITMIME
    EightBitMime = 2,
    /// BINARYMIME
    BinaryMime = 3,
}

/// RET= of MAIL (RFC 3461 4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Ret {
    /// FULL
    Full = 1,
    /// HDRS
    Headers = 2,
}

/// MAIL as given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MailFrom {
    /// Address without brackets; empty for the null sender.
    pub address: Box<[u8]>,
    /// BODY=
    pub body: BodyType,
    /// SIZE=
    pub size: Option<u64>,
    /// SMTPUTF8
    pub smtputf8: bool,
    /// RET=
    pub ret: Option<Ret>,
    /// ENVID= as given (xtext).
    pub envid: Box<[u8]>,
    /// REQUIRETLS
    pub requiretls: bool,
    /// BY= as given.
    pub by: Box<[u8]>,
    /// MT-PRIORITY=
    pub mt_priority: Option<i8>,
}

/// NOTIFY= of RCPT (RFC 3461 4.1), one bit each.
pub mod notify {
    /// NEVER
    pub const NEVER: u8 = 1;
    /// SUCCESS
    pub const SUCCESS: u8 = 2;
    /// FAILURE
    pub const FAILURE: u8 = 4;
    /// DELAY
    pub const DELAY: u8 = 8;
}

/// A recipient.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recipient {
    /// Address as given.
    pub address: Box<[u8]>,
    /// Address as routed; empty when the same.
    pub routed: Box<[u8]>,
    /// ORCPT= as given (xtext), with its type.
    pub orcpt: Box<[u8]>,
    /// NOTIFY= bits of `notify`; `None` when not given.
    pub notify: Option<u8>,
    /// What became of it.
    pub state: RecipientState,
    /// Last reply.
    pub reply: Box<[u8]>,
    /// Tries so far.
    pub tries: u16,
    /// Name of the route.
    pub route: Box<[u8]>,
    /// Fallback tier it has reached.
    pub tier: u8,
    /// Fields of later versions.
    pub unknown: Unknown,
}

/// Flags of a message.
pub mod flags {
    /// Waits for the operator.
    pub const HELD: u32 = 1;
    /// Kept away from delivery by a verdict.
    pub const QUARANTINED: u32 = 2;
    /// Made here: a DSN or the like; counts as generated, not accepted.
    pub const GENERATED: u32 = 4;
    /// A copy goes to the archive.
    pub const ARCHIVED: u32 = 8;
}

/// What was seen while the body streamed in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// An octet above 127.
    pub eight_bit: bool,
    /// A NUL.
    pub nul: bool,
    /// Octets of the longest line, without CRLF.
    pub longest_line: u32,
    /// Received fields.
    pub received_count: u32,
    /// SHA-256 or other digest of the content, or empty.
    pub digest: Box<[u8]>,
}

/// What a scanner said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScanVerdict {
    /// Name of the scanner.
    pub scanner: Box<[u8]>,
    /// Its verdict.
    pub verdict: u8,
    /// Name of the virus, score, symbols.
    pub detail: Box<[u8]>,
}

/// All that is known of a message besides its content.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Envelope {
    /// Its id: node and session are in it.
    pub id: TransactionId,
    /// The message it was made from (DSN, redirect).
    pub parent: Option<TransactionId>,
    /// Wall time of receipt.
    pub received_wall_us: u64,
    /// Client address and port.
    pub client: Option<SocketAddr>,
    /// Our own.
    pub local: Option<SocketAddr>,
    /// The proxy's, when the client's came by PROXY.
    pub proxy: Option<SocketAddr>,
    /// HELO or EHLO as given.
    pub helo: Box<[u8]>,
    /// PTR verdict.
    pub ptr: PtrVerdict,
    /// The PTR name, or empty.
    pub ptr_name: Box<[u8]>,
    /// TLS, if any.
    pub tls: Option<Tls>,
    /// Login, or empty.
    pub login: Box<[u8]>,
    /// Name of the listener.
    pub listener: Box<[u8]>,
    /// Generation of the config.
    pub config_generation: u64,
    /// Policy group that decided.
    pub policy_group: Box<[u8]>,
    /// MAIL.
    pub mail: MailFrom,
    /// Recipients.
    pub recipients: Vec<Recipient>,
    /// Bits of `flags`.
    pub flags: u32,
    /// Wall time of expiry; 0 for the config's.
    pub expiry_wall_us: u64,
    /// Wall time of the next try (of a copy in the cold log); 0 for now.
    pub next_wall_us: u64,
    /// What was seen while streaming.
    pub facts: Facts,
    /// Scan verdicts.
    pub scans: Vec<ScanVerdict>,
    /// Header edits, in order.
    pub edits: Vec<Edit>,
    /// Fields of later versions.
    pub unknown: Unknown,
}

fn put_address(out: &mut Vec<u8>, number: u32, address: Option<SocketAddr>) {
    let Some(address) = address else { return };
    put_group(out, number, |out| {
        out.extend_from_slice(&address.port().to_le_bytes());
        match address.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    });
}

fn read_address(bytes: &[u8]) -> Result<SocketAddr, Malformed> {
    let mut r = Reader::new(bytes);
    let port = r.u16()?;
    let ip = match bytes.len() {
        6 => IpAddr::V4(Ipv4Addr::from(r.array::<4>()?)),
        18 => IpAddr::V6(Ipv6Addr::from(r.array::<16>()?)),
        _ => return Err(Malformed),
    };
    Ok(SocketAddr::new(ip, port))
}

fn put_unknown(out: &mut Vec<u8>, unknown: &Unknown) {
    for (number, bytes) in unknown {
        put_field(out, *number, bytes);
    }
}

impl Envelope {
    /// Appends the fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_with(&self.edits, out);
    }

    /// The same with other edits.
    pub(crate) fn encode_with(&self, edits: &[Edit], out: &mut Vec<u8>) {
        put_field(out, 1, &self.id.to_bytes());
        if let Some(parent) = self.parent {
            put_field(out, 2, &parent.to_bytes());
        }
        put_number(out, 3, self.received_wall_us);
        put_address(out, 4, self.client);
        put_address(out, 5, self.local);
        put_address(out, 6, self.proxy);
        put_bytes(out, 7, &self.helo);
        put_number(out, 8, u64::from(self.ptr as u8));
        put_bytes(out, 9, &self.ptr_name);
        if let Some(tls) = &self.tls {
            put_group(out, 10, |out| {
                put_number(out, 1, u64::from(tls.version));
                put_number(out, 2, u64::from(tls.cipher));
                put_bytes(out, 3, &tls.peer_fingerprint);
            });
        }
        put_bytes(out, 11, &self.login);
        put_bytes(out, 12, &self.listener);
        put_number(out, 13, self.config_generation);
        put_bytes(out, 14, &self.policy_group);
        put_group(out, 15, |out| self.mail.encode(out));
        for recipient in &self.recipients {
            put_group(out, 16, |out| recipient.encode(out));
        }
        put_number(out, 17, u64::from(self.flags));
        put_number(out, 18, self.expiry_wall_us);
        put_number(out, 19, self.next_wall_us);
        put_group(out, 20, |out| self.facts.encode(out));
        for scan in &self.scans {
            put_group(out, 21, |out| {
                put_bytes(out, 1, &scan.scanner);
                put_number(out, 2, u64::from(scan.verdict));
                put_bytes(out, 3, &scan.detail);
            });
        }
        for edit in edits {
            put_group(out, 22, |out| edit.encode(out));
        }
        put_unknown(out, &self.unknown);
    }

    /// Reads the fields.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut e = Self::default();
        let mut r = Reader::new(bytes);
        while !r.is_empty() {
            let (number, v) = r.field()?;
            match number {
                1 => e.id = read_id(v)?,
                2 => e.parent = Some(read_id(v)?),
                3 => e.received_wall_us = small(v)?,
                4 => e.client = Some(read_address(v)?),
                5 => e.local = Some(read_address(v)?),
                6 => e.proxy = Some(read_address(v)?),
                7 => e.helo = v.into(),
                8 => e.ptr = read_ptr(v)?,
                9 => e.ptr_name = v.into(),
                10 => e.tls = Some(read_tls(v)?),
                11 => e.login = v.into(),
                12 => e.listener = v.into(),
                13 => e.config_generation = small(v)?,
                14 => e.policy_group = v.into(),
                15 => e.mail = MailFrom::decode(v)?,
                16 if e.recipients.len() < RECIPIENTS_MAX => {
                    e.recipients.push(Recipient::decode(v)?);
                }
                16 => return Err(Malformed),
                17 => e.flags = small(v)?,
                18 => e.expiry_wall_us = small(v)?,
                19 => e.next_wall_us = small(v)?,
                20 => e.facts = Facts::decode(v)?,
                21 => e.scans.push(read_scan(v)?),
                22 => e.edits.push(Edit::decode(v)?),
                _ => e.unknown.push((number, v.into())),
            }
        }
        Ok(e)
    }
}

fn read_ptr(bytes: &[u8]) -> Result<PtrVerdict, Malformed> {
    Ok(match number(bytes)? {
        0 => PtrVerdict::Unasked,
        1 => PtrVerdict::Confirmed,
        2 => PtrVerdict::Unconfirmed,
        3 => PtrVerdict::None,
        4 => PtrVerdict::Temporary,
        _ => return Err(Malformed),
    })
}

fn read_tls(bytes: &[u8]) -> Result<Tls, Malformed> {
    let mut tls = Tls::default();
    let mut r = Reader::new(bytes);
    while !r.is_empty() {
        let (number, v) = r.field()?;
        match number {
            1 => tls.version = small(v)?,
            2 => tls.cipher = small(v)?,
            3 => tls.peer_fingerprint = v.into(),
            _ => {}
        }
    }
    Ok(tls)
}

fn read_scan(bytes: &[u8]) -> Result<ScanVerdict, Malformed> {
    let mut scan = ScanVerdict::default();
    let mut r = Reader::new(bytes);
    while !r.is_empty() {
        let (number, v) = r.field()?;
        match number {
            1 => scan.scanner = v.into(),
            2 => scan.verdict = small(v)?,
            3 => scan.detail = v.into(),
            _ => {}
        }
    }
    Ok(scan)
}

impl MailFrom {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, 1, &self.address);
        put_number(out, 2, u64::from(self.body as u8));
        put_some(out, 3, self.size);
        put_number(out, 4, u64::from(self.smtputf8));
        put_some(out, 5, self.ret.map(|r| u64::from(r as u8)));
        put_bytes(out, 6, &self.envid);
        put_number(out, 7, u64::from(self.requiretls));
        put_bytes(out, 8, &self.by);
        if let Some(p) = self.mt_priority {
            put_field(out, 9, &p.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut m = Self::default();
        let mut r = Reader::new(bytes);
        while !r.is_empty() {
            let (field, v) = r.field()?;
            match field {
                1 => m.address = v.into(),
                2 => {
                    m.body = match number(v)? {
                        0 => BodyType::Unsaid,
                        1 => BodyType::SevenBit,
                        2 => BodyType::EightBitMime,
                        3 => BodyType::BinaryMime,
                        _ => return Err(Malformed),
                    }
                }
                3 => m.size = Some(number(v)?),
                4 => m.smtputf8 = number(v)? != 0,
                5 => {
                    m.ret = match number(v)? {
                        1 => Some(Ret::Full),
                        2 => Some(Ret::Headers),
                        _ => return Err(Malformed),
                    }
                }
                6 => m.envid = v.into(),
                7 => m.requiretls = number(v)? != 0,
                8 => m.by = v.into(),
                9 => m.mt_priority = Some(i8::from_le_bytes(v.try_into().map_err(|_| Malformed)?)),
                _ => {}
            }
        }
        Ok(m)
    }
}

impl Recipient {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, 1, &self.address);
        put_bytes(out, 2, &self.routed);
        put_bytes(out, 3, &self.orcpt);
        put_some(out, 4, self.notify.map(u64::from));
        put_number(out, 5, u64::from(self.state as u8));
        put_bytes(out, 6, &self.reply);
        put_number(out, 7, u64::from(self.tries));
        put_bytes(out, 8, &self.route);
        put_number(out, 9, u64::from(self.tier));
        put_unknown(out, &self.unknown);
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut s = Self::default();
        let mut r = Reader::new(bytes);
        while !r.is_empty() {
            let (number, v) = r.field()?;
            match number {
                1 => s.address = v.into(),
                2 => s.routed = v.into(),
                3 => s.orcpt = v.into(),
                4 => s.notify = Some(small(v)?),
                5 => s.state = RecipientState::of(small(v)?).ok_or(Malformed)?,
                6 => s.reply = v.into(),
                7 => s.tries = small(v)?,
                8 => s.route = v.into(),
                9 => s.tier = small(v)?,
                _ => s.unknown.push((number, v.into())),
            }
        }
        Ok(s)
    }

    /// Where it is to go: the routed address, or the given one.
    #[must_use]
    pub fn destination(&self) -> &[u8] {
        if self.routed.is_empty() { &self.address } else { &self.routed }
    }
}

impl Facts {
    fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, 1, u64::from(self.eight_bit));
        put_number(out, 2, u64::from(self.nul));
        put_number(out, 3, u64::from(self.longest_line));
        put_number(out, 4, u64::from(self.received_count));
        put_bytes(out, 5, &self.digest);
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut f = Self::default();
        let mut r = Reader::new(bytes);
        while !r.is_empty() {
            let (field, v) = r.field()?;
            match field {
                1 => f.eight_bit = number(v)? != 0,
                2 => f.nul = number(v)? != 0,
                3 => f.longest_line = small(v)?,
                4 => f.received_count = small(v)?,
                5 => f.digest = v.into(),
                _ => {}
            }
        }
        Ok(f)
    }
}

/// Fixed part of a MSG's body, before envelope, header section and (last part of the) body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessageHead {
    /// Bytes of the encoded envelope.
    pub envelope: u32,
    /// Bytes of the header section.
    pub header: u32,
    /// Body bytes in this record.
    pub inline: u32,
    /// CHUNKs that come before them.
    pub chunks: u32,
    /// Body bytes in all.
    pub body: u64,
    /// Which copy it is: grows when it moves.
    pub copy: u16,
}

/// Most bytes of the fixed part: all of them in format 1.
pub const MESSAGE_HEAD: usize = 32;
/// Bytes of a short one (format 2): three lengths of three bytes, and one of `SHORT` and `MORE`.
const SHORT_HEAD: usize = 10;
/// Bit of a head's fourth byte: it is a short one. The first four are a length elsewhere.
const SHORT: u8 = 0x80;
/// Bit of a head's fourth byte: chunks, body octets and copy follow the lengths.
const MORE: u8 = 1;
const _: () = assert!(BATCH_BYTES_MAX < 1 << 24 && SHORT_HEAD + 14 <= MESSAGE_HEAD);

/// The fixed part as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredHead {
    bytes: [u8; MESSAGE_HEAD],
    length: usize,
}

impl std::ops::Deref for StoredHead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl MessageHead {
    /// As a set in that format keeps it.
    #[must_use]
    pub fn stored(self, format: Format) -> StoredHead {
        match format {
            Format::V1 => StoredHead { bytes: self.to_bytes(), length: MESSAGE_HEAD },
            Format::V2 => self.to_short(),
        }
    }

    fn to_short(self) -> StoredHead {
        let mut b = [0; MESSAGE_HEAD];
        let is_all = self.chunks == 0 && self.copy == 0 && self.body == u64::from(self.inline);
        // Three bytes of each: a MSG fits a batch.
        b[..4].copy_from_slice(&self.envelope.to_le_bytes());
        b[3] = if is_all { SHORT } else { SHORT | MORE };
        b[4..7].copy_from_slice(&self.header.to_le_bytes()[..3]);
        b[7..SHORT_HEAD].copy_from_slice(&self.inline.to_le_bytes()[..3]);
        if is_all {
            return StoredHead { bytes: b, length: SHORT_HEAD };
        }
        let more = &mut b[SHORT_HEAD..SHORT_HEAD + 14];
        more[..4].copy_from_slice(&self.chunks.to_le_bytes());
        more[4..12].copy_from_slice(&self.body.to_le_bytes());
        more[12..].copy_from_slice(&self.copy.to_le_bytes());
        StoredHead { bytes: b, length: SHORT_HEAD + 14 }
    }

    /// The stored form of format 1.
    #[must_use]
    fn to_bytes(self) -> [u8; MESSAGE_HEAD] {
        let mut b = [0; MESSAGE_HEAD];
        b[..4].copy_from_slice(&self.envelope.to_le_bytes());
        b[4..8].copy_from_slice(&self.header.to_le_bytes());
        b[8..12].copy_from_slice(&self.inline.to_le_bytes());
        b[12..16].copy_from_slice(&self.chunks.to_le_bytes());
        b[16..24].copy_from_slice(&self.body.to_le_bytes());
        b[24..26].copy_from_slice(&self.copy.to_le_bytes());
        b
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is too short or its lengths disagree with the record's.
    pub fn split(body: &[u8]) -> Result<MessageParts<'_>, Malformed> {
        let mut r = Reader::new(body);
        let head = Self::read(&mut r)?;
        let envelope = r.take(index(head.envelope))?;
        let header = r.take(index(head.header))?;
        let inline = r.take(index(head.inline))?;
        let exact = r.is_empty() && (head.chunks > 0 || head.body == u64::from(head.inline));
        if exact { Ok(MessageParts { head, envelope, header, inline }) } else { Err(Malformed) }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let [a, b, c, mark] = r.array()?;
        if mark & SHORT == 0 {
            let head = Self {
                envelope: u32::from_le_bytes([a, b, c, mark]),
                header: r.u32()?,
                inline: r.u32()?,
                chunks: r.u32()?,
                body: r.u64()?,
                copy: r.u16()?,
            };
            r.take(6)?;
            return Ok(head);
        }
        let three = |[a, b, c]: [u8; 3]| u32::from_le_bytes([a, b, c, 0]);
        let (envelope, header, inline) = (three([a, b, c]), three(r.array()?), three(r.array()?));
        let (chunks, body, copy) = match mark & !SHORT {
            0 => (0, u64::from(inline), 0),
            MORE => (r.u32()?, r.u64()?, r.u16()?),
            _ => return Err(Malformed),
        };
        Ok(Self { envelope, header, inline, chunks, body, copy })
    }

    /// The head of a message with those parts.
    pub(crate) fn of(
        envelope: usize,
        header: usize,
        inline: usize,
        chunks: u32,
        body: u64,
    ) -> Self {
        Self {
            envelope: len32(envelope),
            header: len32(header),
            inline: len32(inline),
            chunks,
            body,
            copy: 0,
        }
    }
}

/// A MSG's body, cut into its parts.
#[derive(Clone, Copy, Debug)]
pub struct MessageParts<'a> {
    /// The fixed part.
    pub head: MessageHead,
    /// Encoded envelope.
    pub envelope: &'a [u8],
    /// Header section as received.
    pub header: &'a [u8],
    /// Body, or its last part when there are chunks.
    pub inline: &'a [u8],
}
