//! `capio run` when all goes well.

use std::time::Duration;

use crate::place::{Place, two_steps};

#[test]
fn a_reader_works_while_its_writer_does_and_only_results_stay() {
    let place = Place::with_spec(&two_steps("on_close", "no_update"));
    let (ran, report) = place.report(&[
        "-c",
        "s.json",
        "--step",
        "prod=for i in 1 2 3; do echo $i; sleep 0.1; done > f",
        "--step",
        "cons=while read x; do echo got $x; done < f > r; echo all",
    ]);
    let ran = ran.expect(0);
    assert!(ran.out.contains("cons | all"), "{ran:?}");
    assert_eq!(place.read("r").unwrap(), "got 1\ngot 2\ngot 3\n");
    assert_eq!(place.read("f"), None, "only a stream");
    assert_eq!(report["success"], true);
    assert_eq!(report["steps"][0]["bytes_written"], 6);
    assert!(report["steps"][1]["waited_seconds"].as_f64().unwrap() > 0.1);
    place.nothing_is_left("wf", &place.path("").display().to_string());
}

#[test]
fn the_workflow_file_decides_commands_order_instances_environment_and_directory() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("data/sub")).unwrap();
    place.write(
        "w.toml",
        r#"
        dir = "data"
        [[step]]
        name = "last"
        command = ["cat", "out0", "out1"]
        cwd = "sub"
        after = ["first"]
        [[step]]
        name = "first"
        command = "sleep 0.1; pwd; echo $WORD $CAPIO_INSTANCE/$CAPIO_INSTANCES > out$CAPIO_INSTANCE"
        instances = 2
        env = { WORD = "hello" }
        cwd = "sub"
        "#,
    );
    let ran = place.capio(&["run", "w.toml"]).expect(0);
    let sub = place.path("data/sub").canonicalize().unwrap();
    for line in [
        format!("first[1] | {}", sub.display()),
        "last     | hello 0/2".into(),
        "last     | hello 1/2".into(),
    ] {
        assert!(ran.out.contains(&line), "no {line:?} in {ran:?}");
    }
    assert_eq!(place.read("data/sub/out0"), None, "was read by a step");
}

#[test]
fn a_step_can_run_in_a_directory_that_an_earlier_one_made() {
    let place = Place::new();
    place.write(
        "w.toml",
        r#"
        [[step]]
        name = "a"
        command = "mkdir -p work/in; echo hi > work/in/f"
        [[step]]
        name = "b"
        command = "pwd; cat f > g"
        cwd = "work/in"
        after = ["a"]
        "#,
    );
    let ran = place.capio(&["run", "w.toml"]).expect(0);
    let work = place.path("").canonicalize().unwrap().join("work/in");
    let line = format!("b | {}", work.display());
    assert!(ran.out.contains(&line), "no {line:?} in {ran:?}");
    assert_eq!(place.read("work/in/g").unwrap(), "hi\n");
}

#[test]
fn without_a_spec_and_order_the_steps_run_one_after_the_other_and_it_is_said() {
    let place = Place::new();
    let ran = place.capio(&[
        "run",
        "--step",
        "a=sleep 0.1; echo one > f",
        "--step",
        "b=cat f > g",
    ]);
    ran.expect(0).says(&["one after the other"]);
    assert_eq!(place.read("g").unwrap(), "one\n");
}

#[test]
fn sequential_runs_on_a_copy_that_goes_away() {
    let place = Place::new();
    std::fs::create_dir(place.path("data")).unwrap();
    place.write("data/in", "input\n");
    let steps = ["--step", "a=cat in > f; echo $CAPIO_APP_NAME $PWD"];
    let ran = place.capio(&[&["run", "--dir", "data", "--sequential"][..], &steps].concat());
    let ran = ran.expect(0);
    assert!(ran.out.contains("a | a /"), "{ran:?}");
    assert_eq!(place.read("data/f"), None);
    let left = std::fs::read_dir(place.path("")).unwrap().count();
    assert_eq!(left, 1, "only the directory itself");
    let args = ["run", "--dir", "data", "--sequential", "--in-place"];
    place.capio(&[&args[..], &steps].concat()).expect(0);
    assert_eq!(place.read("data/f").unwrap(), "input\n");
}

#[test]
fn logs_take_what_steps_print() {
    let place = Place::new();
    let ran = place.capio(&[
        "run",
        "--logs",
        "logs",
        "--step",
        "a=echo out; echo err >&2",
    ]);
    assert_eq!(ran.expect(0).out, "");
    assert_eq!(place.read("logs/a.log").unwrap(), "out\nerr\n");
}

#[test]
fn keep_decides_what_outlives_the_run() {
    let spec = two_steps("on_close", "update");
    let permanent = spec.replacen('{', r#"{"permanent": ["f"], "#, 1);
    for (keep, f, r) in [
        ("permanent", true, false),
        ("outputs", true, true),
        ("all", true, true),
        ("none", false, false),
    ] {
        let place = Place::with_spec(&permanent);
        let steps = ["--step", "prod=echo x > f", "--step", "cons=cat f > r"];
        let args = ["run", "-c", "s.json", "--keep", keep];
        place.capio(&[&args[..], &steps].concat()).expect(0);
        let there = (place.read("f").is_some(), place.read("r").is_some());
        assert_eq!(there, (f, r), "--keep {keep}");
    }
}

#[test]
fn the_run_lasts_as_long_as_the_daemons_of_its_steps() {
    let place = Place::new();
    let line = "a=setsid -f sh -c 'sleep 0.3; echo late > late'";
    let ran = place.capio(&["run", "--step", line]).expect(0);
    assert!(ran.took >= Duration::from_millis(300), "{ran:?}");
    assert_eq!(place.read("late").unwrap(), "late\n");
}

#[test]
fn a_run_is_compared_with_the_same_steps_in_sequence() {
    let place = Place::with_spec(&two_steps("on_close", "no_update"));
    let steps = [
        "-c",
        "s.json",
        "--step",
        "prod=for i in 1 2 3 4; do echo $i; sleep 0.1; done > f",
        "--step",
        "cons=while read x; do echo got $x; sleep 0.1; done < f > r",
    ];
    let sequential = ["run", "--sequential", "--report", "before.json"];
    place.capio(&[&sequential[..], &steps].concat()).expect(0);
    let compared = ["--compare", "before.json"];
    let (ran, report) = place.report(&[&compared[..], &steps].concat());
    ran.expect(0).says(&["times as fast as one step after"]);
    let comparison = &report["comparison"];
    assert!(comparison["sequential_seconds"].as_f64().unwrap() >= 0.8);
    let speed_up = comparison["speed_up"].as_f64().unwrap();
    assert!(speed_up > 1.2, "{speed_up}");
    let other = ["run", "--compare", "before.json", "--step", "x=touch ran"];
    let ran = place.capio(&other).expect(2);
    ran.says(&["that run had other steps", "--sequential --report"]);
    assert_eq!(place.read("ran"), None);
    let itself = ["run", "--compare", "report.json"];
    let ran = place.capio(&[&itself[..], &steps].concat()).expect(2);
    ran.says(&["not of a run with --sequential"]);
}

#[test]
fn a_program_can_read_the_report_from_standard_output_alone() {
    let place = Place::new();
    for option in [&["--json"][..], &["--report", "-"]] {
        let step = ["run", "--step", "a=echo printed; echo x > f"];
        let ran = place.capio(&[&step[..], option].concat()).expect(0);
        let ran = ran.says(&["a | printed", "run succeeded", "kept 1 file"]);
        let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(report["steps"][0]["name"], "a");
        assert_eq!(report["files"]["kept"][0]["path"], "f");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_told_after_the_run() {
    let place = Place::new();
    let args = ["run", "--report", "none/r.json", "--step"];
    let ran = place.capio(&[&args[..], &["a=touch ran"]].concat());
    ran.expect(3).says(&["none/r.json", "run succeeded"]);
    assert!(place.read("ran").is_some());
    let ran = place.capio(&[&args[..], &["a=exit 6"]].concat());
    ran.expect(6).says(&["none/r.json"]);
}

#[test]
fn a_program_that_cannot_be_taken_over_is_warned_of() {
    let place = Place::new();
    // Nothing but the headers of a program without a loader.
    let mut file = vec![0; 64 + 56];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    for (at, value) in [
        (16, 2),
        (18, 62),
        (20, 1),
        (32, 64),
        (52, 64),
        (54, 56),
        (56, 1),
        (64, 1),
    ] {
        file[at] = value;
    }
    std::fs::write(place.path("static"), file).unwrap();
    let (ran, report) = place.report(&["--step", "a=true || ./static"]);
    let told =
        "static is linked statically, so that capio cannot take over the files that it opens";
    ran.expect(0).says(&[told]);
    assert!(report["warnings"][0].as_str().unwrap().contains(told));
}
