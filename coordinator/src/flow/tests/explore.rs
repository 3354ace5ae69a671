//! Every reachable state of small workflows: three steps of one thread each,
//! three paths, all commit rules with all firing rules. In each state that can
//! be reached it is shown that
//!
//! * whoever waits is woken by the end of the steps that do not wait, in any
//!   case by the end of all other steps, and waits for no end of its own;
//! * if all steps that have not ended wait, the dead-lock is named;
//! * when all steps have ended nobody waits, and every file has its verdict;
//! * a verdict stays, and the failure of a step makes none of its files final.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use capio_specs::CommitRule;

use super::support::{Table, on_close, on_file};
use crate::flow::file::Verdict;
use crate::flow::{
    Effect, Ending, FailurePolicy, FileId, FileKind, Flow, Missing, Reading, StepId, WaitFor,
    WaitId,
};

const STEPS: [StepId; 3] = [StepId(0), StepId(1), StepId(2)];

/// What the steps of a workflow may try.
struct Stage {
    table: Table,
    paths: [&'static str; 3],
    /// Acts of each step besides closing and ending.
    budget: [u8; 3],
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Start(StepId),
    /// Open for writing, created if need be.
    Write(StepId, usize),
    Close(StepId),
    Read(StepId, usize),
    Rename(StepId, usize, usize),
    Unlink(StepId, usize),
    End(StepId, Ending),
}

#[derive(Clone)]
struct World {
    flow: Flow,
    /// The file that each step has open for writing.
    open: [Option<FileId>; 3],
    left: [u8; 3],
    trace: Vec<Act>,
}

impl World {
    fn new(stage: &Stage) -> Self {
        Self {
            flow: Flow::new(Arc::new(stage.table.clone()), FailurePolicy::Eio),
            open: [None; 3],
            left: stage.budget,
            trace: Vec::new(),
        }
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.flow.state, self.open, self.left).hash(&mut hasher);
        hasher.finish()
    }

    fn waits(&self, step: StepId) -> bool {
        self.flow.waits().any(|(wait, _, _)| wait == wait_of(step))
    }

    fn at(&self, path: &str) -> Option<FileId> {
        self.flow.state.names.get(path.as_bytes()).copied()
    }

    fn acts(&self, stage: &Stage) -> Vec<Act> {
        let mut acts = Vec::new();
        for step in STEPS.into_iter().filter(|&step| !self.flow.has_ended(step)) {
            acts.push(Act::End(step, Ending::Failed));
            if !self.waits(step) {
                acts.push(Act::End(step, Ending::Success));
                acts.extend(self.open[step.0 as usize].map(|_| Act::Close(step)));
                if self.left[step.0 as usize] > 0 {
                    self.acts_of(stage, step, &mut acts);
                }
            }
        }
        let joins = STEPS.into_iter().filter(|&step| self.flow.has_ended(step));
        acts.extend(
            joins
                .filter(|step| self.left[step.0 as usize] > 0)
                .map(Act::Start),
        );
        acts
    }

    fn acts_of(&self, stage: &Stage, step: StepId, acts: &mut Vec<Act>) {
        for (at, path) in stage.paths.into_iter().enumerate() {
            let said = stage.table.paths.get(path.as_bytes());
            let reads = said.is_some_and(|said| said.consumers.iter().any(|who| who.0 == step.0));
            let writes = match said {
                Some(said) => said.producers.iter().any(|who| who.0 == step.0),
                // For temporary files of one step.
                None => step == STEPS[0],
            };
            if reads {
                acts.push(Act::Read(step, at));
            }
            if writes && self.open[step.0 as usize].is_none() && path != "/d" {
                acts.push(Act::Write(step, at));
            }
            if self.at(path).is_some() && (reads || writes) && path != "/d" {
                acts.push(Act::Unlink(step, at));
                let others = (0..3).filter(|&to| to != at && stage.paths[to] != "/d");
                acts.extend(others.map(|to| Act::Rename(step, at, to)));
            }
        }
    }

    fn act(&mut self, stage: &Stage, act: Act) {
        self.trace.push(act);
        let path = |at: usize| stage.paths[at].as_bytes();
        if let Act::Start(step)
        | Act::Write(step, _)
        | Act::Read(step, _)
        | Act::Rename(step, _, _)
        | Act::Unlink(step, _) = act
        {
            self.left[step.0 as usize] -= 1;
        }
        match act {
            Act::Start(step) => self.flow.step_started(step),
            Act::Write(step, at) => self.write(step, stage.paths[at]),
            Act::Close(step) => self.close(step, true),
            Act::Read(step, at) => self.read(step, stage.paths[at]),
            Act::Rename(_, from, to) => self.flow.renamed(path(from), path(to)),
            Act::Unlink(_, at) => self.flow.unlinked(path(at)),
            Act::End(step, ending) => {
                self.flow.cancel(wait_of(step));
                self.close(step, ending == Ending::Success);
                self.flow.step_ended(step, ending);
            }
        }
        self.forget();
    }

    fn write(&mut self, step: StepId, path: &str) {
        let file = self.at(path).unwrap_or_else(|| {
            let unused = |id: &FileId| !self.flow.state.files.contains_key(id);
            let file = (0..).map(FileId).find(unused).expect("endless");
            self.flow
                .created(path.as_bytes(), file, FileKind::File, Some(step));
            file
        });
        self.flow.writer_opened(file, step);
        self.open[step.0 as usize] = Some(file);
    }

    fn close(&mut self, step: StepId, whole: bool) {
        match self.open[step.0 as usize].take() {
            Some(file) if whole => self.flow.writer_closed(file, step),
            Some(file) => self.flow.writer_died(file, step),
            None => {}
        }
    }

    fn read(&mut self, step: StepId, path: &str) {
        let Some(file) = self.at(path) else {
            let verdict = self.flow.missing(step, path.as_bytes());
            let answer = self
                .flow
                .wait(wait_of(step), step, WaitFor::Path(path.into()));
            assert_eq!(verdict == Missing::Wait, answer.is_none());
            return;
        };
        let (reading, target) = match path {
            "/d" => (self.flow.listing(step, file, b"/d"), WaitFor::Listing(file)),
            _ => (
                self.flow.reading(step, file, path.as_bytes()),
                WaitFor::Final(file),
            ),
        };
        let answer = match reading {
            Reading::Free | Reading::Failed(_) => return,
            Reading::UntilFinal => self.flow.wait(wait_of(step), step, target),
            Reading::Stream => self.flow.wait(wait_of(step), step, WaitFor::Data(file)),
        };
        assert_eq!(answer, None, "a wait is told where there is none");
    }

    fn forget(&mut self) {
        let state = &self.flow.state;
        let gone = |id: &FileId| {
            !state.names.values().any(|file| file == id)
                && !self.open.contains(&Some(*id))
                && state.waits.for_file(*id).is_empty()
        };
        for id in state.files.keys().copied().filter(gone).collect::<Vec<_>>() {
            self.flow.forgotten(id);
        }
    }

    fn verdicts(&self) -> impl Iterator<Item = (FileId, Verdict)> {
        self.flow
            .state
            .files
            .iter()
            .map(|(&id, file)| (id, file.verdict))
    }
}

fn wait_of(step: StepId) -> WaitId {
    WaitId(u64::from(step.0))
}

/// Visits every state; returns how many there are.
fn explore(stage: &Stage) -> usize {
    let first = World::new(stage);
    let mut seen = HashSet::from([first.fingerprint()]);
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        for act in world.acts(stage) {
            let mut next = world.clone();
            next.act(stage, act);
            check_step(&world, act, &mut next);
            if seen.insert(next.fingerprint()) {
                check_state(&next);
                open.push(next);
            }
        }
    }
    seen.len()
}

/// What one act may and may not do.
fn check_step(before: &World, act: Act, after: &mut World) {
    for effect in after.flow.take_effects() {
        let Effect::Finalized(id) = effect else {
            continue;
        };
        if let (Act::End(step, Ending::Failed), Some(file)) =
            (act, before.flow.state.files.get(&id))
        {
            assert_ne!(
                file.creator,
                Some(step),
                "success of a failed step: {:?}",
                after.trace
            );
        }
    }
    for (id, verdict) in before
        .verdicts()
        .filter(|(_, verdict)| *verdict != Verdict::Open)
    {
        // A number free again may be another file's by now.
        let known = after.flow.state.files.get(&id).is_some_and(|file| {
            file.names
                .iter()
                .map(|name| &name.path)
                .eq(before.flow.state.files[&id]
                    .names
                    .iter()
                    .map(|name| &name.path))
        });
        if known {
            assert_eq!(
                after.flow.state.files[&id].verdict, verdict,
                "{:?}",
                after.trace
            );
        }
    }
}

fn check_state(world: &World) {
    let state = &world.flow.state;
    assert!(state.dirty.is_empty() && state.appeared.is_empty() && state.effects.is_empty());
    let living = STEPS
        .into_iter()
        .filter(|&step| !world.flow.has_ended(step));
    let stuck = living.clone().count() > 0 && living.clone().all(|step| world.waits(step));
    if stuck {
        check_diagnosis(world);
    }
    if living.count() == 0 {
        assert_eq!(world.flow.waits().count(), 0, "{:?}", world.trace);
        assert!(
            world
                .verdicts()
                .all(|(_, verdict)| verdict != Verdict::Open),
            "{:?}",
            world.trace
        );
        assert!(
            state.unfinished.values().all(|files| files.is_empty()),
            "{:?}",
            world.trace
        );
        assert!(state.dependents.is_empty(), "{:?}", world.trace);
    }
    for (_, step, target) in world.flow.waits() {
        check_wait(world, step, target);
    }
}

fn check_diagnosis(world: &World) {
    let cycle = world
        .flow
        .cycle()
        .unwrap_or_else(|| panic!("unnamed: {:?}", world.trace));
    for (at, (waiting, _, on)) in cycle.iter().enumerate() {
        assert!(world.waits(*waiting), "{:?}", world.trace);
        assert_eq!(*on, cycle[(at + 1) % cycle.len()].0, "{:?}", world.trace);
        assert_ne!(waiting, on, "{:?}", world.trace);
    }
    let mut broken = world.clone();
    let all: Vec<WaitId> = broken.flow.waits().map(|(wait, _, _)| wait).collect();
    broken.flow.break_waits(&all);
    assert_eq!(broken.flow.take_effects().len(), all.len());
    assert_eq!(broken.flow.waits().count(), 0);
}

fn check_wait(world: &World, step: StepId, target: &WaitFor) {
    let state = &world.flow.state;
    match target {
        WaitFor::Path(path) => assert!(!state.names.contains_key(path.as_slice())),
        WaitFor::Final(id) | WaitFor::Listing(id) | WaitFor::Data(id) => {
            assert!(
                !state.files[id].is_producer(step),
                "waits for itself: {:?}",
                world.trace
            );
            assert_eq!(state.files[id].verdict, Verdict::Open);
        }
    }
    for ending in [Ending::Success, Ending::Failed] {
        let mut later = world.flow.clone();
        for other in STEPS.into_iter().filter(|&other| other != step) {
            later.step_ended(other, ending);
        }
        let waits = later.waits().any(|(wait, _, _)| wait == wait_of(step));
        assert!(!waits, "{step:?} waits for ever after {:?}", world.trace);
    }
}

/// Producers and consumers of three paths; `-` for a path that the spec does
/// not name.
const GRAPHS: [[&str; 3]; 9] = [
    // A chain, with and without a path for temporary files.
    ["A>B", "B>C", "-"],
    ["A>B", "B>C", "C>A"],
    // One for many, many for one.
    ["A>BC", "B>C", "-"],
    ["AB>C", "A>B", "-"],
    ["ABC>C", "AB>BC", "-"],
    // Each waits for the other.
    ["A>B", "B>A", "-"],
    // In both streams, alone and with others.
    ["A>AB", "B>C", "-"],
    ["AB>AB", "C>A", "-"],
    // Nobody produces it.
    [">A", "A>B", "AB>C"],
];

fn commit_rules(at: usize, paths: [&str; 3]) -> [CommitRule; 4] {
    let next = paths[(at + 1) % 3];
    [
        CommitRule::OnTermination,
        on_close(1),
        on_close(2),
        on_file(&[next]),
    ]
}

fn stage(graph: [&str; 3], rules: [usize; 3], streams: [bool; 3], budget: [u8; 3]) -> Stage {
    let paths = ["/a", "/b", "/c"];
    let mut table = Table::of("ABC");
    for (at, path) in paths
        .into_iter()
        .enumerate()
        .filter(|(at, _)| graph[*at] != "-")
    {
        table = table.rule(path, graph[at], commit_rules(at, paths)[rules[at]].clone());
        if streams[at] {
            table = table.streaming(path);
        }
    }
    Stage {
        table,
        paths,
        budget,
    }
}

fn triples(options: usize) -> impl Iterator<Item = [usize; 3]> {
    (0..options.pow(3)).map(move |n| [n % options, n / options % options, n / options.pow(2)])
}

/// Explores every graph under every combination of commit rules, each step
/// with `budget` acts besides closing and ending; the number of states.
fn explore_all(graphs: &[[&str; 3]], budget: [u8; 3]) -> usize {
    let mut states = 0;
    for &graph in graphs {
        for rules in triples(4).filter(|rules| graph[2] != "-" || rules[2] == 0) {
            let streams = [rules[0] % 2 == 0, rules[1] > 1, false];
            states += explore(&stage(graph, rules, streams, budget));
        }
    }
    states
}

#[test]
fn nobody_waits_for_ever_under_any_rules() {
    assert!(explore_all(&GRAPHS, [1, 1, 1]) > 10_000);
}

/// With more acts a step in `scripts/test --long`, which sets the variable.
#[test]
fn nobody_waits_for_ever_however_much_happens() {
    let long = std::env::var_os("CAPIO_TEST_LONG").is_some();
    let graphs = if long { &GRAPHS[..] } else { &GRAPHS[..1] };
    assert!(explore_all(graphs, [2, 1, 1]) > 10_000);
}
