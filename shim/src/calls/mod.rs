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
    close_range(first: u32, last: u32, flags: u32);
    read(fd: c_int, buf: *mut c_void, n: usize);
    write(fd: c_int, buf: *const c_void, n: usize);
    pread64(fd: c_int, buf: *mut c_void, n: usize, offset: i64);
    pwrite64(fd: c_int, buf: *const c_void, n: usize, offset: i64);
    readv(fd: c_int, iov: *const libc::iovec, count: c_int);
    writev(fd: c_int, iov: *const libc::iovec, count: c_int);
    preadv2(fd: c_int, iov: *const libc::iovec, count: c_int, offset: i64, flags: c_int);
    pwritev2(fd: c_int, iov: *const libc::iovec, count: c_int, offset: i64, flags: c_int);
    lseek(fd: c_int, offset: i64, whence: c_int);
    fsync(fd: c_int);
    fdatasync(fd: c_int);
    syncfs(fd: c_int);
    sync_file_range(fd: c_int, offset: i64, n: i64, flags: u32);
    ftruncate(fd: c_int, length: i64);
    truncate(path: *const c_char, length: i64);
    fallocate(fd: c_int, mode: c_int, offset: i64, length: i64);
    fadvise64(fd: c_int, offset: i64, length: i64, advice: c_int);
    readahead(fd: c_int, offset: i64, count: usize);
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
    dup(fd: c_int);
    dup2(old: c_int, new: c_int);
    dup3(old: c_int, new: c_int, flags: c_int);
    fcntl(fd: c_int, cmd: c_int, arg: usize);
    flock(fd: c_int, operation: c_int);
    ioctl(fd: c_int, request: u64, arg: usize);
    chdir(path: *const c_char);
    fchdir(fd: c_int);
    chroot(path: *const c_char);
    getcwd(buf: *mut c_char, n: usize);
    sendfile(out: c_int, from: c_int, offset: *mut i64, n: usize);
    copy_file_range(
        from: c_int, from_offset: *mut i64, to: c_int, to_offset: *mut i64, n: usize, flags: u32
    );
    splice(
        from: c_int, from_offset: *mut i64, to: c_int, to_offset: *mut i64, n: usize, flags: u32
    );
    mmap(
        addr: *mut c_void, length: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64
    );
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

/// Whether `fd` is a descriptor of a taken-over file or directory.
pub(crate) unsafe fn is_ours(fd: c_int) -> bool {
    false
}
