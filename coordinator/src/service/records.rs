//! File records (FCBs) of files whose content is in the cache, and the pages
//! that they hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};

use wire::layout::{
    DIRECT, ENTRY_STORED, FILE_FAILED, FILE_FINAL, FILE_STREAM, MAP_ENTRIES, Piece, page_of,
};
use wire::limits::{CHUNK, MAX_FILE_SIZE, MAX_FILES, MAX_MAP_BLOCKS, MAX_PROCESSES, PAGE};
use wire::protocol::stream::Stream;
use wire::protocol::{hazard, piece};

use super::arena::{Arena, Run};
use super::below::{Asker, Below};
use super::cuts::Cut;
use super::kernel::{Backed, Move};
use super::names::Attr;
use super::shm::Shared;

/// Most bytes granted ahead of a writer.
const AHEAD: u64 = 8 * CHUNK;
/// Ranges beyond the frontier that are remembered per file; further ones wait
/// for finality.
const MAX_WITHHELD: usize = 4096;

/// A hazard slot that named a file: process, thread, content.
pub(super) type Hazard = (u32, usize, u64);

/// Pages that left a file while somebody might still be copying from them.
struct Limbo {
    run: Run,
    /// Who might.
    seen: Vec<Hazard>,
}

/// All file records.
pub(super) struct Records {
    pub(super) shared: Arc<Shared>,
    pub(super) arena: Arc<Arena>,
    /// Files whose bytes are the kernel's.
    pub(super) kernel: HashMap<u32, Backed>,
    /// Those of them that are on their way.
    pub(super) moving: HashMap<u32, Move>,
    /// Files that somebody wants to cut, and that are held for it.
    pub(super) cuts: HashMap<u32, Cut>,
    /// What is in the store of all others.
    pub(super) below: Below,
    free: Vec<u32>,
    /// Numbers of files that are gone, which somebody may still be writing by.
    resting: Vec<(u32, Vec<Hazard>)>,
    next: u32,
    free_blocks: Vec<u32>,
    next_block: u32,
    limbo: Vec<Limbo>,
    withheld: HashMap<u32, BTreeMap<u64, u64>>,
    /// Bytes granted beyond what is written, by record, as of when that was
    /// looked at last; and their sum.
    outstanding: HashMap<u32, u64>,
    outstanding_sum: u64,
    /// Process records in use lie below.
    pub process_end: u32,
}

impl Records {
    /// No record yet.
    #[must_use]
    pub(super) fn new(shared: Arc<Shared>, arena: Arc<Arena>) -> Self {
        Self {
            shared,
            arena,
            kernel: HashMap::new(),
            moving: HashMap::new(),
            cuts: HashMap::new(),
            below: Below::default(),
            free: Vec::new(),
            resting: Vec::new(),
            next: 0,
            free_blocks: Vec::new(),
            next_block: 0,
            limbo: Vec::new(),
            withheld: HashMap::new(),
            outstanding: HashMap::new(),
            outstanding_sum: 0,
            process_end: 0,
        }
    }

    /// Makes the record of an empty file.
    ///
    /// # Errors
    /// `ENFILE` when there are too many files, `ENOMEM`.
    pub(super) fn create(&mut self, inode: u64, attr: &Attr) -> Result<u32, i32> {
        let record = self.free.pop().or_else(|| {
            (self.next < MAX_FILES).then(|| {
                self.next += 1;
                self.next - 1
            })
        });
        let record = record.ok_or(libc::ENFILE)?;
        if self.shared.back_file(record).is_err() {
            self.free.push(record);
            return Err(libc::ENOMEM);
        }
        let file = self.shared.file(record);
        file.generation.fetch_add(1, SeqCst);
        file.flags.store(0, Relaxed);
        file.inode.store(inode, Relaxed);
        file.withheld.store(u64::MAX, Relaxed);
        file.root.store(0, Relaxed);
        file.links.store(1, Relaxed);
        file.map.iter().for_each(|entry| entry.store(0, Relaxed));
        let sync = self.shared.file_sync(record);
        for word in [&sync.size, &sync.frontier] {
            word.store(0, Relaxed);
        }
        for word in [&sync.append, &sync.waiters] {
            word.store(0, Relaxed);
        }
        self.set_attr(record, attr);
        Ok(record)
    }

    /// How many records, and blocks of their maps, are in use.
    #[must_use]
    pub(super) fn in_use(&self) -> (u64, u64) {
        let used = |next: u32, free: &[u32]| u64::from(next) - free.len() as u64;
        (
            used(self.next, &self.free),
            used(self.next_block, &self.free_blocks),
        )
    }

    /// Whether a file has this record.
    #[must_use]
    pub(super) fn is_used(&self, record: u32) -> bool {
        // Counted up by `create` and by `release`.
        record < self.next && self.shared.file(record).generation.load(SeqCst) % 2 == 1
    }

    /// Sets owner, permissions and times.
    pub(super) fn set_attr(&self, record: u32, attr: &Attr) {
        let file = self.shared.file(record);
        file.mode.store(libc::S_IFREG | attr.mode, Relaxed);
        file.uid.store(attr.uid, Relaxed);
        file.gid.store(attr.gid, Relaxed);
        file.born.store(attr.born as u64, Relaxed);
        let sync = self.shared.file_sync(record);
        sync.modified.store(attr.modified as u64, Relaxed);
        sync.accessed.store(attr.accessed as u64, Relaxed);
        sync.changed.store(attr.changed as u64, SeqCst);
    }

    /// Owner, permissions and times.
    #[must_use]
    pub(super) fn attr(&self, record: u32) -> Attr {
        let (file, sync) = (self.shared.file(record), self.shared.file_sync(record));
        Attr {
            mode: file.mode.load(Relaxed) & 0o7777,
            uid: file.uid.load(Relaxed),
            gid: file.gid.load(Relaxed),
            accessed: sync.accessed.load(Relaxed) as i64,
            modified: sync.modified.load(Relaxed) as i64,
            changed: sync.changed.load(Relaxed) as i64,
            born: file.born.load(Relaxed) as i64,
        }
    }

    /// Size in bytes; never more than a file can have, whatever clients wrote.
    #[must_use]
    pub(super) fn size(&self, record: u32) -> u64 {
        if let Some(size) = self.native_size(record) {
            return size.min(MAX_FILE_SIZE);
        }
        self.shared
            .file_sync(record)
            .size
            .load(Acquire)
            .min(MAX_FILE_SIZE)
    }

    /// Bytes published without a gap from the start.
    #[must_use]
    pub(super) fn frontier(&self, record: u32) -> u64 {
        self.shared
            .file_sync(record)
            .frontier
            .load(Acquire)
            .min(MAX_FILE_SIZE)
    }

    /// Sets bits of the record's flags.
    pub(super) fn set_flags(&self, record: u32, bits: u32) {
        self.shared.file(record).flags.fetch_or(bits, SeqCst);
    }

    /// Whether it may be read as a stream.
    pub(super) fn set_stream(&self, record: u32) {
        self.set_flags(record, FILE_STREAM);
    }

    /// Marks the end of all waiting on the file and wakes its readers.
    pub(super) fn settle(&self, record: u32, failed: bool) {
        self.set_flags(record, if failed { FILE_FAILED } else { FILE_FINAL });
        self.shared.wake_file(record);
    }

    /// The entry of the block map for piece `index`, if its block exists.
    pub(super) fn entry(&self, record: u32, index: u32) -> Option<&AtomicU32> {
        let file = self.shared.file(record);
        if let Some(entry) = file.map.get(index as usize) {
            return Some(entry);
        }
        let far = index as usize - DIRECT;
        let root = file.root.load(Relaxed).checked_sub(1)?;
        let leaf = self
            .shared
            .block(root)
            .entries
            .get(far / MAP_ENTRIES)?
            .load(Relaxed);
        self.shared
            .block(leaf.checked_sub(1)?)
            .entries
            .get(far % MAP_ENTRIES)
    }

    fn make_blocks(&mut self, record: u32, index: u32) -> Option<()> {
        let far = (index as usize).checked_sub(DIRECT)?;
        let root = match self.shared.file(record).root.load(Relaxed).checked_sub(1) {
            Some(root) => root,
            None => {
                let root = self.take_block()?;
                self.shared.file(record).root.store(root + 1, Release);
                root
            }
        };
        let slot = far / MAP_ENTRIES;
        if self.shared.block(root).entries.get(slot)?.load(Relaxed) == 0 {
            let leaf = self.take_block()?;
            self.shared
                .block(root)
                .entries
                .get(slot)?
                .store(leaf + 1, Release);
        }
        Some(())
    }

    /// Makes room for the entry of piece `index`; `false`: there is none.
    pub(super) fn make_entry(&mut self, record: u32, index: u32) -> bool {
        self.entry(record, index).is_some() || self.make_blocks(record, index).is_some()
    }

    fn take_block(&mut self) -> Option<u32> {
        let block = self.free_blocks.pop().or_else(|| {
            (self.next_block < MAX_MAP_BLOCKS).then(|| {
                self.next_block += 1;
                self.next_block - 1
            })
        })?;
        self.shared
            .block(block)
            .entries
            .iter()
            .for_each(|entry| entry.store(0, Relaxed));
        Some(block)
    }

    /// Puts pages under the piece, unless it has some.
    fn back(&mut self, record: u32, piece: Piece) -> Result<(), i32> {
        if self.entry(record, piece.index).is_none() {
            self.make_blocks(record, piece.index).ok_or(libc::ENOSPC)?;
        }
        let Some(entry) = self.entry(record, piece.index) else {
            return Err(libc::EFBIG);
        };
        if entry.load(Relaxed) == 0 {
            let run = self.arena.take(piece.length).ok_or(libc::ENOSPC)?;
            entry.store(run.page + 1, Release);
        }
        Ok(())
    }

    /// Puts pages under the start of `length` bytes at `offset`, and some more:
    /// as far as grants that nobody has filled yet stay under an eighth of the
    /// cache. The rest of a long write is asked for when it gets there.
    ///
    /// `false`: the first byte comes back from the store, and `asker` is woken
    /// when it is there.
    ///
    /// # Errors
    /// `EFBIG`, or `ENOSPC` when not even the first byte can be had; `EIO`.
    pub(super) fn grant(
        &mut self,
        record: u32,
        offset: u64,
        length: u64,
        asker: Option<Asker>,
    ) -> Result<bool, i32> {
        if self.is_kernel(record) {
            return self.grant_kernel(record, offset, length).map(|()| true);
        }
        let end = offset
            .checked_add(length)
            .ok_or(libc::EFBIG)?
            .min(MAX_FILE_SIZE);
        let first = Piece::at(offset).ok_or(libc::EFBIG)?;
        if !self.reclaim(record, first, asker)? {
            return Ok(false);
        }
        let had = self.arena.usage().1;
        self.back(record, first)?;
        self.asked_for(record, first);
        let allowance = self.allowance();
        let asked = end.saturating_sub(first.start).min(allowance);
        let ahead = end.min(AHEAD).min(allowance.saturating_sub(asked));
        self.back_from(record, first, first.start + asked + ahead);
        let given = self.arena.usage().1.saturating_sub(had);
        *self.outstanding.entry(record).or_default() += given;
        self.outstanding_sum += given;
        Ok(true)
    }

    /// Backs whole pieces after `piece` as far as `end`, while there is space.
    fn back_from(&mut self, record: u32, mut piece: Piece, end: u64) {
        while let Some(next) = piece.next()
            && next.start + next.length <= end
            && self.back(record, next).is_ok()
        {
            piece = next;
        }
    }

    /// Bytes that may be granted ahead of writing: so many that outstanding
    /// grants stay under an eighth of the cache, and an eighth of what is free.
    fn allowance(&mut self) -> u64 {
        let (limit, used, _) = self.arena.usage();
        if self.outstanding_sum > limit / 16 {
            let records: Vec<u32> = self.outstanding.keys().copied().collect();
            self.outstanding = records
                .into_iter()
                .map(|record| (record, self.unfilled(record)))
                .filter(|(_, bytes)| *bytes > 0)
                .collect();
            self.outstanding_sum = self.outstanding.values().sum();
        }
        let left = (limit / 8).saturating_sub(self.outstanding_sum);
        left.min(limit.saturating_sub(used) / 8)
    }

    /// Bytes of pages beyond the end of the file.
    fn unfilled(&self, record: u32) -> u64 {
        let size = self.size(record);
        let pieces = self.backed(record, size, MAX_FILE_SIZE);
        let beyond =
            |piece: &Piece| piece.length - size.saturating_sub(piece.start).min(piece.length);
        pieces.iter().map(|(piece, _)| beyond(piece)).sum()
    }

    /// Puts pages under all of the range, or none of it is promised. What the
    /// cache has no room for the store shall have.
    ///
    /// # Errors
    /// `ENOSPC`, `EFBIG`.
    pub(super) fn reserve(&mut self, record: u32, offset: u64, length: u64) -> Result<(), i32> {
        let end = offset.checked_add(length).ok_or(libc::EFBIG)?;
        if self.is_kernel(record) {
            return self.reserve_kernel(record, offset, end);
        }
        let (limit, used, _) = self.arena.usage();
        let free = limit.saturating_sub(used);
        let below = self.store_usage().free;
        if self.missing(record, offset, end, free.saturating_add(below)) {
            return Err(libc::ENOSPC);
        }
        if self.has_store() && self.missing(record, offset, end, free / 2) {
            return Ok(());
        }
        let mut at = Piece::at(offset);
        while let Some(piece) = at
            && piece.start < end
        {
            self.back(record, piece)?;
            at = piece.next();
        }
        Ok(())
    }

    /// Whether the range lacks more than `free` bytes of pages.
    fn missing(&self, record: u32, start: u64, end: u64, free: u64) -> bool {
        let mut lacks = 0;
        let mut at = Piece::at(start);
        while let Some(piece) = at
            && piece.start < end
            && lacks <= free
        {
            let entry = self.entry(record, piece.index);
            if entry.is_none_or(|entry| entry.load(Relaxed) == 0) {
                lacks += piece.length;
            }
            at = piece.next();
        }
        lacks > free
    }

    /// Pieces from `from` on that have pages: piece and page number.
    pub(super) fn backed(&self, record: u32, from: u64, end: u64) -> Vec<(Piece, u32)> {
        let pieces = self.pieces(record, from, end).into_iter();
        pieces
            .filter_map(|(piece, entry)| Some((piece, page_of(entry).checked_sub(1)?)))
            .collect()
    }

    /// Pieces from `from` on that are no holes: piece and entry.
    pub(super) fn pieces(&self, record: u32, from: u64, end: u64) -> Vec<(Piece, u32)> {
        let mut found = Vec::new();
        let mut at = Piece::at(from);
        let has_far = self.shared.file(record).root.load(Relaxed) != 0;
        while let Some(piece) = at
            && piece.start < end
            && (has_far || (piece.index as usize) < DIRECT)
        {
            let entry = self
                .entry(record, piece.index)
                .map_or(0, |entry| entry.load(Relaxed));
            if entry != 0 {
                found.push((piece, entry));
            }
            at = self.skip_blocks(record, piece).or_else(|| piece.next());
        }
        found
    }

    /// The first piece of the next index block when this one's is missing.
    fn skip_blocks(&self, record: u32, piece: Piece) -> Option<Piece> {
        if (piece.index as usize) < DIRECT || self.entry(record, piece.index).is_some() {
            return None;
        }
        let far = piece.index as u64 - DIRECT as u64;
        let skipped = MAP_ENTRIES as u64 - far % MAP_ENTRIES as u64;
        Piece::at(piece.start.saturating_add(skipped * CHUNK))
            .or(Some(piece))
            .filter(|p| *p != piece)
    }

    /// Bytes that the file takes in the cache or below.
    #[must_use]
    pub(super) fn allocated(&self, record: u32) -> u64 {
        if let Some(bytes) = self.allocated_kernel(record) {
            return bytes;
        }
        let size = self.size(record);
        let pieces = self.pieces(record, 0, size);
        let used = |piece: &Piece| (size - piece.start).min(piece.length).div_ceil(PAGE) * PAGE;
        pieces.iter().map(|(piece, _)| used(piece)).sum()
    }

    /// Takes away the pages of all pieces that start at `from` or later.
    pub(super) fn drop_pieces(&mut self, record: u32, from: u64) {
        let pieces = self.pieces(record, from, MAX_FILE_SIZE).into_iter();
        let all: Vec<u32> = pieces
            .filter(|(piece, _)| piece.start >= from)
            .map(|(piece, _)| piece.index)
            .collect();
        self.remove_pieces(record, &all);
    }

    /// Makes a piece a hole.
    pub(super) fn remove_piece(&mut self, record: u32, index: u32) {
        self.remove_pieces(record, &[index]);
    }

    fn remove_pieces(&mut self, record: u32, indices: &[u32]) {
        let mut dropped = Vec::new();
        for &index in indices {
            let old = self
                .entry(record, index)
                .map_or(0, |entry| piece::take_away(entry, 0));
            if old & ENTRY_STORED != 0 {
                self.forget(record, index);
            }
            let bytes = Piece::number(index).length;
            dropped.extend(page_of(old).checked_sub(1).map(|page| Run { page, bytes }));
        }
        if !dropped.is_empty() {
            self.retire(record, dropped);
        }
    }

    /// Reuses pages at once, or when nobody can be copying from them any more.
    pub(super) fn retire(&mut self, record: u32, runs: Vec<Run>) {
        let seen = self.hazards(record);
        for run in runs {
            if seen.is_empty() {
                self.give_back(run);
            } else {
                self.limbo.push(Limbo {
                    run,
                    seen: seen.clone(),
                });
            }
        }
    }

    /// Copies from or to the file that are under way.
    pub(super) fn hazards(&self, record: u32) -> Vec<Hazard> {
        let slots = self.slots();
        let of = |(process, thread, slot)| Some((process, thread, hazard::is_of(slot, record)?));
        slots.filter_map(of).collect()
    }

    /// Files that somebody copies from or to.
    pub(super) fn busy(&self) -> HashSet<u32> {
        let slots = self.slots();
        slots.filter_map(|(.., slot)| hazard::file(slot)).collect()
    }

    /// Hazard slots of all that live: process, thread, slot.
    fn slots(&self) -> impl Iterator<Item = (u32, usize, &AtomicU64)> {
        let is_alive =
            |process: &u32| self.shared.process(*process).generation.load(Relaxed) % 2 == 1;
        let processes = (0..self.process_end.min(MAX_PROCESSES)).filter(is_alive);
        processes.flat_map(|process| {
            let threads = self.shared.record(process).threads.iter().enumerate();
            threads.map(move |(thread, slot)| (process, thread, &slot.hazard))
        })
    }

    /// Whether that copy is under way still.
    pub(super) fn is_under_way(&self, (process, thread, seen): &Hazard) -> bool {
        let alive = self.shared.process(*process).generation.load(Relaxed) % 2 == 1;
        let slot = self.shared.record(*process).threads.get(*thread);
        alive && slot.is_some_and(|slot| hazard::is_under_way(&slot.hazard, *seen))
    }

    /// Gives back what nobody can be copying from any more; whether something
    /// is left.
    pub(super) fn reap_limbo(&mut self) -> bool {
        for (record, mut seen) in std::mem::take(&mut self.resting) {
            seen.retain(|hazard| self.is_under_way(hazard));
            if seen.is_empty() {
                self.free.push(record);
            } else {
                self.resting.push((record, seen));
            }
        }
        let limbo = std::mem::take(&mut self.limbo);
        for mut entry in limbo {
            entry.seen.retain(|hazard| self.is_under_way(hazard));
            if entry.seen.is_empty() {
                self.give_back(entry.run);
            } else {
                self.limbo.push(entry);
            }
        }
        !self.limbo.is_empty()
    }

    /// Bytes that will be free once nobody copies from them any more.
    pub(super) fn in_limbo(&self) -> u64 {
        self.limbo.iter().map(|entry| entry.run.bytes).sum()
    }

    /// [`Records::truncate`] when nobody copies to or from the file; `false`:
    /// somebody does still, ask again in a while.
    ///
    /// # Errors
    /// As there.
    pub(super) fn cut(&mut self, record: u32, size: u64) -> Result<bool, i32> {
        if size >= self.size(record) && !self.is_kernel(record) {
            return self.grow(record, size).map(|()| true);
        }
        if !self.hold_still(record) {
            return Ok(false);
        }
        let done = self.truncate(record, size);
        self.let_go(record);
        done.map(|()| true)
    }

    /// Sets the size; what is cut off is gone and reads as zeros if the file
    /// grows again. Nobody may be copying to or from it.
    ///
    /// # Errors
    /// What the kernel says, of a file that it has; what the store says.
    pub(super) fn truncate(&mut self, record: u32, size: u64) -> Result<(), i32> {
        self.truncate_kernel(record, size)?;
        let old = self.size(record);
        let sync = self.shared.file_sync(record);
        sync.size.store(size, SeqCst);
        if size < old {
            sync.frontier.fetch_min(size, SeqCst);
            self.clip_withheld(record, size);
            self.drop_pieces(record, size);
            self.wipe(record, size, old)?;
        }
        self.shared.wake_file(record);
        Ok(())
    }

    /// Sets the size to `size` if it is less; publishes nothing.
    ///
    /// # Errors
    /// What the kernel says, of a file that it has.
    pub(super) fn grow(&mut self, record: u32, size: u64) -> Result<(), i32> {
        if size > self.size(record) {
            self.truncate_kernel(record, size)?;
            self.shared.file_sync(record).size.fetch_max(size, SeqCst);
        }
        Ok(())
    }

    /// Takes pages beyond the end away, when nobody writes any more.
    pub(super) fn trim(&mut self, record: u32) {
        let size = self.size(record);
        self.drop_pieces(record, size);
        let bytes = self.outstanding.remove(&record).unwrap_or(0);
        self.outstanding_sum = self.outstanding_sum.saturating_sub(bytes);
    }

    /// Writes zeros over what is no hole in the range.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`: the store could not be changed.
    pub(super) fn wipe(&mut self, record: u32, start: u64, end: u64) -> Result<(), i32> {
        let from = Piece::at(start).map_or(start, |piece| piece.start);
        for (piece, entry) in self.pieces(record, from, end.min(MAX_FILE_SIZE)) {
            let first = start.max(piece.start) - piece.start;
            let last = end
                .min(piece.start + piece.length)
                .saturating_sub(piece.start);
            if first >= last {
                continue;
            }
            let Some(page) = page_of(entry).checked_sub(1) else {
                self.patch_stored(record, piece, |bytes| {
                    let range = bytes.get_mut(first as usize..last as usize);
                    range.unwrap_or_default().fill(0);
                })?;
                continue;
            };
            if entry & ENTRY_STORED != 0 {
                self.unmark(record, piece.index);
            }
            let offset = u64::from(page) * PAGE + first;
            self.shared.arena.zero(offset, last - first);
        }
        Ok(())
    }

    /// Makes a hole: frees whole pieces and wipes the rest.
    ///
    /// # Errors
    /// As [`Records::wipe`].
    pub(super) fn punch(&mut self, record: u32, start: u64, end: u64) -> Result<(), i32> {
        let pieces = self.pieces(record, start, end).into_iter();
        let whole = |piece: &Piece| piece.start >= start && piece.start + piece.length <= end;
        let all: Vec<u32> = pieces
            .filter(|(piece, _)| whole(piece))
            .map(|(piece, _)| piece.index)
            .collect();
        self.remove_pieces(record, &all);
        self.wipe(record, start, end)?;
        self.punch_kernel(record, start, end);
        Ok(())
    }

    /// Forgets the file: no name and no open description is left.
    pub(super) fn release(&mut self, record: u32) {
        let bytes = self.outstanding.remove(&record).unwrap_or(0);
        self.outstanding_sum = self.outstanding_sum.saturating_sub(bytes);
        self.release_kernel(record);
        self.drop_pieces(record, 0);
        let file = self.shared.file(record);
        if let Some(root) = file.root.swap(0, SeqCst).checked_sub(1) {
            for entry in &self.shared.block(root).entries {
                self.free_blocks.extend(entry.load(Relaxed).checked_sub(1));
            }
            self.free_blocks.push(root);
        }
        file.generation.fetch_add(1, SeqCst);
        self.withheld.remove(&record);
        self.cuts.remove(&record);
        self.take_failure(record);
        // What the coordinator has to wipe after a killed writer it knows by the
        // number alone, and that must not be another file's by then.
        match self.hazards(record) {
            seen if seen.is_empty() => self.free.push(record),
            seen => self.resting.push((record, seen)),
        }
    }

    /// Takes note of a range beyond the frontier, and advances that over all
    /// ranges that it reaches.
    pub(super) fn published(&mut self, record: u32, start: u64, end: u64) {
        let ranges = self.withheld.entry(record).or_default();
        if start < end && end <= MAX_FILE_SIZE && ranges.len() < MAX_WITHHELD {
            let known = ranges.entry(start).or_insert(end);
            *known = end.max(*known);
        }
        let (file, sync) = (self.shared.file(record), self.shared.file_sync(record));
        let stream = Stream::of(file, sync);
        let mut moved = false;
        while let Some(first) = ranges.first_entry()
            && *first.key() <= stream.frontier.load(SeqCst)
        {
            moved |= stream.show(first.remove());
        }
        let lowest = ranges.keys().next().copied();
        // A writer may have advanced the frontier just before it could see the
        // mark: look once more.
        let reached = stream.withhold(lowest);
        if lowest.is_none() {
            self.withheld.remove(&record);
        }
        if moved {
            self.shared.wake_file(record);
        }
        if reached {
            self.published(record, 0, 0);
        }
    }

    fn clip_withheld(&mut self, record: u32, size: u64) {
        if let Some(ranges) = self.withheld.get_mut(&record) {
            ranges.retain(|start, _| *start < size);
            ranges.values_mut().for_each(|end| *end = size.min(*end));
            self.published(record, 0, 0);
        }
    }

    /// Copies from the file; holes read as zeros.
    ///
    /// # Errors
    /// `EIO`: the store does not give it.
    pub(super) fn read(&self, record: u32, offset: u64, into: &mut [u8]) -> Result<(), i32> {
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let Some(piece) = Piece::at(at) else {
                rest.fill(0);
                return Ok(());
            };
            let within = at - piece.start;
            let length = (piece.length - within).min(rest.len() as u64);
            let (part, tail) = rest.split_at_mut(length as usize);
            self.read_piece(record, piece, within, part)?;
            at += length;
            rest = tail;
        }
        Ok(())
    }

    fn read_piece(
        &self,
        record: u32,
        piece: Piece,
        within: u64,
        into: &mut [u8],
    ) -> Result<(), i32> {
        let entry = self.entry(record, piece.index);
        let entry = entry.map_or(0, |entry| entry.load(Acquire));
        if let Some(page) = page_of(entry).checked_sub(1)
            && self
                .shared
                .arena
                .read(u64::from(page) * PAGE + within, into)
        {
            return Ok(());
        }
        if entry == 0 || !self.read_stored(record, piece, within, into)? {
            self.read_kernel(record, piece.start + within, into);
        }
        Ok(())
    }

    /// Copies into the file (from the lower layer) and advances its size.
    ///
    /// # Errors
    /// `ENOSPC`, `EFBIG`.
    pub(super) fn write(&mut self, record: u32, offset: u64, from: &[u8]) -> Result<(), i32> {
        self.fill(record, offset, from)?;
        let end = offset.saturating_add(from.len() as u64);
        let sync = self.shared.file_sync(record);
        sync.size.fetch_max(end, SeqCst);
        sync.frontier.fetch_max(end, SeqCst);
        Ok(())
    }

    /// Copies into pages of the arena, or into the store when there is none to
    /// be had.
    ///
    /// # Errors
    /// `ENOSPC`, `EFBIG`, `EIO`.
    pub(super) fn fill(&mut self, record: u32, offset: u64, from: &[u8]) -> Result<(), i32> {
        let mut at = offset;
        let mut rest = from;
        while !rest.is_empty() {
            let piece = Piece::at(at).ok_or(libc::EFBIG)?;
            let within = at - piece.start;
            let length = (piece.length - within).min(rest.len() as u64);
            let (part, tail) = rest.split_at(length as usize);
            self.fill_piece(record, piece, within, part)?;
            at += length;
            rest = tail;
        }
        Ok(())
    }

    fn fill_piece(
        &mut self,
        record: u32,
        piece: Piece,
        within: u64,
        from: &[u8],
    ) -> Result<(), i32> {
        let stored = |entry: u32| entry & ENTRY_STORED != 0 && page_of(entry) == 0;
        let entry = self.entry(record, piece.index);
        let in_store = entry.is_some_and(|entry| stored(entry.load(Relaxed)));
        let backed = if in_store {
            Err(libc::ENOSPC)
        } else {
            self.back(record, piece)
        };
        match backed {
            Ok(()) => {}
            Err(libc::ENOSPC) if self.has_store() => {
                let end = within as usize + from.len();
                return self.patch_stored(record, piece, |bytes| {
                    if let Some(range) = bytes.get_mut(within as usize..end) {
                        range.copy_from_slice(from);
                    }
                });
            }
            Err(error) => return Err(error),
        }
        let entry = self.entry(record, piece.index);
        let entry = entry.map_or(0, |entry| entry.load(Relaxed));
        if entry & ENTRY_STORED != 0 {
            self.unmark(record, piece.index);
        }
        let page = page_of(entry).checked_sub(1).ok_or(libc::EIO)?;
        let written = self
            .shared
            .arena
            .write(u64::from(page) * PAGE + within, from);
        written.then_some(()).ok_or(libc::EIO)
    }

    /// Parts of the file that are no holes, up to its size: offset and length.
    #[must_use]
    pub(super) fn data(&self, record: u32) -> Vec<(u64, u64)> {
        let size = self.size(record);
        let pieces = self.pieces(record, 0, size);
        let span = |piece: &Piece| (piece.start, piece.length.min(size - piece.start));
        let arena = pieces.iter().map(|(piece, _)| span(piece));
        let kernel = self.data_kernel(record, size);
        kernel.into_iter().chain(arena).collect()
    }
}

#[cfg(test)]
mod tests {
    use wire::layout::FILE_WITHHELD;

    use super::*;

    fn records(chunks: u64) -> Records {
        let shared = Arc::new(Shared::create(chunks * CHUNK, 2, 1).unwrap());
        Records::new(Arc::clone(&shared), Arc::new(Arena::new(shared)))
    }

    #[test]
    fn what_was_cut_off_reads_as_zeros_when_the_file_grows_again() {
        let mut records = records(4);
        let file = records.create(1, &Attr::default()).unwrap();
        let size = 3 << 20;
        records.write(file, 0, &vec![7; size]).unwrap();
        records.truncate(file, 5000).unwrap();
        records.truncate(file, size as u64).unwrap();
        let mut content = vec![1; size];
        records.read(file, 0, &mut content).unwrap();
        assert!(content[..5000].iter().all(|&byte| byte == 7));
        assert!(content[5000..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn ranges_beyond_the_frontier_are_shown_once_the_gap_is_closed() {
        let mut records = records(2);
        let file = records.create(1, &Attr::default()).unwrap();
        records.published(file, 100, 200);
        records.published(file, 300, 400);
        records.published(file, 200, 300);
        assert_eq!(records.frontier(file), 0);
        records.shared.file_sync(file).frontier.store(100, SeqCst);
        records.published(file, 100, 100);
        assert_eq!(records.frontier(file), 400);
        assert_eq!(
            records.shared.file(file).flags.load(SeqCst) & FILE_WITHHELD,
            0
        );
    }

    #[test]
    fn pages_under_a_copy_are_not_given_to_another_file() {
        let mut records = records(1);
        records.process_end = 1;
        let file = records.create(1, &Attr::default()).unwrap();
        records.grant(file, 0, CHUNK, None).unwrap();
        let shared = Arc::clone(&records.shared);
        shared.process(0).generation.store(1, SeqCst);
        let slot = &shared.record(0).threads[5].hazard;
        slot.store((9 << 32) | u64::from(file + 1), SeqCst);
        let used = records.arena.usage().1;
        records.truncate(file, 0).unwrap();
        records.release(file);
        assert_eq!(records.arena.usage().1, used);
        assert!(records.reap_limbo());
        slot.store((10 << 32) | u64::from(file + 1), SeqCst);
        assert!(!records.reap_limbo());
        assert_eq!(records.arena.usage().1, 0);
    }

    #[test]
    fn a_new_file_is_not_taken_for_one_that_a_dying_process_was_writing() {
        let mut records = records(1);
        records.process_end = 1;
        let file = records.create(1, &Attr::default()).unwrap();
        let shared = Arc::clone(&records.shared);
        shared.process(0).generation.store(1, SeqCst);
        let slot = &shared.record(0).threads[3].hazard;
        slot.store((9 << 32) | u64::from(file + 1), SeqCst);
        records.release(file);
        let other = records.create(2, &Attr::default()).unwrap();
        assert_ne!(other, file);
        // The process is known to have ended.
        shared.process(0).generation.store(2, SeqCst);
        records.reap_limbo();
        assert_eq!(records.create(3, &Attr::default()), Ok(file));
    }

    #[test]
    fn far_pieces_of_a_sparse_file_cost_only_themselves() {
        let mut records = records(4);
        let file = records.create(1, &Attr::default()).unwrap();
        records.write(file, 1 << 40, b"far").unwrap();
        let mut content = [9; 4];
        records.read(file, (1 << 40) - 1, &mut content).unwrap();
        assert_eq!(&content, b"\0far");
        assert_eq!(records.arena.usage().1, CHUNK);
        assert_eq!(records.data(file).len(), 1);
        records.release(file);
        assert_eq!(records.arena.usage().1, 0);
    }
}
