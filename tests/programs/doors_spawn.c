/* Starting programs, temporary names and real paths, self-checking.
 *
 *   doors_spawn DIR [PROGRAMS]   works in DIR, which must exist, and starts
 *                                programs in PROGRAMS; takes all away again
 *
 * With the shim preloaded it also checks that the shim is carried into every
 * program, when the environment was cleared, too.
 */
#define _GNU_SOURCE
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(c) do { if (!(c)) { fprintf(stderr, "%s:%d: %s (errno %d: %s)\n", __FILE__, __LINE__, #c, errno, strerror(errno)); exit(1); } } while (0)

extern char **environ;
static char self[PATH_MAX];
static const char *dir, *programs;
static char app[256] = "-"; /* the step it belongs to */
static int carried; /* the shim is here and must stay */

static char *at(const char *base, const char *tail)
{
    static char out[8][PATH_MAX];
    static int turn;
    char *o = out[turn = (turn + 1) % 8];
    snprintf(o, PATH_MAX, "%s%s%s", base, *tail ? "/" : "", tail);
    return o;
}

static char *in(const char *tail)
{
    return at(dir, tail);
}

static char *slurp(int fd)
{
    static char buf[1 << 20];
    size_t n = 0;
    ssize_t r;
    while ((r = read(fd, buf + n, sizeof buf - 1 - n)) > 0) n += r;
    buf[n] = 0;
    close(fd);
    return buf;
}

static char *content(const char *path)
{
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    return slurp(fd);
}

static void put(const char *path, const char *text, int mode)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    CHECK(chmod(path, mode) == 0);
}

static int open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    CHECK(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* What a started program sees: its arguments and what of its environment counts. */
static int report(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) printf("%s|", argv[i]);
    printf(" MINE=%s", getenv("MINE") ? getenv("MINE") : "-");
    const char *pre = getenv("LD_PRELOAD");
    printf(" shim=%d dir=%d app=%s\n", pre && strstr(pre, "libcapio_posix"), getenv("CAPIO_DIR") != NULL,
           getenv("CAPIO_APP_NAME") ? getenv("CAPIO_APP_NAME") : "-");
    return 0;
}

static const char *expected(const char *args, const char *mine)
{
    static char out[4096];
    snprintf(out, sizeof out, "%s MINE=%s shim=%d dir=%d app=%s\n", args, mine, carried, carried, carried ? app : "-");
    return out;
}

enum how { EXECVE, EXECV, EXECVP, EXECVPE, EXECL, EXECL_LONG, EXECLP, EXECLE, EXECVEAT, FEXECVE, VFORK_BIG, HOWS };

static void start(enum how how)
{
    char *av[] = { "x", "report", "one", NULL }, *ev[] = { "MINE=yes", NULL };
    static char *big[6000];
    switch (how) {
    case EXECVE: execve(self, av, ev); break;
    case EXECV: environ = ev; execv(self, av); break;
    case EXECVP: environ = ev; execvp(self, av); break;
    case EXECVPE: execvpe(self, av, ev); break;
    case EXECL: environ = ev; execl(self, "x", "report", "one", NULL); break;
    case EXECL_LONG: environ = ev; execl(self, "x", "report", "1", "2", "3", "4", "5", "6", "7", "8", NULL); break;
    case EXECLP: environ = ev; execlp(self, "x", "report", "one", "two", "three", "four", "five", NULL); break;
    case EXECLE: execle(self, "x", "report", "1", "2", "3", NULL, ev); break;
    case EXECVEAT: execveat(AT_FDCWD, self, av, ev, 0); break;
    case FEXECVE: fexecve(open(self, O_RDONLY | O_CLOEXEC), av, ev); break;
    case VFORK_BIG:
        for (int i = 0; i < 5999; i++) big[i] = i ? "FILL=x" : "MINE=yes";
        execve(self, av, big);
        break;
    default: break;
    }
    _exit(99);
}

static void execs(void)
{
    static const char *args[HOWS] = {
        [EXECL_LONG] = "1|2|3|4|5|6|7|8|", [EXECLP] = "one|two|three|four|five|", [EXECLE] = "1|2|3|",
    };
    for (int how = 0; how < HOWS; how++) {
        int p[2], st;
        CHECK(pipe2(p, O_CLOEXEC) == 0);
        pid_t pid = how == VFORK_BIG ? vfork() : fork();
        if (pid == 0) {
            dup2(p[1], 1);
            start(how);
        }
        close(p[1]);
        char *got = slurp(p[0]);
        CHECK(waitpid(pid, &st, 0) == pid);
        const char *want = expected(args[how] ? args[how] : "one|", "yes");
        if (strcmp(got, want) || st) fprintf(stderr, "exec %d: status %#x, got %s, want %s", how, st, got, want);
        CHECK(st == 0 && strcmp(got, want) == 0);
    }
    char *av[] = { "x", NULL };
    CHECK(execve(in("none"), av, environ) == -1 && errno == ENOENT);
    CHECK(execve(at(programs, "plain"), av, environ) == -1 && errno == EACCES);
    CHECK(execvp("", av) == -1 && errno == ENOENT);
    CHECK(execvp("no-such-program-anywhere", av) == -1 && errno == ENOENT);
    CHECK(fexecve(-1, av, environ) == -1 && errno == EINVAL);
}

/* PATH: a file that is not executable, then a script without an interpreter. */
static void paths(void)
{
    char path[3 * PATH_MAX], *av[] = { "prog", "arg", NULL }, *old = strdup(getenv("PATH"));
    int p[2], st;
    snprintf(path, sizeof path, "%s:/nowhere:%s:%s", at(programs, "bin0"), at(programs, "bin1"), at(programs, "bin2"));
    setenv("PATH", path, 1);
    CHECK(pipe2(p, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(p[1], 1);
        execvp("prog", av);
        _exit(99);
    }
    close(p[1]);
    CHECK(strcmp(slurp(p[0]), "script arg\n") == 0);
    CHECK(waitpid(pid, &st, 0) == pid && st == 0);
    CHECK(posix_spawnp(&pid, "prog", NULL, NULL, av, environ) == ENOEXEC);
    CHECK(posix_spawnp(&pid, "only-plain", NULL, NULL, av, environ) == EACCES);
    CHECK(posix_spawnp(&pid, "nothing", NULL, NULL, av, environ) == ENOENT);
    CHECK(execvp("only-plain", av) == -1 && errno == EACCES);
    CHECK(posix_spawnp(&pid, "good", NULL, NULL, av, environ) == 0);
    CHECK(waitpid(pid, &st, 0) == pid && st == 7 << 8);
    setenv("PATH", old, 1);
    CHECK(chdir(at(programs, "bin2")) == 0);
    CHECK(posix_spawn(&pid, "./good", NULL, NULL, av, environ) == 0);
    CHECK(waitpid(pid, &st, 0) == pid && st == 7 << 8);
    if ((pid = vfork()) == 0) {
        execl("./good", "good", NULL);
        _exit(99);
    }
    CHECK(waitpid(pid, &st, 0) == pid && st == 7 << 8);
    CHECK(chdir("/") == 0);
    free(old);
}

static void spawns(void)
{
    posix_spawn_file_actions_t fa;
    char *av[] = { "sh", "-c", "cat; echo err >&2; cat here; cat <&7; echo fds: $(ls /proc/self/fd | awk '$1 < 100' | wc -l)", NULL };
    pid_t pid;
    int st, before = open_fds();
    put(in("in"), "input\n", 0644);
    put(in("sub/here"), "here\n", 0644);
    int sub = open(in("sub"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(sub >= 0);
    for (int way = 0; way < 3; way++) {
        posix_spawn_file_actions_init(&fa);
        posix_spawn_file_actions_addopen(&fa, 0, in("in"), O_RDONLY, 0);
        posix_spawn_file_actions_addopen(&fa, 1, in("out"), O_WRONLY | O_CREAT | O_TRUNC, 0640);
        posix_spawn_file_actions_adddup2(&fa, 1, 2);
        if (way == 0) posix_spawn_file_actions_addchdir_np(&fa, in("sub"));
        if (way == 1) posix_spawn_file_actions_addfchdir_np(&fa, sub);
        if (way == 2) {
            posix_spawn_file_actions_addchdir_np(&fa, dir);
            posix_spawn_file_actions_addchdir_np(&fa, "sub");
        }
        posix_spawn_file_actions_addopen(&fa, 7, "here", O_RDONLY, 0);
        posix_spawn_file_actions_addclosefrom_np(&fa, 8);
        errno = 0;
        CHECK(posix_spawn(&pid, "/bin/sh", &fa, NULL, av, environ) == 0);
        CHECK(waitpid(pid, &st, 0) == pid && st == 0);
        posix_spawn_file_actions_destroy(&fa);
        char *got = content(in("out"));
        if (strcmp(got, "input\nerr\nhere\nhere\nfds: 5\n")) fprintf(stderr, "way %d: %s", way, got);
        CHECK(strcmp(got, "input\nerr\nhere\nhere\nfds: 5\n") == 0);
        struct stat s;
        CHECK(stat(in("out"), &s) == 0 && (s.st_mode & 0777) == 0640);
        CHECK(unlink(in("out")) == 0);
    }
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, in("none"), O_RDONLY, 0);
    CHECK(posix_spawn(&pid, "/bin/sh", &fa, NULL, av, environ) == ENOENT);
    posix_spawn_file_actions_destroy(&fa);
    CHECK(posix_spawn(&pid, in("none"), NULL, NULL, av, environ) == ENOENT);

    /* a program in the directory that the actions change to */
    char *good[] = { "good", NULL };
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addchdir_np(&fa, at(programs, "bin2"));
    CHECK(posix_spawn(&pid, "./good", &fa, NULL, good, environ) == 0);
    CHECK(waitpid(pid, &st, 0) == pid && st == 7 << 8);
    posix_spawn_file_actions_destroy(&fa);
    close(sub);
    CHECK(open_fds() == before);

    int p[2];
    char *ev[] = { "MINE=yes", NULL }, *rv[] = { "x", "report", "one", NULL };
    CHECK(pipe2(p, O_CLOEXEC) == 0);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, p[1], 1);
    CHECK(posix_spawn(&pid, self, &fa, NULL, rv, ev) == 0);
    posix_spawn_file_actions_destroy(&fa);
    close(p[1]);
    CHECK(strcmp(slurp(p[0]), expected("one|", "yes")) == 0);
    CHECK(waitpid(pid, &st, 0) == pid && st == 0);
}

static void shells(const char *path)
{
    char cmd[2 * PATH_MAX], line[4096];
    snprintf(cmd, sizeof cmd, "exec '%s' report one", self);
    struct sigaction before, after;
    sigaction(SIGINT, NULL, &before);
    CHECK(system(NULL) != 0);
    CHECK(system("exit 3") == 3 << 8);
    CHECK(system("kill -9 $$") == 9);
    sigaction(SIGINT, NULL, &after);
    CHECK(before.sa_handler == after.sa_handler);
    sigset_t mask;
    CHECK(sigprocmask(SIG_SETMASK, NULL, &mask) == 0 && !sigismember(&mask, SIGCHLD));
    int fds = open_fds();
    FILE *f = popen(cmd, "r");
    CHECK(f && fgets(line, sizeof line, f));
    CHECK(strcmp(line, expected("one|", "-")) == 0);
    CHECK(pclose(f) == 0);
    FILE *first = popen("cat >/dev/null; exit 5", "w"), *second = popen("cat >/dev/null; exit 6", "we");
    CHECK(first && second && fcntl(fileno(second), F_GETFD) == FD_CLOEXEC);
    CHECK(fputs("text\n", first) >= 0);
    CHECK(pclose(first) == 5 << 8);
    CHECK(pclose(second) == 6 << 8);
    CHECK(!popen("true", "x") && errno == EINVAL);
    CHECK(open_fds() == fds);
    snprintf(cmd, sizeof cmd, "'%s' report one > '%s'", self, path);
    CHECK(system(cmd) == 0);
    CHECK(strcmp(content(path), expected("one|", "-")) == 0);
    unlink(path);
}

static void temps(void)
{
    char a[PATH_MAX], b[PATH_MAX];
    struct stat st;
    int fd;
    errno = 77;
    strcpy(a, in("tXXXXXX"));
    CHECK((fd = mkstemp(a)) >= 0 && errno == 77 && !strstr(a, "XXXXXX"));
    CHECK(write(fd, "x", 1) == 1 && stat(a, &st) == 0 && (st.st_mode & 07777) == 0600 && st.st_size == 1);
    close(fd);
    strcpy(b, in("tXXXXXX"));
    CHECK((fd = mkstemp(b)) >= 0 && strcmp(a, b));
    close(fd);
    CHECK(unlink(a) == 0 && unlink(b) == 0);
    strcpy(a, in("tXXXXXX.ext"));
    CHECK((fd = mkostemps(a, 4, O_APPEND | O_CLOEXEC)) >= 0 && !strcmp(a + strlen(a) - 4, ".ext"));
    CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC && (fcntl(fd, F_GETFL) & (O_APPEND | O_ACCMODE)) == (O_APPEND | O_RDWR));
    close(fd);
    CHECK(unlink(a) == 0);
    strcpy(a, in("tXXXXX"));
    CHECK(mkstemp(a) == -1 && errno == EINVAL);
    strcpy(a, in("tXXXXXX.ext"));
    CHECK(mkstemps(a, 3) == -1 && errno == EINVAL);
    CHECK(mkstemps(a, 4000) == -1 && errno == EINVAL);
    strcpy(a, in("none/tXXXXXX"));
    CHECK(mkstemp(a) == -1 && errno == ENOENT);
    strcpy(a, in("dXXXXXX"));
    CHECK(mkdtemp(a) == a && stat(a, &st) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & 0777) == 0700 && rmdir(a) == 0);
    strcpy(a, in("mXXXXXX"));
    CHECK(mktemp(a) == a && *a && stat(a, &st) == -1 && errno == ENOENT);
    strcpy(a, in("mXXX"));
    CHECK(mktemp(a) == a && !*a && errno == EINVAL);
    unsetenv("TMPDIR");
    char *n = tempnam(dir, "prefix");
    CHECK(n && !strncmp(n, in("prefi"), strlen(in("prefi"))) && strlen(n) == strlen(in("prefi")) + 6);
    free(n);
    setenv("TMPDIR", dir, 1);
    n = tempnam("/", NULL);
    CHECK(n && !strncmp(n, in("file"), strlen(in("file"))));
    free(n);
    unsetenv("TMPDIR");
    char t[L_tmpnam];
    CHECK(tmpnam(t) == t && !strncmp(t, "/tmp/file", 9) && !tmpnam_r(NULL));
}

static void reals(void)
{
    char buf[PATH_MAX];
    CHECK(realpath(in("sub/.././sub//here"), buf) == buf && strcmp(buf, in("sub/here")) == 0);
    char *p = realpath(in("sub/"), NULL);
    CHECK(p && strcmp(p, in("sub")) == 0);
    free(p);
    p = canonicalize_file_name(in("sub/here"));
    CHECK(p && strcmp(p, in("sub/here")) == 0);
    free(p);
    CHECK(!realpath(in("none/x"), NULL) && errno == ENOENT);
    CHECK(!realpath(in("sub/here/x"), NULL) && errno == ENOTDIR);
    CHECK(!realpath(NULL, NULL) && errno == EINVAL);
    CHECK(!realpath("", NULL) && errno == ENOENT);
    CHECK(chdir(in("sub")) == 0);
    CHECK((p = realpath("here", NULL)) && strcmp(p, in("sub/here")) == 0);
    free(p);
    CHECK((p = realpath(".", NULL)) && strcmp(p, in("sub")) == 0);
    free(p);
    CHECK(chdir("/") == 0);
}

int main(int argc, char **argv)
{
    if (argc >= 2 && !strcmp(argv[1], "report")) return report(argc - 2, argv + 2);
    CHECK(argc == 2 || argc == 3);
    dir = argv[1];
    programs = argv[argc - 1];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(n > 0);
    const char *pre = getenv("LD_PRELOAD");
    carried = pre && strstr(pre, "libcapio_posix") && getenv("CAPIO_DIR");
    if (carried && getenv("CAPIO_APP_NAME")) snprintf(app, sizeof app, "%s", getenv("CAPIO_APP_NAME"));
    if (!carried) unsetenv("CAPIO_APP_NAME"), unsetenv("CAPIO_DIR"), unsetenv("LD_PRELOAD");

    static const char *dirs[] = { "sub", "bin1", "bin2" };
    for (size_t i = 0; i < 3; i++) CHECK(mkdir(at(i ? programs : dir, dirs[i]), 0755) == 0);
    put(at(programs, "plain"), "no program", 0644);
    put(at(programs, "bin1/prog"), "no program", 0644);
    put(at(programs, "bin1/only-plain"), "no program", 0644);
    put(at(programs, "bin2/prog"), "echo script $1\n", 0755);
    put(at(programs, "bin2/good"), "#!/bin/sh\nexit 7\n", 0755);

    temps();
    spawns();
    reals();
    execs();
    paths();
    shells(in("shell-out"));
    clearenv();
    shells("/tmp/doors_spawn-out");
    environ = NULL;
    shells("/tmp/doors_spawn-out");

    static const char *files[] = { "in", "sub/here", "plain", "bin1/prog", "bin1/only-plain", "bin2/prog", "bin2/good" };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) CHECK(unlink(at(i < 2 ? dir : programs, files[i])) == 0);
    for (size_t i = 0; i < 3; i++) CHECK(rmdir(at(i ? programs : dir, dirs[i])) == 0);
    return 0;
}
