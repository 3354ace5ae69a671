//! Steps and their processes: who joins, who leaves, when a step is over.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use wire::limits::MAX_PROCESSES;

use super::engine::{Client, Engine};
use super::proc_scan;
use super::processes::Process;
use crate::flow::{Ending, StepId};
use crate::session::StepEnd;

/// Steps that have had a process; beyond so many only those of the document, and
/// those that are known, are let in.
const MAX_STEPS: usize = 4096;

/// Where a step stands.
#[derive(Debug, Default)]
pub(super) struct StepRun {
    /// A process has joined, or the command has started it.
    pub started: bool,
    /// How it ended.
    pub end: Option<StepEnd>,
    /// Since when it has no process (without supervision).
    idle_since: Option<Instant>,
    /// A process of it was killed by this signal.
    killed: Option<i32>,
}

impl StepRun {
    /// Takes note of a death by `signal`.
    pub(super) fn note_killed(&mut self, signal: i32) {
        self.killed.get_or_insert(signal);
    }

    /// Whether it has no process (without supervision).
    pub(super) fn is_idle(&self) -> bool {
        self.idle_since.is_some()
    }
}

impl Engine {
    /// Takes in a process that greets as part of step `app`.
    ///
    /// # Errors
    /// `EAGAIN`: too many processes or steps; `ENOMEM`; `ESHUTDOWN`: the session ends.
    pub(super) fn attach(
        &mut self,
        pid: i32,
        app: &str,
        ended: Arc<OwnedFd>,
    ) -> Result<Client, i32> {
        if self.draining {
            return Err(libc::ESHUTDOWN);
        }
        if !self.takes_step(app) {
            return Err(self.is_at_limit(MAX_STEPS, "steps", "new ones", libc::EAGAIN));
        }
        if let Some(old) = self.processes.of_pid(pid) {
            // The same process after `exec`, or after it lost its connection.
            if let Some(step) = self.retire(old) {
                self.look_idle(step);
            }
        }
        let step = self.flow.step(app);
        let joined = self.processes.join(pid, step, ended);
        let (process, generation) = joined.map_err(|error| match error {
            libc::EAGAIN => {
                let most = MAX_PROCESSES as usize;
                self.is_at_limit(most, "processes at a time", "further ones", error)
            }
            error => error,
        })?;
        self.records.process_end = self.processes.end();
        let run = self.runs.entry(step).or_default();
        run.idle_since = None;
        if !std::mem::replace(&mut run.started, true) || run.end.take().is_some() {
            self.flow.step_started(step);
        }
        self.settle();
        let client = Client {
            process,
            generation,
            step,
        };
        Ok(client)
    }

    /// Whether `app` is known, or there is room for one more.
    fn takes_step(&self, app: &str) -> bool {
        let mut known = self.flow.step_ids();
        self.runs.len() < MAX_STEPS || known.any(|step| self.flow.step_name(step) == app)
    }

    fn retire(&mut self, process: u32) -> Option<StepId> {
        self.account_data_waits(process);
        self.wipe_unpublished(process);
        self.forget_waits(process);
        self.processes.leave(process).map(|gone| gone.step)
    }

    /// Without a process a step ends in a while, unless another one joins it.
    fn look_idle(&mut self, step: StepId) {
        let idle = self.processes.count(step) == 0;
        let run = self.runs.entry(step).or_default();
        run.idle_since = idle.then(Instant::now);
    }

    /// Tells of a limit of the session, which `who` meet as `error`.
    pub(super) fn is_at_limit(&mut self, most: usize, of: &str, who: &str, error: i32) -> i32 {
        let shown = match error {
            // What a program without a coordinator gets.
            libc::EAGAIN => nix::errno::Errno::EIO,
            error => nix::errno::Errno::from_raw(error),
        };
        self.stats.warn(format!(
            "a session has at most {most} {of}: {who} got {shown:?}"
        ));
        error
    }

    /// A client speaks another version of the protocol.
    pub(super) fn refused_version(&mut self, pid: i32, version: u32) {
        self.stats.warn(format!(
            "process {pid} has a libcapio_posix.so of another version ({version}): \
             use the one that was built with this coordinator"
        ));
    }

    /// Process record `process` has ended; everything it held is free.
    pub(super) fn process_ended(&mut self, client: Client) {
        if !self.knows(client) {
            return;
        }
        let process = client.process;
        let known = self.processes.get(process);
        let signal = known.and_then(Process::killed_by);
        // Who writes to a pipe that nobody reads any more ends like this.
        let signal = signal.filter(|signal| !matches!(*signal, 0 | libc::SIGPIPE));
        // Its last closes were queued before its end was.
        self.drain_closes();
        let killed = self.processes.killed_by(process).filter(|&by| by != 0);
        if let (Some(pid), Some(by)) = (self.processes.get(process).map(|p| p.pid), killed) {
            self.ofds.opener_killed(pid, by);
        }
        let Some(step) = self.retire(process) else {
            return;
        };
        self.records.reap_limbo();
        let run = self.runs.entry(step).or_default();
        run.killed = run.killed.or(signal);
        self.look_idle(step);
        self.settle();
    }

    /// Work that time brings: steps whose grace is over, pages whose readers
    /// are gone.
    pub(super) fn tick(&mut self, now: Instant) {
        self.records.reap_limbo();
        self.records.forget_cuts(now);
        self.tick_room();
        self.drive_moves();
        if self.rescan_at.is_some_and(|at| at <= now) {
            self.rescan(now);
            self.drain_closes();
        }
        if !self.config.supervised {
            let grace = self.config.step_grace;
            let over = |run: &StepRun| {
                run.end.is_none()
                    && run
                        .idle_since
                        .is_some_and(|since| now.duration_since(since) >= grace)
            };
            let ended: Vec<_> = self
                .runs
                .iter()
                .filter(|(_, run)| over(run))
                .map(|(step, _)| *step)
                .collect();
            for step in ended {
                if self.has_unattached(step) {
                    self.runs.entry(step).or_default().idle_since = Some(now);
                    continue;
                }
                let killed = self.runs.get(&step).and_then(|run| run.killed);
                let end = killed.map_or(StepEnd::Success, StepEnd::Signal);
                self.end_step(step, end);
            }
        }
        self.look_for_deadlock(now);
        self.settle();
    }

    /// Whether a process of the step lives that has not joined: a child of
    /// `fork` joins with its first call.
    fn has_unattached(&self, step: StepId) -> bool {
        let name = self.flow.step_name(step);
        let (dir, workflow) = (&self.config.dir, &self.config.workflow);
        proc_scan::processes_of(dir, workflow, Some(name))
            .next()
            .is_some()
    }

    /// A step is over.
    pub(super) fn end_step(&mut self, step: StepId, end: StepEnd) {
        self.drain_closes();
        let good = end.is_success() || self.config.continue_on_error;
        let run = self.runs.entry(step).or_default();
        run.end = Some(end);
        self.flow.step_ended(
            step,
            if good {
                Ending::Success
            } else {
                Ending::Failed
            },
        );
        self.settle();
    }

    /// A step is about to start.
    pub(super) fn start_step(&mut self, step: StepId) {
        let run = self.runs.entry(step).or_default();
        if !std::mem::replace(&mut run.started, true) {
            self.flow.step_started(step);
        }
        self.settle();
    }
}
