//! Programs of the sciences do under capio what they do on a plain directory, to
//! the byte: with their input, output and temporary files in the directory that is
//! taken over, and where it is natural one reading what another still writes.
//!
//! `scripts/setup field` installs them.

mod attributes;
mod climate;
mod genomics;
mod go;
mod languages;
mod media;
mod mpi;
mod python;

use std::env;
use std::path::{Path, PathBuf};

use capio_tests::Workflow;

/// What every step starts with: an error ends it, and temporary files go to a
/// directory of its own below the one that is taken over.
const BEGIN: &str = "set -e; export LC_ALL=C TZ=UTC HOME=\"$PWD\" TMPDIR=\"$PWD/tmp.${CAPIO_APP_NAME:-plain}\"; \
                     mkdir -p \"$TMPDIR\"; trap 'rm -rf \"$TMPDIR\"' EXIT\n";

/// A shell step's command that begins as all of them do.
fn script(body: &str) -> String {
    format!("{BEGIN}{body}")
}

/// Fails unless each of `tools` is there: a program in `PATH`, or a path.
fn need(tools: &[&str]) {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let there = |tool: &&&str| {
        let found = folders.iter().any(|folder| folder.join(tool).exists());
        !found && !Path::new(tool).exists()
    };
    let missing: Vec<_> = tools.iter().filter(there).collect();
    assert!(
        missing.is_empty(),
        "{missing:?} missing: run scripts/setup field"
    );
}

/// A workflow in whose directory the genome of the lambda phage lies.
fn with_genome(name: &str) -> Workflow {
    let genome = "/usr/share/doc/bowtie2/examples/reference/lambda_virus.fa";
    let read = std::fs::read(genome).or_else(|_| {
        let unpacked = std::process::Command::new("zcat")
            .arg(format!("{genome}.gz"))
            .output();
        unpacked.map(|output| output.stdout)
    });
    let content = read.unwrap_or_default();
    assert!(
        content.len() > 40_000,
        "the genome is missing: run scripts/setup field"
    );
    Workflow::new(name).input("lambda.fa", content)
}
