//! A spool in a file system on md, by choice, and what becomes of it when the power or a disk goes.

use super::guest::{Guest, Start};
use super::stage;
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::Folder;

const MACHINE: &str = "\n[spool]\nmd = [1, 2]\nxfs = true\n";
const MAIL: &str = "places = [\"/spool\"]\nsegments = 8\nsegment_mib = 16\n";

fn deliver(guest: &Guest, text: &str) {
    let text = format!("Subject: x\r\n\r\n{text}\r\n");
    Client::greeted(guest.mail).deliver("a@example.net", &["b@example.org"], &text);
}

#[test]
fn an_xfs_on_an_md_mirror_keeps_mail_without_power_and_without_a_disk() {
    let folder = Folder::new("below");
    let address = Backend::nowhere();
    let [(name, mail), (machine_name, machine)] = stage::config(address);
    let (mail, machine) = (mail.replace(stage::SPOOL, MAIL), machine + MACHINE);
    assert!(mail.contains("/spool\""), "the example has other places now");
    let disk = stage::disk(&folder, &[(name, &mail), (machine_name, &machine)]);
    let mut disks = Vec::new();
    for serial in ["one", "two"] {
        stage::blank(&folder.path(serial), 500);
        disks.push(stage::further(&folder.path(serial), serial));
    }
    let both = disks.concat();
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &both);
    guest.wait_for("spool: /dev/md0 is made of");
    guest.wait_for("spool: a new XFS on /dev/md0");
    guest.wait_for("taking mail");
    deliver(&guest, "before the first cut");
    // The power goes.
    drop(guest);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &both);
    guest.wait_for("spool: /dev/md0: 0 member(s) missing");
    guest.wait_for("taking mail");
    let said = guest.said();
    assert!(!said.contains("is made of") && !said.contains("a new XFS"), "made again:\n{said}");
    deliver(&guest, "before the second cut");
    // While it runs, one of the disks is pulled; then the power goes.
    // (Its slot knows no hot plugging; what is behind it goes.)
    guest.command("drive_del one");
    deliver(&guest, "on one disk");
    guest.wait_for("ARRAY /dev/md0: 1 member(s) missing");
    drop(guest);
    // The other starts alone.
    let backend = Backend::start_at(address, Manners::default());
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &disks[1]);
    guest.wait_for("spool: /dev/md0: 1 member(s) missing");
    guest.wait_for("taking mail");
    let mails = backend.wait_for(3);
    for text in ["before the first cut", "before the second cut", "on one disk"] {
        assert!(mails.iter().any(|mail| mail.text().contains(text)), "{text} is lost");
    }
    let said = guest.power_off();
    assert!(!said.contains("/spool: "), "no ordered end:\n{said}");
    // A new disk in its place is taken in.
    stage::blank(&folder.path("one"), 500);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &both);
    guest.wait_for("is taken into /dev/md0");
    guest.wait_for("taking mail");
    guest.wait_for("array /dev/md0: 0 member(s) missing");
    guest.power_off();
}

#[test]
fn a_partition_that_holds_a_log_is_not_made_a_file_system() {
    let folder = Folder::new("below-full");
    let [mail, (name, machine)] = stage::config(Backend::nowhere());
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (name, &machine)]);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    deliver(&guest, "in the log");
    guest.power_off();
    let changed = machine.clone() + "\n[spool]\nxfs = true\n";
    stage::inject(&folder, &disk, &[(name, &changed)]);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("it holds something else and is left alone");
    guest.power_off();
    // Undone, the log is as it was.
    stage::inject(&folder, &disk, &[(name, &machine)]);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    guest.power_off();
}
