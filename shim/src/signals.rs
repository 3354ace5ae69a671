//! Signals: faults in usercopy are caught, handlers wait for the end of
//! critical sections, and the program notices neither.
//!
//! From [`arm`] on the kernel holds one of our two entry points in place of
//! the program's handlers, with the program's own flags and mask. What the
//! program wants (and is told when it asks) is in [`WANTED`]. An entry point
//! decides and then *jumps* to the program's handler: the handler's frame is
//! the one the kernel made, so that back traces, `siglongjmp` and unwinding
//! are as without us.
//!
//! - SIGSEGV and SIGBUS always have ours ([`decide_fault`]), whatever the
//!   program wants. The default action is the kernel's own: the signal is
//!   queued again with its `siginfo` under SIG_DFL, so that a core dump shows
//!   the faulting instruction, code and address.
//! - Other signals have ours ([`decide`]) while the program has a handler;
//!   SIG_DFL and SIG_IGN go to the kernel as they are.
//! - SA_RESETHAND is done by us (a signal put off must find its handler still
//!   there), everything else by the kernel.
//!
//! In a child of vfork the table belongs to the parent, the kernel's actions
//! to the child: there new actions go to the kernel unwrapped. Such a child
//! that takes SIGSEGV or SIGBUS from us copies the slow way until it execs.
//!
//! Not covered: stack overflow without an alternate stack (it dies by SIGSEGV
//! as without us, the core's code is SI_KERNEL); programs that call
//! `rt_sigaction` by an instruction of their own (Go): they take SIGSEGV from
//! us, and a bad pointer then reaches their handler. A mask that blocks SIGSEGV and comes
//! back by `setcontext` or `siglongjmp`, unseen by us, after we saw it open:
//! the kernel then kills on a bad pointer. An RT signal sent to the thread
//! itself that is put off queues behind others of its number.

mod hooks;

pub(crate) use hooks::{look_up, rt_sigaction};

use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

use crate::critical::Critical;
use crate::sys::syscall;
use crate::tls::{self, ThreadState};
use crate::{fork, usercopy};

/// The kernel's `struct sigaction` (x86-64).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Action {
    /// SIG_DFL (0), SIG_IGN (1) or a handler's address.
    pub(crate) handler: usize,
    /// `SA_*`.
    pub(crate) flags: u64,
    /// Where the handler returns to.
    pub(crate) restorer: usize,
    /// Signals blocked while the handler runs, bit `number - 1`.
    pub(crate) mask: u64,
}

const DEFAULT: usize = libc::SIG_DFL;
const IGNORE: usize = libc::SIG_IGN;
const SA_RESTORER: u64 = 0x0400_0000;
const SA_RESETHAND: u64 = 0x8000_0000;
const SA_SIGINFO: u64 = 4;
const SA_ONSTACK: u64 = 0x0800_0000;
/// The flags that the kernel keeps (`UAPI_SA_FLAGS`).
const KEPT_FLAGS: u64 = 0xdc00_0807;
const SIGNALS: c_int = 64;
/// In [`Wanted::handler`]: SA_RESETHAND is set. No address has this bit.
const ONE_SHOT: usize = 1 << 62;

const fn bit(sig: c_int) -> u64 {
    1u64.wrapping_shl(sig.wrapping_sub(1) as u32)
}
/// The signals by which usercopy learns of a fault.
const FAULTS: u64 = bit(libc::SIGSEGV) | bit(libc::SIGBUS);
/// Raised by an instruction: put off, they would only be raised again.
const BY_INSTRUCTION: u64 =
    FAULTS | bit(libc::SIGILL) | bit(libc::SIGFPE) | bit(libc::SIGTRAP) | bit(libc::SIGSYS);
/// libc's own (cancellation, set*id in all threads).
const LIBC_OWN: u64 = bit(32) | bit(33);
/// Neither can be caught.
const UNCATCHABLE: u64 = bit(libc::SIGKILL) | bit(libc::SIGSTOP);
/// What is blocked once a signal has been put off.
const HELD_BACK: u64 = !(BY_INSTRUCTION | LIBC_OWN | UNCATCHABLE);

const fn is(sig: c_int, set: u64) -> bool {
    bit(sig) & set != 0
}

/// What the program wants for one signal. Written under [`Lock`]; handlers
/// read only `handler`.
struct Wanted {
    handler: AtomicUsize,
    flags: AtomicU64,
    restorer: AtomicUsize,
    mask: AtomicU64,
}

static WANTED: [Wanted; SIGNALS as usize + 1] = [const {
    Wanted {
        handler: AtomicUsize::new(0),
        flags: AtomicU64::new(0),
        restorer: AtomicUsize::new(0),
        mask: AtomicU64::new(0),
    }
}; SIGNALS as usize + 1];

/// Out-of-range numbers share row 0, which the kernel refuses to use.
fn wanted(sig: c_int) -> &'static Wanted {
    let row = usize::try_from(sig).ok().and_then(|sig| WANTED.get(sig));
    row.unwrap_or(&WANTED[0])
}

impl Wanted {
    fn get(&self) -> Action {
        let handler = self.handler.load(Ordering::Acquire);
        Action {
            handler: handler & !ONE_SHOT,
            flags: self.flags.load(Ordering::Relaxed),
            restorer: self.restorer.load(Ordering::Relaxed),
            mask: self.mask.load(Ordering::Relaxed),
        }
    }

    fn set(&self, action: &Action) {
        self.flags
            .store(action.flags & KEPT_FLAGS, Ordering::Relaxed);
        self.restorer.store(action.restorer, Ordering::Relaxed);
        self.mask
            .store(action.mask & !UNCATCHABLE, Ordering::Relaxed);
        let real = action.handler > IGNORE;
        let once = if real && action.flags & SA_RESETHAND != 0 {
            ONE_SHOT
        } else {
            0
        };
        self.handler.store(action.handler | once, Ordering::Release);
    }
}

/// The program (or a constructor of its libraries) asked for a handler before
/// [`arm`]. `exec` resets handlers, so without that there is none.
static EARLY: AtomicBool = AtomicBool::new(false);
/// Set by [`arm`], for the life of the process image.
static ARMED: AtomicBool = AtomicBool::new(false);
/// libc's signal-return code, which debuggers and unwinders know.
static RESTORER: AtomicUsize = AtomicUsize::new(0);

/// Whether [`arm`] has been called.
#[inline(always)]
pub(crate) fn armed() -> bool {
    ARMED.load(Ordering::Acquire)
}

/// Serialises changes of actions. Holds the owner's pid, so that a copy of a
/// held lock in a forked child is known to be stale. The section keeps this
/// thread's handlers from asking for it again.
struct Lock(#[allow(dead_code, reason = "held for its drop")] Critical);
static LOCK: AtomicI32 = AtomicI32::new(0);

impl Lock {
    fn take() -> Self {
        let section = Critical::enter();
        // SAFETY: no arguments.
        let me = unsafe { syscall!(libc::SYS_getpid) } as i32;
        loop {
            let holder = LOCK.load(Ordering::Relaxed);
            if holder != me
                && LOCK
                    .compare_exchange(holder, me, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return Self(section);
            }
            // SAFETY: no arguments.
            unsafe { syscall!(libc::SYS_sched_yield) };
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        LOCK.store(0, Ordering::Release);
    }
}

/// The raw system call; null pointers where nothing is given.
unsafe fn kernel_action(sig: c_int, new: Option<&Action>, old: Option<&mut Action>) -> isize {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    let old = old.map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: both are null or of the kernel's layout; a handler in `new` is
    // the program's or one of ours.
    unsafe { syscall!(libc::SYS_rt_sigaction, sig, new, old, 8) }
}

/// Sends `sig` to this thread again, `siginfo` and all.
unsafe fn queue_again(sig: c_int, info: *const libc::siginfo_t) {
    // SAFETY: the kernel reads `info`; to itself a process may send any code.
    unsafe {
        let pid = syscall!(libc::SYS_getpid);
        let tid = syscall!(libc::SYS_gettid);
        syscall!(libc::SYS_rt_tgsigqueueinfo, pid, tid, sig, info);
    }
}

/// What the kernel gets so that the program gets `wanted`.
fn wrapped(sig: c_int, wanted: &Action) -> Action {
    let ours = is(sig, FAULTS);
    if is(sig, LIBC_OWN | UNCATCHABLE) || (!ours && wanted.handler <= IGNORE) {
        return *wanted;
    }
    let entry = if ours {
        capio_on_fault as *const ()
    } else {
        capio_on_signal as *const ()
    };
    let mut action = *wanted;
    action.handler = entry as usize;
    action.flags = (action.flags & !SA_RESETHAND) | SA_SIGINFO;
    if wanted.handler <= IGNORE {
        action.flags |= SA_ONSTACK;
    }
    if action.flags & SA_RESTORER == 0 {
        action.flags |= SA_RESTORER;
        action.restorer = restorer();
    }
    action
}

fn restorer() -> usize {
    match RESTORER.load(Ordering::Relaxed) {
        0 => capio_sigaction_return as *const () as usize,
        known => known,
    }
}

/// `real` as the program shall see it, when `wanted` was what it had asked for.
fn as_seen(real: &Action, wanted: &Action) -> Action {
    let ours = [
        capio_on_fault as *const () as usize,
        capio_on_signal as *const () as usize,
    ];
    if ours.contains(&real.handler) {
        *wanted
    } else {
        *real
    }
}

/// `rt_sigaction` for the program, once armed: sets `new` if given and tells
/// what it had set before. `-errno` of the kernel.
fn exchange(sig: c_int, new: Option<&Action>, old: &mut Action) -> isize {
    if fork::in_vfork_child() {
        return exchange_in_vfork_child(sig, new, old);
    }
    let _lock = Lock::take();
    let row = wanted(sig);
    let before = row.get();
    let inner = new.map(|new| wrapped(sig, new));
    // The entry point may be called before the system call returns.
    let takes_row = inner
        .zip(new)
        .is_some_and(|(inner, new)| inner.handler != new.handler);
    if let (true, Some(new)) = (takes_row, new) {
        row.set(new);
    }
    let mut real = Action::default();
    // SAFETY: `inner` is the program's action or one of our entry points.
    let result = unsafe { kernel_action(sig, inner.as_ref(), Some(&mut real)) };
    if result < 0 {
        if takes_row {
            row.set(&before);
        }
        return result;
    }
    *old = as_seen(&real, &before);
    0
}

/// The table is the parent's: leave it alone.
fn exchange_in_vfork_child(sig: c_int, new: Option<&Action>, old: &mut Action) -> isize {
    let mut real = Action::default();
    // SAFETY: `new` is the program's own action.
    let result = unsafe { kernel_action(sig, new, Some(&mut real)) };
    if result < 0 {
        return result;
    }
    *old = as_seen(&real, &wanted(sig).get());
    if new.is_some() && is(sig, FAULTS) {
        // SAFETY: the thread's own state; the parent resets it.
        unsafe { (*tls::current()).faults = tls::FAULTS_NOT_OURS };
    }
    0
}

/// Puts our entry points in place: SIGSEGV and SIGBUS now, other signals that
/// have a handler, and whatever the program installs from now on. Idempotent
/// and cheap when done. In a child of vfork it does nothing (the parent's
/// memory must not say what holds only for the child); copies are slow then.
pub(crate) fn arm() {
    if armed() || fork::is_vfork_child() {
        return;
    }
    let _lock = Lock::take();
    if ARMED.swap(true, Ordering::AcqRel) {
        return;
    }
    usercopy::choose();
    let early = EARLY.load(Ordering::Relaxed);
    find_restorer(early);
    if early {
        (1..=SIGNALS).for_each(arm_one);
    } else {
        [libc::SIGSEGV, libc::SIGBUS].into_iter().for_each(arm_one);
    }
}

fn arm_one(sig: c_int) {
    if is(sig, LIBC_OWN | UNCATCHABLE) {
        return;
    }
    let mut now = Action::default();
    // SAFETY: only asks.
    if unsafe { kernel_action(sig, None, Some(&mut now)) } < 0 {
        return;
    }
    let inner = wrapped(sig, &now);
    if inner.handler != now.handler {
        wanted(sig).set(&now);
        // SAFETY: our entry point, the program's flags and mask.
        unsafe { kernel_action(sig, Some(&inner), None) };
    }
}

/// Remembers libc's signal return, by what libc has put into some action.
fn find_restorer(early: bool) {
    let mut found = early
        .then(|| (1..=SIGNALS).find_map(known_restorer))
        .flatten();
    if found.is_none() {
        // Nobody has a handler: let libc install ours for SIGBUS and look.
        let mut before = Action::default();
        // SAFETY: asks, lets libc install one of our entry points, and puts
        // back what was there; the row says default.
        unsafe {
            kernel_action(libc::SIGBUS, None, Some(&mut before));
            wanted(libc::SIGBUS).set(&before);
            hooks::let_libc_install(libc::SIGBUS, capio_on_fault as *const () as usize);
            found = known_restorer(libc::SIGBUS);
            kernel_action(libc::SIGBUS, Some(&before), None);
        }
    }
    RESTORER.store(found.unwrap_or(0), Ordering::Relaxed);
}

fn known_restorer(sig: c_int) -> Option<usize> {
    let mut now = Action::default();
    // SAFETY: only asks.
    let asked = unsafe { kernel_action(sig, None, Some(&mut now)) };
    (asked == 0 && now.flags & SA_RESTORER != 0 && now.restorer != 0).then_some(now.restorer)
}

/// Before `execve`: what the program ignores must be ignored by the kernel,
/// as that is inherited. Undone by [`after_failed_exec`].
pub(crate) fn before_exec() {
    for sig in [libc::SIGSEGV, libc::SIGBUS] {
        let action = wanted(sig).get();
        if armed() && action.handler == IGNORE {
            // SAFETY: SIG_IGN.
            unsafe { kernel_action(sig, Some(&action), None) };
        }
    }
}

/// After an `execve` that failed: our entry points again.
pub(crate) fn after_failed_exec() {
    for sig in [libc::SIGSEGV, libc::SIGBUS] {
        let action = wanted(sig).get();
        if armed() && action.handler == IGNORE {
            // SAFETY: our entry point.
            unsafe { kernel_action(sig, Some(&wrapped(sig, &action)), None) };
        }
    }
}

/// This thread's mask may have changed: ask again before the next copy. For
/// whoever passes `rt_sigprocmask` on to the kernel.
#[inline(always)]
pub(crate) fn forget_mask() {
    let state = tls::current();
    // SAFETY: the thread's own state.
    unsafe {
        if ptr::read_volatile(&raw const (*state).faults) == tls::FAULTS_CAUGHT {
            ptr::write_volatile(&raw mut (*state).faults, 0);
        }
    }
}

/// Asks the kernel whether a fault of this thread reaches [`decide_fault`]:
/// not if SIGSEGV or SIGBUS is blocked.
#[cold]
pub(crate) fn faults_caught_slow() -> bool {
    let state = tls::current();
    // SAFETY: the thread's own state.
    if !armed() || unsafe { (*state).faults } == tls::FAULTS_NOT_OURS {
        return false;
    }
    let mut mask = 0u64;
    // SAFETY: the kernel writes eight bytes to `mask`; the state is this thread's.
    unsafe {
        syscall!(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            0,
            &raw mut mask,
            8
        );
        if mask & FAULTS == 0 {
            (*state).faults = tls::FAULTS_CAUGHT;
        }
    }
    mask & FAULTS == 0
}

/// Lets the signals come that were put off in the section that just ended.
#[cold]
pub(crate) fn run_deferred(state: *mut ThreadState) {
    // SAFETY: the thread's own state; the kernel reads eight bytes.
    unsafe {
        let mask = (*state).mask;
        ptr::write_volatile(&raw mut (*state).pending, 0);
        syscall!(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            0,
            8
        );
    }
}

/// Puts `sig` off: queued again, and blocked (with all that can wait) in the
/// mask that the kernel restores when we return.
unsafe fn put_off(
    state: *mut ThreadState,
    sig: c_int,
    info: *const libc::siginfo_t,
    context: *mut libc::ucontext_t,
) {
    // SAFETY: the kernel made `context`; its mask is the first eight bytes.
    unsafe {
        let mask = (&raw mut (*context).uc_sigmask).cast::<u64>();
        if (*state).pending == 0 {
            (*state).mask = *mask;
            (*state).pending = 1;
        }
        *mask |= HELD_BACK | bit(sig);
        if is(sig, FAULTS) {
            forget_mask();
        }
        queue_again(sig, info);
    }
}

/// Entered by the kernel for every wrapped signal but faults. Returns the
/// handler to jump to, 0 for none.
unsafe extern "C" fn decide(
    sig: c_int,
    info: *const libc::siginfo_t,
    context: *mut libc::ucontext_t,
) -> usize {
    let state = tls::current();
    // SAFETY: the thread's own state; the kernel's siginfo and context.
    unsafe {
        let by_instruction = is(sig, BY_INSTRUCTION) && (*info).si_code > 0;
        if (*state).critical > 0 && !by_instruction {
            put_off(state, sig, info, context);
            return 0;
        }
        forget_mask();
        handler_now(sig, info)
    }
}

/// Entered by the kernel for SIGSEGV and SIGBUS. As [`decide`].
unsafe extern "C" fn decide_fault(
    sig: c_int,
    info: *const libc::siginfo_t,
    context: *mut libc::ucontext_t,
) -> usize {
    let state = tls::current();
    // SAFETY: the thread's own state; the kernel's siginfo and context.
    unsafe {
        let by_instruction = (*info).si_code > 0;
        let rip = &raw mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize];
        if let (true, Some(fix)) = (by_instruction, usercopy::fixup(*rip as usize)) {
            *rip = fix as i64;
            return 0;
        }
        if (*state).critical > 0 && !by_instruction {
            put_off(state, sig, info, context);
            return 0;
        }
        forget_mask();
        handler_now(sig, info)
    }
}

/// The handler the program wants now, used up if it was for once.
unsafe fn handler_now(sig: c_int, info: *const libc::siginfo_t) -> usize {
    let row = wanted(sig);
    let word = row.handler.load(Ordering::Acquire);
    // SAFETY: the kernel's siginfo.
    unsafe {
        match word {
            IGNORE if (*info).si_code <= 0 => 0,
            DEFAULT | IGNORE => by_default(sig, info),
            _ if word & ONE_SHOT == 0 => word,
            _ => use_up(sig, info),
        }
    }
}

/// SA_RESETHAND: one thread gets the handler, the next the default action.
unsafe fn use_up(sig: c_int, info: *const libc::siginfo_t) -> usize {
    let row = wanted(sig);
    let child = fork::in_vfork_child();
    let lock = (!child && !is(sig, FAULTS)).then(Lock::take);
    let word = row.handler.load(Ordering::Acquire);
    let once = word & ONE_SHOT != 0;
    let taken = once
        && (child
            || row
                .handler
                .compare_exchange(word, DEFAULT, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok());
    if taken && (child || !is(sig, FAULTS)) {
        let reset = Action {
            handler: DEFAULT,
            ..row.get()
        };
        // SAFETY: SIG_DFL.
        unsafe { kernel_action(sig, Some(&reset), None) };
    }
    drop(lock);
    if taken {
        return word & !ONE_SHOT;
    }
    // SAFETY: as the caller's; another thread or `sigaction` came first.
    unsafe { handler_now(sig, info) }
}

/// The kernel's default action, with the signal's own `siginfo`, as soon as
/// the handler has returned.
unsafe fn by_default(sig: c_int, info: *const libc::siginfo_t) -> usize {
    // SAFETY: SIG_DFL; the kernel's siginfo.
    unsafe {
        kernel_action(sig, Some(&Action::default()), None);
        queue_again(sig, info);
    }
    0
}

core::arch::global_asm!(
    ".pushsection .text.capio_signals,\"ax\",@progbits",
    ".macro capio_entry name, decide",
    ".p2align 4",
    ".globl \\name",
    ".hidden \\name",
    ".type \\name,@function",
    "\\name:",
    ".cfi_startproc",
    "push rdi",
    ".cfi_adjust_cfa_offset 8",
    "push rsi",
    ".cfi_adjust_cfa_offset 8",
    "push rdx",
    ".cfi_adjust_cfa_offset 8",
    "call \\decide",
    "pop rdx",
    ".cfi_adjust_cfa_offset -8",
    "pop rsi",
    ".cfi_adjust_cfa_offset -8",
    "pop rdi",
    ".cfi_adjust_cfa_offset -8",
    "test rax, rax",
    "jz 1f",
    "jmp rax",
    "1: ret",
    ".cfi_endproc",
    ".size \\name, . - \\name",
    ".endm",
    "capio_entry capio_on_signal {decide}",
    "capio_entry capio_on_fault {decide_fault}",
    // Debuggers and unwinders know it by these very bytes.
    "nop",
    ".globl capio_sigaction_return",
    ".hidden capio_sigaction_return",
    "capio_sigaction_return:",
    "mov rax, 15",
    "syscall",
    ".popsection",
    decide = sym decide,
    decide_fault = sym decide_fault,
);

unsafe extern "C" {
    fn capio_on_signal(sig: c_int, info: *mut libc::siginfo_t, context: *mut c_void);
    fn capio_on_fault(sig: c_int, info: *mut libc::siginfo_t, context: *mut c_void);
    fn capio_sigaction_return();
}
