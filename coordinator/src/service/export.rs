//! The end of a session: what is kept goes to its place on disk.
//!
//! All data is written to temporary names and synced first, then renamed into
//! place, then names that the session removed are unlinked.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::engine::Engine;
use super::names::{Attr, FileNode, Inode, Kind};
use crate::session::{Conflict, DrainReport, DroppedFile, Keep, KeepReason, KeptFile};

/// A file on its way to disk.
struct Staged {
    inode: Inode,
    temporary: PathBuf,
    paths: Vec<PathBuf>,
    reason: KeepReason,
    bytes: u64,
}

impl Engine {
    /// Applies what is kept and reports on every file; the session's content
    /// is over afterwards.
    pub(super) fn drain(&mut self, success: bool) -> DrainReport {
        let started = Instant::now();
        self.draining = true;
        self.drain_closes();
        let mut report = DrainReport::default();
        let apply = (success || self.config.keep_on_failure) && self.config.keep != Keep::None;
        let staged = self.stage_all(apply, &mut report);
        if apply {
            let kept = self.commit_all(staged, &mut report);
            self.keep_directories(&kept, &mut report);
            self.keep_links(&mut report);
            if report.errors.is_empty() {
                self.remove_all(&kept, &mut report);
            } else if self.names.removed().next().is_some() {
                let reason = "nothing was removed on disk, as not all files could be written";
                report.errors.push(reason.to_owned());
            }
        }
        report.kept.sort_by(|a, b| a.path.cmp(&b.path));
        report.dropped.sort_by(|a, b| a.path.cmp(&b.path));
        report.errors.append(&mut self.stats.errors);
        report.seconds = started.elapsed().as_secs_f64();
        report
    }

    fn stage_all(&mut self, apply: bool, report: &mut DrainReport) -> Vec<Staged> {
        let mut files: Vec<_> = self
            .names
            .iter()
            .filter(|node| node.file().is_some())
            .collect();
        files.sort_by_key(|node| node.inode);
        let files: Vec<Inode> = files.into_iter().map(|node| node.inode).collect();
        let mut staged = Vec::new();
        for inode in files {
            let Some(file) = self.names.get(inode).and_then(|node| node.file()) else {
                continue;
            };
            let paths = self.names.paths_of(inode);
            if paths.is_empty() || !self.differs(inode, file) {
                continue;
            }
            let bytes = file.record.map_or(0, |record| self.records.size(record));
            let reason = if apply {
                self.keep_reason(file, &paths)
            } else {
                None
            };
            let Some(reason) = reason else {
                report.dropped.push(DroppedFile {
                    path: self.display(inode),
                    bytes,
                });
                continue;
            };
            let paths: Vec<_> = paths
                .iter()
                .map(|path| PathBuf::from(OsStr::from_bytes(path)))
                .collect();
            match self.stage(inode, file, &paths) {
                Ok(temporary) => staged.push(Staged {
                    inode,
                    temporary,
                    paths,
                    reason,
                    bytes,
                }),
                Err(error) => report.errors.push(format!(
                    "{} could not be written to disk: {error}; free some space or fix the \
                     permissions and run again",
                    self.display(inode)
                )),
            }
        }
        staged
    }

    /// Whether the file is not on disk just as it is here.
    fn differs(&self, inode: Inode, file: &FileNode) -> bool {
        let Some(lower) = &file.lower else {
            return true;
        };
        let paths = self.names.paths_of(inode);
        let is_there = |path: &Vec<u8>| {
            let path = Path::new(OsStr::from_bytes(path));
            path == lower
                || path
                    .symlink_metadata()
                    .is_ok_and(|meta| is_original(file, &meta))
        };
        let changed = file.record.is_some() && file.modified;
        changed || !paths.iter().all(is_there)
    }

    fn keep_reason(&self, file: &FileNode, paths: &[Vec<u8>]) -> Option<KeepReason> {
        let keep = self.config.keep;
        if keep == Keep::None {
            return None;
        }
        if paths.iter().any(|path| self.is_permanent(path)) {
            return Some(KeepReason::Permanent);
        }
        let replaces = |path: &Vec<u8>| {
            Path::new(OsStr::from_bytes(path))
                .symlink_metadata()
                .is_ok()
        };
        if file.lower.is_some() || paths.iter().any(replaces) {
            return Some(KeepReason::Changed);
        }
        match keep {
            Keep::All => Some(KeepReason::All),
            Keep::Outputs if !file.consumed => Some(KeepReason::Output),
            _ => None,
        }
    }

    /// What lies in a permanent directory is permanent with it.
    fn is_permanent(&self, path: &[u8]) -> bool {
        !self.spec.permanent().is_empty() && self.said_above(path, |rules| rules.permanent)
    }

    /// Writes the file beside its place, synced.
    fn stage(&self, inode: Inode, file: &FileNode, paths: &[PathBuf]) -> io::Result<PathBuf> {
        let first = paths.first().ok_or(io::ErrorKind::NotFound)?;
        let parent = first.parent().unwrap_or(Path::new("/"));
        self.make_parents(parent)?;
        let temporary = parent.join(format!(".capio-{}-{inode:x}.tmp", std::process::id()));
        let written = match (file.record, &file.lower) {
            (Some(record), _) => self.write_out(record, &temporary),
            // It only has other names than on disk.
            (None, Some(lower)) => fs::hard_link(lower, &temporary),
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        };
        written.inspect_err(|_| {
            // Half of a file helps nobody.
            let _ = fs::remove_file(&temporary);
        })?;
        Ok(temporary)
    }

    fn write_out(&self, record: u32, temporary: &Path) -> io::Result<()> {
        let mut options = File::options();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(temporary)?;
        let mut buffer = vec![0; 1 << 20];
        for (start, length) in self.records.data(record) {
            let mut at = start;
            while at < start + length {
                let part = (start + length - at).min(buffer.len() as u64) as usize;
                let Some(part) = buffer.get_mut(..part) else {
                    break;
                };
                self.records.read(record, at, part);
                file.write_all_at(part, at)?;
                at += part.len() as u64;
            }
        }
        file.set_len(self.records.size(record))?;
        set_attributes(&file, &self.records.attr(record))?;
        file.sync_all()
    }

    /// The directory on disk exists, with the session's permissions.
    fn make_parents(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_parents(parent)?;
        }
        fs::create_dir(path)
    }

    fn commit_all(&self, staged: Vec<Staged>, report: &mut DrainReport) -> BTreeSet<PathBuf> {
        let mut kept = BTreeSet::new();
        let mut parents = BTreeSet::new();
        for file in staged {
            let shown = self.display(file.inode);
            match self.commit(&file, report) {
                Ok(places) => {
                    parents.extend(
                        places
                            .iter()
                            .filter_map(|p| p.parent().map(Path::to_path_buf)),
                    );
                    kept.extend(places);
                    let (reason, bytes) = (file.reason, file.bytes);
                    report.kept.push(KeptFile {
                        path: shown,
                        bytes,
                        reason,
                    });
                }
                Err(error) => report.errors.push(format!(
                    "{shown} could not be moved into place: {error}; its content is in {}",
                    file.temporary.display()
                )),
            }
        }
        for parent in parents {
            if let Err(error) = File::open(&parent).and_then(|dir| dir.sync_all()) {
                report
                    .errors
                    .push(format!("{} could not be synced: {error}", parent.display()));
            }
        }
        kept
    }

    /// Moves a staged file to all its names.
    fn commit(&self, file: &Staged, report: &mut DrainReport) -> io::Result<Vec<PathBuf>> {
        let mut places = Vec::new();
        for (index, path) in file.paths.iter().enumerate() {
            let place = self.free_place(file.inode, path, report);
            self.make_parents(place.parent().unwrap_or(Path::new("/")))?;
            if index + 1 < file.paths.len() {
                let link = file.temporary.with_extension(format!("{index}.tmp"));
                fs::hard_link(&file.temporary, &link)?;
                fs::rename(&link, &place)?;
            } else {
                fs::rename(&file.temporary, &place)?;
            }
            places.push(place);
        }
        Ok(places)
    }

    /// `path`, or a name beside it when somebody else has put something there.
    fn free_place(&self, inode: Inode, path: &Path, report: &mut DrainReport) -> PathBuf {
        let Ok(meta) = path.symlink_metadata() else {
            return path.to_path_buf();
        };
        let file = self.names.get(inode).and_then(|node| node.file());
        let now = super::names::seen(&meta);
        let unchanged = file.is_some_and(|file| {
            let original = file.lower.as_deref() == Some(path) || is_original(file, &meta);
            original && file.seen.is_none_or(|seen| seen == now)
        });
        let gave_way = self.names.removed().any(|removed| removed == path)
            && self.names.was_at(path).is_none_or(|seen| seen == now);
        if unchanged || gave_way {
            return path.to_path_buf();
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".capio");
        report.conflicts.push(Conflict {
            path: self.display_path(path.as_os_str().as_bytes()),
            kept_as: self.display_path(beside.as_bytes()),
        });
        PathBuf::from(beside)
    }

    /// Directories that the session made: those above kept files get their
    /// permissions, and those that were left empty on purpose are made.
    fn keep_directories(&self, kept: &BTreeSet<PathBuf>, report: &mut DrainReport) {
        let wanted = matches!(self.config.keep, Keep::Outputs | Keep::All);
        let mut made: Vec<(PathBuf, Attr)> = Vec::new();
        for node in self.names.iter() {
            let Kind::Directory(directory) = &node.kind else {
                continue;
            };
            let path = PathBuf::from(OsStr::from_bytes(&self.names.path_of(node.inode)));
            if directory.lower.as_deref() == Some(&path) {
                if directory.changed
                    && let Err(error) = set_path_attributes(&path, &node.attr)
                {
                    report.errors.push(format!(
                        "the attributes of {} could not be set: {error}",
                        path.display()
                    ));
                }
                continue;
            }
            if node.names.is_empty() {
                continue;
            }
            let above = kept
                .range(path.clone()..)
                .next()
                .is_some_and(|k| k.starts_with(&path));
            let keeps = wanted || self.is_permanent(path.as_os_str().as_bytes());
            let moved = directory.lower.is_some();
            if above || moved || (keeps && directory.is_empty()) {
                made.push((path, node.attr));
            }
        }
        made.sort_by(|a, b| b.0.cmp(&a.0));
        for (path, attr) in &made {
            let done = self
                .make_parents(path)
                .and_then(|()| set_path_attributes(path, attr));
            if let Err(error) = done {
                report
                    .errors
                    .push(format!("{} could not be made: {error}", path.display()));
            }
        }
    }

    /// Symbolic links that the session made.
    fn keep_links(&self, report: &mut DrainReport) {
        let wanted = matches!(self.config.keep, Keep::Outputs | Keep::All);
        let from_disk = self.names.found_on_disk();
        for node in self.names.iter() {
            let Kind::Symlink(content) = &node.kind else {
                continue;
            };
            let wanted = wanted || from_disk.contains(&node.inode);
            let content = Path::new(OsStr::from_bytes(content));
            for path in self.names.paths_of(node.inode) {
                if !wanted && !self.is_permanent(&path) {
                    continue;
                }
                let path = Path::new(OsStr::from_bytes(&path));
                if fs::read_link(path).is_ok_and(|now| now == content) {
                    continue;
                }
                let parent = path.parent().unwrap_or(Path::new("/"));
                let made = self.make_parents(parent);
                if self.names.removed().any(|removed| removed == path) {
                    // It may have been a file that nobody needs any more.
                    let _ = fs::remove_file(path);
                }
                let made = made.and_then(|()| std::os::unix::fs::symlink(content, path));
                if let Err(error) = made {
                    report
                        .errors
                        .push(format!("{} could not be made: {error}", path.display()));
                }
            }
        }
    }

    /// Whether somebody else has changed what the session had found there.
    fn was_replaced(&self, path: &Path, now: &fs::Metadata) -> bool {
        let was = self.names.was_at(path);
        was.is_some_and(|was| was != super::names::seen(now))
    }

    /// Names that the session removed and did not make again.
    fn remove_all(&mut self, kept: &BTreeSet<PathBuf>, report: &mut DrainReport) {
        let dir = self.names.dir().as_os_str().as_bytes().to_vec();
        let mut removed: Vec<_> = self.names.removed().map(Path::to_path_buf).collect();
        removed.sort();
        for path in removed.iter().rev() {
            let bytes = path.as_os_str().as_bytes();
            let inner = super::names::inside(&dir, bytes)
                .unwrap_or_default()
                .to_vec();
            let again = matches!(
                self.walk(0, &inner, false),
                super::names::Walk::Found { .. }
            );
            if again || kept.contains(path) {
                continue;
            }
            let shown = self.display_path(bytes);
            let done = match path.symlink_metadata() {
                Err(_) => continue,
                Ok(meta) if meta.is_dir() => fs::remove_dir(path),
                Ok(meta) if self.was_replaced(path, &meta) => {
                    report.errors.push(format!(
                        "{shown} was removed by the run but changed meanwhile by somebody else: \
                         it was left"
                    ));
                    continue;
                }
                Ok(_) => fs::remove_file(path),
            };
            match done {
                Ok(()) => report.kept.push(KeptFile {
                    path: format!("{shown} (removed)"),
                    bytes: 0,
                    reason: KeepReason::Changed,
                }),
                Err(error) => report
                    .errors
                    .push(format!("{shown} could not be removed: {error}")),
            }
        }
    }
}

/// Whether this is what the file was on disk, by any name.
fn is_original(file: &FileNode, meta: &fs::Metadata) -> bool {
    file.identity == Some((meta.dev(), meta.ino()))
}

fn set_path_attributes(path: &Path, attr: &Attr) -> io::Result<()> {
    set_attributes(&File::open(path)?, attr)
}

/// Owner (as far as allowed), permissions and times.
fn set_attributes(file: &File, attr: &Attr) -> io::Result<()> {
    let meta = file.metadata()?;
    if (meta.uid(), meta.gid()) != (attr.uid, attr.gid) {
        // Only root may give files away; as for `cp -p`, that is no error.
        let _ = std::os::unix::fs::fchown(file, Some(attr.uid), Some(attr.gid));
    }
    file.set_permissions(fs::Permissions::from_mode(attr.mode))?;
    let time = |ns: i64| UNIX_EPOCH + Duration::from_nanos(ns.max(0) as u64);
    let times = fs::FileTimes::new().set_accessed(time(attr.accessed));
    file.set_times(times.set_modified(time(attr.modified)))
}
