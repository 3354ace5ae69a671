//! Names that nobody would choose, variables with nonsense, other users, and
//! limits that are reached: programs get the error that the kernel would give,
//! the session goes on, and where it cannot start it says why.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use capio_tests::{
    Finished, Running, Scratch, Step, Workflow, beside_capio, capio, limit, plain_only, program,
};

/// A user who is not the one who runs the tests.
const NOBODY: u32 = 65534;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn script(name: &str) -> String {
    format!("{}/programs/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// `capio run` of a shell line in a shell that first does `before`: sets a
/// limit, say. `DATA` stands for the directory, `OUT` for one beside it.
fn run_after(before: &str, options: &str, line: &str) -> (Scratch, Finished) {
    let scratch = Scratch::new();
    let command = format!(
        "{before}\n'{}' run --logs '{}' --dir DATA {options} --step \"s=$LINE\"",
        capio().display(),
        scratch.logs().display()
    );
    let path = |path: PathBuf| path.display().to_string();
    let command = command.replace("DATA", &path(scratch.data()));
    let command = command.replace("OUT", &path(scratch.outside()));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &command])
        .env("WHOLE", &command)
        .env("LINE", line)
        .current_dir("/");
    let finished = Running::start(shell, &scratch, "limited").finish(limit());
    (scratch, finished)
}

/// The same in a namespace where `before` may do more (`unshare` with these
/// options); `None`: not on this machine.
fn run_apart(apart: &str, before: &str, options: &str, line: &str) -> Option<(Scratch, Finished)> {
    let probe = Command::new("unshare").args([apart, "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let before =
        format!("[ -n \"$INNER\" ] || exec env INNER=1 unshare {apart} sh -c \"$WHOLE\"\n{before}");
    Some(run_after(&before, options, line))
}

/// The same where file systems can be mounted: only root may.
fn run_mounted(mounts: &str, options: &str, line: &str) -> Option<(Scratch, Finished)> {
    is_root().then(|| run_apart("-m", mounts, options, line))?
}

#[test]
fn every_kind_of_path_means_what_it_does_on_a_local_disk() {
    let line = format!("python3 '{}' > said", script("paths.py"));
    Workflow::new("paths")
        .step(Step::sh("paths", line).writes(&["*"]))
        .unaudited()
        .verify();
}

/// Names that play tricks on terminals and parsers.
const TRICKS: [&[u8]; 5] = [
    b"\x1b[2Jescape",
    b"new\nline",
    b"\xff\xfebytes",
    b"\"quoted\"",
    b"\x7f",
];

#[test]
fn reports_and_listings_of_any_name_play_no_tricks() {
    if plain_only() {
        return;
    }
    let make = r#"python3 -c '
for name in [b"\x1b[2Jescape", b"new\nline", b"\xff\xfebytes", b"\"quoted\"", b"\x7f"]:
    open(name, "wb").write(name)
'"#;
    let served = Workflow::new("tricks")
        .step(Step::sh("make", "").writes(&["*"]))
        .serve(&[]);
    served.run("make", make);
    let clean = |what: &str, bytes: &[u8]| {
        let bad = bytes
            .iter()
            .any(|&byte| byte == 0x7f || byte < 0x20 && byte != b'\n');
        assert!(!bad, "{what}: {:?}", text(bytes));
    };
    for words in [&["ls"][..], &["ps"], &["diff"], &["ls", "-l"]] {
        let output = served.capio(words);
        clean(&words.join(" "), &output.stdout);
        clean(&words.join(" "), &output.stderr);
    }
    for name in TRICKS {
        use std::os::unix::ffi::OsStrExt;
        let mut cat = Command::new(capio());
        cat.arg("cat")
            .arg(std::ffi::OsStr::from_bytes(name))
            .env("CAPIO_DIR", served.scratch.data())
            .env("CAPIO_WORKFLOW_NAME", "tricks");
        let output = cat.output().expect("capio starts");
        assert_eq!(output.stdout, name, "{output:?}");
    }
    let (scratch, finished) = served.stop();
    let report: String = finished.output;
    clean("the report", report.replace('\t', " ").as_bytes());
    for name in TRICKS {
        use std::os::unix::ffi::OsStrExt;
        let kept = scratch.data().join(std::ffi::OsStr::from_bytes(name));
        assert_eq!(fs::read(&kept).ok().as_deref(), Some(name), "{kept:?}");
    }
}

/// A program with the library preloaded and these variables on a directory
/// with a file `f`; how it ended, and how long it took.
fn with_variables(variables: &[(&str, &[u8])], dir: &Path) -> (Output, Duration) {
    use std::os::unix::ffi::OsStrExt;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "cat f && echo more > g && ls && cd / && pwd"])
        .env("LD_PRELOAD", beside_capio("libcapio_posix.so"))
        .env_remove("CAPIO_APP_NAME")
        .env_remove("CAPIO_WORKFLOW_NAME")
        .env_remove("CAPIO_DIR")
        .current_dir(dir);
    for (name, value) in variables {
        shell.env(name, std::ffi::OsStr::from_bytes(value));
    }
    let start = Instant::now();
    let output = shell.output().expect("sh starts");
    (output, start.elapsed())
}

#[test]
fn nonsense_in_variables_crashes_no_program() {
    use std::os::unix::ffi::OsStrExt;
    if plain_only() {
        return;
    }
    let scratch = Scratch::new();
    fs::write(scratch.data().join("f"), "f\n").expect("a file can be made");
    let data = scratch.data().canonicalize().expect("it is there");
    let own = scratch.data().display().to_string().into_bytes();
    let long = vec![b'x'; 100_000];
    let deep = [b"/".to_vec(), b"d/".repeat(3000)].concat();
    let nonsense: [&[u8]; 13] = [
        b"",
        b" ",
        b"relative",
        b"..",
        b"/no/such/directory",
        b"/dev/null",
        b"/etc/passwd/x",
        b"\xff\xfe\x01",
        b"/proc/self/fd",
        b"%s%n%d",
        b"//",
        &long,
        &deep,
    ];
    for value in nonsense {
        let shown = text(&value[..value.len().min(40)]);
        let (output, _) = with_variables(&[("CAPIO_DIR", value)], &scratch.data());
        assert_eq!(output.status.signal(), None, "{shown:?}: {output:?}");
        let path = scratch.data().join(std::ffi::OsStr::from_bytes(value));
        // What is a directory is taken for one, be its name as odd as it may:
        // here those that `f` lies in. All else is none.
        let path = path.canonicalize().unwrap_or_default();
        let taken = !value.is_empty() && path.parent().is_some() && data.starts_with(&path);
        let wanted = if taken { "" } else { "f\nf\ng\n/\n" };
        assert_eq!(text(&output.stdout), wanted, "{shown:?}: {output:?}");
        // Each of these waits a second for a session that may be about to start.
        let few = [long.len(), 3].contains(&value.len()) || value.is_empty();
        for name in ["CAPIO_WORKFLOW_NAME", "CAPIO_APP_NAME"]
            .iter()
            .filter(|_| few)
        {
            let variables = [("CAPIO_DIR", &own[..]), (*name, value)];
            let (output, time) = with_variables(&variables, &scratch.data());
            // There is no such session: an error, and no crash.
            assert_eq!(output.status.signal(), None, "{name}={shown:?}: {output:?}");
            let said = text(&output.stderr);
            assert!(
                said.contains("Input/output error"),
                "{name}={shown:?}: {output:?}"
            );
            assert!(time < Duration::from_secs(10), "{name}={shown:?}: {time:?}");
        }
    }
}

#[test]
fn nonsense_in_variables_of_the_command_is_told_and_ends_with_status_2_or_3() {
    if plain_only() {
        return;
    }
    let long = "x".repeat(100_000);
    for value in [
        "/",
        "/no/such/directory",
        "/dev/null",
        "/etc/passwd/x",
        &long,
        "\u{1}\u{7f}",
    ] {
        for words in [&["serve"][..], &["run", "--step", "a=true"], &["ls"]] {
            let output = Command::new(capio())
                .args(words)
                .env("CAPIO_DIR", value)
                .current_dir("/")
                .output()
                .expect("capio starts");
            let code = output.status.code();
            assert!(matches!(code, Some(2 | 3)), "{words:?}: {output:?}");
            assert!(!output.stderr.is_empty(), "{words:?}");
        }
    }
}

/// A copy of a program that another user owns, with this mode, beside `data`.
fn foreign(scratch: &Scratch, program: &str, mode: u32) -> PathBuf {
    let copy = scratch.outside().join("foreign");
    fs::copy(program, &copy).expect("a program can be copied");
    chown(&copy, Some(NOBODY), Some(NOBODY)).expect("root may");
    fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).expect("root may");
    copy
}

#[test]
fn a_set_uid_program_works_on_the_disk_and_the_run_says_so() {
    if plain_only() || !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let cat = foreign(&scratch, "/bin/cat", 0o4755);
    fs::set_permissions(scratch.data(), fs::Permissions::from_mode(0o755)).expect("ours");
    fs::write(scratch.data().join("disk"), "on disk\n").expect("a file can be made");
    let line = format!(
        "echo cached > c; {cat} \"$CAPIO_DIR/disk\"; {cat} \"$CAPIO_DIR/c\" || echo refused; cat c",
        cat = cat.display()
    );
    let mut run = Command::new(capio());
    run.arg("run")
        .arg("--dir")
        .arg(scratch.data())
        .arg("--step")
        .arg(format!("s={line}"))
        .current_dir("/");
    // Others must be able to get there.
    let root = scratch
        .data()
        .parent()
        .map(Path::to_path_buf)
        .expect("it has one");
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("ours");
    let finished = Running::start(run, &scratch, "set-uid").finish(limit());
    finished.expect_success();
    for wanted in ["is set-uid", "on disk", "refused", "cached"] {
        finished.expect(finished.output.contains(wanted), wanted);
    }
}

/// What a user gets for a python line; `argv` are its arguments.
fn as_nobody(line: &str, arguments: &[&Path]) -> String {
    let mut python = Command::new("python3");
    python.args(["-c", line]).args(arguments);
    let output = python.uid(NOBODY).gid(NOBODY).output().expect("it starts");
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn another_user_gets_neither_to_the_memory_nor_to_the_files_of_a_session() {
    if plain_only() || !is_root() {
        return;
    }
    let store = tempfile_dir();
    let options = ["--store", store.to_str().expect("a path of ours")];
    let served = Workflow::new("walls")
        .step(Step::sh("make", "").writes(&["*"]))
        .serve(&options);
    served.run("make", "head -c 1000000 /dev/urandom > f; sync f");
    let pid = served.running.pid();
    let look = r#"
import os, sys
reached = []
def attempt(what, call):
    try:
        call()
        reached.append(what)
    except OSError as error:
        pass
pid, session, store = sys.argv[1:]
for fd in range(3, 64):
    attempt("fd %d" % fd, lambda: os.open("/proc/%s/fd/%d" % (pid, fd), os.O_RDONLY))
attempt("fds", lambda: os.listdir("/proc/%s/fd" % pid))
attempt("maps", lambda: open("/proc/%s/mem" % pid, "rb"))
for name in ["", "sock", "admin.sock", "ofd", "res", "shadow", "lock", "title", "run"]:
    path = os.path.join(session, name)
    attempt("list " + name, lambda: os.listdir(path))
    attempt("open " + name, lambda: os.open(path, os.O_RDONLY))
    attempt("make " + name, lambda: os.mkdir(path + "/x"))
for base, _, files in os.walk(store):
    for name in files:
        attempt("store " + name, lambda: os.open(os.path.join(base, name), os.O_RDONLY))
print(reached)
"#;
    let pid = PathBuf::from(pid.to_string());
    let reached = as_nobody(look, &[&pid, &served.session, &store]);
    assert_eq!(reached.trim(), "[]");
    served.stop();
    fs::remove_dir_all(store).expect("it is ours");
}

/// A directory that others may enter.
fn tempfile_dir() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("capio-walls-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory can be made");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("it is ours");
    dir
}

#[test]
fn a_session_that_another_user_pretends_to_have_is_not_joined() {
    if plain_only() || !is_root() {
        return;
    }
    let scratch = Scratch::new();
    fs::write(scratch.data().join("f"), "on disk\n").expect("a file can be made");
    let session = scratch.session("CAPIO");
    let lure = r#"
import os, socket, sys
os.mkdir(sys.argv[1], 0o755)
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1] + "/sock")
server.listen()
server.settimeout(20)
print("ready", flush=True)
while True:
    peer, _ = server.accept()
    if peer.recv(100):
        print("lured", flush=True)
"#;
    let mut python = Command::new("python3");
    python
        .args(["-c", lure])
        .arg(&session)
        .uid(NOBODY)
        .gid(NOBODY);
    let mut lurer = Running::start(python, &scratch, "lure");
    let socket = session.join("sock");
    lurer.wait_until(Duration::from_secs(10), "the lure", || socket.exists());
    let own = scratch.data().display().to_string().into_bytes();
    let (output, _) = with_variables(&[("CAPIO_DIR", &own)], &scratch.data());
    let refused = Command::new(capio())
        .args(["serve"])
        .env("CAPIO_DIR", scratch.data())
        .output()
        .expect("capio starts");
    let said = fs::read_dir(scratch.data().parent().expect("it has one"))
        .expect("it is there")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("lure"))
        .map(|entry| fs::read_to_string(entry.path()).unwrap_or_default())
        .collect::<String>();
    drop(lurer);
    fs::remove_dir_all(&session).expect("root may");
    assert!(said.contains("ready") && !said.contains("lured"), "{said}");
    assert!(
        text(&output.stderr).contains("Input/output error"),
        "{output:?}"
    );
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(
        text(&refused.stderr).contains("belongs to somebody else"),
        "{refused:?}"
    );
}

#[test]
fn a_program_that_may_open_no_more_files_gets_emfile_and_goes_on() {
    if plain_only() {
        return;
    }
    let line = r#"python3 -c '
import errno, os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
fds = []
try:
    while True:
        fds.append(os.open("f%d" % len(fds), os.O_RDWR | os.O_CREAT))
except OSError as error:
    print(errno.errorcode[error.errno], 30 < len(fds) < 40)
for fd in fds[5:]:
    os.close(fd)
os.write(fds[0], b"still")
print(os.pread(fds[0], 10, 0), open("f1", "rb").read(), os.path.exists("f2"))
'"#;
    let (_, finished) = run_after("", "--cache 64M", line);
    finished.expect_success();
    finished.expect(finished.output.contains("EMFILE True"), "the errno");
    finished.expect(finished.output.contains("b'still' b'' True"), "it goes on");
}

#[test]
fn more_open_files_than_a_session_can_have_are_enfile_until_some_are_closed() {
    if plain_only() {
        return;
    }
    let (_, finished) = crowd("descriptions");
    let said = "65536 descriptions, then ENFILE";
    finished.expect(finished.output.contains(said), "all can be had");
    let told = "at most 65536 files open at a time: open got ENFILE";
    finished.expect(finished.output.contains(told), "the report says so");
}

#[test]
fn more_processes_than_a_session_can_have_are_told_and_the_others_go_on() {
    if plain_only() {
        return;
    }
    let (_, finished) = crowd("processes");
    let count = finished.output.split(" processes, then EIO").next();
    let count = count.and_then(|text| text.split_whitespace().last());
    let count: u32 = count.and_then(|text| text.parse().ok()).unwrap_or(0);
    finished.expect((2040..=2048).contains(&count), "all can be had");
    let told = "at most 2048 processes at a time: further ones got EIO";
    finished.expect(finished.output.contains(told), "the report says so");
}

/// As much of `what` as a session can have, and more.
fn crowd(what: &str) -> (Scratch, Finished) {
    let crowd = program("crowd").display().to_string();
    let line = format!("echo 1 > f; '{crowd}' {what} f");
    let (scratch, finished) = run_after("", "--cache 64M", &line);
    finished.expect_success();
    finished.expect(finished.output.contains("room again"), "it goes on");
    (scratch, finished)
}

#[test]
fn a_program_without_room_for_the_sessions_memory_gets_enomem() {
    if plain_only() {
        return;
    }
    let line = "(ulimit -v 200000; echo 1 > f; cat f; true); echo 2 > g; cat g";
    let (scratch, finished) = run_after("", "--cache 2G", line);
    finished.expect_success();
    finished.expect(
        finished.output.contains("Cannot allocate memory"),
        "the errno",
    );
    let kept = fs::read_to_string(scratch.data().join("g"));
    finished.expect(kept.is_ok_and(|kept| kept == "2\n"), "the session goes on");
    finished.expect(finished.wall < Duration::from_secs(10), "at once");
}

#[test]
fn other_limits_of_a_program_do_not_concern_its_files() {
    if plain_only() {
        return;
    }
    let line = "ulimit -d 40000; ulimit -c unlimited; ulimit -l 0; echo 1 > f; cat f; ls";
    let (_, finished) = run_after("", "--cache 64M", line);
    finished.expect_success();
}

#[test]
fn a_session_that_limits_do_not_let_start_says_which() {
    if plain_only() {
        return;
    }
    for (before, wanted) in [
        ("ulimit -n 30", "raise ulimit -n"),
        ("ulimit -v 100000", "raise ulimit -v"),
        ("ulimit -f 100", "raise ulimit -f"),
    ] {
        let (scratch, finished) = run_after(before, "--cache 256M", "echo 1 > f");
        finished.expect(finished.status.code() == Some(3), "the exit status");
        finished.expect(finished.output.contains(wanted), wanted);
        assert!(!scratch.session("CAPIO").exists(), "something is left");
    }
}

#[test]
fn a_session_without_an_inotify_instance_says_so() {
    if plain_only() {
        return;
    }
    let none = "echo 0 > /proc/sys/user/max_inotify_instances || exit 77";
    let Some((_, finished)) = run_apart("-Ur", none, "--cache 64M", "echo 1 > f") else {
        return;
    };
    if finished.status.code() == Some(77) {
        return;
    }
    finished.expect(finished.status.code() == Some(3), "the exit status");
    finished.expect(finished.output.contains("max_user_instances"), "what to do");
}

#[test]
fn a_full_dev_shm_is_an_error_of_the_call_or_of_the_start() {
    if plain_only() {
        return;
    }
    // What lies there now is seen at /mnt meanwhile: the harness's directories.
    let shm = |options: &str| {
        format!(
            "mount --bind /dev/shm /mnt; mount -t tmpfs -o {options} tmpfs /dev/shm; \
             mkdir -p DATA OUT; mkdir -p $(dirname DATA)/logs"
        )
    };
    let line = "i=0; while [ $i -lt 200 ]; do echo $i > f$i || break; i=$((i+1)); done; \
        rm f1 f2 f3; echo again > g; cat g";
    if let Some((_, finished)) = run_mounted(&shm("nr_inodes=60"), "--cache 64M --keep all", line) {
        finished.expect(
            finished.output.contains("No space left on device"),
            "the errno",
        );
        finished.expect(finished.output.contains("again"), "the session goes on");
    }
    if let Some((_, finished)) = run_mounted(&shm("nr_inodes=9"), "--cache 64M", "echo 1 > f") {
        finished.expect(finished.status.code() == Some(3), "the exit status");
        finished.expect(
            finished.output.contains("make room in /dev/shm"),
            "what to do",
        );
    }
}

#[test]
fn results_that_the_disk_has_no_room_for_are_named_and_the_rest_is_kept() {
    if plain_only() {
        return;
    }
    let mounts = "mount -t tmpfs -o size=1m tmpfs DATA; echo before > DATA/old; \
        trap 'cp DATA/old OUT/old; ls -A DATA > OUT/left' EXIT";
    let line = "head -c 5000000 /dev/urandom > big; echo after > old";
    let Some((scratch, finished)) = run_mounted(mounts, "--cache 64M", line) else {
        return;
    };
    finished.expect(finished.status.code() == Some(5), "the exit status");
    finished.expect(
        finished.output.contains("No space left on device"),
        "the reason",
    );
    // Each file is kept as a whole or not at all, and nothing half done is left.
    finished.expect(scratch.note("old") == "after\n", &scratch.note("old"));
    finished.expect(scratch.note("left") == "old\n", &scratch.note("left"));
}

#[test]
fn a_store_on_a_full_disk_is_told_and_the_session_goes_on() {
    if plain_only() {
        return;
    }
    let mounts = "mkdir OUT/store; mount -t tmpfs -o size=8m tmpfs OUT/store";
    let line = "head -c 200000000 /dev/urandom > big; echo $?; rm big; echo still > g; cat g";
    let options = "--cache 64M --store OUT/store";
    let Some((_, finished)) = run_mounted(mounts, options, line) else {
        return;
    };
    finished.expect_success();
    finished.expect(
        finished.output.contains("No space left on device"),
        "the errno",
    );
    finished.expect(finished.output.contains("still"), "the session goes on");
    finished.expect(
        finished.output.contains("takes no more"),
        "the report says why",
    );
}

/// Documents and workflow files that nobody would write, and what the message
/// about each must say.
fn documents() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let utf16 = |text: &str| -> Vec<u8> {
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect()
    };
    let deep =
        |open: &str, close: &str| (open.repeat(100_000) + &close.repeat(100_000)).into_bytes();
    let steps = |number: usize| {
        let step = |n| format!("[[step]]\nname = \"a{n}\"\ncommand = \"true\"\n");
        (0..number).map(step).collect::<String>().into_bytes()
    };
    let item = |n: usize| {
        format!(
            "{{\"name\":\"s{n}\",\"input_stream\":[\"f{n}\"],\"output_stream\":[\"{}\"]}}",
            "g".repeat(100)
        )
    };
    let items = (0..60_000).map(item).collect::<Vec<_>>().join(",");
    vec![
        ("deep.json", deep("[", "]"), ":1:"),
        ("objects.json", deep("{\"a\":", "}"), ":1:"),
        (
            "utf16.json",
            utf16("{\"name\":\"w\"}"),
            ":1:1: the document is not UTF-8",
        ),
        (
            "latin.json",
            b"{\"name\":\"caf\xe9\"}".to_vec(),
            ":1:13: the document is not UTF-8",
        ),
        (
            "double.json",
            b"{\"name\":\"w\",\"name\":\"v\",\"IO_Graph\":[]}".to_vec(),
            ":1:13: ",
        ),
        (
            "number.json",
            b"{\"name\":1e999,\"IO_Graph\":[]}".to_vec(),
            "number out of range",
        ),
        ("zeros.json", vec![0; 10_000_000], ":1:1: "),
        (
            "large.json",
            format!("{{\"name\":\"w\",\"IO_Graph\":[{items}],\"bad\":1}}").into_bytes(),
            "bad",
        ),
        ("empty.json", Vec::new(), ":1:1: "),
        ("deep.toml", [&b"a = "[..], &deep("[", "]")].concat(), ":1:"),
        (
            "tables.toml",
            [&b"a = "[..], &deep("{b=", "}")].concat(),
            ":1:",
        ),
        (
            "dots.toml",
            format!("a{} = 1\n", ".a".repeat(100_000)).into_bytes(),
            "recursion",
        ),
        ("utf16.toml", utf16("[[step]]\n"), "UTF-8"),
        ("latin.toml", b"a = \"caf\xe9\"".to_vec(), "UTF-8"),
        (
            "double.toml",
            b"[[step]]\nname = \"a\"\nname = \"b\"\n".to_vec(),
            ":3:1: duplicate key",
        ),
        (
            "number.toml",
            b"[[step]]\nname = \"a\"\ncommand = \"true\"\ninstances = 99999999999999999999\n"
                .to_vec(),
            ":4:",
        ),
        ("many.toml", steps(100_000), "at most 4096"),
        ("long.toml", vec![b'#'; 20 << 20], "longer than 16 MiB"),
        ("zeros.toml", vec![0; 1000], ":1:"),
    ]
}

#[test]
fn documents_that_nobody_would_write_are_refused_where_they_are_wrong() {
    if plain_only() {
        return;
    }
    let scratch = Scratch::new();
    for (name, content, wanted) in documents() {
        let path = scratch.outside().join(name);
        fs::write(&path, content).expect("a file can be made");
        let how = if name.ends_with(".json") {
            "check"
        } else {
            "run --dir ."
        };
        // A gigabyte is more than enough.
        let line = format!(
            "ulimit -v 1500000; exec '{}' {how} {name}",
            capio().display()
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).current_dir(scratch.outside());
        let start = Instant::now();
        let output = shell.output().expect("sh starts");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(
            said.contains(name) && said.contains(wanted),
            "{name}: {said}"
        );
        assert!(said.len() < 10_000, "{name}: {} bytes", said.len());
        let time = start.elapsed();
        assert!(time < Duration::from_secs(20), "{name}: {time:?}");
        fs::remove_file(path).expect("it is ours");
    }
    for words in [&["check", "/dev/zero"][..], &["run", "/dev/zero"]] {
        let output = Command::new(capio())
            .args(words)
            .current_dir("/tmp")
            .output();
        let output = output.expect("capio starts");
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
    }
}
