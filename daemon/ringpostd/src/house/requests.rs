//! Requests of the admin tool: each to where it is answered, and back.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use control::{
    Accepting, Failure, FailureCode, Level, List, LogLevel, MetricsPage, QueueFilter, Reloaded,
    Reply, Request, RunState, Speaker, Status, Text, VersionInfo,
};
use tokio::net::TcpListener;

use crate::config::{Durability, LogConfig};
use crate::dnsbl::Zones;
use crate::events::{Note, Phase};
use crate::maillog::rotation::Rules;
use crate::metrics::{self, Counter, Gauge};
use crate::post::{Orders, ToCore};

use super::console::{self, Console};
use super::limits::{ACT_WAIT, CONSOLES_MAX, PAGES_MAX};
use super::reload::{self, Prepared};
use super::state::{Caller, Login};
use super::{House, lookups, machine, page, questions};

/// Rest after an accept that failed: descriptors may come back.
const ACCEPT_REST: Duration = Duration::from_millis(100);
const SECOND_US: u64 = 1_000_000;

fn of<T>(result: Result<T, Failure>, reply: impl FnOnce(T) -> Reply) -> Reply {
    result.map_or_else(Reply::Failure, reply)
}

fn log_level(wanted: Option<Level>) -> Reply {
    if wanted.is_none() {
        return Reply::LogLevel(LogLevel { level: Level::Info });
    }
    let message = "this version logs every event of mail, and has no levels";
    Reply::Failure(Failure::new(FailureCode::Refused, message, ""))
}

impl House {
    /// Takes consoles, each served beside the others.
    pub(super) async fn serve_consoles(self: Rc<Self>, console: Rc<Console>) {
        loop {
            let Ok(stream) = console.accept().await else {
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            };
            let admitted = console.admits(&stream);
            let this = Rc::clone(&self);
            if self.consoles.get() >= CONSOLES_MAX {
                // No task for this one: a flood of consoles costs nothing but their sockets.
                drop(stream);
                continue;
            }
            self.consoles.set(self.consoles.get() + 1);
            tokio::task::spawn_local(async move {
                if let Some(who) = admitted {
                    let speaker = RefCell::new(None);
                    let answer = async |request| this.answer_as(request, who, &speaker).await;
                    console::serve(stream, answer).await;
                } else {
                    let advice = "be root or the daemon's user, or stand in [admin] uids";
                    let message = "this user may not speak to the daemon";
                    console::turn_away(stream, FailureCode::Denied, message, advice).await;
                }
                this.consoles.set(this.consoles.get() - 1);
            });
        }
    }

    /// Serves the Prometheus page.
    pub(super) async fn serve_pages(self: Rc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            };
            if self.pages.get() >= PAGES_MAX {
                drop(stream);
                continue;
            }
            self.pages.set(self.pages.get() + 1);
            let this = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                page::serve(stream, || this.metrics_page(), || this.health()).await;
                this.pages.set(this.pages.get() - 1);
            });
        }
    }

    /// For switches: whether new clients may be sent here, and else why not.
    fn health(&self) -> Result<(), &'static str> {
        match (self.state.get(), self.orders.borrow().rules.accepting) {
            (RunState::Running, Accepting::Open) => Ok(()),
            (RunState::Running, Accepting::Drain) => Err("drained by the operator"),
            (RunState::Running, _) => Err("suspended by the operator"),
            _ => Err("starting or stopping"),
        }
    }

    fn metrics_page(&self) -> String {
        let orders = Arc::clone(&self.orders.borrow());
        let mut views = self.views.borrow_mut();
        let now_us = engine::now_us();
        views.iter_mut().for_each(|view| view.collect(now_us));
        let about = metrics::About {
            version: env!("CARGO_PKG_VERSION"),
            hostname: orders.config.node.hostname.as_str(),
            started_wall_us: self.facts.started_wall_us,
            durable: orders.config.spool.durability == Durability::Fsync,
            cores: self.mailboxes.len(),
        };
        let mut page = metrics::page(&about, &views);
        self.filter_page(&mut page);
        page
    }

    /// Answers one request of a connection, within what its speaker may.
    async fn answer_as(
        self: &Rc<Self>,
        request: Request,
        mut who: Caller,
        speaker: &RefCell<Option<Speaker>>,
    ) -> Reply {
        if let Request::As(new) = request {
            if speaker.borrow().is_some() {
                let message = "somebody speaks on this connection already";
                return Reply::Failure(Failure::new(FailureCode::Denied, message, ""));
            }
            let message = format!("{} speaks as {}", &*new.name, new.role.name());
            *speaker.borrow_mut() = Some(new);
            return Reply::Done { message: Text::cut(&message) };
        }
        let role = speaker.borrow().as_ref().map(|speaker| {
            who.login = Login::new(speaker);
            speaker.role
        });
        if role.is_some_and(|role| !request.is_for(role)) {
            let message = format!("an operator may not ask this ({})", request.name());
            if let Err(failure) = self.audit(who, &format!("denied: {}", request.name())) {
                return Reply::Failure(failure);
            }
            let advice = "operators look and retry; an admin may";
            return Reply::Failure(Failure::new(FailureCode::Denied, &message, advice));
        }
        self.answer(request, who).await
    }

    /// Answers one request.
    async fn answer(self: &Rc<Self>, request: Request, who: Caller) -> Reply {
        let wall_us = engine::wall_us();
        if let Err(failure) = self.audit_act(&request, who) {
            return Reply::Failure(failure);
        }
        match request {
            Request::Version => Reply::Version(self.version()),
            Request::Status => self.status().await,
            Request::Ledger => {
                let before = self.facts.ledger;
                let parts = self.questions.ask(Request::Ledger).await;
                of(parts.and_then(|parts| questions::ledger(parts, before)), Reply::Ledger)
            }
            Request::Metrics => {
                Reply::Metrics(MetricsPage { text: Text::cut(&self.metrics_page()) })
            }
            Request::QueueList(filter) => self.queue_list(filter).await,
            Request::QueueShow { id } => {
                of(self.questions.ask(Request::QueueShow { id }).await, questions::message)
            }
            Request::Reload => of(self.reload().await, Reply::Reloaded),
            Request::SpoolFill => self.fill_devices().await,
            Request::SpoolTakeIn { yes } => self.take_in(yes).await,
            Request::Drain => self.drain_and_say(),
            Request::LogLevel { level } => log_level(level),
            Request::HintsList(_)
            | Request::HintsGet(_)
            | Request::HintsDelete(_)
            | Request::HintsSet { .. }
            | Request::HintsLoad { .. } => self.of_hints(&request, wall_us),
            Request::HintsTidy => self.hints_tidy(wall_us).await,
            Request::Xdp(request) => self.ladder(request, wall_us).await,
            Request::Why(filter) => self.why(filter).await,
            Request::LogGrep(filter) => self.log_grep(filter).await,
            Request::QueueSummary => {
                let parts = self.questions.ask_for(0, Request::QueueSummary, ACT_WAIT).await;
                of(parts.and_then(questions::summary), |summary| Reply::Summary(Box::new(summary)))
            }
            Request::QueueAct(act) => self.queue_act(act, who).await,
            Request::Tops(filter) => {
                let parts = self.questions.ask_for(0, Request::Tops(filter), ACT_WAIT).await;
                of(parts.and_then(questions::tops), |tops| Reply::Tops(Box::new(tops)))
            }
            Request::Sessions => {
                let parts = self.questions.ask(Request::Sessions).await;
                of(parts.and_then(questions::rows), |rows| Reply::Rows(Box::new(rows)))
            }
            Request::Session(session) => of(self.played(session).await, |reply| reply),
            Request::Test(test) => self.test(test).await,
            Request::QueueRead { .. } => {
                of(self.questions.ask(request).await, questions::first_found)
            }
            Request::Trace { what, seconds } => self.trace(what, seconds).await,
            Request::Submit(_) => self.own_port(),
            Request::Certificates => self.certificates_shown(),
            Request::Config(act) => self.config(act, who).await,
            Request::Upgrade(wanted) => self.upgrade(wanted).await,
            Request::Rules => self.rules_shown(),
            Request::Rule(rule) => self.rule(rule, who).await,
            other => {
                let message = format!("{} is not known to this version", other.name());
                Reply::Failure(Failure::new(FailureCode::Unknown, &message, ""))
            }
        }
    }

    /// Where mail of the admin tool comes in.
    fn own_port(&self) -> Reply {
        let Some(mut address) = self.listening.borrow().first().copied() else {
            let message = "the daemon listens nowhere";
            return Reply::Failure(Failure::new(FailureCode::Refused, message, ""));
        };
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Reply::Done { message: Text::cut(&address.to_string()) }
    }

    fn drain_and_say(self: &Rc<Self>) -> Reply {
        self.drain();
        Reply::Done { message: Text::cut("draining: open sessions end, then the daemon") }
    }

    fn version(&self) -> VersionInfo {
        VersionInfo {
            version: Text::cut(env!("CARGO_PKG_VERSION")),
            build: Text::default(),
            spool_format: u32::from(self.facts.spool_format),
            protocol: control::VERSION,
            kernel: Text::cut(&self.facts.kernel),
        }
    }

    pub(super) async fn queue_list(&self, filter: QueueFilter) -> Reply {
        let most = control::limits::QUEUE_PAGE_MAX;
        let most = match usize::from(filter.count_max) {
            0 => most,
            count => count.min(most),
        };
        let parts = self.questions.ask(Request::QueueList(filter)).await;
        of(parts.and_then(|parts| questions::queue(parts, most)), Reply::Queue)
    }

    fn of_hints(&self, request: &Request, wall_us: u64) -> Reply {
        match request {
            Request::HintsList(filter) => self.tables.list(filter, wall_us),
            Request::HintsGet(key) => self.tables.get(key, wall_us),
            Request::HintsDelete(key) => self.tables.delete(key, wall_us),
            Request::HintsSet { of, fields, life_s } => {
                self.tables.set(of, fields, *life_s, wall_us)
            }
            Request::HintsLoad { hints } => {
                let put = |hint: &control::Hint| self.tables.load(hint, wall_us);
                Reply::Rows(Box::new(control::put_back(hints, put)))
            }
            _ => Reply::Failure(Failure::new(FailureCode::Internal, "this is of no hint", "")),
        }
    }

    async fn hints_tidy(&self, wall_us: u64) -> Reply {
        let rates = u64::from(self.hints.tidy_rates(wall_us));
        let parts = self.questions.ask(Request::HintsTidy).await;
        of(parts.and_then(questions::count), |records| {
            let message = format!("{records} records and {rates} rates had expired");
            Reply::Done { message: Text::cut(&message) }
        })
    }

    async fn status(&self) -> Reply {
        let parts = match self.questions.ask(Request::Status).await {
            Ok(parts) => parts,
            Err(failure) => return Reply::Failure(failure),
        };
        let (mut status, core_alarms) = questions::status(parts);
        self.fill(&mut status);
        let now_us = engine::now_us();
        let states = self.cores.borrow();
        let turned_ms = |core: &control::Core| {
            let beats = states.get(usize::from(core.core)).and_then(|core| core.beats.as_ref());
            beats.map_or(0, |beats| now_us.saturating_sub(beats.last_turn_us()) / 1_000)
        };
        self.views.borrow_mut().iter_mut().for_each(|view| view.collect(now_us));
        let views = self.views.borrow();
        let sessions_max = self.orders.borrow().config.node.sessions_max;
        let each_max = sessions_max.div_ceil(u32::try_from(self.loads.len()).unwrap_or(1).max(1));
        let load = |number: usize| self.loads.get(number).map_or(0, |n| n.load(Ordering::Relaxed));
        let cores = status.cores.iter().map(|core| {
            let number = usize::from(core.core);
            let core = control::Core {
                turned_ms: turned_ms(core),
                sessions: load(number),
                sessions_max: each_max,
                ..*core
            };
            let Some(view) = views.get(number) else { return core };
            control::Core {
                outbound: u32::try_from(view.gauge(Gauge::Hops)).unwrap_or(u32::MAX),
                connections: view.counter(Counter::Connections),
                refused: view.refused(),
                relayed: view.counter(Counter::RecipientsRelayed),
                deferred: view.deferred(),
                commit_p50_us: view.quantile_us(Phase::Commit, 0.5),
                commit_p99_us: view.quantile_us(Phase::Commit, 0.99),
                ..core
            }
        });
        status.cores = List::cut(cores.collect::<Vec<_>>());
        drop((states, views));
        let alarms = self.alarms().into_iter().chain(self.rule_alarms()).chain(core_alarms);
        status.alarms = List::cut(alarms.map(|line| Text::cut(&line)));
        Reply::Status(Box::new(status))
    }

    fn fill(&self, status: &mut Status) {
        let orders = Arc::clone(&self.orders.borrow());
        let config = &orders.config;
        let facts = &self.facts;
        status.state = self.state.get();
        status.version = Text::cut(env!("CARGO_PKG_VERSION"));
        status.node = config.node.id;
        status.run = facts.run;
        status.pid = std::process::id();
        let started = facts.started_wall_us;
        status.uptime_s = engine::wall_us().saturating_sub(started) / SECOND_US;
        status.config_generation = orders.generation;
        status.config_file = Text::cut(&facts.config_file.display().to_string());
        status.durability = Text::cut(match config.spool.durability {
            Durability::Fsync => "full",
            Durability::None => "none",
        });
        status.clock_trusted = self.clock.borrow().is_trusted();
        let smtp = self.listening.borrow();
        let lines = smtp.iter().map(|address| Text::cut(&format!("smtp {address}")));
        let page = self.metrics_at.get();
        let page = page.map(|address| Text::cut(&format!("metrics {address}")));
        status.listeners = List::cut(lines.chain(page));
        status.spool_octets = facts.spool_octets;
        status.accepted_lately = self.accepted_lately();
        let lines = |lines: Vec<String>| List::cut(lines.iter().map(|line| Text::cut(line)));
        status.devices = lines(machine::devices(&config.spool.places));
        status.links = lines(machine::links());
        status.engine = List::cut(facts.engine.iter().map(|line| Text::cut(line)));
    }

    /// Puts the config file in force, or says why not. One at a time.
    pub(super) async fn reload(self: &Rc<Self>) -> Result<Reloaded, Failure> {
        if self.reloading.replace(true) {
            let advice = "wait for it, then ask again";
            return Err(Failure::new(FailureCode::Busy, "a reload is under way", advice));
        }
        self.notify.reloading();
        let result = self.reload_now().await;
        self.reloading.set(false);
        if self.state.get() == RunState::Running {
            self.notify.ready();
        }
        match result {
            Ok(reloaded) => Ok(reloaded),
            Err(problems) => {
                let text = problems.join("; ");
                self.note(Note::ReloadRefused, &text);
                eprintln!("ringpostd: reload refused, the old config stays in force: {text}");
                let advice = "the old config stays in force; `ringpostd --check` shows all at once";
                Err(Failure::new(FailureCode::Refused, &text, advice))
            }
        }
    }

    async fn reload_now(self: &Rc<Self>) -> Result<Reloaded, Vec<String>> {
        if self.state.get() != RunState::Running {
            return Err(vec!["the daemon is starting or stopping".to_owned()]);
        }
        let old = Arc::clone(&self.orders.borrow());
        let (path, tickets) = (self.facts.config_file.clone(), self.tickets.clone());
        let trusted = self.clock.borrow().is_trusted();
        let for_thread = Arc::clone(&old);
        let feeds = self.filter.feeds.borrow().clone();
        // Recipient files may be large: read beside this thread.
        let prepared = tokio::task::spawn_blocking(move || {
            reload::prepare(&path, &for_thread, &tickets, trusted, &feeds)
        });
        let prepared = prepared.await.map_err(|error| vec![error.to_string()])??;
        let outward = lookups::outward(&prepared.config.resolver);
        let outward = outward.map_err(|why| vec![format!("resolver: {why}")])?;
        let changed = reload::changes(&old.config, &prepared.config);
        self.lookups.configure(outward);
        Ok(self.put_in_force(&old, prepared, &changed))
    }

    fn put_in_force(self: &Rc<Self>, old: &Orders, new: Prepared, changed: &[&str]) -> Reloaded {
        let Prepared { config, certificates, files, warnings, feeds, feed_problems, lists } = new;
        self.configure_log(&config.log, files);
        self.not_after_s.set(certificates.not_after_s);
        let confirmed = config.clock.confirmed;
        let generation = old.generation + 1;
        let first = crate::xdp::first_zone(&config);
        let zones = Zones::new(&config.dnsbl, first, config.xdp.dnsbl_weight, Some(&old.zones));
        let (tls, zones) = (certificates.store, Arc::new(zones));
        // Those of now: they may have changed while the config was read.
        let rules = Arc::clone(&self.orders.borrow().rules);
        let orders = Arc::new(Orders { generation, config, tls, zones, rules });
        *self.orders.borrow_mut() = Arc::clone(&orders);
        self.tell_all(move || ToCore::Orders(Arc::clone(&orders)));
        *self.filter.feeds.borrow_mut() = feeds;
        self.put_lists(Arc::new(lists), feed_problems);
        if confirmed != old.config.clock.confirmed {
            self.clock.borrow_mut().operator(confirmed);
            let trusted = self.clock.borrow().is_trusted();
            self.tell_all(move || ToCore::ClockConfirmed(trusted));
        }
        let what = if changed.is_empty() { "no key".to_owned() } else { changed.join(", ") };
        let first = format!("changed: {what}; recipients and certificates were read again");
        self.note(Note::Reloaded, &format!("generation {generation}, {first}"));
        warnings.iter().for_each(|warning| self.note(Note::Reloaded, warning));
        let notes = std::iter::once(&first).chain(&warnings).map(|line| Text::cut(line));
        Reloaded { generation, notes: List::cut(notes) }
    }

    fn configure_log(&self, config: &LogConfig, files: Option<crate::maillog::files::LogFiles>) {
        let mut journal = self.journal.borrow_mut();
        journal.configure(config);
        match files {
            Some(files) => journal.thread().files(files),
            None => journal.thread().rules(Rules::of(config)),
        }
    }
}
