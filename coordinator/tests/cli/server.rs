//! `capio_server`, with the command line of the C++ CAPIO.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::place::{Place, Running, finish, library, start, two_steps, until};

/// A server as a job script starts it, once clients can join.
fn serve(place: &Place, workflow: Option<&str>, args: &[&str]) -> Running {
    let mut command = place.command("capio_server", args);
    command.env("CAPIO_DIR", place.path(""));
    if let Some(workflow) = workflow {
        command.env("CAPIO_WORKFLOW_NAME", workflow);
    }
    let running = start(command);
    let socket = place.session(workflow.unwrap_or("CAPIO")).join("sock");
    until("listening", || socket.exists());
    running
}

/// A client as a job script starts it.
fn client(place: &Place, step: &str, line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(place.path(""));
    command
        .env("LD_PRELOAD", library())
        .env("CAPIO_DIR", place.path(""))
        .env("CAPIO_APP_NAME", step)
        .env_remove("CAPIO_WORKFLOW_NAME");
    command
}

#[test]
fn existing_job_scripts_run_unchanged() {
    let place = Place::with_spec(&two_steps("on_close", "no_update"));
    let prefix = place.path("").display().to_string();
    let args = ["-c", "s.json", "-r", &prefix, "-b", "none", "--mem-only"];
    let logs = ["-l", "srv", "-d", "logs", "--continue-on-error"];
    let server = serve(&place, Some("mine"), &[&args[..], &logs].concat());
    let run = |step: &str, line: &str| {
        let mut command = client(&place, step, line);
        command.env("CAPIO_WORKFLOW_NAME", "mine");
        start(command)
    };
    let reading = run("cons", "cat $CAPIO_DIR/f; cp f r");
    run("prod", "echo streamed > $CAPIO_DIR/f")
        .finish()
        .expect(0);
    assert_eq!(reading.finish().expect(0).out, "streamed\n");
    server.signal(Signal::SIGTERM);
    let ran = server.finish().expect(0);
    assert!(ran.took < Duration::from_secs(1), "{ran:?}");
    assert_eq!(place.read("r").unwrap(), "streamed\n");
    let log = place.read("logs/srv.log").unwrap();
    assert!(log.contains("ready") && log.contains("kept"), "{log}");
    place.nothing_is_left("mine", &prefix);
}

#[test]
fn nobody_needs_to_name_the_workflow() {
    let place = Place::new();
    let server = serve(&place, None, &["--no-config"]);
    finish(client(&place, "any", "echo x > f; cat f")).expect(0);
    server.signal(Signal::SIGTERM);
    server.finish().expect(0);
}

#[test]
fn a_job_script_that_is_wrong_is_told_what_to_do() {
    let place = Place::with_spec("{}");
    let refused = |dir: Option<&str>, args: &[&str], status, words: &[&str]| {
        let mut command = place.command("capio_server", args);
        if let Some(dir) = dir {
            command.env("CAPIO_DIR", dir);
        }
        finish(command).expect(status).says(words);
    };
    refused(None, &["--no-config"], 2, &["CAPIO_DIR is not set"]);
    refused(Some("none"), &["--no-config"], 2, &["none", "CAPIO_DIR"]);
    refused(Some("."), &["-c", "s.json"], 2, &["s.json:1:1:"]);
    refused(Some("."), &["-c", "none.json"], 2, &["none.json"]);
    refused(Some("."), &["--no-config", "-b", "mtcl"], 2, &["-b none"]);
    refused(Some("."), &[], 2, &["--config"]);
    let help = finish(place.command("capio_server", &["-h"])).expect(0);
    assert!(help.out.contains("--no-config"), "{}", help.out);
}

#[test]
fn a_second_server_of_the_same_directory_is_refused() {
    let place = Place::new();
    let mut server = serve(&place, None, &["--no-config"]);
    let mut command = place.command("capio_server", &["--no-config"]);
    command.env("CAPIO_DIR", place.path(""));
    finish(command).expect(3).says(&["already running"]);
    assert!(server.is_running());
}
