//! How the command ends: every exit status is decided here.

use std::fmt;

use nix::sys::signal::Signal;

use crate::report::Report;
use crate::run::driver::Outcome;

/// All went well.
pub const OK: u8 = 0;
/// `capio doctor`: something is left of sessions that were killed.
pub const LEFT: u8 = 1;
/// The command line, the workflow file or the spec is wrong.
pub const USAGE: u8 = 2;
/// The session failed: it could not be started or reached, or broke.
pub const SESSION: u8 = 3;
/// A dead-lock was declared.
pub const DEADLOCK: u8 = 4;
/// All steps succeeded, but not all files are in their place.
pub const FILES: u8 = 5;

/// Shown by `capio --help` and in the manual.
pub const TABLE: &str = "\
Exit status:
  0    all went well
  2    the command line, the workflow file or the spec is wrong
  3    the session could not be started or reached, or broke
  4    dead-lock: steps waited for one another
  5    all steps succeeded, but a result could not be kept, was changed by
       somebody else meanwhile, or (with --strict) must not be trusted
  127  the program of the first failing step was not found (126: may not run)
  N    otherwise the status of the first step that failed; 128 + the number of
       the signal that ended it, or that ended the run (Ctrl-C: 130)";

/// Shown by `capio doctor --help`.
pub const DOCTOR: &str = "\
Exit status:
  0    sessions can run, and nothing is left of killed ones (any more)
  1    something is left of killed sessions
  2    the command line is wrong
  3    sessions cannot run on this machine";

/// What the command could not do, as one sentence, and its exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub code: u8,
    /// What, where, what to do.
    pub message: String,
}

impl Failure {
    /// The user's input is wrong.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self {
            code: USAGE,
            message: message.to_string(),
        }
    }

    /// The session, or the machine, failed.
    pub fn session(message: impl fmt::Display) -> Self {
        Self {
            code: SESSION,
            message: message.to_string(),
        }
    }
}

/// The exit status of a command, or why it could not do its work.
pub type Done = Result<u8, Failure>;

/// The exit status of what a signal has ended.
#[must_use]
pub fn of_signal(signal: Signal) -> u8 {
    128 + signal as u8
}

/// The exit status of a run.
#[must_use]
pub fn of_run(outcome: &Outcome, report: &Report) -> u8 {
    if let Some(signal) = outcome.interrupted {
        return of_signal(signal);
    }
    if report.deadlock.is_some() {
        return DEADLOCK;
    }
    let first = outcome
        .first_failure
        .and_then(|first| outcome.steps.get(first));
    if let Some(status) = first
        .map(|step| step.exit_status)
        .filter(|&status| status != 0)
    {
        return status;
    }
    if !outcome.is_success() {
        return SESSION;
    }
    if report.success { OK } else { FILES }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{drain, outcome, snapshot};
    use crate::session::{DrainReport, Snapshot, StepEnd};

    fn code(outcome: &Outcome, snapshot: Snapshot, drain: DrainReport) -> u8 {
        of_run(outcome, &Report::streaming(outcome, snapshot, drain))
    }

    fn good() -> Outcome {
        let mut outcome = outcome();
        outcome.steps[1].end = StepEnd::Success;
        outcome.steps[1].exit_status = 0;
        outcome.first_failure = None;
        outcome
    }

    #[test]
    fn a_script_can_tell_failures_apart_by_the_exit_status() {
        assert_eq!(code(&good(), snapshot(), drain()), OK);
        assert_eq!(
            code(&outcome(), snapshot(), drain()),
            3,
            "status of the failing step"
        );
        let mut locked = snapshot();
        locked.deadlock = Some("a waits for b".into());
        assert_eq!(code(&outcome(), locked, drain()), DEADLOCK);
        let mut lost = drain();
        lost.errors.push("out.bam: no space".into());
        assert_eq!(code(&good(), snapshot(), lost.clone()), FILES);
        assert_eq!(
            code(&outcome(), snapshot(), lost),
            3,
            "the step comes first"
        );
        let mut interrupted = outcome();
        interrupted.interrupted = Some(Signal::SIGINT);
        assert_eq!(code(&interrupted, snapshot(), drain()), 130);
    }
}
