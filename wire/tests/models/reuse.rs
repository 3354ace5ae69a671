//! Records of descriptions and files are used again: a call that was under way when
//! its descriptor was closed by another thread does not reach the next file.

use std::sync::atomic::Ordering::SeqCst;

use loom::thread;
use std::sync::Arc;
use wire::protocol::{Word, hazard};

use crate::world::{Memory, NoBarriers, Sound, Strength, W32, W64, explore, wait_for_copies};

/// File record of the description.
const FILE: u32 = 4;
const MINE: u32 = 1;
const OTHER: u32 = 2;

struct World<S> {
    /// Of the description: odd while it is open.
    generation: W32<S>,
    slots: [W64<S>; 1],
    /// What lies in the file record's page; it is the next file's after a reuse.
    page: Memory,
}

impl<S: Strength> World<S> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            generation: W32::new(1),
            slots: [W64::new(0)],
            page: Memory::new(0),
        })
    }

    /// A write by a descriptor that shows generation 1.
    fn write(&self, looks_again: bool) {
        if self.generation.load(SeqCst) != 1 {
            return;
        }
        hazard::enter_alone(&self.slots[0], FILE);
        if !looks_again || hazard::change(&self.generation, 1) == 0 {
            self.page.write(MINE);
        }
        hazard::leave(&self.slots[0]);
    }

    /// The last close, and another file in the same records.
    fn close_and_reuse(&self, waits: bool) {
        hazard::ends(&self.generation);
        if waits {
            wait_for_copies(&self.slots, FILE);
        }
        self.page.write(OTHER);
    }
}

fn a_write_while_its_descriptor_is_closed<S: Strength>(looks_again: bool, waits: bool) {
    explore(None, move || {
        let world = World::<S>::new();
        let other = Arc::clone(&world);
        let writer = thread::spawn(move || other.write(looks_again));
        world.close_and_reuse(waits);
        writer.join().unwrap();
        assert_eq!(world.page.read(), OTHER, "another file is spoilt");
    });
}

#[test]
fn a_write_whose_descriptor_is_closed_meanwhile_spoils_no_other_file() {
    a_write_while_its_descriptor_is_closed::<Sound>(true, true);
}

#[test]
#[should_panic(expected = "another file is spoilt")]
fn the_model_finds_a_call_that_does_not_look_again() {
    a_write_while_its_descriptor_is_closed::<Sound>(false, true);
}

#[test]
#[should_panic(expected = "another file is spoilt")]
fn the_model_finds_a_record_that_is_used_again_under_a_copy() {
    a_write_while_its_descriptor_is_closed::<Sound>(true, false);
}

#[test]
#[should_panic(expected = "another file is spoilt")]
fn the_model_finds_a_close_that_is_not_seen_without_a_barrier() {
    a_write_while_its_descriptor_is_closed::<NoBarriers>(true, true);
}
