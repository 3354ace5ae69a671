/* Reads and writes that the kernel, or a thread of libc, carries out on its own:
 * POSIX asynchronous I/O, Linux AIO, io_uring. */
#include "check.h"
#include <aio.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* POSIX */

static ssize_t finish(struct aiocb *operation)
{
    const struct aiocb *list[] = {operation};
    while (aio_error(operation) == EINPROGRESS) aio_suspend(list, 1, NULL);
    return aio_return(operation);
}

static void posix(void)
{
    char text[32] = "", more[32] = "";
    put("posix", "0123456789");
    int fd = open("posix", O_RDWR);
    CHECK_EQ(lseek(fd, 3, SEEK_SET), 3);
    struct aiocb in = {.aio_fildes = fd, .aio_buf = text, .aio_nbytes = 5, .aio_offset = 2};
    CHECK_EQ(aio_read(&in), 0);
    CHECK_EQ(finish(&in), 5);
    CHECK_STR(text, "23456");
    struct aiocb out = {.aio_fildes = fd, .aio_buf = "abcdef", .aio_nbytes = 6, .aio_offset = 8};
    CHECK_EQ(aio_write(&out), 0);
    CHECK_EQ(finish(&out), 6);
    CHECK_EQ(aio_fsync(O_SYNC, &out), 0);
    CHECK_EQ(finish(&out), 0);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 3);
    CHECK_EQ(size_of("posix"), 14);
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_size, 14);
    CHECK_EQ(read(fd, more, sizeof more), 11);
    CHECK_STR(more, "34567abcdef");

    struct aiocb last = {.aio_fildes = fd, .aio_buf = "!", .aio_nbytes = 1, .aio_offset = 14, .aio_lio_opcode = LIO_WRITE};
    int other = open("other", O_RDWR | O_CREAT | O_APPEND, 0600);
    struct aiocb first = {.aio_fildes = other, .aio_buf = "?", .aio_nbytes = 1, .aio_lio_opcode = LIO_WRITE};
    struct aiocb *list[] = {&last, NULL, &first};
    CHECK_EQ(lio_listio(LIO_WAIT, list, 3, NULL), 0);
    CHECK_EQ(write(other, "!", 1), 1);
    close(fd);
    close(other);
    CHECK_STR(get("posix"), "01234567abcdef!");
    CHECK_STR(get("other"), "?!");

    struct aiocb closed = {.aio_fildes = fd, .aio_buf = text, .aio_nbytes = 1};
    if (aio_read(&closed) == 0) CHECK(finish(&closed) == -1 && aio_error(&closed) == EBADF);
}

/* Linux AIO */

static struct iocb operation(int what, int fd, void *bytes, size_t n, long long offset)
{
    return (struct iocb){.aio_lio_opcode = (uint16_t)what, .aio_fildes = (uint32_t)fd, .aio_buf = (uintptr_t)bytes, .aio_nbytes = n, .aio_offset = offset};
}

/* The result of one operation. */
static long long run(aio_context_t context, struct iocb it)
{
    struct iocb *list[] = {&it};
    struct io_event event = {0};
    long begun = syscall(SYS_io_submit, context, 1L, list);
    if (begun != 1) return -errno;
    return syscall(SYS_io_getevents, context, 1L, 1L, &event, NULL) == 1 ? event.res : -EIO;
}

static void linux_aio(void)
{
    aio_context_t context = 0;
    char text[32] = "";
    CHECK_EQ(syscall(SYS_io_setup, 4, &context), 0);
    int fd = open("linux", O_RDWR | O_CREAT, 0644);
    CHECK_EQ(write(fd, "some bytes", 10), 10);
    CHECK_EQ(run(context, operation(IOCB_CMD_PREAD, fd, text, sizeof text, 5)), 5);
    CHECK_STR(text, "bytes");
    CHECK_EQ(run(context, operation(IOCB_CMD_PWRITE, fd, "SOME", 4, 0)), 4);
    CHECK_EQ(run(context, operation(IOCB_CMD_PWRITE, fd, "end", 3, 5000)), 3);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10);
    CHECK_EQ(lseek(fd, 0, SEEK_END), 5003);
    CHECK_EQ(size_of("linux"), 5003);
    CHECK_EQ(pread(fd, text, 10, 0), 10);
    CHECK(memcmp(text, "SOME bytes", 10) == 0);
    CHECK_EQ(ftruncate(fd, 12), 0);
    CHECK_EQ(run(context, operation(IOCB_CMD_PREAD, fd, text, sizeof text, 0)), 12);
    CHECK_EQ(size_of("linux"), 12);
    close(fd);

    fd = open("linux", O_WRONLY | O_APPEND);
    CHECK_EQ(run(context, operation(IOCB_CMD_PWRITE, fd, "appended", 8, 0)), 8);
    CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND), O_WRONLY | O_APPEND);
    CHECK_EQ(run(context, operation(IOCB_CMD_PREAD, fd, text, 1, 0)), -EBADF);
    close(fd);
    fd = open("linux", O_RDONLY);
    CHECK_EQ(run(context, operation(IOCB_CMD_PWRITE, fd, "x", 1, 0)), -EBADF);
    close(fd);
    CHECK_EQ(run(context, operation(IOCB_CMD_PREAD, fd, text, 1, 0)), -EBADF);
    CHECK_EQ(size_of("linux"), 20);
    CHECK(memcmp(get("linux") + 12, "appended", 9) == 0);
    CHECK_EQ(syscall(SYS_io_destroy, context), 0);
    CHECK_ERR(syscall(SYS_io_submit, context, 1L, NULL), EINVAL);
}

/* io_uring, by hand: one operation at a time */

struct ring {
    int fd;
    struct io_uring_params is;
    char *queue;
    struct io_uring_sqe *entries;
};

static int make_ring(struct ring *ring)
{
    memset(ring, 0, sizeof *ring);
    ring->fd = (int)syscall(SYS_io_uring_setup, 4, &ring->is);
    if (ring->fd < 0) return 0;
    size_t queue = ring->is.sq_off.array + ring->is.sq_entries * sizeof(unsigned);
    size_t done = ring->is.cq_off.cqes + ring->is.cq_entries * sizeof(struct io_uring_cqe);
    int rights = PROT_READ | PROT_WRITE;
    ring->queue = mmap(NULL, queue > done ? queue : done, rights, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
    ring->entries = mmap(NULL, ring->is.sq_entries * sizeof *ring->entries, rights, MAP_SHARED, ring->fd, IORING_OFF_SQES);
    CHECK(ring->is.features & IORING_FEAT_SINGLE_MMAP);
    CHECK(ring->queue != MAP_FAILED && ring->entries != MAP_FAILED);
    return 1;
}

static int ring_run(struct ring *ring, int what, int fd, const void *bytes, unsigned n, long long offset)
{
    unsigned *tail = (unsigned *)(ring->queue + ring->is.sq_off.tail), *array = (unsigned *)(ring->queue + ring->is.sq_off.array);
    unsigned *head = (unsigned *)(ring->queue + ring->is.cq_off.head), at = *tail & (ring->is.sq_entries - 1);
    struct io_uring_cqe *results = (struct io_uring_cqe *)(ring->queue + ring->is.cq_off.cqes);
    struct io_uring_sqe *entry = &ring->entries[at];
    memset(entry, 0, sizeof *entry);
    entry->opcode = (uint8_t)what;
    entry->fd = fd;
    entry->addr = (uintptr_t)bytes;
    entry->len = n;
    entry->off = (uint64_t)offset;
    array[at] = at;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1) return -errno;
    int result = results[*head & (ring->is.cq_entries - 1)].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

static void rings(void)
{
    struct ring ring;
    char text[32] = "";
    int before = open("before", O_RDWR | O_CREAT, 0644), log = open("log", O_WRONLY | O_CREAT | O_APPEND, 0644);
    CHECK_EQ(write(before, "written before", 14), 14);
    CHECK_EQ(write(log, "one ", 4), 4);
    CHECK_EQ(lseek(before, 8, SEEK_SET), 8);
    if (!make_ring(&ring)) { /* a kernel, or a container, without */
        CHECK(errno == ENOSYS || errno == EPERM);
        return;
    }
    CHECK_EQ(lseek(before, 0, SEEK_CUR), 8);
    CHECK_EQ(ring_run(&ring, IORING_OP_READ, before, text, sizeof text, 0), 14);
    CHECK_STR(text, "written before");
    CHECK_EQ(ring_run(&ring, IORING_OP_WRITE, before, "BEFORE", 6, -1), 6); /* at the offset */
    CHECK_EQ(lseek(before, 0, SEEK_CUR), 14);
    CHECK_EQ(ring_run(&ring, IORING_OP_WRITE, log, "two ", 4, 0), 4);
    CHECK_EQ(write(log, "three", 5), 5);

    int after = open("after", O_RDWR | O_CREAT, 0644);
    CHECK_EQ(ring_run(&ring, IORING_OP_WRITE, after, "by the ring", 11, 6), 11);
    CHECK_EQ(pwrite(after, "write ", 6, 0), 6);
    CHECK_EQ(size_of("after"), 17);
    memset(text, 0, sizeof text);
    CHECK_EQ(ring_run(&ring, IORING_OP_READ, after, text, sizeof text, 3), 14);
    CHECK_STR(text, "te by the ring");
    FILE *stream = fopen("after", "r+");
    CHECK(stream != NULL && fgets(text, sizeof text, stream) != NULL);
    CHECK_STR(text, "write by the ring");
    CHECK_EQ(ring_run(&ring, IORING_OP_WRITE, fileno(stream), "WRITE", 5, 0), 5);
    CHECK_EQ(fclose(stream), 0);
    close(before);
    close(after);
    close(log);
    close(ring.fd);
    CHECK_STR(get("before"), "written BEFORE");
    CHECK_STR(get("after"), "WRITE by the ring");
    CHECK_STR(get("log"), "one two three");
}

int main(int argc, char **argv)
{
    enter(argc, argv);
    posix();
    linux_aio();
    rings();
    return done();
}
