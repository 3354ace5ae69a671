//! Lines and columns of byte offsets.

/// A place in a document, both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// Where the lines of a text begin.
pub(crate) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self {
            text,
            starts: std::iter::once(0)
                .chain(after_newlines.map(|(at, _)| at + 1))
                .collect(),
        }
    }

    /// The place of byte offset `at`; an offset past the end is the end.
    pub(crate) fn position(&self, at: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.as_bytes().get(start..at.min(self.text.len()));
        let characters = before
            .unwrap_or_default()
            .iter()
            // Continuation bytes of UTF-8 begin no character.
            .filter(|byte| (**byte & 0xC0) != 0x80)
            .count();
        Position {
            line,
            column: characters + 1,
        }
    }

    /// Byte offset of a line and byte column, both counted from 1.
    pub(crate) fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.starts.get(line.saturating_sub(1)).copied();
        (start.unwrap_or(self.text.len()) + column.saturating_sub(1)).min(self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let lines = Lines::new("a\né x\n");
        let place = |at| (lines.position(at).line, lines.position(at).column);
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(1), (1, 2));
        assert_eq!(place(2), (2, 1));
        assert_eq!(place(5), (2, 3));
        assert_eq!(place(99), (3, 1));
    }
}
