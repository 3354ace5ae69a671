//! Memory for walks: a byte stack that grows, a set of inodes, and one pass
//! over a directory's entries. All in anonymous mappings.

use super::next::either;
use crate::sys::syscall;
use core::ffi::{c_char, c_int, c_void};
use core::ptr;

/// A stack of bytes in an anonymous mapping; unmapped when dropped.
pub(crate) struct Grow {
    base: *mut u8,
    cap: usize,
    len: usize,
}

impl Grow {
    pub(crate) const fn new() -> Self {
        Self {
            base: ptr::null_mut(),
            cap: 0,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = len.min(self.len);
    }

    /// The byte at `offset`; valid until the next `reserve` or `push`.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        self.base.wrapping_add(offset)
    }

    /// Makes room for `more` bytes. False: no memory.
    pub(crate) fn reserve(&mut self, more: usize) -> bool {
        let want = self.len.saturating_add(more);
        if want <= self.cap {
            return true;
        }
        let Some(cap) = want.checked_next_power_of_two() else {
            return false;
        };
        let cap = cap.max(64 * 1024);
        let (rights, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a fresh mapping, or our own one moved.
        let at = unsafe {
            if self.cap == 0 {
                syscall!(libc::SYS_mmap, 0, cap, rights, kind, -1isize, 0)
            } else {
                syscall!(
                    libc::SYS_mremap,
                    self.base,
                    self.cap,
                    cap,
                    libc::MREMAP_MAYMOVE
                )
            }
        };
        if at < 0 {
            return false;
        }
        self.base = at as *mut u8;
        self.cap = cap;
        true
    }

    /// Appends a C string with its NUL. False: no memory.
    ///
    /// # Safety
    /// `text` must be a C string.
    pub(crate) unsafe fn push_str(&mut self, text: *const c_char) -> bool {
        // SAFETY: the caller's promise; the room was just reserved.
        unsafe {
            let n = libc::strlen(text).wrapping_add(1);
            if !self.reserve(n) {
                return false;
            }
            ptr::copy_nonoverlapping(text.cast::<u8>(), self.at(self.len), n);
            self.len = self.len.wrapping_add(n);
        }
        true
    }
}

impl Drop for Grow {
    fn drop(&mut self) {
        if self.cap != 0 {
            // SAFETY: our own mapping, used by nobody else.
            unsafe { syscall!(libc::SYS_munmap, self.base, self.cap) };
        }
    }
}

/// The directories that a walk has entered, by device and inode.
pub(crate) struct Seen {
    table: Grow,
    slots: usize,
    used: usize,
}

impl Seen {
    pub(crate) const fn new() -> Self {
        Self {
            table: Grow::new(),
            slots: 0,
            used: 0,
        }
    }

    fn slot(table: &Grow, slots: usize, dev: u64, ino: u64) -> *mut [u64; 2] {
        let first = table.at(0).cast::<[u64; 2]>();
        let mask = slots.wrapping_sub(1);
        let mut i = (ino ^ dev.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 20;
        loop {
            let at = first.wrapping_add(i & mask);
            // SAFETY: inside the table: the mask keeps the index below `slots`.
            let held = unsafe { *at };
            if held == [0, 0] || held == [dev, ino] {
                return at;
            }
            i = i.wrapping_add(1);
        }
    }

    fn widen(&mut self) -> bool {
        let slots = if self.slots == 0 {
            4096
        } else {
            self.slots.wrapping_mul(2)
        };
        let mut wider = Grow::new();
        if !wider.reserve(slots.wrapping_mul(16)) {
            return false;
        }
        for i in 0..self.slots {
            // SAFETY: inside the old table.
            let held = unsafe { *self.table.at(0).cast::<[u64; 2]>().wrapping_add(i) };
            if held != [0, 0] {
                // SAFETY: a free slot of the new table, which is twice as large.
                unsafe { *Self::slot(&wider, slots, held[0], held[1]) = held };
            }
        }
        self.table = wider;
        self.slots = slots;
        true
    }

    /// Adds a directory: true if it is new. None: no memory.
    pub(crate) fn add(&mut self, st: &libc::stat) -> Option<bool> {
        if self.used.wrapping_mul(2) >= self.slots && !self.widen() {
            return None;
        }
        let at = Self::slot(&self.table, self.slots, st.st_dev, st.st_ino);
        // SAFETY: `slot` gives a place inside the table.
        unsafe {
            if *at == [st.st_dev, st.st_ino] {
                return Some(false);
            }
            *at = [st.st_dev, st.st_ino];
        }
        self.used = self.used.wrapping_add(1);
        Some(true)
    }
}

/// Opens a directory for reading its entries: a descriptor or `-errno`.
///
/// # Safety
/// `path` must be a C string.
pub(crate) unsafe fn open_dir(dirfd: c_int, path: *const c_char) -> isize {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the caller's promise.
    unsafe { either!(openat(dirfd, path, flags, 0), libc::SYS_openat) }
}

/// Closes a descriptor, ours or not.
pub(crate) fn close(fd: c_int) -> isize {
    // SAFETY: takes a plain number; callers close what they opened.
    unsafe { either!(close(fd), libc::SYS_close) }
}

/// `stat` (or `lstat` with `AT_SYMLINK_NOFOLLOW`) of a path, ours or not.
///
/// # Safety
/// `path` must be a C string.
pub(crate) unsafe fn stat_at(
    dirfd: c_int,
    path: *const c_char,
    st: *mut libc::stat,
    flags: c_int,
) -> isize {
    // SAFETY: the caller's promise.
    unsafe { either!(newfstatat(dirfd, path, st, flags), libc::SYS_newfstatat) }
}

/// `.` or `..`.
///
/// # Safety
/// `name` must be a C string.
pub(crate) unsafe fn is_dot(name: *const c_char) -> bool {
    // SAFETY: each byte is read only if the one before was not the NUL.
    unsafe {
        *name == b'.' as c_char
            && (*name.add(1) == 0 || (*name.add(1) == b'.' as c_char && *name.add(2) == 0))
    }
}

#[repr(C, align(8))]
struct Block([u8; 8192]);

/// Calls `each` for every entry of `fd` until it says stop (false).
/// The answer is 0 or `-errno` of the read.
///
/// # Safety
/// `fd` must be a directory's descriptor.
pub(crate) unsafe fn entries(
    fd: c_int,
    mut each: impl FnMut(*mut libc::dirent64) -> bool,
) -> isize {
    let mut block = Block([0; 8192]);
    loop {
        let buf = block.0.as_mut_ptr();
        // SAFETY: the block is as long as said.
        let n = unsafe {
            either!(
                getdents64(fd, buf.cast::<c_void>(), 8192usize),
                libc::SYS_getdents64
            )
        };
        if n <= 0 {
            // A directory removed under the walk is an empty one, as in libc.
            return if n == -(libc::ENOENT as isize) { 0 } else { n };
        }
        let (mut at, end) = (0usize, n as usize);
        while at < end {
            let entry = buf.wrapping_add(at).cast::<libc::dirent64>();
            // SAFETY: the kernel's records lie back to back inside the block.
            let step = unsafe { (*entry).d_reclen } as usize;
            if step == 0 {
                return -(libc::EIO as isize);
            }
            if !each(entry) {
                return 0;
            }
            at = at.wrapping_add(step);
        }
    }
}
