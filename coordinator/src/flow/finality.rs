//! When a file is final, and what follows from it.

use std::collections::BTreeSet;

use capio_specs::CommitRule;

use super::file::{File, Path, Verdict};
use super::roles::{merge, sorted};
use super::state::{Law, State};
use super::types::{
    Effect, FailurePolicy, FileId, FileKind, Missing, Resolution, StepId, WaitFor, Warning,
};

impl State {
    /// Judges all files that the event touched, and those that depend on
    /// them, then wakes who waited for the names that it gave.
    pub(super) fn settle(&mut self) {
        let mut doomed = BTreeSet::new();
        while let Some(id) = self.dirty.pop_first() {
            self.warn_of_early_finality(id);
            match self.judge(id) {
                Verdict::Open => {}
                Verdict::Final => self.conclude(id, Verdict::Final),
                // Perhaps what it depends on becomes final by this event too.
                Verdict::Failed(_) => doomed.extend([id]),
            }
        }
        for id in doomed {
            if let verdict @ Verdict::Failed(_) = self.judge(id) {
                self.conclude(id, verdict);
            }
        }
        self.wake_for_names();
    }

    fn wake_for_names(&mut self) {
        for path in std::mem::take(&mut self.appeared) {
            if self.names.contains_key(&path) {
                for wait in self.waits.for_path(&path) {
                    self.release(wait, Resolution::Ready);
                }
            }
        }
    }

    /// A rule that is met goes first: what is committed is whole, whatever
    /// becomes of the producer.
    fn judge(&mut self, id: FileId) -> Verdict {
        let Some(file) = self.files.get(&id) else {
            return Verdict::Open;
        };
        if file.verdict != Verdict::Open {
            return Verdict::Open;
        }
        if file.names.iter().any(|name| file.counts_suffice(name)) || self.dependencies_final(id) {
            return Verdict::Final;
        }
        let Some(file) = self.files.get(&id) else {
            return Verdict::Open;
        };
        match self.failed_producer_of(file) {
            Some(step) => Verdict::Failed(step),
            None => self.judge_by_ends(file),
        }
    }

    /// A producer that had its hands on the file and failed.
    fn failed_producer_of(&self, file: &File) -> Option<StepId> {
        let hands = file.writing.keys().copied().chain(file.creator);
        hands
            .filter(|&step| self.steps.failed(step) && file.is_producer(step))
            .min()
    }

    /// The end of all its producers makes a file final under any rule; a
    /// failure among them leaves that to the other names.
    fn judge_by_ends(&self, file: &File) -> Verdict {
        if file.names.is_empty() {
            return match self.steps.outcome(file.creator.into_iter()) {
                Some(Ok(())) => Verdict::Final,
                Some(Err(step)) => Verdict::Failed(step),
                None => Verdict::Open,
            };
        }
        let mut culprit = None;
        let mut undecided = false;
        for name in &file.names {
            match self.steps.outcome(file.producers_by(name)) {
                Some(Ok(())) => return Verdict::Final,
                Some(Err(step)) => culprit = culprit.min(Some(step)).or(Some(step)),
                None => undecided = true,
            }
        }
        match culprit {
            Some(step) if !undecided => Verdict::Failed(step),
            _ => Verdict::Open,
        }
    }

    /// Looks for a dependency that is not final, and watches it. Only one is
    /// watched at a time, so that a file with many of them costs each of them
    /// little.
    fn dependencies_final(&mut self, id: FileId) -> bool {
        let Some(file) = self.files.get(&id) else {
            return false;
        };
        let mut watch = Vec::new();
        for (index, name) in file.names.iter().enumerate() {
            let CommitRule::OnFile { deps } = &name.roles.commit else {
                continue;
            };
            let turn = (name.cursor..deps.len()).chain(0..name.cursor.min(deps.len()));
            let mut turn = turn.filter_map(|at| deps.get(at).map(|dep| (at, dep)));
            match turn.find(|(_, dep)| !self.is_committed(dep.as_bytes())) {
                Some((at, dep)) => watch.push((index, at, Path::from(dep.as_bytes()))),
                // No dependency at all says nothing of when.
                None if deps.is_empty() => {}
                None => return true,
            }
        }
        for (index, at, dep) in watch {
            self.watch(id, index, at, dep);
        }
        false
    }

    fn watch(&mut self, id: FileId, name: usize, at: usize, dep: Path) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        if let Some(name) = file.names.get_mut(name) {
            name.cursor = at;
        }
        file.watching.insert(dep.clone());
        self.dependents.entry(dep).or_default().insert(id);
    }

    /// Whether a dependency is final, or was before its name went away.
    fn is_committed(&self, path: &[u8]) -> bool {
        match self.names.get(path) {
            Some(id) => self
                .files
                .get(id)
                .is_some_and(|file| file.verdict == Verdict::Final),
            None => self.committed.contains(path),
        }
    }

    /// Judges again who waits for `path` to be final, if it is.
    pub(super) fn wake_dependents_of(&mut self, id: FileId, path: &[u8]) {
        if self
            .files
            .get(&id)
            .is_some_and(|file| file.verdict == Verdict::Final)
            && let Some(dependents) = self.dependents.remove(path)
        {
            for &dependent in &dependents {
                if let Some(file) = self.files.get_mut(&dependent) {
                    file.watching.remove(path);
                }
            }
            self.dirty.extend(dependents);
        }
    }

    /// What needs no rule to be final.
    pub(super) fn finalize(&mut self, id: FileId) {
        self.dirty.remove(&id);
        self.conclude(id, Verdict::Final);
    }

    /// Pronounces a verdict, once for ever.
    fn conclude(&mut self, id: FileId, verdict: Verdict) {
        self.forget_indexes_of(id);
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        file.verdict = verdict;
        let paths: Vec<Path> = file.paths().cloned().collect();
        let (effect, resolution) = match verdict {
            Verdict::Failed(step) => (Effect::Failed(id, step), Resolution::ProducerFailed(step)),
            _ => (Effect::Finalized(id), Resolution::Ready),
        };
        self.effects.push_back(effect);
        for wait in self.waits.for_file(id) {
            self.release(wait, resolution);
        }
        for path in paths {
            self.wake_dependents_of(id, &path);
        }
    }

    /// Takes a file out of the indexes that could make it dirty.
    pub(super) fn forget_indexes_of(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        for step in std::mem::take(&mut file.hangs_on) {
            if let Some(files) = self.unfinished.get_mut(&step) {
                files.remove(&id);
            }
        }
        for path in std::mem::take(&mut file.watching) {
            if let Some(files) = self.dependents.get_mut(&path) {
                files.remove(&id);
                if files.is_empty() {
                    self.dependents.remove(&path);
                }
            }
        }
    }

    /// Two producers of an `on_close` file without a count look like this.
    fn warn_of_early_finality(&mut self, id: FileId) {
        let Some(file) = self.files.get(&id) else {
            return;
        };
        if file.verdict != Verdict::Open || file.kind != FileKind::File {
            return;
        }
        let writer = file.writing.iter().find(|(_, writing)| writing.open > 0);
        let Some((&step, _)) = writer else { return };
        if let Some(name) = file.names.iter().find(|name| file.counts_suffice(name)) {
            let path = name.path.to_vec();
            let warning = Warning::FinalWhileOpen {
                file: id,
                path,
                step,
            };
            self.effects.push_back(Effect::Warning(warning));
        }
    }

    /// The step has ended or will never start: what hung on it is judged.
    pub(super) fn step_is_over(&mut self, law: Law<'_>, step: StepId) {
        if let Some(files) = self.unfinished.get(&step) {
            self.dirty.extend(files);
        }
        self.settle();
        for wait in self.waits.for_creator(step) {
            let resolution = self.waits.get(wait).and_then(|wait| match &wait.target {
                WaitFor::Path(_) => self.never_comes(law, &wait.creators),
                _ => None,
            });
            if let Some(resolution) = resolution {
                self.release(wait, resolution);
            }
        }
    }

    /// What becomes of a missing path that only `creators` can make; `None`
    /// while one of them still can.
    fn never_comes(&self, law: Law<'_>, creators: &[StepId]) -> Option<Resolution> {
        let outcome = self.steps.outcome(creators.iter().copied())?;
        Some(match (outcome, law.policy) {
            (Err(step), FailurePolicy::Eio) => Resolution::ProducerFailed(step),
            _ => Resolution::NotFound,
        })
    }

    /// The verdict on a missing path for `step`, with the other steps that
    /// can create it.
    pub(super) fn missing(
        &self,
        law: Law<'_>,
        step: StepId,
        path: &[u8],
    ) -> (Missing, Vec<StepId>) {
        let (consumers, mut creators) = self.roles_of_missing(law, path);
        if consumers.binary_search(&step).is_err() {
            return (Missing::NotFound, Vec::new());
        }
        // Nobody waits for itself.
        creators.retain(|&creator| creator != step);
        let verdict = match self.never_comes(law, &creators) {
            None => Missing::Wait,
            Some(Resolution::ProducerFailed(culprit)) => Missing::ProducerFailed(culprit),
            Some(_) => Missing::NotFound,
        };
        (verdict, creators)
    }

    /// See [`Flow::is_awaited`](super::Flow::is_awaited).
    pub(super) fn is_awaited(&self, law: Law<'_>, path: &[u8]) -> bool {
        !self.roles_of_missing(law, path).0.is_empty()
    }

    fn roles_of_missing(&self, law: Law<'_>, path: &[u8]) -> (Vec<StepId>, Vec<StepId>) {
        let roles = self.roles(law, path);
        let below = law.rules.steps_below(path);
        let mut consumers = roles.consumers.clone();
        let mut creators = roles.producers.clone();
        merge(&mut consumers, &sorted(&below.consumers, law.known));
        merge(&mut creators, &sorted(&below.producers, law.known));
        (consumers, creators)
    }
}
