//! Starting and ending a session.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::Notify;
use wire::place;

use super::admin::EngineAdmin;
use super::arena::Arena;
use super::engine::{Engine, Parts};
use super::guardian::Guardian;
use super::journal;
use super::known::NameTable;
use super::names::Names;
use super::opens::Watch;
use super::programs;
use super::server::{self, lock};
use super::shm::Shared;
use super::store::{Mover, SpillFile, default_place};
use crate::flow::{FailurePolicy, Flow};
use crate::session::admin::{AdminHandler, bind, serve_admin};
use crate::session::{DrainReport, Session, SessionConfig, SessionError, Snapshot, StepEnd};

/// Name of the file that a living coordinator holds a lock on.
pub(super) const LOCK: &str = "lock";
/// Workflow name, NUL, and `CAPIO_DIR`.
const TITLE: &str = "title";

/// The directory of the session of this `CAPIO_DIR` (absolute, resolved) and
/// workflow name, whether or not one is running.
#[must_use]
pub fn session_dir(dir: &Path, workflow: &str) -> PathBuf {
    let mut buffer = [0; place::MAX_SESSION_PATH];
    let uid = nix::unistd::geteuid().as_raw();
    let dir = dir.as_os_str().as_bytes();
    let length = place::session_path(&mut buffer, uid, dir, workflow.as_bytes());
    PathBuf::from(OsStr::from_bytes(buffer.get(..length).unwrap_or_default()))
}

/// `CAPIO_DIR` and workflow name of this user's sessions on this machine, also
/// of those that were killed and left their directory behind.
#[must_use]
pub fn sessions() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(place::BASE).into_iter().flatten().flatten();
    let titles = entries.filter_map(|entry| {
        trusted(&entry.path()).ok()?;
        title(&entry.path())
    });
    titles.collect()
}

/// `CAPIO_DIR` and workflow name of the session in this directory.
pub(super) fn title(session: &Path) -> Option<(PathBuf, String)> {
    let title = fs::read(session.join(TITLE)).ok()?;
    let at = title.iter().position(|&byte| byte == 0)?;
    let workflow = str::from_utf8(title.get(..at)?).ok()?.to_owned();
    let dir = PathBuf::from(OsStr::from_bytes(title.get(at + 1..)?));
    (session_dir(&dir, &workflow) == session).then_some((dir, workflow))
}

/// A running session.
struct Running {
    engine: server::Shared,
    session: PathBuf,
    shim: PathBuf,
    dir: PathBuf,
    workflow: String,
    shared: Arc<Shared>,
    arena: Arc<Arena>,
    stop: Arc<Notify>,
    /// For a drain that holds the engine's lock.
    give_up: Arc<AtomicBool>,
    ending: Mutex<Option<Ending>>,
}

/// What is needed once, at the end.
struct Ending {
    server: JoinHandle<io::Result<()>>,
    admin: UnixListener,
    pages: JoinHandle<()>,
    _guardian: Guardian,
    _lock: Flock<File>,
    /// Of the directory of programs, where that lies elsewhere.
    _programs: Option<Flock<File>>,
}

/// Starts a session; clients may attach when it returns.
///
/// # Errors
/// A sentence for the user.
pub fn start(config: SessionConfig) -> Result<Arc<dyn Session>, SessionError> {
    let session = session_dir(&config.dir, &config.workflow);
    let lock = claim(&session)?;
    let running = recover(&config.dir).and_then(|()| {
        build(config, session.clone(), lock).map_err(|error| {
            let hint = hint(&error);
            SessionError::new(format!("the session could not be started: {error}{hint}"))
        })
    });
    let running = running.inspect_err(|_| {
        // What was made so far is of no use.
        let _ = programs::remove_session(&session);
    })?;
    Ok(Arc::new(running))
}

/// What to do about an error of the kernel that a limit of the user's has caused.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            "; the cache does not fit into the memory: give a smaller --cache, or raise ulimit -v"
        }
        Some(libc::EFBIG) => "; the cache is larger than a file may be: raise ulimit -f",
        Some(libc::EMFILE) => "; raise ulimit -n",
        Some(libc::EAGAIN) => "; this user has too many processes: raise ulimit -u",
        Some(libc::ENOSPC) => "; make room in /dev/shm",
        _ => "",
    }
}

/// Settles what sessions that were killed have left in `dir`, and says so.
fn recover(dir: &Path) -> Result<(), SessionError> {
    for note in journal::recover(dir)? {
        tracing::warn!("{note}");
    }
    Ok(())
}

/// Makes the session's directory and takes its lock.
fn claim(session: &Path) -> Result<Flock<File>, SessionError> {
    let failed = |error: io::Error| {
        SessionError::new(format!(
            "{} could not be made: {error}; capio needs a writable tmpfs there",
            session.display()
        ))
    };
    for _ in 0..3 {
        match fs::DirBuilder::new().mode(0o700).create(session) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        trusted(session)?;
        let opened = File::options()
            .create(true)
            .append(true)
            .open(session.join(LOCK));
        let Ok(file) = opened else { continue };
        let Some(lock) = locked(file) else {
            return Err(SessionError::new(format!(
                "a session of this directory and workflow is already running ({}): stop it with \
                 `capio stop`, or give this one another workflow name",
                session.display()
            )));
        };
        if is_empty_but_lock(session) {
            return Ok(lock);
        }
        // Left behind by a coordinator that was killed.
        programs::remove_session(session).map_err(failed)?;
    }
    Err(failed(io::Error::other("somebody keeps making it")))
}

/// Takes the lock. `capio doctor` holds it for a moment to see whether it is free.
fn locked(mut file: File) -> Option<Flock<File>> {
    for _ in 0..5 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((same, _)) => file = same,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// Whether nobody else can have made the directory, or change it.
pub(super) fn trusted(session: &Path) -> Result<(), SessionError> {
    use std::os::unix::fs::MetadataExt;
    let own = nix::unistd::geteuid().as_raw();
    let safe = session
        .symlink_metadata()
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == own && meta.mode() & 0o077 == 0);
    if safe {
        return Ok(());
    }
    Err(SessionError::new(format!(
        "{} belongs to somebody else or is open to others: remove it",
        session.display()
    )))
}

fn is_empty_but_lock(session: &Path) -> bool {
    let entries = fs::read_dir(session).into_iter().flatten().flatten();
    entries.into_iter().all(|entry| entry.file_name() == LOCK)
}

fn build(config: SessionConfig, session: PathBuf, lock: Flock<File>) -> io::Result<Running> {
    for part in [place::OPEN, place::RESERVED, place::SPECIAL] {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(session.join(part))?;
    }
    let programs = programs::prepare(&session, &programs::elsewhere())?;
    let title = [
        config.workflow.as_bytes(),
        b"\0",
        config.dir.as_os_str().as_bytes(),
    ];
    fs::write(session.join(TITLE), title.concat())?;
    raise_descriptor_limit()?;
    let spec = config.spec.clone();
    let spec = spec.unwrap_or_else(|| Arc::new(capio_specs::Spec::empty(&config.workflow)));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let shared = Arc::new(Shared::create(config.cache_bytes, cores, device(&session))?);
    let guardian = Guardian::start(&shared, &session)?;
    let arena = Arc::new(Arena::new(Arc::clone(&shared)));
    let policy = FailurePolicy::default();
    let rules: crate::flow::SharedRules = Arc::new(SpecRules(Arc::clone(&spec)));
    let store = open_store(&config)?;
    let mut names = Names::new(&config.dir, &session.join(place::SHADOW))?;
    names.table = NameTable::new(Arc::clone(&shared), names.root());
    let (shim, dir) = (config.shim.clone(), config.dir.clone());
    let workflow = config.workflow.clone();
    let parts = Parts {
        flow: Flow::new(rules, policy),
        names,
        watch: Watch::new(&session)?,
        config,
        spec,
        session: session.clone(),
        shared: Arc::clone(&shared),
        arena: Arc::clone(&arena),
    };
    let engine = Engine::new(parts);
    let give_up = Arc::clone(&engine.give_up);
    let engine = Arc::new(Mutex::new(engine));
    connect_store(&engine, store)?;
    let pages = arena.start()?;
    let stop = Arc::new(Notify::new());
    let served = serve(&engine, &session, &stop)?;
    let ending = Ending {
        server: served.server,
        admin: served.admin,
        pages,
        _guardian: guardian,
        _lock: lock,
        _programs: programs,
    };
    let ending = Mutex::new(Some(ending));
    Ok(Running {
        engine,
        session,
        shim,
        dir,
        workflow,
        shared,
        arena,
        stop,
        give_up,
        ending,
    })
}

/// The store that the cache spills to; `None`: there is to be none.
fn open_store(config: &SessionConfig) -> io::Result<Option<SpillFile>> {
    if config.store_bytes == 0 {
        return Ok(None);
    }
    let place = match &config.store {
        Some(place) => place.clone(),
        None => default_place(&config.dir),
    };
    let opened =
        fs::create_dir_all(&place).and_then(|()| SpillFile::create(&place, config.store_bytes));
    let failed = |error: io::Error| {
        let text = format!(
            "no store can be made in {}: {error}; name another directory with --store",
            place.display()
        );
        io::Error::new(error.kind(), text)
    };
    opened.map(Some).map_err(failed)
}

/// Lets pieces leave the cache for the store.
fn connect_store(engine: &server::Shared, store: Option<SpillFile>) -> io::Result<()> {
    let Some(store) = store else { return Ok(()) };
    let known = Arc::downgrade(engine);
    let tell = Arc::new(move |done| {
        if let Some(engine) = known.upgrade() {
            lock(&engine).moved(done);
        }
    });
    let mut engine = lock(engine);
    let mover = Mover::start(Arc::new(store), &engine.shared, tell)?;
    engine.records.set_mover(mover);
    Ok(())
}

/// Opens both sockets and starts the threads that serve them. The control
/// socket comes last: it tells clients that all else is there.
fn serve(engine: &server::Shared, session: &Path, stop: &Arc<Notify>) -> io::Result<Served> {
    let admin = bind(session)?;
    let end = admin.try_clone()?;
    let handler: Arc<dyn AdminHandler> = Arc::new(EngineAdmin(Arc::clone(engine)));
    std::thread::Builder::new()
        .name("capio-admin".into())
        .spawn(move || {
            if let Err(error) = serve_admin(&admin, &handler) {
                tracing::debug!("the admin socket is closed: {error}");
            }
        })?;
    let listener = UnixListener::bind(session.join(place::SOCKET))?;
    let (engine, stop) = (Arc::clone(engine), Arc::clone(stop));
    let server = std::thread::Builder::new()
        .name("capio-engine".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, server::serve(engine, listener, stop))
        })?;
    Ok(Served { server, admin: end })
}

/// What serves the two sockets.
struct Served {
    server: JoinHandle<io::Result<()>>,
    /// Shutting it down ends the thread of the admin socket.
    admin: UnixListener,
}

/// The CAPIO-CL document as the state machine asks it.
struct SpecRules(Arc<capio_specs::Spec>);

impl crate::flow::Rules for SpecRules {
    fn step_names(&self) -> Vec<String> {
        self.0
            .steps()
            .iter()
            .map(|step| step.name.clone())
            .collect()
    }

    fn rules_for(&self, path: &[u8]) -> capio_specs::PathRules {
        self.0.rules_for(path)
    }

    fn steps_below(&self, dir: &[u8]) -> crate::flow::Below {
        let mut below = crate::flow::Below::default();
        for (index, step) in (0..).map(capio_specs::StepIndex).zip(self.0.steps()) {
            if step.outputs.iter().any(|name| lies_below(name, dir)) {
                below.producers.push(index);
            }
            if step.inputs.iter().any(|name| lies_below(name, dir)) {
                below.consumers.push(index);
            }
        }
        below
    }
}

/// Whether a name or pattern says for certain, before its first wildcard, that
/// it is for paths below `dir`.
fn lies_below(name: &str, dir: &[u8]) -> bool {
    let certain = name.split(['*', '?', '[']).next().unwrap_or_default();
    let rest = certain.as_bytes().strip_prefix(dir);
    rest.is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Files that a session must be able to open at least: its own, and two for
/// each process of a small workflow.
const FEWEST_FILES: u64 = 256;

/// Every process and every step needs descriptors here.
fn raise_descriptor_limit() -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (mut soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Where it fails, the soft limit goes on working.
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        soft = hard;
    }
    if soft < FEWEST_FILES {
        return Err(io::Error::other(format!(
            "only {soft} files may be open, and it takes {FEWEST_FILES}; raise ulimit -n"
        )));
    }
    Ok(())
}

/// A device number that no real device has: major 0 with a high minor, from
/// the session's name.
fn device(session: &Path) -> u64 {
    let bytes = session.as_os_str().as_bytes();
    let hash = bytes
        .iter()
        .fold(7_u32, |hash, byte| hash.wrapping_mul(31) ^ u32::from(*byte));
    libc::makedev(0, 0x8_0000 | (hash & 0x7_ffff))
}

impl Session for Running {
    #[expect(clippy::misnamed_getters, reason = "`dir` is CAPIO_DIR here")]
    fn dir(&self) -> &Path {
        &self.session
    }

    fn client_env(&self, step: &str) -> Vec<(OsString, OsString)> {
        let mut preload = self.shim.clone().into_os_string();
        if let Some(more) = std::env::var_os("LD_PRELOAD").filter(|more| !more.is_empty()) {
            preload.push(":");
            preload.push(more);
        }
        vec![
            ("LD_PRELOAD".into(), preload),
            ("CAPIO_DIR".into(), self.dir.clone().into_os_string()),
            ("CAPIO_APP_NAME".into(), step.into()),
            ("CAPIO_WORKFLOW_NAME".into(), self.workflow.clone().into()),
        ]
    }

    fn step_started(&self, step: &str) {
        let mut engine = lock(&self.engine);
        let step = engine.flow.step(step);
        engine.start_step(step);
    }

    fn step_ended(&self, step: &str, end: &StepEnd) {
        let mut engine = lock(&self.engine);
        let step = engine.flow.step(step);
        engine.end_step(step, end.clone());
    }

    fn snapshot(&self) -> Snapshot {
        lock(&self.engine).snapshot()
    }

    fn drain(&self, success: bool) -> DrainReport {
        lock(&self.engine).drain(success)
    }

    fn give_up(&self) {
        self.give_up.store(true, SeqCst);
    }

    fn shutdown(&self) {
        let Some(ending) = self
            .ending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return;
        };
        self.shared.sync_header().dead.store(1, SeqCst);
        lock(&self.engine).wake_everybody();
        self.stop.notify_one();
        self.arena.stop();
        let end = nix::sys::socket::Shutdown::Both;
        // If it fails, one idle thread stays behind.
        let _ = nix::sys::socket::shutdown(ending.admin.as_raw_fd(), end);
        for ended in [ending.server.join().map(drop), ending.pages.join()] {
            if ended.is_err() {
                tracing::error!("a thread of the session has failed; its files are removed");
            }
        }
        if let Err(error) = programs::remove_session(&self.session) {
            tracing::warn!("{} could not be removed: {error}", self.session.display());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::lies_below;

    #[test]
    fn only_directories_that_a_name_leads_through_are_waited_for() {
        assert!(lies_below("/data/out/x", b"/data/out"));
        assert!(lies_below("/data/out/*.bam", b"/data"));
        assert!(!lies_below("/data/out*", b"/data/out"));
        assert!(!lies_below("/data/out/x", b"/data/ou"));
        assert!(!lies_below("*", b"/data"));
    }
}
