//! Compiles the C and C++ programs of `tests/programs/`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::binaries::profile_dir;

/// The executable of `tests/programs/<name>.c` or `.cpp`, compiled when it is
/// older than its source or a header.
///
/// # Panics
/// When there is no such source or it does not compile; warnings are errors.
pub fn program(name: &str) -> PathBuf {
    // One at a time within a test binary; cargo runs the binaries in turn.
    static COMPILING: Mutex<()> = Mutex::new(());
    let _turn = COMPILING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let (source, compiler, standard) =
        [("c", "CC", "cc", "gnu11"), ("cpp", "CXX", "c++", "gnu++17")]
            .into_iter()
            .map(|(suffix, variable, default, standard)| {
                let compiler = env::var_os(variable).unwrap_or_else(|| default.into());
                (sources.join(format!("{name}.{suffix}")), compiler, standard)
            })
            .find(|(source, ..)| source.exists())
            .unwrap_or_else(|| panic!("tests/programs has no {name}.c or {name}.cpp"));
    let folder = profile_dir().join("programs");
    fs::create_dir_all(&folder).expect("the target directory takes a folder");
    let executable = folder.join(name);
    if modified(&executable) < newest(&sources, &source) {
        let compiled = Command::new(compiler)
            .arg(format!("-std={standard}"))
            .args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
            .args([&executable, &source])
            .status()
            .expect("the compiler starts");
        assert!(compiled.success(), "{} does not compile", source.display());
    }
    executable
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
