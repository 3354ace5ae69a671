//! The namespace below `CAPIO_DIR`: directories, names, symbolic links, and
//! the lower layer that shows through.
//!
//! Every directory has a *shadow* on the session's tmpfs, so that working
//! directories and directory descriptors are the kernel's; a directory's inode
//! number is its shadow's. All other inode numbers count up from 2^40 and never
//! repeat.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::unistd::{PathconfVar, pathconf};

use wire::limits::MAX_PATH;

use super::detour;
use super::extended::Extended;
use super::journal::{self, Found};
use super::known::NameTable;
use crate::flow::StepId;
use crate::session::FileName;

/// A number that names a file or directory for the whole session.
pub(super) type Inode = u64;

/// First inode number of what is no directory.
const FIRST_INODE: Inode = 1 << 40;
/// Symbolic links followed before `ELOOP`, as in the kernel.
pub(super) const MAX_LINKS: u32 = 40;
/// First cookie of a directory's entries; those below stand for `.` and `..`.
const FIRST_COOKIE: u64 = 16;

/// How many names the file system of `dir` gives a file.
fn most_names(dir: &Path) -> usize {
    let limit = pathconf(dir, PathconfVar::LINK_MAX).ok().flatten();
    limit.map_or(usize::MAX, |limit| limit as usize)
}

/// Nanoseconds since the epoch.
#[must_use]
pub(super) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Owner, permissions and times. For a file in the cache the file record has
/// the valid ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attr {
    /// Permission bits, without the type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Access time, ns since the epoch.
    pub accessed: i64,
    /// Modification time.
    pub modified: i64,
    /// Change time.
    pub changed: i64,
    /// Time of birth.
    pub born: i64,
}

impl Attr {
    /// Of something made now.
    #[must_use]
    pub(super) fn fresh(mode: u32, uid: u32, gid: u32) -> Self {
        let now = now();
        Self {
            mode: mode & 0o7777,
            uid,
            gid,
            accessed: now,
            modified: now,
            changed: now,
            born: now,
        }
    }

    /// Of something on disk.
    #[must_use]
    pub(super) fn of(meta: &fs::Metadata) -> Self {
        let changed = meta.ctime() * 1_000_000_000 + meta.ctime_nsec();
        Self {
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            accessed: meta.atime() * 1_000_000_000 + meta.atime_nsec(),
            modified: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            changed,
            born: changed,
        }
    }
}

/// A plain file.
#[derive(Debug, Default)]
pub(super) struct FileNode {
    /// Its file record when its content is in the cache.
    pub record: Option<u32>,
    /// Where it lies on disk.
    pub lower: Option<PathBuf>,
    /// What was there when it was found, or when its content was brought into
    /// the cache: see [`seen`].
    pub seen: Option<Seen>,
    /// Step that made it.
    pub creator: Option<StepId>,
    /// Content or attributes differ from what is on disk.
    pub modified: bool,
    /// Some other step than its creator has opened it for reading.
    pub consumed: bool,
    /// Open file descriptions.
    pub open: u32,
    /// Those of them that may write.
    pub writers: u32,
}

/// An entry of a directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Name.
    pub name: Vec<u8>,
    /// What it names.
    pub inode: Inode,
    /// `DT_*`.
    pub kind: u8,
}

/// A directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    entries: BTreeMap<u64, Entry>,
    by_name: HashMap<Vec<u8>, u64>,
    next_cookie: u64,
    subdirectories: u32,
    /// Where it lies on disk.
    pub lower: Option<PathBuf>,
    /// Owner, permissions or times differ from what is on disk.
    pub changed: bool,
    loaded: bool,
}

impl Directory {
    /// Entries after `cookie`, in the order of their making.
    pub(super) fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries
            .range(cookie.saturating_add(1)..)
            .map(|(cookie, entry)| (*cookie, entry))
    }

    /// Whether it has no entry.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of its entries that are directories.
    #[must_use]
    pub(super) fn subdirectories(&self) -> u32 {
        self.subdirectories
    }

    fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.entries.get(self.by_name.get(name)?)
    }

    fn insert(&mut self, entry: Entry) {
        let cookie = self.next_cookie.max(FIRST_COOKIE);
        self.next_cookie = cookie + 1;
        self.subdirectories += u32::from(entry.kind == libc::DT_DIR);
        self.by_name.insert(entry.name.clone(), cookie);
        self.entries.insert(cookie, entry);
    }

    fn remove(&mut self, name: &[u8]) -> Option<Entry> {
        let entry = self.entries.remove(&self.by_name.remove(name)?)?;
        self.subdirectories -= u32::from(entry.kind == libc::DT_DIR);
        Some(entry)
    }
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Kind {
    /// A plain file.
    File(FileNode),
    /// A directory.
    Directory(Directory),
    /// A symbolic link with its content.
    Symlink(Vec<u8>),
    /// A named pipe, socket or device: lives in the kernel at this path.
    Special {
        /// Type as in `st_mode`.
        format: u32,
        /// Where the kernel has it.
        path: PathBuf,
    },
}

/// Something that has an inode number.
#[derive(Debug)]
pub(super) struct Node {
    /// Its number.
    pub inode: Inode,
    /// Owner, permissions, times.
    pub attr: Attr,
    /// What it is.
    pub kind: Kind,
    /// Its names: directory and name. One for a directory.
    pub names: Vec<(Inode, Vec<u8>)>,
    /// Its extended attributes, if they differ from those on disk:
    /// [`Names::set_extended`].
    pub extended: Option<Extended>,
}

impl Node {
    /// `DT_*`.
    #[must_use]
    pub(super) fn entry_kind(&self) -> u8 {
        (self.format() >> 12) as u8
    }

    /// `S_IFMT` bits of `st_mode`.
    #[must_use]
    pub(super) fn format(&self) -> u32 {
        match &self.kind {
            Kind::File(_) => libc::S_IFREG,
            Kind::Directory(_) => libc::S_IFDIR,
            Kind::Symlink(_) => libc::S_IFLNK,
            Kind::Special { format, .. } => *format,
        }
    }

    /// Its plain file.
    #[must_use]
    pub(super) fn file(&self) -> Option<&FileNode> {
        if let Kind::File(file) = &self.kind {
            Some(file)
        } else {
            None
        }
    }

    /// Its directory.
    #[must_use]
    pub(super) fn directory(&self) -> Option<&Directory> {
        if let Kind::Directory(directory) = &self.kind {
            Some(directory)
        } else {
            None
        }
    }
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// To something that exists.
    Found {
        /// What.
        inode: Inode,
        /// Directory of the name; the root's is itself.
        parent: Inode,
        /// Name in it; empty for the root.
        name: Vec<u8>,
    },
    /// To nothing (yet).
    Missing {
        /// The directory that would hold it; `None`: that is missing, too.
        parent: Option<Inode>,
        /// Last component.
        name: Vec<u8>,
        /// The whole absolute path.
        path: Vec<u8>,
        /// A slash follows: only a directory would do.
        slash: bool,
    },
    /// Out of `CAPIO_DIR`, to this absolute path.
    Outside(Vec<u8>),
    /// An error number.
    Error(i32),
}

/// What was at a path on disk whose name is gone in the session.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    /// As the session had found it.
    pub found: Found,
    /// What it is in the session, by another name or none.
    pub inode: Inode,
}

/// The namespace.
pub(super) struct Names {
    nodes: HashMap<Inode, Node>,
    next: Inode,
    root: Inode,
    dir: PathBuf,
    shadow: PathBuf,
    lower: HashMap<(u64, u64), Inode>,
    /// Paths on disk whose names are gone in the session.
    removed: BTreeMap<PathBuf, Gone>,
    /// What `Names` found in the lower layer since last asked.
    found: Vec<Inode>,
    /// All of the lower layer was looked at.
    whole: bool,
    /// Bytes of all extended attributes that nodes hold.
    extended_bytes: usize,
    /// Most names of a file that the disk takes: what had more could not be kept.
    most_names: usize,
    /// What programs may look at without asking.
    pub(super) table: Option<NameTable>,
}

impl Names {
    /// The namespace of directory `dir` with shadows below `shadow`.
    ///
    /// # Errors
    /// When `dir` cannot be read or the shadow not made.
    pub(super) fn new(dir: &Path, shadow: &Path) -> io::Result<Self> {
        let meta = fs::metadata(dir)?;
        fs::DirBuilder::new().mode(0o700).create(shadow)?;
        let root = fs::metadata(shadow)?.ino();
        let directory = Directory {
            lower: Some(dir.to_path_buf()),
            ..Directory::default()
        };
        let node = Node {
            inode: root,
            attr: Attr::of(&meta),
            kind: Kind::Directory(directory),
            names: Vec::new(),
            extended: None,
        };
        Ok(Self {
            nodes: HashMap::from([(root, node)]),
            next: FIRST_INODE,
            root,
            dir: dir.to_path_buf(),
            shadow: shadow.to_path_buf(),
            lower: HashMap::new(),
            removed: BTreeMap::new(),
            found: Vec::new(),
            whole: false,
            extended_bytes: 0,
            most_names: most_names(dir),
            table: None,
        })
    }

    /// `CAPIO_DIR`.
    #[must_use]
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its inode.
    #[must_use]
    pub(super) fn root(&self) -> Inode {
        self.root
    }

    /// The node of `inode`.
    #[must_use]
    pub(super) fn get(&self, inode: Inode) -> Option<&Node> {
        self.nodes.get(&inode)
    }

    /// The node of `inode`, to change.
    pub(super) fn get_mut(&mut self, inode: Inode) -> Option<&mut Node> {
        self.forget_attributes(inode);
        self.nodes.get_mut(&inode)
    }

    /// Attributes of `inode` are about to change: programs ask for them again.
    fn forget_attributes(&mut self, inode: Inode) {
        if let Some(table) = &mut self.table {
            table.forget_attributes(inode);
        }
    }

    /// What programs know of the names of `inode` does not hold any more.
    pub(super) fn forget_names(&mut self, inode: Inode) {
        let names = self.nodes.get(&inode).map(|node| &node.names);
        if let (Some(table), Some(names)) = (&mut self.table, names) {
            names
                .iter()
                .for_each(|(parent, name)| table.remove(*parent, name));
        }
    }

    /// The plain file `inode`.
    pub(super) fn file_mut(&mut self, inode: Inode) -> Option<&mut FileNode> {
        match self.nodes.get_mut(&inode)?.kind {
            Kind::File(ref mut file) => Some(file),
            _ => None,
        }
    }

    /// The directory `inode`.
    #[must_use]
    pub(super) fn directory(&self, inode: Inode) -> Option<&Directory> {
        self.nodes.get(&inode)?.directory()
    }

    fn directory_mut(&mut self, inode: Inode) -> Option<&mut Directory> {
        self.forget_attributes(inode);
        match self.nodes.get_mut(&inode)?.kind {
            Kind::Directory(ref mut directory) => Some(directory),
            _ => None,
        }
    }

    /// Replaces the extended attributes of `inode`.
    pub(super) fn set_extended(&mut self, inode: Inode, extended: Extended) {
        let Some(node) = self.nodes.get_mut(&inode) else {
            return;
        };
        let bytes = extended.bytes();
        let before = node.extended.replace(extended);
        self.extended_bytes += bytes;
        self.extended_bytes -= before.map_or(0, |before| before.bytes());
    }

    /// Bytes of all extended attributes that differ from those on disk.
    #[must_use]
    pub(super) fn extended_bytes(&self) -> usize {
        self.extended_bytes
    }

    /// Where what the session found as `inode` lies on disk.
    #[must_use]
    pub(super) fn on_disk(&self, inode: Inode) -> Option<PathBuf> {
        match &self.nodes.get(&inode)?.kind {
            Kind::File(file) => file.lower.clone(),
            Kind::Directory(directory) => directory.lower.clone(),
            Kind::Symlink(_) | Kind::Special { .. } => {
                let lost = self.removed.iter().filter(|(_, gone)| gone.inode == inode);
                let lost = lost.map(|(path, _)| path.clone());
                let named = self.paths_of(inode).into_iter();
                let named = named.map(|path| PathBuf::from(OsString::from_vec(path)));
                let mut ways = named.chain(lost);
                ways.find(|path| {
                    let meta = path.symlink_metadata();
                    meta.is_ok_and(|meta| self.is_original(inode, &meta))
                })
            }
        }
    }

    /// All nodes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Paths on disk whose names are gone.
    pub(super) fn removed(&self) -> &BTreeMap<PathBuf, Gone> {
        &self.removed
    }

    /// All that was found in the lower layer.
    #[must_use]
    pub(super) fn found_on_disk(&self) -> HashSet<Inode> {
        self.lower.values().copied().collect()
    }

    /// Whether what `meta` tells of is `inode` as it was found on disk.
    #[must_use]
    pub(super) fn is_original(&self, inode: Inode, meta: &fs::Metadata) -> bool {
        self.lower.get(&(meta.dev(), meta.ino())) == Some(&inode)
    }

    /// Files and directories seen in the lower layer for the first time since
    /// the last call.
    pub(super) fn take_found(&mut self) -> Vec<Inode> {
        std::mem::take(&mut self.found)
    }

    fn relative_of(&self, inode: Inode) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = inode;
        while at != self.root {
            let Some((parent, name)) = self.nodes.get(&at).and_then(|node| node.names.first())
            else {
                break;
            };
            parts.push(name);
            at = *parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// The absolute path of `inode` by its first name.
    #[must_use]
    pub(super) fn path_of(&self, inode: Inode) -> Vec<u8> {
        join(self.dir.as_os_str().as_bytes(), &self.relative_of(inode))
    }

    /// The absolute path of `name` in directory `parent`.
    #[must_use]
    pub(super) fn path_in(&self, parent: Inode, name: &[u8]) -> Vec<u8> {
        join(&self.path_of(parent), name)
    }

    /// All absolute paths of `inode`.
    #[must_use]
    pub(super) fn paths_of(&self, inode: Inode) -> Vec<Vec<u8>> {
        let names = self
            .nodes
            .get(&inode)
            .map(|node| node.names.as_slice())
            .unwrap_or_default();
        names
            .iter()
            .map(|(parent, name)| self.path_in(*parent, name))
            .collect()
    }

    /// Where the kernel has directory `inode`.
    #[must_use]
    pub(super) fn shadow_of(&self, inode: Inode) -> PathBuf {
        let relative = self.relative_of(inode);
        if relative.is_empty() {
            return self.shadow.clone();
        }
        self.shadow.join(OsStr::from_bytes(&relative))
    }

    /// Follows `path` from directory `base` (0: the root). `follow`: through a
    /// symbolic link at its end, too.
    pub(super) fn walk(&mut self, base: Inode, path: &[u8], follow: bool) -> Walk {
        let mut at = if base == 0 { self.root } else { base };
        let mut rest = path.to_vec();
        let mut links = 0;
        let mut last = (at, Vec::new());
        loop {
            let (component, tail) = split(&rest);
            if component.is_empty() {
                let (parent, name) = last;
                return Walk::Found {
                    inode: at,
                    parent,
                    name,
                };
            }
            let Some(directory) = self.nodes.get(&at) else {
                return Walk::Error(libc::ENOENT);
            };
            if directory.directory().is_none() {
                return Walk::Error(libc::ENOTDIR);
            }
            if component == b"." {
                rest = tail.to_vec();
                continue;
            }
            if component == b".." {
                if at == self.root {
                    let above = self.dir.parent().unwrap_or(Path::new("/"));
                    let whole = join(above.as_os_str().as_bytes(), tail);
                    let Some(inner) = detour::back(&self.dir, &whole, follow, &mut links) else {
                        return Walk::Outside(whole);
                    };
                    (rest, last) = (inner, (at, Vec::new()));
                    continue;
                }
                at = directory
                    .names
                    .first()
                    .map_or(self.root, |(parent, _)| *parent);
                last = (at, Vec::new());
                rest = tail.to_vec();
                continue;
            }
            if component.len() > 255 {
                return Walk::Error(libc::ENAMETOOLONG);
            }
            if component.contains(&0) {
                return Walk::Error(libc::EINVAL);
            }
            let Some(inode) = self.lookup(at, component) else {
                return self.missing(at, component, tail);
            };
            let is_last = split(tail).0.is_empty();
            let through = !is_last || follow || !tail.is_empty();
            if let Some(Kind::Symlink(content)) = self.nodes.get(&inode).map(|node| &node.kind)
                && through
            {
                links += 1;
                if links > MAX_LINKS {
                    return Walk::Error(libc::ELOOP);
                }
                let whole = join(content, tail);
                if content.starts_with(b"/") {
                    let Some(inner) = detour::back(&self.dir, &whole, follow, &mut links) else {
                        return Walk::Outside(whole);
                    };
                    rest = inner;
                    at = self.root;
                    last = (at, Vec::new());
                } else {
                    rest = whole;
                }
                continue;
            }
            if !tail.is_empty() && self.directory(inode).is_none() {
                return Walk::Error(libc::ENOTDIR);
            }
            last = (at, component.to_vec());
            at = inode;
            rest = tail.to_vec();
        }
    }

    fn missing(&self, at: Inode, component: &[u8], tail: &[u8]) -> Walk {
        let path = self.path_in(at, component);
        if path.len() >= MAX_PATH {
            // Nobody could name it where it is to be kept.
            return Walk::Error(libc::ENAMETOOLONG);
        }
        if split(tail).0.is_empty() {
            let name = component.to_vec();
            return Walk::Missing {
                parent: Some(at),
                name,
                path,
                slash: !tail.is_empty(),
            };
        }
        Walk::Missing {
            parent: None,
            name: Vec::new(),
            path: append(path, tail),
            slash: false,
        }
    }

    /// What `name` in directory `parent` is.
    pub(super) fn lookup(&mut self, parent: Inode, name: &[u8]) -> Option<Inode> {
        self.load_if_directory(parent);
        self.directory(parent)?.get(name).map(|entry| entry.inode)
    }

    /// Reads a directory's lower entries, the first time.
    pub(super) fn load_if_directory(&mut self, inode: Inode) {
        if self.directory(inode).is_none_or(|known| known.loaded) {
            return;
        }
        let Some(directory) = self.directory_mut(inode) else {
            return;
        };
        if std::mem::replace(&mut directory.loaded, true) {
            return;
        }
        let Some(path) = directory.lower.clone() else {
            return;
        };
        let Ok(listing) = fs::read_dir(&path) else {
            return;
        };
        let mut names: Vec<_> = listing.flatten().map(|entry| entry.file_name()).collect();
        names.retain(|name| !journal::is_reserved(name.as_bytes()));
        names.sort_unstable();
        for name in names {
            self.load_entry(inode, &path.join(&name), name.into_vec());
        }
    }

    /// Takes in what has appeared on disk as `name` in `parent`, if it is new.
    pub(super) fn appeared(&mut self, parent: Inode, path: &Path, name: &[u8]) {
        let is_new = self.directory(parent).map(|dir| dir.get(name).is_none());
        if is_new == Some(true) && !journal::is_reserved(name) {
            self.load_entry(parent, path, name.to_vec());
        }
    }

    /// Forgets a name that has vanished from the disk, and what had no other.
    pub(super) fn vanished(&mut self, parent: Inode, name: &[u8]) -> Option<Inode> {
        let inode = self.lookup(parent, name)?;
        if self.directory(inode).is_some() {
            self.remove_shadow(inode).ok()?;
        }
        self.unbind(parent, name)
    }

    fn load_entry(&mut self, parent: Inode, path: &Path, name: Vec<u8>) {
        let Ok(meta) = fs::symlink_metadata(path) else {
            return;
        };
        let identity = (meta.dev(), meta.ino());
        let known = self
            .lower
            .get(&identity)
            .copied()
            .filter(|inode| !meta.is_dir() && self.nodes.contains_key(inode));
        if let Some(inode) = known {
            self.bind(parent, name, inode);
            self.found.push(inode);
            return;
        }
        let Some(kind) = lower_kind(path, &meta) else {
            return;
        };
        if let Ok(inode) = self.make(parent, name, kind, Attr::of(&meta)) {
            self.lower.insert(identity, inode);
            self.found.push(inode);
        }
    }

    /// Makes a node named `name` in `parent`.
    ///
    /// # Errors
    /// What the kernel says of the shadow directory.
    pub(super) fn make(
        &mut self,
        parent: Inode,
        name: Vec<u8>,
        kind: Kind,
        attr: Attr,
    ) -> io::Result<Inode> {
        let inode = if matches!(kind, Kind::Directory(_)) {
            let shadow = self.shadow_of(parent).join(OsStr::from_bytes(&name));
            fs::DirBuilder::new().mode(0o700).create(&shadow)?;
            fs::metadata(&shadow)?.ino()
        } else {
            self.next += 1;
            self.next - 1
        };
        self.nodes.insert(
            inode,
            Node {
                inode,
                attr,
                kind,
                names: Vec::new(),
                extended: None,
            },
        );
        self.bind(parent, name, inode);
        Ok(inode)
    }

    /// Whether `inode` has as many names as a file may have.
    pub(super) fn is_full(&self, inode: Inode) -> bool {
        let node = self.nodes.get(&inode);
        node.is_some_and(|node| node.names.len() >= self.most_names)
    }

    /// Gives `inode` one more name.
    pub(super) fn bind(&mut self, parent: Inode, name: Vec<u8>, inode: Inode) {
        // A file on disk is known by its only name.
        let is_second = self.nodes.get(&inode).is_some_and(|it| it.names.len() == 1);
        if is_second {
            self.forget_names(inode);
        }
        if let Some(table) = &mut self.table {
            table.remove(parent, &name);
        }
        let Some(node) = self.nodes.get_mut(&inode) else {
            return;
        };
        node.names.push((parent, name.clone()));
        let entry = Entry {
            name,
            inode,
            kind: node.entry_kind(),
        };
        if let Some(directory) = self.directory_mut(parent) {
            directory.insert(entry);
        }
    }

    /// Marks a change of directory `inode`'s entries.
    pub(super) fn touch(&mut self, inode: Inode) {
        if let Some(node) = self.get_mut(inode) {
            node.attr.modified = now();
            node.attr.changed = node.attr.modified;
        }
    }

    /// Takes a name away; what it named stays until [`Names::drop_node`].
    pub(super) fn unbind(&mut self, parent: Inode, name: &[u8]) -> Option<Inode> {
        if let Some(table) = &mut self.table {
            table.remove(parent, name);
        }
        let directory = self.directory_mut(parent)?;
        let entry = directory.remove(name)?;
        if let Some(lower) = &directory.lower {
            let path = lower.join(OsStr::from_bytes(name));
            self.note_removed(path, entry.inode);
        }
        if let Some(node) = self.get_mut(entry.inode) {
            node.names
                .retain(|(dir, own)| !(*dir == parent && own == name));
            node.attr.changed = now();
        }
        Some(entry.inode)
    }

    /// What was at `path` on disk, if that was `inode`, is to go.
    fn note_removed(&mut self, path: PathBuf, inode: Inode) {
        let Ok(meta) = path.symlink_metadata() else {
            return;
        };
        let node = self.nodes.get(&inode);
        let lower = node.and_then(|node| match &node.kind {
            Kind::File(file) => file.lower.as_deref(),
            Kind::Directory(directory) => directory.lower.as_deref(),
            Kind::Symlink(_) | Kind::Special { .. } => None,
        });
        // Somebody else's is noted only in place of what the session found.
        if lower != Some(&path) && !self.is_original(inode, &meta) {
            return;
        }
        let found = match node.map(|node| &node.kind) {
            Some(Kind::File(FileNode {
                seen: Some((modified, bytes)),
                ..
            })) => Found::File {
                bytes: *bytes,
                modified: *modified,
            },
            Some(Kind::Symlink(content)) => Found::Link(FileName(content.clone())),
            _ => Found::of(&path, &meta),
        };
        self.removed.entry(path).or_insert(Gone { found, inode });
    }

    /// All that lies below a directory on disk goes with its name.
    fn note_tree_removed(&mut self, inode: Inode) {
        let Some(directory) = self.directory(inode) else {
            return;
        };
        let lower = directory.lower.clone();
        let entries: Vec<_> = directory.entries.values().cloned().collect();
        for entry in entries {
            if let Some(lower) = &lower {
                self.note_removed(lower.join(OsStr::from_bytes(&entry.name)), entry.inode);
            }
            self.note_tree_removed(entry.inode);
        }
    }

    /// Moves a name; the target name must be free.
    ///
    /// # Errors
    /// What the kernel says of the shadow directory.
    pub(super) fn rename(&mut self, from: (Inode, &[u8]), to: (Inode, &[u8])) -> io::Result<()> {
        let inode = self.lookup(from.0, from.1).ok_or(io::ErrorKind::NotFound)?;
        if self.directory(inode).is_some() {
            self.load_tree(inode);
            let target = self.shadow_of(to.0).join(OsStr::from_bytes(to.1));
            fs::rename(self.shadow_of(inode), target)?;
        }
        self.paths_change(inode);
        self.note_tree_removed(inode);
        self.unbind(from.0, from.1);
        self.bind(to.0, to.1.to_vec(), inode);
        Ok(())
    }

    /// Paths below `inode`, if it is a directory, and so what the rules say of them,
    /// are about to be others.
    fn paths_change(&mut self, inode: Inode) {
        let is_directory = self.directory(inode).is_some();
        if let Some(table) = self.table.as_mut().filter(|_| is_directory) {
            table.forget_all();
        }
    }

    /// Two names change places.
    ///
    /// # Errors
    /// What the kernel says of the shadows.
    pub(super) fn exchange(
        &mut self,
        one: (Inode, &[u8]),
        other: (Inode, &[u8]),
    ) -> io::Result<()> {
        let a = self.lookup(one.0, one.1).ok_or(io::ErrorKind::NotFound)?;
        let b = self
            .lookup(other.0, other.1)
            .ok_or(io::ErrorKind::NotFound)?;
        let shadow = |names: &Self, place: (Inode, &[u8])| {
            names.shadow_of(place.0).join(OsStr::from_bytes(place.1))
        };
        let (a_shadow, b_shadow) = (shadow(self, one), shadow(self, other));
        for inode in [a, b] {
            if self.directory(inode).is_some() {
                self.load_tree(inode);
            }
        }
        match (self.directory(a).is_some(), self.directory(b).is_some()) {
            (true, true) => {
                let flags = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, &a_shadow, AT_FDCWD, &b_shadow, flags)?;
            }
            (true, false) => fs::rename(&a_shadow, &b_shadow)?,
            (false, true) => fs::rename(&b_shadow, &a_shadow)?,
            (false, false) => {}
        }
        self.paths_change(a);
        self.paths_change(b);
        self.note_tree_removed(a);
        self.note_tree_removed(b);
        self.unbind(one.0, one.1);
        self.unbind(other.0, other.1);
        self.bind(other.0, other.1.to_vec(), a);
        self.bind(one.0, one.1.to_vec(), b);
        Ok(())
    }

    /// Loads a whole subtree: its lower paths stay right when it moves.
    pub(super) fn load_tree(&mut self, inode: Inode) {
        self.load_if_directory(inode);
        let Some(directory) = self.directory(inode) else {
            return;
        };
        let below: Vec<_> = directory
            .entries
            .values()
            .filter(|entry| entry.kind == libc::DT_DIR)
            .map(|entry| entry.inode)
            .collect();
        below.into_iter().for_each(|inode| self.load_tree(inode));
    }

    /// A file on disk with so many `links` is about to be changed: if nobody has
    /// looked at all its names yet, looks everywhere, once.
    pub(super) fn find_names(&mut self, inode: Inode, links: u64) {
        if self.whole || links < 2 {
            return;
        }
        let is_there = |path: &Vec<u8>| {
            let meta = Path::new(OsStr::from_bytes(path)).symlink_metadata();
            meta.is_ok_and(|meta| self.is_original(inode, &meta))
        };
        let there = self
            .paths_of(inode)
            .iter()
            .filter(|path| is_there(path))
            .count();
        let lost = self.removed.values().filter(|gone| gone.inode == inode);
        if links > (there + lost.count()) as u64 {
            self.whole = true;
            self.load_tree(self.root);
        }
    }

    /// Whether directory `inode` is `above` or lies below it.
    #[must_use]
    pub(super) fn lies_below(&self, inode: Inode, above: Inode) -> bool {
        let mut at = inode;
        loop {
            if at == above {
                return true;
            }
            let Some((parent, _)) = self.nodes.get(&at).and_then(|node| node.names.first()) else {
                return false;
            };
            at = *parent;
        }
    }

    /// Whether the session made this directory.
    #[must_use]
    pub(super) fn is_new_directory(&self, inode: Inode) -> bool {
        self.directory(inode)
            .is_some_and(|directory| directory.lower.is_none())
    }

    /// Removes the shadow of an empty directory that is about to lose its name.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn remove_shadow(&self, inode: Inode) -> io::Result<()> {
        fs::remove_dir(self.shadow_of(inode))
    }

    /// Forgets a node without names.
    pub(super) fn drop_node(&mut self, inode: Inode) -> Option<Node> {
        if self
            .nodes
            .get(&inode)
            .is_some_and(|node| !node.names.is_empty())
        {
            return None;
        }
        let node = self.nodes.remove(&inode)?;
        self.extended_bytes -= node.extended.as_ref().map_or(0, Extended::bytes);
        Some(node)
    }

    /// Number of nodes.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

fn lower_kind(path: &Path, meta: &fs::Metadata) -> Option<Kind> {
    let kind = meta.file_type();
    if kind.is_dir() {
        let lower = Some(path.to_path_buf());
        return Some(Kind::Directory(Directory {
            lower,
            ..Directory::default()
        }));
    }
    if kind.is_symlink() {
        return Some(Kind::Symlink(
            fs::read_link(path).ok()?.into_os_string().into_vec(),
        ));
    }
    if kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
        let format = meta.mode() & libc::S_IFMT;
        return Some(Kind::Special {
            format,
            path: path.to_path_buf(),
        });
    }
    Some(Kind::File(FileNode {
        lower: Some(path.to_path_buf()),
        seen: Some(seen(meta)),
        ..FileNode::default()
    }))
}

/// Modification time (ns) and size: tells whether an original has changed.
pub(super) type Seen = (i64, u64);

/// That of a file on disk.
#[must_use]
pub(super) fn seen(meta: &fs::Metadata) -> Seen {
    (
        meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        meta.size(),
    )
}

/// First component of `path` and what follows it (with its slash).
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let start = path
        .iter()
        .position(|&byte| byte != b'/')
        .unwrap_or(path.len());
    let path = path.get(start..).unwrap_or_default();
    let end = path
        .iter()
        .position(|&byte| byte == b'/')
        .unwrap_or(path.len());
    path.split_at(end)
}

/// `path` and what follows it where nothing exists: `.` and `..` can only be
/// taken by their letters.
pub(super) fn append(mut path: Vec<u8>, tail: &[u8]) -> Vec<u8> {
    for component in tail.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                let slash = path.iter().rposition(|&byte| byte == b'/');
                path.truncate(slash.unwrap_or(0));
            }
            name => {
                path.push(b'/');
                path.extend_from_slice(name);
            }
        }
    }
    path
}

/// `a/b`; `a` alone when `b` is empty.
#[must_use]
pub(super) fn join(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut whole = a.to_vec();
    if !b.is_empty() {
        if !whole.ends_with(b"/") && !b.starts_with(b"/") {
            whole.push(b'/');
        }
        whole.extend_from_slice(b);
    }
    whole
}

/// What follows `dir` in `path` when it lies in it.
#[must_use]
pub(super) fn inside<'a>(dir: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(dir)?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (tempfile::TempDir, Names) {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("data");
        fs::create_dir_all(dir.join("in/deep")).unwrap();
        fs::write(dir.join("in/a"), b"a").unwrap();
        fs::hard_link(dir.join("in/a"), dir.join("b")).unwrap();
        std::os::unix::fs::symlink("in/deep", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("out")).unwrap();
        let names = Names::new(&dir, &base.path().join("shadow")).unwrap();
        (base, names)
    }

    fn found(walk: Walk) -> Inode {
        match walk {
            Walk::Found { inode, .. } => inode,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_names_of_a_lower_file_are_one_file() {
        let (_base, mut names) = names();
        let a = found(names.walk(0, b"in/a", true));
        assert_eq!(found(names.walk(0, b"/b", true)), a);
        assert_eq!(names.paths_of(a).len(), 2);
    }

    #[test]
    fn links_lead_where_the_kernel_would_lead() {
        let (_base, mut names) = names();
        let deep = found(names.walk(0, b"in/deep", true));
        assert_eq!(found(names.walk(0, b"link", true)), deep);
        assert_ne!(found(names.walk(0, b"link", false)), deep);
        assert_eq!(found(names.walk(0, b"link/", false)), deep);
        assert_eq!(
            found(names.walk(0, b"link/../a", true)),
            found(names.walk(0, b"b", true))
        );
        assert_eq!(
            names.walk(0, b"out/passwd", true),
            Walk::Outside(b"/etc/passwd".to_vec())
        );
        assert_eq!(names.walk(0, b"in/a/x", true), Walk::Error(libc::ENOTDIR));
        assert_eq!(names.walk(0, b"in/a/", true), Walk::Error(libc::ENOTDIR));
    }

    #[test]
    fn a_missing_path_says_where_it_would_be() {
        let (_base, mut names) = names();
        let deep = found(names.walk(0, b"in/deep", true));
        let path = names.path_in(deep, b"new");
        let expected = Walk::Missing {
            parent: Some(deep),
            name: b"new".to_vec(),
            path,
            slash: false,
        };
        assert_eq!(names.walk(0, b"link/new", true), expected);
        assert!(matches!(
            names.walk(0, b"no/new", true),
            Walk::Missing { parent: None, .. }
        ));
    }

    #[test]
    fn a_renamed_directory_takes_its_tree_along() {
        let (_base, mut names) = names();
        let (root, a) = (names.root(), found(names.walk(0, b"in/a", true)));
        names.rename((root, b"in"), (root, b"moved")).unwrap();
        assert_eq!(found(names.walk(0, b"moved/a", true)), a);
        assert!(matches!(names.walk(0, b"in", true), Walk::Missing { .. }));
        assert_eq!(names.removed().len(), 3);
        let deep = found(names.walk(0, b"moved/deep", true));
        assert!(names.shadow_of(deep).is_dir());
    }
}
