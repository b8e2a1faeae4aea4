//! `mxbench compare` as a whole, with our own floor and sink as the servers compared.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mxbench");

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        // Beside the program: a temporary folder may be on no block device.
        let path = PathBuf::from(PROGRAM).with_file_name(format!("compare-{name}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Four ports below the ephemeral range, others for every plan of every test process.
fn ports() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let plan = NEXT.fetch_add(1, Ordering::Relaxed) % 16;
    20_000 + std::process::id() % 180 * 64 + plan * 4
}

fn write_plan(folder: &Folder, rounds: usize, burst_s: f64) -> String {
    let first = ports();
    let server = |name: &str, role: &str, number: u32, command: &str, more: &str| {
        format!(
            "[[server]]\nname = '{name}'\ngroup = 'accept'\nrole = '{role}'\nport = {}\n\
             command = 'exec {PROGRAM} {command} --listen 127.0.0.1:{{port}}'\n{more}\n",
            first + number
        )
    };
    let relaying = format!(
        "[[server]]\nname = 'deaf'\ngroup = 'relay'\nport = {}\nrelays = true\n\
         command = 'exec {PROGRAM} floor --listen 127.0.0.1:{{port}} # {{sink}}'\n",
        first + 3
    );
    let plan = format!(
        "title = 'a test & <more>'\nrounds = {rounds}\nburst_s = {burst_s}\nwarm_up_s = 0.05\n\
         drain_s_max = 0.1\nsource_cpu = 0\n\
         [[load]]\nname = 'one'\nmessages_per_connection = 1\nsessions = [4]\n\
         [[load]]\nname = 'sweep'\nsessions = [1, 4]\n{}{}{}{relaying}",
        server("quick", "ours", 0, "floor", ""),
        server("slow", "peer", 1, "sink --fault mail:2ms", ""),
        server("broken", "peer", 2, "sink --fault nonsense", "")
    );
    let path = folder.file("plan.toml");
    fs::write(&path, plan).unwrap();
    path
}

fn compare(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("compare").args(arguments).output().unwrap()
}

#[test]
fn servers_are_compared_and_the_result_is_kept() {
    let folder = Folder::new("kept");
    let plan = write_plan(&folder, 2, 0.1);
    let (json, html) = (folder.file("out.json"), folder.file("out.html"));
    let output = compare(&[&plan, "--json", &json, "--html", &html]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("rate of quick / rate of slow"), "{table}");
    assert!(table.contains("LEFT OUT: broken: ended at once"), "{table}");
    assert!(table.contains("LATE"), "what the deaf relay took never arrives: {table}");
    assert!(!table.contains("ENDED EARLY"), "{table}");
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let bursts = report["bursts"].as_array().unwrap();
    assert_eq!(bursts.len(), 2 * 4 * 3, "rounds, floor and three servers, loads");
    assert!(bursts.iter().all(|burst| burst["source"]["acked"].as_u64().unwrap() > 0));
    let note = |name: &str| {
        let notes = report["servers"].as_array().unwrap();
        notes.iter().find(|note| note["name"] == name).unwrap().clone()
    };
    assert!(note("deaf")["lost"].as_u64().unwrap() > 0);
    assert_eq!(note("quick")["lost"], 0);
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.contains("a test &amp; &lt;more&gt;") && page.contains("over sessions"));
    assert!(!page.contains("http") && !page.contains("NaN"), "self-contained, and all numbers");
    // Printed again from its JSON, against itself: nothing moved.
    let again = compare(&[&json, "--against", &json]);
    let text = String::from_utf8(again.stdout).unwrap();
    assert!(text.starts_with(&table) && text.contains("\n0 moved beyond the noise"), "{text}");
    // Server and source share a processor: neither can keep it busy.
    assert!(text.contains("rates that the source limited are not compared"), "{text}");
    assert!(text.contains("fewer than 3 rounds"), "{text}");
}

#[test]
fn who_does_not_flush_is_in_no_ratio() {
    let folder = Folder::new("durable");
    let plan = write_plan(&folder, 1, 0.1);
    let place = folder.file("");
    let output = compare(&[&plan, "--place", &place, "--only", "quick,slow", "--load", "one"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("slow              NOT DURABLE"), "{table}");
    assert!(table.contains("floor CPU / quick CPU") && !table.contains("rate of"), "{table}");
    assert!(table.contains("durable writes of 4096 octets"), "{table}");
}

#[test]
fn told_to_end_it_says_what_it_has() {
    let folder = Folder::new("ended");
    let plan = write_plan(&folder, 1000, 600.0);
    let json = folder.file("out.json");
    let mut child = Command::new(PROGRAM)
        .args(["compare", &plan, "--json", &json, "--only", "quick", "--load", "one"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    // Told once its first real burst runs: a source of its own with that length.
    let words = "--duration\x00600\x00";
    while !descendants(pid).any(|pid| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(words))
    }) {
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::yield_now();
    }
    kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("ENDED EARLY"));
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["bursts"].as_array().unwrap().len(), 1);
}

fn descendants(pid: i32) -> impl Iterator<Item = i32> {
    mxbench::proc::tree(pid).unwrap_or_default().into_iter()
}

#[test]
fn a_plan_that_cannot_work_says_so_before_it_starts() {
    let folder = Folder::new("wrong");
    let plan = write_plan(&folder, 1, 0.1);
    let says = |arguments: &[&str]| {
        let output = compare(arguments);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(says(&[&plan, "--only", "nobody"]).contains("nobody: not in the plan"));
    assert!(says(&[&plan, "--place", "/no/such"]).contains("/no/such"));
    fs::write(&plan, fs::read_to_string(&plan).unwrap().replace(PROGRAM, "/no/program")).unwrap();
    let all = says(&[&plan]);
    assert_eq!(all.matches("no program /no/program").count(), 4, "{all}");
    assert!(says(&["/no/plan.toml"]).contains("/no/plan.toml"));
    let plan = write_plan(&folder, 1, 0.1);
    let nowhere = says(&[&plan, "--json", "/no/such/out.json", "--html", &folder.file("")]);
    assert_eq!(nowhere.matches("cannot be written").count(), 2, "{nowhere}");
    let with_words = fs::read_to_string(&plan).unwrap().replace(
        "name = 'sweep'",
        "name = 'sweep'\narguments = ['--nonsense']\nsize = '12 parsecs'",
    );
    fs::write(&plan, with_words).unwrap();
    let all = says(&[&plan]);
    assert_eq!(all.matches("load sweep: ").count(), 1, "said once: {all}");
}

#[test]
fn the_bare_machine_is_measured_by_itself() {
    let folder = Folder::new("bare");
    let output = Command::new(PROGRAM)
        .args(["floor", "--bare", "--octets", "16384", "--spool", &folder.file("")])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("durable writes of 16384 octets") && text.contains("bare TCP"), "{text}");
    assert!(!Command::new(PROGRAM).arg("floor").output().unwrap().status.success());
}
