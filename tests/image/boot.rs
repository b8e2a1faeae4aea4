//! From the flashed image to mail, started without firmware.

use std::path::Path;
use std::process::Command;

use super::guest::{Guest, Start};
use super::stage;
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::Folder;

fn files(backend: &Backend) -> Vec<(&'static str, String)> {
    stage::config(backend.address).into()
}

fn disk(folder: &Folder, backend: &Backend) -> std::path::PathBuf {
    let files = files(backend);
    let files: Vec<(&str, &str)> =
        files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    stage::disk(folder, &files)
}

#[test]
fn the_first_start_makes_the_disk_takes_mail_and_passes_it_on() {
    let folder = Folder::new("boot");
    let backend = Backend::start(Manners::default());
    let disk = disk(&folder, &backend);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("first start: making state and spool");
    guest.wait_for("config: generation 1");
    let ready = guest.wait_for("taking mail");
    println!("first start: {ready}");
    let mut client = Client::greeted(guest.mail);
    client.deliver(
        "a@example.net",
        &["b@example.org"],
        "Subject: one\r\n\r\nthrough the guest\r\n",
    );
    let mails = backend.wait_for(1);
    assert!(mails[0].text().contains("through the guest"), "{}", mails[0].text());
    let said = guest.power_off();
    assert!(said.contains("ringpostd ended: exit code 0"), "not drained:\n{said}");
    let before = table(&disk);
    for part in ["ringpost-esp", "ringpost-config", "ringpost-state", "ringpost-spool"] {
        assert!(before.contains(part), "{part} is missing:\n{before}");
    }
    assert!(!before.contains("52696E67-706F-7374"), "GUIDs of the image are left:\n{before}");

    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    println!("second start: {}", guest.wait_for("taking mail"));
    let mut client = Client::greeted(guest.mail);
    client.deliver("a@example.net", &["b@example.org"], "Subject: two\r\n\r\nonce more\r\n");
    backend.wait_for(2);
    let said = guest.power_off();
    assert!(!said.contains("first start"), "the disk was made twice:\n{said}");
    assert!(!said.contains("generation"), "the same seed became another generation:\n{said}");
    assert_eq!(table(&disk), before, "the second start changed the table");
}

fn table(disk: &Path) -> String {
    let output = Command::new("sfdisk").arg("--dump").arg(disk).output().expect("sfdisk starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn mail_that_waits_survives_a_cut_of_power() {
    let folder = Folder::new("boot-cut");
    // Nobody listens there yet.
    let address = Backend::nowhere();
    let [mail, machine] = stage::config(address);
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    let mut client = Client::greeted(guest.mail);
    client.deliver("a@example.net", &["b@example.org"], "Subject: kept\r\n\r\nbefore the cut\r\n");
    drop(guest);
    let backend = Backend::start_at(address, Manners::default());
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    let mails = backend.wait_for(1);
    assert!(mails[0].text().contains("before the cut"), "{}", mails[0].text());
    guest.power_off();
}

#[test]
fn a_bad_config_is_named_and_the_last_good_one_stays() {
    let folder = Folder::new("boot-bad");
    let backend = Backend::start(Manners::default());
    let disk = disk(&folder, &backend);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    guest.power_off();
    let [(name, mail), (machine_name, machine)] = stage::config(backend.address);
    for (name, text, expected) in [
        (name, format!("{mail}\ncolour = 1\n"), "colour"),
        (machine_name, machine.replace("/24", "/33"), "machine.toml:"),
    ] {
        stage::inject(&folder, &disk, &[(name, &text)]);
        let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
        let refused = guest.wait_for("config seed refused");
        guest.wait_for("taking mail");
        Client::greeted(guest.mail);
        let said = guest.power_off();
        assert!(said.contains(expected), "{refused}: names no {expected}:\n{said}");
        stage::inject(&folder, &disk, &[("mx.toml", &mail), ("machine.toml", &machine)]);
    }
}

#[test]
fn without_a_config_nothing_listens_and_the_console_says_why() {
    let folder = Folder::new("boot-empty");
    let disk = stage::disk(&folder, &[]);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("MAINTENANCE: no config: put mx.toml and machine.toml on");
    guest.power_off();
}

#[test]
fn a_disk_with_something_on_it_is_left_alone_a_blank_one_becomes_spool() {
    let folder = Folder::new("boot-disks");
    let backend = Backend::start(Manners::default());
    let disk = disk(&folder, &backend);
    let (full, blank) = (folder.path("full.img"), folder.path("blank.img"));
    let content = b"somebody's data".repeat(100);
    std::fs::write(&full, &content).expect("a file");
    std::fs::File::options()
        .write(true)
        .open(&full)
        .and_then(|f| f.set_len(256 << 20))
        .expect("grows");
    std::fs::File::create(&blank).and_then(|f| f.set_len(256 << 20)).expect("grows");
    let mut more = Vec::new();
    for (serial, path) in [("SERIAL-x", &full), ("SERIAL-y", &blank)] {
        more.extend(stage::further(path, serial));
    }
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &more);
    guest.wait_for("taking mail");
    let said = guest.power_off();
    assert!(said.contains("\"SERIAL-x\") and is left alone"), "{said}");
    assert!(said.contains("\"SERIAL-y\") becomes spool"), "{said}");
    assert!(said.contains("spool: 2 partition(s)"), "{said}");
    let after = std::fs::read(&full).expect("still there");
    assert_eq!(after[..content.len()], content[..], "the disk was changed");
    assert!(after[content.len()..].iter().all(|b| *b == 0), "the disk was changed");
    assert!(table(&blank).contains("ringpost-spool"));
}
