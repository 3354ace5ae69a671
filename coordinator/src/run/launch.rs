//! Turns an instance of a step into a command that can be spawned.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::workflow::{Command, Step};
use crate::session::Session;

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
    command
        .stdin(Stdio::null())
        .env("PWD", &cwd)
        .current_dir(cwd);
    command.env("CAPIO_INSTANCE", number.to_string());
    command.env("CAPIO_INSTANCES", step.instances.to_string());
    command.envs(&step.env);
    match session {
        Some(session) => {
            for (key, value) in session.client_env(&step.name) {
                let value = if key == "LD_PRELOAD" {
                    preload(step, value)
                } else {
                    value
                };
                command.env(key, value);
            }
        }
        None => {
            command.env("CAPIO_DIR", dir);
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

/// The shim first, then what the user preloads.
fn preload(step: &Step, shim: OsString) -> OsString {
    let own = step.env.get("LD_PRELOAD").map(OsString::from);
    let own = own
        .or_else(|| std::env::var_os("LD_PRELOAD"))
        .filter(|own| !own.is_empty());
    let mut list = shim;
    if let Some(own) = own.filter(|own| *own != list) {
        list.push(":");
        list.push(own);
    }
    list
}

/// Why an instance could not be spawned, in words that say what to do.
pub(super) fn explain(step: &Step, dir: &Path, error: &io::Error) -> String {
    let cwd = working_directory(step, dir);
    if !cwd.is_dir() {
        return format!(
            "its directory {} does not exist; make it first",
            cwd.display()
        );
    }
    let program = match &step.command {
        Command::Shell(_) => "/bin/sh",
        Command::Program(words) => words.first().map_or("", String::as_str),
    };
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "there is no program {program}; install it, or write the command as one string \
             if it is meant for a shell"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("{program} may not be executed; try chmod +x")
        }
        _ => format!("cannot start {program}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::workflow::Workflow;

    #[test]
    fn the_shim_is_loaded_before_what_the_user_preloads() {
        let mut step = Workflow::from_arguments(&["a=true".to_owned()])
            .unwrap()
            .steps
            .remove(0);
        step.env.insert("LD_PRELOAD".into(), "libmine.so".into());
        assert_eq!(preload(&step, "shim.so".into()), "shim.so:libmine.so");
        step.env.insert("LD_PRELOAD".into(), "shim.so".into());
        assert_eq!(preload(&step, "shim.so".into()), "shim.so");
    }
}
