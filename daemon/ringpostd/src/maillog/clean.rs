//! Octets of others, made harmless for a line.
//!
//! *Guarantees.* No control character, no line or paragraph separator, no change of writing
//! direction, and no octet that is not UTF-8 comes through; what is escaped can be read back.

use crate::limits::LOG_VALUE_OCTETS_MAX;

/// Where a value stands, and so what may not stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A field of its own: no space either, nor what encloses fields.
    Word,
    /// Between double quotes.
    Quoted,
    /// At the end of a line.
    Tail,
    /// In a JSON string.
    Json,
}

/// Appends `octets`, at most [`LOG_VALUE_OCTETS_MAX`] of them after escaping.
pub(super) fn push(out: &mut Vec<u8>, octets: &[u8], place: Place) {
    push_up_to(out, octets, place, LOG_VALUE_OCTETS_MAX);
}

/// Appends `octets`, at most `max` of them after escaping; what is cut ends in `...`.
pub(super) fn push_up_to(out: &mut Vec<u8>, octets: &[u8], place: Place, max: usize) {
    let plain = &PLAIN[place as usize];
    // Without a way out, so that nothing waits for the octet before.
    let all_plain = || octets.iter().fold(true, |all, &octet| all & plain[usize::from(octet)]);
    if octets.len() <= max && all_plain() {
        out.extend_from_slice(octets);
        return;
    }
    let start = out.len();
    let mut last_good = start;
    let mut buffer = [0; 4];
    for chunk in octets.utf8_chunks() {
        for char in chunk.valid().chars() {
            match escape(char, place) {
                Escape::None => out.extend_from_slice(char.encode_utf8(&mut buffer).as_bytes()),
                Escape::Backslash => {
                    out.extend([b'\\', char.encode_utf8(&mut buffer).as_bytes()[0]]);
                }
                Escape::Letter(letter) => out.extend([b'\\', letter]),
                Escape::Octal => {
                    char.encode_utf8(&mut buffer).bytes().for_each(|octet| octal(out, octet));
                }
                Escape::Unicode => unicode(out, char),
            }
            if cut(out, start, &mut last_good, max) {
                return;
            }
        }
        for octet in chunk.invalid() {
            match place {
                Place::Json => out.extend_from_slice("\u{fffd}".as_bytes()),
                _ => octal(out, *octet),
            }
            if cut(out, start, &mut last_good, max) {
                return;
            }
        }
    }
}

/// Cuts back to the last whole character with room for the dots, if there are too many octets.
fn cut(out: &mut Vec<u8>, start: usize, last_good: &mut usize, max: usize) -> bool {
    if out.len() - start <= max - 3 {
        *last_good = out.len();
    }
    if out.len() - start <= max {
        return false;
    }
    out.truncate(*last_good);
    out.extend_from_slice(b"...");
    true
}

/// Whether an octet comes through as it is: nearly all of them, so this is asked first.
const fn is_plain(octet: u8, place: Place) -> bool {
    match octet {
        b'\\' => false,
        b' ' | b'(' | b')' | b'<' | b'>' => !matches!(place, Place::Word),
        b'"' => matches!(place, Place::Word | Place::Tail),
        b'!'..=b'~' => true,
        _ => false,
    }
}

/// The same as tables, by place.
const PLAIN: [[bool; 256]; 4] = [
    plain_table(Place::Word),
    plain_table(Place::Quoted),
    plain_table(Place::Tail),
    plain_table(Place::Json),
];

const fn plain_table(place: Place) -> [bool; 256] {
    let mut table = [false; 256];
    let mut octet = 0;
    while octet < 128_u8 {
        table[octet as usize] = is_plain(octet, place);
        octet += 1;
    }
    table
}

enum Escape {
    None,
    Backslash,
    Letter(u8),
    Octal,
    Unicode,
}

fn escape(char: char, place: Place) -> Escape {
    match (char, place) {
        ('"' | '\\', Place::Json | Place::Quoted) => Escape::Backslash,
        ('\\', _) => Escape::Backslash,
        (' ' | '(' | ')' | '<' | '>', Place::Word) => Escape::Octal,
        (' '..='~', _) => Escape::None,
        ('\n', _) => Escape::Letter(b'n'),
        ('\r', _) => Escape::Letter(b'r'),
        ('\t', _) => Escape::Letter(b't'),
        (char, Place::Json) if is_harmful(char) => Escape::Unicode,
        (char, _) if is_harmful(char) => Escape::Octal,
        (char, Place::Word) if char.is_whitespace() => Escape::Octal,
        _ => Escape::None,
    }
}

/// Controls (C0, DEL, C1), separators of lines, and marks that turn the writing around or hide.
fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(char, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(char, '\u{e0000}'..='\u{e007f}')
}

/// As Exim escapes: a backslash and three octal digits.
fn octal(out: &mut Vec<u8>, octet: u8) {
    out.extend([b'\\', b'0' + (octet >> 6), b'0' + (octet >> 3 & 7), b'0' + (octet & 7)]);
}

/// As JSON escapes (RFC 8259 7), in one or two parts.
fn unicode(out: &mut Vec<u8>, char: char) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for unit in char.encode_utf16(&mut [0; 2]) {
        let digit = |shift: u16| HEX[usize::from(*unit >> shift & 15)];
        out.extend([b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
    }
}
