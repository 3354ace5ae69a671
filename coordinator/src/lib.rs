//! The capio coordinator: one per session, and the `capio` command over it.
//!
//! [`session`] is the boundary between the two: the command starts a session
//! through it and knows nothing of shared memory or sockets; the engine knows
//! nothing of terminals, workflow files or child processes.

pub mod cli;
pub mod flow;
pub mod report;
pub mod run;
pub mod service;
pub mod session;

/// The engine that the binaries are built with.
pub const ENGINE: session::Engine = session::Engine {
    start: service::start,
    session_dir: service::session_dir,
    sessions: service::sessions,
    settle: service::settle,
    leftovers: service::leftovers,
};
