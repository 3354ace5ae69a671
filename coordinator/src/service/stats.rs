//! What the report tells: bytes, waits, warnings.

use std::collections::HashMap;
use std::time::Duration;

use super::names::Inode;
use crate::flow::StepId;

/// Warnings that are kept; a program in a loop must not fill the memory.
const MAX_WARNINGS: usize = 1000;
/// Files whose waits are told one by one, by step and reason.
const MAX_WAITS: usize = 1 << 16;
/// What stands for all further files.
const OTHERS: &[u8] = b"(other files)";

/// Sum of waits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waited {
    /// Time.
    pub time: Duration,
    /// How often.
    pub count: u64,
}

/// Bytes of a step's open file descriptions that are closed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bytes {
    /// Delivered by reads.
    pub read: u64,
    /// Taken by writes.
    pub written: u64,
}

/// Counters of a session.
#[derive(Debug, Default)]
pub(super) struct Stats {
    /// By step.
    pub bytes: HashMap<StepId, Bytes>,
    /// By step, path and reason.
    pub waits: HashMap<(StepId, Vec<u8>, &'static str), Waited>,
    /// For the report.
    pub warnings: Vec<String>,
    /// Results in doubt, under `--strict`.
    pub errors: Vec<String>,
    /// Diagnosis of a dead-lock.
    pub deadlock: Option<String>,
    /// Readers that closed a stream exactly at the size they were told.
    pub told: HashMap<Inode, Vec<(StepId, u64)>>,
}

impl Stats {
    /// Adds a warning, once.
    pub(super) fn warn(&mut self, text: String) {
        if self.warnings.len() < MAX_WARNINGS && !self.warnings.contains(&text) {
            tracing::warn!("{text}");
            self.warnings.push(text);
        }
    }

    /// Adds what puts results in doubt, once.
    pub(super) fn err(&mut self, text: String) {
        if self.errors.len() < MAX_WARNINGS && !self.errors.contains(&text) {
            self.errors.push(text);
        }
    }

    /// Takes note of the size that a reader of a stream was told before it closed.
    pub(super) fn told(&mut self, inode: Inode, step: StepId, size: u64) {
        let known = self.told.entry(inode).or_default();
        // The smallest tells it all.
        match known.iter_mut().find(|(reader, _)| *reader == step) {
            Some((_, told)) => *told = size.min(*told),
            None => known.push((step, size)),
        }
    }

    /// Adds waits.
    pub(super) fn waited(
        &mut self,
        step: StepId,
        path: &[u8],
        reason: &'static str,
        time: Duration,
        count: u64,
    ) {
        let mut key = (step, path.to_vec(), reason);
        if self.waits.len() >= MAX_WAITS && !self.waits.contains_key(&key) {
            key.1 = OTHERS.to_vec();
        }
        let sum = self.waits.entry(key).or_default();
        sum.time = sum.time.saturating_add(time);
        sum.count = sum.count.saturating_add(count);
    }

    /// Adds bytes.
    pub(super) fn moved(&mut self, step: StepId, read: u64, written: u64) {
        let sum = self.bytes.entry(step).or_default();
        sum.read = sum.read.saturating_add(read);
        sum.written = sum.written.saturating_add(written);
    }
}
