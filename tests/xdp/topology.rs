//! Real clients behind an L4 switch: packets come by its tunnel, answers go straight back.

use std::process::{Child, Command, Stdio};

use ebpf_common::entry::Action;
use ebpf_common::packet::Tunnel;
use gate::{Gate, Settings, Table};

use super::bed::{Bed, Lists, able, accept, count, run, settings};
use super::clients::{hear, in_client};

/// A switch: what its TUN device gets goes on to the server, whole, in IP or in UDP.
const SWITCH: &str = r#"
import fcntl, os, socket, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH22x", b"switch", 0x1001))
gue = sys.argv[1] == "gue"
kind, number = (socket.SOCK_DGRAM, 0) if gue else (socket.SOCK_RAW, 4)
out = socket.socket(socket.AF_INET, kind, number)
head = bytes([0, 4, 0, 0]) if gue else b""
print("READY", flush=True)
while True:
    packet = os.read(tun, 2000)
    if packet[0] >> 4 == 4:
        out.sendto(head + packet, ("10.77.0.1", 6080 if gue else 0))
"#;

struct Switch(Child);

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Switch {
    fn start(bed: &Bed, how: &str) -> Self {
        let client = &bed.names.client;
        run(&format!("ip -n {} addr add 10.99.0.1/32 dev lo", bed.names.server));
        run(&format!("ip -n {client} tuntap add dev switch mode tun"));
        run(&format!("ip -n {client} link set switch up"));
        run(&format!("ip -n {client} route add 10.99.0.1/32 dev switch src 10.77.0.2"));
        // The answer comes by another interface than the one the question left by.
        for name in ["all", "rp1", "switch"] {
            let set = format!("net.ipv4.conf.{name}.rp_filter=0");
            run(&format!("ip netns exec {client} sysctl -q -w {set}"));
        }
        let mut child = Command::new("ip")
            .args(["netns", "exec", client, "python3", "-c", SWITCH, how])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let ready = crate::daemon::programs::ready(&mut child, "READY");
        assert!(ready.is_some(), "the switch has its device");
        Self(child)
    }
}

fn behind(how: &str, tunnel: Tunnel) {
    let bed = Bed::new();
    let _switch = Switch::start(&bed, how);
    let mut gate = Gate::load(None).expect("loaded");
    Lists::default().add(Table::Hosts4, "10.77.0.2/32", Action::Answer).swap(&mut gate);
    let ends = vec!["10.77.0.1".parse().expect("an address")];
    let settings = Settings { tunnel, ends, ..settings(&["rp0"], Action::Answer) };
    gate.attach(&settings).expect("attached");
    accept(&gate, 3600);
    let whole = in_client(&bed, || {
        (0..200)
            .filter(|n| {
                let line = hear("10.99.0.1", n % 2 == 0).expect("answered");
                line.starts_with("554 5.7.1 [10.77.0.2] ") && line.ends_with("(id 1234ABCD)\r\n")
            })
            .count()
    });
    assert_eq!(whole, 200);
    assert!(count(&gate, "answered") >= 200 && count(&gate, "no_way") == 0);
}

#[test]
fn clients_behind_an_ipip_tunnel_read_the_whole_line() {
    if able() {
        behind("ipip", Tunnel::Ipip);
    }
}

#[test]
fn clients_behind_a_gue_tunnel_read_the_whole_line() {
    if able() {
        behind("gue", Tunnel::Gue(6080));
    }
}
