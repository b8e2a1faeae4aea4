//! What the world says of the wizard's answers: DNS, next hops, the own name.
//!
//! *Guarantees*: nothing is changed; each finding is one line that begins with `ok`, `!!` (others
//! will trip over it) or `--` (worth knowing).

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::draft::{Draft, Hop};
use crate::resolve;

const WAIT: Duration = Duration::from_secs(5);

/// What was found.
pub(crate) enum Finding {
    Good(String),
    Bad(String),
    Note(String),
}

impl Finding {
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Good(text) => format!("ok {text}"),
            Self::Bad(text) => format!("!! {text}"),
            Self::Note(text) => format!("-- {text}"),
        }
    }

    pub(crate) fn is_bad(&self) -> bool {
        matches!(self, Self::Bad(_))
    }
}

/// Everything, one after the other, as it is found.
pub(crate) fn all(draft: &Draft, mut tell: impl FnMut(Finding)) {
    let own = match resolve::addresses(&draft.servers, &draft.host) {
        Err(why) => {
            tell(Finding::Bad(format!("the DNS does not answer: {why}")));
            Vec::new()
        }
        Ok(found) => {
            tell(forward(draft, &found));
            found
        }
    };
    for address in addresses(draft, own) {
        tell(reverse(draft, address));
    }
    for domain in &draft.domains {
        tell(exchanger(draft, domain));
    }
    tell(pins(draft));
    for hop in &draft.hops {
        tell(next_hop(draft, hop));
    }
}

/// Those the machine will have; elsewhere than on the appliance those of its name.
fn addresses(draft: &Draft, found: Vec<IpAddr>) -> Vec<IpAddr> {
    match draft.addresses.is_empty() {
        true => found,
        false => draft.addresses.iter().map(|(ip, _)| *ip).collect(),
    }
}

fn forward(draft: &Draft, found: &[IpAddr]) -> Finding {
    let host = &draft.host;
    if found.is_empty() {
        return Finding::Bad(format!("{host} has no address in the DNS"));
    }
    let missing = draft.addresses.iter().find(|(ip, _)| !found.contains(ip));
    match missing {
        Some((ip, _)) => Finding::Bad(format!("{host} has not the address {ip} in the DNS")),
        None => Finding::Good(format!("{host} has its address in the DNS")),
    }
}

fn reverse(draft: &Draft, address: IpAddr) -> Finding {
    let host = &draft.host;
    match resolve::names(&draft.servers, address) {
        Ok(names) if names.contains(host) => {
            Finding::Good(format!("{address} is called {host} (PTR)"))
        }
        Ok(names) => match names.first() {
            Some(name) => Finding::Bad(format!("{address} is called {name}, not {host} (PTR)")),
            None => Finding::Bad(format!("{address} has no name (PTR): many refuse its mail")),
        },
        Err(why) => Finding::Bad(format!("{address}: PTR unknown: {why}")),
    }
}

fn exchanger(draft: &Draft, domain: &str) -> Finding {
    let host = &draft.host;
    match resolve::exchangers(&draft.servers, domain) {
        Ok(all) if all.contains(host) => Finding::Good(format!("{domain} has the MX {host}")),
        Ok(all) => match all.first() {
            Some(other) => Finding::Bad(format!("{domain} has the MX {other}, not {host}")),
            None => Finding::Bad(format!("{domain} has no MX: nobody sends its mail here")),
        },
        Err(why) => Finding::Bad(format!("{domain}: MX unknown: {why}")),
    }
}

fn pins(draft: &Draft) -> Finding {
    let host = &draft.host;
    match resolve::pins(&draft.servers, host) {
        Ok(0) => Finding::Note(format!("{host} has no TLSA record (DANE): none is needed")),
        Ok(n) => Finding::Note(format!(
            "{host} has {n} TLSA record(s): the certificate must fit, senders with DANE insist"
        )),
        Err(why) => Finding::Bad(format!("{host}: TLSA unknown: {why}")),
    }
}

fn next_hop(draft: &Draft, hop: &Hop) -> Finding {
    let name = format!("{}:{}", hop.host, hop.port);
    let found = match hop.host.parse::<IpAddr>() {
        Ok(ip) => Ok(vec![ip]),
        Err(_) => resolve::addresses(&draft.servers, &hop.host),
    };
    match found {
        Err(why) => Finding::Bad(format!("{name}: {why}")),
        Ok(found) => match found.first() {
            None => Finding::Bad(format!("{name} has no address in the DNS")),
            Some(ip) => match greeting(SocketAddr::new(*ip, hop.port)) {
                Ok(line) if line.starts_with("220") => Finding::Good(format!("{name}: {line}")),
                Ok(line) => Finding::Bad(format!("{name} says {line}")),
                Err(why) => Finding::Bad(format!("{name}: {why}")),
            },
        },
    }
}

/// What a next hop says first.
fn greeting(address: SocketAddr) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let stream = TcpStream::connect_timeout(&address, WAIT).map_err(text)?;
    stream.set_read_timeout(Some(WAIT)).map_err(text)?;
    let mut line = String::new();
    BufReader::new(std::io::Read::take(stream, 512)).read_line(&mut line).map_err(text)?;
    Ok(line.trim_end().to_owned())
}
