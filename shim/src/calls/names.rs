//! Calls that make, move and remove names.

use core::ffi::{c_char, c_int};

use wire::limits::MAX_PATH;
use wire::message::{Name, OfdId, Reply, Request, Target};

use super::NOT_OURS;
use super::goal::{Goal, Said, ask, goal, hand_bytes, kernel, known_flags, look_for, tell};
use super::target::answer;
use crate::descriptors::{self, Kind};
use crate::place::{self, PathArgument, Where};
use crate::sys::syscall;
use crate::text::Text;
use crate::usercopy;

/// The name that a located path stands for; `None`: it is not ours.
pub(super) fn name_at(place: Where<'_>) -> Option<Name<'_>> {
    match place {
        Where::Here(name) => Some(name),
        Where::Descriptor(fd, path) if !path.is_empty() => match descriptors::get(fd) {
            Kind::Directory(base) => Some(Name { base, path }),
            _ => None,
        },
        _ => None,
    }
}

/// Where the call of a name leads: the name, or why not.
macro_rules! named {
    ($room:ident, $dirfd:expr, $path:expr) => {
        // SAFETY: the caller's own promises.
        match name_at(unsafe { $room.locate($dirfd, $path) }) {
            Some(name) => name,
            None => return NOT_OURS,
        }
    };
}

/// The last component of a path.
#[derive(Debug, PartialEq, Eq)]
enum Last {
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// A name, or nothing.
    Other,
}

impl Last {
    fn of(path: &[u8]) -> Self {
        let whole = without_end(path);
        let start = whole.iter().rposition(|&byte| byte == b'/');
        let last = whole.get(start.map_or(0, |at| at.wrapping_add(1))..);
        match last {
            Some(b".") => Self::Dot,
            Some(b"..") => Self::DotDot,
            _ => Self::Other,
        }
    }
}

/// `path` without slashes at its end.
fn without_end(path: &[u8]) -> &[u8] {
    let mut rest = path;
    while let [head @ .., b'/'] = rest {
        rest = head;
    }
    rest
}

/// The name without slashes at its end: a symbolic link there is not followed.
fn bare(name: Name<'_>) -> Name<'_> {
    Name {
        path: without_end(name.path),
        ..name
    }
}

/// As `mkdirat(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn mkdirat(dirfd: c_int, path: *const c_char, mode: libc::mode_t) -> isize {
    let mut room = PathArgument::new();
    let name = named!(room, dirfd, path);
    let request = Request::Mkdir {
        name: bare(name),
        // As the kernel does: the group bit comes from the parent only.
        mode: mode & 0o1777 & !place::umask(),
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
    let directory = flags & libc::AT_REMOVEDIR != 0;
    let remove = || {
        known_flags(flags, libc::AT_REMOVEDIR)?;
        match (Last::of(name.path), directory) {
            (Last::Dot, true) => return Err(libc::EINVAL),
            (Last::DotDot, true) => return Err(libc::ENOTEMPTY),
            (Last::Dot | Last::DotDot, false) => return Err(libc::EISDIR),
            _ => {}
        }
        let name = if directory { bare(name) } else { name };
        // SAFETY: a string of ours.
        tell(&Request::Unlink { name, directory }, |path| unsafe {
            syscall!(libc::SYS_unlinkat, libc::AT_FDCWD, path, flags)
        })
    };
    answer(remove())
}

/// The error of a call on two paths of which one is not ours, `path`.
///
/// # Safety
/// `path` may be any address whose content is the caller's.
unsafe fn across(path: *const c_char) -> isize {
    let mut bytes = [0; MAX_PATH];
    // SAFETY: the caller's word; a fault is no harm.
    let length = kernel(unsafe { usercopy::copy_cstr(&mut bytes, path) });
    answer(length.and_then(|length| {
        Err(match length {
            0 => libc::ENOENT,
            _ => libc::EXDEV,
        })
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
    let other = match (name_at(source), name_at(target)) {
        (Some(from), Some(to)) => return answer(rename(from, to, flags)),
        (None, None) => return NOT_OURS,
        (Some(_), None) => new,
        (None, Some(_)) => old,
    };
    // SAFETY: the caller's own promises.
    unsafe { across(other) }
}

fn rename(from: Name<'_>, to: Name<'_>, flags: u32) -> Result<isize, i32> {
    if [from, to]
        .iter()
        .any(|name| Last::of(name.path) != Last::Other)
    {
        return Err(libc::EBUSY);
    }
    let request = Request::Rename { from, to, flags };
    tell(&request, |_| (libc::EXDEV as isize).wrapping_neg())
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
    let other = match (source.target(follow), name_at(place)) {
        (Some(target), Some(to)) => return answer(link(target, to, flags)),
        (None, None) => return NOT_OURS,
        (Some(_), None) => new,
        (None, Some(_)) => old,
    };
    // SAFETY: the caller's own promises.
    unsafe { across(other) }
}

fn link(target: Target<'_>, to: Name<'_>, flags: c_int) -> Result<isize, i32> {
    known_flags(flags, libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH)?;
    let request = Request::Link { target, to };
    tell(&request, |_| (libc::EXDEV as isize).wrapping_neg())
}

/// As `symlinkat(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn symlinkat(target: *const c_char, dirfd: c_int, path: *const c_char) -> isize {
    let mut room = PathArgument::new();
    let name = named!(room, dirfd, path);
    let mut content = [0; MAX_PATH];
    // SAFETY: the caller's own promises; a fault is no harm.
    let length = kernel(unsafe { usercopy::copy_cstr(&mut content, target) });
    answer(length.and_then(|length| {
        let request = Request::Symlink {
            content: content.get(..length as usize).unwrap_or_default(),
            name,
        };
        // SAFETY: a string of ours.
        tell(&request, |path| unsafe {
            syscall!(libc::SYS_symlinkat, target, libc::AT_FDCWD, path)
        })
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
        Where::Descriptor(fd, b"") => match descriptors::get(fd) {
            Kind::Directory(base) => {
                let name = Name { base, path: b"" };
                content(&Request::Canonical { name })
            }
            Kind::Ofd { id, generation } => {
                let ofd = OfdId { id, generation };
                content(&Request::NameOf { ofd })
            }
            _ => return NOT_OURS,
        },
        Where::Program(_) => program(),
        place => match name_at(place) {
            Some(name) => content(&Request::Readlink { name }),
            None => return NOT_OURS,
        },
    };
    if (n as c_int) <= 0 {
        // The kernel's length is an int.
        return answer(Err(libc::EINVAL));
    }
    answer(found.and_then(|(mut text, native)| {
        if native {
            // SAFETY: a string of ours; the caller's buffer.
            let call =
                unsafe { syscall!(libc::SYS_readlinkat, libc::AT_FDCWD, text.as_ptr(), buf, n) };
            return kernel(call);
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

/// What `/proc/self/exe` says, for a program of the cache.
fn program() -> Result<(Text<MAX_PATH>, bool), i32> {
    let mut path = Text::new();
    let known = place::get().is_some_and(|place| place.program(&mut path));
    known.then_some((path, false)).ok_or(libc::ENAMETOOLONG)
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

/// As `inotify_add_watch(2)`: `ENOSYS` for ours, upon which `tail -f` goes on
/// by looking again and again.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn inotify_add_watch(fd: c_int, path: *const c_char, mask: u32) -> isize {
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    match unsafe { goal(&mut room, libc::AT_FDCWD, path, 0) } {
        Goal::Elsewhere => NOT_OURS,
        Goal::Descriptor(..) => answer(Err(libc::ENOSYS)),
        Goal::Name(name) => {
            let mut at = Text::new();
            let watch = look_for(name, &mut at);
            let Ok(Said::Native { inode: None }) = watch else {
                return answer(watch.and(Err(libc::ENOSYS)));
            };
            // SAFETY: a path of ours; integers.
            unsafe { syscall!(libc::SYS_inotify_add_watch, fd, at.as_ptr(), mask) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_takes_a_directory_for_the_name_of_one() {
        assert_eq!(Last::of(b"."), Last::Dot);
        assert_eq!(Last::of(b"d/.//"), Last::Dot);
        assert_eq!(Last::of(b"d/.."), Last::DotDot);
        assert_eq!(Last::of(b"../"), Last::DotDot);
        for name in [&b"d/.x"[..], b"...", b"d", b"", b"./d", b"../.x.", b"d/x/"] {
            assert_eq!(Last::of(name), Last::Other);
        }
    }

    #[test]
    fn slashes_at_the_end_of_a_name_are_taken_off() {
        let name = Name {
            base: 3,
            path: b"a/b//",
        };
        assert_eq!(bare(name).path, b"a/b");
        assert_eq!(bare(name).base, 3);
    }
}
