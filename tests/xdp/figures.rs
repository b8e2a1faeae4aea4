//! x
use gate::Gate;
pub(crate) fn all(_gate: &mut Gate) {}
