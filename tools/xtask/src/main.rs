//! What is too long for a line in `x`: a node to try out, and the first-stage benchmark.

use std::process::ExitCode;

mod child;
mod run;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some("run") => run::run(),
        other => Err(format!("xtask knows `run`, not {other:?}; call it through ./x")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("x: {why}");
            ExitCode::FAILURE
        }
    }
}
