//! `capio exec`: becomes a program of a running session.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::args::Exec;
use super::exit::{Done, Failure};
use super::place::{self, Place};
use crate::run::workflow::nearest;
use crate::session::{Admin, Engine, Snapshot};

pub(super) fn exec(args: &Exec, engine: &Engine) -> Done {
    let place = Place::find(&args.session, engine)?;
    hint(&args.step, &place.connect()?.ps()?);
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::usage("no program given: write it after `--`"));
    };
    let mut preload = place::shim(args.shim.as_deref())?.into_os_string();
    if let Some(own) = std::env::var_os("LD_PRELOAD").filter(|own| !own.is_empty()) {
        preload.push(":");
        preload.push(own);
    }
    let error = Command::new(program)
        .args(arguments)
        .envs(environment(&place, &args.step, preload))
        .exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    Err(Failure {
        code,
        message: format!("cannot start {}: {error}", program.display()),
    })
}

/// A step that nobody named yet may be a slip.
fn hint(step: &str, session: &Snapshot) {
    let known = session.steps.iter().map(|step| step.name.as_str());
    if session.step(step).is_some() {
        return;
    }
    if let Some(near) = nearest(step, known) {
        eprintln!("capio: warning: the session knows no step {step}; is {near} meant?");
    }
}

fn environment(place: &Place, step: &str, preload: OsString) -> [(&'static str, OsString); 4] {
    [
        ("LD_PRELOAD", preload),
        ("CAPIO_DIR", place.dir.clone().into()),
        ("CAPIO_APP_NAME", step.into()),
        ("CAPIO_WORKFLOW_NAME", place.workflow.clone().into()),
    ]
}
