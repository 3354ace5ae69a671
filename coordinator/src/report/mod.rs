//! What a run reports at its end.

pub mod format;
