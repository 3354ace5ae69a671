//! A writer dies after any of its steps: nothing of its call is seen, what it held
//! is free, and who takes it next keeps what he writes.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use loom::thread;
use std::sync::Arc;
use wire::layout::Owner;
use wire::protocol::{Word, hazard, owner};

use crate::world::{Memory, Sound, Strength, W32, W64, explore};

const FILE: u32 = 0;

struct World<S> {
    word: W32<S>,
    size: W64<S>,
    bytes: [Memory; 2],
    /// Of the process that dies: generation, hazard slot and range.
    generation: W32<S>,
    slot: W64<S>,
    start: W64<S>,
    end: W64<S>,
}

const DEAD: u32 = 1;
const ALIVE: u32 = 2;
/// After how many steps it dies.
const STEPS: usize = 8;

impl<S: Strength> World<S> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            word: W32::new(0),
            size: W64::new(0),
            bytes: [Memory::new(0), Memory::new(0)],
            generation: W32::new(1),
            slot: W64::new(0),
            start: W64::new(0),
            end: W64::new(0),
        })
    }

    /// Appends two bytes, or as much of that as it can do in `steps`.
    fn append_and_die(&self, steps: usize) {
        let tag = Owner::new(0, 1, 0).0;
        let all: [&dyn Fn(); STEPS] = [
            &|| hazard::enter(&self.slot, FILE),
            &|| assert!(owner::take(&self.word, tag)),
            &|| self.start.store(0, Relaxed),
            &|| self.end.store(2, Release),
            &|| self.bytes[0].write(DEAD),
            &|| self.bytes[1].write(DEAD),
            &|| {
                self.size.fetch_max(2, Release);
            },
            &|| self.end.store(0, Release),
        ];
        all[..steps].iter().for_each(|step| step());
    }

    /// The coordinator learns of the death.
    fn reclaim(&self) {
        if hazard::is_of(&self.slot, FILE).is_some() {
            let from = self.start.load(SeqCst).max(self.size.load(Acquire));
            for byte in from..self.end.load(SeqCst) {
                self.bytes[byte as usize].write(0);
            }
        }
    }

    fn free(&self) {
        self.generation.store(2, SeqCst);
    }

    /// Appends one byte, as soon as it can; where.
    fn append(&self) -> usize {
        let tag = Owner::new(1, 1, 0).0;
        let orphaned =
            |owner: Owner| owner.process() == 0 && !owner.is_of(self.generation.load(SeqCst));
        while owner::contend(&self.word, tag, false, 0, orphaned, || {}).is_err() {
            thread::yield_now();
        }
        let at = self.size.load(Acquire).min(1);
        self.bytes[at as usize].write(ALIVE);
        self.size.fetch_max(at + 1, Release);
        let freed = owner::release(&self.word, tag) || owner::release_waited(&self.word, tag);
        assert!(freed, "the word is held for ever");
        at as usize
    }
}

/// The death of one and the append of another; `reclaim` is the coordinator's.
fn an_appender_dies(steps: usize, reclaim: fn(&World<Sound>)) {
    explore(Some(3), move || {
        let world = World::<Sound>::new();
        world.append_and_die(steps);
        let published = world.size.load(Acquire);
        let heir = Arc::clone(&world);
        let heir = thread::spawn(move || heir.append());
        reclaim(&world);
        let at = heir.join().unwrap();
        assert_eq!(world.bytes[at].read(), ALIVE, "an append is lost");
        if published == 0 {
            let size = world.size.load(Acquire) as usize;
            let seen = &world.bytes[..size];
            assert!(seen.iter().all(|byte| byte.read() != DEAD), "half a record");
            assert_ne!(world.bytes[1].read(), DEAD, "half a record");
        }
    });
}

#[test]
fn nothing_is_seen_or_lost_when_an_appender_is_killed_at_any_step() {
    for steps in 0..=STEPS {
        // Without the word it holds nobody up, and has written nothing.
        an_appender_dies(steps, |world| {
            world.reclaim();
            world.free();
        });
    }
}

#[test]
#[should_panic(expected = "an append is lost")]
fn the_model_finds_a_word_that_is_freed_before_the_rest_is_wiped() {
    an_appender_dies(6, |world| {
        world.free();
        world.reclaim();
    });
}

#[test]
#[should_panic(expected = "half a record")]
fn the_model_finds_what_is_not_wiped() {
    an_appender_dies(6, World::free);
}
