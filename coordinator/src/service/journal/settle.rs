//! What sessions that were killed have left in `CAPIO_DIR`: completed or
//! removed.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::stage::{Stage, lock};
use super::{Applied, Change, Journal, PREFIX, STARTED, apply, disk, is_missing};
use crate::session::{Conflict, Order, SessionError, Settled, SettledAs};

/// A staging directory that somebody has left.
enum Left {
    /// Nobody's any more.
    Idle(Box<Stage>),
    /// A session is at work there.
    Busy,
    /// It belongs to another user.
    Foreign(u32),
}

/// Completes or removes what sessions left in `dir`; of all workflows, or of
/// one.
///
/// # Errors
/// A sentence for the user. Nothing was touched of what it is about, unless it
/// says so.
pub fn settle(
    dir: &Path,
    workflow: Option<&str>,
    order: Order,
) -> Result<Vec<Settled>, SessionError> {
    let mut settled = Vec::new();
    for place in places(dir)? {
        let name = workflow_of(&place);
        if workflow.is_some_and(|wanted| wanted != name) {
            continue;
        }
        let shown = dir.display();
        match left(dir, &place).map_err(|error| unreadable(&place, &error))? {
            None => {}
            Some(Left::Busy) => {
                return Err(SessionError::new(format!(
                    "the session {name} of {shown} is writing its results right now: \
                     wait for its end"
                )));
            }
            Some(Left::Foreign(uid)) => {
                return Err(SessionError::new(format!(
                    "{} belongs to user {uid}: only that user can settle it",
                    place.display()
                )));
            }
            Some(Left::Idle(stage)) => settled.push(match order {
                Order::Apply => complete(*stage)?,
                Order::Discard { force } => discard(*stage, force)?,
            }),
        }
    }
    Ok(settled)
}

/// Before a session starts on `dir`: completes what others had committed and
/// removes what they had not. One sentence for each.
///
/// # Errors
/// When something committed cannot be completed: `dir` is between two states.
pub(in crate::service) fn recover(dir: &Path) -> Result<Vec<String>, SessionError> {
    let mut notes = Vec::new();
    for place in places(dir)? {
        let name = workflow_of(&place);
        let stage = match left(dir, &place).map_err(|error| unreadable(&place, &error))? {
            None | Some(Left::Busy) => continue,
            Some(Left::Foreign(uid)) => {
                notes.push(format!(
                    "{} was left by user {uid}, whose results may be in place only in part",
                    place.display()
                ));
                continue;
            }
            Some(Left::Idle(stage)) => *stage,
        };
        let committed = stage.committed();
        if committed.map_err(|error| unreadable(&place, &error))? {
            let settled = complete(stage)?;
            notes.push(format!("{settled}"));
            notes.extend(settled.errors);
            notes.extend(settled.conflicts.iter().map(|conflict| {
                let (path, kept_as) = (&conflict.path, &conflict.kept_as);
                format!("{path} was changed by somebody else and left alone; ours is {kept_as}")
            }));
        } else {
            let removed = stage.discard();
            let removed = removed.map_err(|error| unreadable(&place, &error))?;
            notes.push(format!(
                "removed {removed} half-written files of the session {name}, which was ended \
                 before its results were complete"
            ));
        }
    }
    Ok(notes)
}

/// What nobody works on any more in `dir`, of this user: place, workflow, and
/// whether its changes are committed.
#[must_use]
pub(in crate::service) fn abandoned(dir: &Path) -> Vec<(PathBuf, String, bool)> {
    let places = places(dir).unwrap_or_default().into_iter();
    let idle = places.filter_map(|place| match left(dir, &place) {
        // What cannot be told apart is looked at by a person.
        Ok(Some(Left::Idle(stage))) => Some((stage.committed().unwrap_or(true), place)),
        _ => None,
    });
    idle.map(|(committed, place)| (place.clone(), workflow_of(&place), committed))
        .collect()
}

fn places(dir: &Path) -> Result<Vec<PathBuf>, SessionError> {
    let entries = match std::fs::read_dir(dir) {
        // Nor could a session have written its results there.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(Vec::new()),
        entries => entries,
    };
    let entries = entries.map_err(|error| {
        SessionError::new(format!(
            "{} cannot be read: {error}; name another directory by --dir",
            dir.display()
        ))
    })?;
    let named = entries.flatten().map(|entry| entry.path());
    let mut places: Vec<_> = named
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.as_bytes().starts_with(PREFIX.as_bytes()))
        })
        .collect();
    places.sort();
    Ok(places)
}

fn workflow_of(place: &Path) -> String {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix(PREFIX).unwrap_or(&name).to_owned()
}

fn unreadable(place: &Path, error: &io::Error) -> SessionError {
    SessionError::new(format!(
        "what a session left in {} cannot be settled: {error}; fix that and try again",
        place.display()
    ))
}

/// What `place` is; `None` when it is gone, or never was a staging directory.
fn left(dir: &Path, place: &Path) -> io::Result<Option<Left>> {
    let meta = match place.symlink_metadata() {
        Err(error) if is_missing(&error) => return Ok(None),
        meta => meta?,
    };
    if !meta.is_dir() {
        return Ok(None);
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        return Ok(Some(Left::Foreign(meta.uid())));
    }
    let lock = match lock(place) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(Left::Busy)),
        Err(error) if is_missing(&error) => return Ok(None),
        lock => lock?,
    };
    let stage = Stage::of(dir, place.to_path_buf(), lock)?;
    Ok(Some(Left::Idle(Box::new(stage))))
}

/// The journal, if it is whole and all that is staged still is as it was
/// written.
fn checked(stage: &Stage) -> Result<Journal, String> {
    let journal = stage.journal().map_err(|error| error.to_string())??;
    let changes = journal.changes.iter();
    let staged = changes.filter_map(|change| match change {
        Change::Put { staged, path, .. } => Some((staged, path)),
        _ => None,
    });
    for (staged, path) in staged {
        if staged.place >= stage.places.len() {
            return Err(format!("{path} is staged in no known place"));
        }
        let Some(sum) = staged.sum else { continue };
        match disk::sum_of(&stage.path_of(staged)) {
            Ok(now) if now == (staged.bytes, sum) => {}
            // It is in place.
            Err(error) if is_missing(&error) => {}
            Ok(_) => return Err(format!("the checksum of {path} is wrong")),
            Err(error) => return Err(format!("{path}: {error}")),
        }
    }
    Ok(journal)
}

fn complete(stage: Stage) -> Result<Settled, SessionError> {
    let (name, dir) = (stage.workflow(), stage.dir().to_path_buf());
    let shown = dir.display();
    let place = stage.places[0].display().to_string();
    if !stage.committed().unwrap_or(true) {
        return Err(SessionError::new(format!(
            "the session {name} of {shown} was ended before its results were complete, there is \
             nothing to apply: remove what it left by `capio discard --dir {shown}`"
        )));
    }
    let journal = checked(&stage).map_err(|why| {
        SessionError::new(format!(
            "the journal in {place} is damaged ({why}): nothing was touched; look at the files \
             in there, or give them up by `capio discard --force --dir {shown}`"
        ))
    })?;
    let applied = apply::apply(&stage, &journal);
    if applied.unfinished {
        return Err(SessionError::new(format!(
            "the results of the session {name} could not all be put into place ({}): fix that \
             and run `capio apply --dir {shown}`",
            applied.errors.join("; ")
        )));
    }
    let settled = report(name, applied);
    finish(stage, &journal.changes).map_err(|error| unreadable(Path::new(&place), &error))?;
    Ok(settled)
}

/// Removes a journal whose changes are all made.
pub(super) fn finish(stage: Stage, changes: &[Change]) -> io::Result<()> {
    let (dir, places) = (stage.dir().to_path_buf(), stage.places.clone());
    stage.discard()?;
    apply::settle_times(&dir, &places, changes);
    Ok(())
}

fn report(workflow: String, applied: Applied) -> Settled {
    let conflicts = applied.conflicts.iter().map(|(path, kept_as)| Conflict {
        path: path.to_string(),
        kept_as: kept_as.to_string(),
    });
    Settled {
        workflow,
        done: SettledAs::Applied {
            put: applied.put.len() as u64,
            removed: applied.removed.len() as u64,
        },
        conflicts: conflicts.collect(),
        errors: applied.errors,
    }
}

fn discard(stage: Stage, force: bool) -> Result<Settled, SessionError> {
    let (name, shown) = (stage.workflow(), stage.dir().display().to_string());
    let place = stage.places[0].clone();
    let fail = |error: io::Error| unreadable(&place, &error);
    let started = place.join(STARTED).symlink_metadata().is_ok();
    if started && stage.committed().map_err(fail)? && !force {
        return Err(SessionError::new(format!(
            "some results of the session {name} may be in place already, and cannot be taken \
             back: complete them by `capio apply --dir {shown}`, or give up the others by \
             `capio discard --force --dir {shown}`"
        )));
    }
    let files = stage.discard().map_err(fail)?;
    Ok(Settled {
        workflow: name,
        done: SettledAs::Discarded { files },
        conflicts: Vec::new(),
        errors: Vec::new(),
    })
}
