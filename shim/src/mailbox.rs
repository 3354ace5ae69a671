//! Asking the coordinator by the process's mailbox ([`wire::protocol::mailbox`]):
//! without a system call, as long as it looks for questions.

use core::hint::spin_loop;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

use wire::protocol::mailbox::{ANSWERED, BY_SOCKET, Mailbox};

use crate::session::{Session, live};
use crate::sys::syscall;
use crate::{clock, futex};

/// How long to look for the answer before sleeping, ns: a file is made in some 40 us.
const SPIN: u64 = 60_000;
/// Looks, some 2 us of them, between two offers of the core to whoever waits for it:
/// that may be who is to answer.
const LOOKS: u32 = 64;
/// Longest sleep before it is looked after the coordinator, ns.
const PATIENCE: i64 = 250_000_000;

/// What became of a question.
pub(crate) enum Outcome {
    /// The reply is in the frame: length of its body.
    Answered(usize),
    /// The reply comes over the socket.
    BySocket,
    /// It was not asked, and is to be asked over the socket.
    NotAsked,
}

/// Asks what the first `length` bytes of `frame` say, which the answer replaces. The
/// caller holds the line.
///
/// # Errors
/// `EPIPE`: the coordinator is gone, or its answer is malformed.
pub(crate) fn ask(frame: &mut [u8], length: usize) -> Result<Outcome, i32> {
    let (Some(session), Some(live)) = (Session::get(), live()) else {
        return Ok(Outcome::NotAsked);
    };
    if session.header().awake.load(Relaxed) == 0 || live.epoch.load(Relaxed) == 0 {
        return Ok(Outcome::NotAsked);
    }
    let process = live.process.load(Relaxed);
    let (Some(asking), Some(mailbox)) = (session.asking(process), session.mailbox(process)) else {
        return Ok(Outcome::NotAsked);
    };
    if !(mailbox.put(frame.get(..length).unwrap_or_default()) && asking.post()) {
        return Ok(Outcome::NotAsked);
    }
    match wait(session, asking) {
        Some(ANSWERED) => mailbox.get(frame).map(Outcome::Answered).ok_or(libc::EPIPE),
        Some(BY_SOCKET) => Ok(Outcome::BySocket),
        Some(_) => Ok(Outcome::NotAsked),
        None => Err(libc::EPIPE),
    }
}

/// The answer; `None`: there will be none.
fn wait(session: Session, asking: Mailbox<'static, AtomicU32, AtomicU64>) -> Option<u32> {
    let start = clock::monotonic();
    while clock::monotonic().wrapping_sub(start) < SPIN {
        for _ in 0..LOOKS {
            if let Some(answer) = asking.answer() {
                return Some(answer);
            }
            spin_loop();
        }
        // SAFETY: takes nothing.
        unsafe { syscall!(libc::SYS_sched_yield) };
    }
    sleep(session, asking)
}

#[cold]
fn sleep(session: Session, asking: Mailbox<'static, AtomicU32, AtomicU64>) -> Option<u32> {
    loop {
        if let Some(answer) = asking.answer() {
            return Some(answer);
        }
        if session.is_dead() {
            return None;
        }
        if asking.take_back() {
            return Some(wire::protocol::mailbox::REFUSED);
        }
        if let Some(state) = asking.about_to_sleep() {
            futex::wait(asking.state, state, PATIENCE);
        }
    }
}
