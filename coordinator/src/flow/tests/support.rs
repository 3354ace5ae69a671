//! Specs without documents, and sessions that read like stories.

use std::collections::BTreeMap;
use std::sync::Arc;

use capio_specs::{CommitRule, FiringRule, PathRules, StepIndex};

use crate::flow::{
    Below, Effect, Ending, FailurePolicy, FileId, FileKind, Flow, Missing, Reading, Resolution,
    Rules, StepId, WaitFor, WaitId, Warning,
};

/// A spec by exact paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) steps: Vec<String>,
    pub(super) paths: BTreeMap<Vec<u8>, PathRules>,
    /// Whether it answers what lies below a directory.
    pub(super) knows_below: bool,
}

impl Rules for Table {
    fn step_names(&self) -> Vec<String> {
        self.steps.clone()
    }

    fn rules_for(&self, path: &[u8]) -> PathRules {
        self.paths
            .get(path)
            .cloned()
            .unwrap_or_else(PathRules::unspecified)
    }

    fn steps_below(&self, dir: &[u8]) -> Below {
        let mut below = Below::default();
        for (path, rules) in &self.paths {
            if self.knows_below && path.starts_with(dir) && path.get(dir.len()) == Some(&b'/') {
                below.producers.extend(&rules.producers);
                below.consumers.extend(&rules.consumers);
            }
        }
        below
    }
}

impl Table {
    /// Steps with one-letter names.
    pub(super) fn of(steps: &str) -> Self {
        Self {
            steps: steps.chars().map(String::from).collect(),
            ..Self::default()
        }
    }

    /// `who` as in `"AB>C"`: A and B produce, C consumes.
    pub(super) fn path(self, path: &str, who: &str) -> Self {
        self.rule(path, who, CommitRule::OnTermination)
    }

    pub(super) fn rule(mut self, path: &str, who: &str, commit: CommitRule) -> Self {
        let (producers, consumers) = who.split_once('>').expect("AB>C");
        let rules = PathRules {
            producers: self.indices(producers),
            consumers: self.indices(consumers),
            commit,
            ..PathRules::unspecified()
        };
        self.paths.insert(path.into(), rules);
        self
    }

    fn indices(&self, letters: &str) -> Vec<StepIndex> {
        let index = |letter: char| self.steps.iter().position(|name| name.starts_with(letter));
        letters
            .chars()
            .map(|letter| StepIndex(index(letter).expect("known") as u32))
            .collect()
    }

    fn change(mut self, path: &str, change: impl FnOnce(&mut PathRules)) -> Self {
        change(self.paths.get_mut(path.as_bytes()).expect("said before"));
        self
    }

    pub(super) fn streaming(self, path: &str) -> Self {
        self.change(path, |rules| rules.firing = FiringRule::NoUpdate)
    }

    pub(super) fn excluded(self, path: &str) -> Self {
        self.change(path, |rules| rules.excluded = true)
    }

    pub(super) fn dirname(self, path: &str) -> Self {
        self.change(path, |rules| rules.is_directory = true)
    }

    pub(super) fn tells_below(mut self) -> Self {
        self.knows_below = true;
        self
    }

    pub(super) fn play(self) -> Story {
        self.play_with(FailurePolicy::Eio)
    }

    pub(super) fn play_with(self, policy: FailurePolicy) -> Story {
        Story {
            flow: Flow::new(Arc::new(self), policy),
            next: 0,
        }
    }
}

pub(super) fn on_close(count: u64) -> CommitRule {
    CommitRule::OnClose { count }
}

pub(super) fn on_file(deps: &[&str]) -> CommitRule {
    CommitRule::OnFile {
        deps: deps.iter().map(|dep| (*dep).to_owned()).collect(),
    }
}

pub(super) fn on_n_files(count: u64) -> CommitRule {
    CommitRule::OnNFiles { count }
}

/// A session whose steps are called by their letters.
pub(super) struct Story {
    pub(super) flow: Flow,
    next: u64,
}

impl Story {
    pub(super) fn id(&mut self, step: char) -> StepId {
        self.flow.step(&step.to_string())
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn preexisting(&mut self, path: &str, kind: FileKind) -> FileId {
        let file = FileId(self.fresh());
        self.flow.preexisting(path.as_bytes(), file, kind);
        file
    }

    pub(super) fn create(&mut self, step: char, path: &str) -> FileId {
        self.make(step, path, FileKind::File)
    }

    pub(super) fn mkdir(&mut self, step: char, path: &str) -> FileId {
        self.make(step, path, FileKind::Directory)
    }

    fn make(&mut self, step: char, path: &str, kind: FileKind) -> FileId {
        let (file, step) = (FileId(self.fresh()), self.id(step));
        self.flow.created(path.as_bytes(), file, kind, Some(step));
        file
    }

    pub(super) fn open(&mut self, step: char, file: FileId) {
        let step = self.id(step);
        self.flow.writer_opened(file, step);
    }

    pub(super) fn close(&mut self, step: char, file: FileId) {
        let step = self.id(step);
        self.flow.writer_closed(file, step);
    }

    /// One whole open, write and close.
    pub(super) fn write(&mut self, step: char, file: FileId) {
        self.open(step, file);
        self.close(step, file);
    }

    /// A whole new file.
    pub(super) fn make_whole(&mut self, step: char, path: &str) -> FileId {
        let file = self.create(step, path);
        self.write(step, file);
        file
    }

    pub(super) fn end(&mut self, step: char) {
        let step = self.id(step);
        self.flow.step_ended(step, Ending::Success);
    }

    pub(super) fn fail(&mut self, step: char) {
        let step = self.id(step);
        self.flow.step_ended(step, Ending::Failed);
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        self.flow.renamed(from.as_bytes(), to.as_bytes());
    }

    pub(super) fn unlink(&mut self, path: &str) {
        self.flow.unlinked(path.as_bytes());
    }

    pub(super) fn missing(&mut self, step: char, path: &str) -> Missing {
        let step = self.id(step);
        self.flow.missing(step, path.as_bytes())
    }

    pub(super) fn reading(&mut self, step: char, file: FileId, path: &str) -> Reading {
        let step = self.id(step);
        self.flow.reading(step, file, path.as_bytes())
    }

    pub(super) fn listing(&mut self, step: char, file: FileId, path: &str) -> Reading {
        let step = self.id(step);
        self.flow.listing(step, file, path.as_bytes())
    }

    /// A wait that must not be answered at once.
    pub(super) fn blocks(&mut self, step: char, target: WaitFor) -> WaitId {
        let (wait, step) = (WaitId(self.fresh()), self.id(step));
        assert_eq!(self.flow.wait(wait, step, target), None, "answered at once");
        wait
    }

    /// A wait that must be answered at once.
    pub(super) fn answer(&mut self, step: char, target: WaitFor) -> Resolution {
        let (wait, step) = (WaitId(self.fresh()), self.id(step));
        self.flow.wait(wait, step, target).expect("must not wait")
    }

    /// Why the wait was released since the last look, if it was.
    pub(super) fn released(&mut self, wait: WaitId) -> Option<Resolution> {
        self.flow
            .take_effects()
            .into_iter()
            .find_map(|effect| match effect {
                Effect::Released(id, resolution) if id == wait => Some(resolution),
                _ => None,
            })
    }

    pub(super) fn warnings(&mut self) -> Vec<Warning> {
        let effects = self.flow.take_effects().into_iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Warning(warning) => Some(warning),
                _ => None,
            })
            .collect()
    }

    pub(super) fn is_final(&self, file: FileId) -> bool {
        self.flow.is_final(file)
    }
}

pub(super) fn path(path: &str) -> WaitFor {
    WaitFor::Path(path.into())
}
