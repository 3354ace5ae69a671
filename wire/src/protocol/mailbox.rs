//! Mailboxes: how a process asks while the coordinator looks for questions, which it
//! does for a short time after each, rather than sleep.
//!
//! ```text
//!   client                    state            coordinator
//!   writes the frame          FREE
//!   post ───────────────────▶ ASKED            collect, take
//!   spins, then sleeps        TAKEN ◀───────── reads the frame, acts, writes a frame
//!                             ANSWERED ◀────── give, and wakes who sleeps
//!   answer                    FREE
//! ```
//!
//! The client says that it asks, then looks whether the coordinator is awake; the
//! coordinator says that it goes to sleep, then looks who has asked. So one of them
//! sees the other. A question that the coordinator may have missed is taken back, and
//! asked over the socket, which wakes it.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::Word;

/// Nothing is asked.
pub const FREE: u32 = 0;
/// The frame is a request.
pub const ASKED: u32 = 1;
/// The coordinator acts on it.
pub const TAKEN: u32 = 2;
/// The frame is a reply.
pub const ANSWERED: u32 = 3;
/// The reply comes over the socket.
pub const BY_SOCKET: u32 = 4;
/// Nothing was done: it is to be asked over the socket.
pub const REFUSED: u32 = 5;
/// Bit of the state: the client sleeps, or is about to.
pub const SLEEPS: u32 = 1 << 31;

/// The words of a mailbox, as both sides see them.
#[derive(Clone, Copy)]
pub struct Mailbox<'a, A, B> {
    /// [`state`](crate::layout::Mailbox::state).
    pub state: &'a A,
    /// The word of [`asked`](crate::layout::SyncHeader::asked) with its bit.
    pub asked: &'a B,
    /// That bit.
    pub bit: u64,
    /// [`awake`](crate::layout::MetaHeader::awake).
    pub awake: &'a A,
}

impl<A: Word<u32>, B: Word<u64>> Mailbox<'_, A, B> {
    /// Client: asks what the frame says. `false`: the coordinator may have missed it,
    /// and will not see it any more.
    pub fn post(&self) -> bool {
        self.state.store(ASKED, Release);
        self.asked.fetch_or(self.bit, SeqCst);
        B::barrier_after_change();
        !self.take_back()
    }

    /// Client: takes a question back that the coordinator may sleep through; whether
    /// it has.
    pub fn take_back(&self) -> bool {
        let back = |seen| {
            self.state
                .compare_exchange(seen, FREE, Relaxed, Relaxed)
                .is_ok()
        };
        self.awake.load(SeqCst) == 0 && (back(ASKED) || back(ASKED | SLEEPS))
    }

    /// Client: the answer, if it is there: [`ANSWERED`], [`BY_SOCKET`] or [`REFUSED`].
    pub fn answer(&self) -> Option<u32> {
        let state = self.state.load(Acquire);
        if matches!(state, ANSWERED | BY_SOCKET | REFUSED) {
            self.state.store(FREE, Relaxed);
            return Some(state);
        }
        None
    }

    /// Client: says that it sleeps; the state to sleep on, or `None`: there is an
    /// answer.
    pub fn about_to_sleep(&self) -> Option<u32> {
        loop {
            let seen = self.state.load(Relaxed);
            if !matches!(seen & !SLEEPS, ASKED | TAKEN) {
                return None;
            }
            let marked = seen | SLEEPS;
            let is_marked = seen == marked
                || self
                    .state
                    .compare_exchange(seen, marked, Relaxed, Relaxed)
                    .is_ok();
            if is_marked {
                return Some(marked);
            }
        }
    }

    /// Coordinator: whether there is a question, whose frame is the caller's now.
    pub fn take(&self) -> bool {
        loop {
            let seen = self.state.load(Relaxed);
            if seen & !SLEEPS != ASKED {
                return false;
            }
            let taken = TAKEN | seen & SLEEPS;
            if self
                .state
                .compare_exchange(seen, taken, Acquire, Relaxed)
                .is_ok()
            {
                return true;
            }
        }
    }

    /// Coordinator: answers: [`ANSWERED`], [`BY_SOCKET`] or [`REFUSED`]. `wake` wakes
    /// who sleeps on the state.
    pub fn give(&self, answer: u32, wake: impl FnOnce()) {
        if self.state.swap(answer, Release) & SLEEPS != 0 {
            wake();
        }
    }
}

/// Coordinator: says whether it looks for questions. After `false` it looks once more.
pub fn set_awake<A: Word<u32>>(awake: &A, is_awake: bool) {
    awake.swap(u32::from(is_awake), SeqCst);
    A::barrier_after_change();
}

/// Coordinator: takes the bits of those who may have asked.
pub fn collect<B: Word<u64>>(asked: &B) -> u64 {
    if asked.load(Relaxed) == 0 {
        return 0;
    }
    asked.swap(0, SeqCst)
}
