/* The C library's own streams, which reach the kernel without any symbol. */
#include "check.h"
#include <stdarg.h>
#include <wchar.h>

static void modes(void)
{
    char text[64];
    CHECK(fopen("missing", "r") == NULL && errno == ENOENT);
    CHECK(fopen("missing", "r+") == NULL && errno == ENOENT);
    CHECK(fopen(".", "w") == NULL && errno == EISDIR);
    CHECK(fopen("x", "q") == NULL && errno == EINVAL);
    FILE *f = fopen("m", "w");
    CHECK(f != NULL);
    CHECK_EQ(fprintf(f, "%s %d\n", "line", 1), 7);
    CHECK_EQ(fputs("second\n", f) >= 0, 1);
    CHECK_EQ(fclose(f), 0);
    CHECK_STR(get("m"), "line 1\nsecond\n");
    struct stat st;
    CHECK_EQ(stat("m", &st), 0);
    CHECK_EQ(st.st_mode & 07777, 0644);
    f = fopen("m", "r");
    CHECK_STR(fgets(text, sizeof text, f), "line 1\n");
    CHECK_STR(fgets(text, sizeof text, f), "second\n");
    CHECK(fgets(text, sizeof text, f) == NULL);
    CHECK(feof(f) && !ferror(f));
    CHECK(fputc('x', f) == EOF && errno == EBADF);
    CHECK(ferror(f));
    clearerr(f);
    CHECK(!feof(f) && !ferror(f));
    fclose(f);
    f = fopen("m", "a");
    CHECK_EQ(fputs("third\n", f) >= 0, 1);
    CHECK_EQ(ftell(f), 20);
    fclose(f);
    CHECK_STR(get("m"), "line 1\nsecond\nthird\n");
    f = fopen("m", "r+");
    CHECK_EQ(fputs("LINE", f) >= 0, 1);
    CHECK_EQ(fseek(f, 0, SEEK_CUR), 0);
    CHECK_STR(fgets(text, sizeof text, f), " 1\n");
    CHECK_EQ(fseek(f, -6, SEEK_END), 0);
    CHECK_STR(fgets(text, sizeof text, f), "third\n");
    fclose(f);
    f = fopen("m", "a+");
    CHECK_STR(fgets(text, sizeof text, f), "LINE 1\n");
    CHECK_EQ(fseek(f, 0, SEEK_CUR), 0);
    CHECK_EQ(fputs("4th\n", f) >= 0, 1);
    rewind(f);
    CHECK_STR(fgets(text, sizeof text, f), "LINE 1\n");
    fclose(f);
    CHECK_STR(get("m"), "LINE 1\nsecond\nthird\n4th\n");
    f = fopen("m", "w+");
    CHECK_EQ(size_of("m"), 0);
    CHECK_EQ(fputs("new", f) >= 0, 1);
    rewind(f);
    CHECK_STR(fgets(text, sizeof text, f), "new");
    fclose(f);
    CHECK(fopen("m", "wx") == NULL && errno == EEXIST);
    f = fopen("mx", "wx");
    CHECK(f != NULL);
    fclose(f);
    f = fopen("m", "re");
    CHECK_EQ(fcntl(fileno(f), F_GETFD), FD_CLOEXEC);
    fclose(f);
}

static void positions(void)
{
    FILE *f = fopen("p", "w+");
    for (int i = 0; i < 10000; i++) fprintf(f, "%07d\n", i);
    CHECK_EQ(ftell(f), 80000);
    CHECK_EQ(ftello(f), 80000);
    CHECK_EQ(fflush(f), 0);
    CHECK_EQ(size_of("p"), 80000);
    char text[16];
    for (int i = 9999; i >= 0; i -= 1237) {
        CHECK_EQ(fseek(f, i * 8L, SEEK_SET), 0);
        CHECK_EQ(fread(text, 1, 8, f), 8);
        CHECK_EQ(atoi(text), i);
        CHECK_EQ(ftell(f), i * 8L + 8);
    }
    fpos_t place;
    CHECK_EQ(fseeko(f, 800, SEEK_SET), 0);
    CHECK_EQ(fgetpos(f, &place), 0);
    CHECK_EQ(fread(text, 1, 8, f), 8);
    CHECK_EQ(fsetpos(f, &place), 0);
    CHECK_EQ(fgetc(f), '0');
    CHECK_EQ(ungetc('U', f), 'U');
    CHECK_EQ(fgetc(f), 'U');
    CHECK_EQ(ftell(f), 801);
    CHECK_ERR(fseek(f, -1, SEEK_SET), EINVAL);
    CHECK_EQ(fseek(f, 100000, SEEK_SET), 0);
    CHECK_EQ(fgetc(f), EOF);
    CHECK_EQ(fseek(f, 4, SEEK_SET), 0); /* overwrite in the middle */
    CHECK_EQ(fwrite("XXX", 1, 3, f), 3);
    CHECK_EQ(fseek(f, 0, SEEK_SET), 0);
    CHECK_EQ(fread(text, 1, 8, f), 8);
    CHECK(memcmp(text, "0000XXX\n", 8) == 0);
    CHECK_EQ(fclose(f), 0);
    CHECK_EQ(size_of("p"), 80000);
}

static void buffering(void)
{
    FILE *f = fopen("b", "w");
    fputs("held back", f);
    CHECK_EQ(size_of("b"), 0);
    CHECK_EQ(fflush(f), 0);
    CHECK_EQ(size_of("b"), 9);
    CHECK_EQ(setvbuf(f, NULL, _IONBF, 0), 0);
    fputs("!", f);
    CHECK_EQ(size_of("b"), 10);
    fclose(f);
    f = fopen("b", "w");
    CHECK_EQ(setvbuf(f, NULL, _IOLBF, 0), 0);
    fputs("a line\nand", f);
    CHECK(size_of("b") >= 7);
    fclose(f);
    static char own[1 << 16];
    f = fopen("b", "w");
    CHECK_EQ(setvbuf(f, own, _IOFBF, sizeof own), 0);
    for (int i = 0; i < 100000; i++) fputc('a' + i % 26, f);
    fclose(f);
    CHECK_EQ(size_of("b"), 100000);
    f = fopen("b", "r");
    int good = 0, c;
    for (int i = 0; (c = fgetc(f)) != EOF; i++) good += c == 'a' + i % 26;
    CHECK_EQ(good, 100000);
    fclose(f);
    size_t size = 5 << 20; /* one call larger than any buffer */
    char *block = malloc(size);
    for (size_t i = 0; i < size; i++) block[i] = (char)(i % 241);
    f = fopen("b", "w+");
    CHECK_EQ(fwrite(block, 1, size, f), size);
    rewind(f);
    memset(block, 0, size);
    CHECK_EQ(fread(block, 1, size, f), size);
    size_t wrong = 0;
    for (size_t i = 0; i < size; i++) wrong += block[i] != (char)(i % 241);
    CHECK_EQ(wrong, 0);
    CHECK_EQ(fread(block, 1, 1, f), 0);
    CHECK(feof(f));
    fclose(f);
    free(block);
}

static void descriptors(void)
{
    int fd = open("d", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_EQ(write(fd, "first\n", 6), 6);
    FILE *f = fdopen(fd, "r+");
    CHECK(f != NULL);
    CHECK_EQ(fileno(f), fd);
    CHECK_EQ(ftell(f), 6); /* takes over the offset */
    fputs("second\n", f);
    fclose(f);
    CHECK_ERR(write(fd, "x", 1), EBADF);
    CHECK_STR(get("d"), "first\nsecond\n");
    fd = open("d", O_RDONLY);
    CHECK(fdopen(fd, "w") == NULL && errno == EINVAL);
    close(fd);
    fd = open("d", O_WRONLY | O_APPEND);
    CHECK_EQ(dprintf(fd, "%s-%d\n", "third", 3), 8);
    close(fd);
    CHECK_STR(get("d"), "first\nsecond\nthird-3\n");
    fd = open("appended", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_EQ(write(fd, "start ", 6), 6);
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    f = fdopen(fd, "a"); /* makes the descriptor append, too */
    CHECK(fcntl(fd, F_GETFL) & O_APPEND);
    CHECK_EQ(write(fd, "end", 3), 3);
    fclose(f);
    CHECK_STR(get("appended"), "start end");
    f = fopen("d", "r"); /* what a stream has read, its descriptor has passed */
    char text[32];
    CHECK_STR(fgets(text, sizeof text, f), "first\n");
    CHECK_EQ(fflush(f), 0); /* gives back what was read ahead */
    CHECK_EQ(lseek(fileno(f), 0, SEEK_CUR), 6);
    fclose(f);
}

static void reopening(void)
{
    FILE *f = fopen("r1", "w");
    fputs("one", f);
    f = freopen("r2", "w", f);
    CHECK(f != NULL);
    fputs("two", f);
    fclose(f);
    CHECK_STR(get("r1"), "one");
    CHECK_STR(get("r2"), "two");
    f = fopen("r1", "r");
    CHECK(freopen("missing", "r", f) == NULL && errno == ENOENT);
    /* standard streams onto files, as programs with a log do */
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    CHECK(freopen("out", "w", stdout) == stdout);
    CHECK_EQ(fileno(stdout), STDOUT_FILENO);
    printf("through %s", "printf");
    puts("!");
    CHECK_EQ(system("echo from a child"), 0);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    const char *out = get("out");
    CHECK(out != NULL && strstr(out, "through printf!\n") != NULL);
    CHECK(out != NULL && strstr(out, "from a child\n") != NULL);
    saved = dup(STDIN_FILENO);
    CHECK(freopen("r2", "r", stdin) == stdin);
    char text[16] = "";
    CHECK_EQ(scanf("%15s", text), 1);
    CHECK_STR(text, "two");
    dup2(saved, STDIN_FILENO);
    close(saved);
    clearerr(stdin);
}

static void lines(void)
{
    put("lines", "short\n\nlonger line here\nlast without end");
    FILE *f = fopen("lines", "r");
    char *line = NULL;
    size_t room = 0;
    CHECK_EQ(getline(&line, &room, f), 6);
    CHECK_EQ(getline(&line, &room, f), 1);
    CHECK_EQ(getdelim(&line, &room, 'g', f), 4);
    CHECK_EQ(getline(&line, &room, f), 13);
    CHECK_EQ(getline(&line, &room, f), 16);
    CHECK_STR(line, "last without end");
    CHECK_EQ(getline(&line, &room, f), -1);
    CHECK(feof(f));
    free(line);
    fclose(f);
    put("numbers", "12 3.5 word\n0x1f");
    f = fopen("numbers", "r");
    int whole;
    double real;
    char word[16];
    unsigned hex;
    CHECK_EQ(fscanf(f, "%d %lf %15s %x", &whole, &real, word, &hex), 4);
    CHECK(whole == 12 && real == 3.5 && hex == 0x1f);
    CHECK_STR(word, "word");
    fclose(f);
    f = fopen("wide", "w");
    CHECK_EQ(fwide(f, 1) > 0, 1);
    CHECK_EQ(fputws(L"wide text\n", f) >= 0, 1);
    fclose(f);
    CHECK_STR(get("wide"), "wide text\n");
}

static void growing(void)
{
    put("grow", "abc");
    FILE *f = fopen("grow", "r");
    CHECK_EQ(fgetc(f), 'a');
    CHECK_EQ(fgetc(f), 'b');
    CHECK_EQ(fgetc(f), 'c');
    CHECK_EQ(fgetc(f), EOF);
    int fd = open("grow", O_WRONLY | O_APPEND);
    CHECK_EQ(write(fd, "d", 1), 1);
    close(fd);
    clearerr(f); /* `tail -f` */
    CHECK_EQ(fgetc(f), 'd');
    fclose(f);
}

static void temporary(void)
{
    FILE *f = tmpfile();
    CHECK(f != NULL);
    fputs("tmp", f);
    rewind(f);
    CHECK_EQ(fgetc(f), 't');
    fclose(f);
    char name[] = "tmpXXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0);
    CHECK(strcmp(name, "tmpXXXXXX") != 0);
    struct stat st;
    CHECK_EQ(stat(name, &st), 0);
    CHECK_EQ(st.st_mode, S_IFREG | 0600);
    CHECK_EQ(write(fd, "x", 1), 1);
    close(fd);
    CHECK_EQ(unlink(name), 0);
    char with_suffix[] = "tmpXXXXXX.txt";
    fd = mkstemps(with_suffix, 4);
    CHECK(fd >= 0);
    CHECK_STR(with_suffix + 9, ".txt");
    close(fd);
    CHECK_EQ(unlink(with_suffix), 0);
    char flags[] = "tmpXXXXXX";
    fd = mkostemp(flags, O_CLOEXEC | O_APPEND);
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK(fcntl(fd, F_GETFL) & O_APPEND);
    close(fd);
    CHECK_EQ(unlink(flags), 0);
    char bad[] = "tmpXXX";
    CHECK_ERR(mkstemp(bad), EINVAL);
    char dir[] = "dirXXXXXX";
    CHECK(mkdtemp(dir) == dir);
    CHECK_EQ(stat(dir, &st), 0);
    CHECK_EQ(st.st_mode, S_IFDIR | 0700);
    CHECK_EQ(rmdir(dir), 0);
    char far[] = "missing/tmpXXXXXX";
    CHECK_ERR(mkstemp(far), ENOENT);
}

static void left_open(void)
{
    pid_t child;
    if (in_child(&child)) { /* exit() writes what is still in buffers */
        FILE *f = fopen("unclosed", "w");
        fputs("written at exit", f);
        exit(0);
    }
    reap(child);
    CHECK_STR(get("unclosed"), "written at exit");
    if (in_child(&child)) { /* _exit() does not */
        FILE *f = fopen("lost", "w");
        fputs("never written", f);
        _exit(0);
    }
    reap(child);
    CHECK_STR(get("lost"), "");
}

static void pipes(void)
{
    put("unsorted", "pear\napple\nfig\n");
    FILE *f = popen("sort unsorted", "r");
    CHECK(f != NULL);
    char text[32];
    CHECK_STR(fgets(text, sizeof text, f), "apple\n");
    CHECK_STR(fgets(text, sizeof text, f), "fig\n");
    CHECK_STR(fgets(text, sizeof text, f), "pear\n");
    CHECK(fgets(text, sizeof text, f) == NULL);
    CHECK_EQ(pclose(f), 0);
    f = popen("cat > by-popen", "w");
    CHECK(f != NULL);
    fputs("into a pipe into a file", f);
    CHECK_EQ(pclose(f), 0);
    CHECK_STR(get("by-popen"), "into a pipe into a file");
    f = popen("exit 3", "r");
    CHECK_EQ(WEXITSTATUS(pclose(f)), 3);
}

int main(int argc, char **argv)
{
    enter(argc, argv);
    modes();
    positions();
    buffering();
    descriptors();
    reopening();
    lines();
    growing();
    temporary();
    left_open();
    pipes();
    return done();
}
