//! The one place where the command meets the CAPIO-CL parser.

/// A document that was read and resolved. There is no parser linked yet, so
/// there is no value of this type: what handles one is compiled and unreachable.
pub enum Spec {}
