//! What `/proc` says about the processes of this user.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Part of the name of the library that programs have loaded.
const LIBRARY: &[u8] = b"libcapio_posix.so";

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

/// Processes of this user that have the library and the environment of a
/// session's programs, of one step or of any; `dir` is resolved. Children of
/// `fork` show the environment of the program that forked them.
pub(super) fn processes_of(
    dir: &Path,
    workflow: &str,
    step: Option<&str>,
) -> impl Iterator<Item = i32> {
    let own = std::process::id() as i32;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(move |&pid| pid != own)
        .filter(move |pid| {
            let environment = fs::read(format!("/proc/{pid}/environ"));
            environment.is_ok_and(|environment| belongs(&environment, dir, workflow, step))
        })
}

/// Processes of this user that have the library, with `CAPIO_DIR` (resolved)
/// and workflow name of their session.
#[must_use]
pub(super) fn programs() -> Vec<(i32, PathBuf, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let place = PathBuf::from(format!("/proc/{pid}"));
        let own = nix::unistd::geteuid().as_raw();
        (fs::metadata(&place).ok()?.uid() == own).then_some(())?;
        // Who only has it in the environment may know nothing of it.
        let maps = fs::read(place.join("maps")).ok()?;
        maps.windows(LIBRARY.len())
            .any(|part| part == LIBRARY)
            .then_some(())?;
        let environment = fs::read(place.join("environ")).ok()?;
        let dir = Path::new(OsStr::from_bytes(variable(&environment, "CAPIO_DIR")?));
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let workflow = variable(&environment, "CAPIO_WORKFLOW_NAME").map_or(
            wire::place::DEFAULT_WORKFLOW.into(),
            String::from_utf8_lossy,
        );
        Some((pid, dir, workflow.into_owned()))
    })
    .collect()
}

/// The value of a variable in an environment.
fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a [u8]> {
    environment.split(|&byte| byte == 0).find_map(|variable| {
        let rest = variable.strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })
}

/// Whether an environment (`NAME=value`, NUL) is that of a step's programs.
fn belongs(environment: &[u8], dir: &Path, workflow: &str, step: Option<&str>) -> bool {
    let value = |name: &str| variable(environment, name);
    let is = |name, wanted: &str, default: &str| {
        value(name).unwrap_or(default.as_bytes()) == wanted.as_bytes()
    };
    let preloaded = value("LD_PRELOAD")
        .is_some_and(|libraries| libraries.windows(LIBRARY.len()).any(|part| part == LIBRARY));
    let same_dir = || {
        let path = Path::new(OsStr::from_bytes(value("CAPIO_DIR").unwrap_or_default()));
        path == dir || path.canonicalize().is_ok_and(|path| path == dir)
    };
    preloaded
        && step.is_none_or(|step| is("CAPIO_APP_NAME", step, wire::place::DEFAULT_APP))
        && is(
            "CAPIO_WORKFLOW_NAME",
            workflow,
            wire::place::DEFAULT_WORKFLOW,
        )
        && same_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_has_not_joined_yet_is_recognised_by_its_environment() {
        let dir = Path::new("/data/run");
        let of = |text: &str| {
            belongs(
                text.replace('|', "\0").as_bytes(),
                dir,
                "calls",
                Some("sort"),
            )
        };
        let whole = "A=b|LD_PRELOAD=/x/libcapio_posix.so|CAPIO_DIR=/data/run|\
                     CAPIO_APP_NAME=sort|CAPIO_WORKFLOW_NAME=calls|";
        assert!(of(whole));
        assert!(!of(&whole.replace("sort", "sorted")));
        assert!(!of(&whole.replace("/data/run", "/data/other")));
        assert!(!of(&whole.replace("calls", "CAPIO")));
        assert!(!of(&whole.replace("libcapio", "libother")));
        assert!(!of(""));
    }
}
