//! What a run reports at its end.

pub mod format;
mod text;

use serde::{Deserialize, Serialize};

use crate::run::driver::{Outcome, StepRun};
use crate::session::{
    CacheSnapshot, Conflict, DrainReport, DroppedFile, KeptFile, Snapshot, StepEnd, StepSnapshot,
    WaitTotal,
};

/// How the steps were run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// At once, below a session.
    Streaming,
    /// One after the other on the plain file system.
    Sequential,
}

/// A finished run, as `--report` writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How the steps were run.
    pub mode: Mode,
    /// Whether all went well.
    pub success: bool,
    /// Exit status of the command.
    pub exit_code: u8,
    /// Number of the signal that ended the run.
    pub interrupted_by: Option<i32>,
    /// The step that failed first by itself: the culprit of what others did
    /// not get.
    pub first_failure: Option<String>,
    /// From the first start of a step to the last end, in seconds.
    pub wall_seconds: f64,
    /// In the order of the workflow.
    pub steps: Vec<StepReport>,
    /// What became of the files; none in sequential runs.
    pub files: Option<FilesReport>,
    /// The cache; none in sequential runs.
    pub cache: Option<CacheSnapshot>,
    /// What to read before trusting the results.
    pub warnings: Vec<String>,
    /// The diagnosis of a dead-lock.
    pub deadlock: Option<String>,
    /// The run that this one was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// The same steps run one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// From the first start of a step to the last end then, in seconds.
    pub sequential_seconds: f64,
    /// How many times as long that is.
    pub speed_up: f64,
}

/// One step of a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub end: StepEnd,
    /// When it started, in seconds from the start of the run.
    pub started_seconds: Option<f64>,
    /// From its start to the end of its last process, in seconds.
    pub ran_seconds: f64,
    /// Sum of all waits of all its threads, in seconds.
    pub waited_seconds: f64,
    /// The same by path and reason, longest first.
    pub waits: Vec<WaitTotal>,
    /// Bytes read from files of the session.
    pub bytes_read: u64,
    /// Bytes written to them.
    pub bytes_written: u64,
}

/// What became of a session's files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FilesReport {
    /// Now in their place on disk.
    pub kept: Vec<KeptFile>,
    /// Gone.
    pub dropped: Vec<DroppedFile>,
    /// Originals that changed meanwhile.
    pub conflicts: Vec<Conflict>,
    /// What could not be kept.
    pub errors: Vec<String>,
    /// How long keeping took, in seconds.
    pub drain_seconds: f64,
}

impl From<DrainReport> for FilesReport {
    fn from(drain: DrainReport) -> Self {
        Self {
            kept: drain.kept,
            dropped: drain.dropped,
            conflicts: drain.conflicts,
            errors: drain.errors,
            drain_seconds: drain.seconds,
        }
    }
}

impl Report {
    /// Of a run below a session.
    #[must_use]
    pub fn streaming(outcome: &Outcome, snapshot: Snapshot, drain: DrainReport) -> Self {
        let mut report = Self::of(outcome, Mode::Streaming, Some(&snapshot));
        report.success &=
            snapshot.deadlock.is_none() && drain.errors.is_empty() && drain.conflicts.is_empty();
        report.files = Some(drain.into());
        report.cache = Some(snapshot.cache);
        report.warnings = snapshot.warnings;
        report.deadlock = snapshot.deadlock;
        report
    }

    /// Of a run on the plain file system.
    #[must_use]
    pub fn sequential(outcome: &Outcome) -> Self {
        Self::of(outcome, Mode::Sequential, None)
    }

    fn of(outcome: &Outcome, mode: Mode, snapshot: Option<&Snapshot>) -> Self {
        let step = |run: &StepRun| step_report(run, snapshot.and_then(|s| s.step(&run.name)));
        Self {
            mode,
            success: outcome.is_success(),
            exit_code: 0,
            interrupted_by: outcome.interrupted.map(|signal| signal as i32),
            first_failure: outcome
                .first_failure
                .and_then(|first| outcome.steps.get(first))
                .map(|step| step.name.clone()),
            wall_seconds: outcome.wall.as_secs_f64(),
            steps: outcome.steps.iter().map(step).collect(),
            files: None,
            cache: None,
            warnings: Vec::new(),
            deadlock: None,
            comparison: None,
        }
    }

    /// Why this report cannot serve as what a run of `steps` is compared with.
    ///
    /// # Errors
    /// The reason, without the name of the report.
    pub fn serves_comparison<'a>(
        &self,
        steps: impl Iterator<Item = &'a str>,
    ) -> Result<(), &'static str> {
        let mut then: Vec<_> = self.steps.iter().map(|step| step.name.as_str()).collect();
        let mut now: Vec<_> = steps.collect();
        then.sort_unstable();
        now.sort_unstable();
        match (self.mode, self.success) {
            (Mode::Streaming, _) => Err("it is not of a run with --sequential"),
            (_, false) => Err("that run failed"),
            _ if then != now => Err("that run had other steps"),
            _ => Ok(()),
        }
    }

    /// Adds how much faster this run was than `sequential`; a failed run has
    /// done only part of the work and is not compared.
    pub fn compare(&mut self, sequential: &Report) {
        if self.success && self.wall_seconds > 0.0 {
            self.comparison = Some(Comparison {
                sequential_seconds: sequential.wall_seconds,
                speed_up: sequential.wall_seconds / self.wall_seconds,
            });
        }
    }

    /// Sum of the time that steps ran and did not wait, in seconds: about
    /// what they would take one after the other.
    #[must_use]
    pub fn busy_seconds(&self) -> f64 {
        let busy = |step: &StepReport| (step.ran_seconds - step.waited_seconds).max(0.0);
        self.steps.iter().map(busy).sum()
    }
}

fn step_report(run: &StepRun, seen: Option<&StepSnapshot>) -> StepReport {
    let mut waits = seen.map_or(Vec::new(), |step| step.waits.clone());
    waits.sort_by_key(|wait| std::cmp::Reverse(wait.nanoseconds));
    let waited: u64 = waits.iter().map(|wait| wait.nanoseconds).sum();
    StepReport {
        name: run.name.clone(),
        end: run.end.clone(),
        started_seconds: run.started.map(|started| started.as_secs_f64()),
        ran_seconds: run.ran.as_secs_f64(),
        waited_seconds: waited as f64 / 1e9,
        waits,
        bytes_read: seen.map_or(0, |step| step.bytes_read),
        bytes_written: seen.map_or(0, |step| step.bytes_written),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::session::{KeepReason, Pages};
    use std::time::Duration;

    pub(crate) fn outcome() -> Outcome {
        let step = |name: &str, started, ran, end: StepEnd, exit_status| StepRun {
            name: name.to_owned(),
            end,
            started: Some(Duration::from_millis(started)),
            ran: Duration::from_millis(ran),
            exit_status,
        };
        Outcome {
            steps: vec![
                step("align", 1, 9500, StepEnd::Success, 0),
                step("sort", 2, 9900, StepEnd::ExitCode(3), 3),
            ],
            first_failure: Some(1),
            interrupted: None,
            wall: Duration::from_millis(10_020),
        }
    }

    fn wait(path: &str, reason: &str, nanoseconds: u64) -> WaitTotal {
        WaitTotal {
            path: path.to_owned(),
            reason: reason.to_owned(),
            nanoseconds,
            count: 2,
        }
    }

    pub(crate) fn snapshot() -> Snapshot {
        let sort = StepSnapshot {
            name: "sort".into(),
            bytes_read: 3 << 20,
            bytes_written: 2048,
            waits: vec![
                wait("/w/a.fa", "to exist", 10_000_000),
                wait("/w/out.sam", "more bytes", 7_500_000_000),
            ],
            ..StepSnapshot::default()
        };
        Snapshot {
            steps: vec![sort],
            cache: CacheSnapshot {
                limit_bytes: 256 << 20,
                used_bytes: 0,
                peak_bytes: 5 << 20,
                pages: Pages::TransparentHuge,
                spilled_bytes: 3 << 20,
                fetched_bytes: 1 << 20,
                stored_bytes: 0,
            },
            warnings: vec!["step x joined after it had ended".into()],
            ..Snapshot::default()
        }
    }

    pub(crate) fn drain() -> DrainReport {
        DrainReport {
            kept: vec![KeptFile {
                path: "/w/out.bam".into(),
                bytes: 2048,
                reason: KeepReason::Output,
            }],
            dropped: vec![DroppedFile {
                path: "/w/out.sam".into(),
                bytes: 3 << 20,
            }],
            ..DrainReport::default()
        }
    }

    #[test]
    fn times_and_waits_of_a_step_come_together() {
        let report = Report::streaming(&outcome(), snapshot(), drain());
        assert!(!report.success);
        let sort = &report.steps[1];
        assert_eq!(sort.waits[0].path, "/w/out.sam", "the longest first");
        assert!((sort.waited_seconds - 7.51).abs() < 1e-9);
        assert!((report.busy_seconds() - (9.5 + 9.9 - 7.51)).abs() < 1e-6);
    }

    #[test]
    fn a_conflict_or_a_dead_lock_is_no_success() {
        let mut good = outcome();
        good.steps[1].end = StepEnd::Success;
        assert!(Report::streaming(&good, snapshot(), drain()).success);
        let mut conflict = drain();
        conflict.conflicts.push(Conflict {
            path: "/w/a".into(),
            kept_as: "/w/a.capio".into(),
        });
        assert!(!Report::streaming(&good, snapshot(), conflict).success);
        let mut locked = snapshot();
        locked.deadlock = Some("a waits for b".into());
        assert!(!Report::streaming(&good, locked, drain()).success);
    }

    #[test]
    fn a_report_survives_being_written_as_json() {
        let report = Report::streaming(&outcome(), snapshot(), drain());
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains(r#""pages":"transparent huge""#));
        assert!(json.contains(r#""end":{"exit_code":3}"#));
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn only_runs_of_the_same_steps_that_went_well_are_compared() {
        let mut good = outcome();
        good.steps[1].end = StepEnd::Success;
        let mut sequential = Report::sequential(&good);
        sequential.wall_seconds = 25.05;
        let names = || ["sort", "align"].into_iter();
        assert_eq!(sequential.serves_comparison(names()), Ok(()));
        assert!(sequential.serves_comparison(["sort"].into_iter()).is_err());
        let failed = Report::sequential(&outcome());
        assert!(failed.serves_comparison(names()).is_err());
        let mut streaming = Report::streaming(&good, snapshot(), drain());
        assert!(streaming.serves_comparison(names()).is_err());
        streaming.compare(&sequential);
        assert!((streaming.comparison.unwrap().speed_up - 2.5).abs() < 1e-9);
        let mut failed = Report::streaming(&outcome(), snapshot(), drain());
        failed.compare(&sequential);
        assert_eq!(failed.comparison, None);
    }
}
