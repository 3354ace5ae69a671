//! Reading and writing: copies between the caller's memory and the arena, and
//! no system call on the way.

use core::ffi::{c_int, c_void};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed};

use wire::layout::FILE_KERNEL;
use wire::limits::MAX_FILE_SIZE;
use wire::message::Request;
use wire::protocol::stream::Told;

use super::NOT_OURS;
use super::buffers::{Buffers, Many, One, copy_in, copy_out, map_granted, resident};
use super::target::{AtLimit, Target, answer, target};
use super::{mapped, rest};
use crate::threads::Hold;
use crate::{clock, control};

/// A day, ns: how old an access time may get (`relatime`).
const DAY: i64 = 86_400_000_000_000;
/// A write of at most so many bytes is begun when there are pages for all of it, so
/// that nothing of it is seen if the process dies on the way.
const IN_ONE: usize = 1 << 20;
/// How often pages are asked for before it is begun nevertheless: others may take
/// them away again, as long as they are empty.
const ASKS: u32 = 64;
/// Flags of `preadv2` and `pwritev2` that change nothing here.
const HARMLESS: c_int = libc::RWF_HIPRI | libc::RWF_DSYNC | libc::RWF_SYNC;

/// Another thread has closed the descriptor since it was looked up: an error
/// number of no call.
pub(super) const CLOSED: i32 = i32::MAX;

/// Where a call reads or writes.
#[derive(Clone, Copy)]
pub(super) enum At {
    /// At the description's offset, which moves on.
    Offset,
    /// Here.
    Here(u64),
    /// At the end of the file; the description's offset follows.
    End,
    /// At the end of the file.
    EndOnly,
}

/// Reads at `at`.
#[inline(always)]
fn read_at(target: Target, buffers: impl Buffers, at: At) -> Result<isize, i32> {
    target.readable()?;
    let n = buffers.total();
    if n == 0 {
        return Ok(0);
    }
    loop {
        let hold = hold_for(target, at)?;
        if !is_plain(target) {
            drop(hold);
            match read_elsewhere(target, buffers, at)? {
                Some(done) => return Ok(done),
                None => continue,
            }
        }
        let offset = read_offset(target, at);
        let Some(n) = readable_bytes(target, offset, n) else {
            drop(hold);
            match target.at_limit(offset)? {
                AtLimit::End => return Ok(0),
                AtLimit::More => continue,
            }
        };
        let done = fill(target, buffers, offset, 0, n);
        if done < n {
            if done == 0 && target.file.is_stored(target.session, offset) {
                drop(hold);
                rest::fetch(target, offset, n)?;
                continue;
            }
            return read_rest(target, hold, buffers, at, (offset, done, n));
        }
        has_read(target, at, offset, done);
        drop(hold);
        note_access(target);
        return Ok(done as isize);
    }
}

/// The rest of [`read_at`] where not all is in the cache, or the memory is bad.
#[cold]
#[inline(never)]
fn read_rest(
    target: Target,
    hold: Hold,
    buffers: impl Buffers,
    at: At,
    (offset, done, n): (u64, usize, usize),
) -> Result<isize, i32> {
    let done = rest::read(target, &hold, buffers, offset, done, n);
    if target.ofd.is_open() {
        has_read(target, at, offset, done);
    } else if done == 0 {
        // There is no offset to move on, or it is another description's.
        return Err(CLOSED);
    }
    if done == 0 {
        return Err(libc::EFAULT);
    }
    note_access(target);
    Ok(done as isize)
}

/// [`read_at`] of a file whose bytes are not in the arena; `None`: they are.
#[cold]
#[inline(never)]
fn read_elsewhere(target: Target, buffers: impl Buffers, at: At) -> Result<Option<isize>, i32> {
    wait_for_move(target)?;
    let hold = hold_for(target, at)?;
    if !is_kernels(target)? {
        return Ok(None);
    }
    let offset = read_offset(target, at);
    let Some(n) = readable_bytes(target, offset, buffers.total()) else {
        drop(hold);
        return Ok(match target.at_limit(offset)? {
            AtLimit::End => Some(0),
            AtLimit::More => None,
        });
    };
    let done = mapped::fill(target, buffers, offset, n)?;
    has_read(target, at, offset, done);
    drop(hold);
    if done == 0 {
        return Err(libc::EFAULT);
    }
    note_access(target);
    Ok(Some(done as isize))
}

#[inline(always)]
fn read_offset(target: Target, at: At) -> u64 {
    match at {
        At::Here(offset) => offset,
        _ => target.ofd.sync.offset.load(Relaxed),
    }
}

/// How many of `n` bytes at `offset` may be read now; `None`: none.
#[inline(always)]
fn readable_bytes(target: Target, offset: u64, n: usize) -> Option<usize> {
    let there = target
        .limit()
        .checked_sub(offset)
        .filter(|&there| there != 0)?;
    Some(usize::try_from(there).unwrap_or(usize::MAX).min(n))
}

/// Moves the offset on, and counts.
#[inline(always)]
fn has_read(target: Target, at: At, offset: u64, done: usize) {
    if matches!(at, At::Offset) {
        let offset = offset.wrapping_add(done as u64);
        target.ofd.sync.offset.store(offset, Relaxed);
    }
    count(&target.ofd.sync.read, done, at);
}

/// Copies `n` bytes to the caller, of which the first `from` are done: those at
/// `offset` are the first. Bytes done.
#[inline(always)]
pub(super) fn fill(
    target: Target,
    buffers: impl Buffers,
    offset: u64,
    from: usize,
    n: usize,
) -> usize {
    let mut at = offset;
    beyond(buffers, from, n, |to, part| {
        // SAFETY: the pages are held; the memory is what the program gave.
        let done = unsafe { copy_out(target.session, target.file, at, to, part) };
        at = at.wrapping_add(done as u64);
        done
    })
}

/// [`Buffers::walk`] from byte `from` on. Bytes copied, with those.
#[inline(always)]
fn beyond(
    buffers: impl Buffers,
    from: usize,
    n: usize,
    mut each: impl FnMut(*mut u8, usize) -> usize,
) -> usize {
    let mut over = from;
    buffers.walk(n, |memory, part| {
        let skip = over.min(part);
        over = over.wrapping_sub(skip);
        if skip != 0 && skip == part {
            return part;
        }
        skip.wrapping_add(each(memory.wrapping_add(skip), part.wrapping_sub(skip)))
    })
}

/// Adds to a counter of the description.
#[inline(always)]
fn count(counter: &core::sync::atomic::AtomicU64, done: usize, at: At) {
    match at {
        // Under the word: nobody else counts.
        At::Offset => counter.store(counter.load(Relaxed).wrapping_add(done as u64), Relaxed),
        _ => {
            counter.fetch_add(done as u64, Relaxed);
        }
    }
}

/// The word that `at` needs, or the pages alone.
#[inline(always)]
fn hold_for(target: Target, at: At) -> Result<Hold, i32> {
    let word: &'static AtomicU32 = match at {
        At::Offset => &target.ofd.sync.word,
        At::End | At::EndOnly => &target.file.sync.append,
        At::Here(_) => return Hold::of_pages(target.file.index),
    };
    Hold::of_word(target.session, target.file.index, word)
}

/// Whether the bytes are in the arena, and the records that are held still those of
/// the description.
#[inline(always)]
fn is_plain(target: Target) -> bool {
    target.file.elsewhere() | target.ofd.change() == 0
}

/// [`mapped::wait_for_move`] of a file that is still the description's.
fn wait_for_move(target: Target) -> Result<(), i32> {
    if !target.ofd.is_open() {
        return Err(CLOSED);
    }
    mapped::wait_for_move(target)
}

/// Whether the bytes are in the kernel's inode, under a hold.
///
/// # Errors
/// [`CLOSED`].
fn is_kernels(target: Target) -> Result<bool, i32> {
    if !target.ofd.is_open() {
        return Err(CLOSED);
    }
    Ok(target.file.elsewhere() == FILE_KERNEL)
}

/// What `$call` does on what `$fd` stands for; `$anew` when another thread has made
/// that something else meanwhile. No function and no loop: either would put what is
/// known of the descriptor into memory.
macro_rules! on {
    ($fd:expr, $target:ident => $call:expr, $anew:expr) => {
        match target($fd) {
            None => NOT_OURS,
            Some($target) => match $call {
                // SAFETY: the same arguments once more.
                Err(CLOSED) => anew(|| unsafe { $anew }),
                result => answer(result),
            },
        }
    };
}
pub(super) use on;

/// A call once more, out of the way of those that need no second time.
#[cold]
#[inline(never)]
pub(super) fn anew(call: impl FnOnce() -> isize) -> isize {
    call()
}

/// The access time as a file system mounted with `relatime` keeps it.
#[inline(always)]
fn note_access(target: Target) {
    let sync = target.file.sync;
    let accessed = sync.accessed.load(Relaxed).cast_signed();
    let modified = sync.modified.load(Relaxed).cast_signed();
    if accessed <= modified && target.ofd.flags() & libc::O_NOATIME == 0 {
        set_access(target, accessed);
    }
}

#[cold]
fn set_access(target: Target, accessed: i64) {
    let now = clock::coarse();
    let modified = target.file.sync.modified.load(Relaxed).cast_signed();
    if accessed < modified || now.wrapping_sub(accessed) > DAY {
        // Later than the modification, so that the next read need not look.
        let now = now.max(modified.wrapping_add(1));
        target
            .file
            .sync
            .accessed
            .store(now.cast_unsigned(), Relaxed);
    }
}

/// Writes at `at`.
#[inline(always)]
fn write_at(target: Target, buffers: impl Buffers, at: At) -> Result<isize, i32> {
    target.writable()?;
    let wanted = buffers.total();
    if wanted == 0 {
        return Ok(0);
    }
    let (mut asked, mut asks) = (None, 0u32);
    loop {
        let hold = hold_for(target, at)?;
        if !is_plain(target) {
            drop(hold);
            match write_elsewhere(target, buffers, at)? {
                Some(done) => return Ok(done),
                None => {
                    asked = None;
                    continue;
                }
            }
        }
        let (offset, n) = write_range(target, at, wanted)?;
        let ready = resident(target.session, target.file, offset, n);
        if ready < n {
            let whole = n <= IN_ONE && asks < ASKS;
            let skip = if whole { ready } else { 0 };
            let missing = offset.wrapping_add(skip as u64);
            if asked.is_none_or(|(at, _)| at != missing) {
                drop(hold);
                asked = Some((missing, grant(target, missing, n.wrapping_sub(skip))));
                asks = asks.wrapping_add(1);
                continue;
            }
        }
        if ready == 0 {
            drop(hold);
            // What was granted may have been taken away again.
            asked.map_or(Ok(()), |(_, granted)| granted)?;
            asked = None;
            continue;
        }
        hold.writes(offset, offset.wrapping_add(ready as u64));
        let done = take(target, buffers, offset, 0, ready);
        let told = has_written(target, &hold, at, offset, done);
        if done == ready && ready < n {
            return write_rest(target, hold, buffers, at, (offset, done, n), told);
        }
        drop(hold);
        if done == 0 {
            return Err(libc::EFAULT);
        }
        tell(told, target, offset, offset.wrapping_add(done as u64))?;
        return Ok(done as isize);
    }
}

/// The rest of [`write_at`] where not all pages were there at once.
#[cold]
#[inline(never)]
fn write_rest(
    target: Target,
    hold: Hold,
    buffers: impl Buffers,
    at: At,
    (offset, done, n): (u64, usize, usize),
    told: Told,
) -> Result<isize, i32> {
    let done = rest::write(target, &hold, buffers, at, (offset, done, n), told);
    drop(hold);
    tell(told, target, offset, offset.wrapping_add(done as u64))?;
    Ok(done as isize)
}

/// [`write_at`] of a file whose bytes are not in the arena; `None`: they are.
#[cold]
#[inline(never)]
fn write_elsewhere(target: Target, buffers: impl Buffers, at: At) -> Result<Option<isize>, i32> {
    let mut asked = None;
    loop {
        wait_for_move(target)?;
        let hold = hold_for(target, at)?;
        if !is_kernels(target)? {
            return Ok(None);
        }
        let (offset, n) = write_range(target, at, buffers.total())?;
        let ready = mapped::ready(target, offset, n, asked);
        if ready < n && asked.is_none_or(|(at, _)| at != offset) {
            drop(hold);
            asked = Some((offset, grant(target, offset, n)));
            continue;
        }
        if ready == 0 {
            let refused = asked.and_then(|(_, granted)| granted.err());
            return Err(refused.unwrap_or(libc::ENOSPC));
        }
        hold.writes(offset, offset.wrapping_add(ready as u64));
        let done = mapped::take(target, buffers, offset, ready)?;
        let told = has_written(target, &hold, at, offset, done);
        drop(hold);
        if done == 0 {
            return Err(libc::EFAULT);
        }
        tell(told, target, offset, offset.wrapping_add(done as u64))?;
        return Ok(Some(done as isize));
    }
}

/// Where a write of `wanted` bytes goes, and how many a file can have there.
#[inline(always)]
fn write_range(target: Target, at: At, wanted: usize) -> Result<(u64, usize), i32> {
    let offset = match at {
        At::Offset => target.ofd.sync.offset.load(Relaxed),
        At::Here(offset) => offset,
        At::End | At::EndOnly => target.file.sync.size.load(Acquire),
    };
    let room = usize::try_from(MAX_FILE_SIZE.saturating_sub(offset)).unwrap_or(usize::MAX);
    let n = wanted.min(room);
    if n == 0 {
        return Err(libc::EFBIG);
    }
    Ok((offset, n))
}

/// Publishes, moves the offset on, and counts.
#[inline(always)]
pub(super) fn has_written(target: Target, hold: &Hold, at: At, offset: u64, done: usize) -> Told {
    let told = publish(target, offset, done);
    hold.has_written();
    match at {
        At::Here(_) | At::EndOnly => {}
        _ => {
            let end = offset.wrapping_add(done as u64);
            target.ofd.sync.offset.store(end, Relaxed);
        }
    }
    count(&target.ofd.sync.written, done, at);
    told
}

/// Copies `n` bytes from the caller, of which the first `from` are done: those
/// after them go to `offset`. Bytes done.
#[inline(always)]
pub(super) fn take(
    target: Target,
    buffers: impl Buffers,
    offset: u64,
    from: usize,
    n: usize,
) -> usize {
    let mut at = offset;
    beyond(buffers, from, n, |from, part| {
        // SAFETY: the pages are held; the memory is what the program gave.
        let done = unsafe { copy_in(target.session, target.file, at, from, part) };
        at = at.wrapping_add(done as u64);
        done
    })
}

/// Asks for pages.
#[cold]
pub(super) fn grant(target: Target, offset: u64, n: usize) -> Result<(), i32> {
    control::tell(&Request::Grant {
        ofd: target.ofd.id,
        offset,
        length: n as u64,
        thread: control::thread()?,
    })?;
    let _pages = Hold::of_pages(target.file.index)?;
    map_granted(target.session, target.file, offset, n);
    Ok(())
}

/// Tells the coordinator what it must hear of a write from `start` to `end`.
#[inline(always)]
pub(super) fn tell(told: Told, target: Target, start: u64, end: u64) -> Result<(), i32> {
    match told {
        Told::Nothing => Ok(()),
        Told::Beyond => tell_published(target, start, end),
        Told::Reached => tell_published(target, end, end),
    }
}

#[cold]
fn tell_published(target: Target, start: u64, end: u64) -> Result<(), i32> {
    control::tell(&Request::Published {
        ofd: target.ofd.id,
        start,
        end,
    })
}

/// Makes the bytes seen that were written from `offset` on.
#[inline(always)]
fn publish(target: Target, offset: u64, done: usize) -> Told {
    if done == 0 {
        return Told::Nothing;
    }
    note_change(target);
    let end = offset.wrapping_add(done as u64);
    let stream = target.file.stream();
    stream.publish(offset, end, || target.wake())
}

#[inline(always)]
fn note_change(target: Target) {
    let (sync, now) = (target.file.sync, clock::coarse().cast_unsigned());
    if sync.modified.load(Relaxed) != now {
        sync.modified.store(now, Relaxed);
        sync.changed.store(now, Relaxed);
    }
}

/// Where `write` writes.
#[inline(always)]
fn write_place(target: Target) -> At {
    if target.ofd.flags() & libc::O_APPEND != 0 {
        At::End
    } else {
        At::Offset
    }
}

/// Where `pwrite` writes. With `O_APPEND` that is the end, whatever the
/// offset, as in Linux.
fn pwrite_place(target: Target, offset: i64) -> Result<At, i32> {
    let offset = u64::try_from(offset).map_err(|_| libc::EINVAL)?;
    Ok(match write_place(target) {
        At::End => At::EndOnly,
        _ => At::Here(offset),
    })
}

fn pread_place(offset: i64) -> Result<At, i32> {
    u64::try_from(offset)
        .map(At::Here)
        .map_err(|_| libc::EINVAL)
}

/// As `read(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
#[inline(always)]
pub(crate) unsafe fn read(fd: c_int, buf: *mut c_void, n: usize) -> isize {
    on!(fd, target => {
        read_at(target, One::new(buf, n), At::Offset)
    }, read(fd, buf, n))
}

/// As `write(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
#[inline(always)]
pub(crate) unsafe fn write(fd: c_int, buf: *const c_void, n: usize) -> isize {
    on!(fd, target => {
        write_at(target, One::new(buf, n), write_place(target))
    }, write(fd, buf, n))
}

/// As `pread(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
#[inline(always)]
pub(crate) unsafe fn pread64(fd: c_int, buf: *mut c_void, n: usize, offset: i64) -> isize {
    let buffer = One::new(buf, n);
    on!(fd, target => {
        pread_place(offset).and_then(|at| read_at(target, buffer, at))
    }, pread64(fd, buf, n, offset))
}

/// As `pwrite(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
#[inline(always)]
pub(crate) unsafe fn pwrite64(fd: c_int, buf: *const c_void, n: usize, offset: i64) -> isize {
    let buffer = One::new(buf, n);
    on!(fd, target => {
        pwrite_place(target, offset).and_then(|at| write_at(target, buffer, at))
    }, pwrite64(fd, buf, n, offset))
}

/// As `readv(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn readv(fd: c_int, iov: *const libc::iovec, count: c_int) -> isize {
    // SAFETY: handed on.
    unsafe { preadv2(fd, iov, count, -1, 0) }
}

/// As `writev(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn writev(fd: c_int, iov: *const libc::iovec, count: c_int) -> isize {
    // SAFETY: handed on.
    unsafe { pwritev2(fd, iov, count, -1, 0) }
}

/// As `preadv2(2)`; offset -1: at the description's.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn preadv2(
    fd: c_int,
    iov: *const libc::iovec,
    count: c_int,
    offset: i64,
    flags: c_int,
) -> isize {
    if target(fd).is_none() {
        return NOT_OURS;
    }
    if flags & !HARMLESS != 0 {
        return answer(Err(libc::EOPNOTSUPP));
    }
    let mut buffers = Many::new();
    // SAFETY: the caller's own promises.
    let filled = unsafe { buffers.fill(iov, count) };
    if let Err(error) = filled {
        return answer(Err(error));
    }
    on!(fd, target => {
        let at = match offset {
            -1 => Ok(At::Offset),
            _ => pread_place(offset),
        };
        at.and_then(|at| read_at(target, &buffers, at))
    }, preadv2(fd, iov, count, offset, flags))
}

/// As `pwritev2(2)`; offset -1: at the description's.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn pwritev2(
    fd: c_int,
    iov: *const libc::iovec,
    count: c_int,
    offset: i64,
    flags: c_int,
) -> isize {
    if target(fd).is_none() {
        return NOT_OURS;
    }
    if flags & !(HARMLESS | libc::RWF_APPEND) != 0 {
        return answer(Err(libc::EOPNOTSUPP));
    }
    let mut buffers = Many::new();
    // SAFETY: the caller's own promises.
    let filled = unsafe { buffers.fill(iov, count) };
    if let Err(error) = filled {
        return answer(Err(error));
    }
    on!(fd, target => {
        let at = match offset {
            _ if flags & libc::RWF_APPEND != 0 => Ok(At::End),
            -1 => Ok(write_place(target)),
            _ => pwrite_place(target, offset),
        };
        at.and_then(|at| write_at(target, &buffers, at))
    }, pwritev2(fd, iov, count, offset, flags))
}
