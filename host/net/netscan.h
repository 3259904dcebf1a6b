/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel says of a namespace's interfaces: links, addresses, routes of the main table,
 * permanent neighbours. Only this file reads rtnetlink's dumps. The result is the caller's.
 * Thread-safe; blocks for a few ms.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "host/net/net.h"

#define NETSCAN_MAX_LINKS 64   /* in a namespace; more are an error */
#define NETSCAN_MAX_ITEMS 4096 /* addresses, routes, neighbours, each */

struct netscan_link {
    struct net_iface iface; /* tap_fd -1 */
    int ifindex;
    bool ethernet;   /* the MAC is valid */
    bool has_master; /* a bridge's or bond's port */
};

struct netscan {
    struct netscan_link *links; /* in order of ifindex, without loopback */
    size_t n;
};

/* All of a namespace, at one moment. EXHAUSTED beyond the limits. */
int netscan_read(int netns_fd, struct netscan *ret_scan, struct err *err);
/* The link of a name, or NULL. */
struct netscan_link *netscan_find(struct netscan *scan, const char *name);
/* Frees what it owns and zeroes it. */
void netscan_fini(struct netscan *scan);
#define cleanup_netscan CLEANUP(netscan_fini)

/* Frees what iface owns, closes its tap, and empties it. */
void net_iface_fini(struct net_iface *iface);
