//! `libcapio_posix.so`: takes over the POSIX file calls of unmodified programs.
//!
//! Every intercepted operation is one function of the call table ([`calls`]),
//! in terms of kernel semantics (`-errno` on failure); the doors
//! ([`doors`]) lead libc's exported symbols, stdio and directory streams to it.
#![cfg_attr(not(test), no_std)]

mod calls;
mod doors;
mod sys;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: exit_group takes a plain integer and does not return.
    unsafe {
        sys::syscall!(libc::SYS_exit_group, 125);
    }
    loop {}
}

// The precompiled `core` names the unwinder's personality routine, which nothing
// here can reach (panic=abort). Hidden: a Rust program has its own of this name.
#[cfg(not(test))]
core::arch::global_asm!(
    ".globl rust_eh_personality",
    ".hidden rust_eh_personality",
    "rust_eh_personality:",
    "ud2",
);
