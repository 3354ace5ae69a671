//! The control socket: frames that are cut off, repeated or out of order, and
//! connections that are many or slow.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use wire::message::{OfdId, Reply, Request, SetTime, Target, decode};

use crate::line::{Line, frame, hello};
use crate::peer::{at, name};
use crate::world::{Process, World};

const SOON: Duration = Duration::from_secs(5);

/// An honest process joins, makes a file and removes it, without delay.
fn expect_service(world: &World) {
    let start = Instant::now();
    let honest = world.process("honest", |peer| {
        peer.put("honest", b"content");
        assert_eq!(peer.stat(at("honest")).unwrap().size, 7);
        let (name, directory) = (name("honest"), false);
        peer.tell(&Request::Unlink { name, directory }).unwrap();
    });
    honest.join();
    assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
}

/// Connections that the coordinator of `world` has accepted and holds.
fn held(world: &World) -> usize {
    let socket = world.place().join(wire::place::SOCKET);
    let all = std::fs::read_to_string("/proc/net/unix").unwrap();
    let ours = all
        .lines()
        .filter(|line| line.ends_with(socket.to_str().unwrap()));
    // Column 5: SS_CONNECTED is 3.
    ours.filter(|line| line.split_whitespace().nth(5) == Some("03"))
        .count()
}

/// Processes that this one watches, for any session.
fn watched() -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().contains("pidfd"))
        .count()
}

/// Memory of this process that is not shared, in bytes.
fn own_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let number = |at: usize| text.split(' ').nth(at).unwrap().parse::<u64>().unwrap();
    (number(1) - number(2)) * 4096
}

#[test]
fn half_a_frame_holds_up_nobody_else() {
    let world = World::new();
    let greeting = hello(b"half");
    let mut halves: Vec<Line> = (0..100).map(|_| Line::open(&world)).collect();
    for (length, line) in halves.iter_mut().enumerate() {
        assert!(line.send(&greeting[..length % greeting.len()]));
    }
    expect_service(&world);
    for (length, line) in halves.iter_mut().enumerate() {
        assert!(line.send(&greeting[length % greeting.len()..]));
        assert!(matches!(
            decode(&line.answer().unwrap()),
            Some(Reply::Welcome { .. })
        ));
    }
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_understood() {
    let world = World::new();
    let mut line = Line::open(&world);
    for byte in hello(b"slow") {
        assert!(line.send(&[byte]));
    }
    assert!(line.answer().is_some());
}

#[test]
fn frames_longer_than_allowed_end_their_connection_unread() {
    let world = World::new();
    for length in [64 * 1024 + 1, 1 << 24, u32::MAX] {
        let mut line = Line::open(&world);
        line.send(&length.to_le_bytes());
        assert!(line.is_ended(), "{length}");
        let mut line = Line::open(&world);
        line.greet(b"long").unwrap();
        line.send(&length.to_le_bytes());
        assert!(line.is_ended(), "{length}");
    }
    expect_service(&world);
}

#[test]
fn a_client_of_another_version_is_refused_and_named_once() {
    let world = World::new();
    for version in [0, 1, u32::MAX, 1, 0] {
        let mut line = Line::open(&world);
        let (app, forked) = (b"old", false);
        line.send(&frame(&Request::Hello {
            version,
            app,
            forked,
        }));
        let body = line.answer().unwrap();
        let refused = Some(Reply::Error(libc::EPROTONOSUPPORT));
        assert_eq!(decode::<Reply<'_>>(&body), refused);
        assert!(line.is_ended());
    }
    let warnings = world.session().snapshot().warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    expect_service(&world);
}

#[test]
fn requests_before_the_greeting_do_nothing() {
    let world = World::new();
    let (path, directory) = (name("d"), false);
    let make = Request::Mkdir {
        name: path,
        mode: 0o700,
    };
    let unlink = Request::Unlink {
        name: path,
        directory,
    };
    for request in [make, unlink, Request::Space] {
        let mut line = Line::open(&world);
        line.send(&frame(&request));
        line.send(&hello(b"late"));
        assert!(line.is_ended(), "{request:?}");
    }
    let peer = world.process("looks", |peer| {
        assert_eq!(peer.stat(at("d")).unwrap_err(), libc::ENOENT);
    });
    peer.join();
}

#[test]
fn a_second_greeting_on_a_line_is_refused_and_the_first_holds() {
    let world = World::new();
    let mut line = Line::open(&world);
    line.greet(b"first").unwrap();
    assert_eq!(line.greet(b"second"), Err(Some(libc::EPROTO)));
    line.send(&frame(&Request::Space));
    assert!(matches!(
        decode(&line.answer().unwrap()),
        Some(Reply::Space { .. })
    ));
    let steps = world.session().snapshot().steps;
    assert!(steps.iter().all(|step| step.name != "second"), "{steps:?}");
}

/// Frames of a life, in the right order.
fn life() -> Vec<Vec<u8>> {
    let (path, directory) = (name("life"), false);
    let target = Target::Path {
        name: path,
        follow: true,
    };
    let now = SetTime::Now;
    let (id, generation) = (0, 1);
    let ofd = OfdId { id, generation };
    let requests = [
        Request::Open {
            name: path,
            flags: libc::O_RDWR | libc::O_CREAT,
            mode: 0o600,
            thread: 0,
        },
        Request::Grant {
            ofd,
            offset: 0,
            length: 4096,
            thread: 0,
        },
        Request::Published {
            ofd,
            start: 0,
            end: 4096,
        },
        Request::Map { ofd, end: 4096 },
        Request::HandOver { ofd },
        Request::Chmod {
            target,
            mode: 0o400,
        },
        Request::Utimens {
            target,
            accessed: now,
            modified: now,
        },
        Request::Rename {
            from: path,
            to: name("after"),
            flags: 0,
        },
        Request::Unlink {
            name: name("after"),
            directory,
        },
    ];
    requests.iter().map(frame).collect()
}

#[test]
fn frames_replayed_or_out_of_order_get_answers_and_do_no_harm() {
    let world = World::new();
    let frames = life();
    let mut line = Line::open(&world);
    line.greet(b"replays").unwrap();
    for round in 0..300 {
        // All at once, from another place each time: answers come all the same.
        let turned = frames.iter().cycle().skip(round * 7).step_by(1 + round % 5);
        let chosen: Vec<_> = turned.take(frames.len()).cloned().collect();
        assert!(line.send(&chosen.concat()));
        for _ in 0..chosen.len() {
            assert!(line.answer().is_some(), "round {round}");
        }
    }
    expect_service(&world);
}

#[test]
fn answers_that_nobody_takes_hold_up_nobody_else() {
    let world = World::new();
    let place = world.place().join(wire::place::SOCKET);
    let rude = Process::start(move |teller| {
        use std::io::Write;
        let mut stream = std::os::unix::net::UnixStream::connect(place).unwrap();
        stream.write_all(&hello(b"rude")).unwrap();
        stream.set_nonblocking(true).unwrap();
        let create = frame(&Request::Open {
            name: name("rude"),
            flags: libc::O_RDWR | libc::O_CREAT,
            mode: 0o600,
            thread: 0,
        });
        let start = Instant::now();
        let mut blocked = 0;
        while blocked < 20 && start.elapsed() < SOON {
            match stream.write(&create) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    blocked += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => break,
            }
        }
        teller.stay()
    });
    rude.told();
    let before = own_memory();
    for _ in 0..20 {
        expect_service(&world);
    }
    assert!(own_memory() < before + (64 << 20));
    drop(rude);
    // What was on its way to it is closed with it.
    world.until("rid of the rude one", |now| {
        now.step("rude")
            .is_some_and(|step| step.processes.is_empty())
    });
    expect_service(&world);
    let start = Instant::now();
    while held(&world) > 0 {
        assert!(
            start.elapsed() < SOON,
            "{} connections are held",
            held(&world)
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_process_that_greets_again_and_again_takes_no_more_than_once() {
    let world = World::new();
    let mut lines = Vec::new();
    for _ in 0..1000 {
        let mut line = Line::open(&world);
        line.greet(b"again").unwrap();
        lines.push(line);
    }
    let start = Instant::now();
    while held(&world) > 1 {
        assert!(start.elapsed() < SOON, "{} are held", held(&world));
        std::thread::sleep(Duration::from_millis(5));
    }
    // Other tests watch some, too.
    assert!(watched() < 700, "{} descriptors for one process", watched());
    assert!(lines[0].is_ended(), "the first line is held still");
    let (_, last) = (lines.remove(0), lines.last_mut().unwrap());
    last.send(&frame(&Request::Space));
    assert!(last.answer().is_some(), "the last line is lost");
    expect_service(&world);
}

#[test]
fn steps_without_end_are_not_taken_in() {
    let world = World::new();
    let known = Line::open(&world).greet(b"known");
    assert_eq!(known, Ok(()));
    let refused = (0..6000).find_map(|number| {
        let greeting = Line::open(&world).greet(format!("step {number}").as_bytes());
        greeting.err()
    });
    assert_eq!(refused, Some(Some(libc::EAGAIN)));
    assert_eq!(Line::open(&world).greet(b"known"), Ok(()));
    assert_eq!(Line::open(&world).greet(&[b'x'; 5000]), Err(None));
}

#[test]
fn ten_thousand_connections_leave_the_session_usable() {
    const WANTED: u64 = 10_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let many = WANTED.min(hard / 2);
    let world = World::new();
    let (before, start) = (own_memory(), Instant::now());
    let mut lines = Vec::new();
    for number in 0..many {
        let mut line = Line::open(&world);
        // Nothing, a part of a frame, or garbage.
        match number % 3 {
            0 => {}
            1 => drop(line.send(&hello(b"x")[..3])),
            _ => drop(line.send(b"\x02\0\0\0\xff\xff")),
        }
        lines.push(line);
        if number % 1000 == 0 {
            expect_service(&world);
        }
    }
    expect_service(&world);
    let (grown, time) = (own_memory().saturating_sub(before), start.elapsed());
    assert!(grown < 64 << 20, "{grown} bytes for connections");
    assert!(time < Duration::from_secs(60), "{time:?}");
    drop(lines);
    expect_service(&world);
}
