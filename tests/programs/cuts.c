/* One process writes while another cuts the same file: whoever comes first, what is
 * in the file then is what was written.
 *
 *   cuts ROUNDS [map]    works in the current directory; map: on a mapped file
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "turns.h"

enum { SIZE = 96 << 10, HEAD = 100, FROM = 50 };
/* Rounds begun, and rounds that the other has done. */
struct turns { _Atomic long begun, done; };
static char text[SIZE], found[SIZE + FROM + 1];

static void fail(const char *what, long round)
{
    fprintf(stderr, "%s in round %ld: %s\n", what, round, strerror(errno));
    exit(1);
}

/* The other: cuts by one call or another. */
static void cut(struct turns *turns, long rounds)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open("f", O_RDWR);
    if (fd < 0) fail("open", 0);
    for (long round = 1; round <= rounds; round++) {
        wait_for(&turns->begun, round, 0);
        for (volatile int spin = 0; spin < round * 7919 % 20000; spin++) {}
        switch (round % 3) {
        case 0: if (ftruncate(fd, HEAD) != 0) fail("ftruncate", round); break;
        case 1: if (truncate("f", 0) != 0) fail("truncate", round); break;
        default: {
            int again = open("f", O_WRONLY | O_TRUNC);
            if (again < 0 || close(again) != 0) fail("open", round);
        }
        }
        atomic_store(&turns->done, round);
    }
    exit(0);
}

/* Either the whole of the write is there, or nothing of it. */
static void check(int fd, long round)
{
    off_t kept = round % 3 == 0 ? HEAD : 0;
    struct stat st;
    if (fstat(fd, &st) != 0) fail("fstat", round);
    if (st.st_size != kept && st.st_size != SIZE + FROM) {
        errno = 0;
        fprintf(stderr, "%lld bytes\n", (long long)st.st_size);
        fail("another size", round);
    }
    ssize_t got = pread(fd, found, sizeof found, 0);
    if (got != st.st_size) fail("pread", round);
    for (ssize_t at = 0; at < got; at++) {
        char right = at >= FROM ? text[at - FROM] : kept ? 'h' : 0;
        if (found[at] != right) {
            errno = 0;
            fprintf(stderr, "byte %zd of %zd is %d\n", at, got, found[at]);
            fail("another byte", round);
        }
    }
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 1000;
    int mapped = argc > 2;
    struct turns *turns = mmap(NULL, sizeof *turns, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = open("f", O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || turns == MAP_FAILED) fail("open", 0);
    if (mapped && (ftruncate(fd, 4096) != 0 || mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED))
        fail("mmap", 0);
    pid_t child = fork();
    if (child == 0) cut(turns, rounds);
    for (long round = 1; round <= rounds; round++) {
        memset(found, 'h', HEAD);
        if (ftruncate(fd, 0) != 0 || pwrite(fd, found, HEAD, 0) != HEAD) fail("pwrite", round);
        memset(text, 'a' + round % 26, SIZE);
        atomic_store(&turns->begun, round);
        if (pwrite(fd, text, SIZE, FROM) != SIZE) fail("pwrite", round);
        wait_for(&turns->done, round, child);
        check(fd, round);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) fail("waitpid", rounds);
    if (unlink("f") != 0) fail("unlink", rounds);
    puts("all rounds");
    return 0;
}
