//! Owner words: locks in shared memory that say who holds them ([`Owner`]), so
//! that a waiter can take one over from an owner that has died.

use core::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

use super::Word;
use crate::layout::Owner;

/// Takes a free word. A full barrier when it is had.
#[inline(always)]
pub fn take<W: Word<u32>>(word: &W, tag: u32) -> bool {
    let taken = word.compare_exchange(0, tag, SeqCst, Relaxed).is_ok();
    W::barrier_after_change();
    taken
}

/// Gives a word back, unless it was taken over; whether that is all. If not,
/// [`release_waited`] follows.
#[inline(always)]
pub fn release<W: Word<u32>>(word: &W, tag: u32) -> bool {
    word.compare_exchange(tag, 0, Release, Relaxed).is_ok()
}

/// Gives a word back that others wait for; whether one is to be woken.
pub fn release_waited<W: Word<u32>>(word: &W, tag: u32) -> bool {
    let waited = tag | Owner::WAITED;
    word.compare_exchange(waited, 0, Release, Relaxed).is_ok()
}

/// Takes a word that was held a moment ago: looks `spins` times with a `pause` in
/// between, and then takes it over when its owner `is_orphaned`. `waited`: the caller
/// has slept, and others may sleep still. A full barrier when it is had.
///
/// # Errors
/// The word's value, with [`Owner::WAITED`], to sleep on.
pub fn contend<W: Word<u32>>(
    word: &W,
    tag: u32,
    waited: bool,
    spins: u32,
    is_orphaned: impl Fn(Owner) -> bool,
    pause: impl Fn(),
) -> Result<(), u32> {
    let wanted = if waited { tag | Owner::WAITED } else { tag };
    let mut spins = spins;
    loop {
        let seen = word.load(Relaxed);
        if seen == 0 || (spins == 0 && is_orphaned(Owner(seen))) {
            let wanted = wanted | (seen & Owner::WAITED);
            if word.compare_exchange(seen, wanted, SeqCst, Relaxed).is_ok() {
                W::barrier_after_change();
                return Ok(());
            }
            continue;
        }
        if let Some(fewer) = spins.checked_sub(1) {
            spins = fewer;
            pause();
            continue;
        }
        let marked = seen | Owner::WAITED;
        if seen == marked || word.compare_exchange(seen, marked, SeqCst, Relaxed).is_ok() {
            return Err(marked);
        }
    }
}
