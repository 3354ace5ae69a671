//! A keeper: the process between `capio` and one instance of a step.
//!
//! ```text
//! capio ── keeper ── instance ── ... descendants, daemons too
//! ```
//!
//! The keeper is a *child subreaper*: whatever an instance starts, in whatever
//! session or process group, with whatever environment, stays below it, and it
//! exits when nothing is left. So the kernel says when an instance and all its
//! descendants have ended. It also makes sure that they end: on the signal
//! [`KILL_ALL`], which the kernel sends by itself when `capio` dies.
//!
//! The keeper is forked, not executed: it runs only code that is safe after
//! `fork` in a program of many threads (system calls, no allocation, no
//! locks), and reports over a pipe: the instance's process id, then its wait
//! status, four bytes each. The end of the pipe is the end of the keeper.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;

/// Sent to a keeper, has it kill everything below it.
pub(super) const KILL_ALL: nix::sys::signal::Signal = nix::sys::signal::Signal::SIGUSR1;

/// How a keeper is called, from before it leaves the process group of `capio`:
/// its children that are called otherwise and in another group are orphans.
pub(super) const NAME: &std::ffi::CStr = c"capio-keeper";

/// How long a keeper waits between two rounds of killing, in nanoseconds.
const ROUND_NS: i64 = 5_000_000;

/// Has `command` run below a keeper: the process that it spawns is the keeper.
/// The instance starts with the signals of `blocked` blocked and no others.
/// Gives the reading end of the keeper's pipe, which is non-blocking. The
/// command must be dropped once spawned, it holds the writing end.
pub(super) fn put_below_keeper(command: &mut Command, blocked: SigSet) -> io::Result<OwnedFd> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let parent = nix::unistd::getpid().as_raw();
    // SAFETY: `split` calls only async-signal-safe functions: raw system
    // calls on its own stack.
    unsafe {
        command.pre_exec(move || split(parent, writer.as_raw_fd(), &blocked));
    }
    Ok(reader)
}

/// Runs in the forked child. Returns in a second child, which goes on to
/// execute the command; the first becomes the keeper and never returns.
fn split(parent: libc::pid_t, pipe: libc::c_int, blocked: &SigSet) -> io::Result<()> {
    // SAFETY: `sigset_t` is plain data that `sigfillset` initialises.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: system calls on valid pointers to this frame.
    unsafe {
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::prctl(libc::PR_SET_NAME, NAME.as_ptr(), 0, 0, 0);
        libc::setpgid(0, 0);
        check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))?;
        check(libc::prctl(
            libc::PR_SET_PDEATHSIG,
            KILL_ALL as libc::c_ulong,
            0,
            0,
            0,
        ))?;
        if libc::getppid() != parent {
            libc::_exit(1); // `capio` died before its death could be told.
        }
    }
    // SAFETY: a plain fork (no shared memory, no new stack); raw, so that no
    // handlers registered with libc run in between.
    let forked = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    match forked {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: system calls on valid pointers to this frame.
            unsafe {
                libc::setpgid(0, 0);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                libc::sigprocmask(libc::SIG_SETMASK, blocked.as_ref(), std::ptr::null_mut());
            }
            Ok(())
        }
        instance => keep(instance as libc::pid_t, pipe, &all),
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The keeper's life: reaps until nothing is left.
fn keep(instance: libc::pid_t, pipe: libc::c_int, signals: &libc::sigset_t) -> ! {
    close_all_but(pipe);
    report(pipe, instance);
    let mut instance_ended = false;
    let mut killing = false;
    loop {
        match reap() {
            Reaped::Child(pid, status) => {
                if pid == instance {
                    instance_ended = true;
                    report(pipe, status);
                }
                continue;
            }
            // SAFETY: ends this process, without handlers.
            Reaped::NoneLeft => unsafe { libc::_exit(0) },
            Reaped::Running => {}
        }
        if killing {
            kill_children(if instance_ended { None } else { Some(instance) });
        }
        killing |= next_signal(signals, killing) == KILL_ALL as libc::c_int;
    }
}

enum Reaped {
    Child(libc::pid_t, libc::c_int),
    Running,
    NoneLeft,
}

fn reap() -> Reaped {
    let mut status = 0;
    // SAFETY: waits for own children; `status` is valid.
    match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
        0 => Reaped::Running,
        -1 => Reaped::NoneLeft,
        pid => Reaped::Child(pid, status),
    }
}

/// Waits for any signal; while killing only for a moment.
fn next_signal(signals: &libc::sigset_t, killing: bool) -> libc::c_int {
    let moment = libc::timespec {
        tv_sec: 0,
        tv_nsec: ROUND_NS,
    };
    let timeout = if killing {
        &raw const moment
    } else {
        std::ptr::null()
    };
    // SAFETY: `signals` is initialised, `timeout` null or valid.
    unsafe { libc::sigtimedwait(signals, std::ptr::null_mut(), timeout) }
}

/// Kills the direct children; theirs become direct children by that, so that
/// repeated calls reach everything.
fn kill_children(instance: Option<libc::pid_t>) {
    let path = c"/proc/thread-self/children";
    // SAFETY: a static path.
    let list = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if list < 0 {
        // A kernel without that file: at least the instance's own group. Its
        // id cannot have been given to another while it is not reaped.
        if let Some(instance) = instance {
            // SAFETY: signals to processes below this one.
            unsafe { libc::kill(-instance, libc::SIGKILL) };
        }
        return;
    }
    let mut buffer = [0u8; 4096];
    let mut pid: libc::pid_t = 0;
    loop {
        // SAFETY: reads into the buffer of that size.
        let count = unsafe { libc::read(list, buffer.as_mut_ptr().cast(), buffer.len()) };
        if count <= 0 {
            break;
        }
        for &byte in &buffer[..count as usize] {
            if byte.is_ascii_digit() {
                pid = pid
                    .wrapping_mul(10)
                    .wrapping_add(libc::pid_t::from(byte - b'0'));
            } else if pid > 0 {
                // SAFETY: a child of this process that nobody else reaps.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                pid = 0;
            }
        }
    }
    // SAFETY: opened above.
    unsafe { libc::close(list) };
}

/// The keeper must hold nothing open that others wait for the end of.
fn close_all_but(pipe: libc::c_int) {
    // SAFETY: nothing in this process uses descriptors but the keeper.
    unsafe {
        if pipe > 0 {
            libc::syscall(libc::SYS_close_range, 0, pipe - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, pipe + 1, libc::c_uint::MAX, 0);
    }
}

fn report(pipe: libc::c_int, value: i32) {
    let bytes = value.to_ne_bytes();
    // SAFETY: writes the four bytes of the array. The pipe never fills, two
    // such messages are all that is ever written.
    unsafe { libc::write(pipe, bytes.as_ptr().cast(), bytes.len()) };
}
