//! The working directory.

use super::grow::stat_at;
use super::hook::{hooks, sound};
use super::next::{code, null, pass};
use crate::calls::{self, NOT_OURS};
use core::ffi::{c_char, c_int, c_void};
use core::ptr::null_mut;
use libc::{AT_FDCWD, PATH_MAX, size_t, ssize_t};

const ROOM: usize = PATH_MAX as usize;

hooks! {
    chdir(path: *const c_char) -> c_int = calls::chdir(path);
    fchdir(fd: c_int) -> c_int = calls::fchdir(fd);
    chroot(path: *const c_char) -> c_int = calls::chroot(path);
    getdents64(fd: c_int, buf: *mut c_void, n: size_t) -> ssize_t
        = calls::getdents64(fd, buf, n);
    getdirentries(fd: c_int, buf: *mut c_char, n: size_t, base: *mut i64) -> ssize_t
        = entries(fd, buf, n, base);
    getdirentries64(fd: c_int, buf: *mut c_char, n: size_t, base: *mut i64) -> ssize_t
        = entries(fd, buf, n, base);
}

/// `getdents64`, telling where it began.
unsafe fn entries(fd: c_int, buf: *mut c_char, n: size_t, base: *mut i64) -> isize {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let at = calls::lseek(fd, 0, libc::SEEK_CUR);
        if at == NOT_OURS {
            return NOT_OURS;
        }
        let answer = calls::getdents64(fd, buf.cast(), n);
        if answer >= 0 {
            *base = at as i64;
        }
        answer
    }
}

/// The working directory into memory of `malloc`: of `size` bytes, or of as
/// many as it takes when that is 0.
unsafe fn allocated(size: size_t) -> Result<*mut c_char, isize> {
    let mut path = [0u8; ROOM];
    // SAFETY: the length is checked against the memory before the copy.
    unsafe {
        let n = calls::getcwd(path.as_mut_ptr().cast(), ROOM);
        if n < 0 {
            return Err(n);
        }
        let n = (n as usize).min(ROOM);
        let room = if size == 0 { n } else { size };
        if n > room {
            return Err(-(libc::ERANGE as isize));
        }
        let into = libc::malloc(room).cast::<c_char>();
        if into.is_null() {
            return Err(-(libc::ENOMEM as isize));
        }
        core::ptr::copy_nonoverlapping(path.as_ptr(), into.cast(), n);
        Ok(into)
    }
}

/// # Safety
/// As `getcwd(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getcwd(buf: *mut c_char, size: size_t) -> *mut c_char {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let done = if buf.is_null() {
            allocated(size)
        } else {
            match sound!(size > 0, calls::getcwd(buf, size)) {
                n if n < 0 => Err(n),
                _ => Ok(buf),
            }
        };
        match done {
            Ok(path) => path,
            Err(NOT_OURS) => pass!(c"getcwd",
                fn(buf: *mut c_char, size: size_t) -> *mut c_char, else null_mut()),
            Err(answer) => null(code(answer)),
        }
    }
}

/// # Safety
/// As `getcwd(3)`; `room` is the size of `buf`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __getcwd_chk(
    buf: *mut c_char,
    size: size_t,
    room: size_t,
) -> *mut c_char {
    // SAFETY: the caller's own promises, handed on; libc ends the program for
    // a buffer that is too small.
    unsafe {
        if size > room {
            return pass!(c"__getcwd_chk",
                fn(buf: *mut c_char, size: size_t, room: size_t) -> *mut c_char,
                else null_mut());
        }
        getcwd(buf, size)
    }
}

/// # Safety
/// As `getwd(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getwd(buf: *mut c_char) -> *mut c_char {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        if buf.is_null() {
            return null(libc::EINVAL);
        }
        let answer = calls::getcwd(buf, ROOM);
        if answer == NOT_OURS {
            return pass!(c"getwd", fn(buf: *mut c_char) -> *mut c_char, else null_mut());
        }
        if answer < 0 {
            libc::strerror_r(code(answer), buf, ROOM);
            return null(code(answer));
        }
        buf
    }
}

/// # Safety
/// As `getwd(3)`; `room` is the size of `buf`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __getwd_chk(buf: *mut c_char, room: size_t) -> *mut c_char {
    // SAFETY: the caller's own promises, handed on; a smaller buffer is for
    // libc to judge.
    unsafe {
        if room < ROOM {
            let answer = calls::getcwd(buf, room);
            if answer != NOT_OURS && answer >= 0 {
                return buf;
            }
            return pass!(c"__getwd_chk",
                fn(buf: *mut c_char, room: size_t) -> *mut c_char, else null_mut());
        }
        getwd(buf)
    }
}

/// `$PWD`, if that names the working directory.
unsafe fn spelled() -> Option<*const c_char> {
    // SAFETY: C strings; zeroed is a valid `stat`.
    unsafe {
        let path = libc::getenv(c"PWD".as_ptr()).cast_const();
        if path.is_null() {
            return None;
        }
        let (mut here, mut there): (libc::stat, libc::stat) = core::mem::zeroed();
        let same = stat_at(AT_FDCWD, c".".as_ptr(), &raw mut here, 0) >= 0
            && stat_at(AT_FDCWD, path, &raw mut there, 0) >= 0
            && (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino);
        same.then_some(path)
    }
}

/// # Safety
/// As `get_current_dir_name(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn get_current_dir_name() -> *mut c_char {
    // SAFETY: no arguments; `$PWD` is a C string.
    unsafe {
        match allocated(0) {
            Err(NOT_OURS) => {
                pass!(c"get_current_dir_name", fn() -> *mut c_char, else null_mut())
            }
            Err(answer) => null(code(answer)),
            Ok(path) => match spelled() {
                None => path,
                Some(spelling) => {
                    libc::free(path.cast());
                    libc::strdup(spelling)
                }
            },
        }
    }
}
