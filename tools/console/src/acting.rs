//! Rows of what changes something, and the word that must be typed before.

use std::io::{BufRead, IsTerminal, Write};

use clap::{Arg, ArgMatches, value_parser};
use control::{Accepting, Act, List, QueueAct, Request, Rule, Text};

use crate::exit::{Exit, Trouble};
use crate::row::{Row, Word, argument, bounded, flag, option, optional, perhaps, row, usage};
use crate::speaker;

/// The rows.
pub(crate) const ROWS: [Row; 21] = [
    act("queue retry", "Try messages now, whatever the schedule", |m| queue(m, Act::Retry)),
    act("queue freeze", "Messages wait for the operator", |m| queue(m, Act::Freeze)),
    act("queue thaw", "They wait no more, and are tried now", |m| queue(m, Act::Thaw)),
    act("queue fallback", "Go on with the route's next fallback tier", |m| queue(m, Act::Fallback)),
    Row {
        arguments: || {
            let host = option("to", "HOST", "HOST, HOST:PORT, 192.0.2.1 or [2001:db8::1]:25");
            let mut arguments = act_arguments();
            arguments.insert(1, host.required(true));
            arguments.push(flag("unchecked", "Do not ask that host first whether it answers"));
            arguments
        },
        example: &["--all", "--to", "192.0.2.9", "--yes", "MOVE"],
        wait_s: 120,
        ..act("queue move", "Send messages to a host that you name, not by their route", |m| {
            queue(m, Act::Move)
        })
    },
    act("queue unmove", "Send moved messages by their route again", |m| queue(m, Act::Unmove)),
    act("queue bounce", "Give messages up, with a report to the sender", |m| queue(m, Act::Bounce)),
    act("queue remove", "Throw messages away without a report", |m| queue(m, Act::Remove)),
    Row {
        arguments: || argument("DOMAIN", "Of recipients"),
        request: |m| Ok(Request::Rule(Rule::HoldDomain(bounded(m, "DOMAIN")?))),
        example: &["example.org"],
        ..row("queue hold", "Mail for a domain waits until it is released")
    },
    Row {
        arguments: || argument("DOMAIN", "Of recipients"),
        request: |m| Ok(Request::Rule(Rule::ReleaseDomain(bounded(m, "DOMAIN")?))),
        example: &["example.org"],
        ..row("queue release", "Mail for a held domain goes on")
    },
    Row { request: |_| Ok(Request::Rules), ..row("rules", "All standing orders") },
    Row { request: |_| Ok(Request::Rules), ..row("blocks", "Who is blocked or let in") },
    Row {
        arguments: || {
            let drain = flag("drain", "Take mail, and tell switches 503 on the health page");
            let closed = flag("closed", "Close the port instead of saying 421");
            vec![closed, drain.conflicts_with("closed")]
        },
        request: |m| {
            let how = match (m.get_flag("closed"), m.get_flag("drain")) {
                (true, _) => Accepting::Closed,
                (_, true) => Accepting::Drain,
                _ => Accepting::Refuse,
            };
            Ok(Request::Rule(Rule::Accepting(how)))
        },
        ..row("suspend accepting", "Take no mail; over restarts, until it is resumed")
    },
    Row {
        arguments: || vec![Arg::new("DOMAIN").help("To this domain only, as `queue hold`")],
        request: |m| {
            Ok(Request::Rule(match optional(m, "DOMAIN")? {
                Some(domain) => Rule::HoldDomain(domain),
                None => Rule::Delivering(false),
            }))
        },
        ..row("suspend delivering", "Begin no delivery; over restarts, until it is resumed")
    },
    Row {
        request: |_| Ok(Request::Rule(Rule::Accepting(Accepting::Open))),
        ..row("resume accepting", "Take mail again")
    },
    Row {
        arguments: || vec![Arg::new("DOMAIN").help("To this domain only, as `queue release`")],
        request: |m| {
            Ok(Request::Rule(match optional(m, "DOMAIN")? {
                Some(domain) => Rule::ReleaseDomain(domain),
                None => Rule::Delivering(true),
            }))
        },
        ..row("resume delivering", "Send mail on again")
    },
    Row {
        arguments: listed_arguments,
        request: |m| listed(m, false),
        example: &["192.0.2.1"],
        ..row("block", "Turn an address or network away")
    },
    Row {
        arguments: listed_arguments,
        request: |m| listed(m, true),
        example: &["192.0.2.1"],
        ..row("allow", "Let an address or network in past every limit")
    },
    Row {
        arguments: || argument("NETWORK", "As it was blocked or allowed"),
        request: |m| Ok(Request::Rule(Rule::Unlisted(bounded(m, "NETWORK")?))),
        example: &["192.0.2.1"],
        ..row("unblock", "Neither block nor allow it any more")
    },
    Row {
        arguments: || argument("NETWORK", "As it was blocked or allowed"),
        request: |m| Ok(Request::Rule(Rule::Unlisted(bounded(m, "NETWORK")?))),
        example: &["192.0.2.1"],
        ..row("unallow", "Neither block nor allow it any more")
    },
    Row { request: |_| Ok(Request::Version), ..row("ping", "Whether a daemon answers") },
];

const fn act(
    name: &'static str,
    help: &'static str,
    request: fn(&ArgMatches) -> Result<Request, Trouble>,
) -> Row {
    Row {
        arguments: act_arguments,
        request,
        example: &["00000000000000000001.1", "--yes", "REMOVE"],
        ..row(name, help)
    }
}

fn act_arguments() -> Vec<Arg> {
    vec![
        Arg::new("ID").num_args(0..).help("Messages; an id without .n means all of its session"),
        option("next-hop", "NAME", "Those for a next hop, named as in `queue summary`"),
        flag("all", "All messages").conflicts_with("next-hop"),
        option("yes", "WORD", "The word, for scripts: BOUNCE, REMOVE, MOVE"),
    ]
}

fn queue(m: &ArgMatches, act: Act) -> Result<Request, Trouble> {
    let ids: Vec<Text<{ control::limits::ID_OCTETS_MAX }>> =
        m.get_many::<String>("ID").into_iter().flatten().map(|id| Text::cut(id)).collect();
    let ids = List::try_from(ids)
        .map_err(|error| usage(format!("the list of ids is {error}"), "Name fewer at once."))?;
    let (next_hop, all) = (optional(m, "next-hop")?, m.get_flag("all"));
    if usize::from(!ids.is_empty()) + usize::from(next_hop.is_some()) + usize::from(all) != 1 {
        return Err(usage("which messages?", "Name ids, or --next-hop NAME, or --all."));
    }
    let word = match act.word() {
        Some(word) if act == Act::Move => {
            typed(m, word, "mail goes where the config does not send it")?
        }
        Some(word) => typed(m, word, &format!("{} cannot be taken back", act.name()))?,
        None => Text::default(),
    };
    let moves = act == Act::Move;
    let to = if moves { optional(m, "to")? } else { None };
    let unchecked = moves && m.get_flag("unchecked");
    Ok(Request::QueueAct(QueueAct { act, ids, next_hop, all, to, unchecked, word }))
}

/// The word that confirms: from `--yes`, else from the terminal.
pub(crate) fn typed<const MAX: usize>(
    m: &ArgMatches,
    word: &str,
    why: &str,
) -> Result<Text<MAX>, Trouble> {
    if let Some(given) = optional(m, "yes")? {
        return Ok(given);
    }
    // The daemon says no to him, and writes it down.
    if !speaker::is_operator() {
        ask_for(word, why)?;
    }
    Ok(Text::cut(word))
}

/// Asks whoever sits at the terminal for a word.
pub(crate) fn ask_for(word: &str, why: &str) -> Result<(), Trouble> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(usage(why, format!("Say --yes {word}.")));
    }
    let mut line = String::new();
    let asked = write!(std::io::stdout(), "{why}. Type {word} to do it: ")
        .and_then(|()| std::io::stdout().flush())
        .and_then(|()| stdin.lock().read_line(&mut line));
    if asked.is_err() || line.trim() != word {
        return Err(Trouble::new(Exit::Refused, "nothing was done", ""));
    }
    Ok(())
}

/// The word of a row, from `--yes`, else from the terminal.
pub(crate) fn confirmed(row: &Row, m: &ArgMatches) -> Result<(), Trouble> {
    let word = match row.word {
        Some(Word::Always(word)) => word,
        Some(Word::Login(word)) if speaker::speaker().is_some() => word,
        _ => return Ok(()),
    };
    match perhaps(m, "yes") {
        Some(given) if given == word => Ok(()),
        Some(_) => {
            Err(Trouble::new(Exit::Refused, "nothing was done", format!("The word is {word}.")))
        }
        // As above.
        None if speaker::is_operator() => Ok(()),
        None => ask_for(word, &format!("{} wants a word", row.name)),
    }
}

fn listed_arguments() -> Vec<Arg> {
    vec![
        Arg::new("NETWORK").required(true).help("192.0.2.1, 192.0.2.0/24, 2001:db8::/64"),
        option("for-s", "SECONDS", "For so long; without it for good")
            .value_parser(value_parser!(u64).range(1..)),
        option("why", "TEXT", "For whoever looks later"),
    ]
}

fn listed(m: &ArgMatches, allow: bool) -> Result<Request, Trouble> {
    Ok(Request::Rule(Rule::Listed {
        network: bounded(m, "NETWORK")?,
        allow,
        seconds: m.get_one("for-s").copied().unwrap_or(0),
        why: bounded(m, "why")?,
    }))
}
