//! The doors: how calls reach the call table.

mod cwd;
mod dirstream;
mod exec;
mod fds;
mod grow;
mod hook;
mod io;
mod lock;
mod next;
mod old_dirent;
mod paths;
mod raw;
mod realpath;
mod slots;
mod spawn;
mod stat;
mod temp;
mod times;
mod walk;
mod xattr;

use core::ffi::c_int;

/// Runs before `main` with the arguments of the program, as glibc does it.
unsafe extern "C" fn at_start(_: c_int, _: exec::Strings, env: exec::Strings) {
    // SAFETY: the process's own environment.
    unsafe { exec::remember(env) };
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: unsafe extern "C" fn(c_int, exec::Strings, exec::Strings) = at_start;
