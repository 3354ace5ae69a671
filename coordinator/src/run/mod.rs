//! Running a workflow: reading it, starting its steps, watching over them.

mod display;
pub mod driver;
mod keeper;
pub(crate) mod launch;
pub mod order;
pub mod output;
mod proc;
pub mod program;
pub mod screen;
pub mod signals;
pub mod supervise;
pub mod workflow;
