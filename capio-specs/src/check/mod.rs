//! `capio check`: the table of files, and what will bite at run time.

mod graph;
mod warnings;

use std::collections::HashSet;
use std::fmt;

use serde_json::json;

use crate::document::Version;
use crate::explain::{commit_text, rules_json, storage_text};
use crate::model::PathRules;
use crate::spec::Spec;

/// What [`Spec::check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// The document, as messages show it.
    pub document: String,
    /// The workflow's name.
    pub name: String,
    /// Which CAPIO-CL it is written in.
    pub version: Version,
    /// What relative names resolve against, if anything.
    pub directory: Option<String>,
    /// Names of the steps.
    pub steps: Vec<String>,
    /// Every name and pattern of the document, in its order.
    pub files: Vec<FileRow>,
    /// What will or may go wrong, in the document's order.
    pub warnings: Vec<Warning>,
}

/// One name or pattern and what the document says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    /// Resolved.
    pub name: String,
    /// As it would stand in a document: relative to the directory if it lies
    /// there.
    pub shown: String,
    /// Names of the steps that may write it.
    pub producers: Vec<String>,
    /// Names of the steps that read it.
    pub consumers: Vec<String>,
    /// Its rules.
    pub rules: PathRules,
    /// Line where it first stands, from 1.
    pub line: usize,
}

/// How bad a [`Warning`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The run will or may go wrong.
    Warning,
    /// The run would be right, and could be faster or clearer.
    Advice,
}

/// Something that is allowed and probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// A stable name for programs, such as `not-produced`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is the matter.
    pub text: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What to do about it.
    pub hint: String,
}

impl Spec {
    /// Tabulates the document and says what will bite at run time. For
    /// people: it takes quadratic time in the number of names.
    #[must_use]
    pub fn check(&self) -> CheckReport {
        CheckReport {
            document: self.document.clone(),
            name: self.name.clone(),
            version: self.version,
            directory: self.prefix.as_ref().map(|dir| dir.directory().to_owned()),
            steps: self.steps.iter().map(|step| step.name.clone()).collect(),
            files: self.file_rows(),
            warnings: warnings::all(self),
        }
    }

    fn file_rows(&self) -> Vec<FileRow> {
        let mut seen = HashSet::new();
        let first = self.entries.iter().filter(|entry| seen.insert(&entry.name));
        let rows = first.map(|entry| {
            let rules = self.rules_for(entry.name.as_bytes());
            let names = |steps: &[crate::StepIndex]| {
                let names = steps.iter().map(|step| self.step_name(*step).to_owned());
                names.collect()
            };
            FileRow {
                name: entry.name.clone(),
                shown: self
                    .prefix
                    .as_ref()
                    .map_or(&*entry.name, |dir| dir.relative(&entry.name))
                    .to_owned(),
                producers: names(&rules.producers),
                consumers: names(&rules.consumers),
                rules,
                line: entry.at.line,
            }
        });
        rows.collect()
    }
}

impl FileRow {
    /// The cells of the table.
    fn cells(&self) -> [String; 6] {
        let steps = |names: &[String]| match names {
            [] => "-".to_owned(),
            names => names.join(","),
        };
        let rules = &self.rules;
        let flags = [
            rules.is_directory.then_some("directory"),
            rules.permanent.then_some("permanent"),
            rules.excluded.then_some("excluded"),
            storage_text(rules.storage),
        ];
        [
            self.shown.clone(),
            steps(&self.producers),
            steps(&self.consumers),
            commit_text(&rules.commit),
            rules.firing.to_string(),
            flags.into_iter().flatten().collect::<Vec<_>>().join(","),
        ]
    }
}

impl CheckReport {
    /// The report as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let files = self.files.iter().map(|row| {
            json!({
                "name": row.name,
                "producers": row.producers,
                "consumers": row.consumers,
                "rules": rules_json(&row.rules),
                "line": row.line,
            })
        });
        let warnings = self.warnings.iter().map(|warning| {
            json!({
                "code": warning.code,
                "severity": match warning.severity {
                    Severity::Warning => "warning",
                    Severity::Advice => "advice",
                },
                "text": warning.text,
                "line": warning.line,
                "column": warning.column,
                "hint": warning.hint,
            })
        });
        json!({
            "document": self.document,
            "name": self.name,
            "directory": self.directory,
            "version": self.version.to_string(),
            "steps": self.steps,
            "files": files.collect::<Vec<_>>(),
            "warnings": warnings.collect::<Vec<_>>(),
        })
        .to_string()
    }
}

const HEADINGS: [&str; 6] = [
    "file",
    "produced by",
    "consumed by",
    "committed",
    "mode",
    "",
];

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "workflow {:?} (CAPIO-CL {}), {} step(s), {} name(s)",
            self.name,
            self.version,
            self.steps.len(),
            self.files.len()
        )?;
        if let Some(directory) = &self.directory {
            writeln!(f, "relative names are below {directory}")?;
        }
        let headings = HEADINGS.map(str::to_owned);
        let rows = std::iter::once(headings).chain(self.files.iter().map(FileRow::cells));
        table(f, &rows.collect::<Vec<_>>())?;
        for warning in &self.warnings {
            let word = match warning.severity {
                Severity::Warning => "warning",
                Severity::Advice => "advice",
            };
            let place = (warning.line, warning.column);
            write!(f, "\n{}:{}:{}: {word}", self.document, place.0, place.1)?;
            write!(f, " [{}]: {}; {}", warning.code, warning.text, warning.hint)?;
        }
        Ok(())
    }
}

/// Columns as wide as their widest cell, without trailing blanks.
fn table(f: &mut fmt::Formatter<'_>, rows: &[[String; 6]]) -> fmt::Result {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells = row.iter().zip(widths);
        let padded = cells.map(|(cell, width)| format!("{cell:width$}"));
        writeln!(f, "  {}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
