//! The config while the machine runs: generations, undone by themselves and by word.

use super::guest::{Guest, Start};
use super::stage;
use crate::daemon::backend::Backend;
use crate::daemon::client::Client;
use crate::daemon::programs::Folder;

/// The name in the greeting of the daemon.
fn greeting(guest: &Guest) -> String {
    Client::connect_silent(guest.mail).reply()
}

#[test]
fn a_commit_is_kept_undone_or_rolled_back() {
    let folder = Folder::new("config");
    let [mail, machine] = stage::config(Backend::nowhere());
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let files = folder.path("files");
    std::fs::create_dir_all(&files).expect("a folder");
    let web = stage::web(&files);
    let offer = |name: &str, text: &str| {
        std::fs::write(files.join(name), text).expect("written");
        format!("http://10.0.2.2:{}/{name}", web.port())
    };
    let named = |name: &str| {
        mail.1.replace("hostname = \"mx.example.org\"", &format!("hostname = \"{name}\""))
    };
    let mut guest = Guest::start(&folder, &disk, Start::Debug, &[]);
    guest.wait_for("taking mail");
    assert!(greeting(&guest).contains("mx.example.org"));
    // QEMU's router advertises; addresses are the operator's all the same.
    let (said, _) = guest.shell("ip addr show mail");
    assert!(said.contains("10.0.2.15/24") && !said.contains("dynamic"), "{said}");

    // What is not good changes nothing.
    let place = offer("mx.toml", &format!("{}\ncolour = 1\n", mail.1));
    let (said, fine) = guest.shell(&format!("ringpost config commit {place}"));
    assert!(!fine && said.contains("colour"), "{said}");

    // Kept at once.
    let place = offer("mx.toml", &named("two.example.org"));
    assert!(guest.shell(&format!("ringpost config commit {place}")).1);
    guest.wait_for("config: /state/config/2 is in force");
    guest.wait_for("taking mail");
    assert!(greeting(&guest).contains("two.example.org"));

    // Not confirmed: it undoes itself, without a new start of the machine.
    let place = offer("mx.toml", &named("three.example.org"));
    assert!(guest.shell(&format!("ringpost config commit {place} --confirm 1")).1);
    guest.wait_for("config: /state/config/3 is in force");
    guest.wait_for("taking mail");
    assert!(greeting(&guest).contains("three.example.org"));
    guest.wait_for("config: nobody confirmed it: generation 2 is back");
    guest.wait_for("taking mail");
    assert!(greeting(&guest).contains("two.example.org"));

    // An address that locks the operator out, and comes back.
    let place = offer("machine.toml", &machine.1.replace("10.0.2.15/24", "10.0.3.15/24"));
    assert!(guest.shell(&format!("ringpost config commit {place} --confirm 1")).1);
    guest.wait_for("config: /state/config/4 is in force");
    guest.wait_for("config: nobody confirmed it: generation 2 is back");
    guest.wait_for("taking mail");
    assert!(greeting(&guest).contains("two.example.org"));

    // By word; and the seed, which is still there, does not bring it back.
    assert!(guest.shell("ringpost config rollback 1").1);
    guest.wait_for("config: /state/config/1 is in force");
    guest.wait_for("taking mail");
    assert!(guest.shell("ringpost config history").0.contains("1 in force"));
    assert!(guest.shell("ringpost config rollback 3").1);
    guest.wait_for("config: /state/config/3 is in force");
    guest.wait_for("taking mail");
    guest.power_off();
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    assert!(greeting(&guest).contains("three.example.org"));
    guest.power_off();
}
