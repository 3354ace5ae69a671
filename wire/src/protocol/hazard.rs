//! Hazard slots: which file a thread is copying from or to.
//!
//! ```text
//! bits 32-63  counts the operations of the thread
//! bits 0-31   file record + 1; 0: none
//! ```
//!
//! A thread says which file ([`enter`]), then looks where its pages are. Who takes
//! pages away changes what tells where they are, then looks for slots ([`is_of`]),
//! and waits until each of those has another value.

use core::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

use super::Word;

/// What the slot holds in the current operation, on `file`.
#[inline(always)]
fn of<W: Word<u64>>(slot: &W, file: u32) -> u64 {
    let count = slot.load(Relaxed) >> 32;
    (count << 32) | (u64::from(file).wrapping_add(1) & 0xffff_ffff)
}

/// Says that the thread copies from or to `file`. A full barrier must follow before
/// it looks at the file: taking an owner word is one.
#[inline(always)]
pub fn enter<W: Word<u64>>(slot: &W, file: u32) {
    slot.store(of(slot, file), Release);
}

/// [`enter`], and the barrier.
#[inline(always)]
pub fn enter_alone<W: Word<u64>>(slot: &W, file: u32) {
    // A locked exchange is the cheapest full barrier.
    slot.swap(of(slot, file), SeqCst);
    W::barrier_after_change();
}

/// Says that the operation is over.
#[inline(always)]
pub fn leave<W: Word<u64>>(slot: &W) {
    let count = (slot.load(Relaxed) >> 32).wrapping_add(1);
    slot.store(count << 32, Release);
}

/// What a slot holds now, if that is `file`. A full barrier must stand between what
/// makes new copies look elsewhere and this.
#[inline(always)]
pub fn is_of<W: Word<u64>>(slot: &W, file: u32) -> Option<u64> {
    let now = slot.load(SeqCst);
    (now as u32 == file.wrapping_add(1)).then_some(now)
}

/// The file that a slot holds now, if any. As [`is_of`].
#[inline(always)]
pub fn file<W: Word<u64>>(slot: &W) -> Option<u32> {
    (slot.load(SeqCst) as u32).checked_sub(1)
}

/// Whether the operation that [`is_of`] has seen is under way still. After `false`
/// all that it did is seen.
#[inline(always)]
pub fn is_under_way<W: Word<u64>>(slot: &W, seen: u64) -> bool {
    slot.load(SeqCst) == seen
}

/// 0 if the description that a call is on, of `generation`, is the one that it was;
/// to be asked under a hazard of its file. After 0 neither its records nor its file's
/// are given to others before the hazard is gone.
#[inline(always)]
pub fn change<W: Word<u32>>(word: &W, generation: u32) -> u32 {
    word.load(Relaxed) ^ generation
}

/// The description is no more. Its records and those of its file may be used again
/// once the copies that are looked for after this have ended.
pub fn ends<W: Word<u32>>(word: &W) {
    word.fetch_add(1, SeqCst);
    W::barrier_after_change();
}
