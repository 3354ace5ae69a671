//! Where log lines go: standard error, or a file.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format};
use tracing_subscriber::registry::LookupSpan;

use crate::run::screen::{Screen, Stream};

/// Environment variable with the filter: `warn`, `info`, `debug`, or as
/// `tracing-subscriber` has it.
pub const VARIABLE: &str = "CAPIO_LOG";

/// Log lines pass through the screen, so that they do not tear live lines.
pub fn to_screen(screen: &Arc<Screen>, default: &str) {
    let colour = io::stderr().is_terminal();
    install(ToScreen(Arc::clone(screen)), default, colour);
}

/// Warnings and errors in the words of `capio run`, between its own lines.
pub fn of_run(screen: &Arc<Screen>) {
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    if !wanted.is_empty() {
        return to_screen(screen, "warn");
    }
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("warn"))
        .event_format(Told)
        .with_writer(ToScreen(Arc::clone(screen)))
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// An event as a line of the command's own.
struct Told;

impl<S, N> FormatEvent<S, N> for Told
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: format::Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => "note",
        };
        write!(writer, "capio: {level}: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Log lines go to a file.
pub fn to_file(file: File, default: &str) {
    install(Mutex::new(file), default, false);
}

fn install<W>(writer: W, default: &str, colour: bool)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    let filter = EnvFilter::try_new(if wanted.is_empty() { default } else { &wanted });
    let wrong = filter.is_err();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new(default)))
        .with_ansi(colour)
        .with_target(false)
        .with_writer(writer)
        .finish();
    // Fails only when there is one already: then that one serves.
    let _ = tracing::subscriber::set_global_default(subscriber);
    if wrong {
        tracing::warn!("{VARIABLE}={wanted} is no log filter; write warn, info, debug or trace");
    }
}

struct ToScreen(Arc<Screen>);

impl<'a> MakeWriter<'a> for ToScreen {
    type Writer = ScreenWriter<'a>;

    fn make_writer(&'a self) -> ScreenWriter<'a> {
        ScreenWriter(&self.0)
    }
}

/// Takes one whole event at a time.
struct ScreenWriter<'a>(&'a Screen);

impl Write for ScreenWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(Stream::Stderr, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
