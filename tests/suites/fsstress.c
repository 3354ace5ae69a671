/* Random operations of all kinds by several processes, as fsstress does.
 *
 *   fsstress SEED OPERATIONS PROCESSES own|shared    works in the current directory
 *
 * `own`: each process in a directory of its own; one seed gives one story, and a line
 * for every operation goes to $SCRATCH/story.SEED.PROCESS. `shared`: all in one directory, where
 * nobody knows what the others do; only errors that the kernel never gives are wrong.
 *
 * In the end the tree must be consistent: what is listed is there, is what the entry
 * says, has as many names as it says and as many bytes as it tells. Complaints go to
 * standard output; exit status 1 if there is one.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { BIG = 200000, MOST = 1000000 };
static uint64_t state;
static int shared, complaints;
static FILE *story;
static char buffer[BIG];

static uint32_t pick(uint32_t n)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(state >> 33) % n;
}

static void complain(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    putchar('\n');
    complaints++;
}

static uint32_t sum(const char *bytes, ssize_t n)
{
    uint32_t hash = 2166136261U;
    for (ssize_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)bytes[i]) * 16777619U;
    return hash;
}

/* One to three steps out of six names: files and directories meet. */
static const char *path(void)
{
    static char text[4][32];
    static int turn;
    char *to = text[turn++ % 4];
    int n = 0;
    for (uint32_t left = 1 + pick(3); left; left--) n += sprintf(to + n, "%s%c", n ? "/" : "", 'a' + pick(6));
    if (pick(40) == 0) strcpy(to + n, "/");
    return to;
}

static size_t fill(void)
{
    static const uint32_t most[] = {100, 5000, 20000, BIG};
    size_t n = 1 + pick(most[pick(4)] - 1);
    uint32_t seed = pick(1 << 30);
    for (size_t i = 0; i < n; i++) buffer[i] = (char)((seed + i) * 2654435761U >> 24);
    return n;
}

static off_t place(void)
{
    return pick(pick(4) ? 30000 : MOST);
}

/* What came of a call: a number, or an error that the kernel may give. */
static long long tell(const char *what, const char *on, long long result)
{
    int error = errno;
    if (result < 0 && (error == EIO || error == ESTALE || error == EBADF || error == ENOSYS || error == EDEADLK || error == ETIMEDOUT))
        complain("%s %s: %s", what, on, strerrorname_np(error));
    if (story && result < 0) fprintf(story, "%s %s %s\n", what, on, strerrorname_np(error));
    else if (story) fprintf(story, "%s %s %lld\n", what, on, result);
    return result;
}

static int reach(const char *on, int flags)
{
    int fd = open(on, flags | O_NONBLOCK, 0666);
    struct stat st;
    tell("open", on, fd < 0 ? -1 : 0);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) return fd;
    if (fd >= 0) close(fd); /* a pipe or a directory */
    return -1;
}

static void writes(const char *on)
{
    static const int ways[] = {O_CREAT, O_CREAT | O_TRUNC, O_CREAT | O_APPEND, O_CREAT | O_EXCL, 0};
    int fd = reach(on, O_RDWR | ways[pick(5)]);
    if (fd < 0) return;
    size_t n = fill();
    struct iovec parts[2] = {{buffer, n / 3}, {buffer + n / 3, n - n / 3}};
    switch (pick(3)) {
    case 0: tell("write", on, write(fd, buffer, n)); break;
    case 1: tell("pwrite", on, pwrite(fd, buffer, n, place())); break;
    default: tell("writev", on, writev(fd, parts, 2));
    }
    if (pick(20) == 0) tell("fsync", on, pick(2) ? fsync(fd) : fdatasync(fd));
    tell("close", on, close(fd));
}

static void reads(const char *on)
{
    int fd = reach(on, O_RDONLY);
    if (fd < 0) return;
    ssize_t n = tell("pread", on, pread(fd, buffer, BIG, place()));
    if (story) fprintf(story, "  %u\n", sum(buffer, n));
    close(fd);
}

static void sizes(const char *on)
{
    static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE};
    if (pick(3) == 0) return (void)tell("truncate", on, truncate(on, place()));
    int fd = reach(on, O_RDWR);
    if (fd < 0) return;
    off_t at = place();
    if (pick(2)) tell("ftruncate", on, ftruncate(fd, at));
    else tell("fallocate", on, fallocate(fd, modes[pick(4)], at, 1 + place() / 4));
    close(fd);
}

/* Only by one process: another one may cut the file, which is a SIGBUS. */
static void maps(const char *on)
{
    if (shared) return;
    int fd = reach(on, O_RDWR);
    struct stat st;
    if (fd < 0) return;
    if (fstat(fd, &st) == 0 && st.st_size) {
        char *map = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        tell("mmap", on, map == MAP_FAILED ? -1 : 0);
        if (map != MAP_FAILED) {
            off_t at = place() % st.st_size;
            memset(map + at, (int)pick(256), st.st_size - at < 7000 ? st.st_size - at : 7000);
            if (story) fprintf(story, "  %u\n", sum(map, st.st_size));
            munmap(map, st.st_size);
        }
    }
    close(fd);
}

static void sends(const char *on)
{
    const char *other = path();
    int from = reach(on, O_RDONLY), to = reach(other, O_RDWR | O_CREAT);
    if (from >= 0 && to >= 0) tell("sendfile", other, sendfile(to, from, NULL, pick(50000)));
    if (from >= 0) close(from);
    if (to >= 0) close(to);
}

static void names(const char *on)
{
    const char *other = path();
    if (story) fprintf(story, "%s to ", on);
    switch (pick(7)) {
    case 0: case 1: tell("rename", other, rename(on, other)); break;
    case 2: tell("exchange", other, renameat2(AT_FDCWD, on, AT_FDCWD, other, RENAME_EXCHANGE)); break;
    case 3: tell("noreplace", other, renameat2(AT_FDCWD, on, AT_FDCWD, other, RENAME_NOREPLACE)); break;
    case 4: case 5: tell("link", other, link(on, other)); break;
    default: tell("symlink", other, symlink(on, other));
    }
}

static void makes(const char *on)
{
    if (pick(8) == 0) tell("mkfifo", on, mkfifo(on, 0644));
    else tell("mkdir", on, mkdir(on, pick(2) ? 0755 : 0700));
}

static void removes(const char *on)
{
    if (pick(3)) tell("unlink", on, unlink(on));
    else tell("rmdir", on, rmdir(on));
}

static void attributes(const char *on)
{
    struct timespec times[2] = {{pick(1 << 30), pick(1000000000)}, {pick(1 << 30), pick(1000000000)}};
    char value[64] = "";
    switch (pick(6)) {
    case 0: tell("chmod", on, chmod(on, 0600 | pick(0200))); break;
    case 1: tell("chown", on, lchown(on, -1, -1)); break;
    case 2: tell("utimens", on, utimensat(AT_FDCWD, on, times, pick(2) ? AT_SYMLINK_NOFOLLOW : 0)); break;
    case 3: tell("setxattr", on, setxattr(on, "user.x", buffer, pick(60), (int)pick(3))); break;
    case 4: tell("getxattr", on, getxattr(on, "user.x", value, sizeof value)); break;
    default: tell("removexattr", on, removexattr(on, "user.x"));
    }
}

static void looks(const char *on)
{
    struct stat st;
    char target[64];
    switch (pick(4)) {
    case 0: tell("access", on, access(on, (int)pick(8))); break;
    case 1: tell("readlink", on, readlink(on, target, sizeof target)); break;
    default:
        if (tell("lstat", on, lstat(on, &st)) < 0 || !story) return;
        fprintf(story, "  %o %ld", st.st_mode, (long)st.st_nlink);
        if (!S_ISDIR(st.st_mode)) fprintf(story, " %ld", (long)st.st_size);
        if (S_ISREG(st.st_mode) && st.st_mtim.tv_sec < 1 << 30) fprintf(story, " %ld.%ld", st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
        fprintf(story, "\n");
    }
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void lists(const char *on)
{
    struct dirent **found;
    int n = scandir(on, &found, NULL, by_name);
    tell("list", on, n);
    for (int i = 0; i < n; i++) {
        if (story) fprintf(story, "  %s %d\n", found[i]->d_name, found[i]->d_type);
        free(found[i]);
    }
    if (n >= 0) free(found);
}

/* Goes there and works on what lies beside. */
static void goes(const char *on)
{
    int here = open(".", O_RDONLY | O_DIRECTORY);
    if (tell("chdir", on, chdir(on)) == 0) {
        writes(path());
        names("../a");
        lists(".");
        if (fchdir(here) != 0) complain("fchdir: %m");
    }
    close(here);
}

static void step(void)
{
    const char *on = path();
    switch (pick(20)) {
    case 0: case 1: case 2: case 3: writes(on); break;
    case 4: case 5: reads(on); break;
    case 6: case 7: sizes(on); break;
    case 8: maps(on); break;
    case 9: sends(on); break;
    case 10: case 11: names(on); break;
    case 12: case 13: makes(on); break;
    case 14: removes(on); break;
    case 15: attributes(on); break;
    case 16: goes(on); break;
    case 17: lists(on); break;
    default: looks(on);
    }
}

/* Inodes of more than one name, and how many of them were found. */
static struct { ino_t inode; nlink_t links, found; } many[10000];
static size_t others;

static void count(const char *on, const struct stat *st)
{
    for (size_t i = 0; i < others; i++) {
        if (many[i].inode == st->st_ino) return (void)many[i].found++;
    }
    if (others == sizeof many / sizeof *many) return complain("too many files: %s", on);
    many[others].inode = st->st_ino;
    many[others].links = st->st_nlink;
    many[others++].found = 1;
}

static void check_bytes(const char *on, off_t size)
{
    int fd = open(on, O_RDONLY);
    if (fd < 0) return complain("%s: cannot be opened: %m", on);
    off_t all = 0;
    for (ssize_t n; (n = read(fd, buffer, BIG)) != 0; all += n) {
        if (n < 0) { complain("%s: cannot be read: %m", on); break; }
    }
    if (all != size || lseek(fd, 0, SEEK_END) != size) complain("%s has %ld bytes, not %ld", on, (long)all, (long)size);
    close(fd);
}

static void check(const char *top)
{
    struct dirent **found;
    char on[8192];
    nlink_t folders = 2;
    struct stat st;
    int n = scandir(top, &found, NULL, by_name);
    if (n < 0) return complain("%s: cannot be listed: %m", top);
    for (int i = 0; i < n; i++) {
        const char *name = found[i]->d_name;
        if (!strcmp(name, ".") || !strcmp(name, "..")) continue;
        snprintf(on, sizeof on, "%s/%s", top, name);
        if (lstat(on, &st) != 0) complain("%s is listed, but not there: %m", on);
        else if (found[i]->d_type != IFTODT(st.st_mode)) complain("%s is listed as a %d", on, found[i]->d_type);
        else if (found[i]->d_ino != st.st_ino) complain("%s is listed as another inode", on);
        else if (S_ISDIR(st.st_mode)) { folders++; check(on); }
        else {
            count(on, &st);
            if (S_ISREG(st.st_mode)) check_bytes(on, st.st_size);
        }
        if (story) fprintf(story, "there is %s %o %ld\n", on, st.st_mode, S_ISREG(st.st_mode) ? (long)st.st_size : 0L);
    }
    if (lstat(top, &st) == 0 && st.st_nlink != folders) complain("%s has %ld links, not %ld", top, (long)st.st_nlink, (long)folders);
    for (int i = 0; i < n; i++) free(found[i]);
    free(found);
}

static int work(uint64_t seed, long operations)
{
    state = seed * 2 + 1;
    while (operations--) step();
    if (!shared) check(".");
    fflush(NULL);
    return complaints != 0;
}

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    long processes = atol(argv[3]);
    shared = strcmp(argv[4], "shared") == 0;
    umask(022);
    for (long i = 0; i < processes; i++) {
        if (fork() != 0) continue;
        char name[32], trace[64];
        snprintf(name, sizeof name, shared ? "." : "p%ld", i);
        snprintf(trace, sizeof trace, "%s/story.%s.%ld", getenv("SCRATCH"), argv[1], i);
        if (!shared && (mkdir(name, 0755) != 0 || !(story = fopen(trace, "w")))) return 1;
        if (chdir(name) != 0) return 1;
        _exit(work(strtoull(argv[1], NULL, 10) * 1000 + i, atol(argv[2])));
    }
    for (int status; processes--;) {
        if (wait(&status) < 0 || status != 0) complain("a process ended with status %x", status);
    }
    check(".");
    for (size_t i = 0; i < others; i++) {
        if (many[i].links != many[i].found) complain("an inode has %ld names, not %ld", (long)many[i].found, (long)many[i].links);
    }
    return complaints != 0;
}
