//! The housekeeping thread: admin socket, metrics page, log files, look-ups for the cores, signals,
//! reload, watchdog, snapshots. The only place with an async runtime.
//!
//! *Guarantees*: no core ever waits for it: all it is asked comes and goes by mailbox. A reload
//! takes a config as a whole or not at all.
//! *Limits*: [`limits`].
//! *Failure*: a core that failed ends the process: a restart recovers, which is the tested path. A
//! core that stands still is named in the log, on standard error and in the status.
//! *Not here*: starting cores (`boot`), what a core answers (`admin`).

pub mod limits;

mod notify;

mod signals;

mod logs;

mod journal;

mod clock;

mod lookups;

pub mod certificates;

pub mod feeds;

pub mod state;

mod reload;

mod console;

mod page;

mod questions;

mod hints;

mod why;

mod orders;

mod spf;

mod trials;

mod machine;

mod configs;

mod upgrade;

mod requests;

mod filter;

mod bans;

mod ladder;
mod devices;
mod takein;

mod chores;

pub use clock::Clock;
pub use journal::Journal;
pub use notify::Notify;
pub use signals::block as block_signals;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use control::{Ledger, RunState};
use engine::{Heartbeat, MailboxReceiver, MailboxSender};
use spool::file::FileDevice;
use spool::set::Set;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::events::{Alarm, Note};
use crate::metrics::CoreView;
use crate::post::{Orders, ToCore, ToHouse};
use crate::shard::Loads;
use crate::tls::Tickets;

use self::hints::Tables;
use certificates::Certificates;
use console::Console;
use devices::Absent;
pub use devices::{Look, Returned};
use feeds::Listed;
use filter::Filter;
use limits::{DRAIN_SLACK, POST_AGAIN};
use lookups::Lookups;
use questions::Questions;
use signals::{Signals, Wish};

/// Mail taken before other work gets its turn.
const MAIL_PER_TURN: usize = 1024;

/// The house's end of one core.
#[derive(Debug)]
pub struct CoreEnd {
    /// Its mailbox.
    pub mailbox: MailboxSender<ToCore>,
    /// Its counters.
    pub view: CoreView,
}

/// What was found at start and does not change.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The config's file.
    pub config_file: PathBuf,
    /// The number of this run.
    pub run: u32,
    /// Wall time of the start.
    pub started_wall_us: u64,
    /// What the kernel offers and what is used of it, one line each.
    pub engine: Vec<String>,
    /// The kernel's release.
    pub kernel: String,
    /// The ledger as it stood before this run.
    pub ledger: Ledger,
    /// Octets of the spool.
    pub spool_octets: u64,
    /// The format in which it is written.
    pub spool_format: u16,
    /// What the operator should know as long as the process runs, one line each.
    pub alarms: Vec<String>,
    /// A parent restarts the process and speaks to the service manager about its end.
    pub supervised: bool,
    /// Addresses of this machine.
    pub own_addresses: Arc<[IpAddr]>,
}

/// All that boot hands over.
#[derive(Debug)]
pub struct Plan {
    /// What was found.
    pub facts: Facts,
    /// What is in force.
    pub orders: Arc<Orders>,
    /// Keys that outlive certificates.
    pub tickets: Tickets,
    /// The certificates in force.
    pub certificates: Certificates,
    /// The house's mail.
    pub mail: MailboxReceiver<ToHouse>,
    /// The cores.
    pub cores: Vec<CoreEnd>,
    /// The tables.
    pub hints: &'static ::hints::Hints<'static>,
    /// The house's stream.
    pub journal: Rc<RefCell<Journal>>,
    /// Its counters.
    pub view: CoreView,
    /// The clock as it was judged at start.
    pub clock: Clock,
    /// The socket to the gate, if there is one.
    pub gate: Option<OwnedFd>,
    /// Lists of addresses.
    pub listed: Listed,
    /// Sessions of each core.
    pub loads: Loads,
    /// The spool's devices, for their superblocks.
    pub set: Rc<RefCell<Set<FileDevice>>>,
    /// Looks for devices that came back.
    pub look: Look,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Every core stopped, all its mail in the log.
    Drained,
    /// A core could not start, or an address cannot be had; what is wrong and what to do.
    NotStarted(String),
    /// A core failed while running.
    Failed(String),
}

/// What is known of one core.
#[derive(Debug, Default)]
struct CoreState {
    beats: Option<Heartbeat>,
    ready: bool,
    stopped: bool,
    stalled: bool,
}

/// The house's state. One thread; nothing is borrowed across an await.
#[derive(Debug)]
struct House {
    facts: Facts,
    tickets: Tickets,
    mailboxes: Arc<[MailboxSender<ToCore>]>,
    hints: &'static ::hints::Hints<'static>,
    tables: Tables,
    questions: Questions,
    lookups: Rc<Lookups>,
    loads: Loads,
    filter: Filter,
    set: Rc<RefCell<Set<FileDevice>>>,
    absent: RefCell<Absent>,
    look: Look,
    notify: Notify,
    orders: RefCell<Arc<Orders>>,
    journal: Rc<RefCell<Journal>>,
    views: RefCell<Vec<CoreView>>,
    cores: RefCell<Vec<CoreState>>,
    listening: RefCell<Vec<SocketAddr>>,
    metrics_at: Cell<Option<SocketAddr>>,
    clock: RefCell<Clock>,
    not_after_s: Cell<Option<i64>>,
    state: Cell<RunState>,
    reloading: Cell<bool>,
    searches: Cell<usize>,
    ordering: Cell<bool>,
    /// Messages accepted, as they stood each second.
    seconds: RefCell<VecDeque<u64>>,
    log_trouble: Cell<bool>,
    consoles: Cell<usize>,
    pages: Cell<usize>,
    end: RefCell<Option<End>>,
    ended: tokio::sync::Notify,
}

/// Runs until the daemon ends. Blocks the calling thread, which should be the first.
///
/// # Errors
/// What the runtime or a signal descriptor says.
pub fn run(plan: Plan) -> io::Result<End> {
    let snapshot = plan.orders.config.hints.snapshot.clone();
    let hints = plan.hints;
    let Plan { journal, .. } = &plan;
    let journal = Rc::clone(journal);
    let end = tokio_uring::start(serve(plan))?;
    let mut journal = journal.borrow_mut();
    if let (Some(path), End::Drained) = (&snapshot, &end)
        && let Err(error) = chores::write_snapshot(hints, path)
    {
        journal.alarm(Alarm::Device, &format!("hints snapshot {}: {error}", path.display()));
    }
    journal.note(Note::Stopped, &end.text());
    journal.end();
    Ok(end)
}

impl End {
    fn text(&self) -> String {
        match self {
            Self::Drained => "all mail is in the log".to_owned(),
            Self::NotStarted(why) | Self::Failed(why) => why.clone(),
        }
    }
}

async fn serve(plan: Plan) -> io::Result<End> {
    let Plan { facts, orders, tickets, certificates, mail, cores, hints, .. } = plan;
    let Plan { journal, view, clock, loads, gate, listed, set, .. } = plan;
    let filter = Filter::new(gate, listed);
    let config = orders.config.clone();
    let mailboxes: Arc<[MailboxSender<ToCore>]> =
        cores.iter().map(|core| core.mailbox.clone()).collect();
    let mut views: Vec<CoreView> = cores.into_iter().map(|core| core.view).collect();
    views.push(view);
    let lookups = match Lookups::new(&config.resolver, mailboxes.to_vec()) {
        Ok(lookups) => lookups,
        Err(why) => return Ok(End::NotStarted(format!("resolver: {why}"))),
    };
    let house = Rc::new(House {
        facts,
        tickets,
        hints,
        tables: Tables { hints, cores: Arc::clone(&mailboxes) },
        questions: Questions::new(mailboxes.to_vec()),
        lookups,
        loads,
        filter,
        set,
        absent: RefCell::default(),
        look: plan.look,
        notify: Notify::from_environment(),
        orders: RefCell::new(orders),
        journal,
        views: RefCell::new(views),
        cores: RefCell::new(mailboxes.iter().map(|_| CoreState::default()).collect()),
        listening: RefCell::default(),
        metrics_at: Cell::new(None),
        clock: RefCell::new(clock),
        not_after_s: Cell::new(certificates.not_after_s),
        state: Cell::new(RunState::Starting),
        reloading: Cell::new(false),
        searches: Cell::new(0),
        ordering: Cell::new(false),
        seconds: RefCell::default(),
        log_trouble: Cell::new(false),
        consoles: Cell::new(0),
        pages: Cell::new(0),
        end: RefCell::default(),
        ended: tokio::sync::Notify::new(),
        mailboxes,
    });
    let console = house.serve_all(mail, &config).await;
    if let Err(error) = &console {
        house.end_with(End::NotStarted(error.to_string()));
    }
    house.ended.notified().await;
    // The socket's name goes before the process does.
    drop(console);
    let end = house.end.borrow_mut().take().expect("notified after it was set");
    Ok(end)
}

impl House {
    /// Starts every service.
    async fn serve_all(
        self: &Rc<Self>,
        mail: MailboxReceiver<ToHouse>,
        config: &Config,
    ) -> io::Result<Option<Rc<Console>>> {
        let signals = Signals::new()?;
        #[expect(deprecated, reason = "what replaces it is unsafe; the value owns its descriptor")]
        let mail = AsyncFd::with_interest(mail, Interest::READABLE)?;
        let console = Console::open(&config.admin)?.map(Rc::new);
        let page = match config.metrics.listen {
            Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
                io::Error::new(error.kind(), format!("metrics page on {address}: {error}"))
            })?),
            None => None,
        };
        tokio::task::spawn_local(Rc::clone(self).read_mail(mail));
        tokio::task::spawn_local(Rc::clone(self).heed(signals));
        tokio::task::spawn_local(Rc::clone(self).do_chores());
        tokio::task::spawn_local(Rc::clone(self).mind_filter());
        Rc::clone(self).take_back_later();
        if let Some(console) = &console {
            tokio::task::spawn_local(Rc::clone(self).serve_consoles(Rc::clone(console)));
        }
        if let Some(page) = page {
            self.metrics_at.set(page.local_addr().ok());
            tokio::task::spawn_local(Rc::clone(self).serve_pages(page));
        }
        Ok(console)
    }

    async fn read_mail(self: Rc<Self>, mail: AsyncFd<MailboxReceiver<ToHouse>>) {
        loop {
            match mail.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => return self.end_with(End::Failed(format!("mailbox: {error}"))),
            }
            mail.get_ref().clear_wake();
            let mut taken = 0;
            while let Some(letter) = mail.get_ref().take() {
                self.letter(letter);
                taken += 1;
                if taken % MAIL_PER_TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn letter(self: &Rc<Self>, letter: ToHouse) {
        match letter {
            ToHouse::Beats(core, beats) => {
                if let Some(core) = self.cores.borrow_mut().get_mut(core) {
                    core.beats = Some(beats);
                }
            }
            ToHouse::Ready(core, listening) => self.core_ready(core, listening),
            ToHouse::Failed(core, why) => {
                let ready = self.state.get() != RunState::Starting;
                let text = format!("core {core}: {why}");
                self.end_with(if ready { End::Failed(text) } else { End::NotStarted(text) });
            }
            ToHouse::Mx(core, domain) => self.lookups.mx(core, domain),
            ToHouse::Addresses(core, host) => self.lookups.addresses(core, host),
            ToHouse::Answered(number, core, reply) => self.questions.answered(number, core, *reply),
            ToHouse::Banned(client, ban) => self.banned(client, &ban),
            ToHouse::Lifted(client, list) => self.lifted(client, list),
            ToHouse::OverTcp(core, number, question) => {
                self.lookups.over_tcp(core, number, question);
            }
            ToHouse::LinesWait(_) => self.journal.borrow().thread().wake(),
            ToHouse::MemberFails(core, member) => self.member_fails(core, member),
            ToHouse::MemberFilled(core, member) => self.member_filled(core, member),
            ToHouse::Stopped(core) => self.core_stopped(core),
        }
    }

    /// When all cores are, so is the daemon.
    fn core_ready(self: &Rc<Self>, core: usize, listening: Vec<SocketAddr>) {
        if core == 0 {
            *self.listening.borrow_mut() = listening;
        }
        let all = {
            let mut cores = self.cores.borrow_mut();
            if let Some(core) = cores.get_mut(core) {
                core.ready = true;
            }
            cores.iter().all(|core| core.ready)
        };
        if !all || self.state.get() != RunState::Starting {
            return;
        }
        self.state.set(RunState::Running);
        let addresses: Vec<String> =
            self.listening.borrow().iter().map(ToString::to_string).collect();
        let trusted = self.clock.borrow().is_trusted();
        self.tell_all(move || ToCore::ClockConfirmed(trusted));
        self.note(Note::Started, &format!("listening on {}", addresses.join(" ")));
        say_ready(&addresses);
        self.notify.ready();
    }

    fn core_stopped(&self, core: usize) {
        let all = {
            let mut cores = self.cores.borrow_mut();
            if let Some(core) = cores.get_mut(core) {
                core.stopped = true;
            }
            cores.iter().all(|core| core.stopped)
        };
        if all {
            self.end_with(End::Drained);
        }
    }

    async fn heed(self: Rc<Self>, signals: Signals) {
        loop {
            match signals.next().await {
                Ok(Wish::Drain) => self.drain(),
                Ok(Wish::Reload) => {
                    // The log says what became of it.
                    let _ = self.reload().await;
                }
                Err(error) => return self.end_with(End::Failed(format!("signals: {error}"))),
            }
        }
    }

    /// Begins to end. A second wish changes nothing: the sessions have their time limit.
    fn drain(self: &Rc<Self>) {
        if self.state.replace(RunState::Draining) == RunState::Draining {
            return;
        }
        if !self.facts.supervised {
            self.notify.stopping();
        }
        self.say_accepting();
        self.tell_all(|| ToCore::Drain);
        let limit = self.orders.borrow().config.timeouts_in.drain_s.us();
        let limit = Duration::from_micros(limit) + DRAIN_SLACK;
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(limit).await;
            let late: Vec<String> = this
                .cores
                .borrow()
                .iter()
                .enumerate()
                .filter(|(_, core)| !core.stopped)
                .map(|(n, _)| n.to_string())
                .collect();
            let why = format!("core {} did not stop in time", late.join(", "));
            this.end_with(End::Failed(why));
        });
    }

    /// Gives every core a message it must have, however full its mailbox is.
    fn tell_all(&self, mail: impl Fn() -> ToCore + 'static) {
        let mut full: Vec<MailboxSender<ToCore>> = self.mailboxes.to_vec();
        full.retain(|mailbox| mailbox.post(mail()).is_err());
        if full.is_empty() {
            return;
        }
        tokio::task::spawn_local(async move {
            while !full.is_empty() {
                tokio::time::sleep(POST_AGAIN).await;
                full.retain(|mailbox| mailbox.post(mail()).is_err());
            }
        });
    }

    fn note(&self, note: Note, text: &str) {
        self.journal.borrow_mut().note(note, text);
    }

    fn alarm(&self, alarm: Alarm, text: &str) {
        self.journal.borrow_mut().alarm(alarm, text);
    }

    fn end_with(&self, end: End) {
        self.end.borrow_mut().get_or_insert(end);
        self.ended.notify_one();
    }
}

/// The one line on standard output that says: mail is taken on these addresses.
fn say_ready(addresses: &[String]) {
    use std::io::Write as _;
    let line = format!("ready: {}\n", addresses.join(" "));
    let mut out = io::stdout().lock();
    // Nobody reads it: then nobody waits for it.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}
