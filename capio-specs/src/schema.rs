//! From a JSON tree to a [`Document`]: what the schemas of 1.0 and 1.1 say.

use crate::document::{
    Document, Located, RawAlias, RawCommit, RawManual, RawRule, RawStep, Version,
};
use crate::error::{Problem, ProblemKind, Report};
use crate::json::{Node, Value};
use crate::model::FiringRule;
use crate::reader::Fields;

const DOCUMENT_1_0: &[&str] = &[
    "name",
    "aliases",
    "IO_Graph",
    "permanent",
    "exclude",
    "home_node_policies",
    "storage",
    "version",
];
const DOCUMENT_1_1: &[&str] = &[
    "name",
    "aliases",
    "IO_Graph",
    "permanent",
    "exclude",
    "home_node_policies",
    "storage",
    "version",
    "configuration",
];
const STEP: &[&str] = &["name", "input_stream", "output_stream", "streaming"];
const RULE: &[&str] = &[
    "name",
    "dirname",
    "committed",
    "mode",
    "file_deps",
    "n_files",
];
const COMMITTED_FILE: &[&str] = &["on_close", "on_close:N", "on_file", "on_termination"];
const COMMITTED_DIRECTORY: &[&str] = &[
    "on_close",
    "on_close:N",
    "on_file",
    "on_n_files",
    "on_termination",
];
const MODES: &[&str] = &["update", "no_update"];

/// Reads the tree; what is wrong with it goes to `report`, and what could be
/// read comes back so that later checks can say more.
pub(crate) fn read(root: &Node, report: &mut Report<'_>) -> Option<Document> {
    let version = version(root, report);
    let known = match version {
        Version::V1_0 => DOCUMENT_1_0,
        Version::V1_1 => DOCUMENT_1_1,
    };
    let fields = report.object(root, "the document", known)?;
    let home = section(
        &fields,
        "home_node_policies",
        &["create", "hashing", "manual"],
        report,
    );
    let storage = section(&fields, "storage", &["memory", "fs"], report);
    let mut names = |fields: Option<&Fields<'_>>, key| {
        fields.map_or_else(Vec::new, |fields| report.optional_names(fields, key))
    };
    Some(Document {
        permanent: names(Some(&fields), "permanent"),
        exclude: names(Some(&fields), "exclude"),
        create: names(home.as_ref(), "create"),
        hashing: names(home.as_ref(), "hashing"),
        memory: names(storage.as_ref(), "memory"),
        fs: names(storage.as_ref(), "fs"),
        name: workflow_name(&fields, report),
        version,
        configuration: configuration(&fields, version, report),
        aliases: aliases(&fields, report),
        steps: steps(&fields, report),
        manual: manual(home.as_ref(), report),
    })
}

/// The document's version; a wrong one is reported and read as 1.1, which
/// knows all keys.
fn version(root: &Node, report: &mut Report<'_>) -> Version {
    let Value::Object(fields) = &root.value else {
        return Version::V1_0;
    };
    let Some(field) = fields.iter().find(|field| field.key == "version") else {
        return Version::V1_0;
    };
    let shown = match &field.node.value {
        Value::Number(text) if text.parse() == Ok(1.1_f64) => return Version::V1_1,
        Value::Number(text) => text.clone(),
        Value::String(text) => format!("the string {text:?}"),
        _ => field.node.kind().to_owned(),
    };
    let problem = Problem::new(ProblemKind::Version, format!("unknown version: {shown}"));
    report.add(
        field.node.at,
        problem
            .expect("the number 1.1")
            .hint("for CAPIO-CL 1.0 leave the key \"version\" out"),
    );
    Version::V1_1
}

fn section<'n>(
    fields: &Fields<'n>,
    key: &str,
    known: &[&str],
    report: &mut Report<'_>,
) -> Option<Fields<'n>> {
    report.object(fields.get(key)?, &format!("{key:?}"), known)
}

fn workflow_name(fields: &Fields<'_>, report: &mut Report<'_>) -> String {
    report
        .require(fields, "name", "add \"name\": the workflow's name")
        .and_then(|node| report.string(node, "\"name\" of the document"))
        .unwrap_or_default()
        .text
}

fn configuration(
    fields: &Fields<'_>,
    version: Version,
    report: &mut Report<'_>,
) -> Option<Located> {
    let node = fields.get("configuration")?;
    if version < Version::V1_1 {
        return None;
    }
    report.string(node, "\"configuration\"")
}

fn aliases(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<RawAlias> {
    let Some(node) = fields.get("aliases") else {
        return Vec::new();
    };
    let items = report.array(node, "\"aliases\"", "an array of objects");
    let read = items.iter().filter_map(|item| {
        let fields = report.object(item, "an alias", &["group_name", "files"])?;
        let group = report.require(&fields, "group_name", "add \"group_name\"");
        let group = group.and_then(|node| report.string(node, "\"group_name\" of an alias"));
        let files = report.require(&fields, "files", "add \"files\": []");
        let files = files.map(|node| report.names(node, "\"files\" of an alias"));
        Some(RawAlias {
            group: group?,
            files: files?,
        })
    });
    read.collect()
}

fn manual(home: Option<&Fields<'_>>, report: &mut Report<'_>) -> Vec<RawManual> {
    let Some(node) = home.and_then(|home| home.get("manual")) else {
        return Vec::new();
    };
    let items = report.array(node, "\"manual\"", "an array of objects");
    let read = items.iter().filter_map(|item| {
        let fields = report.object(item, "an item of \"manual\"", &["name", "app_node"])?;
        let names = report.require(&fields, "name", "add \"name\": []");
        let names = names.map(|node| report.names(node, "\"name\" of an item of \"manual\""));
        let node = report.require(&fields, "app_node", "add \"app_node\": the node's name");
        let node = node.and_then(|node| report.string(node, "\"app_node\""));
        Some(RawManual {
            names: names?,
            node: node?.text,
        })
    });
    read.collect()
}

fn steps(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<RawStep> {
    let Some(node) = report.require(fields, "IO_Graph", "add \"IO_Graph\": []") else {
        return Vec::new();
    };
    let items = report.array(node, "\"IO_Graph\"", "an array of steps");
    let read = items.iter().filter_map(|item| step(item, report));
    read.collect()
}

fn step(node: &Node, report: &mut Report<'_>) -> Option<RawStep> {
    let what = step_label(node);
    let fields = report.object(node, &what, STEP)?;
    let name = report.require(&fields, "name", "add \"name\": the step's name");
    let name = name.and_then(|node| report.string(node, &format!("\"name\" of {what}")));
    if let Some(name) = &name {
        check_step_name(name, report);
    }
    let mut stream = |key: &str| {
        let node = report.require(&fields, key, &format!("add {key:?}: []"));
        node.map(|node| report.names(node, &format!("{key:?} of {what}")))
            .unwrap_or_default()
    };
    let (inputs, outputs) = (stream("input_stream"), stream("output_stream"));
    let streaming = match fields.get("streaming") {
        Some(node) => report.array(
            node,
            &format!("\"streaming\" of {what}"),
            "an array of rules",
        ),
        None => &[],
    };
    let streaming = streaming
        .iter()
        .filter_map(|node| rule(node, &what, report));
    Some(RawStep {
        streaming: streaming.collect(),
        name: name.unwrap_or_default(),
        inputs,
        outputs,
    })
}

/// How messages name a step whose name may not be readable.
fn step_label(node: &Node) -> String {
    if let Value::Object(fields) = &node.value {
        for field in fields {
            if let ("name", Value::String(name)) = (field.key.as_str(), &field.node.value) {
                return format!("step {name:?}");
            }
        }
    }
    "a step".to_owned()
}

fn check_step_name(name: &Located, report: &mut Report<'_>) {
    let problem = |message: &str| Problem::new(ProblemKind::WrongValue, message);
    if name.text.is_empty() {
        report.add(
            name.at,
            problem("a step's name is empty").hint("give it one"),
        );
    } else if name.text.contains(char::is_whitespace) {
        let without: String = name.text.split_whitespace().collect();
        let message = format!("step name {:?} holds white space", name.text);
        report.add(
            name.at,
            problem(&message).hint(format!("write {without:?}")),
        );
    } else if name.text.contains(char::is_control) {
        let message = format!("step name {:?} holds a control character", name.text);
        report.add(name.at, problem(&message).hint("leave it out"));
    }
}

fn rule(node: &Node, step: &str, report: &mut Report<'_>) -> Option<RawRule> {
    let what = format!("a \"streaming\" item of {step}");
    let fields = report.object(node, &what, RULE)?;
    let key = rule_key(&fields, report)?;
    let is_directory = key == "dirname";
    let committed = committed(&fields, is_directory, report);
    Some(RawRule {
        at: node.at,
        names: report.optional_names(&fields, key),
        is_directory,
        committed,
        mode: mode(&fields, report),
        file_deps: report.optional_names(&fields, "file_deps"),
        n_files: n_files(&fields, report),
    })
}

/// Which of the two keys names what the rule is for.
fn rule_key(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<&'static str> {
    match (fields.key_at("name"), fields.key_at("dirname")) {
        (Some(_), None) => Some("name"),
        (None, Some(_)) => Some("dirname"),
        (None, None) => {
            let message = format!("missing key \"name\" or \"dirname\" in {}", fields.what);
            let problem = Problem::new(ProblemKind::MissingKey, message);
            report.add(
                fields.at,
                problem.hint("add \"name\": [] for files, \"dirname\": [] for directories"),
            );
            None
        }
        (Some(name), Some(dirname)) => {
            let message = format!("both \"name\" and \"dirname\" in {}", fields.what);
            let problem = Problem::new(ProblemKind::UnknownKey, message).expect("one of them");
            report.add(name.max(dirname), problem.hint("make two rules of it"));
            None
        }
    }
}

fn committed(fields: &Fields<'_>, is_directory: bool, report: &mut Report<'_>) -> RawCommit {
    let default = RawCommit::Termination;
    let what = format!("\"committed\" of {}", fields.what);
    let Some(node) = fields.get("committed") else {
        return default;
    };
    let Some(text) = report.string(node, &what) else {
        return default;
    };
    match text.text.as_str() {
        "on_termination" => RawCommit::Termination,
        "on_close" => RawCommit::Close(None),
        "on_file" => {
            report.require(
                fields,
                "file_deps",
                "\"on_file\" needs it: the files to wait for",
            );
            RawCommit::File
        }
        "on_n_files" if is_directory => {
            report.require(
                fields,
                "n_files",
                "\"on_n_files\" needs it: how many entries",
            );
            RawCommit::NFiles
        }
        "on_n_files" => {
            let message = format!("\"on_n_files\" is no value of {what}, which names files");
            let problem = Problem::new(ProblemKind::WrongValue, message);
            report.add(node.at, problem.hint("name directories with \"dirname\""));
            default
        }
        other => match other.strip_prefix("on_close:") {
            Some(count) => close_count(node, count, report),
            None => {
                let known = if is_directory {
                    COMMITTED_DIRECTORY
                } else {
                    COMMITTED_FILE
                };
                report.wrong_value(node, other, &what, known);
                default
            }
        },
    }
}

/// The N of `on_close:N`; the reference takes 0 as no count given.
fn close_count(node: &Node, count: &str, report: &mut Report<'_>) -> RawCommit {
    let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    match count.parse() {
        Ok(0) if digits => RawCommit::Close(None),
        Ok(count) if digits => RawCommit::Close(Some(count)),
        _ => {
            let message = format!("{count:?} is no count of closes");
            let problem = Problem::new(ProblemKind::WrongValue, message);
            report.add(
                node.at,
                problem
                    .expect("\"on_close:N\" with a whole number N")
                    .hint("write, say, \"on_close:2\""),
            );
            RawCommit::Close(None)
        }
    }
}

fn mode(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<FiringRule> {
    let node = fields.get("mode")?;
    let what = format!("\"mode\" of {}", fields.what);
    match report.string(node, &what)?.text.as_str() {
        "update" => Some(FiringRule::Update),
        "no_update" => Some(FiringRule::NoUpdate),
        other => {
            report.wrong_value(node, other, &what, MODES);
            None
        }
    }
}

fn n_files(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<u64> {
    let node = fields.get("n_files")?;
    let count = match &node.value {
        Value::Number(text) => whole_number(text),
        _ => None,
    };
    if count.is_none() {
        let shown = match &node.value {
            Value::Number(text) => text,
            _ => node.kind(),
        };
        let message = format!("\"n_files\" of {} is {shown}", fields.what);
        let problem = Problem::new(ProblemKind::WrongType, message);
        report.add(node.at, problem.expect("a whole number, 0 or more"));
    }
    count
}

/// JSON Schema counts 3.0 and 3e0 among the integers.
fn whole_number(text: &str) -> Option<u64> {
    /// Above it a double no longer holds every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Ok(count) = text.parse() {
        return Some(count);
    }
    let number: f64 = text.parse().ok()?;
    let whole = number.fract() == 0.0 && (0.0..=EXACT).contains(&number);
    // In range and without a fraction, so nothing is lost.
    whole.then_some(number as u64)
}
