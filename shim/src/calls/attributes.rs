//! Access, modes, owners, times, sizes.

use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;

use wire::message::{Request, SetTime};

use super::NOT_OURS;
use super::goal::{Goal, goal, tell};
use super::target::{Target, answer, done, target};
use crate::descriptors::Kind;
use crate::place::{self, PathArgument};
use crate::sys::syscall;
use crate::{control, usercopy};

const fn follows(flags: c_int) -> bool {
    flags & libc::AT_SYMLINK_NOFOLLOW == 0
}

/// As `faccessat2(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn faccessat2(
    dirfd: c_int,
    path: *const c_char,
    mode: c_int,
    flags: c_int,
) -> isize {
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    let goal = unsafe { goal(&mut room, dirfd, path, flags) };
    let Some(target) = goal.target(follows(flags)) else {
        return NOT_OURS;
    };
    answer(control::thread().and_then(|thread| {
        let request = Request::Access {
            target,
            mode: mode.cast_unsigned(),
            thread,
        };
        // SAFETY: a string of ours.
        tell(&request, |path| unsafe {
            syscall!(libc::SYS_faccessat2, libc::AT_FDCWD, path, mode, flags)
        })
    }))
}

/// As `fchmodat2(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn fchmodat2(
    dirfd: c_int,
    path: *const c_char,
    mode: libc::mode_t,
    flags: c_int,
) -> isize {
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    let goal = unsafe { goal(&mut room, dirfd, path, flags) };
    let Some(target) = goal.target(follows(flags)) else {
        return NOT_OURS;
    };
    let mode = mode & 0o7777;
    // SAFETY: a string of ours.
    answer(tell(&Request::Chmod { target, mode }, |path| unsafe {
        syscall!(libc::SYS_fchmodat, libc::AT_FDCWD, path, mode)
    }))
}

/// As `fchmod(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn fchmod(fd: c_int, mode: libc::mode_t) -> isize {
    // SAFETY: handed on; no path.
    unsafe { fchmodat2(fd, core::ptr::null(), mode, libc::AT_EMPTY_PATH) }
}

/// As `fchownat(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn fchownat(
    dirfd: c_int,
    path: *const c_char,
    uid: u32,
    gid: u32,
    flags: c_int,
) -> isize {
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    let goal = unsafe { goal(&mut room, dirfd, path, flags) };
    let Some(target) = goal.target(follows(flags)) else {
        return NOT_OURS;
    };
    // SAFETY: a string of ours.
    answer(tell(&Request::Chown { target, uid, gid }, |path| unsafe {
        syscall!(libc::SYS_fchownat, libc::AT_FDCWD, path, uid, gid, flags)
    }))
}

/// As `fchown(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn fchown(fd: c_int, uid: u32, gid: u32) -> isize {
    // SAFETY: handed on; no path.
    unsafe { fchownat(fd, core::ptr::null(), uid, gid, libc::AT_EMPTY_PATH) }
}

/// As `utimensat(2)`; a null path: `dirfd` itself.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn utimensat(
    dirfd: c_int,
    path: *const c_char,
    times: *const libc::timespec,
    flags: c_int,
) -> isize {
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    let goal = unsafe { goal(&mut room, dirfd, path, flags) };
    let Some(target) = goal.target(follows(flags)) else {
        return NOT_OURS;
    };
    // SAFETY: the caller's own promises.
    let read = unsafe { read_times(times) };
    answer(read.and_then(|[accessed, modified]| {
        let request = Request::Utimens {
            target,
            accessed,
            modified,
        };
        // SAFETY: a string of ours; the caller's times.
        tell(&request, |path| unsafe {
            syscall!(libc::SYS_utimensat, libc::AT_FDCWD, path, times, flags)
        })
    }))
}

/// The two times of `utimensat(2)`; null: now.
unsafe fn read_times(times: *const libc::timespec) -> Result<[SetTime; 2], i32> {
    if times.is_null() {
        return Ok([SetTime::Now; 2]);
    }
    let mut pair = MaybeUninit::<[libc::timespec; 2]>::uninit();
    let bytes = size_of::<[libc::timespec; 2]>();
    // SAFETY: room for two; the source may fault.
    let [accessed, modified] = unsafe {
        if usercopy::copy(pair.as_mut_ptr().cast(), times.cast(), bytes) != 0 {
            return Err(libc::EFAULT);
        }
        pair.assume_init()
    };
    Ok([set_time(accessed)?, set_time(modified)?])
}

fn set_time(time: libc::timespec) -> Result<SetTime, i32> {
    match time.tv_nsec {
        libc::UTIME_NOW => Ok(SetTime::Now),
        libc::UTIME_OMIT => Ok(SetTime::Omit),
        0..1_000_000_000 => time
            .tv_sec
            .checked_mul(1_000_000_000)
            .and_then(|ns| ns.checked_add(time.tv_nsec))
            .map(SetTime::At)
            .ok_or(libc::EINVAL),
        _ => Err(libc::EINVAL),
    }
}

/// As `umask(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn umask(mask: libc::mode_t) -> isize {
    if place::get().is_none() {
        return NOT_OURS;
    }
    // SAFETY: an integer.
    let old = unsafe { syscall!(libc::SYS_umask, mask) };
    place::keep_umask(mask);
    old
}

/// As `truncate(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn truncate(path: *const c_char, length: i64) -> isize {
    if path.is_null() {
        return NOT_OURS;
    }
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    let goal = unsafe { goal(&mut room, libc::AT_FDCWD, path, 0) };
    let Some(target) = goal.target(true) else {
        return NOT_OURS;
    };
    let Ok(size) = u64::try_from(length) else {
        return answer(Err(libc::EINVAL));
    };
    // SAFETY: a string of ours.
    answer(tell(&Request::Truncate { target, size }, |path| unsafe {
        syscall!(libc::SYS_truncate, path, length)
    }))
}

/// As `ftruncate(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn ftruncate(fd: c_int, length: i64) -> isize {
    let Some(target) = target(fd) else {
        return NOT_OURS;
    };
    done(resize(target, length))
}

fn resize(target: Target, length: i64) -> Result<(), i32> {
    target.alive()?;
    let size = u64::try_from(length).map_err(|_| libc::EINVAL)?;
    if !target.ofd.is_writable() {
        return Err(libc::EINVAL);
    }
    let ofd = wire::message::Target::Ofd(target.ofd.id);
    control::tell(&Request::Truncate { target: ofd, size })
}

/// As `fallocate(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn fallocate(fd: c_int, mode: c_int, offset: i64, length: i64) -> isize {
    let Some(target) = target(fd) else {
        return NOT_OURS;
    };
    done(allocate(target, mode, offset, length))
}

fn allocate(target: Target, mode: c_int, offset: i64, length: i64) -> Result<(), i32> {
    target.writable()?;
    let offset = u64::try_from(offset).map_err(|_| libc::EINVAL)?;
    let length = u64::try_from(length).map_err(|_| libc::EINVAL)?;
    if length == 0 {
        return Err(libc::EINVAL);
    }
    control::tell(&Request::Allocate {
        ofd: target.ofd.id,
        mode,
        offset,
        length,
    })
}

/// Extended attributes: files in the cache have none, and take none.
macro_rules! no_attributes {
    ($($name:ident($first:ident: $type:ty $(, $arg:ident: $arg_type:ty)*) = $answer:expr;)*) => {$(
        /// As the system call of this name.
        ///
        /// # Safety
        /// The arguments must be valid for the system call of this name.
        pub(crate) unsafe fn $name($first: $type $(, $arg: $arg_type)*) -> isize {
            // SAFETY: the caller's own promises.
            if unsafe { $first.leads_to_ours() } {
                return answer($answer);
            }
            NOT_OURS
        }
    )*};
}

/// The first argument of an extended-attribute call.
trait Subject {
    /// Whether it leads to a file in the cache or a directory of the session.
    unsafe fn leads_to_ours(self) -> bool;
}

impl Subject for *const c_char {
    unsafe fn leads_to_ours(self) -> bool {
        let mut room = PathArgument::new();
        // SAFETY: the caller's own promises.
        !self.is_null()
            && !matches!(
                unsafe { goal(&mut room, libc::AT_FDCWD, self, 0) },
                Goal::Elsewhere
            )
    }
}

impl Subject for c_int {
    unsafe fn leads_to_ours(self) -> bool {
        let kind = crate::descriptors::get(self);
        !matches!(kind, Kind::None | Kind::Lower(_))
    }
}

use core::ffi::c_void;

no_attributes! {
    getxattr(path: *const c_char, _name: *const c_char, _value: *mut c_void, _n: usize)
        = Err(libc::ENODATA);
    lgetxattr(path: *const c_char, _name: *const c_char, _value: *mut c_void, _n: usize)
        = Err(libc::ENODATA);
    fgetxattr(fd: c_int, _name: *const c_char, _value: *mut c_void, _n: usize)
        = Err(libc::ENODATA);
    setxattr(
        path: *const c_char, _name: *const c_char, _value: *const c_void, _n: usize, _flags: c_int
    ) = Err(libc::ENOTSUP);
    lsetxattr(
        path: *const c_char, _name: *const c_char, _value: *const c_void, _n: usize, _flags: c_int
    ) = Err(libc::ENOTSUP);
    fsetxattr(fd: c_int, _name: *const c_char, _value: *const c_void, _n: usize, _flags: c_int)
        = Err(libc::ENOTSUP);
    listxattr(path: *const c_char, _list: *mut c_char, _n: usize) = Ok(0);
    llistxattr(path: *const c_char, _list: *mut c_char, _n: usize) = Ok(0);
    flistxattr(fd: c_int, _list: *mut c_char, _n: usize) = Ok(0);
    removexattr(path: *const c_char, _name: *const c_char) = Err(libc::ENODATA);
    lremovexattr(path: *const c_char, _name: *const c_char) = Err(libc::ENODATA);
    fremovexattr(fd: c_int, _name: *const c_char) = Err(libc::ENODATA);
}
