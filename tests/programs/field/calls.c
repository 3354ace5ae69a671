/* The rarer calls that tools of the field make: mremap of a mapped table that grows,
 * and every flag of renameat2. Says what it finds; the kernel says what is right. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void put(const char *name, const char *content)
{
    int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd < 0 || write(fd, content, strlen(content)) < 0) perror(name);
    close(fd);
}

static void say(const char *what, long answer)
{
    printf("%s: %ld %s\n", what, answer, answer < 0 ? strerrorname_np(errno) : "");
}

static const char *content(const char *name)
{
    static char texts[2][64];
    static int turn;
    char *text = texts[turn ^= 1];
    int fd = open(name, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof *texts - 1);
    if (fd >= 0) close(fd);
    text[n < 0 ? 0 : n] = 0;
    return n < 0 ? "(none)" : text;
}

static void growing(void)
{
    const size_t page = 4096;
    int fd = open("table", O_CREAT | O_RDWR, 0644);
    char *map = NULL;
    for (size_t pages = 1; pages <= 256; pages *= 4) {
        size_t before = pages / 4 * page;
        say("grow", ftruncate(fd, (off_t)(pages * page)));
        map = before ? mremap(map, before, pages * page, MREMAP_MAYMOVE)
                     : mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) { perror("map"); return; }
        for (size_t i = before; i < pages * page; i += 512) memcpy(map + i, &i, sizeof i);
    }
    size_t sum = 0, value;
    for (size_t i = 0; i < 256 * page; i += 512) { memcpy(&value, map + i, sizeof value); sum += value; }
    printf("sum %zu\n", sum);
    char *twin = mremap(map, 0, 16 * page, MREMAP_MAYMOVE);
    if (twin == MAP_FAILED) { perror("twin"); return; }
    memcpy(twin + 100, "twin", 4);
    printf("%.4s\n", map + 100);
    char *room = mmap(NULL, 300 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *moved = mremap(map, 256 * page, 200 * page, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    printf("%d %.4s\n", moved == room, moved + 100);
    char word[5] = "";
    say("pread", pread(fd, word, 4, 100));
    printf("%s\n", word);
    say("sync", msync(moved, 200 * page, MS_SYNC));
    munmap(moved, 300 * page);
    munmap(twin, 16 * page);
    close(fd);
}

static void renaming(void)
{
    put("a", "A"); put("b", "B");
    say("noreplace", renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
    say("noreplace free", renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
    say("exchange", renameat2(AT_FDCWD, "c", AT_FDCWD, "b", RENAME_EXCHANGE));
    printf("%s %s\n", content("b"), content("c"));
    mkdir("folder", 0755); put("folder/inside", "I");
    say("exchange with a folder", renameat2(AT_FDCWD, "folder", AT_FDCWD, "b", RENAME_EXCHANGE));
    printf("%s %s\n", content("b/inside"), content("folder"));
    say("exchange with nothing", renameat2(AT_FDCWD, "b", AT_FDCWD, "nothing", RENAME_EXCHANGE));
    say("into itself", renameat2(AT_FDCWD, "b", AT_FDCWD, "b/deeper", RENAME_EXCHANGE));
    say("both flags", renameat2(AT_FDCWD, "b", AT_FDCWD, "c", RENAME_EXCHANGE | RENAME_NOREPLACE));
    say("unknown flag", renameat2(AT_FDCWD, "b", AT_FDCWD, "c", 1 << 7));
    int dir = open("b", O_RDONLY | O_DIRECTORY);
    say("by descriptors", renameat2(dir, "inside", dir, "renamed", RENAME_NOREPLACE));
    printf("%s\n", content("b/renamed"));
    close(dir);
}

int main(void)
{
    growing();
    renaming();
    return 0;
}
