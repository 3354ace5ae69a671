//! The steps of the workflow and how far each has come.

use std::collections::BTreeMap;

use super::types::{Ending, StepId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Life {
    /// Not started: it can still do anything.
    Ahead,
    Running,
    Ended(Ending),
}

#[derive(Clone, Debug, Hash)]
struct Step {
    name: String,
    life: Life,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Steps {
    all: Vec<Step>,
    by_name: BTreeMap<String, StepId>,
}

impl Steps {
    pub(super) fn new(names: Vec<String>) -> Self {
        let mut steps = Self {
            all: Vec::new(),
            by_name: BTreeMap::new(),
        };
        for name in names {
            // Never by look-up: the numbers must be the document's.
            steps.declare(name);
        }
        steps
    }

    fn declare(&mut self, name: String) -> StepId {
        let id = StepId(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        self.by_name.entry(name.clone()).or_insert(id);
        self.all.push(Step {
            name,
            life: Life::Ahead,
        });
        id
    }

    pub(super) fn find_or_declare(&mut self, name: &str) -> StepId {
        match self.by_name.get(name) {
            Some(&id) => id,
            None => self.declare(name.to_owned()),
        }
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    fn get(&self, id: StepId) -> Option<&Step> {
        self.all.get(id.0 as usize)
    }

    pub(super) fn name(&self, id: StepId) -> &str {
        self.get(id).map_or("?", |step| &step.name)
    }

    /// Whether it had ended before.
    pub(super) fn start(&mut self, id: StepId) -> bool {
        let Some(step) = self.all.get_mut(id.0 as usize) else {
            return false;
        };
        let joined = matches!(step.life, Life::Ended(_));
        step.life = Life::Running;
        joined
    }

    /// A failure told once is not taken back by a second end of the same run.
    pub(super) fn end(&mut self, id: StepId, ending: Ending) {
        if let Some(step) = self.all.get_mut(id.0 as usize)
            && step.life != Life::Ended(Ending::Failed)
        {
            step.life = Life::Ended(ending);
        }
    }

    /// A step that nobody declared can do nothing.
    pub(super) fn ended(&self, id: StepId) -> bool {
        self.get(id)
            .is_none_or(|step| matches!(step.life, Life::Ended(_)))
    }

    pub(super) fn failed(&self, id: StepId) -> bool {
        self.get(id)
            .is_some_and(|step| step.life == Life::Ended(Ending::Failed))
    }

    /// `None` while one of them can still act, else the first that failed.
    pub(super) fn outcome(
        &self,
        mut producers: impl Iterator<Item = StepId> + Clone,
    ) -> Option<Result<(), StepId>> {
        if !producers.clone().all(|step| self.ended(step)) {
            return None;
        }
        Some(
            producers
                .find(|&step| self.failed(step))
                .map_or(Ok(()), Err),
        )
    }
}
