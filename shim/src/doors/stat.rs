//! What files and file systems are: `stat` in all its ages, `statfs`,
//! `statvfs`.

use super::hook::{hooks, sound};
use crate::calls::{self, NOT_OURS};
use core::ffi::{c_char, c_int, c_uint, c_ulong};
use core::mem::{MaybeUninit, zeroed};
use libc::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, stat as Stat, statfs as Statfs, statvfs as Statvfs};

/// Versions of `struct stat` that libc's old functions take; both are today's.
fn known(version: c_int) -> bool {
    version == 0 || version == 1
}

hooks! {
    stat(path: *const c_char, st: *mut Stat) -> c_int
        = calls::newfstatat(AT_FDCWD, path, st, 0);
    stat64(path: *const c_char, st: *mut Stat) -> c_int
        = calls::newfstatat(AT_FDCWD, path, st, 0);
    lstat(path: *const c_char, st: *mut Stat) -> c_int
        = calls::newfstatat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
    lstat64(path: *const c_char, st: *mut Stat) -> c_int
        = calls::newfstatat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
    fstat(fd: c_int, st: *mut Stat) -> c_int = calls::fstat(fd, st);
    fstat64(fd: c_int, st: *mut Stat) -> c_int = calls::fstat(fd, st);
    fstatat(dirfd: c_int, path: *const c_char, st: *mut Stat, flags: c_int) -> c_int
        = calls::newfstatat(dirfd, path, st, flags);
    fstatat64(dirfd: c_int, path: *const c_char, st: *mut Stat, flags: c_int) -> c_int
        = calls::newfstatat(dirfd, path, st, flags);

    __xstat(version: c_int, path: *const c_char, st: *mut Stat) -> c_int
        = sound!(known(version), calls::newfstatat(AT_FDCWD, path, st, 0));
    __xstat64(version: c_int, path: *const c_char, st: *mut Stat) -> c_int
        = sound!(known(version), calls::newfstatat(AT_FDCWD, path, st, 0));
    __lxstat(version: c_int, path: *const c_char, st: *mut Stat) -> c_int
        = sound!(known(version), calls::newfstatat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW));
    __lxstat64(version: c_int, path: *const c_char, st: *mut Stat) -> c_int
        = sound!(known(version), calls::newfstatat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW));
    __fxstat(version: c_int, fd: c_int, st: *mut Stat) -> c_int
        = sound!(known(version), calls::fstat(fd, st));
    __fxstat64(version: c_int, fd: c_int, st: *mut Stat) -> c_int
        = sound!(known(version), calls::fstat(fd, st));
    __fxstatat(
        version: c_int, dirfd: c_int, path: *const c_char, st: *mut Stat, flags: c_int
    ) -> c_int = sound!(known(version), calls::newfstatat(dirfd, path, st, flags));
    __fxstatat64(
        version: c_int, dirfd: c_int, path: *const c_char, st: *mut Stat, flags: c_int
    ) -> c_int = sound!(known(version), calls::newfstatat(dirfd, path, st, flags));

    statx(
        dirfd: c_int, path: *const c_char, flags: c_int, mask: c_uint, stx: *mut libc::statx
    ) -> c_int = calls::statx(dirfd, path, flags, mask, stx);

    statfs(path: *const c_char, buf: *mut Statfs) -> c_int = calls::statfs(path, buf);
    statfs64(path: *const c_char, buf: *mut Statfs) -> c_int = calls::statfs(path, buf);
    __statfs(path: *const c_char, buf: *mut Statfs) -> c_int = calls::statfs(path, buf);
    fstatfs(fd: c_int, buf: *mut Statfs) -> c_int = calls::fstatfs(fd, buf);
    fstatfs64(fd: c_int, buf: *mut Statfs) -> c_int = calls::fstatfs(fd, buf);
    statvfs(path: *const c_char, buf: *mut Statvfs) -> c_int
        = converted(buf, |fs| calls::statfs(path, fs));
    statvfs64(path: *const c_char, buf: *mut Statvfs) -> c_int
        = converted(buf, |fs| calls::statfs(path, fs));
    fstatvfs(fd: c_int, buf: *mut Statvfs) -> c_int
        = converted(buf, |fs| calls::fstatfs(fd, fs));
    fstatvfs64(fd: c_int, buf: *mut Statvfs) -> c_int
        = converted(buf, |fs| calls::fstatfs(fd, fs));
}

/// `ftok(3)`: libc asks `stat` inside.
///
/// # Safety
/// As `ftok(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ftok(path: *const c_char, id: c_int) -> c_int {
    // SAFETY: the caller's own promises, handed on; zeroed is a valid `stat`.
    unsafe {
        let mut st: Stat = zeroed();
        match calls::newfstatat(AT_FDCWD, path, &raw mut st, 0) {
            NOT_OURS => super::hook::pass_named!(ftok(path: *const c_char, id: c_int) -> c_int),
            answer if answer < 0 => super::next::ret(answer),
            _ => {
                let (inode, device) = (st.st_ino & 0xffff, (st.st_dev & 0xff) << 16);
                (inode | device) as c_int | (id << 24)
            }
        }
    }
}

/// What `statfs` tells, in the words of `statvfs`.
///
/// # Safety
/// `buf` must be valid for writing.
unsafe fn converted(buf: *mut Statvfs, ask: impl FnOnce(*mut Statfs) -> isize) -> isize {
    let mut fs = MaybeUninit::<Statfs>::zeroed();
    let answer = ask(fs.as_mut_ptr());
    if answer != NOT_OURS && answer >= 0 {
        // SAFETY: zeroed is valid, and the call has filled it; the caller's promise.
        unsafe { buf.write(vfs(&fs.assume_init())) };
    }
    answer
}

/// As libc converts it. The kernel marks flags that it has filled in by a bit
/// that `statvfs` does not show.
fn vfs(fs: &Statfs) -> Statvfs {
    const FILLED_IN: c_ulong = 0x20;
    // SAFETY: numbers only: zeroed is valid.
    let mut out: Statvfs = unsafe { zeroed() };
    let fragment = if fs.f_frsize == 0 {
        fs.f_bsize
    } else {
        fs.f_frsize
    };
    out.f_bsize = fs.f_bsize as c_ulong;
    out.f_frsize = fragment as c_ulong;
    out.f_blocks = fs.f_blocks;
    out.f_bfree = fs.f_bfree;
    out.f_bavail = fs.f_bavail;
    out.f_files = fs.f_files;
    out.f_ffree = fs.f_ffree;
    out.f_favail = fs.f_ffree;
    // SAFETY: the two halves of the number are its eight bytes.
    out.f_fsid = unsafe { (&raw const fs.f_fsid).cast::<c_ulong>().read_unaligned() };
    out.f_namemax = fs.f_namelen as c_ulong;
    // The kernel's flags follow the fragment size, unnamed in `Statfs`.
    const FLAGS: usize = core::mem::offset_of!(Statfs, f_frsize) + size_of::<c_ulong>();
    // SAFETY: inside the structure, where the words after the size are spare.
    let flags = unsafe {
        core::ptr::from_ref(fs)
            .byte_add(FLAGS)
            .cast::<c_ulong>()
            .read()
    };
    out.f_flag = flags & !FILLED_IN;
    out
}
