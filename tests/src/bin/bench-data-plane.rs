//! The table of the performance budget: capio and the kernel's tmpfs side by
//! side in one run. `scripts/bench-data-plane` builds and runs it.
//!
//! Everything is measured in rounds that take turns, and the medians of the
//! rounds are compared, as the machine may be busy with something else, too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Rounds of each measurement.
const ROUNDS: usize = 5;
/// Bytes of a stream.
const STREAM: u64 = 1 << 30;
/// Steps and rules: `to` reads what `from` writes, as it is written.
const SPEC: &str = r#"{ "name": "bench", "IO_Graph": [
  { "name": "from", "input_stream": [], "output_stream": ["stream"],
    "streaming": [{ "name": ["stream"], "committed": "on_close", "mode": "no_update" }] },
  { "name": "to", "input_stream": ["stream"], "output_stream": [] }
] }"#;

type Failure = Box<dyn std::error::Error>;
/// Figures by name.
type Figures = BTreeMap<String, f64>;

fn main() -> Result<(), Failure> {
    let bench = Bench::new()?;
    println!(
        "{:<34} {:>14} {:>14} {:>9}  aim",
        "median of 5 rounds", "capio", "the other", "ratio"
    );
    bench.calls()?;
    bench.streams()?;
    bench.overflow()?;
    bench.longest_write()?;
    bench.trees()?;
    bench.mapped()?;
    bench.wake_up()?;
    bench.foreign()?;
    bench.start()
}

/// Places and programs.
struct Bench {
    base: tempfile::TempDir,
    program: PathBuf,
    capio: PathBuf,
}

/// A running session; ends when dropped.
struct Session {
    server: Child,
    dir: PathBuf,
    library: PathBuf,
}

impl Bench {
    fn new() -> Result<Self, Failure> {
        let base = tempfile::Builder::new()
            .prefix("capio-bench.")
            .tempdir_in("/dev/shm")?;
        Ok(Self {
            base,
            program: capio_tests::program("bench"),
            capio: capio_tests::capio().to_path_buf(),
        })
    }

    /// Starts a session on a fresh directory. It has a moment to get its
    /// memory ready, as one has before a step's first output.
    fn session(&self) -> Result<Session, Failure> {
        self.session_of("4GiB")
    }

    /// A session with a cache of this size.
    fn session_of(&self, cache: &str) -> Result<Session, Failure> {
        let dir = tempfile::Builder::new()
            .prefix("session.")
            .tempdir_in(self.base.path())?
            .keep();
        let spec = self.base.path().join("spec.json");
        std::fs::write(&spec, SPEC)?;
        let ready = dir.with_extension("ready");
        let server = Command::new(&self.capio)
            .args(["serve", "--cache", cache, "--keep", "none", "--dir"])
            .arg(&dir)
            .arg("-c")
            .arg(&spec)
            .arg("--ready-file")
            .arg(&ready)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let session = Session {
            server,
            dir,
            library: self.capio.with_file_name("libcapio_posix.so"),
        };
        let start = Instant::now();
        while !ready.exists() {
            if start.elapsed() > Duration::from_secs(10) {
                return Err("the coordinator did not start within 10 s".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(700));
        Ok(session)
    }

    fn plain(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        command
    }

    fn taken_over(&self, session: &Session, step: &str, arguments: &[&str]) -> Command {
        let mut command = self.plain(arguments);
        session.take_over(&mut command, step);
        command
    }

    /// Data and metadata calls.
    fn calls(&self) -> Result<(), Failure> {
        let plain_dir = self.base.path().join("plain");
        std::fs::create_dir(&plain_dir)?;
        let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            theirs.add(figures(self.plain(&["ops", text(&plain_dir)]))?);
            let session = self.session()?;
            ours.add(figures(self.taken_over(
                &session,
                "from",
                &["ops", text(&session.dir)],
            ))?);
        }
        let rows = [
            ("write-64B", "write 64 B", "10 x faster"),
            ("write-4K", "write 4 KiB", "5 x faster"),
            ("write-64K", "write 64 KiB", ""),
            ("write-1M", "write 1 MiB", "3 x faster"),
            ("read-64B", "read 64 B", "10 x faster"),
            ("read-4K", "read 4 KiB", "3 x faster"),
            ("read-64K", "read 64 KiB", ""),
            ("read-1M", "read 1 MiB", "2 x faster"),
            ("pwrite-4K", "pwrite 4 KiB", ""),
            ("pread-4K", "pread 4 KiB", ""),
            ("fstat", "fstat", ""),
            ("stat", "stat", "no slower"),
            ("stat-folder", "stat of a directory", "no slower"),
            ("stat-missing", "stat of what is missing", ""),
            ("access", "access", "no slower"),
            ("chmod", "chmod", ""),
            ("open-close", "open + close", "2 x at most"),
            ("rename", "rename there and back", "2 x at most"),
            ("create-unlink", "create + close + unlink", "2 x at most"),
            ("mkdir-rmdir", "mkdir + rmdir", ""),
            ("readdir", "list 10,000 entries", "no slower"),
        ];
        for (name, label, aim) in rows {
            row(label, ours.median(name), theirs.median(name), "ns", aim);
        }
        Ok(())
    }

    /// A producer and a consumer at once, against one after the other.
    fn streams(&self) -> Result<(), Failure> {
        let file = self.base.path().join("stream");
        for (size, label) in [("4096", "4 KiB"), ("65536", "64 KiB"), ("1048576", "1 MiB")] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            let bytes = STREAM.to_string();
            for _ in 0..ROUNDS {
                let start = Instant::now();
                succeed(self.plain(&["produce", text(&file), size, &bytes]))?;
                succeed(self.plain(&["consume", text(&file), size]))?;
                theirs.push(start.elapsed().as_secs_f64());
                std::fs::remove_file(&file)?;
                ours.push(self.stream(&self.session()?, size, &bytes)?);
            }
            let label = format!("1 GiB by {label}, both at once");
            let aim = if size == "4096" { "3 x shorter" } else { "" };
            let (ours, theirs) = (median(ours), median(theirs));
            row(&label, ours * 1e3, theirs * 1e3, "ms", aim);
        }
        Ok(())
    }

    fn stream(&self, session: &Session, size: &str, bytes: &str) -> Result<f64, Failure> {
        let file = session.dir.join("stream");
        let start = Instant::now();
        let consumer = self
            .taken_over(session, "to", &["consume", text(&file), size])
            .stdout(Stdio::piped())
            .spawn()?;
        succeed(self.taken_over(session, "from", &["produce", text(&file), size, bytes]))?;
        let output = consumer.wait_with_output()?;
        let elapsed = start.elapsed().as_secs_f64();
        let consumed = format!("consumed {bytes}\n");
        if output.status.success() && output.stdout == consumed.as_bytes() {
            return Ok(elapsed);
        }
        Err("the consumer has not got what was produced".into())
    }

    /// A stream of four times the cache, both at once and one after the other,
    /// against one after the other in memory and on the disk of the store.
    fn overflow(&self) -> Result<(), Failure> {
        const SIZE: &str = "1048576";
        let bytes = STREAM.to_string();
        let disk = tempfile::tempdir_in("/var/tmp")?;
        let places = [self.base.path().join("stream"), disk.path().join("stream")];
        let mut times: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let [at_once, in_turn, others @ ..] = &mut times;
            for (place, times) in places.iter().zip(others) {
                let start = Instant::now();
                succeed(self.plain(&["produce", text(place), SIZE, &bytes]))?;
                succeed(self.plain(&["consume", text(place), SIZE]))?;
                times.push(start.elapsed().as_secs_f64());
                std::fs::remove_file(place)?;
            }
            at_once.push(self.stream(&self.session_of("256MiB")?, SIZE, &bytes)?);
            let session = self.session_of("256MiB")?;
            let file = session.dir.join("other");
            let start = Instant::now();
            succeed(self.taken_over(&session, "a", &["produce", text(&file), SIZE, &bytes]))?;
            succeed(self.taken_over(&session, "a", &["consume", text(&file), SIZE]))?;
            in_turn.push(start.elapsed().as_secs_f64());
        }
        let [at_once, in_turn, memory, disk] = times.map(|times| 1e3 * median(times));
        let rows = [
            ("4 x the cache at once, on tmpfs", at_once, memory),
            ("4 x the cache at once, on disk", at_once, disk),
            ("4 x the cache in turn, on tmpfs", in_turn, memory),
            ("4 x the cache in turn, on disk", in_turn, disk),
        ];
        for (label, ours, theirs) in rows {
            row(label, ours, theirs, "ms", "");
        }
        Ok(())
    }

    /// The longest write of a producer that the device keeps up with, of four
    /// times the cache, against one on the disk of the store.
    fn longest_write(&self) -> Result<(), Failure> {
        let bytes = (STREAM / 4).to_string();
        let disk = tempfile::tempdir_in("/var/tmp")?;
        let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            let place = disk.path().join("paced");
            theirs.add(figures(self.plain(&["paced", text(&place), &bytes]))?);
            let session = self.session_of("64MiB")?;
            let place = session.dir.join("paced");
            ours.add(figures(self.taken_over(
                &session,
                "a",
                &["paced", text(&place), &bytes],
            ))?);
        }
        let (ours, theirs) = (ours.median("longest-write"), theirs.median("longest-write"));
        let label = "longest write at 100 MiB/s, on disk";
        row(label, ours, theirs, "ms", "50 ms at most");
        Ok(())
    }

    /// `cp -r` of many small files into the directory and out of it.
    fn trees(&self) -> Result<(), Failure> {
        let (from, to) = (self.base.path().join("tree"), self.base.path().join("out"));
        for number in 0..10_000 {
            let dir = from.join((number / 100).to_string());
            std::fs::create_dir_all(&dir)?;
            std::fs::write(dir.join(number.to_string()), vec![7; 1 + number % 6000])?;
        }
        let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            let session = self.session()?;
            let plain = self.base.path().join("copy");
            for (inner, rounds) in [(session.dir.join("copy"), &mut ours), (plain, &mut theirs)] {
                for (name, a, b) in [("in", &from, &inner), ("out", &inner, &to)] {
                    let mut copy = Command::new("cp");
                    copy.arg("-r").args([a, b]);
                    if inner.starts_with(&session.dir) {
                        session.take_over(&mut copy, "a");
                    }
                    let start = Instant::now();
                    succeed(copy)?;
                    rounds.add(BTreeMap::from([(
                        name.to_owned(),
                        start.elapsed().as_secs_f64() * 1e3,
                    )]));
                }
                std::fs::remove_dir_all(&to)?;
                // Nothing of ours is there for us, who are not in the session.
                let _ = std::fs::remove_dir_all(&inner);
            }
        }
        for (name, label) in [("in", "cp -r of 10,000 files in"), ("out", "and out")] {
            row(label, ours.median(name), theirs.median(name), "ms", "");
        }
        Ok(())
    }

    /// A file that is mapped: its move into an inode, and reads by the mapping.
    fn mapped(&self) -> Result<(), Failure> {
        let bytes = STREAM.to_string();
        let file = self.base.path().join("mapped");
        let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            theirs.add(figures(self.plain(&["mapped", text(&file), &bytes]))?);
            let session = self.session()?;
            let file = session.dir.join("mapped");
            ours.add(figures(self.taken_over(
                &session,
                "from",
                &["mapped", text(&file), &bytes],
            ))?);
        }
        let rows = [
            ("mmap", "first mmap of 1 GiB in the cache", "ms", ""),
            (
                "mapped-read",
                "mapped read, 8 B at random",
                "ns",
                "0.95 x at least",
            ),
        ];
        for (name, label, unit, aim) in rows {
            row(label, ours.median(name), theirs.median(name), unit, aim);
        }
        Ok(())
    }

    /// From a write to the return of the read that waited for it.
    fn wake_up(&self) -> Result<(), Failure> {
        let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            theirs.add(figures(self.plain(&["futex", "200"]))?);
            let session = self.session()?;
            let file = session.dir.join("stream");
            let mut writer = self
                .taken_over(&session, "from", &["tick", text(&file), "200"])
                .spawn()?;
            ours.add(figures(self.taken_over(
                &session,
                "to",
                &["tock", text(&file)],
            ))?);
            writer.wait()?;
        }
        let (ours, theirs) = (ours.median("wake-up"), theirs.median("wake-up"));
        row("wake-up, a futex pair", ours, theirs, "ns", "1.5 x at most");
        Ok(())
    }

    /// Calls on a file outside of `CAPIO_DIR`, with the library and without.
    fn foreign(&self) -> Result<(), Failure> {
        let file = self.base.path().join("foreign");
        std::fs::write(&file, "x")?;
        let session = self.session()?;
        let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            theirs.add(figures(self.plain(&["foreign", text(&file)]))?);
            ours.add(figures(self.taken_over(
                &session,
                "from",
                &["foreign", text(&file)],
            ))?);
        }
        for name in ["pread", "lseek", "stat", "open-close"] {
            let key = format!("foreign-{name}");
            let (ours, theirs) = (ours.median(&key), theirs.median(&key));
            let calls = if name == "open-close" { 2.0 } else { 1.0 };
            let aim = format!("{:+.0} ns a call, aim +50", (ours - theirs) / calls);
            row(&format!("not ours: {name}"), ours, theirs, "ns", &aim);
        }
        Ok(())
    }

    /// Start and end of a process.
    fn start(&self) -> Result<(), Failure> {
        let session = self.session()?;
        let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            theirs.add(figures(self.plain(&["start", "200"]))?);
            ours.add(figures(self.taken_over(
                &session,
                "from",
                &["start", "200"],
            ))?);
        }
        let (ours, theirs) = (ours.median("start"), theirs.median("start"));
        let aim = format!("{:+.2} ms, aim +0.3", (ours - theirs) / 1e3);
        row("start of a process", ours, theirs, "us", &aim);
        Ok(())
    }
}

impl Session {
    /// Has the command run as a process of `step`.
    fn take_over(&self, command: &mut Command, step: &str) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("CAPIO_DIR", &self.dir)
            .env("CAPIO_WORKFLOW_NAME", "bench")
            .env("CAPIO_APP_NAME", step);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.server.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.server.wait();
    }
}

/// Figures of several rounds.
#[derive(Default)]
struct Rounds(BTreeMap<String, Vec<f64>>);

impl Rounds {
    fn add(&mut self, figures: Figures) {
        for (name, value) in figures {
            self.0.entry(name).or_default().push(value);
        }
    }

    fn median(&self, name: &str) -> f64 {
        median(self.0.get(name).cloned().unwrap_or_default())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs a command that prints `name value` lines.
fn figures(mut command: Command) -> Result<Figures, Failure> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, value)| Ok((name.to_owned(), value.parse()?)))
        .collect()
}

fn succeed(mut command: Command) -> Result<(), Failure> {
    let status = command.stdout(Stdio::null()).status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed: {status}").into())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path was made here")
}

fn row(label: &str, ours: f64, theirs: f64, unit: &str, aim: &str) {
    let ratio = if ours <= theirs {
        format!("{:.1} x", theirs / ours)
    } else {
        format!("1/{:.2} x", ours / theirs)
    };
    let (ours, theirs) = (format!("{ours:.1} {unit}"), format!("{theirs:.1} {unit}"));
    println!("{label:<34} {ours:>14} {theirs:>14} {ratio:>9}  {aim}");
}
