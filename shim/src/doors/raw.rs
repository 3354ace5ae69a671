//! `syscall(2)`: the same table by number. What is not ours, and every number
//! not named here, goes to the kernel as it is.

use super::fds::{CREAT, makes};
use super::hook::Answer;
use super::io::{maps, placed};
use super::{exec, handed, old_dirent, rings, times};
use crate::calls::{self, NOT_OURS};
use crate::sys::{syscall, syscall6};
use crate::{attach, signals, usercopy};
use core::arch::naked_asm;
use core::ffi::{c_int, c_long};
use core::mem::MaybeUninit;
use libc::{AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_NOFOLLOW};

/// `syscall(2)`. Copies of the process are made without a frame of ours on the
/// stack, as libc does it: the child returns on it, too.
///
/// # Safety
/// As `syscall(2)`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn syscall() {
    naked_asm!(
        ".cfi_startproc",
        "cmp rdi, {clone}",
        "je 2f",
        "cmp rdi, {fork}",
        "je 2f",
        "cmp rdi, {vfork}",
        "je 2f",
        "cmp rdi, {clone3}",
        "je 2f",
        "jmp {by_number}",
        "2: mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, [rsp + 8]",
        "syscall",
        "cmp rax, -4095",
        "jae 3f",
        "ret",
        "3: mov rdi, rax",
        "jmp {failed}",
        ".cfi_endproc",
        clone = const libc::SYS_clone,
        fork = const libc::SYS_fork,
        vfork = const libc::SYS_vfork,
        clone3 = const libc::SYS_clone3,
        by_number = sym by_number,
        failed = sym failed,
    )
}

extern "C" fn failed(answer: isize) -> c_long {
    <c_long as Answer>::of(answer)
}

/// The arguments of a call, in the kernel's words.
#[derive(Clone, Copy)]
struct Arguments(usize, usize, usize, usize, usize, usize);

/// Variable arguments of C: seven words are where seven fixed ones are.
unsafe extern "C" fn by_number(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let all = Arguments(a, b, c, d, e, f);
    // SAFETY: the caller's own promises, handed on.
    let mut answer = unsafe {
        match number {
            libc::SYS_exit_group => {
                attach::note_ending();
                NOT_OURS
            }
            libc::SYS_execve => {
                return c_long::from(exec::execve(a as _, b as _, c as _));
            }
            libc::SYS_execveat => {
                return c_long::from(exec::execveat(a as _, b as _, c as _, d as _, e as _));
            }
            libc::SYS_rt_sigaction => signals::rt_sigaction(a as _, b as _, c as _, d),
            libc::SYS_rt_sigprocmask => {
                let answer = syscall!(number, a, b, c, d);
                signals::forget_mask();
                answer
            }
            libc::SYS_futex => NOT_OURS,
            libc::SYS_io_submit => match rings::before_submit(b as _, c as _) {
                0 => NOT_OURS,
                failed => failed,
            },
            libc::SYS_io_uring_setup => rings::setup(a as _, b as _),
            _ => by_descriptor(number, all),
        }
    };
    if answer == NOT_OURS {
        // SAFETY: the caller's own promises, handed on.
        answer = unsafe { syscall6(number, a, b, c, d, e, f) };
        // SAFETY: the caller's own promises.
        unsafe { handed::received(number as isize, b as *const _, answer) };
    }
    if (-4095..0).contains(&answer) {
        return failed(answer);
    }
    answer as c_long
}

/// Calls that take a descriptor; the others further on.
unsafe fn by_descriptor(number: c_long, all: Arguments) -> isize {
    let Arguments(a, b, c, d, e, f) = all;
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        match number {
            libc::SYS_read => calls::read(a as _, b as _, c),
            libc::SYS_write => calls::write(a as _, b as _, c),
            libc::SYS_pread64 => calls::pread64(a as _, b as _, c, d as _),
            libc::SYS_pwrite64 => calls::pwrite64(a as _, b as _, c, d as _),
            libc::SYS_readv => calls::readv(a as _, b as _, c as _),
            libc::SYS_writev => calls::writev(a as _, b as _, c as _),
            libc::SYS_preadv => placed(d as _, |at| calls::preadv2(a as _, b as _, c as _, at, 0)),
            libc::SYS_pwritev => {
                placed(d as _, |at| calls::pwritev2(a as _, b as _, c as _, at, 0))
            }
            libc::SYS_preadv2 => calls::preadv2(a as _, b as _, c as _, d as _, f as _),
            libc::SYS_pwritev2 => calls::pwritev2(a as _, b as _, c as _, d as _, f as _),
            libc::SYS_lseek => calls::lseek(a as _, b as _, c as _),
            libc::SYS_close => calls::close(a as _),
            libc::SYS_close_range => calls::close_range(a as _, b as _, c as _),
            libc::SYS_dup => calls::dup(a as _),
            libc::SYS_dup2 => calls::dup2(a as _, b as _),
            libc::SYS_dup3 => calls::dup3(a as _, b as _, c as _),
            libc::SYS_fcntl => calls::fcntl(a as _, b as _, c),
            libc::SYS_ioctl => calls::ioctl(a as _, b as _, c),
            libc::SYS_flock => calls::flock(a as _, b as _),
            libc::SYS_fstat => calls::fstat(a as _, b as _),
            libc::SYS_fstatfs => calls::fstatfs(a as _, b as _),
            libc::SYS_fsync => calls::fsync(a as _),
            libc::SYS_fdatasync => calls::fdatasync(a as _),
            libc::SYS_syncfs => calls::syncfs(a as _),
            libc::SYS_sync_file_range => calls::sync_file_range(a as _, b as _, c as _, d as _),
            libc::SYS_readahead => calls::readahead(a as _, b as _, c),
            libc::SYS_fadvise64 => calls::fadvise64(a as _, b as _, c as _, d as _),
            libc::SYS_ftruncate => calls::ftruncate(a as _, b as _),
            libc::SYS_fallocate => calls::fallocate(a as _, b as _, c as _, d as _),
            libc::SYS_fchmod => calls::fchmod(a as _, b as _),
            libc::SYS_fchown => calls::fchown(a as _, b as _, c as _),
            libc::SYS_fchdir => calls::fchdir(a as _),
            libc::SYS_getdents64 => calls::getdents64(a as _, b as _, c),
            libc::SYS_getdents => old_dirent::getdents(a as _, b as _, c),
            libc::SYS_sendfile => calls::sendfile(a as _, b as _, c as _, d),
            libc::SYS_copy_file_range => {
                calls::copy_file_range(a as _, b as _, c as _, d as _, e, f as _)
            }
            libc::SYS_splice => calls::splice(a as _, b as _, c as _, d as _, e, f as _),
            libc::SYS_mmap if maps(d as _, e as _) => {
                calls::mmap(a as _, b, c as _, d as _, e as _, f as _)
            }
            libc::SYS_fgetxattr => calls::fgetxattr(a as _, b as _, c as _, d),
            libc::SYS_fsetxattr => calls::fsetxattr(a as _, b as _, c as _, d, e as _),
            libc::SYS_flistxattr => calls::flistxattr(a as _, b as _, c),
            libc::SYS_fremovexattr => calls::fremovexattr(a as _, b as _),
            _ => by_name(number, all),
        }
    }
}

/// Calls that take a name as it was before directories could be named.
unsafe fn by_name(number: c_long, all: Arguments) -> isize {
    let Arguments(a, b, c, d, e, _) = all;
    let here = AT_FDCWD;
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        match number {
            libc::SYS_open => calls::openat(here, a as _, b as _, mode(b, c)),
            libc::SYS_creat => calls::openat(here, a as _, CREAT, b as _),
            libc::SYS_stat => calls::newfstatat(here, a as _, b as _, 0),
            libc::SYS_lstat => calls::newfstatat(here, a as _, b as _, AT_SYMLINK_NOFOLLOW),
            libc::SYS_statfs => calls::statfs(a as _, b as _),
            libc::SYS_access => calls::faccessat2(here, a as _, b as _, 0),
            libc::SYS_mkdir => calls::mkdirat(here, a as _, b as _),
            libc::SYS_mknod => calls::mknodat(here, a as _, b as _, device(c)),
            libc::SYS_rmdir => calls::unlinkat(here, a as _, AT_REMOVEDIR),
            libc::SYS_unlink => calls::unlinkat(here, a as _, 0),
            libc::SYS_rename => calls::renameat2(here, a as _, here, b as _, 0),
            libc::SYS_link => calls::linkat(here, a as _, here, b as _, 0),
            libc::SYS_symlink => calls::symlinkat(a as _, here, b as _),
            libc::SYS_readlink => calls::readlinkat(here, a as _, b as _, c),
            libc::SYS_chmod => calls::fchmodat2(here, a as _, b as _, 0),
            libc::SYS_chown => calls::fchownat(here, a as _, b as _, c as _, 0),
            libc::SYS_lchown => calls::fchownat(here, a as _, b as _, c as _, AT_SYMLINK_NOFOLLOW),
            libc::SYS_truncate => calls::truncate(a as _, b as _),
            libc::SYS_chdir => calls::chdir(a as _),
            libc::SYS_chroot => calls::chroot(a as _),
            libc::SYS_getcwd => calls::getcwd(a as _, b),
            libc::SYS_umask => calls::umask(a as _),
            libc::SYS_utime => with(b, |t| times::by_second(a as _, t)),
            libc::SYS_utimes => with(b, |t| times::by_microsecond(here, a as _, t, 0)),
            libc::SYS_bind => calls::bind(a as _, b as _, c as _),
            libc::SYS_connect => calls::connect(a as _, b as _, c as _),
            libc::SYS_inotify_add_watch => calls::inotify_add_watch(a as _, b as _, c as _),
            libc::SYS_getxattr => calls::getxattr(a as _, b as _, c as _, d),
            libc::SYS_lgetxattr => calls::lgetxattr(a as _, b as _, c as _, d),
            libc::SYS_setxattr => calls::setxattr(a as _, b as _, c as _, d, e as _),
            libc::SYS_lsetxattr => calls::lsetxattr(a as _, b as _, c as _, d, e as _),
            libc::SYS_listxattr => calls::listxattr(a as _, b as _, c),
            libc::SYS_llistxattr => calls::llistxattr(a as _, b as _, c),
            libc::SYS_removexattr => calls::removexattr(a as _, b as _),
            libc::SYS_lremovexattr => calls::lremovexattr(a as _, b as _),
            _ => by_place(number, all),
        }
    }
}

/// Calls that take a directory's descriptor and a name in it.
unsafe fn by_place(number: c_long, all: Arguments) -> isize {
    let Arguments(a, b, c, d, e, _) = all;
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        match number {
            libc::SYS_openat => calls::openat(a as _, b as _, c as _, mode(c, d)),
            libc::SYS_openat2 => open_how(a as _, b as _, c, d),
            libc::SYS_newfstatat => calls::newfstatat(a as _, b as _, c as _, d as _),
            libc::SYS_statx => calls::statx(a as _, b as _, c as _, d as _, e as _),
            libc::SYS_faccessat => calls::faccessat2(a as _, b as _, c as _, 0),
            libc::SYS_faccessat2 => calls::faccessat2(a as _, b as _, c as _, d as _),
            libc::SYS_mkdirat => calls::mkdirat(a as _, b as _, c as _),
            libc::SYS_mknodat => calls::mknodat(a as _, b as _, c as _, device(d)),
            libc::SYS_unlinkat => calls::unlinkat(a as _, b as _, c as _),
            libc::SYS_renameat => calls::renameat2(a as _, b as _, c as _, d as _, 0),
            libc::SYS_renameat2 => calls::renameat2(a as _, b as _, c as _, d as _, e as _),
            libc::SYS_linkat => calls::linkat(a as _, b as _, c as _, d as _, e as _),
            libc::SYS_symlinkat => calls::symlinkat(a as _, b as _, c as _),
            libc::SYS_readlinkat => calls::readlinkat(a as _, b as _, c as _, d),
            libc::SYS_fchmodat => calls::fchmodat2(a as _, b as _, c as _, 0),
            libc::SYS_fchmodat2 => calls::fchmodat2(a as _, b as _, c as _, d as _),
            libc::SYS_fchownat => calls::fchownat(a as _, b as _, c as _, d as _, e as _),
            libc::SYS_utimensat => calls::utimensat(a as _, b as _, c as _, d as _),
            libc::SYS_futimesat => with(c, |t| times::by_microsecond(a as _, b as _, t, 0)),
            _ => NOT_OURS,
        }
    }
}

/// The mode of an `open`, which is garbage where it is not asked for.
fn mode(flags: usize, mode: usize) -> libc::mode_t {
    if makes(flags as c_int) { mode as _ } else { 0 }
}

/// The kernel's device numbers have 32 bits.
fn device(number: usize) -> libc::dev_t {
    libc::dev_t::from(number as u32)
}

/// Calls `then` with what lies at `address`, which may be null or wrong.
///
/// # Safety
/// Every pattern of bits must be a `T`.
unsafe fn with<T>(address: usize, then: impl FnOnce(Option<&T>) -> isize) -> isize {
    if address == 0 {
        return then(None);
    }
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the copy takes any address; the caller's promise for the value.
    unsafe {
        let left = usercopy::copy(
            value.as_mut_ptr().cast(),
            address as *const u8,
            size_of::<T>(),
        );
        if left != 0 {
            // The kernel refuses it in the order in which it checks.
            return NOT_OURS;
        }
        then(Some(value.assume_init_ref()))
    }
}

/// How `openat2` shall open.
#[repr(C)]
struct How {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// `openat2`. Ways to resolve a name that `openat` does not have are refused
/// for our files, as by a kernel without the call: programs then do without.
unsafe fn open_how(dirfd: c_int, path: *const core::ffi::c_char, how: usize, size: usize) -> isize {
    const NO_XDEV: u64 = 1;
    const NO_MAGICLINKS: u64 = 2;
    // SAFETY: numbers only; the caller's own promises, handed on.
    unsafe {
        with(how, |how: Option<&How>| {
            let Some(how) = how.filter(|_| size == size_of::<How>()) else {
                return NOT_OURS;
            };
            let plain = how.resolve & !(NO_XDEV | NO_MAGICLINKS) == 0;
            match (plain, c_int::try_from(how.flags)) {
                (true, Ok(flags)) => calls::openat(dirfd, path, flags, how.mode as _),
                _ => match calls::faccessat2(dirfd, path, libc::F_OK, 0) {
                    NOT_OURS => NOT_OURS,
                    _ => -(libc::ENOSYS as isize),
                },
            }
        })
    }
}
