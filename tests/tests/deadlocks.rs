//! Steps that wait for one another for ever are told so, soon and by name; steps
//! that wait long for something that comes are left alone.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use capio_tests::{CapioRun, Finished, Step, Workflow, plain_only};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

const SOON: Duration = Duration::from_secs(10);
/// Longer than a dead-lock may go unnoticed.
const LONG: Duration = Duration::from_secs(4);

fn waiting(name: &str, script: &str, reads: &[&str], writes: &[&str]) -> Step {
    Step::sh(name, script).reads(reads).writes(writes)
}

/// The run ends within five seconds, and names these.
fn expect_named(workflow: &Workflow, names: &[&str]) {
    if plain_only() {
        return;
    }
    let before = starved();
    let (_, finished) = workflow.start(&[]).finish();
    // Where others keep all processors busy, one look after the other finds somebody
    // who is about to run, and the quiet time begins anew.
    let is_busy = starved().saturating_sub(before) > finished.wall / 2;
    let limit = if is_busy { 30 } else { 5 };
    expect_deadlock(&finished, names, Duration::from_secs(limit));
}

/// For how long so far somebody has waited for a processor, as far as the kernel tells.
fn starved() -> Duration {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total = text
        .lines()
        .next()
        .and_then(|some| some.split("total=").nth(1));
    Duration::from_micros(total.and_then(|total| total.parse().ok()).unwrap_or(0))
}

fn expect_deadlock(finished: &Finished, names: &[&str], limit: Duration) {
    finished.expect(
        finished.status.code() == Some(4),
        "the status of a dead-lock is 4",
    );
    finished.expect(
        finished.wall < limit,
        &format!("it took more than {limit:?}"),
    );
    let diagnosis = finished
        .output
        .lines()
        .find(|line| line.contains("dead-lock: "));
    let diagnosis = diagnosis.unwrap_or_default();
    for name in names {
        finished.expect(diagnosis.contains(name), &format!("{name} is not named"));
    }
    finished.expect_no_survivors();
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The path of a pipe outside of `CAPIO_DIR`, made beforehand.
fn pipe(run: &CapioRun) -> std::path::PathBuf {
    let path = run.scratch.outside().join("pipe");
    mkfifo(&path, Mode::S_IRWXU).expect("a scratch directory takes pipes");
    path
}

#[test]
fn a_cycle_of_two_shells_that_wait_for_their_children_is_named() {
    let workflow = Workflow::new("two")
        .step(waiting("a", "(cat y > x) & wait", &["y"], &["x"]))
        .step(waiting("b", "(cat x > y) & wait", &["x"], &["y"]));
    expect_named(&workflow, &["\"a\" waits for", "\"b\" waits for", "x", "y"]);
}

#[test]
fn a_cycle_of_three_steps_is_named() {
    let workflow = Workflow::new("three")
        .step(waiting("a", "(cat z > x) & wait", &["z"], &["x"]))
        .step(waiting("b", "cat x | cat > y", &["x"], &["y"]))
        .step(waiting("c", "cat y > z", &["y"], &["z"]));
    expect_named(&workflow, &["\"a\" waits", "\"b\" waits", "\"c\" waits"]);
}

#[test]
fn a_launcher_whose_ranks_wait_for_a_file_is_no_hiding_place() {
    let launcher = "python3 -c 'import subprocess
ranks = [subprocess.Popen([\"cat\", \"y\"]) for _ in range(3)]
[rank.wait() for rank in ranks]
open(\"x\", \"w\").write(\"done\")'";
    let workflow = Workflow::new("ranks")
        .step(waiting("launcher", launcher, &["y"], &["x"]))
        .step(waiting("b", "cat x > y", &["x"], &["y"]));
    expect_named(&workflow, &["\"launcher\" waits", "\"b\" waits"]);
}

#[test]
fn a_launcher_that_listens_for_whoever_may_come_is_no_way_out_of_a_circle() {
    let launcher = "python3 -c 'import select, socket, subprocess
door = socket.create_server((\"127.0.0.1\", 0))
rank = subprocess.Popen([\"cat\", \"y\"], stdout=subprocess.PIPE)
select.select([door, rank.stdout], [], [])
open(\"x\", \"w\").write(\"done\")'";
    let workflow = Workflow::new("door")
        .step(waiting("launcher", launcher, &["y"], &["x"]))
        .step(waiting("b", "cat x > y", &["x"], &["y"]));
    expect_named(&workflow, &["\"launcher\" waits", "\"b\" waits"]);
}

#[test]
fn a_pipe_between_two_steps_is_no_way_out_of_a_dead_lock() {
    let wait = "until [ -p $OUTSIDE/tube ]; do sleep 0.02; done;";
    let workflow = Workflow::new("tube")
        .step(waiting(
            "a",
            "mkfifo $OUTSIDE/tube; cat $OUTSIDE/tube > x",
            &[],
            &["x"],
        ))
        .step(waiting(
            "b",
            &format!("{wait} cat x > $OUTSIDE/tube"),
            &["x"],
            &[],
        ));
    expect_named(&workflow, &["\"b\" waits for", "x"]);
}

#[test]
fn a_lock_that_is_held_by_one_who_waits_is_a_dead_lock() {
    let locks = "exec 9> $OUTSIDE/lock; flock 9;";
    let wait = "until [ -e $OUTSIDE/held ]; do sleep 0.02; done;";
    let workflow = Workflow::new("lock")
        .step(waiting(
            "a",
            &format!("{locks} : > $OUTSIDE/held; cat y > x"),
            &["y"],
            &["x"],
        ))
        .step(waiting(
            "b",
            &format!("{wait} {locks} echo 1 > y"),
            &[],
            &["y"],
        ));
    expect_named(&workflow, &["\"a\" waits for", "y"]);
}

#[test]
fn a_lock_on_a_file_of_the_cache_is_seen_through_as_well() {
    let wait = "until [ -e $OUTSIDE/held ]; do sleep 0.02; done;";
    let workflow = Workflow::new("inner")
        .step(waiting(
            "a",
            "exec 9> l; flock 9; : > $OUTSIDE/held; cat y > x",
            &["y"],
            &["x"],
        ))
        .step(waiting(
            "b",
            &format!("{wait} exec 9>> l; flock 9; echo 1 > y"),
            &[],
            &["y"],
        ));
    expect_named(&workflow, &["\"a\" waits for", "y"]);
}

/// The consumer of what `script` makes gets it, however long that takes.
fn consumer_of(name: &str, script: &str) -> Workflow {
    Workflow::new(name)
        .step(waiting("make", script, &[], &["x"]))
        .step(waiting("use", "cat x > y", &["x"], &["y"]))
}

fn expect_content(run: CapioRun, content: &str) {
    let (scratch, finished) = run.finish();
    finished.expect_success();
    let found = std::fs::read_to_string(scratch.data().join("y")).unwrap_or_default();
    finished.expect(found == content, &format!("the consumer got '{found}'"));
}

#[test]
fn the_consumer_of_a_producer_that_sleeps_waits_for_it() {
    if plain_only() {
        return;
    }
    let run = consumer_of("sleeps", "echo 1 > x; sleep 5; echo 2 >> x").start(&[]);
    expect_content(run, "1\n2\n");
}

#[test]
fn a_producer_that_waits_for_a_pipe_from_outside_is_waited_for() {
    if plain_only() {
        return;
    }
    let script = "until [ -p $OUTSIDE/pipe ]; do sleep 0.02; done; cat $OUTSIDE/pipe > x";
    let run = consumer_of("outside", script).start(&[]);
    let mut outside = OpenOptions::new()
        .write(true)
        .open(pipe(&run))
        .expect("the step reads");
    std::thread::sleep(LONG);
    outside
        .write_all(b"at last\n")
        .expect("the step reads still");
    drop(outside);
    expect_content(run, "at last\n");
}

#[test]
fn a_producer_that_waits_for_who_opens_its_pipe_is_waited_for() {
    if plain_only() {
        return;
    }
    let script = "mkfifo $OUTSIDE/made; mv $OUTSIDE/made $OUTSIDE/pipe; cat $OUTSIDE/pipe > x";
    let run = consumer_of("opens", script).start(&[]);
    let path = run.scratch.outside().join("pipe");
    wait_until("the step makes a pipe", || path.exists());
    std::thread::sleep(LONG);
    std::fs::write(&path, "at last\n").expect("the step reads");
    expect_content(run, "at last\n");
}

#[test]
fn a_producer_whose_output_nobody_outside_takes_for_long_is_waited_for() {
    if plain_only() {
        return;
    }
    let script = "until [ -p $OUTSIDE/pipe ]; do sleep 0.02; done
head -c 200000 /dev/zero > $OUTSIDE/pipe; echo at last > x";
    let run = consumer_of("full", script).start(&[]);
    let mut outside = std::fs::File::open(pipe(&run)).expect("the step writes");
    std::thread::sleep(LONG);
    std::io::copy(&mut outside, &mut std::io::sink()).expect("the step writes");
    expect_content(run, "at last\n");
}

#[test]
fn a_producer_that_waits_for_a_local_service_is_waited_for() {
    if plain_only() {
        return;
    }
    let script = "until [ -S $OUTSIDE/service ]; do sleep 0.02; done; python3 -c 'import os, socket
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ[\"OUTSIDE\"] + \"/service\")
open(\"x\", \"wb\").write(s.recv(100))'";
    let run = consumer_of("service", script).start(&[]);
    let service = UnixListener::bind(run.scratch.outside().join("service"));
    let (mut outside, _) = service
        .and_then(|service| service.accept())
        .expect("the step connects");
    std::thread::sleep(LONG);
    outside
        .write_all(b"at last\n")
        .expect("the step reads still");
    drop(outside);
    expect_content(run, "at last\n");
}

#[test]
fn a_producer_that_waits_for_a_lock_held_outside_is_waited_for() {
    if plain_only() {
        return;
    }
    let script = "until [ -e $OUTSIDE/lock ]; do sleep 0.02; done
exec 9< $OUTSIDE/lock; : > $OUTSIDE/asks; flock 9; echo at last > x";
    let run = consumer_of("held", script).start(&[]);
    let place = run.scratch.outside();
    let file = std::fs::File::create(place.join("new")).expect("a scratch file");
    file.lock().expect("nobody else has it");
    std::fs::rename(place.join("new"), place.join("lock")).expect("it is there");
    wait_until("the step asks", || place.join("asks").exists());
    std::thread::sleep(LONG);
    drop(file);
    expect_content(run, "at last\n");
}

#[test]
fn a_producer_that_waits_for_the_network_is_waited_for() {
    if plain_only() {
        return;
    }
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = server.local_addr().expect("bound").port();
    let script = format!(
        "python3 -c 'import socket
with socket.create_connection((\"127.0.0.1\", {port})) as s: open(\"x\", \"wb\").write(s.recv(100))'"
    );
    let run = consumer_of("network", &script).start(&[]);
    let (mut outside, _) = server.accept().expect("the step connects");
    std::thread::sleep(LONG);
    outside
        .write_all(b"at last\n")
        .expect("the step reads still");
    drop(outside);
    expect_content(run, "at last\n");
}

#[test]
fn a_producer_that_somebody_has_stopped_is_waited_for() {
    if plain_only() {
        return;
    }
    let script = "echo 1 > x; echo $$ > $OUTSIDE/pid; kill -STOP $$; echo 2 >> x";
    let run = consumer_of("stopped", script).start(&[]);
    let note = run.scratch.outside().join("pid");
    let mut pid = None;
    wait_until("the step starts", || {
        let text = std::fs::read_to_string(&note).unwrap_or_default();
        pid = text.trim().parse().ok();
        pid.is_some()
    });
    std::thread::sleep(LONG);
    let pid = Pid::from_raw(pid.expect("found"));
    kill(pid, Signal::SIGCONT).expect("the process is alive");
    expect_content(run, "1\n2\n");
}

#[test]
fn a_producer_that_waits_for_room_is_no_dead_lock() {
    if plain_only() {
        return;
    }
    let run = Workflow::new("room")
        .step(waiting("make", "head -c 300M /dev/zero > x", &[], &["x"]))
        .step(waiting("use", "wc -c < x > y", &["x"], &["y"]))
        .start(&["--cache", "32M"]);
    expect_content(run, "314572800\n");
}
