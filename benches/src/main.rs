//! The program: one command each for floor, source, sink and measure.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mxbench::compare::{self, report::Report};
use mxbench::measure::{self, Plan, Server};
use mxbench::sink::faults::Fault;
use mxbench::sink::ledger::{self, Ledger};
use mxbench::sink::options::Extension;
use mxbench::source::mail::Size;
use mxbench::source::options::{Options, Pace, Refused, Starttls};
use mxbench::{bare, floor, shards, sink, source, system};

#[derive(Debug, Parser)]
#[command(version, about = "Measures an MX against the physical limit and its peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the floor loop: the physical limit for the same dialogue.
    Floor(FloorArguments),
    /// Send mail, check every reply and take every phase's time.
    Source(Box<SourceArguments>),
    /// Take mail: count it or keep it, with faults on demand.
    Sink(Box<SinkArguments>),
    /// Compare a source's list of acknowledged ids with what a Maildir folder holds.
    Check(CheckArguments),
    /// Measure servers against the floor: CPU per message, rates, latency, writes, memory.
    Measure(Box<MeasureArguments>),
    /// Measure what a second shard adds to the CPU of a message, at the same total rate.
    Shards(ShardsArguments),
    /// Carry out a plan: servers and their peers in turn; table, JSON and a page with plots.
    Compare(CompareArguments),
}

#[derive(Debug, Args)]
struct FloorArguments {
    /// Address and port to listen on; port 0 lets the kernel choose.
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "bare")]
    listen: Option<String>,
    /// Measure the bare machine instead, and end: durable writes and bandwidth in --spool, TCP.
    #[arg(long)]
    bare: bool,
    /// Folder whose device is measured, with --bare.
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Octets of a durable write, with --bare.
    #[arg(long, default_value_t = bare::BLOCK_OCTETS)]
    octets: usize,
    /// Offer STARTTLS, with a certificate made at start.
    #[arg(long, conflicts_with = "bare")]
    tls: bool,
    /// Answer the dot only when the content is on stable storage, in a file in this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["bare", "tls"])]
    durable: Option<PathBuf>,
    /// Stay on this CPU.
    #[arg(long)]
    pin: Option<usize>,
}

#[derive(Debug, Args)]
struct SourceArguments {
    /// The server.
    #[arg(long, value_name = "HOST:PORT")]
    target: String,
    /// Sessions at the same time; in open loop the most.
    #[arg(long, default_value_t = 64)]
    sessions: u32,
    /// Messages on one connection before QUIT.
    #[arg(long, default_value_t = 20)]
    messages_per_connection: u64,
    /// Messages in all (closed loop).
    #[arg(long, conflicts_with_all = ["duration", "rate", "idle"])]
    total: Option<u64>,
    /// Seconds in which messages begin.
    #[arg(long, value_parser = seconds, default_value = "5")]
    duration: Duration,
    /// Messages a second at fixed times, whatever the server does (open loop).
    #[arg(long)]
    rate: Option<f64>,
    /// Octets of a message (4096, 64k, 1m) or `mix` for sizes like real mail.
    #[arg(long, value_parser = size, default_value = "4096")]
    size: Size,
    /// Recipients of a message.
    #[arg(long, default_value_t = 1)]
    recipients: usize,
    /// Recipient addresses; `%` stands for the number of the recipient.
    #[arg(long, default_value = "user%@example.org")]
    to: String,
    /// Sender address.
    #[arg(long, default_value = "mxbench@example.com")]
    from: String,
    /// Name given in EHLO.
    #[arg(long, default_value = "mxbench.example.com")]
    helo: String,
    /// Wait for each reply even if PIPELINING is announced.
    #[arg(long)]
    no_pipelining: bool,
    /// Shut our side down together with QUIT.
    #[arg(long)]
    quit_fin: bool,
    /// Connect from so many addresses 127.0.1.1 and on (loopback targets); 1: the kernel's choice.
    #[arg(long, default_value_t = 1)]
    source_addresses: u32,
    /// The first address to connect from, with --source-addresses.
    #[arg(long, default_value = "127.0.1.1")]
    source_first: Ipv4Addr,
    /// Send content with BDAT where CHUNKING is announced.
    #[arg(long)]
    chunking: bool,
    /// Share of the connections that use STARTTLS where it is announced, from 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    starttls: f64,
    /// Share of those that resume the session of the connection before them.
    #[arg(long, default_value_t = 0.0, value_parser = share, requires = "starttls")]
    resumed: f64,
    /// Only this version of TLS: 1.2 or 1.3.
    #[arg(long, value_parser = tls_version)]
    tls_version: Option<&'static rustls::SupportedProtocolVersion>,
    /// Share of messages to a recipient that is not known: a refusal is right.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    unknown: f64,
    /// That recipient; `%` stands for a number.
    #[arg(long, default_value = "nobody%@elsewhere.example")]
    unknown_to: String,
    /// Share of messages declared larger than anybody takes: a refusal is right.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    oversized: f64,
    /// Share of connections from the address --listed-from: a refusal is right.
    #[arg(long, default_value_t = 0.0, value_parser = share, requires = "listed_from")]
    listed: f64,
    /// An address the server turns away.
    #[arg(long)]
    listed_from: Option<Ipv4Addr>,
    /// Send the `.eml` files of this folder, by chance, instead of made messages.
    #[arg(long, value_name = "DIR")]
    eml: Option<PathBuf>,
    /// So many of the sessions send slowly.
    #[arg(long, default_value_t = 0)]
    slow: u32,
    /// Octets a second a slow session sends.
    #[arg(long, default_value_t = 100)]
    slow_octets_per_s: u32,
    /// Open so many sessions, say EHLO and hold them for `--duration`; no messages.
    #[arg(long, conflicts_with = "rate")]
    idle: Option<u32>,
    /// Seconds a reply may take.
    #[arg(long, value_parser = seconds, default_value = "60")]
    timeout: Duration,
    /// End early after so many failed connections.
    #[arg(long, default_value_t = 1000)]
    failures_max: u64,
    /// Write the ids of acknowledged messages here, one a line.
    #[arg(long, value_name = "FILE")]
    acked: Option<PathBuf>,
    /// Write the replies of 400 and above here, as they come.
    #[arg(long, value_name = "FILE")]
    refusals: Option<PathBuf>,
    /// Seed of contents and sizes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stay on this CPU.
    #[arg(long)]
    pin: Option<usize>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Exit with success though connections failed or messages were refused.
    #[arg(long)]
    tolerant: bool,
    /// A progress line each second.
    #[arg(long)]
    progress: bool,
}

#[derive(Debug, Args)]
struct SinkArguments {
    /// Address and port to listen on; port 0 lets the kernel choose.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: String,
    /// Keep messages in this Maildir folder.
    #[arg(long, value_name = "DIR")]
    maildir: Option<PathBuf>,
    /// At the end, compare with this list of acknowledged ids.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Extensions announced, with commas; all by default.
    #[arg(long, value_delimiter = ',')]
    extensions: Option<Vec<String>>,
    /// Extensions announced but refused.
    #[arg(long, value_delimiter = ',')]
    lies: Vec<Extension>,
    /// Octets of the largest message.
    #[arg(long, default_value_t = 128 << 20)]
    size_max: usize,
    /// STAGE:EFFECT[:SHARE]: at banner, ehlo, mail, rcpt, data, dot or quit a code (450), `close`,
    /// `lose-reply` (dot: kept, then closed without a reply) or a delay (250ms). May be repeated.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Seed of the faults' dice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Refuse a sender and recipient seen first with 450 for so many seconds.
    #[arg(long, value_parser = seconds)]
    greylist: Option<Duration>,
    /// After so many seconds do nothing for `--stall-for`.
    #[arg(long, value_parser = seconds, requires = "stall_for")]
    stall_at: Option<Duration>,
    /// Seconds of the stall.
    #[arg(long, value_parser = seconds)]
    stall_for: Option<Duration>,
    /// Name in the banner.
    #[arg(long, default_value = "sink.example")]
    name: String,
    /// Offer STARTTLS, with a certificate made at start.
    #[arg(long)]
    tls: bool,
    /// A line for each message.
    #[arg(long)]
    verbose: bool,
    /// Stay on this CPU.
    #[arg(long)]
    pin: Option<usize>,
}

#[derive(Debug, Args)]
struct CheckArguments {
    /// The list `mxbench source --acked` wrote.
    #[arg(long, value_name = "FILE")]
    acked: PathBuf,
    /// Maildir folders of the sinks.
    #[arg(long, value_name = "DIR", required = true)]
    maildir: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct MeasureArguments {
    /// Name of a server; `discard` and `durable` are put in relation. Once for each server.
    #[arg(long = "name")]
    names: Vec<String>,
    /// Where it listens. Once for each server.
    #[arg(long = "server-addr", value_name = "HOST:PORT")]
    addresses: Vec<String>,
    /// A line for `sh -c` that runs it in the foreground. Once for each server.
    #[arg(long = "server-cmd", value_name = "COMMAND")]
    commands: Vec<String>,
    /// CPU of the servers; otherwise the one that the disk below --spool interrupts.
    #[arg(long)]
    server_cpu: Option<usize>,
    /// CPU of the source; otherwise another one.
    #[arg(long)]
    source_cpu: Option<usize>,
    /// Rounds; the servers take turns in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one burst.
    #[arg(long, value_parser = seconds, default_value = "1")]
    burst: Duration,
    /// Sessions at the same time.
    #[arg(long, default_value_t = 64)]
    sessions: u32,
    /// Octets of a message, with commas.
    #[arg(long, value_delimiter = ',', default_value = "4096")]
    sizes: Vec<String>,
    /// Messages on a connection, with commas.
    #[arg(long, value_delimiter = ',', default_value = "1,20")]
    messages_per_connection: Vec<u64>,
    /// A further argument of `mxbench source`, such as --no-pipelining. May be repeated.
    #[arg(long, allow_hyphen_values = true)]
    source_argument: Vec<String>,
    /// Idle sessions whose memory is measured; 0: none.
    #[arg(long, default_value_t = 10_000)]
    idle: u32,
    /// Idle sessions inside TLS as well.
    #[arg(long)]
    idle_tls: bool,
    /// Measure memory under ten messages of 100 MiB at once, too.
    #[arg(long)]
    large: bool,
    /// Take latencies in open loop at half of each server's rate, too.
    #[arg(long)]
    half_rate: bool,
    /// Measure the durable floor in --spool, too: the least for the same dialogue and commits. The
    /// messages of all sessions together may have 8 MiB.
    #[arg(long, requires = "spool")]
    durable_floor: bool,
    /// Run servers and source under SCHED_FIFO (needs the right to, and `chrt`).
    #[arg(long)]
    fifo: bool,
    /// Count flushes and writes of this block device, whoever makes them; otherwise of the one
    /// below --spool.
    #[arg(long)]
    device: Option<String>,
    /// Folder of the servers' spools: a bare commit is measured there.
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Print all as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShardsArguments {
    /// A line for `sh -c`: the server with one shard; it says where it listens.
    #[arg(long, value_name = "COMMAND")]
    one: String,
    /// The same server with two.
    #[arg(long, value_name = "COMMAND")]
    two: String,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one burst.
    #[arg(long, value_parser = seconds, default_value = "0.9")]
    burst: Duration,
    /// Sessions at the same time, at most.
    #[arg(long, default_value_t = 64)]
    sessions: u32,
    /// Messages on a connection, with commas.
    #[arg(long, value_delimiter = ',', default_value = "1,20")]
    messages_per_connection: Vec<u64>,
    /// Rates, as shares of what one shard makes in closed loop, with commas.
    #[arg(long, value_delimiter = ',', value_parser = share, default_value = "0.5,0.8")]
    shares: Vec<f64>,
    /// Run server and source under SCHED_FIFO (needs the right to, and `chrt`).
    #[arg(long)]
    fifo: bool,
    /// Print all as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CompareArguments {
    /// The plan, a TOML file; or the JSON of a comparison, to print it again.
    plan: PathBuf,
    /// Write everything as JSON here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots here.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Say what moved since this comparison (its JSON), and whether by more than the noise.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Rounds, other than the plan's.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of a burst, other than the plan's.
    #[arg(long)]
    burst: Option<f64>,
    /// Folder of all spools, other than the plan's.
    #[arg(long, value_name = "DIR")]
    place: Option<PathBuf>,
    /// Only these servers (and the floor), with commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these loads, by name, with semicolons.
    #[arg(long, value_delimiter = ';')]
    load: Vec<String>,
    /// Check the plan and start nothing.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let result = system::raise_file_limit().and_then(|_| match Arguments::parse().command {
        Command::Floor(arguments) => serve_floor(&arguments),
        Command::Source(arguments) => run_source(*arguments),
        Command::Sink(arguments) => serve_sink(*arguments),
        Command::Check(arguments) => check(&arguments),
        Command::Measure(arguments) => run_measure(*arguments),
        Command::Shards(arguments) => run_shards(arguments),
        Command::Compare(arguments) => run_compare(&arguments),
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mxbench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_floor(arguments: &FloorArguments) -> io::Result<ExitCode> {
    let Some(listen) = arguments.listen.as_ref().filter(|_| !arguments.bare) else {
        let last = std::thread::available_parallelism()?.get() - 1;
        let bare = bare::measure(arguments.spool.as_deref(), [0, last], arguments.octets)?;
        system::say(&bare.text())?;
        return Ok(ExitCode::SUCCESS);
    };
    arguments.pin.map_or(Ok(()), system::pin)?;
    let file = arguments.durable.as_deref().map(floor::durable_file).transpose()?;
    let stop = system::stop_signals()?;
    let listener = system::listener(address(listen)?)?;
    system::say(&format!("mxbench floor: listening on {}", listener.local_addr()?))?;
    let counts = match file {
        Some(file) => floor::serve_durable(listener, stop, file)?,
        None if arguments.tls => floor::serve_tls(listener, stop)?,
        None => floor::serve(listener, stop)?,
    };
    system::say(&serde_json::to_string(&counts)?)?;
    Ok(ExitCode::SUCCESS)
}

fn run_source(arguments: SourceArguments) -> io::Result<ExitCode> {
    arguments.pin.map_or(Ok(()), system::pin)?;
    let stop = system::stop_signals()?;
    let json = arguments.json;
    let tolerant = arguments.tolerant;
    let options = source_options(arguments)?;
    let files = system::raise_file_limit()?;
    if u64::from(options.sessions) + 50 > files {
        let text = format!("{} sessions: only {files} open files are allowed", options.sessions);
        return Err(io::Error::other(text));
    }
    let summary = source::run(options, stop, &mut |open| {
        let _ = system::say(&format!("mxbench source: {open} idle sessions stand"));
    })?;
    if json {
        system::say(&serde_json::to_string(&summary)?)?;
    } else {
        system::say(summary.table().trim_end())?;
    }
    let bad = summary.failures + summary.refused + summary.unknown + summary.taken_wrongly;
    let well = bad == 0;
    Ok(if well || tolerant { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn source_options(arguments: SourceArguments) -> io::Result<Options> {
    let target = address(&arguments.target)?;
    let pace = match (arguments.total, arguments.rate, arguments.idle) {
        (Some(total), _, _) => Pace::Total(total),
        (_, Some(rate), _) if rate > 0.0 => Pace::Open { rate, duration: arguments.duration },
        (_, Some(_), _) => return Err(io::Error::other("--rate: above 0")),
        (_, _, Some(_)) => Pace::Idle(arguments.duration),
        _ => Pace::For(arguments.duration),
    };
    if arguments.recipients == 0 || arguments.messages_per_connection == 0 {
        return Err(io::Error::other("--recipients and --messages-per-connection: at least 1"));
    }
    let chosen = arguments.source_first != Ipv4Addr::new(127, 0, 1, 1);
    let spread = chosen || target.ip().is_loopback();
    let source_addresses = if spread { arguments.source_addresses } else { 1 };
    Ok(Options {
        target,
        sessions: arguments.idle.unwrap_or(arguments.sessions),
        messages_per_connection: arguments.messages_per_connection,
        pace,
        size: arguments.size,
        recipients: arguments.recipients,
        to: arguments.to,
        from: arguments.from,
        helo: arguments.helo,
        pipelining: !arguments.no_pipelining,
        quit_fin: arguments.quit_fin,
        source_addresses,
        source_first: arguments.source_first,
        chunking: arguments.chunking,
        starttls: (arguments.starttls > 0.0).then_some(Starttls {
            share: arguments.starttls,
            resumed_share: arguments.resumed,
            version: arguments.tls_version,
        }),
        refused: Refused {
            unknown_share: arguments.unknown,
            unknown_to: arguments.unknown_to,
            oversized_share: arguments.oversized,
            listed_share: arguments.listed,
            listed: arguments.listed_from,
        },
        eml: arguments.eml,
        slow: (arguments.slow > 0).then_some((arguments.slow, arguments.slow_octets_per_s)),
        timeout: arguments.timeout,
        failures_max: arguments.failures_max,
        acked: arguments.acked,
        refusals: arguments.refusals,
        seed: arguments.seed,
        progress: arguments.progress,
    })
}

fn serve_sink(arguments: SinkArguments) -> io::Result<ExitCode> {
    arguments.pin.map_or(Ok(()), system::pin)?;
    let stop = system::stop_signals()?;
    let mut options = sink::options::Options {
        name: arguments.name,
        lies: arguments.lies,
        size_max: arguments.size_max,
        faults: arguments.faults,
        seed: arguments.seed,
        greylist_ms: arguments.greylist.map(milliseconds),
        maildir: arguments.maildir,
        check: arguments.check,
        verbose: arguments.verbose,
        starttls: arguments.tls,
        stall_ms: arguments
            .stall_at
            .zip(arguments.stall_for)
            .map(|(at, long)| (milliseconds(at), milliseconds(long))),
        ..sink::options::Options::default()
    };
    if let Some(names) = arguments.extensions {
        let named = names.iter().filter(|name| !name.is_empty()).map(|name| name.parse());
        options.extensions = named.collect::<Result<_, _>>().map_err(io::Error::other)?;
    }
    let checked = options.check.is_some();
    let listener = system::listener(address(&arguments.listen)?)?;
    system::say(&format!("mxbench sink: listening on {}", listener.local_addr()?))?;
    let taken = sink::serve(&options, listener, stop)?;
    system::say(&serde_json::to_string(&taken)?)?;
    let well = !checked || (taken.account.lost == 0 && taken.account.doubled == 0);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(arguments: &CheckArguments) -> io::Result<ExitCode> {
    let acked = ledger::read_ids(&arguments.acked)?;
    let mut all = Ledger::default();
    for maildir in &arguments.maildir {
        ledger::read_maildir(maildir, &mut all)?;
    }
    let account = all.account(Some(&acked));
    system::say(&serde_json::to_string(&account)?)?;
    let well = account.lost == 0 && account.doubled == 0;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_measure(arguments: MeasureArguments) -> io::Result<ExitCode> {
    let count = arguments.commands.len();
    if arguments.addresses.len() != count || arguments.names.len() != count {
        let text = "--name, --server-addr and --server-cmd: one of each for every server";
        return Err(io::Error::other(text));
    }
    if let Some(bad) = arguments.sizes.iter().find(|text| size(text).is_err()) {
        return Err(io::Error::other(format!("--sizes: {bad}: octets, 64k, 1m or mix")));
    }
    let servers = arguments.names.into_iter().zip(arguments.addresses).zip(arguments.commands);
    let servers = servers
        .map(|((name, at), command)| Ok(Server { name, address: address(&at)?, command }))
        .collect::<io::Result<Vec<Server>>>()?;
    let stop = system::stop_signals()?;
    let below = |spool: &PathBuf| mxbench::proc::device_of(spool).ok();
    let device = arguments.device.or_else(|| arguments.spool.as_ref().and_then(below));
    let asked = [arguments.server_cpu, arguments.source_cpu];
    let cpus = measure::processors(asked, arguments.spool.as_ref(), device.as_ref())?;
    let plan = Plan {
        servers,
        cpus,
        rounds: arguments.rounds.max(1),
        burst: arguments.burst,
        sessions: arguments.sessions,
        sizes: arguments.sizes,
        messages_per_connection: arguments.messages_per_connection,
        source_arguments: arguments.source_argument,
        idle: arguments.idle,
        idle_tls: arguments.idle_tls,
        large: arguments.large,
        half_rate: arguments.half_rate,
        durable_floor: arguments.durable_floor,
        fifo: arguments.fifo,
        device,
        spool: arguments.spool,
    };
    let report = measure::run(&plan, stop)?;
    if arguments.json {
        system::say(&serde_json::to_string_pretty(&report)?)?;
    } else {
        system::say(report.table().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_shards(arguments: ShardsArguments) -> io::Result<ExitCode> {
    let plan = shards::Plan {
        commands: [arguments.one, arguments.two],
        rounds: arguments.rounds.max(1),
        burst: arguments.burst,
        sessions: arguments.sessions,
        messages_per_connection: arguments.messages_per_connection,
        shares: arguments.shares,
        fifo: arguments.fifo,
    };
    let report = shards::run(&plan, system::stop_signals()?)?;
    if arguments.json {
        system::say(&serde_json::to_string_pretty(&report)?)?;
    } else {
        system::say(report.table().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_compare(arguments: &CompareArguments) -> io::Result<ExitCode> {
    let read = |path: &Path| -> io::Result<Report> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        serde_json::from_str(&text)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
    };
    let old = arguments.against.as_deref().map(read).transpose()?;
    let report = if arguments.plan.extension().is_some_and(|ending| ending == "json") {
        read(&arguments.plan)?
    } else {
        let Some(report) = carry_out(arguments)? else { return Ok(ExitCode::SUCCESS) };
        report
    };
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(path) = &arguments.html {
        std::fs::write(path, compare::page::html(&report))?;
    }
    system::say(report.table().trim_end())?;
    if let Some(old) = old {
        system::say("")?;
        system::say(compare::against::text(&report, &old).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `None` when only a check was asked for.
fn carry_out(arguments: &CompareArguments) -> io::Result<Option<Report>> {
    let mut plan = compare::plan::Plan::read(&arguments.plan)?;
    plan.rounds = arguments.rounds.unwrap_or(plan.rounds);
    plan.burst_s = arguments.burst.unwrap_or(plan.burst_s);
    plan.place = arguments.place.clone().or(plan.place);
    if let Some(place) = &plan.place {
        plan.place =
            Some(place.canonicalize().map_err(|error| {
                io::Error::other(format!("place {}: {error}", place.display()))
            })?);
    }
    let server = |name: &&String| plan.servers.iter().all(|server| server.name != **name);
    let load = |name: &&String| plan.loads.iter().all(|load| load.name != **name);
    let missing = arguments.only.iter().find(server).or_else(|| arguments.load.iter().find(load));
    if let Some(name) = missing {
        return Err(io::Error::other(format!("{name}: not in the plan")));
    }
    if !arguments.only.is_empty() {
        plan.servers.retain(|server| arguments.only.contains(&server.name));
    }
    if !arguments.load.is_empty() {
        plan.loads.retain(|load| arguments.load.contains(&load.name));
    }
    let path = arguments.plan.canonicalize()?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let mut wrong = plan.check(folder);
    wrong.extend(wrong_words(&plan));
    let results = arguments.json.iter().chain(&arguments.html);
    wrong.extend(results.filter_map(|path| no_place_for(path)));
    if plan.server_cpu == plan.source_cpu {
        let cpu = plan.server_cpu;
        eprintln!("mxbench: server and source share CPU {cpu}: no rate will count");
    }
    if !wrong.is_empty() {
        return Err(io::Error::other(wrong.join("\nmxbench: ")));
    }
    if arguments.check {
        system::say("the plan can be carried out")?;
        return Ok(None);
    }
    compare::run(&plan, folder, system::stop_signals()?).map(Some)
}

/// What a source would not understand of the loads' and servers' arguments.
fn wrong_words(plan: &compare::plan::Plan) -> Vec<String> {
    let mut wrong: Vec<String> = Vec::new();
    for run in plan.runs() {
        for server in plan.servers.iter().filter(|server| run.is_for(Some(server))) {
            let words = run.arguments(Some(server), plan.burst_s);
            let usual = ["mxbench", "source", "--target", "127.0.0.1:25"].map(str::to_owned);
            let Err(error) = Arguments::try_parse_from(usual.into_iter().chain(words)) else {
                continue;
            };
            let error = error.to_string();
            let what = error.lines().next().unwrap_or_default();
            let what = format!("load {}: {}", run.family, what.trim_start_matches("error: "));
            if !wrong.contains(&what) {
                wrong.push(what);
            }
        }
    }
    wrong
}

/// Why a result could not be written there: better said now than at the end.
fn no_place_for(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let there = folder.unwrap_or_else(|| Path::new("."));
    (path.is_dir() || !there.is_dir()).then(|| format!("{}: cannot be written", path.display()))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn address(text: &str) -> io::Result<SocketAddr> {
    text.to_socket_addrs()?.next().ok_or_else(|| io::Error::other(format!("{text}: no address")))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "seconds, such as 2 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "a share, such as 0.25".to_owned())?;
    (0.0..=1.0).contains(&share).then_some(share).ok_or_else(|| "from 0 to 1".to_owned())
}

fn tls_version(text: &str) -> Result<&'static rustls::SupportedProtocolVersion, String> {
    match text {
        "1.2" => Ok(&rustls::version::TLS12),
        "1.3" => Ok(&rustls::version::TLS13),
        _ => Err("1.2 or 1.3".to_owned()),
    }
}

fn size(text: &str) -> Result<Size, String> {
    if text == "mix" {
        return Ok(Size::Mix);
    }
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    let number: usize = digits.parse().map_err(|_| "octets, 64k, 1m or mix".to_owned())?;
    Ok(Size::Fixed(number * unit))
}
