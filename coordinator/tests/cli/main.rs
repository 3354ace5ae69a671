//! The commands as a user runs them: real processes, real exit statuses.

mod check;
mod fail;
mod place;
mod results;
mod run;
mod serve;
mod server;
mod sets;
