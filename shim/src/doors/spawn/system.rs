//! `system`, for a program whose environment has lost what takes us along:
//! libc's own hands `environ` to its child without a symbol. With a complete
//! environment libc's own runs.

use super::{Request, start};
use crate::doors::exec::{current, is_carried};
use crate::doors::lock::Lock;
use crate::doors::next::{pass, set_errno};
use crate::sys::syscall;
use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;
use core::ptr;

/// The kernel's `struct sigaction`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Disposition {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

const IGNORE: Disposition = Disposition {
    handler: libc::SIG_IGN,
    flags: 0,
    restorer: 0,
    mask: 0,
};
const MASK: usize = size_of::<u64>();

/// SIGINT and SIGQUIT as they were before the first of the calls in progress.
struct Before {
    calls: usize,
    int: Disposition,
    quit: Disposition,
}

struct Shared(Lock, UnsafeCell<Before>);
// SAFETY: the cell is used only while the lock is held.
unsafe impl Sync for Shared {}
static SHARED: Shared = Shared(
    Lock::new(),
    UnsafeCell::new(Before {
        calls: 0,
        int: IGNORE,
        quit: IGNORE,
    }),
);

unsafe fn swap(signal: c_int, new: &Disposition, old: *mut Disposition) {
    // SAFETY: two structures of the kernel's layout.
    unsafe {
        syscall!(
            libc::SYS_rt_sigaction,
            signal,
            ptr::from_ref(new),
            old,
            MASK
        )
    };
}

/// Ignores SIGINT and SIGQUIT and holds SIGCHLD back. Gives the mask before,
/// and which of the two the child shall have as by default.
fn hold() -> (u64, [bool; 2]) {
    let _held = SHARED.0.hold();
    let chld = 1u64 << (libc::SIGCHLD - 1);
    let mut mask = 0u64;
    // SAFETY: the lock is held; masks and structures of our own.
    unsafe {
        let before = &mut *SHARED.1.get();
        if before.calls == 0 {
            swap(libc::SIGINT, &IGNORE, &raw mut before.int);
            swap(libc::SIGQUIT, &IGNORE, &raw mut before.quit);
        }
        before.calls = before.calls.wrapping_add(1);
        let how = libc::SIG_BLOCK;
        syscall!(
            libc::SYS_rt_sigprocmask,
            how,
            &raw const chld,
            &raw mut mask,
            MASK
        );
        let restored = |d: &Disposition| d.handler != libc::SIG_IGN;
        (mask, [restored(&before.int), restored(&before.quit)])
    }
}

fn release(mask: u64) {
    let _held = SHARED.0.hold();
    // SAFETY: the lock is held; masks and structures of our own.
    unsafe {
        let before = &mut *SHARED.1.get();
        before.calls = before.calls.wrapping_sub(1);
        if before.calls == 0 {
            swap(libc::SIGINT, &before.int, ptr::null_mut());
            swap(libc::SIGQUIT, &before.quit, ptr::null_mut());
        }
        let how = libc::SIG_SETMASK;
        syscall!(libc::SYS_rt_sigprocmask, how, &raw const mask, 0, MASK);
    }
}

/// Waits for a child: its status, or `-errno`.
pub(super) fn wait_for(pid: libc::pid_t) -> Result<c_int, c_int> {
    let mut status: c_int = 0;
    loop {
        // SAFETY: the status is our own.
        let done = unsafe { syscall!(libc::SYS_wait4, pid, &raw mut status, 0, 0) };
        if done >= 0 {
            return Ok(status);
        }
        if done != -(libc::EINTR as isize) {
            return Err(crate::doors::next::code(done));
        }
    }
}

/// Starts `/bin/sh -c command` as `system` does.
///
/// # Safety
/// `command` must be a C string.
unsafe fn shell(
    command: *const c_char,
    mask: u64,
    default: [bool; 2],
) -> Result<libc::pid_t, c_int> {
    let argv = [c"sh".as_ptr(), c"-c".as_ptr(), command, ptr::null()];
    let mut pid = 0;
    let mut attr = MaybeUninit::<libc::posix_spawnattr_t>::uninit();
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: libc's own functions on structures of ours.
    let wrong = unsafe {
        let attr = attr.as_mut_ptr();
        libc::posix_spawnattr_init(attr);
        set.as_mut_ptr().cast::<u64>().write(mask);
        libc::posix_spawnattr_setsigmask(attr, set.as_ptr());
        let bit = |signal: c_int, on: bool| u64::from(on) << (signal - 1);
        let defaults = bit(libc::SIGINT, default[0]) | bit(libc::SIGQUIT, default[1]);
        set.as_mut_ptr().cast::<u64>().write(defaults);
        libc::posix_spawnattr_setsigdefault(attr, set.as_ptr());
        let flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
        libc::posix_spawnattr_setflags(attr, flags as _);
        let request = Request {
            pid: &raw mut pid,
            attr,
            argv: argv.as_ptr(),
            env: current(),
        };
        let wrong = start(c"/bin/sh".as_ptr(), ptr::null(), request);
        libc::posix_spawnattr_destroy(attr);
        wrong
    };
    if wrong == 0 { Ok(pid) } else { Err(wrong) }
}

/// # Safety
/// As `system(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn system(command: *const c_char) -> c_int {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        if command.is_null() || is_carried(current()) {
            return pass!(c"system", fn(command: *const c_char) -> c_int, else -1);
        }
        let (mask, default) = hold();
        let answer = shell(command, mask, default);
        // A shell that cannot be started counts as one that exits with 127.
        let status = answer.map_or(Ok(127 << 8), wait_for);
        release(mask);
        if let Err(wrong) = answer {
            set_errno(wrong);
        }
        status.unwrap_or_else(|e| {
            set_errno(e);
            -1
        })
    }
}
