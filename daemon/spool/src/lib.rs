//! The durable log: a message answered 250 is never lost.
