//! The end of a session, good or sudden.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coordinator::session::admin::AdminClient;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::peer::{PATIENCE, Peer};
use crate::world::{World, setup, setup_on};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn gone_within(path: &Path, limit: Duration) -> bool {
    let start = Instant::now();
    while path.exists() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Set in a copy of this program that one test runs: what that is to do.
const ROLE: &str = "CAPIO_ENGINE_TEST_ROLE";

/// A copy of this program, killed at the end if it still runs.
struct Copy(Child);

impl Copy {
    /// Runs the test of that name, and nothing else.
    fn of(test: &str, role: &OsStr) -> Self {
        let mut copy = Command::new(std::env::current_exe().unwrap());
        copy.args(["--exact", test, "--nocapture"]).env(ROLE, role);
        Self(copy.stdout(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, signal).unwrap();
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a copy: coordinates a session on the directory that is its role, until
/// it is killed.
fn coordinate_if_asked() {
    if let Some(dir) = std::env::var_os(ROLE) {
        let _world = setup_on(Path::new(&dir)).start();
        loop {
            std::thread::park();
        }
    }
}

/// A coordinator in another process, and its session's directory.
fn coordinator_on(dir: &Path, test: &str) -> (Copy, PathBuf) {
    let place = coordinator::service::session_dir(setup_on(dir).dir(), "engine");
    let coordinator = Copy::of(test, dir.as_os_str());
    let start = Instant::now();
    while !place.join(wire::place::SOCKET).exists() {
        assert!(
            start.elapsed() < PATIENCE,
            "no session in {}",
            place.display()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    (coordinator, place)
}

#[test]
fn a_killed_coordinator_leaves_nothing_and_keeps_nobody_waiting() {
    coordinate_if_asked();
    let test = "ends::a_killed_coordinator_leaves_nothing_and_keeps_nobody_waiting";
    let dir = tempfile::tempdir().unwrap();
    let (coordinator, place) = coordinator_on(dir.path(), test);
    let mut peer = Peer::join(&place, "a");
    peer.put("f", b"x");
    assert!(!peer.is_dead() && place.exists());
    coordinator.signal(Signal::SIGKILL);
    assert!(gone_within(&place, Duration::from_secs(1)));
    assert!(peer.is_dead());
}

#[test]
fn the_place_of_a_killed_coordinator_can_be_taken_at_once() {
    coordinate_if_asked();
    let test = "ends::the_place_of_a_killed_coordinator_can_be_taken_at_once";
    let dir = tempfile::tempdir().unwrap();
    let (coordinator, place) = coordinator_on(dir.path(), test);
    drop(coordinator);
    assert!(gone_within(&place, PATIENCE));
    let world = setup_on(dir.path()).start();
    assert_eq!(world.place(), place);
    world.join("a").put("f", b"x");
}

#[test]
fn closes_that_the_kernel_had_no_room_to_report_are_found_all_the_same() {
    coordinate_if_asked();
    let test = "ends::closes_that_the_kernel_had_no_room_to_report_are_found_all_the_same";
    let queue = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let more: u32 = queue.trim().parse::<u32>().unwrap() + 1000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(
        hard > u64::from(more) + 1000,
        "too few descriptors are allowed"
    );
    let dir = tempfile::tempdir().unwrap();
    let (coordinator, place) = coordinator_on(dir.path(), test);
    let mut peer = Peer::join(&place, "a");
    let mut open_all = || -> Vec<_> { (0..more).map(|_| peer.create("f")).collect() };
    let opens = open_all();
    coordinator.signal(Signal::SIGSTOP);
    drop(opens);
    coordinator.signal(Signal::SIGCONT);
    // Young descriptors are given time to arrive.
    std::thread::sleep(Duration::from_secs(5));
    let highest = open_all().iter().map(|open| open.ofd.id).max().unwrap();
    assert!(highest < more, "{highest}: numbers are lost");
}

#[test]
fn readers_that_wait_learn_of_the_end_of_the_session() {
    let graph = r#"{"name": "w", "input_stream": [], "output_stream": ["f"]},
                   {"name": "r", "input_stream": ["f"], "output_stream": []}"#;
    let world = setup().spec(graph, "").start();
    let mut writer = world.join("w");
    let _open = writer.create("f");
    let reader = world.process("r", |peer| {
        let open = peer.file("f", libc::O_RDONLY);
        let start = Instant::now();
        assert_eq!(peer.read(&open, 0, 1), Err(libc::EIO));
        assert!(start.elapsed() < PATIENCE);
    });
    world.until_waits("r");
    world.session().shutdown();
    reader.join();
    assert!(!world.place().exists());
}

#[test]
fn two_sessions_on_one_directory_are_refused() {
    let first = World::new();
    let second = setup_on(first.dir());
    let error = (coordinator::ENGINE.start)(second.config).err().unwrap();
    assert!(error.to_string().contains("already running"), "{error}");
    assert!(first.place().exists());
}

#[test]
fn ended_sessions_leave_no_thread_behind() {
    if std::env::var_os(ROLE).is_none() {
        // In a process of its own, as other tests start and end threads.
        let test = "ends::ended_sessions_leave_no_thread_behind";
        let status = Copy::of(test, OsStr::new("alone")).0.wait().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let before = threads();
    for _ in 0..5 {
        let world = World::new();
        drop(AdminClient::connect(world.place()).unwrap());
        world.join("a").put("f", b"x");
    }
    let start = Instant::now();
    while threads() > before && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(threads(), before);
}
