//! Names: made, removed, moved, linked, read, and their modes and owners.

use super::hook::{hooks, sound};
use super::next::ret;
use crate::calls::{self, NOT_OURS};
use core::ffi::{c_char, c_int, c_long, c_uint};
use libc::{
    AT_EACCESS, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_NOFOLLOW, S_IFIFO, dev_t, gid_t, mode_t, size_t,
    ssize_t, uid_t,
};

hooks! {
    access(path: *const c_char, mode: c_int) -> c_int
        = calls::faccessat2(AT_FDCWD, path, mode, 0);
    eaccess(path: *const c_char, mode: c_int) -> c_int
        = calls::faccessat2(AT_FDCWD, path, mode, AT_EACCESS);
    euidaccess(path: *const c_char, mode: c_int) -> c_int
        = calls::faccessat2(AT_FDCWD, path, mode, AT_EACCESS);
    faccessat(dirfd: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int
        = calls::faccessat2(dirfd, path, mode, flags);

    mkdir(path: *const c_char, mode: mode_t) -> c_int = calls::mkdirat(AT_FDCWD, path, mode);
    mkdirat(dirfd: c_int, path: *const c_char, mode: mode_t) -> c_int
        = calls::mkdirat(dirfd, path, mode);
    mkfifo(path: *const c_char, mode: mode_t) -> c_int
        = calls::mknodat(AT_FDCWD, path, mode | S_IFIFO, 0);
    mkfifoat(dirfd: c_int, path: *const c_char, mode: mode_t) -> c_int
        = calls::mknodat(dirfd, path, mode | S_IFIFO, 0);
    mknod(path: *const c_char, mode: mode_t, device: dev_t) -> c_int
        = calls::mknodat(AT_FDCWD, path, mode, device);
    mknodat(dirfd: c_int, path: *const c_char, mode: mode_t, device: dev_t) -> c_int
        = calls::mknodat(dirfd, path, mode, device);
    __xmknod(version: c_int, path: *const c_char, mode: mode_t, device: *mut dev_t) -> c_int
        = sound!(version == 0, calls::mknodat(AT_FDCWD, path, mode, *device));
    __xmknodat(
        version: c_int, dirfd: c_int, path: *const c_char, mode: mode_t, device: *mut dev_t
    ) -> c_int = sound!(version == 0, calls::mknodat(dirfd, path, mode, *device));

    unlink(path: *const c_char) -> c_int = calls::unlinkat(AT_FDCWD, path, 0);
    unlinkat(dirfd: c_int, path: *const c_char, flags: c_int) -> c_int
        = calls::unlinkat(dirfd, path, flags);
    rmdir(path: *const c_char) -> c_int = calls::unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
    remove(path: *const c_char) -> c_int = discard(path);

    rename(old: *const c_char, new: *const c_char) -> c_int
        = calls::renameat2(AT_FDCWD, old, AT_FDCWD, new, 0);
    renameat(from: c_int, old: *const c_char, to: c_int, new: *const c_char) -> c_int
        = calls::renameat2(from, old, to, new, 0);
    renameat2(
        from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_uint
    ) -> c_int = calls::renameat2(from, old, to, new, flags);
    link(old: *const c_char, new: *const c_char) -> c_int
        = calls::linkat(AT_FDCWD, old, AT_FDCWD, new, 0);
    linkat(from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_int) -> c_int
        = calls::linkat(from, old, to, new, flags);
    symlink(target: *const c_char, path: *const c_char) -> c_int
        = calls::symlinkat(target, AT_FDCWD, path);
    symlinkat(target: *const c_char, dirfd: c_int, path: *const c_char) -> c_int
        = calls::symlinkat(target, dirfd, path);

    readlink(path: *const c_char, buf: *mut c_char, n: size_t) -> ssize_t
        = calls::readlinkat(AT_FDCWD, path, buf, n);
    readlinkat(dirfd: c_int, path: *const c_char, buf: *mut c_char, n: size_t) -> ssize_t
        = calls::readlinkat(dirfd, path, buf, n);
    __readlink_chk(path: *const c_char, buf: *mut c_char, n: size_t, room: size_t) -> ssize_t
        = sound!(n <= room, calls::readlinkat(AT_FDCWD, path, buf, n));
    __readlinkat_chk(
        dirfd: c_int, path: *const c_char, buf: *mut c_char, n: size_t, room: size_t
    ) -> ssize_t = sound!(n <= room, calls::readlinkat(dirfd, path, buf, n));

    chmod(path: *const c_char, mode: mode_t) -> c_int
        = calls::fchmodat2(AT_FDCWD, path, mode, 0);
    lchmod(path: *const c_char, mode: mode_t) -> c_int
        = calls::fchmodat2(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW);
    fchmod(fd: c_int, mode: mode_t) -> c_int = calls::fchmod(fd, mode);
    fchmodat(dirfd: c_int, path: *const c_char, mode: mode_t, flags: c_int) -> c_int
        = calls::fchmodat2(dirfd, path, mode, flags);
    chown(path: *const c_char, uid: uid_t, gid: gid_t) -> c_int
        = calls::fchownat(AT_FDCWD, path, uid, gid, 0);
    lchown(path: *const c_char, uid: uid_t, gid: gid_t) -> c_int
        = calls::fchownat(AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW);
    fchown(fd: c_int, uid: uid_t, gid: gid_t) -> c_int = calls::fchown(fd, uid, gid);
    fchownat(dirfd: c_int, path: *const c_char, uid: uid_t, gid: gid_t, flags: c_int) -> c_int
        = calls::fchownat(dirfd, path, uid, gid, flags);
    umask(mask: mode_t) -> mode_t = calls::umask(mask);

    inotify_add_watch(fd: c_int, path: *const c_char, mask: u32) -> c_int
        = calls::inotify_add_watch(fd, path, mask);
}

/// `remove`: `unlink`, or `rmdir` of a directory.
unsafe fn discard(path: *const c_char) -> isize {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        match calls::unlinkat(AT_FDCWD, path, 0) {
            answer if answer == -(libc::EISDIR as isize) => {
                calls::unlinkat(AT_FDCWD, path, AT_REMOVEDIR)
            }
            answer => answer,
        }
    }
}

/// `pathconf(3)`: libc asks `statfs` and `stat` inside. What it would find in
/// our directory is what it finds in any other.
///
/// # Safety
/// As `pathconf(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pathconf(path: *const c_char, name: c_int) -> c_long {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let answer = calls::faccessat2(AT_FDCWD, path, libc::F_OK, 0);
        let path = if answer == NOT_OURS {
            path
        } else if answer < 0 {
            return c_long::from(ret(answer));
        } else {
            c"/".as_ptr()
        };
        super::hook::pass_named!(pathconf(path: *const c_char, name: c_int) -> c_long)
    }
}
