//! Which of two versions is newer, in the same order as systemd-boot's.
//!
//! Parts of digits compare as numbers, others as text; `~` sorts before everything, also the end.

use std::cmp::Ordering;

/// Compares two versions.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (Some(b'~'), Some(b'~')) => {}
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) => return Ordering::Greater,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (left, right) = (number(&mut a), number(&mut b));
                match left.len().cmp(&right.len()).then_with(|| left.cmp(right)) {
                    Ordering::Equal => continue,
                    other => return other,
                }
            }
            (Some(x), Some(y)) if x != y => return x.cmp(y),
            _ => {}
        }
        (a, b) = (&a[1..], &b[1..]);
    }
}

/// Takes the leading digits, without zeros in front.
fn number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|c| **c == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_is_what_people_mean() {
        let order = ["0.9", "1.0.0~rc1", "1.0.0~rc2", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2"];
        for (n, a) in order.iter().enumerate() {
            for (m, b) in order.iter().enumerate() {
                assert_eq!(compare(a, b), n.cmp(&m), "{a} and {b}");
            }
        }
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
    }

    proptest::proptest! {
        #[test]
        fn the_order_is_one(a in "[0-9a-c.~]{0,8}", b in "[0-9a-c.~]{0,8}") {
            assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }
}
