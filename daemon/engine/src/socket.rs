//! The few system calls on sockets that are not made through a ring.
//!
//! Per accepted connection: one `getpeername`, one `getsockname` where the listener is bound to a
//! wildcard. `TCP_NODELAY` is set on the listener and inherited.

use crate::address::RawAddress;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Opens a TCP socket that listens, shares its port with other cores, and passes `TCP_NODELAY`
/// on to what it accepts.
pub(crate) fn listen(address: SocketAddr, backlog: i32) -> io::Result<OwnedFd> {
    let fd = open(address, libc::SOCK_STREAM)?;
    set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    set(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    if address.is_ipv6() {
        set(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    bind(&fd, address)?;
    // SAFETY: no memory is passed; the descriptor is ours.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(fd)
}

/// Opens a datagram socket, bound if asked, connected to `peer`.
pub(crate) fn datagram(peer: SocketAddr, local: Option<SocketAddr>) -> io::Result<OwnedFd> {
    let fd = open(peer, libc::SOCK_DGRAM)?;
    if let Some(local) = local {
        bind(&fd, local)?;
    }
    let (raw, length) = RawAddress::new(peer);
    // SAFETY: the kernel reads `length` bytes of a local that outlives the call.
    check(unsafe { libc::connect(fd.as_raw_fd(), raw.as_ptr(), length) })?;
    Ok(fd)
}

fn open(address: SocketAddr, kind: i32) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was made just now and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds to a local address.
pub(crate) fn bind(fd: &impl AsRawFd, address: SocketAddr) -> io::Result<()> {
    let (raw, length) = RawAddress::new(address);
    // SAFETY: the kernel reads `length` bytes of a local that outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), raw.as_ptr(), length) }).map(drop)
}

/// Sets an option that is one integer.
pub(crate) fn set(fd: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads four bytes of a local that outlives the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), 4) })
        .map(drop)
}

/// Reads an option that is one integer.
pub(crate) fn get(fd: &impl AsRawFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut length: libc::socklen_t = 4;
    // SAFETY: the kernel writes at most four bytes into one local and the length into another.
    check(unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(fd.as_raw_fd(), level, name, value, &raw mut length)
    })?;
    Ok(value)
}

/// The other end's address.
pub(crate) fn peer(fd: &impl AsRawFd) -> io::Result<SocketAddr> {
    name(fd.as_raw_fd(), libc::getpeername)
}

/// This end's address.
pub(crate) fn local(fd: &impl AsRawFd) -> io::Result<SocketAddr> {
    name(fd.as_raw_fd(), libc::getsockname)
}

type NameCall =
    unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn name(fd: RawFd, call: NameCall) -> io::Result<SocketAddr> {
    let mut raw = RawAddress::empty();
    let mut length = RawAddress::capacity();
    // SAFETY: `call` is getpeername or getsockname; the kernel writes at most `length` bytes into
    // one local and the length into another.
    check(unsafe { call(fd, raw.as_mut_ptr(), &raw mut length) })?;
    raw.get().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// Makes the open file blocking: a ring waits for a blocking file by itself and answers
/// `EAGAIN` for any other.
pub(crate) fn make_blocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    if flags & libc::O_NONBLOCK == 0 {
        return Ok(());
    }
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) })
        .map(drop)
}

/// Turns -1 into the thread's error.
pub(crate) fn check(code: libc::c_int) -> io::Result<libc::c_int> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_a_port_and_families_do_not_mix() {
        let first = listen("[::1]:0".parse().unwrap(), 1).unwrap();
        let second = listen(local(&first).unwrap(), 1).unwrap();
        for fd in [first, second] {
            assert_eq!(get(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT).unwrap(), 1);
            assert_eq!(get(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).unwrap(), 1);
            assert_eq!(get(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY).unwrap(), 1);
        }
    }
}
