//! What lies on disk beforehand, and what lies there at the end.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use capio_tests::{Step, Tree, Workflow, plain_only};

#[test]
fn files_on_disk_are_read_without_being_produced() {
    Workflow::new("inputs")
        .input("reference.fa", "acgt\n".repeat(1000))
        .input("deep/er/config", "x=1\n")
        .step(Step::sh("use", "wc -c reference.fa > size; cat deep/er/config > config; ls -R deep > listing; cmp reference.fa deep/../reference.fa").writes(&["*"]))
        .verify();
}

#[test]
fn files_on_disk_are_edited_replaced_renamed_and_removed() {
    let script = "set -e; echo more >> append; sed -i s/a/b/ replaced; mv moved deep/moved2; rm gone; \
        : > emptied; chmod 600 mode; ln append hard; mkdir new; cp -p deep/kept new/copy; rm -r folder; \
        printf XX | dd of=patched bs=1 seek=3 conv=notrunc status=none; truncate -s 4 short; ls -R > listing";
    let mut workflow = Workflow::new("edits");
    for name in [
        "append",
        "replaced",
        "moved",
        "gone",
        "emptied",
        "mode",
        "deep/kept",
        "folder/a",
        "folder/b",
        "patched",
        "short",
    ] {
        workflow = workflow.input(name, format!("content of {name} as it was\n"));
    }
    workflow
        .step(Step::sh("edit", script).writes(&["*"]))
        .verify();
}

#[test]
fn an_untouched_file_on_disk_stays_the_very_same() {
    if plain_only() {
        return;
    }
    let run = Workflow::new("untouched")
        .input("in", "content")
        .step(Step::sh("use", "cat in > out").writes(&["out"]))
        .start(&[]);
    let before = fs::metadata(run.scratch.data().join("in")).expect("an input");
    let (scratch, finished) = run.finish();
    finished.expect_success();
    let after = fs::metadata(scratch.data().join("in")).expect("an input");
    let same = before.ino() == after.ino() && before.mtime_nsec() == after.mtime_nsec();
    finished.expect(same, "the file was written again");
}

#[test]
fn modes_and_times_of_results_are_those_that_the_program_set() {
    if plain_only() {
        return;
    }
    let script = "echo 1 > f; chmod 640 f; touch -d @1234567890.5 f; mkdir d; chmod 711 d; echo 2 > d/g; \
        umask 077; echo 3 > private; ln -s f link; echo '#!/bin/sh' > tool; chmod 755 tool";
    let (scratch, finished) = Workflow::new("modes")
        .step(Step::sh("make", script).writes(&["*"]))
        .start(&[])
        .finish();
    finished.expect_success();
    let data = |path: &str| fs::metadata(scratch.data().join(path)).expect("kept");
    let mode = |path: &str| data(path).permissions().mode() & 0o7777;
    assert_eq!(
        (mode("f"), mode("d"), mode("private"), mode("tool")),
        (0o640, 0o711, 0o600, 0o755)
    );
    assert_eq!(
        (data("f").mtime(), data("f").mtime_nsec()),
        (1_234_567_890, 500_000_000)
    );
    assert_eq!(
        fs::read_link(scratch.data().join("link"))
            .expect("a link")
            .to_str(),
        Some("f")
    );
}

#[test]
fn what_is_kept_is_what_was_asked_for() {
    if plain_only() {
        return;
    }
    let workflow = Workflow::new("keep")
        .step(
            Step::sh("make", "echo 1 > wanted; echo 2 > between; echo 3 > unread")
                .writes(&["unread", "wanted"])
                .rule(&["between"], "on_close", "update"),
        )
        .step(
            Step::sh("use", "cat between > result")
                .reads(&["between"])
                .writes(&["result"]),
        )
        .permanent(&["wanted"]);
    let cases = [
        ("permanent", vec!["wanted"]),
        ("outputs", vec!["result", "unread", "wanted"]),
        ("all", vec!["between", "result", "unread", "wanted"]),
        ("none", vec![]),
    ];
    for (keep, wanted) in cases {
        let (scratch, finished) = workflow.start(&["--keep", keep]).finish();
        finished.expect_success();
        let mut found: Vec<_> = fs::read_dir(scratch.data())
            .expect("a directory")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        found.sort();
        finished.expect(found == wanted, &format!("--keep {keep} kept {found:?}"));
    }
}

#[test]
fn a_failed_run_changes_nothing_on_disk_unless_told_to() {
    if plain_only() {
        return;
    }
    let workflow = Workflow::new("failed")
        .input("in", "as it was\n")
        .step(Step::sh("make", "echo 1 > made; echo changed > in; exit 3").writes(&["*"]));
    let (scratch, finished) = workflow.start(&[]).finish();
    finished.expect(
        finished.status.code() == Some(3),
        "the status is the step's",
    );
    let tree = Tree::read(&scratch.data(), &[]);
    finished.expect(
        tree.content("in") == b"as it was\n",
        "the input was changed",
    );
    finished.expect(!scratch.data().join("made").exists(), "a file was kept");
    let (scratch, finished) = workflow.start(&["--keep-on-failure"]).finish();
    finished.expect(
        finished.status.code() == Some(3),
        "the status is the step's",
    );
    let tree = Tree::read(&scratch.data(), &[]);
    finished.expect(
        tree.content("in") == b"changed\n" && tree.content("made") == b"1\n",
        "nothing was kept",
    );
}

#[test]
fn an_original_that_somebody_else_changed_is_left_alone() {
    if plain_only() {
        return;
    }
    let run = Workflow::new("conflict")
        .input("in", "as it was\n")
        .step(Step::sh("edit", "echo ours >> in; : > $OUTSIDE/edited; while [ ! -e $OUTSIDE/changed ]; do sleep 0.02; done").writes(&["*"]))
        .start(&[]);
    let mut run = run;
    let edited = run.scratch.outside().join("edited");
    run.running
        .wait_until(std::time::Duration::from_secs(10), "the edit", || {
            edited.exists()
        });
    fs::write(run.scratch.data().join("in"), "somebody else's\n").expect("an input");
    fs::write(run.scratch.outside().join("changed"), "").expect("a note");
    let (scratch, finished) = run.finish();
    finished.expect(finished.status.code() == Some(5), "the status tells of it");
    let tree = Tree::read(&scratch.data(), &[]);
    finished.expect(
        tree.content("in") == b"somebody else's\n",
        "the other change is lost",
    );
    finished.expect(
        tree.content("in.capio") == b"as it was\nours\n",
        "our change is lost",
    );
}

#[test]
fn excluded_paths_are_the_real_file_system() {
    if plain_only() {
        return;
    }
    let script = "set -e; mkdir -p scratch; echo 1 > scratch/a; echo 2 >> scratch/a; mv scratch/a scratch/b; \
        [ -e \"$OUTSIDE/../data/scratch/b\" ]; cat scratch/b > result; sha256sum < scratch/b >> result; ls scratch >> result; \
        echo hidden > inside; echo waiting > $OUTSIDE/waiting; while [ ! -e $OUTSIDE/seen ]; do sleep 0.02; done";
    let mut run = Workflow::new("exclude")
        .exclude(&["scratch", "scratch/*"])
        .step(Step::sh("work", script).writes(&["result", "inside"]))
        .start(&[]);
    let waiting = run.scratch.outside().join("waiting");
    run.running
        .wait_until(std::time::Duration::from_secs(10), "the work", || {
            waiting.exists()
        });
    let data = run.scratch.data();
    assert_eq!(
        fs::read_to_string(data.join("scratch/b")).ok().as_deref(),
        Some("1\n2\n")
    );
    assert!(
        !data.join("inside").exists(),
        "what is not excluded is on disk already"
    );
    fs::write(run.scratch.outside().join("seen"), "").expect("a note");
    let (scratch, finished) = run.finish();
    finished.expect_success();
    let result = fs::read_to_string(scratch.data().join("result")).unwrap_or_default();
    finished.expect(
        result.starts_with("1\n2\n") && result.ends_with("  -\nb\n"),
        &result,
    );
}

#[test]
fn sequential_runs_give_the_same_report_and_leave_the_directory_alone() {
    if plain_only() {
        return;
    }
    let workflow = Workflow::new("sequential")
        .input("in", "1\n")
        .step(Step::sh("first", "cat in in > a").writes(&["a"]))
        .step(
            Step::sh("second", "cat a a > b")
                .reads(&["a"])
                .writes(&["b"]),
        );
    let (scratch, finished) = workflow.start(&["--sequential"]).finish();
    finished.expect_success();
    finished.expect(
        !scratch.data().join("b").exists(),
        "the directory was used, not a copy",
    );
    let (scratch, finished) = workflow.start(&["--sequential", "--in-place"]).finish();
    finished.expect_success();
    finished.expect(
        fs::read(scratch.data().join("b")).is_ok_and(|b| b.len() == 8),
        "b is missing",
    );
}
