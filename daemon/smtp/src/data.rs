//! Message content from the wire: where it ends, what may not stand in it, what was seen.
//!
//! *Guarantees*: only CRLF.CRLF ends DATA; content is lent in slices of the input, nothing is
//! copied; how the input is cut changes neither what is lent (joined) nor the facts. Lent content
//! holds no bare CR or LF unless it is the body of a BINARYMIME message, and ends with CRLF.
//!
//! *Failure*: a bare CR or LF stops the scanner ([`Event::Bare`]), or is made CRLF (LF) or a
//! space (CR) by [`BareNewline::Normalise`]: neither is ever part of the end of DATA, and a dot
//! behind one is neither stuffing nor the end.
//!
//! *Not here*: limits on what was seen (the server's), digests, MIME.

use crate::ends::plain_lines;

/// What to do with a CR or LF in content that is not part of a CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BareNewline {
    /// Refuse the message and end the session.
    #[default]
    Refuse,
    /// LF becomes CRLF, CR becomes a space.
    Normalise,
}

/// How content is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// DATA: dot-stuffed lines.
    Dots,
    /// BDAT of text.
    Chunks,
    /// BDAT with BODY=BINARYMIME: lines only in the header section.
    Binary,
}

/// Whether a sink takes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    More,
    /// This slice is taken, but give no further one until told.
    NotNow,
}

/// Where content goes.
pub trait Sink {
    /// A piece of the header section, which ends with its empty line if it has one.
    fn header(&mut self, octets: &[u8]) -> Flow;
    /// A piece of what follows the empty line.
    fn body(&mut self, octets: &[u8]) -> Flow;
}

/// What was seen while a message went by.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// Octets lent: what RFC 1870 counts.
    pub octets: u64,
    /// Octets of the header section, its empty line included.
    pub header_octets: u64,
    /// Lines of the header section that open with `Received:`.
    pub received: u32,
    /// Octets of the longest line without CRLF and stuffed dot.
    pub line_longest: u64,
    /// The header section ended with an empty line.
    pub has_separator: bool,
    /// A line before the empty line is neither a field nor a continuation of one.
    pub header_broken: bool,
    /// An octet above 127 in the header section.
    pub header_8bit: bool,
    /// An octet above 127 behind it.
    pub body_8bit: bool,
    /// A NUL in the header section.
    pub header_nul: bool,
    /// A NUL behind it.
    pub body_nul: bool,
    /// A bare CR or LF was normalised.
    pub normalised: bool,
    /// The last line came without CRLF (BDAT only) and was given one.
    pub newline_added: bool,
}

/// Why [`Scanner::feed`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// All input is used up.
    More,
    /// The sink said [`Flow::NotNow`].
    NotNow,
    /// The empty line behind the header section was lent.
    HeaderEnd,
    /// CRLF.CRLF.
    End,
    /// A bare CR or LF under [`BareNewline::Refuse`]; feed no more.
    Bare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Behind a true CRLF, or at the start.
    Line,
    /// Behind a dot at the start of a line; it is not lent yet.
    Dot,
    /// Behind dot and CR at the start of a line; neither is lent yet.
    DotCr,
    /// Inside a line.
    Text,
    /// Behind a CR that is not lent yet.
    Cr,
}

const RECEIVED: &[u8; 9] = b"received:";

/// Reads the content of one message.
#[derive(Debug, Clone)]
pub struct Scanner {
    facts: Facts,
    line: u64,
    at: At,
    framing: Framing,
    bare: BareNewline,
    in_header: bool,
    discard: bool,
    /// Octets of `RECEIVED` this header line has matched.
    matched: u8,
    /// This header line has had a colon, or continues one that had.
    is_field: bool,
    /// This header line opened with a space or tab.
    continues: bool,
    paused: bool,
}

impl Scanner {
    /// A scanner at the start of a message.
    #[must_use]
    pub fn new(framing: Framing, bare: BareNewline) -> Self {
        Self {
            facts: Facts::default(),
            line: 0,
            at: At::Line,
            framing,
            bare,
            in_header: true,
            discard: false,
            matched: 0,
            is_field: false,
            continues: false,
            paused: false,
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether the header section has not ended.
    #[must_use]
    pub fn in_header(&self) -> bool {
        self.in_header
    }

    /// From now on nothing is lent or recorded: only the end is looked for.
    pub fn discard(&mut self) {
        self.discard = true;
    }

    /// Reads on. Returns the octets used and why it stopped; [`Event::More`] uses all.
    pub fn feed(&mut self, input: &[u8], sink: &mut impl Sink) -> (usize, Event) {
        let mut used = 0;
        // Start of what is not lent yet.
        let mut run = 0;
        loop {
            if self.framing == Framing::Binary && !self.in_header {
                self.lend(&input[used..], sink);
                return (input.len(), if self.paused() { Event::NotNow } else { Event::More });
            }
            let event = match self.at {
                At::Line => self.line_start(input, &mut used, &mut run, sink),
                At::Text => self.text(input, &mut used, &mut run, sink),
                At::Dot | At::DotCr | At::Cr => self.split(input, &mut used, &mut run, sink),
            };
            if let Some(event) = event {
                return (used, event);
            }
        }
    }

    /// Ends a BDAT message: what the last chunk left open is closed.
    pub fn finish(&mut self, sink: &mut impl Sink) -> Event {
        if self.at == At::Cr {
            self.at = At::Text;
            if self.stray(sink) == Some(Event::Bare) {
                return Event::Bare;
            }
        }
        let binary_body = self.framing == Framing::Binary && !self.in_header;
        if self.at == At::Text && self.line > 0 && !binary_body {
            self.facts.newline_added = true;
            self.line_end();
            self.lend(b"\r\n", sink);
        }
        self.paused = false;
        Event::End
    }

    /// At the start of a line: the only place where a dot means something.
    fn line_start(
        &mut self,
        input: &[u8],
        used: &mut usize,
        run: &mut usize,
        sink: &mut impl Sink,
    ) -> Option<Event> {
        let rest = &input[*used..];
        if rest.first() != Some(&b'.') || self.framing != Framing::Dots {
            if rest.is_empty() {
                self.lend(&input[*run..], sink);
                return Some(self.more());
            }
            self.at = At::Text;
            return None;
        }
        let lent = &input[*run..*used];
        if rest.starts_with(b".\r\n") {
            *used += 3;
            self.lend(lent, sink);
            self.paused = false;
            return Some(Event::End);
        }
        self.at = At::Dot;
        *used += 1;
        *run = *used;
        self.lend(lent, sink);
        self.paused().then_some(Event::NotNow)
    }

    /// Inside a line, up to and over its end.
    fn text(
        &mut self,
        input: &[u8],
        used: &mut usize,
        run: &mut usize,
        sink: &mut impl Sink,
    ) -> Option<Event> {
        if self.in_header {
            *used += self.whole_fields(&input[*used..]);
        } else {
            *used += self.whole_lines(&input[*used..]);
        }
        if self.at == At::Line {
            return None;
        }
        let rest = &input[*used..];
        let Some(n) = memchr::memchr2(b'\r', b'\n', rest) else {
            self.in_line(rest);
            *used = input.len();
            self.lend(&input[*run..], sink);
            return Some(self.more());
        };
        self.in_line(&rest[..n]);
        if rest[n] == b'\r' && rest.get(n + 1) == Some(&b'\n') {
            *used += n + 2;
            self.at = At::Line;
            return self.line_ended(&input[*run..*used], run, *used, sink);
        }
        let lent = &input[*run..*used + n];
        *used += n + 1;
        *run = *used;
        let is_cr = rest[n] == b'\r';
        self.at = if is_cr { At::Cr } else { At::Text };
        self.lend(lent, sink);
        if is_cr {
            return self.paused().then_some(Event::NotNow);
        }
        self.bare_lf(sink)
    }

    /// Passes over lines of the body up to one that is not plain: the last of the input, one that
    /// a dot opens, one with a bare CR or LF. Returns the octets passed. This is where the time
    /// of a message goes, so nothing is written back before the end.
    fn whole_lines(&mut self, rest: &[u8]) -> usize {
        let mut at = 0;
        let mut line = self.line;
        let mut longest = self.facts.line_longest;
        let dots = self.framing == Framing::Dots;
        plain_lines(rest, |start, end| {
            longest = longest.max(line + (end - start) as u64);
            line = 0;
            at = end + 2;
            !dots || rest.get(at) != Some(&b'.')
        });
        let at_dot = at > 0 && dots && rest.get(at) == Some(&b'.');
        self.at = if at_dot || (at > 0 && at == rest.len()) { At::Line } else { At::Text };
        self.line = line;
        if !self.discard {
            self.facts.line_longest = longest;
        }
        at
    }

    /// The same for lines of the header section, up to its empty line.
    fn whole_fields(&mut self, rest: &[u8]) -> usize {
        let mut at = 0;
        let dots = self.framing == Framing::Dots;
        if self.line > 0 || self.discard {
            return at;
        }
        self.at = loop {
            let Some(n) = memchr::memchr2(b'\r', b'\n', &rest[at..]) else { break At::Text };
            let text = &rest[at..at + n];
            let Some(first) = text.first() else { break At::Text };
            if rest[at + n] != b'\r' || rest.get(at + n + 1) != Some(&b'\n') {
                break At::Text;
            }
            if !matches!(first, b' ' | b'\t') {
                self.is_field = memchr::memchr(b':', text).is_some();
                let name = text.get(..RECEIVED.len());
                if name.is_some_and(|name| name.eq_ignore_ascii_case(RECEIVED)) {
                    self.facts.received = self.facts.received.saturating_add(1);
                }
            }
            self.facts.header_broken |= !self.is_field;
            self.facts.line_longest = self.facts.line_longest.max(n as u64);
            at += n + 2;
            match rest.get(at) {
                None => break At::Line,
                Some(b'.') if dots => break At::Line,
                Some(_) => {}
            }
        };
        at
    }

    /// Behind a dot or CR that an earlier piece (or the search for its mate) left open.
    fn split(
        &mut self,
        input: &[u8],
        used: &mut usize,
        run: &mut usize,
        sink: &mut impl Sink,
    ) -> Option<Event> {
        let Some(&octet) = input.get(*used) else { return Some(Event::More) };
        match (self.at, octet) {
            (At::Dot, b'\r') => {
                self.at = At::DotCr;
                *used += 1;
                *run = *used;
                None
            }
            (At::DotCr, b'\n') => {
                *used += 1;
                Some(Event::End)
            }
            (At::Cr, b'\n') => {
                *used += 1;
                *run = *used;
                self.at = At::Line;
                self.line_ended(b"\r\n", run, *used, sink)
            }
            (At::Dot, _) => {
                // The dot was stuffing.
                self.at = At::Text;
                None
            }
            (_, _) => {
                self.at = At::Text;
                self.stray(sink)
            }
        }
    }

    /// A line ended with CRLF; `lent` is what of it is not lent yet.
    fn line_ended(
        &mut self,
        lent: &[u8],
        run: &mut usize,
        used: usize,
        sink: &mut impl Sink,
    ) -> Option<Event> {
        let header_ends = self.line_end();
        if !header_ends {
            // What is lent with `run` left behind goes out with the lines that follow.
            if *run == used {
                self.lend(lent, sink);
                return self.paused().then_some(Event::NotNow);
            }
            return None;
        }
        *run = used;
        self.lend(lent, sink);
        self.paused = false;
        self.in_header = false;
        (!self.discard).then(|| {
            self.facts.has_separator = true;
            Event::HeaderEnd
        })
    }

    fn bare_lf(&mut self, sink: &mut impl Sink) -> Option<Event> {
        if self.bare == BareNewline::Refuse && !self.discard {
            return Some(Event::Bare);
        }
        self.facts.normalised |= !self.discard;
        let header_ends = self.line_end();
        self.lend(b"\r\n", sink);
        if header_ends {
            self.paused = false;
            self.in_header = false;
            if !self.discard {
                self.facts.has_separator = true;
                return Some(Event::HeaderEnd);
            }
        }
        self.paused().then_some(Event::NotNow)
    }

    /// A CR that no LF follows.
    fn stray(&mut self, sink: &mut impl Sink) -> Option<Event> {
        if self.bare == BareNewline::Refuse && !self.discard {
            return Some(Event::Bare);
        }
        self.facts.normalised |= !self.discard;
        self.in_line(b" ");
        self.lend(b" ", sink);
        self.paused().then_some(Event::NotNow)
    }

    /// Notes octets of a line, its end not included.
    fn in_line(&mut self, octets: &[u8]) {
        if self.in_header {
            self.in_field(octets);
        }
        self.line += octets.len() as u64;
    }

    fn in_field(&mut self, octets: &[u8]) {
        let Some(&first) = octets.first() else { return };
        if self.line == 0 {
            self.matched = 0;
            // A continuation stays what the line before it was.
            self.continues = matches!(first, b' ' | b'\t');
            self.is_field &= self.continues;
        }
        let done = usize::from(self.matched);
        if self.line == done as u64 && done < RECEIVED.len() {
            let same = octets
                .iter()
                .zip(&RECEIVED[done..])
                .take_while(|(have, want)| have.eq_ignore_ascii_case(want))
                .count();
            // At most nine.
            self.matched += u8::try_from(same).unwrap_or(0);
            if usize::from(self.matched) == RECEIVED.len() && same > 0 && !self.discard {
                self.facts.received = self.facts.received.saturating_add(1);
            }
        }
        if !self.is_field && !self.continues {
            self.is_field = memchr::memchr(b':', octets).is_some();
        }
    }

    /// Notes the end of a line; true if it ended the header section.
    fn line_end(&mut self) -> bool {
        let empty = self.line == 0;
        if self.in_header && !empty && !self.is_field {
            self.facts.header_broken |= !self.discard;
        }
        if self.line > self.facts.line_longest && !self.discard {
            self.facts.line_longest = self.line;
        }
        self.line = 0;
        self.in_header && empty
    }

    fn lend(&mut self, octets: &[u8], sink: &mut impl Sink) {
        if self.discard || octets.is_empty() {
            return;
        }
        let facts = &mut self.facts;
        facts.octets += octets.len() as u64;
        let (high, nul) = high_and_nul(octets);
        let flow = if self.in_header {
            facts.header_octets += octets.len() as u64;
            facts.header_8bit |= high;
            facts.header_nul |= nul;
            sink.header(octets)
        } else {
            facts.body_8bit |= high;
            facts.body_nul |= nul;
            sink.body(octets)
        };
        self.paused |= flow == Flow::NotNow;
    }

    fn paused(&mut self) -> bool {
        std::mem::take(&mut self.paused)
    }

    fn more(&mut self) -> Event {
        if self.paused() { Event::NotNow } else { Event::More }
    }

    /// Octets of the longest line so far, the one under way included.
    #[must_use]
    pub fn line_longest(&self) -> u64 {
        self.facts.line_longest.max(self.line)
    }
}

/// Whether an octet above 127, and whether a NUL is in it; the loop is made for vectors.
fn high_and_nul(octets: &[u8]) -> (bool, bool) {
    let fold = |(high, low): (u8, u8), &c: &u8| (high | c, low.min(c));
    let (high, low) = octets.iter().fold((0, u8::MAX), fold);
    (high >= 0x80, low == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Debug, PartialEq, Eq)]
    struct Kept {
        header: Vec<u8>,
        body: Vec<u8>,
        slow: bool,
    }

    impl Sink for Kept {
        fn header(&mut self, octets: &[u8]) -> Flow {
            self.header.extend_from_slice(octets);
            if self.slow { Flow::NotNow } else { Flow::More }
        }
        fn body(&mut self, octets: &[u8]) -> Flow {
            self.body.extend_from_slice(octets);
            if self.slow { Flow::NotNow } else { Flow::More }
        }
    }

    /// Feeds all of `input` in pieces cut at `cuts`; what was kept, the facts, the octets used
    /// up to and with the end, and how it ended.
    fn read(
        input: &[u8],
        cuts: &[usize],
        framing: Framing,
        bare: BareNewline,
        slow: bool,
    ) -> (Vec<u8>, Vec<u8>, Facts, usize, Event) {
        let mut scanner = Scanner::new(framing, bare);
        let mut kept = Kept { slow, ..Kept::default() };
        let mut total = 0;
        let mut last = Event::More;
        let mut ends: Vec<usize> = cuts.iter().map(|c| c % (input.len() + 1)).collect();
        ends.push(input.len());
        ends.sort_unstable();
        'pieces: for end in ends {
            while total < end {
                let (used, event) = scanner.feed(&input[total..end], &mut kept);
                total += used;
                assert!(event != Event::More || total == end);
                last = event;
                if matches!(event, Event::End | Event::Bare) {
                    break 'pieces;
                }
            }
        }
        if framing != Framing::Dots && last != Event::Bare {
            last = scanner.finish(&mut kept);
        } else if last != Event::End && last != Event::Bare {
            last = Event::More;
        }
        (kept.header, kept.body, *scanner.facts(), total, last)
    }

    fn dots(input: &str) -> (String, String, Facts, usize, Event) {
        let (header, body, facts, used, event) =
            read(input.as_bytes(), &[], Framing::Dots, BareNewline::Normalise, false);
        let text = |octets| String::from_utf8(octets).expect("text");
        (text(header), text(body), facts, used, event)
    }

    #[test]
    fn splits_header_and_body_and_takes_the_dots_away() {
        let (header, body, facts, used, event) = dots(
            "Received: x\r\n\ty\r\nreceived: z\r\nSubject: .\r\n\r\n..\r\n.a\r\n\r\n.\r\nQUIT\r\n",
        );
        assert_eq!(header, "Received: x\r\n\ty\r\nreceived: z\r\nSubject: .\r\n\r\n");
        assert_eq!(body, ".\r\na\r\n\r\n");
        assert_eq!((event, facts.received, facts.line_longest), (Event::End, 2, 11));
        assert_eq!(facts.octets, (header.len() + body.len()) as u64);
        assert_eq!(facts.header_octets, header.len() as u64);
        assert!(facts.has_separator && !facts.header_broken && !facts.normalised);
        assert_eq!(used, header.len() + body.len() + 2 + 3);
    }

    #[test]
    fn an_empty_message_and_one_without_a_body() {
        assert_eq!(dots(".\r\n").4, Event::End);
        let (header, body, facts, ..) = dots("A: b\r\n.\r\n");
        assert_eq!((header.as_str(), body.as_str(), facts.has_separator), ("A: b\r\n", "", false));
        let (header, body, facts, ..) = dots("\r\nA: b\r\n.\r\n");
        assert_eq!((header.as_str(), body.as_str(), facts.header_octets), ("\r\n", "A: b\r\n", 2));
    }

    #[test]
    fn a_line_that_is_no_field_is_a_fact() {
        assert!(dots("A: b\r\nhello\r\n\r\n.\r\n").2.header_broken);
        assert!(dots(" folded first\r\n\r\n.\r\n").2.header_broken);
        assert!(!dots("A: b\r\n c\r\n d\r\n\r\nno field\r\n.\r\n").2.header_broken);
    }

    #[test]
    fn normalising_makes_lines_of_lf_and_spaces_of_cr() {
        let (header, body, facts, _, event) = dots("A: b\n\nx\ry\n.\r\n\n.\n\r\r\n.\r\n");
        assert_eq!(header, "A: b\r\n\r\n");
        assert_eq!(body, "x y\r\n.\r\n\r\n.\r\n \r\n");
        assert!(facts.normalised && event == Event::End);
    }

    #[test]
    fn a_chunked_message_is_closed() {
        let read =
            |text: &str, framing| read(text.as_bytes(), &[], framing, BareNewline::Refuse, false);
        let (header, body, facts, _, event) = read("A: b\r\n\r\n.\r\n..x", Framing::Chunks);
        assert_eq!(
            (header.as_slice(), body.as_slice()),
            (&b"A: b\r\n\r\n"[..], &b".\r\n..x\r\n"[..])
        );
        assert!(facts.newline_added && event == Event::End);
        assert_eq!(read("A: b\r\n\r\nx\r", Framing::Chunks).4, Event::Bare);
        assert_eq!(read("A: b\r\n\r\nx\n", Framing::Chunks).4, Event::Bare);
        let (_, body, facts, _, event) = read("A: b\r\n\r\nx\n\r\0\u{fc}", Framing::Binary);
        assert_eq!((body.len(), event), (6, Event::End));
        assert!(facts.body_nul && facts.body_8bit && !facts.newline_added);
        assert_eq!(read("A: b\nC: d\r\n\r\nx", Framing::Binary).4, Event::Bare);
    }

    /// What a naive reader makes of DATA: split at true CRLF, stop at a lone dot, unstuff.
    fn naive(input: &[u8]) -> Option<(Vec<u8>, usize)> {
        let mut out = Vec::new();
        let mut at = 0;
        loop {
            let end = at + input[at..].windows(2).position(|w| w == b"\r\n")?;
            let line = &input[at..end];
            at = end + 2;
            if line == b"." {
                return Some((out, at));
            }
            let line = line.strip_prefix(b".").unwrap_or(line);
            let mut n = 0;
            while let Some(&octet) = line.get(n) {
                match octet {
                    b'\n' => out.extend_from_slice(b"\r\n"),
                    b'\r' => out.push(b' '),
                    other => out.push(other),
                }
                n += 1;
            }
            out.extend_from_slice(b"\r\n");
        }
    }

    fn mix() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
        use proptest::prelude::*;
        let piece = prop_oneof![
            Just(&b"\r\n"[..]),
            Just(&b"."[..]),
            Just(&b"\r"[..]),
            Just(&b"\n"[..]),
            Just(&b"a"[..]),
            Just(&b":"[..]),
            Just(&b"\0"[..]),
            Just(&b"\r\n.\r\n"[..]),
            Just(&b"Received:"[..]),
            Just(&b" "[..]),
            Just(&b"\xff"[..]),
            Just(&b"\r\n\r\n"[..]),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_a_naive_reader(input in mix()) {
            let (header, body, facts, used, event) =
                read(&input, &[], Framing::Dots, BareNewline::Normalise, false);
            match naive(&input) {
                Some((content, end)) => {
                    proptest::prop_assert_eq!(event, Event::End);
                    proptest::prop_assert_eq!([header, body].concat(), content);
                    proptest::prop_assert_eq!(used, end);
                }
                None => proptest::prop_assert_eq!(event, Event::More),
            }
            proptest::prop_assert!(facts.header_octets <= facts.octets);
        }

        #[test]
        fn no_cut_changes_anything(
            input in mix(),
            cuts in proptest::collection::vec(0_usize..200, 0..12),
            slow: bool,
        ) {
            for framing in [Framing::Dots, Framing::Chunks, Framing::Binary] {
                for bare in [BareNewline::Refuse, BareNewline::Normalise] {
                    let whole = read(&input, &[], framing, bare, false);
                    let cut = read(&input, &cuts, framing, bare, slow);
                    if whole.4 == Event::Bare {
                        proptest::prop_assert_eq!(cut.4, Event::Bare);
                    } else {
                        proptest::prop_assert_eq!(whole, cut);
                    }
                }
            }
        }
    }
}
