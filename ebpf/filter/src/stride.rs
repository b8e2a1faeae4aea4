//! For measurements only: gives a frame another IPv4 source each time, then goes on to the filter.
//!
//! A trial run repeats one frame; a table's cost shows only when each lookup meets another key.

#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// The generator's state, the first source, and how many there are less one.
#[btf_map]
static STATE: Array<[u64; 3], 1> = Array::new();

/// The filter; empty to measure this program alone.
#[btf_map]
static NEXT: ProgramArray<1> = ProgramArray::new();

/// Octet of the source in an untagged IPv4 frame.
const SOURCE_AT: usize = 26;

/// The entry point of trial runs.
#[xdp(frags)]
pub fn stride(context: XdpContext) -> u32 {
    let Some(state) = STATE.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: one trial at a time.
    let [seed, first, mask] = unsafe { *state };
    let seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    // SAFETY: as above.
    unsafe { (*state)[0] = seed };
    let at = context.data() + SOURCE_AT;
    if at + 4 > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    let source = (first + (seed >> 33 & mask)) as u32;
    // SAFETY: four octets of the frame, as just compared.
    unsafe { (at as *mut u32).write_unaligned(source.to_be()) };
    // SAFETY: the context is the one the kernel gave. It returns only if the table is empty.
    unsafe { NEXT.tail_call(&context, 0) };
    xdp_action::XDP_PASS
}

/// Never reached.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// As the filter's.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
