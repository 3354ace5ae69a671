//! Who waits for what, by the rules of the specification.
//!
//! Steps tell each other by empty files in `$OUTSIDE`, which capio leaves alone,
//! how far they are; `$STREAMING` is set where they run at once.

use capio_tests::{Step, Workflow, plain_only};
use serde_json::json;

/// Waits in a shell, while steps overlap, until the other side says something.
/// A step that is never told fails after ten seconds.
const AWAIT: &str = r#"
    await() {
        [ -n "$STREAMING" ] || return 0
        tries=0
        while [ ! -e "$OUTSIDE/$1" ]; do
            tries=$((tries + 1)); [ $tries -lt 500 ] || { echo "nobody said $1" >&2; exit 9; }
            sleep 0.02
        done
    }
    say() { : > "$OUTSIDE/$1"; }
    said() { [ -z "$STREAMING" ] || [ -e "$OUTSIDE/$1" ] || { echo "too early: $1 is missing" >&2; exit 8; }; }
    unsaid() { [ -z "$STREAMING" ] || [ ! -e "$OUTSIDE/$1" ] || { echo "too late: $1 is there" >&2; exit 7; }; }
"#;

fn step(name: &str, script: &str) -> Step {
    Step::exec(name, &["sh", "-c", &format!("{AWAIT}{script}")])
}

#[test]
fn a_no_update_file_is_read_line_by_line_while_it_is_written() {
    Workflow::new("lines")
        .step(
            step(
                "make",
                "exec > f; echo 1; await got1; echo 2; await got2; echo 3",
            )
            .rule(&["f"], "on_close", "no_update"),
        )
        .step(
            step(
                "use",
                "{ read a; say got1; read b; say got2; read c; ! read d; echo $a $b $c; } < f > g",
            )
            .reads(&["f"])
            .writes(&["g"]),
        )
        .verify();
}

#[test]
fn end_of_file_comes_only_with_the_last_byte() {
    Workflow::new("end")
        .step(step("make", "exec > f; seq 1 1000; sleep 0.2; seq 1001 2000; sleep 0.2; seq 2001 3000; say whole").rule(&["f"], "on_close", "no_update"))
        .step(step("use", "cat f > g; said whole; wc -l < f > h").reads(&["f"]).writes(&["g", "h"]))
        .verify();
}

#[test]
fn an_empty_no_update_file_is_no_end_of_file() {
    Workflow::new("empty")
        .step(
            step("make", "exec > f; await opened; sleep 0.1; echo late").rule(
                &["f"],
                "on_close",
                "no_update",
            ),
        )
        .step(
            step("use", "{ say opened; cat; } < f > g")
                .reads(&["f"])
                .writes(&["g"]),
        )
        .verify();
}

#[test]
fn an_update_file_is_seen_only_when_it_is_closed() {
    Workflow::new("close")
        .step(
            step(
                "make",
                "{ echo 1; await trying; sleep 0.2; echo 2; say closing; } > f; await got",
            )
            .rule(&["f"], "on_close", "update"),
        )
        .step(
            step("use", "say trying; cat f > g; said closing; say got")
                .reads(&["f"])
                .writes(&["g"]),
        )
        .verify();
}

#[test]
fn stat_of_an_update_file_waits_for_its_size() {
    Workflow::new("stat")
        .step(
            step(
                "make",
                "{ echo 1234; sleep 0.3; echo 56789; say closing; } > f",
            )
            .rule(&["f"], "on_close", "update"),
        )
        .step(
            step("use", "stat -c %s f > g; said closing; tail -c 4 f >> g")
                .reads(&["f"])
                .writes(&["g"]),
        )
        .verify();
}

#[test]
fn stat_of_a_stream_gives_what_is_there_at_once() {
    Workflow::new("stat-stream")
        .step(step("make", "{ echo 1234; say half; await sized; echo 56789; } > f").rule(&["f"], "on_close", "no_update"))
        .step(step("use", "await half; [ -z \"$STREAMING\" ] || [ $(stat -c %s f) = 5 ] || exit 6; say sized; wc -l < f > g").reads(&["f"]).writes(&["g"]))
        .verify();
}

#[test]
fn the_end_of_a_stream_is_sought_only_when_it_is_final() {
    Workflow::new("seek-end")
        .step(step("make", "{ seq 1 50; say half; sleep 0.3; seq 51 100; say closing; } > f").rule(&["f"], "on_close", "no_update"))
        .step(step("use", "await half; python3 -c 'import sys; f = open(\"f\", \"rb\"); print(f.seek(0, 2))' > g; said closing").reads(&["f"]).writes(&["g"]))
        .verify();
}

#[test]
fn on_close_with_a_count_waits_for_that_many_writers() {
    Workflow::new("count")
        .step(step("make", "echo 1 > f; sleep 0.2; echo 2 >> f; sleep 0.2; say third; echo 3 >> f; await got; echo a > other").rule(&["f"], "on_close:3", "update").writes(&["other"]))
        .step(step("use", "cat f > g; said third; say got").reads(&["f"]).writes(&["g"]))
        .verify();
}

#[test]
fn several_producers_close_one_file() {
    let append = "for i in 1 2 3; do echo \"$CAPIO_INSTANCE $i\"; done >> f";
    Workflow::new("producers")
        .step(
            step("make", append)
                .instances(4)
                .rule(&["f"], "on_close:4", "update"),
        )
        .step(
            step("use", "sort f > g; rm -f f")
                .reads(&["f"])
                .writes(&["g"]),
        )
        .verify();
}

#[test]
fn on_termination_waits_for_the_end_of_the_step() {
    Workflow::new("termination")
        .step(
            step(
                "make",
                "echo 1 > f; sleep 0.2; (sleep 0.2; echo 2 >> f; say ending) & :",
            )
            .writes(&["f"]),
        )
        .step(
            step("use", "cat f > g; said ending")
                .reads(&["f"])
                .writes(&["g"]),
        )
        .verify();
}

#[test]
fn on_termination_streams_too_when_told_so() {
    Workflow::new("termination-stream")
        .step(
            step(
                "make",
                "echo 1 > f; await got; echo 2 >> f; sleep 0.1; echo 3 >> f",
            )
            .rule(&["f"], "on_termination", "no_update"),
        )
        .step(
            step("use", "{ read a; say got; cat; } < f > g")
                .reads(&["f"])
                .writes(&["g"]),
        )
        .verify();
}

#[test]
fn on_file_waits_for_the_files_it_depends_on() {
    let depends = json!({"name": ["data"], "committed": "on_file", "file_deps": ["done1", "done2"], "mode": "update"});
    Workflow::new("on-file")
        .step(
            step("make", "echo 1 > data; echo x > done1; sleep 0.2; echo 2 >> data; say last; echo y > done2; await got")
                .raw_rule(&["data"], depends)
                .rule(&["done1", "done2"], "on_close", "update"),
        )
        .step(step("use", "cat data > g; said last; say got").reads(&["data"]).writes(&["g"]))
        .verify();
}

#[test]
fn a_directory_is_listed_when_it_holds_its_number_of_files() {
    let rule =
        json!({"dirname": ["parts"], "committed": "on_n_files", "n_files": 3, "mode": "update"});
    Workflow::new("n-files")
        .step(
            step("make", "mkdir parts; for i in 1 2 3; do sleep 0.1; [ $i = 3 ] && say last; echo $i > parts/$i; done; await listed")
                .raw_rule(&["parts"], rule)
                .rule(&["parts/*"], "on_close", "update"),
        )
        .step(step("use", "ls parts > listing; said last; say listed; cat parts/* > all").reads(&["parts", "parts/*"]).writes(&["listing", "all"]))
        .verify();
}

#[test]
fn entries_of_a_streamed_directory_come_as_they_are_made() {
    let rule =
        json!({"dirname": ["parts"], "committed": "on_n_files", "n_files": 4, "mode": "no_update"});
    let list = r#"python3 -c '
import os
names = []
for entry in os.scandir("parts"):
    names.append(entry.name)
    if entry.name == "1": open(os.environ["OUTSIDE"] + "/saw1", "w").close()
print(*sorted(names))' > listing"#;
    Workflow::new("entries")
        .step(
            step("make", "mkdir parts; echo 1 > parts/1; await saw1; for i in 2 3 4; do echo $i > parts/$i; done")
                .raw_rule(&["parts"], rule)
                .rule(&["parts/*"], "on_close", "update"),
        )
        .step(step("use", list).reads(&["parts"]).writes(&["listing"]))
        .verify();
}

#[test]
fn a_directory_nobody_named_shows_what_is_there_now() {
    Workflow::new("unnamed")
        .step(
            step(
                "make",
                "mkdir d; echo 1 > d/a; ls d > listing; echo 2 > d/b; ls d >> listing",
            )
            .writes(&["*"]),
        )
        .verify();
}

#[test]
fn a_reader_that_starts_long_after_the_end_finds_everything() {
    Workflow::new("late")
        .step(
            step("make", "seq 1 100 > f; seq 1 5 > g; say made")
                .rule(&["f"], "on_close", "no_update")
                .writes(&["g"]),
        )
        .step(
            step("wait", "await made; sleep 0.3; wc -l f g > h")
                .reads(&["f", "g"])
                .rule(&["h"], "on_close", "update"),
        )
        .step(
            step("last", "cat f g h > i")
                .after("wait")
                .reads(&["f", "g", "h"])
                .writes(&["i"]),
        )
        .verify();
}

#[test]
fn a_writer_that_starts_late_is_waited_for() {
    Workflow::new("late-writer")
        .step(step("first", "sleep 0.3; echo 1 > a").rule(&["a"], "on_close", "update"))
        .step(
            step("second", "{ cat a; sleep 0.2; echo 2; } > b")
                .after("first")
                .reads(&["a"])
                .rule(&["b"], "on_close", "no_update"),
        )
        .step(step("reader", "cat b > c").reads(&["b"]).writes(&["c"]))
        .verify();
}

#[test]
fn many_readers_read_one_stream_at_their_own_pace() {
    let read = "n=0; while read line; do n=$((n + line)); [ $CAPIO_INSTANCE != 0 ] || [ $((line % 50)) != 0 ] || sleep 0.02; done < f; echo $n > sum.$CAPIO_INSTANCE";
    Workflow::new("readers")
        .step(
            step(
                "make",
                "for i in 1 2 3 4 5 6 7 8; do seq 1 100; sleep 0.02; done > f",
            )
            .rule(&["f"], "on_close", "no_update"),
        )
        .step(
            step("read", read)
                .instances(3)
                .reads(&["f"])
                .writes(&["sum.*"]),
        )
        .verify();
}

#[test]
fn a_chain_of_streams_runs_at_once() {
    let pass = |from: &str, to: &str| {
        format!(
            "while read n; do echo $((n + 1)); [ $n -lt 3 ] || say first.{to}; done < {from} > {to}"
        )
    };
    Workflow::new("chain")
        .step(
            step(
                "a",
                "echo 1; echo 2; echo 3; await first.d; seq 4 200; exit 0",
            )
            .rule(&["none"], "on_close", "update")
            .writes(&["none"]),
        )
        .step(
            step(
                "b",
                "{ echo 1; echo 2; echo 3; await first.d; seq 4 200; } > b",
            )
            .rule(&["b"], "on_close", "no_update"),
        )
        .step(
            step("c", &pass("b", "c"))
                .reads(&["b"])
                .rule(&["c"], "on_close", "no_update"),
        )
        .step(
            step("d", &pass("c", "d"))
                .reads(&["c"])
                .rule(&["d"], "on_close", "no_update"),
        )
        .verify();
}

#[test]
fn a_missing_file_that_no_step_can_make_is_missing_at_once() {
    Workflow::new("probe")
        .step(step("a", "cat config 2> /dev/null; [ -e nothing ] || echo none > a; say probed; await written").rule(&["a"], "on_close", "update"))
        .step(step("b", "unsaid never; [ ! -e nothing ] && cat a > b; say written").reads(&["a"]).writes(&["b"]))
        .verify();
}

#[test]
fn a_file_that_its_producer_never_makes_is_missing_when_that_has_ended() {
    Workflow::new("never")
        .step(step("make", "sleep 0.2; : > other; say ended").writes(&["other", "optional"]))
        .step(step("use", "if cat optional 2> error; then exit 1; fi; said ended; grep -c 'No such file' error > g; rm error").reads(&["optional"]).writes(&["g", "error"]))
        .verify();
}

#[test]
fn a_step_that_updates_its_own_input_does_not_wait_for_itself() {
    Workflow::new("in-out")
        .step(step("make", "seq 1 10 > f").rule(&["f"], "on_close", "update"))
        .step(
            step(
                "edit",
                "cat f > tmp; echo 11 >> f; sort -rn f > tmp; mv tmp f; wc -l < f > lines",
            )
            .after("make")
            .reads(&["f"])
            .writes(&["f", "lines", "tmp"]),
        )
        .verify();
}

#[test]
fn a_reader_of_a_removed_stream_keeps_it() {
    Workflow::new("unlink")
        .step(step("make", "exec > f; echo 1; await opened; echo 2; rm f; echo 3; exec > other; echo x").rule(&["f"], "on_close", "no_update").writes(&["other"]))
        .step(step("use", "[ -n \"$STREAMING\" ] || { printf '1\\n2\\n3\\n' > g; exit; }; { read a; say opened; cat; } < f > rest; echo $a | cat - rest > g; rm rest").reads(&["f"]).writes(&["g", "rest"]))
        .verify();
}

#[test]
fn blocks_written_out_of_order_are_read_in_order() {
    let write = r#"python3 -c '
import os, time
f = os.open("f", os.O_WRONLY | os.O_CREAT, 0o644)
for block in [3, 1, 0, 2, 7, 5, 6, 4]:
    os.pwrite(f, bytes([65 + block]) * 5000, block * 5000)
    time.sleep(0.01)
os.close(f)'"#;
    Workflow::new("blocks")
        .step(step("make", write).rule(&["f"], "on_close", "no_update"))
        .step(
            step("use", "cat f > g; cksum < f > sum")
                .reads(&["f"])
                .writes(&["g", "sum"]),
        )
        .verify();
}

#[test]
fn a_large_stream_arrives_whole() {
    Workflow::new("large")
        .step(step("make", "seq 1 1500000 > f").rule(&["f"], "on_close", "no_update"))
        .step(
            step("sum", "cksum < f > sum")
                .reads(&["f"])
                .writes(&["sum"]),
        )
        .step(
            step("last", "tail -n 2 f > last")
                .reads(&["f"])
                .writes(&["last"]),
        )
        .permanent(&["sum", "last"])
        .ignoring("f")
        .verify();
}

#[test]
fn a_reader_that_trusts_the_size_of_a_stream_is_warned_of() {
    if plain_only() {
        return;
    }
    // Reads just as much as `stat` tells, as archivers do.
    let reader = r#"python3 -c '
import os, sys
f = os.open("f", os.O_RDONLY)
os.read(f, os.fstat(f).st_size)
os.close(f)' > g; say got"#;
    let workflow = Workflow::new("truncated")
        .step(
            step("make", "{ echo 1; say half; await got; echo 2; } > f").rule(
                &["f"],
                "on_close",
                "no_update",
            ),
        )
        .step(
            step("use", &format!("await half; {reader}"))
                .reads(&["f"])
                .writes(&["g"]),
        );
    let (_, finished) = workflow.start(&[]).finish();
    finished.expect_success();
    finished.expect(finished.output.contains("probably"), "nobody is warned");
    let (_, finished) = workflow.start(&["--strict"]).finish();
    finished.expect(
        finished.status.code() == Some(5),
        "--strict accepts a truncated file",
    );
}
