//! What the machine does for the daemon besides starting it: the operator's line.

use super::guest::{Guest, Start};
use super::stage;
use crate::daemon::backend::Backend;
use crate::daemon::programs::Folder;

#[test]
fn the_release_image_has_the_operators_line_on_its_serial_port() {
    let folder = Folder::new("machine-line");
    let [mail, machine] = stage::config(Backend::nowhere());
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    guest.press("menu\r");
    guest.wait_for("queue summary");
    // It ends, and is there again.
    guest.press("quit\r");
    guest.wait_for("console ended: exit code 0");
    guest.press("menu\r");
    guest.wait_for("queue summary");
    guest.power_off();
}
