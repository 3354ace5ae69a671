//! Where the bytes of a file are: in the arena, in an inode of their own, or on
//! their way between the two.
//!
//! The coordinator holds a file ([`hold`]), waits for the copies of then, and moves
//! or cuts it; a client looks under its hazard ([`elsewhere`]) and stays out of a
//! file that is held.

use core::sync::atomic::Ordering::{Acquire, SeqCst};

use super::Word;
use crate::layout::{FILE_KERNEL, FILE_MOVING};

/// 0 for the arena, else [`FILE_MOVING`] or [`FILE_KERNEL`]. To be asked under a
/// hazard.
#[inline(always)]
pub fn elsewhere<W: Word<u32>>(flags: &W) -> u32 {
    flags.load(Acquire) & (FILE_MOVING | FILE_KERNEL)
}

/// No copy starts from now on. Those under way are to be looked for after this.
pub fn hold<W: Word<u32>>(flags: &W) {
    flags.fetch_or(FILE_MOVING, SeqCst);
    W::barrier_after_change();
}

/// Copies may start again. `moved`: in the inode from now on.
pub fn let_go<W: Word<u32>>(flags: &W, moved: bool) {
    if moved {
        flags.fetch_or(FILE_KERNEL, SeqCst);
    }
    flags.fetch_and(!FILE_MOVING, SeqCst);
}
