//! The XDP filter as the house sees it: what it is told, what it says, and doing without it.
//!
//! *Guarantees*: lists and ladder are the same with the filter and without. The filter's word that
//! the daemon accepts has an end and is renewed each second, so that nothing is answered for a
//! daemon that is dead or stops.
//! *Failure*: what cannot be had is one line; the daemon goes on by itself.
//! *Not here*: loading and attaching (`gate`, a process of its own).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use control::RunState;
use ebpf_common::count::{COUNTERS, Event};
use ebpf_common::entry::{Action, Listing};
use ebpf_common::packet::{Address, Tunnel};
use gate::{Accepting, Answer, Bans, Client, Problem, Request, Settings, Status, monotonic_s};
use hints::Kind;
use hints::ban::Ban;
use tokio::time::MissedTickBehavior;

use crate::config::{Config, Proxy, Rung, Topology, WayBack};
use crate::dnsbl::State;
use crate::events::{Alarm, Note};
use crate::post::ToCore;
use crate::rules::{self, Rules};
use crate::xdp::{Fuse, Lists, OPERATOR, OWN, Order};

use super::House;
use super::feeds::{Feeds, Listed};
use super::limits::{
    ACCEPTING_S, FILTER_EVENTS_MAX, FILTER_LINES_MAX, FILTER_SWEEP_TICKS, FILTER_TICK, SYNS_MIN,
};

/// What the gate lent.
#[derive(Debug)]
struct Lent {
    bans: Bans,
    accepting: Accepting,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Filter {
    client: Option<Arc<Mutex<Client>>>,
    lent: RefCell<Option<Lent>>,
    pub(super) feeds: RefCell<Feeds>,
    pub(super) lists: RefCell<Arc<Lists>>,
    /// Settings are to be put in force.
    pub(super) due: Cell<bool>,
    /// Why there is no filter, if it was asked for.
    pub(super) without: RefCell<Option<String>>,
    /// What is wrong with lists, one line each.
    pub(super) problems: RefCell<Vec<String>>,
    pub(super) status: RefCell<Option<Status>>,
    pub(super) events: RefCell<VecDeque<(u64, Event)>>,
    event_number: Cell<u64>,
    zones: RefCell<Vec<State>>,
    pub(super) fuse: Arc<Fuse>,
    /// Clients were not banned for the bound on bans.
    pub(super) blown: Cell<bool>,
    /// Where the next round of asking again begins.
    pub(super) asked: Cell<usize>,
    /// Wall second at which the next standing order lapses.
    orders_until_s: Cell<u64>,
}

impl Filter {
    /// With the socket to the gate, if there is one, and what was read at start.
    pub(super) fn new(gate: Option<OwnedFd>, listed: Listed) -> Self {
        Self {
            client: gate.map(|socket| Arc::new(Mutex::new(Client::new(socket)))),
            lent: RefCell::default(),
            feeds: RefCell::new(listed.feeds),
            lists: RefCell::new(listed.lists),
            due: Cell::new(true),
            without: RefCell::default(),
            problems: RefCell::new(listed.problems),
            status: RefCell::default(),
            events: RefCell::default(),
            event_number: Cell::new(0),
            zones: RefCell::default(),
            fuse: listed.fuse,
            blown: Cell::new(false),
            asked: Cell::new(0),
            orders_until_s: Cell::new(u64::MAX),
        }
    }

    /// Whether the filter is in force.
    pub(super) fn is_on(&self) -> bool {
        self.lent.borrow().is_some()
    }
}

const fn action(ceiling: Rung) -> Action {
    match ceiling {
        Rung::Count => Action::Count,
        Rung::Refuse => Action::Pass,
        Rung::Answer => Action::Answer,
        Rung::Drop => Action::Drop,
    }
}

/// The gate's settings for a config.
fn settings(config: &Config, lists: &Lists, ports: Vec<u16>) -> Settings {
    let xdp = &config.xdp;
    let mut ceilings = vec![(OPERATOR, Action::Drop), (OWN, action(xdp.evidence_ceiling))];
    let configured = config.lists.iter().map(|list| list.ceiling);
    let configured = configured.chain(config.dnsbl.iter().map(|zone| zone.ceiling));
    // Hosts of lists that are heard first are only counted; bans of them may go to the ceiling.
    ceilings.extend((2..).zip(configured.map(action)));
    let host = config.node.hostname.as_str();
    let see = match &xdp.contact {
        Some(contact) => format!("see {}", contact.as_str()),
        None => format!("ask postmaster@{host}"),
    };
    let text = |name: &str| {
        let room = ebpf_common::text::BODY6_BYTES_MAX - "listed by ; ".len();
        let see: String = see.chars().take(room / 2 + 12).collect();
        let name: String = name.chars().take(room.saturating_sub(see.len())).collect();
        format!("listed by {name}; {see}")
    };
    Settings {
        interfaces: xdp.interfaces.iter().map(|name| name.as_str().to_owned()).collect(),
        keep: xdp.keep,
        ports,
        mode: match xdp.mode {
            Rung::Count | Rung::Refuse => Action::Count,
            Rung::Answer => Action::Answer,
            Rung::Drop => Action::Drop,
        },
        answer: xdp.mode.height() >= Rung::Answer.height(),
        ceilings,
        texts: (0..).zip(lists.names().iter().map(|name| text(name))).collect(),
        rate: (!xdp.syn_rate.is_off()).then(|| {
            let seconds = (xdp.syn_rate.period_us / 1_000_000).max(1);
            let each = (u64::from(xdp.syn_rate.count) / seconds).max(1);
            let syns_per_s = u32::try_from(each).unwrap_or(u32::MAX);
            gate::Rate { syns_per_s, burst: xdp.syn_burst, bits4: 24, bits6: 48 }
        }),
        tunnel: match xdp.topology {
            Topology::Direct | Topology::Proxy => Tunnel::Direct,
            Topology::Ipip => Tunnel::Ipip,
            Topology::Gue(port) => Tunnel::Gue(port),
        },
        ends: xdp.ends.clone(),
        proxy: xdp.topology == Topology::Proxy,
        ways: xdp.ways.iter().map(way).collect(),
        ..Settings::default()
    }
}

fn way(way: &WayBack) -> gate::Way {
    gate::Way { interface: (*way.interface).into(), vlan: way.vlan, out: (*way.out).into() }
}

/// The standing orders as the filter is told of them, and when the next of them lapses.
fn standing_orders(rules: &Rules, wall_s: u64) -> (Vec<Order>, u64) {
    let holds = |listed: &&rules::Listed| listed.until_s == 0 || listed.until_s > wall_s;
    let next_s = rules.listed.iter().filter(holds).map(|listed| listed.until_s);
    let next_s = next_s.filter(|until_s| *until_s > 0).min().unwrap_or(u64::MAX);
    let order = |listed: &rules::Listed| Order {
        network: listed.network,
        allow: listed.allow,
        expires_s: match listed.until_s {
            0 => 0,
            until_s => {
                let left_s = u32::try_from(until_s - wall_s).unwrap_or(u32::MAX);
                monotonic_s().saturating_add(left_s)
            }
        },
    };
    (rules.listed.iter().filter(holds).map(order).collect(), next_s)
}

/// Asks the gate for everything anew. Blocks for the time of a swap.
fn establish(
    client: &Mutex<Client>,
    settings: Settings,
    set: &[u8],
) -> Result<gate::Descriptors, Problem> {
    let client = client.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Answer::Descriptors(lent) = client.ask(&Request::Descriptors)? else {
        return Err(Problem::Wire("no descriptors"));
    };
    let attach = Request::Attach(Box::new(settings));
    // Lists before the filter: what is attached is right from its first packet on. But where an
    // earlier gate's filter is in force, it must not be without settings for a moment.
    let taken_over = match client.ask(&Request::Status(None))? {
        Answer::Status(status) => status.generation != 0,
        _ => false,
    };
    if taken_over {
        client.ask(&attach)?;
    }
    client.swap(set)?;
    if !taken_over {
        client.ask(&attach)?;
    }
    Ok(lent)
}

/// One request, on a thread that may wait for its answer.
async fn ask(client: Arc<Mutex<Client>>, request: Request) -> Result<Answer, Problem> {
    let asked = tokio::task::spawn_blocking(move || {
        let client = client.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        client.ask(&request)
    });
    asked.await.unwrap_or(Err(Problem::Wire("nothing: the thread that asked has gone")))
}

/// The client's address in an event.
pub(super) fn source(event: &Event) -> IpAddr {
    if event.family == 6 {
        let address = Address::v6(event.source);
        let [a, b, c, d] = address.words.map(u128::from);
        return IpAddr::V6((a << 96 | b << 64 | c << 32 | d).into());
    }
    IpAddr::V4(event.source[0].into())
}

/// An event in words.
pub(super) fn event_line(event: &Event, lists: &Lists) -> String {
    let place = match event.place {
        1 => "ban",
        2 => "host",
        3 => "network",
        _ => "rate",
    };
    let did = match (event.allowed, Action::from_number(event.action)) {
        (1, _) => "passed (allowed)",
        (_, Action::Pass) => "passed",
        (_, Action::Count) => "counted",
        (_, Action::Answer) => "answered",
        (_, Action::Drop) => "dropped",
    };
    // Hits of hosts are not kept: their element is to stay one cache line.
    let hit = match (event.first, event.hits) {
        (1, _) => "first hit".to_owned(),
        (_, 0) => "hit again".to_owned(),
        (_, before) => format!("hit {}", before.saturating_add(1)),
    };
    format!(
        "[{}]:{} to port {}: {did}; {place} of {}, {hit}, id {:08X}",
        source(event),
        event.source_port,
        event.destination_port,
        lists.name(event.list),
        event.id
    )
}

/// Whether a switch seems to hide the clients; a few SYNs say nothing.
fn hides_sources(status: &Status) -> bool {
    status.counters.first().is_some_and(|syns| *syns >= SYNS_MIN) && status.sources_hidden()
}

/// A ban as the kernel's table has it.
pub(super) fn listing(ban: &Ban, wall_us: u64) -> Listing {
    let left_s = ban.until_us.saturating_sub(wall_us).div_ceil(1_000_000);
    let left_s = u32::try_from(left_s).unwrap_or(u32::MAX).min(crate::xdp::BAN_OWN_S_MAX);
    let list = u8::try_from(ban.list).unwrap_or(OWN);
    Listing {
        expires_s: monotonic_s().saturating_add(left_s),
        id: ban.id,
        reason: list,
        action: action(Rung::at(u8::try_from(ban.rung).unwrap_or(0))),
        list,
    }
}

/// The client of a ban's key in the hints.
pub(super) fn client_of(key: &[u8]) -> Option<IpAddr> {
    match key {
        [4, rest @ ..] => Some(IpAddr::from(<[u8; 4]>::try_from(rest).ok()?)),
        [8, rest @ ..] => {
            let mut octets = [0; 16];
            octets[..8].copy_from_slice(<&[u8; 8]>::try_from(rest).ok()?);
            Some(IpAddr::from(octets))
        }
        _ => None,
    }
}

impl House {
    /// For ever.
    pub(super) async fn mind_filter(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(FILTER_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 0_u64.. {
            ticks.tick().await;
            self.say_accepting();
            if self.state.get() != RunState::Running {
                continue;
            }
            self.look_at_feeds().await;
            self.look_at_bans(tick);
            if engine::wall_us() / 1_000_000 >= self.filter.orders_until_s.get() {
                self.filter.due.set(true);
            }
            if self.filter.due.replace(false) {
                self.establish().await;
            }
            self.look_at_zones();
            self.look_at_filter(tick).await;
        }
    }

    /// The filter answers only for a daemon that takes mail.
    pub(super) fn say_accepting(&self) {
        let lent = self.filter.lent.borrow();
        let Some(lent) = lent.as_ref() else { return };
        let running = self.state.get() == RunState::Running;
        let until = if running { monotonic_s().saturating_add(ACCEPTING_S) } else { 0 };
        // It has an end: what fails here makes the answer stand down.
        let _ = lent.accepting.until(until);
    }

    async fn look_at_feeds(self: &Rc<Self>) {
        let config = self.orders.borrow().config.clone();
        let changed = self.filter.feeds.borrow_mut().is_due(&config);
        if !changed {
            return;
        }
        let old = self.filter.feeds.borrow().clone();
        let wall_s = engine::wall_us() / 1_000_000;
        let read = tokio::task::spawn_blocking(move || {
            let (feeds, problems) = Feeds::load(&config, &old, wall_s);
            let lists = Lists::new(&config, &feeds.loaded);
            (feeds, problems, lists)
        });
        let Ok((feeds, problems, lists)) = read.await else { return };
        *self.filter.feeds.borrow_mut() = feeds;
        self.put_lists(Arc::new(lists), problems);
    }

    /// Puts lists in force everywhere.
    pub(super) fn put_lists(self: &Rc<Self>, lists: Arc<Lists>, problems: Vec<String>) {
        problems.iter().for_each(|problem| self.alarm(Alarm::Filter, problem));
        let said: Vec<String> = lists
            .all()
            .map(|(_, list)| format!("{} {}", list.config().name.as_str(), list.len()))
            .collect();
        if !said.is_empty() {
            self.note(Note::Filter, &format!("lists in force: {}", said.join(", ")));
        }
        *self.filter.problems.borrow_mut() = problems;
        *self.filter.lists.borrow_mut() = Arc::clone(&lists);
        self.tell_all(move || ToCore::Lists(Arc::clone(&lists)));
        self.filter.due.set(true);
    }

    /// The ports that are judged: of listeners to which clients come themselves.
    fn ports(&self, config: &Config) -> Vec<u16> {
        let listening = self.listening.borrow();
        let both = listening.iter().zip(config.listeners.iter());
        let direct = both.filter(|(_, listener)| listener.proxy == Proxy::Off);
        let mut ports: Vec<u16> = direct.map(|(address, _)| address.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.truncate(ebpf_common::limits::PORTS_MAX);
        ports
    }

    /// Puts settings and lists in force in the filter, or says why there is none.
    async fn establish(self: &Rc<Self>) {
        let config = self.orders.borrow().config.clone();
        if config.xdp.interfaces.is_empty() {
            if let Some(client) = self.filter.client.clone().filter(|_| self.filter.is_on()) {
                let _ = ask(client, Request::Detach).await;
                self.filter.lent.take();
            }
            return;
        }
        let Some(client) = self.filter.client.clone() else {
            return self.do_without("only `ringpostd --supervise`, started as root, can have it");
        };
        let lists = Arc::clone(&self.filter.lists.borrow());
        let settings = settings(&config, &lists, self.ports(&config));
        let rules = Arc::clone(&self.orders.borrow().rules);
        let (orders, next_s) = standing_orders(&rules, engine::wall_us() / 1_000_000);
        self.filter.orders_until_s.set(next_s);
        let done = tokio::task::spawn_blocking(move || {
            let (set, notes) = lists.set(&orders);
            establish(&client, settings, &set).map(|lent| (lent, notes))
        });
        match done.await {
            Ok(Ok((lent, notes))) => self.take_over(lent, &notes),
            Ok(Err(problem)) => self.do_without(&problem.to_string()),
            Err(error) => self.do_without(&error.to_string()),
        }
    }

    fn do_without(&self, why: &str) {
        let text =
            format!("no XDP filter: {why}: the daemon does it by itself, with the same lists");
        if self.filter.without.replace(Some(text.clone())).as_ref() != Some(&text) {
            self.alarm(Alarm::Filter, &text);
        }
    }

    fn take_over(&self, lent: gate::Descriptors, notes: &[String]) {
        let gate::Descriptors { bans4, bans6, accepting } = lent;
        let lent = Lent { bans: Bans::new(bans4, bans6), accepting: Accepting::new(accepting) };
        self.filter.lent.replace(Some(lent));
        self.filter.without.take();
        notes.iter().for_each(|note| self.alarm(Alarm::Filter, note));
        self.note(Note::Filter, "the XDP filter has its settings and lists");
        self.say_accepting();
        // Bans outlive a restart of the daemon in the hints.
        let wall_us = engine::wall_us();
        for (_, record) in self.hints.records(0, wall_us).filter(|(_, r)| r.kind == Kind::Ban) {
            if let (Some(client), ::hints::Value::Ban(ban)) =
                (client_of(record.key.octets()), record.value)
            {
                self.banned(client, &ban);
            }
        }
    }

    /// A ban of a core goes to the filter.
    pub(super) fn banned(&self, client: IpAddr, ban: &Ban) {
        let wall_us = engine::wall_us();
        let lent = self.filter.lent.borrow();
        let Some(lent) = lent.as_ref().filter(|_| ban.holds(wall_us)) else { return };
        if let Err(error) = lent.bans.put(client, &listing(ban, wall_us)) {
            self.alarm(Alarm::Filter, &format!("ban of {client}: {error}"));
        }
    }

    /// Lifts a ban in the filter.
    pub(super) fn unbanned(&self, client: IpAddr) -> bool {
        let lent = self.filter.lent.borrow();
        lent.as_ref().is_some_and(|lent| lent.bans.remove(client).unwrap_or(false))
    }

    /// Says when a DNS list is cut off or counts again.
    fn look_at_zones(&self) {
        let zones = Arc::clone(&self.orders.borrow().zones);
        let now: Vec<State> = zones.all().iter().map(crate::dnsbl::Zone::state).collect();
        let before = self.filter.zones.replace(now.clone());
        for (n, zone) in zones.all().iter().enumerate() {
            if before.get(n) == now.get(n) {
                continue;
            }
            let name = zone.config.zone.as_str();
            match now[n] {
                State::Unproven => {}
                State::Proven => self.note(Note::Filter, &format!("DNS list {name} counts")),
                State::Failed | State::TooMany => {
                    self.alarm(Alarm::Filter, &zone_line(name, now[n]));
                }
            }
        }
    }

    async fn look_at_filter(self: &Rc<Self>, tick: u64) {
        let Some(client) = self.filter.client.clone().filter(|_| self.filter.is_on()) else {
            return;
        };
        let status = match ask(client, Request::Status(None)).await {
            Ok(Answer::Status(status)) => status,
            Err(problem) => {
                self.filter.lent.take();
                self.filter.status.take();
                return self.do_without(&problem.to_string());
            }
            Ok(_) => return,
        };
        self.take_status(*status);
        if tick.is_multiple_of(FILTER_SWEEP_TICKS)
            && let Some(lent) = self.filter.lent.borrow().as_ref()
        {
            // Only to make room: what has lapsed counts no more.
            let _ = lent.bans.sweep(monotonic_s());
        }
    }

    fn take_status(&self, status: Status) {
        let before =
            self.filter.status.borrow().as_ref().map(|s| (s.attached.clone(), s.notes.clone()));
        if before.as_ref() != Some(&(status.attached.clone(), status.notes.clone())) {
            let on: Vec<String> = status
                .attached
                .iter()
                .map(|(name, native)| {
                    format!("{name} ({})", if *native { "native" } else { "generic" })
                })
                .collect();
            let on = if on.is_empty() { "no interface".to_owned() } else { on.join(", ") };
            self.note(Note::Filter, &format!("the XDP filter is on {on}"));
            status.notes.iter().for_each(|note| self.note(Note::Filter, note));
        }
        let was_hidden = self.filter.status.borrow().as_ref().is_some_and(hides_sources);
        if hides_sources(&status) && !was_hidden && self.is_direct() {
            self.alarm(Alarm::Filter, HIDDEN);
        }
        let lists = Arc::clone(&self.filter.lists.borrow());
        let mut kept = self.filter.events.borrow_mut();
        for (n, event) in status.events.iter().enumerate() {
            if n < FILTER_LINES_MAX {
                self.note(Note::Filter, &event_line(event, &lists));
            }
            let number = self.filter.event_number.get() + 1;
            self.filter.event_number.set(number);
            kept.push_back((number, *event));
        }
        if status.events.len() > FILTER_LINES_MAX {
            let more = status.events.len() - FILTER_LINES_MAX;
            self.note(
                Note::Filter,
                &format!("and {more} more events: `ringpost xdp tail` has them"),
            );
        }
        while kept.len() > FILTER_EVENTS_MAX {
            kept.pop_front();
        }
        drop(kept);
        *self.filter.status.borrow_mut() = Some(status);
    }

    fn is_direct(&self) -> bool {
        self.orders.borrow().config.xdp.topology == Topology::Direct
    }

    /// What the tables of the filter say of an address; nothing without the filter.
    pub(super) async fn ask_filter(&self, address: IpAddr) -> Option<Status> {
        let client = self.filter.client.clone().filter(|_| self.filter.is_on())?;
        let Ok(Answer::Status(mut status)) = ask(client, Request::Status(Some(address))).await
        else {
            return None;
        };
        // Events are handed out once.
        let events = std::mem::take(&mut status.events);
        self.take_status(Status { events, found: Vec::new(), ..(*status).clone() });
        Some(*status)
    }

    /// What the operator should know of lists and filter, one line each.
    pub(super) fn filter_alarms(&self) -> Vec<String> {
        let mut lines = self.filter.problems.borrow().clone();
        lines.extend(self.filter.without.borrow().clone());
        lines.extend(self.fuse_line());
        let zones = Arc::clone(&self.orders.borrow().zones);
        for zone in zones.all() {
            let state = zone.state();
            if matches!(state, State::Failed | State::TooMany) {
                lines.push(zone_line(zone.config.zone.as_str(), state));
            }
        }
        let hidden = self.filter.status.borrow().as_ref().is_some_and(hides_sources);
        if hidden && self.is_direct() {
            lines.push(HIDDEN.to_owned());
        }
        lines
    }

    /// The filter's counters for the metrics page.
    pub(super) fn filter_page(&self, page: &mut String) {
        use std::fmt::Write as _;
        let status = self.filter.status.borrow();
        let Some(status) = status.as_ref() else { return };
        let metric = "ringpost_xdp_total";
        let _ = writeln!(page, "# HELP {metric} What the XDP filter did.\n# TYPE {metric} counter");
        for ((_, word), count) in COUNTERS.iter().zip(&status.counters) {
            let _ = writeln!(page, "{metric}{{what=\"{word}\"}} {count}");
        }
        let metric = "ringpost_xdp_list_total";
        let _ = writeln!(page, "# HELP {metric} SYNs of listed sources.\n# TYPE {metric} counter");
        let lists = self.filter.lists.borrow();
        for (list, action, count) in &status.reasons {
            let (name, action) = (lists.name(*list), action.name());
            let _ = writeln!(page, "{metric}{{list=\"{name}\",action=\"{action}\"}} {count}");
        }
    }
}

const HIDDEN: &str = "nearly all SYNs come from one or two sources: if a switch hides the clients, \
                      say so with [xdp] topology";

fn zone_line(name: &str, state: State) -> String {
    match state {
        State::TooMany => format!("DNS list {name} lists nearly everybody: cut off for an hour"),
        _ => format!("DNS list {name} fails its test points: cut off until they are right"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_bans_are_clients() {
        for client in ["192.0.2.7", "2001:db8:1:2::"] {
            let client: IpAddr = client.parse().unwrap();
            assert_eq!(client_of(::hints::client_key(client).as_ref()), Some(client));
        }
        assert_eq!(client_of(b"example.org"), None);
    }

    #[test]
    fn a_ban_in_the_kernel_ends_when_it_does_here() {
        let ban = Ban { until_us: 61_500_000, rung: 2, list: 3, id: 9, ..Ban::default() };
        let listing = listing(&ban, 1_000_000);
        let left_s = listing.expires_s - monotonic_s();
        assert!((60..=61).contains(&left_s), "{left_s}");
        assert_eq!((listing.action, listing.list, listing.id), (Action::Answer, 3, 9));
    }
}
