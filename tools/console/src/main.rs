//! `ringpost`: the admin tool, on a shell or serial line or in a script.
//!
//! *Guarantees*: what it prints for people is 7-bit and at most 79 columns wide, whatever stands in
//! a message; `--json` prints the replies, one line each. The exit codes are in `exit.rs` and in
//! `ringpost --help`.
//!
//! *Failure*: one or two lines on stderr, what is wrong and what to do.
//!
//! *Not here*: what the daemon does with a request; `control` has the wire types.
#![forbid(unsafe_code)]

mod text;

mod exit;

mod page;

mod tty;

mod slow;

mod access;

mod speaker;

mod audit;

mod remains;

mod lastwords;

mod socket;

mod status;

mod queue;

mod hints;

mod spool;

mod story;

mod row;

mod ladder;

mod flash;

mod machine;

mod looking;

mod acting;

mod smtp;

mod figures;

mod screen;

mod health;

mod talking;

mod living;

mod watching;

mod summing;

mod keeping;

mod configuring;

mod accessing;

mod draft;

mod questions;

mod resolve;

mod checks;

mod wizard;

mod overview;

mod table;

mod run;

mod guard;

mod pager;

mod complete;

mod shell;

mod login;

mod line;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Whoever started this may hold signals back for itself: ctrl-C is for us.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    match line::main(std::env::args_os().collect()) {
        Ok(exit) => exit.into(),
        Err(trouble) => {
            // Nobody is left to tell where stderr is closed; the exit code stays.
            let _ = writeln!(std::io::stderr(), "{trouble}");
            trouble.exit.into()
        }
    }
}
