/* Runs COMMAND as on a kernel that does not tell how a process has ended once
 * its parent knows: PIDFD_GET_INFO (Linux 6.13) fails.
 *
 *   forgetful COMMAND [ARGUMENT...]
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIDFD_GET_INFO 0xc040ff0bu
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip)
#define GIVE(verdict) BPF_STMT(BPF_RET | BPF_K, verdict)

int main(int argc, char **argv)
{
    struct sock_filter rules[] = {
        LOAD(nr),
        UNLESS(SYS_ioctl, 3),
        LOAD(args[1]),
        UNLESS(PIDFD_GET_INFO, 1),
        GIVE(SECCOMP_RET_ERRNO | ENOTTY),
        GIVE(SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof rules / sizeof *rules, rules};
    if (argc < 2) return 2;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
        perror("prctl");
        return 1;
    }
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
