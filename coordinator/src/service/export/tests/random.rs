//! Calls at random that succeed on the plain file system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::world::{Calls, Plain};

const PATHS: [&str; 20] = [
    "a",
    "b",
    "gone",
    "turns",
    "sparse",
    "link",
    "e",
    "d",
    "d/x",
    "d/a2",
    "d/deep",
    "d/deep/y",
    "folder",
    "folder/1",
    "folder/sub",
    "folder/sub/2",
    "n",
    "n/m",
    "n/m/k",
    "e/new",
];

/// One call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Write(&'static str, u64),
    Mkdir(&'static str),
    Remove(&'static str, bool),
    Rename(&'static str, &'static str, u32),
    Link(&'static str, &'static str),
    Symlink(&'static str),
    Chmod(&'static str, u32),
    Extend(&'static str, &'static str, &'static str),
    Shorten(&'static str, &'static str),
}

impl Act {
    pub(super) fn make(self, calls: &mut dyn Calls) {
        match self {
            Self::Write(path, offset) => calls.write(path, offset, path.as_bytes()),
            Self::Mkdir(path) => calls.mkdir(path),
            Self::Remove(path, directory) => calls.remove(path, directory),
            Self::Rename(from, to, flags) => calls.rename(from, to, flags),
            Self::Link(path, to) => calls.link(path, to),
            Self::Symlink(path) => calls.symlink("to/nowhere", path),
            Self::Chmod(path, mode) => calls.chmod(path, mode),
            Self::Extend(path, name, value) => calls.extend(path, name, value.as_bytes()),
            Self::Shorten(path, name) => calls.shorten(path, name),
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn path(&mut self) -> &'static str {
        PATHS[self.below(PATHS.len() as u64) as usize]
    }
}

/// What is at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Nothing,
    File,
    Link,
    Directory { empty: bool },
}

fn is(dir: &Path, path: &str) -> Is {
    let path = dir.join(path);
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => Is::Directory {
            empty: fs::read_dir(path).unwrap().next().is_none(),
        },
        Ok(meta) if meta.is_symlink() => Is::Link,
        Ok(_) => Is::File,
        Err(_) => Is::Nothing,
    }
}

/// Whether something can be named so.
fn has_parent(dir: &Path, path: &str) -> bool {
    let parent = Path::new(path)
        .parent()
        .and_then(Path::to_str)
        .unwrap_or_default();
    parent.is_empty() || matches!(is(dir, parent), Is::Directory { .. })
}

/// A call that will succeed, if this throw of the dice gives one.
fn act(random: &mut Random, dir: &Path) -> Option<Act> {
    let (path, other) = (random.path(), random.path());
    let (one, two) = (is(dir, path), is(dir, other));
    let apart =
        path != other && !Path::new(path).starts_with(other) && !Path::new(other).starts_with(path);
    let free = one == Is::Nothing && has_parent(dir, path);
    let is_directory = |is| matches!(is, Is::Directory { .. });
    let attribute = ["user.origin", "user.color"][random.below(2) as usize];
    match random.below(12) {
        0 | 1 if free || (one == Is::File && has_parent(dir, path)) => {
            Some(Act::Write(path, random.below(3) * 70_000))
        }
        2 if free => Some(Act::Mkdir(path)),
        3 if matches!(one, Is::File | Is::Link) => Some(Act::Remove(path, false)),
        3 if one == (Is::Directory { empty: true }) => Some(Act::Remove(path, true)),
        4 | 5 if one != Is::Nothing && apart && has_parent(dir, other) => {
            let fits = match two {
                Is::Nothing => true,
                Is::Directory { empty } => empty && is_directory(one),
                _ => !is_directory(one),
            };
            fits.then_some(Act::Rename(path, other, 0))
        }
        6 if one != Is::Nothing && two != Is::Nothing && apart => {
            Some(Act::Rename(path, other, libc::RENAME_EXCHANGE))
        }
        7 if matches!(one, Is::File | Is::Link) && two == Is::Nothing && has_parent(dir, other) => {
            Some(Act::Link(path, other))
        }
        8 if free => Some(Act::Symlink(path)),
        9 if matches!(one, Is::File | Is::Directory { .. }) => {
            let mode = dir.join(path).metadata().ok()?.mode() & 0o7777;
            Some(Act::Chmod(path, mode ^ 0o011))
        }
        10 if matches!(one, Is::File | Is::Directory { .. }) => {
            Some(Act::Extend(path, attribute, other))
        }
        11 if matches!(one, Is::File | Is::Directory { .. }) => {
            let has = xattr::get(dir.join(path), attribute).ok()?.is_some();
            has.then_some(Act::Shorten(path, attribute))
        }
        _ => None,
    }
}

/// Calls made on `dir`, for others to make again.
pub(super) fn acts(seed: u64, dir: &Path) -> Vec<Act> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut acts = Vec::new();
    while acts.len() < 25 {
        if let Some(act) = act(&mut random, dir) {
            act.make(&mut Plain(dir.to_path_buf()));
            acts.push(act);
        }
    }
    acts
}
