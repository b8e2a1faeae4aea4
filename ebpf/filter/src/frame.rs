//! The octets of the frame in the driver's buffer.
//!
//! *Guarantees*: each read is preceded by its own comparison with the end of the frame. Address
//! and load are opaque to the optimiser: it would otherwise merge comparisons into a form that
//! the kernel's verifier cannot follow, or split loads into octets.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use ebpf_common::limits::OFFSET_MAX;
use ebpf_common::packet::Frame;

/// Longer than any frame's linear part; the verifier wants to see a bound.
const LENGTH_MAX: usize = 0x1_ffff;

/// The linear part of a frame.
pub(crate) struct Packet {
    start: usize,
    end: usize,
    zero: usize,
}

impl Packet {
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext, zero: u64) -> Self {
        Self { start: context.data(), end: context.data_end(), zero: zero as usize }
    }

    /// The start of the frame and so many octets, a fresh pointer for each read.
    #[inline(always)]
    fn plus(&self, offset: usize) -> usize {
        let mut at = self.start;
        // SAFETY: arithmetic on a register; nothing is read.
        unsafe {
            asm!("{0} += {1}", inout(reg) at, in(reg) offset, options(nomem, nostack));
        }
        at
    }

    /// The address of `bytes` octets inside the frame.
    #[inline(always)]
    fn at(&self, mut offset: usize, bytes: usize) -> Option<usize> {
        // SAFETY: no instruction; the value only becomes opaque.
        unsafe { asm!("/* {0} */", inout(reg) offset, options(nomem, nostack, preserves_flags)) };
        if offset > OFFSET_MAX {
            return None;
        }
        let at = self.plus(offset);
        (at + bytes <= self.end).then_some(at)
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn octet(&self, offset: usize) -> Option<u8> {
        let at = self.at(offset, 1)?;
        let value: u64;
        // SAFETY: `at` has one octet of the frame behind it; BPF loads need no alignment here.
        unsafe {
            asm!("{0} = *(u8 *)({1} + 0)", out(reg) value, in(reg) at, options(readonly, nostack))
        };
        Some(value as u8)
    }

    #[inline(always)]
    fn half(&self, offset: usize) -> Option<u16> {
        let at = self.at(offset, 2)?;
        let value: u64;
        // SAFETY: `at` has two octets of the frame behind it.
        unsafe {
            asm!("{0} = *(u16 *)({1} + 0)", out(reg) value, in(reg) at, options(readonly, nostack))
        };
        Some(u16::from_be(value as u16))
    }

    #[inline(always)]
    fn word(&self, offset: usize) -> Option<u32> {
        let at = self.at(offset, 4)?;
        let value: u64;
        // SAFETY: `at` has four octets of the frame behind it.
        unsafe {
            asm!("{0} = *(u32 *)({1} + 0)", out(reg) value, in(reg) at, options(readonly, nostack))
        };
        Some(u32::from_be(value as u32))
    }

    #[inline(always)]
    fn reaches(&self, mut length: usize) -> bool {
        // SAFETY: as in `at`.
        unsafe { asm!("/* {0} */", inout(reg) length, options(nomem, nostack, preserves_flags)) };
        length <= LENGTH_MAX && self.plus(length) <= self.end
    }

    #[inline(always)]
    fn forget(&self, mut number: usize) -> usize {
        // SAFETY: arithmetic on a register. The sum with an unknown number is unknown, and the
        // mask gives it the bound that all callers keep anyway.
        unsafe {
            asm!(
                "{0} += {1}",
                "{0} &= 511",
                inout(reg) number,
                in(reg) self.zero,
                options(nomem, nostack),
            );
        }
        number
    }
}

const _: () = assert!(OFFSET_MAX == 511);
