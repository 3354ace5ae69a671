//! Drives the steps of a workflow from the first start to the last end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::display::Display;
use super::launch;
use super::output::Output;
use super::screen::Screen;
use super::signals::{Signals, is_passed_on};
use super::supervise::{Event, Supervisor};
use super::workflow::Step;
use crate::session::{Session, StepEnd};

/// How often deadlines are looked at and the display is renewed.
const TICK: Duration = Duration::from_millis(200);
/// How long after its command's end a step may go on before it is explained.
const EXPLAIN_AFTER: Duration = Duration::from_secs(5);

/// What to run, and how to end it when it does not end by itself.
pub struct Plan {
    /// The steps, their `after` free of circles.
    pub steps: Vec<Step>,
    /// The workflow's directory: `CAPIO_DIR`, or the copy of it.
    pub dir: PathBuf,
    /// Directory for one log a step, instead of the screen.
    pub logs: Option<PathBuf>,
    /// Start a step only when no other runs: in the order of the file where
    /// `after` allows.
    pub one_at_a_time: bool,
    /// A failed step ends only those that come after it.
    pub continue_on_error: bool,
    /// After a failure: for others to fail by themselves, on reading what will
    /// never be complete, before they are told to end.
    pub failure_grace: Duration,
    /// From being told to end to being killed.
    pub grace: Duration,
}

/// How a run went.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// In the plan's order.
    pub steps: Vec<StepRun>,
    /// Index of the step that failed first, unless it was made to end.
    pub first_failure: Option<usize>,
    /// The signal that ended the run.
    pub interrupted: Option<Signal>,
    /// From the first start to the last end.
    pub wall: Duration,
}

/// How one step went.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRun {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub end: StepEnd,
    /// When it started, from the start of the run.
    pub started: Option<Duration>,
    /// From its start to the end of its last process.
    pub ran: Duration,
    /// The exit status that stands for `end`.
    pub exit_status: u8,
}

impl Outcome {
    /// Whether every step did all it was asked for.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.interrupted.is_none() && self.steps.iter().all(|step| step.end.is_success())
    }
}

/// A run in progress.
pub struct Driver<'a> {
    plan: &'a Plan,
    session: Option<&'a dyn Session>,
    signals: Option<&'a Signals>,
    screen: Arc<Screen>,
    output: Output,
    display: Display,
    supervisor: Supervisor,
    began: Instant,
    states: Vec<State>,
    instances: Vec<Instance>,
    first_failure: Option<usize>,
    interrupted: Option<Signal>,
    ending: Option<Ending>,
}

/// Where a step stands in the driver's eyes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) started: Option<Instant>,
    pub(super) ended: Option<Instant>,
    pub(super) end: StepEnd,
    exit_status: u8,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running { instances: usize },
    Ended,
}

struct Instance {
    step: usize,
    gone: bool,
    ended: Option<Instant>,
    explained: bool,
}

struct Ending {
    signal: Signal,
    reason: String,
    tell_at: Instant,
    kill_at: Instant,
    told: bool,
    killed: bool,
}

impl<'a> Driver<'a> {
    /// Gets ready; nothing is started yet. Without a session the steps run
    /// on the plain file system. To be driven by a thread that lives as long
    /// as the process.
    ///
    /// # Errors
    /// When the directory for logs cannot be made.
    pub fn new(
        plan: &'a Plan,
        session: Option<&'a dyn Session>,
        signals: Option<&'a Signals>,
        screen: &Arc<Screen>,
    ) -> io::Result<Self> {
        let labels = plan
            .steps
            .iter()
            .map(|step| launch::label(step, step.instances - 1).len());
        let width = labels.max().unwrap_or(0);
        let blocked = match signals {
            Some(signals) => signals.before(),
            None => SigSet::thread_get_mask()?,
        };
        Ok(Self {
            plan,
            session,
            signals,
            output: Output::new(Arc::clone(screen), plan.logs.clone(), width)?,
            display: Display::new(screen, &plan.steps, width),
            screen: Arc::clone(screen),
            supervisor: Supervisor::new(blocked)?,
            began: Instant::now(),
            states: plan.steps.iter().map(|_| State::pending()).collect(),
            instances: Vec::new(),
            first_failure: None,
            interrupted: None,
            ending: None,
        })
    }

    /// Runs all steps to their end.
    ///
    /// # Errors
    /// When the steps can no longer be watched over; they are killed then.
    pub fn run(mut self) -> io::Result<Outcome> {
        self.began = Instant::now();
        self.on_signals();
        self.start_ready();
        while self.states.iter().any(|state| state.phase != Phase::Ended) {
            let wake = self.signals.map(Signals::fd);
            for event in self.supervisor.wait(TICK, wake)? {
                self.on_event(event);
            }
            self.on_signals();
            self.press_ending();
            self.start_ready();
            self.explain_leftovers();
            self.display.renew(&self.states, self.session);
        }
        self.output.finish();
        self.display.finish();
        Ok(self.outcome())
    }

    /// Starts every step whose time has come, and gives up those whose time
    /// will not come.
    fn start_ready(&mut self) {
        while let Some((step, verdict)) = self.next_due() {
            match verdict {
                Ok(()) => self.start(step),
                Err(reason) => {
                    self.states[step].end = StepEnd::NotStarted(reason);
                    self.finish(step);
                }
            }
        }
    }

    fn next_due(&self) -> Option<(usize, Result<(), String>)> {
        (0..self.states.len()).find_map(|step| Some((step, self.due(step)?)))
    }

    /// What to do now with a step that is pending, if anything.
    fn due(&self, step: usize) -> Option<Result<(), String>> {
        if self.states[step].phase != Phase::Pending {
            return None;
        }
        if let Some(ending) = &self.ending {
            return Some(Err(ending.reason.clone()));
        }
        let before = &self.plan.steps[step].after;
        let failed = before.iter().find(|&&other| {
            self.states[other].phase == Phase::Ended && !self.states[other].end.is_success()
        });
        if let Some(&failed) = failed {
            let name = &self.plan.steps[failed].name;
            return Some(Err(format!("it comes after {name}, which did not succeed")));
        }
        let is_running = |state: &State| matches!(state.phase, Phase::Running { .. });
        let ready = !(self.plan.one_at_a_time && self.states.iter().any(is_running))
            && before
                .iter()
                .all(|&other| self.states[other].phase == Phase::Ended);
        ready.then_some(Ok(()))
    }

    fn start(&mut self, index: usize) {
        let step = &self.plan.steps[index];
        if let Some(session) = self.session {
            session.step_started(&step.name);
        }
        self.states[index].started = Some(Instant::now());
        self.display.started(&step.name);
        let mut running = 0;
        for number in 0..step.instances {
            match self.spawn(index, number) {
                Ok(()) => running += 1,
                Err(error) => {
                    self.on_spawn_error(index, number, &error);
                    break;
                }
            }
        }
        self.states[index].phase = Phase::Running { instances: running };
        if running == 0 {
            self.finish(index);
        }
    }

    fn spawn(&mut self, index: usize, number: u32) -> io::Result<()> {
        let step = &self.plan.steps[index];
        let mut command = launch::command(step, number, &self.plan.dir, self.session);
        let label = launch::label(step, number);
        let captured = self.output.connect(&mut command, &step.name, &label)?;
        self.supervisor.spawn(self.instances.len(), command)?;
        captured.start(&mut self.output);
        self.instances.push(Instance {
            step: index,
            gone: false,
            ended: None,
            explained: false,
        });
        Ok(())
    }

    fn on_spawn_error(&mut self, index: usize, number: u32, error: &io::Error) {
        let step = &self.plan.steps[index];
        let (reason, status) = launch::explain(step, &self.plan.dir, self.session, error);
        let end = match number {
            0 => StepEnd::NotStarted(reason),
            _ => {
                let name = &step.name;
                self.screen
                    .say(&format!("step {name}: instance {number}: {reason}"));
                StepEnd::ExitCode(status.into())
            }
        };
        self.fail(index, end, status);
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Ended { id, end } => {
                self.instances[id].ended = Some(Instant::now());
                if !end.is_success() {
                    let status = exit_status(&end);
                    self.fail(self.instances[id].step, end, status);
                }
            }
            Event::Gone { id } => {
                let step = self.instances[id].step;
                self.instances[id].gone = true;
                if let Phase::Running { instances } = &mut self.states[step].phase {
                    *instances -= 1;
                    if *instances == 0 {
                        self.finish(step);
                    }
                }
            }
        }
    }

    /// An instance of the step failed. Of several the first one counts.
    fn fail(&mut self, step: usize, end: StepEnd, status: u8) {
        let state = &mut self.states[step];
        if state.end.is_success() {
            state.end = end;
            state.exit_status = status;
        }
        if self.interrupted.is_some() || self.first_failure.is_some() {
            return;
        }
        self.first_failure = Some(step);
        if !self.plan.continue_on_error {
            let name = &self.plan.steps[step].name;
            let reason = format!("step {name} had failed");
            self.end_all(Signal::SIGTERM, self.plan.failure_grace, reason);
        }
    }

    /// Nothing of the step is left.
    fn finish(&mut self, index: usize) {
        let state = &mut self.states[index];
        state.phase = Phase::Ended;
        state.ended = Some(Instant::now());
        let name = &self.plan.steps[index].name;
        if let Some(session) = self.session {
            session.step_ended(name, &state.end);
        }
        self.display.ended(name, state);
    }

    fn end_all(&mut self, signal: Signal, patience: Duration, reason: String) {
        let tell_at = Instant::now() + patience;
        self.ending = Some(Ending {
            signal,
            reason,
            tell_at,
            kill_at: tell_at + self.plan.grace,
            told: false,
            killed: false,
        });
    }

    fn on_signals(&mut self) {
        while let Some(signal) = self.signals.and_then(Signals::pending) {
            if is_passed_on(signal) {
                let all = 0..self.instances.len();
                all.for_each(|id| self.supervisor.signal_program(id, signal));
                continue;
            }
            if self.interrupted.is_some() {
                if let Some(ending) = &mut self.ending {
                    ending.kill_at = Instant::now();
                }
                continue;
            }
            self.interrupted = Some(signal);
            self.screen.say(&format!(
                "{signal}: ending all steps (again to kill them at once)"
            ));
            // An interrupt from a keyboard is often ignored by what a shell
            // runs in the background: the steps get what asks them to end.
            let passed_on = match signal {
                Signal::SIGINT => Signal::SIGTERM,
                other => other,
            };
            self.end_all(passed_on, Duration::ZERO, format!("{signal} ended the run"));
        }
    }

    fn press_ending(&mut self) {
        let Some(ending) = &mut self.ending else {
            return;
        };
        let now = Instant::now();
        let live = self
            .instances
            .iter()
            .enumerate()
            .filter(|(_, instance)| !instance.gone);
        if now >= ending.tell_at && !ending.told {
            ending.told = true;
            for (id, _) in live.clone() {
                self.supervisor.signal(id, ending.signal);
                self.supervisor.signal(id, Signal::SIGCONT);
            }
        }
        if now >= ending.kill_at && !ending.killed {
            ending.killed = true;
            live.for_each(|(id, _)| self.supervisor.kill(id));
        }
    }

    /// Says why a step has not ended although its command has.
    fn explain_leftovers(&mut self) {
        for (id, instance) in self.instances.iter_mut().enumerate() {
            let due = instance
                .ended
                .is_some_and(|ended| ended.elapsed() >= EXPLAIN_AFTER);
            if instance.gone || instance.explained || !due {
                continue;
            }
            instance.explained = true;
            let left = self.supervisor.processes(id);
            let left: Vec<_> = left
                .iter()
                .map(|(pid, name)| format!("{name} ({pid})"))
                .collect();
            self.screen.say(&format!(
                "step {}: its command has ended, but not what it started: {}; \
                 the step ends with them",
                self.plan.steps[instance.step].name,
                left.join(", ")
            ));
        }
    }

    fn outcome(&self) -> Outcome {
        let steps = self
            .plan
            .steps
            .iter()
            .zip(&self.states)
            .map(|(step, state)| StepRun {
                name: step.name.clone(),
                end: state.end.clone(),
                started: state.started.map(|started| started - self.began),
                ran: state.ran(),
                exit_status: state.exit_status,
            });
        Outcome {
            steps: steps.collect(),
            first_failure: self.first_failure,
            interrupted: self.interrupted,
            wall: self.began.elapsed(),
        }
    }
}

impl State {
    fn pending() -> Self {
        Self {
            phase: Phase::Pending,
            started: None,
            ended: None,
            end: StepEnd::Success,
            exit_status: 0,
        }
    }

    /// For how long it ran, or has been running.
    pub(super) fn ran(&self) -> Duration {
        let Some(started) = self.started else {
            return Duration::ZERO;
        };
        self.ended
            .unwrap_or_else(Instant::now)
            .duration_since(started)
    }
}

/// The status a shell would give: of a signal 128 more than its number.
fn exit_status(end: &StepEnd) -> u8 {
    match end {
        StepEnd::Success => 0,
        StepEnd::ExitCode(code) => u8::try_from(*code).unwrap_or(1),
        StepEnd::Signal(signal) => u8::try_from(128 + signal).unwrap_or(255),
        StepEnd::NotStarted(_) => 126,
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
