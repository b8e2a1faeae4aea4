//! The one table of commands: name, help, arguments, request, page. A new command is a new row.
//!
//! *Guarantees*: the parser, `--help` and what is sent all come from here. Names of two words stand
//! below a group of [`GROUPS`].

use clap::{Arg, ArgMatches, Command, value_parser};
use control::{HintField, HintKey, HintsFilter, Level, List, QueueFilter, Reply, Request, Text};
use serde_json::json;

use crate::exit::{Exit, Trouble};
use crate::page::Page;
use crate::row::{Row, Word, bounded, dead, flag, option, optional, row, text, usage};
use crate::{
    accessing, acting, configuring, keeping, ladder, living, looking, machine, overview, spool,
    summing, talking, watching, wizard,
};

/// Words that have further words below them.
pub(crate) const GROUPS: [(&str, &str); 11] = [
    ("queue", "Messages that wait"),
    ("suspend", "Stop taking or sending mail"),
    ("resume", "Take or send it again"),
    ("test", "Try the DNS, next hops, the whole way"),
    ("trace", "Sessions line by line"),
    ("log", "The logs"),
    ("hints", "What is remembered and may be lost: retry times, health, rates"),
    ("spool", "A spool that no daemon holds; devices of one that is held"),
    ("xdp", "Who is turned away, by the daemon and before the TCP stack"),
    ("access", "Who may log in on the line"),
    ("config", "The config: look, check, put in force, take back"),
];

/// Every command.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    let more = looking::ROWS.iter().chain(&acting::ROWS).chain(&configuring::ROWS);
    let talking = talking::ROWS.iter().chain(&living::ROWS).chain(&summing::ROWS);
    let talking = talking.chain(&keeping::ROWS).chain(&watching::ROWS);
    let ours = accessing::ROWS.iter().chain(&wizard::ROWS);
    let talking = talking.chain(ours);
    ROWS.iter().chain(more).chain(talking).chain(&ladder::ROWS).chain(&machine::ROWS)
}

const ROWS: [Row; 23] = [
    Row { local: Some(commands), ..row("commands", "Every command, one a line") },
    Row {
        arguments: || {
            let word = Arg::new("WORD").num_args(0..);
            vec![word.help("A group, a topic, or how a command begins")]
        },
        local: Some(help),
        ..row("help", "All commands on one screen, or those of a word")
    },
    row("shell", "One command a line, or a number of the menu; for serial lines"),
    Row { request: |_| Ok(Request::Version), ..row("version", "What runs there") },
    Row {
        request: |_| Ok(Request::Ledger),
        ..row("ledger", "Where every recipient stands; exit code 7 if it is wrong")
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
        example: &["X"],
        request: |m| Ok(Request::QueueShow { id: bounded(m, "ID")? }),
        ..row("queue show", "One message with its recipients")
    },
    Row {
        request: |_| Ok(Request::Reload),
        ..row("reload", "Read the config again, as a whole or not at all")
    },
    Row {
        request: |_| Ok(Request::Drain),
        word: Some(Word::Always("DRAIN")),
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
        arguments: hint_or_dead,
        example: &["retry", "k"],
        request: |m| hint_key(m).map(Request::HintsGet),
        ..row("hints get", "One hint with its fields")
    },
    Row {
        arguments: hint_or_dead,
        example: &["retry", "k"],
        audited: true,
        request: |m| hint_key(m).map(Request::HintsDelete),
        ..row("hints delete", "Forget one hint, so that what it holds back is tried at once")
    },
    Row {
        arguments: hints_set_arguments,
        audited: true,
        example: &["retry", "k", "tries=1"],
        request: hints_set,
        ..row("hints set", "Set fields of one hint; it is made if there is none")
    },
    Row {
        arguments: || vec![dead()],
        audited: true,
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
        audited: true,
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
    Row {
        request: |_| Ok(Request::SpoolFill),
        ..row("spool fill", "Have the daemon take in devices that came back, and fill them")
    },
    Row {
        arguments: || vec![flag("yes", "Do it; without this it is only said")],
        request: |m| Ok(Request::SpoolTakeIn { yes: m.get_flag("yes") }),
        wait_s: 3_600,
        ..row("spool take-in", "Have the daemon take in the mail of a half that went on alone")
    },
];

/// The whole command line.
pub(crate) fn command() -> Command {
    let mut command = Command::new("ringpost")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Administers ringpostd")
        .after_help(crate::exit::HELP)
        .help_template(format!(
            "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}\nOptions:\n{{options}}\
             {{after-help}}",
            all_at_once()
        ))
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .term_width(crate::text::COLUMNS)
        // The shell starts each command as /proc/self/exe.
        .bin_name("ringpost")
        .color(clap::ColorChoice::Never)
        .arg(option("socket", "FILE", "The daemon's admin socket").global(true))
        .arg(
            option("timeout-s", "SECONDS", "Wait so long for an answer")
                .value_parser(value_parser!(u64).range(1..=86_400))
                .default_value("30")
                .global(true),
        )
        .arg(
            option("baud", "N", "The line's speed, bits a second")
                .value_parser(value_parser!(u32))
                .global(true),
        )
        .arg(flag("json", "Print the replies as JSON, one line each").global(true));
    for (name, help) in GROUPS {
        let mut group = Command::new(name).about(help).subcommand_required(true);
        group = group.disable_help_subcommand(true);
        for row in rows().filter(|row| row.name.split_once(' ').is_some_and(|n| n.0 == name)) {
            group = group.subcommand(subcommand(row));
        }
        command = command.subcommand(group.arg_required_else_help(true));
    }
    for row in rows().filter(|row| !row.name.contains(' ')) {
        command = command.subcommand(subcommand(row));
    }
    command
}

fn subcommand(row: &Row) -> Command {
    let name = row.name.rsplit(' ').next().unwrap_or(row.name);
    let example = match row.example {
        [] => String::new(),
        example => format!("Example: ringpost {} {}", row.name, example.join(" ")),
    };
    let mut arguments = (row.arguments)();
    if let Some(word) = row.word {
        let help = format!("For scripts: the word that is asked for, {}", word.text());
        arguments.push(Arg::new("yes").long("yes").value_name("WORD").help(help));
    }
    Command::new(name).about(row.help).args(arguments).after_help(example)
}

/// All commands on one screen.
pub(crate) fn all_at_once() -> String {
    overview::overview(&rows().collect::<Vec<_>>(), &GROUPS)
}

fn help(page: &mut Page, m: &ArgMatches) -> Result<Exit, Trouble> {
    let words = m.get_many::<String>("WORD").into_iter().flatten();
    let begin = words.map(|word| &**word).collect::<Vec<_>>().join(" ");
    overview::help(page, &begin, (&rows().collect::<Vec<_>>(), &GROUPS))
}

fn commands(page: &mut Page, _: &ArgMatches) -> Result<Exit, Trouble> {
    let mut all: Vec<&Row> = rows().collect();
    all.sort_by_key(|row| row.name);
    for row in &all {
        page.line(&format!("{:<20} {}", row.name, row.help));
    }
    let facts = all.iter().map(|row| json!({ "command": row.name, "help": row.help }));
    page.facts("commands", facts.collect());
    Ok(Exit::Fine)
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
        option("domain", "DOMAIN", "The domain of a recipient that waits, as a whole"),
        option("error", "TEXT", "Part of what the last attempt came to"),
        option("age-s", "SECONDS", "At least so old").value_parser(value_parser!(u64)),
        option("younger-s", "SECONDS", "Not older").value_parser(value_parser!(u64)),
        option("size", "OCTETS", "At least so large").value_parser(value_parser!(u64)),
        option("smaller", "OCTETS", "Not larger").value_parser(value_parser!(u64)),
        option("tries", "N", "Tried at least so often").value_parser(value_parser!(u32)),
        flag("frozen", "Only those the daemon fell over with"),
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
        age_s_max: m.get_one("younger-s").copied(),
        size_min: m.get_one("size").copied(),
        size_max: m.get_one("smaller").copied(),
        domain: optional(m, "domain")?,
        error: optional(m, "error")?,
        frozen: m.get_flag("frozen").then_some(true),
        waits: false,
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
        dead(),
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

fn hint_or_dead() -> Vec<Arg> {
    let mut arguments = hint_arguments();
    arguments.push(dead());
    arguments
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
    arguments.push(dead());
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
        for row in rows() {
            if let Some((group, _)) = row.name.split_once(' ') {
                assert!(GROUPS.iter().any(|(name, _)| *name == group), "{}", row.name);
            }
        }
    }

    #[test]
    fn usage_names_the_program_however_it_was_started() {
        for words in [&["exe", "queue"][..], &["/proc/self/exe", "queue", "show"]] {
            let error = command().try_get_matches_from(words).unwrap_err().to_string();
            assert!(error.contains("Usage: ringpost queue"), "{error}");
        }
    }

    #[test]
    fn each_row_makes_a_request_of_its_example() {
        for row in rows().filter(|row| row.local.is_none() && row.talk.is_none()) {
            let words: Vec<&str> = ["ringpost"].into_iter().chain(row.name.split(' ')).collect();
            let matches = command().try_get_matches_from([&words, row.example].concat()).unwrap();
            let mut matches = matches.subcommand().unwrap().1;
            if row.name.contains(' ') {
                matches = matches.subcommand().unwrap().1;
            }
            // Files of the examples are not there.
            let named = row.example.first().is_some_and(|word| word.ends_with(".toml"));
            assert!(named || (row.request)(matches).is_ok(), "{}", row.name);
        }
    }

    #[test]
    fn all_commands_stand_on_one_screen() {
        let all: Vec<&Row> = rows().collect();
        let text = overview::overview(&all, &GROUPS);
        assert!(text.lines().count() <= 24, "{text}");
        assert!(
            text.is_ascii() && text.lines().all(|line| line.len() <= crate::text::COLUMNS),
            "{text}"
        );
        for row in rows() {
            let (title, word) = match row.name.split_once(' ') {
                Some((group, word)) => (Some(group), word),
                None => (None, row.name),
            };
            let found = text.lines().any(|line| {
                let (front, words) = line.split_at_checked(overview::TITLE).unwrap_or((line, ""));
                let title = title.is_none_or(|title| [title, ""].contains(&front.trim()));
                title && words.split(' ').any(|w| w == word)
            });
            assert!(found, "{}: {text}", row.name);
        }
        for (_, words) in overview::TOPICS {
            for word in words {
                assert!(rows().any(|row| row.name == *word), "{word}");
            }
        }
    }
}
