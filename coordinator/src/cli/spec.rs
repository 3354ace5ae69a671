//! The one place where the command meets the CAPIO-CL parser.

pub use capio_specs::Spec;
