//! `renameat2(2)`. Errors come in the order in which the kernel finds them.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use wire::message::Name;

use super::calls::{last_component, os_error, without_slashes};
use super::engine::{Answer, Client, Engine, Outcome};
use super::names::{Inode, Walk};

/// Where one of the two names leads.
struct End {
    /// What has it now.
    inode: Option<Inode>,
    parent: Inode,
    name: Vec<u8>,
    path: Vec<u8>,
    /// The path says that it is a directory.
    slash: bool,
}

impl Engine {
    /// `renameat2(2)`.
    pub(super) fn rename(
        &mut self,
        _client: Client,
        from: Name<'_>,
        to: Name<'_>,
        flags: u32,
    ) -> Outcome {
        let exchange = match flags {
            0 | libc::RENAME_NOREPLACE => false,
            libc::RENAME_EXCHANGE => true,
            _ => return Err(libc::EINVAL),
        };
        // A symbolic link before a slash is not followed where names change.
        let source = self.walk(from.base, without_slashes(from.path), false);
        let target = self.walk(to.base, without_slashes(to.path), false);
        if let Some(native) = self.native_source(&source) {
            return self.rename_native(&native, target);
        }
        let source = self.end(source, from.path)?;
        let target = self.end(target, to.path)?;
        let dots = |path| matches!(last_component(path), b"" | b"." | b"..");
        if dots(from.path) {
            return Err(libc::EBUSY);
        }
        let keeps = flags & libc::RENAME_NOREPLACE != 0;
        if dots(to.path) {
            return Err(if keeps { libc::EEXIST } else { libc::EBUSY });
        }
        let inode = source.inode.ok_or(libc::ENOENT)?;
        if keeps && target.inode.is_some() {
            return Err(libc::EEXIST);
        }
        if exchange && target.inode.is_none() {
            return Err(libc::ENOENT);
        }
        let is_directory = self.names.directory(inode).is_some();
        if !is_directory && (source.slash || (target.slash && !exchange)) {
            return Err(libc::ENOTDIR);
        }
        if exchange
            && target.slash
            && target
                .inode
                .is_some_and(|at| self.names.directory(at).is_none())
        {
            return Err(libc::ENOTDIR);
        }
        if is_directory && self.names.lies_below(target.parent, inode) {
            return Err(libc::EINVAL);
        }
        if let Some(old) = target.inode
            && self.names.directory(old).is_some()
            && self.names.lies_below(source.parent, old)
        {
            return Err(if exchange {
                libc::EINVAL
            } else {
                libc::ENOTEMPTY
            });
        }
        if target.inode == Some(inode) {
            return Ok(Answer::Ok);
        }
        self.may_write(source.parent)?;
        self.may_write(target.parent)?;
        match target.inode {
            Some(other) if exchange => self.exchange((inode, source), (other, target)),
            _ => self.replace(inode, &source, target),
        }
    }

    /// The kernel's path of a source that is not the session's.
    fn native_source(&self, walk: &Walk) -> Option<Vec<u8>> {
        let path = match walk {
            Walk::Outside(path) => return Some(path.clone()),
            Walk::Missing { path, .. } => path.clone(),
            Walk::Found { parent, name, .. } => self.names.path_in(*parent, name),
            Walk::Error(_) => return None,
        };
        self.excluded(&path).then_some(path)
    }

    fn end(&self, walk: Walk, path: &[u8]) -> Result<End, i32> {
        let slash = path.ends_with(b"/");
        let end = match walk {
            Walk::Error(error) => return Err(error),
            Walk::Outside(_) => return Err(libc::EXDEV),
            Walk::Missing {
                parent, name, path, ..
            } => End {
                inode: None,
                parent: parent.ok_or(libc::ENOENT)?,
                name,
                path,
                slash,
            },
            Walk::Found {
                inode,
                parent,
                name,
            } => End {
                inode: Some(inode),
                parent,
                path: self.names.path_in(parent, &name),
                name,
                slash,
            },
        };
        if self.excluded(&end.path) {
            return Err(libc::EXDEV);
        }
        Ok(end)
    }

    /// `inode` takes the target's name, from whatever has it.
    fn replace(&mut self, inode: Inode, source: &End, target: End) -> Outcome {
        self.load_tree(inode);
        if let Some(old) = target.inode {
            self.replaceable(inode, old)?;
            if self.names.directory(old).is_some() {
                self.names
                    .remove_shadow(old)
                    .map_err(|error| os_error(&error))?;
            }
            self.names.unbind(target.parent, &target.name);
        }
        self.names
            .rename((source.parent, &source.name), (target.parent, &target.name))
            .map_err(|error| os_error(&error))?;
        self.names.touch(source.parent);
        self.names.touch(target.parent);
        self.flow.renamed(&source.path, &target.path);
        self.after_rename(inode, &target.path, target.parent, target.inode);
        Ok(Answer::Ok)
    }

    /// Both names change places.
    fn exchange(&mut self, (a, one): (Inode, End), (b, other): (Inode, End)) -> Outcome {
        self.load_tree(a);
        self.load_tree(b);
        self.names
            .exchange((one.parent, &one.name), (other.parent, &other.name))
            .map_err(|error| os_error(&error))?;
        self.names.touch(one.parent);
        self.names.touch(other.parent);
        self.flow.exchanged(&one.path, &other.path);
        self.after_rename(a, &other.path, other.parent, None);
        self.after_rename(b, &one.path, one.parent, None);
        Ok(Answer::Ok)
    }

    /// What lies below a directory on disk must be known before its paths
    /// change.
    fn load_tree(&mut self, inode: Inode) {
        self.names.load_tree(inode);
        self.announce_found();
    }

    fn after_rename(&mut self, inode: Inode, path: &[u8], parent: Inode, replaced: Option<Inode>) {
        self.names_changed(inode);
        if let Some(file) = self.names.file_mut(inode) {
            file.modified = true;
            if let Some(record) = file.record {
                self.mark_stream(record, path);
            }
        }
        if let Some(old) = replaced {
            self.names_changed(old);
            self.drop_unused(old);
        }
        self.entry_added(parent);
    }

    /// Whether `new` may take the name of `old`.
    fn replaceable(&mut self, new: Inode, old: Inode) -> Result<(), i32> {
        self.names.load_if_directory(old);
        match (self.names.directory(new), self.names.directory(old)) {
            (Some(_), None) => Err(libc::ENOTDIR),
            (None, Some(_)) => Err(libc::EISDIR),
            (Some(_), Some(old)) if !old.is_empty() => Err(libc::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    /// Both names lie on the real file system, or it is another device.
    fn rename_native(&mut self, from: &[u8], to: Walk) -> Outcome {
        let to = match to {
            Walk::Outside(path) => path,
            Walk::Missing { path, .. } if self.excluded(&path) => path,
            Walk::Found { inode, .. } if self.excluded(&self.names.path_of(inode)) => {
                self.names.path_of(inode)
            }
            Walk::Error(error) => return Err(error),
            _ => return Err(libc::EXDEV),
        };
        self.native_parent(&to)?;
        let path = |bytes| Path::new(std::ffi::OsStr::from_bytes(bytes));
        std::fs::rename(path(from), path(&to)).map_err(|error| os_error(&error))?;
        Ok(Answer::Ok)
    }
}
