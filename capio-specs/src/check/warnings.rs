//! Each warning beyond the schema, one function each.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::graph::{self, Graph};
use super::{Severity, Warning};
use crate::index::Says;
use crate::model::{CommitRule, FiringRule, StepIndex, StorageHint};
use crate::names::{is_pattern, may_overlap};
use crate::position::Position;
use crate::reader::nearest;
use crate::spec::{Entry, Spec, StreamingRule};

/// All warnings, in the document's order, the graver first on a line.
pub(super) fn all(spec: &Spec) -> Vec<Warning> {
    let mut checker = Checker::new(spec);
    checker.not_produced();
    checker.update_cycles();
    checker.file_dep_cycles();
    checker.untouched_rules();
    checker.file_deps();
    checker.shared_on_close();
    checker.no_update_pays();
    checker.conflicting_rules();
    checker.idle_keys();
    checker.conflicting_storage();
    checker.excluded_streams();
    checker.outside();
    checker.repeated_steps();
    checker.unused_aliases();
    checker.unknown_configuration();
    let mut warnings = checker.found;
    warnings.sort_by_key(|warning| (warning.line, warning.severity, warning.column));
    warnings
}

/// An entry that streams a name into or out of a step.
#[derive(Clone, Copy)]
struct Stream<'s> {
    step: StepIndex,
    entry: &'s Entry,
}

struct Checker<'s> {
    spec: &'s Spec,
    outputs: Vec<Stream<'s>>,
    inputs: Vec<Stream<'s>>,
    found: Vec<Warning>,
}

impl<'s> Checker<'s> {
    fn new(spec: &'s Spec) -> Self {
        let streams = |pick: fn(&Says) -> Option<StepIndex>| {
            let entries = spec.entries.iter();
            entries
                .filter_map(|entry| pick(&entry.says).map(|step| Stream { step, entry }))
                .collect()
        };
        Self {
            spec,
            outputs: streams(|says| match says {
                Says::Producer(step) => Some(*step),
                _ => None,
            }),
            inputs: streams(|says| match says {
                Says::Consumer(step) => Some(*step),
                _ => None,
            }),
            found: Vec::new(),
        }
    }

    fn warn(&mut self, code: &'static str, at: Position, text: String, hint: impl Into<String>) {
        self.note(Severity::Warning, code, at, text, hint);
    }

    fn advise(&mut self, code: &'static str, at: Position, text: String, hint: impl Into<String>) {
        self.note(Severity::Advice, code, at, text, hint);
    }

    fn note(
        &mut self,
        severity: Severity,
        code: &'static str,
        at: Position,
        text: String,
        hint: impl Into<String>,
    ) {
        self.found.push(Warning {
            code,
            severity,
            text,
            line: at.line,
            column: at.column,
            hint: hint.into(),
        });
    }

    fn produced(&self, name: &str) -> bool {
        let mut outputs = self.outputs.iter();
        outputs.any(|output| may_overlap(&output.entry.name, name))
    }

    fn streamed(&self, name: &str) -> bool {
        let mut inputs = self.inputs.iter();
        self.produced(name) || inputs.any(|input| may_overlap(&input.entry.name, name))
    }

    /// The `streaming` items with their steps.
    fn rules(&self) -> impl Iterator<Item = (StepIndex, &'s StreamingRule)> + use<'s> {
        let steps = (0..).zip(&self.spec.steps);
        steps.flat_map(|(i, step)| step.streaming.iter().map(move |rule| (StepIndex(i), rule)))
    }

    /// A file read by some step and produced by none.
    fn not_produced(&mut self) {
        let mut said = HashSet::new();
        for input in self.inputs.clone() {
            let name = input.entry.name.as_str();
            if self.produced(name) || !said.insert((name, input.step)) {
                continue;
            }
            let step = self.spec.step_name(input.step);
            let text = format!(
                "step {step:?} reads {name:?}, which no step produces: it must lie in CAPIO_DIR beforehand"
            );
            let outputs = self.outputs.iter().map(|output| output.entry.name.as_str());
            let hint = match nearest(name, outputs.filter(|output| *output != name)) {
                Some(output) => format!("did you mean {output:?}, which a step produces?"),
                None => "if a step writes it, add it to that step's output_stream".to_owned(),
            };
            self.warn("not-produced", input.entry.at, text, hint);
        }
    }

    /// Steps that each wait for the end of what another one writes.
    fn update_cycles(&mut self) {
        let mut waits: BTreeMap<StepIndex, BTreeMap<StepIndex, &str>> = BTreeMap::new();
        for output in &self.outputs {
            for input in &self.inputs {
                if let Some(name) = self.waited_for(output, input) {
                    let edges = waits.entry(output.step).or_default();
                    edges.entry(input.step).or_insert(name);
                }
            }
        }
        let graph: Graph<StepIndex> = waits
            .iter()
            .map(|(from, to)| (*from, to.keys().copied().collect()))
            .collect();
        for cycle in graph::cycles(&graph) {
            let next = cycle.iter().cycle().skip(1);
            let links = cycle.iter().zip(next).filter_map(|(from, to)| {
                let name = waits.get(from)?.get(to)?;
                let (from, to) = (self.spec.step_name(*from), self.spec.step_name(*to));
                Some(format!("{to:?} waits for {from:?} to finish {name:?}"))
            });
            let text = format!(
                "the steps wait for each other and may dead-lock: {}",
                links.collect::<Vec<_>>().join(", ")
            );
            let at = cycle.first().and_then(|step| self.step_position(*step));
            let hint = "give one of these files \"mode\": \"no_update\", or break the circle";
            self.warn("update-cycle", at.unwrap_or_default(), text, hint);
        }
    }

    /// The name under which `input`'s step waits for `output`'s to finish.
    fn waited_for(&self, output: &Stream<'s>, input: &Stream<'s>) -> Option<&'s str> {
        let (out, inp) = (output.entry.name.as_str(), input.entry.name.as_str());
        if output.step == input.step || !may_overlap(out, inp) {
            return None;
        }
        // The narrower of the two stands for what both match.
        let name = match (is_pattern(out), is_pattern(inp)) {
            (true, false) => inp,
            (false, true) => out,
            _ if out.len() > inp.len() => out,
            _ => inp,
        };
        let rules = self.spec.rules_for(name.as_bytes());
        // A producer of a file never waits for it.
        let waits = rules.firing == FiringRule::Update && !rules.producers.contains(&input.step);
        waits.then_some(name)
    }

    fn step_position(&self, step: StepIndex) -> Option<Position> {
        let line = self.spec.steps.get(step.0 as usize)?.line;
        Some(Position { line, column: 1 })
    }

    /// Files that each wait for another one to be final.
    fn file_dep_cycles(&mut self) {
        let mut graph: Graph<&str> = Vec::new();
        let mut places = HashMap::new();
        for entry in &self.spec.entries {
            let name = entry.name.as_str();
            if let CommitRule::OnFile { deps } = self.spec.rules_for(name.as_bytes()).commit {
                let known = self.spec.entries.iter().map(|entry| entry.name.as_str());
                let to = known.filter(|known| deps.iter().any(|dep| dep == known));
                if places.insert(name, entry.at).is_none() {
                    graph.push((name, to.collect()));
                }
            }
        }
        for cycle in graph::cycles(&graph) {
            let at = cycle.first().and_then(|name| places.get(name)).copied();
            let text = format!("file_deps go in a circle, so none is ever final: {cycle:?}");
            self.warn(
                "dependency-cycle",
                at.unwrap_or_default(),
                text,
                "break the circle",
            );
        }
    }

    /// A rule on a file that no step touches.
    fn untouched_rules(&mut self) {
        for entry in &self.spec.entries {
            if !matches!(entry.says, Says::Rule(_)) || self.streamed(&entry.name) {
                continue;
            }
            let name = &entry.name;
            let streams = self.inputs.iter().chain(&self.outputs);
            let hint = match nearest(name, streams.map(|stream| stream.entry.name.as_str())) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add it to an input_stream or output_stream, or drop the rule".to_owned(),
            };
            let text = format!("a streaming rule for {name:?}, which no step reads or writes");
            self.warn("untouched-rule", entry.at, text, hint);
        }
    }

    /// `file_deps` that nothing streams, or that look like patterns.
    fn file_deps(&mut self) {
        for (_, rule) in self.rules() {
            let at = position(rule);
            let waits = matches!(rule.commit, CommitRule::OnFile { .. });
            for dep in rule.file_deps.iter().filter(|_| waits) {
                if is_pattern(dep) {
                    let text = format!("file_deps takes {dep:?} as a plain name, not as a pattern");
                    self.warn("pattern-dependency", at, text, "list the files one by one");
                } else if !self.streamed(dep) {
                    let text =
                        format!("file_deps waits for {dep:?}, which no step reads or writes");
                    let streams = self.inputs.iter().chain(&self.outputs);
                    let hint = match nearest(dep, streams.map(|stream| stream.entry.name.as_str()))
                    {
                        Some(near) => format!("did you mean {near:?}?"),
                        None => "add it to the output_stream of the step that writes it".to_owned(),
                    };
                    self.warn("unknown-dependency", at, text, hint);
                }
            }
            if waits && rule.file_deps.is_empty() {
                let text = "\"on_file\" with no file_deps: the file is final at once".to_owned();
                self.warn("no-dependency", at, text, "list the files to wait for");
            }
        }
    }

    /// Two producers of one `on_close` file without a count.
    fn shared_on_close(&mut self) {
        let mut said = HashSet::new();
        for output in self.outputs.clone() {
            let name = output.entry.name.as_str();
            let Some((at, rule)) = self.ruling(name) else {
                continue;
            };
            let plain = matches!(rule.commit, CommitRule::OnClose { .. }) && !rule.count_given;
            let producers = self.spec.rules_for(name.as_bytes()).producers;
            // Each file of a pattern may have a producer of its own.
            if !plain || producers.len() < 2 || is_pattern(name) || !said.insert(name) {
                continue;
            }
            let producers = producers.iter().map(|step| self.spec.step_name(*step));
            let producers: Vec<_> = producers.collect();
            let text = format!("{name:?} is final at its first close, but {producers:?} write it");
            let hint = format!(
                "write \"on_close:{}\", or \"on_termination\"",
                producers.len()
            );
            self.warn("shared-on-close", at, text, hint);
        }
    }

    /// The rule that decides on `name`, and where that name stands.
    fn ruling(&self, name: &str) -> Option<(Position, &'s StreamingRule)> {
        let entry = self.spec.ruling_entry(name.as_bytes())?;
        Some((entry.at, self.rule_of(entry)?))
    }

    fn rule_of(&self, entry: &Entry) -> Option<&'s StreamingRule> {
        let (step, rule) = entry.rule?;
        self.spec.steps.get(step.0 as usize)?.streaming.get(rule)
    }

    /// No mode given, where a consumer could start while the producer runs.
    fn no_update_pays(&mut self) {
        let mut said = HashSet::new();
        for input in self.inputs.clone() {
            let name = input.entry.name.as_str();
            let mut outputs = self.outputs.iter();
            let waits = outputs.any(|output| self.waited_for(output, &input).is_some());
            if !waits || self.mode_given(name) || !said.insert(name) {
                continue;
            }
            let step = self.spec.step_name(input.step);
            let text =
                format!("step {step:?} waits until {name:?} is final, because no mode is given");
            let hint = "if it reads from start to end, a streaming rule with \"mode\": \"no_update\" lets it start at once; \"mode\": \"update\" silences this";
            self.advise("no-update-pays", input.entry.at, text, hint);
        }
    }

    /// True when the rule that decides on `name` gives a mode.
    fn mode_given(&self, name: &str) -> bool {
        self.ruling(name).is_some_and(|(_, rule)| rule.mode_given)
    }

    /// Two rules for the same name that differ.
    fn conflicting_rules(&mut self) {
        let mut first: HashMap<&str, &Entry> = HashMap::new();
        for entry in &self.spec.entries {
            if !matches!(entry.says, Says::Rule(_)) {
                continue;
            }
            let winner = *first.entry(entry.name.as_str()).or_insert(entry);
            if winner.says != entry.says {
                let text = format!(
                    "this rule for {:?} is ignored: the one of line {} comes first",
                    entry.name, winner.at.line
                );
                self.warn("ignored-rule", entry.at, text, "make one rule of both");
            }
        }
    }

    /// Keys that have no effect in their rule.
    fn idle_keys(&mut self) {
        for (_, rule) in self.rules() {
            let at = position(rule);
            if rule.n_files.is_some() && !matches!(rule.commit, CommitRule::OnNFiles { .. }) {
                let text = "n_files has no effect without \"committed\": \"on_n_files\"".to_owned();
                let hint = "name directories with \"dirname\" and commit them \"on_n_files\"";
                self.warn("idle-n-files", at, text, hint);
            }
            let waits = matches!(rule.commit, CommitRule::OnFile { .. });
            if !rule.file_deps.is_empty() && !waits {
                let text = "file_deps have no effect without \"committed\": \"on_file\"".to_owned();
                self.warn(
                    "idle-file-deps",
                    at,
                    text,
                    "commit \"on_file\", or drop them",
                );
            }
        }
    }

    /// One name under `storage.memory` and `storage.fs`.
    fn conflicting_storage(&mut self) {
        for entry in &self.spec.entries {
            let memory = &self.spec.storage.memory;
            if entry.says == Says::Storage(StorageHint::Fs) && memory.contains(&entry.name) {
                let text = format!(
                    "{:?} is under both memory and fs: memory counts",
                    entry.name
                );
                self.warn("conflicting-storage", entry.at, text, "keep one of them");
            }
        }
    }

    /// A rule on a file that goes to the real file system.
    fn excluded_streams(&mut self) {
        let mut said = HashSet::new();
        for entry in &self.spec.entries {
            let streams = matches!(
                entry.says,
                Says::Consumer(_) | Says::Producer(_) | Says::Rule(_)
            );
            let excluded = self.spec.rules_for(entry.name.as_bytes()).excluded;
            if streams && excluded && said.insert(&entry.name) {
                let text = format!("{:?} is excluded, so nobody waits for it", entry.name);
                self.warn(
                    "excluded-stream",
                    entry.at,
                    text,
                    "take it out of \"exclude\", or out of the streams",
                );
            }
        }
    }

    /// A name outside `CAPIO_DIR`, which capio never sees.
    fn outside(&mut self) {
        let Some(prefix) = &self.spec.prefix else {
            return;
        };
        let mut said = HashSet::new();
        for entry in &self.spec.entries {
            if !prefix.may_hold(&entry.name) && said.insert(&entry.name) {
                let text = format!(
                    "{:?} lies outside CAPIO_DIR {:?}: the entry has no effect",
                    entry.name,
                    prefix.directory()
                );
                self.warn(
                    "outside",
                    entry.at,
                    text,
                    "move the file, or name it relative to CAPIO_DIR",
                );
            }
        }
    }

    /// A step whose name stands twice.
    fn repeated_steps(&mut self) {
        for (step, at) in self.spec.repeated_steps.clone() {
            let name = self.spec.step_name(step);
            let text = format!("step {name:?} stands twice: both parts are taken as one step");
            self.warn(
                "repeated-step",
                at,
                text,
                "give one another name, or make one of both",
            );
        }
    }

    /// An alias that no name uses.
    fn unused_aliases(&mut self) {
        let unused = self.spec.aliases.iter().filter(|alias| !alias.used);
        for alias in unused {
            let at = Position {
                line: alias.line,
                column: alias.column,
            };
            let text = format!("alias {:?} is never used", alias.name);
            self.advise("unused-alias", at, text, "use it or drop it");
        }
    }

    /// Keys of the TOML file that nothing reads.
    fn unknown_configuration(&mut self) {
        let Some(configuration) = &self.spec.configuration else {
            return;
        };
        for key in &configuration.unknown {
            let text = format!("{}: nothing reads {key}", configuration.path);
            let at = Position { line: 1, column: 1 };
            self.advise(
                "unknown-configuration",
                at,
                text,
                "drop the key, or correct its name",
            );
        }
    }
}

fn position(rule: &StreamingRule) -> Position {
    Position {
        line: rule.line,
        column: rule.column,
    }
}
