//! The wizard's questions: words, help, default, and what an answer must be. At most ten.
//!
//! *Guarantees*: an answer that is refused changes nothing. *Not here*: the order in which they are
//! asked, and what the world says of the answers (`checks`).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use control::Role;

use crate::access::Login;
use crate::accessing::asked_twice;
use crate::draft::{Draft, Facts, Hop};

/// One question.
pub(crate) struct Question {
    /// In the summary.
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) help: &'static str,
    /// Whether it is asked here.
    pub(crate) fits: fn(&Facts) -> bool,
    /// Empty: there is none.
    pub(crate) default: fn(&Facts, &Draft) -> String,
    /// Takes the answer, or says what is wrong.
    pub(crate) take: fn(&Facts, &mut Draft, &str) -> Result<(), String>,
    /// For the summary.
    pub(crate) shown: fn(&Draft) -> String,
    /// It is a password: not shown, typed twice.
    pub(crate) secret: bool,
}

/// All of them, in order.
pub(crate) const ALL: [Question; 10] = [
    Question {
        name: "host name",
        text: "The full name of this machine, as the DNS has it",
        help: "It stands in the greeting and in EHLO. Other servers want the name of your \
               address (PTR) to be the same. Example: mx1.example.org",
        fits: |_| true,
        default: |_, draft| match draft.host.is_empty() {
            true => {
                let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                let name = name.trim().to_owned();
                if host(&name).is_ok() { name } else { "mx.example.org".to_owned() }
            }
            false => draft.host.clone(),
        },
        take: |_, draft, answer| host(answer).map(|name| draft.host = name),
        shown: |draft| draft.host.clone(),
        secret: false,
    },
    Question {
        name: "network card",
        text: "The network card, by its hardware address",
        help: "The card that mail comes in by. Bonds and VLANs: edit machine.toml later.",
        fits: |facts| !facts.cards.is_empty(),
        default: |facts, draft| match draft.card.is_empty() {
            true => facts.cards.first().map_or_else(String::new, |(_, mac)| mac.clone()),
            false => draft.card.clone(),
        },
        take: |facts, draft, answer| {
            let card = facts.cards.iter().find(|(name, mac)| answer == name || answer == mac);
            let known: Vec<&str> = facts.cards.iter().map(|(_, mac)| mac.as_str()).collect();
            let card = card.ok_or_else(|| format!("there is: {}", known.join(", ")))?;
            draft.card.clone_from(&card.1);
            Ok(())
        },
        shown: |draft| draft.card.clone(),
        secret: false,
    },
    Question {
        name: "addresses",
        text: "Its addresses with the length of the network",
        help: "One or more, with spaces between. Example: 192.0.2.25/24 2001:db8::25/64",
        fits: |facts| !facts.cards.is_empty(),
        default: |_, draft| {
            draft.addresses.iter().map(|(ip, n)| format!("{ip}/{n}")).collect::<Vec<_>>().join(" ")
        },
        take: |_, draft, answer| each(answer, network).map(|all| draft.addresses = all),
        shown: |draft| {
            draft.addresses.iter().map(|(ip, n)| format!("{ip}/{n}")).collect::<Vec<_>>().join(" ")
        },
        secret: false,
    },
    Question {
        name: "gateways",
        text: "The gateway, one for each of IPv4 and IPv6 that you use",
        help: "Where packets for the rest of the world go. Example: 192.0.2.1 2001:db8::1",
        fits: |facts| !facts.cards.is_empty(),
        default: |_, draft| match draft.gateways.is_empty() {
            true => draft.addresses.iter().find_map(first_of).unwrap_or_default(),
            false => joined(&draft.gateways),
        },
        take: |_, draft, answer| {
            let address = |word: &str| word.parse().map_err(|_| format!("{word} is no address"));
            each(answer, address).map(|all| draft.gateways = all)
        },
        shown: |draft| joined(&draft.gateways),
        secret: false,
    },
    Question {
        name: "DNS servers",
        text: "The DNS servers",
        help: "Resolvers that answer this machine, with spaces between; best one of your own. A \
               port may follow: 192.0.2.53:5353",
        fits: |_| true,
        default: |_, draft| match (draft.servers.is_empty(), draft.gateways.first()) {
            (false, _) => joined(draft.servers.iter().map(server_text)),
            (true, Some(gateway)) => gateway.to_string(),
            (true, None) => resolvers(),
        },
        take: |_, draft, answer| each(answer, server).map(|all| draft.servers = all),
        shown: |draft| joined(draft.servers.iter().map(server_text)),
        secret: false,
    },
    Question {
        name: "domains",
        text: "The domains whose mail is taken here",
        help: "With spaces between. Mail for all others is refused. Example: example.org",
        fits: |_| true,
        default: |_, draft| match draft.domains.is_empty() {
            true => draft.host.split_once('.').map_or_else(String::new, |(_, d)| d.to_owned()),
            false => draft.domains.join(" "),
        },
        take: |_, draft, answer| each(answer, host).map(|all| draft.domains = all),
        shown: |draft| draft.domains.join(" "),
        secret: false,
    },
    Question {
        name: "mail servers",
        text: "The servers behind, where that mail goes",
        help: "Names or addresses, with spaces between; a port may follow: 10.0.0.7:2525, \
               [2001:db8::7]:25. They share the mail.",
        fits: |_| true,
        default: |_, draft| match draft.hops.is_empty() {
            true => draft.domains.first().map_or_else(String::new, |d| format!("mail.{d}:25")),
            false => joined(draft.hops.iter().map(hop_text)),
        },
        take: |_, draft, answer| each(answer, hop).map(|all| draft.hops = all),
        shown: |draft| joined(draft.hops.iter().map(hop_text)),
        secret: false,
    },
    Question {
        name: "recipients",
        text: "Who gets mail there: addresses, *@domain, or the word any",
        help: "Unknown recipients are refused while the sender is still connected. With `any` the \
               server behind must take everybody, or bounces go to forged senders.",
        fits: |_| true,
        default: |_, draft| match draft.recipients.is_empty() {
            true => "any".to_owned(),
            false => draft.recipients.join(" "),
        },
        take: |_, draft, answer| {
            draft.recipients = match answer {
                "any" => Vec::new(),
                answer => each(answer, recipient)?,
            };
            Ok(())
        },
        shown: |draft| match draft.recipients.len() {
            0 => "any".to_owned(),
            1..=3 => draft.recipients.join(" "),
            n => format!("{n} of them"),
        },
        secret: false,
    },
    Question {
        name: "mirror",
        text: "Keep each mail on two disks (yes or no)",
        help: "Pairs of spool disks hold the same: no mail is lost with one of them.",
        fits: |facts| facts.places.len() >= 2 && facts.places.len().is_multiple_of(2),
        default: |_, _| "yes".to_owned(),
        take: |_, draft, answer| match answer {
            "yes" | "y" => {
                draft.mirror = true;
                Ok(())
            }
            "no" | "n" => {
                draft.mirror = false;
                Ok(())
            }
            _ => Err("yes or no".to_owned()),
        },
        shown: |draft| if draft.mirror { "yes" } else { "no" }.to_owned(),
        secret: false,
    },
    Question {
        name: "password",
        text: "A password for the login `admin` on this line",
        help: "8 to 128 octets; it is not shown, and typed twice. From the commit on nobody gets \
               to this line without it.",
        fits: |_| true,
        default: |_, _| String::new(),
        take: |_, draft, _| {
            let password = asked_twice().map_err(|trouble| trouble.message)?;
            // A way back and help are the same here as everywhere.
            let login = Login::new("admin", Role::Admin, &password);
            login.map(|login| draft.login = Some(login)).map_err(|trouble| trouble.message)
        },
        shown: |draft| if draft.login.is_some() { "set" } else { "-" }.to_owned(),
        secret: true,
    },
];

fn joined<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" ")
}

fn each<T>(answer: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let words = answer.split([' ', ',']).filter(|word| !word.is_empty());
    let all: Vec<T> = words.map(read).collect::<Result<_, _>>()?;
    if all.is_empty() { Err("at least one is needed".to_owned()) } else { Ok(all) }
}

/// A name with two parts or more, in lower case.
fn host(text: &str) -> Result<String, String> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.chars().all(good)
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let digits = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|o| o.is_ascii_digit()));
    if name.len() <= 253 && name.contains('.') && name.split('.').all(label) && !digits {
        Ok(name)
    } else {
        Err(format!("{text:?} is no full name, like mx.example.org"))
    }
}

fn network(word: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("{word} is no address with length, like 192.0.2.25/24");
    let (ip, length) = word.split_once('/').ok_or_else(wrong)?;
    let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let length = length.parse().ok().filter(|n| (1..=most).contains(n)).ok_or_else(wrong)?;
    Ok((ip, length))
}

/// The first host of an IPv4 network: where gateways mostly are.
fn first_of((ip, length): &(IpAddr, u8)) -> Option<String> {
    let IpAddr::V4(ip) = ip else { return None };
    let mask = u32::MAX.checked_shl(32_u32.checked_sub(u32::from(*length))?).unwrap_or(0);
    Some(Ipv4Addr::from((u32::from(*ip) & mask) + 1).to_string())
}

fn server(word: &str) -> Result<SocketAddr, String> {
    let with_port = word.parse().ok();
    let alone = || Some(SocketAddr::new(word.parse().ok()?, 53));
    with_port.or_else(alone).ok_or_else(|| format!("{word} is no address"))
}

fn server_text(server: &SocketAddr) -> String {
    if server.port() == 53 { server.ip().to_string() } else { server.to_string() }
}

fn resolvers() -> String {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver "));
    joined(servers.filter(|word| server(word.trim()).is_ok()).map(str::trim))
}

fn hop(word: &str) -> Result<Hop, String> {
    if let Ok(address) = word.parse::<SocketAddr>() {
        return Ok(Hop { host: address.ip().to_string(), port: address.port() });
    }
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Ok(Hop { host: ip.to_string(), port: 25 });
    }
    let (name, port) = word.split_once(':').unwrap_or((word, "25"));
    let port = port.parse().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| format!("{word}: a port is 1 to 65535"))?;
    Ok(Hop { host: host(name)?, port })
}

fn hop_text(hop: &Hop) -> String {
    match hop.host.contains(':') {
        true => format!("[{}]:{}", hop.host, hop.port),
        false => format!("{}:{}", hop.host, hop.port),
    }
}

fn recipient(word: &str) -> Result<String, String> {
    let (local, domain) = word.rsplit_once('@').unwrap_or(("*", word));
    host(domain).map_err(|_| format!("{word} is no address"))?;
    let plain = !local.is_empty() && local.bytes().all(|o| o.is_ascii_graphic() && o != b'"');
    if plain { Ok(word.to_owned()) } else { Err(format!("{word} is no address")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        assert_eq!(host("MX.Example.org.").unwrap(), "mx.example.org");
        for wrong in ["mx", "", "a..b", "-a.b", "a b.c", "192.0.2.1", "a\".b"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
        let first = |text: &str| first_of(&network(text).unwrap());
        assert_eq!(first("192.0.2.25/24").unwrap(), "192.0.2.1");
        assert_eq!(first("10.9.8.7/8").unwrap(), "10.0.0.1");
        assert!(network("192.0.2.25").is_err() && network("192.0.2.25/33").is_err());
        assert_eq!(server("192.0.2.53").unwrap().port(), 53);
        assert_eq!(hop("[2001:db8::7]:2525").unwrap().port, 2525);
        assert_eq!(hop_text(&hop("mail.example.org").unwrap()), "mail.example.org:25");
        assert!(hop("mail.example.org:0").is_err() && hop("mail").is_err());
        assert!(recipient("ann@example.org").is_ok() && recipient("*@example.org").is_ok());
        assert!(recipient("a\"b@example.org").is_err() && recipient("ann").is_err());
    }
}
