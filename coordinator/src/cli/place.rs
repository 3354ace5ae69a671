//! Which directory and which session are meant, and where the shim lies.

use std::path::{Component, Path, PathBuf};

use super::args::SessionRef;
use super::exit::Failure;
use crate::run::program;
use crate::session::Engine;
use crate::session::admin::AdminClient;

/// Name of a workflow that nobody named; clients assume the same.
pub(super) const DEFAULT_WORKFLOW: &str = "CAPIO";

/// Name of the library that takes calls over.
const SHIM: &str = "libcapio_posix.so";

/// A variable of the environment, unless it is empty.
pub(super) fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// The session's directory, absolute and resolved: the first that is given of
/// the argument, the workflow file's, `CAPIO_DIR`, and the current one.
pub(super) fn directory(given: Option<&Path>, file: Option<&Path>) -> Result<PathBuf, Failure> {
    let given = given.or(file).map(Path::to_owned);
    let dir = given
        .or_else(|| variable("CAPIO_DIR"))
        .unwrap_or_else(|| ".".into());
    resolve_directory(&dir)
}

/// An existing directory, absolute and resolved.
pub(super) fn resolve_directory(dir: &Path) -> Result<PathBuf, Failure> {
    let resolved = dir.canonicalize().map_err(|error| {
        let dir = dir.display();
        Failure::usage(format!(
            "the directory {dir} cannot be used ({error}): make it, or name another \
             by --dir or CAPIO_DIR"
        ))
    })?;
    if !resolved.is_dir() {
        let dir = dir.display();
        return Err(Failure::usage(format!(
            "{dir} is not a directory: name one by --dir or CAPIO_DIR"
        )));
    }
    if resolved == Path::new("/") {
        return Err(Failure::usage(
            "the root directory / cannot be taken over: name another by --dir or CAPIO_DIR",
        ));
    }
    Ok(resolved)
}

/// What relative names of a spec are meant in. It need not exist: a document
/// can be checked anywhere.
pub(super) fn spec_prefix(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let dir = given.map(Path::to_owned).or_else(|| variable("CAPIO_DIR"));
    let dir = dir.unwrap_or_else(|| ".".into());
    dir.canonicalize()
        .or_else(|_| std::path::absolute(&dir))
        .map_err(|error| {
            Failure::usage(format!(
                "the directory {} cannot be used: {error}",
                dir.display()
            ))
        })
}

/// The name of a session: the first that is given.
pub(super) fn workflow_name(given: Option<&str>, spec: Option<String>) -> Result<String, Failure> {
    let environment =
        || variable("CAPIO_WORKFLOW_NAME").map(|name| name.to_string_lossy().into_owned());
    let name = given.map(str::to_owned).or_else(environment).or(spec);
    let name = name.unwrap_or_else(|| DEFAULT_WORKFLOW.to_owned());
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        return Err(Failure::usage(format!(
            "`{name}` cannot name a session; use letters, digits, `-` and `_`"
        )));
    }
    Ok(name)
}

/// A running session, as other commands see it.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) workflow: String,
    pub(super) session_dir: PathBuf,
    /// Whether the user has said which session.
    named: bool,
}

impl Place {
    pub(super) fn find(session: &SessionRef, engine: &Engine) -> Result<Self, Failure> {
        let dir = directory(session.dir.as_deref(), None)?;
        let named = session.workflow.is_some() || variable("CAPIO_WORKFLOW_NAME").is_some();
        let running = if named {
            None
        } else {
            running_on(&dir, engine)?
        };
        let workflow = workflow_name(session.workflow.as_deref(), running)?;
        let session_dir = (engine.session_dir)(&dir, &workflow);
        Ok(Self {
            dir,
            workflow,
            session_dir,
            named,
        })
    }

    /// Connects to the session, which must be running.
    pub(super) fn connect(&self) -> Result<AdminClient, Failure> {
        AdminClient::connect(&self.session_dir).map_err(|error| {
            let (dir, workflow) = (self.dir.display(), &self.workflow);
            if error.kind() == std::io::ErrorKind::PermissionDenied {
                return Failure::session(format!(
                    "the session {workflow} of {dir} is another user's: {error}"
                ));
            }
            if !self.named {
                return Failure::session(format!(
                    "no session of {dir} is running: start one with `capio serve`, \
                     or name the right directory by --dir"
                ));
            }
            Failure::session(format!(
                "no session {workflow} of {dir} is running: start one with `capio serve`, \
                 or name the right one by --dir and --workflow"
            ))
        })
    }

    /// A path in the session's directory, absolute. Relative ones are meant
    /// from the current directory if it lies there, else from the top.
    pub(super) fn path(&self, path: &Path) -> Result<PathBuf, Failure> {
        let here = std::env::current_dir()
            .ok()
            .filter(|here| here.starts_with(&self.dir));
        let path = here.unwrap_or_else(|| self.dir.clone()).join(path);
        below(&self.dir, &path)
    }
}

/// The name of the session that runs on `dir`, for whoever names none.
fn running_on(dir: &Path, engine: &Engine) -> Result<Option<String>, Failure> {
    let runs = |name: &String| AdminClient::connect(&(engine.session_dir)(dir, name)).is_ok();
    let here = (engine.sessions)().into_iter().filter(|(at, _)| at == dir);
    let mut names: Vec<_> = here.map(|(_, name)| name).filter(runs).collect();
    names.sort_unstable();
    if names.len() < 2 {
        return Ok(names.pop());
    }
    let (dir, names) = (dir.display(), names.join(", "));
    Err(Failure::usage(format!(
        "several sessions of {dir} are running ({names}): name one by --workflow"
    )))
}

/// `path`, meant from `dir`, without `.` and `..`; it must not lead out.
pub(super) fn below(dir: &Path, path: &Path) -> Result<PathBuf, Failure> {
    let mut clean = PathBuf::new();
    for component in dir.join(path).components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    if clean.starts_with(dir) {
        return Ok(clean);
    }
    let (path, dir) = (path.display(), dir.display());
    Err(Failure::usage(format!(
        "{path} is not below {dir}: give a path there, or another --dir"
    )))
}

/// The library for programs: as given, else beside this program or where it
/// is installed.
pub(super) fn shim(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let places = match given {
        Some(given) => vec![given.to_owned()],
        None => shim_places(),
    };
    let found = places
        .iter()
        .find_map(|place| place.canonicalize().ok().filter(|p| p.is_file()));
    let found = found.ok_or_else(|| {
        let places: Vec<_> = places
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        Failure::session(format!(
            "the library {SHIM} is not there (looked for {}): build or install it, \
             or name it by --shim or CAPIO_SHIM",
            places.join(", ")
        ))
    })?;
    if program::is_library(&found) {
        return Ok(found);
    }
    let found = found.display();
    Err(Failure::session(format!(
        "{found} is no shared library, programs would run without it: \
         name {SHIM} by --shim or CAPIO_SHIM"
    )))
}

fn shim_places() -> Vec<PathBuf> {
    let program = std::env::current_exe().and_then(|program| program.canonicalize());
    let beside = program
        .ok()
        .and_then(|program| program.parent().map(Path::to_owned));
    let near = beside
        .iter()
        .flat_map(|bin| [bin.join(SHIM), bin.join("../lib").join(SHIM)]);
    let far = ["/usr/local/lib", "/usr/lib"].map(|lib| Path::new(lib).join(SHIM));
    near.chain(far).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_lead_out_of_the_sessions_directory() {
        let dir = Path::new("/w/data");
        let ok = |path: &str| below(dir, Path::new(path)).unwrap();
        assert_eq!(ok("a/./b/../c"), Path::new("/w/data/a/c"));
        assert_eq!(ok("/w/data/x"), Path::new("/w/data/x"));
        assert_eq!(ok("."), dir);
        for out in ["..", "/etc/passwd", "a/../../x", "/w/database"] {
            assert!(below(dir, Path::new(out)).is_err(), "{out}");
        }
    }

    #[test]
    fn a_session_is_named_by_argument_before_spec_before_default() {
        let name = |given, spec: Option<&str>| workflow_name(given, spec.map(str::to_owned));
        assert_eq!(name(Some("mine"), Some("specs")).unwrap(), "mine");
        assert_eq!(name(None, Some("specs")).unwrap(), "specs");
        assert_eq!(name(None, None).unwrap(), DEFAULT_WORKFLOW);
        assert!(name(Some("../x"), None).is_err());
        assert!(name(Some(""), None).is_err());
    }

    #[test]
    fn a_directory_that_is_not_there_is_told_with_what_to_do() {
        let failure = directory(Some(Path::new("/no/such")), None).unwrap_err();
        assert_eq!(failure.code, super::super::exit::USAGE);
        assert!(failure.message.contains("make it"), "{}", failure.message);
        assert!(directory(Some(Path::new("/dev/null")), None).is_err());
    }

    #[test]
    fn a_missing_library_is_told_with_where_it_was_looked_for() {
        let failure = shim(Some(Path::new("/no/such.so"))).unwrap_err();
        assert!(
            failure.message.contains("/no/such.so"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn what_the_loader_would_ignore_is_not_taken_for_the_library() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(SHIM);
        std::fs::write(&file, "not a library").unwrap();
        let failure = shim(Some(&file)).unwrap_err();
        assert!(
            failure.message.contains("no shared library"),
            "{}",
            failure.message
        );
    }
}
