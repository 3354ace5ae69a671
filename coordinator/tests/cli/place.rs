//! A directory to run the commands in, and what they left behind.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nothing here may take longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// A workflow of two steps: `prod` makes f, `cons` makes r of it. What f is
/// committed by comes in.
pub(crate) fn two_steps(committed: &str, mode: &str) -> String {
    format!(
        r#"{{"name": "wf", "IO_Graph": [
            {{"name": "prod", "input_stream": [], "output_stream": ["f"],
              "streaming": [{{"name": ["f"], "committed": "{committed}", "mode": "{mode}"}}]}},
            {{"name": "cons", "input_stream": ["f"], "output_stream": ["r"]}}]}}"#
    )
}

/// A directory of its own for each test.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

/// A command that goes on; killed when dropped.
pub(crate) struct Running {
    child: Child,
    began: Instant,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// With this specification as `s.json`.
    pub(crate) fn with_spec(spec: &str) -> Self {
        let place = Self::new();
        place.write("s.json", spec);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The content of a file on disk, if it is there.
    pub(crate) fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path(name)).ok()
    }

    /// A command in this directory that knows nothing of other sessions.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program_path(program));
        command.args(args).current_dir(self.dir.path());
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"CAPIO_") {
                command.env_remove(name);
            }
        }
        command.env_remove("LD_PRELOAD").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null());
        command
    }

    /// Runs `capio` to its end.
    pub(crate) fn capio(&self, args: &[&str]) -> Ran {
        finish(self.command("capio", args))
    }

    /// Runs `capio run --report`; the report comes too.
    pub(crate) fn report(&self, args: &[&str]) -> (Ran, serde_json::Value) {
        let file = self.path("report.json");
        let name = file.display().to_string();
        let ran = self.capio(&[&["run", "--report", &name], args].concat());
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("no report ({error}) of {ran:?}"));
        (ran, serde_json::from_str(&text).unwrap())
    }

    /// Starts a command that goes on.
    pub(crate) fn start(&self, program: &str, args: &[&str]) -> Running {
        start(self.command(program, args))
    }

    /// Fails when a session of this directory is still there, or a process
    /// whose command line contains `mark`.
    pub(crate) fn nothing_is_left(&self, workflow: &str, mark: &str) {
        let session = self.session(workflow);
        assert!(!session.exists(), "{} is left behind", session.display());
        let left = processes_with(mark);
        assert!(left.is_empty(), "processes {left:?} are left behind");
    }

    /// Where a session of this directory lies.
    pub(crate) fn session(&self, workflow: &str) -> PathBuf {
        let dir = self.dir.path().canonicalize().unwrap();
        (coordinator::ENGINE.session_dir)(&dir, workflow)
    }

    /// A word that no other process has in its command line: for `sleep`.
    pub(crate) fn mark(&self) -> String {
        use std::hash::{BuildHasher, RandomState};
        let number = RandomState::new().hash_one(self.dir.path());
        format!("77.{number:020}")
    }
}

impl Ran {
    /// Fails unless the command ended with this status.
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self:#?}");
        self
    }

    /// Fails unless the errors contain all these words.
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end; the time counts from the call.
    pub(crate) fn finish(mut self) -> Ran {
        self.began = Instant::now();
        self.wait()
    }

    fn wait(&mut self) -> Ran {
        let out = reader(self.child.stdout.take());
        let err = reader(self.child.stderr.take());
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("it hangs; it said {}", err.join().unwrap());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = self.began.elapsed();
        Ran {
            status,
            out: out.join().unwrap(),
            err: err.join().unwrap(),
            took,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a command with its output captured.
pub(crate) fn start(mut command: Command) -> Running {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Running {
        began: Instant::now(),
        child: command.spawn().unwrap(),
    }
}

/// Runs a command to its end.
pub(crate) fn finish(command: Command) -> Ran {
    start(command).wait()
}

/// Waits until the condition holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not {what} in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes with `mark` in their command line.
pub(crate) fn processes_with(mark: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(format!("{pid} {}", String::from_utf8_lossy(&line)))
    });
    lines.filter(|line| line.contains(mark)).collect()
}

fn reader(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes).unwrap();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The binary under test; the library lies beside it.
fn program_path(name: &str) -> PathBuf {
    let built = match name {
        "capio" => env!("CARGO_BIN_EXE_capio"),
        "capio_server" => env!("CARGO_BIN_EXE_capio_server"),
        other => panic!("{other} is not under test"),
    };
    match std::env::var_os("CAPIO_BIN_DIR") {
        Some(dir) => Path::new(&dir).join(name),
        None => {
            library();
            PathBuf::from(built)
        }
    }
}

/// The library for programs, as it is built now. Also when it is there: it may
/// be older than its sources.
pub(crate) fn library() -> PathBuf {
    const NAME: &str = "libcapio_posix.so";
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(dir) = std::env::var_os("CAPIO_BIN_DIR") {
        return Path::new(&dir).join(NAME);
    }
    let built = BUILT.get_or_init(|| {
        let profile = Path::new(env!("CARGO_BIN_EXE_capio")).parent().unwrap();
        let name = match profile.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "shim", "--profile", name])
            .arg("--target-dir")
            .arg(profile.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(status.unwrap().success(), "the library cannot be built");
        profile.join(NAME)
    });
    built.clone()
}
