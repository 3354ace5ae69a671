//! Attached processes and their records in shared memory.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use wire::limits::MAX_PROCESSES;
use wire::protocol::mailbox;

use super::shm::Shared;
use crate::flow::StepId;

/// An attached process.
#[derive(Debug)]
pub(super) struct Process {
    /// Process id.
    pub pid: i32,
    /// Step.
    pub step: StepId,
    /// Generation of its record.
    pub generation: u32,
    /// Readable once it has ended.
    pub ended: Arc<OwnedFd>,
    /// Its `/proc/PID/statm`, once that was needed.
    memory: OnceCell<Option<File>>,
}

impl Process {
    /// Whether it has memory: a process that ends gives that up before it closes its
    /// files. In doubt not.
    fn is_alive(&self) -> bool {
        let memory = self.memory.get_or_init(|| {
            let opened = File::open(format!("/proc/{}/statm", self.pid)).ok();
            // The number may be another process's once this one has ended.
            opened.filter(|_| !has_ended(&self.ended))
        });
        let mut first = [0];
        let read = memory.as_ref().map(|file| file.read_at(&mut first, 0));
        matches!(read, Some(Ok(1))) && first != *b"0"
    }

    /// The signal that has killed it, or kills it right now; 0: it ends, or
    /// has ended, by itself. `None`: it lives, or nobody knows any more.
    #[must_use]
    pub(super) fn killed_by(&self) -> Option<i32> {
        if self.is_alive() {
            return None;
        }
        // It may be reaped, and then be known to its descriptor, in between.
        exit_signal(&self.ended)
            .or_else(|| killed_by(self.pid))
            .or_else(|| exit_signal(&self.ended))
    }
}

/// All attached processes, by record.
pub(super) struct Processes {
    shared: Arc<Shared>,
    by_record: HashMap<u32, Process>,
    by_pid: HashMap<i32, u32>,
    free: Vec<u32>,
    next: u32,
}

/// A descriptor that becomes readable when process `pid` ends.
///
/// # Errors
/// `ESRCH` when it has ended.
pub(super) fn pidfd(pid: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes plain integers and returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

impl Processes {
    /// None.
    #[must_use]
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (by_record, by_pid) = (HashMap::new(), HashMap::new());
        Self {
            shared,
            by_record,
            by_pid,
            free: Vec::new(),
            next: 0,
        }
    }

    /// Gives `pid` a record.
    ///
    /// # Errors
    /// `EAGAIN` when there are too many, `ENOMEM`.
    pub(super) fn join(
        &mut self,
        pid: i32,
        step: StepId,
        ended: Arc<OwnedFd>,
    ) -> Result<(u32, u32), i32> {
        let record = self.free.pop().or_else(|| {
            (self.next < MAX_PROCESSES).then(|| {
                self.next += 1;
                self.next - 1
            })
        });
        let record = record.ok_or(libc::EAGAIN)?;
        if self.shared.back_process(record).is_err() {
            self.free.push(record);
            return Err(libc::ENOMEM);
        }
        clear(&self.shared, record);
        let meta = self.shared.process(record);
        meta.pid.store(pid as u32, Relaxed);
        let generation = (meta.generation.load(Relaxed) + 1) | 1;
        meta.generation.store(generation, SeqCst);
        self.by_record.insert(
            record,
            Process {
                pid,
                step,
                generation,
                ended,
                memory: OnceCell::new(),
            },
        );
        self.by_pid.insert(pid, record);
        Ok((record, generation))
    }

    /// The record of `pid`.
    #[must_use]
    pub(super) fn of_pid(&self, pid: i32) -> Option<u32> {
        self.by_pid.get(&pid).copied()
    }

    /// The process of `record`.
    #[must_use]
    pub(super) fn get(&self, record: u32) -> Option<&Process> {
        self.by_record.get(&record)
    }

    /// All: record and process.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Process)> {
        self.by_record
            .iter()
            .map(|(record, process)| (*record, process))
    }

    /// As [`Process::killed_by`], and when the kernel does not know any more
    /// (before Linux 6.15, once the parent has reaped it): who has not said
    /// that it ends was killed.
    #[must_use]
    pub(super) fn killed_by(&self, record: u32) -> Option<i32> {
        let process = self.by_record.get(&record)?;
        if process.is_alive() {
            return None;
        }
        process.killed_by().or_else(|| {
            let by_itself = self.shared.record(record).ending.load(SeqCst) != 0;
            (has_ended(&process.ended) && !by_itself).then_some(libc::SIGKILL)
        })
    }

    /// Number of processes of `step`.
    #[must_use]
    pub(super) fn count(&self, step: StepId) -> usize {
        self.by_record
            .values()
            .filter(|process| process.step == step)
            .count()
    }

    /// After the highest record ever used.
    #[must_use]
    pub(super) fn end(&self) -> u32 {
        self.next
    }

    /// Takes the record of a process that has ended: from now on the words that
    /// it holds are free for others, and its hazards are void.
    pub(super) fn leave(&mut self, record: u32) -> Option<Process> {
        let process = self.by_record.remove(&record)?;
        let meta = self.shared.process(record);
        meta.generation
            .store(process.generation.wrapping_add(1), SeqCst);
        if self.by_pid.get(&process.pid) == Some(&record) {
            self.by_pid.remove(&process.pid);
        }
        self.free.push(record);
        Some(process)
    }

    /// Ranges that threads of `record` were writing: file record, start, end.
    #[must_use]
    pub(super) fn writes(&self, record: u32) -> Vec<(u32, u64, u64)> {
        let threads = self.shared.record(record).threads.iter();
        threads
            .filter_map(|slot| {
                let file = (slot.hazard.load(SeqCst) as u32).checked_sub(1)?;
                let (start, end) = (slot.write_start.load(SeqCst), slot.write_end.load(SeqCst));
                (start < end).then_some((file, start, end))
            })
            .collect()
    }
}

fn clear(shared: &Shared, record: u32) {
    shared.record(record).ending.store(0, Relaxed);
    shared.mailbox(record).state.store(mailbox::FREE, Relaxed);
    for slot in &shared.record(record).threads {
        slot.tid.store(0, Relaxed);
        slot.waits_for.store(0, Relaxed);
        for word in [
            &slot.hazard,
            &slot.write_start,
            &slot.write_end,
            &slot.waits_at,
        ] {
            word.store(0, Relaxed);
        }
    }
}

/// How a process that is ending ends: the signal that kills it, or 0; `None`
/// while it does not end or when that cannot be known any more.
#[must_use]
pub(super) fn killed_by(pid: i32) -> Option<i32> {
    const PF_EXITING: u64 = 4;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let state = *fields.first()?;
    let flags: u64 = fields.get(6)?.parse().ok()?;
    let code: i32 = fields.get(49)?.parse().ok()?;
    (state == "Z" || state == "X" || flags & PF_EXITING != 0).then_some(code & 0x7f)
}

/// The signal that killed the process, 0 for none, from a kernel that keeps it
/// (Linux 6.15).
fn exit_signal(pidfd: &OwnedFd) -> Option<i32> {
    const PIDFD_GET_INFO: libc::Ioctl = 0xc040_ff0b_u32 as libc::Ioctl;
    const PIDFD_INFO_EXIT: u64 = 8;
    /// `struct pidfd_info` of `linux/pidfd.h`, first version.
    #[repr(C)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    let mut info = Info {
        mask: PIDFD_INFO_EXIT,
        cgroup: 0,
        ids: [0; 11],
        exit_code: 0,
    };
    // SAFETY: the kernel fills at most the size that the number encodes (64).
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code & 0x7f)
}

/// Whether the descriptor is readable now.
#[must_use]
pub(super) fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut poll = libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid pollfd, no waiting.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}
