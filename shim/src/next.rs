//! The next definition of an exported function after ours.

use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

/// A symbol that is looked up once, behind us in the search order.
pub(crate) struct Next {
    name: &'static CStr,
    at: AtomicPtr<c_void>,
}

impl Next {
    /// The next `name`, not looked up yet.
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            at: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Its address, null when nobody else defines it. Later calls do not
    /// enter the dynamic loader.
    #[inline]
    pub(crate) fn get(&self) -> *mut c_void {
        let known = self.at.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: a NUL-terminated name; dlsym is not exported by us.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.at.store(found, Ordering::Relaxed);
        found
    }
}

/// `next!(fn(types) -> type, c"name", args...)`: calls the next `name`, or
/// gives `otherwise` with ENOSYS when there is none.
macro_rules! next {
    ($name:literal as $sig:ty, otherwise $fail:expr, $($arg:expr),*) => {{
        static NEXT: $crate::next::Next = $crate::next::Next::new($name);
        let at = NEXT.get();
        if at.is_null() {
            *libc::__errno_location() = libc::ENOSYS;
            $fail
        } else {
            core::mem::transmute::<*mut core::ffi::c_void, $sig>(at)($($arg),*)
        }
    }};
}
pub(crate) use next;
