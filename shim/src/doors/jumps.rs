//! libc's streams: the functions by which they read, write, seek, close and
//! ask are slots of two exported tables, and are replaced there.
//!
//! So every stream on one of our descriptors is served, however it came to be:
//! `stdout` as a shell has redirected it, `fdopen`, C++ streams.

use super::hook::Answer;
use super::next::{code, set_errno};
use crate::calls::{self, NOT_OURS};
use crate::sys::syscall;
use core::ffi::{CStr, c_int, c_void};
use core::mem::transmute;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use libc::{FILE, dlsym};

/// Slots before the first that is replaced.
const FIRST: usize = 14;
/// The replaced ones follow each other: read, write, seek, close, stat.
const SLOTS: usize = 5;
const PAGE: usize = 4096;

const TABLES: [&CStr; 2] = [c"_IO_file_jumps", c"_IO_wfile_jumps"];
const OLD: [&CStr; SLOTS] = [
    c"_IO_file_read",
    c"_IO_file_write",
    c"_IO_file_seek",
    c"_IO_file_close",
    c"_IO_file_stat",
];

/// What the slots held; written before the first of ours is in a table.
static WAS: [AtomicPtr<c_void>; SLOTS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; SLOTS];

const FRESH: u32 = 0;
const INSTALLING: u32 = 1;
const INSTALLED: u32 = 2;
const STRANGE: u32 = 3;
static STATE: AtomicU32 = AtomicU32::new(FRESH);

/// The part of `struct _IO_FILE` that its functions need.
#[repr(C)]
struct Stream {
    flags: c_int,
    _pointers: [usize; 13],
    fileno: c_int,
    flags2: c_int,
    _until_offset: [u64; 3],
    offset: i64,
}

const _: () = assert!(
    core::mem::offset_of!(Stream, fileno) == 112 && core::mem::offset_of!(Stream, offset) == 144
);

/// An error happened on the stream.
const ERR_SEEN: c_int = 0x20;

unsafe extern "C" {
    static stdin: *mut FILE;
    static stdout: *mut FILE;
    static stderr: *mut FILE;
}

/// Whether the streams are served: false on a libc whose tables do not hold
/// what they should. Before [`install`] false, too.
pub(crate) fn verified() -> bool {
    STATE.load(Ordering::Acquire) == INSTALLED
}

/// Replaces the slots, once. Does nothing on a libc that it does not know.
pub(crate) fn install() {
    let free = STATE.compare_exchange(FRESH, INSTALLING, Ordering::Acquire, Ordering::Relaxed);
    if free.is_err() {
        return;
    }
    // SAFETY: the tables are libc's, and were found to be what we know.
    let done = unsafe { find_old() && layout_is_known() && replace_all() };
    let state = if done { INSTALLED } else { STRANGE };
    STATE.store(state, Ordering::Release);
}

/// Looks up what the slots should hold.
unsafe fn find_old() -> bool {
    OLD.iter().zip(&WAS).all(|(name, was)| {
        // SAFETY: a C string.
        let function = unsafe { dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        was.store(function, Ordering::Release);
        !function.is_null()
    })
}

/// Whether a stream has its descriptor where we look for it.
unsafe fn layout_is_known() -> bool {
    // SAFETY: libc's own streams, larger than the part that is read.
    unsafe {
        [stdin, stdout, stderr].into_iter().all(|stream| {
            let before = super::next::errno();
            let fd = libc::fileno(stream);
            set_errno(before);
            let held = (*stream.cast::<Stream>()).fileno;
            fd == held || (fd == -1 && held < 0)
        })
    }
}

/// The first of the replaced slots of a table of libc.
fn slots_of(table: &CStr) -> Option<*mut *mut c_void> {
    // SAFETY: a C string.
    let table = unsafe { dlsym(libc::RTLD_NEXT, table.as_ptr()) }.cast::<*mut c_void>();
    (!table.is_null()).then_some(table.wrapping_add(FIRST))
}

/// Replaces the slots of both tables, if all of them hold what they should.
unsafe fn replace_all() -> bool {
    let [Some(narrow), Some(wide)] = TABLES.map(slots_of) else {
        return false;
    };
    // SAFETY: tables of libc, which have these slots.
    unsafe { holds_old(narrow) && holds_old(wide) && replace([narrow, wide]) }
}

unsafe fn holds_old(slots: *mut *mut c_void) -> bool {
    (0..SLOTS).zip(&WAS).all(|(i, was)| {
        // SAFETY: a slot of the table.
        unsafe { *slots.wrapping_add(i) == was.load(Ordering::Acquire) }
    })
}

/// The tables are in memory that libc has made read-only after relocation, as
/// is all that lies between them.
unsafe fn replace(tables: [*mut *mut c_void; 2]) -> bool {
    let ours: [*mut c_void; SLOTS] = [
        read as *mut c_void,
        write as *mut c_void,
        seek as *mut c_void,
        close as *mut c_void,
        status as *mut c_void,
    ];
    let [a, b] = tables;
    let start = a.min(b) as usize & !(PAGE - 1);
    let end = a.max(b).wrapping_add(SLOTS) as usize;
    let length = end.wrapping_sub(start);
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the slots lie in these pages; other threads see the old function
    // or the new one.
    unsafe {
        if syscall!(libc::SYS_mprotect, start, length, writable) != 0 {
            return false;
        }
        for slots in tables {
            for (i, function) in ours.into_iter().enumerate() {
                AtomicPtr::from_ptr(slots.wrapping_add(i)).store(function, Ordering::Release);
            }
        }
        syscall!(libc::SYS_mprotect, start, length, libc::PROT_READ);
    }
    true
}

/// Calls what slot `$i` held.
macro_rules! was {
    ($i:literal as fn($($type:ty),*) -> $ret:ty: $($arg:expr),*) => {{
        let function = WAS.get($i).map_or(core::ptr::null_mut(), |f| f.load(Ordering::Relaxed));
        transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> $ret>(function)($($arg),*)
    }};
}

unsafe fn descriptor(stream: *mut FILE) -> c_int {
    // SAFETY: slots are called with libc's streams.
    unsafe { (*stream.cast::<Stream>()).fileno }
}

unsafe extern "C" fn read(stream: *mut FILE, buf: *mut c_void, n: isize) -> isize {
    // SAFETY: libc's own arguments, handed on.
    unsafe {
        match calls::read(descriptor(stream), buf, n as usize) {
            NOT_OURS => was!(0 as fn(*mut FILE, *mut c_void, isize) -> isize: stream, buf, n),
            answer => Answer::of(answer),
        }
    }
}

/// Writes all, unless an error stops it; tells how much.
unsafe extern "C" fn write(stream: *mut FILE, data: *const c_void, n: isize) -> isize {
    let mut done = 0isize;
    // SAFETY: libc's own arguments, handed on; the data has n bytes.
    unsafe {
        while done < n {
            let rest = data.wrapping_byte_offset(done);
            let left = n.wrapping_sub(done);
            let answer = match calls::write(descriptor(stream), rest, left as usize) {
                NOT_OURS => {
                    let more = was!(1 as fn(*mut FILE, *const c_void, isize) -> isize:
                        stream, rest, left);
                    return done.wrapping_add(more);
                }
                0 => -(libc::EIO as isize),
                answer => answer,
            };
            let s = stream.cast::<Stream>();
            if answer < 0 {
                set_errno(code(answer));
                (*s).flags |= ERR_SEEN;
                break;
            }
            done = done.wrapping_add(answer);
            if (*s).offset >= 0 {
                (*s).offset = (*s).offset.wrapping_add(answer as i64);
            }
        }
    }
    done
}

unsafe extern "C" fn seek(stream: *mut FILE, offset: i64, whence: c_int) -> i64 {
    // SAFETY: libc's own arguments, handed on.
    unsafe {
        match calls::lseek(descriptor(stream), offset, whence) {
            NOT_OURS => was!(2 as fn(*mut FILE, i64, c_int) -> i64: stream, offset, whence),
            answer => Answer::of(answer),
        }
    }
}

unsafe extern "C" fn close(stream: *mut FILE) -> c_int {
    // SAFETY: libc's own arguments, handed on.
    unsafe {
        match calls::close(descriptor(stream)) {
            NOT_OURS => was!(3 as fn(*mut FILE) -> c_int: stream),
            answer => Answer::of(answer),
        }
    }
}

unsafe extern "C" fn status(stream: *mut FILE, st: *mut c_void) -> c_int {
    // SAFETY: libc's own arguments, handed on.
    unsafe {
        match calls::fstat(descriptor(stream), st.cast()) {
            NOT_OURS => was!(4 as fn(*mut FILE, *mut c_void) -> c_int: stream, st),
            answer => Answer::of(answer),
        }
    }
}
