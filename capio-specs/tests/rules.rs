//! Which rules a path gets.

use capio_specs::{CommitRule, FiringRule, ParseOptions, PathRules, Spec, StepIndex, StorageHint};

fn parse(text: &str) -> Spec {
    let options = ParseOptions {
        resolve_prefix: Some("/capio".into()),
        document: Some("w.json".into()),
    };
    match Spec::parse(text, &options) {
        Ok(spec) => spec,
        Err(error) => panic!("{error}"),
    }
}

/// Two steps, `a` that writes and `b` that reads; `rules` go to `a`.
fn pipeline(outputs: &str, inputs: &str, rules: &str, sections: &str) -> Spec {
    parse(&format!(
        "{{\"name\": \"w\", \"IO_Graph\": [\n\
         {{\"name\": \"a\", \"input_stream\": [], \"output_stream\": [{outputs}], \"streaming\": [{rules}]}},\n\
         {{\"name\": \"b\", \"input_stream\": [{inputs}], \"output_stream\": []}}]\n{sections}}}"
    ))
}

#[test]
fn a_path_that_nobody_names_has_the_defaults() {
    let spec = pipeline("\"x\"", "\"x\"", "", "");
    assert_eq!(spec.rules_for(b"/capio/y"), PathRules::unspecified());
    assert_eq!(
        Spec::empty("w").rules_for(b"/capio/x"),
        PathRules::unspecified()
    );
    let named = spec.rules_for(b"/capio/x");
    assert_eq!(named.commit, CommitRule::OnTermination);
    assert_eq!(named.firing, FiringRule::Update);
    assert_eq!(named.producers, [StepIndex(0)]);
    assert_eq!(named.consumers, [StepIndex(1)]);
}

#[test]
fn an_exact_rule_beats_every_pattern() {
    let spec = pipeline(
        "\"*\"",
        "",
        "{\"name\": [\"*******.txt\"], \"mode\": \"no_update\"}, {\"name\": [\"a.txt\"], \"committed\": \"on_close\"}",
        "",
    );
    let exact = spec.rules_for(b"/capio/a.txt");
    assert_eq!(exact.commit, CommitRule::OnClose { count: 1 });
    assert_eq!(
        exact.firing,
        FiringRule::Update,
        "all attributes come from one rule"
    );
    assert_eq!(spec.rules_for(b"/capio/b.txt").firing, FiringRule::NoUpdate);
}

#[test]
fn the_longest_pattern_wins_whatever_the_order() {
    let (short, long) = (
        "{\"name\": [\"*.txt\"], \"committed\": \"on_close:2\"}",
        "{\"name\": [\"a*.txt\"], \"committed\": \"on_close:3\"}",
    );
    for rules in [format!("{short},{long}"), format!("{long},{short}")] {
        let spec = pipeline("", "", &rules, "");
        let commit = |path: &[u8]| spec.rules_for(path).commit;
        assert_eq!(commit(b"/capio/ab.txt"), CommitRule::OnClose { count: 3 });
        assert_eq!(commit(b"/capio/b.txt"), CommitRule::OnClose { count: 2 });
    }
}

#[test]
fn of_equally_long_patterns_the_first_rule_wins() {
    // The input names the second pattern before any rule does.
    let spec = pipeline(
        "\"?b\"",
        "",
        "{\"name\": [\"a?\"], \"committed\": \"on_close:2\"}, {\"name\": [\"?b\"], \"committed\": \"on_close:3\"}",
        "",
    );
    let rules = spec.rules_for(b"/capio/ab");
    assert_eq!(rules.commit, CommitRule::OnClose { count: 2 });
}

#[test]
fn naming_a_file_in_a_stream_does_not_hide_the_rule_of_its_pattern() {
    let spec = pipeline(
        "\"out/a.sam\"",
        "\"out/a.sam\"",
        "{\"name\": [\"out/*\"], \"mode\": \"no_update\"}",
        "",
    );
    let rules = spec.rules_for(b"/capio/out/a.sam");
    assert_eq!(rules.firing, FiringRule::NoUpdate);
}

#[test]
fn producers_and_consumers_are_the_union_over_all_matching_entries() {
    let spec = parse(
        "{\"name\": \"w\", \"IO_Graph\": [\
         {\"name\": \"a\", \"input_stream\": [], \"output_stream\": [\"x.txt\", \"x*\"]},\
         {\"name\": \"b\", \"input_stream\": [\"*.txt\"], \"output_stream\": [\"*\"]},\
         {\"name\": \"c\", \"input_stream\": [\"x.txt\"], \"output_stream\": []}]}",
    );
    let rules = spec.rules_for(b"/capio/x.txt");
    assert_eq!(rules.producers, [StepIndex(0), StepIndex(1)]);
    assert_eq!(rules.consumers, [StepIndex(1), StepIndex(2)]);
}

#[test]
fn a_step_in_two_parts_is_one_step() {
    let spec = parse(
        "{\"name\": \"w\", \"IO_Graph\": [\
         {\"name\": \"a\", \"input_stream\": [], \"output_stream\": [\"x\"]},\
         {\"name\": \"b\", \"input_stream\": [\"x\"], \"output_stream\": []},\
         {\"name\": \"a\", \"input_stream\": [], \"output_stream\": [\"y\"]}]}",
    );
    assert_eq!(spec.steps().len(), 2);
    assert_eq!(spec.step("b"), Some(StepIndex(1)));
    assert_eq!(spec.rules_for(b"/capio/y").producers, [StepIndex(0)]);
}

#[test]
fn aliases_stand_for_their_files_in_every_section() {
    let spec = pipeline(
        "\"bams\"",
        "\"all\"",
        "{\"name\": [\"bams\"], \"committed\": \"on_file\", \"file_deps\": [\"all\"]}",
        ", \"aliases\": [{\"group_name\": \"bams\", \"files\": [\"a.bam\", \"b*.bam\"]}, \
         {\"group_name\": \"all\", \"files\": [\"bams\", \"log\", \"a.bam\"]}],\
         \"permanent\": [\"bams\"], \"exclude\": [\"all\"], \"storage\": {\"fs\": [\"bams\"]}, \
         \"home_node_policies\": {\"create\": [\"bams\"], \"manual\": [{\"name\": [\"log\"], \"app_node\": \"n\"}]}",
    );
    let rules = spec.rules_for(b"/capio/b1.bam");
    assert_eq!((rules.producers.len(), rules.consumers.len()), (1, 1));
    assert!(rules.permanent && rules.excluded);
    assert_eq!(rules.storage, StorageHint::Fs);
    let deps = ["/capio/a.bam", "/capio/b*.bam", "/capio/log"].map(str::to_owned);
    assert_eq!(
        rules.commit,
        CommitRule::OnFile {
            deps: deps.to_vec()
        }
    );
    assert_eq!(
        spec.home_node_policies().create,
        ["/capio/a.bam", "/capio/b*.bam"]
    );
    assert_eq!(spec.home_node_policies().manual[0].names, ["/capio/log"]);
    assert_eq!(spec.rules_for(b"/capio/bams"), PathRules::unspecified());
}

#[test]
fn relative_names_resolve_in_every_section_and_lexically() {
    let spec = pipeline(
        "\"./x\"",
        "\"sub/..//x\"",
        "{\"name\": [\"../capio/x\"], \"mode\": \"no_update\"}",
        ", \"permanent\": [\"x/\"], \"storage\": {\"memory\": [\"x\"]}",
    );
    let rules = spec.rules_for(b"/capio/x");
    assert_eq!((rules.producers.len(), rules.consumers.len()), (1, 1));
    assert_eq!(rules.firing, FiringRule::NoUpdate);
    assert!(rules.permanent);
    assert_eq!(rules.storage, StorageHint::Memory);
}

#[test]
fn a_dirname_rule_marks_a_directory_and_not_the_files_in_it() {
    let spec = pipeline(
        "\"d\"",
        "",
        "{\"dirname\": [\"d\"], \"committed\": \"on_n_files\", \"n_files\": 4}, {\"name\": [\"e\"], \"n_files\": 2}",
        "",
    );
    let rules = spec.rules_for(b"/capio/d");
    assert!(rules.is_directory);
    assert_eq!(rules.commit, CommitRule::OnNFiles { count: 4 });
    assert!(!spec.rules_for(b"/capio/d/file").is_directory);
    assert!(!spec.rules_for(b"/capio/e").is_directory);
}

#[test]
fn names_that_are_not_utf_8_match_too() {
    let spec = pipeline("\"*.dat\"", "", "", "");
    assert_eq!(
        spec.rules_for(b"/capio/\xff\xfe.dat").producers,
        [StepIndex(0)]
    );
}

#[test]
fn of_two_storage_hints_the_exact_one_counts() {
    let spec = pipeline(
        "",
        "",
        "",
        ", \"storage\": {\"memory\": [\"*\"], \"fs\": [\"x\"]}",
    );
    assert_eq!(spec.rules_for(b"/capio/x").storage, StorageHint::Fs);
    assert_eq!(spec.rules_for(b"/capio/y").storage, StorageHint::Memory);
}

#[test]
fn an_explanation_names_the_entry_that_decides_and_those_passed_over() {
    let spec = pipeline(
        "\"x.txt\"",
        "\"*.txt\"",
        "{\"name\": [\"*\"]}, {\"name\": [\"x.txt\"], \"mode\": \"no_update\"}",
        "",
    );
    let explanation = spec.explain(b"x.txt");
    assert_eq!(explanation.path, "/capio/x.txt");
    assert_eq!(explanation.rules, spec.rules_for(b"/capio/x.txt"));
    assert_eq!(
        (&*explanation.producers, &*explanation.consumers),
        (&["a".to_owned()][..], &["b".to_owned()][..])
    );
    let rules: Vec<_> = explanation
        .matches
        .iter()
        .filter(|entry| entry.section == "streaming name")
        .map(|entry| (entry.name.as_str(), entry.exact, entry.decides))
        .collect();
    assert_eq!(
        rules,
        [("/capio/*", false, false), ("/capio/x.txt", true, true)]
    );
    let text = explanation.to_string();
    assert!(text.contains("mode         no_update"), "{text}");
    assert!(text.contains("w.json:2:"), "{text}");
    assert!(text.contains("passed over"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&explanation.to_json()).expect("JSON");
    assert_eq!(json["rules"]["mode"], "no_update");
    assert_eq!(json["matches"][0]["line"], 2);
}

#[test]
fn an_explanation_of_an_unnamed_path_says_that_the_defaults_hold() {
    let explanation = pipeline("\"x\"", "", "", "").explain(b"/capio/y");
    assert!(explanation.matches.is_empty());
    assert!(explanation.to_string().contains("default"));
}
