//! What the machine does for the daemon besides starting it: the time, the filter in the network
//! card's driver, bounds and a sandbox.

use std::net::UdpSocket;
use std::time::{SystemTime, UNIX_EPOCH};

use super::guest::{Guest, Start};
use super::stage;
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::Folder;

/// How often something is asked for that is not there yet: a limit of the tests, no verdict.
const ASKS_MAX: u32 = 600;

fn ask(guest: &mut Guest, words: &str) -> (String, bool) {
    guest.shell(&format!("ringpost --socket /run/ringpost/admin.sock {words}"))
}

/// Asks once a second until the answer is as it should be.
fn until(guest: &mut Guest, words: &str, holds: impl Fn(&str) -> bool) -> String {
    for _ in 0..ASKS_MAX {
        let (said, _) = ask(guest, words);
        if holds(&said) {
            return said;
        }
        guest.shell("sleep 1");
    }
    panic!("a limit of the tests, no verdict: {words} was asked for {ASKS_MAX} times");
}

/// Seconds from 1900 to 1970.
const EPOCH_S: u64 = 2_208_988_800;

/// A server that knows the time of this machine, until the test's process ends; its port.
fn time_server() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = socket.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let mut question = [0; 48];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            let seconds = u32::try_from(now.as_secs() + EPOCH_S).expect("before 2036");
            let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
            let mut answer = [0; 48];
            // Version 4, a server of stratum 2.
            (answer[0], answer[1]) = ((4 << 3) | 4, 2);
            answer[24..32].copy_from_slice(&question[40..48]);
            for at in [32, 40] {
                answer[at..at + 4].copy_from_slice(&seconds.to_be_bytes());
                let fraction = u32::try_from(fraction).expect("below one second");
                answer[at + 4..at + 8].copy_from_slice(&fraction.to_be_bytes());
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    port
}

#[test]
fn a_clock_that_is_years_off_is_doubted_and_then_set_by_ntp() {
    let folder = Folder::new("machine-clock");
    let backend = Backend::start(Manners::default());
    let [mail, (name, machine)] = stage::config(backend.address);
    let ntp = format!("ntp = [\"10.0.2.2:{}\"]\n{machine}", time_server());
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (name, &machine)]);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    let text = "Subject: one\r\n\r\nwith the right time\r\n";
    Client::greeted(guest.mail).deliver("a@example.net", &["b@example.org"], text);
    backend.wait_for(1);
    guest.power_off();
    // 73 years later by its own clock, and nobody to ask.
    let rtc = ["-rtc", "base=2099-01-01T00:00:00"].map(str::to_owned);
    let mut guest = Guest::start(&folder, &disk, Start::Debug, &rtc);
    guest.wait_for("taking mail");
    let (said, _) = ask(&mut guest, "status");
    assert!(said.contains("clock is in doubt"), "{said}");
    guest.power_off();
    // The same with somebody to ask.
    stage::inject(&folder, &disk, &[(name, &ntp)]);
    let mut guest = Guest::start(&folder, &disk, Start::Debug, &rtc);
    guest.wait_for("taking mail");
    // Before the daemon is ready or after it.
    if !guest.said().contains("clock: set by -") {
        guest.wait_for("clock: set by -");
    }
    // The daemon looks at the clock by itself.
    until(&mut guest, "status", |said| !said.contains("clock is in doubt"));
    let (said, fine) = guest.shell("date +year=%Y");
    assert!(fine && !said.contains("year=2099"), "{said}");
    guest.power_off();
}

#[test]
fn the_filter_is_attached_in_the_driver_and_refuses() {
    let folder = Folder::new("machine-xdp");
    let backend = Backend::start(Manners::default());
    let [(name, mail), machine] = stage::config(backend.address);
    let mail = mail + "\n[xdp]\nmode = \"drop\"\ninterfaces = [\"mail\"]\n";
    let disk = stage::disk(&folder, &[(name, &mail), (machine.0, &machine.1)]);
    let mut guest = Guest::start(&folder, &disk, Start::Debug, &[]);
    guest.wait_for("taking mail");
    // It takes mail before the filter stands.
    let said = until(&mut guest, "xdp status", |said| !said.contains("has no interfaces"));
    println!("{said}");
    assert!(said.contains("native") && !said.contains("generic"), "{said}");
    // Through the filter as if it were not there.
    let text = "Subject: one\r\n\r\nthrough the filter\r\n";
    Client::greeted(guest.mail).deliver("a@example.net", &["b@example.org"], text);
    backend.wait_for(1);
    // Listed, the same client does not reach the daemon.
    let (said, fine) = ask(&mut guest, "xdp add 10.0.2.2 --rung drop");
    assert!(fine, "{said}");
    let _never_greeted = Client::connect_silent(guest.mail);
    let dropped = |line: &str| line.starts_with("dropped") && !line.ends_with(" 0");
    let said = until(&mut guest, "xdp status", |said| said.lines().any(dropped));
    println!("{said}");
    guest.power_off();
}

#[test]
fn services_live_within_bounds_and_the_daemon_in_its_sandbox() {
    let folder = Folder::new("machine-bounds");
    let backend = Backend::start(Manners::default());
    let [mail, machine] = stage::config(backend.address);
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let mut guest = Guest::start(&folder, &disk, Start::Debug, &[]);
    guest.wait_for("taking mail");
    // io_uring is for the daemon's group, of which there is one user.
    let (said, _) = guest.shell("cat /proc/sys/kernel/io_uring_disabled");
    assert!(said.lines().any(|line| line.trim() == "1"), "{said}");
    let (said, _) = guest.shell("cat /proc/sys/kernel/io_uring_group");
    assert!(said.lines().any(|line| line.trim() == "100"), "{said}");
    let bounds = "grep . /sys/fs/cgroup/mail/memory.max /sys/fs/cgroup/mail/pids.max";
    let (said, fine) = guest.shell(bounds);
    println!("{said}");
    let number = |file: &str| -> u64 {
        let line = said.lines().find_map(|line| line.trim().split_once(&format!("{file}:")));
        line.map_or(0, |(_, number)| number.parse().unwrap_or_default())
    };
    assert!(fine && (100 << 20..512 << 20).contains(&number("memory.max")), "{said}");
    assert_eq!(number("pids.max"), 2048, "{said}");
    // The supervisor and the mail process; the shell is in the other group.
    let (said, _) = guest.shell("grep -c . /sys/fs/cgroup/mail/cgroup.procs");
    assert!(said.lines().any(|line| line.trim() == "2"), "{said}");
    let (said, _) = guest.shell("cat /proc/self/cgroup");
    assert!(said.contains("0::/console"), "{said}");
    // The mail process gave up what it does not need; what it gave up is refused.
    let (said, _) = guest.shell("cat /state/log/mainlog");
    assert!(said.contains("sandbox: complete"), "{said}");
    let (said, _) = guest.shell("grep -l 'Seccomp:.2' /proc/[0-9]*/status | grep -c .");
    assert!(said.lines().any(|line| line.trim() == "1"), "{said}");
    let (said, fine) = guest.shell("ringpostd --sandbox /state/config/current/mx.toml");
    println!("{said}");
    assert!(fine && !said.contains("ALLOWED"), "{said}");
    assert_eq!(said.matches(": refused:").count(), 6, "{said}");
    let text = "Subject: one\r\n\r\nfrom inside\r\n";
    Client::greeted(guest.mail).deliver("a@example.net", &["b@example.org"], text);
    backend.wait_for(1);
    guest.power_off();
}

#[test]
fn a_commit_that_opens_a_relay_or_locks_the_operator_out_is_refused() {
    let folder = Folder::new("machine-against");
    let [mail, machine] = stage::config(Backend::nowhere());
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let files = folder.path("files");
    std::fs::create_dir_all(&files).expect("a folder");
    let web = stage::web(&files);
    let mut guest = Guest::start(&folder, &disk, Start::Debug, &[]);
    guest.wait_for("taking mail");
    let open = "[policy]\nrelay_networks = [\"11.0.0.0/8\"]";
    for (text, why) in [
        (mail.1.replace("[policy]", open), "would open a relay"),
        (mail.1.replace("admin.sock", "other.sock"), "could not reach the daemon"),
    ] {
        assert_ne!(text, mail.1);
        std::fs::write(files.join("mx.toml"), text).expect("written");
        let place = format!("http://10.0.2.2:{}/mx.toml", web.port());
        let (said, fine) = guest.shell(&format!("ringpost config commit {place}"));
        assert!(!fine && said.contains(why), "{why}: {said}");
    }
    let (said, _) = guest.shell("ringpost config history");
    assert!(said.contains("1 in force") && !said.contains("\n2"), "{said}");
    let said = guest.power_off();
    assert!(!said.contains("is in force\n"), "something was put in force:\n{said}");
}
