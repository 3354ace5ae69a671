//! Sockets by name.

use super::hook::hooks;
use crate::calls;
use core::ffi::c_int;
use libc::{sockaddr, socklen_t};

hooks! {
    bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int
        = calls::bind(fd, address, length);
    connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int
        = calls::connect(fd, address, length);
    __connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int
        = calls::connect(fd, address, length);
}
