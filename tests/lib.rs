//! Nothing to import: the tests are the target `it`.
