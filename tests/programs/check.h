/* Checks that report and go on, so that one run shows every failure. A program
 * takes a directory as its argument, works in a fresh folder inside it, and ends
 * with `return done();`. What it asserts must be true of a local file system. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static long checks;
static long failed;

/* A condition; errno is shown because it is nearly always the question. */
#define CHECK(condition)                                                        \
    do {                                                                        \
        checks++;                                                               \
        errno = 0;                                                              \
        if (!(condition)) {                                                     \
            int check_errno = errno;                                            \
            failed++;                                                           \
            fprintf(stderr, "%s:%d: %s (errno %s)\n", __FILE__, __LINE__,       \
                    #condition, strerrorname_np(check_errno));                  \
        }                                                                       \
    } while (0)

/* Two integers. */
#define CHECK_EQ(found, wanted)                                                 \
    do {                                                                        \
        checks++;                                                               \
        errno = 0;                                                              \
        long long check_found = (long long)(found);                             \
        int check_errno = errno;                                                \
        long long check_wanted = (long long)(wanted);                           \
        if (check_found != check_wanted) {                                      \
            failed++;                                                           \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld (errno %s)\n",         \
                    __FILE__, __LINE__, #found, check_found, check_wanted,      \
                    strerrorname_np(check_errno));                              \
        }                                                                       \
    } while (0)

/* A call that must give -1 and this errno. */
#define CHECK_ERR(call, wanted)                                                 \
    do {                                                                        \
        checks++;                                                               \
        errno = 0;                                                              \
        long long check_found = (long long)(call);                              \
        int check_errno = errno;                                                \
        if (check_found != -1 || check_errno != (wanted)) {                     \
            failed++;                                                           \
            fprintf(stderr, "%s:%d: %s gives %lld and %s, not -1 and %s\n",     \
                    __FILE__, __LINE__, #call, check_found,                     \
                    strerrorname_np(check_errno), strerrorname_np(wanted));     \
        }                                                                       \
    } while (0)

/* Two strings. */
#define CHECK_STR(found, wanted)                                                \
    do {                                                                        \
        checks++;                                                               \
        const char *check_found = (found);                                      \
        if (check_found == NULL || strcmp(check_found, (wanted)) != 0) {        \
            failed++;                                                           \
            fprintf(stderr, "%s:%d: %s is \"%s\", not \"%s\"\n", __FILE__,      \
                    __LINE__, #found, check_found ? check_found : "(null)",     \
                    (wanted));                                                  \
        }                                                                       \
    } while (0)

/* Enters a fresh folder below the directory given on the command line. */
static inline void enter(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        exit(2);
    }
    /* memcheck cannot grow the stack for a handler: it is there before. */
    volatile char stack[1 << 17];
    for (size_t at = 0; at < sizeof stack; at += 4096) stack[at] = 0;
    const char *name = strrchr(argv[0], '/');
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s.work", argv[1], name ? name + 1 : argv[0]);
    if (mkdir(path, 0755) != 0 || chdir(path) != 0) {
        perror(path);
        exit(2);
    }
    umask(022);
}

static inline int done(void)
{
    fflush(stdout);
    fprintf(stderr, "%ld checks, %ld failed\n", checks, failed);
    return failed == 0 ? 0 : 1;
}

/* For a forked child: tells the parent's reap() how its checks went. */
static inline void child_done(void)
{
    _exit(failed > 100 ? 100 : (int)failed);
}

/* Starts a child whose checks count from zero; true in the child. */
static inline int in_child(pid_t *child)
{
    fflush(NULL);
    *child = fork();
    if (*child == 0) {
        checks = 0;
        failed = 0;
        return 1;
    }
    return 0;
}

/* Waits for a child of in_child() and adds its failures to ours. */
#define reap(child)                                                             \
    do {                                                                        \
        int reap_status = -1;                                                   \
        CHECK_EQ(waitpid((child), &reap_status, 0), (child));                   \
        CHECK(WIFEXITED(reap_status));                                          \
        if (WIFEXITED(reap_status)) failed += WEXITSTATUS(reap_status);         \
    } while (0)

/* Makes a file of this content by open and write. */
static inline void put(const char *path, const char *content)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    size_t size = strlen(content);
    if (fd < 0 || write(fd, content, size) != (ssize_t)size || close(fd) != 0) {
        failed++;
        fprintf(stderr, "put %s: %s\n", path, strerror(errno));
    }
}

/* The content of a small file as a string, in a static buffer. */
static inline const char *get(const char *path)
{
    static char buffer[65536];
    int fd = open(path, O_RDONLY);
    if (fd < 0) return NULL;
    size_t size = 0;
    ssize_t n;
    while ((n = read(fd, buffer + size, sizeof buffer - 1 - size)) > 0) size += (size_t)n;
    close(fd);
    buffer[size] = 0;
    return n < 0 ? NULL : buffer;
}

static inline off_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? st.st_size : -1;
}

#define UNUSED __attribute__((unused))

#endif
