//! The facade of the model checker, and what all models need.

use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
use loom::sync::{Condvar, Mutex};
use wire::protocol::{Word, hazard};

/// How strong the memory accesses of a model are.
pub(crate) trait Strength: 'static {
    fn order(order: Ordering) -> Ordering;
    const BARRIERS: bool;
}

/// As in the product.
pub(crate) struct Sound;
/// Without full barriers: a load may be done before an earlier store is seen.
pub(crate) struct NoBarriers;
/// Nothing is in order but what happens to one word, and around full barriers.
pub(crate) struct Unordered;

impl Strength for Sound {
    fn order(order: Ordering) -> Ordering {
        order
    }
    const BARRIERS: bool = true;
}

impl Strength for NoBarriers {
    fn order(order: Ordering) -> Ordering {
        order
    }
    const BARRIERS: bool = false;
}

impl Strength for Unordered {
    fn order(_: Ordering) -> Ordering {
        Ordering::Relaxed
    }
    const BARRIERS: bool = true;
}

/// An atomic `A` of the checker.
pub(crate) struct Cell<A, S>(A, PhantomData<S>);

/// Words of 32 and 64 bits.
pub(crate) type W32<S> = Cell<AtomicU32, S>;
pub(crate) type W64<S> = Cell<AtomicU64, S>;

macro_rules! word {
    ($atomic:ty, $number:ty) => {
        impl<S: Strength> Cell<$atomic, S> {
            pub(crate) fn new(value: $number) -> Self {
                Self(<$atomic>::new(value), PhantomData)
            }
        }

        impl<S: Strength> Word<$number> for Cell<$atomic, S> {
            fn load(&self, order: Ordering) -> $number {
                self.0.load(S::order(order))
            }
            fn store(&self, value: $number, order: Ordering) {
                self.0.store(value, S::order(order));
            }
            fn swap(&self, value: $number, order: Ordering) -> $number {
                self.0.swap(value, S::order(order))
            }
            fn compare_exchange(
                &self,
                old: $number,
                new: $number,
                yes: Ordering,
                no: Ordering,
            ) -> Result<$number, $number> {
                self.0
                    .compare_exchange(old, new, S::order(yes), S::order(no))
            }
            fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                self.0.fetch_add(value, S::order(order))
            }
            fn fetch_or(&self, value: $number, order: Ordering) -> $number {
                self.0.fetch_or(value, S::order(order))
            }
            fn fetch_and(&self, value: $number, order: Ordering) -> $number {
                self.0.fetch_and(value, S::order(order))
            }
            fn fetch_max(&self, value: $number, order: Ordering) -> $number {
                self.0.fetch_max(value, S::order(order))
            }
            fn fetch_min(&self, value: $number, order: Ordering) -> $number {
                self.0.fetch_min(value, S::order(order))
            }
            // The checker takes `SeqCst` accesses for acquire and release, so that
            // each barrier that is needed must be written down.
            fn barrier_after_change() {
                if S::BARRIERS {
                    fence(Ordering::SeqCst);
                }
            }
        }
    };
}

word!(AtomicU32, u32);
word!(AtomicU64, u64);

/// A byte or a page of memory that is copied to and from without any order.
pub(crate) struct Memory(AtomicU32);

impl Memory {
    pub(crate) fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    pub(crate) fn write(&self, value: u32) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the kernel does for sleepers on one word. There is no time-out: who is not
/// woken sleeps for ever, which the checker reports as a dead-lock.
pub(crate) struct Futex {
    queue: Mutex<()>,
    changed: Condvar,
}

impl Futex {
    pub(crate) fn new() -> Self {
        Self {
            queue: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn wait<W: Word<u32>>(&self, word: &W, seen: u32) {
        let queue = self.queue.lock().unwrap();
        if word.load(Ordering::SeqCst) == seen {
            drop(self.changed.wait(queue).unwrap());
        }
    }

    pub(crate) fn wake_one(&self) {
        let _queue = self.queue.lock().unwrap();
        self.changed.notify_one();
    }

    pub(crate) fn wake_all(&self) {
        let _queue = self.queue.lock().unwrap();
        self.changed.notify_all();
    }
}

/// The coordinator waits until the copies of `file` that are under way have ended.
pub(crate) fn wait_for_copies<W: Word<u64>>(slots: &[W], file: u32) {
    for slot in slots {
        if let Some(seen) = hazard::is_of(slot, file) {
            while hazard::is_under_way(slot, seen) {
                loom::thread::yield_now();
            }
        }
    }
}

/// Runs `model` in every order with at most `switches` involuntary switches between
/// threads; `None`: in every order.
pub(crate) fn explore(switches: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = switches;
    builder.check(model);
}
