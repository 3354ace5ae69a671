//! Shows how far the steps are: a live line each on a terminal, now and then
//! a line elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::driver::{Phase, State};
use super::screen::Screen;
use super::workflow::Step;
use crate::report::format::{bytes, seconds};
use crate::session::{Session, Snapshot, StepEnd, StepSnapshot, WaitNow};

/// Without a terminal: how often waits are told.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// A wait shorter than this is not worth a plain line.
const LONG_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Display {
    screen: Arc<Screen>,
    names: Vec<String>,
    width: usize,
    lines: Vec<ProgressBar>,
    told: Instant,
}

impl Display {
    pub(super) fn new(screen: &Arc<Screen>, steps: &[Step], width: usize) -> Self {
        Self {
            screen: Arc::clone(screen),
            names: steps.iter().map(|step| step.name.clone()).collect(),
            width,
            lines: steps.iter().map_while(|_| screen.live_line()).collect(),
            told: Instant::now(),
        }
    }

    pub(super) fn started(&self, step: &str) {
        if !self.screen.is_live() {
            self.screen.say(&format!("step {step}: started"));
        }
    }

    pub(super) fn ended(&self, step: &str, state: &State) {
        if self.screen.is_live() && state.end.is_success() {
            return;
        }
        let after = match state.end {
            StepEnd::NotStarted(_) => String::new(),
            _ => format!(" after {}", seconds(state.ran().as_secs_f64())),
        };
        self.screen
            .say(&format!("step {step}: {}{after}", state.end));
    }

    pub(super) fn renew(&mut self, states: &[State], session: Option<&dyn Session>) {
        let live = self.screen.is_live();
        if !live && (self.told.elapsed() < PLAIN_EVERY || session.is_none()) {
            return;
        }
        self.told = Instant::now();
        let snapshot = session.map(Session::snapshot);
        for (index, state) in states.iter().enumerate() {
            let step = step_of(snapshot.as_ref(), &self.names[index]);
            match self.lines.get(index) {
                Some(line) => line.set_message(self.live_text(index, state, step)),
                None => self.tell(index, state, step),
            }
        }
    }

    fn live_text(&self, index: usize, state: &State, step: Option<&StepSnapshot>) -> String {
        let phase = match &state.phase {
            Phase::Pending => "pending".to_owned(),
            Phase::Running { .. } => "running".to_owned(),
            Phase::Ended if state.end.is_success() => "done".to_owned(),
            Phase::Ended => state.end.to_string(),
        };
        let ran = seconds(state.ran().as_secs_f64());
        let mut text = format!(
            "{:width$}  {phase:8} {ran:>9}",
            self.names[index],
            width = self.width
        );
        if let Some(step) = step {
            let (read, written) = (bytes(step.bytes_read), bytes(step.bytes_written));
            text.push_str(&format!("  {read:>10} in  {written:>10} out"));
            if let Some(wait) = longest(&step.waiting) {
                text.push_str(&format!("  waits {}", describe(wait)));
            }
        }
        text
    }

    fn tell(&self, index: usize, state: &State, step: Option<&StepSnapshot>) {
        let Some(step) = step.filter(|_| matches!(state.phase, Phase::Running { .. })) else {
            return;
        };
        let Some(wait) = longest(&step.waiting).filter(|wait| duration(wait) >= LONG_WAIT) else {
            return;
        };
        self.screen.say(&format!(
            "step {}: {} in, {} out, waits {}",
            self.names[index],
            bytes(step.bytes_read),
            bytes(step.bytes_written),
            describe(wait)
        ));
    }

    pub(super) fn finish(&self) {
        for line in &self.lines {
            line.finish_and_clear();
        }
        self.screen.clear();
    }
}

fn step_of<'a>(snapshot: Option<&'a Snapshot>, name: &str) -> Option<&'a StepSnapshot> {
    snapshot?.step(name)
}

fn longest(waiting: &[WaitNow]) -> Option<&WaitNow> {
    waiting.iter().max_by_key(|wait| wait.nanoseconds)
}

fn duration(wait: &WaitNow) -> Duration {
    Duration::from_nanos(wait.nanoseconds)
}

/// `3.2 s for ref.fa (to exist)`.
fn describe(wait: &WaitNow) -> String {
    let time = seconds(duration(wait).as_secs_f64());
    format!("{time} for {} ({})", wait.path, wait.reason)
}
