//! Extended attributes, set by programs and found on disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use wire::limits::MAX_XATTRS;
use wire::message::{OfdId, Request, Target};

use crate::peer::{Peer, at, name};
use crate::world::{World, setup};

/// Names of the user's, sorted.
fn names(peer: &mut Peer, path: &str) -> Vec<String> {
    let list = peer.xattr(path, None).unwrap();
    let names = list.split(|&byte| byte == 0);
    let names = names.map(|name| String::from_utf8(name.to_vec()).unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("user.")).collect();
    names.sort();
    names
}

#[test]
fn those_on_disk_are_there_and_change_only_when_the_run_has_ended_well() {
    for well in [true, false] {
        let setup = setup();
        let dir = setup.dir().to_path_buf();
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("f"), "content").unwrap();
        fs::hard_link(dir.join("f"), dir.join("d/g")).unwrap();
        for path in ["f", "d"] {
            xattr::set(dir.join(path), "user.old", b"old").unwrap();
            xattr::set(dir.join(path), "user.gone", b"gone").unwrap();
        }
        let disk = |path: &str, name: &str| xattr::get(dir.join(path), name).unwrap();
        let world = setup.start();
        let mut peer = world.join("a");
        for path in ["f", "d"] {
            assert_eq!(peer.xattr(path, Some("user.old")).unwrap(), b"old");
            assert_eq!(names(&mut peer, path), ["user.gone", "user.old"]);
            peer.set_xattr(path, "user.new", b"new").unwrap();
            peer.set_xattr(path, "user.old", b"changed").unwrap();
            peer.remove_xattr(path, "user.gone").unwrap();
            assert_eq!(names(&mut peer, path), ["user.new", "user.old"]);
            assert_eq!(disk(path, "user.old").as_deref(), Some(&b"old"[..]));
        }
        assert_eq!(peer.xattr("d/g", Some("user.new")).unwrap(), b"new");
        assert_eq!(peer.get("f").unwrap(), b"content");
        let report = world.session().drain(well);
        assert_eq!(report.errors, Vec::<String>::new());
        assert_eq!(report.conflicts, []);
        let old: &[u8] = if well { b"changed" } else { b"old" };
        for path in ["f", "d", "d/g"] {
            assert_eq!(disk(path, "user.new").is_some(), well, "{path}");
            assert_eq!(disk(path, "user.gone").is_none(), well, "{path}");
            assert_eq!(disk(path, "user.old").as_deref(), Some(old), "{path}");
        }
    }
}

#[test]
fn a_directory_that_somebody_else_gave_one_meanwhile_keeps_it() {
    let setup = setup();
    let dir = setup.dir().to_path_buf();
    fs::create_dir(dir.join("d")).unwrap();
    xattr::set(dir.join("d"), "user.same", b"before").unwrap();
    let world = setup.start();
    let mut peer = world.join("a");
    peer.set_xattr("d", "user.ours", b"ours").unwrap();
    xattr::set(dir.join("d"), "user.theirs", b"theirs").unwrap();
    xattr::set(dir.join("d"), "user.same", b"after").unwrap();
    world.drain();
    let disk = |name: &str| xattr::get(dir.join("d"), name).unwrap();
    assert_eq!(disk("user.ours").as_deref(), Some(&b"ours"[..]));
    assert_eq!(disk("user.theirs").as_deref(), Some(&b"theirs"[..]));
    assert_eq!(disk("user.same").as_deref(), Some(&b"after"[..]));
}

#[test]
fn what_was_accepted_is_kept_however_little_the_disk_takes() {
    let world = World::new();
    let mut peer = world.join("a");
    peer.put("f", b"x");
    let mut accepted = 0;
    let refused = loop {
        let name = format!("user.{accepted}");
        match peer.set_xattr("f", &name, &[b'x'; 1001]) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, libc::ENOSPC);
    assert!(accepted > 2 && accepted * 1001 < MAX_XATTRS, "{accepted}");
    peer.set_xattr("f", "user.0", b"shorter").unwrap();
    peer.remove_xattr("f", "user.1").unwrap();
    world.drain();
    let kept = xattr::list(world.dir().join("f")).unwrap();
    let kept = kept.filter(|name| name.as_encoded_bytes().starts_with(b"user."));
    assert_eq!(kept.count(), accepted - 1);
}

#[test]
fn they_take_a_bounded_part_of_memory_and_give_it_back() {
    let world = World::new();
    let mut peer = world.join("a");
    let mut files = 0;
    let fill = |peer: &mut Peer, file: u32| {
        let path = format!("f{file}");
        peer.put(&path, b"");
        peer.set_xattr(&path, "user.a", &[b'x'; 3000])
    };
    let refused = loop {
        match fill(&mut peer, files) {
            Ok(()) => files += 1,
            Err(error) => break error,
        }
        assert!(files < 10_000, "nothing bounds them");
    };
    assert_eq!(refused, libc::ENOSPC);
    for file in 0..2 {
        let path = format!("f{file}");
        let (name, directory) = (name(&path), false);
        peer.tell(&Request::Unlink { name, directory }).unwrap();
    }
    peer.set_xattr("f2", "user.b", &[b'x'; 500]).unwrap();
    fill(&mut peer, files).unwrap();
}

#[test]
fn names_and_flags_that_no_library_would_send_are_refused() {
    let world = World::new();
    let mut peer = world.join("a");
    peer.put("f", b"x");
    let long = format!("user.{}", "x".repeat(251));
    for (name, error) in [
        ("", libc::ERANGE),
        (long.as_str(), libc::ERANGE),
        ("user.a\0b", libc::ERANGE),
        ("user.", libc::EINVAL),
        ("a", libc::ENOTSUP),
        ("security.a", libc::ENOTSUP),
    ] {
        assert_eq!(peer.set_xattr("f", name, b"x"), Err(error), "{name}");
    }
    let (target, name, value) = (at("f"), &b"user.a"[..], &b"x"[..]);
    let flags = 8;
    let set = Request::SetXattr {
        target,
        name,
        value,
        flags,
    };
    assert_eq!(peer.tell(&set), Err(libc::EINVAL));
    let (id, generation) = (12345, 1);
    let target = Target::Ofd(OfdId { id, generation });
    let remove = Request::RemoveXattr { target, name };
    assert_eq!(peer.tell(&remove), Err(libc::EBADF));
    assert_eq!(names(&mut peer, "f"), [""; 0]);
}

#[test]
fn a_reader_of_a_finished_file_sees_what_its_producer_set_last() {
    let graph = r#"{"name": "make", "input_stream": [], "output_stream": ["f"],
        "streaming": [{"name": ["f"], "committed": "on_close"}]},
        {"name": "use", "input_stream": ["f"], "output_stream": []}"#;
    let world = setup().spec(graph, "").start();
    let reader = world.process("use", |peer| {
        assert_eq!(peer.xattr("f", Some("user.state")).unwrap(), b"done");
    });
    world.until_waits("use");
    let mut peer = world.join("make");
    let open = peer.create("f");
    peer.set_xattr("f", "user.state", b"half").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    peer.set_xattr("f", "user.state", b"done").unwrap();
    drop(open);
    reader.join();
}

#[test]
fn setting_one_changes_the_change_time_alone() {
    let world = World::new();
    let mut peer = world.join("a");
    peer.put("f", b"x");
    let before = peer.stat(at("f")).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    peer.set_xattr("f", "user.a", b"x").unwrap();
    let after = peer.stat(at("f")).unwrap();
    assert!(after.changed > before.changed);
    assert_eq!(after.modified, before.modified);
    world.drain();
    let meta = fs::metadata(world.dir().join("f")).unwrap();
    assert_eq!(
        meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        before.modified
    );
}
