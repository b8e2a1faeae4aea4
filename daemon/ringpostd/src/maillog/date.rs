//! Time stamps of log lines from wall time, without asking the system for its zone.

/// Formats times, and remembers the last second: only milliseconds change from line to line.
#[derive(Debug)]
pub(super) struct Stamp {
    offset_min: i32,
    /// The second of `text`, and its separator.
    of: Option<(u64, char)>,
    text: String,
    /// Where the milliseconds stand in it.
    millis_at: usize,
}

/// A date of the proleptic Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: u64,
    pub(super) month: u64,
    pub(super) day: u64,
    pub(super) hour: u64,
    pub(super) minute: u64,
    pub(super) second: u64,
}

/// The date of `seconds` since 1970-01-01 (the well-known algorithm by eras of 400 years).
pub(super) fn civil(seconds: u64) -> Civil {
    let days = seconds / 86_400 + 719_468; // since 0000-03-01
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153; // March is 0
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    Civil {
        year: year_of_era + era * 400 + u64::from(month <= 2),
        month,
        day: day_of_year - (153 * shifted + 2) / 5 + 1,
        hour: seconds / 3_600 % 24,
        minute: seconds / 60 % 60,
        second: seconds % 60,
    }
}

impl Stamp {
    pub(super) fn new(offset_min: i32) -> Self {
        Self { offset_min, of: None, text: String::new(), millis_at: 0 }
    }

    /// `2026-07-30 12:34:56.789 +0000`
    pub(super) fn text(&mut self, wall_us: u64) -> &str {
        self.render(wall_us, ' ')
    }

    /// `2026-07-30T12:34:56.789+00:00` (RFC 3339)
    pub(super) fn iso(&mut self, wall_us: u64) -> &str {
        self.render(wall_us, 'T')
    }

    fn render(&mut self, wall_us: u64, between: char) -> &str {
        let seconds = wall_us / 1_000_000;
        if self.of != Some((seconds, between)) {
            self.render_second(seconds, between);
            self.of = Some((seconds, between));
        }
        let millis = wall_us / 1_000 % 1_000;
        let digits = [millis / 100, millis / 10 % 10, millis % 10];
        let digits = digits.map(|digit| b'0' + digit.to_le_bytes()[0]);
        let digits = str::from_utf8(&digits).expect("digits are ASCII");
        self.text.replace_range(self.millis_at..self.millis_at + 3, digits);
        &self.text
    }

    fn render_second(&mut self, seconds: u64, between: char) {
        use std::fmt::Write as _;
        let c = civil(seconds.saturating_add_signed(i64::from(self.offset_min) * 60));
        self.text.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{:04}-{:02}-{:02}", c.year, c.month, c.day);
        let _ = write!(self.text, "{between}{:02}:{:02}:{:02}.", c.hour, c.minute, c.second);
        self.millis_at = self.text.len();
        let (sign, offset) = (if self.offset_min < 0 { '-' } else { '+' }, self.offset_min.abs());
        let (space, colon) = if between == 'T' { ("", ":") } else { (" ", "") };
        let (hours, minutes) = (offset / 60, offset % 60);
        let _ = write!(self.text, "000{space}{sign}{hours:02}{colon}{minutes:02}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00.000 +0000"),
            (951_782_399, "2000-02-28 23:59:59.000 +0000"),
            (951_782_400, "2000-02-29 00:00:00.000 +0000"),
            (1_785_414_896, "2026-07-30 12:34:56.000 +0000"),
            (4_102_444_799, "2099-12-31 23:59:59.000 +0000"),
            (4_107_542_400, "2100-03-01 00:00:00.000 +0000"),
        ] {
            assert_eq!(Stamp::new(0).text(seconds * 1_000_000), text);
        }
    }

    #[test]
    fn the_offset_moves_time_and_is_said() {
        let mut stamp = Stamp::new(-210);
        assert_eq!(stamp.text(1_785_414_896_789_999), "2026-07-30 09:04:56.789 -0330");
        assert_eq!(stamp.text(1_785_414_896_790_000), "2026-07-30 09:04:56.790 -0330");
        assert_eq!(stamp.text(0), "1970-01-01 00:00:00.000 -0330");
        assert_eq!(Stamp::new(120).iso(1_785_414_896_001_000), "2026-07-30T14:34:56.001+02:00");
        assert!(Stamp::new(840).text(u64::MAX).ends_with("+1400"));
    }
}
