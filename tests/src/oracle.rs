//! Self-checking programs: what they assert must be true of the kernel, and then
//! of capio.

use std::path::Path;
use std::process::Command;

use crate::process::{Finished, Running};
use crate::programs::{Variant, compile};
use crate::run::{limit, plain_only};
use crate::scratch::Scratch;
use crate::workflow::{Step, Workflow};

/// Runs `tests/programs/<name>.c` with a directory as its argument, natively and
/// as a step of a workflow, compiled plainly and as distributions do; every
/// check must hold each time.
///
/// # Panics
/// When a check fails, with the program's output (`file:line: what`).
pub fn oracle(name: &str) {
    check(name, |workflow| workflow);
}

/// [`oracle`] without the auditor, for programs whose files are the kernel's.
///
/// # Panics
/// As [`oracle`].
pub fn oracle_unaudited(name: &str) {
    check(name, Workflow::unaudited);
}

fn check(name: &str, how: impl Fn(Workflow) -> Workflow) {
    let variants = [Variant::Plain, Variant::Fortified].map(|variant| compile(name, variant));
    for program in &variants {
        let scratch = Scratch::new();
        let mut native = Command::new(program);
        native.arg(scratch.data()).current_dir(scratch.data());
        let native = Running::start(native, &scratch, name).finish(limit());
        expect_checks(&native, "the kernel does not pass: the check is wrong");
    }
    if plain_only() {
        return;
    }
    for program in &variants {
        for run in how(workflow(name, program)).runs() {
            let (_, ours) = run.finish();
            expect_checks(&ours, "capio differs from the kernel");
            ours.expect_no_survivors();
        }
    }
}

/// `$PWD` is the directory capio takes over; `exec` leaves a single process.
fn workflow(name: &str, program: &Path) -> Workflow {
    let command = format!("exec '{}' \"$PWD\"", program.display());
    Workflow::new(name).step(Step::sh("oracle", command).writes(&["*"]))
}

/// The program ended well and came to its last line, which counts its checks.
fn expect_checks(finished: &Finished, what: &str) {
    let all = finished.output.contains(" checks, 0 failed");
    finished.expect(finished.status.success() && all, what);
}
