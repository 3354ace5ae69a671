//! What `check` warns of before it bites.

use capio_specs::{CheckReport, ParseOptions, Severity, Spec, Warning};

fn check(text: &str) -> CheckReport {
    let options = ParseOptions {
        resolve_prefix: Some("/capio".into()),
        document: Some("w.json".into()),
    };
    match Spec::parse(text, &options) {
        Ok(spec) => spec.check(),
        Err(error) => panic!("{error}"),
    }
}

fn step(name: &str, inputs: &str, outputs: &str, rules: &str) -> String {
    format!(
        "{{\"name\": \"{name}\", \"input_stream\": [{inputs}], \"output_stream\": [{outputs}], \"streaming\": [{rules}]}}"
    )
}

fn workflow(steps: &[String], sections: &str) -> CheckReport {
    let steps = steps.join(",\n");
    check(&format!(
        "{{\"name\": \"w\", \"IO_Graph\": [\n{steps}\n]{sections}}}"
    ))
}

fn codes(report: &CheckReport) -> Vec<&str> {
    report.warnings.iter().map(|warning| warning.code).collect()
}

fn find<'r>(report: &'r CheckReport, code: &str) -> &'r Warning {
    let mut warnings = report.warnings.iter();
    match warnings.find(|warning| warning.code == code) {
        Some(warning) => warning,
        None => panic!("no {code} in:\n{report}"),
    }
}

const STREAMED: &str = "{\"name\": [\"x\"], \"committed\": \"on_close\", \"mode\": \"no_update\"}";

#[test]
fn a_sound_workflow_gets_no_warning_and_a_table() {
    let report = workflow(
        &[
            step("a", "", "\"x\"", STREAMED),
            step("b", "\"x\"", "\"y\"", ""),
        ],
        ", \"permanent\": [\"y\"]",
    );
    assert_eq!(codes(&report), [""; 0], "{report}");
    let table = report.to_string();
    let row = table
        .lines()
        .find(|line| line.starts_with("  x "))
        .expect("a row");
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells, ["x", "a", "b", "on_close", "no_update"]);
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");
    assert_eq!(json["files"][1]["name"], "/capio/y");
    assert_eq!(json["files"][1]["rules"]["permanent"], true);
}

#[test]
fn a_file_that_no_step_produces_is_told_with_its_line() {
    let report = workflow(
        &[
            step("a", "", "\"reads.fq\"", ""),
            step("b", "\"raeds.fq\"", "", ""),
        ],
        "",
    );
    let warning = find(&report, "not-produced");
    assert_eq!((warning.line, warning.severity), (3, Severity::Warning));
    assert!(warning.text.contains("beforehand"), "{}", warning.text);
    assert!(warning.hint.contains("reads.fq"), "{}", warning.hint);
}

#[test]
fn a_file_that_a_pattern_produces_is_produced() {
    let report = workflow(
        &[
            step("a", "", "\"part*.txt\"", ""),
            step("b", "\"part1.txt\", \"*.txt\"", "", ""),
        ],
        "",
    );
    assert!(!codes(&report).contains(&"not-produced"), "{report}");
}

#[test]
fn steps_that_wait_for_each_others_end_are_named() {
    let circle = |rules: &str| {
        workflow(
            &[
                step("a", "\"z\"", "\"x\"", rules),
                step("b", "\"x\"", "\"y\"", ""),
                step("c", "\"y\"", "\"z\"", ""),
            ],
            "",
        )
    };
    let report = circle("");
    let warning = find(&report, "update-cycle");
    for name in [
        "\"a\"", "\"b\"", "\"c\"", "/capio/x", "/capio/y", "/capio/z",
    ] {
        assert!(warning.text.contains(name), "{}", warning.text);
    }
    assert_eq!(
        codes(&report)
            .iter()
            .filter(|code| **code == "update-cycle")
            .count(),
        1
    );
    let streamed = circle("{\"name\": [\"x\"], \"mode\": \"no_update\"}");
    assert!(!codes(&streamed).contains(&"update-cycle"), "{streamed}");
}

#[test]
fn a_step_that_reads_what_it_writes_is_no_circle() {
    let report = workflow(&[step("a", "\"x\"", "\"x\"", "")], "");
    assert_eq!(codes(&report), [""; 0], "{report}");
}

#[test]
fn a_rule_that_no_step_needs_is_told() {
    let rule = "{\"name\": [\"xx.txt\"], \"mode\": \"update\"}";
    let report = workflow(&[step("a", "", "\"x.txt\"", rule)], "");
    assert!(
        find(&report, "untouched-rule")
            .hint
            .contains("/capio/x.txt")
    );
}

#[test]
fn file_deps_that_cannot_be_met_are_told() {
    let rule = |deps: &str| {
        let rule = format!(
            "{{\"name\": [\"x\"], \"committed\": \"on_file\", \"mode\": \"update\", \"file_deps\": [{deps}]}}"
        );
        workflow(&[step("a", "", "\"x\", \"y\"", &rule)], "")
    };
    assert_eq!(codes(&rule("\"y\"")), [""; 0]);
    assert_eq!(codes(&rule("\"elsewhere\"")), ["unknown-dependency"]);
    assert_eq!(codes(&rule("\"*\"")), ["pattern-dependency"]);
    assert_eq!(codes(&rule("")), ["no-dependency"]);
    assert_eq!(codes(&rule("\"x\"")), ["dependency-cycle"]);
}

#[test]
fn two_writers_of_one_on_close_file_are_told_unless_a_count_is_given() {
    let both = |committed: &str| {
        let rule =
            format!("{{\"name\": [\"x*\"], \"committed\": \"{committed}\", \"mode\": \"update\"}}");
        workflow(
            &[step("a", "", "\"x1\"", &rule), step("b", "", "\"x1\"", "")],
            "",
        )
    };
    assert!(
        find(&both("on_close"), "shared-on-close")
            .hint
            .contains("on_close:2")
    );
    assert_eq!(codes(&both("on_close:1")), [""; 0]);
    assert_eq!(codes(&both("on_termination")), [""; 0]);
}

#[test]
fn no_update_is_advised_where_no_mode_was_given() {
    let pair = |rules: &str| {
        workflow(
            &[step("a", "", "\"x\"", rules), step("b", "\"x\"", "", "")],
            "",
        )
    };
    let advice = pair("");
    assert_eq!(find(&advice, "no-update-pays").severity, Severity::Advice);
    assert_eq!(codes(&pair("{\"name\": [\"x\"]}")), ["no-update-pays"]);
    assert_eq!(
        codes(&pair("{\"name\": [\"x\"], \"mode\": \"update\"}")),
        [""; 0]
    );
    assert_eq!(codes(&pair(STREAMED)), [""; 0]);
}

#[test]
fn what_has_no_effect_is_told() {
    let rules = "{\"name\": [\"x\"], \"mode\": \"update\"}, \
                 {\"name\": [\"x\"], \"mode\": \"no_update\", \"n_files\": 3, \"file_deps\": [\"x\"]}";
    let report = workflow(
        &[
            step("a", "", "\"x\", \"/elsewhere\", \"log\"", rules),
            step("a", "", "", ""),
        ],
        ", \"aliases\": [{\"group_name\": \"g\", \"files\": []}], \"exclude\": [\"log\"],\
         \"storage\": {\"memory\": [\"x\"], \"fs\": [\"x\"]}",
    );
    let mut codes = codes(&report);
    codes.sort_unstable();
    let expected = [
        "conflicting-storage",
        "excluded-stream",
        "idle-file-deps",
        "idle-n-files",
        "ignored-rule",
        "outside",
        "repeated-step",
        "unused-alias",
    ];
    assert_eq!(codes, expected, "{report}");
}
