/* Flags of open, their errors, and what they do to the file. */
#include "check.h"

static void creating(void)
{
    int fd = open("new", O_WRONLY | O_CREAT | O_EXCL, 0640);
    CHECK(fd >= 0);
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_size, 0);
    CHECK_EQ(st.st_mode, S_IFREG | 0640);
    CHECK_EQ(st.st_nlink, 1);
    CHECK_EQ(close(fd), 0);
    CHECK_ERR(open("new", O_WRONLY | O_CREAT | O_EXCL, 0644), EEXIST);
    fd = open("new", O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0);
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_mode & 07777, 0640); /* an existing file keeps its mode */
    close(fd);
    CHECK_ERR(open("missing", O_RDONLY), ENOENT);
    CHECK_ERR(open("missing", O_WRONLY), ENOENT);
    CHECK_ERR(open("missing/deeper", O_WRONLY | O_CREAT, 0644), ENOENT);
    CHECK_ERR(open("new/below", O_RDONLY), ENOTDIR);
    CHECK_ERR(open("new/below", O_WRONLY | O_CREAT, 0644), ENOTDIR);
    CHECK_ERR(open("new/", O_RDONLY), ENOTDIR);
    CHECK_ERR(open("", O_RDONLY), ENOENT);
    char name[300];
    memset(name, 'n', sizeof name);
    name[256] = 0;
    CHECK_ERR(open(name, O_WRONLY | O_CREAT, 0644), ENAMETOOLONG);
    name[255] = 0;
    fd = open(name, O_WRONLY | O_CREAT, 0644);
    CHECK(fd >= 0);
    close(fd);
    CHECK_EQ(unlink(name), 0);
    fd = creat("created", 0666);
    CHECK(fd >= 0);
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_mode & 07777, 0644);
    CHECK_EQ(write(fd, "x", 1), 1);
    char byte;
    CHECK_ERR(read(fd, &byte, 1), EBADF);
    close(fd);
}

static void umask_applies(void)
{
    mode_t old = umask(077);
    int fd = open("private", O_WRONLY | O_CREAT, 0666);
    umask(old);
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_mode & 07777, 0600);
    close(fd);
    fd = open("odd", O_WRONLY | O_CREAT, 0);
    CHECK(fd >= 0); /* the creator may write whatever the mode says */
    CHECK_EQ(write(fd, "abc", 3), 3);
    close(fd);
    CHECK_EQ(size_of("odd"), 3);
}

static void truncating(void)
{
    put("t", "hello");
    int reader = open("t", O_RDONLY);
    int fd = open("t", O_WRONLY | O_TRUNC);
    CHECK(fd >= 0);
    CHECK_EQ(size_of("t"), 0);
    char buffer[8];
    CHECK_EQ(read(reader, buffer, sizeof buffer), 0);
    CHECK_EQ(write(fd, "hi", 2), 2);
    CHECK_EQ(read(reader, buffer, sizeof buffer), 2);
    close(reader);
    close(fd);
    CHECK_STR(get("t"), "hi");
}

static void access_modes(void)
{
    put("m", "data");
    char byte;
    int fd = open("m", O_RDONLY);
    CHECK_ERR(write(fd, "x", 1), EBADF);
    CHECK_ERR(ftruncate(fd, 0), EINVAL);
    CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    close(fd);
    fd = open("m", O_WRONLY);
    CHECK_ERR(read(fd, &byte, 1), EBADF);
    CHECK_ERR(pread(fd, &byte, 1, 0), EBADF);
    CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY);
    close(fd);
    fd = open("m", O_RDWR);
    CHECK_EQ(read(fd, &byte, 1), 1);
    CHECK_EQ(byte, 'd');
    CHECK_EQ(write(fd, "X", 1), 1);
    CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    close(fd);
    CHECK_STR(get("m"), "dXta");
    CHECK_ERR(close(fd), EBADF);
    CHECK_ERR(read(fd, &byte, 1), EBADF);
    CHECK_ERR(lseek(fd, 0, SEEK_SET), EBADF);
    struct stat st;
    CHECK_ERR(fstat(fd, &st), EBADF);
}

static void appending(void)
{
    put("a", "one");
    int fd = open("a", O_RDWR | O_APPEND);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
    CHECK_EQ(lseek(fd, 1, SEEK_SET), 1);
    CHECK_EQ(write(fd, "two", 3), 3);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 6);
    char buffer[8];
    CHECK_EQ(read(fd, buffer, sizeof buffer), 0);
    CHECK_EQ(lseek(fd, 2, SEEK_SET), 2);
    CHECK_EQ(read(fd, buffer, 2), 2);
    CHECK(memcmp(buffer, "et", 2) == 0);
    CHECK_EQ(pwrite(fd, "three", 5, 0), 5); /* Linux appends here too */
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4);
    close(fd);
    CHECK_STR(get("a"), "onetwothree");
    fd = open("a", O_WRONLY);
    CHECK_EQ(fcntl(fd, F_SETFL, O_APPEND), 0);
    CHECK(fcntl(fd, F_GETFL) & O_APPEND);
    CHECK_EQ(write(fd, "!", 1), 1);
    CHECK_EQ(fcntl(fd, F_SETFL, 0), 0);
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    CHECK_EQ(write(fd, "O", 1), 1);
    close(fd);
    CHECK_STR(get("a"), "Onetwothree!");
}

static void directories(void)
{
    CHECK_EQ(mkdir("d", 0755), 0);
    put("f", "x");
    int fd = open("d", O_RDONLY | O_DIRECTORY);
    CHECK(fd >= 0);
    char byte;
    CHECK_ERR(read(fd, &byte, 1), EISDIR);
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK(S_ISDIR(st.st_mode));
    close(fd);
    CHECK_ERR(open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
    CHECK_ERR(open("d", O_WRONLY), EISDIR);
    CHECK_ERR(open("d", O_RDWR), EISDIR);
    CHECK_ERR(open("d", O_WRONLY | O_CREAT, 0644), EISDIR);
    fd = open("d/", O_RDONLY);
    CHECK(fd >= 0);
    close(fd);
    CHECK_ERR(open("d/new/", O_WRONLY | O_CREAT, 0644), EISDIR);
    fd = open("d/../d/./f2", O_WRONLY | O_CREAT, 0644);
    CHECK(fd >= 0);
    close(fd);
    CHECK_EQ(size_of("d/f2"), 0);
    CHECK_EQ(size_of("./d//f2"), 0);
}

static void links(void)
{
    put("target", "content");
    CHECK_EQ(symlink("target", "link"), 0);
    CHECK_EQ(symlink("nowhere", "dangling"), 0);
    CHECK_EQ(symlink("loop2", "loop1"), 0);
    CHECK_EQ(symlink("loop1", "loop2"), 0);
    CHECK_STR(get("link"), "content");
    CHECK_ERR(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
    CHECK_ERR(open("dangling", O_RDONLY), ENOENT);
    CHECK_ERR(open("dangling", O_WRONLY | O_CREAT | O_EXCL, 0644), EEXIST);
    CHECK_ERR(open("loop1", O_RDONLY), ELOOP);
    int fd = open("dangling", O_WRONLY | O_CREAT, 0644);
    CHECK(fd >= 0); /* creates what the link names */
    close(fd);
    CHECK_EQ(size_of("nowhere"), 0);
    fd = open("target", O_PATH);
    CHECK(fd >= 0);
    char byte;
    CHECK_ERR(read(fd, &byte, 1), EBADF);
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_size, 7);
    close(fd);
    fd = open("link", O_PATH | O_NOFOLLOW);
    CHECK(fd >= 0);
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK(S_ISLNK(st.st_mode));
    close(fd);
}

static void close_on_exec(void)
{
    int fd = open("target", O_RDONLY | O_CLOEXEC);
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(fcntl(fd, F_SETFD, 0), 0);
    CHECK_EQ(fcntl(fd, F_GETFD), 0);
    close(fd);
    fd = open("target", O_RDONLY);
    CHECK_EQ(fcntl(fd, F_GETFD), 0);
    close(fd);
}

static void lowest_number(void)
{
    int first = open("target", O_RDONLY);
    int second = open("target", O_RDONLY);
    CHECK_EQ(second, first + 1);
    close(first);
    int third = open("m", O_RDONLY);
    CHECK_EQ(third, first);
    close(second);
    close(third);
}

static void temporary(void)
{
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    if (fd < 0) {
        int refused = errno; /* CHECK clears it */
        CHECK(refused == EOPNOTSUPP || refused == EISDIR); /* programs fall back */
        return;
    }
    CHECK_EQ(write(fd, "tmp", 3), 3);
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_nlink, 0);
    CHECK_EQ(st.st_size, 3);
    close(fd);
}

static void relative_to_a_directory(void)
{
    int dir = open("d", O_RDONLY | O_DIRECTORY);
    int fd = openat(dir, "at", O_WRONLY | O_CREAT, 0644);
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, "at", 2), 2);
    close(fd);
    CHECK_STR(get("d/at"), "at");
    fd = openat(dir, "../target", O_RDONLY);
    CHECK(fd >= 0);
    CHECK_ERR(openat(fd, "x", O_RDONLY), ENOTDIR);
    close(fd);
    CHECK_ERR(openat(dir, "missing", O_RDONLY), ENOENT);
    CHECK_ERR(openat(-1, "x", O_RDONLY), EBADF);
    char absolute[PATH_MAX];
    CHECK(getcwd(absolute, sizeof absolute - 8) != NULL);
    strcat(absolute, "/target");
    fd = openat(-1, absolute, O_RDONLY); /* the directory does not matter */
    CHECK(fd >= 0);
    close(fd);
    struct stat st;
    CHECK_EQ(fstatat(dir, "at", &st, 0), 0);
    CHECK_EQ(st.st_size, 2);
    CHECK_EQ(fstatat(dir, "", &st, AT_EMPTY_PATH), 0);
    CHECK(S_ISDIR(st.st_mode));
    CHECK_EQ(faccessat(dir, "at", R_OK, 0), 0);
    CHECK_EQ(unlinkat(dir, "at", 0), 0);
    CHECK_ERR(unlinkat(dir, "at", 0), ENOENT);
    CHECK_EQ(mkdirat(dir, "sub", 0755), 0);
    CHECK_ERR(unlinkat(dir, "sub", 0), EISDIR);
    CHECK_EQ(unlinkat(dir, "sub", AT_REMOVEDIR), 0);
    CHECK_EQ(symlinkat("f2", dir, "sl"), 0);
    char target[16];
    CHECK_EQ(readlinkat(dir, "sl", target, sizeof target), 2);
    CHECK_EQ(renameat(dir, "sl", AT_FDCWD, "moved"), 0);
    CHECK_EQ(lstat("moved", &st), 0);
    CHECK(S_ISLNK(st.st_mode));
    close(dir);
}

static void many(void)
{
    int fds[200];
    for (int i = 0; i < 200; i++) {
        char name[16];
        snprintf(name, sizeof name, "many%d", i);
        fds[i] = open(name, O_RDWR | O_CREAT, 0644);
        CHECK(fds[i] >= 0);
        CHECK_EQ(dprintf(fds[i], "%d", i), snprintf(NULL, 0, "%d", i));
    }
    for (int i = 0; i < 200; i++) {
        char buffer[8] = "";
        CHECK(pread(fds[i], buffer, 7, 0) > 0);
        CHECK_EQ(atoi(buffer), i);
        CHECK_EQ(close(fds[i]), 0);
    }
}

int main(int argc, char **argv)
{
    enter(argc, argv);
    creating();
    umask_applies();
    truncating();
    access_modes();
    appending();
    directories();
    links();
    close_on_exec();
    lowest_number();
    temporary();
    relative_to_a_directory();
    many();
    return done();
}
