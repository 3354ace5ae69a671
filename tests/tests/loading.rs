//! Programs and libraries that a step makes, run and loaded by another: what
//! the kernel and the dynamic loader look for is found.

use std::io::Write;
use std::process::Command;

use capio_tests::{Step, Workflow};

/// Words that run a command where nothing on `/dev/shm` may run.
const NOEXEC: &[&str] = &[
    "unshare",
    "-m",
    "sh",
    "-c",
    "mount --bind /dev/shm /dev/shm && mount -o remount,bind,noexec /dev/shm && exec \"$@\"",
    "sh",
];

/// Says on the terminal why a test does nothing.
fn skip(why: &str) {
    // Not by a macro: the harness keeps what those print.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

fn may_mount() -> bool {
    let tried = Command::new(NOEXEC[0])
        .args(&NOEXEC[1..])
        .arg("true")
        .status();
    tried.is_ok_and(|status| status.success())
}

#[test]
fn programs_run_where_shared_memory_is_mounted_noexec() {
    if !may_mount() {
        return skip("only root may mount /dev/shm anew");
    }
    let library = "int answer(void) { return 42; }";
    let main = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        int main(int argc, char **argv)
        {
            void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
            int (*answer)(void) = library ? (int (*)(void))dlsym(library, "answer") : NULL;
            if (!answer) return fprintf(stderr, "%s\n", dlerror()), 1;
            return printf("%s says %d\n", argv[0], answer()) < 0;
        }
    "#;
    let build = r#"
        set -e
        mkdir bin lib
        gcc -shared -fPIC -o lib/libanswer.so library.c && gcc -o bin/program main.c -ldl
        printf '#!/bin/sh\necho "$0 got $*"\n' > bin/script && chmod +x bin/script
    "#;
    let run = r#"
        set -e
        bin/program lib/libanswer.so > said
        (cd bin && PATH=.:$PATH && script by its name && ./program ../lib/libanswer.so) >> said
        cp bin/script bin/changing && bin/changing once >> said
        echo 'echo and more' >> bin/changing && bin/changing twice >> said
        cp -p bin/program bin/again && rm bin/program && bin/again lib/libanswer.so >> said
    "#;
    Workflow::new("noexec")
        .input("library.c", library)
        .input("main.c", main)
        .step(
            Step::sh("build", build)
                .reads(&["library.c", "main.c"])
                .writes(&["bin", "lib", "bin/*", "lib/*"]),
        )
        .step(
            Step::sh("run", run)
                .after("build")
                .reads(&["bin/*", "lib/*"])
                .writes(&["said", "bin/*"]),
        )
        .under(NOEXEC)
        .unaudited()
        .verify();
}
