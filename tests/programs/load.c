/* Load on a session whose programs are killed at any moment (see load.h for what
 * stands in its files).
 *
 *   load make KIND FILE SEED BYTES   makes a file, complete with its last block:
 *                    stream   by any call, some blocks before those in front of them,
 *                             some by children
 *                    ordered  the same, one after the other
 *                    twice    in two openings
 *                    mapped   by stores into a mapping
 *                    flagged  as ordered, and then FILE.done
 *                    half     whole blocks, but without the last
 *                    rename   five times, each by another name and a rename
 *   load read FILE                   reads it: ends with 0 if it is whole, 5 after EIO,
 *                                    6 if it ends too early, 7 if there is none
 *   load churn DIR SEED ENTRY LOG    works on files of its own until ENTRY.stop (not the
 *                                    session's) exists, and appends records to LOG unless
 *                                    that is `-`; counts what it has done in ENTRY
 *   load log FILE                    checks such records: all of a writer's, in order
 *   load fill FILE                   writes until ENOSPC, and prints how much it was
 *   load inherited FD FILE MIN       checks a file that it has inherited
 */
#include "load.h"

#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

extern char **environ;
static char block[MOST + 64], second[MOST + 64], other[MOST + 64];
static const char *self;

static int opened(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644);
    if (fd < 0) fail(path, flags);
    return fd;
}

/* A write that was not done. When the session dies in its middle a part is written,
 * and one that follows tells. */
static void fail_of(int fd, ssize_t done, const char *what, long long at)
{
    for (int i = 0; done >= 0 && i < 100; i++) {
        if (write(fd, "", 1) < 0) fail(what, at);
        usleep(10000);
    }
    if (done < 0) fail(what, at);
    wrong("a short write", at);
}

static void put(int fd, const char *from, size_t length, off_t at)
{
    struct iovec parts[2] = {{(void *)from, length / 3}, {(void *)(from + length / 3), length - length / 3}};
    ssize_t done = -1;
    switch (pick(4)) {
    case 0: done = pwrite(fd, from, length, at); break;
    case 1: done = pwritev(fd, parts, 2, at); break;
    case 2: done = lseek(fd, at, SEEK_SET) == at ? writev(fd, parts, 2) : -1; break;
    default: done = lseek(fd, at, SEEK_SET) == at ? write(fd, from, length) : -1;
    }
    if (done != (ssize_t)length) fail_of(fd, done, "write", at);
}

/* A child that was killed takes its parent with it, who would else tell lies. */
static int reaped(pid_t child)
{
    int status;
    if (child < 0) fail("fork", 0);
    while (waitpid(child, &status, 0) != child)
        if (errno != EINTR) fail("waitpid", child);
    if (WIFSIGNALED(status)) {
        if (WTERMSIG(status) != SIGKILL) wrong("a child was killed by signal", WTERMSIG(status));
        return 0;
    }
    if (WEXITSTATUS(status) != 0) _exit(WEXITSTATUS(status));
    return 1;
}

static void put_by_child(int fd, size_t length, off_t at)
{
    pid_t child = fork();
    if (child == 0) {
        put(fd, block, length, at);
        _exit(0);
    }
    if (!reaped(child)) raise(SIGKILL);
}

static void make(int fd, uint64_t file, off_t from, off_t to, off_t size, int generation, int in_order)
{
    for (off_t at = from; at < to;) {
        uint32_t length = some_length();
        int last = at + length >= size;
        fill(block, length, file, (uint64_t)at, (uint32_t)generation, last ? LAST : 0);
        if (!last && !in_order && pick(4) == 0) {
            uint32_t more = some_length();
            last = at + length + more >= size;
            fill(second, more, file, (uint64_t)(at + length), (uint32_t)generation, last ? LAST : 0);
            put(fd, second, more, at + length);
            put(fd, block, length, at);
            length += more;
        } else if (pick(40) == 0) {
            put_by_child(fd, length, at);
        } else {
            put(fd, block, length, at);
        }
        at += length;
        if (pick(20) == 0) usleep(pick(4000));
        if (last) return;
    }
}

static void make_mapped(int fd, uint64_t file, off_t size)
{
    if (ftruncate(fd, size) != 0) fail("ftruncate", size);
    char *map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) fail("mmap", size);
    for (off_t at = 0; at < size;) {
        off_t left = size - at;
        uint32_t length = some_length();
        if (left < length + (off_t)sizeof(struct head)) length = left > MOST - 64 ? MOST / 2 : (uint32_t)left;
        fill(block, length, file, (uint64_t)at, 0, at + length == size ? LAST : 0);
        memcpy(map + at, block, length);
        at += length;
        if (pick(20) == 0) usleep(pick(4000));
    }
    if (pick(2) && msync(map, (size_t)size, MS_SYNC) != 0) fail("msync", 0);
    if (munmap(map, (size_t)size) != 0) fail("munmap", 0);
}

static int makes(const char *kind, const char *path, off_t size)
{
    uint64_t file = name_of(path);
    int ordered = strcmp(kind, "stream") != 0;
    int rounds = strcmp(kind, "rename") == 0 ? 5 : 1;
    for (int round = 1; round <= rounds; round++) {
        char name[PATH_MAX];
        snprintf(name, sizeof name, rounds > 1 ? "%s.%d" : "%s", path, round);
        int fd = opened(name, O_RDWR | O_CREAT | O_TRUNC);
        if (strcmp(kind, "mapped") == 0) {
            make_mapped(fd, file, size);
        } else if (strcmp(kind, "twice") == 0) {
            /* The half ends with a block, wherever that is. */
            make(fd, file, 0, size / 2, size * 4, round, 1);
            off_t half = lseek(fd, 0, SEEK_END);
            if (close(fd) != 0) fail("close", 0);
            usleep(pick(20000));
            fd = opened(path, O_WRONLY);
            make(fd, file, half, size * 4, size, round, 1);
        } else if (strcmp(kind, "half") == 0) {
            make(fd, file, 0, size / 2, size * 4, round, 1);
        } else {
            make(fd, file, 0, size * 4, size, round, ordered);
        }
        if (close(fd) != 0) fail("close", 0);
        if (rounds > 1 && rename(name, path) != 0) fail("rename", round);
    }
    if (strcmp(kind, "flagged") == 0) {
        char name[PATH_MAX];
        snprintf(name, sizeof name, "%s.done", path);
        if (close(opened(name, O_WRONLY | O_CREAT)) != 0) fail(name, 0);
    }
    return WHOLE;
}

static int reads(const char *path)
{
    int complete;
    off_t size = scan(opened(path, O_RDONLY), block, name_of(path), &complete);
    if (!complete) dprintf(2, "%s ends at %lld\n", path, (long long)size);
    return complete ? WHOLE : SHORT;
}

static int fills(const char *path)
{
    int fd = opened(path, O_WRONLY | O_CREAT | O_TRUNC);
    long long size = 0;
    ssize_t done;
    memset(block, 7, MOST);
    while ((done = write(fd, block, MOST)) > 0) size += done;
    if (errno != ENOSPC) fail(path, size);
    printf("%lld\n", size);
    return close(fd);
}

/* Every record of a writer is there, whatever became of the others. */
static int checks_log(const char *path)
{
    static struct { uint32_t writer; uint64_t next; } known[1 << 16];
    int fd = opened(path, O_RDONLY), count = 0;
    uint64_t file = name_of(path);
    struct head head;
    off_t at = 0;
    for (uint32_t length; (length = check(fd, block, at, file, &head)) != 0; at += length) {
        int i = 0;
        while (i < count && known[i].writer != head.generation) i++;
        if (i == count && count++ == 1 << 16) wrong("too many writers", at);
        known[i].writer = head.generation;
        if (head.offset != known[i].next++) wrong("a record is missing", at);
    }
    printf("%lld bytes of %d writers\n", (long long)at, count);
    return 0;
}

/* --- churn: files of its own --- */

static int log_fd = -1, alarm_fd = -1;
static uint64_t log_file, logged, alarms;
static off_t alarm_size;

static void append_record(void)
{
    static uint32_t me;
    if (log_fd < 0) return;
    if (me == 0) me = (uint32_t)getpid();
    uint32_t length = some_length();
    if (pick(8)) length = (uint32_t)sizeof(struct head) + length % 3000;
    fill(block, length, log_file, logged, me, 0);
    ssize_t done = write(log_fd, block, length);
    if (done != (ssize_t)length) fail_of(log_fd, done, "append", (long long)logged);
    logged++;
}

/* A handler that works on a file, wherever the program is just then. */
static void on_alarm(int signal)
{
    int keep = errno;
    uint32_t length = (uint32_t)sizeof(struct head) + (uint32_t)(alarms * 37 % 3000);
    (void)signal;
    fill(other, length, 1, (uint64_t)alarm_size, 0, 0);
    ssize_t done = write(alarm_fd, other, length);
    if (done != (ssize_t)length) fail_of(alarm_fd, done, "write in a handler", alarm_size);
    alarm_size += length;
    if (++alarms % 512 == 0) {
        if (ftruncate(alarm_fd, 0) != 0 || lseek(alarm_fd, 0, SEEK_SET) != 0) fail("ftruncate in a handler", 0);
        alarm_size = 0;
    }
    errno = keep;
}

static void alarms_on(int on)
{
    struct itimerval every = {{0, on ? 3000 : 0}, {0, on ? 3000 : 0}};
    setitimer(ITIMER_REAL, &every, NULL);
}

/* The file's blocks up to `size`, then perhaps others; gives its size. */
static off_t verify(int fd, const char *name, off_t size)
{
    int complete;
    off_t found = scan(fd, block, name_of(name), &complete);
    if (found < size) wrong(name, found);
    return found;
}

static off_t grow(int fd, const char *name, off_t at, int blocks, uint32_t generation)
{
    while (blocks-- > 0) {
        uint32_t length = some_length();
        fill(block, length, name_of(name), (uint64_t)at, generation, 0);
        put(fd, block, length, at);
        at += length;
    }
    return at;
}

/* Cuts the file at a block, sees zeros beyond when it has grown again, cuts again. */
static off_t cut(int fd, const char *name, off_t size)
{
    struct head head;
    off_t at = 0, goal = pick((uint32_t)size + 1);
    while (at < goal) at += check(fd, block, at, name_of(name), &head);
    off_t grown = at + pick(100000);
    if (ftruncate(fd, at) != 0 || ftruncate(fd, grown) != 0) fail("ftruncate", at);
    for (off_t zero = at; zero < grown;) {
        size_t got = take(fd, block, MOST, zero);
        if (got == 0) wrong("a grown file ends", zero);
        for (size_t i = 0; i < got; i++)
            if (block[i] != 0) wrong("old bytes in a grown file", zero + (off_t)i);
        zero += (off_t)got;
    }
    if (ftruncate(fd, at) != 0) fail("ftruncate", at);
    return at;
}

static void map_and_change(int fd, const char *name, off_t size)
{
    struct head head;
    char *map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) fail("mmap", size);
    for (off_t at = 0; at < size; at += head.length) {
        memcpy(&head, map + at, sizeof head);
        if (head.magic != MAGIC || sum_of(map + at, &head) != head.sum) wrong("a torn block in a mapping", at);
        fill(second, head.length, name_of(name), (uint64_t)at, head.generation + 1, 0);
        memcpy(map + at, second, head.length);
    }
    if (munmap(map, (size_t)size) != 0) fail("munmap", size);
}

/* Another program checks the file by the descriptor that it inherits. */
static void pass_on(int fd, const char *name, off_t size)
{
    char number[16], least[32];
    snprintf(number, sizeof number, "%d", fd);
    snprintf(least, sizeof least, "%lld", (long long)size);
    char *words[] = {(char *)self, "inherited", number, (char *)name, least, NULL};
    static pid_t child;
    fcntl(fd, F_SETFD, 0);
    if (pick(2)) {
        child = vfork();
        if (child == 0) {
            execve(self, words, environ);
            _exit(126);
        }
    } else if ((errno = posix_spawn(&child, self, NULL, NULL, words, environ)) != 0) {
        fail("posix_spawn", 0);
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    reaped(child);
}

/* A child writes through the shared offset, while the parent waits. */
static off_t share(int fd, const char *name, off_t size)
{
    uint32_t generation = 0;
    struct head head = {0};
    if (size > 0 && check(fd, block, 0, name_of(name), &head) > 0) generation = head.generation;
    if (lseek(fd, size, SEEK_SET) != size) fail("lseek", size);
    pid_t child = fork();
    if (child == 0) {
        alarms_on(0);
        grow(fd, name, size, 1 + (int)pick(4), generation);
        _exit(0);
    }
    reaped(child);
    size = verify(fd, name, size);
    pass_on(fd, name, size);
    return size;
}

static void replace(const char *name, int fd, off_t size)
{
    char fresh[64];
    snprintf(fresh, sizeof fresh, "%s.new", name);
    int to = opened(fresh, O_RDWR | O_CREAT | O_EXCL);
    off_t grown = grow(to, name, 0, 3, 77);
    if (rename(fresh, name) != 0) fail("rename", 0);
    verify(fd, name, size); /* the old one is whole, for who has it open */
    int again = opened(name, O_RDONLY);
    if (verify(again, name, grown) != grown) wrong("another file after a rename", grown);
    close(again);
    close(to);
}

static void walk(void)
{
    char name[64];
    int found = 0, made = 1 + (int)pick(20);
    if (mkdir("sub", 0755) != 0) fail("mkdir", 0);
    for (int i = 0; i < made; i++) {
        snprintf(name, sizeof name, "sub/e%d", i);
        close(opened(name, O_WRONLY | O_CREAT | O_EXCL));
    }
    if (rename("sub", "moved") != 0) fail("rename of a directory", 0);
    DIR *dir = opendir("moved");
    if (!dir) fail("opendir", 0);
    for (struct dirent *entry; errno = 0, (entry = readdir(dir)) != NULL;) found += entry->d_name[0] == 'e';
    if (errno != 0) fail("readdir", found);
    closedir(dir);
    if (found != made) wrong("entries of a directory", found);
    for (int i = 0; i < made; i++) {
        snprintf(name, sizeof name, "moved/e%d", i);
        if (unlink(name) != 0) fail("unlink", i);
    }
    if (rmdir("moved") != 0) fail("rmdir", 0);
}

static void turn(long number)
{
    char name[32];
    uint32_t kind = pick(8);
    snprintf(name, sizeof name, "f%ld", number % 7);
    int fd = opened(name, O_RDWR | O_CREAT | O_TRUNC);
    off_t size = grow(fd, name, 0, kind == 0 ? 40 : 1 + (int)pick(6), (uint32_t)number);
    append_record();
    snprintf(about, sizeof about, "turn %ld (%u) of %s, %lld", number, kind, name, (long long)size);
    if (kind == 1) size = cut(fd, name, size);
    if (kind == 2) map_and_change(fd, name, size);
    if (kind == 3 || kind == 4) size = share(fd, name, size);
    if (kind == 5) replace(name, fd, size);
    if (kind == 6) walk();
    if (verify(fd, name, size) != size) wrong("a file that has grown by itself", size);
    if (pick(2)) {
        if (unlink(name) != 0) fail("unlink", number);
        verify(fd, name, size);
        size = grow(fd, name, size, 1, kind == 2 ? (uint32_t)number + 1 : (uint32_t)number);
    }
    if (close(fd) != 0) fail("close", number);
    append_record();
}

static int churns(const char *dir, const char *entry, const char *log)
{
    char stop[PATH_MAX], text[32];
    snprintf(stop, sizeof stop, "%s.stop", entry);
    if (strcmp(log, "-") != 0) {
        log_fd = opened(log, O_WRONLY | O_CREAT | O_APPEND);
        log_file = name_of(log);
    }
    int count = opened(entry, O_WRONLY | O_CREAT | O_TRUNC);
    if (mkdir(dir, 0755) != 0 || chdir(dir) != 0) fail(dir, 0);
    alarm_fd = opened("alarm", O_RDWR | O_CREAT);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    alarms_on(1);
    long number = 0;
    for (; access(stop, F_OK) != 0; number++) {
        turn(number);
        int length = snprintf(text, sizeof text, "%ld\n", number + 1);
        if (pwrite(count, text, (size_t)length, 0) != length) fail(entry, number);
        if (getppid() == 1) return LOST;
    }
    alarms_on(0);
    snprintf(about, sizeof about, "file of the handler, %lld", (long long)alarm_size);
    int complete;
    if (scan(alarm_fd, block, 1, &complete) != alarm_size) wrong("the handler's file", alarm_size);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    self = argv[0];
    state = (uint64_t)getpid();
    if (strcmp(what, "make") == 0 && argc == 6) {
        state = strtoull(argv[4], NULL, 10) * 2 + 1;
        return makes(argv[2], argv[3], atoll(argv[5]));
    }
    if (strcmp(what, "read") == 0) return reads(argv[2]);
    if (strcmp(what, "log") == 0) return checks_log(argv[2]);
    if (strcmp(what, "fill") == 0) return fills(argv[2]);
    snprintf(about, sizeof about, "%s", what);
    if (strcmp(what, "inherited") == 0 && argc == 5) {
        if (verify(atoi(argv[2]), argv[3], atoll(argv[4])) != atoll(argv[4])) wrong("an inherited file", 0);
        return 0;
    }
    if (strcmp(what, "churn") == 0 && argc == 6) {
        state = strtoull(argv[3], NULL, 10) * 2 + 1;
        return churns(argv[2], argv[4], argv[5]);
    }
    return 2;
}
