//! `execl`, `execlp`, `execle`: arguments as a list. C's variable arguments
//! have no stable form in Rust, so each entry is a few instructions that lay
//! the argument registers out in memory, where [`Arguments`] reads them.

use super::carry::{Strings, current};
use super::scratch::words;
use super::search::run_file;
use super::{ret, run};
use core::arch::naked_asm;
use core::ffi::{c_char, c_int};

/// Registers that carry arguments after the first.
const REGISTERS: usize = 5;

/// The arguments after the first: five from registers, the rest on the stack.
#[derive(Clone, Copy)]
struct Arguments {
    registers: *const *const c_char,
    stack: *const *const c_char,
}

impl Arguments {
    /// # Safety
    /// The caller must have passed so many.
    unsafe fn get(&self, i: usize) -> *const c_char {
        // SAFETY: the caller's promise.
        unsafe {
            match i.checked_sub(REGISTERS) {
                None => *self.registers.wrapping_add(i),
                Some(rest) => *self.stack.wrapping_add(rest),
            }
        }
    }

    /// Calls `with` with the list up to and with its null, and what follows it.
    ///
    /// # Safety
    /// The list must end with a null.
    unsafe fn with_list(self, with: impl Fn(Strings, &dyn Fn() -> Strings) -> isize) -> c_int {
        let mut n = 0usize;
        // SAFETY: the caller's promise; the room holds the list.
        unsafe {
            while !self.get(n).is_null() {
                n = n.wrapping_add(1);
            }
            let count = n.wrapping_add(1);
            let answer = words(count, |room| {
                let list = room.cast::<*const c_char>();
                for i in 0..count {
                    *list.wrapping_add(i) = self.get(i);
                }
                with(list, &|| self.get(count).cast::<*const c_char>())
            });
            ret(answer.unwrap_or(-(libc::ENOMEM as isize)))
        }
    }
}

unsafe extern "C" fn list_run(
    path: *const c_char,
    registers: *const *const c_char,
    stack: *const *const c_char,
) -> c_int {
    // SAFETY: laid out by the entry below; the program ended its list.
    unsafe { Arguments { registers, stack }.with_list(|argv, _| run(path, argv, current())) }
}

unsafe extern "C" fn list_run_file(
    file: *const c_char,
    registers: *const *const c_char,
    stack: *const *const c_char,
) -> c_int {
    // SAFETY: laid out by the entry below; the program ended its list.
    unsafe { Arguments { registers, stack }.with_list(|argv, _| run_file(file, argv, current())) }
}

unsafe extern "C" fn list_run_env(
    path: *const c_char,
    registers: *const *const c_char,
    stack: *const *const c_char,
) -> c_int {
    // SAFETY: laid out by the entry below; the environment follows the null.
    unsafe { Arguments { registers, stack }.with_list(|argv, env| run(path, argv, env())) }
}

macro_rules! entry {
    ($name:ident, $body:ident) => {
        /// # Safety
        /// As `exec(3)`.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            // On entry the stack is 8 off a multiple of 16; 56 bytes level it,
            // hold the five registers, and leave the caller's list 64 above.
            naked_asm!(
                ".cfi_startproc",
                "sub rsp, 56",
                ".cfi_adjust_cfa_offset 56",
                "mov [rsp], rsi",
                "mov [rsp + 8], rdx",
                "mov [rsp + 16], rcx",
                "mov [rsp + 24], r8",
                "mov [rsp + 32], r9",
                "mov rsi, rsp",
                "lea rdx, [rsp + 64]",
                "call {body}",
                "add rsp, 56",
                ".cfi_adjust_cfa_offset -56",
                "ret",
                ".cfi_endproc",
                body = sym $body,
            )
        }
    };
}

entry!(execl, list_run);
entry!(execlp, list_run_file);
entry!(execle, list_run_env);
