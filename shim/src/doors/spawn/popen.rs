//! `popen` and `pclose`, for a program whose environment has lost what takes
//! us along; see [`super::system`]. A stream of ours is an ordinary one over a
//! pipe, and a table knows its child.

use super::system::wait_for;
use super::{Request, start};
use crate::doors::exec::{current, is_carried};
use crate::doors::lock::Lock;
use crate::doors::next::{code, null, pass, set_errno};
use crate::sys::syscall;
use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;
use core::ptr::{self, null_mut};
use libc::{FILE, pid_t};

#[derive(Clone, Copy)]
struct Child {
    stream: *mut FILE,
    pid: pid_t,
    fd: c_int,
}

const NOBODY: Child = Child {
    stream: null_mut(),
    pid: 0,
    fd: -1,
};
const MOST: usize = 256;

struct Shared(Lock, UnsafeCell<[Child; MOST]>);
// SAFETY: the cell is used only while the lock is held.
unsafe impl Sync for Shared {}
static SHARED: Shared = Shared(Lock::new(), UnsafeCell::new([NOBODY; MOST]));

/// Calls `with` with the table of children, held.
fn children<R>(with: impl FnOnce(&mut [Child; MOST]) -> R) -> R {
    let _held = SHARED.0.hold();
    // SAFETY: the lock is held.
    with(unsafe { &mut *SHARED.1.get() })
}

/// Takes the child of `stream` out of the table.
fn forget(stream: *mut FILE) -> Option<pid_t> {
    children(|all| {
        let child = all.iter_mut().find(|c| c.stream == stream)?;
        Some(core::mem::replace(child, NOBODY).pid)
    })
}

/// What `mode` asks for: reading, close-on-exec. None: nonsense.
unsafe fn parse(mode: *const c_char) -> Option<(bool, bool)> {
    let (mut read, mut write, mut shut) = (false, false, false);
    let mut at = mode;
    // SAFETY: a C string.
    unsafe {
        while *at != 0 {
            match *at as u8 {
                b'r' => read = true,
                b'w' => write = true,
                b'e' => shut = true,
                _ => return None,
            }
            at = at.wrapping_add(1);
        }
    }
    (read != write).then_some((read, shut))
}

/// Starts the shell with `child_end` as its standard input or output.
unsafe fn shell(command: *const c_char, child_end: c_int, read: bool) -> Result<pid_t, c_int> {
    let argv = [c"sh".as_ptr(), c"-c".as_ptr(), command, ptr::null()];
    let mut pid = 0;
    let mut actions = MaybeUninit::<libc::posix_spawn_file_actions_t>::uninit();
    let list = actions.as_mut_ptr();
    // SAFETY: libc's own functions on a list of ours.
    let wrong = unsafe {
        libc::posix_spawn_file_actions_init(list);
        let target = c_int::from(read);
        let mut wrong = libc::posix_spawn_file_actions_adddup2(list, child_end, target);
        // The child must not hold the pipes of other streams open.
        children(|all| {
            for other in all.iter().filter(|c| !c.stream.is_null() && c.fd != target) {
                wrong |= libc::posix_spawn_file_actions_addclose(list, other.fd);
            }
        });
        if wrong == 0 {
            let request = Request {
                pid: &raw mut pid,
                attr: ptr::null(),
                argv: argv.as_ptr(),
                env: current(),
            };
            wrong = start(c"/bin/sh".as_ptr(), list, request);
        }
        libc::posix_spawn_file_actions_destroy(list);
        wrong
    };
    if wrong == 0 { Ok(pid) } else { Err(wrong) }
}

/// Closes a pipe's end: a descriptor that was made here and is nobody's file.
fn close(fd: c_int) {
    // SAFETY: a plain number.
    unsafe { syscall!(libc::SYS_close, fd) };
}

unsafe fn open(command: *const c_char, read: bool, shut: bool) -> Result<*mut FILE, c_int> {
    let mut ends = [0 as c_int; 2];
    // SAFETY: the pipe's ends are ours; libc makes the stream.
    unsafe {
        let made = syscall!(libc::SYS_pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC);
        if made < 0 {
            return Err(code(made));
        }
        let [out, into] = ends;
        let (mine, childs) = if read { (out, into) } else { (into, out) };
        let stream = libc::fdopen(mine, if read { c"r".as_ptr() } else { c"w".as_ptr() });
        if stream.is_null() {
            close(mine);
            close(childs);
            return Err(libc::ENOMEM);
        }
        let started = shell(command, childs, read);
        close(childs);
        let Ok(pid) = started else {
            libc::fclose(stream);
            return Err(started.err().unwrap_or(libc::EIO));
        };
        if !shut {
            syscall!(libc::SYS_fcntl, mine, libc::F_SETFD, 0);
        }
        children(|all| {
            // A stream that ended by `fclose` left its place to this one.
            let old = all.iter().position(|c| c.stream == stream);
            let slot = old.or_else(|| all.iter().position(|c| c.stream.is_null()));
            if let Some(slot) = slot.and_then(|i| all.get_mut(i)) {
                *slot = Child {
                    stream,
                    pid,
                    fd: mine,
                };
            }
        });
        Ok(stream)
    }
}

/// # Safety
/// As `popen(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        if is_carried(current()) {
            let stream = pass!(c"popen",
                fn(command: *const c_char, mode: *const c_char) -> *mut FILE, else null_mut());
            // libc may reuse the address of a stream of ours that is closed.
            if !stream.is_null() {
                forget(stream);
            }
            return stream;
        }
        let Some((read, shut)) = parse(mode) else {
            return null(libc::EINVAL);
        };
        open(command, read, shut).unwrap_or_else(null)
    }
}

/// # Safety
/// As `pclose(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pclose(stream: *mut FILE) -> c_int {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let Some(pid) = forget(stream) else {
            return pass!(c"pclose", fn(stream: *mut FILE) -> c_int, else -1);
        };
        libc::fclose(stream);
        wait_for(pid).unwrap_or_else(|e| {
            set_errno(e);
            -1
        })
    }
}
