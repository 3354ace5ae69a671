//! Calling the next definition of an exported function after ours, by the
//! look-up of the doors.

/// `next!(c"name" as type, otherwise value, args...)`: calls the next `name`,
/// or gives `value` with ENOSYS when there is none.
macro_rules! next {
    ($name:literal as $sig:ty, otherwise $fail:expr, $($arg:expr),*) => {
        match $crate::doors::next::next!($name as $sig) {
            Some(next) => next($($arg),*),
            None => {
                $crate::doors::next::set_errno(libc::ENOSYS);
                $fail
            }
        }
    };
}
pub(crate) use next;
