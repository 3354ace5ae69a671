//! Where a session lives: a directory on tmpfs whose name both sides compute
//! from the user, `CAPIO_DIR` and the workflow's name.

/// Name of the control socket in the session's directory.
pub const SOCKET: &str = "sock";
/// Directory of the names under which open file descriptions are opened.
pub const OPEN: &str = "ofd";
/// Directory of the reservation inodes, one a file.
pub const RESERVED: &str = "res";
/// Programs and libraries of the cache, by their paths below `CAPIO_DIR`.
pub const RUN: &str = "run";
/// What follows a program's path in [`RUN`] for the directory of libraries that
/// the loader would look for below `CAPIO_DIR` on disk.
pub const LIBRARIES: &str = ".capio-libs";
/// Root of the shadow directories.
pub const SHADOW: &str = "shadow";
/// Directory of named pipes and other special files.
pub const SPECIAL: &str = "special";
/// Parent of all sessions.
pub const BASE: &str = "/dev/shm";
/// Workflow name when `CAPIO_WORKFLOW_NAME` is not set (as in the C++ CAPIO).
pub const DEFAULT_WORKFLOW: &str = "CAPIO";
/// Step name when `CAPIO_APP_NAME` is not set.
pub const DEFAULT_APP: &str = "default_app";

/// Longest path of a session's directory, in bytes.
pub const MAX_SESSION_PATH: usize = 64;

/// FNV-1a, 64 bit.
const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        hash = (hash ^ *first as u64).wrapping_mul(0x0100_0000_01b3);
        rest = tail;
    }
    hash
}

/// Appends to a fixed buffer; what does not fit is dropped.
struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl Writer<'_> {
    fn put(&mut self, byte: u8) {
        if let Some(slot) = self.buffer.get_mut(self.length) {
            *slot = byte;
            self.length += 1;
        }
    }

    fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.put(byte));
    }

    fn decimal(&mut self, value: u32) {
        if value >= 10 {
            self.decimal(value / 10);
        }
        self.put(b'0' + (value % 10) as u8);
    }

    fn hex(&mut self, value: u64) {
        for shift in (0..16).rev() {
            let digit = ((value >> (shift * 4)) & 15) as u8;
            self.put(if digit < 10 {
                b'0' + digit
            } else {
                b'a' - 10 + digit
            });
        }
    }
}

/// Writes the directory of the session of `workflow` on `capio_dir` (canonical
/// absolute path) for user `uid`, and returns its length:
/// `/dev/shm/capio-UID-HASH`.
pub fn session_path(
    buffer: &mut [u8; MAX_SESSION_PATH],
    uid: u32,
    capio_dir: &[u8],
    workflow: &[u8],
) -> usize {
    let seed = fnv(0xcbf2_9ce4_8422_2325, capio_dir);
    let hash = fnv(fnv(seed, &[0]), workflow);
    let mut writer = Writer { buffer, length: 0 };
    writer.text(BASE);
    writer.text("/capio-");
    writer.decimal(uid);
    writer.put(b'-');
    writer.hex(hash);
    writer.length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_and_coordinator_meet_in_the_same_directory() {
        let mut buffer = [0; MAX_SESSION_PATH];
        let length = session_path(&mut buffer, 1000, b"/data/run", b"genomics");
        assert_eq!(
            core::str::from_utf8(&buffer[..length]),
            Ok("/dev/shm/capio-1000-2c908ab7907b725f")
        );
        let other = session_path(&mut buffer, 1000, b"/data/rung", b"enomics");
        assert_ne!(&buffer[..other], b"/dev/shm/capio-1000-2c908ab7907b725f");
    }
}
