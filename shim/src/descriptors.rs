//! What each descriptor of this process is. The table is a cache of what the
//! kernel knows: the name of an open file in `/proc/self/fd` tells the same.

use core::ffi::{c_char, c_int};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

use wire::limits::{MAX_DESCRIPTORS, MAX_PATH};
use wire::place as names;

use crate::session::{Ofd, Session};
use crate::sys::syscall;
use crate::text::{self, Text};
use crate::{fork, place};

static TABLE: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
/// No descriptor from here on is in the table.
static END: AtomicU32 = AtomicU32::new(0);

/// What a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Not of the session.
    None,
    /// An open file description in shared memory.
    Ofd {
        /// Its records' index.
        id: u32,
        /// Its generation when it was opened.
        generation: u32,
    },
    /// A shadow directory, by inode.
    Directory(u64),
    /// A file of the lower layer that the session shows with this inode;
    /// 0: not asked yet.
    Lower(u64),
}

impl Kind {
    /// ```text
    /// bits 0-1    0 none, 1 OFD, 2 directory, 3 lower
    /// bits 2-31   OFD: index           bits 2-63  others: inode
    /// bits 32-63  OFD: generation
    /// ```
    fn pack(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Ofd { id, generation } => (u64::from(generation) << 32) | u64::from(id << 2) | 1,
            Self::Directory(inode) => (inode << 2) | 2,
            Self::Lower(inode) => (inode << 2) | 3,
        }
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        match word & 3 {
            0 => Self::None,
            1 => Self::Ofd {
                id: word as u32 >> 2,
                generation: (word >> 32) as u32,
            },
            2 => Self::Directory(word >> 2),
            _ => Self::Lower(word >> 2),
        }
    }
}

/// The table's entry of `fd`.
#[inline(always)]
fn slot(fd: c_int) -> Option<&'static AtomicU64> {
    let mut table = TABLE.load(Acquire);
    if table.is_null() {
        table = late_table();
    }
    if table.is_null() || fd.cast_unsigned() >= MAX_DESCRIPTORS {
        return None;
    }
    // SAFETY: the table has MAX_DESCRIPTORS entries and stays mapped.
    Some(unsafe { &*table.add(fd as usize) })
}

/// The table when it was not there: a call came before the constructor, or
/// nothing is taken over.
#[cold]
fn late_table() -> *mut AtomicU64 {
    place::get();
    TABLE.load(Acquire)
}

/// Gives the process its table, for ever.
///
/// # Safety
/// `table` must be room for `MAX_DESCRIPTORS` words, all zero, readable and
/// writable, and stay mapped.
pub(crate) unsafe fn set_table(table: *mut u8) {
    TABLE.store(table.cast(), Release);
}

/// What `fd` is.
#[inline(always)]
pub(crate) fn get(fd: c_int) -> Kind {
    let Some(slot) = slot(fd) else {
        return Kind::None;
    };
    if fork::in_vfork_child() {
        // Its descriptors are its own, the table is its parent's.
        return ask(fd);
    }
    Kind::unpack(slot.load(Acquire))
}

/// Records of open file description `id`, unless it is another one by now:
/// then the descriptor was closed without our knowledge.
#[inline(always)]
pub(crate) fn ofd_of(session: Session, id: u32, generation: u32) -> Option<Ofd> {
    session
        .ofd(id)
        .filter(|ofd| ofd.id.generation == generation)
}

/// Notes what `fd` is. A child of vfork notes nothing: see [`get`].
pub(crate) fn set(fd: c_int, kind: Kind) {
    if fork::in_vfork_child() {
        return;
    }
    if let Some(slot) = slot(fd) {
        if kind != Kind::None {
            END.fetch_max(fd.cast_unsigned().wrapping_add(1), Relaxed);
        }
        slot.store(kind.pack(), Release);
    }
}

/// Forgets all from `first` to `last`.
pub(crate) fn forget(first: u32, last: u32) {
    if fork::in_vfork_child() {
        return;
    }
    let end = last.min(END.load(Relaxed));
    (first..=end)
        .filter_map(|fd| slot(fd.cast_signed()))
        .filter(|slot| slot.load(Relaxed) != 0)
        .for_each(|slot| slot.store(0, Release));
}

/// `st_ino` of `path` from `dirfd` (the directory itself if it is empty).
pub(crate) fn inode_of(dirfd: c_int, path: *const c_char) -> Option<u64> {
    status(dirfd, path).map(|st| st.st_ino)
}

/// Type and permissions of what is open at `fd`.
pub(crate) fn mode_of(fd: c_int) -> Option<libc::mode_t> {
    status(fd, c"".as_ptr()).map(|st| st.st_mode)
}

/// `st_dev` of what is open at `fd`; 0: nothing.
pub(crate) fn device_of(fd: c_int) -> u64 {
    status(fd, c"".as_ptr()).map_or(0, |st| st.st_dev)
}

/// The kernel's `fstatat` with AT_EMPTY_PATH.
pub(crate) fn status(dirfd: c_int, path: *const c_char) -> Option<libc::stat> {
    let mut st = core::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills `st` when it returns 0; `path` is a string of ours.
    unsafe {
        let answer = syscall!(
            libc::SYS_newfstatat,
            dirfd,
            path,
            st.as_mut_ptr(),
            libc::AT_EMPTY_PATH
        );
        (answer == 0).then(|| st.assume_init())
    }
}

/// The name that the kernel has for `fd`; empty: none.
pub(crate) fn name_of(fd: c_int, name: &mut Text<MAX_PATH>) {
    let mut link = Text::<32>::new();
    link.push(b"/proc/self/fd/");
    link.push_number(fd.cast_unsigned());
    let link = link.as_ptr();
    // SAFETY: a string of ours; the kernel writes as many bytes as it says.
    unsafe {
        name.fill(|room| {
            let (start, length) = (room.as_mut_ptr(), room.len());
            syscall!(libc::SYS_readlinkat, libc::AT_FDCWD, link, start, length)
        });
    }
}

/// Whether `fd` is of the session, by the kernel: a taken-over file, a shadow
/// directory, or a file below `CAPIO_DIR` on disk.
pub(crate) fn is_of_session(fd: c_int) -> bool {
    place::get().is_some_and(|place| {
        let mut name = Text::<MAX_PATH>::new();
        name_of(fd, &mut name);
        let name = name.bytes();
        name.starts_with(place.session.bytes()) || place.canonical_has(name)
    })
}

/// What `fd` is, by the kernel.
#[cold]
pub(crate) fn ask(fd: c_int) -> Kind {
    let Some(place) = place::get() else {
        return Kind::None;
    };
    let mut name = Text::<MAX_PATH>::new();
    name_of(fd, &mut name);
    let name = name.bytes();
    if place.behind_shadow(name).is_some() {
        return inode_of(fd, c"".as_ptr()).map_or(Kind::None, Kind::Directory);
    }
    if let Some(id) = ofd_name(name, place.session.bytes()) {
        return Session::get()
            .and_then(|session| session.ofd(id))
            .map_or(Kind::None, |ofd| Kind::Ofd {
                id,
                generation: ofd.id.generation,
            });
    }
    if place.canonical_has(name) {
        Kind::Lower(0)
    } else {
        Kind::None
    }
}

/// The number in `SESSION/ofd/NUMBER` or `SESSION/ofd/NUMBER (deleted)`.
pub(crate) fn ofd_name(name: &[u8], session: &[u8]) -> Option<u32> {
    let rest = name.strip_prefix(session)?.strip_prefix(b"/")?;
    let rest = rest
        .strip_prefix(names::OPEN.as_bytes())?
        .strip_prefix(b"/")?;
    let (id, rest) = text::number(rest)?;
    (rest.is_empty() || rest == b" (deleted)").then_some(id)
}

/// Looks at every descriptor that the process was started with.
pub(crate) fn scan() {
    each_open(|fd| {
        set(fd, ask(fd));
        false
    });
}

/// Whether one of them belongs to the session, by its name alone: the session
/// need not be mapped yet.
pub(crate) fn inherits_ours() -> bool {
    inherits(|place, name| is_own(place, name) || place.canonical_has(name))
}

/// Whether one of them is of a session, which must have been there.
pub(crate) fn inherits_session() -> bool {
    inherits(is_own)
}

fn is_own(place: &place::Place, name: &[u8]) -> bool {
    let rest = name.strip_prefix(place.session.bytes());
    rest.is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn inherits(which: impl Fn(&place::Place, &[u8]) -> bool) -> bool {
    let mut found = false;
    each_open(|fd| {
        let mut name = Text::<MAX_PATH>::new();
        name_of(fd, &mut name);
        found = place::fixed().is_some_and(|place| which(place, name.bytes()));
        found
    });
    found
}

/// Whether this process may have a descriptor of the session.
pub(crate) fn has_some() -> bool {
    // A child of vfork notes nothing.
    END.load(Relaxed) != 0 || fork::in_vfork_child()
}

/// Calls `look` with every descriptor that may be ours, until it says stop.
pub(crate) fn each_open(mut look: impl FnMut(c_int) -> bool) {
    let Some(place) = place::fixed() else { return };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let path = c"/proc/self/fd".as_ptr();
    // SAFETY: a string of ours.
    let directory = unsafe { syscall!(libc::SYS_openat, libc::AT_FDCWD, path, flags, 0) };
    if directory < 0 {
        return;
    }
    let directory = directory as c_int;
    // The session's files lie on one file system, those of `CAPIO_DIR` on
    // another.
    let devices = [place.session_device(), place.device];
    let mut entries = Text::<2048>::new();
    loop {
        // SAFETY: the kernel writes as many bytes as it says.
        unsafe {
            entries.fill(|room| {
                let (start, length) = (room.as_mut_ptr(), room.len());
                syscall!(libc::SYS_getdents64, directory, start, length)
            });
        }
        let bytes = entries.bytes();
        if bytes.is_empty() || scan_entries(bytes, directory, devices, &mut look) {
            break;
        }
    }
    // SAFETY: our own descriptor.
    unsafe { syscall!(libc::SYS_close, directory) };
}

/// `linux_dirent64`: length of the record at 16, name from 19 on.
/// Whether `look` said stop.
fn scan_entries(
    entries: &[u8],
    directory: c_int,
    devices: [u64; 2],
    look: &mut impl FnMut(c_int) -> bool,
) -> bool {
    let mut rest = entries;
    while let Some(&[low, high]) = rest.get(16..18) {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let Some((entry, tail)) = rest.split_at_checked(length.max(19)) else {
            break;
        };
        if let Some((fd, _)) = entry.get(19..).and_then(text::number) {
            let fd = fd.cast_signed();
            if fd != directory && may_be_ours(fd, devices) && look(fd) {
                return true;
            }
        }
        rest = tail;
    }
    false
}

/// Whether it is worth asking for the name of `fd`: a file or directory on one
/// of `devices`.
fn may_be_ours(fd: c_int, devices: [u64; 2]) -> bool {
    status(fd, c"".as_ptr()).is_some_and(|st| {
        let format = st.st_mode & libc::S_IFMT;
        devices.contains(&st.st_dev) && (format == libc::S_IFREG || format == libc::S_IFDIR)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_packing() {
        for kind in [
            Kind::None,
            Kind::Ofd {
                id: 65535,
                generation: u32::MAX,
            },
            Kind::Directory(1 << 60),
            Kind::Lower(0),
        ] {
            assert_eq!(Kind::unpack(kind.pack()), kind);
        }
    }

    #[test]
    fn open_file_descriptions_are_recognised_after_exec() {
        let session = b"/dev/shm/capio-0-1";
        let of = |name: &[u8]| ofd_name(name, session);
        assert_eq!(of(b"/dev/shm/capio-0-1/ofd/17"), Some(17));
        assert_eq!(of(b"/dev/shm/capio-0-1/ofd/17 (deleted)"), Some(17));
        assert_eq!(of(b"/dev/shm/capio-0-1/res/17"), None);
        assert_eq!(of(b"/dev/shm/capio-0-12/ofd/17"), None);
        assert_eq!(of(b"/dev/shm/capio-0-1/ofd/17x"), None);
    }
}
