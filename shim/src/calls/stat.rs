//! The flavours of `stat`, and of `statfs`.

use core::ffi::{c_char, c_int};
use core::mem::{MaybeUninit, zeroed};
use core::sync::atomic::Ordering::Relaxed;

use wire::layout::WAIT_STREAM;
use wire::limits::{MAX_FILES, MAX_PATH};
use wire::message::{Attributes, Name, Reply, Request};

use super::NOT_OURS;
use super::goal::{Goal, Said, ask, goal, hand_over, kernel, known_flags, look_for, lower_inode};
use super::known::{self, Look};
use super::mapped;
use super::target::{Target, answer, target};
use crate::clock;
use crate::control;
use crate::descriptors::{self, Kind};
use crate::place::PathArgument;
use crate::session::{File, Session};
use crate::sys::syscall;
use crate::text::Text;
use crate::threads::Hold;

/// `st_blksize`.
const BLOCK: i64 = 4096;
/// Unit of `st_blocks`.
const SECTOR: u64 = 512;
/// `f_type` of ext4: programs that know it take it for a local file system.
const EXT4: i64 = 0xef53;
/// Flags of `newfstatat(2)` and `statx(2)`.
const STAT_FLAGS: c_int = libc::AT_SYMLINK_NOFOLLOW
    | libc::AT_NO_AUTOMOUNT
    | libc::AT_EMPTY_PATH
    | libc::AT_STATX_SYNC_TYPE;
/// `MAXNAMLEN`.
const NAME_MAX: i64 = 255;

/// Where attributes come from.
enum Source {
    /// From the session.
    Session(Attributes),
    /// From the kernel, by this descriptor, or by the path in the buffer when
    /// it is `AT_FDCWD`; with the inode to show when it is the session's.
    Kernel(c_int, Option<u64>),
}

/// Attributes of a goal; a path of the kernel goes to `path`.
fn source(goal: &Goal<'_>, follow: bool, path: &mut Text<MAX_PATH>) -> Result<Source, i32> {
    match *goal {
        Goal::Descriptor(fd, Kind::Ofd { .. }) if let Some(target) = target(fd) => {
            attributes(target).map(Source::Session)
        }
        // Closed without our knowledge, or else left to the kernel.
        Goal::Descriptor(fd, kind @ Kind::Ofd { .. }) if descriptors::get(fd) != kind => {
            Err(libc::EBADF)
        }
        Goal::Descriptor(fd, Kind::Lower(inode)) => {
            Ok(Source::Kernel(fd, Some(lower_inode(fd, inode))))
        }
        _ => {
            let target = goal.target(follow).ok_or(libc::EIO)?;
            let thread = control::thread()?;
            let request = Request::Stat { target, thread };
            let said = ask(&request, path, |reply| match reply {
                Reply::Attributes(attributes) => Some(attributes),
                _ => None,
            });
            if let (Err(libc::ENOENT), Goal::Descriptor(fd, Kind::Directory(inode))) = (&said, goal)
            {
                // Removed while it is open: the shadow lives as long as that.
                return Ok(Source::Kernel(*fd, Some(*inode)));
            }
            let said = said?;
            Ok(match said {
                Said::Value(attributes) => Source::Session(attributes),
                Said::Native { inode } => Source::Kernel(libc::AT_FDCWD, inode),
            })
        }
    }
}

/// What `fill` makes of where the attributes of a goal come from.
#[inline(always)]
fn filled<T>(
    goal: &Goal<'_>,
    follow: bool,
    fill: impl Fn(Source, &mut Text<MAX_PATH>) -> Result<T, i32>,
) -> Result<T, i32> {
    let mut path = Text::<MAX_PATH>::new();
    if let Goal::Name(name) = *goal
        && let Some(source) = known_source(name, &mut path)
    {
        let on_disk = matches!(source, Ok(Source::Kernel(..)));
        let filled = source.and_then(|source| fill(source, &mut path));
        // It may have gone from the disk, or its directory have another name by now.
        if !(on_disk && matches!(filled, Err(libc::ENOENT))) {
            return filled;
        }
    }
    let source = source(goal, follow, &mut path)?;
    fill(source, &mut path)
}

/// Where attributes are of a name that need not be asked for.
#[inline(always)]
fn known_source(name: Name<'_>, path: &mut Text<MAX_PATH>) -> Option<Result<Source, i32>> {
    match known::attributes(name)? {
        Look::Attributes(attributes) => Some(Ok(Source::Session(attributes))),
        Look::Missing => Some(Err(libc::ENOENT)),
        Look::Lower(inode) => {
            known::on_disk(name, path).then_some(Ok(Source::Kernel(libc::AT_FDCWD, Some(inode))))
        }
    }
}

/// Attributes of an open file: from shared memory, without a message.
fn attributes(target: Target) -> Result<Attributes, i32> {
    target.alive()?;
    let sync = target.file.sync;
    let streams = target.ofd.wait() == WAIT_STREAM;
    if !streams {
        target.wait_final()?;
    }
    let is_final = target.file.is_final();
    let size = if streams {
        target.limit()
    } else {
        sync.size.load(Relaxed)
    };
    if streams && !is_final {
        target.ofd.sync.told.fetch_max(size, Relaxed);
    }
    let allocated = {
        let _pages = Hold::of_pages(target.file.index)?;
        match target.file.elsewhere() {
            0 => target.file.allocated(target.session, size),
            _ => mapped::allocated(target),
        }
    };
    Ok(attributes_of(target.file, size, allocated))
}

/// Attributes of a file in the cache, of which `size` bytes are to be told.
pub(super) fn attributes_of(file: File, size: u64, allocated: u64) -> Attributes {
    let (meta, sync) = (file.meta, file.sync);
    Attributes {
        inode: meta.inode.load(Relaxed),
        mode: meta.mode.load(Relaxed),
        links: meta.links.load(Relaxed),
        uid: meta.uid.load(Relaxed),
        gid: meta.gid.load(Relaxed),
        rdev: 0,
        size,
        allocated,
        accessed: sync.accessed.load(Relaxed).cast_signed(),
        modified: sync.modified.load(Relaxed).cast_signed(),
        changed: sync.changed.load(Relaxed).cast_signed(),
        born: meta.born.load(Relaxed).cast_signed(),
    }
}

/// The session's `st_dev`.
fn device() -> u64 {
    Session::get().map_or(0, |session| session.header().device.load(Relaxed))
}

/// Attributes in the shape of `stat(2)`.
fn to_stat(from: &Attributes) -> libc::stat {
    // SAFETY: all-zero is a valid value.
    let mut st: libc::stat = unsafe { zeroed() };
    st.st_dev = device();
    st.st_ino = from.inode;
    st.st_mode = from.mode;
    st.st_nlink = u64::from(from.links);
    st.st_uid = from.uid;
    st.st_gid = from.gid;
    st.st_rdev = from.rdev;
    st.st_size = from.size.cast_signed();
    st.st_blksize = BLOCK;
    st.st_blocks = from.allocated.div_ceil(SECTOR).cast_signed();
    (st.st_atime, st.st_atime_nsec) = clock::split(from.accessed);
    (st.st_mtime, st.st_mtime_nsec) = clock::split(from.modified);
    (st.st_ctime, st.st_ctime_nsec) = clock::split(from.changed);
    st
}

/// Attributes in the shape of `statx(2)`.
fn to_statx(from: &Attributes) -> libc::statx {
    // SAFETY: all-zero is a valid value.
    let mut stx: libc::statx = unsafe { zeroed() };
    stx.stx_mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    stx.stx_blksize = BLOCK as u32;
    stx.stx_nlink = from.links;
    stx.stx_uid = from.uid;
    stx.stx_gid = from.gid;
    stx.stx_mode = from.mode as u16;
    stx.stx_ino = from.inode;
    stx.stx_size = from.size;
    stx.stx_blocks = from.allocated.div_ceil(SECTOR);
    stx.stx_rdev_major = libc::major(from.rdev);
    stx.stx_rdev_minor = libc::minor(from.rdev);
    set_device(&mut stx);
    let time = |ns| {
        let (seconds, rest) = clock::split(ns);
        // SAFETY: all-zero is a valid value.
        let mut time: libc::statx_timestamp = unsafe { zeroed() };
        time.tv_sec = seconds;
        time.tv_nsec = rest as u32;
        time
    };
    stx.stx_atime = time(from.accessed);
    stx.stx_mtime = time(from.modified);
    stx.stx_ctime = time(from.changed);
    stx.stx_btime = time(from.born);
    stx
}

fn set_device(stx: &mut libc::statx) {
    stx.stx_dev_major = libc::major(device());
    stx.stx_dev_minor = libc::minor(device());
}

/// `stat` of a goal.
fn stat_of(goal: &Goal<'_>, follow: bool) -> Result<libc::stat, i32> {
    filled(goal, follow, |source, path| match source {
        Source::Session(attributes) => Ok(to_stat(&attributes)),
        Source::Kernel(fd, inode) => {
            let (at, flags) = kernel_place(fd, follow, path);
            let mut st = MaybeUninit::<libc::stat>::uninit();
            // SAFETY: the kernel fills `st` when it succeeds.
            let mut st = unsafe {
                kernel(syscall!(
                    libc::SYS_newfstatat,
                    fd,
                    at,
                    st.as_mut_ptr(),
                    flags
                ))?;
                st.assume_init()
            };
            if let Some(inode) = inode {
                st.st_dev = device();
                st.st_ino = inode;
            }
            Ok(st)
        }
    })
}

/// Path and flags for the kernel.
fn kernel_place(fd: c_int, follow: bool, path: &mut Text<MAX_PATH>) -> (*const c_char, c_int) {
    match (fd, follow) {
        (libc::AT_FDCWD, true) => (path.as_ptr(), 0),
        (libc::AT_FDCWD, false) => (path.as_ptr(), libc::AT_SYMLINK_NOFOLLOW),
        _ => (c"".as_ptr(), libc::AT_EMPTY_PATH),
    }
}

/// `statx` of a goal.
fn statx_of(goal: &Goal<'_>, flags: c_int, mask: u32) -> Result<libc::statx, i32> {
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
    filled(goal, follow, |source, path| match source {
        Source::Session(attributes) => Ok(to_statx(&attributes)),
        Source::Kernel(fd, inode) => {
            let (at, place) = kernel_place(fd, follow, path);
            let mut stx = MaybeUninit::<libc::statx>::uninit();
            // SAFETY: the kernel fills `stx` when it succeeds.
            let mut stx = unsafe {
                let into = stx.as_mut_ptr();
                kernel(syscall!(libc::SYS_statx, fd, at, place, mask, into))?;
                stx.assume_init()
            };
            if let Some(inode) = inode {
                set_device(&mut stx);
                stx.stx_ino = inode;
            }
            Ok(stx)
        }
    })
}

/// As `fstat(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn fstat(fd: c_int, st: *mut libc::stat) -> isize {
    // SAFETY: the caller's own promises.
    unsafe { newfstatat(fd, core::ptr::null(), st, libc::AT_EMPTY_PATH) }
}

/// As `newfstatat(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn newfstatat(
    dirfd: c_int,
    path: *const c_char,
    st: *mut libc::stat,
    flags: c_int,
) -> isize {
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    unsafe {
        let goal = goal(&mut room, dirfd, path, flags);
        if matches!(goal, Goal::Elsewhere) {
            return NOT_OURS;
        }
        let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        let found = known_flags(flags, STAT_FLAGS).and_then(|()| stat_of(&goal, follow));
        answer(found.and_then(|found| hand_over(&found, st)).map(|()| 0))
    }
}

/// As `statx(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn statx(
    dirfd: c_int,
    path: *const c_char,
    flags: c_int,
    mask: u32,
    stx: *mut libc::statx,
) -> isize {
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    unsafe {
        let goal = goal(&mut room, dirfd, path, flags);
        if matches!(goal, Goal::Elsewhere) {
            return NOT_OURS;
        }
        let found = sensible(flags, mask).and_then(|()| statx_of(&goal, flags, mask));
        answer(found.and_then(|found| hand_over(&found, stx)).map(|()| 0))
    }
}

/// Whether flags and mask of `statx(2)` make sense.
fn sensible(flags: c_int, mask: u32) -> Result<(), i32> {
    let both = libc::AT_STATX_SYNC_TYPE;
    if mask & libc::STATX__RESERVED.cast_unsigned() != 0 || flags & both == both {
        return Err(libc::EINVAL);
    }
    known_flags(flags, STAT_FLAGS)
}

/// Space of the session.
fn space() -> Result<libc::statfs, i32> {
    let (total, free, files) = control::ask(&Request::Space, |reply, received| {
        received.close();
        match reply {
            Reply::Space { total, free, files } => Ok((total, free, files)),
            _ => Err(libc::EIO),
        }
    })?;
    // SAFETY: all-zero is a valid value.
    let mut st: libc::statfs = unsafe { zeroed() };
    st.f_type = EXT4;
    st.f_bsize = BLOCK;
    st.f_frsize = BLOCK;
    st.f_namelen = NAME_MAX;
    st.f_blocks = total / BLOCK as u64;
    st.f_bfree = free / BLOCK as u64;
    st.f_bavail = st.f_bfree;
    st.f_files = u64::from(MAX_FILES);
    st.f_ffree = u64::from(MAX_FILES).saturating_sub(files);
    Ok(st)
}

/// Space where a path leads: the session's, or what the kernel says of a path
/// that leaves it.
fn space_at(said: &Said<()>, path: &mut Text<MAX_PATH>) -> Result<libc::statfs, i32> {
    if !matches!(said, Said::Native { inode: None }) {
        return space();
    }
    let mut st = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a path of ours; the kernel fills `st` when it succeeds.
    unsafe {
        kernel(syscall!(libc::SYS_statfs, path.as_ptr(), st.as_mut_ptr()))?;
        Ok(st.assume_init())
    }
}

/// As `statfs(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn statfs(path: *const c_char, buf: *mut libc::statfs) -> isize {
    let mut room = PathArgument::new();
    // SAFETY: the caller's own promises.
    unsafe {
        if path.is_null() {
            return NOT_OURS;
        }
        let goal = goal(&mut room, libc::AT_FDCWD, path, 0);
        let mut native = Text::<MAX_PATH>::new();
        let found = match &goal {
            Goal::Elsewhere => return NOT_OURS,
            Goal::Descriptor(..) => space(),
            Goal::Name(name) => {
                look_for(*name, &mut native).and_then(|said| space_at(&said, &mut native))
            }
        };
        answer(found.and_then(|found| hand_over(&found, buf)).map(|()| 0))
    }
}

/// As `fstatfs(2)`.
///
/// # Safety
/// The arguments must be valid for the system call of this name.
pub(crate) unsafe fn fstatfs(fd: c_int, buf: *mut libc::statfs) -> isize {
    // SAFETY: the caller's own promises.
    unsafe {
        if !super::is_ours(fd) {
            return NOT_OURS;
        }
        answer(space().and_then(|found| hand_over(&found, buf)).map(|()| 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Attributes = Attributes {
        inode: 1 << 40,
        mode: libc::S_IFREG | 0o640,
        links: 2,
        uid: 7,
        gid: 8,
        rdev: 0,
        size: 5000,
        allocated: 8192,
        accessed: 1_000_000_001,
        modified: -1,
        changed: 3_000_000_003,
        born: 4_000_000_004,
    };

    #[test]
    fn stat_tells_what_the_session_knows() {
        let st = to_stat(&FILE);
        assert_eq!((st.st_ino, st.st_mode), (1 << 40, 0o100_640));
        assert_eq!((st.st_nlink, st.st_uid, st.st_gid), (2, 7, 8));
        assert_eq!((st.st_size, st.st_blocks, st.st_blksize), (5000, 16, 4096));
        assert_eq!((st.st_atime, st.st_atime_nsec), (1, 1));
        assert_eq!((st.st_ctime, st.st_ctime_nsec), (3, 3));
    }

    #[test]
    fn times_before_the_epoch_have_nanoseconds_that_count_up() {
        let st = to_stat(&FILE);
        assert_eq!((st.st_mtime, st.st_mtime_nsec), (-1, 999_999_999));
    }

    #[test]
    fn statx_tells_the_same_and_the_birth() {
        let (st, stx) = (to_stat(&FILE), to_statx(&FILE));
        assert_eq!((stx.stx_ino, stx.stx_size), (st.st_ino, 5000));
        assert_eq!(u32::from(stx.stx_mode), st.st_mode);
        assert_eq!((stx.stx_blocks, stx.stx_blksize), (16, 4096));
        assert_eq!((stx.stx_btime.tv_sec, stx.stx_btime.tv_nsec), (4, 4));
        assert!(stx.stx_mask & libc::STATX_BTIME != 0);
    }

    #[test]
    fn statx_refuses_what_the_kernel_refuses() {
        assert_eq!(sensible(libc::AT_EMPTY_PATH, libc::STATX_ALL), Ok(()));
        assert_eq!(sensible(0, 1 << 31), Err(libc::EINVAL));
        assert_eq!(sensible(libc::AT_STATX_SYNC_TYPE, 0), Err(libc::EINVAL));
        assert_eq!(sensible(libc::AT_SYMLINK_FOLLOW, 0), Err(libc::EINVAL));
    }
}
