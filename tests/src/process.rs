//! One command with all its descendants: watched, limited in time, and ended
//! without leaving anybody behind.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scratch::Scratch;

/// Environment variable by which every descendant of a run is found again.
const TAG: &str = "CAPIO_TESTS_RUN";
/// Variables that would make a program part of a session.
const OURS: [&str; 4] = [
    "CAPIO_DIR",
    "CAPIO_APP_NAME",
    "CAPIO_WORKFLOW_NAME",
    "LD_PRELOAD",
];
const POLL: Duration = Duration::from_millis(5);

/// A started command. Dropping it kills the command and all its descendants.
#[derive(Debug)]
pub struct Running {
    child: Child,
    tag: String,
    stdout: PathBuf,
    stderr: PathBuf,
    logs: PathBuf,
    started: Instant,
    line: String,
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// From its start to its end.
    pub wall: Duration,
    /// Standard output, standard error and the logs of the steps, with titles.
    pub output: String,
    /// Command lines of descendants that outlived it by a second or more. They
    /// have been killed.
    pub survivors: Vec<String>,
}

impl Running {
    /// Starts `command` in a process group of its own, its output going to files
    /// in `scratch` (a pipe would tie us to whoever inherits it).
    ///
    /// # Panics
    /// When the command cannot be started.
    pub fn start(mut command: Command, scratch: &Scratch, title: &str) -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{}.{number}", std::process::id());
        let stdout = scratch.file(&format!("{title}.{number}.stdout"));
        let stderr = scratch.file(&format!("{title}.{number}.stderr"));
        let create = |path| File::create(path).expect("a scratch file can be made");
        let line = format!("{command:?}");
        for variable in OURS {
            // What the caller sets stays; what we were started with does not count.
            if !command.get_envs().any(|(name, _)| name == variable) {
                command.env_remove(variable);
            }
        }
        let child = command
            .env(TAG, &tag)
            .env("OUTSIDE", scratch.outside())
            .stdin(Stdio::null())
            .stdout(create(&stdout))
            .stderr(create(&stderr))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{line} does not start: {error}"));
        let logs = scratch.logs();
        let started = Instant::now();
        Self {
            child,
            tag,
            stdout,
            stderr,
            logs,
            started,
            line,
        }
    }

    /// The process that was started.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends `signal` to the command alone.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|error| panic!("{} is gone: {error}", self.line));
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// When it does not within `limit`, or the command ends before.
    pub fn wait_until(&mut self, limit: Duration, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(
                ended.is_none(),
                "{what}: the run ended first\n{}",
                self.output()
            );
            assert!(
                start.elapsed() < limit,
                "{what}: not in {limit:?}\n{}",
                self.output()
            );
            sleep(POLL);
        }
    }

    /// Time since it was started.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it has not ended within `limit` since its start; everything has been killed by then,
    /// and the message holds all output.
    pub fn finish(mut self, limit: Duration) -> Finished {
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if self.started.elapsed() > limit => {
                    let waiting = self.describe_processes();
                    self.kill_all();
                    panic!(
                        "{} hangs: killed after {limit:?}\n{waiting}{}",
                        self.line,
                        self.output()
                    );
                }
                None => sleep(POLL),
            }
        };
        let wall = self.started.elapsed();
        let survivors = self.survivors(Duration::from_secs(1));
        Finished {
            status,
            wall,
            output: self.output(),
            survivors,
        }
    }

    fn output(&self) -> String {
        let mut files = vec![self.stdout.clone(), self.stderr.clone()];
        let mut logs: Vec<_> = fs::read_dir(&self.logs)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        logs.sort();
        files.append(&mut logs);
        let mut text = String::new();
        for file in files {
            let bytes = fs::read(&file).unwrap_or_default();
            if !bytes.is_empty() {
                let name = file
                    .file_name()
                    .unwrap_or_else(|| OsStr::new("?"))
                    .display();
                text += &format!("--- {name}\n{}\n", String::from_utf8_lossy(&bytes));
            }
        }
        text
    }

    /// Who is left after `grace`; they are killed.
    fn survivors(&self, grace: Duration) -> Vec<String> {
        let start = Instant::now();
        while !self.descendants().is_empty() {
            if start.elapsed() > grace {
                let left = self
                    .descendants()
                    .iter()
                    .map(|pid| command_line(*pid))
                    .collect();
                self.kill_all();
                return left;
            }
            sleep(POLL);
        }
        Vec::new()
    }

    /// All living processes that carry our tag in their environment.
    fn descendants(&self) -> Vec<i32> {
        let wanted = format!("{TAG}={}", self.tag);
        let tagged = |pid: &i32| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                environment
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == wanted.as_bytes())
            })
        };
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(tagged)
            .collect()
    }

    /// What each process of the run is doing, for the report of a hang.
    fn describe_processes(&self) -> String {
        let describe = |pid: i32| {
            let read = |file: &str| {
                let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
                text.trim().to_owned()
            };
            format!(
                "{pid}: {} [{} {}]\n",
                command_line(pid),
                read("wchan"),
                read("syscall")
            )
        };
        self.descendants().into_iter().map(describe).collect()
    }

    /// Ends everybody. The guardian of a session comes last: it takes away what
    /// a killed coordinator has left, and then ends by itself.
    fn kill_all(&self) {
        // Again and again: somebody may have forked between look and kill.
        for round in 0..600 {
            let pids = self.descendants();
            if pids.is_empty() {
                return;
            }
            for pid in pids
                .into_iter()
                .filter(|pid| round > 500 || !is_guardian(*pid))
            {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            sleep(POLL);
        }
    }
}

fn is_guardian(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| name.trim() == "capio-guardian")
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_all();
        let _reaped = self.child.wait();
    }
}

impl Finished {
    /// Fails the test, with all output, unless `condition` holds.
    ///
    /// # Panics
    /// When it does not.
    pub fn expect(&self, condition: bool, what: &str) {
        let ended = match self.status.signal() {
            Some(signal) => format!("signal {signal}"),
            None => format!("status {}", self.status.code().unwrap_or(-1)),
        };
        assert!(
            condition,
            "{what} (ended with {ended} after {:?})\n{}",
            self.wall, self.output
        );
    }

    /// Fails the test unless it ended well and left nobody behind.
    ///
    /// # Panics
    /// When it did not.
    pub fn expect_success(&self) {
        self.expect(self.status.success(), "the run failed");
        self.expect_no_survivors();
    }

    /// Fails the test if a process outlived the command.
    ///
    /// # Panics
    /// When one did.
    pub fn expect_no_survivors(&self) {
        self.expect(
            self.survivors.is_empty(),
            &format!("processes were left behind: {:?}", self.survivors),
        );
    }
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
