//! Questions that come without a system call: after each question the coordinator
//! looks at mailboxes for a while before it sleeps ([`wire::protocol::mailbox`]).
//!
//! A sleeping thread answers after some 15 us, one that looks after one or two. That
//! pays for programs that ask often, and only on a machine with a core to spare: so
//! the time it looks follows the time between questions, and it rests when others
//! need the core. Among more threads than cores each side would lose its core while
//! it looks, and with it a time slice of milliseconds.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use wire::layout::Mailbox;
use wire::message::{Request, decode};
use wire::protocol::mailbox::{self, ANSWERED, BY_SOCKET, REFUSED};

use super::engine::Client;
use super::replies;
use super::server::{Shared as Engine, lock};
use super::shm::{Shared, wake_all};

/// Longest time that it looks without finding a question.
const LONGEST: Duration = Duration::from_micros(80);
/// A question over a socket so soon after an answer would have been found by looking:
/// two threads had to be woken for it, which takes up to 30 us each. So long it looks
/// after an answer over a socket, too.
const SOON: Duration = Duration::from_micros(140);
/// Shortest.
const SHORTEST: Duration = Duration::from_micros(10);
/// After this time the sockets have their turn.
const TURN: Duration = Duration::from_micros(20);
/// Who is away for so long between two looks has lost its core to somebody.
const AWAY: Duration = Duration::from_micros(300);
/// How long it rests then; twice as long the next time.
const REST: Duration = Duration::from_millis(20);
/// Longest rest.
const LONGEST_REST: Duration = Duration::from_millis(320);
/// How long it rests when more threads run than there are cores: some run for less.
const CROWDED: Duration = Duration::from_millis(2);
/// Time between two looks at how many threads run.
const CENSUS: Duration = Duration::from_micros(500);
/// How long it rests when it has looked in vain twice; twice as long the next time.
const SHORT_REST: Duration = Duration::from_millis(1);
/// Time between two offers of the core to whoever waits for it: that may be who is
/// to ask.
const OFFER: Duration = Duration::from_micros(2);

/// How long it pays to look, from the time between questions.
#[derive(Clone, Copy, Debug)]
struct Pace {
    window: Duration,
    /// The last answer.
    last: Instant,
    /// Whoever got it had to be woken.
    woken: bool,
    /// No looking before this.
    rest: Instant,
    /// How often it has looked in vain since a question was found.
    vain: u32,
    /// How often, one after the other, others needed the core.
    lost: u32,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            window: Duration::ZERO,
            last: now,
            woken: false,
            rest: now,
            vain: 0,
            lost: 0,
        }
    }

    /// A question that came over a socket at `came` is answered: it was not waited for
    /// long enough. Whether it pays to look for the next one.
    fn missed(&mut self, came: Instant, now: Instant) -> bool {
        let since = came.duration_since(self.last);
        (self.last, self.woken) = (now, true);
        self.window = if since <= SOON {
            (self.window * 2).clamp(SHORTEST, LONGEST)
        } else {
            Some(self.window / 2)
                .filter(|window| *window >= SHORTEST)
                .unwrap_or_default()
        };
        !self.window.is_zero() && now >= self.rest
    }

    /// A question was found.
    fn found(&mut self, now: Instant) {
        (self.last, self.woken) = (now, false);
        self.vain = 0;
    }

    /// Others need the core.
    fn lose(&mut self, now: Instant) {
        // Not one after the other: that was long ago.
        if now.duration_since(self.rest) > LONGEST_REST {
            self.lost = 0;
        }
        self.rest = now + (REST * (1 << self.lost)).min(LONGEST_REST);
        self.lost = (self.lost + 1).min(8);
    }

    /// Whether to go on looking, when the last look was at `before`.
    fn goes_on(&mut self, before: Instant, now: Instant) -> bool {
        if now.duration_since(before) > AWAY {
            self.lose(now);
            return false;
        }
        let window = if self.woken { SOON } else { self.window };
        let goes_on = now.duration_since(self.last) <= window;
        if !goes_on {
            if self.vain > 0 {
                self.rest = now + (SHORT_REST * (1 << (self.vain - 1))).min(REST);
            }
            self.vain = (self.vain + 1).min(8);
        }
        goes_on
    }
}

/// Whether more threads run than there are cores.
struct Crowd {
    /// `/proc/loadavg`, where there is one.
    load: Option<File>,
    cores: u32,
}

impl Crowd {
    fn new() -> Self {
        // All of the machine, as threads are counted.
        let cores = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
        Self {
            load: File::open("/proc/loadavg").ok(),
            cores: cores
                .and_then(|cores| u32::try_from(cores).ok())
                .unwrap_or(1),
        }
    }

    fn is_there(&self) -> bool {
        let mut room = [0; 64];
        let read = self.load.as_ref().map(|load| load.read_at(&mut room, 0));
        let text = read
            .and_then(Result::ok)
            .and_then(|length| room.get(..length));
        text.and_then(running)
            .is_some_and(|running| running > self.cores)
    }
}

/// How many threads run, by the text of `/proc/loadavg`.
fn running(text: &[u8]) -> Option<u32> {
    let field = std::str::from_utf8(text).ok()?.split(' ').nth(3)?;
    field.split_once('/')?.0.parse().ok()
}

/// A process that may ask.
struct Peer {
    client: Client,
    stream: Rc<UnixStream>,
}

/// All mailboxes; used by the control socket's thread alone.
pub(super) struct Mailboxes {
    engine: Engine,
    shared: Arc<Shared>,
    /// By process record.
    peers: RefCell<HashMap<u32, Peer>>,
    pace: Cell<Pace>,
    /// Clients know that somebody looks.
    looks: Cell<bool>,
    due: Notify,
    crowd: Crowd,
    frame: RefCell<Vec<u8>>,
}

/// A process's permission to ask; ends when dropped.
pub(super) struct Seat {
    mailboxes: Rc<Mailboxes>,
    client: Client,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut peers = self.mailboxes.peers.borrow_mut();
        let process = self.client.process;
        let is_own = |peer: &Peer| peer.client.generation == self.client.generation;
        if peers.get(&process).is_some_and(is_own) {
            peers.remove(&process);
        }
    }
}

impl Drop for Mailboxes {
    fn drop(&mut self) {
        self.set_awake(false);
    }
}

impl Mailboxes {
    /// Those of a session.
    pub(super) fn new(engine: Engine) -> Rc<Self> {
        let shared = Arc::clone(&lock(&engine).shared);
        Rc::new(Self {
            engine,
            shared,
            peers: RefCell::default(),
            pace: Cell::new(Pace::new(Instant::now())),
            looks: Cell::new(false),
            due: Notify::new(),
            crowd: Crowd::new(),
            frame: RefCell::new(vec![0; Mailbox::ROOM]),
        })
    }

    /// Lets `client`, whose connection is `stream`, ask.
    pub(super) fn seat(self: &Rc<Self>, client: Client, stream: Rc<UnixStream>) -> Seat {
        let peer = Peer { client, stream };
        self.peers.borrow_mut().insert(client.process, peer);
        Seat {
            mailboxes: Rc::clone(self),
            client,
        }
    }

    /// Tells clients whether somebody looks.
    fn set_awake(&self, looks: bool) {
        self.looks.set(looks);
        mailbox::set_awake(&self.shared.header().awake, looks);
    }

    /// A question that came over a socket at `came` is answered; not yet sent is the
    /// answer, so that the next question finds somebody who looks.
    pub(super) fn asked_by_socket(&self, came: Instant) {
        let mut pace = self.pace.get();
        let now = Instant::now();
        let pays = pace.missed(came, now);
        if pays && !self.looks.get() && self.shared.header().cores.load(SeqCst) > 1 {
            if self.crowd.is_there() {
                pace.rest = now + CROWDED;
            } else {
                self.set_awake(true);
                self.due.notify_one();
            }
        }
        self.pace.set(pace);
    }

    /// Looks whenever it pays.
    pub(super) async fn serve(&self) {
        loop {
            self.due.notified().await;
            self.look().await;
            self.set_awake(false);
            // Who has asked before it was known that nobody looks.
            self.answer_all();
        }
    }

    async fn look(&self) {
        let mut before = Instant::now();
        let (mut turn, mut offer, mut census) = (before, before, before);
        loop {
            let found = self.answer_all();
            let now = Instant::now();
            let mut pace = self.pace.get();
            if found {
                pace.found(now);
                before = now;
            }
            let mut goes_on = pace.goes_on(before, now);
            if goes_on && now.duration_since(census) > CENSUS {
                census = now;
                if self.crowd.is_there() {
                    pace.rest = now + CROWDED;
                    goes_on = false;
                }
            }
            self.pace.set(pace);
            if !goes_on {
                return;
            }
            before = now;
            if now.duration_since(turn) > TURN {
                tokio::task::yield_now().await;
                before = Instant::now();
                turn = before;
            } else if now.duration_since(offer) > OFFER {
                std::thread::yield_now();
                offer = now;
            }
            std::hint::spin_loop();
        }
    }

    /// Answers all questions that are there; whether there was one.
    fn answer_all(&self) -> bool {
        let mut found = false;
        for (word, asked) in (0..).zip(&self.shared.sync_header().asked) {
            let mut bits = mailbox::collect(asked);
            while bits != 0 {
                found |= self.answer(word * u64::BITS + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        found
    }

    /// Answers process record `process`; whether it had a question that counts.
    fn answer(&self, process: u32) -> bool {
        let asking = self.shared.asking(process);
        if !asking.take() {
            return false;
        }
        let answered = self.ask_engine(process);
        let give = |answer| asking.give(answer, || wake_all(asking.state));
        match answered {
            Some(answer) => give(answer),
            None => give(REFUSED),
        }
        answered.is_some()
    }

    /// How the question in a mailbox was answered; `None`: not at all.
    fn ask_engine(&self, process: u32) -> Option<u32> {
        let (client, stream) = {
            let peers = self.peers.borrow();
            let peer = peers.get(&process)?;
            (peer.client, Rc::clone(&peer.stream))
        };
        let mailbox = self.shared.mailbox(process);
        let mut frame = self.frame.borrow_mut();
        let body = mailbox.get(&mut frame)?;
        let request = decode::<Request<'_>>(frame.get(4..body + 4)?)?;
        let answer = {
            let mut engine = lock(&self.engine);
            engine
                .serves(client)
                .then(|| engine.handle(client, &request))?
        };
        let (reply, descriptor) = replies::message(&answer);
        let fits =
            descriptor.is_none() && replies::frame(&reply).is_ok_and(|frame| mailbox.put(&frame));
        if fits {
            return Some(ANSWERED);
        }
        replies::answer_soon(stream, answer);
        Some(BY_SOCKET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// The pace after questions over the socket with this time in between, and
    /// whether it pays to look.
    fn after(gaps: &[Duration]) -> (Pace, Instant, bool) {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut looks = false;
        for gap in gaps {
            now += *gap;
            looks = pace.missed(now, now);
        }
        (pace, now, looks)
    }

    #[test]
    fn who_asks_seldom_does_not_keep_a_core_busy() {
        assert!(!after(&[1000 * US; 5]).2);
        assert!(after(&[20 * US; 3]).2);
        let (mut pace, mut now, _) = after(&[20 * US; 5]);
        let looked = (0..9).filter(|_| {
            now += 1000 * US;
            pace.missed(now, now)
        });
        assert!(looked.count() <= 3);
    }

    #[test]
    fn it_looks_for_as_long_as_the_next_question_takes() {
        let (mut pace, now, _) = after(&[20 * US; 5]);
        assert!(
            pace.goes_on(now, now + SOON),
            "who asks has to be woken first"
        );
        assert!(!pace.goes_on(now, now + SOON + US));
        let now = now + 45 * US;
        pace.found(now);
        assert!(pace.goes_on(now, now + LONGEST));
        assert!(!pace.goes_on(now, now + LONGEST + US));
    }

    #[test]
    fn it_rests_longer_the_more_often_it_looks_in_vain() {
        let (mut pace, mut now, _) = after(&[20 * US; 5]);
        let mut in_vain = |pace: &mut Pace| {
            pace.last = now;
            now += 2 * SOON;
            assert!(!pace.goes_on(now, now));
            pace.rest.duration_since(now)
        };
        let rests: Vec<_> = (0..12).map(|_| in_vain(&mut pace)).collect();
        assert_eq!(rests[..4], [0, 1, 2, 4].map(Duration::from_millis));
        assert_eq!(rests[11], REST);
        pace.found(pace.last);
        pace.rest = pace.last;
        assert_eq!(in_vain(&mut pace), Duration::ZERO);
        assert_eq!(in_vain(&mut pace), SHORT_REST);
    }

    #[test]
    fn who_loses_the_core_again_and_again_rests_for_long() {
        let (mut pace, mut now, _) = after(&[20 * US; 5]);
        let rests: Vec<_> = (0..9)
            .map(|_| {
                pace.lose(now);
                let rest = pace.rest - now;
                now = pace.rest + 10 * US;
                rest
            })
            .collect();
        assert_eq!(rests[..3], [REST, 2 * REST, 4 * REST]);
        assert_eq!(rests[8], LONGEST_REST);
        now += 2 * LONGEST_REST;
        pace.lose(now);
        assert_eq!(pace.rest - now, REST);
    }

    #[test]
    fn threads_that_run_are_counted() {
        assert_eq!(running(b"0.64 5.51 7.48 3/512 4711\n"), Some(3));
        assert_eq!(running(b"0.64 5.51 7.48"), None);
        assert_eq!(running(b"\xff \xff \xff 1/2"), None);
        let mut crowd = Crowd::new();
        crowd.cores = 0;
        assert!(crowd.is_there(), "at least this one runs");
        crowd.cores = u32::MAX;
        assert!(!crowd.is_there());
    }

    #[test]
    fn it_rests_when_somebody_else_needs_the_core() {
        let (mut pace, now, _) = after(&[20 * US; 5]);
        assert!(!pace.goes_on(now, now + 2 * AWAY));
        let now = now + 2 * AWAY;
        let mut asks = |at: Instant| pace.missed(at, at);
        assert!(!asks(now + 20 * US));
        assert!(!asks(now + 40 * US));
        assert!(asks(now + REST + 60 * US) || asks(now + REST + 80 * US));
    }
}
