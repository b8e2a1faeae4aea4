//! The dialogs of tests/dialogs, played against the running daemon over TCP.

use std::collections::BTreeSet;
use std::path::Path;

use super::backend::{Backend, Manners};
use super::client::Client;
use super::programs::{Daemon, Setup};
use super::secrets::{self, Can};
use crate::dialog::{self, Dialog, Step};

/// Those that are not played here, and why not. The machine's own test plays them all.
const SKIPPED: &[(&str, &str)] = &[
    ("early_talker.txt", "the greeting would have to wait for the client, on a clock"),
    ("timeout_command.txt", "seconds of a virtual clock"),
    ("timeout_data.txt", "seconds of a virtual clock"),
    ("bdat_size.txt", "size 20: the config has 64 KiB at least"),
    ("size_exceeded.txt", "size 100: the config has 64 KiB at least"),
    ("size_declared.txt", "size 1000: the config has 64 KiB at least"),
    ("limit_header.txt", "header_max is no key of the config"),
    ("limit_received.txt", "received_max 3: the config has 10 at least"),
    ("limit_recipients.txt", "rcpt_max 2: the config has 100 at least (RFC 5321 4.5.3.1.8)"),
    ("no_chunking.txt", "CHUNKING is always on"),
    ("pipelining_unauthorised.txt", "this policy is no key of the config"),
    ("mail_refused_pipelined.txt", "no sender is refused by the daemon's policy yet"),
];

fn manners() -> Manners {
    let offers = vec!["8BITMIME", "CHUNKING", "BINARYMIME", "SMTPUTF8", "PIPELINING"];
    Manners { offers, ..Manners::default() }
}

/// A daemon with the settings a dialog asks for.
fn daemon(settings: &[(String, String)], backend: &Backend) -> Daemon {
    let mut setup = Setup::new(backend.address);
    setup.cores = 1;
    for (key, value) in settings {
        match key.as_str() {
            "junk_max" => setup.policy.push_str(&format!("idle_commands_max = {value}\n")),
            "errors_max" => setup.policy.push_str(&format!("errors_max = {value}\n")),
            "bare_newline" => setup.policy.push_str(&format!("bare_newline = \"{value}\"\n")),
            "starttls" => {
                setup.listener = "tls = \"starttls\"\n".to_owned();
                setup.more.push_str(
                    "[[tls.certificate]]\ncertificate = \"{folder}/own.crt\"\n\
                     key = \"{folder}/own.key\"\nnames = [\"mx.example.org\"]\n\
                     self_signed = true\n",
                );
            }
            _ => panic!("a setting nobody knows: {key} {value}"),
        }
    }
    let mut daemon = Daemon::start("dialogs", setup);
    let address = backend.address.to_string();
    daemon.until("the probe of the backend", |daemon| {
        daemon.ask(&["hints", "list", "--kind", "offers"]).to_string().contains(&address)
    });
    daemon
}

struct Player<'a> {
    dialog: &'a Dialog,
    client: Client,
    backend: &'a Backend,
    /// Mails at the backend before this dialog.
    before: usize,
    accepted: usize,
}

impl Player<'_> {
    fn line(&mut self, at: &str) -> String {
        let line = self.client.line().unwrap_or_else(|| panic!("{at}: the connection ended"));
        if line.contains("] accepted") {
            self.accepted += 1;
        }
        line
    }

    fn play(&mut self) {
        for (n, step) in &self.dialog.steps {
            let at = format!("{}:{n}", self.dialog.name);
            match step {
                Step::Send(octets) => self.client.send(octets),
                Step::Line(pattern) => {
                    let line = self.line(&at);
                    assert!(dialog::matches(pattern, &line), "{at}: {pattern}\n got: {line}");
                }
                Step::Reply(code) => loop {
                    let line = self.line(&at);
                    assert_eq!(line.get(..3), Some(code.as_str()), "{at}: {line}");
                    if line.as_bytes().get(3) == Some(&b' ') {
                        break;
                    }
                },
                Step::Message(content) => {
                    let mails = self.backend.wait_for(self.before + self.accepted);
                    let came = mails.last().expect("one came").content.clone();
                    // Our Received line stands in front; nothing else differs.
                    assert!(came.starts_with(b"Received: "), "{at}");
                    let show = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
                    assert!(came.ends_with(content), "{at}: {} / {}", show(&came), show(content));
                    let added = &came[..came.len() - content.len()];
                    let lines = added.split(|octet| *octet == b'\n').filter(|l| !l.is_empty());
                    let more = lines
                        .skip(1)
                        .filter(|line| !line.starts_with(b"\t") && !line.starts_with(b" "));
                    assert_eq!(more.count(), 0, "{at}: {}", show(added));
                }
                Step::Tls => {
                    let config = secrets::client(rustls::DEFAULT_VERSIONS, Can::All);
                    self.client.secure(&config, "mx.example.org");
                }
                Step::Eof => self.client.shutdown_write(),
                Step::Closed(_) => {
                    let more = self.client.line();
                    assert_eq!(more, None, "{at}: it goes on");
                }
                Step::Wait(_) => panic!("{at}: no clock here"),
            }
        }
    }
}

#[test]
fn dialogs_go_as_written_over_tcp() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogs");
    let all = dialog::all(&folder);
    for (name, _) in SKIPPED {
        assert!(all.iter().any(|dialog| dialog.name == *name), "{name}: no such dialog to skip");
    }
    let played: Vec<&Dialog> =
        all.iter().filter(|dialog| SKIPPED.iter().all(|(name, _)| dialog.name != *name)).collect();
    let wanted: BTreeSet<_> = played.iter().map(|dialog| dialog.settings.clone()).collect();
    let mut count = 0;
    for settings in wanted {
        let backend = Backend::start(manners());
        let mut daemon = daemon(&settings, &backend);
        let mut before = 0;
        for dialog in played.iter().filter(|dialog| dialog.settings == settings) {
            // What one dialog sent lies at the backend before the next begins.
            backend.wait_for(before);
            let client = Client::connect_silent(daemon.address);
            let mut player = Player { dialog, client, backend: &backend, before, accepted: 0 };
            player.play();
            before += player.accepted;
            count += 1;
        }
        assert!(daemon.stop().success());
    }
    assert_eq!(SKIPPED.len(), 12, "dialogs are skipped that were not");
    assert_eq!(count, all.len() - SKIPPED.len());
    assert!(count >= 57, "only {count} dialogs were played");
}
