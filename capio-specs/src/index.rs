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

/// Everything that entries of one name say; of attributes the first counts.
#[derive(Clone, Debug, Default)]
struct Facts {
    producers: Vec<StepIndex>,
    consumers: Vec<StepIndex>,
    attributes: Option<Attributes>,
    permanent: bool,
    excluded: bool,
    storage: Option<StorageHint>,
}

impl Facts {
    fn add(&mut self, says: Says) {
        match says {
            Says::Producer(step) => self.producers.push(step),
            Says::Consumer(step) => self.consumers.push(step),
            Says::Rule(attributes) => {
                self.attributes.get_or_insert(attributes);
            }
            Says::Permanent => self.permanent = true,
            Says::Excluded => self.excluded = true,
            Says::Storage(hint) => {
                self.storage.get_or_insert(hint);
            }
        }
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

/// All entries, exact names hashed, patterns longest first.
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
        for (name, says) in entries {
            let fresh = index.facts.len();
            let facts = *index.exact.entry(name.as_bytes().into()).or_insert(fresh);
            if facts == fresh {
                index.facts.push(Facts::default());
                if names::is_pattern(name) {
                    index.patterns.push(Pattern::new(name, facts));
                }
            }
            if let Some(facts) = index.facts.get_mut(facts) {
                facts.add(says);
            }
        }
        // Stable: of equally long ones the first in the document stays first.
        let longest_first = |pattern: &Pattern| std::cmp::Reverse(pattern.text.len());
        index.patterns.sort_by_key(longest_first);
        index
    }

    /// What the document says of `path`.
    pub(crate) fn rules_for(&self, path: &[u8]) -> PathRules {
        let exact = self.exact.get(path).copied();
        let patterns = self.patterns.iter().filter(|pattern| {
            // A pattern that equals the path was found as exact.
            Some(pattern.facts) != exact && pattern.matches(path)
        });
        let matching = exact
            .into_iter()
            .chain(patterns.map(|pattern| pattern.facts));
        let mut rules = PathRules::unspecified();
        let mut attributes = None;
        let mut storage = None;
        for facts in matching.filter_map(|facts| self.facts.get(facts)) {
            rules.producers.extend(&facts.producers);
            rules.consumers.extend(&facts.consumers);
            rules.permanent |= facts.permanent;
            rules.excluded |= facts.excluded;
            attributes = attributes.or(facts.attributes.as_ref());
            storage = storage.or(facts.storage);
        }
        in_document_order(&mut rules.producers);
        in_document_order(&mut rules.consumers);
        if let Some(attributes) = attributes {
            rules.commit = attributes.commit.clone();
            rules.firing = attributes.firing;
            rules.is_directory = attributes.is_directory;
        }
        rules.storage = storage.unwrap_or(StorageHint::Unspecified);
        rules
    }
}

fn in_document_order(steps: &mut Vec<StepIndex>) {
    steps.sort_unstable();
    steps.dedup();
}
