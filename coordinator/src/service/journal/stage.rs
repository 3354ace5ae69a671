//! Staging: everything that will be put into place is made ready and synced,
//! then the journal says what to do with it.

use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::disk::{self, step};
use super::{
    Applied, Attributes, Change, ELSEWHERE, JOURNAL, Journal, LOCK, MAX_JOURNAL, PREFIX, Staged,
    apply, is_missing, place_of, settle,
};
use crate::session::FileName;

/// A staging directory whose lock this process holds.
pub(in crate::service) struct Stage {
    dir: PathBuf,
    /// The main one first.
    pub(super) places: Vec<PathBuf>,
    /// Where other file systems are mounted below `dir`.
    mounts: Vec<PathBuf>,
    next: u32,
    _lock: Lock,
}

/// The lock of a staging directory, where the file system has locks.
pub(super) enum Lock {
    Held(#[expect(dead_code, reason = "held until dropped")] Flock<File>),
    Unknown,
}

/// What is to be staged for a name.
pub(in crate::service) enum Material<'a> {
    /// Content that this writes, and its attributes; the checksum comes back.
    Content(&'a dyn Fn(&File) -> io::Result<u32>, &'a Attributes),
    /// Another name of what is on disk; if it can have none, a copy.
    Name(&'a Path),
    /// A symbolic link.
    Link(&'a Path, &'a Attributes),
    /// A pipe or a device: `S_IFMT` bits and device number.
    Node(u32, u64, &'a Attributes),
}

/// Takes the lock of the staging directory `place`, which must be there.
///
/// # Errors
/// `WouldBlock` when somebody is at work there, `NotFound`.
pub(super) fn lock(place: &Path) -> io::Result<Lock> {
    let mut options = File::options();
    let file = options.create(true).append(true).open(place.join(LOCK))?;
    let inode = file.metadata()?.ino();
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Lock::Held(lock),
        Err((_, error)) if disk::is_unsupported(&error.into()) => Lock::Unknown,
        Err((_, error)) => return Err(error.into()),
    };
    // Whoever had it before may have removed all of it.
    let same = place.join(LOCK).metadata().is_ok_and(|m| m.ino() == inode);
    if same {
        Ok(lock)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Stage {
    /// Makes the staging directory of `workflow` in `dir`.
    ///
    /// # Errors
    /// `WouldBlock` when somebody else is at work there, `AlreadyExists` when
    /// committed changes are waiting there.
    pub(in crate::service) fn open(dir: &Path, workflow: &str) -> io::Result<Self> {
        let main = place_of(dir, workflow);
        for _ in 0..8 {
            match disk::make_directory(&main, 0o700) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let lock = match lock(&main) {
                Err(error) if is_missing(&error) => continue,
                lock => lock?,
            };
            let stage = Self::of(dir, main, lock)?;
            if stage.committed()? {
                let why = "results of an earlier session are waiting, run `capio apply` first";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            stage.clear()?;
            return Ok(stage);
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// The staging directory `main` as it was left.
    pub(super) fn of(dir: &Path, main: PathBuf, lock: Lock) -> io::Result<Self> {
        let mut places = vec![main];
        let list = match std::fs::read(places[0].join(ELSEWHERE)) {
            Err(error) if is_missing(&error) => Vec::new(),
            list => list?,
        };
        let listed = list
            .split(|&byte| byte == 0)
            .filter(|path| !path.is_empty());
        let own = places[0].file_name().map(ToOwned::to_owned);
        let listed = listed.map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)));
        // Nothing else than a staging directory below `dir` can be meant.
        let meant = |path: &PathBuf| path.starts_with(dir) && path.file_name() == own.as_deref();
        places.extend(listed.filter(meant));
        Ok(Self {
            mounts: mounts_below(dir),
            dir: dir.to_path_buf(),
            places,
            next: 0,
            _lock: lock,
        })
    }

    /// Whether there is a journal.
    pub(super) fn committed(&self) -> io::Result<bool> {
        match self.places[0].join(JOURNAL).symlink_metadata() {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The journal and its size.
    pub(super) fn journal(&self) -> io::Result<Result<Journal, String>> {
        let path = self.places[0].join(JOURNAL);
        if path.metadata()?.size() > MAX_JOURNAL {
            return Ok(Err("it is too long".to_owned()));
        }
        Ok(Journal::parse(&std::fs::read(path)?))
    }

    /// Stages something for `path` and tells by what it is known.
    ///
    /// # Errors
    /// When it cannot be written; nothing of it is left then.
    pub(in crate::service) fn add(
        &mut self,
        path: &Path,
        material: &Material<'_>,
    ) -> io::Result<Staged> {
        let place = self.place_for(path)?;
        self.next += 1;
        let number = self.next;
        let temporary = self.places[place].join(number.to_string());
        let made = make(&temporary, material).inspect_err(|_| {
            // Half of a file helps nobody.
            let _ = std::fs::remove_file(&temporary);
        });
        let sum = made?;
        let meta = temporary.symlink_metadata()?;
        Ok(Staged {
            place,
            number,
            inode: meta.ino(),
            bytes: meta.size(),
            sum,
        })
    }

    /// Stages one more name of what is staged already, for `path`.
    ///
    /// # Errors
    /// `CrossesDevices` when `path` is on another file system.
    pub(in crate::service) fn again(&mut self, path: &Path, staged: &Staged) -> io::Result<Staged> {
        let place = self.place_for(path)?;
        if place != staged.place {
            return Err(Errno::EXDEV.into());
        }
        self.next += 1;
        let number = self.next;
        let from = self.path_of(staged);
        disk::hard_link(&from, &self.places[place].join(number.to_string()))?;
        Ok(Staged {
            number,
            ..staged.clone()
        })
    }

    /// Where something staged lies.
    pub(super) fn path_of(&self, staged: &Staged) -> PathBuf {
        let place = self.places.get(staged.place).unwrap_or(&self.places[0]);
        place.join(staged.number.to_string())
    }

    /// The place from which something can be renamed to `path`.
    fn place_for(&mut self, path: &Path) -> io::Result<usize> {
        let above = self.mounts.iter().filter(|mount| path.starts_with(mount));
        let Some(mount) = above.max_by_key(|mount| mount.as_os_str().len()) else {
            return Ok(0);
        };
        let above = path.ancestors().skip(1);
        let nearest = above
            .filter(|way| way.starts_with(mount))
            .find(|way| way.is_dir());
        let candidates = [Some(mount.as_path()), nearest];
        let name = self.places[0].file_name().unwrap_or_default().to_owned();
        let candidates = candidates
            .into_iter()
            .flatten()
            .map(|above| above.join(&name));
        let candidates: Vec<_> = candidates.collect();
        let known = |wanted: &PathBuf| self.places.iter().position(|place| place == wanted);
        if let Some(known) = candidates.iter().find_map(known) {
            return Ok(known);
        }
        let mut refused = io::Error::from(io::ErrorKind::NotFound);
        for wanted in candidates {
            match self.make_elsewhere(wanted) {
                Ok(()) => return Ok(self.places.len() - 1),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn make_elsewhere(&mut self, wanted: PathBuf) -> io::Result<()> {
        // First on the list: whatever happens, it will be found there.
        let listed = self.places.iter().skip(1).chain([&wanted]);
        let listed: Vec<_> = listed.map(|path| path.as_os_str().as_bytes()).collect();
        disk::write_synced(&self.places[0].join(ELSEWHERE), &listed.join(&0))?;
        disk::make_directory(&wanted, 0o700)?;
        self.places.push(wanted);
        Ok(())
    }

    /// From now on the changes are made, whatever happens.
    ///
    /// # Errors
    /// When they could not be committed; nothing has changed then.
    pub(in crate::service) fn commit(self, changes: Vec<Change>) -> io::Result<Committed> {
        let elsewhere = self.places.iter().skip(1);
        let elsewhere = elsewhere.map(|path| FileName::from(path.as_path()));
        let elsewhere = elsewhere.collect();
        let journal = Journal { elsewhere, changes };
        if let Err(error) = self.write(&journal) {
            // The next session removes what this cannot.
            let _ = self.discard();
            return Err(error);
        }
        let synced = disk::sync_directory(&self.places[0]);
        let synced = synced.and_then(|()| disk::sync_directory(&self.dir));
        if let Err(error) = synced {
            tracing::warn!("{} could not be synced: {error}", self.dir.display());
        }
        Ok(Committed {
            stage: self,
            journal,
        })
    }

    fn write(&self, journal: &Journal) -> io::Result<()> {
        for place in &self.places {
            disk::sync_directory(place)?;
        }
        let main = &self.places[0];
        let new = main.join("journal.new");
        disk::write_synced(&new, &journal.to_bytes()?)?;
        disk::rename(&new, &main.join(JOURNAL))
    }

    /// Removes what is staged, and the journal first of all.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(super) fn clear(&self) -> io::Result<u64> {
        let mut removed = 0;
        for (index, place) in self.places.iter().enumerate() {
            let mut names: Vec<_> = match std::fs::read_dir(place) {
                Err(error) if is_missing(&error) => continue,
                entries => entries?.flatten().map(|entry| entry.file_name()).collect(),
            };
            names.sort_by_key(|name| name != JOURNAL);
            let own = |name: &std::ffi::OsString| index > 0 || (name != LOCK && name != ELSEWHERE);
            for name in names.into_iter().filter(own) {
                let is_staged = name.as_bytes().iter().all(u8::is_ascii_digit);
                disk::remove_file(&place.join(&name))?;
                if name == JOURNAL {
                    disk::sync_directory(place)?;
                }
                removed += u64::from(is_staged);
            }
        }
        Ok(removed)
    }

    /// Removes all of it; how many staged files there were.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(in crate::service) fn discard(self) -> io::Result<u64> {
        let removed = self.clear()?;
        for place in self.places.iter().skip(1) {
            match disk::remove_directory(place) {
                Err(error) if !is_missing(&error) => return Err(error),
                _ => {}
            }
        }
        let main = &self.places[0];
        for name in [ELSEWHERE, LOCK] {
            match disk::remove_file(&main.join(name)) {
                Err(error) if !is_missing(&error) => return Err(error),
                _ => {}
            }
        }
        match disk::remove_directory(main) {
            // Somebody has begun to work there the moment the lock was gone.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            gone => gone?,
        }
        disk::sync_directory(&self.dir)?;
        Ok(removed)
    }

    /// `CAPIO_DIR`.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The workflow that it is for, for messages.
    pub(super) fn workflow(&self) -> String {
        let name = self.places[0].file_name().unwrap_or_default();
        let name = name.to_os_string().into_vec();
        String::from_utf8_lossy(name.strip_prefix(PREFIX.as_bytes()).unwrap_or(&name)).into_owned()
    }
}

/// Changes that are written down.
pub(in crate::service) struct Committed {
    stage: Stage,
    journal: Journal,
}

impl Committed {
    /// Makes the changes, and removes all that was staged unless something is
    /// left to do.
    pub(in crate::service) fn apply(self) -> Applied {
        let mut applied = apply::apply(&self.stage, &self.journal);
        if applied.unfinished {
            return applied;
        }
        let place = self.stage.places[0].display().to_string();
        if let Err(error) = settle::finish(self.stage, &self.journal.changes) {
            let sentence = format!("{place} could not be removed: {error}");
            applied.errors.push(sentence);
        }
        applied
    }
}

/// Makes something in the staging directory, synced.
fn make(temporary: &Path, material: &Material<'_>) -> io::Result<Option<u32>> {
    match *material {
        Material::Content(write, attributes) => {
            let file = disk::create(temporary)?;
            step();
            let sum = write(&file)?;
            disk::set_all_attributes(temporary, attributes)?;
            disk::sync(&file)?;
            Ok(Some(sum))
        }
        Material::Name(original) => match disk::hard_link(original, temporary) {
            Ok(()) => Ok(None),
            Err(error) if may_be_copied(&error) => copy(original, temporary),
            Err(error) => Err(error),
        },
        Material::Link(content, attributes) => {
            disk::symlink(content, temporary)?;
            disk::set_all_attributes(temporary, attributes)?;
            Ok(None)
        }
        Material::Node(format, device, attributes) => {
            disk::make_node(temporary, format, device)?;
            disk::set_all_attributes(temporary, attributes)?;
            Ok(None)
        }
    }
}

/// Whether a file that can have no other name (of another file system or user,
/// or with too many) can be copied instead.
fn may_be_copied(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EXDEV | libc::EPERM | libc::EMLINK | libc::EOPNOTSUPP)
    )
}

fn copy(original: &Path, temporary: &Path) -> io::Result<Option<u32>> {
    let meta = original.symlink_metadata()?;
    let attributes = Attributes::of(original, &meta);
    if meta.is_symlink() {
        let content = std::fs::read_link(original)?;
        return make(temporary, &Material::Link(&content, &attributes));
    }
    if meta.is_file() {
        let write = |file: &File| copy_content(original, file);
        return make(temporary, &Material::Content(&write, &attributes));
    }
    let format = meta.mode() & libc::S_IFMT;
    make(temporary, &Material::Node(format, meta.rdev(), &attributes))
}

fn copy_content(original: &Path, file: &File) -> io::Result<u32> {
    use std::os::unix::fs::FileExt;
    let source = File::open(original)?;
    let meta = source.metadata()?;
    let mut sum = disk::SparseSum::default();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < meta.size() {
        let length = (meta.size() - at).min(buffer.len() as u64) as usize;
        source.read_exact_at(&mut buffer[..length], at)?;
        disk::write_sparse(file, at, &buffer[..length], &mut sum)?;
        at += length as u64;
    }
    file.set_len(meta.size())?;
    Ok(sum.finish(meta.size()))
}

/// Where file systems are mounted below `dir`.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let lines = table.split(|&byte| byte == b'\n');
    let points = lines.filter_map(|line| {
        let point = line.split(|&byte| byte == b' ').nth(4)?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(unescaped(
            point,
        ))))
    });
    points
        .filter(|point| point.starts_with(dir) && point != dir)
        .collect()
}

/// A path as the kernel prints it: `\040` is a space.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let value = digits.and_then(|digits| {
            let digits = str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        plain.push(value.unwrap_or(*first));
        rest = tail
            .get(if value.is_some() { 3 } else { 0 }..)
            .unwrap_or_default();
    }
    plain
}
