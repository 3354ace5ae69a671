//! What lies in `CAPIO_DIR` on disk, seen and changed by the session.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use wire::message::{Reply, Request, SetTime, Target, decode};

use crate::peer::{Opened, Peer, at, name};
use crate::world::{Setup, World, setup};

/// A tree on disk: `a`, its other name `b`, `d/inner`, and a link to `a`.
fn tree() -> Setup {
    let setup = setup();
    let dir = setup.dir();
    fs::write(dir.join("a"), b"below").unwrap();
    fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
    fs::create_dir(dir.join("d")).unwrap();
    fs::write(dir.join("d/inner"), b"inner").unwrap();
    std::os::unix::fs::symlink("a", dir.join("link")).unwrap();
    setup
}

fn unlink(peer: &mut Peer, path: &str) -> Result<(), i32> {
    let (name, directory) = (name(path), false);
    peer.tell(&Request::Unlink { name, directory })
}

fn rename(peer: &mut Peer, from: &str, to: &str) -> Result<(), i32> {
    let (from, to, flags) = (name(from), name(to), 0);
    peer.tell(&Request::Rename { from, to, flags })
}

fn content(dir: &Path, path: &str) -> String {
    fs::read_to_string(dir.join(path)).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn files_on_disk_are_there_and_read_where_they_lie() {
    let world = tree().start();
    let mut peer = world.join("a");
    assert_eq!(peer.list(".").unwrap(), ["a", "b", "d", "link"]);
    let below: Vec<PathBuf> = ["a", "link"]
        .into_iter()
        .map(|path| match peer.open(path, libc::O_RDONLY) {
            Ok(Opened::Native(path, true)) => path,
            other => panic!("{path}: {other:?}"),
        })
        .collect();
    assert_eq!(below, vec![world.dir().join("a"); 2]);
    let one = peer.stat(at("a")).unwrap();
    assert_eq!((one.size, one.links), (5, 2));
    assert_eq!(peer.stat(at("b")).unwrap().inode, one.inode);
    let (body, _) = peer.ask(&Request::Readlink { name: name("link") });
    assert_eq!(decode(&body), Some(Reply::Path(b"a")));
}

#[test]
fn a_file_on_disk_is_changed_only_when_the_run_has_ended_well() {
    for well in [true, false] {
        let world = tree().start();
        let mut peer = world.join("a");
        let open = peer.file("b", libc::O_RDWR);
        assert_eq!(peer.read_all(&open).unwrap(), b"below");
        peer.write(&open, 5, b" and above").unwrap();
        drop(open);
        assert_eq!(peer.get("a").unwrap(), b"below and above");
        assert_eq!(content(world.dir(), "a"), "below");
        let report = world.session().drain(well);
        assert_eq!(
            (report.errors.len(), report.conflicts.len()),
            (0, 0),
            "{report:?}"
        );
        let expected = if well { "below and above" } else { "below" };
        assert_eq!(content(world.dir(), "a"), expected);
        assert_eq!(content(world.dir(), "b"), expected);
        let inode = |path| fs::metadata(world.dir().join(path)).unwrap().ino();
        assert_eq!(inode("a"), inode("b"), "one file has become two");
        assert_eq!(names(world.dir()), ["a", "b", "d", "link"]);
    }
}

#[test]
fn one_of_two_names_can_go() {
    let world = tree().start();
    let mut peer = world.join("a");
    unlink(&mut peer, "a").unwrap();
    assert_eq!(peer.get("b").unwrap(), b"below");
    let report = world.drain();
    assert_eq!(report.conflicts, []);
    assert_eq!(names(world.dir()), ["b", "d", "link"]);
    assert_eq!(content(world.dir(), "b"), "below");
}

#[test]
fn a_directory_on_disk_moves_with_all_that_is_in_it() {
    let world = tree().start();
    let mut peer = world.join("a");
    // Not looked into before.
    rename(&mut peer, "d", "e").unwrap();
    assert_eq!(peer.get("e/inner").unwrap(), b"inner");
    assert_eq!(peer.get("d/inner"), Err(libc::ENOENT));
    peer.put("e/new", b"new");
    let report = world.drain();
    assert_eq!(report.conflicts, []);
    assert_eq!(names(world.dir()), ["a", "b", "e", "link"]);
    assert_eq!(names(&world.dir().join("e")), ["inner", "new"]);
    assert_eq!(content(world.dir(), "e/inner"), "inner");
}

#[test]
fn a_file_moved_on_disk_is_never_lost_whatever_is_kept() {
    use coordinator::session::Keep;
    for keep in [Keep::None, Keep::Permanent, Keep::All] {
        let mut setup = tree();
        setup.config.keep = keep;
        let world = setup.start();
        let mut peer = world.join("a");
        rename(&mut peer, "d/inner", "moved").unwrap();
        rename(&mut peer, "link", "new").unwrap();
        world.drain();
        let found = if keep == Keep::None {
            "d/inner"
        } else {
            "moved"
        };
        assert_eq!(content(world.dir(), found), "inner", "{keep:?}");
        let link = if keep == Keep::None { "link" } else { "new" };
        assert_eq!(
            fs::read_link(world.dir().join(link)).unwrap(),
            Path::new("a")
        );
    }
}

#[test]
fn a_name_given_again_after_a_removal_is_a_new_file() {
    let world = tree().start();
    let mut peer = world.join("a");
    let old = peer.stat(at("d/inner")).unwrap().inode;
    unlink(&mut peer, "d/inner").unwrap();
    assert_eq!(peer.stat(at("d/inner")), Err(libc::ENOENT));
    peer.put("d/inner", b"again");
    assert_ne!(peer.stat(at("d/inner")).unwrap().inode, old);
    assert_eq!(world.drain().conflicts, []);
    assert_eq!(content(world.dir(), "d/inner"), "again");
}

#[test]
fn permissions_and_times_of_files_and_directories_on_disk_are_kept() {
    let world = tree().start();
    let mut peer = world.join("a");
    for (path, mode) in [("d/inner", 0o604), ("d", 0o711)] {
        let target = at(path);
        peer.tell(&Request::Chmod { target, mode }).unwrap();
        let (accessed, modified) = (SetTime::Omit, SetTime::At(1_600_000_000_123_456_789));
        let times = Request::Utimens {
            target,
            accessed,
            modified,
        };
        peer.tell(&times).unwrap();
    }
    world.drain();
    for (path, mode) in [("d/inner", 0o604), ("d", 0o711)] {
        let meta = fs::metadata(world.dir().join(path)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, mode, "{path}");
        assert_eq!(
            (meta.mtime(), meta.mtime_nsec()),
            (1_600_000_000, 123_456_789),
            "{path}"
        );
    }
    assert_eq!(content(world.dir(), "d/inner"), "inner");
}

#[test]
fn what_somebody_else_has_changed_meanwhile_is_left_alone() {
    let world = tree().start();
    let mut peer = world.join("a");
    peer.put("d/inner", b"ours");
    peer.put("new", b"ours");
    let open = peer.create("a");
    drop(open);
    fs::write(world.dir().join("d/inner"), b"somebody's").unwrap();
    fs::write(world.dir().join("new"), b"somebody's").unwrap();
    let report = world.drain();
    assert_eq!(report.conflicts.len(), 2, "{report:?}");
    for path in ["d/inner", "new"] {
        assert_eq!(content(world.dir(), path), "somebody's");
        assert_eq!(content(world.dir(), &format!("{path}.capio")), "ours");
    }
}

#[test]
fn a_removed_file_that_somebody_else_has_changed_meanwhile_stays() {
    let world = tree().start();
    let mut peer = world.join("a");
    unlink(&mut peer, "d/inner").unwrap();
    fs::write(world.dir().join("d/inner"), b"somebody's").unwrap();
    let report = world.session().drain(true);
    assert_eq!(report.errors.len(), 1, "{report:?}");
    assert_eq!(content(world.dir(), "d/inner"), "somebody's");
}

#[test]
fn excluded_files_and_directories_are_left_to_the_kernel() {
    let setup = tree().spec("", r#", "exclude": ["log", "*.tmp"]"#);
    let world = setup.start();
    let mut peer = world.join("a");
    for path in ["x.tmp", "log", "log/deep/x"] {
        match peer.open(path, libc::O_CREAT | libc::O_WRONLY) {
            Ok(Opened::Native(native, false)) => assert_eq!(native, world.dir().join(path)),
            other => panic!("{path}: {other:?}"),
        }
    }
    assert_eq!(rename(&mut peer, "a", "a.tmp"), Err(libc::EXDEV));
    assert_eq!(peer.get("a").unwrap(), b"below");
}

#[test]
fn excluded_files_are_listed_and_hold_their_directory_as_they_come_and_go() {
    let world = setup().spec("", r#", "exclude": ["*.tmp"]"#).start();
    let mut peer = world.join("a");
    let (name, mode) = (name("d"), 0o755);
    peer.tell(&Request::Mkdir { name, mode }).unwrap();
    peer.put("d/f", b"x");
    let flags = libc::O_CREAT | libc::O_WRONLY;
    let Ok(Opened::Native(native, false)) = peer.open("d/x.tmp", flags) else {
        panic!("d/x.tmp is the session's");
    };
    fs::write(&native, b"real").unwrap();
    assert_eq!(peer.list("d").unwrap(), ["f", "x.tmp"]);
    unlink(&mut peer, "d/f").unwrap();
    let directory = true;
    let mut rmdir = || peer.tell(&Request::Unlink { name, directory });
    assert_eq!(rmdir(), Err(libc::ENOTEMPTY));
    fs::remove_file(&native).unwrap();
    assert_eq!(rmdir(), Ok(()));
    assert_eq!(peer.stat(at("d")), Err(libc::ENOENT));
    world.drain();
    assert_eq!(names(world.dir()), [""; 0]);
}

#[test]
fn an_unlinked_file_stays_readable_for_who_has_it_open() {
    let world = World::new();
    let mut peer = world.join("a");
    let open = peer.create("f");
    peer.write(&open, 0, b"still").unwrap();
    unlink(&mut peer, "f").unwrap();
    assert_eq!(peer.get("f"), Err(libc::ENOENT));
    assert_eq!(peer.read_all(&open).unwrap(), b"still");
    assert_eq!(peer.stat(Target::Ofd(open.ofd)).unwrap().links, 0);
    peer.put("f", b"new");
    assert_eq!(peer.read_all(&open).unwrap(), b"still");
}
