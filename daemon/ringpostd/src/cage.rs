//! What the mail process gives up as soon as it has its config, and the filter's keeper as soon as
//! it has its filter: files by landlock, system calls by seccomp. The threads made from then on
//! have given them up too.
//!
//! *Guarantees.* No program is started, no file is written but in the folders that the config
//! names, none is read but there and below [`READ`], no other process is signalled. The keeper
//! writes in the folder of its pins and nowhere else, and reaches no network.
//! *Limits.* io_uring's operations pass seccomp by; the ring's own restrictions and landlock hold
//! for them. A folder that a later config names for the first time needs a restart.
//! *Failure.* What the kernel cannot do is a note, or with `sandbox = "must"` the end.

mod calls;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
    Scope, path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::config::{Config, Sandbox};
use crate::house::state;

/// What every program reads: names, resolvers, zones, devices, the machine's state.
const READ: [&str; 7] = ["/etc", "/usr", "/lib", "/lib64", "/dev", "/proc", "/sys"];

/// System calls that are allowed; with rules only where one of them holds.
type Calls = BTreeMap<i64, Vec<SeccompRule>>;

/// The newest rules that are asked for; an older kernel has fewer.
const RULES: ABI = ABI::V6;

/// Gives up what a mail exchanger does not need; what is in force, in words.
///
/// # Errors
/// `must` is wanted and the kernel cannot.
pub fn enter(config: &Config, file: &Path, has_gate: bool) -> Result<String, String> {
    if config.node.sandbox == Sandbox::Off {
        return Ok("sandbox: switched off".to_owned());
    }
    let more = if has_gate { calls::FILTER } else { &[] };
    let allowed = calls::MAIL.iter().chain(more).map(|number| (*number, Vec::new())).collect();
    let lacks = [files(&places(config, file)), calls(allowed)];
    entered(config.node.sandbox, lacks)
}

/// The same for the filter's keeper, which has loaded the filter.
///
/// # Errors
/// `must` is wanted and the kernel cannot.
pub fn enter_keeper(wanted: Sandbox, pins: Option<&Path>) -> Result<String, String> {
    if wanted == Sandbox::Off {
        return Ok("sandbox: switched off".to_owned());
    }
    let mut places = Places::default();
    places.read.extend(["/dev/urandom", "/proc", "/sys"].map(PathBuf::from));
    places.write.extend(pins.map(Path::to_owned));
    let calls = keepers_calls().and_then(|allowed| calls(allowed).map_or(Ok(()), Err)).err();
    entered(wanted, [files(&places), calls])
}

/// The keeper's sockets lead to the mail process and to the kernel, to no network.
fn keepers_calls() -> Result<Calls, String> {
    let mut allowed: Calls = calls::KEEPER.iter().map(|number| (*number, Vec::new())).collect();
    let family = |family: i32| {
        let is = SeccompCmpOp::Eq;
        let family = u64::from(family.unsigned_abs());
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, is, family);
        SeccompRule::new(vec![condition.map_err(|e| e.to_string())?]).map_err(|e| e.to_string())
    };
    let families = [nix::libc::AF_UNIX, nix::libc::AF_NETLINK].map(family);
    let families: Result<Vec<SeccompRule>, String> = families.into_iter().collect();
    allowed.insert(nix::libc::SYS_socket, families?);
    Ok(allowed)
}

fn entered(wanted: Sandbox, lacks: [Option<String>; 2]) -> Result<String, String> {
    let lacks: Vec<String> = lacks.into_iter().flatten().collect();
    match (lacks.is_empty(), wanted) {
        (true, _) => Ok("sandbox: complete".to_owned()),
        (false, Sandbox::Must) => Err(format!("sandbox: {}", lacks.join("; "))),
        (false, _) => Ok(format!("sandbox: not whole: {}", lacks.join("; "))),
    }
}

/// Folders by what is done in them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
}

/// The folder a file lies in, once links are followed.
fn above(file: &Path) -> PathBuf {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn places(config: &Config, file: &Path) -> Places {
    let mut places = Places::default();
    places.read.extend(READ.map(PathBuf::from));
    places.read.insert(above(Path::new("/etc/resolv.conf")));
    let files = config.lists.iter().map(|list| &list.file).chain(&config.policy.recipients_file);
    places.read.extend(files.map(|file| above(file)));
    // A config that is committed on the console is written where this one lies.
    places.write.insert(above(file));
    for certificate in &config.tls.certificates {
        let into = if certificate.self_signed { &mut places.write } else { &mut places.read };
        into.extend([above(&certificate.certificate), above(&certificate.key)]);
    }
    for place in &config.spool.places {
        // A disk that comes back is another node of the same folder; where it is not there now, no
        // folder may be made that would stand in its way.
        if fs::metadata(place).is_ok_and(|meta| meta.is_dir()) {
            places.write.insert(place.clone());
        } else {
            places.write.insert(place.parent().map_or_else(|| "/dev".into(), Path::to_owned));
            places.write.insert(above(place));
        }
    }
    let files = [Some(&config.hints.file), config.hints.snapshot.as_ref()];
    let files = files.into_iter().chain([config.admin.socket.as_ref()]).flatten();
    places.write.extend(files.map(|file| above(file)));
    places.write.insert(config.log.dir.clone());
    places.write.insert(state::folder(config));
    places
}

/// What landlock could not do.
fn files(places: &Places) -> Option<String> {
    match restrict(places) {
        Ok(RulesetStatus::FullyEnforced) => None,
        Ok(RulesetStatus::PartiallyEnforced) => Some("this kernel's landlock knows less".into()),
        Ok(RulesetStatus::NotEnforced) => Some("this kernel has no landlock".into()),
        Err(error) => Some(format!("landlock: {error}")),
    }
}

fn restrict(places: &Places) -> Result<RulesetStatus, landlock::RulesetError> {
    let Places { read, write } = places;
    for folder in write {
        // What cannot be made now would fail later, and say so then.
        let _ = fs::create_dir_all(folder);
    }
    let all = AccessFs::from_all(RULES);
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let ruleset = Ruleset::default().handle_access(all)?.scope(Scope::Signal)?.create()?;
    let ruleset = ruleset.add_rules(path_beneath_rules(read, reading))?;
    let ruleset = ruleset.add_rules(path_beneath_rules(["/dev/null"], all))?;
    let ruleset = ruleset.add_rules(path_beneath_rules(write, all & !AccessFs::Execute))?;
    Ok(ruleset.restrict_self()?.ruleset)
}

/// What seccomp could not do.
/// All other calls fail with EPERM: a path nobody foresaw is an error, not the end of the process.
fn calls(allowed: Calls) -> Option<String> {
    filter(allowed).err().map(|error| format!("seccomp: {error}"))
}

fn filter(allowed: Calls) -> Result<(), String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| e.to_string())?;
    let errno = nix::libc::EPERM.unsigned_abs();
    let filter =
        SeccompFilter::new(allowed, SeccompAction::Errno(errno), SeccompAction::Allow, arch);
    let program = BpfProgram::try_from(filter.map_err(|e| e.to_string())?);
    seccompiler::apply_filter(&program.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}

/// Enters the sandbox of a config and tries what must not work; one line each, and whether all was
/// refused. The process is of no other use after that.
///
/// # Errors
/// As [`enter`].
pub fn rehearse(config: &Config, file: &Path) -> Result<(String, bool), String> {
    let mut page = enter(config, file, false)? + "\n";
    let own = std::env::current_exe().unwrap_or_else(|_| "/bin/true".into());
    let stray = Path::new("/ringpostd-sandbox");
    let named = |error: nix::Error| std::io::Error::from(error);
    let tried: [(&str, std::io::Result<()>); 6] = [
        ("start a program", std::process::Command::new(own).arg("--version").output().map(drop)),
        ("read the folder /", fs::read_dir("/").map(drop)),
        ("write a file there", File::create(stray).map(drop)),
        ("a name space", nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(named)),
        ("another root", nix::unistd::chroot("/").map_err(named)),
        (
            "signal another process",
            nix::sys::signal::kill(nix::unistd::getppid(), None).map_err(named),
        ),
    ];
    let mut all = true;
    for (what, how) in tried {
        let line = match how {
            Ok(()) => {
                all = false;
                "ALLOWED".to_owned()
            }
            Err(error) => format!("refused: {error}"),
        };
        let _ = writeln!(page, "{what}: {line}");
    }
    // What the folders of the config are for goes on.
    let own = config.log.dir.join("sandbox.new");
    let kept = File::create(&own).and_then(|_| fs::remove_file(&own));
    all &= kept.is_ok();
    let _ = writeln!(
        page,
        "write in {}: {}",
        config.log.dir.display(),
        match kept {
            Ok(()) => "allowed".to_owned(),
            Err(error) => format!("REFUSED: {error}"),
        }
    );
    let _ = fs::remove_file(stray);
    Ok((page, all))
}
