//! CAPIO-CL, the coordination language of capio: documents are parsed,
//! validated, matched against paths and explained. No I/O beyond reading the
//! document, no async, no unsafe.
//!
//! ```
//! use capio_specs::{FiringRule, ParseOptions, Spec};
//!
//! let text = r#"{
//!     "name": "demo",
//!     "IO_Graph": [
//!         {"name": "align", "input_stream": [], "output_stream": ["*.sam"],
//!          "streaming": [{"name": ["*.sam"], "mode": "no_update"}]},
//!         {"name": "sort", "input_stream": ["a.sam"], "output_stream": []}
//!     ]
//! }"#;
//! let options = ParseOptions { resolve_prefix: Some("/data".into()), document: None };
//! let spec = Spec::parse(text, &options)?;
//! let rules = spec.rules_for(b"/data/a.sam");
//! assert_eq!(rules.producers, [spec.step("align").unwrap()]);
//! assert_eq!(rules.firing, FiringRule::NoUpdate);
//! # Ok::<(), capio_specs::SpecError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

mod alias;
mod check;
mod configuration;
mod document;
mod error;
mod explain;
mod fnmatch;
mod index;
mod json;
mod model;
mod names;
mod position;
mod print;
mod reader;
mod resolve;
mod schema;
mod spec;

pub use check::{CheckReport, FileRow, Severity, Warning};
pub use configuration::{Configuration, Endpoint, Monitor, Multicast};
pub use document::Version;
pub use error::{Problem, ProblemKind, SpecError};
pub use explain::{Explanation, Match};
pub use fnmatch::fnmatch;
pub use model::*;
pub use spec::{
    Alias, HomeNodePolicies, ManualPlacement, ParseOptions, Spec, Step, Storage, StreamingRule,
};
