//! `capio doctor`: whether sessions can run on this machine, and what those
//! that were killed have left behind.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::args::Doctor;
use super::exit::{self, Done, Failure};
use super::generate::print;
use super::machine::{self, Check, State};
use super::{place, trial};
use crate::report::format::bytes;
use crate::session::{Engine, Leftover, LeftoverKind};

#[derive(Debug, Serialize)]
struct Found {
    machine: Vec<Check>,
    leftovers: Vec<Leftover>,
}

pub(super) fn doctor(args: &Doctor, engine: &Engine) -> Done {
    let mut machine = machine::checks();
    machine.push(trial::check(args.shim.as_deref(), engine));
    let leftovers = (engine.leftovers)(&directories(args)?, args.clean);
    let found = Found { machine, leftovers };
    if args.json {
        let mut line = serde_json::to_string(&found).map_err(Failure::session)?;
        line.push('\n');
        print(line.as_bytes())?;
    } else {
        print(text(&found).as_bytes())?;
    }
    Ok(status(&found))
}

/// Where journals and stores are looked for.
fn directories(args: &Doctor) -> Result<Vec<PathBuf>, Failure> {
    if args.dir.is_empty() {
        return Ok(vec![place::directory(None, None)?]);
    }
    args.dir
        .iter()
        .map(|dir| place::resolve_directory(dir))
        .collect()
}

fn status(found: &Found) -> u8 {
    if found.machine.iter().any(|check| check.state == State::Bad) {
        return exit::SESSION;
    }
    match found.leftovers.iter().all(|left| left.removed) {
        true => exit::OK,
        false => exit::LEFT,
    }
}

fn text(found: &Found) -> String {
    let mut text = String::new();
    for check in &found.machine {
        let _ = writeln!(text, "{:4}  {}: {}", check.state, check.name, check.text);
    }
    if found.leftovers.is_empty() {
        text.push_str("ok    no session has left anything behind\n");
    }
    for left in &found.leftovers {
        let state = if left.removed { "gone" } else { "left" };
        let _ = writeln!(text, "{state}  {}", sentence(left));
    }
    text
}

/// What it is, where, and what to do.
fn sentence(left: &Leftover) -> String {
    let dir = left.dir.as_deref().unwrap_or("an unknown directory");
    let name = left.workflow.as_deref().unwrap_or("without a name");
    let (path, size) = (&left.path, bytes(left.bytes));
    let what = match left.kind {
        LeftoverKind::Session => format!("{path} ({size}) of the session {name} of {dir}"),
        LeftoverKind::Programs => format!("{path} ({size}), programs of a session"),
        LeftoverKind::Store => format!("{path} ({size}), the store of a session"),
        LeftoverKind::CommittedResults => format!(
            "{path} ({size}), results of the session {name} that are not all in place: \
             `capio apply --dir {dir}` completes them"
        ),
        LeftoverKind::StagedResults => format!(
            "{path} ({size}), results of the session {name} that were not complete: \
             `capio discard --dir {dir}` removes them"
        ),
        LeftoverKind::Process => {
            let pid = left.pid.unwrap_or_default();
            format!(
                "process {pid} of the session {name} of {dir}, which is gone: all its calls there \
                 give EIO; end it with `kill {pid}`"
            )
        }
    };
    let removable = matches!(
        left.kind,
        LeftoverKind::Session | LeftoverKind::Programs | LeftoverKind::Store
    );
    match &left.error {
        Some(error) => format!("{what}: it could not be removed ({error})"),
        None if removable && !left.removed => {
            format!("{what}: `capio doctor --clean` removes it")
        }
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn found(state: State, leftovers: Vec<Leftover>) -> Found {
        let check = Check {
            name: "kernel".into(),
            state,
            text: "6.1".into(),
        };
        Found {
            machine: vec![check],
            leftovers,
        }
    }

    #[test]
    fn a_script_can_tell_a_bad_machine_from_leftovers_and_from_neither() {
        let mut left = Leftover::of(LeftoverKind::Session, Path::new("/dev/shm/capio-1-2"));
        assert_eq!(status(&found(State::Good, vec![])), exit::OK);
        assert_eq!(status(&found(State::Note, vec![])), exit::OK);
        assert_eq!(status(&found(State::Good, vec![left.clone()])), exit::LEFT);
        assert_eq!(
            status(&found(State::Bad, vec![left.clone()])),
            exit::SESSION
        );
        left.removed = true;
        assert_eq!(status(&found(State::Good, vec![left])), exit::OK);
    }

    #[test]
    fn everything_that_was_left_is_told_with_what_to_do() {
        let of = |kind| Leftover {
            workflow: Some("calls".into()),
            dir: Some("/data".into()),
            pid: Some(77),
            ..Leftover::of(kind, Path::new("/x"))
        };
        let says = |kind, what: &str| {
            let sentence = sentence(&of(kind));
            assert!(sentence.contains(what), "{sentence}");
        };
        says(
            LeftoverKind::Session,
            "calls of /data: `capio doctor --clean`",
        );
        says(LeftoverKind::Programs, "`capio doctor --clean` removes it");
        says(LeftoverKind::Store, "`capio doctor --clean` removes it");
        says(LeftoverKind::CommittedResults, "`capio apply --dir /data`");
        says(LeftoverKind::StagedResults, "`capio discard --dir /data`");
        says(LeftoverKind::Process, "`kill 77`");
    }
}
