//! A program's file, searched for as `execvp` does: along `PATH`, with the
//! shell for what the kernel does not take.

use super::carry::Strings;
use super::run;
use super::scratch::words;
use core::ffi::{c_char, c_int};
use core::ptr;

const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;
/// What libc searches when the program has no `PATH`.
const DEFAULT_PATH: *const c_char = c"/bin:/usr/bin".as_ptr();

/// Calls `each` with every candidate for `file` along `PATH`, in order, until
/// it gives an answer. The candidate is a C string for the length of the call.
///
/// # Safety
/// `file` must be a C string without a slash.
pub(crate) unsafe fn along_path<R>(
    file: *const c_char,
    mut each: impl FnMut(*const c_char) -> Option<R>,
) -> Option<R> {
    let mut candidate = [0u8; PATH_MAX + NAME_MAX + 2];
    // SAFETY: C strings; lengths are checked before the copies.
    unsafe {
        let n = libc::strlen(file);
        let set = libc::getenv(c"PATH".as_ptr());
        let mut dir = if set.is_null() {
            DEFAULT_PATH
        } else {
            set.cast_const()
        };
        if n > NAME_MAX {
            return None;
        }
        loop {
            let len = libc::strcspn(dir, c":".as_ptr());
            if len < PATH_MAX {
                let at = candidate.as_mut_ptr();
                ptr::copy_nonoverlapping(dir.cast::<u8>(), at, len);
                // An empty directory is the working directory.
                let slash = usize::from(len > 0);
                *at.wrapping_add(len) = b'/';
                let name = at.wrapping_add(len.wrapping_add(slash));
                ptr::copy_nonoverlapping(file.cast::<u8>(), name, n.wrapping_add(1));
                if let Some(answer) = each(at.cast_const().cast()) {
                    return Some(answer);
                }
            }
            dir = dir.wrapping_add(len);
            if *dir == 0 {
                return None;
            }
            dir = dir.wrapping_add(1);
        }
    }
}

/// Runs `path`, by the shell if the kernel does not know its format.
///
/// # Safety
/// As `execve(2)`.
unsafe fn run_or_shell(path: *const c_char, argv: Strings, env: Strings) -> isize {
    // SAFETY: the caller's own promises.
    unsafe {
        let answer = run(path, argv, env);
        if answer != -(libc::ENOEXEC as isize) {
            return answer;
        }
        let mut n = 0usize;
        while !argv.is_null() && !(*argv.wrapping_add(n)).is_null() {
            n = n.wrapping_add(1);
        }
        let shell = c"/bin/sh".as_ptr();
        words(n.wrapping_add(3), |room| {
            let list = room.cast::<*const c_char>();
            (*list, *list.wrapping_add(1)) = (shell, path);
            for i in 1..n {
                *list.wrapping_add(i.wrapping_add(1)) = *argv.wrapping_add(i);
            }
            *list.wrapping_add(n.max(1).wrapping_add(1)) = ptr::null();
            run(shell, list, env)
        })
        .unwrap_or(-(libc::ENOMEM as isize))
    }
}

/// Runs `file`, searched for along `PATH`: `-errno`, or no return.
///
/// # Safety
/// As `execvpe(3)`.
pub(super) unsafe fn run_file(file: *const c_char, argv: Strings, env: Strings) -> isize {
    let missing = -(libc::ENOENT as isize);
    // SAFETY: the caller's own promises.
    unsafe {
        if *file == 0 {
            return missing;
        }
        if !libc::strchr(file, c_int::from(b'/')).is_null() {
            return run_or_shell(file, argv, env);
        }
        if libc::strlen(file) > NAME_MAX {
            return -(libc::ENAMETOOLONG as isize);
        }
        let (mut denied, mut last) = (false, missing);
        let stop = along_path(file, |candidate| {
            last = run_or_shell(candidate, argv, env);
            denied |= last == -(libc::EACCES as isize);
            (!goes_on(last)).then_some(last)
        });
        match stop {
            Some(answer) => answer,
            None if denied => -(libc::EACCES as isize),
            None => last,
        }
    }
}

/// Whether a candidate that failed so lets the search go on.
fn goes_on(answer: isize) -> bool {
    let code = c_int::try_from(answer.wrapping_neg()).unwrap_or(0);
    matches!(
        code,
        libc::EACCES | libc::ENOENT | libc::ESTALE | libc::ENOTDIR | libc::ENODEV | libc::ETIMEDOUT
    )
}
