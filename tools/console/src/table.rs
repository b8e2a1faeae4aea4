//! The one table of commands: name, help, arguments, request, page. A new command is a new row.
//!
//! *Guarantees*: the parser, `--help` and what is sent all come from here. Names of two words stand
//! below a group of [`GROUPS`].

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use control::{HintField, HintKey, HintsFilter, Level, List, QueueFilter, Reply, Request, Text};

use crate::exit::{Exit, Trouble};
use crate::page::Page;
use crate::{hints, queue, spool, status};

/// One command.
pub(crate) struct Row {
    /// One word, or a group and a word.
    pub(crate) name: &'static str,
    /// One sentence.
    pub(crate) help: &'static str,
    /// Its arguments.
    pub(crate) arguments: fn() -> Vec<Arg>,
    /// What it asks.
    pub(crate) request: fn(&ArgMatches) -> Result<Request, Trouble>,
    /// The page for the reply; a reply of another kind is `None`.
    pub(crate) render: fn(&mut Page, &Reply) -> Option<Exit>,
    /// The request for the page after this reply, for commands with `--all`.
    pub(crate) next: Option<fn(Request, &Reply) -> Option<Request>>,
    /// What is done here, without the daemon; then nothing is asked.
    pub(crate) local: Option<Local>,
}

/// A command that needs no daemon.
pub(crate) type Local = fn(&mut Page, &ArgMatches) -> Result<Exit, Trouble>;

/// Words that have further words below them.
pub(crate) const GROUPS: [(&str, &str); 4] = [
    ("queue", "Messages that wait"),
    ("log", "What is logged"),
    ("hints", "What is remembered and may be lost: retry times, health, rates"),
    ("spool", "A spool that no daemon holds"),
];

/// Every command.
pub(crate) const ROWS: [Row; 19] = [
    Row { request: |_| Ok(Request::Version), ..row("version", "What runs there") },
    Row { request: |_| Ok(Request::Status), ..row("status", "How the daemon is doing") },
    Row {
        request: |_| Ok(Request::Ledger),
        ..row("ledger", "Where every recipient stands; exit code 7 if it does not balance")
    },
    Row {
        request: |_| Ok(Request::Metrics),
        ..row("metrics", "All counters, in the Prometheus text format")
    },
    Row {
        arguments: queue_list_arguments,
        request: queue_list,
        next: Some(queue_next),
        ..row("queue list", "Messages in the queue, oldest first; all conditions must hold")
    },
    Row {
        arguments: || vec![Arg::new("ID").required(true).help("The message's id")],
        request: |m| Ok(Request::QueueShow { id: bounded(m, "ID")? }),
        ..row("queue show", "One message with its recipients")
    },
    Row {
        request: |_| Ok(Request::Reload),
        ..row("reload", "Read the config again, as a whole or not at all")
    },
    Row {
        request: |_| Ok(Request::Drain),
        ..row("drain", "Take no more connections, finish what is open, stop")
    },
    Row {
        arguments: || {
            let names = Level::ALL.map(|(_, name)| name);
            vec![Arg::new("LEVEL").value_parser(names).help("The new level")]
        },
        request: log_level,
        ..row("log level", "Say or set how much is logged")
    },
    Row {
        arguments: hints_list_arguments,
        request: hints_list,
        next: Some(hints_next),
        ..row("hints list", "Hints that count now")
    },
    Row {
        arguments: hint_arguments,
        request: |m| hint_key(m).map(Request::HintsGet),
        ..row("hints get", "One hint with its fields")
    },
    Row {
        arguments: hint_arguments,
        request: |m| hint_key(m).map(Request::HintsDelete),
        ..row("hints delete", "Forget one hint, so that what it holds back is tried at once")
    },
    Row {
        arguments: hints_set_arguments,
        request: hints_set,
        ..row("hints set", "Set fields of one hint; it is made if there is none")
    },
    Row {
        request: |_| Ok(Request::HintsTidy),
        ..row("hints tidy", "Drop what has expired; it is never used anyway")
    },
    Row {
        arguments: places,
        local: Some(spool::list),
        ..row("spool list", "Messages that wait in it, oldest first")
    },
    Row {
        arguments: place_and_id,
        local: Some(spool::show),
        ..row("spool show", "One message with its recipients")
    },
    Row {
        arguments: || {
            let mut arguments = place_and_id();
            arguments.push(option("into", "FOLDER", "Where to write ID.eml and ID.envelope"));
            arguments
        },
        local: Some(spool::export),
        ..row("spool export", "Write one message (RFC 5322) and its envelope to files")
    },
    Row {
        arguments: places,
        local: Some(spool::verify),
        ..row("spool verify", "Read all of it; exit code 7 if something is damaged")
    },
    Row {
        arguments: || {
            let mut arguments = places();
            arguments.push(flag("yes", "Do it; without this it is only said"));
            arguments
        },
        local: Some(spool::repair),
        ..row("spool repair", "Mend what a start of the daemon would mend")
    },
];

/// A row with nothing but its name: no arguments, and the page that fits the reply.
const fn row(name: &'static str, help: &'static str) -> Row {
    Row {
        name,
        help,
        arguments: Vec::new,
        request: |_| Ok(Request::Version),
        render: page_of,
        next: None,
        local: None,
    }
}

/// The page of a reply by its kind.
fn page_of(page: &mut Page, reply: &Reply) -> Option<Exit> {
    match reply {
        Reply::Done { message } => page.paragraph(0, message),
        Reply::Version(info) => status::version(page, info),
        Reply::Status(info) => status::status(page, info),
        Reply::Ledger(ledger) => {
            status::ledger(page, ledger);
            if ledger.difference() != 0 {
                return Some(Exit::Attention);
            }
        }
        Reply::Metrics(metrics) => page.verbatim(&metrics.text),
        Reply::Queue(queue) => queue::list(page, queue),
        Reply::Message(message) => queue::show(page, message),
        Reply::Reloaded(reloaded) => {
            page.line(&format!("Config generation {} is in force.", reloaded.generation));
            for note in reloaded.notes.iter() {
                page.paragraph(2, note);
            }
        }
        Reply::LogLevel(log) => page.line(&format!("Log level {}.", log.level.name())),
        Reply::Hints(list) => hints::list(page, list),
        Reply::Hint(hint) => hints::show(page, hint),
        _ => return None,
    }
    Some(Exit::Fine)
}

/// The whole command line.
pub(crate) fn command() -> Command {
    let mut command = Command::new("ringpost")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Administers ringpostd")
        .after_help(crate::exit::HELP)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .term_width(crate::text::COLUMNS)
        .color(clap::ColorChoice::Never)
        .arg(option("socket", "FILE", "The daemon's admin socket").global(true))
        .arg(
            option("timeout-s", "SECONDS", "Wait so long for an answer")
                .value_parser(value_parser!(u64).range(1..=86_400))
                .default_value("30")
                .global(true),
        )
        .arg(flag("json", "Print the replies as JSON, one line each").global(true));
    for (name, help) in GROUPS {
        let mut group = Command::new(name).about(help).subcommand_required(true);
        for row in ROWS.iter().filter(|row| row.name.split_once(' ').is_some_and(|n| n.0 == name)) {
            group = group.subcommand(subcommand(row));
        }
        command = command.subcommand(group.arg_required_else_help(true));
    }
    for row in ROWS.iter().filter(|row| !row.name.contains(' ')) {
        command = command.subcommand(subcommand(row));
    }
    command
}

fn subcommand(row: &Row) -> Command {
    let name = row.name.rsplit(' ').next().unwrap_or(row.name);
    Command::new(name).about(row.help).args((row.arguments)())
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

fn text<'m>(matches: &'m ArgMatches, name: &str) -> Option<&'m str> {
    matches.get_one::<String>(name).map(String::as_str)
}

fn usage(message: impl Into<String>, advice: impl Into<String>) -> Trouble {
    Trouble::new(Exit::Usage, message, advice)
}

fn optional<const MAX: usize>(m: &ArgMatches, name: &str) -> Result<Option<Text<MAX>>, Trouble> {
    let Some(text) = text(m, name) else { return Ok(None) };
    let bounded = Text::try_from(text.to_owned());
    bounded.map(Some).map_err(|error| usage(format!("{name} is {error} octets"), ""))
}

fn bounded<const MAX: usize>(m: &ArgMatches, name: &str) -> Result<Text<MAX>, Trouble> {
    Ok(optional(m, name)?.unwrap_or_default())
}

fn places() -> Vec<Arg> {
    let place = Arg::new("PLACE").required(true).num_args(1..);
    vec![
        place.help("All devices, files or folders of the spool"),
        flag("degraded", "A mirror may lack a member"),
    ]
}

fn place_and_id() -> Vec<Arg> {
    let mut arguments = places();
    arguments.insert(0, Arg::new("ID").required(true).help("The message's id"));
    arguments
}

fn count_argument() -> Arg {
    option("count", "N", "At most so many on a page").value_parser(value_parser!(u16))
}

fn queue_list_arguments() -> Vec<Arg> {
    vec![
        option("sender", "TEXT", "Part of the sender; <> is the null sender"),
        option("recipient", "TEXT", "Part of a recipient's address"),
        option("next-hop", "TEXT", "Part of the next hop's name"),
        option("age-s", "SECONDS", "At least so old").value_parser(value_parser!(u64)),
        option("tries", "N", "Tried at least so often").value_parser(value_parser!(u32)),
        flag("held", "Only held messages"),
        flag("not-held", "Only messages that are not held").conflicts_with("held"),
        option("after", "ID", "Continue after this message"),
        count_argument(),
        flag("all", "Every page"),
    ]
}

fn queue_list(m: &ArgMatches) -> Result<Request, Trouble> {
    let held = match (m.get_flag("held"), m.get_flag("not-held")) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    Ok(Request::QueueList(QueueFilter {
        sender: optional(m, "sender")?,
        recipient: optional(m, "recipient")?,
        next_hop: optional(m, "next-hop")?,
        age_s_min: m.get_one("age-s").copied(),
        tries_min: m.get_one("tries").copied(),
        held,
        after: optional(m, "after")?,
        count_max: m.get_one("count").copied().unwrap_or(0),
    }))
}

fn queue_next(request: Request, reply: &Reply) -> Option<Request> {
    let (Request::QueueList(filter), Reply::Queue(page)) = (request, reply) else { return None };
    let after = Some(page.next.clone()?);
    (after != filter.after).then_some(Request::QueueList(QueueFilter { after, ..filter }))
}

fn log_level(m: &ArgMatches) -> Result<Request, Trouble> {
    let level = text(m, "LEVEL")
        .and_then(|name| Level::ALL.iter().find(|(_, n)| *n == name))
        .map(|(level, _)| *level);
    Ok(Request::LogLevel { level })
}

fn hints_list_arguments() -> Vec<Arg> {
    vec![
        option("kind", "KIND", "Only retry, health, offers, note, rate-mail, ..."),
        option("key", "TEXT", "Part of the key"),
        option("cursor", "N", "Continue from here").value_parser(value_parser!(u64)),
        count_argument(),
        flag("all", "Every page"),
    ]
}

fn hints_list(m: &ArgMatches) -> Result<Request, Trouble> {
    Ok(Request::HintsList(HintsFilter {
        kind: optional(m, "kind")?,
        key: optional(m, "key")?,
        cursor: m.get_one("cursor").copied().unwrap_or(0),
        count_max: m.get_one("count").copied().unwrap_or(0),
    }))
}

fn hints_next(request: Request, reply: &Reply) -> Option<Request> {
    let (Request::HintsList(filter), Reply::Hints(page)) = (request, reply) else { return None };
    let cursor = page.next.filter(|next| *next > filter.cursor)?;
    Some(Request::HintsList(HintsFilter { cursor, ..filter }))
}

fn hint_arguments() -> Vec<Arg> {
    let key = Arg::new("KEY").required(true);
    vec![
        Arg::new("KIND").required(true).help("retry, health, offers, note, standing, ..."),
        key.help("A domain or host, 192.0.2.1, 2001:db8::/64, a message id"),
    ]
}

fn hint_key(m: &ArgMatches) -> Result<HintKey, Trouble> {
    Ok(HintKey { kind: bounded(m, "KIND")?, key: bounded(m, "KEY")? })
}

fn hints_set_arguments() -> Vec<Arg> {
    let fields = Arg::new("FIELD=NUMBER").required(true).num_args(1..);
    let life = option("life-s", "SECONDS", "How long it lives").default_value("86400");
    let mut arguments = hint_arguments();
    arguments.push(fields.help("As `hints get --json` names them"));
    arguments.push(life.value_parser(value_parser!(u64)));
    arguments
}

fn hints_set(m: &ArgMatches) -> Result<Request, Trouble> {
    let wrong = |field: &str| usage(format!("{field:?} is no field"), "Write FIELD=NUMBER.");
    let mut fields = Vec::new();
    for field in m.get_many::<String>("FIELD=NUMBER").into_iter().flatten() {
        let (name, number) = field.split_once('=').ok_or_else(|| wrong(field))?;
        let name = Text::try_from(name.to_owned()).map_err(|_| wrong(field))?;
        fields.push(HintField { name, number: number.parse().map_err(|_| wrong(field))? });
    }
    let fields = List::try_from(fields)
        .map_err(|error| usage(format!("the list of fields is {error}"), "Set fewer at once."))?;
    let life_s = m.get_one("life-s").copied().unwrap_or(0);
    Ok(Request::HintsSet { of: hint_key(m)?, fields, life_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_makes_a_sound_command_line() {
        command().debug_assert();
        for row in &ROWS {
            if let Some((group, _)) = row.name.split_once(' ') {
                assert!(GROUPS.iter().any(|(name, _)| *name == group), "{}", row.name);
            }
        }
    }

    #[test]
    fn each_row_asks_what_its_name_says() {
        for row in ROWS.iter().filter(|row| row.local.is_none()) {
            let words: Vec<&str> = ["ringpost"].into_iter().chain(row.name.split(' ')).collect();
            let needed = match row.name {
                "queue show" => &["X"][..],
                "hints get" | "hints delete" => &["retry", "k"],
                "hints set" => &["retry", "k", "tries=1"],
                _ => &[],
            };
            let matches = command().try_get_matches_from([&words, needed].concat()).unwrap();
            let mut matches = matches.subcommand().unwrap().1;
            if row.name.contains(' ') {
                matches = matches.subcommand().unwrap().1;
            }
            let request = (row.request)(matches).unwrap();
            assert_eq!(request.name(), row.name.replace(' ', "-"));
        }
    }
}
