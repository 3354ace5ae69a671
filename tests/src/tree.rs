//! What a directory holds, for comparison.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Every entry below a directory: kind, mode, content and extended attributes.
/// Times are left out; they differ between two runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(PartialEq, Eq)]
struct Entry {
    kind: Kind,
    extended: BTreeMap<OsString, Vec<u8>>,
}

#[derive(PartialEq, Eq)]
enum Kind {
    File { mode: u32, content: Vec<u8> },
    Directory { mode: u32 },
    Link { target: PathBuf },
    Other,
}

impl Tree {
    /// Reads the directory `root`, leaving out the paths in `ignored` (relative
    /// to it, with everything below them).
    ///
    /// # Panics
    /// When something in it cannot be read.
    pub fn read(root: &Path, ignored: &[String]) -> Self {
        let mut tree = Self::default();
        tree.add(root, Path::new(""), ignored);
        tree
    }

    /// How `self` (wanted) and `other` (found) differ, a line per path; empty if
    /// they are the same.
    pub fn differences(&self, other: &Self) -> String {
        let mut text = String::new();
        for (path, wanted) in &self.entries {
            match other.entries.get(path) {
                None => text += &format!("{}: missing, wanted {wanted}\n", path.display()),
                Some(found) if found != wanted => {
                    text += &format!("{}: {found}, wanted {wanted}", path.display());
                    text += &format!("{}\n", first_difference(wanted, found));
                }
                Some(_) => {}
            }
        }
        for (path, found) in &other.entries {
            if !self.entries.contains_key(path) {
                text += &format!("{}: too much ({found})\n", path.display());
            }
        }
        text
    }

    /// The content of a file of the tree.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn content(&self, path: &str) -> &[u8] {
        match self.entries.get(Path::new(path)).map(|entry| &entry.kind) {
            Some(Kind::File { content, .. }) => content,
            _ => panic!("the tree has no file {path}"),
        }
    }

    fn add(&mut self, root: &Path, below: &Path, ignored: &[String]) {
        let list = fs::read_dir(root.join(below)).expect("a result directory can be listed");
        for item in list {
            let item = item.expect("a result directory can be listed");
            let path = below.join(item.file_name());
            if ignored.iter().any(|skip| path == Path::new(skip)) {
                continue;
            }
            let full = item.path();
            let entry = Entry::read(&full)
                .unwrap_or_else(|error| panic!("{} cannot be read: {error}", full.display()));
            if matches!(entry.kind, Kind::Directory { .. }) {
                self.add(root, &path, ignored);
            }
            self.entries.insert(path, entry);
        }
    }
}

impl Entry {
    fn read(path: &Path) -> std::io::Result<Self> {
        let data = fs::symlink_metadata(path)?;
        let mode = data.permissions().mode() & 0o7777;
        let kind = if data.is_file() {
            Kind::File {
                mode,
                content: fs::read(path)?,
            }
        } else if data.is_dir() {
            Kind::Directory { mode }
        } else if data.is_symlink() {
            Kind::Link {
                target: fs::read_link(path)?,
            }
        } else {
            Kind::Other
        };
        let extended = extended(path)?;
        Ok(Self { kind, extended })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::File { mode, content } => write!(f, "file {mode:o} of {} bytes", content.len()),
            Kind::Directory { mode } => write!(f, "directory {mode:o}"),
            Kind::Link { target } => write!(f, "link to {}", target.display()),
            Kind::Other => f.write_str("neither file, directory nor link"),
        }?;
        self.extended.iter().try_for_each(|(name, value)| {
            let value = String::from_utf8_lossy(value);
            write!(f, ", {}={value:?}", name.display())
        })
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a program can have set: the labels of security modules are the
/// machine's.
fn extended(path: &Path) -> std::io::Result<BTreeMap<OsString, Vec<u8>>> {
    let names = match xattr::list(path) {
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return Ok(BTreeMap::new()),
        names => names?,
    };
    let set = names.filter(|name| !name.as_encoded_bytes().starts_with(b"security."));
    let pairs = set.map(|name| {
        let value = xattr::get(path, &name)?.unwrap_or_default();
        Ok((name, value))
    });
    pairs.collect()
}

/// Where two files part, with what stands there.
fn first_difference(wanted: &Entry, found: &Entry) -> String {
    let (
        Kind::File {
            content: wanted, ..
        },
        Kind::File { content: found, .. },
    ) = (&wanted.kind, &found.kind)
    else {
        return String::new();
    };
    let same = wanted.iter().zip(found).take_while(|(a, b)| a == b).count();
    if same == wanted.len() && same == found.len() {
        return String::new();
    }
    let show = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[same..bytes.len().min(same + 60)]).into_owned()
    };
    format!(
        ", from byte {same} on {:?}, wanted {:?}",
        show(found),
        show(wanted)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_a_missing_file_a_mode_and_an_attribute_are_all_seen() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for dir in &dirs {
            fs::write(dir.path().join("same"), "same").unwrap();
            fs::write(dir.path().join("byte"), "abc").unwrap();
            fs::write(dir.path().join("mode"), "abc").unwrap();
            fs::write(dir.path().join("attribute"), "abc").unwrap();
        }
        xattr::set(dirs[1].path().join("attribute"), "user.a", b"x").unwrap();
        fs::write(dirs[0].path().join("gone"), "").unwrap();
        fs::write(dirs[1].path().join("byte"), "abX").unwrap();
        fs::set_permissions(
            dirs[1].path().join("mode"),
            fs::Permissions::from_mode(0o600),
        )
        .unwrap();
        let [wanted, found] = dirs.each_ref().map(|dir| Tree::read(dir.path(), &[]));
        let report = wanted.differences(&found);
        assert_eq!(report.lines().count(), 4, "{report}");
        assert!(
            report.contains("byte: ") && report.contains("from byte 2 on"),
            "{report}"
        );
        assert!(found.differences(&wanted).contains("gone: too much"));
        assert!(wanted.differences(&wanted).is_empty());
    }

    #[test]
    fn ignored_paths_hide_everything_below_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "x").unwrap();
        let tree = Tree::read(dir.path(), &["sub".into()]);
        assert_eq!(tree, Tree::default());
    }
}
