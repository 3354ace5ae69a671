//! `ftw` and `nftw`.
//!
//! A directory's names are read in one go and its descriptor closed before the
//! walk goes down, so that any descriptor limit is kept. Paths longer than
//! `PATH_MAX` end the walk with `ENAMETOOLONG`.

use super::{look, may_reach};
use crate::doors::grow::{Grow, Seen, close, entries, is_dot, open_dir};
use crate::doors::next::{code, either, pass, set_errno};
use core::ffi::{c_char, c_int};
use libc::stat;

const FTW_F: c_int = 0;
const FTW_D: c_int = 1;
const FTW_DNR: c_int = 2;
const FTW_NS: c_int = 3;
const FTW_SL: c_int = 4;
const FTW_DP: c_int = 5;
const FTW_SLN: c_int = 6;

const FTW_PHYS: c_int = 1;
const FTW_MOUNT: c_int = 2;
const FTW_CHDIR: c_int = 4;
const FTW_DEPTH: c_int = 8;
const FTW_ACTIONRETVAL: c_int = 16;
const FTW_ALL: c_int = 31;

const FTW_SKIP_SUBTREE: c_int = 2;
const FTW_SKIP_SIBLINGS: c_int = 3;

/// Room for the path; the kernel takes far less.
const PATH_ROOM: usize = 64 * 1024;

/// `struct FTW`.
#[repr(C)]
pub(crate) struct Ftw {
    base: c_int,
    level: c_int,
}

/// What `nftw` calls. `ftw`'s takes the first three arguments.
type Visit = unsafe extern "C" fn(*const c_char, *const stat, c_int, *mut Ftw) -> c_int;
type Visit3 = unsafe extern "C" fn(*const c_char, *const stat, c_int) -> c_int;

struct Walk {
    visit: Visit,
    flags: c_int,
    /// Called as `ftw`: links and dangling links are reported as it knows them.
    plain: bool,
    path: Grow,
    len: usize,
    base: usize,
    level: c_int,
    names: Grow,
    seen: Seen,
    dev: u64,
    /// The working directory at the start, with `FTW_CHDIR`.
    start: c_int,
}

fn failed(answer: isize) -> c_int {
    set_errno(code(answer));
    -1
}

impl Walk {
    fn has(&self, flag: c_int) -> bool {
        self.flags & flag != 0
    }

    fn path(&self, from: usize) -> *mut c_char {
        self.path.at(from).cast()
    }

    /// The current entry's name for calls on it.
    fn target(&self) -> *const c_char {
        match (self.has(FTW_CHDIR), self.base == self.len) {
            // A walk from `/` stands in it.
            (true, true) => c".".as_ptr(),
            (true, false) => self.path(self.base),
            _ => self.path(0),
        }
    }

    fn end_path(&mut self, len: usize) {
        self.len = len;
        // SAFETY: inside the room reserved at the start: lengths are checked on append.
        unsafe { *self.path(len) = 0 };
    }

    /// Puts `name` behind the first `keep` bytes of the path. False: too long.
    unsafe fn append(&mut self, keep: usize, name: *const c_char) -> bool {
        // SAFETY: a C string; the room is checked first.
        unsafe {
            let n = libc::strlen(name);
            if keep.saturating_add(n) >= PATH_ROOM - 2 {
                return false;
            }
            core::ptr::copy_nonoverlapping(name, self.path(keep), n);
            self.end_path(keep.wrapping_add(n));
        }
        true
    }

    fn report(&self, st: &stat, flag: c_int) -> c_int {
        let flag = match flag {
            FTW_SL if self.plain => FTW_F,
            FTW_SLN if self.plain => FTW_NS,
            other => other,
        };
        let base = c_int::try_from(self.base).unwrap_or(c_int::MAX);
        let mut at = Ftw {
            base,
            level: self.level,
        };
        // SAFETY: the program's function, called as it asked for.
        unsafe { (self.visit)(self.path(0), st, flag, &raw mut at) }
    }

    /// What the current path is, or `-errno`.
    fn classify(&self, st: &mut stat) -> Result<c_int, isize> {
        let follow = !self.has(FTW_PHYS);
        // SAFETY: the path is a C string.
        let done = unsafe { look(self.target(), st, follow) };
        if done >= 0 {
            return Ok(match st.st_mode & libc::S_IFMT {
                libc::S_IFDIR => FTW_D,
                libc::S_IFLNK => FTW_SL,
                _ => FTW_F,
            });
        }
        if done != -(libc::ENOENT as isize) && done != -(libc::EACCES as isize) {
            return Err(done);
        }
        // SAFETY: the path is a C string.
        let link = follow
            && unsafe { look(self.target(), st, false) } >= 0
            && st.st_mode & libc::S_IFMT == libc::S_IFLNK;
        if link { Ok(FTW_SLN) } else { Err(done) }
    }

    /// Whether a logical walk comes here for the first time. None: no memory.
    fn is_new(&mut self, st: &stat) -> Option<bool> {
        if self.has(FTW_PHYS) {
            Some(true)
        } else {
            self.seen.add(st)
        }
    }

    /// The current path, found in a directory.
    fn entry(&mut self) -> c_int {
        // SAFETY: zeroed is a valid `stat`.
        let mut st: stat = unsafe { core::mem::zeroed() };
        let flag = match self.classify(&mut st) {
            Ok(flag) => flag,
            Err(e) if e == -(libc::ENOENT as isize) || e == -(libc::EACCES as isize) => FTW_NS,
            Err(e) => return failed(e),
        };
        let elsewhere = flag != FTW_NS && self.has(FTW_MOUNT) && st.st_dev != self.dev;
        let answer = match (elsewhere, flag) {
            (true, _) => 0,
            (_, FTW_D) => match self.is_new(&st) {
                Some(true) => self.directory(&st),
                Some(false) => 0,
                None => failed(-(libc::ENOMEM as isize)),
            },
            _ => self.report(&st, flag),
        };
        if self.has(FTW_ACTIONRETVAL) && answer == FTW_SKIP_SUBTREE {
            0
        } else {
            answer
        }
    }

    /// Reads the names of `fd` onto the stack of names.
    fn read_names(&mut self, fd: c_int) -> isize {
        let (names, mut full) = (&mut self.names, false);
        // SAFETY: an open directory; its entries' names are C strings.
        let answer = unsafe {
            entries(fd, |entry| {
                let name = (&raw const (*entry).d_name).cast();
                full = !is_dot(name) && !names.push_str(name);
                !full
            })
        };
        if full {
            -(libc::ENOMEM as isize)
        } else {
            answer
        }
    }

    /// The current path, a directory: itself and what is below.
    fn directory(&mut self, st: &stat) -> c_int {
        // SAFETY: the path is a C string.
        let fd = unsafe { open_dir(libc::AT_FDCWD, self.target()) };
        if fd == -(libc::EACCES as isize) {
            return self.report(st, FTW_DNR);
        }
        if fd < 0 {
            return failed(fd);
        }
        let fd = fd as c_int;
        if !self.has(FTW_DEPTH) {
            let answer = self.report(st, FTW_D);
            if answer != 0 {
                close(fd);
                return answer;
            }
        }
        let mark = self.names.len();
        let mut done = 0;
        if self.has(FTW_CHDIR) {
            // SAFETY: a descriptor just opened.
            done = unsafe { either!(fchdir(fd), libc::SYS_fchdir) };
        }
        if done >= 0 {
            done = self.read_names(fd);
        }
        close(fd);
        let answer = if done < 0 {
            failed(done)
        } else {
            self.children(mark)
        };
        self.names.truncate(mark);
        self.leave(st, answer)
    }

    /// The entries whose names lie above `mark`.
    fn children(&mut self, mark: usize) -> c_int {
        let (len, base) = (self.len, self.base);
        // SAFETY: inside the path.
        let slash = len > 0 && unsafe { *self.path(len.wrapping_sub(1)) } == b'/' as c_char;
        self.base = if slash { len } else { len.wrapping_add(1) };
        self.level = self.level.wrapping_add(1);
        let (mut at, end, mut answer) = (mark, self.names.len(), 0);
        while at < end && answer == 0 {
            // SAFETY: names are C strings on the stack; the path has room for a slash.
            unsafe {
                let name = self.names.at(at).cast::<c_char>();
                at = at.wrapping_add(libc::strlen(name)).wrapping_add(1);
                *self.path(self.base.wrapping_sub(1)) = b'/' as c_char;
                answer = if self.append(self.base, name) {
                    self.entry()
                } else {
                    failed(-(libc::ENAMETOOLONG as isize))
                };
            }
        }
        self.level = self.level.wrapping_sub(1);
        self.base = base;
        self.end_path(len);
        let skipped = self.has(FTW_ACTIONRETVAL) && answer == FTW_SKIP_SIBLINGS;
        if skipped { 0 } else { answer }
    }

    /// The end of a directory: its own report with `FTW_DEPTH`, and back up.
    fn leave(&mut self, st: &stat, answer: c_int) -> c_int {
        let mut answer = answer;
        if answer == 0 && self.has(FTW_DEPTH) {
            answer = self.report(st, FTW_DP);
        }
        let goes_on = answer == 0
            || (self.has(FTW_ACTIONRETVAL)
                && (answer == FTW_SKIP_SUBTREE || answer == FTW_SKIP_SIBLINGS));
        if self.has(FTW_CHDIR) && self.level > 0 && goes_on {
            let done = self.enter_parent();
            if done < 0 {
                return failed(done);
            }
        }
        answer
    }

    /// Changes to the directory that holds the current path.
    fn enter_parent(&mut self) -> isize {
        let cut = match self.base {
            0 => 0,
            1 => 1,
            base => base.wrapping_sub(1),
        };
        // SAFETY: paths are C strings, `start` is our descriptor, and the byte
        // taken out for the call is put back.
        unsafe {
            let done = either!(fchdir(self.start), libc::SYS_fchdir);
            if done < 0 || cut == 0 {
                return done;
            }
            let held = *self.path(cut);
            *self.path(cut) = 0;
            let done = either!(chdir(self.path(0).cast_const()), libc::SYS_chdir);
            *self.path(cut) = held;
            done
        }
    }

    /// The start of the walk.
    fn root(&mut self) -> c_int {
        // SAFETY: zeroed is a valid `stat`.
        let mut st: stat = unsafe { core::mem::zeroed() };
        if self.has(FTW_CHDIR) && self.base > 0 {
            let done = self.enter_parent();
            if done < 0 {
                return failed(done);
            }
        }
        let answer = match self.classify(&mut st) {
            Err(e) => failed(e),
            Ok(FTW_D) => {
                self.dev = st.st_dev;
                match self.is_new(&st) {
                    None => failed(-(libc::ENOMEM as isize)),
                    Some(_) => self.directory(&st),
                }
            }
            Ok(flag) => self.report(&st, flag),
        };
        let skipped = answer == FTW_SKIP_SUBTREE || answer == FTW_SKIP_SIBLINGS;
        if self.has(FTW_ACTIONRETVAL) && skipped {
            0
        } else {
            answer
        }
    }
}

/// # Safety
/// `path` must be a C string, `visit` the program's function.
unsafe fn walk(path: *const c_char, visit: Visit, flags: c_int, plain: bool) -> c_int {
    let mut walk = Walk {
        visit,
        flags,
        plain,
        path: Grow::new(),
        len: 0,
        base: 0,
        level: 0,
        names: Grow::new(),
        seen: Seen::new(),
        dev: 0,
        start: -1,
    };
    // SAFETY: the caller's promises.
    unsafe {
        if *path == 0 {
            return failed(-(libc::ENOENT as isize));
        }
        if !walk.path.reserve(PATH_ROOM) {
            return failed(-(libc::ENOMEM as isize));
        }
        if !walk.append(0, path) {
            return failed(-(libc::ENAMETOOLONG as isize));
        }
        while walk.len > 1 && *walk.path(walk.len.wrapping_sub(1)) == b'/' as c_char {
            walk.end_path(walk.len.wrapping_sub(1));
        }
        walk.base = walk.len;
        while walk.base > 0 && *walk.path(walk.base.wrapping_sub(1)) != b'/' as c_char {
            walk.base = walk.base.wrapping_sub(1);
        }
        if walk.has(FTW_CHDIR) {
            let fd = open_dir(libc::AT_FDCWD, c".".as_ptr());
            if fd < 0 {
                return failed(fd);
            }
            walk.start = fd as c_int;
        }
        let answer = walk.root();
        if walk.start >= 0 {
            let held = crate::doors::next::errno();
            let done = either!(fchdir(walk.start), libc::SYS_fchdir);
            close(walk.start);
            set_errno(held);
            if done < 0 {
                return failed(done);
            }
        }
        answer
    }
}

/// # Safety
/// As `nftw(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nftw64(
    path: *const c_char,
    visit: Visit,
    limit: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        if flags & !FTW_ALL == 0 && may_reach(path) {
            return walk(path, visit, flags, false);
        }
        pass!(c"nftw64",
            fn(path: *const c_char, visit: Visit, limit: c_int, flags: c_int) -> c_int, else -1)
    }
}

/// # Safety
/// As `nftw(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nftw(
    path: *const c_char,
    visit: Visit,
    limit: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: on this platform both names have one layout.
    unsafe { nftw64(path, visit, limit, flags) }
}

/// # Safety
/// As `ftw(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ftw64(path: *const c_char, visit: Visit3, limit: c_int) -> c_int {
    // SAFETY: the caller's own promises, handed on. A function of three
    // arguments leaves the register of the fourth alone.
    unsafe {
        if may_reach(path) {
            return walk(path, core::mem::transmute::<Visit3, Visit>(visit), 0, true);
        }
        pass!(c"ftw64", fn(path: *const c_char, visit: Visit3, limit: c_int) -> c_int, else -1)
    }
}

/// # Safety
/// As `ftw(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ftw(path: *const c_char, visit: Visit3, limit: c_int) -> c_int {
    // SAFETY: on this platform both names have one layout.
    unsafe { ftw64(path, visit, limit) }
}
