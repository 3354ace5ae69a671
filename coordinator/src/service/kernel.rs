//! Kernel-backed files: their bytes have left the arena for an inode of their
//! own, the reservation, so that the kernel itself can map them. From then on
//! mappings, `read` and `write` reach the same pages.
//!
//! A file moves once. While it does (`FILE_MOVING`) no new copy in the arena
//! starts; the move begins when those under way have ended, and goes on a part
//! at a time, driven by whoever asks for it and by the clock.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};
use wire::layout::{Piece, page_of};
use wire::limits::{CHUNK, MAX_FILE_SIZE, PAGE};
use wire::message::OfdId;
use wire::protocol::moving;

use super::engine::{Answer, Engine, Outcome};
use super::records::{Hazard, Records};
use super::room::Hope;

/// There is no room in the cache now: an error number of no call here.
const FULL: i32 = libc::ENOBUFS;

/// Bytes that are moved before others get their turn.
const PART: u64 = 16 << 20;

/// The inode of a file whose bytes are the kernel's, or on their way there.
pub(super) struct Backed {
    /// For reading only: what is open for writing cannot be run.
    pub(super) file: Arc<File>,
    path: PathBuf,
    /// Chunks that the cache has given up for its pages.
    pub(super) lent: u64,
    /// A description of it was handed over: the size is the kernel's, too.
    pub(super) native: bool,
    /// Every byte before this is counted in them, whether it has a page or not.
    charged: u64,
}

/// A file on its way.
pub(super) struct Move {
    /// Copies that were under way when it began.
    under_way: Vec<Hazard>,
    /// Bytes before this have moved.
    done: u64,
    /// So many of them have pages.
    bytes: u64,
    /// It goes on when there is room.
    starved: bool,
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Whether the file system of `file` has `bytes` to give.
fn has_room(file: &File, bytes: u64) -> bool {
    let space = nix::sys::statvfs::fstatvfs(file);
    space.is_ok_and(|space| space.blocks_available() * space.fragment_size() >= bytes)
}

impl Backed {
    fn allocated(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.blocks() * 512)
    }

    /// Parts that are not holes: start and length.
    fn data(&self, size: u64) -> Vec<(u64, u64)> {
        let mut parts = Vec::new();
        let seek = |at: u64, whence| lseek(self.file.as_fd(), at as i64, whence);
        let mut at = 0;
        while at < size
            && let Ok(start) = seek(at, Whence::SeekData)
        {
            let start = start as u64;
            let end = seek(start, Whence::SeekHole).map_or(size, |end| end as u64);
            if start >= size || end <= start {
                break;
            }
            parts.push((start, end.min(size) - start));
            at = end;
        }
        parts
    }

    /// Opens it for a change. `ETXTBSY` while it runs.
    fn writable(&self) -> io::Result<File> {
        File::options().write(true).open(&self.path)
    }

    fn truncate(&self, size: u64) -> Result<(), i32> {
        let cut = self.writable().and_then(|file| file.set_len(size));
        cut.map_err(|error| errno(&error))
    }

    fn punch(&self, start: u64, end: u64) {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if start < end
            && let Ok(file) = self.writable()
        {
            // On tmpfs it cannot fail for a valid range.
            let _ = fallocate(&file, hole, start as i64, (end - start) as i64);
        }
    }

    /// Copies from the file; what is not there reads as zeros.
    fn read(&self, offset: u64, into: &mut [u8]) {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..)
            && !rest.is_empty()
        {
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if let Some(rest) = into.get_mut(done..) {
            rest.fill(0);
        }
    }
}

impl Records {
    /// Whether the kernel has the file's bytes, or some of them already.
    #[must_use]
    pub(super) fn is_kernel(&self, record: u32) -> bool {
        self.kernel.contains_key(&record)
    }

    /// Whether the move waits for room in the cache.
    fn is_starved(&self, record: u32) -> bool {
        let going = self.moving.get(&record);
        going.is_some_and(|going| going.starved)
    }

    /// There will be no room: what was moved goes back.
    fn undo_move(&mut self, record: u32) {
        if let Some(going) = self.moving.remove(&record) {
            self.bring_back(record, going.done);
            self.end_move(record, false);
        }
    }

    /// Brings the file's bytes into the inode at `reservation`, or goes on with
    /// that; `false`: not all are there yet.
    ///
    /// # Errors
    /// `ENOMEM`: the file system has no room; [`FULL`]: the cache has none now;
    /// what the kernel says.
    fn move_out(&mut self, record: u32, reservation: &Path) -> Result<bool, i32> {
        self.undo_return(record);
        if !self.is_kernel(record) {
            self.begin_move(record, reservation)?;
        }
        self.go_on(record)
    }

    fn begin_move(&mut self, record: u32, reservation: &Path) -> Result<(), i32> {
        let file = File::open(reservation).map_err(|error| errno(&error))?;
        if !has_room(&file, self.allocated(record)) {
            return Err(libc::ENOMEM);
        }
        if !self.arena.lend(1) {
            return Err(FULL);
        }
        // Writers wait from now on; the size cannot change.
        moving::hold(&self.shared.file(record).flags);
        let backed = Backed {
            file: Arc::new(file),
            path: reservation.to_path_buf(),
            lent: 1,
            native: false,
            charged: 0,
        };
        let sized = backed.truncate(self.size(record));
        let under_way = self.hazards(record);
        self.kernel.insert(record, backed);
        let going = Move {
            under_way,
            done: 0,
            bytes: 0,
            starved: false,
        };
        self.moving.insert(record, going);
        sized.inspect_err(|_| {
            self.moving.remove(&record);
            self.end_move(record, false);
        })
    }

    /// Moves a part; `true` once all is there. A file that is not on its way
    /// is there.
    ///
    /// # Errors
    /// What the kernel says; the file is back in the arena.
    pub(super) fn go_on(&mut self, record: u32) -> Result<bool, i32> {
        let Some(mut going) = self.moving.remove(&record) else {
            return Ok(true);
        };
        going.under_way.retain(|hazard| self.is_under_way(hazard));
        let ready = going.under_way.is_empty();
        let inode = self.kernel.get(&record).map(Backed::writable);
        let moved = match inode {
            Some(Ok(inode)) if ready => self.move_part(record, &mut going, &inode),
            Some(Err(error)) => Err(errno(&error)),
            _ => Ok(false),
        };
        match moved {
            Ok(false) => {
                self.moving.insert(record, going);
            }
            Ok(true) => self.end_move(record, true),
            Err(_) => {
                self.bring_back(record, going.done);
                self.end_move(record, false);
            }
        }
        moved
    }

    fn move_part(&mut self, record: u32, going: &mut Move, inode: &File) -> Result<bool, i32> {
        let size = self.size(record);
        let enough = going.bytes + PART;
        for (piece, entry) in self.pieces(record, going.done, size) {
            if going.bytes >= enough {
                return Ok(false);
            }
            let needed = (going.bytes + piece.length).div_ceil(CHUNK);
            going.starved = self.lend_up_to(record, needed).is_err();
            if going.starved {
                return Ok(false);
            }
            let length = piece.length.min(size - piece.start);
            self.copy_piece(record, piece, entry, length, inode)?;
            self.remove_piece(record, piece.index);
            going.done = piece.start + piece.length;
            going.bytes += piece.length;
        }
        if let Some(backed) = self.kernel.get_mut(&record)
            && going.bytes >= size
        {
            backed.charged = backed.lent.saturating_mul(CHUNK);
        }
        // Pages beyond the end were granted and are not needed.
        self.drop_pieces(record, 0);
        Ok(true)
    }

    /// Takes chunks of the cache for the file until there are `chunks`.
    fn lend_up_to(&mut self, record: u32, chunks: u64) -> Result<(), i32> {
        let Some(backed) = self.kernel.get_mut(&record) else {
            return Err(libc::EIO);
        };
        let more = chunks.saturating_sub(backed.lent);
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).map_err(|_| libc::ENOMEM)?;
        if !self.arena.lend(more) {
            return Err(libc::ENOMEM);
        }
        backed.lent = chunks;
        Ok(())
    }

    /// Copies `length` bytes of a piece into the inode.
    fn copy_piece(
        &self,
        record: u32,
        piece: Piece,
        entry: u32,
        length: u64,
        inode: &File,
    ) -> Result<(), i32> {
        if let Some(page) = page_of(entry).checked_sub(1) {
            let from = u64::from(page) * PAGE;
            let copied = self.shared.arena.write_to(from, length, inode, piece.start);
            return copied.map_err(|error| errno(&error));
        }
        let mut bytes = vec![0; length as usize];
        self.read_stored(record, piece, 0, &mut bytes)?;
        let copied = inode.write_all_at(&bytes, piece.start);
        copied.map_err(|error| errno(&error))
    }

    /// Undoes what was moved.
    fn bring_back(&mut self, record: u32, done: u64) {
        let Some(backed) = self.kernel.remove(&record) else {
            return;
        };
        self.repay(backed.lent);
        let mut failed = false;
        let mut buffer = vec![0; CHUNK as usize];
        for (start, length) in backed.data(done.min(self.size(record))) {
            let mut at = start;
            while at < start + length {
                let part = (start + length - at).min(CHUNK) as usize;
                let part = buffer.get_mut(..part).unwrap_or_default();
                backed.read(at, part);
                failed |= self.fill(record, at, part).is_err();
                at += part.len() as u64;
            }
        }
        let _ = backed.truncate(0);
        if failed {
            // Nobody may take what is left for the whole file.
            self.settle(record, true);
        }
        self.kernel.insert(
            record,
            Backed {
                lent: 0,
                charged: 0,
                ..backed
            },
        );
    }

    /// The inode is a reservation again.
    pub(super) fn empty_inode(&mut self, record: u32) {
        if let Some(backed) = self.kernel.remove(&record) {
            self.repay(backed.lent);
            // It only ever shortens, which cannot fail on tmpfs.
            let _ = backed.truncate(0);
        }
    }

    fn end_move(&mut self, record: u32, moved: bool) {
        if moved {
            self.tell_granted(record);
        } else {
            self.empty_inode(record);
        }
        moving::let_go(&self.shared.file(record).flags, moved);
        self.shared.wake_file(record);
    }

    fn repay(&self, chunks: u64) {
        self.arena.repay(u32::try_from(chunks).unwrap_or(u32::MAX));
    }

    /// Tells clients how far they may write without asking.
    fn tell_granted(&self, record: u32) {
        let charged = self.kernel.get(&record).map_or(0, |backed| backed.charged);
        let granted = &self.shared.file(record).granted;
        granted.store(charged.min(MAX_FILE_SIZE), SeqCst);
    }

    /// Counts all bytes before `end` of a kernel-backed file against the cache,
    /// so that they may be written or touched.
    ///
    /// # Errors
    /// `ENOSPC`: not as many are left.
    pub(super) fn charge(&mut self, record: u32, end: u64) -> Result<(), i32> {
        self.lend_up_to(record, end.div_ceil(CHUNK))
            .map_err(|_| libc::ENOSPC)?;
        if let Some(backed) = self.kernel.get_mut(&record) {
            backed.charged = backed.charged.max(end.next_multiple_of(CHUNK));
        }
        self.tell_granted(record);
        Ok(())
    }

    /// Before a write of `length` bytes at `offset` to a kernel-backed file. One
    /// far beyond the end counts only for itself.
    pub(super) fn grant_kernel(
        &mut self,
        record: u32,
        offset: u64,
        length: u64,
    ) -> Result<(), i32> {
        let end = offset.checked_add(length).ok_or(libc::EFBIG)?;
        let end = end.min(MAX_FILE_SIZE);
        let ahead = end.saturating_add(end.min(PART)).min(MAX_FILE_SIZE);
        if self
            .charge(record, ahead)
            .or_else(|_| self.charge(record, end))
            .is_ok()
        {
            return Ok(());
        }
        let allocated = self.kernel.get(&record).map_or(0, Backed::allocated);
        let needed = allocated.saturating_add(length).saturating_add(PAGE);
        self.lend_up_to(record, needed.div_ceil(CHUNK))
            .map_err(|_| libc::ENOSPC)
    }

    /// [`Records::truncate`] of a kernel-backed file.
    pub(super) fn truncate_kernel(&mut self, record: u32, size: u64) -> Result<(), i32> {
        self.undo_return(record);
        let Some(backed) = self.kernel.get_mut(&record) else {
            return Ok(());
        };
        backed.truncate(size)?;
        let needed = size.max(backed.allocated()).div_ceil(CHUNK).max(1);
        let surplus = backed.lent.saturating_sub(needed);
        backed.lent -= surplus;
        backed.charged = backed.charged.min(backed.lent.saturating_mul(CHUNK));
        self.repay(surplus);
        self.tell_granted(record);
        Ok(())
    }

    /// `fallocate(2)` of a kernel-backed file; the size stays.
    pub(super) fn reserve_kernel(&mut self, record: u32, offset: u64, end: u64) -> Result<(), i32> {
        self.charge(record, end)?;
        let Some(backed) = self.kernel.get(&record) else {
            return Ok(());
        };
        let (offset, length) = (offset as i64, (end - offset) as i64);
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let file = backed.writable().map_err(|error| errno(&error))?;
        fallocate(&file, keep, offset, length).map_err(|error| error as i32)
    }

    /// Makes a hole in a kernel-backed file.
    pub(super) fn punch_kernel(&self, record: u32, start: u64, end: u64) {
        if let Some(backed) = self.kernel.get(&record) {
            backed.punch(start, end);
        }
    }

    /// What a dead writer had begun beyond the end is not there.
    pub(super) fn cut_kernel(&self, record: u32) {
        if let Some(backed) = self.kernel.get(&record) {
            // It only ever shortens, which cannot fail on tmpfs.
            let _ = backed.truncate(self.size(record));
        }
    }

    /// [`Records::allocated`] of a kernel-backed file.
    pub(super) fn allocated_kernel(&self, record: u32) -> Option<u64> {
        self.kernel.get(&record).map(Backed::allocated)
    }

    /// [`Records::read`] where the arena has nothing.
    pub(super) fn read_kernel(&self, record: u32, offset: u64, into: &mut [u8]) {
        match self.kernel.get(&record) {
            Some(backed) => backed.read(offset, into),
            None => into.fill(0),
        }
    }

    /// [`Records::data`] of the part that is the kernel's.
    pub(super) fn data_kernel(&self, record: u32, size: u64) -> Vec<(u64, u64)> {
        self.kernel
            .get(&record)
            .map_or_else(Vec::new, |backed| backed.data(size))
    }

    /// Forgets the inode; its pages are free once nobody maps it.
    pub(super) fn release_kernel(&mut self, record: u32) {
        self.undo_return(record);
        self.moving.remove(&record);
        if let Some(backed) = self.kernel.remove(&record) {
            self.repay(backed.lent);
        }
    }

    /// The size as the kernel has it, of a file that was handed over.
    pub(super) fn native_size(&self, record: u32) -> Option<u64> {
        let backed = self.kernel.get(&record).filter(|backed| backed.native)?;
        backed.file.metadata().ok().map(|meta| meta.len())
    }

    /// Takes over what was written past the session: the size, and that all of
    /// it may be read.
    pub(super) fn adopt(&mut self, record: u32) {
        let Some(size) = self.native_size(record) else {
            return;
        };
        let sync = self.shared.file_sync(record);
        sync.size.store(size, SeqCst);
        sync.frontier.store(size, SeqCst);
        let allocated = self.allocated_kernel(record).unwrap_or(0);
        // It is there whether it fits or not.
        let _ = self.lend_up_to(record, allocated.div_ceil(CHUNK));
        self.shared.wake_file(record);
    }
}

impl Engine {
    /// Goes on with moves that nobody asks for any more.
    pub(super) fn drive_moves(&mut self) {
        let records: Vec<u32> = self.records.moving.keys().copied().collect();
        for record in records {
            // Who asked is told when it asks again.
            let _ = self.records.go_on(record);
            let _ = self.feed(record);
        }
    }

    /// Makes room for a move that needs some.
    fn feed(&mut self, record: u32) -> Result<(), i32> {
        if !self.records.is_starved(record) || self.make_room(CHUNK) != Hope::None {
            return Ok(());
        }
        self.records.undo_move(record);
        Err(libc::ENOMEM)
    }

    /// Brings the file into its inode, making room for that; `false`: not all
    /// of it is there yet.
    pub(super) fn bring_out(&mut self, record: u32) -> Result<bool, i32> {
        if self.records.awaits_cut(record) {
            return Ok(false);
        }
        let reservation = self.ofds.reservations.path(record);
        match self.records.move_out(record, &reservation) {
            Ok(false) => self.feed(record).map(|()| false),
            Err(FULL) if self.make_room(CHUNK) != Hope::None => Ok(false),
            Err(FULL) => Err(libc::ENOMEM),
            done => done,
        }
    }

    /// Makes the file of a description one that the kernel can map; up to
    /// `end`, if that is not 0, a mapping will be written to.
    pub(super) fn map(&mut self, ofd: OfdId, end: u64) -> Outcome {
        let ofd = self.ofds.get(ofd).ok_or(libc::EBADF)?;
        let (inode, record, writes) = (ofd.inode, ofd.record, ofd.writes());
        if !self.bring_out(record)? {
            return Ok(Answer::Soon);
        }
        if end > 0 && writes {
            let end = end.min(self.records.size(record).next_multiple_of(PAGE));
            self.records.charge(record, end).map_err(|_| libc::ENOMEM)?;
            self.modified(inode, record);
        }
        Ok(Answer::Ok)
    }

    /// Leaves a description to the kernel.
    pub(super) fn hand_over(&mut self, id: OfdId) -> Outcome {
        let ofd = self.ofds.get(id).ok_or(libc::EBADF)?;
        let (inode, writes) = (ofd.inode, ofd.writes());
        let backed = self.records.kernel.get_mut(&ofd.record);
        backed.ok_or(libc::EIO)?.native = true;
        self.shared.ofd(id.id).native.store(1, SeqCst);
        if let Some(file) = self.names.file_mut(inode) {
            file.modified |= writes;
        }
        Ok(Answer::Ok)
    }

    /// Whether the file is where it belongs, and not on its way to an inode.
    pub(super) fn at_rest(&mut self, record: u32) -> bool {
        // A move that failed has brought everything back.
        self.records.go_on(record).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wire::layout::{FILE_KERNEL, FILE_MOVING};

    use super::super::arena::Arena;
    use super::super::names::Attr;
    use super::super::shm::Shared;
    use super::*;

    struct World {
        records: Records,
        dir: tempfile::TempDir,
    }

    fn world(chunks: u64) -> World {
        let shared = Arc::new(Shared::create(chunks * CHUNK, 2, 1).unwrap());
        let arena = Arc::new(Arena::new(Arc::clone(&shared)));
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        File::create(dir.path().join("r")).unwrap();
        World {
            records: Records::new(shared, arena),
            dir,
        }
    }

    impl World {
        fn path(&self) -> std::path::PathBuf {
            self.dir.path().join("r")
        }

        fn moved(&mut self, file: u32) -> Result<(), i32> {
            let path = self.path();
            while !self.records.move_out(file, &path)? {
                if self.records.is_starved(file) {
                    self.records.undo_move(file);
                    return Err(libc::ENOMEM);
                }
            }
            Ok(())
        }
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7 % 251) as u8 + 1).collect()
    }

    #[test]
    fn a_sparse_file_moves_with_its_holes_and_counts_only_for_its_bytes() {
        let mut world = world(9);
        let file = world.records.create(1, &Attr::default()).unwrap();
        let head = pattern(5000);
        world.records.write(file, 0, &head).unwrap();
        let tail = pattern(6 * CHUNK as usize);
        world.records.write(file, 80 * CHUNK + 3, &tail).unwrap();
        world.moved(file).unwrap();
        let size = world.records.size(file);
        let mut content = vec![9; size as usize];
        world.records.read(file, 0, &mut content).unwrap();
        assert_eq!(&content[..5000], &head[..]);
        assert_eq!(&content[80 * CHUNK as usize + 3..], &tail[..]);
        assert!(
            content[5000..80 * CHUNK as usize]
                .iter()
                .all(|&byte| byte == 0)
        );
        assert!(world.records.allocated(file) < 9 * CHUNK);
        assert!(world.records.arena.usage().1 <= 9 * CHUNK);
        assert_eq!(
            world.records.grant(file, 40 * CHUNK, 9 * CHUNK, None),
            Err(libc::ENOSPC)
        );
        assert_eq!(world.records.grant(file, 40 * CHUNK, 100, None), Ok(true));
    }

    #[test]
    fn a_file_that_finds_no_room_stays_where_it_was() {
        let mut world = world(3);
        let file = world.records.create(1, &Attr::default()).unwrap();
        let bytes = pattern(2 * CHUNK as usize);
        world.records.write(file, 0, &bytes).unwrap();
        let other = world.records.create(2, &Attr::default()).unwrap();
        world.records.write(other, 0, &[1; 4096]).unwrap();
        assert_eq!(world.moved(file), Err(FULL));
        let mut content = vec![0; bytes.len()];
        world.records.read(file, 0, &mut content).unwrap();
        assert_eq!(content, bytes);
        assert!(!world.records.is_kernel(file));
        assert_eq!(std::fs::metadata(world.path()).unwrap().blocks(), 0);
    }

    #[test]
    fn a_dense_file_moves_within_the_limit_and_gives_its_space_back() {
        let mut world = world(4);
        let file = world.records.create(1, &Attr::default()).unwrap();
        let bytes = pattern(3 * CHUNK as usize - 100);
        world.records.write(file, 0, &bytes).unwrap();
        world.moved(file).unwrap();
        assert_eq!(std::fs::read(world.path()).unwrap(), bytes);
        let mut content = vec![0; bytes.len()];
        world.records.read(file, 0, &mut content).unwrap();
        assert_eq!(content, bytes);
        assert!(world.records.arena.usage().1 <= 4 * CHUNK);
        assert_eq!(world.records.charge(file, 5 * CHUNK), Err(libc::ENOSPC));
        world.records.truncate(file, 10).unwrap();
        assert_eq!(world.records.arena.usage().1, CHUNK);
        world.records.release(file);
        assert_eq!(world.records.arena.usage().1, 0);
        let again = world.records.create(2, &Attr::default()).unwrap();
        world
            .records
            .write(again, 0, &pattern(4 * CHUNK as usize - 2 * PAGE as usize))
            .unwrap();
    }

    #[test]
    fn a_move_waits_for_copies_under_way_and_not_for_later_ones() {
        let mut world = world(4);
        world.records.process_end = 1;
        let file = world.records.create(1, &Attr::default()).unwrap();
        world.records.write(file, 0, b"bytes").unwrap();
        let shared = Arc::clone(&world.records.shared);
        shared.process(0).generation.store(1, SeqCst);
        let slot = &shared.record(0).threads[3].hazard;
        slot.store((1 << 32) | u64::from(file + 1), SeqCst);
        let path = world.path();
        assert_eq!(world.records.move_out(file, &path), Ok(false));
        assert_eq!(
            shared.file(file).flags.load(SeqCst) & FILE_MOVING,
            FILE_MOVING
        );
        slot.store((2 << 32) | u64::from(file + 1), SeqCst);
        assert_eq!(world.records.move_out(file, &path), Ok(true));
        let flags = shared.file(file).flags.load(SeqCst);
        assert_eq!(flags & (FILE_MOVING | FILE_KERNEL), FILE_KERNEL);
    }
}
