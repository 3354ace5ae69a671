/* Directory streams, scandir, glob, nftw and fts over one tree, self-checking.
 *
 *   doors_walk make DIR    makes the tree (DIR must not exist)
 *   doors_walk check DIR   walks it in every way; the trace on stdout is the
 *                          same whoever carries the calls out
 *   doors_walk DIR         both, and takes the tree away again
 */
#define _GNU_SOURCE
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <ftw.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK(c) do { if (!(c)) { fflush(stdout); fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #c, errno); exit(1); } } while (0)

static const char *root;
static size_t root_len;

/* The path with the root's name taken out, so that traces compare. */
static const char *rel(const char *p)
{
    static char out[2][8192];
    static int turn;
    char *o = out[turn ^= 1];
    if (strncmp(p, root, root_len) == 0)
        snprintf(o, 8192, "ROOT%s", p + root_len);
    else
        snprintf(o, 8192, "%s", p);
    return o;
}

static void touch(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    CHECK(fd >= 0);
    CHECK(write(fd, path, strlen(path)) == (ssize_t)strlen(path));
    close(fd);
}

static void make(void)
{
    char p[4096];
    static const char *dirs[] = { "", "/a", "/a/b", "/a/b/c", "/empty", "/many", "/z" };
    static const char *files[] = { "/f1.txt", "/f2.txt", "/a/g1.txt", "/a/b/h.dat", "/a/b/c/deep", "/z/last.txt", "/.hidden" };
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        snprintf(p, sizeof p, "%s%s", root, dirs[i]);
        CHECK(mkdir(p, 0755) == 0);
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(p, sizeof p, "%s%s", root, files[i]);
        touch(p);
    }
    for (int i = 0; i < 2000; i++) {
        snprintf(p, sizeof p, "%s/many/entry-with-a-long-name-%05d", root, i);
        touch(p);
    }
    snprintf(p, sizeof p, "%s/a/link", root);
    CHECK(symlink("../f1.txt", p) == 0);
    snprintf(p, sizeof p, "%s/a/dangling", root);
    CHECK(symlink("nowhere", p) == 0);
    snprintf(p, sizeof p, "%s/z/up", root);
    CHECK(symlink("../a", p) == 0);
    snprintf(p, sizeof p, "%s/a/b/loop", root);
    CHECK(symlink("..", p) == 0);
}

static void streams(void)
{
    char p[4096];
    long places[3000];
    char names[3000][64];
    int n = 0, m = 0;
    snprintf(p, sizeof p, "%s/many", root);
    DIR *d = opendir(p);
    CHECK(d);
    CHECK(fcntl(dirfd(d), F_GETFD) == FD_CLOEXEC);
    struct dirent *e;
    errno = 77;
    for (;;) {
        long at = telldir(d);
        if (!(e = readdir(d))) break;
        CHECK(n < 3000);
        places[n] = at;
        snprintf(names[n++], 64, "%.63s", e->d_name);
    }
    CHECK(errno == 77);
    CHECK(n == 2002);
    for (int i = n - 1; i >= 0; i -= 97) {
        seekdir(d, places[i]);
        e = readdir(d);
        CHECK(e && strcmp(e->d_name, names[i]) == 0);
    }
    rewinddir(d);
    CHECK(telldir(d) == 0);
    struct dirent one, *got;
    while (readdir_r(d, &one, &got) == 0 && got) {
        CHECK(got == &one && strcmp(one.d_name, names[m]) == 0);
        m++;
    }
    CHECK(m == n);
    CHECK(closedir(d) == 0);

    int fd = open(root, O_RDONLY | O_DIRECTORY);
    if (fd >= 0) {
        CHECK((d = fdopendir(fd)) != NULL && dirfd(d) == fd);
        while ((e = readdir(d)) != NULL) printf("entry %s type %d\n", e->d_name, e->d_type);
        CHECK(closedir(d) == 0);
        CHECK(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
    }
    snprintf(p, sizeof p, "%s/f1.txt", root);
    CHECK(!opendir(p) && errno == ENOTDIR);
    snprintf(p, sizeof p, "%s/none", root);
    CHECK(!opendir(p) && errno == ENOENT);
    DIR *all[200];
    for (int i = 0; i < 200; i++) CHECK((all[i] = opendir(root)));
    for (int i = 0; i < 200; i++) CHECK(closedir(all[i]) == 0);
}

static int texts(const struct dirent *e)
{
    return strstr(e->d_name, ".txt") != NULL;
}

static void scans(void)
{
    struct dirent **list;
    char p[4096];
    errno = 77;
    int n = scandir(root, &list, texts, alphasort);
    CHECK(n == 2 && errno == 77);
    CHECK(!strcmp(list[0]->d_name, "f1.txt") && !strcmp(list[1]->d_name, "f2.txt"));
    for (int i = 0; i < n; i++) free(list[i]);
    free(list);
    snprintf(p, sizeof p, "%s/many", root);
    n = scandir(p, &list, NULL, versionsort);
    CHECK(n == 2002 && !strcmp(list[2001]->d_name, "entry-with-a-long-name-01999"));
    for (int i = 0; i < n; i++) free(list[i]);
    free(list);
    snprintf(p, sizeof p, "%s/none", root);
    CHECK(scandir(p, &list, NULL, NULL) == -1 && errno == ENOENT);
}

static void one_glob(const char *pattern, int flags)
{
    glob_t g;
    memset(&g, 0x5a, sizeof g);
    g.gl_offs = 2;
    int r = glob(pattern, flags, NULL, &g);
    printf("glob %s flags %d: %d", rel(pattern), flags, r);
    if (r == 0) {
        printf(" (%zu, gl_flags %d)", g.gl_pathc, g.gl_flags);
        for (size_t i = 0; i < g.gl_pathc; i++)
            printf(" %s", rel(g.gl_pathv[i + (flags & GLOB_DOOFFS ? 2 : 0)]));
        globfree(&g);
    }
    CHECK(*(unsigned char *)&g.gl_opendir == 0x5a);
    printf("\n");
}

static void globs(void)
{
    static const struct { const char *tail; int flags; } t[] = {
        { "/*.txt", 0 }, { "/*/*.txt", GLOB_MARK }, { "/*", GLOB_MARK | GLOB_PERIOD }, { "/none*", 0 },
        { "/none*", GLOB_NOCHECK }, { "/{f1,f2}.txt", GLOB_BRACE }, { "/*", GLOB_ONLYDIR | GLOB_DOOFFS },
        { "/f1.txt", 0 }, { "/none", 0 }, { "/a/*", GLOB_NOSORT }, { "/a/dangl*", 0 }, { "/z/up/*", 0 },
    };
    char p[4096];
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        snprintf(p, sizeof p, "%s%s", root, t[i].tail);
        one_glob(p, t[i].flags);
    }
    glob_t g;
    snprintf(p, sizeof p, "%s/f1*", root);
    CHECK(glob(p, 0, NULL, &g) == 0 && g.gl_pathc == 1);
    snprintf(p, sizeof p, "%s/f2*", root);
    CHECK(glob(p, GLOB_APPEND, NULL, &g) == 0 && g.gl_pathc == 2);
    globfree(&g);
}

static int chdir_walk, rule_action, visits;

static int visit(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    int here = -1;
    if (chdir_walk) { /* the entry is seen by its last name from the working directory */
        int fd = open(flag == FTW_DP ? "." : path + at->base, O_PATH | O_NOFOLLOW);
        here = fd >= 0;
        if (fd >= 0) close(fd);
    }
    if (!strstr(path, "/entry-"))
        printf("  %s flag %d base %d level %d size %ld here %d\n", rel(path), flag,
               at->base - (int)root_len, at->level,
               flag == FTW_F ? (long)st->st_size : -1L, here);
    visits++;
    if (rule_action && flag == FTW_D && !strcmp(path + at->base, "many")) return FTW_SKIP_SUBTREE;
    if (rule_action && !strcmp(path + at->base, "g1.txt")) return FTW_SKIP_SIBLINGS;
    if (rule_action == 2 && !strcmp(path + at->base, "last.txt")) return FTW_STOP;
    return 0;
}

static int visit3(const char *path, const struct stat *st, int flag)
{
    (void)st;
    if (!strstr(path, "/entry-")) printf("  %s flag %d\n", rel(path), flag);
    visits++;
    return 0;
}

static void one_nftw(const char *path, int flags, int limit, int action)
{
    chdir_walk = flags & FTW_CHDIR;
    rule_action = action;
    visits = 0;
    struct stat a, b;
    CHECK(stat(".", &a) == 0);
    printf("nftw %s flags %d limit %d\n", rel(path), flags, limit);
    int r = nftw(path, visit, limit, flags);
    printf("= %d after %d, errno %d\n", r, visits, r < 0 ? errno : 0);
    CHECK(stat(".", &b) == 0 && a.st_ino == b.st_ino);
}

static void ftws(void)
{
    char p[4096];
    for (int flags = 0; flags < 16; flags++)
        one_nftw(root, flags, flags % 3 || flags & FTW_CHDIR ? 20 : 1, 0);
    one_nftw(root, FTW_PHYS | FTW_ACTIONRETVAL, 20, 1);
    one_nftw(root, FTW_PHYS | FTW_ACTIONRETVAL | FTW_CHDIR, 20, 1);
    one_nftw(root, FTW_PHYS | FTW_ACTIONRETVAL, 20, 2);
    snprintf(p, sizeof p, "%s/", root);
    one_nftw(p, FTW_PHYS, 20, 0);
    snprintf(p, sizeof p, "%s/f1.txt", root);
    one_nftw(p, FTW_PHYS, 20, 0);
    snprintf(p, sizeof p, "%s/a/dangling", root);
    one_nftw(p, 0, 20, 0);
    one_nftw(p, FTW_PHYS, 20, 0);
    snprintf(p, sizeof p, "%s/none", root);
    one_nftw(p, 0, 20, 0);
    visits = 0;
    printf("ftw\n");
    CHECK(ftw(root, visit3, 5) == 0);
    printf("= %d\n", visits);
    CHECK(visits == 2000 + 6 + 7 + 1 + 3 || visits > 2000);
    CHECK(nftw("", visit, 5, 0) == -1 && errno == ENOENT);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void one_fts(char *const *roots, int options, int ordered, int act)
{
    FTS *f = fts_open(roots, options | FTS_NOCHDIR, ordered ? by_name : NULL);
    printf("fts options %#x\n", options);
    CHECK(f);
    FTSENT *e;
    errno = 0;
    while ((e = fts_read(f)) != NULL) {
        if (!strncmp(e->fts_name, "entry-", 6)) continue;
        printf("  %s name %s info %d level %d len %d/%d acc %s errno %d", rel(e->fts_path), e->fts_level ? e->fts_name : "-",
               e->fts_info, e->fts_level, e->fts_pathlen - (int)root_len, e->fts_level ? e->fts_namelen : 0,
               rel(e->fts_accpath), e->fts_errno);
        if (!(options & FTS_NOSTAT) && e->fts_info == FTS_F) printf(" size %ld", (long)e->fts_statp->st_size);
        if (e->fts_info == FTS_DC) printf(" cycle %s", e->fts_cycle->fts_name);
        printf("\n");
        if (act && e->fts_info == FTS_D && !strcmp(e->fts_name, "many")) CHECK(fts_set(f, e, FTS_SKIP) == 0);
        if (act && e->fts_info == FTS_SL && !strcmp(e->fts_name, "up")) CHECK(fts_set(f, e, FTS_FOLLOW) == 0);
        if (act && e->fts_info == FTS_D && !strcmp(e->fts_name, "b")) {
            for (FTSENT *c = fts_children(f, act == 2 ? FTS_NAMEONLY : 0); c; c = c->fts_link)
                printf("    child %s info %d\n", c->fts_name, c->fts_info);
        }
    }
    CHECK(errno == 0);
    CHECK(fts_close(f) == 0);
}

static void fts(void)
{
    char a[4096], z[4096], s[4096], none[4096];
    snprintf(a, sizeof a, "%s/a", root);
    snprintf(z, sizeof z, "%s/z/up", root);
    snprintf(s, sizeof s, "%s/", root);
    snprintf(none, sizeof none, "%s/none", root);
    char *whole[] = { (char *)root, NULL }, *several[] = { z, a, none, NULL }, *slash[] = { s, NULL };
    int opts[] = { FTS_PHYSICAL, FTS_LOGICAL, FTS_PHYSICAL | FTS_SEEDOT, FTS_PHYSICAL | FTS_NOSTAT,
                   FTS_PHYSICAL | FTS_XDEV, FTS_LOGICAL | FTS_NOSTAT, FTS_PHYSICAL | FTS_COMFOLLOW };
    for (size_t i = 0; i < sizeof opts / sizeof *opts; i++)
        for (int ordered = 0; ordered < 2; ordered++) {
            one_fts(whole, opts[i], ordered, 0);
            one_fts(several, opts[i], ordered, 0);
        }
    one_fts(slash, FTS_PHYSICAL, 1, 0);
    one_fts(whole, FTS_PHYSICAL, 1, 1);
    one_fts(whole, FTS_PHYSICAL, 0, 2);
    FTS *f = fts_open(whole, FTS_PHYSICAL, NULL); /* with leave to change directory, left half way */
    CHECK(f && fts_read(f) && fts_read(f) && fts_read(f));
    struct stat st;
    CHECK(fts_children(f, 0) || errno == 0);
    CHECK(fts_close(f) == 0 && stat(".", &st) == 0);
    CHECK(!fts_open(whole, 0x1000, NULL) && errno == EINVAL);
}

static int take_away(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    (void)st, (void)flag, (void)at;
    return remove(path);
}

int main(int argc, char **argv)
{
    const char *what = argc == 3 ? argv[1] : "both";
    CHECK(argc >= 2);
    root = argv[argc - 1];
    root_len = strlen(root);
    if (strcmp(what, "check")) make();
    if (strcmp(what, "make")) {
        streams();
        scans();
        globs();
        ftws();
        fts();
    }
    if (!strcmp(what, "both")) CHECK(nftw(root, take_away, 8, FTW_PHYS | FTW_DEPTH) == 0);
    return 0;
}
