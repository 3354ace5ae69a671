//! The terminal: live lines at the bottom, everything else scrolling above.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One of the two output streams of `capio` itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output: what steps print there.
    Stdout,
    /// Standard error: the same, and what `capio` has to say.
    Stderr,
}

/// Writes to both streams without tearing lines or the live display.
pub struct Screen {
    live: Option<MultiProgress>,
    colour: bool,
    /// What steps print on standard output goes to standard error.
    diverted: bool,
    lock: Mutex<()>,
}

/// Colours of prefixes, by step: those that are readable on dark and light.
const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];

impl Screen {
    /// Live lines if standard error is a terminal; colours if both are and
    /// `NO_COLOR` is not set.
    #[must_use]
    pub fn detect() -> Self {
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let target = || MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Self {
            live: (err && !dumb).then(target),
            colour: out
                && err
                && !dumb
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
            diverted: false,
            lock: Mutex::new(()),
        }
    }

    /// Keeps standard output free for something else: whatever is written
    /// there goes to standard error.
    #[must_use]
    pub fn divert_output(mut self) -> Self {
        self.diverted = true;
        self
    }

    /// Neither live lines nor colours.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            live: None,
            colour: false,
            diverted: false,
            lock: Mutex::new(()),
        }
    }

    /// Whether [`Screen::live_line`] gives lines.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// A new line at the bottom of the terminal.
    #[must_use]
    pub fn live_line(&self) -> Option<ProgressBar> {
        let style = ProgressStyle::with_template("{wide_msg}").ok()?;
        let line = self.live.as_ref()?.add(ProgressBar::new_spinner());
        line.set_style(style);
        Some(line)
    }

    /// The prefix of lines of this step, its name padded to `width`.
    #[must_use]
    pub fn prefix(&self, name: &str, width: usize) -> String {
        if !self.colour {
            return format!("{name:width$} | ");
        }
        let sum = name
            .bytes()
            .fold(0usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
        let colour = COLOURS[sum % COLOURS.len()];
        format!("\x1b[{colour}m{name:width$} |\x1b[0m ")
    }

    /// Writes whole lines. A stream that is closed takes nothing more, which
    /// is no reason to end a run.
    pub fn write(&self, stream: Stream, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let write = || {
            let _ = match stream {
                Stream::Stdout if !self.diverted => write_all(io::stdout().lock(), lines),
                _ => write_all(io::stderr().lock(), lines),
            };
        };
        let _guard = self.lock.lock();
        match &self.live {
            Some(live) => live.suspend(write),
            None => write(),
        }
    }

    /// One line of `capio`'s own on standard error.
    pub fn say(&self, line: &str) {
        self.write(Stream::Stderr, format!("capio: {line}\n").as_bytes());
    }

    /// Removes the live lines.
    pub fn clear(&self) {
        if let Some(live) = &self.live {
            let _ = live.clear();
        }
    }
}

fn write_all(mut stream: impl Write, lines: &[u8]) -> io::Result<()> {
    stream.write_all(lines)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_line_up_so_that_output_stays_readable() {
        let screen = Screen::plain();
        assert_eq!(screen.prefix("sort", 6), "sort   | ");
        assert_eq!(screen.prefix("longer-name", 6), "longer-name | ");
    }
}
