use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use super::*;

/// Steps until this process is killed, counted down; 0: never.
static LEFT: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// One change of the disk is about to be made.
pub(super) fn step() {
    TAKEN.fetch_add(1, SeqCst);
    let before = LEFT.fetch_update(SeqCst, SeqCst, |left| Some(left.saturating_sub(1)));
    if before == Ok(1) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::SIGKILL);
    }
}

/// This process, a child of the test, will be killed instead of the step with
/// this number (from 1).
pub(in crate::service) fn die_at(step: u64) {
    TAKEN.store(0, SeqCst);
    LEFT.store(step, SeqCst);
}

/// Steps taken since [`die_at`].
pub(in crate::service) fn taken() -> u64 {
    TAKEN.load(SeqCst)
}

fn journal() -> Journal {
    let name = |text: &str| FileName(text.as_bytes().to_vec());
    let attributes = Attributes {
        mode: Some((0o4751, 1, 2)),
        modified: Some(-5),
        extended: vec![(name("user.a"), vec![0, 255])],
        ..Attributes::default()
    };
    let path = name("d/\n");
    let change = Change::Attributes { path, attributes };
    Journal {
        elsewhere: vec![],
        changes: vec![change],
    }
}

#[test]
fn a_journal_that_was_cut_or_changed_anywhere_is_never_believed() {
    let whole = journal().to_bytes().unwrap();
    assert_eq!(Journal::parse(&whole).unwrap(), journal());
    for length in 0..whole.len() {
        assert!(Journal::parse(&whole[..length]).is_err(), "cut at {length}");
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bad = whole.clone();
            bad[at] ^= 1 << bit;
            let parsed = Journal::parse(&bad);
            // A letter of the checksum may be written in two ways.
            let same = parsed.as_ref().is_ok_and(|parsed| *parsed == journal());
            assert!(parsed.is_err() || same, "bit {bit} at {at}");
        }
    }
}

#[test]
fn a_journal_cannot_name_what_lies_outside() {
    for path in ["../x", "/etc/passwd", "a/../../x", "./x"] {
        let mut journal = journal();
        let path = FileName(path.as_bytes().to_vec());
        journal.changes.push(Change::MakeDirectory { path });
        let refused = Journal::parse(&journal.to_bytes().unwrap()).is_err();
        assert_eq!(refused, !journal.changes.iter().all(|c| is_inner(c.path())));
        assert!(refused || journal.changes[1].path().0 == b"./x");
    }
}

#[test]
fn the_checksum_of_a_file_does_not_depend_on_its_holes() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = vec![0; 3_000_001];
    for at in [0, 5000, 1_048_575, 1_048_576, 2_999_999] {
        content[at] = 7;
    }
    let sum = |name: &str, pieces: usize| {
        let path = dir.path().join(name);
        let file = disk::create(&path).unwrap();
        let mut sum = SparseSum::default();
        for (index, piece) in content.chunks(pieces).enumerate() {
            write_sparse(&file, (index * pieces) as u64, piece, &mut sum).unwrap();
        }
        file.set_len(content.len() as u64).unwrap();
        assert!(fs::read(&path).unwrap() == content, "{name}");
        assert!(file.metadata().unwrap().blocks() < 200, "holes are filled");
        sum.finish(content.len() as u64)
    };
    let (one, other) = (sum("one", 1 << 20), sum("other", 8192));
    assert_eq!(one, other);
    let of = |name: &str| disk::sum_of(&dir.path().join(name)).unwrap();
    assert_eq!(of("one"), (content.len() as u64, one));
    fs::write(dir.path().join("full"), &content).unwrap();
    assert_eq!(of("full"), of("one"));
    let file = fs::File::options()
        .write(true)
        .open(dir.path().join("full"));
    file.unwrap().write_all_at(b"x", 1_500_000).unwrap();
    assert_ne!(of("full"), of("one"));
}

#[test]
fn what_can_have_no_second_name_is_copied_with_all_that_can_be_told_of_it() {
    let base = tempfile::tempdir().unwrap();
    // On another file system, so that there is no hard link.
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |path: &Path| path.metadata().unwrap().dev();
    if device(base.path()) == device(other.path()) {
        return;
    }
    let file = other.path().join("f");
    fs::write(&file, [&[0; 8192][..], b"end"].concat()).unwrap();
    let attributes = Attributes {
        mode: Some((0o640, 0, 0)),
        modified: Some(5),
        ..Attributes::default()
    };
    disk::set_attributes(&file, &attributes).unwrap();
    std::os::unix::fs::symlink("f", other.path().join("link")).unwrap();
    disk::make_node(&other.path().join("pipe"), libc::S_IFIFO, 0).unwrap();
    let mut stage = Stage::open(base.path(), "copy").unwrap();
    for name in ["f", "link", "pipe"] {
        let (from, to) = (other.path().join(name), base.path().join(name));
        let staged = stage.add(&to, &Material::Name(&from)).unwrap();
        let (one, two) = (
            from.symlink_metadata(),
            stage.path_of(&staged).symlink_metadata(),
        );
        let told = |meta: fs::Metadata| (meta.mode(), meta.mtime(), meta.mtime_nsec(), meta.size());
        assert_eq!(told(one.unwrap()), told(two.unwrap()), "{name}");
    }
    assert_eq!(stage.discard().unwrap(), 3);
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn two_do_not_stage_at_the_same_time() {
    let base = tempfile::tempdir().unwrap();
    let stage = Stage::open(base.path(), "w").unwrap();
    let second = Stage::open(base.path(), "w").err().unwrap();
    assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
    stage.discard().unwrap();
    Stage::open(base.path(), "w").unwrap().discard().unwrap();
}
