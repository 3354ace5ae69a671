//! Owner words: one holder at a time, everybody gets his turn, and a dead owner's
//! word is taken over by one only.

use std::sync::atomic::Ordering::SeqCst;

use loom::thread;
use std::sync::Arc;
use wire::layout::Owner;
use wire::protocol::{Word, owner};

use crate::world::{Futex, Memory, Sound, Strength, Unordered, W32, explore};

struct World<S> {
    word: W32<S>,
    sleepers: Futex,
    /// What is done under the word.
    count: Memory,
    /// Life of process 0: odd while it lives.
    generation: W32<S>,
}

fn tag(process: u32) -> u32 {
    Owner::new(process, 1, 0).0
}

impl<S: Strength> World<S> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            word: W32::new(0),
            sleepers: Futex::new(),
            count: Memory::new(0),
            generation: W32::new(1),
        })
    }

    /// As `Hold::of_word` does; the nap ends by a wake-up alone.
    fn take(&self, process: u32, marks: bool) {
        if owner::take(&self.word, tag(process)) {
            return;
        }
        let mut waited = false;
        let nobody = |_| false;
        while let Err(seen) =
            owner::contend(&self.word, tag(process), waited && marks, 0, nobody, || {})
        {
            self.sleepers.wait(&self.word, seen);
            waited = true;
        }
    }

    fn release(&self, process: u32) {
        if !owner::release(&self.word, tag(process))
            && owner::release_waited(&self.word, tag(process))
        {
            self.sleepers.wake_one();
        }
    }

    fn count(&self) {
        self.count.write(self.count.read() + 1);
    }

    /// Takes it over from process 0 if that is dead.
    fn inherit(&self, process: u32, is_dead: impl Fn(&Self, Owner) -> bool) {
        let is_orphaned = |owner| is_dead(self, owner);
        let take = || owner::contend(&self.word, tag(process), true, 0, is_orphaned, || {});
        while take().is_err() {
            // A nap is over after a while, whatever happens.
            thread::yield_now();
        }
    }

    fn is_dead(&self, owner: Owner) -> bool {
        owner.process() == 0 && !owner.is_of(self.generation.load(SeqCst))
    }
}

fn all_count<S: Strength>(processes: u32, switches: Option<usize>, marks: bool) {
    explore(switches, move || {
        let world = World::<S>::new();
        let others: Vec<_> = (1..processes)
            .map(|process| {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    world.take(process, marks);
                    world.count();
                    world.release(process);
                })
            })
            .collect();
        world.take(0, marks);
        world.count();
        world.release(0);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(world.count.read(), processes, "lost");
    });
}

#[test]
fn no_append_is_lost_and_nobody_sleeps_on_a_free_word() {
    all_count::<Sound>(2, None, true);
    all_count::<Sound>(3, Some(2), true);
}

#[test]
#[should_panic(expected = "lost")]
fn the_model_finds_an_append_that_is_lost_without_order() {
    all_count::<Unordered2>(2, None, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_finds_a_sleeper_that_the_next_owner_does_not_know_of() {
    all_count::<Sound>(3, Some(3), false);
}

/// [`Unordered`] without barriers: taking a word has one anyway.
struct Unordered2;

impl Strength for Unordered2 {
    fn order(order: std::sync::atomic::Ordering) -> std::sync::atomic::Ordering {
        Unordered::order(order)
    }
    const BARRIERS: bool = false;
}

/// Process 0 dies with the word; two others want it.
fn an_owner_dies(is_dead: fn(&World<Sound>, Owner) -> bool) {
    explore(Some(3), move || {
        let world = World::<Sound>::new();
        assert!(owner::take(&world.word, tag(0)));
        let inherit = move |world: &World<Sound>, process| {
            world.inherit(process, is_dead);
            world.count();
            world.release(process);
        };
        let other = Arc::clone(&world);
        let heir = thread::spawn(move || inherit(&other, 1));
        world.count();
        // The kernel ends it, and the coordinator says so.
        world.generation.store(2, SeqCst);
        inherit(&world, 2);
        heir.join().unwrap();
        assert_eq!(world.count.read(), 3, "lost");
        assert_eq!(world.word.load(SeqCst) & !Owner::WAITED, 0, "held for ever");
    });
}

#[test]
fn the_word_of_a_dead_owner_goes_to_one_waiter_after_the_other() {
    an_owner_dies(World::is_dead);
}

#[test]
#[should_panic(expected = "lost")]
fn the_model_finds_a_word_that_is_taken_from_the_living() {
    an_owner_dies(|_, owner| owner.process() == 0);
}
