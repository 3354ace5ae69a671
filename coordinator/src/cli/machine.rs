//! What a session needs of the machine, and whether it is there.

use std::fmt;
use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use serde::Serialize;

use crate::report::format::bytes;

/// How a check has come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// As it should be.
    Good,
    /// Sessions run, but it will limit or slow some.
    Note,
    /// Sessions do not run.
    Bad,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad => "bad",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What.
    pub(super) name: String,
    /// How it is.
    pub(super) state: State,
    /// A sentence: what was found, and what to do.
    pub(super) text: String,
}

impl Check {
    /// The result of a check.
    pub(super) fn new(name: &str, state: State, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state,
            text: text.into(),
        }
    }
}

/// All checks but that of the library.
pub(super) fn checks() -> Vec<Check> {
    vec![
        shared_memory(Path::new(wire::place::BASE)),
        huge_pages(),
        inotify(),
        descriptors(),
        kernel(),
    ]
}

/// A number that the kernel tells in a file.
fn number(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn shared_memory(at: &Path) -> Check {
    const LEAST: u64 = 64 << 20;
    let name = at.display().to_string();
    let found = statvfs(at).and_then(|space| Ok((space, statfs(at)?.filesystem_type())));
    let (space, kind) = match found {
        Ok(found) => found,
        Err(error) => {
            let text = format!("{error}; mount a tmpfs there");
            return Check::new(&name, State::Bad, text);
        }
    };
    let block = space.fragment_size();
    let (free, all) = (space.blocks_available() * block, space.blocks() * block);
    let room = format!("{} of {} free", bytes(free), bytes(all));
    if kind != TMPFS_MAGIC {
        let text = format!("{room}, but it is no tmpfs, and the kernel keeps its files on a disk");
        return Check::new(&name, State::Note, text);
    }
    if free < LEAST {
        let text = format!("{room}; the names of a session and files that are mapped lie there");
        return Check::new(&name, State::Note, format!("{text}: make it larger"));
    }
    if space.flags().contains(FsFlags::ST_NOEXEC) {
        let text = "mounted noexec, so that programs and libraries that only lie in the cache \
                    are copied to be run";
        return Check::new(&name, State::Note, format!("{room}; {text}"));
    }
    Check::new(&name, State::Good, room)
}

fn huge_pages() -> Check {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    let setting = setting.unwrap_or_default();
    let chosen = setting
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("unknown", |(chosen, _)| chosen);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("HugePages_Free:"));
    let reserved: u64 = free.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    let text = format!("{reserved} reserved and free; for shared memory otherwise: {chosen}");
    let none = reserved == 0 && !matches!(chosen, "always" | "advise" | "within_size" | "force");
    if none {
        let advice = "the first pass over data is slower; write `advise` to \
                      /sys/kernel/mm/transparent_hugepage/shmem_enabled";
        return Check::new("huge pages", State::Note, format!("{text}: {advice}"));
    }
    Check::new("huge pages", State::Good, text)
}

fn inotify() -> Check {
    let read = |name: &str| number(&format!("/proc/sys/fs/inotify/{name}")).unwrap_or(0);
    let instances = read("max_user_instances");
    let (watches, events) = (read("max_user_watches"), read("max_queued_events"));
    let text = format!("{instances} instances, {watches} watches, {events} queued events");
    let (state, advice) = match () {
        () if instances == 0 || watches == 0 => (
            State::Bad,
            ": a session needs one of each; raise fs.inotify.max_user_instances and \
             fs.inotify.max_user_watches",
        ),
        () if instances < 16 => (
            State::Note,
            ": each session takes an instance; raise fs.inotify.max_user_instances",
        ),
        () if events < 4096 => (
            State::Note,
            ": with many programs the session must often look around for what was closed; raise \
             fs.inotify.max_queued_events",
        ),
        () => (State::Good, ""),
    };
    Check::new("inotify", state, text + advice)
}

fn descriptors() -> Check {
    const MANY: u64 = 4096;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((0, 0));
    let text = format!("at most {hard} descriptors in a process");
    if hard < MANY {
        let text = format!(
            "{text}: the session takes two for each program, so that some {} can run at once; \
             raise the hard limit of `ulimit -n`",
            hard / 2
        );
        return Check::new("descriptors", State::Note, text);
    }
    Check::new("descriptors", State::Good, text)
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let version = version_of(release);
    let (state, lacks) = match version {
        version if version < (5, 3) => (
            State::Bad,
            ": sessions need 5.3 or later to learn how programs end",
        ),
        version if version < (5, 14) => (
            State::Note,
            ": before 5.14 pages are mapped one by one at their first use",
        ),
        version if version < (6, 15) => (
            State::Note,
            ": before 6.15 a program that ends in an unusual way while its parent does not wait \
             for it may be taken for a killed one",
        ),
        _ => (State::Good, ""),
    };
    Check::new("kernel", state, format!("Linux {release}{lacks}"))
}

/// The first two numbers of a release.
fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (
        numbers.next().unwrap_or(0),
        numbers.next().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(version_of("6.1.0-13-amd64"), (6, 1));
        assert_eq!(version_of("5.14"), (5, 14));
        assert!(version_of("5.9.1") < version_of("5.14.0-rc1"));
    }

    #[test]
    fn a_machine_without_shared_memory_is_bad() {
        assert_eq!(shared_memory(Path::new("/no/such")).state, State::Bad);
    }

    #[test]
    fn what_is_no_tmpfs_is_noted() {
        let proc = shared_memory(Path::new("/proc"));
        assert_eq!(proc.state, State::Note);
        assert!(proc.text.contains("no tmpfs"), "{}", proc.text);
    }
}
