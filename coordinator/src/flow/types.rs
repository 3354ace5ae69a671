//! The words in which the caller and the state machine speak.

/// Identity of a file object (an inode), chosen by the caller and never used
/// again for another object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u64);

/// A step: those of the spec come first, in document order (so that the
/// number is that of [`capio_specs::StepIndex`]), then those declared later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub u32);

/// Identity of one blocked call, chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaitId(pub u64);

/// What a name leads to. Symbolic links and the like count as files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Holds bytes.
    File,
    /// Holds names.
    Directory,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Every process of it exited with status 0.
    Success,
    /// Some process of it died by a signal or exited with another status.
    Failed,
}

/// What a waiter for a missing path gets when its last possible producer has
/// ended, none made the path, and one of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FailurePolicy {
    /// [`Resolution::ProducerFailed`], so that the failure is not mistaken
    /// for an optional file that is not there.
    #[default]
    Eio,
    /// [`Resolution::NotFound`], as after a step that left nothing behind.
    NotFound,
}

/// What a blocked call waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WaitFor {
    /// Until the path exists or never will.
    Path(Vec<u8>),
    /// Until the file is final.
    Final(FileId),
    /// Until the list of entries of the directory is final.
    Listing(FileId),
    /// More bytes of a stream. That bytes came is the caller's to notice (and
    /// to [cancel](super::Flow::cancel) the wait); the end of them comes from
    /// here.
    Data(FileId),
}

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// What was waited for has come.
    Ready,
    /// The path does not exist and never will (or the file is gone).
    NotFound,
    /// It never comes because this step failed: an I/O error.
    ProducerFailed(StepId),
    /// [`break_waits`](super::Flow::break_waits) declared a dead-lock.
    Deadlock,
}

/// What follows from events, in the order in which it came about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The file is final, for ever.
    Finalized(FileId),
    /// The file will never be final because this producer of it failed: a
    /// reader gets an I/O error and never an end of file.
    Failed(FileId, StepId),
    /// The wait is over; its number may be used again.
    Released(WaitId, Resolution),
    /// Something for the report.
    Warning(Warning),
}

/// Something that a user should read before trusting the results. `path` is
/// one name of the file, empty for one that never had any.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Warning {
    /// A final file that the spec speaks of was opened for writing.
    WrittenAfterFinal {
        /// The file.
        file: FileId,
        /// A name of it.
        path: Vec<u8>,
        /// Who opened it.
        step: StepId,
    },
    /// The closes asked for by `on_close` have come while the file was still
    /// open for writing: perhaps the count is too low.
    FinalWhileOpen {
        /// The file.
        file: FileId,
        /// A name of it.
        path: Vec<u8>,
        /// Who has it open.
        step: StepId,
    },
    /// A file that another step reads as a stream was cut.
    StreamTruncated {
        /// The file.
        file: FileId,
        /// A name of it.
        path: Vec<u8>,
        /// Who cut it.
        step: StepId,
    },
    /// A process joined a step that had ended. It runs, and the step is open
    /// again for files to come; what was final stays final.
    JoinedEndedStep(StepId),
}

/// The verdict on a path that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Missing {
    /// Some step can still create it: wait for [`WaitFor::Path`].
    Wait,
    /// `ENOENT`.
    NotFound,
    /// An I/O error: this step should have made it, and failed.
    ProducerFailed(StepId),
}

/// How a step may read a file or list a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    /// What is there now; never waits.
    Free,
    /// Nothing of its size or content before it is final.
    UntilFinal,
    /// What is published; the end only when final.
    Stream,
    /// An I/O error: this producer failed before the file was final.
    Failed(StepId),
}
