/* Reading, writing, seeking, holes, truncation, and the faults of bad buffers. */
#include "check.h"
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

static char pattern_byte(size_t i)
{
    return (char)(i * 131 + i / 4096 * 7 + 3);
}

static void fill(char *buffer, size_t from, size_t size)
{
    for (size_t i = 0; i < size; i++) buffer[i] = pattern_byte(from + i);
}

static size_t first_wrong(const char *buffer, size_t from, size_t size)
{
    size_t i = 0;
    while (i < size && buffer[i] == pattern_byte(from + i)) i++;
    return i;
}

static void sequential(void)
{
    int fd = open("seq", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_EQ(write(fd, "", 0), 0);
    CHECK_EQ(write(fd, "hello ", 6), 6);
    CHECK_EQ(write(fd, "world", 5), 5);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 11);
    char buffer[32] = "";
    CHECK_EQ(read(fd, buffer, sizeof buffer), 0);
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    CHECK_EQ(read(fd, buffer, 5), 5);
    CHECK(memcmp(buffer, "hello", 5) == 0);
    CHECK_EQ(read(fd, buffer, sizeof buffer), 6);
    CHECK(memcmp(buffer, " world", 6) == 0);
    CHECK_EQ(read(fd, buffer, sizeof buffer), 0);
    CHECK_EQ(read(fd, buffer, 0), 0);
    CHECK_EQ(pread(fd, buffer, 5, 6), 5);
    CHECK(memcmp(buffer, "world", 5) == 0);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 11); /* pread leaves the offset alone */
    CHECK_EQ(pread(fd, buffer, 5, 100), 0);
    CHECK_ERR(pread(fd, buffer, 5, -1), EINVAL);
    CHECK_EQ(pwrite(fd, "W", 1, 6), 1);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 11);
    CHECK_ERR(pwrite(fd, "W", 1, -1), EINVAL);
    close(fd);
    CHECK_STR(get("seq"), "hello World");
}

static void seeking(void)
{
    put("seek", "0123456789");
    int fd = open("seek", O_RDWR);
    CHECK_EQ(lseek(fd, 0, SEEK_END), 10);
    CHECK_EQ(lseek(fd, -3, SEEK_END), 7);
    CHECK_EQ(lseek(fd, -2, SEEK_CUR), 5);
    CHECK_EQ(lseek(fd, 2, SEEK_CUR), 7);
    CHECK_ERR(lseek(fd, -8, SEEK_CUR), EINVAL);
    CHECK_ERR(lseek(fd, -1, SEEK_SET), EINVAL);
    CHECK_ERR(lseek(fd, -11, SEEK_END), EINVAL);
    CHECK_ERR(lseek(fd, 0, 99), EINVAL);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7); /* a failed seek moves nothing */
    CHECK_EQ(lseek(fd, 1000, SEEK_SET), 1000);
    char byte;
    CHECK_EQ(read(fd, &byte, 1), 0);
    CHECK_EQ(size_of("seek"), 10);
    CHECK_EQ(lseek(fd, 0, SEEK_DATA), 0);
    CHECK_EQ(lseek(fd, 0, SEEK_HOLE), 10);
    CHECK_ERR(lseek(fd, 10, SEEK_DATA), ENXIO);
    CHECK_ERR(lseek(fd, 10, SEEK_HOLE), ENXIO);
    close(fd);
    int pipes[2];
    CHECK_EQ(pipe(pipes), 0);
    CHECK_ERR(lseek(pipes[0], 0, SEEK_CUR), ESPIPE);
    close(pipes[0]);
    close(pipes[1]);
}

static void holes(void)
{
    int fd = open("hole", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_EQ(pwrite(fd, "end", 3, 100000), 3);
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_size, 100003);
    char buffer[4096];
    memset(buffer, 'x', sizeof buffer);
    CHECK_EQ(pread(fd, buffer, sizeof buffer, 50000), (ssize_t)sizeof buffer);
    size_t zeros = 0;
    while (zeros < sizeof buffer && buffer[zeros] == 0) zeros++;
    CHECK_EQ(zeros, sizeof buffer);
    CHECK_EQ(pread(fd, buffer, 10, 99998), 5);
    CHECK(memcmp(buffer, "\0\0end", 5) == 0);
    CHECK_EQ(lseek(fd, 100000, SEEK_HOLE), 100003);
    off_t data = lseek(fd, 0, SEEK_DATA);
    CHECK(data >= 0 && data <= 100000);
    CHECK_EQ(lseek(fd, 200000, SEEK_SET), 200000);
    CHECK_EQ(write(fd, "far", 3), 3);
    CHECK_EQ(size_of("hole"), 200003);
    CHECK_EQ(pread(fd, buffer, 6, 100000), 6);
    CHECK(memcmp(buffer, "end\0\0\0", 6) == 0);
    /* filling a hole from behind, out of order */
    for (int block = 9; block >= 0; block--) {
        memset(buffer, 'a' + block, sizeof buffer);
        CHECK_EQ(pwrite(fd, buffer, sizeof buffer, block * 4096), 4096);
    }
    for (int block = 0; block < 10; block++) {
        CHECK_EQ(pread(fd, buffer, sizeof buffer, block * 4096), 4096);
        CHECK_EQ(buffer[0], 'a' + block);
        CHECK_EQ(buffer[4095], 'a' + block);
    }
    close(fd);
}

static void truncation(void)
{
    put("cut", "0123456789");
    int fd = open("cut", O_RDWR);
    CHECK_EQ(lseek(fd, 8, SEEK_SET), 8);
    CHECK_EQ(ftruncate(fd, 5), 0);
    CHECK_EQ(size_of("cut"), 5);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 8);
    char buffer[16];
    CHECK_EQ(read(fd, buffer, sizeof buffer), 0);
    CHECK_EQ(ftruncate(fd, 10), 0);
    CHECK_EQ(pread(fd, buffer, sizeof buffer, 0), 10);
    CHECK(memcmp(buffer, "01234\0\0\0\0\0", 10) == 0);
    CHECK_EQ(write(fd, "Z", 1), 1);
    CHECK_EQ(pread(fd, buffer, sizeof buffer, 0), 10);
    CHECK(memcmp(buffer, "01234\0\0\0Z\0", 10) == 0);
    CHECK_ERR(ftruncate(fd, -1), EINVAL);
    close(fd);
    CHECK_EQ(truncate("cut", 3), 0);
    CHECK_STR(get("cut"), "012");
    CHECK_ERR(truncate("cut", -1), EINVAL);
    CHECK_ERR(truncate("missing", 0), ENOENT);
    CHECK_ERR(truncate(".", 0), EISDIR);
    CHECK_EQ(truncate("cut", 0), 0);
    CHECK_EQ(size_of("cut"), 0);
    /* cut a large file, let it grow again: old bytes must not come back */
    size_t size = 3 << 20;
    char *large = malloc(size);
    memset(large, 'L', size);
    fd = open("cut", O_RDWR);
    CHECK_EQ(write(fd, large, size), size);
    CHECK_EQ(ftruncate(fd, 1000), 0);
    CHECK_EQ(ftruncate(fd, (off_t)size), 0);
    CHECK_EQ(pread(fd, large, size, 0), size);
    size_t wrong = 0;
    for (size_t i = 0; i < size; i++) wrong += large[i] != (i < 1000 ? 'L' : 0);
    CHECK_EQ(wrong, 0);
    free(large);
    close(fd);
}

static void allocation(void)
{
    int fd = open("alloc", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_EQ(posix_fallocate(fd, 0, 100), 0);
    CHECK_EQ(size_of("alloc"), 100);
    CHECK_EQ(posix_fallocate(fd, 0, 50), 0);
    CHECK_EQ(size_of("alloc"), 100);
    CHECK_EQ(posix_fallocate(fd, -1, 50), EINVAL);
    CHECK_EQ(posix_fallocate(fd, 0, 0), EINVAL);
    CHECK_EQ(pwrite(fd, "data", 4, 0), 4);
    CHECK_EQ(posix_fallocate(fd, 0, 8192), 0);
    CHECK_EQ(size_of("alloc"), 8192);
    char buffer[8];
    CHECK_EQ(pread(fd, buffer, 8, 0), 8);
    CHECK(memcmp(buffer, "data\0\0\0\0", 8) == 0);
    CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL), 0);
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20000) == 0) {
        CHECK_EQ(size_of("alloc"), 8192);
    } else {
        CHECK_EQ(errno, EOPNOTSUPP);
        CHECK_EQ(size_of("alloc"), 8192);
    }
    CHECK_EQ(fsync(fd), 0);
    CHECK_EQ(fdatasync(fd), 0);
    close(fd);
    CHECK_ERR(fsync(fd), EBADF);
}

static void vectors(void)
{
    int fd = open("vec", O_RDWR | O_CREAT | O_TRUNC, 0644);
    struct iovec out[3] = {{"abc", 3}, {"", 0}, {"defg", 4}};
    CHECK_EQ(writev(fd, out, 3), 7);
    CHECK_EQ(pwritev(fd, out, 3, 7), 7);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7);
    CHECK_EQ(pwritev2(fd, out, 3, 14, 0), 7);
    char a[2], b[20];
    struct iovec in[2] = {{a, 2}, {b, sizeof b}};
    CHECK_EQ(preadv(fd, in, 2, 5), 16);
    CHECK(memcmp(a, "fg", 2) == 0);
    CHECK(memcmp(b, "abcdefgabcdefg", 14) == 0);
    CHECK_EQ(readv(fd, in, 2), 14);
    CHECK(memcmp(a, "ab", 2) == 0);
    CHECK(memcmp(b, "cdefgabcdefg", 12) == 0);
    CHECK_EQ(readv(fd, in, 2), 0);
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    CHECK_EQ(preadv2(fd, in, 1, -1, 0), 2); /* -1: the file's own offset */
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 2);
    CHECK_ERR(readv(fd, in, -1), EINVAL);
    CHECK_ERR(writev(fd, out, IOV_MAX + 1), EINVAL);
    CHECK_EQ(writev(fd, out, 0), 0);
    close(fd);
    CHECK_STR(get("vec"), "abcdefgabcdefgabcdefg");
}

static void bad_buffers(void)
{
    int fd = open("fault", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_EQ(write(fd, "0123456789", 10), 10);
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    CHECK_EQ(mprotect(pages + 4096, 4096, PROT_NONE), 0);
    char *bad = pages + 4096;
    CHECK_ERR(pread(fd, bad, 10, 0), EFAULT);
    CHECK_ERR(pwrite(fd, bad, 10, 0), EFAULT);
    CHECK_EQ(read(fd, bad, 10), 0); /* at the end: nothing to copy */
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    CHECK_ERR(read(fd, bad, 10), EFAULT);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
    CHECK_ERR(write(fd, bad, 10), EFAULT);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
    CHECK_EQ(size_of("fault"), 10);
    struct iovec in = {bad, 4};
    CHECK_ERR(readv(fd, &in, 1), EFAULT);
    CHECK_ERR(open((char *)8, O_RDONLY), EFAULT);
    CHECK_ERR(stat("fault", (struct stat *)(void *)bad), EFAULT);
    CHECK_ERR(mkdir((char *)8, 0755), EFAULT);
    CHECK_STR(get("fault"), "0123456789");
    munmap(pages, 8192);
    close(fd);
}

static void large(void)
{
    size_t size = (9u << 20) + 12345;
    char *buffer = malloc(size);
    fill(buffer, 0, size);
    int fd = open("large", O_RDWR | O_CREAT | O_TRUNC, 0644);
    size_t step = 1, done_bytes = 0; /* growing, odd write sizes */
    while (done_bytes < size) {
        size_t n = step < size - done_bytes ? step : size - done_bytes;
        ssize_t written = write(fd, buffer + done_bytes, n);
        if (written <= 0) break;
        done_bytes += (size_t)written;
        step = step * 3 / 2 + 7;
    }
    CHECK_EQ(done_bytes, size);
    CHECK_EQ(size_of("large"), size);
    memset(buffer, 0, size);
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    size_t total = 0;
    ssize_t n;
    while ((n = read(fd, buffer + total, size - total < 100003 ? size - total : 100003)) > 0)
        total += (size_t)n;
    CHECK_EQ(total, size);
    CHECK_EQ(first_wrong(buffer, 0, size), size);
    /* unaligned windows across chunk borders */
    for (size_t at = (2u << 20) - 5; at < size; at += (2u << 20) + 1) {
        CHECK_EQ(pread(fd, buffer, 10, (off_t)at), size - at < 10 ? size - at : 10);
        CHECK_EQ(first_wrong(buffer, at, 10), 10);
    }
    /* one write over everything, one read of everything */
    for (size_t i = 0; i < size; i++) buffer[i] = (char)(i % 251);
    CHECK_EQ(pwrite(fd, buffer, size, 0), size);
    memset(buffer, 0, size);
    CHECK_EQ(pread(fd, buffer, size, 0), size);
    size_t wrong = 0;
    for (size_t i = 0; i < size; i++) wrong += buffer[i] != (char)(i % 251);
    CHECK_EQ(wrong, 0);
    free(buffer);
    close(fd);
}

/* Copies `from` by one of the kernel's copying calls, falling back as cp does. */
static void copy_by(const char *how, ssize_t (*call)(int, int, size_t))
{
    int in = open("large", O_RDONLY);
    int out = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0644);
    ssize_t n;
    while ((n = call(in, out, 1 << 20)) > 0) continue;
    if (n < 0) {
        int refused = errno;
        CHECK(refused == EXDEV || refused == EINVAL || refused == ENOSYS || refused == EOPNOTSUPP);
        fprintf(stderr, "%s is refused, programs fall back\n", how);
        char buffer[65536];
        while ((n = read(in, buffer, sizeof buffer)) > 0) CHECK_EQ(write(out, buffer, n), n);
    }
    CHECK_EQ(size_of("copy"), size_of("large"));
    char a[4096], b[4096];
    off_t at = 0;
    int same = 1;
    while ((n = pread(in, a, sizeof a, at)) > 0) {
        same &= pread(out, b, sizeof b, at) == n && memcmp(a, b, (size_t)n) == 0;
        at += n;
    }
    CHECK(same);
    close(in);
    close(out);
}

static ssize_t by_sendfile(int in, int out, size_t size)
{
    return sendfile(out, in, NULL, size);
}

static ssize_t by_copy_file_range(int in, int out, size_t size)
{
    return copy_file_range(in, NULL, out, NULL, size, 0);
}

static void offsets_of_copies(void)
{
    put("from", "0123456789");
    int in = open("from", O_RDONLY);
    int out = open("to", O_RDWR | O_CREAT | O_TRUNC, 0644);
    off_t at = 4;
    ssize_t n = sendfile(out, in, &at, 3);
    if (n >= 0) {
        CHECK_EQ(n, 3);
        CHECK_EQ(at, 7);
        CHECK_EQ(lseek(in, 0, SEEK_CUR), 0);
        CHECK_STR(get("to"), "456");
    } else {
        int refused = errno; /* CHECK clears it */
        CHECK(refused == EINVAL || refused == ENOSYS);
    }
    int pipes[2];
    CHECK_EQ(pipe(pipes), 0);
    n = sendfile(pipes[1], in, NULL, 10); /* from a file into a pipe */
    if (n >= 0) {
        char buffer[16];
        CHECK_EQ(n, 10);
        CHECK_EQ(read(pipes[0], buffer, sizeof buffer), 10);
        CHECK(memcmp(buffer, "0123456789", 10) == 0);
    } else {
        int refused = errno; /* CHECK clears it */
        CHECK(refused == EINVAL || refused == ENOSYS);
    }
    CHECK_EQ(write(pipes[1], "piped", 5), 5);
    n = splice(pipes[0], NULL, out, NULL, 5, 0); /* from a pipe into a file */
    int refused = errno; /* CHECK clears it */
    if (n < 0) CHECK(refused == EINVAL || refused == ENOSYS);
    else CHECK_EQ(n, 5);
    close(pipes[0]);
    close(pipes[1]);
    close(in);
    close(out);
}

static void private_mapping(void)
{
    int fd = open("large", O_RDONLY);
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    char *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(map != MAP_FAILED);
    if (map != MAP_FAILED) {
        char buffer[4096];
        int same = 1;
        for (off_t at = 0; at + 4096 <= st.st_size; at += 4096)
            same &= pread(fd, buffer, 4096, at) == 4096 && memcmp(buffer, map + at, 4096) == 0;
        CHECK(same);
        munmap(map, (size_t)st.st_size);
    }
    map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 4096);
    CHECK(map != MAP_FAILED);
    if (map != MAP_FAILED) {
        char before, after;
        CHECK_EQ(pread(fd, &before, 1, 4096), 1);
        CHECK_EQ(map[0], before);
        map[0] = (char)(before + 1);
        CHECK_EQ(pread(fd, &after, 1, 4096), 1);
        CHECK_EQ(after, before); /* private: the file does not change */
        munmap(map, 8192);
    }
    CHECK_EQ(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 5) == MAP_FAILED ? errno : 0, EINVAL);
    close(fd);
}

int main(int argc, char **argv)
{
    enter(argc, argv);
    sequential();
    seeking();
    holes();
    truncation();
    allocation();
    vectors();
    bad_buffers();
    large();
    copy_by("sendfile", by_sendfile);
    copy_by("copy_file_range", by_copy_file_range);
    offsets_of_copies();
    private_mapping();
    return done();
}
