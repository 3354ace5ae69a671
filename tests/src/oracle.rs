//! Self-checking programs: what they assert must be true of the kernel, and then
//! of capio.

use std::process::Command;

use crate::process::{Finished, Running};
use crate::programs::program;
use crate::run::{limit, plain_only};
use crate::scratch::Scratch;
use crate::workflow::{Step, Workflow};

/// Runs `tests/programs/<name>.c` with a directory as its argument, natively and
/// as the only step of a workflow; every check must hold in both, and both must
/// make as many checks.
///
/// # Panics
/// When a check fails, with the program's output (`file:line: what`).
pub fn oracle(name: &str) {
    let program = program(name);
    let scratch = Scratch::new();
    let mut native = Command::new(&program);
    native.arg(scratch.data()).current_dir(scratch.data());
    let native = Running::start(native, &scratch, name).finish(limit());
    native.expect(
        native.status.success(),
        "the kernel does not pass: the check is wrong",
    );
    if plain_only() {
        return;
    }
    let program = program
        .to_str()
        .expect("the target directory's name is UTF-8");
    let workflow = Workflow::new(name).step(
        // $PWD is the directory capio takes over; `exec` leaves one process.
        Step::sh("oracle", format!("exec '{program}' \"$PWD\"")).writes(&["*"]),
    );
    let (_, ours) = workflow.start(&[]).finish();
    ours.expect_success();
    let checks = [&native, &ours].map(count);
    ours.expect(
        checks[0] == checks[1],
        &format!("{checks:?} checks natively and under capio"),
    );
}

/// How many checks a program says it made.
fn count(finished: &Finished) -> Option<u32> {
    let (before, _) = finished.output.split_once(" checks, 0 failed")?;
    before
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}
