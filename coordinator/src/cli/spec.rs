//! The one place where the command meets the CAPIO-CL parser.

use std::path::Path;
use std::sync::Arc;

use super::exit::{Done, Failure};

/// A document that was read and resolved. There is no parser linked yet, so
/// there is no value of this type: what handles one is compiled and unreachable.
pub enum Spec {}

/// Reads a document whose relative names mean files below `prefix`.
///
/// # Errors
/// With file, line, column and a hint.
pub fn load(document: &Path, _prefix: &Path) -> Result<Arc<Spec>, Failure> {
    Err(not_linked(document))
}

/// The workflow's name.
#[must_use]
pub fn name(spec: &Spec) -> String {
    match *spec {}
}

/// Names of its steps, in document order.
#[must_use]
pub fn steps(spec: &Spec) -> Vec<String> {
    match *spec {}
}

/// `capio check`.
///
/// # Errors
/// When the document is wrong.
pub fn check(document: &Path, _prefix: &Path, _json: bool) -> Done {
    Err(not_linked(document))
}

/// `capio explain`, of absolute paths.
///
/// # Errors
/// When the document is wrong.
pub fn explain(
    document: &Path,
    _prefix: &Path,
    _paths: &[std::path::PathBuf],
    _json: bool,
) -> Done {
    Err(not_linked(document))
}

fn not_linked(document: &Path) -> Failure {
    let document = document.display();
    Failure::session(format!(
        "{document}: this build of capio has no CAPIO-CL parser"
    ))
}
