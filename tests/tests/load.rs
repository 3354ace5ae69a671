//! Many processes, many files, many streams, and a long time: all of it works, and
//! the coordinator's memory and speed stay what they were.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use capio_tests::{Served, Step, Workflow, plain_only, program};
use serde_json::Value;

fn long() -> bool {
    std::env::var_os("CAPIO_TEST_LONG").is_some()
}

fn many(short: u64, long_run: u64) -> u64 {
    if long() { long_run } else { short }
}

/// How long the session of a test that lasts goes on: ten minutes in the long
/// campaign, an hour if `CAPIO_TEST_HOUR` is set as well.
fn duration() -> Duration {
    let hour = std::env::var_os("CAPIO_TEST_HOUR").is_some();
    match (long(), hour) {
        (true, true) => Duration::from_secs(3600),
        (true, false) => Duration::from_secs(600),
        _ => Duration::from_secs(8),
    }
}

/// What `capio ps --json` says.
fn snapshot(served: &Served) -> Value {
    let output = served.capio(&["ps", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Memory that is the coordinator's own, in KiB.
fn own_memory(served: &Served) -> u64 {
    let pid = served.running.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn descriptors(served: &Served) -> usize {
    let pid = served.running.pid();
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// As [`descriptors`], once those of processes that have just ended are closed: when
/// they are no more than `before`, or after five seconds.
fn settled_descriptors(served: &Served, before: usize) -> usize {
    let start = Instant::now();
    loop {
        let now = descriptors(served);
        if now <= before || start.elapsed() > Duration::from_secs(5) {
            return now;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn serve(name: &str, cache: &str) -> Served {
    let workflow = Workflow::new(name).step(Step::sh("work", "").writes(&["*"]));
    workflow.serve(&["--cache", cache, "--keep", "none", "--step-grace", "0.2"])
}

/// Runs a script of step `work`, which may take long.
fn run(served: &Served, script: &str) -> Duration {
    let start = Instant::now();
    let client = served.client("work", script);
    client.finish(Duration::from_secs(300)).expect_success();
    start.elapsed()
}

/// Runs the same without the session, in seconds.
fn run_plain(dir: &Path, script: &str) -> f64 {
    let start = Instant::now();
    let ended = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .status();
    assert!(ended.is_ok_and(|status| status.success()), "{script}");
    start.elapsed().as_secs_f64()
}

fn load(words: &str) -> String {
    format!("'{}' {words}", program("load").display())
}

#[test]
fn two_hundred_processes_make_and_read_files_at_once() {
    if plain_only() {
        return;
    }
    let served = serve("at-once", "256MiB");
    let script = "for i in $(seq 1 200); do (MAKE f$i $i 100000 && READ f$i && echo $i >> all) & done; \
                  wait; test $(sort -u all | wc -l) = 200";
    let script = script
        .replace("MAKE", &load("make stream"))
        .replace("READ", &load("read"));
    let took = run(&served, &script);
    println!("200 at once: {took:?}");
    served.stop();
}

#[test]
fn two_thousand_processes_in_turn_leave_the_coordinator_as_it_was() {
    if plain_only() {
        return;
    }
    let served = serve("in-turn", "64MiB");
    let turns = |from: u64, to: u64| {
        let script = "i=FROM; while [ $i -lt TO ]; do MAKE f $i 5000 && READ f || exit 1; \
                      i=$((i + 1)); done; rm f";
        let script = script
            .replace("MAKE", &load("make ordered"))
            .replace("READ", &load("read"))
            .replace("FROM", &from.to_string())
            .replace("TO", &to.to_string());
        run(&served, &script)
    };
    let first = turns(0, 250);
    let (memory, open) = (own_memory(&served), descriptors(&served));
    turns(250, 750);
    let last = turns(750, 1000);
    println!("500 processes: {first:?} first, {last:?} last; {memory} KiB before");
    let now = own_memory(&served);
    assert!(now < memory + 2048, "{memory} KiB have become {now}");
    let open_now = settled_descriptors(&served, open);
    assert!(
        open_now <= open,
        "{open} descriptors have become {open_now}"
    );
    assert!(last < first * 2, "it has become slow: {first:?}, {last:?}");
    served.stop();
}

/// Makes so many files in one directory, and looks at and removes all of them.
const FILES: &str = r#"
import os, sys
folder, count = sys.argv[1], int(sys.argv[2])
os.mkdir(folder)
for i in range(count):
    with open(f"{folder}/f{i}", "wb", buffering=0) as f:
        f.write(b"%d\n" % i)
names = os.listdir(folder)
assert len(names) == count, len(names)
assert set(names) == {f"f{i}" for i in range(count)}
for i in range(0, count, 97):
    with open(f"{folder}/f{i}", "rb", buffering=0) as f:
        assert f.read(99) == b"%d\n" % i
if len(sys.argv) > 3:
    for name in names:
        os.unlink(f"{folder}/{name}")
    os.rmdir(folder)
"#;

fn files(served: &Served, folder: u64, count: u64, removed: bool) -> Duration {
    let script = served.scratch.outside().join("files.py");
    fs::write(&script, FILES).expect("a script can be written");
    let remove = if removed { "yes" } else { "" };
    let script = script.display();
    run(
        served,
        &format!("python3 '{script}' d{folder} {count} {remove}"),
    )
}

#[test]
fn ten_thousand_files_lie_in_one_directory() {
    if plain_only() {
        return;
    }
    let served = serve("directory", "256MiB");
    let few = files(&served, 0, 1000, true);
    let took = files(&served, 1, 10_000, true);
    println!("1000 files: {few:?}, 10,000: {took:?}");
    assert!(took < few * 30, "it is not linear: {few:?}, {took:?}");
    assert_eq!(snapshot(&served)["held"]["records"], 0);
    served.stop();
}

#[test]
fn a_session_takes_a_hundred_thousand_files() {
    if plain_only() {
        return;
    }
    let served = serve("hundred", "768MiB");
    let folders = many(5, 20);
    let mut took = Vec::new();
    for folder in 0..folders {
        took.push(files(&served, folder, 5000, false));
    }
    println!("5000 files each: {took:?}, {} KiB", own_memory(&served));
    let now = snapshot(&served);
    assert_eq!(now["files"]["files"], folders * 5000, "{now:#}");
    let (first, last) = (took[0], took[took.len() - 1]);
    assert!(last < first * 3, "it has become slow: {took:?}");
    run(&served, "rm -rf d*");
    let now = snapshot(&served);
    assert_eq!(now["held"]["records"], 0, "{now:#}");
    assert_eq!(now["cache"]["used_bytes"], 0, "{now:#}");
    served.stop();
}

#[test]
fn sixty_four_streams_flow_at_a_time() {
    if plain_only() {
        return;
    }
    let mut workflow = Workflow::new("streams").permanent(&["nothing"]);
    for i in 0..64 {
        let name = format!("s{i}");
        workflow = workflow
            .step(Step::sh(&format!("make{i}"), "").rule(&[&name], "on_close", "no_update"))
            .step(Step::sh(&format!("use{i}"), "").reads(&[&name]));
    }
    let served = workflow.serve(&["--cache", "64MiB", "--keep", "none"]);
    let start = Instant::now();
    let programs = (0..64).flat_map(|i| {
        let read = served.client(
            &format!("use{i}"),
            &format!("exec {}", load(&format!("read s{i}"))),
        );
        let make = format!("exec {}", load(&format!("make stream s{i} {i} 2000000")));
        [read, served.client(&format!("make{i}"), &make)]
    });
    let programs: Vec<_> = programs.collect();
    for program in programs {
        program.finish(Duration::from_secs(120)).expect_success();
    }
    println!("64 streams of 2 MB: {:?}", start.elapsed());
    served.stop();
}

/// One turn of the session that lasts: files of all sizes made, streamed, changed
/// and removed, some by way of the store.
fn turn() -> String {
    let script = "for i in 1 2 3; do (STREAM f$i $i 300000 && mv f$i f$i.b && cat f$i.b > f$i && READ f$i) & done; \
                  wait; MAKE large 7 20000000 && READ large && cp large copy && cmp large copy && rm -rf ./*";
    script
        .replace("READ", &load("read"))
        .replace("STREAM", &load("make stream"))
        .replace("MAKE", &load("make ordered"))
}

#[test]
fn a_session_that_lasts_stays_as_fast_and_as_small_as_it_was() {
    if plain_only() {
        return;
    }
    let served = serve("lasting", "32MiB");
    let script = turn();
    let (start, limit) = (Instant::now(), duration());
    let plain = served.scratch.outside().join("plain");
    fs::create_dir(&plain).expect("a scratch directory can be made");
    let mut turns = Vec::new();
    let mut settled = None;
    while start.elapsed() < limit {
        // Beside one without the session: the machine is others' as well.
        let own = run(&served, &script);
        turns.push((own, own.as_secs_f64() / run_plain(&plain, &script)));
        if start.elapsed() > limit / 4 && settled.is_none() {
            settled = Some((own_memory(&served), descriptors(&served)));
        }
    }
    let (memory, open) = settled.expect("a quarter of the time is over");
    let now = (own_memory(&served), settled_descriptors(&served, open));
    let quarter = (turns.len() / 4).max(1);
    let median = |of: &[(Duration, f64)]| {
        let mut sorted = of.to_vec();
        sorted.sort_by(|one, other| one.1.total_cmp(&other.1));
        sorted[sorted.len() / 2]
    };
    let (first, last) = (
        median(&turns[..quarter]),
        median(&turns[turns.len() - quarter..]),
    );
    println!(
        "{} turns in {limit:?}: {first:.2?} at first, {last:.2?} at last (and times a plain run); \
         {memory} KiB after a quarter, {} KiB at last",
        turns.len(),
        now.0
    );
    assert!(
        now.0 < memory + memory / 4 + 1024,
        "{memory} KiB have become {}",
        now.0
    );
    assert!(now.1 <= open, "{open} descriptors have become {}", now.1);
    assert!(last.1 < first.1 * 2.0, "slower: {first:.2?}, {last:.2?}");
    let state = snapshot(&served);
    assert_eq!(state["held"]["records"], 0, "{state:#}");
    assert_eq!(state["cache"]["stored_bytes"], 0, "{state:#}");
    served.stop();
}
