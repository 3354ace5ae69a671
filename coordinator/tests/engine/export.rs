//! What of a session's files is on disk afterwards.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use coordinator::session::{Keep, KeepReason};
use wire::message::{Request, SetTime};

use crate::peer::{Peer, at, name};
use crate::world::setup;

/// Files of two steps: `kept`, `read` by another step, `out` by none, `dir/x`.
fn produce(first: &mut Peer) {
    for path in ["kept", "read", "out"] {
        first.put(path, path.as_bytes());
    }
    let (name, mode) = (name("dir"), 0o750);
    first.tell(&Request::Mkdir { name, mode }).unwrap();
    first.put("dir/x", b"dir/x");
}

fn kept(keep: Keep, well: bool) -> Vec<String> {
    let mut setup = setup().spec("", r#", "permanent": ["kept", "dir"]"#);
    setup.config.keep = keep;
    let world = setup.start();
    produce(&mut world.join("first"));
    world
        .process("second", |peer| {
            for path in ["kept", "read", "dir/x"] {
                peer.get(path).unwrap();
            }
        })
        .join();
    let report = world.session().drain(well);
    assert_eq!(report.errors, Vec::<String>::new());
    let mut paths: Vec<_> = report.kept.iter().map(|file| file.path.clone()).collect();
    for path in ["kept", "read", "out", "dir/x"] {
        let content = fs::read(world.dir().join(path)).ok();
        let expected = paths
            .contains(&path.to_owned())
            .then(|| path.as_bytes().to_vec());
        assert_eq!(content, expected, "{path}");
        let gone = report.dropped.iter().any(|file| file.path == path);
        assert_ne!(gone, expected.is_some(), "{path}");
    }
    paths.sort();
    paths
}

#[test]
fn what_is_kept_is_what_was_asked_for() {
    assert_eq!(kept(Keep::Permanent, true), ["dir/x", "kept"]);
    assert_eq!(kept(Keep::Outputs, true), ["dir/x", "kept", "out"]);
    assert_eq!(kept(Keep::All, true), ["dir/x", "kept", "out", "read"]);
    assert_eq!(kept(Keep::None, true), [""; 0]);
    assert_eq!(kept(Keep::All, false), [""; 0]);
}

#[test]
fn a_kept_file_is_the_same_to_the_byte_with_mode_times_and_holes() {
    let world = setup().start();
    let mut peer = world.join("a");
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 253) as u8).collect();
    let open = peer.create("big");
    peer.write(&open, 0, &content).unwrap();
    peer.write(&open, 1 << 30, b"end").unwrap();
    drop(open);
    peer.put("empty", b"");
    let target = at("big");
    peer.tell(&Request::Chmod {
        target,
        mode: 0o4751,
    })
    .unwrap();
    let (accessed, modified) = (SetTime::At(1_500_000_000_000_000_001), SetTime::At(-5));
    let modified_later = SetTime::At(1_600_000_000_000_000_002);
    peer.tell(&Request::Utimens {
        target,
        accessed,
        modified,
    })
    .unwrap();
    let modified = modified_later;
    peer.tell(&Request::Utimens {
        target,
        accessed,
        modified,
    })
    .unwrap();
    let report = world.drain();
    let reasons: Vec<_> = report.kept.iter().map(|file| file.reason).collect();
    assert_eq!(reasons, [KeepReason::Output; 2]);
    let file = world.dir().join("big");
    let meta = fs::metadata(&file).unwrap();
    assert_eq!(meta.len(), (1 << 30) + 3);
    assert!(meta.blocks() * 512 < 16 << 20, "holes are filled");
    assert_eq!(meta.permissions().mode() & 0o7777, 0o4751);
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_600_000_000, 2));
    assert_eq!((meta.atime(), meta.atime_nsec()), (1_500_000_000, 1));
    use std::os::unix::fs::FileExt;
    let disk = fs::File::open(&file).unwrap();
    let mut start = vec![0; content.len() + 1];
    disk.read_exact_at(&mut start, 0).unwrap();
    assert!(start[..content.len()] == content && start[content.len()] == 0);
    let mut end = [0; 4];
    disk.read_exact_at(&mut end, (1 << 30) - 1).unwrap();
    assert_eq!(&end, b"\0end");
    assert_eq!(fs::metadata(world.dir().join("empty")).unwrap().len(), 0);
}

#[test]
fn names_of_one_file_links_and_empty_directories_are_kept_as_such() {
    let world = setup().start();
    let mut peer = world.join("a");
    peer.put("one", b"x");
    let (target, to) = (at("one"), name("two"));
    peer.tell(&Request::Link { target, to }).unwrap();
    let (content, link) = (&b"one"[..], name("link"));
    peer.tell(&Request::Symlink {
        content,
        name: link,
    })
    .unwrap();
    for path in ["empty", "full", "gone"] {
        let (name, mode) = (name(path), 0o705);
        peer.tell(&Request::Mkdir { name, mode }).unwrap();
    }
    peer.put("full/x", b"x");
    let (name, directory) = (name("gone"), true);
    peer.tell(&Request::Unlink { name, directory }).unwrap();
    world.drain();
    let meta = |path: &str| fs::metadata(world.dir().join(path));
    assert_eq!(meta("one").unwrap().ino(), meta("two").unwrap().ino());
    assert_eq!(
        fs::read_link(world.dir().join("link")).unwrap().to_str(),
        Some("one")
    );
    for path in ["empty", "full"] {
        assert_eq!(meta(path).unwrap().mode() & 0o7777, 0o705, "{path}");
    }
    assert!(meta("gone").is_err());
    assert_eq!(fs::read_dir(world.dir()).unwrap().count(), 5);
}
