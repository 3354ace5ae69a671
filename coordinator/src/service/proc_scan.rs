//! What `/proc` says about the processes of this user.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Numbers of the open file descriptions, named below `directory`, that some
/// process has open.
#[must_use]
pub(super) fn open_names(directory: &Path) -> HashSet<u32> {
    let mut found = HashSet::new();
    let mut prefix = directory.as_os_str().as_bytes().to_vec();
    prefix.push(b'/');
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let descriptors = fs::read_dir(process.path().join("fd"));
        for descriptor in descriptors.into_iter().flatten().flatten() {
            if let Ok(target) = fs::read_link(descriptor.path()) {
                found.extend(number(&prefix, target.as_os_str()));
            }
        }
    }
    found
}

fn number(prefix: &[u8], target: &OsStr) -> Option<u32> {
    let name = target.as_bytes().strip_prefix(prefix)?;
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    std::str::from_utf8(name).ok()?.parse().ok()
}
