//! The working directory, and paths as the kernel or the program sees them.
//! Inside `CAPIO_DIR` the kernel's working directory is a shadow directory.

use core::ffi::{c_char, c_int};

use wire::limits::MAX_PATH;
use wire::message::{Name, Reply, Request};

use super::NOT_OURS;
use super::goal::{Goal, Said, ask, ask_once_there, goal, hand_bytes, kernel, kernel_name};
use super::target::answer;
use crate::control;
use crate::descriptors::{self, Kind};
use crate::place::{self, PathArgument};
use crate::sys::syscall;
use crate::text::Text;

/// As `chdir(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn chdir(path: *const c_char) -> isize {
    if place::get().is_none() || path.is_null() {
        return NOT_OURS;
    }
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    let entered = match unsafe { goal(&mut room, libc::AT_FDCWD, path, 0) } {
        Goal::Name(name) => enter(name, true).and_then(|mut shadow| {
            // SAFETY: a string of ours.
            kernel(unsafe { syscall!(libc::SYS_chdir, shadow.as_ptr()) })
        }),
        // SAFETY: an integer.
        Goal::Descriptor(fd, _) => kernel(unsafe { syscall!(libc::SYS_fchdir, fd) }),
        // SAFETY: the caller's own promises.
        Goal::Elsewhere => kernel(unsafe { syscall!(libc::SYS_chdir, path) }),
    };
    place::forget_cwd();
    answer(entered)
}

/// The kernel's path of a directory, of a file of the lower layer, or of a socket
/// or pipe.
pub(super) fn enter(name: Name<'_>, directory: bool) -> Result<Text<MAX_PATH>, i32> {
    let mut path = Text::new();
    let request = Request::Enter { name, directory };
    match ask_once_there(&request, name, &mut path, |_| None::<()>)? {
        Said::Native { .. } => Ok(path),
        Said::Value(()) => Err(libc::EIO),
    }
}

/// As `fchdir(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
pub(crate) unsafe fn fchdir(fd: c_int) -> isize {
    if place::get().is_none() {
        return NOT_OURS;
    }
    // SAFETY: an integer.
    let answer = unsafe { syscall!(libc::SYS_fchdir, fd) };
    place::forget_cwd();
    answer
}

/// As `chroot(2)`: `EPERM` for a directory of the session.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn chroot(path: *const c_char) -> isize {
    if path.is_null() {
        return NOT_OURS;
    }
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    match unsafe { goal(&mut room, libc::AT_FDCWD, path, 0) } {
        Goal::Elsewhere => NOT_OURS,
        _ => answer(Err(libc::EPERM)),
    }
}

/// As `getcwd(2)`: the length with the NUL.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn getcwd(buf: *mut c_char, n: usize) -> isize {
    let Some(place) = place::get() else {
        return NOT_OURS;
    };
    let mut path = Text::<MAX_PATH>::new();
    if !place::cwd_is_inside() || !place::read_cwd(&mut path) {
        return NOT_OURS;
    }
    let mut whole = Text::<MAX_PATH>::new();
    let rest = place.behind_shadow(path.bytes());
    let fits = rest.is_some_and(|rest| {
        whole.set(place.canonical.bytes()) && whole.push(rest) && whole.push(b"\0")
    });
    if !fits {
        return NOT_OURS;
    }
    let bytes = whole.bytes();
    if bytes.len() > n {
        return answer(Err(libc::ERANGE));
    }
    // SAFETY: the caller's buffer of `n` bytes.
    answer(unsafe { hand_bytes(bytes, buf.cast()) }.map(|()| bytes.len() as isize))
}

/// The kernel's path, with a NUL, of a program that it is to run. Its length;
/// [`NOT_OURS`]. Waits where a consumer waits.
///
/// # Safety
/// `path` may be any address whose content is the caller's.
pub(crate) unsafe fn program_path(path: *const c_char, buf: &mut [u8; 4096]) -> isize {
    if path.is_null() {
        return NOT_OURS;
    }
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    let goal = unsafe { goal(&mut room, libc::AT_FDCWD, path, 0) };
    let found = match goal {
        Goal::Elsewhere => return NOT_OURS,
        Goal::Name(_) | Goal::Descriptor(_, Kind::Ofd { .. }) => runnable(&goal, false),
        Goal::Descriptor(fd, _) => {
            let mut name = Text::new();
            descriptors::name_of(fd, &mut name);
            Ok(name)
        }
    };
    answer(found.and_then(|text| fill(text.bytes(), buf)))
}

fn runnable(goal: &Goal<'_>, library: bool) -> Result<Text<MAX_PATH>, i32> {
    let target = goal.target(true).ok_or(libc::EACCES)?;
    let request = Request::Run {
        target,
        library,
        thread: control::thread()?,
    };
    let mut path = Text::new();
    match ask(&request, &mut path, |_| None)? {
        Said::Native { .. } => Ok(path),
        Said::Value(()) => Err(libc::EIO),
    }
}

/// [`program_path`] of a library, which need not be executable.
///
/// # Safety
/// `path` may be any address whose content is the caller's.
pub(crate) unsafe fn library_path(path: *const c_char, buf: &mut [u8; 4096]) -> isize {
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    match unsafe { goal(&mut room, libc::AT_FDCWD, path, 0) } {
        goal @ (Goal::Name(_) | Goal::Descriptor(_, Kind::Ofd { .. })) => {
            answer(runnable(&goal, true).and_then(|text| fill(text.bytes(), buf)))
        }
        _ => NOT_OURS,
    }
}

/// The kernel's path, with a NUL, of a directory or of a file of the lower
/// layer: for what the kernel must enter itself. Its length; [`NOT_OURS`];
/// `-ENOEXEC` for a file in the cache.
///
/// # Safety
/// `path` may be any address whose content is the caller's.
pub(crate) unsafe fn real_path_of(path: *const c_char, buf: &mut [u8; 4096]) -> isize {
    if path.is_null() {
        return NOT_OURS;
    }
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    let found = match unsafe { goal(&mut room, libc::AT_FDCWD, path, 0) } {
        Goal::Elsewhere => return NOT_OURS,
        Goal::Name(name) => enter(name, false),
        Goal::Descriptor(_, Kind::Ofd { .. }) => Err(libc::ENOEXEC),
        Goal::Descriptor(fd, _) => {
            let mut name = Text::new();
            descriptors::name_of(fd, &mut name);
            Ok(name)
        }
    };
    answer(found.and_then(|text| fill(text.bytes(), buf)))
}

/// Writes `bytes` and a NUL; the length without it.
fn fill(bytes: &[u8], buf: &mut [u8; 4096]) -> Result<isize, i32> {
    let room = buf.get_mut(..=bytes.len()).ok_or(libc::ENAMETOOLONG)?;
    let end = bytes.iter().chain([&0]);
    room.iter_mut()
        .zip(end)
        .for_each(|(slot, byte)| *slot = *byte);
    Ok(bytes.len() as isize)
}

/// As `realpath(3)`: the length of the path in `buf`; [`NOT_OURS`].
///
/// # Safety
/// `path` may be any address whose content is the caller's.
pub(crate) unsafe fn canonical(path: *const c_char, buf: &mut [u8; 4096]) -> isize {
    if path.is_null() {
        return NOT_OURS;
    }
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    let name = match unsafe { goal(&mut room, libc::AT_FDCWD, path, 0) } {
        Goal::Name(name) => name,
        Goal::Descriptor(_, Kind::Directory(base)) => Name { base, path: b"" },
        _ => return NOT_OURS,
    };
    let (mut native, mut found) = (Text::new(), Text::<MAX_PATH>::new());
    let request = Request::Canonical { name };
    let said = ask_once_there(&request, name, &mut native, |reply| match reply {
        Reply::Path(text) => found.set(text).then_some(()),
        _ => None,
    });
    answer(said.and_then(|said| {
        if matches!(said, Said::Native { .. }) {
            kernel_name(native.as_ptr(), &mut found)?;
        }
        fill(found.bytes(), buf)
    }))
}
