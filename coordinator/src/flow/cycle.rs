//! Which steps wait on each other: the diagnosis of a dead-lock.

use std::collections::{BTreeMap, BTreeSet};

use capio_specs::CommitRule;

use super::file::File;
use super::state::{Law, State};
use super::types::{FileId, StepId, WaitFor};
use super::waits::Wait;

/// What a wait hangs on.
struct Need {
    /// A name of what is waited for.
    path: Vec<u8>,
    /// Steps that have not ended, the waiting one left out.
    steps: BTreeSet<StepId>,
    /// Whether all of them must act, so that one that cannot is enough to
    /// block; else any of them can end the wait.
    all: bool,
}

type Needs = BTreeMap<StepId, Vec<Need>>;

impl State {
    pub(super) fn cycle(&self, law: Law<'_>) -> Option<Vec<(StepId, Vec<u8>, StepId)>> {
        let mut needs = Needs::new();
        for (_, wait) in self.waits.iter() {
            needs
                .entry(wait.step)
                .or_default()
                .push(self.need(law, wait));
        }
        let blocked = blocked(&needs);
        walk(&needs, &blocked)
    }

    fn need(&self, law: Law<'_>, wait: &Wait) -> Need {
        let (path, mut steps, all) = match &wait.target {
            WaitFor::Path(path) => (path.clone(), wait.creators.iter().copied().collect(), false),
            WaitFor::Final(id) | WaitFor::Listing(id) | WaitFor::Data(id) => self.need_of(law, *id),
        };
        steps.retain(|&step| step != wait.step && !self.steps.ended(step));
        Need { path, steps, all }
    }

    fn need_of(&self, law: Law<'_>, id: FileId) -> (Vec<u8>, BTreeSet<StepId>, bool) {
        let Some(file) = self.files.get(&id) else {
            return (Vec::new(), BTreeSet::new(), false);
        };
        let mut steps = file.producers();
        for dep in dependencies(file) {
            match self
                .names
                .get(dep.as_bytes())
                .and_then(|id| self.files.get(id))
            {
                Some(file) => steps.extend(file.producers()),
                None => steps.extend(&self.roles(law, dep.as_bytes()).producers),
            }
        }
        let all = match file.names.as_slice() {
            [] => true,
            [name] => name.roles.commit == CommitRule::OnTermination,
            // Any of the names may do.
            _ => false,
        };
        (file.a_path(), steps, all)
    }
}

fn dependencies(file: &File) -> impl Iterator<Item = &String> {
    file.names
        .iter()
        .filter_map(|name| match &name.roles.commit {
            CommitRule::OnFile { deps } => Some(deps),
            _ => None,
        })
        .flatten()
}

/// The largest set of steps that all wait for acts of each other alone.
fn blocked(needs: &Needs) -> BTreeSet<StepId> {
    let mut blocked: BTreeSet<StepId> = needs.keys().copied().collect();
    loop {
        let stays = |step: &StepId| {
            needs
                .get(step)
                .is_some_and(|needs| needs.iter().any(|need| need.hopeless(&blocked)))
        };
        let next: BTreeSet<StepId> = blocked.iter().copied().filter(stays).collect();
        if next.len() == blocked.len() {
            return blocked;
        }
        blocked = next;
    }
}

impl Need {
    fn hopeless(&self, blocked: &BTreeSet<StepId>) -> bool {
        let mut hopeless = self.steps.iter().map(|step| blocked.contains(step));
        if self.all {
            hopeless.any(|no| no)
        } else {
            !self.steps.is_empty() && hopeless.all(|no| no)
        }
    }
}

/// Follows hopeless needs until a step comes up again.
fn walk(needs: &Needs, blocked: &BTreeSet<StepId>) -> Option<Vec<(StepId, Vec<u8>, StepId)>> {
    let mut step = *blocked.first()?;
    let mut way: Vec<(StepId, Vec<u8>, StepId)> = Vec::new();
    while !way.iter().any(|(from, _, _)| *from == step) {
        let need = needs
            .get(&step)?
            .iter()
            .find(|need| need.hopeless(blocked))?;
        let next = *need.steps.iter().find(|next| blocked.contains(next))?;
        way.push((step, need.path.clone(), next));
        step = next;
    }
    let start = way.iter().position(|(from, _, _)| *from == step)?;
    Some(way.split_off(start))
}
