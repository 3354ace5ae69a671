//! Looking at names without asking: by the table that the coordinator keeps in
//! shared memory ([`wire::names`]). What is not there, or may not be told to
//! everybody, is asked for.

use core::ffi::c_int;
use core::sync::atomic::Ordering::{Acquire, Relaxed};

use wire::limits::MAX_PATH;
use wire::message::{Attributes, Name};
use wire::names::{Key, Known};

use super::stat::attributes_of;
use crate::place;
use crate::session::{File, Session};
use crate::sys::syscall;
use crate::text::Text;
use crate::threads::Hold;

/// How often a look is repeated that ran beside a change, before it is asked.
const LOOKS: u32 = 4;

/// What is known of `name`, as `take` sees it, all of one moment.
fn look<T>(session: Session, name: Name<'_>, take: impl Fn(Known) -> Option<T>) -> Option<T> {
    let names = session.names();
    for _ in 0..LOOKS {
        let Some(version) = names.begin_look() else {
            core::hint::spin_loop();
            continue;
        };
        let taken = follow(session, name).and_then(&take);
        if names.is_unchanged(version) {
            return taken;
        }
    }
    None
}

/// Follows a path of plain names, step by step.
fn follow(session: Session, name: Name<'_>) -> Option<Known> {
    let names = session.names();
    let (seed, mask) = (names.seed.load(Relaxed), names.mask.load(Relaxed));
    let inode = match name.base {
        0 => names.root.load(Relaxed),
        base => base,
    };
    let mut known = Known::Directory { inode };
    for part in name.path.split(|&byte| byte == b'/') {
        if part.is_empty() || part == b"." {
            continue;
        }
        let Known::Directory { inode } = known else {
            return None;
        };
        if part == b".." {
            return None;
        }
        let key = Key::of(seed, inode, part);
        known = session.bucket(key.bucket(mask))?.find(key)?;
    }
    // A slash at the end is for directories only.
    let is_file = matches!(known, Known::File { .. } | Known::Lower { .. });
    (!(is_file && name.path.ends_with(b"/"))).then_some(known)
}

/// The file, if it is the one that was meant and nobody has to wait for it.
fn file_of(session: Session, known: Known) -> Option<File> {
    let Known::File {
        record,
        generation,
        free,
    } = known
    else {
        return None;
    };
    let file = session.file(record)?;
    let is_it = file.meta.generation.load(Acquire) == generation;
    (is_it && (free || file.is_final())).then_some(file)
}

/// What is known of a name.
pub(crate) enum Look {
    /// Its attributes.
    Attributes(Attributes),
    /// A file of the lower layer with this inode: the kernel knows the rest.
    Lower(u64),
    /// There is nothing.
    Missing,
}

/// Attributes, or where they are.
pub(crate) fn attributes(name: Name<'_>) -> Option<Look> {
    let session = Session::get().filter(|session| !session.is_dead())?;
    look(session, name, |known| match known {
        Known::Lower { inode } => Some(Look::Lower(inode)),
        Known::Missing => Some(Look::Missing),
        Known::Directory { inode } => {
            let attributes = session.directory(inode)?.get(inode)?;
            Some(Look::Attributes(attributes))
        }
        Known::File { .. } => {
            let file = file_of(session, known)?;
            let _pages = Hold::of_pages(file.index).ok()?;
            if file.elsewhere() != 0 {
                return None;
            }
            let size = file.sync.size.load(Acquire);
            let allocated = file.allocated(session, size);
            Some(Look::Attributes(attributes_of(file, size, allocated)))
        }
    })
}

/// How a name can be opened for reading without asking: a file of the lower layer by
/// the kernel's path, which goes to `path`, or not at all: `ENOENT`.
pub(crate) fn open(name: Name<'_>, path: &mut Text<MAX_PATH>) -> Option<Result<u64, i32>> {
    let session = Session::get().filter(|session| !session.is_dead())?;
    let known = look(session, name, |known| match known {
        Known::Lower { inode } => Some(Ok(inode)),
        Known::Missing => Some(Err(libc::ENOENT)),
        _ => None,
    })?;
    (known.is_err() || on_disk(name, path)).then_some(known)
}

/// The kernel's path of a name in the lower layer; `false`: only the coordinator
/// knows it.
pub(crate) fn on_disk(name: Name<'_>, path: &mut Text<MAX_PATH>) -> bool {
    let Some(place) = place::get() else {
        return false;
    };
    let mut cwd = Text::<MAX_PATH>::new();
    let above = if name.base == 0 {
        Some(&b""[..])
    } else if place::cwd_inode() == Some(name.base) && place::read_cwd(&mut cwd) {
        place.behind_shadow(cwd.bytes())
    } else {
        None
    };
    above.is_some_and(|above| {
        let parts = [place.canonical.bytes(), above, b"/", name.path];
        path.set(b"") && parts.into_iter().all(|part| path.push(part))
    })
}

/// What `access(2)` says of a name.
pub(crate) fn access(name: Name<'_>, mode: c_int) -> Option<Result<(), i32>> {
    let session = Session::get().filter(|session| !session.is_dead())?;
    let said = look(session, name, |known| said_of(session, known, mode))?;
    if said.is_some() {
        return said;
    }
    let mut path = Text::<MAX_PATH>::new();
    if !on_disk(name, &mut path) {
        return None;
    }
    // SAFETY: a string of ours.
    let may = unsafe { syscall!(libc::SYS_faccessat, libc::AT_FDCWD, path.as_ptr(), mode) };
    match i32::try_from(may.wrapping_neg()).ok()? {
        0 => Some(Ok(())),
        // It may have gone from the disk, or its directory have another name by now.
        libc::ENOENT => None,
        error => Some(Err(error)),
    }
}

/// As [`access`]; `None` in it: the kernel is to be asked, `None`: the coordinator is.
fn said_of(session: Session, known: Known, mode: c_int) -> Option<Option<Result<(), i32>>> {
    if known == Known::Missing {
        return Some(Some(Err(libc::ENOENT)));
    }
    if mode == libc::F_OK {
        return Some(Some(Ok(())));
    }
    // SAFETY: takes nothing.
    let user = unsafe { syscall!(libc::SYS_geteuid) } as u32;
    match known {
        // Only who may do anything need not know its permissions.
        Known::Directory { .. } => (user == 0).then_some(Some(Ok(()))),
        Known::File {
            record, generation, ..
        } => {
            let meta = session.file(record)?.meta;
            let is_it = meta.generation.load(Acquire) == generation;
            let (bits, owner) = (meta.mode.load(Relaxed), meta.uid.load(Relaxed));
            let granted = granted(user, owner, bits, mode.cast_unsigned());
            granted.filter(|_| is_it).map(Some)
        }
        Known::Lower { .. } => Some(None),
        Known::Missing => None,
    }
}

/// Whether `user` may do what `wanted` (`R_OK` ...) says with a file of `owner` with
/// the permissions `bits`; `None`: it depends on groups.
fn granted(user: u32, owner: u32, bits: u32, wanted: u32) -> Option<Result<(), i32>> {
    let bits = match user {
        0 if bits & 0o111 != 0 => 7,
        0 => 6,
        _ if user == owner => bits >> 6,
        _ => return None,
    };
    Some((bits & wanted == wanted).then_some(()).ok_or(libc::EACCES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_those_of_the_owner_or_asked_for() {
        let denied = Some(Err(libc::EACCES));
        assert_eq!(granted(0, 5, 0o000, 6), Some(Ok(())));
        assert_eq!(granted(0, 5, 0o644, 1), denied);
        assert_eq!(granted(0, 5, 0o001, 1), Some(Ok(())));
        assert_eq!(granted(5, 5, 0o466, 2), denied);
        assert_eq!(granted(5, 5, 0o640, 6), Some(Ok(())));
        assert_eq!(granted(6, 5, 0o777, 4), None);
    }
}
