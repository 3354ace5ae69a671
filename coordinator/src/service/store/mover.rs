//! Two threads that move pieces between arena and store, so that nobody else
//! waits for the device.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::shm::Shared;
use super::{Key, Source, Store};

/// What is to be moved.
#[derive(Debug)]
pub(in super::super) enum Job {
    /// From a part of the arena into the store.
    Put {
        key: Key,
        /// Start in the arena.
        offset: u64,
        length: u64,
    },
    /// From a part of a file into the store.
    Copy {
        key: Key,
        file: Arc<File>,
        /// Start in the file.
        at: u64,
        length: u64,
    },
    /// From the store into the arena.
    Get {
        key: Key,
        /// Start in the arena.
        offset: u64,
        /// What the store does not fill of it is zeros.
        length: u64,
    },
    /// Out of the store. Nobody is told.
    Remove(Key),
    /// All that was put before to the device.
    Sync,
}

/// A job that was done, or failed.
#[derive(Debug)]
pub(in super::super) struct Done {
    /// Number that the job was given.
    pub id: u64,
    /// It was to give the store something.
    pub was_put: bool,
    pub result: io::Result<()>,
}

/// Told of each job that is done, on a thread of the mover.
type Tell = Arc<dyn Fn(Done) + Send + Sync>;

/// See the module. What is put, removed and synced keeps its order.
pub(in super::super) struct Mover {
    pub(in super::super) store: Arc<dyn Store>,
    puts: Sender<(u64, Job)>,
    gets: Sender<(u64, Job)>,
}

impl Mover {
    /// Starts the threads; they end once this is dropped and all is done.
    ///
    /// # Errors
    /// When there can be no threads.
    pub(in super::super) fn start(
        store: Arc<dyn Store>,
        shared: &Arc<Shared>,
        tell: Tell,
    ) -> io::Result<Self> {
        let work = |name: &str| -> io::Result<Sender<(u64, Job)>> {
            let (sender, receiver) = channel();
            let (store, shared, tell) = (Arc::clone(&store), Arc::clone(shared), Arc::clone(&tell));
            std::thread::Builder::new()
                .name(name.into())
                .spawn(move || serve(&receiver, &*store, &shared, &tell))?;
            Ok(sender)
        };
        Ok(Self {
            puts: work("capio-spill")?,
            gets: work("capio-fetch")?,
            store,
        })
    }

    /// Has a job done; it is told as `id`.
    pub(in super::super) fn submit(&self, id: u64, job: Job) {
        let queue = match job {
            Job::Get { .. } => &self.gets,
            Job::Put { .. } | Job::Copy { .. } | Job::Remove(_) | Job::Sync => &self.puts,
        };
        // The threads live as long as the queues.
        let _ = queue.send((id, job));
    }
}

fn serve(jobs: &Receiver<(u64, Job)>, store: &dyn Store, shared: &Shared, tell: &Tell) {
    while let Ok((id, job)) = jobs.recv() {
        let arena = &shared.arena;
        let was_put = matches!(job, Job::Put { .. } | Job::Copy { .. });
        let result = match job {
            Job::Copy {
                key,
                file,
                at,
                length,
            } => store.put(key, Source::File(&file, at, length)),
            Job::Put {
                key,
                offset,
                length,
            } => store.put(key, Source::Arena(arena, offset, length)),
            Job::Get {
                key,
                offset,
                length,
            } => store.get(key, arena, offset).map(|got| {
                let rest = length.saturating_sub(got);
                arena.zero(offset + got.min(length), rest);
            }),
            Job::Remove(key) => {
                store.remove(key);
                continue;
            }
            Job::Sync => store.sync(),
        };
        tell(Done {
            id,
            was_put,
            result,
        });
    }
}
