/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A card cannot be taken out of the machine: every machine has it at the same place, as its
 * template had. Unbinding its driver would take it away as well, at the price of a wait for all
 * processors; moving it does not wait, and the way back is the same. The namespace is made at boot,
 * that is in the template: a clone has only to move the card. It lives as long as the descriptor:
 * with the last one the kernel would put the card back into the first namespace, which is the
 * pod's.
 */
#include "agent/net/parking.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#include "common/base/cleanup.h"
#include "common/base/netlink.h"

static int open_own(int *ret_fd, struct err *err)
{
    int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_set_errno(err, errno, "/proc/self/ns/net");
    *ret_fd = fd;
    return 0;
}

static int go_back(int own_fd, struct err *err)
{
    return setns(own_fd, CLONE_NEWNET) < 0
               ? err_set_errno(err, errno, "return to the pod's network namespace")
               : 0;
}

/* A new namespace, without staying in it. */
static int make_namespace(int own_fd, int *ret_fd, struct err *err)
{
    cleanup_fd int fd = -1;

    if (unshare(CLONE_NEWNET) < 0)
        return err_set_errno(err, errno, "network namespace");
    int result = open_own(&fd, err);
    if (go_back(own_fd, err) < 0 || result < 0)
        return -1;
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* A socket that speaks with another namespace. */
static int open_there(int own_fd, int ns_fd, int *ret_fd, struct err *err)
{
    cleanup_fd int fd = -1;

    if (setns(ns_fd, CLONE_NEWNET) < 0)
        return err_set_errno(err, errno, "enter a network namespace");
    int result = netlink_open(&fd, err);
    if (go_back(own_fd, err) < 0 || result < 0)
        return -1;
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int move(int fd, int ifindex, int to_ns_fd, struct err *err)
{
    const struct ifinfomsg head = {.ifi_index = ifindex};
    struct netlink_message m;

    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    netlink_put_u32(&m, IFLA_NET_NS_FD, (uint32_t)to_ns_fd);
    return netlink_do(fd, &m, err);
}

void parking_init(struct parking *parking)
{
    *parking = (struct parking){.ns_fd = -1};
}

int parking_make(struct parking *parking, struct err *err)
{
    cleanup_fd int own_fd = -1;

    if (parking->ns_fd >= 0)
        return 0;
    return open_own(&own_fd, err) < 0 ? -1 : make_namespace(own_fd, &parking->ns_fd, err);
}

void parking_fini(struct parking *parking)
{
    close_fd(&parking->ns_fd);
}

int parking_put(struct parking *parking, const struct ifind *card, struct err *err)
{
    cleanup_fd int fd = -1;

    if (parking->name[0] != '\0')
        return err_set(err, ERR_BAD_STATE, "'%s' is out of sight already", parking->name);
    if (parking_make(parking, err) < 0 || netlink_open(&fd, err) < 0 ||
        move(fd, card->ifindex, parking->ns_fd, err) < 0)
        return err_prefix(err, "put '%s' out of sight", card->name);
    (void)snprintf(parking->name, sizeof(parking->name), "%s", card->name);
    return 0;
}

int parking_take(struct parking *parking, struct err *err)
{
    cleanup_fd int own_fd = -1, fd = -1;
    struct ifind card;

    if (parking->name[0] == '\0')
        return 0;
    if (open_own(&own_fd, err) < 0 || open_there(own_fd, parking->ns_fd, &fd, err) < 0 ||
        ifind_by_name(fd, parking->name, &card, err) < 0 || move(fd, card.ifindex, own_fd, err) < 0)
        return err_prefix(err, "bring '%s' back", parking->name);
    parking->name[0] = '\0';
    return 0;
}
