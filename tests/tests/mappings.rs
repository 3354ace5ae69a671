//! Mapped files, and programs that lie in the directory: what the kernel itself
//! must be able to reach works under capio as on a plain directory.

use capio_tests::{Step, Workflow, oracle, program};

#[test]
fn mappings_show_change_and_refuse_what_the_kernel_says() {
    oracle("posix_mmap");
}

#[test]
fn mappings_are_shared_resized_and_cut_off_as_on_disk() {
    oracle("posix_mmap_sizes");
}

#[test]
fn an_open_file_handed_over_a_socket_stays_the_same_open_file() {
    oracle("posix_handed");
}

#[test]
fn a_socket_in_the_directory_is_bound_and_found_by_its_name() {
    oracle("posix_sockets");
}

/// Operations of one exercise: 200,000 in four of them, a million when asked.
fn operations() -> u32 {
    if std::env::var_os("CAPIO_TEST_LONG").is_some() {
        250_000
    } else {
        50_000
    }
}

/// One file, at random; the program compares every byte with its own copy.
fn exercise(options: &str) -> Workflow {
    let fsx = program("fsx").display().to_string();
    let command = format!("exec '{fsx}' {options} file > $OUTSIDE/said");
    Workflow::new("fsx").step(Step::sh("fsx", command).writes(&["*"]))
}

#[test]
fn a_file_mapped_read_written_and_cut_by_two_processes_holds_what_it_should() {
    for seed in 1..=4 {
        let options = format!("-s {seed} -n {}", operations());
        exercise(&options).unaudited().verify();
    }
}

#[test]
fn a_file_read_written_and_cut_by_two_processes_without_mappings_holds_what_it_should() {
    let options = format!("-M -s 5 -n {}", operations());
    exercise(&options).unaudited().verify();
}

#[test]
fn a_file_of_many_chunks_holds_what_it_should() {
    let options = format!("-l 16777216 -s 6 -n {}", operations() / 5);
    exercise(&options).unaudited().verify();
}

#[test]
fn a_file_mapped_by_one_process_alone_holds_what_it_should_and_no_call_is_missed() {
    exercise("-1 -s 7 -n 1500").verify();
}

#[test]
fn a_step_runs_the_program_and_loads_the_library_that_another_has_compiled() {
    let library = r#"
        int answer(int of) { return of * 6; }
    "#;
    let main = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        #include <string.h>
        int main(int argc, char **argv)
        {
            void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
            if (!library) return fprintf(stderr, "%s\n", dlerror()), 1;
            int (*answer)(int) = (int (*)(int))dlsym(library, "answer");
            if (!answer) return fprintf(stderr, "%s\n", dlerror()), 2;
            FILE *out = fopen("answer", "w");
            fprintf(out, "%s says %d\n", strrchr(argv[0], '/') + 1, answer(7));
            return fclose(out) != 0;
        }
    "#;
    let build = "gcc -shared -fPIC -o libanswer.so library.c && gcc -O1 -o program main.c -ldl && ls -l program | cut -c 1-10 > mode";
    // Run by a relative and an absolute path, through PATH, as a copy and by env.
    let run = r#"
        set -e
        ./program ./libanswer.so && mv answer answer.1
        "$PWD/program" "$PWD/libanswer.so" && mv answer answer.2
        cp program copy && mkdir bin && mv copy bin/renamed
        env ./bin/renamed ./libanswer.so && mv answer answer.3
        cd bin && ../program ../libanswer.so && mv answer ../answer.4
        cd .. && if ./program ./missing.so 2> /dev/null; then exit 1; fi
        chmod -x bin/renamed && if ./bin/renamed ./libanswer.so 2> /dev/null; then exit 1; fi
        (exec ./program ./libanswer.so) && cat answer answer.? > answers
    "#;
    Workflow::new("compiled")
        .input("library.c", library)
        .input("main.c", main)
        .step(
            Step::sh("build", build)
                .reads(&["library.c", "main.c"])
                .writes(&["libanswer.so", "program", "mode"]),
        )
        .step(
            Step::sh("run", run)
                .reads(&["libanswer.so", "program"])
                .writes(&["answer*", "bin*", "copy"]),
        )
        .verify();
}

#[test]
fn scripts_that_a_step_writes_are_run_by_name() {
    let write = r##"
        set -e
        printf '#!/bin/sh\necho "$0 got $# words: $*"\nread line && echo "and the line $line"\n' > tool
        printf '#!/usr/bin/python3 -B\nimport sys\nprint(sys.argv[1:], sum(map(int, sys.argv[1:])))\n' > sum.py
        printf '#!/usr/bin/awk -f\n{ n += $1 }\nEND { print n }\n' > add.awk
        printf 'echo no first line, $1\n' > bare
        chmod 755 tool sum.py add.awk bare
    "##;
    let run = r#"
        set -e
        echo yes | ./tool a 'b c' > said
        echo two | env ./tool one >> said
        ./sum.py 1 2 39 >> said
        seq 1 10 | ./add.awk >> said
        ./bare here >> said
        find . -name tool -exec {} found \; < sum.py >> said
        echo 1 2 3 | xargs ./sum.py >> said
        python3 -c 'import subprocess; print(subprocess.run(["./tool", "x"], input=b"p\n", capture_output=True).stdout)' >> said
        cp -p tool again && ./again < tool >> said
        chmod 644 again && if ./again 2> /dev/null; then exit 1; fi
    "#;
    Workflow::new("scripts")
        .step(Step::sh("write", write).writes(&["tool", "sum.py", "add.awk", "bare"]))
        .step(
            Step::sh("run", run)
                .reads(&["tool", "sum.py", "add.awk", "bare"])
                .writes(&["said", "again"]),
        )
        .verify();
}

/// The interpreter is found by the whole path, as the kernel wants it, and is a
/// script of the directory itself.
#[test]
fn scripts_whose_interpreter_is_a_script_run_by_every_way_to_start_a_program() {
    let run = r##"
        set -e
        printf '#!/bin/sh\necho "${0##*/} got $*"\n' > interp
        printf '#!%s/interp -x  y \nbody\n' "$PWD" > script
        printf '#!%s/loop\n' "$PWD" > loop
        printf '#!/no/such/interpreter\n' > bad
        printf 'all: ; @./script made\n' > Makefile
        chmod +x interp script loop bad
        ./script by the shell > said
        make -s >> said
        env -i ./script without environment >> said
        python3 -c 'import os; os.waitpid(os.posix_spawn("./script", ["script", "spawned"], {}), 0)' >> said
        PATH=.:$PATH python3 -c 'import os; os.waitpid(os.posix_spawnp("script", ["script", "found"], os.environ), 0)' >> said
        PATH=.:$PATH script searched >> said
        perl -e 'system("./script", "perl")' >> said
        for broken in ./loop ./bad; do
            if python3 -c 'import os, sys; os.execv(sys.argv[1], ["x"])' $broken 2> told; then exit 1; fi
            tail -n 1 told >> said
        done
        rm script loop told
    "##;
    Workflow::new("nested")
        .step(Step::sh("run", run).writes(&["*"]))
        .verify();
}

/// Two writers in one step, started at once, and a third step that looks: what
/// each row holds is known, in which order they came is not.
#[test]
fn an_sqlite_database_in_wal_mode_keeps_the_rows_of_two_writers_at_once() {
    let script = r#"
import sqlite3, sys
who = int(sys.argv[1])
db = sqlite3.connect("rows.db", timeout=40, isolation_level=None)
assert db.execute("pragma journal_mode=wal").fetchone()[0] == "wal"
db.execute("pragma synchronous=normal")
if who == 0:
    db.execute("create table rows(who int, n int, text text, primary key(who, n))")
    db.execute("create index texts on rows(text)")
for n in range(60 if who else 0):
    db.execute("begin immediate")
    for k in range(10):
        db.execute("insert into rows values(?, ?, ?)", (who, n * 10 + k, f"{n % 7} of {who} " * 20))
    db.execute("rollback" if n % 10 == 9 else "commit")
    seen = db.execute("select count(*) from rows where who = ?", (who,)).fetchone()[0]
    assert seen == 10 * (n + 1 - (n + 1) // 10), (who, n, seen)
db.close()
"#;
    let write = r#"
        set -e
        /usr/bin/python3 -B write.py 0
        /usr/bin/python3 -B write.py 1 & first=$!
        /usr/bin/python3 -B write.py 2 & second=$!
        wait $first
        wait $second
        /usr/bin/python3 -B write.py 3
    "#;
    let look = r#"
        set -e
        sqlite3 rows.db 'pragma integrity_check; pragma journal_mode;' > state
        sqlite3 rows.db 'select who, n, text from rows order by who, n' > rows
        sqlite3 rows.db 'select who, count(*), sum(n) from rows where text like "3 of%" group by who order by who' > counts
    "#;
    Workflow::new("sqlite")
        .input("write.py", script)
        .step(
            Step::sh("write", write)
                .reads(&["write.py"])
                .writes(&["rows.db", "rows.db-*"]),
        )
        .step(Step::sh("look", look).reads(&["rows.db"]).writes(&[
            "state",
            "rows",
            "counts",
            "rows.db-*",
        ]))
        .ignoring("rows.db")
        .verify();
}

/// Small windows let git map its packs in many pieces.
#[test]
fn git_collects_garbage_and_finds_its_objects_in_mapped_packs() {
    let script = r#"
        set -e
        export HOME="$PWD" GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
        export GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'
        git init -q -b trunk repo && cd repo
        git config gc.auto 0 && git config pack.threads 1
        git config core.packedGitWindowSize 64k && git config core.packedGitLimit 1m
        for n in 1 2 3 4 5 6 7 8; do
            seq $n 3 60000 > numbers
            seq $n 7 9000 | sha256sum > sum.$n
            seq $n $((n * n * n)) | sort -R --random-source=numbers > shuffled.$n
            git add . && git commit -q -m "commit $n"
        done
        git branch dead && git checkout -q dead && echo dead > sum.1 && git commit -q -a -m dead
        git checkout -q trunk && git branch -q -D dead
        git reflog expire --expire=all --all
        git gc -q --prune=now && git gc -q --aggressive --prune=now
        git fsck --full --strict > ../fsck 2>&1
        git count-objects -v | grep -v size > ../objects
        git log --stat --format='%h %s' > ../log
        git blame -s shuffled.3 | md5sum > ../blame
        git verify-pack -v .git/objects/pack/*.idx | sed '$d' | sort > ../packed
        git show trunk~5:numbers | md5sum > ../old
        git diff trunk~7 trunk -- numbers | md5sum > ../diff
    "#;
    Workflow::new("gc")
        .step(Step::sh("git", script).writes(&["*"]))
        .ignoring("repo/.git/index")
        .verify();
}

#[test]
fn numpy_arrays_are_mapped_filled_and_read_by_different_steps() {
    let create = r#"
import numpy as np
a = np.memmap("array", dtype="f8", mode="w+", shape=(700, 1000))
a[:] = np.arange(1000)
a[10] *= np.arange(1000)
a.flush()
b = np.lib.format.open_memmap("array.npy", mode="w+", dtype="i4", shape=(300, 400))
b[::3] = 7
del a, b
"#;
    let change = r#"
import numpy as np
a = np.memmap("array", dtype="f8", mode="r+", shape=(700, 1000))
a[:, 500] = -a[:, 499]
view = np.memmap("array", dtype="f8", mode="r", offset=8 * 1000 * 10, shape=(1, 1000))
assert view[0, 500] == -499.0 ** 2
private = np.memmap("array", dtype="f8", mode="c", shape=(700, 1000))
private[:] = 0
a.flush()
b = np.load("array.npy", mmap_mode="r+")
b[1::3] = np.arange(400)
b.flush()
grown = np.memmap("grown", dtype="u1", mode="w+", offset=5000, shape=(3000,))
grown[-1] = 1
"#;
    let read = r#"
import numpy as np
a = np.memmap("array", dtype="f8", mode="r").reshape(700, 1000)
b = np.load("array.npy", mmap_mode="r")
with open("sums", "w") as out:
    print(a.sum(), a[10].sum(), a[:, 500].sum(), b.sum(), b[4, 399], file=out)
    print(np.fromfile("grown", dtype="u1").nonzero(), file=out)
"#;
    let python = |script: &str| format!("exec /usr/bin/python3 -B {script}");
    Workflow::new("numpy")
        .input("create.py", create)
        .input("change.py", change)
        .input("read.py", read)
        .step(
            Step::sh("create", python("create.py"))
                .reads(&["create.py"])
                .writes(&["array", "array.npy"]),
        )
        .step(
            Step::sh("change", python("change.py"))
                .after("create")
                .reads(&["change.py"])
                .writes(&["array", "array.npy", "grown"]),
        )
        .step(
            Step::sh("read", python("read.py"))
                .reads(&["array", "array.npy", "grown", "read.py"])
                .writes(&["sums"]),
        )
        .verify();
}

#[test]
fn hdf5_files_are_written_grown_and_read_by_different_steps() {
    let write = r#"
import h5py, numpy as np
with h5py.File("data.h5", "w") as f:
    f.attrs["title"] = "measured"
    plain = f.create_dataset("plain", data=np.arange(200000.0))
    packed = f.create_dataset("group/packed", (0, 100), maxshape=(None, 100), chunks=(64, 100), compression="gzip", shuffle=True, dtype="i8")
    for part in range(8):
        packed.resize(packed.shape[0] + 100, axis=0)
        packed[-100:] = np.arange(100 * 100).reshape(100, 100) * part
    f["words"] = np.array([b"one", b"two", b"three"])
    f.flush()
with h5py.File("data.h5", "r+") as f:
    f["plain"][1000:2000] = -1
    del f["words"]
    f["link"] = h5py.SoftLink("/plain")
"#;
    let read = r#"
import h5py, numpy as np
with h5py.File("data.h5", "r") as f, open("told", "w") as out:
    f.visititems(lambda name, item: print(name, getattr(item, "shape", None), file=out))
    print(f.attrs["title"], f["link"][:].sum(), f["group/packed"][::7].sum(), file=out)
    try:
        f["plain"][0] = 1
    except Exception as refused:
        print("refused", file=out)
with h5py.File("data.h5", "r") as f, h5py.File("copy.h5", "w", libver="latest") as copy:
    f.copy("group", copy)
    copy["mean"] = f["plain"][:].mean()
with h5py.File("copy.h5", "r") as copy, open("told", "a") as out:
    print(copy["mean"][()], copy["group/packed"][:, ::9].sum(), file=out)
"#;
    let python = |script: &str| format!("exec /usr/bin/python3 -B {script}");
    Workflow::new("hdf5")
        .input("write.py", write)
        .input("read.py", read)
        .step(
            Step::sh("write", python("write.py"))
                .reads(&["write.py"])
                .writes(&["data.h5"]),
        )
        .step(
            Step::sh("read", python("read.py"))
                .reads(&["data.h5", "read.py"])
                .writes(&["told", "copy.h5"]),
        )
        // In the newest format a file holds the time it was made.
        .ignoring("copy.h5")
        .verify();
}

/// Nothing can be preloaded into a static program: the kernel serves it alone.
#[test]
fn a_static_program_reads_and_writes_the_files_it_is_started_with() {
    let source = r#"
        #include <ctype.h>
        #include <sys/stat.h>
        #include <unistd.h>
        int main(void)
        {
            char buffer[700];
            struct stat st;
            ssize_t n;
            while ((n = read(0, buffer, sizeof buffer)) > 0) {
                for (ssize_t i = 0; i < n; i++) buffer[i] = (char)toupper(buffer[i]);
                if (write(1, buffer, (size_t)n) != n) return 1;
            }
            return n != 0 || fstat(0, &st) != 0 || lseek(0, 0, SEEK_CUR) != st.st_size;
        }
    "#;
    let build = "gcc -static -O1 -o $OUTSIDE/upper upper.c && seq -f 'line %g' 4000 > lines";
    let run = r#"
        set -e
        $OUTSIDE/upper < lines > all
        { read first; read second; $OUTSIDE/upper; echo after; } < all > rest
        { echo before; $OUTSIDE/upper < lines; echo between; $OUTSIDE/upper < lines; echo after; } > twice
        echo first > log && $OUTSIDE/upper < rest >> log && echo last >> log
        env -i $OUTSIDE/upper < log > again
        cmp all lines | cut -c 1-30 > differ || true
    "#;
    Workflow::new("static")
        .input("upper.c", source)
        .step(
            Step::sh("build", build)
                .reads(&["upper.c"])
                .writes(&["lines"]),
        )
        .step(
            Step::sh("run", run)
                .after("build")
                .reads(&["lines"])
                .writes(&["all", "rest", "twice", "log", "again", "differ"]),
        )
        .unaudited()
        .verify();
}
