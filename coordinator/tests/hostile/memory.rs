//! A client that scribbles over all memory that it can write to.

use std::path::Path;
use std::time::{Duration, Instant};

use coordinator::session::Session;
use memmap2::MmapRaw;
use wire::layout::{FileSync, OfdSync, ProcessRecord, sync};
use wire::message::{Request, Target};

use crate::peer::{Opened, Peer, at, name};
use crate::world::{Process, Teller, World, setup, setup_on};

/// A small generator of numbers: the same ones each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Small, huge, or anything.
    fn value(&mut self) -> u64 {
        match self.below(5) {
            0 => self.next() % 4,
            1 => u64::MAX - self.next() % 4,
            2 => i64::MAX as u64 - self.next() % 2,
            3 => self.next() % (1 << 24),
            _ => self.next(),
        }
    }
}

/// Writes a random value somewhere: mostly into records that are in use.
fn scribble(sync_map: &MmapRaw, arena: &MmapRaw, numbers: &mut Numbers) {
    let tables = [
        (sync::FILES, size_of::<FileSync>() * 64),
        (sync::OFDS, size_of::<OfdSync>() * 64),
        (sync::PROCESSES, size_of::<ProcessRecord>() * 8),
    ];
    let (map, start, length) = match numbers.below(8) {
        0 => (arena, 0, arena.len()),
        // The first page says whether the coordinator lives.
        1 => (sync_map, sync::FILES, sync_map.len() - sync::FILES),
        _ => {
            let (start, length) = tables[numbers.below(tables.len())];
            (sync_map, start, length)
        }
    };
    let offset = start + numbers.below(length) / 8 * 8;
    let value = numbers.value();
    // SAFETY: within the mapping, and aligned; others use it by atomics.
    unsafe {
        map.as_mut_ptr()
            .add(offset)
            .cast::<u64>()
            .write_volatile(value)
    };
}

/// Rounds of scribbling, until all are done.
fn vandal(peer: &Peer, rounds: u64, teller: &Teller) {
    let [sync_map, arena] = peer.writable();
    for round in 0..rounds {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ (round + 1));
        for _ in 0..200 {
            scribble(sync_map, arena, &mut numbers);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    teller.tell();
}

/// What any program does; nothing it gets can be relied on, but it gets answers.
fn work(peer: &mut Peer, until: Instant) {
    for number in 0_u64.. {
        let path = format!("f{}", number % 24);
        let opened = peer.open(&path, libc::O_RDWR | libc::O_CREAT);
        if let Ok(Opened::File(open)) = opened {
            let (ofd, thread) = (open.ofd, 0);
            let (offset, length) = (number % 7 * 100_000, 50_000);
            let requests = [
                Request::Grant {
                    ofd,
                    offset,
                    length,
                    thread,
                },
                Request::Published {
                    ofd,
                    start: offset,
                    end: offset + length,
                },
                Request::Stat {
                    target: Target::Ofd(ofd),
                    thread,
                },
                Request::Truncate {
                    target: at(&path),
                    size: number % 300_000,
                },
                Request::Map { ofd, end: length },
                Request::Sync { ofd, thread },
            ];
            for request in &requests[..if number % 5 == 0 { 6 } else { 4 }] {
                peer.ask_once(request);
            }
        }
        if number % 3 == 0 {
            let (name, directory) = (name(&path), false);
            peer.ask_once(&Request::Unlink { name, directory });
        }
        if Instant::now() > until {
            return;
        }
    }
}

fn rounds() -> u64 {
    if std::env::var_os("CAPIO_TEST_LONG").is_some() {
        50_000
    } else {
        1_000
    }
}

/// Names in a directory and what the files among them hold.
fn content(dir: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let read = |entry: std::fs::DirEntry| {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        (entry.file_name(), bytes)
    };
    let mut all: Vec<_> = entries.map(read).collect();
    all.sort();
    all
}

/// Drains a session in whatever state, and looks whether it still can be asked.
fn ends(session: &dyn Session) {
    let start = Instant::now();
    session.snapshot();
    session.drain(true);
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn scribbled_memory_stops_neither_the_session_nor_any_other() {
    let around = tempfile::tempdir().unwrap();
    let dir = around.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(around.path().join("beside"), "not ours").unwrap();
    std::fs::write(dir.join("below"), "ours").unwrap();
    let before = content(around.path());
    let mut victim = setup_on(&dir);
    victim.config.workflow = "scribbled".into();
    victim.config.keep = coordinator::session::Keep::All;
    let (victim, other) = (victim.start(), setup().start());
    let mut tenant = other.join("tenant");
    tenant.put("kept", b"as it was");

    let start = Instant::now();
    let vandal = victim.telling("vandal", |peer, teller| vandal(peer, rounds(), teller));
    let workers: Vec<_> = (0..2)
        .map(|_| victim.process("works", |peer| work(peer, start + Duration::from_secs(2))))
        .collect();
    vandal.told();
    workers.into_iter().for_each(Process::join);
    assert_eq!(tenant.get("kept").unwrap(), b"as it was");
    drop(vandal);
    // New files are as good as ever once the vandal is gone.
    let fresh = victim.process("fresh", |peer| {
        peer.put("fresh", b"content");
        assert_eq!(peer.get("fresh").unwrap(), b"content");
    });
    fresh.join();
    ends(victim.session());
    ends(other.session());
    drop(victim);
    assert_eq!(
        content(around.path()),
        before,
        "something beside was written"
    );
    assert_eq!(std::fs::read(dir.join("below")).unwrap(), b"ours");
}

/// Who claims to wait for what does not exist makes nobody's calls fail.
#[test]
fn waits_that_are_made_up_break_nobody_elses() {
    let world: World = setup().start();
    let liar = world.telling("liar", |peer, teller| {
        for record in [5, 1 << 20, u32::MAX] {
            peer.record()
                .waits_for
                .store(record, std::sync::atomic::Ordering::SeqCst);
            teller.tell();
            std::thread::sleep(Duration::from_millis(300));
        }
        teller.stay()
    });
    liar.told();
    liar.told();
    liar.told();
    liar.told();
    let now = world.session().snapshot();
    assert_eq!(now.deadlock, None);
    let step = now.step("liar").unwrap();
    assert!(step.waiting.is_empty(), "{:?}", step.waiting);
}
