//! Dialogs as data: reads the files of `tests/dialogs`, for whoever plays them.
//!
//! One file is one behaviour. `#` opens a comment; the first says what is shown and which RFC
//! asks for it. Then, line by line:
//!
//! ```text
//! ! name value     a setting the server needs for this dialog (see the players)
//! C: text          the client sends text and CRLF; \r \n \t \0 \\ \xHH stand for octets, and a
//!                  single \ at the end leaves CRLF out; C: lines in a row are one write
//! S: pattern       the server sends this line; * stands for any text
//! S+ 250           the server sends a whole reply with this code, however many lines
//! M: text          a line of the message accepted last; together they are all of it
//! T: seconds       nothing happens for so long
//! E: tls           a TLS handshake takes place
//! E: eof           the client closes its side
//! E: closed why    the server closes; a player that cannot see why takes any
//! ```
//!
//! It depends on nothing, so that a test of any crate may include it by `#[path]`.

use std::fs;
use std::path::Path;

/// One dialog.
#[derive(Debug, Clone)]
pub(crate) struct Dialog {
    /// The file's name.
    pub(crate) name: String,
    /// `! name value`.
    pub(crate) settings: Vec<(String, String)>,
    /// What happens, in order, with the line number.
    pub(crate) steps: Vec<(usize, Step)>,
}

/// One step of a dialog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The client writes this in one go.
    Send(Vec<u8>),
    /// The server's next line, without CRLF, matches.
    Line(String),
    /// The server's next reply, all its lines, has this code.
    Reply(String),
    /// The message accepted last is this.
    Message(Vec<u8>),
    /// Seconds pass.
    Wait(u64),
    /// Handshake.
    Tls,
    /// The client half-closes.
    Eof,
    /// The server closes, for this reason.
    Closed(String),
}

/// Reads all dialogs of a folder, by name.
///
/// # Panics
/// On a file that does not follow the form, with its name and line.
pub(crate) fn all(folder: &Path) -> Vec<Dialog> {
    let entries = fs::read_dir(folder).expect("the folder of dialogs");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        parse(&name, &fs::read_to_string(path).expect("UTF-8"))
    };
    paths.iter().map(read).collect()
}

/// Reads one dialog.
///
/// # Panics
/// On text that does not follow the form.
pub(crate) fn parse(name: &str, text: &str) -> Dialog {
    let header = text.lines().next().unwrap_or_default();
    assert!(header.starts_with("# RFC "), "{name}: opens with `# RFC n section: what is shown`");
    let mut dialog = Dialog { name: name.to_owned(), settings: Vec::new(), steps: Vec::new() };
    let mut joined = false;
    for (n, line) in text.lines().enumerate() {
        let bad = || -> ! { panic!("{name}:{}: {line}", n + 1) };
        if line.is_empty() || line.starts_with('#') {
            joined = false;
            continue;
        }
        let (kind, rest) = line.split_at(line.len().min(2));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let last = dialog.steps.last_mut().map(|(_, step)| step);
        let step = match (kind, last) {
            ("! ", _) => {
                let Some((key, value)) = rest.split_once(' ') else { bad() };
                dialog.settings.push((key.to_owned(), value.to_owned()));
                continue;
            }
            ("C:", Some(Step::Send(sent))) if joined => {
                sent.extend(octets(rest).unwrap_or_else(|| bad()));
                continue;
            }
            ("C:", _) => Step::Send(octets(rest).unwrap_or_else(|| bad())),
            ("M:", Some(Step::Message(whole))) => {
                whole.extend(octets(rest).unwrap_or_else(|| bad()));
                continue;
            }
            ("M:", _) => Step::Message(octets(rest).unwrap_or_else(|| bad())),
            ("S:", _) => Step::Line(rest.to_owned()),
            ("S+", _) => Step::Reply(rest.to_owned()),
            ("T:", _) => Step::Wait(rest.parse().unwrap_or_else(|_| bad())),
            ("E:", _) => match rest.split_once(' ').unwrap_or((rest, "")) {
                ("tls", "") => Step::Tls,
                ("eof", "") => Step::Eof,
                ("closed", why) => Step::Closed(why.to_owned()),
                _ => bad(),
            },
            _ => bad(),
        };
        joined = kind == "C:";
        dialog.steps.push((n + 1, step));
    }
    dialog
}

/// Text with escapes as octets, and CRLF unless a `\` stands at its end.
fn octets(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            out.push(octet);
            continue;
        }
        out.push(match rest.next() {
            None => return Some(out),
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let pair = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?
            }
            Some(_) => return None,
        });
    }
    out.extend_from_slice(b"\r\n");
    Some(out)
}

/// Whether a line matches a pattern in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, line: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == line };
    let Some(rest) = line.strip_prefix(head) else { return false };
    (0..=rest.len()).any(|n| rest.is_char_boundary(n) && matches(tail, &rest[n..]))
}
