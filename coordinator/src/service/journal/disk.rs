//! The calls that change the disk. Each is a *step*: what a crash may fall
//! between.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

use super::Attributes;
use crate::session::FileName;

/// Bytes compared with zero, hashed and written at a time.
const BLOCK: usize = 4096;

/// Where a test may end this process.
#[inline]
pub(super) fn step() {
    #[cfg(test)]
    super::tests::step();
}

pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    step();
    fs::DirBuilder::new().mode(mode).create(path)
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step();
    fs::rename(from, to)
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    step();
    fs::remove_file(path)
}

pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    step();
    fs::remove_dir(path)
}

pub(super) fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    step();
    fs::hard_link(from, to)
}

pub(super) fn symlink(content: &Path, path: &Path) -> io::Result<()> {
    step();
    std::os::unix::fs::symlink(content, path)
}

pub(super) fn make_node(path: &Path, format: u32, device: u64) -> io::Result<()> {
    step();
    let kind = SFlag::from_bits_truncate(format);
    Ok(mknod(path, kind, Mode::from_bits_truncate(0o600), device)?)
}

/// A file of this user alone, new or emptied.
pub(super) fn create(path: &Path) -> io::Result<File> {
    step();
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    options.mode(0o600).open(path)
}

/// A whole small file, synced.
pub(super) fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let file = create(path)?;
    step();
    file.write_all_at(content, 0)?;
    sync(&file)
}

pub(super) fn sync(file: &File) -> io::Result<()> {
    step();
    file.sync_all()
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    step();
    match File::open(path)?.sync_all() {
        // Some file systems keep names without being asked.
        Err(error) if is_unsupported(&error) => Ok(()),
        synced => synced,
    }
}

/// The file system has no such thing.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOLCK)
    )
}

/// Checksum of a sparse file: of its 4 KiB blocks that are not all zeros, and
/// where they lie. Holes cost nothing.
#[derive(Default)]
pub(in crate::service) struct SparseSum(crc32fast::Hasher);

impl SparseSum {
    fn add(&mut self, offset: u64, block: &[u8]) {
        self.0.update(&offset.to_le_bytes());
        let end = block.iter().rposition(|&byte| byte != 0);
        // The last block may be cut short: zeros at an end say nothing.
        self.0.update(&block[..end.map_or(0, |at| at + 1)]);
    }

    /// The sum of what went in, and of the size.
    #[must_use]
    pub(in crate::service) fn finish(mut self, size: u64) -> u32 {
        self.0.update(&size.to_le_bytes());
        self.0.finalize()
    }
}

/// Writes `content` (which starts at a multiple of 4 KiB) at `offset`, but no
/// block that is all zeros, and adds to the sum.
///
/// # Errors
/// When it cannot be written.
pub(in crate::service) fn write_sparse(
    file: &File,
    offset: u64,
    content: &[u8],
    sum: &mut SparseSum,
) -> io::Result<()> {
    let mut from = None;
    let mut at = 0;
    for block in content.chunks(BLOCK) {
        if is_zero(block) {
            if let Some(from) = from.take() {
                file.write_all_at(&content[from..at], offset + from as u64)?;
            }
        } else {
            sum.add(offset + at as u64, block);
            from.get_or_insert(at);
        }
        at += block.len();
    }
    match from {
        Some(from) => file.write_all_at(&content[from..], offset + from as u64),
        None => Ok(()),
    }
}

fn is_zero(block: &[u8]) -> bool {
    let (words, rest) = block.as_chunks::<16>();
    let zero = |word: &[u8; 16]| u128::from_ne_bytes(*word) == 0;
    words.iter().all(zero) && rest.iter().all(|&byte| byte == 0)
}

/// Parts of a file on disk that are no holes: offset and end.
///
/// # Errors
/// When it cannot be looked at.
pub(in crate::service) fn data_of(file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    use nix::errno::Errno;
    use nix::unistd::{Whence, lseek};
    let mut parts = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match lseek(file, at as i64, Whence::SeekData) {
            Ok(start) => start as u64,
            Err(Errno::ENXIO) => break,
            // A file system that knows no holes.
            Err(Errno::EINVAL) => return Ok(vec![(0, size)]),
            Err(error) => return Err(error.into()),
        };
        let end = lseek(file, start as i64, Whence::SeekHole)? as u64;
        parts.push((start, end.min(size)));
        at = end;
    }
    Ok(parts)
}

/// The sum of a file on disk.
pub(super) fn sum_of(path: &Path) -> io::Result<(u64, u32)> {
    let file = File::open(path)?;
    let size = file.metadata()?.size();
    let mut sum = SparseSum::default();
    let mut buffer = vec![0; 1 << 20];
    let (whole, mut next) = (BLOCK as u64, 0);
    for (start, end) in data_of(&file, size)? {
        let mut at = next.max(start / whole * whole);
        next = end.div_ceil(whole) * whole;
        while at < end {
            let length = (size - at).min(buffer.len() as u64) as usize;
            let part = &mut buffer[..length];
            file.read_exact_at(part, at)?;
            for (index, block) in part.chunks(BLOCK).enumerate() {
                let offset = at + (index * BLOCK) as u64;
                if offset < end && !is_zero(block) {
                    sum.add(offset, block);
                }
            }
            at += length as u64;
        }
    }
    Ok((size, sum.finish(size)))
}

fn time(ns: Option<i64>) -> TimeSpec {
    let Some(ns) = ns else {
        return TimeSpec::UTIME_OMIT;
    };
    TimeSpec::new(ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000))
}

/// Extended attributes that belong to the file's content: the user's, the
/// administrator's (if he asks), and access lists.
#[must_use]
pub(in crate::service) fn extended_of(path: &Path) -> Vec<(FileName, Vec<u8>)> {
    use std::os::unix::ffi::OsStrExt;
    let names = xattr::list(path).into_iter().flatten();
    let ours = names.filter(|name| {
        let name = name.as_bytes();
        let kept: [&[u8]; 3] = [b"user.", b"trusted.", b"system.posix_acl_"];
        kept.iter().any(|kept| name.starts_with(kept))
    });
    let pairs = ours.filter_map(|name| {
        let value = xattr::get(path, &name).ok().flatten()?;
        Some((FileName(name.as_bytes().to_vec()), value))
    });
    pairs.collect()
}

/// Sets owner, permissions and times of what is at `path`, links not followed.
pub(super) fn set_attributes(path: &Path, attributes: &Attributes) -> io::Result<()> {
    step();
    let meta = path.symlink_metadata()?;
    if let Some((mode, uid, gid)) = attributes.mode {
        let mut mode = mode;
        if (meta.uid(), meta.gid()) != (uid, gid) {
            let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            if fchownat(AT_FDCWD, path, owner, group, flags).is_err() {
                // Only root may give files away; as for `cp -p`, that is no
                // error, but nobody else's rights are given either.
                mode &= !0o6000;
            }
        }
        if !meta.is_symlink() {
            let bits = Mode::from_bits_truncate(mode);
            fchmodat(AT_FDCWD, path, bits, FchmodatFlags::FollowSymlink)?;
        }
    }
    let (accessed, modified) = (time(attributes.accessed), time(attributes.modified));
    let flags = UtimensatFlags::NoFollowSymlink;
    utimensat(AT_FDCWD, path, &accessed, &modified, flags)?;
    Ok(())
}

/// The same with extended attributes, where the file system has any. Owners,
/// and attributes that are not the user's, are set as far as that is allowed.
///
/// # Errors
/// When one cannot be set.
pub(in crate::service) fn set_all_attributes(
    path: &Path,
    attributes: &Attributes,
) -> io::Result<()> {
    if attributes.exact {
        let listed = |name: &FileName| attributes.extended.iter().any(|(one, _)| one == name);
        let others = extended_of(path).into_iter().map(|(name, _)| name);
        for name in others.filter(|name| name.0.starts_with(b"user.") && !listed(name)) {
            xattr::remove(path, name.as_path())?;
        }
    }
    for name in &attributes.without {
        match xattr::remove(path, name.as_path()) {
            Err(error) if error.raw_os_error() != Some(libc::ENODATA) => {
                passed_over(name, error)?;
            }
            _ => {}
        }
    }
    for (name, value) in &attributes.extended {
        xattr::set(path, name.as_path(), value).or_else(|error| passed_over(name, error))?;
    }
    set_attributes(path, attributes)
}

/// Whether it does not matter that an extended attribute could not be changed.
fn passed_over(name: &FileName, error: io::Error) -> io::Result<()> {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    if is_unsupported(&error) || (denied && !name.0.starts_with(b"user.")) {
        return Ok(());
    }
    Err(error)
}

/// The same, synced if it is a directory: its permissions may not allow that
/// later.
pub(super) fn set_synced(path: &Path, attributes: &Attributes) -> io::Result<()> {
    let directory = path.symlink_metadata()?.is_dir();
    let open = if directory {
        File::open(path).ok()
    } else {
        None
    };
    set_all_attributes(path, attributes)?;
    match open.map(|open| sync(&open)) {
        Some(Err(error)) if !is_unsupported(&error) => Err(error),
        _ => Ok(()),
    }
}
