//! The boundary between the command and the engine of a session.
//!
//! `capio run`, `capio serve` and `capio_server` configure a session with
//! [`SessionConfig`], receive a [`Session`] and from then on only say which
//! steps start and end, look at [`Snapshot`]s, and drain. Other commands talk
//! to a running session from outside, by [`Admin`] over a socket
//! ([`admin`]).

pub mod admin;
#[cfg(test)]
pub(crate) mod fake;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::spec::Spec;

pub use admin::{Admin, AdminError, Entry, EntryKind, FileName};

/// The functions of the engine that the command is built on; the binaries
/// pass them in, so that the command can be tested without an engine.
#[derive(Clone, Copy)]
pub struct Engine {
    /// Starts a session and returns once clients may attach.
    pub start: fn(SessionConfig) -> Result<Arc<dyn Session>, SessionError>,
    /// The directory of the session of this `CAPIO_DIR` (absolute, resolved)
    /// and workflow name, whether or not one is running.
    pub session_dir: fn(&Path, &str) -> PathBuf,
    /// `CAPIO_DIR` and workflow name of this user's sessions on this machine.
    /// One that was killed may still be among them.
    pub sessions: fn() -> Vec<(PathBuf, String)>,
    /// Completes or removes what sessions that were killed while they wrote
    /// their results have left in this `CAPIO_DIR`; of all workflows, or of
    /// this one.
    pub settle: Settle,
    /// What sessions that were killed have left on this machine, and in these
    /// directories; removed if it can be and is to be.
    pub leftovers: fn(&[PathBuf], bool) -> Vec<Leftover>,
}

/// See [`Engine::leftovers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftoverKind {
    /// The directory of a session.
    Session,
    /// The directory that its programs were run from.
    Programs,
    /// The file of a store.
    Store,
    /// Results that only have to be put into place.
    CommittedResults,
    /// Results that are not complete.
    StagedResults,
    /// A program whose session is gone.
    Process,
}

/// Something that a session has left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// What it is.
    pub kind: LeftoverKind,
    /// Where.
    pub path: String,
    /// The process, if it is one.
    pub pid: Option<i32>,
    /// Name of the session, if it is known.
    pub workflow: Option<String>,
    /// `CAPIO_DIR` of the session, if it is known.
    pub dir: Option<String>,
    /// Space that it takes, in bytes.
    pub bytes: u64,
    /// It is gone now.
    pub removed: bool,
    /// Why it could not be removed.
    pub error: Option<String>,
}

impl Leftover {
    /// One of which nothing else is known.
    #[must_use]
    pub fn of(kind: LeftoverKind, path: &Path) -> Self {
        Self {
            kind,
            path: path.display().to_string(),
            pid: None,
            workflow: None,
            dir: None,
            bytes: 0,
            removed: false,
            error: None,
        }
    }
}

/// See [`Engine::settle`].
pub type Settle = fn(&Path, Option<&str>, Order) -> Result<Vec<Settled>, SessionError>;

/// What to do with results that a session has left half written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Put them into place.
    Apply,
    /// Remove them.
    Discard {
        /// Even if some are in place already.
        force: bool,
    },
}

/// What became of results that a session had left half written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The session's name.
    pub workflow: String,
    /// What was done.
    pub done: SettledAs,
    /// Originals that somebody else changed meanwhile.
    pub conflicts: Vec<Conflict>,
    /// What could not be done, one sentence each.
    pub errors: Vec<String>,
}

/// See [`Settled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettledAs {
    /// All that was left to do was done.
    Applied {
        /// Names that have their file now.
        put: u64,
        /// Names that were removed.
        removed: u64,
    },
    /// What was staged is gone.
    Discarded {
        /// Files that were staged.
        files: u64,
    },
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.workflow;
        match self.done {
            SettledAs::Applied { put, removed } => write!(
                f,
                "completed the results of the session {name}, which was ended while it wrote \
                 them: {put} files in place, {removed} removed"
            ),
            SettledAs::Discarded { files } => write!(
                f,
                "removed {files} files that the session {name} had written but not put into place"
            ),
        }
    }
}

/// Why a session could not be started, as one sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionError(String);

impl SessionError {
    /// An error with this sentence: what, where, what to do.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SessionError {}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepEnd {
    /// Every instance exited with status 0.
    Success,
    /// The first instance to fail exited with this status.
    ExitCode(i32),
    /// The first instance to fail was killed by this signal.
    Signal(i32),
    /// No instance was ever started, for this reason.
    NotStarted(String),
}

impl StepEnd {
    /// Whether the step did all it was asked for.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }
}

impl fmt::Display for StepEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("exit 0"),
            Self::ExitCode(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "killed by {name}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            Self::NotStarted(reason) => write!(f, "not started: {reason}"),
        }
    }
}

/// What of a session's files outlives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Only what the spec calls `permanent`.
    Permanent,
    /// That, and every file that no step consumed.
    #[default]
    Outputs,
    /// Every file.
    All,
    /// Nothing, not even `permanent` files.
    None,
}

/// What a session is started with.
pub struct SessionConfig {
    /// `CAPIO_DIR`: absolute, existing, symbolic links resolved.
    pub dir: PathBuf,
    /// Name of the workflow; with `dir` it names the session.
    pub workflow: String,
    /// The CAPIO-CL document, if there is one.
    pub spec: Option<Arc<Spec>>,
    /// Limit of the cache, in bytes.
    pub cache_bytes: u64,
    /// Directory of the store that the cache spills to; `None`: one on a local
    /// device is looked for.
    pub store: Option<PathBuf>,
    /// Most that the store may take, in bytes; 0: there is none.
    pub store_bytes: u64,
    /// What is kept when the session drains.
    pub keep: Keep,
    /// Apply `keep` even when the run failed.
    pub keep_on_failure: bool,
    /// Treat warnings that put results in doubt as errors of the drain.
    pub strict: bool,
    /// True: the command tells when steps start and end. False: the processes
    /// that attach decide, with `step_grace`.
    pub supervised: bool,
    /// Without supervision: how long after its last process a step may still
    /// be joined by another one before it counts as ended.
    pub step_grace: Duration,
    /// A failed step does not fail those that read its files: what it wrote
    /// counts as final, as if it had succeeded.
    pub continue_on_error: bool,
    /// Absolute path of `libcapio_posix.so`.
    pub shim: PathBuf,
}

/// A running session. Dropping the last handle without [`Session::shutdown`]
/// is an error of the caller.
pub trait Session: Send + Sync {
    /// The session's directory: sockets, reservations.
    fn dir(&self) -> &Path;

    /// Environment that makes a program part of `step`: `LD_PRELOAD`,
    /// `CAPIO_DIR`, `CAPIO_APP_NAME`, `CAPIO_WORKFLOW_NAME`.
    fn client_env(&self, step: &str) -> Vec<(OsString, OsString)>;

    /// Called before the first instance of `step` is spawned.
    fn step_started(&self, step: &str);

    /// Called once for each step: when all its instances and their
    /// descendants have ended, or when it is certain never to start.
    fn step_ended(&self, step: &str, end: &StepEnd);

    /// What is going on now. Cheap: called several times a second.
    fn snapshot(&self) -> Snapshot;

    /// Applies what is to be kept; blocks until that is durable. `success`
    /// says whether the run as a whole succeeded.
    fn drain(&self, success: bool) -> DrainReport;

    /// A drain under way is given up, unless what it changes is committed
    /// already. Returns at once.
    fn give_up(&self);

    /// Ends the session: clients still attached get `EIO`, and nothing of it
    /// is left behind.
    fn shutdown(&self);
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not one process so far.
    #[default]
    NotStarted,
    /// Started and not ended.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended otherwise, or certain never to start.
    Failed,
}

impl fmt::Display for StepState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotStarted => "not started",
            Self::Running => "running",
            Self::Succeeded => "done",
            Self::Failed => "failed",
        })
    }
}

/// A session at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Every step that the spec names or that a process named, in that order.
    pub steps: Vec<StepSnapshot>,
    /// How many files there are.
    pub files: FileCounts,
    /// The cache.
    pub cache: CacheSnapshot,
    /// What programs hold.
    #[serde(default)]
    pub held: HeldSnapshot,
    /// What to read before trusting the results, one sentence each.
    pub warnings: Vec<String>,
    /// The diagnosis, once a dead-lock was declared; one of the warnings.
    pub deadlock: Option<String>,
}

impl Snapshot {
    /// The step of this name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&StepSnapshot> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// The warnings without the diagnosis of a dead-lock.
    pub fn other_warnings(&self) -> impl Iterator<Item = &String> {
        let deadlock = self.deadlock.as_ref();
        let warnings = self.warnings.iter();
        warnings.filter(move |warning| Some(*warning) != deadlock)
    }
}

/// One step at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepSnapshot {
    /// Name of the step.
    pub name: String,
    /// Where it stands.
    pub state: StepState,
    /// Process ids now attached.
    pub processes: Vec<i32>,
    /// Bytes its processes read from files of the session so far.
    pub bytes_read: u64,
    /// Bytes they wrote.
    pub bytes_written: u64,
    /// Waits that are over, summed by path and reason, longest first.
    pub waits: Vec<WaitTotal>,
    /// Waits going on.
    pub waiting: Vec<WaitNow>,
}

/// All waits of one step for one path for one reason that are over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WaitTotal {
    /// Path below `CAPIO_DIR`, for display.
    pub path: String,
    /// What was waited for, such as "to exist", "more bytes", "to be final".
    pub reason: String,
    /// Sum over all threads, in nanoseconds.
    pub nanoseconds: u64,
    /// Number of waits.
    pub count: u64,
}

/// One thread that waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WaitNow {
    /// Its process.
    pub pid: i32,
    /// Path below `CAPIO_DIR`, for display.
    pub path: String,
    /// What it waits for.
    pub reason: String,
    /// For how long already, in nanoseconds.
    pub nanoseconds: u64,
}

/// How many files a session knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCounts {
    /// Files other than directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Those of `files` that are final.
    pub final_files: u64,
}

/// What the cache's memory is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pages {
    /// Reserved huge pages.
    #[serde(rename = "hugetlb")]
    Hugetlb,
    /// Transparent huge pages.
    #[serde(rename = "transparent huge")]
    TransparentHuge,
    /// Pages of the ordinary size.
    #[default]
    #[serde(rename = "plain")]
    Plain,
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hugetlb => "hugetlb",
            Self::TransparentHuge => "transparent huge",
            Self::Plain => "plain",
        })
    }
}

/// The cache at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSnapshot {
    /// Hard limit, in bytes.
    pub limit_bytes: u64,
    /// In use now, in bytes.
    pub used_bytes: u64,
    /// Most ever in use, in bytes.
    pub peak_bytes: u64,
    /// Moved to the store so far, in bytes.
    pub spilled_bytes: u64,
    /// Brought back from there so far, in bytes.
    pub fetched_bytes: u64,
    /// What the store holds now, in bytes.
    pub stored_bytes: u64,
    /// Kind of pages.
    pub pages: Pages,
}

/// What programs hold of a session's tables at one moment: all of it comes back
/// when they end and their files are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSnapshot {
    /// Attached processes.
    pub processes: u64,
    /// Open file descriptions.
    pub descriptions: u64,
    /// Records of files whose content is the session's.
    pub records: u64,
    /// Blocks of the maps of large files.
    pub map_blocks: u64,
    /// Calls that wait for the coordinator.
    pub waits: u64,
    /// Bytes of the cache that are free once a copy has ended.
    pub pinned_bytes: u64,
}

/// What came of a session's files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DrainReport {
    /// Files now in their place on disk.
    pub kept: Vec<KeptFile>,
    /// Files that are gone.
    pub dropped: Vec<DroppedFile>,
    /// Originals that somebody else changed meanwhile.
    pub conflicts: Vec<Conflict>,
    /// What could not be kept, and (with `strict`) what must not be trusted;
    /// one sentence each.
    pub errors: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// The user did not want to wait: nothing was kept.
    pub given_up: bool,
}

/// Why a file was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepReason {
    /// The spec calls it `permanent`.
    Permanent,
    /// No step consumed it.
    Output,
    /// `--keep all`.
    All,
    /// It lay on disk before and was changed, renamed or removed.
    Changed,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permanent => "permanent",
            Self::Output => "read by no step",
            Self::All => "all kept",
            Self::Changed => "changed",
        })
    }
}

/// How something on disk will differ at the end of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// It is new.
    Added,
    /// It has other content.
    Modified,
    /// It is gone.
    Removed,
    /// Owner, permissions or times differ.
    Attributes,
    /// It has another name.
    Renamed,
}

/// One difference, as `capio diff` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffEntry {
    /// In what it differs.
    pub what: Difference,
    /// What it is.
    pub kind: EntryKind,
    /// Path relative to `CAPIO_DIR`.
    pub path: FileName,
    /// Its old path, when it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<FileName>,
    /// Its size.
    pub bytes: u64,
    /// Why it is kept.
    pub reason: KeepReason,
    /// Somebody else has changed what lies there: it will go beside.
    pub conflict: bool,
}

/// A file that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// Path below `CAPIO_DIR`, for display.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Why.
    pub reason: KeepReason,
}

/// A file that vanished with the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedFile {
    /// Path below `CAPIO_DIR`, for display.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// An original that changed while the session ran: it was left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Path below `CAPIO_DIR`, for display.
    pub path: String,
    /// Where our content lies instead.
    pub kept_as: String,
}

/// Asks the command that owns the session of this process to drain it and
/// end, as SIGTERM would. For [`Admin::stop`] on the engine's side.
pub fn request_stop() {
    // A signal to ourselves cannot fail: the process exists and is ours.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGTERM);
}
