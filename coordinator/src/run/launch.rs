//! Turns an instance of a step into a command that can be spawned.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::workflow::{Command, Step};
use crate::session::Session;

/// Exit status for a program that is not there.
const NOT_FOUND: u8 = 127;
/// Exit status for one that cannot be run.
const CANNOT_RUN: u8 = 126;

/// How an instance is called on the screen.
pub(super) fn label(step: &Step, number: u32) -> String {
    if step.instances == 1 {
        return step.name.clone();
    }
    format!("{}[{number}]", step.name)
}

/// The command of one instance, with no input and its output not yet connected.
pub(super) fn command(
    step: &Step,
    number: u32,
    dir: &Path,
    session: Option<&dyn Session>,
) -> std::process::Command {
    let mut command = bare(&step.command);
    let cwd = working_directory(step, dir);
    command.stdin(Stdio::null()).env("PWD", &cwd);
    command.current_dir(starting_directory(cwd, dir, session));
    command.env("CAPIO_INSTANCE", number.to_string());
    command.env("CAPIO_INSTANCES", step.instances.to_string());
    command.envs(&step.env);
    match session {
        Some(session) => {
            for (key, value) in session.client_env(&step.name) {
                let value = match step.env.get("LD_PRELOAD") {
                    Some(own) if key == "LD_PRELOAD" => preload(value, own),
                    _ => value,
                };
                command.env(key, value);
            }
        }
        // What a command line may refer to is there without a session too.
        None => {
            command
                .env("CAPIO_DIR", dir)
                .env("CAPIO_APP_NAME", &step.name);
        }
    }
    command
}

fn bare(command: &Command) -> std::process::Command {
    match command {
        Command::Shell(line) => {
            let mut shell = std::process::Command::new("/bin/sh");
            shell.arg("-c").arg(line);
            shell
        }
        Command::Program(words) => {
            let mut words = words.iter();
            let mut program = std::process::Command::new(words.next().map_or("", String::as_str));
            program.args(words);
            program
        }
    }
}

/// Where a step runs.
pub(crate) fn working_directory(step: &Step, dir: &Path) -> PathBuf {
    match &step.cwd {
        Some(cwd) => dir.join(cwd),
        None => dir.to_owned(),
    }
}

/// The same where a process can be started: a directory that an earlier step
/// has made lies in the session and not on disk.
fn starting_directory(cwd: PathBuf, dir: &Path, session: Option<&dyn Session>) -> PathBuf {
    if cwd.is_dir() {
        return cwd;
    }
    let inside = cwd.strip_prefix(dir).ok();
    let made = inside.zip(session).map(|(inside, session)| {
        let shadows = session.dir().join(wire::place::SHADOW);
        shadows.join(inside)
    });
    made.filter(|made| made.is_dir()).unwrap_or(cwd)
}

/// The shim and what `capio` itself was told to preload first, then what the
/// step wants.
fn preload(shim: OsString, own: &str) -> OsString {
    let mut list = shim;
    if !own.is_empty() && own != list {
        list.push(":");
        list.push(own);
    }
    list
}

/// Why an instance could not be spawned, in words that say what to do, and the
/// exit status that a shell would give.
pub(super) fn explain(
    step: &Step,
    dir: &Path,
    session: Option<&dyn Session>,
    error: &io::Error,
) -> (String, u8) {
    let cwd = working_directory(step, dir);
    if !starting_directory(cwd.clone(), dir, session).is_dir() {
        let cwd = cwd.display();
        let reason = format!("its directory {cwd} does not exist; make it first");
        return (reason, CANNOT_RUN);
    }
    let program = match &step.command {
        Command::Shell(_) => "/bin/sh",
        Command::Program(words) => words.first().map_or("", String::as_str),
    };
    match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') && cwd.join(program).exists() => {
            let reason = format!(
                "{program} is there, but not the program that its first line or its loader \
                 names; install that, or correct the line"
            );
            (reason, CANNOT_RUN)
        }
        io::ErrorKind::NotFound => {
            let reason = format!(
                "there is no program {program}; install it, or write the command as one string \
                 if it is meant for a shell"
            );
            (reason, NOT_FOUND)
        }
        io::ErrorKind::PermissionDenied => {
            let reason = format!("{program} may not be executed; try chmod +x");
            (reason, CANNOT_RUN)
        }
        _ => (format!("cannot start {program}: {error}"), CANNOT_RUN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::workflow::Workflow;

    #[test]
    fn the_shim_is_loaded_before_what_the_user_preloads() {
        assert_eq!(
            preload("shim.so".into(), "libmine.so"),
            "shim.so:libmine.so"
        );
        assert_eq!(preload("shim.so".into(), "shim.so"), "shim.so");
        assert_eq!(preload("shim.so".into(), ""), "shim.so");
    }

    #[test]
    fn a_script_without_its_interpreter_is_not_called_missing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tool"), "#!/no/such/interpreter\n").unwrap();
        let mut step = Workflow::from_arguments(&["a=true".to_owned()])
            .unwrap()
            .steps
            .remove(0);
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let mut explained = |program: &str| {
            step.command = Command::Program(vec![program.to_owned()]);
            explain(&step, dir.path(), None, &missing)
        };
        let (reason, status) = explained("./tool");
        assert!(reason.contains("./tool is there"), "{reason}");
        assert_eq!(status, CANNOT_RUN);
        assert_eq!(explained("./none").1, NOT_FOUND);
    }
}
