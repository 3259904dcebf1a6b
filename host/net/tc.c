/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Each of the two gets an ingress queueing discipline with one filter that
 * matches every frame, before any protocol sees it, and an action that sends it out by the other
 * one. No bridge, which would learn MAC addresses, need a third device, and drop what is addressed
 * to itself; and no macvtap, which not every kind of interface can carry. The filter is u32 with
 * one key that masks everything away: "matchall" is missing in some kernels, u32 in none.
 *
 * The host's kernel still has the pod's addresses on the link. It gets no frame there, so it
 * answers to nothing; what it says by itself (multicast reports when the link comes up) comes from
 * the MAC and the addresses that are the guest's as well. The tap gets no IPv6 address of its own,
 * so nothing of the host's is sent into the guest.
 *
 * All multicast is let in: a macvlan drops what nobody on its own side has subscribed to, and the
 * guest's subscriptions are not seen.
 */
#include "host/net/tc.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>

#include "common/base/cleanup.h"
#include "common/base/netlink.h"
#include "host/net/netns.h"

/* Linux's IN6_ADDR_GEN_MODE_NONE (linux/if_link.h clashes with net/if.h in some releases). */
#define NO_ADDRESS_GENERATION 1

struct side {
    const char *name;
    int ifindex;
    uint32_t mtu;
};

static int take_link(void *arg, const struct nlmsghdr *message, struct err *err)
{
    struct side *side = arg;
    const struct nlattr *attrs[IFLA_MTU + 1];
    struct ifinfomsg head;

    if (message->nlmsg_type != RTM_NEWLINK ||
        netlink_attrs(message, sizeof(head), IFLA_MTU, attrs) != 0)
        return err_set(err, ERR_PROTOCOL, "the kernel's answer is no interface");
    memcpy(&head, NLMSG_DATA(message), sizeof(head));
    side->ifindex = head.ifi_index;
    (void)netlink_u32(attrs[IFLA_MTU], &side->mtu);
    return 0;
}

static int find(int fd, struct side *side, struct err *err)
{
    const struct ifinfomsg head = {.ifi_family = AF_UNSPEC};
    struct netlink_message m;

    netlink_begin(&m, RTM_GETLINK, 0, &head, sizeof(head));
    netlink_put_text(&m, IFLA_IFNAME, side->name);
    if (netlink_ask(fd, &m, take_link, side, err) < 0)
        return err_prefix(err, "interface '%s'", side->name);
    return 0;
}

static int let_multicast_in(int fd, const struct side *link, struct err *err)
{
    const struct ifinfomsg head = {
        .ifi_index = link->ifindex, .ifi_flags = IFF_ALLMULTI, .ifi_change = IFF_ALLMULTI};
    struct netlink_message m;

    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    if (netlink_do(fd, &m, err) < 0)
        return err_prefix(err, "interface '%s': all multicast", link->name);
    return 0;
}

/* Before it goes up: then the address would be there already. */
static int keep_without_address(int fd, const struct side *tap, struct err *err)
{
    const struct ifinfomsg head = {.ifi_index = tap->ifindex};
    struct netlink_message m;
    struct err why;

    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    size_t spec = netlink_nest(&m, IFLA_AF_SPEC);
    size_t inet6 = netlink_nest(&m, AF_INET6);
    netlink_put_u8(&m, IFLA_INET6_ADDR_GEN_MODE, NO_ADDRESS_GENERATION);
    netlink_nest_end(&m, inet6);
    netlink_nest_end(&m, spec);
    /* A kernel that was booted without IPv6 has no such setting, and needs none. */
    if (netlink_do(fd, &m, &why) < 0 && why.sys_errno != EAFNOSUPPORT) {
        if (err != NULL)
            *err = why;
        return err_prefix(err, "tap '%s': no address of its own", tap->name);
    }
    return 0;
}

static int start_tap(int fd, const struct side *tap, uint32_t mtu, struct err *err)
{
    const struct ifinfomsg head = {
        .ifi_index = tap->ifindex, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct netlink_message m;

    if (keep_without_address(fd, tap, err) < 0)
        return -1;
    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    netlink_put_u32(&m, IFLA_MTU, mtu);
    if (netlink_do(fd, &m, err) < 0)
        return err_prefix(err, "tap '%s': MTU %u, up", tap->name, mtu);
    return 0;
}

static int add_ingress(int fd, const struct side *from, struct err *err)
{
    const struct tcmsg head = {.tcm_family = AF_UNSPEC,
                               .tcm_ifindex = from->ifindex,
                               .tcm_handle = TC_H_MAKE(TC_H_INGRESS, 0),
                               .tcm_parent = TC_H_INGRESS};
    struct netlink_message m;
    struct err why;

    netlink_begin(&m, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof(head));
    netlink_put_text(&m, TCA_KIND, "ingress");
    /* A plugin may have made one (or clsact, which takes its filters in the same place). */
    if (netlink_do(fd, &m, &why) < 0 && why.code != ERR_EXISTS) {
        if (err != NULL)
            *err = why;
        return err_prefix(err, "interface '%s': ingress", from->name);
    }
    return 0;
}

static void put_redirect(struct netlink_message *m, const struct side *to)
{
    const struct tc_mirred redirect = {
        .action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = (uint32_t)to->ifindex};
    size_t actions = netlink_nest(m, TCA_U32_ACT);
    size_t first = netlink_nest(m, 1);

    netlink_put_text(m, TCA_ACT_KIND, "mirred");
    size_t options = netlink_nest(m, TCA_ACT_OPTIONS);
    netlink_put(m, TCA_MIRRED_PARMS, &redirect, sizeof(redirect));
    netlink_nest_end(m, options);
    netlink_nest_end(m, first);
    netlink_nest_end(m, actions);
}

static int add_redirect(int fd, const struct side *from, const struct side *to, struct err *err)
{
    /* No priority given: the kernel takes one behind those that plugins give theirs. */
    const struct tcmsg head = {.tcm_family = AF_UNSPEC,
                               .tcm_ifindex = from->ifindex,
                               .tcm_parent = TC_H_MAKE(TC_H_INGRESS, 0),
                               .tcm_info = TC_H_MAKE(0, htons(ETH_P_ALL))};
    struct {
        struct tc_u32_sel sel;
        struct tc_u32_key key;
    } match = {.sel = {.flags = TC_U32_TERMINAL, .nkeys = 1}};
    struct netlink_message m;

    netlink_begin(&m, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof(head));
    netlink_put_text(&m, TCA_KIND, "u32");
    size_t options = netlink_nest(&m, TCA_OPTIONS);
    netlink_put(&m, TCA_U32_SEL, &match, sizeof(match));
    put_redirect(&m, to);
    netlink_nest_end(&m, options);
    if (netlink_do(fd, &m, err) < 0)
        return err_prefix(err, "redirect '%s' to '%s'", from->name, to->name);
    return 0;
}

int tc_join(int netns_fd, const char *link, const char *tap, struct err *err)
{
    struct side a = {.name = link}, b = {.name = tap};
    cleanup_fd int fd = -1;

    if (netns_socket(netns_fd, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, &fd, err) != 0 ||
        netlink_setup(fd, err) != 0 || find(fd, &a, err) != 0 || find(fd, &b, err) != 0)
        return -1;
    if (start_tap(fd, &b, a.mtu, err) != 0 || let_multicast_in(fd, &a, err) != 0 ||
        add_ingress(fd, &a, err) != 0 || add_ingress(fd, &b, err) != 0 ||
        add_redirect(fd, &b, &a, err) != 0 || add_redirect(fd, &a, &b, err) != 0)
        return -1;
    return 0;
}
