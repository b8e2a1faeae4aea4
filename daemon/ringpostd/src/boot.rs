//! From a checked config to running threads.
//!
//! *Guarantees*: nothing listens before everything else is ready; the run number is durable before
//! an id of it is given.
//! *Failure*: [`BootError`]: one line with what to do, and an exit code ([`exit`]). What is odd but
//! works is a note in the log; what the operator must know is an alarm there, on standard error
//! and in the status.
//! *Not here*: what runs then (`shard`, `house`).

mod error;

mod waiting;

mod sockets;

mod tables;

mod probe;

mod progress;

mod serial;

mod store;

mod core_thread;

pub use error::{BootError, exit};
pub use probe::probe;
pub use sockets::{Socket, addresses, of_cores};

use std::cell::RefCell;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;

use engine::{MailboxReceiver, MailboxSender, Probe, host};
use hints::Sessions;
use spool::file::FileDevice;
use spool::log::LogStart;
use spool::recovery::Report;
use spool::set::Set;

use crate::cage;
use crate::config::{self, Config, Cores};
use crate::dnsbl::Zones;
use crate::events::{Alarm, Note};
use crate::house::certificates::{self, Certificates};
use crate::house::feeds::{Feeds, Listed};
use crate::house::{self, Clock, CoreEnd, End, Facts, Journal, Plan};
use crate::maillog::files::LogFiles;
use crate::maillog::outlet::{self, ChunkSource, QueueSink};
use crate::maillog::rotation::Rules;
use crate::metrics::{self, CoreMetrics, CoreView};
use crate::post::{MAIL_MAX, Orders, ToCore};
use crate::shard::Loads;
use crate::tally;
use crate::tls::{ClientTls, OnExpired, Tickets};
use crate::xdp::Lists;

use core_thread::{Common, Own};
use progress::Progress;
use store::Store;
use tables::Tables;

/// What to do about a kernel that cannot.
const CAGE: &str = "[node] sandbox = \"auto\" does without";

/// Damage that is told one by one.
const DAMAGE_TOLD_MAX: usize = 20;

/// A daemon that was started.
#[derive(Debug)]
struct Started {
    plan: Plan,
    threads: Vec<JoinHandle<()>>,
    set: Rc<RefCell<Set<FileDevice>>>,
}

/// Tries the sandbox of a config: what was tried, and whether all went as it should.
///
/// # Errors
/// The config, or a kernel that cannot.
pub fn rehearse_cage(config_file: &Path) -> Result<(String, bool), BootError> {
    let loaded = Config::load(config_file)
        .map_err(|problems| BootError::config(problems, "nothing was tried"))?;
    cage::rehearse(&loaded.config, config_file).map_err(|why| BootError::unavailable(why, CAGE))
}

/// Starts the daemon and runs it until it ends.
///
/// # Errors
/// Why it did not start, or what failed while it ran.
pub fn run(
    config_file: &Path,
    inherited: Vec<OwnedFd>,
    supervised: bool,
    gate: Option<OwnedFd>,
) -> Result<(), BootError> {
    house::block_signals().map_err(|error| BootError::os(format!("signals: {error}"), ""))?;
    let has_gate = gate.is_some();
    let Started { mut plan, threads, set } = start(config_file, inherited, supervised, has_gate)?;
    plan.gate = gate;
    let end = house::run(plan).map_err(|error| BootError::os(error, ""))?;
    match end {
        End::Drained => {
            for thread in threads {
                // It has said that it stopped; a panic would have ended the process.
                let _ = thread.join();
            }
            release(&mut set.borrow_mut());
            Ok(())
        }
        End::NotStarted(why) => Err(BootError::unavailable(why, "")),
        End::Failed(why) => {
            let advice = "start it again: the log is recovered";
            Err(BootError { code: exit::SOFTWARE, what: why, advice: advice.to_owned() })
        }
    }
}

fn release(set: &mut Set<FileDevice>) {
    if let Err(error) = store::release(set) {
        eprintln!("ringpostd: the spool is closed, but not marked so: {error}");
    }
}

/// As many threads as the config says.
///
/// # Errors
/// The kernel does not say which processors there are.
pub fn cpus(config: &Config) -> Result<Vec<usize>, BootError> {
    let cpus = host::cpus().map_err(|error| BootError::os(format!("processors: {error}"), ""))?;
    let count = match config.node.cores {
        Cores::Auto => cpus.len(),
        Cores::Count(count) => usize::from(count),
    };
    let count = count.clamp(1, usize::try_from(crate::limits::CORES_MAX).unwrap_or(usize::MAX));
    Ok(cpus.iter().copied().cycle().take(count).collect())
}

/// The ends of what lies between the cores, the house and the log files.
struct Ends {
    mails: Vec<MailboxReceiver<ToCore>>,
    metrics: Vec<CoreMetrics>,
    lines: Vec<QueueSink>,
    house: Vec<CoreEnd>,
    sources: Vec<ChunkSource>,
}

fn mailbox<M: Send>() -> Result<(MailboxSender<M>, MailboxReceiver<M>), BootError> {
    let fail = |error| BootError::os(format!("mailbox: {error}"), "raise RLIMIT_NOFILE");
    engine::mailbox(MAIL_MAX).map_err(fail)
}

fn ends(cores: usize) -> Result<Ends, BootError> {
    let mut ends = Ends {
        mails: Vec::new(),
        metrics: Vec::new(),
        lines: Vec::new(),
        house: Vec::new(),
        sources: Vec::new(),
    };
    for _ in 0..cores {
        let (mailbox, mail) = mailbox()?;
        let (metrics, view) = metrics::for_core();
        let (lines, source) = outlet::queue();
        ends.mails.push(mail);
        ends.metrics.push(metrics);
        ends.lines.push(lines);
        ends.house.push(CoreEnd { mailbox, view });
        ends.sources.push(source);
    }
    Ok(ends)
}

fn start(
    config_file: &Path,
    inherited: Vec<OwnedFd>,
    supervised: bool,
    has_gate: bool,
) -> Result<Started, BootError> {
    let started_wall_us = engine::wall_us();
    let loaded = Config::load(config_file)
        .map_err(|problems| BootError::config(problems, "nothing was started"))?;
    let config = loaded.config;
    let files = host::raise_file_limit();
    let probe = Probe::detect().map_err(|error| BootError::unavailable(error, ""))?;
    let cpus = cpus(&config)?;
    // Before anything of it is touched: another daemon may be running.
    let locked = store::lock(&config, cpus.len(), started_wall_us)?;
    let Ends { mails, metrics, lines, house: ends, sources } = ends(cpus.len())?;
    let (mut journal, view) = journal(&config, sources)?;
    tell_start(&probe, files.err(), &loaded.warnings, &mut journal);
    let tables = open_tables(&config, started_wall_us, &mut journal)?;
    let tickets = Tickets::new().map_err(|error| BootError::os(error, ""))?;
    let certificates = load_certificates(&config, &tickets, started_wall_us, &mut journal)?;
    let store = recover(locked, &config, cpus.len(), &mut journal)?;
    note_panics(tables.hints, store.run);
    let facts = Facts { started_wall_us, supervised, ..facts(&store, &probe, config_file) };
    let Store { set, run, logs, report, .. } = store;
    let clock = judge_clock(&config, report.newest_wall_us, &mut journal);
    let sockets = of_cores(&config, cpus.len(), inherited)?;
    let listed = read_lists(&config, &mut journal);
    let orders = first_orders(config, &certificates, &mut journal)?;
    enter_cage(&orders.config, config_file, has_gate, &mut journal)?;
    let (house, mail) = mailbox()?;
    let (journal, set, hints) = (shared(journal), shared(set), tables.hints);
    let loads: Loads = cpus.iter().map(|_| AtomicU32::new(0)).collect();
    let common = Common {
        probe,
        orders: Arc::clone(&orders),
        hints,
        sessions: sessions(&orders.config)?,
        loads: Arc::clone(&loads),
        lists: Arc::clone(&listed.lists),
        fuse: Arc::clone(&listed.fuse),
        cores: ends.iter().map(|end| end.mailbox.clone()).collect(),
        house,
        set: Arc::new(twin(&set.borrow())?),
        run,
        newest_wall_us: (report.newest_wall_us > 0).then_some(report.newest_wall_us),
        tls: ClientTls::new(None).map_err(|error| BootError::config(error, ""))?,
        own_addresses: Arc::clone(&facts.own_addresses),
        locked_bytes_max: host::locked_memory_share(cpus.len() as u64),
    };
    let threads = launch(&common, &cpus, Parts { mails, logs, sockets, metrics, lines })?;
    let plan = Plan {
        facts,
        orders,
        tickets,
        certificates,
        mail,
        cores: ends,
        hints,
        journal,
        view,
        clock,
        loads,
        gate: None,
        listed,
        set: Rc::clone(&set),
        look: store::returned,
    };
    Ok(Started { plan, threads, set })
}

/// All threads are made behind it.
fn enter_cage(
    config: &Config,
    file: &Path,
    has_gate: bool,
    journal: &mut Journal,
) -> Result<(), BootError> {
    let caged = cage::enter(config, file, has_gate);
    let said = caged.map_err(|why| BootError::unavailable(why, CAGE))?;
    journal.note(Note::Started, &said);
    Ok(())
}

fn recover(
    locked: store::Locked,
    config: &Config,
    cores: usize,
    journal: &mut Journal,
) -> Result<Store, BootError> {
    let mut progress = Progress::new(engine::now_us());
    let mut told = |devices: &[_]| progress.told(engine::now_us(), devices, journal);
    let store = locked.recover(config, cores, engine::wall_us(), &mut told)?;
    tell_recovery(&store, progress.took_ms(engine::now_us()), journal);
    Ok(store)
}

/// What each core gets, by its number.
struct Parts {
    mails: Vec<MailboxReceiver<ToCore>>,
    logs: Vec<LogStart>,
    sockets: Vec<Vec<Socket>>,
    metrics: Vec<CoreMetrics>,
    lines: Vec<QueueSink>,
}

fn launch(common: &Common, cpus: &[usize], parts: Parts) -> Result<Vec<JoinHandle<()>>, BootError> {
    let Parts { mails, logs, sockets, metrics, lines } = parts;
    let owns = cpus.iter().zip(mails).zip(logs).zip(sockets).zip(metrics).zip(lines).enumerate();
    let mut threads = Vec::with_capacity(cpus.len());
    for (core, (((((cpu, mail), log), sockets), metrics), lines)) in owns {
        let seed = tables::seed()?.0[0];
        let own = Own { core, cpu: *cpu, mail, log, sockets, metrics, lines, seed };
        threads.push(spawn(common.clone(), own)?);
    }
    Ok(threads)
}

fn shared<T>(value: T) -> Rc<RefCell<T>> {
    Rc::new(RefCell::new(value))
}

fn twin(set: &Set<FileDevice>) -> Result<Set<FileDevice>, BootError> {
    set.duplicate().map_err(|error| BootError::os(error, "raise RLIMIT_NOFILE"))
}

fn sessions(config: &Config) -> Result<Arc<Sessions>, BootError> {
    let most = usize::try_from(config.node.sessions_max).unwrap_or(usize::MAX);
    Ok(Arc::new(Sessions::new(most, tables::seed()?)))
}

fn spawn(common: Common, own: Own) -> Result<JoinHandle<()>, BootError> {
    std::thread::Builder::new()
        .name(format!("core {}", own.core))
        .spawn(move || core_thread::run(&common, own))
        .map_err(|error| BootError::os(format!("thread: {error}"), "raise RLIMIT_NPROC"))
}

fn journal(config: &Config, sources: Vec<ChunkSource>) -> Result<(Journal, CoreView), BootError> {
    let dir = &config.log.dir;
    let fail = |error| {
        let what = format!("log directory {}: {error}", dir.display());
        BootError::unavailable(what, "[log] dir must be writable by this user")
    };
    let files = LogFiles::open(dir, Rules::of(&config.log), engine::wall_us()).map_err(fail)?;
    Journal::start(&config.log, files, sources).map_err(fail)
}

fn tell_start(
    probe: &Probe,
    files: Option<impl std::fmt::Display>,
    warnings: &config::Problems,
    journal: &mut Journal,
) {
    let warnings = warnings.iter().map(ToString::to_string);
    let files = files.map(|error| format!("the file limit cannot be raised: {error}"));
    let notes = std::iter::once(probe.to_string()).chain(files).chain(warnings);
    notes.for_each(|note| journal.note(Note::Started, &note));
}

fn first_orders(
    config: Config,
    certificates: &Certificates,
    journal: &mut Journal,
) -> Result<Arc<Orders>, BootError> {
    let rules = Arc::new(load_rules(&config, journal)?);
    let first = crate::xdp::first_zone(&config);
    let zones = Arc::new(Zones::new(&config.dnsbl, first, config.xdp.dnsbl_weight, None));
    let tls = certificates.store.clone();
    Ok(Arc::new(Orders { generation: 1, config, tls, zones, rules }))
}

/// Reads the lists before anybody is heard.
fn read_lists(config: &Config, journal: &mut Journal) -> Listed {
    let wall_s = engine::wall_us() / 1_000_000;
    let (feeds, problems) = Feeds::load(config, &Feeds::default(), wall_s);
    problems.iter().for_each(|problem| journal.alarm(Alarm::Filter, problem));
    let lists = Arc::new(Lists::new(config, &feeds.loaded));
    Listed { feeds, lists, problems, fuse: Arc::default() }
}

fn open_tables(config: &Config, wall_us: u64, journal: &mut Journal) -> Result<Tables, BootError> {
    let setup = ::hints::Setup { seed: tables::seed()?, node: config.node.id, wall_us };
    let tables = tables::open(&config.hints, setup)?;
    let note = if tables.is_fresh() { Note::HintsFresh } else { Note::Started };
    journal.note(note, &tables.report.to_string());
    tables.notes.iter().for_each(|line| journal.note(Note::Started, line));
    Ok(tables)
}

fn load_certificates(
    config: &Config,
    tickets: &Tickets,
    wall_us: u64,
    journal: &mut Journal,
) -> Result<Certificates, BootError> {
    let made = certificates::make_missing(config);
    let made = made.map_err(|error| BootError::config(error, "[[tls.certificate]] names it"))?;
    made.iter().for_each(|line| journal.note(Note::Certificates, line));
    // A certificate that has ended is served at start, with an alarm: mail goes on.
    let loaded = certificates::load(config, tickets, OnExpired::Serve, wall_us);
    let loaded = loaded.map_err(|problems| {
        BootError::config(problems.join("\n"), "[[tls.certificate]] names these files")
    })?;
    loaded.warnings.iter().for_each(|line| journal.note(Note::Certificates, line));
    Ok(loaded)
}

fn facts(store: &Store, probe: &Probe, config_file: &Path) -> Facts {
    Facts {
        config_file: config_file.to_owned(),
        run: store.run,
        engine: vec![probe.to_string()],
        kernel: probe.release.clone(),
        ledger: ledger(&store.report),
        spool_octets: spool_octets(&store.set),
        spool_format: store.set.superblock.format.number(),
        alarms: lasting_alarms(&store.report),
        own_addresses: own_addresses().into(),
        ..Facts::default()
    }
}

fn tell_recovery(store: &Store, took_ms: u64, journal: &mut Journal) {
    let Store { report, run, notes, .. } = store;
    notes.iter().for_each(|note| journal.note(Note::Recovered, note));
    let ended = if report.was_running { "was cut off" } else { "had ended" };
    let text = format!(
        "run {run}: the one before {ended}; {} messages in {} segments ({} sealed), {} KiB read \
         in {took_ms} ms, {} batches never acknowledged struck out, {} healed",
        report.messages,
        report.segments_used,
        report.segments_sealed,
        report.bytes_read / 1024,
        report.struck,
        report.healed
    );
    journal.note(Note::Recovered, &text);
    for damage in report.damage.iter().take(DAMAGE_TOLD_MAX) {
        let text = format!(
            "{} at byte {}: {:?} cannot be read although it was durable; kept for inspection",
            damage.device, damage.offset, damage.what
        );
        journal.alarm(Alarm::Corruption, &text);
    }
    for damage in report.healed_damage.iter().take(DAMAGE_TOLD_MAX) {
        let text = format!(
            "{} at byte {}: a batch did not check; written again from the other copy",
            damage.device, damage.offset
        );
        journal.alarm(Alarm::Corruption, &text);
    }
    lasting_alarms(report).iter().for_each(|line| journal.alarm(which(line, report), line));
}

fn which(line: &str, report: &Report) -> Alarm {
    match line {
        line if line.starts_with("the ledger") => Alarm::Ledger,
        _ if report.members_out.is_empty() => Alarm::Corruption,
        _ => Alarm::Device,
    }
}

fn spool_octets(set: &Set<FileDevice>) -> u64 {
    let block = &set.superblock;
    let columns = u64::from(block.members / block.copies.max(1));
    columns * u64::from(block.segments) * u64::from(block.segment_bytes)
}

/// What stays true for this run.
fn lasting_alarms(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if !report.damage.is_empty() {
        lines.push(format!("{} places of the spool cannot be read", report.damage.len()));
    }
    for member in &report.members_out {
        let what = if report.members_alone.contains(member) {
            "is out: it went on alone, and has mail that is nowhere else; `ringpost spool take-in` \
             takes that in, then empties it"
        } else if report.members_filling.contains(member) {
            "is being filled: mail has one copy only"
        } else {
            "is out: mail has one copy only"
        };
        lines.push(format!("device {member} of the spool {what}"));
    }
    let failed = report.joining_failed.iter();
    lines.extend(failed.map(|error| format!("spool {error}: it cannot be filled")));
    if !report.ledger_agrees() {
        lines.push(format!(
            "the ledger does not agree with the log: {:?}, counted {:?}",
            report.ledger, report.counted
        ));
    }
    lines
}

fn ledger(report: &Report) -> control::Ledger {
    let found = &report.ledger;
    control::Ledger {
        accepted: found.accepted,
        generated: found.generated,
        delivered: found.delivered,
        handed_over: found.handed_over,
        bounced: found.bounced,
        double_bounces: found.double_bounces,
        removed: found.removed,
        held: found.held,
        queued: found.queued,
    }
}

fn judge_clock(config: &Config, newest_us: u64, journal: &mut Journal) -> Clock {
    let operator = config.clock.confirmed;
    let (now_us, wall_us) = (engine::now_us(), engine::wall_us());
    let vouched = operator || host::is_clock_synchronised();
    let (_, doubt) = Clock::new(newest_us, vouched, now_us, wall_us);
    let Some(off_us) = doubt else {
        return Clock::new(if vouched { 0 } else { newest_us }, operator, now_us, wall_us).0;
    };
    let off_s = off_us / 1_000_000;
    let side = if off_s < 0 { "behind" } else { "ahead of" };
    let text = format!(
        "the wall clock stands {} s {side} the newest record: nothing expires until it is \
         confirmed, by NTP or [clock] confirmed = true",
        off_s.abs()
    );
    journal.alarm(Alarm::Clock, &text);
    Clock::new(newest_us, operator, now_us, wall_us).0
}

/// The operator's standing orders; what of them makes no sense is an alarm.
fn load_rules(config: &Config, journal: &mut Journal) -> Result<crate::rules::Rules, BootError> {
    let folder = house::state::folder(config);
    let fail = |error| {
        let what = format!("standing orders in {}: {error}", folder.display());
        BootError::unavailable(what, "[admin] state must be readable by this user")
    };
    let (rules, bad) = house::state::load_rules(&folder).map_err(fail)?;
    for line in bad {
        let text = format!("a standing order makes no sense and does not hold: {line}");
        journal.alarm(Alarm::Log, &text);
    }
    Ok(rules)
}

/// A panic ends the process, and leaves a note of whom it was working for.
fn note_panics(hints: &'static ::hints::Hints<'static>, run: u32) {
    std::panic::set_hook(Box::new(move |info| {
        tally::note(hints, run, engine::wall_us());
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?");
        eprintln!("ringpostd: {name}: {info}");
        eprintln!("{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }));
}

/// The addresses of this machine's interfaces.
fn own_addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Checks a config with the certificates it names, and starts nothing. Lines of what is odd.
///
/// # Errors
/// All that is wrong, one line each.
pub fn check(config_file: &Path, against: Option<&Path>) -> Result<Vec<String>, Vec<String>> {
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let loaded = Config::load(config_file).map_err(|problems| lines(problems.to_string()))?;
    let mut said = lines(loaded.warnings.to_string());
    let mut config = loaded.config;
    // One that cannot be read is not in force.
    if let Some(old) = against.and_then(|file| Config::load(file).ok()) {
        let lockouts = config::lockouts(&old.config, &config);
        if !lockouts.is_empty() {
            return Err(lockouts);
        }
    }
    let (there, missing): (Vec<_>, Vec<_>) = config
        .tls
        .certificates
        .iter()
        .cloned()
        .partition(|c| !c.self_signed || c.certificate.exists());
    said.extend(missing.iter().map(|certificate| {
        format!(
            "{}: will be made, self-signed, at the first start",
            certificate.certificate.display()
        )
    }));
    let none_left = there.is_empty();
    config.tls = Arc::new(config::TlsConfig {
        certificates: there,
        ..config::TlsConfig::clone(&config.tls)
    });
    if !none_left {
        let tickets = Tickets::new().map_err(|error| vec![error.to_string()])?;
        let wall_us = engine::wall_us();
        let loaded = certificates::load(&config, &tickets, OnExpired::Refuse, wall_us)?;
        said.extend(loaded.warnings);
    }
    Ok(said)
}
