/* Open files handed to another process through a socket: it gets the same open
 * file, with its offset and flags. */
#include "check.h"
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* Sends a word with a descriptor, or without one (-1). */
static void send_with(int socket, int fd)
{
    char word = 'w', space[CMSG_SPACE(sizeof(int))] = "";
    struct iovec body = {&word, 1};
    struct msghdr message = {.msg_iov = &body, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = space;
        message.msg_controllen = sizeof space;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    CHECK_EQ(sendmsg(socket, &message, MSG_NOSIGNAL), 1);
}

/* The descriptor that comes with a word, -1 if none does. */
static int receive(int socket)
{
    char word, space[CMSG_SPACE(sizeof(int))] = "";
    int fd = -1;
    struct iovec body = {&word, 1};
    struct msghdr message = {.msg_iov = &body, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    CHECK_EQ(recvmsg(socket, &message, MSG_CMSG_CLOEXEC), 1);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head && head->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

/* The receiver's half of sharing(). */
static void shares(int socket)
{
    char buffer[32] = "";
    int fd = receive(socket);
    CHECK(fd >= 0);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 5);
    CHECK_EQ(read(fd, buffer, 6), 6);
    CHECK(memcmp(buffer, " world", 6) == 0);
    CHECK_EQ(write(fd, ", hello", 7), 7);
    CHECK_EQ(pwrite(fd, "H", 1, 0), 1);
    send_with(socket, -1);
    receive(socket);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 3); /* where the sender has put it */
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_size, 21);
    /* the sender has closed and unlinked it; it lives here */
    CHECK_EQ(lseek(fd, 0, SEEK_END), 21);
    CHECK_EQ(write(fd, "!", 1), 1);
    CHECK_EQ(pread(fd, buffer, sizeof buffer, 0), 22);
    CHECK(memcmp(buffer, "Hello world, hello to!", 22) == 0);
    char *bytes = mmap(NULL, 22, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(bytes != MAP_FAILED && memcmp(bytes, "Hello world", 11) == 0);
    close(fd);
}

static void sharing(int socket)
{
    char buffer[32] = "";
    put("shared", "hello world");
    int fd = open("shared", O_RDWR);
    CHECK_EQ(read(fd, buffer, 5), 5);
    send_with(socket, fd);
    receive(socket);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 18);
    CHECK_EQ(write(fd, " to", 3), 3);
    CHECK_STR(get("shared"), "Hello world, hello to");
    CHECK_EQ(lseek(fd, 3, SEEK_SET), 3);
    CHECK_EQ(close(fd), 0);
    CHECK_EQ(unlink("shared"), 0);
    send_with(socket, -1);
}

/* Flags and rights come with the descriptor, not with the path. */
static void takes_flags(int socket)
{
    char buffer[8];
    int reader = receive(socket), appender = receive(socket), new = receive(socket);
    CHECK_ERR(write(reader, "x", 1), EBADF);
    CHECK_EQ(read(reader, buffer, 8), 4);
    CHECK_ERR(read(appender, buffer, 1), EBADF);
    CHECK_EQ(fcntl(appender, F_GETFL) & (O_ACCMODE | O_APPEND), O_WRONLY | O_APPEND);
    CHECK_EQ(fcntl(appender, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(write(appender, "more", 4), 4);
    CHECK_EQ(write(new, "written by the receiver alone", 29), 29);
    close(reader);
    close(appender);
    close(new);
}

static void handing_flags(int socket)
{
    put("flags", "some");
    int all[] = {open("flags", O_RDONLY), open("flags", O_WRONLY | O_APPEND), open("new", O_WRONLY | O_CREAT | O_EXCL, 0644)};
    for (int i = 0; i < 3; i++) {
        CHECK(all[i] >= 0);
        send_with(socket, all[i]);
        CHECK_EQ(close(all[i]), 0);
    }
}

/* While a descriptor is under way nobody has it, and the bytes written before stay. */
static void under_way(void)
{
    int line[2], fd = open("way", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, line), 0);
    char block[5000], back[5000];
    for (size_t i = 0; i < sizeof block; i++) block[i] = (char)(i * 11);
    CHECK_EQ(write(fd, block, sizeof block), sizeof block);
    send_with(line[0], fd);
    CHECK_EQ(close(fd), 0);
    CHECK_EQ(unlink("way"), 0);
    fd = receive(line[1]);
    CHECK(fd >= 0);
    CHECK_EQ(pread(fd, back, sizeof back, 0), sizeof back);
    CHECK(memcmp(block, back, sizeof block) == 0);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), sizeof block);
    close(fd);
    close(line[0]);
    close(line[1]);
}

int main(int argc, char **argv)
{
    enter(argc, argv);
    int line[2];
    pid_t child;
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line), 0);
    if (in_child(&child)) { /* before any file is open */
        close(line[0]);
        shares(line[1]);
        takes_flags(line[1]);
        child_done();
    }
    close(line[1]);
    sharing(line[0]);
    handing_flags(line[0]);
    reap(child);
    CHECK_STR(get("flags"), "somemore");
    CHECK_STR(get("new"), "written by the receiver alone");
    under_way();
    return done();
}
