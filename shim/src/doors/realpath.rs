//! `realpath` and its kin. A path from outside that leads to our files only
//! through a symbolic link is left to libc.

use super::next::{code, null, pass};
use crate::calls::{self, NOT_OURS};
use core::ffi::c_char;
use core::ptr::{self, null_mut};

/// `PATH_MAX`, with the NUL.
const PATH_MAX: usize = 4096;

/// # Safety
/// As `realpath(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn realpath(
    path: *const c_char,
    resolved: *mut c_char,
) -> *mut c_char {
    if path.is_null() {
        return null(libc::EINVAL);
    }
    let mut buf = [0u8; PATH_MAX];
    // SAFETY: the caller's own promises; an answer fits the buffer with its NUL.
    unsafe {
        let n = calls::canonical(path, &mut buf);
        if n == NOT_OURS {
            return pass!(c"realpath",
                fn(path: *const c_char, resolved: *mut c_char) -> *mut c_char, else null_mut());
        }
        if n < 0 {
            return null(code(n));
        }
        let n = (n as usize).min(PATH_MAX - 1);
        let into = if resolved.is_null() {
            libc::malloc(n.wrapping_add(1)).cast()
        } else {
            resolved
        };
        if into.is_null() {
            return null(libc::ENOMEM);
        }
        ptr::copy_nonoverlapping(buf.as_ptr(), into.cast::<u8>(), n);
        *into.wrapping_add(n) = 0;
        into
    }
}

/// # Safety
/// As `realpath(3)`; `room` is the size of `resolved`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __realpath_chk(
    path: *const c_char,
    resolved: *mut c_char,
    room: usize,
) -> *mut c_char {
    // SAFETY: the caller's own promises, handed on; libc ends the program for
    // a buffer that is too small.
    unsafe {
        if room < PATH_MAX {
            return pass!(c"__realpath_chk",
                fn(path: *const c_char, resolved: *mut c_char, room: usize) -> *mut c_char,
                else null_mut());
        }
        realpath(path, resolved)
    }
}

/// # Safety
/// As `canonicalize_file_name(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn canonicalize_file_name(path: *const c_char) -> *mut c_char {
    // SAFETY: the caller's own promises, handed on.
    unsafe { realpath(path, null_mut()) }
}
