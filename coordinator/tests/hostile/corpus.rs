//! The bytes that fuzzers have found worth keeping, sent to a living session.

use std::path::PathBuf;

use crate::line::{Line, hello};
use crate::peer::at;
use crate::world::World;

/// Files of the corpus of `wire`, in order.
fn corpus() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/fuzz/corpus/decode");
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    assert!(files.len() > 20, "{} files in {folder}", files.len());
    files
}

/// A body with its length before it, as far as that is true.
fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_le_bytes()[..], body].concat()
}

#[test]
fn no_message_of_the_corpus_stops_a_session() {
    let world = World::new();
    for file in corpus() {
        let body = std::fs::read(&file).unwrap();
        for bytes in [
            body.clone(),
            framed(&body),
            framed(&[&body[..], &[0]].concat()),
        ] {
            // As the first message, and behind a greeting, twice.
            let mut line = Line::open(&world);
            line.send(&bytes);
            let _ = line.0.shutdown(std::net::Shutdown::Write);
            while line.answer().is_some() {}
            let mut line = Line::open(&world);
            line.send(&[hello(b"corpus"), bytes.clone(), bytes].concat());
            let _ = line.0.shutdown(std::net::Shutdown::Write);
            while line.answer().is_some() {}
        }
    }
    let honest = world.process("honest", |peer| {
        peer.put("honest", b"content");
        assert_eq!(peer.stat(at("honest")).unwrap().size, 7);
    });
    honest.join();
}
