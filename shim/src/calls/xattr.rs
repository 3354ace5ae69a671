//! Extended attributes. The coordinator has those that programs have set; for
//! what lies in the lower layer unchanged it names the place, and the kernel
//! is asked there.

use core::ffi::{c_char, c_int, c_long, c_void};

use wire::limits::{MAX_PATH, MAX_XATTR_NAME, MAX_XATTRS};
use wire::message::{Reply, Request, Target};

use super::NOT_OURS;
use super::goal::{Goal, Said, ask, goal, hand_bytes, kernel, open_at, usable};
use super::target::answer;
use crate::control;
use crate::descriptors::Kind;
use crate::place::PathArgument;
use crate::sys::syscall;
use crate::text::Text;
use crate::usercopy;

/// The longest value that any file system takes (Linux `XATTR_SIZE_MAX`).
const LONGEST: usize = 64 * 1024;

/// What is done with attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Get,
    Set,
    List,
    Remove,
}

/// A call's arguments behind the path or descriptor, as the kernel takes them.
type Rest = [usize; 4];

impl Call {
    /// The system call that takes a path.
    const fn number(self, follow: bool) -> c_long {
        match (self, follow) {
            (Self::Get, true) => libc::SYS_getxattr,
            (Self::Get, false) => libc::SYS_lgetxattr,
            (Self::Set, true) => libc::SYS_setxattr,
            (Self::Set, false) => libc::SYS_lsetxattr,
            (Self::List, true) => libc::SYS_listxattr,
            (Self::List, false) => libc::SYS_llistxattr,
            (Self::Remove, true) => libc::SYS_removexattr,
            (Self::Remove, false) => libc::SYS_lremovexattr,
        }
    }

    const fn changes(self) -> bool {
        matches!(self, Self::Set | Self::Remove)
    }
}

/// The call on what `path` names; `rest`: its further arguments.
///
/// # Safety
/// The arguments must be valid for the system call.
unsafe fn on_path(call: Call, follow: bool, path: *const c_char, rest: Rest) -> isize {
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    unsafe {
        let goal = goal(&mut room, libc::AT_FDCWD, path, flags);
        on_goal(call, &goal, follow, rest)
    }
}

/// The call on what is open at `fd`.
///
/// # Safety
/// As for [`on_path`].
unsafe fn on_descriptor(call: Call, fd: c_int, rest: Rest) -> isize {
    // Those below 0 stand for no descriptor.
    if fd < 0 {
        return NOT_OURS;
    }
    if let Err(error) = usable(fd) {
        return answer(Err(error));
    }
    // SAFETY: the caller's own promises.
    unsafe { on_goal(call, &open_at(fd), false, rest) }
}

/// # Safety
/// As for [`on_path`].
unsafe fn on_goal(call: Call, goal: &Goal<'_>, follow: bool, rest: Rest) -> isize {
    let Some(target) = goal.target(follow) else {
        return NOT_OURS;
    };
    let mut at = Text::new();
    // SAFETY: the caller's own promises.
    let said = unsafe { say(call, target, rest, &mut at) };
    if let (Err(libc::ENOENT), Goal::Descriptor(_, Kind::Lower(_) | Kind::Directory(_)), false) =
        (&said, goal, call.changes())
    {
        // Removed while it is open: the kernel has it as long as that.
        return NOT_OURS;
    }
    answer(said.and_then(|said| match said {
        Said::Value(done) => Ok(done),
        Said::Native { inode } => {
            let [a, b, c, d] = rest;
            // A path of the session's is where it ends.
            let number = call.number(follow && inode.is_none());
            // SAFETY: a path of ours; the rest is the caller's.
            kernel(unsafe { syscall!(number, at.as_ptr(), a, b, c, d) })
        }
    }))
}

/// Asks the coordinator; the kernel's path of a native answer goes to `at`.
///
/// # Safety
/// As for [`on_path`].
unsafe fn say(
    call: Call,
    target: Target<'_>,
    rest: Rest,
    at: &mut Text<MAX_PATH>,
) -> Result<Said<isize>, i32> {
    let [first, second, third, fourth] = rest;
    let done = |reply: Reply<'_>| matches!(reply, Reply::Ok).then_some(0);
    if call == Call::List {
        let thread = control::thread()?;
        let request = Request::ListXattrs { target, thread };
        // SAFETY: the caller's own promises.
        return unsafe { hand_value(&request, first as *mut u8, second, at) };
    }
    let mut name = [0; MAX_XATTR_NAME + 1];
    // SAFETY: the caller's own promises.
    let name = unsafe { read_name(&mut name, first as *const c_char) }?;
    match call {
        Call::Get => {
            let thread = control::thread()?;
            let request = Request::GetXattr {
                target,
                name,
                thread,
            };
            // SAFETY: the caller's own promises.
            unsafe { hand_value(&request, second as *mut u8, third, at) }
        }
        Call::Set => {
            let flags = fourth as u32;
            // SAFETY: the caller's own promises.
            let value = unsafe { Value::read(second as *const u8, third) }?;
            let request = Request::SetXattr {
                target,
                name,
                value: value.bytes(),
                flags,
            };
            ask(&request, at, done)
        }
        Call::Remove | Call::List => ask(&Request::RemoveXattr { target, name }, at, done),
    }
}

/// Asks for a value and puts it where the caller wants it: `n` bytes at most;
/// 0: only its length is told.
///
/// # Safety
/// `to` may be any address where the caller may write `n` bytes.
unsafe fn hand_value(
    request: &Request<'_>,
    to: *mut u8,
    n: usize,
    at: &mut Text<MAX_PATH>,
) -> Result<Said<isize>, i32> {
    let hand = |value: &[u8]| {
        if n != 0 && value.len() > n {
            return Err(libc::ERANGE);
        }
        if n != 0 {
            // SAFETY: the caller's word, and no more than `n` bytes.
            unsafe { hand_bytes(value, to) }?;
        }
        Ok(value.len() as isize)
    };
    let said = ask(request, at, |reply| match reply {
        Reply::Value(value) => Some(hand(value)),
        _ => None,
    })?;
    Ok(match said {
        Said::Value(length) => Said::Value(length?),
        Said::Native { inode } => Said::Native { inode },
    })
}

/// The name of an attribute, copied from the caller.
///
/// # Errors
/// `EFAULT`, or `ERANGE` for one that is empty or too long.
///
/// # Safety
/// `name` may be any address whose content is the caller's.
unsafe fn read_name(
    room: &mut [u8; MAX_XATTR_NAME + 1],
    name: *const c_char,
) -> Result<&[u8], i32> {
    // SAFETY: the caller's word; a fault is no harm.
    match unsafe { usercopy::copy_cstr(room, name) } {
        length if length > 0 => room.get(..length as usize).ok_or(libc::ERANGE),
        length if length == -(libc::EFAULT as isize) => Err(libc::EFAULT),
        _ => Err(libc::ERANGE),
    }
}

/// A value copied from the caller: too long for many a stack, so it has memory
/// of its own.
struct Value {
    at: *mut u8,
    length: usize,
}

impl Value {
    /// # Errors
    /// `E2BIG`, `ENOSPC` for more than the session keeps, `EFAULT`, `ENOMEM`.
    ///
    /// # Safety
    /// `from` may be any address whose content is the caller's.
    unsafe fn read(from: *const u8, length: usize) -> Result<Self, i32> {
        if length > LONGEST {
            return Err(libc::E2BIG);
        }
        if length > MAX_XATTRS {
            return Err(libc::ENOSPC);
        }
        let value = Self::with_room(length)?;
        // SAFETY: there is that much room; a fault in the source is no harm.
        let left = unsafe { usercopy::copy(value.at, from, length) };
        (left == 0).then_some(value).ok_or(libc::EFAULT)
    }

    fn with_room(length: usize) -> Result<Self, i32> {
        if length == 0 {
            let at = core::ptr::dangling_mut();
            return Ok(Self { at, length });
        }
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping, unmapped when dropped.
        let at = kernel(unsafe { syscall!(libc::SYS_mmap, 0, length, rights, kind, -1isize, 0) })?;
        let at = at as *mut u8;
        Ok(Self { at, length })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is that long, or the length is 0.
        unsafe { core::slice::from_raw_parts(self.at, self.length) }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        if self.length != 0 {
            // SAFETY: our own mapping, used by nobody else.
            unsafe { syscall!(libc::SYS_munmap, self.at, self.length) };
        }
    }
}

macro_rules! calls {
    ($($name:ident = $on:ident($call:expr $(, follow $follow:literal)?),
        ($of:ident: $of_type:ty $(, $arg:ident: $type:ty)*);)*) => {$(
        /// As the system call of this name.
        ///
        /// # Safety
        /// The arguments must be valid for the system call of this name.
        pub(crate) unsafe fn $name($of: $of_type $(, $arg: $type)*) -> isize {
            let mut rest = [0; 4];
            rest.iter_mut()
                .zip([$($arg as usize),*])
                .for_each(|(slot, argument)| *slot = argument);
            // SAFETY: the caller's own promises.
            unsafe { $on($call, $($follow,)? $of, rest) }
        }
    )*};
}

calls! {
    getxattr = on_path(Call::Get, follow true),
        (path: *const c_char, name: *const c_char, value: *mut c_void, n: usize);
    lgetxattr = on_path(Call::Get, follow false),
        (path: *const c_char, name: *const c_char, value: *mut c_void, n: usize);
    fgetxattr = on_descriptor(Call::Get),
        (fd: c_int, name: *const c_char, value: *mut c_void, n: usize);
    setxattr = on_path(Call::Set, follow true),
        (path: *const c_char, name: *const c_char, value: *const c_void, n: usize, flags: c_int);
    lsetxattr = on_path(Call::Set, follow false),
        (path: *const c_char, name: *const c_char, value: *const c_void, n: usize, flags: c_int);
    fsetxattr = on_descriptor(Call::Set),
        (fd: c_int, name: *const c_char, value: *const c_void, n: usize, flags: c_int);
    listxattr = on_path(Call::List, follow true),
        (path: *const c_char, list: *mut c_char, n: usize);
    llistxattr = on_path(Call::List, follow false),
        (path: *const c_char, list: *mut c_char, n: usize);
    flistxattr = on_descriptor(Call::List),
        (fd: c_int, list: *mut c_char, n: usize);
    removexattr = on_path(Call::Remove, follow true),
        (path: *const c_char, name: *const c_char);
    lremovexattr = on_path(Call::Remove, follow false),
        (path: *const c_char, name: *const c_char);
    fremovexattr = on_descriptor(Call::Remove),
        (fd: c_int, name: *const c_char);
}
