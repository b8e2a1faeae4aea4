//! `ringpost upgrade` over the admin socket: what the machine's init is asked, and what the
//! operator hears. The real init takes it in `image::upgrade`.

use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Output;
use std::thread;

use super::backend::Backend;
use super::programs::{Daemon, Folder, Setup};

const PLACE: &str = "http://192.0.2.80/ringpost-1.1.0.manifest";

/// The next question the daemon has, and who asks.
fn question(init: &UnixDatagram) -> (String, SocketAddr) {
    let mut octets = [0; 4096];
    loop {
        let (got, from) = init.recv_from(&mut octets).expect("a word");
        let text = String::from_utf8_lossy(&octets[..got]).into_owned();
        if text.starts_with("X_RINGPOST_UPGRADE=") {
            return (text, from);
        }
    }
}

/// Asks with these words; init says these things one after the other.
fn asked(daemon: &Daemon, init: &UnixDatagram, words: &[&str], says: &[&str]) -> (String, Output) {
    thread::scope(|scope| {
        let tool = scope.spawn(|| daemon.tool(&[&["upgrade"], words].concat()));
        let (text, from) = question(init);
        for word in says {
            init.send_to_addr(word.as_bytes(), &from).expect("the daemon listens");
        }
        (text, tool.join().expect("the tool ran"))
    })
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn the_socket_passes_an_upgrade_to_init_and_says_what_came_of_it() {
    let folder = Folder::new("upgrade-init");
    let path = folder.path("notify");
    let init = UnixDatagram::bind(&path).expect("a free name");
    let mut setup = Setup::new(Backend::nowhere());
    setup.environment = vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())];
    let mut daemon = Daemon::start("upgraded", setup);

    let why = "the signature is not of our key";
    let (question, output) =
        asked(&daemon, &init, &[PLACE], &["taken", &format!("refused {why}\n")]);
    assert_eq!(question, format!("X_RINGPOST_UPGRADE={PLACE}\n"));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(why) && said.contains("nothing was changed"), "{said}");

    let words = [PLACE, "--downgrade", "--later"];
    let (question, output) = asked(&daemon, &init, &words, &["taken", "done 0.9 is written\n"]);
    let flags = "X_RINGPOST_OPTION=--downgrade\nX_RINGPOST_OPTION=--later\n";
    assert_eq!(question, format!("X_RINGPOST_UPGRADE={PLACE}\n{flags}"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "0.9 is written\n");

    // A service manager that is not our init says nothing to it.
    let (_, output) = asked(&daemon, &init, &[PLACE], &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no init of the image"), "{said}");

    // A place of two lines would be two orders.
    let output = daemon.tool(&["upgrade", "http://192.0.2.80/x\nX_RINGPOST_OPTION=--downgrade"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));

    let audit = std::fs::read_to_string(daemon.folder.path("log/admin/audit.log"));
    let audit = audit.expect("an audit log");
    assert!(audit.contains(&format!("upgrade {PLACE} --downgrade --later")), "{audit}");
    assert!(daemon.stop().success());
}

#[test]
fn a_daemon_without_a_service_manager_refuses_an_upgrade() {
    let mut daemon = Daemon::start("upgrade-nobody", Setup::new(Backend::nowhere()));
    let output = daemon.tool(&["upgrade", PLACE]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no init of the image") && said.contains("replace the program"),
        "{said}"
    );
    assert!(daemon.stop().success());
}
