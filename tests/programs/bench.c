/* What the calls of a file system cost: one line per figure, `name value`.
 *
 *   bench ops DIR            ns per call on files in DIR
 *   bench foreign FILE       ns per call on FILE, which nobody takes over
 *   bench mapped FILE BYTES  ms of the first mmap of FILE, which is written first,
 *                            and ns of a read of a random word of the mapping
 *   bench start COUNT        us per start of /bin/true
 *   bench produce FILE SIZE BYTES
 *   bench consume FILE SIZE
 *   bench paced FILE BYTES   ms of the longest of writes of 1 MiB, one each 10 ms
 *   bench tick FILE COUNT    writes COUNT times of day, 2 ms apart
 *   bench tock FILE          reads them as they come: median delay in ns
 *   bench futex COUNT        the same delay by a futex shared with a child
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 15

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
    return values[n / 2];
}

/* The median of BATCHES times `count` runs of `call`, in ns a run. */
#define MEASURE(name, count, before, call)                                      \
    do {                                                                        \
        double times[BATCHES];                                                  \
        for (int batch = 0; batch < BATCHES; batch++) {                         \
            before;                                                             \
            uint64_t start = now();                                             \
            for (int i = 0; i < (count); i++)                                   \
                if (!(call)) fail(name);                                        \
            times[batch] = (double)(now() - start) / (count);                   \
        }                                                                       \
        printf("%s %.1f\n", name, median(times, BATCHES));                      \
    } while (0)

static char *buffer;

static void sized(const char *dir, size_t size, const char *label)
{
    char path[4096], name[64];
    snprintf(path, sizeof path, "%s/bench-%zu", dir, size);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) fail(path);
    int count = (int)((32u << 20) / size);
    if (count > 20000) count = 20000;
    ssize_t want = (ssize_t)size;
    /* Once, so that all is resident. */
    for (int i = 0; i < count; i++)
        if (write(fd, buffer, size) != want) fail("write");
    snprintf(name, sizeof name, "write-%s", label);
    MEASURE(name, count, lseek(fd, 0, SEEK_SET), write(fd, buffer, size) == want);
    snprintf(name, sizeof name, "read-%s", label);
    MEASURE(name, count, lseek(fd, 0, SEEK_SET), read(fd, buffer, size) == want);
    snprintf(name, sizeof name, "pwrite-%s", label);
    MEASURE(name, count, (void)0, pwrite(fd, buffer, size, (off_t)size * i) == want);
    snprintf(name, sizeof name, "pread-%s", label);
    MEASURE(name, count, (void)0, pread(fd, buffer, size, (off_t)size * i) == want);
    close(fd);
    unlink(path);
}

static int entries(const char *folder)
{
    int seen = 0;
    DIR *list = opendir(folder);
    if (!list) fail(folder);
    while (readdir(list)) seen++;
    closedir(list);
    return seen;
}

/* Names and attributes, below `dir`. */
static void names(const char *dir)
{
    char path[4200], other[4096], folder[4096], missing[4096];
    snprintf(path, sizeof path, "%s/bench-there", dir);
    snprintf(other, sizeof other, "%s/bench-new", dir);
    snprintf(folder, sizeof folder, "%s/bench-folder", dir);
    snprintf(missing, sizeof missing, "%s/bench-missing", dir);
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || close(fd) != 0 || mkdir(folder, 0755) != 0) fail(folder);
    MEASURE("stat", 500, (void)0, stat(path, &st) == 0);
    MEASURE("stat-folder", 500, (void)0, stat(folder, &st) == 0);
    MEASURE("stat-missing", 500, (void)0, stat(missing, &st) != 0);
    MEASURE("access", 500, (void)0, access(path, R_OK) == 0);
    MEASURE("chmod", 500, (void)0, chmod(path, 0644) == 0);
    MEASURE("open-close", 500, (void)0, close(open(path, O_RDONLY)) == 0);
    MEASURE("rename", 200, (void)0, rename(path, other) == 0 && rename(other, path) == 0);
    MEASURE("create-unlink", 200, (void)0,
            close(open(other, O_WRONLY | O_CREAT, 0644)) == 0 && unlink(other) == 0);
    MEASURE("mkdir-rmdir", 200, (void)0, mkdir(other, 0755) == 0 && rmdir(other) == 0);
    unlink(path);
    for (int i = 0; i < 10000; i++) {
        snprintf(path, sizeof path, "%s/%05d", folder, i);
        fd = open(path, O_WRONLY | O_CREAT, 0644);
        if (fd < 0 || close(fd) != 0) fail(path);
    }
    MEASURE("readdir", 1, (void)0, entries(folder) == 10002);
    for (int i = 0; i < 10000; i++) {
        snprintf(path, sizeof path, "%s/%05d", folder, i);
        if (unlink(path) != 0) fail(path);
    }
    rmdir(folder);
}

static void ops(const char *dir)
{
    buffer = malloc(1 << 20);
    memset(buffer, 7, 1 << 20);
    sized(dir, 64, "64B");
    sized(dir, 4096, "4K");
    sized(dir, 65536, "64K");
    sized(dir, 1 << 20, "1M");
    char path[4096];
    snprintf(path, sizeof path, "%s/bench-open", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, buffer, 4096) != 4096) fail(path);
    struct stat st;
    MEASURE("fstat", 1000, (void)0, fstat(fd, &st) == 0);
    close(fd);
    unlink(path);
    names(dir);
}

static void foreign(const char *path)
{
    struct stat st;
    char byte;
    int fd = open(path, O_RDONLY);
    if (fd < 0) fail(path);
    MEASURE("foreign-pread", 20000, (void)0, pread(fd, &byte, 1, 0) == 1);
    MEASURE("foreign-lseek", 20000, (void)0, lseek(fd, 0, SEEK_SET) == 0);
    MEASURE("foreign-stat", 5000, (void)0, stat(path, &st) == 0);
    MEASURE("foreign-open-close", 2000, (void)0, close(open(path, O_RDONLY)) == 0);
}

static void start(int count)
{
    char *arguments[] = {"/bin/true", NULL};
    extern char **environ;
    double *times = calloc((size_t)count, sizeof *times);
    for (int i = 0; i < count; i++) {
        uint64_t begin = now();
        pid_t child;
        int status;
        if (posix_spawn(&child, arguments[0], NULL, NULL, arguments, environ) != 0)
            fail("posix_spawn");
        waitpid(child, &status, 0);
        times[i] = (double)(now() - begin) / 1000;
    }
    printf("start %.1f\n", median(times, count));
}

static void mapped(const char *path, size_t bytes)
{
    size_t block = 1 << 20;
    buffer = malloc(block);
    memset(buffer, 7, block);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) fail(path);
    for (size_t done = 0; done < bytes; done += block)
        if (write(fd, buffer, block) != (ssize_t)block) fail("write");
    uint64_t begin = now();
    volatile uint64_t *words = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (words == MAP_FAILED) fail("mmap");
    printf("mmap %.2f\n", (double)(now() - begin) / 1e6);
    for (size_t at = 0; at < bytes / 8; at += 512) (void)words[at]; /* every page once */
    uint64_t state = 88172645463325252u, sum = 0;
    const int count = 5000000;
    begin = now();
    for (int i = 0; i < count; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        sum += words[state % (bytes / 8)];
    }
    printf("mapped-read %.2f\n", (double)(now() - begin) / count);
    if (sum == 1) printf("never 0\n");
    close(fd);
    unlink(path);
}

static void produce(const char *path, size_t size, long long bytes)
{
    buffer = malloc(size);
    memset(buffer, 7, size);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) fail(path);
    for (long long done = 0; done < bytes; done += (long long)size)
        if (write(fd, buffer, size) != (ssize_t)size) fail("write");
    close(fd);
}

static void consume(const char *path, size_t size)
{
    buffer = malloc(size);
    int fd = open(path, O_RDONLY);
    if (fd < 0) fail(path);
    long long total = 0;
    ssize_t got;
    while ((got = read(fd, buffer, size)) > 0) total += got;
    if (got < 0) fail("read");
    printf("consumed %lld\n", total);
}

static void paced(const char *path, long long bytes)
{
    const size_t size = 1 << 20;
    uint64_t longest = 0, next = now();
    buffer = malloc(size);
    memset(buffer, 7, size);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) fail(path);
    for (long long done = 0; done < bytes; done += (long long)size, next += 10000000) {
        uint64_t start = now();
        if (start < next) usleep((useconds_t)((next - start) / 1000));
        start = now();
        if (write(fd, buffer, size) != (ssize_t)size) fail("write");
        if (now() - start > longest) longest = now() - start;
    }
    close(fd);
    printf("longest-write %.2f\n", (double)longest / 1e6);
}

static void tick(const char *path, int count)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) fail(path);
    for (int i = 0; i < count; i++) {
        usleep(2000);
        uint64_t time = now();
        if (write(fd, &time, sizeof time) != sizeof time) fail("write");
    }
    close(fd);
}

static void tock(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0) fail(path);
    double *times = NULL;
    int count = 0;
    uint64_t time;
    ssize_t got;
    while ((got = read(fd, &time, sizeof time)) == sizeof time) {
        times = realloc(times, sizeof *times * (size_t)(count + 1));
        times[count++] = (double)(now() - time);
    }
    if (got != 0 || count == 0) fail("read");
    printf("wake-up %.1f\n", median(times, count));
}

struct shared {
    uint32_t word;
    uint64_t time;
};

static void futex_pair(int count)
{
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) fail("mmap");
    double *times = calloc((size_t)count, sizeof *times);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < count; i++) {
            usleep(2000);
            shared->time = now();
            __atomic_add_fetch(&shared->word, 1, __ATOMIC_SEQ_CST);
            syscall(SYS_futex, &shared->word, FUTEX_WAKE, 1, NULL, NULL, 0);
        }
        _exit(0);
    }
    for (uint32_t i = 0; i < (uint32_t)count; i++) {
        while (__atomic_load_n(&shared->word, __ATOMIC_SEQ_CST) <= i)
            syscall(SYS_futex, &shared->word, FUTEX_WAIT, i, NULL, NULL, 0);
        times[i] = (double)(now() - shared->time);
    }
    waitpid(child, NULL, 0);
    printf("wake-up %.1f\n", median(times, count));
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "ops") && argc == 3) ops(argv[2]);
    else if (!strcmp(mode, "foreign") && argc == 3) foreign(argv[2]);
    else if (!strcmp(mode, "mapped") && argc == 4) mapped(argv[2], (size_t)atoll(argv[3]));
    else if (!strcmp(mode, "start") && argc == 3) start(atoi(argv[2]));
    else if (!strcmp(mode, "produce") && argc == 5)
        produce(argv[2], (size_t)atoll(argv[3]), atoll(argv[4]));
    else if (!strcmp(mode, "consume") && argc == 4) consume(argv[2], (size_t)atoll(argv[3]));
    else if (!strcmp(mode, "paced") && argc == 4) paced(argv[2], atoll(argv[3]));
    else if (!strcmp(mode, "tick") && argc == 4) tick(argv[2], atoi(argv[3]));
    else if (!strcmp(mode, "tock") && argc == 3) tock(argv[2]);
    else if (!strcmp(mode, "futex") && argc == 3) futex_pair(atoi(argv[2]));
    else {
        fprintf(stderr, "bench: see the first lines of bench.c for its arguments\n");
        return 2;
    }
    return 0;
}
