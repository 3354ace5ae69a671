//! `capio check` and `capio explain`.

use crate::place::{Place, two_steps};

const MISSPELT: &str = r#"{
  "name": "w",
  "IO_Graph": [
    {"name": "a", "input_stream": [], "output_strem": []}
  ]
}"#;

#[test]
fn a_good_document_is_shown_with_producers_consumers_and_rules() {
    let place = Place::with_spec(&two_steps("on_close", "no_update"));
    let ran = place.capio(&["check", "s.json"]).expect(0);
    let f = ran
        .out
        .lines()
        .find(|line| line.starts_with("  f "))
        .unwrap();
    for word in ["prod", "cons", "on_close", "no_update"] {
        assert!(f.contains(word), "{}", ran.out);
    }
    let ran = place.capio(&["check", "--json", "s.json"]).expect(0);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["steps"], serde_json::json!(["prod", "cons"]));
}

#[test]
fn a_mistake_is_told_with_file_line_and_column_and_what_is_meant() {
    let place = Place::with_spec(MISSPELT);
    let ran = place.capio(&["check", "s.json"]).expect(2);
    let ran = ran.says(&["s.json:4:39:", "output_strem", "output_stream"]);
    assert_eq!(ran.out, "");
    let ran = place.capio(&["check", "--json", "s.json"]).expect(2);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let errors = json["errors"].as_array().unwrap();
    assert!(errors.iter().any(|error| error["line"] == 4), "{}", ran.out);
    place.write("s.json", "{\"name\": ,}");
    place
        .capio(&["check", "s.json"])
        .expect(2)
        .says(&["s.json:1:10:"]);
}

#[test]
fn a_document_that_is_not_there_is_no_internal_error() {
    let place = Place::new();
    let checked = place.capio(&["check", "none.json"]);
    checked.expect(2).says(&["none.json", "No such file"]);
    let explained = place.capio(&["explain", "-c", "none.json", "f"]);
    explained.expect(2).says(&["none.json"]);
}

#[test]
fn a_file_that_nobody_makes_is_warned_of_before_the_run() {
    let place = Place::with_spec(
        r#"{"name": "w", "IO_Graph":
            [{"name": "a", "input_stream": ["in"], "output_stream": ["out"]}]}"#,
    );
    let ran = place.capio(&["check", "s.json"]).expect(0);
    assert!(ran.out.contains("no step produces"), "{}", ran.out);
}

#[test]
fn explain_says_which_rule_applies_and_where_it_stands() {
    let place = Place::with_spec(&two_steps("on_close:2", "no_update"));
    let ran = place.capio(&["explain", "-c", "s.json", "f", "other"]);
    let ran = ran.expect(0);
    assert!(ran.out.contains("on_close:2"), "{}", ran.out);
    assert!(ran.out.contains("s.json:3:"), "{}", ran.out);
    let ran = place.capio(&["explain", "--json", "-c", "s.json", "f", "other"]);
    let json: serde_json::Value = serde_json::from_str(&ran.expect(0).out).unwrap();
    assert_eq!(json[0]["rules"]["committed"], "on_close:2");
    assert_eq!(json[1]["producers"], serde_json::json!([]));
}

#[test]
fn explain_refuses_a_path_outside() {
    let place = Place::with_spec(&two_steps("on_close", "update"));
    let ran = place.capio(&["explain", "-c", "s.json", "../x"]);
    ran.expect(2).says(&["is not below"]);
}
