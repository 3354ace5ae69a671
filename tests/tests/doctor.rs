//! What killed sessions leave is found, named and removed; what lives is not
//! touched.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use capio_tests::{Scratch, Served, Step, Workflow, capio, plain_only};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Cleaning takes what another test has left for itself to find.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Status and findings of `capio doctor --json`, which looks for temporary files
/// in `scratch` alone.
fn doctor(scratch: &Scratch, options: &[&str]) -> (i32, Value) {
    let output = Command::new(capio())
        .args(["doctor", "--json"])
        .args(options)
        .env("CAPIO_DIR", scratch.data())
        .env("TMPDIR", scratch.outside())
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .output()
        .expect("capio starts");
    let said = serde_json::from_slice(&output.stdout);
    let said = said.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code().unwrap_or(-1), said)
}

/// What was found at `path`; there may be things of others on the machine.
fn found<'a>(said: &'a Value, path: &Path) -> Option<&'a Value> {
    let all = said["leftovers"].as_array().expect("a list");
    all.iter()
        .find(|left| left["path"].as_str() == path.to_str())
}

fn serve(name: &str) -> Served {
    Workflow::new(name)
        .step(Step::sh("make", "").writes(&["*"]))
        .serve(&[])
}

/// Kills the coordinator and the process that would clean up after it.
fn murder(served: &Served) {
    let coordinator = served.running.pid();
    let children = format!("/proc/{coordinator}/task/{coordinator}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    let guardian = children.split_whitespace().find(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == "capio-guardian")
    });
    let guardian = guardian.and_then(|pid| pid.parse().ok());
    let guardian = Pid::from_raw(guardian.expect("a guardian"));
    for pid in [guardian, coordinator] {
        kill(pid, Signal::SIGKILL).expect("it is alive");
    }
}

fn make_old(path: &Path) {
    let old = Command::new("touch")
        .args(["-d", "1 hour ago"])
        .arg(path)
        .status();
    assert!(old.expect("touch starts").success());
}

#[test]
fn a_killed_session_and_its_programs_are_found_and_what_can_go_goes() {
    if plain_only() {
        return;
    }
    let _turn = turn();
    let served = serve("killed");
    let opened = served.scratch.outside().join("opened");
    let mut client = served.client("make", "exec 3> f; : > $OUTSIDE/opened; exec sleep 100");
    client.wait_until(Duration::from_secs(10), "the file", || opened.exists());
    let process = PathBuf::from(format!("/proc/{}", client.pid()));
    let (_, alive) = doctor(&served.scratch, &[]);
    assert!(found(&alive, &served.session).is_none(), "{alive:#}");
    assert!(found(&alive, &process).is_none(), "{alive:#}");
    murder(&served);
    let start = Instant::now();
    let said = loop {
        let (status, said) = doctor(&served.scratch, &[]);
        if found(&said, &served.session).is_some() {
            assert_eq!(status, 1, "{said:#}");
            break said;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{said:#}");
    };
    let session = found(&said, &served.session).expect("it is there");
    assert_eq!(session["workflow"], "killed");
    assert_eq!(session["dir"].as_str(), served.scratch.data().to_str());
    let orphan = found(&said, &process).unwrap_or_else(|| panic!("no orphan in {said:#}"));
    assert_eq!(orphan["kind"], "process");
    assert!(
        served.session.exists(),
        "it only looks unless told otherwise"
    );
    let (_, cleaned) = doctor(&served.scratch, &["--clean"]);
    let session = found(&cleaned, &served.session).expect("it is told");
    assert_eq!(session["removed"], true, "{cleaned:#}");
    assert!(!served.session.exists());
    assert!(process.exists(), "processes are left to the user");
    let (_, after) = doctor(&served.scratch, &[]);
    assert!(found(&after, &served.session).is_none(), "{after:#}");
}

#[test]
fn a_living_session_survives_the_cleaning() {
    if plain_only() {
        return;
    }
    let _turn = turn();
    let served = serve("living");
    served.run("make", "echo one > f");
    make_old(&served.session);
    for _ in 0..5 {
        let (status, said) = doctor(&served.scratch, &["--clean"]);
        assert_ne!(status, 3, "sessions can run here: {said:#}");
        assert!(found(&said, &served.session).is_none(), "{said:#}");
    }
    served.run("make", "test $(cat f) = one && echo two > g");
    let (scratch, finished) = served.stop();
    finished.expect(finished.status.success(), "it ended well");
    let kept = fs::read_to_string(scratch.data().join("g")).unwrap_or_default();
    finished.expect(kept == "two\n", &kept);
}

#[test]
fn results_that_were_not_put_into_place_are_named_and_never_removed() {
    let _turn = turn();
    let scratch = Scratch::new();
    let place = |name: &str| scratch.data().join(format!(".capio-journal-{name}"));
    for name in ["staged", "committed"] {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(place(name))
            .expect("a directory can be made");
        fs::write(place(name).join("1"), "data").expect("a file can be made");
        make_old(&place(name));
    }
    fs::write(place("committed").join("journal"), "").expect("a file can be made");
    let (status, said) = doctor(&scratch, &["--clean"]);
    assert_eq!(status, 1, "{said:#}");
    let kind = |name| found(&said, &place(name)).map(|left| left["kind"].clone());
    assert_eq!(kind("staged"), Some("staged_results".into()), "{said:#}");
    assert_eq!(kind("committed"), Some("committed_results".into()));
    assert!(place("staged").join("1").exists() && place("committed").exists());
}

#[test]
fn stores_and_programs_that_nobody_uses_are_removed_but_not_young_ones() {
    let _turn = turn();
    let scratch = Scratch::new();
    let place = |name: &str| scratch.outside().join(name);
    for store in [".capio-spill-4000000", ".capio-spill-4000001"] {
        fs::write(place(store), "data").expect("a file can be made");
    }
    for programs in ["capio-run-old", "capio-run-young"] {
        fs::create_dir(place(programs)).expect("a directory can be made");
        fs::write(place(programs).join("tool"), "data").expect("a file can be made");
    }
    make_old(&place(".capio-spill-4000000"));
    make_old(&place("capio-run-old"));
    let (_, said) = doctor(&scratch, &["--clean"]);
    let removed = |name| found(&said, &place(name)).is_some_and(|left| left["removed"] == true);
    assert!(removed(".capio-spill-4000000"), "{said:#}");
    assert!(removed("capio-run-old"), "{said:#}");
    assert!(!place(".capio-spill-4000000").exists() && !place("capio-run-old").exists());
    assert!(place(".capio-spill-4000001").exists() && place("capio-run-young").exists());
}

#[test]
fn a_library_that_is_not_ours_is_told_as_a_machine_that_cannot_run_sessions() {
    let scratch = Scratch::new();
    let library = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/libm.so.6"];
    let library = library.iter().find(|path| Path::new(path).exists());
    let Some(library) = library else { return };
    let (status, said) = doctor(&scratch, &["--shim", library]);
    assert_eq!(status, 3, "{said:#}");
}
