//! Calls on names: directories, links, renames, listings.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use wire::limits::MAX_FRAME;
use wire::message::{ENTRY_HEAD, Entry, Name, OfdId, Target};

use super::attributes::Aim;
use super::engine::{Answer, Client, Engine, Outcome};
use super::names::{Attr, Directory, Inode, Kind, Walk, join, now};
use super::opens::bytes;
use crate::flow::{FileId, FileKind, Reading, WaitFor};

/// Most bytes of packed entries in one answer.
const LISTING: usize = MAX_FRAME / 2;

/// A name that is free, or why the call ends here.
enum Place {
    Free {
        parent: Inode,
        name: Vec<u8>,
        path: Vec<u8>,
    },
    Native(Vec<u8>),
}

/// A name that is taken, or why the call ends here.
enum Taken {
    Node {
        inode: Inode,
        parent: Inode,
        name: Vec<u8>,
        path: Vec<u8>,
    },
    Native(Vec<u8>),
}

pub(super) fn os_error(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

impl Engine {
    /// Where something new named `name` would go.
    fn place(&mut self, name: Name<'_>, directory: bool) -> Result<Place, i32> {
        // What is there is in the way, whatever stands behind it.
        let bare = without_slashes(name.path);
        let slash = bare.len() < name.path.len();
        match self.walk(name.base, bare, false) {
            Walk::Error(error) => Err(error),
            Walk::Outside(path) => Ok(Place::Native(path)),
            Walk::Found { inode, .. } => {
                let path = self.names.path_of(inode);
                if self.excluded(&path) {
                    Ok(Place::Native(path))
                } else {
                    Err(libc::EEXIST)
                }
            }
            Walk::Missing { path, .. } if self.excluded(&path) => {
                self.native_parent(&path)?;
                Ok(Place::Native(path))
            }
            Walk::Missing {
                parent, name, path, ..
            } => {
                let parent = parent.ok_or(libc::ENOENT)?;
                if slash && !directory {
                    return Err(libc::ENOENT);
                }
                self.may_write(parent)?;
                Ok(Place::Free { parent, name, path })
            }
        }
    }

    /// The name of something that exists.
    fn taken(&mut self, name: Name<'_>) -> Result<Taken, i32> {
        match self.walk(name.base, name.path, false) {
            Walk::Error(error) => Err(error),
            Walk::Outside(path) => Ok(Taken::Native(path)),
            Walk::Missing { path, .. } if self.excluded(&path) => Ok(Taken::Native(path)),
            Walk::Missing { .. } => Err(libc::ENOENT),
            Walk::Found {
                inode,
                parent,
                name,
            } => {
                let path = self.names.path_in(parent, &name);
                if self.excluded(&path) {
                    return Ok(Taken::Native(path));
                }
                Ok(Taken::Node {
                    inode,
                    parent,
                    name,
                    path,
                })
            }
        }
    }

    fn make(&mut self, client: Client, name: Name<'_>, kind: Kind, attr_mode: u32) -> Outcome {
        let directory = matches!(kind, Kind::Directory(_));
        let (parent, name, path) = match self.place(name, directory)? {
            Place::Native(path) => return Ok(Answer::Native(path, None)),
            Place::Free { parent, name, path } => (parent, name, path),
        };
        let (uid, gid) = self.identity(parent);
        let inherited = self
            .names
            .get(parent)
            .map_or(0, |node| node.attr.mode & libc::S_ISGID);
        let mode = attr_mode | if directory { inherited } else { 0 };
        let attr = Attr::fresh(mode, uid, gid);
        let inode = self
            .names
            .make(parent, name, kind, attr)
            .map_err(|error| os_error(&error))?;
        self.names.touch(parent);
        let kind = self
            .names
            .get(inode)
            .map_or(FileKind::File, super::file_kind);
        self.flow
            .created(&path, FileId(inode), kind, Some(client.step));
        self.entry_added(parent);
        Ok(Answer::Ok)
    }

    /// `mkdir(2)`.
    pub(super) fn mkdir(&mut self, client: Client, name: Name<'_>, mode: u32) -> Outcome {
        self.make(client, name, Kind::Directory(Directory::default()), mode)
    }

    /// `symlink(2)`.
    pub(super) fn symlink(&mut self, client: Client, content: &[u8], name: Name<'_>) -> Outcome {
        if content.is_empty() {
            return Err(libc::ENOENT);
        }
        self.make(client, name, Kind::Symlink(content.to_vec()), 0o777)
    }

    /// `mknod(2)`: a plain file, or something that lives in the kernel.
    pub(super) fn mknod(
        &mut self,
        client: Client,
        name: Name<'_>,
        mode: u32,
        device: u64,
    ) -> Outcome {
        let format = mode & libc::S_IFMT;
        if format == 0 || format == libc::S_IFREG {
            return match self.place(name, false)? {
                Place::Native(path) => Ok(Answer::Native(path, None)),
                Place::Free { parent, name, path } => self
                    .create(client, parent, name, &path, mode & 0o7777)
                    .map(|_| Answer::Ok),
            };
        }
        let number = self.names.len();
        let special = self.session.join(wire::place::SPECIAL);
        let unused = (number..)
            .map(|n| special.join(n.to_string()))
            .find(|path| !path.exists());
        let path = unused.ok_or(libc::ENOSPC)?;
        let kind = nix::sys::stat::SFlag::from_bits_truncate(format);
        let bits = nix::sys::stat::Mode::from_bits_truncate(mode & 0o7777);
        nix::sys::stat::mknod(&path, kind, bits, device).map_err(|error| error as i32)?;
        let made = self.make(
            client,
            name,
            Kind::Special {
                format,
                path: path.clone(),
            },
            mode,
        );
        if !matches!(made, Ok(Answer::Ok)) {
            // Nobody knows its name yet.
            let _ = std::fs::remove_file(&path);
        }
        made
    }

    /// `unlink(2)` and `rmdir(2)`.
    pub(super) fn unlink(&mut self, client: Client, name: Name<'_>, directory: bool) -> Outcome {
        let _ = client;
        match last_component(name.path) {
            b"." if directory => return Err(libc::EINVAL),
            b".." if directory => return Err(libc::ENOTEMPTY),
            _ => {}
        }
        if self.is_link_with_slash(name) {
            return Err(libc::ENOTDIR);
        }
        let (inode, parent, name, path) = match self.taken(name)? {
            Taken::Native(path) => return Ok(Answer::Native(path, None)),
            Taken::Node {
                inode,
                parent,
                name,
                path,
            } => (inode, parent, name, path),
        };
        if name.is_empty() {
            return Err(if directory { libc::EBUSY } else { libc::EISDIR });
        }
        self.may_write(parent)?;
        self.names.load_if_directory(inode);
        self.look_for_excluded(inode);
        match (self.names.directory(inode), directory) {
            (Some(_), false) => return Err(libc::EISDIR),
            (None, true) => return Err(libc::ENOTDIR),
            (Some(entries), true) if !entries.is_empty() => return Err(libc::ENOTEMPTY),
            _ => {}
        }
        self.remove(parent, &name, inode, &path)?;
        Ok(Answer::Ok)
    }

    /// No plain file is created by a name with a slash behind it.
    ///
    /// # Errors
    /// `EISDIR`, whatever is there; why its directory is not reached.
    pub(super) fn may_create(&mut self, name: Name<'_>) -> Result<(), i32> {
        let bare = without_slashes(name.path);
        if bare.len() == name.path.len() {
            return Ok(());
        }
        let path = match self.walk(name.base, bare, false) {
            Walk::Error(error) => return Err(error),
            Walk::Found { parent, name, .. } => self.names.path_in(parent, &name),
            Walk::Missing { parent, path, .. } if parent.is_some() => path,
            _ => return Ok(()),
        };
        if self.excluded(&path) {
            return Ok(());
        }
        Err(libc::EISDIR)
    }

    /// Whether it is the name of a symbolic link with a slash behind it, which
    /// is followed but cannot be removed.
    fn is_link_with_slash(&mut self, name: Name<'_>) -> bool {
        let bare = without_slashes(name.path);
        if bare.len() == name.path.len() || bare.is_empty() {
            return false;
        }
        let Walk::Found { inode, .. } = self.walk(name.base, bare, false) else {
            return false;
        };
        let node = self.names.get(inode);
        node.is_some_and(|node| matches!(node.kind, Kind::Symlink(_)))
    }

    /// Takes away a name of `inode`.
    fn remove(&mut self, parent: Inode, name: &[u8], inode: Inode, path: &[u8]) -> Result<(), i32> {
        if self.names.directory(inode).is_some() {
            self.names
                .remove_shadow(inode)
                .map_err(|error| os_error(&error))?;
            if !self.spec.exclude().is_empty() && self.names.is_new_directory(inode) {
                // It may be there on disk for the sake of an excluded file.
                let _ = std::fs::remove_dir(Path::new(OsStr::from_bytes(path)));
            }
        }
        self.names.unbind(parent, name);
        self.names.touch(parent);
        self.flow.unlinked(path);
        self.names_changed(inode);
        if let Some(Kind::Special { path, .. }) = self.names.get(inode).map(|node| &node.kind)
            && path.starts_with(&self.session)
        {
            // Whoever has it open keeps it.
            let _ = std::fs::remove_file(path);
        }
        self.drop_unused(inode);
        Ok(())
    }

    /// Tells what has come of `inode`'s names, which is a change of its own.
    pub(super) fn names_changed(&mut self, inode: Inode) {
        let Some(node) = self.names.get_mut(inode) else {
            return;
        };
        node.attr.changed = now();
        if let Some(record) = node.file().and_then(|file| file.record) {
            let (links, changed) = (node.names.len() as u32, node.attr.changed as u64);
            self.shared.file(record).links.store(links, SeqCst);
            self.shared.file_sync(record).changed.store(changed, SeqCst);
        }
    }

    /// `linkat(2)`.
    pub(super) fn link(&mut self, client: Client, target: Target<'_>, to: Name<'_>) -> Outcome {
        let _ = client;
        let inode = match self.aim(target)? {
            Aim::Node(inode, _) => inode,
            Aim::Missing(_) => return Err(libc::ENOENT),
            Aim::Native(_) => return Err(libc::EXDEV),
        };
        let (parent, name, path) = match self.place(to, false)? {
            Place::Native(_) => return Err(libc::EXDEV),
            Place::Free { parent, name, path } => (parent, name, path),
        };
        if self.names.directory(inode).is_some() {
            return Err(libc::EPERM);
        }
        if self.names.is_full(inode) {
            return Err(libc::EMLINK);
        }
        self.names.bind(parent, name, inode);
        self.names.touch(parent);
        if let Some(file) = self.names.file_mut(inode) {
            file.modified = true;
            if let Some(record) = file.record {
                self.mark_stream(record, &path);
            }
        }
        self.names_changed(inode);
        self.flow.linked(&path, FileId(inode));
        self.entry_added(parent);
        Ok(Answer::Ok)
    }

    /// `readlink(2)`.
    pub(super) fn readlink(&mut self, name: Name<'_>) -> Outcome {
        match self.taken(name)? {
            Taken::Native(path) => Ok(Answer::Native(path, None)),
            Taken::Node { inode, .. } => match self.names.get(inode).map(|node| &node.kind) {
                Some(Kind::Symlink(content)) => Ok(Answer::Path(content.clone())),
                _ => Err(libc::EINVAL),
            },
        }
    }

    /// `realpath(3)`.
    pub(super) fn canonical(&mut self, client: Client, name: Name<'_>) -> Outcome {
        let _ = client;
        match self.walk(name.base, name.path, true) {
            Walk::Error(error) => Err(error),
            Walk::Outside(path) => Ok(Answer::Native(path, None)),
            Walk::Missing { path, .. } if self.excluded(&path) => Ok(Answer::Native(path, None)),
            Walk::Missing { .. } => Err(libc::ENOENT),
            Walk::Found {
                inode,
                parent,
                name,
            } if name.is_empty() || parent == inode => Ok(Answer::Path(self.names.path_of(inode))),
            Walk::Found { parent, name, .. } => Ok(Answer::Path(self.names.path_in(parent, &name))),
        }
    }

    /// The path of an open file, by the name it was opened by if it has that
    /// still.
    pub(super) fn name_of(&self, ofd: OfdId) -> Outcome {
        let ofd = self.ofds.get(ofd).ok_or(libc::EBADF)?;
        let mut paths = self.names.paths_of(ofd.inode);
        if paths.contains(&ofd.path) {
            return Ok(Answer::Path(ofd.path.clone()));
        }
        let deleted = || [&ofd.path[..], b" (deleted)"].concat();
        Ok(Answer::Path(paths.pop().unwrap_or_else(deleted)))
    }

    /// The kernel's path of a directory or of a file of the lower layer.
    pub(super) fn enter(&mut self, client: Client, name: Name<'_>, directory: bool) -> Outcome {
        let _ = client;
        let inode = match self.walk(name.base, name.path, true) {
            Walk::Error(error) => return Err(error),
            Walk::Outside(path) => return Ok(Answer::Native(path, None)),
            Walk::Missing { path, .. } if self.excluded(&path) => {
                return Ok(Answer::Native(path, None));
            }
            Walk::Missing { .. } => return Err(libc::ENOENT),
            Walk::Found { inode, .. } => inode,
        };
        if self.names.directory(inode).is_some() {
            self.permitted(inode, libc::X_OK as u32)?;
            return Ok(Answer::Native(
                bytes(&self.names.shadow_of(inode)),
                Some(inode),
            ));
        }
        if directory {
            return Err(libc::ENOTDIR);
        }
        let path = self.names.path_of(inode);
        if self.excluded(&path) {
            return Ok(Answer::Native(path, None));
        }
        if let Some(Kind::Special { path, .. }) = self.names.get(inode).map(|node| &node.kind) {
            return Ok(Answer::Native(bytes(path), None));
        }
        let lower = self.lower_of(inode).ok_or(libc::ENOEXEC)?;
        Ok(Answer::Native(bytes(&lower), Some(inode)))
    }

    /// Excluded files come and go on disk, without the session: brings those in
    /// a directory up to date.
    fn look_for_excluded(&mut self, inode: Inode) {
        if self.spec.exclude().is_empty() || self.names.directory(inode).is_none() {
            return;
        }
        let path = self.names.path_of(inode);
        let disk = Path::new(OsStr::from_bytes(&path));
        let excluded = |engine: &Self, name: &[u8]| engine.excluded(&join(&path, name));
        for entry in std::fs::read_dir(disk).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if excluded(self, name.as_bytes()) {
                self.names.appeared(inode, &entry.path(), name.as_bytes());
            }
        }
        let known: Vec<_> = self
            .names
            .directory(inode)
            .map_or_else(Vec::new, |directory| {
                let entries = directory.after(0);
                entries.map(|(_, entry)| entry.name.clone()).collect()
            });
        let is_there = |name: &[u8]| {
            let place = disk.join(OsStr::from_bytes(name));
            place.symlink_metadata().is_ok()
        };
        for name in &known {
            if !excluded(self, name) || is_there(name) {
                continue;
            }
            if let Some(gone) = self.names.vanished(inode, name) {
                self.flow.unlinked(&join(&path, name));
                self.drop_unused(gone);
            }
        }
        self.announce_found();
    }

    /// Entries of a directory after `cookie`.
    pub(super) fn list(
        &mut self,
        client: Client,
        inode: Inode,
        cookie: u64,
        thread: u32,
    ) -> Outcome {
        self.names.load_if_directory(inode);
        if cookie == 0 {
            self.look_for_excluded(inode);
        }
        self.settle();
        let path = self.names.path_of(inode);
        let reading = self.flow.listing(client.step, FileId(inode), &path);
        let is_final = self.flow.is_final(FileId(inode));
        let target = WaitFor::Listing(FileId(inode));
        match reading {
            Reading::Failed(_) => return Err(libc::EIO),
            Reading::UntilFinal if !is_final => {
                return self.wait(client, thread, target, path, "to be final");
            }
            _ => {}
        }
        let directory = self.names.directory(inode).ok_or(libc::ENOENT)?;
        let (packed, complete) = pack(directory, cookie);
        if packed.is_empty() && reading == Reading::Stream && !is_final {
            return self.wait(client, thread, target, path, "more entries");
        }
        let last = complete && (is_final || reading != Reading::Stream);
        Ok(Answer::Entries(packed, last))
    }
}

/// Packs entries until the answer is full; whether all went in.
fn pack(directory: &Directory, cookie: u64) -> (Vec<u8>, bool) {
    let mut packed = Vec::new();
    for (cookie, entry) in directory.after(cookie) {
        if packed.len() + ENTRY_HEAD + entry.name.len() > LISTING {
            return (packed, false);
        }
        let (inode, kind, name) = (entry.inode, entry.kind, entry.name.as_slice());
        packed.extend(
            Entry {
                cookie,
                inode,
                kind,
                name,
            }
            .head(),
        );
        packed.extend(name);
    }
    (packed, true)
}

/// `path` without the slashes at its end.
pub(super) fn without_slashes(path: &[u8]) -> &[u8] {
    let last = path.iter().rposition(|&byte| byte != b'/');
    &path[..last.map_or(0, |at| at + 1)]
}

/// The last component of a path, slashes after it aside.
pub(super) fn last_component(path: &[u8]) -> &[u8] {
    let path = without_slashes(path);
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}
