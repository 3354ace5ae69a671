//! A session that programs join by themselves, as with the C++ server.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::binaries::{beside_capio, capio};
use crate::process::{Finished, Running};
use crate::programs::program;
use crate::run::limit;
use crate::scratch::Scratch;
use crate::workflow::Workflow;

/// A running coordinator without steps of its own.
#[derive(Debug)]
pub struct Served {
    /// The coordinator; ends before its directories do.
    pub running: Running,
    /// The directories of the session.
    pub scratch: Scratch,
    /// The directory of the session, while it lives.
    pub session: PathBuf,
    workflow: String,
}

impl Workflow {
    /// Starts `capio serve` for this workflow's files and rules.
    ///
    /// # Panics
    /// When it is not ready after ten seconds.
    pub fn serve(&self, options: &[&str]) -> Served {
        self.hold(Command::new(capio()).arg("serve"), options)
    }

    /// As [`serve`](Self::serve), on a kernel that forgets how a process has
    /// ended once its parent knows (Linux before 6.15).
    ///
    /// # Panics
    /// When it is not ready after ten seconds.
    pub fn serve_without_exit_codes(&self) -> Served {
        let mut forgetful = Command::new(program("forgetful"));
        self.hold(forgetful.arg(capio()).arg("serve"), &[])
    }

    /// Starts `capio_server` with these arguments, as the C++ server's.
    ///
    /// # Panics
    /// When it is not ready after ten seconds.
    pub fn server(&self, options: &[&str]) -> Served {
        self.hold(&mut Command::new(beside_capio("capio_server")), options)
    }

    fn hold(&self, command: &mut Command, options: &[&str]) -> Served {
        let scratch = Scratch::new();
        self.prepare(&scratch.data());
        let spec = scratch.file("spec.json");
        fs::write(&spec, self.capio_cl()).expect("a scratch file can be written");
        command.args(options);
        if !options.contains(&"--no-config") {
            command.arg("-c").arg(spec);
        }
        let program = command.get_program().to_owned();
        let mut whole = Command::new(program);
        whole
            .args(command.get_args())
            .env("CAPIO_DIR", scratch.data())
            .env("CAPIO_WORKFLOW_NAME", &self.name)
            .current_dir(scratch.outside());
        let session = scratch.session(&self.name);
        let mut running = Running::start(whole, &scratch, "server");
        let socket = session.join(wire::place::SOCKET);
        running.wait_until(Duration::from_secs(10), "the socket", || socket.exists());
        Served {
            running,
            scratch,
            session,
            workflow: self.name.clone(),
        }
    }
}

impl Served {
    /// Starts a shell as a program of `step`, by the environment alone.
    ///
    /// # Panics
    /// When it does not start.
    pub fn client(&self, step: &str, script: &str) -> Running {
        let mut shell = self.command(step, "sh");
        shell.args(["-c", script]);
        Running::start(shell, &self.scratch, step)
    }

    /// A program of `step` in the session's directory, not yet started.
    pub fn command(&self, step: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("LD_PRELOAD", beside_capio("libcapio_posix.so"))
            .env("CAPIO_DIR", self.scratch.data())
            .env("CAPIO_APP_NAME", step)
            .env("CAPIO_WORKFLOW_NAME", &self.workflow)
            .current_dir(self.scratch.data());
        command
    }

    /// Runs a shell as a program of `step` to its end, which must be a good one.
    ///
    /// # Panics
    /// When it fails or hangs.
    pub fn run(&self, step: &str, script: &str) {
        let finished = self.client(step, script).finish(limit());
        finished.expect_success();
    }

    /// Runs a `capio` command from outside, on this session.
    ///
    /// # Panics
    /// When it does not start.
    pub fn capio(&self, arguments: &[&str]) -> Output {
        Command::new(capio())
            .args(arguments)
            .env("CAPIO_DIR", self.scratch.data())
            .env("CAPIO_WORKFLOW_NAME", &self.workflow)
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::null())
            .output()
            .expect("capio starts")
    }

    /// Ends the session by SIGTERM and waits for that.
    ///
    /// # Panics
    /// When it hangs or leaves its session behind.
    pub fn stop(self) -> (Scratch, Finished) {
        self.running.signal(nix::sys::signal::Signal::SIGTERM);
        self.ended()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it hangs or leaves its session behind.
    pub fn ended(self) -> (Scratch, Finished) {
        // A session may have lasted as long as its test wanted.
        let limit = self.running.age() + limit();
        let finished = self.running.finish(limit);
        finished.expect(
            !self.session.exists(),
            &format!("{} was left behind", self.session.display()),
        );
        finished.expect_no_survivors();
        (self.scratch, finished)
    }
}
