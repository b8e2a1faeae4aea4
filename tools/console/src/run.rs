//! From a command line to its row, a request, a page.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;
use control::{Failure, FailureCode, Frame, Reply};

use crate::acting;
use crate::audit;
use crate::exit::{Exit, Trouble};
use crate::machine;
use crate::page::Page;
use crate::row::{DEAD, LOGS, Local, Row, Word, perhaps};
use crate::slow::lines_that_fit;
use crate::socket::{self, Socket};
use crate::speaker;
use crate::table::{self, rows};
use crate::text::{COLUMNS, plain};
use crate::tty;

/// How often what is followed is asked for.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// Does what the command line says.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> Result<Exit, Trouble> {
    let arguments: Vec<OsString> = arguments.collect();
    if arguments.len() < 2 {
        // Nobody is left to tell where stderr is closed.
        let _ = std::io::stderr().write_all(table::all_at_once().as_bytes());
        return Ok(Exit::Usage);
    }
    let matches = match table::command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            if !error.use_stderr() {
                let _ = error.print();
                return Ok(Exit::Fine);
            }
            let mut page = Page::default();
            for line in error.render().to_string().lines() {
                match line.len() <= COLUMNS {
                    true => page.line(line),
                    false => page.paragraph(0, line),
                }
            }
            let _ = std::io::stderr().write_all(page.into_text().as_bytes());
            return Ok(Exit::Usage);
        }
    };
    let (row, matches) = chosen(&matches);
    let of_init = of_init(row, matches).is_some();
    let left_behind = [DEAD, LOGS].iter().any(|id| perhaps(matches, id).is_some());
    let here = row.local.is_some() || of_init || left_behind;
    let done = speaker::may(row.name, here || row.talk.is_some())
        .and_then(|()| acting::confirmed(row, matches))
        .and_then(|()| if here { write_down(row, matches, &arguments) } else { Ok(()) })
        .and_then(|()| act(row, matches));
    if let Err(trouble) = &done
        && matches.get_flag("json")
        && !trouble.printed
    {
        print(&trouble.json())?;
    }
    done
}

/// What is done by init instead of the daemon, if this is the appliance.
fn of_init(row: &Row, matches: &ArgMatches) -> Option<Local> {
    let named = || matches.get_one::<String>("socket").is_some() || !machine::is_root();
    let ours = machine::is_appliance() && !(row.by_socket && named());
    row.appliance.filter(|_| ours)
}

/// What is about to be done here, to the audit log.
fn write_down(row: &Row, matches: &ArgMatches, arguments: &[OsString]) -> Result<(), Trouble> {
    if !row.audited {
        return Ok(());
    }
    let written = audit::write(perhaps(matches, "state"), &audit::line(arguments));
    let stops = matches!(row.word, Some(Word::Login("REBOOT" | "POWEROFF")));
    written.or_else(|trouble| if stops { Ok(()) } else { Err(trouble) })
}

/// Does what a row says.
fn act(row: &Row, matches: &ArgMatches) -> Result<Exit, Trouble> {
    if let Some(local) = row.local.or_else(|| of_init(row, matches)) {
        let mut page = Page::default();
        let exit = local(&mut page, matches);
        if exit.is_err() {
            // What was found before the trouble; the trouble has a line of its own.
            print(&page.into_text())?;
            return exit;
        }
        print(&if matches.get_flag("json") { page.into_json() } else { page.into_text() })?;
        return exit;
    }
    let said = matches.value_source("timeout-s") == Some(ValueSource::CommandLine);
    let wait_s = matches.get_one::<u64>("timeout-s").copied().filter(|_| said);
    let wait_s = wait_s.unwrap_or(row.wait_s);
    let named = matches.get_one::<String>("socket").map(OsString::from);
    let mut request = (row.request)(matches)?;
    let path = socket::path(named.as_ref());
    let mut socket = match (perhaps(matches, DEAD), perhaps(matches, LOGS)) {
        (Some(file), _) => Socket::of_file(Path::new(file))?,
        (None, Some(folder)) => Socket::of_logs(Path::new(folder))?,
        (None, None) => Socket::connect(&path, Duration::from_secs(wait_s))
            .map_err(|trouble| or_of_file(row, trouble))?,
    };
    if let Some(talk) = row.talk {
        return talk(&mut socket, matches);
    }
    let next_of = row.next.filter(|_| matches.get_flag("all"));
    let follow = row.follow.filter(|_| matches.get_flag("follow"));
    let baud = tty::baud(matches.get_one::<u32>("baud").copied());
    let mut goes_on = false;
    loop {
        let (frame, reply) = socket.ask(&request)?;
        let later = follow.and_then(|follow| follow(&request, &reply));
        let next = next_of.and_then(|next_of| next_of(request, &reply));
        let page = Page::of_list(goes_on, next.is_some());
        let (text, exit) = show(row, &reply, page, matches.get_flag("json").then_some(&frame))?;
        let silent = goes_on && matches!(&reply, Reply::Story(story) if story.lines.is_empty());
        let text = match goes_on && follow.is_some() {
            true => lines_that_fit(text, baud, FOLLOW_EVERY),
            false => text,
        };
        if !silent {
            print(&text)?;
        }
        if let Reply::Failure(failure) = &reply {
            return Err(Trouble { printed: true, ..refused(failure) });
        }
        match (next, later) {
            (Some(next), _) => request = next,
            (None, Some(later)) => {
                request = later;
                std::thread::sleep(FOLLOW_EVERY);
            }
            (None, None) => return Ok(exit),
        }
        goes_on = true;
    }
}

/// Of a dead daemon some things can be read all the same; on the appliance nobody starts it by
/// hand.
fn or_of_file(row: &Row, mut trouble: Trouble) -> Trouble {
    if machine::is_appliance() && trouble.exit == Exit::NoDaemon {
        trouble.advice = "Init starts it again, within 30 s. Without it go: config history, \
                          show and rollback; upgrade; reboot."
            .to_owned();
    }
    let has = |id: &str| (row.arguments)().iter().any(|argument| argument.get_id() == id);
    if has(DEAD) && trouble.exit == Exit::NoDaemon {
        trouble.advice.push_str(" A dead daemon's hints: --file FILE.");
    }
    if has(LOGS) && trouble.exit == Exit::NoDaemon {
        trouble.advice.push_str(" A dead daemon's logs: --dir FOLDER.");
    }
    if !has(DEAD) && !has(LOGS) && trouble.exit == Exit::NoDaemon {
        trouble.advice.push_str(" Without it work: log tail --dir FOLDER, spool list PLACE.");
    }
    trouble
}

/// What is printed: the reply itself as JSON, or the page of the row.
fn show(
    row: &Row,
    reply: &Reply,
    mut page: Page,
    json: Option<&Frame>,
) -> Result<(String, Exit), Trouble> {
    let exit = (row.render)(&mut page, reply);
    if let Some(frame) = json {
        let mut page = Page::default();
        page.verbatim(&String::from_utf8_lossy(&frame.payload));
        return Ok((page.into_text(), exit.unwrap_or(Exit::Fine)));
    }
    match exit {
        Some(exit) => Ok((page.into_text(), exit)),
        None if matches!(reply, Reply::Failure(_)) => Ok((String::new(), Exit::Refused)),
        None => {
            let message = format!("this ringpost cannot show the reply to {:?}", row.name);
            Err(Trouble::new(Exit::Protocol, message, "Use --json, or a newer ringpost."))
        }
    }
}

/// The row of the words that were given; clap has made sure that there is one.
fn chosen(matches: &ArgMatches) -> (&'static Row, &ArgMatches) {
    let (mut name, mut matches) = match matches.subcommand() {
        Some((name, matches)) => (name.to_owned(), matches),
        None => unreachable!("a subcommand is required"),
    };
    if let Some((word, below)) = matches.subcommand() {
        name = format!("{name} {word}");
        matches = below;
    }
    let row = rows().find(|row| row.name == name);
    (row.expect("every subcommand comes from a row"), matches)
}

/// What the daemon has against it, and the exit code.
pub(crate) fn refused(failure: &Failure) -> Trouble {
    let exit = match failure.code {
        FailureCode::Denied => Exit::Denied,
        FailureCode::NotFound => Exit::NotFound,
        FailureCode::Unknown | FailureCode::Version | FailureCode::Malformed => Exit::Protocol,
        _ => Exit::Refused,
    };
    Trouble::new(exit, plain(&failure.message), plain(&failure.advice))
}

/// A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<(), Trouble> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Trouble::new(Exit::Refused, format!("cannot write: {error}"), ""))
        }
        _ => Ok(()),
    }
}
