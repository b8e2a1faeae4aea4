//! The one value that tells the filter what to do, and its layout.
//!
//! *Guarantees*: user space rewrites it in place; each field is one aligned word or less, so the
//! filter sees each field old or new, never torn. `generation` chooses the slot of all lists at
//! once: its store is the swap.

use crate::entry::Action;
use crate::limits::{LISTS_MAX, PORTS_MAX};
use crate::packet::{Address, Tunnel};

/// [`Config::flags`]: the stateless answer may be given.
pub const FLAG_ANSWER: u8 = 1;
/// [`Config::flags`]: SYNs are counted against their network's rate.
pub const FLAG_BUCKET: u8 = 2;
/// [`Config::flags`]: an answer on a tagged segment may be given: tags are not stripped here.
pub const FLAG_TAGGED: u8 = 4;

/// The value of the config map.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Config {
    /// Keys of the cookies; `key` says which one makes new ones, both are accepted.
    pub keys: [[u64; 2]; 2],
    /// Ticks of 1/1024 jiffy that one SYN costs its network.
    pub bucket_step: u64,
    /// Ticks a network may run ahead.
    pub bucket_room: u64,
    /// Slot of the lists is its lowest bit.
    pub generation: u32,
    /// Bits of an IPv4 source that name its network, host order.
    pub bucket_mask4: u32,
    /// Bits of the upper half of an IPv6 source that name its network, host order.
    pub bucket_mask6: u64,
    /// Ends of IPv4 tunnels, host order; 0 is none.
    pub ends4: [u32; 2],
    /// Ends of IPv6 tunnels, host order; 0 is none.
    pub ends6: [[u32; 4]; 2],
    /// Ports that are judged; 0 is none.
    pub ports: [u16; PORTS_MAX],
    /// UDP port of GUE.
    pub gue_port: u16,
    /// An [`Action`] by number: nothing goes further than this.
    pub mode: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// 0 direct, 1 IPIP, 2 GUE.
    pub tunnel: u8,
    /// 0 or 1.
    pub key: u8,
    /// One hit in 2^n of an entry is an event, the first always.
    pub sample_shift: u8,
    /// Zero.
    pub spare: u8,
    /// An [`Action`] by number for each list.
    pub ceilings: [u8; LISTS_MAX],
    /// Zero, which the kernel's verifier cannot know; see [`crate::packet::Frame::forget`].
    pub zero: u64,
}

/// Octets of a [`Config`].
pub const CONFIG_BYTES: usize = 192;

const _: () = assert!(size_of::<Config>() == CONFIG_BYTES && align_of::<Config>() == 8);

impl Config {
    /// Counting only, no list, port 25, keys still zero.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            keys: [[0; 2]; 2],
            bucket_step: 0,
            bucket_room: 0,
            generation: 0,
            bucket_mask4: 0xffff_ff00,
            bucket_mask6: 0xffff_ffff_ffff_0000,
            ends4: [0; 2],
            ends6: [[0; 4]; 2],
            ports: [25, 0, 0, 0],
            gue_port: 0,
            mode: Action::Count as u8,
            flags: 0,
            tunnel: 0,
            key: 0,
            sample_shift: 6,
            spare: 0,
            ceilings: [Action::Drop as u8; LISTS_MAX],
            zero: 0,
        }
    }

    /// Slot of the lists that are in force.
    #[inline(always)]
    #[must_use]
    pub const fn slot(&self) -> u32 {
        self.generation & 1
    }

    /// How packets come through the switch.
    #[inline(always)]
    #[must_use]
    pub const fn tunnel(&self) -> Tunnel {
        match self.tunnel {
            1 => Tunnel::Ipip,
            2 => Tunnel::Gue(self.gue_port),
            _ => Tunnel::Direct,
        }
    }

    /// Whether a tunnel's outer destination is one of the configured ends.
    #[inline(always)]
    #[must_use]
    pub fn ends(&self, outer: &Address) -> bool {
        if outer.six {
            outer.words != [0; 4] && (outer.words == self.ends6[0] || outer.words == self.ends6[1])
        } else {
            let word = outer.words[0];
            word != 0 && (word == self.ends4[0] || word == self.ends4[1])
        }
    }

    /// Whether this port is judged.
    #[inline(always)]
    #[must_use]
    pub const fn judges(&self, port: u16) -> bool {
        let [a, b, c, d] = self.ports;
        port != 0 && (port == a || port == b || port == c || port == d)
    }

    /// How far a list may go, whatever the mode.
    #[inline(always)]
    #[must_use]
    pub fn ceiling(&self, list: u8) -> Action {
        Action::from_number(self.ceilings[usize::from(list) % LISTS_MAX])
    }

    /// The octets of the map's value.
    #[must_use]
    pub fn to_octets(&self) -> [u8; CONFIG_BYTES] {
        let mut out = Octets { out: [0; CONFIG_BYTES], at: 0 };
        for half in self.keys.as_flattened() {
            out.put(&half.to_ne_bytes());
        }
        out.put(&self.bucket_step.to_ne_bytes());
        out.put(&self.bucket_room.to_ne_bytes());
        out.put(&self.generation.to_ne_bytes());
        out.put(&self.bucket_mask4.to_ne_bytes());
        out.put(&self.bucket_mask6.to_ne_bytes());
        for word in self.ends4.iter().chain(self.ends6.as_flattened()) {
            out.put(&word.to_ne_bytes());
        }
        for port in self.ports {
            out.put(&port.to_ne_bytes());
        }
        out.put(&self.gue_port.to_ne_bytes());
        out.put(&[self.mode, self.flags, self.tunnel, self.key, self.sample_shift, self.spare]);
        out.put(&self.ceilings);
        out.put(&self.zero.to_ne_bytes());
        out.out
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

struct Octets {
    out: [u8; CONFIG_BYTES],
    at: usize,
}

impl Octets {
    fn put(&mut self, octets: &[u8]) {
        self.out[self.at..self.at + octets.len()].copy_from_slice(octets);
        self.at += octets.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_the_layout() {
        let mut config = Config::new();
        config.generation = 0x0102_0304;
        config.ends6[1][3] = 0x0506_0708;
        config.ports = [25, 2525, 0, 465];
        config.mode = 3;
        config.spare = 9;
        config.ceilings[63] = 2;
        let octets = config.to_octets();
        let at = core::mem::offset_of!(Config, generation);
        assert_eq!(octets[at..at + 4], 0x0102_0304_u32.to_ne_bytes());
        let at = core::mem::offset_of!(Config, ends6) + 28;
        assert_eq!(octets[at..at + 4], 0x0506_0708_u32.to_ne_bytes());
        let at = core::mem::offset_of!(Config, ports) + 6;
        assert_eq!(octets[at..at + 2], 465_u16.to_ne_bytes());
        assert_eq!(octets[core::mem::offset_of!(Config, mode)], 3);
        assert_eq!(octets[core::mem::offset_of!(Config, spare)], 9);
        assert_eq!(octets[core::mem::offset_of!(Config, ceilings) + 63], 2);
        assert_eq!(core::mem::offset_of!(Config, zero) + 8, CONFIG_BYTES);
    }

    #[test]
    fn no_port_is_never_judged() {
        let config = Config::new();
        assert!(config.judges(25));
        assert!(!config.judges(0));
        assert!(!config.ends(&Address::v4(0)));
        assert!(!config.ends(&Address::v6([0; 4])));
    }
}
