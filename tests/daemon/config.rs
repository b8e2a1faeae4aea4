//! The config file as an operator meets it: what is wrong and where, reload, the example.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use super::backend::{Backend, Manners};
use super::client::Client;
use super::programs::{self, Daemon, Folder, Running, Setup, check};

const GOOD: &str = "[node]\nhostname = \"mx.example.org\"\n\
                    [[listener]]\naddress = \"127.0.0.1\"\nport = 2525\ntls = \"none\"\n\
                    [policy]\nrelay_domains = [\"example.org\"]\nany_recipient = true\n\
                    [[route]]\ndomains = [\"*\"]\nhosts = [{ host = \"127.0.0.1\", port = 2600 }]\n\
                    [spool]\nplaces = [\"var/spool\"]\n";

#[test]
fn a_good_config_is_called_good_and_starts_nothing() {
    let folder = Folder::new("check");
    let (good, said) = check(&folder, GOOD);
    assert!(good && said.contains("good"), "{said}");
    let left: Vec<_> = fs::read_dir(&folder.0).expect("there").flatten().collect();
    assert_eq!(left.len(), 1, "only the config itself: {left:?}");
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_to_write() {
    let folder = Folder::new("check-wrong");
    let wrong = [
        // An unknown key: which one was meant.
        (GOOD.replace("hostname", "hostnam"), ":2:1: ", "hostname"),
        (GOOD.replace("[spool]", "[spol]"), "13:", "spool"),
        // The wrong kind, a value out of bounds, a word that is none.
        (GOOD.replace("port = 2525", "port = \"smtp\""), ":5:", "number"),
        (GOOD.replace("port = 2525", "port = 65536"), ":5:", "65535"),
        (GOOD.replace("\"none\"", "\"perhaps\""), ":6:", "starttls"),
        // A key that must be there.
        (GOOD.replace("hostname = \"mx.example.org\"\n", ""), ":1:", "hostname"),
        // What contradicts.
        (
            GOOD.replace("any_recipient = true", "any_recipient = true\nrecipients_file = \"x\""),
            ":9:",
            "recipients_file",
        ),
        (GOOD.replace("tls = \"none\"", "tls = \"starttls\""), ":6:", "certificate"),
        // No TOML.
        (GOOD.replace("[node]", "[node"), ":1:", ""),
    ];
    for (text, place, word) in &wrong {
        let (good, said) = check(&folder, text);
        assert!(!good, "accepted:\n{text}");
        assert!(said.contains("checked.toml"), "{said}");
        assert!(said.contains(place), "wanted {place}: {said}\n{text}");
        assert!(said.contains(word), "wanted {word}: {said}");
    }
    // All that is wrong in one go.
    let (_, said) = check(&folder, &GOOD.replace("port = 2525", "prot = 1").replace("2600", "0"));
    assert!(said.lines().count() >= 2, "{said}");
}

#[test]
fn a_broken_config_does_not_start() {
    let folder = Folder::new("broken");
    fs::write(folder.path("mx.toml"), GOOD.replace("hostname", "hostnam")).expect("written");
    let output = Command::new(programs::program("ringpostd"))
        .arg("--config")
        .arg(folder.path("mx.toml"))
        .current_dir(&folder.0)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("mx.toml:2:1: "), "{said}");
    assert!(!folder.path("var").exists());
}

#[test]
fn a_reload_takes_all_or_nothing() {
    let backend = Backend::start(Manners::default());
    let folder = Folder::new("reload");
    let file = folder.path("recipients");
    fs::write(&file, "ann@example.org\n").expect("written");
    let policy =
        format!("relay_domains = [\"example.org\"]\nrecipients_file = \"{}\"\n", file.display());
    let setup = Setup { policy: policy.clone(), ..Setup::new(backend.address) };
    let mut daemon = Daemon::start_in(folder, setup);
    let mut before = Client::greeted(daemon.address);
    let rcpt = |client: &mut Client, to: &str| {
        client.expect("MAIL FROM:<a@example.net>", "250");
        let reply = client.say(&format!("RCPT TO:<{to}@example.org>"));
        client.expect("RSET", "250");
        reply[..3].to_owned()
    };
    let known = |daemon: &Daemon, to: &str| {
        let mut client = Client::greeted(daemon.address);
        rcpt(&mut client, to)
    };
    assert_eq!((&*known(&daemon, "ann"), &*known(&daemon, "bob")), ("250", "550"));
    // Another list.
    fs::write(&file, "bob@example.org\n").expect("written");
    let said = daemon.reload();
    assert!(!said.contains("refused"), "{said}");
    daemon.until("the new list on both cores", |daemon| {
        (0..8).all(|_| known(daemon, "bob") == "250" && known(daemon, "ann") == "550")
    });
    assert_eq!((&*rcpt(&mut before, "ann"), &*rcpt(&mut before, "bob")), ("550", "250"));
    // A broken config with another list: nothing of it counts.
    fs::write(&file, "carol@example.org\n").expect("written");
    daemon.set(|setup| setup.limits = "conections_max = 3\n".to_owned());
    let said = daemon.reload();
    assert!(said.contains("refused"), "{said}");
    daemon.line_with(&["conections_max"]);
    for _ in 0..4 {
        assert_eq!((&*known(&daemon, "bob"), &*known(&daemon, "carol")), ("250", "550"));
    }
    // A list that cannot be read: the same.
    daemon.set(|setup| {
        setup.limits = String::new();
        setup.policy = policy.replace("recipients\"", "gone\"");
    });
    let said = daemon.reload();
    assert!(said.contains("refused"), "{said}");
    assert_eq!(known(&daemon, "bob"), "250");
    // What counts at start only is named.
    daemon.set(|setup| {
        setup.policy = policy.clone();
        setup.segments = 9;
    });
    let output = daemon.tool(&["reload"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("spool"), "{said}");
    // Its line may come later than the answer, and is not that of the next reload.
    daemon.line_with(&["reload_refused", "restart for it: spool"]);
    // Mended, it is taken.
    daemon.set(|setup| setup.segments = 8);
    let said = daemon.reload();
    assert!(!said.contains("refused"), "{said}");
    daemon.until("the mended config", |daemon| {
        (0..8).all(|_| known(daemon, "carol") == "250" && known(daemon, "bob") == "550")
    });
    assert!(daemon.stop().success());
}

#[test]
fn a_reload_changes_routes_and_retry() {
    let (one, two) = (Backend::start(Manners::default()), Backend::start(Manners::default()));
    let mut daemon = Daemon::start("reload-route", Setup::new(one.address));
    let send = |daemon: &Daemon| {
        Client::greeted(daemon.address).deliver("a@example.net", &["b@example.org"], "A: b\r\n\r\n")
    };
    send(&daemon);
    one.wait_for(1);
    daemon.set(|setup| setup.backend = two.address);
    daemon.reload();
    daemon.until("mail at the other backend", |daemon| {
        send(daemon);
        daemon.ledger();
        two.count() > 3
    });
    daemon.until_empty();
    assert!(daemon.stop().success());
}

/// The example of docs/, with the kernel's choice of ports and nothing else changed.
#[test]
fn the_example_runs_as_an_ordinary_user() {
    let backend = Backend::start(Manners::default());
    let folder = Folder::new("example");
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tree");
    let text = fs::read_to_string(top.join("docs/examples/mx.toml")).expect("the example");
    let ports = [
        ("port = 2525".to_owned(), "port = 0".to_owned()),
        ("port = 2600".to_owned(), format!("port = {}", backend.address.port())),
        ("listen = \"127.0.0.1:2580\"".to_owned(), "listen = \"127.0.0.1:0\"".to_owned()),
    ];
    let mut changed = text.clone();
    for (from, to) in &ports {
        assert!(changed.contains(from), "{from} is not in the example");
        changed = changed.replacen(from, to, 1);
    }
    fs::write(folder.path("mx.toml"), &changed).expect("written");
    // The user may not be able to look into the folder the programs were built in.
    fs::copy(programs::program("ringpostd"), folder.path("ringpostd")).expect("copied");
    let mut command = Command::new(folder.path("ringpostd"));
    command.args(["--config", "mx.toml"]).current_dir(&folder.0).stdout(Stdio::piped());
    if nix::unistd::geteuid().is_root() {
        const NOBODY: u32 = 65_534;
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).expect("ours");
        chown(&folder.0, Some(NOBODY), Some(NOBODY)).expect("root may");
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = command.spawn().expect("it starts");
    let ready = programs::ready(&mut child, "ready: ");
    let mut running = Running(child);
    let address = ready.expect("it is ready").parse().expect("one address");
    let mut client = Client::connect(address);
    let seen = client.starttls(
        &super::secrets::client(rustls::DEFAULT_VERSIONS, super::secrets::Can::All),
        "mx.example.org",
    );
    assert!(!seen.certificate.is_empty());
    client.expect("MAIL FROM:<a@example.net>", "250");
    client.expect("RCPT TO:<a@other.example>", "550 5.7.1");
    client.expect("RSET", "250");
    client.deliver("a@example.net", &["anybody@example.org"], "Subject: x\r\n\r\nx\r\n");
    backend.wait_for(1);
    for name in ["spool", "hints", "log/mainlog", "admin.sock", "tls/mx.example.org.crt"] {
        assert!(folder.path("var").join(name).exists(), "var/{name} is not there");
    }
    client.expect("QUIT", "221");
    assert!(running.stop().success());
}
