/* Goes past the library on purpose, by a system call of its own that no symbol
 * leads to: the auditor must see it.
 *
 *   missed read FILE | missed open FILE | missed write FILE (status: its errno)
 *   missed pwrite FILE
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static long bare(long number, long a, long b, long c)
{
    long result;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = 0;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    result = x0;
#endif
    return result;
}

int main(int argc, char **argv)
{
    char byte;
    if (argc != 3) return 2;
    if (!strcmp(argv[1], "read")) {
        int fd = open(argv[2], O_RDWR | O_CREAT, 0644);
        bare(SYS_read, fd, (long)&byte, 1);
    } else if (!strcmp(argv[1], "open")) {
        bare(SYS_openat, AT_FDCWD, (long)argv[2], O_RDONLY);
    }
    if (!strcmp(argv[1], "pwrite")) { /* at the start: the fourth argument is 0 */
        int fd = open(argv[2], O_RDWR | O_CREAT, 0644);
        return bare(SYS_pwrite64, fd, (long)"lost", 4) != 4;
    }
    if (!strcmp(argv[1], "write")) {
        signal(SIGXFSZ, SIG_IGN);
        int fd = open(argv[2], O_RDWR | O_CREAT, 0644);
        return (int)-bare(SYS_write, fd, (long)"lost", 4);
    }
    return 0;
}
