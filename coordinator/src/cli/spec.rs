//! The one place where the command meets the CAPIO-CL parser.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use capio_specs::Spec;
use capio_specs::{ParseOptions, SpecError};

use super::exit::{Done, Failure, OK, USAGE};

/// Reads a document whose relative names mean files below `prefix`.
///
/// # Errors
/// With file, line, column and a hint.
pub fn load(document: &Path, prefix: &Path) -> Result<Arc<Spec>, Failure> {
    read(document, prefix).map(Arc::new).map_err(Failure::usage)
}

fn read(document: &Path, prefix: &Path) -> Result<Spec, SpecError> {
    let options = ParseOptions {
        resolve_prefix: Some(prefix.to_path_buf()),
        document: Some(document.to_path_buf()),
    };
    Spec::load(document, &options)
}

/// The workflow's name.
#[must_use]
pub fn name(spec: &Spec) -> String {
    spec.name().to_owned()
}

/// Names of its steps, in document order.
#[must_use]
pub fn steps(spec: &Spec) -> Vec<String> {
    spec.steps().iter().map(|step| step.name.clone()).collect()
}

/// `capio check`.
///
/// # Errors
/// When the document is wrong.
pub fn check(document: &Path, prefix: &Path, json: bool) -> Done {
    match read(document, prefix) {
        Ok(spec) => {
            let report = spec.check();
            print(json, &report, || report.to_json());
            Ok(OK)
        }
        Err(error) if json => {
            println!("{}", error.to_json());
            Ok(USAGE)
        }
        Err(error) => Err(Failure::usage(error)),
    }
}

/// `capio explain`, of absolute paths.
///
/// # Errors
/// When the document is wrong.
pub fn explain(document: &Path, prefix: &Path, paths: &[PathBuf], json: bool) -> Done {
    let spec = load(document, prefix)?;
    let explained = paths
        .iter()
        .map(|path| spec.explain(path.as_os_str().as_bytes()));
    if json {
        let items: Vec<_> = explained.map(|one| one.to_json()).collect();
        println!("[{}]", items.join(",\n"));
    } else {
        explained.for_each(|one| println!("{}", one.to_string().trim_end()));
    }
    Ok(OK)
}

fn print(json: bool, text: &impl std::fmt::Display, to_json: impl FnOnce() -> String) {
    if json {
        println!("{}", to_json());
    } else {
        println!("{}", text.to_string().trim_end());
    }
}
