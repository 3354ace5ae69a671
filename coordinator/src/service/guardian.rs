//! A small process that outlives the coordinator: when that dies without
//! ending the session, it tells all clients by a word in shared memory and
//! removes what the session has left behind.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, setsid};

use super::processes::pidfd;
use super::programs::remove_session;
use super::shm::Shared;

/// The running guardian; dropping it ends it.
pub(super) struct Guardian {
    pid: Pid,
}

impl Guardian {
    /// Starts a guardian of this process and the session in `session`.
    ///
    /// # Errors
    /// When no process can be made.
    pub(super) fn start(shared: &Shared, session: &Path) -> io::Result<Self> {
        let parent = pidfd(i32::try_from(std::process::id()).unwrap_or(0))?;
        // SAFETY: the child only uses what glibc keeps usable after a fork of
        // a process with threads (memory allocation among it), opens files and
        // ends by `_exit`.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self { pid: child }),
            ForkResult::Child => {
                detach(&[parent.as_raw_fd(), shared.sync_descriptor().as_raw_fd()]);
                wait_for(&parent.as_fd());
                shared.sync_header().dead.store(1, SeqCst);
                // Nobody is left to tell if it fails.
                let _ = remove_session(session);
                // SAFETY: ends the process at once, without destructors that
                // belong to the parent.
                unsafe { libc::_exit(0) }
            }
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // It may have been killed by somebody else already.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// Leaves the parent's session and terminal, and lets go of its descriptors.
fn detach(keep: &[i32]) {
    let _ = setsid();
    for ignored in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGPIPE,
    ] {
        // SAFETY: ignoring a signal installs no handler.
        let _ = unsafe { signal(ignored, SigHandler::SigIgn) };
    }
    let mut kept: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .collect();
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if first < fd {
            // SAFETY: descriptors of this process that nothing uses any more.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = fd.saturating_add(1);
    }
    let name = c"capio-guardian";
    // SAFETY: a NUL-terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

fn wait_for(process: &impl AsFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    while matches!(
        poll(&mut fds, PollTimeout::NONE),
        Err(nix::errno::Errno::EINTR)
    ) {}
}
