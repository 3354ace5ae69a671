use std::time::{Duration, Instant};

use super::*;
use crate::run::workflow::Workflow;
use crate::session::fake::FakeSession;

fn plan(steps: &[&str], dir: &std::path::Path) -> Plan {
    let arguments: Vec<String> = steps.iter().map(|&step| step.to_owned()).collect();
    Plan {
        steps: Workflow::from_arguments(&arguments).unwrap().steps,
        dir: dir.to_owned(),
        logs: Some(dir.join("logs")),
        one_at_a_time: false,
        continue_on_error: false,
        failure_grace: Duration::from_millis(300),
        grace: Duration::from_millis(500),
    }
}

fn drive(plan: &Plan, session: &FakeSession) -> Outcome {
    let screen = Arc::new(Screen::plain());
    Driver::new(plan, Some(session), None, &screen)
        .unwrap()
        .run()
        .unwrap()
}

struct Bench {
    dir: tempfile::TempDir,
    session: FakeSession,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            session: FakeSession::default(),
        }
    }

    fn plan(&self, steps: &[&str]) -> Plan {
        plan(steps, self.dir.path())
    }

    fn log(&self, step: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("logs/{step}.log"))).unwrap()
    }
}

#[test]
fn steps_without_order_run_at_the_same_time() {
    let bench = Bench::new();
    // Each can end only while the other runs.
    let plan = bench.plan(&[
        "a=touch a; while ! test -e b; do sleep 0.01; done",
        "b=touch b; while ! test -e a; do sleep 0.01; done",
    ]);
    assert!(drive(&plan, &bench.session).is_success());
}

#[test]
fn a_step_starts_only_after_those_it_names_and_the_session_knows_the_order() {
    let bench = Bench::new();
    let mut plan = bench.plan(&["a=test -e made", "b=sleep 0.2; touch made"]);
    plan.steps[0].after = vec![1];
    let outcome = drive(&plan, &bench.session);
    assert!(outcome.is_success());
    assert!(outcome.steps[0].started.unwrap() >= Duration::from_millis(200));
    assert_eq!(
        bench.session.events(),
        [
            "started b",
            "ended b: exit 0",
            "started a",
            "ended a: exit 0"
        ]
    );
}

#[test]
fn every_instance_runs_and_knows_its_number_and_step() {
    let bench = Bench::new();
    let mut plan = bench.plan(&["a=echo $CAPIO_APP_NAME $CAPIO_INSTANCE of $CAPIO_INSTANCES"]);
    plan.steps[0].instances = 3;
    assert!(drive(&plan, &bench.session).is_success());
    let log = bench.log("a");
    let mut lines: Vec<_> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a 0 of 3", "a 1 of 3", "a 2 of 3"]);
    assert_eq!(bench.session.events(), ["started a", "ended a: exit 0"]);
}

#[test]
fn the_status_of_the_step_that_failed_first_is_the_one_reported() {
    let bench = Bench::new();
    let plan = bench.plan(&["a=sleep 0.2; exit 3", "b=exit 7", "c=sleep 100"]);
    let began = Instant::now();
    let outcome = drive(&plan, &bench.session);
    assert!(began.elapsed() < Duration::from_secs(20), "c was ended");
    assert_eq!(outcome.first_failure, Some(1));
    assert_eq!(outcome.steps[1].exit_status, 7);
    assert_eq!(outcome.steps[0].end, StepEnd::ExitCode(3));
    assert_eq!(outcome.steps[2].end, StepEnd::Signal(libc::SIGTERM));
}

#[test]
fn a_step_that_ignores_being_told_to_end_is_killed() {
    let bench = Bench::new();
    let plan = bench.plan(&[
        "a=while ! test -e ready; do sleep 0.01; done; exit 1",
        "b=trap '' TERM; touch ready; while :; do sleep 0.1; done",
    ]);
    let outcome = drive(&plan, &bench.session);
    assert_eq!(outcome.steps[1].end, StepEnd::Signal(libc::SIGKILL));
}

#[test]
fn after_a_failure_nothing_new_starts() {
    let bench = Bench::new();
    let mut plan = bench.plan(&["a=exit 1", "b=touch b", "c=sleep 0.1"]);
    plan.steps[1].after = vec![2];
    let outcome = drive(&plan, &bench.session);
    assert_eq!(
        outcome.steps[1].end,
        StepEnd::NotStarted("step a had failed".into())
    );
    assert!(!bench.dir.path().join("b").exists());
    assert!(
        bench
            .session
            .events()
            .contains(&"ended b: not started: step a had failed".into())
    );
}

#[test]
fn with_continue_on_error_only_what_comes_after_a_failure_is_left_out() {
    let bench = Bench::new();
    let mut plan = bench.plan(&["a=exit 4", "b=true", "c=true", "d=sleep 0.5; touch d"]);
    plan.steps[1].after = vec![0];
    plan.steps[2].after = vec![1];
    plan.continue_on_error = true;
    let outcome = drive(&plan, &bench.session);
    assert!(!outcome.is_success());
    assert_eq!(outcome.first_failure, Some(0));
    let reason =
        |name: &str| StepEnd::NotStarted(format!("it comes after {name}, which did not succeed"));
    assert_eq!(outcome.steps[1].end, reason("a"));
    assert_eq!(outcome.steps[2].end, reason("b"));
    assert_eq!(outcome.steps[3].end, StepEnd::Success);
    assert!(bench.dir.path().join("d").exists());
}

#[test]
fn a_program_that_is_not_there_fails_the_run_with_127() {
    let bench = Bench::new();
    let mut plan = bench.plan(&["a=x"]);
    plan.steps[0].command = crate::run::workflow::Command::Program(vec!["no-such-tool".into()]);
    let outcome = drive(&plan, &bench.session);
    assert_eq!(outcome.steps[0].exit_status, 127);
    let StepEnd::NotStarted(reason) = &outcome.steps[0].end else {
        panic!("{:?}", outcome.steps[0].end)
    };
    assert!(
        reason.starts_with("there is no program no-such-tool"),
        "{reason}"
    );
}

#[test]
fn a_step_lasts_until_its_daemons_have_ended() {
    let bench = Bench::new();
    let plan = bench.plan(&["a=(sleep 0.5; touch late) > /dev/null 2>&1 &"]);
    let outcome = drive(&plan, &bench.session);
    assert!(outcome.is_success());
    assert!(outcome.steps[0].ran >= Duration::from_millis(500));
    assert!(bench.dir.path().join("late").exists());
}

#[test]
fn one_at_a_time_keeps_the_order_of_the_file_where_after_allows() {
    let bench = Bench::new();
    let busy = |name| format!("{name}=! test -e busy && touch busy && sleep 0.05 && rm busy");
    let steps: Vec<_> = ["a", "b", "c"].map(busy).to_vec();
    let mut plan = bench.plan(&steps.iter().map(String::as_str).collect::<Vec<_>>());
    plan.steps[0].after = vec![2];
    plan.one_at_a_time = true;
    assert!(drive(&plan, &bench.session).is_success());
    let events = bench.session.events();
    let started: Vec<_> = events
        .iter()
        .filter(|event| event.starts_with("started"))
        .collect();
    assert_eq!(started, ["started b", "started c", "started a"]);
}
