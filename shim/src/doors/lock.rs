//! A small lock for state that threads share, without libc.

use crate::sys::syscall;
use core::sync::atomic::{AtomicU32, Ordering};

const WAIT_PRIVATE: i32 = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
const WAKE_PRIVATE: i32 = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may sleep on it.
const AWAITED: u32 = 2;

/// A lock that sleeps in the kernel when it is held. Zeroed memory is a free one.
#[repr(transparent)]
pub(crate) struct Lock(AtomicU32);

/// Holds the lock until dropped.
pub(crate) struct Guard<'a>(&'a Lock);

impl Lock {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(FREE))
    }

    pub(crate) fn hold(&self) -> Guard<'_> {
        let word = &self.0;
        if word
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            while word.swap(AWAITED, Ordering::Acquire) != FREE {
                // SAFETY: the word outlives the wait; no timeout is given.
                unsafe { syscall!(libc::SYS_futex, word.as_ptr(), WAIT_PRIVATE, AWAITED) };
            }
        }
        Guard(self)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let word = &self.0.0;
        if word.swap(FREE, Ordering::Release) == AWAITED {
            // SAFETY: waking touches no memory of ours.
            unsafe { syscall!(libc::SYS_futex, word.as_ptr(), WAKE_PRIVATE, 1) };
        }
    }
}
