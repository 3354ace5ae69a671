//! Libraries that lie in the cache, for the dynamic loader of the next program:
//! directories of `LD_LIBRARY_PATH` below `CAPIO_DIR` are named once more, as
//! the kernel has them. The next program takes that out again at its start, as
//! the loader has read it by then.

use super::carry::{Strings, begins, each};
use super::scratch::words;
use super::script::is_in_cache;
use crate::calls;
use crate::place;
use crate::sys::syscall;
use crate::text::Text;
use core::ffi::{CStr, c_char};
use core::ptr;
use wire::place::{LIBRARIES, RUN};

const PATH: &CStr = c"LD_LIBRARY_PATH=";
/// Longest new value; a longer one stays as it was.
const ROOM: usize = 8192;

fn is_separator(byte: &u8) -> bool {
    matches!(byte, b':' | b';')
}

/// Appends `path` and a colon; whether it fits.
fn add(list: &mut Text<ROOM>, path: &[u8]) -> bool {
    list.push(path) && list.push(b":")
}

/// The directory of the libraries of a program in the cache that the loader
/// would look for on disk, if it has one.
///
/// # Safety
/// `program` must be null or a C string.
unsafe fn of_program(program: *const c_char, list: &mut Text<ROOM>) -> bool {
    // SAFETY: the caller's promise.
    if program.is_null() || !unsafe { is_in_cache(program) } {
        return false;
    }
    let mut folder = Text::<ROOM>::new();
    // SAFETY: as above.
    let whole = unsafe { CStr::from_ptr(program) }.to_bytes();
    let fits = folder.push(whole) && folder.push(LIBRARIES.as_bytes());
    let (at, exists) = (folder.as_ptr(), libc::F_OK);
    // SAFETY: a string of ours.
    let there = unsafe { syscall!(libc::SYS_faccessat, libc::AT_FDCWD, at, exists) == 0 };
    fits && there && add(list, folder.bytes())
}

/// The kernel's path of the libraries of directory `entry`, if it is ours and
/// has some.
fn of_entry(entry: &[u8], list: &mut Text<ROOM>) -> bool {
    let (mut name, mut real) = (Text::<4096>::new(), [0u8; 4096]);
    if entry.is_empty() || !name.set(entry) {
        return false;
    }
    // SAFETY: a string of ours.
    let length = unsafe { calls::library_path(name.as_ptr(), &mut real) };
    let real = usize::try_from(length).ok().and_then(|n| real.get(..n));
    real.is_some_and(|real| place::is_in_run(real) && add(list, real))
}

/// Writes the value for the next program; whether it differs from `old`.
///
/// # Safety
/// As [`with_libraries`].
#[inline(never)]
unsafe fn value(old: &[u8], program: *const c_char, list: &mut Text<ROOM>) -> bool {
    let mut fits = list.push(PATH.to_bytes());
    // SAFETY: the caller's promise.
    let mut any = unsafe { of_program(program, list) };
    let mut first = true;
    for entry in old.split(is_separator).filter(|_| !old.is_empty()) {
        fits = fits && (first || list.push(b":"));
        any |= of_entry(entry, list);
        fits = fits && list.push(entry);
        first = false;
    }
    any && fits
}

/// Calls `with` with `env`, in which `LD_LIBRARY_PATH` leads to libraries in the
/// cache, too. `program`: the kernel's path of what will run, or null.
///
/// # Safety
/// `env` must be null or a null-terminated list of C strings, `program` null or
/// a C string.
pub(super) unsafe fn with_libraries<R>(
    env: Strings,
    program: *const c_char,
    mut with: impl FnMut(Strings) -> R,
) -> R {
    // SAFETY: the caller's promises.
    unsafe {
        let var = each(env).find(|var| begins(*var, PATH));
        let ours = !program.is_null() && is_in_cache(program);
        if place::get().is_none() || (var.is_none() && !ours) {
            return with(env);
        }
        with_value(env, var, program, &mut with)
    }
}

/// # Safety
/// As [`with_libraries`].
#[inline(never)]
unsafe fn with_value<R>(
    env: Strings,
    var: Option<*const c_char>,
    program: *const c_char,
    with: &mut impl FnMut(Strings) -> R,
) -> R {
    let mut list = Text::<ROOM>::new();
    // SAFETY: the caller's promises; the list has room for what is written.
    unsafe {
        let old = var.map_or(&[][..], |var| CStr::from_ptr(var).to_bytes());
        let old = old.get(PATH.count_bytes()..).unwrap_or_default();
        if !value(old, program, &mut list) {
            return with(env);
        }
        let new = list.as_ptr();
        let count = each(env).count().wrapping_add(2);
        let answer = words(count, |room| {
            let out = room.cast::<*const c_char>();
            *out = new;
            let mut n = 1usize;
            for var in each(env).filter(|var| !begins(*var, PATH)) {
                *out.wrapping_add(n) = var;
                n = n.wrapping_add(1);
            }
            *out.wrapping_add(n) = ptr::null();
            with(out.cast_const())
        });
        match answer {
            Some(answer) => answer,
            None => with(env),
        }
    }
}

/// Takes out of the process's `LD_LIBRARY_PATH` what [`with_libraries`] has put
/// there.
///
/// # Safety
/// `env` must be the process's own environment at its start.
pub(crate) unsafe fn forget_libraries(env: Strings) {
    // SAFETY: the caller's promise: the strings may be written to.
    unsafe {
        let Some(var) = each(env).find(|var| begins(*var, PATH)) else {
            return;
        };
        let value = var.wrapping_add(PATH.count_bytes()).cast_mut().cast::<u8>();
        let length = libc::strlen(value.cast());
        let bytes = core::slice::from_raw_parts_mut(value, length.wrapping_add(1));
        if let Some(session) = place::fixed() {
            keep_others(bytes, session.session.bytes());
        }
    }
}

/// Leaves of a list of directories, which ends with a NUL, those that are not
/// below the directory of programs of `session`. Never longer than before.
fn keep_others(list: &mut [u8], session: &[u8]) {
    let (mut from, mut to) = (0usize, 0usize);
    while let Some(rest) = list.get(from..) {
        let Some(length) = rest
            .iter()
            .position(|byte| is_separator(byte) || *byte == 0)
        else {
            break;
        };
        let ours = rest
            .get(..length)
            .and_then(|entry| place::below(session, entry)?.strip_prefix(b"/"))
            .is_some_and(|rest| place::below(RUN.as_bytes(), rest).is_some());
        let ends = rest.get(length) == Some(&0);
        let next = from.wrapping_add(length).wrapping_add(1);
        if !ours {
            for at in from..next {
                let byte = list.get(at).copied().unwrap_or(0);
                if let Some(slot) = list.get_mut(to) {
                    *slot = byte;
                }
                to = to.wrapping_add(1);
            }
        }
        from = next;
        if ends {
            break;
        }
    }
    // What stands before the end is a separator when the last one was ours.
    if let Some(last) = list.get_mut(to.saturating_sub(1)) {
        *last = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn kept(list: &str) -> std::string::String {
        let mut bytes: Vec<u8> = list.bytes().chain([0]).collect();
        keep_others(&mut bytes, b"/dev/shm/capio-0-1");
        let text = CStr::from_bytes_until_nul(&bytes).unwrap();
        text.to_str().unwrap().into()
    }

    #[test]
    fn a_program_sees_the_library_path_that_it_was_given() {
        let run = "/dev/shm/capio-0-1/run";
        assert_eq!(kept(&std::format!("{run}/lib:/d/lib")), "/d/lib");
        assert_eq!(kept(&std::format!("/a:{run}/b;/b:/c")), "/a:/b:/c");
        assert_eq!(kept(&std::format!("{run}/x.capio-libs:")), "");
        assert_eq!(kept(run), "");
        assert_eq!(kept("/a::/b:"), "/a::/b:");
        assert_eq!(
            kept("/dev/shm/capio-0-12/run/x"),
            "/dev/shm/capio-0-12/run/x"
        );
        assert_eq!(kept(""), "");
    }
}
