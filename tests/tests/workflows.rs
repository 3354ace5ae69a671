//! Whole workflows of real programs.

use std::fs;
use std::path::Path;
use std::process::Command;

use capio_tests::{Running, Scratch, Step, Tree, Workflow, capio, limit, plain_only};

/// The example of `scripts/demo`, with few reads.
#[test]
fn genomics_gives_the_same_variants_as_step_after_step() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/genomics");
    let prepared = Scratch::new();
    let prepare = "set -e; g=/usr/share/doc/bowtie2/examples/reference/lambda_virus.fa; \
        if [ -e $g ]; then cp $g lambda.fa; else zcat $g.gz > lambda.fa; fi; bwa index lambda.fa; samtools faidx lambda.fa";
    let mut shell = Command::new("sh");
    shell.args(["-c", prepare]).current_dir(prepared.data());
    let ready = Running::start(shell, &prepared, "prepare").finish(limit());
    ready.expect(
        ready.status.success(),
        "the genome is missing: run scripts/setup demo",
    );
    let run = |options: &[&str]| {
        let scratch = Scratch::new();
        let mut copy = Command::new("cp");
        copy.arg("-a")
            .arg(format!("{}/.", prepared.data().display()))
            .arg(scratch.data());
        assert!(copy.status().expect("cp starts").success());
        let mut command = Command::new(capio());
        command
            .arg("run")
            .args(options)
            .arg("--dir")
            .arg(scratch.data())
            .arg("-c")
            .arg(example.join("genomics.json"))
            .arg(example.join("workflow.toml"))
            .env("PAIRS", "4000");
        let finished = Running::start(command, &scratch, "capio").finish(limit());
        finished.expect_success();
        scratch
    };
    let wanted = run(&["--sequential", "--in-place"]);
    let streamed = if plain_only() {
        run(&["--sequential", "--in-place"])
    } else {
        run(&["--cache", "256M"])
    };
    // What streams between the steps is not permanent.
    let between: Vec<String> = fs::read_dir(wanted.data())
        .expect("a directory")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            [".fq", ".sam", ".vcf"]
                .iter()
                .any(|suffix| name.ends_with(suffix))
        })
        .collect();
    assert!(between.len() >= 8, "{between:?}");
    let [wanted, found] = [&wanted, &streamed].map(|scratch| Tree::read(&scratch.data(), &between));
    let differences = wanted.differences(&found);
    assert!(differences.is_empty(), "{differences}");
    assert!(
        !found.content("a.called.txt").is_empty(),
        "no variant was called"
    );
}

/// Sixteen parts are split, sorted at once and merged, in a folder of their own.
#[test]
fn many_instances_share_out_a_folder_of_parts() {
    let split =
        "mkdir parts; seq 1 20000 | awk '{ print ($1 * 7919) % 100003 > (\"parts/\" NR % 16) }'";
    let sort = "mkdir -p sorted; for i in $(seq $CAPIO_INSTANCE 4 15); do sort -n parts/$i > sorted/$i.tmp && mv sorted/$i.tmp sorted/$i; done";
    let merge = "sort -m -n $(seq -f sorted/%g 0 15) > merged; wc -l < merged > lines";
    Workflow::new("parts")
        .step(
            Step::sh("split", split)
                .rule(&["parts/*"], "on_close", "no_update")
                .writes(&["parts"]),
        )
        .step(
            Step::sh("sort", sort)
                .instances(4)
                .reads(&["parts/*"])
                .rule(&["sorted/*"], "on_close", "update"),
        )
        .step(
            Step::sh("merge", merge)
                .reads(&["sorted/*"])
                .writes(&["merged", "lines"]),
        )
        .verify();
}

/// Tools hand one file from one to the next, each with its own way of I/O.
#[test]
fn a_long_chain_of_different_tools() {
    Workflow::new("tools")
        .step(Step::sh("seq", "seq 1 30000 > a").rule(&["a"], "on_close", "no_update"))
        .step(
            Step::sh("awk", "awk '{ print $1 * 2 }' a > b")
                .reads(&["a"])
                .rule(&["b"], "on_close", "no_update"),
        )
        .step(Step::sh("sed", "sed 's/^/n /' < b > c").reads(&["b"]).rule(
            &["c"],
            "on_close",
            "no_update",
        ))
        .step(Step::sh("gzip", "gzip -n < c > d.gz").reads(&["c"]).rule(
            &["d.gz"],
            "on_close",
            "no_update",
        ))
        .step(
            Step::sh("gunzip", "gunzip < d.gz > e")
                .reads(&["d.gz"])
                .rule(&["e"], "on_close", "no_update"),
        )
        .step(
            Step::sh(
                "python",
                "python3 -c 'import sys\nfor line in open(\"e\"): print(line.split()[1])' > f",
            )
            .reads(&["e"])
            .rule(&["f"], "on_close", "no_update"),
        )
        .step(
            Step::sh("grep", "grep 7 f > g")
                .reads(&["f"])
                .rule(&["g"], "on_close", "no_update"),
        )
        .step(
            Step::sh("cut", "cut -c 1-3 g | tee h | tail -n 100 > i")
                .reads(&["g"])
                .rule(&["h", "i"], "on_close", "update"),
        )
        .step(
            Step::sh("tar", "tar -c --mtime=@0 --owner=0 --group=0 -f j.tar h i")
                .reads(&["h", "i"])
                .rule(&["j.tar"], "on_close", "update"),
        )
        .step(
            Step::sh("untar", "tar -x -O -f j.tar i > k")
                .reads(&["j.tar"])
                .rule(&["k"], "on_close", "update"),
        )
        .step(
            Step::sh(
                "sort",
                "sort -u k > l; cksum a b c d.gz e f g h i j.tar > sums",
            )
            .reads(&["k", "a", "b", "c", "d.gz", "e", "f", "g", "h", "i", "j.tar"])
            .writes(&["l", "sums"]),
        )
        .verify();
}
