//! Sizes on the command line, and the default size of the cache.

use std::fs;

use bytesize::ByteSize;
use nix::unistd::{SysconfVar, sysconf};

/// The smallest cache that serves: a few blocks for every producer.
const SMALLEST: u64 = 16 << 20;

/// Parses `256MiB`, `4G` (10^9) or a plain number of bytes.
///
/// # Errors
/// A sentence with an example.
pub fn parse(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse().map_err(|_| {
        format!("`{text}` is no size; write it like 512MiB, 4GiB or 4G (1 GiB = 2^30, 1 G = 10^9)")
    })?;
    Ok(size.as_u64())
}

/// [`parse`] of the size of a cache.
///
/// # Errors
/// As there, or that it is too small.
pub fn parse_cache(text: &str) -> Result<u64, String> {
    let size = parse(text)?;
    if size < SMALLEST {
        return Err(format!(
            "{text} is too small for a cache; give at least {}",
            ByteSize(SMALLEST)
        ));
    }
    Ok(size)
}

/// A quarter of the memory that this process may use.
#[must_use]
pub fn default_cache() -> u64 {
    let limits = cgroup_limits().into_iter().chain(physical_memory());
    (limits.min().unwrap_or(4 << 30) / 4).max(SMALLEST)
}

fn physical_memory() -> Option<u64> {
    let pages = sysconf(SysconfVar::_PHYS_PAGES).ok()??;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    u64::try_from(pages)
        .ok()?
        .checked_mul(u64::try_from(page).ok()?)
}

/// Limits of the control group and those above it: where a container or a
/// batch system says how much memory there is.
fn cgroup_limits() -> Vec<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or("");
    let root = std::path::Path::new("/sys/fs/cgroup");
    let group = root.join(group);
    let levels = group
        .ancestors()
        .take_while(|level| level.starts_with(root));
    levels
        .filter_map(|level| {
            fs::read_to_string(level.join("memory.max"))
                .ok()?
                .trim()
                .parse()
                .ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_mean_what_they_say() {
        assert_eq!(parse_cache("256MiB"), Ok(256 << 20));
        assert_eq!(parse_cache("4GiB"), Ok(4 << 30));
        assert_eq!(parse_cache("1G"), Ok(1_000_000_000));
        assert_eq!(parse_cache("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse_cache("33554432"), Ok(32 << 20));
        for wrong in ["", "much", "-1G", "4 GoB", "1K", "0"] {
            assert!(parse_cache(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_default_cache_leaves_memory_for_the_programs() {
        assert!(default_cache() >= SMALLEST);
        assert!(default_cache() <= physical_memory().unwrap() / 4);
    }
}
