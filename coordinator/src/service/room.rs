//! Room in the cache: what is taken away for it, and who waits for it.
//!
//! Pages go in this order: of files that nobody will read again; those that
//! every reader of an open file has passed; of files that nobody has open, the
//! ones used longest ago first, until these take a quarter of the cache; those
//! farthest ahead of the readers of open files; the rest of files that nobody has
//! open, kernel-backed ones last. Within a file the last go first, so that who
//! reads it from its start finds that in the cache. So what is written or read
//! from end to end pushes out little but itself.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use wire::layout::{ENTRY_STORED, Piece};
use wire::limits::{CHUNK, MAX_FILE_SIZE};
use wire::message::OfdId;

use super::below::{Asker, Moved};
use super::engine::{Answer, Client, Engine, Outcome};
use super::names::Inode;
use super::records::Records;
use super::store::Done;
use crate::flow::{FileId, StepId};

/// Ahead of a reader so much is left alone, in bytes.
const NEAR: u64 = 4 * CHUNK;
/// When nothing could be taken away it is tried again after this.
const REST: Duration = Duration::from_millis(20);

/// What a call waits for, as the report names it.
const FOR_ROOM: &str = "room in the cache";
const FOR_STORE: &str = "data in the store";
const FOR_SYNC: &str = "the device";

/// A file that nobody has open.
struct Idle {
    inode: Inode,
    record: u32,
    /// Steps that read it by the spec; `None`: not asked yet.
    consumers: Option<Vec<StepId>>,
    /// None of its pages is in the cache.
    is_out: bool,
}

/// A call that waits.
struct Stall {
    step: StepId,
    path: Vec<u8>,
    reason: &'static str,
    since: Instant,
}

/// An `fsync` under way.
struct Syncing {
    record: u32,
    job: Option<u64>,
    result: Option<Result<(), i32>>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Room {
    /// By when they were used last.
    idle: BTreeMap<u64, Idle>,
    /// Where a file record is in that.
    place: HashMap<u32, u64>,
    clock: u64,
    /// Number of ended steps when the idle files were looked through last.
    looked: Option<usize>,
    /// In the order in which they asked.
    waiting: VecDeque<Asker>,
    stalls: HashMap<Asker, Stall>,
    syncs: HashMap<Asker, Syncing>,
    rest_until: Option<Instant>,
    /// Files whose content was given up.
    given_up: HashSet<Inode>,
}

/// What there is to hope for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hope {
    /// There is room now.
    Now,
    /// In a while.
    Soon,
    /// Never.
    None,
}

/// How an open file is used.
#[derive(Default)]
struct Use {
    /// Offsets of those who may read.
    readers: Vec<u64>,
    writes: bool,
}

/// A page that may be taken away: the lowest goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u8,
    order: u64,
    record: u32,
    index: u32,
}

impl Room {
    /// Nobody has the file open.
    pub(super) fn is_idle(&mut self, inode: Inode, record: u32) {
        self.is_used(record);
        self.clock += 1;
        self.place.insert(record, self.clock);
        let idle = Idle {
            inode,
            record,
            consumers: None,
            is_out: false,
        };
        self.idle.insert(self.clock, idle);
        self.looked = None;
    }

    /// Somebody has the file open, or it is gone.
    pub(super) fn is_used(&mut self, record: u32) {
        if let Some(at) = self.place.remove(&record) {
            self.idle.remove(&at);
        }
    }

    /// Whether calls wait for room or the store.
    #[must_use]
    pub(super) fn has_stalls(&self) -> bool {
        !self.stalls.is_empty()
    }
}

impl Engine {
    /// Bytes that are free, for some or for all.
    fn usable_bytes(&self) -> u64 {
        let (limit, used, _) = self.arena.usage();
        limit.saturating_sub(used) + self.records.put_by()
    }

    /// Pages for a write.
    pub(super) fn grant(
        &mut self,
        client: Client,
        ofd: OfdId,
        offset: u64,
        length: u64,
        thread: u32,
    ) -> Outcome {
        let open = self.ofds.get(ofd).filter(|ofd| ofd.writes());
        let record = open.ok_or(libc::EBADF)?.record;
        let asker = (client.process, thread);
        let bytes = Piece::at(offset).map_or(CHUNK, |piece| piece.length);
        let granted = self.with_room(bytes, |records| {
            records.grant(record, offset, length, Some(asker))
        });
        self.answer_or_stall(client, ofd, thread, granted, FOR_ROOM)
    }

    /// Bytes that come back from the store for a read.
    pub(super) fn fetch(
        &mut self,
        client: Client,
        ofd: OfdId,
        offset: u64,
        length: u64,
        thread: u32,
    ) -> Outcome {
        let open = self.ofds.get(ofd).ok_or(libc::EBADF)?;
        let (record, inode) = (open.record, open.inode);
        let asker = (client.process, thread);
        let bytes = Piece::at(offset).map_or(CHUNK, |piece| piece.length);
        let fetched = self.with_room(bytes, |records| {
            records.fetch(record, offset, length, Some(asker))
        });
        if fetched == Err(libc::EIO) && self.room.given_up.contains(&inode) {
            let (step, path) = (self.flow.step_name(client.step), self.display(inode));
            self.stats.warn(format!(
                "step \"{step}\" reads {path} and gets EIO: its space was needed, as all steps \
                 that read it by the spec have ended; name this one in its input_stream, too"
            ));
        }
        self.answer_or_stall(client, ofd, thread, fetched, FOR_STORE)
    }

    /// Does what needs room; `false`: not yet.
    fn with_room(
        &mut self,
        bytes: u64,
        call: impl Fn(&mut Records) -> Result<bool, i32>,
    ) -> Result<bool, i32> {
        for _ in 0..2 {
            match call(&mut self.records) {
                Err(libc::ENOSPC) => {}
                done => {
                    self.relieve();
                    return done;
                }
            }
            match self.make_room(bytes) {
                Hope::Now => {}
                Hope::Soon => return Ok(false),
                Hope::None => return Err(libc::ENOSPC),
            }
        }
        Ok(false)
    }

    /// The answer to a call that can be done, or waits.
    fn answer_or_stall(
        &mut self,
        client: Client,
        ofd: OfdId,
        thread: u32,
        done: Result<bool, i32>,
        reason: &'static str,
    ) -> Outcome {
        let asker = (client.process, thread);
        self.room.waiting.retain(|waiting| *waiting != asker);
        if done != Ok(false) {
            self.stall_over(asker);
            return done.map(|_| Answer::Ok);
        }
        let path = self.ofds.get(ofd).map(|ofd| ofd.path.clone());
        let (step, since) = (client.step, Instant::now());
        self.room.stalls.entry(asker).or_insert_with(|| Stall {
            step,
            path: path.unwrap_or_default(),
            reason,
            since,
        });
        if reason == FOR_SYNC {
            let job = self.room.syncs.get(&asker).and_then(|sync| sync.job);
            return Ok(job.map_or(Answer::Soon, |_| Answer::Wait));
        }
        if !self.records.is_moving_pieces() {
            return Ok(Answer::Soon);
        }
        self.room.waiting.push_back(asker);
        Ok(Answer::Wait)
    }

    fn stall_over(&mut self, asker: Asker) {
        if let Some(stall) = self.room.stalls.remove(&asker) {
            let time = stall.since.elapsed();
            self.stats
                .waited(stall.step, &stall.path, stall.reason, time, 1);
        }
    }

    /// Ends what the threads of a process that is gone wait for.
    pub(super) fn forget_stalls(&mut self, process: u32) {
        self.room.waiting.retain(|(owner, _)| *owner != process);
        self.room.syncs.retain(|(owner, _), _| *owner != process);
        let askers: Vec<Asker> = self.room.stalls.keys().copied().collect();
        for asker in askers.into_iter().filter(|(owner, _)| *owner == process) {
            self.stall_over(asker);
        }
    }

    /// Stalls of this moment: process, step, path, reason, since when.
    pub(super) fn stalls(
        &self,
    ) -> impl Iterator<Item = (u32, StepId, &[u8], &'static str, Instant)> {
        let stalls = self.room.stalls.iter();
        stalls.map(|((process, _), stall)| {
            let path = stall.path.as_slice();
            (*process, stall.step, path, stall.reason, stall.since)
        })
    }

    /// `fsync(2)`: all of the file goes to the store, and from there to the
    /// device.
    pub(super) fn sync(&mut self, client: Client, ofd: OfdId, thread: u32) -> Outcome {
        let record = self.ofds.get(ofd).ok_or(libc::EBADF)?.record;
        let asker = (client.process, thread);
        if self.records.is_kernel(record) || !self.records.has_store() {
            return Ok(Answer::Ok);
        }
        let known = self.room.syncs.remove(&asker);
        let known = known.filter(|sync| sync.record == record);
        let begin = known.is_none();
        let mut sync = known.unwrap_or(Syncing {
            record,
            job: None,
            result: None,
        });
        let result = sync.result.take();
        if result.is_none() && sync.job.is_none() {
            sync.job = self.records.flush(record, begin)?;
        }
        let nothing = sync.job.is_none() && !self.records.is_held(record);
        let done = match result {
            None if nothing => Ok(true),
            None => {
                self.room.syncs.insert(asker, sync);
                Ok(false)
            }
            Some(Err(error)) => Err(error),
            Some(Ok(())) => match self.records.take_failure(record) {
                Some(error) => Err(error),
                None => Ok(true),
            },
        };
        self.answer_or_stall(client, ofd, thread, done, FOR_SYNC)
    }

    /// A job of the mover is done.
    pub(super) fn moved(&mut self, done: Done) {
        let Moved {
            askers,
            freed,
            synced,
            error,
        } = self.records.moved(done);
        if let Some((error, lost)) = &error {
            self.store_failed(error, *lost);
        }
        if let Some(job) = synced {
            self.synced(job, error.map(|(error, _)| error));
        }
        self.records.give_to_store();
        for (process, thread) in askers {
            self.shared.wake_thread(process, thread);
        }
        for _ in 0..=freed / CHUNK {
            let Some((process, thread)) = self.room.waiting.pop_front() else {
                break;
            };
            self.shared.wake_thread(process, thread);
        }
        self.relieve();
    }

    fn synced(&mut self, job: u64, error: Option<std::io::Error>) {
        let error = error.map(|error| error.raw_os_error().unwrap_or(libc::EIO));
        for (asker, sync) in &mut self.room.syncs {
            if sync.job == Some(job) {
                sync.result = Some(error.map_or(Ok(()), Err));
                self.shared.wake_thread(asker.0, asker.1);
            }
        }
    }

    fn store_failed(&mut self, error: &std::io::Error, lost: bool) {
        let store = self.config.store.as_deref();
        let place = store.map_or_else(String::new, |store| format!(" in {}", store.display()));
        let text = if lost {
            format!("the store{place} did not give data back ({error}): readers get EIO")
        } else {
            format!(
                "the store{place} takes no more ({error}): writers get ENOSPC once the cache is \
                 full; give it more room (--store, --store-size) or use a larger --cache"
            )
        };
        self.stats.warn(text);
    }

    /// Keeps an eighth of the cache free, so that writers need not wait.
    pub(super) fn relieve(&mut self) {
        let (limit, used, _) = self.arena.usage();
        let free = limit.saturating_sub(used) + self.records.coming_free();
        let wanted = limit / 8;
        let rests = self
            .room
            .rest_until
            .is_some_and(|until| until > Instant::now());
        if free >= wanted || rests || !self.records.has_store() {
            return;
        }
        self.room.rest_until = None;
        if self.take_away(wanted - free + limit / 16, false) == 0 {
            self.room.rest_until = Some(Instant::now() + REST);
        }
    }

    /// Begins to free at least `bytes`.
    pub(super) fn make_room(&mut self, bytes: u64) -> Hope {
        let before = self.usable_bytes();
        self.records.reap_limbo();
        self.records.give_to_store();
        let enough = self.records.coming_free() >= bytes && self.records.is_putting();
        if !enough && self.usable_bytes() == before {
            let (limit, ..) = self.arena.usage();
            self.take_away(bytes.max(limit / 16), true);
        }
        if self.usable_bytes() > before {
            Hope::Now
        } else if self.records.coming_free() > 0 || self.records.is_moving_pieces() {
            Hope::Soon
        } else {
            Hope::None
        }
    }

    /// Takes pages away until `bytes` of them are free or on their way to be;
    /// `urgent`: even such as are likely to be wanted soon. Bytes taken.
    fn take_away(&mut self, bytes: u64, urgent: bool) -> u64 {
        let (limit, ..) = self.arena.usage();
        let mut taken = self.take_finished();
        let mut open = self.open_candidates(urgent);
        let needed = open.split_off(open.partition_point(|one| one.rank < NEEDED));
        let far = open.split_off(open.partition_point(|one| one.rank == 0));
        taken += self.take_candidates(open, bytes.saturating_sub(taken));
        taken += self.take_idle(bytes.saturating_sub(taken), limit / 4, false);
        taken += self.take_candidates(far, bytes.saturating_sub(taken));
        taken += self.take_idle(bytes.saturating_sub(taken), 0, urgent);
        taken += self.return_idle(bytes.saturating_sub(taken));
        taken += self.take_candidates(needed, bytes.saturating_sub(taken));
        self.records.give_to_store();
        taken
    }

    /// All that nobody will read again.
    fn take_finished(&mut self) -> u64 {
        let ended = self
            .flow
            .step_ids()
            .filter(|step| self.flow.has_ended(*step));
        let ended = ended.count();
        if self.room.looked.replace(ended) == Some(ended) {
            return 0;
        }
        let mut idle = std::mem::take(&mut self.room.idle);
        let mut taken = 0;
        idle.retain(|_, idle| {
            if !self.is_finished(idle) {
                return true;
            }
            taken += self.records.give_up(idle.record);
            self.room.given_up.insert(idle.inode);
            self.room.place.remove(&idle.record);
            false
        });
        self.room.idle = idle;
        taken
    }

    /// Whether every step that reads the file by the spec has ended, and it is
    /// not kept.
    fn is_finished(&self, idle: &mut Idle) -> bool {
        let consumers = idle
            .consumers
            .get_or_insert_with(|| self.consumers_of(idle.inode));
        let read = !consumers.is_empty() && consumers.iter().all(|step| self.flow.has_ended(*step));
        read && self.flow.is_final(FileId(idle.inode)) && !self.is_kept(idle.inode)
    }

    fn consumers_of(&self, inode: Inode) -> Vec<StepId> {
        let paths = self.names.paths_of(inode).into_iter();
        let rules = paths.map(|path| self.spec.rules_for(&path));
        rules
            .flat_map(|rules| rules.consumers)
            .filter_map(|step| self.flow.step_ids().nth(step.0 as usize))
            .collect()
    }

    /// How the open files are used, by record.
    fn uses(&self) -> HashMap<u32, Use> {
        let mut uses: HashMap<u32, Use> = HashMap::new();
        for (id, ofd) in self.ofds.iter() {
            let known = uses.entry(ofd.record).or_default();
            known.writes |= ofd.writes();
            if ofd.flags & libc::O_ACCMODE != libc::O_WRONLY {
                let offset = self.shared.ofd_sync(id).offset.load(Relaxed);
                known.readers.push(offset);
            }
        }
        uses
    }

    /// Pages of open files, those first that can be spared best.
    fn open_candidates(&self, urgent: bool) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (record, known) in self.uses() {
            if self.records.is_kernel(record) {
                continue;
            }
            let size = self.records.size(record);
            for (piece, _) in self.records.backed(record, 0, MAX_FILE_SIZE) {
                let (rank, order) = rank(&known, piece, size);
                let lately = self.records.asked_at(record, piece.index);
                let (rank, order) = lately.map_or((rank, order), |at| (LATELY, at));
                if (rank < NEEDED || urgent) && !self.records.is_leaving(record, piece.index) {
                    candidates.push(Candidate {
                        rank,
                        order,
                        record,
                        index: piece.index,
                    });
                }
            }
        }
        candidates.sort_unstable();
        candidates
    }

    fn take_candidates(&mut self, candidates: Vec<Candidate>, bytes: u64) -> u64 {
        let mut taken = 0;
        for candidate in candidates {
            if taken >= bytes {
                break;
            }
            taken += self.take_page(candidate.record, Piece::number(candidate.index));
        }
        taken
    }

    /// Pages of files that nobody has open, as long as more than `kept` bytes of
    /// them are left.
    fn take_idle(&mut self, bytes: u64, kept: u64, urgent: bool) -> u64 {
        if bytes == 0 {
            return 0;
        }
        let mut pages = Vec::new();
        for idle in self.room.idle.values_mut().filter(|idle| !idle.is_out) {
            let record = idle.record;
            let backed = self.records.backed(record, 0, MAX_FILE_SIZE);
            idle.is_out = backed.is_empty() && !self.records.is_kernel(record);
            let backed = backed.into_iter().rev().map(|(piece, _)| (record, piece));
            pages.extend(backed.filter(|(_, p)| !self.records.is_leaving(record, p.index)));
        }
        let there: u64 = pages.iter().map(|(_, piece)| piece.length).sum();
        let bytes = bytes.min(there.saturating_sub(kept));
        let mut taken = 0;
        for (record, piece) in pages {
            if taken >= bytes {
                break;
            }
            if urgent || self.records.asked_at(record, piece.index).is_none() {
                taken += self.take_page(record, piece);
            }
        }
        taken
    }

    /// Kernel-backed files that nobody has open.
    fn return_idle(&mut self, bytes: u64) -> u64 {
        if !self.records.has_store() || self.records.is_store_full() {
            return 0;
        }
        let records: Vec<u32> = self.room.idle.values().map(|idle| idle.record).collect();
        let mut taken = 0;
        for record in records {
            if taken >= bytes {
                break;
            }
            taken += self.records.begin_return(record);
        }
        taken
    }

    /// Takes one page away, or begins to.
    fn take_page(&mut self, record: u32, piece: Piece) -> u64 {
        let entry = self.records.entry(record, piece.index);
        let stored = entry.is_some_and(|entry| entry.load(Relaxed) & ENTRY_STORED != 0);
        if stored && self.records.free_stored(record, piece) {
            return piece.length;
        }
        if !self.records.has_store() || self.records.is_store_full() {
            return 0;
        }
        self.records.leave(record, piece, true);
        piece.length
    }

    /// Work of the store that time brings.
    pub(super) fn tick_room(&mut self) {
        self.records.give_to_store();
        self.relieve();
    }
}

/// From this rank on pages are taken only when there are no others.
const NEEDED: u8 = 2;
/// Rank of pages that somebody has asked for lately.
const LATELY: u8 = 3;

/// How well a page of an open file can be spared, and in which order among its
/// like: the lowest first.
fn rank(known: &Use, piece: Piece, size: u64) -> (u8, u64) {
    let end = piece.start + piece.length;
    let last_first = u64::MAX - piece.start;
    let is_passed = known.readers.iter().all(|offset| *offset >= end);
    if is_passed && !known.readers.is_empty() {
        return (0, last_first);
    }
    if known.writes && end >= size {
        // Where the writer is.
        return (NEEDED, last_first);
    }
    let before = known.readers.iter().filter(|offset| **offset < end);
    let distance = before
        .map(|offset| piece.start.saturating_sub(*offset))
        .min();
    let distance = distance.unwrap_or(piece.start);
    let is_near = !known.readers.is_empty() && distance < NEAR;
    (if is_near { NEEDED } else { 1 }, u64::MAX - distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(readers: &[u64], writes: bool, chunks: u64) -> Vec<u8> {
        let known = Use {
            readers: readers.to_vec(),
            writes,
        };
        let size = chunks * CHUNK;
        let piece = |at| Piece::at(at * CHUNK).unwrap();
        (1..chunks)
            .map(|at| rank(&known, piece(at), size).0)
            .collect()
    }

    #[test]
    fn what_every_reader_has_passed_goes_first_and_what_is_next_last() {
        let passed = ranks(&[3 * CHUNK, 8 * CHUNK], false, 16);
        assert_eq!(passed[..2], [0, 0]);
        assert!(passed[2..6].iter().all(|rank| *rank == NEEDED));
        let far = ranks(&[0], true, 16);
        assert_eq!(far[..3], [NEEDED; 3]);
        assert!(far[4..14].iter().all(|rank| *rank == 1));
        assert_eq!(far[14], NEEDED);
    }

    #[test]
    fn of_a_file_without_readers_the_start_stays_longest() {
        let known = Use {
            readers: Vec::new(),
            writes: true,
        };
        let at = |chunk: u64| rank(&known, Piece::at(chunk * CHUNK).unwrap(), 90 * CHUNK);
        assert!(at(80) < at(70) && at(70) < at(1));
    }
}
