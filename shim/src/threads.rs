//! This thread's record in shared memory, and the holds that it notes there.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use wire::layout::{Owner, ThreadRecord};
use wire::limits::MAX_THREADS;
use wire::protocol::hazard;

use crate::critical::Critical;
use crate::session::{Session, live};
use crate::sys::syscall;
use crate::{attach, fork, futex, owner, session, tls};

/// Index of the record that is shared by the threads beyond the others.
const SHARED: u32 = MAX_THREADS - 1;

/// The calling thread.
#[derive(Clone, Copy)]
pub(crate) struct Me {
    /// Its record.
    pub(crate) record: &'static ThreadRecord,
    /// Index of the record in the process's.
    pub(crate) index: u32,
    /// Its tag in owner words.
    tag: u32,
}

/// The calling thread's record; attaches the process first where it must.
///
/// # Errors
/// `EIO` when there is no coordinator.
#[inline(always)]
pub(crate) fn me() -> Result<Me, i32> {
    let epoch = session::epoch();
    let state = tls::current();
    // SAFETY: the state is this thread's own; the pointer in it was stored by
    // `remember` in this process (the epochs agree) and stays valid.
    unsafe {
        if epoch != 0 && (*state).process == epoch {
            return Ok(Me {
                record: &*core::ptr::with_exposed_provenance::<ThreadRecord>(
                    (*state).core[0] as usize,
                ),
                index: (*state).slot.wrapping_sub(1),
                tag: (*state).owner,
            });
        }
    }
    match join_in_registers() {
        (Some(record), packed) => Ok(Me {
            record,
            index: (packed >> 32) as u32,
            tag: packed as u32,
        }),
        (None, error) => Err(error as i32),
    }
}

/// [`join`] with a result that needs no memory, which the short way would have to
/// use as well: the record, index and tag; or an error number.
#[cold]
fn join_in_registers() -> (Option<&'static ThreadRecord>, u64) {
    match join() {
        Ok(me) => {
            let packed = (u64::from(me.index) << 32) | u64::from(me.tag);
            (Some(me.record), packed)
        }
        Err(error) => (None, error as u64),
    }
}

/// [`me`] the first time.
fn join() -> Result<Me, i32> {
    attach::ensure()?;
    let live = live().ok_or(libc::EIO)?;
    let session = Session::get().ok_or(libc::EIO)?;
    let epoch = live.epoch.load(Acquire);
    let process = live.process.load(Acquire);
    let threads = &session.record(process).ok_or(libc::EIO)?.threads;
    let index = if fork::in_vfork_child() {
        // The record that the parent's thread would find would be the child's.
        SHARED
    } else {
        claim(threads)
    };
    let record = threads.get(index as usize).ok_or(libc::EIO)?;
    let generation = live.generation.load(Acquire);
    let me = Me {
        record,
        index,
        tag: Owner::new(process, generation, index).0,
    };
    if !fork::in_vfork_child() {
        remember(me, epoch);
    }
    Ok(me)
}

/// Notes `me` for the thread's next calls.
fn remember(me: Me, epoch: u32) {
    let state = tls::current();
    // SAFETY: the state is this thread's own.
    unsafe {
        (*state).slot = me.index.wrapping_add(1);
        (*state).owner = me.tag;
        (*state).core[0] = core::ptr::from_ref(me.record).expose_provenance() as u64;
        (*state).process = epoch;
    }
}

/// Index of a record for this thread: its own of before, a free one, one of a
/// thread that has ended, or the shared one.
fn claim(threads: &[ThreadRecord]) -> u32 {
    // SAFETY: takes nothing.
    let tid = unsafe { syscall!(libc::SYS_gettid) } as u32;
    let own = (0..SHARED).zip(threads);
    let of_before = own.clone().find(|(_, one)| one.tid.load(Relaxed) == tid);
    let swap =
        |one: &ThreadRecord, old| one.tid.compare_exchange(old, tid, SeqCst, Relaxed).is_ok();
    let left_behind = |one: &ThreadRecord| {
        let old = one.tid.load(Relaxed);
        !owner::thread_exists(old) && swap(one, old)
    };
    let found = of_before
        .or_else(|| own.clone().find(|(_, one)| swap(one, 0)))
        .or_else(|| own.clone().find(|(_, one)| left_behind(one)));
    match found {
        Some((index, record)) => {
            record.waits_for.store(0, Relaxed);
            record.write_end.store(0, Relaxed);
            index
        }
        None => {
            if let Some(shared) = threads.get(SHARED as usize) {
                shared.tid.store(tid, Relaxed);
            }
            SHARED
        }
    }
}

/// Holds the pages of one file against reuse, and an owner word if there is
/// one. No handler of the program runs meanwhile. Do not sleep in it, but in
/// [`Hold::without_pages`].
pub(crate) struct Hold {
    me: Me,
    word: Option<&'static AtomicU32>,
    _critical: Critical,
}

impl Hold {
    /// Holds the pages of file `file` and `word`; sleeps until it is free.
    ///
    /// # Errors
    /// `EIO` when there is no coordinator.
    #[inline(always)]
    pub(crate) fn of_word(
        session: Session,
        file: u32,
        word: &'static AtomicU32,
    ) -> Result<Self, i32> {
        let me = me()?;
        let critical = Critical::enter();
        enter_record(me, file);
        let critical = if owner::take(word, me.tag) {
            critical
        } else {
            Self::contended(session, me, file, word, critical)?
        };
        Ok(Self {
            me,
            word: Some(word),
            _critical: critical,
        })
    }

    /// Takes a word that somebody has: the section in which it is had.
    #[cold]
    fn contended(
        session: Session,
        me: Me,
        file: u32,
        word: &'static AtomicU32,
        critical: Critical,
    ) -> Result<Critical, i32> {
        let (mut critical, mut waited) = (critical, false);
        loop {
            let Err(seen) = owner::contend(session, word, me.tag, waited) else {
                return Ok(critical);
            };
            leave_record(me);
            drop(critical);
            owner::nap(word, seen);
            if session.is_dead() {
                return Err(libc::EIO);
            }
            waited = true;
            critical = Critical::enter();
            enter_record(me, file);
        }
    }

    /// Holds the pages of file `file` only.
    ///
    /// # Errors
    /// `EIO` when there is no coordinator.
    #[inline(always)]
    pub(crate) fn of_pages(file: u32) -> Result<Self, i32> {
        let me = me()?;
        let critical = Critical::enter();
        lock_record(me);
        hazard::enter_alone(&me.record.hazard, file);
        Ok(Self {
            me,
            word: None,
            _critical: critical,
        })
    }

    /// Does something that waits for others while the word is held, but the
    /// pages of file `file` are not. A signal's handler runs after it.
    #[cold]
    pub(crate) fn without_pages<T>(&self, file: u32, wait: impl FnOnce() -> T) -> T {
        hazard::leave(&self.me.record.hazard);
        let done = wait();
        hazard::enter_alone(&self.me.record.hazard, file);
        done
    }

    /// The range that is about to be written.
    #[inline(always)]
    pub(crate) fn writes(&self, start: u64, end: u64) {
        self.me.record.write_start.store(start, Relaxed);
        self.me.record.write_end.store(end, Release);
    }

    /// The range is written, and published.
    #[inline(always)]
    pub(crate) fn has_written(&self) {
        self.me.record.write_end.store(0, Release);
    }
}

impl Drop for Hold {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(word) = self.word {
            owner::release(word, self.me.tag);
        }
        leave_record(self.me);
    }
}

/// Names file `file` in the hazard slot; a full barrier must follow.
#[inline(always)]
fn enter_record(me: Me, file: u32) {
    lock_record(me);
    hazard::enter(&me.record.hazard, file);
}

#[inline(always)]
fn lock_record(me: Me) {
    if me.index == SHARED {
        lock_shared();
    }
}

/// Clears the hazard slot.
#[inline(always)]
fn leave_record(me: Me) {
    hazard::leave(&me.record.hazard);
    if me.index == SHARED {
        unlock_shared();
    }
}

/// The shared record is one thread's for the time of a hold.
#[cold]
fn lock_shared() {
    let Some(live) = live() else { return };
    // SAFETY: takes nothing.
    let tid = unsafe { syscall!(libc::SYS_gettid) } as u32;
    loop {
        let seen = live.record.load(Relaxed);
        let free = seen == 0 || !owner::thread_exists(seen);
        if free
            && live
                .record
                .compare_exchange(seen, tid, SeqCst, Relaxed)
                .is_ok()
        {
            return;
        }
        futex::wait(&live.record, seen, 100_000);
    }
}

#[cold]
fn unlock_shared() {
    if let Some(live) = live() {
        live.record.store(0, Release);
        futex::wake(&live.record, 1);
    }
}
