//! Octets as text: base64 (RFC 4648 section 4).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Octets as base64.
#[must_use]
pub fn to_base64(octets: &[u8]) -> String {
    let mut out = String::with_capacity(octets.len().div_ceil(3) * 4);
    for group in octets.chunks(3) {
        let word = group.iter().fold(0_u32, |word, octet| word << 8 | u32::from(*octet));
        let word = word << (8 * (3 - group.len()));
        for n in 0..4 {
            let six = usize::try_from(word >> (18 - 6 * n) & 63).unwrap_or(0);
            out.push(if n <= group.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    out
}

/// Base64 as octets; `None` for what is none.
#[must_use]
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut word, mut bits) = (0_u32, 0);
    for octet in text {
        let six = ALPHABET.iter().position(|known| known == octet)?;
        word = word << 6 | u32::try_from(six).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    (bits < 6).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_rfc_and_back() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (octets, text) in pairs {
            assert_eq!(to_base64(octets.as_bytes()), text);
            assert_eq!(from_base64(text).as_deref(), Some(octets.as_bytes()));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_base64(&to_base64(&all)), Some(all));
        assert_eq!(from_base64("Z"), None);
        assert_eq!(from_base64("Zg!="), None);
    }
}
