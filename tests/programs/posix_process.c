/* What descriptors share: dup, fork, exec, spawn, and locks between processes. */
#include "check.h"
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

extern char **environ;
static char self[PATH_MAX]; /* this program, wherever it changes to */

static void duplicates(void)
{
    put("dup", "0123456789");
    int a = open("dup", O_RDWR);
    int b = dup(a);
    CHECK(b > a);
    CHECK_EQ(lseek(a, 4, SEEK_SET), 4);
    CHECK_EQ(lseek(b, 0, SEEK_CUR), 4); /* one offset */
    char buffer[4];
    CHECK_EQ(read(b, buffer, 2), 2);
    CHECK_EQ(lseek(a, 0, SEEK_CUR), 6);
    CHECK_EQ(fcntl(a, F_SETFL, O_APPEND), 0);
    CHECK(fcntl(b, F_GETFL) & O_APPEND); /* one set of status flags */
    CHECK_EQ(fcntl(a, F_SETFL, 0), 0);
    CHECK_EQ(fcntl(a, F_SETFD, FD_CLOEXEC), 0);
    CHECK_EQ(fcntl(b, F_GETFD), 0); /* but two descriptors */
    int separate = open("dup", O_RDONLY);
    CHECK_EQ(lseek(separate, 0, SEEK_CUR), 0);
    CHECK_EQ(close(a), 0);
    CHECK_EQ(write(b, "X", 1), 1);
    CHECK_EQ(pread(separate, buffer, 1, 6), 1);
    CHECK_EQ(buffer[0], 'X');
    CHECK_EQ(dup2(b, separate), separate); /* closes the other, takes its number */
    CHECK_EQ(lseek(separate, 0, SEEK_CUR), 7);
    CHECK_EQ(dup2(b, b), b);
    CHECK_ERR(dup2(-1, b), EBADF);
    CHECK_ERR(dup3(b, b, 0), EINVAL);
    CHECK_EQ(dup3(b, 77, O_CLOEXEC), 77);
    CHECK_EQ(fcntl(77, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(lseek(77, 1, SEEK_SET), 1);
    CHECK_EQ(lseek(b, 0, SEEK_CUR), 1);
    int high = fcntl(b, F_DUPFD, 100);
    CHECK(high >= 100);
    int cloexec = fcntl(b, F_DUPFD_CLOEXEC, 100);
    CHECK(cloexec > high);
    CHECK_EQ(fcntl(cloexec, F_GETFD), FD_CLOEXEC);
    CHECK_ERR(dup(-1), EBADF);
    CHECK_EQ(close_range(77, 77, 0), 0);
    CHECK_ERR(lseek(77, 0, SEEK_CUR), EBADF);
    CHECK_EQ(lseek(b, 0, SEEK_CUR), 1);
    CHECK_EQ(close_range(100, 200, CLOSE_RANGE_CLOEXEC), 0);
    CHECK_EQ(fcntl(high, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(close_range(100, ~0U, 0), 0);
    CHECK_ERR(fcntl(high, F_GETFD), EBADF);
    close(separate);
    close(b);
}

static void forks_share(void)
{
    int fd = open("fork", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_EQ(write(fd, "parent ", 7), 7);
    pid_t child;
    if (in_child(&child)) {
        CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7);
        CHECK_EQ(write(fd, "child ", 6), 6);
        child_done();
    }
    reap(child);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 13); /* moved by the child */
    CHECK_EQ(write(fd, "parent", 6), 6);
    CHECK_STR(get("fork"), "parent child parent");
    if (in_child(&child)) { /* its close is not ours */
        CHECK_EQ(close(fd), 0);
        child_done();
    }
    reap(child);
    CHECK_EQ(write(fd, "!", 1), 1);
    close(fd);
    int opened_by_child[2];
    CHECK_EQ(pipe(opened_by_child), 0);
    if (in_child(&child)) { /* a grandchild, after its parent has gone */
        close(opened_by_child[0]);
        pid_t grandchild;
        if (in_child(&grandchild)) {
            usleep(50000);
            put("orphan", "made by an orphan");
            if (write(opened_by_child[1], "x", 1) != 1) _exit(1);
            _exit(0);
        }
        child_done();
    }
    reap(child);
    close(opened_by_child[1]);
    char byte;
    CHECK_EQ(read(opened_by_child[0], &byte, 1), 1);
    CHECK_STR(get("orphan"), "made by an orphan");
    close(opened_by_child[0]);
}

static void many_writers(void)
{
    enum { CHILDREN = 4, LINES = 200 };
    for (int append = 0; append < 2; append++) { /* one offset, then O_APPEND */
        int shared = open("writers", O_RDWR | O_CREAT | O_TRUNC | (append ? O_APPEND : 0), 0644);
        pid_t children[CHILDREN];
        for (int c = 0; c < CHILDREN; c++) {
            if (!in_child(&children[c])) continue;
            int fd = append ? open("writers", O_WRONLY | O_APPEND) : shared;
            for (int i = 0; i < LINES; i++) {
                char line[16];
                int n = snprintf(line, sizeof line, "%d %04d\n", c, i);
                if (write(fd, line, (size_t)n) != n) failed++;
            }
            child_done();
        }
        for (int c = 0; c < CHILDREN; c++) reap(children[c]);
        CHECK_EQ(size_of("writers"), CHILDREN * LINES * 7);
        int next[CHILDREN] = {0}, wrong = 0, who, what;
        FILE *f = fopen("writers", "r");
        while (fscanf(f, "%d %d\n", &who, &what) == 2) {
            if (who < 0 || who >= CHILDREN || next[who] != what) wrong++;
            else next[who]++;
        }
        fclose(f);
        close(shared);
        CHECK_EQ(wrong, 0);
        for (int c = 0; c < CHILDREN; c++) CHECK_EQ(next[c], LINES);
    }
}

/* Runs a program with these words; true if it ends with 0. */
static int runs(const char *path, char *const words[])
{
    pid_t child = fork();
    if (child == 0) {
        execv(path, words);
        _exit(127);
    }
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

static void exec_inherits(void)
{
    put("exec", "0123456789");
    int fd = open("exec", O_RDWR);
    int closed = open("exec", O_RDONLY | O_CLOEXEC);
    CHECK_EQ(lseek(fd, 3, SEEK_SET), 3);
    char number[16], other[16];
    snprintf(number, sizeof number, "%d", fd);
    snprintf(other, sizeof other, "%d", closed);
    char *words[] = {self, "--inherited", number, other, NULL};
    CHECK(runs(self, words));
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 5); /* it wrote two bytes */
    CHECK_STR(get("exec"), "012AB56789");
    close(fd);
    close(closed);
    /* a program that starts another with an empty environment */
    pid_t child = fork();
    if (child == 0) {
        char *empty[] = {NULL};
        char *shell[] = {"sh", "-c", "echo cleared > cleared; cat cleared > cleared2", NULL};
        execve("/bin/sh", shell, empty);
        _exit(127);
    }
    reap(child);
    CHECK_STR(get("cleared2"), "cleared\n");
    CHECK(runs("/bin/sh", (char *[]){"sh", "-c", "echo redirected > sh; cat < sh >> sh2; cat sh >> sh2", NULL}));
    CHECK_STR(get("sh2"), "redirected\nredirected\n");
    child = fork();
    if (child == 0) {
        execlp("cp", "cp", "sh2", "cp2", NULL);
        _exit(127);
    }
    reap(child);
    CHECK_STR(get("cp2"), "redirected\nredirected\n");
}

/* The other side of exec_inherits(). */
static int inherited(char **argv)
{
    int fd = atoi(argv[2]);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 3);
    CHECK_EQ(write(fd, "AB", 2), 2);
    CHECK_ERR(fcntl(atoi(argv[3]), F_GETFD), EBADF);
    return failed == 0 ? 0 : 1;
}

static int spawn_and_wait(posix_spawn_file_actions_t *actions, const char *command)
{
    char *words[] = {"sh", "-c", (char *)command, NULL};
    pid_t child;
    int error = posix_spawnp(&child, "sh", actions, NULL, words, environ);
    if (error != 0) return -error;
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}

static void spawning(void)
{
    put("in", "spawn input\n");
    int extra = open("extra", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    posix_spawn_file_actions_t actions;
    CHECK_EQ(posix_spawn_file_actions_init(&actions), 0);
    CHECK_EQ(posix_spawn_file_actions_addopen(&actions, 0, "in", O_RDONLY, 0), 0);
    CHECK_EQ(posix_spawn_file_actions_addopen(&actions, 1, "out", O_WRONLY | O_CREAT | O_TRUNC, 0640), 0);
    CHECK_EQ(posix_spawn_file_actions_adddup2(&actions, extra, 9), 0);
    CHECK_EQ(posix_spawn_file_actions_addclose(&actions, extra), 0);
    CHECK_EQ(spawn_and_wait(&actions, "cat; echo more >&9; exit 5"), 5);
    CHECK_EQ(posix_spawn_file_actions_destroy(&actions), 0);
    close(extra);
    CHECK_STR(get("out"), "spawn input\n");
    CHECK_STR(get("extra"), "more\n");
    struct stat st;
    CHECK_EQ(stat("out", &st), 0);
    CHECK_EQ(st.st_mode & 07777, 0640);

    CHECK_EQ(posix_spawn_file_actions_init(&actions), 0);
    CHECK_EQ(posix_spawn_file_actions_addopen(&actions, 0, "missing", O_RDONLY, 0), 0);
    CHECK_EQ(spawn_and_wait(&actions, "true"), -ENOENT);
    CHECK_EQ(posix_spawn_file_actions_destroy(&actions), 0);

    CHECK_EQ(mkdir("sub", 0755), 0);
    CHECK_EQ(posix_spawn_file_actions_init(&actions), 0);
    CHECK_EQ(posix_spawn_file_actions_addchdir_np(&actions, "sub"), 0);
    CHECK_EQ(posix_spawn_file_actions_addopen(&actions, 1, "here", O_WRONLY | O_CREAT, 0644), 0);
    CHECK_EQ(spawn_and_wait(&actions, "echo in a folder"), 0);
    CHECK_EQ(posix_spawn_file_actions_destroy(&actions), 0);
    CHECK_STR(get("sub/here"), "in a folder\n");

    CHECK_EQ(system("echo by system > system; test -s system"), 0);
    CHECK_STR(get("system"), "by system\n");
    CHECK_EQ(WEXITSTATUS(system("exit 4")), 4);
    pid_t child = vfork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", "echo by vfork > vfork", NULL);
        _exit(127);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK_STR(get("vfork"), "by vfork\n");
    int fd = open("vfork2", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    child = vfork();
    if (child == 0) { /* redirects between vfork and exec, as shells do */
        dup2(fd, 1);
        execl("/bin/echo", "echo", "redirected", NULL);
        _exit(127);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK_EQ(write(fd, "parent", 6), 6);
    close(fd);
    CHECK_STR(get("vfork2"), "redirected\nparent");
}

static struct flock range(short type, off_t start, off_t length)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return lock;
}

static void record_locks(void)
{
    put("lock", "0123456789");
    int fd = open("lock", O_RDWR);
    struct flock lock = range(F_WRLCK, 2, 4);
    CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
    int seen[2];
    CHECK_EQ(pipe(seen), 0);
    pid_t child;
    if (in_child(&child)) {
        int mine = open("lock", O_RDWR);
        struct flock wanted = range(F_WRLCK, 5, 2);
        CHECK_ERR(fcntl(mine, F_SETLK, &wanted), EAGAIN);
        CHECK_EQ(fcntl(mine, F_GETLK, &wanted), 0);
        CHECK_EQ(wanted.l_type, F_WRLCK);
        CHECK_EQ(wanted.l_pid, getppid());
        CHECK_EQ(wanted.l_start, 2);
        CHECK_EQ(wanted.l_len, 4);
        wanted = range(F_WRLCK, 6, 2);
        CHECK_EQ(fcntl(mine, F_SETLK, &wanted), 0);
        CHECK_EQ(lseek(mine, 3, SEEK_SET), 3);
        CHECK_ERR(lockf(mine, F_TEST, 1), EACCES);
        CHECK_EQ(lseek(mine, 8, SEEK_SET), 8);
        CHECK_EQ(lockf(mine, F_TLOCK, 1), 0);
        wanted = range(F_WRLCK, 2, 1);
        CHECK_EQ(write(seen[1], "x", 1), 1);
        CHECK_EQ(fcntl(mine, F_SETLKW, &wanted), 0); /* waits for the parent */
        CHECK_STR(get("lock"), "done");
        child_done();
    }
    char byte;
    CHECK_EQ(read(seen[0], &byte, 1), 1);
    close(seen[0]);
    close(seen[1]);
    usleep(20000);
    CHECK_EQ(ftruncate(fd, 0), 0);
    CHECK_EQ(write(fd, "done", 4), 4);
    lock = range(F_UNLCK, 0, 0);
    CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
    reap(child);
    /* the lock of a killed process is free */
    int ready[2];
    CHECK_EQ(pipe(ready), 0);
    if (in_child(&child)) {
        struct flock wanted = range(F_WRLCK, 0, 0);
        fcntl(fd, F_SETLK, &wanted);
        if (write(ready[1], "x", 1) != 1) _exit(1);
        pause();
    }
    CHECK_EQ(read(ready[0], &byte, 1), 1);
    lock = range(F_WRLCK, 0, 0);
    CHECK_ERR(fcntl(fd, F_SETLK, &lock), EAGAIN);
    CHECK_EQ(kill(child, SIGKILL), 0);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
    close(ready[0]);
    close(ready[1]);
    close(fd);
}

static void whole_file_locks(void)
{
    int a = open("flock", O_RDWR | O_CREAT, 0644);
    int b = open("flock", O_RDWR);
    CHECK_EQ(flock(a, LOCK_EX), 0);
    CHECK_ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    CHECK_ERR(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    CHECK_EQ(flock(a, LOCK_SH), 0);
    CHECK_EQ(flock(b, LOCK_SH | LOCK_NB), 0);
    CHECK_EQ(flock(b, LOCK_UN), 0);
    int copy = dup(a); /* belongs to the open file, not the descriptor */
    close(a);
    CHECK_ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    close(copy);
    CHECK_EQ(flock(b, LOCK_EX | LOCK_NB), 0);
    pid_t child;
    int tried[2];
    char byte = 0;
    CHECK_EQ(pipe(tried), 0);
    if (in_child(&child)) {
        close(b); /* inherited: while it is open, the lock lives on */
        int mine = open("flock", O_RDWR);
        CHECK_ERR(flock(mine, LOCK_EX | LOCK_NB), EWOULDBLOCK);
        CHECK_EQ(write(tried[1], &byte, 1), 1);
        CHECK_EQ(flock(mine, LOCK_EX), 0); /* waits */
        child_done();
    }
    CHECK_EQ(read(tried[0], &byte, 1), 1); /* held until it was found to be */
    close(tried[0]);
    close(tried[1]);
    usleep(30000);
    close(b);
    reap(child);
    struct flock ofd = range(F_WRLCK, 0, 1);
    a = open("flock", O_RDWR);
    b = open("flock", O_RDWR);
    CHECK_EQ(fcntl(a, F_OFD_SETLK, &ofd), 0);
    ofd = range(F_WRLCK, 0, 1);
    CHECK_ERR(fcntl(b, F_OFD_SETLK, &ofd), EAGAIN);
    close(a);
    ofd = range(F_WRLCK, 0, 1);
    CHECK_EQ(fcntl(b, F_OFD_SETLK, &ofd), 0);
    close(b);
}

static void readiness(void)
{
    int fd = open("dup", O_RDWR);
    struct pollfd polled = {.fd = fd, .events = POLLIN | POLLOUT};
    CHECK_EQ(poll(&polled, 1, 0), 1); /* a file is always ready */
    CHECK_EQ(polled.revents, POLLIN | POLLOUT);
    fd_set in;
    FD_ZERO(&in);
    FD_SET(fd, &in);
    struct timeval none = {0, 0};
    CHECK_EQ(select(fd + 1, &in, NULL, NULL, &none), 1);
    CHECK_ERR(ioctl(fd, TCGETS, NULL), ENOTTY);
    CHECK(!isatty(fd));
    int left = -1;
    CHECK_EQ(lseek(fd, 4, SEEK_SET), 4);
    CHECK_EQ(ioctl(fd, FIONREAD, &left), 0);
    CHECK_EQ(left, 6);
    close(fd);
}

static void bare_system_calls(void)
{
    long fd = syscall(SYS_openat, AT_FDCWD, "bare", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0);
    CHECK_EQ(syscall(SYS_write, fd, "by syscall(2)", 13L), 13);
    CHECK_EQ(syscall(SYS_lseek, fd, 3L, (long)SEEK_SET), 3);
    char buffer[16] = "";
    CHECK_EQ(syscall(SYS_read, fd, buffer, 7L), 7);
    CHECK_STR(buffer, "syscall");
    CHECK_EQ(syscall(SYS_pread64, fd, buffer, 2L, 0L), 2);
    CHECK_EQ(syscall(SYS_ftruncate, fd, 2L), 0);
    struct stat st;
    CHECK_EQ(fstat((int)fd, &st), 0);
    CHECK_EQ(st.st_size, 2);
    CHECK_EQ(syscall(SYS_close, fd), 0);
    CHECK_STR(get("bare"), "by");
    CHECK_EQ(syscall(SYS_unlinkat, AT_FDCWD, "bare", 0L), 0);
    CHECK_ERR(syscall(SYS_openat, AT_FDCWD, "bare", O_RDONLY), ENOENT);
}

static volatile sig_atomic_t handled;

static void on_signal(int signal UNUSED)
{
    int saved = errno, fd = open("by-handler", O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd >= 0 && write(fd, "x", 1) == 1) handled++;
    close(fd);
    errno = saved;
}

static void signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    pid_t parent = getpid(), child;
    if (in_child(&child)) {
        for (int i = 0; i < 50; i++) {
            kill(parent, SIGUSR1);
            usleep(1000);
        }
        child_done();
    }
    /* a handler that uses files, in the middle of calls that do */
    int fd = open("busy", O_RDWR | O_CREAT | O_TRUNC, 0644), wrong = 0;
    long rounds = 0;
    int status;
    char text[64];
    memset(text, 'b', sizeof text);
    while (waitpid(child, &status, WNOHANG) == 0) {
        wrong += pwrite(fd, text, sizeof text, (rounds % 1000) * 64) != (ssize_t)sizeof text;
        wrong += pread(fd, text, sizeof text, (rounds % 1000) * 64) != (ssize_t)sizeof text;
        rounds++;
    }
    CHECK_EQ(status, 0);
    CHECK_EQ(wrong, 0);
    CHECK(handled >= 1);
    CHECK_EQ(size_of("by-handler"), handled);
    CHECK_EQ(signal(SIGUSR1, SIG_DFL) == on_signal, 1);
    close(fd);
}

/* Programs find one another by the names of sockets. */
static void sockets_by_name(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "socket"};
    const struct sockaddr *address = (const struct sockaddr *)&at;
    struct stat st;
    char text[8] = "";
    int server = socket(AF_UNIX, SOCK_STREAM, 0), other = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_ERR(connect(other, address, sizeof at), ENOENT);
    CHECK_EQ(bind(server, address, sizeof at), 0);
    CHECK_EQ(lstat("socket", &st), 0);
    CHECK_EQ(st.st_mode, S_IFSOCK | 0755);
    CHECK_ERR(bind(other, address, sizeof at), EADDRINUSE);
    CHECK_ERR(connect(other, address, sizeof at), ECONNREFUSED);
    CHECK_EQ(listen(server, 4), 0);
    pid_t child;
    if (in_child(&child)) {
        CHECK_EQ(connect(other, address, sizeof at), 0);
        CHECK_EQ(write(other, "hello", 5), 5);
        child_done();
    }
    int peer = accept(server, NULL, NULL);
    CHECK_EQ(read(peer, text, sizeof text), 5);
    CHECK_STR(text, "hello");
    reap(child);
    CHECK_EQ(rename("socket", "moved"), 0);
    CHECK_ERR(connect(other, address, sizeof at), ENOENT);
    strcpy(at.sun_path, "moved");
    close(other);
    other = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_EQ(syscall(SYS_connect, other, address, sizeof at), 0);
    CHECK_ERR(open("moved", O_RDWR), ENXIO);
    close(peer);
    close(server);
    close(other);
    other = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK_ERR(connect(other, address, sizeof at), ECONNREFUSED);
    CHECK_EQ(unlink("moved"), 0);
    CHECK_EQ(bind(other, address, sizeof at), 0);
    CHECK_EQ(unlink("moved"), 0);
    put("plain", "");
    strcpy(at.sun_path, "plain");
    CHECK_ERR(connect(other, address, sizeof at), ECONNREFUSED);
    CHECK_ERR(bind(other, address, sizeof at), EADDRINUSE);
    strcpy(at.sun_path, "plain/x");
    CHECK_ERR(connect(other, address, sizeof at), ENOTDIR);
    close(other);
}

int main(int argc, char **argv)
{
    if (realpath("/proc/self/exe", self) == NULL) return 2;
    if (argc == 4 && strcmp(argv[1], "--inherited") == 0) return inherited(argv);
    enter(argc, argv);
    duplicates();
    forks_share();
    many_writers();
    exec_inherits();
    spawning();
    record_locks();
    whole_file_locks();
    readiness();
    sockets_by_name();
    bare_system_calls();
    signals();
    return done();
}
