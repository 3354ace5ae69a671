//! Processes with an `io_uring`: nobody sees which file an operation is for, so
//! that all their files are left to the kernel.

use core::ffi::c_int;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::SeqCst;

use super::mapped::hand_over;
use crate::{control, descriptors};

/// This process has made a ring.
static RING: AtomicBool = AtomicBool::new(false);

/// Notes that the process has a ring: files that it has open, and all that it
/// opens from now on, are left to the kernel. 0 or `-errno`.
pub(crate) fn ring_made() -> isize {
    RING.store(true, SeqCst);
    if !descriptors::has_some() {
        return 0;
    }
    let mut failed = 0;
    descriptors::each_open(|fd| {
        failed = hand_over(fd);
        failed != 0
    });
    failed
}

/// A new descriptor of ours: with a ring it is left to the kernel.
///
/// # Errors
/// Why not; it is closed then.
pub(super) fn opened(fd: c_int) -> Result<(), i32> {
    if !RING.load(SeqCst) {
        return Ok(());
    }
    match hand_over(fd) {
        0 => Ok(()),
        failed => {
            descriptors::set(fd, descriptors::Kind::None);
            control::close(fd);
            Err(i32::try_from(failed.wrapping_neg()).unwrap_or(libc::EIO))
        }
    }
}

/// [`opened`] for a descriptor that came through a socket, which stays open.
pub(crate) fn received(fd: c_int) {
    if RING.load(SeqCst) {
        // If it fails, reads on the ring find nothing.
        hand_over(fd);
    }
}
