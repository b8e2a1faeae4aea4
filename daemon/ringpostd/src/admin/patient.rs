//! Questions that may wait for a look-up: played sessions, routes, verified recipients.
//!
//! *Limits*: [`PATIENTS_MAX`] at once, each for [`WAIT_US_MAX`]; [`PLAYS_MAX`] played sessions that
//! may go on: the one that was silent longest makes room for another.

use std::collections::VecDeque;
use std::net::SocketAddr;

use control::octets::{from_base64, to_base64};
use control::{Failure, FailureCode, List, Part, Rehearse, Reply, Request, Rows, Test, Text};
use smtp::address::Address;

use crate::desk::Desk;
use crate::inbound::rehearsal::{Rehearsal, verify};
use crate::route::{NextHop, Plan};
use crate::ways::hop_key;

/// Questions at once.
const PATIENTS_MAX: usize = 8;
/// Played sessions that are kept.
const PLAYS_MAX: usize = 16;
/// How long one waits for a look-up.
const WAIT_US_MAX: u64 = 4_000_000;

#[derive(Debug)]
enum Patient {
    Session(u64, Box<Rehearsal>),
    Route(String),
    Verify(String),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Patients {
    open: Vec<(u64, u64, Patient)>,
    /// Played sessions between two questions, the last that spoke at the end.
    plays: VecDeque<(u64, Box<Rehearsal>)>,
}

impl Patients {
    pub(super) fn begin(
        &mut self,
        desk: &mut Desk,
        number: u64,
        request: &Request,
    ) -> Result<(), Failure> {
        let fail = |code, message: &str| Err(Failure::new(code, message, ""));
        if self.open.len() >= PATIENTS_MAX {
            return fail(FailureCode::Busy, "too many questions at once");
        }
        let patient = match request {
            Request::Session(Rehearse { from, listener, play, said, by_dns }) => {
                let Ok(from) = from.parse() else {
                    return fail(FailureCode::Refused, "this is no IP address, like 192.0.2.1");
                };
                let said: Option<Vec<_>> = said.iter().map(|piece| from_base64(piece)).collect();
                let Some(said) = said else {
                    return fail(FailureCode::Malformed, "this is no base64");
                };
                let known = self.plays.iter().position(|(known, _)| known == play);
                let (play, mut rehearsal) = match known.and_then(|at| self.plays.remove(at)) {
                    Some(known) => known,
                    None if *play != 0 => {
                        return fail(FailureCode::NotFound, "this played session is over");
                    }
                    None => {
                        let listener = usize::from(*listener);
                        let listeners = &desk.config().listeners;
                        if listener >= listeners.len() {
                            let all = listeners.iter().enumerate().map(|(n, one)| {
                                format!("{n} {} (tls {})", one.socket(), one.tls.as_str())
                            });
                            let message = format!("there is no listener {listener} in the config");
                            let advice = all.collect::<Vec<_>>().join(", ");
                            let failure = Failure::new(FailureCode::Refused, &message, &advice);
                            return Err(failure);
                        }
                        let new = Rehearsal::new(desk, from, listener, by_dns);
                        (desk.random.next_u64() | 1, Box::new(new))
                    }
                };
                rehearsal.hear(desk, said);
                Patient::Session(play, rehearsal)
            }
            Request::Test(Test::Route(address)) => Patient::Route(address.to_string()),
            Request::Test(Test::Verify(address)) => Patient::Verify(address.to_string()),
            _ => return fail(FailureCode::Internal, "this is not a core's to answer"),
        };
        self.open.push((number, desk.now_us.saturating_add(WAIT_US_MAX), patient));
        Ok(())
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// What is ready, by number.
    pub(super) fn step(&mut self, desk: &mut Desk) -> Vec<(u64, Reply)> {
        let mut ready = Vec::new();
        for (number, until_us, mut patient) in std::mem::take(&mut self.open) {
            let late = desk.now_us >= until_us;
            let reply = match &mut patient {
                Patient::Session(_, rehearsal) => rehearsal.step(desk).then_some(None),
                Patient::Route(address) => route(desk, address, late).map(Some),
                Patient::Verify(address) => verified(desk, address, late).map(Some),
            };
            match (reply, patient) {
                (None, patient) => self.open.push((number, until_us, patient)),
                (Some(Some(rows)), _) => ready.push((number, Reply::Rows(Box::new(rows)))),
                (Some(None), Patient::Session(play, mut rehearsal)) => {
                    ready.push((number, played(play, &mut rehearsal)));
                    if !rehearsal.closed() {
                        if self.plays.len() >= PLAYS_MAX {
                            self.plays.pop_front();
                        }
                        self.plays.push_back((play, rehearsal));
                    }
                }
                (Some(None), _) => {}
            }
        }
        ready
    }
}

fn played(play: u64, rehearsal: &mut Rehearsal) -> Reply {
    let closed = rehearsal.closed();
    let (out, notes) = rehearsal.take_parts();
    Reply::Part(Box::new(Part {
        octets: Text::cut(&to_base64(&out)),
        next: None,
        play,
        notes: List::cut(notes.iter().map(|note| Text::cut(note))),
        closed,
    }))
}

fn domain_of(address: &str) -> String {
    address.rsplit_once('@').map_or(address, |(_, domain)| domain).to_ascii_lowercase()
}

/// Where mail for an address or domain goes; `None` while that is being found out.
fn route(desk: &mut Desk, address: &str, late: bool) -> Option<Rows> {
    let domain = domain_of(address.trim_matches(['<', '>']));
    let columns = ["route", "tier", "from age", "host", "address", "state"];
    let Some(route) = desk.ways.route(&domain).cloned() else {
        return Some(Rows::new(&columns).noting([format!("No route leads to {domain}.")]));
    };
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    if desk.orders.rules.holds(&domain) {
        notes.push(format!("Mail for {domain} waits: `ringpost queue release {domain}`."));
    }
    for (number, tier) in route.tiers.iter().enumerate() {
        let mut row = |host: &str, address: &str, state: &str| {
            let age = format!("{}s", tier.from_age_us / 1_000_000);
            let cells = [&*route.name, &number.to_string(), &age, host, address, state];
            rows.push(cells.map(str::to_owned).to_vec());
        };
        if let NextHop::Discard { .. } = tier.next_hop {
            row("-", "-", "thrown away");
            continue;
        }
        let up = |_: SocketAddr| 0;
        match desk.ways.plan(tier, &domain, desk.wall_us, 0, &up) {
            None if late => row("?", "?", "no answer of the DNS in time"),
            None => {
                desk.ask_way(&domain);
                return None;
            }
            Some(Plan::Try(targets)) => {
                for target in targets {
                    for address in target.addresses {
                        let state = state(desk, address);
                        row(&target.name, &address.to_string(), &state);
                    }
                }
            }
            Some(Plan::Down(_)) => row("?", "?", "down"),
            Some(Plan::Later(refusal) | Plan::Refused(refusal)) => {
                let text = format!("{} {} {}", refusal.code, refusal.enhanced, refusal.text);
                row("-", "-", &text);
            }
        }
    }
    Some(Rows::new(&columns).with(rows).noting(notes))
}

fn state(desk: &Desk, address: SocketAddr) -> String {
    let key = hop_key(address);
    let offers = desk.hints.offers(&key, desk.wall_us);
    let seen = if offers.is_some() { "offers known" } else { "offers not known" };
    match desk.hints.health(&key, desk.wall_us) {
        Some(health) if health.down_until_us > desk.wall_us => {
            let left = (health.down_until_us - desk.wall_us) / 1_000_000;
            format!("down for {left} s more, {seen}")
        }
        _ => format!("up, {seen}"),
    }
}

fn verified(desk: &mut Desk, address: &str, late: bool) -> Option<Rows> {
    let address = address.trim_matches(['<', '>']);
    let columns = ["who", "verdict"];
    match verify(desk, address.as_bytes()) {
        Some(verdicts) => {
            let rows = verdicts.into_iter().map(|(who, text)| vec![who.to_owned(), text]);
            Some(Rows::new(&columns).with(rows))
        }
        None if late => {
            let note = "The DNS does not answer in time: clients hear 451.".to_owned();
            Some(Rows::new(&columns).noting([note]))
        }
        None => {
            let domain = domain_of(address);
            if Address::parse(address.as_bytes(), true).is_ok() {
                desk.ask_way(&domain);
            }
            None
        }
    }
}
