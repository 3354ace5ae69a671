//! `getxattr`, `listxattr`, `setxattr`, `removexattr`.
//!
//! Of what no program has changed, the client asks the disk. Programs get what
//! the file system of `CAPIO_DIR` would say, so that whatever was set can be
//! kept there.

use std::path::Path;

use nix::sys::statfs;
use wire::limits::MAX_XATTRS;
use wire::message::Target;

use super::access_list::AccessList;
use super::attributes::{Aim, Told};
use super::engine::{Answer, Client, Engine, Outcome};
use super::extended::{ACCESS_LIST, Extended, Family};
use super::journal;
use super::names::{Inode, Kind};
use super::opens::bytes;

/// Extended attributes may take this part of the cache, besides it.
const SHARE: u64 = 16;
/// What a block of a file system needs for itself before the attributes in it.
const BLOCK_HEAD: usize = 36;

impl Engine {
    /// `getxattr(2)`.
    pub(super) fn get_xattr(
        &mut self,
        client: Client,
        target: Target<'_>,
        name: &[u8],
        thread: u32,
    ) -> Outcome {
        let inode = match self.readable(client, target, thread)? {
            Ok(inode) => inode,
            Err(answer) => return Ok(answer),
        };
        let family = Family::of(name)?;
        self.may_read(inode, family)?;
        named(family, name)?;
        let extended = self
            .names
            .get(inode)
            .and_then(|node| node.extended.as_ref());
        match (extended, self.names.on_disk(inode)) {
            (Some(extended), _) => {
                let value = extended.get(name).ok_or(libc::ENODATA)?;
                Ok(Answer::Value(value.to_vec()))
            }
            (None, Some(path)) => Ok(Answer::Native(bytes(&path), Some(inode))),
            (None, None) => Err(libc::ENODATA),
        }
    }

    /// `listxattr(2)`.
    pub(super) fn list_xattrs(
        &mut self,
        client: Client,
        target: Target<'_>,
        thread: u32,
    ) -> Outcome {
        let inode = match self.readable(client, target, thread)? {
            Ok(inode) => inode,
            Err(answer) => return Ok(answer),
        };
        let extended = self
            .names
            .get(inode)
            .and_then(|node| node.extended.as_ref());
        match (extended, self.names.on_disk(inode)) {
            (Some(extended), _) => {
                let hidden = |name: &[u8]| {
                    Family::of(name) == Ok(Family::Trusted) && self.may_trust().is_err()
                };
                let shown = extended.names().filter(|name| !hidden(name));
                let list = shown.flat_map(|name| [name, b"\0"]);
                Ok(Answer::Value(list.collect::<Vec<_>>().concat()))
            }
            (None, Some(path)) => Ok(Answer::Native(bytes(&path), Some(inode))),
            (None, None) => Ok(Answer::Value(Vec::new())),
        }
    }

    /// `setxattr(2)`.
    pub(super) fn set_xattr(
        &mut self,
        target: Target<'_>,
        name: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Outcome {
        let (create, replace) = (libc::XATTR_CREATE as u32, libc::XATTR_REPLACE as u32);
        if flags & !(create | replace) != 0 {
            return Err(libc::EINVAL);
        }
        let inode = match self.existing(target)? {
            Err(path) => return Ok(Answer::Native(path, None)),
            Ok(inode) => inode,
        };
        let family = Family::of(name)?;
        if let Family::AccessList | Family::DefaultList = family {
            return self.set_list(inode, family, name, value);
        }
        self.may_set(inode, family, name)?;
        let mut extended = self.extended(inode);
        match extended.get(name) {
            Some(_) if flags & create != 0 => return Err(libc::EEXIST),
            None if flags & replace != 0 => return Err(libc::ENODATA),
            _ => {}
        }
        extended.set(name, value);
        self.keep_extended(inode, extended)
    }

    /// `removexattr(2)`.
    pub(super) fn remove_xattr(&mut self, target: Target<'_>, name: &[u8]) -> Outcome {
        let inode = match self.existing(target)? {
            Err(path) => return Ok(Answer::Native(path, None)),
            Ok(inode) => inode,
        };
        let family = Family::of(name)?;
        if let Family::AccessList | Family::DefaultList = family {
            return self.set_list(inode, family, name, b"");
        }
        self.may_set(inode, family, name)?;
        let mut extended = self.extended(inode);
        if !extended.remove(name) {
            return Err(libc::ENODATA);
        }
        self.keep_extended(inode, extended)
    }

    /// What a call that reads is about; where it waits or goes elsewhere, the
    /// answer.
    fn readable(
        &mut self,
        client: Client,
        target: Target<'_>,
        thread: u32,
    ) -> Result<Result<Inode, Answer>, i32> {
        let (inode, path) = match self.aim(target)? {
            Aim::Native(path) => return Ok(Err(Answer::Native(path, None))),
            Aim::Missing(path) => return self.missing(client, thread, path).map(Err),
            Aim::Node(inode, path) => (inode, path),
        };
        Ok(match self.told(client, inode, path, thread)? {
            Told::Later(answer) => Err(answer),
            Told::Whole | Told::SoFar => Ok(inode),
        })
    }

    /// Whether the kernel would let the session's user have attributes of the
    /// administrator's: it is asked on the session's own directory.
    fn may_trust(&self) -> Result<(), i32> {
        let name = "trusted.capio";
        let tried = xattr::set(&self.session, name, b"");
        let tried = tried.and_then(|()| xattr::remove(&self.session, name));
        tried.map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => libc::ENOTSUP,
            _ => libc::EPERM,
        })
    }

    /// Whether the file system of `CAPIO_DIR` keeps such attributes.
    fn can_be_kept(&self, name: &[u8]) -> Result<(), i32> {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(name);
        match xattr::get(self.names.dir(), name) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(libc::ENOTSUP),
            _ => Ok(()),
        }
    }

    /// Only files and directories have attributes of their users'.
    fn takes_user(&self, inode: Inode) -> bool {
        let node = self.names.get(inode);
        node.is_some_and(|node| matches!(node.kind, Kind::File(_) | Kind::Directory(_)))
    }

    fn may_read(&self, inode: Inode, family: Family) -> Result<(), i32> {
        match family {
            Family::User if !self.takes_user(inode) => Err(libc::ENODATA),
            Family::User => self.permitted(inode, libc::R_OK as u32),
            Family::Trusted => self.may_trust().map_err(|_| libc::ENODATA),
            Family::AccessList | Family::DefaultList => self.takes_lists(inode),
            Family::Security => Ok(()),
        }
    }

    fn may_set(&self, inode: Inode, family: Family, name: &[u8]) -> Result<(), i32> {
        match family {
            Family::User if !self.takes_user(inode) => return Err(libc::EPERM),
            Family::User => {
                if self.is_sticky(inode) {
                    self.owned(inode)?;
                }
                self.permitted(inode, libc::W_OK as u32)?;
            }
            Family::Trusted => self.may_trust()?,
            // The kernel looks at those of inodes, and no others.
            _ => return Err(libc::ENOTSUP),
        }
        named(family, name)?;
        self.can_be_kept(name)
    }

    fn is_sticky(&self, inode: Inode) -> bool {
        let node = self.names.get(inode);
        node.is_some_and(|node| node.directory().is_some() && node.attr.mode & libc::S_ISVTX != 0)
    }

    /// Symbolic links have no access lists.
    fn takes_lists(&self, inode: Inode) -> Result<(), i32> {
        match self.names.get(inode).map(|node| &node.kind) {
            None => Err(libc::ENOENT),
            Some(Kind::Symlink(_)) => Err(libc::ENOTSUP),
            Some(_) => Ok(()),
        }
    }

    /// Sets an access list, or takes it away. One that says no more than the
    /// permission bits only sets those.
    fn set_list(&mut self, inode: Inode, family: Family, name: &[u8], value: &[u8]) -> Outcome {
        self.takes_lists(inode)?;
        self.can_be_kept(name)?;
        let list = AccessList::parse(value)?;
        self.owned(inode)?;
        if family == Family::DefaultList && self.names.directory(inode).is_none() {
            return match list {
                Some(_) => Err(libc::EACCES),
                None => Ok(Answer::Ok),
            };
        }
        let mut extended = self.extended(inode);
        let mode = match &list {
            Some(list) if family == Family::AccessList => Some(list.mode()),
            _ => None,
        };
        let stored = list.filter(|list| mode.is_none() || !list.is_trivial());
        let differs = match stored {
            Some(list) => {
                extended.set(name, &list.to_bytes());
                true
            }
            None => extended.remove(name),
        };
        if differs {
            self.keep_extended(inode, extended)?;
        }
        match mode {
            Some(mode) => self.change(inode, |attr| attr.mode = attr.mode & !0o777 | mode),
            None => Ok(Answer::Ok),
        }
    }

    /// Permission bits were set: an access list says the same.
    pub(super) fn set_list_mode(&mut self, inode: Inode, mode: u32) -> Outcome {
        let mut extended = self.extended(inode);
        let list = extended.get(ACCESS_LIST).map(AccessList::parse);
        let Some(Ok(Some(mut list))) = list else {
            return Ok(Answer::Ok);
        };
        list.set_mode(mode);
        extended.set(ACCESS_LIST, &list.to_bytes());
        self.keep_extended(inode, extended)
    }

    /// All that `inode` has now and that can be changed.
    fn extended(&self, inode: Inode) -> Extended {
        let changed = self.names.get(inode).and_then(|node| node.extended.clone());
        changed.unwrap_or_else(|| {
            let path = self.names.on_disk(inode);
            Extended::found(path.map_or_else(Vec::new, |path| journal::extended_of(&path)))
        })
    }

    /// `inode` has these from now on.
    fn keep_extended(&mut self, inode: Inode, extended: Extended) -> Outcome {
        let before = self.extended(inode);
        if extended.bytes() > before.bytes() {
            self.has_room(&extended)?;
        }
        let changed = self.change(inode, |_| ())?;
        self.names.set_extended(inode, extended);
        Ok(changed)
    }

    /// Whether so much can be kept, here and on disk.
    fn has_room(&self, extended: &Extended) -> Result<(), i32> {
        let total = (self.names.extended_bytes() + extended.bytes()) as u64;
        let fits = extended.bytes() <= MAX_XATTRS
            && block_of(self.names.dir()).is_none_or(|room| extended.bytes_in_block() <= room)
            && total <= self.config.cache_bytes / SHARE;
        fits.then_some(()).ok_or(libc::ENOSPC)
    }
}

/// Room for the attributes of a file in its block, on a file system that has
/// no more for them, or is not known to have.
fn block_of(dir: &Path) -> Option<usize> {
    let large = [
        statfs::XFS_SUPER_MAGIC,
        statfs::BTRFS_SUPER_MAGIC,
        statfs::TMPFS_MAGIC,
        statfs::NFS_SUPER_MAGIC,
    ];
    let stat = statfs::statfs(dir).ok()?;
    if large.contains(&stat.filesystem_type()) {
        return None;
    }
    let block = usize::try_from(stat.block_size()).ok()?;
    Some(block.saturating_sub(BLOCK_HEAD))
}

/// A namespace alone is no name.
fn named(family: Family, name: &[u8]) -> Result<(), i32> {
    let bare = matches!(family, Family::User | Family::Trusted | Family::Security)
        && name.ends_with(b".")
        && name.iter().filter(|&&byte| byte == b'.').count() == 1;
    if bare { Err(libc::EINVAL) } else { Ok(()) }
}
