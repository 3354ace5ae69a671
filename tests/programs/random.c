/* A random story of file calls, told in full: the same seed must give the same
 * text on any file system.
 *
 *   random SEED STEPS    works in the current directory
 *
 * Eight names, two directories, twelve descriptors; reads, writes, seeks, sizes,
 * names, duplicates, and now and then a child that goes on with the same
 * descriptors. What differs by nature (inode numbers, times, order of entries) is
 * not told.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FDS = 12, BIG = 300000 };
static uint64_t state;
static int fds[FDS];
static char buffer[BIG];

static uint32_t pick(uint32_t n)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(state >> 33) % n;
}

static const char *name(void)
{
    static const char *names[] = {"a", "b", "c", "d1/a", "d1/b", "d2/a", "./d1/../c", "d2/../d1/a",
                                  "d1", "d2", "link", "missing/x", "a/x"};
    return names[pick(sizeof names / sizeof *names)];
}

static size_t length(void)
{
    static const uint32_t most[] = {10, 100, 5000, 70000, BIG};
    return pick(most[pick(5)]);
}

static off_t place(void)
{
    static const uint32_t most[] = {10, 5000, 70000, 1000000};
    return pick(most[pick(4)]);
}

static uint32_t sum(const char *bytes, ssize_t n)
{
    uint32_t hash = 2166136261U;
    for (ssize_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)bytes[i]) * 16777619U;
    return hash;
}

static void fill(size_t n)
{
    uint32_t seed = pick(1 << 30);
    for (size_t i = 0; i < n; i++) buffer[i] = (char)((seed + i) * 2654435761U >> 24);
}

/* One line: what was done and what came of it. */
static void tell(const char *what, const char *on, long long result)
{
    int error = errno;
    if (result < 0) printf("%s %s %s\n", what, on, strerrorname_np(error));
    else printf("%s %s %lld\n", what, on, result);
}

static const char *number(int slot)
{
    static char text[16];
    snprintf(text, sizeof text, "#%d", slot);
    return text;
}

static void opens(int slot)
{
    static const int flags[] = {O_RDONLY, O_RDWR, O_WRONLY, O_RDWR | O_CREAT, O_RDWR | O_CREAT, O_RDWR | O_CREAT | O_TRUNC,
                                O_WRONLY | O_CREAT | O_APPEND, O_RDWR | O_APPEND, O_RDWR | O_CREAT | O_EXCL,
                                O_WRONLY | O_TRUNC, O_RDONLY | O_DIRECTORY, O_RDONLY | O_NOFOLLOW};
    const char *path = name();
    int how = flags[pick(sizeof flags / sizeof *flags)];
    if (fds[slot] >= 0) tell("close", number(slot), close(fds[slot]));
    fds[slot] = open(path, how, pick(2) ? 0644 : 0600);
    printf("%d ", how);
    tell("open", path, fds[slot] < 0 ? -1 : 0);
}

static void moves_bytes(int slot)
{
    int fd = fds[slot];
    size_t n = length();
    off_t at = place();
    struct iovec parts[3] = {{buffer, n / 3}, {buffer + n / 3, 0}, {buffer + n / 3, n - n / 3}};
    ssize_t done;
    switch (pick(9)) {
    case 0: fill(n); tell("write", number(slot), write(fd, buffer, n)); break;
    case 1: fill(n); tell("pwrite", number(slot), pwrite(fd, buffer, n, at)); break;
    case 2: fill(n); tell("writev", number(slot), writev(fd, parts, 3)); break;
    case 3: case 4:
        done = read(fd, buffer, n);
        tell("read", number(slot), done);
        if (done > 0) printf("  %u\n", sum(buffer, done));
        break;
    case 5: case 6:
        done = pread(fd, buffer, n, at);
        tell("pread", number(slot), done);
        if (done > 0) printf("  %u\n", sum(buffer, done));
        break;
    case 7:
        done = readv(fd, parts, 3);
        tell("readv", number(slot), done);
        if (done > 0) printf("  %u\n", sum(buffer, done));
        break;
    default: tell("ftruncate", number(slot), ftruncate(fd, at)); break;
    }
}

static void seeks(int slot)
{
    int whence = (int)pick(3); /* the answers of SEEK_DATA and SEEK_HOLE may be coarse */
    off_t by = pick(3) == 0 ? -place() : place();
    struct stat st;
    printf("%d ", whence);
    if (fstat(fds[slot], &st) == 0 && S_ISDIR(st.st_mode)) return (void)printf("directory\n");
    tell("seek", number(slot), lseek(fds[slot], by, whence));
}

static void looks(const char *path)
{
    struct stat st;
    int r = pick(2) ? stat(path, &st) : lstat(path, &st);
    tell("stat", path, r);
    if (r != 0) return;
    printf("  %o links %ld", st.st_mode, S_ISDIR(st.st_mode) ? 0L : (long)st.st_nlink);
    if (S_ISREG(st.st_mode)) printf(" size %ld", (long)st.st_size);
    printf("\n");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void lists(const char *path)
{
    DIR *d = opendir(path);
    tell("list", path, d ? 0 : -1);
    if (!d) return;
    char *names[64];
    size_t n = 0;
    struct dirent *e;
    while (n < 64 && (e = readdir(d))) {
        snprintf(buffer, sizeof buffer, "%s:%d", e->d_name, e->d_type);
        names[n++] = strdup(buffer);
    }
    closedir(d);
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        printf("  %s\n", names[i]);
        free(names[i]);
    }
}

static void renames(void)
{
    const char *a = name(), *b = name();
    printf("%s to ", a);
    switch (pick(5)) {
    case 0: tell("rename", b, rename(a, b)); break;
    case 1: tell("link", b, link(a, b)); break;
    case 2: tell("symlink", b, symlink(a, b)); break;
    case 3: tell("exchange", b, renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE)); break;
    default: tell("noreplace", b, renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_NOREPLACE)); break;
    }
}

static void changes(const char *path)
{
    char target[64];
    switch (pick(8)) {
    case 0: case 1: tell("unlink", path, unlink(path)); break;
    case 2: tell("mkdir", path, mkdir(path, 0755)); break;
    case 3: tell("rmdir", path, rmdir(path)); break;
    case 4: tell("truncate", path, truncate(path, place())); break;
    case 5: tell("chmod", path, chmod(path, pick(2) ? 0600 : 0754)); break;
    case 6: tell("access", path, access(path, (int)pick(8))); break;
    default:
        memset(target, 0, sizeof target);
        tell("readlink", path, readlink(path, target, sizeof target - 1));
        printf("  %s\n", target);
    }
}

static void shares(int slot)
{
    int other = (int)pick(FDS);
    if (pick(2)) {
        if (fds[slot] >= 0 && fds[other] >= 0) tell("dup2", number(other), dup2(fds[slot], fds[other]) < 0 ? -1 : 0);
    } else if (fds[slot] >= 0 && fds[other] < 0) {
        fds[other] = dup(fds[slot]);
        tell("dup", number(other), fds[other] < 0 ? -1 : 0);
    }
}

static void step(void)
{
    int slot = (int)pick(FDS);
    switch (pick(16)) {
    case 0: case 1: case 2: opens(slot); break;
    case 3: case 4: case 5: case 6: case 7: moves_bytes(slot); break;
    case 8: seeks(slot); break;
    case 9: case 10: looks(name()); break;
    case 11: lists(pick(2) ? "." : name()); break;
    case 12: renames(); break;
    case 13: changes(name()); break;
    case 14: shares(slot); break;
    default:
        if (fds[slot] >= 0) tell("close", number(slot), close(fds[slot]));
        fds[slot] = -1;
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    state = strtoull(argv[1], NULL, 10) * 2 + 1;
    for (int i = 0; i < FDS; i++) fds[i] = -1;
    umask(022);
    mkdir("d1", 0755);
    mkdir("d2", 0755);
    symlink("d1/a", "link");
    for (long steps = atol(argv[2]); steps > 0; steps--) {
        if (pick(200) != 0) {
            step();
            continue;
        }
        /* A child goes on for a while with the same descriptors. */
        fflush(stdout);
        pid_t child = fork();
        if (child < 0) return 1;
        uint64_t before = state;
        if (child == 0) {
            for (int i = 0; i < 20; i++) step();
            fflush(stdout);
            _exit(0);
        }
        int status;
        if (waitpid(child, &status, 0) != child || status) return 1;
        state = before + 2;
    }
    lists(".");
    return 0;
}
