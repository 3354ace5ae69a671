//! Attributes: `stat`, `access`, `chmod`, `chown`, `utimens`, sizes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid};
use wire::limits::{DIRECTORY_BYTES, MAX_FILE_SIZE, PAGE};
use wire::message::{Attributes, OfdId, SetTime, Target};

use super::engine::{Answer, Client, Engine, Outcome};
use super::names::{Attr, Inode, Kind, Node, Walk, now};
use crate::flow::{FileId, Reading, WaitFor};

/// Where a target leads.
pub(super) enum Aim {
    /// To this node, by this absolute path.
    Node(Inode, Vec<u8>),
    /// To nothing.
    Missing(Vec<u8>),
    /// Out of the session.
    Native(Vec<u8>),
}

/// Whether something may be told of a file yet.
pub(super) enum Told {
    /// All, as far as anybody ever knows.
    Whole,
    /// What is there so far.
    SoFar,
    /// Nothing: the answer.
    Later(Answer),
}

/// What a change of owner leaves of a file's permissions: no set-user-ID, and
/// a set-group-ID (without group execution: mandatory locks) only to the group.
fn without_set_ids(mode: u32, keeps_group: bool) -> u32 {
    let loses_group = mode & libc::S_IXGRP != 0 || !keeps_group;
    let group = if loses_group { libc::S_ISGID } else { 0 };
    mode & !(libc::S_ISUID | group)
}

impl Engine {
    pub(super) fn aim(&mut self, target: Target<'_>) -> Result<Aim, i32> {
        match target {
            Target::Ofd(id) => {
                let ofd = self.ofds.get(id).ok_or(libc::EBADF)?;
                Ok(Aim::Node(ofd.inode, ofd.path.clone()))
            }
            Target::Directory(inode) => {
                self.names.get(inode).ok_or(libc::ENOENT)?;
                Ok(Aim::Node(inode, self.names.path_of(inode)))
            }
            Target::Path { name, follow } => match self.walk(name.base, name.path, follow) {
                Walk::Error(error) => Err(error),
                Walk::Outside(path) => Ok(Aim::Native(path)),
                Walk::Missing { path, .. } if self.excluded(&path) => Ok(Aim::Native(path)),
                Walk::Missing {
                    parent, name, path, ..
                } => {
                    if let Some(parent) = parent {
                        self.learn_missing(parent, &name, &path);
                    }
                    Ok(Aim::Missing(path))
                }
                Walk::Found {
                    inode,
                    parent,
                    name,
                } => {
                    let path = if name.is_empty() {
                        self.names.path_of(inode)
                    } else {
                        self.names.path_in(parent, &name)
                    };
                    if self.excluded(&path) {
                        Ok(Aim::Native(path))
                    } else {
                        self.learn(parent, &name, inode, &path);
                        Ok(Aim::Node(inode, path))
                    }
                }
            },
        }
    }

    /// Attributes, and whether they may be told yet.
    pub(super) fn stat(&mut self, client: Client, target: Target<'_>, thread: u32) -> Outcome {
        let (inode, path) = match self.aim(target)? {
            Aim::Native(path) => return Ok(Answer::Native(path, None)),
            Aim::Missing(path) => return self.missing(client, thread, path),
            Aim::Node(inode, path) => (inode, path),
        };
        match self.told(client, inode, path, thread)? {
            Told::Later(answer) => Ok(answer),
            Told::SoFar => {
                let mut attributes = self.attributes(inode)?;
                let record = self
                    .names
                    .get(inode)
                    .and_then(Node::file)
                    .and_then(|f| f.record);
                if let Some(record) = record {
                    attributes.size = self.records.frontier(record);
                }
                Ok(Answer::Attributes(attributes))
            }
            Told::Whole => {
                let attributes = self.attributes(inode)?;
                if attributes.mode & libc::S_IFMT == libc::S_IFDIR
                    && let Some(table) = &mut self.names.table
                {
                    table.tell(&attributes);
                }
                Ok(Answer::Attributes(attributes))
            }
        }
    }

    /// Whether the client may know what `inode` holds; until then it waits.
    pub(super) fn told(
        &mut self,
        client: Client,
        inode: Inode,
        path: Vec<u8>,
        thread: u32,
    ) -> Result<Told, i32> {
        // Only what holds bytes has something to wait for.
        if self.names.get(inode).and_then(Node::file).is_none() {
            return Ok(Told::Whole);
        }
        let is_final = self.flow.is_final(FileId(inode));
        match self.flow.reading(client.step, FileId(inode), &path) {
            Reading::UntilFinal if !is_final => {
                let target = WaitFor::Final(FileId(inode));
                let waits = self.wait(client, thread, target, path, "to be final");
                waits.map(Told::Later)
            }
            Reading::Failed(_) => Err(libc::EIO),
            Reading::Stream if !is_final => Ok(Told::SoFar),
            _ => Ok(Told::Whole),
        }
    }

    /// Attributes as they are now.
    pub(super) fn attributes(&mut self, inode: Inode) -> Result<Attributes, i32> {
        self.names.load_if_directory(inode);
        let node = self.names.get(inode).ok_or(libc::ENOENT)?;
        let links = node
            .names
            .len()
            .max(usize::from(node.inode == self.names.root())) as u32;
        let mut size = DIRECTORY_BYTES;
        let mut allocated = DIRECTORY_BYTES;
        let mut attr = node.attr;
        let mut rdev = 0;
        let mut count = links;
        match &node.kind {
            Kind::Directory(directory) => count = 2 + directory.subdirectories(),
            Kind::Symlink(content) => (size, allocated) = (content.len() as u64, 0),
            Kind::Special { path, .. } => {
                (size, allocated) = (0, 0);
                rdev = fs::symlink_metadata(path).map_or(0, |meta| meta.rdev());
            }
            Kind::File(file) => match (file.record, &file.lower) {
                (Some(record), _) => {
                    attr = self.records.attr(record);
                    size = self.records.size(record);
                    allocated = self.records.allocated(record);
                }
                (None, Some(lower)) => {
                    let meta = fs::symlink_metadata(lower);
                    let meta = meta.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
                    (attr, size, allocated) = (Attr::of(&meta), meta.size(), meta.blocks() * 512);
                }
                (None, None) => return Err(libc::EIO),
            },
        }
        Ok(Attributes {
            inode,
            mode: node.format() | attr.mode,
            links: count,
            uid: attr.uid,
            gid: attr.gid,
            rdev,
            size,
            allocated: allocated.div_ceil(PAGE) * PAGE,
            accessed: attr.accessed,
            modified: attr.modified,
            changed: attr.changed,
            born: attr.born,
        })
    }

    /// Owner, group and permissions that hold now.
    fn attr(&self, inode: Inode) -> Option<Attr> {
        let node = self.names.get(inode)?;
        let Some(file) = node.file() else {
            return Some(node.attr);
        };
        match (file.record, &file.lower) {
            (Some(record), _) => Some(self.records.attr(record)),
            (None, Some(lower)) => Some(Attr::of(&fs::symlink_metadata(lower).ok()?)),
            (None, None) => Some(node.attr),
        }
    }

    /// Whether the session's user may do what `wanted` (`R_OK` ...) says.
    pub(super) fn permitted(&self, inode: Inode, wanted: u32) -> Result<(), i32> {
        let attr = self.attr(inode).ok_or(libc::ENOENT)?;
        let directory = self.names.directory(inode).is_some();
        let wanted = wanted & 7;
        if Uid::effective().is_root() {
            let executable = wanted & 1 == 0 || directory || attr.mode & 0o111 != 0;
            return if executable {
                Ok(())
            } else {
                Err(libc::EACCES)
            };
        }
        let bits = if attr.uid == Uid::effective().as_raw() {
            attr.mode >> 6
        } else if attr.gid == Gid::effective().as_raw() || self.in_group(attr.gid) {
            attr.mode >> 3
        } else {
            attr.mode
        };
        if bits & wanted == wanted {
            Ok(())
        } else {
            Err(libc::EACCES)
        }
    }

    fn in_group(&self, gid: u32) -> bool {
        nix::unistd::getgroups().is_ok_and(|groups| groups.contains(&Gid::from_raw(gid)))
    }

    /// Whether names in `directory` may be made or taken away.
    pub(super) fn may_write(&self, directory: Inode) -> Result<(), i32> {
        self.permitted(directory, (libc::W_OK | libc::X_OK) as u32)
    }

    /// Owner and group of what is made in `parent`.
    pub(super) fn identity(&self, parent: Inode) -> (u32, u32) {
        let inherited = self
            .names
            .get(parent)
            .filter(|node| node.attr.mode & libc::S_ISGID != 0);
        let gid = inherited.map_or_else(|| Gid::effective().as_raw(), |node| node.attr.gid);
        (Uid::effective().as_raw(), gid)
    }

    /// `access(2)`.
    pub(super) fn access(
        &mut self,
        client: Client,
        target: Target<'_>,
        mode: u32,
        thread: u32,
    ) -> Outcome {
        if mode & !(libc::R_OK | libc::W_OK | libc::X_OK) as u32 != 0 {
            return Err(libc::EINVAL);
        }
        match self.aim(target)? {
            Aim::Native(path) => Ok(Answer::Native(path, None)),
            Aim::Missing(path) => self.missing(client, thread, path),
            Aim::Node(inode, _) => self.permitted(inode, mode).map(|()| Answer::Ok),
        }
    }

    /// Changes attributes wherever they are kept.
    pub(super) fn change(&mut self, inode: Inode, change: impl FnOnce(&mut Attr)) -> Outcome {
        let is_file = self
            .names
            .get(inode)
            .is_some_and(|node| node.file().is_some());
        if is_file {
            let record = self.copy_up(inode, false)?;
            let mut attr = self.records.attr(record);
            change(&mut attr);
            attr.changed = now();
            self.records.set_attr(record, &attr);
            if let Some(file) = self.names.file_mut(inode) {
                file.modified = true;
            }
        } else {
            let node = self.names.get_mut(inode).ok_or(libc::ENOENT)?;
            change(&mut node.attr);
            node.attr.changed = now();
            if let Kind::Directory(directory) = &mut node.kind {
                directory.changed = true;
            }
        }
        Ok(Answer::Ok)
    }

    pub(super) fn owned(&self, inode: Inode) -> Result<(), i32> {
        let uid = Uid::effective();
        let attr = self.attr(inode).ok_or(libc::ENOENT)?;
        if uid.is_root() || attr.uid == uid.as_raw() {
            Ok(())
        } else {
            Err(libc::EPERM)
        }
    }

    pub(super) fn existing(&mut self, target: Target<'_>) -> Result<Result<Inode, Vec<u8>>, i32> {
        match self.aim(target)? {
            Aim::Native(path) => Ok(Err(path)),
            Aim::Missing(_) => Err(libc::ENOENT),
            Aim::Node(inode, _) => Ok(Ok(inode)),
        }
    }

    /// `chmod(2)`.
    pub(super) fn chmod(&mut self, _client: Client, target: Target<'_>, mode: u32) -> Outcome {
        match self.existing(target)? {
            Err(path) => Ok(Answer::Native(path, None)),
            Ok(inode) => {
                self.owned(inode)?;
                self.change(inode, |attr| attr.mode = mode & 0o7777)?;
                self.set_list_mode(inode, mode)
            }
        }
    }

    /// `chown(2)`.
    pub(super) fn chown(
        &mut self,
        _client: Client,
        target: Target<'_>,
        uid: u32,
        gid: u32,
    ) -> Outcome {
        let inode = match self.existing(target)? {
            Err(path) => return Ok(Answer::Native(path, None)),
            Ok(inode) => inode,
        };
        self.owned(inode)?;
        let attr = self.attr(inode).ok_or(libc::ENOENT)?;
        let root = Uid::effective().is_root();
        let new_owner = uid != u32::MAX && uid != attr.uid;
        let own_group = gid == u32::MAX || gid == Gid::effective().as_raw() || self.in_group(gid);
        if !root && (new_owner || !own_group) {
            return Err(libc::EPERM);
        }
        let is_directory = self.names.directory(inode).is_some();
        let keeps_group = root || self.in_group(attr.gid);
        self.change(inode, |attr| {
            attr.uid = if uid == u32::MAX { attr.uid } else { uid };
            attr.gid = if gid == u32::MAX { attr.gid } else { gid };
            if !is_directory {
                attr.mode = without_set_ids(attr.mode, keeps_group);
            }
        })
    }

    /// `utimensat(2)`.
    pub(super) fn utimens(
        &mut self,
        _client: Client,
        target: Target<'_>,
        accessed: SetTime,
        modified: SetTime,
    ) -> Outcome {
        let inode = match self.existing(target)? {
            Err(path) => return Ok(Answer::Native(path, None)),
            Ok(inode) => inode,
        };
        let explicit = [accessed, modified]
            .iter()
            .any(|time| matches!(time, SetTime::At(_)));
        if self.owned(inode).is_err() {
            if explicit {
                return Err(libc::EPERM);
            }
            self.permitted(inode, libc::W_OK as u32)?;
        }
        let value = |time, old| match time {
            SetTime::Omit => old,
            SetTime::Now => now(),
            SetTime::At(time) => time,
        };
        self.change(inode, |attr| {
            attr.accessed = value(accessed, attr.accessed);
            attr.modified = value(modified, attr.modified);
        })
    }

    /// `truncate(2)` and `ftruncate(2)`.
    pub(super) fn truncate(&mut self, client: Client, target: Target<'_>, size: u64) -> Outcome {
        if size > MAX_FILE_SIZE {
            return Err(libc::EFBIG);
        }
        if let Target::Ofd(id) = target
            && !self.ofds.get(id).ok_or(libc::EBADF)?.writes()
        {
            return Err(libc::EINVAL);
        }
        let inode = match self.existing(target)? {
            Err(path) => return Ok(Answer::Native(path, None)),
            Ok(inode) => inode,
        };
        match self.names.get(inode).map(|node| &node.kind) {
            Some(Kind::File(_)) => {}
            Some(Kind::Directory(_)) => return Err(libc::EISDIR),
            _ => return Err(libc::EINVAL),
        }
        if matches!(target, Target::Path { .. }) {
            self.permitted(inode, libc::W_OK as u32)?;
        }
        let record = self.copy_up(inode, size == 0)?;
        if !self.at_rest(record) {
            return Ok(Answer::Soon);
        }
        let shortens = size < self.records.size(record);
        if !self.records.cut(record, size)? {
            return Ok(Answer::Soon);
        }
        if shortens {
            self.flow.truncated(FileId(inode), client.step);
        }
        self.modified(inode, record);
        Ok(Answer::Ok)
    }

    /// `fallocate(2)`.
    pub(super) fn allocate(
        &mut self,
        _client: Client,
        ofd: OfdId,
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Outcome {
        const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
        let ofd = self
            .ofds
            .get(ofd)
            .filter(|ofd| ofd.writes())
            .ok_or(libc::EBADF)?;
        let (inode, record) = (ofd.inode, ofd.record);
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= MAX_FILE_SIZE);
        let end = end.ok_or(libc::EFBIG)?;
        if !self.at_rest(record) {
            return Ok(Answer::Soon);
        }
        let grows = end > self.records.size(record);
        match mode {
            0 | KEEP => {
                self.records.reserve(record, offset, length)?;
                if mode == 0 && grows {
                    self.records.grow(record, end)?;
                }
            }
            libc::FALLOC_FL_ZERO_RANGE => {
                self.records.punch(record, offset, end)?;
                if grows {
                    self.records.grow(record, end)?;
                }
            }
            PUNCH => self.records.punch(record, offset, end)?,
            _ => return Err(libc::EOPNOTSUPP),
        }
        self.modified(inode, record);
        Ok(Answer::Ok)
    }

    /// Path on disk of a node that is only there.
    pub(super) fn lower_of(&self, inode: Inode) -> Option<PathBuf> {
        let file = self.names.get(inode)?.file()?;
        if file.record.is_some() {
            None
        } else {
            file.lower.clone()
        }
    }
}
