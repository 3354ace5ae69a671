//! Files on disk after a session: all that can be told of them.

use std::fs;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use coordinator::ENGINE;
use coordinator::session::Order;
use wire::message::{Request, SetTime, Target};

use crate::peer::{Peer, at, name};
use crate::world::{setup, setup_on};

fn chmod(peer: &mut Peer, path: &str, mode: u32) {
    let target = at(path);
    peer.tell(&Request::Chmod { target, mode }).unwrap();
}

fn set_modified(peer: &mut Peer, path: &str, time: i64) {
    let target = Target::Path {
        name: name(path),
        follow: false,
    };
    let (accessed, modified) = (SetTime::Omit, SetTime::At(time));
    let request = Request::Utimens {
        target,
        accessed,
        modified,
    };
    peer.tell(&request).unwrap();
}

fn rename(peer: &mut Peer, from: &str, to: &str) {
    let (from, to, flags) = (name(from), name(to), 0);
    peer.tell(&Request::Rename { from, to, flags }).unwrap();
}

fn modified(path: &Path) -> (i64, i64) {
    let meta = path.symlink_metadata().unwrap();
    (meta.mtime(), meta.mtime_nsec())
}

fn hidden(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".capio")).collect()
}

#[test]
fn extended_attributes_of_a_file_survive_that_it_is_written() {
    let setup = setup();
    let file = setup.dir().join("f");
    fs::write(&file, "old").unwrap();
    xattr::set(&file, "user.origin", b"lab\xff").unwrap();
    let world = setup.start();
    let mut peer = world.join("a");
    peer.put("f", b"new content");
    world.drain();
    assert_eq!(fs::read(&file).unwrap(), b"new content");
    let origin = xattr::get(&file, "user.origin").unwrap();
    assert_eq!(origin.as_deref(), Some(&b"lab\xff"[..]));
}

#[test]
fn a_sparse_file_far_larger_than_the_cache_can_be_changed_and_stays_sparse() {
    let setup = setup();
    let path = setup.dir().join("sparse");
    let file = fs::File::create_new(&path).unwrap();
    file.write_all_at(b"middle", 3 << 30).unwrap();
    file.set_len(8 << 30).unwrap();
    let world = setup.start();
    let mut peer = world.join("a");
    let open = peer.file("sparse", libc::O_RDWR);
    assert_eq!(peer.read(&open, 3 << 30, 6).unwrap(), b"middle");
    peer.write(&open, 0, b"start").unwrap();
    drop(open);
    world.drain();
    let file = fs::File::open(&path).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), 8 << 30);
    assert!(meta.blocks() * 512 < 1 << 20, "holes are filled");
    let mut content = [0; 6];
    file.read_exact_at(&mut content, 3 << 30).unwrap();
    assert_eq!(&content, b"middle");
    file.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(&content, b"start\0");
}

#[test]
fn zeros_that_were_written_take_no_room_on_disk_and_read_the_same() {
    let world = setup().start();
    let mut peer = world.join("a");
    let mut content = vec![0; 1 << 20];
    content[4096] = 1;
    content[1_000_000] = 2;
    peer.put("f", &content);
    world.drain();
    let file = world.dir().join("f");
    assert!(fs::read(&file).unwrap() == content);
    assert!(fs::metadata(&file).unwrap().blocks() * 512 <= 64 << 10);
}

#[test]
fn a_name_of_a_file_that_nobody_looked_at_leads_to_the_changed_file_too() {
    let setup = setup();
    let dir = setup.dir().to_path_buf();
    fs::create_dir_all(dir.join("far/away")).unwrap();
    fs::write(dir.join("f"), "old").unwrap();
    fs::hard_link(dir.join("f"), dir.join("far/away/g")).unwrap();
    let world = setup.start();
    world.join("a").put("f", b"new");
    world.drain();
    assert_eq!(fs::read(dir.join("far/away/g")).unwrap(), b"new");
    let inode = |path: &str| fs::metadata(dir.join(path)).unwrap().ino();
    assert_eq!(inode("f"), inode("far/away/g"));
}

#[test]
fn what_was_written_by_a_name_that_then_went_is_seen_by_the_other() {
    let setup = setup();
    let dir = setup.dir().to_path_buf();
    fs::create_dir(dir.join("far")).unwrap();
    fs::write(dir.join("f"), "old").unwrap();
    fs::hard_link(dir.join("f"), dir.join("far/g")).unwrap();
    let world = setup.start();
    let mut peer = world.join("a");
    peer.put("f", b"new");
    let (name, directory) = (name("f"), false);
    peer.tell(&Request::Unlink { name, directory }).unwrap();
    assert_eq!(peer.get("far/g").unwrap(), b"new");
    world.drain();
    assert_eq!(fs::read(dir.join("far/g")).unwrap(), b"new");
    assert!(!dir.join("f").exists());
}

#[test]
fn times_before_1970_and_set_id_bits_are_kept() {
    let world = setup().start();
    let mut peer = world.join("a");
    peer.put("f", b"x");
    chmod(&mut peer, "f", 0o6751);
    set_modified(&mut peer, "f", -1_500_000_000);
    let (content, link) = (&b"f"[..], name("link"));
    let request = Request::Symlink {
        content,
        name: link,
    };
    peer.tell(&request).unwrap();
    set_modified(&mut peer, "link", 1_000_000_000_000_000_007);
    world.drain();
    let file = world.dir().join("f");
    assert_eq!(modified(&file), (-2, 500_000_000));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o6751);
    assert_eq!(modified(&world.dir().join("link")), (1_000_000_000, 7));
}

#[test]
fn owners_are_kept_where_the_session_may_give_files_away() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = setup().start();
    let mut peer = world.join("a");
    peer.put("f", b"x");
    let (target, uid, gid) = (at("f"), 123, 456);
    peer.tell(&Request::Chown { target, uid, gid }).unwrap();
    chmod(&mut peer, "f", 0o4755);
    world.drain();
    let meta = fs::metadata(world.dir().join("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (123, 456));
    assert_eq!(meta.mode() & 0o7777, 0o4755);
}

#[test]
fn a_named_pipe_is_there_afterwards() {
    let world = setup().start();
    let mut peer = world.join("a");
    let (name, mode, device) = (name("pipe"), libc::S_IFIFO | 0o620, 0);
    peer.tell(&Request::Mknod { name, mode, device }).unwrap();
    world.drain();
    let meta = fs::symlink_metadata(world.dir().join("pipe")).unwrap();
    assert!(meta.file_type().is_fifo());
    assert_eq!(meta.permissions().mode() & 0o7777, 0o620);
}

#[test]
fn a_renamed_directory_keeps_its_attributes_and_its_files_their_inodes() {
    let setup = setup();
    let dir = setup.dir().to_path_buf();
    fs::create_dir(dir.join("d")).unwrap();
    fs::write(dir.join("d/f"), "x").unwrap();
    xattr::set(dir.join("d"), "user.color", b"blue").unwrap();
    fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o2751)).unwrap();
    let (inode, time) = (
        fs::metadata(dir.join("d/f")).unwrap().ino(),
        modified(&dir.join("d")),
    );
    let world = setup.start();
    rename(&mut world.join("a"), "d", "e");
    world.drain();
    let meta = fs::metadata(dir.join("e")).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o2751);
    assert_eq!(modified(&dir.join("e")), time);
    let color = xattr::get(dir.join("e"), "user.color").unwrap();
    assert_eq!(color.as_deref(), Some(&b"blue"[..]));
    assert_eq!(fs::metadata(dir.join("e/f")).unwrap().ino(), inode);
    assert!(!dir.join("d").exists());
}

#[test]
fn directories_have_the_times_that_programs_saw() {
    let setup = setup();
    let dir = setup.dir().to_path_buf();
    fs::create_dir(dir.join("d")).unwrap();
    fs::create_dir(dir.join("same")).unwrap();
    fs::write(dir.join("same/f"), "old").unwrap();
    let same = modified(&dir.join("same"));
    let world = setup.start();
    let mut peer = world.join("a");
    peer.put("top", b"x");
    peer.put("d/f", b"x");
    // Only its content changes: the names in there do not.
    peer.put("same/f", b"new");
    let seen = peer.stat(at("d")).unwrap().modified;
    set_modified(&mut peer, ".", 1_200_000_000_000_000_003);
    world.drain();
    let (seconds, ns) = modified(&dir.join("d"));
    assert_eq!(seconds * 1_000_000_000 + ns, seen);
    assert_eq!(modified(&dir.join("same")), same);
    assert_eq!(modified(&dir), (1_200_000_000, 3));
}

#[test]
fn a_failed_run_writes_nothing_unless_it_is_told_to() {
    for keeps in [false, true] {
        let mut setup = setup();
        setup.config.keep_on_failure = keeps;
        let dir = setup.dir().to_path_buf();
        fs::write(dir.join("old"), "old").unwrap();
        let before = modified(&dir);
        let world = setup.start();
        let mut peer = world.join("a");
        peer.put("old", b"changed");
        peer.put("new", b"new");
        let report = world.session().drain(false);
        assert_eq!(report.errors, Vec::<String>::new());
        assert_eq!(dir.join("new").exists(), keeps);
        let expected = if keeps { "changed" } else { "old" };
        assert_eq!(fs::read_to_string(dir.join("old")).unwrap(), expected);
        assert_eq!(modified(&dir) == before, !keeps, "something was staged");
        assert!(hidden(&dir).is_empty());
    }
}

#[test]
fn what_is_staged_is_hidden_and_its_names_are_not_given_to_programs() {
    let setup = setup();
    let dir = setup.dir().to_path_buf();
    // Of a session that is at work right now.
    let busy = dir.join(".capio-journal-other");
    fs::create_dir(&busy).unwrap();
    let lock = fs::File::create(busy.join("lock")).unwrap();
    lock.lock().unwrap();
    let world = setup.start();
    let mut peer = world.join("a");
    assert_eq!(peer.list(".").unwrap(), [""; 0]);
    assert_eq!(peer.stat(at(".capio-journal-other")), Err(libc::ENOENT));
    peer.put(".capio-journal-mine", b"x");
    let report = world.session().drain(true);
    assert!(
        report.errors[0].contains(".capio-journal-mine"),
        "{report:?}"
    );
    assert_eq!(hidden(&dir), [".capio-journal-other"]);
    let settled = (ENGINE.settle)(&dir, None, Order::Apply);
    assert!(settled.unwrap_err().to_string().contains("right now"));
}

#[test]
fn a_drain_that_is_given_up_leaves_the_directory_as_it_was() {
    let setup = setup();
    let dir = setup.dir().to_path_buf();
    fs::write(dir.join("old"), "old").unwrap();
    let world = setup.start();
    let mut peer = world.join("a");
    peer.put("old", b"changed");
    peer.put("new", b"new");
    world.session().give_up();
    let report = world.session().drain(true);
    assert!(report.given_up && report.kept.is_empty(), "{report:?}");
    assert_eq!(report.dropped.len(), 2);
    assert_eq!(fs::read_to_string(dir.join("old")).unwrap(), "old");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn a_directory_lets_a_second_run_see_the_results_of_the_first() {
    let base = tempfile::tempdir().unwrap();
    let world = setup_on(base.path()).start();
    let mut peer = world.join("a");
    peer.put("f", b"first");
    chmod(&mut peer, "f", 0o600);
    world.drain();
    drop((peer, world));
    let world = setup_on(base.path()).start();
    let mut peer = world.join("a");
    assert_eq!(peer.get("f").unwrap(), b"first");
    peer.put("f", b"second");
    assert_eq!(world.drain().conflicts, []);
    assert_eq!(fs::read(base.path().join("f")).unwrap(), b"second");
}
