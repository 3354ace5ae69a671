//! The doors: how calls reach the call table.

mod dirstream;
mod exec;
mod grow;
mod lock;
mod next;
mod realpath;
mod slots;
mod temp;
mod walk;
