//! What steps print: each line with the step's name before it, or in a log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::screen::{Screen, Stream};

/// A line longer than this is broken, so that memory stays bounded.
const MAX_LINE: usize = 64 * 1024;
/// How long after the end of all steps their pipes may stay open, held by a
/// process that none of them started, before their readers are abandoned.
const PATIENCE: Duration = Duration::from_secs(2);

/// Puts a prefix before every line of a stream that arrives in pieces.
#[derive(Debug)]
pub struct Prefixer {
    prefix: Vec<u8>,
    partial: Vec<u8>,
}

impl Prefixer {
    /// Lines will start with `prefix`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.as_bytes().to_vec(),
            partial: Vec::new(),
        }
    }

    /// Takes a piece, appends the lines it completes to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") || self.partial.len() >= MAX_LINE {
                self.finish(out);
            }
        }
    }

    /// Appends the last line, if it did not end yet.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.partial.is_empty() {
            return;
        }
        out.extend_from_slice(&self.prefix);
        out.append(&mut self.partial);
        if !out.ends_with(b"\n") {
            out.push(b'\n');
        }
    }
}

/// Where the output of steps goes.
pub struct Output {
    screen: Arc<Screen>,
    logs: Option<PathBuf>,
    width: usize,
    readers: Vec<JoinHandle<()>>,
}

impl Output {
    /// To the screen, names padded to `width`, or to one file a step in `logs`.
    ///
    /// # Errors
    /// When the directory `logs` can be neither found nor made.
    pub fn new(screen: Arc<Screen>, logs: Option<PathBuf>, width: usize) -> io::Result<Self> {
        if let Some(dir) = &logs {
            std::fs::create_dir_all(dir)?;
        }
        Ok(Self {
            screen,
            logs,
            width,
            readers: Vec::new(),
        })
    }

    /// Connects the output of `command`, an instance of `step` that is shown
    /// as `label`. [`Captured::start`] is due once it is spawned.
    ///
    /// # Errors
    /// When a pipe or the log file cannot be opened.
    pub fn connect(&self, command: &mut Command, step: &str, label: &str) -> io::Result<Captured> {
        if let Some(logs) = &self.logs {
            let log = open_log(logs, step)?;
            command.stdout(log.try_clone()?).stderr(log);
            return Ok(Captured(Vec::new()));
        }
        let prefix = self.screen.prefix(label, self.width);
        let mut streams = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let (reader, writer) = io::pipe()?;
            match stream {
                Stream::Stdout => command.stdout(Stdio::from(writer)),
                Stream::Stderr => command.stderr(Stdio::from(writer)),
            };
            streams.push((stream, reader, Prefixer::new(&prefix)));
        }
        Ok(Captured(streams))
    }

    /// Waits until all that was written before the steps ended is out.
    pub fn finish(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for reader in self.readers.drain(..) {
            while !reader.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if reader.is_finished() {
                let _ = reader.join();
            }
        }
    }
}

/// The reading ends of an instance that is being spawned.
#[must_use]
pub struct Captured(Vec<(Stream, io::PipeReader, Prefixer)>);

impl Captured {
    /// Starts reading; the command must be dropped, it holds the other ends.
    pub fn start(self, output: &mut Output) {
        for (stream, reader, prefixer) in self.0 {
            let screen = Arc::clone(&output.screen);
            let pump = move || pump(reader, prefixer, &screen, stream);
            output.readers.push(std::thread::spawn(pump));
        }
    }
}

fn open_log(logs: &Path, step: &str) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(logs.join(format!("{step}.log")))
}

fn pump(mut reader: io::PipeReader, mut prefixer: Prefixer, screen: &Screen, stream: Stream) {
    let mut buffer = vec![0; MAX_LINE];
    let mut lines = Vec::new();
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => prefixer.push(&buffer[..count], &mut lines),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        screen.write(stream, &lines);
        lines.clear();
    }
    prefixer.finish(&mut lines);
    screen.write(stream, &lines);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefixed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut prefixer = Prefixer::new("a | ");
        let mut out = Vec::new();
        for piece in pieces {
            prefixer.push(piece, &mut out);
        }
        prefixer.finish(&mut out);
        out
    }

    #[test]
    fn a_last_line_without_newline_is_not_lost() {
        assert_eq!(prefixed(&[b"one\ntw", b"o"]), b"a | one\na | two\n");
        assert_eq!(prefixed(&[b"\n\n"]), b"a | \na | \n");
        assert_eq!(prefixed(&[]), b"");
    }

    #[test]
    fn an_endless_line_does_not_eat_the_memory() {
        let mut prefixer = Prefixer::new("");
        let mut out = Vec::new();
        for _ in 0..1000 {
            prefixer.push(&[b'x'; 1000], &mut out);
            assert!(prefixer.partial.len() <= MAX_LINE);
        }
        prefixer.finish(&mut out);
        assert_eq!(out.iter().filter(|&&byte| byte == b'x').count(), 1_000_000);
    }

    proptest! {
        #[test]
        fn where_the_pieces_are_cut_makes_no_difference(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cut in 0usize..200,
        ) {
            let cut = cut.min(text.len());
            let (head, tail) = text.split_at(cut);
            prop_assert_eq!(prefixed(&[head, tail]), prefixed(&[&text]));
        }
    }

    #[test]
    fn a_log_holds_both_streams_of_every_instance_and_run() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let mut output = Output::new(Arc::new(Screen::plain()), Some(logs.clone()), 0).unwrap();
        for _ in 0..2 {
            let mut command = Command::new("sh");
            command.args(["-c", "echo out; echo err >&2"]);
            let captured = output.connect(&mut command, "align", "align").unwrap();
            assert!(command.status().unwrap().success());
            captured.start(&mut output);
        }
        output.finish();
        let log = std::fs::read_to_string(logs.join("align.log")).unwrap();
        assert_eq!(log, "out\nerr\nout\nerr\n");
    }
}
