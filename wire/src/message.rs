//! The messages of the control plane.
//!
//! A frame is a length (`u32`, little endian, at most
//! [`MAX_FRAME`]) and a message in
//! bincode's standard configuration. A client has one request under way at a
//! time on its connection and gets one reply to each.

use bincode::{BorrowDecode, Decode, Encode};

use crate::limits::MAX_FRAME;

/// A path below `CAPIO_DIR`: relative to a directory named by its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Name<'a> {
    /// Inode of the directory that `path` starts from; 0: `CAPIO_DIR`.
    pub base: u64,
    /// Bytes without a NUL; empty: the directory itself.
    pub path: &'a [u8],
}

/// An open file description as messages name it. A message of a process that was
/// killed may be read when the number is another description's already, which it must
/// not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OfdId {
    /// Index of its records.
    pub id: u32,
    /// Generation of these ([`OfdMeta::generation`](crate::layout::OfdMeta)).
    pub generation: u32,
}

/// What an attribute call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Target<'a> {
    /// A path; `follow`: through a symbolic link at its end.
    Path {
        /// The path.
        name: Name<'a>,
        /// Follow a symbolic link at the end.
        follow: bool,
    },
    /// An open file description.
    Ofd(OfdId),
    /// A directory, or a file of the lower layer, that the client has open: by inode.
    Directory(u64),
}

/// A time to set, as `utimensat(2)` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SetTime {
    /// Leave it.
    Omit,
    /// The coordinator's clock.
    Now,
    /// Nanoseconds since the epoch.
    At(i64),
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Request<'a> {
    /// First on every connection.
    Hello {
        /// [`crate::limits::VERSION`].
        version: u32,
        /// Step: `CAPIO_APP_NAME`.
        app: &'a [u8],
        /// The process was forked by a process that was attached, and has its
        /// mappings.
        forked: bool,
    },
    /// `open(2)`. Replies: [`Reply::Opened`], [`Reply::Directory`],
    /// [`Reply::Native`], [`Reply::Wait`].
    Open {
        /// The path.
        name: Name<'a>,
        /// Flags of `open(2)`.
        flags: i32,
        /// Mode, without the bits of the umask.
        mode: u32,
        /// Thread record that would wait.
        thread: u32,
    },
    /// `open(2)` of a descriptor's name in `/proc/self/fd`: a description of
    /// its own of the same file. Replies as to [`Request::Open`].
    Reopen {
        /// Open file description.
        ofd: OfdId,
        /// Flags of `open(2)`.
        flags: i32,
        /// Thread record that would wait.
        thread: u32,
    },
    /// Attributes: [`Reply::Attributes`], [`Reply::Native`], [`Reply::Wait`].
    Stat {
        /// Of what.
        target: Target<'a>,
        /// Thread record that would wait.
        thread: u32,
    },
    /// `access(2)`.
    Access {
        /// Of what.
        target: Target<'a>,
        /// `R_OK`, `W_OK`, `X_OK`.
        mode: u32,
        /// Thread record that would wait.
        thread: u32,
    },
    /// `chmod(2)`.
    Chmod {
        /// Of what.
        target: Target<'a>,
        /// Permission bits.
        mode: u32,
    },
    /// `chown(2)`; `u32::MAX` leaves an id.
    Chown {
        /// Of what.
        target: Target<'a>,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// `utimensat(2)`.
    Utimens {
        /// Of what.
        target: Target<'a>,
        /// Access time.
        accessed: SetTime,
        /// Modification time.
        modified: SetTime,
    },
    /// `truncate(2)`, `ftruncate(2)`.
    Truncate {
        /// Of what.
        target: Target<'a>,
        /// New size in bytes.
        size: u64,
    },
    /// `fallocate(2)`.
    Allocate {
        /// Open file description.
        ofd: OfdId,
        /// `FALLOC_FL_*`.
        mode: i32,
        /// Start in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
    /// `mkdir(2)`.
    Mkdir {
        /// The path.
        name: Name<'a>,
        /// Mode, without the bits of the umask.
        mode: u32,
    },
    /// `mknod(2)` of a named pipe, socket or plain file.
    Mknod {
        /// The path.
        name: Name<'a>,
        /// Type and mode, without the bits of the umask.
        mode: u32,
        /// Device number.
        device: u64,
    },
    /// `unlink(2)`, `rmdir(2)`.
    Unlink {
        /// The path.
        name: Name<'a>,
        /// `rmdir(2)`.
        directory: bool,
    },
    /// `renameat2(2)`.
    Rename {
        /// Old path.
        from: Name<'a>,
        /// New path.
        to: Name<'a>,
        /// `RENAME_*`.
        flags: u32,
    },
    /// `linkat(2)`.
    Link {
        /// Existing file.
        target: Target<'a>,
        /// New path.
        to: Name<'a>,
    },
    /// `symlinkat(2)`.
    Symlink {
        /// What the link says.
        content: &'a [u8],
        /// New path.
        name: Name<'a>,
    },
    /// `readlinkat(2)`: [`Reply::Path`].
    Readlink {
        /// The path.
        name: Name<'a>,
    },
    /// `realpath(3)`: [`Reply::Path`], absolute.
    Canonical {
        /// The path.
        name: Name<'a>,
    },
    /// What `/proc/self/fd` says of a description: [`Reply::Path`], absolute,
    /// with ` (deleted)` behind it when the file has no name any more.
    NameOf {
        /// Open file description.
        ofd: OfdId,
    },
    /// The kernel's path of a directory (its shadow), of a file that lies in
    /// the lower layer, or of a socket or pipe: [`Reply::Native`].
    Enter {
        /// The path.
        name: Name<'a>,
        /// Must be a directory.
        directory: bool,
    },
    /// The kernel's path of a program that is to run: [`Reply::Native`],
    /// [`Reply::Wait`], [`Reply::Soon`].
    Run {
        /// The program.
        target: Target<'a>,
        /// It is a library that is to be loaded.
        library: bool,
        /// Thread record that would wait.
        thread: u32,
    },
    /// Entries of a directory after `cookie`: [`Reply::Entries`],
    /// [`Reply::Wait`].
    List {
        /// Inode of the directory.
        directory: u64,
        /// 0, or the cookie of the last entry had.
        cookie: u64,
        /// Thread record that would wait.
        thread: u32,
    },
    /// Pages for a write of `length` bytes at `offset`: [`Reply::Ok`],
    /// [`Reply::Wait`] or [`Reply::Soon`] while room is made, `ENOSPC`.
    Grant {
        /// Open file description.
        ofd: OfdId,
        /// Start in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// Thread record that would wait.
        thread: u32,
    },
    /// Brings the piece at `offset` back from the store, and some of the
    /// `length` bytes from there on: [`Reply::Ok`], [`Reply::Wait`],
    /// [`Reply::Soon`], `EIO`.
    Fetch {
        /// Open file description.
        ofd: OfdId,
        /// Start in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// Thread record that would wait.
        thread: u32,
    },
    /// `fsync(2)`: [`Reply::Ok`], [`Reply::Wait`], [`Reply::Soon`], `EIO`,
    /// `ENOSPC`.
    Sync {
        /// Open file description.
        ofd: OfdId,
        /// Thread record that would wait.
        thread: u32,
    },
    /// Moves the file into an inode of its own, so that the descriptor can be
    /// mapped: [`Reply::Ok`], [`Reply::Soon`], `ENOMEM`.
    Map {
        /// Open file description.
        ofd: OfdId,
        /// Where a mapping that can be written to ends in the file; 0: none.
        end: u64,
    },
    /// From now on the kernel does all calls on a description whose file it
    /// has ([`Request::Map`]); its offset is set by the client.
    HandOver {
        /// Open file description.
        ofd: OfdId,
    },
    /// A range beyond the frontier is completely written, or (empty) the
    /// frontier has reached a withheld one.
    Published {
        /// Open file description.
        ofd: OfdId,
        /// First byte.
        start: u64,
        /// After its last byte.
        end: u64,
    },
    /// `F_SETFL`.
    SetFlags {
        /// Open file description.
        ofd: OfdId,
        /// Status flags.
        flags: i32,
    },
    /// `statfs(2)`: [`Reply::Space`].
    Space,
    /// `getxattr(2)`: [`Reply::Value`], [`Reply::Native`], [`Reply::Wait`].
    GetXattr {
        /// Of what.
        target: Target<'a>,
        /// The attribute, with its namespace.
        name: &'a [u8],
        /// Thread record that would wait.
        thread: u32,
    },
    /// `listxattr(2)`: [`Reply::Value`] of names, each with a NUL behind it;
    /// [`Reply::Native`], [`Reply::Wait`].
    ListXattrs {
        /// Of what.
        target: Target<'a>,
        /// Thread record that would wait.
        thread: u32,
    },
    /// `setxattr(2)`: [`Reply::Ok`], [`Reply::Native`].
    SetXattr {
        /// Of what.
        target: Target<'a>,
        /// The attribute, with its namespace.
        name: &'a [u8],
        /// At most [`MAX_XATTRS`](crate::limits::MAX_XATTRS) bytes.
        value: &'a [u8],
        /// `XATTR_*`.
        flags: u32,
    },
    /// `removexattr(2)`: [`Reply::Ok`], [`Reply::Native`].
    RemoveXattr {
        /// Of what.
        target: Target<'a>,
        /// The attribute, with its namespace.
        name: &'a [u8],
    },
}

/// Attributes of a file, as `stat(2)` gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Attributes {
    /// `st_ino`.
    pub inode: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Number of names.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `st_rdev`.
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes that are taken in the cache or below.
    pub allocated: u64,
    /// Access time, ns since the epoch.
    pub accessed: i64,
    /// Modification time, ns since the epoch.
    pub modified: i64,
    /// Change time, ns since the epoch.
    pub changed: i64,
    /// Time of birth, ns since the epoch.
    pub born: i64,
}

/// What the coordinator answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Reply<'a> {
    /// Done.
    Ok,
    /// Refused: an error number of the kernel.
    Error(i32),
    /// Not yet: sleep on the thread's `wake` word, then ask again.
    Wait,
    /// Not yet: ask again in a while.
    Soon,
    /// To `Hello`: with three descriptors (arena, meta, sync) unless forked.
    Welcome {
        /// Process record.
        process: u32,
        /// Its generation.
        generation: u32,
        /// Size of the arena in bytes.
        arena: u64,
    },
    /// To `Open`: with the descriptor of the reservation.
    Opened {
        /// Open file description.
        ofd: OfdId,
    },
    /// To `Open`: with a descriptor of the shadow directory.
    Directory {
        /// Inode.
        inode: u64,
    },
    /// Do the real call on this path of the kernel.
    Native {
        /// Absolute, without a NUL.
        path: &'a [u8],
        /// The file lies in the lower layer: it is the session's all the same.
        lower: bool,
        /// Attributes to show for it, when it is the session's.
        inode: u64,
    },
    /// Attributes.
    Attributes(Attributes),
    /// A path or the content of a symbolic link.
    Path(&'a [u8]),
    /// Entries of a directory, see [`Entry`].
    Entries {
        /// Packed entries.
        packed: &'a [u8],
        /// Nothing follows.
        last: bool,
    },
    /// To `Space`.
    Space {
        /// Limit of the cache in bytes.
        total: u64,
        /// What is free of it.
        free: u64,
        /// Files in the session.
        files: u64,
    },
    /// An extended attribute, or the names of all.
    Value(&'a [u8]),
}

/// An entry of a directory in [`Reply::Entries`]: `cookie` (8 bytes), `inode`
/// (8), type as `DT_*` (1), length of the name (1), name; little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Position after this entry.
    pub cookie: u64,
    /// Inode.
    pub inode: u64,
    /// `DT_*`.
    pub kind: u8,
    /// 1 to 255 bytes.
    pub name: &'a [u8],
}

/// Bytes of an [`Entry`] before its name.
pub const ENTRY_HEAD: usize = 18;

impl<'a> Entry<'a> {
    /// Takes the first entry from `packed`; `None` when nothing whole is left.
    #[must_use]
    pub fn take(packed: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (cookie, rest) = packed.split_first_chunk::<8>()?;
        let (inode, rest) = rest.split_first_chunk::<8>()?;
        let (&[kind, length], rest) = rest.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(length as usize)?;
        let entry = Self {
            cookie: u64::from_le_bytes(*cookie),
            inode: u64::from_le_bytes(*inode),
            kind,
            name,
        };
        Some((entry, rest))
    }

    /// The bytes before the name.
    #[must_use]
    pub fn head(&self) -> [u8; ENTRY_HEAD] {
        let mut head = [0; ENTRY_HEAD];
        let words = self
            .cookie
            .to_le_bytes()
            .into_iter()
            .chain(self.inode.to_le_bytes());
        let bytes = words.chain([self.kind, self.name.len() as u8]);
        head.iter_mut()
            .zip(bytes)
            .for_each(|(slot, byte)| *slot = byte);
        head
    }
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_FRAME>()
}

/// Encodes `message` with its length word into `buffer` and returns the whole
/// frame's length; `None` if it does not fit.
pub fn encode<T: Encode>(message: &T, buffer: &mut [u8]) -> Option<usize> {
    let (head, body) = buffer.split_first_chunk_mut::<4>()?;
    let length = bincode::encode_into_slice(message, body, config()).ok()?;
    if length > MAX_FRAME {
        return None;
    }
    *head = u32::try_from(length).ok()?.to_le_bytes();
    Some(length + 4)
}

/// Decodes the body of a frame; `None` if it is malformed or has a rest.
pub fn decode<'a, T: BorrowDecode<'a, ()>>(body: &'a [u8]) -> Option<T> {
    let (message, used) = bincode::borrow_decode_from_slice(body, config()).ok()?;
    (used == body.len()).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MAX_PATH, MAX_XATTR_NAME, MAX_XATTRS};
    use std::vec::Vec;

    fn frame<T: Encode>(message: &T) -> Vec<u8> {
        let mut buffer = [0; 512];
        let length = encode(message, &mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn golden_bytes_of_a_request() {
        let name = Name {
            base: 7,
            path: b"a/b",
        };
        let open = Request::Open {
            name,
            flags: 0o101,
            mode: 0o644,
            thread: 3,
        };
        let bytes = frame(&open);
        assert_eq!(
            bytes,
            b"\x0b\0\0\0\x01\x07\x03a/b\x82\xfb\xa4\x01\x03"[..].to_vec()
        );
        assert_eq!(decode::<Request<'_>>(&bytes[4..]), Some(open));
    }

    #[test]
    fn malformed_frames_are_refused() {
        let bytes = frame(&Request::Readlink {
            name: Name {
                base: 0,
                path: b"x",
            },
        });
        assert!(decode::<Request<'_>>(&bytes[4..bytes.len() - 1]).is_none());
        let mut longer = bytes[4..].to_vec();
        longer.push(0);
        assert!(decode::<Request<'_>>(&longer).is_none());
        assert!(decode::<Request<'_>>(&[0xff; 40]).is_none());
        assert!(decode::<Request<'_>>(&[]).is_none());
    }

    #[test]
    fn the_longest_attribute_fits_a_frame_beside_the_longest_path() {
        let (path, value) = ([b'p'; MAX_PATH], [b'v'; MAX_XATTRS]);
        let name = Name {
            base: u64::MAX,
            path: &path,
        };
        let target = Target::Path { name, follow: true };
        let set = Request::SetXattr {
            target,
            name: &[b'n'; MAX_XATTR_NAME],
            value: &value,
            flags: u32::MAX,
        };
        let mut buffer = std::vec![0; MAX_FRAME + 4];
        let length = encode(&set, &mut buffer).unwrap();
        assert_eq!(decode::<Request<'_>>(&buffer[4..length]), Some(set));
    }

    #[test]
    fn entries_survive_packing() {
        let entry = Entry {
            cookie: 9,
            inode: 1 << 40,
            kind: 8,
            name: b"reads.fq",
        };
        let mut packed = entry.head().to_vec();
        packed.extend_from_slice(entry.name);
        assert_eq!(Entry::take(&packed), Some((entry, &[][..])));
        assert_eq!(Entry::take(&packed[..packed.len() - 1]), None);
    }
}
