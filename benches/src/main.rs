//! The program: one command each for floor, source, sink and measure.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mxbench::{floor, system};

#[derive(Debug, Parser)]
#[command(version, about = "Measures an MX against the physical limit and its peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the floor loop: the physical limit for the same dialogue.
    Floor {
        /// Address and port to listen on; port 0 lets the kernel choose.
        #[arg(long, value_name = "ADDRESS")]
        listen: SocketAddr,
        /// Stay on this CPU.
        #[arg(long)]
        pin: Option<usize>,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mxbench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> io::Result<ExitCode> {
    system::raise_file_limit()?;
    match command {
        Command::Floor { listen, pin } => {
            pin.map_or(Ok(()), system::pin)?;
            let stop = system::stop_signals()?;
            let listener = system::listener(*listen)?;
            println!("mxbench floor: listening on {}", listener.local_addr()?);
            let counts = floor::serve(listener, stop)?;
            println!("{}", serde_json::to_string(&counts)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}
