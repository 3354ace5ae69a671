//! `capio serve --daemon`: the session goes on in a process of its own. The
//! caller returns when it is ready, or with its error.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::exit::{self, Done, Failure};

/// Set in the environment of the process that goes on.
const MARK: &str = "CAPIO_DAEMON_CHILD";
/// What it writes to its standard output once it is ready.
const READY: &[u8] = b"ready\n";

pub(super) fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts this program again with the same arguments, in a session of the
/// terminal of its own, and waits until it is ready.
pub(super) fn start() -> Done {
    let cannot = |error| Failure::session(format!("cannot start the daemon: {error}"));
    let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
    command.args(std::env::args_os().skip(1)).env(MARK, "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: `leave` makes system calls only.
    unsafe {
        command.pre_exec(leave);
    }
    let mut child = command.spawn().map_err(cannot)?;
    let mut said = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut said).map_err(cannot)?;
    }
    if said.ends_with(READY) {
        return Ok(exit::OK);
    }
    // It has told its error on the standard error that it shares with us.
    let status = child.wait().map_err(cannot)?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(exit::SESSION))
}

/// Lets go of the terminal's session and of every descriptor that the caller
/// happens to have open: whoever waits for their end would wait for ours.
fn leave() -> std::io::Result<()> {
    nix::unistd::setsid()?;
    let first = 3 as libc::c_uint;
    // SAFETY: a system call on numbers; it closes nothing before the exec.
    let closed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if closed == -1 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// In the process that goes on: lets the caller return, and lets go of the
/// terminal.
pub(super) fn tell_ready() {
    if !is_child() {
        return;
    }
    let _ = std::io::stdout().write_all(READY);
    let _ = std::io::stdout().flush();
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
}
