//! Who logged in on this line, as the console program tells the commands it starts.
//!
//! *Guarantees*: an operator's command line is refused here and, where the daemon is asked, by the
//! daemon too. Without a login the user of the process counts, as ever.

use control::{Role, Speaker, Text};

use crate::exit::{Exit, Trouble};

/// `ROLE NAME LINE`.
pub(crate) const VARIABLE: &str = "RINGPOST_AS";

/// What operators may of what is done without the daemon, or in more than one question.
const OPERATORS: [&str; 23] = [
    "trace live",
    "shell",
    "test send",
    "hints list",
    "hints get",
    "live",
    "session",
    "spool list",
    "spool show",
    "spool verify",
    "config history",
    "config diff",
    "config show",
    "status",
    "commands",
    "help",
    "queue summary",
    "hints dump",
    "why",
    "log tail",
    "log grep",
    "access list",
    "access password",
];

/// Who speaks, if somebody logged in.
pub(crate) fn speaker() -> Option<Speaker> {
    let text = std::env::var(VARIABLE).ok()?;
    let mut words = text.split(' ');
    // What makes no sense may the least.
    let role = words.next().and_then(Role::named).unwrap_or(Role::Operator);
    let mut word = || Text::cut(words.next().unwrap_or("?"));
    Some(Speaker { role, name: word(), line: word() })
}

/// The variable's value.
pub(crate) fn value(speaker: &Speaker) -> String {
    format!("{} {} {}", speaker.role.name(), &*speaker.name, &*speaker.line)
}

/// Whether an operator logged in.
pub(crate) fn is_operator() -> bool {
    speaker().is_some_and(|speaker| speaker.role == Role::Operator)
}

/// Refuses an operator what only an admin may.
///
/// # Errors
/// That, with its name.
pub(crate) fn may(name: &str, is_here: bool) -> Result<(), Trouble> {
    if is_operator() && is_here && !OPERATORS.contains(&name) {
        return Err(denied(name));
    }
    Ok(())
}

/// What an operator hears.
pub(crate) fn denied(name: &str) -> Trouble {
    let message = format!("an operator may not {name}");
    Trouble::new(Exit::Denied, message, "Operators look and retry; log in as an admin.")
}
