//! The end of a session under the eyes of a user, who may not want to wait.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::run::signals::{Signals, is_passed_on};
use crate::session::{DrainReport, Session};

/// How soon a signal, or the end, is noticed.
const TICK: Duration = Duration::from_millis(10);

/// Drains the session. The second signal meanwhile gives the results up, if
/// they can be; it comes with the report then.
pub(super) fn drain(
    session: &dyn Session,
    success: bool,
    signals: &Signals,
    say: impl Fn(&str),
) -> (DrainReport, Option<Signal>) {
    std::thread::scope(|scope| {
        let draining = scope.spawn(|| session.drain(success));
        let mut arrived = Vec::new();
        while !draining.is_finished() {
            std::thread::sleep(TICK);
            let Some(signal) = signals.pending().filter(|signal| !is_passed_on(*signal)) else {
                continue;
            };
            arrived.push(signal);
            match arrived.len() {
                1 => say(&format!(
                    "{signal}: writing results; once more to give them up"
                )),
                2 => session.give_up(),
                _ => {}
            }
        }
        let report = draining.join().unwrap_or_else(|_| DrainReport {
            errors: vec!["the results could not be written: the coordinator failed".to_owned()],
            ..DrainReport::default()
        });
        let by = arrived.get(1).copied().filter(|_| report.given_up);
        (report, by)
    })
}
