//! Streams: `fopen` and its kin. A file of ours is opened by the call table,
//! and becomes a stream of libc's on its descriptor.

use super::exec::fd_path;
use super::fds::neutralise;
use super::grow::close;
use super::jumps;
use super::next::{code, either, errno, next, null, pass, set_errno};
use crate::calls::{self, NOT_OURS};
use core::ffi::{CStr, c_char, c_int};
use core::ptr::null_mut;
use libc::{AT_FDCWD, FILE};

/// Characters of a mode that libc looks at, after the first.
const LOOKED_AT: usize = 6;
/// Room for a mode with the name of a character set.
const ROOM: usize = 128;
const CHARACTER_SET: &CStr = c",ccs=";

type Path = *const c_char;
type Open = unsafe extern "C" fn(Path, Path) -> *mut FILE;
type Reopen = unsafe extern "C" fn(Path, Path, *mut FILE) -> *mut FILE;
type OpenDescriptor = unsafe extern "C" fn(c_int, Path) -> *mut FILE;

/// A mode as `fopen` reads it.
struct Mode {
    /// How `open` opens for it.
    flags: c_int,
    /// Writes only, and at the end.
    appends: bool,
    /// The same for a stream on a file that is open: neither new nor mapped.
    text: [c_char; ROOM],
    /// A character set is named, which only `fopen` reads.
    encoded: bool,
}

impl Mode {
    /// `None`: libc refuses it.
    ///
    /// # Safety
    /// `mode` must be a C string.
    unsafe fn parse(mode: *const c_char) -> Option<Self> {
        // SAFETY: reads stop at the NUL.
        let first = unsafe { *mode };
        let (mut access, mut flags) = match first as u8 {
            b'r' => (libc::O_RDONLY, 0),
            b'w' => (libc::O_WRONLY, libc::O_CREAT | libc::O_TRUNC),
            b'a' => (libc::O_WRONLY, libc::O_CREAT | libc::O_APPEND),
            _ => return None,
        };
        let mut last = mode;
        for i in 1..=LOOKED_AT {
            let at = mode.wrapping_add(i);
            // SAFETY: no NUL came before.
            match unsafe { *at } as u8 {
                0 => break,
                b'+' => access = libc::O_RDWR,
                b'x' => flags |= libc::O_EXCL,
                b'b' => {}
                b'e' => {
                    flags |= libc::O_CLOEXEC;
                    continue;
                }
                _ => continue,
            }
            last = at;
        }
        let mut parsed = Self {
            flags: access | flags,
            appends: first as u8 == b'a' && access == libc::O_WRONLY,
            text: [0; ROOM],
            encoded: false,
        };
        // SAFETY: the rest of the same string.
        unsafe {
            parsed.write(
                first,
                libc::strstr(last.wrapping_add(1), CHARACTER_SET.as_ptr()),
            )
        }
        .then_some(parsed)
    }

    /// Writes the text: what follows `set` (or null) is the character set.
    ///
    /// # Safety
    /// `set` must be null or a C string.
    unsafe fn write(&mut self, first: c_char, set: *const c_char) -> bool {
        let plus = self.flags & libc::O_ACCMODE == libc::O_RDWR;
        let marks = [
            Some(first),
            plus.then_some(b'+' as c_char),
            (self.flags & libc::O_CLOEXEC != 0).then_some(b'e' as c_char),
        ];
        let mut n = 0usize;
        for (mark, slot) in marks.into_iter().flatten().zip(&mut self.text) {
            *slot = mark;
            n = n.wrapping_add(1);
        }
        if set.is_null() {
            return true;
        }
        self.encoded = true;
        // SAFETY: the length is checked against the room.
        unsafe {
            let fits = libc::strlen(set).wrapping_add(n) < ROOM;
            if fits {
                libc::strcpy(self.text.as_mut_ptr().wrapping_add(n), set);
            }
            fits
        }
    }

    fn text(&self) -> *const c_char {
        self.text.as_ptr()
    }

    /// Sets a new stream's descriptor to where it begins.
    unsafe fn place(&self, fd: c_int) -> isize {
        if !self.appends {
            return 0;
        }
        // SAFETY: plain numbers.
        match unsafe { calls::lseek(fd, 0, libc::SEEK_END) } {
            answer if answer == -(libc::ESPIPE as isize) => 0,
            answer => answer,
        }
    }
}

/// A stream of libc's on `fd`, which is ours; on failure it is closed.
unsafe fn stream_on(fd: c_int, mode: &Mode) -> Result<*mut FILE, isize> {
    // SAFETY: C strings; the descriptor is our own.
    unsafe {
        let stream = if mode.encoded {
            next!(c"fopen" as Open).map(|f| f(c"/dev/null".as_ptr(), mode.text()))
        } else {
            next!(c"fdopen" as OpenDescriptor).map(|f| f(fd, mode.text()))
        };
        let Some(stream) = stream.filter(|s| !s.is_null()) else {
            let why = errno();
            close(fd);
            return Err((why as isize).wrapping_neg());
        };
        if mode.encoded {
            adopt(fd, stream, mode);
        }
        Ok(stream)
    }
}

/// Puts `fd`, which is given up, in the place of the stream's descriptor.
unsafe fn adopt(fd: c_int, stream: *mut FILE, mode: &Mode) {
    // SAFETY: both descriptors are open; the numbers stay valid.
    unsafe {
        let at = libc::fileno(stream);
        let _ = either!(dup3(fd, at, mode.flags & libc::O_CLOEXEC), libc::SYS_dup3);
        close(fd);
    }
}

/// `fopen` of a file of ours: `NOT_OURS`, a stream, or `-errno`.
unsafe fn open(path: *const c_char, mode: *const c_char) -> Result<*mut FILE, isize> {
    // SAFETY: the caller's own promises.
    unsafe {
        let mode = Mode::parse(mode).ok_or(NOT_OURS)?;
        let fd = calls::openat(AT_FDCWD, path, mode.flags, 0o666);
        if fd < 0 {
            return Err(fd);
        }
        let before = errno();
        jumps::install();
        let fd = fd as c_int;
        let placed = mode.place(fd);
        if placed < 0 && placed != NOT_OURS {
            close(fd);
            return Err(placed);
        }
        let stream = stream_on(fd, &mode)?;
        set_errno(before);
        Ok(stream)
    }
}

/// The functions that open a stream by name.
macro_rules! openers {
    ($($name:ident $symbol:literal;)*) => {$(
        /// # Safety
        /// As `fopen(3)`.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "libc calls it so")]
        pub(crate) unsafe extern "C" fn $name(
            path: *const c_char,
            mode: *const c_char,
        ) -> *mut FILE {
            // SAFETY: the caller's own promises, handed on.
            unsafe {
                match open(path, mode) {
                    Ok(stream) => stream,
                    Err(NOT_OURS) => pass!($symbol,
                        fn(path: *const c_char, mode: *const c_char) -> *mut FILE,
                        else null_mut()),
                    Err(answer) => null(code(answer)),
                }
            }
        }
    )*};
}

openers! {
    fopen c"fopen";
    fopen64 c"fopen64";
    _IO_fopen c"_IO_fopen";
}

/// Makes a descriptor of ours append, and says whether it did not before: libc
/// would tell only the kernel.
unsafe fn make_append(fd: c_int) -> bool {
    // SAFETY: plain numbers.
    unsafe {
        let flags = either!(fcntl(fd, libc::F_GETFL, 0), libc::SYS_fcntl);
        if flags < 0 || flags & libc::O_APPEND as isize != 0 {
            return false;
        }
        let flags = flags as usize | libc::O_APPEND as usize;
        either!(fcntl(fd, libc::F_SETFL, flags), libc::SYS_fcntl) >= 0
    }
}

/// The functions that make a stream on an open descriptor.
macro_rules! descriptor_openers {
    ($($name:ident $symbol:literal;)*) => {$(
        /// # Safety
        /// As `fdopen(3)`.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "libc calls it so")]
        pub(crate) unsafe extern "C" fn $name(fd: c_int, mode: *const c_char) -> *mut FILE {
            // SAFETY: the caller's own promises, handed on.
            unsafe {
                let parsed = if calls::is_ours(fd) { Mode::parse(mode) } else { None };
                let Some(parsed) = parsed else {
                    return pass!($symbol,
                        fn(fd: c_int, mode: *const c_char) -> *mut FILE, else null_mut());
                };
                jumps::install();
                if parsed.flags & libc::O_APPEND != 0 && make_append(fd) {
                    let _ = parsed.place(fd);
                }
                let mode = parsed.text();
                pass!($symbol, fn(fd: c_int, mode: *const c_char) -> *mut FILE, else null_mut())
            }
        }
    )*};
}

descriptor_openers! {
    fdopen c"fdopen";
    _IO_fdopen c"_IO_fdopen";
}

/// Opens what `freopen` names: `path`, or what the stream has open now.
unsafe fn target(path: *const c_char, fd: c_int, ours: bool, flags: c_int) -> isize {
    // SAFETY: the caller's own promises; the name of a descriptor is short.
    unsafe {
        if !path.is_null() {
            return calls::openat(AT_FDCWD, path, flags, 0o666);
        }
        if !ours {
            return NOT_OURS;
        }
        let mut name = [0 as c_char; 64];
        fd_path(fd, c"".as_ptr(), name.as_mut_ptr());
        match calls::openat(AT_FDCWD, name.as_ptr(), flags, 0o666) {
            NOT_OURS => -(libc::EBADF as isize),
            answer => answer,
        }
    }
}

/// `freopen` where the stream or the name may be ours. libc puts the new
/// descriptor in the place of the old one, and the call table would not learn
/// it: so the old one is taken away first, and ours put in its place after.
unsafe fn reopen(
    path: *const c_char,
    mode: *const c_char,
    stream: *mut FILE,
    libcs: Reopen,
) -> *mut FILE {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let before = errno();
        let fd = libc::fileno(stream);
        set_errno(before);
        let ours = fd >= 0 && calls::is_ours(fd);
        let parsed = Mode::parse(mode);
        let new = match &parsed {
            Some(mode) => target(path, fd, ours, mode.flags),
            None => NOT_OURS,
        };
        if ours {
            libc::fflush(stream);
            set_errno(before);
            neutralise(fd);
        }
        let Some(parsed) = parsed.filter(|_| new != NOT_OURS) else {
            return libcs(path, mode, stream);
        };
        if new < 0 {
            // Whatever fails closes the stream.
            libcs(c"".as_ptr(), mode, stream);
            return null(code(new));
        }
        jumps::install();
        let new = new as c_int;
        let placed = libcs(c"/dev/null".as_ptr(), parsed.text(), stream);
        if placed.is_null() {
            close(new);
            return null_mut();
        }
        let _ = parsed.place(new);
        adopt(new, stream, &parsed);
        set_errno(before);
        stream
    }
}

/// The functions that open a stream anew.
macro_rules! reopeners {
    ($($name:ident $symbol:literal;)*) => {$(
        /// # Safety
        /// As `freopen(3)`.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name(
            path: *const c_char,
            mode: *const c_char,
            stream: *mut FILE,
        ) -> *mut FILE {
            // SAFETY: the caller's own promises, handed on. The lock is held
            // so that nobody writes to what stands in between.
            unsafe {
                let Some(libcs) = next!($symbol as Reopen) else {
                    return null(libc::ENOSYS);
                };
                flockfile(stream);
                let done = reopen(path, mode, stream, libcs);
                funlockfile(stream);
                done
            }
        }
    )*};
}

unsafe extern "C" {
    fn flockfile(stream: *mut FILE);
    fn funlockfile(stream: *mut FILE);
}

reopeners! {
    freopen c"freopen";
    freopen64 c"freopen64";
}
