//! The next definition of a symbol that we export, and the few helpers that
//! every door needs to speak libc's language (`-1` and `errno`).

use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

/// Finds the next definition of `symbol` and keeps it in `cell`.
///
/// # Safety
/// `cell` must serve this one symbol only.
#[inline(always)]
pub(crate) unsafe fn find(cell: &AtomicPtr<c_void>, symbol: &CStr) -> Option<*mut c_void> {
    let known = cell.load(Ordering::Relaxed);
    if !known.is_null() {
        return Some(known);
    }
    look_up(cell, symbol)
}

/// Asks the dynamic loader, the first time.
#[cold]
#[inline(never)]
fn look_up(cell: &AtomicPtr<c_void>, symbol: &CStr) -> Option<*mut c_void> {
    // SAFETY: a NUL-terminated name; RTLD_NEXT asks for the definition after ours.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, symbol.as_ptr()) };
    cell.store(found, Ordering::Relaxed);
    (!found.is_null()).then_some(found)
}

/// `next!(c"name" as type)`: the next definition of a symbol, if there is one.
macro_rules! next {
    ($symbol:literal as $type:ty) => {{
        static CELL: core::sync::atomic::AtomicPtr<core::ffi::c_void> =
            core::sync::atomic::AtomicPtr::new(core::ptr::null_mut());
        $crate::doors::next::find(&CELL, $symbol)
            .map(|f| core::mem::transmute::<*mut core::ffi::c_void, $type>(f))
    }};
}
pub(crate) use next;

/// Calls the next definition with the arguments of the hook, unchanged.
/// A libc without it gives `else` and `ENOSYS`.
macro_rules! pass {
    ($symbol:literal, fn($($arg:ident: $type:ty),*) -> $ret:ty, else $missing:expr) => {
        match $crate::doors::next::next!($symbol as unsafe extern "C" fn($($type),*) -> $ret) {
            Some(f) => f($($arg),*),
            None => {
                $crate::doors::next::set_errno(libc::ENOSYS);
                $missing
            }
        }
    };
}
pub(crate) use pass;

/// A call of the call table, by the kernel itself if it is not ours.
macro_rules! either {
    ($call:ident($($arg:expr),*), $nr:expr) => {{
        let answer = $crate::calls::$call($($arg),*);
        if answer == $crate::calls::NOT_OURS {
            $crate::sys::syscall!($nr, $($arg),*)
        } else {
            answer
        }
    }};
}
pub(crate) use either;

/// The calling thread's `errno`.
pub(crate) fn errno() -> c_int {
    // SAFETY: libc gives every thread its own errno.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's `errno`.
pub(crate) fn set_errno(code: c_int) {
    // SAFETY: libc gives every thread its own errno.
    unsafe { *libc::__errno_location() = code }
}

/// The error number in a kernel answer (`-errno`).
pub(crate) fn code(answer: isize) -> c_int {
    c_int::try_from(answer.wrapping_neg()).unwrap_or(libc::EIO)
}

/// A kernel answer in libc's way: the value, or `-1` with `errno`.
pub(crate) fn ret(answer: isize) -> c_int {
    if answer < 0 {
        set_errno(code(answer));
        return -1;
    }
    c_int::try_from(answer).unwrap_or(c_int::MAX)
}

/// Sets `errno` and gives a null pointer.
pub(crate) fn null<T>(code: c_int) -> *mut T {
    set_errno(code);
    core::ptr::null_mut()
}
