//! `capio diff`, `apply`, `discard`, and results that are being written.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::place::{Place, Ran, Running, until};

/// A directory in which a session called wf was killed after it had committed
/// one new file, one changed one, and one removal.
fn killed() -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path(STAGE)).unwrap();
    std::fs::set_permissions(
        place.path(STAGE),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    for (name, text) in [
        ("old", "old"),
        ("gone", "gone"),
        (".capio-journal-wf/1", "results"),
        (".capio-journal-wf/2", "changed"),
    ] {
        place.write(name, text);
    }
    let found = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(place.path(name)).unwrap();
        let modified = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        serde_json::json!({"file": {"bytes": meta.size(), "modified": modified}})
    };
    let staged = |number: u32, bytes: u64| serde_json::json!({"place": 0, "number": number, "inode": 1, "bytes": bytes, "sum": null});
    let journal = serde_json::json!({"elsewhere": [], "changes": [
        {"make_directory": {"path": "sub"}},
        {"put": {"staged": staged(1, 7), "path": "sub/new", "found": "nothing"}},
        {"put": {"staged": staged(2, 7), "path": "old", "found": found("old")}},
        {"remove": {"path": "gone", "found": found("gone")}},
        {"attributes": {"path": "sub", "attributes":
            {"mode": [0o711, 0, 0], "accessed": null, "modified": 1_000_000_000_000_000_000_i64}}},
    ]});
    let body = journal.to_string();
    let sum = crc32fast::hash(body.as_bytes());
    let journal = format!("capio-journal 1 {} {sum:08x}\n{body}", body.len());
    place.write(JOURNAL, &journal);
    place
}

const STAGE: &str = ".capio-journal-wf";
const JOURNAL: &str = ".capio-journal-wf/journal";

fn is_applied(place: &Place) -> bool {
    let (new, old) = (place.read("sub/new"), place.read("old"));
    new.as_deref() == Some("results")
        && old.as_deref() == Some("changed")
        && place.read("gone").is_none()
}

fn is_untouched(place: &Place) -> bool {
    !place.path("sub").exists()
        && place.read("old").as_deref() == Some("old")
        && place.read("gone").is_some()
}

fn is_clean(dir: &Path) -> bool {
    let mut entries = std::fs::read_dir(dir).unwrap().flatten();
    !entries.any(|entry| entry.file_name().to_string_lossy().starts_with(".capio"))
}

fn settle(place: &Place, command: &str, more: &[&str]) -> Ran {
    place.capio(&[&[command, "--dir", "."], more].concat())
}

#[test]
fn apply_completes_what_a_killed_session_had_committed() {
    let place = killed();
    let ran = settle(&place, "apply", &[]).expect(0);
    assert!(
        ran.out.contains("session wf") && ran.out.contains("2 files in place, 1 removed"),
        "{ran:?}"
    );
    assert!(is_applied(&place) && is_clean(&place.path("")));
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(place.path("sub")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o711, 1_000_000_000));
    let again = settle(&place, "apply", &[]).expect(0);
    assert!(
        again.out.contains("no session has left anything"),
        "{again:?}"
    );
}

#[test]
fn the_next_run_completes_it_before_it_starts_and_says_so() {
    let place = killed();
    let ran = place
        .capio(&["run", "--step", "a=cat sub/new old; ls -a"])
        .expect(0);
    assert!(
        ran.out.contains("results") && ran.out.contains("changed"),
        "{ran:?}"
    );
    assert!(!ran.out.contains(".capio"), "{ran:?}");
    ran.says(&["completed the results of the session wf"]);
    assert!(is_applied(&place) && is_clean(&place.path("")));
}

#[test]
fn discard_takes_back_what_has_not_begun_and_nothing_else() {
    let place = killed();
    settle(&place, "discard", &["--workflow", "other"]).expect(0);
    assert!(place.path(JOURNAL).exists());
    let ran = settle(&place, "discard", &["--json"]).expect(0);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json[0]["done"]["discarded"]["files"], 2);
    assert!(is_untouched(&place) && is_clean(&place.path("")));

    let place = killed();
    place.write(".capio-journal-wf/started", "");
    settle(&place, "discard", &[])
        .expect(3)
        .says(&["may be in place already", "capio apply"]);
    assert!(is_untouched(&place) && place.path(JOURNAL).exists());
    settle(&place, "discard", &["--force"]).expect(0);
    assert!(is_untouched(&place) && is_clean(&place.path("")));
}

#[test]
fn what_was_not_committed_is_removed_by_discard_or_by_the_next_run() {
    for by_run in [false, true] {
        let place = killed();
        std::fs::remove_file(place.path(JOURNAL)).unwrap();
        settle(&place, "apply", &[])
            .expect(3)
            .says(&["nothing to apply", "capio discard"]);
        if by_run {
            let ran = place.capio(&["run", "--step", "a=true"]).expect(0);
            ran.says(&["removed 2 half-written files"]);
        } else {
            settle(&place, "discard", &[]).expect(0);
        }
        assert!(
            is_untouched(&place) && is_clean(&place.path("")),
            "{by_run}"
        );
    }
}

#[test]
fn a_damaged_journal_is_refused_and_nothing_is_touched() {
    let whole = std::fs::read(killed().path(JOURNAL)).unwrap();
    let mut flipped = whole.clone();
    flipped[200] ^= 4;
    for bad in [&whole[..whole.len() - 1], &whole[..10], b"", &flipped] {
        let place = killed();
        std::fs::write(place.path(JOURNAL), bad).unwrap();
        let refused = settle(&place, "apply", &[]);
        refused
            .expect(3)
            .says(&["is damaged", "nothing was touched", "capio discard"]);
        let run = place.capio(&["run", "--step", "a=touch ran"]);
        run.expect(3).says(&["is damaged"]);
        assert!(is_untouched(&place) && place.read(".capio-journal-wf/1").is_some());
        assert!(place.read("ran").is_none());
    }
}

#[test]
fn somebody_elses_change_before_the_completion_is_left_alone() {
    let place = killed();
    place.write("old", "somebody's, longer");
    let ran = settle(&place, "apply", &[]).expect(5);
    assert!(ran.out.contains("conflict: old"), "{ran:?}");
    assert_eq!(place.read("old").unwrap(), "somebody's, longer");
    assert_eq!(place.read("old.capio").unwrap(), "changed");
    assert!(is_clean(&place.path("sub")));
}

#[test]
fn diff_shows_what_would_change_and_changes_nothing() {
    let place = Place::new();
    for name in ["changed", "gone", "mode", "moved", "same", "tagged"] {
        place.write(name, "as it was\n");
    }
    for name in ["d", "tags"] {
        std::fs::create_dir(place.path(name)).unwrap();
    }
    place.write("d/inner", "x");
    place.write("d/gone", "y");
    let _serving = place.start("capio", &["serve", "--ready-file", "ready"]);
    until("ready", || place.path("ready").exists());
    let script = "echo new > new; echo more >> changed; rm gone; chmod 600 mode; mv moved away; \
        mv d e; rm e/gone; ln -s new link; mkdir empty; cat same; \
        python3 -c 'import os; [os.setxattr(p, \"user.a\", b\"x\") for p in (\"tagged\", \"tags\")]'";
    place
        .capio(&["exec", "--step", "a", "--", "sh", "-c", script])
        .expect(0);
    let shown = place.capio(&["diff"]).expect(0).out;
    assert_eq!(
        shown,
        "R moved -> away (10 B, changed)\n\
         M changed (15 B, changed)\n\
         D d/gone (1 B, changed)\n\
         R d/ -> e/ (changed)\n\
         A empty/ (read by no step)\n\
         D gone (10 B, changed)\n\
         A link (read by no step)\n\
         P mode (10 B, changed)\n\
         A new (4 B, read by no step)\n\
         P tagged (10 B, changed)\n\
         P tags/ (changed)\n"
    );
    let json = place.capio(&["diff", "--json"]).expect(0).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json[0]["what"], &json[0]["from"]),
        (&"renamed".into(), &"moved".into())
    );
    assert_eq!(place.read("gone").unwrap(), "as it was\n");
    assert!(place.read("new").is_none() && is_clean(&place.path("")));
}

/// A run whose results take a while to write, just as it writes them.
fn writing(place: &Place) -> Running {
    let step = "a=i=0; while [ $i -lt 4000 ]; do echo $i > f$i; i=$((i+1)); done";
    let running = place.start("capio", &["run", "--workflow", "wf", "--step", step]);
    until("writing", || place.path(".capio-journal-wf/1").exists());
    running
}

#[test]
fn the_second_interrupt_gives_up_results_that_are_being_written() {
    let place = Place::new();
    let running = writing(&place);
    running.signal(Signal::SIGINT);
    std::thread::sleep(Duration::from_millis(50));
    running.signal(Signal::SIGINT);
    let ran = running.finish().expect(130);
    ran.says(&[
        "writing results; once more to give them up",
        "were given up",
    ]);
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 0);
}

#[test]
fn one_interrupt_does_not_lose_results_that_are_being_written() {
    let place = Place::new();
    let running = writing(&place);
    running.signal(Signal::SIGTERM);
    let ran = running.finish().expect(0);
    ran.says(&["writing results; once more to give them up"]);
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 4000);
    assert_eq!(place.read("f3999").unwrap(), "3999\n");
}

#[test]
fn a_run_killed_while_it_writes_results_is_cleaned_up_by_the_next() {
    let place = Place::new();
    place.write("f7", "as it was");
    let mut running = writing(&place);
    assert!(running.is_running());
    running.signal(Signal::SIGKILL);
    running.finish();
    let before = !place.path(JOURNAL).exists();
    place
        .capio(&["run", "--workflow", "wf", "--step", "a=true"])
        .expect(0);
    let expected = if before { "as it was" } else { "7\n" };
    assert_eq!(place.read("f7").unwrap(), expected);
    assert!(is_clean(&place.path("")));
}
