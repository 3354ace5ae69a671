/* Mappings of files: what they show, what they change, what they outlive, and
 * how they are refused. */
#include "mapping.h"

static char byte_at(size_t i)
{
    return (char)(i * 7 + i / 251 + 1);
}

/* A file of `size` bytes of byte_at(), open for reading and writing. */
static int make(const char *path, size_t size)
{
    char *bytes = malloc(size + 1);
    for (size_t i = 0; i < size; i++) bytes[i] = byte_at(i);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, bytes, size), size);
    free(bytes);
    return fd;
}

/* How many bytes of a mapping differ from the file that make() makes. */
static size_t wrong(const char *bytes, size_t from, size_t size)
{
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += bytes[i] != byte_at(from + i);
    return count;
}

static size_t not_zero(const char *bytes, size_t size)
{
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += bytes[i] != 0;
    return count;
}

/* Maps, or lets every later check fail where it stands. */
static char *map(int fd, size_t size, int protection, int flags, off_t offset)
{
    char *bytes = mmap(NULL, size, protection, flags, fd, offset);
    CHECK(bytes != MAP_FAILED);
    if (bytes != MAP_FAILED) return bytes;
    fprintf(stderr, "without a mapping there is nothing to check\n");
    done();
    exit(1);
}

static void shared(void)
{
    int fd = make("shared", 10000);
    char *bytes = map(fd, 10000, ALL, MAP_SHARED, 0), buffer[16];
    CHECK_EQ(wrong(bytes, 0, 10000), 0);
    CHECK_EQ(not_zero(bytes + 10000, 3 * PAGE - 10000), 0);
    memcpy(bytes + 5000, "by the mapping", 14);
    CHECK_EQ(pread(fd, buffer, 14, 5000), 14);
    CHECK(memcmp(buffer, "by the mapping", 14) == 0);
    CHECK_EQ(pwrite(fd, "by the call", 11, 4090), 11);
    CHECK(memcmp(bytes + 4090, "by the call", 11) == 0);
    int other = open("shared", O_RDONLY);
    CHECK_EQ(lseek(other, 5000, SEEK_SET), 5000);
    CHECK_EQ(read(other, buffer, 6), 6);
    CHECK(memcmp(buffer, "by the", 6) == 0);
    close(other);
    CHECK_EQ(size_of("shared"), 10000); /* the tail of the page is no part of it */
    CHECK_EQ(munmap(bytes, 10000), 0);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10000);
    close(fd);
    fd = open("shared", O_RDONLY);
    CHECK_EQ(pread(fd, buffer, 14, 5000), 14);
    CHECK(memcmp(buffer, "by the mapping", 14) == 0);
    close(fd);
}

static void private(void)
{
    int fd = make("private", 9000);
    char *bytes = map(fd, 9000, ALL, MAP_PRIVATE, 0), buffer[8];
    CHECK_EQ(wrong(bytes, 0, 9000), 0);
    memcpy(bytes + 100, "mine", 4);
    CHECK_EQ(pread(fd, buffer, 4, 100), 4);
    CHECK_EQ(wrong(buffer, 100, 4), 0);
    CHECK(memcmp(bytes + 100, "mine", 4) == 0);
    /* given up, the pages are the file's again */
    CHECK_EQ(madvise(bytes, 9000, MADV_DONTNEED), 0);
    CHECK_EQ(wrong(bytes, 0, 9000), 0);
    CHECK_EQ(munmap(bytes, 9000), 0);
    close(fd);
    /* a descriptor for reading is enough */
    fd = open("private", O_RDONLY);
    bytes = map(fd, 9000, ALL, MAP_PRIVATE, 0);
    bytes[8000] = 'x';
    CHECK_EQ(bytes[8000], 'x');
    CHECK_EQ(pread(fd, buffer, 1, 8000), 1);
    CHECK_EQ(buffer[0], byte_at(8000));
    CHECK_EQ(munmap(bytes, 9000), 0);
    close(fd);
}

static void ends(void)
{
    int fd = make("ends", PAGE + 100);
    char *bytes = map(fd, 4 * PAGE, ALL, MAP_SHARED, 0);
    CHECK_EQ(touch(bytes + 2 * PAGE - 1, 1), 0);
    CHECK_EQ(touch(bytes + 2 * PAGE, 0), SIGBUS);
    CHECK_EQ(touch(bytes + 4 * PAGE - 1, 1), SIGBUS);
    /* bytes behind the end are not written, and gone when the file grows */
    bytes[PAGE + 200] = 'x';
    char byte;
    CHECK_EQ(size_of("ends"), PAGE + 100);
    CHECK_EQ(pread(fd, &byte, 1, PAGE + 200), 0);
    bytes[PAGE + 200] = 0;
    CHECK_EQ(pwrite(fd, "more", 4, 3 * PAGE), 4);
    CHECK_EQ(touch(bytes + 2 * PAGE, 0), 0);
    CHECK(memcmp(bytes + 3 * PAGE, "more", 4) == 0);
    CHECK_EQ(not_zero(bytes + PAGE + 100, 2 * PAGE - 100), 0);
    CHECK_EQ(not_zero(bytes + 3 * PAGE + 4, PAGE - 4), 0);
    CHECK_EQ(munmap(bytes, 4 * PAGE), 0);
    /* a system call that meets such a page fails with EFAULT */
    bytes = map(fd, 8 * PAGE, PROT_READ, MAP_SHARED, 0);
    int pipes[2];
    CHECK_EQ(pipe(pipes), 0);
    CHECK_ERR(write(pipes[1], bytes + 5 * PAGE, 10), EFAULT);
    int out = open("ends.copy", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_ERR(write(out, bytes + 5 * PAGE, 10), EFAULT);
    CHECK_EQ(write(out, bytes, PAGE + 100), PAGE + 100);
    CHECK_EQ(size_of("ends.copy"), PAGE + 100);
    close(out);
    close(pipes[0]);
    close(pipes[1]);
    CHECK_EQ(munmap(bytes, 8 * PAGE), 0);
    close(fd);
    /* an empty file, mapped, has no page at all */
    fd = make("empty", 0);
    bytes = map(fd, PAGE, ALL, MAP_SHARED, 0);
    CHECK_EQ(touch(bytes, 0), SIGBUS);
    CHECK_EQ(write(fd, "now", 3), 3);
    CHECK(memcmp(bytes, "now\0", 4) == 0);
    CHECK_EQ(munmap(bytes, PAGE), 0);
    close(fd);
}

static void offsets(void)
{
    size_t size = (3u << 20) + 777;
    int fd = make("offsets", size);
    static const off_t places[] = {0, PAGE, 5 * PAGE, (2 << 20) - PAGE, 2 << 20, 3 << 20};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        off_t at = places[i];
        size_t length = size - (size_t)at < 3 * PAGE ? size - (size_t)at : 3 * PAGE;
        char *bytes = map(fd, length, PROT_READ, MAP_SHARED, at);
        CHECK_EQ(wrong(bytes, (size_t)at, length), 0);
        CHECK_EQ(munmap(bytes, length), 0);
    }
    char *whole = map(fd, size, ALL, MAP_SHARED | MAP_POPULATE, 0);
    CHECK_EQ(wrong(whole, 0, size), 0);
    /* two mappings of one page are one page */
    char *second = map(fd, PAGE, ALL, MAP_SHARED, 2 << 20);
    second[5] = 'S';
    CHECK_EQ(whole[(2 << 20) + 5], 'S');
    whole[(2 << 20) + 6] = 'W';
    CHECK_EQ(second[6], 'W');
    /* a part in the middle is unmapped, the rest stays */
    CHECK_EQ(munmap(whole + PAGE, 2 * PAGE), 0);
    CHECK_EQ(touch(whole + PAGE, 0), SIGSEGV);
    CHECK_EQ(touch(whole, 1), 0);
    CHECK_EQ(wrong(whole + 3 * PAGE, 3 * PAGE, PAGE), 0);
    CHECK_EQ(munmap(whole, size), 0);
    CHECK_EQ(munmap(second, PAGE), 0);
    close(fd);
}

static void protections(void)
{
    int fd = make("protections", 2 * PAGE);
    char *bytes = map(fd, 2 * PAGE, PROT_NONE, MAP_SHARED, 0);
    CHECK_EQ(touch(bytes, 0), SIGSEGV);
    CHECK_EQ(mprotect(bytes, PAGE, PROT_READ), 0);
    CHECK_EQ(wrong(bytes, 0, PAGE), 0);
    CHECK_EQ(touch(bytes, 1), SIGSEGV);
    CHECK_EQ(touch(bytes + PAGE, 0), SIGSEGV);
    CHECK_EQ(mprotect(bytes, 2 * PAGE, ALL), 0);
    bytes[PAGE] = 'p';
    char byte;
    CHECK_EQ(pread(fd, &byte, 1, PAGE), 1);
    CHECK_EQ(byte, 'p');
    CHECK_EQ(munmap(bytes, 2 * PAGE), 0);
    close(fd);
    /* what the descriptor did not allow, mprotect does not give */
    fd = open("protections", O_RDONLY);
    bytes = map(fd, PAGE, PROT_READ, MAP_SHARED, 0);
    CHECK_ERR(mprotect(bytes, PAGE, ALL), EACCES);
    CHECK_EQ(munmap(bytes, PAGE), 0);
    close(fd);
}

static void errors(void)
{
    int fd = make("errors", 2 * PAGE), read_only = open("errors", O_RDONLY), write_only = open("errors", O_WRONLY);
    int append = open("errors", O_RDWR | O_APPEND), directory = open(".", O_RDONLY | O_DIRECTORY), name = open("errors", O_PATH);
#define FAILS(length, protection, flags, descriptor, offset, error) \
    CHECK_ERR((intptr_t)mmap(NULL, length, protection, flags, descriptor, offset), error)
    FAILS(PAGE, ALL, MAP_SHARED, read_only, 0, EACCES);
    FAILS(PAGE, PROT_READ, MAP_SHARED, write_only, 0, EACCES);
    FAILS(PAGE, PROT_READ, MAP_PRIVATE, write_only, 0, EACCES);
    FAILS(PAGE, PROT_WRITE, MAP_SHARED, write_only, 0, EACCES);
    FAILS(0, PROT_READ, MAP_SHARED, fd, 0, EINVAL);
    FAILS(PAGE, PROT_READ, MAP_SHARED, fd, 100, EINVAL);
    FAILS(PAGE, PROT_READ, MAP_SHARED, fd, -1, EINVAL);
    FAILS(PAGE, PROT_READ, 0, fd, 0, EINVAL);
    FAILS(PAGE, PROT_READ, MAP_SHARED, -1, 0, EBADF);
    FAILS(PAGE, PROT_READ, MAP_SHARED, 987, 0, EBADF);
    FAILS(PAGE, PROT_READ, MAP_SHARED, name, 0, EBADF);
    FAILS(PAGE, PROT_READ, MAP_SHARED, directory, 0, ENODEV);
    FAILS(PAGE, PROT_READ, MAP_PRIVATE, directory, 0, ENODEV);
    FAILS(PAGE, PROT_READ, MAP_SHARED, fd, INT64_MAX - (PAGE - 1), EOVERFLOW);
    FAILS((size_t)1 << 62, PROT_READ, MAP_SHARED, fd, 0, ENOMEM);
    FAILS(PAGE, PROT_READ, MAP_SHARED_VALIDATE | (1 << 23), fd, 0, EOPNOTSUPP);
    char *bytes = map(append, PAGE, ALL, MAP_SHARED, 0);
    bytes[1] = 'a'; /* a mapping knows nothing of O_APPEND */
    CHECK_EQ(munmap(bytes, PAGE), 0);
    bytes = map(fd, PAGE, PROT_READ, MAP_SHARED_VALIDATE, 0);
    CHECK_EQ(bytes[1], 'a');
    CHECK_ERR(munmap(bytes + 1, PAGE), EINVAL);
    CHECK_ERR(munmap(bytes, 0), EINVAL);
    CHECK_EQ(munmap(bytes, PAGE), 0);
    CHECK_EQ(size_of("errors"), 2 * PAGE);
    int all[] = {fd, read_only, write_only, append, directory, name};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) close(all[i]);
}

/* A file whose last descriptor, or last name, is gone lives on in its mapping. */
static void outlives(void)
{
    close(make("closed", 5000));
    int fd = open("closed", O_RDWR);
    char *bytes = map(fd, 5000, ALL, MAP_SHARED, 0), byte = 0;
    close(fd);
    CHECK_EQ(wrong(bytes, 0, 5000), 0);
    bytes[4999] = 'c';
    fd = open("closed", O_RDWR);
    CHECK_EQ(pread(fd, &byte, 1, 4999), 1);
    CHECK_EQ(byte, 'c');
    CHECK_EQ(pwrite(fd, "C", 1, 0), 1);
    CHECK_EQ(bytes[0], 'C');
    close(fd);
    CHECK_EQ(rename("closed", "renamed"), 0);
    bytes[1] = 'r';
    fd = open("renamed", O_RDONLY);
    CHECK_EQ(pread(fd, &byte, 1, 1), 1);
    CHECK_EQ(byte, 'r');
    CHECK_EQ(unlink("renamed"), 0);
    bytes[2] = 'u';
    CHECK_EQ(pread(fd, &byte, 1, 2), 1);
    CHECK_EQ(byte, 'u');
    close(fd);
    CHECK_EQ(bytes[4999], 'c');
    CHECK_ERR(open("renamed", O_RDONLY), ENOENT);
    /* a new file of the name is another file */
    fd = make("renamed", 5000);
    CHECK_EQ(bytes[2], 'u');
    bytes[3] = 'x';
    CHECK_EQ(pread(fd, &byte, 1, 3), 1);
    CHECK_EQ(byte, byte_at(3));
    close(fd);
    CHECK_EQ(munmap(bytes, 5000), 0);
    /* written by the mapping alone, after the last close */
    fd = open("late", O_RDWR | O_CREAT | O_EXCL, 0644);
    CHECK_EQ(ftruncate(fd, PAGE), 0);
    bytes = map(fd, PAGE, ALL, MAP_SHARED, 0);
    close(fd);
    strcpy(bytes, "late");
    CHECK_EQ(munmap(bytes, PAGE), 0);
    CHECK_STR(get("late"), "late");
    CHECK_EQ(size_of("late"), PAGE);
}

static void placement(void)
{
    int fd = make("fixed", 2 * PAGE), other = open("fixed.other", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_EQ(write(other, "other", 5), 5);
    char *room = mmap(NULL, 4 * PAGE, ALL, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(room, 'r', 4 * PAGE);
    CHECK(mmap(room + PAGE, 2 * PAGE, ALL, MAP_SHARED | MAP_FIXED, fd, 0) == room + PAGE);
    CHECK_EQ(wrong(room + PAGE, 0, 2 * PAGE), 0);
    CHECK_EQ(room[PAGE - 1], 'r');
    CHECK_EQ(room[3 * PAGE], 'r');
    /* over one page of the first file's mapping, which keeps the rest */
    CHECK(mmap(room + PAGE, PAGE, ALL, MAP_SHARED | MAP_FIXED, other, 0) == room + PAGE);
    CHECK(memcmp(room + PAGE, "other\0", 6) == 0);
    CHECK_EQ(wrong(room + 2 * PAGE, PAGE, PAGE), 0);
    room[PAGE] = 'O';
    CHECK_STR(get("fixed.other"), "Other");
    /* and anonymous memory over both */
    CHECK(mmap(room + PAGE, 2 * PAGE, ALL, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == room + PAGE);
    room[PAGE] = room[2 * PAGE] = 'a';
    CHECK_STR(get("fixed.other"), "Other");
    char byte;
    CHECK_EQ(pread(fd, &byte, 1, PAGE), 1);
    CHECK_EQ(byte, byte_at(PAGE));
    CHECK_ERR((intptr_t)mmap(room, PAGE, ALL, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0), EEXIST);
    CHECK_ERR((intptr_t)mmap(room + 1, PAGE, ALL, MAP_SHARED | MAP_FIXED, fd, 0), EINVAL);
    CHECK_EQ(room[0], 'r');
    CHECK_EQ(munmap(room, 4 * PAGE), 0);
    close(fd);
    close(other);
}

static void syncs(void)
{
    int fd = make("syncs", 3 * PAGE);
    char *bytes = map(fd, 3 * PAGE, ALL, MAP_SHARED, 0);
    memcpy(bytes, "synced", 6);
    CHECK_EQ(msync(bytes, 3 * PAGE, MS_SYNC), 0);
    CHECK_EQ(msync(bytes, 6, MS_ASYNC), 0);
    CHECK_EQ(msync(bytes + PAGE, PAGE, MS_SYNC | MS_INVALIDATE), 0);
    CHECK_EQ(msync(bytes, 0, MS_SYNC), 0);
    CHECK_EQ(msync(bytes, PAGE, 0), 0);
    CHECK_ERR(msync(bytes + 1, PAGE, MS_SYNC), EINVAL);
    CHECK_ERR(msync(bytes, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
    CHECK_ERR(msync(bytes, PAGE, 64), EINVAL);
    CHECK_EQ(madvise(bytes, 3 * PAGE, MADV_DONTNEED), 0);
    CHECK(memcmp(bytes, "synced", 6) == 0); /* shared: nothing is lost */
    CHECK_EQ(madvise(bytes, 3 * PAGE, MADV_WILLNEED), 0);
    CHECK_EQ(madvise(bytes, 3 * PAGE, MADV_SEQUENTIAL), 0);
    CHECK_ERR(madvise(bytes, 3 * PAGE, 12345), EINVAL);
    CHECK_EQ(fsync(fd), 0);
    CHECK_EQ(munmap(bytes + PAGE, PAGE), 0);
    CHECK_ERR(msync(bytes, 3 * PAGE, MS_SYNC), ENOMEM);
    CHECK_ERR(madvise(bytes, 3 * PAGE, MADV_NORMAL), ENOMEM);
    CHECK_EQ(munmap(bytes, 3 * PAGE), 0);
    CHECK_ERR(msync(bytes, PAGE, MS_SYNC), ENOMEM);
    close(fd);
}

int main(int argc, char **argv)
{
    enter(argc, argv);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    shared();
    private();
    ends();
    offsets();
    protections();
    errors();
    outlives();
    placement();
    syncs();
    return done();
}
