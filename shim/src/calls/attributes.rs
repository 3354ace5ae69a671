//! Access, modes, owners, times, sizes.

use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;

use wire::limits::MAX_PATH;
use wire::message::{Name, Reply, Request, SetTime};

use super::goal::{Goal, Said, ask, goal, known_flags, open_at, tell, usable};
use super::target::{Target, answer, done, target};
use super::{NOT_OURS, known};
use crate::place::{self, PathArgument};
use crate::sys::syscall;
use crate::text::Text;
use crate::{control, usercopy};

/// Flags that all calls by directory and path take.
const AT_FLAGS: c_int = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;

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
    let may = |mode: c_int| {
        known_flags(flags, AT_FLAGS | libc::AT_EACCESS)?;
        if let Goal::Name(name) = goal
            && let Some(granted) = known::access(name, mode)
        {
            return granted.map(|()| 0);
        }
        let thread = control::thread()?;
        let request = Request::Access {
            target,
            mode: mode.cast_unsigned(),
            thread,
        };
        // SAFETY: a string of ours.
        tell(&request, |path| unsafe {
            if flags == 0 {
                return syscall!(libc::SYS_faccessat, libc::AT_FDCWD, path, mode);
            }
            syscall!(libc::SYS_faccessat2, libc::AT_FDCWD, path, mode, flags)
        })
    };
    if mode & !(libc::R_OK | libc::W_OK | libc::X_OK) != 0 {
        return answer(Err(libc::EINVAL));
    }
    answer(may(mode))
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
    let change = || {
        known_flags(flags, AT_FLAGS)?;
        match goal {
            Goal::Name(name) if !follows(flags) => no_link(name)?,
            _ => {}
        }
        // SAFETY: a string of ours.
        tell(&Request::Chmod { target, mode }, |path| unsafe {
            if follows(flags) {
                return syscall!(libc::SYS_fchmodat, libc::AT_FDCWD, path, mode);
            }
            syscall!(libc::SYS_fchmodat2, libc::AT_FDCWD, path, mode, flags)
        })
    };
    answer(change())
}

/// Symbolic links have no mode to change.
///
/// # Errors
/// `EOPNOTSUPP` for one; those of the path.
fn no_link(name: Name<'_>) -> Result<(), i32> {
    let mut path = Text::<MAX_PATH>::new();
    let link = ask(&Request::Readlink { name }, &mut path, |reply| {
        matches!(reply, Reply::Path(_)).then_some(())
    });
    match link {
        Ok(Said::Value(())) => Err(libc::EOPNOTSUPP),
        // The kernel looks for itself.
        Ok(Said::Native { .. }) | Err(libc::EINVAL) => Ok(()),
        Err(error) => Err(error),
    }
}

/// As `fchmod(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn fchmod(fd: c_int, mode: libc::mode_t) -> isize {
    if let Err(error) = usable(fd) {
        return answer(Err(error));
    }
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
    answer(known_flags(flags, AT_FLAGS).and_then(|()| {
        // SAFETY: a string of ours.
        tell(&Request::Chown { target, uid, gid }, |path| unsafe {
            syscall!(libc::SYS_fchownat, libc::AT_FDCWD, path, uid, gid, flags)
        })
    }))
}

/// As `fchown(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn fchown(fd: c_int, uid: u32, gid: u32) -> isize {
    if let Err(error) = usable(fd) {
        return answer(Err(error));
    }
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
    let itself = path.is_null() && dirfd != libc::AT_FDCWD;
    let goal = if itself {
        open_at(dirfd)
    } else {
        // SAFETY: the caller's own promises.
        unsafe { goal(&mut room, dirfd, path, flags) }
    };
    let Some(target) = goal.target(follows(flags)) else {
        return NOT_OURS;
    };
    let change = || {
        // SAFETY: the caller's own promises.
        let [accessed, modified] = unsafe { read_times(times) }?;
        if (accessed, modified) == (SetTime::Omit, SetTime::Omit) {
            // The kernel does not even look whether the file exists.
            return Ok(0);
        }
        known_flags(flags, if itself { 0 } else { AT_FLAGS })?;
        if itself {
            usable(dirfd)?;
        }
        let request = Request::Utimens {
            target,
            accessed,
            modified,
        };
        // SAFETY: the caller's own promises; a string of ours.
        tell(&request, |path| unsafe {
            syscall!(libc::SYS_utimensat, libc::AT_FDCWD, path, times, flags)
        })
    };
    answer(change())
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
        // A time that does not fit becomes the nearest that does, as in the kernel.
        0..1_000_000_000 => Ok(SetTime::At(
            time.tv_sec
                .saturating_mul(1_000_000_000)
                .saturating_add(time.tv_nsec),
        )),
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
    if target.ofd.flags() & libc::O_PATH != 0 {
        return Err(libc::EBADF);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tv_sec: i64, tv_nsec: i64) -> Result<SetTime, i32> {
        set_time(libc::timespec { tv_sec, tv_nsec })
    }

    #[test]
    fn times_before_the_epoch_and_beyond_what_fits_can_be_set() {
        assert_eq!(set(1, 5), Ok(SetTime::At(1_000_000_005)));
        assert_eq!(set(-1, 5), Ok(SetTime::At(-999_999_995)));
        assert_eq!(set(i64::MAX, 0), Ok(SetTime::At(i64::MAX)));
        assert_eq!(set(7, libc::UTIME_NOW), Ok(SetTime::Now));
        assert_eq!(set(7, libc::UTIME_OMIT), Ok(SetTime::Omit));
    }

    #[test]
    fn times_that_make_no_sense_are_refused() {
        assert_eq!(set(0, 1_000_000_000), Err(libc::EINVAL));
        assert_eq!(set(0, -1), Err(libc::EINVAL));
    }
}
