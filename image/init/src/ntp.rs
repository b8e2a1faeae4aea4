//! The time, from the operator's NTP servers (SNTP, RFC 4330), one asked after the other.
//!
//! *Guarantees*: only an answer that repeats the random number of the question counts; the kernel
//! is told that its clock is right, which is what ends the daemon's doubt.
//! *Limits*: one question at a time; `NTP_FIRST` to `NTP_LONGEST` between them while nobody
//! answered, `NTP_EVERY` after that.
//! *Failure*: said once for each row of failures; mail is served all the same.
//! *Not here*: steering: the clock is set by steps, each said.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clock_steering::unix::UnixClock;
use clock_steering::{Clock as _, LeapIndicator, TimeOffset};

use crate::limits::{NTP_EVERY, NTP_EXACT, NTP_FIRST, NTP_LONGEST, NTP_TRIP_MAX};
use crate::say::{say, warn};

/// Octets of a question and of what is read of an answer.
const PACKET: usize = 48;
/// Version 4, a client.
const ASK: u8 = (4 << 3) | 3;
const SERVER: u8 = 4;
/// Seconds from 1900 to 1970.
const EPOCH_S: i128 = 2_208_988_800;
const SECOND_NS: i128 = 1_000_000_000;

/// A question that is under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    server: SocketAddr,
    number: u64,
    at_ns: i128,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ntp {
    servers: Vec<SocketAddr>,
    turn: usize,
    socket: Option<UdpSocket>,
    asked: Option<Asked>,
    due: Instant,
    wait: Duration,
    /// Nobody answered since, and it was said.
    is_lost: bool,
    was_set: bool,
}

impl Ntp {
    /// Asks these, at once.
    pub(crate) fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers,
            turn: 0,
            socket: None,
            asked: None,
            due: Instant::now(),
            wait: NTP_FIRST,
            is_lost: false,
            was_set: false,
        }
    }

    /// What to wait for, and until when.
    pub(crate) fn waits(&self) -> (Option<BorrowedFd<'_>>, Option<Instant>) {
        let due = (!self.servers.is_empty()).then_some(self.due);
        (self.socket.as_ref().map(|socket| socket.as_fd()), due)
    }

    /// Reads what came, asks what is due.
    pub(crate) fn turn(&mut self, now: Instant) {
        if let Some(found) = self.answer() {
            (self.socket, self.asked) = (None, None);
            match found.and_then(|(server, off_ns)| self.set(server, off_ns)) {
                Ok(()) => {
                    (self.wait, self.is_lost) = (NTP_FIRST, false);
                    self.due = now + NTP_EVERY;
                }
                Err(why) => self.failed(&why),
            }
        }
        if self.servers.is_empty() || now < self.due {
            return;
        }
        if let Some(asked) = self.asked.take() {
            self.failed(&format!("{} does not answer", asked.server));
        }
        self.due = now + self.wait;
        self.wait = (self.wait * 2).min(NTP_LONGEST);
        if let Err(why) = self.ask() {
            self.failed(&why);
        }
    }

    fn failed(&mut self, why: &str) {
        if !self.is_lost {
            warn(&format_args!("clock: {why}"));
        }
        self.is_lost = true;
    }

    fn ask(&mut self) -> Result<(), String> {
        let server = self.servers[self.turn % self.servers.len()];
        self.turn = self.turn.wrapping_add(1);
        let any: SocketAddr =
            if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let number = getrandom::u64().map_err(|error| error.to_string())?;
        let open = || -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(server)?;
            socket.send(&question(number))?;
            Ok(socket)
        };
        let at_ns = wall_ns();
        self.socket = Some(open().map_err(|error| format!("{server}: {error}"))?);
        self.asked = Some(Asked { server, number, at_ns });
        Ok(())
    }

    /// What came: who answered, and how far our clock is off.
    fn answer(&self) -> Option<Result<(SocketAddr, i128), String>> {
        let (socket, asked) = (self.socket.as_ref()?, self.asked?);
        let mut packet = [0; PACKET];
        match socket.recv(&mut packet) {
            Ok(PACKET) => {
                let off = offset(&packet, asked.number, asked.at_ns, wall_ns());
                // Somebody else's packet is no answer: the right one may still come.
                let off = off.transpose()?;
                Some(
                    off.map(|off| (asked.server, off))
                        .map_err(|w| format!("{}: {w}", asked.server)),
                )
            }
            Ok(_) => None,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(format!("{}: {error}", asked.server))),
        }
    }

    fn set(&mut self, server: SocketAddr, off_ns: i128) -> Result<(), String> {
        let clock = UnixClock::CLOCK_REALTIME;
        let fail = |error: clock_steering::unix::Error| format!("the kernel's clock: {error}");
        if off_ns.unsigned_abs() > NTP_EXACT.as_nanos() {
            let seconds = i64::try_from(off_ns.div_euclid(SECOND_NS)).unwrap_or_default();
            let nanos = u32::try_from(off_ns.rem_euclid(SECOND_NS)).unwrap_or_default();
            clock.step_clock(TimeOffset { seconds, nanos }).map_err(fail)?;
            let ms = off_ns / 1_000_000;
            say(&format_args!("clock: set by {ms} ms, as {server} says"));
        } else if !self.was_set {
            say(&format_args!("clock: right, says {server}"));
        }
        self.was_set = true;
        clock.error_estimate_update(NTP_EXACT, NTP_TRIP_MAX).map_err(fail)?;
        clock.set_leap_seconds(LeapIndicator::NoWarning).map_err(fail)
    }
}

fn wall_ns() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or_default()
}

/// The random number stands where a client may put its time: the server sends it back.
fn question(number: u64) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = ASK;
    packet[40..].copy_from_slice(&number.to_be_bytes());
    packet
}

/// How far our clock is behind the server's; `None` for what does not answer this question.
fn offset(
    packet: &[u8; PACKET],
    number: u64,
    sent_ns: i128,
    came_ns: i128,
) -> Result<Option<i128>, &'static str> {
    if packet[24..32] != number.to_be_bytes() || packet[0] & 7 != SERVER {
        return Ok(None);
    }
    let stratum = packet[1];
    if packet[0] >> 6 == 3 || !(1..=15).contains(&stratum) {
        return Err("does not know the time itself");
    }
    let (received, answered) = (time_ns(packet, 32), time_ns(packet, 40));
    let trip = (came_ns - sent_ns) - (answered - received);
    if trip.unsigned_abs() > NTP_TRIP_MAX.as_nanos() {
        return Err("the answer took too long");
    }
    Ok(Some(((received - sent_ns) + (answered - came_ns)) / 2))
}

/// Since 1970. The counter of seconds begins again in 2036: small numbers are meant behind that.
fn time_ns(packet: &[u8; PACKET], at: usize) -> i128 {
    let word = |at: usize| -> u32 {
        let octets = [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]];
        u32::from_be_bytes(octets)
    };
    let (seconds, fraction) = (word(at), word(at + 4));
    let era = if seconds < 1 << 31 { 1_i128 << 32 } else { 0 };
    let whole = (i128::from(seconds) + era - EPOCH_S) * SECOND_NS;
    whole + ((i128::from(fraction) * SECOND_NS) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const Y2026_NS: i128 = 1_767_225_600 * SECOND_NS;

    fn reply(number: u64, seconds: i128) -> [u8; PACKET] {
        let mut packet = [0; PACKET];
        packet[0] = (4 << 3) | 4;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&number.to_be_bytes());
        let seconds = u32::try_from((seconds + EPOCH_S) % (1 << 32)).unwrap();
        packet[32..36].copy_from_slice(&seconds.to_be_bytes());
        packet[40..44].copy_from_slice(&seconds.to_be_bytes());
        packet
    }

    #[test]
    fn an_answer_says_how_far_we_are_off_also_behind_2036() {
        for off in [0, 3600, -3600, 74 * 365 * 86_400] {
            let packet = reply(7, Y2026_NS / SECOND_NS + off);
            let found = offset(&packet, 7, Y2026_NS, Y2026_NS).unwrap().unwrap();
            assert_eq!(found, off * SECOND_NS);
        }
    }

    #[test]
    fn what_answers_something_else_or_knows_nothing_does_not_count() {
        let good = reply(7, 1_767_225_600);
        assert_eq!(offset(&good, 8, Y2026_NS, Y2026_NS), Ok(None));
        let changed = |at: usize, octet: u8| {
            let mut packet = good;
            packet[at] = octet;
            offset(&packet, 7, Y2026_NS, Y2026_NS)
        };
        assert_eq!(changed(0, ASK), Ok(None), "a client's packet");
        assert!(changed(0, (3 << 6) | (4 << 3) | 4).is_err(), "not synchronised");
        assert!(changed(1, 0).is_err(), "a kiss of death");
        assert!(changed(1, 16).is_err());
        let late = Y2026_NS + 5 * SECOND_NS;
        assert!(offset(&good, 7, Y2026_NS, late).is_err());
        assert_eq!(question(7)[40..], 7_u64.to_be_bytes());
    }
}
