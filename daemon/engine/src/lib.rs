//! One io_uring reactor per core.
