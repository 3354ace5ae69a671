//! `getdents` as it was before `getdents64`: programs reach it by number only.

use crate::calls;
use core::ffi::{c_int, c_void};

/// Where a record has its length, in both forms.
const LENGTH: usize = 16;
/// Where `getdents64` has the kind of the entry, and then its name.
const KIND: usize = 18;
const NAME: usize = 19;

/// The old call: the answer of the new one, its records turned into old ones.
///
/// # Safety
/// As `getdents(2)`.
pub(super) unsafe fn getdents(fd: c_int, buf: *mut c_void, n: usize) -> isize {
    // SAFETY: the caller's own promises; the call has written so many bytes.
    unsafe {
        let answer = calls::getdents64(fd, buf, n);
        if let Ok(end) = usize::try_from(answer) {
            turn(buf.cast(), end);
        }
        answer
    }
}

/// An old record is as long as a new one: its name begins where the kind was,
/// and the kind is its last byte.
///
/// # Safety
/// `records` must be `end` bytes of records of `getdents64`.
unsafe fn turn(records: *mut u8, end: usize) {
    let mut at = 0usize;
    while at.wrapping_add(NAME) < end {
        let record = records.wrapping_add(at);
        // SAFETY: inside the records; the length is checked before its use.
        unsafe {
            let length = record.wrapping_add(LENGTH).cast::<u16>().read_unaligned() as usize;
            if length <= NAME || length > end.wrapping_sub(at) {
                return;
            }
            let kind = record.wrapping_add(KIND);
            let entry = *kind;
            let rest = length.wrapping_sub(NAME);
            core::ptr::copy(record.wrapping_add(NAME), kind, rest);
            *record.wrapping_add(length).wrapping_sub(1) = entry;
            at = at.wrapping_add(length);
        }
    }
}
