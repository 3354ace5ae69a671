//! Descriptors: the kernel's own calls on the reservation, and the table kept
//! up to date.

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering::Relaxed;

use wire::message::{OfdId, Request};

use super::NOT_OURS;
use super::goal::{hand_over, kernel};
use super::target::{Target, answer, done, target};
use crate::descriptors::{self, Kind};
use crate::sys::syscall;
use crate::{attach, control, usercopy};

/// Whether `fd` is a descriptor of a taken-over file or directory.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn is_ours(fd: c_int) -> bool {
    descriptors::get(fd) != Kind::None
}

const fn refused(error: c_int) -> isize {
    (error as isize).wrapping_neg()
}

/// As `close(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
#[inline(always)]
pub(crate) unsafe fn close(fd: c_int) -> isize {
    if descriptors::get(fd) == Kind::None {
        if fd >= 0 && fd == attach::own_socket() {
            return refused(libc::EBADF);
        }
        return NOT_OURS;
    }
    descriptors::set(fd, Kind::None);
    // SAFETY: an integer.
    unsafe { syscall!(libc::SYS_close, fd) }
}

/// As `close_range(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn close_range(first: u32, last: u32, flags: u32) -> isize {
    let own = attach::own_socket();
    let closes = flags & libc::CLOSE_RANGE_CLOEXEC == 0;
    if own < 0 || !closes || first > last {
        return NOT_OURS;
    }
    descriptors::forget(first, last);
    let own = own.cast_unsigned();
    if !(first..=last).contains(&own) {
        return NOT_OURS;
    }
    let close = |first: u32, last: Option<u32>| match last {
        // SAFETY: integers.
        Some(last) if first <= last => unsafe {
            syscall!(libc::SYS_close_range, first, last, flags)
        },
        _ => 0,
    };
    match close(first, own.checked_sub(1)) {
        0 => close(own.wrapping_add(1), Some(last)),
        error => error,
    }
}

/// As `dup(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn dup(fd: c_int) -> isize {
    let kind = descriptors::get(fd);
    if kind == Kind::None {
        return NOT_OURS;
    }
    // SAFETY: an integer.
    noted(unsafe { syscall!(libc::SYS_dup, fd) }, kind)
}

/// Notes what a new descriptor is.
fn noted(fd: isize, kind: Kind) -> isize {
    if let Ok(number) = c_int::try_from(fd)
        && number >= 0
    {
        descriptors::set(number, kind);
    }
    fd
}

/// As `dup2(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn dup2(old: c_int, new: c_int) -> isize {
    // SAFETY: integers.
    unsafe { replace(old, new, || syscall!(libc::SYS_dup2, old, new)) }
}

/// As `dup3(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn dup3(old: c_int, new: c_int, flags: c_int) -> isize {
    // SAFETY: integers.
    unsafe { replace(old, new, || syscall!(libc::SYS_dup3, old, new, flags)) }
}

/// Makes `new` a copy of `old` by `call`.
fn replace(old: c_int, new: c_int, call: impl FnOnce() -> isize) -> isize {
    let (kind, before) = (descriptors::get(old), descriptors::get(new));
    let own = attach::own_socket();
    if own >= 0 && old == own {
        return refused(libc::EBADF);
    }
    if own >= 0
        && new == own
        && let Err(error) = attach::move_socket()
    {
        return refused(error);
    }
    if kind == Kind::None && before == Kind::None {
        return NOT_OURS;
    }
    // The other way round a thread could see a file of ours in a foreign one.
    let answer = call();
    if answer >= 0 && old != new {
        descriptors::set(new, kind);
    }
    answer
}

/// As `fcntl(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn fcntl(fd: c_int, cmd: c_int, arg: usize) -> isize {
    let kind = descriptors::get(fd);
    if kind == Kind::None {
        return NOT_OURS;
    }
    // SAFETY: the caller's own promises.
    let call = || unsafe { syscall!(libc::SYS_fcntl, fd, cmd, arg) };
    match cmd {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => noted(call(), kind),
        libc::F_GETLK
        | libc::F_SETLK
        | libc::F_SETLKW
        | libc::F_OFD_GETLK
        | libc::F_OFD_SETLK
        | libc::F_OFD_SETLKW => match target(fd) {
            Some(target) => answer(lock_range(target, fd, cmd, arg as *mut libc::flock)),
            None => NOT_OURS,
        },
        libc::F_SETFL => match target(fd) {
            Some(target) => set_flags(target.ofd.id, arg, call()),
            None => NOT_OURS,
        },
        _ => NOT_OURS,
    }
}

/// A record lock: the kernel's own, on the reservation, where the kernel knows
/// neither offset nor size.
fn lock_range(target: Target, fd: c_int, cmd: c_int, lock: *mut libc::flock) -> Result<isize, i32> {
    let mut wanted = MaybeUninit::<libc::flock>::uninit();
    let n = size_of::<libc::flock>();
    // SAFETY: room for one; the source may fault.
    let mut wanted = unsafe {
        if usercopy::copy(wanted.as_mut_ptr().cast(), lock.cast(), n) != 0 {
            return Err(libc::EFAULT);
        }
        wanted.assume_init()
    };
    let base = match c_int::from(wanted.l_whence) {
        libc::SEEK_CUR => target.ofd.sync.offset.load(Relaxed),
        libc::SEEK_END => target.file.sync.size.load(Relaxed),
        _ => 0,
    };
    let whence = c_int::from(wanted.l_whence);
    if matches!(whence, libc::SEEK_CUR | libc::SEEK_END) {
        let start = wanted.l_start.checked_add(base.cast_signed());
        wanted.l_start = start.ok_or(libc::EOVERFLOW)?;
        wanted.l_whence = libc::SEEK_SET as libc::c_short;
    }
    // SAFETY: a lock of ours.
    let done = kernel(unsafe { syscall!(libc::SYS_fcntl, fd, cmd, &raw mut wanted) })?;
    if matches!(cmd, libc::F_GETLK | libc::F_OFD_GETLK) {
        if wanted.l_type == libc::F_UNLCK as libc::c_short {
            // Only the type is told then.
            wanted.l_start = wanted.l_start.wrapping_sub(base.cast_signed());
            wanted.l_whence = whence as libc::c_short;
        }
        // SAFETY: the caller's own promises.
        unsafe { hand_over(&wanted, lock) }?;
    }
    Ok(done)
}

/// Tells the coordinator of flags that the kernel has accepted.
fn set_flags(ofd: OfdId, flags: usize, accepted: isize) -> isize {
    if accepted < 0 {
        return accepted;
    }
    done(control::tell(&Request::SetFlags {
        ofd,
        flags: flags as i32,
    }))
}

/// As `flock(2)`: the kernel's, as all descriptions of a file share its inode.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn flock(_fd: c_int, _operation: c_int) -> isize {
    NOT_OURS
}

/// A call that has nothing to do for a file in the cache.
fn nothing_to_do(fd: c_int) -> isize {
    target(fd).map_or(NOT_OURS, |target| done(target.alive()))
}

/// As `fsync(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn fsync(fd: c_int) -> isize {
    target(fd).map_or(NOT_OURS, |target| done(sync(target)))
}

/// Has all of the file brought to the device.
fn sync(target: Target) -> Result<(), i32> {
    target.alive()?;
    control::tell(&Request::Sync {
        ofd: target.ofd.id,
        thread: control::thread()?,
    })
}

/// As `fdatasync(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn fdatasync(fd: c_int) -> isize {
    // SAFETY: handed on.
    unsafe { fsync(fd) }
}

/// As `syncfs(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn syncfs(fd: c_int) -> isize {
    nothing_to_do(fd)
}

/// As `sync_file_range(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn sync_file_range(fd: c_int, _offset: i64, _n: i64, _flags: u32) -> isize {
    nothing_to_do(fd)
}

/// As `posix_fadvise(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn fadvise64(fd: c_int, _offset: i64, _length: i64, _advice: c_int) -> isize {
    nothing_to_do(fd)
}

/// As `readahead(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn readahead(fd: c_int, _offset: i64, _count: usize) -> isize {
    nothing_to_do(fd)
}

/// As `ioctl(2)`: what programs ask of a plain file.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn ioctl(fd: c_int, request: u64, arg: usize) -> isize {
    let Some(target) = target(fd) else {
        return NOT_OURS;
    };
    match request {
        libc::FIOCLEX | libc::FIONCLEX | libc::FIONBIO | libc::FIOASYNC => NOT_OURS,
        libc::FIONREAD => {
            let offset = target.ofd.sync.offset.load(Relaxed);
            let left = target.limit().saturating_sub(offset);
            let left = c_int::try_from(left).unwrap_or(c_int::MAX);
            // SAFETY: a copy that may fault.
            let failed = unsafe {
                usercopy::copy(arg as *mut u8, (&raw const left).cast(), size_of::<c_int>())
            };
            answer(if failed == 0 {
                Ok(0)
            } else {
                Err(libc::EFAULT)
            })
        }
        FICLONE | FICLONERANGE | FIDEDUPERANGE => refused(libc::EOPNOTSUPP),
        _ => refused(libc::ENOTTY),
    }
}

/// `ioctl_ficlone(2)`.
const FICLONE: u64 = 0x4004_9409;
/// `ioctl_ficlonerange(2)`.
const FICLONERANGE: u64 = 0x4020_940d;
/// `ioctl_fideduperange(2)`.
const FIDEDUPERANGE: u64 = 0xc018_9436;
