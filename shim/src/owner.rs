//! Owner words: locks in shared memory that say who holds them, so that a
//! waiter can take one over from an owner that has died.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use wire::layout::Owner;
use wire::protocol::owner;

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
    owner::take(word, tag)
}

/// Gives a word back, unless it was taken over, and wakes a waiter.
#[inline(always)]
pub(crate) fn release(word: &AtomicU32, tag: u32) {
    if !owner::release(word, tag) {
        release_waited(word, tag);
    }
}

#[cold]
fn release_waited(word: &AtomicU32, tag: u32) {
    if owner::release_waited(word, tag) {
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
    let spins = if session.may_spin() { SPINS } else { 1 };
    let is_orphaned = |owner| is_orphaned(session, owner, tag);
    owner::contend(word, tag, waited, spins, is_orphaned, core::hint::spin_loop)
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
