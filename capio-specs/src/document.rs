//! A document as it is written: typed, but with aliases and relative names.

use crate::model::FiringRule;

/// A version of CAPIO-CL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// No `version` key.
    V1_0,
    /// `"version": 1.1`: adds `configuration`.
    V1_1,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Version::V1_0 => "1.0",
            Version::V1_1 => "1.1",
        })
    }
}

/// A string and the byte offset where it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Located {
    pub(crate) text: String,
    pub(crate) at: usize,
}

#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) configuration: Option<Located>,
    pub(crate) aliases: Vec<RawAlias>,
    pub(crate) steps: Vec<RawStep>,
    pub(crate) permanent: Vec<Located>,
    pub(crate) exclude: Vec<Located>,
    pub(crate) create: Vec<Located>,
    pub(crate) hashing: Vec<Located>,
    pub(crate) manual: Vec<RawManual>,
    pub(crate) memory: Vec<Located>,
    pub(crate) fs: Vec<Located>,
}

#[derive(Debug)]
pub(crate) struct RawAlias {
    pub(crate) group: Located,
    pub(crate) files: Vec<Located>,
}

#[derive(Debug)]
pub(crate) struct RawStep {
    pub(crate) name: Located,
    pub(crate) inputs: Vec<Located>,
    pub(crate) outputs: Vec<Located>,
    pub(crate) streaming: Vec<RawRule>,
}

#[derive(Debug)]
pub(crate) struct RawRule {
    pub(crate) at: usize,
    pub(crate) names: Vec<Located>,
    pub(crate) is_directory: bool,
    pub(crate) committed: RawCommit,
    pub(crate) mode: Option<FiringRule>,
    pub(crate) file_deps: Vec<Located>,
    pub(crate) n_files: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawCommit {
    Termination,
    /// With its count, where one is given.
    Close(Option<u64>),
    File,
    NFiles,
}

#[derive(Debug)]
pub(crate) struct RawManual {
    pub(crate) names: Vec<Located>,
    pub(crate) node: String,
}
