//! Running a workflow: reading it, starting its steps, watching over them.

mod keeper;
pub mod order;
mod proc;
pub mod supervise;
pub mod workflow;
