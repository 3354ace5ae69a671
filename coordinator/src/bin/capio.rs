//! The `capio` command.

fn main() {}
