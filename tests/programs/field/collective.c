/* MPI-IO from all processes: collective and single writes, views with holes, shared
 * pointers, appends, and everything read back by somebody else. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CELLS 6000 /* per process */

static int rank, size, wrong;

static void check(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "rank %d: %s\n", rank, what);
        wrong = 1;
    }
}

static MPI_File open_file(const char *name, int mode)
{
    MPI_File file;
    int error = MPI_File_open(MPI_COMM_WORLD, (char *)name, mode, MPI_INFO_NULL, &file);
    if (error != MPI_SUCCESS) {
        char text[MPI_MAX_ERROR_STRING];
        int n;
        MPI_Error_string(error, text, &n);
        fprintf(stderr, "%s: %s\n", name, text);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    return file;
}

/* Each process its block, all at once; read back by the next process. */
static void blocks(int later)
{
    int *data = malloc(CELLS * sizeof *data), *back = malloc(CELLS * sizeof *back);
    for (int i = 0; i < CELLS; i++) data[i] = rank * CELLS + i;
    MPI_File file = open_file("blocks.bin", MPI_MODE_CREATE | MPI_MODE_RDWR);
    MPI_Offset mine = (MPI_Offset)rank * CELLS * sizeof *data;
    check(MPI_File_write_at_all(file, mine, data, CELLS, MPI_INT, MPI_STATUS_IGNORE) == MPI_SUCCESS, "write_at_all");
    MPI_File_sync(file);
    MPI_Barrier(MPI_COMM_WORLD);
    int next = (rank + 1) % size;
    check(MPI_File_read_at_all(file, (MPI_Offset)next * CELLS * sizeof *data, back, CELLS, MPI_INT, MPI_STATUS_IGNORE) == MPI_SUCCESS, "read_at_all");
    for (int i = 0; i < CELLS; i++)
        if (back[i] != next * CELLS + i) { check(0, "block of the next"); break; }
    MPI_Offset length;
    MPI_File_get_size(file, &length);
    check(length == (MPI_Offset)size * CELLS * (MPI_Offset)sizeof *data, "size");
    MPI_Barrier(MPI_COMM_WORLD);
    if (later) {
        MPI_Request request;
        MPI_File_iwrite_at(file, length + mine, data, 100, MPI_INT, &request);
        MPI_Wait(&request, MPI_STATUS_IGNORE);
    }
    MPI_File_close(&file);
    free(data);
    free(back);
}

/* A matrix of which each process has a quarter of the columns: views with holes. */
static void columns(void)
{
    int whole[2] = {60, 4 * 25}, part[2] = {60, 25}, start[2] = {0, rank * 25};
    MPI_Datatype view;
    double data[60 * 25], back[60 * 25];
    for (int i = 0; i < 60 * 25; i++) data[i] = rank + i / 1000.0;
    MPI_Type_create_subarray(2, whole, part, start, MPI_ORDER_C, MPI_DOUBLE, &view);
    MPI_Type_commit(&view);
    MPI_File file = open_file("columns.bin", MPI_MODE_CREATE | MPI_MODE_RDWR);
    MPI_File_set_size(file, 0);
    MPI_File_preallocate(file, 60 * 100 * sizeof(double));
    MPI_File_set_view(file, 0, MPI_DOUBLE, view, "native", MPI_INFO_NULL);
    check(MPI_File_write_all(file, data, 60 * 25, MPI_DOUBLE, MPI_STATUS_IGNORE) == MPI_SUCCESS, "write_all");
    MPI_File_seek(file, 0, MPI_SEEK_SET);
    check(MPI_File_read_all(file, back, 60 * 25, MPI_DOUBLE, MPI_STATUS_IGNORE) == MPI_SUCCESS, "read_all");
    check(memcmp(data, back, sizeof data) == 0, "columns");
    /* Alone, and with holes: read, change, write under a lock of the range. */
    MPI_File_seek(file, 25, MPI_SEEK_SET);
    for (int i = 0; i < 25; i++) data[i] = -rank;
    check(MPI_File_write(file, data, 25, MPI_DOUBLE, MPI_STATUS_IGNORE) == MPI_SUCCESS, "write");
    MPI_File_close(&file);
    MPI_Type_free(&view);
}

/* Everybody appends lines of one length by one pointer, in the order of ranks. */
static void ordered(void)
{
    char line[32];
    MPI_File file = open_file("ordered.txt", MPI_MODE_CREATE | MPI_MODE_WRONLY);
    for (int i = 0; i < 20; i++) {
        snprintf(line, sizeof line, "line %03d of rank %d\n", i, rank);
        check(MPI_File_write_ordered(file, line, (int)strlen(line), MPI_CHAR, MPI_STATUS_IGNORE) == MPI_SUCCESS, "write_ordered");
    }
    MPI_File_close(&file);
}

/* What another program has written, each process its share of the lines. */
static void input(void)
{
    MPI_File file = open_file("numbers", MPI_MODE_RDONLY);
    MPI_Offset length;
    MPI_File_get_size(file, &length);
    int first = (int)(length * rank / size), end = (int)(length * (rank + 1) / size);
    char *text = calloc(end - first + 1, 1);
    MPI_File_read_at_all(file, first, text, end - first, MPI_CHAR, MPI_STATUS_IGNORE);
    long lines = 0, all = 0;
    for (int i = 0; i < end - first; i++) lines += text[i] == '\n';
    MPI_Reduce(&lines, &all, 1, MPI_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
    if (rank == 0) printf("%ld lines in %lld bytes\n", all, (long long)length);
    MPI_File_close(&file);
    free(text);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    check(size == 4, "four processes are meant");
    blocks(argc > 1 && strcmp(argv[1], "later") == 0);
    columns();
    ordered();
    input();
    if (rank == 0) {
        MPI_File file;
        MPI_File_open(MPI_COMM_SELF, "passing", MPI_MODE_CREATE | MPI_MODE_WRONLY | MPI_MODE_DELETE_ON_CLOSE, MPI_INFO_NULL, &file);
        MPI_File_close(&file);
        check(MPI_File_open(MPI_COMM_SELF, "passing", MPI_MODE_RDONLY, MPI_INFO_NULL, &file) != MPI_SUCCESS, "passing is gone");
        printf("done\n");
    }
    MPI_Finalize();
    return wrong;
}
