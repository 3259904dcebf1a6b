/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an interface has: addresses, routes of the main table, permanent neighbours. Each function
 * makes them as the message (checked by netvalid.h) says: adds what is missing, takes off what is
 * more. What an IPv6 interface has by itself (fe80::/64, multicast, what routers announced) stays.
 * Repeating changes nothing. One thread. fresh: the interface is known to have nothing yet, which
 * saves reading what there is.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

/* Addresses, without the routes that come with them. */
int ifaddr_set_addresses(int netlink_fd, int ifindex,
                         const Casemate__Agent__V1__NetInterface *interface, bool fresh,
                         struct err *err);
/* Routes of the main table. The interface must be up. */
int ifaddr_set_routes(int netlink_fd, int ifindex,
                      const Casemate__Agent__V1__NetInterface *interface, bool fresh,
                      struct err *err);
/* Permanent neighbours; what the kernel has learned stays. */
int ifaddr_set_neighbours(int netlink_fd, int ifindex,
                          const Casemate__Agent__V1__NetInterface *interface, bool fresh,
                          struct err *err);
/* Its own IPv6 address, fe80::…, as the kernel makes it of a MAC address (6 bytes). */
int ifaddr_add_link_local(int netlink_fd, int ifindex, const uint8_t *mac, struct err *err);
/* Takes that one off; it must be there. */
int ifaddr_drop_link_local(int netlink_fd, int ifindex, const uint8_t *mac, struct err *err);
