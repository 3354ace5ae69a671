//! Processes die at any moment. Nobody hangs, nobody mistakes half a file for a
//! whole one, and nothing is left behind.

use std::path::Path;
use std::time::{Duration, Instant};

use capio_tests::{CapioRun, Served, Step, Workflow, plain_only, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(10);

fn source(arguments: &str) -> String {
    format!("exec '{}' {arguments}", program("source").display())
}

/// The process id that a program left in a note, once it is there.
fn pid(run: &mut CapioRun, note: &str) -> Pid {
    let file = run.scratch.outside().join(note);
    run.running.wait_until(SOON, note, || file.exists());
    Pid::from_raw(run.scratch.note(note).trim().parse().expect("a process id"))
}

fn murder(run: &mut CapioRun, note: &str) {
    let pid = pid(run, note);
    kill(pid, Signal::SIGKILL).expect("the process is alive");
}

/// Entries of `/dev/shm` that belong to a session or an arena.
fn shared_memory() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm")
        .into_iter()
        .flatten()
        .flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains("capio")).collect()
}

/// Whether a socket of that session is known to the kernel.
fn has_socket(session: &Path) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets.contains(&session.display().to_string())
}

fn expect_nothing_left(session: &Path) {
    let start = Instant::now();
    while session.exists() || has_socket(session) {
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{} is left",
            session.display()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let name = session
        .file_name()
        .expect("a session has a name")
        .to_string_lossy();
    let left = shared_memory();
    assert!(
        !left.iter().any(|entry| entry.contains(&*name)),
        "left: {left:?}"
    );
}

fn streaming() -> Workflow {
    Workflow::new("streaming")
        .step(Step::sh("make", source("write f $OUTSIDE/made")).rule(
            &["f"],
            "on_close",
            "no_update",
        ))
        .step(Step::sh("use", source("read f $OUTSIDE/read")).reads(&["f"]))
}

#[test]
fn the_reader_of_a_killed_writer_gets_an_error_and_no_end_of_file() {
    if plain_only() {
        return;
    }
    let mut run = streaming().start(&[]);
    murder(&mut run, "made");
    let (scratch, finished) = run.finish();
    let note = scratch.note("read");
    finished.expect(
        note.starts_with("errno EIO") || note.starts_with("open EIO"),
        &format!("the reader saw '{note}'"),
    );
    finished.expect(
        finished.status.code() == Some(128 + 9),
        "the status is the killed step's",
    );
    finished.expect(
        finished.output.contains("make"),
        "the report names the culprit",
    );
    finished.expect(!scratch.data().join("f").exists(), "half a file was kept");
    finished.expect_no_survivors();
}

#[test]
fn a_reader_that_waits_for_the_whole_file_learns_of_the_killed_writer() {
    if plain_only() {
        return;
    }
    let mut run = Workflow::new("whole")
        .step(
            Step::sh("make", source("write f $OUTSIDE/made 100000")).rule(
                &["f"],
                "on_close",
                "update",
            ),
        )
        .step(Step::sh("use", source("read f $OUTSIDE/read")).reads(&["f"]))
        .start(&["--continue-on-error", "--grace", "5"]);
    let victim = pid(&mut run, "made");
    std::thread::sleep(Duration::from_millis(200));
    kill(victim, Signal::SIGKILL).expect("the process is alive");
    let (scratch, finished) = run.finish();
    // Told to go on, readers take what is there as whole.
    finished.expect(
        scratch.note("read") == "end 102400\n",
        "what was written counts",
    );
    finished.expect_no_survivors();
}

#[test]
fn a_file_that_its_killed_producer_never_made_is_an_error_and_not_missing() {
    if plain_only() {
        return;
    }
    let mut run = Workflow::new("unmade")
        .step(Step::sh("make", source("write other $OUTSIDE/made 4096")).writes(&["f", "other"]))
        .step(Step::sh("use", source("read f $OUTSIDE/read")).reads(&["f"]))
        .start(&[]);
    murder(&mut run, "made");
    let (scratch, finished) = run.finish();
    let note = scratch.note("read");
    finished.expect(note == "open EIO\n", &format!("the reader saw '{note}'"));
    finished.expect_no_survivors();
}

#[test]
fn the_producer_goes_on_when_a_reader_is_killed() {
    if plain_only() {
        return;
    }
    let reads = format!(
        "echo $$ > $OUTSIDE/reading; {}",
        source("read f $OUTSIDE/never")
    );
    let make = "seq 1 1000; while [ ! -e $OUTSIDE/killed ]; do sleep 0.02; done; seq 1001 5000";
    let mut run = Workflow::new("reader")
        .step(Step::sh("make", format!("{{ {make}; }} > f")).rule(&["f"], "on_close", "no_update"))
        .step(Step::sh("doomed", reads).reads(&["f"]))
        .step(
            Step::sh("use", "wc -l < f > lines")
                .reads(&["f"])
                .writes(&["lines"]),
        )
        .start(&["--continue-on-error", "--keep-on-failure"]);
    let victim = pid(&mut run, "reading");
    std::thread::sleep(Duration::from_millis(100));
    kill(victim, Signal::SIGKILL).expect("the process is alive");
    std::fs::write(run.scratch.outside().join("killed"), "").expect("a note can be left");
    let (scratch, finished) = run.finish();
    finished.expect(
        finished.status.code() == Some(128 + 9),
        "the status is the killed step's",
    );
    finished.expect_no_survivors();
    let lines = std::fs::read_to_string(scratch.data().join("lines")).unwrap_or_default();
    finished.expect(
        lines == "5000\n",
        &format!("the other reader saw '{lines}'"),
    );
}

#[test]
fn a_child_killed_in_mid_write_does_not_stop_its_parent() {
    if plain_only() {
        return;
    }
    let script = format!(
        "({}) & child=$!; while [ ! -e $OUTSIDE/made ]; do sleep 0.02; done; kill -9 $child; wait $child; \
         echo parent > g; cat g g > h; rm f; ls > listing",
        source("write f $OUTSIDE/made")
    );
    let (scratch, finished) = Workflow::new("child")
        .step(Step::sh("parent", script).writes(&["*"]))
        .start(&[])
        .finish();
    finished.expect_success();
    let listing = std::fs::read_to_string(scratch.data().join("listing")).expect("kept");
    finished.expect(listing == "g\nh\nlisting\n", &listing);
}

#[test]
fn the_lock_of_a_killed_process_is_free_and_shared_appends_go_on() {
    if plain_only() {
        return;
    }
    let line = "0123456789012345678901234567890123456789012345678901234567890\n";
    // Writers on one open file, killed again and again; what is there is whole lines.
    let script = r#"
        exec 3>> log
        for round in 1 2 3 4 5 6 7 8; do
            python3 -c 'import os
while True: os.write(3, b"0123456789012345678901234567890123456789012345678901234567890\n")' & child=$!
            sleep 0.15; kill -9 $child; wait $child
            echo round >&3
        done"#;
    let (scratch, finished) = Workflow::new("appends")
        .step(Step::sh("parent", script).writes(&["*"]))
        .start(&[])
        .finish();
    finished.expect_success();
    let log = std::fs::read_to_string(scratch.data().join("log")).expect("kept");
    let wrong = log
        .lines()
        .filter(|found| *found != line.trim() && *found != "round")
        .count();
    finished.expect(wrong == 0, &format!("{wrong} lines were torn"));
    finished.expect(
        log.lines().filter(|found| *found == "round").count() == 8,
        "rounds are missing",
    );
}

#[test]
fn clients_of_a_killed_coordinator_get_an_error_within_a_second() {
    if plain_only() {
        return;
    }
    let served = Workflow::new("orphan")
        .step(Step::sh("makes", "").rule(&["g", "never"], "on_close", "no_update"))
        .step(Step::sh("waits", "").reads(&["g", "never"]))
        .serve(&[]);
    let clients = [
        served.client("makes", &source("write g $OUTSIDE/made 8192")),
        served.client("waits", &source("read g $OUTSIDE/read")),
        served.client("waits", &source("read never $OUTSIDE/opened")),
        served.client("calls", &source("call f $OUTSIDE/called")),
    ];
    let outside = served.scratch.outside();
    let wait = |notes: &[&str], limit: Duration| {
        let start = Instant::now();
        while !notes.iter().all(|note| outside.join(note).exists()) {
            assert!(
                start.elapsed() < limit,
                "not all of {notes:?} came in {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait(&["called.pid", "made"], SOON);
    std::thread::sleep(Duration::from_millis(200));
    served.running.signal(Signal::SIGKILL);
    wait(&["called", "read", "opened"], Duration::from_millis(1100));
    let called = served.scratch.note("called");
    for call in ["read", "write", "fstat", "open", "stat"] {
        assert!(called.contains(&format!("{call} EIO\n")), "{called}");
    }
    let read = served.scratch.note("read");
    assert_eq!(read, "errno EIO after 8192\n");
    assert_eq!(served.scratch.note("opened"), "open EIO\n");
    expect_nothing_left(&served.session);
    drop(clients);
}

/// The descriptor is of an empty inode, as the kernel has it.
#[test]
fn a_program_started_after_the_coordinator_died_does_not_take_its_input_for_empty() {
    if plain_only() {
        return;
    }
    let served = Workflow::new("late")
        .step(Step::sh("makes", "").writes(&["f"]))
        .serve(&[]);
    let script = "echo one > f; exec 3< f 4>> f; : > $OUTSIDE/opened; \
                  while [ ! -e $OUTSIDE/killed ]; do sleep 0.02; done; \
                  cat <&3 > $OUTSIDE/read 2>&1; echo $? > $OUTSIDE/status; \
                  /bin/echo two >&4 2> $OUTSIDE/written; echo $? >> $OUTSIDE/status";
    let mut client = served.client("makes", script);
    let note = |name: &str| served.scratch.outside().join(name);
    client.wait_until(SOON, "the file", || note("opened").exists());
    served.running.signal(Signal::SIGKILL);
    expect_nothing_left(&served.session);
    std::fs::write(note("killed"), "").expect("a note can be left");
    client.finish(SOON);
    let (read, written) = (served.scratch.note("read"), served.scratch.note("written"));
    assert_eq!(served.scratch.note("status"), "1\n1\n", "{read}{written}");
    assert!(read.contains("Input/output error"), "{read}");
    assert!(written.contains("Input/output error"), "{written}");
}

/// Lets `end` end the writer of `f`, who has it open, while the coordinator
/// looks away and the kernel remembers nothing; tells what the reader saw.
fn unseen(writes: &str, end: impl FnOnce(&Served)) -> String {
    let served = Workflow::new("unseen")
        .step(Step::sh("makes", "").rule(&["f"], "on_close", "update"))
        .step(Step::sh("uses", "").reads(&["f"]))
        .serve_without_exit_codes();
    let mut writer = served.client("makes", &source(writes));
    let note = served.scratch.outside().join("made");
    writer.wait_until(SOON, "made", || note.exists());
    served.running.signal(Signal::SIGSTOP);
    end(&served);
    writer.finish(SOON);
    served.running.signal(Signal::SIGCONT);
    let reader = served.client("uses", &source("read f $OUTSIDE/read"));
    reader.finish(SOON);
    let seen = served.scratch.note("read");
    let stopped = served.capio(&["stop"]);
    assert!(stopped.status.success(), "{stopped:?}");
    served.ended();
    seen
}

/// As a call of a dead process never happens later.
#[test]
fn what_a_killed_program_had_just_asked_for_does_not_happen_any_more() {
    if plain_only() {
        return;
    }
    let served = Workflow::new("late").serve(&[]);
    let outside = served.scratch.outside();
    let mut clients: Vec<_> = (0..12)
        .map(|number| {
            let script = format!(
                "echo whole > f{number}; read line < f{number}; : > $OUTSIDE/ready{number}; \
                 while [ ! -e $OUTSIDE/go ]; do :; done; : > f{number}"
            );
            served.client("empties", &script)
        })
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let ready = outside.join(format!("ready{number}"));
        client.wait_until(SOON, "the file", || ready.exists());
    }
    served.running.signal(Signal::SIGSTOP);
    let coordinator = served.running.pid();
    while !is_stopped(coordinator) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::write(outside.join("go"), "").expect("a note can be left");
    // They ask for the files to be emptied, and wait for the answer.
    std::thread::sleep(Duration::from_millis(1000));
    for client in clients {
        client.signal(Signal::SIGKILL);
        client.finish(SOON);
    }
    served.running.signal(Signal::SIGCONT);
    let check = "for f in f*; do read line < $f; test \"$line\" = whole || exit 1; done";
    served.run("empties", check);
    served.stop();
}

/// Whether none of its threads runs any more.
fn is_stopped(pid: Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    let stopped = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat"));
        stat.is_ok_and(|stat| stat.contains(") T"))
    };
    tasks.flatten().all(stopped)
}

#[test]
fn a_killed_writer_is_known_although_its_child_has_the_file_open_for_longer() {
    if plain_only() {
        return;
    }
    let served = Workflow::new("outlived")
        .step(Step::sh("makes", "").rule(&["f"], "on_close", "no_update"))
        .step(Step::sh("uses", "").reads(&["f"]))
        .serve(&[]);
    let outside = served.scratch.outside();
    let script = "exec > f; echo half; \
                  (: > $OUTSIDE/forked; while [ ! -e $OUTSIDE/go ]; do sleep 0.02; done) & \
                  while [ ! -e $OUTSIDE/forked ]; do sleep 0.02; done; kill -9 $$";
    let writer = served.client("makes", script);
    let pid = writer.pid();
    let start = Instant::now();
    // Reaped as well, so that nobody remembers how it ended.
    while !outside.join("forked").exists() || !is_zombie(pid) {
        assert!(start.elapsed() < SOON, "it is not killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| writer.finish(SOON));
        std::thread::sleep(Duration::from_millis(300));
        std::fs::write(outside.join("go"), "").expect("a note can be left");
    });
    let reader = served.client("uses", &source("read f $OUTSIDE/read"));
    reader.finish(SOON);
    let seen = served.scratch.note("read");
    assert!(seen.contains("EIO"), "the reader saw '{seen}'");
    assert!(served.capio(&["stop"]).status.success());
    served.ended();
}

fn is_zombie(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z"))
}

#[test]
fn a_killed_writer_is_known_when_nobody_remembers_how_it_ended() {
    if plain_only() {
        return;
    }
    let seen = unseen("write f $OUTSIDE/made 8192", |served| {
        let pid = served.scratch.note("made");
        let pid = Pid::from_raw(pid.trim().parse().expect("a process id"));
        kill(pid, Signal::SIGKILL).expect("the process is alive");
    });
    assert!(seen.contains("EIO"), "the reader saw '{seen}'");
}

#[test]
fn a_writer_that_ends_by_itself_is_not_taken_for_a_killed_one() {
    if plain_only() {
        return;
    }
    for how in ["return", "exit", "_exit", "_Exit", "quick_exit", "raw"] {
        let seen = unseen(&format!("end f $OUTSIDE/made {how}"), |served| {
            let go = served.scratch.outside().join("made.go");
            std::fs::write(go, "").expect("a note");
        });
        assert_eq!(seen, "end 8192\n", "after {how}");
    }
}

#[test]
fn steps_of_a_killed_run_are_ended_with_it() {
    if plain_only() {
        return;
    }
    let mut run = streaming()
        .step(Step::sh("many", "sleep 100 & setsid sleep 101 & wait").writes(&["none"]))
        .start(&[]);
    pid(&mut run, "made");
    let session = run.session.clone();
    run.running.signal(Signal::SIGKILL);
    let finished = run.running.finish(SOON);
    finished.expect_no_survivors();
    expect_nothing_left(&session);
}

#[test]
fn ctrl_c_ends_everything_and_leaves_nothing_behind() {
    if plain_only() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut run = streaming()
            .step(
                Step::sh("many", "sleep 100 & sleep 101 & (sleep 102 &) ; wait").writes(&["none"]),
            )
            .start(&[]);
        let _maker = pid(&mut run, "made");
        let session = run.session.clone();
        let start = Instant::now();
        run.running.signal(signal);
        let (scratch, finished) = run.finish();
        finished.expect(
            finished.status.code() == Some(128 + signal as i32),
            "the status tells of the signal",
        );
        finished.expect(start.elapsed() < Duration::from_secs(8), "it took long");
        finished.expect_no_survivors();
        expect_nothing_left(&session);
        finished.expect(!scratch.data().join("f").exists(), "half a file was kept");
    }
}

#[test]
fn a_run_that_ends_well_leaves_nothing_behind() {
    if plain_only() {
        return;
    }
    let run = Workflow::new("clean")
        .step(
            Step::sh(
                "make",
                "seq 1 100000 > f; (sleep 0.2; echo daemon > g) > /dev/null 2>&1 &",
            )
            .writes(&["f", "g"]),
        )
        .step(
            Step::sh("use", "wc -l < f > lines")
                .reads(&["f"])
                .writes(&["lines"]),
        )
        .start(&[]);
    let session = run.session.clone();
    let (scratch, finished) = run.finish();
    finished.expect_success();
    expect_nothing_left(&session);
    let names: Vec<_> = std::fs::read_dir(scratch.data())
        .expect("a directory")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    finished.expect(names.len() == 3, &format!("{names:?}"));
}

#[test]
fn steps_that_wait_for_one_another_are_told_so() {
    if plain_only() {
        return;
    }
    let (scratch, finished) = Workflow::new("cycle")
        .step(
            Step::sh("a", "echo 1 > x; cat y > z; echo $? > $OUTSIDE/a")
                .reads(&["y"])
                .rule(&["x", "z"], "on_termination", "update"),
        )
        .step(
            Step::sh("b", "cat x > y; echo $? > $OUTSIDE/b")
                .reads(&["x"])
                .rule(&["y"], "on_termination", "update"),
        )
        .start(&[])
        .finish();
    finished.expect(
        finished.status.code() == Some(4),
        "the status of a dead-lock is 4",
    );
    finished.expect(
        finished.output.contains("Resource deadlock avoided"),
        "cat was told EDEADLK",
    );
    finished.expect(
        finished.output.contains('x') && finished.output.contains('y'),
        "the cycle is named",
    );
    finished.expect(finished.wall < Duration::from_secs(5), "it took long");
    drop(scratch);
}

#[test]
fn a_full_cache_without_a_store_gives_the_writer_enospc_and_the_session_goes_on() {
    if plain_only() {
        return;
    }
    let script = "dd if=/dev/zero of=big bs=1M count=64 2> $OUTSIDE/said; echo $? > $OUTSIDE/status; rm big; \
                  dd if=/dev/zero of=small bs=1M count=4 2> /dev/null && cksum < small > sum";
    let (scratch, finished) = Workflow::new("full")
        .step(Step::sh("fill", script).writes(&["*"]))
        .start(&["--cache", "32M", "--store-size", "0"])
        .finish();
    finished.expect_success();
    finished.expect(
        scratch.note("status") == "1\n",
        "the write succeeded beyond the limit",
    );
    finished.expect(
        scratch.note("said").contains("No space left on device"),
        &scratch.note("said"),
    );
    finished.expect(
        scratch.data().join("sum").exists(),
        "the session did not go on",
    );
}

/// The kernel itself may write a part of a killed process's record; here the
/// record is there or it is not.
#[test]
fn writers_killed_at_any_moment_leave_whole_records() {
    if plain_only() {
        return;
    }
    let chaos = program("chaos").display().to_string();
    let (_, finished) = Workflow::new("chaos")
        .step(Step::sh("kill", format!("exec '{chaos}' 1500")).writes(&["*"]))
        .start(&["--keep", "none"])
        .finish();
    finished.expect_success();
}

#[test]
fn two_hundred_processes_share_a_small_cache() {
    if plain_only() {
        return;
    }
    let script = "for i in $(seq 1 200); do \
        sh -c \"seq 1 2000 > f$i; while [ ! -e $OUTSIDE/go ]; do sleep 0.1; done; cat f$i >> all; wc -l < f$i > n$i\" & done; \
        until [ $(ls f* | wc -l) = 200 ]; do sleep 0.1; done; : > $OUTSIDE/go; wait; \
        cat n* | sort | uniq -c > counts; wc -l < all > lines";
    let (scratch, finished) = Workflow::new("crowd")
        .step(Step::sh("crowd", script).writes(&["*"]))
        .start(&["--cache", "256M"])
        .finish();
    finished.expect_success();
    let read = |name: &str| std::fs::read_to_string(scratch.data().join(name)).unwrap_or_default();
    let (counts, lines) = (read("counts"), read("lines"));
    finished.expect(
        counts.trim() == "200 2000" && lines.trim() == "400000",
        &format!("{counts}{lines}"),
    );
}
