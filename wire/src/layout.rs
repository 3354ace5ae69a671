//! The layout of a session's shared memory.
//!
//! ```text
//! arena   what files hold: pages and chunks           client: read, write
//! meta    header, FileMeta, OfdMeta, ProcessMeta,     client: read
//!         MapBlock, names and directories: written by
//!         the coordinator only
//! sync    header, FileSync, OfdSync, ProcessRecord,   client: read, write
//!         Mailbox
//! ```
//!
//! The three are memfds sealed against growing and shrinking. Clients get a
//! read-only descriptor of `meta`, so that they cannot map it writable.
//! A client may only fill granted pages, advance `size` and `frontier`, set
//! its own [`ThreadRecord`]s, hold owner words, and ask by its own [`Mailbox`].

use core::mem::size_of;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::limits::{CHUNK, MAX_FILES, MAX_MAP_BLOCKS, MAX_OFDS, MAX_PROCESSES, MAX_THREADS, PAGE};

/// First word of `meta`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"capio\0\0\x01");

/// Start of `meta`.
#[repr(C, align(64))]
pub struct MetaHeader {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`crate::limits::VERSION`].
    pub version: AtomicU32,
    /// Cores that the session may use; one: nobody spins.
    pub cores: AtomicU32,
    /// Size of the arena in bytes.
    pub arena_bytes: AtomicU64,
    /// `st_dev` of everything in the session.
    pub device: AtomicU64,
    /// Not zero: the arena may lie on transparent huge pages.
    pub huge: AtomicU32,
    // The next word changes often.
    reserved: [AtomicU32; 7],
    /// Not zero: the coordinator looks at mailboxes, see
    /// [`mailbox`](crate::protocol::mailbox).
    pub awake: AtomicU32,
}

/// [`FileMeta::flags`]: committed for ever.
pub const FILE_FINAL: u32 = 1;
/// [`FileMeta::flags`]: its producer failed, readers at the frontier get `EIO`.
pub const FILE_FAILED: u32 = 2;
/// [`FileMeta::flags`]: some step may read it as a stream, so that writes
/// beyond the frontier must be told to the coordinator.
pub const FILE_STREAM: u32 = 4;
/// [`FileMeta::flags`]: the coordinator holds ranges beyond the frontier.
pub const FILE_WITHHELD: u32 = 8;
/// [`FileMeta::flags`]: waits on it were broken: `EDEADLK`.
pub const FILE_DEADLOCK: u32 = 16;
/// [`FileMeta::flags`]: its bytes are on their way into its own inode; nobody
/// starts to copy meanwhile.
pub const FILE_MOVING: u32 = 32;
/// [`FileMeta::flags`]: its bytes lie in its own inode, which its descriptors
/// are descriptors of.
pub const FILE_KERNEL: u32 = 64;

/// Bit of a block map's entry: the store holds the piece as it is, or shall hold
/// it soon. Its page, if it has one, may be read; who is to write asks for it
/// first, and who finds no page has it fetched.
pub const ENTRY_STORED: u32 = 1 << 31;

/// Page of the arena (index + 1) of a block map's entry; 0: none.
#[inline(always)]
#[must_use]
pub const fn page_of(entry: u32) -> u32 {
    entry & !ENTRY_STORED
}

/// Direct entries of a file's block map: the first [`SEGMENTS`] are the
/// segments of its first chunk, the others whole chunks.
pub const DIRECT: usize = 32;
/// Segments of a file's first chunk: 4 KiB, 4 KiB, 8 KiB, ... 1 MiB, so that
/// small files take little and each is a power of two of pages.
pub const SEGMENTS: usize = 10;
const SEGMENTS_END: u32 = SEGMENTS as u32;
/// Entries of one map block.
pub const MAP_ENTRIES: usize = 1024;
/// First byte that only map blocks reach.
pub const DIRECT_BYTES: u64 = (DIRECT - SEGMENTS + 1) as u64 * CHUNK;
/// First byte that no file can hold.
pub const MAX_MAPPED: u64 = DIRECT_BYTES + (MAP_ENTRIES * MAP_ENTRIES) as u64 * CHUNK;

/// What the coordinator says of a file in the cache (the FCB's first half).
#[repr(C, align(64))]
pub struct FileMeta {
    /// `FILE_*`.
    pub flags: AtomicU32,
    /// Counts reuses of this record.
    pub generation: AtomicU32,
    /// `st_ino`.
    pub inode: AtomicU64,
    /// Type and permissions, as `st_mode`.
    pub mode: AtomicU32,
    /// `st_nlink`.
    pub links: AtomicU32,
    /// Owner.
    pub uid: AtomicU32,
    /// Group.
    pub gid: AtomicU32,
    /// Time of birth, ns since the epoch.
    pub born: AtomicU64,
    /// Start of the lowest withheld range, when [`FILE_WITHHELD`].
    pub withheld: AtomicU64,
    /// When [`FILE_KERNEL`]: bytes before this may be written without asking.
    pub granted: AtomicU64,
    /// Map block (index + 1) of map blocks for bytes from [`DIRECT_BYTES`];
    /// 0: none.
    pub root: AtomicU32,
    reserved: [AtomicU32; 3],
    /// Block map: page of the arena (index + 1) where a piece starts, and
    /// [`ENTRY_STORED`]; 0: a hole.
    pub map: [AtomicU32; DIRECT],
}

/// [`OfdMeta::wait`]: never waits.
pub const WAIT_NEVER: u32 = 0;
/// [`OfdMeta::wait`]: until the file is final (`update`).
pub const WAIT_FINAL: u32 = 1;
/// [`OfdMeta::wait`]: until bytes are published (`no_update`).
pub const WAIT_STREAM: u32 = 2;

/// What the coordinator says of an open file description.
#[repr(C, align(32))]
pub struct OfdMeta {
    /// Index of its file's records.
    pub file: AtomicU32,
    /// Counts reuses; odd while open.
    pub generation: AtomicU32,
    /// Access mode and status flags as of `open(2)` and `F_SETFL`.
    pub flags: AtomicU32,
    /// `WAIT_*`: what a read of it waits for.
    pub wait: AtomicU32,
    /// Not zero: handed over to the kernel, which has its offset; every call on
    /// it is the kernel's own.
    pub native: AtomicU32,
    reserved: [AtomicU32; 3],
}

/// What the coordinator says of a process: tells waiters whether the owner of
/// a word is alive.
#[repr(C)]
pub struct ProcessMeta {
    /// Counts reuses; odd while the process is alive.
    pub generation: AtomicU32,
    /// Its process id.
    pub pid: AtomicU32,
}

/// An index block of a large file.
#[repr(C, align(4096))]
pub struct MapBlock {
    /// As [`FileMeta::map`], or map blocks in a root.
    pub entries: [AtomicU32; MAP_ENTRIES],
}

/// Start of `sync`.
#[repr(C, align(64))]
pub struct SyncHeader {
    /// Not zero: the coordinator has died or the session is over; every call
    /// on a taken-over file is `EIO`.
    pub dead: AtomicU32,
    // The next words change often.
    reserved: [AtomicU32; 15],
    /// A bit for each process that has put a question into its mailbox.
    pub asked: [AtomicU64; MAX_PROCESSES as usize / 64],
}

/// What clients and coordinator write of a file (the FCB's second half).
#[repr(C, align(64))]
pub struct FileSync {
    /// Size in bytes: end of the farthest write.
    pub size: AtomicU64,
    /// Bytes published without a gap from the start.
    pub frontier: AtomicU64,
    /// Modification time, ns since the epoch.
    pub modified: AtomicU64,
    /// Change time, ns since the epoch.
    pub changed: AtomicU64,
    /// Access time, ns since the epoch.
    pub accessed: AtomicU64,
    /// Owner word of appends.
    pub append: AtomicU32,
    /// Futex of readers that wait for bytes or finality: counts wake-ups.
    pub wake: AtomicU32,
    /// Not zero: somebody waits; the waker clears it.
    pub waiters: AtomicU32,
}

/// What clients write of an open file description.
#[repr(C, align(64))]
pub struct OfdSync {
    /// The file offset.
    pub offset: AtomicU64,
    /// Bytes delivered by reads.
    pub read: AtomicU64,
    /// Bytes taken by writes.
    pub written: AtomicU64,
    /// Time that reads have waited, ns.
    pub waited: AtomicU64,
    /// Owner word of the offset.
    pub word: AtomicU32,
    /// Number of waits.
    pub waits: AtomicU32,
    /// Largest size that `stat` or `fstat` told this description.
    pub told: AtomicU64,
}

/// A thread's record: what it does right now.
#[repr(C, align(64))]
pub struct ThreadRecord {
    /// Kernel thread id; 0: free.
    pub tid: AtomicU32,
    /// Futex of the thread's waits for the coordinator: counts wake-ups.
    pub wake: AtomicU32,
    /// Hazard slot: operation count in the high half, file index + 1 in the
    /// low half (0: none). The pages of that file are not reused meanwhile.
    pub hazard: AtomicU64,
    /// Range that is being written, for the coordinator to wipe at death.
    pub write_start: AtomicU64,
    /// End of that range; not above its start: none.
    pub write_end: AtomicU64,
    /// File (index + 1) whose bytes or finality the thread waits for; 0: none.
    pub waits_for: AtomicU32,
    reserved: AtomicU32,
    /// Offset at which it waits.
    pub waits_at: AtomicU64,
    /// Since when, ns of the monotonic clock.
    pub waits_since: AtomicU64,
}

/// A process's record, written by that process.
#[repr(C, align(4096))]
pub struct ProcessRecord {
    /// Not zero: the process ends by itself. One that ends without was killed.
    pub ending: AtomicU64,
    head: [AtomicU64; 7],
    /// One a thread; the last is shared by all threads beyond the others.
    pub threads: [ThreadRecord; MAX_THREADS as usize],
}

/// Words of a mailbox's frame.
pub const MAILBOX_WORDS: usize = 504;

/// By which a process asks, and is answered, without a system call; see
/// [`mailbox`](crate::protocol::mailbox).
#[repr(C, align(4096))]
pub struct Mailbox {
    /// Whose turn it is, and a futex.
    pub state: AtomicU32,
    reserved: [AtomicU32; 15],
    /// A frame as on the socket, with its length word.
    pub frame: [AtomicU64; MAILBOX_WORDS],
}

impl Mailbox {
    /// Most bytes of a frame in it.
    pub const ROOM: usize = MAILBOX_WORDS * 8;

    /// Puts a frame in; `false`: it is too long.
    #[must_use]
    pub fn put(&self, frame: &[u8]) -> bool {
        let (words, rest) = frame.as_chunks::<8>();
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let bytes = words.iter().chain(core::iter::once(&last));
        for (slot, bytes) in self.frame.iter().zip(bytes) {
            slot.store(u64::from_le_bytes(*bytes), Relaxed);
        }
        frame.len() <= Self::ROOM
    }

    /// Copies the frame out, as long as its length word says, and gives the length of
    /// its body; `None`: that is more than there is or `into` holds.
    pub fn get(&self, into: &mut [u8]) -> Option<usize> {
        let first = self.frame.first()?.load(Relaxed);
        let body = first as u32 as usize;
        let length = body.checked_add(4).filter(|length| *length <= Self::ROOM)?;
        let into = into.get_mut(..length)?;
        let mut words = self.frame.iter().map(|word| word.load(Relaxed));
        for part in into.chunks_mut(8) {
            let bytes = words.next()?.to_le_bytes();
            part.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
        // What was checked is what counts, whatever is there by now.
        into.get_mut(..4)?
            .copy_from_slice(&(body as u32).to_le_bytes());
        Some(body)
    }
}

/// Where the tables of `meta` start, and its size, in bytes.
pub mod meta {
    use super::*;
    use crate::names::{Bucket, Directory, MAX_BUCKETS};

    /// Table of [`FileMeta`].
    pub const FILES: usize = PAGE as usize;
    /// Table of [`OfdMeta`].
    pub const OFDS: usize = FILES + MAX_FILES as usize * size_of::<FileMeta>();
    /// Table of [`ProcessMeta`].
    pub const PROCESSES: usize = OFDS + MAX_OFDS as usize * size_of::<OfdMeta>();
    /// Table of [`MapBlock`].
    pub const BLOCKS: usize = PROCESSES + MAX_PROCESSES as usize * size_of::<ProcessMeta>();
    /// Head of the table of names.
    pub const NAMES: usize = BLOCKS + MAX_MAP_BLOCKS as usize * size_of::<MapBlock>();
    /// Table of [`Directory`].
    pub const DIRECTORIES: usize = NAMES + PAGE as usize;
    /// Buckets of the table of names.
    pub const BUCKETS: usize = DIRECTORIES + crate::names::DIRECTORIES * size_of::<Directory>();
    /// Size of the region.
    pub const SIZE: usize = BUCKETS + MAX_BUCKETS * size_of::<Bucket>();
}

/// Where the tables of `sync` start, and its size, in bytes.
pub mod sync {
    use super::*;

    /// Table of [`FileSync`].
    pub const FILES: usize = PAGE as usize;
    /// Table of [`OfdSync`].
    pub const OFDS: usize = FILES + MAX_FILES as usize * size_of::<FileSync>();
    /// Table of [`ProcessRecord`].
    pub const PROCESSES: usize = OFDS + MAX_OFDS as usize * size_of::<OfdSync>();
    /// Table of [`Mailbox`].
    pub const MAILBOXES: usize = PROCESSES + MAX_PROCESSES as usize * size_of::<ProcessRecord>();
    /// Size of the region.
    pub const SIZE: usize = MAILBOXES + MAX_PROCESSES as usize * size_of::<Mailbox>();
}

const _: () = {
    assert!(size_of::<FileMeta>() == 256);
    assert!(size_of::<OfdMeta>() == 32);
    assert!(size_of::<FileSync>() == 64);
    assert!(size_of::<OfdSync>() == 64);
    assert!(size_of::<ThreadRecord>() == 64);
    assert!(size_of::<ProcessRecord>() == 4096);
    assert!(size_of::<Mailbox>() == 4096);
    assert!(size_of::<MetaHeader>() == 128);
    assert!(meta::PROCESSES.is_multiple_of(4096) && meta::BLOCKS.is_multiple_of(4096));
    assert!(sync::PROCESSES.is_multiple_of(4096));
};

/// A piece of a file: what one entry of the block map stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Number of the piece, from the file's start.
    pub index: u32,
    /// Offset of its first byte in the file.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
}

impl Piece {
    /// The piece that holds byte `offset`; `None` from [`MAX_MAPPED`] on.
    #[inline(always)]
    #[must_use]
    pub fn at(offset: u64) -> Option<Self> {
        if offset < CHUNK {
            let pages = offset / PAGE;
            let index = u64::BITS - pages.leading_zeros();
            let length = if index == 0 {
                PAGE
            } else {
                PAGE << (index - 1)
            };
            let start = if index == 0 { 0 } else { length };
            return Some(Self {
                index,
                start,
                length,
            });
        }
        if offset >= MAX_MAPPED {
            return None;
        }
        let chunk = offset / CHUNK;
        Some(Self {
            index: chunk as u32 + SEGMENTS as u32 - 1,
            start: chunk * CHUNK,
            length: CHUNK,
        })
    }

    /// Piece number `index` of any file.
    #[must_use]
    pub const fn number(index: u32) -> Self {
        let (start, length) = match index {
            0 => (0, PAGE),
            1..SEGMENTS_END => (PAGE << (index - 1), PAGE << (index - 1)),
            _ => ((index - SEGMENTS_END + 1) as u64 * CHUNK, CHUNK),
        };
        Self {
            index,
            start,
            length,
        }
    }

    /// The piece after this one; `None` at the end of what a file can hold.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        Self::at(self.start + self.length)
    }
}

/// Tag of an owner word: who holds it.
///
/// ```text
/// bit 31      somebody waits
/// bits 17-30  generation of the process record, low 14 bits
/// bits 6-16   process record
/// bits 0-5    thread record + 1
/// ```
/// Zero: nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(pub u32);

impl Owner {
    /// Set by a waiter, so that the owner wakes somebody when it leaves.
    pub const WAITED: u32 = 1 << 31;

    /// The tag of thread record `thread` of process record `process`.
    #[must_use]
    pub const fn new(process: u32, generation: u32, thread: u32) -> Self {
        Self(((generation & 0x3fff) << 17) | ((process & 0x7ff) << 6) | ((thread + 1) & 0x3f))
    }

    /// Index of the process record.
    #[must_use]
    pub const fn process(self) -> u32 {
        (self.0 >> 6) & 0x7ff
    }

    /// Whether `generation` of its process record is the one it was made with.
    #[must_use]
    pub const fn is_of(self, generation: u32) -> bool {
        (self.0 >> 17) & 0x3fff == generation & 0x3fff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_file_without_gap_or_overlap() {
        let mut piece = Piece::at(0).unwrap();
        let mut expected = 0;
        for index in 0..4000 {
            assert_eq!((piece.index, piece.start), (index, expected));
            assert_eq!(Piece::number(index), piece);
            for probe in [piece.start, piece.start + piece.length - 1] {
                assert_eq!(Piece::at(probe), Some(piece));
            }
            expected += piece.length;
            piece = piece.next().unwrap();
        }
        assert_eq!(Piece::at(CHUNK).unwrap().index, SEGMENTS as u32);
        assert_eq!(Piece::at(DIRECT_BYTES).unwrap().index, DIRECT as u32);
        assert_eq!(Piece::at(MAX_MAPPED), None);
    }

    fn mailbox() -> std::boxed::Box<Mailbox> {
        std::boxed::Box::new(Mailbox {
            state: AtomicU32::new(0),
            reserved: [const { AtomicU32::new(0) }; 15],
            frame: [const { AtomicU64::new(u64::MAX) }; MAILBOX_WORDS],
        })
    }

    fn frame(length: usize) -> std::vec::Vec<u8> {
        let body = (0..length - 4).map(|at| at as u8 | 1);
        let head = ((length - 4) as u32).to_le_bytes();
        head.into_iter().chain(body).collect()
    }

    #[test]
    fn a_mailbox_gives_the_frame_that_was_put_in() {
        let mailbox = mailbox();
        let mut room = [0; 8192];
        for length in [4, 5, 11, 12, 13, 4024, Mailbox::ROOM - 1, Mailbox::ROOM] {
            assert!(mailbox.put(&frame(length)));
            assert_eq!(mailbox.get(&mut room), Some(length - 4));
            assert_eq!(room[..length], frame(length));
        }
        assert!(!mailbox.put(&frame(Mailbox::ROOM + 1)));
    }

    #[test]
    fn nothing_is_read_beyond_a_mailbox_or_the_readers_room() {
        let mailbox = mailbox();
        assert_eq!(mailbox.get(&mut [0; 8192]), None);
        assert!(mailbox.put(&frame(100)));
        assert_eq!(mailbox.get(&mut [0; 99]), None);
        let one_more = (Mailbox::ROOM - 4 + 1) as u32;
        assert!(mailbox.put(&one_more.to_le_bytes()));
        assert_eq!(mailbox.get(&mut [0; 8192]), None);
    }

    #[test]
    fn owner_tags_tell_a_dead_process_from_its_successor() {
        let owner = Owner::new(2047, 0x1_2345, 62);
        assert_eq!(owner.process(), 2047);
        assert!(owner.is_of(0x1_2345) && !owner.is_of(0x1_2347));
        assert_eq!(owner.0 & Owner::WAITED, 0);
        assert_ne!(owner.0 & 0x3f, 0);
    }
}
