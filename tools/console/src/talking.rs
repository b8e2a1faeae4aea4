//! Commands that ask more than one question: played sessions, export and import, trials, diffs.

use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use clap::{Arg, ArgMatches, value_parser};
use control::octets::{from_base64, to_base64};
use control::{ConfigAct, List, ListedBy, Part, Rehearse, Reply, Request, Submit, Text};
use serde_json::{Value, json};

use crate::exit::{Exit, Trouble};
use crate::machine;
use crate::page::{Page, reply};
use crate::row::{Row, argument, bounded, option, row, text, usage};
use crate::socket::Socket;
use crate::{health, smtp, status};

/// The rows.
pub(crate) const ROWS: [Row; 6] = [
    Row {
        request: |_| Ok(Request::Status),
        talk: Some(how),
        ..row("status", "How the daemon is doing, its devices and cores")
    },
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
        arguments: || argument("FILE", "A config"),
        talk: Some(diff),
        example: &["mx.toml"],
        ..row("config diff", "Lines in which a file differs from the config file in force")
    },
];

pub(crate) fn unexpected() -> Trouble {
    Trouble::new(Exit::Protocol, "the daemon answered something else", "Use its own ringpost.")
}

/// The answer, or what the daemon has against it.
pub(crate) fn ask(socket: &mut Socket, request: &Request) -> Result<Reply, Trouble> {
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

/// What was found: as text, or as a line of `--json`.
pub(crate) fn tell(m: &ArgMatches, text: &str, name: &str, facts: Value) -> Result<(), Trouble> {
    match m.get_flag("json") {
        true => say(&format!("{}\n", reply(name, facts))),
        false => say(text),
    }
}

pub(crate) fn say(text: &str) -> Result<(), Trouble> {
    say_octets(text.as_bytes())
}

fn say_octets(octets: &[u8]) -> Result<(), Trouble> {
    let mut out = std::io::stdout().lock();
    let said = out.write_all(octets).and_then(|()| out.flush());
    said.map_err(|error| Trouble::new(Exit::Refused, format!("cannot write: {error}"), ""))
}

fn part(socket: &mut Socket, request: &Request) -> Result<(Part, Vec<u8>), Trouble> {
    let Reply::Part(part) = ask(socket, request)? else { return Err(unexpected()) };
    let octets = from_base64(&part.octets).ok_or_else(unexpected)?;
    Ok((*part, octets))
}

/// `session`: a piece of what is typed, and what the daemon says to it.
fn session(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let mut stdin = std::io::stdin().lock();
    let typed = stdin.is_terminal();
    let from: Text<{ control::limits::NAME_OCTETS_MAX }> = bounded(m, "from")?;
    let listener = m.get_one("listener").copied().unwrap_or(0);
    let mut play = 0;
    let mut said: List<Text<{ control::limits::PART_OCTETS_MAX }>, _> = List::default();
    loop {
        let by_dns = ListedBy::default();
        let request = Rehearse { from: from.clone(), listener, play, said, by_dns };
        let (part, out) = part(socket, &Request::Session(request))?;
        play = part.play;
        for note in part.notes.iter().filter(|_| !m.get_flag("json")) {
            let mut page = Page::default();
            page.paragraph(0, &format!("# {}", &**note));
            // Beside the dialogue, so that a program may read that alone.
            let _ = std::io::stderr().lock().write_all(page.into_text().as_bytes());
        }
        if m.get_flag("json") {
            let notes: Vec<&str> = part.notes.iter().map(|note| &**note).collect();
            let words = String::from_utf8_lossy(&out);
            let facts = json!({ "said": words, "notes": notes, "closed": part.closed });
            say(&format!("{}\n", reply("session", facts)))?;
        } else {
            // Records of TLS are no text.
            say_octets(&out)?;
        }
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
        said = List::cut([Text::cut(&to_base64(&octets))]);
    }
}

/// `status`: the daemon's, with the health of its disks.
fn how(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let Reply::Status(found) = ask(socket, &Request::Status)? else { return Err(unexpected()) };
    let Reply::Ledger(ledger) = ask(socket, &Request::Ledger)? else { return Err(unexpected()) };
    let health = health::of_devices(found.devices.iter().map(|line| &**line));
    let mut page = Page::default();
    status::status(&mut page, &found, Some(&ledger), &health);
    let mut facts = serde_json::to_value(&*found).unwrap_or_default();
    facts["ledger"] = serde_json::to_value(ledger).unwrap_or_default();
    facts["health"] = health.iter().map(|(disk, said)| json!([disk, said])).collect();
    tell(m, &page.into_text(), "status", facts)?;
    Ok(if ledger.difference() == 0 { Exit::Fine } else { Exit::Attention })
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
    let mut files = Vec::new();
    for (ending, octets) in [("eml", content), ("envelope", envelope.into_bytes())] {
        let path = folder.join(format!("{}.{ending}", &*id));
        fs::write(&path, octets).map_err(|error| {
            Trouble::new(Exit::Refused, format!("{}: {error}", path.display()), "")
        })?;
        files.push(path.display().to_string());
    }
    let text = format!("{}\n", files.join("\n"));
    tell(m, &text, "exported", json!({ "files": files }))?;
    Ok(Exit::Fine)
}

/// Tells the daemon that mail comes, and gives it that by its first port.
fn submit(
    socket: &mut Socket,
    import: bool,
    (sender, recipients): (&str, &[String]),
    content: &[u8],
) -> Result<String, Trouble> {
    let mail = Submit {
        import,
        sender: Text::cut(sender),
        recipient: recipients.first().map(|to| Text::cut(to)).unwrap_or_default(),
        recipients: u32::try_from(recipients.len()).unwrap_or(u32::MAX),
        octets: content.len() as u64,
    };
    let Reply::Done { message } = ask(socket, &Request::Submit(mail))? else {
        return Err(unexpected());
    };
    smtp::submit(&message, sender, recipients, content)
}

/// `queue import`.
fn import(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let file = Path::new(text(m, "FILE").unwrap_or_default()).to_owned();
    let read = |path: &Path| {
        let advice = "Name ID.eml; ID.envelope lies beside it, as `queue export` writes them.";
        fs::read(path).map_err(|error| usage(format!("{}: {error}", path.display()), advice))
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
    let accepted = submit(socket, true, (&sender, &recipients), &content)?;
    tell(m, &format!("{accepted}\n"), "sent", sent(&accepted))?;
    Ok(Exit::Fine)
}

/// The id in `250 2.0.0 [id] accepted`.
fn id_in(accepted: &str) -> Option<&str> {
    Some(accepted.split_once('[')?.1.split_once(']')?.0)
}

fn sent(accepted: &str) -> Value {
    json!({ "answer": accepted, "id": id_in(accepted) })
}

/// `test send`.
fn send(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let to = text(m, "TO").unwrap_or_default().to_owned();
    let from = text(m, "from").unwrap_or_default().to_owned();
    let content = format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: Trial of the mail exchanger\r\n\r\n\
         Sent by `ringpost test send`. Whoever reads this has got it.\r\n"
    );
    let mail = (&*from, std::slice::from_ref(&to));
    let accepted = submit(socket, false, mail, content.as_bytes())?;
    let see = id_in(&accepted).map_or_else(String::new, |id| format!("See: ringpost why {id}\n"));
    tell(m, &format!("{accepted}\n{see}"), "sent", sent(&accepted))?;
    Ok(Exit::Fine)
}

/// `config diff`: the lines of either file that the other does not have, in order.
fn diff(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let file = text(m, "FILE").unwrap_or_default();
    let new = fs::read_to_string(file).map_err(|error| usage(format!("{file}: {error}"), ""))?;
    let old = match machine::in_force(Path::new(file)) {
        Some(old) => old,
        None => match ask(socket, &Request::Config(ConfigAct::Show(None)))? {
            Reply::Metrics(old) => old.text.to_string(),
            _ => return Err(unexpected()),
        },
    };
    let lines = difference(&old, &new);
    let mut page = Page::default();
    lines.iter().for_each(|line| page.line(line));
    if lines.is_empty() {
        page.line("No line differs.");
    }
    tell(m, &page.into_text(), "diff", json!({ "lines": lines }))?;
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
