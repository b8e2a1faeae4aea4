//! What is tried and looked up for the operator: names, next hops, watched sessions, certificates.
//!
//! *Limits*: `HOSTS_MAX` hosts of one trial, each for `TRY_WAIT`; a reply is read up to
//! `REPLY_OCTETS_MAX`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{Failure, FailureCode, Reply, Request, Rows, Test, Text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use x509_parser::pem::Pem;

use super::House;
use crate::config::NextHop;
use crate::dns::{AddressAnswer, MxAnswer};
use crate::recorder::Wanted;
use crate::route::{Named, Ourselves};

/// Hosts of one trial.
const HOSTS_MAX: usize = 20;
/// For connecting, and for each reply.
const TRY_WAIT: Duration = Duration::from_secs(10);
/// Octets of a reply that are read.
const REPLY_OCTETS_MAX: usize = 4 << 10;

fn rows(columns: &[&str], rows: Vec<Vec<String>>, notes: Vec<String>) -> Reply {
    Reply::Rows(Box::new(Rows::new(columns).with(rows).noting(notes)))
}

impl House {
    pub(super) async fn test(&self, test: Test) -> Reply {
        match test {
            Test::Dns(name) => self.test_dns(&name).await,
            Test::Backend(host) => self.test_backend(&host).await,
            Test::Spf { ip, helo, from } => self.spf(&ip, &helo, &from).await,
            // A core's to answer.
            Test::Route(_) | Test::Verify(_) => {
                let answer = self.questions.ask_first(Request::Test(test)).await;
                answer.unwrap_or_else(Reply::Failure)
            }
        }
    }

    async fn test_dns(&self, name: &str) -> Reply {
        let name = name.rsplit('@').next().unwrap_or(name).to_ascii_lowercase();
        let began = Instant::now();
        let mx = self.lookups.ask_mx(&name).await;
        let mx_ms = began.elapsed().as_millis();
        let began = Instant::now();
        let addresses = self.lookups.ask_addresses(&name).await;
        let addresses_ms = began.elapsed().as_millis();
        let mut lines = Vec::new();
        let mut row = |what: &str, ms: u128, text: String| {
            lines.push(vec![what.to_owned(), ms.to_string(), text]);
        };
        match mx {
            MxAnswer::Hosts { hosts, ttl_s, implicit } => {
                let kind = if implicit { "no MX: the domain itself" } else { "MX" };
                for host in hosts {
                    let list: Vec<String> =
                        host.addresses.iter().map(ToString::to_string).collect();
                    let list =
                        if host.unresolved { "not known now".into() } else { list.join(" ") };
                    let (preference, name) = (host.preference, &host.name);
                    row(kind, mx_ms, format!("{preference} {name} [{list}] for {ttl_s} s"));
                }
            }
            MxAnswer::Null => row("MX", mx_ms, "the domain takes no mail (null MX)".to_owned()),
            MxAnswer::NoName => row("MX", mx_ms, "there is no such name".to_owned()),
            MxAnswer::NoHost => row("MX", mx_ms, "no host of it has an address".to_owned()),
            MxAnswer::Temporary(why) => row("MX", mx_ms, format!("not known now: {why}")),
        }
        match addresses {
            AddressAnswer::Found { addresses, ttl_s } => {
                let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                row("address", addresses_ms, format!("{} for {ttl_s} s", list.join(" ")));
            }
            AddressAnswer::NoName => {
                row("address", addresses_ms, "there is no such name".to_owned());
            }
            AddressAnswer::NoData => row("address", addresses_ms, "it has none".to_owned()),
            AddressAnswer::Temporary(why) => {
                row("address", addresses_ms, format!("not known now: {why}"));
            }
        }
        rows(&["what", "ms", "answer"], lines, Vec::new())
    }

    /// The host and port that is named, or those of all static routes.
    async fn test_backend(&self, named: &str) -> Reply {
        let orders = Arc::clone(&self.orders.borrow());
        let mut hosts: Vec<(String, u16)> = Vec::new();
        if named.is_empty() {
            for route in orders.config.routes.iter() {
                let NextHop::Hosts(named) = &route.next_hop else { continue };
                hosts.extend(named.iter().map(|host| (host.host.to_string(), host.port)));
            }
        } else {
            let (host, port) = match named.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
                _ => (named, "25"),
            };
            let host = host.trim_matches(['[', ']']).to_owned();
            let Ok(port) = port.parse() else {
                let message = format!("{named}: this is no host and port");
                return Reply::Failure(Failure::new(FailureCode::Refused, &message, ""));
            };
            hosts.push((host, port));
        }
        hosts.dedup();
        let mut lines = Vec::new();
        for (host, port) in hosts.into_iter().take(HOSTS_MAX) {
            for address in self.addresses_of(&host, port).await {
                let hostname = orders.config.node.hostname.as_str();
                let said = match address {
                    Ok(address) => (address.to_string(), greet(address, hostname).await),
                    Err(why) => ("-".to_owned(), vec![(0, why)]),
                };
                for (ms, text) in said.1 {
                    lines.push(vec![host.clone(), said.0.clone(), ms.to_string(), text]);
                }
            }
        }
        let none = lines.is_empty().then(|| "No route names a host: say which.".to_owned());
        rows(&["host", "address", "ms", "said"], lines, none.into_iter().collect())
    }

    /// Whether one of the addresses of a host greets and takes EHLO, and then offers STARTTLS; why
    /// not.
    pub(super) async fn takes_mail(&self, host: &Named) -> Result<bool, String> {
        let orders = Arc::clone(&self.orders.borrow());
        let hostname = orders.config.node.hostname.as_str();
        let ourselves = Ourselves {
            names: Vec::new(),
            addresses: self.facts.own_addresses.to_vec(),
            ports: self.listening.borrow().iter().map(SocketAddr::port).collect(),
        };
        let (name, port) = host.parts();
        let mut why = "it has no address".to_owned();
        for address in self.addresses_of(&name, port).await.into_iter().take(HOSTS_MAX) {
            let said = match address {
                Ok(address) if ourselves.reached_by(address) => {
                    why = format!("{address} is this daemon itself");
                    continue;
                }
                Ok(address) => greet(address, hostname).await,
                Err(error) => vec![(0, error)],
            };
            // Connected, greeted, answered EHLO and QUIT.
            let words: Vec<&str> = said.iter().map(|(_, text)| &**text).collect();
            match words[..] {
                [_, greeting, ehlo, ..]
                    if greeting.starts_with("220") && ehlo.starts_with("250") =>
                {
                    return Ok(offers(ehlo, "STARTTLS"));
                }
                _ => why = words.last().map_or_else(String::new, |word| (*word).to_owned()),
            }
        }
        Err(why)
    }

    async fn addresses_of(&self, host: &str, port: u16) -> Vec<Result<SocketAddr, String>> {
        if let Ok(address) = host.parse() {
            return vec![Ok(SocketAddr::new(address, port))];
        }
        match self.lookups.ask_addresses(host).await {
            AddressAnswer::Found { addresses, .. } => {
                addresses.into_iter().map(|ip| Ok(SocketAddr::new(ip, port))).collect()
            }
            AddressAnswer::NoName => vec![Err("there is no such name".to_owned())],
            AddressAnswer::NoData => vec![Err("that name has no address".to_owned())],
            AddressAnswer::Temporary(why) => vec![Err(format!("not known now: {why}"))],
        }
    }

    /// Watches the lines of some sessions that are said from now on.
    pub(super) async fn trace(
        &self,
        what: Text<{ control::limits::ADDRESS_OCTETS_MAX }>,
        seconds: u32,
    ) -> Reply {
        if Wanted::parse(&what).is_none() {
            let message =
                format!("{} is no address, network, session id, recipient or @domain", &*what);
            return Reply::Failure(Failure::new(FailureCode::Refused, &message, ""));
        }
        let text = match seconds {
            0 => format!("{} is watched no more", &*what),
            _ => format!("sessions of {} are watched for {seconds} s", &*what),
        };
        match self.questions.ask(Request::Trace { what, seconds }).await {
            Ok(_) => Reply::Done { message: Text::cut(&text) },
            Err(failure) => Reply::Failure(failure),
        }
    }

    /// The certificates of the config, as their files are now.
    pub(super) fn certificates_shown(&self) -> Reply {
        let orders = Arc::clone(&self.orders.borrow());
        let now_s = i64::try_from(engine::wall_us() / 1_000_000).unwrap_or(i64::MAX);
        let mut lines = Vec::new();
        for certificate in &orders.config.tls.certificates {
            let path = certificate.certificate.display().to_string();
            let (ends, left, names) = match certificate_of(&certificate.certificate) {
                Ok((not_after_s, names)) => {
                    let wall_us = u64::try_from(not_after_s).unwrap_or(0) * 1_000_000;
                    let ends = crate::maillog::stamp(wall_us)[..10].to_owned();
                    (ends, format!("{}d", (not_after_s - now_s) / 86_400), names)
                }
                Err(why) => ("?".to_owned(), "?".to_owned(), why),
            };
            lines.push(vec![ends, left, names, path]);
        }
        rows(&["ends", "left", "names", "file"], lines, Vec::new())
    }
}

/// When the first certificate of a file ends, and its names.
fn certificate_of(path: &std::path::Path) -> Result<(i64, String), String> {
    let octets = std::fs::read(path).map_err(|error| error.to_string())?;
    let pem = Pem::iter_from_buffer(&octets).next().ok_or("no certificate in it")?;
    let pem = pem.map_err(|error| error.to_string())?;
    let certificate = pem.parse_x509().map_err(|error| error.to_string())?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map_or_else(String::new, |names| {
        let names = names.value.general_names.iter().map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => (*name).to_owned(),
            other => other.to_string(),
        });
        names.collect::<Vec<_>>().join(" ")
    });
    Ok((certificate.validity().not_after.timestamp(), names))
}

/// Whether a reply to EHLO, its lines divided as [`reply`] does, has a keyword.
fn offers(ehlo: &str, keyword: &str) -> bool {
    ehlo.split(" / ").any(|line| line.get(4..).is_some_and(|w| w.eq_ignore_ascii_case(keyword)))
}

/// Connects, reads the greeting, says EHLO and QUIT: each step with its time.
async fn greet(address: SocketAddr, hostname: &str) -> Vec<(u128, String)> {
    let mut said = Vec::new();
    let began = Instant::now();
    let stream = match timeout(TRY_WAIT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return vec![(began.elapsed().as_millis(), error.to_string())],
        Err(_) => return vec![(began.elapsed().as_millis(), "no connection in time".to_owned())],
    };
    said.push((began.elapsed().as_millis(), "connected".to_owned()));
    let mut stream = stream;
    for line in [String::new(), format!("EHLO {hostname}\r\n"), "QUIT\r\n".to_owned()] {
        let began = Instant::now();
        let talk = async {
            stream.write_all(line.as_bytes()).await?;
            reply(&mut stream).await
        };
        let text = match timeout(TRY_WAIT, talk).await {
            Ok(Ok(text)) if text.is_empty() => "closed the connection".to_owned(),
            Ok(Ok(text)) => text,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no reply in time".to_owned(),
        };
        let goes_on = text.starts_with('2');
        said.push((began.elapsed().as_millis(), text));
        if !goes_on {
            break;
        }
    }
    said
}

/// A reply with all its lines, divided by ` / `.
async fn reply(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut octets = Vec::new();
    let mut piece = [0; 512];
    loop {
        let last = octets.rsplit(|octet| *octet == b'\n').nth(1);
        let whole =
            octets.ends_with(b"\n") && last.is_some_and(|line: &[u8]| line.get(3) != Some(&b'-'));
        if whole || octets.len() > REPLY_OCTETS_MAX {
            break;
        }
        match stream.read(&mut piece).await? {
            0 => break,
            count => octets.extend_from_slice(&piece[..count]),
        }
    }
    let text = String::from_utf8_lossy(&octets);
    Ok(text.trim_end().split("\r\n").collect::<Vec<_>>().join(" / "))
}
