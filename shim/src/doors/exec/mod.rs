//! The `exec` family: every function leads to one `execve`, with an
//! environment that takes the shim along. Nothing here allocates, so that all
//! of it serves in a child of `vfork`.
//!
//! A program inside the taken-over directory runs from the disk below ours, or
//! as the inode of its own into which it moves out of the cache.

mod carry;
mod handover;
mod libraries;
mod list;
mod scratch;
mod script;
mod search;

pub(crate) use carry::{Strings, current, remember, saved};
pub(crate) use handover::{before as hand_over_for, runs_go};
pub(crate) use libraries::forget_libraries;
pub(crate) use script::{DEEPEST, interpreted};
pub(crate) use search::along_path;

use super::next::ret;
use crate::calls::{self, NOT_OURS};
use crate::signals;
use crate::sys::syscall;
use carry::Plan;
use core::ffi::{c_char, c_int};
use libraries::with_libraries;
use scratch::words;

/// Calls `with` with `env`, completed if it lacks what takes us along, or what
/// leads to the libraries of the program at `program` of the kernel, which may
/// be null.
///
/// # Safety
/// `env` must be null or a null-terminated list of C strings, `program` null or
/// a C string.
pub(crate) unsafe fn with_env<R>(
    env: Strings,
    program: *const c_char,
    mut with: impl FnMut(Strings) -> R,
) -> Option<R> {
    // SAFETY: the caller's promise; the room is as large as the plan says.
    unsafe {
        let plan = Plan::new(env);
        if plan.is_complete() {
            return Some(with_libraries(env, program, with));
        }
        words(plan.words(), |room| {
            with_libraries(plan.write(room), program, &mut with)
        })
    }
}

/// Whether `env` takes us along as it is.
///
/// # Safety
/// As `with_env`.
pub(crate) unsafe fn is_carried(env: Strings) -> bool {
    // SAFETY: the caller's promise.
    unsafe { Plan::new(env).is_complete() }
}

/// Reads the start of the kernel's file at `path`. Bytes read; 0 also when it
/// cannot be read.
///
/// # Safety
/// `path` must be a C string.
unsafe fn read_head(path: *const c_char, into: &mut [u8]) -> usize {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the caller's promise; the kernel writes no more than there is room.
    let got = unsafe {
        let fd = syscall!(libc::SYS_openat, libc::AT_FDCWD, path, flags, 0);
        if fd < 0 {
            return 0;
        }
        let got = syscall!(libc::SYS_pread64, fd, into.as_mut_ptr(), into.len(), 0);
        syscall!(libc::SYS_close, fd);
        got
    };
    usize::try_from(got).unwrap_or(0)
}

/// Calls `exec` with the signals that the program ignores ignored by the kernel.
fn replacing(exec: impl FnOnce() -> isize) -> isize {
    signals::before_exec();
    let failed = exec();
    signals::after_failed_exec();
    failed
}

/// Runs the program at `path`: `-errno`, or no return.
///
/// # Safety
/// As `execve(2)`.
unsafe fn run(path: *const c_char, argv: Strings, env: Strings) -> isize {
    // SAFETY: the caller's own promises.
    unsafe { run_nested(path, argv, env, 0) }
}

/// [`run`], for the interpreter of as many scripts as `depth` says.
///
/// # Safety
/// As [`run`].
unsafe fn run_nested(path: *const c_char, argv: Strings, env: Strings, depth: usize) -> isize {
    let mut buf = [0u8; 4096];
    // SAFETY: the caller's own promises.
    unsafe {
        let real = calls::program_path(path, &mut buf);
        if real < 0 && real != NOT_OURS {
            return real;
        }
        let shown = path;
        let path = if real == NOT_OURS {
            path
        } else {
            buf.as_ptr().cast()
        };
        if real != NOT_OURS {
            let deeper = depth.wrapping_add(1);
            let script = interpreted(path, shown, argv, |program, argv| {
                if deeper > DEEPEST {
                    return -(libc::ELOOP as isize);
                }
                run_nested(program, argv, env, deeper)
            });
            if let Some(failed) = script {
                return failed;
            }
        }
        let handed = handover::before(path, false);
        if handed < 0 {
            return handed;
        }
        let left = handover::to_disk(path);
        let failed = replacing(|| {
            with_env(env, path, |env| syscall!(libc::SYS_execve, path, argv, env))
                .unwrap_or(-(libc::ENOMEM as isize))
        });
        if let Some(left) = left {
            left.back();
        }
        failed
    }
}

/// The kernel's `execveat`, with the environment that takes us along.
///
/// # Safety
/// As `execveat(2)`.
unsafe fn run_at(
    dirfd: c_int,
    path: *const c_char,
    argv: Strings,
    env: Strings,
    flags: c_int,
) -> isize {
    // SAFETY: the caller's own promises.
    unsafe {
        replacing(|| {
            with_env(env, core::ptr::null(), |env| {
                syscall!(libc::SYS_execveat, dirfd, path, argv, env, flags)
            })
            .unwrap_or(-(libc::ENOMEM as isize))
        })
    }
}

/// Runs what `/proc/self/fd/FD` and `tail` name, where `fd` is ours.
///
/// # Safety
/// As `execveat(2)`.
unsafe fn run_under(fd: c_int, tail: *const c_char, argv: Strings, env: Strings) -> isize {
    let (mut path, mut buf) = ([0u8; 4096 + 64], [0u8; 4096]);
    // SAFETY: the tail's length is checked against the room for it.
    unsafe {
        if libc::strlen(tail) > 4095 {
            return -(libc::ENAMETOOLONG as isize);
        }
        fd_path(fd, tail, path.as_mut_ptr().cast());
        match calls::program_path(path.as_ptr().cast(), &mut buf) {
            NOT_OURS => -(libc::ENOEXEC as isize),
            real if real < 0 => real,
            _ => run(path.as_ptr().cast(), argv, env),
        }
    }
}

/// Writes `/proc/self/fd/FD`, and `/tail` unless it is empty.
///
/// # Safety
/// `out` must have room for the tail and 32 bytes.
pub(crate) unsafe fn fd_path(fd: c_int, tail: *const c_char, out: *mut c_char) {
    let mut digits = [0u8; 12];
    let mut at = digits.len().wrapping_sub(1);
    let mut left = fd.unsigned_abs();
    loop {
        at = at.wrapping_sub(1);
        if let Some(d) = digits.get_mut(at) {
            *d = b'0'.wrapping_add((left % 10) as u8);
        }
        left /= 10;
        if left == 0 {
            break;
        }
    }
    // SAFETY: the caller's promise; the digits end with a NUL.
    unsafe {
        libc::strcpy(out, c"/proc/self/fd/".as_ptr());
        libc::strcat(out, digits.as_ptr().wrapping_add(at).cast());
        if *tail != 0 {
            libc::strcat(out, c"/".as_ptr());
            libc::strcat(out, tail);
        }
    }
}

/// # Safety
/// As `execve(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execve(path: *const c_char, argv: Strings, env: Strings) -> c_int {
    // SAFETY: the caller's own promises, handed on.
    ret(unsafe { run(path, argv, env) })
}

/// # Safety
/// As `execv(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execv(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller's own promises, handed on.
    ret(unsafe { run(path, argv, current()) })
}

/// # Safety
/// As `execvpe(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execvpe(file: *const c_char, argv: Strings, env: Strings) -> c_int {
    // SAFETY: the caller's own promises, handed on.
    ret(unsafe { search::run_file(file, argv, env) })
}

/// # Safety
/// As `execvp(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execvp(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller's own promises, handed on.
    ret(unsafe { search::run_file(file, argv, current()) })
}

/// # Safety
/// As `execveat(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execveat(
    dirfd: c_int,
    path: *const c_char,
    argv: Strings,
    env: Strings,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's own promises, handed on.
    ret(unsafe {
        if path.is_null() {
            run_at(dirfd, path, argv, env, flags)
        } else if *path == 0 && flags & libc::AT_EMPTY_PATH != 0 {
            match calls::is_ours(dirfd) {
                true => run_under(dirfd, path, argv, env),
                false => run_at(dirfd, path, argv, env, flags),
            }
        } else if *path == b'/' as c_char || dirfd == libc::AT_FDCWD {
            let mut buf = [0u8; 4096];
            match calls::program_path(path, &mut buf) {
                NOT_OURS => run_at(dirfd, path, argv, env, flags),
                real if real < 0 => real,
                _ => run(path, argv, env),
            }
        } else if calls::is_ours(dirfd) {
            run_under(dirfd, path, argv, env)
        } else {
            run_at(dirfd, path, argv, env, flags)
        }
    })
}

/// # Safety
/// As `fexecve(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fexecve(fd: c_int, argv: Strings, env: Strings) -> c_int {
    if fd < 0 || argv.is_null() || env.is_null() {
        return ret(-(libc::EINVAL as isize));
    }
    // SAFETY: the caller's own promises, handed on.
    unsafe { execveat(fd, c"".as_ptr(), argv, env, libc::AT_EMPTY_PATH) }
}
