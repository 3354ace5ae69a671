//! The `capio` command: arguments in, exit status out.

mod args;
mod daemon;
mod doctor;
mod drain;
mod exec;
pub mod exit;
mod generate;
mod inspect;
pub mod logging;
mod machine;
mod place;
mod results;
mod run;
mod serve;
pub mod server;
pub mod size;
pub mod spec;
mod trial;

use std::process::ExitCode;

use clap::Parser;

use crate::run::signals::survive_long_files;
use crate::session::Engine;
use args::{Arguments, Command};
use exit::{Done, Failure};

/// The whole `capio` command; the caller passes the engine of sessions.
#[must_use]
pub fn capio(engine: &Engine) -> ExitCode {
    survive_long_files();
    end("capio", dispatch(Arguments::parse().command, engine))
}

fn dispatch(command: Command, engine: &Engine) -> Done {
    match command {
        Command::Run(args) => run::run(&args, engine),
        Command::Serve(args) => serve::serve(&args, engine),
        Command::Exec(args) => exec::exec(&args, engine),
        Command::Check(args) => {
            let prefix = place::spec_prefix(args.dir.as_deref())?;
            spec::check(&args.spec, &prefix, args.json)
        }
        Command::Explain(args) => explain(&args),
        Command::Ls(args) => inspect::ls(&args, engine),
        Command::Stat(args) => inspect::stat(&args, engine),
        Command::Cat(args) => inspect::cat(&args, engine),
        Command::Ps(args) => inspect::ps(&args, engine),
        Command::Diff(args) => results::diff(&args, engine),
        Command::Apply(args) => results::apply(&args, engine),
        Command::Discard(args) => results::discard(&args, engine),
        Command::Doctor(args) => doctor::doctor(&args, engine),
        Command::Done(args) => inspect::done(&args, engine),
        Command::Stop(args) => inspect::stop(&args, engine),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { dir } => generate::man(dir.as_deref()),
    }
}

fn explain(args: &args::Explain) -> Done {
    let prefix = place::spec_prefix(args.dir.as_deref())?;
    let paths = args.paths.iter().map(|path| place::below(&prefix, path));
    spec::explain(
        &args.spec,
        &prefix,
        &paths.collect::<Result<Vec<_>, _>>()?,
        args.json,
    )
}

/// Turns the result of a command into the exit status of the process, its
/// failure told on standard error.
fn end(program: &str, done: Done) -> ExitCode {
    ExitCode::from(done.unwrap_or_else(|Failure { code, message }| {
        eprintln!("{program}: {message}");
        code
    }))
}
