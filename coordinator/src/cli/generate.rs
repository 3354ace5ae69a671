//! Shell completions and manual pages, from the definition of the arguments.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;

use super::args::Arguments;
use super::exit::{Done, Failure, OK};

pub(super) fn completions(shell: clap_complete::Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "capio", &mut script);
    print(&script)
}

pub(super) fn man(dir: Option<&Path>) -> Done {
    if let Some(dir) = dir {
        let written = std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Arguments::command(), dir));
        return written.map(|()| OK).map_err(|error| {
            Failure::usage(format!(
                "cannot write manual pages to {}: {error}",
                dir.display()
            ))
        });
    }
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(Arguments::command()).render(&mut page);
    rendered.map_err(Failure::session)?;
    print(&page)
}

/// Writes to standard output; a reader that has seen enough is no error.
pub(super) fn print(bytes: &[u8]) -> Done {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::session(format!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(OK),
    }
}
