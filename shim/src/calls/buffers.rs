//! The caller's memory that a read fills or a write takes, and the copies
//! between it and the pages of a file.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;

use wire::layout::Piece;
use wire::limits::CHUNK;

use crate::session::{File, Session, map_pages};
use crate::usercopy;

/// Most bytes that one call moves, as in the kernel.
pub(crate) const MAX_COUNT: usize = 0x7fff_f000;
/// Most buffers of one call (`UIO_MAXIOV`).
const MAX_BUFFERS: usize = 1024;

/// The caller's memory. By value, for the reason that `Target` is.
pub(crate) trait Buffers: Copy {
    /// Bytes in all, at most [`MAX_COUNT`].
    fn total(self) -> usize;

    /// Calls `each` with address and length of each part of the first `n`
    /// bytes, until it copies less than it was given. Bytes copied.
    fn walk(self, n: usize, each: impl FnMut(*mut u8, usize) -> usize) -> usize;
}

/// One buffer.
#[derive(Clone, Copy)]
pub(crate) struct One {
    at: *mut u8,
    length: usize,
}

impl One {
    /// `n` bytes at `at`.
    #[inline(always)]
    pub(crate) fn new(at: *const c_void, n: usize) -> Self {
        Self {
            at: at.cast_mut().cast(),
            length: n.min(MAX_COUNT),
        }
    }
}

impl Buffers for One {
    #[inline(always)]
    fn total(self) -> usize {
        self.length
    }

    #[inline(always)]
    fn walk(self, n: usize, mut each: impl FnMut(*mut u8, usize) -> usize) -> usize {
        each(self.at, n)
    }
}

/// A list of buffers, copied from the caller.
pub(crate) struct Many {
    list: [MaybeUninit<libc::iovec>; MAX_BUFFERS],
    count: usize,
    total: usize,
}

impl Many {
    /// No buffer yet.
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self {
            list: [MaybeUninit::uninit(); MAX_BUFFERS],
            count: 0,
            total: 0,
        }
    }

    /// Reads the list at `list`.
    ///
    /// # Errors
    /// `EINVAL`, `EFAULT`.
    ///
    /// # Safety
    /// `list` may be any address whose content is the caller's.
    pub(crate) unsafe fn fill(
        &mut self,
        list: *const libc::iovec,
        count: c_int,
    ) -> Result<(), i32> {
        let count = usize::try_from(count).map_err(|_| libc::EINVAL)?;
        if count > MAX_BUFFERS {
            return Err(libc::EINVAL);
        }
        let bytes = count.wrapping_mul(size_of::<libc::iovec>());
        // SAFETY: room for as many as MAX_BUFFERS; the caller's word for `list`.
        let left = unsafe { usercopy::copy(self.list.as_mut_ptr().cast(), list.cast(), bytes) };
        if left != 0 {
            return Err(libc::EFAULT);
        }
        self.count = count;
        let mut total = 0usize;
        for one in self.parts() {
            if one.iov_len > isize::MAX as usize {
                return Err(libc::EINVAL);
            }
            total = total.saturating_add(one.iov_len);
        }
        self.total = total.min(MAX_COUNT);
        Ok(())
    }

    fn parts(&self) -> &[libc::iovec] {
        // SAFETY: `fill` has written the first `count`, which is never more than there are.
        unsafe { core::slice::from_raw_parts(self.list.as_ptr().cast(), self.count) }
    }
}

impl Buffers for &Many {
    fn total(self) -> usize {
        self.total
    }

    fn walk(self, n: usize, mut each: impl FnMut(*mut u8, usize) -> usize) -> usize {
        let mut done = 0usize;
        for one in self.parts() {
            let part = one.iov_len.min(n.wrapping_sub(done));
            if part == 0 {
                continue;
            }
            let copied = each(one.iov_base.cast(), part);
            done = done.wrapping_add(copied);
            if copied < part {
                break;
            }
        }
        done
    }
}

/// Walks the pieces of `n` bytes from `offset` on: `find` gives a piece's page,
/// `each` gets the bytes done, where they go on in the page and the length, and
/// gives what it has *not* copied; without a page `none` does so. Bytes copied.
#[inline(always)]
fn pieces(
    session: Session,
    offset: u64,
    n: usize,
    find: impl Fn(Piece) -> Option<*mut u8>,
    mut each: impl FnMut(usize, *mut u8, usize) -> usize,
    mut none: impl FnMut(usize, Piece, usize) -> usize,
) -> usize {
    let mut done = 0usize;
    while done < n {
        let at = offset.wrapping_add(done as u64);
        let Some(piece) = Piece::at(at) else { break };
        let into = at.wrapping_sub(piece.start);
        let rest = piece.length.wrapping_sub(into) as usize;
        let part = rest.min(n.wrapping_sub(done));
        let left = match find(piece) {
            Some(start) => {
                if piece.length == CHUNK {
                    session.touch(start);
                }
                each(done, start.wrapping_add(into as usize), part)
            }
            None => none(done, piece, part),
        };
        done = done.wrapping_add(part.wrapping_sub(left));
        if left != 0 {
            break;
        }
    }
    done
}

/// Copies `n` bytes of `file` from `offset` on to the caller; stops at what is
/// in the store only. Bytes copied.
///
/// # Safety
/// The file's pages must be held; `to` is the caller's memory.
#[inline(always)]
pub(crate) unsafe fn copy_out(
    session: Session,
    file: File,
    offset: u64,
    to: *mut u8,
    n: usize,
) -> usize {
    pieces(
        session,
        offset,
        n,
        |piece| file.piece(session, piece),
        // SAFETY: the page lies in the arena (`Session::bytes` has checked) and
        // is held; the caller's word for the rest.
        |done, page, part| unsafe { usercopy::copy(to.wrapping_add(done), page, part) },
        |done, piece, part| {
            if file.is_hole(session, piece) {
                // SAFETY: the caller's word.
                unsafe { usercopy::zero(to.wrapping_add(done), part) }
            } else {
                part
            }
        },
    )
}

/// Copies `n` bytes from the caller into `file` at `offset`, of which
/// [`resident`] has said that they can be written. Bytes copied.
///
/// # Safety
/// As [`copy_out`], and since `resident` was asked.
#[inline(always)]
pub(crate) unsafe fn copy_in(
    session: Session,
    file: File,
    offset: u64,
    from: *const u8,
    n: usize,
) -> usize {
    pieces(
        session,
        offset,
        n,
        // A mark that came meanwhile waits for the pages to be let go.
        |piece| file.piece(session, piece),
        // SAFETY: as in `copy_out`.
        |done, page, part| unsafe { usercopy::copy(page, from.wrapping_add(done), part) },
        |_, _, part| part,
    )
}

/// How many of `n` bytes from `offset` on can be written without asking.
#[inline(always)]
pub(crate) fn resident(session: Session, file: File, offset: u64, n: usize) -> usize {
    let find = |piece| file.own_piece(session, piece);
    pieces(session, offset, n, find, |_, _, _| 0, |_, _, part| part)
}

/// Maps pages that were just granted for `n` bytes from `offset` on: those of
/// the small pool, as chunks are mapped when they are used first.
pub(crate) fn map_granted(session: Session, file: File, offset: u64, n: usize) {
    let end = offset.saturating_add(n as u64);
    let mut at = Piece::at(offset);
    while let Some(piece) = at
        && piece.start < end
        && piece.length < CHUNK
    {
        if piece.length >= BATCH
            && let Some(start) = file.piece(session, piece)
        {
            map_pages(start, piece.length as usize);
        }
        at = piece.next();
    }
}

/// From here on mapping page by page costs more than a call, in bytes.
const BATCH: u64 = 64 * 1024;
