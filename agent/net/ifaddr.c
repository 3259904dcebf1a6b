/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. For each kind of thing: read what there is, take off what is not wanted,
 * then add all that is (adding again replaces). Addresses bring no routes (IFA_F_NOPREFIXROUTE),
 * because network plugins take such routes away; every route is in the message. IPv6 addresses are
 * used at once (IFA_F_NODAD): that nobody else has them is for the address management to know.
 * Routes without a gateway come first, since gateways are reached through them.
 */
#include "agent/net/ifaddr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/cleanup.h"
#include "common/base/netlink.h"

#define MAX_ITEMS       8192u /* read from one interface */
#define IPV6_METRIC     1024u /* what Linux takes for an IPv6 route that names none */
#define REPEAT_IF_BUSY  8     /* lists that change while they are read */
#define ROUTE_ATTRS_MAX RTA_VIA

typedef Casemate__Agent__V1__NetInterface Interface;

/* One thing that an interface has, enough of it to name it to the kernel. */
struct item {
    uint8_t family;
    uint8_t prefix;
    uint8_t addr[16];
    uint8_t gateway_len;
    uint8_t gateway[16];
    uint32_t metric;
};

struct items {
    int ifindex;
    struct item *list;
    size_t n;
};

static void items_fini(struct items *items)
{
    free(items->list);
}
#define cleanup_items CLEANUP(items_fini)

static size_t address_len(uint8_t family)
{
    return family == AF_INET ? 4 : 16;
}

static uint8_t family_of(size_t len)
{
    return len == 4 ? AF_INET : AF_INET6;
}

static int keep(struct items *items, const struct item *item, struct err *err)
{
    /* Grows in powers of two: a full one is one whose count is a power of two. */
    if (items->n >= MAX_ITEMS)
        return err_set(err, ERR_EXHAUSTED, "more than %u of a kind", MAX_ITEMS);
    if ((items->n & (items->n - 1)) == 0) {
        size_t room = items->n == 0 ? 1 : items->n * 2;
        struct item *grown = realloc(items->list, room * sizeof(*grown));
        if (grown == NULL)
            return err_no_memory(err);
        items->list = grown;
    }
    items->list[items->n++] = *item;
    return 0;
}

static bool get_ip(const struct nlattr *attr, uint8_t family, uint8_t *ret_bytes)
{
    return netlink_copy(attr, ret_bytes, address_len(family));
}

static bool is_link_local(const struct item *item)
{
    return item->family == AF_INET6 && item->addr[0] == 0xfe && (item->addr[1] & 0xc0) == 0x80;
}

/* Reads a list; head is the request's header, with the interface in it where that filters. */
static int read_items(int fd, uint16_t type, const void *head, size_t n, netlink_message_fn fn,
                      struct items *items, struct err *err)
{
    struct netlink_message m;
    struct err why;

    for (int try = 1;; try++) {
        items->n = 0;
        free(steal_ptr(&items->list));
        netlink_begin(&m, type, NLM_F_DUMP, head, n);
        if (netlink_ask(fd, &m, fn, items, &why) == 0)
            return 0;
        if (why.code != ERR_BAD_STATE || try == REPEAT_IF_BUSY)
            break;
    }
    if (err != NULL)
        *err = why;
    return -1;
}

static const char *show(const uint8_t *bytes, size_t len, char ret_text[INET6_ADDRSTRLEN])
{
    ret_text[0] = '\0';
    (void)inet_ntop(family_of(len), bytes, ret_text, INET6_ADDRSTRLEN);
    return ret_text;
}

/* ---- addresses ------------------------------------------------------------------------------ */

static int take_address(void *arg, const struct nlmsghdr *message, struct err *err)
{
    struct items *items = arg;
    const struct nlattr *attrs[IFA_FLAGS + 1];
    struct ifaddrmsg head;
    struct item item = {0};
    uint32_t flags = 0;

    if (message->nlmsg_type != RTM_NEWADDR ||
        netlink_attrs(message, sizeof(head), IFA_FLAGS, attrs) < 0)
        return 0;
    memcpy(&head, NLMSG_DATA(message), sizeof(head));
    if ((int)head.ifa_index != items->ifindex ||
        (head.ifa_family != AF_INET && head.ifa_family != AF_INET6))
        return 0;
    item.family = head.ifa_family;
    item.prefix = head.ifa_prefixlen;
    flags = head.ifa_flags;
    (void)netlink_u32(attrs[IFA_FLAGS], &flags);
    if (!get_ip(attrs[IFA_LOCAL] != NULL ? attrs[IFA_LOCAL] : attrs[IFA_ADDRESS], item.family,
                item.addr))
        return 0;
    /* Not ours to judge: what the kernel made by itself, and what a router lent. */
    if (is_link_local(&item) || (flags & IFA_F_PERMANENT) == 0)
        return 0;
    return keep(items, &item, err);
}

static bool wants_address(const Interface *interface, const struct item *item)
{
    for (size_t i = 0; i < interface->n_addresses; i++) {
        const Casemate__Agent__V1__NetAddress *a = interface->addresses[i];
        if (family_of(a->address.len) == item->family && a->prefix == item->prefix &&
            memcmp(a->address.data, item->addr, a->address.len) == 0)
            return true;
    }
    return false;
}

static int drop_address(int fd, int ifindex, const struct item *item, struct err *err)
{
    const struct ifaddrmsg head = {
        .ifa_family = item->family, .ifa_prefixlen = item->prefix, .ifa_index = (uint32_t)ifindex};
    struct netlink_message m;

    netlink_begin(&m, RTM_DELADDR, 0, &head, sizeof(head));
    netlink_put(&m, IFA_LOCAL, item->addr, address_len(item->family));
    netlink_put(&m, IFA_ADDRESS, item->addr, address_len(item->family));
    return netlink_do(fd, &m, err);
}

static int add_address(int fd, int ifindex, const Casemate__Agent__V1__NetAddress *a,
                       struct err *err)
{
    const uint8_t family = family_of(a->address.len);
    const struct ifaddrmsg head = {
        .ifa_family = family, .ifa_prefixlen = (uint8_t)a->prefix, .ifa_index = (uint32_t)ifindex};
    char text[INET6_ADDRSTRLEN];
    struct netlink_message m;

    netlink_begin(&m, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof(head));
    netlink_put(&m, IFA_LOCAL, a->address.data, a->address.len);
    netlink_put(&m, IFA_ADDRESS, a->address.data, a->address.len);
    netlink_put_u32(&m, IFA_FLAGS,
                    IFA_F_PERMANENT | IFA_F_NOPREFIXROUTE | (family == AF_INET6 ? IFA_F_NODAD : 0));
    if (family == AF_INET && a->prefix < 31) {
        uint32_t broadcast;
        memcpy(&broadcast, a->address.data, sizeof(broadcast));
        broadcast |= htonl(UINT32_MAX >> a->prefix);
        netlink_put(&m, IFA_BROADCAST, &broadcast, sizeof(broadcast));
    }
    if (netlink_do(fd, &m, err) < 0)
        return err_prefix(err, "address %s/%u", show(a->address.data, a->address.len, text),
                          a->prefix);
    return 0;
}

int ifaddr_set_addresses(int netlink_fd, int ifindex, const Interface *interface, bool fresh,
                         struct err *err)
{
    const struct ifaddrmsg head = {.ifa_family = AF_UNSPEC};
    cleanup_items struct items have = {.ifindex = ifindex};

    if (!fresh &&
        read_items(netlink_fd, RTM_GETADDR, &head, sizeof(head), take_address, &have, err) < 0)
        return -1;
    for (size_t i = 0; i < have.n; i++) {
        if (!wants_address(interface, &have.list[i]) &&
            drop_address(netlink_fd, ifindex, &have.list[i], err) < 0)
            return err_prefix(err, "take an address off");
    }
    for (size_t i = 0; i < interface->n_addresses; i++) {
        if (add_address(netlink_fd, ifindex, interface->addresses[i], err) < 0)
            return -1;
    }
    return 0;
}

/* RFC 4291, appendix A: the MAC address with ff:fe in its middle and one bit turned. */
static void make_link_local(const uint8_t *mac, uint8_t ret_address[16])
{
    const uint8_t address[16] = {0xfe, 0x80, [8] = mac[0] ^ 2, mac[1], mac[2],
                                 0xff, 0xfe, mac[3],           mac[4], mac[5]};

    memcpy(ret_address, address, sizeof(address));
}

int ifaddr_drop_link_local(int netlink_fd, int ifindex, const uint8_t *mac, struct err *err)
{
    struct item item = {.family = AF_INET6, .prefix = 64};

    make_link_local(mac, item.addr);
    return drop_address(netlink_fd, ifindex, &item, err);
}

int ifaddr_add_link_local(int netlink_fd, int ifindex, const uint8_t *mac, struct err *err)
{
    uint8_t address[16];
    const struct ifaddrmsg head = {.ifa_family = AF_INET6,
                                   .ifa_prefixlen = 64,
                                   .ifa_scope = RT_SCOPE_LINK,
                                   .ifa_index = (uint32_t)ifindex};
    struct netlink_message m;

    make_link_local(mac, address);
    netlink_begin(&m, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof(head));
    netlink_put(&m, IFA_LOCAL, address, sizeof(address));
    netlink_put_u32(&m, IFA_FLAGS, IFA_F_PERMANENT | IFA_F_NODAD);
    return netlink_do(netlink_fd, &m, err);
}

/* ---- routes --------------------------------------------------------------------------------- */

static void take_gateway(const struct nlattr *attrs[], struct item *item)
{
    struct rtvia via;
    size_t n = 0;

    if (get_ip(attrs[RTA_GATEWAY], item->family, item->gateway)) {
        item->gateway_len = (uint8_t)address_len(item->family);
    } else if (attrs[RTA_VIA] != NULL) {
        const uint8_t *bytes = netlink_bytes(attrs[RTA_VIA], &n);
        if (n != sizeof(via) + 4 && n != sizeof(via) + 16)
            return;
        item->gateway_len = (uint8_t)(n - sizeof(via));
        memcpy(item->gateway, bytes + sizeof(via), item->gateway_len);
    }
}

static int take_route(void *arg, const struct nlmsghdr *message, struct err *err)
{
    struct items *items = arg;
    const struct nlattr *attrs[ROUTE_ATTRS_MAX + 1];
    struct rtmsg head;
    struct item item = {0};
    uint32_t oif = 0, table;

    if (message->nlmsg_type != RTM_NEWROUTE ||
        netlink_attrs(message, sizeof(head), ROUTE_ATTRS_MAX, attrs) < 0)
        return 0;
    memcpy(&head, NLMSG_DATA(message), sizeof(head));
    table = head.rtm_table;
    (void)netlink_u32(attrs[RTA_TABLE], &table);
    if (!netlink_u32(attrs[RTA_OIF], &oif) || (int)oif != items->ifindex ||
        table != RT_TABLE_MAIN || head.rtm_type != RTN_UNICAST || head.rtm_protocol == RTPROT_RA ||
        (head.rtm_flags & RTM_F_CLONED) != 0 ||
        (head.rtm_family != AF_INET && head.rtm_family != AF_INET6))
        return 0;
    item.family = head.rtm_family;
    item.prefix = head.rtm_dst_len;
    (void)get_ip(attrs[RTA_DST], item.family, item.addr);
    (void)netlink_u32(attrs[RTA_PRIORITY], &item.metric);
    take_gateway(attrs, &item);
    if (is_link_local(&item) || (item.family == AF_INET6 && item.addr[0] == 0xff))
        return 0;
    return keep(items, &item, err);
}

static uint32_t metric_of(const Casemate__Agent__V1__NetRoute *route)
{
    return route->metric == 0 && route->dst->address.len == 16 ? IPV6_METRIC : route->metric;
}

/* The kernel shows what is behind the prefix as zeros. */
static bool same_net(const Casemate__Agent__V1__NetAddress *dst, const struct item *item)
{
    const uint32_t whole = dst->prefix / 8, rest = dst->prefix % 8;

    if (family_of(dst->address.len) != item->family || dst->prefix != item->prefix ||
        memcmp(dst->address.data, item->addr, whole) != 0)
        return false;
    return rest == 0 || (dst->address.data[whole] ^ item->addr[whole]) >> (8 - rest) == 0;
}

static bool wants_route(const Interface *interface, const struct item *item)
{
    for (size_t i = 0; i < interface->n_routes; i++) {
        const Casemate__Agent__V1__NetRoute *r = interface->routes[i];
        if (same_net(r->dst, item) && metric_of(r) == item->metric &&
            r->gateway.len == item->gateway_len &&
            (r->gateway.len == 0 || memcmp(r->gateway.data, item->gateway, item->gateway_len) == 0))
            return true;
    }
    return false;
}

static void put_gateway(struct netlink_message *m, uint8_t family, const uint8_t *bytes, size_t len)
{
    struct {
        struct rtvia head;
        uint8_t bytes[16];
    } via = {.head = {.rtvia_family = family_of(len)}};

    if (len == 0)
        return;
    if (family_of(len) == family) {
        netlink_put(m, RTA_GATEWAY, bytes, len);
        return;
    }
    memcpy(via.bytes, bytes, len);
    netlink_put(m, RTA_VIA, &via, sizeof(via.head) + len);
}

static int drop_route(int fd, int ifindex, const struct item *item, struct err *err)
{
    const struct rtmsg head = {.rtm_family = item->family,
                               .rtm_dst_len = item->prefix,
                               .rtm_table = RT_TABLE_MAIN,
                               .rtm_scope = RT_SCOPE_NOWHERE};
    struct netlink_message m;

    netlink_begin(&m, RTM_DELROUTE, 0, &head, sizeof(head));
    netlink_put(&m, RTA_DST, item->addr, address_len(item->family));
    netlink_put_u32(&m, RTA_OIF, (uint32_t)ifindex);
    netlink_put_u32(&m, RTA_PRIORITY, item->metric);
    put_gateway(&m, item->family, item->gateway, item->gateway_len);
    return netlink_do(fd, &m, err);
}

static int add_route(int fd, int ifindex, const Casemate__Agent__V1__NetRoute *r, struct err *err)
{
    const struct rtmsg head = {
        .rtm_family = family_of(r->dst->address.len),
        .rtm_dst_len = (uint8_t)r->dst->prefix,
        .rtm_table = RT_TABLE_MAIN,
        .rtm_protocol = RTPROT_BOOT,
        .rtm_scope = (uint8_t)r->scope,
        .rtm_type = RTN_UNICAST,
        .rtm_flags = r->onlink ? RTNH_F_ONLINK : 0,
    };
    char to[INET6_ADDRSTRLEN], via[INET6_ADDRSTRLEN];
    struct netlink_message m;

    netlink_begin(&m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof(head));
    netlink_put(&m, RTA_DST, r->dst->address.data, r->dst->address.len);
    netlink_put_u32(&m, RTA_OIF, (uint32_t)ifindex);
    if (metric_of(r) != 0)
        netlink_put_u32(&m, RTA_PRIORITY, metric_of(r));
    if (r->source.len > 0)
        netlink_put(&m, RTA_PREFSRC, r->source.data, r->source.len);
    put_gateway(&m, head.rtm_family, r->gateway.data, r->gateway.len);
    if (r->mtu != 0 || r->advmss != 0) {
        size_t metrics = netlink_nest(&m, RTA_METRICS);
        if (r->mtu != 0)
            netlink_put_u32(&m, RTAX_MTU, r->mtu);
        if (r->advmss != 0)
            netlink_put_u32(&m, RTAX_ADVMSS, r->advmss);
        netlink_nest_end(&m, metrics);
    }
    if (netlink_do(fd, &m, err) < 0)
        return err_prefix(err, "route to %s/%u%s%s",
                          show(r->dst->address.data, r->dst->address.len, to), r->dst->prefix,
                          r->gateway.len > 0 ? " via " : "",
                          r->gateway.len > 0 ? show(r->gateway.data, r->gateway.len, via) : "");
    return 0;
}

int ifaddr_set_routes(int netlink_fd, int ifindex, const Interface *interface, bool fresh,
                      struct err *err)
{
    const struct rtmsg head = {.rtm_family = AF_UNSPEC};
    cleanup_items struct items have = {.ifindex = ifindex};

    if (!fresh &&
        read_items(netlink_fd, RTM_GETROUTE, &head, sizeof(head), take_route, &have, err) < 0)
        return -1;
    for (int with_gateway = 0; with_gateway <= 1; with_gateway++) {
        for (size_t i = 0; i < interface->n_routes; i++) {
            const Casemate__Agent__V1__NetRoute *r = interface->routes[i];
            if ((r->gateway.len > 0) == (with_gateway == 1) &&
                add_route(netlink_fd, ifindex, r, err) < 0)
                return -1;
        }
    }
    for (size_t i = 0; i < have.n; i++) {
        struct err why;
        /* Adding may have replaced it. */
        if (!wants_route(interface, &have.list[i]) &&
            drop_route(netlink_fd, ifindex, &have.list[i], &why) < 0 && why.sys_errno != ESRCH) {
            if (err != NULL)
                *err = why;
            return err_prefix(err, "take a route off");
        }
    }
    return 0;
}

/* ---- neighbours ----------------------------------------------------------------------------- */

static int take_neighbour(void *arg, const struct nlmsghdr *message, struct err *err)
{
    struct items *items = arg;
    const struct nlattr *attrs[NDA_LLADDR + 1];
    struct ndmsg head;
    struct item item = {0};

    if (message->nlmsg_type != RTM_NEWNEIGH ||
        netlink_attrs(message, sizeof(head), NDA_LLADDR, attrs) < 0)
        return 0;
    memcpy(&head, NLMSG_DATA(message), sizeof(head));
    if (head.ndm_ifindex != items->ifindex || (head.ndm_state & NUD_PERMANENT) == 0 ||
        (head.ndm_family != AF_INET && head.ndm_family != AF_INET6))
        return 0;
    item.family = head.ndm_family;
    if (!get_ip(attrs[NDA_DST], item.family, item.addr))
        return 0;
    return keep(items, &item, err);
}

static bool wants_neighbour(const Interface *interface, const struct item *item)
{
    for (size_t i = 0; i < interface->n_neighbours; i++) {
        const ProtobufCBinaryData *a = &interface->neighbours[i]->address;
        if (family_of(a->len) == item->family && memcmp(a->data, item->addr, a->len) == 0)
            return true;
    }
    return false;
}

/* mac NULL: takes it off. */
static int change_neighbour(int fd, int ifindex, const uint8_t *address, size_t len,
                            const uint8_t *mac, struct err *err)
{
    const struct ndmsg head = {.ndm_family = family_of(len),
                               .ndm_ifindex = ifindex,
                               .ndm_state = mac != NULL ? NUD_PERMANENT : 0};
    char text[INET6_ADDRSTRLEN];
    struct netlink_message m;

    netlink_begin(&m, mac != NULL ? RTM_NEWNEIGH : RTM_DELNEIGH,
                  mac != NULL ? NLM_F_CREATE | NLM_F_REPLACE : 0, &head, sizeof(head));
    netlink_put(&m, NDA_DST, address, len);
    if (mac != NULL)
        netlink_put(&m, NDA_LLADDR, mac, 6);
    if (netlink_do(fd, &m, err) < 0)
        return err_prefix(err, "neighbour %s", show(address, len, text));
    return 0;
}

int ifaddr_set_neighbours(int netlink_fd, int ifindex, const Interface *interface, bool fresh,
                          struct err *err)
{
    const struct ndmsg head = {.ndm_family = AF_UNSPEC};
    cleanup_items struct items have = {.ifindex = ifindex};

    if (!fresh &&
        read_items(netlink_fd, RTM_GETNEIGH, &head, sizeof(head), take_neighbour, &have, err) < 0)
        return -1;
    for (size_t i = 0; i < have.n; i++) {
        const struct item *item = &have.list[i];
        if (!wants_neighbour(interface, item) &&
            change_neighbour(netlink_fd, ifindex, item->addr, address_len(item->family), NULL,
                             err) < 0)
            return -1;
    }
    for (size_t i = 0; i < interface->n_neighbours; i++) {
        const Casemate__Agent__V1__NetNeighbour *n = interface->neighbours[i];
        if (change_neighbour(netlink_fd, ifindex, n->address.data, n->address.len, n->mac.data,
                             err) < 0)
            return -1;
    }
    return 0;
}
