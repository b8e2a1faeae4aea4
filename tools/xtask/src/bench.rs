//! `./x bench`: the floor, the daemon discarding, and the daemon keeping every message, in turn on
//! one processor with the load on another; `./x bench peers` and `./x bench runtimes` carry out the
//! plans of these names in `benches/plans`, `./x bench shards` compares two cores with one, `./x
//! bench micro` counts instructions. `./x bench brief` leaves memory and latencies out; `./x bench
//! figures` writes what all of them print into `docs/performance.md`.
//!
//! *Failure*: a port in use or a program that does not start is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a server is run, and what its route does with the mail.
const SERVERS: [(&str, u16, &str); 2] = [("discard", 2581, "at_once"), ("durable", 2582, "logged")];

/// Runs it; `more` goes to `mxbench measure`, behind the name of a plan to `mxbench compare`
/// (`--help` there).
pub(crate) fn bench(more: &[String]) -> Result<(), String> {
    match more.split_first() {
        Some((first, more)) if first == "peers" => peers(more),
        Some((first, more)) if first == "restart" => crate::restart::restart(more),
        Some((first, more)) if first == "figures" => crate::figures::figures(more),
        Some((first, more)) if first == "runtimes" => runtimes(more),
        Some((first, more)) if first == "shards" => shards(more),
        Some((first, more)) if first == "micro" => {
            let words = ["bench", "--quiet", "--package", "mxbench", "--bench", "micro", "--"];
            run(Command::new("cargo").args(words).args(more))
        }
        Some((first, more)) if first == "brief" => measure(more, &["--idle", "0"], &[]),
        _ => measure(
            more,
            &["--idle", "10000"],
            &["--large", "--idle-tls", "--half-rate", "--durable-floor"],
        ),
    }
}

/// The place of all spools: a file system of its own, because those of others differ in what a
/// flush costs on them. MiB.
const PLACE_MIB: &str = "4096";

fn peers(more: &[String]) -> Result<(), String> {
    let own_place = !more.iter().any(|word| word == "--place" || word == "--check");
    let place = Path::new("var").join("bench").join("place");
    let tool = "benches/peers/place";
    if own_place {
        fs::create_dir_all("var/bench").map_err(|e| format!("cannot make var/bench: {e}"))?;
        run(Command::new(tool).arg("make").arg(&place).arg(PLACE_MIB))?;
    }
    let result = compare("peers", more);
    if own_place {
        run(Command::new(tool).arg("drop").arg(&place))?;
    }
    result
}

fn runtimes(more: &[String]) -> Result<(), String> {
    let words = ["build", "--release", "--quiet", "--package", "mxbench", "--example", "runtimes"];
    run(Command::new("cargo").args(words))?;
    compare("runtimes", more)
}

/// Carries out a plan; its JSON and its page go to `var/bench`, where nothing else is said.
fn compare(plan: &str, more: &[String]) -> Result<(), String> {
    fs::create_dir_all("var/bench").map_err(|e| format!("cannot make var/bench: {e}"))?;
    let me = std::env::current_exe().map_err(|e| format!("cannot find my programs: {e}"))?;
    let mut command = Command::new(me.with_file_name("mxbench"));
    command.args(["compare", &format!("benches/plans/{plan}.toml")]);
    for (flag, ending) in [("--json", "json"), ("--html", "html")] {
        if !more.iter().any(|word| word == flag) {
            command.args([flag, &format!("var/bench/{plan}.{ending}")]);
        }
    }
    run(command.args(more))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| format!("cannot start {name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}")) }
}

fn programs() -> Result<PathBuf, String> {
    let me = std::env::current_exe().map_err(|e| format!("cannot find my programs: {e}"))?;
    Ok(me.parent().expect("a program lies in a folder").to_path_buf())
}

/// A line that runs the daemon in a folder of its own. A spool that is there already is used
/// again: its segments are zero-filled.
fn daemon(name: &str, port: u16, discard: &str, cores: u32) -> Result<String, String> {
    let place = Path::new("var").join("bench").join(name);
    fs::create_dir_all(&place).map_err(|e| format!("cannot make {}: {e}", place.display()))?;
    let config = write_config(&place, port, discard, cores)?;
    Ok(format!("exec {} --config {}", text(&programs()?.join("ringpostd")), text(&config)))
}

/// Two cores against one, discarding and durable.
fn shards(more: &[String]) -> Result<(), String> {
    for (name, port, discard) in SERVERS {
        println!("{name}:");
        let mut command = Command::new(programs()?.join("mxbench"));
        command.arg("shards");
        command.arg("--one").arg(daemon(name, port, discard, 1)?);
        command.arg("--two").arg(daemon(&format!("{name}-two"), port + 2, discard, 2)?);
        run(command.args(more))?;
    }
    Ok(())
}

/// `idle` and `flags` are what else is looked at beside CPU, rates and octets.
fn measure(more: &[String], idle: &[&str; 2], flags: &[&str]) -> Result<(), String> {
    let mut measure = Command::new(programs()?.join("mxbench"));
    measure.arg("measure");
    for (name, port, discard) in SERVERS {
        let command = daemon(name, port, discard, 1)?;
        measure.args(["--name", name, "--server-addr"]).arg(format!("127.0.0.1:{port}"));
        measure.arg("--server-cmd").arg(command);
    }
    let usual = [
        ("--rounds", "5"),
        ("--burst", "0.9"),
        (idle[0], idle[1]),
        ("--sizes", "4096,65536"),
        ("--spool", "var/bench"),
    ];
    for (flag, value) in usual.iter().filter(|(flag, _)| !more.iter().any(|word| word == flag)) {
        measure.args([flag, value]);
    }
    // The durable floor has no STARTTLS.
    let secure = more.iter().any(|word| word.contains("--starttls"));
    let fits = |flag: &&&str| !more.iter().any(|word| word == **flag);
    for flag in flags.iter().filter(fits).filter(|flag| !secure || **flag != "--durable-floor") {
        measure.arg(flag);
    }
    measure.args(more);
    let words: Vec<_> = measure.get_args().map(|word| word.to_string_lossy()).collect();
    println!("mxbench {}", words.join(" "));
    let status = measure.status().map_err(|e| format!("cannot start mxbench: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("mxbench measure: {status}")) }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// No limits, a route that keeps or keeps not.
fn write_config(place: &Path, port: u16, discard: &str, cores: u32) -> Result<PathBuf, String> {
    let at = |name: &str| text(&place.join(name));
    // What goes to the spool's device is measured: log files stay in memory where they can.
    let memory = Path::new("/dev/shm");
    let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let log = if memory.is_dir() {
        memory.join(format!("ringpost-bench-log-{name}"))
    } else {
        place.join("log")
    };
    // Ten messages of 100 MiB at once want their room; two cores get none such.
    let segments = if cores == 1 { 48 } else { 24 };
    let config = format!(
        "[node]\nhostname = \"mx.example.org\"\ncores = {cores}\n\
         [[listener]]\naddress = \"127.0.0.1\"\nport = {port}\n\
         [[tls.certificate]]\nnames = [\"mx.example.org\"]\nself_signed = true\n\
         certificate = \"{crt}\"\nkey = \"{key}\"\n\
         [policy]\nrelay_domains = [\"example.com\", \"example.org\"]\nany_recipient = true\n\
         size_max = \"200 MiB\"\nmessages_max = 1000000\n\
         [[route]]\nname = \"hole\"\ndomains = [\"*\"]\ndiscard = \"{discard}\"\n\
         [spool]\nplaces = [\"{spool}\"]\nsegments = {segments}\nsegment_mib = 64\n\
         [hints]\nfile = \"{hints}\"\nsize = \"16 MiB\"\n\
         [log]\ndir = \"{log}\"\ntotal_size = \"256 MiB\"\n",
        crt = at("own.crt"),
        key = at("own.key"),
        spool = at("spool"),
        hints = at("hints"),
        log = text(&log),
    );
    let path = place.join("mx.toml");
    fs::write(&path, config).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    Ok(path)
}
