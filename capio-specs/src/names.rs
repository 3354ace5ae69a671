//! Names of files: lexical normalisation, and what makes one a pattern.

use crate::fnmatch::fnmatch;

/// True when `name` holds a character that `fnmatch` reads as more than
/// itself.
pub(crate) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// The name without `//`, `/./`, `..` and trailing `/`. A relative name that
/// climbs above its start keeps those `..`.
pub(crate) fn normalise(name: &str) -> String {
    let absolute = name.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match (part, parts.last()) {
            ("" | ".", _) => {}
            ("..", Some(last)) if *last != ".." => {
                parts.pop();
            }
            ("..", None) if absolute => {}
            (part, _) => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// The directory that relative names resolve against.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    plain: String,
    /// As a pattern that matches this directory only.
    escaped: String,
}

impl Prefix {
    pub(crate) fn new(directory: &str) -> Self {
        let plain = normalise(directory);
        Self {
            escaped: escape(&plain),
            plain,
        }
    }

    /// The directory itself.
    pub(crate) fn directory(&self) -> &str {
        &self.plain
    }

    /// `name`, resolved, as it would stand in a document.
    pub(crate) fn relative<'n>(&self, name: &'n str) -> &'n str {
        let within = |dir: &str| name.strip_prefix(dir)?.strip_prefix('/');
        let rest = within(&self.plain).or_else(|| within(&self.escaped));
        rest.filter(|rest| !rest.is_empty()).unwrap_or(name)
    }

    /// `name`, absolute. A pattern stays one without the directory's own
    /// characters becoming part of it.
    pub(crate) fn resolve(&self, name: &str) -> String {
        if name.starts_with('/') {
            return normalise(name);
        }
        let directory = if is_pattern(name) {
            &self.escaped
        } else {
            &self.plain
        };
        normalise(&format!("{directory}/{name}"))
    }

    /// True when `name`, resolved, lies in the directory or can match
    /// something that does.
    pub(crate) fn may_hold(&self, name: &str) -> bool {
        let under = |directory: &str| {
            let rest = name.strip_prefix(directory);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.plain == "/"
            || under(&self.plain)
            || under(&self.escaped)
            || (is_pattern(name) && self.plain.starts_with(literal_prefix(name)))
    }
}

/// Bracket expressions in the place of what a pattern would read as more.
fn escape(plain: &str) -> String {
    let mut escaped = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '*' | '?' | '[' => escaped.extend(['[', c, ']']),
            c => escaped.push(c),
        }
    }
    escaped
}

/// What every path that a pattern matches begins with.
pub(crate) fn literal_prefix(pattern: &str) -> &str {
    let end = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    pattern.get(..end).unwrap_or(pattern)
}

/// What every path that a pattern matches ends with.
pub(crate) fn literal_suffix(pattern: &str) -> &str {
    // A `]` may close a bracket expression, so the suffix begins behind it.
    let start = pattern.rfind(['*', '?', '[', ']']).map_or(0, |at| at + 1);
    pattern.get(start..).unwrap_or("")
}

/// True when some path may match both names. For two patterns this can be
/// true though none does, never the other way round.
pub(crate) fn may_overlap(a: &str, b: &str) -> bool {
    a == b
        || match (is_pattern(a), is_pattern(b)) {
            (false, false) => false,
            (true, false) => fnmatch(a.as_bytes(), b.as_bytes()),
            (false, true) => fnmatch(b.as_bytes(), a.as_bytes()),
            (true, true) => {
                let (start_a, start_b) = (literal_prefix(a), literal_prefix(b));
                let (end_a, end_b) = (literal_suffix(a), literal_suffix(b));
                (start_a.starts_with(start_b) || start_b.starts_with(start_a))
                    && (end_a.ends_with(end_b) || end_b.ends_with(end_a))
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_without_asking_the_file_system() {
        for (name, normal) in [
            ("/a//b/./c/../d/", "/a/b/d"),
            ("/../..", "/"),
            ("../x", "../x"),
            ("a/../../x", "../x"),
            ("./", "."),
            ("a/..", "."),
            ("//", "/"),
            ("*/../b*", "b*"),
        ] {
            assert_eq!(normalise(name), normal, "{name}");
            assert_eq!(normalise(normal), normal, "{name}, twice");
        }
    }

    #[test]
    fn a_directory_with_brackets_in_its_name_does_not_spoil_its_patterns() {
        let prefix = Prefix::new("/tmp/run[1]");
        let pattern = prefix.resolve("*.txt");
        assert!(fnmatch(pattern.as_bytes(), b"/tmp/run[1]/a.txt"));
        assert!(!fnmatch(pattern.as_bytes(), b"/tmp/run1/a.txt"));
        assert_eq!(prefix.resolve("a.txt"), "/tmp/run[1]/a.txt");
        assert!(prefix.may_hold(&pattern));
        assert!(!prefix.may_hold("/tmp/other/a*"));
    }

    #[test]
    fn two_patterns_overlap_unless_their_literal_ends_exclude_it() {
        assert!(may_overlap("/c/a*.txt", "/c/*b.txt"));
        assert!(may_overlap("/c/a*", "/c/ab"));
        assert!(!may_overlap("/c/a*.txt", "/c/b*.txt"));
        assert!(!may_overlap("/c/*.txt", "/c/*.bam"));
        assert!(!may_overlap("/c/a", "/c/b"));
    }
}
