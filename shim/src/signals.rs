//! Signals (being written).
use crate::sys::syscall;
use crate::tls::{self, ThreadState};
use core::sync::atomic::{AtomicBool, Ordering};

static CAUGHT: AtomicBool = AtomicBool::new(false);

/// Asks the kernel whether this thread blocks SIGSEGV or SIGBUS.
#[cold]
pub(crate) fn faults_caught_slow() -> bool {
    if !CAUGHT.load(Ordering::Acquire) {
        return false;
    }
    let mut mask = 0u64;
    // SAFETY: the kernel writes eight bytes to `mask`; the state is this thread's.
    unsafe {
        syscall!(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            0,
            &raw mut mask,
            8
        );
        let open = mask & (1 << (libc::SIGSEGV - 1) | 1 << (libc::SIGBUS - 1)) == 0;
        if open {
            (*tls::current()).faults = tls::FAULTS_CAUGHT;
        }
        open
    }
}

/// Lets the signals that were put off in the section that just ended come now.
#[cold]
pub(crate) fn run_deferred(state: *mut ThreadState) {
    // SAFETY: the thread's own state; the kernel reads eight bytes.
    unsafe {
        (*state).pending = 0;
        let mask = (*state).mask;
        syscall!(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            0,
            8
        );
    }
}
