//! What the system calls that a process sleeps in wait for.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use libc::{POLLIN, POLLOUT};

/// Most descriptors that one call is believed to wait for.
const MOST: u64 = 4096;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Something to read from this descriptor.
    Read(u64),
    /// Room to write to it.
    Write(u64),
    /// Somebody who opens the other end of a pipe.
    Open,
    /// A lock on a file.
    Lock,
}

/// A system call with its arguments.
struct Call {
    number: i64,
    arguments: Vec<u64>,
}

/// What the threads of `pid` wait for. Of several things one is enough.
pub(super) fn waits_of(pid: i32) -> Vec<Wait> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks
        .filter_map(|task| Call::of(&task.path()))
        .flat_map(|call| call.waits(pid))
        .collect()
}

impl Call {
    fn of(task: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(task.join("syscall")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let arguments =
            words.map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap_or(0));
        Some(Self {
            number,
            arguments: arguments.collect(),
        })
    }

    fn argument(&self, index: usize) -> u64 {
        self.arguments.get(index).copied().unwrap_or(0)
    }

    fn waits(&self, pid: i32) -> Vec<Wait> {
        let first = self.argument(0);
        match self.number {
            libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_accept
            | libc::SYS_accept4
            | libc::SYS_connect => {
                vec![Wait::Read(first)]
            }
            libc::SYS_write
            | libc::SYS_writev
            | libc::SYS_sendto
            | libc::SYS_sendmsg
            | libc::SYS_sendmmsg
            | libc::SYS_vmsplice => vec![Wait::Write(first)],
            libc::SYS_sendfile => vec![Wait::Write(first), Wait::Read(self.argument(1))],
            libc::SYS_splice => vec![Wait::Read(first), Wait::Write(self.argument(2))],
            libc::SYS_tee => vec![Wait::Read(first), Wait::Write(self.argument(1))],
            libc::SYS_open | libc::SYS_openat | libc::SYS_openat2 | libc::SYS_creat => {
                vec![Wait::Open]
            }
            libc::SYS_flock => vec![Wait::Lock],
            libc::SYS_fcntl if self.takes_lock() => vec![Wait::Lock],
            libc::SYS_poll | libc::SYS_ppoll => self.polled(pid),
            libc::SYS_select | libc::SYS_pselect6 => self.selected(pid),
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => {
                let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{first}"));
                info.unwrap_or_default()
                    .lines()
                    .flat_map(registered)
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn takes_lock(&self) -> bool {
        [libc::F_SETLKW, libc::F_OFD_SETLKW].contains(&(self.argument(1) as i32))
    }

    fn polled(&self, pid: i32) -> Vec<Wait> {
        const SIZE: usize = size_of::<libc::pollfd>();
        let length = self.argument(1).min(MOST) as usize * SIZE;
        let bytes = memory(pid, self.argument(0), length);
        bytes.chunks_exact(SIZE).flat_map(entry).collect()
    }

    fn selected(&self, pid: i32) -> Vec<Wait> {
        let count = self.argument(0).min(MOST);
        let set = |index: usize| match self.argument(index) {
            0 => Vec::new(),
            address => members(
                &memory(pid, address, count.div_ceil(64) as usize * 8),
                count,
            ),
        };
        let (reads, writes) = (set(1).into_iter(), set(2).into_iter());
        reads
            .map(Wait::Read)
            .chain(writes.map(Wait::Write))
            .collect()
    }
}

/// Bytes of a process's memory; none when it does not let itself be looked at.
fn memory(pid: i32, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let file = File::open(format!("/proc/{pid}/mem"));
    match file.and_then(|file| file.read_exact_at(&mut bytes, address)) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

/// What to wait for on a descriptor, by the events asked for.
fn asked(fd: u64, events: i16) -> impl Iterator<Item = Wait> {
    let reads = (events & POLLIN != 0).then_some(Wait::Read(fd));
    let writes = (events & POLLOUT != 0).then_some(Wait::Write(fd));
    reads.into_iter().chain(writes)
}

/// A `struct pollfd`; a negative number is no descriptor.
fn entry(bytes: &[u8]) -> Vec<Wait> {
    let Some((&fd, rest)) = bytes.split_first_chunk::<4>() else {
        return Vec::new();
    };
    let events = rest
        .first_chunk::<2>()
        .map_or(0, |&word| i16::from_ne_bytes(word));
    let fd = u64::try_from(i32::from_ne_bytes(fd));
    fd.into_iter().flat_map(|fd| asked(fd, events)).collect()
}

/// Members below `count` of an `fd_set`.
fn members(set: &[u8], count: u64) -> Vec<u64> {
    let is_in = |fd: &u64| {
        let byte = set.get((fd / 8) as usize).copied().unwrap_or(0);
        byte >> (fd % 8) & 1 != 0
    };
    (0..count).filter(is_in).collect()
}

/// A line of the `fdinfo` of an epoll descriptor: `tfd: 5 events: 19 ...`.
fn registered(line: &str) -> Vec<Wait> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["tfd:", fd, "events:", events, ..] = words.as_slice() else {
        return Vec::new();
    };
    match (fd.parse(), u64::from_str_radix(events, 16)) {
        // The bits of epoll are those of poll.
        (Ok(fd), Ok(events)) => asked(fd, events as i16).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(text: &str) -> Vec<Wait> {
        Call::parse(text).unwrap().waits(std::process::id() as i32)
    }

    #[test]
    fn what_a_call_waits_for_is_read_from_where_it_says() {
        let fds = [(7, POLLIN), (-1, POLLIN), (8, POLLOUT)];
        let fds = fds.map(|(fd, events)| libc::pollfd {
            fd,
            events,
            revents: 0,
        });
        let call = format!("{} {:p} 0x3 0xffffffff", libc::SYS_poll, fds.as_ptr());
        assert_eq!(waits(&call), [Wait::Read(7), Wait::Write(8)]);
        let set = [1u64 << 5, 1];
        let call = format!("{} 0x41 {:p} 0x0 0x0 0x0", libc::SYS_select, set.as_ptr());
        assert_eq!(waits(&call), [Wait::Read(5), Wait::Read(64)]);
        let call = format!("{} 0x3 0x0 0x10", libc::SYS_read);
        assert_eq!(waits(&call), [Wait::Read(3)]);
        assert_eq!(waits(&format!("{} 0x0", libc::SYS_futex)), []);
    }

    #[test]
    fn members_of_an_epoll_set_are_waited_for() {
        let line = "tfd:        5 events:       19 data:  5  pos:0 ino:1 sdev:8";
        assert_eq!(registered(line), [Wait::Read(5)]);
        assert_eq!(registered("pos:\t0"), []);
    }

    #[test]
    fn a_process_that_runs_waits_for_nothing() {
        assert!(Call::parse("running").is_none());
    }
}
