//! Extended attributes of something in the session, once a program has changed
//! one: until then they are those on disk.

use std::collections::{BTreeMap, BTreeSet};

use crate::session::FileName;

pub(super) const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT_LIST: &[u8] = b"system.posix_acl_default";

/// Whose an attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Everybody's who may read and write the file.
    User,
    /// The administrator's.
    Trusted,
    /// Of the kernel's security modules: means something on disk only.
    Security,
    /// Who may do what with a file.
    AccessList,
    /// What new files in a directory get for that.
    DefaultList,
}

impl Family {
    /// That of the attribute called `name`.
    ///
    /// # Errors
    /// `ERANGE` for what can be no name, `ENOTSUP` for an unknown namespace.
    pub(super) fn of(name: &[u8]) -> Result<Self, i32> {
        let length = 1..=wire::limits::MAX_XATTR_NAME;
        if !length.contains(&name.len()) || name.contains(&0) {
            return Err(libc::ERANGE);
        }
        match name {
            ACCESS_LIST => Ok(Self::AccessList),
            DEFAULT_LIST => Ok(Self::DefaultList),
            _ if name.starts_with(b"user.") => Ok(Self::User),
            _ if name.starts_with(b"trusted.") => Ok(Self::Trusted),
            _ if name.starts_with(b"security.") => Ok(Self::Security),
            _ => Err(libc::ENOTSUP),
        }
    }
}

/// All that something has, and what programs have changed of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extended {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Names whose attributes were set or removed.
    changed: BTreeSet<Vec<u8>>,
}

impl Extended {
    /// Those that were found on disk.
    #[must_use]
    pub(super) fn found(pairs: Vec<(FileName, Vec<u8>)>) -> Self {
        Self {
            values: pairs
                .into_iter()
                .map(|(name, value)| (name.0, value))
                .collect(),
            changed: BTreeSet::new(),
        }
    }

    /// The value of one.
    #[must_use]
    pub(super) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.values.get(name).map(Vec::as_slice)
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.values.keys().map(Vec::as_slice)
    }

    /// Sets one.
    pub(super) fn set(&mut self, name: &[u8], value: &[u8]) {
        self.values.insert(name.to_vec(), value.to_vec());
        self.changed.insert(name.to_vec());
    }

    /// Takes one away; whether there was one.
    pub(super) fn remove(&mut self, name: &[u8]) -> bool {
        let had = self.values.remove(name).is_some();
        if had {
            self.changed.insert(name.to_vec());
        }
        had
    }

    /// Bytes of names and values.
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        let sizes = self.values.iter();
        sizes.map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Bytes that they take in a file system which has one block for those of a
    /// file, as ext4 has: a head of 16 bytes each, and all in words.
    #[must_use]
    pub(super) fn bytes_in_block(&self) -> usize {
        let word = |length: usize| length.next_multiple_of(4);
        let sizes = self.values.iter();
        sizes
            .map(|(name, value)| 16 + word(name.len()) + word(value.len()))
            .sum()
    }

    /// All of them.
    #[must_use]
    pub(super) fn all(&self) -> Vec<(FileName, Vec<u8>)> {
        self.pairs(|_| true)
    }

    /// Those that were set.
    #[must_use]
    pub(super) fn set_ones(&self) -> Vec<(FileName, Vec<u8>)> {
        self.pairs(|name| self.changed.contains(name))
    }

    fn pairs(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<(FileName, Vec<u8>)> {
        let pairs = self.values.iter().filter(|(name, _)| wanted(name));
        pairs
            .map(|(name, value)| (FileName(name.clone()), value.clone()))
            .collect()
    }

    /// Names of those that were taken away.
    #[must_use]
    pub(super) fn removed(&self) -> Vec<FileName> {
        let gone = self
            .changed
            .iter()
            .filter(|name| !self.values.contains_key(*name));
        gone.cloned().map(FileName).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_changed_is_told() {
        let mut extended = Extended::found(vec![
            (FileName(b"user.kept".to_vec()), b"1".to_vec()),
            (FileName(b"user.gone".to_vec()), b"2".to_vec()),
        ]);
        extended.set(b"user.new", b"3");
        assert!(extended.remove(b"user.gone"));
        assert!(!extended.remove(b"user.never"));
        let new = (FileName(b"user.new".to_vec()), b"3".to_vec());
        assert_eq!(extended.set_ones(), [new]);
        assert_eq!(extended.removed(), [FileName(b"user.gone".to_vec())]);
        let names: Vec<_> = extended.names().collect();
        assert_eq!(names, [&b"user.kept"[..], b"user.new"]);
        assert_eq!(extended.bytes(), 9 + 1 + 8 + 1);
    }

    #[test]
    fn names_say_whose_an_attribute_is() {
        assert_eq!(Family::of(b"user.a"), Ok(Family::User));
        assert_eq!(Family::of(ACCESS_LIST), Ok(Family::AccessList));
        assert_eq!(Family::of(b"system.foo"), Err(libc::ENOTSUP));
        assert_eq!(Family::of(b"foo.bar"), Err(libc::ENOTSUP));
        assert_eq!(Family::of(b""), Err(libc::ERANGE));
        let long = [b"user.", &[b'x'; 251][..]].concat();
        assert_eq!(Family::of(&long), Err(libc::ERANGE));
        assert_eq!(Family::of(&long[..255]), Ok(Family::User));
    }
}
