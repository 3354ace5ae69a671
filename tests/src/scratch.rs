//! Directories that vanish with the test.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

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
        for dir in [scratch.data(), scratch.outside(), scratch.logs()] {
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
