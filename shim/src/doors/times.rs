//! Times of files: six functions and three notations for one `utimensat`.

use super::hook::hooks;
use crate::calls;
use core::ffi::{c_char, c_int};
use core::ptr::null;
use libc::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, timespec, timeval, utimbuf};

hooks! {
    utimensat(dirfd: c_int, path: *const c_char, times: *const timespec, flags: c_int) -> c_int
        = super::hook::sound!(!path.is_null(), calls::utimensat(dirfd, path, times, flags));
    futimens(fd: c_int, times: *const timespec) -> c_int
        = super::hook::sound!(fd >= 0, calls::utimensat(fd, null(), times, 0));
    utime(path: *const c_char, times: *const utimbuf) -> c_int
        = by_second(path, times.as_ref());
    utimes(path: *const c_char, times: *const timeval) -> c_int
        = by_microsecond(AT_FDCWD, path, times.cast::<[timeval; 2]>().as_ref(), 0);
    lutimes(path: *const c_char, times: *const timeval) -> c_int
        = by_microsecond(
            AT_FDCWD, path, times.cast::<[timeval; 2]>().as_ref(), AT_SYMLINK_NOFOLLOW
        );
    futimes(fd: c_int, times: *const timeval) -> c_int
        = by_microsecond(fd, null(), times.cast::<[timeval; 2]>().as_ref(), 0);
    futimesat(dirfd: c_int, path: *const c_char, times: *const timeval) -> c_int
        = by_microsecond(dirfd, path, times.cast::<[timeval; 2]>().as_ref(), 0);
}

/// `utime`.
///
/// # Safety
/// `path` must be a C string.
pub(super) unsafe fn by_second(path: *const c_char, times: Option<&utimbuf>) -> isize {
    let times = times.map(|t| [t.actime, t.modtime].map(|tv_sec| timespec { tv_sec, tv_nsec: 0 }));
    // SAFETY: the caller's promise; the times outlive the call.
    unsafe { set(AT_FDCWD, path, times.as_ref(), 0) }
}

/// `utimes` and its kin.
///
/// # Safety
/// `path` must be a C string, or null for the file that `dirfd` is.
pub(super) unsafe fn by_microsecond(
    dirfd: c_int,
    path: *const c_char,
    times: Option<&[timeval; 2]>,
    flags: c_int,
) -> isize {
    let times = times.map(|both| {
        both.map(|t| timespec {
            tv_sec: t.tv_sec,
            // Out of range stays out of range: the call refuses it.
            tv_nsec: t.tv_usec.saturating_mul(1000),
        })
    });
    // SAFETY: the caller's promise; the times outlive the call.
    unsafe { set(dirfd, path, times.as_ref(), flags) }
}

/// # Safety
/// As `by_microsecond`.
unsafe fn set(
    dirfd: c_int,
    path: *const c_char,
    times: Option<&[timespec; 2]>,
    flags: c_int,
) -> isize {
    let times = times.map_or(null(), |both| both.as_ptr());
    // SAFETY: the caller's promise; null or two times.
    unsafe { calls::utimensat(dirfd, path, times, flags) }
}
