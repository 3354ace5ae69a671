/* Sockets that have a name in a directory, as servers and worker pools use them. */
#include "check.h"
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

static struct sockaddr_un at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    return address;
}

static int make(int type)
{
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    return fd;
}

static int bind_to(int fd, const char *path)
{
    struct sockaddr_un address = at(path);
    return bind(fd, (struct sockaddr *)&address, sizeof address);
}

static int connect_to(int fd, const char *path)
{
    struct sockaddr_un address = at(path);
    /* Without the NUL, as some count it. */
    return connect(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + strlen(path));
}

static void talk(int server, const char *path)
{
    char word[8] = "";
    pid_t child = fork();
    if (child == 0) {
        int client = make(SOCK_STREAM);
        int bad = connect_to(client, path) != 0 || write(client, "hello", 5) != 5;
        _exit(bad);
    }
    int peer = accept(server, NULL, NULL);
    CHECK(peer >= 0);
    CHECK_EQ(read(peer, word, sizeof word), 5);
    CHECK_STR(word, "hello");
    close(peer);
    int status = -1;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

static void streams(void)
{
    struct stat st;
    int server = make(SOCK_STREAM), other = make(SOCK_STREAM);
    umask(022);
    CHECK_EQ(bind_to(server, "server"), 0);
    CHECK_EQ(stat("server", &st), 0);
    CHECK_EQ(st.st_mode, S_IFSOCK | 0755);
    CHECK_ERR(bind_to(other, "server"), EADDRINUSE);
    CHECK_ERR(bind_to(server, "second"), EINVAL);
    CHECK_ERR(stat("second", &st), ENOENT);
    CHECK_ERR(bind_to(other, "none/server"), ENOENT);
    CHECK_ERR(connect_to(other, "server"), ECONNREFUSED);
    CHECK_EQ(listen(server, 5), 0);
    talk(server, "server");
    CHECK_EQ(chmod("server", 0600), 0);
    CHECK_EQ(rename("server", "sub/renamed"), 0);
    CHECK_EQ(symlink("sub/renamed", "link"), 0);
    talk(server, "sub/renamed");
    talk(server, "link");
    CHECK_ERR(connect_to(other, "server"), ENOENT);
    CHECK_ERR(open("sub/renamed", O_RDWR), ENXIO);
    CHECK_EQ(unlink("sub/renamed"), 0);
    CHECK_ERR(connect_to(other, "link"), ENOENT);
    CHECK_EQ(bind_to(other, "sub/renamed"), 0);
    CHECK_EQ(unlink("sub/renamed"), 0);
    close(server);
    close(other);
}

static void no_sockets(void)
{
    int client = make(SOCK_STREAM);
    int fd = open("plain", O_CREAT | O_WRONLY, 0644);
    CHECK(fd >= 0);
    close(fd);
    CHECK_ERR(connect_to(client, "plain"), ECONNREFUSED);
    CHECK_ERR(connect_to(client, "sub"), ECONNREFUSED);
    CHECK_ERR(connect_to(client, "plain/x"), ENOTDIR);
    CHECK_ERR(bind_to(client, "plain"), EADDRINUSE);
    CHECK_ERR(bind_to(client, "sub"), EADDRINUSE);
    CHECK_ERR(bind(client, (struct sockaddr *)8, sizeof(struct sockaddr_un)), EFAULT);
    close(client);
}

static void datagrams(void)
{
    char word[8] = "";
    struct sockaddr_un address = at("datagrams");
    int server = make(SOCK_DGRAM), client = make(SOCK_DGRAM);
    CHECK_EQ(syscall(SYS_bind, server, &address, sizeof address), 0);
    CHECK_EQ(sendto(client, "word", 4, 0, (struct sockaddr *)&address, sizeof address), 4);
    CHECK_EQ(recv(server, word, sizeof word, 0), 4);
    CHECK_STR(word, "word");
    struct iovec body = {"again", 5};
    struct msghdr message = {.msg_name = &address, .msg_namelen = sizeof address, .msg_iov = &body, .msg_iovlen = 1};
    CHECK_EQ(sendmsg(client, &message, 0), 5);
    CHECK_EQ(recv(server, word, sizeof word, 0), 5);
    CHECK_STR(word, "again");
    CHECK(message.msg_name == &address);
    /* Whom to answer is told by an address that serves to do so. */
    socklen_t n = sizeof address;
    CHECK_EQ(bind_to(client, "client"), 0);
    CHECK_EQ(sendto(client, "ask", 3, 0, (struct sockaddr *)&address, sizeof address), 3);
    struct sockaddr_un from;
    CHECK_EQ(recvfrom(server, word, sizeof word, 0, (struct sockaddr *)&from, &n), 3);
    CHECK_EQ(sendto(server, "answer", 6, 0, (struct sockaddr *)&from, n), 6);
    CHECK_EQ(recv(client, word, sizeof word, 0), 6);
    CHECK_EQ(unlink("client"), 0);
    CHECK_EQ(unlink("datagrams"), 0);
    CHECK_ERR(sendto(client, "word", 4, 0, (struct sockaddr *)&address, sizeof address), ENOENT);
    close(server);
    close(client);
}

int main(int argc, char **argv)
{
    enter(argc, argv);
    CHECK_EQ(mkdir("sub", 0755), 0);
    streams();
    no_sockets();
    datagrams();
    return done();
}
