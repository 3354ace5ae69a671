//! How many connections there can be: one of each process, and a limited number
//! of those who have not greeted yet. So no client, whatever it opens, takes all
//! descriptors of the coordinator.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use tokio::task::AbortHandle;

/// Connections that have not greeted; of more, the oldest is given up. A client
/// greets at once, so that even two hundred that start together stay below.
const MAX_STRANGERS: usize = 256;

/// The tasks of a process that has greeted.
struct Attached {
    connection: AbortHandle,
    /// Waits for its end.
    watch: AbortHandle,
}

#[derive(Default)]
struct All {
    next: u64,
    /// In the order in which they came.
    strangers: VecDeque<(u64, AbortHandle)>,
    attached: HashMap<i32, Attached>,
}

/// All connections of the control socket; used by its thread alone.
#[derive(Clone, Default)]
pub(super) struct Connections(Rc<RefCell<All>>);

/// A connection of these, as its own task knows it.
pub(super) struct Guest {
    number: u64,
    all: Connections,
}

impl Connections {
    /// Takes in a connection that `start` gives to a task of its own.
    pub(super) fn admit(&self, start: impl FnOnce(Guest) -> AbortHandle) {
        let number = {
            let mut all = self.0.borrow_mut();
            all.next += 1;
            all.next
        };
        let all = self.clone();
        let task = start(Guest { number, all });
        let mut all = self.0.borrow_mut();
        all.strangers.push_back((number, task));
        if all.strangers.len() > MAX_STRANGERS
            && let Some((_, oldest)) = all.strangers.pop_front()
        {
            oldest.abort();
        }
        all.attached.retain(|_, known| !known.watch.is_finished());
    }
}

impl Guest {
    /// It has greeted as process `pid`, whose end `watch` waits for. Whatever
    /// that process had greeted on before is given up.
    pub(super) fn greeted(&self, pid: i32, watch: AbortHandle) {
        let mut all = self.all.0.borrow_mut();
        let at = all.strangers.iter().position(|(n, _)| *n == self.number);
        let Some((_, connection)) = at.and_then(|at| all.strangers.remove(at)) else {
            return;
        };
        let attached = Attached { connection, watch };
        if let Some(before) = all.attached.insert(pid, attached) {
            before.connection.abort();
            before.watch.abort();
        }
    }
}

impl Drop for Guest {
    /// The connection is closed. The end of its process is waited for still.
    fn drop(&mut self) {
        let mut all = self.all.0.borrow_mut();
        all.strangers.retain(|(number, _)| *number != self.number);
    }
}
