//! Extended attributes.

use super::hook::hooks;
use crate::calls;
use core::ffi::{c_char, c_int, c_void};
use libc::{size_t, ssize_t};

hooks! {
    getxattr(
        path: *const c_char, name: *const c_char, value: *mut c_void, n: size_t
    ) -> ssize_t = calls::getxattr(path, name, value, n);
    lgetxattr(
        path: *const c_char, name: *const c_char, value: *mut c_void, n: size_t
    ) -> ssize_t = calls::lgetxattr(path, name, value, n);
    fgetxattr(fd: c_int, name: *const c_char, value: *mut c_void, n: size_t) -> ssize_t
        = calls::fgetxattr(fd, name, value, n);
    setxattr(
        path: *const c_char, name: *const c_char, value: *const c_void, n: size_t, flags: c_int
    ) -> c_int = calls::setxattr(path, name, value, n, flags);
    lsetxattr(
        path: *const c_char, name: *const c_char, value: *const c_void, n: size_t, flags: c_int
    ) -> c_int = calls::lsetxattr(path, name, value, n, flags);
    fsetxattr(
        fd: c_int, name: *const c_char, value: *const c_void, n: size_t, flags: c_int
    ) -> c_int = calls::fsetxattr(fd, name, value, n, flags);
    listxattr(path: *const c_char, list: *mut c_char, n: size_t) -> ssize_t
        = calls::listxattr(path, list, n);
    llistxattr(path: *const c_char, list: *mut c_char, n: size_t) -> ssize_t
        = calls::llistxattr(path, list, n);
    flistxattr(fd: c_int, list: *mut c_char, n: size_t) -> ssize_t
        = calls::flistxattr(fd, list, n);
    removexattr(path: *const c_char, name: *const c_char) -> c_int
        = calls::removexattr(path, name);
    lremovexattr(path: *const c_char, name: *const c_char) -> c_int
        = calls::lremovexattr(path, name);
    fremovexattr(fd: c_int, name: *const c_char) -> c_int = calls::fremovexattr(fd, name);
}
