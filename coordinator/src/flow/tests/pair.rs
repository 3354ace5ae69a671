//! The state machine and the naive model side by side.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::naive::{Event, Fate, Naive};
use super::support::Table;
use crate::flow::{Effect, FailurePolicy, FileId, Flow, Resolution, StepId, WaitId, Warning};

/// Both machines, told the same events.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) flow: Flow,
    pub(super) naive: Naive,
}

impl Pair {
    pub(super) fn new(table: &Arc<Table>, policy: FailurePolicy) -> Self {
        Self {
            flow: Flow::new(table.clone(), policy),
            naive: Naive::new(table.clone(), policy),
        }
    }

    /// Lets it happen to both and compares what followed. Gives the effects
    /// and the answer to a wait that was none.
    pub(super) fn happen(&mut self, event: &Event) -> (Vec<Effect>, Option<Resolution>) {
        let before = self.fates();
        let at_once = tell(&mut self.flow, event);
        self.naive.happen(event);
        let effects = self.flow.take_effects();
        self.compare_releases(&effects, at_once);
        self.compare_fates(&effects, &before);
        check_warnings(&effects);
        (effects, at_once.map(|(_, answer)| answer))
    }

    fn fates(&self) -> Vec<(FileId, Fate)> {
        let objects = self.naive.objects.iter();
        objects.map(|(&id, object)| (id, object.fate)).collect()
    }

    fn compare_releases(&self, effects: &[Effect], at_once: Option<(WaitId, Resolution)>) {
        let mut released = BTreeSet::from_iter(at_once);
        for effect in effects {
            if let &Effect::Released(wait, answer) = effect {
                assert!(released.insert((wait, answer)), "{wait:?} released twice");
            }
        }
        assert_eq!(released, self.naive.released);
        let registered = self.flow.waits().map(|(wait, _, _)| wait);
        assert!(registered.eq(self.naive.waits.keys().copied()));
    }

    /// The verdicts are the same, and each is told once, when it is given.
    fn compare_fates(&self, effects: &[Effect], before: &[(FileId, Fate)]) {
        for (&id, object) in &self.naive.objects {
            let fate = match (self.flow.is_final(id), self.flow.failed_by(id)) {
                (true, _) => Fate::Final,
                (_, Some(step)) => Fate::Failed(step),
                _ => Fate::Open,
            };
            assert_eq!(fate, object.fate, "{id:?}");
            let told = effects.iter().filter_map(|effect| match *effect {
                Effect::Finalized(file) if file == id => Some(Fate::Final),
                Effect::Failed(file, step) if file == id => Some(Fate::Failed(step)),
                _ => None,
            });
            let was = before.iter().find(|(file, _)| *file == id);
            let was = was.map_or(Fate::Open, |(_, fate)| *fate);
            let new = Some(fate).filter(|fate| *fate != was);
            assert!(told.eq(new), "{id:?} was {was:?}: {effects:?}");
        }
    }

    /// What each of the steps would get at each of the paths.
    pub(super) fn compare_verdicts(&self, steps: &[StepId], paths: &[&str]) {
        for (&step, path) in steps
            .iter()
            .flat_map(|step| paths.iter().map(move |path| (step, path)))
        {
            let path = path.as_bytes();
            match self.naive.names.get(path) {
                Some(&id) => {
                    let reading = self.naive.reading(step, id, path);
                    let listing = self.naive.listing(step, id, path);
                    assert_eq!(self.flow.reading(step, id, path), reading);
                    assert_eq!(self.flow.listing(step, id, path), listing);
                }
                None => assert_eq!(
                    self.flow.missing(step, path),
                    self.naive.missing(step, path),
                    "{step:?}"
                ),
            }
        }
    }
}

fn tell(flow: &mut Flow, event: &Event) -> Option<(WaitId, Resolution)> {
    match event.clone() {
        Event::Started(step) => flow.step_started(step),
        Event::Ended(step, ending) => flow.step_ended(step, ending),
        Event::Preexisting(path, id, kind) => flow.preexisting(&path, id, kind),
        Event::Created(path, id, kind, creator) => flow.created(&path, id, kind, creator),
        Event::Linked(path, id) => flow.linked(&path, id),
        Event::Renamed(from, to) => flow.renamed(&from, &to),
        Event::Exchanged(one, other) => flow.exchanged(&one, &other),
        Event::Unlinked(path) => flow.unlinked(&path),
        Event::Opened(id, step) => flow.writer_opened(id, step),
        Event::Closed(id, step) => flow.writer_closed(id, step),
        Event::Died(id, step) => flow.writer_died(id, step),
        Event::Forgotten(id) => flow.forgotten(id),
        Event::Cancel(wait) => flow.cancel(wait),
        Event::Wait(wait, step, target) => {
            return flow.wait(wait, step, target).map(|answer| (wait, answer));
        }
    }
    None
}

/// That a count was too low is told once, and only with the finality.
fn check_warnings(effects: &[Effect]) {
    let mut warned = BTreeSet::new();
    for effect in effects {
        if let Effect::Warning(Warning::FinalWhileOpen { file, .. }) = effect {
            assert!(warned.insert(*file), "warned twice: {effects:?}");
            assert!(effects.contains(&Effect::Finalized(*file)));
        }
    }
}
