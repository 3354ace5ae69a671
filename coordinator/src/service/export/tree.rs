//! The directories of a plan: those that are made, names that go, and
//! attributes of what stays.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::super::engine::Engine;
use super::super::journal::{self, Attributes, Found};
use super::super::names::{Attr, Directory, Walk, inside};
use super::plan::{Made, Plan, Removal, Touch, differing, path_of, whole};
use crate::session::{EntryKind, KeepReason};

impl Engine {
    /// Names that the journal itself needs cannot be kept.
    pub(super) fn refuse_reserved(&self, plan: &mut Plan) {
        let dir = self.names.dir().to_path_buf();
        let reserved = |path: &Path| {
            let inner = path.strip_prefix(&dir).unwrap_or(path);
            inner
                .iter()
                .any(|part| journal::is_reserved(part.as_bytes()))
        };
        for item in &mut plan.items {
            item.targets.retain(|target| {
                let refused = reserved(&target.path);
                if refused {
                    plan.errors.push(format!(
                        "{} is not kept: names like this are capio's own; choose another",
                        self.display_path(target.path.as_os_str().as_bytes())
                    ));
                }
                !refused
            });
        }
        plan.items.retain(|item| !item.targets.is_empty());
    }

    /// Directories that the session made or moved: those above what is kept,
    /// and those that were left empty on purpose.
    pub(super) fn plan_directories(&self, plan: &mut Plan) {
        let mut needed: BTreeSet<PathBuf> = BTreeSet::new();
        for path in plan.targets() {
            needed.extend(path.ancestors().skip(1).map(Path::to_path_buf));
        }
        let directories: Vec<_> = self
            .names
            .iter()
            .filter_map(|node| {
                let directory = node.directory()?;
                let path = path_of(&self.names.path_of(node.inode));
                let named = !node.names.is_empty() && directory.lower.as_ref() != Some(&path);
                named.then_some((path, node, directory))
            })
            .collect();
        let is_kept = |path: &Path, directory: &Directory| {
            let moved = directory.lower.is_some();
            moved || (directory.is_empty() && self.reason_of(path, false).is_some())
        };
        for (path, _, _) in directories
            .iter()
            .filter(|(path, _, dir)| is_kept(path, dir))
        {
            needed.extend(path.ancestors().map(Path::to_path_buf));
        }
        for (path, node, directory) in directories {
            let reserved = path
                .iter()
                .any(|part| journal::is_reserved(part.as_bytes()));
            if !needed.contains(&path) || reserved {
                continue;
            }
            let mut attributes = whole(node, &node.attr, directory.lower.as_deref());
            // What is on disk by this name may be another one.
            attributes.exact = true;
            let reason = self.reason_of(&path, directory.lower.is_some());
            let made = Made {
                attributes,
                from: directory.lower.clone(),
                reason: reason.unwrap_or(KeepReason::Changed),
            };
            plan.made.insert(path, made);
        }
    }

    /// Names that the session took away and did not make again.
    pub(super) fn plan_removals(&mut self, plan: &mut Plan) {
        let targets: HashSet<PathBuf> = plan.targets().map(Path::to_path_buf).collect();
        let removed: Vec<_> = self
            .names
            .removed()
            .iter()
            .rev()
            .map(|(path, gone)| (path.clone(), gone.clone()))
            .collect();
        // What has to make room, and all that lies in it.
        let mut rooms: HashSet<PathBuf> = HashSet::new();
        for (path, gone) in &removed {
            let is_directory = gone.found == Found::Directory;
            if (is_directory && targets.contains(path))
                || (!is_directory && plan.made.contains_key(path))
            {
                rooms.insert(path.clone());
            }
        }
        for (path, gone) in removed {
            let blocks = path.ancestors().any(|way| rooms.contains(way));
            let replaced = !blocks && (targets.contains(&path) || plan.made.contains_key(&path));
            if replaced || plan.stays.contains(&path) || self.is_back(&path) {
                continue;
            }
            let node = self.names.get(gone.inode);
            plan.removals.push(Removal {
                path,
                found: gone.found,
                blocks,
                lives: node.is_some_and(|node| !node.names.is_empty()),
            });
        }
    }

    /// Whether the session has at this path what lies there on disk.
    fn is_back(&mut self, path: &Path) -> bool {
        let dir = self.names.dir().as_os_str().as_bytes().to_vec();
        let inner = inside(&dir, path.as_os_str().as_bytes())
            .unwrap_or_default()
            .to_vec();
        let Walk::Found { inode, .. } = self.walk(0, &inner, false) else {
            return false;
        };
        // A symbolic link above it leads elsewhere.
        let here = self
            .names
            .paths_of(inode)
            .iter()
            .any(|p| path_of(p) == path);
        let lower = |directory: &Directory| directory.lower.as_deref() == Some(path);
        let directory = self.names.directory(inode).is_some_and(lower);
        here && (directory || self.is_in_place(inode, path))
    }

    /// Attributes of directories: those that programs have set, and the times
    /// that programs saw of those whose entries change.
    pub(super) fn plan_touched(&self, plan: &mut Plan) {
        let mut changed: HashSet<&Path> =
            plan.made.keys().filter_map(|path| path.parent()).collect();
        changed.extend(plan.targets().filter_map(Path::parent));
        changed.extend(
            plan.removals
                .iter()
                .filter_map(|removal| removal.path.parent()),
        );
        let mut touched = Vec::new();
        for node in self.names.iter() {
            let Some(directory) = node.directory() else {
                continue;
            };
            let path = path_of(&self.names.path_of(node.inode));
            if directory.lower.as_ref() != Some(&path) {
                continue;
            }
            let attributes = match (directory.changed, changed.contains(path.as_path())) {
                (true, _) => differing(node),
                (false, true) => Attributes {
                    modified: Some(newest(&path, node.attr.modified)),
                    ..Attributes::default()
                },
                (false, false) => continue,
            };
            touched.push(Touch {
                path,
                attributes,
                told: directory.changed,
                kind: EntryKind::Directory,
            });
        }
        plan.touched.extend(touched);
        let made = plan.made.iter().map(|(path, made)| Touch {
            path: path.clone(),
            attributes: made.attributes.clone(),
            told: false,
            kind: EntryKind::Directory,
        });
        plan.touched.extend(made);
        plan.touched.sort_by(|a, b| b.path.cmp(&a.path));
    }
}

/// The later of a time and that of the directory on disk, which somebody else
/// may have changed.
fn newest(path: &Path, modified: i64) -> i64 {
    let now = path.symlink_metadata();
    now.map_or(modified, |meta| Attr::of(&meta).modified.max(modified))
}
