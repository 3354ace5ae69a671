//! What a document means once it is resolved: all names absolute, aliases
//! expanded, defaults filled in.

/// When a file (or directory) is *final*: committed for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CommitRule {
    /// When the last process of every step that can produce it has ended.
    OnTermination,
    /// After `count` last closes of an open file description that was open
    /// for writing by a producer (for a directory: once at least `count`
    /// files in it were closed by writers and none is open for writing).
    OnClose {
        /// Number of closes, at least 1.
        count: u64,
    },
    /// When every file of `deps` (absolute paths) is final.
    OnFile {
        /// Absolute paths of the files waited for.
        deps: Vec<String>,
    },
    /// Directories only: once it holds at least `count` entries.
    OnNFiles {
        /// Number of entries.
        count: u64,
    },
}

/// When a consumer may read: CAPIO-CL's `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FiringRule {
    /// Once the file is final (the default).
    Update,
    /// Every byte as soon as it is written.
    NoUpdate,
}

/// Where a file should live, from the `storage` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageHint {
    /// Nothing was said.
    Unspecified,
    /// `storage.memory`: never leaves memory unless permanent.
    Memory,
    /// `storage.fs`: goes to the store at once.
    Fs,
}

/// Index of a step in the document's `IO_Graph`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepIndex(pub u32);

/// Everything the document says of one absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRules {
    /// Steps that may write it: union over all matching `output_stream`
    /// entries, in document order.
    pub producers: Vec<StepIndex>,
    /// Steps that read it: union over all matching `input_stream` entries.
    pub consumers: Vec<StepIndex>,
    /// Commit rule (default [`CommitRule::OnTermination`]).
    pub commit: CommitRule,
    /// Firing rule (default [`FiringRule::Update`]).
    pub firing: FiringRule,
    /// A `dirname` rule names the path, so it is a directory.
    pub is_directory: bool,
    /// Matched by an entry of `permanent`.
    pub permanent: bool,
    /// Matched by an entry of `exclude`.
    pub excluded: bool,
    /// From the `storage` section.
    pub storage: StorageHint,
}

impl PathRules {
    /// Rules of a path that no entry matches.
    #[must_use]
    pub fn unspecified() -> Self {
        Self {
            producers: Vec::new(),
            consumers: Vec::new(),
            commit: CommitRule::OnTermination,
            firing: FiringRule::Update,
            is_directory: false,
            permanent: false,
            excluded: false,
            storage: StorageHint::Unspecified,
        }
    }
}

/// As a document writes it: `on_close:2`.
impl std::fmt::Display for CommitRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CommitRule::OnTermination => f.write_str("on_termination"),
            CommitRule::OnClose { count: 1 } => f.write_str("on_close"),
            CommitRule::OnClose { count } => write!(f, "on_close:{count}"),
            CommitRule::OnFile { .. } => f.write_str("on_file"),
            CommitRule::OnNFiles { .. } => f.write_str("on_n_files"),
        }
    }
}

/// As a document writes it: `no_update`.
impl std::fmt::Display for FiringRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FiringRule::Update => "update",
            FiringRule::NoUpdate => "no_update",
        })
    }
}
