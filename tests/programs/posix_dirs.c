/* Directories: making, listing, walking, and the working directory. */
#include "check.h"
#include <fnmatch.h>
#include <fts.h>
#include <ftw.h>
#include <glob.h>

static int count(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL) return -1;
    int n = 0;
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return n;
}

static void making(void)
{
    CHECK_EQ(mkdir("a", 0755), 0);
    CHECK_ERR(mkdir("a", 0755), EEXIST);
    CHECK_ERR(mkdir("x/y", 0755), ENOENT);
    CHECK_EQ(mkdir("a/b/", 0755), 0);
    put("file", "");
    CHECK_ERR(mkdir("file/x", 0755), ENOTDIR);
    CHECK_ERR(mkdir("file", 0755), EEXIST);
    struct stat st;
    CHECK_EQ(stat("a", &st), 0);
    CHECK_EQ(st.st_mode, S_IFDIR | 0755);
    CHECK_EQ(mkdir("masked", 0777), 0);
    CHECK_EQ(stat("masked", &st), 0);
    CHECK_EQ(st.st_mode & 0777, 0755);
    CHECK_ERR(rmdir("a"), ENOTEMPTY);
    CHECK_ERR(rmdir("file"), ENOTDIR);
    CHECK_ERR(rmdir("missing"), ENOENT);
    CHECK_ERR(rmdir("."), EINVAL);
    CHECK_ERR(rmdir("a/b/.."), ENOTEMPTY);
    CHECK_EQ(rmdir("a/b"), 0);
    CHECK_EQ(rmdir("a"), 0);
    CHECK_ERR(stat("a", &st), ENOENT);
    CHECK_EQ(rmdir("masked"), 0);
    CHECK_EQ(unlink("file"), 0);
    CHECK_EQ(count("."), 0);
}

static void listing(void)
{
    CHECK_EQ(mkdir("list", 0755), 0);
    CHECK_EQ(count("list"), 0);
    put("list/file", "abc");
    CHECK_EQ(mkdir("list/dir", 0755), 0);
    CHECK_EQ(symlink("file", "list/link"), 0);
    DIR *dir = opendir("list");
    CHECK(dir != NULL);
    int dots = 0, seen = 0;
    struct dirent *entry;
    errno = 0;
    while ((entry = readdir(dir)) != NULL) {
        struct stat st;
        CHECK_EQ(fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW), 0);
        if (entry->d_name[0] == '.') {
            dots++;
            CHECK(entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN);
            continue;
        }
        seen++;
        CHECK_EQ(entry->d_ino, st.st_ino);
        CHECK(entry->d_type == DT_UNKNOWN || entry->d_type == IFTODT(st.st_mode));
        errno = 0;
    }
    CHECK_EQ(errno, 0);
    CHECK_EQ(dots, 2);
    CHECK_EQ(seen, 3);
    CHECK(readdir(dir) == NULL); /* the end stays the end */
    rewinddir(dir);
    seen = 0;
    while (readdir(dir) != NULL) seen++;
    CHECK_EQ(seen, 5);
    CHECK_EQ(closedir(dir), 0);
    CHECK(opendir("missing") == NULL && errno == ENOENT);
    CHECK(opendir("list/file") == NULL && errno == ENOTDIR);
    int fd = open("list", O_RDONLY | O_DIRECTORY);
    dir = fdopendir(fd);
    CHECK(dir != NULL);
    CHECK_EQ(dirfd(dir), fd);
    seen = 0;
    while (readdir(dir) != NULL) seen++;
    CHECK_EQ(seen, 5);
    CHECK_EQ(closedir(dir), 0);
    CHECK_EQ(fcntl(fd, F_GETFD), -1); /* closed with the stream */
}

static void telling_and_seeking(void)
{
    CHECK_EQ(mkdir("big", 0755), 0);
    enum { N = 500 };
    char path[300];
    for (int i = 0; i < N; i++) {
        snprintf(path, sizeof path, "big/%0*d", 4 + i % 200, i);
        put(path, "");
    }
    CHECK_EQ(count("big"), N);
    DIR *dir = opendir("big");
    long places[N + 2];
    char names[N + 2][256];
    int n = 0;
    for (;;) {
        long place = telldir(dir);
        struct dirent *entry = readdir(dir);
        if (entry == NULL || n == N + 2) break;
        places[n] = place;
        strcpy(names[n++], entry->d_name);
    }
    CHECK_EQ(n, N + 2);
    for (int i = 0; i < n; i += 37) { /* back to any place that was told */
        int back = (i * 101) % n;
        seekdir(dir, places[back]);
        struct dirent *entry = readdir(dir);
        CHECK_STR(entry ? entry->d_name : NULL, names[back]);
    }
    /* removing while listing skips nobody */
    rewinddir(dir);
    struct dirent *entry;
    int removed = 0;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        removed += unlinkat(dirfd(dir), entry->d_name, 0) == 0;
    }
    CHECK_EQ(removed, N);
    closedir(dir);
    CHECK_EQ(count("big"), 0);
    CHECK_EQ(rmdir("big"), 0);
}

static int not_dots(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void tree(void)
{
    CHECK_EQ(mkdir("tree", 0755), 0);
    const char *dirs[] = {"tree/b", "tree/a", "tree/a/deep"};
    const char *files[] = {"tree/z.txt", "tree/a/1.txt", "tree/a/deep/2.txt", "tree/b/3.dat"};
    CHECK_EQ(mkdir(dirs[0], 0755) + mkdir(dirs[1], 0755) + mkdir(dirs[2], 0755), 0);
    for (int i = 0; i < 4; i++) put(files[i], "four");
}

static void scanning(void)
{
    struct dirent **list;
    int n = scandir("tree", &list, not_dots, alphasort);
    CHECK_EQ(n, 3);
    if (n == 3) {
        CHECK_STR(list[0]->d_name, "a");
        CHECK_STR(list[1]->d_name, "b");
        CHECK_STR(list[2]->d_name, "z.txt");
        for (int i = 0; i < n; i++) free(list[i]);
        free(list);
    }
    CHECK_ERR(scandir("missing", &list, NULL, NULL), ENOENT);
}

static void globbing(void)
{
    glob_t found;
    CHECK_EQ(glob("tree/*/*.txt", 0, NULL, &found), 0);
    CHECK_EQ(found.gl_pathc, 1);
    CHECK_STR(found.gl_pathv[0], "tree/a/1.txt");
    globfree(&found);
    CHECK_EQ(glob("tree/[ab]", GLOB_MARK, NULL, &found), 0);
    CHECK_EQ(found.gl_pathc, 2);
    CHECK_STR(found.gl_pathv[0], "tree/a/");
    CHECK_STR(found.gl_pathv[1], "tree/b/");
    globfree(&found);
    CHECK_EQ(glob("tree/nothing*", 0, NULL, &found), GLOB_NOMATCH);
    CHECK_EQ(glob("tree/nothing*", GLOB_NOCHECK, NULL, &found), 0);
    CHECK_STR(found.gl_pathv[0], "tree/nothing*");
    globfree(&found);
    CHECK_EQ(glob("tree/z.txt", 0, NULL, &found), 0);
    CHECK_EQ(found.gl_pathc, 1);
    globfree(&found);
}

static int walked_files, walked_dirs, walk_stop;
static off_t walked_bytes;

static int walk(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    if (type == FTW_F) {
        walked_files++;
        walked_bytes += st->st_size;
        CHECK(strlen(path) > (size_t)ftw->base);
    }
    if (type == FTW_D || type == FTW_DP) walked_dirs++;
    return walk_stop != 0 && walked_files >= walk_stop ? 7 : 0;
}

static void walking(void)
{
    CHECK_EQ(nftw("tree", walk, 8, FTW_PHYS), 0);
    CHECK_EQ(walked_files, 4);
    CHECK_EQ(walked_dirs, 4);
    CHECK_EQ(walked_bytes, 16);
    walked_files = 0;
    walk_stop = 2;
    CHECK_EQ(nftw("tree", walk, 1, FTW_PHYS | FTW_DEPTH), 7);
    CHECK_EQ(walked_files, 2);
    CHECK_ERR(nftw("missing", walk, 8, 0), ENOENT);

#if !defined(_FILE_OFFSET_BITS) || _FILE_OFFSET_BITS == 64
    char *roots[] = {"tree", NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    CHECK(fts != NULL);
    int files = 0, pre = 0, post = 0;
    FTSENT *entry;
    while (fts != NULL && (entry = fts_read(fts)) != NULL) {
        files += entry->fts_info == FTS_F;
        pre += entry->fts_info == FTS_D;
        post += entry->fts_info == FTS_DP;
    }
    CHECK_EQ(files, 4);
    CHECK_EQ(pre, 4);
    CHECK_EQ(post, 4);
    if (fts != NULL) CHECK_EQ(fts_close(fts), 0);
    fts = fts_open(roots, FTS_LOGICAL, NULL); /* changes directory while it walks */
    files = 0;
    while (fts != NULL && (entry = fts_read(fts)) != NULL) {
        if (entry->fts_info != FTS_F) continue;
        struct stat st;
        files++;
        CHECK_EQ(stat(entry->fts_accpath, &st), 0);
        CHECK_EQ(st.st_size, 4);
    }
    CHECK_EQ(files, 4);
    if (fts != NULL) CHECK_EQ(fts_close(fts), 0);
#endif
}

static void working_directory(void)
{
    char top[PATH_MAX], here[PATH_MAX], wanted[PATH_MAX + 32];
    CHECK(getcwd(top, sizeof top) != NULL);
    CHECK_EQ(chdir("tree/a"), 0);
    snprintf(wanted, sizeof wanted, "%s/tree/a", top);
    CHECK_STR(getcwd(here, sizeof here), wanted);
    CHECK_STR(get("1.txt"), "four");
    CHECK_STR(get("../z.txt"), "four");
    CHECK_STR(get("../../tree/b/3.dat"), "four");
    char *allocated = getcwd(NULL, 0);
    CHECK_STR(allocated, wanted);
    free(allocated);
    allocated = get_current_dir_name();
    CHECK_STR(allocated, wanted);
    free(allocated);
    CHECK(getcwd(here, 3) == NULL && errno == ERANGE);
    put("made-here", "x");
    int up = open("..", O_RDONLY | O_DIRECTORY);
    CHECK_EQ(fchdir(up), 0);
    snprintf(wanted, sizeof wanted, "%s/tree", top);
    CHECK_STR(getcwd(here, sizeof here), wanted);
    CHECK_EQ(size_of("a/made-here"), 1);
    close(up);
    pid_t child;
    if (in_child(&child)) { /* a child has its parent's and moves alone */
        CHECK_STR(getcwd(here, sizeof here), wanted);
        CHECK_EQ(chdir("b"), 0);
        CHECK_EQ(size_of("3.dat"), 4);
        child_done();
    }
    reap(child);
    CHECK_STR(getcwd(here, sizeof here), wanted);
    CHECK_EQ(system("cd b && test -f 3.dat && test \"$(cat ../z.txt)\" = four"), 0);
    CHECK_ERR(chdir("missing"), ENOENT);
    CHECK_ERR(chdir("z.txt"), ENOTDIR);
    CHECK_EQ(chdir(top), 0);
    CHECK_EQ(chdir("/"), 0); /* out of the directory and back */
    CHECK_STR(getcwd(here, sizeof here), "/");
    CHECK_EQ(access("etc/passwd", R_OK), 0);
    CHECK_EQ(chdir(top), 0);
    CHECK_STR(getcwd(here, sizeof here), top);
    CHECK_EQ(unlink("tree/a/made-here"), 0);
}

static void resolving(void)
{
    char top[PATH_MAX], path[PATH_MAX], wanted[PATH_MAX + 32];
    CHECK(getcwd(top, sizeof top) != NULL);
    snprintf(wanted, sizeof wanted, "%s/tree/a/1.txt", top);
    CHECK_STR(realpath("tree/b/../a/./1.txt", path), wanted);
    CHECK_EQ(symlink("tree/a", "shortcut"), 0);
    CHECK_STR(realpath("shortcut/1.txt", path), wanted);
    char *allocated = realpath("shortcut//1.txt", NULL);
    CHECK_STR(allocated, wanted);
    free(allocated);
    allocated = canonicalize_file_name("tree");
    snprintf(wanted, sizeof wanted, "%s/tree", top);
    CHECK_STR(allocated, wanted);
    free(allocated);
    CHECK(realpath("tree/missing", path) == NULL && errno == ENOENT);
    CHECK(realpath("tree/z.txt/x", path) == NULL && errno == ENOTDIR);
    CHECK_STR(realpath("/etc/../etc/passwd", path), "/etc/passwd");
    CHECK_EQ(unlink("shortcut"), 0);
}

static int remove_entry(const char *path, const struct stat *st UNUSED, int type UNUSED,
                        struct FTW *ftw UNUSED)
{
    return remove(path);
}

static void removing_a_tree(void)
{
    CHECK_EQ(nftw("tree", remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
    CHECK_EQ(access("tree", F_OK), -1);
    CHECK_EQ(nftw("list", remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
    CHECK_EQ(count("."), 0);
}

int main(int argc, char **argv)
{
    enter(argc, argv);
    making();
    listing();
    telling_and_seeking();
    tree();
    scanning();
    globbing();
    walking();
    working_directory();
    resolving();
    removing_a_tree();
    return done();
}
