//! The table of names in shared memory: what programs may look at without asking.
//! [`Names`](super::names::Names) takes out of it what changes; what somebody has
//! asked for is put in, with the directories above it.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use wire::message::Attributes;
use wire::names::{Key, Known, MAX_BUCKETS};

use super::engine::Engine;
use super::names::{Inode, Kind};
use super::shm::Shared;
use crate::flow::FileId;

/// Buckets of a young session: 128 KiB.
const FIRST: u32 = 1 << 10;

/// See the module.
pub(super) struct NameTable {
    shared: Arc<Shared>,
    seed: u64,
    buckets: u32,
    /// Names put in since all were forgotten, less those removed.
    count: u32,
    /// Place whose name goes when a bucket is full.
    victim: usize,
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl NameTable {
    /// An empty table of what lies below `root`; `None`: there is no memory, and
    /// everything is asked for.
    #[must_use]
    pub(super) fn new(shared: Arc<Shared>, root: Inode) -> Option<Self> {
        shared.back_names().ok()?;
        shared.back_buckets(0, FIRST).ok()?;
        let table = Self {
            seed: random(),
            buckets: FIRST,
            count: 0,
            victim: 0,
            shared,
        };
        let names = table.shared.names();
        names.begin_change();
        names.root.store(root, Relaxed);
        table.tell_head();
        names.end_change();
        Some(table)
    }

    fn tell_head(&self) {
        let names = self.shared.names();
        names.seed.store(self.seed, Relaxed);
        names.mask.store(self.buckets - 1, Relaxed);
    }

    fn find(&self, key: Key) -> Option<Known> {
        let bucket = key.bucket(self.buckets - 1);
        self.shared.bucket(bucket).find(key)
    }

    /// Notes what `name` in `parent` stands for.
    fn put(&mut self, parent: Inode, name: &[u8], known: Known) {
        let key = Key::of(self.seed, parent, name);
        if self.find(key) == Some(known) {
            return;
        }
        // One name a bucket: few find theirs full.
        if self.count >= self.buckets && (self.buckets as usize) < MAX_BUCKETS {
            self.grow();
        }
        let names = self.shared.names();
        names.begin_change();
        let bucket = Key::of(self.seed, parent, name).bucket(self.buckets - 1);
        self.victim += 1;
        let lost = self.shared.bucket(bucket).put(key, known, self.victim);
        names.end_change();
        self.count += u32::from(!lost);
    }

    /// Forgets what `name` in `parent` stood for.
    pub(super) fn remove(&mut self, parent: Inode, name: &[u8]) {
        let key = Key::of(self.seed, parent, name);
        if self.find(key).is_none() {
            return;
        }
        let names = self.shared.names();
        names.begin_change();
        let bucket = key.bucket(self.buckets - 1);
        self.shared.bucket(bucket).remove(key);
        names.end_change();
        self.count = self.count.saturating_sub(1);
    }

    /// Notes the attributes of a directory.
    pub(super) fn tell(&mut self, attributes: &Attributes) {
        let place = self.shared.directory(attributes.inode);
        if place.get(attributes.inode).as_ref() == Some(attributes) {
            return;
        }
        let names = self.shared.names();
        names.begin_change();
        place.put(attributes);
        names.end_change();
    }

    /// Attributes of `inode`, which may be a directory, are about to change.
    pub(super) fn forget_attributes(&mut self, inode: Inode) {
        let place = self.shared.directory(inode);
        if place.get(inode).is_none() {
            return;
        }
        let names = self.shared.names();
        names.begin_change();
        place.forget(inode);
        names.end_change();
    }

    /// Forgets all: the old names are there still, but nobody finds them.
    pub(super) fn forget_all(&mut self) {
        self.seed = random();
        self.count = 0;
        let names = self.shared.names();
        names.begin_change();
        self.tell_head();
        names.end_change();
    }

    /// Twice as many buckets. Their names move with the next bit of their keys.
    fn grow(&mut self) {
        if self
            .shared
            .back_buckets(self.buckets, self.buckets * 2)
            .is_err()
        {
            return;
        }
        let names = self.shared.names();
        names.begin_change();
        for number in 0..self.buckets {
            let (low, high) = (
                self.shared.bucket(number),
                self.shared.bucket(number + self.buckets),
            );
            high.clear();
            low.split(high, self.buckets);
        }
        self.buckets *= 2;
        self.tell_head();
        names.end_change();
    }
}

impl Engine {
    /// Lets programs look at `name` in `parent`, which is `inode` and at `path`,
    /// without asking.
    pub(super) fn learn(&mut self, parent: Inode, name: &[u8], inode: Inode, path: &[u8]) {
        let Some(node) = self.names.get(inode).filter(|_| !name.is_empty()) else {
            return;
        };
        let known = match &node.kind {
            Kind::File(file) if file.record.is_none() => {
                let same = file.lower.as_deref() == Some(Path::new(OsStr::from_bytes(path)));
                // Another name may say something else of it.
                let alone = node.names.len() == 1 && is_alone(path);
                let told = self.flow.is_final(FileId(inode)) || !self.flow.is_read_by_rule(path);
                if !(same && alone && told && file.consumed) {
                    return;
                }
                Known::Lower { inode }
            }
            Kind::File(file) => {
                let Some(record) = file.record else { return };
                let generation = self.shared.file(record).generation.load(Relaxed);
                let free = !self.flow.is_read_by_rule(path);
                Known::File {
                    record,
                    generation,
                    free,
                }
            }
            Kind::Directory(_) => Known::Directory { inode },
            _ => return,
        };
        self.note(parent, name, known);
    }

    /// Lets programs see without asking that there is nothing by `name` in `parent`,
    /// at `path`, if nobody waits for it.
    pub(super) fn learn_missing(&mut self, parent: Inode, name: &[u8], path: &[u8]) {
        if !self.flow.is_awaited(path) {
            self.note(parent, name, Known::Missing);
        }
    }

    fn note(&mut self, parent: Inode, name: &[u8], known: Known) {
        let mut above = Vec::new();
        let mut at = parent;
        while at != self.names.root()
            && let Some((up, name)) = self.names.get(at).and_then(|node| node.names.first())
        {
            above.push((*up, name.clone(), at));
            at = *up;
        }
        if let Some(table) = &mut self.names.table {
            for (up, name, inode) in above {
                table.put(up, &name, Known::Directory { inode });
            }
            table.put(parent, name, known);
        }
    }
}

/// Whether a file on disk has one name.
fn is_alone(path: &[u8]) -> bool {
    let meta = std::fs::symlink_metadata(OsStr::from_bytes(path));
    meta.is_ok_and(|meta| meta.is_file() && meta.nlink() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> NameTable {
        let shared = Arc::new(Shared::create(wire::limits::CHUNK, 2, 1).unwrap());
        NameTable::new(shared, 5).unwrap()
    }

    fn directory(inode: u64) -> Known {
        Known::Directory { inode }
    }

    fn found(table: &NameTable, parent: u64, name: &[u8]) -> Option<Known> {
        table.find(Key::of(table.seed, parent, name))
    }

    #[test]
    fn names_stay_when_the_table_grows() {
        let mut table = table();
        let name = |number: u64| number.to_string().into_bytes();
        for number in 0..20_000 {
            table.put(5, &name(number), directory(number));
        }
        assert!(table.buckets > FIRST);
        let there = (0..20_000)
            .filter(|&number| found(&table, 5, &name(number)) == Some(directory(number)));
        // A few found their bucket full.
        assert!(there.count() > 19_800);
        let mask = table.shared.names().mask.load(Relaxed);
        assert_eq!(mask, table.buckets - 1);
    }

    #[test]
    fn what_is_removed_or_forgotten_is_not_told_any_more() {
        let mut table = table();
        table.put(5, b"a", directory(7));
        table.put(7, b"b", directory(8));
        table.remove(5, b"a");
        assert_eq!(found(&table, 5, b"a"), None);
        assert_eq!(found(&table, 7, b"b"), Some(directory(8)));
        table.forget_all();
        assert_eq!(found(&table, 7, b"b"), None);
        table.put(7, b"b", directory(9));
        assert_eq!(found(&table, 7, b"b"), Some(directory(9)));
    }
}
