/* A stream of random writes, and a reader that checks every byte as it comes.
 *
 *   feed write SEED FILE    writes blocks in any order and size, some twice, some by
 *                           children, over pauses; in the end every byte is there
 *   feed read SEED FILE     reads in any way and size; prints the size it saw
 *
 * The byte at an offset is the same in all runs, so that nobody has to ask.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 100000 };
static uint64_t state;
static char buffer[MOST];

static uint32_t pick(uint32_t n)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(state >> 33) % n;
}

static char byte_at(uint64_t offset)
{
    return (char)((offset * 0x9E3779B97F4A7C15ULL) >> 56);
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void put(int fd, off_t from, off_t to)
{
    for (off_t i = from; i < to; i++) buffer[i - from] = byte_at((uint64_t)i);
    if (pwrite(fd, buffer, (size_t)(to - from), from) != to - from) fail("pwrite");
}

static int writes(const char *path)
{
    static off_t at[4096];
    off_t size = 0;
    int blocks = 0, fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) fail(path);
    while (size < 2000000 && blocks < 4000) {
        at[blocks++] = size;
        size += 1 + pick(pick(3) ? 3000 : MOST - 1);
    }
    at[blocks] = size;
    for (int done = 0; done < blocks;) {
        int run = 1 + (int)pick(12); /* the next few blocks in any order */
        if (run > blocks - done) run = blocks - done;
        int order[12];
        for (int i = 0; i < run; i++) order[i] = done + i;
        for (int i = run - 1; i > 0; i--) {
            int other = (int)pick((uint32_t)i + 1), keep = order[i];
            order[i] = order[other];
            order[other] = keep;
        }
        pid_t child = pick(20) == 0 ? fork() : -1;
        if (child <= 0) {
            for (int i = 0; i < run; i++) put(fd, at[order[i]], at[order[i] + 1]);
            if (child == 0) _exit(0);
        } else {
            int status;
            if (waitpid(child, &status, 0) != child || status) fail("child");
        }
        if (pick(10) == 0) put(fd, at[done], at[done + 1]); /* the same bytes again */
        if (pick(30) == 0 && ftruncate(fd, size) != 0) fail("ftruncate"); /* grows, says nothing */
        if (pick(4) == 0) usleep(pick(2000));
        done += run;
    }
    return close(fd);
}

static ssize_t take(int fd, off_t at, size_t n)
{
    struct iovec parts[2] = {{buffer, n / 2}, {buffer + n / 2, n - n / 2}};
    switch (pick(3)) {
    case 0: return pread(fd, buffer, n, at);
    case 1: return lseek(fd, at, SEEK_SET) == at ? read(fd, buffer, n) : -1;
    default: return lseek(fd, at, SEEK_SET) == at ? readv(fd, parts, 2) : -1;
    }
}

static int reads(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0) fail(path);
    off_t at = 0;
    for (;;) {
        size_t n = 1 + pick(pick(2) ? 500 : MOST - 1);
        struct stat st;
        if (pick(10) == 0 && (fstat(fd, &st) != 0 || st.st_size < at)) fail("fstat");
        ssize_t got = take(fd, at, n);
        if (got < 0) fail("read");
        if (got == 0) break;
        for (ssize_t i = 0; i < got; i++)
            if (buffer[i] != byte_at((uint64_t)(at + i))) {
                fprintf(stderr, "the byte at %lld is wrong\n", (long long)(at + i));
                return 1;
            }
        at += got;
        if (pick(20) == 0) usleep(pick(3000));
        if (pick(50) == 0) at -= pick((uint32_t)(at > 100000 ? 100000 : at)); /* once more */
    }
    printf("%lld\n", (long long)at);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    state = strtoull(argv[2], NULL, 10) * 2 + 1;
    return strcmp(argv[1], "write") == 0 ? writes(argv[3]) : reads(argv[3]);
}
