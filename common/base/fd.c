/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unix socket paths are limited to 107 bytes by the kernel, while state folders may be deeper: both
 * unix socket calls go through /proc/self/fd/N of the parent directory, so that only the last
 * component counts.
 *
 * A tree that is removed may have been made to be hard to remove: however deep it is, it takes no
 * more than so many descriptors and so much stack.
 */
#include "common/base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"

int fd_write_all(int fd, const void *bytes, size_t n, struct err *err)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0) {
            if (errno == EINTR)
                continue;
            return err_set_errno(err, errno, "write");
        }
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

int fd_read_full(int fd, void *ret_bytes, size_t n, size_t *ret_n, struct err *err)
{
    char *p = ret_bytes;
    size_t got = 0;
    while (got < n) {
        ssize_t r = read(fd, p + got, n - got);
        if (r < 0) {
            if (errno == EINTR)
                continue;
            return err_set_errno(err, errno, "read");
        }
        if (r == 0)
            break;
        got += (size_t)r;
    }
    *ret_n = got;
    return 0;
}

int fd_set_nonblock(int fd, struct err *err)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return err_set_errno(err, errno, "set O_NONBLOCK");
    return 0;
}

int fd_read_file(int dir_fd, const char *path, size_t max, char **ret_text, size_t *ret_len,
                 struct err *err)
{
    cleanup_fd int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return err_set_errno(err, errno, "open '%s'", path);

    /* st_size means nothing in /proc: grow as it comes, one byte beyond max to see whether there is
     * more. */
    cleanup_free char *text = NULL;
    size_t len = 0, room = 0;
    for (;;) {
        if (len == room) {
            size_t want = room == 0 ? 4096 : room * 2;
            if (want > max + 1)
                want = max + 1;
            if (want == room)
                return err_set(err, ERR_EXHAUSTED, "'%s' is larger than %zu bytes", path, max);
            char *p = realloc(text, want + 1);
            if (p == NULL)
                return err_no_memory(err);
            text = p;
            room = want;
        }
        size_t n = 0;
        if (fd_read_full(fd, text + len, room - len, &n, err) < 0)
            return err_prefix(err, "'%s'", path);
        len += n;
        if (len < room)
            break;
    }
    if (len > max)
        return err_set(err, ERR_EXHAUSTED, "'%s' is larger than %zu bytes", path, max);
    text[len] = '\0';
    *ret_text = steal_ptr(&text);
    if (ret_len != NULL)
        *ret_len = len;
    return 0;
}

int fd_write_file_atomic(int dir_fd, const char *path, const void *bytes, size_t n, mode_t mode,
                         struct err *err)
{
    char nonce[17];
    text_random_hex(8, nonce);
    cleanup_free char *tmp = text_printf("%s.%s.tmp", path, nonce);
    if (tmp == NULL)
        return err_no_memory(err);
    cleanup_fd int fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return err_set_errno(err, errno, "create '%s'", tmp);
    int r = fd_write_all(fd, bytes, n, err);
    if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
        r = err_set_errno(err, errno, "sync '%s'", tmp);
    if (r == 0 && renameat(dir_fd, tmp, dir_fd, path) < 0)
        r = err_set_errno(err, errno, "rename '%s' to '%s'", tmp, path);
    if (r < 0)
        (void)unlinkat(dir_fd, tmp, 0);
    return r;
}

int fd_write_text(int dir_fd, const char *path, const char *text, struct err *err)
{
    cleanup_fd int fd = openat(dir_fd, path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return err_set_errno(err, errno, "open '%s'", path);
    size_t n = strlen(text);
    ssize_t w;
    do {
        w = write(fd, text, n);
    } while (w < 0 && errno == EINTR);
    if (w < 0)
        return err_set_errno(err, errno, "write '%s' to '%s'", text, path);
    if ((size_t)w != n)
        return err_set(err, ERR_SYSTEM, "write to '%s' was cut short", path);
    return 0;
}

int fd_make_dirs(const char *path, mode_t mode, struct err *err)
{
    char copy[PATH_MAX]; /* not the heap: also called between fork and exec */
    size_t len = strlen(path);
    if (len >= sizeof(copy))
        return err_set_errno(err, ENAMETOOLONG, "make directory '%.64s...'", path);
    memcpy(copy, path, len + 1);
    for (char *p = copy + 1; *copy != '\0'; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char was = *p;
        *p = '\0';
        if (mkdir(copy, mode) < 0 && errno != EEXIST)
            return err_set_errno(err, errno, "make directory '%s'", copy);
        *p = was;
        if (was == '\0')
            break;
    }
    return 0;
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Removes an entry unless it is a directory with something in it: then that is opened as *ret_sub,
 * else -1. */
static int remove_entry(int dir_fd, const char *name, dev_t dev, int *ret_sub, struct err *err)
{
    struct stat st;
    if (unlinkat(dir_fd, name, 0) == 0 || unlinkat(dir_fd, name, AT_REMOVEDIR) == 0) {
        *ret_sub = -1;
        return 0;
    }
    /* One that is bound there has the same st_dev. */
    bool is_mounted = errno == EBUSY;
    cleanup_fd int sub = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (sub < 0 || fstat(sub, &st) < 0)
        return err_set_errno(err, errno, "remove '%s'", name);
    if (is_mounted || st.st_dev != dev)
        return err_set(err, ERR_BAD_STATE, "'%s' is a mount point, not removed", name);
    *ret_sub = steal_fd(&sub);
    return 0;
}

/* Removes entries of a directory until there are none, or one is a directory with something in it,
 * which is *ret_sub then, else -1. */
static int remove_leaves(int fd, dev_t dev, int *ret_sub, struct err *err)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (dir == NULL) {
        int e = errno;
        close_fd(&copy);
        return err_set_errno(err, e, "read directory");
    }
    int r = 0, sub = -1;
    struct dirent *e;
    while (r == 0 && sub < 0 && (e = readdir(dir)) != NULL) {
        if (!is_dots(e->d_name))
            r = remove_entry(fd, e->d_name, dev, &sub, err);
    }
    (void)closedir(dir);
    if (r == 0)
        *ret_sub = sub;
    return r;
}

/* Where a walk has come down, from the top: 8 bytes a directory. All are on one device. */
struct trail {
    ino_t *inodes;
    size_t n, room;
};

static int trail_push(struct trail *t, ino_t inode, struct err *err)
{
    if (t->n == t->room) {
        size_t room = t->room == 0 ? 64 : t->room * 2;
        ino_t *inodes = reallocarray(t->inodes, room, sizeof(*inodes));
        if (inodes == NULL)
            return err_no_memory(err);
        t->inodes = inodes;
        t->room = room;
    }
    t->inodes[t->n++] = inode;
    return 0;
}

/* From a directory to its parent, if that is still the one that the walk has come from. */
static int ascend(int *fd, dev_t dev, ino_t inode, struct err *err)
{
    struct stat st;
    cleanup_fd int up = openat(*fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (up < 0 || fstat(up, &st) < 0)
        return err_set_errno(err, errno, "go back to a directory");
    if (st.st_dev != dev || st.st_ino != inode)
        return err_set(err, ERR_BAD_STATE, "a directory was moved while it was being removed");
    close_fd(fd);
    *fd = steal_fd(&up);
    return 0;
}

/*
 * Empties the directory behind fd (which it takes), however deep it is: with one directory open at
 * a time. Coming back to one means to read it from the start, where the one just emptied is
 * removable; if it is not, something else is wrong with it.
 */
static int remove_deep(int fd, dev_t dev, struct err *err)
{
    cleanup_fd int at = fd;
    struct trail trail = {0};
    ino_t emptied = 0;
    int r = 0;
    for (;;) {
        struct stat st, sub_st;
        cleanup_fd int sub = -1;
        r = remove_leaves(at, dev, &sub, err);
        if (r < 0 || (sub < 0 && trail.n == 0))
            break;
        if (fstat(at, &st) < 0 || (sub >= 0 && fstat(sub, &sub_st) < 0)) {
            r = err_set_errno(err, errno, "stat a directory");
        } else if (sub < 0) {
            emptied = st.st_ino;
            r = ascend(&at, dev, trail.inodes[--trail.n], err);
        } else if (sub_st.st_ino == emptied) {
            r = err_set_errno(err, ENOTEMPTY, "remove a directory that was emptied");
        } else {
            r = trail_push(&trail, st.st_ino, err);
            close_fd(&at);
            at = steal_fd(&sub);
        }
        if (r < 0)
            break;
    }
    free(trail.inodes);
    return r;
}

/* Empties the directory behind fd (which it takes) as far as it can. A tree as people make them
 * gets by with `depth`, and each directory is read once. */
static int remove_entries(int fd, dev_t dev, unsigned depth, struct err *err)
{
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        int e = errno;
        (void)close(fd);
        return err_set_errno(err, e, "read directory");
    }
    int r = 0;
    struct dirent *e;
    while (r == 0 && (e = readdir(dir)) != NULL) {
        int sub = -1;
        if (is_dots(e->d_name))
            continue;
        r = remove_entry(dirfd(dir), e->d_name, dev, &sub, err);
        if (r < 0 || sub < 0)
            continue;
        r = depth == 0 ? remove_deep(sub, dev, err) : remove_entries(sub, dev, depth - 1, err);
        if (r == 0 && unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR) < 0)
            r = err_set_errno(err, errno, "remove '%s'", e->d_name);
    }
    (void)closedir(dir);
    return r;
}

int fd_remove_tree(int dir_fd, const char *path, struct err *err)
{
    enum { SHALLOW = 64 };
    int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT || unlinkat(dir_fd, path, 0) == 0)
            return 0;
        return err_set_errno(err, errno, "remove '%s'", path);
    }
    struct stat st;
    if (fstat(fd, &st) < 0) {
        int e = errno;
        (void)close(fd);
        return err_set_errno(err, e, "stat '%s'", path);
    }
    if (remove_entries(fd, st.st_dev, SHALLOW, err) < 0)
        return err_prefix(err, "'%s'", path);
    if (unlinkat(dir_fd, path, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return err_set_errno(err, errno, "remove '%s'", path);
    return 0;
}

int fd_send(int socket_fd, int fd, struct err *err)
{
    char byte = 'F';
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    ssize_t n;
    do {
        n = sendmsg(socket_fd, &msg, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : err_set_errno(err, errno, "send a descriptor");
}

int fd_receive(int socket_fd, int *ret_fd, struct err *err)
{
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    ssize_t n;
    do {
        n = recvmsg(socket_fd, &msg, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_set_errno(err, errno, "receive a descriptor");
    struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (c == NULL || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
        c->cmsg_len != CMSG_LEN(sizeof(int)))
        return err_set(err, ERR_PROTOCOL, "expected a descriptor, none came");
    memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
    return 0;
}

/* Opens path's directory and makes an address of "/proc/self/fd/<dir>/<name>" that holds while
 * *ret_dir is open. */
static int unix_address(const char *path, struct sockaddr_un *ret_addr, int *ret_dir,
                        struct err *err)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    cleanup_free char *parent =
        slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (parent == NULL)
        return err_no_memory(err);
    cleanup_fd int dir = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_set_errno(err, errno, "open '%s'", parent);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int n = snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/%s", dir, name);
    if (*name == '\0' || n < 0 || (size_t)n >= sizeof(addr.sun_path))
        return err_set(err, ERR_INVALID, "'%s' does not do as a socket path", path);
    *ret_addr = addr;
    *ret_dir = steal_fd(&dir);
    return 0;
}

int fd_listen_unix(const char *path, mode_t mode, int *ret_fd, struct err *err)
{
    struct sockaddr_un addr;
    cleanup_fd int dir = -1;
    if (unix_address(path, &addr, &dir, err) < 0)
        return -1;
    cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set_errno(err, errno, "unix socket");
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        (void)unlink(path);
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return err_set_errno(err, errno, "bind '%s'", path);
    if (chmod(path, mode) < 0 || listen(fd, SOMAXCONN) < 0)
        return err_set_errno(err, errno, "listen on '%s'", path);
    *ret_fd = steal_fd(&fd);
    return 0;
}

int fd_connect_unix(const char *path, int *ret_fd, struct err *err)
{
    struct sockaddr_un addr;
    cleanup_fd int dir = -1;
    if (unix_address(path, &addr, &dir, err) < 0)
        return -1;
    cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set_errno(err, errno, "unix socket");
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return err_set_errno(err, errno, "connect to '%s'", path);
    *ret_fd = steal_fd(&fd);
    return 0;
}
