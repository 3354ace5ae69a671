//! Asynchronous I/O: what the kernel, or a thread of libc, does by itself finds
//! the bytes of the program, or the user is told.

use std::fs;
use std::io::Write;
use std::process::Command;

use capio_tests::{Scratch, Step, Workflow, oracle_unaudited, plain_only, program};

#[test]
fn asynchronous_reads_and_writes_find_what_plain_ones_do() {
    oracle_unaudited("posix_async");
}

/// Says on the terminal why a test does nothing.
fn skip(why: &str) {
    // Not by a macro: the harness keeps what those print.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Whether fio is there and `engine` works on this machine: a container may
/// forbid rings.
fn has_engine(engine: &str) -> bool {
    let scratch = Scratch::new();
    let probe = Command::new("fio")
        .args(["--name=probe", "--size=4k", "--rw=write"])
        .arg(format!("--ioengine={engine}"))
        .current_dir(scratch.data())
        .output();
    probe.is_ok_and(|probe| probe.status.success())
}

/// One engine of fio writes at random, reads and checks what it has written,
/// grows a second file, and leaves files that another step can read.
fn exercise(engine: &str) {
    if !has_engine(engine) {
        return skip(&format!(
            "fio with {engine} does not work here: run scripts/setup test"
        ));
    }
    let fio = format!(
        "fio --ioengine={engine} --iodepth=8 --bs=4k-64k --bsrange=4k-64k --verify=crc32c \
         --verify_fatal=1 --verify_state_save=0 --randrepeat=1 --fallocate=none \
         --output=$OUTSIDE/said.$CAPIO_APP_NAME"
    );
    let write = format!(
        "{fio} --name=random --filename=random --size=8M --rw=randrw && \
         {fio} --name=grown --filename=grown --size=3M --rw=write --overwrite=0 --file_append=0"
    );
    let check = format!(
        "{fio} --name=check --filename=grown --size=3M --rw=read --verify_only && \
         stat -c '%n %s' random grown > sizes && cmp random copy && rm copy"
    );
    Workflow::new("engines")
        .step(Step::sh("write", format!("{write} && cp random copy")).writes(&["*"]))
        .step(
            Step::sh("check", check)
                .reads(&["random", "grown", "copy"])
                .writes(&["sizes"]),
        )
        .ignoring("random")
        .ignoring("grown")
        .unaudited()
        .verify();
}

#[test]
fn fio_finds_every_block_by_plain_reads_and_writes() {
    exercise("psync");
    exercise("pvsync2");
}

#[test]
fn fio_finds_every_block_by_mappings() {
    exercise("mmap");
}

#[test]
fn fio_finds_every_block_by_linux_aio() {
    exercise("libaio");
}

#[test]
fn fio_finds_every_block_by_posix_aio() {
    exercise("posixaio");
}

#[test]
fn fio_finds_every_block_by_io_uring() {
    exercise("io_uring");
}

/// liburing's own system calls are seen by nobody, but a program asks it for a
/// ring by name.
#[test]
fn a_program_that_uses_liburing_finds_its_bytes() {
    let source = r#"
        #include <fcntl.h>
        #include <liburing.h>
        #include <stdio.h>
        #include <string.h>
        static int run(struct io_uring *ring) {
            struct io_uring_cqe *done;
            if (io_uring_submit(ring) != 1 || io_uring_wait_cqe(ring, &done)) return -1;
            int result = done->res;
            io_uring_cqe_seen(ring, done);
            return result;
        }
        int main(void) {
            struct io_uring ring;
            char text[32] = "";
            if (io_uring_queue_init(4, &ring, 0)) return 77;
            int in = open("in", O_RDONLY), out = open("out", O_WRONLY | O_CREAT, 0644);
            io_uring_prep_read(io_uring_get_sqe(&ring), in, text, sizeof text, 3);
            if (run(&ring) != 6 || strcmp(text, "lines\n")) return 1;
            io_uring_prep_write(io_uring_get_sqe(&ring), out, text, 6, 0);
            if (run(&ring) != 6) return 2;
            io_uring_queue_exit(&ring);
            return 0;
        }
    "#;
    if !fs::exists("/usr/include/liburing.h").unwrap_or(false) {
        return skip("liburing is not installed: run scripts/setup test");
    }
    let write = "printf '1: lines\\n' > in && gcc -o $OUTSIDE/ring ring.c -luring";
    // A container may forbid rings.
    let run = "$OUTSIDE/ring || { [ $? -eq 77 ] && echo lines > out; }";
    Workflow::new("liburing")
        .input("ring.c", source)
        .step(Step::sh("write", write).reads(&["ring.c"]).writes(&["in"]))
        .step(
            Step::sh("run", run)
                .after("write")
                .reads(&["in"])
                .writes(&["out"]),
        )
        .unaudited()
        .verify();
}

/// What no door sees, a statically linked liburing say, may not end as a good
/// result.
#[test]
fn bytes_that_no_door_has_seen_fail_the_run() {
    if plain_only() {
        return;
    }
    let missed = program("missed").display().to_string();
    let script = format!("'{missed}' pwrite f; cat f > content");
    let (_, finished) = Workflow::new("unseen")
        .step(Step::sh("work", script).writes(&["*"]))
        .start(&[])
        .finish();
    finished.expect(finished.status.code() == Some(5), "the run passes for good");
    let told = finished
        .output
        .contains("step \"work\" wrote to f by a way");
    finished.expect(told, "nobody says which file");
}
