//! The line to the coordinator: one request and its reply at a time.

use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use wire::limits::MAX_FRAME;
use wire::message::{Reply, Request, decode, encode};

use crate::critical::Critical;
use crate::mailbox::{self, Outcome};
use crate::session::live;
use crate::sys::syscall;
use crate::{attach, futex, owner, threads};

/// Longest sleep of a waiting call before it looks after the coordinator, ns.
pub(crate) const PATIENCE: i64 = 250_000_000;
/// When to ask again what is done in a while, ns.
pub(crate) const SOON: i64 = 1_000_000;
/// Somebody waits for the line.
const WAITED: u32 = 1 << 31;
/// All signals but SIGBUS and SIGSEGV, which copies from and to the program's
/// memory need.
const BLOCKED: u64 = !((1 << (libc::SIGBUS - 1)) | (1 << (libc::SIGSEGV - 1)));

/// The one buffer for frames.
struct Shared {
    frame: UnsafeCell<[u8; MAX_FRAME + 4]>,
}

// SAFETY: `frame` is used by the holder of the line only.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared {
    frame: UnsafeCell::new([0; MAX_FRAME + 4]),
};

/// The line, held by this thread with signals blocked.
pub(crate) struct Line {
    tid: u32,
    mask: u64,
    _critical: Critical,
}

/// A reply in the line's frame: its length.
#[derive(Clone, Copy)]
pub(crate) struct Body(usize);

/// Descriptors that came with a reply.
#[derive(Debug)]
pub(crate) struct Received {
    list: [c_int; 3],
    count: usize,
}

impl Received {
    const fn none() -> Self {
        Self {
            list: [-1; 3],
            count: 0,
        }
    }

    /// The only one.
    pub(crate) fn one(&self) -> Option<c_int> {
        match (self.count, self.list) {
            (1, [first, ..]) => Some(first),
            _ => None,
        }
    }

    /// All three.
    pub(crate) fn three(&self) -> Option<[c_int; 3]> {
        (self.count == 3).then_some(self.list)
    }

    /// Closes them.
    pub(crate) fn close(&self) {
        self.list.iter().take(self.count).for_each(|&fd| close(fd));
    }
}

/// Closes a descriptor of ours.
pub(crate) fn close(fd: c_int) {
    // SAFETY: takes an integer.
    unsafe { syscall!(libc::SYS_close, fd) };
}

fn swap_mask(mask: u64) -> u64 {
    let mut old = 0u64;
    // SAFETY: the kernel reads and writes eight bytes each.
    unsafe {
        syscall!(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            &raw mut old,
            8
        );
    }
    old
}

impl Line {
    /// Waits for the line and takes it.
    ///
    /// # Errors
    /// `EIO` when nothing is taken over.
    pub(crate) fn seize() -> Result<Self, i32> {
        let live = live().ok_or(libc::EIO)?;
        let critical = Critical::enter();
        let mask = swap_mask(BLOCKED);
        // SAFETY: takes nothing.
        let tid = unsafe { syscall!(libc::SYS_gettid) } as u32;
        let mut wanted = tid;
        while let Err(seen) = live.control.compare_exchange(0, wanted, SeqCst, Acquire) {
            if !owner::thread_exists(seen & !WAITED) {
                // It died in mid-frame, in a child of vfork say.
                if live
                    .control
                    .compare_exchange(seen, wanted, SeqCst, Relaxed)
                    .is_ok()
                {
                    attach::hang_up();
                    break;
                }
                continue;
            }
            let marked = seen | WAITED;
            let is_marked = seen == marked
                || live
                    .control
                    .compare_exchange(seen, marked, SeqCst, Relaxed)
                    .is_ok();
            if is_marked {
                futex::wait(&live.control, marked, 50_000_000);
                wanted = tid | WAITED;
            }
        }
        Ok(Self {
            tid,
            mask,
            _critical: critical,
        })
    }

    fn frame(&mut self) -> &mut [u8; MAX_FRAME + 4] {
        // SAFETY: this thread holds the line, and the borrow is exclusive.
        unsafe { &mut *SHARED.frame.get() }
    }

    /// One request, one reply, by the mailbox or on `socket`.
    ///
    /// # Errors
    /// `EPIPE` when the connection is broken; `ENAMETOOLONG` for what fits no
    /// frame.
    pub(crate) fn turn(
        &mut self,
        socket: c_int,
        request: &Request<'_>,
    ) -> Result<(Body, Received), i32> {
        let length = encode(request, self.frame()).ok_or(libc::ENAMETOOLONG)?;
        match mailbox::ask(self.frame(), length)? {
            Outcome::Answered(body) => return Ok((Body(body), Received::none())),
            Outcome::NotAsked => self.send(socket, length)?,
            Outcome::BySocket => {}
        }
        let kept = match request {
            Request::Open { flags, .. } | Request::Reopen { flags, .. } => {
                flags & libc::O_CLOEXEC == 0
            }
            _ => false,
        };
        self.answer(socket, if kept { 0 } else { libc::MSG_CMSG_CLOEXEC })
    }

    /// Sends a request on `socket`, whose reply [`Line::answer`] receives.
    ///
    /// # Errors
    /// As of [`Line::turn`].
    pub(crate) fn ask(&mut self, socket: c_int, request: &Request<'_>) -> Result<(), i32> {
        let length = encode(request, self.frame()).ok_or(libc::ENAMETOOLONG)?;
        self.send(socket, length)
    }

    fn send(&mut self, socket: c_int, length: usize) -> Result<(), i32> {
        send(socket, self.frame().get(..length).unwrap_or_default())
    }

    /// Receives a reply on `socket`, with flags for `recvmsg(2)`.
    ///
    /// # Errors
    /// As of [`Line::turn`].
    pub(crate) fn answer(&mut self, socket: c_int, flags: c_int) -> Result<(Body, Received), i32> {
        let mut received = Received::none();
        match receive(socket, self.frame(), flags, &mut received) {
            Ok(length) => Ok((Body(length), received)),
            Err(error) => {
                received.close();
                Err(error)
            }
        }
    }

    /// The reply that [`Line::turn`] has got; `None`: it is malformed.
    pub(crate) fn reply(&mut self, body: Body) -> Option<Reply<'_>> {
        let end = body.0.wrapping_add(4);
        decode(self.frame().get(4..end)?)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(live) = live() {
            let held = |word: u32| word & !WAITED == self.tid;
            let give = |word: u32| held(word).then_some(0);
            if let Ok(word) = live.control.fetch_update(Release, Relaxed, give)
                && word & WAITED != 0
            {
                futex::wake(&live.control, 1);
            }
        }
        swap_mask(self.mask);
    }
}

fn send(socket: c_int, frame: &[u8]) -> Result<(), i32> {
    let mut rest = frame;
    while !rest.is_empty() {
        // SAFETY: the kernel reads `rest.len()` bytes.
        let sent = unsafe {
            syscall!(
                libc::SYS_sendto,
                socket,
                rest.as_ptr(),
                rest.len(),
                libc::MSG_NOSIGNAL,
                0,
                0
            )
        };
        if sent == -(libc::EINTR as isize) {
            continue;
        }
        let sent = usize::try_from(sent).map_err(|_| libc::EPIPE)?;
        rest = rest.get(sent..).ok_or(libc::EPIPE)?;
    }
    Ok(())
}

/// Receives a frame into `buffer` and gives the length of its body.
fn receive(
    socket: c_int,
    buffer: &mut [u8],
    flags: c_int,
    received: &mut Received,
) -> Result<usize, i32> {
    let mut have = 0usize;
    loop {
        let want = match buffer.first_chunk::<4>() {
            Some(head) if have >= 4 => (u32::from_le_bytes(*head) as usize).saturating_add(4),
            _ => 4,
        };
        if have >= 4 && have >= want {
            let whole = have == want && want <= buffer.len();
            return whole.then_some(want.wrapping_sub(4)).ok_or(libc::EPIPE);
        }
        let room = buffer.get_mut(have..).ok_or(libc::EPIPE)?;
        if room.is_empty() {
            return Err(libc::EPIPE);
        }
        have = have.saturating_add(receive_some(socket, room, flags, received)?);
    }
}

/// Room for the control message of three descriptors, aligned.
#[repr(C)]
struct ControlMessage {
    head: libc::cmsghdr,
    descriptors: [c_int; 4],
}

fn receive_some(
    socket: c_int,
    room: &mut [u8],
    flags: c_int,
    received: &mut Received,
) -> Result<usize, i32> {
    let mut control = ControlMessage {
        head: libc::cmsghdr {
            cmsg_len: 0,
            cmsg_level: 0,
            cmsg_type: 0,
        },
        descriptors: [-1; 4],
    };
    let mut piece = libc::iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: room.len(),
    };
    // SAFETY: all-zero is an empty message header.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<ControlMessage>();
    loop {
        // SAFETY: the kernel writes within `room` and `control`.
        let got = unsafe { syscall!(libc::SYS_recvmsg, socket, &raw mut message, flags) };
        if got == -(libc::EINTR as isize) {
            continue;
        }
        let got = usize::try_from(got).map_err(|_| libc::EPIPE)?;
        note_descriptors(&control, message.msg_controllen, received);
        return if got == 0 { Err(libc::EPIPE) } else { Ok(got) };
    }
}

fn note_descriptors(control: &ControlMessage, length: usize, received: &mut Received) {
    let is_rights = length >= size_of::<libc::cmsghdr>()
        && control.head.cmsg_level == libc::SOL_SOCKET
        && control.head.cmsg_type == libc::SCM_RIGHTS;
    if !is_rights {
        return;
    }
    let bytes = control
        .head
        .cmsg_len
        .saturating_sub(size_of::<libc::cmsghdr>());
    for &fd in control.descriptors.iter().take(bytes / size_of::<c_int>()) {
        match received.list.get_mut(received.count) {
            Some(slot) => {
                *slot = fd;
                received.count = received.count.wrapping_add(1);
            }
            None => close(fd),
        }
    }
}

/// Sends `request`, waits as long as the coordinator says so, and lets `take`
/// turn its reply into an answer while the line is held: `take` must not wait.
///
/// # Errors
/// What the coordinator or `take` answers; `EIO` when there is none.
pub(crate) fn ask<T>(
    request: &Request<'_>,
    take: impl FnOnce(Reply<'_>, Received) -> Result<T, i32>,
) -> Result<T, i32> {
    loop {
        let me = threads::me()?;
        let before = me.record.wake.load(Acquire);
        let mut line = Line::seize()?;
        let (body, received) = attach::exchange(&mut line, request)?;
        let wait = match line.reply(body) {
            Some(Reply::Wait) => {
                received.close();
                PATIENCE
            }
            Some(Reply::Soon) => {
                received.close();
                SOON
            }
            Some(Reply::Error(error)) => {
                received.close();
                return Err(if error > 0 { error } else { libc::EIO });
            }
            Some(reply) => return take(reply, received),
            None => {
                received.close();
                attach::hang_up();
                return Err(libc::EIO);
            }
        };
        drop(line);
        futex::wait(&me.record.wake, before, wait);
        attach::look()?;
    }
}

/// [`ask`] for a request whose reply says no more than that it is done.
///
/// # Errors
/// As [`ask`].
pub(crate) fn tell(request: &Request<'_>) -> Result<(), i32> {
    ask(request, |reply, received| {
        received.close();
        matches!(reply, Reply::Ok).then_some(()).ok_or(libc::EIO)
    })
}

/// Whether the thread may be asked to wait: a signal handler's or a child's
/// memory may be another's. The index of its record, for a request.
///
/// # Errors
/// `EIO` when there is no coordinator.
pub(crate) fn thread() -> Result<u32, i32> {
    threads::me().map(|me| me.index)
}
