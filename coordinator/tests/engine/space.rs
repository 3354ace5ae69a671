//! The limit of the cache.

use wire::message::Request;

use crate::peer::{Peer, name};
use crate::world::World;

const MIB: u64 = 1 << 20;

/// Writes files of a mebibyte until there is no space; how many.
fn fill(peer: &mut Peer) -> usize {
    let block = vec![7; MIB as usize];
    for number in 0.. {
        let open = peer.create(&format!("f{number}"));
        match peer.write(&open, 0, &block) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, libc::ENOSPC);
                return number;
            }
        }
    }
    unreachable!()
}

fn empty(world: &World, peer: &mut Peer, files: usize) {
    let directory = false;
    for number in 0..=files {
        let path = format!("f{number}");
        let name = name(&path);
        peer.tell(&Request::Unlink { name, directory }).unwrap();
    }
    world.until("empty", |now| now.cache.used_bytes == 0);
}

#[test]
fn a_full_cache_holds_what_was_promised_and_can_be_filled_again() {
    let world = World::new();
    let mut peer = world.join("a");
    for round in 0..4 {
        let files = fill(&mut peer);
        // Small pieces of a file leave gaps, never more than an eighth.
        assert!(files >= 28, "round {round}: only {files} of 32 MiB");
        let now = world.session().snapshot().cache;
        assert!(now.used_bytes <= now.limit_bytes && now.limit_bytes == 32 * MIB);
        empty(&world, &mut peer, files);
    }
}

#[test]
fn nobody_is_granted_the_cache_that_does_not_fill_it() {
    let world = World::new();
    let mut greedy = world.join("greedy");
    let opens: Vec<_> = (0..40)
        .map(|number| {
            let open = greedy.create(&format!("g{number}"));
            let (ofd, offset, length) = (open.ofd, 0, 1 << 40);
            for _ in 0..10 {
                greedy
                    .tell(&Request::Grant {
                        ofd,
                        offset,
                        length,
                        thread: 0,
                    })
                    .unwrap();
            }
            open
        })
        .collect();
    let used = world.session().snapshot().cache.used_bytes;
    assert!(
        used <= 32 * MIB / 8 + 2 * MIB,
        "{used} bytes granted and empty"
    );
    drop(opens);
    world.until("given back", |now| now.cache.used_bytes == 0);
}

#[test]
fn an_impossible_reservation_takes_nothing_from_others() {
    let world = World::new();
    let mut peer = world.join("a");
    let open = peer.create("f");
    let (ofd, mode, offset) = (open.ofd, 0, 0);
    let mut reserve = |length| {
        peer.tell(&Request::Allocate {
            ofd,
            mode,
            offset,
            length,
        })
    };
    assert_eq!(reserve(1 << 40), Err(libc::ENOSPC));
    assert_eq!(reserve(8 * MIB), Ok(()));
    assert!(world.session().snapshot().cache.used_bytes <= 10 * MIB);
}

#[test]
fn a_large_file_arrives_whole_through_all_its_pieces() {
    let world = World::new();
    let mut peer = world.join("a");
    let open = peer.create("f");
    let content: Vec<u8> = (0..20 * MIB).map(|at| (at % 251) as u8).collect();
    for part in (0..content.len()).step_by(123_457) {
        let end = content.len().min(part + 123_457);
        peer.write(&open, part as u64, &content[part..end]).unwrap();
    }
    let far = 3 << 40;
    assert_eq!(peer.write(&open, far, b"x"), Err(libc::EFBIG));
    let far = 1 << 40;
    peer.write(&open, far, b"far").unwrap();
    world
        .process("b", |peer| {
            let open = peer.file("f", libc::O_RDONLY);
            assert!(peer.read(&open, 0, content.len()).unwrap() == content);
            assert_eq!(peer.read(&open, far - 1, 100).unwrap(), b"\0far");
        })
        .join();
}

#[test]
fn what_is_cut_off_is_given_back_and_reads_as_zeros() {
    let world = World::new();
    let mut peer = world.join("a");
    let open = peer.create("f");
    peer.write(&open, 0, &vec![7; 9 * MIB as usize]).unwrap();
    for size in [5000, 8000] {
        let target = wire::message::Target::Ofd(open.ofd);
        peer.tell(&Request::Truncate { target, size }).unwrap();
    }
    let mut expected = vec![7; 5000];
    expected.resize(8000, 0);
    assert_eq!(peer.read_all(&open).unwrap(), expected);
    assert!(world.session().snapshot().cache.used_bytes <= 16 << 10);
}
