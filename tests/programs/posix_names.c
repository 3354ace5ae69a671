/* Names: links, renames, unlinking, and the attributes that stat tells. */
#include "check.h"
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <time.h>
#include <utime.h>

static int exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static void attributes(void)
{
    struct timespec before, after;
    clock_gettime(CLOCK_REALTIME_COARSE, &before);
    put("s", "0123456789");
    clock_gettime(CLOCK_REALTIME, &after);
    struct stat st, again, other;
    CHECK_EQ(stat("s", &st), 0);
    CHECK_EQ(st.st_mode, S_IFREG | 0644);
    CHECK_EQ(st.st_size, 10);
    CHECK_EQ(st.st_nlink, 1);
    CHECK_EQ(st.st_uid, geteuid());
    CHECK_EQ(st.st_gid, getegid());
    CHECK(st.st_blksize >= 512);
    CHECK_EQ(st.st_blocks % 8, 0);
    CHECK(st.st_blocks >= 1);
    CHECK(st.st_mtim.tv_sec >= before.tv_sec && st.st_mtim.tv_sec <= after.tv_sec);
    CHECK(st.st_ctim.tv_sec >= before.tv_sec && st.st_ctim.tv_sec <= after.tv_sec);
    put("other", "");
    CHECK_EQ(stat("other", &other), 0);
    CHECK_EQ(other.st_dev, st.st_dev);
    CHECK(other.st_ino != st.st_ino);
    int fd = open("s", O_RDONLY);
    CHECK_EQ(fstat(fd, &again), 0);
    CHECK_EQ(again.st_ino, st.st_ino);
    CHECK_EQ(again.st_dev, st.st_dev);
    CHECK_EQ(again.st_size, st.st_size);
    CHECK_EQ(again.st_mtim.tv_nsec, st.st_mtim.tv_nsec);
    close(fd);
    CHECK_EQ(stat(".", &st), 0);
    CHECK(S_ISDIR(st.st_mode));
    CHECK_EQ(st.st_dev, other.st_dev);
    CHECK_ERR(stat("missing", &st), ENOENT);
    CHECK_ERR(stat("s/below", &st), ENOTDIR);
    CHECK_ERR(lstat("missing", &st), ENOENT);

    struct statx sx;
    CHECK_EQ(statx(AT_FDCWD, "s", 0, STATX_BASIC_STATS, &sx), 0);
    CHECK((sx.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    CHECK_EQ(sx.stx_size, 10);
    CHECK_EQ(sx.stx_mode, S_IFREG | 0644);
    CHECK_EQ(sx.stx_ino, again.st_ino);
    CHECK_EQ(sx.stx_nlink, 1);
    fd = open("s", O_RDONLY);
    CHECK_EQ(statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &sx), 0);
    CHECK_EQ(sx.stx_size, 10);
    close(fd);
    CHECK_ERR(statx(AT_FDCWD, "missing", 0, STATX_SIZE, &sx), ENOENT);
}

static void times_change(void)
{
    struct stat before, after;
    put("times", "x");
    struct timespec old[2] = {{1000000000, 0}, {1100000000, 0}};
    CHECK_EQ(utimensat(AT_FDCWD, "times", old, 0), 0);
    CHECK_EQ(stat("times", &before), 0);
    CHECK_EQ(before.st_atim.tv_sec, 1000000000);
    CHECK_EQ(before.st_mtim.tv_sec, 1100000000);
    CHECK(before.st_ctim.tv_sec > 1200000000);
    int fd = open("times", O_WRONLY | O_APPEND);
    CHECK_EQ(stat("times", &after), 0);
    CHECK_EQ(after.st_mtim.tv_sec, 1100000000); /* opening is no change */
    CHECK_EQ(write(fd, "y", 1), 1);
    CHECK_EQ(stat("times", &after), 0);
    CHECK(after.st_mtim.tv_sec > 1200000000);
    struct timespec exact[2] = {{0, UTIME_OMIT}, {1234567890, 123456789}};
    CHECK_EQ(futimens(fd, exact), 0);
    CHECK_EQ(fstat(fd, &after), 0);
    CHECK_EQ(after.st_atim.tv_sec, 1000000000);
    CHECK_EQ(after.st_mtim.tv_sec, 1234567890);
    CHECK_EQ(after.st_mtim.tv_nsec, 123456789);
    CHECK_EQ(futimens(fd, NULL), 0);
    CHECK_EQ(fstat(fd, &after), 0);
    CHECK(after.st_mtim.tv_sec > 1300000000);
    close(fd);
    CHECK_EQ(stat("times", &after), 0);
    struct utimbuf simple = {1000000001, 1000000002};
    CHECK_EQ(utime("times", &simple), 0);
    CHECK_EQ(stat("times", &after), 0);
    CHECK_EQ(after.st_atim.tv_sec, 1000000001);
    CHECK_EQ(after.st_mtim.tv_sec, 1000000002);
    struct timeval micro[2] = {{1000000003, 5}, {1000000004, 6}};
    CHECK_EQ(utimes("times", micro), 0);
    CHECK_EQ(stat("times", &after), 0);
    CHECK_EQ(after.st_mtim.tv_nsec, 6000);
    CHECK_ERR(utimes("missing", micro), ENOENT);
    exact[1].tv_nsec = 2000000000;
    CHECK_ERR(utimensat(AT_FDCWD, "times", exact, 0), EINVAL);
    CHECK_EQ(stat("times", &before), 0);
    CHECK_EQ(rename("times", "times2"), 0);
    CHECK_EQ(stat("times2", &after), 0);
    CHECK_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
    CHECK_EQ(symlink("times2", "tlink"), 0);
    struct timespec of_link[2] = {{5000, 0}, {6000, 0}};
    CHECK_EQ(utimensat(AT_FDCWD, "tlink", of_link, AT_SYMLINK_NOFOLLOW), 0);
    CHECK_EQ(stat("tlink", &after), 0);
    CHECK_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
    CHECK_EQ(lstat("tlink", &after), 0);
    CHECK_EQ(after.st_mtim.tv_sec, 6000);

    CHECK_EQ(mkdir("tdir", 0755), 0);
    CHECK_EQ(utimensat(AT_FDCWD, "tdir", old, 0), 0);
    put("tdir/new", "");
    CHECK_EQ(stat("tdir", &after), 0);
    CHECK(after.st_mtim.tv_sec > 1200000000); /* a new entry changes the directory */
    CHECK_EQ(utimensat(AT_FDCWD, "tdir", old, 0), 0);
    CHECK_EQ(unlink("tdir/new"), 0);
    CHECK_EQ(stat("tdir", &after), 0);
    CHECK(after.st_mtim.tv_sec > 1200000000);
}

static void modes(void)
{
    struct stat st;
    put("mode", "x");
    CHECK_EQ(chmod("mode", 0751), 0);
    CHECK_EQ(stat("mode", &st), 0);
    CHECK_EQ(st.st_mode & 07777, 0751);
    int fd = open("mode", O_RDONLY);
    CHECK_EQ(fchmod(fd, 0600), 0);
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_mode & 07777, 0600);
    CHECK_EQ(fchown(fd, geteuid(), getegid()), 0);
    close(fd);
    CHECK_EQ(fchmodat(AT_FDCWD, "mode", 0444, 0), 0);
    CHECK_EQ(access("mode", F_OK), 0);
    CHECK_EQ(access("mode", R_OK), 0);
    if (geteuid() != 0) {
        CHECK_ERR(access("mode", W_OK), EACCES);
        CHECK_ERR(open("mode", O_WRONLY), EACCES);
    } else {
        CHECK_EQ(access("mode", W_OK), 0);
    }
    CHECK_ERR(access("mode", X_OK), EACCES); /* root too: nobody may */
    CHECK_EQ(chmod("mode", 0755), 0);
    CHECK_EQ(access("mode", R_OK | W_OK | X_OK), 0);
    CHECK_EQ(eaccess("mode", X_OK), 0);
    CHECK_EQ(faccessat(AT_FDCWD, "mode", X_OK, AT_EACCESS), 0);
    CHECK_ERR(access("missing", F_OK), ENOENT);
    CHECK_ERR(access("mode/x", F_OK), ENOTDIR);
    CHECK_ERR(access("mode", 99), EINVAL);
    CHECK_ERR(chmod("missing", 0644), ENOENT);
    CHECK_EQ(chown("mode", (uid_t)-1, (gid_t)-1), 0);
    CHECK_EQ(lchown("mode", geteuid(), getegid()), 0);
    CHECK_ERR(chown("missing", 0, 0), ENOENT);
    CHECK_EQ(mkdir("md", 0777), 0);
    CHECK_EQ(stat("md", &st), 0);
    CHECK_EQ(st.st_mode, S_IFDIR | 0755);
    CHECK_EQ(chmod("md", 01777), 0);
    CHECK_EQ(stat("md", &st), 0);
    CHECK_EQ(st.st_mode & 07777, 01777);
}

static void hard_links(void)
{
    struct stat a, b;
    put("h1", "linked");
    CHECK_EQ(link("h1", "h2"), 0);
    CHECK_EQ(stat("h1", &a), 0);
    CHECK_EQ(stat("h2", &b), 0);
    CHECK_EQ(a.st_ino, b.st_ino);
    CHECK_EQ(a.st_nlink, 2);
    int fd = open("h2", O_WRONLY | O_APPEND);
    CHECK_EQ(write(fd, "!", 1), 1);
    close(fd);
    CHECK_STR(get("h1"), "linked!");
    CHECK_ERR(link("h1", "h2"), EEXIST);
    CHECK_ERR(link("missing", "h3"), ENOENT);
    CHECK_ERR(link("md", "h3"), EPERM);
    CHECK_EQ(rename("h1", "h2"), 0); /* two names of one file: nothing happens */
    CHECK(exists("h1") && exists("h2"));
    CHECK_EQ(unlink("h1"), 0);
    CHECK_EQ(stat("h2", &b), 0);
    CHECK_EQ(b.st_nlink, 1);
    CHECK_STR(get("h2"), "linked!");
    CHECK_ERR(stat("h1", &a), ENOENT);
}

static long long changed(const char *path)
{
    struct stat st;
    CHECK_EQ(lstat(path, &st), 0);
    return st.st_ctim.tv_sec * 1000000000LL + st.st_ctim.tv_nsec;
}

/* The change time of `path`, long enough ago that the next change shows. */
static long long settled(const char *path)
{
    usleep(20000);
    return changed(path);
}

static void names_are_attributes(void)
{
    put("c1", "x");
    CHECK_EQ(mkfifo("cp", 0644), 0);
    const char *all[] = {"c1", "cp"};
    for (int i = 0; i < 2; i++) {
        long long before = settled(all[i]);
        CHECK_EQ(link(all[i], "c2"), 0);
        CHECK(changed(all[i]) > before);
        CHECK_EQ(changed("c2"), changed(all[i]));
        before = settled("c2");
        CHECK_EQ(rename("c2", "c3"), 0);
        CHECK(changed("c3") > before);
        before = settled("c3");
        put("c4", "");
        CHECK_EQ(rename("c4", "c3"), 0); /* takes a name away */
        CHECK(changed(all[i]) > before);
        CHECK_EQ(link(all[i], "c2"), 0);
        before = settled("c2");
        CHECK_EQ(unlink(all[i]), 0);
        CHECK(changed("c2") > before);
        CHECK_EQ(unlink("c2"), 0);
    }
}

/* What the other path is comes before that it lies elsewhere. */
static void bad_paths_beside_good_ones(void)
{
    char *nowhere = (char *)8, *long_one = malloc(PATH_MAX + 2);
    memset(long_one, 'x', PATH_MAX + 1);
    for (int i = 1; i < PATH_MAX; i += 2) long_one[i] = '/';
    long_one[PATH_MAX + 1] = 0;
    put("good", "");
    CHECK_ERR(rename("good", nowhere), EFAULT);
    CHECK_ERR(rename(nowhere, "good"), EFAULT);
    CHECK_ERR(link("good", nowhere), EFAULT);
    CHECK_ERR(link(nowhere, "better"), EFAULT);
    CHECK_ERR(rename("good", long_one), ENAMETOOLONG);
    CHECK_ERR(rename(long_one, "good"), ENAMETOOLONG);
    CHECK_ERR(link("good", long_one), ENAMETOOLONG);
    CHECK_ERR(link(long_one, "better"), ENAMETOOLONG);
    CHECK_ERR(rename("good", ""), ENOENT);
    CHECK_ERR(link("", "better"), ENOENT);
    free(long_one);
}

/* A slash behind a name asks for a directory; what is wrong otherwise comes first. */
static void slashes_behind_names(void)
{
    put("file", "");
    CHECK_EQ(mkdir("folder", 0755), 0);
    CHECK_EQ(symlink("folder", "to_folder"), 0);
    CHECK_EQ(symlink("nowhere", "dangling"), 0);
    const char *there[] = {"file/", "folder/", "to_folder/", "dangling/"};
    for (int i = 0; i < 4; i++) {
        CHECK_ERR(open(there[i], O_RDWR | O_CREAT, 0644), EISDIR);
        CHECK_ERR(open(there[i], O_RDWR | O_CREAT | O_EXCL, 0644), EISDIR);
        CHECK_ERR(open(there[i], O_RDWR | O_CREAT | O_NOFOLLOW, 0644), EISDIR);
        CHECK_ERR(mkdir(there[i], 0755), EEXIST);
        CHECK_ERR(mkfifo(there[i], 0644), EEXIST);
        CHECK_ERR(symlink("x", there[i]), EEXIST);
        CHECK_ERR(link("file", there[i]), EEXIST);
        CHECK_ERR(rename("missing", there[i]), ENOENT);
        CHECK_ERR(renameat2(AT_FDCWD, "file", AT_FDCWD, there[i], RENAME_NOREPLACE), EEXIST);
        CHECK_ERR(rename(there[i], "missing/x"), ENOENT);
    }
    CHECK_ERR(open("fresh/", O_RDWR | O_CREAT, 0644), EISDIR);
    CHECK_ERR(open("missing/fresh/", O_RDWR | O_CREAT, 0644), ENOENT);
    CHECK_ERR(open("file/fresh/", O_RDWR | O_CREAT, 0644), ENOTDIR);
    CHECK_ERR(mkfifo("fresh/", 0644), ENOENT);
    CHECK_ERR(symlink("x", "fresh/"), ENOENT);
    CHECK_ERR(rename("file", "fresh/"), ENOTDIR);
    CHECK_ERR(rename("to_folder/", "fresh"), ENOTDIR);
    CHECK_ERR(rename("folder/", "to_folder/"), ENOTDIR);
    CHECK_ERR(renameat2(AT_FDCWD, "folder", AT_FDCWD, "file/", RENAME_EXCHANGE), ENOTDIR);
    CHECK_EQ(rename("folder/", "fresh/"), 0);
    CHECK_EQ(mkdir("folder/", 0755), 0);
}

static void unlink_while_open(void)
{
    struct stat st;
    put("gone", "still here");
    int fd = open("gone", O_RDWR);
    CHECK_EQ(unlink("gone"), 0);
    CHECK(!exists("gone"));
    char buffer[32] = "";
    CHECK_EQ(read(fd, buffer, sizeof buffer), 10);
    CHECK_STR(buffer, "still here");
    CHECK_EQ(write(fd, "!", 1), 1);
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_nlink, 0);
    CHECK_EQ(st.st_size, 11);
    put("gone", "new"); /* another file of the same name */
    CHECK_EQ(pread(fd, buffer, 5, 0), 5);
    CHECK(memcmp(buffer, "still", 5) == 0);
    CHECK_STR(get("gone"), "new");
    struct stat other;
    CHECK_EQ(stat("gone", &other), 0);
    CHECK(other.st_ino != st.st_ino);
    close(fd);
    CHECK_STR(get("gone"), "new");
    CHECK_EQ(unlink("gone"), 0);
    CHECK_ERR(unlink("gone"), ENOENT);
    CHECK_ERR(unlink("md"), EISDIR);
    CHECK_ERR(unlink("s/x"), ENOTDIR);
    put("r", "");
    CHECK_EQ(remove("r"), 0);
    CHECK_EQ(mkdir("rd", 0755), 0);
    CHECK_EQ(remove("rd"), 0);
    CHECK_ERR(remove("rd"), ENOENT);
}

/* What the kernel says of a descriptor. */
static const char *name_of(int fd)
{
    static char link[64], name[PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, name, PATH_MAX);
    name[n < 0 ? 0 : n] = 0;
    return name;
}

static void names_of_descriptors(void)
{
    char cwd[PATH_MAX], wanted[PATH_MAX + 32];
    CHECK(getcwd(cwd, sizeof cwd) != NULL);
    put("opened", "x");
    int fd = open("opened", O_RDONLY);
    snprintf(wanted, sizeof wanted, "%s/opened", cwd);
    CHECK_STR(name_of(fd), wanted);
    CHECK_EQ(rename("opened", "moved"), 0);
    snprintf(wanted, sizeof wanted, "%s/moved", cwd);
    CHECK_STR(name_of(fd), wanted);
    CHECK_EQ(unlink("moved"), 0);
    CHECK(strstr(name_of(fd), " (deleted)") != NULL);
    close(fd);
}

static void owners_and_set_ids(void)
{
    struct stat st;
    put("setid", "");
    CHECK_EQ(chmod("setid", 06755), 0);
    CHECK_EQ(chown("setid", geteuid(), getegid()), 0);
    CHECK_EQ(stat("setid", &st), 0);
    CHECK_EQ(st.st_mode, S_IFREG | 0755);
    CHECK_EQ(chmod("setid", 06745), 0);
    CHECK_EQ(chown("setid", -1, -1), 0);
    CHECK_EQ(stat("setid", &st), 0);
    CHECK_EQ(st.st_mode, S_IFREG | 02745);
    CHECK_EQ(mkdir("setdir", 0755), 0);
    CHECK_EQ(chmod("setdir", 06755), 0);
    CHECK_EQ(chown("setdir", geteuid(), getegid()), 0);
    CHECK_EQ(stat("setdir", &st), 0);
    CHECK_EQ(st.st_mode, S_IFDIR | 06755);
}

static void renames(void)
{
    put("from", "from");
    put("to", "to");
    int old = open("to", O_RDONLY);
    int moved = open("from", O_RDONLY);
    struct stat before, after;
    CHECK_EQ(stat("from", &before), 0);
    CHECK_EQ(rename("from", "to"), 0);
    CHECK(!exists("from"));
    CHECK_STR(get("to"), "from");
    CHECK_EQ(stat("to", &after), 0);
    CHECK_EQ(before.st_ino, after.st_ino);
    char buffer[8] = "";
    CHECK_EQ(read(old, buffer, 8), 2);
    CHECK(memcmp(buffer, "to", 2) == 0);
    CHECK_EQ(read(moved, buffer, 8), 4);
    close(old);
    close(moved);
    CHECK_EQ(rename("to", "to"), 0);
    CHECK_ERR(rename("missing", "x"), ENOENT);
    CHECK_ERR(rename("to", "missing/x"), ENOENT);
    CHECK_ERR(rename("to", "md"), EISDIR);
    CHECK_ERR(rename("md", "to"), ENOTDIR);
    CHECK_ERR(rename("to/", "to2"), ENOTDIR);
    CHECK_EQ(mkdir("dir1", 0755), 0);
    CHECK_EQ(mkdir("dir1/sub", 0755), 0);
    put("dir1/sub/file", "deep");
    CHECK_ERR(rename("dir1", "dir1/sub/x"), EINVAL);
    CHECK_EQ(rename("dir1", "dir2"), 0);
    CHECK_STR(get("dir2/sub/file"), "deep");
    CHECK(!exists("dir1"));
    CHECK_EQ(mkdir("empty", 0755), 0);
    CHECK_EQ(rename("dir2", "empty"), 0); /* over an empty directory */
    CHECK_STR(get("empty/sub/file"), "deep");
    CHECK_EQ(mkdir("full", 0755), 0);
    CHECK_ERR(rename("full", "empty"), ENOTEMPTY);
    put("na", "a");
    put("nb", "b");
    CHECK_ERR(renameat2(AT_FDCWD, "na", AT_FDCWD, "nb", RENAME_NOREPLACE), EEXIST);
    CHECK_EQ(renameat2(AT_FDCWD, "na", AT_FDCWD, "nc", RENAME_NOREPLACE), 0);
    CHECK_STR(get("nc"), "a");
    CHECK_EQ(renameat2(AT_FDCWD, "nb", AT_FDCWD, "nc", RENAME_EXCHANGE), 0);
    CHECK_STR(get("nb"), "a");
    CHECK_STR(get("nc"), "b");
    /* the way of careful programs: write a temporary file, rename it */
    for (int i = 0; i < 20; i++) {
        char text[16];
        snprintf(text, sizeof text, "version %d", i);
        put("config.tmp", text);
        CHECK_EQ(rename("config.tmp", "config"), 0);
        CHECK_STR(get("config"), text);
    }
    CHECK_ERR(rename("empty/sub/..", "x"), EBUSY);
}

static void symbolic_links(void)
{
    struct stat st;
    char target[64];
    CHECK_EQ(symlink("some/where", "sl"), 0);
    CHECK_EQ(readlink("sl", target, sizeof target), 10);
    CHECK(memcmp(target, "some/where", 10) == 0);
    CHECK_EQ(readlink("sl", target, 4), 4);
    CHECK_ERR(readlink("s", target, sizeof target), EINVAL);
    CHECK_ERR(readlink("missing", target, sizeof target), ENOENT);
    CHECK_EQ(lstat("sl", &st), 0);
    CHECK_EQ(st.st_size, 10);
    CHECK_EQ(st.st_mode, S_IFLNK | 0777);
    CHECK_ERR(symlink("x", "sl"), EEXIST);
    CHECK_ERR(symlink("", "sl2"), ENOENT);
    CHECK_EQ(mkdir("real", 0755), 0);
    put("real/f", "through a link");
    CHECK_EQ(symlink("real", "dl"), 0);
    CHECK_STR(get("dl/f"), "through a link");
    CHECK_EQ(symlink("../real/f", "real/up"), 0);
    CHECK_STR(get("dl/up"), "through a link");
    char here[PATH_MAX], path[PATH_MAX + 16];
    CHECK(getcwd(here, sizeof here) != NULL);
    snprintf(path, sizeof path, "%s/real/f", here);
    CHECK_EQ(symlink(path, "absolute"), 0);
    CHECK_STR(get("absolute"), "through a link");
    CHECK_EQ(rename("sl", "sl3"), 0); /* moves the link itself */
    CHECK_EQ(readlink("sl3", target, sizeof target), 10);
    CHECK_EQ(unlink("sl3"), 0);
    CHECK_ERR(unlink("dl/"), ENOTDIR);
    CHECK_ERR(rmdir("dl/"), ENOTDIR);
    CHECK_ERR(unlink("real/"), EISDIR);
    CHECK_EQ(unlink("dl"), 0);
    CHECK(exists("real"));
    CHECK_EQ(symlink("/etc/hostname", "out"), 0); /* leads out of the directory */
    CHECK_EQ(access("out", F_OK), access("/etc/hostname", F_OK));
}

static void the_file_system(void)
{
    struct statvfs fs;
    CHECK_EQ(statvfs(".", &fs), 0);
    CHECK(fs.f_bsize > 0);
    CHECK(fs.f_blocks > 0);
    CHECK(fs.f_bavail > 0); /* programs look for room before they write */
    CHECK(fs.f_namemax >= 255);
    int fd = open("s", O_RDONLY);
    CHECK_EQ(fstatvfs(fd, &fs), 0);
    struct statfs sf;
    CHECK_EQ(fstatfs(fd, &sf), 0);
    CHECK_EQ(statfs("s", &sf), 0);
    close(fd);
    CHECK_ERR(statvfs("missing", &fs), ENOENT);
    CHECK_EQ(pathconf(".", _PC_NAME_MAX), 255);
}

int main(int argc, char **argv)
{
    enter(argc, argv);
    attributes();
    times_change();
    modes();
    hard_links();
    names_are_attributes();
    bad_paths_beside_good_ones();
    slashes_behind_names();
    unlink_while_open();
    names_of_descriptors();
    owners_and_set_ids();
    renames();
    symbolic_links();
    the_file_system();
    return done();
}
