//! Programs that nothing can be preloaded into: what they inherit of the
//! session is handed over to the kernel.

use super::read_head;
use crate::calls;
use crate::descriptors;
use crate::sys::syscall;
use core::ffi::{c_char, c_int};

/// What is read of a program: its header and, as linkers place them, the
/// headers of its segments.
const HEAD: usize = 4096;
const PT_INTERP: u32 = 3;

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Whether an ELF file (64 bit, as this library) that starts with `head` has no
/// interpreter, which is the dynamic loader.
fn is_static(head: &[u8]) -> bool {
    let segments = || {
        let start = usize::try_from(u64::from_le_bytes(word(head, 32)?)).ok()?;
        let size = usize::from(u16::from_le_bytes(word(head, 54)?));
        let count = usize::from(u16::from_le_bytes(word(head, 56)?));
        let mut kinds = (0..count).map(|i| {
            let at = start.checked_add(i.checked_mul(size)?)?;
            Some(u32::from_le_bytes(word(head, at)?))
        });
        kinds.try_fold(true, |none, kind| Some(none && kind? != PT_INTERP))
    };
    head.starts_with(b"\x7fELF\x02") && segments().unwrap_or(false)
}

/// # Safety
/// `path` must be a C string.
unsafe fn is_static_program(path: *const c_char) -> bool {
    let mut head = [0u8; HEAD];
    // SAFETY: the caller's promise.
    let got = unsafe { read_head(path, &mut head) };
    head.get(..got).is_some_and(is_static)
}

/// Before the kernel's program at `path` takes this one's place, or (`copies`)
/// starts with what it may get of its descriptors. 0 or `-errno`.
///
/// # Safety
/// `path` must be a C string.
pub(crate) unsafe fn before(path: *const c_char, copies: bool) -> isize {
    // Most processes have nothing open of the session.
    // SAFETY: the caller's promise.
    if !descriptors::has_some() || !unsafe { is_static_program(path) } {
        return 0;
    }
    let mut failed = 0;
    descriptors::each_open(|fd| {
        if copies || is_inherited(fd) {
            failed = calls::hand_over(fd);
        }
        failed != 0
    });
    failed
}

fn is_inherited(fd: c_int) -> bool {
    // SAFETY: integers.
    let flags = unsafe { syscall!(libc::SYS_fcntl, fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC as isize == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_program_is_one_without_an_interpreter() {
        let read = |path: &str| std::fs::read(path).unwrap();
        assert!(!is_static(&read("/bin/sh")[..HEAD]));
        assert!(is_static(&read("/lib64/ld-linux-x86-64.so.2")[..HEAD]));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(b"\x7fELF\x02"));
    }
}
