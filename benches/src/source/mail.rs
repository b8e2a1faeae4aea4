//! The messages a source sends: made once, only the id is written anew for each.
//!
//! *Guarantees*: CRLF only, lines of 76 octets, none begins with a dot, size as asked to the octet.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::limits::MESSAGE_OCTETS_MIN;

/// Length of an id in its header: 8 hexadecimal digits of the run, 12 of the message.
pub const ID_OCTETS: usize = 20;

const ID_HEADER: &[u8] = b"X-Mxbench-Id: ";

/// How large messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Size {
    /// Every message has this many octets, header and final line end included.
    Fixed(usize),
    /// Like real mail: many of a few KiB, some of MiB.
    Mix,
}

/// Share in per mille and size in octets.
const MIX: [(u32, usize); 8] = [
    (250, 2 << 10),
    (300, 5 << 10),
    (200, 12 << 10),
    (120, 32 << 10),
    (80, 96 << 10),
    (35, 300 << 10),
    (12, 1 << 20),
    (3, 6 << 20),
];

const _: () = {
    let mut sum = 0;
    let mut at = 0;
    while at < MIX.len() {
        sum += MIX[at].0;
        at += 1;
    }
    assert!(sum == 1000);
};

/// One message of a given size with the places of its id.
#[derive(Debug, Clone)]
pub struct Template {
    /// Dot-stuffed content with the final CRLF.CRLF.
    pub content: Vec<u8>,
    /// The same without dot-stuffing, where that differs, and the place of the id in it.
    plain: Option<Vec<u8>>,
    id_at: Vec<usize>,
}

impl Template {
    fn new(octets: usize, seed: u64) -> Self {
        let blank = [b'0'; ID_OCTETS];
        let mut content = ID_HEADER.to_vec();
        let first = content.len();
        content.extend_from_slice(&blank);
        content.extend_from_slice(b"\r\nMessage-ID: <");
        let second = content.len();
        content.extend_from_slice(&blank);
        content.extend_from_slice(
            b"@mxbench.example>\r\nFrom: <mxbench@example.com>\r\n\
              To: <undisclosed@example.org>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\
              Subject: mxbench\r\n\r\n",
        );
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut random = Random::new(seed);
        let end = octets.max(MESSAGE_OCTETS_MIN) - 2;
        let mut column = 0;
        while content.len() < end {
            if column == 76 && end - content.len() > 2 {
                content.extend_from_slice(b"\r\n");
                column = 0;
            }
            content.push(alphabet[usize::try_from(random.draw() >> 58).expect("6 bits")]);
            column += 1;
        }
        content.extend_from_slice(b"\r\n.\r\n");
        Self { content, plain: None, id_at: vec![first, second] }
    }

    /// A message out of a file: line ends made CRLF, an id's header put in front.
    fn of_file(text: &[u8]) -> Self {
        let mut plain = ID_HEADER.to_vec();
        let id_at = vec![plain.len()];
        plain.extend_from_slice(&[b'0'; ID_OCTETS]);
        plain.extend_from_slice(b"\r\n");
        let mut content = plain.clone();
        let mut stuffed = false;
        for line in text.strip_suffix(b"\n").unwrap_or(text).split(|&octet| octet == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.first() == Some(&b'.') {
                content.push(b'.');
                stuffed = true;
            }
            // A lone CR is no line end and nothing a server should take.
            let line: Vec<u8> = line.iter().copied().filter(|&octet| octet != b'\r').collect();
            for copy in [&mut plain, &mut content] {
                copy.extend_from_slice(&line);
                copy.extend_from_slice(b"\r\n");
            }
        }
        content.extend_from_slice(b".\r\n");
        Self { content, plain: stuffed.then_some(plain), id_at }
    }

    /// What BDAT sends.
    pub fn chunk(&self) -> &[u8] {
        self.plain.as_deref().unwrap_or(&self.content[..self.content.len() - b".\r\n".len()])
    }

    /// Writes the id into the content.
    pub fn stamp(&mut self, id: &[u8; ID_OCTETS]) {
        for &at in &self.id_at {
            self.content[at..at + ID_OCTETS].copy_from_slice(id);
            if let Some(plain) = &mut self.plain {
                plain[at..at + ID_OCTETS].copy_from_slice(id);
            }
        }
    }
}

/// All templates of a run and the choice among them.
#[derive(Debug)]
pub struct Mail {
    templates: Vec<Template>,
    /// Chosen by the shares of `MIX`.
    mixed: bool,
    random: Random,
}

impl Mail {
    /// Makes the templates.
    pub fn new(size: Size, seed: u64) -> Self {
        let templates = match size {
            Size::Fixed(octets) => vec![Template::new(octets, seed)],
            Size::Mix => MIX.iter().map(|&(_, octets)| Template::new(octets, seed)).collect(),
        };
        Self { templates, mixed: size == Size::Mix, random: Random::new(seed) }
    }

    /// Messages out of the `.eml` files of a folder, each as often as the others.
    pub fn of_folder(folder: &Path, seed: u64) -> io::Result<Self> {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "eml"));
        paths.sort();
        if paths.is_empty() {
            return Err(io::Error::other(format!("{}: no .eml files", folder.display())));
        }
        let read = |path: &PathBuf| fs::read(path).map(|text| Template::of_file(&text));
        let templates = paths.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { templates, mixed: false, random: Random::new(seed) })
    }

    /// The number of the template the next message uses.
    pub fn choose(&mut self) -> usize {
        if self.templates.len() == 1 {
            return 0;
        }
        if !self.mixed {
            let count = u32::try_from(self.templates.len()).unwrap_or(u32::MAX);
            return self.random.below(count) as usize;
        }
        let mut left = self.random.below(1000);
        for (at, &(share, _)) in MIX.iter().enumerate() {
            if left < share {
                return at;
            }
            left -= share;
        }
        0
    }

    /// A template by number.
    pub fn template(&mut self, at: usize) -> &mut Template {
        &mut self.templates[at]
    }
}

/// The id of message `number` of a run.
pub fn id(run: u32, number: u64) -> [u8; ID_OCTETS] {
    let mut text = [0; ID_OCTETS];
    let value = u128::from(run) << 48 | u128::from(number & 0xffff_ffff_ffff);
    for (at, octet) in text.iter_mut().enumerate() {
        let nibble = usize::try_from(value >> (4 * (ID_OCTETS - 1 - at)) & 0xf).expect("4 bits");
        *octet = b"0123456789abcdef"[nibble];
    }
    text
}

/// xorshift64*: small, seeded, the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for every seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        u32::try_from((u128::from(self.draw()) * u128::from(bound)) >> 64).expect("below bound")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_has_the_size_asked_and_is_well_formed() {
        for octets in [MESSAGE_OCTETS_MIN, 400, 4096, 4097, 4098, 4173, 4174, 4175, 65536] {
            let mut template = Template::new(octets, 7);
            template.stamp(&id(0xabc, 5));
            let content = &template.content;
            assert_eq!(content.len(), octets + 3, "size {octets}");
            let text = std::str::from_utf8(content).unwrap();
            let body = text.strip_suffix("\r\n.\r\n").unwrap();
            for line in body.split("\r\n") {
                assert!(line.len() <= 78 && !line.starts_with('.') && !line.contains(['\r', '\n']));
            }
            assert!(text.starts_with("X-Mxbench-Id: 00000abc000000000005\r\n"));
            assert!(body.contains("\r\n\r\n"));
        }
    }

    #[test]
    fn a_file_becomes_a_message_of_the_wire() {
        let mut template = Template::of_file(b"Subject: x\n\n.dot\r\nlone \rCR\n..");
        template.stamp(&id(1, 2));
        let head = "X-Mxbench-Id: 00000001000000000002\r\nSubject: x\r\n\r\n";
        let wire = format!("{head}..dot\r\nlone CR\r\n...\r\n.\r\n");
        assert_eq!(template.content, wire.as_bytes());
        assert_eq!(template.chunk(), format!("{head}.dot\r\nlone CR\r\n..\r\n").as_bytes());
        let plain = Template::of_file(b"Subject: x\n\nhello\n");
        assert!(plain.chunk().ends_with(b"\r\n\r\nhello\r\n"));
    }

    #[test]
    fn the_mix_keeps_its_shares() {
        let mut mail = Mail::new(Size::Mix, 3);
        let mut seen = [0u32; MIX.len()];
        for _ in 0..100_000 {
            seen[mail.choose()] += 1;
        }
        for (count, (share, _)) in seen.iter().zip(MIX) {
            let expected = share * 100;
            assert!(count.abs_diff(expected) < expected / 5 + 60, "{count} of {expected}");
        }
    }
}
