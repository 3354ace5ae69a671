//! Pieces on their way between cache and store, step by step.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use super::super::arena::Arena;
use super::super::names::Attr;
use super::super::shm::Shared;
use super::super::store::{SpillFile, Store};
use super::*;

struct World {
    records: Records,
    store: Arc<SpillFile>,
    done: Receiver<Done>,
    _dir: tempfile::TempDir,
}

/// A cache of so many chunks above a store of so many bytes.
fn world(chunks: u64, store: u64) -> World {
    let shared = Arc::new(Shared::create(chunks * CHUNK, 2, 1).unwrap());
    let arena = Arc::new(Arena::new(Arc::clone(&shared)));
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SpillFile::create(dir.path(), store).unwrap());
    let (sender, done) = channel();
    let tell = Arc::new(move |done| drop(sender.send(done)));
    let below = Arc::clone(&store) as Arc<dyn Store>;
    let mover = Mover::start(below, &shared, tell).unwrap();
    let mut records = Records::new(shared, arena);
    records.set_mover(mover);
    World {
        records,
        store,
        done,
        _dir: dir,
    }
}

impl World {
    /// A file of so many chunks, each full of its number.
    fn file(&mut self, inode: u64, chunks: u64) -> u32 {
        let file = self.records.create(inode, &Attr::default()).unwrap();
        for chunk in 0..chunks {
            let bytes = vec![chunk as u8 + 1; CHUNK as usize];
            self.records.write(file, chunk * CHUNK, &bytes).unwrap();
        }
        file
    }

    /// Waits for a job of the mover.
    fn next(&mut self) -> Moved {
        let done = self.done.recv_timeout(std::time::Duration::from_secs(20));
        self.records.moved(done.unwrap())
    }

    /// Has a piece leave and come to the store.
    fn store_piece(&mut self, file: u32, piece: Piece) {
        self.records.leave(file, piece, true);
        assert!(!self.records.give_to_store());
        self.next();
    }

    fn entry(&self, file: u32, piece: Piece) -> u32 {
        self.records.entry(file, piece.index).unwrap().load(SeqCst)
    }

    fn expect_content(&self, file: u32, chunk: u64) {
        let mut content = vec![0; CHUNK as usize];
        self.records
            .read(file, chunk * CHUNK, &mut content)
            .unwrap();
        assert!(content.iter().all(|&byte| byte == chunk as u8 + 1));
    }
}

fn chunk(number: u64) -> Piece {
    Piece::at(number * CHUNK).unwrap()
}

#[test]
fn a_piece_leaves_and_comes_back_as_it_was() {
    let mut world = world(16, u64::MAX);
    let file = world.file(1, 4);
    let used = world.records.arena.usage().1;
    world.store_piece(file, chunk(2));
    assert_eq!(world.entry(file, chunk(2)), ENTRY_STORED);
    assert_eq!(world.records.allocated(file), 4 * CHUNK);
    world.expect_content(file, 2);
    assert_eq!(
        world.records.fetch(file, 2 * CHUNK, 1, Some((3, 4))),
        Ok(false)
    );
    assert_eq!(world.next().askers, [(3, 4)]);
    assert_eq!(world.records.fetch(file, 2 * CHUNK, 1, None), Ok(true));
    world.expect_content(file, 2);
    // It may leave once more without being written.
    assert!(world.records.free_stored(file, chunk(2)));
    world.expect_content(file, 2);
    world.records.release(file);
    assert!(world.records.arena.usage().1 < used);
    assert_eq!(world.records.arena.usage().1, 0);
}

#[test]
fn a_piece_is_not_taken_from_under_a_copy() {
    let mut world = world(16, u64::MAX);
    world.records.process_end = 1;
    let file = world.file(1, 2);
    let shared = Arc::clone(&world.records.shared);
    shared.process(0).generation.store(1, SeqCst);
    let slot = &shared.record(0).threads[7].hazard;
    slot.store((1 << 32) | u64::from(file + 1), SeqCst);
    world.records.leave(file, chunk(1), true);
    assert!(world.records.give_to_store());
    assert!(!world.records.is_putting());
    // A later copy of the same thread has seen the mark.
    slot.store((2 << 32) | u64::from(file + 1), SeqCst);
    assert!(!world.records.give_to_store());
    world.next();
    // But that one may be reading.
    assert_eq!(world.records.in_limbo(), CHUNK);
    slot.store(3 << 32, SeqCst);
    world.records.reap_limbo();
    assert_eq!(world.records.in_limbo(), 0);
}

#[test]
fn a_writer_has_its_piece_back_before_the_store_has_it() {
    let mut world = world(16, u64::MAX);
    let file = world.file(1, 2);
    world.records.leave(file, chunk(1), true);
    world.records.give_to_store();
    assert_eq!(world.records.grant(file, CHUNK, 10, None), Ok(true));
    assert_eq!(world.entry(file, chunk(1)) & ENTRY_STORED, 0);
    assert_eq!(world.records.coming_free(), 0);
    world.next();
    assert_ne!(page_of(world.entry(file, chunk(1))), 0);
    world.expect_content(file, 1);
    // What the store had got by then is of no use.
    world.records.below.submit(Job::Sync, After::Synced(0));
    world.next();
    assert_eq!(world.store.usage().used, 0);
}

#[test]
fn a_full_store_leaves_the_piece_in_the_cache() {
    let mut world = world(16, CHUNK);
    let file = world.file(1, 3);
    world.store_piece(file, chunk(1));
    assert!(!world.records.is_store_full());
    world.records.leave(file, chunk(2), true);
    world.records.give_to_store();
    assert!(world.next().error.is_some());
    assert!(world.records.is_store_full());
    assert_ne!(page_of(world.entry(file, chunk(2))), 0);
    world.expect_content(file, 1);
    world.expect_content(file, 2);
    world.records.release(file);
    assert!(!world.records.is_store_full());
}

#[test]
fn a_page_that_something_comes_to_is_nobody_elses() {
    let mut world = world(16, u64::MAX);
    let file = world.file(1, 2);
    world.store_piece(file, chunk(1));
    let free = world.records.arena.usage().1;
    assert_eq!(world.records.fetch(file, CHUNK, 1, None), Ok(false));
    world.records.release(file);
    assert!(world.records.arena.usage().1 > free - 2 * CHUNK);
    assert_eq!(world.next().freed, CHUNK);
    assert_eq!(world.records.arena.usage().1, 0);
}

#[test]
fn parts_that_only_the_store_has_can_be_wiped_cut_and_filled() {
    let mut world = world(16, u64::MAX);
    let file = world.file(1, 3);
    world.store_piece(file, chunk(1));
    world.records.wipe(file, CHUNK + 10, CHUNK + 20).unwrap();
    let mut content = vec![9; 30];
    world.records.read(file, CHUNK, &mut content).unwrap();
    assert_eq!(content[..10], [2; 10]);
    assert_eq!(content[10..20], [0; 10]);
    assert_eq!(content[20..], [2; 10]);
    world.records.fill(file, CHUNK + 15, &[7; 3]).unwrap();
    world.records.truncate(file, CHUNK + 17).unwrap();
    world.records.truncate(file, 2 * CHUNK).unwrap();
    world
        .records
        .read(file, CHUNK + 14, &mut content[..5])
        .unwrap();
    assert_eq!(content[..5], [0, 7, 7, 0, 0]);
}

#[test]
fn nobody_takes_lost_bytes_for_zeros() {
    let mut world = world(16, u64::MAX);
    let file = world.file(1, 3);
    world.store_piece(file, chunk(1));
    assert_eq!(world.records.give_up(file), 2 * CHUNK);
    let mut byte = [1];
    for at in [0, CHUNK, 3 * CHUNK - 1] {
        assert_eq!(world.records.read(file, at, &mut byte), Err(libc::EIO));
        assert_eq!(world.records.fetch(file, at, 1, None), Err(libc::EIO));
    }
    assert_eq!(world.records.grant(file, CHUNK, 1, None), Err(libc::EIO));
    world.records.truncate(file, 0).unwrap();
    assert_eq!(world.records.grant(file, 0, 1, None), Ok(true));
}

#[test]
fn a_sync_brings_all_to_the_store_and_takes_nothing_away() {
    let mut world = world(16, u64::MAX);
    let file = world.file(1, 3);
    let used = world.records.arena.usage().1;
    let job = world.records.flush(file, true).unwrap().unwrap();
    while world.next().synced != Some(job) {}
    assert_eq!(world.records.arena.usage().1, used);
    assert!(world.store.usage().used >= 3 * CHUNK);
    assert_eq!(world.records.flush(file, true), Ok(None));
    assert!(!world.records.is_held(file));
}

#[test]
fn a_sync_that_finds_no_room_says_so() {
    let mut world = world(16, CHUNK);
    let file = world.file(1, 3);
    let job = world.records.flush(file, true).unwrap().unwrap();
    while world.next().synced != Some(job) {}
    assert_eq!(world.records.take_failure(file), Some(libc::ENOSPC));
}
