//! What the end of the session would change on disk. Nothing is written here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::engine::Engine;
use super::super::extended::Extended;
use super::super::journal::{self, Attributes, Found};
use super::super::names::{Attr, FileNode, Inode, Kind, Node};
use crate::session::{Difference, DroppedFile, EntryKind, FileName, Keep, KeepReason};

/// Where the content of something kept comes from.
pub(super) enum Source {
    /// From the cache.
    Record(u32),
    /// It is on disk, and only has other names.
    Disk(PathBuf),
    /// A symbolic link with this content.
    Link(Vec<u8>),
    /// A pipe or device: `S_IFMT` bits and device number.
    Node(u32, u64),
}

/// A name that is to lead to something kept.
pub(super) struct Target {
    pub path: PathBuf,
    /// What the session had found there.
    pub found: Found,
    /// The name on disk that this takes the place of.
    pub from: Option<PathBuf>,
    /// What happens to the name.
    pub what: Difference,
}

/// A file, link or pipe that is kept.
pub(super) struct Item {
    pub source: Source,
    pub attributes: Attributes,
    pub targets: Vec<Target>,
    pub reason: KeepReason,
    pub bytes: u64,
    /// For messages.
    pub shown: String,
    pub kind: EntryKind,
}

/// A directory that is to be.
pub(super) struct Made {
    pub attributes: Attributes,
    /// Its name on disk, if it was moved.
    pub from: Option<PathBuf>,
    pub reason: KeepReason,
}

/// A name on disk that is to go.
pub(super) struct Removal {
    pub path: PathBuf,
    pub found: Found,
    /// It has to make room first.
    pub blocks: bool,
    /// What was there has another name still.
    pub lives: bool,
}

/// Attributes of something that stays where it is.
pub(super) struct Touch {
    pub path: PathBuf,
    pub attributes: Attributes,
    /// They were changed by a program, not only by what happened in there.
    pub told: bool,
    pub kind: EntryKind,
}

/// What is kept, and all that this changes on disk.
#[derive(Default)]
pub(super) struct Plan {
    pub items: Vec<Item>,
    /// Directories to make.
    pub made: BTreeMap<PathBuf, Made>,
    /// The deepest first.
    pub removals: Vec<Removal>,
    /// The deepest first.
    pub touched: Vec<Touch>,
    pub dropped: Vec<DroppedFile>,
    pub errors: Vec<String>,
    /// Paths that are on disk as they should be.
    pub stays: HashSet<PathBuf>,
}

impl Plan {
    /// Whether nothing on disk has to change.
    pub(super) fn is_empty(&self) -> bool {
        let nothing = self.items.is_empty() && self.made.is_empty();
        nothing && self.removals.is_empty() && self.touched.is_empty()
    }

    /// Directories to make, the topmost first.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.made.keys().map(PathBuf::as_path)
    }

    /// All names that are to lead to something kept.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Path> {
        let targets = self.items.iter().flat_map(|item| &item.targets);
        targets.map(|target| target.path.as_path())
    }
}

/// The attributes that a program sees, for what is put on disk.
pub(super) fn attributes(attr: &Attr) -> Attributes {
    Attributes {
        mode: Some((attr.mode, attr.uid, attr.gid)),
        accessed: Some(attr.accessed),
        modified: Some(attr.modified),
        ..Attributes::default()
    }
}

/// The attributes of what is put on disk anew: with all its extended ones,
/// `original` being where it lay on disk.
pub(super) fn whole(node: &Node, attr: &Attr, original: Option<&Path>) -> Attributes {
    let extended = match (&node.extended, original) {
        (Some(extended), _) => extended.all(),
        (None, Some(original)) => journal::extended_of(original),
        (None, None) => Vec::new(),
    };
    Attributes {
        extended,
        ..attributes(attr)
    }
}

/// The attributes of what stays on disk: with the extended ones that programs
/// have changed.
pub(super) fn differing(node: &Node) -> Attributes {
    let extended = node.extended.as_ref();
    Attributes {
        extended: extended.map_or_else(Vec::new, Extended::set_ones),
        without: extended.map_or_else(Vec::new, Extended::removed),
        ..attributes(&node.attr)
    }
}

/// The same as a path.
pub(super) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// What the plan is made from, gathered once.
struct Known {
    /// Names on disk that each inode has lost.
    lost: HashMap<Inode, Vec<PathBuf>>,
    from_disk: HashSet<Inode>,
}

impl Engine {
    /// What would change on disk if the session ended now, `apply` saying
    /// whether anything is kept at all.
    pub(super) fn plan(&mut self, apply: bool) -> Plan {
        let mut plan = Plan::default();
        let mut lost: HashMap<Inode, Vec<PathBuf>> = HashMap::new();
        for (path, gone) in self.names.removed() {
            lost.entry(gone.inode).or_default().push(path.clone());
        }
        let mut known = Known {
            lost,
            from_disk: self.names.found_on_disk(),
        };
        let mut nodes: Vec<_> = self.names.iter().map(|node| node.inode).collect();
        nodes.sort_unstable();
        for inode in nodes {
            let Some(node) = self.names.get(inode) else {
                continue;
            };
            match &node.kind {
                Kind::File(file) => self.plan_file(&mut plan, &mut known, node, file, apply),
                Kind::Symlink(_) | Kind::Special { .. } if apply => {
                    self.plan_other(&mut plan, &mut known, node);
                }
                _ => {}
            }
        }
        if apply {
            self.refuse_reserved(&mut plan);
            self.plan_directories(&mut plan);
            self.plan_removals(&mut plan);
            self.plan_touched(&mut plan);
        }
        plan
    }

    /// Whether content or attributes differ from what is on disk; also by who
    /// has not closed it yet.
    fn is_modified(&self, inode: Inode, file: &FileNode) -> bool {
        let written = |id: u32| {
            let written = &self.shared.ofd_sync(id).written;
            written.load(std::sync::atomic::Ordering::Relaxed) > 0
        };
        file.modified
            || (file.writers > 0
                && self
                    .ofds
                    .iter()
                    .any(|(id, ofd)| ofd.inode == inode && ofd.writes() && written(id)))
    }

    /// Whether `path` leads to `inode` on disk, too.
    pub(super) fn is_in_place(&self, inode: Inode, path: &Path) -> bool {
        let meta = path.symlink_metadata();
        meta.is_ok_and(|meta| self.names.is_original(inode, &meta))
    }

    /// What the session had found where `inode` is to be.
    fn found_at(&self, inode: Inode, path: &Path) -> Found {
        if let Some(gone) = self.names.removed().get(path) {
            return gone.found.clone();
        }
        let Some(node) = self.names.get(inode) else {
            return Found::Nothing;
        };
        let file = node.file();
        let is_there = file.is_some_and(|file| file.lower.as_deref() == Some(path));
        if !is_there && !self.is_in_place(inode, path) {
            return Found::Nothing;
        }
        match &node.kind {
            Kind::File(file) => file
                .seen
                .map_or(Found::Nothing, |(modified, bytes)| Found::File {
                    bytes,
                    modified,
                }),
            Kind::Symlink(content) => Found::Link(FileName(content.clone())),
            _ => Found::at(path).unwrap_or(Found::Nothing),
        }
    }

    fn target(&self, known: &mut Known, inode: Inode, path: PathBuf) -> Target {
        let found = self.found_at(inode, &path);
        let is_own = self.is_in_place(inode, &path);
        let lost = known.lost.get_mut(&inode).filter(|_| !is_own);
        let from = lost.and_then(|lost| (!lost.is_empty()).then(|| lost.remove(0)));
        let what = match (&from, &found) {
            (Some(_), _) => Difference::Renamed,
            (None, Found::Nothing) => Difference::Added,
            (None, _) => Difference::Modified,
        };
        Target {
            path,
            found,
            from,
            what,
        }
    }

    fn plan_file(
        &self,
        plan: &mut Plan,
        known: &mut Known,
        node: &Node,
        file: &FileNode,
        apply: bool,
    ) {
        let inode = node.inode;
        let paths = self.names.paths_of(inode);
        let changed =
            file.lower.is_none() || (file.record.is_some() && self.is_modified(inode, file));
        let mut wanted: Vec<_> = paths.iter().map(|path| path_of(path)).collect();
        if !changed {
            let is_there =
                |path: &PathBuf| file.lower.as_ref() == Some(path) || self.is_in_place(inode, path);
            wanted.retain(|path| !is_there(path));
        }
        if wanted.is_empty() {
            return;
        }
        let on_disk = file.seen.map_or(0, |(_, bytes)| bytes);
        let bytes = file
            .record
            .map_or(on_disk, |record| self.records.size(record));
        let shown = self.display(inode);
        let reason = self.keep_reason(file, &paths).filter(|_| apply);
        let Some(reason) = reason else {
            plan.dropped.push(DroppedFile { path: shown, bytes });
            return;
        };
        let (source, attributes) = match (file.record.filter(|_| changed), &file.lower) {
            (Some(record), lower) => {
                let attr = self.records.attr(record);
                let attributes = whole(node, &attr, lower.as_deref());
                (Source::Record(record), attributes)
            }
            (None, Some(lower)) => (Source::Disk(lower.clone()), Attributes::default()),
            (None, None) => return,
        };
        let same = Some((attributes.modified.unwrap_or_default(), bytes)) == file.seen;
        let targets = wanted.into_iter().map(|path| {
            let mut target = self.target(known, inode, path);
            if same && target.what == Difference::Modified && changed {
                target.what = Difference::Attributes;
            }
            target
        });
        plan.items.push(Item {
            source,
            attributes,
            targets: targets.collect(),
            reason,
            bytes,
            shown,
            kind: EntryKind::File,
        });
    }

    /// Whether a file outlives a session that ends well.
    pub(in super::super) fn is_kept(&self, inode: Inode) -> bool {
        let file = self.names.get(inode).and_then(Node::file);
        file.is_some_and(|file| {
            let paths = self.names.paths_of(inode);
            self.keep_reason(file, &paths).is_some()
        })
    }

    fn keep_reason(&self, file: &FileNode, paths: &[Vec<u8>]) -> Option<KeepReason> {
        let keep = self.config.keep;
        if keep == Keep::None {
            return None;
        }
        if paths.iter().any(|path| self.is_permanent(path)) {
            return Some(KeepReason::Permanent);
        }
        let replaces = |path: &Vec<u8>| path_of(path).symlink_metadata().is_ok();
        if file.lower.is_some() || paths.iter().any(replaces) {
            return Some(KeepReason::Changed);
        }
        match keep {
            Keep::All => Some(KeepReason::All),
            Keep::Outputs if !file.consumed => Some(KeepReason::Output),
            _ => None,
        }
    }

    /// What lies in a permanent directory is permanent with it.
    fn is_permanent(&self, path: &[u8]) -> bool {
        !self.spec.permanent().is_empty() && self.said_above(path, |rules| rules.permanent)
    }

    /// Why something is kept that no step can have read.
    pub(super) fn reason_of(&self, path: &Path, from_disk: bool) -> Option<KeepReason> {
        if self.is_permanent(path.as_os_str().as_bytes()) {
            return Some(KeepReason::Permanent);
        }
        if from_disk || self.names.removed().contains_key(path) {
            return Some(KeepReason::Changed);
        }
        match self.config.keep {
            Keep::All => Some(KeepReason::All),
            Keep::Outputs => Some(KeepReason::Output),
            Keep::Permanent | Keep::None => None,
        }
    }

    /// A symbolic link, pipe or device.
    fn plan_other(&self, plan: &mut Plan, known: &mut Known, node: &Node) {
        let from_disk = known.from_disk.contains(&node.inode);
        let kind = match node.kind {
            Kind::Symlink(_) => EntryKind::Symlink,
            _ => EntryKind::Other,
        };
        if node.format() == libc::S_IFSOCK && !from_disk {
            // Nobody listens on it any more.
            return;
        }
        let paths = self.names.paths_of(node.inode);
        let mut paths: Vec<_> = paths.iter().map(|path| path_of(path)).collect();
        let original = self.original(known, node.inode, &paths);
        let (mut kept, mut first) = (None, None);
        paths.retain(|path| {
            let Some(reason) = self.reason_of(path, from_disk) else {
                return false;
            };
            first.get_or_insert_with(|| path.clone());
            if self.is_there(node, original.is_some(), path) {
                plan.stays.insert(path.clone());
                return false;
            }
            kept.get_or_insert(reason);
            true
        });
        if let (Some(original), Some(first)) = (&original, first)
            && (node.extended.is_some() || differs(original, &node.attr, kind))
        {
            plan.touched.push(Touch {
                path: first,
                attributes: differing(node),
                told: true,
                kind,
            });
        }
        let Some(reason) = kept else { return };
        let targets = paths.into_iter();
        let targets = targets.map(|path| self.target(known, node.inode, path));
        let (source, bytes) = match (original, &node.kind) {
            (Some(original), _) => (Source::Disk(original), 0),
            (None, Kind::Symlink(content)) => (Source::Link(content.clone()), content.len()),
            (None, Kind::Special { format, path }) => {
                let device = path.symlink_metadata().map_or(0, |meta| meta.rdev());
                (Source::Node(*format, device), 0)
            }
            (None, _) => return,
        };
        plan.items.push(Item {
            source,
            attributes: whole(node, &node.attr, None),
            targets: targets.collect(),
            reason,
            bytes: bytes as u64,
            shown: self.display(node.inode),
            kind,
        });
    }

    /// A name by which `inode` can be found on disk as it was.
    fn original(&self, known: &Known, inode: Inode, paths: &[PathBuf]) -> Option<PathBuf> {
        let lost = known.lost.get(&inode).into_iter().flatten();
        let mut ways = paths.iter().chain(lost);
        ways.find(|path| self.is_in_place(inode, path)).cloned()
    }

    /// Whether nothing has to be done for a name of a link or pipe.
    fn is_there(&self, node: &Node, has_original: bool, path: &Path) -> bool {
        if has_original {
            return self.is_in_place(node.inode, path);
        }
        let Kind::Symlink(content) = &node.kind else {
            return false;
        };
        // Somebody else had the same idea.
        let now = fs::read_link(path);
        let same = now.is_ok_and(|now| now.as_os_str().as_bytes() == content);
        same && !self.names.removed().contains_key(path)
    }
}

/// Whether owner, permissions or modification time differ from those on disk.
fn differs(path: &Path, attr: &Attr, kind: EntryKind) -> bool {
    let Ok(meta) = path.symlink_metadata() else {
        return false;
    };
    let now = Attr::of(&meta);
    let mode = kind == EntryKind::Symlink || now.mode == attr.mode;
    let same = (now.uid, now.gid, now.modified) == (attr.uid, attr.gid, attr.modified);
    !(mode && same)
}
