//! The report as text for a terminal.

use std::fmt;

use super::format::{bytes, seconds};
use super::{FilesReport, Mode, Report, StepReport};

/// Waits shown of each step.
const TOP_WAITS: usize = 3;
/// A wait shorter than this is not shown, in nanoseconds.
const SHORT_WAIT: u64 = 1_000_000;
/// Files shown of each kind.
const TOP_FILES: usize = 20;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Streaming => "streaming",
            Mode::Sequential => "one step after the other",
        };
        let verdict = if self.success { "succeeded" } else { "FAILED" };
        let wall = seconds(self.wall_seconds);
        writeln!(f, "run {verdict} after {wall} ({mode})")?;
        self.steps(f)?;
        if let Some(first) = &self.first_failure {
            let step = self.steps.iter().find(|step| step.name == *first);
            let end = step.map_or_else(String::new, |step| format!(": {}", step.end));
            writeln!(f, "failed first: step {first}{end}")?;
        }
        if self.mode == Mode::Streaming {
            let (busy, wall) = (seconds(self.busy_seconds()), seconds(self.wall_seconds));
            writeln!(
                f,
                "{busy} of work (running, not waiting) were done in {wall}"
            )?;
        }
        if let Some(comparison) = &self.comparison {
            let then = seconds(comparison.sequential_seconds);
            let times = comparison.speed_up;
            writeln!(
                f,
                "speed-up: {times:.2} times as fast as one step after the other ({then})"
            )?;
        }
        if let Some(files) = &self.files {
            write!(f, "{files}")?;
            if !self.success && files.kept.is_empty() && !files.dropped.is_empty() {
                writeln!(
                    f,
                    "a failed run keeps no files, unless --keep-on-failure is given"
                )?;
            }
        }
        if let Some(cache) = &self.cache {
            let (peak, limit) = (bytes(cache.peak_bytes), bytes(cache.limit_bytes));
            writeln!(
                f,
                "cache: at most {peak} of {limit} in use ({} pages)",
                cache.pages
            )?;
            if cache.spilled_bytes > 0 {
                let (spilled, fetched) = (bytes(cache.spilled_bytes), bytes(cache.fetched_bytes));
                writeln!(f, "store: {spilled} moved there, {fetched} brought back")?;
            }
        }
        let deadlock = self.deadlock.as_deref();
        let others = self.warnings.iter().map(String::as_str);
        for warning in others.filter(|warning| Some(*warning) != deadlock) {
            writeln!(f, "warning: {warning}")?;
        }
        if let Some(deadlock) = deadlock {
            writeln!(f, "{deadlock}")?;
        }
        Ok(())
    }
}

impl Report {
    fn steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.steps.iter().map(|step| step.name.chars().count());
        let width = names.max().unwrap_or(0).max("step".len());
        let streaming = self.mode == Mode::Streaming;
        write!(f, "{:width$}  {:>11}  {:>11}", "step", "started at", "ran")?;
        if streaming {
            write!(f, "  {:>11}  {:>10}  {:>10}", "waited", "read", "written")?;
        }
        writeln!(f, "  end")?;
        for step in &self.steps {
            step.row(f, width, streaming)?;
        }
        Ok(())
    }
}

impl StepReport {
    fn row(&self, f: &mut fmt::Formatter<'_>, width: usize, streaming: bool) -> fmt::Result {
        let started = self.started_seconds.map_or_else(|| "-".to_owned(), seconds);
        let ran = seconds(self.ran_seconds);
        write!(f, "{:width$}  {started:>11}  {ran:>11}", self.name)?;
        if streaming {
            let waited = seconds(self.waited_seconds);
            let (read, written) = (bytes(self.bytes_read), bytes(self.bytes_written));
            write!(f, "  {waited:>11}  {read:>10}  {written:>10}")?;
        }
        writeln!(f, "  {}", self.end)?;
        let long = self
            .waits
            .iter()
            .filter(|wait| wait.nanoseconds >= SHORT_WAIT);
        for wait in long.take(TOP_WAITS) {
            let time = seconds(wait.nanoseconds as f64 / 1e9);
            writeln!(
                f,
                "{:width$}  waited {time} for {} ({})",
                "", wait.path, wait.reason
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for FilesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept: u64 = self.kept.iter().map(|file| file.bytes).sum();
        let took = seconds(self.drain_seconds);
        writeln!(
            f,
            "kept {} ({}, in {took}){}",
            files(self.kept.len()),
            bytes(kept),
            colon(self.kept.len())
        )?;
        list(f, &self.kept, |file| {
            format!("{} ({}, {})", file.path, bytes(file.bytes), file.reason)
        })?;
        let dropped: u64 = self.dropped.iter().map(|file| file.bytes).sum();
        writeln!(
            f,
            "dropped {} ({}){}",
            files(self.dropped.len()),
            bytes(dropped),
            colon(self.dropped.len())
        )?;
        list(f, &self.dropped, |file| {
            format!("{} ({})", file.path, bytes(file.bytes))
        })?;
        for conflict in &self.conflicts {
            writeln!(
                f,
                "conflict: {} was changed by somebody else and left alone; ours is {}",
                conflict.path, conflict.kept_as
            )?;
        }
        for error in &self.errors {
            writeln!(f, "error: {error}")?;
        }
        Ok(())
    }
}

fn files(count: usize) -> String {
    match count {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    }
}

/// Before a list of so many.
fn colon(count: usize) -> &'static str {
    if count == 0 { "" } else { ":" }
}

fn list<T>(f: &mut fmt::Formatter<'_>, items: &[T], line: impl Fn(&T) -> String) -> fmt::Result {
    for item in items.iter().take(TOP_FILES) {
        writeln!(f, "  {}", line(item))?;
    }
    match items.len().checked_sub(TOP_FILES) {
        Some(more) if more > 0 => writeln!(f, "  and {more} more"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{drain, outcome, snapshot};
    use crate::session::DroppedFile;

    #[test]
    fn the_report_says_who_waited_how_long_for_what_and_what_was_kept() {
        let report = Report::streaming(&outcome(), snapshot(), drain());
        let expected = "\
run FAILED after 10.0 s (streaming)
step    started at          ran       waited        read     written  end
align      0.001 s      9.500 s      0.000 s         0 B         0 B  exit 0
sort       0.002 s      9.900 s      7.510 s     3.0 MiB     2.0 KiB  exit 3
       waited 7.500 s for /w/out.sam (more bytes)
       waited 0.010 s for /w/a.fa (to exist)
failed first: step sort: exit 3
11.9 s of work (running, not waiting) were done in 10.0 s
kept 1 file (2.0 KiB, in 0.000 s):
  /w/out.bam (2.0 KiB, read by no step)
dropped 1 file (3.0 MiB):
  /w/out.sam (3.0 MiB)
cache: at most 5.0 MiB of 256.0 MiB in use (transparent huge pages)
store: 3.0 MiB moved there, 1.0 MiB brought back
warning: step x joined after it had ended
";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn the_speed_up_is_told_when_there_is_something_to_compare_with() {
        let mut report = Report::streaming(&outcome(), snapshot(), drain());
        report.success = true;
        let mut sequential = Report::sequential(&outcome());
        sequential.wall_seconds = 25.05;
        report.compare(&sequential);
        let line = "speed-up: 2.50 times as fast as one step after the other (25.1 s)\n";
        assert!(report.to_string().contains(line), "{report}");
    }

    #[test]
    fn a_sequential_report_has_the_same_columns_without_the_sessions() {
        let text = Report::sequential(&outcome()).to_string();
        let expected = "\
run FAILED after 10.0 s (one step after the other)
step    started at          ran  end
align      0.001 s      9.500 s  exit 0
sort       0.002 s      9.900 s  exit 3
failed first: step sort: exit 3
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_dead_lock_is_told_once() {
        let mut locked = snapshot();
        let diagnosis = "dead-lock: \"a\" waits for y of \"b\"".to_owned();
        locked.warnings = vec![diagnosis.clone()];
        locked.deadlock = Some(diagnosis);
        let text = Report::streaming(&outcome(), locked, drain()).to_string();
        assert_eq!(text.matches("dead-lock").count(), 1, "{text}");
    }

    #[test]
    fn a_failed_run_says_why_its_files_are_gone() {
        let mut none = drain();
        none.kept.clear();
        let text = Report::streaming(&outcome(), snapshot(), none).to_string();
        assert!(text.contains("kept 0 files (0 B, in 0.000 s)\n"), "{text}");
        assert!(text.contains("--keep-on-failure"), "{text}");
    }

    #[test]
    fn thousands_of_files_do_not_bury_the_report() {
        let mut many = drain();
        let file = |n| DroppedFile {
            path: format!("/w/{n}"),
            bytes: 1,
        };
        many.dropped = (0..1000).map(file).collect();
        let text = Report::streaming(&outcome(), snapshot(), many).to_string();
        assert!(text.contains("dropped 1000 files (1000 B):"));
        assert!(text.contains("  /w/19 (1 B)\n  and 980 more\n"));
    }
}
