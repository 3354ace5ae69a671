/* Random operations on one file by two processes that take turns, each result
 * compared with a copy in memory. On a difference it tells what led to it and
 * ends with 1.
 *
 *   fsx [-s SEED] [-n OPERATIONS] [-l LIMIT] [-M] [-1] FILE
 *     -s  the same seed makes the same operations (default 1)
 *     -n  how many (default 20000)
 *     -l  bytes the file never grows beyond (default 256 KiB)
 *     -M  no mappings
 *     -1  one process alone
 *
 * The file is made or emptied; a second name beside it, FILE.moved, is used too.
 * What the file holds at the end depends on the options alone: a mode of
 * fallocate that the file system refuses is replaced by writing zeros.
 */
#include "fsx.h"

/* ---- descriptors ---- */

static void shut(int number)
{
    struct slot *slot = slot_at(number);
    if (slot->fd < 0) return;
    expect("close", close(slot->fd), 0);
    s->ofds[slot->ofd].users--;
    slot->fd = -1;
}

static void opened(int number, int fd, int ofd, int flags)
{
    if (fd < 0) fail("a descriptor is not given");
    *slot_at(number) = (struct slot){fd, ofd, flags};
    s->ofds[ofd].users++;
}

static void reopen(int number)
{
    static const int modes[] = {O_RDWR, O_RDONLY, O_RDWR | O_APPEND};
    int flags = number == 0 ? 0 : (int)pick(3);
    int empties = !(flags & READ_ONLY) && pick(40) == 0;
    note(empties ? "open O_TRUNC" : "open", number, flags, 0);
    shut(number);
    int ofd = 0;
    while (s->ofds[ofd].users) ofd++;
    s->ofds[ofd].offset = 0;
    opened(number, open(path[s->moved], modes[flags] | (empties ? O_TRUNC : 0)), ofd, flags);
    if (!empties) return;
    memset(s->copy, 0, (size_t)s->size);
    s->size = 0;
}

static void duplicate(void)
{
    int from = any_slot(0), to = 1 + (int)pick(SLOTS - 1);
    if (from == to) return reopen(to);
    struct slot *slot = slot_at(from);
    note("dup", to, from, 0);
    int old = slot_at(to)->fd;
    if (old < 0 || pick(2)) {
        shut(to);
        opened(to, dup(slot->fd), slot->ofd, slot->flags);
    } else {
        s->ofds[slot_at(to)->ofd].users--;
        opened(to, dup2(slot->fd, old), slot->ofd, slot->flags);
        expect("dup2", slot_at(to)->fd, old);
    }
}

/* ---- reads and writes ---- */

static void pieces(struct iovec *list, unsigned char *bytes, off_t length)
{
    size_t third = (size_t)length / 3;
    list[0] = (struct iovec){bytes, third};
    list[1] = (struct iovec){bytes + third, 0};
    list[2] = (struct iovec){bytes + third, (size_t)length - third};
}

static void reads(void)
{
    int number = any_slot(0), positioned = (int)pick(2), vector = pick(4) == 0;
    struct slot *slot = slot_at(number);
    off_t *own = &s->ofds[slot->ofd].offset;
    if (!positioned && (pick(2) || *own >= limit)) {
        off_t to = place();
        expect("lseek", lseek(slot->fd, to, SEEK_SET), to);
        *own = to;
    }
    off_t at = positioned ? place() : *own;
    off_t length = stretch(at), wanted = at < s->size ? smaller(length, s->size - at) : 0;
    unsigned char *bytes = buffer + pick(8);
    struct iovec list[3];
    pieces(list, bytes, length);
    note(positioned ? "pread" : "read", number, at, length);
    bytes[wanted] = 0x5a;
    ssize_t found;
    if (positioned) found = vector ? preadv(slot->fd, list, 3, at) : pread(slot->fd, bytes, (size_t)length, at);
    else found = vector ? readv(slot->fd, list, 3) : read(slot->fd, bytes, (size_t)length);
    expect("reading", found, wanted);
    compare("reading", bytes, at, wanted);
    if (bytes[wanted] != 0x5a) fail("a read of %lld bytes stores one more", (long long)wanted);
    if (!positioned) *own += wanted;
}

/* New bytes in the copy, to be brought into the file; the file may grow. */
static unsigned char *renew(off_t at, off_t length)
{
    uint64_t word = s->random ^ s->number * 0x9e3779b97f4a7c15ULL;
    unsigned char *bytes = s->copy + at;
    for (off_t i = 0; i < length; i += 8) {
        word = word * 6364136223846793005ULL + 1442695040888963407ULL;
        uint64_t mixed = word ^ word >> 29;
        memcpy(bytes + i, &mixed, (size_t)smaller(8, length - i));
    }
    s->renewed = at + length;
    if (s->renewed > s->size) s->size = s->renewed;
    return bytes;
}

static void writes(void)
{
    int number = any_slot(READ_ONLY), positioned = (int)pick(2), vector = pick(4) == 0;
    struct slot *slot = slot_at(number);
    off_t *own = &s->ofds[slot->ofd].offset;
    int appends = slot->flags & APPENDING;
    if (!appends && !positioned && (pick(2) || *own >= limit)) {
        off_t to = place();
        expect("lseek", lseek(slot->fd, to, SEEK_SET), to);
        *own = to;
    }
    off_t at = appends ? s->size : positioned ? place() : *own;
    off_t length = stretch(at);
    if (length == 0) return;
    note(appends ? "append" : positioned ? "pwrite" : "write", number, at, length);
    unsigned char *bytes = renew(at, length);
    struct iovec list[3];
    pieces(list, bytes, length);
    ssize_t written;
    if (positioned) written = vector ? pwritev(slot->fd, list, 3, at) : pwrite(slot->fd, bytes, (size_t)length, at);
    else written = vector ? writev(slot->fd, list, 3) : write(slot->fd, bytes, (size_t)length);
    expect("writing", written, length);
    if (!positioned) *own = at + length;
}

static void copies(void)
{
    off_t from = place(), to = place();
    off_t length = smaller(stretch(from), limit - to);
    if (from >= s->size || llabs(from - to) < length) return;
    length = smaller(length, s->size - from);
    int number = any_slot(READ_ONLY | APPENDING);
    note("copy_file_range", number, from, length);
    memmove(s->copy + to, s->copy + from, (size_t)length);
    if (to + length > s->size) s->size = to + length;
    off_t in = from, out = to;
    int fd = slot_at(number)->fd;
    ssize_t done = copy_file_range(slot_at(0)->fd, &in, fd, &out, (size_t)length, 0);
    if (done < 0 && (errno == EXDEV || errno == EOPNOTSUPP)) {
        s->refused[3]++;
        done = 0;
    }
    if (done < 0) fail("copy_file_range");
    /* It may copy less than it was asked for. */
    expect("copying", done + pwrite(fd, s->copy + to + done, (size_t)(length - done), to + done), length);
}

/* The whole file. */
static void verifies(void)
{
    note("verify", 0, 0, s->size);
    for (off_t at = 0;; at += LONGEST) {
        off_t wanted = at < s->size ? smaller(LONGEST, s->size - at) : 0;
        expect("reading all", pread(slot_at(0)->fd, buffer, LONGEST, at), wanted);
        compare("reading all", buffer, at, wanted);
        if (wanted < LONGEST) return;
    }
}

/* ---- size, space and name ---- */

static void resize(off_t size)
{
    if (size < s->size) memset(s->copy + size, 0, (size_t)(s->size - size));
    s->size = size;
}

static void truncates(void)
{
    /* Small files are dull: mostly near the size that it has. */
    off_t to = pick(3) == 0 ? place() : smaller(limit, s->size + (off_t)pick(40000) - smaller(20000, s->size));
    int number = any_slot(READ_ONLY), by_name = pick(4) == 0;
    note(by_name ? "truncate" : "ftruncate", number, s->size, to);
    resize(to);
    expect("truncating", by_name ? truncate(path[s->moved], to) : ftruncate(slot_at(number)->fd, to), 0);
}

/* Writes zeros where a mode of fallocate is refused. */
static void zeros(off_t at, off_t length)
{
    if (length > 0) expect("writing zeros", pwrite(slot_at(0)->fd, s->copy + at, (size_t)length, at), length);
}

static void allocates(void)
{
    static const char *names[] = {"fallocate", "keep size", "punch hole", "zero range", "zero, keep size"};
    static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    int kind = (int)pick(6), number = any_slot(READ_ONLY);
    if (kind == 5) kind = 2; /* holes are the most likely to go wrong */
    off_t at = place(), length = stretch(at), before = s->size;
    note(names[kind], number, at, length);
    if (kind >= 2 && at < s->size) memset(s->copy + at, 0, (size_t)smaller(length, s->size - at));
    if (!(modes[kind] & FALLOC_FL_KEEP_SIZE) && at + length > s->size) s->size = at + length;
    int fd = slot_at(number)->fd;
    if (kind == 0 && pick(2)) return expect("posix_fallocate", posix_fallocate(fd, at, length), 0);
    if (fallocate(fd, modes[kind], at, length) == 0) return;
    if (kind == 0 || errno != EOPNOTSUPP) fail("fallocate");
    s->refused[kind < 3 ? kind - 1 : 2]++;
    if (kind == 3) zeros(at, length);
    else if (kind != 1) zeros(at, smaller(length, before - at));
}

static void seeks(void)
{
    int number = any_slot(0);
    struct slot *slot = slot_at(number);
    off_t *own = &s->ofds[slot->ofd].offset, from = place();
    note("seek", number, from, 0);
    expect("SEEK_END", lseek(slot->fd, 0, SEEK_END), s->size);
    *own = s->size;
    if (from >= s->size) return;
    off_t data = lseek(slot->fd, from, SEEK_DATA);
    if (data < 0 && errno != ENXIO) fail("SEEK_DATA");
    if (data < 0) data = s->size;
    if (data < from || data > s->size) fail("SEEK_DATA from %lld gives %lld", (long long)from, (long long)data);
    for (off_t i = from; i < data; i++) {
        if (s->copy[i]) fail("SEEK_DATA from %lld gives %lld, but there is data at %lld", (long long)from, (long long)data, (long long)i);
    }
    off_t hole = lseek(slot->fd, from, SEEK_HOLE);
    if (hole < from || hole > s->size) fail("SEEK_HOLE from %lld gives %lld", (long long)from, (long long)hole);
    /* How coarse the answers are is the file system's choice; go on from one that is not. */
    expect("SEEK_SET", lseek(slot->fd, from, SEEK_SET), from);
    *own = from;
}

static void renames(void)
{
    note("rename", 0, s->moved, 0);
    expect("rename", rename(path[s->moved], path[!s->moved]), 0);
    s->moved = !s->moved;
    if (pick(8) == 0) expect("fsync", fsync(slot_at(0)->fd), 0);
}

/* ---- mappings ---- */

static void unmaps(struct map *map)
{
    if (map->at) expect("munmap", munmap(map->at, (size_t)map->length), 0);
    map->at = NULL;
}

static struct map *maps_anew(struct map *map)
{
    unmaps(map);
    int number = any_slot(0), writable = !(slot_at(number)->flags & READ_ONLY);
    off_t at = place() & -PAGE, length = stretch(at);
    note("mmap", number, at, length);
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *start = mmap(NULL, (size_t)length, protection, MAP_SHARED | (pick(8) ? 0 : MAP_POPULATE), slot_at(number)->fd, at);
    if (start == MAP_FAILED) fail("mmap");
    *map = (struct map){start, at, length, writable};
    return map;
}

/* How much of a mapping may be touched: up to the end of the file's last page. */
static off_t backed(const struct map *map)
{
    off_t end = (s->size + PAGE - 1) & -PAGE;
    return smaller((map->length + PAGE - 1) & -PAGE, end - map->offset);
}

static void reads_mapped(struct map *map)
{
    off_t most = backed(map);
    if (most <= 0) return;
    off_t from = pick((uint32_t)most), length = smaller(stretch(0), most - from);
    note("mapped read", (int)(map - maps), map->offset + from, length);
    compare("a mapped read", map->at + from, map->offset + from, length);
}

static void writes_mapped(struct map *map)
{
    off_t most = smaller(map->length, s->size - map->offset);
    if (most <= 0 || !map->writable) return;
    off_t from = pick((uint32_t)most), length = smaller(stretch(0), most - from), page = from & -PAGE;
    note("mapped write", (int)(map - maps), map->offset + from, length);
    memcpy(map->at + from, renew(map->offset + from, length), (size_t)length);
    if (pick(16) == 0) expect("msync", msync(map->at + page, (size_t)(from + length - page), pick(2) ? MS_SYNC : MS_ASYNC), 0);
}

static void changes_map(struct map *map)
{
    off_t length = stretch(map->offset);
    switch (pick(4)) {
    case 0:
        note("madvise", (int)(map - maps), map->offset, map->length);
        expect("madvise", madvise(map->at, (size_t)map->length, MADV_DONTNEED), 0);
        return;
    case 1:
        note("mremap", (int)(map - maps), map->offset, length);
        map->at = mremap(map->at, (size_t)map->length, (size_t)length, MREMAP_MAYMOVE);
        if (map->at == MAP_FAILED) fail("mremap");
        map->length = length;
        return;
    case 2:
        note("msync", (int)(map - maps), map->offset, map->length);
        expect("msync", msync(map->at, (size_t)map->length, MS_SYNC | MS_INVALIDATE), 0);
        return;
    default:
        note("munmap", (int)(map - maps), map->offset, map->length);
        unmaps(map);
    }
}

/* A private mapping shows the file, and what is written to it stays in it. */
static void maps_privately(void)
{
    if (s->size == 0) return;
    off_t at = (off_t)pick((uint32_t)s->size) & -PAGE, length = smaller(stretch(at), s->size - at);
    int number = any_slot(0);
    note("private map", number, at, length);
    unsigned char *start = mmap(NULL, (size_t)length, PROT_READ | PROT_WRITE, MAP_PRIVATE, slot_at(number)->fd, at);
    if (start == MAP_FAILED) fail("mmap");
    compare("a private mapping", start, at, length);
    memset(start + length / 2, 0xee, (size_t)(length - length / 2));
    expect("pread", pread(slot_at(number)->fd, buffer, (size_t)length, at), length);
    compare("reading behind a private mapping", buffer, at, length);
    expect("munmap", munmap(start, (size_t)length), 0);
}

static void uses_mappings(void)
{
    struct map *map = &maps[pick(MAPS)];
    uint32_t kind = pick(20);
    if (kind == 0) return maps_privately();
    if (!map->at || kind == 1) map = maps_anew(map);
    else if (kind == 2) return changes_map(map);
    if (kind < 11) reads_mapped(map);
    else writes_mapped(map);
}

/* ---- two processes ---- */

/* Gives the turn away; false when the other process has gone. */
static int send_turn(void)
{
    return send(turn, "t", 1, MSG_NOSIGNAL) == 1;
}

static int await_turn(void)
{
    char byte;
    ssize_t n;
    while ((n = read(turn, &byte, 1)) < 0 && errno == EINTR) {}
    return n == 1;
}

static void step(void)
{
    uint32_t kind = pick(100);
    if (mapping && kind < 30 && s->number >= s->maps_from) uses_mappings();
    else if (kind < 50) reads();
    else if (kind < 72) writes();
    else if (kind < 80) truncates();
    else if (kind < 88) allocates();
    else if (kind < 91) copies();
    else if (kind < 93) seeks();
    else if (kind < 95) reopen((int)pick(SLOTS));
    else if (kind < 97) duplicate();
    else if (kind < 98) renames();
    else verifies();
    struct stat st;
    expect("fstat", fstat(slot_at(any_slot(0))->fd, &st), 0);
    expect("st_size", st.st_size, s->size);
}

static void finish_child(void)
{
    int status;
    close(turn);
    expect("waitpid", waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) fail("the second process ended by signal %d", WTERMSIG(status));
    if (status) _exit(1); /* it has told why */
    for (int i = 0; i < SLOTS; i++) {
        if (s->slots[CHILD][i].fd >= 0) s->ofds[s->slots[CHILD][i].ofd].users--;
    }
}

__attribute__((noreturn)) static void play_second(void)
{
    while (await_turn()) {
        if (s->number >= s->total) verifies();
        else do step(); while (s->number < s->total && pick(3));
        if (!send_turn()) break;
    }
    _exit(0);
}

/* The second process begins with all descriptors and mappings of the first. */
static void start_child(void)
{
    int ends[2];
    expect("socketpair", socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    for (int i = 0; i < SLOTS; i++) {
        s->slots[CHILD][i] = s->slots[PARENT][i];
        if (s->slots[CHILD][i].fd >= 0) s->ofds[s->slots[CHILD][i].ofd].users++;
    }
    note("fork", 0, 0, 0);
    fflush(NULL);
    child = fork();
    if (child < 0) fail("fork");
    me = child == 0 ? CHILD : PARENT;
    turn = ends[me];
    close(ends[!me]);
    if (child == 0) play_second();
}

static void let_child_play(void)
{
    if (!send_turn() || !await_turn()) {
        finish_child();
        fail("the second process has gone");
    }
}

/* A new, empty file of the name, for a while without mappings: a file system may
 * treat one differently that was never mapped. */
static void begins_afresh(void)
{
    note("unlink, create", 0, 0, 0);
    for (int i = 0; i < MAPS; i++) unmaps(&maps[i]);
    for (int i = 0; i < SLOTS; i++) shut(i);
    expect("unlink", unlink(path[s->moved]), 0);
    opened(0, open(path[s->moved], O_RDWR | O_CREAT | O_EXCL, 0644), 0, 0);
    s->ofds[0].offset = 0;
    resize(0);
    s->maps_from = s->number + pick(2000);
}

/* What is done while no second process runs. */
static void plays_alone(void)
{
    if (pick(2)) return begins_afresh();
    /* Nobody has the file open: only mappings may hold it. */
    for (int i = 0; i < SLOTS; i++) shut(i);
    if (slot_at(0)->fd < 0) reopen(0);
    verifies();
}

static void play_first(void)
{
    while (s->number < s->total) {
        step();
        if (pick(3)) continue;
        if (!alone) let_child_play();
        if (pick(1000)) continue;
        if (!alone) finish_child();
        plays_alone();
        if (!alone) start_child();
    }
}

/* ---- start and end ---- */

static void options(int argc, char **argv)
{
    int option;
    long long total = 20000, most = limit;
    while ((option = getopt(argc, argv, "s:n:l:M1")) != -1) {
        switch (option) {
        case 's': seed = strtoull(optarg, NULL, 10); break;
        case 'n': total = atoll(optarg); break;
        case 'l': most = atoll(optarg); break;
        case 'M': mapping = 0; break;
        case '1': alone = 1; break;
        default: optind = argc + 1;
        }
    }
    if (optind != argc - 1 || total < 1 || most < PAGE || most > INT32_MAX) {
        fprintf(stderr, "usage: %s [-s SEED] [-n OPERATIONS] [-l LIMIT] [-M] [-1] FILE\n", argv[0]);
        exit(2);
    }
    limit = most;
    snprintf(path[0], PATH_MAX, "%s", argv[optind]);
    snprintf(path[1], PATH_MAX, "%s.moved", argv[optind]);
    size_t bytes = sizeof *s + (size_t)limit + 2 * PAGE;
    s = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED) {
        perror("fsx");
        exit(2);
    }
    s->random = seed * 2 + 1;
    s->total = (uint64_t)total;
}

int main(int argc, char **argv)
{
    options(argc, argv);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    for (int i = 0; i < SLOTS; i++) s->slots[PARENT][i].fd = -1;
    opened(0, open(path[0], O_RDWR | O_CREAT | O_TRUNC, 0644), 0, 0);
    if (!alone) start_child();
    play_first();
    verifies();
    if (!alone) {
        let_child_play();
        finish_child();
    }
    for (int i = 0; i < MAPS; i++) unmaps(&maps[i]);
    for (int i = 0; i < SLOTS; i++) shut(i);
    if (s->moved) expect("rename", rename(path[1], path[0]), 0);
    printf("fsx: seed %llu, %llu operations, %lld bytes at the end; refused: keep size %d, punch hole %d, zero range %d, copy_file_range %d\n",
           (unsigned long long)seed, (unsigned long long)s->number, (long long)s->size, s->refused[0], s->refused[1], s->refused[2], s->refused[3]);
    return 0;
}
