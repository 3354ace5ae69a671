//! Entries of a block map: which page has a piece of a file, and whether the store
//! has it, too. Only the coordinator changes them.
//!
//! A client looks under a hazard: at [`readable`] to copy from the page, at
//! [`writable`] before it copies to it. A mark that comes after it has looked is no
//! matter: who has set it waits for the hazard.

use core::sync::atomic::Ordering::{Acquire, SeqCst};

use super::Word;
use crate::layout::{ENTRY_STORED, page_of};

/// Page (index + 1) that may be copied from; 0: none.
#[inline(always)]
pub fn readable<W: Word<u32>>(entry: &W) -> u32 {
    page_of(entry.load(Acquire))
}

/// Page (index + 1) that may be copied to. No page of the arena has such a number
/// when it must be asked for.
#[inline(always)]
pub fn writable<W: Word<u32>>(entry: &W) -> u32 {
    entry.load(Acquire)
}

/// Marks a piece: from now on nobody begins to write to it without asking. `false`:
/// it was marked. The store may be given it once the copies of now have ended.
pub fn mark<W: Word<u32>>(entry: &W) -> bool {
    let old = entry.fetch_or(ENTRY_STORED, SeqCst);
    W::barrier_after_change();
    old & ENTRY_STORED == 0
}

/// The page has the piece alone again.
pub fn unmark<W: Word<u32>>(entry: &W) {
    entry.fetch_and(!ENTRY_STORED, SeqCst);
}

/// Puts another entry, without a page, in its place; what was there. Its page is
/// free once the copies of now have ended.
pub fn take_away<W: Word<u32>>(entry: &W, left: u32) -> u32 {
    let old = entry.swap(left, SeqCst);
    W::barrier_after_change();
    old
}

/// Puts a page under the piece whose content is there already.
pub fn put_under<W: Word<u32>>(entry: &W, value: u32) {
    entry.store(value, SeqCst);
}
