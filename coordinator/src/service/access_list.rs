//! Access control lists as `system.posix_acl_access` and
//! `system.posix_acl_default` hold them.
//!
//! ```text
//! version: 2 (u32)                            all little endian
//! entries: tag (u16)  permissions (u16)  id (u32; all ones where it says nothing)
//! ```

const VERSION: u32 = 2;
const ENTRY: usize = 8;

/// Tags, in the order that entries must have.
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OWNER: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// One line of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A list that is whole and in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AccessList(Vec<Entry>);

impl AccessList {
    /// Reads the value of an attribute; `None`: it stands for no list.
    ///
    /// # Errors
    /// `EINVAL`, or `EOPNOTSUPP` for another version.
    pub(super) fn parse(value: &[u8]) -> Result<Option<Self>, i32> {
        if value.is_empty() {
            return Ok(None);
        }
        let (version, entries) = value.split_first_chunk().ok_or(libc::EINVAL)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(libc::EOPNOTSUPP);
        }
        let (entries, rest) = entries.as_chunks::<ENTRY>();
        if !rest.is_empty() {
            return Err(libc::EINVAL);
        }
        let list = Self(entries.iter().map(Entry::of).collect());
        if list.0.is_empty() {
            return Ok(None);
        }
        list.is_whole().then_some(Some(list)).ok_or(libc::EINVAL)
    }

    /// As the value of an attribute.
    #[must_use]
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let entries = self.0.iter().flat_map(|entry| entry.to_bytes());
        VERSION.to_le_bytes().into_iter().chain(entries).collect()
    }

    /// One each of owner, owning group and others, in order, and a mask where
    /// somebody is named.
    fn is_whole(&self) -> bool {
        let tags: Vec<_> = self.0.iter().map(|entry| entry.tag).collect();
        let count = |tag| tags.iter().filter(|&&one| one == tag).count();
        let known = [OWNER, USER, GROUP_OWNER, GROUP, MASK, OTHER];
        let names = count(USER) + count(GROUP) > 0;
        tags.is_sorted()
            && tags.iter().all(|tag| known.contains(tag))
            && self.0.iter().all(|entry| entry.permissions & !7 == 0)
            && [OWNER, GROUP_OWNER, OTHER].map(count) == [1; 3]
            && (count(MASK) == 1 || (count(MASK) == 0 && !names))
    }

    /// Permission bits of a file with this list.
    #[must_use]
    pub(super) fn mode(&self) -> u32 {
        let bits = |tag| {
            let found = self.0.iter().find(|entry| entry.tag == tag);
            found.map(|entry| u32::from(entry.permissions))
        };
        let group = bits(MASK).or(bits(GROUP_OWNER)).unwrap_or(0);
        bits(OWNER).unwrap_or(0) << 6 | group << 3 | bits(OTHER).unwrap_or(0)
    }

    /// Whether it says no more than permission bits do.
    #[must_use]
    pub(super) fn is_trivial(&self) -> bool {
        self.0.len() == 3
    }

    /// Brings it in line with permission bits that were set.
    pub(super) fn set_mode(&mut self, mode: u32) {
        let masked = self.0.iter().any(|entry| entry.tag == MASK);
        for entry in &mut self.0 {
            let shift = match entry.tag {
                OWNER => 6,
                MASK => 3,
                GROUP_OWNER if !masked => 3,
                OTHER => 0,
                _ => continue,
            };
            entry.permissions = (mode >> shift & 7) as u16;
        }
    }
}

impl Entry {
    fn of(bytes: &[u8; ENTRY]) -> Self {
        let [a, b, c, d, id @ ..] = *bytes;
        let tag = u16::from_le_bytes([a, b]);
        let named = tag == USER || tag == GROUP;
        Self {
            tag,
            permissions: u16::from_le_bytes([c, d]),
            id: if named {
                u32::from_le_bytes(id)
            } else {
                u32::MAX
            },
        }
    }

    fn to_bytes(self) -> [u8; ENTRY] {
        let ([a, b], [c, d]) = (self.tag.to_le_bytes(), self.permissions.to_le_bytes());
        let [e, f, g, h] = self.id.to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entries = entries.iter().map(|&(tag, permissions, id)| Entry {
            tag,
            permissions,
            id,
        });
        AccessList(entries.collect()).to_bytes()
    }

    fn named() -> Vec<u8> {
        let all = u32::MAX;
        value(&[
            (OWNER, 7, all),
            (USER, 6, 1000),
            (GROUP_OWNER, 5, all),
            (MASK, 6, all),
            (OTHER, 0, all),
        ])
    }

    #[test]
    fn a_list_with_names_sets_the_group_bits_by_its_mask_and_follows_chmod() {
        let mut list = AccessList::parse(&named()).unwrap().unwrap();
        assert_eq!(list.mode(), 0o760);
        assert!(!list.is_trivial());
        assert_eq!(list.to_bytes(), named());
        list.set_mode(0o100_641);
        assert_eq!(list.mode(), 0o641);
        let group = list.0.iter().find(|entry| entry.tag == GROUP_OWNER);
        assert_eq!(group.map(|entry| entry.permissions), Some(5));
    }

    #[test]
    fn a_list_without_names_is_the_permission_bits() {
        let plain = [(OWNER, 6, 7), (GROUP_OWNER, 4, 7), (OTHER, 1, 7)];
        let list = AccessList::parse(&value(&plain)).unwrap().unwrap();
        assert!(list.is_trivial());
        assert_eq!(list.mode(), 0o641);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert_eq!(AccessList::parse(b""), Ok(None));
        assert_eq!(AccessList::parse(&[2, 0, 0, 0]), Ok(None));
        assert_eq!(AccessList::parse(b"xx"), Err(libc::EINVAL));
        assert_eq!(AccessList::parse(b"xxxxxxxxxxxx"), Err(libc::EOPNOTSUPP));
        let short = &named()[..named().len() - 1];
        assert_eq!(AccessList::parse(short), Err(libc::EINVAL));
        let (owner, group, other) = ((OWNER, 7, 0), (GROUP_OWNER, 7, 0), (OTHER, 7, 0));
        for wrong in [
            &[owner][..],
            &[group, owner, other],
            &[owner, (USER, 7, 1), group, other],
            &[owner, group, other, other],
            &[owner, group, (OTHER, 8, 0)],
            &[owner, group, other, (0x40, 7, 0)],
        ] {
            let parsed = AccessList::parse(&value(wrong));
            assert_eq!(parsed, Err(libc::EINVAL), "{wrong:?}");
        }
    }
}
