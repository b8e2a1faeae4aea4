//! Rows of who may log in on a line.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, value_parser};
use control::Role;

use crate::access::{self, Login, Store};
use crate::exit::{Exit, Trouble};
use crate::page::{Align, Column, Page};
use crate::row::{Row, Word, argument, flag, option, row, text, usage};
use crate::speaker;
use crate::tty;

/// The rows.
pub(crate) const ROWS: [Row; 5] = [
    Row {
        arguments: || vec![state()],
        local: Some(list),
        ..row("access list", "Who may log in on the line, as what")
    },
    Row {
        arguments: || {
            let mut arguments = argument("NAME", "The new login");
            let roles = option("role", "ROLE", "operator: look, retry; admin: everything");
            arguments.push(roles.value_parser(["operator", "admin"]).default_value("operator"));
            arguments.push(state());
            arguments
        },
        local: Some(add),
        audited: true,
        ..row("access add", "Let somebody log in; asks for the password twice")
    },
    Row {
        arguments: || vec![Arg::new("NAME").help("Whose; without it your own"), state()],
        local: Some(password),
        audited: true,
        ..row("access password", "Set a password; asks for it twice")
    },
    Row {
        arguments: || {
            let mut arguments = argument("NAME", "The login");
            arguments.push(state());
            arguments
        },
        local: Some(remove),
        audited: true,
        word: Some(Word::Always("REMOVE")),
        ..row("access remove", "Let somebody log in no more")
    },
    Row {
        arguments: console_arguments,
        local: Some(elsewhere),
        ..row("console", "Log in on this line, then one command a line; for init")
    },
];

fn state() -> Arg {
    option("state", "FOLDER", "Where `access` lies; else $RINGPOST_STATE, /state/console")
}

fn console_arguments() -> Vec<Arg> {
    let seconds = |name, help| option(name, "SECONDS", help).value_parser(value_parser!(f64));
    vec![
        option("line", "NAME", "The line's name in the audit log; else that of the terminal"),
        state(),
        option("config", "FILE", "Without this file the wizard is started first")
            .default_value("/state/config/current/mx.toml"),
        seconds("idle-s", "Logged out when nobody types for so long; 0: never")
            .default_value("900"),
        seconds("delay-s", "First wait after a wrong password; then twice as long, and so on")
            .default_value("1"),
        flag("carrier", "The line ends with its carrier (a modem's cable)"),
    ]
}

/// The folder that is meant.
pub(crate) fn folder(m: &ArgMatches) -> PathBuf {
    let environment = || std::env::var(access::VARIABLE).ok().filter(|text| !text.is_empty());
    let named = text(m, "state").map(str::to_owned).or_else(environment);
    named.unwrap_or_else(|| access::STATE.to_owned()).into()
}

fn store(m: &ArgMatches) -> Store {
    let config = std::env::var(access::CONFIG).ok().map(PathBuf::from);
    Store::new(&folder(m), config.as_deref())
}

/// The shell's own module serves it.
fn elsewhere(_: &mut Page, _: &ArgMatches) -> Result<Exit, Trouble> {
    Err(usage("a console cannot be started here", "It is the first word of a command line."))
}

fn list(page: &mut Page, m: &ArgMatches) -> Result<Exit, Trouble> {
    let columns: [Column; 2] = [("name", 32, Align::Left), ("role", 8, Align::Left)];
    page.head(&columns);
    for login in store(m).logins()? {
        page.row(&columns, &[login.name, login.role.name().to_owned()]);
    }
    Ok(Exit::Fine)
}

/// Typed twice alike, or the one line of a file that is not a terminal.
pub(crate) fn asked_twice() -> Result<String, Trouble> {
    let nothing = || Trouble::new(Exit::Refused, "nothing was changed", "");
    let prompt = if tty::typed() { "New password: " } else { "" };
    let first = tty::password(prompt).ok_or_else(nothing)?;
    if tty::typed() && tty::password("Again: ").ok_or_else(nothing)? != first {
        return Err(Trouble::new(Exit::Refused, "these are two different passwords", ""));
    }
    Ok(first)
}

fn add(page: &mut Page, m: &ArgMatches) -> Result<Exit, Trouble> {
    let name = text(m, "NAME").unwrap_or_default();
    let role = text(m, "role").and_then(Role::named).unwrap_or(Role::Operator);
    let exists = || Trouble::new(Exit::Refused, format!("{name} is there already"), "");
    let store = store(m);
    if store.logins()?.iter().any(|login| login.name == name) {
        return Err(exists());
    }
    let login = Login::new(name, role, &asked_twice()?)?;
    store.change(|logins| {
        logins.push(login);
        Ok(())
    })?;
    page.line(&format!("{name} may log in as {}.", role.name()));
    Ok(Exit::Fine)
}

fn password(page: &mut Page, m: &ArgMatches) -> Result<Exit, Trouble> {
    let own = speaker::speaker();
    let name = text(m, "NAME").map(str::to_owned);
    let name = name.or_else(|| own.as_ref().map(|own| own.name.to_string()));
    let name = name.ok_or_else(|| usage("whose password?", "Say NAME."))?;
    if own.is_some_and(|own| own.role == Role::Operator && *own.name != *name) {
        return Err(speaker::denied("set the password of others"));
    }
    let store = store(m);
    let there = store.logins()?.into_iter().find(|login| login.name == name);
    let role = there.ok_or_else(|| unknown(&name))?.role;
    let login = Login::new(&name, role, &asked_twice()?)?;
    store.change(|logins| {
        logins.iter_mut().filter(|old| old.name == login.name).for_each(|l| *l = login.clone());
        Ok(())
    })?;
    page.line("The password is set.");
    Ok(Exit::Fine)
}

fn remove(page: &mut Page, m: &ArgMatches) -> Result<Exit, Trouble> {
    let name = text(m, "NAME").unwrap_or_default();
    store(m).change(|logins| {
        let before = logins.len();
        logins.retain(|login| login.name != name);
        if logins.len() == before { Err(unknown(name)) } else { Ok(()) }
    })?;
    page.line(&format!("{name} may log in no more."));
    Ok(Exit::Fine)
}

fn unknown(name: &str) -> Trouble {
    Trouble::new(Exit::NotFound, format!("there is no login {name}"), "`access list`")
}
