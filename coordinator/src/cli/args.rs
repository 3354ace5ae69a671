//! What can stand on the command line. The help texts, the man pages and the
//! shell completions all come from here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use super::exit;
use crate::session::Keep;

/// What `capio run --help` says of workflow files.
const RUN: &str = "\
Run a workflow from start to end

The steps stand in a TOML file:

    spec = \"capio.json\"        # optional, relative to this file
    dir = \"data\"               # optional, relative to this file

    [[step]]
    name = \"align\"             # as in the spec
    command = \"bwa mem ref.fa reads.fq > out.sam\"    # run by sh -c

    [[step]]
    name = \"sort\"
    command = [\"samtools\", \"sort\", \"-o\", \"out.bam\", \"out.sam\"]
    instances = 1              # how many at once
    env = { LC_ALL = \"C\" }
    cwd = \"work\"               # relative to dir
    after = [\"align\"]          # start only when these have succeeded

All steps start at once, except for `after`. A step that the spec does not
name may run too; a file that is not there is then missing at once instead
of being waited for. Without a spec and without any `after` the steps run
one after the other. Each instance finds its number in CAPIO_INSTANCE.

A step has ended when all its processes have, daemons included. When one
fails the others are ended too, unless --continue-on-error.";

/// Run the programs of a workflow at the same time: the files that they
/// exchange stream through memory, and each reader waits exactly as long as
/// the workflow's specification says. The programs need no change.
#[derive(Debug, Parser)]
#[command(name = "capio", version, after_help = exit::TABLE, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Run(Run),
    Serve(Serve),
    Exec(Exec),
    Check(Check),
    Explain(Explain),
    /// List directories of a running session
    ///
    /// Says of each file whether it is final, still growing, or as it lies on
    /// disk. Never waits for a file to exist or to be complete.
    Ls(Paths),
    /// Show all that is known of files of a running session
    ///
    /// Never waits for a file to exist or to be complete.
    Stat(Paths),
    Cat(Cat),
    Ps(Ps),
    Diff(Diff),
    Apply(Apply),
    Discard(Discard),
    Doctor(Doctor),
    Done(DoneArgs),
    Stop(Stop),
    /// Print the completions for a shell
    ///
    /// For bash: capio completions bash > ~/.local/share/bash-completion/completions/capio
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual, or write one page for each command
    Man {
        /// Write capio.1, capio-run.1, ... into this directory instead
        #[arg(long, value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

/// What a session is made of; shared by `run` and `serve`.
#[derive(Debug, Args)]
pub(super) struct SessionArgs {
    /// The workflow's specification, a CAPIO-CL document (JSON)
    #[arg(
        short = 'c',
        long = "spec",
        visible_alias = "config",
        value_name = "SPEC"
    )]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(super) spec: Option<PathBuf>,

    /// The directory whose files stream [default: the workflow file's `dir`,
    /// CAPIO_DIR, or the current directory]
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,

    /// The session's name below that directory [default: CAPIO_WORKFLOW_NAME,
    /// the name in the specification, or CAPIO]
    #[arg(long, value_name = "NAME")]
    pub(super) workflow: Option<String>,

    /// Most memory that file contents may take, such as 512MiB or 4GiB
    /// [default: a quarter of the memory]
    #[arg(long, value_name = "SIZE", value_parser = super::size::parse_cache)]
    pub(super) cache: Option<u64>,

    /// A directory on a local disk for what the memory does not hold [default:
    /// TMPDIR, /var/tmp, /tmp or the session's directory, whichever is on a
    /// disk]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) store: Option<PathBuf>,

    /// Most that may lie there; 0: nothing, and a writer that fills the cache
    /// gets ENOSPC [default: all that is free]
    #[arg(long, value_name = "SIZE", value_parser = super::size::parse)]
    pub(super) store_size: Option<u64>,

    /// Which files to write to disk at the end: those the specification calls
    /// permanent; these and what no step read; all; or none
    #[arg(long, value_enum, default_value_t = Keep::Outputs)]
    pub(super) keep: Keep,

    /// Write them to disk even if the run failed
    #[arg(long)]
    pub(super) keep_on_failure: bool,

    /// Fail when a reader probably saw a truncated file, instead of warning
    #[arg(long)]
    pub(super) strict: bool,

    /// Let steps go on although another one failed, and let them read what it
    /// left
    #[arg(long)]
    pub(super) continue_on_error: bool,

    /// The library that is loaded into programs [default: beside this
    /// program, or in ../lib]
    #[arg(long, env = "CAPIO_SHIM", hide_env = true, value_name = "FILE")]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(super) shim: Option<PathBuf>,
}

/// Run a workflow from start to end
#[derive(Debug, Args)]
#[command(long_about = RUN, after_help = exit::TABLE)]
pub(super) struct Run {
    /// The workflow file
    #[arg(value_hint = ValueHint::FilePath, required_unless_present = "steps")]
    pub(super) workflow_file: Option<PathBuf>,

    /// A step, instead of a workflow file; may be given several times. The
    /// command is run by sh -c
    #[arg(
        long = "step",
        value_name = "NAME=COMMAND",
        conflicts_with = "workflow_file"
    )]
    pub(super) steps: Vec<String>,

    #[command(flatten)]
    pub(super) session: SessionArgs,

    /// Write what steps print to DIR/NAME.log instead of the terminal
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) logs: Option<PathBuf>,

    /// Also write the report as JSON to this file
    #[arg(
        long,
        visible_alias = "report-json",
        value_name = "FILE",
        conflicts_with = "json"
    )]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(super) report: Option<PathBuf>,

    /// Print the report as JSON on standard output, and what steps print
    /// there on standard error
    #[arg(long)]
    pub(super) json: bool,

    /// Say how much faster this run was than the one that wrote this file by
    /// --sequential --report FILE
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with = "sequential")]
    pub(super) compare: Option<PathBuf>,

    /// How long a step that is told to end may take before it is killed
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(super) grace: std::time::Duration,

    /// For comparison: run the steps one after the other without streaming,
    /// on a copy of the directory that is removed at the end
    #[arg(long)]
    pub(super) sequential: bool,

    /// With --sequential: run on the directory itself instead of a copy
    #[arg(long, requires = "sequential", conflicts_with = "copy_to")]
    pub(super) in_place: bool,

    /// With --sequential: make the copy here, and leave it
    #[arg(long, requires = "sequential", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) copy_to: Option<PathBuf>,
}

/// Run a session alone; programs join it from elsewhere
///
/// Programs join with `capio exec`, or with LD_PRELOAD=libcapio_posix.so,
/// CAPIO_DIR, CAPIO_APP_NAME (the step) and CAPIO_WORKFLOW_NAME in their
/// environment. The session ends on SIGTERM, SIGINT or `capio stop`, and
/// writes what is to be kept to disk.
#[derive(Debug, Args)]
#[command(after_help = exit::TABLE)]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) session: SessionArgs,

    /// How long after its last process a step may be joined by another one
    /// before it counts as ended
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(super) step_grace: std::time::Duration,

    /// Return once the session is ready, and leave it running
    #[arg(long)]
    pub(super) daemon: bool,

    /// Write the process id to this file once programs may join; removed at
    /// the end. A service manager is notified by sd_notify as well
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) ready_file: Option<PathBuf>,

    /// Write log lines to this file instead of standard error
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) log: Option<PathBuf>,
}

/// Which running session is meant.
#[derive(Debug, Args)]
pub(super) struct SessionRef {
    /// The session's directory [default: CAPIO_DIR, or the current directory]
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,

    /// The session's name [default: CAPIO_WORKFLOW_NAME, or the one session
    /// that runs on the directory]
    #[arg(long, value_name = "NAME")]
    pub(super) workflow: Option<String>,
}

/// Run one program as part of a step of a running session
#[derive(Debug, Args)]
#[command(after_help = "Exit status: that of the program; 2 or 3 if it could not be started.")]
pub(super) struct Exec {
    /// The step that the program belongs to
    #[arg(long, value_name = "NAME")]
    pub(super) step: String,

    #[command(flatten)]
    pub(super) session: SessionRef,

    /// The library that is loaded into the program [default: beside this
    /// program, or in ../lib]
    #[arg(long, env = "CAPIO_SHIM", hide_env = true, value_name = "FILE")]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(super) shim: Option<PathBuf>,

    /// The program and its arguments, after `--`
    #[arg(last = true, required = true, value_hint = ValueHint::CommandWithArguments)]
    pub(super) command: Vec<OsString>,
}

/// Check a specification, and show its files, producers, consumers and rules
///
/// Warns of what is allowed but will bite, such as a file that some step reads
/// and none produces.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The CAPIO-CL document
    #[arg(value_hint = ValueHint::FilePath)]
    pub(super) spec: PathBuf,

    /// The directory that relative names are meant in [default: CAPIO_DIR, or
    /// the current directory]
    #[arg(long, visible_alias = "resolve-prefix", value_hint = ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Say which rules apply to a path, and why
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The CAPIO-CL document
    #[arg(short = 'c', long = "spec", visible_alias = "config", value_hint = ValueHint::FilePath)]
    pub(super) spec: PathBuf,

    /// The directory that relative names are meant in [default: CAPIO_DIR, or
    /// the current directory]
    #[arg(long, visible_alias = "resolve-prefix", value_hint = ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,

    /// The paths, relative to that directory or absolute
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,

    /// Print JSON: a list with one object for each path
    #[arg(long)]
    pub(super) json: bool,
}

/// Which files of a running session are meant.
#[derive(Debug, Args)]
pub(super) struct Paths {
    /// Paths in the session's directory [default: that directory]
    pub(super) paths: Vec<PathBuf>,

    #[command(flatten)]
    pub(super) session: SessionRef,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Print files of a running session as far as they are written
///
/// Never waits for a file to exist or to be complete.
#[derive(Debug, Args)]
pub(super) struct Cat {
    /// Paths in the session's directory
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,

    #[command(flatten)]
    pub(super) session: SessionRef,
}

/// Show steps, their processes, and who waits for what
#[derive(Debug, Args)]
pub(super) struct Ps {
    #[command(flatten)]
    pub(super) session: SessionRef,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Show what a running session would change on disk if it ended now
///
/// One line for each difference: A added, M modified, D removed, P owner,
/// permissions or times, R renamed; with size and reason. Nothing is written.
#[derive(Debug, Args)]
pub(super) struct Diff {
    #[command(flatten)]
    pub(super) session: SessionRef,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What a session that was killed has left.
#[derive(Debug, Args)]
pub(super) struct Left {
    /// The session's directory [default: CAPIO_DIR, or the current directory]
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,

    /// The session's name [default: whichever have left something]
    #[arg(long, value_name = "NAME")]
    pub(super) workflow: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Complete the results of a session that was killed while it put them into place
///
/// The next session on the directory does the same before it starts.
#[derive(Debug, Args)]
pub(super) struct Apply {
    #[command(flatten)]
    pub(super) left: Left,
}

/// Remove what a session that was killed had written but not put into place
///
/// Refused once some results may be in place: these cannot be taken back.
#[derive(Debug, Args)]
pub(super) struct Discard {
    #[command(flatten)]
    pub(super) left: Left,

    /// Also remove what is left of results of which some are in place already
    #[arg(long)]
    pub(super) force: bool,
}

/// Check that sessions can run on this machine, and find what killed ones have left
///
/// Looks at shared memory, huge pages, limits, the kernel, and runs a small program
/// in a session of its own. Finds directories, stores and programs of sessions that
/// were killed, and results that they had not put into place. A living session is
/// never touched.
#[derive(Debug, Args)]
#[command(after_help = exit::DOCTOR)]
pub(super) struct Doctor {
    /// Also look for results and stores in this directory; may be given several
    /// times [default: CAPIO_DIR, or the current directory]
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub(super) dir: Vec<PathBuf>,

    /// Remove what can be removed. Processes are left alone, and results are for
    /// `capio apply` and `capio discard`
    #[arg(long)]
    pub(super) clean: bool,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    /// The library that is loaded into programs [default: beside this
    /// program, or in ../lib]
    #[arg(long, env = "CAPIO_SHIM", hide_env = true, value_name = "FILE")]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(super) shim: Option<PathBuf>,
}

/// Tell a running session that a step has ended: no process will join it any more
#[derive(Debug, Args)]
pub(super) struct DoneArgs {
    /// Name of the step
    pub(super) step: String,

    #[command(flatten)]
    pub(super) session: SessionRef,
}

/// End a running session, and wait until its files are on disk
#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    pub(super) session: SessionRef,

    /// Do not wait
    #[arg(long)]
    pub(super) no_wait: bool,
}

fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds = text.parse::<f64>().ok();
    seconds
        .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{text}` is no number of seconds; write it like 5 or 0.5"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_has_no_contradictions() {
        Arguments::command().debug_assert();
    }

    fn run(words: &str) -> Result<Run, clap::Error> {
        let words = ["capio", "run"].into_iter().chain(words.split_whitespace());
        match Arguments::try_parse_from(words)?.command {
            Command::Run(run) => Ok(run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_documented_ways_to_run_are_accepted() {
        let run_file = run("-c s.json --dir d --cache 64MiB --store k w.toml").unwrap();
        assert_eq!(run_file.workflow_file, Some("w.toml".into()));
        assert_eq!(run_file.session.spec, Some("s.json".into()));
        assert_eq!(run_file.session.cache, Some(64 << 20));
        assert_eq!(
            run("--step a=x --step b=y --grace 0.5").unwrap().steps,
            ["a=x", "b=y"]
        );
        assert!(run("--sequential --in-place w.toml").is_ok());
        assert_eq!(
            run("--config s.json w.toml").unwrap().session.spec,
            Some("s.json".into())
        );
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        for wrong in [
            "",
            "w.toml --step a=x",
            "--in-place w.toml",
            "--sequential --in-place --copy-to d w.toml",
            "--json --report r.json w.toml",
            "--sequential --compare r.json w.toml",
            "--cache 3 w.toml",
            "--grace soon w.toml",
            "--keep some w.toml",
        ] {
            assert_eq!(
                run(wrong).unwrap_err().exit_code(),
                i32::from(exit::USAGE),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_program_keeps_its_own_options() {
        let words = ["capio", "exec", "--step", "a", "--", "ls", "--step", "-l"];
        let Command::Exec(exec) = Arguments::try_parse_from(words).unwrap().command else {
            panic!()
        };
        assert_eq!(exec.command, ["ls", "--step", "-l"]);
    }
}
