//! Sleeping and waking on words, most of them in memory shared with others.

use core::sync::atomic::AtomicU32;

use crate::sys::syscall;

/// Sleeps while `word` is `seen`, at most `nanoseconds` (below a second), or
/// until a wake-up or a signal. The caller looks for itself why it is over.
pub(crate) fn wait(word: &AtomicU32, seen: u32, nanoseconds: i64) {
    let limit = libc::timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    };
    // SAFETY: the word and the time outlive the call; the kernel reads both.
    unsafe {
        syscall!(
            libc::SYS_futex,
            core::ptr::from_ref(word),
            libc::FUTEX_WAIT,
            seen,
            &raw const limit
        );
    }
}

/// Wakes up to `count` sleepers of `word`.
pub(crate) fn wake(word: &AtomicU32, count: i32) {
    // SAFETY: the kernel takes the word's address only.
    unsafe {
        syscall!(
            libc::SYS_futex,
            core::ptr::from_ref(word),
            libc::FUTEX_WAKE,
            count
        );
    }
}
