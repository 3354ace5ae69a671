//! POSIX asynchronous I/O: libc's own threads read and write behind the call
//! table. A file of ours is left to the kernel first.

use super::hook::hooks;
use crate::calls::{self, NOT_OURS};
use core::ffi::{c_int, c_void};
use libc::aiocb;

/// Leaves the file of an operation to the kernel, if it is ours.
unsafe fn left(operation: *const aiocb) -> isize {
    // SAFETY: the caller's own promise: null or valid.
    let Some(operation) = (unsafe { operation.as_ref() }) else {
        return NOT_OURS;
    };
    match calls::leave_to_kernel(operation.aio_fildes) {
        0 => NOT_OURS,
        failed => failed,
    }
}

/// [`left`] for every operation of a list.
unsafe fn all_left(list: *const *mut aiocb, n: c_int) -> isize {
    let operations = (0..usize::try_from(n).unwrap_or(0)).map(|i| list.wrapping_add(i));
    // SAFETY: the caller's own promise: n pointers, null or valid.
    let all = operations.map(|at| unsafe { left(*at) });
    all.fold(NOT_OURS, isize::max)
}

hooks! {
    aio_read(operation: *mut aiocb) -> c_int = left(operation);
    aio_read64(operation: *mut aiocb) -> c_int = left(operation);
    aio_write(operation: *mut aiocb) -> c_int = left(operation);
    aio_write64(operation: *mut aiocb) -> c_int = left(operation);
    aio_fsync(how: c_int, operation: *mut aiocb) -> c_int = left(operation);
    aio_fsync64(how: c_int, operation: *mut aiocb) -> c_int = left(operation);
    lio_listio(how: c_int, list: *const *mut aiocb, n: c_int, event: *mut c_void) -> c_int
        = all_left(list, n);
    lio_listio64(how: c_int, list: *const *mut aiocb, n: c_int, event: *mut c_void) -> c_int
        = all_left(list, n);
}
