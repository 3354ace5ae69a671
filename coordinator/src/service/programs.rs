//! Programs and libraries that lie in the cache, for the kernel to run and load:
//! a directory that has them by the names that they have below `CAPIO_DIR`, so
//! that what a program looks for beside itself is found.
//!
//! Each is a hard link of the file's inode. Where the session's file system is
//! mounted `noexec` the directory leads to another one, and holds copies.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::{FsFlags, statvfs};
use wire::message::Target;
use wire::place;

use super::attributes::Aim;
use super::calls::os_error;
use super::engine::{Answer, Client, Engine, Outcome};
use super::libraries::is_library;
use super::names::{Inode, Node, inside};
use crate::flow::{FileId, Reading, WaitFor};

/// What is being put into place.
const FRESH: &str = ".capio-fresh";
/// What the names of directories of programs begin with that lie elsewhere.
pub(super) const ELSEWHERE: &str = "capio-run-";

/// The directory of programs.
pub(super) struct Programs {
    root: PathBuf,
    copies: bool,
    /// Where each file record has been put.
    places: HashMap<u32, Vec<PathBuf>>,
}

impl Programs {
    /// Of the session in `session`, where [`prepare`] was.
    #[must_use]
    pub(super) fn new(session: &Path) -> Self {
        let root = session.join(place::RUN);
        Self {
            copies: root.is_symlink(),
            root,
            places: HashMap::new(),
        }
    }

    /// Puts the file of `record`, whose bytes are in `inode`, where the kernel
    /// finds it by `name` (below `CAPIO_DIR`); gives the path.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn put(&mut self, record: u32, name: &[u8], inode: &Path) -> io::Result<PathBuf> {
        let place = self.path(name);
        fs::set_permissions(inode, Permissions::from_mode(0o700))?;
        if !self.is_there(inode, &place) {
            make_room(&self.root, &place)?;
            let fresh = self.root.join(FRESH);
            if self.copies {
                copy(inode, &fresh)?;
            } else {
                fs::hard_link(inode, &fresh)?;
            }
            fs::rename(fresh, &place)?;
        }
        let places = self.places.entry(record).or_default();
        if !places.contains(&place) {
            places.push(place.clone());
        }
        Ok(place)
    }

    /// The kernel's path of `name` (below `CAPIO_DIR`).
    #[must_use]
    pub(super) fn path(&self, name: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(name))
    }

    /// Lets `name` (below `CAPIO_DIR`) lead to `real`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn link(&self, name: &[u8], real: &[u8]) -> io::Result<()> {
        let (place, real) = (self.path(name), OsStr::from_bytes(real));
        if fs::read_link(&place).is_ok_and(|old| old == real) {
            return Ok(());
        }
        make_room(&self.root, &place)?;
        let fresh = self.root.join(FRESH);
        symlink(real, &fresh)?;
        fs::rename(fresh, place)
    }

    /// Lets `name` lead to nothing.
    pub(super) fn clear(&self, name: &[u8]) {
        // Mostly nothing is there; a directory is not in the way.
        let _ = fs::remove_file(self.path(name));
    }

    /// Lets nothing be found in directory `name` that looks like a library and
    /// is none of `kept`.
    pub(super) fn clear_libraries(&self, name: &[u8], kept: &[Vec<u8>]) {
        let folder = self.path(name);
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in entries.map(|entry| entry.file_name()) {
            let name = entry.as_bytes();
            if is_library(name) && !kept.iter().any(|kept| kept == name) {
                let _ = fs::remove_file(folder.join(&entry));
            }
        }
    }

    /// Whether what lies at `place` is the file in `inode`, as it is now.
    fn is_there(&self, inode: &Path, place: &Path) -> bool {
        let (Ok(wanted), Ok(found)) = (fs::metadata(inode), place.symlink_metadata()) else {
            return false;
        };
        let content = |of: &fs::Metadata| (of.len(), of.mtime(), of.mtime_nsec());
        if self.copies {
            return found.is_file() && content(&wanted) == content(&found);
        }
        (wanted.dev(), wanted.ino()) == (found.dev(), found.ino())
    }

    /// Forgets a file whose bytes were in `inode`; what runs goes on.
    pub(super) fn forget(&mut self, record: u32, inode: &Path) {
        for place in self.places.remove(&record).unwrap_or_default() {
            // Another file may have taken its name.
            if self.is_there(inode, &place) {
                let _ = fs::remove_file(place);
            }
        }
    }
}

/// Makes the directory that `place` lies in, and lets nothing be in the way
/// that had these names before.
fn make_room(root: &Path, place: &Path) -> io::Result<()> {
    let above = place.ancestors().skip(1);
    for folder in above.take_while(|folder| folder.starts_with(root) && *folder != root) {
        if folder.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
            fs::remove_file(folder)?;
        }
    }
    if place.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        fs::remove_dir_all(place)?;
    }
    fs::create_dir_all(place.parent().unwrap_or(root))
}

fn copy(inode: &Path, to: &Path) -> io::Result<()> {
    let when = fs::metadata(inode)?.modified()?;
    fs::copy(inode, to)?;
    File::options().write(true).open(to)?.set_modified(when)
}

/// Whether nothing can be run from the file system of `path`.
fn is_noexec(path: &Path) -> bool {
    statvfs(path).is_ok_and(|of| of.flags().contains(FsFlags::ST_NOEXEC))
}

/// Makes the directory of programs in `session`; where nothing can be run from
/// there, a link to one in the first of `others` that allows it, and a lock on that:
/// what is not locked was left behind.
///
/// # Errors
/// What the kernel says.
pub(super) fn prepare(session: &Path, others: &[PathBuf]) -> io::Result<Option<Flock<File>>> {
    let root = session.join(place::RUN);
    if is_noexec(session) {
        let fits = others.iter().filter(|other| !is_noexec(other));
        let made = fits
            .filter_map(|other| {
                tempfile::Builder::new()
                    .prefix(ELSEWHERE)
                    .permissions(fs::Permissions::from_mode(0o700))
                    .tempdir_in(other)
                    .ok()
            })
            .next();
        if let Some(made) = made {
            // Resolved, as the kernel names what runs there.
            let made = made.keep().canonicalize()?;
            // A file system without locks leaves it to its age.
            let lock = Flock::lock(File::open(&made)?, FlockArg::LockExclusiveNonblock);
            return symlink(made, root).map(|()| lock.ok());
        }
        tracing::warn!(
            "{} is mounted noexec, and so are all directories for temporary files: programs that \
             a step makes cannot be run by the next; name another one in TMPDIR",
            place::BASE
        );
    }
    let made = fs::DirBuilder::new().mode(0o700).create(root);
    made.map(|()| None)
}

/// Where programs may be put if need be.
pub(super) fn elsewhere() -> Vec<PathBuf> {
    vec![std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()]
}

/// Removes a session's directory, and that of its programs.
///
/// # Errors
/// What the kernel says of the former.
pub(super) fn remove_session(session: &Path) -> io::Result<()> {
    if let Ok(programs) = fs::read_link(session.join(place::RUN))
        && is_of_programs(&programs)
    {
        // It may have been removed already.
        let _ = fs::remove_dir_all(programs);
    }
    fs::remove_dir_all(session)
}

/// Whether that can be a directory which [`prepare`] has made: a client may
/// have put a link to any other in its place.
fn is_of_programs(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let own = nix::unistd::geteuid().as_raw();
    let private =
        |meta: fs::Metadata| meta.is_dir() && meta.uid() == own && meta.mode() & 0o077 == 0;
    name.as_encoded_bytes().starts_with(ELSEWHERE.as_bytes())
        && path.symlink_metadata().is_ok_and(private)
}

impl Engine {
    /// The path by which the kernel can run a program, or load a library or
    /// those of a directory. One that lies in the cache is final first, for
    /// whoever reads it, and moves into its inode, and what it needs with it.
    pub(super) fn run(
        &mut self,
        client: Client,
        target: Target<'_>,
        library: bool,
        thread: u32,
    ) -> Outcome {
        let (inode, path) = match self.aim(target)? {
            Aim::Native(path) => return Ok(Answer::Native(path, None)),
            Aim::Missing(path) => return self.missing(client, thread, path),
            Aim::Node(inode, path) => (inode, path),
        };
        if library && self.names.directory(inode).is_some() {
            return self.run_directory(client, thread, inode, &path);
        }
        let wanted = if library { libc::R_OK } else { libc::X_OK };
        match self.loadable(client, thread, (inode, &path), &path, wanted)? {
            Answer::Native(place, None) => {
                let later = self.bring_libraries(client, thread, &path, &place)?;
                Ok(later.unwrap_or(Answer::Native(place, None)))
            }
            other => Ok(other),
        }
    }

    /// The path by which the kernel can run or load file `inode`, which has the
    /// path `path`, when it is looked for as `name`.
    pub(super) fn loadable(
        &mut self,
        client: Client,
        thread: u32,
        (inode, path): (Inode, &[u8]),
        name: &[u8],
        wanted: i32,
    ) -> Outcome {
        let Some(file) = self.names.get(inode).and_then(Node::file) else {
            return Err(libc::EACCES);
        };
        let Some(record) = file.record else {
            self.permitted(inode, wanted as u32)?;
            let lower = self.lower_of(inode).ok_or(libc::EIO)?;
            return Ok(Answer::Native(super::opens::bytes(&lower), Some(inode)));
        };
        let file = FileId(inode);
        match self.flow.reading(client.step, file, path) {
            Reading::Failed(_) => return Err(libc::EIO),
            Reading::UntilFinal | Reading::Stream if !self.flow.is_final(file) => {
                let (wait, path) = (WaitFor::Final(file), path.to_vec());
                return self.wait(client, thread, wait, path, "to be final");
            }
            _ => {}
        }
        // A linker makes its program executable at the end.
        self.permitted(inode, wanted as u32)?;
        self.mark_consumed(client, inode);
        if !self.bring_out(record)? {
            return Ok(Answer::Soon);
        }
        let reservation = self.ofds.reservations.path(record);
        let name = self.below(name).ok_or(libc::EACCES)?;
        let place = self.programs.put(record, &name, &reservation);
        let place = place.map_err(|error| os_error(&error))?;
        Ok(Answer::Native(super::opens::bytes(&place), None))
    }

    /// What follows `CAPIO_DIR` and a slash in an absolute path.
    pub(super) fn below(&self, path: &[u8]) -> Option<Vec<u8>> {
        let rest = inside(self.names.dir().as_os_str().as_bytes(), path)?;
        rest.strip_prefix(b"/").map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        session: tempfile::TempDir,
        programs: Programs,
    }

    impl World {
        fn new(elsewhere: Option<&Path>) -> Self {
            let session = tempfile::tempdir().unwrap();
            let root = session.path().join(place::RUN);
            match elsewhere {
                Some(elsewhere) => symlink(elsewhere, root).unwrap(),
                None => drop(prepare(session.path(), &[]).unwrap()),
            }
            let programs = Programs::new(session.path());
            Self { session, programs }
        }

        fn put(&mut self, record: u32, name: &str, content: &str) -> PathBuf {
            let inode = self.session.path().join(record.to_string());
            if fs::read_to_string(&inode).is_ok_and(|old| old == content) {
                return self.programs.put(record, name.as_bytes(), &inode).unwrap();
            }
            fs::write(&inode, content).unwrap();
            self.programs.put(record, name.as_bytes(), &inode).unwrap()
        }
    }

    fn check(mut world: World) {
        let place = world.put(1, "bin/tool", "one");
        assert_eq!(fs::read_to_string(&place).unwrap(), "one");
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o700);
        let before = fs::metadata(&place).unwrap().ino();
        assert_eq!(world.put(1, "bin/tool", "one"), place);
        assert_eq!(fs::metadata(&place).unwrap().ino(), before);
        world.put(1, "bin/tool", "changed in place");
        assert_eq!(fs::read_to_string(&place).unwrap(), "changed in place");
        world.put(2, "bin/tool", "another file of the name");
        assert_eq!(
            fs::read_to_string(&place).unwrap(),
            "another file of the name"
        );
        let first = world.session.path().join("1");
        world.programs.forget(1, &first);
        assert!(place.exists(), "the name is the second file's now");
        let below = world.put(3, "bin/tool/below", "in a directory");
        assert_eq!(fs::read_to_string(below).unwrap(), "in a directory");
        let above = world.put(4, "bin", "in place of the directory");
        assert_eq!(
            fs::read_to_string(&above).unwrap(),
            "in place of the directory"
        );
        let fourth = world.session.path().join("4");
        world.programs.forget(4, &fourth);
        assert!(!above.exists());
    }

    #[test]
    fn a_program_is_found_by_its_name_as_it_is_now() {
        check(World::new(None));
    }

    #[test]
    fn copies_are_as_good_as_links() {
        let elsewhere = tempfile::tempdir().unwrap();
        check(World::new(Some(elsewhere.path())));
        assert!(!elsewhere.path().join("bin").exists());
    }

    #[test]
    fn a_link_in_place_of_the_programs_removes_nobodys_files() {
        let precious = tempfile::tempdir().unwrap();
        fs::write(precious.path().join("kept"), "").unwrap();
        let open = tempfile::Builder::new()
            .prefix(ELSEWHERE)
            .tempdir()
            .unwrap();
        fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for place in [precious.path(), open.path()] {
            let session = World::new(Some(place)).session.keep();
            remove_session(&session).unwrap();
            assert!(!session.exists() && place.exists());
        }
        assert!(precious.path().join("kept").exists());
    }

    #[test]
    fn copies_are_removed_with_the_session() {
        let named = tempfile::Builder::new()
            .prefix(ELSEWHERE)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir();
        let elsewhere = named.unwrap();
        let mut world = World::new(Some(elsewhere.path()));
        world.put(1, "tool", "one");
        let session = world.session.keep();
        remove_session(&session).unwrap();
        assert!(!session.exists() && !elsewhere.path().exists());
    }
}
