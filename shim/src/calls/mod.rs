//! The call table: every intercepted operation once, in terms of kernel
//! semantics: a value, or `-errno`, or [`NOT_OURS`].
#![allow(clippy::too_many_arguments, unused_variables)]

mod buffers;
mod fds;
mod io;
mod open;
mod seek;
mod target;
mod transfer;

pub(crate) use fds::*;
pub(crate) use io::*;
pub(crate) use open::*;
pub(crate) use seek::*;
pub(crate) use transfer::*;

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
    ftruncate(fd: c_int, length: i64);
    truncate(path: *const c_char, length: i64);
    fallocate(fd: c_int, mode: c_int, offset: i64, length: i64);
    fstat(fd: c_int, st: *mut libc::stat);
    newfstatat(dirfd: c_int, path: *const c_char, st: *mut libc::stat, flags: c_int);
    statx(dirfd: c_int, path: *const c_char, flags: c_int, mask: u32, stx: *mut libc::statx);
    statfs(path: *const c_char, buf: *mut libc::statfs);
    fstatfs(fd: c_int, buf: *mut libc::statfs);
    faccessat2(dirfd: c_int, path: *const c_char, mode: c_int, flags: c_int);
    mkdirat(dirfd: c_int, path: *const c_char, mode: libc::mode_t);
    mknodat(dirfd: c_int, path: *const c_char, mode: libc::mode_t, device: libc::dev_t);
    unlinkat(dirfd: c_int, path: *const c_char, flags: c_int);
    renameat2(from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: u32);
    linkat(from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_int);
    symlinkat(target: *const c_char, dirfd: c_int, path: *const c_char);
    readlinkat(dirfd: c_int, path: *const c_char, buf: *mut c_char, n: usize);
    fchmodat2(dirfd: c_int, path: *const c_char, mode: libc::mode_t, flags: c_int);
    fchmod(fd: c_int, mode: libc::mode_t);
    fchownat(dirfd: c_int, path: *const c_char, uid: u32, gid: u32, flags: c_int);
    fchown(fd: c_int, uid: u32, gid: u32);
    utimensat(dirfd: c_int, path: *const c_char, times: *const libc::timespec, flags: c_int);
    umask(mask: libc::mode_t);
    getdents64(fd: c_int, buf: *mut c_void, n: usize);
    chdir(path: *const c_char);
    fchdir(fd: c_int);
    chroot(path: *const c_char);
    getcwd(buf: *mut c_char, n: usize);
    inotify_add_watch(fd: c_int, path: *const c_char, mask: u32);
    getxattr(path: *const c_char, name: *const c_char, value: *mut c_void, n: usize);
    lgetxattr(path: *const c_char, name: *const c_char, value: *mut c_void, n: usize);
    fgetxattr(fd: c_int, name: *const c_char, value: *mut c_void, n: usize);
    setxattr(
        path: *const c_char, name: *const c_char, value: *const c_void, n: usize, flags: c_int
    );
    lsetxattr(
        path: *const c_char, name: *const c_char, value: *const c_void, n: usize, flags: c_int
    );
    fsetxattr(fd: c_int, name: *const c_char, value: *const c_void, n: usize, flags: c_int);
    listxattr(path: *const c_char, list: *mut c_char, n: usize);
    llistxattr(path: *const c_char, list: *mut c_char, n: usize);
    flistxattr(fd: c_int, list: *mut c_char, n: usize);
    removexattr(path: *const c_char, name: *const c_char);
    lremovexattr(path: *const c_char, name: *const c_char);
    fremovexattr(fd: c_int, name: *const c_char);
    real_path_of(path: *const c_char, buf: &mut [u8; 4096]);
    canonical(path: *const c_char, buf: &mut [u8; 4096]);
}
