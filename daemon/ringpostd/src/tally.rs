//! Who a core is working for: the panic hook's note. And what it has counted: published now and
//! then.

use std::cell::Cell;

use hints::Hints;
use spool::id::TransactionId;

use crate::standing::Guest;

/// A key of the hints, short enough to keep without memory of its own.
#[derive(Debug, Clone, Copy)]
struct Key {
    octets: [u8; KEY_OCTETS],
    length: usize,
}

/// `client ` and an address, `message ` and an id.
const KEY_OCTETS: usize = 48;

thread_local! {
    /// The client and the message this thread is working for.
    static CURRENT: Cell<(Option<Key>, Option<Key>)> = const { Cell::new((None, None)) };
}

fn key(octets: &[u8]) -> Option<Key> {
    let mut key = Key { octets: [0; KEY_OCTETS], length: octets.len() };
    key.octets.get_mut(..octets.len())?.copy_from_slice(octets);
    Some(key)
}

/// The key of a message's note.
#[must_use]
pub fn message_key(id: TransactionId) -> Vec<u8> {
    [&b"message "[..], &id.to_bytes()].concat()
}

/// From now on this thread works for a client.
pub fn client(guest: Option<&Guest>) {
    let client = guest.filter(|guest| !guest.is_exempt()).and_then(|guest| {
        let octets = guest.key();
        let mut whole = [0; KEY_OCTETS];
        let prefix = b"client ";
        whole[..prefix.len()].copy_from_slice(prefix);
        whole.get_mut(prefix.len()..prefix.len() + octets.len())?.copy_from_slice(octets);
        key(&whole[..prefix.len() + octets.len()])
    });
    CURRENT.set((client, None));
}

/// From now on it works on a message.
pub fn message(id: TransactionId) {
    let (client, _) = CURRENT.get();
    CURRENT.set((client, key(&message_key(id))));
}

/// It works for nobody in particular.
pub fn nobody() {
    CURRENT.set((None, None));
}

/// What a panic leaves behind: the next run reads who was being worked for.
pub fn note(hints: &Hints<'_>, run: u32, wall_us: u64) {
    let (client, message) = CURRENT.get();
    for key in [client, message].into_iter().flatten() {
        hints.put_note(&key.octets[..key.length], run, wall_us);
    }
}
