/* As many processes, or open file descriptions, as a session can have, and one more.
 *
 *   crowd processes FILE       each opens the file
 *   crowd descriptions FILE    each opens it as often as it may
 *
 * Prints how many there were, and the error of the one that was too many; then whether
 * there is room again when some are gone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 4000 };
/* What a child has come to: how much it has, and the error that ended that. */
struct report { int count, error; };
static pid_t children[MOST];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Opens the file until that fails; descriptors stay open. */
static struct report opens(const char *file)
{
    struct report report = {0, 0};
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) fail("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) fail("setrlimit");
    while (open(file, O_RDONLY | O_CLOEXEC) >= 0) report.count++;
    report.error = errno;
    return report;
}

static struct report looks(const char *file)
{
    /* By a call for which it must have joined the session. */
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return (struct report){0, errno};
    close(fd);
    return (struct report){1, 0};
}

static struct report start(int number, int processes, const char *file)
{
    int ends[2];
    struct report report;
    if (pipe2(ends, O_CLOEXEC) != 0) fail("pipe2");
    children[number] = fork();
    if (children[number] < 0) fail("fork");
    if (children[number] == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        report = processes ? looks(file) : opens(file);
        if (write(ends[1], &report, sizeof report) != sizeof report) _exit(1);
        for (;;) pause();
    }
    close(ends[1]);
    if (read(ends[0], &report, sizeof report) != sizeof report) fail("read");
    close(ends[0]);
    return report;
}

static void end(int from, int to)
{
    for (int i = from; i < to; i++) kill(children[i], SIGKILL);
    for (int i = from; i < to; i++) waitpid(children[i], NULL, 0);
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    int processes = strcmp(argv[1], "processes") == 0, number = 0, total = 0;
    struct report report = {0, 0};
    for (; number < MOST - 1; number++) {
        report = start(number, processes, argv[2]);
        total += report.count;
        if (processes ? report.error != 0 : report.error != EMFILE) break;
    }
    printf("%d %s, then %s\n", total, argv[1], strerrorname_np(report.error));
    /* The first of them make room. */
    end(0, number / 2 + 1);
    for (int i = 0; i < 500; i++) {
        if (looks(argv[2]).count == 1 && start(0, processes, argv[2]).count > 0) {
            puts("room again");
            break;
        }
        end(0, 1);
        usleep(10000);
    }
    end(0, 1);
    end(number / 2 + 1, number + 1);
    return 0;
}
