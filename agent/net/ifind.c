/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device's place is what the host knows for certain: in a clone the MAC address is still the
 * template's, and names are given in the order in which drivers found their devices. In sysfs a
 * network interface is below its virtio device, which is below its PCI device, which may be below
 * a root port.
 */
#include "agent/net/ifind.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/netlink.h"
#include "common/base/text.h"

#define MAX_PATH 512

struct search {
    const uint8_t *mac; /* NULL: the first one */
    struct ifind *ret;
    bool found;
};

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
    if (s->mac != NULL &&
        (memcmp(s->mac, link.mac, sizeof(link.mac)) != 0 || (link.flags & IFF_LOOPBACK) != 0))
        return 0;
    *s->ret = link;
    s->found = true;
    return 0;
}

int ifind_by_mac(int netlink_fd, const uint8_t *mac, struct ifind *ret, struct err *err)
{
    const struct ifinfomsg head = {.ifi_family = AF_UNSPEC};
    struct search s = {.mac = mac, .ret = ret};
    struct netlink_message m;
    struct err why;
    int result;

    do {
        netlink_begin(&m, RTM_GETLINK, NLM_F_DUMP, &head, sizeof(head));
        result = netlink_ask(netlink_fd, &m, take_link, &s, &why);
    } while (result < 0 && why.code == ERR_BAD_STATE);
    if (result < 0) {
        if (err != NULL)
            *err = why;
        return -1;
    }
    if (!s.found)
        return err_set(err, ERR_NOT_FOUND, "no interface has MAC %02x:%02x:%02x:%02x:%02x:%02x",
                       mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
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

/* The name of the only interface in DEVICE/net. False: there is none (yet). */
static bool read_net(const char *device, char ret_name[IFNAMSIZ])
{
    char path[MAX_PATH];
    const struct dirent *entry;
    bool found = false;

    if ((size_t)snprintf(path, sizeof(path), "%s/net", device) >= sizeof(path))
        return false;
    DIR *dir = opendir(path);
    while (dir != NULL && !found && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= IFNAMSIZ)
            continue;
        memcpy(ret_name, entry->d_name, strlen(entry->d_name) + 1);
        found = true;
    }
    if (dir != NULL)
        (void)closedir(dir);
    return found;
}

/* The interface of a PCI device's virtio device; of a port, also that of what is plugged into it.
 */
static bool search_device(const char *device, bool is_root, char ret_name[IFNAMSIZ])
{
    DIR *dir = opendir(device);
    const struct dirent *entry;
    bool found = false;

    while (dir != NULL && !found && (entry = readdir(dir)) != NULL) {
        char path[MAX_PATH];
        if ((size_t)snprintf(path, sizeof(path), "%s/%s", device, entry->d_name) >= sizeof(path))
            continue;
        if (text_has_prefix(entry->d_name, "virtio"))
            found = read_net(path, ret_name);
        else if (is_root && text_has_prefix(entry->d_name, "0000:"))
            found = search_device(path, false, ret_name);
    }
    if (dir != NULL)
        (void)closedir(dir);
    return found;
}

int ifind_by_slot(int netlink_fd, const char *devices, unsigned int slot, struct ifind *ret,
                  struct err *err)
{
    char path[MAX_PATH], name[IFNAMSIZ];

    if ((size_t)snprintf(path, sizeof(path), "%s/0000:00:%02x.0", devices, slot) >= sizeof(path))
        return err_set(err, ERR_INVALID, "path too long");
    if (!search_device(path, true, name))
        return err_set(err, ERR_NOT_FOUND, "no interface is in PCI slot %u", slot);
    return ifind_by_name(netlink_fd, name, ret, err);
}
