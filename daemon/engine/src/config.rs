//! What one core is given at start. All memory it will ever take follows from this.

use crate::limits;
use crate::probe::StartError;

/// Disk buffers of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskClass {
    /// Bytes of each buffer: a multiple of 4 KiB.
    pub bytes: usize,
    /// How many there are.
    pub count: usize,
}

/// Sizes and bounds of one core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Submission queue entries, a power of two; the completion queue has eight times as many.
    pub sq_entries: u32,
    /// Slots for accepted (and adopted) connections.
    pub connections_max: u32,
    /// Slots kept for connections this core makes, on top: a full house cannot stop the relay.
    pub outgoing_max: u32,
    /// Provided buffers for received bytes, shared by all connections; a power of two.
    pub recv_buffers: u16,
    /// Bytes of each of them.
    pub recv_buffer_bytes: u32,
    /// Output bytes one connection may have waiting.
    pub out_bytes_max: usize,
    /// Bytes held for all paused connections together; the connection that exceeds it breaks.
    pub held_bytes_max: usize,
    /// Timers set with `set_timer`.
    pub timers_max: u32,
    /// How long `close` waits for output to leave and the peer to end its stream.
    pub linger_us: u64,
    /// Disk requests in the kernel's hands at once.
    pub disk_ops_max: u32,
    /// Buffers for disk requests. The first classes are registered first, as far as
    /// `RLIMIT_MEMLOCK` goes.
    pub disk_buffers: Vec<DiskClass>,
    /// Bytes of disk buffers this core may register. The kernel counts for all cores together,
    /// and their rings as well: see [`crate::host::locked_memory_share`].
    pub locked_bytes_max: u64,
    /// Backlog of listening sockets.
    pub backlog: u32,
    /// Forbid this ring every operation the engine does not use. Off only for tests.
    pub restrict: bool,
    /// Overrides [`crate::Probe::receive_multishot`]; for tests.
    pub receive_multishot: Option<bool>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sq_entries: 1024,
            connections_max: 16_384,
            outgoing_max: 1024,
            recv_buffers: 1024,
            recv_buffer_bytes: 4096,
            out_bytes_max: 1 << 20,
            held_bytes_max: 64 << 20,
            timers_max: 65_536,
            linger_us: limits::LINGER_US,
            disk_ops_max: 256,
            disk_buffers: Vec::new(),
            locked_bytes_max: u64::MAX,
            backlog: 4096,
            restrict: true,
            receive_multishot: None,
        }
    }
}

impl Config {
    /// Slots of both kinds: every [`crate::Conn::index`] is below it.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.connections_max.saturating_add(self.outgoing_max)
    }

    /// Checks every value against [`limits`].
    ///
    /// # Errors
    /// [`StartError::Config`] with what to change.
    pub fn check(&self) -> Result<(), StartError> {
        let disk_count: usize = self.disk_buffers.iter().map(|class| class.count).sum();
        let aligned = |class: &DiskClass| {
            class.bytes > 0
                && class.bytes.is_multiple_of(limits::DISK_ALIGN)
                && u32::try_from(class.bytes).is_ok()
        };
        let rules = [
            (self.sq_entries.is_power_of_two(), "sq_entries must be a power of two"),
            (self.sq_entries <= limits::SQ_ENTRIES_MAX, "sq_entries: at most 4096"),
            (self.slots() > 0, "connections_max and outgoing_max: one must be above 0"),
            (self.slots() <= limits::CONNECTIONS_MAX, "connections_max: too many slots"),
            (self.recv_buffers.is_power_of_two(), "recv_buffers must be a power of two"),
            (self.recv_buffers <= limits::RECV_BUFFERS_MAX, "recv_buffers: at most 32768"),
            (self.recv_buffer_bytes > 0, "recv_buffer_bytes must be above 0"),
            (
                self.recv_buffer_bytes <= limits::RECV_BUFFER_BYTES_MAX,
                "recv_buffer_bytes: at most 1 MiB",
            ),
            (disk_count <= limits::DISK_BUFFERS_MAX, "disk_buffers: at most 4096"),
            (
                self.disk_buffers.iter().all(aligned),
                "disk_buffers: bytes must be a multiple of 4096 below 4 GiB",
            ),
            (i32::try_from(self.backlog).is_ok(), "backlog: too large"),
            (u32::try_from(self.out_bytes_max).is_ok(), "out_bytes_max: below 4 GiB"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(StartError::Config(what)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_the_limits_are_named() {
        Config::default().check().unwrap();
        let refuse = |change: fn(&mut Config), what: &str| {
            let mut config = Config::default();
            change(&mut config);
            let text = config.check().unwrap_err().to_string();
            assert!(text.contains(what), "{text:?} names {what:?}");
        };
        refuse(|config| config.sq_entries = 1000, "sq_entries");
        refuse(|config| config.connections_max = u32::MAX, "connections_max");
        refuse(|config| config.recv_buffers = 3, "recv_buffers");
        refuse(
            |config| config.disk_buffers.push(DiskClass { bytes: 5000, count: 1 }),
            "disk_buffers",
        );
    }
}
