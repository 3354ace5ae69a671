//! The canonical print of a [`Spec`].

use serde::Serialize;

use crate::document::Version;
use crate::model::CommitRule;
use crate::spec::{Spec, Step, StreamingRule};

#[derive(Serialize)]
struct Printed<'s> {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<f64>,
    name: &'s str,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<&'s str>,
    #[serde(rename = "IO_Graph")]
    io_graph: Vec<PrintedStep<'s>>,
    #[serde(skip_serializing_if = "is_empty")]
    permanent: &'s [String],
    #[serde(skip_serializing_if = "is_empty")]
    exclude: &'s [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    home_node_policies: Option<PrintedPolicies<'s>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<PrintedStorage<'s>>,
}

#[derive(Serialize)]
struct PrintedStep<'s> {
    name: &'s str,
    input_stream: &'s [String],
    output_stream: &'s [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    streaming: Vec<PrintedRule<'s>>,
}

#[derive(Serialize)]
struct PrintedRule<'s> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'s [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dirname: Option<&'s [String]>,
    committed: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_deps: Option<&'s [String]>,
}

#[derive(Serialize)]
struct PrintedPolicies<'s> {
    #[serde(skip_serializing_if = "is_empty")]
    create: &'s [String],
    #[serde(skip_serializing_if = "is_empty")]
    hashing: &'s [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    manual: Vec<PrintedManual<'s>>,
}

#[derive(Serialize)]
struct PrintedManual<'s> {
    name: &'s [String],
    app_node: &'s str,
}

#[derive(Serialize)]
struct PrintedStorage<'s> {
    #[serde(skip_serializing_if = "is_empty")]
    memory: &'s [String],
    #[serde(skip_serializing_if = "is_empty")]
    fs: &'s [String],
}

fn is_empty(names: &&[String]) -> bool {
    names.is_empty()
}

impl Spec {
    /// The document in canonical form: names resolved, aliases expanded (and
    /// therefore not printed), keys in a fixed order. Parsed again with the
    /// same options it means the same.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings and numbers only: this cannot fail.
        serde_json::to_string_pretty(&self.printed()).unwrap_or_default()
    }

    fn printed(&self) -> Printed<'_> {
        Printed {
            version: (self.version == Version::V1_1).then_some(1.1),
            name: &self.name,
            configuration: self.configuration.as_ref().map(|toml| toml.path.as_str()),
            io_graph: self.steps.iter().map(step).collect(),
            permanent: &self.permanent,
            exclude: &self.exclude,
            home_node_policies: self.printed_policies(),
            storage: self.printed_storage(),
        }
    }

    fn printed_policies(&self) -> Option<PrintedPolicies<'_>> {
        let policies = &self.home_node_policies;
        (*policies != Default::default()).then(|| PrintedPolicies {
            create: &policies.create,
            hashing: &policies.hashing,
            manual: policies
                .manual
                .iter()
                .map(|item| PrintedManual {
                    name: &item.names,
                    app_node: &item.node,
                })
                .collect(),
        })
    }

    fn printed_storage(&self) -> Option<PrintedStorage<'_>> {
        let storage = &self.storage;
        (*storage != Default::default()).then_some(PrintedStorage {
            memory: &storage.memory,
            fs: &storage.fs,
        })
    }
}

fn step(step: &Step) -> PrintedStep<'_> {
    PrintedStep {
        name: &step.name,
        input_stream: &step.inputs,
        output_stream: &step.outputs,
        streaming: step.streaming.iter().map(rule).collect(),
    }
}

fn rule(rule: &StreamingRule) -> PrintedRule<'_> {
    let names = rule.names.as_slice();
    let needs_deps = matches!(rule.commit, CommitRule::OnFile { .. });
    PrintedRule {
        name: (!rule.is_directory).then_some(names),
        dirname: rule.is_directory.then_some(names),
        committed: match &rule.commit {
            CommitRule::OnClose { count } if rule.count_given => format!("on_close:{count}"),
            commit => commit.to_string(),
        },
        mode: rule.mode_given.then(|| rule.firing.to_string()),
        n_files: rule.n_files,
        file_deps: (needs_deps || !rule.file_deps.is_empty()).then_some(&rule.file_deps),
    }
}
