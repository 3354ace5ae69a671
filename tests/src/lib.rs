//! Harness of the end-to-end tests: workflows of real programs, run step after
//! step on a plain directory and all at once under `capio run`, with the
//! results compared byte by byte.
//!
//! A test describes its workflow once with [`Workflow`] and [`Step`] and calls
//! [`Workflow::verify`]. Self-checking C programs, whose assertions the kernel
//! itself has to pass first, go through [`oracle`].
//!
//! Environment:
//! - `CAPIO_BIN_DIR`: a directory with `capio` and `libcapio_posix.so` to test.
//!   Without it they are built beside the test's own executable.
//! - `CAPIO_TESTS=plain`: run both sides without capio. This checks the tests
//!   themselves: every workflow must be deterministic, every assertion true of
//!   the kernel.
//! - `CAPIO_TESTS_AUDIT=0`: leave the auditor out. It runs every workflow once
//!   more under strace and fails on system calls that went past the library.
//! - `CAPIO_TESTS_TIMEOUT`: seconds after which one run counts as hung
//!   (default 60).

mod audit;
mod binaries;
mod oracle;
mod process;
mod programs;
mod run;
mod scratch;
mod serve;
mod tree;
mod workflow;

pub use binaries::{beside_capio, capio};
pub use oracle::{oracle, oracle_unaudited};
pub use process::{Finished, Running};
pub use programs::program;
pub use run::{CapioRun, limit, plain_only};
pub use scratch::Scratch;
pub use serve::Served;
pub use tree::Tree;
pub use workflow::{Step, Workflow};
