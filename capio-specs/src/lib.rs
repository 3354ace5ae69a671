//! CAPIO-CL, the coordination language of capio: documents are parsed,
//! validated, matched against paths and explained. No I/O beyond reading the
//! document, no async, no unsafe.
#![forbid(unsafe_code)]

mod model;

pub use model::*;
