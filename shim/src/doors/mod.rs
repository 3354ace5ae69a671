//! The doors: how calls reach the call table.

mod aio;
mod cwd;
mod dirstream;
pub(crate) mod exec;
mod exit;
mod fds;
mod grow;
mod handed;
mod hook;
mod io;
mod jumps;
mod library;
mod lock;
pub(crate) mod next;
mod old_dirent;
mod paths;
mod print;
mod raw;
mod realpath;
mod rings;
mod slots;
mod sockets;
mod spawn;
mod stat;
mod streams;
mod temp;
mod times;
mod walk;
mod xattr;

pub(crate) use jumps::{install, verified};

use core::ffi::c_int;

/// Runs before `main` with the arguments of the program, as glibc does it.
unsafe extern "C" fn at_start(_: c_int, _: exec::Strings, env: exec::Strings) {
    // SAFETY: the process's own environment.
    unsafe { exec::remember(env) };
    if exec::saved(c"CAPIO_DIR").is_some() {
        crate::attach::start();
        // SAFETY: as above.
        unsafe { exec::forget_libraries(env) };
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: unsafe extern "C" fn(c_int, exec::Strings, exec::Strings) = at_start;
