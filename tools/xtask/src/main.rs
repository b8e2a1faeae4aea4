//! What is too long for a line in `x`: a node to try out, the benchmark, the image.

use std::process::ExitCode;

mod child;

mod figures;
mod restart;

mod bench;
mod image;
mod run;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some("run") => run::run(),
        Some("bench") => bench::bench(&words.collect::<Vec<_>>()),
        Some("image") => image::run(words),
        other => Err(format!(
            "xtask knows `run`, `bench` and `image`, not {other:?}; call it through ./x"
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("x: {why}");
            ExitCode::FAILURE
        }
    }
}
