//! Files that went past the session: a program that cannot be taken over has made
//! them in the kernel's shadow of a directory, where they are about to vanish.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::engine::Engine;

/// More are not named.
const MOST: usize = 20;

impl Engine {
    /// One sentence for each.
    pub(super) fn strays(&self) -> Vec<String> {
        let shadow = self.session.join(wire::place::SHADOW);
        let tell = |path: PathBuf| {
            format!(
                "{} was written by a program that capio cannot take over (linked statically, or \
                 in Go), past the session, and is lost: redirect its output (> FILE), or let \
                 the spec `exclude` the file",
                self.names.dir().join(path).display()
            )
        };
        strays(&shadow).into_iter().map(tell).collect()
    }
}

/// What is no directory below `shadow`, relative to it.
fn strays(shadow: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![shadow.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else if let Ok(path) = entry.path().strip_prefix(shadow)
                && found.len() < MOST
            {
                found.push(path.to_path_buf());
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_directory_is_a_stray() {
        let shadow = tempfile::tempdir().unwrap();
        fs::create_dir_all(shadow.path().join("a/b")).unwrap();
        assert!(strays(shadow.path()).is_empty());
        fs::write(shadow.path().join("a/b/out"), "x").unwrap();
        fs::write(shadow.path().join("top"), "").unwrap();
        assert_eq!(strays(shadow.path()), ["a/b/out", "top"].map(PathBuf::from));
    }
}
