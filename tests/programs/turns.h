/* Two processes that take turns. */
#ifndef TURNS_H
#define TURNS_H

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>

/* Until the other, `child` if that is not 0, has done so many. Ends if the child has. */
static void wait_for(_Atomic long *turns, long round, pid_t child)
{
    siginfo_t ended = {0};
    while (atomic_load(turns) < round) {
        if (child > 0 && waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid != 0)
            exit(1);
        sched_yield();
    }
}

#endif
