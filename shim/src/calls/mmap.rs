//! Mappings. A file that is mapped moves into an inode of its own, and the
//! mapping is the kernel's: end of file, SIGBUS, `mremap`, `msync`, `fork` and
//! what `read` and `write` show are as on any file system.

use core::ffi::{c_int, c_void};

use wire::limits::PAGE;

use super::goal::kernel;
use super::target::{Target, answer, target};
use super::{NOT_OURS, io, mapped};
use crate::sys::syscall;

/// As `mmap(2)`. A consumer waits until the file is final.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn mmap(
    addr: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> isize {
    if flags & libc::MAP_ANONYMOUS != 0 {
        return NOT_OURS;
    }
    let Some(target) = target(fd) else {
        return NOT_OURS;
    };
    let wanted = Mapping {
        addr,
        length,
        protection,
        flags,
        offset,
    };
    // SAFETY: the caller's own promises.
    answer(unsafe { map(target, &wanted) })
}

struct Mapping {
    addr: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    offset: i64,
}

impl Mapping {
    fn is_shared(&self) -> bool {
        matches!(
            self.flags & libc::MAP_TYPE,
            libc::MAP_SHARED | libc::MAP_SHARED_VALIDATE
        )
    }

    /// Where it ends in the file.
    ///
    /// # Errors
    /// `EINVAL`, `EOVERFLOW`.
    fn end(&self) -> Result<u64, i32> {
        let offset = u64::try_from(self.offset).map_err(|_| libc::EINVAL)?;
        let private = self.flags & libc::MAP_TYPE == libc::MAP_PRIVATE;
        if !offset.is_multiple_of(PAGE) || self.length == 0 || !(private || self.is_shared()) {
            return Err(libc::EINVAL);
        }
        offset
            .checked_add(self.length as u64)
            .filter(|end| i64::try_from(*end).is_ok())
            .ok_or(libc::EOVERFLOW)
    }

    /// Makes it; `descriptor` -1: of anonymous memory.
    unsafe fn make(
        &self,
        protection: c_int,
        flags: c_int,
        descriptor: c_int,
    ) -> Result<isize, i32> {
        let offset = if descriptor < 0 { 0 } else { self.offset };
        let (addr, length) = (self.addr, self.length);
        // SAFETY: the caller's own promises.
        kernel(unsafe {
            syscall!(
                libc::SYS_mmap,
                addr,
                length,
                protection,
                flags,
                descriptor as isize,
                offset
            )
        })
    }
}

unsafe fn map(target: Target, wanted: &Mapping) -> Result<isize, i32> {
    target.alive()?;
    if target.ofd.flags() & libc::O_PATH != 0 {
        return Err(libc::EBADF);
    }
    let end = wanted.end()?;
    let writes = wanted.is_shared() && target.ofd.is_writable();
    let wants_to_write = wanted.is_shared() && wanted.protection & libc::PROT_WRITE != 0;
    if !target.ofd.is_readable() || (wants_to_write && !writes) {
        return Err(libc::EACCES);
    }
    target.wait_final()?;
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        mapped::move_out(target, if writes { end } else { 0 })?;
        match wanted.make(wanted.protection, wanted.flags, target.fd) {
            // The session lies on a file system from which nothing may run.
            Err(libc::EPERM) if !wanted.is_shared() => copy(target, wanted),
            made => made,
        }
    }
}

/// A private mapping that may run, where the file's own cannot.
unsafe fn copy(target: Target, wanted: &Mapping) -> Result<isize, i32> {
    let flags = (wanted.flags & !libc::MAP_TYPE) | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let length = wanted.length;
    // SAFETY: the caller's own promises; the new mapping is ours to fill.
    unsafe {
        let at = wanted.make(rights, flags, -1)?;
        if let Err(error) = fill(target, at as *mut u8, length, wanted.offset) {
            syscall!(libc::SYS_munmap, at, length);
            return Err(error);
        }
        if wanted.protection != rights {
            syscall!(libc::SYS_mprotect, at, length, wanted.protection);
        }
        Ok(at)
    }
}

/// Reads the file from `offset` on to a fresh mapping, to its end at most.
unsafe fn fill(target: Target, to: *mut u8, length: usize, offset: i64) -> Result<(), i32> {
    let mut done = 0usize;
    while done < length {
        let (rest, at) = (length.wrapping_sub(done), offset.wrapping_add(done as i64));
        // SAFETY: the mapping is fresh and `length` long.
        let got = unsafe { io::pread64(target.fd, to.wrapping_add(done).cast(), rest, at) };
        match usize::try_from(kernel(got)?) {
            Ok(0) | Err(_) => break,
            Ok(got) => done = done.wrapping_add(got),
        }
    }
    Ok(())
}
