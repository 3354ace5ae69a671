/* Blocks that say of themselves where they belong: every one carries its file,
 * its place there, its generation and a checksum over all of it, so that a reader
 * who knows nothing else sees what is torn, misplaced, stale or missing. */
#ifndef LOAD_H
#define LOAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    MAGIC = 0x0b10c4ed,
    LAST = 1,              /* the file is complete with this block */
    MOST = 256 << 10,      /* bytes of a block, at most */
    /* How a program ends. */
    WHOLE = 0, WRONG = 1, LOST = 5, SHORT = 6, ABSENT = 7
};

struct head {
    uint32_t magic;
    uint32_t length;     /* of the block, this head included */
    uint64_t file;
    uint64_t offset;     /* or the number of the record, in a log */
    uint32_t generation; /* or the writer, in a log */
    uint32_t flags;
    uint64_t sum;        /* of all that follows, and of the fields above */
};

static uint64_t state;
/* What the program is about, for its last words. */
static char about[128];

static inline uint64_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9E3779B97F4A7C15ULL;
    return x ^ x >> 29;
}

static inline uint32_t pick(uint32_t n)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(state >> 33) % n;
}

static inline uint64_t name_of(const char *path)
{
    uint64_t hash = 14695981039346656037ULL;
    const char *slash = strrchr(path, '/');
    for (path = slash ? slash + 1 : path; *path; path++) hash = (hash ^ (uint8_t)*path) * 1099511628211ULL;
    return hash;
}

/* Says what is wrong and ends. EIO is the end of the session, or of a producer. */
__attribute__((noreturn)) static inline void fail(const char *what, long long at)
{
    int error = errno;
    if (error == EIO) _exit(LOST);
    dprintf(2, "%d: %s: %s at %lld: %s\n", (int)getpid(), about, what, at, error ? strerror(error) : "wrong");
    _exit(error == ENOENT ? ABSENT : WRONG);
}

__attribute__((noreturn)) static inline void wrong(const char *what, long long at)
{
    errno = 0;
    fail(what, at);
}

static inline uint64_t sum_of(const char *block, const struct head *head)
{
    uint64_t sum = mix(head->file ^ mix(head->offset ^ mix(head->length ^ (uint64_t)head->generation << 32) ^ head->flags));
    uint32_t at = sizeof *head;
    for (; at + 8 <= head->length; at += 8) {
        uint64_t word;
        memcpy(&word, block + at, 8);
        sum = (sum ^ word) * 0x9E3779B97F4A7C15ULL;
        sum ^= sum >> 32;
    }
    for (; at < head->length; at++) sum = (sum ^ (uint8_t)block[at]) * 1099511628211ULL;
    return sum;
}

/* Makes a block of `length` bytes. */
static inline void fill(char *block, uint32_t length, uint64_t file, uint64_t offset, uint32_t generation, uint32_t flags)
{
    struct head head = {MAGIC, length, file, offset, generation, flags, 0};
    uint64_t word = mix(file + offset) + generation;
    for (uint32_t at = sizeof head; at < length; at += 8) {
        word += 0x9E3779B97F4A7C15ULL;
        memcpy(block + at, &word, length - at < 8 ? length - at : 8);
    }
    head.sum = sum_of(block, &head);
    memcpy(block, &head, sizeof head);
}

static inline uint32_t some_length(void)
{
    uint32_t most = pick(3) ? 600 : pick(3) ? 9000 : MOST - 64;
    return (uint32_t)sizeof(struct head) + pick(most);
}

/* Reads `n` bytes at `at` in one of several ways; less only at the end. */
static inline size_t take(int fd, char *to, size_t n, off_t at)
{
    size_t got = 0;
    while (got < n) {
        struct iovec parts[2] = {{to + got, (n - got + 1) / 2}, {to + got + (n - got + 1) / 2, (n - got) / 2}};
        ssize_t now;
        switch (pick(4)) {
        case 0: now = pread(fd, to + got, n - got, at + (off_t)got); break;
        case 1: now = preadv(fd, parts, 2, at + (off_t)got); break;
        default:
            if (lseek(fd, at + (off_t)got, SEEK_SET) < 0) fail("lseek", at);
            now = read(fd, to + got, n - got);
        }
        if (now < 0 && errno == EINTR) continue;
        if (now < 0) fail("read", at + (off_t)got);
        if (now == 0) break;
        got += (size_t)now;
    }
    return got;
}

/* Says where a block differs from what its head promises, and whether it still does
 * after a while. */
static inline void describe_torn(int fd, const char *block, const struct head *head, off_t at)
{
    static char right[MOST + 64];
    uint32_t runs = 0;
    fill(right, head->length, head->file, head->offset, head->generation, head->flags);
    for (uint32_t from = 0; from < head->length && runs < 8; from++) {
        if (block[from] == right[from]) continue;
        uint32_t to = from, zeros = 0;
        for (uint32_t same = 0; to < head->length && same < 16; to++) {
            same = block[to] == right[to] ? same + 1 : 0;
            zeros += block[to] == 0;
        }
        dprintf(2, "of %u bytes %u to %u are wrong, %u of them zero; the first is at %lld of the file\n",
                head->length, from, to, zeros, (long long)at + from);
        from = to;
        runs++;
    }
    static char later[MOST + 64];
    for (int i = 0; i < 3; i++) {
        usleep(100000);
        ssize_t got = pread(fd, later, head->length, at);
        dprintf(2, "later: %lld bytes, %s, %s\n", (long long)got,
                memcmp(later, right, head->length) == 0 ? "right" : "not right",
                memcmp(later, block, head->length) == 0 ? "as before" : "changed");
    }
}

/* Reads the block at `at` and checks it; 0: the file ends here. */
static inline uint32_t check(int fd, char *block, off_t at, uint64_t file, struct head *head)
{
    size_t got = take(fd, block, sizeof *head, at);
    if (got == 0) return 0;
    if (got < sizeof *head) wrong("a head is cut off", at);
    memcpy(head, block, sizeof *head);
    if (head->magic != MAGIC || head->length < sizeof *head || head->length > MOST) {
        dprintf(2, "%x %x %llx %llx\n", head->magic, head->length, (unsigned long long)head->file,
                (unsigned long long)head->offset);
        wrong("no block begins", at);
    }
    if (head->file != file) wrong("the block of another file", at);
    size_t rest = head->length - sizeof *head;
    if (take(fd, block + sizeof *head, rest, at + (off_t)sizeof *head) != rest) wrong("a block is cut off", at);
    if (sum_of(block, head) != head->sum) {
        describe_torn(fd, block, head, at);
        wrong("a torn block", at);
    }
    return head->length;
}

/* Reads a file to its end. Its size, and whether that was complete. */
static inline off_t scan(int fd, char *block, uint64_t file, int *complete)
{
    struct head head = {0};
    off_t at = 0;
    uint32_t generation = 0;
    *complete = 0;
    for (uint32_t length; (length = check(fd, block, at, file, &head)) != 0; at += length) {
        if (head.offset != (uint64_t)at) wrong("a block of another place", at);
        if (at > 0 && head.generation != generation) wrong("a block of another generation", at);
        if (*complete) wrong("a block after the last", at);
        generation = head.generation;
        *complete = head.flags & LAST;
    }
    return at;
}

#endif
