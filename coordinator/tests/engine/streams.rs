//! Who waits for what, and what ends the wait.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use coordinator::session::StepEnd;
use wire::message::{Request, Target};

use crate::peer::{at, name};
use crate::world::{Setup, World, setup};

const READER: &str = r#"{"name": "r", "input_stream": ["f"], "output_stream": []}"#;

/// Step "w" writes "f" under `rule`, step "r" reads it.
fn pipe(rule: &str) -> Setup {
    let rule = format!(r#"{{"name": ["f"], {rule}}}"#);
    let writer = format!(
        r#"{{"name": "w", "input_stream": [], "output_stream": ["f"], "streaming": [{rule}]}}"#
    );
    setup().spec(&format!("{writer}, {READER}"), "")
}

fn stream() -> World {
    pipe(r#""committed": "on_termination", "mode": "no_update""#).start()
}

fn update() -> World {
    pipe(r#""committed": "on_termination""#).start()
}

#[test]
fn a_stream_gives_each_byte_as_soon_as_it_is_written() {
    let world = stream();
    let reader = world.telling("r", |peer, teller| {
        let open = peer.file("f", libc::O_RDONLY);
        let mut content = Vec::new();
        loop {
            let more = peer.read(&open, content.len() as u64, 100).unwrap();
            if more.is_empty() {
                break;
            }
            content.extend(more);
            teller.tell();
        }
        assert_eq!(content, b"one two three");
    });
    let mut writer = world.join("w");
    let open = writer.create("f");
    let mut end = 0;
    for part in [&b"one "[..], b"two ", b"three"] {
        world.until_waits("r");
        writer.write(&open, end, part).unwrap();
        end += part.len() as u64;
        reader.told();
    }
    drop(open);
    world.session().step_ended("w", &StepEnd::Success);
    reader.join();
}

#[test]
fn a_gap_in_a_stream_is_not_read_before_it_is_filled() {
    let world = stream();
    let mut writer = world.join("w");
    let open = writer.create("f");
    let reader = world.process("r", |peer| {
        assert_eq!(
            peer.get("f").unwrap(),
            [[1; 5000], [2; 5000], [3; 5000]].concat()
        );
    });
    world.until_waits("r");
    writer.write(&open, 10_000, &[3; 5000]).unwrap();
    writer.write(&open, 5000, &[2; 5000]).unwrap();
    world.until_waits("r");
    writer.write(&open, 0, &[1; 5000]).unwrap();
    drop(open);
    world.session().step_ended("w", &StepEnd::Success);
    reader.join();
}

#[test]
fn nobody_reads_or_measures_an_update_file_before_it_is_final() {
    let world = update();
    let mut writer = world.join("w");
    let open = writer.create("f");
    writer.write(&open, 0, b"half").unwrap();
    let by_name = world.process("r", |peer| assert_eq!(peer.stat(at("f")).unwrap().size, 9));
    let by_open = world.process("r", |peer| {
        let open = peer.file("f", libc::O_RDONLY);
        assert_eq!(peer.stat(Target::Ofd(open.ofd)).unwrap().size, 9);
        assert_eq!(peer.read_all(&open).unwrap(), b"half done");
    });
    world.until("both wait", |now| {
        now.step("r").is_some_and(|r| r.waiting.len() == 2)
    });
    writer.write(&open, 4, b" done").unwrap();
    drop(open);
    world.session().step_ended("w", &StepEnd::Success);
    by_name.join();
    by_open.join();
}

#[test]
fn a_step_without_processes_ends_after_its_grace_and_not_before() {
    let mut setup = pipe(r#""committed": "on_termination""#);
    setup.config.step_grace = Duration::from_millis(600);
    let world = setup.start();
    let reader = world.process("r", |peer| assert_eq!(peer.get("f").unwrap(), b"two"));
    world.process("w", |peer| peer.put("f", b"one")).join();
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    world.process("w", |peer| peer.put("f", b"two")).join();
    reader.join();
    assert!(start.elapsed() >= Duration::from_millis(600));
}

#[test]
fn a_killed_writer_never_leaves_a_file_that_looks_whole() {
    for rule in ["on_termination", "on_close"] {
        for mode in ["update", "no_update"] {
            let world = pipe(&format!(r#""committed": "{rule}", "mode": "{mode}""#)).start();
            let writer = world.telling("w", |peer, teller| {
                let open = peer.create("f");
                peer.write(&open, 0, b"part of ").unwrap();
                teller.stay();
            });
            writer.told();
            let reader = world.process("r", |peer| assert_eq!(peer.get("f"), Err(libc::EIO)));
            world.until_waits("r");
            // Killed and reaped at once.
            drop(writer);
            reader.join();
            assert_eq!(world.join("r").get("f"), Err(libc::EIO), "{rule} {mode}");
        }
    }
}

#[test]
fn what_a_killed_writer_had_begun_is_not_seen_when_the_file_grows() {
    let world = World::new();
    let writer = world.telling("a", |peer, teller| {
        let open = peer.create("f");
        peer.write(&open, 0, b"whole").unwrap();
        let file = peer.ofd(&open).file.load(SeqCst);
        peer.record().hazard.store(u64::from(file + 1), SeqCst);
        peer.record().write_start.store(5, SeqCst);
        peer.record().write_end.store(9, SeqCst);
        peer.fill(&open, 5, b"half").unwrap();
        teller.stay();
    });
    writer.told();
    drop(writer);
    world.until("gone", |now| {
        now.step("a").is_some_and(|a| a.processes.is_empty())
    });
    let mut peer = world.join("b");
    let size = 9;
    peer.tell(&Request::Truncate {
        target: at("f"),
        size,
    })
    .unwrap();
    assert_eq!(peer.get("f").unwrap(), b"whole\0\0\0\0");
}

#[test]
fn a_missing_file_is_waited_for_only_by_those_whose_input_it_is() {
    let world = update();
    let reader = world.process("r", |peer| {
        // Nobody makes it, so that nobody waits.
        assert_eq!(peer.get("optional"), Err(libc::ENOENT));
        assert_eq!(peer.get("f").unwrap(), b"made");
    });
    world.until_waits("r");
    let mut other = world.join("x");
    assert_eq!(other.get("f"), Err(libc::ENOENT));
    let mut writer = world.join("w");
    assert_eq!(writer.get("f"), Err(libc::ENOENT));
    writer.put("f", b"made");
    world.session().step_ended("w", &StepEnd::Success);
    reader.join();
}

#[test]
fn who_waits_for_what_never_comes_is_told_when_its_makers_have_ended() {
    for (end, error) in [
        (StepEnd::Success, libc::ENOENT),
        (StepEnd::ExitCode(3), libc::EIO),
    ] {
        let world = update();
        let reader = world.process("r", move |peer| assert_eq!(peer.get("f"), Err(error)));
        world.until_waits("r");
        world.session().step_started("w");
        world.session().step_ended("w", &end);
        reader.join();
    }
}

#[test]
fn a_missing_directory_is_waited_for_like_the_file_in_it() {
    let graph = r#"{"name": "w", "input_stream": [], "output_stream": ["out/deep/f"],
                    "streaming": [{"name": ["out/deep/f"], "committed": "on_close"}]},
                   {"name": "r", "input_stream": ["out/deep/f"], "output_stream": []}"#;
    let world = setup().spec(graph, "").start();
    let whole = world.process("r", |peer| {
        assert_eq!(peer.get("out//./deep/f").unwrap(), b"x")
    });
    let listing = world.process("r", |peer| {
        let thread = peer.thread;
        let entered = peer.ask(&Request::Stat {
            target: at("out/deep"),
            thread,
        });
        assert!(entered.1.is_empty());
        assert_eq!(peer.list("out").unwrap(), ["deep"]);
    });
    world.until("both wait", |now| {
        now.step("r").is_some_and(|r| r.waiting.len() == 2)
    });
    let mut writer = world.join("w");
    for path in ["out", "out/deep"] {
        let (name, mode) = (name(path), 0o755);
        writer.tell(&Request::Mkdir { name, mode }).unwrap();
    }
    writer.put("out/deep/f", b"x");
    whole.join();
    listing.join();
}

#[test]
fn a_file_renamed_into_place_is_final_for_those_who_wait() {
    let world = pipe(r#""committed": "on_close""#).start();
    let reader = world.process("r", |peer| assert_eq!(peer.get("f").unwrap(), b"whole"));
    world.until_waits("r");
    let mut writer = world.join("w");
    writer.put("f.tmp", b"whole");
    world.until_waits("r");
    let (from, to, flags) = (name("f.tmp"), name("f"), 0);
    writer.tell(&Request::Rename { from, to, flags }).unwrap();
    reader.join();
}

#[test]
fn status_of_a_symbolic_link_does_not_wait_for_the_end_of_its_maker() {
    let world = update();
    let mut writer = world.join("w");
    let (content, name) = (&b"elsewhere"[..], name("f"));
    writer.tell(&Request::Symlink { content, name }).unwrap();
    let target = Target::Path {
        name,
        follow: false,
    };
    let reader = world.process("r", |peer| assert_eq!(peer.stat(target).unwrap().size, 9));
    reader.join();
}

#[test]
fn two_steps_that_wait_for_each_other_are_told_so() {
    let graph = r#"{"name": "a", "input_stream": ["y"], "output_stream": ["x"]},
                   {"name": "b", "input_stream": ["x"], "output_stream": ["y"]}"#;
    let world = setup().spec(graph, "").start();
    let start = Instant::now();
    let a = world.process("a", |peer| assert_eq!(peer.get("y"), Err(libc::EDEADLK)));
    let b = world.process("b", |peer| assert_eq!(peer.get("x"), Err(libc::EDEADLK)));
    a.join();
    b.join();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    let diagnosis = world.session().snapshot().deadlock.unwrap();
    assert!(
        diagnosis.contains("\"a\"") && diagnosis.contains("\"b\""),
        "{diagnosis}"
    );
}

#[test]
fn steps_that_wait_for_the_bytes_of_each_other_are_told_so() {
    let graph = r#"{"name": "a", "input_stream": ["y"], "output_stream": ["x"],
                    "streaming": [{"name": ["x"], "committed": "on_termination", "mode": "no_update"}]},
                   {"name": "b", "input_stream": ["x"], "output_stream": ["y"],
                    "streaming": [{"name": ["y"], "committed": "on_termination", "mode": "no_update"}]}"#;
    let world = setup().spec(graph, "").start();
    let one = |own: &'static str, other: &'static str| {
        move |peer: &mut crate::peer::Peer| {
            let _own = peer.create(own);
            let other = peer.file(other, libc::O_RDONLY);
            assert_eq!(peer.read(&other, 0, 10), Err(libc::EDEADLK));
        }
    };
    let a = world.process("a", one("x", "y"));
    let b = world.process("b", one("y", "x"));
    a.join();
    b.join();
}

#[test]
fn a_process_that_greets_anew_does_not_act_by_the_record_of_another() {
    let world = World::new();
    let mut old = world.join("a");
    let open = old.create("f");
    // The same process once more, as after `exec`: the old record is free,
    // and another process gets it.
    let mut new = world.join("a");
    let other = world.telling("b", |_, teller| teller.stay());
    other.told();
    let (ofd, flags) = (open.ofd, 0);
    assert!(old.has_hung_up(&Request::SetFlags { ofd, flags }));
    new.put("g", b"works");
}
