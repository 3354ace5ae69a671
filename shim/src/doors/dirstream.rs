//! Directory streams: `opendir` to `closedir` over the call table.
//!
//! A stream of ours is a slot in one reserved range of addresses; every other
//! `DIR *` is libc's and goes on to libc.

use super::grow::close;
use super::lock::Lock;
use super::next::{code, either, errno, null, pass, ret, set_errno};
use super::slots;
use crate::calls;
use core::ffi::{c_char, c_int, c_long, c_void};
use core::ptr::{self, null_mut};
use libc::{DIR, dirent64};

const MAGIC: u64 = u64::from_le_bytes(*b"capioDIR");
/// Bytes of kernel records held at a time.
const ROOM: usize = slots::SLOT - 64;

#[repr(C, align(64))]
struct Stream {
    magic: u64,
    lock: Lock,
    fd: c_int,
    /// The kernel's cookie of the place after the last entry given out.
    place: i64,
    at: usize,
    end: usize,
}

const _: () = assert!(size_of::<Stream>() == 64 && size_of::<Stream>() + ROOM == slots::SLOT);

fn ours(dir: *const DIR) -> Option<*mut Stream> {
    let stream = dir.cast::<Stream>().cast_mut();
    // SAFETY: a slot in use is readable, and aligned to more than a stream.
    (slots::owns(dir.cast()) && unsafe { (*stream).magic == MAGIC }).then_some(stream)
}

fn records(stream: *mut Stream) -> *mut u8 {
    stream.wrapping_add(1).cast()
}

fn stream_of(fd: c_int) -> *mut DIR {
    let Some(slot) = slots::take() else {
        return null(libc::ENOMEM);
    };
    let stream = slot.cast::<Stream>();
    let fresh = Stream {
        magic: MAGIC,
        lock: Lock::new(),
        fd,
        place: 0,
        at: 0,
        end: 0,
    };
    // SAFETY: a slot just taken is ours alone.
    unsafe { stream.write(fresh) };
    stream.cast()
}

/// # Safety
/// As `opendir(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn opendir(path: *const c_char) -> *mut DIR {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let fd = calls::openat(libc::AT_FDCWD, path, flags, 0);
        if fd == calls::NOT_OURS {
            return pass!(c"opendir", fn(path: *const c_char) -> *mut DIR, else null_mut());
        }
        if fd < 0 {
            return null(code(fd));
        }
        let dir = stream_of(fd as c_int);
        if dir.is_null() {
            close(fd as c_int);
        }
        dir
    }
}

/// # Safety
/// As `fdopendir(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fdopendir(fd: c_int) -> *mut DIR {
    // SAFETY: plain numbers, and a buffer of our own.
    unsafe {
        if !calls::is_ours(fd) {
            return pass!(c"fdopendir", fn(fd: c_int) -> *mut DIR, else null_mut());
        }
        let mut st: libc::stat = core::mem::zeroed();
        let done = either!(fstat(fd, &raw mut st), libc::SYS_fstat);
        if done < 0 {
            return null(code(done));
        }
        if st.st_mode & libc::S_IFMT != libc::S_IFDIR {
            return null(libc::ENOTDIR);
        }
    }
    stream_of(fd)
}

/// The next entry; null at the end.
///
/// # Safety
/// `stream` must be ours and held.
unsafe fn advance(stream: *mut Stream) -> Result<*mut dirent64, isize> {
    // SAFETY: the records lie in the slot behind the stream.
    unsafe {
        let s = &mut *stream;
        if s.at >= s.end {
            let buf = records(stream).cast::<c_void>();
            let n = either!(getdents64(s.fd, buf, ROOM), libc::SYS_getdents64);
            // A directory that was removed meanwhile has come to its end.
            if n == 0 || n == -(libc::ENOENT as isize) {
                return Ok(null_mut());
            }
            if n < 0 {
                return Err(n);
            }
            (s.at, s.end) = (0, n as usize);
        }
        let entry = records(stream).wrapping_add(s.at).cast::<dirent64>();
        let step = (*entry).d_reclen as usize;
        if step == 0 || step > s.end.wrapping_sub(s.at) {
            s.at = s.end;
            return Err(-(libc::EIO as isize));
        }
        s.at = s.at.wrapping_add(step);
        s.place = (*entry).d_off;
        Ok(entry)
    }
}

/// # Safety
/// As `readdir(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn readdir64(dir: *mut DIR) -> *mut dirent64 {
    let Some(stream) = ours(dir) else {
        // SAFETY: the caller's own promises, handed on.
        return unsafe { pass!(c"readdir64", fn(dir: *mut DIR) -> *mut dirent64, else null_mut()) };
    };
    // SAFETY: a stream of ours, held.
    unsafe {
        let _held = (*stream).lock.hold();
        advance(stream).unwrap_or_else(|e| null(code(e)))
    }
}

/// # Safety
/// As `readdir(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn readdir(dir: *mut DIR) -> *mut dirent64 {
    // SAFETY: on this platform both names have one layout.
    unsafe { readdir64(dir) }
}

/// # Safety
/// As `readdir_r(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn readdir64_r(
    dir: *mut DIR,
    into: *mut dirent64,
    result: *mut *mut dirent64,
) -> c_int {
    let Some(stream) = ours(dir) else {
        // SAFETY: the caller's own promises, handed on.
        return unsafe {
            pass!(c"readdir64_r",
                fn(dir: *mut DIR, into: *mut dirent64, result: *mut *mut dirent64) -> c_int,
                else libc::ENOSYS)
        };
    };
    // SAFETY: a stream of ours, held; `into` has room for one entry.
    unsafe {
        let _held = (*stream).lock.hold();
        *result = null_mut();
        match advance(stream) {
            Err(e) => return code(e),
            Ok(entry) if entry.is_null() => {}
            Ok(entry) => {
                let n = ((*entry).d_reclen as usize).min(size_of::<dirent64>());
                ptr::copy_nonoverlapping(entry.cast::<u8>(), into.cast::<u8>(), n);
                *result = into;
            }
        }
    }
    0
}

/// # Safety
/// As `readdir_r(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn readdir_r(
    dir: *mut DIR,
    into: *mut dirent64,
    result: *mut *mut dirent64,
) -> c_int {
    // SAFETY: on this platform both names have one layout.
    unsafe { readdir64_r(dir, into, result) }
}

/// # Safety
/// As `closedir(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn closedir(dir: *mut DIR) -> c_int {
    let Some(stream) = ours(dir) else {
        // SAFETY: the caller's own promises, handed on.
        return unsafe { pass!(c"closedir", fn(dir: *mut DIR) -> c_int, else -1) };
    };
    // SAFETY: the caller gives the stream up.
    let fd = unsafe {
        (*stream).magic = 0;
        (*stream).fd
    };
    slots::give(stream.cast());
    ret(close(fd))
}

/// # Safety
/// `stream` must be ours.
unsafe fn go(stream: *mut Stream, place: i64) {
    // SAFETY: a stream of ours, held.
    unsafe {
        let _held = (*stream).lock.hold();
        let s = &mut *stream;
        let before = errno();
        let _ = either!(lseek(s.fd, place, libc::SEEK_SET), libc::SYS_lseek);
        set_errno(before);
        (s.place, s.at, s.end) = (place, 0, 0);
    }
}

/// # Safety
/// As `rewinddir(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn rewinddir(dir: *mut DIR) {
    // SAFETY: ours, or the caller's own promises, handed on.
    unsafe {
        match ours(dir) {
            Some(stream) => go(stream, 0),
            None => pass!(c"rewinddir", fn(dir: *mut DIR) -> (), else ()),
        }
    }
}

/// # Safety
/// As `seekdir(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn seekdir(dir: *mut DIR, place: c_long) {
    // SAFETY: ours, or the caller's own promises, handed on.
    unsafe {
        match ours(dir) {
            Some(stream) => go(stream, place),
            None => pass!(c"seekdir", fn(dir: *mut DIR, place: c_long) -> (), else ()),
        }
    }
}

/// # Safety
/// As `telldir(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn telldir(dir: *mut DIR) -> c_long {
    // SAFETY: ours and held, or the caller's own promises, handed on.
    unsafe {
        let Some(stream) = ours(dir) else {
            return pass!(c"telldir", fn(dir: *mut DIR) -> c_long, else -1);
        };
        let _held = (*stream).lock.hold();
        (*stream).place
    }
}

/// # Safety
/// As `dirfd(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dirfd(dir: *mut DIR) -> c_int {
    // SAFETY: ours, or the caller's own promises, handed on.
    unsafe {
        match ours(dir) {
            Some(stream) => (*stream).fd,
            None => pass!(c"dirfd", fn(dir: *mut DIR) -> c_int, else -1),
        }
    }
}
