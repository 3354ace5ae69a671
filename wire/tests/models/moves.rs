//! A file moves into an inode of its own: no write goes to where its bytes are not
//! any more.

use loom::thread;
use std::sync::Arc;
use wire::layout::{FILE_KERNEL, FILE_MOVING};
use wire::protocol::{hazard, moving};

use crate::world::{Memory, NoBarriers, Sound, Strength, W32, W64, explore, wait_for_copies};

const FILE: u32 = 3;

struct World<S> {
    flags: W32<S>,
    slots: [W64<S>; 1],
    arena: Memory,
    inode: Memory,
}

impl<S: Strength> World<S> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            flags: W32::new(0),
            slots: [W64::new(0)],
            arena: Memory::new(0),
            inode: Memory::new(0),
        })
    }

    fn write(&self, value: u32) {
        loop {
            hazard::enter_alone(&self.slots[0], FILE);
            let elsewhere = moving::elsewhere(&self.flags);
            match elsewhere {
                0 => self.arena.write(value),
                FILE_KERNEL => self.inode.write(value),
                _ => {}
            }
            hazard::leave(&self.slots[0]);
            if elsewhere & FILE_MOVING == 0 {
                return;
            }
            thread::yield_now();
        }
    }

    fn copy(&self) {
        self.inode.write(self.arena.read());
    }
}

fn a_writer_while_the_file_moves<S: Strength>(go: fn(&World<S>)) {
    explore(Some(4), move || {
        let world = World::<S>::new();
        let other = Arc::clone(&world);
        let writer = thread::spawn(move || {
            other.write(1);
            other.write(2);
        });
        go(&world);
        writer.join().unwrap();
        assert_eq!(world.inode.read(), 2, "a write is lost");
    });
}

#[test]
fn no_write_is_lost_while_a_file_moves() {
    a_writer_while_the_file_moves::<Sound>(|world| {
        moving::hold(&world.flags);
        wait_for_copies(&world.slots, FILE);
        world.copy();
        moving::let_go(&world.flags, true);
    });
}

#[test]
#[should_panic(expected = "a write is lost")]
fn the_model_finds_a_write_to_where_the_file_was_without_a_barrier() {
    a_writer_while_the_file_moves::<NoBarriers>(|world| {
        moving::hold(&world.flags);
        wait_for_copies(&world.slots, FILE);
        world.copy();
        moving::let_go(&world.flags, true);
    });
}

#[test]
#[should_panic(expected = "a write is lost")]
fn the_model_finds_a_move_that_does_not_wait_for_copies() {
    a_writer_while_the_file_moves::<Sound>(|world| {
        moving::hold(&world.flags);
        world.copy();
        moving::let_go(&world.flags, true);
    });
}
