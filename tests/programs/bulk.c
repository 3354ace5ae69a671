/* More data than fits into a cache, in calls of any size.
 *
 *   bulk write FILE MIB BLOCK_KIB [PAUSE_US]   one call a block, the pause after each
 *   bulk read FILE BLOCK_KIB [PAUSE_US]        from end to end, once; prints the size
 *   bulk passes FILE BLOCK_KIB TIMES           from end to end, several times
 *   bulk scatter FILE MIB TIMES SEED           reads and rewrites blocks anywhere in it
 *   bulk append FILE TIMES BLOCK_KIB SEED      blocks of one value each, in one piece
 *   bulk records FILE BLOCK_KIB                checks those; prints how many there are
 *
 * Each word of a file tells where it is, so that every reader knows what it
 * should find. A call that moves less than it was asked to is a failure, except
 * at the end of the file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t *block;
static uint64_t state;

static uint64_t pick(uint64_t n)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (state >> 20) % n;
}

static void fail(const char *what, long long at)
{
    fprintf(stderr, "%s at %lld: %s\n", what, at, strerror(errno));
    exit(errno == ENOSPC ? 28 : 1);
}

static uint64_t word_at(off_t offset)
{
    return ((uint64_t)offset + 1) * 0x9E3779B97F4A7C15ULL;
}

static void make(size_t length, off_t at)
{
    for (size_t i = 0; i < length / 8; i++) block[i] = word_at(at + (off_t)i * 8);
}

static void check(size_t length, off_t at)
{
    for (size_t i = 0; i < length / 8; i++)
        if (block[i] != word_at(at + (off_t)i * 8)) {
            errno = 0;
            fail("a wrong word", at + (off_t)i * 8);
        }
}

static int opened(const char *path, int flags)
{
    int fd = open(path, flags, 0644);
    if (fd < 0) fail(path, 0);
    return fd;
}

static void put(int fd, size_t length, off_t at)
{
    make(length, at);
    ssize_t put = write(fd, block, length);
    if (put != (ssize_t)length) fail(put < 0 ? "write" : "a short write", at);
}

static off_t pass(int fd, size_t length, useconds_t pause)
{
    off_t at = 0;
    for (;;) {
        ssize_t got = read(fd, block, length);
        if (got < 0) fail("read", at);
        if (got == 0) return at;
        check((size_t)got, at);
        at += got;
        if (pause) usleep(pause);
    }
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    const char *what = argv[1], *path = argv[2];
    long number[4] = {0};
    for (int i = 0; i < 4 && i + 3 < argc; i++) number[i] = atol(argv[i + 3]);
    int writes = strcmp(what, "write") == 0, appends = strcmp(what, "append") == 0;
    size_t length = (size_t)number[writes || appends ? 1 : 0] << 10;
    if (strcmp(what, "scatter") == 0) length = 64 << 10;
    block = malloc(length);
    if (!block) fail("malloc", 0);
    if (writes) {
        int fd = opened(path, O_WRONLY | O_CREAT | O_TRUNC);
        for (off_t at = 0; at < (off_t)number[0] << 20; at += (off_t)length) {
            put(fd, length, at);
            if (number[2]) usleep((useconds_t)number[2]);
        }
        if (close(fd) != 0) fail("close", 0);
    } else if (strcmp(what, "read") == 0) {
        printf("%lld\n", (long long)pass(opened(path, O_RDONLY), length, (useconds_t)number[1]));
    } else if (strcmp(what, "passes") == 0) {
        int fd = opened(path, O_RDONLY);
        off_t size = 0;
        for (long i = 0; i < number[1]; i++) {
            if (lseek(fd, 0, SEEK_SET) != 0) fail("lseek", 0);
            size = pass(fd, length, 0);
        }
        printf("%lld\n", (long long)size);
    } else if (strcmp(what, "scatter") == 0) {
        int fd = opened(path, O_RDWR);
        state = (uint64_t)number[2];
        for (long i = 0; i < number[1]; i++) {
            size_t some = 8 * (1 + pick(length / 8));
            off_t at = (off_t)(8 * pick(((uint64_t)number[0] << 17) - some / 8));
            ssize_t got = pread(fd, block, some, at);
            if (got != (ssize_t)some) fail(got < 0 ? "pread" : "a short read", at);
            check(some, at);
            if (pick(3)) continue;
            make(some, at);
            got = pwrite(fd, block, some, at);
            if (got != (ssize_t)some) fail(got < 0 ? "pwrite" : "a short write", at);
        }
    } else if (appends) {
        int fd = opened(path, O_WRONLY | O_CREAT | O_APPEND);
        for (long i = 0; i < number[0]; i++) {
            for (size_t w = 0; w < length / 8; w++) block[w] = (uint64_t)(number[2] * 1000 + i + 1);
            ssize_t put = write(fd, block, length);
            if (put != (ssize_t)length) fail(put < 0 ? "write" : "a short write", i);
        }
    } else {
        int fd = opened(path, O_RDONLY);
        long records = 0;
        for (ssize_t got; (got = read(fd, block, length)) != 0; records++) {
            if (got != (ssize_t)length) fail("a short record", records);
            for (size_t w = 1; w < length / 8; w++)
                if (block[w] != block[0]) fail("a torn record", records);
        }
        printf("%ld\n", records);
    }
    return 0;
}
