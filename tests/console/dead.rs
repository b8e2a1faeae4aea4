//! What can be done about the hints when no daemon runs: its file answers.

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use super::{text, whole};
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Setup};

/// A hint without its ages.
fn still(hint: &Value) -> (Value, Value, Value, Value) {
    let field = |name: &str| hint[name].clone();
    (field("kind"), field("key"), field("fields"), field("text"))
}

/// One route that works, one that leads nowhere.
fn setup(backend: SocketAddr) -> Setup {
    let nowhere = Backend::nowhere();
    let mut setup = Setup::new(backend);
    setup.policy =
        "relay_domains = [\"example.org\", \"stuck.example\"]\nany_recipient = true\n".to_owned();
    let route = |domain: &str, at: SocketAddr| {
        let (host, port) = (at.ip(), at.port());
        let hosts = format!("hosts = [{{ host = \"{host}\", port = {port} }}]\n");
        format!("[[route]]\ndomains = [\"{domain}\"]\n{hosts}")
    };
    let routes = [route("example.org", backend), route("stuck.example", nowhere)];
    setup.routes = Some(routes.concat());
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    setup
}

#[test]
fn the_hints_of_a_dead_daemon_are_read_and_forgotten() {
    let backend = Backend::start(Manners { offers: vec!["SIZE 4321"], ..Manners::default() });
    let mut daemon = Daemon::start("dead-hints", setup(backend.address));
    let mut client = Client::greeted(daemon.address);
    client.deliver("sender@example.net", &["a@stuck.example"], "Subject: x\r\n\r\nbody\r\n");
    drop(client);
    daemon.line_with(&[" == "]);
    let key = backend.address.to_string();
    daemon.until("the probe", |daemon| {
        daemon.ask(&["hints", "list", "--kind", "offers"]).to_string().contains(&key)
    });
    let file = daemon.folder.path("hints").display().to_string();
    let held = daemon.tool(&["hints", "list", "--file", &file]);
    assert_eq!(held.status.code(), Some(1), "{}", text(&held));
    assert!(whole(&held).contains("a daemon holds it"), "{}", text(&held));
    let offers = daemon.ask(&["hints", "get", "offers", &key]);
    let health = daemon.ask(&["hints", "list", "--kind", "health"]);
    assert!(health["hints"][0]["key"].is_string(), "{health}");
    daemon.kill();

    let gone = daemon.tool(&["hints", "list"]);
    assert_eq!(gone.status.code(), Some(3), "{}", text(&gone));
    assert!(whole(&gone).contains("--file FILE"), "{}", text(&gone));
    // What it knew is there, in the same form.
    assert_eq!(
        still(&daemon.ask(&["hints", "get", "offers", &key, "--file", &file])),
        still(&offers)
    );
    let list = daemon.ask(&["hints", "list", "--file", &file, "--kind", "health"]);
    let of = |list: &Value| list["hints"].as_array().expect("a list").iter().map(still).collect();
    let (now, before): (Vec<_>, Vec<_>) = (of(&list), of(&health));
    assert_eq!(now, before);
    assert!(whole(&daemon.tool(&["hints", "list", "--all", "--file", &file])).contains(&key));
    let before = fs::read(&file).expect("there");
    let dump = daemon.folder.path("dump.json").display().to_string();
    let said = daemon.tool(&["hints", "dump", &dump, "--file", &file]);
    assert!(said.status.success(), "{}", text(&said));
    assert!(fs::read_to_string(&dump).expect("written").contains(&key));
    assert!(before == fs::read(&file).expect("there"), "looking changes nothing");
    assert_eq!(daemon.tool(&["hints", "load", &dump]).status.code(), Some(3));

    let done = daemon.tool(&["hints", "delete", "offers", &key, "--file", &file]);
    assert!(done.status.success(), "{}", text(&done));
    let again = daemon.tool(&["hints", "delete", "offers", &key, "--file", &file]);
    assert_eq!(again.status.code(), Some(5), "{}", text(&again));
    // What was lost is put back, and what was never there is set.
    let loaded = daemon.tool(&["hints", "load", &dump, "--file", &file]);
    assert!(loaded.status.success(), "{}", text(&loaded));
    assert!(whole(&loaded).contains("put back"), "{}", text(&loaded));
    assert_eq!(
        still(&daemon.ask(&["hints", "get", "offers", &key, "--file", &file])),
        still(&offers)
    );
    let set = ["hints", "set", "retry", "set.example", "tries=7", "--file", &file];
    let set = daemon.tool(&set);
    assert!(set.status.success() && whole(&set).contains("tries 7"), "{}", text(&set));
    let wrong = daemon.tool(&["hints", "set", "retry", "set.example", "no=7", "--file", &file]);
    assert!(whole(&wrong).contains("the fields are"), "{}", text(&wrong));
    let rate = daemon.tool(&["hints", "set", "rate-mail", "x", "a=1", "--file", &file]);
    assert!(whole(&rate).contains("only deleted"), "{}", text(&rate));
    let tidied = daemon.tool(&["hints", "tidy", "--file", &file]);
    assert!(whole(&tidied).contains("had expired"), "{}", text(&tidied));
    let audit = fs::read_to_string(daemon.folder.path("state/audit.log")).expect("kept");
    for part in [
        format!("act: --socket {}", daemon.folder.path("admin.sock").display()),
        format!("hints delete offers {key} --file {file}"),
        "uid=".to_owned(),
    ] {
        assert!(audit.contains(&part), "{part}: {audit}");
    }
    // The daemon takes the file as it is now, with all that was not touched.
    daemon.start_again();
    daemon.line_with(&["hints: kept"]);
    let health = daemon.ask(&["hints", "list", "--kind", "health"]);
    assert_eq!(of(&health).len(), now.len(), "{health}");
    let set = whole(&daemon.tool(&["hints", "get", "retry", "set.example"]));
    assert!(set.contains("tries 7"), "{set}");
    assert_eq!(still(&daemon.ask(&["hints", "get", "offers", &key])), still(&offers));
    assert!(daemon.stop().success());
}

#[test]
fn what_is_no_file_of_hints_is_named_and_not_touched() {
    let folder = crate::daemon::programs::Folder::new("dead-wrong");
    let program = crate::daemon::programs::program("ringpost");
    let file = folder.path("hints");
    let list = |content: &[u8]| {
        fs::write(&file, content).expect("written");
        let mut command = std::process::Command::new(&program);
        command.args(["hints", "list", "--file"]).arg(&file);
        let output = command.output().expect("it runs");
        assert_eq!(fs::read(&file).expect("there"), content);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        whole(&output)
    };
    assert!(list(b"").contains("are possible"));
    assert!(list(&[0; 1 << 20]).contains("nothing to read"));
    assert!(list(&[7; 1 << 20]).contains("nothing to read"));
    assert!(list(b"[node]\n").contains("[hints] file"));
}
