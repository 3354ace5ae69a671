//! `capio run`: a workflow from start to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::args::{Run, SessionArgs};
use super::exit::{self, Done, Failure};
use super::{drain, generate, logging, place, size, spec};
use crate::report::Report;
use crate::run::driver::{Driver, Outcome, Plan};
use crate::run::screen::{Screen, Stream};
use crate::run::signals::{Signals, is_passed_on};
use crate::run::supervise::end_strays;
use crate::run::workflow::{Workflow, nearest};
use crate::run::{launch, program};
use crate::session::{DrainReport, Engine, Session, SessionConfig, StepEnd};

/// After a failure: for readers of what will never be complete to fail too.
const FAILURE_GRACE: Duration = Duration::from_secs(2);

pub(super) fn run(args: &Run, engine: &Engine) -> Done {
    let workflow = match &args.workflow_file {
        Some(file) => Workflow::load(file),
        None => Workflow::from_arguments(&args.steps),
    };
    let workflow = workflow.map_err(Failure::usage)?;
    let dir = place::directory(args.session.dir.as_deref(), workflow.dir.as_deref())?;
    make_logs(args.logs.as_deref())?;
    let baseline = baseline(args.compare.as_deref(), &workflow)?;
    let screen = Screen::detect();
    let screen = Arc::new(if json_on_stdout(args) {
        screen.divert_output()
    } else {
        screen
    });
    logging::of_run(&screen);
    let mut report = if args.sequential {
        sequential(args, workflow, dir, &screen)?
    } else {
        streaming(args, workflow, dir, &screen, engine)?
    };
    if let Some(baseline) = baseline {
        report.compare(&baseline);
    }
    finish(args, &report, &screen)
}

fn json_on_stdout(args: &Run) -> bool {
    args.json || args.report.as_deref() == Some(Path::new("-"))
}

/// The report of the sequential run to compare with.
fn baseline(file: Option<&Path>, workflow: &Workflow) -> Result<Option<Report>, Failure> {
    let Some(file) = file else { return Ok(None) };
    let cannot = |why: &dyn std::fmt::Display| {
        let file = file.display();
        Failure::usage(format!(
            "{file} cannot be compared with ({why}): make it by \
             `capio run --sequential --report {file}` of the same workflow"
        ))
    };
    let text = std::fs::read(file).map_err(|error| cannot(&error))?;
    let report: Report = serde_json::from_slice(&text).map_err(|error| cannot(&error))?;
    let steps = workflow.steps.iter().map(|step| step.name.as_str());
    report
        .serves_comparison(steps)
        .map_err(|why| cannot(&why))?;
    Ok(Some(report))
}

/// Before anything runs, so that a slip costs nothing.
fn make_logs(logs: Option<&Path>) -> Result<(), Failure> {
    let Some(dir) = logs else { return Ok(()) };
    std::fs::create_dir_all(dir).map_err(|error| {
        let dir = dir.display();
        Failure::usage(format!(
            "the directory {dir} for logs cannot be made ({error}): give another by --logs"
        ))
    })
}

/// All steps at once below a session.
fn streaming(
    args: &Run,
    workflow: Workflow,
    dir: PathBuf,
    screen: &Arc<Screen>,
    engine: &Engine,
) -> Result<Report, Failure> {
    let spec = args.session.spec.as_deref().or(workflow.spec.as_deref());
    let mut config = config(&args.session, spec, dir.clone())?;
    config.supervised = true;
    let unordered = config.spec.is_none() && !workflow.has_order() && workflow.steps.len() > 1;
    if unordered {
        screen.say(
            "no spec and no `after`: the steps run one after the other, in the order given; \
             give a spec to run them at once",
        );
    }
    let left_out = steps_left_out(&config, &workflow, screen);
    let mut plan = plan(args, workflow, dir);
    plan.one_at_a_time = unordered;
    let warnings = program_warnings(&plan, screen);
    let signals = Signals::take_over_for_programs().map_err(Failure::session)?;
    let session = (engine.start)(config).map_err(Failure::session)?;
    for step in left_out {
        let reason = "it is not part of this run".to_owned();
        session.step_ended(&step, &StepEnd::NotStarted(reason));
    }
    let report = drive(&plan, session.as_ref(), &signals, screen);
    session.shutdown();
    end_strays();
    let mut report = report?;
    report.warnings.splice(0..0, warnings);
    Ok(report)
}

/// Runs the steps and brings their files home.
fn drive(
    plan: &Plan,
    session: &dyn Session,
    signals: &Signals,
    screen: &Arc<Screen>,
) -> Result<Report, Failure> {
    let outcome = Driver::new(plan, Some(session), Some(signals), screen).and_then(Driver::run);
    let mut outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            session.drain(false);
            return Err(Failure::session(format!(
                "the steps cannot be watched over: {error}"
            )));
        }
    };
    let success = outcome.is_success() && session.snapshot().deadlock.is_none();
    let (drain, given_up) = drain::drain(session, success, signals, |line| screen.say(line));
    outcome.interrupted = outcome.interrupted.or(given_up);
    Ok(report_of(&outcome, session, drain))
}

fn report_of(outcome: &Outcome, session: &dyn Session, drain: DrainReport) -> Report {
    let mut report = Report::streaming(outcome, session.snapshot(), drain);
    report.exit_code = exit::of_run(outcome, &report);
    report
}

/// One step after the other on the plain file system.
fn sequential(
    args: &Run,
    workflow: Workflow,
    dir: PathBuf,
    screen: &Arc<Screen>,
) -> Result<Report, Failure> {
    let signals = Signals::take_over_for_programs().map_err(Failure::session)?;
    let (dir, copy) = if args.in_place {
        (dir, None)
    } else {
        copy_of(&dir, args.copy_to.as_deref(), &signals)?
    };
    screen.say(&format!(
        "running the steps one after the other in {}",
        dir.display()
    ));
    let mut plan = plan(args, workflow, dir);
    plan.one_at_a_time = true;
    let outcome = Driver::new(&plan, None, Some(&signals), screen)
        .and_then(Driver::run)
        .map_err(|error| Failure::session(format!("the steps cannot be watched over: {error}")))?;
    end_strays();
    drop(copy);
    let mut report = Report::sequential(&outcome);
    report.exit_code = exit::of_run(&outcome, &report);
    Ok(report)
}

/// Copies the directory with everything that can be told of its files. A copy
/// that nobody named lies beside the original, on the same device, and is
/// removed with the handle.
fn copy_of(
    dir: &Path,
    to: Option<&Path>,
    signals: &Signals,
) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    let cannot = |why: String| {
        let dir = dir.display();
        Failure::session(format!(
            "cannot copy {dir} ({why}): try --copy-to DIR or --in-place"
        ))
    };
    let (target, temporary) = match to {
        Some(to) => {
            std::fs::create_dir(to)
                .map_err(|error| cannot(format!("{}: {error}", to.display())))?;
            (place::resolve_directory(to)?, None)
        }
        None => {
            let near = dir.parent().unwrap_or(dir);
            let copy = tempfile::Builder::new()
                .prefix(".capio-sequential-")
                .tempdir_in(near);
            let copy = copy.map_err(|error| cannot(error.to_string()))?;
            (copy.path().to_owned(), Some(copy))
        }
    };
    let mut copying = std::process::Command::new("cp")
        .arg("-a")
        .arg(dir.join("."))
        .arg(&target)
        .spawn()
        .map_err(|error| cannot(format!("cp: {error}")))?;
    match wait_for_copy(&mut copying, signals) {
        Ok(Ok(status)) if status.success() => Ok((target, temporary)),
        Ok(Ok(status)) => Err(cannot(format!("cp: {status}"))),
        Ok(Err(signal)) => Err(Failure {
            code: exit::of_signal(signal),
            message: format!("{signal}: ended while the directory was being copied"),
        }),
        Err(error) => Err(cannot(format!("cp: {error}"))),
    }
}

/// Waits until the copy is made, or a signal ends it.
fn wait_for_copy(
    copying: &mut std::process::Child,
    signals: &Signals,
) -> std::io::Result<Result<std::process::ExitStatus, Signal>> {
    loop {
        if let Some(status) = copying.try_wait()? {
            return Ok(Ok(status));
        }
        if let Some(signal) = signals.pending().filter(|signal| !is_passed_on(*signal)) {
            copying.kill()?;
            copying.wait()?;
            return Ok(Err(signal));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn plan(args: &Run, workflow: Workflow, dir: PathBuf) -> Plan {
    Plan {
        steps: workflow.steps,
        dir,
        logs: args.logs.clone(),
        one_at_a_time: false,
        continue_on_error: args.session.continue_on_error,
        failure_grace: FAILURE_GRACE,
        grace: args.grace,
    }
}

/// What a session is started with; `spec` comes from the arguments or from a
/// workflow file.
pub(super) fn config(
    args: &SessionArgs,
    spec: Option<&Path>,
    dir: PathBuf,
) -> Result<SessionConfig, Failure> {
    let spec = spec.map(|spec| spec::load(spec, &dir)).transpose()?;
    let name = spec.as_deref().map(spec::name);
    let store = args.store.as_deref().map(std::path::absolute).transpose();
    Ok(SessionConfig {
        workflow: place::workflow_name(args.workflow.as_deref(), name)?,
        dir,
        spec,
        cache_bytes: args.cache.unwrap_or_else(size::default_cache),
        store: store.map_err(Failure::usage)?,
        store_bytes: args.store_size.unwrap_or(u64::MAX),
        keep: args.keep,
        keep_on_failure: args.keep_on_failure,
        strict: args.strict,
        supervised: false,
        step_grace: Duration::from_secs(1),
        continue_on_error: args.continue_on_error,
        shim: place::shim(args.shim.as_deref())?,
    })
}

/// Steps of the spec that this workflow does not run; a step that the spec
/// does not name is told when it looks like a slip.
fn steps_left_out(config: &SessionConfig, workflow: &Workflow, screen: &Screen) -> Vec<String> {
    let Some(spec) = &config.spec else {
        return Vec::new();
    };
    let named = spec::steps(spec);
    let runs = |name: &String| workflow.steps.iter().any(|step| step.name == *name);
    let left_out: Vec<String> = named.iter().filter(|name| !runs(name)).cloned().collect();
    for step in workflow
        .steps
        .iter()
        .filter(|step| !named.contains(&step.name))
    {
        if let Some(near) = nearest(&step.name, left_out.iter().map(String::as_str)) {
            let name = &step.name;
            screen.say(&format!(
                "warning: the spec has no step {name}; is {near} meant?"
            ));
        }
    }
    for name in &left_out {
        screen.say(&format!(
            "warning: step {name} of the spec is not part of this run: its files will not come"
        ));
    }
    left_out
}

/// Told at once, and again in the report.
fn program_warnings(plan: &Plan, screen: &Screen) -> Vec<String> {
    let warn = |step| program::warnings(step, &launch::working_directory(step, &plan.dir));
    let warnings: Vec<String> = plan.steps.iter().flat_map(warn).collect();
    for warning in &warnings {
        screen.say(&format!("warning: {warning}"));
    }
    warnings
}

/// Prints the report. That it cannot be written is a failure only of a run
/// that had none.
fn finish(args: &Run, report: &Report, screen: &Screen) -> Done {
    screen.write(Stream::Stderr, format!("\n{report}").as_bytes());
    if !args.json && args.report.is_none() {
        return Ok(report.exit_code);
    }
    match write_json(args, report) {
        Err(failure) if report.exit_code == exit::OK => Err(failure),
        Err(failure) => {
            screen.say(&failure.message);
            Ok(report.exit_code)
        }
        Ok(()) => Ok(report.exit_code),
    }
}

fn write_json(args: &Run, report: &Report) -> Result<(), Failure> {
    let mut json = serde_json::to_vec_pretty(report).map_err(Failure::session)?;
    json.push(b'\n');
    match &args.report {
        Some(file) if !json_on_stdout(args) => std::fs::write(file, json).map_err(|error| {
            Failure::session(format!(
                "cannot write the report to {}: {error}",
                file.display()
            ))
        }),
        _ => generate::print(&json).map(drop),
    }
}
