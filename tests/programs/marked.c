/* What a resident file costs in system calls: between the two marks (a call of
 * getpgid(-1), which nothing else makes) there must be none at all.
 *
 *   marked FILE    FILE must be empty or missing; /dev/null must exist
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char block[8192];

static int rounds(int fd, int again, int n)
{
    struct iovec two[2] = {{block, 100}, {block + 100, 200}};
    struct stat st;
    long wrong = 0;
    for (int i = 0; i < n; i++) {
        wrong += lseek(fd, 0, SEEK_SET) != 0;
        wrong += write(fd, block, 4096) != 4096;
        wrong += write(fd, "x", 1) != 1;
        wrong += pwrite(fd, block, 64, 100) != 64;
        wrong += writev(fd, two, 2) != 300;
        wrong += lseek(again, 10, SEEK_SET) != 10;
        wrong += read(again, block, 4096) != 4096;
        wrong += pread(again, block, 64, 1000) != 64;
        wrong += readv(again, two, 2) <= 0;
        wrong += lseek(fd, 0, SEEK_END) != 4397;
        wrong += fstat(again, &st) != 0 || st.st_size != 4397;
    }
    return wrong != 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    memset(block, 'b', sizeof block);
    int fd = open(argv[1], O_RDWR | O_CREAT, 0644);
    int again = open(argv[1], O_RDONLY);
    if (fd < 0 || again < 0 || rounds(fd, again, 3)) return 1; /* touched once */
    getpgid(-1);
    int wrong = rounds(fd, again, 200);
    getpgid(-1);
    return wrong;
}
