//! Paths that lead out of `CAPIO_DIR` and back into it: by `..` and the name of
//! the directory, or by symbolic links on disk. What they name is the session's.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::names::{MAX_LINKS, inside, join, split};

/// Follows the absolute `path` as the kernel does (a symbolic link at its end
/// only if told so), until it gets to `dir`, which is canonical: what is left of
/// it then. `None`: it never does. Links on the way are counted in `links`.
pub(super) fn back(dir: &Path, path: &[u8], follow: bool, links: &mut u32) -> Option<Vec<u8>> {
    if let Some(inner) = inside(dir.as_os_str().as_bytes(), path) {
        return Some(inner.to_vec());
    }
    let mut at = PathBuf::from("/");
    let mut rest = path.to_vec();
    while at != dir {
        let (component, tail) = split(&rest);
        match component {
            b"" => return None,
            b"." => {}
            b".." if at.is_dir() => drop(at.pop()),
            b".." => return None,
            name => {
                let next = at.join(OsStr::from_bytes(name));
                let is_last = tail.is_empty();
                match fs::read_link(&next) {
                    Ok(_) if is_last && !follow => return None,
                    Ok(content) => {
                        *links += 1;
                        if *links > MAX_LINKS {
                            return None;
                        }
                        if content.is_absolute() {
                            at = PathBuf::from("/");
                        }
                        rest = join(&content.into_os_string().into_vec(), tail);
                        continue;
                    }
                    // It is there, and no link.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => at = next,
                    Err(_) => return None,
                }
            }
        }
        rest = tail.to_vec();
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn led(dir: &Path, path: &Path, follow: bool) -> Option<String> {
        let path = path.as_os_str().as_bytes();
        let inner = back(dir, path, follow, &mut 0)?;
        let names = inner.split(|&byte| byte == b'/');
        let names = names.filter(|name| !name.is_empty());
        let names: Vec<_> = names.map(String::from_utf8_lossy).collect();
        Some(names.join("/"))
    }

    #[test]
    fn whatever_way_leads_into_the_directory_is_found() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        let dir = base.join("data");
        for made in ["data", "beside/deep"] {
            fs::create_dir_all(base.join(made)).unwrap();
        }
        symlink(&dir, base.join("beside/abs")).unwrap();
        symlink("../../data/x", base.join("beside/deep/rel")).unwrap();
        symlink("deep", base.join("beside/way")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        fs::write(base.join("file"), "").unwrap();
        let cases = [
            ("data/a/b", true, Some("a/b")),
            ("data/../data/a", true, Some("../data/a")),
            ("beside/../data/a", true, Some("a")),
            ("beside/abs/a", true, Some("a")),
            ("beside/abs", true, Some("")),
            ("beside/abs", false, None),
            ("beside/abs/", false, Some("")),
            ("beside/way/rel/y", true, Some("x/y")),
            ("beside/way/../abs/a", true, Some("a")),
            ("./beside/.//abs/./a", true, Some("./a")),
            ("beside/deep", true, None),
            ("missing/../data/a", true, None),
            ("file/../data/a", true, None),
            ("loop/a", true, None),
            ("dat", true, None),
            ("database", true, None),
        ];
        for (path, follow, wanted) in cases {
            let found = led(&dir, &base.join(path), follow);
            assert_eq!(found.as_deref(), wanted, "{path}");
        }
        assert_eq!(led(&dir, Path::new("/"), true), None);
    }
}
