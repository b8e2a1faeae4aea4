//! A screenful at a time.
//!
//! *Guarantees*: what is printed stays as it is; the word at the foot goes away again.

use std::io::{PipeReader, Read};
use std::process::Child;

use crate::guard::Guard;
use crate::tty::{self, Mode};

const FOOT: &str = "-- space: more, enter: a line, q: end --";
const READ_OCTETS: usize = 4 << 10;

/// Prints what a command says; `q` ends the command.
pub(crate) fn show(mut from: PipeReader, child: &mut Child, guard: Option<&Guard>) {
    let page = usize::from(tty::rows()).saturating_sub(1).max(1);
    let mut left = page;
    let mut octets = vec![0; READ_OCTETS];
    while let Ok(count @ 1..) = from.read(&mut octets) {
        for line in octets.get(..count).unwrap_or_default().split_inclusive(|o| *o == b'\n') {
            if left == 0 {
                left = match more(guard) {
                    Answer::Page => page,
                    Answer::Line => 1,
                    Answer::End => {
                        // It may have ended by itself.
                        let _ = child.kill();
                        return;
                    }
                };
            }
            tty::print(&String::from_utf8_lossy(line));
            left -= usize::from(line.ends_with(b"\n"));
        }
    }
}

enum Answer {
    Page,
    Line,
    End,
}

fn more(guard: Option<&Guard>) -> Answer {
    tty::print(FOOT);
    let mode = Mode::now();
    if let Some(mode) = &mode {
        mode.keys();
    }
    let answer = loop {
        let key = tty::key(None);
        if let Some(guard) = guard {
            guard.touch();
        }
        match key {
            Some(b' ' | b'f') => break Answer::Page,
            Some(b'\r' | b'\n') => break Answer::Line,
            Some(b'q' | b'Q' | 3 | 4) | None => break Answer::End,
            Some(_) => {}
        }
    };
    drop(mode);
    tty::print(&format!("\r{:width$}\r", "", width = FOOT.len()));
    answer
}
