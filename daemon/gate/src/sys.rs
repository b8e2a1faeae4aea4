//! The calls that no crate wraps: bpf(2) on maps by descriptor, and two ioctls.
//!
//! *Guarantees*: the only unsafe code of the gate. Each attribute is a `repr(C)` prefix of the
//! kernel's `union bpf_attr` with all padding named; pointers in it are to slices that live until
//! the call returns, and their lengths are checked against the map's sizes by [`crate::map`].

#![expect(unsafe_code, reason = "bpf(2) and the ethtool ioctl have no safe wrapper for these")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

const MAP_CREATE: i32 = 0;
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const MAP_DELETE: i32 = 3;
const MAP_GET_NEXT_KEY: i32 = 4;
const PROG_TEST_RUN: i32 = 10;
const BTF_LOAD: i32 = 18;
const MAP_UPDATE_BATCH: i32 = 26;

fn bpf<T>(command: i32, attribute: &mut T) -> io::Result<i32> {
    // SAFETY: the attribute is a prefix of `union bpf_attr` of exactly this size, and every
    // pointer in it is to memory that the caller borrows over this call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(result).expect("bpf(2) returns an int"))
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Takes a descriptor that came beside a message.
pub(crate) fn received(fd: i32) -> OwnedFd {
    owned(fd)
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

fn address_mut<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr() as u64
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

/// What a new map is.
#[repr(C)]
#[derive(Default)]
pub(crate) struct MapCreate {
    pub(crate) kind: u32,
    pub(crate) key_bytes: u32,
    pub(crate) value_bytes: u32,
    pub(crate) entries_max: u32,
    pub(crate) flags: u32,
    pub(crate) inner: u32,
    pub(crate) numa: u32,
    pub(crate) name: [u8; 16],
    pub(crate) interface: u32,
    pub(crate) btf: u32,
    pub(crate) btf_key: u32,
    pub(crate) btf_value: u32,
}

pub(crate) fn map_create(mut attribute: MapCreate, btf: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    attribute.btf = number(btf);
    bpf(MAP_CREATE, &mut attribute).map(owned)
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element(map: BorrowedFd<'_>, key: &[u8], value: u64) -> Element {
    Element { map: number(map), pad: 0, key: address(key), value, flags: 0 }
}

/// Stores a value; a value of a map of maps is a descriptor.
pub(crate) fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    bpf(MAP_UPDATE, &mut element(map, key, address(value))).map(drop)
}

/// Stores a map in a map of maps; returns when no running program sees the one before.
pub(crate) fn map_store(outer: BorrowedFd<'_>, slot: u32, inner: BorrowedFd<'_>) -> io::Result<()> {
    map_update(outer, &slot.to_ne_bytes(), &number(inner).to_ne_bytes())
}

/// Reads a value; a per-CPU value has a row of eight octets for each possible CPU.
pub(crate) fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    match bpf(MAP_LOOKUP, &mut element(map, key, address_mut(value))) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    match bpf(MAP_DELETE, &mut element(map, key, 0)) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The key after this one; the first without one.
pub(crate) fn map_next(
    map: BorrowedFd<'_>,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<bool> {
    let mut attribute = Element {
        map: number(map),
        pad: 0,
        key: key.map_or(0, address),
        value: address_mut(next),
        flags: 0,
    };
    match bpf(MAP_GET_NEXT_KEY, &mut attribute) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

#[repr(C)]
struct Batch {
    batch_in: u64,
    batch_out: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Stores `count` values and returns how many were stored, with the error that stopped it.
pub(crate) fn map_update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: usize,
) -> (usize, io::Result<()>) {
    let mut attribute = Batch {
        batch_in: 0,
        batch_out: 0,
        keys: address(keys),
        values: address(values),
        count: u32::try_from(count).expect("a batch is small"),
        map: number(map),
        element_flags: 0,
        flags: 0,
    };
    let result = bpf(MAP_UPDATE_BATCH, &mut attribute).map(drop);
    (attribute.count as usize, result)
}

#[repr(C)]
struct BtfLoad {
    btf: u64,
    log: u64,
    bytes: u32,
    log_bytes: u32,
    log_level: u32,
    pad: u32,
}

pub(crate) fn btf_load(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut attribute = BtfLoad {
        btf: address(btf),
        log: 0,
        bytes: u32::try_from(btf.len()).expect("a small table"),
        log_bytes: 0,
        log_level: 0,
        pad: 0,
    };
    bpf(BTF_LOAD, &mut attribute).map(owned)
}

#[repr(C)]
struct TestRun {
    program: u32,
    result: u32,
    in_bytes: u32,
    out_bytes: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration_ns: u32,
    context_in_bytes: u32,
    context_out_bytes: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    pad: u32,
}

/// Result of a program over one frame: its verdict, the octets left in `output`, ns a run.
pub(crate) struct Ran {
    pub(crate) verdict: u32,
    pub(crate) bytes: usize,
    pub(crate) run_ns: u32,
}

/// Runs a program over a frame, as received by `interface` of this namespace, or by none.
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    output: &mut [u8],
    interface: u32,
    repeat: u32,
) -> io::Result<Ran> {
    let small = |n: usize| u32::try_from(n).map_err(|_| io::ErrorKind::InvalidInput);
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue, egress_ifindex.
    let context = [0, small(frame.len())?, 0, interface, 0, 0];
    let mut attribute = TestRun {
        program: number(program),
        result: 0,
        in_bytes: small(frame.len())?,
        out_bytes: small(output.len())?,
        input: address(frame),
        output: address_mut(output),
        repeat,
        duration_ns: 0,
        context_in_bytes: if interface == 0 { 0 } else { 24 },
        context_out_bytes: 0,
        context_in: if interface == 0 { 0 } else { address(&context) },
        context_out: 0,
        flags: 0,
        cpu: 0,
        batch: 0,
        pad: 0,
    };
    bpf(PROG_TEST_RUN, &mut attribute)?;
    Ok(Ran {
        verdict: attribute.result,
        bytes: attribute.out_bytes as usize,
        run_ns: attribute.duration_ns,
    })
}

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

fn ethtool(socket: BorrowedFd<'_>, name: &str, value: &mut EthtoolValue) -> io::Result<()> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: all zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
    // SAFETY: the request names an interface with its zero, and points to a value of the size
    // that both commands read and write; both live until the call returns.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether the interface takes VLAN tags out of frames before the filter sees them. The socket
/// may be of any family.
pub(crate) fn strips_tags(socket: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    let mut value = EthtoolValue { command: ETHTOOL_GFLAGS, data: 0 };
    ethtool(socket, name, &mut value)?;
    Ok(value.data & ETH_FLAG_RXVLAN != 0)
}

/// Tells the interface to leave VLAN tags where they are.
pub(crate) fn keep_tags(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut value = EthtoolValue { command: ETHTOOL_GFLAGS, data: 0 };
    ethtool(socket, name, &mut value)?;
    value.command = ETHTOOL_SFLAGS;
    value.data &= !ETH_FLAG_RXVLAN;
    ethtool(socket, name, &mut value)
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    process: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every capability of this thread but those with these numbers.
pub(crate) fn keep_capabilities(numbers: &[u32]) -> io::Result<()> {
    let mut words = [CapabilityWord { effective: 0, permitted: 0, inheritable: 0 }; 2];
    for number in numbers {
        let word = &mut words[usize::from(*number >= 32)];
        word.effective |= 1 << (number % 32);
        word.permitted |= 1 << (number % 32);
    }
    // _LINUX_CAPABILITY_VERSION_3; 0 is the calling thread.
    let mut header = CapabilityHeader { version: 0x2008_0522, process: 0 };
    // SAFETY: version 3 reads the header and two words, which live until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
