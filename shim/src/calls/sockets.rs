//! Sockets with a name below `CAPIO_DIR`: the name is the session's, and the
//! socket itself lies in the session's own directory, as named pipes do.

use core::ffi::c_int;
use core::mem::{MaybeUninit, offset_of};

use libc::{msghdr, sockaddr, sockaddr_un, socklen_t};
use wire::limits::MAX_PATH;
use wire::message::{Name, Request};

use super::NOT_OURS;
use super::cwd::enter;
use super::goal::{Goal, Said, ask, goal, kernel};
use super::target::answer;
use crate::place::{self, PathArgument};
use crate::sys::syscall;
use crate::text::Text;
use crate::usercopy;

const PATH: usize = offset_of!(sockaddr_un, sun_path);
const ROOM: usize = size_of::<sockaddr_un>() - PATH;

/// An address of the kernel, and its length.
type Address = (sockaddr_un, socklen_t);

/// The path in an address, with a NUL behind it; none if that is of another
/// family, without a name, or with an abstract one.
///
/// # Safety
/// `address` may be any address whose content is the caller's.
unsafe fn path_in(address: *const sockaddr, n: socklen_t) -> Option<[u8; ROOM + 1]> {
    let length = usize::try_from(n).ok()?.checked_sub(PATH)?.min(ROOM);
    let mut family = MaybeUninit::<libc::sa_family_t>::zeroed();
    let mut path = [0u8; ROOM + 1];
    // SAFETY: both stay within our variables; the caller's word for the source.
    let family = unsafe {
        let source: *const u8 = address.cast();
        if usercopy::copy(family.as_mut_ptr().cast(), source, PATH) != 0
            || usercopy::copy(path.as_mut_ptr(), source.wrapping_add(PATH), length) != 0
        {
            return None;
        }
        family.assume_init()
    };
    let named = c_int::from(family) == libc::AF_UNIX && path.first() != Some(&0);
    named.then_some(path)
}

/// The kernel's address of a socket whose path is the kernel's.
fn address_of(path: &[u8]) -> Result<Address, i32> {
    let mut address = sockaddr_un {
        sun_family: libc::AF_UNIX as _,
        sun_path: [0; ROOM],
    };
    if path.len() >= ROOM {
        return Err(libc::ENAMETOOLONG);
    }
    for (slot, byte) in address.sun_path.iter_mut().zip(path) {
        *slot = byte.cast_signed();
    }
    // At most the size of the address.
    let length = PATH.wrapping_add(path.len()).wrapping_add(1);
    Ok((address, length as socklen_t))
}

/// What a call with an address gives on the kernel's one.
///
/// # Safety
/// `address` may be any address whose content is the caller's.
unsafe fn translated(
    address: *const sockaddr,
    n: socklen_t,
    call: impl FnOnce(Name<'_>) -> Result<isize, i32>,
) -> isize {
    if place::get().is_none() || address.is_null() {
        return NOT_OURS;
    }
    // SAFETY: the caller's word.
    let Some(path) = (unsafe { path_in(address, n) }) else {
        return NOT_OURS;
    };
    let mut room = PathArgument::new();
    // SAFETY: a string of ours.
    match unsafe { goal(&mut room, libc::AT_FDCWD, path.as_ptr().cast(), 0) } {
        Goal::Name(name) => answer(call(name)),
        _ => NOT_OURS,
    }
}

fn bind_there(fd: c_int, path: &[u8]) -> Result<isize, i32> {
    let (address, length) = address_of(path)?;
    // SAFETY: an address of ours.
    kernel(unsafe { syscall!(libc::SYS_bind, fd, &raw const address, length) })
}

/// Makes the name first, so that nobody else gets it; what the coordinator has
/// put there gives way to the socket.
fn bind_name(fd: c_int, name: Name<'_>) -> Result<isize, i32> {
    let mut path = Text::<MAX_PATH>::new();
    let request = Request::Mknod {
        name,
        mode: libc::S_IFSOCK | 0o777 & !place::umask(),
        device: 0,
    };
    match ask(&request, &mut path, |_| Some(())) {
        Ok(Said::Value(())) => {}
        Ok(Said::Native { .. }) => return bind_there(fd, path.bytes()),
        Err(libc::EEXIST) => return Err(libc::EADDRINUSE),
        Err(error) => return Err(error),
    }
    let bound = enter(name, false).and_then(|mut path| {
        // SAFETY: a string of ours.
        unsafe { syscall!(libc::SYS_unlink, path.as_ptr()) };
        bind_there(fd, path.bytes())
    });
    if bound.is_err() {
        let directory = false;
        // Should that fail, too, the name stays, and the first error is told.
        let _ = ask(
            &Request::Unlink { name, directory },
            &mut path,
            |_| Some(()),
        );
    }
    bound
}

/// Where a socket is to be reached that the session has the name of.
fn reach(name: Name<'_>) -> Result<Address, i32> {
    match enter(name, false) {
        Ok(path) => address_of(path.bytes()),
        // A file in the cache.
        Err(libc::ENOEXEC) => Err(libc::ECONNREFUSED),
        Err(error) => Err(error),
    }
}

/// As `bind(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn bind(fd: c_int, address: *const sockaddr, n: socklen_t) -> isize {
    // SAFETY: the caller's own promises.
    unsafe { translated(address, n, |name| bind_name(fd, name)) }
}

/// As `connect(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn connect(fd: c_int, address: *const sockaddr, n: socklen_t) -> isize {
    let call = |name: Name<'_>| {
        let (address, length) = reach(name)?;
        // SAFETY: an address of ours.
        kernel(unsafe { syscall!(libc::SYS_connect, fd, &raw const address, length) })
    };
    // SAFETY: the caller's own promises.
    unsafe { translated(address, n, call) }
}

/// As `sendto(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn sendto(
    fd: c_int,
    bytes: *const u8,
    count: usize,
    flags: c_int,
    address: *const sockaddr,
    n: socklen_t,
) -> isize {
    let call = |name: Name<'_>| {
        let (address, length) = reach(name)?;
        // SAFETY: an address of ours; the caller's own promises.
        kernel(unsafe {
            syscall!(
                libc::SYS_sendto,
                fd,
                bytes,
                count,
                flags,
                &raw const address,
                length
            )
        })
    };
    // SAFETY: the caller's own promises.
    unsafe { translated(address, n, call) }
}

/// As `sendmsg(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> isize {
    if place::get().is_none() || message.is_null() {
        return NOT_OURS;
    }
    let mut copy = MaybeUninit::<msghdr>::zeroed();
    // SAFETY: a message of ours; zeroed is a valid one. The caller's word for theirs.
    let mut copy = unsafe {
        if usercopy::copy(
            copy.as_mut_ptr().cast(),
            message.cast(),
            size_of::<msghdr>(),
        ) != 0
        {
            return NOT_OURS;
        }
        copy.assume_init()
    };
    let (wanted, n) = (copy.msg_name, copy.msg_namelen);
    let call = |name: Name<'_>| {
        let (mut address, length) = reach(name)?;
        copy.msg_name = (&raw mut address).cast();
        copy.msg_namelen = length;
        // SAFETY: a message of ours; the caller's own promises for what it leads to.
        kernel(unsafe { syscall!(libc::SYS_sendmsg, fd, &raw const copy, flags) })
    };
    // SAFETY: the caller's own promises.
    unsafe { translated(wanted.cast(), n, call) }
}
