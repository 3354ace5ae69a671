//! One state of a workflow, and what can happen in it.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::stages::{PATHS, Rare, Stage};
use crate::flow::tests::naive::Event;
use crate::flow::tests::pair::Pair;
use crate::flow::{
    Effect, Ending, FileId, FileKind, Missing, Reading, Resolution, StepId, WaitFor, WaitId,
};

pub(super) const STEPS: [StepId; 4] = [StepId(0), StepId(1), StepId(2), StepId(3)];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Act {
    /// A process of the step starts, late or after the step had ended.
    Start(StepId),
    /// Open for writing, created if need be.
    Write(StepId, usize),
    Close(StepId),
    Read(StepId, usize),
    /// The stream that the step waits for has grown.
    Bytes(StepId),
    /// Its process is killed and reaped; the step goes on with another.
    Kill(StepId),
    End(StepId, Ending),
    Rename(usize, usize),
    Exchange(usize, usize),
    Link(usize, usize),
    Unlink(usize),
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) pair: Pair,
    /// The file that each step has open for writing.
    pub(super) open: [Option<FileId>; 4],
    left: [u8; 4],
    rare: u8,
    pub(super) away: [bool; 4],
    /// Steps with a process that was killed.
    killed: [bool; 4],
    /// Files with the steps that were killed while they had it open.
    pub(super) torn: Vec<(FileId, StepId)>,
}

fn at(step: StepId) -> usize {
    step.0 as usize
}

pub(super) fn wait_of(step: StepId) -> WaitId {
    WaitId(u64::from(step.0))
}

fn path(at: usize) -> Vec<u8> {
    PATHS[at].into()
}

impl World {
    pub(super) fn new(stage: &Stage) -> Self {
        let mut pair = Pair::new(&stage.table, stage.policy);
        for step in STEPS {
            if stage.late != Some(at(step)) {
                pair.happen(&Event::Started(step));
            }
        }
        if let Some(at) = stage.before {
            pair.happen(&Event::Preexisting(
                path(at),
                FileId(at as u64),
                FileKind::File,
            ));
        }
        let mut away = [false; 4];
        if let Some(late) = stage.late {
            away[late] = true;
        }
        Self {
            pair,
            open: [None; 4],
            left: stage.budget,
            rare: stage.rare,
            away,
            killed: [false; 4],
            torn: Vec::new(),
        }
    }

    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.pair.flow.state.hash(&mut hasher);
        self.pair.naive.facts().hash(&mut hasher);
        (self.open, self.left, self.rare, self.away, self.killed).hash(&mut hasher);
        self.torn.hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn waits(&self, step: StepId) -> bool {
        self.pair.naive.waits.contains_key(&wait_of(step))
    }

    pub(super) fn has_ended(&self, step: StepId) -> bool {
        self.pair.naive.ended.contains_key(&step)
    }

    fn file_at(&self, at: usize) -> Option<FileId> {
        self.pair.naive.names.get(PATHS[at].as_bytes()).copied()
    }
}

/// What can happen.
impl World {
    pub(super) fn acts(&self, stage: &Stage) -> Vec<Act> {
        let mut acts = Vec::new();
        for step in STEPS {
            if self.has_ended(step) {
                let again = self.can(stage, Rare::StartAgain) && self.left[at(step)] > 0;
                acts.extend(again.then_some(Act::Start(step)));
            } else if self.away[at(step)] {
                acts.extend([Act::Start(step), Act::End(step, Ending::Success)]);
            } else {
                self.acts_of(stage, step, &mut acts);
            }
        }
        let free =
            |&step: &StepId| !self.has_ended(step) && !self.away[at(step)] && !self.waits(step);
        if STEPS.iter().any(free) {
            self.acts_on_names(stage, &mut acts);
        }
        acts
    }

    fn acts_of(&self, stage: &Stage, step: StepId, acts: &mut Vec<Act>) {
        let waits = self.pair.naive.waits.get(&wait_of(step));
        let open = self.open[at(step)];
        acts.push(Act::End(step, Ending::Failed));
        if self.can(stage, Rare::Kill) && (waits.is_some() || open.is_some()) {
            acts.push(Act::Kill(step));
        }
        match waits {
            Some((_, WaitFor::Data(_))) => return acts.push(Act::Bytes(step)),
            Some(_) => return,
            None => {}
        }
        if stage.forgiving || !self.killed[at(step)] {
            acts.push(Act::End(step, Ending::Success));
        }
        acts.extend(open.map(|_| Act::Close(step)));
        if self.left[at(step)] > 0 {
            for path in 0..4 {
                let (writes, reads) = may(stage, step, path);
                acts.extend(reads.then_some(Act::Read(step, path)));
                acts.extend((writes && open.is_none()).then_some(Act::Write(step, path)));
            }
        }
    }

    fn can(&self, stage: &Stage, what: Rare) -> bool {
        self.rare > 0 && stage.kinds.contains(&what)
    }

    fn acts_on_names(&self, stage: &Stage, acts: &mut Vec<Act>) {
        let [rename, exchange, link, unlink] =
            [Rare::Rename, Rare::Exchange, Rare::Link, Rare::Unlink]
                .map(|what| self.can(stage, what));
        for from in 0..4 {
            let Some(file) = self.file_at(from) else {
                continue;
            };
            acts.extend(unlink.then_some(Act::Unlink(from)));
            for to in (0..4).filter(|&to| to != from) {
                let other = self.file_at(to);
                if other != Some(file) {
                    acts.extend(rename.then_some(Act::Rename(from, to)));
                    let both = other.is_some() && from < to;
                    acts.extend((exchange && both).then_some(Act::Exchange(from, to)));
                }
                acts.extend((link && other.is_none()).then_some(Act::Link(from, to)));
            }
        }
    }
}

/// Whether the step writes the path, and whether it reads it.
fn may(stage: &Stage, step: StepId, path: usize) -> (bool, bool) {
    let Some(said) = stage.table.paths.get(PATHS[path].as_bytes()) else {
        // For temporary files of one step.
        return (at(step) == 0, false);
    };
    let reads = said.consumers.iter().any(|who| who.0 == step.0);
    let writes = said.producers.iter().any(|who| who.0 == step.0);
    (writes || (reads && stage.scribbling), reads)
}

/// What happens then.
impl World {
    /// All effects, in order. What nobody can reach any more is still there.
    pub(super) fn act(&mut self, stage: &Stage, act: Act) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.pay(stage, act);
        match act {
            Act::Start(step) => {
                self.away[at(step)] = false;
                self.tell(Event::Started(step), &mut effects);
            }
            Act::Write(step, at) => self.write(step, at, &mut effects),
            Act::Close(step) => self.close(step, true, &mut effects),
            Act::Read(step, at) => self.read(step, at, &mut effects),
            Act::Bytes(step) => self.tell(Event::Cancel(wait_of(step)), &mut effects),
            Act::Kill(step) => {
                self.killed[at(step)] = true;
                self.leave(step, false, &mut effects);
            }
            Act::End(step, ending) => {
                self.leave(step, ending == Ending::Success, &mut effects);
                self.away[at(step)] = false;
                self.tell(Event::Ended(step, ending), &mut effects);
            }
            Act::Rename(from, to) => self.tell(Event::Renamed(path(from), path(to)), &mut effects),
            Act::Exchange(one, other) => {
                self.tell(Event::Exchanged(path(one), path(other)), &mut effects);
            }
            Act::Link(from, to) => {
                let file = self.file_at(from).expect("only what is there");
                self.tell(Event::Linked(path(to), file), &mut effects);
            }
            Act::Unlink(at) => self.tell(Event::Unlinked(path(at)), &mut effects),
        }
        self.give_back(&effects);
        effects
    }

    fn pay(&mut self, stage: &Stage, act: Act) {
        match act {
            Act::Write(step, _) | Act::Read(step, _) => self.left[at(step)] -= 1,
            Act::Start(step) if self.away[at(step)] && stage.late == Some(at(step)) => {}
            Act::Close(_) | Act::Bytes(_) | Act::End(_, _) => {}
            _ => self.rare -= 1,
        }
    }

    /// Who waited for a path opens it once more when it is there.
    fn give_back(&mut self, effects: &[Effect]) {
        for step in STEPS {
            let came = Effect::Released(wait_of(step), Resolution::Ready);
            if effects.contains(&came) {
                self.left[at(step)] += 1;
            }
        }
    }

    fn tell(&mut self, event: Event, effects: &mut Vec<Effect>) {
        let (more, answer) = self.pair.happen(&event);
        assert_eq!(answer, None, "a wait is told where there is none");
        effects.extend(more);
    }

    fn write(&mut self, step: StepId, at_path: usize, effects: &mut Vec<Effect>) {
        let file = self.file_at(at_path).unwrap_or_else(|| {
            // Numbers that do not tell which file came first.
            let unused = |id: &FileId| !self.pair.naive.objects.contains_key(id);
            let own = std::iter::once(at_path as u64);
            let file = own.chain(4..).map(FileId).find(unused).expect("endless");
            let created = Event::Created(path(at_path), file, FileKind::File, Some(step));
            self.tell(created, effects);
            file
        });
        self.tell(Event::Opened(file, step), effects);
        self.open[at(step)] = Some(file);
    }

    /// Its process is gone.
    fn leave(&mut self, step: StepId, whole: bool, effects: &mut Vec<Effect>) {
        if self.waits(step) {
            self.tell(Event::Cancel(wait_of(step)), effects);
        }
        self.close(step, whole, effects);
    }

    fn close(&mut self, step: StepId, whole: bool, effects: &mut Vec<Effect>) {
        let Some(file) = self.open[at(step)].take() else {
            return;
        };
        if whole {
            return self.tell(Event::Closed(file, step), effects);
        }
        if !self.torn.contains(&(file, step)) {
            self.torn.push((file, step));
            self.torn.sort_unstable();
        }
        self.tell(Event::Died(file, step), effects);
    }

    fn read(&mut self, step: StepId, at: usize, effects: &mut Vec<Effect>) {
        let target = match self.file_at(at) {
            None => match self.pair.flow.missing(step, PATHS[at].as_bytes()) {
                Missing::Wait => WaitFor::Path(path(at)),
                _ => return,
            },
            Some(file) => match self.pair.flow.reading(step, file, PATHS[at].as_bytes()) {
                Reading::Free | Reading::Failed(_) => return,
                Reading::UntilFinal => WaitFor::Final(file),
                Reading::Stream => WaitFor::Data(file),
            },
        };
        self.tell(Event::Wait(wait_of(step), step, target), effects);
    }

    /// Forgets the files that nobody can reach, of which nothing follows.
    pub(super) fn forget(&mut self) {
        let naive = &self.pair.naive;
        let waited = |id: FileId| {
            let targets = naive.waits.values().map(|(_, target)| target);
            targets.into_iter().any(|target| match target {
                WaitFor::Path(_) => false,
                WaitFor::Final(file) | WaitFor::Listing(file) | WaitFor::Data(file) => *file == id,
            })
        };
        let gone = |id: &FileId| {
            !naive.names.values().any(|file| file == id)
                && !self.open.contains(&Some(*id))
                && !waited(*id)
        };
        let gone: Vec<FileId> = naive.objects.keys().copied().filter(gone).collect();
        for id in gone {
            let mut effects = Vec::new();
            self.tell(Event::Forgotten(id), &mut effects);
            assert!(effects.is_empty(), "{effects:?}");
            self.torn.retain(|(file, _)| *file != id);
        }
    }
}
