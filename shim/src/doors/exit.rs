//! The ways by which a process ends itself. `exit` and the return of `main`
//! come by the destructors, at the latest.

use super::next::next;
use crate::attach::note_ending;
use crate::sys::syscall;
use core::ffi::c_int;

/// As libc's, which handlers and children of `vfork` call: nothing is looked
/// up for it.
unsafe fn end(status: c_int) -> ! {
    note_ending();
    loop {
        // SAFETY: takes a plain integer.
        unsafe { syscall!(libc::SYS_exit_group, status) };
    }
}

/// `_exit(2)`.
///
/// # Safety
/// As the function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn _exit(status: c_int) -> ! {
    // SAFETY: handed on.
    unsafe { end(status) }
}

/// `_Exit(3)`.
///
/// # Safety
/// As the function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[allow(non_snake_case, reason = "libc's name")]
unsafe extern "C" fn _Exit(status: c_int) -> ! {
    // SAFETY: handed on.
    unsafe { end(status) }
}

/// `quick_exit(3)`.
///
/// # Safety
/// As the function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn quick_exit(status: c_int) -> ! {
    note_ending();
    // SAFETY: libc's own signature; the caller's argument.
    unsafe {
        match next!(c"quick_exit" as unsafe extern "C" fn(c_int) -> !) {
            Some(next) => next(status),
            None => end(status),
        }
    }
}

unsafe extern "C" fn at_end() {
    note_ending();
}

#[used]
#[unsafe(link_section = ".fini_array")]
static AT_END: unsafe extern "C" fn() = at_end;
