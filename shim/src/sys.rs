//! The shim's own gate to the kernel. It never goes through a libc symbol
//! that the shim itself exports, and never touches `errno`: every function
//! returns what the kernel does, `-errno` on failure.

use core::arch::asm;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("libcapio_posix is written for x86-64 Linux; see ARCHITECTURE.md, `shim`");

/// A raw system call with six arguments.
///
/// # Safety
/// The arguments must be valid for call `nr`: the kernel reads and writes
/// memory as that call says.
#[inline(always)]
pub(crate) unsafe fn syscall6(
    nr: i64,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    let ret: isize;
    // SAFETY: the kernel's x86-64 convention: number in rax, arguments in
    // rdi rsi rdx r10 r8 r9, rcx and r11 clobbered. The caller vouches for
    // what the call does.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") nr as isize => ret,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    ret
}

/// `syscall!(nr, args...)`: the raw call with missing arguments as zero.
macro_rules! syscall {
    ($nr:expr) => { $crate::sys::syscall6($nr as i64, 0, 0, 0, 0, 0, 0) };
    ($nr:expr, $a:expr) => { $crate::sys::syscall6($nr as i64, $a as usize, 0, 0, 0, 0, 0) };
    ($nr:expr, $a:expr, $b:expr) => {
        $crate::sys::syscall6($nr as i64, $a as usize, $b as usize, 0, 0, 0, 0)
    };
    ($nr:expr, $a:expr, $b:expr, $c:expr) => {
        $crate::sys::syscall6($nr as i64, $a as usize, $b as usize, $c as usize, 0, 0, 0)
    };
    ($nr:expr, $a:expr, $b:expr, $c:expr, $d:expr) => {
        $crate::sys::syscall6($nr as i64, $a as usize, $b as usize, $c as usize, $d as usize, 0, 0)
    };
    ($nr:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
        $crate::sys::syscall6(
            $nr as i64, $a as usize, $b as usize, $c as usize, $d as usize, $e as usize, 0,
        )
    };
    ($nr:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        $crate::sys::syscall6(
            $nr as i64, $a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize,
        )
    };
}
pub(crate) use syscall;
