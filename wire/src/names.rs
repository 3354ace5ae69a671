//! The table of names: what exists below `CAPIO_DIR`, or does not, and may be told to
//! anybody, so that looking at it needs no message.
//!
//! The coordinator alone writes it, clients only read. It is a cache: what it does
//! not say is asked for, and a name may be put out for another. The same holds for
//! the attributes of directories beside it ([`Directory`]). Staleness: a change
//! of the name space is in the table before the call that makes it returns, so a look
//! that begins after that call sees it. A look that runs beside a change counts only
//! if [`version`](Names::version) was even and the same before and after it, and sees
//! the names of one moment, all along its path.
//!
//! A name is found by a hash of 128 bits of itself and its directory's inode, with a
//! secret seed; two names with the same are not expected in any session's life.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64, fence};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::limits::DIRECTORY_BYTES;
use crate::message::Attributes;

/// Places that a name can have.
pub const WAYS: usize = 4;
/// Most buckets of the table.
pub const MAX_BUCKETS: usize = 1 << 19;
/// Directories whose attributes can be known at a time: a power of two.
pub const DIRECTORIES: usize = 1 << 12;

/// Head of the table.
#[repr(C, align(64))]
pub struct Names {
    /// Odd while the table changes; counts changes.
    pub version: AtomicU64,
    /// Number of buckets less one: a power of two less one.
    pub mask: AtomicU32,
    /// Inode of `CAPIO_DIR`.
    pub root: AtomicU64,
    /// Seed of the hashes.
    pub seed: AtomicU64,
}

/// A name and what it names; key (0, 0): nothing.
#[repr(C)]
pub struct Slot {
    key: [AtomicU64; 2],
    /// [`Known`], packed.
    what: AtomicU64,
    inode: AtomicU64,
}

/// All places of the names with the same low bits of their keys.
#[repr(C, align(128))]
pub struct Bucket {
    slots: [Slot; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 128 && size_of::<Directory>() == 64);

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// A directory.
    Directory {
        /// Its inode.
        inode: u64,
    },
    /// A plain file in the cache.
    File {
        /// Index of its records.
        record: u32,
        /// Generation of these.
        generation: u32,
        /// Nobody waits for it by this name; otherwise nobody does once it is final.
        free: bool,
    },
    /// A plain file of the lower layer, as it lies on disk by the same path, that
    /// nobody waits for: the kernel knows all about it.
    Lower {
        /// Its inode in the session.
        inode: u64,
    },
    /// Nothing, and nobody waits for it.
    Missing,
}

const DIRECTORY: u64 = 1;
const FILE: u64 = 2;
const FREE_FILE: u64 = 3;
const LOWER: u64 = 4;
const MISSING: u64 = 5;

impl Known {
    /// ```text
    /// bits 0-2    1 directory, 2 file, 3 file that is free, 4 lower file, 5 nothing
    /// bits 8-31   file: index of its records
    /// bits 32-63  file: generation of these
    /// ```
    fn pack(self) -> (u64, u64) {
        match self {
            Self::Directory { inode } => (DIRECTORY, inode),
            Self::File {
                record,
                generation,
                free,
            } => {
                let kind = if free { FREE_FILE } else { FILE };
                let what = kind | u64::from(record) << 8 | u64::from(generation) << 32;
                (what, 0)
            }
            Self::Lower { inode } => (LOWER, inode),
            Self::Missing => (MISSING, 0),
        }
    }

    #[inline(always)]
    fn unpack(what: u64, inode: u64) -> Option<Self> {
        match what & 7 {
            DIRECTORY => Some(Self::Directory { inode }),
            kind @ (FILE | FREE_FILE) => Some(Self::File {
                record: (what as u32) >> 8,
                generation: (what >> 32) as u32,
                free: kind == FREE_FILE,
            }),
            LOWER => Some(Self::Lower { inode }),
            MISSING => Some(Self::Missing),
            _ => None,
        }
    }
}

/// The attributes of a directory. A change of them is seen as one of names is.
#[repr(C, align(64))]
pub struct Directory {
    /// 0: of none.
    inode: AtomicU64,
    /// Permissions with the type; number of links above.
    mode_links: AtomicU64,
    /// Owner; group above.
    owners: AtomicU64,
    times: [AtomicU64; 4],
}

impl Directory {
    /// Which of all directories' places is that of `inode`.
    #[inline(always)]
    #[must_use]
    pub const fn place(inode: u64) -> u32 {
        inode as u32 & (DIRECTORIES as u32 - 1)
    }

    /// The attributes, if they are those of `inode`.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, inode: u64) -> Option<Attributes> {
        if self.inode.load(Relaxed) != inode {
            return None;
        }
        let (mode_links, owners) = (self.mode_links.load(Relaxed), self.owners.load(Relaxed));
        let [accessed, modified, changed, born] = &self.times;
        let time = |word: &AtomicU64| word.load(Relaxed).cast_signed();
        Some(Attributes {
            inode,
            mode: mode_links as u32,
            links: (mode_links >> 32) as u32,
            uid: owners as u32,
            gid: (owners >> 32) as u32,
            rdev: 0,
            size: DIRECTORY_BYTES,
            allocated: DIRECTORY_BYTES,
            accessed: time(accessed),
            modified: time(modified),
            changed: time(changed),
            born: time(born),
        })
    }

    /// Notes the attributes of a directory, within a change.
    pub fn put(&self, of: &Attributes) {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        self.mode_links.store(pair(of.mode, of.links), Relaxed);
        self.owners.store(pair(of.uid, of.gid), Relaxed);
        let times = [of.accessed, of.modified, of.changed, of.born];
        for (word, time) in self.times.iter().zip(times) {
            word.store(time.cast_unsigned(), Relaxed);
        }
        self.inode.store(of.inode, Relaxed);
    }

    /// Forgets those of `inode`, within a change.
    pub fn forget(&self, inode: u64) {
        if self.inode.load(Relaxed) == inode {
            self.inode.store(0, Relaxed);
        }
    }
}

/// Where to look for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u64; 2]);

impl Key {
    /// That of `name` in the directory `parent`.
    #[inline(always)]
    #[must_use]
    pub fn of(seed: u64, parent: u64, name: &[u8]) -> Self {
        let seed = seed ^ parent.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = xxh3_128_with_seed(name, seed);
        // Never (0, 0).
        Self([hash as u64, (hash >> 64) as u64 | 1])
    }

    /// Number of its bucket.
    #[inline(always)]
    #[must_use]
    pub fn bucket(self, mask: u32) -> u32 {
        self.0[0] as u32 & mask
    }
}

impl Names {
    /// Begins a look; `None` while the table changes.
    #[inline(always)]
    #[must_use]
    pub fn begin_look(&self) -> Option<u64> {
        let version = self.version.load(Acquire);
        (version & 1 == 0).then_some(version)
    }

    /// Whether nothing has changed since [`Names::begin_look`].
    #[inline(always)]
    #[must_use]
    pub fn is_unchanged(&self, version: u64) -> bool {
        fence(Acquire);
        self.version.load(Relaxed) == version
    }

    /// Begins a change. One at a time.
    pub fn begin_change(&self) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
    }

    /// Ends a change.
    pub fn end_change(&self) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Release);
    }
}

impl Slot {
    #[inline(always)]
    fn has(&self, key: Key) -> bool {
        self.key[0].load(Relaxed) == key.0[0] && self.key[1].load(Relaxed) == key.0[1]
    }

    fn set(&self, key: Key, what: u64, inode: u64) {
        self.key[0].store(key.0[0], Relaxed);
        self.key[1].store(key.0[1], Relaxed);
        self.what.store(what, Relaxed);
        self.inode.store(inode, Relaxed);
    }
}

impl Bucket {
    /// What is known by this key.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, key: Key) -> Option<Known> {
        let slot = self.slots.iter().find(|slot| slot.has(key))?;
        Known::unpack(slot.what.load(Relaxed), slot.inode.load(Relaxed))
    }

    /// Notes what a name stands for, within a change. When all places are taken the
    /// name at place `victim` is put out; whether that was so.
    pub fn put(&self, key: Key, known: Known, victim: usize) -> bool {
        let (what, inode) = known.pack();
        let is_free = |slot: &&Slot| slot.key[1].load(Relaxed) == 0;
        let same = self.slots.iter().find(|slot| slot.has(key));
        let place = same.or_else(|| self.slots.iter().find(is_free));
        if let Some(slot) = place {
            slot.set(key, what, inode);
            return false;
        }
        if let Some(slot) = self.slots.get(victim % WAYS) {
            slot.set(key, what, inode);
        }
        true
    }

    /// Forgets a name, within a change.
    pub fn remove(&self, key: Key) {
        if let Some(slot) = self.slots.iter().find(|slot| slot.has(key)) {
            slot.set(Key([0, 0]), 0, 0);
        }
    }

    /// Moves the names to `high` whose keys have the bit `bit`, within a change.
    pub fn split(&self, high: &Self, bit: u32) {
        for (from, to) in self.slots.iter().zip(&high.slots) {
            let key = Key([from.key[0].load(Relaxed), from.key[1].load(Relaxed)]);
            if key.0[0] as u32 & bit != 0 {
                to.set(key, from.what.load(Relaxed), from.inode.load(Relaxed));
                from.set(Key([0, 0]), 0, 0);
            }
        }
    }

    /// Forgets all names, within a change.
    pub fn clear(&self) {
        self.slots
            .iter()
            .for_each(|slot| slot.set(Key([0, 0]), 0, 0));
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn bucket() -> Bucket {
        let slot = || Slot {
            key: [AtomicU64::new(0), AtomicU64::new(0)],
            what: AtomicU64::new(0),
            inode: AtomicU64::new(0),
        };
        Bucket {
            slots: [slot(), slot(), slot(), slot()],
        }
    }

    fn file(record: u32) -> Known {
        let (generation, free) = (record ^ 0x8000_0001, record.is_multiple_of(2));
        Known::File {
            record,
            generation,
            free,
        }
    }

    #[test]
    fn a_name_is_found_as_it_was_put_until_it_is_removed() {
        let bucket = bucket();
        let key = |name: &[u8]| Key::of(7, 1 << 40, name);
        for (record, name) in [(0, b"a"), (crate::limits::MAX_FILES - 1, b"b")] {
            bucket.put(key(name), file(record), 0);
            assert_eq!(bucket.find(key(name)), Some(file(record)));
        }
        let inode = u64::MAX;
        for known in [
            Known::Directory { inode },
            Known::Lower { inode },
            Known::Missing,
        ] {
            bucket.put(key(b"d"), known, 0);
            assert_eq!(bucket.find(key(b"d")), Some(known));
        }
        bucket.put(key(b"a"), file(9), 0);
        assert_eq!(bucket.find(key(b"a")), Some(file(9)));
        bucket.remove(key(b"a"));
        assert_eq!(bucket.find(key(b"a")), None);
        assert_eq!(bucket.find(key(b"")), None);
        bucket.clear();
        assert_eq!(bucket.find(key(b"d")), None);
    }

    #[test]
    fn the_same_name_in_another_directory_is_another() {
        let names: Vec<Key> = (1..2000).map(|parent| Key::of(3, parent, b"x")).collect();
        let mut unique = names.clone();
        unique.sort_unstable_by_key(|key| key.0);
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn a_full_bucket_takes_one_more_and_loses_one() {
        let bucket = bucket();
        let key = |number: u64| Key::of(1, number, b"n");
        let put = |number| bucket.put(key(number), file(number as u32), 2);
        assert!((0..4).all(|number| !put(number)));
        assert!(put(4));
        let there = (0..5).filter(|number| bucket.find(key(*number)).is_some());
        assert_eq!(there.collect::<Vec<_>>(), [0, 1, 3, 4]);
    }

    #[test]
    fn attributes_are_those_of_one_directory() {
        let place = Directory {
            inode: AtomicU64::new(0),
            mode_links: AtomicU64::new(0),
            owners: AtomicU64::new(0),
            times: [const { AtomicU64::new(0) }; 4],
        };
        let inode = 7 + (DIRECTORIES as u64) * 9;
        assert_eq!(Directory::place(inode), 7);
        let attributes = Attributes {
            inode,
            mode: 0o4_1777,
            links: u32::MAX,
            uid: u32::MAX - 1,
            gid: 5,
            rdev: 0,
            size: DIRECTORY_BYTES,
            allocated: DIRECTORY_BYTES,
            accessed: -1,
            modified: i64::MAX,
            changed: 3,
            born: 4,
        };
        place.put(&attributes);
        assert_eq!(place.get(inode), Some(attributes));
        assert_eq!(place.get(7), None);
        place.forget(7);
        assert!(place.get(inode).is_some());
        place.forget(inode);
        assert_eq!(place.get(inode), None);
    }

    #[test]
    fn a_look_beside_a_change_does_not_count() {
        let names = Names {
            version: AtomicU64::new(4),
            mask: AtomicU32::new(0),
            root: AtomicU64::new(1),
            seed: AtomicU64::new(0),
        };
        let version = names.begin_look().unwrap();
        assert!(names.is_unchanged(version));
        names.begin_change();
        assert!(!names.is_unchanged(version) && names.begin_look().is_none());
        names.end_change();
        assert!(!names.is_unchanged(version) && names.begin_look().is_some());
    }
}
