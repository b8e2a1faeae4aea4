//! `console`: what runs on a serial line. Login, then the interactive line, then the next login.
//!
//! *Guarantees*: without a config and without logins the wizard starts and no password is asked;
//! with a config and without logins nobody is let in. Every login, every wrong password, every
//! command line and every end stands in `audit.log`.
//! *Failure*: an audit log that cannot be written is said to whoever logs in.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::ArgMatches;
use control::{Role, Speaker, Text};

use crate::access::{self, Store};
use crate::accessing::folder;
use crate::exit::{Exit, Trouble};
use crate::guard::{self, Guard};
use crate::row::text;
use crate::shell::Shell;
use crate::speaker;
use crate::text::fit;
use crate::tty::{self, Mode};

/// One line with its files.
pub(crate) struct Line {
    options: Vec<OsString>,
    name: String,
    store: Store,
    state: String,
    /// The config's folder.
    config: String,
    baud: Option<u32>,
    delay: Duration,
    guard: Guard,
    mode: Option<Mode>,
    configured: bool,
}

fn seconds(m: &ArgMatches, name: &str) -> Duration {
    let seconds = m.get_one::<f64>(name).copied().unwrap_or(0.0);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

impl Line {
    /// Takes the line.
    ///
    /// # Errors
    /// No descriptor left.
    pub(crate) fn open(options: Vec<OsString>, m: &ArgMatches) -> Result<Self, Trouble> {
        let mode = Mode::now();
        guard::ignore_keys();
        let idle = Some(seconds(m, "idle-s")).filter(|idle| *idle > Duration::ZERO);
        let guard = Guard::start(idle, mode.clone())?;
        if let Some(mode) = &mode {
            mode.tame(m.get_flag("carrier"));
        }
        let state = folder(m);
        let config = Path::new(text(m, "config").unwrap_or_default());
        let name = text(m, "line").map_or_else(tty::name, str::to_owned);
        Ok(Self {
            options,
            name: name.replace(' ', "_"),
            store: Store::new(&state, config.parent()),
            state: state.display().to_string(),
            config: config.parent().map_or_else(String::new, |path| path.display().to_string()),
            baud: m.get_one::<u32>("baud").copied(),
            delay: seconds(m, "delay-s"),
            guard,
            mode,
            configured: config.is_file(),
        })
    }

    fn who(&self, name: &str) -> String {
        format!("name={name} line={}", self.name)
    }

    fn audit(&self, name: &str, what: &str) {
        if let Err(trouble) = self.store.audit(&self.who(name), what) {
            tty::print(&format!("{trouble}\n"));
        }
    }

    /// A shell for somebody who may use the line.
    ///
    /// # Errors
    /// Nobody may, or the line has ended.
    pub(crate) fn login(&self) -> Result<Option<(Shell, Speaker)>, Trouble> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        tty::print(&format!("\n{}\n", fit(&format!("Ringpost {version} on {}", host.trim()), 79)));
        if self.store.logins()?.is_empty() {
            if self.configured {
                let advice = "Put a file `access` beside mx.toml: docs/operating.md, Access.";
                let message = "there is a config and no login: nobody is let in";
                return Err(Trouble::new(Exit::Denied, message, advice));
            }
            self.first_time()?;
        }
        loop {
            let left = self.store.wait(self.delay);
            if left > Duration::ZERO {
                tty::print(&format!("Wait {} s.\n", left.as_secs() + 1));
                std::thread::sleep(left);
            }
            tty::print("login: ");
            let Some(name) = tty::line() else { return Ok(None) };
            if name.is_empty() {
                continue;
            }
            let Some(password) = tty::password("password: ") else { return Ok(None) };
            let login = self.store.login(&name, &password)?;
            self.store.judged(login.is_some())?;
            match login {
                Some(login) => {
                    self.audit(&login.name, &format!("login {}", login.role.name()));
                    return Ok(Some(self.begin(&login.name, login.role)));
                }
                None => {
                    // What stands for the name may be a password.
                    self.audit("?", "wrong name or password");
                    tty::print("That is not right.\n");
                }
            }
        }
    }

    /// The wizard, for whoever stands before a machine without a config.
    fn first_time(&self) -> Result<(), Trouble> {
        self.audit("first", "first start: the wizard, without a password");
        let (shell, _) = self.begin("first", Role::Admin);
        let words = ["wizard", "--state", &self.state].map(str::to_owned).to_vec();
        let exit = shell.perform(words);
        drop(shell);
        self.guard.login(None);
        if exit != Exit::Fine || self.store.logins()?.is_empty() {
            return Err(Trouble::new(exit, "the wizard ended without a config", ""));
        }
        Ok(())
    }

    fn begin(&self, name: &str, role: Role) -> (Shell, Speaker) {
        let line = Text::cut(&self.name);
        let speaker = Speaker { name: Text::cut(name), role, line };
        let mut environment = vec![
            (speaker::VARIABLE, speaker::value(&speaker)),
            (access::VARIABLE, self.state.clone()),
            (access::CONFIG, self.config.clone()),
        ];
        environment.extend(self.baud.map(|baud| (tty::BAUD, baud.to_string())));
        let (store, who) = (self.store.clone(), self.who(name));
        // Nobody is left to hear that it could not be written.
        let told = move |why: &str| {
            let colon = if why.is_empty() { "" } else { ": " };
            drop(store.audit(&who, &format!("logout{colon}{why}")));
        };
        self.guard.login(Some(Box::new(told)));
        (Shell::new(self.options.clone(), environment, Some(self.guard.clone())), speaker)
    }

    /// Writes down what somebody is about to do.
    pub(crate) fn about_to(&self, speaker: &Speaker, line: &str) {
        self.audit(&speaker.name, &format!("does: {line}"));
    }

    /// The login ends: somebody left, or the line went before its signal came.
    pub(crate) fn logout(&self) {
        self.guard.leave(if tty::hung_up() { "hung up" } else { "" });
        if let Some(mode) = &self.mode {
            mode.restore();
        }
    }
}
