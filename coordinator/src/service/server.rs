//! The control plane: a Unix socket served by one thread.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use wire::limits::{MAX_FRAME, VERSION};
use wire::message::{Reply, Request, decode};

use super::connections::{Connections, Guest};
use super::engine::{Client, Engine};
use super::mailboxes::Mailboxes;
use super::processes::{has_ended, pidfd};
use super::replies;

/// How often time-driven work is looked at.
const TICK: Duration = Duration::from_millis(50);

/// The engine, shared with the threads of the command.
pub(super) type Shared = Arc<Mutex<Engine>>;

/// Locks the engine.
pub(super) fn lock(engine: &Shared) -> MutexGuard<'_, Engine> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves clients until `stop` is notified.
///
/// # Errors
/// When the descriptors cannot be watched.
pub(super) async fn serve(
    engine: Shared,
    listener: std::os::unix::net::UnixListener,
    stop: Arc<Notify>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let watch = lock(&engine).watch.descriptor()?;
    tokio::task::spawn_local(watch_closes(Arc::clone(&engine), registered(watch)?));
    tokio::task::spawn_local(tick(Arc::clone(&engine)));
    let connections = Connections::default();
    let mailboxes = Mailboxes::new(Arc::clone(&engine));
    let serving = Rc::clone(&mailboxes);
    tokio::task::spawn_local(async move { serving.serve().await });
    loop {
        tokio::select! {
            () = stop.notified() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (engine, mailboxes) = (Arc::clone(&engine), Rc::clone(&mailboxes));
                    connections.admit(|guest| tokio::task::spawn_local(async move {
                        if let Err(error) = connection(engine, mailboxes, stream, guest).await {
                            tracing::debug!("a client's connection ended: {error}");
                        }
                    }).abort_handle());
                }
                // Out of descriptors: wait until some client has left.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

async fn watch_closes(engine: Shared, watch: AsyncFd<OwnedFd>) {
    while let Ok(mut ready) = watch.readable().await {
        ready.clear_ready();
        lock(&engine).drain_closes();
    }
}

async fn tick(engine: Shared) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        lock(&engine).tick(Instant::now());
    }
}

/// A client greets within this time, or is not one of ours.
const GREETING: Duration = Duration::from_secs(10);
/// Longest name of a step, in bytes; the shim cuts none off that is shorter.
const MAX_STEP_NAME: usize = 1024;

/// Bytes that a connection has room for at first.
const FIRST_ROOM: usize = 1024;

/// A stream of frames.
struct Frames {
    stream: Rc<UnixStream>,
    buffer: Vec<u8>,
    filled: usize,
    taken: usize,
}

impl Frames {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream: Rc::new(stream),
            buffer: vec![0; FIRST_ROOM],
            filled: 0,
            taken: 0,
        }
    }

    /// Length of the frame at the front, once it is known.
    fn length(&self) -> io::Result<Option<usize>> {
        let Some(head) = self
            .buffer
            .get(..self.filled)
            .and_then(|b| b.first_chunk::<4>())
        else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::other("a frame is longer than allowed"));
        }
        Ok(Some(length + 4))
    }

    /// Body of the next frame; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        loop {
            if let Some(whole) = self.length()?.filter(|whole| *whole <= self.filled) {
                self.taken = whole;
                return Ok(self.buffer.get(4..whole));
            }
            if self.filled == self.buffer.len() {
                // Most clients never send a long frame.
                let longer = (2 * self.filled).min(MAX_FRAME + 4);
                self.buffer.resize(longer, 0);
            }
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            match self.stream.try_read(room) {
                Ok(0) => return Ok(None),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.readable().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

async fn connection(
    engine: Shared,
    mailboxes: Rc<Mailboxes>,
    stream: UnixStream,
    guest: Guest,
) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let pid = peer.pid().unwrap_or(0);
    if peer.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    let ended = Arc::new(pidfd(pid)?);
    let mut frames = Frames::new(stream);
    let greeting = tokio::time::timeout(GREETING, frames.next());
    let Some(body) = greeting.await?? else {
        return Ok(());
    };
    let Some(Request::Hello {
        version,
        app,
        forked,
    }) = decode(body)
    else {
        return Err(io::Error::other("the first message was no greeting"));
    };
    let app = step_name(app)?;
    if version != VERSION {
        lock(&engine).refused_version(pid, version);
        let refused = Reply::Error(libc::EPROTONOSUPPORT);
        return replies::send(&frames.stream, &refused, &[]).await;
    }
    let attached = if has_ended(&ended) {
        Err(libc::ESRCH)
    } else {
        lock(&engine).attach(pid, &app, Arc::clone(&ended))
    };
    let client = match attached {
        Ok(client) => client,
        Err(error) => return replies::send(&frames.stream, &Reply::Error(error), &[]).await,
    };
    let watch = watch_end(&engine, client, ended)?;
    guest.greeted(pid, watch);
    welcome(&engine, &frames.stream, client, forked).await?;
    let _seat = mailboxes.seat(client, Rc::clone(&frames.stream));
    while let Some(body) = frames.next().await? {
        let Some(request) = decode::<Request<'_>>(body) else {
            return Err(io::Error::other("a message was malformed"));
        };
        let came = Instant::now();
        let answer = {
            let mut engine = lock(&engine);
            if !engine.serves(client) {
                return Err(io::Error::other("the process has ended or greeted anew"));
            }
            engine.handle(client, &request)
        };
        mailboxes.asked_by_socket(came);
        replies::answer(&frames.stream, &answer).await?;
    }
    Ok(())
}

/// `descriptor` under the eyes of the runtime.
fn registered<T: AsRawFd>(descriptor: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the `AsyncFd` owns the descriptor or a share of it, which stays open and the same until it is dropped.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}

/// The task that learns of the client's end.
fn watch_end(engine: &Shared, client: Client, ended: Arc<OwnedFd>) -> io::Result<AbortHandle> {
    let (engine, ended) = (Arc::clone(engine), registered(ended)?);
    let task = tokio::task::spawn_local(async move {
        if ended.readable().await.is_ok() {
            lock(&engine).process_ended(client);
        }
    });
    Ok(task.abort_handle())
}

/// The name of a step as a client tells it.
fn step_name(app: &[u8]) -> io::Result<String> {
    if app.len() > MAX_STEP_NAME {
        return Err(io::Error::other("the name of a step is too long"));
    }
    Ok(String::from_utf8_lossy(app).into_owned())
}

async fn welcome(
    engine: &Shared,
    stream: &UnixStream,
    client: Client,
    forked: bool,
) -> io::Result<()> {
    let shared = Arc::clone(&lock(engine).shared);
    let reply = Reply::Welcome {
        process: client.process,
        generation: client.generation,
        arena: shared.arena.bytes(),
    };
    let descriptors = shared.descriptors();
    replies::send(stream, &reply, if forked { &[] } else { &descriptors }).await
}
