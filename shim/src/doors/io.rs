//! Bytes: read, written, moved, mapped, sized and made durable.

use super::hook::{Code, hooks, sound};
use crate::calls;
use core::ffi::{c_char, c_int, c_uint, c_void};
use libc::{iovec, off_t, size_t, ssize_t};

hooks! {
    read(fd: c_int, buf: *mut c_void, n: size_t) -> ssize_t = calls::read(fd, buf, n);
    __read(fd: c_int, buf: *mut c_void, n: size_t) -> ssize_t = calls::read(fd, buf, n);
    __read_chk(fd: c_int, buf: *mut c_void, n: size_t, room: size_t) -> ssize_t
        = sound!(n <= room, calls::read(fd, buf, n));
    write(fd: c_int, buf: *const c_void, n: size_t) -> ssize_t = calls::write(fd, buf, n);
    __write(fd: c_int, buf: *const c_void, n: size_t) -> ssize_t = calls::write(fd, buf, n);

    pread(fd: c_int, buf: *mut c_void, n: size_t, offset: off_t) -> ssize_t
        = calls::pread64(fd, buf, n, offset);
    pread64(fd: c_int, buf: *mut c_void, n: size_t, offset: off_t) -> ssize_t
        = calls::pread64(fd, buf, n, offset);
    __pread64(fd: c_int, buf: *mut c_void, n: size_t, offset: off_t) -> ssize_t
        = calls::pread64(fd, buf, n, offset);
    __pread_chk(
        fd: c_int, buf: *mut c_void, n: size_t, offset: off_t, room: size_t
    ) -> ssize_t = sound!(n <= room, calls::pread64(fd, buf, n, offset));
    __pread64_chk(
        fd: c_int, buf: *mut c_void, n: size_t, offset: off_t, room: size_t
    ) -> ssize_t = sound!(n <= room, calls::pread64(fd, buf, n, offset));
    pwrite(fd: c_int, buf: *const c_void, n: size_t, offset: off_t) -> ssize_t
        = calls::pwrite64(fd, buf, n, offset);
    pwrite64(fd: c_int, buf: *const c_void, n: size_t, offset: off_t) -> ssize_t
        = calls::pwrite64(fd, buf, n, offset);
    __pwrite64(fd: c_int, buf: *const c_void, n: size_t, offset: off_t) -> ssize_t
        = calls::pwrite64(fd, buf, n, offset);

    readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t = calls::readv(fd, iov, count);
    writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t
        = calls::writev(fd, iov, count);
    preadv(fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> ssize_t
        = placed(offset, |at| calls::preadv2(fd, iov, count, at, 0));
    preadv64(fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> ssize_t
        = placed(offset, |at| calls::preadv2(fd, iov, count, at, 0));
    pwritev(fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> ssize_t
        = placed(offset, |at| calls::pwritev2(fd, iov, count, at, 0));
    pwritev64(fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> ssize_t
        = placed(offset, |at| calls::pwritev2(fd, iov, count, at, 0));
    preadv2(
        fd: c_int, iov: *const iovec, count: c_int, offset: off_t, flags: c_int
    ) -> ssize_t = calls::preadv2(fd, iov, count, offset, flags);
    preadv64v2(
        fd: c_int, iov: *const iovec, count: c_int, offset: off_t, flags: c_int
    ) -> ssize_t = calls::preadv2(fd, iov, count, offset, flags);
    pwritev2(
        fd: c_int, iov: *const iovec, count: c_int, offset: off_t, flags: c_int
    ) -> ssize_t = calls::pwritev2(fd, iov, count, offset, flags);
    pwritev64v2(
        fd: c_int, iov: *const iovec, count: c_int, offset: off_t, flags: c_int
    ) -> ssize_t = calls::pwritev2(fd, iov, count, offset, flags);

    lseek(fd: c_int, offset: off_t, whence: c_int) -> off_t = calls::lseek(fd, offset, whence);
    lseek64(fd: c_int, offset: off_t, whence: c_int) -> off_t = calls::lseek(fd, offset, whence);
    __lseek(fd: c_int, offset: off_t, whence: c_int) -> off_t = calls::lseek(fd, offset, whence);

    sendfile(out: c_int, from: c_int, offset: *mut off_t, n: size_t) -> ssize_t
        = calls::sendfile(out, from, offset, n);
    sendfile64(out: c_int, from: c_int, offset: *mut off_t, n: size_t) -> ssize_t
        = calls::sendfile(out, from, offset, n);
    copy_file_range(
        from: c_int, from_at: *mut off_t, to: c_int, to_at: *mut off_t, n: size_t, flags: c_uint
    ) -> ssize_t = calls::copy_file_range(from, from_at, to, to_at, n, flags);
    splice(
        from: c_int, from_at: *mut off_t, to: c_int, to_at: *mut off_t, n: size_t, flags: c_uint
    ) -> ssize_t = calls::splice(from, from_at, to, to_at, n, flags);

    mmap(
        at: *mut c_void, n: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off_t
    ) -> *mut c_void
        = sound!(maps(flags, fd), calls::mmap(at, n, protection, flags, fd, offset));
    mmap64(
        at: *mut c_void, n: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off_t
    ) -> *mut c_void
        = sound!(maps(flags, fd), calls::mmap(at, n, protection, flags, fd, offset));

    fsync(fd: c_int) -> c_int = calls::fsync(fd);
    fdatasync(fd: c_int) -> c_int = calls::fdatasync(fd);
    syncfs(fd: c_int) -> c_int = calls::syncfs(fd);
    sync_file_range(fd: c_int, offset: off_t, n: off_t, flags: c_uint) -> c_int
        = calls::sync_file_range(fd, offset, n, flags);
    readahead(fd: c_int, offset: off_t, n: size_t) -> ssize_t = calls::readahead(fd, offset, n);
    posix_fadvise(fd: c_int, offset: off_t, n: off_t, advice: c_int) -> Code
        = calls::fadvise64(fd, offset, n, advice);
    posix_fadvise64(fd: c_int, offset: off_t, n: off_t, advice: c_int) -> Code
        = calls::fadvise64(fd, offset, n, advice);

    ftruncate(fd: c_int, length: off_t) -> c_int = calls::ftruncate(fd, length);
    ftruncate64(fd: c_int, length: off_t) -> c_int = calls::ftruncate(fd, length);
    truncate(path: *const c_char, length: off_t) -> c_int
        = calls::truncate(path, length);
    truncate64(path: *const c_char, length: off_t) -> c_int
        = calls::truncate(path, length);
    fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int
        = calls::fallocate(fd, mode, offset, length);
    fallocate64(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int
        = calls::fallocate(fd, mode, offset, length);
    posix_fallocate(fd: c_int, offset: off_t, length: off_t) -> Code
        = calls::fallocate(fd, 0, offset, length);
    posix_fallocate64(fd: c_int, offset: off_t, length: off_t) -> Code
        = calls::fallocate(fd, 0, offset, length);
}

/// For `preadv2` and `pwritev2`, -1 is the place where the file stands; for
/// calls without flags it is as wrong as any negative offset.
pub(super) fn placed(offset: off_t, call: impl FnOnce(off_t) -> isize) -> isize {
    call(if offset == -1 { off_t::MIN } else { offset })
}

/// Whether a mapping is one of a file.
pub(super) fn maps(flags: c_int, fd: c_int) -> bool {
    fd >= 0 && flags & libc::MAP_ANONYMOUS == 0
}
