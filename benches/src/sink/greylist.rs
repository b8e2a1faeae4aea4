//! Refuses what comes for the first time, as many backends do.

use std::collections::HashMap;

/// First attempts by sender and recipient.
#[derive(Debug)]
pub(super) struct Greylist {
    wait_ms: Option<u64>,
    first: HashMap<(Vec<u8>, Vec<u8>), u64>,
}

impl Greylist {
    /// Passes what comes again after `wait_ms`; `None` passes everything.
    pub(super) fn new(wait_ms: Option<u64>) -> Self {
        Self { wait_ms, first: HashMap::new() }
    }

    pub(super) fn passes(&mut self, from: &[u8], to: &[u8], now_ms: u64) -> bool {
        let Some(wait_ms) = self.wait_ms else { return true };
        let first = *self.first.entry((from.to_vec(), to.to_vec())).or_insert(now_ms);
        first != now_ms && now_ms - first >= wait_ms
    }
}
