//! The session's directory, when somebody else was there first.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use coordinator::ENGINE;
use coordinator::session::SessionConfig;

use crate::world::setup;

/// A configuration, and where its session will live.
fn to_be() -> (tempfile::TempDir, SessionConfig, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = setup().config;
    config.dir = dir.path().canonicalize().unwrap();
    let place = (ENGINE.session_dir)(&config.dir, &config.workflow);
    (dir, config, place)
}

fn remove(place: &Path) {
    // It is one or the other.
    let _ = fs::remove_file(place);
    let _ = fs::remove_dir_all(place);
}

/// Lets `lay` put something where the session's directory goes: it is refused
/// by name, and left as it is.
fn expect_refused(what: &str, lay: impl FnOnce(&Path)) {
    let (_dir, config, place) = to_be();
    lay(&place);
    let before = fs::symlink_metadata(&place).unwrap();
    let refused = (ENGINE.start)(config).err().map(|error| error.to_string());
    let after = fs::symlink_metadata(&place).map(|meta| meta.permissions());
    let inside = fs::read_dir(&place).map_or(0, Iterator::count);
    remove(&place);
    let sentence = refused.unwrap_or_else(|| panic!("{what} was taken"));
    assert!(sentence.contains(place.to_str().unwrap()), "{sentence}");
    assert!(sentence.contains("remove it"), "{sentence}");
    assert_eq!(after.ok(), Some(before.permissions()), "{what} was changed");
    assert_eq!(inside, 0, "something was put into {what}");
}

#[test]
fn a_directory_that_others_can_enter_is_no_home_for_a_session() {
    for mode in [0o711, 0o755, 0o750, 0o770, 0o777, 0o1777, 0o701] {
        expect_refused("an open directory", |place| {
            fs::create_dir(place).unwrap();
            fs::set_permissions(place, fs::Permissions::from_mode(mode)).unwrap();
        });
    }
}

#[test]
fn a_link_is_no_home_for_a_session_wherever_it_leads() {
    let trap = tempfile::tempdir().unwrap();
    fs::set_permissions(trap.path(), fs::Permissions::from_mode(0o700)).unwrap();
    expect_refused("a link to a directory", |place| {
        symlink(trap.path(), place).unwrap()
    });
    expect_refused("a link to nowhere", |place| {
        symlink("/nowhere/at/all", place).unwrap()
    });
    expect_refused("a link to itself", |place| symlink(place, place).unwrap());
    assert_eq!(fs::read_dir(trap.path()).unwrap().count(), 0);
}

#[test]
fn a_file_is_no_home_for_a_session() {
    expect_refused("a file", |place| {
        fs::write(place, "").unwrap();
        fs::set_permissions(place, fs::Permissions::from_mode(0o600)).unwrap();
    });
}

#[test]
fn the_directory_of_another_user_is_no_home_for_a_session() {
    if !nix::unistd::geteuid().is_root() {
        // Only root can make one.
        return;
    }
    expect_refused("another user's directory", |place| {
        fs::create_dir(place).unwrap();
        fs::set_permissions(place, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(place, Some(65534), Some(65534)).unwrap();
    });
}

#[test]
fn what_a_killed_session_left_is_cleared_away_and_not_followed() {
    let (_dir, config, place) = to_be();
    let precious = tempfile::tempdir().unwrap();
    fs::write(precious.path().join("kept"), "precious").unwrap();
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
    for part in ["ofd", "res", "special", "shadow", "run", "sock", "title"] {
        symlink(precious.path(), place.join(part)).unwrap();
    }
    symlink(precious.path().join("kept"), place.join("other")).unwrap();
    let session = (ENGINE.start)(config).unwrap();
    session.drain(true);
    session.shutdown();
    assert!(!place.exists());
    let kept = fs::read_to_string(precious.path().join("kept"));
    assert_eq!(kept.unwrap(), "precious");
}
