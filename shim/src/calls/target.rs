//! The open file description behind a descriptor, and waiting for its file.

use core::ffi::c_int;
use core::hint::spin_loop;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use wire::layout::WAIT_NEVER;
use wire::message::OfdId;
use wire::protocol::stream::Found;

use crate::descriptors::{self, Kind};
use crate::session::{File, Ofd, Session};
use crate::{attach, clock, control, futex, threads};

/// Longest spin before a waiter sleeps, ns.
const SPIN: u64 = 10_000;

/// A taken-over file as a descriptor shows it. Handed on by value everywhere: what
/// a reference leads to lies in memory, and a short call is mostly that.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// The session's memory.
    pub(crate) session: Session,
    /// The open file description.
    pub(crate) ofd: Ofd,
    /// Its file.
    pub(crate) file: File,
    /// The descriptor.
    pub(crate) fd: c_int,
}

/// What `fd` stands for; `None`: nothing that lies in the cache.
#[inline(always)]
pub(crate) fn target(fd: c_int) -> Option<Target> {
    let Kind::Ofd { id, generation } = descriptors::get(fd) else {
        return None;
    };
    let session = Session::get()?;
    let ofd = match descriptors::ofd_of(session, id, generation) {
        Some(ofd) => ofd,
        None => {
            let OfdId { id, generation } = asked_again(fd)?;
            descriptors::ofd_of(session, id, generation)?
        }
    };
    with_file(session, ofd, fd)
}

#[inline(always)]
fn with_file(session: Session, ofd: Ofd, fd: c_int) -> Option<Target> {
    if ofd.is_native() {
        return None;
    }
    let file = ofd.file(session)?;
    Some(Target {
        session,
        ofd,
        file,
        fd,
    })
}

/// [`target`] of `fd`, which is a descriptor of `ofd`.
pub(super) fn of_description(fd: c_int, ofd: Ofd) -> Option<Target> {
    with_file(Session::get()?, ofd, fd)
}

/// What a descriptor stands for that was closed without our knowledge.
#[cold]
fn asked_again(fd: c_int) -> Option<OfdId> {
    let kind = descriptors::ask(fd);
    descriptors::set(fd, kind);
    match kind {
        Kind::Ofd { id, generation } => Some(OfdId { id, generation }),
        _ => None,
    }
}

/// What a read that has come to the limit is told.
pub(crate) enum AtLimit {
    /// The end of the file.
    End,
    /// There is more by now.
    More,
}

impl Target {
    /// Whether the coordinator lives.
    ///
    /// # Errors
    /// `EIO`.
    #[inline(always)]
    pub(crate) fn alive(self) -> Result<(), i32> {
        if self.session.is_dead() {
            return Err(libc::EIO);
        }
        Ok(())
    }

    /// Whether it may be read.
    ///
    /// # Errors
    /// `EIO`, `EBADF`.
    #[inline(always)]
    pub(crate) fn readable(self) -> Result<(), i32> {
        self.alive()?;
        self.ofd.is_readable().then_some(()).ok_or(libc::EBADF)
    }

    /// Whether it may be written.
    ///
    /// # Errors
    /// `EIO`, `EBADF`.
    #[inline(always)]
    pub(crate) fn writable(self) -> Result<(), i32> {
        self.alive()?;
        self.ofd.is_writable().then_some(()).ok_or(libc::EBADF)
    }

    /// Where reads end for now.
    #[inline(always)]
    pub(crate) fn limit(self) -> u64 {
        self.file.limit(self.ofd.wait())
    }

    /// A read at `offset` has found nothing: waits, unless that is the end.
    ///
    /// # Errors
    /// `EIO` when the file's producer failed or the coordinator died,
    /// `EDEADLK` when nobody would ever write.
    #[cold]
    pub(crate) fn at_limit(self, offset: u64) -> Result<AtLimit, i32> {
        let decided = self.decided(offset)?;
        if let Some(verdict) = decided {
            return Ok(verdict);
        }
        let start = clock::monotonic();
        let verdict = self.spin(offset, start).transpose();
        let verdict = verdict.unwrap_or_else(|| self.sleep(offset, start));
        let waited = clock::monotonic().wrapping_sub(start);
        self.ofd.sync.waited.fetch_add(waited, Relaxed);
        self.ofd.sync.waits.fetch_add(1, Relaxed);
        verdict
    }

    /// Waits until the file is final if a consumer has it open.
    ///
    /// # Errors
    /// As [`Target::at_limit`].
    pub(crate) fn wait_final(self) -> Result<(), i32> {
        while self.ofd.wait() != WAIT_NEVER && !self.file.is_final() {
            // No offset is reached by bytes alone.
            self.at_limit(u64::MAX)?;
        }
        self.alive()
    }

    /// Whether it is known what a read at `offset` finds.
    fn decided(self, offset: u64) -> Result<Option<AtLimit>, i32> {
        self.alive()?;
        match self.file.stream().found(self.ofd.wait(), offset) {
            Some(Found::More) => Ok(Some(AtLimit::More)),
            Some(Found::End) => Ok(Some(AtLimit::End)),
            Some(Found::Failed) => Err(libc::EIO),
            Some(Found::Deadlock) => Err(libc::EDEADLK),
            None => Ok(None),
        }
    }

    /// Looks for a while: a busy producer is faster than a sleep.
    fn spin(self, offset: u64, start: u64) -> Result<Option<AtLimit>, i32> {
        if !self.session.may_spin() {
            return Ok(None);
        }
        loop {
            for _ in 0..64 {
                spin_loop();
                if self.limit() > offset {
                    return Ok(Some(AtLimit::More));
                }
            }
            let decided = self.decided(offset)?;
            if decided.is_some() || clock::monotonic().wrapping_sub(start) > SPIN {
                return Ok(decided);
            }
        }
    }

    /// Sleeps until it is decided.
    fn sleep(self, offset: u64, start: u64) -> Result<AtLimit, i32> {
        let me = threads::me()?;
        let (record, stream) = (me.record, self.file.stream());
        record.waits_at.store(offset, Relaxed);
        record.waits_since.store(start, Relaxed);
        record
            .waits_for
            .store(self.file.index.wrapping_add(1), SeqCst);
        let verdict = loop {
            let seen = stream.announce();
            match self.decided(offset) {
                Ok(None) => {}
                Ok(Some(verdict)) => break Ok(verdict),
                Err(error) => break Err(error),
            }
            futex::wait(stream.wake, seen, control::PATIENCE);
            // What there is to read comes first: every line touched is cold.
            if self.limit() > offset {
                break Ok(AtLimit::More);
            }
            if let Err(error) = attach::look() {
                break Err(error);
            }
        };
        record.waits_for.store(0, SeqCst);
        verdict
    }

    /// Wakes those who sleep on the file's word.
    #[cold]
    pub(crate) fn wake(self) {
        futex::wake(&self.file.sync.wake, i32::MAX);
    }
}

/// Turns a result of ours into a kernel's answer.
#[inline(always)]
pub(crate) fn answer(result: Result<isize, i32>) -> isize {
    match result {
        Ok(value) => value,
        Err(error) => (error as isize).wrapping_neg(),
    }
}

/// [`answer`] for calls that give 0.
#[inline(always)]
pub(crate) fn done(result: Result<(), i32>) -> isize {
    answer(result.map(|()| 0))
}
