//! `capio_server`: the command line of the C++ CAPIO server, so that job
//! scripts and test harnesses written for it run unchanged.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use super::exit::{self, Done, Failure};
use super::{place, serve, size, spec};
use crate::session::{Engine, Keep, SessionConfig};

/// Run a session in the foreground until SIGTERM, with the options of the C++
/// CAPIO server. `capio serve` is the same with more to choose.
///
/// CAPIO_DIR names the directory whose files are taken over,
/// CAPIO_WORKFLOW_NAME the session; programs that have the same two in their
/// environment, and libcapio_posix.so in LD_PRELOAD, join it.
#[derive(Debug, Parser)]
#[command(name = "capio_server", version, after_help = exit::TABLE)]
struct Arguments {
    /// The CAPIO-CL document
    #[arg(
        short,
        long,
        value_name = "FILE",
        required_unless_present = "no_config"
    )]
    config: Option<PathBuf>,

    /// Run without one
    #[arg(long)]
    no_config: bool,

    /// The directory that relative names of the document are meant in
    /// [default: CAPIO_DIR]
    #[arg(short, long, value_name = "PREFIX", alias = "resolve-capiocl-to")]
    resolve_prefix: Option<PathBuf>,

    /// How servers on several nodes talk: none, there is one server
    #[arg(short, long, value_name = "NAME", default_value = "none")]
    backend: String,

    /// Keep all files in memory, which is what happens anyway
    #[arg(long)]
    mem_only: bool,

    /// Name of the log file, without `.log`; log lines go to standard error
    /// unless this or --log-dir is given
    #[arg(short, long, value_name = "NAME")]
    log: Option<PathBuf>,

    /// Directory of the log file
    #[arg(short = 'd', long, value_name = "DIR")]
    log_dir: Option<PathBuf>,

    /// Let steps go on although another one failed, and let them read what it
    /// left
    #[arg(long)]
    continue_on_error: bool,

    /// Without effect: of servers on several nodes
    #[arg(short, long, hide = true)]
    port: Option<u16>,

    /// Without effect: of servers on several nodes
    #[arg(long, hide = true)]
    control_backend: Option<String>,
}

/// The whole `capio_server` command; the caller passes the engine of sessions.
#[must_use]
pub fn capio_server(engine: &Engine) -> ExitCode {
    crate::run::signals::survive_long_files();
    super::end("capio_server", serve(&Arguments::parse(), engine))
}

fn serve(args: &Arguments, engine: &Engine) -> Done {
    serve::start_log(log_file(args)?.as_deref())?;
    let config = config(args)?;
    serve::hold(config, None, engine)
}

fn config(args: &Arguments) -> Result<SessionConfig, Failure> {
    if !args.backend.eq_ignore_ascii_case("none") {
        return Err(Failure::usage(format!(
            "the backend {} is not supported, a session runs on one node: use -b none",
            args.backend
        )));
    }
    let dir = place::variable("CAPIO_DIR");
    let dir = dir.ok_or_else(|| {
        Failure::usage("CAPIO_DIR is not set: set it to the directory whose files are exchanged")
    })?;
    let dir = place::resolve_directory(&dir)?;
    let spec = document(args)?.map(|document| {
        let prefix = args
            .resolve_prefix
            .as_deref()
            .map_or(Ok(dir.clone()), |prefix| place::spec_prefix(Some(prefix)));
        spec::load(document, &prefix?)
    });
    let spec = spec.transpose()?;
    let name = spec.as_deref().map(spec::name);
    let workflow = place::workflow_name(None, name.clone())?;
    if let Some(name) = name.filter(|name| *name != workflow) {
        tracing::warn!(
            "the session is called {workflow} by CAPIO_WORKFLOW_NAME, not {name} as in the document"
        );
    }
    Ok(SessionConfig {
        dir,
        workflow,
        spec,
        cache_bytes: size::default_cache(),
        store: None,
        store_bytes: u64::MAX,
        keep: Keep::Outputs,
        // A harness ends its programs as it likes; what they left is wanted.
        keep_on_failure: true,
        strict: false,
        supervised: false,
        step_grace: Duration::from_secs(1),
        continue_on_error: args.continue_on_error,
        shim: place::shim(place::variable("CAPIO_SHIM").as_deref())?,
    })
}

fn document(args: &Arguments) -> Result<Option<&Path>, Failure> {
    match args.config.as_deref() {
        Some(document) if document == Path::new("dynamic") && !document.exists() => {
            Err(Failure::usage(
                "a specification cannot be changed while a session runs: \
                 give a document instead of `-c dynamic`, or --no-config",
            ))
        }
        // As with the C++ server a document counts more than --no-config.
        other => Ok(other),
    }
}

fn log_file(args: &Arguments) -> Result<Option<PathBuf>, Failure> {
    if args.log.is_none() && args.log_dir.is_none() {
        return Ok(None);
    }
    let dir = args.log_dir.clone().unwrap_or_else(|| ".".into());
    std::fs::create_dir_all(&dir).map_err(|error| {
        Failure::usage(format!(
            "cannot make the directory {} for logs: {error}",
            dir.display()
        ))
    })?;
    let mut name = args.log.clone().unwrap_or_else(|| "capio_server".into());
    if name.extension().is_none_or(|extension| extension != "log") {
        name.as_mut_os_string().push(".log");
    }
    Ok(Some(dir.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["capio_server"].into_iter().chain(words.split_whitespace()))
    }

    #[test]
    fn the_command_lines_of_existing_job_scripts_are_accepted() {
        Arguments::command().debug_assert();
        let args = parse("-c a.json -r /w -b none --mem-only -l srv -d logs --continue-on-error");
        let args = args.unwrap();
        assert_eq!(args.config, Some("a.json".into()));
        assert_eq!(args.resolve_prefix, Some("/w".into()));
        assert!(args.mem_only && args.continue_on_error);
        for line in [
            "--no-config",
            "--config a.json --resolve-prefix /w --backend NONE",
            "--config a.json --resolve-capiocl-to /w -p 2222 --control-backend fs",
            "--no-config --log x --log-dir y",
            "-c a.json --no-config",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        assert_eq!(parse("-h").unwrap_err().exit_code(), 0);
        assert_eq!(parse("").unwrap_err().exit_code(), i32::from(exit::USAGE));
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_to_do() {
        let refused = |words: &str| config(&parse(words).unwrap()).err().unwrap().message;
        assert!(refused("--no-config -b mtcl").contains("use -b none"));
        let dynamic = parse("-c dynamic").unwrap();
        assert!(
            document(&dynamic)
                .unwrap_err()
                .message
                .contains("--no-config")
        );
    }

    #[test]
    fn log_files_lie_where_they_did() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs").display().to_string();
        let file =
            |words: &str| log_file(&parse(&format!("--no-config {words}")).unwrap()).unwrap();
        assert_eq!(file(""), None);
        assert_eq!(
            file(&format!("-d {logs} -l srv")),
            Some(dir.path().join("logs/srv.log"))
        );
        assert_eq!(
            file(&format!("-d {logs} -l a.log")),
            Some(dir.path().join("logs/a.log"))
        );
        assert_eq!(
            file(&format!("-d {logs}")),
            Some(dir.path().join("logs/capio_server.log"))
        );
        assert!(dir.path().join("logs").is_dir());
    }
}
