//! `getdents64`. The position is the kernel's offset of the shadow directory's
//! description, which `dup`, `fork` and `exec` share; `lseek` on it is the
//! kernel's own.

use core::ffi::{c_int, c_void};

use wire::message::{Entry, Reply, Request};

use super::NOT_OURS;
use super::goal::{hand_bytes, kernel};
use super::target::answer;
use crate::control;
use crate::descriptors::{self, Kind};
use crate::sys::syscall;

/// Bytes of a `linux_dirent64` before its name.
const HEAD: usize = 19;
/// Bytes of the longest `linux_dirent64`.
const LONGEST: usize = 280;
/// Positions behind "." and "..".
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
/// The coordinator's positions start here.
const FIRST: u64 = 16;

/// As `getdents64(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn getdents64(fd: c_int, buf: *mut c_void, n: usize) -> isize {
    let Kind::Directory(inode) = descriptors::get(fd) else {
        return NOT_OURS;
    };
    answer(list(fd, inode, buf.cast(), n))
}

fn list(fd: c_int, inode: u64, buf: *mut u8, n: usize) -> Result<isize, i32> {
    // SAFETY: integers.
    let at = kernel(unsafe { syscall!(libc::SYS_lseek, fd, 0, libc::SEEK_CUR) })? as u64;
    let mut room = Room {
        buf,
        left: n,
        done: 0,
        at,
    };
    room.dots(fd, inode)?;
    if room.at >= DOT_DOT {
        let thread = control::thread()?;
        let request = Request::List {
            directory: inode,
            cookie: if room.at < FIRST { 0 } else { room.at },
            thread,
        };
        control::ask(&request, |reply, received| {
            received.close();
            match reply {
                Reply::Entries { packed, .. } => room.fill(packed),
                _ => Err(libc::EIO),
            }
        })?;
    }
    if room.at != at {
        // SAFETY: integers.
        kernel(unsafe { syscall!(libc::SYS_lseek, fd, room.at, libc::SEEK_SET) })?;
    }
    Ok(room.done as isize)
}

/// The caller's buffer.
struct Room {
    buf: *mut u8,
    left: usize,
    done: usize,
    /// Position behind the last entry.
    at: u64,
}

impl Room {
    /// "." and "..", as far as they are due.
    fn dots(&mut self, fd: c_int, inode: u64) -> Result<(), i32> {
        let entry = |cookie, inode, name| Entry {
            cookie,
            inode,
            kind: libc::DT_DIR,
            name,
        };
        if self.at < DOT && !self.put(&entry(DOT, inode, b"."))? {
            return Err(libc::EINVAL);
        }
        if self.at < DOT_DOT {
            let parent = descriptors::inode_of(fd, c"..".as_ptr()).unwrap_or(inode);
            if !self.put(&entry(DOT_DOT, parent, b".."))? && self.done == 0 {
                return Err(libc::EINVAL);
            }
        }
        Ok(())
    }

    /// As many packed entries as fit.
    fn fill(&mut self, packed: &[u8]) -> Result<(), i32> {
        let mut rest = packed;
        while let Some((entry, tail)) = Entry::take(rest) {
            if !self.put(&entry)? {
                return if self.done == 0 {
                    Err(libc::EINVAL)
                } else {
                    Ok(())
                };
            }
            rest = tail;
        }
        Ok(())
    }

    /// Appends an entry; `false`: it does not fit.
    fn put(&mut self, entry: &Entry<'_>) -> Result<bool, i32> {
        let mut bytes = [0u8; LONGEST];
        let length = write_entry(entry, &mut bytes).ok_or(libc::EIO)?;
        if length > self.left {
            return Ok(false);
        }
        let to = self.buf.wrapping_add(self.done);
        let bytes = bytes.get(..length).unwrap_or_default();
        // SAFETY: the caller's buffer, of which this much is left.
        unsafe { hand_bytes(bytes, to) }?;
        self.done = self.done.wrapping_add(length);
        self.left = self.left.wrapping_sub(length);
        self.at = entry.cookie;
        Ok(true)
    }
}

/// Writes a `linux_dirent64`; its length.
fn write_entry(entry: &Entry<'_>, into: &mut [u8; LONGEST]) -> Option<usize> {
    let end = HEAD.checked_add(entry.name.len())?.checked_add(1)?;
    let length = end.checked_next_multiple_of(8)?;
    let reclen = u16::try_from(length).ok()?;
    into.get_mut(..8)?
        .copy_from_slice(&entry.inode.to_le_bytes());
    into.get_mut(8..16)?
        .copy_from_slice(&entry.cookie.to_le_bytes());
    into.get_mut(16..18)?.copy_from_slice(&reclen.to_le_bytes());
    *into.get_mut(18)? = entry.kind;
    let name = into.get_mut(HEAD..end.wrapping_sub(1))?;
    name.copy_from_slice(entry.name);
    into.get(..length).map(<[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_kernels_layout() {
        let entry = Entry {
            cookie: 17,
            inode: 0x1_0000_0005,
            kind: libc::DT_REG,
            name: b"reads.fq",
        };
        let mut bytes = [0xff; LONGEST];
        bytes.fill(0);
        assert_eq!(write_entry(&entry, &mut bytes), Some(32));
        // SAFETY: the layout under test, in a buffer that is long enough.
        let dirent = unsafe { bytes.as_ptr().cast::<libc::dirent64>().read_unaligned() };
        assert_eq!((dirent.d_ino, dirent.d_off), (0x1_0000_0005, 17));
        assert_eq!((dirent.d_reclen, dirent.d_type), (32, libc::DT_REG));
        assert_eq!(&bytes[19..28], b"reads.fq\0");
    }
}
