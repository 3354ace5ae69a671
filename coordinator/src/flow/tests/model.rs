//! The state machine against the naive model, on random stories.

use std::sync::Arc;

use capio_specs::{CommitRule, FiringRule, PathRules, StepIndex};
use proptest::prelude::*;

use super::naive::{Event, Object};
use super::pair::Pair;
use super::support::Table;
use crate::flow::{Ending, FailurePolicy, FileId, FileKind, StepId, WaitFor, WaitId};

/// Steps of the spec, and one that it does not name.
const STEPS: u32 = 4;
const PATHS: [&str; 9] = [
    "/d", "/d/a", "/d/b", "/d/e", "/d/e/a", "/f", "/f/a", "/p", "/q",
];

fn commit() -> impl Strategy<Value = CommitRule> {
    let deps = proptest::collection::vec(proptest::sample::select(&PATHS[..]), 0..3);
    prop_oneof![
        Just(CommitRule::OnTermination),
        (1..3u64).prop_map(|count| CommitRule::OnClose { count }),
        (1..3u64).prop_map(|count| CommitRule::OnNFiles { count }),
        deps.prop_map(|deps| CommitRule::OnFile {
            deps: deps.into_iter().map(String::from).collect()
        }),
    ]
}

fn some_steps() -> impl Strategy<Value = Vec<StepIndex>> {
    proptest::collection::vec((0..STEPS - 1).prop_map(StepIndex), 0..3)
}

fn path_rules() -> impl Strategy<Value = PathRules> {
    (commit(), some_steps(), some_steps(), any::<bool>()).prop_map(
        |(commit, producers, consumers, streams)| PathRules {
            producers,
            consumers,
            commit,
            firing: if streams {
                FiringRule::NoUpdate
            } else {
                FiringRule::Update
            },
            ..PathRules::unspecified()
        },
    )
}

fn table() -> impl Strategy<Value = Table> {
    let rules =
        proptest::collection::vec(proptest::option::weighted(0.7, path_rules()), PATHS.len());
    rules.prop_map(|rules| {
        let mut table = Table::of("ABC");
        for (path, rules) in PATHS.iter().zip(rules) {
            if let Some(rules) = rules {
                table.paths.insert(path.as_bytes().to_vec(), rules);
            }
        }
        table
    })
}

/// Both machines, and the choice of events that make sense.
struct Story {
    pair: Pair,
    next: u64,
}

type Dice = (u8, u8, u8, u8);

fn pick<T: Copy>(from: &[T], dice: u8) -> Option<T> {
    from.get(usize::from(dice) % from.len().max(1)).copied()
}

impl Story {
    fn path(&self, dice: u8, taken: bool) -> Option<Vec<u8>> {
        let fit = |path: &&&str| self.pair.naive.names.contains_key(path.as_bytes()) == taken;
        let fitting: Vec<&str> = PATHS.iter().filter(fit).copied().collect();
        Some(pick(&fitting, dice)?.as_bytes().to_vec())
    }

    fn file(&self, dice: u8, fit: impl Fn(&Object) -> bool) -> Option<FileId> {
        let fitting = self
            .pair
            .naive
            .objects
            .iter()
            .filter(|(_, object)| fit(object));
        pick(&fitting.map(|(id, _)| *id).collect::<Vec<_>>(), dice)
    }

    fn is_empty_or_file(&self, path: &[u8]) -> bool {
        !self
            .pair
            .naive
            .names
            .keys()
            .any(|name| name.starts_with(&[path, b"/"].concat()))
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Names with something below them are directories; so that directories
    /// may also be named after their entries, nothing else is checked.
    fn kind(&self, path: &[u8]) -> FileKind {
        let directory = matches!(path, b"/d" | b"/d/e" | b"/f");
        if directory {
            FileKind::Directory
        } else {
            FileKind::File
        }
    }

    fn event(&mut self, (what, a, b, c): Dice) -> Option<Event> {
        let step = StepId(u32::from(a) % STEPS);
        let is_file = |object: &Object| object.kind == FileKind::File;
        Some(match what % 24 {
            0 if self.pair.naive.ended.contains_key(&step) => Event::Started(step),
            1 => Event::Ended(step, Ending::Success),
            2 => Event::Ended(step, Ending::Failed),
            3 => {
                let path = self.path(b, false)?;
                Event::Preexisting(path.clone(), FileId(self.fresh()), self.kind(&path))
            }
            4..=8 => {
                let path = self.path(b, false)?;
                let creator = (c % 5 != 0).then_some(step);
                Event::Created(
                    path.clone(),
                    FileId(self.fresh()),
                    self.kind(&path),
                    creator,
                )
            }
            9 => Event::Linked(
                self.path(b, false)
                    .filter(|path| self.kind(path) == FileKind::File)?,
                self.file(c, is_file)?,
            ),
            10 | 11 => self.rename(b, c)?,
            12 => self.exchange(b, c)?,
            13 => Event::Unlinked(
                self.path(b, true)
                    .filter(|path| self.is_empty_or_file(path))?,
            ),
            14..=16 => Event::Opened(self.file(b, is_file)?, step),
            17 | 18 => {
                let id = self.file(b, |object| !object.open.is_empty())?;
                let step = pick(&self.pair.naive.objects[&id].open, c)?;
                if what % 24 == 18 && c % 3 == 0 {
                    Event::Died(id, step)
                } else {
                    Event::Closed(id, step)
                }
            }
            19 => {
                let id = self.file(b, |object| object.open.is_empty())?;
                let named = self.pair.naive.names.values().any(|file| *file == id);
                (!named).then_some(Event::Forgotten(id))?
            }
            20 if c % 4 == 0 => Event::Cancel(*self.pair.naive.waits.keys().next()?),
            20 | 21 => Event::Wait(
                WaitId(self.fresh()),
                step,
                WaitFor::Path(PATHS[usize::from(b) % PATHS.len()].into()),
            ),
            22 | 23 => {
                let id = self.file(b, |_| true)?;
                let target = match c % 3 {
                    0 => WaitFor::Final(id),
                    1 => WaitFor::Listing(id),
                    _ => WaitFor::Data(id),
                };
                Event::Wait(WaitId(self.fresh()), step, target)
            }
            _ => return None,
        })
    }

    fn rename(&self, b: u8, c: u8) -> Option<Event> {
        let from = self.path(b, true)?;
        let to = pick(&PATHS, c)?.as_bytes().to_vec();
        let same = self.pair.naive.names.get(&from) == self.pair.naive.names.get(&to);
        let nested = to.starts_with(&[&from[..], b"/"].concat())
            || from.starts_with(&[&to[..], b"/"].concat());
        let fits = !same && !nested && self.is_empty_or_file(&to);
        fits.then_some(Event::Renamed(from, to))
    }

    fn exchange(&self, b: u8, c: u8) -> Option<Event> {
        let (one, other) = (self.path(b, true)?, self.path(c, true)?);
        let nested = other.starts_with(&[&one[..], b"/"].concat())
            || one.starts_with(&[&other[..], b"/"].concat());
        (one != other && !nested).then_some(Event::Exchanged(one, other))
    }
}

/// Tells the story up to a failure.
struct Told(Vec<Event>);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:#?}", self.0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn any_story_ends_as_the_rules_taken_one_by_one_say(
        table in table(),
        enoent in any::<bool>(),
        dice in proptest::collection::vec(any::<Dice>(), 1..60),
    ) {
        let policy = if enoent { FailurePolicy::NotFound } else { FailurePolicy::Eio };
        let mut pair = Pair::new(&Arc::new(table), policy);
        assert_eq!(pair.flow.step("D"), StepId(STEPS - 1));
        let mut story = Story { pair, next: 0 };
        let mut told = Told(Vec::new());
        for throw in dice {
            if let Some(event) = story.event(throw) {
                told.0.push(event.clone());
                story.pair.happen(&event);
                story.pair.compare_verdicts(&[0, 1, 2, 3].map(StepId), &PATHS);
            }
        }
    }
}
