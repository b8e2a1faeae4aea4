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
gue, end = sys.argv[1] == "gue", sys.argv[2]
family = socket.AF_INET6 if ":" in end else socket.AF_INET
outs = {}
for version, number in ((4, 4), (6, 41)):
    out = socket.socket(family, *((socket.SOCK_DGRAM, 0) if gue else (socket.SOCK_RAW, number)))
    outs[version] = (out, bytes([0, number, 0, 0]) if gue else b"")
print("READY", flush=True)
while True:
    packet = os.read(tun, 2000)
    out, head = outs[packet[0] >> 4]
    # The kernel of the switch has words of its own to say on a new interface.
    if packet[0] >> 4 == 4 or packet[6] == 6:
        out.sendto(head + packet, (end, 6080 if gue else 0))
"#;

struct Switch(Child);

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Switch {
    /// In front of 10.99.0.1 and fd99::1; `end` is where its tunnel leads.
    fn start(bed: &Bed, how: &str, end: &str) -> Self {
        let client = &bed.names.client;
        run(&format!("ip -n {} addr add 10.99.0.1/32 dev lo", bed.names.server));
        run(&format!("ip -n {} addr add fd99::1/128 dev lo nodad", bed.names.server));
        run(&format!("ip -n {client} tuntap add dev switch mode tun"));
        run(&format!("ip -n {client} link set switch up"));
        run(&format!("ip -n {client} route add 10.99.0.1/32 dev switch src 10.77.0.2"));
        run(&format!("ip -n {client} route add fd99::1/128 dev switch src fd77::2"));
        // The answer comes by another interface than the one the question left by.
        for name in ["all", "rp1", "switch"] {
            let set = format!("net.ipv4.conf.{name}.rp_filter=0");
            run(&format!("ip netns exec {client} sysctl -q -w {set}"));
        }
        let mut child = Command::new("ip")
            .args(["netns", "exec", client, "python3", "-c", SWITCH, how, end])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let ready = crate::daemon::programs::ready(&mut child, "READY");
        assert!(ready.is_some(), "the switch has its device");
        Self(child)
    }
}

/// Clients of both families behind a switch whose tunnel is of this one.
fn behind(how: &str, tunnel: Tunnel, end: &str) {
    let bed = Bed::new();
    let _switch = Switch::start(&bed, how, end);
    let mut gate = Gate::load(None).expect("loaded");
    Lists::default()
        .add(Table::Hosts4, "10.77.0.2/32", Action::Answer)
        .add(Table::Hosts6, "fd77::/64", Action::Answer)
        .swap(&mut gate);
    let ends = vec![end.parse().expect("an address")];
    let settings = Settings { tunnel, ends, ..settings(&["rp0"], Action::Answer) };
    gate.attach(&settings).expect("attached");
    accept(&gate, 3600);
    for (server, client) in
        [("10.99.0.1", "10.77.0.2"), ("fd99::1", "fd77:0000:0000:0000:0000:0000:0000:0002")]
    {
        let whole = in_client(&bed, || {
            (0..200)
                .filter(|n| {
                    let line = hear(server, n % 2 == 0).expect("answered");
                    line.starts_with(&format!("554 5.7.1 [{client}] "))
                        && line.ends_with("(id 1234ABCD)\r\n")
                })
                .count()
        });
        assert_eq!(whole, 200, "{client} by {end}");
    }
    assert!(count(&gate, "answered") >= 400 && count(&gate, "no_way") == 0);
}

#[test]
fn clients_behind_an_ipip_tunnel_read_the_whole_line() {
    if able() {
        behind("ipip", Tunnel::Ipip, "10.77.0.1");
        behind("ipip", Tunnel::Ipip, "fd77::1");
    }
}

#[test]
fn clients_behind_a_gue_tunnel_read_the_whole_line() {
    if able() {
        behind("gue", Tunnel::Gue(6080), "10.77.0.1");
        behind("gue", Tunnel::Gue(6080), "fd77::1");
    }
}
