/* What fsx.c knows while it runs: the state both processes share, how a failure
 * is told, and how operations are chosen. */
#ifndef FSX_H
#define FSX_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, OFDS = 16, SLOTS = 5, MAPS = 3, SHOWN = 30, LONGEST = 65536 };
enum { PARENT, CHILD };

/* An operation as it is told after a failure. */
struct operation {
    uint64_t number;
    int who, slot;
    const char *what;
    off_t offset, length;
};

/* A descriptor: slot 0 of each process reads and writes at any offset. */
struct slot {
    int fd; /* -1: closed */
    int ofd, flags;
};

/* What both processes know. Anonymous memory, so the file system has no part in it. */
static struct shared {
    uint64_t random, number, total, maps_from; /* mappings begin with that operation */
    off_t size, renewed; /* the latter: where the last new bytes end */
    int moved;
    int refused[4];
    struct { int users; off_t offset; } ofds[OFDS];
    struct slot slots[2][SLOTS];
    struct operation log[SHOWN];
    unsigned char copy[]; /* the file's bytes; zeros beyond its end */
} *s;

struct map {
    unsigned char *at;
    off_t offset, length;
    int writable;
};

static uint64_t seed = 1;
static off_t limit = 256 << 10;
static int mapping = 1, alone, me = PARENT, turn = -1;
static pid_t child = -1;
static struct map maps[MAPS];
static char path[2][PATH_MAX];
static unsigned char buffer[LONGEST + 16];

static uint32_t pick(uint32_t n)
{
    s->random = s->random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)((s->random >> 33) % n);
}

/* ---- telling ---- */

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    int error = errno;
    va_list list;
    va_start(list, format);
    fprintf(stderr, "fsx: seed %llu, operation %llu, process %d: ", (unsigned long long)seed, (unsigned long long)s->number, me);
    vfprintf(stderr, format, list);
    va_end(list);
    fprintf(stderr, " (errno %s; the file should have %lld bytes)\nthe operations before, the last one last:\n", strerrorname_np(error), (long long)s->size);
    uint64_t from = s->number < SHOWN ? 0 : s->number - SHOWN;
    for (uint64_t i = from + 1; i <= s->number; i++) {
        struct operation *o = &s->log[i % SHOWN];
        fprintf(stderr, "%8llu process %d slot %d %-16s offset %#llx length %#llx\n", (unsigned long long)o->number,
                o->who, o->slot, o->what, (unsigned long long)o->offset, (unsigned long long)o->length);
    }
    fflush(NULL);
    _exit(1);
}

static void note(const char *what, int slot, off_t offset, off_t length)
{
    s->number++;
    errno = 0;
    s->log[s->number % SHOWN] = (struct operation){s->number, me, slot, what, offset, length};
}

static void on_signal(int number)
{
    fail("%s", strsignal(number));
}

static void expect(const char *what, long long found, long long wanted)
{
    if (found != wanted) fail("%s gives %lld, not %lld", what, found, wanted);
}

static void hex(const char *title, const unsigned char *bytes, off_t length)
{
    fprintf(stderr, "%s", title);
    for (off_t i = 0; i < length && i < 24; i++) fprintf(stderr, " %02x", bytes[i]);
    fprintf(stderr, "\n");
}

/* The bytes found at `offset` of the file against the copy. */
static void compare(const char *what, const unsigned char *found, off_t offset, off_t length)
{
    const unsigned char *wanted = s->copy + offset;
    if (memcmp(found, wanted, (size_t)length) == 0) return;
    off_t first = 0, wrong = 0, last = 0;
    while (found[first] == wanted[first]) first++;
    for (off_t i = first; i < length; i++) {
        if (found[i] != wanted[i]) wrong++, last = i;
    }
    hex("expected", wanted + first, length - first);
    hex("found   ", found + first, length - first);
    fail("%s of %#llx to %#llx: %lld bytes differ between offset %#llx and %#llx", what, (unsigned long long)offset,
         (unsigned long long)(offset + length), (long long)wrong, (unsigned long long)(offset + first), (unsigned long long)(offset + last));
}

/* ---- choosing ---- */

static off_t smaller(off_t a, off_t b)
{
    return a < b ? a : b;
}

/* An offset below the limit, mostly not far beyond the file's end, often at that
 * end, a page's border or what is new. */
static off_t place(void)
{
    off_t end = pick(4) ? smaller(limit, s->size + 20000) : limit;
    off_t at = pick((uint32_t)end);
    switch (pick(7)) {
    case 0: at &= -PAGE; break;
    case 1: at = smaller(s->size, end - 1); break;
    case 2: at = smaller((at | (PAGE - 1)) - (off_t)pick(3), end - 1); break;
    case 3: at = smaller(s->renewed - smaller(s->renewed, pick(40)), end - 1); break;
    default: break;
    }
    return at;
}

/* A length of at least 1 for an operation at `offset`. */
static off_t stretch(off_t offset)
{
    static const uint32_t most[] = {16, 600, 5000, 20000, LONGEST};
    return smaller(1 + pick(most[pick(5)]), limit - offset);
}

static struct slot *slot_at(int number)
{
    return &s->slots[me][number];
}

/* An open slot whose flags have none of `without`; slot 0 always serves. */
static int any_slot(int without)
{
    int number = (int)pick(SLOTS);
    struct slot *slot = slot_at(number);
    return slot->fd >= 0 && !(slot->flags & without) ? number : 0;
}

enum { READ_ONLY = 1, APPENDING = 2 };

#endif
