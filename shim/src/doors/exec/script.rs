//! Scripts that lie in the cache: `#!` is read here and not by the kernel, so
//! that the interpreter gets the script's own path.

use super::carry::Strings;
use super::read_head;
use super::scratch::words;
use crate::place;
use core::ffi::c_char;
use core::ptr;

/// What the kernel reads of a program to tell what it is (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;
/// Interpreters that are scripts themselves: as many as the kernel follows.
pub(crate) const DEEPEST: usize = 4;

/// The first line of a script: interpreter and argument, both C strings.
struct Line {
    text: [u8; HEAD + 1],
    interpreter: usize,
    argument: Option<usize>,
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

impl Line {
    /// Of a file that starts with the first `length` bytes of `text`; `None`:
    /// it is no script.
    fn parse(mut text: [u8; HEAD + 1], length: usize) -> Option<Self> {
        let head = text.get(..length)?;
        let rest = head.strip_prefix(b"#!")?;
        let line = rest.split(|byte| *byte == b'\n').next()?;
        let whole = line.len() < rest.len() || length < HEAD;
        let start = line.iter().position(|byte| !is_blank(*byte))?;
        let name = line.get(start..)?;
        let blank = name.iter().position(|byte| is_blank(*byte));
        if blank.is_none() && !whole {
            // Cut off: it could be another program's name.
            return None;
        }
        let from = 2usize.wrapping_add(start);
        let end = from.wrapping_add(blank.unwrap_or(name.len()));
        let stop = 2usize.wrapping_add(line.len());
        let tail = text.get(end..stop).unwrap_or_default();
        let first = tail.iter().position(|byte| !is_blank(*byte));
        let last = tail.iter().rposition(|byte| !is_blank(*byte));
        let argument = first.map(|at| end.wrapping_add(at));
        let close = last.map_or(end, |at| end.wrapping_add(at).wrapping_add(1));
        for at in [end, close] {
            *text.get_mut(at)? = 0;
        }
        Some(Self {
            text,
            interpreter: from,
            argument,
        })
    }

    fn at(&self, at: usize) -> *const c_char {
        self.text.as_ptr().wrapping_add(at).cast()
    }
}

/// Reads the first line of the program at `path` of the kernel.
///
/// # Safety
/// `path` must be a C string.
unsafe fn first_line(path: *const c_char) -> Option<Line> {
    let mut text = [0u8; HEAD + 1];
    // SAFETY: the caller's promise.
    let got = unsafe { read_head(path, text.get_mut(..HEAD)?) };
    Line::parse(text, got)
}

/// Whether `path` is a program in the cache.
///
/// # Safety
/// `path` must be a C string.
pub(super) unsafe fn is_in_cache(path: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    place::is_in_run(unsafe { core::ffi::CStr::from_ptr(path) }.to_bytes())
}

/// When the program at `real`, which the caller knows as `shown`, is a script
/// in the cache: calls `with` with its interpreter and the arguments for that.
///
/// # Safety
/// C strings, and a null-terminated list of them.
pub(crate) unsafe fn interpreted<R>(
    real: *const c_char,
    shown: *const c_char,
    argv: Strings,
    mut with: impl FnMut(*const c_char, Strings) -> R,
) -> Option<R> {
    // SAFETY: the caller's promises; the list has room for what is written.
    unsafe {
        let line = is_in_cache(real).then(|| first_line(real)).flatten()?;
        let mut count = 0usize;
        while !argv.is_null() && !(*argv.wrapping_add(count)).is_null() {
            count = count.wrapping_add(1);
        }
        words(count.wrapping_add(4), |room| {
            let list = room.cast::<*const c_char>();
            let own = [Some(line.interpreter), line.argument];
            let mut at = 0usize;
            let mut put = |word: *const c_char| {
                *list.wrapping_add(at) = word;
                at = at.wrapping_add(1);
            };
            own.into_iter()
                .flatten()
                .for_each(|word| put(line.at(word)));
            put(shown);
            (1..count).for_each(|i| put((*argv.wrapping_add(i)).cast()));
            put(ptr::null());
            with(line.at(line.interpreter), list.cast_const().cast())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ffi::CStr;

    fn parsed(text: &[u8]) -> Option<(std::string::String, Option<std::string::String>)> {
        let mut head = [0; HEAD + 1];
        let length = text.len().min(HEAD);
        head[..length].copy_from_slice(&text[..length]);
        let line = Line::parse(head, length)?;
        let word = |at| {
            // SAFETY: the line ends with a NUL.
            unsafe { CStr::from_ptr(line.at(at)) }
                .to_str()
                .unwrap()
                .into()
        };
        Some((word(line.interpreter), line.argument.map(word)))
    }

    #[test]
    fn the_first_line_of_a_script_is_taken_apart_as_by_the_kernel() {
        let sh = |argument: Option<&str>| Some(("/bin/sh".into(), argument.map(Into::into)));
        assert_eq!(parsed(b"#!/bin/sh\necho"), sh(None));
        assert_eq!(parsed(b"#! \t/bin/sh  -e -u \necho"), sh(Some("-e -u")));
        assert_eq!(parsed(b"#!/bin/sh"), sh(None));
        assert_eq!(parsed(b"#!/bin/sh -x"), sh(Some("-x")));
        assert_eq!(parsed(b"#!\n/bin/sh"), None);
        assert_eq!(parsed(b"\x7fELF"), None);
        assert_eq!(parsed(b"#"), None);
        let mut long = [b'a'; 400];
        long[..3].copy_from_slice(b"#!/");
        assert_eq!(parsed(&long), None);
        long[20] = b' ';
        assert!(parsed(&long).is_some());
    }
}
