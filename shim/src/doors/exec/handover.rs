//! Programs whose calls the library does not see: static ones load nothing, and
//! those in Go ask the kernel by themselves. What they inherit of the session is
//! handed over to the kernel, and they start in the directory on disk.

use super::read_head;
use crate::calls;
use crate::descriptors;
use crate::place;
use crate::sys::syscall;
use crate::text::Text;
use core::ffi::{c_char, c_int};
use wire::limits::MAX_PATH;

/// What is read of a program: its header and, as linkers place them, the
/// headers of its segments.
const HEAD: usize = 4096;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// What is asked of a segment.
struct Segment {
    kind: u32,
    offset: usize,
    size: usize,
}

/// The segments of an ELF file (64 bit, as this library) that starts with `head`.
fn segments(head: &[u8]) -> Option<impl Iterator<Item = Option<Segment>>> {
    let number = |at| usize::try_from(u64::from_le_bytes(word(head, at)?)).ok();
    if !head.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let start = number(32)?;
    let size = usize::from(u16::from_le_bytes(word(head, 54)?));
    let count = usize::from(u16::from_le_bytes(word(head, 56)?));
    Some((0..count).map(move |i| {
        let at = start.checked_add(i.checked_mul(size)?)?;
        Some(Segment {
            kind: u32::from_le_bytes(word(head, at)?),
            offset: number(at.checked_add(8)?)?,
            size: number(at.checked_add(32)?)?,
        })
    }))
}

/// Whether the linker of Go has left its mark in a note: its owner, `Go`, and
/// its kind, 4, with the lengths before them.
fn is_of_go(head: &[u8], note: &Segment) -> bool {
    let bytes = head
        .get(note.offset..)
        .map(|rest| rest.get(..note.size).unwrap_or(rest));
    let mark = |at: &[u8]| {
        at.starts_with(&[4, 0, 0, 0]) && at.get(8..) == Some(b"\x04\0\0\0Go\0\0".as_slice())
    };
    bytes.is_some_and(|bytes| bytes.windows(16).step_by(4).any(mark))
}

/// What the segments of an ELF file that starts with `head` tell of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    /// It names the dynamic loader.
    Dynamic,
    /// It does not.
    Static,
    /// It is in Go, be it static or not.
    Go,
}

/// `None`: no ELF file, or one whose table of segments is elsewhere.
fn judge(head: &[u8]) -> Option<Program> {
    let mut program = Program::Static;
    for segment in segments(head)? {
        let segment = segment?;
        if segment.kind == PT_INTERP {
            program = Program::Dynamic;
        }
        if segment.kind == PT_NOTE && is_of_go(head, &segment) {
            return Some(Program::Go);
        }
    }
    Some(program)
}

/// Whether the library does not see the calls of the program.
fn is_alone(head: &[u8]) -> bool {
    judge(head).is_some_and(|program| program != Program::Dynamic)
}

/// Whether this very process runs a program in Go.
pub(crate) fn runs_go() -> bool {
    let mut head = [0u8; HEAD];
    // SAFETY: a string of ours.
    let got = unsafe { read_head(c"/proc/self/exe".as_ptr(), &mut head) };
    head.get(..got).and_then(judge) == Some(Program::Go)
}

/// # Safety
/// `path` must be a C string.
unsafe fn is_alone_at(path: *const c_char) -> bool {
    let mut head = [0u8; HEAD];
    // SAFETY: the caller's promise.
    let got = unsafe { read_head(path, &mut head) };
    head.get(..got).is_some_and(is_alone)
}

/// Where the process was before [`to_disk`].
pub(super) struct Left(Text<MAX_PATH>);

impl Left {
    /// Goes back there: the program could not be started.
    pub(super) fn back(mut self) {
        // SAFETY: a string of ours.
        unsafe { syscall!(libc::SYS_chdir, self.0.as_ptr()) };
    }
}

/// Before the kernel's program at `path` takes this one's place, and if it is one
/// that the library cannot see: leaves the shadow of a directory, in which its files
/// would be lost, for the directory itself. One that is not on disk is not left.
///
/// # Safety
/// `path` must be a C string.
#[must_use]
pub(super) unsafe fn to_disk(path: *const c_char) -> Option<Left> {
    let place = place::get()?;
    let (mut cwd, mut disk) = (Text::new(), Text::<MAX_PATH>::new());
    if !place::read_cwd(&mut cwd) {
        return None;
    }
    let rest = place.behind_shadow(cwd.bytes())?;
    let fits = disk.set(place.canonical.bytes()) && disk.push(rest);
    // SAFETY: the caller's promise; a string of ours.
    let left =
        unsafe { fits && is_alone_at(path) && syscall!(libc::SYS_chdir, disk.as_ptr()) >= 0 };
    left.then_some(Left(cwd))
}

/// Before the kernel's program at `path` takes this one's place, or (`copies`)
/// starts with what it may get of its descriptors. 0 or `-errno`.
///
/// # Safety
/// `path` must be a C string.
pub(crate) unsafe fn before(path: *const c_char, copies: bool) -> isize {
    // Most processes have nothing open of the session.
    // SAFETY: the caller's promise.
    if !descriptors::has_some() || !unsafe { is_alone_at(path) } {
        return 0;
    }
    let mut failed = 0;
    descriptors::each_open(|fd| {
        if copies || is_inherited(fd) {
            failed = calls::hand_over(fd);
        }
        failed != 0
    });
    failed
}

fn is_inherited(fd: c_int) -> bool {
    // SAFETY: integers.
    let flags = unsafe { syscall!(libc::SYS_fcntl, fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC as isize == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of two segments, of which the second is a note that `bytes` are in.
    fn with_note(kind: u32, bytes: &[u8]) -> [u8; 400] {
        let mut file = [0u8; 400];
        let mut put = |at: usize, bytes: &[u8]| file[at..][..bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02");
        put(32, &64_u64.to_le_bytes());
        put(54, &56_u16.to_le_bytes());
        put(56, &2_u16.to_le_bytes());
        put(64, &kind.to_le_bytes());
        put(120, &PT_NOTE.to_le_bytes());
        put(128, &300_u64.to_le_bytes());
        put(152, &90_u64.to_le_bytes());
        put(300, bytes);
        file
    }

    #[test]
    fn a_static_program_is_one_without_an_interpreter() {
        let read = |path: &str| std::fs::read(path).unwrap();
        assert!(!is_alone(&read("/bin/sh")[..HEAD]));
        assert!(is_alone(&read("/lib64/ld-linux-x86-64.so.2")[..HEAD]));
        assert!(!is_alone(b"#!/bin/sh\n"));
        assert!(!is_alone(b"\x7fELF\x02"));
    }

    #[test]
    fn a_program_in_go_is_known_by_its_note_though_it_is_dynamic() {
        let build = b"\x04\0\0\0\x08\0\0\0\x03\0\0\0GNU\0abcdefgh";
        let go = b"\x04\0\0\0\x53\0\0\0\x04\0\0\0Go\0\0";
        assert!(is_alone(&with_note(PT_INTERP, go)));
        assert!(is_alone(&with_note(
            PT_INTERP,
            &[build.as_slice(), go].concat()
        )));
        assert!(!is_alone(&with_note(PT_INTERP, build)));
        assert!(is_alone(&with_note(PT_NOTE, build)), "it is static");
    }
}
