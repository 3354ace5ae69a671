//! Which entry of a document gave a path its rules, and why that one.

use std::fmt::{self, Write as _};

use serde_json::json;

use crate::fnmatch::fnmatch;
use crate::index::Says;
use crate::model::{CommitRule, PathRules, StorageHint};
use crate::names;
use crate::spec::{Entry, Spec};

/// What a document says of one path, entry by entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The path, resolved; what is not UTF-8 in it is shown as `�`.
    pub path: String,
    /// The outcome.
    pub rules: PathRules,
    /// Names of the steps that may write it.
    pub producers: Vec<String>,
    /// Names of the steps that read it.
    pub consumers: Vec<String>,
    /// Every entry that matches, in the document's order.
    pub matches: Vec<Match>,
    /// Why commit rule, mode and kind are what they are.
    pub rule_because: String,
    /// Why the storage hint is what it is.
    pub storage_because: String,
    document: String,
}

/// An entry that matches the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Name or pattern, resolved.
    pub name: String,
    /// Where it stands: `output_stream`, `streaming`, `permanent`, ...
    pub section: &'static str,
    /// The step, for streams and rules.
    pub step: Option<String>,
    /// The alias that it comes from.
    pub alias: Option<String>,
    /// It is the path itself, not a pattern for it.
    pub exact: bool,
    /// It has a part in the outcome; else another entry beat it.
    pub decides: bool,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl Spec {
    /// Says which entries match `path` and which of them decide. A relative
    /// path resolves as the document's names do.
    #[must_use]
    pub fn explain(&self, path: &[u8]) -> Explanation {
        let path = self.resolve_path(path);
        let matching = self.matching(&path);
        let rule = winner(&matching, &path, |says| matches!(says, Says::Rule(_)));
        let storage = winner(&matching, &path, |says| matches!(says, Says::Storage(_)));
        let rules = self.rules_for(&path);
        let step_names = |steps: &[crate::StepIndex]| {
            let names = steps.iter().map(|step| self.step_name(*step).to_owned());
            names.collect()
        };
        Explanation {
            path: String::from_utf8_lossy(&path).into_owned(),
            producers: step_names(&rules.producers),
            consumers: step_names(&rules.consumers),
            matches: matching
                .iter()
                .enumerate()
                .map(|(i, entry)| {
                    let decides = match entry.says {
                        Says::Rule(_) => rule == Some(i),
                        Says::Storage(_) => storage == Some(i),
                        _ => true,
                    };
                    self.explain_match(entry, &path, decides)
                })
                .collect(),
            rule_because: because(&matching, rule, &path, "streaming", |says| {
                matches!(says, Says::Rule(_))
            }),
            storage_because: because(&matching, storage, &path, "storage", |says| {
                matches!(says, Says::Storage(_))
            }),
            rules,
            document: self.document.clone(),
        }
    }

    /// Entries that match a resolved path, in the document's order.
    fn matching(&self, path: &[u8]) -> Vec<&Entry> {
        let entries = self.entries.iter().filter(|entry| {
            let name = entry.name.as_bytes();
            name == path || (names::is_pattern(&entry.name) && fnmatch(name, path))
        });
        entries.collect()
    }

    /// The entry whose rule a resolved path takes.
    pub(crate) fn ruling_entry(&self, path: &[u8]) -> Option<&Entry> {
        let matching = self.matching(path);
        let winner = winner(&matching, path, |says| matches!(says, Says::Rule(_)))?;
        matching.get(winner).copied()
    }

    fn explain_match(&self, entry: &Entry, path: &[u8], decides: bool) -> Match {
        Match {
            name: entry.name.clone(),
            section: section(entry),
            step: entry.step().map(|step| self.step_name(step).to_owned()),
            alias: entry.alias.clone(),
            exact: entry.name.as_bytes() == path,
            decides,
            line: entry.at.line,
            column: entry.at.column,
        }
    }

    fn resolve_path(&self, path: &[u8]) -> Vec<u8> {
        // The file system's names need not be UTF-8; only what is can be
        // normalised here, and the rest must come absolute and normal.
        let Ok(text) = std::str::from_utf8(path) else {
            return path.to_vec();
        };
        match &self.prefix {
            Some(prefix) if !text.starts_with('/') => {
                names::normalise(&format!("{}/{text}", prefix.directory())).into_bytes()
            }
            _ => names::normalise(text).into_bytes(),
        }
    }
}

/// Index of the entry that gives an attribute: the exact one, else the
/// longest, else the first.
fn winner(matching: &[&Entry], path: &[u8], gives: impl Fn(&Says) -> bool) -> Option<usize> {
    let candidates = matching.iter().enumerate();
    let candidates = candidates.filter(|(_, entry)| gives(&entry.says));
    let best = candidates.min_by_key(|(_, entry)| {
        let name = entry.name.as_bytes();
        (name != path, std::cmp::Reverse(name.len()))
    });
    best.map(|(i, _)| i)
}

fn because(
    matching: &[&Entry],
    winner: Option<usize>,
    path: &[u8],
    section: &str,
    gives: impl Fn(&Says) -> bool,
) -> String {
    let Some(won) = winner.and_then(|i| matching.get(i)) else {
        return format!("default: no \"{section}\" entry matches");
    };
    let others = matching.iter().filter(|entry| gives(&entry.says)).count() - 1;
    let exact = won.name.as_bytes() == path;
    let reason = match (others, exact) {
        (0, true) => "names the path",
        (0, false) => "the only one that matches",
        (_, true) => "names the path, which beats patterns and later entries",
        (_, false) => "the longest pattern that matches, or the first of equals",
    };
    format!("{:?}, line {}: {reason}", won.name, won.at.line)
}

fn section(entry: &Entry) -> &'static str {
    match &entry.says {
        Says::Producer(_) => "output_stream",
        Says::Consumer(_) => "input_stream",
        Says::Rule(attributes) if attributes.is_directory => "streaming dirname",
        Says::Rule(_) => "streaming name",
        Says::Permanent => "permanent",
        Says::Excluded => "exclude",
        Says::Storage(StorageHint::Fs) => "storage fs",
        Says::Storage(_) => "storage memory",
    }
}

/// How tables and JSON name a storage hint.
pub(crate) fn storage_text(hint: StorageHint) -> Option<&'static str> {
    match hint {
        StorageHint::Unspecified => None,
        StorageHint::Memory => Some("memory"),
        StorageHint::Fs => Some("fs"),
    }
}

/// A commit rule with what it counts or waits for.
pub(crate) fn commit_text(rule: &CommitRule) -> String {
    match rule {
        CommitRule::OnFile { deps } => format!("on_file ({})", deps.join(", ")),
        CommitRule::OnNFiles { count } => format!("on_n_files ({count})"),
        rule => rule.to_string(),
    }
}

/// Rules as JSON, the same in every report.
pub(crate) fn rules_json(rules: &PathRules) -> serde_json::Value {
    let mut object = json!({
        "committed": match &rules.commit {
            CommitRule::OnClose { count } => format!("on_close:{count}"),
            rule => rule.to_string(),
        },
        "mode": rules.firing.to_string(),
        "directory": rules.is_directory,
        "permanent": rules.permanent,
        "excluded": rules.excluded,
        "storage": storage_text(rules.storage),
    });
    if let Some(object) = object.as_object_mut() {
        match &rules.commit {
            CommitRule::OnFile { deps } => object.insert("file_deps".to_owned(), json!(deps)),
            CommitRule::OnNFiles { count } => object.insert("n_files".to_owned(), json!(count)),
            _ => None,
        };
    }
    object
}

impl Explanation {
    /// The explanation as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let matches = self.matches.iter().map(|entry| {
            json!({
                "name": entry.name,
                "section": entry.section,
                "step": entry.step,
                "alias": entry.alias,
                "exact": entry.exact,
                "decides": entry.decides,
                "line": entry.line,
                "column": entry.column,
            })
        });
        json!({
            "path": self.path,
            "document": self.document,
            "producers": self.producers,
            "consumers": self.consumers,
            "rules": rules_json(&self.rules),
            "rule_because": self.rule_because,
            "storage_because": self.storage_because,
            "matches": matches.collect::<Vec<_>>(),
        })
        .to_string()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = |names: &[String]| match names {
            [] => "no step".to_owned(),
            names => names.join(", "),
        };
        let rules = &self.rules;
        let kind = if rules.is_directory {
            "directory"
        } else {
            "file"
        };
        writeln!(f, "{}", self.path)?;
        writeln!(f, "  produced by  {}", steps(&self.producers))?;
        writeln!(f, "  consumed by  {}", steps(&self.consumers))?;
        writeln!(f, "  committed    {}", commit_text(&rules.commit))?;
        writeln!(f, "  mode         {}", rules.firing)?;
        writeln!(f, "  kind         {kind}")?;
        writeln!(f, "               ({})", self.rule_because)?;
        if let Some(storage) = storage_text(rules.storage) {
            writeln!(f, "  storage      {storage} ({})", self.storage_because)?;
        }
        for (yes, word) in [(rules.permanent, "permanent"), (rules.excluded, "excluded")] {
            if yes {
                writeln!(f, "  {word}")?;
            }
        }
        if self.matches.is_empty() {
            return write!(f, "  no entry of {} matches", self.document);
        }
        write!(f, "  entries that match:")?;
        self.matches.iter().try_for_each(|entry| {
            write!(
                f,
                "\n    {}:{}:{}: ",
                self.document, entry.line, entry.column
            )?;
            f.write_str(&entry.describe())
        })
    }
}

impl Match {
    fn describe(&self) -> String {
        let mut text = format!("{} {:?}", self.section, self.name);
        // Writing to a string cannot fail.
        if let Some(step) = &self.step {
            let _ = write!(text, " of step {step:?}");
        }
        if let Some(alias) = &self.alias {
            let _ = write!(text, " by alias {alias:?}");
        }
        text.push_str(if self.exact { ", exact" } else { ", pattern" });
        if !self.decides {
            text.push_str(", passed over");
        }
        text
    }
}
