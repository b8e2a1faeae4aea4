//! Clocks that lie: libfaketime in front of the wall clock, the monotonic one left alone.

use std::path::PathBuf;

use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Setup};

/// Debian's libfaketime.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let mut found = folders.map(|e| e.path().join("faketime/libfaketime.so.1"));
    found.find(|path| path.exists()).expect("install Debian's package faketime, or run ./x test")
}

/// From now on the daemon lives at this time.
pub(crate) fn live_at(daemon: &mut Daemon, time: Option<&str>) {
    daemon.set(|setup| {
        setup.environment = time.map_or_else(Vec::new, |time| {
            vec![
                ("LD_PRELOAD".into(), library().display().to_string()),
                ("FAKETIME".into(), format!("@{time}")),
                ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
                ("DONT_FAKE_MONOTONIC".into(), "1".into()),
            ]
        });
    });
}

/// Mail taken at one time is neither lost nor returned when the daemon wakes up at another.
fn wakes_up_at(first: Option<&str>, second: Option<&str>, years: [&str; 2]) {
    let address = Backend::nowhere();
    let mut setup = Setup::new(address);
    setup.retry = "first_s = 0.3\nfactor = 1.0\nmax_s = 0.3\nexpire_s = 3600\n\
                   delay_warning_s = 1800\n"
        .to_owned();
    let folder = crate::daemon::programs::Folder::new("clock");
    let mut daemon = {
        let mut setup = setup.clone();
        if let Some(first) = first {
            setup.environment = vec![
                ("LD_PRELOAD".into(), library().display().to_string()),
                ("FAKETIME".into(), format!("@{first}")),
                ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
                ("DONT_FAKE_MONOTONIC".into(), "1".into()),
            ];
        }
        Daemon::start_in(folder, setup)
    };
    let mut client = Client::greeted(daemon.address);
    let id = client.deliver("a@example.net", &["b@example.org"], "Subject: x\r\n\r\n");
    let line = daemon.line_with(&[&id, "<="]);
    assert!(line.starts_with(years[0]), "{line}");
    daemon.line_with(&[&id, "=="]);
    daemon.kill();
    live_at(&mut daemon, second);
    daemon.start_again();
    let tried = |daemon: &Daemon| {
        let log = daemon.log();
        let lines = log.lines().filter(|l| l.starts_with(years[1]) && l.contains(" == "));
        lines.filter(|l| l.contains(&id)).count()
    };
    daemon.until("two more attempts", |daemon| tried(daemon) >= 2);
    assert!(!daemon.log().contains(" ** "), "{}", daemon.log());
    assert_eq!(daemon.ledger().generated, 0, "{}", daemon.log());
    // Nothing is final until time is confirmed: said once, as an alarm, and in the status.
    daemon.line_with(&["ALARM", "clock"]);
    assert_eq!(daemon.ask(&["status"])["clock_trusted"], false);
    // New mail is taken and goes out at once.
    let backend = Backend::start_at(address, Manners::default());
    let mut client = Client::greeted(daemon.address);
    let new = client.deliver("a@example.net", &["c@example.org"], "Subject: y\r\n\r\n");
    backend.wait_for(2);
    daemon.line_with(&[&id, "=>"]);
    daemon.line_with(&[&new, "=>"]);
    daemon.until_empty();
    let ledger = daemon.ledger();
    assert_eq!((ledger.delivered, ledger.bounced, ledger.generated), (2, 0, 0));
    assert!(daemon.stop().success());
}

#[test]
fn nothing_expires_when_the_clock_jumps_to_2099() {
    wakes_up_at(None, Some("2099-06-01 12:00:00"), ["20", "2099-"]);
}

#[test]
fn nothing_expires_when_the_clock_falls_to_1970() {
    wakes_up_at(None, Some("1970-01-02 12:00:00"), ["20", "1970-"]);
}

#[test]
fn mail_of_1970_does_not_expire_in_our_time() {
    wakes_up_at(Some("1970-01-02 12:00:00"), None, ["1970-", "20"]);
}

#[test]
fn mail_of_2099_goes_out_in_our_time() {
    wakes_up_at(Some("2099-06-01 12:00:00"), None, ["2099-", "20"]);
}
