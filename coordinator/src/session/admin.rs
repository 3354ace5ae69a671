//! Questions and orders to a running session from other processes, over the
//! Unix socket `admin.sock` in the session's directory.
//!
//! One request is one line of JSON, and so is its answer; the bytes of a file
//! follow their answer's line as they are. Both ends check that the other
//! belongs to the same user, and no line is longer than its limit.

mod transport;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{DiffEntry, Snapshot};

pub use transport::{AdminClient, SOCKET_NAME, bind, serve_admin};

/// What `capio ls`, `stat`, `cat`, `ps`, `diff`, `done` and `stop` ask of a session.
/// The engine implements it; [`AdminClient`] is the same over the socket.
/// Paths are absolute, below `CAPIO_DIR` and without `.` or `..`. Nothing here
/// waits for files to exist or to be final.
pub trait Admin: Send + Sync {
    /// Entries of a directory without `.` and `..`, or the one entry of a
    /// path that is no directory.
    fn list(&self, path: &Path) -> Result<Vec<Entry>, AdminError>;

    /// What is known of a path, symbolic links not followed.
    fn stat(&self, path: &Path) -> Result<Entry, AdminError>;

    /// Up to `len` published bytes from `offset` on; none at the end of what
    /// is published so far.
    fn read(&self, path: &Path, offset: u64, len: u32) -> Result<Vec<u8>, AdminError>;

    /// Steps, processes and waits.
    fn ps(&self) -> Result<Snapshot, AdminError>;

    /// What would change on disk if the session ended well now.
    fn diff(&self) -> Result<Vec<DiffEntry>, AdminError>;

    /// Declares a step ended.
    fn done(&self, step: &str) -> Result<(), AdminError>;

    /// Asks the session to drain and end; returns before it has.
    fn stop(&self) -> Result<(), AdminError>;
}

/// The engine's side of [`Admin`], as [`serve_admin`] takes it.
pub use self::Admin as AdminHandler;

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminError {
    /// The error number, where one fits (`ENOENT`, ...).
    pub errno: Option<i32>,
    /// One sentence for the user.
    pub message: String,
}

impl AdminError {
    /// An error of the session or the connection.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            errno: None,
            message: message.into(),
        }
    }

    /// An error of a path, told in the system's words.
    #[must_use]
    pub fn path(path: &Path, errno: i32) -> Self {
        let reason = nix::errno::Errno::from_raw(errno).desc();
        Self {
            errno: Some(errno),
            message: format!("{}: {reason}", path.display()),
        }
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AdminError {}

/// A file name or path as Linux has it: any bytes. In JSON a string, or an
/// array of bytes when it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "NameRepr", into = "NameRepr")]
pub struct FileName(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum NameRepr {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<NameRepr> for FileName {
    fn from(repr: NameRepr) -> Self {
        match repr {
            NameRepr::Text(text) => Self(text.into_bytes()),
            NameRepr::Bytes(bytes) => Self(bytes),
        }
    }
}

impl From<FileName> for NameRepr {
    fn from(name: FileName) -> Self {
        String::from_utf8(name.0)
            .map_or_else(|error| Self::Bytes(error.into_bytes()), NameRepr::Text)
    }
}

impl From<&Path> for FileName {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl FileName {
    /// The same as a path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl fmt::Display for FileName {
    /// Control characters and bytes that are not UTF-8 are escaped, so that a
    /// name cannot play tricks on a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// What kind of file an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// One file, directory or link of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in the directory listed, or the path asked for.
    pub name: FileName,
    /// What it is.
    pub kind: EntryKind,
    /// Size published so far, in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Inode number as programs see it.
    pub inode: u64,
    /// Number of names.
    pub links: u64,
    /// Last change of content, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// Committed for ever.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// It lies in `CAPIO_DIR` on disk and was not changed.
    pub on_disk: bool,
    /// Target of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<FileName>,
}
