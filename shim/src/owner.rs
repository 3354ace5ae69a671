//! Owner words: locks in shared memory that say who holds them, so that a
//! waiter can take one over from an owner that has died.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

use wire::layout::Owner;

use crate::futex;
use crate::session::{Session, live};
use crate::sys::syscall;

/// Looks at a word that is held, before the waiter sleeps.
const SPINS: u32 = 100;
/// Longest sleep before the owner's life is looked at again, ns.
const NAP: i64 = 10_000_000;

/// Takes a free word. A full barrier.
#[inline(always)]
pub(crate) fn take(word: &AtomicU32, tag: u32) -> bool {
    word.compare_exchange(0, tag, SeqCst, Relaxed).is_ok()
}

/// Gives a word back, unless it was taken over, and wakes a waiter.
#[inline(always)]
pub(crate) fn release(word: &AtomicU32, tag: u32) {
    if word.compare_exchange(tag, 0, Release, Relaxed).is_err() {
        release_waited(word, tag);
    }
}

#[cold]
fn release_waited(word: &AtomicU32, tag: u32) {
    let waited = tag | Owner::WAITED;
    if word.compare_exchange(waited, 0, Release, Relaxed).is_ok() {
        futex::wake(word, 1);
    }
}

/// Takes a word that was held a moment ago: spins, and takes it over from a
/// dead owner. `waited`: the caller has slept, and others may sleep still.
/// `Err`: the word's value, with [`Owner::WAITED`], to sleep on.
#[cold]
pub(crate) fn contend(
    session: Session,
    word: &AtomicU32,
    tag: u32,
    waited: bool,
) -> Result<(), u32> {
    let wanted = if waited { tag | Owner::WAITED } else { tag };
    let mut spins = if session.may_spin() { SPINS } else { 1 };
    loop {
        let seen = word.load(Relaxed);
        let free = seen == 0 || (spins == 0 && is_orphaned(session, Owner(seen), tag));
        if free {
            let wanted = wanted | (seen & Owner::WAITED);
            if word.compare_exchange(seen, wanted, SeqCst, Relaxed).is_ok() {
                return Ok(());
            }
            continue;
        }
        if let Some(fewer) = spins.checked_sub(1) {
            spins = fewer;
            core::hint::spin_loop();
            continue;
        }
        let marked = seen | Owner::WAITED;
        if seen == marked || word.compare_exchange(seen, marked, SeqCst, Relaxed).is_ok() {
            return Err(marked);
        }
    }
}

/// Sleeps until a word that [`contend`] has not got may be free.
pub(crate) fn nap(word: &AtomicU32, seen: u32) {
    futex::wait(word, seen, NAP);
}

/// Whether the holder of a word is dead: its process, its thread, or a child
/// of vfork that worked under the caller's own tag.
fn is_orphaned(session: Session, owner: Owner, tag: u32) -> bool {
    if owner.0 & !Owner::WAITED == tag {
        return true;
    }
    let Some(process) = session.process(owner.process()) else {
        return true;
    };
    let generation = process.generation.load(SeqCst);
    if generation & 1 == 0 || !owner.is_of(generation) {
        return true;
    }
    let ours = live().is_some_and(|live| live.process.load(Relaxed) == owner.process());
    ours && is_ended(session, owner)
}

/// Whether the thread of this process that holds a word has ended.
fn is_ended(session: Session, owner: Owner) -> bool {
    let index = (owner.0 & 0x3f).wrapping_sub(1) as usize;
    let record = session
        .record(owner.process())
        .and_then(|process| process.threads.get(index));
    record.is_none_or(|record| !thread_exists(record.tid.load(Relaxed)))
}

/// Whether a thread `tid` exists.
pub(crate) fn thread_exists(tid: u32) -> bool {
    // SAFETY: signal 0 only asks.
    let answer = unsafe { syscall!(libc::SYS_tkill, tid, 0) };
    answer != -(libc::ESRCH as isize)
}
