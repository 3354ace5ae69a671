//! Compiles the C and C++ programs of `tests/programs/`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::binaries::profile_dir;

/// How a program is compiled: the same source reaches libc by other symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// `open`, `stat`, `read`.
    Plain,
    /// `__open64_2`, `stat64`, `__read_chk`, as distributions compile.
    Fortified,
}

/// The executable of `tests/programs/<name>.c` or `.cpp`, compiled when it is
/// older than its source or a header.
///
/// # Panics
/// When there is no such source or it does not compile; warnings are errors.
pub fn program(name: &str) -> PathBuf {
    compile(name, Variant::Plain)
}

pub(crate) fn compile(name: &str, variant: Variant) -> PathBuf {
    // One at a time within a test binary; cargo runs the binaries in turn.
    static COMPILING: Mutex<()> = Mutex::new(());
    let _turn = COMPILING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let (source, mut compiler) = compiler(&sources, name);
    let folder = profile_dir().join("programs");
    fs::create_dir_all(&folder).expect("the target directory takes a folder");
    let executable = match variant {
        Variant::Plain => folder.join(name),
        Variant::Fortified => folder.join(format!("{name}.fortified")),
    };
    if modified(&executable) < newest(&sources, &source) {
        match variant {
            Variant::Plain => compiler.arg("-O1"),
            Variant::Fortified => {
                compiler.args(["-O2", "-D_FORTIFY_SOURCE=2", "-D_FILE_OFFSET_BITS=64"])
            }
        };
        let compiled = compiler
            .args(["-g", "-Wall", "-Wextra", "-Werror", "-pthread"])
            // Checks of EFAULT and EINVAL are meant to be wrong.
            .args([
                "-Wno-stringop-overflow",
                "-Wno-stringop-overread",
                "-Wno-nonnull",
            ])
            .arg("-o")
            .args([&executable, &source])
            .status()
            .expect("the compiler starts");
        assert!(compiled.success(), "{} does not compile", source.display());
    }
    executable
}

/// The source of a program, and the compiler of its language.
fn compiler(sources: &Path, name: &str) -> (PathBuf, Command) {
    let languages = [
        ("c", "CC", "cc", "-std=gnu11"),
        ("cpp", "CXX", "c++", "-std=gnu++17"),
    ];
    for (suffix, variable, default, standard) in languages {
        let source = sources.join(format!("{name}.{suffix}"));
        if source.exists() {
            let mut compiler =
                Command::new(env::var_os(variable).unwrap_or_else(|| default.into()));
            compiler.arg(standard);
            return (source, compiler);
        }
    }
    panic!("tests/programs has no {name}.c or {name}.cpp");
}

/// The later of the times of `source` and of all headers in `sources`.
fn newest(sources: &Path, source: &Path) -> SystemTime {
    let entries = fs::read_dir(sources).expect("tests/programs can be listed");
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "h"))
        .map(|path| modified(&path))
        .fold(modified(source), SystemTime::max)
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path)
        .and_then(|data| data.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
