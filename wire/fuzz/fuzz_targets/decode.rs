//! Any bytes as a message of either side: `cargo +nightly fuzz run decode` in
//! `wire/`. What it finds goes into `corpus/decode`, which the tests replay.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|body: &[u8]| common::survives(body));
