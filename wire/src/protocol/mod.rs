//! The steps by which clients and coordinator share memory without locks.
//!
//! Both sides, and the models that try every order of these steps (`tests/models`),
//! run the code here: it is generic over [`Word`], which is an atomic of `core` in
//! the product and one of the model checker in a test.
//!
//! | module | promises |
//! | --- | --- |
//! | [`hazard`] | pages and records under a copy are not given to anybody else |
//! | [`owner`] | one holder at a time, and a dead one is no obstacle |
//! | [`stream`] | bytes are seen when they are written, and no wake-up is lost |
//! | [`piece`] | nobody writes to a page that the store was given |
//! | [`moving`] | no copy goes to where a file's bytes are not any more |
//! | [`mailbox`] | a question is answered once, and nobody sleeps on one that is not seen |
//!
//! Most of these steps are of one kind: one side says what it does and then looks
//! at what the other says, and the other does the same. At least one of the two must
//! see the other, so that a full barrier stands between saying and looking.

pub mod hazard;
pub mod mailbox;
pub mod moving;
pub mod owner;
pub mod piece;
pub mod stream;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// An atomic word that holds a `T`.
pub trait Word<T> {
    /// As of the atomics of `core`.
    fn load(&self, order: Ordering) -> T;
    /// As of the atomics of `core`.
    fn store(&self, value: T, order: Ordering);
    /// As of the atomics of `core`.
    fn swap(&self, value: T, order: Ordering) -> T;
    /// As of the atomics of `core`.
    ///
    /// # Errors
    /// The value that was there instead of `old`.
    fn compare_exchange(&self, old: T, new: T, yes: Ordering, no: Ordering) -> Result<T, T>;
    /// As of the atomics of `core`.
    fn fetch_add(&self, value: T, order: Ordering) -> T;
    /// As of the atomics of `core`.
    fn fetch_or(&self, value: T, order: Ordering) -> T;
    /// As of the atomics of `core`.
    fn fetch_and(&self, value: T, order: Ordering) -> T;
    /// As of the atomics of `core`.
    fn fetch_max(&self, value: T, order: Ordering) -> T;
    /// As of the atomics of `core`.
    fn fetch_min(&self, value: T, order: Ordering) -> T;

    /// A full barrier, right after a `SeqCst` change of a word by this thread. On
    /// x86-64 that change is the barrier, and this costs nothing.
    fn barrier_after_change();
}

macro_rules! word {
    ($atomic:ty, $number:ty) => {
        impl Word<$number> for $atomic {
            #[inline(always)]
            fn load(&self, order: Ordering) -> $number {
                <$atomic>::load(self, order)
            }
            #[inline(always)]
            fn store(&self, value: $number, order: Ordering) {
                <$atomic>::store(self, value, order);
            }
            #[inline(always)]
            fn swap(&self, value: $number, order: Ordering) -> $number {
                <$atomic>::swap(self, value, order)
            }
            #[inline(always)]
            fn compare_exchange(
                &self,
                old: $number,
                new: $number,
                yes: Ordering,
                no: Ordering,
            ) -> Result<$number, $number> {
                <$atomic>::compare_exchange(self, old, new, yes, no)
            }
            #[inline(always)]
            fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                <$atomic>::fetch_add(self, value, order)
            }
            #[inline(always)]
            fn fetch_or(&self, value: $number, order: Ordering) -> $number {
                <$atomic>::fetch_or(self, value, order)
            }
            #[inline(always)]
            fn fetch_and(&self, value: $number, order: Ordering) -> $number {
                <$atomic>::fetch_and(self, value, order)
            }
            #[inline(always)]
            fn fetch_max(&self, value: $number, order: Ordering) -> $number {
                <$atomic>::fetch_max(self, value, order)
            }
            #[inline(always)]
            fn fetch_min(&self, value: $number, order: Ordering) -> $number {
                <$atomic>::fetch_min(self, value, order)
            }
            #[inline(always)]
            fn barrier_after_change() {
                barrier_after_change();
            }
        }
    };
}

word!(AtomicU32, u32);
word!(AtomicU64, u64);

#[inline(always)]
fn barrier_after_change() {
    if cfg!(target_arch = "x86_64") {
        // A locked instruction orders all accesses around it; the compiler must
        // not move them either.
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    } else {
        core::sync::atomic::fence(Ordering::SeqCst);
    }
}
