//! Where things are: `CAPIO_DIR` in the two spellings that count (the
//! environment's and the canonical one), the session's directory, the working
//! directory, and which paths concern the session.

use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

use wire::limits::MAX_PATH;
use wire::message::Name;
use wire::place;

use crate::sys::syscall;
use crate::text::{self, Text};
use crate::{descriptors, fork};

/// What is fixed at start.
pub(crate) struct Place {
    /// `CAPIO_DIR` as the environment spells it, normalised; empty: as `canonical`.
    pub(crate) spelling: Text<MAX_PATH>,
    /// `CAPIO_DIR` without symbolic links.
    pub(crate) canonical: Text<MAX_PATH>,
    /// The session's directory.
    pub(crate) session: Text<{ place::MAX_SESSION_PATH }>,
    /// The shadow of `CAPIO_DIR`.
    pub(crate) shadow: Text<{ place::MAX_SESSION_PATH }>,
    /// Step: `CAPIO_APP_NAME`.
    pub(crate) app: Text<1024>,
    /// `st_dev` of `CAPIO_DIR` in the lower layer.
    pub(crate) device: u64,
}

struct Fixed(UnsafeCell<Place>);

// SAFETY: written by the one thread that has set STARTING, before it stores
// ACTIVE; only read after that.
unsafe impl Sync for Fixed {}

static PLACE: Fixed = Fixed(UnsafeCell::new(Place {
    spelling: Text::new(),
    canonical: Text::new(),
    session: Text::new(),
    shadow: Text::new(),
    app: Text::new(),
    device: 0,
}));
/// Nobody has looked yet.
const NEW: u32 = 0;
/// A thread is looking.
const STARTING: u32 = 1;
/// `CAPIO_DIR` is set: files are taken over.
const ACTIVE: u32 = 2;
/// Nothing is.
const OFF: u32 = 3;
static STATE: AtomicU32 = AtomicU32::new(NEW);
static UMASK: AtomicU32 = AtomicU32::new(0);
/// The working directory: see [`Cwd`]. 0: not known.
static CWD: AtomicU64 = AtomicU64::new(0);

/// What was found at start; `None` while nothing is taken over.
#[inline(always)]
pub(crate) fn get() -> Option<&'static Place> {
    match STATE.load(Acquire) {
        // SAFETY: not written any more once the state is ACTIVE.
        ACTIVE => Some(unsafe { &*PLACE.0.get() }),
        NEW => first(),
        _ => None,
    }
}

/// As [`get`], but never looks for it.
pub(crate) fn fixed() -> Option<&'static Place> {
    // SAFETY: not written any more once the state is ACTIVE.
    (STATE.load(Acquire) == ACTIVE).then(|| unsafe { &*PLACE.0.get() })
}

/// A call came before the library's constructor.
#[cold]
fn first() -> Option<&'static Place> {
    crate::attach::start();
    (STATE.load(Acquire) != NEW).then(get).flatten()
}

/// Lets `fill` find out the place, the first time; whether files are taken
/// over from now on. `None`: somebody else has done or does it.
pub(crate) fn fix(fill: impl FnOnce(&mut Place) -> bool) -> Option<bool> {
    STATE
        .compare_exchange(NEW, STARTING, Acquire, Acquire)
        .ok()?;
    // SAFETY: only one thread gets here, and nobody reads before ACTIVE.
    let filled = fill(unsafe { &mut *PLACE.0.get() });
    STATE.store(if filled { ACTIVE } else { OFF }, Release);
    Some(filled)
}

/// The process's umask.
pub(crate) fn umask() -> u32 {
    if fork::in_vfork_child() {
        // The child's own, which the parent does not share.
        return read_umask();
    }
    UMASK.load(Relaxed)
}

/// Keeps a umask that was set.
pub(crate) fn keep_umask(mask: u32) {
    if !fork::in_vfork_child() {
        UMASK.store(mask & 0o777, Relaxed);
    }
}

/// Asks the kernel, which can only tell by setting it.
pub(crate) fn read_umask() -> u32 {
    // SAFETY: plain integers. Nothing is created in between by this thread.
    unsafe {
        let mask = syscall!(libc::SYS_umask, 0o077);
        syscall!(libc::SYS_umask, mask);
        mask as u32
    }
}

impl Place {
    /// What follows `CAPIO_DIR` in `path`, which is absolute.
    #[inline(always)]
    pub(crate) fn inside<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        below(self.canonical.bytes(), path).or_else(|| below(self.spelling.bytes(), path))
    }

    /// `st_dev` of the session's directory; 0: it is gone.
    pub(crate) fn session_device(&self) -> u64 {
        let mut path = Text::<MAX_PATH>::new();
        path.set(self.session.bytes());
        let session = descriptors::status(libc::AT_FDCWD, path.as_ptr());
        // Descriptors outlive it.
        let status = session.or_else(|| {
            path.set(place::BASE.as_bytes());
            descriptors::status(libc::AT_FDCWD, path.as_ptr())
        });
        status.map_or(0, |st| st.st_dev)
    }

    /// Whether the kernel's name `path` lies in `CAPIO_DIR`.
    pub(crate) fn canonical_has(&self, path: &[u8]) -> bool {
        below(self.canonical.bytes(), path).is_some()
    }

    /// The path below `CAPIO_DIR` of a kernel path below its shadow.
    pub(crate) fn behind_shadow<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        below(self.shadow.bytes(), path)
    }

    /// What follows `CAPIO_DIR` in the kernel's path of a program of the cache.
    pub(crate) fn behind_run<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let rest = below(self.session.bytes(), path)?.strip_prefix(b"/")?;
        below(place::RUN.as_bytes(), rest)
    }

    /// The path below `CAPIO_DIR` that the running program has there, if it is
    /// one of the cache; with ` (deleted)` behind it if it was removed since.
    #[cold]
    fn running(&self, name: &mut Text<MAX_PATH>) -> bool {
        let mut link = Text::<MAX_PATH>::new();
        read_link(c"/proc/self/exe".as_ptr(), &mut link);
        if let Some(rest) = self.behind_run(link.bytes()) {
            return name.set(rest);
        }
        // Where nothing runs from the session's directory it leads elsewhere.
        let (mut run, mut elsewhere) = (Text::<MAX_PATH>::new(), Text::<MAX_PATH>::new());
        let fits =
            run.set(self.session.bytes()) && run.push(b"/") && run.push(place::RUN.as_bytes());
        read_link(run.as_ptr(), &mut elsewhere);
        let rest = below(elsewhere.bytes(), link.bytes());
        fits && rest.is_some_and(|rest| name.set(rest))
    }

    /// The path that the running program has for programs, if it is one of the
    /// cache.
    pub(crate) fn program(&self, path: &mut Text<MAX_PATH>) -> bool {
        let mut rest = Text::<MAX_PATH>::new();
        self.running(&mut rest) && path.set(self.canonical.bytes()) && path.push(rest.bytes())
    }
}

/// What the kernel's symbolic link at `path` says; empty: it is none.
fn read_link(path: *const c_char, content: &mut Text<MAX_PATH>) {
    // SAFETY: a string of the caller; the kernel writes as many bytes as it says.
    unsafe {
        content.fill(|room| {
            let (start, length) = (room.as_mut_ptr(), room.len());
            syscall!(libc::SYS_readlinkat, libc::AT_FDCWD, path, start, length)
        });
    }
}

/// Whether `path` is the kernel's of a program of the cache.
pub(crate) fn is_in_run(path: &[u8]) -> bool {
    get().is_some_and(|place| place.behind_run(path).is_some())
}

/// What follows directory `prefix` in `path` when it lies there.
#[inline(always)]
pub(crate) fn below<'a>(prefix: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    if prefix.is_empty() {
        return None;
    }
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.first() == Some(&b'/')).then_some(rest)
}

/// The working directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cwd {
    /// The shadow of the directory with this inode.
    Inside(u64),
    /// Elsewhere: so many ".." lead to a parent of `CAPIO_DIR`, whose path is
    /// the first `shared` bytes of the canonical one.
    Outside { up: u32, shared: u32 },
    /// Not known: it was removed, say.
    Unknown,
}

impl Cwd {
    fn pack(self) -> u64 {
        match self {
            Self::Inside(inode) => (inode << 2) | 2,
            Self::Outside { up, shared } => {
                (u64::from(up & 0xffff) << 34) | (u64::from(shared) << 2) | 1
            }
            Self::Unknown => 3,
        }
    }

    fn unpack(word: u64) -> Self {
        match word & 3 {
            2 => Self::Inside(word >> 2),
            1 => Self::Outside {
                up: (word >> 34) as u32,
                shared: (word >> 2) as u32,
            },
            _ => Self::Unknown,
        }
    }

    /// Asks the kernel.
    fn ask(place: &Place) -> Self {
        let mut path = Text::<MAX_PATH>::new();
        if !read_cwd(&mut path) {
            return Self::Unknown;
        }
        if place.behind_shadow(path.bytes()).is_some() {
            return descriptors::inode_of(libc::AT_FDCWD, c"".as_ptr())
                .map_or(Self::Unknown, Self::Inside);
        }
        let (up, shared) = text::distance(path.bytes(), place.canonical.bytes());
        Self::Outside { up, shared }
    }

    fn current(place: &Place) -> Self {
        if fork::in_vfork_child() {
            return Self::ask(place);
        }
        match CWD.load(Relaxed) {
            0 => {
                let cwd = Self::ask(place);
                CWD.store(cwd.pack(), Relaxed);
                cwd
            }
            word => Self::unpack(word),
        }
    }
}

/// Whether the process was started in `CAPIO_DIR` or a shadow of it.
pub(crate) fn cwd_may_be_inside() -> bool {
    let mut path = Text::<MAX_PATH>::new();
    let Some(place) = fixed() else { return false };
    read_cwd(&mut path)
        && (place.canonical_has(path.bytes()) || place.behind_shadow(path.bytes()).is_some())
}

/// Moves a process that was started in `CAPIO_DIR` itself into its shadow, unless
/// it asks the kernel past us: its files would be lost there.
pub(crate) fn move_cwd() {
    let mut path = Text::<MAX_PATH>::new();
    let starts_inside =
        fixed().is_some_and(|place| read_cwd(&mut path) && place.canonical_has(path.bytes()));
    if starts_inside && !crate::doors::exec::runs_go() {
        // SAFETY: a string of ours. A directory that the session has not, or
        // no session: the kernel's stays.
        unsafe { crate::calls::chdir(path.as_ptr()) };
    }
}

/// The kernel's working directory; `false` when it has none.
pub(crate) fn read_cwd(path: &mut Text<MAX_PATH>) -> bool {
    // SAFETY: the kernel writes at most `room.len()` bytes and says how many.
    unsafe {
        path.fill(|room| syscall!(libc::SYS_getcwd, room.as_mut_ptr(), room.len()).wrapping_sub(1));
    }
    path.bytes().first() == Some(&b'/')
}

/// The working directory may have changed.
pub(crate) fn forget_cwd() {
    if !fork::in_vfork_child() {
        CWD.store(0, Relaxed);
    }
}

/// Whether the kernel's working directory is a shadow.
pub(crate) fn cwd_is_inside() -> bool {
    get().is_some_and(|place| matches!(Cwd::current(place), Cwd::Inside(_)))
}

/// Inode of the working directory when it is inside.
pub(crate) fn cwd_inode() -> Option<u64> {
    match Cwd::current(get()?) {
        Cwd::Inside(inode) => Some(inode),
        _ => None,
    }
}

/// Where a path leads.
#[derive(Debug)]
pub(crate) enum Where<'a> {
    /// Below `CAPIO_DIR`.
    Here(Name<'a>),
    /// To an open descriptor by its name in `/proc/self/fd` or `/dev/fd`, and
    /// on from there.
    Descriptor(c_int, &'a [u8]),
    /// To the running program by `/proc/self/exe`, where that lies in the cache;
    /// `None`: it was removed since, and only the kernel has it.
    Program(Option<Name<'a>>),
    /// Nowhere that concerns the session.
    Elsewhere,
}

/// A path that a program has given.
pub(crate) struct PathArgument(Text<MAX_PATH>);

impl PathArgument {
    /// Room for one.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(Text::new())
    }

    /// Reads `path`, which starts from directory `dirfd`, and tells where it
    /// leads. What cannot be read is elsewhere: the kernel says why.
    ///
    /// # Safety
    /// `path` may be any address whose content is the caller's.
    #[inline(always)]
    pub(crate) unsafe fn locate(&mut self, dirfd: c_int, path: *const c_char) -> Where<'_> {
        let Some(place) = get() else {
            return Where::Elsewhere;
        };
        // SAFETY: the caller's word.
        if !unsafe { self.0.read(path) } {
            return Where::Elsewhere;
        }
        classify(place, dirfd, &mut self.0)
    }
}

#[inline(always)]
fn classify<'a>(place: &Place, dirfd: c_int, path: &'a mut Text<MAX_PATH>) -> Where<'a> {
    match path.bytes().first() {
        Some(b'/') => absolute(place, path),
        Some(_) if dirfd == libc::AT_FDCWD => relative(place, path),
        Some(_) => match descriptors::get(dirfd) {
            descriptors::Kind::Directory(base) => Where::Here(Name {
                base,
                path: path.bytes(),
            }),
            descriptors::Kind::Ofd { .. } => Where::Elsewhere,
            descriptors::Kind::None if !text::may_enter(path.bytes(), place.canonical.bytes()) => {
                Where::Elsewhere
            }
            _ => from_directory(place, dirfd, path),
        },
        None => Where::Elsewhere,
    }
}

/// A path from a directory outside that may lead to `CAPIO_DIR`.
#[cold]
fn from_directory<'a>(place: &Place, dirfd: c_int, path: &'a mut Text<MAX_PATH>) -> Where<'a> {
    let mut whole = Text::<MAX_PATH>::new();
    descriptors::name_of(dirfd, &mut whole);
    let joined = whole.push(b"/") && whole.push(path.bytes());
    if !joined || !whole.normalise() || !path.set(whole.bytes()) {
        return Where::Elsewhere;
    }
    here(place, path.bytes())
}

#[inline(always)]
fn absolute<'a>(place: &Place, path: &'a mut Text<MAX_PATH>) -> Where<'a> {
    let bytes = path.bytes();
    let inside = place.inside(bytes).is_some();
    if !inside && !text::may_have_dots(bytes) {
        if bytes.starts_with(b"/dev/") || bytes.starts_with(b"/proc/") {
            return of_the_kernel(place, path);
        }
        return Where::Elsewhere;
    }
    if !inside && !path.normalise() {
        return Where::Elsewhere;
    }
    here(place, path.bytes())
}

/// A path in `/dev` or `/proc`.
#[cold]
fn of_the_kernel<'a>(place: &Place, path: &'a mut Text<MAX_PATH>) -> Where<'a> {
    if place.behind_run(path.bytes()).is_some() {
        // A program of the cache looks for something beside itself.
        return here(place, path.bytes());
    }
    if !is_own_program(path.bytes()) {
        return named_descriptor(path.bytes());
    }
    if !place.running(path) {
        return Where::Elsewhere;
    }
    let path = text::without_slashes(path.bytes());
    let there = !path.ends_with(b" (deleted)");
    Where::Program(there.then_some(Name { base: 0, path }))
}

/// Whether `path` is `/proc/self/exe` or the like.
fn is_own_program(path: &[u8]) -> bool {
    matches!(path, b"/proc/self/exe" | b"/proc/thread-self/exe")
        || own_process(path) == Some(b"/exe")
}

/// `path` when it lies in `CAPIO_DIR`.
fn here<'a>(place: &Place, path: &'a [u8]) -> Where<'a> {
    let inside = place.inside(path).or_else(|| place.behind_run(path));
    inside.map_or(Where::Elsewhere, |rest| {
        Where::Here(Name {
            base: 0,
            path: text::without_slashes(rest),
        })
    })
}

fn relative<'a>(place: &Place, path: &'a mut Text<MAX_PATH>) -> Where<'a> {
    match Cwd::current(place) {
        Cwd::Inside(base) => Where::Here(Name {
            base,
            path: path.bytes(),
        }),
        Cwd::Outside { up, shared } => {
            let canonical = place.canonical.bytes();
            // Below `CAPIO_DIR` in the lower layer: not moved to the shadow yet.
            let below = shared as usize == canonical.len();
            if !below && !text::may_reach(path.bytes(), up, shared, canonical) {
                return Where::Elsewhere;
            }
            from_cwd(place, path)
        }
        Cwd::Unknown => Where::Elsewhere,
    }
}

/// A relative path that may lead to `CAPIO_DIR` from outside.
#[cold]
fn from_cwd<'a>(place: &Place, path: &'a mut Text<MAX_PATH>) -> Where<'a> {
    let mut whole = Text::<MAX_PATH>::new();
    let joined = read_cwd(&mut whole) && whole.push(b"/") && whole.push(path.bytes());
    if !joined || !whole.normalise() || !path.set(whole.bytes()) {
        return Where::Elsewhere;
    }
    here(place, path.bytes())
}

/// `/proc/self/fd/N`, `/dev/fd/N`, `/dev/stdin` and the like.
#[cold]
fn named_descriptor(path: &[u8]) -> Where<'_> {
    let standard = [
        (&b"/dev/stdin"[..], 0),
        (b"/dev/stdout", 1),
        (b"/dev/stderr", 2),
    ];
    if let Some((_, fd)) = standard.into_iter().find(|(name, _)| *name == path) {
        return Where::Descriptor(fd, b"");
    }
    let number = path
        .strip_prefix(b"/dev/fd/")
        .or_else(|| path.strip_prefix(b"/proc/self/fd/"))
        .or_else(|| path.strip_prefix(b"/proc/thread-self/fd/"))
        .or_else(|| own_process(path)?.strip_prefix(b"/fd/"));
    let Some((fd, rest)) = number.and_then(text::number) else {
        return Where::Elsewhere;
    };
    match rest.first() {
        None | Some(b'/') => Where::Descriptor(fd as c_int, text::without_slashes(rest)),
        Some(_) => Where::Elsewhere,
    }
}

/// What follows `/proc/PID` when that is this process.
fn own_process(path: &[u8]) -> Option<&[u8]> {
    let (pid, rest) = text::number(path.strip_prefix(b"/proc/")?)?;
    // SAFETY: takes nothing.
    let own = unsafe { syscall!(libc::SYS_getpid) };
    (own == pid as isize).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_survives_packing() {
        for cwd in [
            Cwd::Inside(1 << 45),
            Cwd::Outside {
                up: 3,
                shared: 4095,
            },
            Cwd::Outside { up: 0, shared: 0 },
            Cwd::Unknown,
        ] {
            assert_eq!(Cwd::unpack(cwd.pack()), cwd);
        }
    }

    #[test]
    fn a_neighbour_with_the_same_beginning_is_not_taken_over() {
        assert_eq!(below(b"/data/run", b"/data/run/x"), Some(&b"/x"[..]));
        assert_eq!(below(b"/data/run", b"/data/run"), Some(&b""[..]));
        assert_eq!(below(b"/data/run", b"/data/runs/x"), None);
        assert_eq!(below(b"", b"/x"), None);
    }

    #[test]
    fn names_of_open_descriptors_are_recognised() {
        assert!(matches!(
            named_descriptor(b"/dev/stdin"),
            Where::Descriptor(0, b"")
        ));
        assert!(matches!(
            named_descriptor(b"/proc/self/fd/12/a"),
            Where::Descriptor(12, b"a")
        ));
        let own = std::format!("/proc/{}/fd/7", std::process::id());
        assert!(matches!(
            named_descriptor(own.as_bytes()),
            Where::Descriptor(7, b"")
        ));
        for other in [&b"/proc/1/fd/7"[..], b"/dev/null", b"/dev/fd/1x"] {
            assert!(matches!(named_descriptor(other), Where::Elsewhere));
        }
    }
}
