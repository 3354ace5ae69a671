//! Names of sockets: the socket is the kernel's, bound among the session's pipes and
//! devices, and has its name in the session.

use core::ffi::{c_char, c_int};
use core::mem::{offset_of, size_of};

use wire::limits::MAX_PATH;
use wire::message::{Name, Request};

use super::NOT_OURS;
use super::goal::{Said, ask, kernel, tell};
use super::names::name_at;
use super::target::answer;
use crate::control;
use crate::place::{self, PathArgument};
use crate::sys::syscall;
use crate::text::Text;
use crate::usercopy;

/// Where the path begins in an address.
const HEAD: usize = offset_of!(libc::sockaddr_un, sun_path);

/// An address with a NUL behind it.
type Address = [u8; size_of::<libc::sockaddr_un>() + 1];

/// The caller's address, if it is a path.
///
/// # Safety
/// `address` may be any address whose content is the caller's.
unsafe fn path_in(address: *const libc::sockaddr, length: libc::socklen_t) -> Option<Address> {
    let length = length as usize;
    let mut copy: Address = [0; _];
    if length <= HEAD || length >= copy.len() {
        return None;
    }
    // SAFETY: so many bytes of ours; the caller's word.
    let left = unsafe { usercopy::copy(copy.as_mut_ptr(), address.cast(), length) };
    let [a, b, first, ..] = copy;
    let family = c_int::from(u16::from_ne_bytes([a, b]));
    (left == 0 && family == libc::AF_UNIX && first != 0).then_some(copy)
}

/// Does system call `number` on `fd` with the address of `path`.
fn call_at(number: i64, fd: c_int, path: &[u8]) -> Result<isize, i32> {
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    if path.len() >= address.sun_path.len() {
        return Err(libc::ENAMETOOLONG);
    }
    let slots = address.sun_path.iter_mut().zip(path);
    slots.for_each(|(slot, byte)| *slot = *byte as c_char);
    let length = HEAD.wrapping_add(path.len()).wrapping_add(1);
    // SAFETY: the kernel reads the address, which is whole.
    kernel(unsafe { syscall!(number, fd, &raw const address, length) })
}

/// The kernel's path of the socket that has this name.
///
/// # Errors
/// `ECONNREFUSED`: it is something else; as of `open(2)`.
fn socket_at(name: Name<'_>, path: &mut Text<MAX_PATH>) -> Result<(), i32> {
    let request = Request::Open {
        name,
        flags: libc::O_PATH,
        mode: 0,
        thread: control::thread()?,
    };
    match ask(&request, path, |_| Some(()))? {
        Said::Native { .. } => Ok(()),
        Said::Value(()) => Err(libc::ECONNREFUSED),
    }
}

/// As `bind(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn bind(
    fd: c_int,
    address: *const libc::sockaddr,
    length: libc::socklen_t,
) -> isize {
    // SAFETY: the caller's own promises.
    let Some(bytes) = (unsafe { path_in(address, length) }) else {
        return NOT_OURS;
    };
    let mut room = PathArgument::new();
    // SAFETY: ours, with a NUL.
    let place = unsafe { room.locate(libc::AT_FDCWD, bytes.as_ptr().wrapping_add(HEAD).cast()) };
    name_at(place).map_or(NOT_OURS, |name| answer(bind_to(fd, name)))
}

fn bind_to(fd: c_int, name: Name<'_>) -> Result<isize, i32> {
    let request = Request::Mknod {
        name,
        mode: libc::S_IFSOCK | 0o777 & !place::umask(),
        device: 0,
    };
    let mut elsewhere = false;
    // An excluded path is bound where it is.
    let made = tell(&request, |path| {
        elsewhere = true;
        // SAFETY: a string of ours.
        let path = unsafe { core::ffi::CStr::from_ptr(path) };
        answer(call_at(libc::SYS_bind, fd, path.to_bytes()))
    });
    match made {
        Err(libc::EEXIST) => Err(libc::EADDRINUSE),
        Ok(_) if !elsewhere => {
            let bound = bind_there(fd, name);
            if bound.is_err() {
                let directory = false;
                let _ = tell(&Request::Unlink { name, directory }, |_| 0);
            }
            bound
        }
        made => made,
    }
}

/// Binds beside what was made, which nobody answers at, and puts that in its place.
fn bind_there(fd: c_int, name: Name<'_>) -> Result<isize, i32> {
    let (mut there, mut beside) = (Text::new(), Text::<MAX_PATH>::new());
    socket_at(name, &mut there)?;
    if !beside.set(there.bytes()) || !beside.push(b"~") {
        return Err(libc::ENAMETOOLONG);
    }
    call_at(libc::SYS_bind, fd, beside.bytes())?;
    // SAFETY: strings of ours.
    kernel(unsafe { syscall!(libc::SYS_rename, beside.as_ptr(), there.as_ptr()) })
}

/// As `connect(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn connect(
    fd: c_int,
    address: *const libc::sockaddr,
    length: libc::socklen_t,
) -> isize {
    // SAFETY: the caller's own promises.
    let Some(bytes) = (unsafe { path_in(address, length) }) else {
        return NOT_OURS;
    };
    let mut room = PathArgument::new();
    // SAFETY: ours, with a NUL.
    let place = unsafe { room.locate(libc::AT_FDCWD, bytes.as_ptr().wrapping_add(HEAD).cast()) };
    name_at(place).map_or(NOT_OURS, |name| {
        let mut path = Text::new();
        answer(
            socket_at(name, &mut path).and_then(|()| call_at(libc::SYS_connect, fd, path.bytes())),
        )
    })
}
