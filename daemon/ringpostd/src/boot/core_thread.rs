//! One core's thread: its ring, log, listeners and shard, made on the thread that runs them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use engine::{Core, MailboxReceiver, MailboxSender, Probe, host};
use hints::{Hints, Sessions, ShardSet};
use spool::driver::Members;
use spool::file::FileDevice;
use spool::log::{LogConfig, LogStart};
use spool::set::Set;

use crate::config::Config;
use crate::desk::{Desk, Ids, Log, Random, Space, Stream};
use crate::events::{Event, Note};
use crate::health::Door;
use crate::inbound;
use crate::lookup::Names;
use crate::maillog::MailLog;
use crate::maillog::outlet::QueueSink;
use crate::metrics::CoreMetrics;
use crate::post::{Orders, ToCore, ToHouse};
use crate::recorder::Recorder;
use crate::relay::Relay;
use crate::shard::{Loads, Shard};
use crate::standing::Standing;
use crate::tls::ClientTls;
use crate::ways::Ways;
use crate::xdp::{Fuse, Lists};

use super::sockets::Socket;

/// What all cores get.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// The kernel.
    pub probe: Probe,
    /// What is in force.
    pub orders: Arc<Orders>,
    /// The tables.
    pub hints: &'static Hints<'static>,
    /// Open sessions by client.
    pub sessions: Arc<Sessions>,
    /// Sessions of each core.
    pub loads: Loads,
    /// Lists of addresses.
    pub lists: Arc<Lists>,
    /// The bound on bans.
    pub fuse: Arc<Fuse>,
    /// The cores' mailboxes.
    pub cores: Vec<MailboxSender<ToCore>>,
    /// The house's mailbox.
    pub house: MailboxSender<ToHouse>,
    /// The spool's devices.
    pub set: Arc<Set<FileDevice>>,
    /// The number of this run.
    pub run: u32,
    /// Wall time of the newest record; none in an empty spool.
    pub newest_wall_us: Option<u64>,
    /// TLS towards next hops.
    pub tls: ClientTls,
    /// Addresses of this machine.
    pub own_addresses: Arc<[IpAddr]>,
    /// Bytes a core may lock.
    pub locked_bytes_max: u64,
}

/// What one core gets.
#[derive(Debug)]
pub(super) struct Own {
    /// Its number.
    pub core: usize,
    /// The processor it runs on.
    pub cpu: usize,
    /// Its mail.
    pub mail: MailboxReceiver<ToCore>,
    /// Its log.
    pub log: LogStart,
    /// Its sockets.
    pub sockets: Vec<Socket>,
    /// Its counters.
    pub metrics: CoreMetrics,
    /// Its end of the log files.
    pub lines: QueueSink,
    /// Any number.
    pub seed: u64,
}

/// The thread: runs until it is stopped, or says why not.
pub(super) fn run(common: &Common, own: Own) {
    let (core, house) = (own.core, common.house.clone());
    if let Err(why) = try_run(common, own) {
        // The house takes its mail all the time: there is room soon.
        let mut letter = ToHouse::Failed(core, why);
        while let Err(back) = house.post(letter) {
            letter = back;
            std::thread::yield_now();
        }
    }
}

fn try_run(common: &Common, own: Own) -> Result<(), String> {
    let config = common.orders.config.clone();
    let pinned = host::pin_to_cpu(own.cpu);
    let engine_config = engine_config(&config, common);
    let slots = engine_config.slots();
    let mut core = Core::new(engine_config, &common.probe, own.mail).map_err(|e| e.to_string())?;
    let post = |letter| common.house.post(letter).map_err(|_| "the house takes no mail".to_owned());
    post(ToHouse::Beats(own.core, core.heartbeat()))?;
    let mut listeners = Vec::with_capacity(own.sockets.len());
    let mut listening = Vec::with_capacity(own.sockets.len());
    for Socket { listener, address, fd } in own.sockets {
        let tag = u32::try_from(listener).map_err(|_| "too many listeners")?;
        let listener = core.adopt_listener(fd, tag);
        listeners.push(listener.map_err(|error| format!("listening on {address}: {error}"))?);
        listening.push(address);
    }
    let members = Members::open(&mut core, &common.set).map_err(|error| error.to_string())?;
    let buffers = Members::buffers(&core).ok_or("too few disk buffers")?;
    let log = Log::new(own.log, log_config(&config, slots), buffers, core.now_us());
    let parts = Parts { log, metrics: own.metrics, lines: own.lines, seed: own.seed };
    let mut desk = desk(common, &config, own.core, parts, &listening, &core)?;
    let cores = common.cores.len();
    let (now_us, wall_us) = (core.now_us(), core.wall_us());
    let mut relay = Relay::new(&config, cores, &common.tls, common.newest_wall_us, now_us, wall_us);
    let queued: Vec<_> = desk.log.messages().cloned().collect();
    for live in &queued {
        relay.restore(&mut desk, live);
    }
    drop(queued);
    let pinned = pinned.err().map(|error| format!("core {}: not pinned: {error}", own.core));
    for note in core.notes().iter().chain(&pinned) {
        desk.tell(&Event::Noted(Note::Started, note));
    }
    let slots = usize::try_from(slots).expect("slots are below 2^20");
    let mut shard = Shard::new(desk, relay, listeners, Arc::clone(&common.loads), members, slots);
    shard.begin(&mut core);
    post(ToHouse::Ready(own.core, listening))?;
    core.run(&mut shard).map_err(|error| format!("io_uring_enter: {error}"))
}

struct Parts {
    log: Log,
    metrics: CoreMetrics,
    lines: QueueSink,
    seed: u64,
}

fn desk(
    common: &Common,
    config: &Config,
    core: usize,
    parts: Parts,
    listening: &[SocketAddr],
    ring: &Core<ToCore>,
) -> Result<Desk, String> {
    let Parts { log, metrics, lines, seed } = parts;
    let cores = common.cores.len();
    let orders = Arc::clone(&common.orders);
    let number = u8::try_from(core).map_err(|_| "at most 256 cores")?;
    let writer = common.hints.claim(ShardSet::of_core(core, cores));
    let limits = Arc::clone(&config.limits);
    Ok(Desk {
        core,
        now_us: ring.now_us(),
        wall_us: ring.wall_us(),
        records_wall_us: ring.wall_us(),
        receipt_wall_us: ring.wall_us(),
        machines: inbound::machines(config, orders.tls.is_some()),
        orders,
        log,
        pending: HashMap::new(),
        standing: Standing::new(common.hints, Arc::clone(&common.sessions), limits),
        hints: common.hints,
        writer: writer.ok_or("another thread writes this core's hints")?,
        stream: Stream {
            metrics,
            maillog: MailLog::new(&config.log, lines),
            recorder: Recorder::default(),
        },
        ids: Ids::new(config.node.id, common.run, number),
        ways: Ways::new(config, &common.own_addresses, listening),
        door: Door::from_environment(),
        cores: common.cores.clone(),
        house: common.house.clone(),
        outbox: Vec::new(),
        random: Random::new(seed),
        names: Names::new(&config.resolver, random_numbers()),
        token: 0,
        paused: HashMap::new(),
        traced: Vec::new(),
        stopped: false,
        space: Space::default(),
        lists: Arc::clone(&common.lists),
        fuse: Arc::clone(&common.fuse),
        busy: false,
        listener_sessions: Vec::new(),
        scratch: Vec::new(),
    })
}

/// Random numbers nobody can foresee, taken from the kernel a page at a time.
fn random_numbers() -> impl FnMut() -> u64 + Send + 'static {
    let mut octets = [0; 2048];
    let mut at = octets.len();
    move || {
        if at == octets.len() {
            getrandom::fill(&mut octets).expect("the kernel gave random octets at start");
            at = 0;
        }
        let word = octets[at..at + 8].try_into().expect("eight octets");
        at += 8;
        u64::from_ne_bytes(word)
    }
}

/// Receive buffers of a core, and bytes of each: most messages come in one, all of them fit into a
/// core's second cache, and a turn cannot bring more than a mebibyte (docs/performance.md).
const RECV_BUFFERS: u16 = 128;
const RECV_BUFFER_BYTES: u32 = 8 << 10;

fn engine_config(config: &Config, common: &Common) -> engine::Config {
    let cores = u32::try_from(common.cores.len()).unwrap_or(u32::MAX).max(1);
    engine::Config {
        connections_max: config.node.sessions_max.div_ceil(cores),
        disk_buffers: spool::driver::disk_classes(common.set.superblock.copies),
        locked_bytes_max: common.locked_bytes_max,
        linger_us: config.timeouts_in.close_s.us(),
        recv_buffers: RECV_BUFFERS,
        recv_buffer_bytes: RECV_BUFFER_BYTES,
        ..engine::Config::default()
    }
}

fn log_config(config: &Config, slots: u32) -> LogConfig {
    LogConfig {
        commit_wait_us: config.spool.commit_wait_s_max.us(),
        transactions_max: slots,
        ..LogConfig::default()
    }
}
