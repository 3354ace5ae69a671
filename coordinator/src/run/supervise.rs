//! Watches over the instances of steps: an instance is gone when it and
//! everything it started has ended.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::keeper::{KILL_ALL, NAME, put_below_keeper};
use super::proc;
use crate::session::StepEnd;

/// How the process is called that a session leaves to outlive `capio`.
const GUARDIAN: &str = "capio-guardian";

/// Something happened to the instance that was spawned as `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its program has ended; processes that it started may still run.
    Ended {
        /// As given to [`Supervisor::spawn`].
        id: usize,
        /// How.
        end: StepEnd,
    },
    /// Nothing of it is left. Always follows an `Ended`; where it was ended
    /// by force after its program, a second `Ended` that says so.
    Gone {
        /// As given to [`Supervisor::spawn`].
        id: usize,
    },
}

/// The instances that are not gone.
#[derive(Debug)]
pub struct Supervisor {
    kept: Vec<Kept>,
    /// What instances start with blocked: what this process had blocked
    /// before it took signals over.
    blocked: SigSet,
}

#[derive(Debug)]
struct Kept {
    id: usize,
    keeper: Child,
    pipe: std::fs::File,
    instance: Option<Pid>,
    ended: bool,
}

impl Supervisor {
    /// Nothing to watch over yet. Processes whose keeper is killed fall to
    /// this process from now on. Instances start with `blocked` blocked.
    ///
    /// # Errors
    /// When the kernel refuses to make this process a subreaper.
    pub fn new(blocked: SigSet) -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        Ok(Self {
            kept: Vec::new(),
            blocked,
        })
    }

    /// Starts `command` as the instance `id`. To be called from a thread that
    /// lives as long as the process: its end would end the instance.
    ///
    /// # Errors
    /// When the program cannot be executed.
    pub fn spawn(&mut self, id: usize, mut command: Command) -> io::Result<()> {
        let pipe = put_below_keeper(&mut command, self.blocked)?;
        let keeper = command.spawn()?;
        self.kept.push(Kept {
            id,
            keeper,
            pipe: pipe.into(),
            instance: None,
            ended: false,
        });
        Ok(())
    }

    /// Whether nothing is left to watch over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Waits until something happens, `wake` becomes readable, or `timeout`
    /// is over; what happened may be nothing.
    ///
    /// # Errors
    /// When polling fails.
    pub fn wait(
        &mut self,
        timeout: Duration,
        wake: Option<BorrowedFd<'_>>,
    ) -> io::Result<Vec<Event>> {
        let pipes = self.kept.iter().map(|kept| kept.pipe.as_fd());
        let mut polled: Vec<PollFd<'_>> = pipes
            .chain(wake)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(
            &mut polled,
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut events = Vec::new();
        self.kept.retain_mut(|kept| !kept.look(&mut events));
        Ok(events)
    }

    /// Sends a signal to every process of an instance.
    pub fn signal(&self, id: usize, signal: Signal) {
        for process in self.processes(id) {
            // It may have ended since it was listed: then there is no such
            // process, and too little time for its id to be another's.
            let _ = kill(Pid::from_raw(process.0), signal);
        }
    }

    /// Sends a signal to the program of an instance alone, unless it has ended.
    pub fn signal_program(&self, id: usize, signal: Signal) {
        let kept = self.kept.iter().filter(|kept| kept.id == id && !kept.ended);
        for program in kept.filter_map(|kept| kept.instance) {
            // As above: it may have ended just now.
            let _ = kill(program, signal);
        }
    }

    /// Processes of an instance with their names.
    #[must_use]
    pub fn processes(&self, id: usize) -> Vec<(i32, String)> {
        let keepers = self.kept.iter().filter(|kept| kept.id == id);
        let below = keepers.flat_map(|kept| proc::descendants(kept.pid()));
        below.map(|process| (process.pid, process.name)).collect()
    }

    /// Kills every process of an instance, whatever it does meanwhile.
    pub fn kill(&self, id: usize) {
        for kept in self.kept.iter().filter(|kept| kept.id == id) {
            let _ = kill(kept.pid(), KILL_ALL);
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for kept in &mut self.kept {
            let _ = kill(kept.pid(), KILL_ALL);
            let _ = kept.keeper.wait();
        }
    }
}

impl Kept {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.keeper.id() as i32)
    }

    /// Reads what the keeper says; true when it is gone.
    fn look(&mut self, events: &mut Vec<Event>) -> bool {
        loop {
            let mut word = [0; 4];
            match self.pipe.read(&mut word) {
                Ok(4) if self.instance.is_none() => {
                    self.instance = Some(Pid::from_raw(i32::from_ne_bytes(word)));
                }
                Ok(4) => self.end(end_of_status(i32::from_ne_bytes(word)), events),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        if !self.keeper.wait().is_ok_and(|status| status.success()) {
            // Somebody killed the keeper, and what it kept with it.
            self.end(StepEnd::Signal(libc::SIGKILL), events);
            kill_orphans();
        }
        events.push(Event::Gone { id: self.id });
        true
    }

    fn end(&mut self, end: StepEnd, events: &mut Vec<Event>) {
        self.ended = true;
        events.push(Event::Ended { id: self.id, end });
    }
}

/// Kills what has lost its keeper: children of this process in other groups
/// than its own that are neither keepers nor the guardian of a session.
fn kill_orphans() {
    let (ours, group) = (nix::unistd::getpid(), nix::unistd::getpgrp());
    let keeper = NAME.to_str().unwrap_or_default();
    loop {
        let mut orphans = proc::all();
        orphans.retain(|p| p.parent == ours.as_raw() && p.group != group.as_raw());
        orphans.retain(|p| p.name != keeper && p.name != GUARDIAN);
        if orphans.is_empty() {
            return;
        }
        for orphan in orphans {
            end_child(Pid::from_raw(orphan.pid));
        }
    }
}

fn end_child(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
    let _ = waitpid(pid, None);
}

/// Kills and reaps all children of this process that are left. For the end of
/// a run, once every step is gone: then nobody's children are meant to be.
pub fn end_strays() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            for stray in proc::descendants(nix::unistd::getpid()) {
                tracing::warn!(
                    pid = stray.pid,
                    name = stray.name,
                    "ended a process left behind"
                );
                let _ = kill(Pid::from_raw(stray.pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn end_of_status(status: i32) -> StepEnd {
    if libc::WIFSIGNALED(status) {
        return StepEnd::Signal(libc::WTERMSIG(status));
    }
    match libc::WEXITSTATUS(status) {
        0 => StepEnd::Success,
        code => StepEnd::ExitCode(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;
    use std::time::Instant;

    fn supervisor() -> Supervisor {
        Supervisor::new(SigSet::empty()).unwrap()
    }

    fn shell(line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", line]).stdin(Stdio::null());
        command
    }

    /// Events until the instance is gone.
    fn watch(supervisor: &mut Supervisor) -> Vec<Event> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut events = Vec::new();
        while !supervisor.is_empty() {
            assert!(Instant::now() < deadline, "still waiting after {events:?}");
            events.extend(supervisor.wait(Duration::from_millis(50), None).unwrap());
        }
        events
    }

    fn end_of(line: &str) -> StepEnd {
        let mut supervisor = supervisor();
        supervisor.spawn(3, shell(line)).unwrap();
        match &watch(&mut supervisor)[..] {
            [Event::Ended { id: 3, end }, Event::Gone { id: 3 }] => end.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_step_that_fails_or_crashes_is_not_taken_for_a_success() {
        assert_eq!(end_of("exit 0"), StepEnd::Success);
        assert_eq!(end_of("exit 7"), StepEnd::ExitCode(7));
        assert_eq!(end_of("kill -SEGV $$"), StepEnd::Signal(libc::SIGSEGV));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_at_once() {
        let mut supervisor = supervisor();
        let error = supervisor
            .spawn(0, Command::new("/no/such/program"))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(supervisor.is_empty());
    }

    #[test]
    fn a_step_has_not_ended_while_a_daemon_of_it_still_writes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("late");
        // Own session, parent gone, environment cleared: nothing left to know it by.
        let line = format!(
            "setsid -f env -i PATH=\"$PATH\" sh -c 'sleep 0.4; echo late > {}' & exit 5",
            file.display()
        );
        let mut supervisor = supervisor();
        supervisor.spawn(0, shell(&line)).unwrap();
        let events = watch(&mut supervisor);
        assert_eq!(std::fs::read_to_string(file).unwrap(), "late\n");
        assert_eq!(
            events[0],
            Event::Ended {
                id: 0,
                end: StepEnd::ExitCode(5)
            }
        );
        assert_eq!(events[1], Event::Gone { id: 0 });
    }

    #[test]
    fn killing_reaches_daemons_and_what_ignores_signals() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let line = format!(
            "trap '' TERM INT HUP; echo $$ >> {0}; \
             setsid sh -c 'trap \"\" TERM; echo $$ >> {0}; sleep 100; sleep 100' & \
             (sleep 100 & sleep 100; sleep 100) & sleep 100",
            pids.display()
        );
        let mut supervisor = supervisor();
        supervisor.spawn(0, shell(&line)).unwrap();
        let started = Instant::now();
        while supervisor.processes(0).len() < 6 {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(10));
        }
        supervisor.kill(0);
        watch(&mut supervisor);
        for pid in std::fs::read_to_string(pids).unwrap().lines() {
            assert!(kill(Pid::from_raw(pid.parse().unwrap()), None).is_err());
        }
    }

    #[test]
    fn a_signal_reaches_every_process_of_an_instance() {
        let mut supervisor = supervisor();
        supervisor
            .spawn(0, shell("setsid sleep 100; exit 9"))
            .unwrap();
        let started = Instant::now();
        while supervisor.processes(0).len() < 2 {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(10));
        }
        supervisor.signal(0, Signal::SIGTERM);
        let events = watch(&mut supervisor);
        assert_eq!(
            events[0],
            Event::Ended {
                id: 0,
                end: StepEnd::Signal(libc::SIGTERM)
            }
        );
    }

    #[test]
    fn a_killed_keeper_takes_its_instance_along_and_the_step_fails() {
        let mut supervisor = supervisor();
        supervisor.spawn(0, shell("sleep 100 & sleep 100")).unwrap();
        supervisor.wait(Duration::from_secs(5), None).unwrap();
        let instance = supervisor.kept[0].instance.unwrap();
        kill(supervisor.kept[0].pid(), Signal::SIGKILL).unwrap();
        let events = watch(&mut supervisor);
        assert_eq!(
            events[0],
            Event::Ended {
                id: 0,
                end: StepEnd::Signal(libc::SIGKILL)
            }
        );
        assert!(proc::all().iter().all(|p| p.group != instance.as_raw()));
    }

    #[test]
    fn daemons_of_a_killed_keeper_do_not_outlive_it_and_the_step_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let line = format!(
            "setsid -f sh -c 'echo $$ > {0}.new; mv {0}.new {0}; sleep 100'",
            file.display()
        );
        let mut supervisor = supervisor();
        supervisor.spawn(0, shell(&line)).unwrap();
        let mut events = Vec::new();
        let started = Instant::now();
        while events.is_empty() || !file.exists() {
            assert!(started.elapsed() < Duration::from_secs(20));
            events.extend(supervisor.wait(Duration::from_millis(10), None).unwrap());
        }
        kill(supervisor.kept[0].pid(), Signal::SIGKILL).unwrap();
        events.extend(watch(&mut supervisor));
        let ended = |end| Event::Ended { id: 0, end };
        let killed = ended(StepEnd::Signal(libc::SIGKILL));
        assert_eq!(
            events,
            [ended(StepEnd::Success), killed, Event::Gone { id: 0 }]
        );
        let daemon = std::fs::read_to_string(file).unwrap();
        assert!(kill(Pid::from_raw(daemon.trim().parse().unwrap()), None).is_err());
    }

    #[test]
    fn a_step_starts_with_no_more_signals_blocked_or_descriptors_open_than_any_child() {
        let dir = tempfile::tempdir().unwrap();
        let look = |file: &str| {
            let file = dir.path().join(file);
            let line = "grep SigBlk /proc/self/status; ls /proc/self/fd";
            (shell(&format!("({line}) > {}", file.display())), file)
        };
        let (mut plain, expected) = look("plain");
        assert!(plain.status().unwrap().success());
        let (kept, got) = look("kept");
        let mut supervisor = supervisor();
        // Whatever `capio` itself blocks in order to receive it as an event.
        let ours = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        ours.thread_block().unwrap();
        supervisor.spawn(0, kept).unwrap();
        ours.thread_unblock().unwrap();
        watch(&mut supervisor);
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert!(read(&expected).contains("SigBlk"));
        assert_eq!(read(&got), read(&expected));
    }
}
