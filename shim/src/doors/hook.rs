//! How a door is declared: one line over the call table.

use super::next::{code, ret, set_errno};
use core::ffi::{c_int, c_void};

/// What a function of libc returns for the kernel's answer.
pub(crate) trait Answer {
    /// Its result when it fails; `errno` says why.
    const FAILED: Self;
    /// The result for an answer: a value, or `-errno`.
    fn of(answer: isize) -> Self;
}

impl Answer for c_int {
    const FAILED: Self = -1;

    fn of(answer: isize) -> Self {
        ret(answer)
    }
}

impl Answer for isize {
    const FAILED: Self = -1;

    #[inline(always)]
    fn of(answer: isize) -> Self {
        if answer < 0 {
            set_errno(code(answer));
            return -1;
        }
        answer
    }
}

/// Nothing to tell.
impl Answer for () {
    const FAILED: Self = ();

    fn of(_: isize) -> Self {}
}

/// An offset.
impl Answer for i64 {
    const FAILED: Self = -1;

    fn of(answer: isize) -> Self {
        <isize as Answer>::of(answer) as Self
    }
}

/// An old mask or mode: these calls cannot fail.
impl Answer for u32 {
    const FAILED: Self = Self::MAX;

    fn of(answer: isize) -> Self {
        answer as Self
    }
}

/// Where a file is mapped.
impl Answer for *mut c_void {
    const FAILED: Self = libc::MAP_FAILED;

    fn of(answer: isize) -> Self {
        if answer < 0 {
            set_errno(code(answer));
            return libc::MAP_FAILED;
        }
        answer as Self
    }
}

/// An error number as the result itself; `errno` is left alone.
#[repr(transparent)]
pub(crate) struct Code(c_int);

impl Answer for Code {
    const FAILED: Self = Self(libc::ENOSYS);

    fn of(answer: isize) -> Self {
        Self(if answer < 0 { code(answer) } else { 0 })
    }
}

/// `name(arguments) -> result = answer;`: exports libc's `name`. It gives what
/// the answer says, or goes on to the next definition when that is `NOT_OURS`.
macro_rules! hooks {
    ($($name:ident($($arg:ident: $type:ty),* $(,)?) -> $ret:ty = $answer:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As libc's function of this name.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($arg: $type),*) -> $ret {
            // SAFETY: the caller's own promises, handed on.
            unsafe {
                let answer: isize = $answer;
                if answer != $crate::calls::NOT_OURS {
                    return <$ret as $crate::doors::hook::Answer>::of(answer);
                }
                $crate::doors::hook::pass_named!($name($($arg: $type),*) -> $ret)
            }
        }
    )*};
}
pub(crate) use hooks;

/// Calls the next `name` with these arguments.
macro_rules! pass_named {
    ($name:ident($($arg:ident: $type:ty),*) -> $ret:ty) => {{
        const SYMBOL: &core::ffi::CStr = $crate::doors::hook::symbol(
            concat!(stringify!($name), "\0").as_bytes(),
        );
        static NEXT: core::sync::atomic::AtomicPtr<core::ffi::c_void> =
            core::sync::atomic::AtomicPtr::new(core::ptr::null_mut());
        match $crate::doors::next::find(&NEXT, SYMBOL) {
            Some(f) => core::mem::transmute::<
                *mut core::ffi::c_void,
                unsafe extern "C" fn($($type),*) -> $ret,
            >(f)($($arg),*),
            None => {
                $crate::doors::next::set_errno(libc::ENOSYS);
                <$ret as $crate::doors::hook::Answer>::FAILED
            }
        }
    }};
}
pub(crate) use pass_named;

/// `name`, with its NUL, as a C string. Only for constants.
pub(crate) const fn symbol(name: &'static [u8]) -> &'static core::ffi::CStr {
    match core::ffi::CStr::from_bytes_with_nul(name) {
        Ok(symbol) => symbol,
        Err(_) => c"",
    }
}

/// `answer` when `sound`, else `NOT_OURS`: libc itself refuses the arguments,
/// by an error or by ending the program.
macro_rules! sound {
    ($sound:expr, $answer:expr) => {
        if $sound {
            $answer
        } else {
            $crate::calls::NOT_OURS
        }
    };
}
pub(crate) use sound;
