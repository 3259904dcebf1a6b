/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device's place is what the host knows for certain: in a clone the MAC address is still the
 * template's, and names are given in the order in which drivers found their devices. A link of
 * sysfs leads from an interface to its device, by way of every bridge before it:
 * "../../devices/pci0000:00/0000:00:11.0/0000:01:00.0/virtio3/net/eth1" is in slot 0x11.
 */
#include "agent/net/ifind.h"

#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/netlink.h"

#define MAX_PATH 512

struct search {
    const uint8_t *mac;    /* that it has; NULL: any */
    const char *class_dir; /* NULL: anywhere */
    unsigned int slot;     /* that it is in; 0: any, and this is it */
    struct ifind *ret;
    bool found;
};

/* 0: in none. */
static unsigned int slot_of(const char *class_dir, const char *name)
{
    static const char root[] = "/pci0000:00/0000:00:";
    char path[MAX_PATH], target[MAX_PATH];
    unsigned int slot = 0;

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", class_dir, name) >= sizeof(path))
        return 0;
    ssize_t n = readlink(path, target, sizeof(target) - 1);
    if (n < 0)
        return 0;
    target[n] = '\0';
    const char *at = strstr(target, root);
    return at != NULL && sscanf(at + sizeof(root) - 1, "%2x.0/", &slot) == 1 ? slot : 0;
}

static bool fits(struct search *s, const struct ifind *link)
{
    if ((s->mac != NULL || s->class_dir != NULL) && (link->flags & IFF_LOOPBACK) != 0)
        return false;
    if (s->mac != NULL && memcmp(s->mac, link->mac, sizeof(link->mac)) != 0)
        return false;
    if (s->class_dir == NULL)
        return true;
    const unsigned int slot = slot_of(s->class_dir, link->name);
    if (slot == 0 || (s->slot != 0 && s->slot != slot))
        return false;
    s->slot = slot;
    return true;
}

static int take_link(void *arg, const struct nlmsghdr *message, struct err *err)
{
    struct search *s = arg;
    const struct nlattr *attrs[IFLA_MTU + 1];
    struct ifinfomsg head;
    struct ifind link = {0};

    if (s->found || message->nlmsg_type != RTM_NEWLINK)
        return 0;
    if (netlink_attrs(message, sizeof(head), IFLA_MTU, attrs) < 0)
        return err_set(err, ERR_PROTOCOL, "the kernel's answer is no interface");
    memcpy(&head, NLMSG_DATA(message), sizeof(head));
    link.ifindex = head.ifi_index;
    link.flags = head.ifi_flags;
    (void)netlink_text(attrs[IFLA_IFNAME], link.name, sizeof(link.name));
    (void)netlink_copy(attrs[IFLA_ADDRESS], link.mac, sizeof(link.mac));
    (void)netlink_u32(attrs[IFLA_MTU], &link.mtu);
    if (!fits(s, &link))
        return 0;
    *s->ret = link;
    s->found = true;
    return 0;
}

/* Looks through all links. */
static int look(int netlink_fd, struct search *s, struct err *err)
{
    const struct ifinfomsg head = {.ifi_family = AF_UNSPEC};
    struct netlink_message m;
    struct err why;
    int result;

    do {
        netlink_begin(&m, RTM_GETLINK, NLM_F_DUMP, &head, sizeof(head));
        result = netlink_ask(netlink_fd, &m, take_link, s, &why);
    } while (result < 0 && why.code == ERR_BAD_STATE);
    if (result < 0 && err != NULL)
        *err = why;
    return result;
}

int ifind_by_mac(int netlink_fd, const uint8_t *mac, struct ifind *ret, struct err *err)
{
    struct search s = {.mac = mac, .ret = ret};

    if (look(netlink_fd, &s, err) < 0)
        return -1;
    if (!s.found)
        return err_set(err, ERR_NOT_FOUND, "no interface has MAC %02x:%02x:%02x:%02x:%02x:%02x",
                       mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    return 0;
}

int ifind_by_slot(int netlink_fd, const char *class_dir, unsigned int slot, struct ifind *ret,
                  struct err *err)
{
    struct search s = {.class_dir = class_dir, .slot = slot, .ret = ret};

    if (look(netlink_fd, &s, err) < 0)
        return -1;
    if (!s.found)
        return err_set(err, ERR_NOT_FOUND, "no interface is in PCI slot %u", slot);
    return 0;
}

int ifind_first(int netlink_fd, const char *class_dir, struct ifind *ret, unsigned int *ret_slot,
                struct err *err)
{
    struct search s = {.class_dir = class_dir, .ret = ret};

    if (look(netlink_fd, &s, err) < 0)
        return -1;
    if (!s.found)
        return err_set(err, ERR_NOT_FOUND, "no interface is in a PCI slot");
    *ret_slot = s.slot;
    return 0;
}

int ifind_by_name(int netlink_fd, const char *name, struct ifind *ret, struct err *err)
{
    const struct ifinfomsg head = {.ifi_family = AF_UNSPEC};
    struct search s = {.ret = ret};
    struct netlink_message m;
    struct err why;

    netlink_begin(&m, RTM_GETLINK, 0, &head, sizeof(head));
    netlink_put_text(&m, IFLA_IFNAME, name);
    if (netlink_ask(netlink_fd, &m, take_link, &s, &why) < 0 || !s.found)
        return err_set(err, ERR_NOT_FOUND, "no interface is called '%s'", name);
    return 0;
}
