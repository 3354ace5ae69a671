//! Waiting and finality: the pure state machine of a session.
//!
//! Events go in (steps start and end, names come and go, writers open and
//! close), verdicts come out: who may read what, who waits, and which file is
//! final. No I/O, no clock, no threads; the caller serialises the events and
//! acts on the [`Effect`]s.
//!
//! Paths are absolute, without `.`, `..`, doubled or trailing slashes. Events
//! that make no sense (a rename of nothing, say) change nothing.
//!
//! * A **producer** of a file is a step with the path, or a directory above
//!   it, in its `output_stream`, or the step that created it. It never waits
//!   for the file.
//! * A **consumer** of a path is a step with the path, or a directory above
//!   it, in its `input_stream`. Nobody else ever waits.
//! * A file is **final** once the rule of one of its names is met, or all
//!   producers by one of its names have ended; and then for ever.
//! * A file is **failed** once a step that created it, or wrote it as its
//!   producer, has failed, or once all its producers have ended and one of
//!   them failed; unless it was final before.
//!
//! Costs: an event takes time logarithmic in the number of files and linear
//! in the file's names, the steps that touch it, and what it wakes. The end
//! of a step visits the unfinished files of that step, a rename the names
//! that move.

mod cycle;
mod file;
mod finality;
mod roles;
mod state;
mod steps;
mod types;
mod waits;

#[cfg(test)]
mod tests;

use file::{File, Verdict};
use state::{Law, State};
use waits::Wait;

pub use roles::{Below, Rules, SharedRules};
pub use types::{
    Effect, Ending, FailurePolicy, FileId, FileKind, Missing, Reading, Resolution, StepId, WaitFor,
    WaitId, Warning,
};

use capio_specs::FiringRule;

/// The state machine of one session.
#[derive(Clone)]
pub struct Flow {
    book: Book,
    state: State,
}

/// What stays the same throughout a session.
#[derive(Clone)]
struct Book {
    rules: SharedRules,
    known: usize,
    policy: FailurePolicy,
}

impl Book {
    fn law(&self) -> Law<'_> {
        Law {
            rules: &*self.rules,
            known: self.known,
            policy: self.policy,
        }
    }
}

/// Steps.
impl Flow {
    /// A session in which nothing has happened.
    #[must_use]
    pub fn new(rules: SharedRules, failure: FailurePolicy) -> Self {
        let names = rules.step_names();
        let book = Book {
            known: names.len(),
            rules,
            policy: failure,
        };
        Self {
            book,
            state: State::new(names),
        }
    }

    /// The step of that name, declared now if nobody named it before (such a
    /// step has no roles in the spec).
    pub fn step(&mut self, name: &str) -> StepId {
        self.state.steps.find_or_declare(name)
    }

    /// All steps: those of the document, then those declared later.
    pub fn step_ids(&self) -> impl Iterator<Item = StepId> + use<> {
        (0..self.state.steps.len()).map(StepId)
    }

    /// The name of a step; `?` for a number that no step has.
    #[must_use]
    pub fn step_name(&self, step: StepId) -> &str {
        self.state.steps.name(step)
    }

    /// A process of the step runs. A step that had ended is open again for
    /// what is not settled yet, so the caller must tell its end once more.
    pub fn step_started(&mut self, step: StepId) {
        if self.state.steps.start(step) {
            self.warn(Warning::JoinedEndedStep(step));
        }
    }

    /// The last process of the step has ended. Tell the closes of its
    /// descriptors first where they are known.
    pub fn step_ended(&mut self, step: StepId, ending: Ending) {
        self.state.steps.end(step, ending);
        self.state.step_is_over(self.book.law(), step);
    }

    /// The step will not start (or not go on): it counts as ended, without
    /// having failed.
    pub fn step_never(&mut self, step: StepId) {
        self.step_ended(step, Ending::Success);
    }

    /// Whether the step has ended and no process has joined it since.
    #[must_use]
    pub fn has_ended(&self, step: StepId) -> bool {
        self.state.steps.ended(step)
    }
}

/// Names and objects.
impl Flow {
    /// A file or directory that lay in `CAPIO_DIR` beforehand: final at once.
    /// Except a directory into which a step writes by the spec: what that
    /// step will add is not there yet, so its own rule decides.
    pub fn preexisting(&mut self, path: &[u8], id: FileId, kind: FileKind) {
        if self.state.names.get(path) == Some(&id) {
            return;
        }
        let first = !self.state.files.contains_key(&id);
        if first {
            let mut file = File::new(kind, None);
            file.preexisting = true;
            self.state.files.insert(id, file);
        }
        self.put(path, id);
        let grows = kind == FileKind::Directory
            && !self.state.roles(self.book.law(), path).producers.is_empty();
        if first && !grows {
            self.state.finalize(id);
        }
        self.state.settle();
    }

    /// A new object has come to be at `path`; `creator` is `None` when no
    /// step made it.
    pub fn created(&mut self, path: &[u8], id: FileId, kind: FileKind, creator: Option<StepId>) {
        self.insert(id, kind, creator);
        self.put(path, id);
        self.state.settle();
    }

    /// A new object without a name (`O_TMPFILE`), perhaps [`linked`](Self::linked) later.
    pub fn created_unnamed(&mut self, id: FileId, kind: FileKind, creator: Option<StepId>) {
        self.insert(id, kind, creator);
        self.state.dirty.insert(id);
        self.state.settle();
    }

    fn insert(&mut self, id: FileId, kind: FileKind, creator: Option<StepId>) {
        self.state
            .files
            .entry(id)
            .or_insert_with(|| File::new(kind, creator));
        self.state.note_producers(id);
    }

    /// Gives the name to the file, whoever had it before.
    fn put(&mut self, path: &[u8], id: FileId) {
        if self.state.names.contains_key(path) {
            self.state.detach_tree(path);
        }
        self.state.attach(self.book.law(), path, id);
    }

    /// The file has one more name.
    pub fn linked(&mut self, path: &[u8], id: FileId) {
        if self.state.files.contains_key(&id) && self.state.names.get(path) != Some(&id) {
            self.put(path, id);
            self.state.settle();
        }
    }

    /// A file, or a directory with all below it, has moved; what was at `to`
    /// has lost that name. Two names of one file stay as they are.
    pub fn renamed(&mut self, from: &[u8], to: &[u8]) {
        let Some(moving) = self.state.names.get(from) else {
            return;
        };
        if self.state.names.get(to) == Some(moving) || to.starts_with(&roles::prefix(from)) {
            return;
        }
        let tree = self.state.detach_tree(from);
        self.state.detach_tree(to);
        self.state.attach_tree(self.book.law(), to, &tree);
        self.state.settle();
    }

    /// Two names have changed places (`RENAME_EXCHANGE`).
    pub fn exchanged(&mut self, one: &[u8], other: &[u8]) {
        let nested =
            one.starts_with(&roles::prefix(other)) || other.starts_with(&roles::prefix(one));
        if one == other || nested {
            return;
        }
        let tree = self.state.detach_tree(one);
        let other_tree = self.state.detach_tree(other);
        self.state.attach_tree(self.book.law(), one, &other_tree);
        self.state.attach_tree(self.book.law(), other, &tree);
        self.state.settle();
    }

    /// The name is gone (`unlink` or `rmdir`). Who has the file open keeps it
    /// under the rules that it had.
    pub fn unlinked(&mut self, path: &[u8]) {
        self.state.detach(path);
        self.state.settle();
    }

    /// Neither a name nor an open file description is left: whoever still
    /// waits for it learns that it is gone.
    pub fn forgotten(&mut self, id: FileId) {
        let Some(file) = self.state.files.get(&id) else {
            return;
        };
        let paths: Vec<_> = file.paths().cloned().collect();
        for path in paths {
            self.state.detach(&path);
        }
        self.state.settle();
        self.state.forget_indexes_of(id);
        for wait in self.state.waits.for_file(id) {
            self.state.release(wait, Resolution::NotFound);
        }
        self.state.files.remove(&id);
    }
}

/// Writers.
impl Flow {
    /// The step has an open file description of the file that is open for
    /// writing.
    pub fn writer_opened(&mut self, id: FileId, step: StepId) {
        self.warn_of_write(id, step);
        self.state
            .change_writers(id, |file| file.writing.entry(step).or_default().open += 1);
        self.state.settle();
    }

    /// The last close of one that was open for writing.
    pub fn writer_closed(&mut self, id: FileId, step: StepId) {
        self.writer_gone(id, step, 1);
    }

    /// One that was open for writing is gone because its last owner was
    /// killed: it counts for no `on_close`, as nobody knows whether all was
    /// written. The file waits for another close or the end of its producers.
    pub fn writer_died(&mut self, id: FileId, step: StepId) {
        self.writer_gone(id, step, 0);
    }

    fn writer_gone(&mut self, id: FileId, step: StepId, closes: u64) {
        self.state.change_writers(id, |file| {
            let writing = file.writing.entry(step).or_default();
            writing.open = writing.open.saturating_sub(1);
            writing.closed += closes;
        });
        self.state.settle();
    }

    /// The file has become shorter.
    pub fn truncated(&mut self, id: FileId, step: StepId) {
        let Some(file) = self.state.files.get(&id) else {
            return;
        };
        let streams = file.names.iter().find(|name| {
            name.roles.firing == FiringRule::NoUpdate
                && name
                    .roles
                    .consumers
                    .iter()
                    .any(|&consumer| consumer != step)
        });
        if let Some(name) = streams {
            let path = name.path.to_vec();
            self.warn(Warning::StreamTruncated {
                file: id,
                path,
                step,
            });
        }
    }

    fn warn_of_write(&mut self, id: FileId, step: StepId) {
        let Some(file) = self.state.files.get(&id) else {
            return;
        };
        let concerns_somebody = file.names.iter().any(|name| {
            let consumed = name
                .roles
                .consumers
                .iter()
                .any(|&consumer| consumer != step);
            consumed || (!file.preexisting && !name.roles.producers.is_empty())
        });
        if file.verdict == Verdict::Final && concerns_somebody {
            let path = file.a_path();
            self.warn(Warning::WrittenAfterFinal {
                file: id,
                path,
                step,
            });
        }
    }

    fn warn(&mut self, warning: Warning) {
        self.state.effects.push_back(Effect::Warning(warning));
    }
}

/// Verdicts.
impl Flow {
    /// What a step gets that looks up a path where nothing is.
    #[must_use]
    pub fn missing(&self, step: StepId, path: &[u8]) -> Missing {
        self.state.missing(self.book.law(), step, path).0
    }

    /// How a step may read the file that it found at `path` (what `stat`
    /// tells included). Directories are free: their list of entries is the
    /// matter of [`listing`](Self::listing).
    #[must_use]
    pub fn reading(&self, step: StepId, id: FileId, path: &[u8]) -> Reading {
        let roles = self.state.roles(self.book.law(), path);
        match self.state.files.get(&id) {
            Some(file) if file.kind == FileKind::File && roles.consumes(step) => {
                self.reading_of(step, file, &roles)
            }
            _ => Reading::Free,
        }
    }

    /// Whether the spec names a step that reads `path`.
    #[must_use]
    pub fn is_read_by_rule(&self, path: &[u8]) -> bool {
        let roles = self.state.roles(self.book.law(), path);
        !roles.consumers.is_empty()
    }

    /// Whether the spec names a step that may wait for something to come at `path`.
    #[must_use]
    pub fn is_awaited(&self, path: &[u8]) -> bool {
        self.state.is_awaited(self.book.law(), path)
    }

    /// How a step may list the directory that it found at `path`: free unless
    /// the spec names that very path as something the step reads.
    #[must_use]
    pub fn listing(&self, step: StepId, id: FileId, path: &[u8]) -> Reading {
        let roles = self.state.roles(self.book.law(), path);
        match self.state.files.get(&id) {
            Some(file) if file.kind == FileKind::Directory && roles.listers.contains(&step) => {
                self.reading_of(step, file, &roles)
            }
            _ => Reading::Free,
        }
    }

    fn reading_of(&self, step: StepId, file: &File, roles: &roles::Roles) -> Reading {
        if file.is_producer(step) || roles.produces(step) {
            return Reading::Free;
        }
        match (file.verdict, roles.firing) {
            (Verdict::Final, _) => Reading::Free,
            (Verdict::Failed(culprit), _) => Reading::Failed(culprit),
            (Verdict::Open, FiringRule::Update) => Reading::UntilFinal,
            (Verdict::Open, FiringRule::NoUpdate) => Reading::Stream,
        }
    }

    /// Whether the file is final; false for an unknown file.
    #[must_use]
    pub fn is_final(&self, id: FileId) -> bool {
        self.state
            .files
            .get(&id)
            .is_some_and(|file| file.verdict == Verdict::Final)
    }

    /// The step whose failure left the file unfinished for ever.
    #[must_use]
    pub fn failed_by(&self, id: FileId) -> Option<StepId> {
        match self.state.files.get(&id)?.verdict {
            Verdict::Failed(step) => Some(step),
            _ => None,
        }
    }
}

/// Waiting.
impl Flow {
    /// Asks for a wait. An answer means that there is nothing to wait for;
    /// without one the wait is registered and an [`Effect::Released`] will
    /// end it, unless [`cancel`](Self::cancel) does. Whether a file is to be
    /// waited for at all is told by [`reading`](Self::reading) and
    /// [`listing`](Self::listing); a producer of it is never made to wait.
    pub fn wait(&mut self, id: WaitId, step: StepId, target: WaitFor) -> Option<Resolution> {
        self.state.waits.remove(id);
        let mut creators = Vec::new();
        let at_once = match &target {
            WaitFor::Path(path) if self.state.names.contains_key(path.as_slice()) => {
                Some(Resolution::Ready)
            }
            WaitFor::Path(path) => {
                let (verdict, who) = self.state.missing(self.book.law(), step, path);
                creators = who;
                match verdict {
                    Missing::Wait => None,
                    Missing::NotFound => Some(Resolution::NotFound),
                    Missing::ProducerFailed(culprit) => Some(Resolution::ProducerFailed(culprit)),
                }
            }
            WaitFor::Final(file) | WaitFor::Listing(file) | WaitFor::Data(file) => {
                self.outcome(*file, step)
            }
        };
        if at_once.is_none() {
            self.state.waits.insert(
                id,
                Wait {
                    step,
                    target,
                    creators,
                },
            );
        }
        at_once
    }

    fn outcome(&self, id: FileId, step: StepId) -> Option<Resolution> {
        let Some(file) = self.state.files.get(&id) else {
            return Some(Resolution::NotFound);
        };
        match file.verdict {
            _ if file.is_producer(step) => Some(Resolution::Ready),
            Verdict::Final => Some(Resolution::Ready),
            Verdict::Failed(culprit) => Some(Resolution::ProducerFailed(culprit)),
            Verdict::Open => None,
        }
    }

    /// The waiter died or gave up. Effects not yet taken may still name it.
    pub fn cancel(&mut self, id: WaitId) {
        self.state.waits.remove(id);
    }

    /// A dead-lock was declared: these waits end with it.
    pub fn break_waits(&mut self, ids: &[WaitId]) {
        for &id in ids {
            self.state.release(id, Resolution::Deadlock);
        }
    }

    /// Steps that wait on each other through files, as (who, for which path,
    /// on whom), each step once. It looks at waits alone: a step with another
    /// process that still runs may free itself, which is the caller's to
    /// know.
    #[must_use]
    pub fn cycle(&self) -> Option<Vec<(StepId, Vec<u8>, StepId)>> {
        self.state.cycle(self.book.law())
    }

    /// What followed from the events since the last call, first things first.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        self.state.effects.drain(..).collect()
    }

    /// All registered waits.
    pub fn waits(&self) -> impl Iterator<Item = (WaitId, StepId, &WaitFor)> {
        self.state
            .waits
            .iter()
            .map(|(id, wait)| (id, wait.step, &wait.target))
    }
}
