//! PID 1 of the image: from the kernel's start to mail being served, and to an ordered end.
//!
//! *Guarantees*: it never waits for the console, the network or a disk without an end, and never
//! panics by design; should it, the kernel restarts the machine, and a version under trial is
//! counted down. A test holds the program free of `unsafe`.
//! *Failure*: what cannot be done is said on the console; then maintenance mode: no mail, nothing
//! overwritten, the console open.
//! *Not here*: mail (ringpostd), the operator's commands (ringpost).
#![forbid(unsafe_code)]

mod limits;

mod clock;

mod say;

mod settings;

mod version;

mod efi;

mod mounts;

mod sysctl;

mod watchdog;

mod helper;

mod disks;

mod esp;

mod provision;

mod netlink;

mod network;

mod fetch;

mod upgrade;

mod generations;

mod mail;

mod groups;

mod array;

mod smart;

mod notify;

mod commands;

mod launch;

mod service;

mod health;

mod bless;

mod power;

mod ntp;

mod prepare;

mod keys;

mod node;

use std::process::ExitCode;
use std::time::Duration;

use node::{End, Node, Trial};
use say::{say, warn};
use watchdog::Watchdog;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if std::process::id() != 1 {
        let word = words.next().unwrap_or_default();
        if word == launch::WORD {
            eprintln!("init: {}", launch::run(words));
            return ExitCode::from(127);
        }
        return match commands::run(&version(), &word, words) {
            Ok(said) => {
                print!("{said}");
                ExitCode::SUCCESS
            }
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        };
    }
    start();
    // An init that returned would be a panic of the kernel, with nothing said.
    warn(&"the machine did not end: waiting for the watchdog");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn version() -> String {
    std::fs::read_to_string("/etc/version")
        .map_or_else(|_| "unknown".to_owned(), |v| v.trim().into())
}

fn start() {
    let mounted = mounts::kernel();
    groups::make();
    let keys = keys::Keys::open();
    say(&format_args!("Ringpost {}; hold m for maintenance", version()));
    sysctl::apply();
    let watchdog = Watchdog::arm();
    let mut node = match Node::new(watchdog, version()) {
        Ok(node) => node,
        Err(why) => return warn(&why),
    };
    match mounted.and_then(|()| prepare(&mut node, keys)) {
        Ok(place) => node.serve(place),
        Err(why) => node.maintain(&why),
    }
    let end: End = node.run();
    node.end(end);
}

/// Everything up to the daemon's start. The version counts as under trial as soon as the disk of
/// its ESP is known.
fn prepare(node: &mut Node, keys: keys::Keys) -> Result<prepare::Place, String> {
    let disk = prepare::own_disk(node.watchdog())?;
    say(&format_args!("own disk: {disk}"));
    if let Some(files) = bless::pending(&version()) {
        node.on_trial(Trial { disk: disk.clone(), files });
    }
    let place = prepare::config(&disk)?;
    node.know(place.settings.clone());
    if keys.wanted() || asked_by_command_line() {
        return Err("asked for at start".to_owned());
    }
    node.watchdog().feed();
    prepare::machine(&disk, &place.settings)?;
    Ok(place)
}

fn asked_by_command_line() -> bool {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace().any(|word| word == "ringpost.maintenance")
}
