//! Dead-locks: every process waits in capio or sleeps without progress, and
//! nothing is left that could wake any of them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::outside;
use super::proc_scan;
use super::processes::Process;
use super::snapshot::DataWait;
use crate::flow::{FileId, StepId, WaitFor, WaitId};

/// How often the processes are looked at while something waits.
const PERIOD: Duration = Duration::from_millis(100);
/// Without any progress for so long it is a dead-lock.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same when steps wait for each other in a circle.
const CYCLE_PATIENCE: Duration = Duration::from_millis(500);
/// Numbers of waits made up for the state machine start here.
const BORROWED: u64 = 1 << 63;

/// What was seen of the session's processes, and since when nothing changed.
#[derive(Default)]
pub(super) struct Quiet {
    looked: Option<Instant>,
    since: Option<Instant>,
    /// By process: how far it has got.
    progress: HashMap<i32, u64>,
}

/// What `/proc` says of a process.
enum Activity {
    /// It runs, or sleeps for a while and will go on by itself.
    Busy,
    /// It sleeps until somebody wakes it; a number that grows with its work.
    Asleep(u64),
    /// It has ended.
    Gone,
}

impl Engine {
    /// Looks whether the session is stuck; breaks the waits if it is.
    pub(super) fn look_for_deadlock(&mut self, now: Instant) {
        if self
            .quiet
            .looked
            .is_some_and(|last| now.duration_since(last) < PERIOD)
        {
            return;
        }
        self.quiet.looked = Some(now);
        if self.room.has_stalls() {
            // The store ends those, not another process.
            self.quiet.since = None;
            return;
        }
        let waits = self.data_waits();
        if (self.waiters.is_empty() && waits.is_empty()) || !self.all_asleep() {
            self.quiet.since = None;
            return;
        }
        let since = *self.quiet.since.get_or_insert(now);
        let cycle = self.cycle(&waits);
        let patience = if cycle.is_some() {
            CYCLE_PATIENCE
        } else {
            PATIENCE
        };
        if now.duration_since(since) >= patience {
            let can_wake = outside::can_wake(&self.session_processes(), cycle.is_some());
            if can_wake || self.has_busy_outsider() {
                self.quiet.since = None;
                return;
            }
            let diagnosis = self.diagnose(cycle, &waits);
            self.stats.warn(diagnosis.clone());
            let files: Vec<u32> = waits.iter().map(|wait| wait.record).collect();
            self.break_deadlock(&files, diagnosis);
            self.quiet.since = None;
        }
    }

    /// Whether no process of the session can go on, and none is to come.
    fn all_asleep(&mut self) -> bool {
        // The command starts whatever can start, so that what has not started
        // by now comes after a step that waits.
        let to_come = !self.config.supervised
            && self.flow.step_ids().any(|step| {
                // One without a process will end when its grace is over.
                let run = self.runs.get(&step);
                run.is_none_or(|run| run.end.is_none() && (!run.started || run.is_idle()))
            });
        if to_come {
            return false;
        }
        let mut progress = HashMap::new();
        let mut asleep = true;
        for pid in self.session_processes() {
            match activity(pid) {
                Activity::Busy => asleep = false,
                Activity::Asleep(work) => {
                    asleep &= self.quiet.progress.get(&pid) == Some(&work);
                    progress.insert(pid, work);
                }
                Activity::Gone => {}
            }
        }
        self.quiet.progress = progress;
        asleep
    }

    /// Attached processes and, as far as `/proc` tells, their descendants.
    fn session_processes(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .processes
            .iter()
            .map(|(_, p): (u32, &Process)| p.pid)
            .collect();
        let mut at = 0;
        while let Some(pid) = pids.get(at).copied() {
            for child in children(pid) {
                if !pids.contains(&child) {
                    pids.push(child);
                }
            }
            at += 1;
        }
        pids
    }

    /// Whether a process of the session that has not joined yet, and whose
    /// parent is gone, can go on.
    fn has_busy_outsider(&self) -> bool {
        let (dir, workflow) = (&self.config.dir, &self.config.workflow);
        let known = self.session_processes();
        proc_scan::processes_of(dir, workflow, None)
            .filter(|pid| !known.contains(pid))
            .any(|pid| matches!(activity(pid), Activity::Busy))
    }

    /// Steps that wait for each other through files.
    fn cycle(&mut self, waits: &[DataWait]) -> Option<Vec<(StepId, Vec<u8>, StepId)>> {
        let mut ids = Vec::new();
        for (number, wait) in waits.iter().enumerate() {
            let file = self.ofds.iter().find(|(_, ofd)| ofd.record == wait.record);
            let Some(inode) = file.map(|(_, ofd)| ofd.inode) else {
                continue;
            };
            let id = WaitId(BORROWED + number as u64);
            if self
                .flow
                .wait(id, wait.step, WaitFor::Data(FileId(inode)))
                .is_none()
            {
                ids.push(id);
            }
        }
        let cycle = self.flow.cycle();
        ids.into_iter().for_each(|id| self.flow.cancel(id));
        cycle
    }

    fn diagnose(
        &self,
        cycle: Option<Vec<(StepId, Vec<u8>, StepId)>>,
        waits: &[DataWait],
    ) -> String {
        let name = |step| self.flow.step_name(step).to_owned();
        let parts: Vec<String> = if let Some(cycle) = cycle {
            let part = |(from, path, to): (StepId, Vec<u8>, StepId)| {
                format!(
                    "\"{}\" waits for {} of \"{}\"",
                    name(from),
                    self.display_path(&path),
                    name(to)
                )
            };
            cycle.into_iter().map(part).collect()
        } else {
            let mut parts: Vec<_> = self
                .waiters
                .values()
                .map(|w| {
                    format!(
                        "\"{}\" waits for {} {}",
                        name(w.step),
                        self.display_path(&w.path),
                        w.reason
                    )
                })
                .collect();
            for wait in waits {
                if let Some((_, ofd)) = self.ofds.iter().find(|(_, ofd)| ofd.record == wait.record)
                {
                    let path = self.display_path(&ofd.path);
                    parts.push(format!("\"{}\" waits for more of {path}", name(wait.step)));
                }
            }
            parts.sort();
            parts.dedup();
            parts
        };
        format!(
            "dead-lock: {}; those calls fail with EDEADLK. Check the spec's commit and firing \
             rules with `capio check`",
            parts.join(", ")
        )
    }
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let files = tasks
        .into_iter()
        .flatten()
        .flatten()
        .map(|task| task.path().join("children"));
    files
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn activity(pid: i32) -> Activity {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Activity::Gone;
    };
    let mut work = io_count(pid);
    for task in tasks.flatten() {
        match thread_time(&task.path()) {
            Some(time) => work = work.wrapping_add(time),
            None => return Activity::Busy,
        }
    }
    Activity::Asleep(work)
}

/// Bytes and calls of input and output so far.
fn io_count(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let numbers = text
        .lines()
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    numbers.fold(0, u64::wrapping_add)
}

/// Processor time and context switches of a thread that sleeps until somebody
/// wakes it; `None` for one that runs or whose sleep ends by itself.
fn thread_time(task: &Path) -> Option<u64> {
    let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return Some(0);
    };
    let fields: Vec<_> = rest.split_whitespace().collect();
    let state = *fields.first()?;
    if matches!(state, "Z" | "X") {
        return Some(0);
    }
    if state != "S" && state != "T" && state != "t" {
        return None;
    }
    if state == "T" || timed_sleep(task) {
        return None;
    }
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Some(number(11).wrapping_add(number(12)))
}

/// Whether the thread is in a call that ends after a time that the program
/// has chosen. Our own waits are the futexes in the session's memory: their
/// time-out is only a look around.
fn timed_sleep(task: &Path) -> bool {
    let text = fs::read_to_string(task.join("syscall")).unwrap_or_default();
    let mut words = text.split_whitespace();
    let Some(number) = words.next().and_then(|word| word.parse::<i64>().ok()) else {
        return false;
    };
    let arguments: Vec<u64> = words
        .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap_or(0))
        .collect();
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
    match number {
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => true,
        libc::SYS_select | libc::SYS_pselect6 => argument(4) != 0,
        libc::SYS_poll | libc::SYS_epoll_wait | libc::SYS_epoll_pwait => {
            let timeout = argument(if number == libc::SYS_poll { 2 } else { 3 }) as i32;
            timeout >= 0
        }
        libc::SYS_ppoll => argument(2) != 0,
        libc::SYS_rt_sigtimedwait => argument(2) != 0,
        // FUTEX_PRIVATE_FLAG is never set on ours.
        libc::SYS_futex => argument(1) & 128 != 0 && argument(3) != 0,
        _ => false,
    }
}
