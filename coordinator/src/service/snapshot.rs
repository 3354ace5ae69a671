//! What goes on in a session, for progress, `ps` and the report.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::engine::Engine;
use super::names::Kind;
use super::opens::Ofd;
use super::stats::Bytes;
use crate::flow::{FileId, StepId};
use crate::session::{
    CacheSnapshot, FileCounts, HeldSnapshot, Snapshot, StepSnapshot, StepState, WaitNow, WaitTotal,
};
use wire::layout::WAIT_NEVER;

/// A thread that waits for bytes or finality of a file, by its own record.
pub(super) struct DataWait {
    pub pid: i32,
    pub step: StepId,
    pub record: u32,
    pub since: u64,
}

/// Nanoseconds of the monotonic clock.
pub(super) fn monotonic() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| Duration::from(now).as_nanos() as u64)
}

impl Engine {
    /// Threads that wait in shared memory.
    pub(super) fn data_waits(&self) -> Vec<DataWait> {
        let mut waits = Vec::new();
        for (process, known) in self.processes.iter() {
            for slot in &self.shared.record(process).threads {
                let record = slot.waits_for.load(Relaxed).checked_sub(1);
                let Some(record) = record.filter(|record| self.records.is_used(*record)) else {
                    continue;
                };
                let (pid, step) = (known.pid, known.step);
                let since = slot.waits_since.load(Relaxed);
                waits.push(DataWait {
                    pid,
                    step,
                    record,
                    since,
                });
            }
        }
        waits
    }

    /// Adds the waits for bytes that the death of a process ends.
    pub(super) fn account_data_waits(&mut self, process: u32) {
        let Some(pid) = self.processes.get(process).map(|process| process.pid) else {
            return;
        };
        let now = monotonic();
        for wait in self.data_waits().into_iter().filter(|wait| wait.pid == pid) {
            let is_it = |ofd: &Ofd| ofd.record == wait.record && ofd.step == wait.step;
            let found = self.ofds.iter().find(|(_, ofd)| is_it(ofd));
            let Some((id, ofd)) = found else { continue };
            let reason = super::wait_reason(self.shared.ofd(id).wait.load(Relaxed));
            // What a client has written is not trusted further than that.
            let time = Duration::from_nanos(now.saturating_sub(wait.since));
            self.stats.waited(wait.step, &ofd.path, reason, time, 1);
        }
    }

    /// Everything at this moment.
    #[must_use]
    pub(super) fn snapshot(&self) -> Snapshot {
        let (limit_bytes, used_bytes, peak_bytes) = self.arena.usage();
        let pages = self.shared.pages();
        Snapshot {
            steps: self.step_snapshots(),
            files: self.file_counts(),
            cache: CacheSnapshot {
                limit_bytes,
                used_bytes,
                peak_bytes,
                pages,
                spilled_bytes: self.records.below.put,
                fetched_bytes: self.records.below.got,
                stored_bytes: self.records.store_usage().used,
            },
            held: self.held(),
            warnings: self.stats.warnings.clone(),
            deadlock: self.stats.deadlock.clone(),
        }
    }

    fn held(&self) -> HeldSnapshot {
        let (records, map_blocks) = self.records.in_use();
        HeldSnapshot {
            processes: self.processes.iter().count() as u64,
            descriptions: self.ofds.iter().count() as u64,
            records,
            map_blocks,
            waits: self.waiters.len() as u64,
            pinned_bytes: self.records.in_limbo(),
        }
    }

    fn file_counts(&self) -> FileCounts {
        let mut counts = FileCounts::default();
        for node in self.names.iter() {
            if matches!(node.kind, Kind::Directory(_)) {
                counts.directories += 1;
            } else {
                counts.files += 1;
                counts.final_files += u64::from(self.flow.is_final(FileId(node.inode)));
            }
        }
        counts
    }

    fn step_snapshots(&self) -> Vec<StepSnapshot> {
        let bytes = self.bytes();
        let mut steps: Vec<_> = self.flow.step_ids().collect();
        steps.sort_unstable();
        steps
            .into_iter()
            .map(|step| {
                let moved = bytes.get(&step).copied().unwrap_or_default();
                let mut processes: Vec<_> = self.processes.iter().collect();
                processes.retain(|(_, process)| process.step == step);
                let mut pids: Vec<_> = processes.iter().map(|(_, p)| p.pid).collect();
                pids.sort_unstable();
                StepSnapshot {
                    name: self.flow.step_name(step).to_owned(),
                    state: self.step_state(step),
                    processes: pids,
                    bytes_read: moved.read,
                    bytes_written: moved.written,
                    waits: self.wait_totals(step),
                    waiting: self.waits_now(step),
                }
            })
            .collect()
    }

    fn step_state(&self, step: StepId) -> StepState {
        match self.runs.get(&step) {
            Some(run) => match &run.end {
                Some(end) if end.is_success() => StepState::Succeeded,
                Some(_) => StepState::Failed,
                None if run.started => StepState::Running,
                None => StepState::NotStarted,
            },
            None => StepState::NotStarted,
        }
    }

    /// Bytes by step: those of closed descriptions and those open now.
    fn bytes(&self) -> HashMap<StepId, Bytes> {
        let mut bytes = self.stats.bytes.clone();
        for (id, ofd) in self.ofds.iter() {
            let sync = self.shared.ofd_sync(id);
            let sum = bytes.entry(ofd.step).or_default();
            sum.read = sum.read.saturating_add(sync.read.load(Relaxed));
            sum.written = sum.written.saturating_add(sync.written.load(Relaxed));
        }
        bytes
    }

    fn wait_totals(&self, step: StepId) -> Vec<WaitTotal> {
        let mut totals: HashMap<(Vec<u8>, &'static str), (u64, u64)> = HashMap::new();
        for ((owner, path, reason), waited) in &self.stats.waits {
            if *owner == step {
                let nanoseconds = u64::try_from(waited.time.as_nanos()).unwrap_or(u64::MAX);
                totals.insert((path.clone(), reason), (nanoseconds, waited.count));
            }
        }
        for (id, ofd) in self.ofds.iter().filter(|(_, ofd)| ofd.step == step) {
            let sync = self.shared.ofd_sync(id);
            let count = u64::from(sync.waits.load(Relaxed));
            if count > 0 {
                let reason = super::wait_reason(self.shared.ofd(id).wait.load(Relaxed));
                let sum = totals.entry((ofd.path.clone(), reason)).or_default();
                sum.0 = sum.0.saturating_add(sync.waited.load(Relaxed));
                sum.1 += count;
            }
        }
        let mut totals: Vec<_> = totals
            .into_iter()
            .map(|((path, reason), (nanoseconds, count))| WaitTotal {
                path: self.display_path(&path),
                reason: reason.to_owned(),
                nanoseconds,
                count,
            })
            .collect();
        totals.sort_by(|a, b| b.nanoseconds.cmp(&a.nanoseconds).then(a.path.cmp(&b.path)));
        totals
    }

    fn waits_now(&self, step: StepId) -> Vec<WaitNow> {
        let mut waits = Vec::new();
        for waiter in self.waiters.values().filter(|waiter| waiter.step == step) {
            waits.push(WaitNow {
                pid: self
                    .processes
                    .get(waiter.process)
                    .map_or(0, |process| process.pid),
                path: self.display_path(&waiter.path),
                reason: waiter.reason.to_owned(),
                nanoseconds: u64::try_from(waiter.since.elapsed().as_nanos()).unwrap_or(u64::MAX),
            });
        }
        for (process, _, path, reason, since) in self.stalls().filter(|stall| stall.1 == step) {
            let pid = self.processes.get(process).map_or(0, |process| process.pid);
            waits.push(WaitNow {
                pid,
                path: self.display_path(path),
                reason: reason.to_owned(),
                nanoseconds: u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX),
            });
        }
        let now = monotonic();
        for wait in self
            .data_waits()
            .into_iter()
            .filter(|wait| wait.step == step)
        {
            // One of this step's that waits: its producer has it open, too.
            let waits_for = |id: u32, ofd: &Ofd| {
                let waits = self.shared.ofd(id).wait.load(Relaxed) != WAIT_NEVER;
                waits && ofd.record == wait.record && ofd.step == step
            };
            let ofd = self.ofds.iter().find(|(id, ofd)| waits_for(*id, ofd));
            let Some((id, ofd)) = ofd else { continue };
            waits.push(WaitNow {
                pid: wait.pid,
                path: self.display_path(&ofd.path),
                reason: super::wait_reason(self.shared.ofd(id).wait.load(Relaxed)).to_owned(),
                nanoseconds: now.saturating_sub(wait.since),
            });
        }
        waits.sort_by(|a, b| a.pid.cmp(&b.pid).then(a.path.cmp(&b.path)));
        waits
    }

    /// Wakes all who wait, so that they see the end of the session.
    pub(super) fn wake_everybody(&self) {
        for waiter in self.waiters.values() {
            self.shared.wake_thread(waiter.process, waiter.thread);
        }
        for wait in self.data_waits() {
            self.shared.wake_file(wait.record);
        }
    }
}
