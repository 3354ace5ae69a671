//! The rules of waiting and finality once more, without a thought for speed:
//! after each event everything is worked out again from the bare facts.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

use capio_specs::{CommitRule, FiringRule, PathRules, StepIndex};

use super::support::Table;
use crate::flow::{
    Ending, FailurePolicy, FileId, FileKind, Missing, Reading, Resolution, StepId, WaitFor, WaitId,
};

#[derive(Clone, Debug)]
pub(super) enum Event {
    Started(StepId),
    Ended(StepId, Ending),
    Preexisting(Vec<u8>, FileId, FileKind),
    Created(Vec<u8>, FileId, FileKind, Option<StepId>),
    Linked(Vec<u8>, FileId),
    Renamed(Vec<u8>, Vec<u8>),
    Exchanged(Vec<u8>, Vec<u8>),
    Unlinked(Vec<u8>),
    Opened(FileId, StepId),
    Closed(FileId, StepId),
    Died(FileId, StepId),
    Forgotten(FileId),
    Wait(WaitId, StepId, WaitFor),
    Cancel(WaitId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    Open,
    Final,
    Failed(StepId),
}

#[derive(Clone, Hash)]
pub(super) struct Object {
    pub(super) kind: FileKind,
    creator: Option<StepId>,
    pub(super) fate: Fate,
    /// The name it had last, if it has none.
    last: Vec<u8>,
    /// Who has it open for writing, once for each time, in order.
    pub(super) open: Vec<StepId>,
    /// Whose closes it has had, in order.
    closed: Vec<StepId>,
    opened_by: BTreeSet<StepId>,
}

#[derive(Clone)]
pub(super) struct Naive {
    table: Arc<Table>,
    policy: FailurePolicy,
    pub(super) ended: BTreeMap<StepId, Ending>,
    pub(super) names: BTreeMap<Vec<u8>, FileId>,
    pub(super) objects: BTreeMap<FileId, Object>,
    once_final: BTreeSet<Vec<u8>>,
    pub(super) waits: BTreeMap<WaitId, (StepId, WaitFor)>,
    pub(super) released: BTreeSet<(WaitId, Resolution)>,
}

/// A set of steps, by number.
#[derive(Clone, Copy, Default)]
pub(super) struct Steps(u32);

impl Steps {
    fn of(indices: &[StepIndex]) -> Self {
        Self(indices.iter().fold(0, |set, step| set | 1 << step.0))
    }

    fn with(self, step: Option<StepId>) -> Self {
        Self(step.map_or(self.0, |step| self.0 | 1 << step.0))
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, step: StepId) -> Self {
        Self(self.0 & !(1 << step.0))
    }

    pub(super) fn contains(self, step: StepId) -> bool {
        self.0 & 1 << step.0 != 0
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first first.
    fn iter(self) -> impl Iterator<Item = StepId> {
        (0..u32::BITS)
            .map(StepId)
            .filter(move |step| self.contains(*step))
    }
}

impl Resolution {
    fn rank(self) -> (u8, u32) {
        match self {
            Self::Ready => (0, 0),
            Self::NotFound => (1, 0),
            Self::ProducerFailed(step) => (2, step.0),
            Self::Deadlock => (3, 0),
        }
    }
}

impl PartialOrd for Resolution {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Resolution {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Naive {
    pub(super) fn new(table: Arc<Table>, policy: FailurePolicy) -> Self {
        Self {
            table,
            policy,
            ended: BTreeMap::new(),
            names: BTreeMap::new(),
            objects: BTreeMap::new(),
            once_final: BTreeSet::new(),
            waits: BTreeMap::new(),
            released: BTreeSet::new(),
        }
    }

    /// All that the future hangs on, for telling states apart.
    pub(super) fn facts(&self) -> impl Hash + use<'_> {
        (
            &self.ended,
            &self.names,
            &self.objects,
            &self.once_final,
            &self.waits,
        )
    }

    pub(super) fn happen(&mut self, event: &Event) {
        self.released.clear();
        self.note(event);
        self.judge_all();
        self.answer_all();
    }

    fn note(&mut self, event: &Event) {
        match event.clone() {
            Event::Started(step) => {
                self.ended.remove(&step);
            }
            Event::Ended(step, ending) => {
                if self.ended.get(&step) != Some(&Ending::Failed) {
                    self.ended.insert(step, ending);
                }
            }
            Event::Preexisting(path, id, kind) => {
                self.object(id, kind, None);
                let grows = kind == FileKind::Directory && !self.writers_by_spec(&path).is_empty();
                if !grows {
                    self.objects.get_mut(&id).unwrap().fate = Fate::Final;
                }
                self.give(path, id);
            }
            Event::Created(path, id, kind, creator) => {
                self.object(id, kind, creator);
                self.give(path, id);
            }
            Event::Linked(path, id) => self.give(path, id),
            Event::Renamed(from, to) => {
                let moved = self.take_all(&from);
                self.take_all(&to);
                self.give_all(&to, moved);
            }
            Event::Exchanged(one, other) => {
                let (first, second) = (self.take_all(&one), self.take_all(&other));
                self.give_all(&one, second);
                self.give_all(&other, first);
            }
            Event::Unlinked(path) => self.take(&path),
            Event::Opened(id, step) => {
                let object = self.objects.get_mut(&id).unwrap();
                object.open.push(step);
                object.open.sort_unstable();
                object.opened_by.insert(step);
            }
            Event::Closed(id, step) => {
                self.close(id, step);
                let closed = &mut self.objects.get_mut(&id).unwrap().closed;
                closed.push(step);
                closed.sort_unstable();
            }
            Event::Died(id, step) => self.close(id, step),
            Event::Forgotten(id) => {
                self.objects.remove(&id);
            }
            Event::Wait(wait, step, target) => {
                self.waits.insert(wait, (step, target));
            }
            Event::Cancel(wait) => {
                self.waits.remove(&wait);
            }
        }
    }

    fn object(&mut self, id: FileId, kind: FileKind, creator: Option<StepId>) {
        let object = Object {
            kind,
            creator,
            fate: Fate::Open,
            last: Vec::new(),
            open: Vec::new(),
            closed: Vec::new(),
            opened_by: BTreeSet::new(),
        };
        self.objects.insert(id, object);
    }

    fn close(&mut self, id: FileId, step: StepId) {
        let open = &mut self.objects.get_mut(&id).unwrap().open;
        let at = open.iter().position(|&who| who == step).unwrap();
        open.remove(at);
    }

    fn give(&mut self, path: Vec<u8>, id: FileId) {
        self.once_final.remove(&path);
        if let Some(object) = self.objects.get_mut(&id) {
            object.last.clear();
        }
        self.names.insert(path, id);
    }

    fn take(&mut self, path: &[u8]) {
        if let Some(id) = self.names.remove(path) {
            let named = self.names.values().any(|file| *file == id);
            let object = self.objects.get_mut(&id).unwrap();
            if !named {
                object.last = path.to_vec();
            }
            if object.fate == Fate::Final {
                self.once_final.insert(path.to_vec());
            }
        }
    }

    fn take_all(&mut self, top: &[u8]) -> Vec<(Vec<u8>, FileId)> {
        let inside = |path: &[u8]| path.starts_with(&[top, b"/"].concat());
        let all: Vec<_> = self
            .names
            .iter()
            .filter(|(path, _)| *path == top || inside(path))
            .collect();
        let all: Vec<_> = all
            .into_iter()
            .map(|(path, id)| (path[top.len()..].to_vec(), *id))
            .collect();
        for (rest, _) in &all {
            self.take(&[top, rest].concat());
        }
        all
    }

    fn give_all(&mut self, top: &[u8], all: Vec<(Vec<u8>, FileId)>) {
        for (rest, id) in all {
            self.give([top, &rest[..]].concat(), id);
        }
    }

    fn judge_all(&mut self) {
        let ids: Vec<FileId> = self.objects.keys().copied().collect();
        // Dependencies may become final one after the other.
        let mut more = true;
        while std::mem::take(&mut more) {
            for &id in &ids {
                if self.objects[&id].fate == Fate::Open && self.is_met(id) {
                    self.objects.get_mut(&id).unwrap().fate = Fate::Final;
                    more = true;
                }
            }
        }
        for &id in &ids {
            if self.objects[&id].fate == Fate::Open
                && let Some(step) = self.culprit(id)
            {
                self.objects.get_mut(&id).unwrap().fate = Fate::Failed(step);
            }
        }
    }

    fn is_met(&self, id: FileId) -> bool {
        let by_rule = self
            .rule_paths(id)
            .iter()
            .any(|path| self.rule_met(id, path));
        let by_end = self.rule_paths(id).iter().any(|path| {
            self.writers(id, path)
                .iter()
                .all(|step| self.ended.get(&step) == Some(&Ending::Success))
        });
        by_rule || (by_end && self.hands(id).is_none())
    }

    /// A producer that failed after it had its hands on the file.
    fn hands(&self, id: FileId) -> Option<StepId> {
        let object = &self.objects[&id];
        let failed = self
            .all_writers(id)
            .iter()
            .filter(|step| self.has_failed(*step));
        failed
            .filter(|step| object.creator == Some(*step) || object.opened_by.contains(step))
            .min()
    }

    fn culprit(&self, id: FileId) -> Option<StepId> {
        if let Some(step) = self.hands(id) {
            return Some(step);
        }
        let all = self.all_writers(id);
        let over = all.iter().all(|step| self.ended.contains_key(&step));
        let failed = all.iter().find(|step| self.has_failed(*step));
        failed.filter(|_| over)
    }

    fn has_failed(&self, step: StepId) -> bool {
        self.ended.get(&step) == Some(&Ending::Failed)
    }

    fn paths(&self, id: FileId) -> Vec<Vec<u8>> {
        self.names
            .iter()
            .filter(|(_, file)| **file == id)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Its names, or the one it had last.
    fn rule_paths(&self, id: FileId) -> Vec<Vec<u8>> {
        let paths = self.paths(id);
        if paths.is_empty() {
            vec![self.objects[&id].last.clone()]
        } else {
            paths
        }
    }

    fn rule_met(&self, id: FileId, path: &[u8]) -> bool {
        let object = &self.objects[&id];
        let directory = object.kind == FileKind::Directory;
        match self.commit_rule(path) {
            CommitRule::OnTermination => false,
            CommitRule::OnClose { count } if directory => {
                let inside = self.inside(id);
                let files = inside.iter().filter(|file| file.kind == FileKind::File);
                let closed = files.clone().filter(|file| !file.closed.is_empty()).count();
                closed as u64 >= *count && files.clone().all(|file| file.open.is_empty())
            }
            CommitRule::OnClose { count } => {
                let writers = self.writers(id, path);
                let counted = object.closed.iter().filter(|step| writers.contains(**step));
                counted.count() as u64 >= *count
            }
            CommitRule::OnNFiles { count } => directory && self.inside(id).len() as u64 >= *count,
            rule @ CommitRule::OnFile { .. } => self.has_followed(rule),
        }
    }

    pub(super) fn commit_rules(&self, id: FileId) -> Vec<CommitRule> {
        let paths = self.rule_paths(id);
        let rules = paths.iter().map(|path| self.commit_rule(path).clone());
        rules.collect()
    }

    /// Whether it is met by files that are final.
    pub(super) fn has_followed(&self, rule: &CommitRule) -> bool {
        match rule {
            CommitRule::OnFile { deps } => {
                !deps.is_empty() && deps.iter().all(|dep| self.dep_final(dep.as_bytes()))
            }
            _ => false,
        }
    }

    fn dep_final(&self, path: &[u8]) -> bool {
        match self.names.get(path) {
            Some(id) => self.objects[id].fate == Fate::Final,
            None => self.once_final.contains(path),
        }
    }

    /// One object for each entry of the directory.
    fn inside(&self, dir: FileId) -> Vec<&Object> {
        let dirs = self.paths(dir);
        let inside = self.names.iter().filter(|(path, _)| {
            path.iter()
                .rposition(|&byte| byte == b'/')
                .is_some_and(|slash| dirs.contains(&path[..slash].to_vec()))
        });
        inside.map(|(_, id)| &self.objects[id]).collect()
    }

    /// The path and the directories above it.
    fn line(path: &[u8]) -> impl Iterator<Item = &[u8]> {
        let slashes = path
            .iter()
            .enumerate()
            .filter(|&(at, byte)| *byte == b'/' && at > 0);
        slashes.map(|(at, _)| &path[..at]).chain([path])
    }

    fn said(&self, path: &[u8]) -> Option<&PathRules> {
        self.table.paths.get(path)
    }

    fn commit_rule(&self, path: &[u8]) -> &CommitRule {
        self.said(path)
            .map_or(&CommitRule::OnTermination, |said| &said.commit)
    }

    fn writers_by_spec(&self, path: &[u8]) -> Steps {
        self.in_line(path, |said| &said.producers)
    }

    fn readers_by_spec(&self, path: &[u8]) -> Steps {
        self.in_line(path, |said| &said.consumers)
    }

    /// Steps that the spec names at the path or at a directory above it.
    fn in_line(&self, path: &[u8], steps: impl Fn(&PathRules) -> &[StepIndex]) -> Steps {
        let said = Self::line(path).filter_map(|path| self.said(path));
        said.fold(Steps::default(), |all, said| {
            all.and(Steps::of(steps(said)))
        })
    }

    fn writers(&self, id: FileId, path: &[u8]) -> Steps {
        self.writers_by_spec(path).with(self.objects[&id].creator)
    }

    pub(super) fn all_writers(&self, id: FileId) -> Steps {
        let paths = self.rule_paths(id);
        let writers = paths.iter().map(|path| self.writers(id, path));
        writers.fold(Steps::default(), Steps::and)
    }

    fn answer_all(&mut self) {
        for (wait, (step, target)) in self.waits.clone() {
            if let Some(resolution) = self.answer(step, &target) {
                self.waits.remove(&wait);
                self.released.insert((wait, resolution));
            }
        }
    }

    fn answer(&self, step: StepId, target: &WaitFor) -> Option<Resolution> {
        match target {
            WaitFor::Path(path) if self.names.contains_key(path) => Some(Resolution::Ready),
            WaitFor::Path(path) => match self.missing(step, path) {
                Missing::Wait => None,
                Missing::NotFound => Some(Resolution::NotFound),
                Missing::ProducerFailed(step) => Some(Resolution::ProducerFailed(step)),
            },
            WaitFor::Final(id) | WaitFor::Listing(id) | WaitFor::Data(id) => {
                let Some(object) = self.objects.get(id) else {
                    return Some(Resolution::NotFound);
                };
                if self.all_writers(*id).contains(step) {
                    return Some(Resolution::Ready);
                }
                match object.fate {
                    Fate::Open => None,
                    Fate::Final => Some(Resolution::Ready),
                    Fate::Failed(step) => Some(Resolution::ProducerFailed(step)),
                }
            }
        }
    }

    pub(super) fn missing(&self, step: StepId, path: &[u8]) -> Missing {
        let others = self.writers_by_spec(path).without(step);
        if !self.readers_by_spec(path).contains(step) {
            return Missing::NotFound;
        }
        if others.iter().any(|other| !self.ended.contains_key(&other)) {
            return Missing::Wait;
        }
        match others.iter().find(|other| self.has_failed(*other)) {
            Some(culprit) if self.policy == FailurePolicy::Eio => Missing::ProducerFailed(culprit),
            _ => Missing::NotFound,
        }
    }

    pub(super) fn reading(&self, step: StepId, id: FileId, path: &[u8]) -> Reading {
        let file = self.objects[&id].kind == FileKind::File;
        if file && self.readers_by_spec(path).contains(step) {
            self.reading_at(step, id, path)
        } else {
            Reading::Free
        }
    }

    pub(super) fn listing(&self, step: StepId, id: FileId, path: &[u8]) -> Reading {
        let named = self
            .said(path)
            .is_some_and(|said| Steps::of(&said.consumers).contains(step));
        if self.objects[&id].kind == FileKind::Directory && named {
            self.reading_at(step, id, path)
        } else {
            Reading::Free
        }
    }

    fn streams(&self, path: &[u8]) -> bool {
        self.said(path)
            .is_some_and(|said| said.firing == FiringRule::NoUpdate)
    }

    fn reading_at(&self, step: StepId, id: FileId, path: &[u8]) -> Reading {
        let writer = self.all_writers(id).contains(step) || self.writers(id, path).contains(step);
        match self.objects[&id].fate {
            _ if writer => Reading::Free,
            Fate::Final => Reading::Free,
            Fate::Failed(step) => Reading::Failed(step),
            Fate::Open if self.streams(path) => Reading::Stream,
            Fate::Open => Reading::UntilFinal,
        }
    }
}
