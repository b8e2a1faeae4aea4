//! A version under trial is blessed when it keeps mail, not when it answers.

use std::process::Command;

use super::guest::{Guest, Start};
use super::stage;
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::Folder;

/// A daemon that says it is ready, answers every command, gives an id, and keeps nothing.
const ANSWERS: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
static void say(int fd, const char *text) { if (write(fd, text, strlen(text)) < 0) _exit(3); }
static void serve(int fd) {
    FILE *in = fdopen(fd, "r");
    char line[1024];
    int content = 0;
    say(fd, "220 mx.example.org ESMTP\r\n");
    while (fgets(line, sizeof line, in)) {
        if (content) {
            if (strcmp(line, ".\r\n") == 0) {
                content = 0;
                say(fd, "250 2.0.0 [0000000000000000000A.1] accepted\r\n");
            }
        } else if (strncmp(line, "DATA", 4) == 0) {
            content = 1;
            say(fd, "354 go\r\n");
        } else if (strncmp(line, "QUIT", 4) == 0) {
            say(fd, "221 bye\r\n");
            break;
        } else {
            say(fd, "250 ok\r\n");
        }
    }
    fclose(in);
}
int main(int argc, char **argv) {
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(25) };
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    const char *ready = "READY=1\n", *where = getenv("NOTIFY_SOCKET");
    if (argc > 1 && strcmp(argv[1], "--check") == 0) return 0;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 8) || !where) return 1;
    strncpy(to.sun_path, where, sizeof to.sun_path - 1);
    sendto(socket(AF_UNIX, SOCK_DGRAM, 0), ready, strlen(ready), 0, (void *)&to, sizeof to);
    for (;;) {
        int fd = accept(listener, 0, 0);
        if (fd >= 0) serve(fd);
    }
}
"#;

#[test]
fn a_version_that_answers_and_keeps_no_mail_is_left() {
    let folder = Folder::new("health");
    let backend = Backend::start(Manners::default());
    let [mail, machine] = stage::config(backend.address);
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let (source, answers) = (folder.path("answers.c"), folder.path("answers"));
    std::fs::write(&source, ANSWERS).expect("written");
    let built = Command::new("gcc").args(["-static", "-o"]).arg(&answers).arg(&source).output();
    let built = built.expect("gcc starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let replace = format!("/bin/ringpostd={}", answers.display());
    let uki = stage::uki(&folder, "1.1.0", &["--replace", &replace]);
    stage::put_on_esp(&disk, &uki, "EFI/Linux/ringpost_1.1.0+1.efi");
    let mut guest = Guest::start(&folder, &disk, Start::Firmware, &[]);
    guest.wait_for("Ringpost 1.1.0");
    guest.wait_for("taking mail");
    let why = guest.wait_for("not healthy: ");
    assert!(why.contains("0000000000000000000A.1 is not in the spool"), "{why}");
    guest.wait_for("this version does not work here: leaving it");
    guest.wait_for("Ringpost 1.0.0");
    guest.wait_for("taking mail");
    let text = "Subject: x\r\n\r\nkept by the version before\r\n";
    Client::greeted(guest.mail).deliver("a@example.net", &["b@example.org"], text);
    backend.wait_for(1);
    let said = guest.power_off();
    assert!(!said.contains("blessed"), "a version that keeps nothing was blessed:\n{said}");
    assert_eq!(stage::versions(&disk), ["ringpost_1.0.0.efi", "ringpost_1.1.0+0-1.efi"]);
}

#[test]
fn a_version_that_keeps_mail_is_blessed_and_the_message_is_gone() {
    let folder = Folder::new("health-kept");
    let backend = Backend::start(Manners::default());
    let [mail, machine] = stage::config(backend.address);
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let uki = stage::uki(&folder, "1.1.0", &["--debug"]);
    stage::put_on_esp(&disk, &uki, "EFI/Linux/ringpost_1.1.0+1.efi");
    let mut guest = Guest::start(&folder, &disk, Start::Firmware, &[]);
    guest.wait_for("Ringpost 1.1.0");
    guest.wait_for("blessed: EFI/Linux/ringpost_1.1.0.efi");
    let (said, _) = guest.shell("cat /state/log/mainlog");
    println!("{said}");
    assert!(said.contains("health.invalid"), "no message was taken:\n{said}");
    let (said, _) = guest.shell("ringpost --socket /run/ringpost/admin.sock ledger");
    println!("{said}");
    for (name, number) in [("accepted", "1"), ("removed", "1"), ("queued", "0"), ("delivered", "0")]
    {
        let line = said
            .lines()
            .find(|line| line.trim_start_matches(['+', '-', '=', ' ']).starts_with(name));
        let line = line.unwrap_or_default();
        assert_eq!(line.split_whitespace().last(), Some(number), "{name}:\n{said}");
    }
    let text = "Subject: x\r\n\r\nmail of others\r\n";
    Client::greeted(guest.mail).deliver("a@example.net", &["b@example.org"], text);
    let mails = backend.wait_for(1);
    assert!(mails[0].text().contains("mail of others"), "{}", mails[0].text());
    guest.power_off();
}
