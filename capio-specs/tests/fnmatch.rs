//! The matcher against the C library's own.

use std::ffi::CString;

use capio_specs::fnmatch;
use proptest::prelude::*;

fn libc_says(pattern: &[u8], path: &[u8]) -> bool {
    let pattern = CString::new(pattern).expect("no NUL in test patterns");
    let path = CString::new(path).expect("no NUL in test paths");
    // SAFETY: both pointers are NUL-terminated strings that outlive the call.
    unsafe { libc::fnmatch(pattern.as_ptr(), path.as_ptr(), libc::FNM_NOESCAPE) == 0 }
}

fn agree(pattern: &[u8], path: &[u8]) {
    assert_eq!(
        fnmatch(pattern, path),
        libc_says(pattern, path),
        "pattern {:?}, path {:?}",
        String::from_utf8_lossy(pattern),
        String::from_utf8_lossy(path)
    );
}

/// Pieces that make bracket expressions likely, well-formed and not.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let fixed: &[&[u8]] = &[
        b"*",
        b"?",
        b"[",
        b"]",
        b"!",
        b"^",
        b"-",
        b"a",
        b"b",
        b"c",
        b"z",
        b"/",
        b".",
        b"\\",
        b":",
        b"=",
        b"[!",
        b"[^",
        b"[]",
        b"[a-c]",
        b"[!a]",
        b"[[:alpha:]]",
        b"[[:digit:]",
        b"[:xdigit:]",
        b"[:zz:]",
        b"[:foo:]",
        b"[:",
        b":]",
        b"[=",
        b"=]",
        b"[=a=]",
        b"[.",
        b".]",
        b"[.a.]",
        b"[.-.]",
        b"a-",
        b"-z",
        b"\xc3\xa9",
        b"\xff",
        b"**",
        b"*?",
        b" ",
    ];
    proptest::sample::select(fixed).prop_map(<[u8]>::to_vec)
}

fn path_piece() -> impl Strategy<Value = Vec<u8>> {
    let fixed: &[&[u8]] = &[
        b"a",
        b"b",
        b"c",
        b"z",
        b"/",
        b".",
        b"-",
        b"[",
        b"]",
        b"!",
        b"^",
        b"\\",
        b":",
        b"=",
        b"*",
        b"?",
        b"1",
        b"\xc3\xa9",
        b"\xff",
        b" ",
        b"A",
        b"x",
    ];
    proptest::sample::select(fixed).prop_map(<[u8]>::to_vec)
}

fn joined(piece: impl Strategy<Value = Vec<u8>>, most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60_000, ..ProptestConfig::default() })]

    #[test]
    fn a_pattern_means_the_same_as_to_the_c_library(
        pattern in joined(piece(), 8),
        path in joined(path_piece(), 6),
    ) {
        agree(&pattern, &path);
    }

    #[test]
    fn a_bracket_means_the_same_for_every_byte(
        inside in joined(piece(), 5),
        tail in joined(piece(), 2),
        byte in 1u8..=255,
    ) {
        let pattern = [b"[".as_slice(), &inside, b"]", &tail].concat();
        agree(&pattern, &[byte]);
        agree(&pattern, &[byte, b'a']);
    }

    #[test]
    fn a_random_pattern_means_the_same(
        pattern in proptest::collection::vec(1u8..=255, 0..12),
        path in proptest::collection::vec(1u8..=255, 0..8),
    ) {
        agree(&pattern, &path);
    }
}

#[test]
fn brackets_at_their_edges_mean_the_same() {
    let patterns = [
        "[!x]",
        "[^x]",
        "[]a]",
        "[!]a]",
        "[a-]",
        "[-a]",
        "[a-c]",
        "[c-a]",
        "[[:alpha:]]",
        "[![:alpha:]]",
        "[[:nothing:]]",
        "[[:alpha:",
        "[",
        "[a",
        "[!",
        "[]",
        "[!]",
        "a[",
        "*[",
        "*[a",
        "[a]*",
        "[[.a.]]",
        "[[.a.]-c]",
        "[a-[.c.]]",
        "[[=a=]]",
        "[[=a=]b]",
        "[\\]",
        "[\\a]",
        "[a/b]",
        "*[!/]",
        "?[a-z]*[0-9]",
        "[[:digit:][:upper:]]",
        "[a[:digit:]]",
        "[a[=]",
        "[a[.]",
    ];
    let paths = [
        "",
        "a",
        "b",
        "x",
        "]",
        "[",
        "-",
        "!",
        "^",
        "\\",
        "/",
        ".",
        "1",
        "A",
        "[a",
        "a[",
        "[!",
        "[]",
        "xa",
        "ab",
        "a/b",
        ".hidden",
        "xyz9",
        "[a]",
        "a]",
        "[[:alpha:",
    ];
    for pattern in patterns {
        for path in paths {
            agree(pattern.as_bytes(), path.as_bytes());
        }
    }
}

#[test]
fn a_star_crosses_directories_and_matches_hidden_files() {
    assert!(fnmatch(b"/capio/*.txt", b"/capio/a/b/.c.txt"));
    assert!(!fnmatch(b"/capio/*.txt", b"/capio/a.tx"));
    assert!(fnmatch(b"a\\*", b"a\\b"), "a backslash is literal");
}

#[test]
fn many_stars_do_not_take_exponential_time() {
    let pattern = b"*a".repeat(200);
    let path = [b"a".repeat(2000), b"b".to_vec()].concat();
    assert!(!fnmatch(&pattern, &path));
}
