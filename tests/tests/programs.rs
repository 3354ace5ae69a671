//! Programs of every day do under capio what they do on a plain directory, to
//! the byte.

use std::path::Path;

use capio_tests::{Step, Workflow, program};

/// `station,value` lines; the same ones each time.
fn measurements(lines: u32) -> String {
    let mut text = String::from("station,value\n");
    let mut state = 12345_u32;
    for _ in 0..lines {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
        text += &format!("s{},{}\n", state >> 28, (state >> 8) % 10_000);
    }
    text
}

fn python(script: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("programs")
        .join(script);
    format!("exec python3 -B '{}'", script.display())
}

#[test]
fn a_python_step_with_gzip_csv_scandir_and_subprocess() {
    Workflow::new("python")
        .input("measurements.csv", measurements(3000))
        .step(
            Step::sh("analyse", python("step.py"))
                .reads(&["measurements.csv"])
                .writes(&["out*"]),
        )
        .verify();
}

#[test]
fn a_python_step_reads_what_another_step_is_still_writing() {
    let script = r#"
        i=0; { echo station,value
        while [ $i -lt 1500 ]; do echo "s$((i % 7)),$i"; i=$((i + 1)); done; } > measurements.csv"#;
    Workflow::new("python-stream")
        .step(Step::sh("measure", script).rule(&["measurements.csv"], "on_close", "no_update"))
        .step(
            Step::sh("analyse", python("step.py"))
                .reads(&["measurements.csv"])
                .writes(&["out*"]),
        )
        .verify();
}

#[test]
fn text_tools_in_a_shell_loop() {
    let script = r##"
        set -e
        for i in 1 2 3 4 5; do
            awk -v n=$i 'BEGIN { for (k = 1; k <= 400; k++) print (k * 7919 * n) % 1000, "word" k % 13 }' > part.$i
            sort -n part.$i > sorted.$i
            sed 's/word\([0-9]*\)/w\1/' < sorted.$i | grep -v w12 > clean.$i
            cat clean.$i >> all
        done
        sort -m -n clean.1 clean.2 clean.3 > merged
        cut -d' ' -f2 all | sort | uniq -c | sort -rn > counts
        grep -c w1 *.1 clean.* > matches || true
        head -n 20 all | tail -n 5 > middle
        tail -n 3 all > last
        tr a-z A-Z < middle > upper
        paste middle upper > pasted
        wc all sorted.* > sizes
        diff middle upper > difference || true
        split -l 500 all piece.
        cmp all all && comm -12 sorted.1 sorted.2 > common || true
        tee copy1 copy2 < counts > /dev/null
        sed -i 's/w1/W1/' copy1
        find . -name 'clean.*' | sort > found
        ls > listed
        test -s found && test ! -e nothing && [ "$(wc -l < found)" = 5 ]
    "##;
    Workflow::new("text")
        .step(Step::exec("loop", &["bash", "-c", script]).writes(&["*"]))
        .verify();
}

#[test]
fn copying_moving_and_packing() {
    let script = r#"
        set -e
        mkdir -p tree/a/b tree/c
        i=0; while [ $i -lt 300 ]; do echo "line $i of a file that is packed and copied"; i=$((i + 1)); done > tree/a/text
        cp tree/a/text tree/a/b/copy
        ln -s text tree/a/link
        ln tree/a/text tree/c/hard
        chmod 750 tree/c; chmod 600 tree/a/b/copy
        cp -r tree tree2
        cp -a tree tree3
        cp -p tree/a/text kept && cmp kept tree/a/text
        [ kept -nt tree/a/text ] || [ ! kept -ot tree/a/text ]
        tar -c --sort=name --owner=0 --group=0 --mtime=@0 -f packed.tar tree
        tar -t -f packed.tar > contents
        mkdir out && tar -x -f packed.tar -C out
        diff -r tree out/tree
        gzip -n -k tree/a/text && gunzip -c tree/a/text.gz | cmp - tree/a/text
        dd if=tree/a/text of=blocks bs=1000 count=3 skip=2 status=none
        dd if=blocks of=sparse bs=512 seek=10 conv=notrunc status=none
        dd if=/dev/zero of=sparse bs=100 count=1 conv=notrunc status=none
        truncate -s 5000 sparse
        mv tree2 moved && mv kept moved/kept
        rm -r tree3 && rmdir out/none 2> /dev/null || true
        install -m 640 contents installed
        touch -d @1000000000 installed && [ "$(stat -c %Y installed)" = 1000000000 ]
        [ "$(stat -c '%s %a %h' tree/c/hard)" = "$(stat -c '%s 644 2' tree/a/text)" ]
        realpath moved/../tree/a/link | sed 's,.*/tree,tree,' > real
        readlink tree/a/link > target
        du --apparent-size -b moved/kept | cut -f1 > used
        sha256sum tree/a/text moved/a/b/copy > sums && sha256sum -c --quiet sums
    "#;
    Workflow::new("copies")
        .step(Step::sh("copy", script).writes(&["*"]))
        .verify();
}

#[test]
fn extended_attributes_go_from_the_disk_through_steps_and_back() {
    let step = |name| format!("{} {name} > $SAID", python("attributes.py"));
    Workflow::new("attributes")
        .input("raw/reads.txt", "c\nb\na\n".repeat(100))
        .input("raw/untouched", "x")
        .extended("raw", "user.lab", b"blue")
        .extended("raw/reads.txt", "user.origin", b"lane 1\xff")
        .extended("raw/reads.txt", "user.draft", b"yes")
        .extended("raw/untouched", "user.origin", b"lane 2")
        .step(
            Step::sh("make", step("make"))
                .env("SAID", "said.make")
                .rule(&["out/sorted"], "on_termination", "update")
                .writes(&["*"]),
        )
        .step(
            Step::sh("use", step("use"))
                .env("SAID", "said.use")
                .reads(&["out/sorted"])
                .writes(&["moved", "archived", "plain", "copied", "said.use"]),
        )
        .verify();
}

#[test]
fn git_keeps_a_repository() {
    // The index holds inode numbers and times, the pack's name depends on neither.
    let script = r#"
        set -e
        export HOME="$PWD" GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
        export GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'
        git init -q -b trunk repo && cd repo
        git config gc.auto 0
        echo one > file && mkdir sub && echo two > sub/file
        git add . && git commit -q -m first
        git checkout -q -b side && echo three >> file && git commit -q -a -m second
        git checkout -q trunk && echo four > sub/new && git add sub && git commit -q -m third
        git merge -q -m merged side
        git mv sub/file sub/moved && git commit -q -m moved
        git log --format='%h %s' > ../log
        git repack -q -a -d && git fsck --strict 2> ../fsck
        git status --short > ../status
        git diff HEAD~2 --stat > ../stat
        cd .. && git clone -q --no-hardlinks repo clone && git -C clone rev-parse HEAD > head
        git -C repo archive --format=tar HEAD > archive.tar
    "#;
    Workflow::new("git")
        .step(Step::sh("git", script).writes(&["*"]))
        .ignoring("repo/.git/index")
        .ignoring("clone/.git/index")
        .ignoring("clone/.git/config")
        .ignoring("clone/.git/logs")
        .ignoring("clone/.git/packed-refs")
        .verify();
}

#[test]
fn cpp_streams_write_read_behind_the_writer_and_edit_in_place() {
    let streams = program("streams").display().to_string();
    Workflow::new("cpp")
        .step(Step::exec("make", &[&streams, "make", "numbers"]).rule(
            &["numbers"],
            "on_close",
            "no_update",
        ))
        .step(
            Step::sh("sum", format!("exec '{streams}' sum numbers > sum"))
                .reads(&["numbers"])
                .writes(&["sum"]),
        )
        .step(
            Step::sh(
                "edit",
                format!("cp numbers edited && exec '{streams}' edit edited > said"),
            )
            .reads(&["numbers"])
            .writes(&["edited", "said"]),
        )
        .verify();
}

#[test]
fn threads_share_files_and_descriptors() {
    let threads = program("threads").display().to_string();
    Workflow::new("threads")
        .step(Step::exec("threads", &[&threads]).writes(&["*"]))
        .verify();
}

#[test]
fn what_is_written_while_another_process_cuts_the_file_is_not_lost() {
    let cuts = program("cuts").display().to_string();
    Workflow::new("cuts")
        .step(
            Step::sh(
                "cuts",
                format!("'{cuts}' 1500 > said; '{cuts}' 500 map >> said"),
            )
            .writes(&["*"]),
        )
        .verify();
}

#[test]
fn every_change_of_names_is_seen_by_other_processes_at_once() {
    let looks = program("looks").display().to_string();
    let script = format!(
        "cp -r lower $OUTSIDE/lower; mkdir here apart; \
         (cd here; exec '{looks}' $OUTSIDE/one 600) && \
         (cd apart; exec '{looks}' $OUTSIDE/other 600 apart) && \
         (cd lower; exec '{looks}' $OUTSIDE/lower 400 apart)"
    );
    Workflow::new("looks")
        .input("lower/a", "on disk")
        .input("lower/c", vec![b'c'; 9000])
        .input("lower/d/b", "deeper")
        .input("lower/d/deep/a", "deepest")
        .input("lower/e/c", "")
        .step(Step::sh("looks", script).writes(&["*"]))
        .verify();
}

#[test]
fn forked_workers_share_an_output_and_rename_their_parts() {
    let forks = program("forks").display().to_string();
    Workflow::new("forks")
        .step(Step::sh("list", "seq 1 3000 > list").rule(&["list"], "on_close", "no_update"))
        .step(
            Step::exec("square", &[&forks])
                .reads(&["list"])
                .writes(&["squares", "log", "part*"]),
        )
        .verify();
}

#[test]
fn a_file_renamed_into_place_wakes_its_reader() {
    let write = "i=0; while [ $i -lt 50 ]; do echo $i; i=$((i + 1)); done > result.tmp; mv result.tmp result";
    Workflow::new("rename")
        .step(Step::sh("write", write).rule(&["result"], "on_close", "update"))
        .step(
            Step::sh("read", "wc -l < result > lines; test ! -e result.tmp")
                .reads(&["result"])
                .writes(&["lines"]),
        )
        .verify();
}

#[test]
fn a_compiler_builds_a_program_from_generated_sources() {
    let generate = r#"
        printf 'int answer(void);\n' > answer.h
        printf '#include "answer.h"\nint answer(void) { return 42; }\n' > answer.c
        printf '#include <stdio.h>\n#include "answer.h"\nint main(void) { printf("%%d\\n", answer()); return 0; }\n' > main.c"#;
    let build = "cc -c answer.c && ar rcD libanswer.a answer.o && cc main.c -L. -lanswer -o $OUTSIDE/program && $OUTSIDE/program > said";
    Workflow::new("cc")
        .step(Step::sh("generate", generate).rule(
            &["answer.h", "answer.c", "main.c"],
            "on_close",
            "update",
        ))
        .step(
            Step::sh("build", build)
                .reads(&["answer.h", "answer.c", "main.c"])
                .writes(&["*.o", "*.a", "said"]),
        )
        .verify();
}
