//! The doors: how calls reach the call table.

mod dirstream;
mod grow;
mod lock;
mod next;
mod slots;
