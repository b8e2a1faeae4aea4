//! What the daemon is to the machine it runs on: its sandbox, and the door of the health check.

use std::fs;
use std::process::Command;

use super::backend::{Backend, Manners};
use super::client::Client;
use super::programs::{Daemon, Folder, Setup, program};

const WORD: &str = "0123456789abcdef0123456789abcdef";

fn recipient(word: &str) -> String {
    format!("test@{word}.health.invalid")
}

fn knowing(setup: &mut Setup) {
    setup.environment = vec![("RINGPOSTD_HEALTH".to_owned(), WORD.to_owned())];
}

/// MAIL and RCPT, and what the latter is answered.
fn rcpt(client: &mut Client, to: &str) -> String {
    client.expect("MAIL FROM:<>", "250");
    let reply = client.say(&format!("RCPT TO:<{to}>"));
    client.expect("RSET", "250");
    reply
}

#[test]
fn a_health_check_is_kept_seen_removed_and_never_passed_on() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    knowing(&mut setup);
    let mut daemon = Daemon::start("health", setup);
    let mut client = Client::greeted(daemon.address);
    let reply = client.mail("", &[&recipient(WORD)], "Subject: health\r\n\r\nkept?\r\n");
    assert!(reply.starts_with("250 2.0.0 ["), "{reply}");
    let id = reply.split(['[', ']']).nth(1).expect("an id").to_owned();
    let shown = daemon.tool(&["queue", "show", &id]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains(&recipient(WORD)), "{text}");
    // It waits until somebody removes it, also through a power cut of the process.
    daemon.kill();
    daemon.start_again();
    // What another start of the machine finds of it is thrown away.
    daemon.until_empty();
    assert!(!daemon.tool(&["queue", "show", &id]).status.success());
    let mut client = Client::greeted(daemon.address);
    let reply = client.mail("", &[&recipient(WORD)], "Subject: health\r\n\r\nagain\r\n");
    let id = reply.split(['[', ']']).nth(1).expect("an id").to_owned();
    assert!(daemon.tool(&["queue", "remove", &id, "--yes", "REMOVE"]).status.success());
    assert!(!daemon.tool(&["queue", "show", &id]).status.success());
    // Mail of others goes on, and nothing else ever reached the next hop.
    let text = "Subject: x\r\n\r\nother mail\r\n";
    client.deliver("a@example.net", &["b@example.org"], text);
    let mails = backend.wait_for(1);
    assert!(mails[0].text().contains("other mail"), "{}", mails[0].text());
    assert_eq!(backend.wait_for(1).len(), 1);
    daemon.stop();
}

#[test]
fn the_health_checks_door_is_closed_to_everybody_else() {
    let backend = Backend::start(Manners::default());
    // Without a word there is no door, whatever is asked for.
    let mut daemon = Daemon::start("health-none", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    for word in [WORD, "", "x"] {
        let to = recipient(word).replace("@.", "@");
        assert!(rcpt(&mut client, &to).starts_with('5'), "{to}");
    }
    drop(client);
    daemon.stop();
    // With one, only that word, from this machine, as the client the kernel names.
    let mut setup = Setup::new(backend.address);
    knowing(&mut setup);
    setup.policy += "relay_networks = [\"192.0.2.0/24\"]\n";
    setup.listener =
        "tls = \"none\"\nproxy = \"require\"\nproxy_peers = [\"127.0.0.1/32\"]\n".into();
    let mut daemon = Daemon::start("health-far", setup);
    for from in ["198.51.100.7", "192.0.2.7", "127.0.0.1"] {
        let mut client = Client::connect_silent(daemon.address);
        client.send(format!("PROXY TCP4 {from} 192.0.2.25 4000 25\r\n").as_bytes());
        assert!(client.reply().starts_with("220"));
        client.expect("EHLO far.example.net", "250");
        let reply = rcpt(&mut client, &recipient(WORD));
        assert!(reply.starts_with('5'), "{from}: {reply}");
        let other = recipient("fedcba9876543210fedcba9876543210");
        assert!(rcpt(&mut client, &other).starts_with('5'), "{from}");
    }
    daemon.stop();
}

#[test]
fn a_listener_that_wants_tls_lets_the_health_check_in_and_nobody_else() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    knowing(&mut setup);
    setup.listener = "tls = \"starttls\"\ntls_required = true\n".to_owned();
    setup.more = "\n[[tls.certificate]]\ncertificate = \"{folder}/own.crt\"\n\
        key = \"{folder}/own.key\"\nself_signed = true\n"
        .to_owned();
    let mut daemon = Daemon::start("health-tls", setup);
    let mut client = Client::greeted(daemon.address);
    assert!(rcpt(&mut client, "b@example.org").starts_with("530"));
    assert!(rcpt(&mut client, &recipient(WORD)).starts_with("250"));
    client.expect("MAIL FROM:<>", "250");
    client.expect(&format!("RCPT TO:<{}>", recipient(WORD)), "250");
    client.expect("RCPT TO:<b@example.org>", "530");
    drop(client);
    daemon.stop();
}

/// What the kernel says of a process.
fn status(pid: nix::unistd::Pid, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn the_sandbox_refuses_what_a_mail_exchanger_never_does() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("sandbox", Setup::new(backend.address));
    assert_eq!(status(daemon.pid(), "Seccomp"), "2", "no filter of system calls");
    assert_eq!(status(daemon.pid(), "NoNewPrivs"), "1");
    assert!(daemon.log().contains("sandbox: complete"), "{}", daemon.log());
    // It lives: mail in and out, another config, its log.
    let text = "Subject: x\r\n\r\nfrom inside\r\n";
    Client::greeted(daemon.address).deliver("a@example.net", &["b@example.org"], text);
    backend.wait_for(1);
    assert!(daemon.reload().contains(" reloaded"));
    daemon.stop();
    // The same sandbox tries what is forbidden.
    let file = daemon.folder.path("mx.toml");
    let try_it = |file: &std::path::Path| {
        let output = Command::new(program("ringpostd")).arg("--sandbox").arg(file).output();
        let output = output.expect("ringpostd starts");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (fine, said) = try_it(&file);
    println!("{said}");
    assert!(fine && !said.contains("ALLOWED"), "{said}");
    for what in [
        "start a program: refused",
        "read the folder /: refused",
        "write a file there: refused",
        "a name space: refused",
        "another root: refused",
        "signal another process: refused",
    ] {
        assert!(said.contains(what), "{what}: {said}");
    }
    // The trial is none if nothing is forbidden: without a sandbox it says so.
    let open = fs::read_to_string(&file).expect("the config");
    let open = open.replace("[node]\n", "[node]\nsandbox = \"off\"\n");
    let other = Folder::new("sandbox-off");
    let place = other.path("mx.toml");
    fs::write(&place, open).expect("written");
    let (fine, said) = try_it(&place);
    assert!(!fine && said.matches("ALLOWED").count() == 6, "{said}");
}
