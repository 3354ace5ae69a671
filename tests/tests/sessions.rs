//! Sessions without `capio run`: programs join by their environment alone, as
//! they do with the C++ server, and other commands look in from outside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use capio_tests::{Step, Workflow, limit, plain_only};

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn two_steps(name: &str) -> Workflow {
    Workflow::new(name)
        .step(Step::sh("make", "").rule(&["f"], "on_close", "no_update"))
        .step(Step::sh("use", "").reads(&["f"]).writes(&["g"]))
        .permanent(&["g"])
}

#[test]
fn job_scripts_of_the_cpp_server_run_unchanged() {
    if plain_only() {
        return;
    }
    let served = two_steps("unchanged").server(&["-b", "none", "--mem-only"]);
    let user = served.client("use", "wc -l < f > g");
    let maker = served.client("make", "seq 1 300; sleep 0.2; seq 301 1000; sleep 0.1");
    maker.finish(limit()).expect_success();
    served.run("make", "{ seq 1 300; sleep 0.2; seq 301 1000; } > f");
    user.finish(limit()).expect_success();
    let start = Instant::now();
    let (scratch, finished) = served.stop();
    finished.expect(
        start.elapsed() < Duration::from_millis(1500),
        "it ended slowly",
    );
    finished.expect(finished.status.code() == Some(0), "it did not end well");
    let lines = fs::read_to_string(scratch.data().join("g")).unwrap_or_default();
    finished.expect(lines == "1000\n", &format!("g is '{lines}'"));
}

#[test]
fn an_idle_server_ends_within_a_second() {
    if plain_only() {
        return;
    }
    let served = two_steps("idle").server(&["--no-config"]);
    let start = Instant::now();
    let (_, finished) = served.stop();
    finished.expect(start.elapsed() < Duration::from_secs(1), "it ended slowly");
    finished.expect(finished.status.success(), "it did not end well");
}

#[test]
fn commands_look_into_a_session_without_waiting() {
    if plain_only() {
        return;
    }
    let served = two_steps("look").serve(&[]);
    let go = served.scratch.outside().join("go");
    let maker = served.client(
        "make",
        "exec > f; printf 'half '; while [ ! -e $OUTSIDE/go ]; do sleep 0.02; done; echo whole",
    );
    let user = served.client("use", "cat f > g");
    let start = Instant::now();
    while text(&served.capio(&["cat", "f"])) != "half " {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "capio cat never shows the bytes"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let listing = text(&served.capio(&["ls"]));
    assert!(listing.lines().any(|line| line.ends_with('f')), "{listing}");
    let status = served.capio(&["stat", "--json", "f"]);
    assert!(
        status.status.success() && text(&status).contains("\"size\""),
        "{status:?}"
    );
    let mut processes = String::new();
    while !(processes.contains("make")
        && processes.contains("use")
        && processes.contains("more bytes"))
    {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "capio ps shows no waiting reader:\n{processes}"
        );
        processes = text(&served.capio(&["ps"]));
    }
    let missing = served.capio(&["cat", "missing"]);
    assert!(
        !missing.status.success() && !missing.stderr.is_empty(),
        "{missing:?}"
    );
    fs::write(go, "").expect("a note can be left");
    maker.finish(limit()).expect_success();
    user.finish(limit()).expect_success();
    let stopped = served.capio(&["stop"]);
    assert!(stopped.status.success(), "{stopped:?}");
    let (scratch, finished) = served.ended();
    let whole = fs::read_to_string(scratch.data().join("g")).unwrap_or_default();
    finished.expect(whole == "half whole\n", &format!("g is '{whole}'"));
    finished.expect(
        !scratch.data().join("f").exists(),
        "what is not permanent and was read is kept",
    );
}

#[test]
fn a_program_joins_by_capio_exec_and_its_status_is_passed_on() {
    if plain_only() {
        return;
    }
    let served = two_steps("exec").serve(&[]);
    let joined = served.capio(&[
        "exec",
        "--step",
        "make",
        "--",
        "sh",
        "-c",
        "cd \"$CAPIO_DIR\" && seq 1 5 > f; exit 7",
    ]);
    assert_eq!(joined.status.code(), Some(7), "{joined:?}");
    assert_eq!(text(&served.capio(&["cat", "f"])), "1\n2\n3\n4\n5\n");
    let lost = served.capio(&["exec", "--step", "make", "--", "/no/such/program"]);
    assert_eq!(lost.status.code(), Some(127), "{lost:?}");
    served.stop();
}

#[test]
fn a_step_is_over_when_somebody_says_so() {
    if plain_only() {
        return;
    }
    let workflow = Workflow::new("done")
        .step(Step::sh("make", "").writes(&["f"]))
        .step(Step::sh("use", "").reads(&["f"]).writes(&["g"]));
    let served = workflow.serve(&["--step-grace", "100"]);
    served.run("make", "echo 1 > f");
    let user = served.client("use", "cat f > g; echo read > $OUTSIDE/read");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        served.scratch.note("read"),
        "",
        "the file was read before the step had ended"
    );
    assert!(served.capio(&["done", "make"]).status.success());
    user.finish(limit()).expect_success();
    served.stop();
}

#[test]
fn a_client_that_comes_before_its_server_waits_for_it() {
    if plain_only() {
        return;
    }
    let served = two_steps("early").serve(&[]);
    served.run("make", "echo 1 > f");
    let (scratch, _) = served.stop();
    // The session is gone: the next program is told, and does not touch the disk.
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "echo 2 > fresh"])
        .env("LD_PRELOAD", capio_tests::beside_capio("libcapio_posix.so"))
        .env("CAPIO_DIR", scratch.data())
        .env("CAPIO_WORKFLOW_NAME", "early")
        .current_dir(scratch.data());
    let start = Instant::now();
    let output = command.output().expect("sh starts");
    assert!(!output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("Input/output error"),
        "{output:?}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "it took {:?}",
        start.elapsed()
    );
    assert!(
        !scratch.data().join("fresh").exists(),
        "the file was written to the disk"
    );
}

#[test]
fn the_library_without_a_directory_does_nothing() {
    let dir = capio_tests::Scratch::new();
    let output = std::process::Command::new("sh")
        .args(["-c", "echo 1 > f; cat f; ls; cd / && pwd"])
        .env("LD_PRELOAD", capio_tests::beside_capio("libcapio_posix.so"))
        .env_remove("CAPIO_DIR")
        .current_dir(dir.data())
        .output()
        .expect("sh starts");
    assert_eq!(text(&output), "1\nf\n/\n");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn two_sessions_on_one_directory_do_not_see_each_other() {
    if plain_only() {
        return;
    }
    let first = two_steps("one").serve(&[]);
    let second = two_steps("two").serve(&[]);
    first.run("make", "echo first > f");
    second.run("make", "echo second > f");
    assert_eq!(text(&first.capio(&["cat", "f"])), "first\n");
    assert_eq!(text(&second.capio(&["cat", "f"])), "second\n");
    first.stop();
    second.stop();
}

#[test]
fn a_second_server_of_the_same_session_is_refused() {
    if plain_only() {
        return;
    }
    let served = two_steps("same").serve(&[]);
    let second = served.capio(&["serve"]);
    assert_eq!(second.status.code(), Some(3), "{second:?}");
    assert!(!second.stderr.is_empty());
    served.run("make", "echo 1 > f");
    served.stop();
}

/// A test that fails in the middle drops its session; that must not litter.
#[test]
fn a_dropped_session_takes_its_directory_with_it() {
    if plain_only() {
        return;
    }
    let served = two_steps("dropped").serve(&[]);
    let session = served.session.clone();
    drop(served);
    // What was killed is cleared away by its guardian.
    let start = Instant::now();
    while session.exists() {
        let patient = start.elapsed() < Duration::from_secs(30);
        assert!(patient, "{} was left behind", session.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn another_user_cannot_reach_a_session() {
    if plain_only() {
        return;
    }
    let served = two_steps("private").serve(&[]);
    let mode = fs::metadata(&served.session)
        .expect("the session is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "{mode:o} lets others in");
    let root = nix::unistd::geteuid().is_root();
    for socket in [wire::place::SOCKET, "admin.sock"] {
        let script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
        let mut other = Command::new("python3");
        other.args(["-c", script]).arg(served.session.join(socket));
        let own = other.output().expect("python3 starts");
        assert!(own.status.success(), "{own:?}");
        // Only root can become somebody else; the mode speaks for the others.
        if root {
            let refused = other.uid(65534).gid(65534).output().expect("it starts");
            let why = String::from_utf8_lossy(&refused.stderr);
            assert!(why.contains("PermissionError"), "{refused:?}");
        }
    }
    served.stop();
}
