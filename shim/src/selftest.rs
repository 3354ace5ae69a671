//! Entry points for the tests of this crate (feature `selftest`): they drive
//! what programs cannot reach on their own. Not part of the product.

use core::ffi::c_char;

use crate::usercopy;

/// [`usercopy::copy`].
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn capio_test_copy(dst: *mut u8, src: *const u8, n: usize) -> usize {
    // SAFETY: passed on.
    unsafe { usercopy::copy(dst, src, n) }
}

/// [`usercopy::zero`].
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn capio_test_zero(dst: *mut u8, n: usize) -> usize {
    // SAFETY: passed on.
    unsafe { usercopy::zero(dst, n) }
}

/// [`usercopy::copy_cstr`] into `room` bytes.
///
/// # Safety
/// As there; `dst` has `room` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn capio_test_cstr(dst: *mut u8, room: usize, src: *const c_char) -> isize {
    // SAFETY: the caller vouches for `dst`.
    unsafe { usercopy::copy_cstr(core::slice::from_raw_parts_mut(dst, room), src) }
}
