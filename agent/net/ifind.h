/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the VM's interfaces is meant, and what it is like now. One thread. */
#pragma once

#include <net/if.h>
#include <stdint.h>

#include "common/base/err.h"

struct ifind {
    int ifindex;
    unsigned int flags; /* IFF_* */
    char name[IFNAMSIZ];
    uint8_t mac[6]; /* zero when it has none of this length */
    uint32_t mtu;
};

#define IFIND_CLASS "/sys/class/net"

/*
 * The interface whose device, or whose device's root port, is device number `slot` of PCI bus 0.
 * class_dir: IFIND_CLASS. NOT_FOUND while there is none.
 */
int ifind_by_slot(int netlink_fd, const char *class_dir, unsigned int slot, struct ifind *ret,
                  struct err *err);
/* The first one that is in any slot, and which. */
int ifind_first(int netlink_fd, const char *class_dir, struct ifind *ret, unsigned int *ret_slot,
                struct err *err);
/* The one with this MAC address (6 bytes). NOT_FOUND while there is none. */
int ifind_by_mac(int netlink_fd, const uint8_t *mac, struct ifind *ret, struct err *err);
/* The one of this name. NOT_FOUND while there is none. */
int ifind_by_name(int netlink_fd, const char *name, struct ifind *ret, struct err *err);
