//! `libcapio_posix.so`: takes over the POSIX file calls of unmodified programs.
//!
//! Every intercepted operation is one function of the call table ([`calls`]),
//! in terms of kernel semantics (`-errno` on failure); the doors
//! ([`doors`]) lead libc's exported symbols, stdio and directory streams to it.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, allow(dead_code, reason = "tests do not export the doors"))]

mod attach;
mod calls;
mod clock;
mod control;
mod core_hooks;
mod critical;
mod descriptors;
mod doors;
mod fork;
mod futex;
mod mailbox;
mod next;
mod owner;
mod place;
#[cfg(feature = "selftest")]
mod selftest;
mod session;
mod signals;
mod sys;
mod text;
mod threads;
mod tls;
mod usercopy;

// The precompiled `core` names it in its unwind tables; nothing ever unwinds
// here. Hidden: Rust programs have their own.
#[cfg(not(test))]
core::arch::global_asm!(
    ".globl rust_eh_personality",
    ".hidden rust_eh_personality",
    "rust_eh_personality: ud2",
);

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: exit_group takes a plain integer and does not return.
    unsafe {
        sys::syscall!(libc::SYS_exit_group, 125);
    }
    loop {}
}
