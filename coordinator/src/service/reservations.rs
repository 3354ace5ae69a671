//! Reservation inodes: the kernel's side of files in the cache. Nothing lies in one
//! unless the file is the kernel's; its descriptors are what programs get.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstatat, mknodat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, Whence, linkat, lseek, unlinkat};
use wire::place;

/// Inodes that are kept for the next files, at most.
const SPARE: usize = 64;
/// Permissions of an inode that nobody has changed.
const FRESH: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// All reservation inodes of a session.
pub(super) struct Reservations {
    session: PathBuf,
    /// The same, open: paths from here are short.
    dir: Option<OwnedFd>,
    /// Records of no file, whose inodes are there still, untouched.
    spare: HashSet<u32>,
}

/// A description that could not be opened.
pub(super) struct NotOpened {
    /// Why.
    pub error: nix::Error,
    /// It was open, and its close will be reported.
    pub was_open: bool,
}

impl Reservations {
    /// None, in the session's directory.
    #[must_use]
    pub(super) fn new(session: &Path) -> Self {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Self {
            session: session.to_owned(),
            dir: open(session, flags, Mode::empty()).ok(),
            spare: HashSet::new(),
        }
    }

    /// Where paths of [`Self::place`] begin.
    fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().map_or(AT_FDCWD, |dir| dir.as_fd())
    }

    fn place(&self, folder: &str, number: u32) -> PathBuf {
        let inner = format!("{folder}/{number}");
        match self.dir {
            Some(_) => inner.into(),
            None => self.session.join(inner),
        }
    }

    /// Path of a record's inode.
    #[must_use]
    pub(super) fn path(&self, record: u32) -> PathBuf {
        self.session.join(place::RESERVED).join(record.to_string())
    }

    /// Makes the inode of a file record.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn make(&mut self, record: u32) -> nix::Result<()> {
        if self.spare.remove(&record) {
            return Ok(());
        }
        let place = self.place(place::RESERVED, record);
        self.with_room(|dir| mknodat(dir, &place, SFlag::S_IFREG, FRESH, 0))
    }

    /// Makes something; where there is no room for an inode the spare ones go first.
    fn with_room(&mut self, make: impl Fn(BorrowedFd<'_>) -> nix::Result<()>) -> nix::Result<()> {
        let made = make(self.dir());
        if made != Err(nix::Error::ENOSPC) || self.spare.is_empty() {
            return made;
        }
        for record in std::mem::take(&mut self.spare) {
            self.unlink(record);
        }
        make(self.dir())
    }

    fn unlink(&self, record: u32) {
        let place = self.place(place::RESERVED, record);
        // It may be missing when its making failed.
        let _ = unlinkat(self.dir(), &place, UnlinkatFlags::NoRemoveDir);
    }

    /// Removes it, or keeps it for the next file with this record.
    pub(super) fn remove(&mut self, record: u32) {
        let place = self.place(place::RESERVED, record);
        let is_fresh = || {
            let stat = fstatat(self.dir(), &place, AtFlags::AT_SYMLINK_NOFOLLOW);
            stat.is_ok_and(|stat| {
                let mode = SFlag::S_IFREG.bits() | FRESH.bits();
                (stat.st_size, stat.st_blocks, stat.st_nlink, stat.st_mode) == (0, 0, 1, mode)
            })
        };
        if self.spare.len() < SPARE && is_fresh() {
            self.spare.insert(record);
            return;
        }
        self.unlink(record);
    }

    /// Opens it by a name of its own, `id`, which the kernel tells with the close.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn open(
        &mut self,
        record: u32,
        id: u32,
        flags: OFlag,
    ) -> Result<OwnedFd, NotOpened> {
        let failed = |error, was_open| NotOpened { error, was_open };
        let name = self.place(place::OPEN, id);
        let place = self.place(place::RESERVED, record);
        self.with_room(|dir| linkat(dir, &place, dir, &name, LinkatFlags::empty()))
            .map_err(|error| failed(error, false))?;
        let dir = self.dir();
        let opened = openat(dir, &name, flags | OFlag::O_CLOEXEC, Mode::empty());
        // A name that stays only takes its number out of use.
        let _ = unlinkat(dir, &name, UnlinkatFlags::NoRemoveDir);
        let fd = opened.map_err(|error| failed(error, false))?;
        // A write that misses the shim must fail, appending or not: nothing lies
        // beyond, and the inode is empty for a read.
        lseek(&fd, i64::MAX, Whence::SeekSet).map_err(|error| failed(error, true))?;
        Ok(fd)
    }

    /// Whether something was written to an inode that holds no bytes, by a call at an
    /// offset that missed the shim. It is empty afterwards.
    pub(super) fn was_missed(&self, record: u32) -> bool {
        let place = self.place(place::RESERVED, record);
        let stat = fstatat(self.dir(), &place, AtFlags::empty());
        let missed = stat.is_ok_and(|stat| stat.st_size > 0);
        if missed && let Err(error) = self.empty(record) {
            // Then it is only told again.
            tracing::debug!("reservation {record} could not be emptied: {error}");
        }
        missed
    }

    fn empty(&self, record: u32) -> io::Result<()> {
        let file = File::options().write(true).open(self.path(record))?;
        file.set_len(0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn session() -> (tempfile::TempDir, Reservations) {
        // As sessions do: other file systems have no such offsets.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        for folder in [place::RESERVED, place::OPEN] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let reservations = Reservations::new(dir.path());
        (dir, reservations)
    }

    fn there(dir: &tempfile::TempDir, folder: &str) -> usize {
        fs::read_dir(dir.path().join(folder)).unwrap().count()
    }

    #[test]
    fn an_untouched_inode_serves_the_next_file() {
        let (dir, mut reservations) = session();
        reservations.make(7).unwrap();
        let before = fs::metadata(reservations.path(7)).unwrap();
        reservations.remove(7);
        reservations.make(7).unwrap();
        let after = fs::metadata(reservations.path(7)).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!(before.ino(), after.ino());
        assert!(reservations.make(7).is_err(), "it is another file's");
        assert_eq!(there(&dir, place::RESERVED), 1);
    }

    #[test]
    fn what_a_file_has_left_behind_does_not_come_to_the_next() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, mut reservations) = session();
        let changes: [fn(&Path); 3] = [
            |path| fs::write(path, "bytes").unwrap(),
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap(),
            |path| fs::hard_link(path, path.with_extension("run")).unwrap(),
        ];
        for (record, change) in (0..).zip(changes) {
            reservations.make(record).unwrap();
            change(&reservations.path(record));
            reservations.remove(record);
            assert!(!reservations.path(record).exists(), "{record}");
        }
        assert_eq!(there(&dir, place::RESERVED), 1, "the link that was made");
    }

    #[test]
    fn few_inodes_are_kept() {
        let (dir, mut reservations) = session();
        for record in 0..200 {
            reservations.make(record).unwrap();
        }
        (0..200).for_each(|record| reservations.remove(record));
        assert_eq!(there(&dir, place::RESERVED), SPARE);
    }

    #[test]
    fn a_missed_write_is_told_once() {
        let (_dir, mut reservations) = session();
        reservations.make(3).unwrap();
        assert!(!reservations.was_missed(3));
        let opened = reservations.open(3, 9, OFlag::O_WRONLY);
        let fd = opened.unwrap_or_else(|failed| panic!("{}", failed.error));
        assert!(nix::unistd::write(&fd, b"x").is_err(), "at the offset");
        nix::sys::uio::pwrite(&fd, b"x", 4).unwrap();
        assert!(reservations.was_missed(3));
        assert!(!reservations.was_missed(3));
    }
}
