//! What the auditor knows of system calls.

/// Calls that move or change a file's bytes by a descriptor, with the argument
/// (or two) that is one. On a descriptor of the session they are never right:
/// the bytes are not in the kernel's file.
pub(super) const DATA: &[(&str, &[usize])] = &[
    ("read", &[0]),
    ("readv", &[0]),
    ("pread64", &[0]),
    ("preadv", &[0]),
    ("preadv2", &[0]),
    ("write", &[0]),
    ("writev", &[0]),
    ("pwrite64", &[0]),
    ("pwritev", &[0]),
    ("pwritev2", &[0]),
    ("ftruncate", &[0]),
    ("fallocate", &[0]),
    ("mmap", &[4]),
    ("sendfile", &[0, 1]),
    ("copy_file_range", &[0, 2]),
    ("splice", &[0, 2]),
    ("tee", &[0, 1]),
    ("readahead", &[0]),
];

/// Calls that tell or set what is known of an open file. The library itself
/// asks the kernel, to learn what a descriptor is.
pub(super) const ABOUT: &[(&str, &[usize])] = &[
    ("lseek", &[0]),
    ("fstat", &[0]),
    ("fstatfs", &[0]),
    ("fchmod", &[0]),
    ("fchown", &[0]),
    ("fsync", &[0]),
    ("fdatasync", &[0]),
    ("sync_file_range", &[0]),
    ("getdents64", &[0]),
    ("fsetxattr", &[0]),
    ("fgetxattr", &[0]),
    ("flistxattr", &[0]),
    ("fremovexattr", &[0]),
];

/// A path argument of a call: where its directory descriptor is, if the call
/// takes one, and where the path.
pub(super) type PathArgument = (Option<usize>, usize);

/// Calls with paths, and whether they change the directory tree.
pub(super) const PATHS: &[(&str, &[PathArgument], bool)] = &[
    ("open", &[(None, 0)], false),
    ("openat", &[(Some(0), 1)], false),
    ("openat2", &[(Some(0), 1)], false),
    ("creat", &[(None, 0)], true),
    ("stat", &[(None, 0)], false),
    ("lstat", &[(None, 0)], false),
    ("newfstatat", &[(Some(0), 1)], false),
    ("statx", &[(Some(0), 1)], false),
    ("statfs", &[(None, 0)], false),
    ("access", &[(None, 0)], false),
    ("faccessat", &[(Some(0), 1)], false),
    ("faccessat2", &[(Some(0), 1)], false),
    ("readlink", &[(None, 0)], false),
    ("readlinkat", &[(Some(0), 1)], false),
    ("chdir", &[(None, 0)], false),
    ("mkdir", &[(None, 0)], true),
    ("mkdirat", &[(Some(0), 1)], true),
    ("rmdir", &[(None, 0)], true),
    ("unlink", &[(None, 0)], true),
    ("unlinkat", &[(Some(0), 1)], true),
    ("rename", &[(None, 0), (None, 1)], true),
    ("renameat", &[(Some(0), 1), (Some(2), 3)], true),
    ("renameat2", &[(Some(0), 1), (Some(2), 3)], true),
    ("link", &[(None, 0), (None, 1)], true),
    ("linkat", &[(Some(0), 1), (Some(2), 3)], true),
    ("symlink", &[(None, 1)], true),
    ("symlinkat", &[(Some(1), 2)], true),
    ("mknod", &[(None, 0)], true),
    ("mknodat", &[(Some(0), 1)], true),
    ("chmod", &[(None, 0)], true),
    ("fchmodat", &[(Some(0), 1)], true),
    ("fchmodat2", &[(Some(0), 1)], true),
    ("chown", &[(None, 0)], true),
    ("lchown", &[(None, 0)], true),
    ("fchownat", &[(Some(0), 1)], true),
    ("truncate", &[(None, 0)], true),
    ("utime", &[(None, 0)], true),
    ("utimes", &[(None, 0)], true),
    ("futimesat", &[(Some(0), 1)], true),
    ("utimensat", &[(Some(0), 1)], true),
    ("setxattr", &[(None, 0)], true),
    ("lsetxattr", &[(None, 0)], true),
    ("removexattr", &[(None, 0)], true),
    ("lremovexattr", &[(None, 0)], true),
    ("getxattr", &[(None, 0)], false),
    ("lgetxattr", &[(None, 0)], false),
    ("listxattr", &[(None, 0)], false),
    ("llistxattr", &[(None, 0)], false),
    ("inotify_add_watch", &[(None, 1)], false),
];

/// Calls that make a process or thread and return its number.
pub(super) const FORKS: &[&str] = &["fork", "vfork", "clone", "clone3"];

/// Calls by which the library reaches the bytes of files that are mapped.
pub(super) const MAPPED: &[&str] = &["mmap", "pread64", "pwrite64"];

/// What strace is told to trace.
pub(super) fn traced() -> String {
    let data = DATA.iter().chain(ABOUT).map(|(name, _)| *name);
    let paths = PATHS.iter().map(|(name, _, _)| *name);
    let others = FORKS
        .iter()
        .copied()
        .chain(["execve", "execveat", "fchdir"]);
    // `?`: not every architecture and kernel has all of them.
    let names: Vec<_> = data
        .chain(paths)
        .chain(others)
        .map(|name| format!("?{name}"))
        .collect();
    names.join(",")
}
