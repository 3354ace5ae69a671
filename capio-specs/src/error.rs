//! What is wrong with a document, where, and what would be right.

use std::fmt;

use crate::position::{Lines, Position};

/// What kind of mistake a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The document cannot be read.
    Unreadable,
    /// It is not JSON.
    Syntax,
    /// Its `version` is none of ours.
    Version,
    /// A key that does not belong there.
    UnknownKey,
    /// A key that is required there.
    MissingKey,
    /// A key that stands there twice.
    DuplicateKey,
    /// A value of another type than the key takes.
    WrongType,
    /// A value of the right type that means nothing.
    WrongValue,
    /// An alias that is defined twice or by itself.
    Alias,
    /// A file under two home-node policies.
    HomeNode,
    /// The file that `configuration` names cannot be used.
    Configuration,
    /// The directory that relative names resolve against cannot be used.
    ResolvePrefix,
}

/// One mistake in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of mistake it is.
    pub kind: ProblemKind,
    /// What is wrong, without the place.
    pub message: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What would have been right, where that can be said.
    pub expected: Option<String>,
    /// What to do about it, where that can be guessed.
    pub hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            line: 1,
            column: 1,
            expected: None,
            hint: None,
        }
    }

    pub(crate) fn expect(mut self, what: impl Into<String>) -> Self {
        self.expected = Some(what.into());
        self
    }

    pub(crate) fn hint(mut self, what: impl Into<String>) -> Self {
        self.hint = Some(what.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, ": expected {expected}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a document, in the document's order. It
/// prints one line a problem, each `document:line:column: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    document: String,
    first: Box<Problem>,
    others: Vec<Problem>,
}

impl SpecError {
    /// An error of the document as a whole.
    pub(crate) fn whole(document: &str, kind: ProblemKind, message: String) -> Self {
        Self {
            document: document.to_owned(),
            first: Box::new(Problem::new(kind, message)),
            others: Vec::new(),
        }
    }

    /// Name of the document, as messages show it.
    #[must_use]
    pub fn document(&self) -> &str {
        &self.document
    }

    /// All problems, at least one, in the document's order.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        std::iter::once(&*self.first).chain(&self.others)
    }

    /// Kind of the first problem.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        self.first.kind
    }

    /// Message of the first problem, without place, expectation and hint.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.first.message
    }

    /// Line of the first problem, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.first.line
    }

    /// Column of the first problem in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.first.column
    }

    /// What would have been right at the first problem.
    #[must_use]
    pub fn expected(&self) -> Option<&str> {
        self.first.expected.as_deref()
    }

    /// What to do about the first problem.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.first.hint.as_deref()
    }

    /// All problems as a JSON object `{"document", "errors": [...]}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let errors: Vec<_> = self
            .problems()
            .map(|problem| {
                serde_json::json!({
                    "line": problem.line,
                    "column": problem.column,
                    "message": problem.message,
                    "expected": problem.expected,
                    "hint": problem.hint,
                })
            })
            .collect();
        serde_json::json!({ "document": self.document, "errors": errors }).to_string()
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            let (line, column) = (problem.line, problem.column);
            write!(f, "{newline}{}:{line}:{column}: {problem}", self.document)?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecError {}

/// Collects the problems of one document.
pub(crate) struct Report<'t> {
    lines: &'t Lines<'t>,
    found: Vec<(usize, Problem)>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(lines: &'t Lines<'t>) -> Self {
        Self {
            lines,
            found: Vec::new(),
        }
    }

    /// Notes a problem at byte offset `at`.
    pub(crate) fn add(&mut self, at: usize, mut problem: Problem) {
        let position = self.lines.position(at);
        problem.line = position.line;
        problem.column = position.column;
        self.found.push((at, problem));
    }

    /// The place of byte offset `at`.
    pub(crate) fn position(&self, at: usize) -> Position {
        self.lines.position(at)
    }

    /// The error, or nothing when all was well.
    pub(crate) fn finish(mut self, document: &str) -> Result<(), SpecError> {
        self.found.sort_by_key(|(at, _)| *at);
        let mut problems = self.found.into_iter().map(|(_, problem)| problem);
        match problems.next() {
            None => Ok(()),
            Some(first) => Err(SpecError {
                document: document.to_owned(),
                first: Box::new(first),
                others: problems.collect(),
            }),
        }
    }
}
