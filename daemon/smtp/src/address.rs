//! Addresses and paths by the grammar of RFC 5321 4.1.2 and RFC 6531 3.3.
