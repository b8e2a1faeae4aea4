//! `mxbench measure` as a whole, with the sink as the server measured.

use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

/// An address nobody else has: a loopback address by our process id, and so no port of 127.0.0.1
/// that the kernel may have given to somebody else when it is listened on again.
fn own_address(port: u16) -> String {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    format!("127.{}.{middle}.{low}:{port}", 128 | high)
}

#[test]
fn a_server_is_measured_beside_the_floor() {
    let program = env!("CARGO_BIN_EXE_mxbench");
    let address = own_address(2525);
    let command = format!("{program} sink --listen {address}; exit 0");
    let cpu = (std::thread::available_parallelism().unwrap().get() - 1).to_string();
    let output = Command::new(program)
        .args(["measure", "--name", "discard", "--server-addr", &address])
        .args(["--server-cmd", &command, "--source-cpu", &cpu])
        .args(["--rounds", "2", "--burst", "0.2", "--idle", "100", "--half-rate", "--json"])
        .arg("--large")
        .args(["--sessions", "8", "--source-argument", "--no-pipelining"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let bursts = report["bursts"].as_array().unwrap();
    assert_eq!(bursts.len(), 2 * 2 * 2 * 2, "rounds, servers, loads, closed and open loop");
    for burst in bursts {
        assert!(burst["source"]["acked"].as_u64().unwrap() > 0, "{burst}");
        assert_eq!(burst["source"]["failures"], 0, "{burst}");
        assert!(burst["cpu_us_per_message"].as_f64().unwrap() > 1.0, "{burst}");
        assert!((0.001..1.5).contains(&burst["server_busy"].as_f64().unwrap()), "{burst}");
    }
    let idle = report["idle"].as_array().unwrap();
    assert!(idle.iter().all(|idle| idle["sessions"] == 100), "{idle:?}");
    let large = report["large"].as_array().unwrap();
    assert!(large.iter().all(|large| large["acked"] == 10), "{large:?}");
    let growth = large[1]["after"].as_u64().unwrap() - large[1]["before"].as_u64().unwrap();
    assert!(growth > 100 << 20, "the sink holds a message in memory until its end: {growth}");
    let medians = report["medians"].as_object().unwrap();
    for key in [
        "4096 octets, 1/connection/floor:discard/cpu_us",
        "4096 octets, 20/connection/discard/rate",
    ] {
        assert!(medians[key]["value"].as_f64().unwrap() > 0.0, "{key}");
    }
}

#[test]
fn what_must_be_reached_stands_beside_what_was_measured() {
    let program = env!("CARGO_BIN_EXE_mxbench");
    // The build folder: a temporary folder may be a tmpfs without O_DIRECT.
    let spool = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("targets");
    std::fs::create_dir_all(&spool).unwrap();
    let command = format!("exec {program} sink --listen 127.0.0.1:0");
    let cpu = (std::thread::available_parallelism().unwrap().get() - 1).to_string();
    let mut measure = Command::new(program);
    measure.args(["measure", "--source-cpu", &cpu, "--rounds", "1", "--burst", "0.2"]);
    for name in ["discard", "durable"] {
        measure.args(["--name", name, "--server-addr", "127.0.0.1:0", "--server-cmd", &command]);
    }
    measure.args(["--sessions", "64", "--half-rate", "--idle", "100", "--large"]);
    measure.arg("--durable-floor");
    let output = measure.arg("--spool").arg(&spool).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, rows) = text.split_once("what must be reached").expect("the rows");
    let count = |start: &str| rows.lines().filter(|line| line.starts_with(start)).count();
    for what in [
        "floor CPU / discard CPU",
        "discard CPU / durable CPU",
        "floor CPU / durable CPU",
        "floor+log CPU / durable CPU",
        "p99 final dot to 250 / p99 of a bare commit",
        "p99 final dot to 250 / that of the durable floor",
        "octets written to one copy / message octets",
    ] {
        assert_eq!(count(what), 2, "one and twenty messages a connection: {what}: {text}");
    }
    assert_eq!(count("resident KiB of an idle session") + count("MiB for each of ten"), 2);
    let verdicts = rows.lines().filter(|line| line.contains(">= ") || line.contains("<= "));
    assert!(verdicts.clone().count() >= 16);
    assert!(verdicts.clone().all(|line| line.contains(" met") || line.contains("missed")));
    // What keeps nothing writes nothing.
    let written = rows.lines().find(|line| line.starts_with("octets written")).unwrap();
    assert!(written.ends_with("goal met"), "{written}");
}

#[test]
fn a_server_may_choose_its_port_and_its_reader_may_go() {
    let program = env!("CARGO_BIN_EXE_mxbench");
    // `head` takes the line that says where it listens and goes: what the sink says of every
    // message, and at its end, has no reader.
    let command = format!(
        "{program} sink --listen 127.0.0.1:0 --verbose | {{ head -n 1; exec <&-; sleep 1000; }}"
    );
    let output = Command::new(program)
        .args(["measure", "--name", "x", "--server-addr", "127.0.0.1:0"])
        .args(["--server-cmd", &command, "--source-cpu", "0", "--idle", "0", "--json"])
        .args(["--rounds", "2", "--burst", "0.1", "--sessions", "2"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("panicked"), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for burst in report["bursts"].as_array().unwrap() {
        assert!(burst["source"]["acked"].as_u64().unwrap() > 0, "{burst}");
        assert_eq!(burst["source"]["failures"], 0, "{burst}");
    }
}

#[test]
fn a_plan_that_cannot_work_says_so_before_it_starts() {
    let program = env!("CARGO_BIN_EXE_mxbench");
    let fails = |arguments: &[&str]| {
        let output = Command::new(program).arg("measure").args(arguments).output().unwrap();
        assert!(!output.status.success());
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let server = ["--name", "x", "--server-addr", &address, "--server-cmd", "true"];
    assert!(fails(&server).contains("something listens"));
    let address = own_address(2526);
    let server = ["--name", "x", "--server-addr", &address, "--server-cmd", "exit 3"];
    assert!(fails(&[&server[..], &["--rounds", "1", "--burst", "0.1"]].concat()).contains("ended"));
    assert!(fails(&["--name", "x"]).contains("one of each"));
    assert!(fails(&["--server-cpu", "100000"]).contains("CPU 100000"));
    assert!(fails(&["--device", "nosuch"]).contains("nosuch"));
    assert!(fails(&["--idle", "4000000"]).contains("open files"));
    assert!(fails(&["--sizes", "many"]).contains("many"));
}

#[test]
fn two_of_the_same_cost_the_same_at_the_same_rate() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    let program = env!("CARGO_BIN_EXE_mxbench");
    let command = format!("exec {program} sink --listen 127.0.0.1:0");
    let output = Command::new(program)
        .args(["shards", "--one", &command, "--two", &command, "--rounds", "1", "--json"])
        .args(["--burst", "0.3", "--sessions", "8", "--shares", "0.2,0.4"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let pairs = report["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 2 * 2, "loads, shares");
    for pair in pairs {
        for burst in pair["bursts"].as_array().unwrap() {
            assert!(burst["source"]["acked"].as_u64().unwrap() > 0, "{burst}");
            assert_eq!(burst["source"]["failures"], 0, "{burst}");
        }
    }
}

#[test]
fn a_durable_floor_with_tls_is_refused_at_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_mxbench"))
        .args(["measure", "--durable-floor", "--spool", ".", "--source-argument=--starttls"])
        .args(["--source-argument", "1", "--name", "a", "--server-addr", "127.0.0.1:0"])
        .args(["--server-cmd", "false"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("--durable-floor: the durable floor has no STARTTLS"), "{errors}");
}
