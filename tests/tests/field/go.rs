//! Programs in Go ask the kernel themselves, be they static or not: they are given
//! their files by redirection, and the run tells so.

use std::fs;

use crate::need;
use capio_tests::{Finished, Scratch, Step, Workflow, plain_only};

/// How a program is built from `filter.go`, to `$OUTSIDE/filter`.
const STATIC: &str = "CGO_ENABLED=0 go build -o $OUTSIDE/filter filter.go";
const DYNAMIC: &str =
    "CGO_ENABLED=1 go build -ldflags=-linkmode=external -o $OUTSIDE/filter filter.go";
const GCC: &str = "gccgo-12 -o $OUTSIDE/filter filter.go";

fn numbers() -> Step {
    Step::sh("numbers", "seq 1 5000 > numbers").rule(&["numbers"], "on_close", "no_update")
}

/// The compiler is in Go, too: it reads what lies on disk, and writes elsewhere.
fn workflow(name: &str, how: &str) -> Workflow {
    need(&["go", "gcc", "gccgo-12"]);
    let set = "export GOCACHE=$OUTSIDE/cache GOPATH=$OUTSIDE/path GO111MODULE=off TMPDIR=$OUTSIDE";
    Workflow::new(name)
        .input("filter.go", include_str!("../../programs/field/filter.go"))
        .input("part/on-disk", "1\n2\n")
        .step(Step::sh("build", format!("{set}; {how}")))
}

fn redirected(name: &str, how: &str) -> Workflow {
    let run = "set -e; $OUTSIDE/filter < numbers > squares; $OUTSIDE/filter < squares >> log
               head -n 100 numbers | $OUTSIDE/filter | tail -n 1 > last";
    workflow(name, how)
        .step(numbers())
        .step(
            Step::sh("run", run)
                .after("build")
                .reads(&["numbers"])
                .rule(&["squares"], "on_close", "update")
                .writes(&["log", "last"]),
        )
        .step(
            Step::sh("count", "wc -l < squares > count")
                .reads(&["squares"])
                .writes(&["count"]),
        )
        // The auditor takes the program's own calls for missed ones.
        .unaudited()
}

#[test]
fn a_static_go_program_reads_and_writes_what_is_redirected() {
    redirected("go-static", STATIC).verify();
}

#[test]
fn a_dynamic_go_program_reads_and_writes_what_is_redirected() {
    redirected("go-dynamic", DYNAMIC).verify();
}

#[test]
fn a_go_program_of_gcc_is_taken_over() {
    let run = "set -e; $OUTSIDE/filter numbers copy; $OUTSIDE/filter < copy > squares; mkdir new; cd new; $OUTSIDE/filter ../squares copy";
    workflow("gccgo", GCC)
        .step(numbers())
        .step(
            Step::sh("run", run)
                .after("build")
                .reads(&["numbers"])
                .writes(&["copy", "squares", "new/copy"]),
        )
        .verify();
}

/// Builds the program and runs `command` under capio with it as `$FILTER`.
fn with_program(name: &str, how: &str, command: &str) -> (Scratch, Finished, String) {
    let built = workflow(name, how).plain();
    let program = built.outside().join("filter").display().to_string();
    let command = command.replace("$FILTER", &program);
    let run = Workflow::new(name)
        .input("part/on-disk", "1\n2\n")
        .step(Step::sh("use", command))
        .start(&["--keep", "none"]);
    let (scratch, finished) = run.finish();
    (scratch, finished, program)
}

#[test]
fn the_run_says_that_a_go_program_is_not_taken_over_and_how_to_go_on() {
    if plain_only() {
        return;
    }
    let command = "test -s part/on-disk && cd part && $FILTER on-disk copied";
    for (name, how) in [("go-told-static", STATIC), ("go-told-dynamic", DYNAMIC)] {
        let (scratch, finished, program) = with_program(name, how, command);
        finished.expect_success();
        let told = format!("{program} is in Go, which asks the kernel past libc");
        for words in [
            told.as_str(),
            "redirect its input and output",
            "`exclude` its files",
            "gccgo",
        ] {
            finished.expect(finished.output.contains(words), words);
        }
        let copied = fs::read_to_string(scratch.data().join("part/copied"));
        finished.expect(
            copied.is_ok_and(|text| text == "1\n2\n"),
            "it does not work on what lies on disk",
        );
    }
}

#[test]
fn what_a_go_program_writes_past_the_session_is_not_lost_in_silence() {
    if plain_only() {
        return;
    }
    let command = "mkdir new && cd new && $FILTER $OUTSIDE/../data/part/on-disk out";
    let (_, finished, _) = with_program("go-lost", STATIC, command);
    finished.expect(finished.status.code() == Some(5), "the run succeeds");
    finished.expect(
        finished
            .output
            .contains("/new/out was written by a program that capio cannot take over"),
        "the lost file is not named",
    );
}
