//! The interactive line and the screen on a vt100, a dumb terminal, a slow one, and one that takes
//! nothing any more.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::pty::{Line, Taking};
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Setup};

/// Octets of the interactive line's prompt and of the pages of a small node.
const PROMPT_OCTETS_MAX: usize = 40;
const STATUS_OCTETS_MAX: usize = 1_400;
const MENU_OCTETS_MAX: usize = 1_000;
/// Octets of a screen, and of what changes on it.
const SCREEN_OCTETS_MAX: usize = 1_400;
const UPDATE_OCTETS_MAX: usize = 500;

/// Octets of what each command shows of a small node: what a line of 9600 baud takes in a second
/// is 960. `--` behind a command: the first screen, to the foot.
const SCREENS: [(&str, usize); 18] = [
    ("status", STATUS_OCTETS_MAX),
    ("live --count 1 --every-s 1", 260),
    ("live --count 1 --every-s 1 --cores", 330),
    ("live --count 1 --every-s 1 --reasons", 480),
    ("live --count 1 --by peer", 350),
    ("live --count 1 --by destination", 450),
    ("sessions", 350),
    ("queue summary", 700),
    ("queue list --count 3", 700),
    ("queue list --all --", 1_900),
    ("log tail --count 5", 1_200),
    ("log tail --reject --count 5", 200),
    ("rules", 100),
    ("ledger", 520),
    ("certificates", 100),
    ("test backend", 250),
    ("config history", 450),
    ("queue ?", 1_100),
];

/// A daemon with mail that waits.
fn daemon(name: &str, messages: u32) -> Daemon {
    let mut setup = Setup::new(Backend::nowhere());
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    let mut daemon = Daemon::start(name, setup);
    let mut client = Client::greeted(daemon.address);
    for _ in 0..messages {
        client.deliver("sender@example.net", &["a@example.org"], "Subject: x\r\n\r\nbody\r\n");
    }
    daemon.line_with(&[" == "]);
    daemon
}

fn on(daemon: &Daemon, term: &str, words: &[&str], taking: Taking) -> Line {
    let socket = daemon.folder.path("admin.sock").display().to_string();
    Line::start(term, &[&["--socket", &socket], words].concat(), taking)
}

#[test]
fn a_vt100_completes_pages_and_survives_an_interrupt() {
    let mut daemon = daemon("line-vt100", 40);
    let mut line = on(&daemon, "vt100", &["shell"], Taking::AtOnce);
    let prompt = line.until("ringpost> ");
    assert!(prompt.len() <= PROMPT_OCTETS_MAX, "{} octets: {prompt:?}", prompt.len());
    line.keys("stat\t");
    line.until("status ");
    line.say("");
    let page = line.until("ringpost> ");
    assert!(page.contains("running"), "{page}");
    assert!(page.len() <= STATUS_OCTETS_MAX, "{} octets: {page}", page.len());
    // What was typed before comes back, without the words that name a password.
    line.ask("access password nobody-there");
    line.keys("\u{1b}[A");
    line.until("status ");
    line.say("");
    line.until("running");
    line.until("ringpost> ");
    // A long page stops at the end of the screen, goes on, and ends when nobody wants more.
    line.say("queue list --all");
    let first = line.until("-- space");
    assert_eq!(first.lines().count(), 25, "the line typed, 23 lines, the foot: {first}");
    line.keys(" ");
    line.until("-- space");
    line.keys("q");
    line.until("ringpost> ");
    // ctrl-C ends the command alone.
    line.say("log tail --follow");
    line.until("<= ");
    line.keys("\u{3}");
    line.until("ringpost> ");
    let menu = line.ask("menu");
    assert!(menu.len() <= MENU_OCTETS_MAX, "{} octets: {menu}", menu.len());
    assert!(line.ask("4").contains("next hop"), "a number of the menu is its command");
    assert!(line.ask("queue ?").contains("queue release"));
    line.say("quit");
    assert_eq!(line.end(), Some(0));
    line.assert_plain();
    assert!(daemon.stop().success());
}

#[test]
fn a_dumb_terminal_gets_lines_and_nothing_else() {
    let mut daemon = daemon("line-dumb", 40);
    let mut line = on(&daemon, "dumb", &["shell"], Taking::AtOnce);
    line.until("ringpost> ");
    assert!(line.ask("status").contains("running"));
    assert_eq!(line.ask("queue list --all").matches("sender@example.net").count(), 40);
    assert!(line.ask("live --screen --count 1 --every-s 1").contains("acc/s"), "plain lines");
    line.say("log tail --follow");
    line.until("<= ");
    line.keys("\u{3}");
    line.until("ringpost> ");
    line.say("quit");
    assert_eq!(line.end(), Some(0));
    assert!(!line.all().contains('\u{1b}'), "{:?}", line.all());
    line.assert_plain();
    assert!(daemon.stop().success());
}

#[test]
fn nine_hundred_and_sixty_octets_a_second_are_enough() {
    let mut daemon = daemon("line-slow", 3);
    let mut line = on(&daemon, "vt100", &["--baud", "9600", "shell"], Taking::Slowly);
    line.until("ringpost> ");
    assert!(line.ask("status").contains("running"));
    line.say("live --screen --count 3 --every-s 1");
    line.until("\u{1b}[2J");
    let screen = line.until("octets");
    assert!(screen.len() <= SCREEN_OCTETS_MAX, "{} octets: {screen:?}", screen.len());
    let rest = line.until("ringpost> ");
    assert!(rest.len() <= 2 * UPDATE_OCTETS_MAX, "{} octets: {rest:?}", rest.len());
    // More lines than the line takes are counted instead.
    line.say("log tail --follow");
    line.until("<= ");
    while !line.all().contains(" lines left out") {
        // Fewer than a session may send.
        let mut client = Client::greeted(daemon.address);
        for _ in 0..60 {
            client.deliver("sender@example.net", &["a@example.org"], "Subject: x\r\n\r\nbody\r\n");
        }
    }
    line.until(" lines left out");
    line.keys("\u{3}");
    line.until("ringpost> ");
    line.say("quit");
    assert_eq!(line.end(), Some(0));
    assert!(line.all().is_ascii());
    assert!(daemon.stop().success());
}

#[test]
fn each_screen_keeps_to_its_octets_on_a_slow_line() {
    let mut daemon = daemon("line-octets", 12);
    let mut line = on(&daemon, "vt100", &["--baud", "9600", "shell"], Taking::Slowly);
    line.until("ringpost> ");
    let mut over = Vec::new();
    for (words, octets_max) in SCREENS {
        let page = match words.strip_suffix(" --") {
            None => line.ask(words),
            Some(words) => {
                line.say(words);
                line.until("\n");
                let page = line.until("-- space");
                line.keys("q");
                line.until("ringpost> ");
                page
            }
        };
        println!("{words}: {} octets of {octets_max}", page.len());
        if page.len() > octets_max {
            over.push(format!("{words}: {} octets: {page}", page.len()));
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
    line.assert_plain();
    // The same by client and by next hop as a screen that is drawn anew.
    for by in ["peer", "destination"] {
        line.say(&format!("live --screen --by {by} --of-s 3600 --count 2 --every-s 1"));
        line.until("\u{1b}[2J");
        let screen = line.until("octets");
        assert!(screen.len() <= SCREEN_OCTETS_MAX, "{} octets: {screen:?}", screen.len());
        // Blanks are not sent: the words stand apart.
        assert!(screen.contains(&format!("{by},")), "{screen:?}");
        let rest = line.until("ringpost> ");
        assert!(rest.len() <= UPDATE_OCTETS_MAX, "{} octets: {rest:?}", rest.len());
    }
    line.say("quit");
    assert_eq!(line.end(), Some(0));
    assert!(line.all().is_ascii());
    assert!(daemon.stop().success());
}

#[test]
fn who_stops_reading_is_cut_off_and_mail_goes_on() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("line-hung", Setup::new(backend.address));
    // A terminal that takes nothing, with a command that never stops talking.
    let mut hung = on(&daemon, "dumb", &["log", "tail", "--follow"], Taking::Never);
    // A console program that asks on and on and reads nothing.
    let mut deaf = UnixStream::connect(daemon.folder.path("admin.sock")).expect("it listens");
    let request = br#"{"request":"metrics"}"#;
    let mut frame = u32::try_from(request.len() + 2).expect("short").to_be_bytes().to_vec();
    frame.extend_from_slice(&1_u16.to_be_bytes());
    frame.extend_from_slice(request);
    let asking = std::thread::spawn(move || {
        let mut asked = 0_u64;
        // Ends when the daemon has closed: no time limit of ours.
        while deaf.write_all(&frame).is_ok() {
            asked += 1;
        }
        let mut rest = Vec::new();
        let _ = deaf.read_to_end(&mut rest);
        asked
    });
    let mut client = Client::greeted(daemon.address);
    let mut sent = 0;
    while !asking.is_finished() || sent < 50 {
        client.deliver("sender@example.net", &["a@example.org"], "Subject: x\r\n\r\nbody\r\n");
        sent += 1;
        if sent % 500 == 0 {
            client = Client::greeted(daemon.address);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(asking.join().expect("it ended") > 0);
    drop(client);
    daemon.until_empty();
    assert_eq!(daemon.ledger().delivered, sent);
    hung.hang_up();
    hung.end();
    assert!(daemon.stop().success());
}

#[test]
fn the_history_is_nowhere_on_disk() {
    let daemon = daemon("line-history", 1);
    let mut line = on(&daemon, "vt100", &["shell"], Taking::AtOnce);
    line.until("ringpost> ");
    line.ask("why secret-of-somebody@example.org");
    line.say("quit");
    line.end();
    for entry in fs::read_dir(&daemon.folder.0).expect("our folder").flatten() {
        let text = fs::read(entry.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.contains("secret-of-somebody"), "{}", entry.path().display());
    }
}
