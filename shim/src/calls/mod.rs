// replaced at integration
//! The call table: every intercepted operation once, in terms of kernel
//! semantics. Here each call passes on to the host.
#![allow(clippy::too_many_arguments, unused_variables)]

use core::ffi::{c_char, c_int, c_void};

/// The call concerns no taken-over file: the door calls the next function.
pub(crate) const NOT_OURS: isize = isize::MIN;

macro_rules! passed_on {
    ($($name:ident($($a:ident: $t:ty),*);)*) => {$(
        /// As the system call of this name.
        ///
        /// # Safety
        /// The arguments must be valid for the system call of this name.
        pub(crate) unsafe fn $name($($a: $t),*) -> isize { NOT_OURS }
    )*};
}

passed_on! {
    openat(dirfd: c_int, path: *const c_char, flags: c_int, mode: libc::mode_t);
    close(fd: c_int);
    lseek(fd: c_int, offset: i64, whence: c_int);
    fstat(fd: c_int, st: *mut libc::stat);
    newfstatat(dirfd: c_int, path: *const c_char, st: *mut libc::stat, flags: c_int);
    faccessat2(dirfd: c_int, path: *const c_char, mode: c_int, flags: c_int);
    mkdirat(dirfd: c_int, path: *const c_char, mode: libc::mode_t);
    getdents64(fd: c_int, buf: *mut c_void, n: usize);
    fcntl(fd: c_int, cmd: c_int, arg: usize);
    chdir(path: *const c_char);
    fchdir(fd: c_int);
    real_path_of(path: *const c_char, buf: &mut [u8; 4096]);
    canonical(path: *const c_char, buf: &mut [u8; 4096]);
}

/// Whether `fd` is a descriptor of a taken-over file or directory.
pub(crate) unsafe fn is_ours(fd: c_int) -> bool {
    false
}
