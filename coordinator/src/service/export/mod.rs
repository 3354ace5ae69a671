//! The end of a session: what is kept goes to its place on disk.
//!
//! [`plan`] says what has to change; everything that is put into place is then
//! staged and synced, the changes are committed by a journal, and made.

mod diff;
mod plan;
mod strays;
#[cfg(test)]
mod tests;
mod tree;

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use super::engine::Engine;
use super::journal::{self, Applied, Change, Material, SparseSum, Stage, Staged};
use crate::session::{
    Conflict, DiffEntry, DrainReport, DroppedFile, EntryKind, FileName, Keep, KeepReason, KeptFile,
};
use plan::{Item, Plan, Source};

/// Bytes copied to disk at a time.
const PIECE: usize = 1 << 20;

impl Engine {
    /// What the end of the session would change on disk if all steps ended well
    /// now.
    pub(super) fn diff(&mut self) -> Vec<DiffEntry> {
        self.drain_closes();
        let plan = self.plan(self.config.keep != Keep::None);
        plan.entries(self.names.dir())
    }

    /// Applies what is kept and reports on every file; the session's content
    /// is over afterwards.
    pub(super) fn drain(&mut self, success: bool) -> DrainReport {
        let started = Instant::now();
        self.draining = true;
        self.drain_closes();
        let mut report = DrainReport::default();
        let apply = (success || self.config.keep_on_failure) && self.config.keep != Keep::None;
        let mut plan = self.plan(apply);
        report.dropped.append(&mut plan.dropped);
        report.errors.append(&mut plan.errors);
        report.errors.append(&mut self.strays());
        if !plan.is_empty()
            && let Err(error) = self.bring_home(&plan, &mut report)
        {
            let dir = self.names.dir().display();
            report.errors.push(format!(
                "the results could not be written to {dir}: {error}; free some space or fix the \
                 permissions and run again"
            ));
        }
        report.kept.sort_by(|a, b| a.path.cmp(&b.path));
        report.dropped.sort_by(|a, b| a.path.cmp(&b.path));
        report.errors.append(&mut self.stats.errors);
        report.seconds = started.elapsed().as_secs_f64();
        report
    }

    fn bring_home(&self, plan: &Plan, report: &mut DrainReport) -> io::Result<()> {
        let mut stage = Stage::open(self.names.dir(), &self.config.workflow)?;
        let mut staged = Vec::new();
        for item in &plan.items {
            if !self.is_given_up() {
                match self.stage(&mut stage, item) {
                    Ok(places) => staged.push((item, places)),
                    Err(error) => report.errors.push(format!(
                        "{} could not be written to disk: {error}; free some space or fix the \
                         permissions and run again",
                        item.shown
                    )),
                }
            }
        }
        if self.is_given_up() {
            return give_up(stage, plan, report);
        }
        let changes = self.changes(plan, &staged, report);
        let applied = stage.commit(changes)?.apply();
        self.tell(&staged, applied, report);
        Ok(())
    }

    /// Whether the user does not want to wait for the results.
    fn is_given_up(&self) -> bool {
        self.give_up.load(SeqCst)
    }

    /// Makes everything ready that leads to one file.
    fn stage(&self, stage: &mut Stage, item: &Item) -> io::Result<Vec<Staged>> {
        let mut places: Vec<Staged> = Vec::new();
        for target in &item.targets {
            let again = places
                .iter()
                .find_map(|first| stage.again(&target.path, first).ok());
            let staged = match again {
                Some(staged) => staged,
                None => self.stage_first(stage, item, &target.path)?,
            };
            places.push(staged);
        }
        Ok(places)
    }

    fn stage_first(&self, stage: &mut Stage, item: &Item, path: &Path) -> io::Result<Staged> {
        let attributes = &item.attributes;
        match &item.source {
            Source::Record(record) => {
                let write = |file: &File| self.write_out(*record, file);
                stage.add(path, &Material::Content(&write, attributes))
            }
            Source::Disk(original) => stage.add(path, &Material::Name(original)),
            Source::Link(content) => {
                let content = Path::new(std::ffi::OsStr::from_bytes(content));
                stage.add(path, &Material::Link(content, attributes))
            }
            Source::Node(format, device) => {
                stage.add(path, &Material::Node(*format, *device, attributes))
            }
        }
    }

    /// Copies content to disk; what is zero is left a hole.
    fn write_out(&self, record: u32, file: &File) -> io::Result<u32> {
        let size = self.records.size(record);
        let mut sum = SparseSum::default();
        let mut buffer = vec![0; PIECE];
        for (start, length) in self.records.data(record) {
            let end = (start + length).min(size);
            let mut at = start;
            while at < end {
                if self.is_given_up() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let part = (end - at).min(PIECE as u64) as usize;
                let part = &mut buffer[..part];
                let read = self.records.read(record, at, part);
                read.map_err(io::Error::from_raw_os_error)?;
                journal::write_sparse(file, at, part, &mut sum)?;
                at += part.len() as u64;
            }
        }
        file.set_len(size)?;
        Ok(sum.finish(size))
    }

    /// The plan as the journal has it, without what could not be staged.
    fn changes(
        &self,
        plan: &Plan,
        staged: &[(&Item, Vec<Staged>)],
        report: &mut DrainReport,
    ) -> Vec<Change> {
        let dir = self.names.dir();
        let path = |path: &Path| journal::relative(dir, path);
        let removals = |blocks| {
            let wanted = plan.removals.iter().filter(move |r| r.blocks == blocks);
            wanted.map(|removal| Change::Remove {
                path: path(&removal.path),
                found: removal.found.clone(),
            })
        };
        let complete = report.errors.is_empty();
        if !complete && !plan.removals.is_empty() {
            let reason = "nothing was removed on disk, as not all files could be written";
            report.errors.push(reason.to_owned());
        }
        let mut changes = Vec::new();
        if complete {
            changes.extend(removals(true));
        }
        let directories = plan.directories();
        changes.extend(directories.map(|place| Change::MakeDirectory { path: path(place) }));
        for (item, places) in staged {
            for (target, staged) in item.targets.iter().zip(places) {
                changes.push(Change::Put {
                    staged: staged.clone(),
                    path: path(&target.path),
                    found: target.found.clone(),
                });
            }
        }
        if complete {
            changes.extend(removals(false));
        }
        changes.extend(plan.touched.iter().map(|touch| Change::Attributes {
            path: path(&touch.path),
            attributes: touch.attributes.clone(),
        }));
        changes
    }

    fn tell(&self, staged: &[(&Item, Vec<Staged>)], applied: Applied, report: &mut DrainReport) {
        let put: std::collections::HashSet<_> = applied.put.iter().collect();
        let is_file = |item: &Item| item.kind == EntryKind::File;
        for (item, _) in staged.iter().filter(|(item, _)| is_file(item)) {
            let dir = self.names.dir();
            let mut targets = item.targets.iter();
            if targets.any(|target| put.contains(&journal::relative(dir, &target.path))) {
                let (path, bytes, reason) = (item.shown.clone(), item.bytes, item.reason);
                report.kept.push(KeptFile {
                    path,
                    bytes,
                    reason,
                });
            }
        }
        report
            .kept
            .extend(applied.removed.iter().map(|path| KeptFile {
                path: format!("{} (removed)", lossy(path)),
                bytes: 0,
                reason: KeepReason::Changed,
            }));
        let conflicts = applied.conflicts.iter().map(|(path, kept_as)| Conflict {
            path: lossy(path),
            kept_as: lossy(kept_as),
        });
        report.conflicts.extend(conflicts);
        report.errors.extend(applied.errors);
        if applied.unfinished {
            report.errors.push(format!(
                "not all results are in place: fix that and run `capio apply --dir {}`",
                self.names.dir().display()
            ));
        }
    }
}

fn lossy(name: &FileName) -> String {
    name.to_string()
}

/// Nothing is kept, and nothing has changed.
fn give_up(stage: Stage, plan: &Plan, report: &mut DrainReport) -> io::Result<()> {
    report.given_up = true;
    report.errors.clear();
    report
        .errors
        .push("the results were given up: nothing was written".to_owned());
    report
        .dropped
        .extend(plan.items.iter().map(|item| DroppedFile {
            path: item.shown.clone(),
            bytes: item.bytes,
        }));
    stage.discard().map(drop)
}
