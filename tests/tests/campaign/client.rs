//! One program of the load, and its end.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};

use capio_tests::{Served, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// It was whole.
pub(crate) const WHOLE: i32 = 0;
/// A call gave `EIO`.
pub(crate) const LOST: i32 = 5;
/// The file ended before its last block.
pub(crate) const SHORT: i32 = 6;
/// There was no file.
pub(crate) const ABSENT: i32 = 7;

/// What a program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Makes the file of this number.
    Maker(usize),
    /// Reads it.
    Reader(usize),
    /// Works on files of its own.
    Churn,
}

/// A running `load` program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Client {
    child: Child,
    /// What it does.
    pub(crate) role: Role,
    /// It, or a child of its, was killed by us.
    pub(crate) hit: bool,
    said: PathBuf,
    line: String,
    ended: Option<ExitStatus>,
}

impl Client {
    /// Starts `load` with these words as a program of `step`.
    pub(crate) fn start(
        served: &Served,
        step: &str,
        role: Role,
        number: u64,
        words: &[String],
    ) -> Self {
        let said = served.scratch.file(&format!("{step}.{number}.said"));
        let stderr = File::create(&said).expect("a scratch file can be made");
        let mut command = served.command(step, program("load"));
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        Self {
            child: command.spawn().expect("load starts"),
            role,
            hit: false,
            said,
            line: format!("{step}: load {}", words.join(" ")),
            ended: None,
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended.is_some()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal to it or, if it has one and `child` is set, to its child.
    pub(crate) fn signal(&mut self, signal: Signal, child: bool) {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let first = children
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        let pid = first
            .filter(|_| child)
            .map_or_else(|| self.pid(), Pid::from_raw);
        self.hit |= signal == Signal::SIGKILL;
        // It may have ended by itself just now.
        let _ = kill(pid, signal);
    }

    /// How it has ended: its status, or minus the signal.
    ///
    /// # Panics
    /// While it lives.
    pub(crate) fn status(&self) -> i32 {
        let ended = self.ended.expect("it has ended");
        ended
            .code()
            .unwrap_or_else(|| -ended.signal().unwrap_or_default())
    }

    /// Fails unless it has ended with one of these.
    pub(crate) fn expect(&self, allowed: &[i32], why: &str) {
        let status = self.status();
        assert!(
            allowed.contains(&status),
            "{} ended with {status}, not with any of {allowed:?} ({why})\n{}",
            self.line,
            fs::read_to_string(&self.said).unwrap_or_default()
        );
    }

    /// What it is doing, for the report of a hang.
    pub(crate) fn describe(&self) -> String {
        let pid = self.child.id();
        let read = |file: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            text.trim().to_owned()
        };
        format!(
            "{pid} {} [{} {}]{}\n",
            self.line,
            read("wchan"),
            read("syscall"),
            if self.hit { " hit" } else { "" }
        )
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.has_ended() {
            // It may end just now.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
