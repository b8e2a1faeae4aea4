//! What is followed goes no faster than its line.
//!
//! *Guarantees*: lines are whole, and what is left out is counted. *Not here*: pages that were
//! asked for: those are printed whole, however long it takes.

use std::time::Duration;

/// Part of the line's speed that is used, in percent.
const USED_PERCENT: u64 = 80;
/// Room for the line that counts.
const NOTE_OCTETS: usize = 32;

/// As many lines as a line of so many bits a second takes in that time.
pub(crate) fn lines_that_fit(text: String, baud: Option<u32>, time: Duration) -> String {
    let Some(baud) = baud else { return text };
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let room = u64::from(baud) / 10 * USED_PERCENT / 100 * ms / 1000;
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if text.len() <= room {
        return text;
    }
    let (mut out, mut left_out) = (String::new(), 0_u64);
    for line in text.split_inclusive('\n') {
        if left_out == 0 && out.len() + line.len() + NOTE_OCTETS <= room {
            out.push_str(line);
        } else {
            left_out += 1;
        }
    }
    out.push_str(&format!("... {left_out} lines left out\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_line_gets_fewer_lines_and_their_number() {
        let text = "0123456789\n".repeat(100);
        let half = Duration::from_millis(500);
        assert_eq!(lines_that_fit(text.clone(), None, half), text);
        assert_eq!(lines_that_fit(text.clone(), Some(115_200), half), text);
        let slow = lines_that_fit(text, Some(9_600), half);
        assert!(slow.len() <= 384, "{}", slow.len());
        let shown = slow.lines().count() - 1;
        assert!(slow.ends_with(&format!("... {} lines left out\n", 100 - shown)), "{slow}");
    }
}
