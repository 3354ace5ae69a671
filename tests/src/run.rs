//! Runs a workflow: step after step without capio, or all at once with it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use crate::audit::Auditor;
use crate::binaries::capio;
use crate::process::{Finished, Running};
use crate::scratch::Scratch;
use crate::tree::Tree;
use crate::workflow::{Command, Step, Workflow};

/// Whether the tests run without capio, to check themselves.
pub fn plain_only() -> bool {
    env::var_os("CAPIO_TESTS").is_some_and(|what| what == "plain")
}

/// How long one run may take.
pub fn limit() -> Duration {
    let seconds = env::var("CAPIO_TESTS_TIMEOUT")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Whether workflows run once more under the auditor.
fn audits() -> bool {
    !plain_only() && env::var_os("CAPIO_TESTS_AUDIT").is_none_or(|value| value != "0")
}

/// A run of a workflow under capio that has started.
#[derive(Debug)]
pub struct CapioRun {
    /// The `capio run` command; ends before its directories do.
    pub running: Running,
    /// The directories of the run.
    pub scratch: Scratch,
    /// The directory of the session, while it lives.
    pub session: PathBuf,
    auditor: Option<Auditor>,
}

impl CapioRun {
    /// Waits for the end.
    ///
    /// # Panics
    /// When it hangs, leaves its session behind, or (where the run succeeded and
    /// was audited) when a system call went past the library.
    pub fn finish(self) -> (Scratch, Finished) {
        let (scratch, finished, misses) = self.end();
        let shown = misses.iter().take(20).map(String::as_str);
        let shown = shown.collect::<Vec<_>>().join("\n");
        let many = misses.len();
        finished.expect(
            misses.is_empty(),
            &format!("{many} calls went past the library:\n{shown}\n"),
        );
        (scratch, finished)
    }

    /// Waits for the end and tells what the auditor saw.
    ///
    /// # Panics
    /// When it fails, hangs or leaves its session behind.
    pub fn misses(self) -> Vec<String> {
        let (_, finished, misses) = self.end();
        finished.expect_success();
        misses
    }

    fn end(self) -> (Scratch, Finished, Vec<String>) {
        let finished = self.running.finish(limit());
        finished.expect(
            !self.session.exists(),
            &format!("{} was left behind", self.session.display()),
        );
        let auditor = self.auditor.filter(|_| finished.status.success());
        let misses = auditor.map(|auditor| auditor.misses(&self.scratch.audit()));
        (self.scratch, finished, misses.unwrap_or_default())
    }
}

impl Workflow {
    /// Runs the workflow on a plain directory and under capio and compares all
    /// files that are left. Programs find `STREAMING=1` in their environment in
    /// the run whose steps overlap.
    ///
    /// # Panics
    /// When a step fails, a run hangs or leaves processes behind, or results
    /// differ; with all output and the documents.
    pub fn verify(&self) {
        let wanted = self.plain();
        let wanted = Tree::read(&wanted.data(), &self.ignored);
        if plain_only() {
            self.compare(&wanted, &self.plain(), "");
            return;
        }
        for run in self.runs() {
            let (scratch, finished) = run.finish();
            finished.expect_success();
            self.compare(&wanted, &scratch, &finished.output);
        }
    }

    /// The workflow under capio, then once more under the auditor. Each starts
    /// when it is asked for.
    pub(crate) fn runs(&self) -> impl Iterator<Item = CapioRun> {
        let watched = (self.audited && audits()).then_some(true);
        [Some(false), watched].into_iter().flatten().map(|watched| {
            let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
            if watched {
                self.audit(&options)
            } else {
                self.start(&options)
            }
        })
    }

    fn compare(&self, wanted: &Tree, scratch: &Scratch, output: &str) {
        let found = Tree::read(&scratch.data(), &self.ignored);
        let differences = wanted.differences(&found);
        assert!(
            differences.is_empty(),
            "results of '{}' differ from the plain run:\n{differences}\n{output}\n{}",
            self.name,
            self.toml()
        );
    }

    /// Runs the steps one after the other without capio.
    ///
    /// # Panics
    /// When one fails.
    pub fn plain(&self) -> Scratch {
        let scratch = Scratch::new();
        self.prepare(&scratch.data());
        for step in &self.steps {
            for number in 0..step.instances {
                let mut command = plain_command(step, &scratch.data());
                command.env("CAPIO_INSTANCE", number.to_string());
                let running = Running::start(command, &scratch, &step.name);
                let finished = running.finish(limit());
                finished.expect(
                    finished.status.success(),
                    &format!("step '{}' fails on a plain directory", step.name),
                );
            }
        }
        scratch
    }

    /// Starts the workflow under `capio run`, with `options` added.
    ///
    /// # Panics
    /// When capio is missing.
    pub fn start(&self, options: &[&str]) -> CapioRun {
        self.launch(Scratch::new(), self, options, None)
    }

    /// The same with every step under the auditor.
    ///
    /// # Panics
    /// When capio is missing, or strace.
    pub fn audit(&self, options: &[&str]) -> CapioRun {
        let strace = Process::new("strace").arg("-V").output();
        assert!(
            strace.is_ok_and(|output| output.status.success()),
            "strace is missing: run scripts/setup, or set CAPIO_TESTS_AUDIT=0"
        );
        let scratch = Scratch::new();
        let data = scratch.data().canonicalize().expect("the directory exists");
        let auditor = Auditor {
            excluded: self.excluded.iter().map(|path| data.join(path)).collect(),
            session: scratch.session(&self.name),
            data,
        };
        let watched = self.under_audit(&scratch.audit());
        self.launch(scratch, &watched, options, Some(auditor))
    }

    fn launch(
        &self,
        scratch: Scratch,
        watched: &Self,
        options: &[&str],
        auditor: Option<Auditor>,
    ) -> CapioRun {
        self.prepare(&scratch.data());
        let spec = scratch.file("spec.json");
        let file = scratch.file("workflow.toml");
        fs::write(&spec, self.capio_cl()).expect("a scratch file can be written");
        fs::write(&file, watched.toml()).expect("a scratch file can be written");
        let mut command = match self.under.split_first() {
            Some((first, rest)) => {
                let mut command = Process::new(first);
                command.args(rest).arg(capio());
                command
            }
            None => Process::new(capio()),
        };
        command
            .arg("run")
            .args(
                ["--cache", "256M"]
                    .iter()
                    .filter(|_| !options.contains(&"--cache")),
            )
            .arg("-c")
            .arg(spec)
            .arg("--dir")
            .arg(scratch.data())
            .arg("--logs")
            .arg(scratch.logs())
            .args(options)
            .arg(file)
            .env("STREAMING", "1")
            .current_dir(scratch.data());
        let running = Running::start(command, &scratch, "capio");
        let session = scratch.session(&self.name);
        CapioRun {
            scratch,
            running,
            session,
            auditor,
        }
    }
}

fn plain_command(step: &Step, dir: &Path) -> Process {
    let mut command = match &step.command {
        Command::Shell(line) => {
            let mut shell = Process::new("sh");
            shell.args(["-c", line]);
            shell
        }
        Command::List(words) => {
            let (program, arguments) = words.split_first().expect("a step has a program");
            let mut command = Process::new(program);
            command.args(arguments);
            command
        }
    };
    command
        .envs(&step.env)
        .env_remove("STREAMING")
        .current_dir(dir);
    command
}
