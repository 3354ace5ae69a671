//! State of a thread, without std and without a call: a `.tbss` symbol reached
//! by initial-exec TLS (the thread pointer plus one word of the GOT).
//!
//! Initial-exec needs room in the static TLS block. A preloaded library always
//! has it, because the loader sizes the block after it has mapped us. The
//! state is all zero in a new thread; a child of `fork` starts with a copy of
//! the forking thread's, a child of `vfork` works on its parent's own.

use core::arch::{asm, global_asm};

/// What the shim remembers for one thread. Only the thread itself (its signal
/// handlers included) touches it.
#[repr(C, align(64))]
pub(crate) struct ThreadState {
    /// Index + 1 of this thread's record in shared memory; 0 = none. Core.
    pub(crate) slot: u32,
    /// Tag under which this thread takes shared lock words. Core.
    pub(crate) owner: u32,
    /// Depth of open critical sections, see [`crate::critical`].
    pub(crate) critical: u32,
    /// 1 when a signal was put off until the outermost section ends.
    pub(crate) pending: u32,
    /// Generation of the process that `slot` and `owner` belong to. Core.
    pub(crate) process: u32,
    /// [`FAULTS_CAUGHT`] when a fault of this thread is known to reach our
    /// handler; anything else: ask first. See [`crate::signals`].
    pub(crate) faults: u32,
    /// The thread's signal mask before a signal was put off.
    pub(crate) mask: u64,
    /// For the core to use as it likes.
    pub(crate) core: [u64; 4],
}

/// Value of [`ThreadState::faults`] when usercopy may touch the caller's memory directly.
pub(crate) const FAULTS_CAUGHT: u32 = 1;

global_asm!(
    ".pushsection .tbss.capio_thread_state,\"awT\",@nobits",
    ".p2align 6",
    ".globl capio_thread_state",
    ".hidden capio_thread_state",
    ".type capio_thread_state,@object",
    ".size capio_thread_state,{size}",
    "capio_thread_state:",
    ".zero {size}",
    ".popsection",
    size = const size_of::<ThreadState>(),
);

/// The calling thread's state: valid for the life of the thread, never null.
#[inline(always)]
pub(crate) fn current() -> *mut ThreadState {
    let state: *mut ThreadState;
    // SAFETY: reads the thread pointer (the word at fs:0, x86-64 TLS ABI) and
    // adds the GOT's constant offset of our symbol; touches nothing else.
    unsafe {
        asm!(
            "mov {0}, qword ptr fs:[0]",
            "add {0}, qword ptr [rip + capio_thread_state@GOTTPOFF]",
            out(reg) state,
            options(pure, nomem, nostack),
        );
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_starts_with_a_state_of_its_own() {
        // SAFETY: the state is this thread's; nobody else touches it.
        unsafe { (*current()).slot = 7 };
        let other = std::thread::spawn(|| {
            // SAFETY: as above, in the new thread.
            (current() as usize, unsafe { (*current()).slot })
        })
        .join()
        .unwrap();
        assert_ne!(other.0, current() as usize);
        assert_eq!(other.1, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { (*current()).slot }, 7);
    }
}
