//! Temporary names: `mkstemp` and its kin, `mkdtemp`, `mktemp`, `tempnam`,
//! `tmpnam`. A template that is not ours goes on to libc as it came.

use super::grow::stat_at;
use super::next::{code, errno, null, pass, ret, set_errno};
use crate::calls::{self, NOT_OURS};
use crate::sys::syscall;
use core::ffi::{c_char, c_int};
use core::ptr::{self, null_mut};

const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// How many names are tried before `EEXIST`: as many as libc tries.
const TRIES: usize = 62 * 62 * 62;
const MARK: usize = 6;

/// A seed that no other call has: from the kernel, or else from clock and stack.
fn seed() -> u64 {
    let mut value = 0u64;
    // SAFETY: eight bytes of our own.
    let n = unsafe { syscall!(libc::SYS_getrandom, &raw mut value, 8, libc::GRND_NONBLOCK) };
    if n == 8 {
        return value;
    }
    let mut now = [0i64; 2];
    // SAFETY: a `timespec` of our own.
    unsafe {
        syscall!(
            libc::SYS_clock_gettime,
            libc::CLOCK_MONOTONIC,
            now.as_mut_ptr()
        )
    };
    let here = (&raw const value) as u64;
    here.rotate_left(17) ^ (now[0] as u64).rotate_left(40) ^ now[1] as u64
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Tries names for the `XXXXXX` of `template` until `make` takes one, and gives
/// its answer. For a path that is not ours the template is as before.
///
/// # Safety
/// `template` must be a writable C string.
unsafe fn generate(
    template: *mut c_char,
    suffix: c_int,
    mut make: impl FnMut(*const c_char) -> isize,
) -> isize {
    let wrong = -(libc::EINVAL as isize);
    // SAFETY: the six bytes lie inside the string: its length was checked.
    unsafe {
        let len = libc::strlen(template);
        let Ok(suffix) = usize::try_from(suffix) else {
            return wrong;
        };
        let Some(at) = len.checked_sub(suffix).and_then(|n| n.checked_sub(MARK)) else {
            return wrong;
        };
        let mark = template.wrapping_add(at).cast::<u8>();
        if libc::memcmp(mark.cast(), c"XXXXXX".as_ptr().cast(), MARK) != 0 {
            return wrong;
        }
        let mut state = seed();
        for _ in 0..TRIES {
            let mut value = next(&mut state);
            for i in 0..MARK {
                let letter = LETTERS.get((value % 62) as usize).copied().unwrap_or(b'x');
                *mark.wrapping_add(i) = letter;
                value /= 62;
            }
            let answer = make(template);
            if answer == NOT_OURS {
                ptr::write_bytes(mark, b'X', MARK);
            }
            if answer != -(libc::EEXIST as isize) {
                return answer;
            }
        }
    }
    -(libc::EEXIST as isize)
}

/// # Safety
/// As `mkostemps(3)`.
unsafe fn make_file(template: *mut c_char, suffix: c_int, flags: c_int) -> isize {
    let flags = (flags & !libc::O_ACCMODE) | libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    // SAFETY: the caller's own promises.
    unsafe {
        generate(template, suffix, |path| {
            calls::openat(libc::AT_FDCWD, path, flags, 0o600)
        })
    }
}

/// The six functions that make and open a file: each in its own words.
macro_rules! file_makers {
    ($($name:ident, $symbol:literal, ($($a:ident: $t:ty),*), $suffix:expr, $flags:expr;)*) => {$(
        /// # Safety
        /// As the libc function of this name.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name(template: *mut c_char, $($a: $t),*) -> c_int {
            // SAFETY: the caller's own promises, handed on.
            unsafe {
                match make_file(template, $suffix, $flags) {
                    NOT_OURS => pass!($symbol,
                        fn(template: *mut c_char $(, $a: $t)*) -> c_int, else -1),
                    answer => ret(answer),
                }
            }
        }
    )*};
}

file_makers! {
    mkstemp, c"mkstemp", (), 0, 0;
    mkstemp64, c"mkstemp64", (), 0, 0;
    mkostemp, c"mkostemp", (flags: c_int), 0, flags;
    mkostemp64, c"mkostemp64", (flags: c_int), 0, flags;
    mkstemps, c"mkstemps", (suffix: c_int), suffix, 0;
    mkstemps64, c"mkstemps64", (suffix: c_int), suffix, 0;
    mkostemps, c"mkostemps", (suffix: c_int, flags: c_int), suffix, flags;
    mkostemps64, c"mkostemps64", (suffix: c_int, flags: c_int), suffix, flags;
}

/// # Safety
/// As `mkdtemp(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mkdtemp(template: *mut c_char) -> *mut c_char {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        match generate(template, 0, |path| {
            calls::mkdirat(libc::AT_FDCWD, path, 0o700)
        }) {
            NOT_OURS => {
                pass!(c"mkdtemp", fn(template: *mut c_char) -> *mut c_char, else null_mut())
            }
            answer if answer < 0 => null(code(answer)),
            _ => template,
        }
    }
}

/// A name that nothing has yet; nothing is made.
///
/// # Safety
/// `template` must be a writable C string.
unsafe fn unused(template: *mut c_char) -> isize {
    // SAFETY: zeroed is a valid `stat`; the caller's promise.
    unsafe {
        let mut st: libc::stat = core::mem::zeroed();
        generate(template, 0, |path| {
            let flags = libc::AT_SYMLINK_NOFOLLOW;
            match calls::newfstatat(libc::AT_FDCWD, path, &raw mut st, flags) {
                NOT_OURS => NOT_OURS,
                answer if answer >= 0 => -(libc::EEXIST as isize),
                answer if answer == -(libc::ENOENT as isize) => 0,
                answer => answer,
            }
        })
    }
}

/// # Safety
/// As `mktemp(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mktemp(template: *mut c_char) -> *mut c_char {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        match unused(template) {
            NOT_OURS => pass!(c"mktemp", fn(template: *mut c_char) -> *mut c_char, else null_mut()),
            answer if answer < 0 => {
                set_errno(code(answer));
                *template = 0;
                template
            }
            _ => template,
        }
    }
}

/// Whether `dir` is an existing directory, ours or not.
///
/// # Safety
/// `dir` must be null or a C string.
unsafe fn usable(dir: *const c_char) -> bool {
    // SAFETY: the caller's promise; zeroed is a valid `stat`.
    unsafe {
        let mut st: libc::stat = core::mem::zeroed();
        !dir.is_null()
            && stat_at(libc::AT_FDCWD, dir, &raw mut st, 0) >= 0
            && st.st_mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// Writes `dir/prefixXXXXXX` and finds it an unused name: `NOT_OURS`, 0 or `-errno`.
///
/// # Safety
/// Both must be C strings.
unsafe fn name_in(dir: *const c_char, prefix: *const c_char, out: &mut [u8; 4096]) -> isize {
    // SAFETY: lengths are checked against the buffer before the copies.
    unsafe {
        let mut n = libc::strlen(dir);
        while n > 1 && *dir.wrapping_add(n.wrapping_sub(1)) == b'/' as c_char {
            n = n.wrapping_sub(1);
        }
        let p = libc::strlen(prefix).min(5);
        if n > 4096 - 16 {
            return -(libc::ENAMETOOLONG as isize);
        }
        let at = out.as_mut_ptr();
        ptr::copy_nonoverlapping(dir.cast::<u8>(), at, n);
        *at.wrapping_add(n) = b'/';
        let name = at.wrapping_add(n).wrapping_add(1);
        ptr::copy_nonoverlapping(prefix.cast::<u8>(), name, p);
        ptr::copy_nonoverlapping(c"XXXXXX".as_ptr().cast::<u8>(), name.wrapping_add(p), 7);
        unused(at.cast())
    }
}

/// # Safety
/// As `tempnam(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn tempnam(dir: *const c_char, prefix: *const c_char) -> *mut c_char {
    let mut name = [0u8; 4096];
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let before = errno();
        let set = match libc::getauxval(libc::AT_SECURE) {
            0 => libc::getenv(c"TMPDIR".as_ptr()).cast_const(),
            _ => ptr::null(),
        };
        let place = [set, dir]
            .into_iter()
            .find(|d| usable(*d))
            .unwrap_or(c"/tmp".as_ptr());
        let given = !prefix.is_null() && *prefix != 0;
        let start = if given { prefix } else { c"file".as_ptr() };
        let answer = name_in(place, start, &mut name);
        set_errno(before);
        if answer == NOT_OURS {
            return pass!(c"tempnam",
                fn(dir: *const c_char, prefix: *const c_char) -> *mut c_char, else null_mut());
        }
        if answer < 0 {
            return null(code(answer));
        }
        libc::strdup(name.as_ptr().cast())
    }
}

/// # Safety
/// `into` must be null or have room for `L_tmpnam` (20) bytes.
unsafe fn tmp_name(into: *mut c_char) -> isize {
    let mut name = [0u8; 4096];
    // SAFETY: the caller's promise; the name is shorter than the room.
    unsafe {
        let answer = name_in(c"/tmp".as_ptr(), c"file".as_ptr(), &mut name);
        if answer >= 0 {
            ptr::copy_nonoverlapping(name.as_ptr(), into.cast::<u8>(), 20);
        }
        answer
    }
}

/// `tmpnam`'s own buffer, which its callers share, as they do libc's.
struct Shared(core::cell::UnsafeCell<[c_char; 20]>);
// SAFETY: tmpnam(NULL) is documented as not thread-safe: its callers take turns.
unsafe impl Sync for Shared {}
static SHARED: Shared = Shared(core::cell::UnsafeCell::new([0; 20]));

/// # Safety
/// As `tmpnam(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn tmpnam(into: *mut c_char) -> *mut c_char {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let room = if into.is_null() {
            SHARED.0.get().cast()
        } else {
            into
        };
        match tmp_name(room) {
            NOT_OURS => pass!(c"tmpnam", fn(into: *mut c_char) -> *mut c_char, else null_mut()),
            answer if answer < 0 => null(code(answer)),
            _ => room,
        }
    }
}

/// # Safety
/// As `tmpnam_r(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn tmpnam_r(into: *mut c_char) -> *mut c_char {
    if into.is_null() {
        return null_mut();
    }
    // SAFETY: the caller's own promises, handed on.
    unsafe { tmpnam(into) }
}
