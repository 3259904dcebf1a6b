/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. All interfaces are found first, by place or by MAC address, since finding
 * and naming get in each other's way: an interface may have the name that another one is to get, so
 * every one whose name is to change is renamed to something unlikely before it gets its own.
 *
 * Then each in turn: MAC, name and MTU while it is down (not every kernel renames what is up), up,
 * addresses, neighbours, routes. Its own IPv6 address (fe80::…) is not checked for duplicates, like
 * the others, so that nothing waits a second for it.
 *
 * To wait for an interface, changes of links are listened to before the first look.
 *
 * A pod with a user namespace has a network namespace of its own, which no card appears in: each is
 * looked and waited for where it does, and fetched. sysfs shows the interfaces of the namespace in
 * which it was mounted, so there is a second one.
 *
 * Pods start by cloning a template, and what the template has done no clone has to do. So the one
 * card that every VM has is brought up at boot: its queues are filled, its settings made. Up it
 * would get an IPv6 address of its template's MAC address and announce it; therefore it is told to
 * make none, and gets that address, too, when its MAC address is known. The first configuration
 * needs not look for it nor read what it has.
 */
#include "agent/net/network.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/netlink.h"
#include "agent/init/sysctl.h"
#include "agent/net/ifaddr.h"
#include "agent/net/ifind.h"
#include "agent/net/netvalid.h"

/* Linux's IN6_ADDR_GEN_MODE_* (linux/if_link.h clashes with net/if.h in some releases). */
#define GENERATE_FROM_MAC 0
#define GENERATE_NONE     1

/* sysfs of the pod's own network namespace. */
#define INSIDE_SYSFS "/run/casemate/sysfs"

typedef Casemate__Agent__V1__NetInterface Interface;

/* ---- finding -------------------------------------------------------------------------------- */

static int find_in(const char *class_dir, int fd, const Interface *wanted, struct ifind *ret,
                   struct err *err)
{
    return wanted->pci_slot != 0 ? ifind_by_slot(fd, class_dir, wanted->pci_slot, ret, err)
                                 : ifind_by_mac(fd, wanted->mac.data, ret, err);
}

static int find(int fd, const Interface *wanted, struct ifind *ret, struct err *err)
{
    return find_in(IFIND_CLASS, fd, wanted, ret, err);
}

static int listen_to_links(int *ret_fd, struct err *err)
{
    const struct sockaddr_nl links = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    cleanup_fd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

    if (fd < 0 || bind(fd, (const struct sockaddr *)&links, sizeof(links)) < 0)
        return err_set_errno(err, errno, "listen to changes of interfaces");
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* Takes everything that has come; what it says does not matter. */
static void drain(int fd)
{
    char bytes[8192];

    while (recv(fd, bytes, sizeof(bytes), 0) > 0 || errno == ENOBUFS || errno == EINTR)
        continue;
}

static int find_in_time(int fd, const Interface *wanted, int64_t deadline_ms, struct ifind *ret,
                        struct err *err)
{
    cleanup_fd int changes = -1;
    struct err why;

    if (find(fd, wanted, ret, &why) == 0)
        return 0;
    if (listen_to_links(&changes, err) < 0)
        return -1;
    while (find(fd, wanted, ret, &why) < 0) {
        struct pollfd p = {.fd = changes, .events = POLLIN};
        if (why.code != ERR_NOT_FOUND || clock_monotonic_ms() >= deadline_ms) {
            if (err != NULL)
                *err = why;
            return -1;
        }
        (void)poll(&p, 1, clock_poll_timeout(deadline_ms));
        drain(changes);
    }
    return 0;
}

/* ---- one interface's link ------------------------------------------------------------------- */

static int set_flags(int fd, int ifindex, unsigned int flags, unsigned int change, struct err *err)
{
    const struct ifinfomsg head = {.ifi_index = ifindex, .ifi_flags = flags, .ifi_change = change};
    struct netlink_message m;

    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    return netlink_do(fd, &m, err);
}

/* *ret_fd: a netlink socket of the namespace, for what follows. */
static int loopback_up(int *ret_fd, struct err *err)
{
    cleanup_fd int fd = -1;
    struct ifind lo;

    if (netlink_open(&fd, err) < 0 || ifind_by_name(fd, "lo", &lo, err) < 0 ||
        set_flags(fd, lo.ifindex, IFF_UP, IFF_UP, err) < 0)
        return -1;
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int set_name(int fd, struct ifind *is, const char *name, struct err *err)
{
    const struct ifinfomsg head = {.ifi_index = is->ifindex};
    struct netlink_message m;

    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    netlink_put_text(&m, IFLA_IFNAME, name);
    if (netlink_do(fd, &m, err) < 0)
        return err_prefix(err, "name it '%s'", name);
    (void)snprintf(is->name, sizeof(is->name), "%s", name);
    return 0;
}

static int take_down(int fd, struct ifind *is, struct err *err)
{
    if ((is->flags & IFF_UP) == 0)
        return 0;
    if (set_flags(fd, is->ifindex, 0, IFF_UP, err) < 0)
        return err_prefix(err, "take it down");
    is->flags &= ~(unsigned int)IFF_UP;
    return 0;
}

/* Gives up the name that it has, for whoever is to get it. */
static int make_room(int fd, const Interface *wanted, struct ifind *is, struct err *err)
{
    char name[IFNAMSIZ];

    if (strcmp(is->name, wanted->name) == 0)
        return 0;
    (void)snprintf(name, sizeof(name), "tmp%d", is->ifindex);
    return take_down(fd, is, err) < 0 ? -1 : set_name(fd, is, name, err);
}

static int set_mac(int fd, const Interface *wanted, struct ifind *is, struct err *err)
{
    const struct ifinfomsg head = {.ifi_index = is->ifindex};
    struct netlink_message m;

    if (memcmp(is->mac, wanted->mac.data, sizeof(is->mac)) == 0)
        return 0;
    /* Its own IPv6 address is made of the MAC address when it goes up. */
    if (take_down(fd, is, err) < 0)
        return -1;
    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    netlink_put(&m, IFLA_ADDRESS, wanted->mac.data, wanted->mac.len);
    return netlink_do(fd, &m, err) < 0 ? err_prefix(err, "set its MAC address") : 0;
}

static int set_mtu(int fd, const Interface *wanted, const struct ifind *is, struct err *err)
{
    const struct ifinfomsg head = {.ifi_index = is->ifindex};
    struct netlink_message m;

    if (wanted->mtu == 0 || wanted->mtu == is->mtu)
        return 0;
    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    netlink_put_u32(&m, IFLA_MTU, wanted->mtu);
    return netlink_do(fd, &m, err) < 0 ? err_prefix(err, "set its MTU to %u", wanted->mtu) : 0;
}

static void put_generation(struct netlink_message *m, uint8_t mode)
{
    size_t spec = netlink_nest(m, IFLA_AF_SPEC);
    size_t inet6 = netlink_nest(m, AF_INET6);

    netlink_put_u8(m, IFLA_INET6_ADDR_GEN_MODE, mode);
    netlink_nest_end(m, inet6);
    netlink_nest_end(m, spec);
}

/* How it makes an IPv6 address of its own when it goes up. EAFNOSUPPORT: there is no IPv6. */
static int set_generation(int fd, int ifindex, uint8_t mode, struct err *err)
{
    const struct ifinfomsg head = {.ifi_index = ifindex};
    struct netlink_message m;

    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    put_generation(&m, mode);
    return netlink_do(fd, &m, err);
}

/* A kernel without IPv6 has nothing to set. */
static void skip_duplicate_detection(const char *name)
{
    char path[64 + IFNAMSIZ];
    struct err ignored;

    (void)snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/accept_dad", name);
    (void)fd_write_text(AT_FDCWD, path, "0", &ignored);
}

/* Takes the name from an interface that nobody configures: the one that a machine made ahead was
 * born with leads nowhere. */
static int free_name(int fd, const char *name, struct err *err)
{
    struct ifind other;
    char unused[IFNAMSIZ];
    struct err ignored;

    if (ifind_by_name(fd, name, &other, &ignored) < 0)
        return 0;
    (void)snprintf(unused, sizeof(unused), "unused%d", other.ifindex % 1000000);
    return take_down(fd, &other, err) < 0 ? -1 : set_name(fd, &other, unused, err);
}

static int bring_up(int fd, const Interface *wanted, struct ifind *is, struct err *err)
{
    if (set_mac(fd, wanted, is, err) < 0 ||
        (strcmp(is->name, wanted->name) != 0 &&
         (free_name(fd, wanted->name, err) < 0 || set_name(fd, is, wanted->name, err) < 0)) ||
        set_mtu(fd, wanted, is, err) < 0)
        return -1;
    if ((is->flags & IFF_UP) != 0)
        return 0;
    struct err ignored;
    (void)set_generation(fd, is->ifindex, GENERATE_FROM_MAC, &ignored);
    skip_duplicate_detection(is->name);
    return set_flags(fd, is->ifindex, IFF_UP, IFF_UP, err) < 0 ? err_prefix(err, "bring it up") : 0;
}

/* ---- fetching ------------------------------------------------------------------------------- */

int network_leave(struct network_card *card, struct err *err)
{
    if (card->outside_ns >= 0)
        return 0;
    card->outside_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    return card->outside_ns < 0 ? err_set_errno(err, errno, "open the network namespace") : 0;
}

int network_arrive(struct network_card *card, struct err *err)
{
    cleanup_fd int fd = -1;

    card->ready = false;
    if (mkdir(INSIDE_SYSFS, 0700) < 0 && errno != EEXIST)
        return err_set_errno(err, errno, "make %s", INSIDE_SYSFS);
    if (mount("sysfs", INSIDE_SYSFS, "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return err_set_errno(err, errno, "mount %s", INSIDE_SYSFS);
    return loopback_up(&fd, err) < 0 ? err_prefix(err, "loopback") : 0;
}

const char *network_class_dir(const struct network_card *card)
{
    return card->outside_ns < 0 ? IFIND_CLASS : INSIDE_SYSFS "/class/net";
}

/* Under a name that nothing has: it may be taken already where the card goes. */
static int move_link(int fd, const struct ifind *is, int to_ns, struct err *err)
{
    const struct ifinfomsg head = {.ifi_index = is->ifindex};
    struct netlink_message m;
    char name[IFNAMSIZ];

    (void)snprintf(name, sizeof(name), "in%d", is->ifindex);
    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    netlink_put_u32(&m, IFLA_NET_NS_FD, (uint32_t)to_ns);
    netlink_put_text(&m, IFLA_IFNAME, name);
    return netlink_do(fd, &m, err) < 0 ? err_prefix(err, "take it into the pod's network") : 0;
}

/* In the namespace in which cards appear. */
static int fetch_from(const Interface *wanted, int to_ns, int64_t deadline_ms, struct err *err)
{
    struct ifind is;
    cleanup_fd int fd = -1;

    if (netlink_open(&fd, err) < 0 || find_in_time(fd, wanted, deadline_ms, &is, err) < 0)
        return -1;
    if ((is.flags & IFF_UP) != 0 && set_flags(fd, is.ifindex, 0, IFF_UP, err) < 0)
        return err_prefix(err, "take it down");
    return move_link(fd, &is, to_ns, err);
}

/* For a child: after a failure it may be in the other namespace. */
static int fetch(int fd, const Interface *wanted, int outside_ns, int64_t deadline_ms,
                 struct ifind *ret, struct err *err)
{
    struct err why;

    if (find_in(INSIDE_SYSFS "/class/net", fd, wanted, ret, &why) == 0)
        return 0;
    cleanup_fd int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (here < 0 || setns(outside_ns, CLONE_NEWNET) < 0)
        return err_set_errno(err, errno, "leave the pod's network");
    if (fetch_from(wanted, here, deadline_ms, err) < 0)
        return -1;
    if (setns(here, CLONE_NEWNET) < 0)
        return err_set_errno(err, errno, "enter the pod's network");
    return find_in(INSIDE_SYSFS "/class/net", fd, wanted, ret, err);
}

/* ---- the card that was there from the start -------------------------------------------------- */

static int prepare_card(int fd, struct network_card *card, struct err *err)
{
    struct err why;

    if (ifind_first(fd, IFIND_CLASS, &card->is, &card->slot, err) < 0)
        return -1;
    card->ipv6 = set_generation(fd, card->is.ifindex, GENERATE_NONE, &why) == 0;
    if (!card->ipv6 && why.sys_errno != EAFNOSUPPORT) {
        if (err != NULL)
            *err = why;
        return -1;
    }
    skip_duplicate_detection(card->is.name);
    if (set_flags(fd, card->is.ifindex, IFF_UP, IFF_UP, err) < 0)
        return -1;
    card->is.flags |= IFF_UP;
    card->ready = true;
    return 0;
}

void network_prepare(struct network_card *ret_card)
{
    struct err err;
    cleanup_fd int fd = -1;

    *ret_card = (struct network_card){.outside_ns = -1};
    if (loopback_up(&fd, &err) < 0) {
        log_event(LOG_WARN, NULL, &err, "no loopback, going on");
        return;
    }
    if (prepare_card(fd, ret_card, &err) < 0)
        log_event(LOG_DEBUG, NULL, &err, "no network card is made ready");
}

static bool is_card(const Interface *wanted, const struct network_card *card)
{
    return card != NULL && card->ready && wanted->pci_slot == card->slot &&
           strcmp(wanted->name, card->is.name) == 0;
}

bool network_is_ready(const Casemate__Agent__V1__Network *network, const struct network_card *card)
{
    return network->n_interfaces == 0 ||
           (network->n_interfaces == 1 && is_card(network->interfaces[0], card));
}

/* All at once, while it is up: nothing that it has depends on them. mtu 0: as it is. */
static int set_identity(int fd, const struct network_card *card, const void *mac, uint32_t mtu,
                        uint8_t generation, struct err *err)
{
    const struct ifinfomsg head = {.ifi_index = card->is.ifindex};
    struct netlink_message m;

    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    netlink_put(&m, IFLA_ADDRESS, mac, sizeof(card->is.mac));
    if (mtu != 0)
        netlink_put_u32(&m, IFLA_MTU, mtu);
    if (card->ipv6)
        put_generation(&m, generation);
    return netlink_do(fd, &m, err) < 0 ? err_prefix(err, "set its MAC address and MTU") : 0;
}

static int identify_card(int fd, const Interface *wanted, const struct network_card *card,
                         struct err *err)
{
    if (set_identity(fd, card, wanted->mac.data, wanted->mtu, GENERATE_FROM_MAC, err) < 0)
        return -1;
    struct err why;
    if (card->ipv6 && ifaddr_add_link_local(fd, card->is.ifindex, wanted->mac.data, &why) < 0)
        log_event(LOG_DEBUG, NULL, &why, "no IPv6 address of its own");
    return 0;
}

static int apply_card(const Interface *wanted, const struct network_card *card, struct err *err)
{
    const int ifindex = card->is.ifindex;
    cleanup_fd int fd = -1;

    if (netlink_open(&fd, err) < 0 || identify_card(fd, wanted, card, err) < 0 ||
        ifaddr_set_addresses(fd, ifindex, wanted, true, err) < 0 ||
        ifaddr_set_neighbours(fd, ifindex, wanted, true, err) < 0 ||
        ifaddr_set_routes(fd, ifindex, wanted, true, err) < 0)
        return err_prefix(err, "interface %s", wanted->name);
    return 0;
}

static int restore_card(const struct network_card *card, const Interface *was, struct err *err)
{
    const Interface nothing = CASEMATE__AGENT__V1__NET_INTERFACE__INIT;
    const int ifindex = card->is.ifindex;
    cleanup_fd int fd = -1;

    if (netlink_open(&fd, err) < 0 || ifaddr_set_routes(fd, ifindex, &nothing, false, err) < 0 ||
        ifaddr_set_neighbours(fd, ifindex, &nothing, false, err) < 0 ||
        ifaddr_set_addresses(fd, ifindex, &nothing, false, err) < 0 ||
        (card->ipv6 && ifaddr_drop_link_local(fd, ifindex, was->mac.data, err) < 0))
        return -1;
    return set_identity(fd, card, card->is.mac, card->is.mtu, GENERATE_NONE, err);
}

int network_rehearse(const Casemate__Agent__V1__Network *network, const struct network_card *card,
                     struct err *err)
{
    if (network->n_interfaces != 1 || !is_card(network->interfaces[0], card))
        return err_set(err, ERR_INVALID, "only the card, while it is ready, can be rehearsed with");
    if (apply_card(network->interfaces[0], card, err) < 0 ||
        restore_card(card, network->interfaces[0], err) < 0)
        return err_prefix(err, "rehearsal");
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------ */

static int apply_one(int fd, const Interface *wanted, struct ifind *is, struct err *err)
{
    if (bring_up(fd, wanted, is, err) < 0 ||
        ifaddr_set_addresses(fd, is->ifindex, wanted, false, err) < 0 ||
        ifaddr_set_neighbours(fd, is->ifindex, wanted, false, err) < 0)
        return -1;
    return ifaddr_set_routes(fd, is->ifindex, wanted, false, err);
}

static int apply_all(const Casemate__Agent__V1__Network *network, int outside_ns,
                     int64_t deadline_ms, struct err *err)
{
    struct ifind is[NETVALID_MAX_INTERFACES];
    const size_t n = network->n_interfaces;
    cleanup_fd int fd = -1;

    if (netlink_open(&fd, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        const Interface *wanted = network->interfaces[i];
        if ((outside_ns < 0 ? find_in_time(fd, wanted, deadline_ms, &is[i], err)
                            : fetch(fd, wanted, outside_ns, deadline_ms, &is[i], err)) < 0)
            return err_prefix(err, "interface %s", network->interfaces[i]->name);
    }
    for (size_t i = 0; i < n; i++) {
        if (make_room(fd, network->interfaces[i], &is[i], err) < 0)
            return err_prefix(err, "interface %s", network->interfaces[i]->name);
    }
    for (size_t i = 0; i < n; i++) {
        if (apply_one(fd, network->interfaces[i], &is[i], err) < 0)
            return err_prefix(err, "interface %s", network->interfaces[i]->name);
    }
    return 0;
}

int network_apply(const Casemate__Agent__V1__Network *network, const struct network_card *card,
                  int64_t deadline_ms, struct err *err)
{
    int result = 0;

    if (network->n_interfaces == 1 && is_card(network->interfaces[0], card))
        result = apply_card(network->interfaces[0], card, err);
    else if (network->n_interfaces > 0)
        result = apply_all(network, card != NULL ? card->outside_ns : -1, deadline_ms, err);
    if (result < 0)
        return -1;
    return sysctl_set(network->sysctls, network->n_sysctls, 0, err);
}
