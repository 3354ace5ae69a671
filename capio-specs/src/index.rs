//! From a path to what the document says of it; asked on every open.

use std::collections::HashMap;

use crate::fnmatch::fnmatch;
use crate::model::{CommitRule, FiringRule, PathRules, StepIndex, StorageHint};
use crate::names;

/// What an entry says of the paths it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    Producer(StepIndex),
    Consumer(StepIndex),
    /// Commit and firing rule, from a `streaming` item.
    Rule(Attributes),
    Permanent,
    Excluded,
    Storage(StorageHint),
}

/// What a `streaming` item gives, all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) commit: CommitRule,
    pub(crate) firing: FiringRule,
    pub(crate) is_directory: bool,
}

/// What one name gives of something that only one name can give: the first
/// entry of that name counts, with its place in the document.
type Given<T> = Option<(usize, T)>;

/// Everything that entries of one name say.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// Bytes of the name.
    length: usize,
    producers: Vec<StepIndex>,
    consumers: Vec<StepIndex>,
    attributes: Given<Attributes>,
    permanent: bool,
    excluded: bool,
    storage: Given<StorageHint>,
}

impl Facts {
    fn add(&mut self, place: usize, says: Says) {
        match says {
            Says::Producer(step) => self.producers.push(step),
            Says::Consumer(step) => self.consumers.push(step),
            Says::Rule(attributes) => {
                self.attributes.get_or_insert((place, attributes));
            }
            Says::Permanent => self.permanent = true,
            Says::Excluded => self.excluded = true,
            Says::Storage(hint) => {
                self.storage.get_or_insert((place, hint));
            }
        }
    }
}

/// The best giver so far: the longest name, of equally long ones the first.
struct Best<'i, T> {
    given: Option<(std::cmp::Reverse<usize>, usize, &'i T)>,
}

impl<'i, T> Best<'i, T> {
    fn none() -> Self {
        Self { given: None }
    }

    fn offer(&mut self, length: usize, given: &'i Given<T>) {
        if let Some((place, given)) = given {
            let key = (std::cmp::Reverse(length), *place);
            if self
                .given
                .is_none_or(|(length, place, _)| key < (length, place))
            {
                self.given = Some((key.0, key.1, given));
            }
        }
    }

    fn get(self) -> Option<&'i T> {
        self.given.map(|(_, _, given)| given)
    }
}

/// A pattern, with what rejects most paths before it is run.
#[derive(Clone, Debug)]
struct Pattern {
    text: Box<str>,
    prefix: usize,
    suffix: usize,
    facts: usize,
}

impl Pattern {
    fn new(text: &str, facts: usize) -> Self {
        Self {
            text: text.into(),
            prefix: names::literal_prefix(text).len(),
            suffix: names::literal_suffix(text).len(),
            facts,
        }
    }

    fn matches(&self, path: &[u8]) -> bool {
        let text = self.text.as_bytes();
        let Some((start, rest)) = text.split_at_checked(self.prefix) else {
            return false;
        };
        let Some(path) = path.strip_prefix(start) else {
            return false;
        };
        let end = text.get(text.len() - self.suffix..).unwrap_or_default();
        path.ends_with(end) && fnmatch(rest, path)
    }
}

/// All entries: names hashed, and the patterns among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    exact: HashMap<Box<[u8]>, usize>,
    patterns: Vec<Pattern>,
    facts: Vec<Facts>,
}

impl Index {
    /// Takes entries in the document's order.
    pub(crate) fn new<'e>(entries: impl IntoIterator<Item = (&'e str, Says)>) -> Self {
        let mut index = Self::default();
        for (place, (name, says)) in entries.into_iter().enumerate() {
            let fresh = index.facts.len();
            let facts = *index.exact.entry(name.as_bytes().into()).or_insert(fresh);
            if facts == fresh {
                index.facts.push(Facts {
                    length: name.len(),
                    ..Facts::default()
                });
                if names::is_pattern(name) {
                    index.patterns.push(Pattern::new(name, facts));
                }
            }
            if let Some(facts) = index.facts.get_mut(facts) {
                facts.add(place, says);
            }
        }
        index
    }

    /// What the document says of `path`.
    pub(crate) fn rules_for(&self, path: &[u8]) -> PathRules {
        let exact = self.exact.get(path).copied();
        let patterns = self.patterns.iter().filter(|pattern| {
            // A pattern that equals the path was found as exact.
            Some(pattern.facts) != exact && pattern.matches(path)
        });
        // The exact one beats the longest pattern.
        let exact = exact.map(|facts| (facts, Some(usize::MAX)));
        let patterns = patterns.map(|pattern| (pattern.facts, None));
        let mut rules = PathRules::unspecified();
        let (mut attributes, mut storage) = (Best::none(), Best::none());
        for (facts, length) in exact.into_iter().chain(patterns) {
            let Some(facts) = self.facts.get(facts) else {
                continue;
            };
            rules.producers.extend(&facts.producers);
            rules.consumers.extend(&facts.consumers);
            rules.permanent |= facts.permanent;
            rules.excluded |= facts.excluded;
            let length = length.unwrap_or(facts.length);
            attributes.offer(length, &facts.attributes);
            storage.offer(length, &facts.storage);
        }
        in_document_order(&mut rules.producers);
        in_document_order(&mut rules.consumers);
        if let Some(attributes) = attributes.get() {
            rules.commit = attributes.commit.clone();
            rules.firing = attributes.firing;
            rules.is_directory = attributes.is_directory;
        }
        rules.storage = storage.get().copied().unwrap_or(StorageHint::Unspecified);
        rules
    }
}

fn in_document_order(steps: &mut Vec<StepIndex>) {
    steps.sort_unstable();
    steps.dedup();
}
