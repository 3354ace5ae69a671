//! `capio run` when something goes wrong.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::place::{Place, processes_with, two_steps, until};

const READ: &str = "cons=cat f > r; echo cons $?";

fn run_two(place: &Place, prod: &str, more: &[&str]) -> (crate::place::Ran, serde_json::Value) {
    let steps = ["-c", "s.json", "--step", prod, "--step", READ];
    place.report(&[more, &steps].concat())
}

#[test]
fn readers_of_what_will_never_be_complete_get_eio_and_the_culprit_is_named() {
    let place = Place::with_spec(&two_steps("on_termination", "no_update"));
    let (ran, report) = run_two(&place, "prod=exec > f; echo part; sleep 0.2; exit 9", &[]);
    let ran = ran
        .expect(9)
        .says(&["Input/output error", "failed first: step prod: exit 9"]);
    assert!(ran.out.contains("cons | cons 1"), "{ran:?}");
    assert_eq!(report["first_failure"], "prod");
    assert!(place.read("r").is_none(), "a failed run keeps nothing");
    assert!(ran.err.contains("--keep-on-failure"), "{ran:?}");
    place.nothing_is_left("wf", &place.path("").display().to_string());
}

#[test]
fn a_file_that_was_never_made_because_its_maker_failed_is_an_error_too() {
    let place = Place::with_spec(&two_steps("on_close", "update"));
    let (ran, _) = run_two(&place, "prod=sleep 0.2; exit 3", &[]);
    let ran = ran
        .expect(3)
        .says(&["Input/output error", "failed first: step prod"]);
    assert!(ran.out.contains("cons | cons 1"), "{ran:?}");
}

#[test]
fn a_step_killed_by_a_signal_counts_as_failed_with_a_shells_status() {
    let place = Place::with_spec(&two_steps("on_close", "no_update"));
    let (ran, report) = run_two(&place, "prod=exec > f; echo part; kill -9 $$", &[]);
    let ran = ran.expect(137).says(&["prod: killed by SIGKILL"]);
    assert!(ran.out.contains("cons | cons 1"), "{ran:?}");
    assert_eq!(report["steps"][0]["end"]["signal"], 9);
}

#[test]
fn continue_on_error_lets_others_read_what_is_left() {
    let place = Place::with_spec(&two_steps("on_termination", "no_update"));
    let more = ["--continue-on-error", "--keep-on-failure"];
    let (ran, _) = run_two(&place, "prod=echo part > f; exit 9", &more);
    assert!(ran.expect(9).out.contains("cons | cons 0"));
    assert_eq!(place.read("r").unwrap(), "part\n");
}

#[test]
fn a_missing_program_is_127_and_one_that_may_not_run_126() {
    let place = Place::new();
    place.write("plain", "");
    place.write("script", "#!/no/such/interpreter\n");
    let script = std::fs::File::open(place.path("script")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    script.set_permissions(mode).unwrap();
    let toml = |program: &str, more: &str| {
        format!("[[step]]\nname = 'a'\ncommand = ['{program}']\n{more}")
    };
    for (program, more, status, words) in [
        ("no-such-program", "", 127, "there is no program"),
        ("./plain", "", 126, "chmod +x"),
        ("./script", "", 126, "its first line"),
        ("true", "cwd = 'none'", 126, "none does not exist"),
    ] {
        place.write("w.toml", &toml(program, more));
        let ran = place.capio(&["run", "w.toml"]);
        ran.expect(status).says(&[words]);
    }
    let shell = place.capio(&["run", "--step", "a=no-such-program"]);
    shell.expect(127).says(&["not found"]);
}

#[test]
fn steps_after_a_failed_one_do_not_start() {
    let place = Place::new();
    place.write(
        "w.toml",
        r#"
        [[step]]
        name = "a"
        command = "exit 5"
        [[step]]
        name = "b"
        command = "touch never"
        after = ["a"]
        "#,
    );
    for option in ["--strict", "--continue-on-error"] {
        let ran = place.capio(&["run", option, "w.toml"]);
        ran.expect(5).says(&["step b: not started"]);
        assert_eq!(place.read("never"), None);
    }
}

#[test]
fn steps_that_wait_for_each_other_end_with_the_circle_named() {
    let place = Place::with_spec(
        r#"{"name": "dl", "IO_Graph": [
            {"name": "a", "input_stream": ["y"], "output_stream": ["x"]},
            {"name": "b", "input_stream": ["x"], "output_stream": ["y"]}]}"#,
    );
    let steps = [
        "-c",
        "s.json",
        "--step",
        "a=cat y > x",
        "--step",
        "b=cat x > y",
    ];
    let (ran, report) = place.report(&steps);
    let ran = ran.expect(4).says(&[
        "Resource deadlock avoided",
        "\"a\" waits for y of \"b\"",
        "\"b\" waits for x of \"a\"",
    ]);
    assert!(ran.took < Duration::from_millis(2500), "{ran:?}");
    assert!(report["deadlock"].as_str().unwrap().contains("\"a\""));
    let told = ran.err.matches("those calls fail with EDEADLK").count();
    assert_eq!(told, 2, "at once and in the report: {}", ran.err);
}

/// One step with daemons and children, one that waits.
fn endless(place: &Place, mark: &str) -> crate::place::Running {
    let prod = format!("prod=setsid -f env -i sh -c 'sleep {mark}; :'; sleep {mark} & wait");
    let args = ["run", "-c", "s.json", "--step", &prod, "--step", READ];
    let running = place.start("capio", &args);
    // `capio` and its keepers have it on their command lines too.
    until("started", || {
        let lines = processes_with(mark);
        lines.iter().filter(|line| !line.contains("s.json")).count() >= 4
    });
    running
}

#[test]
fn interrupting_a_run_ends_everything_at_once() {
    let place = Place::with_spec(&two_steps("on_close", "no_update"));
    let mark = place.mark();
    let running = endless(&place, &mark);
    running.signal(Signal::SIGINT);
    let ran = running.finish().expect(130).says(&["SIGINT"]);
    assert!(ran.took < Duration::from_secs(2), "{ran:?}");
    place.nothing_is_left("wf", &mark);
}

#[test]
fn what_ignores_the_end_is_killed_after_the_grace_or_on_the_second_interrupt() {
    for grace in ["0.2", "60"] {
        let place = Place::new();
        let mark = place.mark();
        let step = format!("a=trap '' TERM INT; echo on; sleep {mark}; sleep {mark}");
        let logs = ["run", "--logs", "logs", "--grace", grace];
        let running = place.start("capio", &[&logs[..], &["--step", &step]].concat());
        until("started", || {
            place.read("logs/a.log").is_some_and(|log| log == "on\n")
        });
        running.signal(Signal::SIGTERM);
        if grace == "60" {
            std::thread::sleep(Duration::from_millis(300));
            running.signal(Signal::SIGTERM);
        }
        let ran = running.finish().expect(143).says(&["killed by SIGKILL"]);
        assert!(ran.took < Duration::from_secs(3), "{ran:?}");
        place.nothing_is_left("CAPIO", &mark);
    }
}

#[test]
fn killing_the_command_itself_leaves_nothing_behind() {
    let place = Place::with_spec(&two_steps("on_close", "no_update"));
    let mark = place.mark();
    let running = endless(&place, &mark);
    running.signal(Signal::SIGKILL);
    assert_eq!(running.finish().status, None);
    until("all processes gone", || processes_with(&mark).is_empty());
    until("the session gone", || !place.session("wf").exists());
}

#[test]
fn strict_fails_a_run_whose_reader_saw_half_a_file() {
    let place = Place::with_spec(&two_steps("on_termination", "no_update"));
    place.write(
        "half.py",
        "import os, sys, time\n\
         fd = os.open('f', os.O_RDONLY)\n\
         while not (n := os.fstat(fd).st_size): time.sleep(0.01)\n\
         os.read(fd, n); os.close(fd)\n\
         open(sys.argv[1], 'w').close()\n",
    );
    // Outside of the session: the writer goes on when the reader has closed.
    let elsewhere = Place::new();
    let closed = elsewhere.path("closed").display().to_string();
    let half = format!("cons=python3 half.py {closed}");
    let whole = format!(
        "prod=(echo a; until [ -e {closed} ]; do sleep 0.05; done; rm {closed}; echo b) > f"
    );
    let args = ["run", "-c", "s.json", "--step", &half, "--step", &whole];
    place.capio(&args).expect(0).says(&["probably truncated"]);
    let strict = [&args[..], &["--strict"]].concat();
    place.capio(&strict).expect(5).says(&["probably truncated"]);
}

#[test]
fn a_slip_on_the_command_line_is_told_with_what_to_do() {
    let place = Place::new();
    place.write("file", "");
    place.write("bad.json", "{\"name\": \"w\"}");
    place.write(
        "circle.toml",
        "[[step]]\nname='a'\ncommand='true'\nafter=['a']\n",
    );
    place.write("bad.toml", "[[step]]\nname = 'a'\ncomand = 'true'\n");
    for (args, words) in [
        ("-c none.json --step a=true", "none.json"),
        (
            "-c bad.json --step a=true",
            "bad.json:1:1: missing key \"IO_Graph\"",
        ),
        ("--dir none --step a=true", "make it"),
        ("--dir file --step a=true", "not a directory"),
        ("none.toml", "cannot read the workflow none.toml"),
        (
            "bad.toml",
            "bad.toml:3:1: unknown key `comand`; did you mean `command`?",
        ),
        ("circle.toml", "circle"),
        ("--step a", "write --step NAME=COMMAND"),
        ("--step a=true --step a=true", "already"),
        ("--logs file/logs --step a=true", "give another by --logs"),
        ("--workflow ../x --step a=true", "cannot name a session"),
        ("--cache lots --step a=true", "is no size"),
        ("", "required"),
    ] {
        let words_of_args: Vec<_> = args.split_whitespace().collect();
        let ran = place.capio(&[&["run"][..], &words_of_args].concat());
        ran.expect(2).says(&[words]);
    }
}

#[test]
fn programs_never_run_without_the_library() {
    let place = Place::new();
    place.write("text.so", "no library\n");
    for (shim, words) in [
        ("none.so", "is not there"),
        ("text.so", "no shared library"),
    ] {
        let ran = place.capio(&["run", "--shim", shim, "--step", "a=touch ran"]);
        ran.expect(3).says(&[words, "--shim"]);
        assert_eq!(place.read("ran"), None);
    }
}

#[test]
fn a_step_that_the_spec_spells_otherwise_is_warned_of() {
    let place = Place::with_spec(&two_steps("on_close", "update"));
    let steps = ["--step", "prod=echo x > f", "--step", "conz=cat f"];
    let ran = place.capio(&[&["run", "-c", "s.json"][..], &steps].concat());
    ran.expect(0)
        .says(&["the spec has no step conz; is cons meant?"]);
}

#[test]
fn signals_of_a_batch_system_reach_the_programs_and_end_nothing() {
    let place = Place::new();
    let step = "a=trap 'echo saved > state' USR1; trap 'echo more >> state; exit 0' USR2; \
                touch ready; while :; do sleep 0.02; done";
    let args = ["run", "--sequential", "--in-place", "--step", step];
    let mut running = place.start("capio", &args);
    until("ready", || place.path("ready").exists());
    running.signal(Signal::SIGUSR1);
    until("saved", || {
        place.read("state").is_some_and(|s| s == "saved\n")
    });
    assert!(running.is_running());
    running.signal(Signal::SIGUSR2);
    running.finish().expect(0);
    assert_eq!(place.read("state").unwrap(), "saved\nmore\n");
}

#[test]
fn a_killed_keeper_takes_its_step_along_and_leaves_the_session_its_guardian() {
    let place = Place::with_spec(&two_steps("on_close", "no_update"));
    let mark = place.mark();
    let prod = format!("prod=setsid -f sh -c 'sleep {mark}; :'; echo $PPID > $OUT; sleep {mark}");
    let args = ["run", "-c", "s.json", "--step", &prod, "--step", READ];
    let mut command = place.command("capio", &args);
    // Outside the session's directory the file is on disk at once.
    let outside = tempfile::tempdir().unwrap();
    let keeper = outside.path().join("keeper");
    command.env("OUT", &keeper);
    let running = crate::place::start(command);
    until("started", || {
        std::fs::read_to_string(&keeper).is_ok_and(|pid| pid.ends_with('\n'))
    });
    let pid = std::fs::read_to_string(&keeper).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    let ran = running
        .finish()
        .expect(137)
        .says(&["prod: killed by SIGKILL"]);
    assert!(
        ran.out.contains("cons | cons 1"),
        "EIO for the reader: {ran:?}"
    );
    place.nothing_is_left("wf", &mark);
}
