//! Pieces of files that have left the cache for the store, and those on their
//! way between the two.
//!
//! A piece leaves in three steps. Its entry is marked ([`ENTRY_STORED`]), so
//! that nobody begins to write to it without asking; once the copies are over
//! that were under way then, the store is given it; and when the store has it,
//! the page is free for others. Until then it is read as before, and a writer
//! that asks gets it back at once. It comes back with the mark, so that it may
//! leave again without being written once more.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use wire::layout::{ENTRY_STORED, Piece, page_of};
use wire::limits::{CHUNK, MAX_FILE_SIZE, PAGE};
use wire::protocol::piece;

use super::arena::Run;
use super::records::{Hazard, Records};
use super::returns::Returns;
use super::store::{Done, Job, Key, Mover, Source, Usage};

/// Bytes that one request brings back.
const AT_ONCE: u64 = 4 * CHUNK;
/// Pieces that are brought back ahead of a sequential reader.
const AHEAD: u32 = 3;

/// A thread that asked: process record and thread record.
pub(super) type Asker = (u32, u32);

/// Where a piece stands that has left the cache, or is about to.
enum Stored {
    /// Its page has it until the store does.
    Leaving {
        key: Key,
        /// Copies that were under way when it was marked; `None`: not looked
        /// for yet.
        under_way: Option<Vec<Hazard>>,
        /// The number of its job, once the store is given it.
        job: Option<u64>,
        /// Whether its page is wanted.
        frees: bool,
    },
    /// The store has it.
    There(Key),
    /// It is on its way to this run of the arena.
    Coming {
        key: Key,
        job: u64,
        run: Run,
        askers: Vec<Asker>,
    },
    /// Nobody has it any more.
    Lost,
}

/// What is to happen when a job is done.
pub(super) enum After {
    /// Something with this piece of this file record.
    Piece(u32, u32),
    /// Something with a piece of this file record, which is on its way back from
    /// the kernel.
    Returned(u32),
    /// Nobody wants it any more: the run is free.
    Free(Run),
    /// Nobody wants it any more: it goes out of the store.
    Remove(Key),
    /// Somebody waits for the device, which has so many changes by then.
    Synced(u64),
}

/// What a finished job means to others.
#[derive(Default)]
pub(super) struct Moved {
    /// Threads that can go on.
    pub askers: Vec<Asker>,
    /// Bytes that are free by it.
    pub freed: u64,
    /// The job, if it brought all to the device.
    pub synced: Option<u64>,
    /// What failed, for the user.
    pub error: Option<(std::io::Error, bool)>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Below {
    mover: Option<Mover>,
    pieces: HashMap<u32, BTreeMap<u32, Stored>>,
    jobs: HashMap<u64, After>,
    /// Of those the ones that give something to the store.
    puts: usize,
    /// Number of the next job, and name of what is put next.
    next: u64,
    /// Marked pieces that the store was not given yet.
    held: Vec<(u32, u32)>,
    /// Bytes that are on their way out of the cache.
    leaving: u64,
    /// Chunks that only come-backs may use, so that a reader always gets on.
    spare: Vec<Run>,
    recent: Recent,
    pub(super) returns: Returns,
    /// The store had no room for what was put last.
    full: bool,
    /// Counts what is put.
    changes: u64,
    /// So many of those are on the device.
    synced: u64,
    /// Error number of the last put that failed, by file record.
    failed: HashMap<u32, i32>,
    /// Bytes put so far.
    pub put: u64,
    /// Bytes brought back so far.
    pub got: u64,
}

/// Pieces that were asked for lately, and are not taken away again at once.
#[derive(Default)]
struct Recent {
    order: VecDeque<(u32, u32, u64)>,
    bytes: u64,
    last: HashMap<(u32, u32), u64>,
    count: u64,
}

impl Recent {
    fn note(&mut self, record: u32, piece: Piece, limit: u64) {
        self.count += 1;
        self.last.insert((record, piece.index), self.count);
        self.order.push_back((record, piece.index, self.count));
        self.bytes += piece.length;
        while self.bytes > limit
            && let Some((record, index, count)) = self.order.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(Piece::number(index).length);
            if self.last.get(&(record, index)) == Some(&count) {
                self.last.remove(&(record, index));
            }
        }
    }
}

impl Below {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A name for what is put next.
    pub(super) fn key(&mut self) -> Key {
        Key(self.number())
    }

    /// What a job brings to the store is of no use any more.
    pub(super) fn unwanted(&mut self, job: u64, key: Key) {
        self.jobs.insert(job, After::Remove(key));
    }

    /// The store has a piece.
    pub(super) fn is_there(&mut self, record: u32, index: u32, key: Key) {
        self.set(record, index, Stored::There(key));
    }

    /// Has something done.
    pub(super) fn submit(&mut self, job: Job, after: After) -> u64 {
        let id = self.number();
        if let Some(mover) = &self.mover {
            self.jobs.insert(id, after);
            let puts = matches!(job, Job::Put { .. } | Job::Copy { .. });
            self.puts += usize::from(puts);
            self.changes += u64::from(puts);
            mover.submit(id, job);
        }
        id
    }

    /// Takes a key out of the store.
    pub(super) fn remove(&mut self, key: Key) {
        if let Some(mover) = &self.mover {
            mover.submit(0, Job::Remove(key));
            self.full = false;
        }
    }

    fn get(&self, record: u32, index: u32) -> Option<&Stored> {
        self.pieces.get(&record)?.get(&index)
    }

    fn set(&mut self, record: u32, index: u32, stored: Stored) {
        self.pieces.entry(record).or_default().insert(index, stored);
    }

    fn take(&mut self, record: u32, index: u32) -> Option<Stored> {
        let pieces = self.pieces.get_mut(&record)?;
        let stored = pieces.remove(&index);
        if pieces.is_empty() {
            self.pieces.remove(&record);
        }
        stored
    }
}

impl Records {
    /// From now on pieces may leave the cache.
    pub(super) fn set_mover(&mut self, mover: Mover) {
        self.below.mover = Some(mover);
    }

    /// Whether there is a store.
    #[must_use]
    pub(super) fn has_store(&self) -> bool {
        self.below.mover.is_some()
    }

    /// How full the store is.
    #[must_use]
    pub(super) fn store_usage(&self) -> Usage {
        let mover = self.below.mover.as_ref();
        mover.map_or_else(Usage::default, |mover| mover.store.usage())
    }

    /// Bytes that will be free in a while: of pieces on their way to the store
    /// and of those that somebody copies from still.
    #[must_use]
    pub(super) fn coming_free(&self) -> u64 {
        self.below.leaving + self.below.returns.bytes() + self.in_limbo()
    }

    /// Bytes that are put by for pieces that come back.
    #[must_use]
    pub(super) fn put_by(&self) -> u64 {
        self.below.spare.iter().map(|run| run.bytes).sum()
    }

    /// Whether the mover is at work.
    #[must_use]
    pub(super) fn is_moving_pieces(&self) -> bool {
        !self.below.jobs.is_empty()
    }

    /// Marks a piece that has a page and no copy in the store; the store is
    /// given it by [`Records::give_to_store`]. `frees`: its page is wanted.
    pub(super) fn leave(&mut self, record: u32, piece: Piece, frees: bool) {
        if let Some(Stored::Leaving { frees: wanted, .. }) = self
            .below
            .pieces
            .get_mut(&record)
            .and_then(|pieces| pieces.get_mut(&piece.index))
        {
            if frees && !*wanted {
                *wanted = true;
                self.below.leaving += piece.length;
            }
            return;
        }
        let Some(entry) = self.entry(record, piece.index) else {
            return;
        };
        if !piece::mark(entry) {
            return;
        }
        let key = self.below.key();
        let leaving = Stored::Leaving {
            key,
            under_way: None,
            job: None,
            frees,
        };
        self.below.set(record, piece.index, leaving);
        self.below.held.push((record, piece.index));
        self.below.leaving += if frees { piece.length } else { 0 };
    }

    /// Gives the store what was marked, as far as nobody copies from or to it
    /// any more; whether some is left.
    pub(super) fn give_to_store(&mut self) -> bool {
        let held = std::mem::take(&mut self.below.held);
        let mut seen: HashMap<u32, Vec<Hazard>> = HashMap::new();
        for (record, index) in held {
            let Some(Stored::Leaving {
                under_way,
                job: None,
                ..
            }) = self.below.get(record, index)
            else {
                continue;
            };
            let mut left = under_way.clone().unwrap_or_else(|| {
                let hazards = seen.entry(record);
                hazards.or_insert_with(|| self.hazards(record)).clone()
            });
            left.retain(|hazard| self.is_under_way(hazard));
            if left.is_empty() {
                self.put(record, index);
                continue;
            }
            if let Some(Stored::Leaving { under_way, .. }) = self
                .below
                .pieces
                .get_mut(&record)
                .and_then(|pieces| pieces.get_mut(&index))
            {
                *under_way = Some(left);
            }
            self.below.held.push((record, index));
        }
        !self.below.held.is_empty()
    }

    /// Gives the store a piece that nobody copies to.
    fn put(&mut self, record: u32, index: u32) {
        let Some(Stored::Leaving { key, frees, .. }) = self.below.get(record, index) else {
            return;
        };
        let (key, frees) = (*key, *frees);
        let entry = self.entry(record, index).map_or(0, |e| e.load(Relaxed));
        let (page, piece) = (page_of(entry), Piece::number(index));
        let used = self.size(record).saturating_sub(piece.start);
        let length = used.min(piece.length).next_multiple_of(PAGE);
        if page == 0 || (length == 0 && !frees) {
            self.unmark(record, index);
            return;
        }
        if length == 0 {
            // Granted, and nothing written yet.
            self.remove_piece(record, index);
            return;
        }
        let job = self.below.submit(
            Job::Put {
                key,
                offset: u64::from(page - 1) * PAGE,
                length,
            },
            After::Piece(record, index),
        );
        let leaving = Stored::Leaving {
            key,
            under_way: None,
            job: Some(job),
            frees,
        };
        self.below.set(record, index, leaving);
    }

    /// What the store has of a piece, or was to have, is of no use any more.
    pub(super) fn forget(&mut self, record: u32, index: u32) {
        match self.below.take(record, index) {
            Some(Stored::Leaving {
                key, job, frees, ..
            }) => {
                self.below.leaving -= if frees {
                    Piece::number(index).length
                } else {
                    0
                };
                if let Some(job) = job {
                    self.below.unwanted(job, key);
                }
            }
            Some(Stored::There(key)) => self.below.remove(key),
            Some(Stored::Coming {
                key,
                job,
                run,
                askers,
            }) => {
                self.below.jobs.insert(job, After::Free(run));
                self.below.remove(key);
                for (process, thread) in askers {
                    self.shared.wake_thread(process, thread);
                }
            }
            Some(Stored::Lost) | None => {}
        }
        if self.below.pieces.is_empty() {
            for run in std::mem::take(&mut self.below.spare) {
                self.arena.give(run);
            }
        }
    }

    /// The piece is its page's alone again.
    pub(super) fn unmark(&mut self, record: u32, index: u32) {
        self.forget(record, index);
        if let Some(entry) = self.entry(record, index) {
            piece::unmark(entry);
        }
    }

    /// Readies a piece of the store for a writer; `false`: in a while.
    ///
    /// # Errors
    /// As [`Records::fetch`].
    pub(super) fn reclaim(
        &mut self,
        record: u32,
        piece: Piece,
        asker: Option<Asker>,
    ) -> Result<bool, i32> {
        let entry = self.entry(record, piece.index);
        let entry = entry.map_or(0, |entry| entry.load(Relaxed));
        if entry & ENTRY_STORED == 0 {
            return Ok(true);
        }
        if page_of(entry) == 0 && !self.fetch(record, piece.start, 1, asker)? {
            return Ok(false);
        }
        if let Some(Stored::Leaving { frees: false, .. }) = self.below.get(record, piece.index) {
            // Somebody syncs what is there now.
            return Ok(false);
        }
        self.unmark(record, piece.index);
        Ok(true)
    }

    /// Brings back the piece at `offset`, and more of the `length` bytes from
    /// there on; whether the first can be read now. If not, `asker` is woken
    /// when it can.
    ///
    /// # Errors
    /// `ENOSPC`: there is no room for it; `EIO`: it is lost.
    pub(super) fn fetch(
        &mut self,
        record: u32,
        offset: u64,
        length: u64,
        asker: Option<Asker>,
    ) -> Result<bool, i32> {
        let first = Piece::at(offset).ok_or(libc::EIO)?;
        let ready = self.bring(record, first)?;
        if let Some(Stored::Coming { askers, .. }) = self
            .below
            .pieces
            .get_mut(&record)
            .and_then(|pieces| pieces.get_mut(&first.index))
            && let Some(asker) = asker
            && !askers.contains(&asker)
        {
            askers.push(asker);
        }
        let end = offset
            .saturating_add(length.min(AT_ONCE))
            .min(MAX_FILE_SIZE);
        self.bring_more(record, first, end);
        Ok(ready)
    }

    /// Starts to bring a piece back; whether its page is there.
    fn bring(&mut self, record: u32, piece: Piece) -> Result<bool, i32> {
        let entry = self.entry(record, piece.index);
        let entry = entry.map_or(0, |entry| entry.load(Relaxed));
        if entry & ENTRY_STORED == 0 || page_of(entry) != 0 {
            return Ok(true);
        }
        let key = match self.below.get(record, piece.index) {
            Some(Stored::Coming { .. }) => return Ok(false),
            Some(Stored::There(key)) => *key,
            Some(Stored::Leaving { .. } | Stored::Lost) | None => return Err(libc::EIO),
        };
        let run = self.room_to_return(piece.length).ok_or(libc::ENOSPC)?;
        let job = Job::Get {
            key,
            offset: u64::from(run.page) * PAGE,
            length: piece.length,
        };
        let job = self.below.submit(job, After::Piece(record, piece.index));
        let coming = Stored::Coming {
            key,
            job,
            run,
            askers: Vec::new(),
        };
        self.below.set(record, piece.index, coming);
        Ok(false)
    }

    /// Brings back what follows, while there is plenty of room: what was asked
    /// for, and what a reader that came from before wants next.
    fn bring_more(&mut self, record: u32, first: Piece, end: u64) {
        let before = (record, first.index.wrapping_sub(1));
        let ahead = if self.below.recent.last.contains_key(&before) {
            AHEAD
        } else {
            0
        };
        let last = first.index.saturating_add(ahead);
        let size = self.size(record);
        let mut piece = first;
        while let Some(next) = piece.next()
            && next.start < size
            && (next.start < end || next.index <= last)
        {
            let (limit, used, _) = self.arena.usage();
            if limit.saturating_sub(used) < limit / 16 + next.length
                || self.bring(record, next).is_err()
            {
                return;
            }
            piece = next;
        }
    }

    fn room_to_return(&mut self, bytes: u64) -> Option<Run> {
        self.arena.take(bytes).or_else(|| {
            let spare = self.below.spare.pop()?;
            self.arena.give(spare);
            self.arena.take(bytes)
        })
    }

    /// Gives a run back to the arena; chunks are put by first for pieces that
    /// come back.
    pub(super) fn give_back(&mut self, run: Run) {
        let (limit, ..) = self.arena.usage();
        let wanted = if limit >= 8 * CHUNK { 2 } else { 1 };
        let keeps = !self.below.pieces.is_empty() && self.below.spare.len() < wanted;
        if keeps && run.bytes == CHUNK && limit > CHUNK {
            self.below.spare.push(run);
        } else {
            self.arena.give(run);
        }
    }

    /// Takes the page of a piece that the store has; `false`: it has none, or
    /// the store has not.
    pub(super) fn free_stored(&mut self, record: u32, piece: Piece) -> bool {
        if !matches!(self.below.get(record, piece.index), Some(Stored::There(_))) {
            return false;
        }
        let Some(entry) = self.entry(record, piece.index) else {
            return false;
        };
        let Some(page) = page_of(piece::take_away(entry, ENTRY_STORED)).checked_sub(1) else {
            return false;
        };
        let run = Run {
            page,
            bytes: piece.length,
        };
        self.retire(record, vec![run]);
        true
    }

    /// Gives up all content of a file that nobody will read again; who tries
    /// gets `EIO`. Bytes that are free by it.
    pub(super) fn give_up(&mut self, record: u32) -> u64 {
        let mut freed = 0;
        for (piece, entry) in self.pieces(record, 0, MAX_FILE_SIZE) {
            if matches!(self.below.get(record, piece.index), Some(Stored::Lost)) {
                continue;
            }
            freed += if page_of(entry) == 0 { 0 } else { piece.length };
            self.remove_piece(record, piece.index);
            if let Some(entry) = self.entry(record, piece.index) {
                entry.store(ENTRY_STORED, SeqCst);
            }
            self.below.set(record, piece.index, Stored::Lost);
        }
        freed
    }

    /// When somebody asked for a piece, if that was lately: a number that grows.
    #[must_use]
    pub(super) fn asked_at(&self, record: u32, index: u32) -> Option<u64> {
        self.below.recent.last.get(&(record, index)).copied()
    }

    /// Whether the store had no room for what was put last.
    #[must_use]
    pub(super) fn is_store_full(&self) -> bool {
        self.below.full
    }

    /// Whether the store is being given something.
    #[must_use]
    pub(super) fn is_putting(&self) -> bool {
        self.below.puts > 0
    }

    /// Whether the page of a piece is on its way to be free.
    #[must_use]
    pub(super) fn is_leaving(&self, record: u32, index: u32) -> bool {
        matches!(
            self.below.get(record, index),
            Some(Stored::Leaving { frees: true, .. })
        )
    }

    /// Takes note that somebody asked for a piece.
    pub(super) fn asked_for(&mut self, record: u32, piece: Piece) {
        let (limit, ..) = self.arena.usage();
        self.below.recent.note(record, piece, limit / 4);
    }

    /// A job of the mover is done.
    pub(super) fn moved(&mut self, done: Done) -> Moved {
        let mut moved = Moved::default();
        self.below.puts -= usize::from(done.was_put && self.below.puts > 0);
        match self.below.jobs.remove(&done.id) {
            Some(After::Piece(record, index)) => {
                self.piece_moved(record, index, done, &mut moved);
            }
            Some(After::Free(run)) => {
                self.give_back(run);
                moved.freed = run.bytes;
            }
            Some(After::Returned(record)) => {
                moved.freed = self.returned(record, done.id, done.result.is_ok());
                self.below.put += moved.freed;
                moved.error = done.result.err().map(|error| (error, false));
            }
            Some(After::Remove(key)) => self.below.remove(key),
            Some(After::Synced(changes)) => {
                moved.synced = Some(done.id);
                if done.result.is_ok() {
                    self.below.synced = self.below.synced.max(changes);
                }
                moved.error = done.result.err().map(|error| (error, false));
            }
            None => {}
        }
        moved
    }

    fn piece_moved(&mut self, record: u32, index: u32, done: Done, moved: &mut Moved) {
        let piece = Piece::number(index);
        let length = piece.length;
        match (self.below.take(record, index), done.result) {
            (Some(Stored::Leaving { key, frees, .. }), Ok(())) => {
                self.below.put += length;
                self.below.full = false;
                self.below.set(record, index, Stored::There(key));
                if frees {
                    self.below.leaving -= length;
                    self.free_stored(record, piece);
                    moved.freed = length;
                }
            }
            (Some(Stored::Leaving { frees, .. }), Err(error)) => {
                self.below.leaving -= if frees { length } else { 0 };
                if let Some(entry) = self.entry(record, index) {
                    piece::unmark(entry);
                }
                self.below.full = true;
                if !frees {
                    let number = error.raw_os_error().unwrap_or(libc::ENOSPC);
                    self.below.failed.insert(record, number);
                }
                moved.error = Some((error, false));
            }
            (
                Some(Stored::Coming {
                    key, run, askers, ..
                }),
                Ok(()),
            ) => {
                self.below.got += length;
                self.below.set(record, index, Stored::There(key));
                if let Some(entry) = self.entry(record, index) {
                    piece::put_under(entry, (run.page + 1) | ENTRY_STORED);
                }
                self.asked_for(record, piece);
                moved.askers = askers;
            }
            (Some(Stored::Coming { run, askers, .. }), Err(error)) => {
                self.below.set(record, index, Stored::Lost);
                self.give_back(run);
                moved.askers = askers;
                moved.error = Some((error, true));
            }
            (Some(other), _) => self.below.set(record, index, other),
            (None, _) => {}
        }
    }

    /// Starts to bring all of a file that the store does not have to the
    /// device; the number of the job that ends with it. `None`: nothing is to
    /// be done, or not all of it can be done yet.
    ///
    /// # Errors
    /// Why the store could not take all of it.
    pub(super) fn flush(&mut self, record: u32, begin: bool) -> Result<Option<u64>, i32> {
        if begin {
            let pieces = self.pieces(record, 0, self.size(record));
            for (piece, _) in pieces.into_iter().filter(|(_, e)| e & ENTRY_STORED == 0) {
                self.leave(record, piece, false);
            }
        }
        self.give_to_store();
        if let Some(error) = self.below.failed.remove(&record) {
            return Err(error);
        }
        if self.is_held(record) || self.below.synced == self.below.changes {
            return Ok(None);
        }
        let changes = self.below.changes;
        Ok(Some(self.below.submit(Job::Sync, After::Synced(changes))))
    }

    /// Whether pieces of the file wait to be given to the store.
    #[must_use]
    pub(super) fn is_held(&self, record: u32) -> bool {
        self.below.held.iter().any(|(held, _)| *held == record)
    }

    /// Why the store could not take a piece of the file, if that is so.
    pub(super) fn take_failure(&mut self, record: u32) -> Option<i32> {
        self.below.failed.remove(&record)
    }

    /// Copies what the store has of a piece from byte `within` on; `false`: it
    /// has nothing.
    ///
    /// # Errors
    /// `EIO`.
    pub(super) fn read_stored(
        &self,
        record: u32,
        piece: Piece,
        within: u64,
        into: &mut [u8],
    ) -> Result<bool, i32> {
        let key = match self.below.get(record, piece.index) {
            Some(Stored::There(key) | Stored::Coming { key, .. }) => *key,
            Some(Stored::Lost) => return Err(libc::EIO),
            Some(Stored::Leaving { .. }) | None => return Ok(false),
        };
        let mover = self.below.mover.as_ref().ok_or(libc::EIO)?;
        let read = mover.store.read(key, within, into);
        read.map(|()| true)
            .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// Changes a piece that has no page, in the store: `change` gets its bytes.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`.
    pub(super) fn patch_stored(
        &mut self,
        record: u32,
        piece: Piece,
        change: impl FnOnce(&mut [u8]),
    ) -> Result<(), i32> {
        if self.entry(record, piece.index).is_none() {
            return Err(libc::ENOSPC);
        }
        let mut bytes = vec![0; piece.length as usize];
        self.read_stored(record, piece, 0, &mut bytes)?;
        change(&mut bytes);
        let key = self.below.key();
        let mover = self.below.mover.as_ref().ok_or(libc::ENOSPC)?;
        let put = mover.store.put(key, Source::Bytes(&bytes));
        put.map_err(|error| error.raw_os_error().unwrap_or(libc::ENOSPC))?;
        self.forget(record, piece.index);
        self.below.changes += 1;
        self.below.put += piece.length;
        self.below.set(record, piece.index, Stored::There(key));
        if let Some(entry) = self.entry(record, piece.index) {
            entry.store(ENTRY_STORED, SeqCst);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
