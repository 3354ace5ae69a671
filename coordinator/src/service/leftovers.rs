//! What sessions that were killed have left on this machine. Whatever belongs
//! to a living session holds a lock, and is not touched.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use wire::place;

use super::start::{LOCK, session_dir, title, trusted};
use super::{journal, proc_scan, programs, store};
use crate::session::{Leftover, LeftoverKind};

/// Who makes something has taken its lock by then.
const YOUNG: Duration = Duration::from_secs(10);

/// Everything of this user that no living session owns: session directories,
/// directories of programs, stores with a name, programs that cannot work any
/// more, and the journals in `dirs`. With `clean` what can be removed is.
#[must_use]
pub fn leftovers(dirs: &[PathBuf], clean: bool) -> Vec<Leftover> {
    let mut found = orphans();
    found.extend(sessions(clean));
    let mut places = programs::elsewhere();
    places.extend(dirs.iter().cloned());
    places.sort();
    places.dedup();
    for place in &places {
        found.extend(runs(place, clean));
        found.extend(spills(place, clean));
    }
    found.extend(dirs.iter().flat_map(|dir| journals(dir)));
    found
}

/// A lock that nobody holds is ours while this lives.
fn unheld(lock: &Path) -> Option<Flock<File>> {
    let options = File::options().read(true).open(lock);
    Flock::lock(options.ok()?, FlockArg::LockExclusiveNonblock).ok()
}

fn own() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Entries of `folder` of this user whose names begin with `prefix`.
fn named(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let fits = |name: &OsStr| name.as_bytes().starts_with(prefix.as_bytes());
    let mut found: Vec<_> = entries
        .filter(|entry| fits(&entry.file_name()))
        .map(|entry| entry.path())
        .filter(|path| {
            path.symlink_metadata()
                .is_ok_and(|meta| meta.uid() == own())
        })
        .collect();
    found.sort();
    found
}

fn is_young(path: &Path) -> bool {
    let changed = path.symlink_metadata().and_then(|meta| meta.modified());
    changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < YOUNG))
}

/// Removes what was found, if it is to be.
fn settle(mut found: Leftover, clean: bool, remove: impl FnOnce() -> io::Result<()>) -> Leftover {
    if clean {
        match remove() {
            Ok(()) => found.removed = true,
            Err(error) => found.error = Some(error.to_string()),
        }
    }
    found
}

fn sessions(clean: bool) -> Vec<Leftover> {
    let prefix = format!("capio-{}-", own());
    let found = named(Path::new(place::BASE), &prefix).into_iter();
    let dead = found.filter_map(|path| {
        trusted(&path).ok()?;
        let lock = path.join(LOCK);
        let held = if lock.exists() {
            Some(unheld(&lock)?)
        } else {
            // One that is just being made has none yet.
            (!is_young(&path)).then_some(())?;
            None
        };
        let of = title(&path).map(|(dir, workflow)| (dir.display().to_string(), workflow));
        let (dir, workflow) = of.unzip();
        let left = Leftover {
            workflow,
            dir,
            bytes: size(&path),
            ..Leftover::of(LeftoverKind::Session, &path)
        };
        let left = settle(left, clean, || programs::remove_session(&path));
        drop(held);
        Some(left)
    });
    dead.collect()
}

/// Directories of programs that a living session has are locked.
fn runs(folder: &Path, clean: bool) -> Vec<Leftover> {
    let found = named(folder, programs::ELSEWHERE).into_iter();
    let dead = found.filter_map(|path| {
        (path.is_dir() && !is_young(&path)).then_some(())?;
        let _held = unheld(&path)?;
        let left = Leftover {
            bytes: size(&path),
            ..Leftover::of(LeftoverKind::Programs, &path)
        };
        Some(settle(left, clean, || fs::remove_dir_all(&path)))
    });
    dead.collect()
}

/// A store loses its name when it is made.
fn spills(folder: &Path, clean: bool) -> Vec<Leftover> {
    let found = named(folder, store::NAMED).into_iter();
    let dead = found.filter(|path| path.is_file() && !is_young(path));
    dead.map(|path| {
        let left = Leftover {
            bytes: size(&path),
            ..Leftover::of(LeftoverKind::Store, &path)
        };
        settle(left, clean, || fs::remove_file(&path))
    })
    .collect()
}

fn journals(dir: &Path) -> Vec<Leftover> {
    let left = journal::abandoned(dir).into_iter();
    left.map(|(path, workflow, committed)| Leftover {
        workflow: Some(workflow),
        dir: Some(dir.display().to_string()),
        bytes: size(&path),
        ..Leftover::of(
            if committed {
                LeftoverKind::CommittedResults
            } else {
                LeftoverKind::StagedResults
            },
            &path,
        )
    })
    .collect()
}

/// Programs of sessions that do not live: every call on their files fails.
fn orphans() -> Vec<Leftover> {
    let lives = |dir: &Path, workflow: &str| {
        let lock = session_dir(dir, workflow).join(LOCK);
        lock.exists() && unheld(&lock).is_none()
    };
    let programs = proc_scan::programs().into_iter();
    let orphaned = programs.filter(|(_, dir, workflow)| !lives(dir, workflow));
    orphaned
        .map(|(pid, dir, workflow)| Leftover {
            pid: Some(pid),
            workflow: Some(workflow),
            dir: Some(dir.display().to_string()),
            ..Leftover::of(LeftoverKind::Process, Path::new(&format!("/proc/{pid}")))
        })
        .collect()
}

/// Bytes of all files in `path`.
fn size(path: &Path) -> u64 {
    let Ok(meta) = path.symlink_metadata() else {
        return 0;
    };
    if !meta.is_dir() {
        return meta.blocks() * 512;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}
