//! Descriptors that come through a socket (`SCM_RIGHTS`): those of the session
//! are known from then on.

use super::next::{next, set_errno};
use crate::descriptors::{self, Kind};
use crate::{attach, calls, place};
use core::ffi::{c_int, c_uint, c_void};
use libc::{mmsghdr, msghdr, ssize_t, timespec};

/// Looks at what came with a message.
///
/// # Safety
/// `message` must be as `recvmsg` has left it.
pub(super) unsafe fn note(message: *const msghdr) {
    if place::get().is_none() {
        return;
    }
    // SAFETY: the kernel has written headers and data within the caller's room.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(message);
        while !head.is_null() {
            if (*head).cmsg_level == libc::SOL_SOCKET && (*head).cmsg_type == libc::SCM_RIGHTS {
                let empty = libc::CMSG_LEN(0) as usize;
                let bytes = (*head).cmsg_len.saturating_sub(empty);
                let list: *const c_int = libc::CMSG_DATA(head).cast();
                for i in 0..bytes / size_of::<c_int>() {
                    know(list.wrapping_add(i).read_unaligned());
                }
            }
            head = libc::CMSG_NXTHDR(message, head);
        }
    }
}

fn know(fd: c_int) {
    if !descriptors::is_of_session(fd) {
        // What had this number before may still be noted.
        descriptors::set(fd, Kind::None);
        return;
    }
    // Without the session's memory it stays unknown, and calls on it fail.
    if attach::ensure().is_ok() {
        descriptors::set(fd, descriptors::ask(fd));
        calls::received(fd);
    }
}

/// `recvmsg(2)`.
///
/// # Safety
/// As the function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn recvmsg(socket: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    type Receive = unsafe extern "C" fn(c_int, *mut msghdr, c_int) -> ssize_t;
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let got = match next!(c"recvmsg" as Receive) {
            Some(next) => next(socket, message, flags),
            None => {
                set_errno(libc::ENOSYS);
                -1
            }
        };
        if got >= 0 {
            note(message);
        }
        got
    }
}

/// `recvmmsg(2)`.
///
/// # Safety
/// As the function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn recvmmsg(
    socket: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    limit: *mut timespec,
) -> c_int {
    type Receive = unsafe extern "C" fn(c_int, *mut mmsghdr, c_uint, c_int, *mut timespec) -> c_int;
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let got = match next!(c"recvmmsg" as Receive) {
            Some(next) => next(socket, messages, count, flags, limit),
            None => {
                set_errno(libc::ENOSYS);
                -1
            }
        };
        note_all(messages, got as isize);
        got
    }
}

/// [`note`] for the first `count` messages.
///
/// # Safety
/// They must be as `recvmmsg` has left them.
pub(super) unsafe fn note_all(messages: *const mmsghdr, count: isize) {
    for i in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller's promise.
        unsafe { note(&raw const (*messages.wrapping_add(i)).msg_hdr) };
    }
}

/// As the kernel's calls by number.
///
/// # Safety
/// As `syscall(2)`.
pub(super) unsafe fn received(number: isize, message: *const c_void, answer: isize) {
    // SAFETY: the caller's own promises.
    unsafe {
        match number as i64 {
            libc::SYS_recvmsg if answer >= 0 => note(message.cast()),
            libc::SYS_recvmmsg => note_all(message.cast(), answer),
            _ => {}
        }
    }
}
