//! Random stories of file calls, told natively and under capio: every result and
//! every errno must be the same.

use std::fs;

use capio_tests::{Step, Workflow, plain_only, program};

const CALLS: u32 = 2000;

/// Seeds of one run; `CAPIO_TESTS_SEEDS=FIRST-LAST` asks for others.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let asked = std::env::var("CAPIO_TESTS_SEEDS").unwrap_or_default();
    let (first, last) = asked.split_once('-').unwrap_or(("1", "40"));
    first.parse().expect("a number")..=last.parse().expect("a number")
}

#[test]
fn any_story_of_file_calls_goes_as_on_a_local_disk() {
    let random = program("random").display().to_string();
    let mut wrong = Vec::new();
    for seed in seeds() {
        let story = Workflow::new("story").step(
            Step::sh(
                "tell",
                format!("exec '{random}' {seed} {CALLS} > $OUTSIDE/story"),
            )
            .writes(&["*"]),
        );
        let native = story.plain().note("story");
        assert!(
            native.lines().count() > CALLS as usize,
            "the story is too short"
        );
        if plain_only() {
            assert_eq!(
                native,
                story.plain().note("story"),
                "seed {seed} tells two stories"
            );
            continue;
        }
        let (scratch, finished) = story.start(&["--keep", "none"]).finish();
        finished.expect_success();
        let ours = fs::read_to_string(scratch.outside().join("story")).unwrap_or_default();
        let at = native.lines().zip(ours.lines()).position(|(a, b)| a != b);
        if let Some(at) = at {
            let line = |text: &str| text.lines().nth(at).unwrap_or_default().to_owned();
            wrong.push(format!(
                "seed {seed}, line {}: '{}', on disk '{}'",
                at + 1,
                line(&ours),
                line(&native)
            ));
        } else if native != ours {
            wrong.push(format!("seed {seed}: the story ends early"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn readers_of_any_stream_get_every_byte_once_it_is_written_and_no_other() {
    let feed = program("feed").display().to_string();
    for seed in seeds().step_by(4) {
        let mut workflow = Workflow::new("feed").unaudited();
        let writer = format!("exec '{feed}' write {seed} f");
        workflow = workflow.step(Step::sh("write", writer).rule(&["f"], "on_close", "no_update"));
        for reader in 1..=3 {
            let script = format!("exec '{feed}' read {reader} f > size{reader}");
            let output = format!("size{reader}");
            let step = Step::sh(&format!("read{reader}"), script);
            workflow = workflow.step(step.reads(&["f"]).writes(&[&output]));
        }
        workflow.verify();
    }
}
