//! Publishing bytes, and waiting for them.
//!
//! A writer copies, then raises `frontier`, then looks for waiters and for ranges
//! that the coordinator withholds. A waiter says that it waits, then looks at what is
//! published; the coordinator says what it withholds, then looks at the frontier.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::Word;
use crate::layout::{
    FILE_DEADLOCK, FILE_FAILED, FILE_FINAL, FILE_STREAM, FILE_WITHHELD, FileMeta, FileSync,
    WAIT_NEVER, WAIT_STREAM,
};

/// The words of a file that tell what of it may be read.
#[derive(Clone, Copy)]
pub struct Stream<'a, A, B> {
    /// [`FileMeta::flags`].
    pub flags: &'a A,
    /// [`FileMeta::withheld`].
    pub withheld: &'a B,
    /// [`FileSync::size`].
    pub size: &'a B,
    /// [`FileSync::frontier`].
    pub frontier: &'a B,
    /// [`FileSync::wake`].
    pub wake: &'a A,
    /// [`FileSync::waiters`].
    pub waiters: &'a A,
}

/// The words in a file's records.
impl<'a> Stream<'a, core::sync::atomic::AtomicU32, core::sync::atomic::AtomicU64> {
    /// Those of a file.
    #[inline(always)]
    #[must_use]
    pub fn of(meta: &'a FileMeta, sync: &'a FileSync) -> Self {
        Self {
            flags: &meta.flags,
            withheld: &meta.withheld,
            size: &sync.size,
            frontier: &sync.frontier,
            wake: &sync.wake,
            waiters: &sync.waiters,
        }
    }
}

/// What the coordinator must hear of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing.
    Nothing,
    /// A range beyond the frontier is there.
    Beyond,
    /// The frontier has reached a withheld range.
    Reached,
}

/// What a reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Bytes.
    More,
    /// The end of the file.
    End,
    /// The producer has failed.
    Failed,
    /// The wait was broken.
    Deadlock,
}

impl<A: Word<u32>, B: Word<u64>> Stream<'_, A, B> {
    /// Makes the bytes from `start` to `end` seen, which are written. `wake` wakes all
    /// who sleep on [`Stream::wake`].
    #[inline(always)]
    pub fn publish(&self, start: u64, end: u64, wake: impl FnOnce()) -> Told {
        if self.size.load(Relaxed) < end {
            self.size.fetch_max(end, Release);
        }
        if start > self.frontier.load(Acquire) {
            return if self.flags.load(Relaxed) & FILE_STREAM != 0 {
                Told::Beyond
            } else {
                Told::Nothing
            };
        }
        let frontier = self.frontier.fetch_max(end, SeqCst).max(end);
        B::barrier_after_change();
        self.wake_readers(wake);
        // Only now: a range that is noted after this was looked at is compared with
        // the new frontier by the coordinator.
        if self.flags.load(Relaxed) & FILE_WITHHELD != 0 && frontier >= self.withheld.load(Acquire)
        {
            return Told::Reached;
        }
        Told::Nothing
    }

    /// Wakes who waits, if anybody does, after a full barrier.
    #[inline(always)]
    pub fn wake_readers(&self, wake: impl FnOnce()) {
        if self.waiters.load(SeqCst) != 0 && self.waiters.swap(0, SeqCst) != 0 {
            self.wake.fetch_add(1, SeqCst);
            wake();
        }
    }

    /// Wakes all who wait, after a change of the flags or sizes.
    pub fn wake_all(&self, wake: impl FnOnce()) {
        self.waiters.store(0, SeqCst);
        self.wake.fetch_add(1, SeqCst);
        wake();
    }

    /// Says that the caller is about to wait: looks for what it waits for after this,
    /// and sleeps only while [`Stream::wake`] is the value returned.
    #[inline(always)]
    pub fn announce(&self) -> u32 {
        let seen = self.wake.load(SeqCst);
        self.waiters.store(1, SeqCst);
        A::barrier_after_change();
        seen
    }

    /// Where reads end for now, for one that waits for `wait` (`WAIT_*`).
    #[inline(always)]
    pub fn limit(&self, wait: u32) -> u64 {
        if wait == WAIT_NEVER || self.flags.load(Acquire) & FILE_FINAL != 0 {
            self.size.load(Acquire)
        } else if wait == WAIT_STREAM {
            self.frontier.load(Acquire)
        } else {
            0
        }
    }

    /// What a read at `offset` finds, if that is known.
    #[inline(always)]
    pub fn found(&self, wait: u32, offset: u64) -> Option<Found> {
        // Flags first: what was published before finality is seen after it.
        let flags = self.flags.load(Acquire);
        if self.limit(wait) > offset {
            return Some(Found::More);
        }
        if wait == WAIT_NEVER || flags & FILE_FINAL != 0 {
            return Some(Found::End);
        }
        if flags & FILE_FAILED != 0 {
            return Some(Found::Failed);
        }
        (flags & FILE_DEADLOCK != 0).then_some(Found::Deadlock)
    }

    /// The coordinator withholds ranges of which the lowest starts at `lowest`
    /// (`None`: none). Whether the frontier has reached it meanwhile: it must look
    /// once more.
    pub fn withhold(&self, lowest: Option<u64>) -> bool {
        self.withheld.store(lowest.unwrap_or(u64::MAX), SeqCst);
        if lowest.is_some() {
            self.flags.fetch_or(FILE_WITHHELD, SeqCst);
        } else {
            self.flags.fetch_and(!FILE_WITHHELD, SeqCst);
        }
        A::barrier_after_change();
        lowest.is_some_and(|lowest| self.frontier.load(SeqCst) >= lowest)
    }

    /// The coordinator shows a withheld range that the frontier reaches; whether
    /// there is more to see by it.
    pub fn show(&self, end: u64) -> bool {
        self.frontier.fetch_max(end, SeqCst) < end
    }
}
