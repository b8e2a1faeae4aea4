//! Look-ups for the cores: each name once, however many cores ask.
//!
//! *Limits*: `LOOKUPS_MAX` names, `LOOKUPS_AT_ONCE` of them at the resolver.
//! *Failure*: too many, or no answer in time: "not known for now", which is never a bounce.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::MailboxSender;
use tokio::sync::Semaphore;

use crate::config::ResolverConfig;
use crate::dns::{AddressAnswer, Failure, MxAnswer, Outcome, Outward, OutwardConfig, Question};
use crate::post::ToCore;

use super::limits::{LOOKUP_WAIT, LOOKUPS_AT_ONCE, LOOKUPS_MAX};

/// Where the system's resolvers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Mx,
    Addresses,
}

/// Who waits for which name.
type Waiting = HashMap<(What, Arc<str>), Vec<usize>>;

/// The house's look-ups.
#[derive(Debug)]
pub(super) struct Lookups {
    outward: RefCell<Rc<Outward>>,
    waiting: RefCell<Waiting>,
    permits: Semaphore,
    cores: Vec<MailboxSender<ToCore>>,
}

impl Lookups {
    /// For these cores.
    ///
    /// # Errors
    /// What the resolver library has against the config.
    pub(super) fn new(
        config: &ResolverConfig,
        cores: Vec<MailboxSender<ToCore>>,
    ) -> Result<Rc<Self>, Box<str>> {
        Ok(Rc::new(Self {
            outward: RefCell::new(Rc::new(outward(config)?)),
            waiting: RefCell::default(),
            permits: Semaphore::new(LOOKUPS_AT_ONCE),
            cores,
        }))
    }

    /// Another resolver from now on.
    pub(super) fn configure(&self, outward: Outward) {
        *self.outward.borrow_mut() = Rc::new(outward);
    }

    /// A core wants to know where mail for a domain goes.
    pub(super) fn mx(self: &Rc<Self>, core: usize, domain: Arc<str>) {
        match self.join(core, What::Mx, &domain) {
            Joined::Full => {
                let answer = Arc::new(MxAnswer::Temporary("too many look-ups".into()));
                self.post(core, ToCore::Mx(domain, answer));
            }
            Joined::Waits => {}
            Joined::First => {
                let this = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    let outward = Rc::clone(&this.outward.borrow());
                    let late = || MxAnswer::Temporary("no answer in time".into());
                    let answer = this.limited(outward.mx(&domain)).await;
                    let answer = Arc::new(answer.unwrap_or_else(late));
                    this.tell(What::Mx, &domain, || {
                        ToCore::Mx(Arc::clone(&domain), Arc::clone(&answer))
                    });
                });
            }
        }
    }

    /// A core wants to know the addresses of a host.
    pub(super) fn addresses(self: &Rc<Self>, core: usize, host: Arc<str>) {
        match self.join(core, What::Addresses, &host) {
            Joined::Full => {
                let answer = Arc::new(AddressAnswer::Temporary("too many look-ups".into()));
                self.post(core, ToCore::Addresses(host, answer));
            }
            Joined::Waits => {}
            Joined::First => {
                let this = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    let outward = Rc::clone(&this.outward.borrow());
                    let late = || AddressAnswer::Temporary("no answer in time".into());
                    let answer = this.limited(outward.addresses(&host)).await;
                    let answer = Arc::new(answer.unwrap_or_else(late));
                    this.tell(What::Addresses, &host, || {
                        ToCore::Addresses(Arc::clone(&host), Arc::clone(&answer))
                    });
                });
            }
        }
    }

    /// A core could not read an answer from a datagram.
    pub(super) fn over_tcp(self: &Rc<Self>, core: usize, number: u64, question: Question) {
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let outward = Rc::clone(&this.outward.borrow());
            let outcome = this.limited(outward.over_tcp(&question)).await;
            let outcome = outcome.unwrap_or(Outcome::Failed(Failure::Timeout));
            this.post(core, ToCore::OverTcp(number, outcome));
        });
    }

    /// Any question, for the operator.
    pub(super) async fn ask_dns(&self, question: &Question) -> Outcome {
        let outward = Rc::clone(&self.outward.borrow());
        let outcome = self.limited(outward.lookup(question)).await;
        outcome.unwrap_or(Outcome::Failed(Failure::Timeout))
    }

    /// The exchangers of a domain, for the operator.
    pub(super) async fn ask_mx(&self, domain: &str) -> MxAnswer {
        let outward = Rc::clone(&self.outward.borrow());
        let answer = self.limited(outward.mx(domain)).await;
        answer.unwrap_or_else(|| MxAnswer::Temporary("no answer in time".into()))
    }

    /// The addresses of a host, for the operator.
    pub(super) async fn ask_addresses(&self, host: &str) -> AddressAnswer {
        let outward = Rc::clone(&self.outward.borrow());
        let answer = self.limited(outward.addresses(host)).await;
        answer.unwrap_or_else(|| AddressAnswer::Temporary("no answer in time".into()))
    }

    /// The records of one type that a name has, for the operator.
    pub(super) async fn ask_records(&self, question: &Question) -> Outcome {
        let outward = Rc::clone(&self.outward.borrow());
        let answer = self.limited(outward.records(question)).await;
        answer.unwrap_or(Outcome::Failed(Failure::Timeout))
    }

    async fn limited<T>(&self, asking: impl Future<Output = T>) -> Option<T> {
        let asking = async {
            let _permit = self.permits.acquire().await.expect("never closed");
            asking.await
        };
        tokio::time::timeout(LOOKUP_WAIT, asking).await.ok()
    }

    fn join(&self, core: usize, what: What, name: &Arc<str>) -> Joined {
        let mut waiting = self.waiting.borrow_mut();
        let full = waiting.len() >= LOOKUPS_MAX;
        match waiting.get_mut(&(what, Arc::clone(name))) {
            Some(cores) => {
                if !cores.contains(&core) {
                    cores.push(core);
                }
                Joined::Waits
            }
            None if full => Joined::Full,
            None => {
                waiting.insert((what, Arc::clone(name)), vec![core]);
                Joined::First
            }
        }
    }

    fn tell(&self, what: What, name: &Arc<str>, mail: impl Fn() -> ToCore) {
        let cores = self.waiting.borrow_mut().remove(&(what, Arc::clone(name)));
        for core in cores.into_iter().flatten() {
            self.post(core, mail());
        }
    }

    fn post(&self, core: usize, mail: ToCore) {
        // A full mailbox loses it: whoever waits has a time limit of its own, and asks again.
        if let Some(sender) = self.cores.get(core) {
            let _ = sender.post(mail);
        }
    }
}

enum Joined {
    First,
    Waits,
    Full,
}

/// The resolver of a config.
///
/// # Errors
/// What the resolver library has against it.
pub(super) fn outward(config: &ResolverConfig) -> Result<Outward, Box<str>> {
    let resolvers = match config.servers.as_slice() {
        [] => system_servers(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()),
        servers => servers.to_vec(),
    };
    Outward::new(&OutwardConfig {
        resolvers,
        try_timeout: Duration::from_micros(config.timeout_s.us()),
        tries: u8::try_from(config.attempts).unwrap_or(u8::MAX),
    })
}

/// The servers of `resolv.conf(5)`; the loopback address when there is none, as it says there.
fn system_servers(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse::<IpAddr>().ok()
    });
    let servers: Vec<SocketAddr> = addresses.map(|ip| SocketAddr::new(ip, DNS_PORT)).collect();
    if servers.is_empty() { vec![SocketAddr::from(([127, 0, 0, 1], DNS_PORT))] } else { servers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_servers_are_read() {
        let text = "# comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver ::1 # x\n\
                    nameserver fe80::1%eth0\n";
        let servers: Vec<String> = system_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[::1]:53"]);
        assert_eq!(system_servers("").len(), 1);
    }
}
