//! Clocks, read by libc's `clock_gettime` (the vDSO's: no system call).

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

fn read(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is written; the call never touches errno for these clocks.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec.wrapping_mul(SECOND).wrapping_add(time.tv_nsec)
}

/// Time of day as files show it, ns since the epoch, some ms coarse.
#[inline]
pub(crate) fn coarse() -> i64 {
    read(libc::CLOCK_REALTIME_COARSE)
}

/// Monotonic time in ns.
pub(crate) fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC).cast_unsigned()
}

/// `ns` as whole seconds and the rest, which is never negative.
pub(crate) fn split(ns: i64) -> (i64, i64) {
    (ns.div_euclid(SECOND), ns.rem_euclid(SECOND))
}
