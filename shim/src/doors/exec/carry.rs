//! The environment that takes the shim into the next program, also when the
//! program cleared it: `LD_PRELOAD` with our library, and the `CAPIO_*`
//! variables. Copies are kept from the start of the process.

use crate::sys::syscall;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::{self, null};
use core::sync::atomic::{AtomicU8, Ordering};

/// A null-terminated list of C strings, or null for an empty one.
pub(crate) type Strings = *const *const c_char;

const PREFIX: &CStr = c"CAPIO_";
const PRELOAD: &CStr = c"LD_PRELOAD=";
const MAX_VARS: usize = 48;
const TEXT: usize = 16 * 1024;

struct Kept {
    text: [u8; TEXT],
    len: usize,
    /// Where in `text` each variable begins, as `NAME=value`.
    vars: [usize; MAX_VARS],
    count: usize,
    /// Where in `text` our library's path is; `TEXT` if it was not preloaded.
    library: usize,
}

struct Cell(UnsafeCell<Kept>);
// SAFETY: written once, by who won `STATE` from FRESH, and read after it says READY.
unsafe impl Sync for Cell {}

static KEPT: Cell = Cell(UnsafeCell::new(Kept {
    text: [0; TEXT],
    len: 0,
    vars: [0; MAX_VARS],
    count: 0,
    library: TEXT,
}));
static STATE: AtomicU8 = AtomicU8::new(FRESH);
const FRESH: u8 = 0;
const WRITING: u8 = 1;
const READY: u8 = 2;

unsafe extern "C" {
    static environ: Strings;
}

/// The program's environment as it stands.
pub(crate) fn current() -> Strings {
    // SAFETY: libc's variable, read as a whole.
    unsafe { (&raw const environ).read_volatile() }
}

impl Kept {
    /// Keeps a C string: where it begins, or None if it does not fit.
    unsafe fn keep(&mut self, s: *const c_char) -> Option<usize> {
        // SAFETY: a C string; the room is checked.
        unsafe {
            let n = libc::strlen(s).wrapping_add(1);
            let (at, end) = (self.len, self.len.checked_add(n)?);
            let room = self.text.get_mut(at..end)?;
            ptr::copy_nonoverlapping(s.cast::<u8>(), room.as_mut_ptr(), n);
            self.len = end;
            Some(at)
        }
    }

    fn at(&self, offset: usize) -> *const c_char {
        self.text.as_ptr().wrapping_add(offset).cast()
    }

    fn vars(&self) -> impl Iterator<Item = *const c_char> + '_ {
        self.vars.iter().take(self.count).map(|v| self.at(*v))
    }

    /// Our library's path, if it came by `LD_PRELOAD`.
    fn library(&self) -> Option<*const c_char> {
        (self.library < TEXT).then(|| self.at(self.library))
    }

    /// Keeps a variable, as long as there is room.
    unsafe fn keep_var(&mut self, var: *const c_char) {
        // SAFETY: the caller's C string.
        let Some(at) = (unsafe { self.keep(var) }) else {
            return;
        };
        if let Some(slot) = self.vars.get_mut(self.count) {
            *slot = at;
            self.count = self.count.wrapping_add(1);
        }
    }

    unsafe fn fill(&mut self, env: Strings) {
        // SAFETY: the caller's list of C strings.
        unsafe {
            let mut preload = null();
            for var in each(env) {
                if begins(var, PREFIX) {
                    self.keep_var(var);
                } else if begins(var, PRELOAD) {
                    preload = var;
                }
            }
            if preload.is_null() {
                return;
            }
            self.library = self.own_library(preload).unwrap_or(TEXT);
        }
    }

    /// Keeps our library's absolute path, if `preload` names it.
    unsafe fn own_library(&mut self, preload: *const c_char) -> Option<usize> {
        // SAFETY: dladdr fills what it is given, with strings that live as long
        // as the library.
        unsafe {
            let mut info: libc::Dl_info = core::mem::zeroed();
            let here: unsafe fn(Strings) = remember;
            if libc::dladdr(here as *const c_void, &raw mut info) == 0 || info.dli_fname.is_null() {
                return None;
            }
            let path = info.dli_fname;
            if !names(preload.wrapping_add(PRELOAD.count_bytes()), path) {
                return None;
            }
            let at = self.len;
            if *path != b'/' as c_char {
                let room = self.text.get_mut(at..)?;
                let n = syscall!(libc::SYS_getcwd, room.as_mut_ptr(), room.len());
                let end = at.checked_add(usize::try_from(n).ok()?)?;
                // The slash takes the place of the working directory's NUL.
                *self.text.get_mut(end.checked_sub(1)?)? = b'/';
                self.len = end;
            }
            self.keep(path)?;
            Some(at)
        }
    }
}

/// The variables of an environment.
///
/// # Safety
/// `env` must be null or a null-terminated list of C strings.
pub(super) unsafe fn each(env: Strings) -> impl Iterator<Item = *const c_char> {
    let mut at = env;
    core::iter::from_fn(move || {
        if at.is_null() {
            return None;
        }
        // SAFETY: the list ends with a null, after which `at` stays.
        let var = unsafe { *at };
        at = if var.is_null() {
            null()
        } else {
            at.wrapping_add(1)
        };
        (!var.is_null()).then_some(var)
    })
}

/// Whether `s` begins with `with`.
///
/// # Safety
/// `s` must be a C string.
pub(super) unsafe fn begins(s: *const c_char, with: &CStr) -> bool {
    // SAFETY: two C strings.
    unsafe { libc::strncmp(s, with.as_ptr(), with.count_bytes()) == 0 }
}

/// Whether two `NAME=value` strings have the same name.
unsafe fn same_name(a: *const c_char, b: *const c_char) -> bool {
    let mut i = 0usize;
    loop {
        // SAFETY: C strings, read up to the first difference, `=` or NUL.
        let (x, y) = unsafe { (*a.wrapping_add(i), *b.wrapping_add(i)) };
        if x != y || x == 0 || x == b'=' as c_char {
            return x == y;
        }
        i = i.wrapping_add(1);
    }
}

unsafe fn last_part(path: *const c_char) -> *const c_char {
    // SAFETY: a C string.
    let slash = unsafe { libc::strrchr(path, c_int::from(b'/')) };
    if slash.is_null() {
        path
    } else {
        slash.wrapping_add(1).cast_const()
    }
}

/// Whether a list of libraries (parted by `:` or blanks) has one of the file
/// name of `library`.
unsafe fn names(list: *const c_char, library: *const c_char) -> bool {
    // SAFETY: C strings; every token lies inside the list.
    unsafe {
        let wanted = last_part(library);
        let n = libc::strlen(wanted);
        let mut at = list;
        while *at != 0 {
            let len = libc::strcspn(at, c": \t\n".as_ptr());
            let tail = at.wrapping_add(len.wrapping_sub(n));
            let whole = len == n || (len > n && *tail.wrapping_sub(1) == b'/' as c_char);
            if whole && libc::memcmp(tail.cast(), wanted.cast(), n) == 0 {
                return true;
            }
            at = at.wrapping_add(len);
            at = at.wrapping_add(libc::strspn(at, c": \t\n".as_ptr()));
        }
    }
    false
}

/// Keeps what must be carried on. Call at the start of the process with its
/// environment; later calls change nothing. A process that began without
/// `CAPIO_DIR` keeps nothing: there the library does nothing.
///
/// # Safety
/// `env` must be null or a null-terminated list of C strings.
pub(crate) unsafe fn remember(env: Strings) {
    if STATE
        .compare_exchange(FRESH, WRITING, Ordering::Acquire, Ordering::Relaxed)
        .is_err()
    {
        return;
    }
    // SAFETY: this thread alone has WRITING; the caller's promise for `env`.
    unsafe {
        if each(env).any(|var| begins(var, c"CAPIO_DIR=")) {
            (*KEPT.0.get()).fill(env);
        }
    }
    STATE.store(READY, Ordering::Release);
}

fn kept() -> Option<&'static Kept> {
    if STATE.load(Ordering::Acquire) == FRESH {
        // Called before our constructor ran: by another library's.
        // SAFETY: libc's own list.
        unsafe { remember(current()) };
    }
    // SAFETY: READY: nobody writes any more.
    (STATE.load(Ordering::Acquire) == READY).then(|| unsafe { &*KEPT.0.get() })
}

/// The value that a `CAPIO_*` variable had at the start.
pub(crate) fn saved(name: &CStr) -> Option<*const c_char> {
    let n = name.count_bytes();
    // SAFETY: C strings of our own; a match of n bytes has one more.
    kept()?.vars().find_map(|var| unsafe {
        (begins(var, name) && *var.wrapping_add(n) == b'=' as c_char)
            .then(|| var.wrapping_add(n).wrapping_add(1))
    })
}

/// What an environment lacks to take us along.
pub(super) struct Plan {
    env: Strings,
    count: usize,
    missing: usize,
    /// Our library must be put into `LD_PRELOAD`, which the environment may have.
    library: Option<*const c_char>,
    preload: *const c_char,
}

impl Plan {
    /// # Safety
    /// `env` must be null or a null-terminated list of C strings that stays.
    pub(super) unsafe fn new(env: Strings) -> Self {
        let mut plan = Self {
            env,
            count: 0,
            missing: 0,
            library: None,
            preload: null(),
        };
        // SAFETY: the caller's promise.
        unsafe {
            let Some(kept) = kept() else { return plan };
            plan.count = each(env).count();
            plan.missing = kept.vars().filter(|v| lacks(env, *v)).count();
            let Some(library) = kept.library() else {
                return plan;
            };
            let preload = each(env).find(|v| begins(*v, PRELOAD)).unwrap_or(null());
            plan.preload = preload;
            let there =
                !preload.is_null() && names(preload.wrapping_add(PRELOAD.count_bytes()), library);
            plan.library = (!there).then_some(library);
        }
        plan
    }

    /// Whether the environment serves as it is.
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0 && self.library.is_none()
    }

    /// Bytes of the new `LD_PRELOAD`.
    fn text(&self) -> usize {
        let Some(library) = self.library else {
            return 0;
        };
        // SAFETY: C strings.
        let (ours, theirs) = unsafe {
            let theirs = if self.preload.is_null() {
                0
            } else {
                libc::strlen(self.preload)
            };
            (libc::strlen(library), theirs)
        };
        PRELOAD
            .count_bytes()
            .wrapping_add(ours)
            .wrapping_add(theirs)
            .wrapping_add(2)
    }

    /// Words that `write` needs.
    pub(super) fn words(&self) -> usize {
        let pointers = self.count.wrapping_add(self.missing).wrapping_add(2);
        pointers.wrapping_add(self.text().div_ceil(size_of::<usize>()))
    }

    /// Writes the completed environment.
    ///
    /// # Safety
    /// `out` must have room for `words()` words.
    pub(super) unsafe fn write(&self, out: *mut usize) -> Strings {
        let list = out.cast::<*const c_char>();
        // SAFETY: the room holds all pointers and the text behind them.
        unsafe {
            let mut n = 0usize;
            let mut push = |var: *const c_char| {
                *list.wrapping_add(n) = var;
                n = n.wrapping_add(1);
            };
            if self.library.is_some() {
                let most = self.count.wrapping_add(self.missing).wrapping_add(2);
                let text = list.wrapping_add(most).cast::<c_char>();
                self.write_preload(text);
                push(text);
            }
            for var in each(self.env) {
                if self.library.is_none() || !begins(var, PRELOAD) {
                    push(var);
                }
            }
            if let Some(kept) = kept() {
                kept.vars()
                    .filter(|v| lacks(self.env, *v))
                    .for_each(&mut push);
            }
            push(null());
        }
        list
    }

    /// # Safety
    /// `at` must have room for `text()` bytes.
    unsafe fn write_preload(&self, at: *mut c_char) {
        let Some(library) = self.library else { return };
        // SAFETY: the caller's promise; all are C strings.
        unsafe {
            libc::strcpy(at, PRELOAD.as_ptr());
            libc::strcat(at, library);
            if self.preload.is_null() {
                return;
            }
            let theirs = self.preload.wrapping_add(PRELOAD.count_bytes());
            if *theirs != 0 {
                libc::strcat(at, c":".as_ptr());
                libc::strcat(at, theirs);
            }
        }
    }
}

unsafe fn lacks(env: Strings, var: *const c_char) -> bool {
    // SAFETY: the caller's list of C strings.
    unsafe { !each(env).any(|v| same_name(v, var)) }
}
