/* A producer or consumer that the fault tests stop in mid-work.
 *
 *   source write FILE NOTE BYTES   writes 4 KiB blocks for ever, or so many bytes
 *                                  and then sleeps; writes its process id to NOTE
 *                                  once the first block is out
 *   source end FILE NOTE HOW       writes 8 KiB and its process id, waits for the
 *                                  file NOTE.go, and ends without a close: HOW is
 *                                  return, exit, _exit, _Exit, quick_exit, or raw
 *   source read FILE NOTE          reads to the end; NOTE gets what ended it:
 *                                  "end SIZE" or "errno NAME after SIZE"
 *   source call FILE NOTE          reads one byte again and again, and tries an
 *                                  open, a stat and a write as well; NOTE gets the
 *                                  errno of each once the read fails
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whoever sees the note sees all of it. */
static void note(const char *path, const char *text)
{
    char temporary[4096];
    snprintf(temporary, sizeof temporary, "%s.part", path);
    FILE *f = fopen(temporary, "w");
    if (!f || fputs(text, f) == EOF || fclose(f) != 0 || rename(temporary, path) != 0) {
        perror(path);
        exit(3);
    }
}

static int writes(const char *path, const char *told, long limit)
{
    static char block[4096];
    char text[32];
    memset(block, 'x', sizeof block);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    for (long done = 0; limit == 0 || done < limit; done += (long)sizeof block) {
        if (write(fd, block, sizeof block) != (ssize_t)sizeof block) {
            perror(path);
            return 1;
        }
        if (done == 0) {
            snprintf(text, sizeof text, "%d\n", (int)getpid());
            note(told, text);
        }
        if (limit == 0 && done % (1 << 20) == 0) usleep(1000);
    }
    for (;;) pause();
}

static int ends(const char *path, const char *told, const char *how)
{
    static char block[8192];
    char text[32], go[4096];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, block, sizeof block) != (ssize_t)sizeof block) return 1;
    snprintf(text, sizeof text, "%d\n", (int)getpid());
    note(told, text);
    snprintf(go, sizeof go, "%s.go", told);
    while (access(go, F_OK) != 0) usleep(1000);
    if (!strcmp(how, "exit")) exit(0);
    if (!strcmp(how, "_exit")) _exit(0);
    if (!strcmp(how, "_Exit")) _Exit(0);
    if (!strcmp(how, "quick_exit")) quick_exit(0);
    if (!strcmp(how, "raw")) syscall(SYS_exit_group, 0);
    return strcmp(how, "return") != 0;
}

static int reads(const char *path, const char *told)
{
    static char block[10000];
    char text[64];
    long size = 0;
    ssize_t n;
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        snprintf(text, sizeof text, "open %s\n", strerrorname_np(errno));
        note(told, text);
        return 1;
    }
    while ((n = read(fd, block, sizeof block)) > 0) size += n;
    if (n == 0) snprintf(text, sizeof text, "end %ld\n", size);
    else snprintf(text, sizeof text, "errno %s after %ld\n", strerrorname_np(errno), size);
    note(told, text);
    return n == 0 ? 0 : 1;
}

static const char *outcome(long result)
{
    return result >= 0 ? "fine" : strerrorname_np(errno);
}

static int calls(const char *path, const char *told)
{
    char byte, other[4096], text[256], number[32];
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || write(fd, "x", 1) != 1) return 1;
    snprintf(number, sizeof number, "%d\n", (int)getpid());
    snprintf(other, sizeof other, "%s.pid", told);
    note(other, number);
    while (pread(fd, &byte, 1, 0) == 1) usleep(1000);
    int used = snprintf(text, sizeof text, "read %s\n", strerrorname_np(errno));
    used += snprintf(text + used, sizeof text - used, "write %s\n", outcome(write(fd, "x", 1)));
    used += snprintf(text + used, sizeof text - used, "fstat %s\n", outcome(fstat(fd, &st)));
    used += snprintf(text + used, sizeof text - used, "open %s\n", outcome(open(path, O_RDONLY)));
    used += snprintf(text + used, sizeof text - used, "stat %s\n", outcome(stat(path, &st)));
    used += snprintf(text + used, sizeof text - used, "close %s\n", outcome(close(fd)));
    note(told, text);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < (!strcmp(argv[argc > 1], "end") ? 5 : 4)) return 2;
    if (!strcmp(argv[1], "write")) return writes(argv[2], argv[3], argc > 4 ? atol(argv[4]) : 0);
    if (!strcmp(argv[1], "end")) return ends(argv[2], argv[3], argv[4]);
    if (!strcmp(argv[1], "read")) return reads(argv[2], argv[3]);
    return calls(argv[2], argv[3]);
}
