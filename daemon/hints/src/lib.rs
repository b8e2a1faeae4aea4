//! Tables whose loss costs time, never mail.
