//! Publishing and waiting: no wake-up is lost, and no byte is seen before it is
//! written.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;
use wire::layout::{FILE_FINAL, FILE_STREAM, FILE_WITHHELD, WAIT_FINAL, WAIT_STREAM};
use wire::protocol::Word;
use wire::protocol::stream::{Found, Stream, Told};

use crate::world::{Futex, Memory, NoBarriers, Sound, Strength, Unordered, W32, W64, explore};

struct File<S> {
    flags: W32<S>,
    withheld: W64<S>,
    size: W64<S>,
    frontier: W64<S>,
    wake: W32<S>,
    waiters: W32<S>,
    bytes: [Memory; 2],
    sleepers: Futex,
    /// What the coordinator knows of ranges beyond the frontier.
    ranges: Mutex<BTreeMap<u64, u64>>,
}

impl<S: Strength> File<S> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            flags: W32::new(FILE_STREAM),
            withheld: W64::new(u64::MAX),
            size: W64::new(0),
            frontier: W64::new(0),
            wake: W32::new(0),
            waiters: W32::new(0),
            bytes: [Memory::new(0), Memory::new(0)],
            sleepers: Futex::new(),
            ranges: Mutex::new(BTreeMap::new()),
        })
    }

    fn stream(&self) -> Stream<'_, W32<S>, W64<S>> {
        Stream {
            flags: &self.flags,
            withheld: &self.withheld,
            size: &self.size,
            frontier: &self.frontier,
            wake: &self.wake,
            waiters: &self.waiters,
        }
    }

    fn write(&self, at: u64) -> Told {
        self.bytes[at as usize].write(at as u32 + 1);
        let stream = self.stream();
        stream.publish(at, at + 1, || self.sleepers.wake_all())
    }

    fn finish(&self) {
        self.flags.fetch_or(FILE_FINAL, SeqCst);
        self.stream().wake_all(|| self.sleepers.wake_all());
    }

    /// As a read that sleeps at once.
    fn wait(&self, wait: u32, offset: u64) -> Found {
        loop {
            let seen = self.stream().announce();
            if let Some(found) = self.stream().found(wait, offset) {
                return found;
            }
            self.sleepers.wait(&self.wake, seen);
        }
    }

    /// A reader gets this byte.
    fn read(&self, at: u64) {
        assert_eq!(self.wait(WAIT_STREAM, at), Found::More);
        assert_eq!(self.bytes[at as usize].read(), at as u32 + 1, "byte {at}");
    }

    /// As the coordinator does, one request after the other.
    fn tell(&self, told: Told, start: u64, end: u64) {
        let start = match told {
            Told::Nothing => return,
            Told::Beyond => start,
            Told::Reached => end,
        };
        let mut ranges = self.ranges.lock().unwrap();
        if start < end {
            ranges.insert(start, end);
        }
        let stream = self.stream();
        loop {
            while let Some((first, end)) = ranges.first_key_value().map(|(a, b)| (*a, *b))
                && first <= stream.frontier.load(SeqCst)
            {
                ranges.remove(&first);
                stream.show(end);
            }
            if !stream.withhold(ranges.keys().next().copied()) {
                break;
            }
        }
    }
}

fn a_producer_and_a_consumer<S: Strength>() {
    explore(None, || {
        let file = File::<S>::new();
        let writer = Arc::clone(&file);
        let writer = thread::spawn(move || {
            writer.write(0);
            writer.write(1);
        });
        file.read(0);
        file.read(1);
        writer.join().unwrap();
    });
}

#[test]
fn no_reader_sleeps_past_a_byte_or_sees_it_too_early() {
    a_producer_and_a_consumer::<Sound>();
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_finds_the_wake_up_that_is_lost_without_a_barrier() {
    a_producer_and_a_consumer::<NoBarriers>();
}

#[test]
#[should_panic(expected = "byte")]
fn the_model_finds_bytes_that_are_seen_before_they_are_written() {
    a_producer_and_a_consumer::<Unordered>();
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_finds_a_reader_that_looks_before_it_says_that_it_waits() {
    explore(None, || {
        let file = File::<Sound>::new();
        let writer = Arc::clone(&file);
        let writer = thread::spawn(move || writer.write(0));
        while file.stream().found(WAIT_STREAM, 0).is_none() {
            let seen = file.stream().announce();
            file.sleepers.wait(&file.wake, seen);
        }
        writer.join().unwrap();
    });
}

#[test]
fn several_readers_of_a_stream_are_all_woken() {
    explore(Some(3), || {
        let file = File::<Sound>::new();
        let reader = |file: &Arc<File<Sound>>| {
            let file = Arc::clone(file);
            thread::spawn(move || file.read(0))
        };
        let readers = [reader(&file), reader(&file)];
        file.write(0);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

fn a_file_becomes_final<S: Strength>() {
    explore(None, || {
        let file = File::<S>::new();
        let writer = Arc::clone(&file);
        let writer = thread::spawn(move || {
            writer.write(0);
            writer.finish();
        });
        assert_eq!(file.wait(WAIT_FINAL, 0), Found::More);
        assert_eq!(file.bytes[0].read(), 1, "byte 0");
        assert_eq!(file.wait(WAIT_FINAL, 1), Found::End);
        writer.join().unwrap();
    });
}

#[test]
fn a_reader_of_the_whole_file_learns_of_its_end_and_sees_all_of_it() {
    a_file_becomes_final::<Sound>();
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_finds_an_end_that_is_not_told_without_a_barrier() {
    explore(None, || {
        let file = File::<NoBarriers>::new();
        let writer = Arc::clone(&file);
        // As a waker that looks whether anybody waits.
        let writer = thread::spawn(move || {
            writer.flags.fetch_or(FILE_FINAL, SeqCst);
            let stream = writer.stream();
            stream.wake_readers(|| writer.sleepers.wake_all());
        });
        assert_eq!(file.wait(WAIT_STREAM, 0), Found::End);
        writer.join().unwrap();
    });
}

#[test]
fn the_end_of_a_file_is_not_seen_before_its_last_bytes() {
    explore(None, || {
        let file = File::<Sound>::new();
        let writer = Arc::clone(&file);
        let writer = thread::spawn(move || {
            writer.write(0);
            writer.finish();
        });
        assert_eq!(file.wait(WAIT_STREAM, 0), Found::More);
        writer.join().unwrap();
    });
}

/// Two writers of neighbouring ranges: in the end both are seen.
fn two_writers<S: Strength>(write: impl Fn(&File<S>, u64) -> Told + Copy + Send + Sync + 'static) {
    explore(None, move || {
        let file = File::<S>::new();
        let other = Arc::clone(&file);
        let second = thread::spawn(move || {
            let told = write(&other, 1);
            other.tell(told, 1, 2);
        });
        let told = write(&file, 0);
        file.tell(told, 0, 1);
        second.join().unwrap();
        assert_eq!(file.frontier.load(Acquire), 2, "a range is withheld");
    });
}

#[test]
fn a_range_beyond_the_frontier_is_seen_once_the_gap_is_closed() {
    two_writers::<Sound>(File::write);
}

#[test]
#[should_panic(expected = "withheld")]
fn the_model_finds_a_range_that_is_withheld_for_want_of_a_barrier() {
    two_writers::<NoBarriers>(File::write);
}

#[test]
#[should_panic(expected = "withheld")]
fn the_model_finds_a_writer_that_looks_for_withheld_ranges_too_early() {
    two_writers::<Sound>(|file, at| {
        let flags = file.flags.load(Relaxed);
        match file.write(at) {
            Told::Reached if flags & FILE_WITHHELD == 0 => Told::Nothing,
            told => told,
        }
    });
}
