//! What a session is about to change in `CAPIO_DIR`, written down first.
//!
//! ```text
//! CAPIO_DIR/.capio-journal-WORKFLOW/     mode 0700, hidden from programs
//!     lock        held (flock) by whoever works on this
//!     elsewhere   staging directories on mounts below CAPIO_DIR, if any
//!     1, 2, ...   what will be put into place: files, links, pipes
//!     journal     the changes with checksums: from now on they are committed
//!     started     the first of them may have been made
//! ```
//!
//! All data is staged and synced before the journal gets its name. Without a
//! journal the directory is only garbage; with one, every change in it can be
//! made again from the start, any number of times, with the same result.

mod apply;
mod disk;
mod settle;
mod stage;
#[cfg(test)]
pub(super) mod tests;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::session::FileName;

pub(super) use apply::{Applied, allows};
pub(super) use disk::{SparseSum, data_of, extended_of, write_sparse};
pub use settle::settle;
pub(super) use settle::{abandoned, recover};
pub(super) use stage::{Material, Stage};

/// What the names of staging directories begin with.
const PREFIX: &str = ".capio-journal-";
const LOCK: &str = "lock";
const ELSEWHERE: &str = "elsewhere";
const JOURNAL: &str = "journal";
const STARTED: &str = "started";
/// First word of a journal's first line, with the version of the format.
const MAGIC: &str = "capio-journal 1";
/// No journal is longer: some ten million changes.
const MAX_JOURNAL: u64 = 4 << 30;

/// Whether a name in `CAPIO_DIR` is a staging directory's: programs do not see
/// it.
#[must_use]
pub(super) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(PREFIX.as_bytes())
}

/// The staging directory of a workflow.
fn place_of(dir: &Path, workflow: &str) -> PathBuf {
    dir.join(format!("{PREFIX}{workflow}"))
}

/// Something that lies, or lay, at a path on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A plain file. Size and time tell whether it has changed.
    File {
        /// Size in bytes.
        bytes: u64,
        /// Modification time, ns since the epoch.
        modified: i64,
    },
    /// A symbolic link with this content.
    Link(FileName),
    /// A directory.
    Directory,
    /// A pipe, socket or device; `S_IFMT` bits.
    Other(u32),
}

impl Found {
    /// What these attributes at this path tell.
    #[must_use]
    pub(super) fn of(path: &Path, meta: &fs::Metadata) -> Self {
        let kind = meta.file_type();
        if kind.is_file() {
            let modified = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
            let bytes = meta.size();
            Self::File { bytes, modified }
        } else if kind.is_dir() {
            Self::Directory
        } else if kind.is_symlink() {
            let content = fs::read_link(path).unwrap_or_default();
            Self::Link(FileName::from(content.as_path()))
        } else {
            Self::Other(meta.mode() & libc::S_IFMT)
        }
    }

    /// What is there now.
    ///
    /// # Errors
    /// When that cannot be told.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        match path.symlink_metadata() {
            Ok(meta) => Ok(Self::of(path, &meta)),
            Err(error) if is_missing(&error) => Ok(Self::Nothing),
            Err(error) => Err(error),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
    )
}

/// Owner, permissions and times as they are to be; `None` leaves them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attributes {
    /// Permission bits, owner and group.
    pub mode: Option<(u32, u32, u32)>,
    /// Access time, ns since the epoch.
    pub accessed: Option<i64>,
    /// Modification time.
    pub modified: Option<i64>,
    /// Extended attributes to add: name and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extended: Vec<(FileName, Vec<u8>)>,
    /// Extended attributes to take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<FileName>,
    /// It has no other extended attributes of the user's.
    #[serde(default)]
    pub exact: bool,
}

/// Something that is staged: by which name, and how it can be recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Staged {
    /// 0: the main staging directory, else one of those elsewhere.
    pub place: usize,
    /// Its name there.
    pub number: u32,
    /// Its inode there, by which it is known once in place.
    pub inode: u64,
    /// Size.
    pub bytes: u64,
    /// Checksum ([`SparseSum`]) of what the session wrote.
    pub sum: Option<u32>,
}

/// One change. Paths are relative to `CAPIO_DIR`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// Takes a name away, unless something else than what was found has it.
    Remove {
        /// Which.
        path: FileName,
        /// What the session had found there.
        found: Found,
    },
    /// Makes a directory, unless there is one.
    MakeDirectory {
        /// Where.
        path: FileName,
    },
    /// Moves something staged into place, or beside it if something else than
    /// what was found is there.
    Put {
        /// What.
        staged: Staged,
        /// Where.
        path: FileName,
        /// What the session had found there.
        found: Found,
    },
    /// Sets attributes of what is there.
    Attributes {
        /// Of what.
        path: FileName,
        /// The attributes.
        attributes: Attributes,
    },
}

impl Attributes {
    /// Those of something on disk.
    fn of(path: &Path, meta: &fs::Metadata) -> Self {
        let time = |seconds: i64, ns: i64| Some(seconds * 1_000_000_000 + ns);
        Self {
            mode: Some((meta.mode() & 0o7777, meta.uid(), meta.gid())),
            accessed: time(meta.atime(), meta.atime_nsec()),
            modified: time(meta.mtime(), meta.mtime_nsec()),
            extended: extended_of(path),
            ..Self::default()
        }
    }
}

impl Change {
    fn path(&self) -> &FileName {
        match self {
            Self::Remove { path, .. }
            | Self::MakeDirectory { path }
            | Self::Put { path, .. }
            | Self::Attributes { path, .. } => path,
        }
    }
}

/// All that is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    /// Staging directories elsewhere, absolute.
    elsewhere: Vec<FileName>,
    changes: Vec<Change>,
}

impl Journal {
    /// As it is stored: a line with version, length and checksum, then JSON.
    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let body = serde_json::to_vec(self)?;
        let (length, sum) = (body.len(), crc32fast::hash(&body));
        let mut bytes = format!("{MAGIC} {length} {sum:08x}\n").into_bytes();
        bytes.extend(body);
        Ok(bytes)
    }

    /// Reads it back; the error says what is wrong with it.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let (head, body) = bytes.split_at(end.ok_or("its first line is cut off")?);
        let body = body.get(1..).unwrap_or_default();
        let head = str::from_utf8(head).map_err(|_| "its first line is damaged")?;
        let head = head.strip_prefix(MAGIC);
        let head = head.ok_or("it is of another version, or damaged")?;
        let (length, sum) = head.trim_start().split_once(' ').unwrap_or_default();
        if length.parse() != Ok(body.len()) {
            return Err("it is cut off".to_owned());
        }
        if u32::from_str_radix(sum, 16) != Ok(crc32fast::hash(body)) {
            return Err("its checksum is wrong".to_owned());
        }
        let journal: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        match journal.changes.iter().find(|c| !is_inner(c.path())) {
            Some(change) => Err(format!("{} is no path below it", change.path())),
            None => Ok(journal),
        }
    }
}

/// Whether a path stays below the directory it is meant in.
fn is_inner(path: &FileName) -> bool {
    let mut parts = path.as_path().components();
    parts.all(|part| matches!(part, Component::Normal(_)))
}

/// `path`, relative to `dir`.
#[must_use]
pub(super) fn relative(dir: &Path, path: &Path) -> FileName {
    FileName::from(path.strip_prefix(dir).unwrap_or(path))
}

/// `path` with something behind its name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut longer = path.as_os_str().to_owned();
    longer.push(OsStr::from_bytes(suffix.as_bytes()));
    PathBuf::from(longer)
}
