//! Header edits: the header section is kept as received, and changed only while it is sent.

use crate::bytes::{Malformed, Reader, number, put_bytes, put_number, put_some, small};

/// A Received line in fewer octets: what the envelope does not say of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// Our name.
    pub by: Box<[u8]>,
    /// The client said EHLO.
    pub extended: bool,
    /// TLS in words, when the envelope's numbers do not give them.
    pub tls: Box<[u8]>,
    /// Seconds since 1970, when they are not those of the envelope's receipt.
    pub wall_s: Option<u64>,
}

/// One edit. They apply in their order, each to the result of those before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// Whole lines with CRLF, put before everything.
    AddTop(Box<[u8]>),
    /// Takes out the n-th field of that name from the top (1 is the first; 0 means all).
    Remove {
        /// Field name without colon, compared without case.
        name: Box<[u8]>,
        /// Which one.
        nth: u32,
    },
    /// Puts whole lines with CRLF in the place of the n-th field of that name; nothing if it is
    /// not there.
    Replace {
        /// Field name without colon, compared without case.
        name: Box<[u8]>,
        /// Which one (0 means each).
        nth: u32,
        /// The lines.
        lines: Box<[u8]>,
    },
    /// Puts a Received line before everything: `received` makes it.
    Received(Received),
}

impl Edit {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::AddTop(lines) => {
                put_number(out, 1, 1);
                put_bytes(out, 2, lines);
            }
            Self::Remove { name, nth } => {
                put_number(out, 1, 2);
                put_bytes(out, 3, name);
                put_number(out, 4, u64::from(*nth));
            }
            Self::Replace { name, nth, lines } => {
                put_number(out, 1, 3);
                put_bytes(out, 2, lines);
                put_bytes(out, 3, name);
                put_number(out, 4, u64::from(*nth));
            }
            Self::Received(received) => {
                put_number(out, 1, 4);
                put_bytes(out, 2, &received.by);
                put_number(out, 5, u64::from(!received.extended));
                put_bytes(out, 6, &received.tls);
                put_some(out, 7, received.wall_s);
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut kind, mut lines, mut name, mut nth) = (0u8, &[][..], &[][..], 0);
        let mut received = Received { extended: true, ..Received::default() };
        let mut r = Reader::new(bytes);
        while !r.is_empty() {
            let (field, v) = r.field()?;
            match field {
                1 => kind = small(v)?,
                2 => lines = v,
                3 => name = v,
                4 => nth = small(v)?,
                5 => received.extended = number(v)? == 0,
                6 => received.tls = v.into(),
                7 => received.wall_s = Some(number(v)?),
                _ => {}
            }
        }
        match kind {
            1 => Ok(Self::AddTop(lines.into())),
            2 => Ok(Self::Remove { name: name.into(), nth }),
            3 => Ok(Self::Replace { name: name.into(), nth, lines: lines.into() }),
            4 => Ok(Self::Received(Received { by: lines.into(), ..received })),
            _ => Err(Malformed),
        }
    }
}

/// The header section with all edits applied but those that `received` knows: it calls this.
/// `header` is as received, each line with CRLF; an
/// empty last line (the separator) stays where it is.
pub(crate) fn apply(header: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut fields: Vec<&[u8]> = split(header);
    for edit in edits {
        match edit {
            // `received` puts it in words before.
            Edit::Received(_) => {}
            Edit::AddTop(lines) => {
                let mut added = split(lines);
                added.append(&mut fields);
                fields = added;
            }
            Edit::Remove { name, nth } => change(&mut fields, name, *nth, None),
            Edit::Replace { name, nth, lines } => change(&mut fields, name, *nth, Some(lines)),
        }
    }
    fields.concat()
}

fn change<'a>(fields: &mut Vec<&'a [u8]>, name: &[u8], nth: u32, lines: Option<&'a [u8]>) {
    let mut seen = 0;
    fields.retain_mut(|field| {
        if !is_named(field, name) {
            return true;
        }
        seen += 1;
        if nth != 0 && seen != nth {
            return true;
        }
        if let Some(lines) = lines {
            *field = lines;
        }
        lines.is_some()
    });
}

fn is_named(field: &[u8], name: &[u8]) -> bool {
    let Some(colon) = field.iter().position(|b| *b == b':') else { return false };
    field[..colon].trim_ascii_end().eq_ignore_ascii_case(name)
}

/// Fields with their continuation lines.
fn split(section: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < section.len() {
        let end =
            section[at..].iter().position(|b| *b == b'\n').map_or(section.len(), |n| at + n + 1);
        let folded = section.get(end).is_some_and(|b| *b == b' ' || *b == b'\t');
        if !folded {
            out.push(&section[start..end]);
            start = end;
        }
        at = end;
    }
    if start < section.len() {
        out.push(&section[start..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_apply_in_order() {
        let header = b"A: 1\r\nB: 2\r\n folded\r\nA: 3\r\n\r\n";
        let edits = [
            Edit::AddTop((*b"Received: x\r\n\ty\r\n").into()),
            Edit::Remove { name: (*b"b").into(), nth: 1 },
            Edit::Replace { name: (*b"A").into(), nth: 2, lines: (*b"A: new\r\n").into() },
            Edit::Remove { name: (*b"none").into(), nth: 0 },
            Edit::Received(Received::default()),
            Edit::Received(Received {
                by: (*b"mx").into(),
                extended: true,
                tls: (*b"TLS").into(),
                wall_s: Some(0),
            }),
        ];
        assert_eq!(apply(header, &edits), b"Received: x\r\n\ty\r\nA: 1\r\nA: new\r\n\r\n");
        for edit in &edits {
            let mut out = Vec::new();
            edit.encode(&mut out);
            assert_eq!(Edit::decode(&out).as_ref(), Ok(edit));
        }
        assert_eq!(apply(header, &[]), header);
    }
}
