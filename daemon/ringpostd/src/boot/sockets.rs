//! Listening sockets: inherited ones matched by address, others opened; some for each core.
//!
//! *Guarantees*: every inherited socket that fits a listener is served by some core: one that
//! nobody accepts on would swallow its share of the connections.
//! *Failure*: an address that somebody else listens on is refused, although `SO_REUSEPORT` would
//! let both have it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use engine::host;

use crate::config::{Config, ListenerConfig};

use super::error::BootError;

/// Backlog of listening sockets.
const BACKLOG: u32 = 4096;

/// A listening socket and the listener it belongs to.
#[derive(Debug)]
pub struct Socket {
    /// Place of the listener in the config.
    pub listener: usize,
    /// Where it listens.
    pub address: SocketAddr,
    /// The socket.
    pub fd: OwnedFd,
}

/// The addresses of one listener; `::` means all of IPv4 as well.
#[must_use]
pub fn addresses(listener: &ListenerConfig) -> Vec<SocketAddr> {
    let first = listener.socket();
    if first.ip().is_ipv6() && first.ip().is_unspecified() {
        return vec![first, SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), first.port())];
    }
    vec![first]
}

/// The sockets of each core: those inherited, and new ones for addresses without.
///
/// # Errors
/// An address that cannot be had.
pub fn of_cores(
    config: &Config,
    cores: usize,
    inherited: Vec<OwnedFd>,
) -> Result<Vec<Vec<Socket>>, BootError> {
    let mut inherited: Vec<(SocketAddr, OwnedFd)> = inherited
        .into_iter()
        .filter(host::is_listening)
        .filter_map(|fd| Some((host::local_address(&fd).ok()?, fd)))
        .collect();
    let mut all: Vec<Vec<Socket>> = (0..cores).map(|_| Vec::new()).collect();
    let exact: Vec<SocketAddr> = config.listeners.iter().flat_map(addresses).collect();
    for (listener, part) in config.listeners.iter().enumerate() {
        let mut port = part.port;
        for mut wanted in addresses(part) {
            wanted.set_port(port);
            let mine = take(&mut inherited, wanted, &exact);
            let sockets = match mine.first() {
                Some((found, _)) => {
                    wanted = *found;
                    spread(mine, cores)?
                }
                None => open(wanted, cores)?,
            };
            for (core, address, fd) in sockets {
                wanted = address;
                all[core].push(Socket { listener, address, fd });
            }
            port = wanted.port();
        }
    }
    Ok(all)
}

/// Takes the inherited sockets of one address out. Port 0 takes those of the first port that no
/// listener names.
fn take(
    inherited: &mut Vec<(SocketAddr, OwnedFd)>,
    wanted: SocketAddr,
    exact: &[SocketAddr],
) -> Vec<(SocketAddr, OwnedFd)> {
    let fits = |found: SocketAddr| found.ip() == wanted.ip() && !exact.contains(&found);
    let address = if wanted.port() == 0 {
        inherited.iter().map(|(found, _)| *found).find(|found| fits(*found))
    } else {
        Some(wanted)
    };
    let (mine, rest) =
        std::mem::take(inherited).into_iter().partition(|(found, _)| Some(*found) == address);
    *inherited = rest;
    mine
}

/// Deals sockets out: with fewer than cores they are shared, with more a core gets several.
fn spread(
    mine: Vec<(SocketAddr, OwnedFd)>,
    cores: usize,
) -> Result<Vec<(usize, SocketAddr, OwnedFd)>, BootError> {
    let mut out = Vec::new();
    let count = mine.len();
    for core in count..cores {
        let (address, fd) = &mine[core % count];
        let fd = fd.try_clone().map_err(|error| BootError::os(error, "raise RLIMIT_NOFILE"))?;
        out.push((core, *address, fd));
    }
    out.extend(mine.into_iter().enumerate().map(|(n, (address, fd))| (n % cores, address, fd)));
    Ok(out)
}

/// Opens a socket for each core on one address; port 0 is chosen once.
fn open(wanted: SocketAddr, cores: usize) -> Result<Vec<(usize, SocketAddr, OwnedFd)>, BootError> {
    if wanted.port() != 0 {
        // Without SO_REUSEPORT: fails if anybody listens there.
        TcpListener::bind(wanted).map_err(|error| explain(wanted, &error))?;
    }
    let mut address = wanted;
    let mut out = Vec::with_capacity(cores);
    for core in 0..cores {
        let fd = host::listen(address, BACKLOG).map_err(|error| explain(address, &error))?;
        address = host::local_address(&fd).map_err(|error| explain(address, &error))?;
        out.push((core, address, fd));
    }
    Ok(out)
}

fn explain(address: SocketAddr, error: &io::Error) -> BootError {
    let what = format!("cannot listen on {address}: {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => BootError::unavailable(
            what,
            "ports below 1024 need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), or \
             choose another port",
        ),
        io::ErrorKind::AddrInUse => {
            BootError::unavailable(what, "find who listens there with `ss -ltnp`, and stop it")
        }
        io::ErrorKind::AddrNotAvailable => BootError::unavailable(
            what,
            "no interface has this address: set it up first, or listen on \"::\"",
        ),
        _ => BootError::unavailable(what, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listeners: &[(&str, u16)]) -> Config {
        let mut text = "[node]\nhostname=\"mx.example.org\"\n\
             [policy]\npostmaster=\"p@example.org\"\n[[route]]\ndomains=[\"example.org\"]\n\
             mx=true\n[spool]\nplaces=[\"./spool\"]\n"
            .to_owned();
        for (address, port) in listeners {
            text.push_str(&format!(
                "[[listener]]\naddress=\"{address}\"\nport={port}\ntls=\"none\"\n"
            ));
        }
        Config::parse("t", &text, &crate::config::Disk).unwrap().config
    }

    fn places(all: &[Vec<Socket>]) -> Vec<Vec<(usize, SocketAddr)>> {
        let of = |sockets: &Vec<Socket>| sockets.iter().map(|s| (s.listener, s.address)).collect();
        all.iter().map(of).collect()
    }

    #[test]
    fn each_core_has_a_socket_on_the_port_the_first_one_got() {
        let all = of_cores(&config(&[("127.0.0.1", 0), ("::1", 0)]), 3, Vec::new()).unwrap();
        let places = places(&all);
        assert_eq!(places[0].len(), 2);
        assert!(places[0].iter().all(|(_, address)| address.port() != 0));
        assert!(places.iter().all(|core| *core == places[0]));
    }

    #[test]
    fn an_address_in_use_is_refused_although_it_could_be_shared() {
        let other = host::listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let port = host::local_address(&other).unwrap().port();
        let error = of_cores(&config(&[("127.0.0.1", port)]), 1, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("ss -ltnp"), "{error}");
    }

    #[test]
    fn inherited_sockets_are_all_served() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = host::listen(any, 1).unwrap();
        let address = host::local_address(&first).unwrap();
        let more = (0..2).map(|_| host::listen(address, 1).unwrap());
        let alien = host::listen("[::1]:0".parse().unwrap(), 1).unwrap();
        let sockets: Vec<OwnedFd> = std::iter::once(first).chain(more).chain([alien]).collect();
        let config = config(&[("127.0.0.1", address.port())]);
        // Three sockets on two cores: none is left out.
        let all = of_cores(&config, 2, sockets).unwrap();
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 3);
        assert!(all.iter().flatten().all(|socket| socket.address == address));
        // One socket on two cores: both accept on it.
        let one = all.into_iter().flatten().map(|socket| socket.fd).take(1).collect();
        let all = of_cores(&config, 2, one).unwrap();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn an_inherited_socket_stands_for_port_zero() {
        let named = host::listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let free = host::listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let (named_at, free_at) =
            (host::local_address(&named).unwrap(), host::local_address(&free).unwrap());
        let config = config(&[("127.0.0.1", 0), ("127.0.0.1", named_at.port())]);
        let all = of_cores(&config, 1, vec![named, free]).unwrap();
        assert_eq!(places(&all), [[(0, free_at), (1, named_at)]]);
    }

    #[test]
    fn the_ipv6_wildcard_takes_ipv4_as_well() {
        let all = of_cores(&config(&[("::", 0)]), 1, Vec::new()).unwrap();
        let [first, second] = &all[0][..] else { panic!("two sockets") };
        assert_eq!(first.address.port(), second.address.port());
        assert!(second.address.is_ipv4() && (first.listener, second.listener) == (0, 0));
    }
}
