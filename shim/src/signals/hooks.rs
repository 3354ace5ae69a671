//! Door to [`super::exchange`]: libc's functions that set actions or masks.
//! Until [`super::arm`] each is libc's own.

use core::ffi::{c_int, c_void};
use core::mem::{size_of, zeroed};
use core::sync::atomic::{AtomicU64, Ordering};

use super::{
    Action, EARLY, IGNORE, LIBC_OWN, SA_RESETHAND, SA_RESTORER, SIGNALS, armed, bit, exchange,
};
use crate::next::next;
use crate::sys::syscall;
use crate::usercopy;

/// libc's `struct sigaction`.
type LibcAction = libc::sigaction;

const SA_RESTART: u64 = 0x1000_0000;
const SA_NODEFER: u64 = 0x4000_0000;
const SIG_ERR: usize = usize::MAX;
const SIG_HOLD: usize = 2;
/// Signals that [`siginterrupt`] made interrupt system calls for [`signal`].
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// Whether we are not armed yet, and the call is for the kernel alone. Arming
/// then looks at all signals, as the call may install a handler.
fn not_yet() -> bool {
    let not_yet = !armed();
    if not_yet {
        EARLY.store(true, Ordering::Relaxed);
    }
    not_yet
}

unsafe fn fail(errno: c_int) -> c_int {
    // SAFETY: libc's errno of this thread.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// As libc refuses: out of range, or libc's own.
fn refused(sig: c_int) -> bool {
    !(1..=SIGNALS).contains(&sig) || super::is(sig, LIBC_OWN)
}

fn from_libc(action: &LibcAction) -> Action {
    // SAFETY: the kernel's mask is the first eight bytes of libc's.
    let mask = unsafe { (&raw const action.sa_mask).cast::<u64>().read() };
    Action {
        handler: action.sa_sigaction,
        flags: u64::from(action.sa_flags as u32) | SA_RESTORER,
        restorer: super::restorer(),
        mask,
    }
}

fn to_libc(action: &Action) -> LibcAction {
    // SAFETY: all zero is a valid action (SIG_DFL, empty mask).
    let mut seen: LibcAction = unsafe { zeroed() };
    seen.sa_sigaction = action.handler;
    seen.sa_flags = action.flags as u32 as c_int;
    // SAFETY: an address or null; the kernel's mask is the first eight bytes.
    unsafe {
        seen.sa_restorer = core::mem::transmute::<usize, Option<extern "C" fn()>>(action.restorer);
        (&raw mut seen.sa_mask).cast::<u64>().write(action.mask);
    }
    seen
}

/// Lets the next `sigaction` install `handler`, with libc's own signal return.
pub(super) unsafe fn let_libc_install(sig: c_int, handler: usize) {
    let action = to_libc(&Action {
        handler,
        flags: super::SA_SIGINFO,
        ..Action::default()
    });
    // SAFETY: a valid action.
    unsafe { next_sigaction(sig, &raw const action, core::ptr::null_mut()) };
}

unsafe fn next_sigaction(sig: c_int, new: *const LibcAction, old: *mut LibcAction) -> c_int {
    type Sigaction = unsafe extern "C" fn(c_int, *const LibcAction, *mut LibcAction) -> c_int;
    // SAFETY: libc's own signature, the caller's arguments.
    unsafe { next!(c"sigaction" as Sigaction, otherwise - 1, sig, new, old) }
}

/// Looks up what must not enter the dynamic loader later (handlers, children).
pub(crate) fn look_up() {
    // SAFETY: only asks, for a signal that always exists.
    unsafe { next_sigaction(libc::SIGUSR1, core::ptr::null(), core::ptr::null_mut()) };
}

/// [`exchange`] for libc's callers: the old action, or `None` with errno set.
unsafe fn swap(sig: c_int, new: Option<&Action>) -> Option<Action> {
    let mut old = Action::default();
    let result = if refused(sig) {
        -(libc::EINVAL as isize)
    } else {
        exchange(sig, new, &mut old)
    };
    if result < 0 {
        // SAFETY: errno of this thread.
        unsafe { fail(result.unsigned_abs() as c_int) };
        return None;
    }
    Some(old)
}

/// `sigaction(2)`.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn sigaction(sig: c_int, new: *const LibcAction, old: *mut LibcAction) -> c_int {
    // SAFETY: pointers as the caller of sigaction gives them, null or valid.
    unsafe {
        if not_yet() {
            return next_sigaction(sig, new, old);
        }
        let new = new.as_ref().map(from_libc);
        let Some(before) = swap(sig, new.as_ref()) else {
            return -1;
        };
        if let Some(old) = old.as_mut() {
            *old = to_libc(&before);
        }
    }
    0
}

/// `sigaction(2)`.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn __sigaction(
    sig: c_int,
    new: *const LibcAction,
    old: *mut LibcAction,
) -> c_int {
    // SAFETY: passed on.
    unsafe { sigaction(sig, new, old) }
}

/// Sets `handler` and tells the old one, SIG_ERR with errno on failure.
unsafe fn set_handler(sig: c_int, handler: usize, flags: u64, mask: u64) -> usize {
    let flags = flags | SA_RESTORER;
    let new = Action {
        handler,
        flags,
        restorer: super::restorer(),
        mask,
    };
    // SAFETY: passed on.
    unsafe {
        if handler == SIG_ERR {
            fail(libc::EINVAL);
            return SIG_ERR;
        }
        swap(sig, Some(&new)).map_or(SIG_ERR, |old| old.handler)
    }
}

unsafe fn bsd(sig: c_int, handler: usize) -> usize {
    let interrupts = bit(sig) & INTERRUPTING.load(Ordering::Relaxed) != 0;
    let flags = if interrupts { 0 } else { SA_RESTART };
    // SAFETY: passed on.
    unsafe { set_handler(sig, handler, flags, bit(sig)) }
}

type Signal = unsafe extern "C" fn(c_int, usize) -> usize;

/// Aliases of `signal` in its BSD and its System V flavour.
macro_rules! signal_doors {
    ($($name:ident $text:literal => |$sig:ident, $handler:ident| $ours:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "(3)`.")]
        #[cfg_attr(not(test), unsafe(no_mangle))]
        unsafe extern "C" fn $name($sig: c_int, $handler: usize) -> usize {
            // SAFETY: libc's own signature; the caller's arguments.
            unsafe {
                if not_yet() {
                    return next!($text as Signal, otherwise SIG_ERR, $sig, $handler);
                }
                $ours
            }
        }
    )*};
}

signal_doors! {
    signal c"signal" => |sig, handler| bsd(sig, handler);
    bsd_signal c"bsd_signal" => |sig, handler| bsd(sig, handler);
    ssignal c"ssignal" => |sig, handler| bsd(sig, handler);
    sysv_signal c"sysv_signal" => |sig, handler| set_handler(sig, handler, SA_RESETHAND | SA_NODEFER, 0);
    __sysv_signal c"__sysv_signal" => |sig, handler| set_handler(sig, handler, SA_RESETHAND | SA_NODEFER, 0);
    sigset c"sigset" => |sig, handler| set_and_unblock(sig, handler);
}

/// `sigset`: SIG_HOLD blocks, anything else sets and unblocks; tells SIG_HOLD
/// if the signal was blocked.
unsafe fn set_and_unblock(sig: c_int, handler: usize) -> usize {
    // SAFETY: passed on; the kernel reads and writes eight bytes.
    unsafe {
        let (how, old) = if handler == SIG_HOLD {
            (
                libc::SIG_BLOCK,
                swap(sig, None).map_or(SIG_ERR, |old| old.handler),
            )
        } else {
            (libc::SIG_UNBLOCK, set_handler(sig, handler, 0, 0))
        };
        if old == SIG_ERR {
            return SIG_ERR;
        }
        let (set, mut before) = (bit(sig), 0u64);
        super::forget_mask();
        syscall!(
            libc::SYS_rt_sigprocmask,
            how,
            &raw const set,
            &raw mut before,
            8
        );
        if before & bit(sig) != 0 {
            SIG_HOLD
        } else {
            old
        }
    }
}

/// `sigignore(3)`.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn sigignore(sig: c_int) -> c_int {
    type Sigignore = unsafe extern "C" fn(c_int) -> c_int;
    // SAFETY: libc's own signature; the caller's argument.
    unsafe {
        if not_yet() {
            return next!(c"sigignore" as Sigignore, otherwise - 1, sig);
        }
        if set_handler(sig, IGNORE, 0, 0) == SIG_ERR {
            -1
        } else {
            0
        }
    }
}

/// `siginterrupt(3)`.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn siginterrupt(sig: c_int, interrupt: c_int) -> c_int {
    type Siginterrupt = unsafe extern "C" fn(c_int, c_int) -> c_int;
    if !refused(sig) {
        if interrupt == 0 {
            INTERRUPTING.fetch_and(!bit(sig), Ordering::Relaxed);
        } else {
            INTERRUPTING.fetch_or(bit(sig), Ordering::Relaxed);
        }
    }
    // SAFETY: libc's own signature; the caller's arguments.
    unsafe {
        if not_yet() {
            return next!(
                c"siginterrupt" as Siginterrupt,
                otherwise - 1,
                sig,
                interrupt
            );
        }
        let Some(mut action) = swap(sig, None) else {
            return -1;
        };
        let restart = if interrupt == 0 { SA_RESTART } else { 0 };
        action.flags = (action.flags & !SA_RESTART) | restart;
        if swap(sig, Some(&action)).is_some() {
            0
        } else {
            -1
        }
    }
}

/// `rt_sigaction` as `syscall(2)` gets it: 0 or `-errno`.
///
/// # Safety
/// `new` and `old` are null or the kernel's structures (bad ones give EFAULT).
pub(crate) unsafe fn rt_sigaction(
    sig: c_int,
    new: *const Action,
    old: *mut Action,
    size: usize,
) -> isize {
    let bytes = size_of::<Action>();
    let mut wanted = Action::default();
    let mut before = Action::default();
    // SAFETY: usercopy takes any address; the kernel checks before we are armed.
    unsafe {
        if not_yet() || size != 8 {
            return syscall!(libc::SYS_rt_sigaction, sig, new, old, size);
        }
        let into = (&raw mut wanted).cast();
        if !new.is_null() && usercopy::copy(into, new.cast(), bytes) != 0 {
            return -(libc::EFAULT as isize);
        }
        let given = (!new.is_null()).then_some(&wanted);
        let result = exchange(sig, given, &mut before);
        if result == 0
            && !old.is_null()
            && usercopy::copy(old.cast(), (&raw const before).cast(), bytes) != 0
        {
            return -(libc::EFAULT as isize);
        }
        result
    }
}

/// Functions that change this thread's mask: libc's own, and we forget what
/// we knew of it.
macro_rules! mask_doors {
    ($($name:ident $text:literal ($($arg:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("`", stringify!($name), "(3)`.")]
        #[cfg_attr(not(test), unsafe(no_mangle))]
        unsafe extern "C" fn $name($($arg: $type),*) -> c_int {
            type Mask = unsafe extern "C" fn($($type),*) -> c_int;
            // SAFETY: libc's own signature; the caller's arguments.
            let result = unsafe { next!($text as Mask, otherwise -1, $($arg),*) };
            super::forget_mask();
            result
        }
    )*};
}

mask_doors! {
    sigprocmask c"sigprocmask" (how: c_int, set: *const c_void, old: *mut c_void);
    pthread_sigmask c"pthread_sigmask" (how: c_int, set: *const c_void, old: *mut c_void);
    sighold c"sighold" (sig: c_int);
    sigrelse c"sigrelse" (sig: c_int);
    sigblock c"sigblock" (mask: c_int);
    sigsetmask c"sigsetmask" (mask: c_int);
}
