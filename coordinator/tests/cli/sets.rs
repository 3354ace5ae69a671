//! What comes from the definition of the command line: help, completions,
//! manual.

use std::process::Command;

use crate::place::{Place, finish};

const COMMANDS: [&str; 16] = [
    "run",
    "serve",
    "exec",
    "check",
    "explain",
    "ls",
    "stat",
    "cat",
    "ps",
    "diff",
    "apply",
    "discard",
    "done",
    "stop",
    "completions",
    "man",
];

#[test]
fn the_shell_completes_commands_and_options() {
    let place = Place::new();
    let script = place.capio(&["completions", "bash"]).expect(0).out;
    place.write("c.bash", &script);
    let ask = |words: &str, at: usize| {
        let line = format!(
            "source ./c.bash; COMP_WORDS=({words}); COMP_CWORD={at}; \
             _capio capio \"${{COMP_WORDS[{at}]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        bash.args(["-c", &line]).current_dir(place.path(""));
        finish(bash).expect(0).out
    };
    assert_eq!(ask("capio ru", 1), "run\n");
    assert_eq!(ask("capio run --seq", 2), "--sequential\n");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = place.capio(&["completions", shell]).expect(0).out;
        assert!(script.contains("explain"), "{shell}");
    }
}

#[test]
fn every_command_has_a_help_text_and_a_manual_page() {
    let place = Place::new();
    place.capio(&["man", "--dir", "man"]).expect(0);
    let page = place.read("man/capio.1").unwrap();
    let printed = place.capio(&["man"]).expect(0).out;
    assert!(printed.starts_with(".ie") && printed.contains("Ctrl\\-C: 130"));
    for command in COMMANDS {
        assert!(page.contains(&format!("capio\\-{command}(1)")), "{command}");
        let own = place.read(&format!("man/capio-{command}.1")).unwrap();
        assert!(own.contains(".SH NAME"), "{command}");
        let help = place.capio(&[command, "--help"]).expect(0).out;
        assert!(help.contains("Usage: capio"), "{help}");
    }
    let help = place.capio(&["--help"]).expect(0).out;
    assert!(help.contains("Ctrl-C: 130"), "exit statuses: {help}");
}

#[test]
fn output_into_a_closed_pipe_is_no_error() {
    let place = Place::new();
    let mut capio = place.command("capio", &["man"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    capio.stdout(writer);
    let status = capio.status().unwrap();
    assert_eq!(status.code(), Some(0));
}
