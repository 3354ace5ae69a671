//! Where the binaries under test are, built when nobody names them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `capio` command under test; `libcapio_posix.so` lies beside it.
///
/// # Panics
/// When `CAPIO_BIN_DIR` has no `capio`, or when building it fails.
pub fn capio() -> &'static Path {
    static CAPIO: OnceLock<PathBuf> = OnceLock::new();
    CAPIO.get_or_init(|| {
        let dir = env::var_os("CAPIO_BIN_DIR").map_or_else(build, PathBuf::from);
        let capio = dir.join("capio");
        for file in ["capio", "capio_server", "libcapio_posix.so"].map(|name| dir.join(name)) {
            assert!(file.exists(), "{} is missing", file.display());
        }
        capio
    })
}

/// A file beside [`capio`]: `capio_server` or `libcapio_posix.so`.
///
/// # Panics
/// As [`capio`].
pub fn beside_capio(name: &str) -> PathBuf {
    capio().with_file_name(name)
}

/// `target/<profile>` of the running test (`target/<profile>/deps/<test>`).
pub(crate) fn profile_dir() -> PathBuf {
    let exe = env::current_exe().expect("a test knows its executable");
    let mut dir = exe.parent().expect("an executable lies in a directory");
    if dir.ends_with("deps") {
        dir = dir.parent().expect("deps lies in a profile's directory");
    }
    dir.to_path_buf()
}

/// Builds all of them in the profile of the running test. Also when they are
/// there: they may be older than the sources, and then a test proves nothing.
fn build() -> PathBuf {
    let dir = profile_dir();
    let target = dir
        .parent()
        .expect("a profile lies in the target directory");
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "-p", "shim", "-p", "coordinator"])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo starts");
    assert!(built.success(), "building capio failed: {built}");
    dir
}
