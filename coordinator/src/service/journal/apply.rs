//! Makes committed changes. Each can be made again: what is staged no longer
//! was put into place, what is gone was removed.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::disk;
use super::stage::Stage;
use super::{Attributes, Change, Found, Journal, STARTED, Staged, is_missing, with_suffix};
use crate::session::FileName;

/// What came of the changes.
#[derive(Debug, Default)]
pub(in crate::service) struct Applied {
    /// Paths that were put into place, as they were meant.
    pub put: Vec<FileName>,
    /// Paths that were taken away.
    pub removed: Vec<FileName>,
    /// What lay in the way of a path, and by which name that went beside it.
    pub conflicts: Vec<(FileName, FileName)>,
    /// What could not be done, one sentence each.
    pub errors: Vec<String>,
    /// Something could not be put into place: it is staged still, and so is
    /// the journal.
    pub unfinished: bool,
}

/// Whether something may take the name where `found` was, and now is `now`.
#[must_use]
pub(in crate::service) fn allows(found: &Found, now: &Found) -> bool {
    match now {
        Found::Nothing => true,
        // Nothing but a directory takes the place of one.
        Found::Directory => false,
        now => now == found,
    }
}

struct Applying<'a> {
    stage: &'a Stage,
    dir: &'a Path,
    /// Paths that the changes make something at.
    made: HashSet<&'a FileName>,
    /// What went beside, because something else has its name.
    moved: Vec<(PathBuf, PathBuf)>,
    /// Directories whose entries have changed.
    touched: BTreeSet<PathBuf>,
    done: Applied,
}

/// Makes all changes of the journal, and removes it unless something is left
/// to do.
pub(super) fn apply(stage: &Stage, journal: &Journal) -> Applied {
    let makes =
        |change: &&Change| matches!(change, Change::Put { .. } | Change::MakeDirectory { .. });
    let made = journal.changes.iter().filter(makes).map(Change::path);
    let mut applying = Applying {
        stage,
        dir: stage.dir(),
        made: made.collect(),
        moved: Vec::new(),
        touched: BTreeSet::new(),
        done: Applied::default(),
    };
    if let Err(error) = applying.start() {
        let place = stage.places[0].display();
        applying.fail(format!("{place} cannot be written to: {error}"));
        return applying.done;
    }
    applying.open_directories(journal);
    let attributes = |change: &&Change| matches!(change, Change::Attributes { .. });
    let (last, first): (Vec<_>, Vec<_>) = journal.changes.iter().partition(attributes);
    first.into_iter().for_each(|change| applying.make(change));
    // Before they may become unreadable.
    applying.sync();
    last.into_iter().for_each(|change| applying.make(change));
    applying.done
}

/// Sets the times of directories again that staging directories were in.
pub(super) fn settle_times(dir: &Path, places: &[PathBuf], changes: &[Change]) {
    for change in changes {
        let Change::Attributes { path, attributes } = change else {
            continue;
        };
        let path = dir.join(path.as_path());
        if places.iter().any(|place| place.parent() == Some(&path)) {
            let times = Attributes {
                accessed: attributes.accessed,
                modified: attributes.modified,
                ..Attributes::default()
            };
            // They were set before: it is allowed.
            let _ = disk::set_attributes(&path, &times);
        }
    }
}

impl<'a> Applying<'a> {
    fn start(&self) -> io::Result<()> {
        let main = &self.stage.places[0];
        disk::write_synced(&main.join(STARTED), b"")?;
        disk::sync_directory(main)
    }

    fn fail(&mut self, sentence: String) {
        self.done.errors.push(sentence);
        self.done.unfinished = true;
    }

    /// Where a path of the journal is: below a directory that went beside,
    /// perhaps.
    fn place(&self, path: &FileName) -> PathBuf {
        let place = self.dir.join(path.as_path());
        for (from, to) in self.moved.iter().rev() {
            if let Ok(rest) = place.strip_prefix(from) {
                return if rest.as_os_str().is_empty() {
                    to.clone()
                } else {
                    to.join(rest)
                };
            }
        }
        place
    }

    fn beside(&mut self, path: &FileName, place: &Path, free: impl Fn(&Found) -> bool) -> PathBuf {
        let names = (1_u32..).map(|n| match n {
            1 => with_suffix(place, ".capio"),
            n => with_suffix(place, &format!(".capio.{n}")),
        });
        let mut names = names.filter(|name| Found::at(name).is_ok_and(|now| free(&now)));
        let beside = names.next().unwrap_or_else(|| with_suffix(place, ".capio"));
        let kept_as = super::relative(self.dir, &beside);
        self.done.conflicts.push((path.clone(), kept_as));
        beside
    }

    /// Directories that will lose their owner's permissions, or have lost them
    /// already in an attempt that was cut short.
    fn open_directories(&mut self, journal: &Journal) {
        for change in &journal.changes {
            let Change::Attributes { path, attributes } = change else {
                continue;
            };
            let place = self.place(path);
            let meta = place.symlink_metadata();
            let shut = |meta: &fs::Metadata| meta.is_dir() && meta.mode() & 0o700 != 0o700;
            if attributes.mode.is_some()
                && let Ok(meta) = meta.as_ref()
                && shut(meta)
            {
                disk::step();
                let mode = fs::Permissions::from_mode(meta.mode() & 0o7777 | 0o700);
                // If it matters, the change that needs it tells.
                let _ = fs::set_permissions(&place, mode);
            }
        }
    }

    fn make(&mut self, change: &Change) {
        match change {
            Change::Remove { path, found } => self.remove(path, found),
            Change::MakeDirectory { path } => self.make_directory(path),
            Change::Put {
                staged,
                path,
                found,
            } => self.put(staged, path, found),
            Change::Attributes { path, attributes } => {
                let place = self.place(path);
                // Times of a directory of somebody else's are theirs to set.
                let wanted = |error: &io::Error| {
                    let denied = error.kind() == io::ErrorKind::PermissionDenied;
                    !is_missing(error) && (!denied || attributes.mode.is_some())
                };
                match disk::set_synced(&place, attributes) {
                    Err(error) if wanted(&error) => self.done.errors.push(format!(
                        "the attributes of {path} could not be set: {error}"
                    )),
                    _ => {}
                }
            }
        }
    }

    fn touch_parent(&mut self, place: &Path) {
        if let Some(parent) = place.parent() {
            self.touched.insert(parent.to_path_buf());
        }
    }

    fn remove(&mut self, path: &FileName, found: &Found) {
        let place = self.place(path);
        let done = match Found::at(&place) {
            Ok(Found::Nothing) => return,
            Ok(now) if now != *found => {
                // What was made there in an attempt that was cut short is seen
                // to when it is made.
                if !self.made.contains(path) {
                    self.done.errors.push(format!(
                        "{path} was removed by the run but changed meanwhile by somebody else: \
                         it was left"
                    ));
                }
                return;
            }
            Ok(Found::Directory) => disk::remove_directory(&place),
            Ok(_) => disk::remove_file(&place),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {
                self.touch_parent(&place);
                if !self.made.contains(path) {
                    self.done.removed.push(path.clone());
                }
            }
            Err(error) => self
                .done
                .errors
                .push(format!("{path} could not be removed: {error}")),
        }
    }

    fn make_directory(&mut self, path: &FileName) {
        let mut place = self.place(path);
        let is_free = |now: &Found| matches!(now, Found::Nothing | Found::Directory);
        let now = Found::at(&place);
        if now.as_ref().is_ok_and(|now| !is_free(now)) {
            let beside = self.beside(path, &place, is_free);
            self.moved.push((place, beside.clone()));
            place = beside;
        }
        match make_directories(&place) {
            Ok(()) => {
                self.touch_parent(&place);
                self.touched.insert(place);
            }
            Err(error) => self.fail(format!("{path} could not be made: {error}")),
        }
    }

    fn put(&mut self, staged: &Staged, path: &FileName, found: &Found) {
        let temporary = self.stage.path_of(staged);
        if temporary.symlink_metadata().is_err_and(|e| is_missing(&e)) {
            // It is in place since an attempt that was cut short.
            self.done.put.push(path.clone());
            return;
        }
        let mut place = self.place(path);
        let now = Found::at(&place);
        if now.as_ref().is_ok_and(|now| !allows(found, now)) && !is_same(&temporary, &place) {
            let beside = self.beside(path, &place, |now| *now == Found::Nothing);
            // Attributes that follow are ours, not what is there's.
            self.moved.push((place, beside.clone()));
            place = beside;
        }
        match now.and_then(|_| move_into(&temporary, &place)) {
            Ok(()) => {
                self.touch_parent(&place);
                self.done.put.push(path.clone());
            }
            Err(error) => self.fail(format!(
                "{path} could not be moved into place: {error}; its content is in {}",
                temporary.display()
            )),
        }
    }

    fn sync(&mut self) {
        for directory in std::mem::take(&mut self.touched) {
            match disk::sync_directory(&directory) {
                Err(error) if !is_missing(&error) => self.done.errors.push(format!(
                    "{} could not be synced: {error}",
                    directory.display()
                )),
                _ => {}
            }
        }
    }
}

fn is_same(a: &Path, b: &Path) -> bool {
    let of = |path: &Path| path.symlink_metadata().map(|meta| (meta.dev(), meta.ino()));
    matches!((of(a), of(b)), (Ok(a), Ok(b)) if a == b)
}

fn move_into(temporary: &Path, place: &Path) -> io::Result<()> {
    match disk::rename(temporary, place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directories(place.parent().unwrap_or(Path::new("/")))?;
            disk::rename(temporary, place)?;
        }
        moved => moved?,
    }
    // A rename onto another name of the same file does nothing at all.
    match disk::remove_file(temporary) {
        Err(error) if !is_missing(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The directory exists, with all above it.
fn make_directories(place: &Path) -> io::Result<()> {
    if place.is_dir() {
        return Ok(());
    }
    match disk::make_directory(place, 0o777) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directories(place.parent().ok_or(io::ErrorKind::NotFound)?)?;
            disk::make_directory(place, 0o777)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && place.is_dir() => Ok(()),
        made => made,
    }
}
