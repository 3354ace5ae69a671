//! Numbers that both sides must agree on.

/// Version of the protocol and the layout; a client with another is refused.
pub const VERSION: u32 = 3;

/// Most bytes of one frame, without its length word.
pub const MAX_FRAME: usize = 64 * 1024;

/// Most bytes of a path, with its NUL (Linux `PATH_MAX`).
pub const MAX_PATH: usize = 4096;

/// Most bytes of the name of an extended attribute, without its NUL (Linux
/// `XATTR_NAME_MAX`).
pub const MAX_XATTR_NAME: usize = 255;

/// Most bytes of the extended attributes of one file, names and values: so
/// that one of them, or the names of all, fits a frame beside a path.
pub const MAX_XATTRS: usize = MAX_FRAME - 2 * MAX_PATH;

/// A page of the arena: the unit of the block map, in bytes.
pub const PAGE: u64 = 4096;

/// A chunk of the large pool, in bytes.
pub const CHUNK: u64 = 2 * 1024 * 1024;

/// Files that can be in the cache at once.
pub const MAX_FILES: u32 = 1 << 20;

/// Open file descriptions that can exist at once.
pub const MAX_OFDS: u32 = 1 << 16;

/// Processes that can be attached at once.
pub const MAX_PROCESSES: u32 = 1 << 11;

/// Threads of one process with a record of their own; further threads share
/// the last one.
pub const MAX_THREADS: u32 = 63;

/// Index blocks of large files.
pub const MAX_MAP_BLOCKS: u32 = 1 << 15;

/// Largest file, in bytes: what the block map of a file reaches.
pub const MAX_FILE_SIZE: u64 = crate::layout::MAX_MAPPED;

/// What a directory says that it takes, in bytes.
pub const DIRECTORY_BYTES: u64 = 4096;

/// Descriptors that the shim keeps track of.
pub const MAX_DESCRIPTORS: u32 = 1 << 20;
