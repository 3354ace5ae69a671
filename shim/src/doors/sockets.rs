//! Sockets that have a name in the file system.

use super::hook::hooks;
use crate::calls;
use core::ffi::{c_int, c_void};
use libc::{msghdr, size_t, sockaddr, socklen_t, ssize_t};

hooks! {
    bind(fd: c_int, address: *const sockaddr, n: socklen_t) -> c_int
        = calls::bind(fd, address, n);
    connect(fd: c_int, address: *const sockaddr, n: socklen_t) -> c_int
        = calls::connect(fd, address, n);
    __connect(fd: c_int, address: *const sockaddr, n: socklen_t) -> c_int
        = calls::connect(fd, address, n);
    sendto(
        fd: c_int, bytes: *const c_void, count: size_t, flags: c_int,
        address: *const sockaddr, n: socklen_t
    ) -> ssize_t = calls::sendto(fd, bytes.cast(), count, flags, address, n);
    sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t
        = calls::sendmsg(fd, message, flags);
}
