//! The cache's memory: which parts of the arena are free.
//!
//! Two pools share it. The *large* pool hands out whole chunks of 2 MiB. The
//! *small* pool splits chunks up by halves (a buddy allocator, 4 KiB to 1 MiB)
//! and gives them back when all their parts are free again, all but one: files that
//! come and go must not have a chunk zeroed each time.
//!
//! What is handed out reads as zeros and is backed by memory. A thread of its
//! own keeps some chunks ready ahead of need, as faulting one in takes longer
//! than filling it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use wire::limits::{CHUNK, PAGE};

use super::halves::{CHUNK_PAGES, Halves, order_of};
use super::shm::Shared;

/// Chunks that the background thread keeps ready, at most: a gibibyte.
const READY: usize = 512;
/// Priority of that thread (`nice`): programs come first; who finds no chunk
/// ready makes one.
const NICE: i32 = 10;

/// A power of two of pages: `page` is its number in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Number of the first page.
    pub page: u32,
    /// Bytes: a power of two from 4 KiB to 2 MiB.
    pub bytes: u64,
}

#[derive(Default)]
struct State {
    /// Chunks never used start here.
    fresh: u32,
    chunks: u32,
    /// Chunks that could not be backed: tried again when all else is used.
    unbacked: Vec<u32>,
    /// Backed and zero.
    ready: Vec<u32>,
    /// Backed, with old content.
    dirty: Vec<u32>,
    /// Free parts of split chunks.
    parts: Halves,
    /// A chunk with old content, to be split next.
    spare: Option<u32>,
    used: u64,
    peak: u64,
    /// Chunks that stand for memory elsewhere.
    lent: Vec<u32>,
    /// Chunks that the background thread is making ready right now.
    coming: u32,
    stop: bool,
}

/// The allocator.
pub(super) struct Arena {
    shared: Arc<Shared>,
    state: Mutex<State>,
    wanted: Condvar,
    came: Condvar,
    ready_target: usize,
}

impl Arena {
    /// An allocator of the whole arena of `shared`.
    #[must_use]
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let chunks = (shared.arena.bytes() / CHUNK) as u32;
        let state = State {
            chunks,
            ..State::default()
        };
        let ready_target = READY.min(chunks as usize / 4);
        Self {
            shared,
            state: Mutex::new(state),
            wanted: Condvar::new(),
            came: Condvar::new(),
            ready_target,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limit, use and highest use so far, in bytes.
    #[must_use]
    pub(super) fn usage(&self) -> (u64, u64, u64) {
        let state = self.state();
        (u64::from(state.chunks) * CHUNK, state.used, state.peak)
    }

    /// Takes `bytes` (a power of two, 4 KiB to 2 MiB); `None` when the cache is
    /// full or the machine has no memory left.
    #[must_use]
    pub(super) fn take(&self, bytes: u64) -> Option<Run> {
        let mut state = self.state();
        let run = loop {
            let taken = if bytes == CHUNK {
                let chunk = self.take_chunk(&mut state);
                chunk.map(|chunk| Run {
                    page: chunk * CHUNK_PAGES,
                    bytes,
                })
            } else {
                self.take_part(&mut state, bytes)
            };
            match taken {
                Some(run) => break run,
                None if state.coming == 0 => return None,
                // The last chunks are in the hands of the background thread.
                None => {
                    state = self
                        .came
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        state.used += bytes;
        state.peak = state.peak.max(state.used);
        if state.ready.len() < self.ready_target / 2 {
            self.wanted.notify_one();
        }
        Some(run)
    }

    fn take_chunk(&self, state: &mut State) -> Option<u32> {
        if let Some(chunk) = state.ready.pop() {
            return Some(chunk);
        }
        let (chunk, dirty) =
            next_unready(state).or_else(|| state.spare.take().map(|chunk| (chunk, true)))?;
        if self.prepare(chunk, dirty) {
            return Some(chunk);
        }
        state.unbacked.push(chunk);
        None
    }

    /// Makes a chunk backed and zero.
    fn prepare(&self, chunk: u32, dirty: bool) -> bool {
        let offset = u64::from(chunk) * CHUNK;
        if dirty {
            self.shared.arena.zero(offset, CHUNK);
            return true;
        }
        self.shared.back_arena(offset, CHUNK).is_ok()
    }

    fn take_part(&self, state: &mut State, bytes: u64) -> Option<Run> {
        let order = order_of(bytes);
        if let Some(page) = state.parts.take(order) {
            self.shared.arena.zero(u64::from(page) * PAGE, bytes);
            return Some(Run { page, bytes });
        }
        let (chunk, dirty) = match state.spare.take() {
            Some(chunk) => (chunk, true),
            None => (self.take_chunk(state)?, false),
        };
        let page = state.parts.take_from(chunk, order);
        if dirty {
            self.shared.arena.zero(u64::from(page) * PAGE, bytes);
        }
        Some(Run { page, bytes })
    }

    /// Gives a run back. Nobody may be reading or writing it any more.
    pub(super) fn give(&self, run: Run) {
        let mut state = self.state();
        state.used = state.used.saturating_sub(run.bytes);
        let chunk = if run.bytes == CHUNK {
            run.page / CHUNK_PAGES
        } else {
            let Some(whole) = state.parts.give(run.page, order_of(run.bytes)) else {
                return;
            };
            let Some(second) = state.spare.replace(whole) else {
                return;
            };
            second
        };
        state.dirty.push(chunk);
        if state.ready.len() < self.ready_target {
            self.wanted.notify_one();
        }
    }

    /// Takes chunks out of the arena for as much memory elsewhere, so that the
    /// cache stays within its limit; `false`: there are not as many free.
    #[must_use]
    pub(super) fn lend(&self, chunks: u32) -> bool {
        let mut state = self.state();
        let mut taken = Vec::new();
        while (taken.len() as u32) < chunks {
            if let Some(chunk) = unbacked(&mut state) {
                taken.push(chunk);
            } else if let Some(chunk) = backed(&mut state) {
                self.shared.unback_arena(u64::from(chunk) * CHUNK, CHUNK);
                taken.push(chunk);
            } else if state.coming > 0 {
                state = self
                    .came
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            } else {
                state.unbacked.append(&mut taken);
                return false;
            }
        }
        state.used += u64::from(chunks) * CHUNK;
        state.peak = state.peak.max(state.used);
        state.lent.append(&mut taken);
        true
    }

    /// Takes chunks back that were lent.
    pub(super) fn repay(&self, chunks: u32) {
        let mut state = self.state();
        let from = state.lent.len().saturating_sub(chunks as usize);
        let mut back = state.lent.split_off(from);
        state.used = state.used.saturating_sub(back.len() as u64 * CHUNK);
        state.unbacked.append(&mut back);
        self.wanted.notify_one();
    }

    /// Starts the thread that keeps chunks ready; [`Arena::stop`] ends it.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let arena = Arc::clone(self);
        std::thread::Builder::new()
            .name("capio-pages".into())
            .spawn(move || {
                // SAFETY: integers; 0 is the calling thread. Should it fail,
                // the priority stays as it is.
                unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
                arena.keep_ready();
            })
    }

    /// Ends the background thread.
    pub(super) fn stop(&self) {
        self.state().stop = true;
        self.wanted.notify_all();
    }

    fn keep_ready(&self) {
        let mut state = self.state();
        while !state.stop {
            let enough = state.ready.len() >= self.ready_target;
            let Some((chunk, dirty)) = (if enough {
                None
            } else {
                next_unready(&mut state)
            }) else {
                state = self
                    .wanted
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.coming += 1;
            drop(state);
            let done = self.prepare(chunk, dirty);
            if done {
                self.shared.arena.touch(u64::from(chunk) * CHUNK, CHUNK);
            }
            state = self.state();
            state.coming -= 1;
            self.came.notify_all();
            if done {
                state.ready.push(chunk);
            } else {
                state.unbacked.push(chunk);
                state = self
                    .wanted
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Takes a chunk that has no memory yet.
fn unbacked(state: &mut State) -> Option<u32> {
    state.unbacked.pop().or_else(|| {
        (state.fresh < state.chunks).then(|| {
            state.fresh += 1;
            state.fresh - 1
        })
    })
}

/// Takes a free chunk that has memory, whatever its content.
fn backed(state: &mut State) -> Option<u32> {
    let dirty = state.dirty.pop().or_else(|| state.ready.pop());
    dirty.or_else(|| state.spare.take())
}

/// Takes a chunk that is not ready, and whether it has old content.
fn next_unready(state: &mut State) -> Option<(u32, bool)> {
    if let Some(chunk) = state.dirty.pop() {
        return Some((chunk, true));
    }
    if state.fresh < state.chunks {
        state.fresh += 1;
        return Some((state.fresh - 1, false));
    }
    state.unbacked.pop().map(|chunk| (chunk, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(chunks: u64) -> Arena {
        let shared = Shared::create(chunks * CHUNK, 2, 1).unwrap();
        Arena::new(Arc::new(shared))
    }

    #[test]
    fn a_full_cache_says_so_and_can_be_filled_again() {
        let arena = arena(3);
        for _ in 0..3 {
            let runs: Vec<_> = std::iter::from_fn(|| arena.take(CHUNK)).collect();
            assert_eq!(runs.len(), 3);
            assert_eq!(arena.usage().1, 3 * CHUNK);
            runs.into_iter().for_each(|run| arena.give(run));
            assert_eq!(arena.usage().1, 0);
        }
    }

    #[test]
    fn a_small_file_that_comes_and_goes_has_no_chunk_zeroed() {
        let arena = arena(4);
        let places: Vec<_> = (0..5)
            .map(|_| {
                let run = arena.take(PAGE).unwrap();
                arena.give(run);
                (run.page, arena.state().dirty.len())
            })
            .collect();
        assert_eq!(places, [places[0]; 5]);
        assert_eq!(places[0].1, 0);
        let all: Vec<_> = std::iter::from_fn(|| arena.take(CHUNK)).collect();
        assert_eq!(all.len(), 4, "the spare chunk is of use for all else, too");
        all.into_iter().for_each(|run| arena.give(run));
        let run = arena.take(PAGE).unwrap();
        arena.give(run);
        assert!(arena.lend(4));
    }

    #[test]
    fn small_runs_share_a_chunk_and_melt_back_together() {
        let arena = arena(1);
        let sizes = [PAGE, PAGE, 2 * PAGE, 1 << 20, 4 * PAGE];
        let runs: Vec<_> = sizes
            .iter()
            .map(|&bytes| arena.take(bytes).unwrap())
            .collect();
        let mut spans: Vec<_> = runs
            .iter()
            .map(|r| (u64::from(r.page) * PAGE, r.bytes))
            .collect();
        spans.sort_unstable();
        assert!(spans.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
        assert!(arena.take(CHUNK).is_none());
        runs.into_iter().for_each(|run| arena.give(run));
        assert!(arena.take(CHUNK).is_some());
    }

    #[test]
    fn a_recycled_run_shows_nothing_of_its_last_file() {
        let arena = arena(1);
        for bytes in [PAGE, 8 * PAGE, CHUNK] {
            let run = arena.take(bytes).unwrap();
            assert!(
                arena
                    .shared
                    .arena
                    .write(u64::from(run.page) * PAGE, &[7; 4096])
            );
            arena.give(run);
            let again = arena.take(bytes).unwrap();
            let mut content = vec![1; bytes as usize];
            assert!(
                arena
                    .shared
                    .arena
                    .read(u64::from(again.page) * PAGE, &mut content)
            );
            assert!(content.iter().all(|&byte| byte == 0));
            arena.give(again);
        }
    }
}
