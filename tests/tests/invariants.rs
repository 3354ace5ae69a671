//! What the design promises of every call, seen from outside.

use std::fs;

use capio_tests::{Step, Workflow, plain_only, program};

#[test]
fn resident_files_are_read_written_and_sought_without_a_system_call() {
    if plain_only() {
        return;
    }
    let marked = program("marked").display().to_string();
    let script = format!("exec strace -o $OUTSIDE/trace '{marked}' f");
    let (scratch, finished) = Workflow::new("silent")
        .step(Step::sh("work", script).writes(&["f"]))
        .start(&[])
        .finish();
    finished.expect_success();
    let trace = scratch.note("trace");
    let mut parts = trace.split("getpgid(-1)");
    let between = parts.nth(1).expect("the program set its marks");
    assert!(parts.next().is_some(), "the program set its marks");
    let calls: Vec<_> = between
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        .collect();
    assert!(
        calls.is_empty(),
        "{} system calls: {:?}",
        calls.len(),
        calls.iter().take(10).collect::<Vec<_>>()
    );
}

/// Files, directories, files on disk and what is missing; opening what is on disk or
/// missing, too.
#[test]
fn names_that_are_known_are_looked_at_without_a_message() {
    if plain_only() {
        return;
    }
    let script = "exec strace -e trace=sendto,recvmsg,getpgid -o $OUTSIDE/trace \
                  python3 -c \"$LOOKS\"";
    let (scratch, finished) = Workflow::new("known")
        .input("folder/on-disk", "bytes")
        .step(Step::sh("work", script).env("LOOKS", LOOKS).writes(&["*"]))
        .start(&[])
        .finish();
    finished.expect_success();
    let trace = scratch.note("trace");
    let parts: Vec<_> = trace.split("getpgid(").collect();
    let [before, between, _] = parts[..] else {
        panic!("the program set its marks: {trace}");
    };
    assert!(before.contains("sendto("), "nothing was asked at all");
    assert!(!between.contains("sendto("), "{between}");
}

const LOOKS: &str = r"
import os
def maybe(call, *arguments):
    try: return call(*arguments)
    except OSError: return None
def look():
    for name in ('made', 'folder', 'folder/on-disk', 'folder/nothing'):
        maybe(os.stat, name), maybe(os.lstat, os.path.abspath(name)), os.access(name, os.R_OK)
    for name in ('folder/on-disk', 'folder/nothing'):
        fd = maybe(os.open, name, os.O_RDONLY)
        if fd is not None:
            assert os.read(fd, 9) == b'bytes'
            os.close(fd)
os.close(os.open('made', os.O_CREAT | os.O_WRONLY))
for turn in range(4): look()
maybe(os.getpgid, 2**31 - 1)
for turn in range(100): look()
maybe(os.getpgid, 2**31 - 1)
";

/// A process that is answered by its mailbox does not sleep for every answer: unless
/// more threads run than there are cores, of which some must be free once in a while.
#[test]
fn who_asks_often_need_not_be_woken_for_every_answer() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if plain_only() || cores < 2 {
        return;
    }
    let (scratch, finished) = Workflow::new("often")
        .input("f", "")
        .step(
            Step::sh("work", "python3 -c \"$ASKS\" > $OUTSIDE/asked")
                .env("ASKS", ASKS)
                .writes(&["*"]),
        )
        .start(&[])
        .finish();
    finished.expect_success();
    let asked = scratch.note("asked");
    if asked.contains("crowded") {
        println!("nothing can be said on a busy machine");
        return;
    }
    assert!(asked.contains("awake"), "{asked}");
}

/// Asks 2,000 times in a row, until it has slept for less than half of them.
const ASKS: &str = r"
import os, resource, time
end, crowded, turns = time.monotonic() + 40, 0, 0
while time.monotonic() < end:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for turn in range(2000): os.chmod('f', 0o600 + turn % 2)
    slept = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    if slept < 1000:
        print('awake', slept)
        raise SystemExit
    turns += 1
    crowded += int(open('/proc/loadavg').read().split()[3].split('/')[0]) > os.cpu_count()
print('crowded' if crowded * 4 > turns else 'asleep', crowded, turns)
";

#[test]
fn the_auditor_sees_what_goes_past_the_library() {
    if plain_only() {
        return;
    }
    let missed = program("missed").display().to_string();
    for (what, wanted) in [("read", 1), ("open", 1), ("nothing", 0)] {
        let misses = Workflow::new("missed")
            .input("g", "on disk")
            .step(
                Step::sh(
                    "work",
                    format!(
                        "exec '{missed}' {what} {}",
                        if what == "open" { "g" } else { "f" }
                    ),
                )
                .writes(&["f"]),
            )
            .audit(&[])
            .misses();
        assert_eq!(misses.len(), wanted, "{what}: {misses:?}");
    }
}

/// The kernel's file behind a descriptor holds no bytes: a write that the library
/// did not see must fail, or it would be lost without a word.
#[test]
fn a_missed_write_fails_instead_of_being_lost() {
    if plain_only() {
        return;
    }
    let missed = program("missed").display().to_string();
    let script = format!("'{missed}' write f; echo $? > status; cat f > content");
    let (scratch, finished) = Workflow::new("lost")
        .step(Step::sh("work", script).writes(&["*"]))
        .start(&[])
        .finish();
    finished.expect_success();
    let read = |name: &str| fs::read_to_string(scratch.data().join(name)).unwrap_or_default();
    let refused = [nix::libc::EINVAL, nix::libc::EFBIG].map(|errno| format!("{errno}\n"));
    assert!(refused.contains(&read("status")), "{}", read("status"));
    assert_eq!(read("content"), "");
}

#[test]
fn descriptors_of_the_library_are_high_and_survive_those_who_close_all() {
    let list =
        "import os; print(*sorted(fd for fd in os.listdir('/proc/self/fd') if int(fd) < 200))";
    let close = "import os; os.closerange(3, 100000); print(open('f').read())";
    let script = format!("echo x > f; python3 -c \"{list}\" > low; python3 -c \"{close}\" > after");
    Workflow::new("high")
        .step(Step::sh("work", script).writes(&["*"]))
        .verify();
}

#[test]
fn attributes_look_as_on_a_local_disk() {
    if plain_only() {
        return;
    }
    let script = "umask 027; mkdir d; head -c 5000 /dev/zero > f; ln f g; stat -c '%F %a %s %b %B %h %u' d f > stats; \
        stat -c %i f g | uniq | wc -l > same; [ $(stat -c %d f) = $(stat -c %d d) ] && [ $(stat -c %d f) != $(stat -c %d /) ] && echo device > device; \
        i=$(stat -c %i f); rm f g; : > f; [ $(stat -c %i f) != $i ] && echo fresh >> device";
    let (scratch, finished) = Workflow::new("attributes")
        .step(Step::sh("work", script).writes(&["*"]))
        .start(&[])
        .finish();
    finished.expect_success();
    let read = |name: &str| fs::read_to_string(scratch.data().join(name)).unwrap_or_default();
    let me = nix::unistd::getuid();
    assert_eq!(
        read("stats"),
        format!("directory 750 4096 8 512 2 {me}\nregular file 640 5000 16 512 2 {me}\n")
    );
    assert_eq!(
        (read("same").trim(), read("device").trim()),
        ("1", "device\nfresh")
    );
}

#[test]
fn what_cannot_be_taken_over_has_the_errno_that_is_documented() {
    if plain_only() {
        return;
    }
    let script = r#"
import errno, os
def name(call):
    try:
        call()
        return "fine"
    except OSError as error:
        return errno.errorcode[error.errno]
with open("f", "w+b") as f:
    f.write(b"0123456789")
os.chmod("f", 0o755)
print("exec", name(lambda: os.execv("f", ["f"])))
print("spawn", name(lambda: os.posix_spawn("f", ["f"], {})))
print("copy_file_range", name(lambda: os.copy_file_range(os.open("f", os.O_RDONLY), os.open("g", os.O_WRONLY | os.O_CREAT), 10)))
"#;
    let (scratch, finished) = Workflow::new("limits")
        .step(
            Step::exec(
                "work",
                &[
                    "sh",
                    "-c",
                    &format!("python3 - > said <<'END'\n{script}\nEND"),
                ],
            )
            .writes(&["*"]),
        )
        .start(&[])
        .finish();
    finished.expect_success();
    let said = fs::read_to_string(scratch.data().join("said")).unwrap_or_default();
    let wanted = "exec ENOEXEC\nspawn ENOEXEC\ncopy_file_range EXDEV\n";
    assert_eq!(said, wanted);
}
