/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's counters come with the list of interfaces; an older, shorter struct is fine. */
#include "agent/net/netstats.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/cleanup.h"
#include "common/base/netlink.h"

struct reading {
    struct netstats *list;
    size_t n;
};

static int take_link(void *arg, const struct nlmsghdr *message, struct err *err)
{
    struct reading *r = arg;
    const struct nlattr *attrs[IFLA_STATS64 + 1];
    struct rtnl_link_stats64 figures = {0};
    struct ifinfomsg head;
    size_t n = 0;

    (void)err;
    if (r->n == NETSTATS_MAX || message->nlmsg_type != RTM_NEWLINK ||
        netlink_attrs(message, sizeof(head), IFLA_STATS64, attrs) < 0)
        return 0;
    memcpy(&head, NLMSG_DATA(message), sizeof(head));
    struct netstats *s = &r->list[r->n];
    if ((head.ifi_flags & IFF_LOOPBACK) != 0 || attrs[IFLA_STATS64] == NULL ||
        !netlink_text(attrs[IFLA_IFNAME], s->name, sizeof(s->name)))
        return 0;
    const void *bytes = netlink_bytes(attrs[IFLA_STATS64], &n);
    memcpy(&figures, bytes, n < sizeof(figures) ? n : sizeof(figures));
    casemate__agent__v1__net_interface_stats__init(&s->message);
    s->message.name = s->name;
    s->message.rx_bytes = figures.rx_bytes;
    s->message.rx_packets = figures.rx_packets;
    s->message.rx_errors = figures.rx_errors;
    s->message.rx_dropped = figures.rx_dropped;
    s->message.tx_bytes = figures.tx_bytes;
    s->message.tx_packets = figures.tx_packets;
    s->message.tx_errors = figures.tx_errors;
    s->message.tx_dropped = figures.tx_dropped;
    r->n++;
    return 0;
}

int netstats_read(struct netstats ret_stats[NETSTATS_MAX], size_t *ret_n, struct err *err)
{
    const struct ifinfomsg head = {.ifi_family = AF_UNSPEC};
    struct reading r = {.list = ret_stats};
    struct netlink_message m;
    struct err why = {0};
    cleanup_fd int fd = -1;

    if (netlink_open(&fd, err) < 0)
        return -1;
    netlink_begin(&m, RTM_GETLINK, NLM_F_DUMP, &head, sizeof(head));
    /* Links that come and go meanwhile: what was read is as good as it gets. */
    if (netlink_ask(fd, &m, take_link, &r, &why) < 0 && why.code != ERR_BAD_STATE) {
        if (err != NULL)
            *err = why;
        return -1;
    }
    *ret_n = r.n;
    return 0;
}
