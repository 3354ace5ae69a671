/* A pool of forked workers that share one output and hand parts back, the way
 * parallel tools do: input "list" of numbers, output "squares" and "log". */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 4 };

static void work(int me)
{
    char path[32];
    snprintf(path, sizeof path, "part.%d.tmp", me);
    FILE *in = fopen("list", "r"), *out = fopen(path, "w");
    if (!in || !out) _exit(1);
    int number, line = 0;
    while (fscanf(in, "%d", &number) == 1)
        if (line++ % WORKERS == me) fprintf(out, "%d %ld\n", number, (long)number * number);
    if (ferror(in) || fclose(out) != 0) _exit(2);
    char done[32];
    snprintf(done, sizeof done, "part.%d", me);
    _exit(rename(path, done) == 0 ? 0 : 3);
}

int main(void)
{
    int journal = open("log", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (write(journal, "start\n", 6) != 6) return 1;
    for (int i = 0; i < WORKERS; i++) {
        pid_t child = fork();
        if (child == 0) work(i);
        if (child < 0) return 1;
    }
    int status, bad = 0;
    while (wait(&status) > 0) bad |= status;
    if (bad) return 1;
    if (write(journal, "parts\n", 6) != 6) return 1;
    pid_t child = fork(); /* an inherited descriptor becomes a program's output */
    if (child == 0) {
        dup2(journal, 1);
        execlp("sh", "sh", "-c", "cat part.0 part.1 part.2 part.3 | sort -n > squares; wc -l < squares", NULL);
        _exit(127);
    }
    if (waitpid(child, &status, 0) != child || status) return 1;
    return write(journal, "end\n", 4) == 4 ? 0 : 1;
}
