//! `openat`: the coordinator opens, the kernel's descriptor comes with its
//! answer.

use core::ffi::{c_char, c_int};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::SeqCst;

use wire::limits::MAX_PATH;
use wire::message::{Name, OfdId, Reply, Request};

use super::NOT_OURS;
use super::known;
use super::rings;
use super::target::{Target, answer, target};
use crate::control::{self, Received};
use crate::descriptors::{self, Kind};
use crate::place::{self, PathArgument, Where};
use crate::session::Session;
use crate::sys::syscall;
use crate::text::Text;

/// Descriptors that have come and are not in the table yet.
static COMING: AtomicU32 = AtomicU32::new(0);

/// What the coordinator says to an open.
enum Opened {
    /// The descriptor.
    Descriptor(c_int),
    /// Open the path in the buffer; the inode to show when it is the session's.
    Native(Option<u64>),
}

/// As `openat(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn openat(
    dirfd: c_int,
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
) -> isize {
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    match unsafe { room.locate(dirfd, path) } {
        Where::Here(name) => answer(open(name, flags, mode)),
        Where::Descriptor(fd, rest) => match (descriptors::get(fd), rest) {
            (Kind::Directory(base), path) => answer(open(Name { base, path }, flags, mode)),
            (Kind::Ofd { .. }, b"") => {
                target(fd).map_or(NOT_OURS, |target| answer(reopen(target, flags)))
            }
            _ => NOT_OURS,
        },
        // The kernel has the very file that runs, whatever has its name by now.
        Where::Program(_) | Where::Elsewhere => NOT_OURS,
    }
}

/// Flags of an open that changes nothing.
const LOOKS_ONLY: c_int =
    libc::O_CLOEXEC | libc::O_LARGEFILE | libc::O_NOCTTY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
/// As the kernel has it; the constant of libc is 0 on 64-bit machines.
const KERNEL_LARGEFILE: c_int = 0o100_000;

fn open(name: Name<'_>, flags: c_int, mode: libc::mode_t) -> Result<isize, i32> {
    if flags & !(LOOKS_ONLY | KERNEL_LARGEFILE) == 0
        && let Some(opened) = open_known(name, flags)
    {
        return opened;
    }
    let thread = control::thread()?;
    let request = Request::Open {
        name,
        flags,
        mode: mode & 0o7777 & !place::umask(),
        thread,
    };
    request_open(&request, flags, mode)
}

/// Opens for reading what need not be asked for.
fn open_known(name: Name<'_>, flags: c_int) -> Option<Result<isize, i32>> {
    let mut path = Text::<MAX_PATH>::new();
    let inode = match known::open(name, &mut path)? {
        Ok(inode) => inode,
        Err(error) => return Some(Err(error)),
    };
    COMING.fetch_add(1, SeqCst);
    let opened = native(&mut path, flags, 0, Some(inode));
    COMING.fetch_sub(1, SeqCst);
    // It may have gone from the disk, or its directory have another name by now.
    Some(opened).filter(|opened| *opened != Err(libc::ENOENT))
}

/// `open` of the name in `/proc/self/fd`: a new description of the same file.
fn reopen(target: Target, flags: c_int) -> Result<isize, i32> {
    let request = Request::Reopen {
        ofd: target.ofd.id,
        flags,
        thread: control::thread()?,
    };
    request_open(&request, flags, 0)
}

fn request_open(request: &Request<'_>, flags: c_int, mode: libc::mode_t) -> Result<isize, i32> {
    COMING.fetch_add(1, SeqCst);
    let mut path = Text::<MAX_PATH>::new();
    let opened = control::ask(request, |reply, received| take(reply, &received, &mut path));
    let opened = opened.and_then(|opened| match opened {
        Opened::Descriptor(fd) => rings::opened(fd).map(|()| fd as isize),
        Opened::Native(inode) => native(&mut path, flags, mode, inode),
    });
    COMING.fetch_sub(1, SeqCst);
    opened
}

fn take(reply: Reply<'_>, received: &Received, path: &mut Text<MAX_PATH>) -> Result<Opened, i32> {
    let kind = match reply {
        Reply::Opened { ofd } => {
            // Without one the description is gone already.
            received.one().ok_or(libc::EMFILE)?;
            let OfdId { id, generation } = ofd;
            Session::get()
                .and_then(|session| descriptors::ofd_of(session, id, generation))
                .ok_or(libc::EIO)?;
            Kind::Ofd { id, generation }
        }
        Reply::Directory { inode } => Kind::Directory(inode),
        Reply::Native {
            path: native,
            lower,
            inode,
        } => {
            let fits = path.set(native);
            let opened = Opened::Native(lower.then_some(inode));
            return fits.then_some(opened).ok_or(libc::ENAMETOOLONG);
        }
        _ => {
            received.close();
            return Err(libc::EIO);
        }
    };
    // The kernel drops descriptors that the process has no room for.
    let fd = received.one().ok_or(libc::EMFILE)?;
    descriptors::set(fd, kind);
    Ok(Opened::Descriptor(fd))
}

/// Opens a path of the kernel.
fn native(
    path: &mut Text<MAX_PATH>,
    flags: c_int,
    mode: libc::mode_t,
    inode: Option<u64>,
) -> Result<isize, i32> {
    // SAFETY: a string of ours; the rest is integers.
    let opened = unsafe { syscall!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, mode) };
    let Ok(fd) = c_int::try_from(opened) else {
        return Err(libc::EIO);
    };
    if fd < 0 {
        return Err(fd.wrapping_neg());
    }
    if let Some(inode) = inode {
        descriptors::set(fd, Kind::Lower(inode));
    }
    Ok(opened)
}

/// In a child of fork: descriptors that another thread was about to note.
pub(crate) fn after_fork() {
    if COMING.swap(0, SeqCst) != 0 && Session::get().is_some() {
        descriptors::scan();
    }
}
