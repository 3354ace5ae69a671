//! Joining the session: the connection to the coordinator, and the session's
//! memory.

use core::ffi::{CStr, c_char, c_int};
use core::mem::size_of;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32};

use wire::layout::{MAGIC, MetaHeader, meta, sync};
use wire::limits::{CHUNK, MAX_DESCRIPTORS, VERSION};
use wire::message::{Reply, Request};
use wire::place as names;

use crate::control::{self, Line, Received};
use crate::doors::{exec, install, verified};
use crate::place::{self, Place};
use crate::session::{self, Live, Session, live};
use crate::sys::syscall;
use crate::text::Text;
use crate::{clock, descriptors, fork, signals};

/// Attachments of this process and those that it was forked from.
static ATTACHMENTS: AtomicU32 = AtomicU32::new(0);
/// The control socket + 1, in memory that a fork copies: in a child it is the
/// parent's.
static SOCKET: AtomicI32 = AtomicI32::new(0);
/// The process has waited for a coordinator once.
static WAITED: AtomicBool = AtomicBool::new(false);
/// Longest wait for a coordinator that is about to start, ns.
const START: u64 = 1_000_000_000;
/// Time between two looks at the connection of a thread that waits, ns.
const LOOK: u64 = 200_000_000;
/// The control socket lies below this, so that `select` and the tables of
/// descriptors stay small.
const TOP: u64 = 1024;
/// Descriptors that stay free above the control socket.
const ABOVE: u64 = 8;

/// Finds out whether files are taken over in this process, and joins the
/// session if a coordinator is there. Before `main`, or in the first call that
/// comes before that.
pub(crate) fn start() {
    if place::fix(find_place) != Some(true) {
        return;
    }
    let joined = Line::seize().and_then(|mut line| {
        let socket = place::fixed().ok_or(libc::EIO).and_then(dial)?;
        let greeted = send_hello(&mut line, socket);
        // The coordinator answers meanwhile.
        signals::arm();
        install();
        greeted?;
        let live = live().ok_or(libc::EIO)?;
        keep_socket(live, socket);
        if place::cwd_may_be_inside() || descriptors::inherits_ours() {
            return finish(&mut line, socket);
        }
        // Many programs of a script never touch a file of ours: they need
        // not wait for the answer, nor map the session's memory.
        live.pending.store(1, Relaxed);
        Ok(())
    });
    // Also without a coordinator; done already, these do nothing.
    signals::arm();
    install();
    if joined.is_err() && descriptors::inherits_session() {
        play_dead();
    }
    // No coordinator yet: the first call that needs it tries again.
    if joined.is_ok() && session::epoch() != 0 {
        place::move_cwd();
    }
}

/// Fills in what is fixed; whether files are taken over.
fn find_place(place: &mut Place) -> bool {
    let Some(dir) = variable(c"CAPIO_DIR") else {
        return false;
    };
    let found = set_directory(place, dir) && set_names(place) && reserve();
    if found {
        place::keep_umask(place::read_umask());
    }
    found
}

/// A variable of the environment that is set and not empty.
fn variable(name: &CStr) -> Option<*const c_char> {
    // SAFETY: what `saved` gives is a string of ours or of the environment.
    exec::saved(name).filter(|value| unsafe { **value != 0 })
}

fn set_directory(place: &mut Place, dir: *const c_char) -> bool {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a string of the environment.
    let opened = unsafe { syscall!(libc::SYS_openat, libc::AT_FDCWD, dir, flags, 0) };
    if opened < 0 {
        return false;
    }
    let fd = opened as c_int;
    descriptors::name_of(fd, &mut place.canonical);
    place.device = descriptors::device_of(fd);
    control::close(fd);
    // SAFETY: a string of the environment.
    let dir = unsafe { CStr::from_ptr(dir) }.to_bytes();
    let spelled = place.spelling.set(dir) && place.spelling.normalise();
    place.spelling.without_slash();
    if !spelled || place.spelling.bytes() == place.canonical.bytes() {
        place.spelling.set(b"");
    }
    // The root itself cannot be taken over; the command refuses it, too.
    place.canonical.bytes().first() == Some(&b'/') && place.canonical.bytes() != b"/"
}

fn set_names(place: &mut Place) -> bool {
    let mut workflow = Text::<1024>::new();
    read_variable(
        c"CAPIO_WORKFLOW_NAME",
        names::DEFAULT_WORKFLOW,
        &mut workflow,
    );
    read_variable(c"CAPIO_APP_NAME", names::DEFAULT_APP, &mut place.app);
    // SAFETY: takes nothing.
    let uid = unsafe { syscall!(libc::SYS_geteuid) } as u32;
    let mut room = [0; names::MAX_SESSION_PATH];
    let dir = place.canonical.bytes();
    let length = names::session_path(&mut room, uid, dir, workflow.bytes());
    let session = room.get(..length).unwrap_or_default();
    place.session.set(session)
        && place.shadow.set(session)
        && place.shadow.push(b"/")
        && place.shadow.push(names::SHADOW.as_bytes())
}

fn read_variable<const N: usize>(name: &CStr, default: &str, into: &mut Text<N>) {
    // SAFETY: a string of the environment.
    let value = variable(name).map(|value| unsafe { CStr::from_ptr(value) });
    let found = value.is_some_and(|value| into.set(value.to_bytes()));
    if !found {
        into.set(default.as_bytes());
    }
}

/// Memory that must be there before anything else.
fn reserve() -> bool {
    let table = map_anonymous(MAX_DESCRIPTORS as usize * size_of::<u64>());
    // The live page, and the bits for touched chunks behind it.
    let wiped = 4096 + session::TOUCHED_BYTES;
    let page = map_anonymous(wiped);
    let (Some(table), Some(page)) = (table, page) else {
        return false;
    };
    // SAFETY: fresh anonymous mappings of those sizes, which stay.
    unsafe {
        syscall!(libc::SYS_madvise, page, wiped, libc::MADV_WIPEONFORK);
        descriptors::set_table(table);
        session::set_live(page);
        session::set_touched(page.add(4096));
    }
    fork::mark();
    true
}

fn map_anonymous(length: usize) -> Option<*mut u8> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping at an address that the kernel chooses.
    let at = unsafe { syscall!(libc::SYS_mmap, 0, length, rights, flags, -1isize, 0) };
    (at > 0).then_some(at as *mut u8)
}

/// Joins the session unless this process has. Waits a second for a
/// coordinator that is about to start, once.
///
/// # Errors
/// `EIO` when there is none.
#[cold]
pub(crate) fn ensure() -> Result<(), i32> {
    place::get().ok_or(libc::EIO)?;
    if session::epoch() != 0 {
        return Ok(());
    }
    if fork::is_vfork_child() {
        // What we noted would be the parent's.
        return Err(libc::EIO);
    }
    let mut line = Line::seize()?;
    if session::epoch() != 0 {
        return Ok(());
    }
    join(&mut line)
}

fn join(line: &mut Line) -> Result<(), i32> {
    let patient = Session::get().is_none() && !WAITED.swap(true, Relaxed);
    let deadline = clock::monotonic().wrapping_add(if patient { START } else { 0 });
    loop {
        let joined = connect(line);
        if joined != Err(libc::EIO) || clock::monotonic() >= deadline {
            return joined;
        }
        nap(10_000_000);
    }
}

fn nap(nanoseconds: i64) {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    };
    // SAFETY: the kernel reads the time.
    unsafe { syscall!(libc::SYS_nanosleep, &raw const time, 0) };
}

/// Connects, greets, and notes the welcome.
///
/// # Errors
/// `EIO`.
fn connect(line: &mut Line) -> Result<(), i32> {
    let place = place::fixed().ok_or(libc::EIO)?;
    let live = live().ok_or(libc::EIO)?;
    let socket = live.socket.load(Relaxed).wrapping_sub(1);
    if live.pending.swap(0, Relaxed) != 0 && socket >= 0 {
        return finish(line, socket);
    }
    if Session::get().is_some_and(Session::is_dead) {
        return Err(libc::EIO);
    }
    drop_inherited(live);
    let socket = dial(place)?;
    send_hello(line, socket)?;
    finish(line, socket)
}

/// Notes the welcome that comes over `socket`, which is closed otherwise.
///
/// # Errors
/// `EIO`; `ENOMEM`: the session's memory does not fit into this process.
fn finish(line: &mut Line, socket: c_int) -> Result<(), i32> {
    let live = live().ok_or(libc::EIO)?;
    // With a libc whose streams are not served, some calls would be missed:
    // better that none is taken for done.
    let welcome = if verified() {
        receive_welcome(line, socket)
    } else {
        Err(libc::EIO)
    };
    let (process, generation) = welcome.inspect_err(|_| {
        keep_socket(live, -1);
        control::close(socket);
    })?;
    live.process.store(process, Relaxed);
    live.generation.store(generation, Relaxed);
    keep_socket(live, socket);
    let count = ATTACHMENTS.fetch_add(1, Relaxed).wrapping_add(1);
    live.epoch.store(count.max(1), Release);
    Ok(())
}

/// Notes the control socket; -1: none.
fn keep_socket(live: &Live, socket: c_int) {
    live.socket.store(socket.wrapping_add(1), Relaxed);
    SOCKET.store(socket.wrapping_add(1), Relaxed);
}

/// Closes the parent's socket in a child of fork.
fn drop_inherited(live: &Live) {
    let inherited = SOCKET.swap(0, Relaxed).wrapping_sub(1);
    let own = live.socket.load(Relaxed).wrapping_sub(1);
    if inherited >= 0 && inherited != own && is_socket(inherited) {
        control::close(inherited);
    }
}

fn is_socket(fd: c_int) -> bool {
    descriptors::mode_of(fd).is_some_and(|mode| mode & libc::S_IFMT == libc::S_IFSOCK)
}

/// A connection to the coordinator's socket, at the top of the descriptors.
fn dial(place: &Place) -> Result<c_int, i32> {
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    let parts = [place.session.bytes(), b"/", names::SOCKET.as_bytes()];
    let path = parts.into_iter().flatten();
    address
        .sun_path
        .iter_mut()
        .zip(path)
        .for_each(|(slot, byte)| *slot = *byte as c_char);
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: integers; the kernel reads the address, which is whole.
    unsafe {
        let socket = syscall!(libc::SYS_socket, libc::AF_UNIX, kind, 0);
        if socket < 0 {
            return Err(libc::EIO);
        }
        let socket = lifted(socket as c_int);
        let length = size_of::<libc::sockaddr_un>();
        if syscall!(libc::SYS_connect, socket, &raw const address, length) < 0 {
            control::close(socket);
            return Err(libc::EIO);
        }
        if !is_served_by_us(socket) {
            control::close(socket);
            return Err(libc::EIO);
        }
        Ok(socket)
    }
}

/// Whether a connection leads to a process of our own user: anybody can make
/// a directory where the session's would be.
fn is_served_by_us(socket: c_int) -> bool {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, and takes integers.
    unsafe {
        let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        let (at, length) = (&raw mut peer, &raw mut length);
        let got = syscall!(libc::SYS_getsockopt, socket, level, option, at, length);
        got == 0 && peer.uid == syscall!(libc::SYS_geteuid) as u32
    }
}

/// Moves a descriptor of ours out of the program's way.
fn lifted(fd: c_int) -> c_int {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the limit; the rest takes integers.
    unsafe {
        let (which, limit_at) = (libc::RLIMIT_NOFILE, &raw mut limit);
        syscall!(libc::SYS_prlimit64, 0, which, 0, limit_at);
        let from = limit.rlim_cur.min(TOP).saturating_sub(ABOVE);
        let high = syscall!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, from);
        if high < 0 {
            return fd;
        }
        control::close(fd);
        high as c_int
    }
}

/// Says hello; the socket is closed when that fails.
fn send_hello(line: &mut Line, socket: c_int) -> Result<(), i32> {
    let place = place::fixed().ok_or(libc::EIO)?;
    let hello = Request::Hello {
        version: VERSION,
        app: place.app.bytes(),
        forked: Session::get().is_some(),
    };
    line.ask(socket, &hello).map_err(|_| {
        control::close(socket);
        libc::EIO
    })
}

/// The answer to hello: the process record and its generation.
fn receive_welcome(line: &mut Line, socket: c_int) -> Result<(u32, u32), i32> {
    let answer = line.answer(socket, libc::MSG_CMSG_CLOEXEC);
    let (body, received) = answer.map_err(|_| libc::EIO)?;
    let Some(Reply::Welcome {
        process,
        generation,
        arena,
    }) = line.reply(body)
    else {
        received.close();
        return Err(libc::EIO);
    };
    if Session::get().is_none() {
        let mapped = map_session(&received, arena);
        received.close();
        mapped?;
        descriptors::scan();
    }
    Ok((process, generation))
}

/// Takes the session, of which descriptors were inherited, for one that has ended:
/// its memory cannot be had any more, and what the kernel says of them (that they
/// are empty) is no answer.
#[cold]
fn play_dead() {
    let arena = map_anonymous(CHUNK as usize);
    let (meta, sync) = (map_anonymous(meta::SIZE), map_anonymous(sync::SIZE));
    let (Some(arena), Some(meta), Some(sync)) = (arena, meta, sync) else {
        return;
    };
    if Session::get().is_none() {
        // SAFETY: mapped in these sizes just now, never to be unmapped.
        unsafe { Session::set(arena, CHUNK as usize, meta, sync) };
        if let Some(session) = Session::get() {
            session.end();
        }
        descriptors::scan();
    }
}

/// Maps the session's memory, for ever.
fn map_session(received: &Received, arena: u64) -> Result<(), i32> {
    let [arena_fd, meta_fd, sync_fd] = received.three().ok_or(libc::EIO)?;
    let arena_bytes = usize::try_from(arena).map_err(|_| libc::EIO)?;
    let write = libc::PROT_READ | libc::PROT_WRITE;
    let meta = map_shared(0, meta_fd, meta::SIZE, libc::PROT_READ).ok_or(libc::ENOMEM)?;
    let Some(sync) = map_shared(0, sync_fd, sync::SIZE, write) else {
        unmap(meta, meta::SIZE);
        return Err(libc::ENOMEM);
    };
    // SAFETY: `meta` starts with its header and is mapped.
    let header = unsafe { &*meta.cast::<MetaHeader>() };
    if header.magic.load(Relaxed) != MAGIC {
        return Err(libc::EIO);
    }
    let arena = if header.huge.load(Relaxed) != 0 {
        map_aligned(arena_fd, arena_bytes)
    } else {
        map_shared(0, arena_fd, arena_bytes, write)
    };
    let Some(arena) = arena else {
        // Each call tries again, and must not take more each time.
        unmap(meta, meta::SIZE);
        unmap(sync, sync::SIZE);
        return Err(libc::ENOMEM);
    };
    // SAFETY: our own mapping, which would fill core dumps.
    unsafe { syscall!(libc::SYS_madvise, arena, arena_bytes, libc::MADV_DONTDUMP) };
    // SAFETY: mapped in these sizes just now, never to be unmapped.
    unsafe { Session::set(arena, arena_bytes, meta, sync) };
    Ok(())
}

/// Takes away a mapping that nobody has seen.
fn unmap(at: *mut u8, length: usize) {
    // SAFETY: our own mapping, made just now.
    unsafe { syscall!(libc::SYS_munmap, at, length) };
}

fn map_shared(at: usize, fd: c_int, length: usize, rights: c_int) -> Option<*mut u8> {
    let fixed = if at == 0 { 0 } else { libc::MAP_FIXED };
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | fixed;
    // SAFETY: a fresh mapping, or one over our own reservation.
    let at = unsafe { syscall!(libc::SYS_mmap, at, length, rights, flags, fd, 0) };
    (at > 0).then_some(at as *mut u8)
}

/// Maps the arena so that huge pages fit.
fn map_aligned(fd: c_int, length: usize) -> Option<*mut u8> {
    let chunk = CHUNK as usize;
    let room = length.checked_add(chunk)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh reservation.
    let from = unsafe { syscall!(libc::SYS_mmap, 0, room, libc::PROT_NONE, flags, -1isize, 0) };
    let from = usize::try_from(from).ok()?;
    let start = from.checked_next_multiple_of(chunk)?;
    let at = map_shared(start, fd, length, libc::PROT_READ | libc::PROT_WRITE)?;
    let (before, end) = (start.wrapping_sub(from), start.wrapping_add(length));
    let after = from.wrapping_add(room).wrapping_sub(end);
    // SAFETY: what is left over of the reservation, and our own mapping.
    unsafe {
        if before != 0 {
            syscall!(libc::SYS_munmap, from, before);
        }
        if after != 0 {
            syscall!(libc::SYS_munmap, end, after);
        }
        syscall!(libc::SYS_madvise, at, length, libc::MADV_HUGEPAGE);
    }
    Some(at)
}

/// One request and its reply, over a new connection if the old one is gone.
/// The reply's place in the line's frame.
///
/// # Errors
/// `EIO` when there is no coordinator; `ENAMETOOLONG`.
pub(crate) fn exchange(
    line: &mut Line,
    request: &Request<'_>,
) -> Result<(control::Body, Received), i32> {
    let live = live().ok_or(libc::EIO)?;
    if Session::get().is_none_or(Session::is_dead) {
        return Err(libc::EIO);
    }
    if live.socket.load(Relaxed) == 0 {
        connect(line)?;
    }
    let socket = live.socket.load(Relaxed).wrapping_sub(1);
    line.turn(socket, request).map_err(|error| {
        if error == libc::ENAMETOOLONG {
            return error;
        }
        // Whether the request was carried out is not known: it is not sent again.
        hang_up();
        libc::EIO
    })
}

/// Gives up the connection.
pub(crate) fn hang_up() {
    if let Some(live) = live() {
        let socket = live.socket.swap(0, Relaxed).wrapping_sub(1);
        SOCKET.store(0, Relaxed);
        if socket >= 0 {
            control::close(socket);
        }
    }
}

/// For a thread that waits: whether the coordinator is there still.
///
/// # Errors
/// `EIO` when it is not.
pub(crate) fn look() -> Result<(), i32> {
    let (session, live) = (Session::get().ok_or(libc::EIO)?, live().ok_or(libc::EIO)?);
    if session.is_dead() {
        return Err(libc::EIO);
    }
    let now = clock::monotonic();
    let due = live.looked.load(Relaxed).wrapping_add(LOOK);
    if now < due {
        return Ok(());
    }
    live.looked.store(now, Relaxed);
    let socket = live.socket.load(Acquire).wrapping_sub(1);
    if socket >= 0 && !is_at_end(socket) {
        return Ok(());
    }
    let mut line = Line::seize()?;
    hang_up();
    connect(&mut line)
}

/// Whether the other side of a connection is gone.
fn is_at_end(socket: c_int) -> bool {
    let mut byte = 0u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: room for one byte.
    let got = unsafe { syscall!(libc::SYS_recvfrom, socket, &raw mut byte, 1, flags, 0, 0) };
    got == 0 || got == -(libc::ECONNRESET as isize) || got == -(libc::ENOTCONN as isize)
}

/// Tells the coordinator that this process ends by itself: a writer that ends
/// without was killed, and its files are not whole.
pub(crate) fn note_ending() {
    let joined = session::epoch() != 0 && !fork::is_vfork_child();
    if let (true, Some(session), Some(live)) = (joined, Session::get(), live())
        && let Some(record) = session.record(live.process.load(Acquire))
    {
        record.ending.store(1, Release);
    }
}

/// The control socket, which no call of the program may touch.
#[inline(always)]
pub(crate) fn own_socket() -> c_int {
    live().map_or(-1, |live| live.socket.load(Relaxed).wrapping_sub(1))
}

/// Makes way when the program wants the control socket's number.
///
/// # Errors
/// `EIO`.
pub(crate) fn move_socket() -> Result<(), i32> {
    let _line = Line::seize()?;
    let live = live().ok_or(libc::EIO)?;
    let socket = live.socket.load(Relaxed).wrapping_sub(1);
    let above = socket.wrapping_add(1);
    // SAFETY: integers.
    let moved = unsafe { syscall!(libc::SYS_fcntl, socket, libc::F_DUPFD_CLOEXEC, above) };
    if moved < 0 {
        hang_up();
        return Ok(());
    }
    live.socket.store((moved as c_int).wrapping_add(1), Relaxed);
    SOCKET.store((moved as c_int).wrapping_add(1), Relaxed);
    control::close(socket);
    Ok(())
}

/// Before a child that works in this memory: what it needs must be there, as
/// it cannot join by itself.
pub(crate) fn before_vfork() {
    if live().is_some_and(|live| live.pending.load(Relaxed) != 0) {
        // Without a coordinator the child's calls fail as ours do.
        let _ = ensure();
    }
}

/// In a child of fork, first of all: the line belongs to the parent.
pub(crate) fn after_fork() {
    let inherited = SOCKET.swap(0, Relaxed).wrapping_sub(1);
    if inherited >= 0 {
        control::close(inherited);
    }
}
