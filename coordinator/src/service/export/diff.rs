//! A plan as `capio diff` shows it.

use std::collections::HashSet;
use std::path::Path;

use super::super::journal::{self, Found, allows};
use super::plan::{Item, Plan, Source, Target};
use crate::session::{DiffEntry, Difference, EntryKind, FileName, KeepReason};

impl Plan {
    /// As `capio diff` shows it.
    pub(super) fn entries(&self, dir: &Path) -> Vec<DiffEntry> {
        let rooms = self.removals.iter().filter(|removal| removal.blocks);
        let rooms: HashSet<&Path> = rooms.map(|removal| removal.path.as_path()).collect();
        let mut entries: Vec<_> = self.item_entries(dir, &rooms).collect();
        entries.extend(self.directory_entries(dir, &rooms));
        let told = self.touched.iter().filter(|touch| touch.told);
        entries.extend(
            told.filter(|touch| !self.made.contains_key(&touch.path))
                .map(|touch| {
                    let path = journal::relative(dir, &touch.path);
                    entry(
                        Difference::Attributes,
                        touch.kind,
                        path,
                        KeepReason::Changed,
                    )
                }),
        );
        let sources: HashSet<&Path> = self.sources().collect();
        let gone = self.removals.iter().filter(|removal| {
            let mut above = removal.path.ancestors().skip(1);
            let along = removal.lives && above.any(|way| sources.contains(way));
            !along && !sources.contains(removal.path.as_path())
        });
        entries.extend(gone.map(|removal| {
            let (kind, bytes) = kind_of(&removal.found);
            let path = journal::relative(dir, &removal.path);
            let conflict = Found::at(&removal.path)
                .is_ok_and(|now| now != removal.found && now != Found::Nothing);
            DiffEntry {
                bytes,
                conflict,
                ..entry(Difference::Removed, kind, path, KeepReason::Changed)
            }
        }));
        entries.sort_by(|a, b| (&a.path, a.what).cmp(&(&b.path, b.what)));
        entries
    }

    /// Names on disk that something is renamed from.
    fn sources(&self) -> impl Iterator<Item = &Path> {
        let targets = self.items.iter().flat_map(|item| &item.targets);
        let files = targets.filter_map(|target| target.from.as_deref());
        files.chain(self.made.values().filter_map(|made| made.from.as_deref()))
    }

    /// `rooms`: what is removed first, to make room.
    fn item_entries(&self, dir: &Path, rooms: &HashSet<&Path>) -> impl Iterator<Item = DiffEntry> {
        let pairs = self.items.iter().flat_map(|item| {
            let targets = item.targets.iter();
            targets.map(move |target| (item, target))
        });
        let shown = pairs.filter(|(item, target)| !self.moves_along(item, target));
        shown.map(move |(item, target)| DiffEntry {
            from: target
                .from
                .as_deref()
                .map(|from| journal::relative(dir, from)),
            bytes: item.bytes,
            conflict: !rooms.contains(target.path.as_path()) && is_taken(target),
            ..entry(
                target.what,
                item.kind,
                journal::relative(dir, &target.path),
                item.reason,
            )
        })
    }

    /// Whether it only moves with the directory that it lies in.
    fn moves_along(&self, item: &Item, target: &Target) -> bool {
        let parent = target
            .path
            .parent()
            .and_then(|parent| self.made.get(parent));
        let from = parent.and_then(|made| made.from.as_ref());
        let along = from.map(|from| from.join(target.path.file_name().unwrap_or_default()));
        matches!(item.source, Source::Disk(_) | Source::Link(_))
            && target.from.is_some()
            && along == target.from
    }

    fn directory_entries(
        &self,
        dir: &Path,
        rooms: &HashSet<&Path>,
    ) -> impl Iterator<Item = DiffEntry> {
        self.made.iter().filter_map(move |(path, made)| {
            let parent = path.parent().and_then(|parent| self.made.get(parent));
            let along = parent.and_then(|parent| parent.from.as_ref());
            let along = along.map(|from| from.join(path.file_name().unwrap_or_default()));
            if made.from.is_some() && along == made.from {
                return None;
            }
            let now = Found::at(path).unwrap_or(Found::Nothing);
            let what = match (&made.from, &now) {
                (Some(_), _) => Difference::Renamed,
                (None, Found::Directory) => Difference::Attributes,
                (None, _) => Difference::Added,
            };
            let makes_room = rooms.contains(path.as_path());
            let path = journal::relative(dir, path);
            let from = made
                .from
                .as_deref()
                .map(|from| journal::relative(dir, from));
            Some(DiffEntry {
                from,
                conflict: !makes_room && !matches!(now, Found::Directory | Found::Nothing),
                ..entry(what, EntryKind::Directory, path, made.reason)
            })
        })
    }
}

/// Whether something else than what was found is there now.
fn is_taken(target: &Target) -> bool {
    let now = Found::at(&target.path);
    now.is_ok_and(|now| !allows(&target.found, &now))
}

fn entry(what: Difference, kind: EntryKind, path: FileName, reason: KeepReason) -> DiffEntry {
    DiffEntry {
        what,
        kind,
        path,
        from: None,
        bytes: 0,
        reason,
        conflict: false,
    }
}

fn kind_of(found: &Found) -> (EntryKind, u64) {
    match found {
        Found::File { bytes, .. } => (EntryKind::File, *bytes),
        Found::Directory => (EntryKind::Directory, 0),
        Found::Link(_) => (EntryKind::Symlink, 0),
        Found::Nothing | Found::Other(_) => (EntryKind::Other, 0),
    }
}
