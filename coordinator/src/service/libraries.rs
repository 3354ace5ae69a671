//! Libraries that a program needs and that lie in the cache. The dynamic loader
//! looks for them by itself, before any door is there: so they are put where it
//! looks, beside the program, when that is started.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use elf::ElfStream;
use elf::abi::{DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, PT_LOAD};
use elf::endian::AnyEndian;
use wire::message::{Name, Target};
use wire::place;

use super::attributes::Aim;
use super::calls::os_error;
use super::engine::{Answer, Client, Engine, Outcome};
use super::names::{Inode, Node, append, join};
use super::opens::bytes;

/// Libraries that are looked for at most; no program needs as many.
const MOST: usize = 4096;
/// Most bytes of an object's table of strings that are read.
const MOST_STRINGS: u64 = 16 << 20;

/// What an object file asks of the dynamic loader.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    libraries: Vec<Vec<u8>>,
    rpath: Vec<Vec<u8>>,
    runpath: Vec<Vec<u8>>,
}

impl Needs {
    /// Of the object in `file`; `None`: it is none, or a broken one.
    fn of(file: &File) -> Option<Self> {
        let mut stream = ElfStream::<AnyEndian, _>::open_stream(file).ok()?;
        let segments = stream.segments().clone();
        let entries: Vec<_> = stream.dynamic().ok()??.iter().collect();
        let value = |tag| entries.iter().find(|e| e.d_tag == tag).map(|e| e.d_val());
        let (at, size) = (value(DT_STRTAB)?, value(DT_STRSZ)?.min(MOST_STRINGS));
        let segment = segments.iter().find(|s| {
            let offset = at.checked_sub(s.p_vaddr);
            s.p_type == PT_LOAD && offset.is_some_and(|offset| offset < s.p_filesz)
        })?;
        let from = (at - segment.p_vaddr).checked_add(segment.p_offset)?;
        let length = file.metadata().ok()?.len().checked_sub(from)?.min(size);
        let mut strings = vec![0; usize::try_from(length).ok()?];
        file.read_exact_at(&mut strings, from).ok()?;
        let all = |tag| {
            let entries = entries.iter().filter(move |entry| entry.d_tag == tag);
            entries.filter_map(|entry| string(&strings, entry.d_val()))
        };
        let list = |tag| {
            let parts = all(tag).flat_map(|list| list.split(|&byte| byte == b':'));
            parts.map(<[u8]>::to_vec).collect()
        };
        Some(Self {
            libraries: all(DT_NEEDED).map(<[u8]>::to_vec).collect(),
            rpath: list(DT_RPATH),
            runpath: list(DT_RUNPATH),
        })
    }
}

/// The string that begins at `at`.
fn string(strings: &[u8], at: u64) -> Option<&[u8]> {
    let rest = strings.get(usize::try_from(at).ok()?..)?;
    rest.split(|&byte| byte == 0).next()
}

/// A directory that the loader searches, absolute; `moves`: it was named by
/// where the object lies, so that the loader looks for it beside the link.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Searched {
    directory: Vec<u8>,
    moves: bool,
}

impl Searched {
    /// An entry of a search path, of an object in directory `origin`.
    fn of(entry: &[u8], origin: &[u8]) -> Option<Self> {
        let tail = [&b"$ORIGIN"[..], b"${ORIGIN}"]
            .into_iter()
            .find_map(|word| entry.strip_prefix(word));
        let path = match tail {
            Some([]) => origin.to_vec(),
            Some(tail @ [b'/', ..]) => [origin, tail].concat(),
            Some(_) => return None,
            None => entry.to_vec(),
        };
        path.starts_with(b"/").then(|| Self {
            directory: append(Vec::new(), &path),
            moves: tail.is_some(),
        })
    }
}

/// The directory that the file at `path` lies in.
fn folder(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|&byte| byte == b'/');
    path.get(..slash.unwrap_or(0)).unwrap_or_default()
}

/// An object whose needs are to be looked for.
struct Object {
    path: Vec<u8>,
    file: File,
    /// What the objects that need it have in `DT_RPATH`.
    inherited: Vec<Searched>,
}

impl Object {
    /// What it needs, and where that is looked for.
    fn wants(&self) -> Option<Wants> {
        let needs = Needs::of(&self.file)?;
        let expand = |list: &[Vec<u8>]| -> Vec<Searched> {
            let origin = folder(&self.path);
            let all = list.iter().filter_map(|entry| Searched::of(entry, origin));
            all.collect()
        };
        let mut passed_on = expand(&needs.rpath);
        passed_on.extend_from_slice(&self.inherited);
        let searched = match needs.runpath.as_slice() {
            [] => passed_on.clone(),
            runpath => expand(runpath),
        };
        Some(Wants {
            libraries: needs.libraries,
            searched,
            passed_on,
        })
    }
}

/// [`Needs`] with their places.
struct Wants {
    libraries: Vec<Vec<u8>>,
    searched: Vec<Searched>,
    /// What the libraries inherit.
    passed_on: Vec<Searched>,
}

/// What became of a library that was looked for.
enum Library {
    /// It is not there.
    Absent,
    /// It is where the loader looks.
    Ready(File, Vec<u8>),
    /// The client has to ask again.
    Later(Answer),
}

impl Engine {
    /// Puts the libraries that the object at `path` (as programs know it) needs
    /// where the loader looks for them, if they lie below `CAPIO_DIR`. It is
    /// the kernel's at `place`. `Some`: the client has to ask again.
    pub(super) fn bring_libraries(
        &mut self,
        client: Client,
        thread: u32,
        path: &[u8],
        place: &[u8],
    ) -> Result<Option<Answer>, i32> {
        let file = File::open(OsStr::from_bytes(place)).map_err(|error| os_error(&error))?;
        let first = Object {
            path: path.to_vec(),
            file,
            inherited: Vec::new(),
        };
        let mut known = HashSet::new();
        let mut open = VecDeque::from([first]);
        while let Some(object) = open.pop_front() {
            let Some(wants) = object.wants() else {
                continue;
            };
            for name in wants.libraries {
                if known.len() >= MOST || known.contains(&name) || name.contains(&b'/') {
                    continue;
                }
                let aside = [path, place::LIBRARIES.as_bytes(), b"/", &name].concat();
                for from in &wants.searched {
                    let path = join(&from.directory, &name);
                    let aside = (!from.moves).then_some(aside.as_slice());
                    match self.library(client, thread, &path, aside)? {
                        Library::Absent => continue,
                        Library::Later(answer) => return Ok(Some(answer)),
                        Library::Ready(file, _) => open.push_back(Object {
                            path,
                            file,
                            inherited: wants.passed_on.clone(),
                        }),
                    }
                    known.insert(name);
                    break;
                }
            }
        }
        Ok(None)
    }

    /// Puts the library that has this path where the loader finds it by that;
    /// `aside`: and by that path, too.
    fn library(
        &mut self,
        client: Client,
        thread: u32,
        path: &[u8],
        aside: Option<&[u8]>,
    ) -> Result<Library, i32> {
        let Some(name) = self.below(path) else {
            return Ok(Library::Absent);
        };
        let (base, follow) = (0, true);
        let aimed = self.aim(Target::Path {
            name: Name { base, path: &name },
            follow,
        });
        let ready = match aimed {
            Ok(Aim::Native(path)) => Ok(Answer::Native(path, Some(0))),
            Ok(Aim::Node(inode, real)) if self.names.get(inode).and_then(Node::file).is_some() => {
                self.loadable(client, thread, (inode, &real), path, libc::R_OK)
            }
            _ => Err(libc::ENOENT),
        };
        let (real, elsewhere) = match ready {
            Ok(Answer::Native(real, lower)) => (real, lower.is_some()),
            Ok(later) => return Ok(Library::Later(later)),
            Err(libc::ENOENT | libc::EACCES) => {
                self.programs.clear(&name);
                return Ok(Library::Absent);
            }
            Err(error) => return Err(error),
        };
        let Ok(file) = File::open(OsStr::from_bytes(&real)) else {
            return Ok(Library::Absent);
        };
        let more = aside.and_then(|aside| self.below(aside));
        for link in elsewhere.then_some(name).into_iter().chain(more) {
            let made = self.programs.link(&link, &real);
            made.map_err(|error| os_error(&error))?;
        }
        Ok(Library::Ready(file, real))
    }

    /// Puts all libraries of a directory that lie in the cache where the loader
    /// finds them, and gives the kernel's path of that.
    ///
    /// # Errors
    /// `ENOENT`: there are none.
    pub(super) fn run_directory(
        &mut self,
        client: Client,
        thread: u32,
        inode: Inode,
        path: &[u8],
    ) -> Outcome {
        self.names.load_if_directory(inode);
        let directory = self.names.directory(inode).ok_or(libc::EACCES)?;
        let entries = directory.after(0).map(|(_, entry)| entry.name.clone());
        let names: Vec<_> = entries.filter(|name| is_library(name)).collect();
        let mut any = false;
        for name in &names {
            let path = join(path, name);
            if !self.is_cached(&path) {
                continue;
            }
            match self.library(client, thread, &path, None) {
                Ok(Library::Later(answer)) => return Ok(answer),
                Ok(Library::Ready(_, real)) => {
                    any = true;
                    if let Some(later) = self.bring_libraries(client, thread, &path, &real)? {
                        return Ok(later);
                    }
                }
                Err(libc::ENOMEM) => return Err(libc::ENOMEM),
                // Nobody need want it: the loader will not find it.
                Ok(Library::Absent) | Err(_) => {}
            }
        }
        let name = self.below(path).unwrap_or_default();
        self.programs.clear_libraries(&name, &names);
        let place = self.programs.path(&name);
        any.then(|| Answer::Native(bytes(&place), None))
            .ok_or(libc::ENOENT)
    }

    /// Whether what the path leads to lies in the cache.
    fn is_cached(&mut self, path: &[u8]) -> bool {
        let Some(name) = self.below(path) else {
            return false;
        };
        let (base, follow) = (0, true);
        let aimed = self.aim(Target::Path {
            name: Name { base, path: &name },
            follow,
        });
        let Ok(Aim::Node(inode, _)) = aimed else {
            return false;
        };
        let file = self.names.get(inode).and_then(Node::file);
        file.is_some_and(|file| file.record.is_some())
    }
}

/// Whether a file is a library by its name.
pub(super) fn is_library(name: &[u8]) -> bool {
    name.windows(3).any(|part| part == b".so")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn search_paths_lead_where_the_loader_looks() {
        let of = |entry: &[u8]| Searched::of(entry, b"/d/bin");
        let at = |directory: &[u8], moves| {
            let directory = directory.to_vec();
            Some(Searched { directory, moves })
        };
        assert_eq!(of(b"$ORIGIN"), at(b"/d/bin", true));
        assert_eq!(of(b"$ORIGIN/../lib//x/."), at(b"/d/lib/x", true));
        assert_eq!(of(b"${ORIGIN}/../../.."), at(b"", true));
        assert_eq!(of(b"/d/lib/"), at(b"/d/lib", false));
        assert_eq!(of(b"lib"), None);
        assert_eq!(of(b"$ORIGINAL"), None);
    }

    #[test]
    fn what_a_program_needs_is_read_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let (source, object) = (dir.path().join("x.c"), dir.path().join("x"));
        std::fs::write(&source, "int main(void) { return 0; }").unwrap();
        let build = |options: &[&str]| {
            let mut linker = Command::new("cc");
            linker.args(options).arg("-o").arg(&object).arg(&source);
            assert!(linker.status().unwrap().success());
            Needs::of(&File::open(&object).unwrap()).unwrap()
        };
        let needs = build(&["-Wl,-rpath,$ORIGIN/a:/b", "-Wl,--enable-new-dtags"]);
        assert_eq!(needs.runpath, [b"$ORIGIN/a".to_vec(), b"/b".to_vec()]);
        assert_eq!(needs.rpath, Vec::<Vec<u8>>::new());
        assert_eq!(needs.libraries, [b"libc.so.6".to_vec()]);
        let needs = build(&["-s", "-Wl,-rpath,/c", "-Wl,--disable-new-dtags"]);
        assert_eq!((needs.rpath.len(), needs.runpath.len()), (1, 0));
        // Whatever is wrong with it, nothing worse comes of it than nothing.
        let whole = std::fs::read(&object).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut broken = whole.clone();
            broken[at] = !broken[at];
            broken.truncate(whole.len() - at / 2);
            std::fs::write(&object, broken).unwrap();
            let _ = Needs::of(&File::open(&object).unwrap());
        }
        assert_eq!(Needs::of(&File::open(&source).unwrap()), None);
    }
}
