//! `glob`: libc's own, given our functions for reading directories.

use super::{look, may_reach};
use crate::doors::dirstream::{closedir, opendir, readdir64};
use crate::doors::next::{pass, ret};
use core::ffi::{c_char, c_int, c_void};
use libc::{DIR, dirent64, stat};

const GLOB_ALTDIRFUNC: c_int = 1 << 9;
const GLOB_BRACE: c_int = 1 << 10;
const GLOB_TILDE: c_int = 1 << 12;
const GLOB_TILDE_CHECK: c_int = 1 << 14;

type OnError = Option<unsafe extern "C" fn(*const c_char, c_int) -> c_int>;

/// `glob_t` as libc lays it out.
#[repr(C)]
pub(crate) struct Glob {
    count: usize,
    paths: *mut *mut c_char,
    offset: usize,
    flags: c_int,
    functions: Functions,
}

/// The functions that `GLOB_ALTDIRFUNC` reads directories with.
#[repr(C)]
#[derive(Clone, Copy)]
struct Functions {
    closedir: Option<unsafe extern "C" fn(*mut c_void)>,
    readdir: Option<unsafe extern "C" fn(*mut c_void) -> *mut dirent64>,
    opendir: Option<unsafe extern "C" fn(*const c_char) -> *mut c_void>,
    lstat: Option<unsafe extern "C" fn(*const c_char, *mut stat) -> c_int>,
    stat: Option<unsafe extern "C" fn(*const c_char, *mut stat) -> c_int>,
}

const OURS: Functions = Functions {
    closedir: Some(close_stream),
    readdir: Some(read_stream),
    opendir: Some(open_stream),
    lstat: Some(lstat_path),
    stat: Some(stat_path),
};

unsafe extern "C" fn close_stream(dir: *mut c_void) {
    // SAFETY: libc hands back what `open_stream` gave it.
    unsafe { closedir(dir.cast::<DIR>()) };
}

unsafe extern "C" fn read_stream(dir: *mut c_void) -> *mut dirent64 {
    // SAFETY: libc hands back what `open_stream` gave it.
    unsafe { readdir64(dir.cast::<DIR>()) }
}

unsafe extern "C" fn open_stream(path: *const c_char) -> *mut c_void {
    // SAFETY: a C string from libc.
    unsafe { opendir(path).cast() }
}

unsafe extern "C" fn lstat_path(path: *const c_char, st: *mut stat) -> c_int {
    // SAFETY: a C string and a buffer from libc.
    ret(unsafe { look(path, st, false) })
}

unsafe extern "C" fn stat_path(path: *const c_char, st: *mut stat) -> c_int {
    // SAFETY: a C string and a buffer from libc.
    ret(unsafe { look(path, st, true) })
}

/// Whether the directories that `pattern` names may hold taken-over files:
/// judged by the part before the first wildcard.
///
/// # Safety
/// `pattern` must be a C string.
unsafe fn concerns_us(pattern: *const c_char, flags: c_int) -> bool {
    // SAFETY: the caller's promise; the buffer keeps a NUL at its end.
    unsafe {
        let tilde = flags & (GLOB_TILDE | GLOB_TILDE_CHECK) != 0;
        if (tilde && *pattern == b'~' as c_char)
            || (flags & GLOB_BRACE != 0 && *pattern == b'{' as c_char)
        {
            return may_reach(c"/".as_ptr());
        }
        let fixed = libc::strcspn(pattern, c"*?[\\{".as_ptr());
        let mut root = [0u8; 4096];
        let mut end = 0usize;
        for (i, slot) in root.iter_mut().take(fixed.min(4094)).enumerate() {
            *slot = *pattern.add(i) as u8;
            if *slot == b'/' {
                end = i.max(1);
            }
        }
        if let Some(cut) = root.get_mut(end) {
            *cut = 0;
        }
        let root = if end == 0 {
            c".".as_ptr()
        } else {
            root.as_ptr().cast()
        };
        may_reach(root)
    }
}

/// # Safety
/// As `glob(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn glob64(
    pattern: *const c_char,
    flags: c_int,
    on_error: OnError,
    out: *mut Glob,
) -> c_int {
    // SAFETY: the caller's own promises, handed on; `out` is the caller's.
    unsafe {
        let own = flags & GLOB_ALTDIRFUNC == 0 && concerns_us(pattern, flags);
        if !own {
            return pass!(c"glob64",
                fn(pattern: *const c_char, flags: c_int, on_error: OnError, out: *mut Glob) -> c_int,
                else -1);
        }
        let before = (*out).functions;
        (*out).functions = OURS;
        let flags = flags | GLOB_ALTDIRFUNC;
        let answer = pass!(c"glob64",
            fn(pattern: *const c_char, flags: c_int, on_error: OnError, out: *mut Glob) -> c_int,
            else -1);
        (*out).functions = before;
        (*out).flags &= !GLOB_ALTDIRFUNC;
        answer
    }
}

/// # Safety
/// As `glob(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn glob(
    pattern: *const c_char,
    flags: c_int,
    on_error: OnError,
    out: *mut Glob,
) -> c_int {
    // SAFETY: on this platform both names have one layout.
    unsafe { glob64(pattern, flags, on_error, out) }
}
