//! Files whose bytes lie in an inode of their own, because somebody has mapped
//! them: the kernel copies, to and from the pages that mappings show. Offsets,
//! sizes and what is published stay in shared memory.

use core::ffi::c_int;
use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use wire::layout::FILE_MOVING;
use wire::message::Request;

use super::buffers::Buffers;
use super::goal::kernel;
use super::target::{Target, done, of_description, target};
use crate::descriptors::{self, Kind};
use crate::session::Session;
use crate::sys::syscall;
use crate::threads::Hold;
use crate::{attach, control, futex};

/// Waits until the file's bytes are where they belong.
///
/// # Errors
/// `EIO` when the coordinator is dead.
#[cold]
pub(crate) fn wait_for_move(target: Target) -> Result<(), i32> {
    let sync = target.file.sync;
    loop {
        let seen = sync.wake.load(SeqCst);
        if target.file.elsewhere() & FILE_MOVING == 0 {
            return Ok(());
        }
        // The end of a move wakes nobody in particular: look again soon.
        futex::wait(&sync.wake, seen, control::SOON);
        attach::look()?;
    }
}

/// How many of `n` bytes at `offset` may be written; `asked`: for which offset
/// the coordinator was asked, and what it said.
#[cold]
pub(crate) fn ready(
    target: Target,
    offset: u64,
    n: usize,
    asked: Option<(u64, Result<(), i32>)>,
) -> usize {
    if asked.is_some_and(|(at, said)| at == offset && said.is_ok()) {
        return n;
    }
    let granted = target.file.meta.granted.load(Acquire);
    let there = granted.saturating_sub(offset);
    usize::try_from(there).unwrap_or(usize::MAX).min(n)
}

/// Reads `n` bytes from `offset` on. Bytes read.
///
/// # Errors
/// What the kernel says, if nothing was read.
#[cold]
pub(crate) fn fill(
    target: Target,
    buffers: impl Buffers,
    offset: u64,
    n: usize,
) -> Result<usize, i32> {
    // SAFETY: the caller's memory; the kernel checks it.
    each(buffers, offset, n, |to, part, at| unsafe {
        syscall!(libc::SYS_pread64, target.fd, to, part, at)
    })
}

/// Writes `n` bytes at `offset`. Bytes written.
///
/// # Errors
/// What the kernel says, if nothing was written.
#[cold]
pub(crate) fn take(
    target: Target,
    buffers: impl Buffers,
    offset: u64,
    n: usize,
) -> Result<usize, i32> {
    // SAFETY: the caller's memory; the kernel checks it.
    each(buffers, offset, n, |from, part, at| unsafe {
        syscall!(libc::SYS_pwrite64, target.fd, from, part, at)
    })
}

fn each(
    buffers: impl Buffers,
    offset: u64,
    n: usize,
    call: impl Fn(*mut u8, usize, u64) -> isize,
) -> Result<usize, i32> {
    let mut at = offset;
    let mut failed = None;
    let done = buffers.walk(n, |memory, part| {
        let mut moved = 0usize;
        while moved < part {
            let rest = part.wrapping_sub(moved);
            let answer = call(memory.wrapping_add(moved), rest, at);
            match usize::try_from(answer) {
                Ok(0) => break,
                Ok(some) => {
                    moved = moved.wrapping_add(some);
                    at = at.wrapping_add(some as u64);
                }
                Err(_) if answer == -(libc::EINTR as isize) => {}
                Err(_) => {
                    failed = i32::try_from(answer.wrapping_neg()).ok();
                    break;
                }
            }
        }
        moved
    });
    match failed {
        Some(error) if done == 0 => Err(error),
        _ => Ok(done),
    }
}

/// Has the coordinator move the file into its inode. `end`: where a mapping
/// that will be written to ends in the file, 0 for none.
///
/// # Errors
/// `ENOMEM` when the cache has no room for it; `EIO`.
pub(crate) fn move_out(target: Target, end: u64) -> Result<(), i32> {
    control::tell(&Request::Map {
        ofd: target.ofd.id,
        end,
    })
}

/// Leaves the open file description at `fd`, if it is the session's, to the
/// kernel: for a program that we are no part of. 0 or `-errno`. A consumer waits
/// until the file is final.
pub(crate) fn hand_over(fd: c_int) -> isize {
    let Kind::Ofd { id, generation } = descriptors::ask(fd) else {
        return 0;
    };
    let known = Session::get().and_then(|session| descriptors::ofd_of(session, id, generation));
    match known.and_then(|ofd| of_description(fd, ofd)) {
        Some(target) => done(leave(target)),
        None => 0,
    }
}

/// [`hand_over`] of a descriptor that is known, for calls that the kernel
/// carries out by itself.
pub(crate) fn leave_to_kernel(fd: c_int) -> isize {
    target(fd).map_or(0, |target| done(leave(target)))
}

fn leave(target: Target) -> Result<(), i32> {
    if target.ofd.flags() & libc::O_PATH != 0 {
        // No call on it reaches the bytes.
        return Ok(());
    }
    if target.ofd.is_readable() {
        target.wait_final()?;
    }
    move_out(target, 0)?;
    let word = &target.ofd.sync.word;
    let hold = Hold::of_word(target.session, target.file.index, word)?;
    if target.ofd.is_native() {
        // Another thread was faster, and its offset may have moved on.
        return Ok(());
    }
    let offset = target.ofd.sync.offset.load(Relaxed);
    // SAFETY: integers.
    kernel(unsafe { syscall!(libc::SYS_lseek, target.fd, offset, libc::SEEK_SET) })?;
    control::tell(&Request::HandOver { ofd: target.ofd.id })?;
    drop(hold);
    Ok(())
}

/// Bytes that the file's pages take.
#[cold]
pub(crate) fn allocated(target: Target) -> u64 {
    // SAFETY: all-zero is a valid value.
    let mut st: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: room for the answer.
    let answer = unsafe { syscall!(libc::SYS_fstat, target.fd, &raw mut st) };
    let blocks = if answer == 0 { st.st_blocks } else { 0 };
    blocks.cast_unsigned().wrapping_mul(512)
}

/// The first data (or hole) from `from` on, below `size`.
#[cold]
pub(crate) fn find(target: Target, from: u64, size: u64, data: bool) -> Option<u64> {
    let whence = if data {
        libc::SEEK_DATA
    } else {
        libc::SEEK_HOLE
    };
    // SAFETY: integers. The kernel's own offset goes back to where nothing can
    // be written by a call that misses us.
    let found = unsafe {
        let found = syscall!(libc::SYS_lseek, target.fd, from, whence);
        syscall!(libc::SYS_lseek, target.fd, i64::MAX, libc::SEEK_SET);
        found
    };
    u64::try_from(found).ok().filter(|at| *at < size)
}
