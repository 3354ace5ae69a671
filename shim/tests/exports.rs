//! A file function of libc that the library does not export goes to the kernel
//! behind its back: the program then sees another file. So every name that
//! libc has for one is either exported or listed here with its reason.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Operations on files, by their plain names: no `__`, `64`, `_chk`, `_2`.
const OPERATIONS: &str = "
    open openat creat close close_range closefrom dup dup2 dup3 fcntl ioctl flock lockf
    read write pread pwrite readv writev preadv pwritev preadv2 pwritev2 lseek
    sendfile copy_file_range splice tee vmsplice mmap msync
    fsync fdatasync sync syncfs sync_file_range readahead posix_fadvise
    ftruncate truncate fallocate posix_fallocate
    stat lstat fstat fstatat xstat lxstat fxstat fxstatat statx
    statfs fstatfs statvfs fstatvfs ustat pathconf fpathconf ftok
    access eaccess euidaccess faccessat
    mkdir mkdirat mkfifo mkfifoat mknod mknodat xmknod xmknodat
    rmdir unlink unlinkat remove rename renameat renameat2 link linkat symlink symlinkat
    readlink readlinkat realpath canonicalize_file_name
    chmod fchmod lchmod fchmodat chown fchown lchown fchownat umask
    utime utimes lutimes futimes futimesat futimens utimensat
    getxattr lgetxattr fgetxattr setxattr lsetxattr fsetxattr
    listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr
    chdir fchdir chroot getcwd getwd get_current_dir_name
    opendir fdopendir readdir readdir_r closedir rewinddir seekdir telldir dirfd
    getdents getdirentries scandir scandirat ftw nftw glob
    fts_open fts_read fts_children fts_set fts_close
    mkstemp mkostemp mkstemps mkostemps mkdtemp mktemp tempnam tmpnam tmpnam_r tmpfile
    fopen fdopen freopen fclose fcloseall dprintf vdprintf perror
    file_read file_write file_seek file_close file_stat
    aio_read aio_write aio_fsync lio_listio
    execve execv execvp execvpe execl execlp execle execveat fexecve
    posix_spawn posix_spawnp popen pclose system daemon
    syscall inotify_add_watch fanotify_mark bind connect
    name_to_handle_at open_by_handle_at setmntent dlopen dlmopen
    acct swapon swapoff mount umount umount2 pivot_root quotactl
    shm_open shm_unlink sem_open sem_unlink mq_open mq_unlink mq_close
    login_tty psiginfo herror backtrace_symbols_fd wordexp catopen
";

/// Names that are not exported, and why.
const LEFT_TO_LIBC: &[(&str, &str)] = &[
    ("tee", "takes pipes only"),
    ("vmsplice", "takes pipes only"),
    ("msync", "mappings are the kernel's own"),
    ("sync", "of the whole machine"),
    ("fpathconf", "descriptors are the kernel's own"),
    ("tmpfile", "in /tmp, without a name"),
    ("tmpfile64", "in /tmp, without a name"),
    ("fclose", "by the slots of the stream's table"),
    ("_IO_fclose", "by the slots of the stream's table"),
    ("fcloseall", "by the slots of the stream's table"),
    ("_IO_file_read", "the slot's old content"),
    ("_IO_file_write", "the slot's old content"),
    ("_IO_file_seek", "the slot's old content"),
    ("_IO_file_close", "the slot's old content"),
    ("_IO_file_stat", "the slot's old content"),
    ("_IO_popen", "pipes only"),
    ("fanotify_mark", "of whole file systems, privileged"),
    (
        "name_to_handle_at",
        "refused by tmpfs or names the file below",
    ),
    ("open_by_handle_at", "privileged"),
    ("setmntent", "reads tables of the system"),
    ("__setmntent", "reads tables of the system"),
    ("acct", "privileged"),
    ("swapon", "privileged"),
    ("swapoff", "privileged"),
    ("mount", "privileged"),
    ("umount", "privileged"),
    ("umount2", "privileged"),
    ("pivot_root", "privileged"),
    ("quotactl", "of whole file systems, privileged"),
    ("shm_open", "in /dev/shm"),
    ("shm_unlink", "in /dev/shm"),
    ("sem_open", "in /dev/shm"),
    ("sem_unlink", "in /dev/shm"),
    ("mq_open", "not a file"),
    ("__mq_open_2", "not a file"),
    ("mq_unlink", "not a file"),
    ("mq_close", "not a file"),
    ("login_tty", "takes a terminal"),
    ("psiginfo", "one line to stderr; fails if that is ours"),
    ("herror", "one line to stderr; fails if that is ours"),
    (
        "backtrace_symbols_fd",
        "of a dying program; fails if the file is ours",
    ),
    (
        "__backtrace_symbols_fd",
        "of a dying program; fails if the file is ours",
    ),
    (
        "wordexp",
        "names in the taken-over directory are not expanded",
    ),
    ("catopen", "reads tables of the system"),
];

/// Names of other libraries that are exported, to see what the kernel is asked
/// to do by itself.
const OF_OTHERS: &[&str] = &[
    "io_submit",
    "io_uring_setup",
    "io_uring_queue_init",
    "io_uring_queue_init_mem",
    "io_uring_queue_init_params",
];

/// The name of the operation that `symbol` is a form of.
fn plain(symbol: &str) -> String {
    let name = symbol.trim_start_matches('_');
    let name = name.strip_prefix("IO_").unwrap_or(name);
    let name = name.strip_suffix("_chk").unwrap_or(name);
    let name = match name.strip_suffix("_2") {
        Some(name) if !name.is_empty() => name,
        _ => name,
    };
    name.replace("64", "")
}

/// The dynamic symbols that a library defines, with their versions.
fn defined(library: &PathBuf) -> Vec<String> {
    let listed = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(library)
        .output()
        .expect("nm starts");
    assert!(listed.status.success(), "nm {}", library.display());
    String::from_utf8(listed.stdout)
        .expect("symbols are text")
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .map(str::to_owned)
        .collect()
}

/// The libc that this test runs with.
fn libc() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").expect("a process sees its mappings");
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.contains("/libc.so") || path.contains("/libc-2"))
        .map(PathBuf::from)
        .expect("the test is linked to libc")
}

/// Symbols of libc that a program can be linked to today, and for which a
/// program is not part of libc itself.
fn linkable() -> Vec<String> {
    defined(&libc())
        .into_iter()
        .filter_map(|symbol| {
            let (name, version) = symbol.split_once("@@")?;
            (version != "GLIBC_PRIVATE").then(|| name.to_owned())
        })
        .collect()
}

/// The library, built as it is now.
fn library() -> PathBuf {
    let test = env::current_exe().expect("a test knows its executable");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("it lies in target/<profile>/deps");
    let target = profile.parent().expect("a profile lies in target");
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "shim", "--profile", name])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo starts");
    assert!(built.success(), "the library does not build");
    profile.join("libcapio_posix.so")
}

fn exported() -> Vec<String> {
    defined(&library())
}

#[test]
fn every_name_of_a_file_function_leads_to_the_call_table() {
    let (ours, libcs) = (exported(), linkable());
    let missed: Vec<_> = libcs
        .iter()
        .filter(|symbol| OPERATIONS.split_whitespace().any(|op| op == plain(symbol)))
        .filter(|symbol| !ours.contains(symbol))
        .filter(|symbol| LEFT_TO_LIBC.iter().all(|(name, _)| name != symbol))
        .collect();
    assert!(
        missed.is_empty(),
        "calls that programs would make past us: {missed:?}"
    );
}

#[test]
fn no_operation_is_misspelt_or_forgotten() {
    let libcs = linkable();
    let mut forms: BTreeMap<&str, usize> =
        OPERATIONS.split_whitespace().map(|op| (op, 0)).collect();
    for symbol in &libcs {
        if let Some(count) = forms.get_mut(plain(symbol).as_str()) {
            *count += 1;
        }
    }
    // Old names that today's libc keeps only for programs linked long ago.
    let unknown: Vec<_> = forms
        .iter()
        .filter(|(op, count)| **count == 0 && **op != "ustat")
        .collect();
    assert!(
        unknown.is_empty(),
        "libc has no such functions: {unknown:?}"
    );
}

#[test]
fn exceptions_are_still_needed() {
    let (ours, libcs) = (exported(), linkable());
    let stale: Vec<_> = LEFT_TO_LIBC
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .filter(|name| ours.contains(name) || !libcs.contains(name))
        .collect();
    assert!(
        stale.is_empty(),
        "exported after all, or not in libc: {stale:?}"
    );
}

#[test]
fn programs_find_no_symbol_of_ours_that_libc_does_not_have() {
    let libcs: Vec<_> = defined(&libc())
        .iter()
        .map(|symbol| symbol.split('@').next().unwrap_or_default().to_owned())
        .collect();
    let own: Vec<_> = exported()
        .into_iter()
        .filter(|symbol| !libcs.contains(symbol) && !OF_OTHERS.contains(&symbol.as_str()))
        .collect();
    assert!(
        own.is_empty(),
        "would shadow a program's own symbols: {own:?}"
    );
}
