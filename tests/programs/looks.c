/* One process changes names, another looks at them: after each change it sees that.
 *
 *   looks MIRROR ROUNDS [apart]    works in the current directory, and does the same in
 *                                  MIRROR, which is like it or does not exist yet
 *
 * After each change all names are looked at, and files read, in both places. With `apart` the one who
 * looks is a child that has looked before, else the parent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "turns.h"

struct turns { _Atomic long done, seen; };
static uint64_t state = 7;
static const char *const folders[] = {"", "d/", "e/", "d/deep/"};
static const char *const files[] = {"a", "b", "c"};
enum { FOLDERS = 4, FILES = 3, NAMES = FOLDERS * FILES };

static uint32_t pick(uint32_t n)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(state >> 33) % n;
}

static void fail(const char *what, const char *name, long round)
{
    printf("%s of %s in round %ld: %s\n", what, name, round, strerror(errno));
    fflush(stdout);
    _exit(1);
}

static const char *some_name(char *room)
{
    sprintf(room, "%s%s", folders[pick(FOLDERS)], files[pick(FILES)]);
    return room;
}

/* The next change, below the directory `base`; whether it works is no matter. */
static void change(int base)
{
    char one[32], other[32];
    uint32_t kind = pick(12), size = pick(9000);
    some_name(one);
    some_name(other);
    int fd;
    switch (kind) {
    case 0: case 1: case 2:
        fd = openat(base, one, O_WRONLY | O_CREAT | (size % 2 ? O_TRUNC : 0), size % 3 ? 0644 : 0755);
        if (fd >= 0 && (pwrite(fd, other, 1, size) < 0 || close(fd) != 0)) fail("write", one, 0);
        break;
    case 3: case 4: unlinkat(base, one, 0); break;
    case 5: case 6: renameat(base, one, base, other); break;
    case 7: mkdirat(base, size % 2 ? "d" : "e", 0755); mkdirat(base, "d/deep", 0755); break;
    case 8: renameat(base, size % 2 ? "d" : "e", base, size % 2 ? "e" : "d"); break;
    case 9: symlinkat(size % 2 ? "a" : "d", base, one); break;
    case 10: linkat(base, one, base, other, 0); break;
    default:
        fchmodat(base, one, size % 2 ? 0600 : 0700, 0);
        if (size % 5 == 0) unlinkat(base, size % 2 ? "e" : "d/deep", AT_REMOVEDIR);
    }
}

static int looks_the_same(const char *name, int mirror, int flags, long round)
{
    struct stat here, there;
    int a = fstatat(AT_FDCWD, name, &here, flags), error = errno;
    int b = fstatat(mirror, name, &there, flags);
    if (a != b || (a != 0 && error != errno)) fail("stat", name, round);
    if (a != 0) return 0;
    int is_file = S_ISREG(there.st_mode);
    if (here.st_mode != there.st_mode || here.st_nlink != there.st_nlink || (is_file && here.st_size != there.st_size)) {
        printf("mode %o %o, size %lld %lld, links %ld %ld\n", here.st_mode, there.st_mode, (long long)here.st_size,
               (long long)there.st_size, (long)here.st_nlink, (long)there.st_nlink);
        errno = 0;
        fail("attributes", name, round);
    }
    return 1;
}

/* A directory that has changed there since the last look has changed here; where both
 * are the kernel's, its clock may be too coarse to tell two changes apart. */
static void has_changed_too(int number, const char *name, int mirror, long round)
{
    static struct stat last[2][NAMES + FOLDERS];
    struct stat now[2];
    if (stat(name, &now[0]) != 0 || fstatat(mirror, name, &now[1], 0) != 0 || !S_ISDIR(now[1].st_mode)) return;
    if (now[0].st_dev == now[1].st_dev) return;
    int changed[2];
    for (int i = 0; i < 2; i++) {
        const struct timespec *a = &now[i].st_mtim, *b = &last[i][number].st_mtim;
        changed[i] = a->tv_sec != b->tv_sec || a->tv_nsec != b->tv_nsec;
        last[i][number] = now[i];
    }
    errno = 0;
    if (changed[1] && !changed[0]) fail("time", name, round);
}

/* What is read by a name is the same. */
static void reads_the_same(const char *name, int mirror, long round)
{
    char here[16384], there[16384];
    int flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC;
    int a = open(name, flags), error = errno, b = openat(mirror, name, flags);
    if ((a < 0) != (b < 0) || (a < 0 && error != errno)) fail("open", name, round);
    if (a < 0) return;
    ssize_t had = read(a, here, sizeof here), had_there = read(b, there, sizeof there);
    if (had != had_there || (had > 0 && memcmp(here, there, (size_t)had) != 0)) fail("read", name, round);
    close(a);
    close(b);
}

static void compare(int mirror, long round)
{
    static const int modes[] = {F_OK, R_OK, W_OK, X_OK};
    char name[64], path[4200];
    for (int i = 0; i < NAMES + FOLDERS; i++) {
        if (i < NAMES) sprintf(name, "%s%s", folders[i / FILES], files[i % FILES]);
        else sprintf(name, "./%s%s", folders[i - NAMES], i % 2 ? "" : "/");
        looks_the_same(name, mirror, 0, round);
        looks_the_same(name, mirror, AT_SYMLINK_NOFOLLOW, round);
        has_changed_too(i, name, mirror, round);
        reads_the_same(name, mirror, round);
        for (int j = 0; j < 4; j++) {
            int a = faccessat(AT_FDCWD, name, modes[j], 0), error = errno;
            int b = faccessat(mirror, name, modes[j], 0);
            if (a != b || (a != 0 && error != errno)) fail("access", name, round);
        }
        /* By the whole path it is the same file. */
        struct stat one, two;
        if (!getcwd(path, 4096)) fail("getcwd", name, round);
        strcat(strcat(path, "/"), name);
        if (stat(name, &one) == 0 && (stat(path, &two) != 0 || one.st_ino != two.st_ino)) fail("path", path, round);
    }
}

static void changes(struct turns *turns, int mirror, long rounds, pid_t child)
{
    for (long round = 1; round <= rounds; round++) {
        uint64_t before = state;
        change(AT_FDCWD);
        state = before;
        change(mirror);
        atomic_store(&turns->done, round);
        wait_for(&turns->seen, round, child);
    }
}

static void sees(struct turns *turns, int mirror, long rounds, pid_t child)
{
    for (long round = 1; round <= rounds; round++) {
        wait_for(&turns->done, round, child);
        compare(mirror, round);
        atomic_store(&turns->seen, round);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) return 2;
    long rounds = atol(argv[2]);
    struct turns *turns = mmap(NULL, sizeof *turns, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (turns == MAP_FAILED || (mkdir(argv[1], 0755) != 0 && errno != EEXIST)) fail("mkdir", argv[1], 0);
    int mirror = open(argv[1], O_RDONLY | O_DIRECTORY);
    if (mirror < 0) fail("open", argv[1], 0);
    compare(mirror, 0);
    pid_t child = fork();
    if (child < 0) fail("fork", "", 0);
    if (child == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
    if ((child == 0) == (argc > 3)) sees(turns, mirror, rounds, child);
    else changes(turns, mirror, rounds, child);
    if (child == 0) _exit(0);
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) return 1;
    puts("the same all the time");
    return 0;
}
