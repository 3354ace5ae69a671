//! The auditor: watches a step by `strace`, and reports every system call for a
//! taken-over file that reached the kernel past the library.
//!
//! strace prints where each call came from (`-i`) and what each descriptor is
//! (`-y`). A call is a miss
//! - if it moves bytes of a descriptor of the session, whoever made it;
//! - if it is about such a descriptor, or about a path in the taken-over
//!   directory or in the session's own, and came from outside of the library;
//! - if it came from the library and changes the taken-over directory on disk:
//!   that is for the coordinator alone.

mod calls;
mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use calls::{ABOUT, DATA, FORKS, MAPPED, PATHS, PathArgument};
use line::Call;

/// File name of the library under test.
const LIBRARY: &str = "libcapio_posix.so";

/// A command that runs the words after it under strace, writing one file for
/// each process into `folder`.
pub(crate) fn strace(folder: &Path, step: &str) -> Vec<String> {
    let output = folder.join(step).display().to_string();
    [
        "strace",
        "--seccomp-bpf",
        "-f",
        "-ff",
        "-i",
        "-y",
        "-q",
        "-s",
        "0",
        "-o",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([output, "-e".into(), format!("trace={}", calls::traced())])
    .collect()
}

/// What is looked for.
#[derive(Debug, Clone)]
pub(crate) struct Auditor {
    /// The taken-over directory, resolved.
    pub(crate) data: PathBuf,
    /// The session's directory.
    pub(crate) session: PathBuf,
    /// Paths below `data` that are the kernel's business.
    pub(crate) excluded: Vec<PathBuf>,
}

/// The trace of one process.
struct Trace {
    name: String,
    pid: i64,
    text: String,
}

/// The parts of the address space that the library was ever loaded to. One
/// list for all processes: two of them hardly ever overlap by chance.
struct Library(Vec<(u64, u64)>);

impl Library {
    fn find(traces: &[Trace]) -> Self {
        let mut parts = Vec::new();
        for line in traces.iter().flat_map(|trace| trace.text.lines()) {
            let call = Call::parse(line).filter(|call| call.name == "mmap");
            let Some(call) = call.filter(|call| {
                call.descriptor(4)
                    .is_some_and(|file| Path::new(file).ends_with(LIBRARY))
            }) else {
                continue;
            };
            let length = call.arguments.get(1).and_then(|text| text.parse().ok());
            let start = call.returned().and_then(|start| u64::try_from(start).ok());
            if let (Some(start), Some(length)) = (start, length) {
                let _: u64 = length;
                parts.push((start, start + length));
            }
        }
        Self(parts)
    }

    fn holds(&self, address: u64) -> bool {
        self.0
            .iter()
            .any(|(start, end)| (*start..*end).contains(&address))
    }
}

impl Auditor {
    /// Every call that both doors missed, one line each.
    ///
    /// # Panics
    /// When there is no trace in `folder`, or none in which the library is loaded: then
    /// nothing has been audited.
    pub(crate) fn misses(&self, folder: &Path) -> Vec<String> {
        let traces = read(folder);
        assert!(
            !traces.is_empty(),
            "strace wrote nothing into {}",
            folder.display()
        );
        let library = Library::find(&traces);
        assert!(!library.0.is_empty(), "no audited program loaded {LIBRARY}");
        let by_pid: BTreeMap<_, _> = traces.iter().map(|trace| (trace.pid, trace)).collect();
        let children: BTreeSet<i64> = traces.iter().flat_map(forked).collect();
        let mut misses = Vec::new();
        let roots = by_pid.keys().filter(|pid| !children.contains(pid));
        let mut open: Vec<_> = roots.map(|pid| (*pid, self.data.clone())).collect();
        while let Some((pid, cwd)) = open.pop() {
            if let Some(trace) = by_pid.get(&pid) {
                open.extend(self.walk(trace, cwd, &library, &mut misses));
            }
        }
        misses
    }

    /// One process from its start in `cwd`; gives its children and where they start.
    fn walk(
        &self,
        trace: &Trace,
        mut cwd: PathBuf,
        library: &Library,
        misses: &mut Vec<String>,
    ) -> Vec<(i64, PathBuf)> {
        let mut children = Vec::new();
        for line in trace.text.lines() {
            let Some(call) = Call::parse(line) else {
                continue;
            };
            if let Some(seen) = call
                .arguments
                .iter()
                .position(|a| a.starts_with("AT_FDCWD<"))
            {
                cwd = call.descriptor(seen).map_or(cwd, PathBuf::from);
            }
            if let Some(what) = self.judge(&call, &cwd, library.holds(call.from)) {
                misses.push(format!("{}: {what}: {line}", trace.name));
            }
            if call.returned() == Some(0) {
                match call.name {
                    "chdir" => cwd = call.string(0).map_or(cwd.clone(), |path| join(&cwd, path)),
                    "fchdir" => cwd = call.descriptor(0).map_or(cwd, PathBuf::from),
                    _ => {}
                }
            }
            if FORKS.contains(&call.name) {
                children.extend(call.returned().map(|pid| (pid, cwd.clone())));
            }
        }
        children
    }

    /// Why a call must not have reached the kernel; nothing if it may.
    fn judge(&self, call: &Call<'_>, cwd: &Path, by_library: bool) -> Option<&'static str> {
        let ours = |table: &[(&str, &[usize])]| {
            let row = table.iter().find(|(name, _)| *name == call.name);
            row.is_some_and(|(_, arguments)| {
                arguments
                    .iter()
                    .filter_map(|argument| call.descriptor(*argument))
                    .any(|path| Path::new(path).starts_with(self.session.join("ofd")))
            })
        };
        // Of a file that is mapped the library itself asks the kernel.
        if ours(DATA) && !(by_library && MAPPED.contains(&call.name)) {
            return Some("bytes of the session by the kernel");
        }
        if ours(ABOUT) && !by_library {
            return Some("an open file of the session asked of the kernel");
        }
        let (_, arguments, changes) = PATHS.iter().find(|(name, _, _)| *name == call.name)?;
        let mut paths = arguments
            .iter()
            .filter_map(|argument| target(call, *argument, cwd, &self.session));
        if by_library {
            let changes = *changes || opens_for_writing(call);
            let on_disk =
                paths.any(|path| path.starts_with(&self.data) && !self.is_excluded(&path));
            return (changes && on_disk).then_some("the library changes the directory on disk");
        }
        if is_search_for_library(call) {
            return None;
        }
        paths
            .any(|path| self.concerns(&path))
            .then_some("a path of the session asked of the kernel")
    }

    fn concerns(&self, path: &Path) -> bool {
        let runs = path.starts_with(self.session.join(wire::place::RUN));
        let inside = path.starts_with(&self.session) && !runs;
        (path.starts_with(&self.data) && !self.is_excluded(path)) || inside
    }

    fn is_excluded(&self, path: &Path) -> bool {
        self.excluded.iter().any(|part| path.starts_with(part))
    }
}

/// Whether the loader has found no library there: it says why by itself.
fn is_search_for_library(call: &Call<'_>) -> bool {
    let path = call.string(1).unwrap_or_default();
    call.name == "openat" && call.returned() == Some(-1) && path.ends_with(".so")
}

fn opens_for_writing(call: &Call<'_>) -> bool {
    let writing = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"];
    call.name.starts_with("open")
        && call
            .arguments
            .iter()
            .any(|argument| argument.split('|').any(|flag| writing.contains(&flag)))
}

/// The path that an argument means, if it is one that matters: an empty one
/// means the descriptor where that is allowed; no path leads on from a bad
/// descriptor; and who spells the session's directory out got it from the library.
fn target(
    call: &Call<'_>,
    (directory, path): PathArgument,
    cwd: &Path,
    session: &Path,
) -> Option<PathBuf> {
    let path = call.string(path)?;
    let base = match directory {
        Some(directory) => Path::new(call.descriptor(directory)?),
        None => cwd,
    };
    if path.is_empty() {
        let allowed = call.arguments.iter().any(|a| a.contains("AT_EMPTY_PATH"));
        return allowed.then(|| base.into());
    }
    let handed_out = Path::new(path).starts_with(session);
    let no_directory = Path::new(path).is_relative() && base.starts_with(session.join("ofd"));
    (!handed_out && !no_directory).then(|| join(base, path))
}

/// Joins two paths and takes `.` and `..` out by the letter.
fn join(base: &Path, path: &str) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                whole.pop();
            }
            part => whole.push(part),
        }
    }
    whole
}

fn forked(trace: &Trace) -> Vec<i64> {
    let calls = trace.text.lines().filter_map(Call::parse);
    calls
        .filter(|call| FORKS.contains(&call.name))
        .filter_map(|call| call.returned())
        .collect()
}

/// All traces in a folder; their names end with the process's number.
fn read(folder: &Path) -> Vec<Trace> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let trace = |name: OsString| {
        let text = fs::read(folder.join(&name)).ok()?;
        let name = name.into_string().ok()?;
        let pid = name.rsplit('.').next()?.parse().ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Some(Trace { name, pid, text })
    };
    entries
        .filter_map(|entry| trace(entry.file_name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: &str = "[0000000000000001] mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3</t/libcapio_posix.so>, 0) = 0x10000\n";

    fn misses(lines: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("step.7"), format!("{LOAD}{lines}")).unwrap();
        let auditor = Auditor {
            data: "/w/data".into(),
            session: "/dev/shm/capio-0-1".into(),
            excluded: vec!["/w/data/scratch".into()],
        };
        auditor.misses(folder.path())
    }

    #[test]
    fn bytes_that_go_past_both_doors_are_seen() {
        let missed = "[00000000000fffff] read(4</dev/shm/capio-0-1/ofd/12>, \"\", 4096) = 0";
        assert_eq!(misses(missed).len(), 1);
        let by_library = "[0000000000010010] write(4</dev/shm/capio-0-1/ofd/12>, \"\", 1) = 1";
        assert_eq!(misses(by_library).len(), 1);
        let outside = "[00000000000fffff] read(4</w/other>, \"\", 4096) = 0";
        assert_eq!(misses(outside), [""; 0]);
        let map = "[00000000000fffff] mmap(NULL, 1, PROT_READ, MAP_SHARED, 4</dev/shm/capio-0-1/ofd/3>, 0) = 0x5";
        assert_eq!(misses(map).len(), 1);
    }

    #[test]
    fn paths_that_go_past_both_doors_are_seen() {
        for missed in [
            r#"[00000000000fffff] openat(AT_FDCWD</>, "/w/data/a", O_RDONLY) = 3</w/data/a>"#,
            r#"[00000000000fffff] openat(AT_FDCWD</w>, "data/a", O_RDONLY) = 3</w/data/a>"#,
            r#"[00000000000fffff] unlink("a") = 0"#,
            r#"[00000000000fffff] rename("/tmp/a", "/tmp/../w/data/a") = 0"#,
            r#"[00000000000fffff] newfstatat(3</dev/shm/capio-0-1/ofd/3>, "", {}, AT_EMPTY_PATH) = 0"#,
            r#"[00000000000fffff] openat(5</dev/shm/capio-0-1/shadow/sub>, "a", O_RDONLY) = -1 ENOENT"#,
        ] {
            assert_eq!(misses(missed).len(), 1, "{missed}");
        }
        for right in [
            r#"[0000000000010010] openat(AT_FDCWD</>, "/w/data/a", O_RDONLY) = 3</w/data/a>"#,
            r#"[00000000000fffff] openat(AT_FDCWD</>, "/w/data/scratch/a", O_RDWR) = 3</w/data/scratch/a>"#,
            r#"[00000000000fffff] openat(AT_FDCWD</>, "/w/database", O_RDWR) = 3</w/database>"#,
            r#"[0000000000010010] newfstatat(3</dev/shm/capio-0-1/ofd/3>, "", {}, AT_EMPTY_PATH) = 0"#,
            r#"[00000000000fffff] chdir("/dev/shm/capio-0-1/shadow/sub") = 0"#,
            r#"[00000000000fffff] openat(3, "a", O_RDONLY) = -1 EBADF (Bad file descriptor)"#,
            r#"[00000000000fffff] openat(3</dev/shm/capio-0-1/ofd/3>, "a", O_RDONLY) = -1 ENOTDIR"#,
            r#"[00000000000fffff] openat(AT_FDCWD</w/data>, "", O_RDONLY) = -1 ENOENT"#,
        ] {
            assert_eq!(misses(right), [""; 0], "{right}");
        }
    }

    #[test]
    fn the_library_itself_may_not_write_to_the_directory() {
        let lines = "[0000000000010010] openat(AT_FDCWD</>, \"/w/data/a\", O_RDWR|O_CREAT, 0644) = 3</w/data/a>\n\
                     [0000000000010010] unlinkat(AT_FDCWD</>, \"/w/data/a\", 0) = 0\n";
        assert_eq!(misses(lines).len(), 2);
    }

    #[test]
    fn relative_paths_are_meant_where_the_process_is() {
        assert_eq!(
            misses("[00000000000fffff] chdir(\"/tmp\") = 0\n[00000000000fffff] unlink(\"a\") = 0")
                .len(),
            0
        );
        let back = "[00000000000fffff] chdir(\"/tmp\") = 0\n[0000000000010010] chdir(\"/w/data/sub\") = 0\n\
                    [00000000000fffff] unlink(\"a\") = 0";
        assert_eq!(misses(back).len(), 1);
    }
}
