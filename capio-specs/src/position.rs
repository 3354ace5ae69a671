//! Lines and columns of byte offsets.

/// A place in a document, both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// Bytes between two places whose characters before them are known, so that a
/// document of one long line is not counted from its start for each name in it.
const BLOCK: usize = 4096;

/// Where the lines of a text begin.
pub(crate) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
    /// Characters before each block of [`BLOCK`] bytes.
    counts: Vec<usize>,
}

/// Characters that begin in `bytes`.
fn characters(bytes: &[u8]) -> usize {
    // Continuation bytes of UTF-8 begin no character.
    bytes.iter().filter(|byte| (**byte & 0xC0) != 0x80).count()
}

impl<'t> Lines<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let mut before = 0;
        let blocks = text.as_bytes().chunks(BLOCK).map(|block| {
            before += characters(block);
            before
        });
        Self {
            text,
            starts: std::iter::once(0)
                .chain(after_newlines.map(|(at, _)| at + 1))
                .collect(),
            counts: std::iter::once(0).chain(blocks).collect(),
        }
    }

    /// The place of byte offset `at`; an offset past the end is the end.
    pub(crate) fn position(&self, at: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let end = at.min(self.text.len());
        let within = self.before(end).saturating_sub(self.before(start));
        Position {
            line,
            column: within + 1,
        }
    }

    /// Characters before byte offset `at`.
    fn before(&self, at: usize) -> usize {
        let block = at / BLOCK;
        let rest = self.text.as_bytes().get(block * BLOCK..at);
        let known = self.counts.get(block).copied().unwrap_or(0);
        known + rest.map_or(0, characters)
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

    #[test]
    fn columns_of_a_long_line_are_right_beyond_the_first_block() {
        let text = format!("x\n{}", "aé".repeat(5000));
        let lines = Lines::new(&text);
        for (number, (at, _)) in text.char_indices().skip(2).enumerate() {
            let place = lines.position(at);
            assert_eq!((place.line, place.column), (2, number + 1));
        }
        assert_eq!(lines.position(usize::MAX).column, 10_001);
    }
}
