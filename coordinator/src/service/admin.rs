//! Answers to `capio ls`, `stat`, `cat`, `ps`, `done` and `stop`.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::engine::Engine;
use super::names::{Inode, Kind, Walk, inside};
use super::server::{Shared, lock};
use crate::flow::FileId;
use crate::session::{Admin, AdminError, DiffEntry, Entry, EntryKind, FileName, Snapshot, StepEnd};

/// The engine as other processes ask it.
pub(super) struct EngineAdmin(pub(super) Shared);

/// Where the bytes of a file come from.
enum Source {
    Cached(u32),
    Disk(PathBuf),
}

impl Engine {
    fn find(&mut self, path: &Path, follow: bool) -> Result<Inode, AdminError> {
        let dir = self.names.dir().as_os_str().as_bytes().to_vec();
        let inner = inside(&dir, path.as_os_str().as_bytes());
        let inner = inner.ok_or_else(|| AdminError::path(path, libc::EXDEV))?;
        let found = self.walk(0, inner, follow);
        self.settle();
        match found {
            Walk::Found { inode, .. } => Ok(inode),
            Walk::Missing { .. } => Err(AdminError::path(path, libc::ENOENT)),
            Walk::Outside(_) => Err(AdminError::path(path, libc::EXDEV)),
            Walk::Error(error) => Err(AdminError::path(path, error)),
        }
    }

    fn describe(&mut self, inode: Inode, name: FileName) -> Result<Entry, i32> {
        let attributes = self.attributes(inode)?;
        let node = self.names.get(inode).ok_or(libc::ENOENT)?;
        let (kind, target) = match &node.kind {
            Kind::File(_) => (EntryKind::File, None),
            Kind::Directory(_) => (EntryKind::Directory, None),
            Kind::Symlink(content) => (
                EntryKind::Symlink,
                Some(FileName::from(Path::new(std::ffi::OsStr::from_bytes(
                    content,
                )))),
            ),
            Kind::Special { .. } => (EntryKind::Other, None),
        };
        let on_disk = match &node.kind {
            Kind::File(file) => file.record.is_none() && !file.modified,
            Kind::Directory(directory) => directory.lower.is_some(),
            _ => false,
        };
        Ok(Entry {
            name,
            kind,
            size: attributes.size,
            mode: attributes.mode & 0o7777,
            uid: attributes.uid,
            gid: attributes.gid,
            inode,
            links: u64::from(attributes.links),
            modified_ns: attributes.modified,
            is_final: self.flow.is_final(FileId(inode)),
            on_disk,
            target,
        })
    }

    fn entries(&mut self, inode: Inode) -> Vec<Entry> {
        self.names.load_if_directory(inode);
        self.settle();
        let listed: Vec<_> = self
            .names
            .directory(inode)
            .map_or_else(Vec::new, |directory| {
                directory
                    .after(0)
                    .map(|(_, entry)| (entry.inode, entry.name.clone()))
                    .collect()
            });
        let mut entries: Vec<_> = listed
            .into_iter()
            .filter_map(|(inode, name)| {
                let name = FileName::from(Path::new(std::ffi::OsStr::from_bytes(&name)));
                self.describe(inode, name).ok()
            })
            .collect();
        entries.sort_by(|a, b| a.name.as_path().cmp(b.name.as_path()));
        entries
    }

    fn source(&mut self, path: &Path) -> Result<Source, AdminError> {
        let inode = self.find(path, true)?;
        let file = self.names.get(inode).and_then(|node| node.file());
        let file = file.ok_or_else(|| AdminError::path(path, libc::EISDIR))?;
        match (file.record, &file.lower) {
            (Some(record), _) => Ok(Source::Cached(record)),
            (None, Some(lower)) => Ok(Source::Disk(lower.clone())),
            (None, None) => Err(AdminError::path(path, libc::EIO)),
        }
    }

    fn read_cached(&self, record: u32, offset: u64, length: u32) -> Result<Vec<u8>, i32> {
        let end = self.records.size(record);
        let length = end.saturating_sub(offset).min(u64::from(length));
        let mut bytes = vec![0; length as usize];
        self.records.read(record, offset, &mut bytes)?;
        Ok(bytes)
    }
}

impl Admin for EngineAdmin {
    fn list(&self, path: &Path) -> Result<Vec<Entry>, AdminError> {
        let mut engine = lock(&self.0);
        let inode = engine.find(path, true)?;
        if engine.names.directory(inode).is_some() {
            return Ok(engine.entries(inode));
        }
        let entry = engine.describe(inode, FileName::from(path));
        entry
            .map(|entry| vec![entry])
            .map_err(|error| AdminError::path(path, error))
    }

    fn stat(&self, path: &Path) -> Result<Entry, AdminError> {
        let mut engine = lock(&self.0);
        let inode = engine.find(path, false)?;
        engine
            .describe(inode, FileName::from(path))
            .map_err(|error| AdminError::path(path, error))
    }

    fn read(&self, path: &Path, offset: u64, len: u32) -> Result<Vec<u8>, AdminError> {
        let mut engine = lock(&self.0);
        let source = engine.source(path)?;
        match source {
            Source::Cached(record) => engine
                .read_cached(record, offset, len)
                .map_err(|error| AdminError::path(path, error)),
            Source::Disk(lower) => {
                drop(engine);
                let fail = |error: std::io::Error| {
                    AdminError::path(path, error.raw_os_error().unwrap_or(libc::EIO))
                };
                let file = File::open(lower).map_err(fail)?;
                let mut bytes = vec![0; len as usize];
                let read = file.read_at(&mut bytes, offset).map_err(fail)?;
                bytes.truncate(read);
                Ok(bytes)
            }
        }
    }

    fn ps(&self) -> Result<Snapshot, AdminError> {
        Ok(lock(&self.0).snapshot())
    }

    fn diff(&self) -> Result<Vec<DiffEntry>, AdminError> {
        Ok(lock(&self.0).diff())
    }

    fn done(&self, step: &str) -> Result<(), AdminError> {
        let mut engine = lock(&self.0);
        let known = engine
            .flow
            .step_ids()
            .any(|id| engine.flow.step_name(id) == step);
        if !known {
            return Err(AdminError::new(format!(
                "there is no step \"{step}\" in this session; `capio ps` lists them"
            )));
        }
        let id = engine.flow.step(step);
        engine.end_step(id, StepEnd::Success);
        Ok(())
    }

    fn stop(&self) -> Result<(), AdminError> {
        crate::session::request_stop();
        Ok(())
    }
}
