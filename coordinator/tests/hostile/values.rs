//! What a client says is checked: one that lies, scribbles or breaks off can
//! spoil its own files, and nothing else.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use coordinator::session::Keep;
use wire::limits::VERSION;
use wire::message::{Name, OfdId, Reply, Request, SetTime, Target, decode};
use wire::place::SOCKET;

use crate::peer;
use crate::world::{World, setup};

/// A session without a store.
fn with_cache(cache_bytes: u64) -> World {
    let mut setup = setup();
    setup.config.cache_bytes = cache_bytes;
    setup.config.keep = Keep::None;
    setup.config.supervised = true;
    setup.start()
}

fn connect(world: &World) -> UnixStream {
    UnixStream::connect(world.place().join(SOCKET)).unwrap()
}

/// A client that has said hello, and the regions it was given.
fn attach(world: &World) -> (Client, Vec<OwnedFd>) {
    let mut client = Client(connect(world));
    client.send(&Request::Hello {
        version: VERSION,
        app: b"liar",
        forked: false,
    });
    let (body, regions) = client.receive().unwrap();
    assert!(matches!(decode(&body), Some(Reply::Welcome { .. })));
    (client, regions)
}

/// Waits until no memory is in use; how much was, at last.
fn used_when_quiet(world: &World) -> u64 {
    let start = Instant::now();
    loop {
        let used = world.session().snapshot().cache.used_bytes;
        if used == 0 || start.elapsed() > Duration::from_secs(5) {
            return used;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Client(UnixStream);

impl Client {
    fn send(&mut self, request: &Request<'_>) {
        peer::send(&mut self.0, request);
    }

    /// The body of the next frame and the descriptors that came with it;
    /// `None` when the coordinator has hung up.
    fn receive(&mut self) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        peer::receive(&self.0)
    }

    /// An answer that must be one of `Ok` and `Error`: the error number, or 0.
    fn tell(&mut self, request: &Request<'_>) -> i32 {
        self.send(request);
        let (body, _) = self.receive().unwrap();
        match decode(&body) {
            Some(Reply::Ok) => 0,
            Some(Reply::Error(error)) => error,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// Opens a file for writing, made if it is not there.
    fn create(&mut self, path: &[u8]) -> (OfdId, OwnedFd) {
        self.send(&Request::Open {
            name: Name { base: 0, path },
            flags: libc::O_RDWR | libc::O_CREAT,
            mode: 0o600,
            thread: 0,
        });
        let (body, mut descriptors) = self.receive().unwrap();
        match decode(&body) {
            Some(Reply::Opened { ofd }) => (ofd, descriptors.remove(0)),
            other => panic!("{other:?}"),
        }
    }

    fn unlink(&mut self, path: &[u8]) -> i32 {
        self.tell(&Request::Unlink {
            name: Name { base: 0, path },
            directory: false,
        })
    }
}

/// A small generator of numbers: the same ones each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Small, huge, or something in between.
    fn value(&mut self) -> u64 {
        match self.below(5) {
            0 => self.below(4),
            1 => u64::MAX - self.below(4),
            2 => i64::MAX as u64 - self.below(2),
            3 => self.below(1 << 24),
            _ => self.next(),
        }
    }

    fn path(&mut self) -> Vec<u8> {
        let parts: [&[u8]; 12] = [
            b"a",
            b"b",
            b"d",
            b"..",
            b".",
            b"",
            b"/",
            b"\0",
            b"a/b",
            b"link",
            b"\xff\xfe",
            b"x.y",
        ];
        if self.below(50) == 0 {
            return vec![b'n'; self.below(5000) as usize];
        }
        let count = 1 + self.below(4);
        let chosen: Vec<_> = (0..count)
            .map(|_| parts[self.below(parts.len() as u64) as usize])
            .collect();
        chosen.join(&b'/')
    }
}

/// A description that is open, as all of these were opened once, or any number.
fn some_ofd(numbers: &mut Numbers) -> OfdId {
    let id = numbers.value() as u32;
    let wild = numbers.below(4) == 0;
    let generation = if wild { numbers.value() as u32 } else { 1 };
    OfdId { id, generation }
}

/// One of all requests, with any values in it.
fn ask_anything(client: &mut Client, numbers: &mut Numbers) {
    let (path, other) = (numbers.path(), numbers.path());
    let far = numbers.below(3) == 0;
    let base = if far { numbers.value() } else { 0 };
    let name = Name { base, path: &path };
    let to = Name {
        base: 0,
        path: &other,
    };
    let follow = numbers.below(2) == 0;
    let ofd = some_ofd(numbers);
    let target = match numbers.below(4) {
        0 => Target::Ofd(ofd),
        1 => Target::Directory(numbers.value()),
        _ => Target::Path { name, follow },
    };
    let mode = numbers.value() as u32;
    let wild = numbers.below(4) == 0;
    let thread = if wild { numbers.value() as u32 } else { 7 };
    let (offset, length) = (numbers.value(), numbers.value());
    let flags = numbers.next() as i32;
    let (directory, uid, gid) = (flags & 1 != 0, u32::MAX, u32::MAX);
    let time = |value: u64| match value % 3 {
        0 => SetTime::Now,
        1 => SetTime::Omit,
        _ => SetTime::At(value as i64),
    };
    let request = match numbers.below(36) {
        0..=2 => Request::Open {
            name,
            flags: flags & 0x3f_ffff,
            mode,
            thread,
        },
        3 => Request::Reopen { ofd, flags, thread },
        4 => Request::Stat { target, thread },
        5 => Request::Access {
            target,
            mode,
            thread,
        },
        6 => Request::Chmod { target, mode },
        7 => Request::Chown { target, uid, gid },
        8 => Request::Utimens {
            target,
            accessed: time(offset),
            modified: time(length),
        },
        9 => Request::Truncate {
            target,
            size: offset,
        },
        10 => Request::Allocate {
            ofd,
            mode: flags,
            offset,
            length,
        },
        11 => Request::Mkdir { name, mode },
        12 => Request::Unlink { name, directory },
        13 => Request::Rename {
            from: name,
            to,
            flags: mode % 4,
        },
        14 => Request::Link { target, to },
        15 => Request::Symlink {
            content: &other,
            name,
        },
        16 => Request::Readlink { name },
        17 => Request::Canonical { name },
        18 => Request::Enter { name, directory },
        19 => Request::List {
            directory: offset,
            cookie: length,
            thread,
        },
        20 => Request::Grant {
            ofd,
            offset,
            length,
            thread,
        },
        26 => Request::Fetch {
            ofd,
            offset,
            length,
            thread,
        },
        27 => Request::Sync { ofd, thread },
        28 => Request::Mknod {
            name,
            // No devices: root could make them.
            mode: mode & 0o7777 | libc::S_IFIFO,
            device: 0,
        },
        29 => Request::Space,
        30 => Request::GetXattr {
            target,
            name: &other,
            thread,
        },
        31 => Request::ListXattrs { target, thread },
        32 => Request::SetXattr {
            target,
            name: b"user.any",
            value: &other,
            flags: mode % 4,
        },
        33 => Request::RemoveXattr {
            target,
            name: b"user.any",
        },
        34 => Request::Hello {
            version: VERSION,
            app: &other,
            forked: follow,
        },
        21 => Request::NameOf { ofd },
        22 => Request::SetFlags { ofd, flags },
        23 => Request::Map { ofd, end: length },
        25 => Request::HandOver { ofd },
        24 => Request::Run {
            target,
            library: follow,
            thread,
        },
        _ => Request::Published {
            ofd,
            start: offset,
            end: length,
        },
    };
    client.send(&request);
    // An answer comes, whatever it is; descriptors are closed again.
    let answer = client.receive();
    assert!(answer.is_some(), "the coordinator hung up on {request:?}");
}

#[test]
fn no_request_whatever_its_values_stops_the_coordinator() {
    let world = with_cache(16 << 20);
    let (mut client, _regions) = attach(&world);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20_000 {
        ask_anything(&mut client, &mut numbers);
    }
    let (mut honest, _regions) = attach(&world);
    let (ofd, _descriptor) = honest.create(b"honest");
    let target = Target::Ofd(ofd);
    assert_eq!(honest.tell(&Request::Truncate { target, size: 5 }), 0);
}

#[test]
fn frames_that_are_cut_off_too_long_or_garbage_end_only_their_connection() {
    let world = with_cache(16 << 20);
    let mut numbers = Numbers(7);
    for round in 0..300 {
        let mut stream = connect(&world);
        let length = numbers.below(200);
        let mut bytes: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
        if round % 3 == 0 && bytes.len() > 4 {
            // A length that fits, with a body that means nothing.
            let length = (bytes.len() - 4) as u32;
            bytes[..4].copy_from_slice(&length.to_le_bytes());
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let (mut honest, _regions) = attach(&world);
    honest.create(b"honest");
}

#[test]
fn a_client_that_scribbles_over_what_it_may_write_harms_nobody_else() {
    let world = with_cache(16 << 20);
    let (mut client, regions) = attach(&world);
    let sync = std::fs::File::from(regions.into_iter().nth(2).unwrap());
    let map = memmap2::MmapOptions::new().map_raw(&sync).unwrap();
    let mut numbers = Numbers(99);
    let files: Vec<_> = (0..20u8)
        .map(|n| client.create(&[b'f', b'a' + n]))
        .collect();
    for _ in 0..200 {
        for _ in 0..2000 {
            // Not the first page: that says whether the coordinator lives.
            // Mostly where there is something: the records of the first files.
            let anywhere = numbers.below(4) == 0;
            let range = if anywhere { map.len() as u64 } else { 16384 } - 4096 - 8;
            let at = 4096 + numbers.below(range) as usize / 8 * 8;
            // SAFETY: within the mapping, aligned; others use it by atomics.
            unsafe {
                let word = map.as_mut_ptr().add(at).cast::<u64>();
                word.write_volatile(numbers.value());
            }
        }
        ask_anything(&mut client, &mut numbers);
    }
    drop(files);
    let (mut honest, _regions) = attach(&world);
    let (ofd, _descriptor) = honest.create(b"honest");
    let (offset, length) = (0, 4096);
    let granted = honest.tell(&Request::Grant {
        ofd,
        offset,
        length,
        thread: 0,
    });
    assert!(granted == 0 || granted == libc::ENOSPC, "{granted}");
}

#[test]
fn a_full_cache_can_be_filled_again_to_the_same_limit() {
    const CACHE: u64 = 64 << 20;
    const STEP: u64 = 1 << 20;
    let world = with_cache(CACHE);
    let name = |file: u8| [b'f', b'a' + file % 26, b'a' + file / 26];
    let mut fills = Vec::new();
    for _ in 0..3 {
        let (mut client, _regions) = attach(&world);
        let mut granted = 0;
        for file in 0..50 {
            let (ofd, _descriptor) = client.create(&name(file));
            for at in 0..4 {
                let request = Request::Grant {
                    ofd,
                    offset: at * STEP,
                    length: STEP,
                    thread: 0,
                };
                match client.tell(&request) {
                    0 => granted += STEP,
                    error => assert_eq!(error, libc::ENOSPC),
                }
            }
        }
        assert!(world.session().snapshot().cache.used_bytes <= CACHE);
        fills.push(granted);
        for file in 0..50 {
            assert_eq!(client.unlink(&name(file)), 0);
        }
        assert_eq!(
            used_when_quiet(&world),
            0,
            "memory of removed files is lost"
        );
    }
    assert!(fills[0] >= CACHE / 2, "{fills:?}");
    assert_eq!(fills[0], fills[2], "{fills:?}");
}

/// Every request that names a thread record.
fn of_thread(thread: u32) -> [Request<'static>; 10] {
    let name = Name {
        base: 0,
        path: b"none",
    };
    let target = Target::Path { name, follow: true };
    let ofd = OfdId {
        id: 0,
        generation: 1,
    };
    let (offset, length, flags, mode) = (0, 1, 0, 0);
    [
        Request::Open {
            name,
            flags,
            mode: 0,
            thread,
        },
        Request::Reopen { ofd, flags, thread },
        Request::Stat { target, thread },
        Request::Access {
            target,
            mode,
            thread,
        },
        Request::Run {
            target,
            library: false,
            thread,
        },
        Request::List {
            directory: 1,
            cookie: 0,
            thread,
        },
        Request::Grant {
            ofd,
            offset,
            length,
            thread,
        },
        Request::Fetch {
            ofd,
            offset,
            length,
            thread,
        },
        Request::Sync { ofd, thread },
        Request::ListXattrs { target, thread },
    ]
}

/// Else each would be remembered as one that waits.
#[test]
fn threads_that_a_process_cannot_have_are_refused() {
    let world = with_cache(16 << 20);
    let (mut client, _regions) = attach(&world);
    let (ofd, _descriptor) = client.create(b"f");
    assert_eq!((ofd.id, ofd.generation), (0, 1));
    for thread in [63, 64, 1 << 16, u32::MAX] {
        for request in of_thread(thread) {
            assert_eq!(client.tell(&request), libc::EINVAL, "{request:?}");
        }
    }
    for request in of_thread(62) {
        client.send(&request);
        let (body, _) = client.receive().unwrap();
        let refused = Some(Reply::Error(libc::EINVAL));
        assert_ne!(decode::<Reply<'_>>(&body), refused, "{request:?}");
    }
}

#[test]
fn offsets_beyond_all_files_are_refused_at_once_and_change_nothing() {
    let world = with_cache(16 << 20);
    let (mut client, _regions) = attach(&world);
    let (ofd, _descriptor) = client.create(b"f");
    let target = Target::Ofd(ofd);
    assert_eq!(client.tell(&Request::Truncate { target, size: 5 }), 0);
    let start = Instant::now();
    let far = [1 << 41, i64::MAX as u64, u64::MAX - 1, u64::MAX];
    for (offset, length) in far.iter().flat_map(|at| far.iter().map(|n| (*at, *n))) {
        let thread = 0;
        let (offset, end) = (offset.max(1 << 42), length);
        for mode in [0, 1, 2, 3, 8, 16, 32, 64, -1] {
            let request = Request::Allocate {
                ofd,
                mode,
                offset,
                length,
            };
            assert_ne!(client.tell(&request), 0, "{request:?}");
        }
        let requests = [
            Request::Grant {
                ofd,
                offset,
                length,
                thread,
            },
            Request::Truncate {
                target,
                size: offset,
            },
        ];
        for request in requests {
            assert_ne!(client.tell(&request), 0, "{request:?}");
        }
        let start = offset;
        // These are only told; what makes no sense is left alone.
        for request in [
            Request::Published { ofd, start, end },
            Request::Map { ofd, end: offset },
        ] {
            client.send(&request);
            assert!(client.receive().is_some(), "{request:?}");
        }
        client.send(&Request::Fetch {
            ofd,
            offset,
            length,
            thread,
        });
        assert!(client.receive().is_some());
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    let thread = 0;
    client.send(&Request::Stat { target, thread });
    let (body, _) = client.receive().unwrap();
    let Some(Reply::Attributes(found)) = decode(&body) else {
        panic!("{body:?}");
    };
    assert_eq!(found.size, 5);
}
