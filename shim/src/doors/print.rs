//! Text straight to a descriptor: `dprintf` and its kin, `perror`.

use super::hook::{Answer, pass_named};
use super::next::{code, errno, set_errno};
use crate::calls;
use crate::sys::syscall;
use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_void};
use libc::{FILE, iovec};

/// C's `va_list` on x86-64; functions take it by address.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Arguments {
    general: u32,
    floating: u32,
    stack: *mut c_void,
    registers: *mut c_void,
}

unsafe extern "C" {
    fn vsnprintf(to: *mut c_char, n: usize, format: *const c_char, list: *mut Arguments) -> c_int;
    fn __vsnprintf_chk(
        to: *mut c_char,
        n: usize,
        flag: c_int,
        room: usize,
        format: *const c_char,
        list: *mut Arguments,
    ) -> c_int;
    fn fwide(stream: *mut FILE, mode: c_int) -> c_int;
    static stderr: *mut FILE;
}

/// Writes all `n` bytes to `fd`, which is ours.
unsafe fn write_all(fd: c_int, text: *const c_char, n: usize) -> isize {
    let mut done = 0usize;
    while done < n {
        let rest = text.wrapping_add(done).cast();
        // SAFETY: the caller's text has n bytes.
        match unsafe { calls::write(fd, rest, n.wrapping_sub(done)) } {
            0 | calls::NOT_OURS => return -(libc::EIO as isize),
            answer if answer < 0 => return answer,
            answer => done = done.wrapping_add(answer as usize),
        }
    }
    0
}

/// Writes what `format` makes; it is asked again if it needs more room.
unsafe fn print(fd: c_int, format: impl Fn(*mut c_char, usize) -> c_int) -> c_int {
    let mut text = [0 as c_char; 1024];
    let made = format(text.as_mut_ptr(), text.len());
    let Ok(n) = usize::try_from(made) else {
        return -1;
    };
    // SAFETY: n bytes were made; a longer text gets a mapping of its own.
    let answer = unsafe {
        if n < text.len() {
            write_all(fd, text.as_ptr(), n)
        } else {
            mapped(n.wrapping_add(1), |room| {
                format(room, n.wrapping_add(1));
                write_all(fd, room, n)
            })
        }
    };
    if answer < 0 {
        return Answer::of(answer);
    }
    made
}

/// Calls `with` with `n` bytes of memory.
unsafe fn mapped(n: usize, with: impl FnOnce(*mut c_char) -> isize) -> isize {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping, unmapped when nobody uses it any more.
    unsafe {
        let at = syscall!(libc::SYS_mmap, 0, n, protection, flags, -1isize, 0);
        if at < 0 {
            return at;
        }
        let answer = with(at as *mut c_char);
        syscall!(libc::SYS_munmap, at, n);
        answer
    }
}

/// # Safety
/// As `vdprintf(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vdprintf(
    fd: c_int,
    format: *const c_char,
    list: *mut Arguments,
) -> c_int {
    // SAFETY: the caller's own promises, handed on; a list is read from a copy.
    unsafe {
        if !calls::is_ours(fd) {
            return pass_named!(
                vdprintf(fd: c_int, format: *const c_char, list: *mut Arguments) -> c_int
            );
        }
        print(fd, |to, n| {
            let mut list = *list;
            vsnprintf(to, n, format, &raw mut list)
        })
    }
}

/// # Safety
/// As `vdprintf(3)`; with a `flag` over 0 libc checks the format.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __vdprintf_chk(
    fd: c_int,
    flag: c_int,
    format: *const c_char,
    list: *mut Arguments,
) -> c_int {
    // SAFETY: the caller's own promises, handed on; a list is read from a copy.
    unsafe {
        if !calls::is_ours(fd) {
            return pass_named!(__vdprintf_chk(
                fd: c_int, flag: c_int, format: *const c_char, list: *mut Arguments
            ) -> c_int);
        }
        print(fd, |to, n| {
            let mut list = *list;
            __vsnprintf_chk(to, n, flag, n, format, &raw mut list)
        })
    }
}

/// Lays variable arguments out as a `va_list` and calls `$body` with it: 24
/// bytes for the list, then (from 32 on) the registers, 216 in all, which
/// levels the stack. `$given` bytes of general registers are named arguments.
macro_rules! variadic {
    ($name:ident, $body:ident, $given:literal, $register:literal) => {
        /// # Safety
        /// As `dprintf(3)`.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "sub rsp, 216",
                ".cfi_adjust_cfa_offset 216",
                "mov [rsp + 48], rdx",
                "mov [rsp + 56], rcx",
                "mov [rsp + 64], r8",
                "mov [rsp + 72], r9",
                "test al, al",
                "je 2f",
                "movaps [rsp + 80], xmm0",
                "movaps [rsp + 96], xmm1",
                "movaps [rsp + 112], xmm2",
                "movaps [rsp + 128], xmm3",
                "movaps [rsp + 144], xmm4",
                "movaps [rsp + 160], xmm5",
                "movaps [rsp + 176], xmm6",
                "movaps [rsp + 192], xmm7",
                concat!("2: mov dword ptr [rsp], ", $given),
                "mov dword ptr [rsp + 4], 48",
                "lea rax, [rsp + 224]",
                "mov [rsp + 8], rax",
                "lea rax, [rsp + 32]",
                "mov [rsp + 16], rax",
                concat!("mov ", $register, ", rsp"),
                "call {body}",
                "add rsp, 216",
                ".cfi_adjust_cfa_offset -216",
                "ret",
                ".cfi_endproc",
                body = sym $body,
            )
        }
    };
}

variadic!(dprintf, vdprintf, "16", "rdx");
variadic!(__dprintf_chk, __vdprintf_chk, "24", "rcx");

/// `perror(3)`: to a stream without an orientation libc writes by a copy of its
/// descriptor that nobody else sees.
///
/// # Safety
/// As `perror(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn perror(prefix: *const c_char) {
    // SAFETY: libc's own stream; the caller's own promises, handed on.
    unsafe {
        let why = errno();
        let fd = libc::fileno(stderr);
        set_errno(why);
        if fd < 0 || !calls::is_ours(fd) || fwide(stderr, 0) != 0 {
            return pass_named!(perror(prefix: *const c_char) -> ());
        }
        let mut text = [0 as c_char; 256];
        libc::strerror_r(why, text.as_mut_ptr(), text.len());
        let bare = prefix.is_null() || *prefix == 0;
        let parts = [
            if bare { c"".as_ptr() } else { prefix },
            if bare { c"".as_ptr() } else { c": ".as_ptr() },
            text.as_ptr(),
            c"\n".as_ptr(),
        ]
        .map(|part| iovec {
            iov_base: part.cast_mut().cast(),
            iov_len: libc::strlen(part),
        });
        let answer = calls::writev(fd, parts.as_ptr(), 4);
        set_errno(if answer < 0 { code(answer) } else { why });
    }
}
