//! kill -9 while somebody else's client sends: Postfix's smtp-source, which counts what was
//! acknowledged and gives up when the server is gone.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;

use super::{Tool, tool};
use crate::daemon::programs::{Daemon, Folder, Setup, sink};

/// What `smtp-source -c` has counted: numbers with a carriage return behind each.
fn counted(path: &Path) -> usize {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.split(['\r', '\n']).filter_map(|number| number.trim().parse().ok()).max().unwrap_or(0)
}

/// The Message-IDs in a Maildir; smtp-source gives each message its own.
fn arrived(maildir: &Path) -> HashSet<String> {
    let entries = fs::read_dir(maildir.join("new")).into_iter().flatten().flatten();
    let id = |text: &str| {
        let is_id = |line: &&str| line.to_ascii_lowercase().starts_with("message-id:");
        text.lines().find(is_id).map(str::to_owned)
    };
    entries
        .filter_map(|entry| id(&String::from_utf8_lossy(&fs::read(entry.path()).ok()?)))
        .collect()
}

#[test]
fn kills_under_smtp_source_lose_none() {
    let rounds = if crate::crash::long() { 150 } else { 4 };
    let folder = Folder::new("source-sink");
    let maildir = folder.path("maildir");
    let (_sink, backend) = sink(&maildir, "127.0.0.1:0", &[]);
    let mut setup = Setup::new(backend);
    setup.retry = "first_s = 0.2\nfactor = 1.0\nmax_s = 0.2\nexpire_s = 3600\n".to_owned();
    let mut daemon = Daemon::start("source", setup);
    let mut acked = 0;
    for round in 0..rounds {
        let told = folder.path(&format!("counted-{round}"));
        let mut source = tool(Tool::SmtpSource, &folder.0)
            .args(["-c", "-m", "20000", "-s", "40", "-l", "4000"])
            .args(["-f", "a@here.test", "-t", "b@example.org"])
            .arg(daemon.address.to_string())
            .stdout(File::create(&told).expect("a file of ours"))
            .stderr(File::create(folder.path("said")).expect("a file of ours"))
            .spawn()
            .expect("a shell");
        // At another place of the stream each time.
        let at = 300 + round * 37 % 500;
        while counted(&told) < at {
            let ended = source.try_wait().expect("a child of ours");
            let said = fs::read_to_string(folder.path("said")).unwrap_or_default();
            assert!(ended.is_none(), "it ended after {}: {said}", counted(&told));
            std::thread::yield_now();
        }
        daemon.kill();
        source.wait().expect("it ends");
        acked += counted(&told);
        daemon.start_again();
    }
    daemon.until_empty();
    let arrived = arrived(&maildir).len();
    println!("{rounds} kills: {acked} acknowledged, {arrived} arrived");
    assert!(acked >= 300 * rounds, "only {acked} acknowledged");
    assert!(arrived >= acked, "{acked} acknowledged, {arrived} arrived");
    assert!(daemon.stop().success());
}
