//! Directories that vanish with the test.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wire::place::{MAX_SESSION_PATH, session_path};

/// A directory of one run: `data` is what the workflow works in (`CAPIO_DIR`),
/// everything beside it belongs to the harness. On tmpfs where there is one.
#[derive(Debug)]
pub struct Scratch {
    root: TempDir,
}

impl Scratch {
    /// Makes an empty one.
    ///
    /// # Panics
    /// When no temporary directory can be made.
    pub fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let root = tempfile::Builder::new()
            .prefix("e2e-")
            .tempdir_in(if shm.is_dir() { shm } else { Path::new("/tmp") })
            .expect("a temporary directory can be made");
        let scratch = Self { root };
        let dirs = [
            scratch.data(),
            scratch.outside(),
            scratch.logs(),
            scratch.audit(),
        ];
        for dir in dirs {
            fs::create_dir(dir).expect("an empty directory takes a new one");
        }
        scratch
    }

    /// The directory the workflow works in.
    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A directory that capio does not take over; programs find it as `$OUTSIDE`.
    pub fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    /// Where `capio run --logs` puts the steps' output.
    pub fn logs(&self) -> PathBuf {
        self.root.path().join("logs")
    }

    /// Where the auditor's traces go.
    pub(crate) fn audit(&self) -> PathBuf {
        self.root.path().join("audit")
    }

    /// The directory of the session of `workflow` on [`Scratch::data`].
    ///
    /// # Panics
    /// Never: the directory exists, and names of sessions are ASCII.
    pub fn session(&self, workflow: &str) -> PathBuf {
        let data = self.data().canonicalize().expect("the directory exists");
        let mut buffer = [0; MAX_SESSION_PATH];
        let uid = nix::unistd::getuid().as_raw();
        let data = data.as_os_str().as_bytes();
        let length = session_path(&mut buffer, uid, data, workflow.as_bytes());
        PathBuf::from(OsStr::from_bytes(&buffer[..length]))
    }

    /// A path for a file of the harness.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// What a program left in `$OUTSIDE`; empty if it left nothing.
    pub fn note(&self, name: &str) -> String {
        fs::read_to_string(self.outside().join(name)).unwrap_or_default()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
