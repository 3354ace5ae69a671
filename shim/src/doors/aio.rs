//! Asynchronous I/O: libc's own threads would read and write behind the call
//! table. For a file of ours it is refused, as by a system without it.

use super::hook::hooks;
use crate::calls::{self, NOT_OURS};
use core::ffi::{c_int, c_void};
use libc::aiocb;

/// Refuses an operation on a file of ours.
unsafe fn refused(operation: *const aiocb) -> isize {
    // SAFETY: the caller's own promise: null or valid.
    unsafe {
        match operation.as_ref() {
            Some(cb) if calls::is_ours(cb.aio_fildes) => -(libc::ENOSYS as isize),
            _ => NOT_OURS,
        }
    }
}

/// Refuses a list with an operation on a file of ours.
unsafe fn any_refused(list: *const *mut aiocb, n: c_int) -> isize {
    let operations = (0..usize::try_from(n).unwrap_or(0)).map(|i| list.wrapping_add(i));
    // SAFETY: the caller's own promise: n pointers, null or valid.
    let all = operations.map(|at| unsafe { refused(*at) });
    all.fold(NOT_OURS, isize::max)
}

hooks! {
    aio_read(operation: *mut aiocb) -> c_int = refused(operation);
    aio_read64(operation: *mut aiocb) -> c_int = refused(operation);
    aio_write(operation: *mut aiocb) -> c_int = refused(operation);
    aio_write64(operation: *mut aiocb) -> c_int = refused(operation);
    aio_fsync(how: c_int, operation: *mut aiocb) -> c_int = refused(operation);
    aio_fsync64(how: c_int, operation: *mut aiocb) -> c_int = refused(operation);
    lio_listio(how: c_int, list: *const *mut aiocb, n: c_int, event: *mut c_void) -> c_int
        = any_refused(list, n);
    lio_listio64(how: c_int, list: *const *mut aiocb, n: c_int, event: *mut c_void) -> c_int
        = any_refused(list, n);
}
