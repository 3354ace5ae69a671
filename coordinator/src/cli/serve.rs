//! `capio serve`, and what it shares with `capio_server`: a session alone,
//! until a signal ends it.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sd_notify::NotifyState;

use super::args::Serve;
use super::exit::{self, Done, Failure};
use super::{daemon, logging, place, run};
use crate::report::FilesReport;
use crate::run::screen::Screen;
use crate::run::signals::Signals;
use crate::session::{DrainReport, Engine, SessionConfig, Snapshot, StepState};

pub(super) fn serve(args: &Serve, engine: &Engine) -> Done {
    if args.daemon && !daemon::is_child() {
        return daemon::start();
    }
    start_log(args.log.as_deref())?;
    let dir = place::directory(args.session.dir.as_deref(), None)?;
    let mut config = run::config(&args.session, args.session.spec.as_deref(), dir)?;
    config.step_grace = args.step_grace;
    hold(config, args.ready_file.as_deref(), engine)
}

/// Log lines go to standard error, or to this file, which is appended to.
pub(super) fn start_log(file: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = file else {
        logging::to_screen(&Arc::new(Screen::plain()), "info");
        return Ok(());
    };
    let file = OpenOptions::new().append(true).create(true).open(path);
    let file = file.map_err(|error| {
        Failure::usage(format!("cannot write the log {}: {error}", path.display()))
    })?;
    logging::to_file(file, "info");
    Ok(())
}

/// Starts the session, tells that it is ready, waits for a signal, and ends it.
pub(super) fn hold(config: SessionConfig, ready_file: Option<&Path>, engine: &Engine) -> Done {
    let signals = Signals::take_over().map_err(Failure::session)?;
    let (dir, workflow) = (config.dir.clone(), config.workflow.clone());
    let session = (engine.start)(config).map_err(Failure::session)?;
    tracing::info!(dir = %dir.display(), workflow, "ready");
    let ready = tell_ready(ready_file);
    if let Ok(_marker) = &ready {
        match signals.wait() {
            Ok(signal) => tracing::info!("{signal}: the session ends"),
            Err(error) => tracing::error!("signals cannot be received: {error}"),
        }
    }
    notify(NotifyState::Stopping);
    let snapshot = session.snapshot();
    let drain = session.drain(went_well(&snapshot));
    let snapshot = session.snapshot();
    session.shutdown();
    ready?;
    Ok(tell_end(&snapshot, drain))
}

fn went_well(snapshot: &Snapshot) -> bool {
    let failed = snapshot
        .steps
        .iter()
        .any(|step| step.state == StepState::Failed);
    snapshot.deadlock.is_none() && !failed
}

/// The file that says that programs may join; removed when dropped.
struct ReadyFile(Option<PathBuf>);

impl Drop for ReadyFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn tell_ready(file: Option<&Path>) -> Result<ReadyFile, Failure> {
    if let Some(path) = file {
        write_whole(path, &format!("{}\n", std::process::id())).map_err(|error| {
            Failure::usage(format!(
                "cannot write the ready file {}: {error}",
                path.display()
            ))
        })?;
    }
    notify(NotifyState::Ready);
    daemon::tell_ready();
    Ok(ReadyFile(file.map(Path::to_owned)))
}

/// Whoever sees the file sees all of it.
fn write_whole(path: &Path, content: &str) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
    std::io::Write::write_all(&mut file, content.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("the service manager cannot be notified: {error}");
    }
}

fn tell_end(snapshot: &Snapshot, drain: DrainReport) -> u8 {
    for warning in snapshot.other_warnings() {
        tracing::warn!("{warning}");
    }
    let lost = !drain.errors.is_empty() || !drain.conflicts.is_empty();
    let files = FilesReport::from(drain);
    for line in files.to_string().lines() {
        if lost {
            tracing::error!("{line}");
        } else {
            tracing::info!("{line}");
        }
    }
    match &snapshot.deadlock {
        Some(deadlock) => {
            tracing::error!("{deadlock}");
            exit::DEADLOCK
        }
        None if lost => exit::FILES,
        None => exit::OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Conflict, StepSnapshot};

    #[test]
    fn a_ready_file_is_there_whole_while_the_session_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready");
        let marker = tell_ready(Some(&path)).unwrap();
        let content = std::fs::read_to_string(&path).unwrap();
        assert_eq!(content, format!("{}\n", std::process::id()));
        drop(marker);
        assert!(!path.exists());
        assert!(tell_ready(Some(Path::new("/no/such/dir/ready"))).is_err());
    }

    #[test]
    fn lost_files_and_dead_locks_show_in_the_exit_status() {
        let mut snapshot = Snapshot::default();
        let mut drain = DrainReport::default();
        assert_eq!(tell_end(&snapshot, drain.clone()), exit::OK);
        drain.conflicts.push(Conflict {
            path: "/w/a".into(),
            kept_as: "/w/a.capio".into(),
        });
        assert_eq!(tell_end(&snapshot, drain.clone()), exit::FILES);
        snapshot.deadlock = Some("a waits for b".into());
        assert_eq!(tell_end(&snapshot, drain), exit::DEADLOCK);
    }

    #[test]
    fn a_failed_step_makes_the_session_a_failed_one() {
        let mut snapshot = Snapshot::default();
        assert!(went_well(&snapshot));
        snapshot.steps.push(StepSnapshot {
            state: StepState::Failed,
            ..StepSnapshot::default()
        });
        assert!(!went_well(&snapshot));
    }
}
