//! What is counted, and the events that are sampled.

use crate::entry::Action;
use crate::limits::REASONS_MAX;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Counters of the whole filter, one row a CPU.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])* $name = $number,)* }

        /// All of them with the word used in status and metrics.
        pub const COUNTERS: &[(Counter, &str)] = &[$((Counter::$name, $text),)*];
    };
}

counters! {
    /// SYNs to a judged port.
    Syn = 0, "syn";
    /// SYNs of sources that no list knows.
    Clean = 1, "clean";
    /// SYNs of listed sources that an allowed network covers.
    Allowed = 2, "allowed";
    /// SYNs that were counted and passed.
    Counted = 3, "counted";
    /// SYNs answered with a SYN-ACK.
    Answered = 4, "answered";
    /// SYNs dropped for a list or ban.
    Dropped = 5, "dropped";
    /// SYNs dropped for their network's rate.
    Limited = 6, "limited";
    /// 554 lines sent.
    Refused = 7, "refused";
    /// Clients that closed after an answered handshake.
    Finished = 8, "finished";
    /// Answered handshakes whose listing was gone at the ACK; the stack resets them.
    Lapsed = 9, "lapsed";
    /// Answers not given because the daemon does not accept, or `answer` is off.
    StoodDown = 10, "stood_down";
    /// Answers not given because the way back is another interface, or unresolved.
    NoWay = 11, "no_way";
    /// Answers not given because the frame could not be rebuilt.
    NoRoom = 12, "no_room";
    /// Answers not given because of the frame's VLAN tags.
    TagRefused = 13, "tag_refused";
    /// Events not told: the ring was full, or the CPU had told enough in this second.
    EventLost = 14, "event_lost";
    /// Packets of an answered handshake that needed no reply.
    Absorbed = 15, "absorbed";
}

/// Rows of the counter map.
pub const COUNTERS_ROWS: u32 = 32;

/// Rows of the map of reasons.
pub const REASONS_ROWS: u32 = REASONS_MAX as u32 * 4;

const _: () = assert!(COUNTERS.len() <= COUNTERS_ROWS as usize);

/// The row of a reason and what was done.
#[inline(always)]
#[must_use]
pub fn reason_row(reason: u8, action: Action) -> u32 {
    u32::from(reason) % (REASONS_MAX as u32) * 4 + action as u32
}

/// One sampled SYN of a listed source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Event {
    /// Words of the source, host order; an IPv4 address is the first.
    pub source: [u32; 4],
    /// Second of the monotonic clock.
    pub now_s: u32,
    /// Of the entry.
    pub id: u32,
    /// Hits of the ban or network before this one; those of hosts are not kept.
    pub hits: u32,
    /// Interface it came in by.
    pub interface: u32,
    /// The client's port.
    pub source_port: u16,
    /// The port it spoke to.
    pub destination_port: u16,
    /// 4 or 6.
    pub family: u8,
    /// Of the entry.
    pub reason: u8,
    /// Of the entry.
    pub list: u8,
    /// What was done: an [`Action`] by number.
    pub action: u8,
    /// What the entry and its list asked for, before the mode.
    pub wanted: u8,
    /// Where it was found: 1 ban, 2 host, 3 network, 4 rate.
    pub place: u8,
    /// Whether an allowed network covered it.
    pub allowed: u8,
    /// Whether it is the first that was told of its entry.
    pub first: u8,
}

/// Octets of an [`Event`].
pub const EVENT_BYTES: usize = 44;

const _: () = assert!(size_of::<Event>() == EVENT_BYTES && align_of::<Event>() == 4);

impl Event {
    /// As in the ring.
    #[must_use]
    pub fn to_octets(&self) -> [u8; EVENT_BYTES] {
        let mut out = [0; EVENT_BYTES];
        let [a, b, c, d] = self.source;
        let words = [a, b, c, d, self.now_s, self.id, self.hits, self.interface];
        for (to, word) in out.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        out[32..34].copy_from_slice(&self.source_port.to_ne_bytes());
        out[34..36].copy_from_slice(&self.destination_port.to_ne_bytes());
        let tail = [self.family, self.reason, self.list, self.action];
        out[36..40].copy_from_slice(&tail);
        out[40..].copy_from_slice(&[self.wanted, self.place, self.allowed, self.first]);
        out
    }

    /// From the ring's octets.
    #[must_use]
    pub fn from_octets(o: &[u8]) -> Option<Self> {
        let o: &[u8; EVENT_BYTES] = o.get(..EVENT_BYTES)?.try_into().ok()?;
        let word = |at: usize| u32::from_ne_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]]);
        Some(Self {
            source: [word(0), word(4), word(8), word(12)],
            now_s: word(16),
            id: word(20),
            hits: word(24),
            interface: word(28),
            source_port: u16::from_ne_bytes([o[32], o[33]]),
            destination_port: u16::from_ne_bytes([o[34], o[35]]),
            family: o[36],
            reason: o[37],
            list: o[38],
            action: o[39],
            wanted: o[40],
            place: o[41],
            allowed: o[42],
            first: o[43],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_rows_of_their_own() {
        for (n, (counter, _)) in COUNTERS.iter().enumerate() {
            assert_eq!(*counter as usize, n);
        }
        assert_eq!(reason_row(63, Action::Drop), REASONS_ROWS - 1);
    }

    #[test]
    fn an_event_reads_back() {
        let mut octets = [0; EVENT_BYTES];
        octets[core::mem::offset_of!(Event, place)] = 3;
        let at = core::mem::offset_of!(Event, destination_port);
        octets[at..at + 2].copy_from_slice(&25_u16.to_ne_bytes());
        let event = Event::from_octets(&octets).expect("long enough");
        assert_eq!((event.place, event.destination_port), (3, 25));
        assert_eq!(event.to_octets(), octets);
        assert_eq!(Event::from_octets(&octets[1..]), None);
    }
}
