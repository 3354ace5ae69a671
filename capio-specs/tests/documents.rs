//! What is wrong with a document is said with its place and what to do.

use capio_specs::{ParseOptions, ProblemKind, Spec, SpecError};

fn options() -> ParseOptions {
    ParseOptions {
        resolve_prefix: Some("/capio".into()),
        document: Some("demo.json".into()),
    }
}

fn error(text: &str) -> SpecError {
    Spec::parse(text, &options()).expect_err(text)
}

/// A document with one step `a` whose body is `step`, and sections after it.
fn with(step: &str, sections: &str) -> String {
    format!("{{\"name\": \"w\",\n \"IO_Graph\": [{{\"name\": \"a\",\n  {step}}}]\n{sections}}}")
}

fn with_rule(rule: &str) -> String {
    let step = format!("\"input_stream\": [], \"output_stream\": [],\n\"streaming\": [{rule}]");
    with(&step, "")
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_its_neighbour() {
    let text = with(
        "\"inptu_stream\": [], \"input_stream\": [], \"output_stream\": []",
        "",
    );
    let error = error(&text);
    assert_eq!(
        error.to_string(),
        "demo.json:3:3: unknown key \"inptu_stream\" in step \"a\": expected one of \"name\", \
         \"input_stream\", \"output_stream\", \"streaming\"; did you mean \"input_stream\"?"
    );
    assert_eq!(error.kind(), ProblemKind::UnknownKey);
    assert_eq!((error.line(), error.column()), (3, 3));
}

#[test]
fn a_missing_stream_says_what_to_add() {
    let error = error(&with("\"output_stream\": []", ""));
    assert_eq!(error.kind(), ProblemKind::MissingKey);
    assert_eq!(error.hint(), Some("add \"input_stream\": []"));
    assert_eq!(error.line(), 2);
}

#[test]
fn all_mistakes_are_reported_at_once_and_in_order() {
    let text = with(
        "\"input_stream\": \"x\", \"output_stream\": [1],\n\"colour\": 1",
        ", \"permanent\": {}, \"exclude\": [\"\"]",
    );
    let kinds: Vec<_> = error(&text).problems().map(|p| (p.line, p.kind)).collect();
    assert_eq!(
        kinds,
        [
            (3, ProblemKind::WrongType),
            (3, ProblemKind::WrongType),
            (4, ProblemKind::UnknownKey),
            (5, ProblemKind::WrongType),
            (5, ProblemKind::WrongValue),
        ]
    );
}

#[test]
fn text_that_is_not_json_is_placed() {
    let error = error("{\"name\": \"w\",\n \"IO_Graph\": [,]}");
    assert_eq!(error.kind(), ProblemKind::Syntax);
    assert_eq!((error.line(), error.column()), (2, 15));
    for text in ["", "   ", "\u{feff}", "[", "{}x", "nul"] {
        let error = self::error(text);
        assert!(
            error.line() >= 1 && error.column() >= 1,
            "{text:?}: {error}"
        );
    }
}

#[test]
fn doubled_keys_are_mistakes() {
    let error = error("{\"name\": \"w\", \"name\": \"v\", \"IO_Graph\": []}");
    assert_eq!(error.kind(), ProblemKind::DuplicateKey);
    assert_eq!(error.column(), 15);
}

#[test]
fn only_a_missing_version_and_the_number_1_1_are_known() {
    let parse = |version: &str| {
        let text = format!("{{{version}\"name\": \"w\", \"IO_Graph\": []}}");
        Spec::parse(&text, &options())
    };
    assert_eq!(parse("").expect("1.0").version().to_string(), "1.0");
    let newer = parse("\"version\": 1.1,").expect("1.1");
    assert_eq!(newer.version().to_string(), "1.1");
    for wrong in ["1.0", "1", "\"1.1\"", "2", "null", "1.2"] {
        let error = parse(&format!("\"version\": {wrong},")).expect_err(wrong);
        assert_eq!(error.kind(), ProblemKind::Version, "{wrong}");
        assert_eq!(error.expected(), Some("the number 1.1"));
    }
}

#[test]
fn a_rule_names_files_or_directories_and_never_both_or_none() {
    for (rule, kind) in [
        ("{}", ProblemKind::MissingKey),
        ("{\"name\": [], \"dirname\": []}", ProblemKind::UnknownKey),
        ("{\"name\": \"x\"}", ProblemKind::WrongType),
        ("[]", ProblemKind::WrongType),
    ] {
        assert_eq!(error(&with_rule(rule)).kind(), kind, "{rule}");
    }
}

#[test]
fn commit_rules_take_what_they_need_and_nothing_else() {
    let good = [
        "\"name\": [\"x\"], \"committed\": \"on_close\"",
        "\"name\": [\"x\"], \"committed\": \"on_close:12\"",
        "\"name\": [\"x\"], \"committed\": \"on_file\", \"file_deps\": [\"y\"]",
        "\"dirname\": [\"x\"], \"committed\": \"on_n_files\", \"n_files\": 3",
        "\"dirname\": [\"x\"], \"committed\": \"on_n_files\", \"n_files\": 3.0",
        "\"name\": [\"x\"], \"committed\": \"on_termination\", \"mode\": \"no_update\"",
    ];
    for rule in good {
        let text = with_rule(&format!("{{{rule}}}"));
        assert!(Spec::parse(&text, &options()).is_ok(), "{rule}");
    }
    let bad = [
        "\"name\": [\"x\"], \"committed\": \"on_file\"",
        "\"dirname\": [\"x\"], \"committed\": \"on_n_files\"",
        "\"name\": [\"x\"], \"committed\": \"on_n_files\", \"n_files\": 3",
        "\"name\": [\"x\"], \"committed\": \"on_close:\"",
        "\"name\": [\"x\"], \"committed\": \"on_close:+1\"",
        "\"name\": [\"x\"], \"committed\": \"on_close:99999999999999999999\"",
        "\"name\": [\"x\"], \"committed\": \"on_termination:1\"",
        "\"name\": [\"x\"], \"mode\": \"No_update\"",
        "\"dirname\": [\"x\"], \"committed\": \"on_n_files\", \"n_files\": -1",
        "\"dirname\": [\"x\"], \"n_files\": 1.5",
        "\"dirname\": [\"x\"], \"n_files\": \"3\"",
    ];
    for rule in bad {
        let error = error(&with_rule(&format!("{{{rule}}}")));
        assert_eq!(error.line(), 4, "{rule}: {error}");
    }
}

#[test]
fn white_space_in_a_step_name_is_refused_with_the_name_without_it() {
    let text = "{\"name\": \"w\", \"IO_Graph\": [{\"name\": \"my step\", \
                \"input_stream\": [], \"output_stream\": []}]}";
    assert_eq!(error(text).hint(), Some("write \"mystep\""));
}

#[test]
fn aliases_that_go_in_a_circle_or_stand_twice_are_refused() {
    let step = "\"input_stream\": [], \"output_stream\": []";
    let circle = ", \"aliases\": [{\"group_name\": \"g\", \"files\": [\"h\"]}, \
                  {\"group_name\": \"h\", \"files\": [\"g\"]}]";
    let circle = error(&with(step, circle));
    assert_eq!(circle.kind(), ProblemKind::Alias);
    assert_eq!(circle.problems().count(), 2);
    let twice = ", \"aliases\": [{\"group_name\": \"g\", \"files\": []}, \
                 {\"group_name\": \"g\", \"files\": []}]";
    assert_eq!(error(&with(step, twice)).kind(), ProblemKind::Alias);
}

#[test]
fn a_file_under_two_home_node_policies_is_refused() {
    let step = "\"input_stream\": [], \"output_stream\": []";
    let two = ", \"home_node_policies\": {\"create\": [\"a\"], \"hashing\": [\"/capio/./a\"]}";
    assert_eq!(error(&with(step, two)).kind(), ProblemKind::HomeNode);
    let nodes = ", \"home_node_policies\": {\"manual\": [{\"name\": [\"a\"], \"app_node\": \"n\"}, \
                 {\"name\": [\"a\"], \"app_node\": \"m\"}]}";
    assert_eq!(error(&with(step, nodes)).kind(), ProblemKind::HomeNode);
    let one = ", \"home_node_policies\": {\"create\": [\"a\", \"a\"], \"hashing\": [\"b\"]}";
    let spec = Spec::parse(&with(step, one), &options()).expect("one policy a file");
    assert_eq!(spec.home_node_policies().hashing, ["/capio/b"]);
}

#[test]
fn configuration_belongs_to_1_1_and_lies_beside_the_document() {
    let error = error("{\"name\": \"w\", \"IO_Graph\": [], \"configuration\": \"c.toml\"}");
    assert_eq!(
        error.hint(),
        Some("\"configuration\" needs \"version\": 1.1")
    );

    let folder = tempfile::tempdir().expect("a folder");
    let document = folder.path().join("w.json");
    let text =
        "{\"version\": 1.1, \"name\": \"w\", \"IO_Graph\": [],\n\"configuration\": \"c.toml\"}";
    std::fs::write(&document, text).expect("write");
    let missing = Spec::load(&document, &ParseOptions::default()).expect_err("no file");
    assert_eq!(missing.kind(), ProblemKind::Configuration);
    assert_eq!(missing.line(), 2);

    let toml = folder.path().join("c.toml");
    std::fs::write(&toml, "[monitor.mcast.commit]\nport = 7").expect("write");
    let spec = Spec::load(&document, &ParseOptions::default()).expect("valid");
    let configuration = spec.configuration().expect("named");
    assert_eq!(configuration.monitor.mcast.commit.port, Some(7));

    std::fs::write(&toml, "[monitor.mcast.commit]\nport = ").expect("write");
    let broken = Spec::load(&document, &ParseOptions::default()).expect_err("no TOML");
    assert!(broken.message().contains("c.toml:2:"), "{broken}");
}

#[test]
fn a_document_that_cannot_be_read_is_an_error_with_a_place() {
    let error = Spec::load("/nonexistent/w.json".as_ref(), &ParseOptions::default());
    let error = error.expect_err("no such file");
    assert_eq!(error.kind(), ProblemKind::Unreadable);
    assert!(
        error.to_string().starts_with("/nonexistent/w.json:1:1: "),
        "{error}"
    );

    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), b"{\n\"name\": \"\xff\"}").expect("write");
    let error = Spec::load(file.path(), &ParseOptions::default()).expect_err("not UTF-8");
    assert_eq!((error.line(), error.column()), (2, 10));
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let text = "\u{feff}{\"name\": \"w\", \"IO_Graph\": []}";
    assert!(Spec::parse(text, &options()).is_ok());
}

#[test]
fn a_relative_directory_to_resolve_against_is_refused() {
    let options = ParseOptions {
        resolve_prefix: Some("capio".into()),
        document: None,
    };
    let error = Spec::parse("{}", &options).expect_err("relative");
    assert_eq!(error.kind(), ProblemKind::ResolvePrefix);
}
