//! A session whose coordinator is killed at every step of writing its results:
//! the directory is then as before or as after, and nothing in between.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use wire::message::{Name, Target};

use super::super::arena::Arena;
use super::super::engine::{Client, Engine, Parts};
use super::super::journal::{self, tests as steps};
use super::super::names::{Inode, Names, Walk};
use super::super::opens::Watch;
use super::super::shm::Shared;
use crate::flow::{FailurePolicy, Flow, Rules};
use crate::session::{Keep, SessionConfig};

/// All that was there before has this time.
const BEFORE: i64 = 1_000_000_000;
/// What the session changes gets this one.
const AFTER: i64 = 1_500_000_000;
/// What somebody else changes gets this one.
const ELSE: i64 = 1_400_000_000;

struct NoRules;

impl Rules for NoRules {
    fn step_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn rules_for(&self, path: &[u8]) -> capio_specs::PathRules {
        capio_specs::Spec::empty("test").rules_for(path)
    }

    fn steps_below(&self, _dir: &[u8]) -> crate::flow::Below {
        crate::flow::Below::default()
    }
}

/// An engine without sockets and threads, and the calls of one client.
struct Run {
    engine: Engine,
    client: Client,
    _session: tempfile::TempDir,
}

impl Run {
    fn new(dir: &Path) -> Self {
        let session = tempfile::tempdir().unwrap();
        let at = session.path();
        for part in [
            wire::place::OPEN,
            wire::place::RESERVED,
            wire::place::SPECIAL,
        ] {
            fs::create_dir(at.join(part)).unwrap();
        }
        let config = SessionConfig {
            dir: dir.to_path_buf(),
            workflow: "kill".into(),
            spec: None,
            cache_bytes: 16 << 20,
            store: None,
            keep: Keep::All,
            keep_on_failure: false,
            strict: false,
            supervised: true,
            step_grace: Duration::ZERO,
            continue_on_error: false,
            shim: PathBuf::new(),
        };
        let shared = Arc::new(Shared::create(config.cache_bytes, 1, 1).unwrap());
        let mut flow = Flow::new(Arc::new(NoRules), FailurePolicy::default());
        let step = flow.step("a");
        let parts = Parts {
            flow,
            names: Names::new(dir, &at.join(wire::place::SHADOW)).unwrap(),
            watch: Watch::new(at).unwrap(),
            config,
            spec: Arc::new(capio_specs::Spec::empty("test")),
            session: at.to_path_buf(),
            arena: Arc::new(Arena::new(Arc::clone(&shared))),
            shared,
        };
        let client = Client {
            process: 0,
            generation: 0,
            step,
        };
        Self {
            engine: Engine::new(parts),
            client,
            _session: session,
        }
    }

    fn find(&mut self, path: &str) -> Inode {
        match self.engine.walk(0, path.as_bytes(), false) {
            Walk::Found { inode, .. } => inode,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// Everything that has changed since has one time.
    fn settle_times(&mut self) {
        let inodes: Vec<_> = self.engine.names.iter().map(|node| node.inode).collect();
        for inode in inodes {
            let Some(node) = self.engine.names.get_mut(inode) else {
                continue;
            };
            for time in [&mut node.attr.modified, &mut node.attr.accessed] {
                if *time > ELSE * 1_000_000_000 {
                    *time = AFTER * 1_000_000_000 + 123_456_789;
                }
            }
            if let Some(record) = node.file().and_then(|file| file.record) {
                let mut attr = self.engine.records.attr(record);
                if attr.modified > ELSE * 1_000_000_000 {
                    attr.modified = AFTER * 1_000_000_000 + 987_654_321;
                }
                self.engine.records.set_attr(record, &attr);
            }
        }
    }
}

impl Calls for Run {
    fn write(&mut self, path: &str, offset: u64, content: &[u8]) {
        let record = match self.engine.walk(0, path.as_bytes(), true) {
            Walk::Missing {
                parent, name, path, ..
            } => {
                let parent = parent.unwrap();
                let made = self.engine.create(self.client, parent, name, &path, 0o640);
                self.engine.copy_up(made.unwrap(), false).unwrap()
            }
            Walk::Found { inode, .. } => self.engine.copy_up(inode, false).unwrap(),
            other => panic!("{path}: {other:?}"),
        };
        self.engine.records.write(record, offset, content).unwrap();
        let inode = self.find(path);
        self.engine.modified(inode, record);
    }

    fn mkdir(&mut self, path: &str) {
        self.engine.mkdir(self.client, name(path), 0o750).unwrap();
    }

    fn remove(&mut self, path: &str, directory: bool) {
        let removed = self.engine.unlink(self.client, name(path), directory);
        removed.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    fn rename(&mut self, from: &str, to: &str, flags: u32) {
        let (from, to) = (name(from), name(to));
        self.engine.rename(self.client, from, to, flags).unwrap();
    }

    fn link(&mut self, path: &str, to: &str) {
        let target = Target::Path {
            name: name(path),
            follow: false,
        };
        self.engine.link(self.client, target, name(to)).unwrap();
    }

    fn symlink(&mut self, content: &str, path: &str) {
        let content = content.as_bytes();
        self.engine
            .symlink(self.client, content, name(path))
            .unwrap();
    }

    fn chmod(&mut self, path: &str, mode: u32) {
        let target = Target::Path {
            name: name(path),
            follow: false,
        };
        self.engine.chmod(self.client, target, mode).unwrap();
    }

    fn chown(&mut self, path: &str, (uid, gid): (u32, u32)) {
        let target = Target::Path {
            name: name(path),
            follow: false,
        };
        self.engine.chown(self.client, target, uid, gid).unwrap();
    }

    fn pipe(&mut self, path: &str) {
        let mode = libc::S_IFIFO | 0o620;
        self.engine.mknod(self.client, name(path), mode, 0).unwrap();
    }
}

fn name(path: &str) -> Name<'_> {
    let path = path.as_bytes();
    Name { base: 0, path }
}

fn set_time(path: &Path, seconds: i64) {
    let time = TimeSpec::new(seconds, 5);
    let flags = UtimensatFlags::NoFollowSymlink;
    utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, flags).unwrap();
}

/// Every path below `dir`.
fn all_paths(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.clone());
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(all_paths(&path));
        }
    }
    found
}

/// All that can be told of an entry.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    content: Vec<u8>,
    extended: Vec<(OsString, Vec<u8>)>,
    /// The first path with the same inode.
    same_as: PathBuf,
    links: u64,
}

type State = BTreeMap<PathBuf, Entry>;

fn state(dir: &Path) -> State {
    let mut paths = all_paths(dir);
    paths.sort();
    let mut first = BTreeMap::new();
    let mut state = State::new();
    for path in paths {
        let meta = path.symlink_metadata().unwrap();
        let relative = path.strip_prefix(dir).unwrap().to_path_buf();
        let content = if meta.is_file() {
            fs::read(&path).unwrap()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_vec()
        } else {
            Vec::new()
        };
        let mut extended: Vec<_> = if meta.is_file() || meta.is_dir() {
            let names = xattr::list(&path).unwrap();
            names
                .map(|name| (name.clone(), xattr::get(&path, name).unwrap().unwrap()))
                .collect()
        } else {
            Vec::new()
        };
        extended.sort();
        let entry = Entry {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            content,
            extended,
            same_as: first.entry(meta.ino()).or_insert(relative.clone()).clone(),
            links: if meta.is_dir() { 0 } else { meta.nlink() },
        };
        state.insert(relative, entry);
    }
    state
}

/// What is there before: files, two names of one file, directories, links.
fn tree(dir: &Path) {
    for sub in ["d/deep", "folder/sub", "e"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    for file in [
        "a",
        "b",
        "gone",
        "d/x",
        "d/deep/y",
        "folder/1",
        "folder/sub/2",
        "turns",
    ] {
        fs::write(dir.join(file), format!("content of {file}")).unwrap();
    }
    fs::hard_link(dir.join("a"), dir.join("d/a2")).unwrap();
    symlink("a", dir.join("link")).unwrap();
    symlink("nowhere", dir.join("d/dangling")).unwrap();
    xattr::set(dir.join("a"), "user.origin", b"lab").unwrap();
    xattr::set(dir.join("d"), "user.color", b"blue").unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 2 << 20).unwrap();
    fs::set_permissions(dir.join("b"), fs::Permissions::from_mode(0o4755)).unwrap();
    old(dir);
}

/// The calls of a program, below a session or on the plain file system.
trait Calls {
    fn write(&mut self, path: &str, offset: u64, content: &[u8]);
    fn mkdir(&mut self, path: &str);
    fn remove(&mut self, path: &str, directory: bool);
    fn rename(&mut self, from: &str, to: &str, flags: u32);
    fn link(&mut self, path: &str, to: &str);
    fn symlink(&mut self, content: &str, path: &str);
    fn chmod(&mut self, path: &str, mode: u32);
    fn chown(&mut self, path: &str, owner: (u32, u32));
    fn pipe(&mut self, path: &str);
}

/// The plain file system.
struct Plain(PathBuf);

impl Calls for Plain {
    fn write(&mut self, path: &str, offset: u64, content: &[u8]) {
        let mut options = fs::File::options();
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.0.join(path);
        let is_new = !path.exists();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        let file = file.unwrap();
        if is_new {
            file.set_permissions(fs::Permissions::from_mode(0o640))
                .unwrap();
        }
        let mode = file.metadata().unwrap().permissions();
        file.write_all_at(content, offset).unwrap();
        // The kernel clears set-id bits; here nobody wrote by a descriptor.
        file.set_permissions(mode).unwrap();
    }

    fn mkdir(&mut self, path: &str) {
        fs::create_dir(self.0.join(path)).unwrap();
        self.chmod(path, 0o750);
    }

    fn remove(&mut self, path: &str, directory: bool) {
        let path = self.0.join(path);
        let removed = if directory {
            fs::remove_dir(path)
        } else {
            fs::remove_file(path)
        };
        removed.unwrap();
    }

    fn rename(&mut self, from: &str, to: &str, flags: u32) {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        let (from, to) = (self.0.join(from), self.0.join(to));
        let flags = RenameFlags::from_bits_truncate(flags);
        renameat2(AT_FDCWD, &from, AT_FDCWD, &to, flags).unwrap();
    }

    fn link(&mut self, path: &str, to: &str) {
        fs::hard_link(self.0.join(path), self.0.join(to)).unwrap();
    }

    fn symlink(&mut self, content: &str, path: &str) {
        symlink(content, self.0.join(path)).unwrap();
    }

    fn chmod(&mut self, path: &str, mode: u32) {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.0.join(path), mode).unwrap();
    }

    fn chown(&mut self, path: &str, (uid, gid): (u32, u32)) {
        std::os::unix::fs::lchown(self.0.join(path), Some(uid), Some(gid)).unwrap();
    }

    fn pipe(&mut self, path: &str) {
        use nix::sys::stat::Mode;
        nix::unistd::mkfifo(&self.0.join(path), Mode::from_bits_truncate(0o600)).unwrap();
        self.chmod(path, 0o620);
    }
}

/// Everything is old, whatever was done to it.
fn old(dir: &Path) {
    for path in all_paths(dir) {
        if path.symlink_metadata().unwrap().mtime() != ELSE {
            set_time(&path, BEFORE);
        }
    }
}

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

const STORIES: [(&str, Story); 6] = [
    ("files", files),
    ("renames", renames),
    ("removals", removals),
    ("links", links),
    ("attributes", attributes),
    ("conflicts", conflicts),
];

#[test]
fn the_directory_is_afterwards_as_if_programs_had_worked_on_it() {
    for (what, story) in &STORIES[..5] {
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
    for (what, story) in [STORIES[1], STORIES[2], STORIES[5]] {
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
