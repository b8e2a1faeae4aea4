//! The five verbs on a socket pair between the mail process and the gate.
//!
//! One message is one packet of a `SOCK_SEQPACKET` pair: a verb's number, its fields, and
//! descriptors beside it. Numbers are little-endian; texts have a length of two octets before
//! them. Both ends are the same program, so there are no versions.
//!
//! *Guarantees*: every read is bounded; a message of any octets is an error at worst. Each
//! request has exactly one answer.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ebpf_common::count::{EVENT_BYTES, Event};
use ebpf_common::entry::{Action, ENTRY_BYTES, Listing};
use ebpf_common::packet::Tunnel;
use nix::cmsg_space;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use crate::gate::Descriptors;
use crate::kernel::Way;
use crate::limits::{EVENTS_MAX, MESSAGE_BYTES_MAX};
use crate::problem::{Problem, call};
use crate::settings::{Rate, Settings};
use crate::status::Status;
use crate::sys;

/// What the mail process asks for.
#[derive(Debug)]
pub enum Request {
    /// Take these settings over and attach.
    Attach(Box<Settings>),
    /// Take the filter off every interface.
    Detach,
    /// Put the set of lists in this file in force.
    Swap(OwnedFd),
    /// Lend the tables of bans.
    Descriptors,
    /// Numbers, notes, events since the last time, and what the tables say of an address.
    Status(Option<IpAddr>),
}

/// What it hears.
#[derive(Debug)]
pub enum Answer {
    /// It is done.
    Done,
    /// On [`Request::Descriptors`].
    Descriptors(Descriptors),
    /// On [`Request::Status`].
    Status(Box<Status>),
    /// It is not done, and why.
    Failed(String),
}

/// Three descriptors are the most that go beside a message.
const DESCRIPTORS_MAX: usize = 3;

const CUT: Problem = Problem::Wire("a message that is cut off");

const _: () = assert!(EVENTS_MAX * EVENT_BYTES < MESSAGE_BYTES_MAX / 2);

/// A pair of connected ends.
///
/// # Errors
/// Of the system call.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Problem> {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|e| call("a socket pair")(e.into()))
}

pub(crate) fn send(to: BorrowedFd<'_>, octets: &[u8], beside: &[i32]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(beside)];
    let control = if beside.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(octets)];
    sendmsg::<()>(to.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// One message with its descriptors; no octets when the other end is gone.
pub(crate) fn receive(from: BorrowedFd<'_>) -> Result<(Vec<u8>, Vec<OwnedFd>), Problem> {
    let failed = |e: nix::Error| call("receiving from the other process")(e.into());
    let mut octets = vec![0; MESSAGE_BYTES_MAX];
    let mut space = cmsg_space!([i32; DESCRIPTORS_MAX]);
    let (bytes, beside, cut) = {
        let mut parts = [IoSliceMut::new(&mut octets)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message =
            recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), flags).map_err(failed)?;
        let mut beside = Vec::new();
        for control in message.cmsgs().map_err(failed)? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                beside.extend(numbers.into_iter().map(sys::received));
            }
        }
        (message.bytes, beside, message.flags.intersects(MsgFlags::MSG_TRUNC))
    };
    if cut {
        return Err(CUT);
    }
    octets.truncate(bytes);
    Ok((octets, beside))
}

struct Out(Vec<u8>);

impl Out {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        let text = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
        self.number(text.len() as u64);
        self.0.extend(text);
    }

    fn address(&mut self, address: IpAddr) {
        self.text(&address.to_string());
    }
}

struct In<'a>(&'a [u8]);

impl In<'_> {
    fn number(&mut self) -> Result<u64, Problem> {
        let (first, rest) = self.0.split_first_chunk().ok_or(CUT)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*first))
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Problem> {
        T::try_from(self.number()?).map_err(|_| Problem::Wire("a number out of range"))
    }

    /// How many follow; never more than could fit.
    fn count(&mut self) -> Result<usize, Problem> {
        let count = self.small::<usize>()?;
        if count > self.0.len() { Err(CUT) } else { Ok(count) }
    }

    fn octets(&mut self, count: usize) -> Result<&[u8], Problem> {
        let (first, rest) = self.0.split_at_checked(count).ok_or(CUT)?;
        self.0 = rest;
        Ok(first)
    }

    fn text(&mut self) -> Result<String, Problem> {
        let count = self.count()?;
        let octets = self.octets(count)?.to_vec();
        String::from_utf8(octets).map_err(|_| Problem::Wire("a text that is not UTF-8"))
    }

    fn address(&mut self) -> Result<IpAddr, Problem> {
        self.text()?.parse().map_err(|_| Problem::Wire("an address"))
    }

    fn action(&mut self) -> Result<Action, Problem> {
        Ok(Action::from_number(self.small()?))
    }

    fn flag(&mut self) -> Result<bool, Problem> {
        Ok(self.number()? != 0)
    }

    fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Problem>,
    ) -> Result<Vec<T>, Problem> {
        let count = self.count()?;
        (0..count).map(|_| read(self)).collect()
    }

    fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<Option<T>, Problem> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    fn end<T>(self, value: T) -> Result<T, Problem> {
        if self.0.is_empty() { Ok(value) } else { Err(Problem::Wire("octets left over")) }
    }
}

fn put_settings(out: &mut Out, s: &Settings) {
    out.number(s.interfaces.len() as u64);
    s.interfaces.iter().for_each(|name| out.text(name));
    out.number(s.keep.into());
    out.number(s.ports.len() as u64);
    s.ports.iter().for_each(|port| out.number((*port).into()));
    out.number(s.mode as u64);
    out.number(s.answer.into());
    out.number(s.ceilings.len() as u64);
    for (list, action) in &s.ceilings {
        out.number((*list).into());
        out.number(*action as u64);
    }
    out.number(s.texts.len() as u64);
    for (reason, text) in &s.texts {
        out.number((*reason).into());
        out.text(text);
    }
    out.number(s.rate.is_some().into());
    if let Some(rate) = &s.rate {
        out.number(rate.syns_per_s.into());
        out.number(rate.burst.into());
        out.number(rate.bits4.into());
        out.number(rate.bits6.into());
    }
    let (kind, port) = match s.tunnel {
        Tunnel::Direct => (0, 0),
        Tunnel::Ipip => (1, 0),
        Tunnel::Gue(port) => (2, port),
    };
    out.number(kind);
    out.number(port.into());
    out.number(s.ends.len() as u64);
    s.ends.iter().for_each(|end| out.address(*end));
    out.number(s.proxy.into());
    out.number(s.sample_shift.into());
    out.number(s.ways.len() as u64);
    for way in &s.ways {
        out.text(&way.interface);
        out.number(way.vlan.is_some().into());
        out.number(way.vlan.unwrap_or(0).into());
        out.text(&way.out);
    }
}

fn take_settings(input: &mut In<'_>) -> Result<Settings, Problem> {
    Ok(Settings {
        interfaces: input.list(In::text)?,
        keep: input.flag()?,
        ports: input.list(In::small)?,
        mode: input.action()?,
        answer: input.flag()?,
        ceilings: input.list(|i| Ok((i.small()?, i.action()?)))?,
        texts: input.list(|i| Ok((i.small()?, i.text()?)))?,
        rate: input.option(|i| {
            Ok(Rate {
                syns_per_s: i.small()?,
                burst: i.small()?,
                bits4: i.small()?,
                bits6: i.small()?,
            })
        })?,
        tunnel: match (input.number()?, input.small()?) {
            (1, _) => Tunnel::Ipip,
            (2, port) => Tunnel::Gue(port),
            _ => Tunnel::Direct,
        },
        ends: input.list(In::address)?,
        proxy: input.flag()?,
        sample_shift: input.small()?,
        ways: input.list(|i| {
            let interface = i.text()?;
            let (tagged, vlan) = (i.flag()?, i.small()?);
            Ok(Way { interface, vlan: tagged.then_some(vlan), out: i.text()? })
        })?,
    })
}

fn put_status(out: &mut Out, s: &Status) {
    out.number(s.attached.len() as u64);
    for (name, native) in &s.attached {
        out.text(name);
        out.number((*native).into());
    }
    out.number(s.notes.len() as u64);
    s.notes.iter().for_each(|note| out.text(note));
    out.number(s.generation.into());
    s.records.iter().for_each(|count| out.number((*count).into()));
    out.number(s.counters.len() as u64);
    s.counters.iter().for_each(|count| out.number(*count));
    out.number(s.reasons.len() as u64);
    for (reason, action, count) in &s.reasons {
        out.number((*reason).into());
        out.number(*action as u64);
        out.number(*count);
    }
    out.number(s.spread_permille.into());
    out.number(s.found.len() as u64);
    for (place, listing, hits, last_s) in &s.found {
        out.number((*place).into());
        out.0.extend(listing.to_entry());
        out.number((*hits).into());
        out.number((*last_s).into());
    }
    out.number(s.events.len() as u64);
    s.events.iter().for_each(|event| out.0.extend(event.to_octets()));
}

fn take_status(input: &mut In<'_>) -> Result<Status, Problem> {
    Ok(Status {
        attached: input.list(|i| Ok((i.text()?, i.flag()?)))?,
        notes: input.list(In::text)?,
        generation: input.small()?,
        records: {
            let mut records = [0; 6];
            for count in &mut records {
                *count = input.small()?;
            }
            records
        },
        counters: input.list(In::number)?,
        reasons: input.list(|i| Ok((i.small()?, i.action()?, i.number()?)))?,
        spread_permille: input.small()?,
        found: input.list(|i| {
            let place = i.small()?;
            let entry = i.octets(ENTRY_BYTES)?.try_into().map_err(|_| CUT)?;
            Ok((place, Listing::from_entry(&entry).0, i.small()?, i.small()?))
        })?,
        events: input.list(|i| Event::from_octets(i.octets(EVENT_BYTES)?).ok_or(CUT))?,
    })
}

impl Request {
    pub(crate) fn send(&self, to: BorrowedFd<'_>) -> Result<(), Problem> {
        let mut out = Out(Vec::new());
        let mut beside = Vec::new();
        match self {
            Self::Attach(settings) => {
                out.number(1);
                put_settings(&mut out, settings);
            }
            Self::Detach => out.number(2),
            Self::Swap(file) => {
                out.number(3);
                beside.push(file.as_raw_fd());
            }
            Self::Descriptors => out.number(4),
            Self::Status(address) => {
                out.number(5);
                out.number(address.is_some().into());
                if let Some(address) = address {
                    out.address(*address);
                }
            }
        }
        send(to, &out.0, &beside).map_err(call("sending to the gate"))
    }

    pub(crate) fn read(octets: &[u8], beside: Vec<OwnedFd>) -> Result<Self, Problem> {
        let mut input = In(octets);
        let request = match input.number()? {
            1 => Self::Attach(Box::new(take_settings(&mut input)?)),
            2 => Self::Detach,
            3 => {
                let file = beside.into_iter().next();
                Self::Swap(file.ok_or(Problem::Wire("a swap without its file"))?)
            }
            4 => Self::Descriptors,
            5 => Self::Status(input.option(In::address)?),
            _ => return Err(Problem::Wire("an unknown verb")),
        };
        input.end(request)
    }
}

impl Answer {
    pub(crate) fn send(&self, to: BorrowedFd<'_>) -> Result<(), Problem> {
        let mut out = Out(Vec::new());
        let mut beside = Vec::new();
        match self {
            Self::Done => out.number(1),
            Self::Descriptors(lent) => {
                out.number(2);
                beside.extend([&lent.bans4, &lent.bans6, &lent.accepting].map(AsRawFd::as_raw_fd));
            }
            Self::Status(status) => {
                out.number(3);
                put_status(&mut out, status);
            }
            Self::Failed(why) => {
                out.number(4);
                // A verifier's log may be long; what went wrong stands at its beginning or end.
                let why: String = why.chars().take(4096).collect();
                out.text(&why);
            }
        }
        send(to, &out.0, &beside).map_err(call("answering"))
    }

    fn read(octets: &[u8], beside: Vec<OwnedFd>) -> Result<Self, Problem> {
        let mut input = In(octets);
        let answer = match input.number()? {
            1 => Self::Done,
            2 => {
                let lent = <[OwnedFd; DESCRIPTORS_MAX]>::try_from(beside);
                let [bans4, bans6, accepting] = lent.map_err(|_| CUT)?;
                Self::Descriptors(Descriptors { bans4, bans6, accepting })
            }
            3 => Self::Status(Box::new(take_status(&mut input)?)),
            4 => Self::Failed(input.text()?),
            _ => return Err(Problem::Wire("an unknown answer")),
        };
        input.end(answer)
    }
}

/// The mail process's end.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

impl Client {
    /// On one end of [`pair`].
    #[must_use]
    pub const fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Asks and waits for the answer. A swap of a million entries takes about half a second:
    /// not on a core's thread.
    ///
    /// # Errors
    /// The gate is gone or answers nonsense; [`Problem::Remote`] is the gate's own.
    pub fn ask(&self, request: &Request) -> Result<Answer, Problem> {
        request.send(self.socket.as_fd())?;
        let (octets, beside) = receive(self.socket.as_fd())?;
        if octets.is_empty() {
            return Err(Problem::Wire("the gate is gone"));
        }
        match Answer::read(&octets, beside)? {
            Answer::Failed(why) => Err(Problem::Remote(why)),
            answer => Ok(answer),
        }
    }

    /// Puts a set of lists in force; `set` is as [`ebpf_common::set`] says.
    ///
    /// # Errors
    /// As [`Client::ask`]; of making the file.
    pub fn swap(&self, set: &[u8]) -> Result<(), Problem> {
        let file = memfd_create(c"ringpost-lists", MFdFlags::MFD_CLOEXEC)
            .map_err(|e| call("a file in memory")(e.into()))?;
        let mut file = File::from(file);
        file.write_all(set).map_err(call("a file in memory"))?;
        self.ask(&Request::Swap(file.into())).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            interfaces: vec!["eth0".into(), "eth1".into()],
            keep: true,
            ports: vec![25, 2525],
            mode: Action::Answer,
            answer: true,
            ceilings: vec![(0, Action::Drop), (7, Action::Answer)],
            texts: vec![(3, "listed by example".into())],
            rate: Some(Rate { syns_per_s: 5, burst: 9, bits4: 24, bits6: 48 }),
            tunnel: Tunnel::Gue(6080),
            ends: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            proxy: false,
            sample_shift: 4,
            ways: vec![Way { interface: "eth0".into(), vlan: Some(10), out: "eth0.10".into() }],
        }
    }

    #[test]
    fn requests_and_answers_cross() {
        let (near, far) = pair().unwrap();
        Request::Attach(Box::new(settings())).send(near.as_fd()).unwrap();
        let (octets, beside) = receive(far.as_fd()).unwrap();
        let Request::Attach(got) = Request::read(&octets, beside).unwrap() else { panic!() };
        assert_eq!(*got, settings());
        let status = Status {
            attached: vec![("eth0".into(), true)],
            notes: vec!["a note".into()],
            generation: 9,
            records: [1, 2, 3, 4, 5, 6],
            counters: vec![7, 8],
            reasons: vec![(3, Action::Drop, 99)],
            spread_permille: 950,
            found: Vec::new(),
            events: vec![Event::from_octets(&[7; EVENT_BYTES]).unwrap()],
        };
        Answer::Status(Box::new(status.clone())).send(far.as_fd()).unwrap();
        let (octets, beside) = receive(near.as_fd()).unwrap();
        let Answer::Status(got) = Answer::read(&octets, beside).unwrap() else { panic!() };
        assert_eq!(*got, status);
        assert!(got.sources_hidden());
        drop(near);
        assert!(receive(far.as_fd()).unwrap().0.is_empty());
    }

    #[test]
    fn a_message_cut_anywhere_is_refused() {
        let (near, far) = pair().unwrap();
        Request::Attach(Box::new(settings())).send(near.as_fd()).unwrap();
        let (octets, _) = receive(far.as_fd()).unwrap();
        for end in 0..octets.len() {
            assert!(Request::read(&octets[..end], Vec::new()).is_err(), "cut at {end}");
        }
        let more = [octets.as_slice(), &[0]].concat();
        assert!(Request::read(&more, Vec::new()).is_err());
        let swap = 3_u64.to_le_bytes();
        assert!(Request::read(&swap, Vec::new()).is_err(), "a swap without its file");
    }
}
