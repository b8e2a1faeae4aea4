//! Commands that ask more than one question: played sessions, export and import, figures that run.

use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use clap::{Arg, ArgMatches, value_parser};
use control::octets::{from_base64, to_base64};
use control::{ConfigAct, List, Part, Rehearse, Reply, Request, Text};

use crate::exit::{Exit, Trouble};
use crate::figures::{Samples, commit_ms, reasons, samples, sum};
use crate::page::Page;
use crate::row::{Row, argument, bounded, flag, option, row, text, usage};
use crate::socket::Socket;
use crate::{screen, smtp, tty};

/// The rows.
pub(crate) const ROWS: [Row; 6] = [
    Row {
        arguments: || {
            vec![
                option("from", "IP", "The client's address").required(true),
                option("listener", "N", "The listener, by its place in the config")
                    .value_parser(value_parser!(u16)),
            ]
        },
        talk: Some(session),
        example: &["--from", "192.0.2.1"],
        ..row("session", "Play a session as if from an address; nothing comes of it")
    },
    Row {
        arguments: || {
            let mut arguments = argument("ID", "The message's id, with its .n");
            arguments.push(option("into", "FOLDER", "Where to write ID.eml and ID.envelope"));
            arguments
        },
        talk: Some(export),
        example: &["X"],
        ..row("queue export", "Write a message (RFC 5322) and its envelope to files")
    },
    Row {
        arguments: || argument("FILE", "A file of `queue export` or `spool export`: ID.eml"),
        talk: Some(import),
        example: &["x.eml"],
        ..row("queue import", "Give the daemon an exported message, by its own port and policy")
    },
    Row {
        arguments: || {
            vec![
                Arg::new("TO").required(true).help("The recipient"),
                option("from", "ADDRESS", "The sender; the null sender without it"),
            ]
        },
        talk: Some(send),
        example: &["a@example.org"],
        ..row("test send", "Send a trial mail through the daemon's own port")
    },
    Row {
        arguments: || {
            vec![
                option("every-s", "SECONDS", "One line so often; else 2, screens as the line is")
                    .value_parser(value_parser!(u64).range(1..=3600)),
                option("count", "N", "So many lines, then end").value_parser(value_parser!(u64)),
                flag("screen", "A screen that is drawn anew, on a vt100 or better"),
                flag("reasons", "With what was refused and deferred, by reason"),
            ]
        },
        talk: Some(live),
        ..row("live", "Figures as they run, one line an interval")
    },
    Row {
        arguments: || argument("FILE", "A config"),
        talk: Some(diff),
        example: &["mx.toml"],
        ..row("settings diff", "Lines in which a file differs from the config file in force")
    },
];

fn unexpected() -> Trouble {
    Trouble::new(Exit::Protocol, "the daemon answered something else", "Use its own ringpost.")
}

/// The answer, or what the daemon has against it.
fn ask(socket: &mut Socket, request: &Request) -> Result<Reply, Trouble> {
    match socket.ask(request)?.1 {
        Reply::Failure(failure) => {
            let exit = match failure.code {
                control::FailureCode::NotFound => Exit::NotFound,
                _ => Exit::Refused,
            };
            Err(Trouble::new(exit, &*failure.message, &*failure.advice))
        }
        reply => Ok(reply),
    }
}

fn say(text: &str) -> Result<(), Trouble> {
    let mut out = std::io::stdout().lock();
    let said = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    said.map_err(|error| Trouble::new(Exit::Refused, format!("cannot write: {error}"), ""))
}

fn part(socket: &mut Socket, request: &Request) -> Result<(Part, Vec<u8>), Trouble> {
    let Reply::Part(part) = ask(socket, request)? else { return Err(unexpected()) };
    let octets = from_base64(&part.octets).ok_or_else(unexpected)?;
    Ok((*part, octets))
}

/// `session`: what was said before is said again with each piece; only what is new is printed.
fn session(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let mut stdin = std::io::stdin().lock();
    let typed = stdin.is_terminal();
    let from: Text<{ control::limits::NAME_OCTETS_MAX }> = bounded(m, "from")?;
    let listener = m.get_one("listener").copied().unwrap_or(0);
    let mut said: Vec<Text<{ control::limits::PART_OCTETS_MAX }>> = Vec::new();
    let (mut printed, mut noted) = (0, 0);
    loop {
        let pieces = List::try_from(said.clone());
        let pieces = pieces.map_err(|_| usage("too much was said", "Play less at once."))?;
        let request = Request::Session(Rehearse { from: from.clone(), listener, said: pieces });
        let (part, out) = part(socket, &request)?;
        for note in part.notes.iter().skip(noted) {
            let mut page = Page::default();
            page.paragraph(0, &format!("# {}", &**note));
            // Beside the dialogue, so that a program may read that alone.
            let _ = std::io::stderr().lock().write_all(page.into_text().as_bytes());
        }
        noted = part.notes.len();
        let new = String::from_utf8_lossy(out.get(printed..).unwrap_or_default()).into_owned();
        printed = out.len();
        say(&new)?;
        if part.closed {
            return Ok(Exit::Fine);
        }
        let mut octets = vec![0; 8 << 10];
        let count = stdin.read(&mut octets).unwrap_or(0);
        if count == 0 {
            return Ok(Exit::Fine);
        }
        octets.truncate(count);
        if typed && octets.ends_with(b"\n") && !octets.ends_with(b"\r\n") {
            octets.pop();
            octets.extend_from_slice(b"\r\n");
        }
        said.push(Text::cut(&to_base64(&octets)));
    }
}

/// `queue export`.
fn export(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let id: Text<{ control::limits::ID_OCTETS_MAX }> = bounded(m, "ID")?;
    let Reply::Message(message) = ask(socket, &Request::QueueShow { id: id.clone() })? else {
        return Err(unexpected());
    };
    let id = message.entry.id.clone();
    let folder = Path::new(text(m, "into").unwrap_or("."));
    let mut content = Vec::new();
    let mut next = Some(0);
    while let Some(number) = next {
        let (part, octets) = part(socket, &Request::QueueRead { id: id.clone(), part: number })?;
        content.extend_from_slice(&octets);
        next = part.next.filter(|next| *next > number);
    }
    let mut envelope = format!("MAIL FROM:<{}>\r\n", &*message.entry.sender);
    for recipient in message.recipients.iter() {
        if recipient.state == control::RecipientState::Pending {
            envelope.push_str(&format!("RCPT TO:<{}>\r\n", &*recipient.address));
        }
    }
    for (ending, octets) in [("eml", content), ("envelope", envelope.into_bytes())] {
        let path = folder.join(format!("{}.{ending}", &*id));
        fs::write(&path, octets).map_err(|error| {
            Trouble::new(Exit::Refused, format!("{}: {error}", path.display()), "")
        })?;
        say(&format!("{}\n", path.display()))?;
    }
    Ok(Exit::Fine)
}

/// The address of the daemon's first port for mail.
fn port(socket: &mut Socket) -> Result<String, Trouble> {
    let Reply::Status(status) = ask(socket, &Request::Status)? else { return Err(unexpected()) };
    let smtp = status.listeners.iter().find_map(|line| line.strip_prefix("smtp "));
    let address = smtp.ok_or_else(|| Trouble::new(Exit::Refused, "it listens nowhere", ""))?;
    Ok(address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:"))
}

/// `queue import`.
fn import(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let file = Path::new(text(m, "FILE").unwrap_or_default()).to_owned();
    let read = |path: &Path| {
        fs::read(path).map_err(|error| usage(format!("{}: {error}", path.display()), ""))
    };
    let content = read(&file)?;
    let envelope = read(&file.with_extension("envelope"))?;
    let envelope = String::from_utf8_lossy(&envelope).into_owned();
    let paths = |verb: &str| -> Vec<String> {
        let path = |line: &str| Some(line.strip_prefix(verb)?.trim_end_matches('>').to_owned());
        envelope.lines().filter_map(path).collect()
    };
    let (sender, recipients) = (paths("MAIL FROM:<"), paths("RCPT TO:<"));
    let sender = sender.first().cloned().unwrap_or_default();
    let address = port(socket)?;
    let accepted = smtp::submit(&address, &sender, &recipients, &content)?;
    say(&format!("{accepted}\n"))?;
    Ok(Exit::Fine)
}

/// `test send`.
fn send(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let to = text(m, "TO").unwrap_or_default().to_owned();
    let from = text(m, "from").unwrap_or_default().to_owned();
    let address = port(socket)?;
    let content = format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: Trial of the mail exchanger\r\n\r\n\
         Sent by `ringpost test send`. Whoever reads this has got it.\r\n"
    );
    let accepted = smtp::submit(&address, &from, std::slice::from_ref(&to), content.as_bytes())?;
    say(&format!("{accepted}\n"))?;
    let id = accepted.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    if let Some((id, _)) = id {
        say(&format!("See: ringpost why {id}\n"))?;
    }
    Ok(Exit::Fine)
}

/// `config diff`: the lines of either file that the other does not have, in order.
fn diff(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let file = text(m, "FILE").unwrap_or_default();
    let new = fs::read_to_string(file).map_err(|error| usage(format!("{file}: {error}"), ""))?;
    let Reply::Metrics(old) = ask(socket, &Request::Config(ConfigAct::Show(None)))? else {
        return Err(unexpected());
    };
    let lines = difference(&old.text, &new);
    let mut page = Page::default();
    lines.iter().for_each(|line| page.line(line));
    if lines.is_empty() {
        page.line("No line differs.");
    }
    say(&page.into_text())?;
    Ok(Exit::Fine)
}

/// Lines that went (`-`) and came (`+`), by the longest common sequence.
fn difference(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut longest = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for a in (0..old.len()).rev() {
        for b in (0..new.len()).rev() {
            longest[a][b] = if old[a] == new[b] {
                longest[a + 1][b + 1] + 1
            } else {
                longest[a + 1][b].max(longest[a][b + 1])
            };
        }
    }
    let (mut a, mut b, mut lines) = (0, 0, Vec::new());
    while a < old.len() || b < new.len() {
        if a < old.len() && b < new.len() && old[a] == new[b] {
            (a, b) = (a + 1, b + 1);
        } else if b == new.len() || (a < old.len() && longest[a + 1][b] >= longest[a][b + 1]) {
            lines.push(format!("-{}", old[a]));
            a += 1;
        } else {
            lines.push(format!("+{}", new[b]));
            b += 1;
        }
    }
    lines
}

/// The columns of `live`: heading, metric, whether it counts.
const FIGURES: [(&str, &str, bool); 8] = [
    ("conn/s", "ringpost_connections_total", true),
    ("acc/s", "ringpost_messages_accepted_total", true),
    ("ref/s", "ringpost_refused_total", true),
    ("sent/s", "ringpost_recipients_relayed_total", true),
    ("def/s", "ringpost_recipients_deferred_total", true),
    ("sess", "ringpost_sessions", false),
    ("hops", "ringpost_hop_connections", false),
    ("queue", "ringpost_queue_messages", false),
];
/// Lines between two headings.
const LINES_A_HEADING: u64 = 20;

/// `live`: plain lines, so that any terminal and any log takes them.
fn live(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let asked_s = m.get_one::<u64>("every-s").copied();
    if m.get_flag("screen") && tty::clever() {
        let baud = tty::baud(m.get_one::<u32>("baud").copied());
        return screen::show(socket, asked_s, m.get_one::<u64>("count").copied(), baud);
    }
    let every_s = asked_s.unwrap_or(2);
    let count = m.get_one::<u64>("count").copied().unwrap_or(u64::MAX);
    let mut before: Option<Samples> = None;
    let mut printed = 0;
    loop {
        let Reply::Metrics(metrics) = ask(socket, &Request::Metrics)? else {
            return Err(unexpected());
        };
        let now = samples(&metrics.text);
        if let Some(before) = &before {
            if printed % LINES_A_HEADING == 0 {
                let heads: String = FIGURES.iter().map(|(head, ..)| format!("{head:>8}")).collect();
                say(&format!("{heads}  commit ms\n"))?;
            }
            say(&line(before, &now, every_s))?;
            if m.get_flag("reasons") {
                say(&grown(before, &now))?;
            }
            printed += 1;
            if printed >= count {
                return Ok(Exit::Fine);
            }
        }
        before = Some(now);
        std::thread::sleep(Duration::from_secs(every_s));
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds of an interval are few")]
fn line(before: &Samples, now: &Samples, every_s: u64) -> String {
    let mut line = String::new();
    for (_, name, counts) in FIGURES {
        let value = match counts {
            true => (sum(now, name) - sum(before, name)).max(0.0) / every_s as f64,
            false => sum(now, name),
        };
        line.push_str(&format!("{value:>8.0}"));
    }
    format!("{line}  {}/{}\n", commit_ms(now, "0.5"), commit_ms(now, "0.99"))
}

fn grown(before: &Samples, now: &Samples) -> String {
    let mut page = Page::default();
    for (count, key) in reasons(before, now).into_iter().take(5) {
        page.line(&format!("          {count:>8.0} {key}"));
    }
    page.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_the_lines_that_went_and_came() {
        assert!(difference("a\nb\nc\n", "a\nb\nc\n").is_empty());
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\nd\n"), ["-b", "+x", "+d"]);
        assert_eq!(difference("", "a\n"), ["+a"]);
    }
}
