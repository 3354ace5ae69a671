//! What holds in every state and of every act.

use capio_specs::CommitRule;

use super::stages::{PATHS, Stage};
use super::world::{Act, STEPS, World, wait_of};
use crate::flow::file::Verdict;
use crate::flow::{Effect, Ending, FileId, StepId, WaitFor};

/// What one act may and may not do.
pub(super) fn check_act(
    stage: &Stage,
    before: &World,
    act: Act,
    after: &World,
    effects: &[Effect],
) {
    let finals: Vec<FileId> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Finalized(id) => Some(*id),
            _ => None,
        })
        .collect();
    for &id in &finals {
        check_cause(stage, before, act, after, id);
    }
    for (id, file) in &before.pair.flow.state.files {
        if let Some(later) = after.pair.flow.state.files.get(id)
            && file.verdict != Verdict::Open
        {
            assert_eq!(later.verdict, file.verdict, "{id:?} is judged twice");
        }
    }
}

/// The act is one that a rule of the file names.
fn check_cause(stage: &Stage, before: &World, act: Act, after: &World, id: FileId) {
    let rules = after.pair.naive.commit_rules(id);
    let counts = rules
        .iter()
        .any(|rule| matches!(rule, CommitRule::OnClose { .. }));
    let follows = rules.iter().any(|rule| after.pair.naive.has_followed(rule));
    let torn = !stage.forgiving
        && after
            .torn
            .iter()
            .any(|&(file, step)| file == id && after.pair.naive.all_writers(id).contains(step));
    let by_rule = match act {
        Act::Close(step) | Act::End(step, Ending::Success) => {
            counts && before.open[step.0 as usize] == Some(id)
        }
        Act::Rename(..) | Act::Exchange(..) | Act::Link(..) => counts,
        _ => false,
    };
    let by_end = match act {
        Act::Rename(..) | Act::Exchange(..) | Act::Link(..) | Act::End(_, Ending::Success) => !torn,
        _ => false,
    };
    assert!(
        by_rule || by_end || follows,
        "{act:?} makes {id:?} final under {rules:?}"
    );
}

pub(super) fn check_state(world: &World) {
    let state = &world.pair.flow.state;
    assert!(state.dirty.is_empty() && state.appeared.is_empty() && state.effects.is_empty());
    let living: Vec<StepId> = STEPS
        .into_iter()
        .filter(|&step| !world.has_ended(step))
        .collect();
    world.pair.compare_verdicts(&living, &PATHS);
    match living.as_slice() {
        [] => check_end(world),
        [last] => assert!(!world.waits(*last), "{last:?} waits for ever"),
        _ if living.iter().all(|&step| world.waits(step)) => check_diagnosis(world),
        _ => {}
    }
    for (_, step, target) in world.pair.flow.waits() {
        check_wait(world, step, target);
    }
}

fn check_end(world: &World) {
    let state = &world.pair.flow.state;
    assert_eq!(world.pair.flow.waits().count(), 0);
    assert!(
        state
            .files
            .values()
            .all(|file| file.verdict != Verdict::Open)
    );
    assert!(state.unfinished.values().all(|files| files.is_empty()));
    assert!(state.dependents.is_empty());
}

fn check_diagnosis(world: &World) {
    let cycle = world.pair.flow.cycle().expect("a dead-lock has a name");
    for (at, (waiting, _, on)) in cycle.iter().enumerate() {
        assert!(world.waits(*waiting));
        assert_eq!(*on, cycle[(at + 1) % cycle.len()].0);
        assert_ne!(waiting, on);
    }
    let mut broken = world.pair.flow.clone();
    let all: Vec<_> = broken.waits().map(|(wait, _, _)| wait).collect();
    broken.break_waits(&all);
    assert_eq!(broken.take_effects().len(), all.len());
    assert_eq!(broken.waits().count(), 0);
}

fn check_wait(world: &World, step: StepId, target: &WaitFor) {
    let state = &world.pair.flow.state;
    assert!(!world.has_ended(step), "{:?} has no end", wait_of(step));
    match target {
        WaitFor::Path(path) => assert!(!state.names.contains_key(path.as_slice())),
        WaitFor::Final(id) | WaitFor::Listing(id) | WaitFor::Data(id) => {
            assert!(!state.files[id].is_producer(step), "waits for itself");
            assert_eq!(state.files[id].verdict, Verdict::Open);
        }
    }
}
