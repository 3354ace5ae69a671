//! The coordinator's state and the way of a request through it. Everything
//! here runs under one lock and never blocks on a client.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use capio_specs::Spec;
use wire::layout::{FILE_DEADLOCK, FILE_STREAM};
use wire::limits::MAX_THREADS;
use wire::message::{Attributes, OfdId, Request};

use super::arena::Arena;
use super::deadlock::Quiet;
use super::members::StepRun;
use super::names::{Inode, Names, Walk};
use super::opens::{Ofds, Watch};
use super::processes::{Processes, has_ended};
use super::programs::Programs;
use super::records::Records;
use super::room::Room;
use super::shm::Shared;
use super::stats::Stats;
use crate::flow::{Effect, FileId, Flow, Missing, Resolution, StepId, WaitFor, WaitId, Warning};
use crate::session::{FileName, SessionConfig};

/// What a request is answered with; the server puts it on the wire.
#[derive(Debug)]
pub(super) enum Answer {
    /// Done.
    Ok,
    /// An error number.
    Error(i32),
    /// The thread sleeps until it is woken, then asks again.
    Wait,
    /// Not yet; the client asks again in a while.
    Soon,
    /// An open file description, with its descriptor.
    Opened(OfdId, OwnedFd),
    /// A directory, with a descriptor of its shadow.
    Directory(Inode, OwnedFd),
    /// The real call on this path; the inode when the file is the session's.
    Native(Vec<u8>, Option<Inode>),
    /// Attributes.
    Attributes(Attributes),
    /// A path or the content of a link.
    Path(Vec<u8>),
    /// Packed entries of a directory; nothing follows.
    Entries(Vec<u8>, bool),
    /// Limit, free bytes, number of files.
    Space(u64, u64, u64),
    /// An extended attribute, or the names of all.
    Value(Vec<u8>),
}

/// `Ok` is the answer, `Err` an error number.
pub(super) type Outcome = Result<Answer, i32>;

/// Who asks: an attached process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// Its process record.
    pub process: u32,
    /// Generation of that record.
    pub generation: u32,
    /// Its step.
    pub step: StepId,
}

/// Reason of a wait for a path.
const TO_EXIST: &str = "to exist";

/// A call that waits for the coordinator.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Process record.
    pub process: u32,
    /// Thread record in it.
    pub thread: u32,
    /// Step.
    pub step: StepId,
    /// What for.
    pub path: Vec<u8>,
    /// Reason as the report names it.
    pub reason: &'static str,
    /// Since when.
    pub since: Instant,
}

/// The whole state of a session.
pub(super) struct Engine {
    pub(super) config: SessionConfig,
    pub(super) spec: Arc<Spec>,
    pub(super) session: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) arena: Arc<Arena>,
    pub(super) flow: Flow,
    pub(super) names: Names,
    pub(super) records: Records,
    pub(super) ofds: Ofds,
    pub(super) programs: Programs,
    pub(super) watch: Watch,
    pub(super) processes: Processes,
    pub(super) stats: Stats,
    pub(super) waiters: HashMap<WaitId, Waiter>,
    /// The wait of each thread (process record, thread record).
    waiting: HashMap<(u32, u32), WaitId>,
    verdicts: HashMap<(u32, u32), Resolution>,
    /// Threads that wait for more entries of a directory.
    listers: HashMap<Inode, Vec<WaitId>>,
    next_wait: u64,
    pub(super) draining: bool,
    /// Set when the user does not want to wait for the results.
    pub(super) give_up: Arc<AtomicBool>,
    /// When to look for lost closes once more.
    pub(super) rescan_at: Option<Instant>,
    pub(super) runs: HashMap<StepId, StepRun>,
    pub(super) quiet: Quiet,
    pub(super) room: Room,
}

/// What an engine is made of.
pub(super) struct Parts {
    /// How the session is to run.
    pub config: SessionConfig,
    /// Its document, or an empty one.
    pub spec: Arc<Spec>,
    /// Its directory.
    pub session: PathBuf,
    /// Its memory.
    pub shared: Arc<Shared>,
    /// The allocator of that.
    pub arena: Arc<Arena>,
    /// The state machine.
    pub flow: Flow,
    /// The namespace.
    pub names: Names,
    /// Watch of the open file descriptions.
    pub watch: Watch,
}

impl Engine {
    /// An engine without clients.
    #[must_use]
    pub(super) fn new(parts: Parts) -> Self {
        let records = Records::new(Arc::clone(&parts.shared), Arc::clone(&parts.arena));
        Self {
            ofds: Ofds::new(&parts.session),
            programs: Programs::new(&parts.session),
            config: parts.config,
            spec: parts.spec,
            session: parts.session,
            processes: Processes::new(Arc::clone(&parts.shared)),
            shared: parts.shared,
            arena: parts.arena,
            flow: parts.flow,
            names: parts.names,
            records,
            watch: parts.watch,
            stats: Stats::default(),
            waiters: HashMap::new(),
            waiting: HashMap::new(),
            verdicts: HashMap::new(),
            listers: HashMap::new(),
            next_wait: 0,
            draining: false,
            give_up: Arc::default(),
            rescan_at: None,
            runs: HashMap::new(),
            quiet: Quiet::default(),
            room: Room::default(),
        }
    }

    /// Whether the client's record is its own still: a process that greets once
    /// more, after `exec` or on another connection, has another.
    pub(super) fn knows(&self, client: Client) -> bool {
        let known = self.processes.get(client.process);
        known.is_some_and(|known| known.generation == client.generation)
    }

    /// Whether requests of the client still count. What a process had asked when it
    /// was killed must not happen after others have learned of its end.
    pub(super) fn serves(&self, client: Client) -> bool {
        let known = self.processes.get(client.process);
        self.knows(client) && known.is_some_and(|known| !has_ended(&known.ended))
    }

    /// Answers one request of an attached process.
    pub(super) fn handle(&mut self, client: Client, request: &Request<'_>) -> Answer {
        // What was closed before this was asked is closed.
        self.drain_closes();
        if named_thread(request).is_some_and(|thread| thread >= MAX_THREADS) {
            return Answer::Error(libc::EINVAL);
        }
        let thread = waiting_thread(request);
        let before = thread.and_then(|thread| self.asked_again(client, thread));
        let outcome = match thread.and_then(|thread| self.verdict_of(client, thread)) {
            Some(error) => Err(error),
            None => self.dispatch(client, request),
        };
        if let Some(before) = before {
            self.go_on_waiting(before);
        }
        self.settle();
        outcome.unwrap_or_else(Answer::Error)
    }

    /// A thread that asks does not wait any more for what it asked before.
    fn asked_again(&mut self, client: Client, thread: u32) -> Option<Waiter> {
        let id = self.waiting.remove(&(client.process, thread))?;
        self.flow.cancel(id);
        self.waiters.remove(&id)
    }

    /// The thread of `before` either waits for the same still, or that is over.
    fn go_on_waiting(&mut self, before: Waiter) {
        let id = self.waiting.get(&(before.process, before.thread));
        let now = id.and_then(|id| self.waiters.get_mut(id));
        match now {
            Some(now) if now.path == before.path && now.reason == before.reason => {
                now.since = before.since;
            }
            _ => self.account(&before),
        }
    }

    fn account(&mut self, waiter: &Waiter) {
        let waited = waiter.since.elapsed();
        self.stats
            .waited(waiter.step, &waiter.path, waiter.reason, waited, 1);
    }

    /// A wait of this thread that ended badly decides its call.
    fn verdict_of(&mut self, client: Client, thread: u32) -> Option<i32> {
        match self.verdicts.remove(&(client.process, thread))? {
            Resolution::Deadlock => Some(libc::EDEADLK),
            Resolution::ProducerFailed(_) => Some(libc::EIO),
            Resolution::Ready | Resolution::NotFound => None,
        }
    }

    fn dispatch(&mut self, client: Client, request: &Request<'_>) -> Outcome {
        match *request {
            Request::Hello { .. } => Err(libc::EPROTO),
            Request::Open {
                name,
                flags,
                mode,
                thread,
            } => self.open(client, name, flags, mode, thread),
            Request::Reopen { ofd, flags, .. } => self.reopen(client, ofd, flags),
            Request::Stat { target, thread } => self.stat(client, target, thread),
            Request::Access {
                target,
                mode,
                thread,
            } => self.access(client, target, mode, thread),
            Request::Chmod { target, mode } => self.chmod(client, target, mode),
            Request::Chown { target, uid, gid } => self.chown(client, target, uid, gid),
            Request::Utimens {
                target,
                accessed,
                modified,
            } => self.utimens(client, target, accessed, modified),
            Request::Truncate { target, size } => self.truncate(client, target, size),
            Request::Allocate {
                ofd,
                mode,
                offset,
                length,
            } => self.allocate(client, ofd, mode, offset, length),
            Request::Mkdir { name, mode } => self.mkdir(client, name, mode),
            Request::Mknod { name, mode, device } => self.mknod(client, name, mode, device),
            Request::Unlink { name, directory } => self.unlink(client, name, directory),
            Request::Rename { from, to, flags } => self.rename(client, from, to, flags),
            Request::Link { target, to } => self.link(client, target, to),
            Request::Symlink { content, name } => self.symlink(client, content, name),
            Request::Readlink { name } => self.readlink(name),
            Request::Canonical { name } => self.canonical(client, name),
            Request::Run {
                target,
                library,
                thread,
            } => self.run(client, target, library, thread),
            Request::NameOf { ofd } => self.name_of(ofd),
            Request::Enter { name, directory } => self.enter(client, name, directory),
            Request::List {
                directory,
                cookie,
                thread,
            } => self.list(client, directory, cookie, thread),
            Request::Grant {
                ofd,
                offset,
                length,
                thread,
            } => self.grant(client, ofd, offset, length, thread),
            Request::Fetch {
                ofd,
                offset,
                length,
                thread,
            } => self.fetch(client, ofd, offset, length, thread),
            Request::Sync { ofd, thread } => self.sync(client, ofd, thread),
            Request::Map { ofd, end } => self.map(ofd, end),
            Request::HandOver { ofd } => self.hand_over(ofd),
            Request::Published { ofd, start, end } => self.published(ofd, start, end),
            Request::SetFlags { ofd, flags } => self.set_flags(ofd, flags),
            Request::Space => Ok(self.space()),
            Request::GetXattr {
                target,
                name,
                thread,
            } => self.get_xattr(client, target, name, thread),
            Request::ListXattrs { target, thread } => self.list_xattrs(client, target, thread),
            Request::SetXattr {
                target,
                name,
                value,
                flags,
            } => self.set_xattr(target, name, value, flags),
            Request::RemoveXattr { target, name } => self.remove_xattr(target, name),
        }
    }

    fn space(&self) -> Answer {
        let (limit, used, _) = self.arena.usage();
        Answer::Space(limit, limit.saturating_sub(used), self.names.len() as u64)
    }

    /// What a step gets for a path where nothing is.
    pub(super) fn missing(&mut self, client: Client, thread: u32, path: Vec<u8>) -> Outcome {
        match self.flow.missing(client.step, &path) {
            Missing::NotFound => Err(libc::ENOENT),
            Missing::ProducerFailed(_) => Err(libc::EIO),
            Missing::Wait => {
                let target = WaitFor::Path(path.clone());
                self.wait(client, thread, target, path, TO_EXIST)
            }
        }
    }

    /// Puts the calling thread to sleep until the state machine releases it.
    pub(super) fn wait(
        &mut self,
        client: Client,
        thread: u32,
        target: WaitFor,
        path: Vec<u8>,
        reason: &'static str,
    ) -> Outcome {
        let id = WaitId(self.next_wait);
        self.next_wait += 1;
        if let WaitFor::Listing(FileId(inode)) = target {
            let listers = self.listers.entry(inode).or_default();
            // Who asks again has another wait now.
            listers.retain(|id| self.waiters.contains_key(id));
            listers.push(id);
        }
        match self.flow.wait(id, client.step, target) {
            // Both are found again by the same question, asked anew.
            Some(Resolution::Ready) => {}
            Some(Resolution::NotFound) => return Err(libc::ENOENT),
            Some(Resolution::ProducerFailed(_)) => return Err(libc::EIO),
            Some(Resolution::Deadlock) => return Err(libc::EDEADLK),
            None => {
                let (process, step, since) = (client.process, client.step, Instant::now());
                let waiter = Waiter {
                    process,
                    thread,
                    step,
                    path,
                    reason,
                    since,
                };
                self.waiters.insert(id, waiter);
                self.waiting.insert((process, thread), id);
                return Ok(Answer::Wait);
            }
        }
        self.shared.wake_thread(client.process, thread);
        Ok(Answer::Wait)
    }

    fn release(&mut self, id: WaitId, resolution: Resolution) {
        let Some(waiter) = self.waiters.remove(&id) else {
            return;
        };
        self.waiting.remove(&(waiter.process, waiter.thread));
        self.account(&waiter);
        if let Resolution::ProducerFailed(step) = resolution
            && waiter.reason == TO_EXIST
        {
            let (step, path) = (self.flow.step_name(step), self.display_path(&waiter.path));
            let text = format!("step \"{step}\" failed and never made {path}; readers get EIO");
            self.stats.warn(text);
        }
        if !matches!(resolution, Resolution::Ready | Resolution::NotFound) {
            self.verdicts
                .insert((waiter.process, waiter.thread), resolution);
        }
        self.shared.wake_thread(waiter.process, waiter.thread);
    }

    /// Wakes those who list `directory` as a stream: it has a new entry.
    pub(super) fn entry_added(&mut self, directory: Inode) {
        for id in self.listers.remove(&directory).unwrap_or_default() {
            self.flow.cancel(id);
            self.release(id, Resolution::Ready);
        }
    }

    /// Ends all waits of a process that is gone.
    pub(super) fn forget_waits(&mut self, process: u32) {
        let ids: Vec<_> = self
            .waiters
            .iter()
            .filter(|(_, w)| w.process == process)
            .collect();
        let ids: Vec<_> = ids.into_iter().map(|(id, _)| *id).collect();
        for id in ids {
            self.flow.cancel(id);
            if let Some(waiter) = self.waiters.remove(&id) {
                self.account(&waiter);
            }
        }
        self.waiting.retain(|(owner, _), _| *owner != process);
        self.verdicts.retain(|(owner, _), _| *owner != process);
        self.forget_stalls(process);
    }

    /// Carries out what the state machine has decided.
    pub(super) fn settle(&mut self) {
        self.announce_found();
        let mut failed = Vec::new();
        loop {
            let effects = self.flow.take_effects();
            if effects.is_empty() {
                return self.warn_of_failed(&failed);
            }
            for effect in effects {
                match effect {
                    Effect::Finalized(FileId(inode)) => self.finalized(inode),
                    Effect::Failed(FileId(inode), step) => {
                        self.failed(inode);
                        failed.push((inode, step));
                    }
                    Effect::Released(id, resolution) => self.release(id, resolution),
                    Effect::Warning(warning) => self.warn_of(&warning),
                }
            }
        }
    }

    /// Follows a path (see [`Names::walk`]); what that finds in the lower layer
    /// is known to the state machine before anything happens to it.
    pub(super) fn walk(&mut self, base: Inode, path: &[u8], follow: bool) -> Walk {
        let walk = self.names.walk(base, path, follow);
        self.announce_found();
        walk
    }

    /// Tells the state machine of all that was found in the lower layer.
    pub(super) fn announce_found(&mut self) {
        for inode in self.names.take_found() {
            self.announce_lower(inode);
        }
    }

    fn announce_lower(&mut self, inode: Inode) {
        let Some(node) = self.names.get(inode) else {
            return;
        };
        let kind = super::file_kind(node);
        for path in self.names.paths_of(inode) {
            self.flow.preexisting(&path, FileId(inode), kind);
        }
    }

    fn record_of(&self, inode: Inode) -> Option<u32> {
        self.names.get(inode)?.file()?.record
    }

    fn finalized(&mut self, inode: Inode) {
        self.entry_added(inode);
        let Some(record) = self.record_of(inode) else {
            return;
        };
        self.records.settle(record, false);
        let size = self.records.size(record);
        for (step, told) in self.stats.told.remove(&inode).unwrap_or_default() {
            if size > told {
                let path = self.display(inode);
                let reader = self.flow.step_name(step).to_owned();
                self.doubt(format!(
                    "step \"{reader}\" read {path} to the {told} bytes it had then and closed it, \
                     but it has grown to {size}: probably truncated, use mode \"update\""
                ));
            }
        }
    }

    fn failed(&mut self, inode: Inode) {
        self.entry_added(inode);
        if let Some(record) = self.record_of(inode) {
            self.records.settle(record, true);
        }
    }

    /// One warning for the files that a step leaves incomplete.
    fn warn_of_failed(&mut self, failed: &[(Inode, StepId)]) {
        const NAMED: usize = 3;
        let is_file = |inode: Inode| self.names.directory(inode).is_none();
        let mut of_step: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for &(inode, step) in failed.iter().filter(|(inode, _)| is_file(*inode)) {
            let name = self.flow.step_name(step);
            of_step.entry(name).or_default().push(self.display(inode));
        }
        let sentences: Vec<_> = of_step
            .into_iter()
            .map(|(step, files)| {
                let more = match files.len().saturating_sub(NAMED) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let files = files[..files.len().min(NAMED)].join(", ");
                format!(
                    "step \"{step}\" failed and leaves incomplete: {files}{more}; readers get EIO"
                )
            })
            .collect();
        sentences.into_iter().for_each(|text| self.stats.warn(text));
    }

    /// A path for messages: relative to `CAPIO_DIR`.
    pub(super) fn display(&self, inode: Inode) -> String {
        self.display_path(&self.names.path_of(inode))
    }

    /// As [`Self::display`], for an absolute path.
    pub(super) fn display_path(&self, path: &[u8]) -> String {
        use std::os::unix::ffi::OsStrExt;
        let dir = self.names.dir().as_os_str().as_bytes();
        let rest = super::names::inside(dir, path).map_or(path, |rest| match rest {
            [b'/', rest @ ..] => rest,
            rest => rest,
        });
        FileName(if rest.is_empty() { b"." } else { rest }.to_vec()).to_string()
    }

    fn warn_of(&mut self, warning: &Warning) {
        let text = match warning {
            Warning::WrittenAfterFinal { path, step, .. } => format!(
                "step \"{}\" opened {} for writing after it was final: raise the count of \
                 its on_close rule, or use on_termination",
                self.flow.step_name(*step),
                self.display_path(path)
            ),
            Warning::FinalWhileOpen { path, step, .. } => format!(
                "{} became final by its on_close rule while step \"{}\" had it open for \
                 writing: perhaps the count is too low",
                self.display_path(path),
                self.flow.step_name(*step)
            ),
            Warning::StreamTruncated { path, step, .. } => format!(
                "step \"{}\" truncated {} while it may be read as a stream: what readers \
                 already have is not recalled",
                self.flow.step_name(*step),
                self.display_path(path)
            ),
            Warning::JoinedEndedStep(step) => format!(
                "a process joined step \"{}\" after it had ended: raise --step-grace",
                self.flow.step_name(*step)
            ),
        };
        self.stats.warn(text);
    }

    /// A warning that puts results in doubt: an error under `--strict`.
    pub(super) fn doubt(&mut self, text: String) {
        if self.config.strict {
            self.stats.err(text.clone());
        }
        self.stats.warn(text);
    }

    /// Breaks waits that nothing will ever end: those on the coordinator, and
    /// those on the bytes of `files`.
    pub(super) fn break_deadlock(&mut self, files: &[u32], diagnosis: String) {
        let ids: Vec<_> = self.waiters.keys().copied().collect();
        self.flow.break_waits(&ids);
        for &record in files {
            self.records.set_flags(record, FILE_DEADLOCK);
            self.shared.wake_file(record);
        }
        self.stats.deadlock = Some(diagnosis);
        self.settle();
    }

    /// Whether the spec sends this path to the real file system.
    /// What lies in an excluded directory is excluded with it.
    pub(super) fn excluded(&self, path: &[u8]) -> bool {
        !self.spec.exclude().is_empty() && self.said_above(path, |rules| rules.excluded)
    }

    /// Whether the spec says so of the path, or of a directory above it below
    /// `CAPIO_DIR`.
    pub(super) fn said_above(
        &self,
        path: &[u8],
        says: impl Fn(&capio_specs::PathRules) -> bool,
    ) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let root = self.names.dir().as_os_str().as_bytes().len();
        let slashes = (root + 1..path.len()).filter(|&at| path.get(at) == Some(&b'/'));
        let mut ways = slashes.filter_map(|end| path.get(..end)).chain([path]);
        ways.any(|way| says(&self.spec.rules_for(way)))
    }

    /// Marks the file as one that may be read as a stream, if its rules say so.
    pub(super) fn mark_stream(&self, record: u32, path: &[u8]) {
        let rules = self.spec.rules_for(path);
        let streams = rules.firing == capio_specs::FiringRule::NoUpdate;
        let marked = self
            .shared
            .file(record)
            .flags
            .load(std::sync::atomic::Ordering::Relaxed);
        if streams && marked & FILE_STREAM == 0 {
            self.records.set_stream(record);
        }
    }
}

/// The thread record that a request names for the case that it must wait.
fn waiting_thread(request: &Request<'_>) -> Option<u32> {
    match *request {
        Request::Open { thread, .. }
        | Request::Reopen { thread, .. }
        | Request::Stat { thread, .. }
        | Request::Access { thread, .. }
        | Request::Run { thread, .. }
        | Request::List { thread, .. }
        | Request::GetXattr { thread, .. }
        | Request::ListXattrs { thread, .. } => Some(thread),
        _ => None,
    }
}

/// The thread record that a request names, whatever for.
fn named_thread(request: &Request<'_>) -> Option<u32> {
    match *request {
        Request::Grant { thread, .. }
        | Request::Fetch { thread, .. }
        | Request::Sync { thread, .. } => Some(thread),
        _ => waiting_thread(request),
    }
}
