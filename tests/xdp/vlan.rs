//! A real client on a tagged segment. A relay in the client's namespace puts the tag on and takes
//! it off, since the kernel under test may have no VLAN interfaces.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ebpf_common::entry::Action;
use gate::{Gate, Table, Way};

use super::bed::{Bed, Lists, able, accept, count, enter, run, settings};

/// Frames of tap0 leave rp1 with tag 10; what comes in with tag 10 goes to tap0.
const RELAY: &str = r#"
import fcntl, os, select, socket, struct, subprocess
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack("16sH22x", b"tap0", 0x1002))
for line in ("link set tap0 address 02:00:00:00:00:aa up", "addr add 10.78.0.2/24 dev tap0"):
    subprocess.run(["ip"] + line.split(), check=True)
trunk = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
trunk.bind(("rp1", 0))
trunk.setsockopt(263, 8, 1)
print("READY", flush=True)
while True:
    for ready in select.select([tap, trunk], [], [])[0]:
        if ready == tap:
            frame = os.read(tap, 4096)
            trunk.send(frame[:12] + b"\x81\x00\x00\x0a" + frame[12:])
            continue
        frame, beside, _, _ = trunk.recvmsg(4096, 256)
        for _, _, data in beside:
            status, tag = struct.unpack("I12xH", data[:18])
            if status & 16 and tag == 10 and frame[:6] == b"\x02\0\0\0\0\xaa":
                os.write(tap, frame)
"#;

/// A process that ends with the test, however that ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_client_on_a_tagged_segment_reads_the_whole_line() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let (server, client) = (&bed.names.server, &bed.names.client);
    let mut relay = Command::new("ip")
        .args(["netns", "exec", client, "python3", "-c", RELAY])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let said = relay.stdout.take().expect("piped");
    let _relay = Killed(relay);
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line).expect("readable");
    assert_eq!(line.trim(), "READY");
    let shown = run(&format!("ip -n {server} link show rp0"));
    let mac = shown.split("link/ether ").nth(1).and_then(|s| s.split(' ').next()).expect("a MAC");
    run(&format!("ip -n {client} neigh replace 10.78.0.1 lladdr {mac} dev tap0"));
    run(&format!("ip -n {server} addr add 10.78.0.1/24 dev rp0"));
    run(&format!("ip -n {server} neigh replace 10.78.0.2 lladdr 02:00:00:00:00:aa dev rp0"));
    let mut gate = Gate::load(None).expect("loaded");
    let mut with = settings(&["rp0"], Action::Answer);
    with.ways = vec![Way { interface: "rp0".into(), vlan: Some(10), out: "rp0".into() }];
    gate.attach(&with).expect("attached");
    accept(&gate, 3600);
    Lists::default().add(Table::Hosts4, "10.78.0.2/32", Action::Answer).swap(&mut gate);
    let whole = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(client);
            let hear = || -> std::io::Result<String> {
                let server = "10.78.0.1:25".parse().expect("an address");
                let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(30))?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                let mut text = String::new();
                stream.read_to_string(&mut text)?;
                Ok(text)
            };
            (0..200)
                .map(|_| hear().expect("answered"))
                .filter(|l| l.starts_with("554 5.7.1 [10.78.0.2]") && l.ends_with("ABCD)\r\n"))
                .count()
        });
        thread.join().expect("ended")
    });
    assert_eq!(whole, 200);
    assert_eq!((count(&gate, "tag_refused"), count(&gate, "no_way")), (0, 0));
    assert!(count(&gate, "finished") >= 190, "the clients' ends are acknowledged");
}
