//! The session's shared memory: three sealed memfds and checked views of the
//! tables that lie in them.
//!
//! Clients write `arena` and `sync` at any time, so nothing in them is ever
//! borrowed as plain memory: tables consist of atomics, and the arena is only
//! touched through [`Region::zero`] and [`Region::read`].

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::session::Pages;
use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use wire::layout::{
    FileMeta, FileSync, MAGIC, Mailbox, MapBlock, MetaHeader, OfdMeta, OfdSync, ProcessMeta,
    ProcessRecord, SyncHeader, meta, sync,
};
use wire::limits::{CHUNK, MAX_FILES, MAX_MAP_BLOCKS, MAX_OFDS, MAX_PROCESSES, VERSION};
use wire::names::{Bucket, DIRECTORIES, Directory, MAX_BUCKETS, Names};
use wire::protocol::mailbox;
use wire::protocol::stream::Stream;

/// From here on mapping page by page costs more than a call, in bytes.
const BATCH: u64 = 64 * 1024;

/// One shared mapping.
pub(super) struct Region {
    file: File,
    map: MmapRaw,
}

impl Region {
    fn create(name: &str, bytes: u64, flags: MFdFlags) -> io::Result<Self> {
        let flags = flags | MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(name, flags)?);
        file.set_len(bytes)?;
        let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let map = MmapOptions::new().no_reserve_swap().map_raw(&file)?;
        Ok(Self { file, map })
    }

    /// Length in bytes.
    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// The memfd.
    #[must_use]
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A descriptor of the same memory that cannot be mapped writable.
    fn read_only(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(open(
            path.as_str(),
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?)
    }

    fn within(&self, offset: u64, length: u64) -> bool {
        offset
            .checked_add(length)
            .is_some_and(|end| end <= self.bytes())
    }

    /// Backs `length` bytes from `offset` with memory, so that nobody who
    /// touches them can take a SIGBUS.
    ///
    /// # Errors
    /// `ENOMEM` when the machine (or the memory cgroup) has none left.
    pub(super) fn populate(&self, offset: u64, length: u64) -> io::Result<()> {
        if !self.within(offset, length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.advise(offset, length, libc::MADV_POPULATE_WRITE)
    }

    /// Backs the pages of records `from` to `end` (exclusive) of a table that
    /// starts at `table.0` with records of `table.1` bytes.
    fn populate_table(&self, table: (usize, usize), from: u32, end: u32) -> io::Result<()> {
        const PAGE: u64 = wire::limits::PAGE;
        let at = |index: u32| (table.0 + index as usize * table.1) as u64;
        let start = at(from) / PAGE * PAGE;
        let end = at(end).next_multiple_of(PAGE).min(self.bytes());
        self.populate(start, end.saturating_sub(start))
    }

    /// As [`Region::populate`], without mapping it here: a third of the cost
    /// with small pages, as those who map it pay for zeroing, in batches.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        if !self.within(offset, length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (offset, length) = (offset.cast_signed(), length.cast_signed());
        Ok(fallocate(
            &self.file,
            FallocateFlags::empty(),
            offset,
            length,
        )?)
    }

    /// Gives the memory of a range back to the machine.
    fn discard(&self, offset: u64, length: u64) {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if self.within(offset, length) {
            // If it fails, the memory is only taken for longer.
            let _ = fallocate(&self.file, hole, offset.cast_signed(), length.cast_signed());
        }
    }

    /// Writes `length` bytes from `offset` on to `file` at `at`.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput`: out of range.
    pub(super) fn write_to(
        &self,
        offset: u64,
        length: u64,
        file: &File,
        at: u64,
    ) -> io::Result<()> {
        self.each_part(offset, length, |from, rest, done| {
            // SAFETY: the range lies in the mapping (`each_part`); the kernel
            // copies from it, whatever others write there meanwhile.
            unsafe { libc::pwrite(file.as_raw_fd(), from.cast(), rest, (at + done) as i64) }
        })
    }

    /// Copies `length` bytes of a file from `at` on into the region.
    ///
    /// # Errors
    /// What the kernel says; `UnexpectedEof`: the file is shorter;
    /// `InvalidInput`: out of range.
    pub(super) fn read_from(
        &self,
        offset: u64,
        length: u64,
        file: &File,
        at: u64,
    ) -> io::Result<()> {
        self.each_part(offset, length, |into, rest, done| {
            // SAFETY: the range lies in the mapping (`each_part`); the kernel
            // copies into it, whatever others read there meanwhile.
            unsafe { libc::pread(file.as_raw_fd(), into.cast(), rest, (at + done) as i64) }
        })
    }

    /// Calls `call` with the address of what is left of the range, its length
    /// and the bytes done, until all is done.
    fn each_part(
        &self,
        offset: u64,
        length: u64,
        call: impl Fn(*mut u8, usize, u64) -> isize,
    ) -> io::Result<()> {
        if !self.within(offset, length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut done = 0;
        while done < length {
            let start = self.map.as_mut_ptr().wrapping_add((offset + done) as usize);
            match u64::try_from(call(start, (length - done) as usize, done)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(some) => done += some,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn advise(&self, offset: u64, length: u64, advice: i32) -> io::Result<()> {
        // SAFETY: the range lies in the mapping (the callers have checked),
        // which lives as long as self.
        let done = unsafe {
            let start = self.map.as_mut_ptr().add(offset as usize);
            libc::madvise(start.cast(), length as usize, advice)
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn advise_huge(&self) -> bool {
        // SAFETY: advice on the whole of our own mapping.
        unsafe {
            libc::madvise(
                self.map.as_mut_ptr().cast(),
                self.map.len(),
                libc::MADV_HUGEPAGE,
            ) == 0
        }
    }

    /// Has the kernel zero and map what is backed, in one call instead of a
    /// fault for each page.
    pub(super) fn touch(&self, offset: u64, length: u64) {
        if self.within(offset, length) {
            // If it fails, pages are mapped one by one.
            let _ = self.advise(offset, length, libc::MADV_POPULATE_READ);
        }
    }

    /// Writes zeros. Out of range: nothing.
    pub(super) fn zero(&self, offset: u64, length: u64) {
        if self.within(offset, length) {
            if length >= BATCH {
                self.touch(offset, length);
            }
            // SAFETY: the range lies in the mapping. A client may race by
            // scribbling where it may not; the bytes are then its own.
            unsafe {
                self.map
                    .as_mut_ptr()
                    .add(offset as usize)
                    .write_bytes(0, length as usize);
            }
        }
    }

    /// Copies out of the region. Out of range: `false`, nothing copied.
    #[must_use]
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        if !self.within(offset, into.len() as u64) {
            return false;
        }
        // SAFETY: the range lies in the mapping and `into` is ours alone.
        unsafe {
            let from = self.map.as_ptr().add(offset as usize);
            from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len());
        }
        true
    }

    /// Copies into the region. Out of range: `false`, nothing copied.
    #[must_use]
    pub(super) fn write(&self, offset: u64, from: &[u8]) -> bool {
        if !self.within(offset, from.len() as u64) {
            return false;
        }
        // SAFETY: as in `read`.
        unsafe {
            let into = self.map.as_mut_ptr().add(offset as usize);
            into.copy_from_nonoverlapping(from.as_ptr(), from.len());
        }
        true
    }

    /// The `index`-th `T` of the table at `start`.
    ///
    /// # Safety
    /// `T` consists of atomics only, and a table of more than `index` of them
    /// lies at `start`, aligned, within the region.
    unsafe fn at<T>(&self, start: usize, index: u32) -> &T {
        // SAFETY: the caller's promise; zeroed atomics are valid.
        unsafe { &*self.map.as_ptr().add(start).cast::<T>().add(index as usize) }
    }
}

/// All shared memory of a session.
pub(super) struct Shared {
    /// What files hold.
    pub arena: Region,
    meta: Region,
    sync: Region,
    meta_read_only: OwnedFd,
    pages: Pages,
    backed: Backed,
}

/// Below which index the records of each kind are backed.
#[derive(Default)]
struct Backed {
    files: AtomicU32,
    ofds: AtomicU32,
    processes: AtomicU32,
    mailboxes: AtomicU32,
}

/// The two halves of a table: start and size of a record, in bytes.
struct Tables {
    meta: (usize, usize),
    sync: (usize, usize),
    count: u32,
}

const FILE_TABLES: Tables = Tables {
    meta: (meta::FILES, size_of::<FileMeta>()),
    sync: (sync::FILES, size_of::<FileSync>()),
    count: MAX_FILES,
};
const OFD_TABLES: Tables = Tables {
    meta: (meta::OFDS, size_of::<OfdMeta>()),
    sync: (sync::OFDS, size_of::<OfdSync>()),
    count: MAX_OFDS,
};
const PROCESS_TABLES: Tables = Tables {
    meta: (meta::PROCESSES, size_of::<ProcessMeta>()),
    sync: (sync::PROCESSES, size_of::<ProcessRecord>()),
    count: MAX_PROCESSES,
};

const MAILBOX_TABLES: Tables = Tables {
    sync: (sync::MAILBOXES, size_of::<Mailbox>()),
    ..PROCESS_TABLES
};

impl Tables {
    /// Records that are backed at a time: some 64 KiB of them.
    fn batch(&self) -> u32 {
        let largest = self.meta.1.max(self.sync.1);
        u32::try_from(BATCH as usize / largest).unwrap_or(1).max(1)
    }
}

/// Bounds an index that comes from our own tables; clients' indices are
/// checked where they enter.
const fn clamp(index: u32, limit: u32) -> u32 {
    if index < limit { index } else { limit - 1 }
}

impl Shared {
    /// Makes the memory of a session whose cache has `cache_bytes` (rounded
    /// down to chunks).
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn create(cache_bytes: u64, cores: u32, device: u64) -> io::Result<Self> {
        let bytes = (cache_bytes / CHUNK).max(1) * CHUNK;
        let (arena, pages) = create_arena(bytes)?;
        let meta = Region::create("capio-meta", meta::SIZE as u64, MFdFlags::empty())?;
        let sync = Region::create("capio-sync", sync::SIZE as u64, MFdFlags::empty())?;
        let meta_read_only = meta.read_only()?;
        let shared = Self {
            arena,
            meta,
            sync,
            meta_read_only,
            pages,
            backed: Backed::default(),
        };
        let header = shared.header();
        header.arena_bytes.store(bytes, Relaxed);
        header.cores.store(cores, Relaxed);
        let huge = u32::from(pages == Pages::TransparentHuge);
        header.huge.store(huge, Relaxed);
        header.device.store(device, Relaxed);
        header.version.store(VERSION, Relaxed);
        header.magic.store(MAGIC, SeqCst);
        Ok(shared)
    }

    /// What backs the arena.
    #[must_use]
    pub(super) fn pages(&self) -> Pages {
        self.pages
    }

    /// Gives the memory of a part of the arena back; nobody may use it.
    pub(super) fn unback_arena(&self, offset: u64, length: u64) {
        self.arena.discard(offset, length);
    }

    /// Backs a part of the arena with memory, as [`Region::populate`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn back_arena(&self, offset: u64, length: u64) -> io::Result<()> {
        match self.pages {
            Pages::Plain => self.arena.allocate(offset, length),
            _ => self.arena.populate(offset, length),
        }
    }

    /// The descriptors that a client gets: arena, meta (read only), sync.
    #[must_use]
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [
            self.arena.descriptor(),
            self.meta_read_only.as_fd(),
            self.sync.descriptor(),
        ]
    }

    /// Descriptor of `sync`, for the guardian.
    #[must_use]
    pub(super) fn sync_descriptor(&self) -> BorrowedFd<'_> {
        self.sync.descriptor()
    }

    /// Start of `meta`.
    #[must_use]
    pub(super) fn header(&self) -> &MetaHeader {
        // SAFETY: `meta` starts with the header, atomics only.
        unsafe { self.meta.at(0, 0) }
    }

    /// Start of `sync`.
    #[must_use]
    pub(super) fn sync_header(&self) -> &SyncHeader {
        // SAFETY: `sync` starts with the header, atomics only.
        unsafe { self.sync.at(0, 0) }
    }

    /// Head of the table of names.
    #[must_use]
    pub(super) fn names(&self) -> &Names {
        // SAFETY: the region holds it there, aligned; atomics only.
        unsafe { self.meta.at(meta::NAMES, 0) }
    }

    /// Bucket `number` of the table of names.
    #[must_use]
    pub(super) fn bucket(&self, number: u32) -> &Bucket {
        // SAFETY: the number is below the table's length; atomics only.
        unsafe {
            self.meta
                .at(meta::BUCKETS, clamp(number, MAX_BUCKETS as u32))
        }
    }

    /// Where the attributes of directory `inode` are known.
    #[must_use]
    pub(super) fn directory(&self, inode: u64) -> &Directory {
        let place = clamp(Directory::place(inode), DIRECTORIES as u32);
        // SAFETY: the place is below the table's length; atomics only.
        unsafe { self.meta.at(meta::DIRECTORIES, place) }
    }

    /// Backs the head of the table of names, and the attributes of directories.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn back_names(&self) -> io::Result<()> {
        let directories = (meta::DIRECTORIES, size_of::<Directory>());
        self.meta
            .populate_table((meta::NAMES, size_of::<Names>()), 0, 1)?;
        self.meta.populate_table(directories, 0, DIRECTORIES as u32)
    }

    /// Backs the buckets from `from` to `end` (exclusive).
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn back_buckets(&self, from: u32, end: u32) -> io::Result<()> {
        let table = (meta::BUCKETS, size_of::<Bucket>());
        self.meta.populate_table(table, from, end)
    }

    /// First half of the FCB of file record `index`.
    #[must_use]
    pub(super) fn file(&self, index: u32) -> &FileMeta {
        // SAFETY: the index is below the table's length; atomics only.
        unsafe { self.meta.at(meta::FILES, clamp(index, MAX_FILES)) }
    }

    /// Second half of the FCB of file record `index`.
    #[must_use]
    pub(super) fn file_sync(&self, index: u32) -> &FileSync {
        // SAFETY: the index is below the table's length; atomics only.
        unsafe { self.sync.at(sync::FILES, clamp(index, MAX_FILES)) }
    }

    /// What we say of open file description `index`.
    #[must_use]
    pub(super) fn ofd(&self, index: u32) -> &OfdMeta {
        // SAFETY: the index is below the table's length; atomics only.
        unsafe { self.meta.at(meta::OFDS, clamp(index, MAX_OFDS)) }
    }

    /// What clients write of open file description `index`.
    #[must_use]
    pub(super) fn ofd_sync(&self, index: u32) -> &OfdSync {
        // SAFETY: the index is below the table's length; atomics only.
        unsafe { self.sync.at(sync::OFDS, clamp(index, MAX_OFDS)) }
    }

    /// What we say of process record `index`.
    #[must_use]
    pub(super) fn process(&self, index: u32) -> &ProcessMeta {
        // SAFETY: the index is below the table's length; atomics only.
        unsafe { self.meta.at(meta::PROCESSES, clamp(index, MAX_PROCESSES)) }
    }

    /// What process `index` writes of itself.
    #[must_use]
    pub(super) fn record(&self, index: u32) -> &ProcessRecord {
        // SAFETY: the index is below the table's length; atomics only.
        unsafe { self.sync.at(sync::PROCESSES, clamp(index, MAX_PROCESSES)) }
    }

    /// The mailbox of process `index`.
    #[must_use]
    pub(super) fn mailbox(&self, index: u32) -> &Mailbox {
        // SAFETY: the index is below the table's length; atomics only.
        unsafe { self.sync.at(sync::MAILBOXES, clamp(index, MAX_PROCESSES)) }
    }

    /// The words by which process `index` asks.
    #[must_use]
    pub(super) fn asking(&self, index: u32) -> mailbox::Mailbox<'_, AtomicU32, AtomicU64> {
        let index = clamp(index, MAX_PROCESSES);
        mailbox::Mailbox {
            state: &self.mailbox(index).state,
            asked: &self.sync_header().asked[index as usize / 64],
            bit: 1 << (index % 64),
            awake: &self.header().awake,
        }
    }

    /// Index block `index`.
    #[must_use]
    pub(super) fn block(&self, index: u32) -> &MapBlock {
        // SAFETY: the index is below the table's length; atomics only.
        unsafe { self.meta.at(meta::BLOCKS, clamp(index, MAX_MAP_BLOCKS)) }
    }

    /// Backs the records of file `index`, before clients see them.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn back_file(&self, index: u32) -> io::Result<()> {
        self.back(&FILE_TABLES, &self.backed.files, index)
    }

    /// As [`Self::back_file`], for an open file description.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn back_ofd(&self, index: u32) -> io::Result<()> {
        self.back(&OFD_TABLES, &self.backed.ofds, index)
    }

    /// As [`Self::back_file`], for a process.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn back_process(&self, index: u32) -> io::Result<()> {
        self.back(&MAILBOX_TABLES, &self.backed.mailboxes, index)?;
        self.back(&PROCESS_TABLES, &self.backed.processes, index)
    }

    /// Backs a batch of both halves of a table. Indices are handed out in
    /// order, so that all below `mark` are backed.
    fn back(&self, tables: &Tables, mark: &AtomicU32, index: u32) -> io::Result<()> {
        let from = mark.load(Relaxed);
        if index < from {
            return Ok(());
        }
        let end = index.saturating_add(tables.batch()).min(tables.count);
        self.meta.populate_table(tables.meta, from, end)?;
        self.sync.populate_table(tables.sync, from, end)?;
        mark.store(end, Relaxed);
        Ok(())
    }

    /// Wakes all readers of file record `index`, whoever they are.
    pub(super) fn wake_file(&self, index: u32) {
        let sync = self.file_sync(index);
        Stream::of(self.file(index), sync).wake_all(|| wake_all(&sync.wake));
    }

    /// Wakes thread `thread` of process record `process`.
    pub(super) fn wake_thread(&self, process: u32, thread: u32) {
        if let Some(record) = self.record(process).threads.get(thread as usize) {
            record.wake.fetch_add(1, SeqCst);
            wake_all(&record.wake);
        }
    }
}

fn create_arena(bytes: u64) -> io::Result<(Region, Pages)> {
    if free_hugepage_bytes() >= bytes {
        let huge = Region::create("capio-arena", bytes, MFdFlags::MFD_HUGETLB);
        if let Ok(region) = huge
            && region.populate(0, bytes).is_ok()
        {
            return Ok((region, Pages::Hugetlb));
        }
    }
    let region = Region::create("capio-arena", bytes, MFdFlags::empty())?;
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
        .is_ok_and(|text| !text.contains("[never]") && !text.contains("[deny]"));
    let pages = if region.advise_huge() && enabled {
        Pages::TransparentHuge
    } else {
        Pages::Plain
    };
    Ok((region, pages))
}

fn free_hugepage_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    if field("Hugepagesize:") * 1024 == CHUNK {
        field("HugePages_Free:") * CHUNK
    } else {
        0
    }
}

/// Wakes all who sleep on the shared futex `word`.
pub(super) fn wake_all(word: &std::sync::atomic::AtomicU32) {
    // SAFETY: FUTEX_WAKE only uses the address as a key.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}
