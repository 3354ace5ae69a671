//! Runs a workflow: step after step without capio, or all at once with it.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command as Process;
use std::time::Duration;

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
pub(crate) fn limit() -> Duration {
    let seconds = env::var("CAPIO_TESTS_TIMEOUT")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// A run of a workflow under capio that has started.
#[derive(Debug)]
pub struct CapioRun {
    /// The directories of the run.
    pub scratch: Scratch,
    /// The `capio run` command.
    pub running: Running,
}

impl CapioRun {
    /// Waits for the end.
    ///
    /// # Panics
    /// When it hangs.
    pub fn finish(self) -> (Scratch, Finished) {
        (self.scratch, self.running.finish(limit()))
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
        let (scratch, output) = if plain_only() {
            (self.plain(), String::new())
        } else {
            let (scratch, finished) = self.start(&[]).finish();
            finished.expect_success();
            (scratch, finished.output)
        };
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
            for _ in 0..step.instances {
                let running =
                    Running::start(plain_command(step, &scratch.data()), &scratch, &step.name);
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
        let scratch = Scratch::new();
        self.prepare(&scratch.data());
        let spec = scratch.file("spec.json");
        let file = scratch.file("workflow.toml");
        fs::write(&spec, self.capio_cl()).expect("a scratch file can be written");
        fs::write(&file, self.toml()).expect("a scratch file can be written");
        let mut command = Process::new(capio());
        command
            .args(["run", "--cache", "256M", "-c"])
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
        CapioRun { scratch, running }
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
