//! A session without an engine, for the command's own tests.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::admin::{Admin, AdminError, Entry, EntryKind, FileName};
use super::{DiffEntry, DrainReport, Session, Snapshot, StepEnd};

/// Records what it is told and gives what it was given.
#[derive(Default)]
pub(crate) struct FakeSession {
    pub(crate) dir: PathBuf,
    pub(crate) snapshot: Mutex<Snapshot>,
    pub(crate) drained: Mutex<DrainReport>,
    pub(crate) events: Mutex<Vec<String>>,
}

impl FakeSession {
    fn record(&self, event: String) {
        self.events.lock().unwrap().push(event);
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }
}

impl Session for FakeSession {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn client_env(&self, step: &str) -> Vec<(OsString, OsString)> {
        vec![("CAPIO_APP_NAME".into(), step.into())]
    }

    fn step_started(&self, step: &str) {
        self.record(format!("started {step}"));
    }

    fn step_ended(&self, step: &str, end: &StepEnd) {
        self.record(format!("ended {step}: {end}"));
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap().clone()
    }

    fn drain(&self, success: bool) -> DrainReport {
        self.record(format!("drain {success}"));
        self.drained.lock().unwrap().clone()
    }

    fn give_up(&self) {
        self.record("give up".into());
    }

    fn shutdown(&self) {
        self.record("shutdown".into());
    }
}

/// Files in a map.
#[derive(Default)]
pub(crate) struct FakeAdmin {
    pub(crate) files: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    pub(crate) snapshot: Mutex<Snapshot>,
    pub(crate) orders: Mutex<Vec<String>>,
}

impl FakeAdmin {
    pub(crate) fn add(&self, path: &Path, content: &[u8]) {
        self.files
            .lock()
            .unwrap()
            .insert(path.to_owned(), content.to_vec());
    }
}

fn entry(name: &Path, size: usize) -> Entry {
    Entry {
        name: name.into(),
        kind: EntryKind::File,
        size: size as u64,
        mode: 0o644,
        uid: 0,
        gid: 0,
        inode: 7,
        links: 1,
        modified_ns: 1_700_000_000_000_000_000,
        is_final: true,
        on_disk: false,
        target: None::<FileName>,
    }
}

impl Admin for FakeAdmin {
    fn list(&self, path: &Path) -> Result<Vec<Entry>, AdminError> {
        let files = self.files.lock().unwrap();
        let below = files.iter().filter(|(file, _)| file.parent() == Some(path));
        Ok(below
            .map(|(file, bytes)| entry(Path::new(file.file_name().unwrap()), bytes.len()))
            .collect())
    }

    fn stat(&self, path: &Path) -> Result<Entry, AdminError> {
        let files = self.files.lock().unwrap();
        let bytes = files
            .get(path)
            .ok_or_else(|| AdminError::path(path, libc::ENOENT))?;
        Ok(entry(path, bytes.len()))
    }

    fn read(&self, path: &Path, offset: u64, len: u32) -> Result<Vec<u8>, AdminError> {
        let files = self.files.lock().unwrap();
        let bytes = files
            .get(path)
            .ok_or_else(|| AdminError::path(path, libc::ENOENT))?;
        let start = (offset as usize).min(bytes.len());
        let end = (start + len as usize).min(bytes.len());
        Ok(bytes[start..end].to_vec())
    }

    fn ps(&self) -> Result<Snapshot, AdminError> {
        Ok(self.snapshot.lock().unwrap().clone())
    }

    fn diff(&self) -> Result<Vec<DiffEntry>, AdminError> {
        Ok(Vec::new())
    }

    fn done(&self, step: &str) -> Result<(), AdminError> {
        self.orders.lock().unwrap().push(format!("done {step}"));
        Ok(())
    }

    fn stop(&self) -> Result<(), AdminError> {
        self.orders.lock().unwrap().push("stop".into());
        Ok(())
    }
}
