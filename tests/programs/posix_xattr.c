/* Extended attributes: set, read, listed and removed, by path and descriptor. */
#include "check.h"
#include <sys/xattr.h>

#define ENOATTR ENODATA

/* An address that nothing is at, and that the compiler does not know. */
static void *volatile nowhere = (void *)1;

/* The value of an attribute as a string, in a static buffer; NULL: none. */
static const char *value_of(const char *path, const char *name)
{
    static char buffer[4096];
    ssize_t n = lgetxattr(path, name, buffer, sizeof buffer - 1);
    if (n < 0) return NULL;
    buffer[n] = 0;
    return buffer;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in a list that begin with "user.", sorted, with spaces. */
static const char *names_in(char *list, ssize_t size)
{
    static char text[4096];
    char *names[64];
    int count = 0;
    for (char *name = list; name < list + size && count < 64; name += strlen(name) + 1)
        if (strncmp(name, "user.", 5) == 0) names[count++] = name;
    qsort(names, (size_t)count, sizeof names[0], compare);
    text[0] = 0;
    for (int i = 0; i < count; i++) {
        strcat(text, names[i]);
        strcat(text, " ");
    }
    return text;
}

static const char *names_of(const char *path)
{
    static char list[65536];
    ssize_t size = llistxattr(path, list, sizeof list);
    return size < 0 ? NULL : names_in(list, size);
}

static int set(const char *path, const char *name, const char *value, int flags)
{
    return setxattr(path, name, value, strlen(value), flags);
}

static void set_and_get(void)
{
    char buffer[64];
    put("f", "content");
    CHECK_STR(names_of("f"), "");
    CHECK_ERR(getxattr("f", "user.a", buffer, sizeof buffer), ENOATTR);
    CHECK_EQ(set("f", "user.a", "one", 0), 0);
    CHECK_STR(value_of("f", "user.a"), "one");
    CHECK_EQ(set("f", "user.a", "and two", 0), 0);
    CHECK_STR(value_of("f", "user.a"), "and two");
    CHECK_EQ(setxattr("f", "user.bytes", "\0\xff\0", 3, 0), 0);
    CHECK_EQ(getxattr("f", "user.bytes", buffer, sizeof buffer), 3);
    CHECK_EQ(memcmp(buffer, "\0\xff\0", 3), 0);
    CHECK_EQ(setxattr("f", "user.empty", NULL, 0, 0), 0);
    CHECK_EQ(getxattr("f", "user.empty", buffer, sizeof buffer), 0);
    CHECK_STR(names_of("f"), "user.a user.bytes user.empty ");
    CHECK_EQ(removexattr("f", "user.bytes"), 0);
    CHECK_ERR(removexattr("f", "user.bytes"), ENOATTR);
    CHECK_STR(names_of("f"), "user.a user.empty ");
    CHECK_STR(get("f"), "content");
    CHECK(value_of("f", "user.A") == NULL);
}

static void sizes(void)
{
    static char big[65537];
    char buffer[64];
    put("s", "");
    CHECK_EQ(set("s", "user.a", "12345", 0), 0);
    CHECK_EQ(getxattr("s", "user.a", NULL, 0), 5);
    CHECK_EQ(getxattr("s", "user.a", buffer, 5), 5);
    CHECK_ERR(getxattr("s", "user.a", buffer, 4), ERANGE);
    ssize_t all = listxattr("s", NULL, 0);
    CHECK(all >= 7);
    CHECK_ERR(listxattr("s", buffer, 3), ERANGE);
    memset(big, 'b', sizeof big);
    CHECK_EQ(setxattr("s", "user.big", big, 2000, 0), 0);
    CHECK_EQ(getxattr("s", "user.big", big, sizeof big), 2000);
    CHECK_ERR(setxattr("s", "user.huge", big, sizeof big, 0), E2BIG);
    CHECK_ERR(setxattr("s", "user.huge", nowhere, 10, 0), EFAULT);
    CHECK_ERR(setxattr("s", nowhere, "x", 1, 0), EFAULT);
    CHECK_ERR(getxattr("s", "user.a", nowhere, 10), EFAULT);
    CHECK_ERR(listxattr("s", nowhere, 100), EFAULT);
    CHECK_STR(value_of("s", "user.a"), "12345");
}

static void names(void)
{
    char name[300] = "user.";
    put("n", "");
    memset(name + 5, 'x', 250);
    name[255] = 0;
    CHECK_EQ(set("n", name, "long", 0), 0);
    CHECK_STR(value_of("n", name), "long");
    CHECK_EQ(removexattr("n", name), 0);
    name[255] = 'x';
    CHECK_ERR(set("n", name, "too long", 0), ERANGE);
    CHECK_ERR(getxattr("n", name, NULL, 0), ERANGE);
    CHECK_ERR(removexattr("n", name), ERANGE);
    CHECK_ERR(set("n", "", "x", 0), ERANGE);
    CHECK_ERR(set("n", "user.", "x", 0), EINVAL);
    CHECK_ERR(getxattr("n", "user.", NULL, 0), EINVAL);
    CHECK_ERR(set("n", "plain", "x", 0), ENOTSUP);
    CHECK_ERR(set("n", "foo.bar", "x", 0), ENOTSUP);
    CHECK_ERR(getxattr("n", "foo.bar", NULL, 0), ENOTSUP);
    CHECK_ERR(removexattr("n", "foo.bar"), ENOTSUP);
    CHECK_ERR(set("n", "system.foo", "x", 0), ENOTSUP);
    CHECK_ERR(getxattr("n", "system.foo", NULL, 0), ENOTSUP);
    CHECK_EQ(set("n", "user.with.dots and spaces", "x", 0), 0);
    CHECK_STR(names_of("n"), "user.with.dots and spaces ");
}

static void flags(void)
{
    put("g", "");
    CHECK_ERR(set("g", "user.a", "1", XATTR_REPLACE), ENOATTR);
    CHECK_EQ(set("g", "user.a", "1", XATTR_CREATE), 0);
    CHECK_ERR(set("g", "user.a", "2", XATTR_CREATE), EEXIST);
    CHECK_STR(value_of("g", "user.a"), "1");
    CHECK_EQ(set("g", "user.a", "3", XATTR_REPLACE), 0);
    CHECK_STR(value_of("g", "user.a"), "3");
    CHECK_ERR(set("g", "user.a", "4", 4), EINVAL);
    CHECK_ERR(set("g", "user.a", "4", XATTR_CREATE | XATTR_REPLACE), EEXIST);
}

static void descriptors(void)
{
    char list[4096];
    put("d", "x");
    int fd = open("d", O_RDONLY);
    CHECK_EQ(fsetxattr(fd, "user.a", "read only", 9, 0), 0);
    CHECK_EQ(fgetxattr(fd, "user.a", NULL, 0), 9);
    CHECK_STR(value_of("d", "user.a"), "read only");
    CHECK_STR(names_in(list, flistxattr(fd, list, sizeof list)), "user.a ");
    CHECK_EQ(unlink("d"), 0);
    CHECK_EQ(fsetxattr(fd, "user.b", "no name", 7, 0), 0);
    CHECK_EQ(fgetxattr(fd, "user.b", NULL, 0), 7);
    CHECK_EQ(fremovexattr(fd, "user.a"), 0);
    CHECK_ERR(fgetxattr(fd, "user.a", NULL, 0), ENOATTR);
    close(fd);
    CHECK_ERR(fgetxattr(fd, "user.a", NULL, 0), EBADF);
    CHECK_ERR(fsetxattr(-1, "user.a", "", 0, 0), EBADF);
    CHECK_ERR(flistxattr(AT_FDCWD, NULL, 0), EBADF);
    put("d", "x");
    CHECK_STR(names_of("d"), "");
    fd = open("d", O_PATH);
    CHECK_ERR(fsetxattr(fd, "user.a", "", 0, 0), EBADF);
    close(fd);
    fd = open(".", O_RDONLY | O_DIRECTORY);
    CHECK_EQ(fsetxattr(fd, "user.dir", "yes", 3, 0), 0);
    CHECK_STR(value_of(".", "user.dir"), "yes");
    CHECK_STR(names_in(list, flistxattr(fd, list, sizeof list)), "user.dir ");
    CHECK_EQ(fremovexattr(fd, "user.dir"), 0);
    close(fd);
}

static void paths(void)
{
    CHECK_ERR(set("missing", "user.a", "", 0), ENOENT);
    CHECK_ERR(getxattr("missing", "user.a", NULL, 0), ENOENT);
    CHECK_ERR(listxattr("missing/below", NULL, 0), ENOENT);
    CHECK_ERR(removexattr("missing", "user.a"), ENOENT);
    put("file", "");
    CHECK_ERR(set("file/below", "user.a", "", 0), ENOTDIR);
    CHECK_EQ(mkdir("folder", 0755), 0);
    CHECK_EQ(set("folder/", "user.a", "folder", 0), 0);
    CHECK_EQ(set("folder/../file", "user.a", "file", 0), 0);
    CHECK_STR(value_of("folder", "user.a"), "folder");
    CHECK_STR(value_of("file", "user.a"), "file");
}

static void links(void)
{
    put("target", "x");
    CHECK_EQ(symlink("target", "link"), 0);
    CHECK_EQ(set("link", "user.a", "through", 0), 0);
    CHECK_STR(value_of("target", "user.a"), "through");
    CHECK_EQ(getxattr("link", "user.a", NULL, 0), 7);
    CHECK_ERR(lgetxattr("link", "user.a", NULL, 0), ENOATTR);
    CHECK_ERR(lsetxattr("link", "user.a", "x", 1, 0), EPERM);
    CHECK_ERR(lremovexattr("link", "user.a"), EPERM);
    CHECK_ERR(lsetxattr("link", "foo.bar", "x", 1, 0), ENOTSUP);
    CHECK_STR(names_of("link"), "");
    CHECK_EQ(mkfifo("pipe", 0600), 0);
    CHECK_ERR(set("pipe", "user.a", "x", 0), EPERM);
    CHECK_ERR(getxattr("pipe", "user.a", NULL, 0), ENOATTR);
}

/* They belong to the file, not to its name. */
static void inodes(void)
{
    put("one", "x");
    CHECK_EQ(set("one", "user.a", "mine", 0), 0);
    CHECK_EQ(link("one", "two"), 0);
    CHECK_STR(value_of("two", "user.a"), "mine");
    CHECK_EQ(set("two", "user.b", "too", 0), 0);
    CHECK_STR(names_of("one"), "user.a user.b ");
    CHECK_EQ(rename("one", "three"), 0);
    CHECK_STR(names_of("three"), "user.a user.b ");
    put("new", "x");
    CHECK_EQ(rename("new", "three"), 0);
    CHECK_STR(names_of("three"), "");
    CHECK_STR(names_of("two"), "user.a user.b ");
    CHECK_EQ(truncate("two", 0), 0);
    put("two", "other content");
    CHECK_STR(names_of("two"), "user.a user.b ");
}

static void times(void)
{
    struct stat before, after;
    put("t", "x");
    struct timespec old[2] = {{1000000000, 0}, {1000000000, 0}};
    CHECK_EQ(utimensat(AT_FDCWD, "t", old, 0), 0);
    CHECK_EQ(stat("t", &before), 0);
    usleep(20000);
    CHECK_EQ(set("t", "user.a", "x", 0), 0);
    CHECK_EQ(stat("t", &after), 0);
    CHECK_EQ(after.st_mtim.tv_sec, 1000000000);
    CHECK(after.st_ctim.tv_sec > before.st_ctim.tv_sec ||
          after.st_ctim.tv_nsec > before.st_ctim.tv_nsec);
    before = after;
    usleep(20000);
    CHECK_EQ(removexattr("t", "user.a"), 0);
    CHECK_EQ(stat("t", &after), 0);
    CHECK(after.st_ctim.tv_sec > before.st_ctim.tv_sec ||
          after.st_ctim.tv_nsec > before.st_ctim.tv_nsec);
}

static void children(void)
{
    pid_t child;
    put("c", "x");
    CHECK_EQ(set("c", "user.parent", "1", 0), 0);
    if (in_child(&child)) {
        CHECK_STR(value_of("c", "user.parent"), "1");
        CHECK_EQ(set("c", "user.child", "2", 0), 0);
        child_done();
    }
    reap(child);
    CHECK_STR(names_of("c"), "user.child user.parent ");
}

/* The administrator's are his alone. */
static void trusted(void)
{
    put("a", "x");
    if (set("a", "trusted.a", "secret", 0) == 0) {
        CHECK_STR(value_of("a", "trusted.a"), "secret");
        CHECK_ERR(set("a", "trusted.", "x", 0), EINVAL);
        CHECK_EQ(symlink("a", "alink"), 0);
        CHECK_EQ(lsetxattr("alink", "trusted.a", "link", 4, 0), 0);
        CHECK_STR(value_of("alink", "trusted.a"), "link");
        CHECK_STR(value_of("a", "trusted.a"), "secret");
        CHECK_EQ(removexattr("a", "trusted.a"), 0);
    } else {
        CHECK_ERR(set("a", "trusted.a", "secret", 0), EPERM);
        CHECK_ERR(removexattr("a", "trusted.a"), EPERM);
    }
    CHECK_ERR(getxattr("a", "trusted.a", NULL, 0), ENOATTR);
}

#define NOBODY (-1)
struct entry {
    uint16_t tag, permissions;
    int32_t id;
};
struct list {
    uint32_t version;
    struct entry entries[5];
};

static int set_list(const char *path, const char *name, const struct list *list, int entries)
{
    size_t size = sizeof list->version + (size_t)entries * sizeof list->entries[0];
    return setxattr(path, name, list, size, 0);
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}

static void access_lists(void)
{
    const char *access = "system.posix_acl_access", *initial = "system.posix_acl_default";
    const struct list named = {2, {{1, 7, NOBODY}, {2, 6, 1}, {4, 5, NOBODY},
                                   {16, 7, NOBODY}, {32, 0, NOBODY}}};
    const struct list plain = {2, {{1, 6, NOBODY}, {4, 4, NOBODY}, {32, 0, NOBODY}}};
    struct list found;
    put("l", "x");
    CHECK_EQ(mkdir("ldir", 0755), 0);
    CHECK_ERR(getxattr("l", access, NULL, 0), ENOATTR);
    CHECK_EQ(removexattr("l", access), 0);
    CHECK_EQ(chmod("l", 04644), 0);
    CHECK_EQ(set_list("l", access, &named, 5), 0);
    CHECK_EQ(mode_of("l"), 04770);
    CHECK_EQ(getxattr("l", access, &found, sizeof found), (ssize_t)sizeof found);
    CHECK_EQ(memcmp(&found, &named, sizeof found), 0);
    CHECK_EQ(chmod("l", 0640), 0);
    CHECK_EQ(getxattr("l", access, &found, sizeof found), (ssize_t)sizeof found);
    CHECK_EQ(found.entries[0].permissions, 6);
    CHECK_EQ(found.entries[2].permissions, 5);
    CHECK_EQ(found.entries[3].permissions, 4);
    CHECK_EQ(set_list("l", access, &plain, 3), 0);
    CHECK_EQ(mode_of("l"), 0640);
    CHECK_ERR(getxattr("l", access, NULL, 0), ENOATTR);
    CHECK_EQ(set_list("l", access, &named, 5), 0);
    CHECK_EQ(removexattr("l", access), 0);
    CHECK_EQ(mode_of("l"), 0770);
    CHECK_ERR(getxattr("l", access, NULL, 0), ENOATTR);
    CHECK_ERR(set_list("l", access, &named, 1), EINVAL);
    CHECK_ERR(setxattr("l", access, "no list", 7, 0), ENOTSUP);
    CHECK_ERR(setxattr("l", access, "xx", 2, 0), EINVAL);
    CHECK_ERR(set_list("l", initial, &named, 5), EACCES);
    CHECK_ERR(getxattr("l", initial, NULL, 0), ENOATTR);
    CHECK_EQ(set_list("ldir", initial, &named, 5), 0);
    CHECK_EQ(mode_of("ldir"), 0755);
    CHECK_EQ(getxattr("ldir", initial, &found, sizeof found), (ssize_t)sizeof found);
    CHECK_EQ(memcmp(&found, &named, sizeof found), 0);
    CHECK_EQ(symlink("l", "llink"), 0);
    CHECK_ERR(lgetxattr("llink", access, NULL, 0), ENOTSUP);
}

int main(int argc, char **argv)
{
    enter(argc, argv);
    set_and_get();
    sizes();
    names();
    flags();
    descriptors();
    paths();
    links();
    inodes();
    times();
    children();
    trusted();
    access_lists();
    return done();
}
