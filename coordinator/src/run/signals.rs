//! Signals that end a run or are meant for its programs, received as events
//! instead of interrupting it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What asks a session to end.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
/// What batch systems send for programs to act on, by saving their state, say.
const PASSED_ON: [Signal; 2] = [Signal::SIGUSR1, Signal::SIGUSR2];

/// From now on a file that gets longer than `ulimit -f` allows is an error of the
/// call (`EFBIG`), and does not kill this process. Programs that it starts are
/// killed as ever: a handler does not outlive `exec`.
pub fn survive_long_files() {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe {
        // It cannot fail for a signal that can be handled. One that is ignored
        // already stays so, here and in the programs.
        if let Ok(before) = sigaction(Signal::SIGXFSZ, &action)
            && before.handler() == SigHandler::SigIgn
        {
            let _ = sigaction(Signal::SIGXFSZ, &before);
        }
    }
}

/// Some signals of this process, from now on.
pub struct Signals {
    arrived: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Takes SIGINT, SIGTERM and SIGHUP over. To be called before the first
    /// thread is started: later ones inherit that they do not take these.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_over() -> io::Result<Self> {
        Self::of(&ENDING)
    }

    /// The same with SIGQUIT, SIGUSR1 and SIGUSR2, for a command that has
    /// programs to pass them on to.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_over_for_programs() -> io::Result<Self> {
        Self::of(&[&ENDING[..], &[Signal::SIGQUIT], &PASSED_ON].concat())
    }

    fn of(signals: &[Signal]) -> io::Result<Self> {
        let set = SigSet::from_iter(signals.iter().copied());
        let before = SigSet::thread_get_mask()?;
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let arrived = SignalFd::with_flags(&set, flags)?;
        Ok(Self { arrived, before })
    }

    /// What was blocked before: programs that are started must have these
    /// blocked and no others, or nothing would end them.
    #[must_use]
    pub fn before(&self) -> SigSet {
        self.before
    }

    /// Readable when a signal has arrived.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }

    /// The next signal that has arrived.
    #[must_use]
    pub fn pending(&self) -> Option<Signal> {
        let info = self.arrived.read_signal().ok().flatten()?;
        Signal::try_from(info.ssi_signo as i32).ok()
    }

    /// Waits for one.
    ///
    /// # Errors
    /// When polling fails.
    pub fn wait(&self) -> io::Result<Signal> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        loop {
            if let Some(signal) = self.pending() {
                return Ok(signal);
            }
            match poll(
                &mut [PollFd::new(self.fd(), PollFlags::POLLIN)],
                PollTimeout::NONE,
            ) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether this signal is for the programs to act on, and ends nothing by
/// itself.
#[must_use]
pub fn is_passed_on(signal: Signal) -> bool {
    PASSED_ON.contains(&signal)
}
