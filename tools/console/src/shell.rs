//! The interactive line: each command is a program of its own on the same line.
//!
//! *Guarantees*: ctrl-C ends the command, not the shell. Nothing is asked of the terminal; on a
//! dumb one, or none, lines are plain. The history is in memory and ends with the shell; lines
//! that name a password are not in it.
//! *Not here*: what a line means (`line`).

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{ColorMode, CompletionType, Config, Editor};

use crate::complete::Words;
use crate::exit::{Exit, Trouble};
use crate::guard::Guard;
use crate::tty::{self, Mode};
use crate::{guard, pager, run, table};

/// Commands that read the line themselves, or print as they go.
const DIRECT: [&str; 9] =
    ["session", "live", "wizard", "flash", "access", "shell", "console", "upgrade", "trace"];
/// Lines of the history.
const HISTORY_MAX: usize = 200;
const PROMPT: &str = "ringpost> ";

/// Where lines come from.
enum Input {
    Clever(Box<Editor<Words, MemHistory>>),
    Plain,
}

/// One interactive line.
pub(crate) struct Shell {
    /// Words before every line.
    options: Vec<OsString>,
    /// What the commands are told by their environment.
    environment: Vec<(&'static str, String)>,
    guard: Option<Guard>,
    input: Input,
    mode: Option<Mode>,
}

impl Shell {
    /// On the line of this program.
    pub(crate) fn new(
        options: Vec<OsString>,
        environment: Vec<(&'static str, String)>,
        guard: Option<Guard>,
    ) -> Self {
        let mode = Mode::now();
        if tty::typed() {
            guard::ignore_keys();
        }
        if let Some(mode) = &mode {
            mode.tame(false);
        }
        let input = editor().filter(|_| tty::clever()).map_or(Input::Plain, Input::Clever);
        Self { options, environment, guard, input, mode }
    }

    /// The next line; nothing at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        let line = match &mut self.input {
            Input::Plain => {
                if tty::typed() {
                    tty::print(PROMPT);
                }
                tty::line()
            }
            Input::Clever(editor) => match editor.readline(PROMPT) {
                Ok(line) => {
                    if !line.contains("password") {
                        // A history that is full forgets by itself.
                        let _ = editor.add_history_entry(&line);
                    }
                    Some(line)
                }
                Err(ReadlineError::Interrupted) => Some(String::new()),
                Err(_) => None,
            },
        };
        if let Some(guard) = &self.guard {
            guard.touch();
        }
        line
    }

    /// Does what the words say.
    pub(crate) fn perform(&self, words: Vec<String>) -> Exit {
        let done = match tty::typed() {
            true => self.started(&words),
            false => {
                run::run(self.options.iter().cloned().chain(words.into_iter().map(OsString::from)))
            }
        };
        done.unwrap_or_else(|trouble| {
            tty::print(&format!("{trouble}\n"));
            trouble.exit
        })
    }

    fn started(&self, words: &[String]) -> Result<Exit, Trouble> {
        let fail = |error: std::io::Error| {
            Trouble::new(Exit::Refused, format!("cannot start: {error}"), "")
        };
        let mut command = Command::new("/proc/self/exe");
        command.args(self.options.iter().skip(1)).args(words);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let direct = words.first().is_some_and(|word| DIRECT.contains(&word.as_str()))
            || words.iter().any(|word| matches!(word.as_str(), "--follow" | "--screen" | "-"));
        let pipe = match tty::clever() && !direct {
            true => Some(std::io::pipe().map_err(fail)?),
            false => None,
        };
        let reader = match pipe {
            Some((reader, writer)) => {
                let copy = writer.try_clone().map_err(fail)?;
                command.stdout(Stdio::from(writer)).stderr(Stdio::from(copy));
                Some(reader)
            }
            None => None,
        };
        let mut child = command.spawn().map_err(fail)?;
        // Its ends of the pipe are the command's alone from here.
        drop(command);
        if let Some(guard) = &self.guard {
            guard.child(Some(child.id()));
        }
        if let Some(reader) = reader {
            pager::show(reader, &mut child, self.guard.as_ref());
        }
        let status = child.wait();
        if let Some(guard) = &self.guard {
            guard.child(None);
        }
        if let Some(mode) = &self.mode {
            mode.tame(false);
        }
        let status = status.map_err(fail)?;
        if status.signal().is_some() {
            tty::print("\n");
        }
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Ok(code.map_or(Exit::Refused, Exit::from_code))
    }
}

fn editor() -> Option<Box<Editor<Words, MemHistory>>> {
    let config = Config::builder()
        .color_mode(ColorMode::Disabled)
        .completion_type(CompletionType::List)
        .bracketed_paste(false)
        .check_cursor_position(false)
        .max_history_size(HISTORY_MAX)
        .ok()?
        .build();
    let mut editor = Editor::with_history(config, MemHistory::new()).ok()?;
    editor.enable_synchronized_output(false);
    editor.set_helper(Some(Words(table::command())));
    Some(Box::new(editor))
}
