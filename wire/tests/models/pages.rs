//! Pages leave the cache: nobody writes to a page that the store was given, and
//! nobody finds the bytes of another file in one.

use std::sync::atomic::Ordering::SeqCst;

use loom::thread;
use std::sync::Arc;
use wire::layout::ENTRY_STORED;
use wire::protocol::{Word, hazard, piece};

use crate::world::wait_for_copies;
use crate::world::{Memory, NoBarriers, Sound, Strength, Unordered, W32, W64, explore};

const FILE: u32 = 7;
/// The page's number + 1.
const PAGE: u32 = 1;
const OLD: u32 = 10;
const NEW: u32 = 11;
const FOREIGN: u32 = 99;

struct World<S> {
    entry: W32<S>,
    slots: [W64<S>; 2],
    page: Memory,
}

impl<S: Strength> World<S> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            entry: W32::new(PAGE),
            slots: [W64::new(0), W64::new(0)],
            page: Memory::new(OLD),
        })
    }

    /// Whether it could write without asking.
    fn write(&self) -> bool {
        let slot = &self.slots[0];
        hazard::enter_alone(slot, FILE);
        let may = piece::writable(&self.entry) == PAGE;
        if may {
            self.page.write(NEW);
        }
        hazard::leave(slot);
        may
    }

    /// What it reads, if the page is there.
    fn read(&self) -> Option<u32> {
        let slot = &self.slots[1];
        hazard::enter_alone(slot, FILE);
        let there = piece::readable(&self.entry) == PAGE;
        let read = there.then(|| self.page.read());
        hazard::leave(slot);
        read
    }

    /// The store is given the piece; what it got.
    fn store(&self) -> u32 {
        assert!(piece::mark(&self.entry));
        wait_for_copies(&self.slots, FILE);
        self.page.read()
    }

    /// The page goes to another file.
    fn evict(&self) {
        piece::take_away(&self.entry, ENTRY_STORED);
        wait_for_copies(&self.slots, FILE);
        self.page.write(FOREIGN);
    }
}

fn a_writer_while_the_piece_leaves<S: Strength>(
    store: impl Fn(&World<S>) -> u32 + Copy + Send + Sync + 'static,
) {
    explore(None, move || {
        let world = World::<S>::new();
        let other = Arc::clone(&world);
        let writer = thread::spawn(move || other.write());
        let stored = store(&world);
        let wrote = writer.join().unwrap();
        assert_eq!(world.page.read(), stored, "the store has something else");
        assert_eq!(wrote, stored == NEW, "the store has something else");
    });
}

#[test]
fn the_store_has_what_was_written_last() {
    a_writer_while_the_piece_leaves::<Sound>(World::store);
}

#[test]
#[should_panic(expected = "the store has something else")]
fn the_model_finds_a_writer_that_does_not_see_the_mark() {
    a_writer_while_the_piece_leaves::<NoBarriers>(World::store);
}

#[test]
#[should_panic(expected = "the store has something else")]
fn the_model_finds_a_copy_whose_end_is_seen_before_its_bytes() {
    a_writer_while_the_piece_leaves::<Unordered>(World::store);
}

#[test]
#[should_panic(expected = "the store has something else")]
fn the_model_finds_a_store_that_is_given_a_piece_before_it_is_marked() {
    a_writer_while_the_piece_leaves::<Sound>(|world| {
        wait_for_copies(&world.slots, FILE);
        let stored = world.page.read();
        piece::mark(&world.entry);
        stored
    });
}

fn a_reader_while_the_page_goes<S: Strength>(
    evict: impl Fn(&World<S>) + Copy + Send + Sync + 'static,
) {
    explore(None, move || {
        let world = World::<S>::new();
        let other = Arc::clone(&world);
        let reader = thread::spawn(move || {
            let read = other.read();
            assert!(
                matches!(read, None | Some(OLD)),
                "bytes of another file: {read:?}"
            );
        });
        evict(&world);
        reader.join().unwrap();
    });
}

#[test]
fn a_reader_never_finds_bytes_of_another_file() {
    a_reader_while_the_page_goes::<Sound>(World::evict);
}

#[test]
#[should_panic(expected = "bytes of another file")]
fn the_model_finds_a_page_that_is_reused_under_a_reader_without_a_barrier() {
    a_reader_while_the_page_goes::<NoBarriers>(World::evict);
}

#[test]
#[should_panic(expected = "bytes of another file")]
fn the_model_finds_a_page_that_is_reused_before_its_readers_have_left() {
    a_reader_while_the_page_goes::<Sound>(|world| {
        wait_for_copies(&world.slots, FILE);
        piece::take_away(&world.entry, ENTRY_STORED);
        world.page.write(FOREIGN);
    });
}

#[test]
#[should_panic(expected = "bytes of another file")]
fn the_model_finds_a_reader_that_looks_for_the_page_before_it_is_known() {
    explore(None, || {
        let world = World::<Sound>::new();
        let other = Arc::clone(&world);
        let reader = thread::spawn(move || {
            let there = piece::readable(&other.entry) == PAGE;
            hazard::enter_alone(&other.slots[1], FILE);
            let read = there.then(|| other.page.read());
            hazard::leave(&other.slots[1]);
            assert!(
                matches!(read, None | Some(OLD)),
                "bytes of another file: {read:?}"
            );
        });
        world.evict();
        reader.join().unwrap();
    });
}

/// All of it: the piece is stored, its page goes, and it comes back.
#[test]
fn a_piece_that_leaves_and_comes_back_is_the_same_for_all() {
    explore(Some(2), || {
        let world = World::<Sound>::new();
        let (writes, reads) = (Arc::clone(&world), Arc::clone(&world));
        let writer = thread::spawn(move || writes.write());
        let reader = thread::spawn(move || {
            let read = reads.read();
            assert!(matches!(read, None | Some(OLD | NEW)), "read {read:?}");
        });
        let stored = world.store();
        world.evict();
        world.page.write(stored);
        piece::put_under(&world.entry, PAGE | ENTRY_STORED);
        reader.join().unwrap();
        let wrote = writer.join().unwrap();
        let last = if wrote { NEW } else { OLD };
        assert_eq!(world.read(), Some(last));
        piece::unmark(&world.entry);
        assert_eq!(world.entry.load(SeqCst), PAGE);
    });
}
