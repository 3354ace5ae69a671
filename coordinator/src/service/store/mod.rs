//! The tier below the cache: where pieces of files go that the cache has no
//! room for.

mod mover;
mod spill;

use std::fs::File;
use std::io;

pub(super) use mover::{Done, Job, Mover};
pub(super) use spill::{NAMED, SpillFile, default_place};

use super::shm::Region;

/// Name of what is put into a store; each is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub u64);

/// Bytes that are to be put.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// A part of the arena: offset and length.
    Arena(&'a Region, u64, u64),
    /// Plain memory.
    Bytes(&'a [u8]),
    /// A part of a file: start and length.
    File(&'a File, u64, u64),
}

impl Source<'_> {
    /// How many there are.
    #[must_use]
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Arena(_, _, length) | Self::File(_, _, length) => *length,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Writes them into `file` at `at`.
    fn write_to(&self, file: &File, at: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        match self {
            Self::Arena(arena, offset, length) => arena.write_to(*offset, *length, file, at),
            Self::Bytes(bytes) => file.write_all_at(bytes, at),
            Self::File(from, start, length) => {
                let mut bytes = vec![0; *length as usize];
                from.read_exact_at(&mut bytes, *start)?;
                file.write_all_at(&bytes, at)
            }
        }
    }
}

/// How full a store is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// What it takes now.
    pub used: u64,
    /// What it may and can take still.
    pub free: u64,
}

/// A store. Calls may block as long as the device does; any thread may make
/// them at any time.
pub(super) trait Store: Send + Sync {
    /// Keeps bytes under a key that was never used.
    ///
    /// # Errors
    /// `StorageFull`: the limit or the device is reached; what the device says.
    /// Nothing is kept then.
    fn put(&self, key: Key, source: Source<'_>) -> io::Result<()>;

    /// Copies what was put under `key` to `offset` of the arena; its length.
    ///
    /// # Errors
    /// `NotFound`; what the device says.
    fn get(&self, key: Key, arena: &Region, offset: u64) -> io::Result<u64>;

    /// Copies from byte `from` of what was put under `key`; beyond its end
    /// there are zeros.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn read(&self, key: Key, from: u64, into: &mut [u8]) -> io::Result<()>;

    /// Forgets what was put under `key`.
    fn remove(&self, key: Key);

    /// Returns once all that was put is on the device.
    ///
    /// # Errors
    /// What the device says.
    fn sync(&self) -> io::Result<()>;

    /// How full it is.
    fn usage(&self) -> Usage;
}
