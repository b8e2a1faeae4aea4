//! Text for a plain terminal: 7 bit, nothing that moves a cursor, times and sizes in few columns.

use std::fmt::Write;

/// Columns of a page.
pub(crate) const COLUMNS: usize = 79;

/// Printable ASCII as it stands, all else escaped: what came over the network must not drive a
/// terminal.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => out.push(c),
            '\t' => out.push(' '),
            _ => write!(out, "\\u{{{:x}}}", u32::from(c)).expect("a string takes all"),
        }
    }
    out
}

/// As much as fits, `..` for the rest.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let mut text = plain(text);
    if text.len() > columns {
        text.truncate(columns.saturating_sub(2));
        text.push_str("..");
    }
    text
}

/// Lines of at most so many columns, broken at spaces where there are any.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in plain(text).split(' ').filter(|word| !word.is_empty()) {
        let mut word = word;
        if !line.is_empty() && line.len() + 1 + word.len() > columns {
            lines.push(std::mem::take(&mut line));
        }
        while word.len() > columns {
            let (head, tail) = word.split_at(columns);
            lines.push(head.to_owned());
            word = tail;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// Seconds in two units: `45s`, `12m5s`, `3h12m`, `2d4h`, `900d`.
pub(crate) fn span(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (100.., ..) => format!("{days}d"),
        (1.., ..) => format!("{days}d{hours}h"),
        (0, 1.., _) => format!("{hours}h{minutes}m"),
        (0, 0, 1..) => format!("{minutes}m{rest}s"),
        (0, 0, 0) => format!("{rest}s"),
    }
}

/// Octets in at most five columns: `823`, `4.0K`, `128K`, `1.5M`.
pub(crate) fn size(octets: u64) -> String {
    let mut tenths = u128::from(octets) * 10;
    for unit in ["", "K", "M", "G", "T", "P"] {
        if tenths < 10_240 {
            return match unit {
                "" => format!("{}", tenths / 10),
                _ if tenths < 100 => format!("{}.{}{unit}", tenths / 10, tenths % 10),
                _ => format!("{}{unit}", tenths / 10),
            };
        }
        tenths /= 1_024;
    }
    format!("{}E", tenths / 10)
}

/// Wall microseconds as `2026-02-03 04:05:06Z`.
pub(crate) fn wall(wall_us: u64) -> String {
    let seconds = wall_us / 1_000_000;
    let (hours, minutes, rest) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    // Days to a civil date (Howard Hinnant), in years that begin in March.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + later;
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{rest:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_drive_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\u{e4}\r\n"), "a\\u{1b}[2Jb\\u{e4}\\u{d}\\u{a}");
        assert_eq!(fit("abcdef", 5), "abc..");
        assert_eq!(fit("abcde", 5), "abcde");
        assert_eq!(wrap("aa bb  cccccc d", 4), ["aa", "bb", "cccc", "cc d"]);
    }

    #[test]
    fn figures_are_short() {
        let spans = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 8_640_000];
        let texts = ["0s", "59s", "1m0s", "59m59s", "1h0m", "23h59m", "1d0h", "100d"];
        assert_eq!(spans.map(span), texts);
        let sizes = [0, 1_023, 1_024, 10_239, 10_240, 1_048_576, u64::MAX];
        assert_eq!(sizes.map(size), ["0", "1023", "1.0K", "9.9K", "10K", "1.0M", "15E"]);
    }

    #[test]
    fn dates_are_civil() {
        let at = |seconds: u64| wall(seconds * 1_000_000);
        assert_eq!(at(0), "1970-01-01 00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00Z");
        assert_eq!(at(4_102_444_799), "2099-12-31 23:59:59Z");
    }
}
