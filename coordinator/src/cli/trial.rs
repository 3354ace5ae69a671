//! A session of one small program, to see whether all parts fit together: the
//! library, this machine's C library, shared memory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::machine::{Check, State};
use super::place;
use crate::session::{Engine, Keep, Session, SessionConfig};

const NAME: &str = "library";
/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What it does in `CAPIO_DIR`.
const SCRIPT: &str = "echo one > probe && read word < probe && test \"$word\" = one";

/// Runs it.
pub(super) fn check(shim: Option<&Path>, engine: &Engine) -> Check {
    let shim = match place::shim(shim) {
        Ok(shim) => shim,
        Err(failure) => return Check::new(NAME, State::Bad, failure.message),
    };
    let shown = shim.display().to_string();
    match trial(shim, engine) {
        Ok(()) => Check::new(
            NAME,
            State::Good,
            format!("{shown} works with the C library"),
        ),
        Err(why) => Check::new(NAME, State::Bad, format!("{shown} does not work: {why}")),
    }
}

fn trial(shim: PathBuf, engine: &Engine) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("no trial could be made: {error}");
    let scratch = tempfile::Builder::new()
        .prefix("capio-doctor-")
        .tempdir()
        .map_err(failed)?;
    let dir = scratch.path().canonicalize().map_err(failed)?;
    let session = (engine.start)(config(dir.clone(), shim)).map_err(|error| error.to_string())?;
    let done = probe(&session, &dir);
    let files = session.snapshot().files.files;
    session.shutdown();
    done?;
    if files == 1 {
        return Ok(());
    }
    Err("programs do not load it (LD_PRELOAD has no effect)".to_owned())
}

fn config(dir: PathBuf, shim: PathBuf) -> SessionConfig {
    SessionConfig {
        dir,
        workflow: "doctor".to_owned(),
        spec: None,
        cache_bytes: 16 << 20,
        store: None,
        store_bytes: 0,
        keep: Keep::None,
        keep_on_failure: false,
        strict: false,
        supervised: false,
        step_grace: Duration::from_secs(1),
        continue_on_error: false,
        shim,
    }
}

fn probe(session: &Arc<dyn Session>, dir: &Path) -> Result<(), String> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", SCRIPT])
        .envs(session.client_env("doctor"))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("/bin/sh does not start: {error}"))?;
    let start = Instant::now();
    while let Ok(None) = child.try_wait() {
        if start.elapsed() > PATIENCE {
            // It may end just now.
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("a program hangs for {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().replace('\n', "; ");
    Err(format!(
        "a program failed ({}): {said}; use a library that was built with this program, and on \
         x86-64 the C library that it is made for (glibc 2.36)",
        output.status
    ))
}
