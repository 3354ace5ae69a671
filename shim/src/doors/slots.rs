//! Fixed-size blocks in one reserved range of addresses, so that handles
//! which we gave out (`DIR *`, `FTS *`) are told apart from libc's by their
//! address alone.

use crate::sys::syscall;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes of one slot.
pub(crate) const SLOT: usize = 32 * 1024;
const WORDS: usize = 64;
const RANGE: usize = SLOT * WORDS * 64;

static BASE: AtomicUsize = AtomicUsize::new(0);
static USED: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// The start of the range, reserved at the first use; 0 without address space.
fn base() -> usize {
    let known = BASE.load(Ordering::Acquire);
    if known != 0 {
        return known;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping at an address the kernel chooses.
    let fresh = unsafe { syscall!(libc::SYS_mmap, 0, RANGE, libc::PROT_NONE, flags, -1isize, 0) };
    let Ok(fresh) = usize::try_from(fresh) else {
        return 0;
    };
    match BASE.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fresh,
        Err(other) => {
            // SAFETY: the mapping just made; another thread was faster.
            unsafe { syscall!(libc::SYS_munmap, fresh, RANGE) };
            other
        }
    }
}

/// Takes the lowest free slot, readable and writable. Its bytes are what the
/// last user left. None: all in use, or no memory.
pub(crate) fn take() -> Option<*mut u8> {
    let base = base();
    if base == 0 {
        return None;
    }
    for (w, word) in USED.iter().enumerate() {
        let mut seen = word.load(Ordering::Relaxed);
        while seen != u64::MAX {
            let bit = seen.trailing_ones();
            let want = seen | (1 << (bit & 63));
            match word.compare_exchange_weak(seen, want, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return open(base.wrapping_add((w * 64 + bit as usize) * SLOT)),
                Err(now) => seen = now,
            }
        }
    }
    None
}

fn open(at: usize) -> Option<*mut u8> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a slot inside our own range.
    let done = unsafe { syscall!(libc::SYS_mprotect, at, SLOT, rights) };
    if done < 0 {
        give(at as *mut u8);
        return None;
    }
    Some(at as *mut u8)
}

/// Gives a slot back.
pub(crate) fn give(slot: *mut u8) {
    let index = (slot as usize).wrapping_sub(BASE.load(Ordering::Relaxed)) / SLOT;
    if let Some(word) = USED.get(index / 64) {
        word.fetch_and(!(1 << (index % 64)), Ordering::Release);
    }
}

/// Whether `p` is the start of a slot in use.
pub(crate) fn owns(p: *const u8) -> bool {
    let base = BASE.load(Ordering::Relaxed);
    let offset = (p as usize).wrapping_sub(base);
    if base == 0 || offset >= RANGE || !offset.is_multiple_of(SLOT) {
        return false;
    }
    let index = offset / SLOT;
    USED.get(index / 64)
        .is_some_and(|w| w.load(Ordering::Relaxed) & (1 << (index % 64)) != 0)
}
