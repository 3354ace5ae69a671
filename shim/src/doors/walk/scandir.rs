//! `scandir`, `scandirat`: a directory's entries in one array, which the
//! program frees with `free`. So array and entries come from libc's `malloc`.

use crate::calls::{self, NOT_OURS};
use crate::doors::grow::{close, entries};
use crate::doors::next::{code, pass, set_errno};
use core::ffi::{c_char, c_int, c_void};
use core::ptr::{self, null_mut};
use libc::dirent64;

type Select = Option<unsafe extern "C" fn(*const dirent64) -> c_int>;
type Compare = Option<unsafe extern "C" fn(*mut *const dirent64, *mut *const dirent64) -> c_int>;
/// As `qsort` takes it.
type Order = Option<unsafe extern "C" fn(*const c_void, *const c_void) -> c_int>;

/// The array under construction.
struct List {
    at: *mut *mut dirent64,
    len: usize,
    cap: usize,
}

impl List {
    /// Adds a copy of `entry`. False: no memory.
    ///
    /// # Safety
    /// `entry` must be a kernel record.
    unsafe fn push(&mut self, entry: *const dirent64) -> bool {
        // SAFETY: libc's allocator; the array has room for `cap` entries.
        unsafe {
            if self.len == self.cap {
                let cap = self.cap.wrapping_mul(2).max(16);
                let bytes = cap.wrapping_mul(size_of::<*mut dirent64>());
                let wider = libc::realloc(self.at.cast(), bytes);
                if wider.is_null() {
                    return false;
                }
                (self.at, self.cap) = (wider.cast(), cap);
            }
            let n = (*entry).d_reclen as usize;
            let copy = libc::malloc(n);
            if copy.is_null() {
                return false;
            }
            ptr::copy_nonoverlapping(entry.cast::<u8>(), copy.cast::<u8>(), n);
            *self.at.wrapping_add(self.len) = copy.cast();
        }
        self.len = self.len.wrapping_add(1);
        true
    }

    /// Gives everything back.
    unsafe fn free(self) {
        // SAFETY: all of it came from libc's allocator and was given to nobody.
        unsafe {
            for i in 0..self.len {
                libc::free((*self.at.wrapping_add(i)).cast());
            }
            libc::free(self.at.cast());
        }
    }
}

/// # Safety
/// As `scandirat(3)`; `fd` is an open directory.
unsafe fn collect(fd: c_int, list: &mut List, select: Select) -> isize {
    let mut full = false;
    // SAFETY: the caller's promises; entries come from the kernel.
    let answer = unsafe {
        entries(fd, |entry| {
            if select.is_some_and(|wanted| wanted(entry) == 0) {
                return true;
            }
            full = !list.push(entry);
            !full
        })
    };
    if full {
        -(libc::ENOMEM as isize)
    } else {
        answer
    }
}

/// # Safety
/// As `scandirat(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn scandirat64(
    dirfd: c_int,
    path: *const c_char,
    out: *mut *mut *mut dirent64,
    select: Select,
    compare: Compare,
) -> c_int {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let fd = calls::openat(dirfd, path, flags, 0);
        if fd == NOT_OURS {
            return pass!(c"scandirat64",
                fn(dirfd: c_int, path: *const c_char, out: *mut *mut *mut dirent64,
                   select: Select, compare: Compare) -> c_int, else -1);
        }
        if fd < 0 {
            set_errno(code(fd));
            return -1;
        }
        let before = crate::doors::next::errno();
        let mut list = List {
            at: null_mut(),
            len: 0,
            cap: 0,
        };
        let answer = collect(fd as c_int, &mut list, select);
        close(fd as c_int);
        if answer < 0 {
            list.free();
            set_errno(code(answer));
            return -1;
        }
        if let (Some(_), true) = (compare, list.len > 1) {
            let order = core::mem::transmute::<Compare, Order>(compare);
            libc::qsort(list.at.cast(), list.len, size_of::<*mut dirent64>(), order);
        }
        *out = list.at;
        set_errno(before);
        c_int::try_from(list.len).unwrap_or(c_int::MAX)
    }
}

/// # Safety
/// As `scandirat(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn scandirat(
    dirfd: c_int,
    path: *const c_char,
    out: *mut *mut *mut dirent64,
    select: Select,
    compare: Compare,
) -> c_int {
    // SAFETY: on this platform both names have one layout.
    unsafe { scandirat64(dirfd, path, out, select, compare) }
}

/// # Safety
/// As `scandir(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn scandir64(
    path: *const c_char,
    out: *mut *mut *mut dirent64,
    select: Select,
    compare: Compare,
) -> c_int {
    // SAFETY: the caller's own promises, handed on.
    unsafe { scandirat64(libc::AT_FDCWD, path, out, select, compare) }
}

/// # Safety
/// As `scandir(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn scandir(
    path: *const c_char,
    out: *mut *mut *mut dirent64,
    select: Select,
    compare: Compare,
) -> c_int {
    // SAFETY: the caller's own promises, handed on.
    unsafe { scandirat64(libc::AT_FDCWD, path, out, select, compare) }
}
