/* Writers die at any instruction, others go on: what is there is whole records.
 *
 *   chaos ROUNDS    works in the current directory
 *
 * Six children write records of any size to one file that is opened for appending
 * and to one whose offset they share, and make, rename and remove small files. In
 * each round some are killed and replaced; now and then everything is checked. A
 * record is its size in eight hex digits, so many bytes of one letter, and a
 * newline.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 6, MOST = 20000 };
static int append, shared;
static uint64_t state;

static uint32_t pick(uint32_t n)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(state >> 33) % n;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void record(int fd, char letter)
{
    static char text[MOST + 16];
    uint32_t n = pick(pick(4) ? 100 : MOST);
    snprintf(text, 9, "%08x", n);
    memset(text + 8, letter, n);
    text[8 + n] = '\n';
    if (write(fd, text, 9 + n) != (ssize_t)(9 + n)) fail("write");
}

static void work(int me)
{
    char name[32], other[32];
    state = (uint64_t)getpid() * 77;
    for (int i = 0;; i++) {
        record(append, (char)('a' + me));
        record(shared, (char)('A' + me));
        snprintf(name, sizeof name, "f%d.%d", me, i % 5);
        snprintf(other, sizeof other, "g%d", (int)pick(10));
        int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
        if (fd < 0) fail(name);
        record(fd, 'x');
        close(fd);
        if (rename(name, other) != 0 && errno != ENOENT) fail("rename");
        if (pick(3) == 0) unlink(other);
        usleep(pick(200));
    }
}

/* The number of records of a file, or -1 with the place where it is torn. */
static long check(int fd, const char *what)
{
    static char text[1 << 25];
    ssize_t size = 0, n;
    while ((n = pread(fd, text + size, sizeof text - 1 - (size_t)size, size)) > 0) size += n;
    if (n < 0) fail(what);
    long records = 0;
    for (ssize_t at = 0; at < size; records++) {
        char head[9] = "";
        memcpy(head, text + at, 8);
        char *end;
        unsigned long length = strtoul(head, &end, 16);
        ssize_t last = at + 8 + (ssize_t)length;
        int right = *end == 0 && length < MOST && last < size && text[last] == '\n';
        for (ssize_t i = at + 9; right && i < last; i++) right = text[i] == text[at + 8];
        if (!right) {
            fprintf(stderr, "%s: record %ld at byte %zd of %zd is torn\n", what, records, at, size);
            return -1;
        }
        at = last + 1;
    }
    return records;
}

static void start(pid_t *child, int me)
{
    *child = fork();
    if (*child < 0) fail("fork");
    if (*child == 0) work(me);
}

static void end(pid_t child)
{
    int status;
    if (kill(child, SIGKILL) != 0 || waitpid(child, &status, 0) != child) fail("kill");
    if (!WIFSIGNALED(status)) exit(1); /* it has failed by itself and said why */
}

int main(int argc, char **argv)
{
    pid_t children[CHILDREN];
    long total = 0;
    if (argc != 2) return 2;
    state = 12345;
    append = open("append", O_RDWR | O_CREAT | O_APPEND, 0644);
    shared = open("shared", O_RDWR | O_CREAT, 0644);
    if (append < 0 || shared < 0) fail("open");
    for (int i = 0; i < CHILDREN; i++) start(&children[i], i);
    for (int round = 1; round <= atoi(argv[1]); round++) {
        usleep(pick(3000));
        int victim = (int)pick(CHILDREN);
        end(children[victim]);
        if (round % 50 == 0) {
            for (int i = 0; i < CHILDREN; i++)
                if (i != victim) end(children[i]);
            long a = check(append, "append"), b = check(shared, "shared");
            if (a < 0 || b < 0) return 1;
            total += a + b;
            if (ftruncate(append, 0) || ftruncate(shared, 0) || lseek(shared, 0, SEEK_SET)) fail("ftruncate");
            for (int i = 0; i < CHILDREN; i++)
                if (i != victim) start(&children[i], i);
        }
        start(&children[victim], victim);
    }
    for (int i = 0; i < CHILDREN; i++) end(children[i]);
    fprintf(stderr, "%ld records\n", total);
    return total > 0 ? 0 : 1;
}
