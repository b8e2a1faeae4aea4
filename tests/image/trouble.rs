//! What goes wrong on a machine: a hang, a disk that is pulled, one that is full, an operator who
//! wants nothing but the console.

use std::process::Command;

use super::guest::{Guest, Start};
use super::stage;
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::Folder;

/// PID 1 that takes the watchdog, as init does, and then does nothing.
const HANG: &str = r#"
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>
int main(void) {
    int seconds = 10;
    mount("devtmpfs", "/dev", "devtmpfs", 0, "");
    int console = open("/dev/console", O_WRONLY);
    int dog = open("/dev/watchdog", O_WRONLY);
    ioctl(dog, WDIOC_SETTIMEOUT, &seconds);
    dprintf(console, "watchdog %d: hanging\n", dog >= 0);
    for (;;) pause();
}
"#;

#[test]
fn a_version_that_hangs_is_left() {
    let folder = Folder::new("trouble-hang");
    let backend = Backend::start(Manners::default());
    let [mail, machine] = stage::config(backend.address);
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let (source, hang) = (folder.path("hang.c"), folder.path("hang"));
    std::fs::write(&source, HANG).expect("written");
    let built = Command::new("gcc").args(["-static", "-o"]).arg(&hang).arg(&source).output();
    assert!(built.expect("gcc starts").status.success());
    let replace = format!("/init={}", hang.display());
    let uki = stage::uki(&folder, "1.1.0", &["--replace", &replace]);
    stage::put_on_esp(&disk, &uki, "EFI/Linux/ringpost_1.1.0+2.efi");
    let mut guest = Guest::start(&folder, &disk, Start::Firmware, &[]);
    for _ in 0..2 {
        guest.wait_for("watchdog 1: hanging");
    }
    guest.wait_for("Ringpost 1.0.0");
    guest.wait_for("taking mail");
    let said = guest.power_off();
    assert!(!said.contains("blessed"), "a stale count blessed somebody:\n{said}");
    assert_eq!(stage::versions(&disk), ["ringpost_1.0.0.efi", "ringpost_1.1.0+0-2.efi"]);
}

#[test]
fn a_mirror_goes_on_when_a_disk_is_pulled() {
    let folder = Folder::new("trouble-pulled");
    let address = Backend::nowhere();
    let [(name, mail), machine] = stage::config(address);
    let two = "places = [\"/dev/spool/1\", \"/dev/spool/2\"]\nmirror = true\nsegments = 8\n\
        segment_mib = 16\n";
    let disk =
        stage::disk(&folder, &[(name, &mail.replace(stage::SPOOL, two)), (machine.0, &machine.1)]);
    let disks = ["one", "two"].map(|serial| {
        stage::blank(&folder.path(serial), 400);
        stage::further(&folder.path(serial), serial)
    });
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &disks.concat());
    guest.wait_for("taking mail");
    let mut client = Client::greeted(guest.mail);
    let deliver = |client: &mut Client, text: &str| {
        client.deliver(
            "a@example.net",
            &["b@example.org"],
            &format!("Subject: x\r\n\r\n{text}\r\n"),
        )
    };
    deliver(&mut client, "on both");
    // (Its slot knows no hot plugging; what is behind it goes.)
    guest.command("drive_del one");
    // Some may hear 451 while the disk is being given up; what hears 250 is kept.
    let mut kept = 0;
    while kept < 20 {
        if client
            .mail(
                "a@example.net",
                &["b@example.org"],
                &format!("Subject: x\r\n\r\nkept {kept}.\r\n"),
            )
            .starts_with("250")
        {
            kept += 1;
        }
    }
    drop(client);
    drop(guest);
    // All is on the other one; a blank one takes the place of what was pulled.
    stage::blank(&folder.path("one"), 400);
    let backend = Backend::start_at(address, Manners::default());
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &disks.concat());
    guest.wait_for("taking mail");
    let mails = backend.wait_for(21);
    for n in 0..20 {
        let line = format!("kept {n}.");
        assert!(mails.iter().any(|mail| mail.text().contains(&line)), "{line} is lost");
    }
    assert!(mails.iter().any(|mail| mail.text().contains("on both")));
    guest.power_off();
}

#[test]
fn a_full_disk_is_a_452_and_loses_nothing() {
    let folder = Folder::new("trouble-full");
    let address = Backend::nowhere();
    let [mail, machine] = stage::config(address);
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    let mut client = Client::greeted(guest.mail);
    let line = "seventy octets of a line that fills the disk..............\r\n";
    let body = format!("Subject: x\r\n\r\n{}", line.repeat(17_000));
    let mut kept = 0;
    let refused = loop {
        // The whole message is refused at MAIL, or a later command is.
        let reply = client.say("MAIL FROM:<a@example.net>");
        if !reply.starts_with("250") {
            break reply;
        }
        client.expect("RCPT TO:<b@example.org>", "250");
        client.expect("DATA", "354");
        client.send(body.as_bytes());
        let reply = client.say(".");
        if !reply.starts_with("250") {
            break reply;
        }
        kept += 1;
        assert!(kept < 1000, "a spool of 128 MiB took {kept} MiB");
    };
    println!("{kept} messages of 1 MiB, then {refused}");
    assert!(refused.starts_with("452"), "{refused}");
    drop(client);
    guest.power_off();
    // The next hop is there, the machine starts anew: all of it is passed on, and there is room.
    let backend = Backend::start_at(address, Manners::default());
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    backend.wait_for(kept);
    let mut client = Client::greeted(guest.mail);
    client.deliver("a@example.net", &["b@example.org"], "Subject: y\r\n\r\nagain\r\n");
    backend.wait_for(kept + 1);
    guest.power_off();
}

#[test]
fn in_maintenance_no_mail_comes_and_nothing_writes_to_the_spool() {
    let folder = Folder::new("trouble-key");
    let address = Backend::nowhere();
    let [mail, machine] = stage::config(address);
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let mut guest = Guest::start(&folder, &disk, Start::Debug, &[]);
    guest.wait_for("taking mail");
    let text = "Subject: x\r\n\r\nthrough maintenance\r\n";
    Client::greeted(guest.mail).deliver("a@example.net", &["b@example.org"], text);
    guest.power_off();
    let mut guest = Guest::start(&folder, &disk, Start::Debug, &[]);
    guest.wait_for("hold m for maintenance");
    guest.press("mmmm");
    guest.wait_for("MAINTENANCE: asked for at start");
    guest.wait_for("read-only until the next start");
    // The console is there, mail and the network are not.
    let (said, fine) = guest.shell("nc -w 5 127.0.0.1 25 </dev/null");
    assert!(!fine && !said.contains("220 "), "{said}");
    let (said, _) = guest.shell("ip link");
    assert!(!said.contains("state UP"), "{said}");
    for words in ["status", "queue list", "queue remove 0000000000000000000A.1 --yes REMOVE"] {
        let (said, fine) = guest.shell(&format!("ringpost {words}"));
        assert!(!fine && said.contains("in maintenance: asked for at start"), "{words}: {said}");
    }
    let (said, fine) = guest.shell("ringpost config history");
    assert!(fine && said.contains("1 in force"), "{said}");
    // The spool is read, and by nobody written: not by the tool, not past it.
    let (said, fine) = guest.shell("ringpost spool list /dev/spool/0");
    assert!(fine && said.contains("1 messages."), "{said}");
    let (said, fine) = guest.shell("ringpost spool repair --yes /dev/spool/0");
    assert!(!fine && said.contains("/dev/spool/0 is read-only: this machine is in"), "{said}");
    let (said, fine) = guest.shell("echo torn >/dev/spool/0");
    assert!(!fine && said.contains("not permitted"), "{said}");
    // A daemon that somebody starts by hand says why it cannot, and takes nothing.
    let by_hand = "cd /state/config/current && ringpostd --config mx.toml";
    let (said, fine) = guest.shell(by_hand);
    println!("{said}");
    assert!(!fine && said.contains("/dev/spool/0") && !said.contains("listening"), "{said}");
    assert!(guest.shell("ringpost poweroff").1);
    guest.wait_for("PowerOff: now");
    // The next start is as if nothing had been.
    let backend = Backend::start_at(address, Manners::default());
    let mut guest = Guest::start(&folder, &disk, Start::Debug, &[]);
    guest.wait_for("taking mail");
    let mails = backend.wait_for(1);
    assert!(mails[0].text().contains("through maintenance"), "{}", mails[0].text());
    guest.power_off();
}
