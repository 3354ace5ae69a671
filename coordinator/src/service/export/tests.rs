//! A session whose coordinator is killed at every step of writing its results:
//! the directory is then as before or as after, and nothing in between.

mod random;
mod world;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::super::journal::{self, tests as steps};
use world::{BEFORE, Calls, ELSE, Plain, Run, State, all_paths, old, set_time, state, tree};

type Story = fn(&mut dyn Calls, &Path);

fn files(run: &mut dyn Calls, _: &Path) {
    run.mkdir("new");
    run.mkdir("new/deep");
    run.mkdir("new/empty");
    run.write("new/deep/f", 0, b"fresh");
    run.write("a", 3, b"CHANGED");
    run.write("b", 0, b"mine");
    run.write("sparse", 1 << 20, b"middle");
    run.write("e/f", 100_000, b"far");
}

fn renames(run: &mut dyn Calls, _: &Path) {
    run.rename("d", "moved", 0);
    run.rename("a", "b", libc::RENAME_EXCHANGE);
    run.rename("gone", "turns", 0);
    run.rename("link", "moved/link2", 0);
    run.write("moved/x", 0, b"and written");
    run.mkdir("f");
    run.rename("folder", "f/folder", 0);
}

fn removals(run: &mut dyn Calls, _: &Path) {
    run.remove("folder/sub/2", false);
    run.remove("folder/sub", true);
    run.remove("folder/1", false);
    run.remove("folder", true);
    run.remove("d/a2", false);
    run.remove("link", false);
    run.remove("e", true);
    run.write("e", 0, b"was a directory");
    run.remove("turns", false);
    run.mkdir("turns");
    run.write("turns/into", 0, b"a directory");
    run.remove("gone", false);
    run.write("gone", 0, b"and back");
}

fn links(run: &mut dyn Calls, _: &Path) {
    run.symlink("b", "new-link");
    run.remove("link", false);
    run.symlink("elsewhere", "link");
    run.write("one", 0, b"of two names");
    run.mkdir("n");
    run.link("one", "n/two");
    run.link("b", "n/b2");
    run.pipe("pipe");
    run.rename("d/dangling", "dangling", 0);
    run.remove("a", false);
    run.link("d/a2", "a");
}

fn attributes(run: &mut dyn Calls, _: &Path) {
    run.write("d/new", 0, b"in a directory that is then shut");
    run.chmod("d", 0o500);
    run.chmod("b", 0o4711);
    run.chmod("e", 0o1777);
    run.mkdir("shut");
    run.write("shut/f", 0, b"x");
    run.chmod("shut", 0o2511);
    let root = nix::unistd::geteuid().is_root();
    let own = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    for path in ["link", "gone", "folder"] {
        run.chown(path, if root { (12, 34) } else { own });
    }
}

/// Owner, a user, owning group, mask, others.
const ACCESS_LIST: &[u8] = b"\x02\0\0\0\
    \x01\0\x07\0\xff\xff\xff\xff\x02\0\x06\0\x01\0\0\0\x04\0\x05\0\xff\xff\xff\xff\
    \x10\0\x07\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";

fn extended(run: &mut dyn Calls, _: &Path) {
    run.extend("a", "user.new", b"on a file of two names");
    run.shorten("d/a2", "user.origin");
    run.extend("d", "user.color", b"green");
    run.extend("d", "user.shape", b"");
    run.rename("d", "moved", 0);
    run.extend("folder", "user.stays", b"where it is");
    run.extend("folder/1", "user.a", &[0xff; 1000]);
    run.shorten("folder/1", "user.a");
    run.extend("gone", "user.a", b"goes along");
    run.rename("gone", "folder/gone", 0);
    run.extend("turns", "user.a", b"goes with the file");
    run.remove("turns", false);
    run.write("turns", 0, b"another one");
    run.mkdir("new");
    run.extend("new", "user.a", b"new");
    run.write("new/f", 0, b"fresh");
    run.extend("new/f", "user.a", b"\0\xff");
    run.extend("new/f", "system.posix_acl_access", ACCESS_LIST);
    run.chmod("new/f", 0o640);
    run.extend("e", "system.posix_acl_default", ACCESS_LIST);
    run.extend("b", "system.posix_acl_access", ACCESS_LIST);
    run.shorten("b", "system.posix_acl_access");
    if nix::unistd::geteuid().is_root() {
        run.symlink("b", "new-link");
        for path in ["link", "new-link", "moved/x", "new", "folder"] {
            run.extend(path, "trusted.by", b"root");
        }
        run.shorten("folder", "trusted.by");
    }
}

fn conflicts(run: &mut dyn Calls, dir: &Path) {
    run.write("a", 0, b"ours");
    run.write("new", 0, b"ours");
    run.mkdir("sub");
    run.write("sub/f", 0, b"ours");
    run.remove("gone", false);
    run.remove("folder/1", false);
    run.rename("b", "e/b", 0);
    // Now somebody else comes along.
    for (path, text) in [
        ("d/a2", "theirs, longer"),
        ("new", "theirs"),
        ("sub", "theirs"),
        ("gone", "theirs!"),
    ] {
        fs::write(dir.join(path), text).unwrap();
        set_time(&dir.join(path), ELSE);
    }
    fs::write(dir.join("e/b"), "theirs").unwrap();
    set_time(&dir.join("e/b"), ELSE);
    old(dir);
}

const STORIES: [(&str, Story); 7] = [
    ("files", files),
    ("renames", renames),
    ("removals", removals),
    ("links", links),
    ("attributes", attributes),
    ("extended", extended),
    ("conflicts", conflicts),
];

#[test]
fn the_directory_is_afterwards_as_if_programs_had_worked_on_it() {
    for (what, story) in &STORIES[..6] {
        let plain = tempfile::tempdir().unwrap();
        tree(plain.path());
        story(&mut Plain(plain.path().to_path_buf()), plain.path());
        let (base, _, end) = session(*story, 0);
        end.unwrap();
        let (mut ours, mut wanted) = (state(base.path()), state(plain.path()));
        for (path, entry) in ours.iter_mut() {
            let Some(wanted) = wanted.get_mut(path) else {
                continue;
            };
            // What the session changed is younger, and so it is here.
            assert_eq!(
                entry.modified.0 == BEFORE,
                wanted.modified.0 == BEFORE,
                "{what}: {}",
                path.display()
            );
            (entry.modified, wanted.modified) = ((0, 0), (0, 0));
        }
        assert_same(&ours, &wanted, what);
        let sparse = fs::metadata(base.path().join("sparse")).unwrap();
        assert!(sparse.blocks() < 200, "{what}: holes are filled");
    }
}

#[test]
fn whatever_programs_do_to_names_is_what_is_there_afterwards() {
    for seed in 1..=150 {
        let plain = tempfile::tempdir().unwrap();
        tree(plain.path());
        let acts = random::acts(seed, plain.path());
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().canonicalize().unwrap();
        tree(&dir);
        let mut run = Run::new(&dir);
        acts.iter().for_each(|act| act.make(&mut run));
        run.settle_times();
        let report = run.engine.drain(true);
        assert!(
            report.errors.is_empty() && report.conflicts.is_empty(),
            "{seed}: {report:?}, {acts:#?}"
        );
        let (mut ours, mut wanted) = (state(&dir), state(plain.path()));
        for (path, entry) in &mut ours {
            let Some(wanted) = wanted.get_mut(path) else {
                continue;
            };
            let (new, should) = (entry.modified.0 != BEFORE, wanted.modified.0 != BEFORE);
            // What is in a directory may be back as it was.
            let is_directory = dir.join(path).is_dir() && !dir.join(path).is_symlink();
            assert!(
                new == should || (is_directory && should),
                "{seed}: {}, {acts:#?}",
                path.display()
            );
            (entry.modified, wanted.modified) = ((0, 0), (0, 0));
        }
        assert_same(&ours, &wanted, &format!("{seed}: {acts:#?}"));
        assert!(recover(&dir).is_empty());
    }
}

#[test]
fn what_somebody_else_has_changed_is_left_and_ours_goes_beside() {
    let (base, _, end) = session(conflicts, 0);
    end.unwrap();
    let content = |path: &str| fs::read_to_string(base.path().join(path)).unwrap_or_default();
    for (path, text) in [
        ("a", "theirs, longer"),
        ("a.capio", "oursent of a"),
        ("d/a2.capio", "oursent of a"),
        ("new", "theirs"),
        ("new.capio", "ours"),
        ("sub", "theirs"),
        ("sub.capio/f", "ours"),
        ("gone", "theirs!"),
        ("e/b", "theirs"),
        ("e/b.capio", "content of b"),
    ] {
        assert_eq!(content(path), text, "{path}");
    }
    let inode = |path: &str| fs::metadata(base.path().join(path)).unwrap().ino();
    assert_eq!(
        inode("a.capio"),
        inode("d/a2.capio"),
        "one file has become two"
    );
    assert!(!base.path().join("folder/1").exists() && !base.path().join("b").exists());
}

/// Runs `work` in a child that is killed at a step; whether it was, or how
/// many steps it took.
fn child(at: u64, work: impl FnOnce()) -> Result<u64, ()> {
    let (reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the child uses memory and files of its own, which glibc keeps
    // usable after a fork, and ends by `_exit`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                steps::die_at(at);
                work();
                use std::io::Write;
                (&writer).write_all(&steps::taken().to_le_bytes()).unwrap();
            }));
            // SAFETY: ends the process without what belongs to the parent.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            match waitpid(child, None).unwrap() {
                WaitStatus::Signaled(_, Signal::SIGKILL, _) => Err(()),
                WaitStatus::Exited(_, 0) => {
                    let mut taken = [0; 8];
                    use std::io::Read;
                    (&reader).read_exact(&mut taken).unwrap();
                    Ok(u64::from_le_bytes(taken))
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A directory in which the story's session ends, killed at step `at`.
fn session(story: Story, at: u64) -> (tempfile::TempDir, State, Result<u64, ()>) {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().canonicalize().unwrap();
    tree(&dir);
    let mut run = Run::new(&dir);
    story(&mut run, &dir);
    run.settle_times();
    let before = state(&dir);
    let end = child(at, || {
        let report = run.engine.drain(true);
        assert!(report.errors.len() <= 1, "{report:?}");
    });
    (base, before, end)
}

/// Recovers as the next session does; what that says.
fn recover(dir: &Path) -> Vec<String> {
    let notes = journal::recover(&dir.canonicalize().unwrap()).unwrap();
    let left = all_paths(dir);
    let left: Vec<_> = left
        .iter()
        .filter(|path| path.to_string_lossy().contains("/.capio"))
        .collect();
    assert!(left.is_empty(), "{left:?} are left behind");
    notes
}

/// Fails with what differs.
fn assert_same(now: &State, wanted: &State, what: &str) {
    for path in now.keys().chain(wanted.keys()) {
        assert_eq!(
            now.get(path),
            wanted.get(path),
            "{what}: {}",
            path.display()
        );
    }
}

/// Kills a session of the story at every step; how many there were.
fn kill_everywhere(what: &str, story: Story) -> u64 {
    let (base, before, end) = session(story, 0);
    let after = state(base.path());
    let steps = end.unwrap();
    assert_ne!(before, after);
    let (mut committed, mut torn) = (false, 0);
    for at in 1..=steps {
        let (base, before_now, end) = session(story, at);
        assert!(end.is_err(), "{what}: {at} of {steps}");
        assert_same(&before_now, &before, "the story is not always the same");
        let mut found = state(base.path());
        found.retain(|path, _| !path.to_string_lossy().starts_with(".capio"));
        torn += u32::from(found != before && found != after);
        let notes = recover(base.path());
        let expected = if what == "conflicts" { 7 } else { 1 };
        assert!(notes.len() <= expected, "{notes:?}");
        let now = state(base.path());
        let what = format!("{what}, killed at step {at} of {steps}");
        if !committed && now.keys().eq(before.keys()) && now == before {
            continue;
        }
        committed = true;
        assert_same(&now, &after, &what);
    }
    assert!(committed && torn > 0, "{what}: nothing was ever torn");
    steps
}

#[test]
fn a_coordinator_killed_at_any_step_leaves_all_results_or_none() {
    let threads: Vec<_> = STORIES
        .iter()
        .map(|(what, story)| std::thread::spawn(|| kill_everywhere(what, *story)))
        .collect();
    let points: u64 = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .sum();
    assert!(points >= 300, "only {points} kill points");
    eprintln!("{points} kill points");
}

#[test]
fn a_recovery_killed_at_any_step_can_be_done_again() {
    for (what, story) in [STORIES[1], STORIES[2], STORIES[5], STORIES[6]] {
        let (base, before, end) = session(story, 0);
        let after = state(base.path());
        let steps = end.unwrap();
        // In the middle of the changes.
        let first = steps - steps / 5;
        let mut at = 1;
        loop {
            let (base, ..) = session(story, first);
            let dir = base.path().canonicalize().unwrap();
            let recovered = child(at, || drop(journal::recover(&dir).unwrap()));
            recover(base.path());
            let now = state(base.path());
            if now != before {
                let what = format!("{what}: recovery killed at step {at}");
                assert_same(&now, &after, &what);
            }
            if recovered.is_ok() {
                break;
            }
            at += 1;
        }
        assert!(at > 5, "{what}: only {at} steps");
    }
}
