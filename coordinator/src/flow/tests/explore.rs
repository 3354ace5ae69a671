//! Every reachable state of small workflows: four steps, four paths, all
//! commit rules with all firing rules, in many combinations. Steps start late,
//! end, fail and start again; a process is killed while its step goes on;
//! files are renamed, exchanged, linked and unlinked, also over others and
//! while they are open or waited for. In each state that can be reached it is
//! shown that
//!
//! * who waits, for what, and what every step would get at every path is what
//!   the naive model says;
//! * if all steps that have not ended wait, the dead-lock is named, and the
//!   last step that has not ended never waits: so that whoever waits is woken
//!   by the end of the others in any case, and waits for no end of its own;
//! * when all steps have ended nobody waits, every file has its verdict, and
//!   no index holds anything;
//!
//! and of each step from one state to the next that
//!
//! * a waiter is released by what the naive model names and by nothing
//!   before it, and a file becomes final by an event that a rule of it names;
//! * a verdict stays, and is told once, as is every release and warning;
//! * no failure makes a file final, nor does the end of its producers after a
//!   writer of it was killed, unless failures are to be gone on from.
//!
//! What is bounded: the opens of each step, the acts that are rare in
//! programs, and, of all combinations of roles and rules, how many are tried.
//! `CAPIO_TEST_LONG` (set by `scripts/test --long`) tries more of all.

mod checks;
mod stages;
mod world;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use checks::{check_act, check_state};
use stages::{Size, Stage, stages};
use world::{Act, World};

/// The way to the state that is looked at, shown if a check fails there.
struct Way<'a>(&'a Stage, Vec<Act>);

impl Drop for Way<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}\n{:?}", self.0, self.1);
        }
    }
}

/// States of one workflow that are visited: the few that have more are cut short.
const MOST: usize = 150_000;

/// What was seen of one workflow.
#[derive(Default)]
struct Seen {
    states: HashSet<u64>,
    acts: usize,
}

impl Seen {
    /// Visits all states that can be reached from this one.
    fn visit(&mut self, world: &World, way: &mut Way) {
        for act in world.acts(way.0) {
            if self.states.len() == MOST {
                return;
            }
            way.1.push(act);
            let mut next = world.clone();
            let effects = next.act(way.0, act);
            self.acts += 1;
            check_act(way.0, world, act, &next, &effects);
            next.forget();
            if self.states.insert(next.fingerprint()) {
                check_state(&next);
                self.visit(&next, way);
            }
            way.1.pop();
        }
    }
}

fn explore(stage: &Stage) -> Seen {
    let first = World::new(stage);
    let mut seen = Seen::default();
    seen.states.insert(first.fingerprint());
    seen.visit(&first, &mut Way(stage, Vec::new()));
    seen
}

/// Explores the workflows on so many threads; the number of states.
fn explore_all(stages: &[Stage], threads: usize) -> usize {
    let next = AtomicUsize::new(0);
    let (states, acts) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let cut = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(stage) = stages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let seen = explore(stage);
                    states.fetch_add(seen.states.len(), Ordering::Relaxed);
                    let is_cut = seen.states.len() == MOST;
                    cut.fetch_add(usize::from(is_cut), Ordering::Relaxed);
                    acts.fetch_add(seen.acts, Ordering::Relaxed);
                }
            });
        }
    });
    let (states, acts) = (states.into_inner(), acts.into_inner());
    let count = stages.len();
    let cut = cut.into_inner();
    println!("{count} workflows, {cut} of them in part: {states} states reached by {acts} acts");
    states
}

#[test]
fn nobody_waits_for_ever_under_any_rules() {
    let long = std::env::var_os("CAPIO_TEST_LONG").is_some();
    let (wide, deep, threads) = if long { (200, 4, 2) } else { (12, 0, 1) };
    let mut workflows = stages(Size::Wide, wide);
    workflows.extend(stages(Size::Deep, deep));
    let states = explore_all(&workflows, threads);
    assert!(states > 10_000 * wide, "little happens: {states}");
}
