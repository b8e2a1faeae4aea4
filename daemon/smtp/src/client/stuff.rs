//! Content on its way out: CRLF is the only line end, and no line of it ends DATA.
//!
//! *Guarantees*: whatever comes in, in whatever pieces, a CR in the output is followed by LF and an
//! LF preceded by CR; after [`stuff`] no line is a lone dot but the one that [`end`] writes.

use memchr::memchr2;

/// Where the content stands between two pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineState {
    /// The next octet begins a line.
    line_start: bool,
    /// The last octet was a CR, already sent as CRLF: an LF that follows belongs to it.
    after_cr: bool,
}

impl Default for LineState {
    fn default() -> Self {
        Self { line_start: true, after_cr: false }
    }
}

/// Appends `input` to `out` for DATA: line ends made CRLF, a dot that begins a line doubled.
pub fn stuff(input: &[u8], state: &mut LineState, out: &mut Vec<u8>) {
    convert::<true>(input, state, out);
}

/// Appends `input` to `out` for BDAT: line ends made CRLF, nothing else.
pub fn normalise(input: &[u8], state: &mut LineState, out: &mut Vec<u8>) {
    convert::<false>(input, state, out);
}

/// Ends DATA: completes an open last line, then the lone dot.
pub fn end(state: &mut LineState, out: &mut Vec<u8>) {
    out.extend_from_slice(if state.line_start { b".\r\n" } else { b"\r\n.\r\n" });
    *state = LineState::default();
}

fn convert<const DOTS: bool>(input: &[u8], state: &mut LineState, out: &mut Vec<u8>) {
    if input.is_empty() {
        return;
    }
    out.reserve(input.len() + input.len() / 64 + 8);
    // `from..at` is clean and not yet copied; `at` begins a line or a piece.
    let mut at = usize::from(state.after_cr && input[0] == b'\n');
    let mut from = at;
    state.after_cr = false;
    while at < input.len() {
        if DOTS && state.line_start && input[at] == b'.' {
            out.extend_from_slice(&input[from..at]);
            out.push(b'.');
            from = at;
        }
        state.line_start = false;
        let Some(found) = memchr2(b'\r', b'\n', &input[at..]) else { break };
        let found = at + found;
        state.line_start = true;
        if input[found] == b'\r' && input.get(found + 1) == Some(&b'\n') {
            at = found + 2;
            continue;
        }
        // A bare CR or LF, or a CR whose LF may open the next piece.
        out.extend_from_slice(&input[from..found]);
        out.extend_from_slice(b"\r\n");
        at = found + 1;
        from = at;
        state.after_cr = input[found] == b'\r' && at == input.len();
    }
    out.extend_from_slice(&input[from..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, octet by octet.
    fn slow(input: &[u8], dots: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let (mut start, mut cr) = (true, false);
        for &c in input {
            if c == b'\n' && cr {
                cr = false;
                continue;
            }
            cr = c == b'\r';
            if c == b'\r' || c == b'\n' {
                out.extend_from_slice(b"\r\n");
                start = true;
                continue;
            }
            if dots && start && c == b'.' {
                out.push(b'.');
            }
            start = false;
            out.push(c);
        }
        out
    }

    fn pieces(input: &[u8], cuts: &[usize], dots: bool) -> (Vec<u8>, LineState) {
        let convert = if dots { stuff } else { normalise };
        let mut out = Vec::new();
        let mut state = LineState::default();
        let mut rest = input;
        for cut in cuts {
            let (piece, later) = rest.split_at(cut % (rest.len() + 1));
            convert(piece, &mut state, &mut out);
            rest = later;
        }
        convert(rest, &mut state, &mut out);
        (out, state)
    }

    #[test]
    fn known_forms() {
        for (input, want) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n.\r\nb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\n.\nb\n", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\rb\r", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r\r\n\n\r.", b"a\r\n\r\n\r\n\r\n..\r\n.\r\n"),
        ] {
            let (mut out, mut state) = pieces(input, &[], true);
            end(&mut state, &mut out);
            assert_eq!(out, want, "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            input in prop::collection::vec(prop::sample::select(b"\r\n.ab".to_vec()), 0..60),
            cuts in prop::collection::vec(0usize..60, 0..8),
            dots: bool,
        ) {
            let (mut out, mut state) = pieces(&input, &cuts, dots);
            prop_assert_eq!(&out, &slow(&input, dots));
            for (n, c) in out.iter().enumerate() {
                prop_assert_eq!(*c == b'\r', out.get(n + 1) == Some(&b'\n'));
            }
            if dots {
                end(&mut state, &mut out);
                let text = [b"\r\n", out.as_slice()].concat();
                let ends = text.windows(5).filter(|w| *w == b"\r\n.\r\n").count();
                prop_assert_eq!(ends, 1);
                prop_assert!(text.ends_with(b"\r\n.\r\n"));
            }
        }
    }
}
