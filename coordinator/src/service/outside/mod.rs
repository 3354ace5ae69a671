//! Whether a process that sleeps may be woken from outside the session: by who holds
//! the other end of a pipe or a lock, by the network, a terminal, a clock or a change
//! in a directory. That is no dead-lock, however long it takes.
//!
//! Signals, memory that is shared with others, and io_uring are not judged.

mod calls;
mod sockets;

use std::cell::OnceCell;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use calls::{Wait, waits_of};
use sockets::{Peer, Sockets};

/// Whether somebody or something that is none of `session` can wake one of it. In a
/// `circle` of steps that wait for each other's files, a socket that waits for
/// whoever may come is no way out: launchers have one all the time.
#[must_use]
pub(super) fn can_wake(session: &[i32], circle: bool) -> bool {
    let world = World::new(session, circle);
    let mut waits = session
        .iter()
        .flat_map(|&pid| waits_of(pid).into_iter().map(move |wait| (pid, wait)));
    waits.any(|(pid, wait)| world.is_outside(pid, wait))
}

/// The session among all processes of the machine.
struct World {
    /// Its processes, and the coordinator.
    own: HashSet<i32>,
    circle: bool,
    sockets: OnceCell<Sockets>,
}

/// What a descriptor leads to, as `/proc` names it (`pipe:[1]`, `socket:[2]`, a
/// path), and how.
struct Descriptor {
    target: String,
    reads: bool,
    writes: bool,
}

impl World {
    fn new(session: &[i32], circle: bool) -> Self {
        let coordinator = std::process::id() as i32;
        Self {
            own: session.iter().copied().chain([coordinator]).collect(),
            circle,
            sockets: OnceCell::new(),
        }
    }

    fn is_outside(&self, pid: i32, wait: Wait) -> bool {
        match wait {
            // Only pipes with a name let an open wait, and anybody may open those.
            Wait::Open => true,
            Wait::Lock => {
                let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
                holder(&locks, pid).is_some_and(|holder| self.is_stranger(holder))
            }
            Wait::Read(fd) => self.leads_outside(pid, fd, true),
            Wait::Write(fd) => self.leads_outside(pid, fd, false),
        }
    }

    fn is_stranger(&self, pid: i32) -> bool {
        !self.own.contains(&pid) && Path::new(&format!("/proc/{pid}")).exists()
    }

    /// Whether bytes for descriptor `fd` of `pid` (or, unless it `reads`, room for
    /// them) may come from outside.
    fn leads_outside(&self, pid: i32, fd: u64, reads: bool) -> bool {
        let Some(descriptor) = descriptor(pid, &fd.to_string()) else {
            return false;
        };
        let target = descriptor.target.as_str();
        if let Some(inode) = target.strip_prefix("socket:") {
            let sockets = self.sockets.get_or_init(|| Sockets::of(&self.own));
            return match sockets.peer(inode) {
                Peer::Session => false,
                Peer::Other => true,
                Peer::Anybody => !self.circle,
            };
        }
        if is_pipe(target) {
            return self.others_have(target, reads);
        }
        reads && (is_terminal(target) || target == "anon_inode:inotify" || is_armed(pid, fd))
    }

    /// Whether a stranger can write to a pipe, or read if the session writes.
    fn others_have(&self, target: &str, write: bool) -> bool {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let has = |one: Descriptor| if write { one.writes } else { one.reads };
        pids.filter(|pid| !self.own.contains(pid)).any(|pid| {
            let mut same = numbers(pid)
                .into_iter()
                .filter(|fd| leads_to(pid, fd, target));
            same.any(|fd| descriptor(pid, &fd).is_some_and(has))
        })
    }
}

/// Numbers of the open descriptors of `pid`.
fn numbers(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn leads_to(pid: i32, fd: &str, target: &str) -> bool {
    fs::read_link(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|path| path == Path::new(target))
}

fn descriptor(pid: i32, fd: &str) -> Option<Descriptor> {
    let target = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let access = i32::from_str_radix(flags.trim(), 8).ok()? & libc::O_ACCMODE;
    Some(Descriptor {
        target: target.display().to_string(),
        reads: access != libc::O_WRONLY,
        writes: access != libc::O_RDONLY,
    })
}

fn is_terminal(target: &str) -> bool {
    target.starts_with("/dev/tty") || target.starts_with("/dev/pts/")
}

/// A pipe, with or without a name.
fn is_pipe(target: &str) -> bool {
    let is_fifo = |path| fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
    target.starts_with("pipe:") || (target.starts_with('/') && is_fifo(target))
}

/// Whether it is a clock that will go off.
fn is_armed(pid: i32, fd: u64) -> bool {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
    let left = info.lines().find_map(|line| line.strip_prefix("it_value:"));
    left.is_some_and(|left| left.trim() != "(0, 0)")
}

/// Who holds the lock that `pid` waits for, as `/proc/locks` tells.
fn holder(locks: &str, pid: i32) -> Option<i32> {
    let owner = |words: &[&str]| words.get(4)?.parse::<i32>().ok();
    let lines: Vec<Vec<&str>> = locks
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let waits = |words: &&Vec<&str>| {
        words.get(1) == Some(&"->") && words.get(1..).and_then(owner) == Some(pid)
    };
    let number = lines.iter().find(waits)?.first()?;
    let held = lines
        .iter()
        .find(|words| words.first() == Some(number) && words.get(1) != Some(&"->"))?;
    owner(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock_that_somebody_waits_for_is_known() {
        let locks = "1: FLOCK  ADVISORY  WRITE 10 00:1f:45 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 11 00:1f:45 0 EOF\n\
                     2: POSIX  ADVISORY  READ 12 00:1f:46 0 EOF\n";
        assert_eq!(holder(locks, 11), Some(10));
        assert_eq!(holder(locks, 12), None);
        assert_eq!(holder("", 11), None);
    }
}
