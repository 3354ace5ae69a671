//! The file actions of `posix_spawn`, which libc carries out in the child,
//! where no symbol passes. Those that concern our files are done here before,
//! and a list with `dup2` in their places goes to libc.
//!
//! The list is opaque: libc's layout is checked once, by building a list with
//! its own functions and reading it back.

use crate::calls::{self, NOT_OURS};
use crate::doors::exec::fd_path;
use crate::doors::grow::{Grow, close};
use crate::doors::next::{code, either};
use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicU8, Ordering};
use libc::posix_spawn_file_actions_t as Opaque;

const CLOSE: c_int = 0;
const DUP2: c_int = 1;
const OPEN: c_int = 2;
const CHDIR: c_int = 3;
const FCHDIR: c_int = 4;
const CLOSEFROM: c_int = 5;

/// `posix_spawn_file_actions_t` as glibc lays it out.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    allocated: c_int,
    used: c_int,
    list: *mut Action,
    pad: [c_int; 16],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Action {
    tag: c_int,
    with: With,
}

#[repr(C)]
#[derive(Clone, Copy)]
union With {
    fd: c_int,
    dup: Dup,
    open: Open,
    path: *const c_char,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Dup {
    from: c_int,
    to: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Open {
    fd: c_int,
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
}

const _: () = assert!(size_of::<Head>() == size_of::<Opaque>() && size_of::<Action>() == 32);

/// Whether libc's lists are laid out as we believe.
fn layout_is_known() -> bool {
    static STATE: AtomicU8 = AtomicU8::new(0);
    match STATE.load(Ordering::Relaxed) {
        0 => {
            let known = probe();
            STATE.store(if known { 1 } else { 2 }, Ordering::Relaxed);
            known
        }
        state => state == 1,
    }
}

fn probe() -> bool {
    let mut opaque = MaybeUninit::<Opaque>::zeroed();
    let list = opaque.as_mut_ptr();
    let (flags, mode) = (libc::O_RDWR | libc::O_APPEND, 0o751);
    // SAFETY: libc's own functions on a list of ours; what they wrote is read
    // only as far as its head, checked first, says that it goes.
    unsafe {
        if libc::posix_spawn_file_actions_init(list) != 0 {
            return false;
        }
        let made = libc::posix_spawn_file_actions_adddup2(list, 1234, 567) == 0
            && libc::posix_spawn_file_actions_addopen(
                list,
                89,
                c"/some/path".as_ptr(),
                flags,
                mode,
            ) == 0
            && libc::posix_spawn_file_actions_addclose(list, 321) == 0;
        let head = *list.cast::<Head>();
        let known = made
            && head.used == 3
            && (3..4096).contains(&head.allocated)
            && !head.list.is_null()
            && reads_back(head.list, flags, mode);
        libc::posix_spawn_file_actions_destroy(list);
        known
    }
}

/// # Safety
/// `list` must have three actions.
unsafe fn reads_back(list: *const Action, flags: c_int, mode: libc::mode_t) -> bool {
    // SAFETY: the caller's promise; tags say which member is set.
    unsafe {
        let (dup, open, shut) = (*list, *list.wrapping_add(1), *list.wrapping_add(2));
        (dup.tag, dup.with.dup.from, dup.with.dup.to) == (DUP2, 1234, 567)
            && (open.tag, open.with.open.fd) == (OPEN, 89)
            && (open.with.open.flags, open.with.open.mode) == (flags, mode)
            && libc::strcmp(open.with.open.path, c"/some/path".as_ptr()) == 0
            && (shut.tag, shut.with.fd) == (CLOSE, 321)
    }
}

/// Room for a joined path; longer ones are left to libc.
const ROOM: usize = 4096 + 64;
type Buffer = [u8; ROOM];

/// A list of actions made over, and what its relative paths begin at.
pub(super) struct Plan {
    head: Head,
    actions: Grow,
    /// Paths that stand for directories of ours, `ROOM` bytes each.
    paths: Grow,
    /// The first descriptor number that no action names.
    floor: c_int,
    /// What relative paths begin at: this descriptor, and then `dir`.
    fd: c_int,
    dir: Buffer,
    cut_off: bool,
    /// Descriptors opened here for the child, in a list of numbers.
    opened: Grow,
    count: usize,
}

impl Drop for Plan {
    fn drop(&mut self) {
        for i in 0..self.count {
            // SAFETY: `count` numbers were written.
            close(unsafe { *self.opened.at(0).cast::<c_int>().wrapping_add(i) });
        }
    }
}

impl Plan {
    pub(super) fn new() -> Self {
        Self {
            head: Head {
                allocated: 0,
                used: 0,
                list: ptr::null_mut(),
                pad: [0; 16],
            },
            actions: Grow::new(),
            paths: Grow::new(),
            floor: 3,
            fd: libc::AT_FDCWD,
            dir: [0; ROOM],
            cut_off: false,
            opened: Grow::new(),
            count: 0,
        }
    }

    /// Makes `given` over, if it concerns us: the list for libc, or an error
    /// number. The list lives as long as the plan, and so do its descriptors.
    ///
    /// # Safety
    /// `given` must be null or a list that libc initialised.
    pub(super) unsafe fn adopt(&mut self, given: *const Opaque) -> Result<*const Opaque, c_int> {
        // SAFETY: the caller's promise; the layout is checked before it is used.
        unsafe {
            if given.is_null() {
                return Ok(given);
            }
            if !layout_is_known() {
                let idle = crate::doors::exec::saved(c"CAPIO_DIR").is_none();
                return if idle { Ok(given) } else { Err(libc::ENOSYS) };
            }
            let head = *given.cast::<Head>();
            let n = usize::try_from(head.used).unwrap_or(0);
            let list =
                core::slice::from_raw_parts(if n == 0 { ptr::dangling() } else { head.list }, n);
            if !list.iter().any(|a| matches!(a.tag, OPEN | CHDIR | FCHDIR)) {
                return Ok(given);
            }
            let room = self.actions.reserve(n.wrapping_mul(size_of::<Action>()))
                && self.paths.reserve(n.wrapping_mul(ROOM))
                && self.opened.reserve(n.wrapping_mul(size_of::<c_int>()));
            if !room {
                return Err(libc::ENOMEM);
            }
            self.floor = list
                .iter()
                .map(highest)
                .max()
                .unwrap_or(2)
                .max(2)
                .saturating_add(1);
            let out = self.actions.at(0).cast::<Action>();
            for (i, action) in list.iter().enumerate() {
                *out.wrapping_add(i) = self.translate(action, list.get(..i).unwrap_or(&[]), i)?;
            }
            self.head = Head { list: out, ..head };
            Ok((&raw const self.head).cast())
        }
    }

    /// # Safety
    /// `action` must be of a list that libc made; `before` what precedes it.
    unsafe fn translate(
        &mut self,
        action: &Action,
        before: &[Action],
        i: usize,
    ) -> Result<Action, c_int> {
        // SAFETY: tags say which member is set.
        unsafe {
            match action.tag {
                OPEN => self.open(action, action.with.open),
                CHDIR => self.chdir(action, action.with.path, i),
                FCHDIR => {
                    self.dir = [0; ROOM];
                    // A descriptor that the actions opened is unknown here.
                    self.fd = origin(action.with.fd, before).unwrap_or(-1);
                    Ok(*action)
                }
                CLOSEFROM => {
                    self.cut_off = true;
                    Ok(*action)
                }
                _ => Ok(*action),
            }
        }
    }

    /// Where `path` leads: a descriptor and a path from there, which is written
    /// to `out` if it must be put together. None: too long, or not known here.
    ///
    /// # Safety
    /// `path` must be a C string.
    unsafe fn join(&self, path: *const c_char, out: &mut Buffer) -> Option<(c_int, *const c_char)> {
        // SAFETY: the lengths are checked before the copies.
        unsafe {
            if *path == b'/' as c_char {
                return Some((libc::AT_FDCWD, path));
            }
            if self.fd < 0 && self.fd != libc::AT_FDCWD {
                return None;
            }
            let dir = self.dir.as_ptr().cast::<c_char>();
            if *dir == 0 {
                return Some((self.fd, path));
            }
            if libc::strlen(dir)
                .wrapping_add(libc::strlen(path))
                .wrapping_add(2)
                > ROOM
            {
                return None;
            }
            let at = out.as_mut_ptr().cast::<c_char>();
            libc::strcpy(at, dir);
            libc::strcat(at, c"/".as_ptr());
            libc::strcat(at, path);
            Some((self.fd, at.cast_const()))
        }
    }

    /// The real path of the program `path` as the child would see it:
    /// `NOT_OURS`, a length, or `-errno`.
    ///
    /// # Safety
    /// `path` must be a C string.
    pub(super) unsafe fn program_path(&self, path: *const c_char, out: &mut [u8; 4096]) -> isize {
        // SAFETY: the caller's promise.
        unsafe { self.kernels_path(path, out, calls::program_path) }
    }

    /// [`Plan::program_path`], found by `find`.
    unsafe fn kernels_path(
        &self,
        path: *const c_char,
        out: &mut [u8; 4096],
        find: unsafe fn(*const c_char, &mut [u8; 4096]) -> isize,
    ) -> isize {
        let (mut joined, mut whole) = ([0u8; ROOM], [0u8; ROOM]);
        // SAFETY: the caller's promise; the length is checked before the copy.
        unsafe {
            let Some((fd, path)) = self.join(path, &mut joined) else {
                return NOT_OURS;
            };
            if fd == libc::AT_FDCWD || *path == b'/' as c_char {
                return find(path, out);
            }
            if !calls::is_ours(fd) || libc::strlen(path) > 4095 {
                return NOT_OURS;
            }
            fd_path(fd, path, whole.as_mut_ptr().cast());
            find(whole.as_ptr().cast(), out)
        }
    }

    unsafe fn open(&mut self, action: &Action, open: Open) -> Result<Action, c_int> {
        let mut joined = [0u8; ROOM];
        // SAFETY: libc's copy of the program's path.
        unsafe {
            let Some((fd, path)) = self.join(open.path, &mut joined) else {
                return Ok(*action);
            };
            let opened = calls::openat(fd, path, open.flags | libc::O_CLOEXEC, open.mode);
            if opened == NOT_OURS {
                return Ok(*action);
            }
            if opened < 0 {
                return Err(code(opened));
            }
            let from = self.lift(opened as c_int)?;
            if self.cut_off {
                // `closefrom` in the child would take what was opened here.
                return Err(libc::ENOSYS);
            }
            Ok(Action {
                tag: DUP2,
                with: With {
                    dup: Dup { from, to: open.fd },
                },
            })
        }
    }

    /// Moves a descriptor above all that the actions name, and keeps it.
    fn lift(&mut self, fd: c_int) -> Result<c_int, c_int> {
        let (how, floor) = (libc::F_DUPFD_CLOEXEC, self.floor as usize);
        // SAFETY: plain numbers; the room for one number an action was reserved.
        unsafe {
            let high = either!(fcntl(fd, how, floor), libc::SYS_fcntl);
            close(fd);
            if high < 0 {
                return Err(libc::EMFILE);
            }
            *self.opened.at(0).cast::<c_int>().wrapping_add(self.count) = high as c_int;
            self.count = self.count.wrapping_add(1);
            Ok(high as c_int)
        }
    }

    unsafe fn chdir(
        &mut self,
        action: &Action,
        path: *const c_char,
        i: usize,
    ) -> Result<Action, c_int> {
        let (mut real, mut joined) = ([0u8; 4096], [0u8; ROOM]);
        // SAFETY: libc's copy of the program's path; the room for one path an
        // action was reserved.
        unsafe {
            let n = self.kernels_path(path, &mut real, calls::real_path_of);
            let whole = self.join(path, &mut joined);
            let Some((fd, whole)) = whole.filter(|(_, p)| libc::strlen(*p) < ROOM) else {
                (self.fd, self.dir) = (-1, [0; ROOM]);
                return Ok(*action);
            };
            let len = libc::strlen(whole);
            let mut dir = [0u8; ROOM];
            ptr::copy_nonoverlapping(whole.cast::<u8>(), dir.as_mut_ptr(), len);
            (self.fd, self.dir) = (fd, dir);
            if n == NOT_OURS {
                return Ok(*action);
            }
            if n < 0 {
                return Err(code(n));
            }
            let at = self.paths.at(i.wrapping_mul(ROOM)).cast::<c_char>();
            libc::strcpy(at, real.as_ptr().cast());
            Ok(Action {
                tag: CHDIR,
                with: With { path: at },
            })
        }
    }
}

/// The highest descriptor number that an action names.
fn highest(action: &Action) -> c_int {
    // SAFETY: tags say which member is set.
    unsafe {
        match action.tag {
            DUP2 => action.with.dup.from.max(action.with.dup.to),
            OPEN => action.with.open.fd,
            CHDIR | CLOSEFROM => 0,
            _ => action.with.fd,
        }
    }
}

/// The caller's descriptor that is `fd` in the child after the actions
/// `before`; None if they opened it.
fn origin(fd: c_int, before: &[Action]) -> Option<c_int> {
    let mut fd = fd;
    for action in before.iter().rev() {
        // SAFETY: tags say which member is set.
        unsafe {
            match action.tag {
                DUP2 if action.with.dup.to == fd => fd = action.with.dup.from,
                OPEN if action.with.open.fd == fd => return None,
                _ => {}
            }
        }
    }
    Some(fd)
}
