//! Linux AIO and `io_uring`: what the kernel carries out by itself. Files of
//! ours are left to it before: with AIO when an operation names them, in a
//! process that has a ring, whose operations nobody sees, when they are opened.

use super::next::next;
use crate::calls;
use crate::sys::syscall;
use crate::usercopy;
use core::ffi::{c_int, c_long, c_uint, c_void};
use core::mem::MaybeUninit;

/// Copies what lies at `at`, if there is something.
fn peek<T: Copy>(at: *const T) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the copy takes any address; `T` is an integer or a pointer here.
    unsafe {
        let left = usercopy::copy(value.as_mut_ptr().cast(), at.cast(), size_of::<T>());
        (left == 0).then(|| value.assume_init())
    }
}

/// The descriptor in a `struct iocb` of the kernel.
const IOCB_FILE: usize = 20;

/// Before operations of AIO begin: 0 or `-errno`. What cannot be read the
/// kernel refuses.
pub(super) fn before_submit(count: c_long, operations: *const *const u8) -> isize {
    for i in 0..usize::try_from(count).unwrap_or(0) {
        let Some(operation) = peek(operations.wrapping_add(i)) else {
            break;
        };
        let Some(fd) = peek(operation.wrapping_add(IOCB_FILE).cast::<c_int>()) else {
            break;
        };
        let failed = calls::leave_to_kernel(fd);
        if failed != 0 {
            return failed;
        }
    }
    0
}

/// `io_submit` of libaio, which gives the kernel's answer as it is.
///
/// # Safety
/// As the function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn io_submit(
    context: *mut c_void,
    count: c_long,
    operations: *const *const u8,
) -> c_int {
    let failed = before_submit(count, operations);
    if failed != 0 {
        return failed as c_int;
    }
    // SAFETY: the caller's own promises.
    unsafe { syscall!(libc::SYS_io_submit, context, count, operations) as c_int }
}

/// `io_uring_setup(2)`: the ring, or `-errno`.
///
/// # Safety
/// As the call of this name.
pub(super) unsafe fn setup(entries: c_uint, parameters: *mut c_void) -> isize {
    // SAFETY: the caller's own promises; a ring that cannot serve is closed.
    unsafe {
        let ring = syscall!(libc::SYS_io_uring_setup, entries, parameters);
        let failed = if ring < 0 { 0 } else { calls::ring_made() };
        if failed == 0 {
            return ring;
        }
        syscall!(libc::SYS_close, ring);
        failed
    }
}

/// After liburing has made a ring: its answer, unless our files could not be
/// left to the kernel.
unsafe fn made(answer: Option<c_int>, ring: *mut c_void) -> c_int {
    let Some(answer) = answer else {
        return libc::ENOSYS.wrapping_neg();
    };
    let failed = if answer < 0 { 0 } else { calls::ring_made() };
    if failed == 0 {
        return answer;
    }
    // SAFETY: the ring has just been made.
    unsafe {
        if let Some(exit) = next!(c"io_uring_queue_exit" as unsafe extern "C" fn(*mut c_void)) {
            exit(ring);
        }
    }
    failed as c_int
}

/// `io_uring_setup` of liburing.
///
/// # Safety
/// As the function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn io_uring_setup(entries: c_uint, parameters: *mut c_void) -> c_int {
    // SAFETY: the caller's own promises.
    unsafe { setup(entries, parameters) as c_int }
}

/// liburing's functions that make a ring: `name(arguments)`.
macro_rules! makers {
    ($($name:ident $symbol:literal ($($arg:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of liburing.")]
        ///
        /// # Safety
        /// As the function of this name.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(entries: c_uint, ring: *mut c_void, $($arg: $type),*) -> c_int {
            type Make = unsafe extern "C" fn(c_uint, *mut c_void, $($type),*) -> c_int;
            // SAFETY: the caller's own promises, handed on.
            unsafe {
                let make = next!($symbol as Make);
                made(make.map(|make| make(entries, ring, $($arg),*)), ring)
            }
        }
    )*};
}

makers! {
    io_uring_queue_init c"io_uring_queue_init" (flags: c_uint);
    io_uring_queue_init_params c"io_uring_queue_init_params" (parameters: *mut c_void);
    io_uring_queue_init_mem c"io_uring_queue_init_mem"
        (parameters: *mut c_void, memory: *mut c_void, bytes: usize);
}
