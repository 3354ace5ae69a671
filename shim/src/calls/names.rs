//! Calls that make, move and remove names.

use core::ffi::{c_char, c_int};

use wire::limits::MAX_PATH;
use wire::message::{Name, Reply, Request};

use super::NOT_OURS;
use super::goal::{Goal, Said, ask, goal, hand_bytes, kernel, tell};
use super::target::answer;
use crate::descriptors::Kind;
use crate::place::{self, PathArgument, Where};
use crate::sys::syscall;
use crate::text::Text;

/// Where the call of a name leads: the name, or why not.
macro_rules! named {
    ($room:ident, $dirfd:expr, $path:expr) => {
        // SAFETY: the caller's own promises.
        match unsafe { $room.locate($dirfd, $path) } {
            Where::Here(name) => name,
            Where::Descriptor(fd, path) if !path.is_empty() => match crate::descriptors::get(fd) {
                Kind::Directory(base) => Name { base, path },
                _ => return NOT_OURS,
            },
            _ => return NOT_OURS,
        }
    };
}

/// As `mkdirat(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn mkdirat(dirfd: c_int, path: *const c_char, mode: libc::mode_t) -> isize {
    let mut room = PathArgument::new();
    let name = named!(room, dirfd, path);
    let request = Request::Mkdir {
        name,
        mode: mode & 0o7777 & !place::umask(),
    };
    // SAFETY: a string of ours.
    answer(tell(&request, |path| unsafe {
        syscall!(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode)
    }))
}

/// As `mknodat(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn mknodat(
    dirfd: c_int,
    path: *const c_char,
    mode: libc::mode_t,
    device: libc::dev_t,
) -> isize {
    let mut room = PathArgument::new();
    let name = named!(room, dirfd, path);
    let request = Request::Mknod {
        name,
        mode: mode & !place::umask(),
        device,
    };
    // SAFETY: a string of ours.
    answer(tell(&request, |path| unsafe {
        syscall!(libc::SYS_mknodat, libc::AT_FDCWD, path, mode, device)
    }))
}

/// As `unlinkat(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn unlinkat(dirfd: c_int, path: *const c_char, flags: c_int) -> isize {
    let mut room = PathArgument::new();
    let name = named!(room, dirfd, path);
    if flags & !libc::AT_REMOVEDIR != 0 {
        return answer(Err(libc::EINVAL));
    }
    let request = Request::Unlink {
        name,
        directory: flags & libc::AT_REMOVEDIR != 0,
    };
    // SAFETY: a string of ours.
    answer(tell(&request, |path| unsafe {
        syscall!(libc::SYS_unlinkat, libc::AT_FDCWD, path, flags)
    }))
}

/// As `renameat2(2)`. Across the border of `CAPIO_DIR`: `EXDEV`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn renameat2(
    from: c_int,
    old: *const c_char,
    to: c_int,
    new: *const c_char,
    flags: u32,
) -> isize {
    let (mut old_room, mut new_room) = (PathArgument::new(), PathArgument::new());
    // SAFETY: the caller's own promises.
    let (source, target) = unsafe { (old_room.locate(from, old), new_room.locate(to, new)) };
    match (source, target) {
        (Where::Here(from), Where::Here(to)) => {
            let request = Request::Rename { from, to, flags };
            answer(tell(&request, |_| (libc::EXDEV as isize).wrapping_neg()))
        }
        (Where::Here(_), _) | (_, Where::Here(_)) => answer(Err(libc::EXDEV)),
        _ => NOT_OURS,
    }
}

/// As `linkat(2)`. Across the border of `CAPIO_DIR`: `EXDEV`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn linkat(
    from: c_int,
    old: *const c_char,
    to: c_int,
    new: *const c_char,
    flags: c_int,
) -> isize {
    let (mut old_room, mut new_room) = (PathArgument::new(), PathArgument::new());
    let follow = flags & libc::AT_SYMLINK_FOLLOW != 0;
    let mut at = flags & libc::AT_EMPTY_PATH;
    if !follow {
        at |= libc::AT_SYMLINK_NOFOLLOW;
    }
    // SAFETY: the caller's own promises.
    let (source, place) = unsafe { (goal(&mut old_room, from, old, at), new_room.locate(to, new)) };
    match (source.target(follow), place) {
        (Some(target), Where::Here(to)) => {
            let request = Request::Link { target, to };
            answer(tell(&request, |_| (libc::EXDEV as isize).wrapping_neg()))
        }
        (Some(_), _) | (_, Where::Here(_)) => answer(Err(libc::EXDEV)),
        _ => NOT_OURS,
    }
}

/// As `symlinkat(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn symlinkat(target: *const c_char, dirfd: c_int, path: *const c_char) -> isize {
    let mut room = PathArgument::new();
    let name = named!(room, dirfd, path);
    let mut content = Text::<MAX_PATH>::new();
    // SAFETY: the caller's own promises.
    if !unsafe { content.read(target) } {
        return answer(Err(libc::EFAULT));
    }
    let request = Request::Symlink {
        content: content.bytes(),
        name,
    };
    // SAFETY: a string of ours.
    answer(tell(&request, |path| unsafe {
        syscall!(libc::SYS_symlinkat, target, libc::AT_FDCWD, path)
    }))
}

/// As `readlinkat(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn readlinkat(
    dirfd: c_int,
    path: *const c_char,
    buf: *mut c_char,
    n: usize,
) -> isize {
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    let found = match unsafe { room.locate(dirfd, path) } {
        Where::Here(name) => content(&Request::Readlink { name }),
        Where::Descriptor(fd, b"") => match crate::descriptors::get(fd) {
            Kind::Directory(base) => {
                let name = Name { base, path: b"" };
                content(&Request::Canonical { name })
            }
            _ => return NOT_OURS,
        },
        _ => return NOT_OURS,
    };
    answer(found.and_then(|(mut text, native)| {
        if native {
            // SAFETY: a string of ours; the caller's buffer.
            let call =
                unsafe { syscall!(libc::SYS_readlinkat, libc::AT_FDCWD, text.as_ptr(), buf, n) };
            return kernel(call);
        }
        if n == 0 {
            return Err(libc::EINVAL);
        }
        let bytes = text
            .bytes()
            .get(..n.min(text.bytes().len()))
            .unwrap_or_default();
        // SAFETY: the caller's buffer of `n` bytes.
        unsafe { hand_bytes(bytes, buf.cast()) }?;
        Ok(bytes.len() as isize)
    }))
}

/// The text that is asked for; `true`: it is a path to do the call on.
fn content(request: &Request<'_>) -> Result<(Text<MAX_PATH>, bool), i32> {
    let (mut path, mut found) = (Text::new(), Text::new());
    let said = ask(request, &mut path, |reply| match reply {
        Reply::Path(text) => found.set(text).then_some(()),
        _ => None,
    })?;
    Ok(match said {
        Said::Value(()) => (found, false),
        Said::Native { .. } => (path, true),
    })
}

/// As `inotify_add_watch(2)`: not for ours; `tail -f` goes on by looking
/// again and again.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn inotify_add_watch(_fd: c_int, path: *const c_char, _mask: u32) -> isize {
    if path.is_null() {
        return NOT_OURS;
    }
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    match unsafe { goal(&mut room, libc::AT_FDCWD, path, 0) } {
        Goal::Elsewhere => NOT_OURS,
        _ => answer(Err(libc::ENOSYS)),
    }
}
