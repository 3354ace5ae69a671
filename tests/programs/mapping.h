/* Mapped files: touching what may not be there. */
#ifndef MAPPING_H
#define MAPPING_H

#include "check.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

enum { PAGE = 4096, ALL = PROT_READ | PROT_WRITE };

static sigjmp_buf escape;
static volatile sig_atomic_t touching;

static void on_signal(int number)
{
    if (touching) siglongjmp(escape, number);
    fprintf(stderr, "%s where none should be, after %ld checks\n", strsignal(number), checks);
    _exit(1);
}

/* The signal that touching a byte brings, 0 for none. */
static int touch(volatile char *byte, int writes)
{
    int number = sigsetjmp(escape, 1);
    touching = number == 0;
    if (touching) {
        char value = *byte;
        if (writes) *byte = value;
    }
    touching = 0;
    return number;
}

#endif
