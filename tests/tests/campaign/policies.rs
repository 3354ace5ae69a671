//! A failing step under each policy: its reader learns of it or takes what is
//! there, its neighbours go on or are ended, and what is kept is what was asked for.

use capio_tests::{Step, Workflow, plain_only, program};

/// How the step fails: what its shell does after its file is half written.
const WAYS: [(&str, i32); 2] = [("exit 3", 3), ("kill -9 $$", 137)];

/// Options of `capio run`, and whether others go on and results are kept.
const POLICIES: [(&[&str], bool, bool); 5] = [
    (&[], false, false),
    (&["--strict"], false, false),
    (&["--keep-on-failure"], false, true),
    (&["--continue-on-error"], true, false),
    (&["--continue-on-error", "--keep-on-failure"], true, true),
];

fn load(words: &str) -> String {
    format!("'{}' {words}", program("load").display())
}

/// `bad` writes whole blocks, but not the last, and fails; `good` works for a
/// while longer.
fn workflow(way: &str) -> Workflow {
    let bad = format!("{}; sleep 0.2; {way}", load("make half half 5 300000"));
    let read = |file: &str| {
        format!(
            "{}; echo $? > $OUTSIDE/{file}.read",
            load(&format!("read {file}"))
        )
    };
    let good = format!("sleep 0.6; {}", load("make ordered good 6 200000"));
    Workflow::new("policies")
        .step(Step::sh("bad", bad).rule(&["half"], "on_termination", "no_update"))
        .step(Step::sh("reads", read("half")).reads(&["half"]))
        .step(Step::sh("good", good).rule(&["good"], "on_close", "update"))
        .step(Step::sh("other", read("good")).reads(&["good"]))
}

#[test]
fn a_failing_step_ends_as_each_policy_says() {
    if plain_only() {
        return;
    }
    for (way, status) in WAYS {
        for (options, goes_on, keeps) in POLICIES {
            let mut options = options.to_vec();
            options.extend(["--grace", "2", "--keep", "all"]);
            let (scratch, finished) = workflow(way).unaudited().start(&options).finish();
            let case = format!("{way} under {options:?}");
            finished.expect(finished.status.code() == Some(status), &case);
            finished.expect(finished.output.contains("bad"), "the culprit is named");
            finished.expect_no_survivors();
            let half = scratch.note("half.read");
            // Who is ended with the others leaves no note.
            let wanted: &[&str] = if goes_on { &["6\n"] } else { &["5\n", ""] };
            finished.expect(
                wanted.contains(&half.as_str()),
                &format!("{case}: read {half:?}"),
            );
            let good = scratch.note("good.read");
            // The others may come to their end in the time that they are given.
            let wanted: &[&str] = if goes_on {
                &["0\n"]
            } else {
                &["0\n", "5\n", ""]
            };
            finished.expect(
                wanted.contains(&good.as_str()),
                &format!("{case}: the neighbour read {good:?}"),
            );
            let kept = scratch.data().join("half").exists();
            finished.expect(kept == keeps, &format!("{case}: kept {kept}"));
        }
    }
}
