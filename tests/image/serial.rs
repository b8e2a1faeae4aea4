//! The serial line of the release image, typed: a login, the wizard, the carrier.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::carrier::Line;
use super::guest::{Guest, Start};
use super::stage;
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Folder, program};

const PASSWORD: &str = "correct horse";

/// A file of logins, as an operator makes it on any computer.
fn access(folder: &Folder) -> String {
    let state = folder.path("state");
    let mut child = Command::new(program("ringpost"))
        .args(["access", "add", "root", "--role", "admin", "--state"])
        .arg(&state)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("ringpost starts");
    let mut words = child.stdin.take().expect("piped");
    writeln!(words, "{PASSWORD}").expect("it reads");
    drop(words);
    assert!(child.wait().expect("it ends").success());
    std::fs::read_to_string(state.join("access")).expect("a file of logins")
}

/// The prompt may have come before what was waited for last: an empty name brings it again.
fn prompt(guest: &mut Guest) {
    guest.press("\r");
    guest.wait_for("login: ");
}

fn log_in(guest: &mut Guest, name: &str) {
    prompt(guest);
    guest.press(&format!("{name}\r"));
    guest.wait_for("password: ");
    guest.press(&format!("{PASSWORD}\r"));
    guest.wait_for("ringpost> ");
}

#[test]
fn a_login_a_command_a_logout_and_the_next_login() {
    let folder = Folder::new("serial-login");
    let [mail, (name, machine)] = stage::config(Backend::nowhere());
    let machine = machine.replace("speed = 115200", "speed = 115200\nidle_s = 600\ndelay_s = 1");
    let logins = access(&folder);
    let files = [(mail.0, mail.1.as_str()), (name, &machine), ("access", &logins)];
    let disk = stage::disk(&folder, &files);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    // A wrong password first.
    prompt(&mut guest);
    guest.press("root\r");
    guest.wait_for("password: ");
    guest.press("wrong horse\r");
    guest.wait_for("That is not right.");
    guest.wait_for("Wait ");
    log_in(&mut guest, "root");
    guest.press("status\r");
    guest.wait_for("running");
    guest.press("quit\r");
    guest.wait_for("console ended: exit code 0");
    // It is there again, and asks again.
    log_in(&mut guest, "root");
    guest.press("poweroff\r");
    guest.wait_for("Type POWEROFF to do it: ");
    guest.press("POWEROFF\r");
    guest.wait_for("PowerOff: now");
}

#[test]
fn who_is_logged_in_is_logged_out_when_the_carrier_drops() {
    let folder = Folder::new("serial-carrier");
    let backend = Backend::start(Manners::default());
    let [mail, (name, machine)] = stage::config(backend.address);
    let machine = machine.replace("speed = 115200", "speed = 115200\ncarrier = true");
    let logins = access(&folder);
    let files = [(mail.0, mail.1.as_str()), (name, &machine), ("access", &logins)];
    let disk = stage::disk(&folder, &files);
    let line = Line::new(&folder);
    line.raise();
    let mut guest = Guest::start_wired(&folder, &disk, Start::Direct, &line);
    guest.wait_for("taking mail");
    log_in(&mut guest, "root");
    line.drop_carrier();
    guest.wait_for("console ended: ");
    // Mail does not depend on it.
    let text = "Subject: one\r\n\r\nwithout a console\r\n";
    Client::greeted(guest.mail).deliver("a@example.net", &["b@example.org"], text);
    backend.wait_for(1);
    // Whoever calls next is nobody yet.
    line.raise();
    guest.wait_for("login: ");
    log_in(&mut guest, "root");
    guest.press("status\r");
    guest.wait_for("running");
    guest.power_off();
}

#[test]
fn the_wizard_makes_a_machine_without_a_config_take_mail() {
    let folder = Folder::new("serial-wizard");
    let backend = Backend::start(Manners::default());
    let disk = stage::disk(&folder, &[]);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("MAINTENANCE: no config");
    guest.wait_for("This sets up a mail exchanger.");
    let behind = format!("10.0.2.2:{}", backend.address.port());
    // The question, and what is typed; an empty line takes the default.
    let typed = [
        ("The full name", "mx.example.org"),
        ("The network card", ""),
        ("Its addresses", "10.0.2.15/24"),
        ("The gateway", "10.0.2.2"),
        ("The DNS servers", "10.0.2.3"),
        ("The domains", "example.org"),
        ("The servers behind", &behind),
        ("Who gets mail", "any"),
        ("A password", ""),
    ];
    for (question, answer) in typed {
        guest.wait_for(question);
        guest.wait_for_any(&["> ", "Enter to type it: "]);
        guest.press(&format!("{answer}\r"));
    }
    for prompt in ["New password: ", "Again: "] {
        guest.wait_for(prompt);
        guest.press(&format!("{PASSWORD}\r"));
    }
    guest.wait_for("or `quit`: ");
    guest.press("commit\r");
    guest.wait_for("The machine starts anew with it.");
    guest.wait_for("Reboot: now");
    guest.wait_for("hold m for maintenance");
    guest.wait_for("taking mail");
    let text = "Subject: one\r\n\r\nas the wizard said\r\n";
    Client::greeted(guest.mail).deliver("a@example.net", &["b@example.org"], text);
    let mails = backend.wait_for(1);
    assert!(mails[0].text().contains("as the wizard said"), "{}", mails[0].text());
    log_in(&mut guest, "admin");
    guest.press("config history\r");
    guest.wait_for("1 in force");
    guest.power_off();
}
