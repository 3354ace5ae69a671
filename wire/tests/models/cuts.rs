//! Grants and truncation: what a write has written is there after it, or was cut off
//! with the rest; never is there a size without the bytes.

use std::sync::atomic::Ordering::{Acquire, SeqCst};

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;
use wire::protocol::stream::Stream;
use wire::protocol::{Word, hazard, moving, piece};

use crate::world::{Memory, NoBarriers, Sound, Strength, W32, W64, explore, wait_for_copies};

const FILE: u32 = 0;
const MINE: u32 = 5;

struct World<S> {
    flags: W32<S>,
    withheld: W64<S>,
    size: W64<S>,
    frontier: W64<S>,
    wake: W32<S>,
    waiters: W32<S>,
    entry: W32<S>,
    slots: [W64<S>; 1],
    pages: [Memory; 2],
    /// The coordinator does one thing at a time; pages that it has still.
    coordinator: Mutex<Vec<u32>>,
}

impl<S: Strength> World<S> {
    fn new(entry: u32) -> Arc<Self> {
        Arc::new(Self {
            flags: W32::new(0),
            withheld: W64::new(u64::MAX),
            size: W64::new(0),
            frontier: W64::new(0),
            wake: W32::new(0),
            waiters: W32::new(0),
            entry: W32::new(entry),
            slots: [W64::new(0)],
            pages: [Memory::new(0), Memory::new(0)],
            coordinator: Mutex::new(if entry == 0 { vec![1, 2] } else { vec![2] }),
        })
    }

    fn grant(&self) {
        let mut pages = self.coordinator.lock().unwrap();
        if self.entry.load(SeqCst) == 0
            && let Some(page) = pages.pop()
        {
            piece::put_under(&self.entry, page);
        }
    }

    /// Writes one byte at the start.
    fn write(&self) {
        let slot = &self.slots[0];
        loop {
            hazard::enter_alone(slot, FILE);
            let free = moving::elsewhere(&self.flags) == 0;
            let page = piece::writable(&self.entry);
            if free && page != 0 {
                self.pages[page as usize - 1].write(MINE);
                let stream = Stream {
                    flags: &self.flags,
                    withheld: &self.withheld,
                    size: &self.size,
                    frontier: &self.frontier,
                    wake: &self.wake,
                    waiters: &self.waiters,
                };
                stream.publish(0, 1, || {});
                hazard::leave(slot);
                return;
            }
            hazard::leave(slot);
            if free {
                self.grant();
            } else {
                thread::yield_now();
            }
        }
    }

    /// Cuts the file to nothing.
    fn cut(&self, wait: bool) {
        let _alone = self.coordinator.lock().unwrap();
        if wait {
            moving::hold(&self.flags);
            wait_for_copies(&self.slots, FILE);
        }
        self.size.store(0, SeqCst);
        self.frontier.fetch_min(0, SeqCst);
        piece::take_away(&self.entry, 0);
        if wait {
            moving::let_go(&self.flags, false);
        }
    }

    fn check(&self) {
        let entry = self.entry.load(SeqCst);
        let byte = entry
            .checked_sub(1)
            .map(|page| self.pages[page as usize].read());
        if self.size.load(Acquire) == 1 {
            assert_eq!(byte, Some(MINE), "a size without the bytes");
        }
        assert!(self.frontier.load(Acquire) <= self.size.load(Acquire));
    }
}

fn a_writer_while_the_file_is_cut<S: Strength>(entry: u32, wait: bool) {
    explore(Some(4), move || {
        let world = World::<S>::new(entry);
        let other = Arc::clone(&world);
        let writer = thread::spawn(move || other.write());
        world.cut(wait);
        writer.join().unwrap();
        world.check();
    });
}

#[test]
fn a_write_is_whole_or_cut_off() {
    a_writer_while_the_file_is_cut::<Sound>(1, true);
}

#[test]
fn a_write_to_a_page_just_granted_is_whole_or_cut_off() {
    a_writer_while_the_file_is_cut::<Sound>(0, true);
}

#[test]
#[should_panic(expected = "a size without the bytes")]
fn the_model_finds_a_cut_under_a_copy() {
    a_writer_while_the_file_is_cut::<Sound>(1, false);
}

#[test]
#[should_panic(expected = "a size without the bytes")]
fn the_model_finds_a_cut_that_a_writer_does_not_see_without_a_barrier() {
    a_writer_while_the_file_is_cut::<NoBarriers>(1, true);
}
