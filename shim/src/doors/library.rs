//! `dlopen`: the loader opens files inside libc. A library that lies in the
//! cache is loaded by the kernel's path of it. The real function is jumped to,
//! as it looks at who has called it.

use super::next::next;
use crate::calls::{self, NOT_OURS};
use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_long, c_void};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Room for paths that the loader copies at once; as many threads load at a
/// time.
const ROOMS: usize = 8;
const ROOM: usize = 4096;
static mut PATHS: [[u8; ROOM]; ROOMS] = [[0; ROOM]; ROOMS];
static NEXT_ROOM: AtomicUsize = AtomicUsize::new(0);

/// The kernel's path of a library of ours; null: load what was asked for.
unsafe extern "C" fn path_of(path: *const c_char) -> *const c_char {
    // A name without a slash is searched for, and not in the session.
    // SAFETY: the caller's path is null or a C string.
    if path.is_null() || unsafe { libc::strchr(path, c_int::from(b'/')) }.is_null() {
        return ptr::null();
    }
    let room = NEXT_ROOM.fetch_add(1, Ordering::Relaxed) % ROOMS;
    let mut real = [0u8; ROOM];
    // SAFETY: a C string; the room is this call's until seven others came.
    unsafe {
        let length = calls::library_path(path, &mut real);
        if length == NOT_OURS || length < 0 {
            return ptr::null();
        }
        let into = (&raw mut PATHS).cast::<[u8; ROOM]>().wrapping_add(room);
        into.write(real);
        into.cast_const().cast()
    }
}

type Open = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
type OpenIn = unsafe extern "C" fn(c_long, *const c_char, c_int) -> *mut c_void;

extern "C" fn nowhere() -> *mut c_void {
    ptr::null_mut()
}

unsafe extern "C" fn next_dlopen() -> *const c_void {
    // SAFETY: libc's own function.
    let found = unsafe { next!(c"dlopen" as Open) };
    found.map_or(nowhere as *const c_void, |next| next as *const c_void)
}

unsafe extern "C" fn next_dlmopen() -> *const c_void {
    // SAFETY: libc's own function.
    let found = unsafe { next!(c"dlmopen" as OpenIn) };
    found.map_or(nowhere as *const c_void, |next| next as *const c_void)
}

/// `dlopen(3)`.
///
/// # Safety
/// As the function of this name.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn dlopen(path: *const c_char, mode: c_int) -> *mut c_void {
    naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {path_of}",
        "test rax, rax",
        "cmovz rax, [rsp + 16]",
        "mov [rsp + 16], rax",
        "call {next}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "jmp rax",
        path_of = sym path_of,
        next = sym next_dlopen,
    )
}

/// `dlmopen(3)`.
///
/// # Safety
/// As the function of this name.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn dlmopen(space: c_long, path: *const c_char, mode: c_int) -> *mut c_void {
    naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "mov rdi, rsi",
        "call {path_of}",
        "test rax, rax",
        "cmovz rax, [rsp + 8]",
        "mov [rsp + 8], rax",
        "call {next}",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "jmp rax",
        path_of = sym path_of,
        next = sym next_dlmopen,
    )
}
