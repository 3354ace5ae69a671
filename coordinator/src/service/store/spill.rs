//! A store in one file without a name, which the kernel removes when the
//! coordinator ends, however it ends.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FallocateFlags, fallocate};
use wire::limits::{CHUNK, PAGE};

use super::super::halves::{CHUNK_PAGES, Halves, ORDERS, order_of};
use super::super::shm::Region;
use super::{Key, Source, Store, Usage};

/// Free chunks that keep their blocks on the device, to be written again.
const KEPT: usize = 64;

/// Where something lies in the file.
#[derive(Clone, Copy)]
struct Slot {
    /// Number of its first page.
    page: u32,
    order: usize,
    /// Bytes that were put.
    length: u64,
}

impl Slot {
    fn start(self) -> u64 {
        u64::from(self.page) * PAGE
    }

    fn bytes(self) -> u64 {
        PAGE << self.order
    }
}

#[derive(Default)]
struct Index {
    slots: HashMap<Key, Slot>,
    parts: Halves,
    /// Whole chunks that are free, with blocks on the device.
    chunks: Vec<u32>,
    /// The same without.
    holes: Vec<u32>,
    /// Chunks never used start here.
    end: u32,
    used: u64,
}

impl Index {
    fn chunk(&mut self) -> Option<u32> {
        self.chunks.pop().or_else(|| self.holes.pop()).or_else(|| {
            let chunk = self.end;
            self.end = chunk
                .checked_add(1)
                .filter(|end| *end < u32::MAX / CHUNK_PAGES)?;
            Some(chunk)
        })
    }

    fn take(&mut self, order: usize) -> Option<u32> {
        if order == ORDERS {
            return self.chunk().map(|chunk| chunk * CHUNK_PAGES);
        }
        self.parts.take(order).or_else(|| {
            let chunk = self.chunk()?;
            Some(self.parts.take_from(chunk, order))
        })
    }

    /// Frees a slot; a chunk that is to lose its blocks.
    fn give(&mut self, slot: Slot) -> Option<u32> {
        self.used -= slot.bytes().min(self.used);
        let whole = if slot.order == ORDERS {
            Some(slot.page / CHUNK_PAGES)
        } else {
            self.parts.give(slot.page, slot.order)
        };
        let chunk = whole?;
        if self.chunks.len() < KEPT {
            self.chunks.push(chunk);
            return None;
        }
        Some(chunk)
    }
}

/// See the module.
pub(in super::super) struct SpillFile {
    file: File,
    limit: u64,
    index: Mutex<Index>,
}

impl SpillFile {
    /// Makes the file in `dir`; it takes at most `limit` bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub(in super::super) fn create(dir: &Path, limit: u64) -> io::Result<Self> {
        Ok(Self {
            file: nameless(dir)?,
            limit,
            index: Mutex::default(),
        })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, key: Key) -> io::Result<Slot> {
        let slot = self.index().slots.get(&key).copied();
        slot.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn take(&self, length: u64) -> io::Result<Slot> {
        let order = order_of(length);
        let bytes = PAGE << order;
        if length > CHUNK {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut index = self.index();
        let full = index.used.saturating_add(bytes) > self.limit;
        let page = if full { None } else { index.take(order) };
        let page = page.ok_or(io::ErrorKind::StorageFull)?;
        index.used += bytes;
        Ok(Slot {
            page,
            order,
            length,
        })
    }

    fn give(&self, slot: Slot) {
        let Some(chunk) = self.index().give(slot) else {
            return;
        };
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let start = u64::from(chunk) * CHUNK;
        // Where the file system cannot, the blocks stay until the end.
        let _ = fallocate(self.file.as_fd(), hole, start as i64, CHUNK as i64);
        self.index().holes.push(chunk);
    }
}

/// What the name of a store begins with where a file must have one, for a moment.
pub(in super::super) const NAMED: &str = ".capio-spill-";

/// A file that has no name, or none any more.
fn nameless(dir: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    let made = options.custom_flags(libc::O_TMPFILE).open(dir);
    match made {
        Err(error) if dir.is_dir() && error.raw_os_error() != Some(libc::EACCES) => {
            let name = dir.join(format!("{NAMED}{}", std::process::id()));
            let file = options.custom_flags(0).create_new(true).open(&name)?;
            std::fs::remove_file(&name)?;
            Ok(file)
        }
        made => made,
    }
}

impl Store for SpillFile {
    fn put(&self, key: Key, source: Source<'_>) -> io::Result<()> {
        let slot = self.take(source.length())?;
        if let Err(error) = source.write_to(&self.file, slot.start()) {
            self.give(slot);
            return Err(error);
        }
        self.index().slots.insert(key, slot);
        Ok(())
    }

    fn get(&self, key: Key, arena: &Region, offset: u64) -> io::Result<u64> {
        let slot = self.slot(key)?;
        arena.read_from(offset, slot.length, &self.file, slot.start())?;
        Ok(slot.length)
    }

    fn read(&self, key: Key, from: u64, into: &mut [u8]) -> io::Result<()> {
        let slot = self.slot(key)?;
        let there = slot.length.saturating_sub(from).min(into.len() as u64);
        let (there, beyond) = into.split_at_mut(there as usize);
        beyond.fill(0);
        self.file.read_exact_at(there, slot.start() + from)
    }

    fn remove(&self, key: Key) {
        let slot = self.index().slots.remove(&key);
        if let Some(slot) = slot {
            self.give(slot);
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn usage(&self) -> Usage {
        let used = self.index().used;
        let device = nix::sys::statvfs::fstatvfs(&self.file);
        let device = device.map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
        Usage {
            used,
            free: self.limit.saturating_sub(used).min(device),
        }
    }
}

/// Where a store goes that nobody has chosen a place for: `TMPDIR`, `/var/tmp`,
/// `/tmp`, or `dir`, the first that can be written to and is not in memory.
#[must_use]
pub(in super::super) fn default_place(dir: &Path) -> PathBuf {
    let chosen = std::env::var_os("TMPDIR").map(PathBuf::from);
    let usual = ["/var/tmp", "/tmp"].map(PathBuf::from);
    let mut places = chosen.into_iter().chain(usual);
    let is_usable = |place: &PathBuf| is_on_device(place) && nameless(place).is_ok();
    places.find(is_usable).unwrap_or_else(|| dir.to_path_buf())
}

fn is_on_device(place: &Path) -> bool {
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    let kind = nix::sys::statfs::statfs(place).map(|stat| stat.filesystem_type());
    kind.is_ok_and(|kind| kind != nix::sys::statfs::TMPFS_MAGIC && kind.0 != RAMFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spill(limit: u64) -> (SpillFile, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (SpillFile::create(dir.path(), limit).unwrap(), dir)
    }

    #[test]
    fn what_was_put_comes_back_whatever_its_size() {
        let (spill, dir) = spill(u64::MAX);
        let contents: Vec<Vec<u8>> = [1, 4096, 4097, 70_000, 1 << 20, 2 << 20]
            .iter()
            .map(|&length| {
                (0..length)
                    .map(|at| (at % 251 + length % 7) as u8)
                    .collect()
            })
            .collect();
        for (key, content) in (0..).zip(&contents) {
            spill.put(Key(key), Source::Bytes(content)).unwrap();
        }
        for (key, content) in (0..).zip(&contents) {
            let mut back = vec![7; content.len() + 10];
            spill.read(Key(key), 0, &mut back).unwrap();
            assert_eq!(&back[..content.len()], &content[..]);
            assert_eq!(&back[content.len()..], &[0; 10]);
        }
        spill.sync().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn removed_bytes_make_room_within_the_limit() {
        let (spill, _dir) = spill(2 * CHUNK);
        let content = vec![3; CHUNK as usize];
        for round in 0..100 {
            spill.put(Key(2 * round), Source::Bytes(&content)).unwrap();
            spill
                .put(Key(2 * round + 1), Source::Bytes(&content))
                .unwrap();
            let full = spill.put(Key(9999), Source::Bytes(&[1])).unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            spill.remove(Key(2 * round));
            spill.remove(Key(2 * round + 1));
            assert_eq!(spill.usage().used, 0);
        }
        assert!(spill.file.metadata().unwrap().len() <= 2 * CHUNK);
        assert_eq!(
            spill.read(Key(0), 0, &mut [0]).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn many_removed_chunks_leave_the_device() {
        use std::os::unix::fs::MetadataExt;
        let (spill, _dir) = spill(u64::MAX);
        let content = vec![3; CHUNK as usize];
        for key in 0..100 {
            spill.put(Key(key), Source::Bytes(&content)).unwrap();
        }
        (0..100).for_each(|key| spill.remove(Key(key)));
        let blocks = spill.file.metadata().unwrap().blocks();
        assert!(blocks * 512 <= KEPT as u64 * CHUNK, "{blocks} blocks");
    }
}
