//! The workflows that are explored.

use std::fmt;
use std::sync::Arc;

use capio_specs::{CommitRule, StepIndex};

use crate::flow::FailurePolicy;
use crate::flow::tests::support::{Table, on_close, on_file};

pub(super) const PATHS: [&str; 4] = ["/a", "/b", "/c", "/d"];

/// A workflow, and what its steps may try.
pub(super) struct Stage {
    pub(super) table: Arc<Table>,
    /// Opens of each step, of files and of paths without one.
    pub(super) budget: [u8; 4],
    /// How often something rare may happen, and what.
    pub(super) rare: u8,
    pub(super) kinds: Vec<Rare>,
    pub(super) policy: FailurePolicy,
    /// Whether a step with a killed process may end well (`--continue-on-error`).
    pub(super) forgiving: bool,
    /// A step that does nothing before it has joined, maybe after all others.
    pub(super) late: Option<usize>,
    /// A path where a file lay before the session.
    pub(super) before: Option<usize>,
    /// Whether consumers write too.
    pub(super) scribbling: bool,
}

/// What is rare in programs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rare {
    StartAgain,
    Kill,
    Rename,
    Exchange,
    Link,
    Unlink,
}

const ALL_RARE: [Rare; 6] = [
    Rare::StartAgain,
    Rare::Kill,
    Rare::Rename,
    Rare::Exchange,
    Rare::Link,
    Rare::Unlink,
];

impl fmt::Debug for Stage {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        for (path, said) in &self.table.paths {
            let path = String::from_utf8_lossy(path);
            let steps = |steps: &[StepIndex]| steps.iter().map(|step| step.0).collect::<Vec<_>>();
            let (from, to) = (steps(&said.producers), steps(&said.consumers));
            let (commit, firing) = (&said.commit, said.firing);
            writeln!(out, "{path}: {from:?} > {to:?}, {commit:?}, {firing:?}")?;
        }
        let (budget, rare, policy) = (self.budget, self.rare, self.policy);
        writeln!(
            out,
            "budget {budget:?} and {rare} of {:?}, {policy:?}",
            self.kinds
        )?;
        let (forgiving, scribbling) = (self.forgiving, self.scribbling);
        write!(out, "forgiving {forgiving}, scribbling {scribbling}, ")?;
        write!(out, "late {:?}, before {:?}", self.late, self.before)
    }
}

/// Producers and consumers of the paths; `-` for one that the spec does not
/// name.
const GRAPHS: [[&str; 4]; 12] = [
    // A chain, with and without a path for temporary files.
    ["A>B", "B>C", "C>D", "-"],
    ["A>B", "B>C", "C>D", "D>A"],
    // One for many, many for one, both.
    ["A>BCD", "B>D", "C>D", "-"],
    ["ABC>D", "A>B", "B>C", "-"],
    ["A>BC", "B>D", "C>D", "-"],
    ["ABCD>D", "AB>CD", "CD>AB", "-"],
    ["A>B", "A>C", "A>D", "BCD>A"],
    // Each waits for the other.
    ["A>B", "B>A", "C>D", "D>C"],
    ["AB>CD", "CD>AB", "-", "-"],
    // In both streams, alone and with others.
    ["AB>AB", "C>A", "D>B", "-"],
    ["A>AB", "B>C", "C>D", "-"],
    // Nobody produces it.
    [">A", "A>B", "AB>C", "C>D"],
];

/// How much happens in each workflow.
#[derive(Clone, Copy)]
pub(super) enum Size {
    /// Little, in many.
    Wide,
    /// Much, in few.
    Deep,
}

/// A row of numbers that looks random, the same in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed >> 33) % sides as u64) as usize
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.throw(sides) == 0
    }
}

/// The first so many workflows of that size, every graph in turn.
pub(super) fn stages(size: Size, count: usize) -> Vec<Stage> {
    let mut dice = Dice(0);
    let graphs = GRAPHS.iter().cycle().take(count);
    graphs.map(|graph| stage(*graph, size, &mut dice)).collect()
}

fn stage(graph: [&str; 4], size: Size, dice: &mut Dice) -> Stage {
    let (budget, rare, kinds) = match size {
        Size::Wide => (dealt(3, dice), 1, 2),
        Size::Deep => ([1; 4], 2, 3),
    };
    Stage {
        table: Arc::new(table(graph, dice)),
        budget,
        rare,
        kinds: (0..kinds).map(|_| ALL_RARE[dice.throw(6)]).collect(),
        policy: match dice.throw(3) {
            0 => FailurePolicy::NotFound,
            _ => FailurePolicy::Eio,
        },
        forgiving: dice.one_in(4),
        late: dice.one_in(2).then(|| dice.throw(4)),
        before: dice.one_in(6).then(|| dice.throw(4)),
        scribbling: dice.one_in(6),
    }
}

/// So many acts, each given to some step.
fn dealt(acts: usize, dice: &mut Dice) -> [u8; 4] {
    let mut budget = [0; 4];
    for _ in 0..acts {
        budget[dice.throw(4)] += 1;
    }
    budget
}

fn table(graph: [&str; 4], dice: &mut Dice) -> Table {
    let mut table = Table::of("ABCD");
    for (at, path) in PATHS.into_iter().enumerate() {
        if graph[at] != "-" {
            table = table.rule(path, graph[at], commit_rule(at, dice));
            if dice.one_in(3) {
                table = table.streaming(path);
            }
        }
    }
    table
}

fn commit_rule(at: usize, dice: &mut Dice) -> CommitRule {
    let other = |by: usize| PATHS[(at + by) % 4];
    match dice.throw(7) {
        0 | 1 => CommitRule::OnTermination,
        2 => on_close(1),
        3 => on_close(2),
        4 => on_file(&[other(1)]),
        5 => on_file(&[other(1 + dice.throw(2)), other(3)]),
        _ => on_file(&[other(3), other(2), other(1)]),
    }
}
