/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap belongs to the network namespace of the thread that opened /dev/net/tun, so a thread made
 * for it goes there and ends; no thread of the daemon ever leaves its namespace. All these taps
 * share one namespace, which is made with the first and lives until the vmm and the last tap of it
 * are gone: the interfaces are down, so nothing can be sent from one to another.
 */
#include "host/vmm/deadend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/base/cleanup.h"
#include "host/vmm/internal.h"

struct opening {
    int ns_fd; /* -1: a new namespace is wanted, and put here */
    int tap_fd;
    int result;
    struct err err;
};

static int enter(struct opening *o, struct err *err)
{
    if (o->ns_fd >= 0)
        return setns(o->ns_fd, CLONE_NEWNET) < 0 ? err_set_errno(err, errno, "setns") : 0;
    if (unshare(CLONE_NEWNET) < 0)
        return err_set_errno(err, errno, "network namespace");
    o->ns_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return o->ns_fd < 0 ? err_set_errno(err, errno, "/proc/thread-self/ns/net") : 0;
}

static int open_tap(int *ret_fd, struct err *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    cleanup_fd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return err_set_errno(err, errno, "/dev/net/tun");
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        return err_set_errno(err, errno, "tap");
    *ret_fd = steal_fd(&fd);
    return 0;
}

static void *run(void *arg)
{
    struct opening *o = arg;

    o->result = enter(o, &o->err) < 0 || open_tap(&o->tap_fd, &o->err) < 0 ? -1 : 0;
    return NULL;
}

int deadend_open(struct vmm *vmm, int *ret_fd, struct err *err)
{
    struct opening o = {.tap_fd = -1};
    pthread_t thread;

    pthread_mutex_lock(&vmm->deadend_lock);
    o.ns_fd = vmm->deadend_ns;
    int e = pthread_create(&thread, NULL, run, &o);
    if (e == 0)
        (void)pthread_join(thread, NULL);
    vmm->deadend_ns = o.ns_fd;
    pthread_mutex_unlock(&vmm->deadend_lock);
    if (e != 0)
        return err_set_errno(err, e, "thread");
    if (o.result < 0) {
        if (err != NULL)
            *err = o.err;
        return -1;
    }
    *ret_fd = o.tap_fd;
    return 0;
}
