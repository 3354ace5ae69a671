//! cli
pub mod spec;
