//! Bytes that no client of ours would send.

mod common;

use std::path::PathBuf;

use proptest::prelude::*;

#[test]
fn what_fuzzers_have_found_is_decoded_or_refused() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/decode");
    let entries = std::fs::read_dir(folder).expect("the corpus is there");
    let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    assert!(files.len() > 20, "{} files", files.len());
    for file in files {
        let body = std::fs::read(&file).expect("it can be read");
        for end in 0..=body.len().min(4096) {
            common::survives(&body[..end]);
        }
        common::survives(&body);
    }
}

/// A length inside a message promises more than there is: nothing is set aside
/// for it.
#[test]
fn a_promise_of_bytes_that_do_not_come_is_refused() {
    for kind in 0..48 {
        for promise in [
            &[251, 255, 255][..],
            &[252, 255, 255, 255, 255],
            &[253; 9],
            &[254; 17],
        ] {
            common::survives(&[&[kind][..], promise].concat());
            common::survives(&[&[kind, 0][..], promise, b"abc"].concat());
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        common::survives(&body);
    }

    /// Bytes that start as a message does get further.
    #[test]
    fn any_bytes_behind_a_kind_are_decoded_or_refused(
        kind in 0..48_u8,
        body in proptest::collection::vec(prop_oneof![0..16_u8, any::<u8>()], 0..80),
    ) {
        common::survives(&[&[kind][..], &body].concat());
    }
}
