//! Extended attributes. What lies in the cache has none and takes none: `get`
//! is `ENODATA`, `list` is empty, `set` is `ENOTSUP`, so that `ls -l` and
//! `cp -a` are quiet. Those of the lower layer are readable, but not changed:
//! a change would outlive a run that fails.

use core::ffi::{c_char, c_int, c_long, c_void};

use wire::limits::MAX_PATH;
use wire::message::{Name, Reply, Request};

use super::NOT_OURS;
use super::goal::{Goal, Said, ask, goal, kernel, usable};
use super::target::answer;
use crate::descriptors::{self, Kind};
use crate::place::PathArgument;
use crate::sys::syscall;
use crate::text::Text;

/// What is done with attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Get,
    Set,
    List,
    Remove,
}

/// Where a path's attributes are.
enum Place {
    /// Nowhere: a file in the cache.
    Cache,
    /// In the kernel, by the path in the buffer.
    Kernel {
        /// The file is the session's all the same.
        lower: bool,
    },
}

impl Call {
    /// The answer where there are no attributes.
    const fn without(self) -> Result<isize, i32> {
        match self {
            Self::Get | Self::Remove => Err(libc::ENODATA),
            Self::Set => Err(libc::ENOTSUP),
            Self::List => Ok(0),
        }
    }

    const fn changes(self) -> bool {
        matches!(self, Self::Set | Self::Remove)
    }

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
}

/// The call on what `path` names; `rest`: its further arguments.
///
/// # Safety
/// The arguments must be valid for the system call.
unsafe fn on_path(call: Call, follow: bool, path: *const c_char, rest: [usize; 4]) -> isize {
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    match unsafe { goal(&mut room, libc::AT_FDCWD, path, flags) } {
        Goal::Elsewhere => NOT_OURS,
        // The kernel finds the file by itself.
        Goal::Descriptor(_, Kind::Lower(_)) if !call.changes() => NOT_OURS,
        Goal::Descriptor(..) => answer(call.without()),
        Goal::Name(name) => {
            let mut at = Text::new();
            answer(match find(name, follow, &mut at) {
                Ok(Place::Kernel { lower }) if !(lower && call.changes()) => {
                    let [a, b, c, d] = rest;
                    let number = call.number(follow);
                    // SAFETY: a path of ours; the rest is the caller's.
                    kernel(unsafe { syscall!(number, at.as_ptr(), a, b, c, d) })
                }
                Ok(_) => call.without(),
                Err(error) => Err(error),
            })
        }
    }
}

/// Where the attributes of `name` are.
///
/// # Errors
/// Those of the path.
fn find(name: Name<'_>, follow: bool, at: &mut Text<MAX_PATH>) -> Result<Place, i32> {
    let place = |said| match said {
        Said::Value(()) => Place::Cache,
        Said::Native { inode } => Place::Kernel {
            lower: inode.is_some(),
        },
    };
    if !follow {
        let link = ask(&Request::Readlink { name }, at, |reply| {
            matches!(reply, Reply::Path(_)).then_some(())
        });
        match link {
            // Not a symbolic link.
            Err(libc::EINVAL) => {}
            link => return link.map(place),
        }
    }
    let directory = false;
    match ask(&Request::Enter { name, directory }, at, |_| None) {
        // In the cache, or special.
        Err(libc::ENOEXEC) => Ok(Place::Cache),
        entered => entered.map(place),
    }
}

/// The call on what is open at `fd`.
fn on_descriptor(call: Call, fd: c_int) -> isize {
    match descriptors::get(fd) {
        Kind::None => NOT_OURS,
        Kind::Lower(_) if !call.changes() => NOT_OURS,
        _ => answer(usable(fd).and_then(|()| call.without())),
    }
}

macro_rules! on_paths {
    ($($name:ident = $call:expr, follow $follow:literal, ($($arg:ident: $type:ty),*);)*) => {$(
        /// As the system call of this name.
        ///
        /// # Safety
        /// The arguments must be valid for the system call of this name.
        pub(crate) unsafe fn $name(path: *const c_char, $($arg: $type),*) -> isize {
            let mut rest = [0; 4];
            rest.iter_mut()
                .zip([$($arg as usize),*])
                .for_each(|(slot, argument)| *slot = argument);
            // SAFETY: the caller's own promises.
            unsafe { on_path($call, $follow, path, rest) }
        }
    )*};
}

on_paths! {
    getxattr = Call::Get, follow true, (name: *const c_char, value: *mut c_void, n: usize);
    lgetxattr = Call::Get, follow false, (name: *const c_char, value: *mut c_void, n: usize);
    setxattr = Call::Set, follow true,
        (name: *const c_char, value: *const c_void, n: usize, flags: c_int);
    lsetxattr = Call::Set, follow false,
        (name: *const c_char, value: *const c_void, n: usize, flags: c_int);
    listxattr = Call::List, follow true, (list: *mut c_char, n: usize);
    llistxattr = Call::List, follow false, (list: *mut c_char, n: usize);
    removexattr = Call::Remove, follow true, (name: *const c_char);
    lremovexattr = Call::Remove, follow false, (name: *const c_char);
}

macro_rules! on_descriptors {
    ($($name:ident = $call:expr, ($($arg:ident: $type:ty),*);)*) => {$(
        /// As the system call of this name.
        ///
        /// # Safety
        /// The arguments must be valid for the system call of this name.
        pub(crate) unsafe fn $name(fd: c_int, $($arg: $type),*) -> isize {
            on_descriptor($call, fd)
        }
    )*};
}

on_descriptors! {
    fgetxattr = Call::Get, (_name: *const c_char, _value: *mut c_void, _n: usize);
    fsetxattr = Call::Set, (_name: *const c_char, _value: *const c_void, _n: usize, _flags: c_int);
    flistxattr = Call::List, (_list: *mut c_char, _n: usize);
    fremovexattr = Call::Remove, (_name: *const c_char);
}
