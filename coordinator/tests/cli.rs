//! The commands as a shell sees them: output, errors, exit status.

use std::path::Path;
use std::process::{Command, Output};

const SPEC: &str = r#"{
  "name": "calls",
  "IO_Graph": [
    { "name": "align", "input_stream": [], "output_stream": ["out.sam"],
      "streaming": [ { "name": ["out.sam"], "committed": "on_close", "mode": "no_update" } ] },
    { "name": "sort", "input_stream": ["out.sam"], "output_stream": ["out.bam"] }
  ]
}"#;

fn run(program: &str, dir: &Path, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .env_remove("CAPIO_DIR")
        .env_remove("CAPIO_WORKFLOW_NAME")
        .output()
        .unwrap()
}

fn capio(dir: &Path, arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_capio"), dir, arguments)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory with a document in it.
fn folder(document: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spec.json"), document).unwrap();
    dir
}

#[test]
fn a_good_document_is_shown_as_a_table() {
    let dir = folder(SPEC);
    let checked = capio(dir.path(), &["check", "spec.json"]);
    assert_eq!(code(&checked), 0, "{}", stderr(&checked));
    let table = stdout(&checked);
    for word in ["align", "sort", "out.sam", "on_close", "no_update"] {
        assert!(table.contains(word), "{table}");
    }
    let json = capio(dir.path(), &["check", "--json", "spec.json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(value.is_object());
}

#[test]
fn a_mistake_is_told_with_its_place_and_a_hint() {
    let dir = folder(&SPEC.replace("\"committed\"", "\"comitted\""));
    let checked = capio(dir.path(), &["check", "spec.json"]);
    assert_eq!(code(&checked), 2);
    let error = stderr(&checked);
    assert!(error.contains("spec.json:5:"), "{error}");
    assert!(error.contains("did you mean \"committed\"?"), "{error}");
    let json = capio(dir.path(), &["check", "--json", "spec.json"]);
    assert_eq!(code(&json), 2);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["errors"][0]["line"], 5);
}

#[test]
fn a_path_is_explained_by_the_lines_that_name_it() {
    let dir = folder(SPEC);
    let explained = capio(dir.path(), &["explain", "-c", "spec.json", "out.sam"]);
    assert_eq!(code(&explained), 0, "{}", stderr(&explained));
    let text = stdout(&explained);
    for word in ["align", "on_close", "spec.json:4:"] {
        assert!(text.contains(word), "{text}");
    }
    let json = capio(
        dir.path(),
        &["explain", "--json", "-c", "spec.json", "out.sam"],
    );
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value[0]["rules"]["mode"], "no_update");
}

#[test]
fn wrong_arguments_say_what_to_do() {
    let dir = folder(SPEC);
    let cases: [(&[&str], i32, &str); 5] = [
        (&["run"], 2, "WORKFLOW_FILE"),
        (&["run", "--step", "a=true", "--dir", "nowhere"], 2, "--dir"),
        (&["run", "nowhere.toml"], 2, "nowhere.toml"),
        (&["check", "nowhere.json"], 2, "nowhere.json"),
        (&["ps"], 3, "capio serve"),
    ];
    for (arguments, status, hint) in cases {
        let output = capio(dir.path(), arguments);
        assert_eq!(code(&output), status, "{arguments:?}");
        assert!(stderr(&output).contains(hint), "{}", stderr(&output));
    }
}

#[test]
fn completions_and_manual_name_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let manual = stdout(&capio(dir.path(), &["man"]));
    let bash = stdout(&capio(dir.path(), &["completions", "bash"]));
    let zsh = stdout(&capio(dir.path(), &["completions", "zsh"]));
    let commands = [
        "run", "serve", "exec", "check", "explain", "ls", "stat", "cat", "ps", "done", "stop",
    ];
    for text in [manual, bash, zsh] {
        assert!(commands.iter().all(|command| text.contains(command)));
    }
}

#[test]
fn the_command_line_of_the_older_server_is_understood() {
    let dir = folder(SPEC);
    let server = env!("CARGO_BIN_EXE_capio_server");
    let help = run(server, dir.path(), &["-h"]);
    assert_eq!(code(&help), 0);
    for option in [
        "--config",
        "--no-config",
        "--resolve-prefix",
        "--backend",
        "--mem-only",
        "--continue-on-error",
    ] {
        assert!(stdout(&help).contains(option), "{option}");
    }
    let wrong = run(server, dir.path(), &["-c", "nowhere.json"]);
    assert_ne!(code(&wrong), 0);
    assert!(!stderr(&wrong).is_empty());
}
