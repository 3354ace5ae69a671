//! The names of all files and the counts that hang on them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::file::{Entries, File, Moved, Name, Path, Verdict};
use super::roles::{Roles, Rules, parent, prefix};
use super::steps::Steps;
use super::types::{Effect, FailurePolicy, FileId, FileKind, Resolution, StepId, WaitId};
use super::waits::Waits;

/// All that changes. Between events `dirty` and `appeared` are empty.
#[derive(Clone, Debug, Hash)]
pub(super) struct State {
    pub(super) steps: Steps,
    pub(super) files: BTreeMap<FileId, File>,
    pub(super) names: BTreeMap<Path, FileId>,
    /// Paths without a file, whose last file was final: as a dependency of
    /// `on_file` they have been committed.
    pub(super) committed: BTreeSet<Path>,
    /// Files without a verdict, by the steps that their finality hangs on.
    pub(super) unfinished: BTreeMap<StepId, BTreeSet<FileId>>,
    /// Files with `on_file` by one dependency that is not final.
    pub(super) dependents: BTreeMap<Path, BTreeSet<FileId>>,
    pub(super) waits: Waits,
    /// Files to judge before the event is done.
    pub(super) dirty: BTreeSet<FileId>,
    /// Names given by the event.
    pub(super) appeared: Vec<Path>,
    pub(super) effects: VecDeque<Effect>,
}

/// What does not change, lent to each event.
#[derive(Clone, Copy)]
pub(super) struct Law<'a> {
    pub(super) rules: &'a dyn Rules,
    /// Number of steps in the document.
    pub(super) known: usize,
    pub(super) policy: FailurePolicy,
}

impl Law<'_> {
    fn roles(&self, path: &[u8], above: Option<&Roles>) -> Roles {
        Roles::of(self.rules, self.known, path, above)
    }
}

impl State {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self {
            steps: Steps::new(names),
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            committed: BTreeSet::new(),
            unfinished: BTreeMap::new(),
            dependents: BTreeMap::new(),
            waits: Waits::default(),
            dirty: BTreeSet::new(),
            appeared: Vec::new(),
            effects: VecDeque::new(),
        }
    }

    /// The roles that `path` has or would have.
    pub(super) fn roles(&self, law: Law<'_>, path: &[u8]) -> Arc<Roles> {
        if let Some(name) = self.name(path) {
            return name.roles.clone();
        }
        // From the nearest directory that has a name downwards.
        let mut missing = vec![path];
        let mut above = None;
        while let Some(dir) = missing.last().copied().and_then(parent) {
            if let Some(name) = self.name(dir) {
                above = Some(name.roles.clone());
                break;
            }
            missing.push(dir);
        }
        for dir in missing.into_iter().rev() {
            above = Some(Arc::new(law.roles(dir, above.as_deref())));
        }
        // `missing` holds at least `path` itself.
        above.unwrap_or_else(|| Arc::new(law.roles(path, None)))
    }

    fn name(&self, path: &[u8]) -> Option<&Name> {
        let file = self.files.get(self.names.get(path)?)?;
        file.names.iter().find(|name| *name.path == *path)
    }

    /// Gives the file a name that no other file has.
    pub(super) fn attach(&mut self, law: Law<'_>, path: &[u8], id: FileId) {
        let roles = self.roles(law, path);
        let path: Path = path.into();
        let entries = self.entries_below(&path);
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        if !file.named {
            file.names.clear();
            file.named = true;
        }
        file.names.push(Name {
            path: path.clone(),
            roles,
            cursor: 0,
        });
        if file.kind == FileKind::Directory {
            file.entries = entries;
        }
        let as_entry = file.as_entry();
        self.names.insert(path.clone(), id);
        self.committed.remove(&path);
        self.count_in_parent(&path, |entries| entries.add(as_entry));
        self.note_producers(id);
        self.release_new_producers(id);
        self.wake_dependents_of(id, &path);
        self.appeared.push(path);
        self.dirty.insert(id);
    }

    /// Takes a name away. The rules of the last one stay with the file.
    pub(super) fn detach(&mut self, path: &[u8]) -> Option<FileId> {
        let (path, id) = self.names.remove_entry(path)?;
        let file = self.files.get_mut(&id)?;
        let as_entry = file.as_entry();
        if file.names.len() > 1 {
            file.names.retain(|name| name.path != path);
        } else {
            file.named = false;
            file.entries = Entries::default();
        }
        if file.verdict == Verdict::Final {
            self.committed.insert(path.clone());
        }
        self.count_in_parent(&path, |entries| entries.take(as_entry));
        self.dirty.insert(id);
        Some(id)
    }

    /// Takes the names of a file and of all that lies below it, topmost
    /// first in the answer.
    pub(super) fn detach_tree(&mut self, path: &[u8]) -> Vec<Moved> {
        let below: Vec<Path> = self.below(path).map(|(path, _)| path.clone()).collect();
        let mut moved: Vec<Moved> = Vec::with_capacity(below.len() + 1);
        // The deepest first, so that every directory's counts are seen down.
        for inner in below.iter().rev() {
            let rest = inner.get(path.len()..).unwrap_or_default().to_vec();
            moved.extend(self.detach(inner).map(|id| (rest, id)));
        }
        moved.extend(self.detach(path).map(|id| (Vec::new(), id)));
        moved.reverse();
        moved
    }

    pub(super) fn attach_tree(&mut self, law: Law<'_>, to: &[u8], tree: &[Moved]) {
        for (rest, id) in tree {
            self.attach(law, &[to, rest].concat(), *id);
        }
    }

    /// All names below a directory, in order.
    fn below(&self, dir: &[u8]) -> impl Iterator<Item = (&Path, &FileId)> {
        let prefix = prefix(dir);
        let from = (Bound::Excluded(prefix.as_slice()), Bound::Unbounded);
        self.names
            .range::<[u8], _>(from)
            .take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Counts what a directory holds that was named after its entries.
    fn entries_below(&self, dir: &[u8]) -> Entries {
        let mut entries = Entries::default();
        for (path, id) in self.below(dir) {
            if parent(path) == Some(dir)
                && let Some(file) = self.files.get(id)
            {
                entries.add(file.as_entry());
            }
        }
        entries
    }

    /// Changes the counts of the directory that holds `path`.
    fn count_in_parent(&mut self, path: &[u8], change: impl FnOnce(&mut Entries)) {
        let dir = parent(path).and_then(|dir| self.names.get(dir));
        if let Some(&dir) = dir
            && let Some(file) = self.files.get_mut(&dir)
        {
            change(&mut file.entries);
            self.dirty.insert(dir);
        }
    }

    /// Changes a file's writers and with them the counts of the directories
    /// that it lies in.
    pub(super) fn change_writers(&mut self, id: FileId, change: impl FnOnce(&mut File)) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        let before = file.as_entry();
        change(file);
        let after = file.as_entry();
        self.dirty.insert(id);
        if before == after {
            return;
        }
        let paths: Vec<Path> = file.paths().cloned().collect();
        for path in paths {
            self.count_in_parent(&path, |entries| {
                entries.add(after);
                entries.take(before);
            });
        }
    }

    /// Puts the file into the index of each step that its finality hangs on.
    pub(super) fn note_producers(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        if file.verdict != Verdict::Open {
            return;
        }
        for step in file.producers() {
            if file.hangs_on.insert(step) {
                self.unfinished.entry(step).or_default().insert(id);
            }
        }
    }

    /// A new name may make a waiter a producer, who never waits.
    fn release_new_producers(&mut self, id: FileId) {
        for wait in self.waits.for_file(id) {
            let step = self.waits.get(wait).map(|wait| wait.step);
            let file = self.files.get(&id);
            if step
                .zip(file)
                .is_some_and(|(step, file)| file.is_producer(step))
            {
                self.release(wait, Resolution::Ready);
            }
        }
    }

    pub(super) fn release(&mut self, wait: WaitId, resolution: Resolution) {
        if self.waits.remove(wait).is_some() {
            self.effects.push_back(Effect::Released(wait, resolution));
        }
    }
}
