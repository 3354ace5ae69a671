//! A client that speaks the wire protocol and moves data by the rules of the
//! shared memory, without the library.

use std::ffi::OsString;
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, SeqCst};
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use wire::layout::{
    FILE_DEADLOCK, FILE_FAILED, FILE_FINAL, FILE_STREAM, FILE_WITHHELD, FileMeta, FileSync, MAGIC,
    MAP_ENTRIES, MapBlock, MetaHeader, OfdMeta, OfdSync, Piece, ProcessRecord, SyncHeader,
    ThreadRecord, WAIT_NEVER, WAIT_STREAM, meta, sync,
};
use wire::limits::{MAX_FRAME, PAGE, VERSION};
use wire::message::{Attributes, Entry, Name, OfdId, Reply, Request, Target, decode, encode};

/// Nothing in these tests takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An attached process.
pub(crate) struct Peer {
    socket: UnixStream,
    arena: MmapRaw,
    meta: MmapRaw,
    sync: MmapRaw,
    process: u32,
    /// Its thread record.
    pub thread: u32,
}

/// An open file description with its descriptor.
#[derive(Debug)]
pub(crate) struct Open {
    /// Its number.
    pub ofd: OfdId,
    /// What came with it.
    pub descriptor: OwnedFd,
}

/// What an open came to.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A file in the cache.
    File(Open),
    /// A directory, by inode, with its shadow.
    Directory(u64, OwnedFd),
    /// The kernel's path, and whether it is the session's all the same.
    Native(PathBuf, bool),
}

/// A name below `CAPIO_DIR`.
pub(crate) fn name(path: &str) -> Name<'_> {
    let path = path.as_bytes();
    Name { base: 0, path }
}

/// A target by name.
pub(crate) fn at(path: &str) -> Target<'_> {
    let (name, follow) = (name(path), true);
    Target::Path { name, follow }
}

/// What [`Peer::xattr`] asks, of the disk.
fn on_disk(path: &Path, name: Option<&str>) -> Result<Vec<u8>, i32> {
    let Some(name) = name else {
        let names = xattr::list(path).unwrap();
        let names = names.map(|name| [name.as_encoded_bytes(), b"\0"].concat());
        return Ok(names.collect::<Vec<_>>().concat());
    };
    let value = xattr::get(path, name).unwrap();
    value.ok_or(libc::ENODATA)
}

impl Peer {
    /// Joins the session in `dir` as a process of step `app`.
    pub(crate) fn join(dir: &Path, app: &str) -> Self {
        let mut socket = UnixStream::connect(dir.join(wire::place::SOCKET)).unwrap();
        let (version, app, forked) = (VERSION, app.as_bytes(), false);
        send(
            &mut socket,
            &Request::Hello {
                version,
                app,
                forked,
            },
        );
        let (body, regions) = receive(&socket).expect("the coordinator hung up");
        let Some(Reply::Welcome { process, arena, .. }) = decode(&body) else {
            panic!("{:?}", decode::<Reply<'_>>(&body));
        };
        let mut regions = regions.iter().map(AsRawFd::as_raw_fd);
        let mut next = || regions.next().expect("three regions");
        let peer = Self {
            arena: MmapOptions::new().map_raw(next()).unwrap(),
            meta: MmapOptions::new().map_raw_read_only(next()).unwrap(),
            sync: MmapOptions::new().map_raw(next()).unwrap(),
            socket,
            process,
            thread: 0,
        };
        assert_eq!(peer.arena.len() as u64, arena);
        let header: &MetaHeader = view(&peer.meta, 0, 0);
        assert_eq!(header.magic.load(Acquire), MAGIC);
        peer
    }

    /// One question and its answer.
    pub(crate) fn ask_once(&mut self, request: &Request<'_>) -> (Vec<u8>, Vec<OwnedFd>) {
        send(&mut self.socket, request);
        receive(&self.socket).expect("the coordinator hung up")
    }

    /// Whether the coordinator ends the connection instead of an answer.
    pub(crate) fn has_hung_up(&mut self, request: &Request<'_>) -> bool {
        try_send(&mut self.socket, request).is_err() || receive(&self.socket).is_none()
    }

    /// Asks until the answer is not to wait.
    pub(crate) fn ask(&mut self, request: &Request<'_>) -> (Vec<u8>, Vec<OwnedFd>) {
        let start = Instant::now();
        loop {
            let before = self.record().wake.load(SeqCst);
            let (body, descriptors) = self.ask_once(request);
            if !matches!(decode(&body), Some(Reply::Wait)) {
                return (body, descriptors);
            }
            while self.record().wake.load(SeqCst) == before {
                futex_wait(&self.record().wake, before);
                assert!(start.elapsed() < PATIENCE, "nobody woke {request:?}");
            }
        }
    }

    /// Asks what is answered by `Ok` or an error number.
    pub(crate) fn tell(&mut self, request: &Request<'_>) -> Result<(), i32> {
        let (body, _) = self.ask(request);
        match decode(&body) {
            Some(Reply::Ok) => Ok(()),
            Some(Reply::Error(error)) => Err(error),
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// The request that opens `path`.
    pub(crate) fn opening<'a>(&self, path: &'a str, flags: i32) -> Request<'a> {
        let (name, mode, thread) = (name(path), 0o640, self.thread);
        Request::Open {
            name,
            flags,
            mode,
            thread,
        }
    }

    /// Opens `path`, waiting for it.
    pub(crate) fn open(&mut self, path: &str, flags: i32) -> Result<Opened, i32> {
        let request = self.opening(path, flags);
        let (body, mut descriptors) = self.ask(&request);
        match decode(&body) {
            Some(Reply::Opened { ofd }) => Ok(Opened::File(Open {
                ofd,
                descriptor: descriptors.remove(0),
            })),
            Some(Reply::Directory { inode }) => Ok(Opened::Directory(inode, descriptors.remove(0))),
            Some(Reply::Native { path, lower, .. }) => Ok(Opened::Native(
                OsString::from_vec(path.to_vec()).into(),
                lower,
            )),
            Some(Reply::Error(error)) => Err(error),
            other => panic!("{path}: {other:?}"),
        }
    }

    /// Opens a file that is or comes to be in the cache.
    pub(crate) fn file(&mut self, path: &str, flags: i32) -> Open {
        match self.open(path, flags) {
            Ok(Opened::File(open)) => open,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// A new file open for reading and writing.
    pub(crate) fn create(&mut self, path: &str) -> Open {
        self.file(path, libc::O_RDWR | libc::O_CREAT)
    }

    /// A new file with this content, closed again.
    pub(crate) fn put(&mut self, path: &str, content: &[u8]) {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
        let open = self.file(path, flags);
        self.write(&open, 0, content).unwrap();
    }

    /// The content of a file in the cache.
    pub(crate) fn get(&mut self, path: &str) -> Result<Vec<u8>, i32> {
        match self.open(path, libc::O_RDONLY)? {
            Opened::File(open) => self.read_all(&open),
            Opened::Native(path, _) => Ok(std::fs::read(path).unwrap()),
            other => panic!("{path}: {other:?}"),
        }
    }

    /// Attributes of `target`.
    pub(crate) fn stat(&mut self, target: Target<'_>) -> Result<Attributes, i32> {
        let thread = self.thread;
        let (body, _) = self.ask(&Request::Stat { target, thread });
        match decode(&body) {
            Some(Reply::Attributes(attributes)) => Ok(attributes),
            Some(Reply::Error(error)) => Err(error),
            other => panic!("{target:?}: {other:?}"),
        }
    }

    /// An extended attribute, or (no `name`) the names of all; from where it
    /// lies on disk if it is there.
    pub(crate) fn xattr(&mut self, path: &str, name: Option<&str>) -> Result<Vec<u8>, i32> {
        let (target, thread) = (at(path), self.thread);
        let request = match name.map(str::as_bytes) {
            Some(name) => Request::GetXattr {
                target,
                name,
                thread,
            },
            None => Request::ListXattrs { target, thread },
        };
        let (body, _) = self.ask(&request);
        match decode(&body) {
            Some(Reply::Value(value)) => Ok(value.to_vec()),
            Some(Reply::Error(error)) => Err(error),
            Some(Reply::Native { path, .. }) => {
                let path = PathBuf::from(OsString::from_vec(path.to_vec()));
                on_disk(&path, name)
            }
            other => panic!("{path}: {other:?}"),
        }
    }

    /// Sets an extended attribute.
    pub(crate) fn set_xattr(&mut self, path: &str, name: &str, value: &[u8]) -> Result<(), i32> {
        self.tell(&Request::SetXattr {
            target: at(path),
            name: name.as_bytes(),
            value,
            flags: 0,
        })
    }

    /// Takes one away.
    pub(crate) fn remove_xattr(&mut self, path: &str, name: &str) -> Result<(), i32> {
        let (target, name) = (at(path), name.as_bytes());
        self.tell(&Request::RemoveXattr { target, name })
    }

    /// Names in a directory, sorted.
    pub(crate) fn list(&mut self, path: &str) -> Result<Vec<String>, i32> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let Opened::Directory(directory, _descriptor) = self.open(path, flags)? else {
            panic!("{path} is no directory");
        };
        let (mut names, mut cookie) = (Vec::new(), 0);
        loop {
            let thread = self.thread;
            let request = Request::List {
                directory,
                cookie,
                thread,
            };
            let (body, _) = self.ask(&request);
            let (mut packed, last) = match decode(&body) {
                Some(Reply::Entries { packed, last }) => (packed, last),
                Some(Reply::Error(error)) => return Err(error),
                other => panic!("{path}: {other:?}"),
            };
            while let Some((entry, rest)) = Entry::take(packed) {
                names.push(String::from_utf8(entry.name.to_vec()).unwrap());
                (cookie, packed) = (entry.cookie, rest);
            }
            if last {
                names.sort();
                return Ok(names);
            }
        }
    }

    /// Writes as `pwrite` does; in full or not at all.
    pub(crate) fn write(&mut self, open: &Open, offset: u64, bytes: &[u8]) -> Result<(), i32> {
        self.fill(open, offset, bytes)?;
        self.publish(open, offset, offset + bytes.len() as u64);
        Ok(())
    }

    /// Fills pages without telling anybody.
    pub(crate) fn fill(&mut self, open: &Open, offset: u64, bytes: &[u8]) -> Result<(), i32> {
        let file = self.ofd(open).file.load(Acquire);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let piece = Piece::at(at).ok_or(libc::EFBIG)?;
            let mut page = self.page(file, piece.index);
            if page == 0 {
                let (ofd, offset, length) = (open.ofd, at, rest.len() as u64);
                let thread = self.thread;
                self.tell(&Request::Grant {
                    ofd,
                    offset,
                    length,
                    thread,
                })?;
                page = self.page(file, piece.index);
            }
            let within = at - piece.start;
            let length = (piece.length - within).min(rest.len() as u64) as usize;
            let place = self.in_arena(page, within, length);
            // SAFETY: `in_arena` has checked the range.
            unsafe { place.copy_from_nonoverlapping(rest.as_ptr(), length) };
            (at, rest) = (at + length as u64, &rest[length..]);
        }
        Ok(())
    }

    /// Shows what was filled.
    pub(crate) fn publish(&mut self, open: &Open, start: u64, end: u64) {
        let file = self.ofd(open).file.load(Acquire);
        let (ofd, flags) = (open.ofd, self.flags(open));
        let halves: &FileSync = view(&self.sync, sync::FILES, file);
        self.counters(open).written.fetch_add(end - start, SeqCst);
        halves.size.fetch_max(end, SeqCst);
        if start <= halves.frontier.load(SeqCst) {
            halves.frontier.fetch_max(end, SeqCst);
            if self.flags(open) & FILE_WITHHELD != 0 {
                let start = end;
                self.tell(&Request::Published { ofd, start, end }).unwrap();
            }
        } else if flags & FILE_STREAM != 0 {
            self.tell(&Request::Published { ofd, start, end }).unwrap();
        }
        let halves: &FileSync = view(&self.sync, sync::FILES, file);
        if halves.waiters.swap(0, SeqCst) != 0 {
            halves.wake.fetch_add(1, SeqCst);
            futex_wake(&halves.wake);
        }
    }

    /// Reads what there is from `offset` on, at most `length` bytes; waits as
    /// the description must; empty at the end of the file.
    pub(crate) fn read(&mut self, open: &Open, offset: u64, length: usize) -> Result<Vec<u8>, i32> {
        let end = self.limit(open, offset)?;
        let file = self.ofd(open).file.load(Acquire);
        let length = end.saturating_sub(offset).min(length as u64) as usize;
        let mut content = vec![0; length];
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let piece = Piece::at(at).unwrap();
            let within = at - piece.start;
            let part = (piece.length - within).min((length - done) as u64) as usize;
            let page = self.page(file, piece.index);
            if page != 0 {
                let place = self.in_arena(page, within, part);
                // SAFETY: `in_arena` has checked the range.
                unsafe { place.copy_to_nonoverlapping(content[done..].as_mut_ptr(), part) };
            }
            done += part;
        }
        Ok(content)
    }

    /// Reads to the end.
    pub(crate) fn read_all(&mut self, open: &Open) -> Result<Vec<u8>, i32> {
        let mut content = Vec::new();
        loop {
            let more = self.read(open, content.len() as u64, 1 << 20)?;
            if more.is_empty() {
                return Ok(content);
            }
            content.extend(more);
        }
    }

    /// How far a read at `offset` may go, once it may go anywhere.
    fn limit(&self, open: &Open, offset: u64) -> Result<u64, i32> {
        let wait = self.ofd(open).wait.load(Acquire);
        let file = self.ofd(open).file.load(Acquire);
        let halves: &FileSync = view(&self.sync, sync::FILES, file);
        let start = Instant::now();
        loop {
            let wake = halves.wake.load(SeqCst);
            halves.waiters.store(1, SeqCst);
            let flags = self.flags(open);
            let (size, frontier) = (halves.size.load(Acquire), halves.frontier.load(Acquire));
            let slot = self.record();
            if wait == WAIT_NEVER || flags & FILE_FINAL != 0 {
                slot.waits_for.store(0, SeqCst);
                return Ok(size);
            }
            if wait == WAIT_STREAM && frontier > offset {
                slot.waits_for.store(0, SeqCst);
                return Ok(frontier);
            }
            if flags & (FILE_FAILED | FILE_DEADLOCK) != 0 {
                slot.waits_for.store(0, SeqCst);
                let failed = flags & FILE_FAILED != 0;
                return Err(if failed { libc::EIO } else { libc::EDEADLK });
            }
            if self.is_dead() {
                return Err(libc::EIO);
            }
            slot.waits_at.store(offset, SeqCst);
            slot.waits_for.store(file + 1, SeqCst);
            futex_wait(&halves.wake, wake);
            assert!(start.elapsed() < PATIENCE, "nobody ended the wait");
        }
    }

    /// Whether the session is over.
    pub(crate) fn is_dead(&self) -> bool {
        view::<SyncHeader>(&self.sync, 0, 0).dead.load(SeqCst) != 0
    }

    /// `FILE_*` of an open file.
    pub(crate) fn flags(&self, open: &Open) -> u32 {
        let file = self.ofd(open).file.load(Acquire);
        view::<FileMeta>(&self.meta, meta::FILES, file)
            .flags
            .load(SeqCst)
    }

    /// The coordinator's half of a description.
    pub(crate) fn ofd(&self, open: &Open) -> &OfdMeta {
        view(&self.meta, meta::OFDS, open.ofd.id)
    }

    /// The clients' half of a description.
    pub(crate) fn counters(&self, open: &Open) -> &OfdSync {
        view(&self.sync, sync::OFDS, open.ofd.id)
    }

    /// This thread's record.
    pub(crate) fn record(&self) -> &ThreadRecord {
        let record: &ProcessRecord = view(&self.sync, sync::PROCESSES, self.process);
        &record.threads[self.thread as usize]
    }

    /// What a client can write to: the clients' halves of all records, and the
    /// arena.
    #[allow(dead_code, reason = "for tests of hostile clients")]
    pub(crate) fn writable(&self) -> [&MmapRaw; 2] {
        [&self.sync, &self.arena]
    }

    fn page(&self, file: u32, index: u32) -> u32 {
        let direct: &FileMeta = view(&self.meta, meta::FILES, file);
        let Some(far) = (index as usize).checked_sub(direct.map.len()) else {
            return direct.map[index as usize].load(Acquire);
        };
        let inner = |block: u32, at: usize| match block.checked_sub(1) {
            Some(block) => {
                let block: &MapBlock = view(&self.meta, meta::BLOCKS, block);
                block.entries[at].load(Acquire)
            }
            None => 0,
        };
        let leaf = inner(direct.root.load(Acquire), far / MAP_ENTRIES);
        inner(leaf, far % MAP_ENTRIES)
    }

    fn in_arena(&self, page: u32, within: u64, length: usize) -> *mut u8 {
        let start = u64::from(page.checked_sub(1).expect("granted")) * PAGE + within;
        assert!(start + length as u64 <= self.arena.len() as u64);
        // SAFETY: checked just now.
        unsafe { self.arena.as_mut_ptr().add(start as usize) }
    }
}

/// The `index`-th `T` of the table at `start`; made of atomics only.
fn view<T>(map: &MmapRaw, start: usize, index: u32) -> &T {
    let offset = start + index as usize * size_of::<T>();
    assert!(offset + size_of::<T>() <= map.len());
    // SAFETY: within the mapping and aligned, as the layout says.
    unsafe { &*map.as_ptr().add(offset).cast::<T>() }
}

/// Sends a request over a connection.
pub(crate) fn send(socket: &mut UnixStream, request: &Request<'_>) {
    try_send(socket, request).unwrap();
}

fn try_send(socket: &mut UnixStream, request: &Request<'_>) -> std::io::Result<()> {
    let mut frame = vec![0; MAX_FRAME + 4];
    let length = encode(request, &mut frame).unwrap();
    socket.write_all(&frame[..length])
}

/// The body of the next frame and its descriptors; `None` at the end.
pub(crate) fn receive(socket: &UnixStream) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; MAX_FRAME + 4];
    let mut space = cmsg_space!([i32; 3]);
    let (mut have, mut descriptors) = (0, Vec::new());
    loop {
        let mut room = [IoSliceMut::new(&mut buffer[have..])];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let got = recvmsg::<()>(socket.as_raw_fd(), &mut room, Some(&mut space), flags).ok()?;
        for message in got.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(list) = message {
                // SAFETY: the kernel has just made them for us.
                let owned = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
                descriptors.extend(list.into_iter().map(owned));
            }
        }
        if got.bytes == 0 {
            return None;
        }
        have += got.bytes;
        let head = buffer[..have].first_chunk::<4>();
        let length = head.map(|head| u32::from_le_bytes(*head) as usize);
        if let Some(length) = length.filter(|length| have >= 4 + length) {
            return Some((buffer[4..4 + length].to_vec(), descriptors));
        }
    }
}

/// Sleeps while the shared word is `value`, a quarter of a second at most.
fn futex_wait(word: &AtomicU32, value: u32) {
    let timeout = libc::timespec {
        tv_sec: 0,
        tv_nsec: 250_000_000,
    };
    // SAFETY: a valid word and time; the kernel only reads both.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            &raw const timeout,
        )
    };
}

fn futex_wake(word: &AtomicU32) {
    // SAFETY: the address is only a key.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}
