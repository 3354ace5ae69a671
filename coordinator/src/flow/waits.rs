//! The blocked calls, found by what they wait for.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{FileId, StepId, WaitFor, WaitId};

#[derive(Clone, Debug, Hash)]
pub(super) struct Wait {
    pub(super) step: StepId,
    pub(super) target: WaitFor,
    /// For a path: the other steps that can create it by the spec.
    pub(super) creators: Vec<StepId>,
}

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Waits {
    all: BTreeMap<WaitId, Wait>,
    by_path: BTreeMap<Vec<u8>, BTreeSet<WaitId>>,
    by_file: BTreeMap<FileId, BTreeSet<WaitId>>,
    by_creator: BTreeMap<StepId, BTreeSet<WaitId>>,
}

impl Waits {
    pub(super) fn insert(&mut self, id: WaitId, wait: Wait) {
        self.remove(id);
        match &wait.target {
            WaitFor::Path(path) => {
                add(&mut self.by_path, path.clone(), id);
                for &step in &wait.creators {
                    add(&mut self.by_creator, step, id);
                }
            }
            WaitFor::Final(file) | WaitFor::Listing(file) | WaitFor::Data(file) => {
                add(&mut self.by_file, *file, id);
            }
        }
        self.all.insert(id, wait);
    }

    pub(super) fn remove(&mut self, id: WaitId) -> Option<Wait> {
        let wait = self.all.remove(&id)?;
        match &wait.target {
            WaitFor::Path(path) => {
                take(&mut self.by_path, path, id);
                for step in &wait.creators {
                    take(&mut self.by_creator, step, id);
                }
            }
            WaitFor::Final(file) | WaitFor::Listing(file) | WaitFor::Data(file) => {
                take(&mut self.by_file, file, id);
            }
        }
        Some(wait)
    }

    pub(super) fn get(&self, id: WaitId) -> Option<&Wait> {
        self.all.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (WaitId, &Wait)> {
        self.all.iter().map(|(&id, wait)| (id, wait))
    }

    pub(super) fn for_path(&self, path: &[u8]) -> Vec<WaitId> {
        list(self.by_path.get(path))
    }

    pub(super) fn for_file(&self, file: FileId) -> Vec<WaitId> {
        list(self.by_file.get(&file))
    }

    pub(super) fn for_creator(&self, step: StepId) -> Vec<WaitId> {
        list(self.by_creator.get(&step))
    }
}

fn add<K: Ord>(index: &mut BTreeMap<K, BTreeSet<WaitId>>, key: K, id: WaitId) {
    index.entry(key).or_default().insert(id);
}

fn take<K, Q>(index: &mut BTreeMap<K, BTreeSet<WaitId>>, key: &Q, id: WaitId)
where
    K: Ord + std::borrow::Borrow<Q>,
    Q: Ord + ?Sized,
{
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

fn list(ids: Option<&BTreeSet<WaitId>>) -> Vec<WaitId> {
    ids.into_iter().flatten().copied().collect()
}
