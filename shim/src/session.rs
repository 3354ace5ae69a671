//! The session's shared memory as this process has it mapped, and the little
//! that a process knows of itself. The only place that makes references into
//! shared memory: every index is checked against its table first.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

use wire::layout::{
    DIRECT, FILE_FINAL, FileMeta, FileSync, MAP_ENTRIES, Mailbox, MapBlock, MetaHeader, OfdMeta,
    OfdSync, Piece, ProcessMeta, ProcessRecord, SyncHeader, meta, page_of, sync,
};
use wire::limits::{CHUNK, MAX_FILES, MAX_MAP_BLOCKS, MAX_OFDS, MAX_PROCESSES, PAGE};
use wire::message::OfdId;
use wire::names::{Bucket, DIRECTORIES, Directory, MAX_BUCKETS, Names};
use wire::protocol::stream::Stream;
use wire::protocol::{hazard, mailbox, moving, piece};

use crate::sys::syscall;

static ARENA: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static ARENA_BYTES: AtomicUsize = AtomicUsize::new(0);
static META: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static SYNC: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static LIVE: AtomicPtr<Live> = AtomicPtr::new(core::ptr::null_mut());

/// What holds for this very process. Lies in a page that the kernel wipes in
/// a child of `fork`: all zero there, locks included.
#[repr(C)]
pub(crate) struct Live {
    /// Number of the attachment, counted from 1; 0: not attached.
    pub(crate) epoch: AtomicU32,
    /// Process record.
    pub(crate) process: AtomicU32,
    /// Its generation.
    pub(crate) generation: AtomicU32,
    /// Holder (thread id) of the control socket; the top bit: somebody waits.
    pub(crate) control: AtomicU32,
    /// Holder (thread id) of the shared thread record.
    pub(crate) record: AtomicU32,
    /// Control socket + 1; 0: none.
    pub(crate) socket: AtomicI32,
    /// 1: hello was said over the socket, and the answer was not needed yet.
    pub(crate) pending: AtomicU32,
    /// Coarse time of the last look at the socket, ns.
    pub(crate) looked: AtomicU64,
}

/// Chunks of the arena that this process has mapped page by page already: one
/// bit each. A child of `fork` starts with none.
static TOUCHED: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());

/// Chunks that [`TOUCHED`] has bits for: a quarter of a tebibyte.
const TOUCHED_CHUNKS: usize = 1 << 17;
/// Bytes of [`TOUCHED`].
pub(crate) const TOUCHED_BYTES: usize = TOUCHED_CHUNKS / 8;

/// Gives the process its bits for touched chunks, for ever.
///
/// # Safety
/// `bits` must be [`TOUCHED_BYTES`] readable and writable, all zero, and stay
/// mapped.
pub(crate) unsafe fn set_touched(bits: *mut u8) {
    TOUCHED.store(bits.cast(), Release);
}

/// This process's page, once [`set_live`] was called.
#[inline(always)]
pub(crate) fn live() -> Option<&'static Live> {
    // SAFETY: null, or the page given to `set_live`, which is never unmapped.
    unsafe { LIVE.load(Relaxed).as_ref() }
}

/// Gives the process its page, for ever.
///
/// # Safety
/// `page` must be readable and writable, all zero, and stay mapped.
pub(crate) unsafe fn set_live(page: *mut u8) {
    LIVE.store(page.cast(), Release);
}

/// Number of this process's attachment; 0: it is not attached.
#[inline(always)]
pub(crate) fn epoch() -> u32 {
    live().map_or(0, |live| live.epoch.load(Acquire))
}

/// The three regions. A copy stays valid for ever: regions are not unmapped.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    arena: *mut u8,
    arena_bytes: usize,
    meta: *const u8,
    sync: *const u8,
}

/// A file's records.
#[derive(Clone, Copy)]
pub(crate) struct File {
    /// Their index.
    pub(crate) index: u32,
    /// What the coordinator says of it.
    pub(crate) meta: &'static FileMeta,
    /// What everybody says.
    pub(crate) sync: &'static FileSync,
}

/// An open file description's records.
#[derive(Clone, Copy)]
pub(crate) struct Ofd {
    /// As messages name it.
    pub(crate) id: OfdId,
    /// What the coordinator says of it.
    pub(crate) meta: &'static OfdMeta,
    /// What everybody says.
    pub(crate) sync: &'static OfdSync,
}

impl Session {
    /// The session's memory, once it is mapped.
    #[inline(always)]
    pub(crate) fn get() -> Option<Self> {
        let sync = SYNC.load(Acquire);
        (!sync.is_null()).then(|| Self {
            arena: ARENA.load(Relaxed),
            arena_bytes: ARENA_BYTES.load(Relaxed),
            meta: META.load(Relaxed),
            sync,
        })
    }

    /// Makes the regions known.
    ///
    /// # Safety
    /// They must be mapped in their full sizes (`arena_bytes`, `meta::SIZE`,
    /// `sync::SIZE`), page-aligned, `meta` at least readable, the others
    /// writable, and stay mapped.
    pub(crate) unsafe fn set(arena: *mut u8, arena_bytes: usize, meta: *mut u8, sync: *mut u8) {
        ARENA.store(arena, Relaxed);
        ARENA_BYTES.store(arena_bytes, Relaxed);
        META.store(meta, Relaxed);
        SYNC.store(sync, Release);
    }

    /// Entry `index` of the table at `base + start`, which has `count` entries.
    #[inline(always)]
    fn entry<T>(base: *const u8, start: usize, index: u32, count: u32) -> Option<&'static T> {
        if index >= count {
            return None;
        }
        // SAFETY: the layout has `count` entries of `T` there, aligned, inside
        // a region that stays mapped; all fields are atomics, for which any
        // bytes are valid.
        Some(unsafe { &*base.add(start).cast::<T>().add(index as usize) })
    }

    /// Start of `meta`.
    pub(crate) fn header(self) -> &'static MetaHeader {
        // SAFETY: the region starts with the header and stays mapped.
        unsafe { &*self.meta.cast() }
    }

    /// Start of `sync`.
    #[inline(always)]
    fn sync_header(self) -> &'static SyncHeader {
        // SAFETY: the region starts with the header and stays mapped.
        unsafe { &*self.sync.cast() }
    }

    /// Whether the coordinator is known to be gone.
    #[inline(always)]
    pub(crate) fn is_dead(self) -> bool {
        self.sync_header().dead.load(Relaxed) != 0
    }

    /// Lets all calls fail, in memory that nobody shares.
    pub(crate) fn end(self) {
        self.sync_header().dead.store(1, Relaxed);
    }

    /// Whether spinning can make sense.
    pub(crate) fn may_spin(self) -> bool {
        self.header().cores.load(Relaxed) > 1
    }

    /// Records of file `index`.
    #[inline(always)]
    pub(crate) fn file(self, index: u32) -> Option<File> {
        Some(File {
            index,
            meta: Self::entry(self.meta, meta::FILES, index, MAX_FILES)?,
            sync: Self::entry(self.sync, sync::FILES, index, MAX_FILES)?,
        })
    }

    /// Head of the table of names.
    #[inline(always)]
    pub(crate) fn names(self) -> &'static Names {
        // SAFETY: the region holds it there, aligned, and stays mapped.
        unsafe { &*self.meta.add(meta::NAMES).cast() }
    }

    /// Where the attributes of directory `inode` are known.
    #[inline(always)]
    pub(crate) fn directory(self, inode: u64) -> Option<&'static Directory> {
        let place = Directory::place(inode);
        Self::entry(self.meta, meta::DIRECTORIES, place, DIRECTORIES as u32)
    }

    /// Bucket `number` of that table.
    #[inline(always)]
    pub(crate) fn bucket(self, number: u32) -> Option<&'static Bucket> {
        Self::entry(self.meta, meta::BUCKETS, number, MAX_BUCKETS as u32)
    }

    /// Records of open file description `id`.
    #[inline(always)]
    pub(crate) fn ofd(self, id: u32) -> Option<Ofd> {
        let meta: &OfdMeta = Self::entry(self.meta, meta::OFDS, id, MAX_OFDS)?;
        let generation = meta.generation.load(Relaxed);
        Some(Ofd {
            id: OfdId { id, generation },
            meta,
            sync: Self::entry(self.sync, sync::OFDS, id, MAX_OFDS)?,
        })
    }

    /// What the coordinator says of a process.
    pub(crate) fn process(self, index: u32) -> Option<&'static ProcessMeta> {
        Self::entry(self.meta, meta::PROCESSES, index, MAX_PROCESSES)
    }

    /// A process's mailbox.
    pub(crate) fn mailbox(self, process: u32) -> Option<&'static Mailbox> {
        Self::entry(self.sync, sync::MAILBOXES, process, MAX_PROCESSES)
    }

    /// The words by which it asks.
    pub(crate) fn asking(
        self,
        process: u32,
    ) -> Option<mailbox::Mailbox<'static, AtomicU32, AtomicU64>> {
        Some(mailbox::Mailbox {
            state: &self.mailbox(process)?.state,
            asked: self.sync_header().asked.get(process as usize / 64)?,
            bit: 1 << (process % 64),
            awake: &self.header().awake,
        })
    }

    /// A process's own record.
    pub(crate) fn record(self, index: u32) -> Option<&'static ProcessRecord> {
        Self::entry(self.sync, sync::PROCESSES, index, MAX_PROCESSES)
    }

    /// Map block `number` - 1; `None` for 0.
    fn block(self, number: u32) -> Option<&'static MapBlock> {
        Self::entry(
            self.meta,
            meta::BLOCKS,
            number.wrapping_sub(1),
            MAX_MAP_BLOCKS,
        )
    }

    /// The `length` bytes of the arena that map entry `entry` stands for;
    /// `None` for a hole and for what is no part of the arena.
    #[inline(always)]
    fn bytes(self, entry: u32, length: u64) -> Option<*mut u8> {
        let page = entry.checked_sub(1)?;
        let start = u64::from(page) * PAGE;
        if start.checked_add(length)? > self.arena_bytes as u64 {
            return None;
        }
        Some(self.arena.wrapping_add(start as usize))
    }
}

/// Maps the pages from `start` on in one call instead of a fault for each.
#[cold]
pub(crate) fn map_pages(start: *mut u8, length: usize) {
    // Reading maps shared pages writable, too, and costs a third.
    // SAFETY: a range of our own mapping of the arena. If it fails, the pages
    // are mapped one by one.
    unsafe { syscall!(libc::SYS_madvise, start, length, MADV_POPULATE_READ) };
}

/// `madvise(2)`, Linux 5.14.
const MADV_POPULATE_READ: i32 = 22;

impl Session {
    /// Maps the whole chunk at `start` the first time this process uses it.
    #[inline(always)]
    pub(crate) fn touch(self, start: *mut u8) {
        let chunk = (start as usize).wrapping_sub(self.arena as usize) / CHUNK as usize;
        let bits = TOUCHED.load(Relaxed);
        if bits.is_null() || chunk >= TOUCHED_CHUNKS {
            return;
        }
        let (word, bit) = (chunk / 64, 1u64 << (chunk % 64));
        // SAFETY: the index is below the number of words.
        let word = unsafe { &*bits.add(word) };
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
            map_pages(start, CHUNK as usize);
        }
    }
}

impl Ofd {
    /// Whether nobody has closed it since it was looked up; to be asked under a
    /// hold of its file, which then nobody else gets either.
    #[inline(always)]
    pub(crate) fn is_open(self) -> bool {
        self.change() == 0
    }

    /// As [`Ofd::is_open`]: 0 if so.
    #[inline(always)]
    pub(crate) fn change(self) -> u32 {
        hazard::change(&self.meta.generation, self.id.generation)
    }

    /// Its file.
    #[inline(always)]
    pub(crate) fn file(self, session: Session) -> Option<File> {
        session.file(self.meta.file.load(Relaxed))
    }

    /// Whether all calls on it are the kernel's.
    #[inline(always)]
    pub(crate) fn is_native(self) -> bool {
        self.meta.native.load(Relaxed) != 0
    }

    /// What a read of it waits for, `WAIT_*`.
    #[inline(always)]
    pub(crate) fn wait(self) -> u32 {
        self.meta.wait.load(Relaxed)
    }

    /// Flags of `open(2)`.
    #[inline(always)]
    pub(crate) fn flags(self) -> i32 {
        self.meta.flags.load(Relaxed).cast_signed()
    }

    /// Whether it may be read.
    #[inline(always)]
    pub(crate) fn is_readable(self) -> bool {
        let flags = self.flags();
        flags & libc::O_ACCMODE != libc::O_WRONLY && flags & libc::O_PATH == 0
    }

    /// Whether it may be written.
    #[inline(always)]
    pub(crate) fn is_writable(self) -> bool {
        let flags = self.flags();
        flags & libc::O_ACCMODE != libc::O_RDONLY && flags & libc::O_PATH == 0
    }
}

impl File {
    /// Whether it is committed. What is loaded later is as of then or newer.
    #[inline(always)]
    pub(crate) fn is_final(self) -> bool {
        self.meta.flags.load(Acquire) & FILE_FINAL != 0
    }

    /// Where its bytes are: see [`moving::elsewhere`]. To be asked once the pages are held.
    #[inline(always)]
    pub(crate) fn elsewhere(self) -> u32 {
        moving::elsewhere(&self.meta.flags)
    }

    /// Where reads end for now, for one that waits for `wait`.
    #[inline(always)]
    pub(crate) fn limit(self, wait: u32) -> u64 {
        self.stream().limit(wait)
    }

    /// The words that tell what of it may be read.
    #[inline(always)]
    pub(crate) fn stream(self) -> Stream<'static, AtomicU32, AtomicU64> {
        Stream::of(self.meta, self.sync)
    }

    /// Entry of the block map for piece `index`; 0: a hole.
    #[inline(always)]
    fn map_entry(self, session: Session, index: u32) -> u32 {
        self.entry(session, index)
            .map_or(0, |entry| entry.load(Acquire))
    }

    /// Place of [`File::map_entry`]; `None`: a hole.
    #[inline(always)]
    fn entry(self, session: Session, index: u32) -> Option<&'static AtomicU32> {
        match self.meta.map.get(index as usize) {
            Some(entry) => Some(entry),
            None => self.far_entry(session, index),
        }
    }

    /// [`File::entry`] beyond the direct entries.
    fn far_entry(self, session: Session, index: u32) -> Option<&'static AtomicU32> {
        let far = (index as usize).wrapping_sub(DIRECT);
        let block = self.far_block(session, index)?;
        block.entries.get(far % MAP_ENTRIES)
    }

    /// The map block that holds the entry of piece `index`, which is not direct.
    fn far_block(self, session: Session, index: u32) -> Option<&'static MapBlock> {
        let far = (index as usize).wrapping_sub(DIRECT);
        let root = session.block(self.meta.root.load(Acquire))?;
        let number = root.entries.get(far / MAP_ENTRIES)?.load(Acquire);
        session.block(number)
    }

    /// Where the bytes of `piece` can be read; `None`: a hole, or it is in the
    /// store only.
    #[inline(always)]
    pub(crate) fn piece(self, session: Session, piece: Piece) -> Option<*mut u8> {
        let entry = self.entry(session, piece.index)?;
        session.bytes(piece::readable(entry), piece.length)
    }

    /// Where the bytes of `piece` can be written; `None`: to be asked for.
    #[inline(always)]
    pub(crate) fn own_piece(self, session: Session, piece: Piece) -> Option<*mut u8> {
        let entry = self.entry(session, piece.index)?;
        session.bytes(piece::writable(entry), piece.length)
    }

    /// Whether `piece` is a hole.
    #[cold]
    pub(crate) fn is_hole(self, session: Session, piece: Piece) -> bool {
        self.map_entry(session, piece.index) == 0
    }

    /// Whether byte `offset` is in the store only.
    #[cold]
    pub(crate) fn is_stored(self, session: Session, offset: u64) -> bool {
        Piece::at(offset).is_some_and(|piece| {
            let entry = self.map_entry(session, piece.index);
            entry != 0 && page_of(entry) == 0
        })
    }

    /// The first offset from `offset` on, below `end`, at which there is no hole
    /// (`data`) or there is one; `None`: no such.
    pub(crate) fn find(self, session: Session, offset: u64, end: u64, data: bool) -> Option<u64> {
        let mut at = offset;
        while at < end {
            let piece = Piece::at(at)?;
            if self.is_hole(session, piece) != data {
                return Some(at);
            }
            let direct = (piece.index as usize) < DIRECT;
            let step = if !direct && data && self.far_block(session, piece.index).is_none() {
                let into = (piece.index as usize).wrapping_sub(DIRECT) % MAP_ENTRIES;
                (MAP_ENTRIES.wrapping_sub(into) as u64).wrapping_mul(piece.length)
            } else {
                piece.length
            };
            at = piece.start.wrapping_add(step);
        }
        None
    }

    /// Bytes below `size` that are in no hole, in whole pages.
    pub(crate) fn allocated(self, session: Session, size: u64) -> u64 {
        let end = size.checked_next_multiple_of(PAGE).unwrap_or(size);
        let (mut total, mut at) = (0u64, 0);
        while let Some(start) = self.find(session, at, end, true) {
            at = self.find(session, start, end, false).unwrap_or(end);
            total = total.wrapping_add(at.wrapping_sub(start));
        }
        total
    }
}
