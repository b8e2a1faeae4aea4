//! What the TLS side may hold.

/// Octets of the largest record on the wire: header, 2^14 of plaintext, 2,048 of expansion (RFC
/// 5246 6.2.3).
pub const RECORD_OCTETS_MAX: usize = 5 + 16_384 + 2_048;
/// Octets of the largest handshake message that is put together (rustls refuses longer ones
/// itself).
pub const HANDSHAKE_OCTETS_MAX: usize = 65_535;
/// Octets of ciphertext one session may hold back while it shakes hands.
pub const HELD_OCTETS_MAX: usize = HANDSHAKE_OCTETS_MAX + RECORD_OCTETS_MAX;
/// Octets by which a record grows when it is sealed, at the most (header, nonce, tag, inner type).
pub const SEAL_OVERHEAD_OCTETS: usize = 5 + 8 + 16 + 1;
/// Octets of plaintext in one record (RFC 8446 5.1).
pub const FRAGMENT_OCTETS_MAX: usize = 16_384;
/// Certificate pairs in one store.
pub const CERTIFICATES_MAX: usize = 4_096;
/// Octets read from one certificate or key file.
pub const FILE_OCTETS_MAX: u64 = 1 << 20;
/// Sessions remembered for resumption towards next hops, per core.
pub const CLIENT_SESSIONS_MAX: usize = 1_024;

const _: () = assert!(HELD_OCTETS_MAX >= HANDSHAKE_OCTETS_MAX + RECORD_OCTETS_MAX);
const _: () = assert!(FRAGMENT_OCTETS_MAX + SEAL_OVERHEAD_OCTETS <= RECORD_OCTETS_MAX);
