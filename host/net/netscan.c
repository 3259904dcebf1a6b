/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. What plugins answer is a summary; what they did is in the namespace. A
 * plugin may give an address and take the kernel's own route for it away (ptp), set permanent
 * neighbours, change MAC and MTU in a later step (tuning), or add interfaces that no answer names
 * (meta-plugins). So the guest is made to look like the namespace, read by four dumps: links,
 * addresses, routes, neighbours. A dump that was interrupted by a change is read again.
 *
 * What cannot be carried over (multipath and non-unicast routes, other tables) is said in the log.
 */
#include "host/net/netscan.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_arp.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/cleanup.h"
#include "common/base/log.h"
#include "host/net/netns.h"

enum { RECEIVE_BYTES = 64 * 1024, MAX_REPEATS = 8, MAX_ATTRIBUTE = RTA_MAX };

/* ---- rtnetlink's messages ---- */

struct attributes {
    const struct rtattr *at[MAX_ATTRIBUTE + 1];
};

static void split_attributes(const void *first, int n, struct attributes *ret)
{
    *ret = (struct attributes){0};
    for (const struct rtattr *a = first; RTA_OK(a, n); a = RTA_NEXT(a, n)) {
        if ((a->rta_type & NLA_TYPE_MASK) <= MAX_ATTRIBUTE)
            ret->at[a->rta_type & NLA_TYPE_MASK] = a;
    }
}

static bool get_u32(const struct attributes *all, int type, uint32_t *ret_value)
{
    if (all->at[type] == NULL || RTA_PAYLOAD(all->at[type]) != sizeof(*ret_value))
        return false;
    memcpy(ret_value, RTA_DATA(all->at[type]), sizeof(*ret_value));
    return true;
}

static bool get_address(const struct rtattr *attribute, uint8_t prefix, struct net_addr *ret_addr)
{
    size_t n = attribute == NULL ? 0 : RTA_PAYLOAD(attribute);

    if (n != 4 && n != 16)
        return false;
    *ret_addr = (struct net_addr){.len = (uint8_t)n, .prefix = prefix};
    memcpy(ret_addr->bytes, RTA_DATA(attribute), n);
    return true;
}

typedef int (*message_fn)(struct netscan *scan, const struct nlmsghdr *message, struct err *err);

/* One datagram of a dump. Returns 1 when the dump goes on, 0 at its end. */
static int take_datagram(struct netscan *scan, const void *bytes, size_t n, message_fn fn,
                         bool *interrupted, struct err *err)
{
    for (const struct nlmsghdr *m = bytes; NLMSG_OK(m, n); m = NLMSG_NEXT(m, n)) {
        *interrupted = *interrupted || (m->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
        if (m->nlmsg_type == NLMSG_DONE)
            return 0;
        if (m->nlmsg_type == NLMSG_ERROR) {
            const struct nlmsgerr *e = NLMSG_DATA(m);
            return err_set_errno(err, m->nlmsg_len < NLMSG_LENGTH(sizeof(*e)) ? EPROTO : -e->error,
                                 "rtnetlink dump");
        }
        if (fn(scan, m, err) != 0)
            return -1;
    }
    return 1;
}

static int dump_once(int fd, uint16_t type, struct netscan *scan, message_fn fn, bool *interrupted,
                     struct err *err)
{
    cleanup_free void *bytes = malloc(RECEIVE_BYTES);
    struct {
        struct nlmsghdr header;
        /* Bigger than each of the headers that a dump's request may have, all zero: everything. */
        uint8_t body[sizeof(struct ifinfomsg)];
    } request = {.header = {.nlmsg_len = sizeof(request),
                            .nlmsg_type = type,
                            .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
    int more = 1;

    *interrupted = false;
    if (bytes == NULL)
        return err_no_memory(err);
    if (send(fd, &request, sizeof(request), 0) < 0)
        return err_set_errno(err, errno, "rtnetlink request");
    while (more > 0) {
        ssize_t n = recv(fd, bytes, RECEIVE_BYTES, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "rtnetlink answer");
        more = take_datagram(scan, bytes, (size_t)n, fn, interrupted, err);
    }
    return more;
}

/* ---- links ---- */

static struct netscan_link *find_index(struct netscan *scan, int ifindex)
{
    for (size_t i = 0; i < scan->n; i++) {
        if (scan->links[i].ifindex == ifindex)
            return &scan->links[i];
    }
    return NULL;
}

static int take_link(struct netscan *scan, const struct nlmsghdr *message, struct err *err)
{
    const struct ifinfomsg *info = NLMSG_DATA(message);
    struct netscan_link link = {.iface = {.tap_fd = -1}, .ifindex = info->ifi_index};
    const struct rtattr *name, *mac;
    struct netscan_link *grown;
    struct attributes all;
    uint32_t mtu = 0, master = 0;

    if (message->nlmsg_type != RTM_NEWLINK || message->nlmsg_len < NLMSG_LENGTH(sizeof(*info)) ||
        (info->ifi_flags & IFF_LOOPBACK) != 0)
        return 0;
    split_attributes(IFLA_RTA(info), (int)IFLA_PAYLOAD(message), &all);
    name = all.at[IFLA_IFNAME];
    mac = all.at[IFLA_ADDRESS];
    if (name == NULL || RTA_PAYLOAD(name) == 0 || RTA_PAYLOAD(name) > NET_IFNAME_SIZE)
        return 0;
    (void)memccpy(link.iface.name, RTA_DATA(name), '\0',
                  RTA_PAYLOAD(name) < NET_IFNAME_SIZE ? RTA_PAYLOAD(name) : NET_IFNAME_SIZE - 1);
    if (info->ifi_type == ARPHRD_ETHER && mac != NULL && RTA_PAYLOAD(mac) == NET_MAC_SIZE) {
        memcpy(link.iface.mac, RTA_DATA(mac), NET_MAC_SIZE);
        link.ethernet = true;
    }
    (void)get_u32(&all, IFLA_MTU, &mtu);
    link.iface.mtu = mtu;
    link.has_master = get_u32(&all, IFLA_MASTER, &master) && master != 0;
    if (find_index(scan, link.ifindex) != NULL)
        return 0;
    if (scan->n == NETSCAN_MAX_LINKS)
        return err_set(err, ERR_EXHAUSTED, "more than %d interfaces", NETSCAN_MAX_LINKS);
    grown = realloc(scan->links, (scan->n + 1) * sizeof(*grown));
    if (grown == NULL)
        return err_no_memory(err);
    grown[scan->n++] = link;
    scan->links = grown;
    return 0;
}

/* ---- what they have ---- */

/* Room for one more item of `size` bytes in a list: its place, zeroed. */
static void *add_item(void *list, size_t *n, size_t size, struct err *err)
{
    void **items = list;
    uint8_t *grown;

    if (*n >= NETSCAN_MAX_ITEMS) {
        err_set(err, ERR_EXHAUSTED, "more than %d addresses, routes or neighbours",
                NETSCAN_MAX_ITEMS);
        return NULL;
    }
    grown = realloc(*items, (*n + 1) * size);
    if (grown == NULL) {
        err_no_memory(err);
        return NULL;
    }
    *items = grown;
    memset(grown + *n * size, 0, size);
    return grown + (*n)++ * size;
}

/* fe80::/10: every interface makes its own. */
static bool is_link_local(const struct net_addr *addr)
{
    return addr->len == 16 && addr->bytes[0] == 0xfe && (addr->bytes[1] & 0xc0) == 0x80;
}

static int take_addr(struct netscan *scan, const struct nlmsghdr *message, struct err *err)
{
    const struct ifaddrmsg *info = NLMSG_DATA(message);
    struct netscan_link *link;
    struct net_addr addr, *place;
    struct attributes all;

    if (message->nlmsg_type != RTM_NEWADDR || message->nlmsg_len < NLMSG_LENGTH(sizeof(*info)))
        return 0;
    link = find_index(scan, (int)info->ifa_index);
    split_attributes(IFA_RTA(info), (int)IFA_PAYLOAD(message), &all);
    if (link == NULL ||
        !get_address(all.at[IFA_LOCAL] != NULL ? all.at[IFA_LOCAL] : all.at[IFA_ADDRESS],
                     info->ifa_prefixlen, &addr) ||
        is_link_local(&addr))
        return 0;
    place = add_item(&link->iface.addrs, &link->iface.n_addrs, sizeof(addr), err);
    if (place == NULL)
        return -1;
    *place = addr;
    return 0;
}

static void take_metrics(const struct rtattr *metrics, struct net_route *route)
{
    struct attributes all;

    if (metrics == NULL)
        return;
    split_attributes(RTA_DATA(metrics), (int)RTA_PAYLOAD(metrics), &all);
    (void)get_u32(&all, RTAX_MTU, &route->mtu);
    (void)get_u32(&all, RTAX_ADVMSS, &route->advmss);
}

/* RTA_VIA: a gateway of the other family. */
static bool get_via(const struct rtattr *via, struct net_addr *ret_addr)
{
    struct rtvia head;
    size_t n = via == NULL ? 0 : RTA_PAYLOAD(via);

    if (n != sizeof(head) + 4 && n != sizeof(head) + 16)
        return false;
    n -= sizeof(head);
    *ret_addr = (struct net_addr){.len = (uint8_t)n, .prefix = (uint8_t)(n * 8)};
    memcpy(ret_addr->bytes, (const uint8_t *)RTA_DATA(via) + sizeof(head), n);
    return true;
}

/* What every IPv6 interface has by itself. */
static bool is_automatic(const struct net_route *route)
{
    return is_link_local(&route->dst) || (route->dst.len == 16 && route->dst.bytes[0] == 0xff);
}

/* Whether a route is one to carry over; says which are not. */
static bool wants_route(const struct rtmsg *info, const struct attributes *all)
{
    uint32_t table = info->rtm_table;

    (void)get_u32(all, RTA_TABLE, &table);
    if (table == RT_TABLE_LOCAL || (info->rtm_flags & RTM_F_CLONED) != 0 ||
        info->rtm_type == RTN_LOCAL || info->rtm_type == RTN_BROADCAST ||
        info->rtm_type == RTN_ANYCAST || info->rtm_type == RTN_MULTICAST)
        return false;
    if (table == RT_TABLE_MAIN && info->rtm_type == RTN_UNICAST && all->at[RTA_MULTIPATH] == NULL)
        return true;
    log_warn("a pod's route of table %u, type %u%s is not carried into its machine, ignoring",
             (unsigned)table, (unsigned)info->rtm_type,
             all->at[RTA_MULTIPATH] != NULL ? ", multipath" : "");
    return false;
}

static int take_route(struct netscan *scan, const struct nlmsghdr *message, struct err *err)
{
    const struct rtmsg *info = NLMSG_DATA(message);
    struct net_route route = {0}, *place;
    struct netscan_link *link;
    struct attributes all;
    uint32_t oif = 0;

    if (message->nlmsg_type != RTM_NEWROUTE || message->nlmsg_len < NLMSG_LENGTH(sizeof(*info)) ||
        (info->rtm_family != AF_INET && info->rtm_family != AF_INET6))
        return 0;
    split_attributes(RTM_RTA(info), (int)RTM_PAYLOAD(message), &all);
    link = get_u32(&all, RTA_OIF, &oif) ? find_index(scan, (int)oif) : NULL;
    if (!get_address(all.at[RTA_DST], info->rtm_dst_len, &route.dst))
        route.dst.len = info->rtm_family == AF_INET ? 4 : 16;
    if (link == NULL || is_automatic(&route) || !wants_route(info, &all))
        return 0;
    if (!get_address(all.at[RTA_GATEWAY], 0, &route.gateway))
        (void)get_via(all.at[RTA_VIA], &route.gateway);
    route.gateway.prefix = (uint8_t)(route.gateway.len * 8);
    (void)get_address(all.at[RTA_PREFSRC], (uint8_t)(route.dst.len * 8), &route.source);
    (void)get_u32(&all, RTA_PRIORITY, &route.metric);
    take_metrics(all.at[RTA_METRICS], &route);
    route.scope = info->rtm_scope;
    route.onlink = (info->rtm_flags & RTNH_F_ONLINK) != 0;
    place = add_item(&link->iface.routes, &link->iface.n_routes, sizeof(route), err);
    if (place == NULL)
        return -1;
    *place = route;
    return 0;
}

static int take_neighbour(struct netscan *scan, const struct nlmsghdr *message, struct err *err)
{
    const struct ndmsg *info = NLMSG_DATA(message);
    struct net_neighbour neighbour = {0}, *place;
    struct netscan_link *link;
    struct attributes all;
    int n;

    if (message->nlmsg_type != RTM_NEWNEIGH || message->nlmsg_len < NLMSG_LENGTH(sizeof(*info)) ||
        (info->ndm_state & NUD_PERMANENT) == 0)
        return 0;
    n = (int)(message->nlmsg_len - NLMSG_LENGTH(sizeof(*info)));
    split_attributes((const char *)info + NLMSG_ALIGN(sizeof(*info)), n, &all);
    link = find_index(scan, info->ndm_ifindex);
    if (link == NULL || !get_address(all.at[NDA_DST], 0, &neighbour.addr) ||
        all.at[NDA_LLADDR] == NULL || RTA_PAYLOAD(all.at[NDA_LLADDR]) != NET_MAC_SIZE)
        return 0;
    neighbour.addr.prefix = (uint8_t)(neighbour.addr.len * 8);
    memcpy(neighbour.mac, RTA_DATA(all.at[NDA_LLADDR]), NET_MAC_SIZE);
    place = add_item(&link->iface.neighbours, &link->iface.n_neighbours, sizeof(neighbour), err);
    if (place == NULL)
        return -1;
    *place = neighbour;
    return 0;
}

/* ---- the whole ---- */

static int by_index(const void *a, const void *b)
{
    const struct netscan_link *x = a, *y = b;

    return x->ifindex < y->ifindex ? -1 : x->ifindex > y->ifindex;
}

/* Routes without a gateway first, each in the kernel's order: gateways are reached through them. */
static int order_routes(struct net_iface *iface, struct err *err)
{
    struct net_route *ordered = calloc(iface->n_routes + 1, sizeof(*ordered));
    size_t n = 0;

    if (ordered == NULL)
        return err_no_memory(err);
    for (int with_gateway = 0; with_gateway <= 1; with_gateway++) {
        for (size_t i = 0; i < iface->n_routes; i++) {
            if ((iface->routes[i].gateway.len > 0) == (with_gateway == 1))
                ordered[n++] = iface->routes[i];
        }
    }
    free(iface->routes);
    iface->routes = ordered;
    return 0;
}

static int read_all(int fd, struct netscan *scan, bool *interrupted, struct err *err)
{
    static const struct {
        uint16_t type;
        message_fn fn;
    } dumps[] = {
        {RTM_GETLINK, take_link},
        {RTM_GETADDR, take_addr},
        {RTM_GETROUTE, take_route},
        {RTM_GETNEIGH, take_neighbour},
    };

    *interrupted = false;
    for (size_t i = 0; i < ARRAY_SIZE(dumps) && !*interrupted; i++) {
        if (dump_once(fd, dumps[i].type, scan, dumps[i].fn, interrupted, err) != 0)
            return -1;
    }
    return 0;
}

int netscan_read(int netns_fd, struct netscan *ret_scan, struct err *err)
{
    struct netscan scan = {0};
    cleanup_fd int fd = -1;
    bool again = true;

    for (int i = 0; again; i++) {
        netscan_fini(&scan);
        close_fd(&fd);
        if (netns_socket(netns_fd, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, &fd, err) != 0)
            return -1;
        if (read_all(fd, &scan, &again, err) != 0)
            goto fail;
        if (again && i == MAX_REPEATS) {
            err_set(err, ERR_UNAVAILABLE, "the interfaces change all the time");
            goto fail;
        }
    }
    for (size_t i = 0; i < scan.n; i++) {
        if (order_routes(&scan.links[i].iface, err) != 0)
            goto fail;
    }
    if (scan.n > 0)
        qsort(scan.links, scan.n, sizeof(*scan.links), by_index);
    *ret_scan = scan;
    return 0;
fail:
    netscan_fini(&scan);
    return -1;
}

struct netscan_link *netscan_find(struct netscan *scan, const char *name)
{
    for (size_t i = 0; i < scan->n; i++) {
        if (strcmp(scan->links[i].iface.name, name) == 0)
            return &scan->links[i];
    }
    return NULL;
}

void net_iface_fini(struct net_iface *iface)
{
    close_fd(&iface->tap_fd);
    free(steal_ptr(&iface->addrs));
    free(steal_ptr(&iface->routes));
    free(steal_ptr(&iface->neighbours));
    iface->n_addrs = iface->n_routes = iface->n_neighbours = 0;
}

void netscan_fini(struct netscan *scan)
{
    for (size_t i = 0; i < scan->n; i++)
        net_iface_fini(&scan->links[i].iface);
    free(scan->links);
    *scan = (struct netscan){0};
}
