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
#include <linux/rtnetlink.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/base/cleanup.h"
#include "common/base/netlink.h"
#include "host/vmm/internal.h"

struct errand {
    int ns_fd; /* -1: a new namespace is wanted, and put here */
    int (*fn)(struct errand *e, struct err *err);
    int *tap_fds;
    uint32_t n_fds;
    char name[DEADEND_NAME_SIZE];
    int to_ns_fd;
    const char *new_name;
    int ifindex;
    int result;
    struct err err;
};

static int enter(struct errand *e, struct err *err)
{
    if (e->ns_fd >= 0)
        return setns(e->ns_fd, CLONE_NEWNET) < 0 ? err_set_errno(err, errno, "setns") : 0;
    if (unshare(CLONE_NEWNET) < 0)
        return err_set_errno(err, errno, "network namespace");
    e->ns_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return e->ns_fd < 0 ? err_set_errno(err, errno, "/proc/thread-self/ns/net") : 0;
}

static void *run(void *arg)
{
    struct errand *e = arg;

    e->result = enter(e, &e->err) < 0 || e->fn(e, &e->err) < 0 ? -1 : 0;
    return NULL;
}

/* On a thread in the namespace. */
static int run_there(struct vmm *vmm, struct errand *e, struct err *err)
{
    pthread_t thread;

    pthread_mutex_lock(&vmm->deadend_lock);
    e->ns_fd = vmm->deadend_ns;
    int error = pthread_create(&thread, NULL, run, e);
    if (error == 0)
        (void)pthread_join(thread, NULL);
    vmm->deadend_ns = e->ns_fd;
    pthread_mutex_unlock(&vmm->deadend_lock);
    if (error != 0)
        return err_set_errno(err, error, "thread");
    if (e->result < 0 && err != NULL)
        *err = e->err;
    return e->result;
}

/* The first queue makes the tap and finds out its name, by which the others join it. */
static int open_queue(struct errand *e, int *ret_fd, struct err *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    cleanup_fd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return err_set_errno(err, errno, "/dev/net/tun");
    if (e->n_fds > 1)
        request.ifr_flags |= IFF_MULTI_QUEUE;
    memcpy(request.ifr_name, e->name, sizeof(e->name));
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        return err_set_errno(err, errno, "tap");
    request.ifr_name[DEADEND_NAME_SIZE - 1] = '\0';
    memcpy(e->name, request.ifr_name, sizeof(e->name));
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int open_tap(struct errand *e, struct err *err)
{
    for (uint32_t i = 0; i < e->n_fds; i++) {
        if (open_queue(e, &e->tap_fds[i], err) < 0) {
            while (i-- > 0)
                close_fd(&e->tap_fds[i]);
            return -1;
        }
    }
    return 0;
}

int deadend_open(struct vmm *vmm, uint32_t n, int *ret_fds, char ret_name[DEADEND_NAME_SIZE],
                 struct err *err)
{
    struct errand e = {.fn = open_tap, .tap_fds = ret_fds, .n_fds = n};

    if (run_there(vmm, &e, err) < 0)
        return -1;
    memcpy(ret_name, e.name, sizeof(e.name));
    return 0;
}

static int take_index(void *arg, const struct nlmsghdr *message, struct err *err)
{
    struct errand *e = arg;
    const struct nlattr *attrs[IFLA_IFNAME + 1];
    struct ifinfomsg head;

    if (netlink_attrs(message, sizeof(head), IFLA_IFNAME, attrs) < 0)
        return err_set(err, ERR_PROTOCOL, "the kernel's answer is no interface");
    memcpy(&head, NLMSG_DATA(message), sizeof(head));
    e->ifindex = head.ifi_index;
    return 0;
}

static int move_tap(struct errand *e, struct err *err)
{
    struct ifinfomsg head = {.ifi_family = AF_UNSPEC};
    struct netlink_message m;
    cleanup_fd int fd = -1;

    if (netlink_open(&fd, err) < 0)
        return -1;
    netlink_begin(&m, RTM_GETLINK, 0, &head, sizeof(head));
    netlink_put_text(&m, IFLA_IFNAME, e->name);
    if (netlink_ask(fd, &m, take_index, e, err) < 0)
        return err_prefix(err, "tap '%s'", e->name);
    head.ifi_index = e->ifindex;
    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    netlink_put_u32(&m, IFLA_NET_NS_FD, (uint32_t)e->to_ns_fd);
    netlink_put_text(&m, IFLA_IFNAME, e->new_name);
    if (netlink_do(fd, &m, err) < 0)
        return err_prefix(err, "move tap '%s'", e->name);
    return 0;
}

int deadend_move(struct vmm *vmm, const char *name, int netns_fd, const char *new_name,
                 struct err *err)
{
    struct errand e = {.fn = move_tap, .to_ns_fd = netns_fd, .new_name = new_name};

    memcpy(e.name, name, strlen(name) + 1);
    return run_there(vmm, &e, err);
}
