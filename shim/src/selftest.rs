//! Entry points for the tests of this crate (feature `selftest`): they drive
//! what programs cannot reach on their own. Not part of the product.

use core::ffi::c_char;

use crate::critical::Critical;
use crate::{fork, signals, usercopy};

/// [`usercopy::copy`].
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn capio_test_copy(dst: *mut u8, src: *const u8, n: usize) -> usize {
    // SAFETY: passed on.
    unsafe { usercopy::copy(dst, src, n) }
}

/// [`usercopy::zero`].
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn capio_test_zero(dst: *mut u8, n: usize) -> usize {
    // SAFETY: passed on.
    unsafe { usercopy::zero(dst, n) }
}

/// [`usercopy::copy_cstr`] into `room` bytes.
///
/// # Safety
/// As there; `dst` has `room` writable bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn capio_test_cstr(dst: *mut u8, room: usize, src: *const c_char) -> isize {
    // SAFETY: the caller vouches for `dst`.
    unsafe { usercopy::copy_cstr(core::slice::from_raw_parts_mut(dst, room), src) }
}

/// [`signals::arm`].
#[unsafe(no_mangle)]
extern "C" fn capio_test_arm() {
    signals::arm();
}

/// [`usercopy::copy`] `times` over in one critical section; the last result.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn capio_test_section(
    dst: *mut u8,
    src: *const u8,
    n: usize,
    times: usize,
) -> usize {
    let _section = Critical::enter();
    let mut left = 0;
    for _ in 0..times {
        let _inner = Critical::enter();
        // SAFETY: passed on.
        left = unsafe { usercopy::copy(dst, src, n) };
    }
    left
}

/// Whether a critical section of this thread is open.
#[unsafe(no_mangle)]
extern "C" fn capio_test_inside() -> bool {
    // SAFETY: the thread's own state.
    unsafe { (*crate::tls::current()).critical != 0 }
}

/// [`fork::in_vfork_child`].
#[unsafe(no_mangle)]
extern "C" fn capio_test_in_vfork_child() -> bool {
    fork::in_vfork_child()
}

/// [`fork::VFORK_ACTIVE`].
#[unsafe(no_mangle)]
extern "C" fn capio_test_vfork_active() -> u32 {
    fork::VFORK_ACTIVE.load(core::sync::atomic::Ordering::Relaxed)
}

/// [`fork::wiped`].
#[unsafe(no_mangle)]
extern "C" fn capio_test_wiped() -> bool {
    fork::wiped()
}

/// [`fork::mark`].
#[unsafe(no_mangle)]
extern "C" fn capio_test_mark() -> isize {
    fork::mark()
}

/// [`signals::rt_sigaction`].
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn capio_test_rt_sigaction(
    sig: core::ffi::c_int,
    new: *const signals::Action,
    old: *mut signals::Action,
    size: usize,
) -> isize {
    // SAFETY: passed on.
    unsafe { signals::rt_sigaction(sig, new, old, size) }
}
