//! What walks directories inside libc: `scandir`, `glob`, `ftw`, `fts`.

mod fts;
mod ftw;
mod glob;
mod scandir;

use super::exec;
use super::grow::stat_at;
use crate::calls::{self, NOT_OURS};
use crate::sys::syscall;
use core::ffi::{c_char, c_int};
use libc::stat;

/// Whether a walk from `root` can come to a taken-over file: it starts at one,
/// or at a directory above `CAPIO_DIR`.
///
/// # Safety
/// `root` must be a C string.
unsafe fn may_reach(root: *const c_char) -> bool {
    // SAFETY: the caller's promise; zeroed is a valid `stat`.
    unsafe {
        let mut st: stat = core::mem::zeroed();
        if calls::newfstatat(libc::AT_FDCWD, root, &raw mut st, 0) != NOT_OURS {
            return true;
        }
        let Some(dir) = exec::saved(c"CAPIO_DIR") else {
            return false;
        };
        let at = libc::AT_FDCWD;
        if syscall!(libc::SYS_newfstatat, at, root, &raw mut st, 0) < 0 {
            return false;
        }
        st.st_mode & libc::S_IFMT == libc::S_IFDIR && is_above(&st, dir)
    }
}

/// Whether the directory `st` is on the way from `/` to `dir`.
///
/// # Safety
/// `dir` must be a C string.
unsafe fn is_above(st: &stat, dir: *const c_char) -> bool {
    let mut path = [0u8; 4096];
    let mut above: stat = *st;
    // SAFETY: the copy ends before the buffer's last byte, which stays NUL.
    unsafe {
        let n = libc::strlen(dir).min(4094);
        core::ptr::copy_nonoverlapping(dir.cast::<u8>(), path.as_mut_ptr(), n);
        let mut end = n;
        while let Some(slash) = path
            .get(..end)
            .and_then(|p| p.iter().rposition(|b| *b == b'/'))
        {
            if let Some(cut) = path.get_mut(slash.max(1)) {
                *cut = 0;
            }
            let at = libc::AT_FDCWD;
            let done = syscall!(libc::SYS_newfstatat, at, path.as_ptr(), &raw mut above, 0);
            if done == 0 && (above.st_dev, above.st_ino) == (st.st_dev, st.st_ino) {
                return true;
            }
            end = slash;
        }
    }
    false
}

/// `stat` of `path`, or its link itself.
///
/// # Safety
/// `path` must be a C string.
unsafe fn look(path: *const c_char, st: *mut stat, follow: bool) -> isize {
    let flags: c_int = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    // SAFETY: the caller's promise.
    unsafe { stat_at(libc::AT_FDCWD, path, st, flags) }
}
