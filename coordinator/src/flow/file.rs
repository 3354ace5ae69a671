//! What is known of one file object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use capio_specs::CommitRule;

use super::roles::Roles;
use super::types::{FileId, FileKind, StepId};

/// An absolute path without `.`, `..`, doubled or trailing slashes.
pub(super) type Path = Arc<[u8]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    Open,
    Final,
    Failed(StepId),
}

/// One name of a file and the rules that the file has by it.
#[derive(Clone, Debug, Hash)]
pub(super) struct Name {
    pub(super) path: Path,
    pub(super) roles: Arc<Roles>,
    /// `on_file`: the dependency looked at last, one that was not final.
    pub(super) cursor: usize,
}

/// Open file descriptions for writing that a step has had of a file.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Writing {
    pub(super) open: u64,
    /// Closed by a living process.
    pub(super) closed: u64,
}

/// Counted over the entries of a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Entries {
    pub(super) all: u64,
    /// Files that a writer has closed.
    pub(super) closed: u64,
    /// Files open for writing.
    pub(super) open: u64,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct File {
    pub(super) kind: FileKind,
    pub(super) creator: Option<StepId>,
    /// It lay in `CAPIO_DIR` before the session.
    pub(super) preexisting: bool,
    pub(super) verdict: Verdict,
    /// All names, or when `named` is false the last it had, whose rules hold
    /// for those who still have it open.
    pub(super) names: Vec<Name>,
    pub(super) named: bool,
    pub(super) writing: BTreeMap<StepId, Writing>,
    /// Directories only.
    pub(super) entries: Entries,
    /// Steps in whose index of unfinished files it stands.
    pub(super) hangs_on: BTreeSet<StepId>,
    /// Dependencies in whose index of dependents it stands.
    pub(super) watching: BTreeSet<Path>,
}

impl File {
    pub(super) fn new(kind: FileKind, creator: Option<StepId>) -> Self {
        Self {
            kind,
            creator,
            preexisting: false,
            verdict: Verdict::Open,
            names: Vec::new(),
            named: false,
            writing: BTreeMap::new(),
            entries: Entries::default(),
            hangs_on: BTreeSet::new(),
            watching: BTreeSet::new(),
        }
    }

    /// A name for messages.
    pub(super) fn a_path(&self) -> Vec<u8> {
        self.names
            .first()
            .map_or_else(Vec::new, |name| name.path.to_vec())
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.names
            .iter()
            .filter(|_| self.named)
            .map(|name| &name.path)
    }

    /// By some name of it, or because it created it.
    pub(super) fn is_producer(&self, step: StepId) -> bool {
        self.creator == Some(step) || self.names.iter().any(|name| name.roles.produces(step))
    }

    /// Producers by one of its names, and its creator.
    pub(super) fn producers_by<'a>(
        &'a self,
        name: &'a Name,
    ) -> impl Iterator<Item = StepId> + Clone + 'a {
        name.roles.producers.iter().copied().chain(self.creator)
    }

    /// Whom its finality hangs on, each once.
    pub(super) fn producers(&self) -> BTreeSet<StepId> {
        let by_names = self.names.iter().flat_map(|name| &name.roles.producers);
        by_names.copied().chain(self.creator).collect()
    }

    pub(super) fn writers(&self) -> u64 {
        self.writing.values().map(|writing| writing.open).sum()
    }

    pub(super) fn was_closed(&self) -> bool {
        self.writing.values().any(|writing| writing.closed > 0)
    }

    /// What it adds to the counts of a directory that holds a name of it.
    pub(super) fn as_entry(&self) -> Entries {
        let counts = self.kind == FileKind::File;
        Entries {
            all: 1,
            closed: u64::from(counts && self.was_closed()),
            open: u64::from(counts && self.writers() > 0),
        }
    }

    /// Closes by producers, as one of its names has it.
    fn closes_by(&self, name: &Name) -> u64 {
        let by_producers = self
            .writing
            .iter()
            .filter(|&(&step, _)| self.creator == Some(step) || name.roles.produces(step));
        by_producers.map(|(_, writing)| writing.closed).sum()
    }

    /// Whether the commit rule of one of its names is met by counting.
    pub(super) fn counts_suffice(&self, name: &Name) -> bool {
        match (&name.roles.commit, self.kind) {
            (CommitRule::OnClose { count }, FileKind::File) => self.closes_by(name) >= *count,
            (CommitRule::OnClose { count }, FileKind::Directory) => {
                self.entries.closed >= *count && self.entries.open == 0
            }
            (CommitRule::OnNFiles { count }, FileKind::Directory) => self.entries.all >= *count,
            _ => false,
        }
    }
}

impl Entries {
    pub(super) fn add(&mut self, other: Entries) {
        self.all += other.all;
        self.closed += other.closed;
        self.open += other.open;
    }

    pub(super) fn take(&mut self, other: Entries) {
        self.all = self.all.saturating_sub(other.all);
        self.closed = self.closed.saturating_sub(other.closed);
        self.open = self.open.saturating_sub(other.open);
    }
}

/// A file and where below the moved directory it lies (empty: it is the
/// directory itself).
pub(super) type Moved = (Vec<u8>, FileId);
