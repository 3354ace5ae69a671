//! The capio coordinator: one per session, and the `capio` command over it.
//!
//! [`session`] is the boundary between the two: the command starts a session
//! through it and knows nothing of shared memory or sockets; the engine knows
//! nothing of terminals, workflow files or child processes.

pub mod cli;
pub mod report;
pub mod run;
pub mod session;

/// The engine that the binaries are built with.
#[rustfmt::skip]
pub const ENGINE: session::Engine = session::Engine { start: |_| Err(session::SessionError::new("this build of capio has no engine for sessions")), session_dir: |dir, workflow| dir.join(workflow) };
