//! The capio coordinator: one per session.
