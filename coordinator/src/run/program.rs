//! Whether the programs of a step can be taken over at all: a static program
//! loads no library, the loader ignores `LD_PRELOAD` for one that runs with the
//! rights of another user, and what Go's own compiler makes does not call libc.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use elf::ElfStream;
use elf::abi::{ET_DYN, PT_INTERP, PT_NOTE};
use elf::endian::AnyEndian;
use elf::note::Note;

use super::workflow::{Command, Step};

/// One sentence for each program of the step, as far as its command shows
/// them, that runs beside the session instead of in it.
#[must_use]
pub fn warnings(step: &Step, cwd: &Path) -> Vec<String> {
    let path = step
        .env
        .get("PATH")
        .cloned()
        .or_else(|| std::env::var("PATH").ok());
    let path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let programs: BTreeSet<&str> = match &step.command {
        Command::Program(words) => words.first().map(String::as_str).into_iter().collect(),
        Command::Shell(line) => shell_programs(line).collect(),
    };
    let warn = |program: &str| {
        let file = find(program, &path, cwd)?;
        let obstacle = obstacle(&file)?;
        Some(format!(
            "step {}: {} {}, so that capio cannot take over the files that it opens: it \
             sees only what lies on disk, and what it writes is lost or left there; {}, \
             redirect its input and output (< IN > OUT), or let the spec `exclude` its files",
            step.name,
            file.display(),
            obstacle.why(),
            obstacle.remedy()
        ))
    };
    programs.into_iter().filter_map(warn).collect()
}

/// Words of a shell line that stand where a program does. A guess that is
/// only good for warnings: quotes and expansions are not understood.
fn shell_programs(line: &str) -> impl Iterator<Item = &str> {
    let commands = line.split(['\n', ';', '|', '&', '(', ')', '{', '}', '`']);
    commands.filter_map(|command| {
        let mut words = command.split_whitespace();
        let word = words.find(|word| !is_no_program(word))?;
        let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
        word.chars().all(plain).then_some(word)
    })
}

fn is_no_program(word: &str) -> bool {
    let keywords = [
        "if", "then", "else", "elif", "while", "until", "do", "!", "exec", "time", "nice", "env",
        "nohup", "command",
    ];
    keywords.contains(&word) || word.contains('=')
}

fn find(program: &str, path: &str, cwd: &Path) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(cwd.join(program));
    }
    let runs = |file: &PathBuf| {
        fs::metadata(file)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    path.split(':')
        .map(|dir| cwd.join(dir).join(program))
        .find(runs)
}

/// Why the files of a program cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    SetUid,
    SetGid,
    Static,
    Go,
}

impl Obstacle {
    fn why(self) -> &'static str {
        match self {
            Self::SetUid => "is set-uid",
            Self::SetGid => "is set-gid",
            Self::Static => "is linked statically",
            Self::Go => "is in Go, which asks the kernel past libc",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::SetUid | Self::SetGid => "run a copy without that bit",
            Self::Static => "link it dynamically",
            Self::Go => "build it with gccgo",
        }
    }
}

fn obstacle(file: &Path) -> Option<Obstacle> {
    let meta = fs::metadata(file).ok()?;
    let mode = meta.permissions().mode();
    if mode & 0o4000 != 0 && meta.uid() != nix::unistd::getuid().as_raw() {
        return Some(Obstacle::SetUid);
    }
    // Set-gid takes effect only together with the group's right to execute.
    if mode & 0o2010 == 0o2010 && meta.gid() != nix::unistd::getgid().as_raw() {
        return Some(Obstacle::SetGid);
    }
    if is_of_go(file) {
        return Some(Obstacle::Go);
    }
    is_static(file).then_some(Obstacle::Static)
}

/// Whether the loader can load this file into programs.
#[must_use]
pub fn is_library(file: &Path) -> bool {
    elf(file).is_some_and(|file| file.ehdr.e_type == ET_DYN)
}

/// A script, or something that the kernel will refuse, is no ELF file. Reads
/// only the tables of headers, wherever they lie.
fn elf(file: &Path) -> Option<ElfStream<AnyEndian, fs::File>> {
    ElfStream::open_stream(fs::File::open(file).ok()?).ok()
}

fn is_static(file: &Path) -> bool {
    let Some(program) = elf(file) else {
        return false;
    };
    let segments = program.segments();
    !segments.is_empty() && segments.iter().all(|segment| segment.p_type != PT_INTERP)
}

/// Whether the linker of Go has left its mark.
fn is_of_go(file: &Path) -> bool {
    let Some(mut program) = elf(file) else {
        return false;
    };
    let notes = program.segments().iter();
    let notes: Vec<_> = notes
        .filter(|segment| segment.p_type == PT_NOTE)
        .copied()
        .collect();
    notes.iter().any(|segment| {
        let mut inside = program.segment_data_as_notes(segment).into_iter().flatten();
        inside.any(|note| match note {
            Note::Unknown(note) => note.name_str().is_ok_and(|owner| owner == "Go"),
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::workflow::Workflow;

    #[test]
    fn the_programs_of_a_shell_line_are_found() {
        let programs = |line| shell_programs(line).collect::<Vec<_>>();
        assert_eq!(
            programs("LC_ALL=C sort a | ./uniq -c > b && if test -s b; then exec cat b; fi"),
            ["sort", "./uniq", "test", "cat", "fi"]
        );
        assert_eq!(programs("$tool x; \"quoted\" y"), Vec::<&str>::new());
    }

    /// An ELF file of nothing but a header and one program header.
    fn elf_with_segment(kind: u32) -> Vec<u8> {
        let mut file = vec![0u8; 64 + 56];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16] = 2; // executable
        file[18] = 62; // x86-64
        file[20] = 1;
        file[32] = 64; // offset of program headers
        file[52] = 64;
        file[54] = 56;
        file[56] = 1; // one of them
        file[64..68].copy_from_slice(&kind.to_le_bytes());
        file
    }

    #[test]
    fn a_static_program_is_warned_of_and_a_dynamic_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        for (name, kind) in [("static", elf::abi::PT_LOAD), ("dynamic", PT_INTERP)] {
            let file = dir.path().join(name);
            fs::write(&file, elf_with_segment(kind)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let argument = "a=./dynamic x | ./static y | sh z; ./missing".to_owned();
        let workflow = Workflow::from_arguments(&[argument]).unwrap();
        let warnings = warnings(&workflow.steps[0], dir.path());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains("/static is linked statically"),
            "{warnings:?}"
        );
    }

    #[test]
    fn real_programs_are_judged_by_what_they_are() {
        let own = std::env::current_exe().unwrap();
        assert!(!is_static(&own) && is_library(&own), "dynamic, and PIE");
        assert!(fs::metadata(&own).unwrap().len() > 1 << 20);
        assert!(!is_library(Path::new("/etc/passwd")));
        assert!(!is_library(Path::new("/no/such/file")));
    }

    #[test]
    fn programs_are_searched_in_the_path_of_the_step() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool");
        fs::write(&file, elf_with_segment(elf::abi::PT_LOAD)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let mut step = Workflow::from_arguments(&["a=tool".to_owned()])
            .unwrap()
            .steps
            .remove(0);
        assert!(warnings(&step, Path::new("/")).is_empty());
        step.env
            .insert("PATH".into(), dir.path().display().to_string());
        assert_eq!(warnings(&step, Path::new("/")).len(), 1);
    }

    #[test]
    fn another_users_set_uid_program_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("su");
        fs::copy("/bin/sh", &file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
        assert_eq!(obstacle(&file), None, "it is our own");
        let somebody_else = std::os::unix::fs::chown(&file, Some(12345), None);
        if somebody_else.is_ok() {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
            assert_eq!(obstacle(&file), Some(Obstacle::SetUid));
        }
    }
}
