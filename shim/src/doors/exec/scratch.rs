//! Words of memory for the length of a call, without an allocator: the stack
//! for what is usual, a mapping for more. A child of `vfork` that executes a
//! program leaves such a mapping to its parent; it takes more than 4000
//! environment variables or arguments to need one.

use crate::sys::syscall;
use core::mem::MaybeUninit;

macro_rules! tier {
    ($name:ident, $words:literal) => {
        // Its own frame, so that the smaller cases do not pay for it.
        #[inline(never)]
        fn $name<R>(with: &mut dyn FnMut(*mut usize) -> R) -> R {
            let mut room = MaybeUninit::<[usize; $words]>::uninit();
            with(room.as_mut_ptr().cast())
        }
    };
}
tier!(small, 256);
tier!(middle, 1024);
tier!(large, 4096);

/// Calls `with` with room for `words` words, uninitialised. None: no memory.
pub(super) fn words<R>(words: usize, mut with: impl FnMut(*mut usize) -> R) -> Option<R> {
    match words {
        0..=256 => Some(small(&mut with)),
        257..=1024 => Some(middle(&mut with)),
        1025..=4096 => Some(large(&mut with)),
        _ => mapped(words, &mut with),
    }
}

fn mapped<R>(words: usize, with: &mut dyn FnMut(*mut usize) -> R) -> Option<R> {
    let bytes = words.checked_mul(size_of::<usize>())?;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping, unmapped below.
    let at = unsafe { syscall!(libc::SYS_mmap, 0, bytes, rights, kind, -1isize, 0) };
    if at < 0 {
        return None;
    }
    let answer = with(at as *mut usize);
    // SAFETY: the mapping made above; nothing of it is handed out.
    unsafe { syscall!(libc::SYS_munmap, at, bytes) };
    Some(answer)
}
