//! A document, resolved: all names absolute, aliases expanded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::configuration::Configuration;
use crate::document::Version;
use crate::error::{ProblemKind, Report, SpecError};
use crate::index::{Index, Says};
use crate::model::{CommitRule, FiringRule, PathRules, StepIndex, StorageHint};
use crate::names::Prefix;
use crate::position::{Lines, Position};
use crate::{json, resolve, schema};

/// What [`Spec::parse`] must know beside the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParseOptions {
    /// `CAPIO_DIR`: relative names resolve against it. It must be absolute.
    /// Without it relative names stay relative and match relative paths only.
    pub resolve_prefix: Option<PathBuf>,
    /// Where the text came from: for messages, and for a relative
    /// `configuration`.
    pub document: Option<PathBuf>,
}

/// A workflow's specification. Cheap to ask, costly to clone: share it.
#[derive(Clone, Debug)]
pub struct Spec {
    pub(crate) document: String,
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) prefix: Option<Prefix>,
    pub(crate) steps: Vec<Step>,
    pub(crate) aliases: Vec<Alias>,
    pub(crate) permanent: Vec<String>,
    pub(crate) exclude: Vec<String>,
    pub(crate) home_node_policies: HomeNodePolicies,
    pub(crate) storage: Storage,
    pub(crate) configuration: Option<Configuration>,
    /// Everything that bears on paths, in the document's order.
    pub(crate) entries: Vec<Entry>,
    pub(crate) step_names: HashMap<String, StepIndex>,
    pub(crate) index: Index,
    /// Steps whose name stood there before: they were added to the first.
    pub(crate) repeated_steps: Vec<(StepIndex, Position)>,
}

/// One name in one place of the document.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Resolved.
    pub(crate) name: String,
    pub(crate) says: Says,
    pub(crate) at: Position,
    /// The alias that it comes from.
    pub(crate) alias: Option<String>,
    /// The `streaming` item that holds it: step and index there.
    pub(crate) rule: Option<(StepIndex, usize)>,
}

impl Entry {
    /// The step whose streams or rules it stands in.
    pub(crate) fn step(&self) -> Option<StepIndex> {
        match self.says {
            Says::Producer(step) | Says::Consumer(step) => Some(step),
            _ => self.rule.map(|(step, _)| step),
        }
    }
}

/// A step of the workflow: one program, in one or more processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name, without white space.
    pub name: String,
    /// Resolved names and patterns of its `input_stream`.
    pub inputs: Vec<String>,
    /// Resolved names and patterns of its `output_stream`.
    pub outputs: Vec<String>,
    /// Its `streaming` items.
    pub streaming: Vec<StreamingRule>,
    /// Line where its name stands, from 1.
    pub line: usize,
}

/// An item of a step's `streaming`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamingRule {
    /// Resolved names and patterns that it is for.
    pub names: Vec<String>,
    /// They stand under `dirname`: directories.
    pub is_directory: bool,
    /// When they are final.
    pub commit: CommitRule,
    /// A count of closes was given (`on_close:1` says more than `on_close`).
    pub count_given: bool,
    /// When consumers may read them.
    pub firing: FiringRule,
    /// The `mode` was given and is not the default by omission.
    pub mode_given: bool,
    /// `n_files`, whether or not the commit rule counts entries.
    pub n_files: Option<u64>,
    /// `file_deps`, resolved, whether or not the commit rule waits for them.
    pub file_deps: Vec<String>,
    /// Line where the item begins, from 1.
    pub line: usize,
    /// Column where it begins, from 1.
    pub column: usize,
}

/// An alias with what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Its name.
    pub name: String,
    /// Resolved names and patterns, aliases within expanded.
    pub files: Vec<String>,
    /// Some name of the document is this alias.
    pub used: bool,
    /// Line where its name stands, from 1.
    pub line: usize,
    /// Column where its name stands, from 1.
    pub column: usize,
}

/// Section `home_node_policies`: kept, for sessions on several nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HomeNodePolicies {
    /// Files that live where they are created.
    pub create: Vec<String>,
    /// Files that live where their hash says.
    pub hashing: Vec<String>,
    /// Files that live on a named node.
    pub manual: Vec<ManualPlacement>,
}

/// An item of `home_node_policies.manual`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualPlacement {
    /// Resolved names and patterns.
    pub names: Vec<String>,
    /// The node.
    pub node: String,
}

/// Section `storage`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Resolved names and patterns that stay in memory.
    pub memory: Vec<String>,
    /// Resolved names and patterns that go to the store at once.
    pub fs: Vec<String>,
}

impl Storage {
    /// The list of one hint.
    #[must_use]
    pub fn of(&self, hint: StorageHint) -> &[String] {
        match hint {
            StorageHint::Unspecified => &[],
            StorageHint::Memory => &self.memory,
            StorageHint::Fs => &self.fs,
        }
    }
}

impl Spec {
    /// Reads a document from its text. The error holds everything that is
    /// wrong with it; when it is no JSON at all, the first such place.
    pub fn parse(text: &str, options: &ParseOptions) -> Result<Self, SpecError> {
        let document = display_name(options);
        let prefix = prefix(options, &document)?;
        // RFC 8259 lets a reader ignore a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = Lines::new(text);
        let mut report = Report::new(&lines);
        let spec = match json::parse(text) {
            Err(error) => {
                let problem = crate::Problem::new(ProblemKind::Syntax, error.message);
                report.add(error.at, problem.hint("the document must be JSON"));
                None
            }
            Ok(root) => schema::read(&root, &mut report)
                .map(|raw| resolve::resolve(&raw, prefix, options, &mut report)),
        };
        report.finish(&document)?;
        match spec {
            Some(spec) => Ok(Self { document, ..spec }),
            // Nothing read and nothing reported does not happen.
            None => Err(SpecError::whole(
                &document,
                ProblemKind::Syntax,
                "the document holds no specification".to_owned(),
            )),
        }
    }

    /// Reads the document at `path`, which also stands for
    /// [`ParseOptions::document`] when that is not given.
    pub fn load(path: &Path, options: &ParseOptions) -> Result<Self, SpecError> {
        let mut options = options.clone();
        options.document.get_or_insert_with(|| path.to_owned());
        let document = display_name(&options);
        let bytes = read_bounded(path).map_err(|error| {
            let message = format!("the document cannot be read: {error}");
            SpecError::whole(&document, ProblemKind::Unreadable, message)
        })?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, &options),
            Err(error) => Err(not_utf8(&document, &bytes, error.valid_up_to())),
        }
    }

    /// The specification of a session without a document: it says nothing of
    /// any path.
    #[must_use]
    pub fn empty(name: &str) -> Self {
        Self {
            document: "(no document)".to_owned(),
            name: name.to_owned(),
            version: Version::V1_0,
            prefix: None,
            steps: Vec::new(),
            aliases: Vec::new(),
            permanent: Vec::new(),
            exclude: Vec::new(),
            home_node_policies: HomeNodePolicies::default(),
            storage: Storage::default(),
            configuration: None,
            entries: Vec::new(),
            step_names: HashMap::new(),
            index: Index::default(),
            repeated_steps: Vec::new(),
        }
    }

    /// The workflow's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which CAPIO-CL the document is written in.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The steps, in the document's order; [`StepIndex`] counts them.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The step of that name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<StepIndex> {
        self.step_names.get(name).copied()
    }

    /// Everything the document says of an absolute, normalised path. Fast:
    /// one look-up, then the patterns whose literal ends fit.
    #[must_use]
    pub fn rules_for(&self, path: &[u8]) -> PathRules {
        self.index.rules_for(path)
    }

    /// Section `aliases`, expanded and resolved.
    #[must_use]
    pub fn aliases(&self) -> &[Alias] {
        &self.aliases
    }

    /// Section `permanent`: resolved names and patterns.
    #[must_use]
    pub fn permanent(&self) -> &[String] {
        &self.permanent
    }

    /// Section `exclude`: resolved names and patterns.
    #[must_use]
    pub fn exclude(&self) -> &[String] {
        &self.exclude
    }

    /// Section `home_node_policies`.
    #[must_use]
    pub fn home_node_policies(&self) -> &HomeNodePolicies {
        &self.home_node_policies
    }

    /// Section `storage`.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The TOML file that `configuration` names, read (CAPIO-CL 1.1).
    #[must_use]
    pub fn configuration(&self) -> Option<&Configuration> {
        self.configuration.as_ref()
    }

    pub(crate) fn step_name(&self, step: StepIndex) -> &str {
        let step = self.steps.get(step.0 as usize);
        step.map_or("", |step| &step.name)
    }
}

fn display_name(options: &ParseOptions) -> String {
    match &options.document {
        Some(path) => path.display().to_string(),
        None => "(document)".to_owned(),
    }
}

fn prefix(options: &ParseOptions, document: &str) -> Result<Option<Prefix>, SpecError> {
    let Some(directory) = &options.resolve_prefix else {
        return Ok(None);
    };
    let wrong = |what: &str| {
        let message = format!(
            "CAPIO_DIR {}, so names cannot resolve against it: {}",
            what,
            directory.display()
        );
        SpecError::whole(document, ProblemKind::ResolvePrefix, message)
    };
    match directory.to_str() {
        None => Err(wrong("is not UTF-8")),
        Some(text) if !text.starts_with('/') => Err(wrong("is not absolute")),
        Some(text) => Ok(Some(Prefix::new(text))),
    }
}

/// Longest document, in bytes: no person writes one, and a device has no end.
const MAX_DOCUMENT: u64 = 64 << 20;

/// All of a file, unless that is too long.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, Read};
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Error::other("it is longer than 64 MiB"));
    }
    Ok(bytes)
}

fn not_utf8(document: &str, bytes: &[u8], valid: usize) -> SpecError {
    let before = String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default());
    let lines = Lines::new(&before);
    let mut report = Report::new(&lines);
    let problem = crate::Problem::new(ProblemKind::Syntax, "the document is not UTF-8 here");
    report.add(valid, problem.hint("save it as UTF-8"));
    match report.finish(document) {
        Err(error) => error,
        Ok(()) => SpecError::whole(document, ProblemKind::Syntax, "not UTF-8".to_owned()),
    }
}
