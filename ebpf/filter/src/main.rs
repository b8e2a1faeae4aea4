//! The XDP program: lends packet octets and maps to `ebpf-common`, which decides.
//!
//! *Failure*: whatever cannot be parsed, looked up or rebuilt passes to the stack.
//!
//! *Not here*: any decision. Loading and filling the maps is `daemon/gate`'s.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod frame;
mod maps;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_jiffies64, bpf_xdp_adjust_head, bpf_xdp_get_buff_len, bpf_xdp_store_bytes,
};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use ebpf_common::answer::{self, Link, Say};
use ebpf_common::count::Counter;
use ebpf_common::packet::{self, Frame as _, Segment};
use ebpf_common::text::text_row;
use ebpf_common::verdict::{self, Act, Now, Tables as _};

use crate::frame::Packet;
use crate::maps::Maps;

/// Timer interrupts a second; the loader overwrites it with the kernel's.
#[unsafe(no_mangle)]
static HZ: u64 = 250;

/// Jiffies when the monotonic clock was zero; the loader overwrites it with the kernel's.
#[unsafe(no_mangle)]
static JIFFIES_START: u64 = 0xffff_ffff - 300 * 250 + 1;

/// The loopback interface of every network namespace: looking a route up as if we had received
/// the answer from ourselves is what a local socket does.
const LOOPBACK: u32 = 1;

const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;

/// `struct bpf_fib_lookup` of the kernel, the names of its unions as used here.
#[repr(C)]
struct Route {
    family: u8,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    total_bytes: u16,
    interface: u32,
    class: u32,
    source: [u32; 4],
    destination: [u32; 4],
    vlan: u32,
    source_link: [u8; 6],
    destination_link: [u8; 6],
}

const _: () = assert!(size_of::<Route>() == 64);

#[inline(always)]
fn clock() -> Now {
    // SAFETY: the loader may have changed the constants, so they are read as memory.
    let (hz, start) =
        unsafe { ((&raw const HZ).read_volatile(), (&raw const JIFFIES_START).read_volatile()) };
    // SAFETY: the helper has no preconditions.
    let jiffies = unsafe { bpf_jiffies64() }.wrapping_sub(start);
    Now { seconds: jiffies.checked_div(hz).unwrap_or(0) as u32, ticks: jiffies << 10 }
}

/// The entry point; attached in native or generic mode. Inlined into the symbol that the
/// attribute makes: a function of its own would carry a hash of the tree's folder in its name.
#[xdp(frags)]
#[inline(always)]
pub fn ringpost(context: XdpContext) -> u32 {
    let Some(config) = maps::config() else { return xdp_action::XDP_PASS };
    let packet = Packet::new(&context, config.zero);
    let parsed = packet::parse(&packet, config.tunnel(), |outer| config.ends(outer));
    let Some(segment) = parsed else { return xdp_action::XDP_PASS };
    let maps = Maps { context: context.ctx, interface: context.ingress_ifindex() as u32 };
    let step = verdict::step(config, &maps, &segment, clock);
    let say = match step.act {
        Act::Drop => return xdp_action::XDP_DROP,
        Act::Open => Say::Open(step.sequence),
        Act::Acknowledge => Say::Acknowledge,
        Act::Refuse => {
            let Some(text) = maps::text(text_row(step.reason, segment.source.six)) else {
                return xdp_action::XDP_PASS;
            };
            Say::Refuse(text, step.id)
        }
        Act::Pass => return xdp_action::XDP_PASS,
    };
    reply(&context, &packet, &maps, &segment, &say)
}

/// Builds the answer over the question and sends it back, or passes the question on.
#[inline(always)]
fn reply(
    context: &XdpContext,
    packet: &Packet,
    maps: &Maps,
    segment: &Segment,
    say: &Say<'_>,
) -> u32 {
    let Some(link) = way_back(maps, segment) else {
        maps.count(Counter::NoWay);
        return xdp_action::XDP_PASS;
    };
    let Some(buffer) = maps::scratch() else { return xdp_action::XDP_PASS };
    let start = answer::build(buffer, segment, &link, say);
    let bytes = answer::length(segment, say);
    // SAFETY: the context is the one the kernel gave; the helpers check their arguments.
    let sent = unsafe {
        let total = bpf_xdp_get_buff_len(context.ctx);
        // A frame in several pieces cannot be shortened from its head alone.
        packet.reaches(total as usize)
            && bpf_xdp_adjust_head(context.ctx, total as i32 - bytes as i32) == 0
            && store(context.ctx, buffer, start, bytes)
    };
    if sent {
        return xdp_action::XDP_TX;
    }
    maps.count(Counter::NoRoom);
    xdp_action::XDP_PASS
}

/// Copies the answer over the frame, which has its length by now.
///
/// # Safety
/// `context` must be the one the kernel gave.
#[inline(always)]
unsafe fn store(
    context: *mut xdp_md,
    buffer: &mut answer::Buffer,
    start: usize,
    bytes: usize,
) -> bool {
    let from = (&raw mut buffer[start % 8]).cast();
    // SAFETY: `start` and `bytes` end inside the buffer by a static assertion in the limits.
    unsafe { bpf_xdp_store_bytes(context, 0, from, bytes as u32) == 0 }
}

/// The link on which the answer leaves, if the routing table sends it out where it came in.
#[inline(always)]
fn way_back(maps: &Maps, segment: &Segment) -> Option<Link> {
    let out = maps::segment(maps.interface, segment)?;
    let big = |words: &[u32; 4]| words.map(u32::to_be);
    let mut route = Route {
        family: if segment.source.six { FAMILY_V6 } else { FAMILY_V4 },
        protocol: 6,
        source_port: segment.destination_port.to_be(),
        destination_port: segment.source_port.to_be(),
        total_bytes: 0,
        interface: LOOPBACK,
        class: 0,
        source: big(&segment.destination.words),
        destination: big(&segment.source.words),
        vlan: 0,
        source_link: [0; 6],
        destination_link: [0; 6],
    };
    // SAFETY: the structure has the kernel's layout and size; the context is not read by us.
    let found = unsafe {
        bpf_fib_lookup(maps.context.cast(), (&raw mut route).cast(), size_of::<Route>() as i32, 0)
    };
    (found == 0 && route.interface == out)
        .then_some(Link { destination: route.destination_link, source: route.source_link })
}

/// Never reached: nothing here panics. The kernel's verifier would refuse the loop.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers such as `bpf_fib_lookup` are only for programs under a licence that the GPL accepts.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
