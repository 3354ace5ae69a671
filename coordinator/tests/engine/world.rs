//! Sessions on directories of their own, and processes that take part.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use capio_specs::{ParseOptions, Spec};
use coordinator::ENGINE;
use coordinator::session::{DrainReport, Keep, Session, SessionConfig, Snapshot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::peer::{PATIENCE, Peer};

/// A session on a directory.
pub(crate) struct World {
    session: Arc<dyn Session>,
    dir: PathBuf,
    /// Goes with it.
    _own: Option<tempfile::TempDir>,
    place: PathBuf,
}

/// How to start one.
pub(crate) struct Setup {
    dir: Option<tempfile::TempDir>,
    /// The configuration as it will be.
    pub config: SessionConfig,
}

/// A session to be: unsupervised, with a short grace and a cache of 32 MiB.
pub(crate) fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = setup_on(dir.path());
    setup.dir = Some(dir);
    setup
}

/// The same on a directory that is there.
pub(crate) fn setup_on(dir: &Path) -> Setup {
    let config = SessionConfig {
        dir: dir.canonicalize().unwrap(),
        workflow: "engine".into(),
        spec: None,
        cache_bytes: 32 << 20,
        store: None,
        store_bytes: 0,
        keep: Keep::Outputs,
        keep_on_failure: false,
        strict: false,
        supervised: false,
        step_grace: Duration::from_millis(200),
        continue_on_error: false,
        shim: PathBuf::from("/nowhere/libcapio_posix.so"),
    };
    Setup { dir: None, config }
}

impl Setup {
    /// With a document: the value of its `IO_Graph`, and what else it says.
    pub(crate) fn spec(mut self, graph: &str, more: &str) -> Self {
        let text = format!(r#"{{"name": "engine", "IO_Graph": [{graph}]{more}}}"#);
        let options = ParseOptions {
            resolve_prefix: Some(self.config.dir.clone()),
            document: None,
        };
        let spec = Spec::parse(&text, &options).unwrap_or_else(|error| panic!("{error}"));
        self.config.spec = Some(Arc::new(spec));
        self
    }

    /// `CAPIO_DIR`.
    pub(crate) fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// Starts it.
    pub(crate) fn start(self) -> World {
        let dir = self.config.dir.clone();
        let session = (ENGINE.start)(self.config).unwrap();
        World {
            place: session.dir().to_path_buf(),
            session,
            dir,
            _own: self.dir,
        }
    }
}

impl World {
    /// Without a document.
    pub(crate) fn new() -> Self {
        setup().start()
    }

    /// `CAPIO_DIR`.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The session's directory.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// The session.
    pub(crate) fn session(&self) -> &dyn Session {
        &*self.session
    }

    /// This process as a client; a second call takes the place of the first.
    pub(crate) fn join(&self, app: &str) -> Peer {
        Peer::join(&self.place, app)
    }

    /// Another process of step `app`.
    pub(crate) fn process(&self, app: &'static str, work: impl FnOnce(&mut Peer)) -> Process {
        let place = self.place.clone();
        Process::start(move |_| work(&mut Peer::join(&place, app)))
    }

    /// As [`Self::process`]; `work` also gets the end of a pipe by which it
    /// tells how far it is.
    pub(crate) fn telling(
        &self,
        app: &'static str,
        work: impl FnOnce(&mut Peer, &Teller),
    ) -> Process {
        let place = self.place.clone();
        Process::start(move |teller| work(&mut Peer::join(&place, app), teller))
    }

    /// Waits until the session looks as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) {
        let start = Instant::now();
        while !wanted(&self.session.snapshot()) {
            let late = start.elapsed() > PATIENCE;
            assert!(!late, "never {what}: {:?}", self.session.snapshot());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a thread of `step` waits.
    pub(crate) fn until_waits(&self, step: &str) {
        self.until("waiting", |now| {
            now.step(step).is_some_and(|step| !step.waiting.is_empty())
        });
    }

    /// Ends the session as after a run that went well.
    pub(crate) fn drain(&self) -> DrainReport {
        let report = self.session.drain(true);
        assert_eq!(report.errors, Vec::<String>::new());
        report
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.session.shutdown();
        let left = self.place.exists();
        if !std::thread::panicking() {
            assert!(!left, "{} is left behind", self.place.display());
        }
    }
}

/// A process forked off, killed at the end if it lives.
pub(crate) struct Process {
    pid: Pid,
    progress: OwnedFd,
}

/// By which a process tells how far it is.
pub(crate) struct Teller(OwnedFd);

impl Teller {
    /// One step further.
    pub(crate) fn tell(&self) {
        nix::unistd::write(&self.0, b".").unwrap();
    }

    /// Sleeps for ever, to be killed.
    pub(crate) fn stay(&self) -> ! {
        self.tell();
        loop {
            nix::unistd::pause();
        }
    }
}

impl Process {
    /// Runs `work` in another process.
    pub(crate) fn start(work: impl FnOnce(&Teller)) -> Self {
        let (progress, teller) = nix::unistd::pipe().unwrap();
        // SAFETY: the child uses memory, files and sockets of its own, which
        // glibc keeps usable after a fork, and ends by `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Self {
                pid: child,
                progress,
            },
            ForkResult::Child => {
                let teller = alone(&teller);
                let done = std::panic::catch_unwind(AssertUnwindSafe(|| work(&teller)));
                // SAFETY: ends the process without what belongs to the parent.
                unsafe { libc::_exit(i32::from(done.is_err())) }
            }
        }
    }

    /// Waits until it has told so once more.
    pub(crate) fn told(&self) {
        let read = nix::unistd::read(&self.progress, &mut [0]);
        assert_eq!(read, Ok(1), "it ended before it told");
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn join(self) {
        let status = waitpid(self.pid, None).unwrap();
        let pid = self.pid;
        std::mem::forget(self);
        assert_eq!(status, WaitStatus::Exited(pid, 0));
    }

    /// `kill -9`, not reaped.
    pub(crate) fn kill(&self) {
        kill(self.pid, Signal::SIGKILL).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// Lets go of what the other tests in the parent have open, and gives up
/// after a while whatever happens.
fn alone(teller: &OwnedFd) -> Teller {
    const KEPT: i32 = 3;
    let kept = teller.as_raw_fd();
    // SAFETY: descriptors of this process alone, which nothing else uses; the
    // new one belongs to nobody else.
    unsafe {
        if kept != KEPT {
            libc::dup2(kept, KEPT);
        }
        libc::syscall(libc::SYS_close_range, KEPT + 1, u32::MAX, 0);
        libc::alarm(60);
        Teller(OwnedFd::from_raw_fd(KEPT))
    }
}
