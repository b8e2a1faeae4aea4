//! Firmware, systemd-boot, versions under trial: what is kept, and what is left by itself.

use super::guest::{Guest, Start};
use super::stage;
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::Folder;

fn disk(folder: &Folder, backend: &Backend) -> std::path::PathBuf {
    let [mail, machine] = stage::config(backend.address);
    stage::disk(folder, &[(mail.0, &mail.1), (machine.0, &machine.1)])
}

#[test]
fn a_new_version_that_takes_mail_is_blessed() {
    let folder = Folder::new("chain-good");
    let backend = Backend::start(Manners::default());
    let disk = disk(&folder, &backend);
    let uki = stage::uki(&folder, "1.1.0", &[]);
    stage::put_on_esp(&disk, &uki, "EFI/Linux/ringpost_1.1.0+3.efi");
    let mut guest = Guest::start(&folder, &disk, Start::SecureBoot, &[]);
    guest.wait_for("Ringpost 1.1.0");
    guest.wait_for("under trial");
    guest.wait_for("blessed");
    println!("firmware to blessed: {}", guest.said().lines().last().unwrap_or_default());
    Client::greeted(guest.mail);
    guest.power_off();
    assert_eq!(stage::versions(&disk), ["ringpost_1.0.0.efi", "ringpost_1.1.0.efi"]);
    // Blessed means: no trial at the next start.
    let mut guest = Guest::start(&folder, &disk, Start::SecureBoot, &[]);
    guest.wait_for("Ringpost 1.1.0");
    guest.wait_for("taking mail");
    let said = guest.power_off();
    assert!(!said.contains("under trial"), "{said}");
}

#[test]
fn a_version_that_panics_is_left_after_three_starts() {
    let folder = Folder::new("chain-panic");
    let backend = Backend::start(Manners::default());
    let disk = disk(&folder, &backend);
    // Its PID 1 ends at once: the kernel panics.
    let uki = stage::uki(&folder, "1.1.0", &["--replace", "/init=/bin/false"]);
    stage::put_on_esp(&disk, &uki, "EFI/Linux/ringpost_1.1.0+3.efi");
    let mut guest = Guest::start(&folder, &disk, Start::Firmware, &[]);
    for _ in 0..3 {
        guest.wait_for("Kernel panic");
    }
    guest.wait_for("Ringpost 1.0.0");
    guest.wait_for("taking mail");
    Client::greeted(guest.mail);
    let said = guest.power_off();
    assert_eq!(said.matches("Kernel panic").count(), 3, "{said}");
    assert!(!said.contains("blessed"), "a stale count blessed somebody:\n{said}");
    assert_eq!(stage::versions(&disk), ["ringpost_1.0.0.efi", "ringpost_1.1.0+0-3.efi"]);
}

#[test]
fn a_version_whose_daemon_does_not_start_is_left_and_the_queue_is_kept() {
    let folder = Folder::new("chain-dead");
    let address = Backend::nowhere();
    let [mail, machine] = stage::config(address);
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let mut guest = Guest::start(&folder, &disk, Start::Firmware, &[]);
    guest.wait_for("taking mail");
    let mut client = Client::greeted(guest.mail);
    client.deliver("a@example.net", &["b@example.org"], "Subject: kept\r\n\r\nin the queue\r\n");
    guest.power_off();
    let uki = stage::uki(&folder, "1.1.0", &["--replace", "/bin/ringpostd=/bin/false"]);
    stage::put_on_esp(&disk, &uki, "EFI/Linux/ringpost_1.1.0+3.efi");
    let backend = Backend::start_at(address, Manners::default());
    let mut guest = Guest::start(&folder, &disk, Start::Firmware, &[]);
    for _ in 0..3 {
        guest.wait_for("this version does not work here: leaving it");
    }
    guest.wait_for("Ringpost 1.0.0");
    guest.wait_for("taking mail");
    let mails = backend.wait_for(1);
    assert!(mails[0].text().contains("in the queue"), "{}", mails[0].text());
    guest.power_off();
    assert_eq!(stage::versions(&disk), ["ringpost_1.0.0.efi", "ringpost_1.1.0+0-3.efi"]);
}

#[test]
fn the_firmware_refuses_an_unsigned_version() {
    let folder = Folder::new("chain-unsigned");
    let backend = Backend::start(Manners::default());
    let disk = disk(&folder, &backend);
    let uki = stage::uki(&folder, "1.1.0", &["--unsigned"]);
    stage::put_on_esp(&disk, &uki, "EFI/Linux/ringpost_1.1.0+1.efi");
    let mut guest = Guest::start(&folder, &disk, Start::SecureBoot, &[]);
    let said = guest.wait_for_any(&["Access Denied", "Ringpost 1.1.0"]);
    assert!(said.contains("Access Denied"), "an unsigned version ran: {said}");
    drop(guest);
    // The count is used up: the version before it starts, and blesses nobody.
    let mut guest = Guest::start(&folder, &disk, Start::SecureBoot, &[]);
    guest.wait_for("Ringpost 1.0.0");
    guest.wait_for("taking mail");
    let said = guest.power_off();
    assert!(!said.contains("blessed"), "a stale count blessed somebody:\n{said}");
    assert_eq!(stage::versions(&disk), ["ringpost_1.0.0.efi", "ringpost_1.1.0+0-1.efi"]);
}
