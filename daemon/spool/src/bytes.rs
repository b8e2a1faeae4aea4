//! Bytes in and out: little-endian cursors and numbered fields.
//!
//! *Guarantees*: reading never panics and never reads past the end; a field whose number is
//! unknown is handed to the caller with its bytes, so that it can be carried on verbatim.

/// The bytes end early, or say something impossible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Length as u32; every length here is bounded by `limits`.
pub(crate) fn len32(n: usize) -> u32 {
    u32::try_from(n).expect("lengths are bounded by limits")
}

/// u32 as index.
pub(crate) fn index(n: u32) -> usize {
    usize::try_from(n).expect("usize holds 32 bits")
}

/// Length as u64.
pub(crate) fn len64(n: usize) -> u64 {
    u64::try_from(n).expect("u64 holds a length")
}

/// Rounds up to a multiple of `to` (a power of two).
pub(crate) fn round_up(n: usize, to: usize) -> usize {
    n.next_multiple_of(to)
}

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Malformed> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    pub(crate) fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| Malformed);
            }
        }
        Err(Malformed)
    }

    pub(crate) fn varint64(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << shift;
            if shifted >> shift != bits {
                return Err(Malformed);
            }
            value |= shifted;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// The next numbered field.
    pub(crate) fn field(&mut self) -> Result<(u32, &'a [u8]), Malformed> {
        let number = self.varint()?;
        let length = self.varint()?;
        Ok((number, self.take(index(length))?))
    }
}

/// A whole number in the fewest bytes (none for zero).
pub(crate) fn number(bytes: &[u8]) -> Result<u64, Malformed> {
    if bytes.len() > 8 {
        return Err(Malformed);
    }
    let mut b = [0; 8];
    b[..bytes.len()].copy_from_slice(bytes);
    Ok(u64::from_le_bytes(b))
}

/// A number that must fit a smaller type.
pub(crate) fn small<T: TryFrom<u64>>(bytes: &[u8]) -> Result<T, Malformed> {
    T::try_from(number(bytes)?).map_err(|_| Malformed)
}

pub(crate) fn put_varint(out: &mut Vec<u8>, value: u32) {
    put_varint64(out, u64::from(value));
}

pub(crate) fn put_varint64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("seven bits"));
}

/// How to come from one number to another, small in either direction.
pub(crate) fn step(from: u64, to: u64) -> u64 {
    let step = to.wrapping_sub(from).cast_signed();
    (step << 1 ^ step >> 63).cast_unsigned()
}

/// Where a step leads.
pub(crate) fn stepped(from: u64, step: u64) -> u64 {
    let step = (step >> 1) ^ (step & 1).wrapping_neg();
    from.wrapping_add(step)
}

/// A field, empty or not.
pub(crate) fn put_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, number);
    put_varint(out, len32(bytes.len()));
    out.extend_from_slice(bytes);
}

/// A field, left out when empty: absent and empty mean the same.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_field(out, number, bytes);
    }
}

/// The significant bytes of a number.
fn significant(value: u64) -> ([u8; 8], usize) {
    let used = usize::try_from(8 - value.leading_zeros() / 8).expect("at most eight");
    (value.to_le_bytes(), used)
}

/// A number, left out when zero.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    let (bytes, used) = significant(value);
    put_bytes(out, number, &bytes[..used]);
}

/// A number that may be absent: zero is written.
pub(crate) fn put_some(out: &mut Vec<u8>, number: u32, value: Option<u64>) {
    if let Some(value) = value {
        let (bytes, used) = significant(value);
        put_field(out, number, &bytes[..used]);
    }
}

/// A field whose value is fields.
pub(crate) fn put_group(out: &mut Vec<u8>, number: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, number);
    let at = out.len();
    out.push(0);
    fill(out);
    let length = len32(out.len() - at - 1);
    match u8::try_from(length) {
        Ok(length) if length < 0x80 => out[at] = length,
        _ => {
            // Written behind the fields first, to learn its size; then they move up to make room.
            let end = out.len();
            put_varint(out, length);
            let more = out.len() - end;
            let mut prefix = [0; 5];
            prefix[..more].copy_from_slice(&out[end..]);
            out.truncate(end + more - 1);
            out.copy_within(at + 1..end, at + more);
            out[at..at + more].copy_from_slice(&prefix[..more]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_come_back(number_ in any::<u32>(), value: u64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_some(&mut out, number_, Some(value));
            put_field(&mut out, 7, &bytes);
            let mut r = Reader::new(&out);
            let (n, v) = r.field().unwrap();
            prop_assert_eq!((n, number(v)), (number_, Ok(value)));
            prop_assert_eq!(r.field().unwrap(), (7, &bytes[..]));
            prop_assert!(r.is_empty());
        }

        #[test]
        fn steps_lead_there(from: u64, to: u64) {
            prop_assert_eq!(stepped(from, step(from, to)), to);
            let mut out = Vec::new();
            put_varint64(&mut out, step(from, to));
            let mut r = Reader::new(&out);
            prop_assert_eq!(r.varint64(), Ok(step(from, to)));
            prop_assert!(r.is_empty());
        }

        #[test]
        fn a_group_is_a_field_of_its_fields(number: u32, bytes in vec(any::<u8>(), 0..20_000)) {
            let (mut group, mut field) = (vec![1], vec![1]);
            put_group(&mut group, number, |out| out.extend_from_slice(&bytes));
            put_field(&mut field, number, &bytes);
            prop_assert_eq!(group, field);
        }

        #[test]
        fn noise_is_refused_or_read(bytes: Vec<u8>) {
            let mut r = Reader::new(&bytes);
            while !r.is_empty() {
                if r.field().is_err() { break; }
            }
        }
    }
}
