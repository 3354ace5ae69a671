/* Mappings that several processes share, that change their size, and whose file
 * changes its size. */
#include "mapping.h"
#include <sys/sendfile.h>
#include <sys/socket.h>

/* A new file of `size` bytes of one letter, open for reading and writing. */
static int make(const char *path, char letter, size_t size)
{
    char *bytes = malloc(size + 1);
    memset(bytes, letter, size);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, bytes, size), size);
    free(bytes);
    return fd;
}

static size_t other_than(const char *bytes, char letter, size_t size)
{
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += bytes[i] != letter;
    return count;
}

/* The byte at an offset of a file, read by a descriptor of its own; -1 if there is none. */
static int look(const char *path, off_t at)
{
    unsigned char byte;
    int fd = open(path, O_RDONLY);
    ssize_t n = pread(fd, &byte, 1, at);
    close(fd);
    return n == 1 ? byte : -1;
}

/* Maps for sharing, or lets every later check fail where it stands. */
static char *map(int fd, size_t size)
{
    char *bytes = mmap(NULL, size, ALL, MAP_SHARED, fd, 0);
    CHECK(bytes != MAP_FAILED);
    if (bytes != MAP_FAILED) return bytes;
    fprintf(stderr, "without a mapping there is nothing to check\n");
    done();
    exit(1);
}

/* Takes turns with a forked process: each waits for the other's word. A side that
 * has gone is heard as the end of the line. */
static int line[2];

static int in_partner(pid_t *child)
{
    int ends[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    int in = in_child(child);
    line[in] = ends[in];
    close(ends[!in]);
    return in;
}

static void say(int side)
{
    CHECK_EQ(send(line[side], "x", 1, MSG_NOSIGNAL), 1);
}

static void hear(int side)
{
    char byte;
    CHECK_EQ(read(line[side], &byte, 1), 1);
}

static void forked(void)
{
    int fd = make("forked", 'f', 2 * PAGE);
    char *bytes = map(fd, 2 * PAGE);
    char *own = mmap(NULL, PAGE, ALL, MAP_PRIVATE, fd, 0);
    CHECK(own != MAP_FAILED);
    own[0] = 'o';
    pid_t child;
    if (in_partner(&child)) {
        CHECK_EQ(bytes[0], 'f');
        bytes[0] = 'c';
        CHECK_EQ(own[0], 'o');
        own[1] = 'c';
        CHECK_EQ(pwrite(fd, "w", 1, PAGE), 1);
        say(1);
        hear(1);
        CHECK_EQ(bytes[1], 'p');
        CHECK_EQ(bytes[PAGE + 1], 'P');
        CHECK_EQ(munmap(bytes, 2 * PAGE), 0);
        child_done();
    }
    hear(0);
    CHECK_EQ(bytes[0], 'c');
    CHECK_EQ(bytes[PAGE], 'w');
    CHECK_EQ(own[1], 'f');
    bytes[1] = 'p';
    CHECK_EQ(pwrite(fd, "P", 1, PAGE + 1), 1);
    say(0);
    reap(child);
    CHECK_EQ(bytes[2], 'f'); /* the child's munmap was its own */
    close(line[0]);
    munmap(bytes, 2 * PAGE);
    munmap(own, PAGE);
    close(fd);
}

/* Two processes that opened the file each for itself: one maps, one reads and writes. */
static void coherent(void)
{
    close(make("coherent", '.', 3 * PAGE));
    pid_t child;
    if (in_partner(&child)) {
        int fd = open("coherent", O_RDWR);
        char buffer[16] = "";
        for (int round = 0; round < 50; round++) {
            off_t at = round * 150;
            hear(1);
            CHECK_EQ(pread(fd, buffer, 5, at), 5);
            CHECK(memcmp(buffer, "maps ", 5) == 0);
            CHECK_EQ(pwrite(fd, "calls", 5, at + 5), 5);
            say(1);
        }
        hear(1);
        CHECK_EQ(lseek(fd, 0, SEEK_END), 3 * PAGE);
        CHECK_EQ(write(fd, "appended", 8), 8);
        say(1);
        close(fd);
        child_done();
    }
    int fd = open("coherent", O_RDWR);
    char *bytes = map(fd, 4 * PAGE);
    close(fd);
    for (int round = 0; round < 50; round++) {
        char *at = bytes + 150L * round;
        memcpy(at, "maps ", 5);
        say(0);
        hear(0);
        CHECK(memcmp(at, "maps calls.", 11) == 0);
    }
    CHECK_EQ(touch(bytes + 3 * PAGE, 0), SIGBUS);
    say(0);
    hear(0);
    CHECK(memcmp(bytes + 3 * PAGE, "appended\0", 9) == 0);
    reap(child);
    close(line[0]);
    CHECK_EQ(munmap(bytes, 4 * PAGE), 0);
}

/* Counters that many processes add to by mappings of their own lose nothing. */
static void counted(void)
{
    enum { WORKERS = 4, ROUNDS = 20000 };
    close(make("counted", 0, PAGE));
    pid_t workers[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        if (!in_child(&workers[i])) continue;
        int fd = open("counted", O_RDWR);
        int *counter = (int *)(void *)map(fd, PAGE);
        for (int round = 0; round < ROUNDS; round++) __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
        child_done();
    }
    for (int i = 0; i < WORKERS; i++) reap(workers[i]);
    int total = 0, fd = open("counted", O_RDONLY);
    CHECK_EQ(pread(fd, &total, sizeof total, 0), sizeof total);
    CHECK_EQ(total, WORKERS * ROUNDS);
    close(fd);
}

/* A process killed in the middle leaves in the file what it had stored. */
static void killed(void)
{
    int fd = make("killed", 'k', PAGE);
    pid_t child;
    if (in_partner(&child)) {
        char *bytes = map(fd, PAGE);
        memcpy(bytes + 10, "stored", 6);
        say(1);
        for (;;) pause();
    }
    hear(0);
    CHECK_EQ(kill(child, SIGKILL), 0);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    char buffer[8];
    CHECK_EQ(pread(fd, buffer, 6, 10), 6);
    CHECK(memcmp(buffer, "stored", 6) == 0);
    close(line[0]);
    close(fd);
}

static void remapped(void)
{
    int fd = make("remapped", 'r', 6 * PAGE);
    char *bytes = map(fd, 2 * PAGE);
    bytes[5] = '5';
    bytes = mremap(bytes, 2 * PAGE, 6 * PAGE, MREMAP_MAYMOVE);
    CHECK(bytes != MAP_FAILED);
    CHECK_EQ(bytes[5], '5');
    CHECK_EQ(other_than(bytes + 2 * PAGE, 'r', 4 * PAGE), 0);
    bytes[5 * PAGE] = 'g';
    CHECK_EQ(look("remapped", 5 * PAGE), 'g');
    /* shrunk in place: the rest is no longer there */
    CHECK(mremap(bytes, 6 * PAGE, PAGE, 0) == bytes);
    CHECK_EQ(touch(bytes + PAGE, 0), SIGSEGV);
    CHECK_EQ(touch(bytes, 1), 0);
    /* moved to a place of our choice, over what is there */
    char *room = mmap(NULL, 4 * PAGE, ALL, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mremap(bytes, PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + PAGE) == room + PAGE);
    CHECK_EQ(touch(bytes, 0), SIGSEGV);
    CHECK_EQ(room[PAGE + 5], '5');
    room[2 * PAGE] = 'm';
    CHECK_EQ(look("remapped", PAGE), 'm');
    CHECK_EQ(room[0], 0);
    /* no size: a second view of a shared mapping */
    char *view = mremap(room + PAGE, 0, PAGE, MREMAP_MAYMOVE);
    CHECK(view != MAP_FAILED && view != room + PAGE);
    view[7] = 'v';
    CHECK_EQ(room[PAGE + 7], 'v');
    CHECK_ERR((intptr_t)mremap(room + PAGE + 1, PAGE, PAGE, 0), EINVAL);
    CHECK_ERR((intptr_t)mremap(room + PAGE, PAGE, 0, 0), EINVAL);
    CHECK_EQ(munmap(view, PAGE), 0);
    CHECK_EQ(munmap(room, 4 * PAGE), 0);
    /* beyond the file's end there is room for addresses, not for bytes */
    bytes = map(fd, PAGE);
    bytes = mremap(bytes, PAGE, 9 * PAGE, MREMAP_MAYMOVE);
    CHECK(bytes != MAP_FAILED);
    CHECK_EQ(touch(bytes + 5 * PAGE, 0), 0);
    CHECK_EQ(touch(bytes + 6 * PAGE, 0), SIGBUS);
    CHECK_EQ(munmap(bytes, 9 * PAGE), 0);
    close(fd);
}

static void truncated(void)
{
    int fd = make("truncated", 't', 4 * PAGE);
    char *bytes = map(fd, 4 * PAGE);
    char *own = mmap(NULL, 4 * PAGE, ALL, MAP_PRIVATE, fd, 0);
    CHECK(own != MAP_FAILED);
    own[3 * PAGE] = 'o';
    CHECK_EQ(ftruncate(fd, PAGE + 10), 0);
    CHECK_EQ(touch(bytes + 2 * PAGE, 0), SIGBUS);
    CHECK_EQ(touch(own + 3 * PAGE, 0), SIGBUS); /* a private copy goes with its page */
    CHECK_EQ(other_than(bytes, 't', PAGE + 10), 0);
    CHECK_EQ(other_than(bytes + PAGE + 10, 0, PAGE - 10), 0);
    bytes[PAGE] = 'T';
    CHECK_EQ(look("truncated", PAGE), 'T');
    /* grown again: zeros, and no old byte */
    CHECK_EQ(ftruncate(fd, 3 * PAGE), 0);
    CHECK_EQ(touch(bytes + 2 * PAGE, 1), 0);
    CHECK_EQ(other_than(bytes + PAGE + 10, 0, 2 * PAGE - 10), 0);
    CHECK_EQ(touch(bytes + 3 * PAGE, 0), SIGBUS);
    bytes[2 * PAGE + 5] = 'g';
    CHECK_EQ(look("truncated", 2 * PAGE + 5), 'g');
    /* by name, by O_TRUNC, and to nothing */
    CHECK_EQ(truncate("truncated", 2 * PAGE), 0);
    CHECK_EQ(touch(bytes + 2 * PAGE, 0), SIGBUS);
    close(open("truncated", O_WRONLY | O_TRUNC));
    CHECK_EQ(touch(bytes, 0), SIGBUS);
    CHECK_EQ(look("truncated", 0), -1);
    CHECK_EQ(pwrite(fd, "again", 5, 0), 5);
    CHECK(memcmp(bytes, "again\0", 6) == 0);
    CHECK_EQ(munmap(bytes, 4 * PAGE), 0);
    CHECK_EQ(munmap(own, 4 * PAGE), 0);
    close(fd);
}

/* One process cuts the file that another has mapped. */
static void truncated_elsewhere(void)
{
    int fd = make("elsewhere", 'e', 3 * PAGE);
    char *bytes = map(fd, 3 * PAGE);
    CHECK_EQ(touch(bytes + 2 * PAGE, 1), 0);
    pid_t child;
    if (in_child(&child)) {
        CHECK_EQ(truncate("elsewhere", PAGE), 0);
        child_done();
    }
    reap(child);
    CHECK_EQ(touch(bytes + PAGE, 1), SIGBUS);
    CHECK_EQ(touch(bytes, 1), 0);
    CHECK_EQ(size_of("elsewhere"), PAGE);
    CHECK_EQ(munmap(bytes, 3 * PAGE), 0);
    close(fd);
}

/* The way of databases and arrays: make it large, then fill it by the mapping. */
static void grown(void)
{
    const size_t size = 5u << 20;
    for (int way = 0; way < 2; way++) {
        int fd = open("grown", O_RDWR | O_CREAT | O_TRUNC, 0644);
        if (way == 0) CHECK_EQ(ftruncate(fd, (off_t)size), 0);
        else CHECK_EQ(posix_fallocate(fd, 0, (off_t)size), 0);
        char *bytes = map(fd, size);
        CHECK_EQ(other_than(bytes, 0, size), 0);
        for (size_t at = 0; at < size; at += 3) bytes[at] = (char)(at / 3);
        close(fd);
        fd = open("grown", O_RDONLY);
        size_t differing = 0, read_bytes = 0;
        char buffer[3 * PAGE];
        for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0; read_bytes += (size_t)n) {
            for (ssize_t i = 0; i < n; i++) {
                size_t at = read_bytes + (size_t)i;
                differing += buffer[i] != (at % 3 ? 0 : (char)(at / 3));
            }
        }
        CHECK_EQ(read_bytes, size);
        CHECK_EQ(differing, 0);
        CHECK_EQ(munmap(bytes, size), 0);
        close(fd);
    }
    /* a hole under a mapping is filled by either */
    int fd = open("holes", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_EQ(pwrite(fd, "end", 3, 8 * PAGE), 3);
    char *bytes = map(fd, 9 * PAGE);
    CHECK_EQ(other_than(bytes, 0, 8 * PAGE), 0);
    bytes[3 * PAGE] = 'h';
    CHECK_EQ(look("holes", 3 * PAGE), 'h');
    CHECK_EQ(pwrite(fd, "H", 1, 5 * PAGE), 1);
    CHECK_EQ(bytes[5 * PAGE], 'H');
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * PAGE, PAGE) == 0) CHECK_EQ(bytes[3 * PAGE], 0);
    else CHECK_EQ(errno, EOPNOTSUPP);
    CHECK(memcmp(bytes + 8 * PAGE, "end", 3) == 0);
    CHECK_EQ(munmap(bytes, 9 * PAGE), 0);
    close(fd);
}

enum { PIECE = 1000, PIECES = 300 };

/* Writes numbered pieces from the first to the last, without waiting for anybody. */
static void write_pieces(const char *path, int appending)
{
    int fd = open(path, appending ? O_WRONLY | O_APPEND : O_WRONLY);
    char piece[PIECE];
    for (int i = 0; i < PIECES; i++) {
        memset(piece, i % 250 + 1, PIECE);
        CHECK_EQ(appending ? write(fd, piece, PIECE) : pwrite(fd, piece, PIECE, i * PIECE), PIECE);
    }
    close(fd);
}

/* A file that others write is mapped for the first time: no byte is lost or doubled. */
static void mapped_while_written(void)
{
    size_t size = PIECE * PIECES;
    for (int round = 0; round < 20; round++) {
        int appending = round % 2, fd = open("written", O_RDWR | O_CREAT | O_EXCL, 0644);
        if (!appending) CHECK_EQ(ftruncate(fd, (off_t)size), 0);
        pid_t child;
        if (in_child(&child)) {
            write_pieces("written", appending);
            child_done();
        }
        off_t from = round * PIECE * 10; /* map while the writer is about there */
        char byte = 0;
        for (long tries = 0; tries < 1000000 && (pread(fd, &byte, 1, from) != 1 || byte == 0); tries++) {}
        char *bytes = map(fd, size);
        reap(child);
        size_t missing = 0, differing = 0;
        char *again = calloc(1, size);
        CHECK_EQ(size_of("written"), size);
        CHECK_EQ(pread(fd, again, size, 0), size);
        for (size_t i = 0; i < size; i++) missing += bytes[i] != (char)(i / PIECE % 250 + 1);
        for (size_t i = 0; i < size; i++) differing += bytes[i] != again[i];
        CHECK_EQ(missing, 0);
        CHECK_EQ(differing, 0);
        free(again);
        CHECK_EQ(munmap(bytes, size), 0);
        close(fd);
        CHECK_EQ(unlink("written"), 0);
    }
}

/* Bytes go from mapping to file, file to mapping, and a mapping to its own file. */
static void copied(void)
{
    int from = make("copied.from", 'a', 2 * PAGE), to = make("copied.to", 'b', 2 * PAGE);
    char *source = map(from, 2 * PAGE), *target = map(to, 2 * PAGE);
    CHECK_EQ(pwrite(to, source, PAGE, 0), PAGE);
    CHECK_EQ(other_than(target, 'a', PAGE), 0);
    CHECK_EQ(pread(to, source, PAGE, PAGE), PAGE);
    CHECK_EQ(look("copied.from", 0), 'b');
    CHECK_EQ(pwrite(to, target + PAGE, 100, 0), 100);
    CHECK_EQ(other_than(target, 'b', 100), 0);
    CHECK_EQ(pread(from, source + PAGE, 100, 0), 100);
    CHECK_EQ(other_than(source, 'b', PAGE + 100), 0);
    CHECK_EQ(lseek(to, 0, SEEK_SET), 0);
    off_t at = PAGE + 100;
    CHECK_EQ(sendfile(to, from, &at, 200), 200);
    CHECK_EQ(other_than(target, 'a', 200), 0);
    /* what cannot be stored into is refused, and nothing moves */
    CHECK_EQ(mprotect(source, PAGE, PROT_READ), 0);
    CHECK_ERR(pread(to, source, 10, 0), EFAULT);
    CHECK_EQ(munmap(source, 2 * PAGE), 0);
    CHECK_ERR(pwrite(to, source, 10, 0), EFAULT);
    CHECK_EQ(munmap(target, 2 * PAGE), 0);
    close(from);
    close(to);
}

/* exec drops the mapping and keeps the bytes; the next program finds them. */
static void survives_exec(void)
{
    int fd = make("exec", 'x', PAGE);
    pid_t child;
    if (in_child(&child)) {
        char *bytes = map(fd, PAGE);
        memcpy(bytes, "before", 6);
        execlp("grep", "grep", "-q", "beforexx", "exec", (char *)NULL);
        _exit(100);
    }
    reap(child);
    close(fd);
}

int main(int argc, char **argv)
{
    enter(argc, argv);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    forked();
    coherent();
    counted();
    killed();
    remapped();
    truncated();
    truncated_elsewhere();
    grown();
    mapped_while_written();
    copied();
    survives_exec();
    return done();
}
