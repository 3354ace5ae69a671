//! Who may write and who reads a path, as the spec has it.
//!
//! A step that writes (or reads) a directory writes (or reads) what lies in
//! it, at any depth: an `output_stream` of `out` matches no path below `out`
//! by itself, yet its step is the one that will create `out/part-1`. Commit
//! and firing rules are not handed down: those of a directory govern its list
//! of entries, not the files in it.

use std::sync::Arc;

use capio_specs::{CommitRule, FiringRule, PathRules, StepIndex};

use super::types::StepId;

/// What the state machine needs to know of the spec.
pub trait Rules {
    /// Names of the steps in document order.
    fn step_names(&self) -> Vec<String>;

    /// Everything said of one absolute path.
    fn rules_for(&self, path: &[u8]) -> PathRules;

    /// Steps with an entry for some path below the directory `dir`: who
    /// writes `out/x` may have to make `out` first, and who reads `out/x` may
    /// change into `out`. The answer may be incomplete (it is empty unless
    /// overridden): a missing directory is then not waited for.
    fn steps_below(&self, dir: &[u8]) -> Below {
        let _ = dir;
        Below::default()
    }
}

/// Steps that have to do with paths below a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below {
    /// Steps that write one.
    pub producers: Vec<StepIndex>,
    /// Steps that read one.
    pub consumers: Vec<StepIndex>,
}

/// The spec as it is shared by those who decide by it.
pub type SharedRules = Arc<dyn Rules + Send + Sync>;

/// What the spec says of one path; step lists are sorted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Roles {
    /// Of the path or of a directory above it.
    pub(super) producers: Vec<StepId>,
    /// Of the path or of a directory above it.
    pub(super) consumers: Vec<StepId>,
    /// Consumers of the path itself.
    pub(super) listers: Vec<StepId>,
    pub(super) commit: CommitRule,
    pub(super) firing: FiringRule,
}

impl Roles {
    pub(super) fn produces(&self, step: StepId) -> bool {
        self.producers.binary_search(&step).is_ok()
    }

    pub(super) fn consumes(&self, step: StepId) -> bool {
        self.consumers.binary_search(&step).is_ok()
    }

    /// The roles of `path` below a directory of the roles `above`. `known` is
    /// the number of steps in the document.
    pub(super) fn of(rules: &dyn Rules, known: usize, path: &[u8], above: Option<&Roles>) -> Self {
        let said = rules.rules_for(path);
        if said.excluded {
            // It lives on the real file system, where nobody waits.
            return Self::of_nobody();
        }
        let listers = sorted(&said.consumers, known);
        let mut roles = Self {
            producers: sorted(&said.producers, known),
            consumers: listers.clone(),
            listers,
            commit: said.commit,
            firing: said.firing,
        };
        if let Some(above) = above {
            merge(&mut roles.producers, &above.producers);
            merge(&mut roles.consumers, &above.consumers);
        }
        roles
    }

    fn of_nobody() -> Self {
        Self {
            producers: Vec::new(),
            consumers: Vec::new(),
            listers: Vec::new(),
            commit: CommitRule::OnTermination,
            firing: FiringRule::Update,
        }
    }
}

/// Adds `more` to the sorted list `steps`.
pub(super) fn merge(steps: &mut Vec<StepId>, more: &[StepId]) {
    steps.extend_from_slice(more);
    steps.sort_unstable();
    steps.dedup();
}

/// Drops numbers that are no step of the document: they would be taken for
/// steps declared later.
pub(super) fn sorted(steps: &[StepIndex], known: usize) -> Vec<StepId> {
    let mut ids: Vec<StepId> = steps
        .iter()
        .filter(|step| (step.0 as usize) < known)
        .map(|step| StepId(step.0))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The directory that holds `path`.
pub(super) fn parent(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|&byte| byte == b'/')?;
    match slash {
        0 if path.len() > 1 => Some(&path[..1]),
        0 => None,
        _ => Some(&path[..slash]),
    }
}

/// What every path below the directory begins with.
pub(super) fn prefix(dir: &[u8]) -> Vec<u8> {
    let mut prefix = dir.to_vec();
    if dir != b"/" {
        prefix.push(b'/');
    }
    prefix
}
