//! `lseek`: the offset of an open file description lies in shared memory.

use core::ffi::c_int;
use core::sync::atomic::Ordering::{Acquire, Relaxed};

use wire::layout::{FILE_KERNEL, WAIT_NEVER};

use super::NOT_OURS;
use super::io::{CLOSED, anew, on};
use super::mapped;
use super::target::{Target, answer, target};
use crate::threads::Hold;

/// As `lseek(2)`.
///
/// # Safety
/// None beyond what the caller of any call promises.
#[inline(always)]
pub(crate) unsafe fn lseek(fd: c_int, offset: i64, whence: c_int) -> isize {
    on!(fd, target => seek(target, offset, whence), lseek(fd, offset, whence))
}

fn seek(target: Target, offset: i64, whence: c_int) -> Result<isize, i32> {
    target.alive()?;
    if target.ofd.flags() & libc::O_PATH != 0 {
        return Err(libc::EBADF);
    }
    match whence {
        libc::SEEK_SET => move_to(target, |_| Some(offset)),
        libc::SEEK_CUR => move_to(target, |now| now.checked_add(offset)),
        libc::SEEK_END => {
            target.wait_final()?;
            let size = target.file.sync.size.load(Acquire).cast_signed();
            move_to(target, |_| size.checked_add(offset))
        }
        libc::SEEK_DATA => find(target, offset, true),
        libc::SEEK_HOLE => find(target, offset, false),
        _ => Err(libc::EINVAL),
    }
}

/// Sets the offset to what `to` makes of the present one.
#[inline(always)]
fn move_to(target: Target, to: impl FnOnce(i64) -> Option<i64>) -> Result<isize, i32> {
    let word = &target.ofd.sync.word;
    let hold = Hold::of_word(target.session, target.file.index, word)?;
    if !target.ofd.is_open() {
        return Err(CLOSED);
    }
    let now = target.ofd.sync.offset.load(Relaxed).cast_signed();
    let new = to(now).ok_or(libc::EOVERFLOW)?;
    if new < 0 {
        return Err(libc::EINVAL);
    }
    target.ofd.sync.offset.store(new.cast_unsigned(), Relaxed);
    drop(hold);
    Ok(new as isize)
}

/// `SEEK_DATA` and `SEEK_HOLE`. A stream is final before its holes are told,
/// unless data before the frontier answers.
fn find(target: Target, from: i64, data: bool) -> Result<isize, i32> {
    let from = u64::try_from(from).map_err(|_| libc::ENXIO)?;
    let known = data && from < target.limit() && target.ofd.wait() != WAIT_NEVER;
    if !known {
        target.wait_final()?;
    }
    let found = loop {
        mapped::wait_for_move(target)?;
        let _pages = Hold::of_pages(target.file.index)?;
        let size = target.file.sync.size.load(Acquire);
        if from >= size {
            return Err(libc::ENXIO);
        }
        let found = match target.file.elsewhere() {
            0 => target.file.find(target.session, from, size, data),
            FILE_KERNEL => mapped::find(target, from, size, data),
            _ => continue,
        };
        break match found {
            Some(at) => at,
            // There is always a hole at the end.
            None if !data => size,
            None => return Err(libc::ENXIO),
        };
    };
    move_to(target, |_| i64::try_from(found).ok())
}
