//! CAPIO-CL, the coordination language of capio: documents are parsed,
//! validated, matched against paths and explained. No I/O beyond reading the
//! document, no async, no unsafe.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod fnmatch;
mod model;

pub use fnmatch::fnmatch;
pub use model::*;
