//! Critical sections: no handler of the program runs between
//! [`Critical::enter`] and the drop of the outermost guard.
//!
//! While a section is open the trampoline of [`crate::signals`] does not call
//! the program's handler. It queues the signal to this thread again with its
//! `siginfo`, blocked, and notes that in `pending`; leaving the outermost
//! section puts the old mask back, and the kernel delivers it then. So the
//! handler gets its real `ucontext`, mask and stack, further signals are
//! merged or queued by the kernel's own rules, and a section in which no
//! signal came makes no system call. (Calling the handler ourselves would mean
//! imitating all of that.) Two signals of one number that arrive in a section
//! merge as two signals do that arrive while blocked.
//!
//! Do not sleep inside a section: what must wait for others leaves it first,
//! so that the signal interrupts the wait as it would in the kernel. (The rest
//! of a long read or write is the exception, as the kernel's wait for a disk
//! is: `calls::rest`.)
//!
//! Cancellation: the shim calls no cancellation point inside, so the deferred
//! kind (the default) cannot act there. A thread that asked for asynchronous
//! cancellation dies by libc's own SIGCANCEL handler wherever it is, as it
//! does inside libc: POSIX allows it no call of ours. The thread is gone then
//! in mid-section, and its owner-tagged words are taken over like a dead
//! process's.

use core::ptr;
use core::sync::atomic::{Ordering, compiler_fence};

use crate::signals;
use crate::tls::{self, ThreadState};

/// An open critical section of this thread; ends when dropped. Sections nest.
pub(crate) struct Critical {
    state: *mut ThreadState,
}

impl Critical {
    /// Opens a section. Costs about a nanosecond and no system call.
    #[inline(always)]
    pub(crate) fn enter() -> Self {
        let state = tls::current();
        // SAFETY: the thread's own state. Volatile, as this thread's signal
        // handlers look at it.
        unsafe {
            let depth = ptr::read_volatile(&raw const (*state).critical);
            ptr::write_volatile(&raw mut (*state).critical, depth.wrapping_add(1));
        }
        compiler_fence(Ordering::SeqCst);
        Self { state }
    }
}

impl Drop for Critical {
    #[inline(always)]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the guard holds a raw pointer, so it is not `Send`: this is
        // the thread that entered. A signal after the store runs its handler
        // at once; one before it is in `pending`.
        unsafe {
            let depth = ptr::read_volatile(&raw const (*self.state).critical).wrapping_sub(1);
            ptr::write_volatile(&raw mut (*self.state).critical, depth);
            if depth == 0 && ptr::read_volatile(&raw const (*self.state).pending) != 0 {
                signals::run_deferred(self.state);
            }
        }
    }
}
