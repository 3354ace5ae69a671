//! `fnmatch(pattern, path, FNM_NOESCAPE)` of glibc in the C locale, on bytes.
//!
//! `*` crosses `/` and matches leading dots; a backslash is literal. The odd
//! corners of bracket expressions (unterminated, malformed classes, ranges
//! that end in `]`) follow glibc, because the reference calls it.

/// Longest class name between `[:` and `:]` that glibc looks at.
const CLASS_NAME_MAX: usize = 2048;

/// True when the whole of `path` matches `pattern`, exactly as glibc's
/// `fnmatch` with `FNM_NOESCAPE` in the C locale says.
#[must_use]
pub fn fnmatch(pattern: &[u8], path: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last `*` resumes: what follows it, and the path from there.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let next = match (at(pattern, p), path.get(n)) {
            (0, None) => return true,
            (b'*', _) => {
                let Some(after) = skip_stars(pattern, p, path.len(), n) else {
                    return false;
                };
                (p, n) = after;
                if at(pattern, p) == 0 {
                    return true;
                }
                retry = Some(after);
                continue;
            }
            (0, Some(_)) | (_, None) => None,
            (b'?', Some(_)) => Some(p + 1),
            (b'[', Some(&byte)) => match Bracket::run(pattern, p + 1, byte) {
                Outcome::Match(next) => Some(next),
                Outcome::NoMatch => None,
                Outcome::Unterminated => (byte == b'[').then_some(p + 1),
            },
            (literal, Some(&byte)) => (literal == byte).then_some(p + 1),
        };
        match (next, retry) {
            (Some(next), _) => (p, n) = (next, n + 1),
            (None, Some((star, from))) if from < path.len() => {
                (p, n) = (star, from + 1);
                retry = Some((p, n));
            }
            (None, _) => return false,
        }
    }
}

/// Passes a run of `*` and `?`; each `?` takes a byte of the path. `None`
/// when there are not enough of them.
fn skip_stars(pattern: &[u8], mut p: usize, len: usize, mut n: usize) -> Option<(usize, usize)> {
    loop {
        match at(pattern, p) {
            b'*' => {}
            b'?' if n < len => n += 1,
            b'?' => return None,
            _ => return Some((p, n)),
        }
        p += 1;
    }
}

/// The byte at `i`, or 0 past the end: the C string's terminator.
fn at(pattern: &[u8], i: usize) -> u8 {
    pattern.get(i).copied().unwrap_or(0)
}

/// What a bracket expression says of one byte.
enum Outcome {
    /// It matches, and the pattern goes on at this index.
    Match(usize),
    /// It does not match, or the expression is malformed.
    NoMatch,
    /// There is no closing bracket: the `[` is an ordinary character.
    Unterminated,
}

/// One step through the members of a bracket expression.
enum Member {
    /// The byte belongs to this member.
    Hit,
    /// It does not; the next pattern byte to look at.
    Miss(u8),
    /// The expression is malformed.
    Malformed,
}

/// A walk through a bracket expression.
struct Bracket<'a> {
    pattern: &'a [u8],
    pos: usize,
    byte: u8,
}

impl<'a> Bracket<'a> {
    /// Judges `byte` by the expression whose first byte after `[` is at `pos`.
    fn run(pattern: &'a [u8], pos: usize, byte: u8) -> Outcome {
        let negated = matches!(at(pattern, pos), b'!' | b'^');
        let mut walk = Bracket {
            pattern,
            pos: pos + usize::from(negated),
            byte,
        };
        let mut c = walk.take();
        loop {
            match walk.member(c) {
                None => return Outcome::Unterminated,
                Some(Member::Malformed) => return Outcome::NoMatch,
                Some(Member::Hit) => return walk.finish(negated),
                Some(Member::Miss(b']')) if negated => return Outcome::Match(walk.pos),
                Some(Member::Miss(b']')) => return Outcome::NoMatch,
                Some(Member::Miss(next)) => c = next,
            }
        }
    }

    fn peek(&self, ahead: usize) -> u8 {
        at(self.pattern, self.pos + ahead)
    }

    fn take(&mut self) -> u8 {
        let c = self.peek(0);
        self.pos += 1;
        c
    }

    /// The member that begins with `c`; `None` at the end of the pattern.
    fn member(&mut self, c: u8) -> Option<Member> {
        match (c, self.peek(0)) {
            (0, _) => None,
            (b'[', b':') => Some(self.class()),
            (b'[', b'=') => Some(self.equivalence()),
            (b'[', b'.') => Some(self.symbol()),
            _ => Some(self.plain(c)),
        }
    }

    /// `[:name:]`; anything else there is an ordinary `[`.
    fn class(&mut self) -> Member {
        let start = self.pos + 1;
        let mut end = start;
        while !(at(self.pattern, end) == b':' && at(self.pattern, end + 1) == b']') {
            if !may_name_class(at(self.pattern, end)) {
                return self.plain(b'[');
            }
            end += 1;
            if end - start > CLASS_NAME_MAX {
                return Member::Malformed;
            }
        }
        self.pos = end + 2;
        match in_class(self.pattern.get(start..end).unwrap_or_default(), self.byte) {
            None => Member::Malformed,
            Some(true) => Member::Hit,
            Some(false) => Member::Miss(self.take()),
        }
    }

    /// `[=x=]`; anything else there is an ordinary `[`.
    fn equivalence(&mut self) -> Member {
        let c = self.peek(1);
        if c == 0 || self.peek(2) != b'=' || self.peek(3) != b']' {
            return self.plain(b'[');
        }
        self.pos += 4;
        if self.byte == c {
            return Member::Hit;
        }
        Member::Miss(self.take())
    }

    /// `[.x.]`, alone or as the first end of a range.
    fn symbol(&mut self) -> Member {
        let Some(symbol) = self.collating_symbol() else {
            return Member::Malformed;
        };
        let is_range = self.peek(0) == b'-' && self.peek(1) != 0;
        if !is_range && self.byte == symbol {
            return Member::Hit;
        }
        self.range(symbol)
    }

    /// An ordinary byte, alone or as the first end of a range.
    fn plain(&mut self, c: u8) -> Member {
        let is_range = self.peek(0) == b'-' && !matches!(self.peek(1), 0 | b']');
        if !is_range && self.byte == c {
            return Member::Hit;
        }
        self.range(c)
    }

    /// The rest of a member that began with `first`: `-last` when there.
    fn range(&mut self, first: u8) -> Member {
        let c = self.take();
        if c != b'-' || self.peek(0) == b']' {
            return Member::Miss(c);
        }
        let mut last = self.take();
        if last == b'[' && self.peek(0) == b'.' {
            match self.collating_symbol() {
                Some(symbol) => last = symbol,
                None => return Member::Malformed,
            }
        } else if last == 0 {
            return Member::Malformed;
        }
        if (first..=last).contains(&self.byte) {
            return Member::Hit;
        }
        Member::Miss(self.take())
    }

    /// Reads `.x.]` (the `[` is taken already); the C locale knows symbols of
    /// one byte only.
    fn collating_symbol(&mut self) -> Option<u8> {
        let start = self.pos + 1;
        let mut end = start;
        while !(at(self.pattern, end) == b'.' && at(self.pattern, end + 1) == b']') {
            if at(self.pattern, end) == 0 {
                return None;
            }
            end += 1;
        }
        self.pos = end + 2;
        (end == start + 1).then(|| at(self.pattern, start))
    }

    /// Skips what is left of an expression whose byte was found.
    fn finish(&mut self, negated: bool) -> Outcome {
        loop {
            match (self.take(), self.peek(0)) {
                (b']', _) if negated => return Outcome::NoMatch,
                (b']', _) => return Outcome::Match(self.pos),
                (0, _) => return Outcome::Unterminated,
                (b'[', b':') => self.skip_class(),
                (b'[', b'=') => {
                    if self.peek(1) == 0 || self.peek(2) != b'=' || self.peek(3) != b']' {
                        return Outcome::NoMatch;
                    }
                    self.pos += 4;
                }
                (b'[', b'.') => {
                    let mut end = self.pos + 1;
                    while !(at(self.pattern, end) == b'.' && at(self.pattern, end + 1) == b']') {
                        if at(self.pattern, end) == 0 {
                            return Outcome::NoMatch;
                        }
                        end += 1;
                    }
                    self.pos = end + 2;
                }
                _ => {}
            }
        }
    }

    /// Skips `[:name:]`; when it is none, only the `[` was taken.
    fn skip_class(&mut self) {
        let mut end = self.pos + 1;
        loop {
            if at(self.pattern, end) == b':' && at(self.pattern, end + 1) == b']' {
                self.pos = end + 2;
                return;
            }
            if !may_name_class(at(self.pattern, end)) {
                return;
            }
            end += 1;
        }
    }
}

/// True for what glibc takes for part of a class name: its test leaves `z` out.
fn may_name_class(byte: u8) -> bool {
    byte.is_ascii_lowercase() && byte != b'z'
}

/// Membership in a character class of the C locale; `None` for a name that
/// is no class.
fn in_class(name: &[u8], byte: u8) -> Option<bool> {
    Some(match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => matches!(byte, b' ' | 0x09..=0x0d),
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => return None,
    })
}
