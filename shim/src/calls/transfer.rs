//! Calls that move data between files inside the kernel. Here the data is
//! copied, or the errno makes the usual programs copy it.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;

use super::NOT_OURS;
use super::goal::hand_over;
use super::io;
use super::target::{Target, answer, target};
use crate::descriptors::{self, Kind};
use crate::sys::syscall;
use crate::usercopy;

/// Bytes that are moved at a time.
const STEP: usize = 16 * 1024;

/// As `sendfile(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn sendfile(out: c_int, from: c_int, offset: *mut i64, n: usize) -> isize {
    if descriptors::get(from) == Kind::None && descriptors::get(out) == Kind::None {
        return NOT_OURS;
    }
    let Some(source) = target(from) else {
        // From a file of the kernel into one of ours: programs fall back.
        return match target(out) {
            Some(_) => answer(Err(libc::EINVAL)),
            None => NOT_OURS,
        };
    };
    // SAFETY: the caller's own promises.
    answer(unsafe { send(source, from, out, offset, n) })
}

unsafe fn send(
    source: Target,
    from: c_int,
    out: c_int,
    offset: *mut i64,
    n: usize,
) -> Result<isize, i32> {
    source.readable()?;
    let mut at = 0i64;
    if !offset.is_null() {
        // SAFETY: the caller's offset, which may fault.
        let left = unsafe { usercopy::copy((&raw mut at).cast(), offset.cast(), size_of::<i64>()) };
        if left != 0 {
            return Err(libc::EFAULT);
        }
    }
    let mut sent = 0usize;
    while sent < n {
        let part = STEP.min(n.wrapping_sub(sent));
        let place = (!offset.is_null()).then_some(at);
        // SAFETY: handed on.
        match unsafe { send_some(from, out, place, part) } {
            Ok(0) => break,
            Ok(done) => {
                sent = sent.wrapping_add(done);
                at = at.wrapping_add(done as i64);
                if done < part {
                    break;
                }
            }
            Err(_) if sent > 0 => break,
            Err(error) => return Err(error),
        }
    }
    if !offset.is_null() {
        // SAFETY: as above.
        unsafe { hand_over(&at, offset) }?;
    }
    Ok(sent as isize)
}

/// Moves up to `n` (at most [`STEP`]) bytes; the offset stands behind what was sent.
unsafe fn send_some(from: c_int, out: c_int, at: Option<i64>, n: usize) -> Result<usize, i32> {
    let mut room = [MaybeUninit::<u8>::uninit(); STEP];
    let buffer: *mut c_void = room.as_mut_ptr().cast();
    // SAFETY: `n` bytes of ours.
    unsafe {
        let got = match at {
            Some(at) => io::pread64(from, buffer, n, at),
            None => io::read(from, buffer, n),
        };
        let got = size(got)?;
        if got == 0 {
            return Ok(0);
        }
        let put = match io::write(out, buffer, got) {
            NOT_OURS => syscall!(libc::SYS_write, out, buffer, got),
            put => put,
        };
        let done = size(put);
        let taken = done.unwrap_or(0);
        if at.is_none() && taken < got {
            let back = (taken as i64).wrapping_sub(got as i64);
            super::lseek(from, back, libc::SEEK_CUR);
        }
        done
    }
}

fn size(answer: isize) -> Result<usize, i32> {
    usize::try_from(answer).map_err(|_| i32::try_from(answer.wrapping_neg()).unwrap_or(libc::EIO))
}

/// As `copy_file_range(2)`: `EXDEV`, upon which programs copy by themselves.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn copy_file_range(
    from: c_int,
    _from_offset: *mut i64,
    to: c_int,
    _to_offset: *mut i64,
    _n: usize,
    _flags: u32,
) -> isize {
    if descriptors::get(from) == Kind::None && descriptors::get(to) == Kind::None {
        return NOT_OURS;
    }
    answer(Err(libc::EXDEV))
}

/// As `splice(2)`: `EINVAL`, upon which programs read and write.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn splice(
    from: c_int,
    _from_offset: *mut i64,
    to: c_int,
    _to_offset: *mut i64,
    _n: usize,
    _flags: u32,
) -> isize {
    if target(from).is_none() && target(to).is_none() {
        return NOT_OURS;
    }
    answer(Err(libc::EINVAL))
}
