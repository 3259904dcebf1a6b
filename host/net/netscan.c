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

#include <linux/if_arp.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/cleanup.h"
#include "common/base/log.h"
#include "common/base/netlink.h"
#include "host/net/netns.h"

enum { MAX_REPEATS = 8 };

static bool get_address(const struct nlattr *attr, uint8_t prefix, struct net_addr *ret_addr)
{
    struct net_addr addr = {.prefix = prefix};

    if (netlink_copy(attr, addr.bytes, 4))
        addr.len = 4;
    else if (netlink_copy(attr, addr.bytes, 16))
        addr.len = 16;
    else
        return false;
    *ret_addr = addr;
    return true;
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

static int take_link(void *arg, const struct nlmsghdr *message, struct err *err)
{
    const struct ifinfomsg *info = NLMSG_DATA(message);
    const struct nlattr *attrs[IFLA_MASTER + 1];
    struct netscan_link link = {.iface = {.tap_fd = -1}};
    struct netscan_link *grown;
    struct netscan *scan = arg;
    uint32_t master = 0;

    if (message->nlmsg_type != RTM_NEWLINK ||
        netlink_attrs(message, sizeof(*info), IFLA_MASTER, attrs) != 0 ||
        (info->ifi_flags & IFF_LOOPBACK) != 0 ||
        !netlink_text(attrs[IFLA_IFNAME], link.iface.name, sizeof(link.iface.name)))
        return 0;
    link.ifindex = info->ifi_index;
    link.ethernet = info->ifi_type == ARPHRD_ETHER &&
                    netlink_copy(attrs[IFLA_ADDRESS], link.iface.mac, NET_MAC_SIZE);
    (void)netlink_u32(attrs[IFLA_MTU], &link.iface.mtu);
    link.has_master = netlink_u32(attrs[IFLA_MASTER], &master) && master != 0;
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

static int take_addr(void *arg, const struct nlmsghdr *message, struct err *err)
{
    const struct ifaddrmsg *info = NLMSG_DATA(message);
    const struct nlattr *attrs[IFA_LOCAL + 1];
    struct net_addr addr, *place;
    struct netscan_link *link;

    if (message->nlmsg_type != RTM_NEWADDR ||
        netlink_attrs(message, sizeof(*info), IFA_LOCAL, attrs) != 0)
        return 0;
    link = find_index(arg, (int)info->ifa_index);
    if (link == NULL ||
        !get_address(attrs[IFA_LOCAL] != NULL ? attrs[IFA_LOCAL] : attrs[IFA_ADDRESS],
                     info->ifa_prefixlen, &addr) ||
        is_link_local(&addr))
        return 0;
    place = add_item(&link->iface.addrs, &link->iface.n_addrs, sizeof(addr), err);
    if (place == NULL)
        return -1;
    *place = addr;
    return 0;
}

/* RTA_VIA: a gateway of the other family, its address behind the family's number. */
static bool get_via(const struct nlattr *via, struct net_addr *ret_addr)
{
    struct {
        uint16_t family;
        uint8_t address[16];
    } v6;
    struct {
        uint16_t family;
        uint8_t address[4];
    } v4;
    struct net_addr addr = {0};

    if (netlink_copy(via, &v4, sizeof(v4))) {
        addr.len = 4;
        memcpy(addr.bytes, v4.address, 4);
    } else if (netlink_copy(via, &v6, sizeof(v6))) {
        addr.len = 16;
        memcpy(addr.bytes, v6.address, 16);
    } else {
        return false;
    }
    *ret_addr = addr;
    return true;
}

/* What every IPv6 interface has by itself. */
static bool is_automatic(const struct net_route *route)
{
    return is_link_local(&route->dst) || (route->dst.len == 16 && route->dst.bytes[0] == 0xff);
}

/* Whether a route is one to carry over; says which are not. */
static bool wants_route(const struct rtmsg *info, const struct nlattr *const *attrs)
{
    uint32_t table = info->rtm_table;

    (void)netlink_u32(attrs[RTA_TABLE], &table);
    if (table == RT_TABLE_LOCAL || (info->rtm_flags & RTM_F_CLONED) != 0 ||
        info->rtm_type == RTN_LOCAL || info->rtm_type == RTN_BROADCAST ||
        info->rtm_type == RTN_ANYCAST || info->rtm_type == RTN_MULTICAST)
        return false;
    if (table == RT_TABLE_MAIN && info->rtm_type == RTN_UNICAST && attrs[RTA_MULTIPATH] == NULL)
        return true;
    log_warn("a pod's route of table %u, type %u%s is not carried into its machine, ignoring",
             (unsigned)table, (unsigned)info->rtm_type,
             attrs[RTA_MULTIPATH] != NULL ? ", multipath" : "");
    return false;
}

static void read_route(const struct rtmsg *info, const struct nlattr *const *attrs,
                       struct net_route *route)
{
    const struct nlattr *metrics[RTAX_ADVMSS + 1];

    if (!get_address(attrs[RTA_DST], info->rtm_dst_len, &route->dst))
        route->dst.len = info->rtm_family == AF_INET ? 4 : 16;
    if (!get_address(attrs[RTA_GATEWAY], 0, &route->gateway))
        (void)get_via(attrs[RTA_VIA], &route->gateway);
    route->gateway.prefix = (uint8_t)(route->gateway.len * 8);
    (void)get_address(attrs[RTA_PREFSRC], (uint8_t)(route->dst.len * 8), &route->source);
    (void)netlink_u32(attrs[RTA_PRIORITY], &route->metric);
    netlink_nested(attrs[RTA_METRICS], RTAX_ADVMSS, metrics);
    (void)netlink_u32(metrics[RTAX_MTU], &route->mtu);
    (void)netlink_u32(metrics[RTAX_ADVMSS], &route->advmss);
    route->scope = info->rtm_scope;
    route->onlink = (info->rtm_flags & RTNH_F_ONLINK) != 0;
}

static int take_route(void *arg, const struct nlmsghdr *message, struct err *err)
{
    const struct rtmsg *info = NLMSG_DATA(message);
    const struct nlattr *attrs[RTA_VIA + 1];
    struct net_route route = {0}, *place;
    struct netscan_link *link;
    uint32_t oif = 0;

    if (message->nlmsg_type != RTM_NEWROUTE ||
        netlink_attrs(message, sizeof(*info), RTA_VIA, attrs) != 0 ||
        (info->rtm_family != AF_INET && info->rtm_family != AF_INET6))
        return 0;
    read_route(info, attrs, &route);
    /* A multipath route names no interface of its own; it is only told of. */
    if (!netlink_u32(attrs[RTA_OIF], &oif) && attrs[RTA_MULTIPATH] == NULL)
        return 0;
    if (is_automatic(&route) || !wants_route(info, attrs))
        return 0;
    link = find_index(arg, (int)oif);
    if (link == NULL)
        return 0;
    place = add_item(&link->iface.routes, &link->iface.n_routes, sizeof(route), err);
    if (place == NULL)
        return -1;
    *place = route;
    return 0;
}

static int take_neighbour(void *arg, const struct nlmsghdr *message, struct err *err)
{
    const struct ndmsg *info = NLMSG_DATA(message);
    struct net_neighbour neighbour = {0}, *place;
    const struct nlattr *attrs[NDA_LLADDR + 1];
    struct netscan_link *link;

    if (message->nlmsg_type != RTM_NEWNEIGH ||
        netlink_attrs(message, sizeof(*info), NDA_LLADDR, attrs) != 0 ||
        (info->ndm_state & NUD_PERMANENT) == 0)
        return 0;
    link = find_index(arg, info->ndm_ifindex);
    if (link == NULL || !get_address(attrs[NDA_DST], 0, &neighbour.addr) ||
        !netlink_copy(attrs[NDA_LLADDR], neighbour.mac, NET_MAC_SIZE))
        return 0;
    neighbour.addr.prefix = (uint8_t)(neighbour.addr.len * 8);
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

static int read_all(int fd, struct netscan *scan, struct err *err)
{
    /* Each with the header of its family, no byte more; all zero: everything. */
    static const union {
        struct ifinfomsg link;
        struct ifaddrmsg addr;
        struct rtmsg route;
        struct ndmsg neighbour;
    } everything;
    static const struct {
        uint16_t type;
        size_t header_size;
        netlink_message_fn fn;
    } dumps[] = {
        {RTM_GETLINK, sizeof(everything.link), take_link},
        {RTM_GETADDR, sizeof(everything.addr), take_addr},
        {RTM_GETROUTE, sizeof(everything.route), take_route},
        {RTM_GETNEIGH, sizeof(everything.neighbour), take_neighbour},
    };
    struct netlink_message m;

    for (size_t i = 0; i < ARRAY_SIZE(dumps); i++) {
        netlink_begin(&m, dumps[i].type, NLM_F_DUMP, &everything, dumps[i].header_size);
        if (netlink_ask(fd, &m, dumps[i].fn, scan, err) != 0)
            return -1;
    }
    for (size_t i = 0; i < scan->n; i++) {
        if (order_routes(&scan->links[i].iface, err) != 0)
            return -1;
    }
    if (scan->n > 0)
        qsort(scan->links, scan->n, sizeof(*scan->links), by_index);
    return 0;
}

int netscan_read(int netns_fd, struct netscan *ret_scan, struct err *err)
{
    struct netscan scan = {0};
    cleanup_fd int fd = -1;

    if (netns_socket(netns_fd, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, &fd, err) != 0 ||
        netlink_setup(fd, err) != 0)
        return -1;
    for (int i = 0; read_all(fd, &scan, err) != 0; i++) {
        netscan_fini(&scan);
        if (err == NULL || err->code != ERR_BAD_STATE || i == MAX_REPEATS)
            return err_prefix(err, "interfaces of the pod's namespace");
    }
    *ret_scan = scan;
    return 0;
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
