//! `capio serve`, and the commands that talk to it.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{Place, Running, two_steps, until};

/// A session called wf in the foreground.
fn serve(place: &Place, more: &[&str]) -> Running {
    let args = ["serve", "-c", "s.json", "--ready-file", "ready"];
    let running = place.start("capio", &[&args[..], more].concat());
    until("ready", || place.path("ready").exists());
    running
}

/// Runs `capio COMMAND ARGS`, on the only session there is.
fn ask(place: &Place, command: &str, args: &[&str]) -> crate::place::Ran {
    place.capio(&[&[command], args].concat())
}

#[test]
fn programs_join_from_elsewhere_and_files_can_be_looked_at() {
    let place = Place::with_spec(&two_steps("on_close", "no_update"));
    let serving = serve(&place, &[]);
    let pid = place.read("ready").unwrap();
    assert_eq!(pid, format!("{}\n", serving.pid()));
    let made = "echo hello > f; mkdir sub; ln -s f link";
    ask(&place, "exec", &["--step", "prod", "--", "sh", "-c", made]).expect(0);
    let listed = ask(&place, "ls", &[]).expect(0).out;
    let row = |name: &str| listed.lines().find(|line| line.ends_with(name));
    assert!(row(" f").unwrap().contains("final"), "{listed}");
    assert!(row("-> f").unwrap().starts_with('l'), "{listed}");
    assert!(row(" sub").unwrap().starts_with('d'), "{listed}");
    assert!(
        ask(&place, "stat", &["f"])
            .expect(0)
            .out
            .contains("size      6")
    );
    let json = ask(&place, "stat", &["--json", "f"]).expect(0).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["size"], &json["final"]), (&6.into(), &true.into()));
    assert_eq!(ask(&place, "cat", &["f"]).expect(0).out, "hello\n");
    let ran = ask(&place, "exec", &["--step", "cons", "--", "cp", "f", "r"]);
    ran.expect(0);
    let ran = ask(&place, "stop", &[]).expect(0);
    assert!(ran.took < Duration::from_secs(1), "{ran:?}");
    serving.finish().expect(0).says(&["kept", "r (6 B"]);
    assert_eq!(place.read("r").unwrap(), "hello\n", "on disk");
    assert_eq!(place.read("f"), None);
    assert_eq!(place.read("ready"), None);
    place.nothing_is_left("wf", &place.path("").display().to_string());
}

#[test]
fn ps_shows_who_waits_for_what_and_done_ends_the_wait() {
    let place = Place::with_spec(&two_steps("on_termination", "update"));
    let _serving = serve(&place, &["--step-grace", "60"]);
    let prod = ["--step", "prod", "--", "sh", "-c", "echo x > f"];
    ask(&place, "exec", &prod).expect(0);
    let cons = [
        "exec",
        "--workflow",
        "wf",
        "--step",
        "cons",
        "--",
        "cat",
        "f",
    ];
    let mut waiting = place.start("capio", &cons);
    until("waiting", || {
        let json = ask(&place, "ps", &["--json"]).expect(0).out;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["steps"][1]["waiting"][0]["path"] == "f"
    });
    let text = ask(&place, "ps", &[]).expect(0).out;
    assert!(text.contains("session wf of"), "{text}");
    assert!(text.contains(&waiting.pid().to_string()), "{text}");
    assert!(waiting.is_running());
    let unknown = ask(&place, "done", &["prud"]);
    unknown
        .expect(2)
        .says(&["no step `prud`", "did you mean `prod`?"]);
    ask(&place, "done", &["prod"]).expect(0);
    assert_eq!(waiting.finish().expect(0).out, "x\n");
}

#[test]
fn exec_gives_the_programs_own_status() {
    let place = Place::with_spec(&two_steps("on_close", "update"));
    let _serving = serve(&place, &[]);
    let exec = |step: &str, words: &[&str]| {
        ask(&place, "exec", &[&["--step", step, "--"], words].concat())
    };
    exec("prod", &["sh", "-c", "exit 7"]).expect(7);
    exec("prod", &["no-such-program"])
        .expect(127)
        .says(&["no-such-program"]);
    let slip = exec("prd", &["true"]);
    slip.expect(0).says(&["no step prd; is prod meant?"]);
    ask(&place, "exec", &["--step", "prod"]).expect(2);
}

#[test]
fn looking_at_what_is_not_there_is_an_error_that_says_so() {
    let place = Place::with_spec(&two_steps("on_close", "update"));
    let none = ask(&place, "ls", &[]);
    none.expect(3).says(&["no session of", "capio serve"]);
    let _serving = serve(&place, &[]);
    for (command, path, words) in [
        ("cat", "none", "No such file"),
        ("stat", "none", "No such file"),
        ("ls", "none", "No such file"),
        ("cat", ".", "Is a directory"),
        ("ls", "..", "is not below"),
    ] {
        ask(&place, command, &[path]).expect(2).says(&[words]);
    }
    let other = place.capio(&["ps", "--workflow", "other"]);
    other.expect(3).says(&["no session other", "--workflow"]);
}

#[test]
fn a_session_must_be_named_where_there_are_several() {
    let place = Place::with_spec(&two_steps("on_close", "update"));
    let _serving = serve(&place, &[]);
    let more = ["serve", "--workflow", "more", "--ready-file", "second"];
    let _second = place.start("capio", &more);
    until("second", || place.path("second").exists());
    let unclear = place.capio(&["ps"]);
    unclear.expect(2).says(&["more, wf", "--workflow"]);
    let named = place.capio(&["ps", "--workflow", "more"]).expect(0);
    assert!(named.out.starts_with("session more of"), "{named:?}");
}

#[test]
fn a_second_session_of_the_same_directory_is_refused() {
    let place = Place::with_spec(&two_steps("on_close", "update"));
    let mut serving = serve(&place, &[]);
    let steps = ["--step", "prod=touch ran", "--step", "cons=true"];
    for args in [&["serve"][..], &[&["run"][..], &steps].concat()] {
        let ran = place.capio(&[args, &["-c", "s.json"]].concat());
        ran.expect(3).says(&["already running", "capio stop"]);
    }
    assert_eq!(place.read("ran"), None);
    assert!(serving.is_running());
    ask(&place, "ps", &[]).expect(0);
}

#[test]
fn a_daemon_returns_when_it_is_ready_and_holds_nothing_of_its_caller() {
    let place = Place::with_spec(&two_steps("on_close", "update"));
    let args = ["serve", "--daemon", "-c", "s.json", "--ready-file", "ready"];
    let ran = place
        .capio(&[&args[..], &["--log", "log"]].concat())
        .expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    let pid = place.read("ready").expect("ready on return");
    let again = place.capio(&["serve", "--daemon", "-c", "s.json"]);
    again.expect(3).says(&["already running"]);
    let pid = Pid::from_raw(pid.trim().parse().unwrap());
    assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid);
    let prod = ["--step", "prod", "--", "sh", "-c", "echo x > other"];
    ask(&place, "exec", &prod).expect(0);
    ask(&place, "stop", &[]).expect(0);
    assert_eq!(
        place.read("other").unwrap(),
        "x\n",
        "kept when stop returns"
    );
    until("gone", || kill(pid, None).is_err());
    assert!(place.read("log").unwrap().contains("ready"));
    assert_eq!(place.read("ready"), None);
}

#[test]
fn a_daemon_that_cannot_start_tells_its_caller() {
    let place = Place::new();
    let ran = place.capio(&["serve", "--daemon", "-c", "none.json"]);
    ran.expect(2).says(&["none.json"]);
    let ran = place.capio(&["serve", "--daemon", "--dir", "none"]);
    ran.expect(2).says(&["make it"]);
}

#[test]
fn a_session_that_is_stopped_does_not_wait_for_who_is_attached() {
    let place = Place::with_spec(&two_steps("on_close", "update"));
    let serving = serve(&place, &[]);
    let cons = [
        "exec",
        "--workflow",
        "wf",
        "--step",
        "cons",
        "--",
        "cat",
        "f",
    ];
    let waiting = place.start("capio", &cons);
    until("waiting", || {
        ask(&place, "ps", &[]).out.contains("to exist")
    });
    serving.signal(Signal::SIGTERM);
    let ran = serving.finish().expect(0);
    assert!(ran.took < Duration::from_secs(1), "{ran:?}");
    let ran = waiting.finish();
    assert!(ran.took < Duration::from_secs(1), "{ran:?}");
    assert_ne!(ran.status, Some(0), "{ran:?}");
}

#[test]
fn a_service_manager_is_told_of_readiness_and_of_the_end() {
    let place = Place::with_spec(&two_steps("on_close", "update"));
    let path = place.path("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let told = || {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let mut command = place.command("capio", &["serve", "-c", "s.json"]);
    command.env("NOTIFY_SOCKET", &path);
    let serving = crate::place::start(command);
    assert!(told().contains("READY=1"));
    ask(&place, "ps", &[]).expect(0);
    serving.signal(Signal::SIGTERM);
    assert!(told().contains("STOPPING=1"));
    serving.finish().expect(0);
}

#[test]
fn what_lies_on_disk_is_shown_as_it_is() {
    let place = Place::with_spec(&two_steps("on_close", "update"));
    std::fs::create_dir(place.path("dir")).unwrap();
    place.write("dir/old", "from before\n");
    let _serving = serve(&place, &[]);
    let listed = ask(&place, "ls", &["dir"]).expect(0).out;
    assert!(
        listed.contains("on-disk") && listed.ends_with(" old\n"),
        "{listed}"
    );
    let known = ask(&place, "stat", &["dir/old"]).expect(0).out;
    assert!(known.contains("size      12"), "{known}");
    let both = ask(&place, "cat", &["dir/old", "dir/../dir/old"]);
    assert_eq!(both.expect(0).out, "from before\n".repeat(2));
}
