/* Eight threads at once: each writes a file of its own and a part of a shared
 * one, reads both back, and appends to a common log. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { THREADS = 8, BLOCKS = 256, BLOCK = 4096 };
static int shared, journal;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void *work(void *argument)
{
    int me = (int)(long)argument;
    char path[32], block[BLOCK], back[BLOCK];
    snprintf(path, sizeof path, "own.%d", me);
    int own = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (own < 0) fail(path);
    for (int i = 0; i < BLOCKS; i++) {
        memset(block, 'a' + (me + i) % 26, BLOCK);
        off_t at = ((off_t)i * THREADS + me) * BLOCK;
        if (write(own, block, BLOCK) != BLOCK) fail("write");
        if (pwrite(shared, block, BLOCK, at) != BLOCK) fail("pwrite");
        if (pread(shared, back, BLOCK, at) != BLOCK || memcmp(block, back, BLOCK)) fail("pread");
        if (write(journal, "0123456789abcdef\n", 17) != 17) fail("append");
    }
    struct stat st;
    if (fstat(own, &st) || st.st_size != BLOCKS * BLOCK) fail("fstat");
    if (lseek(own, 0, SEEK_SET) != 0) fail("lseek");
    for (int i = 0; i < BLOCKS; i++) {
        memset(block, 'a' + (me + i) % 26, BLOCK);
        if (read(own, back, BLOCK) != BLOCK || memcmp(block, back, BLOCK)) fail("read");
    }
    close(own);
    return NULL;
}

int main(void)
{
    shared = open("shared", O_RDWR | O_CREAT | O_TRUNC, 0644);
    journal = open("journal", O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (shared < 0 || journal < 0) fail("open");
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)i)) fail("thread");
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    return 0;
}
