//! A workflow as a test describes it, and the documents capio wants of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::audit;

/// One step: a command, and what CAPIO-CL shall say of its files.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    pub(crate) name: String,
    pub(crate) command: Command,
    #[serde(skip_serializing_if = "is_one")]
    pub(crate) instances: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(skip)]
    inputs: Vec<String>,
    #[serde(skip)]
    outputs: Vec<String>,
    #[serde(skip)]
    rules: Vec<Value>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Command {
    Shell(String),
    List(Vec<String>),
}

fn is_one(instances: &u32) -> bool {
    *instances == 1
}

impl Step {
    /// A step whose command a shell runs.
    pub fn sh(name: &str, command: impl Into<String>) -> Self {
        Self::with(name, Command::Shell(command.into()))
    }

    /// A step whose program is started directly.
    pub fn exec(name: &str, command: &[&str]) -> Self {
        Self::with(
            name,
            Command::List(command.iter().map(ToString::to_string).collect()),
        )
    }

    fn with(name: &str, command: Command) -> Self {
        Self {
            name: name.into(),
            command,
            instances: 1,
            after: Vec::new(),
            env: BTreeMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// Paths or patterns that the step reads.
    #[must_use]
    pub fn reads(mut self, paths: &[&str]) -> Self {
        self.inputs.extend(paths.iter().map(ToString::to_string));
        self
    }

    /// Paths or patterns that the step writes, under the default rule.
    #[must_use]
    pub fn writes(mut self, paths: &[&str]) -> Self {
        self.outputs.extend(paths.iter().map(ToString::to_string));
        self
    }

    /// Paths that the step writes, final by `committed` and read by `mode`.
    #[must_use]
    pub fn rule(self, paths: &[&str], committed: &str, mode: &str) -> Self {
        self.raw_rule(
            paths,
            json!({"name": paths, "committed": committed, "mode": mode}),
        )
    }

    /// Paths that the step writes, under a `streaming` item given in full.
    #[must_use]
    pub fn raw_rule(mut self, paths: &[&str], rule: Value) -> Self {
        self.rules.push(rule);
        self.writes(paths)
    }

    /// Runs the command so many times.
    #[must_use]
    pub fn instances(mut self, instances: u32) -> Self {
        self.instances = instances;
        self
    }

    /// Starts only when the named step has ended.
    #[must_use]
    pub fn after(mut self, step: &str) -> Self {
        self.after.push(step.into());
        self
    }

    /// Sets an environment variable of the step.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    fn capio_cl(&self) -> Value {
        let mut step = json!({
            "name": self.name,
            "input_stream": self.inputs,
            "output_stream": self.outputs,
        });
        if !self.rules.is_empty() {
            step["streaming"] = json!(self.rules);
        }
        step
    }
}

/// Steps, the files they find beforehand, and which results count.
#[derive(Debug, Clone, Default)]
pub struct Workflow {
    pub(crate) steps: Vec<Step>,
    pub(crate) name: String,
    pub(crate) ignored: Vec<String>,
    pub(crate) excluded: Vec<String>,
    pub(crate) audited: bool,
    pub(crate) options: Vec<String>,
    pub(crate) under: Vec<String>,
    inputs: BTreeMap<String, Vec<u8>>,
    /// By path and name.
    extended: BTreeMap<(String, String), Vec<u8>>,
    permanent: Vec<String>,
}

impl Workflow {
    /// An empty workflow that keeps every file it makes.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            permanent: vec!["*".into()],
            audited: true,
            ..Self::default()
        }
    }

    /// Adds a step; without capio the steps run in this order.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// A file that lies in the directory beforehand.
    #[must_use]
    pub fn input(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.inputs.insert(path.into(), content.into());
        self
    }

    /// An extended attribute of an input, or of a folder that one lies in.
    #[must_use]
    pub fn extended(mut self, path: &str, name: &str, value: &[u8]) -> Self {
        let place = (path.into(), name.into());
        self.extended.insert(place, value.into());
        self
    }

    /// Keeps only these paths or patterns, instead of everything.
    #[must_use]
    pub fn permanent(mut self, paths: &[&str]) -> Self {
        self.permanent = paths.iter().map(ToString::to_string).collect();
        self
    }

    /// Leaves these paths or patterns to the real file system.
    #[must_use]
    pub fn exclude(mut self, paths: &[&str]) -> Self {
        self.excluded = paths.iter().map(ToString::to_string).collect();
        self
    }

    /// Options of `capio run` when the workflow is verified.
    #[must_use]
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options = options.iter().map(ToString::to_string).collect();
        self
    }

    /// Runs without the auditor, because strace changes what the test is about.
    #[must_use]
    pub fn unaudited(mut self) -> Self {
        self.audited = false;
        self
    }

    /// Starts `capio` by these words, which run the words after them.
    #[must_use]
    pub fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(ToString::to_string).collect();
        self
    }

    /// A path (with all below it) that two runs need not agree on, because the
    /// program writes times or inode numbers into it.
    #[must_use]
    pub fn ignoring(mut self, path: &str) -> Self {
        self.ignored.push(path.into());
        self
    }

    /// The CAPIO-CL document.
    pub fn capio_cl(&self) -> String {
        let graph: Vec<_> = self.steps.iter().map(Step::capio_cl).collect();
        let mut document =
            json!({"name": self.name, "IO_Graph": graph, "permanent": self.permanent});
        if !self.excluded.is_empty() {
            document["exclude"] = json!(self.excluded);
        }
        format!("{document:#}\n")
    }

    /// The workflow file of `capio run`.
    ///
    /// # Panics
    /// Never: steps are made of strings and numbers.
    pub fn toml(&self) -> String {
        let steps = BTreeMap::from([("step", &self.steps)]);
        toml::to_string(&steps).expect("steps are strings and numbers")
    }

    /// The same workflow with every step under the auditor, which writes its
    /// traces into `folder`.
    pub(crate) fn under_audit(&self, folder: &Path) -> Self {
        let mut workflow = self.clone();
        for step in &mut workflow.steps {
            let mut words = audit::strace(folder, &step.name);
            match &step.command {
                Command::Shell(line) => {
                    words.extend(["/bin/sh".into(), "-c".into(), line.clone()]);
                }
                Command::List(command) => words.extend(command.iter().cloned()),
            }
            step.command = Command::List(words);
        }
        workflow
    }

    /// Lays the files that shall be there beforehand into `dir`.
    pub(crate) fn prepare(&self, dir: &Path) {
        for (path, content) in &self.inputs {
            let path = dir.join(path);
            let parent = path.parent().expect("an input lies in a directory");
            fs::create_dir_all(parent).expect("a scratch directory takes folders");
            fs::write(path, content).expect("a scratch directory takes files");
        }
        for ((path, name), value) in &self.extended {
            let set = xattr::set(dir.join(path), name, value);
            set.expect("a scratch directory takes extended attributes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_say_what_the_test_says() {
        let workflow = Workflow::new("w")
            .step(Step::sh("make", "echo 'a' > a").rule(&["a"], "on_close", "no_update"))
            .step(
                Step::exec("use", &["cat", "a"])
                    .reads(&["a"])
                    .instances(2)
                    .after("make"),
            );
        let spec: Value = serde_json::from_str(&workflow.capio_cl()).unwrap();
        let make = &spec["IO_Graph"][0];
        assert_eq!(make["output_stream"], json!(["a"]));
        assert_eq!(make["streaming"][0]["mode"], "no_update");
        assert_eq!(spec["IO_Graph"][1]["input_stream"], json!(["a"]));
        let run: toml::Table = workflow.toml().parse().unwrap();
        assert_eq!(run["step"][0]["command"].as_str(), Some("echo 'a' > a"));
        assert_eq!(run["step"][1]["command"][1].as_str(), Some("a"));
        assert_eq!(run["step"][1]["instances"].as_integer(), Some(2));
        assert_eq!(run["step"][1]["after"][0].as_str(), Some("make"));
    }
}
