//! What holds for every document: printing loses nothing, matching agrees
//! with a naive model, and no text makes the parser fall over.

mod common;

use std::collections::BTreeMap;

use capio_specs::{CommitRule, FiringRule, PathRules, Spec, Step, StepIndex, StorageHint, fnmatch};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// An item of `IO_Graph`: name, inputs, outputs, rules.
type Part = (String, Vec<String>, Vec<String>, Vec<Rule>);

/// A document before it is printed, so that the model need not parse.
#[derive(Clone, Debug)]
struct Doc {
    steps: Vec<Part>,
    sections: BTreeMap<&'static str, Vec<String>>,
    aliases: Vec<Vec<String>>,
    v1_1: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    names: Vec<String>,
    is_directory: bool,
    commit: (String, CommitRule),
    mode: Option<FiringRule>,
    extra: Option<u64>,
}

const NAMES: &[&str] = &[
    "a",
    "b",
    "ab",
    "a.t",
    "d/a.t",
    "*",
    "a*",
    "*b",
    "?",
    "?b",
    "*.t",
    "[ab]",
    "[!a]*",
    "d/*",
    "./a",
    "d//../b",
    "/capio/a",
    "/capio/*.t",
    "/elsewhere/a",
    "g0",
    "g1",
    "g2",
    "a[",
    "é",
];

const PATHS: &[&str] = &[
    "/capio/a",
    "/capio/b",
    "/capio/ab",
    "/capio/a.t",
    "/capio/d/a.t",
    "/capio/d",
    "/capio/c",
    "/capio/.b",
    "/elsewhere/a",
    "/capio/a[",
    "/capio/g0",
    "/capio/é",
    "/capio/*",
    "/capio/?b",
];

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(select(NAMES).prop_map(str::to_owned), 0..4)
}

fn commit(is_directory: bool) -> impl Strategy<Value = (String, CommitRule)> {
    let rules = prop_oneof![
        Just(("on_termination".to_owned(), CommitRule::OnTermination)),
        Just(("on_close".to_owned(), CommitRule::OnClose { count: 1 })),
        (1u64..4).prop_map(|count| (format!("on_close:{count}"), CommitRule::OnClose { count })),
        names().prop_map(|deps| ("on_file".to_owned(), CommitRule::OnFile { deps })),
        (0u64..4).prop_map(|count| ("on_n_files".to_owned(), CommitRule::OnNFiles { count })),
    ];
    rules.prop_filter("only directories count entries", move |(_, rule)| {
        is_directory || !matches!(rule, CommitRule::OnNFiles { .. })
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let modes = select(&[None, Some(FiringRule::Update), Some(FiringRule::NoUpdate)][..]);
    let extra = proptest::option::of(0u64..3);
    (any::<bool>(), names(), modes, extra).prop_flat_map(|(is_directory, names, mode, extra)| {
        commit(is_directory).prop_map(move |commit| Rule {
            names: names.clone(),
            is_directory,
            commit,
            mode,
            extra,
        })
    })
}

fn doc() -> impl Strategy<Value = Doc> {
    let step = (
        select(&["s", "t", "u"][..]).prop_map(str::to_owned),
        names(),
        names(),
        proptest::collection::vec(rule(), 0..3),
    );
    // An alias may name those before it: no circles.
    let aliases = (names(), names(), names()).prop_map(|groups| {
        let groups = [groups.0, groups.1, groups.2];
        let groups = groups.into_iter().enumerate().map(|(i, mut files)| {
            files.retain(|file| match file.strip_prefix('g') {
                Some(number) => number.parse::<usize>().is_ok_and(|number| number < i),
                None => true,
            });
            files
        });
        groups.collect()
    });
    let sections = (names(), names(), names(), names(), names());
    let sections = sections.prop_map(|(permanent, exclude, memory, fs, create)| {
        let pairs = [
            ("permanent", permanent),
            ("exclude", exclude),
            ("memory", memory),
            ("fs", fs),
            ("create", create),
        ];
        pairs.into_iter().collect()
    });
    (
        proptest::collection::vec(step, 0..4),
        sections,
        aliases,
        any::<bool>(),
    )
        .prop_map(|(steps, sections, aliases, v1_1)| Doc {
            steps,
            sections,
            aliases,
            v1_1,
        })
}

impl Doc {
    fn json(&self) -> Value {
        let steps = self.steps.iter().map(|(name, inputs, outputs, rules)| {
            json!({
                "name": name,
                "input_stream": inputs,
                "output_stream": outputs,
                "streaming": rules.iter().map(Rule::json).collect::<Vec<_>>(),
            })
        });
        let aliases = self.aliases.iter().enumerate();
        let aliases =
            aliases.map(|(i, files)| json!({"group_name": format!("g{i}"), "files": files}));
        let mut document = json!({
            "name": "w",
            "IO_Graph": steps.collect::<Vec<_>>(),
            "aliases": aliases.collect::<Vec<_>>(),
            "permanent": self.sections["permanent"],
            "exclude": self.sections["exclude"],
            "storage": {"memory": self.sections["memory"], "fs": self.sections["fs"]},
            "home_node_policies": {"create": self.sections["create"]},
        });
        if self.v1_1 {
            document["version"] = json!(1.1);
        }
        document
    }

    fn parse(&self) -> Spec {
        let text = serde_json::to_string_pretty(&self.json()).expect("JSON");
        match Spec::parse(&text, &common::options()) {
            Ok(spec) => spec,
            Err(error) => panic!("{error}\n{text}"),
        }
    }

    /// Names as they are meant: aliases expanded, absolute, normal.
    fn resolved(&self, names: &[String]) -> Vec<String> {
        let mut resolved = Vec::new();
        for name in names {
            let group = name
                .strip_prefix('g')
                .and_then(|number| number.parse::<usize>().ok());
            match group {
                Some(group) => resolved.extend(self.resolved(&self.aliases[group])),
                None => resolved.push(match name.as_str() {
                    "./a" => "/capio/a".to_owned(),
                    "d//../b" => "/capio/b".to_owned(),
                    name if name.starts_with('/') => name.to_owned(),
                    name => format!("/capio/{name}"),
                }),
            }
        }
        resolved
    }

    fn matches(&self, names: &[String], path: &str) -> bool {
        let names = self.resolved(names);
        names
            .iter()
            .any(|name| name == path || fnmatch(name.as_bytes(), path.as_bytes()))
    }

    /// The first best of what has names: exact, then longest.
    fn best<T>(&self, givers: Vec<(&Vec<String>, T)>, path: &str) -> Option<T> {
        let mut best: Option<(bool, usize, T)> = None;
        for (names, giver) in givers {
            let names = self.resolved(names);
            let matching = names
                .iter()
                .filter(|name| *name == path || fnmatch(name.as_bytes(), path.as_bytes()));
            let rank = matching.map(|name| (name == path, name.len())).max();
            if let Some((exact, length)) = rank
                && best
                    .as_ref()
                    .is_none_or(|best| (exact, length) > (best.0, best.1))
            {
                best = Some((exact, length, giver));
            }
        }
        best.map(|(_, _, giver)| giver)
    }

    /// The rules of a path, straight from the words of the language.
    fn model(&self, path: &str) -> PathRules {
        let mut rules = PathRules::unspecified();
        let mut order: Vec<&str> = Vec::new();
        for (name, ..) in &self.steps {
            if !order.contains(&name.as_str()) {
                order.push(name);
            }
        }
        // Parts of one step count where its first part stands.
        let parts = order
            .iter()
            .flat_map(|name| self.steps.iter().filter(move |s| s.0 == *name));
        let parts: Vec<_> = parts.collect();
        for (i, name) in order.iter().enumerate() {
            let index = StepIndex(u32::try_from(i).expect("few steps"));
            let mut mine = parts.iter().filter(|part| part.0 == *name);
            if mine
                .clone()
                .any(|(_, _, outputs, _)| self.matches(outputs, path))
            {
                rules.producers.push(index);
            }
            if mine.any(|(_, inputs, ..)| self.matches(inputs, path)) {
                rules.consumers.push(index);
            }
        }
        let givers = parts
            .iter()
            .flat_map(|part| &part.3)
            .map(|rule| (&rule.names, rule));
        if let Some(rule) = self.best(givers.collect(), path) {
            rules.is_directory = rule.is_directory;
            rules.firing = rule.mode.unwrap_or(FiringRule::Update);
            rules.commit = match &rule.commit.1 {
                CommitRule::OnFile { deps } => CommitRule::OnFile {
                    deps: self.resolved(deps),
                },
                rule => rule.clone(),
            };
        }
        let section = |name| &self.sections[name];
        rules.permanent = self.matches(section("permanent"), path);
        rules.excluded = self.matches(section("exclude"), path);
        let hints = vec![
            (section("memory"), StorageHint::Memory),
            (section("fs"), StorageHint::Fs),
        ];
        let hint = self.best(hints, path);
        rules.storage = hint.unwrap_or(StorageHint::Unspecified);
        rules
    }
}

impl Rule {
    fn json(&self) -> Value {
        let key = if self.is_directory { "dirname" } else { "name" };
        let mut rule = json!({key: self.names, "committed": self.commit.0});
        if let Some(mode) = self.mode {
            rule["mode"] = json!(mode.to_string());
        }
        if let Some(extra) = self.extra {
            rule["n_files"] = json!(extra);
            rule["file_deps"] = json!(["a"]);
        }
        match &self.commit.1 {
            CommitRule::OnFile { deps } => rule["file_deps"] = json!(deps),
            CommitRule::OnNFiles { count } => rule["n_files"] = json!(count),
            _ => {}
        }
        rule
    }
}

/// A step without the places that printing moves.
fn placeless(steps: &[Step]) -> Vec<Step> {
    let mut steps = steps.to_vec();
    for step in &mut steps {
        step.line = 0;
        for rule in &mut step.streaming {
            (rule.line, rule.column) = (0, 0);
        }
    }
    steps
}

/// Aliases expand to each name once; lists given twice stay.
fn without_repeats(mut rules: PathRules) -> PathRules {
    if let CommitRule::OnFile { deps } = &mut rules.commit {
        let mut seen = std::collections::HashSet::new();
        deps.retain(|dep| seen.insert(dep.clone()));
    }
    rules
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_path_has_the_rules_that_the_language_gives_it(doc in doc()) {
        let spec = doc.parse();
        for path in PATHS {
            let ours = without_repeats(spec.rules_for(path.as_bytes()));
            prop_assert_eq!(ours, without_repeats(doc.model(path)), "{}", path);
        }
    }

    #[test]
    fn a_printed_document_means_the_same(doc in doc()) {
        let spec = doc.parse();
        let printed = spec.to_json();
        let again = Spec::parse(&printed, &common::options()).expect("printed");
        prop_assert_eq!(again.to_json(), printed);
        prop_assert_eq!(again.name(), spec.name());
        prop_assert_eq!(again.version(), spec.version());
        prop_assert_eq!(placeless(again.steps()), placeless(spec.steps()));
        prop_assert_eq!(again.permanent(), spec.permanent());
        prop_assert_eq!(again.exclude(), spec.exclude());
        prop_assert_eq!(again.storage(), spec.storage());
        prop_assert_eq!(again.home_node_policies(), spec.home_node_policies());
        for path in PATHS {
            prop_assert_eq!(again.rules_for(path.as_bytes()), spec.rules_for(path.as_bytes()));
        }
    }

    #[test]
    fn an_explanation_tells_the_rules_that_hold(doc in doc(), path in select(PATHS)) {
        let spec = doc.parse();
        let explanation = spec.explain(path.as_bytes());
        prop_assert_eq!(&explanation.rules, &spec.rules_for(path.as_bytes()));
        let deciding = explanation.matches.iter().filter(|entry| {
            entry.decides && entry.section.starts_with("streaming")
        });
        let ruled = explanation.matches.iter().any(|entry| entry.section.starts_with("streaming"));
        prop_assert_eq!(deciding.count(), usize::from(ruled));
    }

    #[test]
    fn a_damaged_document_never_brings_the_parser_down(
        doc in doc(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..6, "\\PC{0,3}|[\\[\\]{}\",:0-9\\\\]{0,3}"), 1..4),
    ) {
        let mut text: Vec<char> = doc.json().to_string().chars().collect();
        for (place, length, put) in damage {
            let from = place.index(text.len() + 1);
            let to = (from + length).min(text.len());
            text.splice(from..to, put.chars());
        }
        common::survives(&text.into_iter().collect::<String>());
    }

    #[test]
    fn no_text_brings_the_parser_down(text in any::<String>()) {
        common::survives(&text);
    }

    #[test]
    fn no_value_in_any_place_brings_the_parser_down(value in misplaced()) {
        common::survives(&value.to_string());
        common::survives(&serde_json::to_string_pretty(&value).expect("JSON"));
    }
}

/// JSON that uses the language's words in wrong places.
fn misplaced() -> impl Strategy<Value = Value> {
    let words = &[
        "name",
        "version",
        "aliases",
        "group_name",
        "files",
        "IO_Graph",
        "input_stream",
        "output_stream",
        "streaming",
        "dirname",
        "committed",
        "mode",
        "n_files",
        "file_deps",
        "permanent",
        "exclude",
        "home_node_policies",
        "create",
        "hashing",
        "manual",
        "app_node",
        "storage",
        "memory",
        "fs",
        "on_close:2",
        "on_file",
        "on_n_files",
        "no_update",
        "a",
        "",
    ][..];
    let leaf = prop_oneof![
        select(words).prop_map(Value::from),
        (-2i64..4).prop_map(Value::from),
        select(vec![json!(1.1), json!(null), json!(true), json!(1e300)]),
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(select(words).prop_map(str::to_owned), inner, 0..8)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

#[test]
fn deep_and_long_documents_are_refused_or_read_without_a_crash() {
    common::survives(&"[".repeat(200_000));
    common::survives(&format!(
        "{{\"name\": {}1{}}}",
        "[".repeat(500),
        "]".repeat(500)
    ));
    let chain: Vec<_> = (0..3_000)
        .map(|i| json!({"group_name": format!("g{i}"), "files": [format!("g{}", i + 1)]}))
        .collect();
    let steps = json!([{"name": "s", "input_stream": ["g0"], "output_stream": []}]);
    let document = json!({"name": "w", "IO_Graph": steps, "aliases": chain});
    let spec = Spec::parse(&document.to_string(), &common::options()).expect("valid");
    assert_eq!(spec.steps()[0].inputs, ["/capio/g3000"]);
}

#[test]
fn aliases_that_double_at_each_level_do_not_fill_the_memory() {
    let groups: Vec<_> = (0..60)
        .map(|i| {
            let next = format!("g{}", i + 1);
            json!({"group_name": format!("g{i}"), "files": [next, next, format!("f{i}")]})
        })
        .collect();
    let document = json!({"name": "w", "IO_Graph": [], "aliases": groups, "permanent": ["g0"]});
    let spec = Spec::parse(&document.to_string(), &common::options()).expect("valid");
    assert_eq!(spec.permanent().len(), 61);
}
