//! Opening files, and the open file descriptions (OFDs) that result.
//!
//! Each OFD is a real open of the file's *reservation inode* under a name of
//! its own, handed to the client as a descriptor. The kernel then counts its
//! references, across `dup`, `fork`, `exec` and death, and inotify tells when
//! the last is gone.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode;
use wire::layout::{FILE_FINAL, WAIT_FINAL, WAIT_NEVER, WAIT_STREAM};
use wire::limits::{MAX_FILE_SIZE, MAX_FILES, MAX_OFDS};
use wire::message::{Name, OfdId};
use wire::place;
use wire::protocol::hazard;

use super::engine::{Answer, Client, Engine, Outcome};
use super::journal::data_of;
use super::names::{Attr, FileNode, Inode, Kind, Walk, now};
use super::processes::killed_by;
use super::records::Records;
use super::reservations::Reservations;
use crate::flow::{FileId, FileKind, Reading, StepId};

/// Flags that make no sense for a reservation.
const NOT_KEPT: i32 = libc::O_CREAT
    | libc::O_EXCL
    | libc::O_TRUNC
    | libc::O_NOFOLLOW
    | libc::O_DIRECTORY
    | libc::O_DIRECT
    | libc::O_NOCTTY
    | libc::O_PATH
    | libc::O_CLOEXEC;

/// An open file description.
#[derive(Debug)]
pub(super) struct Ofd {
    /// Generation of its records.
    pub generation: u32,
    /// Its file.
    pub inode: Inode,
    /// The file's record.
    pub record: u32,
    /// Who opened it.
    pub pid: i32,
    /// Step of that process.
    pub step: StepId,
    /// Flags of `open(2)`.
    pub flags: i32,
    /// The path it was opened by.
    pub path: Vec<u8>,
    /// When.
    pub since: Instant,
    /// Who opened it was killed by this signal, while others have it still.
    pub killed: Option<i32>,
}

impl Ofd {
    /// Whether it can be written to.
    #[must_use]
    pub(super) fn writes(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY
    }
}

/// All open file descriptions.
pub(super) struct Ofds {
    open: HashMap<u32, Ofd>,
    /// Numbers of descriptions that came to nothing; each is free when its close is
    /// reported, which must not be taken for that of the next one.
    unborn: HashSet<u32>,
    free: Vec<u32>,
    /// Closed, but a call may be under way still by this one of this file record.
    resting: Vec<(u32, u32)>,
    /// How many have come to rest since it was looked who is at work.
    closed: u32,
    next: u32,
    /// What they are descriptions of.
    pub(super) reservations: Reservations,
}

impl Ofds {
    /// None; names and reservations lie in the session's directory.
    #[must_use]
    pub(super) fn new(session: &Path) -> Self {
        Self {
            open: HashMap::new(),
            unborn: HashSet::new(),
            free: Vec::new(),
            resting: Vec::new(),
            closed: 0,
            next: 0,
            reservations: Reservations::new(session),
        }
    }

    /// The description that a message names, if it is open still.
    #[must_use]
    pub(super) fn get(&self, name: OfdId) -> Option<&Ofd> {
        let ofd = self.open.get(&name.id);
        ofd.filter(|ofd| ofd.generation == name.generation)
    }

    fn get_mut(&mut self, name: OfdId) -> Option<&mut Ofd> {
        let ofd = self.open.get_mut(&name.id);
        ofd.filter(|ofd| ofd.generation == name.generation)
    }

    /// Takes note that `pid`, whose descriptions others may still have, was killed.
    pub(super) fn opener_killed(&mut self, pid: i32, signal: i32) {
        let opened = self.open.values_mut().filter(|ofd| ofd.pid == pid);
        opened.for_each(|ofd| {
            ofd.killed.get_or_insert(signal);
        });
    }

    /// All: number and description.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Ofd)> {
        self.open.iter().map(|(id, ofd)| (*id, ofd))
    }

    /// A number for a description.
    fn take(&mut self, records: &Records) -> Option<u32> {
        // To look means to look at all threads: no more often than costs a process's
        // threads for each description.
        let worth_it = self.closed >= records.process_end || self.next == MAX_OFDS;
        if self.free.is_empty() && worth_it {
            self.look_who_rests(records);
        }
        self.free.pop().or_else(|| {
            (self.next < MAX_OFDS).then(|| {
                self.next += 1;
                self.next - 1
            })
        })
    }

    /// The number is free once nobody is at work by it.
    fn rest(&mut self, id: u32, record: u32) {
        self.resting.push((id, record));
        self.closed += 1;
    }

    /// Numbers are free of which nobody in `records` is at work on the files.
    fn look_who_rests(&mut self, records: &Records) {
        let busy = records.busy();
        let free = self
            .resting
            .extract_if(.., |(_, record)| !busy.contains(record));
        self.free.extend(free.map(|(id, _)| id));
        self.closed = 0;
    }

    /// Opens the reservation under a name of its own. Without success the number is
    /// free again, at once or when the kernel reports the close.
    fn descriptor(&mut self, id: u32, record: u32, flags: i32) -> nix::Result<OwnedFd> {
        let flags = OFlag::from_bits_retain(flags & !NOT_KEPT);
        let opened = self.reservations.open(record, id, flags);
        opened.map_err(|failed| {
            if failed.was_open {
                self.unborn.insert(id);
            } else {
                self.free.push(id);
            }
            failed.error
        })
    }
}

/// Watches for last closes of open file descriptions.
pub(super) struct Watch {
    inotify: Inotify,
}

impl Watch {
    /// A watch of the session's names of open file descriptions.
    ///
    /// # Errors
    /// What the kernel says (`EMFILE`: too many inotify instances).
    pub(super) fn new(session: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let inotify = inotify.map_err(|error| match error {
            Errno::EMFILE => io::Error::other(
                "this user has no inotify instance left; end programs that watch files, or raise \
                 the sysctl fs.inotify.max_user_instances",
            ),
            error => error.into(),
        })?;
        let events = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_CLOSE_NOWRITE;
        inotify.add_watch(&session.join(place::OPEN), events)?;
        Ok(Self { inotify })
    }

    /// Readable when something was closed.
    ///
    /// # Errors
    /// When it cannot be duplicated.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.inotify.as_fd().try_clone_to_owned()
    }

    /// Descriptions closed since; `None` in place of a number: the queue has
    /// overflown.
    fn closed(&self) -> Vec<Option<u32>> {
        // A read takes some hundred events: fewer are all there were.
        const FEW: usize = 32;
        let mut closed = Vec::new();
        while let Ok(events) = self.inotify.read_events() {
            closed.extend(events.iter().filter_map(|event| {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    return Some(None);
                }
                event.name.as_ref()?.to_str()?.parse().ok().map(Some)
            }));
            if events.len() < FEW {
                break;
            }
        }
        closed
    }
}

impl Engine {
    /// `open(2)`.
    pub(super) fn open(
        &mut self,
        client: Client,
        name: Name<'_>,
        flags: i32,
        mode: u32,
        thread: u32,
    ) -> Outcome {
        if flags & libc::O_TMPFILE == libc::O_TMPFILE {
            return Err(libc::EOPNOTSUPP);
        }
        if flags & libc::O_CREAT != 0 {
            self.may_create(name)?;
        }
        let exclusive = flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0;
        let follow = flags & libc::O_NOFOLLOW == 0 && !exclusive;
        match self.walk(name.base, name.path, follow) {
            Walk::Error(error) => Err(error),
            Walk::Outside(path) => Ok(Answer::Native(path, None)),
            Walk::Found {
                inode,
                parent,
                name,
            } => {
                let path = if name.is_empty() {
                    self.names.path_of(inode)
                } else {
                    self.names.path_in(parent, &name)
                };
                if self.excluded(&path) {
                    return Ok(Answer::Native(path, None));
                }
                if exclusive {
                    self.learn(parent, &name, inode, &path);
                    return Err(libc::EEXIST);
                }
                let opened = self.open_found(client, inode, path.clone(), flags);
                self.learn(parent, &name, inode, &path);
                opened
            }
            Walk::Missing {
                parent,
                name,
                path,
                slash,
            } => {
                if self.excluded(&path) {
                    return self
                        .native_parent(&path)
                        .map(|()| Answer::Native(path, None));
                }
                if flags & libc::O_CREAT == 0 {
                    if let Some(parent) = parent {
                        self.learn_missing(parent, &name, &path);
                    }
                    return self.missing(client, thread, path);
                }
                let Some(parent) = parent else {
                    // Somebody may still make the directory.
                    let first = self.first_missing(&path);
                    return self.missing(client, thread, first);
                };
                if slash {
                    return Err(libc::EISDIR);
                }
                let inode = self.create(client, parent, name, &path, mode)?;
                self.open_record(client, inode, path, flags)
            }
        }
    }

    /// The first part of an absolute path below `CAPIO_DIR` that is not there.
    fn first_missing(&mut self, path: &[u8]) -> Vec<u8> {
        let root = self.names.dir().as_os_str().len();
        let slashes = (root + 1..path.len()).filter(|&at| path[at] == b'/');
        for end in slashes {
            let inner = &path[root..end];
            if matches!(self.walk(0, inner, true), Walk::Missing { .. }) {
                return path[..end].to_vec();
            }
        }
        path.to_vec()
    }

    /// The real directory of an excluded path exists wherever the session's does.
    pub(super) fn native_parent(&self, path: &[u8]) -> Result<(), i32> {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let parent = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// Makes an empty file.
    pub(super) fn create(
        &mut self,
        client: Client,
        parent: Inode,
        name: Vec<u8>,
        path: &[u8],
        mode: u32,
    ) -> Result<Inode, i32> {
        self.may_write(parent)?;
        let (uid, gid) = self.identity(parent);
        let attr = Attr::fresh(mode, uid, gid);
        let file = FileNode {
            creator: Some(client.step),
            modified: true,
            ..FileNode::default()
        };
        let made = self
            .names
            .make(parent, name.clone(), Kind::File(file), attr);
        let inode = made.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
        let record = self.new_record(inode, &attr).inspect_err(|_| {
            self.names.unbind(parent, &name);
            self.names.drop_node(inode);
        })?;
        if let Some(file) = self.names.file_mut(inode) {
            file.record = Some(record);
        }
        self.names.touch(parent);
        self.learn(parent, &name, inode, path);
        self.mark_stream(record, path);
        self.flow
            .created(path, FileId(inode), FileKind::File, Some(client.step));
        self.entry_added(parent);
        Ok(inode)
    }

    fn new_record(&mut self, inode: Inode, attr: &Attr) -> Result<u32, i32> {
        self.records.process_end = self.processes.end();
        let record = self.records.create(inode, attr);
        let record = record.map_err(|error| match error {
            libc::ENFILE => {
                let most = MAX_FILES as usize;
                self.is_at_limit(most, "files in the cache and below it", "open", error)
            }
            error => error,
        })?;
        self.ofds.reservations.make(record).map_err(|error| {
            self.records.release(record);
            error as i32
        })?;
        Ok(record)
    }

    /// `open` of a description's name in `/proc/self/fd`.
    pub(super) fn reopen(&mut self, client: Client, ofd: OfdId, flags: i32) -> Outcome {
        let open = self.ofds.get(ofd).ok_or(libc::EBADF)?;
        let (inode, path) = (open.inode, open.path.clone());
        self.open_found(client, inode, path, flags & !(libc::O_CREAT | libc::O_EXCL))
    }

    fn open_found(&mut self, client: Client, inode: Inode, path: Vec<u8>, flags: i32) -> Outcome {
        let access = flags & libc::O_ACCMODE;
        let writes = access != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        let Some(node) = self.names.get(inode) else {
            return Err(libc::ENOENT);
        };
        if !matches!(node.kind, Kind::Directory(_)) && flags & libc::O_DIRECTORY != 0 {
            return Err(libc::ENOTDIR);
        }
        match &node.kind {
            Kind::Symlink(content) if flags & libc::O_PATH != 0 => {
                let path = self.session.join(place::SPECIAL).join(format!("l{inode}"));
                match std::os::unix::fs::symlink(OsStr::from_bytes(content), &path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        Err(error.raw_os_error().unwrap_or(libc::EIO))
                    }
                    _ => Ok(Answer::Native(bytes(&path), Some(inode))),
                }
            }
            Kind::Symlink(_) => Err(libc::ELOOP),
            Kind::Special { path, .. } => Ok(Answer::Native(bytes(path), None)),
            Kind::Directory(_) if writes || flags & libc::O_CREAT != 0 => Err(libc::EISDIR),
            Kind::Directory(_) => self.open_directory(inode),
            Kind::File(file) => {
                let (lower, record) = (file.lower.clone(), file.record);
                let wanted = match access {
                    libc::O_RDONLY => libc::R_OK,
                    libc::O_WRONLY => libc::W_OK,
                    _ => libc::R_OK | libc::W_OK,
                };
                self.permitted(inode, wanted as u32)?;
                if let (Some(lower), None, false) = (&lower, record, writes) {
                    self.mark_consumed(client, inode);
                    return Ok(Answer::Native(bytes(lower), Some(inode)));
                }
                if record.is_none() {
                    self.copy_up(inode, flags & libc::O_TRUNC != 0)?;
                }
                self.open_record(client, inode, path, flags)
            }
        }
    }

    fn open_directory(&mut self, inode: Inode) -> Outcome {
        self.permitted(inode, libc::R_OK as u32)?;
        let path = self.names.shadow_of(inode);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(&path, flags, Mode::empty()).map_err(|error| error as i32)?;
        Ok(Answer::Directory(inode, fd))
    }

    pub(super) fn mark_consumed(&mut self, client: Client, inode: Inode) {
        if let Some(file) = self.names.file_mut(inode)
            && file.creator != Some(client.step)
        {
            file.consumed = true;
        }
    }

    /// Brings the content of a lower file into the cache (`empty`: nothing of
    /// it), so that it can be changed.
    pub(super) fn copy_up(&mut self, inode: Inode, empty: bool) -> Result<u32, i32> {
        let file = self
            .names
            .get(inode)
            .and_then(|node| node.file())
            .ok_or(libc::ENOENT)?;
        if let Some(record) = file.record {
            return Ok(record);
        }
        let lower = file.lower.clone().ok_or(libc::EIO)?;
        let fail = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let source = File::open(&lower).map_err(fail)?;
        let meta = source.metadata().map_err(fail)?;
        self.names.find_names(inode, meta.nlink());
        self.announce_found();
        let attr = Attr::of(&meta);
        let record = self.new_record(inode, &attr)?;
        let copied = if empty {
            Ok(())
        } else {
            self.copy_content(record, &source)
        };
        if let Err(error) = copied {
            self.drop_record(record);
            return Err(error);
        }
        self.records.set_attr(record, &attr);
        self.room.is_idle(inode, record);
        self.names.forget_names(inode);
        if let Some(file) = self.names.file_mut(inode) {
            file.record = Some(record);
            file.seen = Some(super::names::seen(&meta));
        }
        if self.flow.is_final(FileId(inode)) {
            self.records.set_flags(record, FILE_FINAL);
        }
        Ok(record)
    }

    fn copy_content(&mut self, record: u32, source: &File) -> Result<(), i32> {
        use std::os::unix::fs::FileExt;
        let size = source.metadata().map_err(|_| libc::EIO)?.size();
        if size > MAX_FILE_SIZE {
            return Err(libc::EFBIG);
        }
        let fail = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let mut buffer = vec![0; 1 << 20];
        // Holes cost nothing here either.
        for (mut at, end) in data_of(source, size).map_err(fail)? {
            while at < end {
                let length = (end - at).min(buffer.len() as u64) as usize;
                let part = buffer.get_mut(..length).unwrap_or_default();
                let length = source.read_at(part, at).map_err(fail)?;
                if length == 0 {
                    break;
                }
                let part = part.get(..length).unwrap_or_default();
                self.records.write(record, at, part)?;
                at += length as u64;
            }
        }
        let sync = self.shared.file_sync(record);
        sync.size.fetch_max(size, SeqCst);
        sync.frontier.fetch_max(size, SeqCst);
        Ok(())
    }

    /// Makes an open file description of a file in the cache.
    fn open_record(&mut self, client: Client, inode: Inode, path: Vec<u8>, flags: i32) -> Outcome {
        let file = self
            .names
            .get(inode)
            .and_then(|node| node.file())
            .ok_or(libc::ENOENT)?;
        let record = file.record.ok_or(libc::EIO)?;
        let access = flags & libc::O_ACCMODE;
        let reads = access != libc::O_WRONLY && flags & libc::O_PATH == 0;
        let writes = access != libc::O_RDONLY;
        let wait = if reads {
            self.reading(client, inode, &path)?
        } else {
            WAIT_NEVER
        };
        let empties = flags & libc::O_TRUNC != 0 && self.records.size(record) > 0;
        if empties && !(self.at_rest(record) && self.records.hold_still(record)) {
            return Ok(Answer::Soon);
        }
        let described = self.new_description(record, flags, empties);
        if empties {
            self.records.let_go(record);
        }
        let (id, fd) = described?;
        let generation = self.fill_ofd(id, record, flags, wait);
        if empties {
            self.modified(inode, record);
            self.flow.truncated(FileId(inode), client.step);
        }
        if reads {
            self.mark_consumed(client, inode);
        }
        self.room.is_used(record);
        self.records.undo_return(record);
        if let Some(file) = self.names.file_mut(inode) {
            file.open += 1;
            file.writers += u32::from(writes);
            file.modified |= flags & libc::O_TRUNC != 0;
        }
        let pid = self
            .processes
            .get(client.process)
            .map_or(0, |process| process.pid);
        let ofd = Ofd {
            generation,
            inode,
            record,
            pid,
            step: client.step,
            flags,
            path,
            since: Instant::now(),
            killed: None,
        };
        self.ofds.open.insert(id, ofd);
        if writes {
            self.mark_named_stream(inode, record);
            self.flow.writer_opened(FileId(inode), client.step);
            if self.records.size(record) == 0 {
                // Ahead of the first write; without space that one will tell.
                let _ = self.records.grant(record, 0, 1, None);
            }
        }
        Ok(Answer::Opened(OfdId { id, generation }, fd))
    }

    /// The number and the descriptor of a new description; `empties`: of a file
    /// that is emptied if there are these.
    fn new_description(
        &mut self,
        record: u32,
        flags: i32,
        empties: bool,
    ) -> Result<(u32, OwnedFd), i32> {
        let Some(id) = self.ofds.take(&self.records) else {
            let most = MAX_OFDS as usize;
            return Err(self.is_at_limit(most, "files open at a time", "open", libc::ENFILE));
        };
        if self.shared.back_ofd(id).is_err() {
            self.ofds.free.push(id);
            return Err(libc::ENOMEM);
        }
        let fd = self.ofds.descriptor(id, record, flags);
        let fd = fd.map_err(|error| error as i32)?;
        if empties && let Err(error) = self.records.truncate(record, 0) {
            self.ofds.unborn.insert(id);
            return Err(error);
        }
        Ok((id, fd))
    }

    fn mark_named_stream(&self, inode: Inode, record: u32) {
        for path in self.names.paths_of(inode) {
            self.mark_stream(record, &path);
        }
    }

    /// What reads of a file wait for: `WAIT_*`.
    fn reading(&mut self, client: Client, inode: Inode, path: &[u8]) -> Result<u32, i32> {
        match self.flow.reading(client.step, FileId(inode), path) {
            Reading::Free => Ok(WAIT_NEVER),
            Reading::UntilFinal => Ok(WAIT_FINAL),
            Reading::Stream => Ok(WAIT_STREAM),
            Reading::Failed(_) => Err(libc::EIO),
        }
    }

    fn fill_ofd(&self, id: u32, record: u32, flags: i32, wait: u32) -> u32 {
        let sync = self.shared.ofd_sync(id);
        for word in [
            &sync.offset,
            &sync.read,
            &sync.written,
            &sync.waited,
            &sync.told,
        ] {
            word.store(0, Relaxed);
        }
        sync.word.store(0, Relaxed);
        sync.waits.store(0, Relaxed);
        let meta = self.shared.ofd(id);
        meta.file.store(record, Relaxed);
        // O_PATH is ours to keep: the kernel reports no close of such a descriptor.
        let kept = flags & !NOT_KEPT | flags & libc::O_PATH;
        meta.flags.store(kept as u32, Relaxed);
        meta.wait.store(wait, Relaxed);
        meta.native.store(0, Relaxed);
        let generation = meta.generation.load(Relaxed).wrapping_add(1) | 1;
        meta.generation.store(generation, SeqCst);
        generation
    }

    /// The file's content or attributes are the session's own from now on.
    pub(super) fn modified(&mut self, inode: Inode, record: u32) {
        let time = now() as u64;
        let sync = self.shared.file_sync(record);
        sync.modified.store(time, Relaxed);
        sync.changed.store(time, SeqCst);
        if let Some(file) = self.names.file_mut(inode) {
            file.modified = true;
        }
    }

    /// Takes note of all open file descriptions that were closed.
    pub(super) fn drain_closes(&mut self) {
        loop {
            let events = self.watch.closed();
            for closed in &events {
                match *closed {
                    Some(id) => self.closed(id),
                    None => self.rescan(Instant::now()),
                }
            }
            // Once more after a look around: what that found closed is told too,
            // and must not be taken for the end of a later use of its number.
            if !events.contains(&None) {
                break;
            }
        }
        self.settle();
    }

    fn closed(&mut self, id: u32) {
        let Some(ofd) = self.ofds.open.remove(&id) else {
            if self.ofds.unborn.remove(&id) {
                self.ofds.free.push(id);
            }
            return;
        };
        let sync = self.shared.ofd_sync(id);
        let (read, written) = (sync.read.load(SeqCst), sync.written.load(SeqCst));
        self.stats.moved(ofd.step, read, written);
        let waits = u64::from(sync.waits.load(SeqCst));
        if waits > 0 {
            let time = Duration::from_nanos(sync.waited.load(SeqCst));
            let reason = super::wait_reason(self.shared.ofd(id).wait.load(Relaxed));
            self.stats.waited(ofd.step, &ofd.path, reason, time, waits);
        }
        let told = sync.told.load(SeqCst);
        let stream = self.shared.ofd(id).wait.load(Relaxed) == WAIT_STREAM;
        let at_told = told > 0 && sync.offset.load(SeqCst) == told;
        if stream && at_told && !self.flow.is_final(FileId(ofd.inode)) {
            self.stats.told(ofd.inode, ofd.step, told);
        }
        hazard::ends(&self.shared.ofd(id).generation);
        self.ofds.rest(id, ofd.record);
        if ofd.writes() && self.shared.ofd(id).native.load(Relaxed) != 0 {
            self.records.adopt(ofd.record);
        }
        if ofd.writes()
            && !self.records.is_kernel(ofd.record)
            && self.ofds.reservations.was_missed(ofd.record)
        {
            let (step, path) = (self.flow.step_name(ofd.step), self.display_path(&ofd.path));
            self.stats.err(format!(
                "step \"{step}\" wrote to {path} by a way that capio does not see (io_uring or \
                 AIO linked statically?), and these bytes are lost: let it use plain writes"
            ));
        }
        self.closed_file(&ofd, written);
    }

    fn closed_file(&mut self, ofd: &Ofd, written: u64) {
        let killed = if ofd.writes() {
            ofd.killed.or_else(|| self.killed_by(ofd.pid))
        } else {
            None
        };
        let Some(file) = self.names.file_mut(ofd.inode) else {
            return;
        };
        file.open = file.open.saturating_sub(1);
        if file.open == 0 {
            self.room.is_idle(ofd.inode, ofd.record);
        }
        // Who was killed may have written more than it has counted.
        file.modified |= written > 0 || killed.is_some();
        if ofd.writes() {
            file.writers = file.writers.saturating_sub(1);
            if file.writers == 0 {
                self.records.trim(ofd.record);
            }
            if let Some(signal) = killed {
                self.runs.entry(ofd.step).or_default().note_killed(signal);
                self.flow.writer_died(FileId(ofd.inode), ofd.step);
            } else {
                self.flow.writer_closed(FileId(ofd.inode), ofd.step);
            }
        }
        self.drop_unused(ofd.inode);
    }

    /// The signal that has killed the process, or kills it right now.
    fn killed_by(&self, pid: i32) -> Option<i32> {
        let known = self.processes.of_pid(pid);
        let signal = known.map_or_else(|| killed_by(pid), |known| self.processes.killed_by(known));
        signal.filter(|signal| *signal != 0)
    }

    /// Forgets a file that has neither a name nor an open description.
    pub(super) fn drop_unused(&mut self, inode: Inode) {
        let Some(node) = self.names.get(inode) else {
            return;
        };
        let open = node.file().map_or(0, |file| file.open);
        if open > 0 || !node.names.is_empty() {
            return;
        }
        if let Some(node) = self.names.drop_node(inode) {
            if let Some(record) = node.file().and_then(|file| file.record) {
                self.drop_record(record);
            }
            self.flow.forgotten(FileId(inode));
        }
    }

    fn drop_record(&mut self, record: u32) {
        let reservations = &mut self.ofds.reservations;
        self.programs.forget(record, &reservations.path(record));
        reservations.remove(record);
        self.room.is_used(record);
        self.records.release(record);
    }

    /// After lost events: what no process has open any more is closed. A
    /// descriptor may still be on its way to the process that asked for it, so
    /// that young ones are looked at later.
    pub(super) fn rescan(&mut self, now: Instant) {
        const ON_ITS_WAY: Duration = Duration::from_secs(2);
        let open = super::proc_scan::open_names(&self.session.join(place::OPEN));
        let candidates = self.ofds.open.iter().filter(|(id, _)| !open.contains(id));
        let is_young = |ofd: &Ofd| now.duration_since(ofd.since) < ON_ITS_WAY;
        let (young, gone): (Vec<_>, Vec<_>) = candidates.partition(|(_, ofd)| is_young(ofd));
        self.rescan_at = (!young.is_empty()).then(|| now + ON_ITS_WAY);
        let gone: Vec<u32> = gone.into_iter().map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.closed(id));
    }

    /// A range beyond the frontier is written.
    pub(super) fn published(&mut self, ofd: OfdId, start: u64, end: u64) -> Outcome {
        let ofd = self
            .ofds
            .get(ofd)
            .filter(|ofd| ofd.writes())
            .ok_or(libc::EBADF)?;
        let record = ofd.record;
        self.records.published(record, start, end);
        Ok(Answer::Ok)
    }

    /// `F_SETFL`.
    pub(super) fn set_flags(&mut self, id: OfdId, flags: i32) -> Outcome {
        const SETTABLE: i32 = libc::O_APPEND | libc::O_NONBLOCK | libc::O_NOATIME;
        let ofd = self.ofds.get_mut(id).ok_or(libc::EBADF)?;
        ofd.flags = (ofd.flags & !SETTABLE) | (flags & SETTABLE);
        self.shared
            .ofd(id.id)
            .flags
            .store((ofd.flags & !NOT_KEPT) as u32, SeqCst);
        Ok(Answer::Ok)
    }

    /// What became of the writes that a dead process had begun: nothing.
    pub(super) fn wipe_unpublished(&mut self, process: u32) {
        for (record, start, end) in self.processes.writes(process) {
            let known = self.records.is_used(record);
            let from = start.max(self.records.size(record));
            if known && from < end {
                if self.records.wipe(record, from, end).is_err() {
                    // Nobody may take it for the bytes of somebody alive.
                    self.records.settle(record, true);
                }
                self.records.cut_kernel(record);
            }
        }
    }
}

/// A path's bytes.
pub(super) fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::arena::Arena;
    use super::super::shm::Shared;
    use super::*;

    /// Numbers for as many descriptions, each closed at once; whether `id` was one.
    fn comes_again(ofds: &mut Ofds, records: &Records, id: u32, tries: u32) -> bool {
        (0..tries).any(|_| {
            let taken = ofds.take(records).unwrap();
            ofds.rest(taken, 7);
            taken == id
        })
    }

    #[test]
    fn a_call_on_a_description_closed_meanwhile_does_not_move_the_offset_of_another() {
        let shared = Arc::new(Shared::create(wire::limits::CHUNK, 2, 1).unwrap());
        let arena = Arc::new(Arena::new(Arc::clone(&shared)));
        let mut records = Records::new(Arc::clone(&shared), arena);
        records.process_end = 1;
        shared.process(0).generation.store(1, SeqCst);
        let slot = &shared.record(0).threads[5].hazard;
        let mut ofds = Ofds::new(Path::new("/nowhere"));
        let id = ofds.take(&records).unwrap();
        hazard::enter_alone(slot, 3);
        ofds.rest(id, 3);
        assert!(!comes_again(&mut ofds, &records, id, 9));
        hazard::leave(slot);
        assert!(comes_again(&mut ofds, &records, id, 9), "it is lost");
        assert!(
            ofds.next <= 3,
            "{} numbers for one description at a time",
            ofds.next
        );
    }
}
