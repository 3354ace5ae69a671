//! The workflow file: which steps there are and how each is started.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use toml::Spanned;

/// Longest workflow file, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// Steps of a workflow; each may have many instances.
const MAX_STEPS: usize = 4096;

/// What a step runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A line for `sh -c`.
    Shell(String),
    /// A program and its arguments, never empty.
    Program(Vec<String>),
}

/// One step, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name, as in the spec.
    pub name: String,
    /// What it runs.
    pub command: Command,
    /// How many times at once, at least 1.
    pub instances: u32,
    /// Environment variables added to those of `capio`.
    pub env: BTreeMap<String, String>,
    /// Working directory, relative to the workflow's directory.
    pub cwd: Option<PathBuf>,
    /// Indices of the steps that must have ended well before it starts.
    pub after: Vec<usize>,
}

/// A workflow file or its equivalent from the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workflow {
    /// The CAPIO-CL document, resolved against the file's directory.
    pub spec: Option<PathBuf>,
    /// `CAPIO_DIR`, resolved against the file's directory.
    pub dir: Option<PathBuf>,
    /// In file order, at least one.
    pub steps: Vec<Step>,
}

impl Workflow {
    /// Whether any step names another in `after`.
    #[must_use]
    pub fn has_order(&self) -> bool {
        self.steps.iter().any(|step| !step.after.is_empty())
    }

    /// Reads a workflow file.
    ///
    /// # Errors
    /// One sentence with file, line, column and a hint.
    pub fn load(path: &Path) -> Result<Self, WorkflowError> {
        let text = read_bounded(path).map_err(|error| {
            WorkflowError(format!(
                "cannot read the workflow {}: {error}",
                path.display()
            ))
        })?;
        let mut workflow = Self::parse(&text, &path.display().to_string())?;
        let base = path.parent().unwrap_or(Path::new(""));
        for inner in [&mut workflow.spec, &mut workflow.dir]
            .into_iter()
            .flatten()
        {
            *inner = base.join(&*inner);
        }
        Ok(workflow)
    }

    /// Parses the text of a workflow file; `source` stands in messages.
    ///
    /// # Errors
    /// As [`Workflow::load`].
    pub fn parse(text: &str, source: &str) -> Result<Self, WorkflowError> {
        let at = Locator { text, source };
        let raw: RawWorkflow = toml::from_str(text)
            .map_err(|error| at.error(error.span(), &explain(error.message())))?;
        check_steps(&raw.step, &at)?;
        let steps = resolve(raw.step, &at)?;
        Ok(Self {
            spec: raw.spec,
            dir: raw.dir,
            steps,
        })
    }

    /// A workflow of `NAME=COMMAND` arguments, without any order.
    ///
    /// # Errors
    /// One sentence that quotes the argument.
    pub fn from_arguments(arguments: &[String]) -> Result<Self, WorkflowError> {
        let mut steps: Vec<Step> = Vec::new();
        for argument in arguments {
            let step = step_from_argument(argument)?;
            if steps.iter().any(|other| other.name == step.name) {
                return Err(WorkflowError(format!(
                    "--step {argument}: there is a step `{}` already; give each step its own name",
                    step.name
                )));
            }
            steps.push(step);
        }
        Ok(Self {
            steps,
            ..Self::default()
        })
    }
}

/// All of a file, unless that is too long.
fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::{Error, Read};
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(Error::other("it is longer than 16 MiB"));
    }
    Ok(text)
}

fn step_from_argument(argument: &str) -> Result<Step, WorkflowError> {
    let Some((name, command)) = argument.split_once('=') else {
        return Err(WorkflowError(format!(
            "--step {argument}: no `=` found; write --step NAME=COMMAND"
        )));
    };
    if let Some(reason) = bad_name(name) {
        return Err(WorkflowError(format!("--step {argument}: {reason}")));
    }
    if command.trim().is_empty() {
        return Err(WorkflowError(format!(
            "--step {argument}: the command is empty; write --step NAME=COMMAND"
        )));
    }
    Ok(Step {
        name: name.to_owned(),
        command: Command::Shell(command.to_owned()),
        instances: 1,
        env: BTreeMap::new(),
        cwd: None,
        after: Vec::new(),
    })
}

/// What is wrong with a workflow, as one sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowError(pub String);

impl fmt::Display for WorkflowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WorkflowError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWorkflow {
    spec: Option<PathBuf>,
    dir: Option<PathBuf>,
    #[serde(default)]
    step: Vec<RawStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    name: Spanned<String>,
    command: Spanned<OneOrMany>,
    instances: Option<Spanned<u32>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<PathBuf>,
    #[serde(default)]
    after: After,
}

/// A string, or a list of strings.
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a string (run by `sh -c`) or a list of strings (program and arguments)",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                }
                Ok(OneOrMany::Many(words))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A step's name, or a list of them.
#[derive(Default)]
struct After(Vec<Spanned<String>>);

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

/// Turns byte offsets of the text into `file:line:column`.
struct Locator<'a> {
    text: &'a str,
    source: &'a str,
}

impl Locator<'_> {
    fn error(&self, span: Option<Range<usize>>, message: &str) -> WorkflowError {
        let Some(before) = span.and_then(|span| self.text.get(..span.start)) else {
            return WorkflowError(format!("{}: {message}", self.source));
        };
        let line = before.matches('\n').count() + 1;
        let start_of_line = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[start_of_line..].chars().count() + 1;
        WorkflowError(format!("{}:{line}:{column}: {message}", self.source))
    }
}

/// The parser's message on one line, with "did you mean" when it names an
/// unknown key and the known ones.
fn explain(message: &str) -> String {
    let message = message.lines().collect::<Vec<_>>().join(" ");
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((unknown, known)) if message.starts_with("unknown field") => {
            match nearest(unknown, known.iter().copied()) {
                Some(near) => format!("unknown key `{unknown}`; did you mean `{near}`?"),
                None => format!("unknown key `{unknown}`; known are {}", known.join(", ")),
            }
        }
        Some((missing, _)) if message.starts_with("missing field") => {
            format!("`{missing}` is missing here; every [[step]] has a name and a command")
        }
        _ => message,
    }
}

/// The candidate that looks most like `word`, if any does.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Why a step cannot have this name: names stand in environment variables,
/// in the spec and in file names of logs.
fn bad_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("the step's name is empty".to_owned());
    }
    if name.starts_with('.') {
        return Some(format!(
            "`{name}` starts with a dot; name the step by letters, digits, `-`, `_`"
        ));
    }
    let bad = name
        .chars()
        .find(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | '=' | '"' | '\\'))?;
    Some(format!(
        "{bad:?} cannot stand in a step's name (`{name}`); use letters, digits, `-`, `_`"
    ))
}

fn check_steps(steps: &[RawStep], at: &Locator<'_>) -> Result<(), WorkflowError> {
    if steps.is_empty() {
        return Err(at.error(
            None,
            "there is no step; add a [[step]] with `name` and `command`",
        ));
    }
    if let Some(extra) = steps.get(MAX_STEPS) {
        let message = format!(
            "there are {} steps, and at most {MAX_STEPS} are possible; make like ones \
             `instances` of one step",
            steps.len()
        );
        return Err(at.error(Some(extra.name.span()), &message));
    }
    for (index, step) in steps.iter().enumerate() {
        let name = step.name.get_ref();
        if let Some(reason) = bad_name(name) {
            return Err(at.error(Some(step.name.span()), &reason));
        }
        if steps[..index]
            .iter()
            .any(|other| other.name.get_ref() == name)
        {
            let message = format!("there is a step `{name}` already; give each step its own name");
            return Err(at.error(Some(step.name.span()), &message));
        }
        check_values(step, at)?;
    }
    Ok(())
}

fn check_values(step: &RawStep, at: &Locator<'_>) -> Result<(), WorkflowError> {
    let empty = match step.command.get_ref() {
        OneOrMany::One(line) => line.trim().is_empty(),
        OneOrMany::Many(words) => words.first().is_none_or(String::is_empty),
    };
    if empty {
        let message = format!("the command of step `{}` is empty", step.name.get_ref());
        return Err(at.error(Some(step.command.span()), &message));
    }
    if let Some(instances) = &step.instances
        && *instances.get_ref() == 0
    {
        let message = "`instances` must be at least 1; remove the step to not run it";
        return Err(at.error(Some(instances.span()), message));
    }
    Ok(())
}

fn resolve(raw: Vec<RawStep>, at: &Locator<'_>) -> Result<Vec<Step>, WorkflowError> {
    let names: Vec<String> = raw.iter().map(|step| step.name.get_ref().clone()).collect();
    let mut steps = Vec::with_capacity(raw.len());
    for step in raw {
        let after = step.after.0.iter().map(|name| index_of(name, &names, at));
        steps.push(Step {
            after: after.collect::<Result<_, _>>()?,
            name: step.name.into_inner(),
            command: match step.command.into_inner() {
                OneOrMany::One(line) => Command::Shell(line),
                OneOrMany::Many(words) => Command::Program(words),
            },
            instances: step.instances.map_or(1, Spanned::into_inner),
            env: step.env,
            cwd: step.cwd,
        });
    }
    super::order::check(&steps).map_err(|cycle| at.error(None, &cycle.to_string()))?;
    Ok(steps)
}

fn index_of(
    name: &Spanned<String>,
    names: &[String],
    at: &Locator<'_>,
) -> Result<usize, WorkflowError> {
    let wanted = name.get_ref();
    names
        .iter()
        .position(|other| other == wanted)
        .ok_or_else(|| {
            let hint = match nearest(wanted, names.iter().map(String::as_str)) {
                Some(near) => format!("; did you mean `{near}`?"),
                None => format!("; the steps are {}", names.join(", ")),
            };
            at.error(
                Some(name.span()),
                &format!("no step is called `{wanted}`{hint}"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Workflow::parse(text, "w.toml").unwrap_err().to_string()
    }

    #[test]
    fn everything_a_step_can_say_is_understood() {
        let workflow = Workflow::parse(
            r#"
            spec = "capio.json"
            dir = "data"
            [[step]]
            name = "index"
            command = ["bwa", "index", "ref.fa"]
            [[step]]
            name = "align"
            command = "bwa mem ref.fa reads.fq > out.sam"
            instances = 2
            env = { LC_ALL = "C" }
            cwd = "work"
            after = ["index"]
            "#,
            "w.toml",
        )
        .unwrap();
        assert_eq!(workflow.spec.as_deref(), Some(Path::new("capio.json")));
        assert_eq!(workflow.dir.as_deref(), Some(Path::new("data")));
        assert!(workflow.has_order());
        let align = &workflow.steps[1];
        assert_eq!(
            align.command,
            Command::Shell("bwa mem ref.fa reads.fq > out.sam".into())
        );
        assert_eq!((align.instances, &align.after[..]), (2, &[0][..]));
        assert_eq!(align.env["LC_ALL"], "C");
        assert_eq!(align.cwd.as_deref(), Some(Path::new("work")));
    }

    #[test]
    fn paths_in_a_file_are_relative_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.toml");
        let text = "spec='s.json'\ndir='/abs'\n[[step]]\nname='a'\ncommand='true'";
        std::fs::write(&path, text).unwrap();
        let workflow = Workflow::load(&path).unwrap();
        assert_eq!(workflow.spec, Some(dir.path().join("s.json")));
        assert_eq!(workflow.dir, Some(PathBuf::from("/abs")));
    }

    #[test]
    fn a_misspelt_key_is_pointed_at_with_a_hint() {
        assert_eq!(
            error("[[step]]\nname = 'a'\n  comand = 'x'\n"),
            "w.toml:3:3: unknown key `comand`; did you mean `command`?"
        );
        assert_eq!(
            error("zzz = 1\n"),
            "w.toml:1:1: unknown key `zzz`; known are spec, dir, step"
        );
    }

    #[test]
    fn mistakes_are_told_with_line_and_column() {
        assert_eq!(
            error("[[step]]\nname = 'a'\ncommand = 3\n"),
            "w.toml:3:11: invalid type: integer `3`, expected a string (run by `sh -c`) \
             or a list of strings (program and arguments)"
        );
        assert_eq!(
            error("[[step]]\nname = 'a'\n"),
            "w.toml:1:1: `command` is missing here; every [[step]] has a name and a command"
        );
        assert_eq!(
            error("[[step]]\nname = 'a b'\ncommand = 'x'\n"),
            "w.toml:2:8: ' ' cannot stand in a step's name (`a b`); use letters, digits, `-`, `_`"
        );
        assert_eq!(
            error("[[step]]\nname='a'\ncommand='x'\n[[step]]\nname='a'\ncommand='x'"),
            "w.toml:5:6: there is a step `a` already; give each step its own name"
        );
        assert_eq!(
            error("[[step]]\nname='a'\ncommand=[]\n"),
            "w.toml:3:9: the command of step `a` is empty"
        );
        assert_eq!(
            error("[[step]]\nname='a'\ncommand='x'\ninstances=0\n"),
            "w.toml:4:11: `instances` must be at least 1; remove the step to not run it"
        );
        assert!(error("").starts_with("w.toml: there is no step"));
        assert!(error("[[step]\n").starts_with("w.toml:1:"));
    }

    #[test]
    fn after_must_name_steps_and_make_no_circle() {
        let steps = "[[step]]\nname='sort'\ncommand='x'\n[[step]]\nname='b'\ncommand='x'\n";
        assert_eq!(
            error(&format!("{steps}after=['sotr']")),
            "w.toml:7:8: no step is called `sotr`; did you mean `sort`?"
        );
        let circle = "[[step]]\nname='a'\ncommand='x'\nafter=['b']\n\
                      [[step]]\nname='b'\ncommand='x'\nafter=['a']\n";
        assert_eq!(
            error(circle),
            "w.toml: `after` goes in a circle: a after b after a; remove one of them"
        );
    }

    #[test]
    fn steps_can_stand_on_the_command_line() {
        let arguments = ["a=echo x=y".to_owned(), "b=true".to_owned()];
        let workflow = Workflow::from_arguments(&arguments).unwrap();
        assert_eq!(workflow.steps[0].command, Command::Shell("echo x=y".into()));
        assert!(Workflow::from_arguments(&["nothing".to_owned()]).is_err());
        assert!(Workflow::from_arguments(&["a=".to_owned()]).is_err());
        assert!(Workflow::from_arguments(&["a=x".to_owned(), "a=y".to_owned()]).is_err());
    }
}
