//! An engine alone, the calls of programs, and all that can be told of a
//! directory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use wire::message::{Name, Target};

use super::super::super::arena::Arena;
use super::super::super::engine::{Client, Engine, Parts};
use super::super::super::names::{Inode, Names, Walk};
use super::super::super::opens::Watch;
use super::super::super::shm::Shared;
use crate::flow::{FailurePolicy, Flow, Rules};
use crate::session::{Keep, SessionConfig};

/// All that was there before has this time.
pub(super) const BEFORE: i64 = 1_000_000_000;
/// What the session changes gets this one.
pub(super) const AFTER: i64 = 1_500_000_000;
/// What somebody else changes gets this one.
pub(super) const ELSE: i64 = 1_400_000_000;

pub(super) struct NoRules;

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
pub(super) struct Run {
    pub(super) engine: Engine,
    client: Client,
    _session: tempfile::TempDir,
}

impl Run {
    pub(super) fn new(dir: &Path) -> Self {
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
            store_bytes: 0,
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
    pub(super) fn settle_times(&mut self) {
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

    fn extend(&mut self, path: &str, name: &str, value: &[u8]) {
        let (engine, target) = (&mut self.engine, itself(path));
        engine.set_xattr(target, name.as_bytes(), value, 0).unwrap();
    }

    fn shorten(&mut self, path: &str, name: &str) {
        let target = itself(path);
        self.engine.remove_xattr(target, name.as_bytes()).unwrap();
    }

    fn pipe(&mut self, path: &str) {
        let mode = libc::S_IFIFO | 0o620;
        self.engine.mknod(self.client, name(path), mode, 0).unwrap();
    }
}

pub(super) fn name(path: &str) -> Name<'_> {
    let path = path.as_bytes();
    Name { base: 0, path }
}

fn itself(path: &str) -> Target<'_> {
    let (name, follow) = (name(path), false);
    Target::Path { name, follow }
}

pub(super) fn set_time(path: &Path, seconds: i64) {
    let time = TimeSpec::new(seconds, 5);
    let flags = UtimensatFlags::NoFollowSymlink;
    utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, flags).unwrap();
}

/// Every path below `dir`.
pub(super) fn all_paths(dir: &Path) -> Vec<PathBuf> {
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
pub(super) struct Entry {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) modified: (i64, i64),
    pub(super) content: Vec<u8>,
    pub(super) extended: Vec<(OsString, Vec<u8>)>,
    /// The first path with the same inode.
    pub(super) same_as: PathBuf,
    pub(super) links: u64,
}

pub(super) type State = BTreeMap<PathBuf, Entry>;

pub(super) fn state(dir: &Path) -> State {
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
        let names = xattr::list(&path).unwrap();
        let mut extended: Vec<_> = names
            .map(|name| (name.clone(), xattr::get(&path, name).unwrap().unwrap()))
            .collect();
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
pub(super) fn tree(dir: &Path) {
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
pub(super) trait Calls {
    fn write(&mut self, path: &str, offset: u64, content: &[u8]);
    fn mkdir(&mut self, path: &str);
    fn remove(&mut self, path: &str, directory: bool);
    fn rename(&mut self, from: &str, to: &str, flags: u32);
    fn link(&mut self, path: &str, to: &str);
    fn symlink(&mut self, content: &str, path: &str);
    fn chmod(&mut self, path: &str, mode: u32);
    fn chown(&mut self, path: &str, owner: (u32, u32));
    /// Sets an extended attribute of what is at `path` itself.
    fn extend(&mut self, path: &str, name: &str, value: &[u8]);
    /// Takes one away.
    fn shorten(&mut self, path: &str, name: &str);
    fn pipe(&mut self, path: &str);
}

/// The plain file system.
pub(super) struct Plain(pub(super) PathBuf);

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

    fn extend(&mut self, path: &str, name: &str, value: &[u8]) {
        xattr::set(self.0.join(path), name, value).unwrap();
    }

    fn shorten(&mut self, path: &str, name: &str) {
        xattr::remove(self.0.join(path), name).unwrap();
    }

    fn pipe(&mut self, path: &str) {
        use nix::sys::stat::Mode;
        nix::unistd::mkfifo(&self.0.join(path), Mode::from_bits_truncate(0o600)).unwrap();
        self.chmod(path, 0o620);
    }
}

/// Everything is old, whatever was done to it.
pub(super) fn old(dir: &Path) {
    for path in all_paths(dir) {
        if path.symlink_metadata().unwrap().mtime() != ELSE {
            set_time(&path, BEFORE);
        }
    }
}
