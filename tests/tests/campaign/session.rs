//! A session under load, and what of it must come back after every round.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use capio_tests::{Served, Step, Workflow};
use serde_json::{Value, json};

use crate::client::{Client, Role};

/// Files that a round makes, each by a step of its own.
pub(crate) const FILES: usize = 7;
const MIB: u64 = 1 << 20;
/// Empty inodes that a session keeps for the next files, at most.
const SPARE: usize = 64;

/// How a session of the campaign is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Size of the cache, in MiB.
    pub(crate) cache: u64,
    /// Whether pieces may leave for the store.
    pub(crate) store: bool,
    /// Whether what a killed program left counts as whole.
    pub(crate) goes_on: bool,
}

/// One file of a round: how it is made, and by which rule it is final.
fn rule(number: usize) -> (&'static str, Value) {
    match number {
        0 => (
            "stream",
            json!({"committed": "on_close", "mode": "no_update"}),
        ),
        1 => ("stream", json!({"committed": "on_close", "mode": "update"})),
        2 => (
            "twice",
            json!({"committed": "on_close:2", "mode": "no_update"}),
        ),
        3 => ("mapped", json!({"committed": "on_close", "mode": "update"})),
        4 => ("rename", json!({"committed": "on_close", "mode": "update"})),
        5 => (
            "stream",
            json!({"committed": "on_termination", "mode": "update"}),
        ),
        _ => (
            "flagged",
            json!({"committed": "on_file", "mode": "no_update"}),
        ),
    }
}

impl Setup {
    /// How file `number` is made: where what a killed program left counts, in
    /// order, as there are holes otherwise.
    pub(crate) fn kind(&self, number: usize) -> &'static str {
        match rule(number).0 {
            "stream" | "mapped" if self.goes_on => "ordered",
            kind => kind,
        }
    }

    /// The workflow of so many rounds.
    fn workflow(self, rounds: u64) -> Workflow {
        let mut workflow = Workflow::new("campaign").permanent(&["nothing"]);
        for round in 0..rounds {
            for number in 0..FILES {
                let name = file(round, number);
                let mut rule = rule(number).1;
                rule["name"] = json!([name]);
                let mut makes = Step::sh(&step(Role::Maker(number), round), "");
                if rule["committed"] == "on_file" {
                    let flag = format!("{name}.done");
                    rule["file_deps"] = json!([flag]);
                    makes = makes.rule(&[&flag], "on_close", "update");
                }
                let reads = Step::sh(&step(Role::Reader(number), round), "");
                workflow = workflow
                    .step(makes.raw_rule(&[&name], rule))
                    .step(reads.reads(&[&name]));
            }
        }
        workflow
    }

    /// Starts the session.
    pub(crate) fn serve(self, rounds: u64) -> Served {
        let cache = format!("{}MiB", self.cache);
        let mut options = vec!["--cache", &cache, "--keep", "none", "--step-grace", "0.1"];
        if !self.store {
            options.extend(["--store-size", "0"]);
        }
        if self.goes_on {
            options.push("--continue-on-error");
        }
        self.workflow(rounds).serve(&options)
    }
}

/// Path of file `number` of a round.
pub(crate) fn file(round: u64, number: usize) -> String {
    format!("r{round}.f{number}")
}

/// The step of a program.
pub(crate) fn step(role: Role, round: u64) -> String {
    match role {
        Role::Maker(number) => format!("make{round}.{number}"),
        Role::Reader(number) => format!("use{round}.{number}"),
        Role::Churn => format!("churn{round}"),
    }
}

/// What `capio ps --json` says.
pub(crate) fn snapshot(served: &Served) -> Value {
    let output = served.capio(&["ps", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Number of open descriptors of the coordinator.
pub(crate) fn descriptors(served: &Served) -> usize {
    let pid = served.running.pid();
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn entries(of: &Path) -> Vec<String> {
    let found = fs::read_dir(of).into_iter().flatten().flatten();
    found
        .map(|entry| entry.path().display().to_string())
        .collect()
}

/// Runs one program to its end.
pub(crate) fn run(served: &Served, step: &str, number: u64, words: &[&str]) -> Client {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    let mut client = Client::start(served, step, Role::Churn, number, &words);
    let start = Instant::now();
    while !client.has_ended() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "hangs: {}{:#}",
            client.describe(),
            snapshot(served)
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    client
}

/// Removes every file, and waits until all that programs held has come back.
pub(crate) fn expect_all_back(served: &Served, descriptors_before: usize) {
    served.run("clean", "rm -rf ./*");
    let start = Instant::now();
    loop {
        let now = snapshot(served);
        let left = left(served, &now, descriptors_before);
        if left.is_empty() {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "left: {left:?}\n{now:#}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn left(served: &Served, now: &Value, descriptors_before: usize) -> Vec<String> {
    let mut left = Vec::new();
    let held = now["held"].as_object().expect("what is held");
    let numbers = held.iter().map(|(name, value)| (name.as_str(), value));
    let cache = ["used_bytes", "stored_bytes"].map(|name| (name, &now["cache"][name]));
    let files = [("files", &now["files"]["files"])];
    for (name, value) in numbers.chain(cache).chain(files) {
        if value.as_u64() != Some(0) {
            left.push(format!("{name} {value}"));
        }
    }
    for folder in ["ofd", "special", "shadow", "run"] {
        left.extend(entries(&served.session.join(folder)));
    }
    // A few empty ones wait for the next files.
    let reserved = served.session.join("res");
    let names = entries(&reserved);
    let is_used = |name: &&String| !fs::metadata(name).is_ok_and(|meta| meta.len() == 0);
    left.extend(names.iter().filter(is_used).cloned());
    if names.len() > SPARE {
        left.push(format!("{} reservations", names.len()));
    }
    let open = descriptors(served);
    if open > descriptors_before {
        left.push(format!("{open} descriptors, {descriptors_before} before"));
    }
    left
}

/// Fills the cache to its limit, or moves twice its size through it.
pub(crate) fn expect_room(served: &Served, setup: Setup, round: u64) {
    if setup.store {
        let size = (setup.cache * 2 * MIB).to_string();
        let makes = ["make", "ordered", "large", "1", &size];
        run(served, "fill", round * 10, &makes).expect(&[0], "room for twice the cache");
        run(served, "fill", round * 10 + 1, &["read", "large"]).expect(&[0], "it is whole");
        return;
    }
    run(served, "fill", round * 10, &["fill", "large"]).expect(&[0], "it says ENOSPC");
    let used = snapshot(served)["cache"]["used_bytes"].as_u64();
    let limit = setup.cache * MIB;
    // Less than a chunk may be left over for small pieces.
    assert!(
        used.is_some_and(|used| used + 2 * MIB >= limit && used <= limit),
        "{used:?} of {limit} could be filled"
    );
}
