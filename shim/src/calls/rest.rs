//! The rest of a read or write that is not all in the cache, or has no pages
//! yet. An owner word is held all the while, so that what a call reads or
//! writes is in one piece; the pages are not, so that they can be taken away
//! for those that come.

use wire::message::Request;
use wire::protocol::stream::Told;

use super::buffers::{Buffers, resident};
use super::io::{At, fill, grant, has_written, take, tell};
use super::target::Target;
use crate::control;
use crate::threads::Hold;

/// Has bytes brought back from the store.
///
/// # Errors
/// `EIO`: they are lost, or the coordinator is dead.
#[cold]
pub(super) fn fetch(target: Target, offset: u64, n: usize) -> Result<(), i32> {
    control::tell(&Request::Fetch {
        ofd: target.ofd.id,
        offset,
        length: n as u64,
        thread: control::thread()?,
    })
}

/// Whether the file is where it was when the pages were held last.
fn is_here(target: Target) -> bool {
    target.ofd.is_open() && target.file.elsewhere() == 0 && target.alive().is_ok()
}

/// Goes on with a read of `n` bytes at `offset`, of which `done` are done. Bytes
/// done.
#[cold]
#[inline(never)]
pub(super) fn read(
    target: Target,
    hold: &Hold,
    buffers: impl Buffers,
    offset: u64,
    done: usize,
    n: usize,
) -> usize {
    let (mut done, mut stuck) = (done, 0u32);
    while done < n && stuck < 2 {
        let at = offset.wrapping_add(done as u64);
        if target.file.is_stored(target.session, at) {
            let left = n.wrapping_sub(done);
            let fetched = hold.without_pages(target.file.index, || fetch(target, at, left));
            if fetched.is_err() || !is_here(target) {
                break;
            }
            stuck = 0;
        }
        let before = done;
        done = fill(target, buffers, at, done, n);
        // Once may be a piece that was on its way; twice is a bad address.
        stuck = if done == before {
            stuck.wrapping_add(1)
        } else {
            0
        };
    }
    done
}

/// Goes on with a write of `n` bytes at `offset`, of which `done` are done and
/// not `told` yet. Bytes done.
#[cold]
#[inline(never)]
pub(super) fn write(
    target: Target,
    hold: &Hold,
    buffers: impl Buffers,
    place: At,
    (offset, done, n): (u64, usize, usize),
    told: Told,
) -> usize {
    let (mut start, mut done) = (offset, done);
    let mut last = None;
    while done < n {
        let at = offset.wrapping_add(done as u64);
        let left = n.wrapping_sub(done);
        let granted = hold.without_pages(target.file.index, || {
            tell(last.unwrap_or(told), target, start, at)?;
            grant(target, at, left)
        });
        if granted.is_err() || !is_here(target) {
            break;
        }
        let ready = resident(target.session, target.file, at, left);
        let goal = done.wrapping_add(ready);
        hold.writes(at, offset.wrapping_add(goal as u64));
        let now = take(target, buffers, at, done, goal);
        last = Some(has_written(target, hold, place, at, now.wrapping_sub(done)));
        (start, done) = (at, now);
        if now < goal {
            break;
        }
    }
    if let Some(last) = last {
        let end = offset.wrapping_add(done as u64);
        let index = target.file.index;
        // It is written; who reads it as a stream gets it when it is final.
        let _ = hold.without_pages(index, || tell(last, target, start, end));
    }
    done
}
