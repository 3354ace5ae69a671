//! One line of `strace -i -y`, taken apart.

/// A system call as strace saw it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call<'a> {
    /// Address of the instruction after the call; 0 where strace has none.
    pub(super) from: u64,
    /// Name of the call.
    pub(super) name: &'a str,
    /// Its arguments as they are printed.
    pub(super) arguments: Vec<&'a str>,
    /// What follows the `=`; empty for a call that never came back.
    pub(super) result: &'a str,
}

impl<'a> Call<'a> {
    /// Takes a line apart; lines about signals and ends are none.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let (address, call) = line.strip_prefix('[')?.split_once("] ")?;
        let open = call.find('(')?;
        let (name, rest) = (call.get(..open)?, call.get(open + 1..)?);
        if name.is_empty() || !name.bytes().all(|c| c == b'_' || c.is_ascii_alphanumeric()) {
            return None;
        }
        let (arguments, after) = split(rest);
        let result = after
            .split_once("= ")
            .map_or("", |(_, result)| result.trim());
        Some(Self {
            from: u64::from_str_radix(address, 16).unwrap_or(0),
            name,
            arguments,
            result,
        })
    }

    /// The string in this argument, if it is one.
    pub(super) fn string(&self, index: usize) -> Option<&'a str> {
        let text = self.arguments.get(index)?;
        text.strip_prefix('"')?.strip_suffix('"')
    }

    /// What the descriptor in this argument is, as in `3</etc/passwd>`.
    pub(super) fn descriptor(&self, index: usize) -> Option<&'a str> {
        let text = self.arguments.get(index)?;
        let (number, path) = text.split_once('<')?;
        let numeric = number == "AT_FDCWD" || number.bytes().all(|c| c.is_ascii_digit());
        let path = path.strip_suffix("(deleted)").unwrap_or(path);
        numeric.then(|| path.strip_suffix('>').unwrap_or(path))
    }

    /// What it returned, when that is a number.
    pub(super) fn returned(&self) -> Option<i64> {
        let word = self.result.split([' ', '<']).next()?;
        match word.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).ok(),
            None => word.parse().ok(),
        }
    }
}

/// The arguments up to the closing bracket, and what comes after it.
fn split(text: &str) -> (Vec<&str>, &str) {
    let mut arguments = Vec::new();
    let (mut start, mut depth, mut quoted, mut escaped) = (0, 0_i32, false, false);
    let mut path = false;
    for (at, c) in text.bytes().enumerate() {
        match c {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !path => quoted = !quoted,
            _ if quoted => {}
            b'<' if text.get(at + 1..at + 2) == Some("/") => path = true,
            b'>' => path = false,
            _ if path => {}
            b'(' | b'[' | b'{' => depth += 1,
            b')' if depth == 0 => {
                arguments.extend(text.get(start..at).map(str::trim).filter(|a| !a.is_empty()));
                return (arguments, text.get(at + 1..).unwrap_or(""));
            }
            b')' | b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                arguments.extend(text.get(start..at).map(str::trim));
                start = at + 1;
            }
            _ => {}
        }
    }
    let rest = text.get(start..).unwrap_or("").trim();
    arguments
        .extend(Some(rest.trim_end_matches("<unfinished ...>").trim()).filter(|a| !a.is_empty()));
    (arguments, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_descriptors_and_results_are_found_in_a_line() {
        let line = r#"[00007f6906d4f011] openat(AT_FDCWD</w/a, (b)>, "x\", y", O_RDONLY|O_CLOEXEC) = 3</w/x>"#;
        let call = Call::parse(line).unwrap();
        assert_eq!(call.from, 0x7f69_06d4_f011);
        assert_eq!(call.name, "openat");
        assert_eq!(call.descriptor(0), Some("/w/a, (b)"));
        assert_eq!(call.string(1), Some(r#"x\", y"#));
        assert_eq!(call.arguments.len(), 3);
        assert_eq!(call.returned(), Some(3));
    }

    #[test]
    fn structures_failures_and_calls_without_an_end_are_understood() {
        let call = Call::parse(
            "[00007f00000000a0] newfstatat(4</w/o>(deleted), \"\", {st_mode=S_IFREG|0644, ...}, 0) = -1 ENOENT (No such file)",
        )
        .unwrap();
        assert_eq!(call.descriptor(0), Some("/w/o"));
        assert_eq!(call.string(1), Some(""));
        assert_eq!(call.returned(), Some(-1));
        let call = Call::parse("[0000000000000001] read(5</w/o>,  <unfinished ...>").unwrap();
        assert_eq!((call.descriptor(0), call.returned()), (Some("/w/o"), None));
        let call = Call::parse(
            "[0000000000000001] mmap(NULL, 10, PROT_READ, MAP_PRIVATE, 3</l>, 0) = 0x7f00 ",
        )
        .unwrap();
        assert_eq!(call.returned(), Some(0x7f00));
        assert_eq!(
            Call::parse("[????????????????] +++ exited with 0 +++"),
            None
        );
    }
}
