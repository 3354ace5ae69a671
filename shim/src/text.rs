//! Byte strings of bounded length without an allocator, and what can be said
//! of paths by looking at them.

use core::ffi::c_char;
use core::mem::MaybeUninit;

use crate::usercopy;

/// A byte string in a fixed buffer of `N` bytes, with a NUL after it. Making
/// one costs nothing: the buffer starts uninitialised.
pub(crate) struct Text<const N: usize> {
    buffer: [MaybeUninit<u8>; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    /// The empty string.
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self {
            buffer: [MaybeUninit::uninit(); N],
            length: 0,
        }
    }

    /// The string.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `length` is never more than N, and so many bytes were written.
        unsafe { core::slice::from_raw_parts(self.buffer.as_ptr().cast(), self.length) }
    }

    /// The string with a NUL at its end, for the kernel.
    pub(crate) fn as_ptr(&mut self) -> *const c_char {
        if let Some(end) = self.buffer.get_mut(self.length) {
            end.write(0);
        } else if let Some(last) = self.buffer.last_mut() {
            last.write(0);
        }
        self.buffer.as_ptr().cast()
    }

    /// Lets `write` fill the buffer; it gives the length, negative: none.
    ///
    /// # Safety
    /// `write` must have written as many bytes as it says.
    pub(crate) unsafe fn fill(&mut self, write: impl FnOnce(&mut [MaybeUninit<u8>]) -> isize) {
        let length = write(&mut self.buffer);
        self.length = usize::try_from(length).unwrap_or(0).min(N);
    }

    /// Reads the string at `path`; `false` when it is too long or unreadable.
    ///
    /// # Safety
    /// `path` may be any address whose content is the caller's.
    #[inline(always)]
    pub(crate) unsafe fn read(&mut self, path: *const c_char) -> bool {
        // SAFETY: N bytes of ours, which are only written; the caller's word
        // for `path`.
        let length = unsafe {
            let room = core::slice::from_raw_parts_mut(self.buffer.as_mut_ptr().cast::<u8>(), N);
            usercopy::copy_cstr(room, path)
        };
        self.length = if length < 0 {
            0
        } else {
            (length as usize).min(N)
        };
        length >= 0
    }

    /// Appends `bytes`; `false`: no room (one byte stays free for the NUL).
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        let end = self.length.wrapping_add(bytes.len());
        if end >= N {
            return false;
        }
        if let Some(room) = self.buffer.get_mut(self.length..end) {
            room.iter_mut().zip(bytes).for_each(|(slot, byte)| {
                slot.write(*byte);
            });
            self.length = end;
        }
        true
    }

    /// Appends `number` in decimal.
    pub(crate) fn push_number(&mut self, number: u32) -> bool {
        let tens = number / 10;
        let digit = b'0'.wrapping_add((number % 10) as u8);
        (tens == 0 || self.push_number(tens)) && self.push(&[digit])
    }

    /// Makes it `bytes`; `false`: no room.
    pub(crate) fn set(&mut self, bytes: &[u8]) -> bool {
        self.length = 0;
        self.push(bytes)
    }

    /// Takes slashes off its end.
    pub(crate) fn without_slash(&mut self) {
        while self.length > 1 && self.bytes().ends_with(b"/") {
            self.truncate(self.length.wrapping_sub(1));
        }
    }

    /// Cuts it off after `length` bytes.
    fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Takes out empty components, "." and "..", as if there were no symbolic
    /// links. Keeps a slash at the end. `false` when it is not absolute.
    pub(crate) fn normalise(&mut self) -> bool {
        let whole = self.bytes();
        if whole.first() != Some(&b'/') {
            return false;
        }
        let directory = whole.ends_with(b"/");
        let (mut read, mut write) = (0, 0usize);
        while let Some((start, end)) = component(self.bytes(), read) {
            read = end;
            match self.bytes().get(start..end) {
                Some(b".") => {}
                Some(b"..") => write = self.parent(write),
                Some(_) => write = self.keep(start, end, write),
                None => return false,
            }
        }
        self.truncate(write);
        if directory || write == 0 {
            return self.push(b"/");
        }
        true
    }

    /// Where the parent of the path in the first `length` bytes ends.
    fn parent(&self, length: usize) -> usize {
        let path = self.bytes().get(..length).unwrap_or_default();
        path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)
    }

    /// Moves a component behind a slash at `to`, which lies before it.
    fn keep(&mut self, start: usize, end: usize, to: usize) -> usize {
        if let Some(slot) = self.buffer.get_mut(to) {
            slot.write(b'/');
        }
        let target = to.wrapping_add(1);
        for (offset, from) in (start..end).enumerate() {
            let byte = self.buffer.get(from).copied();
            let slot = self.buffer.get_mut(target.wrapping_add(offset));
            if let (Some(byte), Some(slot)) = (byte, slot) {
                *slot = byte;
            }
        }
        target.wrapping_add(end.wrapping_sub(start))
    }
}

/// Start and end of the first component of `path` from `from` on.
fn component(path: &[u8], from: usize) -> Option<(usize, usize)> {
    let rest = path.get(from..)?;
    let skip = rest.iter().position(|&byte| byte != b'/')?;
    let start = from.wrapping_add(skip);
    let length = path
        .get(start..)?
        .iter()
        .position(|&byte| byte == b'/')
        .unwrap_or(path.len().wrapping_sub(start));
    Some((start, start.wrapping_add(length)))
}

/// `path` without slashes at its start.
pub(crate) fn without_slashes(path: &[u8]) -> &[u8] {
    let mut rest = path;
    while let [b'/', tail @ ..] = rest {
        rest = tail;
    }
    rest
}

/// Whether "//" or "/." occurs in `path`: what may want normalising.
#[inline(always)]
pub(crate) fn may_have_dots(path: &[u8]) -> bool {
    // Written so that it compiles to vector code.
    let next = path.get(1..).unwrap_or_default();
    path.iter().zip(next).fold(false, |found, (&byte, &next)| {
        found | ((byte == b'/') & ((next == b'/') | (next == b'.')))
    })
}

/// A decimal number at the start of `text`, and what follows it.
pub(crate) fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let mut rest = text;
    let mut value = 0u32;
    while let [digit @ b'0'..=b'9', tail @ ..] = rest {
        value = value
            .checked_mul(10)?
            .checked_add(u32::from(digit.wrapping_sub(b'0')))?;
        rest = tail;
    }
    (rest.len() < text.len() && value <= i32::MAX as u32).then_some((value, rest))
}

/// How far directory `from` is from `to`: components to go up to their common
/// ancestor, and the length of its path (0 for the root).
pub(crate) fn distance(from: &[u8], to: &[u8]) -> (u32, u32) {
    let mut shared = 0;
    let mut at = 0;
    while let (Some(one), Some(other)) = (component(from, at), component(to, at)) {
        let same = one == other && from.get(one.0..one.1) == to.get(other.0..other.1);
        if !same {
            break;
        }
        at = one.1;
        shared = at;
    }
    let mut up = 0u32;
    while let Some((_, end)) = component(from, at) {
        up = up.wrapping_add(1);
        at = end;
    }
    (up, shared as u32)
}

/// Whether a relative path may lead into `target` from a directory that is
/// `up` levels below the first `shared` bytes of `target`. May err with `true`.
pub(crate) fn may_reach(path: &[u8], up: u32, shared: u32, target: &[u8]) -> bool {
    let (mut ups, mut at, mut names) = (0u32, 0, false);
    let next = component(target, shared as usize).and_then(|(start, end)| target.get(start..end));
    let mut first_fits = false;
    while let Some((start, end)) = component(path, at) {
        match path.get(start..end) {
            Some(b".") => {}
            Some(b"..") => ups = ups.wrapping_add(1),
            name => {
                first_fits |= !names && name == next;
                names = true;
            }
        }
        at = end;
    }
    if up == 0 && ups == 0 {
        return first_fits;
    }
    ups >= up
}

/// Whether a path from some directory may lead into `target`: it goes up, or
/// begins with a component of `target`. May err with `true`.
pub(crate) fn may_enter(path: &[u8], target: &[u8]) -> bool {
    let first = components(path).find(|name| *name != b".");
    components(path).any(|name| name == b"..") || components(target).any(|name| Some(name) == first)
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn normal(path: &str) -> String {
        let mut text = Text::<256>::new();
        assert!(text.set(path.as_bytes()));
        assert!(text.normalise());
        String::from_utf8(Vec::from(text.bytes())).unwrap()
    }

    #[test]
    fn detours_in_paths_are_taken_out() {
        assert_eq!(normal("/a//b/./c/../d"), "/a/b/d");
        assert_eq!(normal("/../a/"), "/a/");
        assert_eq!(normal("//"), "/");
        assert_eq!(normal("/a/.."), "/");
        assert_eq!(normal("/a/b/../../c/.hidden"), "/c/.hidden");
        assert_eq!(normal("/a/..b"), "/a/..b");
    }

    #[test]
    fn suspicious_paths_are_seen() {
        for path in ["/a//b", "/a/../b", "/./a", "/a/.", "/a/.git"] {
            assert!(may_have_dots(path.as_bytes()), "{path}");
        }
        for path in ["/a/b", "/a.b/c..", "/a/", ""] {
            assert!(!may_have_dots(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn only_paths_that_can_reach_the_directory_are_resolved() {
        let target = b"/data/run/x";
        assert_eq!(distance(b"/data/work/a", target), (2, 5));
        assert_eq!(distance(b"/data", target), (0, 5));
        assert_eq!(distance(b"/", target), (0, 0));
        assert_eq!(distance(b"/database", target), (1, 0));
        assert!(may_reach(b"../../run/x/f", 2, 5, target));
        assert!(!may_reach(b"../run/x/f", 2, 5, target));
        assert!(may_reach(b"run/x/f", 0, 5, target));
        assert!(may_reach(b"./run/x/f", 0, 5, target));
        assert!(!may_reach(b"runs/x", 0, 5, target));
        assert!(may_reach(b"data/run/x", 0, 0, target));
        assert!(may_reach(b"a/../run/x", 0, 5, target));
    }

    #[test]
    fn numbers_end_where_digits_end() {
        assert_eq!(number(b"12/x"), Some((12, &b"/x"[..])));
        assert_eq!(number(b"x"), None);
        assert_eq!(number(b"99999999999"), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut text = Text::<4>::new();
        assert!(text.push(b"abc"));
        assert!(!text.push(b"d"));
        assert_eq!(text.bytes(), b"abc");
    }
}
