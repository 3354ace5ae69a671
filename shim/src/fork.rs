//! New processes: who is a copy, who borrows its parent's memory.
//!
//! `fork`, `_Fork` and fork-like `clone` call the core around the copy.
//! `vfork` and `clone` with CLONE_VM (but not as a thread) make processes that
//! run in our memory under another pid; while one may exist [`VFORK_ACTIVE`]
//! is not 0, and [`in_vfork_child`] compares pids. Forks that pass no symbol
//! (`forkpty`, `daemon`, raw system calls) show by a word that the kernel wipes
//! in every copy ([`wiped`]). `posix_spawn`'s child runs no code of ours.

use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

use crate::core_hooks;
use crate::next::next;
use crate::sys::syscall;
use crate::{signals, tls};

/// Processes that may be running in this memory besides its owner.
pub(crate) static VFORK_ACTIVE: AtomicU32 = AtomicU32::new(0);
/// The pid of the process whose memory this is; 0 = not asked yet.
static OWNER_PID: AtomicI32 = AtomicI32::new(0);
/// A page that is zero in a forked child.
static WIPED_PAGE: AtomicPtr<u32> = AtomicPtr::new(ptr::null_mut());

fn pid() -> i32 {
    // SAFETY: no arguments.
    unsafe { syscall!(libc::SYS_getpid) as i32 }
}

/// At load, when nobody can have borrowed this memory yet: who owns it, and
/// what must not enter the dynamic loader later.
extern "C" fn at_load() {
    become_owner(pid());
    signals::look_up();
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

/// Whether this process runs in its parent's memory. One load when no such
/// process can exist, else `getpid`.
#[inline(always)]
pub(crate) fn in_vfork_child() -> bool {
    VFORK_ACTIVE.load(Ordering::Acquire) != 0 && is_vfork_child()
}

/// As [`in_vfork_child`], also right for a raw vfork that no hook has seen.
#[cold]
pub(crate) fn is_vfork_child() -> bool {
    let me = pid();
    let owner = OWNER_PID.load(Ordering::Acquire);
    if owner == me {
        return false;
    }
    if owner == 0 || (is_marked_here() && wiped()) {
        // The first to ask, or a copy made by a fork that we did not see.
        become_owner(me);
        return false;
    }
    true
}

/// Whether a page exists at all by which a copy would show.
fn is_marked_here() -> bool {
    !WIPED_PAGE.load(Ordering::Acquire).is_null()
}

/// The state of a process that is alone in its memory.
fn become_owner(me: i32) {
    VFORK_ACTIVE.store(0, Ordering::Release);
    OWNER_PID.store(me, Ordering::Release);
}

/// True until [`mark`] in a new process image and in every child made by a
/// fork of any kind; false in the parent, its threads and its vfork children.
#[inline(always)]
pub(crate) fn wiped() -> bool {
    let page = WIPED_PAGE.load(Ordering::Acquire);
    // SAFETY: the page stays mapped for the life of the process.
    page.is_null() || unsafe { page.read_volatile() } == 0
}

/// Makes [`wiped`] false in this process: 0 or `-errno`. ENOMEM, or EINVAL on
/// a kernel before 4.14; then `wiped` stays true.
pub(crate) fn mark() -> isize {
    let mut page = WIPED_PAGE.load(Ordering::Acquire);
    if page.is_null() {
        let made = wiped_page();
        if made < 0 {
            return made;
        }
        page = publish(made as *mut u32);
    }
    // SAFETY: the page is ours, mapped and writable.
    unsafe { page.write_volatile(1) };
    0
}

/// Makes `page` the one of this process, unless another thread was faster.
fn publish(page: *mut u32) -> *mut u32 {
    match WIPED_PAGE.compare_exchange(ptr::null_mut(), page, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => page,
        Err(first) => {
            // SAFETY: our own mapping, which nobody has seen.
            unsafe { syscall!(libc::SYS_munmap, page, 4096) };
            first
        }
    }
}

/// A new anonymous page that the kernel zeroes in every copy; `-errno`.
fn wiped_page() -> isize {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping; on failure it is unmapped again unseen.
    unsafe {
        let page = syscall!(libc::SYS_mmap, 0, 4096, protection, flags, -1isize, 0);
        if page < 0 {
            return page;
        }
        let advised = syscall!(libc::SYS_madvise, page, 4096, libc::MADV_WIPEONFORK);
        if advised < 0 {
            syscall!(libc::SYS_munmap, page, 4096);
            return advised;
        }
        page
    }
}

/// Forgets what belonged to the thread's or child's past: no section is open.
fn fresh_thread() {
    let state = tls::current();
    // SAFETY: the thread's own state.
    unsafe {
        ptr::write_volatile(&raw mut (*state).critical, 0);
        ptr::write_volatile(&raw mut (*state).pending, 0);
        ptr::write_volatile(&raw mut (*state).faults, 0);
    }
}

fn in_new_copy() {
    become_owner(pid());
    fresh_thread();
    core_hooks::after_fork_child();
}

type Fork = unsafe extern "C" fn() -> libc::pid_t;

/// Calls the core around `real`.
unsafe fn around(real: impl FnOnce() -> libc::pid_t) -> libc::pid_t {
    core_hooks::before_fork();
    let result = real();
    if result == 0 {
        in_new_copy();
    } else {
        core_hooks::after_fork_parent();
    }
    result
}

macro_rules! fork_doors {
    ($($name:ident $text:literal;)*) => {$(
        #[doc = concat!("`", stringify!($name), "(2)`.")]
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[allow(non_snake_case, reason = "libc calls it so")]
        unsafe extern "C" fn $name() -> libc::pid_t {
            // SAFETY: libc's own signature.
            unsafe { around(|| next!($text as Fork, otherwise -1,)) }
        }
    )*};
}

fork_doors! {
    fork c"fork";
    __fork c"__fork";
    _Fork c"_Fork";
}

/// Called by `vfork` before the child is made.
extern "C" fn before_vfork() {
    core_hooks::before_vfork();
    if VFORK_ACTIVE.load(Ordering::Acquire) == 0 {
        OWNER_PID.store(pid(), Ordering::Release);
    }
    VFORK_ACTIVE.fetch_add(1, Ordering::AcqRel);
}

/// Called by `vfork` in the parent, when the child has exec'ed or ended: the
/// call's result for the program, errno set.
extern "C" fn after_vfork(result: isize) -> isize {
    // The child worked on our thread's state and may have died in a section.
    borrower_gone();
    if result < 0 {
        // SAFETY: errno of this thread.
        unsafe { *libc::__errno_location() = result.wrapping_neg() as c_int };
        return -1;
    }
    result
}

fn borrower_gone() {
    let fewer = |active: u32| active.checked_sub(1);
    // Already 0 if the child forked (illegally) and its copy runs this.
    let _ = VFORK_ACTIVE.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
    fresh_thread();
}

/// `vfork(2)`. The child returns on this very stack and overwrites what lies
/// below, so the return address waits in rdi, which the kernel leaves alone
/// (as libc's own vfork does it). No frame may be open at the system call.
#[cfg(not(test))]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn vfork() -> libc::pid_t {
    core::arch::naked_asm!(
        "sub rsp, 8",
        "call {before}",
        "add rsp, 8",
        "pop rdi",
        "mov eax, {nr}",
        "syscall",
        "push rdi",
        "test rax, rax",
        "jz 2f",
        "mov rdi, rax",
        "sub rsp, 8",
        "call {after}",
        "add rsp, 8",
        "2: ret",
        before = sym before_vfork,
        after = sym after_vfork,
        nr = const libc::SYS_vfork,
    )
}

/// `vfork(2)`.
#[cfg(not(test))]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn __vfork() -> libc::pid_t {
    core::arch::naked_asm!("jmp {}", sym vfork)
}

type Start = unsafe extern "C" fn(*mut c_void) -> c_int;
type Clone = unsafe extern "C" fn(
    Option<Start>,
    *mut c_void,
    c_int,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
) -> c_int;

/// What a fork-like `clone` shall call, in the memory that is copied.
struct Child {
    start: Start,
    argument: *mut c_void,
}

unsafe extern "C" fn start_copy(child: *mut c_void) -> c_int {
    in_new_copy();
    // SAFETY: `clone` below passes its own `Child`, of which we have a copy.
    unsafe {
        let Child { start, argument } = child.cast::<Child>().read();
        start(argument)
    }
}

/// `clone(2)`. Variadic in C; the seven words are where seven fixed arguments
/// are, and the next `clone` reads those that `flags` ask for.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn clone(
    start: Option<Start>,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent_tid: *mut c_void,
    thread: *mut c_void,
    child_tid: *mut c_void,
) -> c_int {
    let rest = (parent_tid, thread, child_tid);
    // SAFETY: libc's own signature; the caller's arguments. `child` outlives
    // the call, and the copy has it too.
    unsafe {
        let real = |start, argument| {
            next!(
                c"clone" as Clone,
                otherwise - 1,
                start,
                stack,
                flags,
                argument,
                rest.0,
                rest.1,
                rest.2
            )
        };
        match start {
            Some(start) if flags & libc::CLONE_VM == 0 => {
                let mut child = Child { start, argument };
                around(|| real(Some(start_copy as Start), (&raw mut child).cast()))
            }
            _ if flags & (libc::CLONE_VM | libc::CLONE_THREAD) == libc::CLONE_VM => {
                before_vfork();
                let result = real(start, argument);
                if result < 0 || flags & libc::CLONE_VFORK != 0 {
                    borrower_gone();
                }
                result
            }
            _ => real(start, argument),
        }
    }
}

/// `clone(2)`.
#[cfg(not(test))]
#[unsafe(no_mangle)]
unsafe extern "C" fn __clone(
    start: Option<Start>,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent_tid: *mut c_void,
    thread: *mut c_void,
    child_tid: *mut c_void,
) -> c_int {
    // SAFETY: passed on.
    unsafe { clone(start, stack, flags, argument, parent_tid, thread, child_tid) }
}
