//! Descriptors: opened, closed, copied, locked, controlled.
//!
//! Where C has variable arguments, a fixed last one is in the same register.

use super::hook::{hooks, pass_named, sound};
use super::next::{either, errno, set_errno};
use crate::calls::{self, NOT_OURS};
use crate::sys::syscall;
use core::ffi::{c_char, c_int, c_ulong};
use core::mem::zeroed;
use libc::{AT_FDCWD, mode_t, off_t};

/// Whether `open` with these flags reads a mode.
pub(super) fn makes(flags: c_int) -> bool {
    flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE
}

/// The call table's `openat`, without the garbage in an argument not given.
unsafe fn open_at(dirfd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> isize {
    let mode = if makes(flags) { mode } else { 0 };
    // SAFETY: the caller's own promises, handed on.
    unsafe { calls::openat(dirfd, path, flags, mode) }
}

/// What `creat` is short for.
pub(super) const CREAT: c_int = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;

hooks! {
    open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = open_at(AT_FDCWD, path, flags, mode);
    open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = open_at(AT_FDCWD, path, flags, mode);
    __open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = open_at(AT_FDCWD, path, flags, mode);
    __open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = open_at(AT_FDCWD, path, flags, mode);
    openat(dirfd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = open_at(dirfd, path, flags, mode);
    openat64(dirfd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = open_at(dirfd, path, flags, mode);
    __open_2(path: *const c_char, flags: c_int) -> c_int
        = sound!(!makes(flags), calls::openat(AT_FDCWD, path, flags, 0));
    __open64_2(path: *const c_char, flags: c_int) -> c_int
        = sound!(!makes(flags), calls::openat(AT_FDCWD, path, flags, 0));
    __openat_2(dirfd: c_int, path: *const c_char, flags: c_int) -> c_int
        = sound!(!makes(flags), calls::openat(dirfd, path, flags, 0));
    __openat64_2(dirfd: c_int, path: *const c_char, flags: c_int) -> c_int
        = sound!(!makes(flags), calls::openat(dirfd, path, flags, 0));
    creat(path: *const c_char, mode: mode_t) -> c_int
        = calls::openat(AT_FDCWD, path, CREAT, mode);
    creat64(path: *const c_char, mode: mode_t) -> c_int
        = calls::openat(AT_FDCWD, path, CREAT, mode);

    close(fd: c_int) -> c_int = calls::close(fd);
    __close(fd: c_int) -> c_int = calls::close(fd);
    close_range(first: u32, last: u32, flags: c_int) -> c_int
        = calls::close_range(first, last, flags.cast_unsigned());

    dup(fd: c_int) -> c_int = calls::dup(fd);
    dup2(old: c_int, new: c_int) -> c_int = calls::dup2(old, new);
    __dup2(old: c_int, new: c_int) -> c_int = calls::dup2(old, new);
    dup3(old: c_int, new: c_int, flags: c_int) -> c_int = calls::dup3(old, new, flags);

    fcntl(fd: c_int, command: c_int, argument: usize) -> c_int
        = calls::fcntl(fd, command, argument);
    fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int
        = calls::fcntl(fd, command, argument);
    __fcntl(fd: c_int, command: c_int, argument: usize) -> c_int
        = calls::fcntl(fd, command, argument);
    ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int
        = calls::ioctl(fd, request, argument);
    flock(fd: c_int, operation: c_int) -> c_int = calls::flock(fd, operation);
    lockf(fd: c_int, command: c_int, length: off_t) -> c_int = lock(fd, command, length);
    lockf64(fd: c_int, command: c_int, length: off_t) -> c_int = lock(fd, command, length);
}

/// # Safety
/// As `closefrom(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn closefrom(first: c_int) {
    // SAFETY: plain numbers; the next definition has this signature, and its
    // result, which is none, is not looked at.
    unsafe {
        let from = first.max(0).cast_unsigned();
        if calls::close_range(from, u32::MAX, 0) == NOT_OURS {
            pass_named!(closefrom(first: c_int) -> ());
        }
    }
}

/// `lockf` in terms of `fcntl`, as libc has it.
unsafe fn lock(fd: c_int, command: c_int, length: off_t) -> isize {
    // SAFETY: zeroed is a valid lock; it outlives the calls.
    unsafe {
        if !calls::is_ours(fd) {
            return NOT_OURS;
        }
        let mut lock: libc::flock = zeroed();
        lock.l_whence = libc::SEEK_CUR as i16;
        lock.l_len = length;
        let (kind, action) = match command {
            libc::F_TEST => return test(fd, lock),
            libc::F_ULOCK => (libc::F_UNLCK, libc::F_SETLK),
            libc::F_LOCK => (libc::F_WRLCK, libc::F_SETLKW),
            libc::F_TLOCK => (libc::F_WRLCK, libc::F_SETLK),
            _ => return -(libc::EINVAL as isize),
        };
        lock.l_type = kind as i16;
        calls::fcntl(fd, action, &raw const lock as usize)
    }
}

/// Whether nobody else holds a lock there: 0, or `EACCES`.
unsafe fn test(fd: c_int, mut lock: libc::flock) -> isize {
    lock.l_type = libc::F_RDLCK as i16;
    // SAFETY: the lock outlives the call.
    unsafe {
        let answer = calls::fcntl(fd, libc::F_GETLK, &raw mut lock as usize);
        if answer < 0 {
            return answer;
        }
        let free = lock.l_type == libc::F_UNLCK as i16;
        if free || lock.l_pid as isize == syscall!(libc::SYS_getpid) {
            return 0;
        }
    }
    -(libc::EACCES as isize)
}

/// Makes `fd`, which is ours, an ordinary descriptor that says and takes
/// nothing, before libc replaces it behind our back.
pub(super) fn neutralise(fd: c_int) {
    let flags = libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: a C string; the descriptor is our own.
    unsafe {
        let null = syscall!(libc::SYS_openat, AT_FDCWD, c"/dev/null".as_ptr(), flags, 0);
        let Ok(null) = c_int::try_from(null) else {
            return;
        };
        if null >= 0 {
            let _ = either!(dup3(null, fd, 0), libc::SYS_dup3);
            syscall!(libc::SYS_close, null);
        }
    }
}

/// `daemon(3)`: libc changes directory and descriptors inside.
///
/// # Safety
/// As `daemon(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn daemon(stay: c_int, keep: c_int) -> c_int {
    // SAFETY: plain numbers and a C string; the child is alone.
    unsafe {
        let done = pass_named!(daemon(stay: c_int, keep: c_int) -> c_int);
        if done != 0 {
            return done;
        }
        let before = errno();
        if stay == 0 {
            let _ = calls::chdir(c"/".as_ptr());
        }
        if keep == 0 {
            (0..=2)
                .filter(|fd| calls::is_ours(*fd))
                .for_each(neutralise);
        }
        set_errno(before);
    }
    0
}
