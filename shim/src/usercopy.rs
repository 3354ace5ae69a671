//! Copies to and from the caller's buffers. A bad pointer gives a count of
//! what is left (the kernel's EFAULT), not the death of the process.
//!
//! The fast way touches the memory directly, in the assembly below. A fault
//! there reaches the handler of [`crate::signals`], which finds the
//! instruction in the table at the end of the assembly and continues at its
//! fix-up, as the kernel's own `copy_from_user` does: the vector code goes on
//! byte by byte, the byte loop ends with the exact count.
//!
//! The slow way goes through `process_vm_readv` on ourselves. It is taken
//! while our handler is not installed, and in threads that block SIGSEGV or
//! SIGBUS (worker threads that block everything; a handler of SIGSEGV itself):
//! there the kernel would kill instead of calling a handler.
//!
//! Source and destination must not overlap.

use core::arch::global_asm;
use core::ffi::c_char;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::sys::syscall;
use crate::{signals, tls};

// `rep movsb` is not used: it is no faster than the 32-byte loop at any size,
// and some 50 times slower where the destination lies a few bytes beyond the
// source modulo 4096 (measured on Zen 4; libc's memcpy suffers there).
//
// In each routine, at every access to memory, rdi, rsi and rdx (destination,
// source, bytes left) describe what is still to do; in `rep stosb` rcx is the rest.
global_asm!(
    ".pushsection .text.capio_usercopy,\"ax\",@progbits",
    // usize capio_copy(dst, src, n): bytes not copied
    ".p2align 6",
    ".globl capio_copy",
    ".hidden capio_copy",
    ".type capio_copy,@function",
    "capio_copy:",
    "cmp rdx, 16",
    "jb 20f",
    "cmp rdx, 32",
    "ja 2f",
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + rdx - 16]",
    "movups [rdi], xmm0",
    "movups [rdi + rdx - 16], xmm1",
    "xor eax, eax",
    "ret",
    "2:",
    "cmp rdx, 64",
    "ja 3f",
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + 16]",
    "movups xmm2, [rsi + rdx - 32]",
    "movups xmm3, [rsi + rdx - 16]",
    "movups [rdi], xmm0",
    "movups [rdi + 16], xmm1",
    "movups [rdi + rdx - 32], xmm2",
    "movups [rdi + rdx - 16], xmm3",
    "xor eax, eax",
    "ret",
    "3:",
    "cmp qword ptr [rip + {wide}], 0",
    "jne 5f",
    // 16-byte registers, 64 bytes a turn; the last 1 to 64 overlap backwards
    ".p2align 4",
    "4:",
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + 16]",
    "movups xmm2, [rsi + 32]",
    "movups xmm3, [rsi + 48]",
    "movups [rdi], xmm0",
    "movups [rdi + 16], xmm1",
    "movups [rdi + 32], xmm2",
    "movups [rdi + 48], xmm3",
    "add rsi, 64",
    "add rdi, 64",
    "sub rdx, 64",
    "cmp rdx, 64",
    "ja 4b",
    "movups xmm0, [rsi + rdx - 64]",
    "movups xmm1, [rsi + rdx - 48]",
    "movups xmm2, [rsi + rdx - 32]",
    "movups xmm3, [rsi + rdx - 16]",
    "movups [rdi + rdx - 64], xmm0",
    "movups [rdi + rdx - 48], xmm1",
    "movups [rdi + rdx - 32], xmm2",
    "movups [rdi + rdx - 16], xmm3",
    "xor eax, eax",
    "ret",
    // 32-byte registers, 128 bytes a turn
    "5:",
    "cmp rdx, 128",
    "jbe 8f",
    // align the destination: one register, then continue at the next boundary
    "vmovups ymm0, [rsi]",
    "vmovups [rdi], ymm0",
    "mov rcx, rdi",
    "and ecx, 31",
    "sub rcx, 32",
    "sub rsi, rcx",
    "sub rdi, rcx",
    "add rdx, rcx",
    "cmp rdx, 128",
    "jbe 8f",
    ".p2align 5",
    "7:",
    "vmovups ymm0, [rsi]",
    "vmovups ymm1, [rsi + 32]",
    "vmovups ymm2, [rsi + 64]",
    "vmovups ymm3, [rsi + 96]",
    "vmovups [rdi], ymm0",
    "vmovups [rdi + 32], ymm1",
    "vmovups [rdi + 64], ymm2",
    "vmovups [rdi + 96], ymm3",
    "sub rsi, -128",
    "sub rdi, -128",
    "add rdx, -128",
    "cmp rdx, 128",
    "ja 7b",
    "cmp rdx, 64",
    "ja 8f",
    "vmovups ymm0, [rsi + rdx - 64]",
    "vmovups ymm1, [rsi + rdx - 32]",
    "vmovups [rdi + rdx - 64], ymm0",
    "vmovups [rdi + rdx - 32], ymm1",
    "vzeroupper",
    "xor eax, eax",
    "ret",
    "8:", // 65 to 128 left (never fewer: see the branches here)
    "vmovups ymm0, [rsi]",
    "vmovups ymm1, [rsi + 32]",
    "vmovups ymm2, [rsi + rdx - 64]",
    "vmovups ymm3, [rsi + rdx - 32]",
    "vmovups [rdi], ymm0",
    "vmovups [rdi + 32], ymm1",
    "vmovups [rdi + rdx - 64], ymm2",
    "vmovups [rdi + rdx - 32], ymm3",
    "vzeroupper",
    "xor eax, eax",
    "ret",
    // fewer than 16
    "20:",
    "cmp edx, 8",
    "jb 21f",
    "mov rax, [rsi]",
    "mov rcx, [rsi + rdx - 8]",
    "mov [rdi], rax",
    "mov [rdi + rdx - 8], rcx",
    "xor eax, eax",
    "ret",
    "21:",
    "cmp edx, 4",
    "jb 22f",
    "mov eax, [rsi]",
    "mov ecx, [rsi + rdx - 4]",
    "mov [rdi], eax",
    "mov [rdi + rdx - 4], ecx",
    "xor eax, eax",
    "ret",
    "22:",
    "test edx, edx",
    "jz 23f",
    "movzx eax, byte ptr [rsi]",
    "cmp edx, 1",
    "je 24f",
    "movzx ecx, word ptr [rsi + rdx - 2]",
    "mov [rdi], al",
    "mov [rdi + rdx - 2], cx",
    "23:",
    "xor eax, eax",
    "ret",
    "24:",
    "mov [rdi], al",
    "xor eax, eax",
    "ret",
    "capio_copy_end:",
    "capio_copy_fix:",
    // (the byte loop also mops up after 32-byte registers)
    "test rdx, rdx",
    "jz 31f",
    "capio_copy_bytes:",
    "30:",
    "movzx eax, byte ptr [rsi]",
    "mov [rdi], al",
    "inc rsi",
    "inc rdi",
    "dec rdx",
    "jnz 30b",
    "capio_copy_bytes_end:",
    "31:",
    "cmp qword ptr [rip + {wide}], 0",
    "je 32f",
    "vzeroupper",
    "32:",
    "mov rax, rdx",
    "ret",
    ".size capio_copy, . - capio_copy",
    // usize capio_zero(dst, n): bytes not cleared
    ".p2align 6",
    ".globl capio_zero",
    ".hidden capio_zero",
    ".type capio_zero,@function",
    "capio_zero:",
    "mov rdx, rsi",
    "xorps xmm0, xmm0",
    "cmp rdx, 16",
    "jb 43f",
    "cmp rdx, qword ptr [rip + {stos_from}]",
    "jae 42f",
    "40:",
    "cmp rdx, 64",
    "jb 41f",
    "movups [rdi], xmm0",
    "movups [rdi + 16], xmm0",
    "movups [rdi + 32], xmm0",
    "movups [rdi + 48], xmm0",
    "add rdi, 64",
    "sub rdx, 64",
    "jmp 40b",
    "41:",
    "cmp rdx, 16",
    "jb 43f",
    "movups [rdi], xmm0",
    "add rdi, 16",
    "sub rdx, 16",
    "jmp 41b",
    "43:",
    "test rdx, rdx",
    "jz 44f",
    "mov byte ptr [rdi], 0",
    "inc rdi",
    "dec rdx",
    "jmp 43b",
    "44:",
    "xor eax, eax",
    "ret",
    "42:",
    "mov rcx, rdx",
    "xor eax, eax",
    "capio_zero_rep:",
    "rep stosb",
    "capio_zero_end:",
    "xor eax, eax",
    "ret",
    "capio_zero_rep_fix:",
    "mov rdx, rcx",
    "capio_zero_fix:",
    "test rdx, rdx",
    "jz 46f",
    "capio_zero_bytes:",
    "45:",
    "mov byte ptr [rdi], 0",
    "inc rdi",
    "dec rdx",
    "jnz 45b",
    "capio_zero_bytes_end:",
    "46:",
    "mov rax, rdx",
    "ret",
    ".size capio_zero, . - capio_zero",
    // isize capio_copy_cstr(dst, src, room): length, -EFAULT, -ENAMETOOLONG.
    // 16 bytes at once where they cannot reach into the source's next page.
    ".p2align 6",
    ".globl capio_copy_cstr",
    ".hidden capio_copy_cstr",
    ".type capio_copy_cstr,@function",
    "capio_copy_cstr:",
    "xor eax, eax",
    "pxor xmm1, xmm1",
    "50:",
    "lea rcx, [rax + 16]",
    "cmp rcx, rdx",
    "ja 52f",
    "lea r8, [rsi + rax]",
    "and r8d, 4095",
    "cmp r8d, 4080",
    "ja 52f",
    "movdqu xmm0, [rsi + rax]",
    "movdqu [rdi + rax], xmm0",
    "pcmpeqb xmm0, xmm1",
    "pmovmskb ecx, xmm0",
    "test ecx, ecx",
    "jnz 51f",
    "add rax, 16",
    "jmp 50b",
    "51:",
    "bsf ecx, ecx",
    "add rax, rcx",
    "ret",
    "52:",
    "cmp rax, rdx",
    "jae 53f",
    "movzx ecx, byte ptr [rsi + rax]",
    "mov [rdi + rax], cl",
    "test ecx, ecx",
    "jz 54f",
    "inc rax",
    "jmp 50b",
    "53:",
    "mov rax, -36",
    "54:",
    "ret",
    "capio_copy_cstr_end:",
    "capio_copy_cstr_fix:",
    "mov rax, -14",
    "ret",
    ".size capio_copy_cstr, . - capio_copy_cstr",
    ".popsection",
    // from, to, fix-up: offsets from this table, first match counts
    ".pushsection .rodata.capio_fixups,\"a\",@progbits",
    ".p2align 2",
    ".globl capio_fixups",
    ".hidden capio_fixups",
    "capio_fixups:",
    ".long capio_copy - capio_fixups, capio_copy_end - capio_fixups, capio_copy_fix - capio_fixups",
    ".long capio_copy_bytes - capio_fixups, capio_copy_bytes_end - capio_fixups, capio_copy_bytes_end - capio_fixups",
    ".long capio_zero_rep - capio_fixups, capio_zero_end - capio_fixups, capio_zero_rep_fix - capio_fixups",
    ".long capio_zero - capio_fixups, capio_zero_rep - capio_fixups, capio_zero_fix - capio_fixups",
    ".long capio_zero_bytes - capio_fixups, capio_zero_bytes_end - capio_fixups, capio_zero_bytes_end - capio_fixups",
    ".long capio_copy_cstr - capio_fixups, capio_copy_cstr_end - capio_fixups, capio_copy_cstr_fix - capio_fixups",
    ".popsection",
    stos_from = sym STOS_FROM,
    wide = sym WIDE,
);

unsafe extern "C" {
    fn capio_copy(dst: *mut u8, src: *const u8, n: usize) -> usize;
    fn capio_zero(dst: *mut u8, n: usize) -> usize;
    fn capio_copy_cstr(dst: *mut u8, src: *const c_char, room: usize) -> isize;
    static capio_fixups: [[i32; 3]; 6];
}

/// From this size on `rep stosb` clears; set by [`choose`].
static STOS_FROM: AtomicUsize = AtomicUsize::new(usize::MAX);
/// 1 when the processor and the kernel have 32-byte registers; set by [`choose`].
static WIDE: AtomicUsize = AtomicUsize::new(0);

/// Chooses the instructions by what the processor has. Idempotent; until the
/// first call the plain 16-byte code serves.
pub(crate) fn choose() {
    let (avx, fast_rep) = known_features().unwrap_or_else(ask_features);
    WIDE.store(usize::from(avx), Ordering::Relaxed);
    if fast_rep {
        STOS_FROM.store(1024, Ordering::Relaxed);
    }
}

/// AVX that the kernel saves, and fast `rep stosb`, as the dynamic loader has
/// found them (glibc 2.33): CPUID costs 20 us under a hypervisor.
fn known_features() -> Option<(bool, bool)> {
    /// `struct cpuid_feature` of `sys/platform/x86.h`: eax, ebx, ecx, edx.
    #[repr(C)]
    struct Leaf {
        present: [u32; 4],
        active: [u32; 4],
    }
    type GetLeaf = unsafe extern "C" fn(u32) -> *const Leaf;
    // SAFETY: libc's own function, which gives a constant of the loader or null.
    let [one, seven] = unsafe {
        let symbol = c"__x86_get_cpuid_feature_leaf".as_ptr();
        let found = libc::dlsym(libc::RTLD_DEFAULT, symbol);
        if found.is_null() {
            return None;
        }
        let leaf = core::mem::transmute::<*mut core::ffi::c_void, GetLeaf>(found);
        [leaf(0).as_ref()?, leaf(1).as_ref()?]
    };
    let [_, _, ecx, _] = one.active;
    let [_, ebx, _, _] = seven.present;
    Some((ecx & (1 << 28) != 0, ebx & (1 << 9) != 0))
}

/// The same from the processor.
fn ask_features() -> (bool, bool) {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    // SAFETY: XGETBV exists where OSXSAVE (bit 27) says so.
    unsafe {
        let one = __cpuid(1).ecx;
        let avx = one & (1 << 27) != 0 && one & (1 << 28) != 0 && xgetbv0() & 6 == 6;
        let erms = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx & (1 << 9) != 0;
        (avx, erms)
    }
}

/// XCR0: which register states the kernel saves.
///
/// # Safety
/// The processor must have OSXSAVE.
unsafe fn xgetbv0() -> u32 {
    let low: u32;
    // SAFETY: reads a control register, the caller vouches that it exists.
    unsafe {
        core::arch::asm!(
            "xgetbv", in("ecx") 0, out("eax") low, out("edx") _,
            options(nomem, nostack, preserves_flags),
        );
    }
    low
}

/// Where to go on after a fault at instruction `rip`, if it is one of ours.
pub(crate) fn fixup(rip: usize) -> Option<usize> {
    let table = &raw const capio_fixups;
    let at = |offset: i32| (table as usize).wrapping_add_signed(offset as isize);
    // SAFETY: the assembly above defines six rows of three offsets.
    let rows = unsafe { &*table };
    rows.iter()
        .find(|&&[from, to, _]| (at(from)..at(to)).contains(&rip))
        .map(|&[_, _, fix]| at(fix))
}

/// Whether a fault of this thread reaches our handler now. Asks the kernel
/// only when the mask may have changed since the last time.
#[inline(always)]
fn faults_caught() -> bool {
    // SAFETY: the thread's own state.
    let known = unsafe { ptr::read_volatile(&raw const (*tls::current()).faults) };
    known == tls::FAULTS_CAUGHT || signals::faults_caught_slow()
}

/// Copies `n` bytes and returns how many were **not** copied (0: all). Those
/// before the first byte that could not be read or written are copied.
///
/// # Safety
/// Either side may be any address: a fault is no harm. But what can be read
/// and written there must be the caller's to read and write, and must not overlap.
#[inline(always)]
pub(crate) unsafe fn copy(dst: *mut u8, src: *const u8, n: usize) -> usize {
    if faults_caught() {
        // SAFETY: faults inside are caught; the rest is the caller's word.
        unsafe { capio_copy(dst, src, n) }
    } else {
        // SAFETY: as above, by the kernel's checks.
        unsafe { copy_slow(dst, src, n) }
    }
}

/// Clears `n` bytes and returns how many were **not** cleared (0: all).
///
/// # Safety
/// As for the destination of [`copy`].
#[inline(always)]
pub(crate) unsafe fn zero(dst: *mut u8, n: usize) -> usize {
    if faults_caught() {
        // SAFETY: faults inside are caught; the rest is the caller's word.
        unsafe { capio_zero(dst, n) }
    } else {
        // SAFETY: as above.
        unsafe { zero_slow(dst, n) }
    }
}

/// Copies the string at `src` with its NUL. Returns the length without NUL,
/// `-EFAULT`, or `-ENAMETOOLONG` when no NUL is among the first `dst.len()`
/// bytes. What follows the NUL in `dst` is unspecified.
///
/// # Safety
/// `src` may be any address; what can be read there must be the caller's.
#[inline(always)]
pub(crate) unsafe fn copy_cstr(dst: &mut [u8], src: *const c_char) -> isize {
    if faults_caught() {
        // SAFETY: faults inside are caught; writes stay within `dst`.
        unsafe { capio_copy_cstr(dst.as_mut_ptr(), src, dst.len()) }
    } else {
        // SAFETY: as above.
        unsafe { copy_cstr_slow(dst, src) }
    }
}

/// One `process_vm_readv` from ourselves to ourselves: bytes copied, or `-errno`.
unsafe fn read_self(dst: *mut u8, src: *const u8, n: usize) -> isize {
    let local = libc::iovec {
        iov_base: dst.cast(),
        iov_len: n,
    };
    let remote = libc::iovec {
        iov_base: src.cast_mut().cast(),
        iov_len: n,
    };
    // SAFETY: the kernel checks both sides and touches `n` bytes at most.
    unsafe {
        let pid = syscall!(libc::SYS_getpid);
        syscall!(
            libc::SYS_process_vm_readv,
            pid,
            &raw const local,
            1,
            &raw const remote,
            1,
            0
        )
    }
}

/// [`copy`] by the kernel's hand. Where it forbids `process_vm_readv` (a
/// seccomp filter), a bad pointer kills as in any library.
#[cold]
unsafe fn copy_slow(dst: *mut u8, src: *const u8, n: usize) -> usize {
    let mut done = 0;
    while done < n {
        let left = n.wrapping_sub(done);
        // SAFETY: within the caller's ranges.
        let got = unsafe { read_self(dst.wrapping_add(done), src.wrapping_add(done), left) };
        if got == -(libc::EPERM as isize) || got == -(libc::ENOSYS as isize) {
            // SAFETY: the caller's word; no protection can be had.
            return unsafe { capio_copy(dst.wrapping_add(done), src.wrapping_add(done), left) };
        }
        if got <= 0 {
            return left;
        }
        done = done.wrapping_add(got.unsigned_abs());
    }
    0
}

/// [`zero`] by the kernel's hand.
#[cold]
unsafe fn zero_slow(dst: *mut u8, n: usize) -> usize {
    static ZEROES: [u8; 4096] = [0; 4096];
    let mut done = 0;
    while done < n {
        let part = n.wrapping_sub(done).min(ZEROES.len());
        // SAFETY: `part` bytes of ours to the caller's range.
        let left = unsafe { copy_slow(dst.wrapping_add(done), ZEROES.as_ptr(), part) };
        done = done.wrapping_add(part).wrapping_sub(left);
        if left != 0 {
            break;
        }
    }
    n.wrapping_sub(done)
}

/// [`copy_cstr`] by the kernel's hand, never beyond the source's page at once.
#[cold]
unsafe fn copy_cstr_slow(dst: &mut [u8], src: *const c_char) -> isize {
    let mut rest = dst;
    let mut from = src.cast::<u8>();
    let mut length = 0isize;
    while !rest.is_empty() {
        let part = rest.len().min(4096usize.wrapping_sub(from as usize & 4095));
        // SAFETY: `part` bytes of the caller's string to `rest`.
        let left = unsafe { copy_slow(rest.as_mut_ptr(), from, part) };
        let got = part.wrapping_sub(left);
        let Some((page, more)) = rest.split_at_mut_checked(got) else {
            break;
        };
        if let Some(nul) = page.iter().position(|&byte| byte == 0) {
            return length.wrapping_add_unsigned(nul);
        }
        if left != 0 {
            return -(libc::EFAULT as isize);
        }
        length = length.wrapping_add_unsigned(got);
        from = from.wrapping_add(got);
        rest = more;
    }
    -(libc::ENAMETOOLONG as isize)
}

#[cfg(test)]
mod tests;
