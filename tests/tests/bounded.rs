//! Data several times the cache: nothing is lost or hangs, whatever programs do,
//! and the cache stays within its limit.

use std::time::Duration;

use capio_tests::{Step, Workflow, limit, plain_only, program};
use nix::sys::signal::Signal;

const MIB: u64 = 1 << 20;

fn bulk(arguments: &str) -> String {
    format!("'{}' {arguments}", program("bulk").display())
}

/// More in the long campaign.
fn many(few: u64, long: u64) -> u64 {
    if std::env::var_os("CAPIO_TEST_LONG").is_some() {
        long
    } else {
        few
    }
}

fn stream(megabytes: u64, mode: &str, reader: &str) -> Workflow {
    let writer = format!("exec {}", bulk(&format!("write f {megabytes} 1024")));
    Workflow::new("stream")
        .step(Step::sh("make", writer).rule(&["f"], "on_close", mode))
        .step(
            Step::sh("use", format!("exec {reader} > size"))
                .reads(&["f"])
                .writes(&["size"]),
        )
        .permanent(&["size"])
        .unaudited()
}

/// The number that follows `before` in the line of the report that begins with
/// `line`, in MiB.
fn figure(report: &str, line: &str, before: &str) -> f64 {
    let line = report.lines().find(|text| text.starts_with(line));
    let rest = line
        .and_then(|line| line.split_once(before))
        .map(|(_, rest)| rest);
    let mut words = rest.unwrap_or_default().split_whitespace();
    let number: f64 = words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(-1.0);
    match words.next() {
        Some("GiB") => number * 1024.0,
        Some("KiB") => number / 1024.0,
        Some("B") => number / 1_048_576.0,
        _ => number,
    }
}

#[test]
fn a_stream_of_sixteen_times_the_cache_reaches_a_slower_reader() {
    if plain_only() {
        return;
    }
    let (cache, size) = (many(32, 256), many(512, 4096));
    let reader = bulk(&format!("read f 1024 {}", many(4000, 2000)));
    let cache_size = format!("{cache}MiB");
    let (scratch, finished) = stream(size, "no_update", &reader)
        .start(&["--cache", &cache_size])
        .finish();
    finished.expect_success();
    let told = std::fs::read_to_string(scratch.data().join("size")).unwrap_or_default();
    finished.expect(told.trim() == (size * MIB).to_string(), &told);
    let report = &finished.output;
    let peak = figure(report, "cache:", "at most ");
    finished.expect(
        peak > 0.0 && peak <= cache as f64,
        "the cache kept its limit",
    );
    let spilled = figure(report, "store:", "store: ");
    finished.expect(
        spilled > (size - 2 * cache) as f64,
        "pieces went to the store",
    );
    finished.expect(
        report.contains("(room in the cache)"),
        "the report shows the stalls",
    );
}

#[test]
fn a_file_larger_than_the_cache_is_read_again_and_again() {
    let passes = bulk("passes f 700 3");
    let workflow = stream(many(128, 1024), "update", &passes);
    workflow
        .ignoring("f")
        .options(&["--cache", "32MiB"])
        .verify();
}

#[test]
fn one_call_writes_and_one_reads_more_than_the_cache_holds() {
    let script = format!(
        "{} && {} > size && {} && {} >> size",
        bulk("write f 160 163840"),
        bulk("read f 163840"),
        bulk("append a 3 40000 7"),
        bulk("records a 40000"),
    );
    let workflow = Workflow::new("giant").step(Step::sh("one", script).writes(&["*"]));
    workflow.unaudited().options(&["--cache", "32MiB"]).verify();
}

#[test]
fn records_that_several_append_stay_whole_while_the_cache_overflows() {
    let appends =
        "for i in 1 2 3 4; do BULK append a 25 1500 $i & done; wait; BULK records a 1500 > n";
    let script = appends.replace("BULK", &bulk(""));
    let workflow = Workflow::new("appends").step(Step::sh("all", script).writes(&["*"]));
    workflow
        .ignoring("a")
        .unaudited()
        .options(&["--cache", "32MiB"])
        .verify();
}

#[test]
fn blocks_are_rewritten_anywhere_in_a_file_larger_than_the_cache() {
    let rounds = many(300, 5000);
    let script = format!(
        "{}; {} & {} & wait; {} > size",
        bulk("write f 96 1024"),
        bulk(&format!("scatter f 96 {rounds} 1")),
        bulk(&format!("scatter f 96 {rounds} 2")),
        bulk("read f 1024"),
    );
    let workflow = Workflow::new("scatter").step(Step::sh("all", script).writes(&["*"]));
    workflow.unaudited().options(&["--cache", "16MiB"]).verify();
}

#[test]
fn random_operations_of_two_processes_do_what_they_do_without_a_limit() {
    let fsx = program("fsx").display().to_string();
    let operations = many(10_000, 200_000);
    let command = format!("exec '{fsx}' -M -n {operations} -s 7 -l 41943040 file > $OUTSIDE/said");
    let workflow = Workflow::new("fsx").step(Step::sh("fsx", command).writes(&["*"]));
    workflow.unaudited().options(&["--cache", "16MiB"]).verify();
}

#[test]
fn a_file_from_disk_larger_than_the_cache_is_changed_in_place() {
    let content: Vec<u8> = (0..64 * MIB / 8)
        .flat_map(|word| {
            (word * 8 + 1)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .to_le_bytes()
        })
        .collect();
    let script = format!(
        "{}; echo end >> f; wc -c < f > size",
        bulk("scatter f 64 200 3")
    );
    let workflow = Workflow::new("lower")
        .input("f", content)
        .step(Step::sh("change", script).writes(&["*"]));
    workflow.unaudited().options(&["--cache", "16MiB"]).verify();
}

#[test]
fn many_small_files_that_exceed_the_cache_are_all_there() {
    let script = "for i in $(seq 1 2000); do head -c $((i * 13)) /dev/zero | tr '\\0' \"$((i % 10))\" > f$i; done; \
                  cat f* | cksum > sum";
    let workflow = Workflow::new("small").step(Step::sh("all", script).writes(&["*"]));
    workflow.unaudited().options(&["--cache", "16MiB"]).verify();
}

#[test]
fn a_hundred_writers_and_readers_get_on_in_a_small_cache() {
    if plain_only() {
        return;
    }
    let script = format!(
        "for i in $(seq 1 100); do ({} && {} > n$i) & done; wait; cat n* | sort | uniq -c > counts",
        bulk("write w$i 3 64"),
        bulk("read w$i 64"),
    );
    let (scratch, finished) = Workflow::new("crowd")
        .step(Step::sh("crowd", script).writes(&["*"]))
        .permanent(&["counts"])
        .start(&["--cache", "64MiB", "--keep", "permanent"])
        .finish();
    finished.expect_success();
    let counts = std::fs::read_to_string(scratch.data().join("counts")).unwrap_or_default();
    finished.expect(counts.trim() == "100 3145728", &counts);
}

#[test]
fn a_full_store_gives_the_writer_enospc_and_the_session_goes_on() {
    if plain_only() {
        return;
    }
    let script = format!(
        "{}; echo $? > $OUTSIDE/status; rm f; {} && {} > size",
        bulk("write f 128 1024"),
        bulk("write g 24 1024"),
        bulk("read g 1024"),
    );
    let (scratch, finished) = Workflow::new("full")
        .step(Step::sh("fill", script).writes(&["*"]))
        .permanent(&["size"])
        .start(&["--cache", "16MiB", "--store-size", "16MiB"])
        .finish();
    finished.expect_success();
    let read = |name: &str| std::fs::read_to_string(scratch.data().join(name)).unwrap_or_default();
    let status = scratch.note("status");
    finished.expect(status == "28\n", &status);
    finished.expect(read("size") == "25165824\n", &read("size"));
    finished.expect(
        finished.output.contains("takes no more"),
        "the report tells",
    );
}

#[test]
fn a_file_that_nobody_will_read_again_takes_no_room_in_the_store() {
    if plain_only() {
        return;
    }
    let copy =
        |from: &str, to: &str| format!("cp {from} {to} && {}", bulk(&format!("read {to} 64")));
    let (_, finished) = Workflow::new("chain")
        .step(Step::sh("a", bulk("write f0 24 64")).rule(&["f0"], "on_close", "update"))
        .step(
            Step::sh("b", copy("f0", "f1"))
                .reads(&["f0"])
                .rule(&["f1"], "on_close", "update")
                .after("a"),
        )
        .step(
            Step::sh("c", copy("f1", "f2"))
                .reads(&["f1"])
                .rule(&["f2"], "on_close", "update")
                .after("b"),
        )
        .step(
            Step::sh("d", copy("f2", "f3"))
                .reads(&["f2"])
                .writes(&["f3"])
                .after("c"),
        )
        .permanent(&["nothing"])
        .start(&[
            "--cache",
            "32MiB",
            "--store-size",
            "24MiB",
            "--keep",
            "permanent",
        ])
        .finish();
    // All four files are more than cache and store together.
    finished.expect_success();
}

#[test]
fn who_reads_what_was_given_up_gets_an_error_and_the_report_says_why() {
    if plain_only() {
        return;
    }
    let read = bulk("read f 64");
    let script = format!(
        "{}; {} 2> $OUTSIDE/said; echo $? > $OUTSIDE/status",
        bulk("write g 64 1024"),
        read
    );
    let (scratch, finished) = Workflow::new("late")
        .step(Step::sh("a", bulk("write f 8 64")).rule(&["f"], "on_close", "update"))
        .step(Step::sh("b", read).reads(&["f"]).after("a"))
        .step(Step::sh("c", script).writes(&["g"]).after("b"))
        .permanent(&["nothing"])
        .start(&["--cache", "16MiB", "--keep", "permanent"])
        .finish();
    finished.expect_success();
    finished.expect(scratch.note("status") == "1\n", &scratch.note("status"));
    let said = scratch.note("said");
    finished.expect(said.contains("Input/output error"), &said);
    let report = &finished.output;
    finished.expect(report.contains("name this one in its input_stream"), "why");
}

#[test]
fn a_scan_leaves_the_files_that_others_use_in_the_cache() {
    if plain_only() {
        return;
    }
    let script = format!(
        "{}; {}; {} > /dev/null; {}",
        bulk("write hot 3 64"),
        bulk("write scanned 160 1024"),
        bulk("read hot 64"),
        bulk("write other 160 1024"),
    );
    let again = format!("{}; {} > /dev/null", script, bulk("read hot 64"));
    let (_, finished) = Workflow::new("scan")
        .step(Step::sh("all", again).writes(&["*"]))
        .permanent(&["nothing"])
        .start(&["--cache", "32MiB", "--keep", "none"])
        .finish();
    finished.expect_success();
    let back = figure(&finished.output, "store:", "there, ");
    finished.expect(back == 0.0, "nothing of what is used had to come back");
}

#[test]
fn a_writer_that_waits_for_room_can_be_killed_and_the_room_is_free() {
    if plain_only() {
        return;
    }
    let script = format!(
        "{} & w=$!; sleep 0.3; kill -9 $w; wait $w; rm -f f; {} && {} > size",
        bulk("write f 100000 1024"),
        bulk("write g 64 1024"),
        bulk("read g 1024"),
    );
    let (scratch, finished) = Workflow::new("killed")
        .step(Step::sh("all", script).writes(&["*"]))
        .permanent(&["size"])
        .start(&["--cache", "16MiB", "--keep", "permanent"])
        .finish();
    finished.expect_success();
    let size = std::fs::read_to_string(scratch.data().join("size")).unwrap_or_default();
    finished.expect(size == "67108864\n", &size);
}

#[test]
fn records_of_killed_writers_stay_whole_while_the_cache_overflows() {
    if plain_only() {
        return;
    }
    let kills = many(40, 1000);
    let script = "for i in $(seq 1 KILLS); do \
        for w in 1 2 3; do BULK append a 60 300 $((i * 10 + w)) & eval w$w=$!; done; \
        sleep 0.0$((i % 7)); kill -9 $w1; sleep 0.00$((i % 5)); kill -9 $w2; kill -9 $w3; wait; \
        if [ -e a ] || [ $((i % 5)) != 1 ]; then BULK records a 300 >> n || exit 1; fi; \
        [ $((i % 5)) != 0 ] || rm a; done";
    // After a removal all three may be killed before they have made it again.
    let script = script
        .replace("BULK", &bulk(""))
        .replace("KILLS", &kills.to_string());
    let (_, finished) = Workflow::new("killed")
        .step(Step::sh("all", script).writes(&["*"]))
        .start(&["--cache", "16MiB", "--keep", "none", "--continue-on-error"])
        .finish();
    finished.expect_success();
}

#[test]
fn an_interrupt_ends_a_run_whose_writer_waits_for_room() {
    if plain_only() {
        return;
    }
    let command = format!("exec {}", bulk("write f 100000 1024"));
    let run = Workflow::new("interrupted")
        .step(Step::sh("make", command).writes(&["f"]))
        .start(&["--cache", "16MiB", "--keep", "none"]);
    std::thread::sleep(Duration::from_millis(500));
    run.running.signal(Signal::SIGINT);
    let (_, finished) = run.finish();
    finished.expect(!finished.status.success(), "it says that it was ended");
    finished.expect(finished.wall < limit() / 2, "it ended soon");
}

#[test]
fn synced_files_are_the_same_and_databases_survive_a_small_cache() {
    let script = r#"
import os, sqlite3
fd = os.open("synced", os.O_RDWR | os.O_CREAT)
for i in range(24):
    os.write(fd, bytes([i]) * (1 << 20))
    (os.fsync if i % 2 else os.fdatasync)(fd)
os.close(fd)
db = sqlite3.connect("base")
db.execute("pragma synchronous=full")
db.execute("create table t(a integer primary key, b blob)")
for i in range(60):
    with db:
        db.execute("insert into t values(?, ?)", (i, bytes([i]) * 300000))
assert db.execute("pragma integrity_check").fetchone() == ("ok",)
print(db.execute("select count(*), sum(length(b)) from t").fetchone())
"#;
    let workflow = Workflow::new("sync")
        .input("s.py", script)
        .step(Step::sh("all", "python3 s.py > said").writes(&["*"]));
    workflow
        .unaudited()
        .ignoring("base")
        .options(&["--cache", "16MiB"])
        .verify();
}

#[test]
fn many_files_are_mapped_in_turn_that_exceed_the_cache_together() {
    let script = r#"
import mmap, os, zlib
for turn in range(2):
    for i in range(12):
        name = f"m{i}"
        if turn == 0:
            with open(name, "wb") as f:
                f.write(bytes([i + 1]) * (3 << 20) + os.fsencode(name) * 1000)
                f.truncate(4 << 20)
        with open(name, "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
            print(name, zlib.crc32(m))
            m[5000:5003] = b"%3d" % (turn * 100 + i)
        with open(name, "rb") as f:
            print(name, zlib.crc32(f.read()))
"#;
    let workflow = Workflow::new("mapped")
        .input("s.py", script)
        .step(Step::sh("all", "python3 s.py > said").writes(&["*"]));
    workflow.unaudited().options(&["--cache", "16MiB"]).verify();
}

#[test]
fn a_mapping_drives_others_out_of_a_full_cache() {
    let script = r#"
import mmap
for name in "abc":
    with open(name, "wb") as f:
        for i in range(10):
            f.write(bytes([i + 65]) * (1 << 20))
for name in "cab":
    with open(name, "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        print(name, m[5 << 20], len(m))
        m[7 << 20] = 90
"#;
    let workflow = Workflow::new("drives")
        .input("s.py", script)
        .step(Step::sh("all", "python3 s.py > said").writes(&["*"]));
    workflow.unaudited().options(&["--cache", "16MiB"]).verify();
}
