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

/// A library in two layers, a plug-in, and a program that wants them.
fn objects() -> Workflow {
    let layer = "int layer(void) { return LAYER; }";
    let answer = "int layer(void); int answer(void) { return layer() * 6; }";
    let main = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        #include <stdlib.h>
        int answer(void);
        int main(int argc, char **argv)
        {
            const char *path = getenv("LD_LIBRARY_PATH");
            printf("%d, by %s", answer(), path ? path : "no path");
            for (int i = 1; i < argc; i++) {
                void *plugin = dlopen(argv[i], RTLD_NOW);
                int (*layer)(void) = plugin ? (int (*)(void))dlsym(plugin, "plugged") : NULL;
                if (!layer) return printf("%s\n", dlerror()), 1;
                printf(", plugged %d", layer());
            }
            return puts("") < 0;
        }
    "#;
    let plugin = "int layer(void); int plugged(void) { return -layer(); }";
    Workflow::new("libraries")
        .input("src/layer.c", layer)
        .input("src/answer.c", answer)
        .input("src/plugin.c", plugin)
        .input("src/main.c", main)
}

/// How to build them in the working directory; `$1`: the search path that the
/// objects get, of which kind `$2` says.
const BUILD: &str = r#"
    set -e
    build() {
        mkdir -p lib bin
        gcc -shared -fPIC -DLAYER=${3:-7} -o lib/liblayer.so.1.0 -Wl,-soname,liblayer.so.1 src/layer.c
        ln -sf liblayer.so.1.0 lib/liblayer.so.1
        gcc -shared -fPIC -o lib/libanswer.so -Wl,-soname,libanswer.so "-Wl,-rpath,$1" "-Wl,$2" src/answer.c -Wl,--no-as-needed lib/liblayer.so.1
        gcc -shared -fPIC -o lib/plugin.so "-Wl,-rpath,$1" "-Wl,$2" src/plugin.c -Wl,--no-as-needed lib/liblayer.so.1
        gcc -o bin/program "-Wl,-rpath,$1" "-Wl,$2" src/main.c lib/libanswer.so -Wl,-rpath-link,lib -ldl
    }
"#;

/// `build` (a line that calls the function) in one step, `run` in the next.
fn verify(build: &str, run: &str) {
    objects()
        .step(
            Step::sh("build", format!("{BUILD}\n{build}"))
                .reads(&["src/*"])
                .writes(&["lib", "bin", "lib/*", "bin/*"]),
        )
        .step(
            Step::sh("run", format!("set -e\n{run}"))
                .after("build")
                .reads(&["lib/*", "bin/*", "src/*"])
                .writes(&["said*", "lib/*", "moved*", "other*"]),
        )
        .ignoring("bin")
        .ignoring("lib")
        .ignoring("moved")
        // The loader searches past the library: that is the point.
        .unaudited()
        .verify();
}

#[test]
fn a_program_finds_the_libraries_beside_it_by_its_own_search_path() {
    let run = r#"
        bin/program > said
        (cd lib && ../bin/program ../lib/plugin.so "$PWD/plugin.so") >> said
        python3 -c 'import subprocess; subprocess.run(["bin/program"], check=True)' >> said
        env -i bin/program lib/plugin.so >> said
        mkdir moved && cp -a bin lib moved && rm -r bin/program lib/liblayer* && moved/bin/program >> said
        gcc -shared -fPIC -DLAYER=8 -o moved/lib/liblayer.so.1.0 -Wl,-soname,liblayer.so.1 src/layer.c
        moved/bin/program moved/lib/plugin.so >> said
        rm moved/lib/liblayer.so.1 && if moved/bin/program 2> /dev/null; then exit 1; fi
    "#;
    verify("build '$ORIGIN/../lib' --enable-new-dtags", run);
    verify("build '$ORIGIN/../lib:$ORIGIN' --disable-new-dtags", run);
}

#[test]
fn a_program_finds_the_libraries_of_a_directory_that_it_names_in_full() {
    let run = "bin/program > said; bin/program $PWD/lib/plugin.so >> said";
    verify("build \"$PWD/lib\" --enable-new-dtags", run);
    verify("build \"$PWD/lib\" --disable-new-dtags", run);
}

#[test]
fn programs_find_libraries_by_the_path_in_their_environment() {
    let run = r#"
        if bin/program 2> /dev/null; then exit 1; fi
        LD_LIBRARY_PATH=lib bin/program > said
        export LD_LIBRARY_PATH=/nowhere:lib:
        bin/program plugin.so >> said
        cp bin/program $OUTSIDE/program && $OUTSIDE/program plugin.so >> said
        sh -c 'bin/program; echo $LD_LIBRARY_PATH' >> said
        python3 -c 'import os; os.waitpid(os.posix_spawn("bin/program", ["program", "plugin.so"], os.environ), 0)' >> said
        python3 -c 'import ctypes; print(ctypes.CDLL("plugin.so").plugged())' >> said
        mv lib other && if bin/program 2> /dev/null; then exit 1; fi
        LD_LIBRARY_PATH=other bin/program >> said
        gcc -shared -fPIC -DLAYER=9 -o other/new -Wl,-soname,liblayer.so.1 src/layer.c
        mv other/new other/liblayer.so.1 && LD_LIBRARY_PATH=other bin/program >> said
    "#;
    verify("build /nowhere --enable-new-dtags", run);
}

/// What a program finds out about itself, and what it finds from there.
fn self_aware() -> Workflow {
    let source = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <fcntl.h>
        #include <limits.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/stat.h>
        #include <sys/auxv.h>
        #include <unistd.h>
        static const char *below(const char *path, const char *top)
        {
            size_t n = strlen(top);
            return path && !strncmp(path, top, n) ? path + n : path ? path : "nothing";
        }
        static void look(const char *from, char *path)
        {
            char *slash = strrchr(path, '/'), line[100] = "nothing\n";
            strcpy(slash, "/../share/data");
            FILE *data = fopen(path, "r");
            if (data) fgets(line, sizeof line, data);
            printf("beside %s: %s", from, line);
        }
        int main(int argc, char **argv)
        {
            char path[PATH_MAX] = "", own[64], magic[4] = "";
            struct stat exe, file;
            if (argc > 2) unlink(argv[2]);
            snprintf(own, sizeof own, "/proc/%d/exe", getpid());
            ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
            printf("%zd %s\n", n - (ssize_t)strlen(argv[1]), below(path, argv[1]));
            printf("short: %zd\n", readlink(own, own, 3));
            int fd = open("/proc/self/exe", O_RDONLY);
            printf("starts with ELF: %d\n", read(fd, magic, 4) == 4 && !memcmp(magic + 1, "ELF", 3));
            if (argc > 2) return 0;
            printf("real: %s\n", below(realpath("/proc/self/exe", NULL), argv[1]));
            printf("is the file: %d\n", !stat("/proc/self/exe", &exe) && !stat(path, &file) && exe.st_ino == file.st_ino && exe.st_dev == file.st_dev);
            printf("is a link: %d\n", !lstat("/proc/self/exe", &exe) && S_ISLNK(exe.st_mode));
            look("/proc/self/exe", path);
            if (strstr(argv[0], "bin/")) look("the loader's name", strcpy(path, (char *)getauxval(AT_EXECFN)));
            return 0;
        }
    "#;
    let build = "mkdir bin share && echo found > share/data && gcc -o bin/self self.c";
    let run = r#"
        set -e
        bin/self "$PWD" > said
        (cd /tmp && "$OLDPWD/bin/self" "$OLDPWD") >> said
        ln -s bin/self link && ./link "$PWD" >> said && rm link
        cp bin/self again && ./again "$PWD" again >> said
    "#;
    Workflow::new("self")
        .input("self.c", source)
        .step(
            Step::sh("build", build)
                .reads(&["self.c"])
                .writes(&["bin", "share", "bin/*", "share/*"]),
        )
        .step(
            Step::sh("run", run)
                .after("build")
                .reads(&["bin/*", "share/*"])
                .writes(&["said", "again"]),
        )
}

#[test]
fn a_program_knows_its_own_path_and_finds_its_data_from_there() {
    self_aware().verify();
}

#[test]
fn a_program_knows_its_own_path_where_shared_memory_is_mounted_noexec() {
    if !may_mount() {
        return skip("only root may mount /dev/shm anew");
    }
    self_aware().under(NOEXEC).unaudited().verify();
}
