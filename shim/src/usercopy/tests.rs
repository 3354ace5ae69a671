//! Every size and position around the end of what may be touched, the fast
//! way and the slow, against what a plain loop would do.

use super::*;
use crate::tls::current;

const PAGE: usize = 4096;

/// Readable and writable pages followed by one that is not there for us.
struct Cliff {
    base: *mut u8,
    room: usize,
}

impl Cliff {
    fn new(room: usize) -> Self {
        // SAFETY: a fresh mapping; its last page is taken away again.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base = libc::mmap(ptr::null_mut(), room + PAGE, 3, flags, -1, 0).cast::<u8>();
            assert_ne!(base as isize, -1);
            assert_eq!(
                libc::mprotect(base.add(room).cast(), PAGE, libc::PROT_NONE),
                0
            );
            base
        };
        for i in 0..room {
            // SAFETY: within the mapping.
            unsafe { base.add(i).write((i % 251 + 1) as u8) };
        }
        Self { base, room }
    }

    /// The address `before` bytes ahead of the edge.
    fn edge(&self, before: usize) -> *mut u8 {
        self.base.wrapping_add(self.room - before)
    }
}

impl Drop for Cliff {
    fn drop(&mut self) {
        // SAFETY: our own mapping.
        unsafe { libc::munmap(self.base.cast(), self.room + PAGE) };
    }
}

/// Runs `check` with 16-byte and 32-byte registers, then the slow way, in a
/// thread that blocks SIGSEGV. One test at a time: the choice is global.
fn all_ways(check: fn()) {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|failed| failed.into_inner());
    signals::arm();
    let wide = WIDE.swap(0, Ordering::Relaxed);
    check();
    WIDE.store(wide, Ordering::Relaxed);
    check();
    // SAFETY: the thread's own state.
    assert_eq!(unsafe { (*current()).faults }, tls::FAULTS_CAUGHT);
    std::thread::spawn(move || {
        let all = u64::MAX;
        // SAFETY: blocks signals of this thread.
        unsafe {
            syscall!(
                libc::SYS_rt_sigprocmask,
                libc::SIG_BLOCK,
                &raw const all,
                0,
                8
            )
        };
        check();
        // SAFETY: the thread's own state.
        assert_ne!(unsafe { (*current()).faults }, tls::FAULTS_CAUGHT);
    })
    .join()
    .unwrap();
}

/// Sizes at and around every branch of the assembly.
fn sizes() -> impl Iterator<Item = usize> {
    (0..=140).chain([
        190, 191, 192, 193, 255, 256, 257, 300, 1023, 1024, 1500, 4097,
    ])
}

#[test]
fn copies_are_exact_and_touch_nothing_else() {
    all_ways(|| {
        let source = Cliff::new(2 * PAGE);
        for n in sizes() {
            for shift in [0, 1, 15, 16, 31, 33, 63] {
                let mut target = vec![0u8; n + 128];
                let into = target.as_mut_ptr().wrapping_add(shift);
                // SAFETY: `n + 128` bytes hold shift and size.
                assert_eq!(unsafe { copy(into, source.edge(n), n) }, 0);
                // SAFETY: `n` bytes up to the edge are readable.
                let wanted = unsafe { core::slice::from_raw_parts(source.edge(n), n) };
                assert_eq!(&target[shift..shift + n], wanted);
                assert!(
                    target[..shift]
                        .iter()
                        .chain(&target[shift + n..])
                        .all(|&b| b == 0)
                );
            }
        }
    });
}

#[test]
fn a_bad_source_gives_what_could_be_read() {
    all_ways(|| {
        let source = Cliff::new(2 * PAGE);
        for n in sizes() {
            for good in [0, 1, 2, 7, 15, 16, 17, 40, 63, 64, 65, 100, 127, 129, 1000] {
                if good >= n {
                    continue;
                }
                let mut target = vec![0u8; n];
                // SAFETY: the target holds `n`; the source ends after `good`.
                let left = unsafe { copy(target.as_mut_ptr(), source.edge(good), n) };
                assert_eq!(left, n - good, "size {n}");
                // SAFETY: `good` bytes up to the edge are readable.
                let wanted = unsafe { core::slice::from_raw_parts(source.edge(good), good) };
                assert_eq!(&target[..good], wanted);
                assert!(target[good..].iter().all(|&b| b == 0));
            }
        }
    });
}

#[test]
fn a_bad_target_gives_what_could_be_written() {
    all_ways(|| {
        let source = vec![7u8; 2 * PAGE];
        for n in sizes() {
            for good in [0, 1, 2, 7, 15, 16, 17, 40, 63, 64, 65, 100, 127, 129, 1000] {
                if good >= n {
                    continue;
                }
                let target = Cliff::new(PAGE);
                // SAFETY: the target ends after `good`.
                assert_eq!(
                    // SAFETY: as above.
                    unsafe { copy(target.edge(good), source.as_ptr(), n) },
                    n - good
                );
                let cleared = Cliff::new(PAGE);
                // SAFETY: as above.
                assert_eq!(unsafe { zero(cleared.edge(good), n) }, n - good);
                // SAFETY: `good` bytes up to the edge are readable.
                unsafe {
                    assert!((0..good).all(|i| *target.edge(good).add(i) == 7));
                    assert!((0..good).all(|i| *cleared.edge(good).add(i) == 0));
                    assert_ne!(*cleared.edge(good).sub(1), 0);
                }
            }
        }
    });
}

#[test]
fn clearing_is_exact() {
    all_ways(|| {
        for n in sizes() {
            let mut bytes = vec![9u8; n + 70];
            // SAFETY: within the buffer.
            assert_eq!(unsafe { zero(bytes.as_mut_ptr().add(3), n) }, 0);
            assert!(bytes[3..3 + n].iter().all(|&b| b == 0));
            assert!(bytes[..3].iter().chain(&bytes[3 + n..]).all(|&b| b == 9));
        }
    });
}

#[test]
fn addresses_that_no_page_can_have_are_errors_too() {
    all_ways(|| {
        let mut bytes = [0u8; 300];
        for address in [
            0usize,
            1,
            0x1234_5678_9abc_def0,
            usize::MAX,
            usize::MAX - 4096,
        ] {
            for n in [1, 8, 17, 100, 300] {
                // SAFETY: nothing can be read or written there.
                unsafe {
                    assert_eq!(copy(bytes.as_mut_ptr(), address as *const u8, n), n);
                    assert_eq!(copy(address as *mut u8, bytes.as_ptr(), n), n);
                    assert_eq!(zero(address as *mut u8, n), n);
                    assert_eq!(copy_cstr(&mut bytes, address as *const c_char), -14);
                }
            }
        }
    });
}

#[test]
fn paths_are_read_up_to_their_end_and_no_further() {
    all_ways(|| {
        let text = Cliff::new(2 * PAGE);
        for length in (0..100).chain([4000, 4094, 4095]) {
            // SAFETY: `length + 1` bytes up to the edge are writable.
            unsafe { *text.edge(1) = 0 };
            let mut room = [0xffu8; 4096];
            // SAFETY: ends with NUL right before the edge.
            let got = unsafe { copy_cstr(&mut room, text.edge(length + 1).cast()) };
            assert_eq!(got, length as isize);
            assert_eq!(room[length], 0);
            assert!(room[..length].iter().all(|&b| b != 0 && b != 0xff));
            // SAFETY: as above; the room is too small by one.
            unsafe {
                *text.edge(1) = 1;
                let got = copy_cstr(&mut room[..length], text.edge(length + 1).cast());
                assert_eq!(got, -36);
                let got = copy_cstr(&mut room, text.edge(length + 1).cast());
                assert_eq!(got, if length + 1 < 4096 { -14 } else { -36 });
            }
        }
    });
}
