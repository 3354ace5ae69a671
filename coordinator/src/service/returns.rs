//! Kernel-backed files that nobody has open or mapped any more: their bytes go
//! to the store, so that the cache has their memory back, and the file is one
//! of the arena's again. (The last close of a description is reported when its
//! last mapping is gone, too.)

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use wire::layout::{ENTRY_STORED, FILE_KERNEL, Piece};
use wire::limits::CHUNK;

use super::below::After;
use super::records::Records;
use super::store::{Job, Key};

/// A piece on its way: the store has it once its job is done.
struct Returning {
    index: u32,
    key: Key,
    job: Option<u64>,
}

/// A file on its way back.
struct Return {
    pieces: Vec<Returning>,
    /// What the cache will have back, in bytes.
    bytes: u64,
}

/// All of them, by file record.
#[derive(Default)]
pub(super) struct Returns {
    going: HashMap<u32, Return>,
    /// Files that the store had no room for.
    refused: HashSet<u32>,
}

impl Returns {
    /// Bytes that will be free by them.
    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.going.values().map(|going| going.bytes).sum()
    }
}

impl Records {
    /// Begins to bring an idle file back; bytes that will be free by it.
    pub(super) fn begin_return(&mut self, record: u32) -> u64 {
        let returns = &self.below.returns;
        let known = returns.going.contains_key(&record) || returns.refused.contains(&record);
        let Some(backed) = self.kernel.get(&record) else {
            return 0;
        };
        let Ok(inode) = backed.to_return().filter(|_| !known).ok_or(()) else {
            return 0;
        };
        let bytes = backed.lent_bytes();
        let size = self.size(record);
        let mut pieces = Vec::new();
        for piece in pieces_of(&self.data_kernel(record, size)) {
            let key = self.below.key();
            let job = Job::Copy {
                key,
                file: Arc::clone(&inode),
                at: piece.start,
                length: piece.length.min(size - piece.start),
            };
            let job = self.below.submit(job, After::Returned(record));
            pieces.push(Returning {
                index: piece.index,
                key,
                job: Some(job),
            });
        }
        self.below
            .returns
            .going
            .insert(record, Return { pieces, bytes });
        self.go_on_returning(record);
        bytes
    }

    /// Somebody uses the file: it stays the kernel's.
    pub(super) fn undo_return(&mut self, record: u32) {
        self.below.returns.refused.remove(&record);
        let Some(going) = self.below.returns.going.remove(&record) else {
            return;
        };
        for piece in going.pieces {
            match piece.job {
                Some(job) => self.below.unwanted(job, piece.key),
                None => self.below.remove(piece.key),
            }
        }
    }

    /// A piece has come to the store, or could not. Bytes that are free by it.
    pub(super) fn returned(&mut self, record: u32, job: u64, came: bool) -> u64 {
        let Some(going) = self.below.returns.going.get_mut(&record) else {
            return 0;
        };
        going.pieces.retain_mut(|piece| {
            let is_it = piece.job == Some(job);
            if is_it {
                piece.job = None;
            }
            came || !is_it
        });
        if !came {
            self.undo_return(record);
            self.below.returns.refused.insert(record);
            return 0;
        }
        self.go_on_returning(record)
    }

    /// Makes the file one of the arena's once the store has all of it.
    fn go_on_returning(&mut self, record: u32) -> u64 {
        let is_done = |going: &Return| going.pieces.iter().all(|piece| piece.job.is_none());
        if !self.below.returns.going.get(&record).is_some_and(is_done) {
            return 0;
        }
        let going = self.below.returns.going.get(&record);
        let indices: Vec<u32> = going.map_or_else(Vec::new, |going| {
            going.pieces.iter().map(|p| p.index).collect()
        });
        if !indices.iter().all(|&index| self.make_entry(record, index)) {
            self.undo_return(record);
            return 0;
        }
        let Some(going) = self.below.returns.going.remove(&record) else {
            return 0;
        };
        for piece in going.pieces {
            self.below.is_there(record, piece.index, piece.key);
            if let Some(entry) = self.entry(record, piece.index) {
                entry.store(ENTRY_STORED, SeqCst);
            }
        }
        let file = self.shared.file(record);
        file.granted.store(0, SeqCst);
        file.flags.fetch_and(!FILE_KERNEL, SeqCst);
        self.empty_inode(record);
        going.bytes
    }
}

/// Whether no other description of the inode is open or mapped: only then the
/// kernel gives a lease for writing.
fn nobody_else_has(file: &File) -> bool {
    let lease = |kind: i32| {
        // SAFETY: integers.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) }
    };
    let given = lease(libc::F_WRLCK) == 0;
    if given {
        lease(libc::F_UNLCK);
    }
    given
}

/// The pieces that parts of a file lie in, each once.
fn pieces_of(parts: &[(u64, u64)]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for &(start, length) in parts {
        let mut at = Piece::at(start);
        while let Some(piece) = at
            && piece.start < start + length
        {
            if pieces.last() != Some(&piece) {
                pieces.push(piece);
            }
            at = piece.next();
        }
    }
    pieces
}

impl super::kernel::Backed {
    /// Its inode, if nobody but us can have it open: no program was run from
    /// it, and no description of it is the kernel's.
    fn to_return(&self) -> Option<Arc<File>> {
        let is_alone = self.file.metadata().is_ok_and(|meta| meta.nlink() == 1);
        let is_free = is_alone && !self.native && nobody_else_has(&self.file);
        is_free.then(|| Arc::clone(&self.file))
    }

    /// Memory that it keeps from the cache.
    fn lent_bytes(&self) -> u64 {
        self.lent * CHUNK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_that_is_mapped_or_open_is_somebodys() {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        file.as_file().set_len(4096).unwrap();
        let ours = File::open(file.path()).unwrap();
        assert!(!nobody_else_has(&ours));
        let (other, path) = file.keep().unwrap();
        // SAFETY: a file of our own that nobody changes.
        let map = unsafe { memmap2::Mmap::map(&other).unwrap() };
        drop(other);
        assert!(!nobody_else_has(&ours));
        drop(map);
        assert!(nobody_else_has(&ours));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn each_piece_of_a_sparse_file_is_taken_once() {
        let parts = [(0, 10), (100, 5000), (CHUNK + 1, 3), (CHUNK + 900, CHUNK)];
        let indices: Vec<u32> = pieces_of(&parts).iter().map(|piece| piece.index).collect();
        assert_eq!(indices, [0, 1, 10, 11]);
    }
}
