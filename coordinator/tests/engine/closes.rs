//! Open file descriptions: what the kernel makes of them, and how their ends
//! are learnt.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use wire::message::{Request, Target};

use crate::peer::name;
use crate::world::{World, setup};

/// As the kernel shows it on 64 bits.
const O_LARGEFILE: i32 = 0o100_000;

/// Whether a raw write fails as it must.
fn refuses(mut file: File) -> bool {
    let error = file.write(b"x").unwrap_err().raw_os_error();
    matches!(error, Some(libc::EFBIG | libc::EINVAL))
}

#[test]
fn a_write_that_misses_the_library_fails_instead_of_losing_bytes() {
    let world = World::new();
    let mut peer = world.join("a");
    for flags in [libc::O_WRONLY, libc::O_RDWR | libc::O_APPEND] {
        let open = peer.file("f", flags | libc::O_CREAT);
        assert!(refuses(File::from(open.descriptor)), "{flags:o}");
    }
    let open = peer.file("f", libc::O_WRONLY);
    let (ofd, flags) = (open.ofd, libc::O_APPEND);
    peer.tell(&Request::SetFlags { ofd, flags }).unwrap();
    fcntl(&open.descriptor, FcntlArg::F_SETFL(OFlag::O_APPEND)).unwrap();
    assert!(refuses(File::from(open.descriptor)));
    let open = peer.file("f", libc::O_RDONLY);
    let read = File::from(open.descriptor).read(&mut [0; 8]);
    assert!(!read.is_ok_and(|length| length > 0));
}

#[test]
fn a_descriptor_has_the_access_mode_and_flags_asked_for() {
    let world = World::new();
    let mut peer = world.join("a");
    for flags in [
        libc::O_RDONLY,
        libc::O_WRONLY,
        libc::O_RDWR | libc::O_APPEND | libc::O_NONBLOCK,
    ] {
        let open = peer.file("f", flags | libc::O_CREAT | libc::O_CLOEXEC);
        let has = fcntl(&open.descriptor, FcntlArg::F_GETFL).unwrap();
        assert_eq!(has & !O_LARGEFILE, flags);
        assert_eq!(
            peer.ofd(&open)
                .flags
                .load(std::sync::atomic::Ordering::SeqCst),
            flags as u32
        );
        let closes = fcntl(&open.descriptor, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(closes).contains(FdFlag::FD_CLOEXEC));
    }
}

#[test]
fn memory_of_a_removed_file_comes_back_with_the_last_descriptor() {
    let world = World::new();
    let mut peer = world.join("a");
    let open = peer.create("f");
    peer.write(&open, 0, &[7; 100_000]).unwrap();
    let copy = open.descriptor.as_fd().try_clone_to_owned().unwrap();
    let directory = false;
    peer.tell(&Request::Unlink {
        name: name("f"),
        directory,
    })
    .unwrap();
    drop(open);
    peer.put("g", b"still there");
    assert!(world.session().snapshot().cache.used_bytes > 100_000);
    drop(copy);
    peer.tell(&Request::Unlink {
        name: name("g"),
        directory,
    })
    .unwrap();
    world.until("empty", |now| now.cache.used_bytes == 0);
}

#[test]
fn numbers_of_closed_descriptions_are_used_again() {
    let world = World::new();
    let mut peer = world.join("a");
    let first = peer.create("f").ofd.id;
    for _ in 0..300 {
        assert!(peer.create("f").ofd.id <= first + 1);
    }
}

/// A request of a process that was killed may be read late.
#[test]
fn what_was_asked_for_a_closed_description_does_not_happen_to_another_file() {
    let world = World::new();
    let mut peer = world.join("a");
    let old = peer.create("old").ofd;
    let (target, size) = (Target::Ofd(old), 100_000);
    let open = peer.create("new");
    peer.write(&open, 0, b"new").unwrap();
    assert_eq!(open.ofd.id, old.id, "the number is used again");
    let requests = [
        Request::Truncate { target, size },
        Request::Allocate {
            ofd: old,
            mode: 0,
            offset: 0,
            length: size,
        },
        Request::Published {
            ofd: old,
            start: 0,
            end: size,
        },
        Request::SetFlags { ofd: old, flags: 0 },
        Request::Map {
            ofd: old,
            end: 4096,
        },
    ];
    for request in requests {
        assert_eq!(peer.tell(&request), Err(libc::EBADF), "{request:?}");
    }
    assert_eq!(peer.read(&open, 0, 10).unwrap(), b"new");
    assert_eq!(peer.stat(Target::Ofd(open.ofd)).unwrap().size, 3);
}

#[test]
fn descriptors_of_a_killed_process_are_closed() {
    let world = World::new();
    let held = world.telling("a", |peer, teller| {
        let open = peer.create("f");
        peer.write(&open, 0, &[7; 100_000]).unwrap();
        let directory = false;
        peer.tell(&Request::Unlink {
            name: name("f"),
            directory,
        })
        .unwrap();
        teller.stay();
    });
    held.told();
    assert!(world.session().snapshot().cache.used_bytes > 100_000);
    held.kill();
    world.until("empty", |now| now.cache.used_bytes == 0);
}

#[test]
fn a_file_is_final_after_as_many_closes_as_its_rule_counts() {
    let rule = r#"{"name": ["f"], "committed": "on_close:3"}"#;
    let graph = format!(
        r#"{{"name": "w", "input_stream": [], "output_stream": ["f"], "streaming": [{rule}]}},
           {{"name": "r", "input_stream": ["f"], "output_stream": []}}"#
    );
    let world = setup().spec(&graph, "").start();
    let reader = world.process("r", |peer| assert_eq!(peer.get("f").unwrap(), b"abc"));
    let mut peer = world.join("w");
    for (at, part) in (0..).zip([b"a", b"b", b"c"]) {
        let open = peer.file("f", libc::O_WRONLY | libc::O_CREAT);
        let shared = open.descriptor.as_fd().try_clone_to_owned().unwrap();
        peer.write(&open, at, part).unwrap();
        drop(open);
        world.until_waits("r");
        drop(shared);
    }
    reader.join();
}
