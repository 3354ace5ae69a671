//! The capio coordinator: one per session.

pub mod flow;
