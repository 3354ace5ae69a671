//! What a call by path is about, and what the coordinator says to it.

use core::ffi::{c_char, c_int};

use wire::limits::MAX_PATH;
use wire::message::{Name, OfdId, Reply, Request, Target};

use super::target::target;
use crate::control;
use crate::descriptors::{self, Kind};
use crate::place::{self, PathArgument, Where};
use crate::sys::syscall;
use crate::text::Text;
use crate::usercopy;

/// What a directory descriptor and a path lead to.
pub(crate) enum Goal<'a> {
    /// A path below `CAPIO_DIR`.
    Name(Name<'a>),
    /// What is open at a descriptor of ours.
    Descriptor(c_int, Kind),
    /// Nothing that concerns the session.
    Elsewhere,
}

/// What `path` from `dirfd` leads to, with the `AT_*` of `flags`. With
/// `AT_EMPTY_PATH` a null path is an empty one; otherwise the kernel refuses it.
///
/// # Safety
/// `path` may be any address whose content is the caller's.
#[inline(always)]
pub(crate) unsafe fn goal(
    room: &mut PathArgument,
    dirfd: c_int,
    path: *const c_char,
    flags: c_int,
) -> Goal<'_> {
    // SAFETY: the caller's word; `is_empty` copies what may fault.
    if flags & libc::AT_EMPTY_PATH != 0 && (path.is_null() || unsafe { is_empty(path) }) {
        return open_at(dirfd);
    }
    // SAFETY: the caller's word.
    match unsafe { room.locate(dirfd, path) } {
        Where::Here(name) => Goal::Name(name),
        Where::Program(Some(name)) if flags & libc::AT_SYMLINK_NOFOLLOW == 0 => Goal::Name(name),
        Where::Descriptor(fd, b"") if flags & libc::AT_SYMLINK_NOFOLLOW == 0 => open_at(fd),
        Where::Descriptor(fd, rest) if !rest.is_empty() => match descriptors::get(fd) {
            Kind::Directory(base) => Goal::Name(Name { base, path: rest }),
            _ => Goal::Elsewhere,
        },
        _ => Goal::Elsewhere,
    }
}

/// What is open at `fd`, or the working directory.
pub(crate) fn open_at(fd: c_int) -> Goal<'static> {
    let kind = if fd == libc::AT_FDCWD {
        place::cwd_inode().map_or(Kind::None, Kind::Directory)
    } else {
        descriptors::get(fd)
    };
    match kind {
        Kind::None => Goal::Elsewhere,
        kind => Goal::Descriptor(fd, kind),
    }
}

/// Whether `path` is the empty string.
///
/// # Safety
/// `path` may be any address whose content is the caller's.
pub(crate) unsafe fn is_empty(path: *const c_char) -> bool {
    let mut first = 1u8;
    // SAFETY: one byte of ours; the source may fault.
    let left = unsafe { usercopy::copy(&raw mut first, path.cast(), 1) };
    left == 0 && first == 0
}

impl<'a> Goal<'a> {
    /// As the coordinator is asked for it; `follow`: through a symbolic link
    /// at its end. `None`: elsewhere.
    pub(crate) fn target(&self, follow: bool) -> Option<Target<'a>> {
        match *self {
            Self::Name(name) => Some(Target::Path { name, follow }),
            Self::Descriptor(_, Kind::Ofd { id, generation }) => {
                Some(Target::Ofd(OfdId { id, generation }))
            }
            Self::Descriptor(_, Kind::Directory(inode)) => Some(Target::Directory(inode)),
            Self::Descriptor(fd, Kind::Lower(inode)) => {
                Some(Target::Directory(lower_inode(fd, inode)))
            }
            _ => None,
        }
    }
}

/// Inode of a file of the lower layer that is open at `fd`. One that was
/// inherited is asked for by its path.
pub(crate) fn lower_inode(fd: c_int, known: u64) -> u64 {
    if known != 0 {
        return known;
    }
    let mut name = Text::<MAX_PATH>::new();
    descriptors::name_of(fd, &mut name);
    let inode = place::get()
        .and_then(|place| place.inside(name.bytes()))
        .and_then(|rest| ask_inode(crate::text::without_slashes(rest)));
    if let Some(inode) = inode {
        descriptors::set(fd, Kind::Lower(inode));
    }
    inode.unwrap_or(0)
}

fn ask_inode(path: &[u8]) -> Option<u64> {
    let name = Name { base: 0, path };
    let target = Target::Path {
        name,
        follow: false,
    };
    let thread = control::thread().ok()?;
    let request = Request::Stat { target, thread };
    control::ask(&request, |reply, received| {
        received.close();
        match reply {
            Reply::Attributes(attributes) => Ok(attributes.inode),
            _ => Err(libc::EIO),
        }
    })
    .ok()
}

/// What the coordinator says to a request by path.
pub(crate) enum Said<T> {
    /// The answer.
    Value(T),
    /// Do the real call on the path in the buffer.
    Native {
        /// The inode to show, when the file is the session's.
        inode: Option<u64>,
    },
}

/// Asks; `take` gives `None` for a reply that makes no sense. The path of a
/// native answer goes to `path`.
///
/// # Errors
/// As [`control::ask`].
pub(crate) fn ask<T>(
    request: &Request<'_>,
    path: &mut Text<MAX_PATH>,
    take: impl FnOnce(Reply<'_>) -> Option<T>,
) -> Result<Said<T>, i32> {
    control::ask(request, |reply, received| {
        received.close();
        if let Reply::Native {
            path: native,
            lower,
            inode,
        } = reply
        {
            let inode = lower.then_some(inode);
            let fits = path.set(native);
            return fits
                .then_some(Said::Native { inode })
                .ok_or(libc::ENAMETOOLONG);
        }
        take(reply).map(Said::Value).ok_or(libc::EIO)
    })
}

/// Asks for something to be done; `native` does it on a path of the kernel.
///
/// # Errors
/// As [`control::ask`]; what the kernel says.
pub(crate) fn tell(
    request: &Request<'_>,
    native: impl FnOnce(*const c_char) -> isize,
) -> Result<isize, i32> {
    let mut path = Text::<MAX_PATH>::new();
    let said = ask(request, &mut path, |reply| {
        matches!(reply, Reply::Ok).then_some(0)
    })?;
    match said {
        Said::Value(done) => Ok(done),
        Said::Native { .. } => kernel(native(path.as_ptr())),
    }
}

/// Asks whether `name` exists; waits for it where a consumer waits.
///
/// # Errors
/// As [`control::ask`].
pub(crate) fn look_for(name: Name<'_>, path: &mut Text<MAX_PATH>) -> Result<Said<()>, i32> {
    let target = Target::Path { name, follow: true };
    let request = Request::Access {
        target,
        mode: libc::F_OK.cast_unsigned(),
        thread: control::thread()?,
    };
    ask(&request, path, |reply| {
        matches!(reply, Reply::Ok).then_some(())
    })
}

/// [`ask`] for a request that does not wait by itself: where a consumer waits
/// for `name` to exist, the question is put again when it does.
///
/// # Errors
/// As [`control::ask`].
pub(crate) fn ask_once_there<T>(
    request: &Request<'_>,
    name: Name<'_>,
    path: &mut Text<MAX_PATH>,
    mut take: impl FnMut(Reply<'_>) -> Option<T>,
) -> Result<Said<T>, i32> {
    match ask(request, path, &mut take) {
        Err(libc::ENOENT) => {
            look_for(name, path)?;
            ask(request, path, take)
        }
        said => said,
    }
}

/// Whether `flags` has none but those of `known`.
///
/// # Errors
/// `EINVAL`.
pub(crate) fn known_flags(flags: c_int, known: c_int) -> Result<(), i32> {
    (flags & !known == 0).then_some(()).ok_or(libc::EINVAL)
}

/// Whether `fd`, if it is ours, was opened for more than its path.
///
/// # Errors
/// `EBADF`.
pub(crate) fn usable(fd: c_int) -> Result<(), i32> {
    let flags = match descriptors::get(fd) {
        Kind::None => 0,
        Kind::Ofd { .. } => target(fd).map_or(0, |target| target.ofd.flags()),
        // SAFETY: integers.
        _ => unsafe { syscall!(libc::SYS_fcntl, fd, libc::F_GETFL) as c_int },
    };
    (flags & libc::O_PATH == 0).then_some(()).ok_or(libc::EBADF)
}

/// A kernel's answer as a result.
pub(crate) fn kernel(answer: isize) -> Result<isize, i32> {
    if answer >= 0 {
        return Ok(answer);
    }
    Err(i32::try_from(answer.wrapping_neg()).unwrap_or(libc::EIO))
}

/// Copies a value to the caller.
///
/// # Errors
/// `EFAULT`.
///
/// # Safety
/// `to` may be any address where the caller may write a `T`.
pub(crate) unsafe fn hand_over<T>(value: &T, to: *mut T) -> Result<(), i32> {
    let from = core::ptr::from_ref(value).cast();
    // SAFETY: the caller's word; a fault is no harm.
    let left = unsafe { usercopy::copy(to.cast(), from, size_of::<T>()) };
    (left == 0).then_some(()).ok_or(libc::EFAULT)
}

/// Copies bytes to the caller.
///
/// # Errors
/// `EFAULT`.
///
/// # Safety
/// `to` may be any address where the caller may write as many bytes.
pub(crate) unsafe fn hand_bytes(bytes: &[u8], to: *mut u8) -> Result<(), i32> {
    // SAFETY: the caller's word; a fault is no harm.
    let left = unsafe { usercopy::copy(to, bytes.as_ptr(), bytes.len()) };
    (left == 0).then_some(()).ok_or(libc::EFAULT)
}

/// Opens a path of the kernel and gives the name that the kernel has for it.
///
/// # Errors
/// What the kernel says.
pub(crate) fn kernel_name(path: *const c_char, name: &mut Text<MAX_PATH>) -> Result<(), i32> {
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: a string of ours.
    let fd = kernel(unsafe { syscall!(libc::SYS_openat, libc::AT_FDCWD, path, flags, 0) })?;
    descriptors::name_of(fd as c_int, name);
    control::close(fd as c_int);
    Ok(())
}
