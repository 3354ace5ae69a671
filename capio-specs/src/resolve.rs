//! From a [`Document`] to a [`Spec`]: aliases, prefix, and what no schema
//! can say.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::alias::Aliases;
use crate::configuration::Configuration;
use crate::document::{Document, Located, RawCommit, RawRule, RawStep};
use crate::error::{Problem, ProblemKind, Report};
use crate::index::{Attributes, Index, Says};
use crate::model::{CommitRule, FiringRule, StepIndex, StorageHint};
use crate::names::{self, Prefix};
use crate::spec::{
    Alias, Entry, HomeNodePolicies, ManualPlacement, ParseOptions, Spec, Step, Storage,
    StreamingRule,
};

/// A name, resolved, and where it came from.
#[derive(Clone, Debug)]
struct Resolved {
    name: String,
    at: usize,
    alias: Option<String>,
}

struct Resolver<'d, 'r, 't> {
    aliases: Aliases<'d>,
    used: std::collections::HashSet<String>,
    prefix: Option<Prefix>,
    report: &'r mut Report<'t>,
    spec: Spec,
}

/// Resolves a document; what is wrong goes to `report`.
pub(crate) fn resolve(
    raw: &Document,
    prefix: Option<Prefix>,
    options: &ParseOptions,
    report: &mut Report<'_>,
) -> Spec {
    let mut resolver = Resolver {
        aliases: Aliases::new(&raw.aliases, report),
        used: std::collections::HashSet::new(),
        prefix: prefix.clone(),
        report,
        spec: Spec {
            version: raw.version,
            prefix,
            ..Spec::empty(&raw.name)
        },
    };
    for step in &raw.steps {
        resolver.step(step);
    }
    // A step in several parts counts where its first part stands.
    resolver.spec.entries.sort_by_key(Entry::step);
    resolver.sections(raw);
    resolver.home_nodes(raw);
    resolver.alias_section(raw);
    if let Some(path) = &raw.configuration {
        resolver.configuration(path, options);
    }
    let mut spec = resolver.spec;
    let entries = spec.entries.iter();
    spec.index = Index::new(entries.map(|entry| (entry.name.as_str(), entry.says.clone())));
    spec
}

impl Resolver<'_, '_, '_> {
    fn resolve_name(&self, name: &str) -> String {
        match &self.prefix {
            Some(prefix) => prefix.resolve(name),
            None => names::normalise(name),
        }
    }

    /// Expands aliases and resolves.
    fn names(&mut self, raw: &[Located]) -> Vec<Resolved> {
        let mut resolved = Vec::with_capacity(raw.len());
        for name in raw {
            let files = self.aliases.expand(&name.text);
            let one = |text: &str, alias| Resolved {
                name: self.resolve_name(text),
                at: name.at,
                alias,
            };
            match files {
                None => resolved.push(one(&name.text, None)),
                Some(files) => {
                    let alias = || Some(name.text.clone());
                    resolved.extend(files.iter().map(|file| one(file, alias())));
                    self.used.insert(name.text.clone());
                }
            }
        }
        resolved
    }

    /// Adds entries for `names`, and gives the bare names back.
    fn entries(
        &mut self,
        resolved: Vec<Resolved>,
        says: &Says,
        rule: Option<(StepIndex, usize)>,
    ) -> Vec<String> {
        let bare = resolved.iter().map(|name| name.name.clone()).collect();
        for name in resolved {
            self.spec.entries.push(Entry {
                name: name.name,
                says: says.clone(),
                at: self.report.position(name.at),
                alias: name.alias,
                rule,
            });
        }
        bare
    }

    fn section(&mut self, raw: &[Located], says: &Says) -> Vec<String> {
        let resolved = self.names(raw);
        self.entries(resolved, says, None)
    }

    fn step(&mut self, raw: &RawStep) {
        let index = self.step_index(&raw.name);
        let inputs = self.section(&raw.inputs, &Says::Consumer(index));
        let outputs = self.section(&raw.outputs, &Says::Producer(index));
        for rule in &raw.streaming {
            self.rule(rule, index);
        }
        if let Some(step) = self.spec.steps.get_mut(index.0 as usize) {
            step.inputs.extend(inputs);
            step.outputs.extend(outputs);
        }
    }

    /// A step may stand there in several parts: they count as one.
    fn step_index(&mut self, name: &Located) -> StepIndex {
        let position = self.report.position(name.at);
        if let Some(known) = self.spec.step_names.get(&name.text) {
            self.spec.repeated_steps.push((*known, position));
            return *known;
        }
        // A document cannot hold four milliard steps.
        let index = StepIndex(u32::try_from(self.spec.steps.len()).unwrap_or(u32::MAX));
        self.spec.step_names.insert(name.text.clone(), index);
        self.spec.steps.push(Step {
            name: name.text.clone(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            streaming: Vec::new(),
            line: position.line,
        });
        index
    }

    fn rule(&mut self, raw: &RawRule, step: StepIndex) {
        let file_deps: Vec<String> = self
            .names(&raw.file_deps)
            .into_iter()
            .map(|name| name.name)
            .collect();
        let commit = commit(raw, &file_deps);
        let firing = raw.mode.unwrap_or(FiringRule::Update);
        let says = Says::Rule(Attributes {
            commit: commit.clone(),
            firing,
            is_directory: raw.is_directory,
        });
        let number = self.spec.steps.get(step.0 as usize);
        let number = number.map_or(0, |step| step.streaming.len());
        let resolved = self.names(&raw.names);
        let names = self.entries(resolved, &says, Some((step, number)));
        let position = self.report.position(raw.at);
        let rule = StreamingRule {
            names,
            is_directory: raw.is_directory,
            commit,
            count_given: matches!(raw.committed, RawCommit::Close(Some(_))),
            firing,
            mode_given: raw.mode.is_some(),
            n_files: raw.n_files,
            file_deps,
            line: position.line,
            column: position.column,
        };
        if let Some(step) = self.spec.steps.get_mut(step.0 as usize) {
            step.streaming.push(rule);
        }
    }

    fn sections(&mut self, raw: &Document) {
        self.spec.permanent = self.section(&raw.permanent, &Says::Permanent);
        self.spec.exclude = self.section(&raw.exclude, &Says::Excluded);
        let memory = self.section(&raw.memory, &Says::Storage(StorageHint::Memory));
        let fs = self.section(&raw.fs, &Says::Storage(StorageHint::Fs));
        self.spec.storage = Storage { memory, fs };
    }

    fn home_nodes(&mut self, raw: &Document) {
        let mut placed = HashMap::new();
        let create = self.placed(&raw.create, "\"create\"", &mut placed);
        let hashing = self.placed(&raw.hashing, "\"hashing\"", &mut placed);
        let mut manual = Vec::new();
        for item in &raw.manual {
            let policy = format!("\"manual\" on node {:?}", item.node);
            manual.push(ManualPlacement {
                names: self.placed(&item.names, &policy, &mut placed),
                node: item.node.clone(),
            });
        }
        self.spec.home_node_policies = HomeNodePolicies {
            create,
            hashing,
            manual,
        };
    }

    /// Names under one policy; one that has another already is reported.
    fn placed(
        &mut self,
        raw: &[Located],
        policy: &str,
        placed: &mut HashMap<String, String>,
    ) -> Vec<String> {
        let resolved = self.names(raw);
        for name in &resolved {
            let first = placed.entry(name.name.clone());
            let first = first.or_insert_with(|| policy.to_owned());
            if first != policy {
                let message = format!(
                    "{:?} is under two home-node policies: {first} and {policy}",
                    name.name
                );
                let problem = Problem::new(ProblemKind::HomeNode, message);
                self.report
                    .add(name.at, problem.hint("keep it in one of them"));
            }
        }
        resolved.into_iter().map(|name| name.name).collect()
    }

    fn alias_section(&mut self, raw: &Document) {
        // Aliases within aliases count as used.
        let within: Vec<&Located> = raw.aliases.iter().flat_map(|alias| &alias.files).collect();
        for name in within {
            self.used.insert(name.text.clone());
        }
        for alias in &raw.aliases {
            let files = self.aliases.expand(&alias.group.text).unwrap_or_default();
            let position = self.report.position(alias.group.at);
            self.spec.aliases.push(Alias {
                name: alias.group.text.clone(),
                files: files.iter().map(|file| self.resolve_name(file)).collect(),
                used: self.used.contains(&alias.group.text),
                line: position.line,
                column: position.column,
            });
        }
    }

    fn configuration(&mut self, path: &Located, options: &ParseOptions) {
        let full = beside(&path.text, options.document.as_deref());
        let shown = full.display().to_string();
        let read = std::fs::read_to_string(&full)
            .map_err(|error| format!("{shown} cannot be read: {error}"))
            .and_then(|text| Configuration::parse(&shown, &text));
        match read {
            Ok(configuration) => self.spec.configuration = Some(configuration),
            Err(message) => {
                let message = format!("\"configuration\": {message}");
                let problem = Problem::new(ProblemKind::Configuration, message);
                self.report.add(
                    path.at,
                    problem.hint("correct that TOML file or leave \"configuration\" out"),
                );
            }
        }
    }
}

/// `path`, taken from the directory that the document lies in, absolute.
fn beside(path: &str, document: Option<&Path>) -> PathBuf {
    let path = match document.and_then(Path::parent) {
        Some(directory) => directory.join(path),
        None => PathBuf::from(path),
    };
    std::path::absolute(&path).unwrap_or(path)
}

fn commit(raw: &RawRule, file_deps: &[String]) -> CommitRule {
    match raw.committed {
        RawCommit::Termination => CommitRule::OnTermination,
        RawCommit::Close(count) => CommitRule::OnClose {
            count: count.unwrap_or(1),
        },
        RawCommit::File => CommitRule::OnFile {
            deps: file_deps.to_vec(),
        },
        RawCommit::NFiles => CommitRule::OnNFiles {
            count: raw.n_files.unwrap_or(0),
        },
    }
}
