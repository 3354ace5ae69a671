//! Any text: parsed, and what parses printed, parsed again, checked and
//! explained. `cargo +nightly fuzz run parse` in `capio-specs/`.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|text: &str| {
    // Else the fuzzer would learn to read files.
    if !text.contains("configuration") {
        common::survives(text);
    }
});
