//! Message content from the wire: where it ends, what may not stand in it, what was seen.
