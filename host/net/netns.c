/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A thread's network namespace is the thread's own, so whatever has to happen
 * in one happens on a thread that is made for it and never comes back: no thread of the daemon can
 * be left in a pod's namespace by an error path. A socket belongs to the namespace in which it was
 * made, so most work needs such a thread for its socket only.
 *
 * A namespace lives as long as its bind mount. Mount namespaces that were copied meanwhile (each
 * QEMU has one) hold copies of that mount; unlink(2) of the file detaches those as well, once it is
 * no mount point in our own namespace any more.
 */
#include "host/net/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/base/cleanup.h"

#define NSFS_FILE_SYSTEM 0x6e736673 /* NSFS_MAGIC of linux/magic.h */

/* ---- a thread for it ---- */

struct errand {
    int netns_fd; /* -1: a new one */
    int (*fn)(void *arg, struct err *err);
    void *arg;
    struct err *err;
    int result;
};

static void *errand_main(void *arg)
{
    struct errand *e = arg;

    if (e->netns_fd < 0) {
        if (unshare(CLONE_NEWNET) != 0) {
            e->result = err_set_errno(e->err, errno, "new network namespace");
            return NULL;
        }
    } else if (setns(e->netns_fd, CLONE_NEWNET) != 0) {
        e->result = err_set_errno(e->err, errno, "enter the network namespace");
        return NULL;
    }
    e->result = e->fn(e->arg, e->err);
    return NULL;
}

static int run_errand(struct errand *e)
{
    sigset_t all, old;
    pthread_t thread;
    int error;

    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&thread, NULL, errand_main, e);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error != 0)
        return err_set_errno(e->err, error, "start a thread");
    (void)pthread_join(thread, NULL);
    return e->result;
}

int netns_run(int netns_fd, int (*fn)(void *arg, struct err *err), void *arg, struct err *err)
{
    struct errand e = {.netns_fd = netns_fd, .fn = fn, .arg = arg, .err = err, .result = -1};

    return run_errand(&e);
}

struct socket_errand {
    int domain;
    int type;
    int protocol;
    int fd;
};

static int make_socket(void *arg, struct err *err)
{
    struct socket_errand *s = arg;

    s->fd = socket(s->domain, s->type | SOCK_CLOEXEC, s->protocol);
    return s->fd < 0 ? err_set_errno(err, errno, "socket") : 0;
}

int netns_socket(int netns_fd, int domain, int type, int protocol, int *ret_fd, struct err *err)
{
    struct socket_errand s = {.domain = domain, .type = type, .protocol = protocol, .fd = -1};

    if (netns_run(netns_fd, make_socket, &s, err) != 0)
        return -1;
    *ret_fd = s.fd;
    return 0;
}

/* ---- its path ---- */

static int loopback_up(struct err *err)
{
    cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) != 0)
        return err_set_errno(err, errno, "set lo up");
    return 0;
}

static int bind_here(void *arg, struct err *err)
{
    const char *path = arg;

    if (loopback_up(err) != 0)
        return -1;
    if (mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL) != 0)
        return err_set_errno(err, errno, "bind a network namespace to '%s'", path);
    return 0;
}

int netns_make(const char *path, struct err *err)
{
    struct errand e = {.netns_fd = -1, .fn = bind_here, .err = err, .result = -1};
    cleanup_fd int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    union {
        const char *in;
        void *out;
    } arg = {.in = path};

    if (fd < 0)
        return err_set_errno(err, errno, "make '%s'", path);
    e.arg = arg.out;
    if (run_errand(&e) != 0) {
        (void)unlink(path);
        return -1;
    }
    return 0;
}

int netns_open(const char *path, int *ret_fd, struct err *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct statfs fs;

    if (fd < 0)
        return err_set_errno(err, errno, "open network namespace '%s'", path);
    if (fstatfs(fd, &fs) != 0)
        return err_set_errno(err, errno, "statfs '%s'", path);
    if (fs.f_type != NSFS_FILE_SYSTEM)
        return err_set(err, ERR_NOT_FOUND, "'%s' is not a network namespace any more", path);
    *ret_fd = steal_fd(&fd);
    return 0;
}

int netns_remove(const char *path, struct err *err)
{
    /* EINVAL: an unmounted leftover. */
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL && errno != ENOENT)
        return err_set_errno(err, errno, "unmount '%s'", path);
    if (unlink(path) != 0 && errno != ENOENT)
        return err_set_errno(err, errno, "remove '%s'", path);
    return 0;
}
